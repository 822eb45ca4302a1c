//! The order of the trash.

use bson::doc;
use redb::{Database, ReadableDatabase as _};

use super::*;
use crate::store::{Store, StoreOptions};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 7 };

async fn delete(store: &Store, id: &'static str) {
    let done = store.transact(move |tx| -> Result<(), StoreError> {
        let key = RecordKey::new(Kind::Event, id);
        tx.edit(&key, Some(&doc! {"_id": id, "person": "ana"}), &Actor::Operator(0))?;
        tx.edit(&key, None, &Actor::Local("tech".to_owned())).map(|_| ())
    });
    done.await.unwrap();
}

fn ids(page: &TrashPage) -> Vec<&str> {
    page.rows.iter().map(|row| row.key.id.as_str()).collect()
}

#[tokio::test]
async fn the_newest_delete_comes_first_page_by_page() {
    let store = Store::in_memory(OPTIONS).unwrap();
    for id in ["b", "a", "c"] {
        delete(&store, id).await;
    }
    let snapshot = store.read().unwrap();
    let all = snapshot.trash_page(None, 10, |_, _| true, |_| Ok(true)).unwrap();
    assert_eq!((ids(&all), all.next), (vec!["c", "a", "b"], None));
    assert_eq!(
        (all.rows[0].owner.as_deref(), all.rows[0].actor.as_str(), all.rows[0].at_ms),
        (Some("ANA"), "local:tech", 7)
    );
    let first = snapshot.trash_page(None, 2, |_, _| true, |_| Ok(true)).unwrap();
    assert_eq!((ids(&first), first.next), (vec!["c", "a"], Some(all.rows[1].sequence)));
    assert_eq!(ids(&snapshot.trash_page(first.next, 2, |_, _| true, |_| Ok(true)).unwrap()), ["b"]);
    assert_eq!(ids(&snapshot.trash_page(None, 10, |_, _| true, |row| Ok(row.key.id == "a")).unwrap()), ["a"]);
    let (about, document) = snapshot.trashed(all.rows[2].sequence).unwrap().unwrap();
    assert_eq!((about, document), (all.rows[2].clone(), doc! {"_id": "b", "person": "ana"}));
    assert!(snapshot.trashed(all.rows[0].sequence + 1).unwrap().is_none());
}

#[tokio::test]
async fn a_store_of_an_earlier_version_gets_the_order_when_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Store::open(&path, OPTIONS).unwrap();
    delete(&store, "b").await;
    delete(&store, "a").await;
    let sum = store.read().unwrap().content_sha256().unwrap();
    drop(store);
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(TRASH_ORDER).unwrap();
    transaction.commit().unwrap();
    assert!(database.begin_read().unwrap().open_table(TRASH_ORDER).is_err());
    drop(database);
    let store = Store::open(&path, OPTIONS).unwrap();
    let snapshot = store.read().unwrap();
    assert_eq!(ids(&snapshot.trash_page(None, 10, |_, _| true, |_| Ok(true)).unwrap()), ["a", "b"]);
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
    assert_eq!(snapshot.content_sha256().unwrap(), sum);
}
