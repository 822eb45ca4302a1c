//! Files that are longer or shorter than they were, and the mark of the commit that counts.

use std::fs;
use std::path::{Path, PathBuf};

use bson::doc;

use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{
    Store, StoreError, StoreKey, StoreOptions, Tx, check_store, read_what_is_left, recode_store,
};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 10_000, audit_keep_rows: 10_000, clock: || 0 };
/// Where the two places of the first block of an encrypted store lie.
const PLACES_AT: [usize; 2] = [8_192, 12_800];
const PLACE_BYTES: usize = 4_608;
/// What of a place is used.
const PLACE_USED: usize = 8 + 24 + 4_096 + 16;

/// What a file holds at a moment, and the sum of its rows.
struct Image {
    what: &'static str,
    bytes: Vec<u8>,
    sum: String,
}

/// A store in a file, as it was when its node was killed, and as it was once it had been closed.
struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    key: Option<StoreKey>,
    images: Vec<Image>,
}

async fn put(store: &Store, from: usize, to: usize) {
    let job = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for n in from..to {
            let id = format!("person-{n:03}");
            let person = doc! {"_id": &id, "name": format!("Name{n}"), "note": "x".repeat(200)};
            tx.edit(&RecordKey::new(Kind::Person, id.as_str()), Some(&person), &Actor::Centre)?;
        }
        Ok(())
    };
    store.transact(job).await.unwrap();
}

impl Fixture {
    async fn new(is_sealed: bool) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let key = is_sealed.then(|| StoreKey::random().unwrap());
        let store = Store::open_with_key(&path, key.as_ref(), OPTIONS).unwrap();
        let mut images = Vec::new();
        for (n, what) in ["killed", "killed one commit later"].into_iter().enumerate() {
            put(&store, n * 100, n * 100 + 60 + n).await;
            let sum = store.read().unwrap().rows_sha256().unwrap();
            images.push(Image { what, bytes: fs::read(&path).unwrap(), sum });
        }
        let sum = store.read().unwrap().rows_sha256().unwrap();
        drop(store);
        images.push(Image { what: "closed", bytes: fs::read(&path).unwrap(), sum });
        Fixture { _directory: directory, path, key, images }
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open_with_key(&self.path, self.key.as_ref(), OPTIONS)
    }

    fn complaints(&self) -> Vec<String> {
        let before = fs::read(&self.path).unwrap();
        let checked = check_store(&self.path, self.key.as_ref(), 1 << 20).unwrap();
        assert!(fs::read(&self.path).unwrap() == before, "a check has written");
        assert!(checked.complaints.is_empty() || checked.is_put_right_by_a_start, "{:?}", checked.complaints);
        checked.complaints
    }

    /// The store opens, lacks nothing and is in order afterwards.
    fn lacks_nothing(&self, bytes: &[u8], sum: &str, what: &str) -> Vec<String> {
        fs::write(&self.path, bytes).unwrap();
        let said = self.complaints();
        let store = self.open().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(store.read().unwrap().rows_sha256().unwrap(), sum, "{what}: a commit is missing");
        drop(store);
        let checked = check_store(&self.path, self.key.as_ref(), 1 << 20).unwrap();
        assert_eq!((checked.was_clean, checked.complaints), (true, vec![]), "{what}");
        said
    }
}

#[tokio::test]
async fn what_is_appended_to_a_store_keeps_nobody_from_opening_it() {
    for is_sealed in [false, true] {
        let fixture = Fixture::new(is_sealed).await;
        for Image { what, bytes, sum } in &fixture.images {
            let page = if is_sealed { 4_136 } else { 4_096 };
            for length in [1, 512, page - 1, page, page + 1, 3 * page, 65_536, 1_000_000] {
                for fill in ["zeros", "noise", "copy"] {
                    let mut longer = bytes.clone();
                    match fill {
                        "zeros" => longer.resize(bytes.len() + length, 0),
                        "noise" => longer.extend((0..length).map(|n| (n * 7 % 251) as u8)),
                        _ => longer.extend(bytes.iter().cycle().take(length)),
                    }
                    let what = format!("sealed {is_sealed}, {what}, {length} bytes of {fill}");
                    let said = fixture.lacks_nothing(&longer, sum, &what);
                    // Whole pages behind the end of a file that nobody closed are free pages like others.
                    if length % page != 0 || what.contains("closed") {
                        // A length that one bit of the header explains is taken for a wrong bit.
                        let is_told = |said: &String| {
                            said.contains("behind the end of the file") || said.contains("1 single bits")
                        };
                        assert!(!said.is_empty() && said.iter().all(is_told), "{what}: {said:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_is_cut_off_lacks_nothing_or_is_refused_with_a_remedy() {
    for is_sealed in [false, true] {
        let fixture = Fixture::new(is_sealed).await;
        let mut refused = 0;
        for Image { what, bytes, sum } in &fixture.images {
            let near =
                [1, 9, 23, 24, 95, 96, 4_095, 4_096, 8_191, 8_192, 8_193, 12_800, 17_407, 17_408, 17_500];
            let spread = (1..40).map(|n| n * bytes.len() / 40 + n % 3);
            let ends = [4_137, 4_096, 513, 512, 1].map(|less| bytes.len() - less);
            for length in near.into_iter().chain(spread).chain(ends).filter(|length| *length < bytes.len()) {
                fs::write(&fixture.path, &bytes[..length]).unwrap();
                let what = format!("sealed {is_sealed}, {what}, {length} bytes of {}", bytes.len());
                let checked = check_store(&fixture.path, fixture.key.as_ref(), 1 << 20);
                match fixture.open() {
                    Ok(store) => {
                        assert_eq!(&store.read().unwrap().rows_sha256().unwrap(), sum, "{what}");
                    }
                    Err(error) => {
                        let said = error.to_string();
                        assert!(said.contains("the end of the file"), "{what}: {said}");
                        assert!(said.contains("restore") || said.contains("Restore"), "{what}: {said}");
                        assert!(fs::read(&fixture.path).unwrap() == bytes[..length], "{what}: written to");
                        assert!(
                            checked.map_or(true, |checked| !checked.complaints.is_empty()),
                            "{what}: a check finds nothing"
                        );
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 60, "{refused}");
    }
}

/// Stores of many lengths, so that the length after the cut is often one bit from the length in the header.
#[tokio::test]
async fn a_cut_is_not_taken_for_a_wrong_bit_of_the_length_nor_the_other_way_round() {
    let (mut refused, mut one_bit_apart) = (0, 0);
    for is_sealed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let key = is_sealed.then(|| StoreKey::random().unwrap());
        let open = || Store::open_with_key(&path, key.as_ref(), OPTIONS);
        for n in 0..12 {
            let store = open().unwrap();
            put(&store, n * 7, n * 7 + 7).await;
            let sum = store.read().unwrap().rows_sha256().unwrap();
            drop(store);
            let whole = fs::read(&path).unwrap();
            let (page, head) = if is_sealed { (4_136, 17_408 - 4_136) } else { (4_096, 0) };
            let pages = (whole.len() - head) / page;
            for less in [1, 100, page - 1, page, page + 1, 2 * page, 3 * page] {
                let cut = &whole[..whole.len() - less];
                fs::write(&path, cut).unwrap();
                let what = format!("sealed {is_sealed}, {pages} pages, {less} bytes less");
                let checked = check_store(&path, key.as_ref(), 1 << 20);
                match open() {
                    Ok(store) => {
                        assert!(less % page == 0, "{what}: opened");
                        assert_eq!(store.read().unwrap().rows_sha256().unwrap(), sum, "{what}");
                    }
                    Err(error) => {
                        let said = format!("should have {} bytes and has {}", whole.len(), cut.len());
                        assert!(error.to_string().contains(&said), "{what}: {error}");
                        assert!(fs::read(&path).unwrap() == cut, "{what}: written to");
                        match checked {
                            Ok(checked) => assert!(!checked.complaints.is_empty(), "{what}"),
                            Err(error) => assert!(error.to_string().contains(&said), "{what}: {error}"),
                        }
                        let left =
                            read_what_is_left(&path, key.as_ref(), |_| -> Result<(), StoreError> { Ok(()) });
                        assert!(left.unwrap().iter().any(|what| what.contains(&said)), "{what}");
                        refused += 1;
                        one_bit_apart +=
                            u32::from(((pages - 1) ^ (cut.len() - head).div_ceil(page)).count_ones() == 1);
                    }
                }
            }
            // The two fields of the length, of which only a file that is not sealed can have a wrong bit.
            let bits = [24, 28].into_iter().flat_map(|at| (0..7).map(move |bit| (at, bit)));
            for (at, bit) in bits.filter(|_| !is_sealed) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).unwrap();
                let store = open().unwrap_or_else(|error| panic!("{pages} pages, {at}:{bit}: {error}"));
                assert_eq!(store.read().unwrap().rows_sha256().unwrap(), sum, "{pages} pages, {at}:{bit}");
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    println!("{refused} refused, {one_bit_apart} of them one bit apart");
    assert!(refused > 60 && one_bit_apart > 5, "{refused} {one_bit_apart}");
}

/// Damage of any kind in one place of the first block, whichever of the two was written last.
#[tokio::test]
async fn no_commit_goes_with_a_place_of_the_first_block() {
    let (fixture, mut turn) = (Fixture::new(true).await, 0);
    for Image { what, bytes, sum } in &fixture.images {
        for at in PLACES_AT {
            let mut told = 0;
            // To look for a single wrong bit in vain takes a while.
            let ranges = [0..8, 32..544, 4_128..PLACE_USED, 8..32, 2_000..2_002, 0..PLACE_BYTES];
            for (range, fill) in ranges.into_iter().skip(turn % 3).step_by(3).zip([0, 0xff]) {
                turn += 1;
                let mut damaged = bytes.clone();
                damaged[at + range.start..at + range.end].fill(fill);
                let what = format!("{what}, {fill:02x} in {range:?} of the place at {at}");
                let said = fixture.lacks_nothing(&damaged, sum, &what);
                told += usize::from(said.iter().any(|said| said.contains("first block does not open")));
            }
            assert!(told > 0, "{what} {at}: {told}");
        }
        // Both: refused, and told how to go on.
        let mut damaged = bytes.clone();
        for at in PLACES_AT {
            damaged[at..at + PLACE_BYTES].fill(0);
        }
        fs::write(&fixture.path, &damaged).unwrap();
        let said = fixture.open().err().unwrap().to_string();
        assert!(said.contains("first block") && said.contains("restore FILE"), "{said}");
    }
}

/// The mark says which of two commits counts, and no checksum covers it.
#[tokio::test]
async fn no_commit_goes_with_the_bit_that_marks_it() {
    let fixture = Fixture::new(false).await;
    for Image { what, bytes, sum } in &fixture.images {
        let mut damaged = bytes.clone();
        damaged[9] ^= 1;
        let said = match *what {
            // Of a closed file it is known that the bit is wrong; it is counted, which is a row.
            "closed" => {
                fs::write(&fixture.path, &damaged).unwrap();
                assert_eq!(fixture.open().unwrap().read().unwrap().count(Kind::Person).unwrap(), 121);
                continue;
            }
            _ => fixture.lacks_nothing(&damaged, sum, what),
        };
        assert!(said.is_empty(), "after a power cut it may be so: {said:?}");
    }
}

/// The power fails between the two steps of a commit: its pages are on the disk, or some of them are not.
#[tokio::test]
async fn a_commit_that_was_being_written_is_there_as_a_whole_or_not_at_all() {
    for is_sealed in [false, true] {
        let fixture = Fixture::new(is_sealed).await;
        let [before, after, _] = &fixture.images[..] else { panic!("three images") };
        let block = if is_sealed { 4_136 } else { 4_096 };
        let first = if is_sealed { 17_408 } else { 4_096 };
        let changed: Vec<usize> = (first..before.bytes.len())
            .step_by(block)
            .filter(|at| before.bytes[*at..*at + block] != after.bytes[*at..*at + block])
            .collect();
        let (mut gone, mut there) = (0, 0);
        for left_out in changed.iter().copied().step_by(3).map(Some).chain([None]) {
            let mut image = after.bytes.clone();
            if let Some(at) = left_out {
                image[at..at + block].copy_from_slice(&before.bytes[at..at + block]);
            }
            // The second step did not happen: of a sealed store the place that was written last is as it was before.
            match is_sealed {
                false => image[9] ^= 1,
                true => {
                    let counter =
                        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                    let last = PLACES_AT.into_iter().max_by_key(|at| counter(&after.bytes, *at)).unwrap();
                    image[last..last + PLACE_BYTES].copy_from_slice(&before.bytes[last..last + PLACE_BYTES]);
                }
            }
            fs::write(&fixture.path, &image).unwrap();
            let store = fixture.open().unwrap_or_else(|error| panic!("{is_sealed} {left_out:?}: {error}"));
            let sum = store.read().unwrap().rows_sha256().unwrap();
            assert!(sum == before.sum || sum == after.sum, "{is_sealed} {left_out:?}: half of a commit");
            (gone, there) = (gone + usize::from(sum == before.sum), there + usize::from(sum == after.sum));
            assert!(left_out.is_some() || sum == after.sum, "all of it was there");
        }
        assert!(gone > 0 && there > 0, "{is_sealed}: {gone} {there}");
    }
}

/// More than one bit of the last commit rotted, and the mark as well: an encrypted store knows that it was complete.
#[tokio::test]
async fn a_rotten_commit_is_not_taken_for_one_that_was_being_written() {
    let fixture = Fixture::new(true).await;
    let [before, after, _] = &fixture.images[..] else { panic!("three images") };
    let changed = (17_408..before.bytes.len()).step_by(4_136);
    let changed = changed.filter(|at| before.bytes[*at..*at + 4_136] != after.bytes[*at..*at + 4_136]);
    let counter = |at: &usize| u64::from_le_bytes(after.bytes[*at..*at + 8].try_into().unwrap());
    let last = PLACES_AT.into_iter().max_by_key(counter).unwrap();
    let mut told = 0;
    for at in changed.step_by(3) {
        let mut image = after.bytes.clone();
        image[last + 1_000..last + 1_512].fill(0);
        image[at + 1_000] ^= 3;
        fs::write(&fixture.path, &image).unwrap();
        match fixture.open() {
            Err(StoreError::Broken(_)) => told += 1,
            Err(error) => panic!("{at}: {error}"),
            Ok(store) => {
                let is_told = !store.damaged_rows().is_empty();
                let people = store.read().unwrap().count(Kind::Person);
                assert!(is_told || people.unwrap() == 121, "{at}: gone back without a word");
                told += usize::from(is_told);
            }
        }
    }
    assert!(told > 3, "{told}");
}

/// Blocks that nothing leads to are neither checked nor read, except by what copies them all.
#[tokio::test]
async fn a_block_that_is_not_used_is_in_nobodys_way() {
    let fixture = Fixture::new(true).await;
    let copy = |path: &Path| path.with_extension("decrypted");
    for Image { what, bytes, sum } in &fixture.images {
        let (mut unused, mut others) = (0, 0);
        for at in (17_408..bytes.len() - 4_136).step_by(4_136 * 5) {
            let mut damaged = bytes.clone();
            damaged[at + 300..at + 340].fill(0xa7);
            fs::write(&fixture.path, &damaged).unwrap();
            let is_used = check_store(&fixture.path, fixture.key.as_ref(), 1 << 20)
                .map_or(true, |checked| !checked.complaints.is_empty());
            let path = copy(&fixture.path);
            fs::copy(&fixture.path, &path).unwrap();
            match recode_store(&path, fixture.key.as_ref(), None) {
                Err(StoreError::Broken(_)) if is_used => others += 1,
                Err(error) => panic!("{what} {at} {is_used}: {error}"),
                Ok(_) => {
                    let store = Store::open(&path, OPTIONS).unwrap();
                    let now = store.read().unwrap().rows_sha256();
                    let is_told = now.is_err() || !store.damaged_rows().is_empty() || is_used;
                    assert!(is_told || now.unwrap() == *sum, "{what} {at}: something is missing");
                    unused += usize::from(!is_used);
                    others += usize::from(is_used);
                }
            }
        }
        assert!(unused > 0 && others > 0, "{what}: {unused} {others}");
    }
}
