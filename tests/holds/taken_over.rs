//! A person of a node is rewritten there into somebody else, and the centre gives the account away too before anybody has
//! decided: nobody gets what was written for another one.

use thalamus_edge::domain::record::Kind::{Encounter, Page, Person};
use thalamus_edge::store::HoldReason;
use thalamus_edge::sync::identity::Verdict;

use serde_json::json;
use thalamus_edge::domain::access::{Grant, Verb};

use super::*;

const CARLOS: &str = "NEW01";
const ANA: &str = "NEW02";

/// Carlos, written over Ana.
fn carlos() -> Document {
    with(ana(), doc! {"name": "Carlos", "lastname": "Diaz", "dob": "1970-01-02", "gender": "m"})
}

fn why(clinic: &Clinic) -> Option<HoldReason> {
    clinic.store.read().unwrap().hold(ACCT).unwrap().map(|hold| hold.why)
}

/// What the one question that is open is about: who is here, and the other one.
fn asked(clinic: &Clinic) -> (String, String) {
    let open = |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
    let found: Vec<_> = clinic.conflicts().into_iter().filter(open).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let pair = hold_of(&clinic.store.read().unwrap(), &found[0]).unwrap().unwrap().1;
    let name = |person: Option<Document>| person.unwrap().get_str("name").unwrap().to_owned();
    (name(pair.local), name(pair.central))
}

async fn answer(clinic: &Clinic, verdict: Verdict) {
    let open = |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
    let conflict = clinic.conflicts().into_iter().find(open).unwrap();
    let pair = hold_of(&clinic.store.read().unwrap(), &conflict).unwrap().unwrap().1;
    decide(&clinic.store, &conflict.id, verdict, pair, clerk()).await.unwrap();
}

/// Ana has pages that were delivered and ones that were not when Carlos is written over her, who gets one of his own. Then
/// the centre gives the account to `taker`, with a page of theirs.
async fn taken_over(taker: Document, is_asked_before: bool) -> Clinic {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.there(Page, page("p1", ACCT, "Ana"));
    clinic.there(Page, page("p2", ACCT, "Ana"));
    clinic.round().await;
    clinic.edit(Encounter, doc! {"_id": "e1", "person": ACCT, "summary": "Ana"}).await;
    clinic.round().await;
    clinic.edit(Page, page("p2", ACCT, "Ana, changed")).await;
    clinic.edit(Page, page("p3", ACCT, "Ana, unsent")).await;
    clinic.edit(Person, carlos()).await;
    clinic.edit(Page, page("p4", ACCT, "Carlos")).await;
    if is_asked_before {
        clinic.round().await;
        assert_eq!(why(&clinic), Some(HoldReason::Rewritten));
    }
    clinic.there(Person, taker);
    clinic.there(Page, page("c1", ACCT, "of the taker"));
    for _ in 0..2 {
        clinic.round().await;
        assert!(why(&clinic).is_some(), "{is_asked_before}");
        assert_eq!(clinic.at_centre(Page, "p3"), None);
        assert_eq!(clinic.at_centre(Page, "p2"), Some(page("p2", ACCT, "Ana")));
        assert_eq!(clinic.here(Page, "c1"), None);
    }
    clinic
}

fn books(clinic: &Clinic, accounts: &[&str]) -> Vec<Vec<String>> {
    let mut books: Vec<Vec<String>> = accounts.iter().map(|account| clinic.book(account)).collect();
    books.iter_mut().for_each(|book| book.sort());
    books
}

#[tokio::test]
async fn a_third_one_at_the_centre_is_a_second_question() {
    for is_asked_before in [false, true] {
        let clinic = taken_over(beatriz(), is_asked_before).await;
        assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()), "{is_asked_before}");
        answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
        for _ in 0..2 {
            assert_eq!(asked(&clinic), ("Ana".to_owned(), "Beatriz".to_owned()));
            assert_eq!(clinic.here(Page, "c1"), None);
            clinic.round().await;
        }
        answer(&clinic, Verdict::NewId(ANA.to_owned())).await;
        clinic.assert_settled().await;
        let found = books(&clinic, &[ACCT, CARLOS, ANA]);
        assert_eq!(found[0], ["of the taker"]);
        assert_eq!(found[1], ["Carlos"]);
        assert_eq!(found[2], ["Ana", "Ana, changed", "Ana, unsent"]);
        assert_eq!(clinic.here(Encounter, "e1").unwrap().get_str("person").unwrap(), ANA);
        assert_eq!(clinic.here(Person, ACCT), Some(beatriz()));
        assert_eq!(clinic.here(Person, ANA).unwrap().get_str("name").unwrap(), "Ana");
    }
}

/// The one who was written here is the first one, corrected; the third one is somebody else.
#[tokio::test]
async fn a_correction_meets_a_third_one() {
    for is_asked_before in [false, true] {
        let clinic = taken_over(beatriz(), is_asked_before).await;
        answer(&clinic, Verdict::Same).await;
        for _ in 0..2 {
            assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Beatriz".to_owned()));
            clinic.round().await;
        }
        answer(&clinic, Verdict::NewId(ANA.to_owned())).await;
        clinic.assert_settled().await;
        let found = books(&clinic, &[ACCT, ANA]);
        assert_eq!(found[0], ["of the taker"]);
        assert_eq!(found[1], ["Ana", "Ana, changed", "Ana, unsent", "Carlos"]);
    }
}

/// The third one goes again before the first question is decided.
#[tokio::test]
async fn a_third_one_who_goes_again_is_asked_about_no_more() {
    for is_back in [false, true] {
        let clinic = taken_over(beatriz(), true).await;
        clinic.sim.remove(Page, "c1");
        if is_back {
            clinic.there(Person, ana())
        } else {
            clinic.sim.remove(Person, ACCT)
        }
        clinic.round().await;
        assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()));
        answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
        for _ in 0..3 {
            clinic.round().await;
        }
        assert_eq!(books(&clinic, &[CARLOS]), [["Carlos"]]);
        let book = clinic.book(ACCT);
        assert!(book.iter().all(|text| text.starts_with("Ana")), "{book:?}");
        if is_back {
            clinic.assert_settled().await;
            assert_eq!(books(&clinic, &[ACCT]), [["Ana", "Ana, changed", "Ana, unsent"]]);
        }
    }
}

/// The first one is deleted at the centre: she lies in the trash, her records are asked about, and what was not sent for her
/// does not become the other one's.
#[tokio::test]
async fn a_delete_of_the_first_one_keeps_what_was_not_sent_for_her() {
    for (is_asked_before, is_restored, has_sent) in [
        (false, false, true),
        (false, true, true),
        (true, false, true),
        (true, true, true),
        (false, true, false),
        (true, true, false),
    ] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        if has_sent {
            clinic.there(Page, page("p1", ACCT, "Ana"));
        }
        clinic.round().await;
        clinic.edit(Page, page("p3", ACCT, "Ana, unsent")).await;
        clinic.edit(Person, carlos()).await;
        clinic.edit(Page, page("p4", ACCT, "Carlos")).await;
        if is_asked_before {
            clinic.round().await;
        }
        clinic.sim.remove(Person, ACCT);
        clinic.round().await;
        assert_eq!((why(&clinic), asked(&clinic).1.as_str()), (Some(HoldReason::Taken), "Ana"));
        assert_eq!(clinic.record_conflict(), None, "the delete is not of Carlos");
        answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
        for _ in 0..3 {
            clinic.round().await;
        }
        let hers = if has_sent { vec!["Ana", "Ana, unsent"] } else { vec!["Ana, unsent"] };
        assert_eq!(books(&clinic, &[CARLOS, ACCT]), [vec!["Carlos"], hers.clone()]);
        assert_eq!(clinic.at_centre(Page, "p3"), None);
        let status = clinic.sync.status().unwrap();
        assert_eq!(json!(status.left_behind), json!({"pols": hers.len()}));
        if is_restored {
            let trash = clinic.store.read().unwrap().trash().unwrap();
            let row = trash.iter().find(|row| row.key.kind == Person && row.key.id == ACCT).unwrap();
            clinic.store.undelete(Grant::operator(0, Verb::Post, Person), row.sequence).await.unwrap();
            clinic.assert_settled().await;
            assert_eq!(books(&clinic, &[CARLOS, ACCT]), [vec!["Carlos"], hers]);
        }
    }
}

/// Two nodes part the first one from the one whom the centre gave the account, under the same new one, and the second node has edits
/// of records that the first node has moved: the question whose these are ends with the decision.
#[tokio::test]
async fn edits_of_records_that_another_node_has_moved_go_along() {
    let sim = Sim::default();
    let (south, north) = (Clinic::at(&sim), Clinic::at(&sim));
    south.there(Person, ana());
    south.there(Page, page("p1", ACCT, "Ana"));
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    south.edit(Page, with(page("p1", ACCT, "Ana"), doc! {"more": "of Ana"})).await;
    south.there(Person, beatriz());
    for clinic in [&south, &north] {
        clinic.round().await;
    }
    answer(&north, Verdict::NewId(ANA.to_owned())).await;
    for clinic in [&north, &south, &north, &south] {
        clinic.round().await;
    }
    answer(&south, Verdict::NewId(ANA.to_owned())).await;
    for clinic in [&south, &north] {
        clinic.round().await;
        clinic.round().await;
    }
    for clinic in [&south, &north] {
        clinic.assert_settled().await;
        assert_eq!(clinic.record_conflict(), None);
        let page = clinic.here(Page, "p1").unwrap();
        assert_eq!((page.get_str("book").ok(), page.get_str("more").ok()), (Some(ANA), Some("of Ana")));
    }
}

/// The centre gives the account to the very one who was written here. What was not sent for the first one is not his.
#[tokio::test]
async fn the_same_one_at_the_centre_gets_nothing_of_the_first_one() {
    for is_asked_before in [false, true] {
        let clinic = taken_over(carlos(), is_asked_before).await;
        assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()), "{is_asked_before}");
        answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
        assert_eq!(asked(&clinic), ("Ana".to_owned(), "Carlos".to_owned()));
        answer(&clinic, Verdict::NewId(ANA.to_owned())).await;
        clinic.assert_settled().await;
        let found = books(&clinic, &[ACCT, CARLOS, ANA]);
        assert_eq!(found[0], ["of the taker"]);
        assert_eq!(found[1], ["Carlos"]);
        assert_eq!(found[2], ["Ana", "Ana, changed", "Ana, unsent"]);
    }
}

/// Where nothing waits for the first one there is nothing to ask.
#[tokio::test]
async fn the_same_correction_on_both_sides_is_no_question() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.there(Page, page("p1", ACCT, "Ana"));
    clinic.round().await;
    clinic.edit(Person, carlos()).await;
    clinic.edit(Page, page("p4", ACCT, "Carlos")).await;
    clinic.there(Person, carlos());
    clinic.assert_settled().await;
    assert_eq!(books(&clinic, &[ACCT]), [["Ana", "Carlos"]]);
}
