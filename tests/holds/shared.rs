//! Two human beings who have one account in two spellings, one after the other or at the same time.

use bson::{Document, doc};
use thalamus_edge::domain::record::Kind::{Encounter, Page, Person};
use thalamus_edge::store::{HoldReason, WaitReason};
use thalamus_edge::sync::conflicts::Decision;
use thalamus_edge::sync::identity::Verdict;

use super::{ACCT, Clinic, ana, beatriz, page, with};

const LOWER: &str = "acc01";

fn lower(person: Document) -> Document {
    with(person, doc! {"_id": LOWER})
}

/// Ana, in one spelling, and records of hers that were never sent; then Beatriz has the account in the other one.
async fn given_away(ana: Document, beatriz: Document, rounds_between: usize) -> Clinic {
    let clinic = Clinic::new();
    let gone = ana.get_str("_id").unwrap().to_owned();
    clinic.there(Person, ana);
    clinic.round().await;
    clinic.edit(Page, page("p1", ACCT, "of Ana")).await;
    clinic.edit(Encounter, doc! {"_id": "e1", "person": ACCT, "notes": "of Ana"}).await;
    clinic.sim.remove(Person, &gone);
    for _ in 0..rounds_between {
        clinic.round().await;
    }
    clinic.there(Person, beatriz);
    for _ in 0..3 {
        clinic.round().await;
    }
    clinic
}

#[tokio::test]
async fn records_do_not_go_to_whoever_has_the_account_in_another_spelling() {
    for rounds_between in [0, 1] {
        for (before, after) in [(lower(ana()), beatriz()), (ana(), lower(beatriz()))] {
            let clinic = given_away(before, after, rounds_between).await;
            for (kind, id) in [(Page, "p1"), (Encounter, "e1")] {
                assert_eq!(clinic.at_centre(kind, id), None, "{id}");
                let why = clinic.waits_for(kind, id);
                let may_be = [Some(WaitReason::Shared), Some(WaitReason::Held)];
                assert!(may_be.contains(&why), "{id}: {why:?}, {rounds_between}");
            }
            let report = clinic.round().await;
            assert!(!report.message.contains("up to date"), "{report:?}");
        }
    }
}

#[tokio::test]
async fn nobody_sees_the_records_of_the_one_before() {
    for (before, after) in [(lower(ana()), beatriz()), (ana(), lower(beatriz()))] {
        let clinic = Clinic::new();
        let (gone, new) =
            (before.get_str("_id").unwrap().to_owned(), after.get_str("_id").unwrap().to_owned());
        clinic.there(Person, before);
        clinic.there(Page, page("p1", ACCT, "of Ana"));
        clinic.round().await;
        clinic.sim.remove(Person, &gone);
        clinic.there(Person, after.clone());
        clinic.round().await;
        assert_eq!(clinic.holds(), 1);
        assert_eq!(clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap().why, HoldReason::Departed);
        assert_eq!(clinic.here(Person, &new), None);
        assert_eq!(clinic.held(Person, &new), Some(after.clone()));
        clinic.decide(Verdict::NewId("ANA02".to_owned())).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(Person, &new), Some(after));
        assert_eq!(clinic.book(ACCT), [""; 0]);
        assert_eq!(clinic.book("ANA02"), ["of Ana"]);
    }
}

#[tokio::test]
async fn new_records_of_a_shared_account_wait_until_it_is_one_persons() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.there(Person, lower(beatriz()));
    clinic.there(Page, page("p1", ACCT, "agreed"));
    clinic.round().await;
    clinic.edit(Page, page("p1", ACCT, "edited")).await;
    clinic.edit(Page, page("p2", ACCT, "new")).await;
    clinic.round().await;
    assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", ACCT, "edited")));
    assert_eq!(clinic.at_centre(Page, "p2"), None);
    assert_eq!(clinic.waits_for(Page, "p2"), Some(WaitReason::Shared));
    // It was a mistake: somebody corrects the other one to be Ana, field by field.
    let mut corrected = lower(beatriz());
    for field in ["name", "lastname", "dob", "gender"] {
        corrected.insert(field, ana().get(field).unwrap().clone());
        clinic.there(Person, corrected.clone());
        clinic.round().await;
    }
    // Whether that is still the one for whom the page may have been written.
    clinic.decide(Verdict::Same).await;
    clinic.assert_settled().await;
    assert_eq!((clinic.holds(), clinic.here(Person, ACCT)), (0, Some(ana())));
    assert_eq!(clinic.at_centre(Page, "p2"), Some(page("p2", ACCT, "new")));
}

#[tokio::test]
async fn records_that_came_with_the_other_one_wait_with_them() {
    for (before, after) in [(lower(ana()), beatriz()), (ana(), lower(beatriz()))] {
        let clinic = Clinic::new();
        let (gone, new) =
            (before.get_str("_id").unwrap().to_owned(), after.get_str("_id").unwrap().to_owned());
        clinic.there(Person, before);
        clinic.round().await;
        clinic.edit(Page, page("p1", ACCT, "of Ana")).await;
        clinic.sim.remove(Person, &gone);
        clinic.there(Person, after.clone());
        clinic.there(Page, page("p2", &new, "of Beatriz"));
        clinic.round().await;
        assert_eq!(clinic.book(ACCT), ["of Ana"]);
        assert!(clinic.held(Page, "p2").is_some());
        clinic.decide(Verdict::NewId("ANA02".to_owned())).await;
        clinic.assert_settled().await;
        assert_eq!(
            (clinic.book(ACCT), clinic.book("ANA02")),
            (vec!["of Beatriz".to_owned()], vec!["of Ana".to_owned()])
        );
    }
}

/// Whoever deletes one of two who have shared an account for long decides whose the records are.
#[tokio::test]
async fn nobody_is_asked_about_two_who_have_shared_an_account_for_long() {
    let clinic = Clinic::new();
    clinic.there(Person, lower(ana()));
    clinic.there(Person, beatriz());
    clinic.there(Page, page("p1", ACCT, "of Beatriz"));
    for _ in 0..4 {
        clinic.round().await;
    }
    clinic.there(Person, with(beatriz(), doc! {"phone": "2"}));
    clinic.there(Page, page("p2", ACCT, "of Beatriz"));
    clinic.sim.remove(Person, LOWER);
    clinic.assert_settled().await;
    assert_eq!((clinic.holds(), clinic.book(ACCT).len()), (0, 2));
}

/// A pass over everything does not find the one who is gone missing again, and the question ends with the other one.
#[tokio::test]
async fn a_question_about_two_spellings_outlasts_a_verification() {
    let clinic = Clinic::new();
    clinic.there(Person, with(lower(ana()), doc! {"phone": "1"}));
    clinic.there(Page, page("p1", ACCT, "of Ana"));
    clinic.round().await;
    clinic.sim.remove(Person, LOWER);
    clinic.there(Person, beatriz());
    clinic.round().await;
    assert_eq!(clinic.holds(), 1);
    let conflict = clinic.identity().id;
    clinic.sync.ask_for_verification().await.unwrap();
    for _ in 0..3 {
        clinic.round().await;
    }
    assert_eq!((clinic.holds(), clinic.identity().id), (1, conflict));
    assert_eq!(clinic.here(Person, LOWER).unwrap().get_str("phone").unwrap(), "1");
    clinic.sim.remove(Person, ACCT);
    for _ in 0..3 {
        clinic.round().await;
    }
    assert_eq!((clinic.holds(), clinic.here(Person, LOWER), clinic.here(Person, ACCT)), (0, None, None));
}

/// Somebody makes a second spelling at the centre by mistake, and deletes it again: the records of the right person are not
/// what is decided about, and go out.
#[tokio::test]
async fn a_second_spelling_that_was_a_slip_takes_nothing_along() {
    for has_own in [false, true] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.there(Page, page("p0", ACCT, "of Ana"));
        clinic.round().await;
        clinic.there(Person, lower(beatriz()));
        clinic.round().await;
        clinic.edit(Page, page("p0", ACCT, "of Ana, changed")).await;
        clinic.edit(Page, page("p1", ACCT, "of Ana")).await;
        clinic.edit(Encounter, doc! {"_id": "e1", "person": ACCT, "notes": "of Ana"}).await;
        if has_own {
            clinic.edit(Page, page("b1", LOWER, "of Beatriz")).await;
        }
        clinic.round().await;
        assert_eq!(clinic.waits_for(Page, "p1"), Some(WaitReason::Shared));
        clinic.sim.remove(Person, LOWER);
        clinic.round().await;
        assert_eq!(clinic.record_conflict().is_some(), has_own);
        clinic.decide_record(Decision::TakeCentral).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, LOWER), None);
        let mut book = clinic.book(ACCT);
        book.sort();
        assert_eq!(book, ["of Ana", "of Ana, changed"]);
        assert!(clinic.at_centre(Encounter, "e1").is_some());
        let trash = clinic.store.read().unwrap().trash().unwrap();
        let mut ids: Vec<&str> = trash.iter().map(|row| row.key.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, if has_own { vec![LOWER, "b1"] } else { vec![LOWER] });
    }
}
