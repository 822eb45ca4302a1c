//! Checks of the checks: what is missing, or too much, in one table is found.

use std::sync::Arc;

use bson::doc;
use redb::TableHandle as _;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::domain::access::Actor;
use crate::store::engine::Counted;
use crate::store::rows::{encode, open_for_writing};
use crate::store::{Store, StoreOptions, Tx};

fn store() -> Store {
    let options =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 0 };
    Store::in_memory(options).unwrap()
}

async fn run(store: &Store, mut job: impl FnMut(&mut Tx<'_>) + Send + 'static) {
    let done = store.transact(move |tx| -> Result<(), StoreError> {
        job(tx);
        Ok(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn what_follows_from_records_is_missed_when_it_is_gone() {
    let store = store();
    let (name, bytes) = (hex::encode(Sha256::digest(b"bytes")), b"bytes");
    let content = doc! {"sha256": &name, "length": 5_i64, "type": "image/png"};
    run(&store, move |tx| {
        let ana = doc! {"_id": "Ana", "name": "Ana"};
        tx.edit(&RecordKey::new(Kind::Person, "Ana"), Some(&ana), &Actor::Centre).unwrap();
        // Another person under the same account.
        let other = doc! {"_id": "ANA"};
        tx.edit(&RecordKey::new(Kind::Person, "ANA"), Some(&other), &Actor::Centre).unwrap();
        tx.put_content(&name, bytes).unwrap();
        let key = RecordKey::new(Kind::PersonalDocument, "d1");
        let document = doc! {"_id": "d1", "fedacct": "ANA", "content": content.clone()};
        tx.edit(&key, Some(&document), &Actor::Centre).unwrap();
        let missing =
            doc! {"sha256": hex::encode(Sha256::digest("other")), "length": 5_i64, "type": "image/png"};
        let document = doc! {"_id": "d2", "fedacct": "ANA", "content": missing};
        let key = RecordKey::new(Kind::PersonalDocument, "d2");
        tx.edit(&key, Some(&document), &Actor::Centre).unwrap();
        let gone = RecordKey::new(Kind::Event, "e1");
        tx.edit(&gone, Some(&doc! {"_id": "e1", "person": "ANA"}), &Actor::Centre).unwrap();
        tx.edit(&gone, None, &Actor::Centre).unwrap();
    })
    .await;
    let (mut found, mut before) = {
        let snapshot = store.read().unwrap();
        (snapshot.disagreements().unwrap(), snapshot.content_sha256().unwrap())
    };
    assert_eq!(found, Vec::<String>::new());
    // One row after the other taken out of a table: each is missed, and each changes the sum.
    macro_rules! take_out {
        ($($table:expr),*) => { $({
            let transaction = store.inner.engine.begin_write(&mut store.inner.engine.writing()).unwrap();
            {
                let mut table = open_for_writing(&transaction, &Arc::default(), $table).unwrap();
                assert!(table.pop_first().unwrap().is_some(), "{} is empty", $table.name());
            }
            store.inner.engine.commit(transaction, Counted::Anew).unwrap();
            let snapshot = store.read().unwrap();
            let (now, sum) = (snapshot.disagreements().unwrap(), snapshot.content_sha256().unwrap());
            assert!(now != found && !now.is_empty(), "a row of {} is not missed", $table.name());
            assert_ne!(sum, before);
            (found, before) = (now, sum);
        })* };
    }
    take_out!(
        BY_OWNER,
        OWNER_OF,
        BY_NAME,
        DUPLICATE,
        BY_SPELLING,
        CONTENT_NAMED,
        CONTENT_WANTED,
        CONTENT,
        BASE,
        DIRTY,
        TRASH_ORDER,
        TRASH_OWNER,
        DOCS
    );
    let snapshot = store.read().unwrap();
    assert_eq!((snapshot.disagreements().unwrap(), snapshot.content_sha256().unwrap()), (found, before));
}

#[tokio::test]
async fn what_follows_from_nothing_is_found() {
    // One row more in a table, of which nothing is known elsewhere.
    macro_rules! put_in {
        ($($table:expr, $key:expr, $value:expr;)*) => { $({
            let store = store();
            run(&store, |tx| {
                let ana = doc! {"_id": "ANA", "name": "Ana"};
                tx.edit(&RecordKey::new(Kind::Person, "ANA"), Some(&ana), &Actor::Centre).unwrap();
            }).await;
            assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
            let transaction = store.inner.engine.begin_write(&mut store.inner.engine.writing()).unwrap();
            let ledger = Arc::default();
            let mut table = open_for_writing(&transaction, &ledger, $table).unwrap();
            let _ = table.insert($key, $value).unwrap();
            drop(table);
            store.inner.engine.commit(transaction, Counted::Anew).unwrap();
            let found = store.read().unwrap().disagreements().unwrap();
            assert_eq!(found.len(), 1, "a row too many in {}: {found:?}", $table.name());
            assert_eq!(store.mend_indexes().await.unwrap(), found, "{}", $table.name());
            match store.read().unwrap().disagreements() {
                // Of a place in the queue nobody knows what was agreed.
                Err(StoreError::DamagedRow(row)) => assert_eq!(row.table, "base"),
                left => assert_eq!(left.unwrap(), Vec::<String>::new(), "{}", $table.name()),
            }
        })* };
    }
    let person = Kind::Person.schema().code;
    let encoded = |row| encode(&row).unwrap();
    let hold =
        encoded(doc! {"conflict": "x", "local": "EVA", "remote": "EVA", "why": "created", "since": 0_i64});
    let undecided = encoded(doc! {"conflict": "x"});
    let waiting = encoded(doc! {"account": "EVA", "why": "unsent"});
    put_in!(
        BY_OWNER, (person, "EVA", "EVA"), ();
        OWNER_OF, (Kind::Page.schema().code, "p1"), "ANA";
        BY_NAME, ("eva", "ANA"), ();
        BY_SPELLING, ("EVA", "Eva"), ();
        DUPLICATE, "ANA", ();
        DIRTY, (0, 1, person, "EVA"), (0, "");
        CONTENT_NAMED, (EMPTY_CONTENT, person, "EVA"), ();
        CONTENT_WANTED, "ab", (1, 0);
        CONTENT_IDLE, "ab", 0;
        CONTENT_OWED, "ab", (1, "");
        HOLD, "EVA", hold.as_slice();
            UNDECIDED, (person, "ANA"), undecided.as_slice();
            WAITING, (person, "EVA"), waiting.as_slice();
            LANDED, (person, "EVA"), (1, 0);
            HELD_OF, ("EVA", person, "EVA"), ();
        CONFLICT_OPEN, (person, "EVA", "x"), ();
        CONFLICT_ABOUT, "x", (person, "ANA", 0, "");
        CONFLICT_OUTBOX, "x", ();
        CONFLICT_WATCHED, "x", 1;
        ECHO, (person, "EVA", 1), ();
        TRASH_ORDER, (1, person, "EVA"), ();
        TRASH_OWNER, 1, "EVA";
        JOURNAL, 7, &[][..];
        AUDIT_OF, ("EVA", 1), ();
    );
}

#[tokio::test]
async fn a_person_who_waits_for_no_decision_is_found() {
    let store = store();
    run(&store, |tx| {
        // A record waits for somebody to have its account.
        tx.put_held(&RecordKey::new(Kind::Page, "p"), "EVA", &doc! {"_id": "p", "book": "EVA"}).unwrap();
        tx.put_held(&RecordKey::new(Kind::Person, "EVA"), "EVA", &doc! {"_id": "EVA"}).unwrap();
    })
    .await;
    let found = store.read().unwrap().disagreements().unwrap();
    assert_eq!(found, ["people of the centre who wait for no decision: 1"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_found() {
    let store = store();
    run(&store, |tx| {
        let page = doc! {"_id": "p", "book": "ANA", "info": "text"};
        tx.edit(&RecordKey::new(Kind::Page, "p"), Some(&page), &Actor::Centre).unwrap();
    })
    .await;
    let transaction = store.inner.engine.begin_write(&mut store.inner.engine.writing()).unwrap();
    {
        let mut docs = open_for_writing(&transaction, &Arc::default(), DOCS).unwrap();
        let at = (Kind::Page.schema().code, "p");
        let mut bytes = docs.get(at).unwrap().unwrap().value().to_vec();
        let text = bytes.windows(4).position(|w| w == b"text").unwrap();
        bytes[text] = 0xff;
        docs.insert(at, bytes.as_slice()).unwrap();
    }
    store.inner.engine.commit(transaction, Counted::Anew).unwrap();
    let found = store.read().unwrap().disagreements().unwrap();
    assert!(found.iter().any(|words| words == "records that cannot be read: 1"), "{found:?}");
}
