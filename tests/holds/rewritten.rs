//! A person of a node who is rewritten in place into somebody else. Nodes that have not delivered their records yet, or whose
//! records this one has not read, know the first one: the account never becomes the other one's before somebody has decided.

use thalamus_edge::domain::record::Kind::{Encounter, Page, Person, PersonalDocument};
use thalamus_edge::store::HoldReason;
use thalamus_edge::sync::identity::Verdict;

use super::*;

const NEW: &str = "NEW01";

/// Carlos, written over Ana.
fn carlos() -> Document {
    with(ana(), doc! {"name": "Carlos", "lastname": "Diaz", "dob": "1970-01-02", "gender": "m"})
}

/// Ana stands at the centre, and both nodes have her. What the second one writes for her is delivered before the first one
/// looks again; `own` of the first is not sent.
async fn rewritten(own: &[&str]) -> (Clinic, Clinic) {
    let sim = Sim::default();
    let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
    south.there(Person, ana());
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    for kind in [Page, Encounter, PersonalDocument] {
        north
            .edit(kind, super::ownerless::record(kind, &format!("n-{}", kind.schema().collection), "Ana"))
            .await;
    }
    north.round().await;
    for id in own {
        south.edit(Page, page(id, ACCT, "Ana, unsent")).await;
    }
    south.edit(Person, carlos()).await;
    (south, north)
}

fn why(clinic: &Clinic) -> Option<HoldReason> {
    clinic.store.read().unwrap().hold(ACCT).unwrap().map(|hold| hold.why)
}

#[tokio::test]
async fn who_is_rewritten_waits_until_somebody_has_decided() {
    let (south, north) = rewritten(&[]).await;
    for _ in 0..2 {
        south.round().await;
        assert_eq!(why(&south), Some(HoldReason::Rewritten));
        assert_eq!(south.at_centre(Person, ACCT), Some(ana()), "nobody else has the account there");
        assert_eq!(south.here(Person, ACCT), Some(carlos()));
        north.round().await;
        assert_eq!(north.holds(), 0, "nothing has changed for others");
    }
}

#[tokio::test]
async fn two_people_part_with_what_was_written_for_each() {
    let (south, north) = rewritten(&["s-ana"]).await;
    // Before the next round: a page of his own, another word in one of hers, and one of hers is deleted.
    south.edit(Page, page("s-carlos", ACCT, "Carlos")).await;
    south.edit(Page, page("s-ana", ACCT, "Ana, unsent, again")).await;
    south.round().await;
    let hold = south.store.read().unwrap().hold(ACCT).unwrap().unwrap();
    assert_eq!(south.store.read().unwrap().going_along_count(&hold).unwrap(), 1);
    south.decide(Verdict::NewId(NEW.to_owned())).await;
    for clinic in [&south, &north, &south, &north] {
        clinic.round().await;
    }
    for clinic in [&south, &north] {
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), Some(ana()));
        let person = clinic.here(Person, NEW).unwrap();
        assert_eq!(person.get_str("name").unwrap(), "Carlos");
        assert_eq!(clinic.book(NEW), ["Carlos"]);
        let mut book = clinic.book(ACCT);
        book.sort();
        assert_eq!(book, ["Ana", "Ana, unsent, again"]);
        assert_eq!(
            clinic.here(Encounter, "n-encounter").unwrap().get_str("person").ok().map(str::to_owned),
            Some(ACCT.to_owned())
        );
    }
}

#[tokio::test]
async fn one_person_is_corrected_at_all_nodes_by_one_decision() {
    let (south, north) = rewritten(&["s-ana"]).await;
    south.round().await;
    south.decide(Verdict::Same).await;
    for clinic in [&south, &north, &south, &north] {
        clinic.round().await;
    }
    for clinic in [&south, &north] {
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), Some(carlos()));
        assert_eq!(clinic.book(ACCT), ["Ana", "Ana, unsent"]);
        assert_eq!(clinic.conflicts().iter().filter(|c| c.status == ConflictStatus::Open).count(), 0);
    }
}

#[tokio::test]
async fn who_is_written_back_is_not_asked_about_any_more() {
    let (south, _north) = rewritten(&["s-ana"]).await;
    south.round().await;
    south.edit(Person, ana()).await;
    south.round().await;
    south.assert_settled().await;
    assert_eq!(south.identity().resolution.as_deref(), Some("ended"));
}

#[tokio::test]
async fn step_by_step_with_rounds_in_between_is_asked_too() {
    let sim = Sim::default();
    let clinic = Clinic::at(&sim);
    clinic.there(Person, ana());
    clinic.round().await;
    for (field, value, is_asked) in [("name", "Carlos", false), ("lastname", "Diaz", true)] {
        clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), doc! {field: value})).await;
        clinic.round().await;
        assert_eq!(why(&clinic).is_some(), is_asked, "{field}");
    }
    clinic.decide(Verdict::Same).await;
    clinic.round().await;
    clinic.assert_settled().await;
    // From now on they are who they are.
    clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), doc! {"gender": "m"})).await;
    clinic.round().await;
    clinic.assert_settled().await;
}

/// Somebody writes another person into the account at the centre. What this node had of the first one goes with her.
#[tokio::test]
async fn what_was_agreed_before_the_centre_gave_the_account_away_goes_along() {
    let sim = Sim::default();
    let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
    south.there(Person, ana());
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    north.edit(Page, page("p1", ACCT, "Ana")).await;
    north.edit(Page, page("p2", ACCT, "Ana, changed")).await;
    for clinic in [&north, &south] {
        clinic.round().await;
    }
    south.there(Person, beatriz());
    south.there(Page, page("p3", ACCT, "Beatriz"));
    south.there(Page, page("p2", ACCT, "Beatriz, changed"));
    for clinic in [&north, &south] {
        clinic.round().await;
        assert_eq!(why(clinic), Some(HoldReason::Reused));
    }
    // The same is decided on both nodes, one after the other.
    for clinic in [&north, &south] {
        clinic.decide(Verdict::NewId(NEW.to_owned())).await;
        for clinic in [&north, &south, &north, &south] {
            clinic.round().await;
        }
    }
    for clinic in [&north, &south] {
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), Some(beatriz()));
        assert_eq!(clinic.here(Person, NEW).unwrap().get_str("name").unwrap(), "Ana");
        let (mut hers, mut others) = (clinic.book(NEW), clinic.book(ACCT));
        hers.sort();
        hers.dedup();
        others.sort();
        assert_eq!(hers, ["Ana", "Ana, changed"]);
        assert_eq!(others, ["Beatriz", "Beatriz, changed"]);
    }
}
