//! Decisions for a record that is gone: it is made again, or the decision is refused and the conflict stays open.

use super::*;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::sync::conflicts::ResolveError;

fn body(kind: Kind) -> Document {
    match kind {
        Kind::Person => with(ana(), doc! {"_id": "OTHER01", "password": "hash"}),
        Kind::Institution => doc! {"_id": "INST1", "name": "Clinic"},
        Kind::Page => page("p1", ACCT, "agreed"),
        kind => {
            let schema = kind.schema();
            match schema.owner {
                thalamus_edge::domain::schema::Owner::Field(field) => doc! {"_id": "x1", field: ACCT, "v": 1},
                _ => doc! {"_id": "x1", "v": 1},
            }
        }
    }
}

/// A record was edited here and deleted at the centre, so that the edit stands and is sent; then it is deleted there
/// again. Returns the key, and the record as it was edited.
async fn deleted_twice(clinic: &Clinic, kind: Kind) -> (RecordKey, Document) {
    let agreed = body(kind);
    let key = key(kind, agreed.get_str("_id").unwrap());
    clinic.there(Kind::Person, ana());
    clinic.there(kind, agreed.clone());
    clinic.round().await;
    let edited = with(agreed, doc! {"note": "mine"});
    clinic.edit(kind, edited.clone()).await;
    clinic.sim.remove(kind, &key.id);
    clinic.round().await;
    assert_eq!(clinic.sim.get(kind, &key.id), Some(edited.clone()), "{kind:?}: the edit stands");
    clinic.sim.remove(kind, &key.id);
    clinic.round().await;
    assert_eq!(clinic.here(kind, &key.id), None, "{kind:?}");
    (key, edited)
}

fn whole(clinic: &Clinic, key: &RecordKey) -> Conflict {
    let conflicts = clinic.store.read().unwrap().conflicts().unwrap();
    let mut found = conflicts.into_iter().filter(|conflict| &conflict.key == key && conflict.path.is_empty());
    found.next().unwrap()
}

async fn takes_local(clinic: &Clinic, key: &RecordKey) -> Result<Conflict, ResolveError> {
    let id = whole(clinic, key).id;
    resolve(&clinic.store, &id, Decision::TakeLocal, None, clerk(), |_, _, _| Ok(())).await
}

#[tokio::test]
async fn a_record_that_is_gone_is_made_again() {
    for kind in Kind::ALL {
        let clinic = Clinic::new();
        let (key, edited) = deleted_twice(&clinic, kind).await;
        takes_local(&clinic, &key).await.unwrap();
        assert_eq!(clinic.here(kind, &key.id), Some(edited.clone()), "{kind:?}");
        clinic.round().await;
        clinic.round().await;
        assert_eq!(clinic.here(kind, &key.id), Some(edited.clone()), "{kind:?}");
        assert_eq!(clinic.sim.get(kind, &key.id), Some(edited), "{kind:?}");
        assert_eq!(whole(&clinic, &key).status, ConflictStatus::Resolved, "{kind:?}");
    }
}

#[tokio::test]
async fn a_record_that_the_centre_has_deleted_and_that_waits_to_go_here_is_made_again() {
    let clinic = Clinic::new();
    let (key, edited) = deleted_twice(&clinic, Kind::Page).await;
    takes_local(&clinic, &key).await.unwrap();
    clinic.round().await;
    // The delete is noted, and is not carried out yet.
    let noted = key.clone();
    clinic.store.transact(move |tx| tx.put_vanished(&noted)).await.unwrap();
    clinic.sim.remove(Kind::Page, &key.id);
    let clash = Clash {
        path: Vec::new(),
        base: None,
        local: Some(Bson::Document(edited.clone())),
        remote: None,
        stands: Side::Local,
    };
    let about = key.clone();
    clinic.store.transact(move |tx| tx.add_conflict(&about, &clash)).await.unwrap();
    let id = whole(&clinic, &key).id;
    let seen = Some(Bson::Document(edited.clone()));
    resolve(&clinic.store, &id, Decision::TakeLocal, seen, clerk(), |_, _, _| Ok(())).await.unwrap();
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.sim.get(Kind::Page, &key.id), Some(edited.clone()));
    assert_eq!(clinic.here(Kind::Page, &key.id), Some(edited));
}

#[tokio::test]
async fn a_decision_about_a_record_without_its_person_is_refused_and_stays_open() {
    let clinic = Clinic::new();
    let (key, _) = deleted_twice(&clinic, Kind::Page).await;
    clinic.sim.remove(Kind::Person, ACCT);
    clinic.round().await;
    let refused = takes_local(&clinic, &key).await;
    assert!(matches!(&refused, Err(ResolveError::Invalid { .. })), "{refused:?}");
    assert_eq!(whole(&clinic, &key).status, ConflictStatus::Open);
    // Another person has the account then.
    clinic.there(Kind::Person, beatriz());
    clinic.round().await;
    clinic.round().await;
    let refused = takes_local(&clinic, &key).await;
    assert!(matches!(&refused, Err(ResolveError::Invalid { .. })), "{refused:?}");
    assert_eq!((whole(&clinic, &key).status, clinic.here(Kind::Page, &key.id)), (ConflictStatus::Open, None));
}

#[tokio::test]
async fn a_record_of_a_person_who_got_another_account_is_made_again_under_that() {
    let clinic = Clinic::new();
    let (key, edited) = deleted_twice(&clinic, Kind::Page).await;
    clinic.edit(Kind::Page, page("p2", ACCT, "keeps her here")).await;
    clinic.there(Kind::Person, beatriz());
    clinic.round().await;
    assert_eq!(clinic.holds(), 1);
    let refused = takes_local(&clinic, &key).await;
    assert!(matches!(&refused, Err(ResolveError::Held { .. })), "{refused:?}");
    assert_eq!(whole(&clinic, &key).status, ConflictStatus::Open);
    clinic.decide(Verdict::NewId("NEWACC1".to_owned())).await;
    clinic.round().await;
    takes_local(&clinic, &key).await.unwrap();
    clinic.round().await;
    clinic.round().await;
    let expected = with(edited, doc! {"book": "NEWACC1"});
    assert_eq!(clinic.sim.get(Kind::Page, &key.id), Some(expected.clone()));
    assert_eq!(clinic.here(Kind::Page, &key.id), Some(expected));
}

/// What was deleted here is one record, and what the centre has under its id by now is another one: it waits as every record
/// of somebody who is held.
#[tokio::test]
async fn a_record_with_the_id_of_a_deleted_one_waits_with_its_person() {
    for is_held_before in [true, false] {
        let clinic = Clinic::new();
        clinic.edit(Kind::Person, ana()).await;
        clinic
            .edit(
                Kind::Person,
                doc! {"_id": "OTTO01", "name": "Otto", "lastname": "Dix", "dob": "1950-01-01"},
            )
            .await;
        clinic.edit(Kind::Page, page("p1", "OTTO01", "of Otto")).await;
        clinic.round().await;
        clinic.there(Kind::Person, beatriz());
        if is_held_before {
            clinic.round().await;
        }
        clinic.delete(Kind::Page, "p1").await;
        let theirs = page("p1", ACCT, "of Beatriz");
        clinic.there(Kind::Page, theirs.clone());
        for _ in 0..3 {
            clinic.round().await;
            assert_eq!(clinic.book(ACCT), Vec::<String>::new(), "{is_held_before}");
            assert_eq!(clinic.held(Kind::Page, "p1"), Some(theirs.clone()), "{is_held_before}");
            assert_eq!(clinic.at_centre(Kind::Page, "p1"), Some(theirs.clone()), "{is_held_before}");
        }
        clinic.decide(Verdict::NewId("NEWACC1".to_owned())).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.book(ACCT), ["of Beatriz"], "{is_held_before}");
        assert_eq!(clinic.book("NEWACC1"), Vec::<String>::new(), "{is_held_before}");
    }
}
