//! A record of which nobody knows whose it is, and that is on the node alone: it came out of the trash, or an edit of it
//! stood against a delete, while nobody had the account. It is older than who gets the account next, and becomes theirs only
//! if somebody says so.

use thalamus_edge::domain::access::{Grant, Verb};
use thalamus_edge::domain::record::Kind::{self, Encounter, Page, Person, PersonalDocument};
use thalamus_edge::store::{HoldReason, Store, UndeleteError};
use thalamus_edge::sync::Outcome;
use thalamus_edge::sync::identity::Verdict;

use super::ownerless::{NEW, anna, boris, record};
use super::support::sim::Fault;
use super::*;

/// How the record of Anna's, of whom nobody here knows, comes to be on the node alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Out of the trash, after the centre has deleted it.
    Restored,
    /// Out of the trash, while it is not known whether the centre has deleted it.
    RestoredUnsettled,
    /// The same, together with all other deletes.
    AllRestored,
    /// Out of the trash, after the centre has deleted it and before it answers.
    RestoredMeanwhile,
    Edited,
}

async fn restore(clinic: &Clinic, kind: Kind, id: &str) -> Result<RecordKey, UndeleteError> {
    restore_in(clinic.store.clone(), key(kind, id)).await
}

async fn restore_in(store: Store, record: RecordKey) -> Result<RecordKey, UndeleteError> {
    let trash = store.read().unwrap().trash().unwrap();
    let row = trash.iter().rev().find(|row| row.key == record).unwrap();
    store.undelete(Grant::operator(0, Verb::Post, record.kind), row.sequence).await
}

/// `a1` is on the node alone, and the centre has `b1` under the account.
async fn alone(way: Way, kind: Kind) -> Clinic {
    let clinic = Clinic::new();
    clinic.there(kind, record(kind, "a1", "Anna-old"));
    clinic.there(Encounter, record(Encounter, "b1", "Boris-lab"));
    clinic.round().await;
    match way {
        Way::Restored => {
            clinic.delete(kind, "a1").await;
            clinic.round().await;
            assert_eq!(clinic.at_centre(kind, "a1"), None);
            restore(&clinic, kind, "a1").await.unwrap();
        }
        Way::RestoredUnsettled | Way::AllRestored => {
            clinic.delete(kind, "a1").await;
            clinic.sim.state().write_faults.push_back(Fault::LostAnswer);
            assert_ne!(clinic.sync.round().await.outcome, Outcome::Complete);
            assert_eq!(clinic.at_centre(kind, "a1"), None);
            match way {
                Way::AllRestored => assert_eq!(clinic.sync.restore_deleted(clerk()).await.unwrap(), 1),
                _ => drop(restore(&clinic, kind, "a1").await.unwrap()),
            }
        }
        Way::RestoredMeanwhile => {
            clinic.delete(kind, "a1").await;
            let (store, record) = (clinic.store.clone(), key(kind, "a1"));
            let restored = async move { drop(restore_in(store, record).await.unwrap()) };
            clinic.sim.state().write_faults.push_back(Fault::Meanwhile(Box::pin(restored)));
            clinic.round().await;
        }
        Way::Edited => {
            clinic.edit(kind, with(record(kind, "a1", "Anna-old"), doc! {"note": "here"})).await;
            clinic.sim.remove(kind, "a1");
        }
    }
    clinic.round().await;
    assert!(clinic.here(kind, "a1").is_some() && clinic.at_centre(kind, "a1").is_none());
    clinic
}

fn ways() -> Vec<(Way, Kind)> {
    // Pages come out of the trash only for a person who is here.
    let restored = [Way::Restored, Way::RestoredUnsettled, Way::RestoredMeanwhile];
    let alone = restored.into_iter().flat_map(|way| [(way, Encounter), (way, PersonalDocument)]);
    let others = [Way::AllRestored, Way::Edited];
    let others =
        others.into_iter().flat_map(|way| [Page, Encounter, PersonalDocument].map(|kind| (way, kind)));
    alone.chain(others).collect()
}

#[tokio::test]
async fn nobody_is_made_here_over_a_record_that_is_older() {
    for (way, kind) in ways() {
        let clinic = alone(way, kind).await;
        let may_not = async || clinic.run(|tx| tx.is_another_ones(&key(Person, ACCT), &boris())).await;
        assert!(may_not().await, "{way:?} {kind:?}");
        // The way out: the record gets another account, or goes.
        clinic.delete(kind, "a1").await;
        assert!(!may_not().await, "{way:?} {kind:?}");
    }
}

#[tokio::test]
async fn the_next_holder_from_the_centre_is_asked_about() {
    for (way, kind) in ways() {
        for verdict in [None, Some(Verdict::Same), Some(Verdict::NewId(NEW.to_owned()))] {
            let what = format!("{way:?} {kind:?} {verdict:?}");
            let clinic = alone(way, kind).await;
            clinic.there(Person, boris());
            for _ in 0..2 {
                clinic.round().await;
                clinic.assert_unmixed(&what);
            }
            assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Departed), "{what}");
            assert_eq!(clinic.at_centre(kind, "a1"), None, "{what}");
            let Some(verdict) = verdict else {
                continue;
            };
            clinic.answer(verdict.clone()).await;
            clinic.assert_settled().await;
            // Boris is who had the account, so more of it is his.
            let former = clinic.store.read().unwrap().former_holders().unwrap();
            let doubt = clinic.run(move |tx| tx.owner_doubt(ACCT, &former, |_| false)).await;
            assert_eq!(doubt.is_none(), verdict == Verdict::Same, "{what}: {doubt:?}");
            let account = if verdict == Verdict::Same { ACCT } else { NEW };
            let owner = |kind: Kind, id: &str| kind.schema().owner_of(&clinic.at_centre(kind, id).unwrap());
            assert_eq!(owner(kind, "a1").as_deref(), Some(account), "{what}");
            // What the centre has stays with the account.
            assert_eq!(
                clinic.at_centre(Encounter, "b1"),
                Some(record(Encounter, "b1", "Boris-lab")),
                "{what}"
            );
            assert_eq!(clinic.here(Encounter, "b1"), clinic.at_centre(Encounter, "b1"), "{what}");
            assert_eq!(clinic.at_centre(Person, ACCT), Some(boris()), "{what}");
        }
    }
}

/// The person has the account before the record comes out of the trash.
#[tokio::test]
async fn a_record_of_nobody_comes_out_of_the_trash_for_nobody_who_came_later() {
    for kind in [Page, Encounter, PersonalDocument] {
        for (is_sent, is_made_here) in [(true, true), (true, false), (false, true)] {
            let what = format!("{kind:?}, delete sent: {is_sent}, made here: {is_made_here}");
            let clinic = Clinic::new();
            clinic.there(kind, record(kind, "a1", "Anna-old"));
            clinic.round().await;
            clinic.delete(kind, "a1").await;
            if is_sent {
                clinic.round().await;
            }
            match is_made_here {
                true => clinic.edit(Person, boris()).await,
                false => clinic.there(Person, boris()),
            }
            if is_sent {
                clinic.round().await;
            }
            let refused = restore(&clinic, kind, "a1").await;
            assert!(matches!(refused, Err(UndeleteError::OwnerChanged(_))), "{what}: {refused:?}");
            clinic.assert_unmixed(&what);
            clinic.assert_settled().await;
            assert!(clinic.kept().contains("Anna-old"), "{what}");
        }
    }
}

/// Several come out of the trash one after the other, as long as nobody has the account.
#[tokio::test]
async fn records_of_nobody_come_out_of_the_trash_for_nobody() {
    let clinic = Clinic::new();
    for id in ["a1", "a2"] {
        clinic.there(Encounter, record(Encounter, id, "Anna-old"));
    }
    clinic.round().await;
    for id in ["a1", "a2"] {
        clinic.delete(Encounter, id).await;
    }
    clinic.round().await;
    for id in ["a1", "a2"] {
        restore(&clinic, Encounter, id).await.unwrap();
    }
    clinic.there(Person, boris());
    clinic.round().await;
    clinic.assert_unmixed("asked");
    clinic.answer(Verdict::NewId(NEW.to_owned())).await;
    clinic.assert_settled().await;
    for id in ["a1", "a2"] {
        assert_eq!(clinic.at_centre(Encounter, id).unwrap().get_str("person").unwrap(), NEW);
    }
}

/// A record of nobody, be it the one that is on the node alone or one that came from the centre later, comes out of the trash as
/// often as somebody deletes it, as long as nobody has the account. It stays nobody's.
#[tokio::test]
async fn a_record_of_nobody_comes_out_of_the_trash_again() {
    for id in ["a1", "b1"] {
        for is_sent in [true, false] {
            let what = format!("{id}, delete sent: {is_sent}");
            let clinic = alone(Way::Restored, Encounter).await;
            for _ in 0..2 {
                clinic.delete(Encounter, id).await;
                if is_sent {
                    clinic.round().await;
                }
                let restored = restore(&clinic, Encounter, id).await;
                assert!(restored.is_ok(), "{what}: {restored:?}");
                clinic.round().await;
            }
            if id == "b1" && is_sent {
                // It is the only one of which nobody knows whose it is.
                clinic.delete(Encounter, "a1").await;
                clinic.round().await;
            }
            let left = clinic.here(Encounter, if id == "b1" && is_sent { "b1" } else { "a1" });
            clinic.there(Person, boris());
            clinic.round().await;
            assert!(left.is_some(), "{what}");
            assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Departed), "{what}");
        }
    }
}

/// What was deleted while nobody had the account does not come back for who came then.
#[tokio::test]
async fn a_record_of_nobody_that_is_deleted_again_stays_away_from_the_next_holder() {
    for id in ["a1", "b1"] {
        let clinic = alone(Way::Restored, Encounter).await;
        for id in ["a1", "b1"] {
            clinic.delete(Encounter, id).await;
        }
        clinic.round().await;
        clinic.there(Person, boris());
        clinic.round().await;
        assert_eq!(clinic.open_identity(), None, "{id}: nothing is left to ask about");
        let refused = restore(&clinic, Encounter, id).await;
        assert!(matches!(refused, Err(UndeleteError::OwnerChanged(_))), "{id}: {refused:?}");
    }
}

/// A record came after Anna was gone, was edited here, and was deleted at the centre: it may be anybody's.
#[tokio::test]
async fn an_edit_of_what_came_late_that_stood_against_a_delete_is_in_nobodys_book() {
    let clinic = Clinic::new();
    clinic.there(Person, anna());
    clinic.there(Page, record(Page, "a1", "Anna-agreed"));
    clinic.round().await;
    clinic.sim.remove(Person, ACCT);
    clinic.round().await;
    clinic.there(Page, record(Page, "b1", "Boris-page"));
    clinic.round().await;
    clinic.edit(Page, with(record(Page, "b1", "Boris-page"), doc! {"note": "here"})).await;
    clinic.sim.remove(Page, "b1");
    clinic.round().await;
    assert!(clinic.here(Page, "b1").is_some() && clinic.at_centre(Page, "b1").is_none());
    // Not even the one who had the account before gets it here.
    assert!(clinic.run(|tx| tx.is_another_ones(&key(Person, ACCT), &anna())).await);
    // Carla may be a third one.
    let carla = doc! {"_id": ACCT, "name": "Carla", "lastname": "Gamma", "dob": "1970-07-07", "gender": "f"};
    clinic.there(Person, carla.clone());
    clinic.round().await;
    assert_eq!(clinic.open_identity().map(|(_, why)| why), Some(HoldReason::Departed));
    assert_eq!((clinic.here(Page, "b1"), clinic.held(Page, "b1")), (None, None));
    clinic.answer(Verdict::NewId(NEW.to_owned())).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Person, ACCT), Some(carla));
    assert!(clinic.kept().contains("here"), "the edit is in the trash");
    let refused = restore(&clinic, Page, "b1").await;
    assert!(matches!(refused, Err(UndeleteError::OwnerChanged(_))), "{refused:?}");
}

/// What was made on the node for an account that nobody has here yet is for who gets it.
#[tokio::test]
async fn what_is_made_here_for_somebody_who_is_not_here_yet_is_theirs() {
    let clinic = Clinic::new();
    clinic.edit(Encounter, record(Encounter, "b1", "Boris-new")).await;
    clinic.round().await;
    clinic.there(Person, boris());
    clinic.assert_settled().await;
    assert_eq!(clinic.at_centre(Encounter, "b1"), Some(record(Encounter, "b1", "Boris-new")));
}
