//! A node joins with a person, and the centre has records under the account and nobody: also where they have the ids of records of
//! the node, it is asked whose they are before the person is sent, and until then the person's book is what it was.

use bson::{Document, doc};
use thalamus_edge::domain::record::Kind::{self, Encounter, Page, Person, PersonalDocument};
use thalamus_edge::domain::schema::Owner;
use thalamus_edge::store::HoldReason;
use thalamus_edge::sync::conflicts::Decision;
use thalamus_edge::sync::identity::Verdict;

use super::ownerless::{NEW, anna, boris, record};
use super::support::sim::Sim;
use super::{ACCT, Clinic, ana, with};

const KINDS: [Kind; 3] = [Page, PersonalDocument, Encounter];
/// Somebody who is at the centre.
const OTHER: &str = "OTHER01";

fn owner(kind: Kind) -> &'static str {
    match kind.schema().owner {
        Owner::Field(field) => field,
        _ => panic!("{kind:?} belongs to nobody"),
    }
}

fn of(account: &str, kind: Kind, id: &str, token: &str) -> Document {
    with(record(kind, id, token), doc! {owner(kind): account})
}

/// The texts of the records of a kind that are in the book of an account here.
fn texts(clinic: &Clinic, kind: Kind, account: &str) -> Vec<String> {
    let records = clinic.store.read().unwrap().list_of(kind, account, None, 99, 99_999).unwrap().records;
    let text = |document: Document| document.get_str("info").unwrap().to_owned();
    let mut texts: Vec<_> =
        records.iter().map(|record| text(Document::try_from(record.document.as_ref()).unwrap())).collect();
    texts.sort();
    texts
}

/// What a node that is new sees in the book of an account; `None` if nobody has it.
async fn seen_elsewhere(sim: &Sim, kind: Kind, account: &str) -> Option<Vec<String>> {
    let node = Clinic::at(sim);
    node.round().await;
    node.here(Person, account).map(|_| texts(&node, kind, account))
}

fn why(clinic: &Clinic) -> Option<HoldReason> {
    clinic.open_identity().map(|(_, why)| why)
}

/// Anna is made on a node, and a record of hers, or of somebody else's, has the id of one that Zoe left at the centre.
async fn met(kind: Kind, of_whom: &str) -> Clinic {
    let clinic = Clinic::new();
    clinic.there(Person, with(ana(), doc! {"_id": OTHER}));
    clinic.round().await;
    clinic.edit(Person, anna()).await;
    clinic.edit(kind, of(of_whom, kind, "r1", "Anna-made")).await;
    clinic.there(kind, record(kind, "r1", "Zoe-left"));
    clinic
}

#[tokio::test]
async fn a_record_with_the_id_of_one_here_asks_about_the_person() {
    for kind in KINDS {
        for of_whom in [ACCT, OTHER] {
            for verdict in [Verdict::Same, Verdict::NewId(NEW.to_owned())] {
                let what = format!("{kind:?} {of_whom} {verdict:?}");
                let clinic = met(kind, of_whom).await;
                for _ in 0..2 {
                    clinic.round().await;
                    assert_eq!(why(&clinic), Some(HoldReason::Taken), "{what}");
                    assert_eq!(clinic.at_centre(Person, ACCT), None, "{what}");
                    assert_eq!(texts(&clinic, kind, of_whom), ["Anna-made"], "{what}");
                }
                clinic.answer(verdict.clone()).await;
                for _ in 0..2 {
                    clinic.round().await;
                    assert_eq!(why(&clinic), None, "{what}");
                }
                let is_same = verdict == Verdict::Same;
                let (account, other) = if is_same { (ACCT, NEW) } else { (NEW, ACCT) };
                assert!(clinic.at_centre(Person, account).is_some(), "{what}");
                assert!(clinic.at_centre(Person, other).is_none(), "{what}");
                // Which of two records of one person, or of two people who are known, is to have the id.
                let is_left = is_same || of_whom == OTHER;
                assert_eq!(clinic.record_conflict().is_some(), is_left, "{what}");
                clinic.decide_record(Decision::NewId).await;
                clinic.assert_settled().await;
                let hers = if of_whom == ACCT { account } else { OTHER };
                assert!(texts(&clinic, kind, hers).contains(&"Anna-made".to_owned()), "{what}");
                assert_eq!(clinic.at_centre(kind, "r1"), Some(record(kind, "r1", "Zoe-left")), "{what}");
                let seen = seen_elsewhere(&clinic.sim, kind, account).await.unwrap();
                assert_eq!(seen.contains(&"Zoe-left".to_owned()), is_same, "{what}");
            }
        }
    }
}

/// Which of the two records has the id is decided first: that does not say whose the other one was.
#[tokio::test]
async fn a_decision_about_the_record_is_none_about_the_person() {
    for kind in KINDS {
        for decision in [Decision::TakeLocal, Decision::TakeCentral, Decision::NewId] {
            let what = format!("{kind:?} {decision:?}");
            let clinic = met(kind, ACCT).await;
            clinic.round().await;
            clinic.decide_record(decision.clone()).await;
            for _ in 0..2 {
                clinic.round().await;
                assert_eq!(why(&clinic), Some(HoldReason::Taken), "{what}");
                assert_eq!(clinic.at_centre(Person, ACCT), None, "{what}");
                assert!(!texts(&clinic, kind, ACCT).contains(&"Zoe-left".to_owned()), "{what}");
            }
            clinic.answer(Verdict::NewId(NEW.to_owned())).await;
            clinic.assert_settled().await;
            assert_eq!(seen_elsewhere(&clinic.sim, kind, ACCT).await, None, "{what}");
            let hers = seen_elsewhere(&clinic.sim, kind, NEW).await.unwrap();
            assert_eq!(hers.contains(&"Anna-made".to_owned()), decision != Decision::TakeCentral, "{what}");
            assert!(!hers.contains(&"Zoe-left".to_owned()), "{what}");
        }
    }
}

/// The question is answered with "the same", and then, before the next round, that of the record.
#[tokio::test]
async fn a_record_that_is_decided_to_be_hers_asks_no_second_time() {
    for kind in KINDS {
        for of_whom in [ACCT, OTHER] {
            for decision in [Decision::TakeLocal, Decision::TakeCentral, Decision::NewId] {
                let what = format!("{kind:?} {of_whom} {decision:?}");
                let clinic = met(kind, of_whom).await;
                clinic.round().await;
                clinic.answer(Verdict::Same).await;
                // Of two people's the second question comes with the next round.
                clinic.decide_record(decision.clone()).await;
                for _ in 0..2 {
                    clinic.round().await;
                    assert_eq!(why(&clinic), None, "{what}");
                }
                assert!(clinic.at_centre(Person, ACCT).is_some(), "{what}");
                clinic.decide_record(decision.clone()).await;
                clinic.assert_settled().await;
                let is_left = clinic.at_centre(kind, "r1") == Some(record(kind, "r1", "Zoe-left"));
                assert_eq!(is_left, decision != Decision::TakeLocal, "{what}");
            }
        }
    }
}

/// The centre's record becomes another one after it was decided, and before she is sent: whose that is nobody has said.
#[tokio::test]
async fn another_version_that_comes_after_the_decision_is_asked_about() {
    let clinic = met(Page, ACCT).await;
    clinic.round().await;
    clinic.answer(Verdict::Same).await;
    clinic.there(Page, with(record(Page, "r1", "Zoe-left"), doc! {"more": "Zoe-later"}));
    clinic.round().await;
    assert_eq!(why(&clinic), Some(HoldReason::Taken));
    assert_eq!(clinic.at_centre(Person, ACCT), None);
}

/// Anna with three pages, two documents of which one is about a page, and a visit; the centre has some of these, as they are or
/// in another form, and a page of its own, and nobody.
async fn joined(sim: &Sim) -> Clinic {
    let clinic = Clinic::at(sim);
    clinic.edit(Person, anna()).await;
    for (kind, document) in hers() {
        clinic.edit(kind, document).await;
    }
    clinic
}

fn hers() -> [(Kind, Document); 6] {
    let content = doc! {"sha256": "0".repeat(64), "length": 3_i64, "type": "text/plain"};
    [
        (Page, record(Page, "p0", "Anna-p0")),
        (Page, with(record(Page, "p1", "Anna-p1"), doc! {"weight": 70_i32})),
        (Page, record(Page, "mine", "Anna-mine")),
        (PersonalDocument, with(record(PersonalDocument, "d0", "Anna-d0"), doc! {"pol": "p0"})),
        (PersonalDocument, with(record(PersonalDocument, "d1", "Anna-d1"), doc! {"content": content})),
        (Encounter, record(Encounter, "e0", "Anna-e0")),
    ]
}

fn left_at(sim: &Sim) {
    for (kind, document) in hers() {
        match document.get_str("_id").unwrap() {
            "mine" => {}
            "p1" => sim.put(kind, with(document, doc! {"weight": 70.0})),
            _ => sim.put(kind, document),
        }
    }
    sim.put(Page, record(Page, "p9", "Zoe-p9"));
}

fn all_texts(clinic: &Clinic, account: &str) -> Vec<String> {
    KINDS.into_iter().flat_map(|kind| texts(clinic, kind, account)).collect()
}

const HERS: [&str; 6] = ["Anna-mine", "Anna-p0", "Anna-p1", "Anna-d0", "Anna-d1", "Anna-e0"];

#[tokio::test]
async fn what_the_node_had_stays_in_the_book_and_goes_along() {
    for is_page_left in [true, false] {
        let clinic = joined(&Sim::default()).await;
        left_at(&clinic.sim);
        if !is_page_left {
            clinic.sim.remove(Page, "p9");
        }
        for _ in 0..3 {
            clinic.round().await;
            assert_eq!(all_texts(&clinic, ACCT), HERS);
            assert_eq!(why(&clinic), Some(HoldReason::Taken));
            assert_eq!(clinic.record_conflict(), None);
            assert_eq!(clinic.at_centre(Person, ACCT), None);
            assert_eq!(clinic.store.read().unwrap().disagreements().unwrap(), [""; 0]);
        }
        let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
        assert_eq!(clinic.store.read().unwrap().going_along_count(&hold).unwrap(), 6);
        clinic.answer(Verdict::NewId(NEW.to_owned())).await;
        clinic.assert_settled().await;
        assert_eq!(all_texts(&clinic, NEW), HERS);
        for (kind, document) in hers() {
            let id = document.get_str("_id").unwrap();
            let is_left =
                clinic.at_centre(kind, id).is_some_and(|left| left.get_str(owner(kind)).ok() == Some(ACCT));
            assert_eq!(is_left, id != "mine", "{id}");
        }
        // The copies name each other.
        let snapshot = clinic.store.read().unwrap();
        let documents = snapshot.list_of(PersonalDocument, NEW, None, 9, 9_999).unwrap().records;
        let page = documents.iter().find_map(|document| document.document.get_str("pol").ok()).unwrap();
        assert_eq!(clinic.here(Page, page).unwrap().get_str("info").unwrap(), "Anna-p0");
        assert_eq!(seen_elsewhere(&clinic.sim, Page, ACCT).await, None);
        let elsewhere = seen_elsewhere(&clinic.sim, Page, NEW).await;
        assert_eq!(elsewhere.unwrap(), ["Anna-mine", "Anna-p0", "Anna-p1"]);
    }
}

#[tokio::test]
async fn the_same_on_both_sides_is_one_record_where_it_is_the_same_person() {
    let clinic = joined(&Sim::default()).await;
    left_at(&clinic.sim);
    clinic.round().await;
    // What is written meanwhile is an edit of hers.
    clinic.edit(Page, with(record(Page, "p0", "Anna-p0"), doc! {"note": "Anna-later"})).await;
    clinic.sim.remove(Encounter, "e0");
    clinic.round().await;
    clinic.answer(Verdict::Same).await;
    for _ in 0..2 {
        clinic.round().await;
        assert_eq!(why(&clinic), None);
    }
    clinic.decide_record(Decision::TakeLocal).await;
    clinic.assert_settled().await;
    let mut all = HERS.map(str::to_owned).to_vec();
    all.insert(3, "Zoe-p9".to_owned());
    assert_eq!(all_texts(&clinic, ACCT), all);
    assert_eq!(clinic.at_centre(Page, "p0").unwrap().get_str("note").ok(), Some("Anna-later"));
    // The centre's form stands.
    assert_eq!(clinic.here(Page, "p1").unwrap().get_f64("weight").ok(), Some(70.0));
}

/// Two nodes join with the same, and the question is answered at one of them first.
#[tokio::test]
async fn what_another_node_has_decided() {
    for verdict in [Verdict::Same, Verdict::NewId(NEW.to_owned())] {
        let sim = Sim::default();
        let nodes = [joined(&sim).await, joined(&sim).await];
        left_at(&sim);
        for node in &nodes {
            node.round().await;
            assert_eq!(why(node), Some(HoldReason::Taken), "{verdict:?}");
        }
        nodes[0].answer(verdict.clone()).await;
        nodes[0].round().await;
        nodes[0].round().await;
        nodes[1].round().await;
        if verdict != Verdict::Same {
            assert_eq!(all_texts(&nodes[1], ACCT), HERS, "{verdict:?}");
            nodes[1].answer(verdict.clone()).await;
        }
        for node in nodes.iter().chain(&nodes) {
            node.round().await;
            assert_eq!(why(node), None, "{verdict:?}");
        }
        let account = if verdict == Verdict::Same { ACCT } else { NEW };
        for node in &nodes {
            node.assert_settled().await;
            let found = all_texts(node, account);
            let expected = HERS.iter().filter(|text| !found.contains(&(**text).to_owned()));
            assert_eq!(expected.count(), 0, "{verdict:?} {found:?}");
            assert_eq!(found.contains(&"Zoe-p9".to_owned()), verdict == Verdict::Same, "{verdict:?}");
        }
    }
}

/// The account goes on to the next one: she is deleted at the centre again, or has left it, and somebody else gets it there.
#[tokio::test]
async fn the_account_goes_to_the_next_one() {
    for verdict in [Verdict::Same, Verdict::NewId(NEW.to_owned())] {
        let clinic = joined(&Sim::default()).await;
        left_at(&clinic.sim);
        clinic.round().await;
        clinic.answer(verdict.clone()).await;
        clinic.assert_settled().await;
        if verdict == Verdict::Same {
            clinic.sim.remove(Person, ACCT);
            clinic.round().await;
        }
        clinic.there(Page, record(Page, "b1", "Boris-page"));
        clinic.there(Person, boris());
        clinic.round().await;
        clinic.round().await;
        let book = texts(&clinic, Page, ACCT);
        match verdict {
            // What was hers is asked about.
            Verdict::Same => assert_eq!(why(&clinic), Some(HoldReason::Departed)),
            Verdict::NewId(_) => {
                assert_eq!(texts(&clinic, Page, NEW).len(), 3, "{book:?}");
                // What the centre has under the account was not hers, by decision, and nobody had it there before him.
                let at_centre = ["Anna-p0", "Anna-p1", "Boris-page", "Zoe-p9"].map(str::to_owned);
                assert_eq!((why(&clinic), book), (None, at_centre.to_vec()));
            }
        }
    }
}

/// Who comes to the centre in her place while it is asked is asked about, and so is she herself, whom another node has sent.
#[tokio::test]
async fn somebody_comes_to_the_centre_while_it_is_asked() {
    for person in [anna(), boris()] {
        let clinic = joined(&Sim::default()).await;
        left_at(&clinic.sim);
        clinic.round().await;
        clinic.there(Person, person.clone());
        clinic.round().await;
        clinic.round().await;
        assert_eq!(why(&clinic).is_some(), person == boris(), "{person}");
        for text in HERS {
            assert!(all_texts(&clinic, ACCT).contains(&text.to_owned()), "{person}: {text}");
        }
        if person == boris() {
            clinic.answer(Verdict::NewId(NEW.to_owned())).await;
            clinic.round().await;
            assert_eq!(all_texts(&clinic, NEW), HERS);
        }
        clinic.assert_settled().await;
    }
}

/// She stood at the centre herself, with records that were agreed, and is to be put there again: what came meanwhile is asked about,
/// and hers stay hers.
#[tokio::test]
async fn what_was_agreed_with_her_goes_along_too() {
    for verdict in [Verdict::Same, Verdict::NewId(NEW.to_owned())] {
        let clinic = Clinic::new();
        clinic.there(Person, anna());
        for kind in KINDS {
            clinic.there(kind, record(kind, "a0", "Anna-agreed"));
        }
        clinic.round().await;
        clinic.edit(Encounter, record(Encounter, "a1", "Anna-unsent")).await;
        clinic.sim.remove(Person, ACCT);
        clinic.round().await;
        clinic.there(Page, record(Page, "b1", "Boris-page"));
        clinic.round().await;
        clinic.decide_record(Decision::TakeLocal).await;
        let hers = ["Anna-agreed", "Anna-agreed", "Anna-agreed", "Anna-unsent"];
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!(why(&clinic), Some(HoldReason::Taken), "{verdict:?}");
            assert_eq!(all_texts(&clinic, ACCT), hers, "{verdict:?}");
        }
        let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
        assert_eq!(clinic.store.read().unwrap().going_along_count(&hold).unwrap(), 4);
        clinic.answer(verdict.clone()).await;
        clinic.assert_settled().await;
        match verdict {
            Verdict::Same => assert_eq!(all_texts(&clinic, ACCT).len(), 5),
            Verdict::NewId(_) => {
                assert_eq!(all_texts(&clinic, NEW), hers);
                assert_eq!(all_texts(&clinic, ACCT), ["Boris-page"]);
            }
        }
    }
}

/// The reading is cut before all is known: what waits is taken with its person, in whatever order they come.
#[tokio::test]
async fn what_waits_beside_a_record_is_one_with_it_once_the_person_comes() {
    let clinic = joined(&Sim::default()).await;
    left_at(&clinic.sim);
    clinic.sim.state().refused.push(ACCT.to_owned());
    clinic.round().await;
    assert_eq!(all_texts(&clinic, ACCT), HERS);
    clinic.there(Person, anna());
    clinic.sim.state().refused.clear();
    for _ in 0..2 {
        clinic.round().await;
        assert_eq!(why(&clinic), None);
    }
    clinic.assert_settled().await;
}

/// The person whom the node has in capitals is in small letters at the centre, or comes after her records: they name her there as
/// she is stored.
#[tokio::test]
async fn records_name_their_person_as_the_centre_does() {
    let small = "acc01";
    for is_before in [true, false] {
        let clinic = Clinic::new();
        if is_before {
            for kind in KINDS {
                clinic.edit(kind, of(small, kind, "r1", "Anna-before")).await;
            }
        }
        clinic.edit(Person, anna()).await;
        for kind in KINDS {
            clinic.edit(kind, record(kind, "r2", "Anna-after")).await;
        }
        clinic.round().await;
        clinic.assert_settled().await;
        for kind in KINDS {
            let ids = if is_before { &["r1", "r2"][..] } else { &["r2"] };
            for id in ids {
                assert_eq!(
                    clinic.at_centre(kind, id).unwrap().get_str(owner(kind)).ok(),
                    Some(ACCT),
                    "{kind:?}"
                );
            }
        }
    }
    let clinic = Clinic::new();
    clinic.edit(Person, anna()).await;
    clinic.there(Person, with(anna(), doc! {"_id": small}));
    for kind in KINDS {
        clinic.edit(kind, record(kind, "r1", "Anna-made")).await;
        // One that is there already stays as it is there.
        clinic.there(kind, record(kind, "r2", "Anna-there"));
    }
    clinic.round().await;
    assert_eq!(why(&clinic), Some(HoldReason::Spelling));
    clinic.answer(Verdict::Same).await;
    clinic.assert_settled().await;
    for kind in KINDS {
        assert_eq!(clinic.at_centre(kind, "r1").unwrap().get_str(owner(kind)).ok(), Some(small), "{kind:?}");
        assert_eq!(clinic.at_centre(kind, "r2").unwrap().get_str(owner(kind)).ok(), Some(ACCT), "{kind:?}");
        assert_eq!(texts(&clinic, kind, small).len(), 2, "{kind:?}");
    }
}
