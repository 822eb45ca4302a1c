//! Stores of format 1: upgraded, kept, and what was wrong with them found.

use bson::doc;
use redb::ReadableTable as _;

use super::*;
use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{DamagedRow, Store, StoreOptions, Tx};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };

/// Writes a store as format 1 had it: the same tables, rows without checksums.
struct Earlier<'a>(ReadTransaction, &'a Database);

impl EachTable for Earlier<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        let transaction = self.1.begin_write()?;
        for entry in self.0.open_table(definition)?.iter()? {
            let (key, value) = entry?;
            transaction.open_table(definition)?.insert(key.value(), value.value())?;
        }
        Ok(transaction.commit()?)
    }

    fn rows<K: RowName>(&mut self, definition: RowsDefinition<K>) -> Result<(), StoreError> {
        let transaction = self.1.begin_write()?;
        for entry in self.0.open_table(definition.raw())?.iter()? {
            let (key, row) = entry?;
            let value = &row.value()[..row.value().len() - 4];
            transaction.open_table(definition.raw())?.insert(key.value(), value)?;
        }
        Ok(transaction.commit()?)
    }
}

/// A store of format 1 at `path`; what it holds, as a sum.
async fn earlier_store(path: &Path) -> String {
    let present = suffixed(path, ".present");
    let store = Store::open(&present, OPTIONS).unwrap();
    store
        .transact(|tx: &mut Tx<'_>| -> Result<(), StoreError> {
            for id in ["ana", "eva"] {
                let person = doc! {"_id": id, "name": "Ana", "blood": "A-negative"};
                tx.edit(&RecordKey::new(Kind::Person, id), Some(&person), &Actor::Local("tech".to_owned()))?;
            }
            tx.edit(&RecordKey::new(Kind::Person, "eva"), None, &Actor::Local("tech".to_owned()))?;
            Ok(())
        })
        .await
        .unwrap();
    let sum = store.read().unwrap().content_sha256().unwrap();
    drop(store);
    let present = Database::open(&present).unwrap();
    let (database, _) = new_database(path, None, 1 << 20).unwrap();
    each_table(&mut Earlier(redb::ReadableDatabase::begin_read(&present).unwrap(), &database)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(META_FORMAT, 1_u32.to_be_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    sum
}

fn sum_without_format(store: &Store) -> (String, Vec<String>) {
    let snapshot = store.read().unwrap();
    (snapshot.content_sha256().unwrap(), snapshot.disagreements().unwrap())
}

#[tokio::test]
async fn a_store_of_format_1_is_upgraded_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let sum = earlier_store(&path).await;
    let before = fs::read(&path).unwrap();
    // Left by an upgrade that was killed.
    fs::write(directory.path().join("store.redb.upgrading"), b"half").unwrap();
    let store = Store::open(&path, OPTIONS).unwrap();
    assert_eq!(sum_without_format(&store), (sum.clone(), vec![]));
    assert_eq!(fs::read(directory.path().join("store.redb.before-format-2")).unwrap(), before);
    assert!(!directory.path().join("store.redb.upgrading").exists());
    drop(store);
    let store = Store::open(&path, OPTIONS).unwrap();
    assert_eq!(sum_without_format(&store).0, sum, "a second start changes nothing");
    assert!(!directory.path().join("store.redb.before-format-2-1").exists());
}

#[tokio::test]
async fn a_record_that_is_no_document_comes_out_of_the_upgrade_as_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    earlier_store(&path).await;
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut docs = transaction.open_table(DOCS.raw()).unwrap();
        let at = (Kind::Person.schema().code, "ana");
        let mut bytes = docs.get(at).unwrap().unwrap().value().to_vec();
        let id = bytes.windows(3).position(|part| part == b"ana").unwrap();
        bytes[id] ^= 1;
        docs.insert(at, bytes.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let store = Store::open(&path, OPTIONS).unwrap();
    let error = store.read().unwrap().record(&RecordKey::new(Kind::Person, "ana")).unwrap_err();
    let row = DamagedRow { table: "docs".to_owned(), kind: Some(Kind::Person), id: "ana".to_owned() };
    assert!(matches!(error, StoreError::DamagedRow(found) if *found == row));
    assert_eq!(store.damaged_rows(), [row]);
}
