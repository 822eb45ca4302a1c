//! How much is read of what waits for a review.

use std::cell::Cell;

use bson::{Document, doc};

use crate::domain::access::Actor;
use crate::domain::emergency::{Emergency, Reason, UNREVIEWED_MAX};
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Base, EmergencyError, Store, StoreError, StoreOptions, Tx};

thread_local! {
    pub(super) static DECODED: Cell<usize> = const { Cell::new(0) };
}

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 10_000, clock: || 0 };

fn person(id: &str) -> Document {
    doc! {"_id": id, "name": "Anna", "lastname": "Betz", "dob": "1985-10-04", "gender": "f"}
}

fn put(tx: &mut Tx<'_>, person: &Document) -> Result<(), StoreError> {
    let key = RecordKey::new(Kind::Person, person.get_str("_id").unwrap());
    tx.put(&key, Some(person), &Base::Document(person.clone()), &Actor::Centre)
}

fn open(tx: &mut Tx<'_>, account: &str) -> u64 {
    let opened: Result<u64, EmergencyError> =
        tx.open_emergency(account, &Reason::parse(b"unconscious here").unwrap());
    opened.unwrap()
}

fn is_ended(tx: &Tx<'_>, id: u64) -> bool {
    let row = tx.emergency.get(id).unwrap().unwrap();
    Emergency::decode(id, row.value()).unwrap().is_ended
}

/// A synchronization or an import brings thousands of people in one transaction.
#[tokio::test]
async fn people_who_are_new_do_not_each_read_all_that_waits() {
    let store = Store::in_memory(OPTIONS).unwrap();
    let fill = store.transact(|tx| -> Result<(), StoreError> {
        put(tx, &person("ANA001"))?;
        let id = open(tx, "ANA001");
        let row = tx.emergency.get(id)?.unwrap().value().to_vec();
        for more in 1..UNREVIEWED_MAX as u64 {
            tx.emergency.insert(id + more, &row)?;
        }
        Ok(())
    });
    fill.await.unwrap();
    DECODED.set(0);
    let bring = store.transact(|tx| -> Result<(), StoreError> {
        (0..100).try_for_each(|n| put(tx, &person(&format!("NEW{n:03}"))))
    });
    bring.await.unwrap();
    assert!(DECODED.get() <= UNREVIEWED_MAX, "{}", DECODED.get());
}

/// What one transaction opens, ends and reviews is known to what it does after that.
#[tokio::test]
async fn a_transaction_knows_what_it_has_opened() {
    let store = Store::in_memory(OPTIONS).unwrap();
    let job = store.transact(|tx| -> Result<(), StoreError> {
        put(tx, &person("ANA001"))?;
        put(tx, &person("EVA001"))?;
        let (ana, eva, other) = (open(tx, "ANA001"), open(tx, "EVA001"), open(tx, "EVA001"));
        let mut berthold = person("ANA001");
        berthold.extend(doc! {"name": "Berthold", "dob": "1951-02-03"});
        put(tx, &berthold)?;
        assert_eq!((is_ended(tx, ana), is_ended(tx, eva)), (true, false));
        tx.review_emergency(eva)?.unwrap();
        let last = open(tx, "ANA001");
        tx.end_all_emergencies()?;
        assert!(tx.emergency.get(eva)?.is_none(), "what was reviewed does not come back");
        assert!(is_ended(tx, other) && is_ended(tx, last));
        Ok(())
    });
    job.await.unwrap();
}
