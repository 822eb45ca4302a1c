//! Records that were left behind at the centre: their person is gone, and who that was is not known here.

use bson::{Bson, Document, doc};
use thalamus_edge::domain::record::Kind::{self, Encounter, Person};
use thalamus_edge::store::{Conflict, ConflictStatus, HoldReason};
use thalamus_edge::sync::conflicts::{Decision, resolve};
use thalamus_edge::sync::identity::Verdict;

use super::ownerless::NEW;
use super::{ACCT, Clinic, ana, beatriz, clerk, with};

fn visit(notes: &str) -> Document {
    doc! {"_id": "x1", "person": ACCT, "notes": notes}
}

/// An encounter of Ana, made here, meets one that Beatriz left behind: she had the account between two rounds.
async fn met() -> (Clinic, Document, Document) {
    let (mine, theirs) = (with(visit("of Ana"), doc! {"a": "a"}), with(visit("of Beatriz"), doc! {"b": "b"}));
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.round().await;
    clinic.edit(Encounter, mine.clone()).await;
    clinic.sim.remove(Person, ACCT);
    clinic.there(Person, beatriz());
    clinic.there(Encounter, theirs.clone());
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    clinic.round().await;
    assert_eq!(clinic.here(Encounter, "x1"), Some(mine.clone()));
    assert_eq!(clinic.at_centre(Encounter, "x1"), Some(theirs.clone()));
    (clinic, mine, theirs)
}

impl Clinic {
    /// Decides the open conflict about the record of this kind.
    async fn decide_about(&self, kind: Kind, decision: Decision) {
        let is_meant =
            |conflict: &Conflict| conflict.key.kind == kind && conflict.status == ConflictStatus::Open;
        let conflict = self.conflicts().into_iter().find(is_meant).expect("a conflict");
        let seen = self.here(kind, &conflict.key.id).map(Bson::Document);
        let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
        resolve(&self.store, &conflict.id, decision, seen, clerk(), allow).await.unwrap();
    }
}

/// Ana is put there again by decision, which does not tell whose the encounter is: that is asked before she is sent.
async fn put_there_again() -> (Clinic, Document, Document) {
    let (clinic, mine, theirs) = met().await;
    clinic.decide_about(Person, Decision::TakeLocal).await;
    for _ in 0..2 {
        clinic.round().await;
        assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Taken));
    }
    assert_eq!(clinic.at_centre(Person, ACCT), None);
    assert_eq!(clinic.at_centre(Encounter, "x1"), Some(theirs.clone()), "still asked");
    assert_eq!(clinic.here(Encounter, "x1"), Some(mine.clone()));
    (clinic, mine, theirs)
}

#[tokio::test]
async fn it_is_not_mixed_with_one_that_was_made_here() {
    for decision in [Decision::TakeLocal, Decision::NewId, Decision::TakeCentral] {
        let (clinic, mine, theirs) = put_there_again().await;
        clinic.answer(Verdict::Same).await;
        clinic.round().await;
        assert_eq!(clinic.at_centre(Person, ACCT), Some(ana()));
        assert_eq!(clinic.at_centre(Encounter, "x1"), Some(theirs.clone()), "still asked");
        clinic.decide_about(Encounter, decision.clone()).await;
        clinic.assert_settled().await;
        let stands = if decision == Decision::TakeLocal { &mine } else { &theirs };
        assert_eq!(clinic.at_centre(Encounter, "x1").as_ref(), Some(stands), "{decision:?}");
        let encounters = clinic.sim.state().records.keys().filter(|(kind, _)| *kind == Encounter).count();
        assert_eq!(encounters, if decision == Decision::NewId { 2 } else { 1 });
    }
}

#[tokio::test]
async fn it_stays_with_the_account_when_it_is_another_ones() {
    let (clinic, mine, theirs) = put_there_again().await;
    clinic.answer(Verdict::NewId(NEW.to_owned())).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Encounter, "x1"), Some(theirs));
    assert_eq!(clinic.at_centre(Person, ACCT), None);
    let hers = clinic.sim.state().records.clone();
    let hers = hers.values().filter(|record| record.get_str("person").is_ok_and(|person| person == NEW));
    let notes: Vec<_> = hers.map(|record| record.get("notes").cloned()).collect();
    assert_eq!(notes, [mine.get("notes").cloned()]);
}

#[tokio::test]
async fn it_stays_when_the_person_goes_here_too() {
    let (clinic, mine, theirs) = met().await;
    clinic.decide_about(Person, Decision::TakeCentral).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Encounter, "x1"), Some(theirs));
    let trash = clinic.store.read().unwrap().trash().unwrap();
    assert!(trash.iter().any(|row| row.document == mine));
}

#[tokio::test]
async fn it_is_asked_no_more_when_the_other_is_gone() {
    let (clinic, mine, _) = met().await;
    clinic.sim.remove(Encounter, "x1");
    clinic.round().await;
    clinic.decide_about(Person, Decision::TakeLocal).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Encounter, "x1"), Some(mine));
}
