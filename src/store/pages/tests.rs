//! Every kind of page with a wrong bit in it: all of them are found, and the file is what it was afterwards.

use std::fs;
use std::path::Path;

use bson::doc;
use redb::backends::FileBackend;

use super::*;
use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Store, StoreError, StoreOptions, Tx};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 10_000, audit_keep_rows: 10_000, clock: || 0 };

/// A store with branches, closed properly.
async fn store_in(path: &Path) {
    let store = Store::open(path, OPTIONS).unwrap();
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
    let found = inspect(&file).unwrap();
    put_right(&file, &found.flips).unwrap();
    found
}

/// What the store says of itself after one bit of its file was flipped and the store was opened.
fn after_a_flip(path: &Path, whole: &[u8], at: usize, bit: u8) -> Result<String, String> {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
    let text = |error: &dyn std::fmt::Display| format!("{at}:{bit}: {error}");
    let store = Store::open(path, OPTIONS).map_err(|error| text(&error))?;
    let snapshot = store.read().map_err(|error| text(&error))?;
    let contradictions = snapshot.disagreements().map_err(|error| text(&error))?;
    if !contradictions.is_empty() {
        return Err(text(&contradictions.join(", ")));
    }
    snapshot.rows_sha256().map_err(|error| text(&error))
}

impl crate::store::Snapshot {
    /// Over all rows but those of `meta`.
    fn rows_sha256(&self) -> Result<String, crate::store::StreamError> {
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
    store_in(&path).await;
    let whole = fs::read(&path).unwrap();
    assert!(look(&path).is_whole());
    let right = after_a_flip(&path, &whole, whole.len() - 1, 0).unwrap();
    // What is not zero is used, or was; a step that is no power of two comes by every place of a page.
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let places = used.iter().copied().step_by(used.len() / 120).chain([0, 9, 12, 22, 28, 64, 80, 105, 130, 200]);
    let mut mended = 0;
    for (n, at) in places.enumerate() {
        assert_eq!(after_a_flip(&path, &whole, at, (n % 8) as u8), Ok(right.clone()), "{at}");
        let store = Store::open(&path, OPTIONS).unwrap();
        assert!(store.damaged_rows().is_empty(), "{at}");
        mended += u64::from(store.bits_put_right().unwrap().is_some());
    }
    assert!(mended > 50, "{mended}");
}

#[tokio::test]
async fn pages_with_more_wrong_bits_are_named_and_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    store_in(&path).await;
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
