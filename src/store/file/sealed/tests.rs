//! Blocks of an encrypted store that do not open.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bson::doc;

use super::*;
use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Base, Damage, Scrub, Store, StoreOptions, Tx, check_store, read_what_is_left};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 0, journal_keep_rows: 10_000, audit_keep_rows: 10_000, clock: || 0 };
const PEOPLE: usize = 150;

fn person(n: usize) -> (RecordKey, bson::Document) {
    let id = format!("person-{n:03}");
    let person = doc! {"_id": &id, "name": format!("Name{n}"), "note": "x".repeat(200)};
    (RecordKey::new(Kind::Person, id), person)
}

async fn store_in(path: &Path, key: &StoreKey) {
    let store = Store::open_with_key(path, Some(key), OPTIONS).unwrap();
    let job = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for n in 0..PEOPLE {
            let (key, document) = person(n);
            tx.put(&key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)?;
        }
        Ok(())
    };
    store.transact(job).await.unwrap();
}

/// How many people can be read, one by one; rows that say that they are damaged are left out.
fn people(store: &Store) -> Result<usize, StoreError> {
    let snapshot = store.read()?;
    let mut people = 0;
    for n in 0..PEOPLE {
        match snapshot.record(&person(n).0) {
            Ok(found) => people += usize::from(found.is_some()),
            Err(StoreError::DamagedRow(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(people)
}

/// Where something of each block lies that is used.
fn blocks_of(whole: &[u8]) -> impl Iterator<Item = usize> {
    let places = (BLOCKS_AT as usize..whole.len() - SEALED_BYTES + 1).step_by(SEALED_BYTES);
    places.filter(|at| whole[*at..*at + SEALED_BYTES].iter().any(|byte| *byte != 0))
}

#[tokio::test]
async fn a_block_that_does_not_open_damages_its_rows_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = (directory.path().join("store.redb"), StoreKey::random().unwrap());
    store_in(&path, &key).await;
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut damaged_people) = (0, 0);
    for (n, at) in blocks_of(&whole).enumerate() {
        let mut bytes = whole.clone();
        // In the text; for some in the nonce, which makes nonsense of the text.
        bytes[at + if n % 5 == 0 { 3 } else { 40 + n * 61 % 4000 }] ^= 3;
        fs::write(&path, &bytes).unwrap();
        let checked = check_store(&path, Some(&key), 1 << 20);
        assert!(fs::read(&path).unwrap() == bytes, "{n}: a check has written");
        let store = match Store::open_with_key(&path, Some(&key), OPTIONS) {
            Err(StoreError::Broken(_)) => {
                assert!(fs::read(&path).unwrap() == bytes, "{n} was written to");
                assert!(checked.is_err() || !checked.unwrap().complaints.is_empty(), "{n}");
                let left = |_| -> Result<(), StoreError> { Ok(()) };
                read_what_is_left(&path, Some(&key), left).unwrap();
                refused += 1;
                continue;
            }
            opened => opened.unwrap_or_else(|error| panic!("{n}: {error}")),
        };
        let damaged = store.damaged_rows();
        // The next start finds the same, before anything is healed.
        drop(store);
        let store = Store::open_with_key(&path, Some(&key), OPTIONS).unwrap();
        assert_eq!(store.damaged_rows(), damaged, "{n}");
        let is_used = store.bits_put_right().unwrap().is_some_and(|found| found.blocks > 0);
        assert!(is_used || damaged.is_empty(), "{n}");
        if let Ok(checked) = checked {
            assert_eq!(checked.complaints.is_empty(), !is_used, "{n}: {:?}", checked.complaints);
        }
        let of_people: Vec<_> = damaged.iter().filter(|row| row.table == "docs").collect();
        assert_eq!(people(&store).unwrap() + of_people.len(), PEOPLE, "{n}: others are listed");
        assert!(store.scrub(u64::MAX, false, &mut Scrub::default()).await.unwrap(), "{n}: the pass ends");
        // They come back from the centre, and others are written.
        for row in &of_people {
            let number = row.id.trim_start_matches("person-").parse().unwrap();
            let (key, document) = person(number);
            let raw = bson::RawDocumentBuf::try_from(&document).unwrap();
            let healed = store.transact(move |tx| -> Result<_, StoreError> {
                assert_eq!(tx.damage(&key)?, Some(Damage::Healable));
                tx.heal(&key, &raw)
            });
            assert!(healed.await.unwrap(), "{n}");
        }
        damaged_people += of_people.len();
        store.transact(|tx| tx.set_meta("later", Some(&doc! {"n": 1}))).await.unwrap();
        store.settle_damage().await.unwrap();
        assert_eq!(people(&store).unwrap(), PEOPLE, "{n}");
        assert!(!store.damaged_rows().iter().any(|row| row.table == "docs"), "{n}");
        drop(store);
        let rest = damaged.len() - of_people.len();
        let checked = check_store(&path, Some(&key), 1 << 20).unwrap();
        assert_eq!(checked.damaged.len(), rest, "{n}: {:?}", checked.damaged);
    }
    assert!(damaged_people > 100 && refused > 0, "{damaged_people} people, {refused} refused");
}

#[tokio::test]
async fn a_block_that_stops_opening_while_the_store_is_open_ends_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = (directory.path().join("store.redb"), StoreKey::random().unwrap());
    store_in(&path, &key).await;
    let store = Store::open_with_key(&path, Some(&key), OPTIONS).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut is_damaged = false;
    for at in blocks_of(&whole) {
        file.write_all_at(&[whole[at + 2000] ^ 3], at as u64 + 2000).unwrap();
        let before = people(&store);
        if !matches!(before, Ok(PEOPLE)) {
            // The file is opened again, once a second at most.
            std::thread::sleep(Duration::from_millis(1_100));
            let damaged = || store.damaged_rows().into_iter().filter(|row| row.table == "docs").count();
            let left = people(&store).unwrap();
            assert!(damaged() > 0 && left > 100 && left + damaged() == PEOPLE, "{left} {}", damaged());
            is_damaged = true;
            break;
        }
        file.write_all_at(&[whole[at + 2000]], at as u64 + 2000).unwrap();
    }
    assert!(is_damaged);
    store.transact(|tx| tx.set_meta("later", Some(&doc! {"n": 1}))).await.unwrap();
    store.settle_damage().await.unwrap();
    assert!(store.bits_put_right().unwrap().unwrap().blocks > 0);
}

#[tokio::test]
async fn wrong_bits_of_blocks_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = (directory.path().join("store.redb"), StoreKey::random().unwrap());
    store_in(&path, &key).await;
    let whole = fs::read(&path).unwrap();
    let bits = |store: &Store| store.bits_put_right().unwrap().map_or(0, |found| found.bits);
    // At the start, wherever a block is used: in the first one too.
    let (mut counted, mut wrong) = (0, 0);
    for at in blocks_of(&whole).step_by(4).chain([8_500, 13_000]) {
        let mut bytes = whole.clone();
        bytes[at + 50] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let complaints = check_store(&path, Some(&key), 1 << 20).unwrap().complaints;
        wrong += usize::from(complaints.iter().any(|said| said.starts_with("1 single bits")));
        let store = Store::open_with_key(&path, Some(&key), OPTIONS).unwrap();
        counted += bits(&store) as usize;
        assert_eq!(people(&store).unwrap(), PEOPLE);
    }
    assert!(counted == wrong && counted > 4, "{counted} of {wrong}");
    // While it is open.
    fs::write(&path, &whole).unwrap();
    let store = Store::open_with_key(&path, Some(&key), OPTIONS).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for at in blocks_of(&whole) {
        file.write_all_at(&[whole[at + 2000] ^ 1], at as u64 + 2000).unwrap();
    }
    assert_eq!(people(&store).unwrap(), PEOPLE);
    store.settle_damage().await.unwrap();
    assert!(bits(&store) > 4, "{}", bits(&store));
}

/// Bytes that nobody can write to any more.
#[derive(Debug)]
struct ReadOnly(redb::backends::InMemoryBackend);

impl StorageBackend for ReadOnly {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[test]
fn what_cannot_be_written_back_is_read_all_the_same() {
    let key = StoreKey::random().unwrap();
    let sealed = Sealed::open(redb::backends::InMemoryBackend::new(), &key).unwrap();
    sealed.set_len(3 * BLOCK_LEN).unwrap();
    sealed.write(BLOCK_LEN, &[7; BLOCK_BYTES]).unwrap();
    sealed.write(0, &[5; 320]).unwrap();
    sealed.sync_data().unwrap();
    let Sealed { inner, .. } = sealed;
    let mut byte = [0];
    for at in [BLOCKS_AT + 100, KEYS_BYTES + 100] {
        inner.read(at, &mut byte).unwrap();
        inner.write(at, &[byte[0] ^ 8]).unwrap();
    }
    let sealed = Sealed::open(ReadOnly(inner), &key).unwrap();
    let mut text = vec![0; BLOCK_BYTES];
    sealed.read(BLOCK_LEN, &mut text).unwrap();
    assert!(text.iter().all(|byte| *byte == 7));
    assert!(sealed.defects().bits() >= 1);
    assert_eq!(sealed.defects().take_bits(), 0);
}
