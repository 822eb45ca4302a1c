//! What is closed on this node stays closed on this node.

use bson::{Document, doc};

use super::*;
use crate::store::{Base, Store, StoreOptions};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };

/// How the account stands after each of these versions of its record.
async fn closed_after(versions: Vec<(Option<Document>, Actor)>) -> Vec<bool> {
    let store = Store::in_memory(OPTIONS).unwrap();
    let mut found = Vec::new();
    for (version, actor) in versions {
        let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let key = RecordKey::new(Kind::Person, "ANA001");
            match (&actor, &version) {
                (Actor::Centre, Some(document)) => {
                    tx.put(&key, Some(document), &Base::Document(document.clone()), &actor)
                }
                (Actor::Centre, None) => tx.put(&key, None, &Base::Absent, &actor),
                _ => tx.edit(&key, version.as_ref(), &actor).map(drop),
            }
        };
        store.transact(write).await.unwrap();
        found.push(store.read().unwrap().is_closed_here("ANA001").unwrap());
    }
    found
}

fn ana(active: impl Into<bson::Bson>) -> Option<Document> {
    Some(doc! {"_id": "ANA001", "name": "Ana", "active": active})
}

#[tokio::test]
async fn what_somebody_closes_here_stays_closed_here() {
    let tech = || Actor::Local("tech".to_owned());
    let steps = vec![
        (ana(true), Actor::Centre),
        (ana(false), tech()),
        (ana(false), Actor::Centre),
        (ana("false"), Actor::Centre),
        (ana(true), Actor::Centre),
        (ana(false), Actor::Centre),
    ];
    assert_eq!(closed_after(steps).await, [false, true, true, true, true, true]);
}

/// The centre writes the account of a person who was closed here in another spelling, beside the former one or after it went.
#[tokio::test]
async fn a_closing_is_of_the_same_person_in_every_spelling() {
    for (name, is_gone) in [("Ana", true), ("Ana", false), ("Zoe", true), ("Zoe", false)] {
        let store = Store::in_memory(OPTIONS).unwrap();
        let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let person = |id: &str, name: &str| {
                let dob = if name == "Ana" { "1950-01-01" } else { "1980-02-02" };
                doc! {"_id": id, "name": name, "lastname": name, "dob": dob, "gender": "f", "active": true}
            };
            let (key, ana) = (RecordKey::new(Kind::Person, "ANA001"), person("ANA001", "Ana"));
            tx.put(&key, Some(&ana), &Base::Document(ana.clone()), &Actor::Centre)?;
            tx.set_closed_here("ANA001", true, &Actor::Local("tech".to_owned()))?;
            if is_gone {
                tx.put(&key, None, &Base::Absent, &Actor::Centre)?;
            }
            let (key, other) = (RecordKey::new(Kind::Person, "ana001"), person("ana001", name));
            tx.put(&key, Some(&other), &Base::Document(other.clone()), &Actor::Centre)
        };
        store.transact(write).await.unwrap();
        let found = store.read().unwrap().closing("ana001").unwrap();
        assert_eq!(found.is_some(), name == "Ana", "{name}, gone before: {is_gone}");
    }
}

#[tokio::test]
async fn who_begins_inactive_was_closed_by_nobody() {
    let tech = || Actor::Local("tech".to_owned());
    assert_eq!(closed_after(vec![(ana(false), tech())]).await, [false]);
    let steps = vec![(ana(true), tech()), (ana(0), tech()), (None, tech()), (ana(false), Actor::Centre)];
    assert_eq!(closed_after(steps).await, [false, true, true, true]);
    let steps =
        vec![(ana(true), tech()), (ana(false), tech()), (ana(true), tech()), (ana(false), Actor::Centre)];
    assert_eq!(closed_after(steps).await, [false, true, false, false]);
}

/// How the account was closed after each of these versions; `None` says that somebody closes it as it is.
async fn closings(steps: Vec<Option<(Option<Document>, Actor)>>) -> Vec<Option<Closing>> {
    let store = Store::in_memory(OPTIONS).unwrap();
    let mut found = Vec::new();
    for step in steps {
        let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let key = RecordKey::new(Kind::Person, "ANA001");
            match &step {
                None => tx.set_closed_here("ANA001", true, &Actor::Local("tech".to_owned())),
                Some((Some(document), Actor::Centre)) => {
                    tx.put(&key, Some(document), &Base::Document(document.clone()), &Actor::Centre)
                }
                Some((None, Actor::Centre)) => tx.put(&key, None, &Base::Absent, &Actor::Centre),
                Some((version, actor)) => tx.edit(&key, version.as_ref(), actor).map(drop),
            }
        };
        store.transact(write).await.unwrap();
        found.push(store.read().unwrap().closing("ANA001").unwrap());
    }
    found
}

#[tokio::test]
async fn a_closing_is_unsent_if_the_record_said_so_already() {
    use Closing::{Travelled, Unsent};
    let tech = || Actor::Local("tech".to_owned());
    let centre = |active: bool| Some((ana(active), Actor::Centre));
    let here = |active: bool| Some((ana(active), tech()));
    for (steps, expected) in [
        // Another side opens, and somebody else's edit of what is open by the record opens nothing here.
        (
            vec![centre(false), None, centre(true), centre(false)],
            [None, Some(Unsent), Some(Unsent), Some(Unsent)],
        ),
        // Closed by a change, and once more in words: it has travelled.
        (
            vec![centre(true), here(false), None, centre(true)],
            [None, Some(Travelled), Some(Travelled), Some(Travelled)],
        ),
        // Opened and closed elsewhere since: who closes it now is not heard.
        (
            vec![here(true), here(false), centre(true), None],
            [None, Some(Travelled), Some(Travelled), Some(Unsent)],
        ),
        // Opened here, and closed by a change once more.
        (vec![centre(false), None, here(true), here(false)], [None, Some(Unsent), None, Some(Travelled)]),
        // Opened elsewhere, and closed by a change since.
        (
            vec![here(true), here(false), centre(true), here(false)],
            [None, Some(Travelled), Some(Travelled), Some(Travelled)],
        ),
        // Put back by somebody: as closed as they were.
        (
            vec![centre(false), None, Some((None, tech())), here(true)],
            [None, Some(Unsent), Some(Unsent), Some(Unsent)],
        ),
    ] {
        assert_eq!(closings(steps).await, expected);
    }
}

/// An edit of a record that another side has made active says nothing about the account.
#[tokio::test]
async fn nobody_opens_an_account_by_an_edit_of_something_else() {
    let tech = || Actor::Local("tech".to_owned());
    let edited = Some(doc! {"_id": "ANA001", "name": "Anna", "active": true});
    let steps = vec![
        Some((ana(false), Actor::Centre)),
        None,
        Some((ana(true), Actor::Centre)),
        Some((edited, tech())),
    ];
    assert_eq!(closings(steps).await.last(), Some(&Some(Closing::Unsent)));
}

/// Nobody opens because pages are damaged, each may be opened again, and who comes later was closed by nobody.
#[tokio::test]
async fn whoever_was_known_when_the_notes_were_lost_is_closed_until_opened() {
    let store = Store::in_memory(OPTIONS).unwrap();
    let put = |id: &'static str| {
        move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let person = doc! {"_id": id, "name": "Ana", "active": false};
            tx.put(
                &RecordKey::new(Kind::Person, id),
                Some(&person),
                &Base::Document(person.clone()),
                &Actor::Centre,
            )
        }
    };
    let tech = || Actor::Local("tech".to_owned());
    let gone = RecordKey::new(Kind::Person, "GONE01");
    for id in ["ANA001", "ana001", "EVA001", "GONE01"] {
        store.transact(put(id)).await.unwrap();
    }
    store.transact(move |tx| tx.edit(&gone, None, &tech()).map(drop)).await.unwrap();
    let closed = || {
        let snapshot = store.read().unwrap();
        ["ANA001", "ana001", "EVA001", "GONE01", "NEW001"].map(|id| snapshot.is_closed_here(id).unwrap())
    };
    assert_eq!(closed(), [false; 5]);
    store.transact(|tx| tx.closed_here_is_lost()).await.unwrap();
    store.transact(put("NEW001")).await.unwrap();
    assert_eq!(closed(), [true, true, true, true, false]);
    store.transact(move |tx| tx.set_closed_here("ana001", false, &tech())).await.unwrap();
    assert_eq!(closed(), [true, false, true, true, false]);
}
