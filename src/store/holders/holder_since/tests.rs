//! Who counts as the human being who has an account, in the ways that no API has.

use bson::{Document, doc};
use redb::ReadableTable as _;

use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Base, Store, StoreError, StoreOptions, Tx};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}

fn anna() -> Document {
    doc! {"_id": "ANA001", "name": "Anna", "lastname": "Betz", "dob": "1985-10-04", "gender": "f"}
}

fn with(mut person: Document, field: &str, value: &str) -> Document {
    person.insert(field, value);
    person
}

/// Runs `job` on a store in which Anna has the account.
async fn run(job: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static) {
    let store = Store::in_memory(OPTIONS).unwrap();
    let make = |tx: &mut Tx<'_>| tx.edit(&key("ANA001"), Some(&anna()), &Actor::Operator(0)).map(drop);
    store.transact(make).await.unwrap();
    store.transact(job).await.unwrap();
    assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
}

fn set(tx: &mut Tx<'_>, person: &Document) -> Result<(), StoreError> {
    let key = key(person.get_str("_id").unwrap());
    tx.put(&key, Some(person), &Base::Document(person.clone()), &Actor::Centre)
}

/// Whether the account is said to be another one's since this number of the journal.
fn has_begun(tx: &Tx<'_>, account: &str) -> bool {
    tx.holder_since.get(account).unwrap().is_some_and(|since| since.value().1 > 1)
}

/// A decision that they are one and the same counts from then on, also if it changes no field.
#[tokio::test]
async fn a_decision_that_they_are_the_same_confirms_the_holder() {
    run(|tx| {
        let renamed = with(anna(), "name", "Johanna");
        set(tx, &renamed)?;
        tx.keeping_holder("ANA001", |_| Ok::<_, StoreError>(()))?;
        let married = with(renamed, "lastname", "Cordara");
        set(tx, &married)?;
        assert!(!has_begun(tx, "ANA001"), "one field since the decision");
        let decided = with(married, "dob", "1951-02-03");
        tx.keeping_holder("ANA001", |tx| set(tx, &decided))?;
        assert!(!has_begun(tx, "ANA001"));
        set(tx, &with(decided.clone(), "gender", "m"))?;
        assert!(!has_begun(tx, "ANA001"), "one field since the decision");
        set(tx, &with(with(decided, "gender", "m"), "name", "Berthold"))?;
        assert!(has_begun(tx, "ANA001"));
        Ok(())
    })
    .await;
}

/// What becomes known of a person later is theirs too.
#[tokio::test]
async fn what_was_not_known_at_first_counts_once_it_is() {
    run(|tx| {
        let little = doc! {"_id": "EVA001", "name": "Eva"};
        set(tx, &little)?;
        let more = with(with(with(little, "lastname", "Betz"), "dob", "1985-10-04"), "gender", "f");
        set(tx, &more)?;
        assert!(!has_begun(tx, "EVA001"));
        set(tx, &with(more.clone(), "dob", "1951-02-03"))?;
        assert!(!has_begun(tx, "EVA001"));
        set(tx, &with(with(more, "dob", "1951-02-03"), "lastname", "Cordara"))?;
        assert!(has_begun(tx, "EVA001"));
        Ok(())
    })
    .await;
}

/// Deleted and made again between the fields.
#[tokio::test]
async fn who_is_deleted_and_made_again_is_compared_as_before() {
    run(|tx| {
        let second = with(anna(), "name", "Berthold");
        set(tx, &second)?;
        tx.edit(&key("ANA001"), None, &Actor::Operator(0))?;
        tx.edit(&key("ANA001"), Some(&second), &Actor::Operator(0))?;
        assert!(!has_begun(tx, "ANA001"), "the same one");
        set(tx, &with(second, "lastname", "Cordara"))?;
        assert!(has_begun(tx, "ANA001"));
        Ok(())
    })
    .await;
}

/// Who goes on under another id is compared as before, and who has the old one begins anew.
#[tokio::test]
async fn a_new_id_is_no_new_beginning() {
    run(|tx| {
        let second = with(anna(), "name", "Berthold");
        set(tx, &second)?;
        let moved = with(second, "_id", "NEW001");
        tx.rename(&key("ANA001"), &key("NEW001"), &moved, &Actor::Operator(0))?;
        set(tx, &with(anna(), "name", "Johanna"))?;
        assert!(!has_begun(tx, "NEW001"));
        set(tx, &with(moved, "lastname", "Cordara"))?;
        assert!(has_begun(tx, "NEW001"));
        let since = tx.holder_since.get("ANA001")?.map(|since| since.value());
        set(tx, &with(with(anna(), "name", "Johanna"), "lastname", "Betz-Dorn"))?;
        assert_eq!(tx.holder_since.get("ANA001")?.map(|since| since.value()), since, "one field");
        Ok(())
    })
    .await;
}
