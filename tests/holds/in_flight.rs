//! A person who was made here is corrected while their insert is on its way to the centre: sent, and not acknowledged.

use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::HoldReason;
use thalamus_edge::sync::identity::Verdict;

use super::support::sim::Fault;
use super::taken_over::{CARLOS, answer, asked, books, carlos, why};
use super::*;

/// What becomes of the insert.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// It is answered after the correction.
    Answered,
    /// It is carried out, and the line or the node goes before the answer.
    AnswerLost,
    /// It never arrives.
    RequestLost,
    /// It is carried out after the node has looked for it.
    Late,
    /// It is carried out after the node has looked for it and sent the corrected person.
    TooLate,
}

const WAYS: [Way; 5] = [Way::Answered, Way::AnswerLost, Way::RequestLost, Way::Late, Way::TooLate];

/// Ana is made here, with a page, and becomes `corrected` while her insert goes `way`. `had_another`: somebody else had the
/// account before, and was deleted.
async fn corrected_in_flight(way: Way, corrected: Document, had_another: bool) -> Clinic {
    let clinic = Clinic::new();
    if had_another {
        clinic.edit(Person, with(beatriz(), doc! {"active": false})).await;
        clinic.round().await;
        clinic.delete(Person, ACCT).await;
        clinic.round().await;
    }
    clinic.edit(Person, ana()).await;
    clinic.edit(Page, page("p1", ACCT, "Ana")).await;
    let store = clinic.store.clone();
    let edit = async move || {
        let edited = move |tx: &mut Tx<'_>| tx.edit(&key(Person, ACCT), Some(&corrected), &clerk());
        store.transact(edited).await.unwrap();
    };
    let fault = match way {
        Way::Answered => {
            let edit = edit.clone();
            Fault::Meanwhile(Box::pin(async move { edit().await }))
        }
        Way::AnswerLost => Fault::LostAnswer,
        Way::RequestLost => Fault::LostRequest,
        Way::Late | Way::TooLate => Fault::Late,
    };
    clinic.sim.state().write_faults.push_back(fault);
    clinic.sync.round().await;
    if way != Way::Answered {
        edit().await;
    }
    // The node was killed as well.
    let clinic = Clinic::with(clinic.store.clone(), &clinic.sim, Duration::from_secs(60));
    if way == Way::Late {
        clinic.sync.round().await;
        clinic.sim.deliver();
    }
    for _ in 0..3 {
        clinic.sync.round().await;
    }
    clinic.sim.deliver();
    for _ in 0..2 {
        clinic.sync.round().await;
    }
    clinic
}

#[tokio::test]
async fn a_letter_is_corrected_without_a_question() {
    for way in WAYS {
        for had_another in [false, true] {
            for fields in [doc! {"name": "Anna"}, doc! {"lastname": "Bez", "phone": "2"}] {
                let corrected = with(ana(), fields);
                let clinic = corrected_in_flight(way, corrected.clone(), had_another).await;
                let what = format!("{way:?} {had_another} {corrected}");
                assert_eq!(clinic.conflicts(), [], "{what}");
                clinic.assert_settled().await;
                assert_eq!(clinic.at_centre(Person, ACCT), Some(corrected), "{what}");
                let people = clinic.sim.state().records.keys().filter(|(kind, _)| *kind == Person).count();
                assert_eq!(people, 1, "{what}");
                assert_eq!(books(&clinic, &[ACCT]), [["Ana"]], "{what}");
            }
        }
    }
}

/// Nor after a correction of more than a letter before she was sent: that was hers as well.
#[tokio::test]
async fn a_letter_is_corrected_after_much_was_corrected() {
    let clinic = Clinic::new();
    clinic.edit(Person, carlos()).await;
    clinic.edit(Page, page("p1", ACCT, "Ana")).await;
    clinic.edit(Person, ana()).await;
    let (store, corrected) = (clinic.store.clone(), with(ana(), doc! {"name": "Anna"}));
    let now = corrected.clone();
    let edit = async move {
        let edited = move |tx: &mut Tx<'_>| tx.edit(&key(Person, ACCT), Some(&now), &clerk());
        store.transact(edited).await.unwrap();
    };
    clinic.sim.state().write_faults.push_back(Fault::Meanwhile(Box::pin(edit)));
    for _ in 0..3 {
        clinic.sync.round().await;
    }
    assert_eq!(clinic.conflicts(), []);
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(corrected));
    assert_eq!(books(&clinic, &[ACCT]), [["Ana"]]);
}

/// Somebody was written over her while her insert was on its way, and she back, with a letter corrected: what was written for the
/// other one is not hers.
#[tokio::test]
async fn who_is_written_back_behind_another_one_in_flight_is_asked_about() {
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.sim.state().write_faults.push_back(Fault::LostAnswer);
    clinic.sync.round().await;
    clinic.edit(Person, carlos()).await;
    clinic.edit(Page, page("p2", ACCT, "Carlos")).await;
    clinic.edit(Person, with(ana(), doc! {"name": "Anna"})).await;
    for _ in 0..3 {
        clinic.sync.round().await;
    }
    assert_eq!(asked(&clinic), ("Anna".to_owned(), "Ana".to_owned()));
    assert_eq!(clinic.at_centre(Page, "p2"), None);
}

/// Who is written over somebody who has reached the centre is asked about; if she has not, that is a correction.
#[tokio::test]
async fn another_one_is_asked_about_if_the_first_one_arrived() {
    for way in WAYS {
        for had_another in [false, true] {
            let what = format!("{way:?} {had_another}");
            let clinic = corrected_in_flight(way, carlos(), had_another).await;
            if clinic.at_centre(Person, ACCT) == Some(carlos()) {
                assert!(matches!(way, Way::RequestLost | Way::Late | Way::TooLate), "{what}");
                clinic.assert_settled().await;
                assert_eq!(clinic.conflicts(), [], "{what}");
                assert_eq!(books(&clinic, &[ACCT]), [["Ana"]], "{what}");
                continue;
            }
            assert_eq!(why(&clinic), Some(HoldReason::Rewritten), "{what}");
            assert_eq!(asked(&clinic), ("Carlos".to_owned(), "Ana".to_owned()), "{what}");
            clinic.edit(Page, page("p2", ACCT, "Carlos")).await;
            answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
            clinic.assert_settled().await;
            assert_eq!(clinic.at_centre(Person, ACCT), Some(ana()), "{what}");
            assert_eq!(books(&clinic, &[ACCT, CARLOS]), [["Ana"], ["Carlos"]], "{what}");
        }
    }
}

/// A third one is written while the first one's insert is on its way: what was written for the second one begins with him.
#[tokio::test]
async fn corrections_of_a_rewrite_in_flight_begin_nobody_new() {
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.edit(Page, page("p1", ACCT, "Ana")).await;
    clinic.sim.state().write_faults.push_back(Fault::LostAnswer);
    clinic.sync.round().await;
    clinic.edit(Person, with(carlos(), doc! {"name": "Karl", "dob": "1970-01-20"})).await;
    clinic.edit(Page, page("p2", ACCT, "Carlos")).await;
    clinic.edit(Person, carlos()).await;
    for _ in 0..2 {
        clinic.sync.round().await;
    }
    answer(&clinic, Verdict::NewId(CARLOS.to_owned())).await;
    clinic.assert_settled().await;
    assert_eq!(books(&clinic, &[ACCT, CARLOS]), [["Ana"], ["Carlos"]]);
}
