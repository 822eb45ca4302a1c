//! A person of a node is rewritten there into somebody else, and the centre gives the account away too before anybody has
//! decided: nobody gets what was written for another one.

use thalamus_edge::domain::record::Kind::{Encounter, Page, Person};
use thalamus_edge::store::HoldReason;
use thalamus_edge::sync::identity::Verdict;

use serde_json::json;
use thalamus_edge::domain::access::{Grant, Verb};
use thalamus_edge::domain::active::Closing;

use super::*;

pub(super) const CARLOS: &str = "NEW01";
pub(super) const ANA: &str = "NEW02";

/// Carlos, written over Ana.
pub(super) fn carlos() -> Document {
    with(ana(), doc! {"name": "Carlos", "lastname": "Diaz", "dob": "1970-01-02", "gender": "m"})
}

pub(super) fn why(clinic: &Clinic) -> Option<HoldReason> {
    clinic.store.read().unwrap().hold(ACCT).unwrap().map(|hold| hold.why)
}

/// What the one question that is open is about: who is here, and the other one.
pub(super) fn asked(clinic: &Clinic) -> (String, String) {
    let open = |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
    let found: Vec<_> = clinic.conflicts().into_iter().filter(open).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let pair = hold_of(&clinic.store.read().unwrap(), &found[0]).unwrap().unwrap().1;
    let name = |person: Option<Document>| person.unwrap().get_str("name").unwrap().to_owned();
    (name(pair.local), name(pair.central))
}

pub(super) async fn answer(clinic: &Clinic, verdict: Verdict) {
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

pub(super) fn books(clinic: &Clinic, accounts: &[&str]) -> Vec<Vec<String>> {
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
        // If the first one is gone, that waits for no sweep: she could log in until then.
        let again = clinic.store.read().unwrap().reread(&key(Person, ACCT)).unwrap();
        assert_eq!(again.is_some_and(|why| why.is_told), !is_back);
        for _ in 0..3 {
            clinic.round().await;
        }
        let is_open = |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
        assert!(!clinic.conflicts().iter().any(is_open), "{:?}", clinic.conflicts());
        assert_eq!(why(&clinic), None);
        // A person with records that were never sent goes only after a decision.
        assert_eq!(clinic.record_conflict().map(|asked| asked.key), (!is_back).then(|| key(Person, ACCT)));
        assert_eq!(books(&clinic, &[CARLOS]), [["Carlos"]]);
        let book = clinic.book(ACCT);
        assert!(book.iter().all(|text| text.starts_with("Ana")), "{book:?}");
        if is_back {
            clinic.assert_settled().await;
            assert_eq!(books(&clinic, &[ACCT]), [["Ana", "Ana, changed", "Ana, unsent"]]);
        } else {
            let closing = clinic.store.read().unwrap().closing(ACCT).unwrap();
            assert_eq!(closing, Some(Closing::Gone), "nobody can log in until that is decided");
            clinic.decide_record(Decision::TakeCentral).await;
            assert_eq!(clinic.here(Person, ACCT), None, "nobody can log in");
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

/// What opened the account to the first one opens nothing to anybody once she is deleted at the centre: neither before it is
/// decided whose her records are, nor under the account that the other one gets.
#[tokio::test]
async fn a_delete_of_the_first_one_ends_what_opened_her_account() {
    let rights = doc! {"password": "$2b$04$ana", "roles": ["root"], "active": false};
    for (own, password, roles) in [
        (doc! {}, None, vec!["end_user"]),
        (doc! {"password": "$2b$04$carlos", "roles": ["nurse"]}, Some("$2b$04$carlos"), vec!["nurse"]),
    ] {
        for is_asked_before in [false, true] {
            let clinic = Clinic::new();
            clinic.there(Person, with(with(ana(), rights.clone()), doc! {"active": true}));
            clinic.there(Page, page("p1", ACCT, "Ana"));
            clinic.round().await;
            clinic.run(|tx| tx.set_grants(ACCT, &["root".to_owned()], &Actor::Operator(0))).await;
            clinic.edit(Person, with(ana(), rights.clone())).await;
            clinic.round().await;
            clinic.edit(Person, with(with(carlos(), rights.clone()), own.clone())).await;
            if is_asked_before {
                clinic.round().await;
            }
            let count =
                || clinic.store.read().unwrap().rights_count(&Actor::Person(ACCT.to_owned())).unwrap();
            let before = count();
            clinic.sim.remove(Person, ACCT);
            clinic.round().await;
            assert!(count() > before, "sessions of the first one end");
            assert_eq!(why(&clinic), Some(HoldReason::Taken));
            for id in [ACCT, CARLOS] {
                if id == CARLOS {
                    answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
                    clinic.round().await;
                }
                let person = clinic.here(Person, id).unwrap();
                assert_eq!(person.get_str("password").ok(), password, "{id}");
                let found: Vec<&str> =
                    person.get_array("roles").unwrap().iter().filter_map(Bson::as_str).collect();
                assert_eq!(found, roles, "{id}");
                assert!(!person.get_bool("active").unwrap());
                let snapshot = clinic.store.read().unwrap();
                for hash in ["$2b$04$ana", "$2b$04$carlos", ""] {
                    assert_eq!(snapshot.grants(id, hash).unwrap(), Default::default(), "{id}");
                }
                assert!(snapshot.is_closed_here(id).unwrap(), "{id}");
            }
            assert!(clinic.store.read().unwrap().is_closed_here(ACCT).unwrap(), "closed for one of the two");
            // She comes back as she was, but for what was granted to her here.
            let trash = clinic.store.read().unwrap().trash().unwrap();
            let row = trash.iter().find(|row| row.key.kind == Person && row.key.id == ACCT).unwrap();
            assert_eq!(row.document, with(ana(), rights.clone()));
        }
    }
}

/// Who was written back while the question was open is deleted at the centre: that is a delete of what was edited here, and what
/// was written in between is asked about.
#[tokio::test]
async fn a_delete_of_one_who_is_written_back_meets_the_edit() {
    for has_own in [false, true] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.there(Page, page("p1", ACCT, "Ana"));
        clinic.round().await;
        clinic.edit(Person, carlos()).await;
        if has_own {
            clinic.edit(Page, page("p4", ACCT, "Carlos")).await;
        }
        clinic.round().await;
        assert_eq!(why(&clinic), Some(HoldReason::Rewritten));
        clinic.edit(Person, with(ana(), doc! {"phone": "2"})).await;
        clinic.sim.remove(Person, ACCT);
        if has_own {
            for _ in 0..2 {
                clinic.round().await;
                assert_eq!(why(&clinic), Some(HoldReason::Rewritten));
                assert_eq!((clinic.at_centre(Person, ACCT), clinic.at_centre(Page, "p4")), (None, None));
            }
            answer(&clinic, Verdict::Same).await;
        }
        clinic.round().await;
        assert_eq!(why(&clinic), None);
        let is_of_delete = |found: &Conflict| found.key == key(Person, ACCT) && found.path.is_empty();
        let found = clinic.conflicts().into_iter().find(|found| !found.is_identity() && is_of_delete(found));
        let found = found.expect("an edit against a delete");
        assert_eq!((found.status, found.central), (ConflictStatus::Open, None));
    }
}

/// The question that is open for the account is about a person in another spelling.
#[tokio::test]
async fn a_question_about_another_spelling_does_not_hide_the_delete() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.there(Page, page("p1", ACCT, "Ana"));
    clinic.round().await;
    clinic.edit(Person, with(beatriz(), doc! {"_id": "acc01"})).await;
    clinic.there(Person, with(beatriz(), doc! {"_id": "Acc01"}));
    clinic.round().await;
    assert_eq!(why(&clinic), Some(HoldReason::Spelling));
    clinic.edit(Person, carlos()).await;
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    assert!(clinic.conflicts().iter().all(Conflict::is_identity), "the delete is not of Carlos");
    let trash = clinic.store.read().unwrap().trash().unwrap();
    assert_eq!(trash.iter().map(|row| row.document.clone()).collect::<Vec<_>>(), [ana()]);
    assert_eq!(clinic.here(Person, ACCT).unwrap().get_str("name").unwrap(), "Carlos");
}

/// The centre gave the account to Carlos first, and then somebody writes him over Ana here: what was not sent for her is asked
/// about, and nothing is where nothing waits for her.
#[tokio::test]
async fn who_is_written_here_after_the_centre_gave_the_account_away_gets_nothing_of_the_first_one() {
    for (has_unsent, is_same) in [(false, true), (true, false), (true, true)] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.there(Page, page("p1", ACCT, "Ana"));
        clinic.round().await;
        if has_unsent {
            clinic.edit(Page, page("p3", ACCT, "Ana, unsent")).await;
        }
        clinic.there(Person, carlos());
        clinic.round().await;
        assert_eq!(why(&clinic), Some(HoldReason::Reused));
        clinic.edit(Person, carlos()).await;
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!(clinic.at_centre(Page, "p3"), None, "{has_unsent}");
        }
        if has_unsent {
            assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()));
        }
        if has_unsent && !is_same {
            answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
            assert_eq!(asked(&clinic), ("Ana".to_owned(), "Carlos".to_owned()));
            answer(&clinic, Verdict::NewId(ANA.to_owned())).await;
            clinic.assert_settled().await;
            assert_eq!(books(&clinic, &[ACCT, CARLOS, ANA]), [vec![], vec![], vec!["Ana", "Ana, unsent"]]);
        } else {
            let mut book = vec!["Ana"];
            if has_unsent {
                answer(&clinic, Verdict::Same).await;
                book.push("Ana, unsent");
            }
            clinic.assert_settled().await;
            assert_eq!(books(&clinic, &[ACCT]), [book]);
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
