//! The chain in the store's file, in the hands of somebody who can write to the file.

use std::path::PathBuf;

use bson::doc;
use redb::{Database, ReadableTable as _, Table, TableDefinition};
use tempfile::TempDir;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::audit::{AuditError, Entry, Head};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Store, StoreError, StoreOptions};

use super::support::disk::Disk;
use super::{entries, rows, verified};

const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 7 };
const EDITS: u64 = 5;

/// A store's file with [`EDITS`] edits.
struct Ground {
    _directory: TempDir,
    path: PathBuf,
}

impl Ground {
    async fn new() -> Ground {
        let directory = tempfile::tempdir().unwrap();
        let ground = Ground { path: directory.path().join("store.redb"), _directory: directory };
        let store = ground.open();
        for n in 0..EDITS {
            edit(&store, n).await.unwrap();
        }
        assert_eq!(verified(&store, &[]).unwrap().head.seq, EDITS);
        ground
    }

    fn open(&self) -> Store {
        Store::open(&self.path, OPTIONS).unwrap()
    }

    fn heads(&self) -> Vec<Head> {
        entries(&self.open()).iter().map(Entry::head).collect()
    }

    /// What somebody does to the table who has the file, and knows how rows end in checksums.
    fn tamper(&self, job: impl FnOnce(&mut Table<'_, u64, &'static [u8]>)) {
        let database = Database::open(&self.path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(AUDIT).unwrap();
            for (at, mut row) in all(&table) {
                row.truncate(row.len() - 4);
                table.insert(at, row.as_slice()).unwrap();
            }
            job(&mut table);
            for (at, mut row) in all(&table) {
                let mut sum = crc32fast::Hasher::new();
                for part in [&b"audit"[..], &at.to_le_bytes(), &row] {
                    sum.update(part);
                }
                row.extend(sum.finalize().to_le_bytes());
                table.insert(at, row.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}

fn all(table: &Table<'_, u64, &'static [u8]>) -> Vec<(u64, Vec<u8>)> {
    let rows = table.iter().unwrap().map(|entry| entry.unwrap());
    rows.map(|(at, row)| (at.value(), row.value().to_vec())).collect()
}

async fn edit(store: &Store, n: u64) -> Result<(), StoreError> {
    store
        .transact(move |tx| -> Result<(), StoreError> {
            let key = RecordKey::new(Kind::Page, format!("page{n}"));
            tx.edit(
                &key,
                Some(&doc! {"_id": &key.id, "book": "ANA001"}),
                &Actor::Person("DOC003".to_owned()),
            )?;
            Ok(())
        })
        .await
}

fn row(table: &Table<'_, u64, &'static [u8]>, seq: u64) -> Vec<u8> {
    table.get(seq).unwrap().unwrap().value().to_vec()
}

#[tokio::test]
async fn an_entry_that_was_changed_is_named() {
    let ground = Ground::new().await;
    ground.tamper(|table| {
        let text = String::from_utf8_lossy(&row(table, 3)).into_owned();
        assert!(text.contains("DOC003"), "what is tampered with is the account: {text}");
        let mut bytes = row(table, 3);
        let at = bytes.windows(6).position(|part| part == b"DOC003").unwrap();
        bytes[at..at + 6].copy_from_slice(b"BOB002");
        table.insert(3, bytes.as_slice()).unwrap();
    });
    assert_eq!(verified(&ground.open(), &[]), Err(AuditError::Altered { seq: 3 }));
    // With a hash that fits, the next one does not.
    let ground = Ground::new().await;
    let before = ground.heads()[1];
    ground.tamper(|table| {
        let mut entry = Entry::decode(&row(table, 3)).unwrap();
        entry.event.who = "BOB002".to_owned();
        let entry = Entry::after(&before, entry.times, entry.event);
        table.insert(3, entry.encode().as_slice()).unwrap();
    });
    assert_eq!(verified(&ground.open(), &[]), Err(AuditError::Altered { seq: 4 }));
    // And what is no entry at all.
    let ground = Ground::new().await;
    ground.tamper(|table| {
        table.insert(3, &b"nothing"[..]).unwrap();
    });
    assert_eq!(verified(&ground.open(), &[]), Err(AuditError::Unreadable { seq: 3 }));
}

#[tokio::test]
async fn an_entry_that_was_taken_out_is_missed() {
    let ground = Ground::new().await;
    ground.tamper(|table| {
        table.remove(3).unwrap();
    });
    assert_eq!(verified(&ground.open(), &[]), Err(AuditError::Missing { seq: 3, found: 4 }));
    // The oldest as well: nothing says that it was cut off because it was old.
    let ground = Ground::new().await;
    ground.tamper(|table| {
        table.remove(1).unwrap();
    });
    assert_eq!(verified(&ground.open(), &[]), Err(AuditError::Missing { seq: 1, found: 2 }));
}

#[tokio::test]
async fn entries_that_changed_places_are_noticed() {
    let ground = Ground::new().await;
    ground.tamper(|table| {
        let (second, third) = (row(table, 2), row(table, 3));
        table.insert(2, third.as_slice()).unwrap();
        table.insert(3, second.as_slice()).unwrap();
    });
    assert_eq!(verified(&ground.open(), &[]), Err(AuditError::Unreadable { seq: 2 }));
    let ground = Ground::new().await;
    ground.tamper(|table| {
        // With the numbers of the places where they are now.
        let (second, third) = (row(table, 2), row(table, 3));
        let (mut second, mut third) = (Entry::decode(&second).unwrap(), Entry::decode(&third).unwrap());
        (second.seq, third.seq) = (3, 2);
        table.insert(2, third.encode().as_slice()).unwrap();
        table.insert(3, second.encode().as_slice()).unwrap();
    });
    assert_eq!(verified(&ground.open(), &[]), Err(AuditError::Altered { seq: 2 }));
}

#[tokio::test]
async fn a_cut_end_is_missed_by_whoever_knows_it() {
    let ground = Ground::new().await;
    let heads = ground.heads();
    ground.tamper(|table| {
        table.remove(4).unwrap();
        table.remove(5).unwrap();
    });
    let store = ground.open();
    let known_up_to = |known: &[Head]| verified(&store, known).unwrap().known_up_to.map(|(seq, _)| seq);
    assert_eq!(known_up_to(&[]), None, "nothing else shows it");
    assert_eq!(known_up_to(&heads[..3]), Some(3));
    let by = "somebody else".to_owned();
    assert_eq!(verified(&store, &heads), Err(AuditError::Cut { seq: 4, last: 3, by: by.clone() }));
    // Nor do later entries hide it.
    for n in 10..13 {
        edit(&store, n).await.unwrap();
    }
    assert_eq!(verified(&store, &[]).unwrap().head.seq, 6);
    assert_eq!(verified(&store, &heads[4..]), Err(AuditError::Replaced { seq: 5, by }));
}

#[tokio::test]
async fn the_oldest_go_and_the_rest_is_still_a_chain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let open = |keep| Store::open(&path, StoreOptions { audit_keep_rows: keep, ..OPTIONS }).unwrap();
    let store = open(5);
    for n in 0..20 {
        edit(&store, n).await.unwrap();
    }
    let kept: Vec<u64> = entries(&store).iter().map(|entry| entry.seq).collect();
    assert_eq!(kept, [16, 17, 18, 19, 20]);
    let old = verified(&store, &[]).unwrap();
    assert_eq!((old.anchor.seq, old.head.seq), (15, 20));
    drop(store);
    // Fewer from now on.
    let store = open(2);
    edit(&store, 20).await.unwrap();
    let verdict = verified(&store, &[old.anchor, old.head]).unwrap();
    assert_eq!((verdict.anchor.seq, verdict.head.seq), (19, 21));
    assert_eq!(verdict.known_up_to.unwrap().0, 20);
    assert_eq!(verdict.too_old, ["somebody else"]);
    // By person there are no more than that either.
    let query = thalamus_edge::store::AuditQuery {
        person: Some("ANA001".to_owned()),
        limit: 100,
        ..Default::default()
    };
    let of_ana = store.read().unwrap().audit(&query).unwrap();
    let of_ana: Vec<u64> = of_ana.rows.into_iter().map(|row| row.unwrap().seq).collect();
    assert_eq!(of_ana, [21, 20]);
    drop(store);
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(AUDIT).unwrap().remove(20).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(verified(&open(2), &[]), Err(AuditError::Missing { seq: 20, found: 21 }));
}

/// Whatever the disk does, a change and its entry are there together or not at all.
#[tokio::test]
async fn a_write_and_its_entry_are_one() {
    let disk = Disk::default();
    drop(Store::on_backend(disk.mount(), OPTIONS).unwrap());
    let (mut cuts, mut written) = (0, 0);
    for operations in 1.. {
        let copy = disk.copy();
        let store = Store::on_backend(copy.mount(), OPTIONS).unwrap();
        copy.cut_after(operations);
        let answer = edit(&store, 1).await;
        drop(store);
        let was_cut = copy.was_cut();
        let store = Store::on_backend(copy.mount(), OPTIONS).unwrap();
        let is_there = store.read().unwrap().count(Kind::Page).unwrap() == 1;
        assert_eq!(rows(&store).len(), usize::from(is_there), "after {operations} operations");
        assert!(is_there || answer.is_err(), "after {operations} operations: an acknowledged write is gone");
        verified(&store, &[]).unwrap();
        cuts += u32::from(was_cut);
        written += u32::from(is_there);
        if !was_cut {
            break;
        }
    }
    assert!(cuts > 5 && written >= 1, "{cuts} {written}");
}

#[tokio::test]
async fn a_full_disk_takes_neither() {
    let disk = Disk::default();
    let store = Store::on_backend(disk.mount(), OPTIONS).unwrap();
    edit(&store, 1).await.unwrap();
    disk.set_full(true);
    assert!(edit(&store, 2).await.is_err());
    drop(store);
    disk.set_full(false);
    let store = Store::on_backend(disk.mount(), OPTIONS).unwrap();
    assert_eq!((store.read().unwrap().count(Kind::Page).unwrap(), rows(&store).len()), (1, 1));
    edit(&store, 2).await.unwrap();
    assert_eq!(verified(&store, &[]).unwrap().head.seq, 2);
}
