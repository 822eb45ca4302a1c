//! Refused records and the ways out.

use bson::{Document, doc};
use thalamus_edge::domain::record::Kind::{self, Page, Person};
use thalamus_edge::store::{DeadLetter, TrashState};
use thalamus_edge::sync::refused::{RefusedError, WayOut, give_up, ways_out};

use super::{ACCT, Clinic, ana, clerk, key, page, with};

impl Clinic {
    fn letters(&self) -> Vec<(DeadLetter, Vec<&'static str>)> {
        let snapshot = self.store.read().unwrap();
        let letters = snapshot.dead_letters().unwrap().into_iter();
        let named = letters.map(|letter| {
            let ways = ways_out(&snapshot, &letter).unwrap();
            (letter, ways.into_iter().map(WayOut::name).collect())
        });
        named.collect()
    }

    /// The ways out of the only refused record.
    fn ways(&self) -> Vec<&'static str> {
        let letters = self.letters();
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters.into_iter().next().unwrap().1
    }

    async fn give_up(&self, kind: Kind, id: &str, way: WayOut) -> Result<(), RefusedError> {
        give_up(&self.store, &key(kind, id), way, clerk(), |_, _| true).await
    }

    fn bodies(&self, kind: Kind, id: &str) -> Vec<(Document, TrashState)> {
        let trash = self.store.read().unwrap().trash().unwrap().into_iter();
        trash.filter(|row| row.key == key(kind, id)).map(|row| (row.document, row.state)).collect()
    }

    pub(super) async fn refuses(&self, id: &str, is_refused: bool) {
        let mut state = self.sim.state();
        state.refused.retain(|refused| refused != id);
        if is_refused {
            state.refused.push(id.to_owned());
        }
    }
}

#[tokio::test]
async fn a_refused_change_is_given_up_for_the_centres_version() {
    for way in [WayOut::TakeCentral, WayOut::Discard] {
        let clinic = Clinic::new();
        clinic.there(Person, ana());
        clinic.round().await;
        clinic.refuses(ACCT, true).await;
        let mine = with(ana(), doc! {"phone": "mine"});
        clinic.edit(Person, mine.clone()).await;
        let report = clinic.round().await;
        assert!(
            report.message.contains("is refused") && !report.message.contains("up to date"),
            "{}",
            report.message
        );
        assert_eq!(clinic.ways(), ["retry", "edit", "take-central", "discard"]);
        // The centre moves on, which the node does not look at by itself.
        let theirs = with(ana(), doc! {"phone": "theirs", "job": "x"});
        clinic.there(Person, theirs.clone());
        clinic.give_up(Person, ACCT, way).await.unwrap();
        assert_eq!(clinic.here(Person, ACCT), Some(ana()));
        assert_eq!(clinic.bodies(Person, ACCT), [(mine, TrashState::Done)]);
        assert!(clinic.letters().is_empty());
        assert!(matches!(clinic.give_up(Person, ACCT, way).await, Err(RefusedError::Unknown)));
        clinic.assert_settled().await;
        assert_eq!(
            (clinic.here(Person, ACCT), clinic.at_centre(Person, ACCT)),
            (Some(theirs.clone()), Some(theirs))
        );
        assert!(clinic.sync.status().unwrap().message.starts_with("Everything is up to date"));
    }
}

#[tokio::test]
async fn a_refused_new_record_is_discarded_or_changed() {
    let clinic = Clinic::new();
    clinic.there(Person, doc! {"_id": "BOB01"});
    clinic.round().await;
    for id in [ACCT, "p1"] {
        clinic.refuses(id, true).await;
    }
    clinic.edit(Person, ana()).await;
    clinic.edit(Page, page("p1", "BOB01", "i")).await;
    // Waits for its person.
    clinic.edit(Page, page("p2", ACCT, "hers")).await;
    clinic.round().await;
    assert_eq!(clinic.letters().len(), 2);
    for (_, ways) in clinic.letters() {
        assert_eq!(ways, ["retry", "edit", "discard"]);
    }
    let refused = clinic.give_up(Person, ACCT, WayOut::TakeCentral).await.unwrap_err();
    assert!(refused.to_string().contains("The centre does not have this record"), "{refused}");
    // Nothing of a person's is left without the person.
    let refused = clinic.give_up(Person, ACCT, WayOut::Discard).await.unwrap_err();
    assert!(refused.to_string().contains("records of their own"), "{refused}");
    clinic.give_up(Page, "p1", WayOut::Discard).await.unwrap();
    clinic.delete(Page, "p2").await;
    clinic.give_up(Person, ACCT, WayOut::Discard).await.unwrap();
    assert_eq!((clinic.here(Person, ACCT), clinic.here(Page, "p1")), (None, None));
    assert_eq!(clinic.bodies(Person, ACCT), [(ana(), TrashState::Done)]);
    assert_eq!(clinic.bodies(Page, "p1"), [(page("p1", "BOB01", "i"), TrashState::Done)]);
    clinic.assert_settled().await;
    assert_eq!((clinic.at_centre(Person, ACCT), clinic.letters().len()), (None, 0));
    assert_eq!(clinic.store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
    // Changed instead, it is tried again by itself.
    clinic.edit(Person, ana()).await;
    clinic.round().await;
    clinic.refuses(ACCT, false).await;
    clinic.round().await;
    assert_eq!((clinic.at_centre(Person, ACCT), clinic.letters().len()), (None, 1), "not tried by itself");
    clinic.edit(Person, with(ana(), doc! {"phone": "2"})).await;
    clinic.assert_settled().await;
    assert_eq!(clinic.letters().len(), 0);
}

#[tokio::test]
async fn a_refused_delete_is_taken_back() {
    let clinic = Clinic::new();
    clinic.there(Page, page("p1", ACCT, "i"));
    clinic.round().await;
    clinic.sim.state().not_archived.push("p1".to_owned());
    clinic.delete(Page, "p1").await;
    // It is no lasting fault until it has been there in three rounds.
    for _ in 0..3 {
        clinic.sync.round().await;
    }
    assert_eq!(clinic.ways(), ["retry", "take-central"]);
    let refused = clinic.give_up(Page, "p1", WayOut::Discard).await.unwrap_err();
    assert!(refused.to_string().contains("its body is in the trash"), "{refused}");
    clinic.give_up(Page, "p1", WayOut::TakeCentral).await.unwrap();
    clinic.assert_settled().await;
    assert_eq!(clinic.here(Page, "p1"), Some(page("p1", ACCT, "i")));
    assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", ACCT, "i")));
    let kept = clinic.bodies(Page, "p1");
    assert!(
        kept.iter().any(|(body, state)| (body, *state) == (&page("p1", ACCT, "i"), TrashState::Void)),
        "{kept:?}"
    );
    assert_eq!(clinic.letters().len(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_is_read_again_or_loses_its_local_change() {
    let clinic = Clinic::new();
    clinic.there(Page, page("p1", ACCT, "i"));
    clinic.round().await;
    clinic.sim.state().unreadable.push("p1".to_owned());
    clinic.there(Page, page("p1", ACCT, "theirs"));
    clinic.round().await;
    assert_eq!(clinic.ways(), ["retry"]);
    assert!(clinic.give_up(Page, "p1", WayOut::TakeCentral).await.is_err());
    assert!(clinic.give_up(Page, "p1", WayOut::Discard).await.is_err());
    assert_eq!(clinic.here(Page, "p1"), Some(page("p1", ACCT, "i")));
    clinic.sim.state().unreadable.clear();
    clinic.run(|tx| tx.retry_dead(&key(Page, "p1"))).await;
    clinic.assert_settled().await;
    assert_eq!((clinic.here(Page, "p1"), clinic.letters().len()), (Some(page("p1", ACCT, "theirs")), 0));
}

/// The rights are looked at for what would become of the record.
#[tokio::test]
async fn nobody_gives_up_what_they_may_not_change() {
    let clinic = Clinic::new();
    clinic.there(Page, page("p1", ACCT, "i"));
    clinic.round().await;
    clinic.refuses("p1", true).await;
    clinic.edit(Page, page("p1", ACCT, "mine")).await;
    clinic.round().await;
    let refused = key(Page, "p1");
    let denied = give_up(&clinic.store, &refused, WayOut::Discard, clerk(), |_, owner| {
        assert_eq!(owner, Some(ACCT));
        false
    });
    assert!(matches!(denied.await, Err(RefusedError::Forbidden)));
    assert_eq!(clinic.here(Page, "p1"), Some(page("p1", ACCT, "mine")));
    assert_eq!((clinic.letters().len(), clinic.bodies(Page, "p1").len()), (1, 0));
}
