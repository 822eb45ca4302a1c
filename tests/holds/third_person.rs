//! The centre gives an account away, or its person goes there, and somebody asks whether the two people are one. Before that is
//! answered the person of the node is rewritten into a third human being: what was written for the first one is not theirs.

use thalamus_edge::domain::access::{Grant, Verb};
use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::HoldReason;
use thalamus_edge::sync::conflicts::ResolveError;
use thalamus_edge::sync::identity::Verdict;

use super::taken_over::{ANA, CARLOS, answer, asked, books, carlos, why};
use super::*;

/// How the question about Ana came.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    /// The centre's record came to be about Beatriz.
    Reused,
    /// Ana is gone at the centre, has unsent records, and Beatriz came.
    Gone,
    /// Ana was deleted here, unsent, and Beatriz came.
    DeletedHere,
    /// Ana is gone at the centre, and Beatriz came in another spelling.
    OtherSpelling,
}

const ALL: [Before; 4] = [Before::Reused, Before::Gone, Before::DeletedHere, Before::OtherSpelling];

/// Ana has records that were delivered and, but for one who was deleted here, one that was not. Beatriz has the account at the
/// centre, with a page of hers and another text in one of Ana's. Then Carlos is written over Ana here, with a page of his own.
async fn written_over_behind_a_question(before: Before) -> Clinic {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.there(Page, page("p1", ACCT, "Ana"));
    clinic.there(Page, page("p2", ACCT, "Ana"));
    clinic.round().await;
    clinic.edit(Page, page("p2", ACCT, "Ana, changed")).await;
    clinic.edit(Page, page("p3", ACCT, "Ana, unsent")).await;
    let other = if before == Before::OtherSpelling { "Acc01" } else { ACCT };
    match before {
        Before::Reused => {}
        Before::Gone | Before::OtherSpelling => {
            clinic.sim.remove(Person, ACCT);
            clinic.round().await;
        }
        Before::DeletedHere => clinic.delete(Person, ACCT).await,
    }
    clinic.there(Person, with(beatriz(), doc! {"_id": other}));
    clinic.there(Page, page("p1", other, "Beatriz, in a page of Ana"));
    clinic.there(Page, page("c1", other, "Beatriz"));
    clinic.round().await;
    assert!(why(&clinic).is_some(), "{before:?}");
    assert_eq!(asked(&clinic), ("Ana".to_owned(), "Beatriz".to_owned()), "{before:?}");
    let fields = ["name", "lastname", "dob", "gender"].map(|field| (field, carlos().get(field).cloned()));
    let fields = fields.into_iter().map(|(field, value)| (field.to_owned(), value.unwrap())).collect();
    clinic.edit(Person, with(clinic.here(Person, ACCT).unwrap(), fields)).await;
    clinic.edit(Page, page("p4", ACCT, "Carlos")).await;
    clinic
}

/// The question that is open is not about the person who is here any more: it ends, and nothing is carried out.
async fn is_refused(clinic: &Clinic, verdict: Verdict) {
    let open = |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
    let conflict = clinic.conflicts().into_iter().find(open).unwrap();
    let pair = hold_of(&clinic.store.read().unwrap(), &conflict).unwrap().unwrap().1;
    let refused = decide(&clinic.store, &conflict.id, verdict, pair, clerk()).await;
    assert!(
        matches!(&refused, Err(ResolveError::Resolved(found)) if found.resolution.as_deref() == Some("ended")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_third_one_who_is_written_here_takes_nothing_of_the_first() {
    for before in ALL {
        for is_round_between in [false, true] {
            let what = format!("{before:?} {is_round_between}");
            let clinic = written_over_behind_a_question(before).await;
            if is_round_between {
                clinic.round().await;
            } else {
                is_refused(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
            }
            for _ in 0..2 {
                assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()), "{what}");
                assert_eq!(why(&clinic), Some(HoldReason::Rewritten), "{what}");
                assert_eq!(clinic.here(Page, "c1"), None, "{what}");
                assert_eq!(clinic.at_centre(Page, "p3"), None, "{what}");
                clinic.round().await;
            }
            answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
            for _ in 0..2 {
                assert_eq!(asked(&clinic), ("Ana".to_owned(), "Beatriz".to_owned()), "{what}");
                assert_eq!(clinic.here(Page, "c1"), None, "{what}");
                clinic.round().await;
            }
            answer(&clinic, Verdict::NewId(ANA.to_owned())).await;
            clinic.assert_settled().await;
            let found = books(&clinic, &[ACCT, CARLOS, ANA]);
            assert_eq!(found[0], ["Beatriz", "Beatriz, in a page of Ana"], "{what}");
            assert_eq!(found[1], ["Carlos"], "{what}");
            assert_eq!(found[2], ["Ana", "Ana, changed", "Ana, unsent"], "{what}");
        }
    }
}

/// The one who was written is the first one, corrected; whether they are Beatriz too is the second question.
#[tokio::test]
async fn a_correction_behind_a_question_keeps_the_records() {
    for before in ALL {
        let clinic = written_over_behind_a_question(before).await;
        is_refused(&clinic, Verdict::Same).await;
        answer(&clinic, Verdict::Same).await;
        for _ in 0..2 {
            assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Beatriz".to_owned()), "{before:?}");
            clinic.round().await;
        }
        answer(&clinic, Verdict::NewId(ANA.to_owned())).await;
        clinic.assert_settled().await;
        let found = books(&clinic, &[ACCT, ANA]);
        assert_eq!(found[0], ["Beatriz", "Beatriz, in a page of Ana"], "{before:?}");
        assert_eq!(found[1], ["Ana", "Ana, changed", "Ana, unsent", "Carlos"], "{before:?}");
    }
}

/// The centre goes on meanwhile: its person becomes a fourth one, the first one again, or goes.
#[tokio::test]
async fn the_centre_goes_on_behind_the_question() {
    let dora = with(beatriz(), doc! {"name": "Dora", "lastname": "Egli", "dob": "1999-09-09"});
    for before in [Before::Reused, Before::Gone, Before::DeletedHere] {
        for then in [Some(dora.clone()), Some(ana()), None] {
            for is_round_between in [false, true] {
                let name = then.as_ref().map(|person| person.get_str("name").unwrap().to_owned());
                let what = format!("{before:?} {name:?} {is_round_between}");
                let clinic = written_over_behind_a_question(before).await;
                if is_round_between {
                    clinic.round().await;
                }
                match then.clone() {
                    Some(person) => clinic.there(Person, person),
                    None => clinic.sim.remove(Person, ACCT),
                }
                clinic.round().await;
                assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()), "{what}");
                answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
                for _ in 0..3 {
                    clinic.round().await;
                }
                assert_eq!(books(&clinic, &[CARLOS]), [["Carlos"]], "{what}");
                for id in ["p1", "p2", "p3", "c1"] {
                    let at_centre = clinic.at_centre(Page, id);
                    let owner = at_centre.as_ref().map(|page| page.get_str("book").unwrap());
                    assert_ne!(owner, Some(CARLOS), "{what} {id}");
                }
            }
        }
    }
}

/// Ana was edited here and deleted at the centre, so that she is to be put there again; then Carlos is written over her. What was
/// not sent for her is not his, whether the centre has records of hers or not.
#[tokio::test]
async fn who_is_written_over_one_whose_edit_stands_gets_nothing() {
    for (has_sent, steps) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        if has_sent {
            clinic.there(Page, page("p1", ACCT, "Ana"));
        }
        clinic.round().await;
        clinic.edit(Page, page("p3", ACCT, "Ana, unsent")).await;
        clinic.edit(Person, with(ana(), doc! {"phone": "2"})).await;
        clinic.sim.remove(Person, ACCT);
        // The delete is read, and she does not get there.
        clinic.sim.state().refused.push(ACCT.to_owned());
        clinic.sync.round().await;
        clinic.sim.state().refused.clear();
        if steps == 2 {
            clinic.edit(Person, with(ana(), doc! {"name": carlos().get_str("name").unwrap()})).await;
        }
        clinic.edit(Person, carlos()).await;
        clinic.edit(Page, page("p4", ACCT, "Carlos")).await;
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!(clinic.at_centre(Page, "p3"), None, "{has_sent} {steps}");
            assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()), "{has_sent} {steps}");
        }
        answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
        for _ in 0..3 {
            clinic.round().await;
        }
        assert_eq!(books(&clinic, &[CARLOS]), [["Carlos"]], "{has_sent}");
        assert_eq!(clinic.here(Page, "p3").unwrap().get_str("book").unwrap(), ACCT, "{has_sent}");
    }
}

/// The one who was written here goes on with a record of the first one, which the centre's person has changed too: each has a
/// version.
#[tokio::test]
async fn a_record_that_three_people_have_written_is_there_for_each() {
    for before in [Before::Reused, Before::Gone] {
        let clinic = written_over_behind_a_question(before).await;
        clinic.edit(Page, page("p1", ACCT, "Carlos, in a page of Ana")).await;
        clinic.round().await;
        answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
        clinic.round().await;
        answer(&clinic, Verdict::NewId(ANA.to_owned())).await;
        clinic.assert_settled().await;
        let found = books(&clinic, &[ACCT, CARLOS, ANA]);
        assert_eq!(found[0], ["Beatriz", "Beatriz, in a page of Ana"], "{before:?}");
        assert_eq!(found[1], ["Carlos", "Carlos, in a page of Ana"], "{before:?}");
        assert_eq!(found[2], ["Ana", "Ana, changed", "Ana, unsent"], "{before:?}");
    }
}

/// What lies in the trash of the first one is theirs if the one who was written over them is the same.
#[tokio::test]
async fn a_correction_keeps_what_is_in_the_trash() {
    let clinic = Clinic::new();
    clinic.there(Person, ana());
    clinic.there(Page, page("p1", ACCT, "Ana"));
    clinic.round().await;
    clinic.delete(Page, "p1").await;
    clinic.round().await;
    clinic.edit(Person, carlos()).await;
    clinic.round().await;
    answer(&clinic, Verdict::Same).await;
    clinic.assert_settled().await;
    let trash = clinic.store.read().unwrap().trash().unwrap();
    clinic.store.undelete(Grant::operator(0, Verb::Post, Page), trash[0].sequence).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(books(&clinic, &[ACCT]), [["Ana"]]);
}
