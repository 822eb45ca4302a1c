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

impl Clinic {
    /// Somebody writes a decision into the row of a conflict.
    fn decides_in_row(&self, id: &str, decision: Document) {
        let mut state = self.sim.state();
        let row = state.conflicts.get_mut(id).unwrap();
        row.extend(doc! {"status": "resolved", "resolved_by": "office"});
        row.extend(decision);
    }
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
    clinic.store.transact(move |tx| tx.add_conflict(&about, &clash, None)).await.unwrap();
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

/// A record was deleted here, with an edit that nobody else has seen, and edited at the centre before the delete came there.
/// Returns the key, and the record as it was edited there.
async fn edited_over_the_delete(clinic: &Clinic, kind: Kind) -> (RecordKey, Document) {
    let mut agreed = body(kind);
    if kind == Kind::Person {
        agreed.insert("active", false);
    }
    let key = key(kind, agreed.get_str("_id").unwrap());
    clinic.there(Kind::Person, ana());
    clinic.there(kind, agreed.clone());
    clinic.round().await;
    clinic.edit(kind, with(agreed.clone(), doc! {"unseen": "mine"})).await;
    clinic.delete(kind, &key.id).await;
    let edited = with(agreed, doc! {"note": "theirs"});
    clinic.there(kind, edited.clone());
    clinic.round().await;
    assert_eq!(clinic.here(kind, &key.id), Some(edited.clone()), "{kind:?}: the edit stands");
    (key, edited)
}

#[tokio::test]
async fn a_delete_that_lost_is_no_value_and_is_taken_as_a_delete() {
    for kind in Kind::ALL {
        let clinic = Clinic::new();
        let (key, edited) = edited_over_the_delete(&clinic, kind).await;
        let conflict = whole(&clinic, &key);
        assert_eq!((conflict.stands, conflict.author.as_str()), (Side::Remote, "person:CLERK"), "{kind:?}");
        assert_eq!(conflict.local, None, "{kind:?}: the side here is that the record is gone");
        assert!(conflict.edited_at_ms.is_some(), "{kind:?}: when it was deleted");
        let row = clinic.sim.state().conflicts[&conflict.id].clone();
        assert!(!row.contains_key("local") && row.contains_key("central"), "{kind:?}: {row}");
        // What was written before the delete is not lost with it.
        let trash = clinic.store.read().unwrap().trash().unwrap();
        let is_kept = |field: &str, value: &str| {
            let bodies = trash.iter().filter(|kept| kept.key == key);
            bodies.filter_map(|kept| kept.document.get_str(field).ok()).any(|kept| kept == value)
        };
        assert!(is_kept("unseen", "mine"), "{kind:?}");
        let seen = Some(Bson::Document(edited));
        let take = resolve(&clinic.store, &conflict.id, Decision::TakeLocal, seen, clerk(), |_, _, _| Ok(()));
        take.await.unwrap();
        assert_eq!(clinic.here(kind, &key.id), None, "{kind:?}");
        clinic.round().await;
        clinic.round().await;
        assert_eq!((clinic.here(kind, &key.id), clinic.at_centre(kind, &key.id)), (None, None), "{kind:?}");
        let trash = clinic.store.read().unwrap().trash().unwrap();
        let notes =
            trash.iter().filter(|kept| kept.key == key).filter_map(|kept| kept.document.get_str("note").ok());
        assert!(notes.into_iter().any(|note| note == "theirs"), "{kind:?}: the body that was deleted now");
    }
}

#[tokio::test]
async fn an_edit_that_stands_over_a_delete_is_kept_by_a_decision_for_it() {
    let clinic = Clinic::new();
    let (key, edited) = edited_over_the_delete(&clinic, Kind::Page).await;
    let id = whole(&clinic, &key).id;
    let seen = Some(Bson::Document(edited.clone()));
    resolve(&clinic.store, &id, Decision::TakeCentral, seen, clerk(), |_, _, _| Ok(())).await.unwrap();
    clinic.round().await;
    assert_eq!(clinic.at_centre(Kind::Page, &key.id), Some(edited.clone()));
    assert_eq!(clinic.here(Kind::Page, &key.id), Some(edited));
    assert_eq!(whole(&clinic, &key).status, ConflictStatus::Resolved);
}

/// As [`a_delete_that_lost_is_no_value_and_is_taken_as_a_delete`], for a decision that is written into the row. A person who
/// may not be deleted stays.
#[tokio::test]
async fn a_delete_that_lost_is_taken_from_the_row_by_the_rules_for_deleting() {
    let clinic = Clinic::new();
    let (key, _) = edited_over_the_delete(&clinic, Kind::Person).await;
    let id = whole(&clinic, &key).id;
    clinic.edit(Kind::Page, doc! {"_id": "theirs", "book": &key.id, "info": "a page"}).await;
    clinic.decides_in_row(&id, doc! {"resolution": "local"});
    clinic.round().await;
    clinic.round().await;
    let row = clinic.sim.state().conflicts[&id].clone();
    assert!(row.get_str("declined").is_ok_and(|why| why.contains("records of their own")), "{row}");
    assert!(clinic.here(Kind::Person, &key.id).is_some());
    clinic.delete(Kind::Page, "theirs").await;
    clinic.round().await;
    clinic.decides_in_row(&id, doc! {"resolution": "local"});
    clinic.round().await;
    clinic.round().await;
    assert_eq!((clinic.here(key.kind, &key.id), clinic.at_centre(key.kind, &key.id)), (None, None));
}

/// The version here stood, and the record is gone since: the row says what happened, and what there is to do.
#[tokio::test]
async fn a_decision_in_the_row_for_a_version_that_is_gone_since_is_declined_in_words_that_fit() {
    let clinic = Clinic::new();
    let (key, edited) = deleted_twice(&clinic, Kind::Page).await;
    let id = whole(&clinic, &key).id;
    let value = doc! {"resolution": "value", "value": with(edited.clone(), doc! {"note": "typed"})};
    for decision in [doc! {"resolution": "local"}, value] {
        clinic.decides_in_row(&id, decision);
        clinic.round().await;
        assert_gone_since(&clinic, &id);
    }
    // What it says can be done.
    takes_local(&clinic, &key).await.unwrap();
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.at_centre(Kind::Page, &key.id), Some(edited));
}

/// As before, of the centre's version.
#[tokio::test]
async fn a_decision_in_the_row_for_an_edit_of_the_centre_that_is_gone_since_is_declined_in_words_that_fit() {
    let clinic = Clinic::new();
    let (key, edited) = edited_over_the_delete(&clinic, Kind::Page).await;
    let id = whole(&clinic, &key).id;
    clinic.sim.remove(Kind::Page, &key.id);
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.here(Kind::Page, &key.id), None);
    clinic.decides_in_row(&id, doc! {"resolution": "central"});
    clinic.round().await;
    assert_gone_since(&clinic, &id);
    resolve(&clinic.store, &id, Decision::TakeCentral, None, clerk(), |_, _, _| Ok(())).await.unwrap();
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.at_centre(Kind::Page, &key.id), Some(edited));
}

/// The side that deleted the record has what it wanted.
#[tokio::test]
async fn a_decision_in_the_row_for_the_delete_closes_the_conflict_where_the_record_is_gone() {
    let clinic = Clinic::new();
    let (key, _) = deleted_twice(&clinic, Kind::Page).await;
    let id = whole(&clinic, &key).id;
    clinic.decides_in_row(&id, doc! {"resolution": "central"});
    clinic.round().await;
    assert_eq!(whole(&clinic, &key).status, ConflictStatus::Resolved);
    assert_eq!(clinic.here(Kind::Page, &key.id), None);
}

fn assert_gone_since(clinic: &Clinic, id: &str) {
    let row = clinic.sim.state().conflicts[id].clone();
    let declined = row.get_str("declined").unwrap();
    assert!(
        declined.contains("the record is gone: it was deleted after this conflict was found"),
        "{declined}"
    );
    assert!(declined.contains("decide at the node"), "{declined}");
}

/// What was deleted here is one record, and what the centre has under its id by now is another one: it waits as every record
/// of a person who is held.
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
