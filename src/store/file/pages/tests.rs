//! Every kind of page with a wrong bit in it: all of them are found, and the file is what it was afterwards.

use std::fs;
use std::path::Path;

use bson::doc;
use redb::backends::FileBackend;

use super::layout::{BRANCH, sum};
use super::*;
use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{
    Left, Snapshot, Store, StoreKey, StoreOptions, StreamError, Tx, check_store, compact_store,
    read_what_is_left,
};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 10_000, audit_keep_rows: 10_000, clock: || 0 };

/// A store with branches, closed properly.
async fn store_in(path: &Path, key: Option<&StoreKey>) {
    let store = Store::open_with_key(path, key, OPTIONS).unwrap();
    let job = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for n in 0..150 {
            let id = format!("person-{n:03}");
            let person = doc! {"_id": &id, "name": format!("Name{n}"), "note": "x".repeat(200)};
            tx.edit(&RecordKey::new(Kind::Person, id.as_str()), Some(&person), &Actor::Centre)?;
        }
        Ok(())
    };
    store.transact(job).await.unwrap();
}

fn look(path: &Path) -> Inspected {
    let file = FileBackend::new(fs::OpenOptions::new().read(true).write(true).open(path).unwrap()).unwrap();
    let found = inspect(&file, true).unwrap();
    assert!(found.flips.len() >= inspect(&file, false).unwrap().flips.len());
    put_right(&file, &found).unwrap();
    found
}

fn look_only(path: &Path) -> Inspected {
    let file = FileBackend::new(fs::OpenOptions::new().read(true).write(true).open(path).unwrap()).unwrap();
    inspect(&file, true).unwrap()
}

/// What the store says of itself after one bit of its file was flipped and the store was opened.
fn after_a_flip(
    (path, key): (&Path, Option<&StoreKey>),
    whole: &[u8],
    at: usize,
    bit: u8,
) -> Result<String, String> {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
    let text = |error: &dyn std::fmt::Display| format!("{at}:{bit}: {error}");
    let store = Store::open_with_key(path, key, OPTIONS).map_err(|error| text(&error))?;
    let snapshot = store.read().map_err(|error| text(&error))?;
    let contradictions = snapshot.disagreements().map_err(|error| text(&error))?;
    if !contradictions.is_empty() {
        return Err(text(&contradictions.join(", ")));
    }
    snapshot.rows_sha256().map_err(|error| text(&error))
}

impl Snapshot {
    /// Over all rows but those of `meta`.
    pub(in crate::store::file::pages) fn rows_sha256(&self) -> Result<String, StreamError> {
        let mut text = String::new();
        for kind in Kind::ALL {
            for record in self.list(kind, None, usize::MAX, usize::MAX)?.records {
                text += &format!("{:?}", record.document);
            }
        }
        for row in self.journal(0, usize::MAX)?.rows {
            text += &format!("{row:?}");
        }
        text += &self.audit_head()?.to_string();
        Ok(format!("{:x}", sum(text.as_bytes())))
    }
}

#[tokio::test]
async fn a_wrong_bit_anywhere_changes_nothing_that_the_store_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let whole = fs::read(&path).unwrap();
    assert!(look(&path).is_whole());
    let right = after_a_flip((&path, None), &whole, whole.len() - 1, 0).unwrap();
    // What is not zero is used, or was; a step that is no power of two comes by every place of a page.
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let places =
        used.iter().copied().step_by(used.len() / 120).chain([0, 9, 12, 22, 28, 64, 80, 105, 130, 200]);
    let mut mended = 0;
    for (n, at) in places.enumerate() {
        assert_eq!(after_a_flip((&path, None), &whole, at, (n % 8) as u8), Ok(right.clone()), "{at}");
        let store = Store::open(&path, OPTIONS).unwrap();
        assert!(store.damaged_rows().is_empty(), "{at}");
        mended += u64::from(store.bits_put_right().unwrap().is_some());
    }
    assert!(mended > 50, "{mended}");
}

#[tokio::test]
async fn a_wrong_bit_anywhere_in_an_encrypted_store_changes_nothing_either() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let key = StoreKey::random().unwrap();
    store_in(&path, Some(&key)).await;
    let whole = fs::read(&path).unwrap();
    let right = after_a_flip((&path, Some(&key)), &whole, whole.len() - 1, 0).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    // The copies of the key, and both places of the first block: its counter, nonce and text.
    let heads = [0, 17, 30, 4096, 4120, 8192, 8193, 8200, 8230, 9000, 12800, 12801, 12820, 14000];
    for (n, at) in used.iter().copied().step_by(used.len() / 40).chain(heads).enumerate() {
        let found = after_a_flip((&path, Some(&key)), &whole, at, (n % 8) as u8);
        assert_eq!(found, Ok(right.clone()), "{at}");
    }
}

/// Two wrong bits in the commit that counts: the commit before it is whole, and lacks what was acknowledged last.
#[tokio::test]
async fn a_damaged_last_commit_does_not_give_way_to_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let whole = fs::read(&path).unwrap();
    let right = after_a_flip((&path, None), &whole, whole.len() - 1, 0).unwrap();
    let (mut refused, mut opened) = (0, 0);
    for slot in [64, 192] {
        for at in [0, 8, 16, 30, 40, 50, 104, 106, 112, 127] {
            let mut bytes = whole.clone();
            bytes[slot + at] ^= 3;
            fs::write(&path, &bytes).unwrap();
            match Store::open(&path, OPTIONS) {
                Err(error) => {
                    let counts = usize::from(whole[9] & 1 == 1) * 128 + 64 == slot;
                    assert!(!counts || matches!(error, StoreError::Broken(_)), "{slot} {at}: {error}");
                    assert!(fs::read(&path).unwrap() == bytes, "{slot} {at} was written to");
                    refused += 1;
                    let mut people = 0;
                    let broken = read_what_is_left(&path, None, |_| -> Result<(), StoreError> {
                        people += 1;
                        Ok(())
                    });
                    assert_eq!(counts || at == 0, !broken.unwrap().is_empty(), "{slot} {at}");
                }
                Ok(store) => {
                    assert_eq!(store.read().unwrap().rows_sha256().unwrap(), right, "{slot} {at}");
                    opened += 1;
                }
            }
        }
    }
    assert!(refused >= 10 && opened > 5, "{refused} {opened}");
}

#[tokio::test]
async fn a_file_that_is_cut_off_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let whole = fs::read(&path).unwrap();
    for length in [whole.len() - 1, whole.len() - 4096, whole.len() / 2, 8192, 100] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Store::open(&path, OPTIONS).err().unwrap().to_string();
        let said = match length {
            100 => "should have 8192 bytes at least and has 100)".to_owned(),
            _ => format!("should have {} bytes and has {length})", whole.len()),
        };
        assert!(error.contains(&said) && error.contains("restore FILE"), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().len(), length as u64);
    }
}

/// A page that is large because of one row, with two wrong bits in it, and single ones elsewhere.
#[tokio::test]
async fn a_large_page_leaves_the_search_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let store = Store::open(&path, OPTIONS).unwrap();
    let job = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for (id, letter) in [("a-large-1", "y"), ("z-large-2", "z")] {
            let note = format!("begin-{letter}{}{letter}-end", letter.repeat(400_000));
            let person = doc! {"_id": id, "name": "Large", "note": note};
            tx.edit(&RecordKey::new(Kind::Person, id), Some(&person), &Actor::Centre)?;
        }
        Ok(())
    };
    store.transact(job).await.unwrap();
    let right = store.read().unwrap().rows_sha256().unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let find = |text: &[u8]| {
        let last = (0..whole.len() - text.len()).rev().find(|at| whole[*at..].starts_with(text));
        last.unwrap_or_else(|| panic!("{text:?} is not there"))
    };
    let changed = |changes: &[(usize, u8)]| {
        let mut bytes = whole.clone();
        for (at, mask) in changes {
            bytes[*at] ^= mask;
        }
        fs::write(&path, bytes).unwrap();
        let begun = std::time::Instant::now();
        let found = look(&path);
        (found, begun.elapsed())
    };
    // One bit each in both large rows: both are put right, at once.
    let (found, took) = changed(&[(find(b"yy-end"), 4), (find(b"begin-zz"), 1)]);
    assert_eq!((found.flips.len(), found.damaged.len(), found.broken.len()), (2, 0, 0), "{found:?}");
    assert!(took.as_secs() < 20, "{took:?}");
    let store = Store::open(&path, OPTIONS).unwrap();
    assert_eq!(store.read().unwrap().rows_sha256().unwrap(), right);
    drop(store);
    // Two in one of them: its row is damaged, and the other one is put right.
    let (found, took) = changed(&[(find(b"yy-end"), 6), (find(b"begin-zz"), 1)]);
    assert_eq!((found.flips.len(), found.damaged.len(), found.broken.len()), (1, 1, 0), "{found:?}");
    assert!(took.as_secs() < 20, "{took:?}");
}

#[tokio::test]
async fn wrong_bits_of_an_open_store_are_found_and_put_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let store = Store::open(&path, OPTIONS).unwrap();
    let right = store.read().unwrap().rows_sha256().unwrap();
    let edit = |n: usize| {
        let store = store.clone();
        async move {
            let id = format!("later-{n}");
            let job = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                let person = doc! {"_id": &id, "name": "Later"};
                tx.edit(&RecordKey::new(Kind::Person, id.as_str()), Some(&person), &Actor::Centre).map(|_| ())
            };
            store.transact(job).await
        }
    };
    edit(0).await.unwrap();
    store.look_at_pages().await.unwrap();
    let bits = || store.bits_put_right().unwrap().map_or(0, |found| found.bits);
    assert_eq!(bits(), 0, "nothing is wrong");
    // A term that a person is found by, wherever it stands: one of the places counts.
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let name = b"name140";
    let places: Vec<usize> =
        (0..whole.len() - name.len()).filter(|at| whole[*at..].starts_with(name)).collect();
    for place in &places {
        std::os::unix::fs::FileExt::write_at(&file, &[whole[*place] ^ 1], *place as u64).unwrap();
    }
    store.look_at_pages().await.unwrap();
    assert_eq!(store.read().unwrap().people_named("name140").unwrap().len(), 1, "{places:?}");
    assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
    edit(1).await.unwrap();
    drop(file);
    assert_ne!(store.read().unwrap().rows_sha256().unwrap(), right);
    drop(store);
    assert!(look(&path).is_whole());
}

#[tokio::test]
async fn pages_with_more_wrong_bits_are_named_and_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let whole = fs::read(&path).unwrap();
    // In the list of tables a name stands once for each of the last commits.
    let name = b"by_spelling";
    let places: Vec<usize> =
        (0..whole.len() - name.len()).filter(|at| &whole[*at..*at + name.len()] == name).collect();
    let mut bytes = whole.clone();
    for at in places {
        (bytes[at], bytes[at + 1]) = (!bytes[at], !bytes[at + 1]);
    }
    fs::write(&path, &bytes).unwrap();
    let found = look(&path);
    assert_eq!(found.broken.into_iter().collect::<Vec<_>>(), ["the list of tables"]);
    assert_eq!((found.flips.len(), fs::read(&path).unwrap() == bytes), (0, true));
}

/// Zeros, or what belongs elsewhere, in the place of every page in turn: the store is not opened and its file stays
/// as it is, or it is opened and is whole in the end.
#[tokio::test]
async fn a_file_with_a_page_that_nothing_explains_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let whole = fs::read(&path).unwrap();
    let page = PAGE_BYTES as usize;
    let used: Vec<usize> =
        (page..whole.len()).step_by(page).filter(|at| [LEAF, BRANCH].contains(&whole[*at])).collect();
    let (mut refused, mut mended, mut lists) = (0, 0, 0);
    for (n, at) in used.iter().copied().enumerate() {
        let mut bytes = whole.clone();
        match n % 2 {
            0 => bytes[at..at + page].fill(0),
            _ => {
                bytes[at + 2] ^= 3;
                bytes[at + 9] ^= 3;
            }
        }
        fs::write(&path, &bytes).unwrap();
        match Store::open(&path, OPTIONS) {
            Err(StoreError::Broken(tables)) => {
                assert!(fs::read(&path).unwrap() == bytes, "{tables} at {at} was written to");
                refused += 1;
                lists += usize::from(tables.contains(LIST_OF_TABLES));
                let checked = check_store(&path, None, 1 << 20);
                assert!(checked.is_err() || !checked.unwrap().complaints.is_empty(), "{at}");
                assert!(fs::read(&path).unwrap() == bytes, "a check has written");
            }
            Err(error) => panic!("{at}: {error}"),
            Ok(store) => {
                drop(store);
                let found = look(&path);
                assert!(found.broken.is_empty(), "{at}: {:?}", found.broken);
                let checked = check_store(&path, None, 1 << 20).unwrap();
                let is_in_order = checked.was_clean && checked.complaints.is_empty();
                assert!(is_in_order || !checked.damaged.is_empty(), "{at}: {:?}", checked.complaints);
                mended += 1;
            }
        }
    }
    assert!(refused > 5 && lists > 0 && mended > 5, "{refused} {lists} {mended} of {}", used.len());
}

/// The disk wrote a page to the place of another: its rows explain nothing, of whichever table they are.
#[tokio::test]
async fn a_page_in_the_place_of_another_is_no_leaf_full_of_damaged_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let whole = fs::read(&path).unwrap();
    let page = PAGE_BYTES as usize;
    let leaves: Vec<usize> =
        (page..whole.len()).step_by(page).filter(|at| whole[*at] == LEAF && whole[*at + 2] > 0).collect();
    let mut broken = 0;
    for (n, at) in leaves.iter().copied().enumerate() {
        for other in leaves.iter().copied().skip(n % 7).step_by(7).filter(|other| *other != at) {
            let mut bytes = whole.clone();
            bytes.copy_within(other..other + page, at);
            let file = redb::backends::InMemoryBackend::new();
            file.set_len(bytes.len() as u64).unwrap();
            file.write(0, &bytes).unwrap();
            let found = inspect(&file, true).unwrap();
            assert_eq!(found.damaged, [], "page {} at {}", other / page, at / page);
            broken += usize::from(!found.broken.is_empty());
        }
    }
    assert!(broken > 50, "{broken} of {}", leaves.len());
    // Nothing but the values of a row: that row is damaged, and no other.
    let mut bytes = whole.clone();
    let name = b"Name70\0";
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    for place in places {
        bytes[place] ^= 6;
    }
    fs::write(&path, &bytes).unwrap();
    let found = look(&path);
    assert!(found.broken.is_empty(), "{:?}", found.broken);
    assert!(found.damaged.iter().any(|(table, key)| table == "docs" && key.ends_with(b"person-070")));
}

#[tokio::test]
async fn what_is_left_of_damaged_pages_is_read_without_redb() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let read = || {
        let mut ids = Vec::new();
        let broken = read_what_is_left(&path, None, |left| -> Result<(), StoreError> {
            if let Left::Record(record) = left {
                ids.push(record.key.id);
            }
            Ok(())
        });
        (ids, broken.unwrap())
    };
    let (all, broken) = read();
    assert_eq!((all.len(), broken), (150, vec![]));
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let page = PAGE_BYTES as usize;
    // Leaves of records, whatever commit they are of.
    let places: Vec<usize> = (page..whole.len())
        .step_by(page)
        .filter(|at| {
            whole[*at] == LEAF && whole[*at..at + page].windows(10).any(|text| text == b"person-070")
        })
        .collect();
    for at in &places {
        bytes[*at..at + page].fill(0);
    }
    fs::write(&path, &bytes).unwrap();
    let (left, broken) = read();
    assert!(left.len() > 100 && left.len() < 150, "{} of 150, {places:?}", left.len());
    assert!(broken.contains(&"docs".to_owned()), "{broken:?}");
    assert!(!left.contains(&"person-070".to_owned()));
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn what_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other");
    for bytes in [vec![], vec![7; 100], vec![7; 10_000], vec![0; 8192]] {
        fs::write(&path, &bytes).unwrap();
        assert!(look(&path).is_whole());
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_index_with_a_damaged_page_is_made_anew_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let mut bytes = fs::read(&path).unwrap();
    let name = b"name140";
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    for place in places {
        bytes[place] ^= 6;
    }
    fs::write(&path, &bytes).unwrap();
    let store = Store::open(&path, OPTIONS).unwrap();
    assert_eq!(store.damaged_rows(), []);
    let snapshot = store.read().unwrap();
    assert_eq!(snapshot.people_named("name140").unwrap(), ["person-140"]);
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
    drop(snapshot);
    drop(store);
    assert!(look(&path).is_whole());
}

/// redb cannot count its pages then; they are counted once the row is gone.
#[tokio::test]
async fn an_index_is_made_anew_beside_a_damaged_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path, None).await;
    let whole = fs::read(&path).unwrap();
    let page = PAGE_BYTES as usize;
    let mut damaged = whole.clone();
    for at in (0..whole.len() - 7).filter(|at| whole[*at..].starts_with(b"Name70\0")) {
        damaged[at] ^= 6;
    }
    let mut mended = 0;
    for at in (page..whole.len()).step_by(page).filter(|at| whole[*at] == BRANCH) {
        let mut bytes = damaged.clone();
        bytes[at..at + page].fill(0);
        fs::write(&path, &bytes).unwrap();
        if !look_only(&path).broken.iter().any(|table| is_index(table)) {
            continue;
        }
        let store = Store::open(&path, OPTIONS).unwrap();
        assert_eq!(store.damaged_rows().len(), 1, "{:?}", store.damaged_rows());
        assert_eq!(store.read().unwrap().people_named("name69").unwrap(), ["person-069"]);
        store.set_aside(&RecordKey::new(Kind::Person, "person-070")).await.unwrap();
        drop(store);
        compact_store(&path, None, 1 << 20).unwrap();
        let checked = check_store(&path, None, 1 << 20).unwrap();
        assert_eq!((checked.was_clean, checked.complaints), (true, vec![]), "{at}");
        mended += 1;
    }
    assert!(mended > 0);
}

/// redb refuses all work after one read that failed, until it is opened again.
#[tokio::test]
async fn a_block_that_does_not_open_ends_no_other_work() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let key = StoreKey::random().unwrap();
    store_in(&path, Some(&key)).await;
    let options = StoreOptions { cache_bytes: 0, ..OPTIONS };
    let store = Store::open_with_key(&path, Some(&key), options).unwrap();
    let whole = fs::read(&path).unwrap();
    let write = |n: i32| store.transact(move |tx| tx.set_meta("later", Some(&doc! {"n": n})));
    let mut latched = 0;
    for at in (16_000..whole.len() - 100).step_by(4124) {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let now = fs::read(&path).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, &[now[at] ^ 3], at as u64).unwrap();
        let has_failed = store.read().and_then(|view| view.disagreements().map(drop)).is_err();
        std::os::unix::fs::FileExt::write_at(&file, &[now[at]], at as u64).unwrap();
        if has_failed {
            latched += 1;
            std::thread::sleep(std::time::Duration::from_millis(1_100));
            let wrote: Result<(), StoreError> = write(latched).await;
            wrote.unwrap();
        }
        if latched == 3 {
            break;
        }
    }
    assert_eq!(latched, 3);
}
