//! Records of two people under one id, records that wait for their person, and people who are deleted while records of
//! theirs are unsent.

use bson::{Bson, Document, doc};
use thalamus_edge::domain::record::Kind::{self, Encounter, Page, Person, PersonalDocument};
use thalamus_edge::store::{ConflictStatus, HoldReason, WaitReason};
use thalamus_edge::sync::conflicts::{Decision, ResolveError, resolve};
use thalamus_edge::sync::identity::Verdict;

use super::{ACCT, Clinic, ana, beatriz, clerk, key, page, with};

const BOB: &str = "BOB01";

fn bob() -> Document {
    doc! {"_id": BOB, "name": "Bob", "lastname": "Dahl", "dob": "1950-01-01", "gender": "m"}
}

impl Clinic {
    /// Ana and Bob are known on both sides.
    async fn with_two() -> Clinic {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.there(Person, bob());
        clinic.round().await;
        clinic
    }

    fn trash(&self, kind: Kind, id: &str) -> Vec<Document> {
        let rows = self.store.read().unwrap().trash().unwrap();
        rows.into_iter().filter(|row| row.key == key(kind, id)).map(|row| row.document).collect()
    }
}

/// Two versions of a record under one id, and how they came about.
struct Meeting {
    what: &'static str,
    kind: Kind,
    /// Agreed on before.
    base: Option<Document>,
    mine: Document,
    theirs: Document,
}

fn meetings() -> Vec<Meeting> {
    let visit = |person: &str, notes: &str| doc! {"_id": "x1", "person": person, "notes": notes};
    vec![
        Meeting {
            what: "an encounter made on both sides",
            kind: Encounter,
            base: None,
            mine: with(visit(ACCT, "a"), doc! {"a_only": "a"}),
            theirs: with(visit(BOB, "b"), doc! {"diagnosis": "HIV of B"}),
        },
        Meeting {
            what: "a page made on both sides",
            kind: Page,
            base: None,
            mine: page("x1", ACCT, "a"),
            theirs: with(page("x1", BOB, "b"), doc! {"secret": "of B"}),
        },
        Meeting {
            what: "a page moved there while it was edited here",
            kind: Page,
            base: Some(page("x1", ACCT, "agreed")),
            mine: page("x1", ACCT, "edited for A"),
            theirs: page("x1", BOB, "agreed"),
        },
        Meeting {
            what: "a document without an owner that was given one",
            kind: PersonalDocument,
            base: Some(doc! {"_id": "x1", "description": "agreed"}),
            mine: doc! {"_id": "x1", "description": "edited"},
            theirs: doc! {"_id": "x1", "description": "agreed", "fedacct": BOB},
        },
    ]
}

async fn met(meeting: &Meeting) -> Clinic {
    let clinic = Clinic::with_two().await;
    if let Some(base) = &meeting.base {
        clinic.there(meeting.kind, base.clone());
        clinic.round().await;
    }
    clinic.edit(meeting.kind, meeting.mine.clone()).await;
    clinic.there(meeting.kind, meeting.theirs.clone());
    for _ in 0..3 {
        clinic.round().await;
    }
    clinic
}

#[tokio::test]
async fn records_of_two_people_never_become_one() {
    for meeting in meetings() {
        let (what, kind) = (meeting.what, meeting.kind);
        let clinic = met(&meeting).await;
        assert_eq!(clinic.here(kind, "x1"), Some(meeting.mine.clone()), "{what}");
        assert_eq!(clinic.at_centre(kind, "x1"), Some(meeting.theirs.clone()), "{what}");
        let conflict = clinic.record_conflict().expect(what);
        assert!(conflict.path.is_empty(), "{what}");
        assert_eq!(conflict.local, Some(Bson::Document(meeting.mine.clone())), "{what}");
        assert_eq!(conflict.central, Some(Bson::Document(meeting.theirs.clone())), "{what}");
        assert_eq!(clinic.waits_for(kind, "x1"), Some(WaitReason::Undecided), "{what}");
        let report = clinic.round().await;
        assert!(!report.message.contains("up to date"), "{what}: {report:?}");
    }
}

#[tokio::test]
async fn the_centres_record_may_stand() {
    for meeting in meetings() {
        let clinic = met(&meeting).await;
        clinic.decide_record(Decision::TakeCentral).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(meeting.kind, "x1"), Some(meeting.theirs.clone()), "{}", meeting.what);
        assert_eq!(clinic.trash(meeting.kind, "x1"), vec![meeting.mine.clone()], "{}", meeting.what);
    }
}

#[tokio::test]
async fn the_nodes_record_may_stand() {
    for meeting in meetings() {
        let clinic = met(&meeting).await;
        clinic.decide_record(Decision::TakeLocal).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(meeting.kind, "x1"), Some(meeting.mine.clone()), "{}", meeting.what);
        assert_eq!(clinic.trash(meeting.kind, "x1"), vec![meeting.theirs.clone()], "{}", meeting.what);
    }
}

#[tokio::test]
async fn the_nodes_record_may_get_an_id_of_its_own() {
    for meeting in meetings() {
        let clinic = met(&meeting).await;
        clinic.decide_record(Decision::NewId).await;
        clinic.assert_settled().await;
        assert_eq!(clinic.at_centre(meeting.kind, "x1"), Some(meeting.theirs.clone()), "{}", meeting.what);
        let state = clinic.sim.state();
        let (_, moved) = state
            .records
            .iter()
            .find(|((kind, id), _)| *kind == meeting.kind && id != "x1")
            .unwrap_or_else(|| panic!("{}: no other record", meeting.what));
        let id = moved.get_str("_id").unwrap().to_owned();
        assert_eq!(*moved, with(meeting.mine.clone(), doc! {"_id": id}), "{}", meeting.what);
    }
}

/// A record that nobody changed here goes where the centre has moved it.
#[tokio::test]
async fn a_record_that_was_moved_is_moved_here() {
    let clinic = Clinic::with_two().await;
    clinic.there(Page, page("x1", ACCT, "i"));
    clinic.round().await;
    clinic.there(Page, page("x1", "bob01", "i"));
    clinic.assert_settled().await;
    assert_eq!(clinic.here(Page, "x1"), Some(page("x1", "bob01", "i")));
    assert!(clinic.conflicts().is_empty());
}

/// The question ends with its reason.
#[tokio::test]
async fn what_is_undecided_ends_when_the_other_record_goes_or_comes_back() {
    for is_deleted in [true, false] {
        let clinic = met(&meetings()[2]).await;
        match is_deleted {
            true => clinic.sim.remove(Page, "x1"),
            false => clinic.there(Page, page("x1", ACCT, "agreed")),
        }
        clinic.assert_settled().await;
        assert!(clinic.record_conflict().is_none());
        assert_eq!(clinic.at_centre(Page, "x1"), Some(page("x1", ACCT, "edited for A")));
    }
}

/// A decision counts for the record as it was seen.
#[tokio::test]
async fn a_record_that_changed_meanwhile_is_not_decided() {
    let clinic = met(&meetings()[1]).await;
    let conflict = clinic.record_conflict().unwrap();
    let seen = clinic.here(Page, "x1").map(Bson::Document);
    clinic.edit(Page, page("x1", ACCT, "edited again")).await;
    let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
    let refused = resolve(&clinic.store, &conflict.id, Decision::TakeCentral, seen, clerk(), allow).await;
    assert!(matches!(refused, Err(ResolveError::Moved { .. })), "{refused:?}");
}

// ------------------------------------------------------------------------------------------ waiting for people

#[tokio::test]
async fn nothing_is_sent_before_its_person() {
    let clinic = Clinic::new();
    clinic.there(Person, bob());
    clinic.round().await;
    clinic.sim.state().refused.push(ACCT.to_owned());
    clinic.edit(Person, ana()).await;
    clinic.edit(Page, page("p1", "acc01", "hers")).await;
    clinic.edit(Encounter, doc! {"_id": "e1", "person": ACCT}).await;
    clinic.edit(Page, page("p2", "NOBODY1", "of an account that nobody has")).await;
    clinic.edit(Page, page("p3", BOB, "his")).await;
    let report = clinic.round().await;
    assert_eq!(report.pushed, 1, "{report:?}");
    assert!(clinic.at_centre(Page, "p3").is_some());
    assert_eq!(clinic.waits_for(Page, "p1"), Some(WaitReason::Refused));
    assert_eq!(clinic.waits_for(Encounter, "e1"), Some(WaitReason::Refused));
    assert_eq!(clinic.waits_for(Page, "p2"), Some(WaitReason::Unknown));
    assert!(!report.message.contains("up to date"), "{report:?}");
    // Somebody else gets the account meanwhile.
    clinic.there(Person, beatriz());
    clinic.round().await;
    assert_eq!(clinic.waits_for(Page, "p1"), Some(WaitReason::Held));
    clinic.sim.state().refused.clear();
    clinic.decide(Verdict::NewId("ANANEW1".to_owned())).await;
    clinic.round().await;
    clinic.round().await;
    let book = |id: &str| clinic.at_centre(Page, id).map(|page| page.get_str("book").unwrap().to_owned());
    assert_eq!(book("p1").as_deref(), Some("ANANEW1"));
    assert_eq!(clinic.at_centre(Encounter, "e1").unwrap().get_str("person").ok(), Some("ANANEW1"));
    assert_eq!(book("p2"), None);
}

/// Once the person is there, everything follows in the same round.
#[tokio::test]
async fn records_follow_their_person_at_once() {
    let clinic = Clinic::new();
    clinic.edit(Person, ana()).await;
    clinic.edit(Page, page("p1", ACCT, "hers")).await;
    clinic.edit(PersonalDocument, doc! {"_id": "d1", "fedacct": ACCT}).await;
    let report = clinic.round().await;
    assert_eq!(report.pushed, 3, "{report:?}");
    clinic.assert_settled().await;
}

// ------------------------------------------------------------------------------------------ people who are gone

/// A person with a page that was never sent is deleted at the centre.
async fn deleted_with_a_page() -> Clinic {
    let clinic = Clinic::with_two().await;
    clinic.there(Page, page("p1", ACCT, "agreed"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.edit(Page, page("p2", ACCT, "unsent")).await;
    for _ in 0..2 {
        clinic.round().await;
    }
    assert!(clinic.here(Person, ACCT).is_some());
    assert_eq!(clinic.at_centre(Page, "p2"), None);
    assert_eq!(clinic.waits_for(Page, "p2"), Some(WaitReason::Deleted));
    assert!(clinic.record_conflict().is_some_and(|conflict| conflict.central.is_none()));
    clinic
}

#[tokio::test]
async fn a_person_with_unsent_records_is_put_there_again_by_decision() {
    let clinic = deleted_with_a_page().await;
    clinic.decide_record(Decision::TakeLocal).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(ana()));
    assert_eq!(clinic.at_centre(Page, "p2"), Some(page("p2", ACCT, "unsent")));
}

#[tokio::test]
async fn a_person_with_unsent_records_goes_by_decision() {
    let clinic = deleted_with_a_page().await;
    clinic.decide_record(Decision::TakeCentral).await;
    clinic.assert_settled().await;
    assert_eq!((clinic.here(Person, ACCT), clinic.here(Page, "p2")), (None, None));
    assert_eq!(clinic.trash(Page, "p2"), [page("p2", ACCT, "unsent")]);
    assert_eq!(clinic.trash(Person, ACCT), [ana()]);
}

/// Somebody else gets the account before anybody has decided.
#[tokio::test]
async fn a_new_person_does_not_inherit_unsent_records() {
    let clinic = deleted_with_a_page().await;
    clinic.there(Person, beatriz());
    for _ in 0..2 {
        clinic.round().await;
    }
    assert_eq!(clinic.holds(), 1);
    assert_eq!(clinic.at_centre(Page, "p2"), None);
    clinic.decide(Verdict::NewId("ANANEW1".to_owned())).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Page, "p2"), Some(page("p2", "ANANEW1", "unsent")));
    assert_eq!(clinic.at_centre(Person, ACCT), Some(beatriz()));
}

/// The same where the delete was taken here, and only agreed records are left.
#[tokio::test]
async fn a_new_person_does_not_inherit_the_records_of_one_who_is_gone() {
    for verdict in [Verdict::NewId("ANANEW1".to_owned()), Verdict::Same] {
        let clinic = Clinic::with_two().await;
        clinic.there(Page, page("p1", ACCT, "agreed"));
        clinic.round().await;
        clinic.sim.remove(Person, ACCT);
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), None);
        clinic.there(Person, beatriz());
        clinic.round().await;
        assert_eq!(clinic.holds(), 1);
        let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
        assert_eq!(hold.why, HoldReason::Departed);
        assert_eq!(clinic.here(Person, ACCT), Some(with(ana(), doc! {"active": false})));
        let is_new_id = verdict != Verdict::Same;
        clinic.decide(verdict).await;
        clinic.assert_settled().await;
        let book = clinic.at_centre(Page, "p1").unwrap().get_str("book").unwrap().to_owned();
        assert_eq!(book, if is_new_id { "ANANEW1" } else { ACCT });
        let person = clinic.at_centre(Person, ACCT).unwrap();
        assert_eq!(person.get_str("name").ok(), Some("Beatriz"));
    }
}

/// The same person again, or an account of whom nothing is left here, is no question.
#[tokio::test]
async fn who_comes_back_is_not_held() {
    for (has_page, person) in [(true, with(ana(), doc! {"phone": "9"})), (false, beatriz())] {
        let clinic = Clinic::with_two().await;
        if has_page {
            clinic.there(Page, page("p1", ACCT, "agreed"));
        }
        clinic.round().await;
        clinic.sim.remove(Person, ACCT);
        clinic.round().await;
        clinic.there(Person, person.clone());
        clinic.assert_settled().await;
        assert_eq!(clinic.here(Person, ACCT), Some(person));
    }
}

/// If the new person goes too, the one who was gone before stays gone.
#[tokio::test]
async fn a_hold_over_a_departed_person_ends_with_the_other() {
    let clinic = Clinic::with_two().await;
    clinic.there(Page, page("p1", ACCT, "agreed"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.assert_settled().await;
    assert_eq!(clinic.here(Person, ACCT), None);
    assert_eq!(clinic.identity().status, ConflictStatus::Resolved);
}

/// A new person made here under an account that was another one's waits, if the centre has records of that one.
#[tokio::test]
async fn a_new_person_made_here_does_not_get_records_of_another() {
    let clinic = Clinic::with_two().await;
    clinic.there(Page, page("p1", ACCT, "of the first"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.assert_settled().await;
    clinic.edit(Person, beatriz()).await;
    for _ in 0..2 {
        clinic.round().await;
    }
    assert_eq!(clinic.at_centre(Person, ACCT), None);
    assert_eq!(clinic.waits_for(Person, ACCT), Some(WaitReason::Held));
    let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
    assert_eq!(hold.why, HoldReason::Taken);
    // Once nothing of the first one is left, the second one has the account.
    clinic.sim.remove(Page, "p1");
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(beatriz()));
}

/// The centre has records under an account, and nobody here has ever known whose they are.
#[tokio::test]
async fn a_new_person_does_not_get_records_of_somebody_unknown() {
    let clinic = Clinic::new();
    clinic.edit(Person, beatriz()).await;
    clinic.there(Page, page("p1", ACCT, "of somebody"));
    clinic.round().await;
    let hold = clinic.store.read().unwrap().hold(ACCT).unwrap().unwrap();
    assert_eq!((hold.why, clinic.at_centre(Person, ACCT)), (HoldReason::Taken, None));
    clinic.decide(Verdict::Same).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(beatriz()));
}

/// Records that came for the second person of an account are neither the first one's nor the third one's unasked.
#[tokio::test]
async fn three_people_of_one_account() {
    let clinic = Clinic::with_two().await;
    clinic.there(Page, page("p1", ACCT, "Ana's"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.there(Page, page("p2", ACCT, "Beatriz'"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    assert_eq!((clinic.holds(), clinic.here(Page, "p2")), (1, None));
    clinic.there(Person, with(bob(), doc! {"_id": ACCT}));
    clinic.round().await;
    assert_eq!((clinic.holds(), clinic.here(Page, "p2")), (1, None));
    clinic.decide(Verdict::NewId("NEW01".to_owned())).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", "NEW01", "Ana's")));
    assert_eq!(clinic.at_centre(Page, "p2"), Some(page("p2", ACCT, "Beatriz'")));
}

/// Somebody says whether the new person is the one whose records the centre has.
#[tokio::test]
async fn who_has_records_of_another_is_decided() {
    for verdict in [Verdict::Same, Verdict::NewId("NEW01".to_owned())] {
        let clinic = Clinic::with_two().await;
        clinic.there(Page, page("p1", ACCT, "of the first"));
        clinic.round().await;
        clinic.sim.remove(Person, ACCT);
        clinic.assert_settled().await;
        clinic.edit(Person, beatriz()).await;
        clinic.edit(Page, page("p2", ACCT, "of the second")).await;
        clinic.round().await;
        let conflict = clinic.identity();
        let name = |side: &Option<Bson>| {
            side.as_ref().unwrap().as_document().unwrap().get_str("name").unwrap().to_owned()
        };
        assert_eq!(
            (name(&conflict.local), name(&conflict.central)),
            ("Beatriz".to_owned(), "Ana".to_owned())
        );
        clinic.decide(verdict.clone()).await;
        clinic.assert_settled().await;
        let account = if verdict == Verdict::Same { ACCT } else { "NEW01" };
        assert_eq!(clinic.at_centre(Person, account), Some(with(beatriz(), doc! {"_id": account})));
        assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", ACCT, "of the first")));
        assert_eq!(clinic.at_centre(Page, "p2"), Some(page("p2", account, "of the second")));
        assert_eq!(clinic.holds(), 0);
        // The account is not free for the next one either.
        if account != ACCT {
            clinic.edit(Person, with(bob(), doc! {"_id": ACCT})).await;
            clinic.round().await;
            assert_eq!((clinic.holds(), clinic.at_centre(Person, ACCT)), (1, None));
        }
    }
}

/// A record that was decided to be of a person who is held goes with them, although the centre has it as another one's.
#[tokio::test]
async fn a_record_taken_from_another_goes_with_its_person() {
    let clinic = Clinic::with_two().await;
    clinic.edit(Page, page("p1", ACCT, "hers")).await;
    clinic.there(Person, beatriz());
    clinic.there(Page, page("p1", BOB, "his"));
    clinic.round().await;
    clinic.decide_record(Decision::TakeLocal).await;
    clinic.decide(Verdict::NewId("NEW01".to_owned())).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", "NEW01", "hers")));
}

/// A value that lost in one person's record does not go into the record of another one that has the id since.
#[tokio::test]
async fn a_value_stays_with_its_person() {
    let clinic = Clinic::with_two().await;
    clinic.there(Page, page("x1", ACCT, "agreed"));
    clinic.round().await;
    clinic.edit(Page, page("x1", ACCT, "mine")).await;
    clinic.there(Page, page("x1", ACCT, "theirs"));
    clinic.round().await;
    let conflict = clinic.conflicts().remove(0);
    clinic.there(Page, page("x1", BOB, "of Bob"));
    clinic.round().await;
    let seen = Some(Bson::from("of Bob"));
    let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
    for decision in [Decision::TakeLocal, Decision::Value("new".into())] {
        let refused = resolve(&clinic.store, &conflict.id, decision, seen.clone(), clerk(), allow).await;
        assert!(matches!(refused, Err(ResolveError::Invalid { .. })), "{refused:?}");
    }
    // What stands may stay.
    resolve(&clinic.store, &conflict.id, Decision::TakeCentral, seen, clerk(), allow).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Page, "x1"), Some(page("x1", BOB, "of Bob")));
}

/// Who is gone does not log in again because somebody else came.
#[tokio::test]
async fn a_departed_person_comes_back_without_login_or_roles() {
    let clinic = Clinic::with_two().await;
    let gone = with(ana(), doc! {"password": "a hash", "roles": ["health_professional"], "active": true});
    clinic.there(Person, gone);
    clinic.there(Page, page("p1", ACCT, "agreed"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    assert_eq!(clinic.holds(), 1);
    assert_eq!(clinic.here(Person, ACCT), Some(with(ana(), doc! {"active": false})));
}

/// The new person goes too while a record of the first one is unsent: that is asked, and nobody is made there again.
#[tokio::test]
async fn nobody_who_is_gone_is_made_again_without_a_decision() {
    let clinic = Clinic::with_two().await;
    clinic.there(Page, page("p1", ACCT, "agreed"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    clinic.there(Person, beatriz());
    clinic.round().await;
    clinic.edit(Page, page("p2", ACCT, "unsent")).await;
    clinic.sim.remove(Person, ACCT);
    for _ in 0..3 {
        clinic.round().await;
    }
    assert_eq!((clinic.at_centre(Person, ACCT), clinic.at_centre(Page, "p2")), (None, None));
    assert!(clinic.record_conflict().is_some());
    clinic.decide_record(Decision::TakeCentral).await;
    clinic.assert_settled().await;
}

/// A row that says that somebody carried the decision out does not close the question here.
#[tokio::test]
async fn a_decision_about_two_records_is_not_taken_from_another_node() {
    let clinic = met(&meetings()[1]).await;
    let id = clinic.record_conflict().unwrap().id;
    let mut row = clinic.sim.row("edge_conflicts", &id).unwrap();
    row.extend(doc! {"status": "resolved", "resolution": "central", "applied_by": "another"});
    clinic.sim.set_row("edge_conflicts", row);
    for _ in 0..2 {
        clinic.round().await;
    }
    assert!(clinic.record_conflict().is_some());
    clinic.decide_record(Decision::TakeCentral).await;
    clinic.assert_settled().await;
}

/// The centre's record is of a person who waits for a decision: it waits with them.
#[tokio::test]
async fn a_record_that_is_taken_may_have_to_wait_for_its_person() {
    let clinic = met(&meetings()[1]).await;
    clinic.edit(Person, with(bob(), doc! {"phone": "1"})).await;
    clinic.there(Person, doc! {"_id": BOB, "name": "Carla", "lastname": "Esposito", "gender": "f"});
    clinic.round().await;
    assert_eq!(clinic.holds(), 1);
    clinic.decide_record(Decision::TakeCentral).await;
    assert_eq!(clinic.here(Page, "x1"), None);
    assert!(clinic.held(Page, "x1").is_some());
}
