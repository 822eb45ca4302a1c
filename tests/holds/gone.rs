//! People whose delete arrives although records of theirs are here. The delete is carried out, and the records ask what is to
//! become of them: on every node, for as long as there are any.

use serde_json::json;

use bson::doc;
use thalamus_edge::domain::access::{Grant, Verb};
use thalamus_edge::domain::record::Kind::{Encounter, Page, Person};
use thalamus_edge::store::LeftBehind;
use thalamus_edge::sync::Report;

use super::support::sim::Fault;
use super::{ACCT, Clinic, Sim, ana, page};

const SAID: &str = "records are of people who have been deleted: 1 in pols, 1 in encounter";
const UP_TO_DATE: &str = "Everything is up to date with the centre.";

/// Nodes that know Ana, a page and an encounter of hers.
async fn clinics(sim: &Sim, count: usize) -> Vec<Clinic> {
    sim.put(Person, ana());
    sim.put(Page, page("p1", ACCT, "of Ana"));
    sim.put(Encounter, doc! {"_id": "e1", "person": ACCT});
    let clinics: Vec<Clinic> = (0..count).map(|_| Clinic::at(sim)).collect();
    rounds(&clinics).await;
    clinics
}

async fn rounds(clinics: &[Clinic]) -> Vec<Report> {
    let mut reports = Vec::new();
    for clinic in clinics {
        reports.push(clinic.round().await);
    }
    reports
}

/// Ana is gone, which each node asks about.
fn assert_asks(clinics: &[Clinic], reports: &[Report]) {
    for (clinic, report) in clinics.iter().zip(reports) {
        assert_eq!(clinic.here(Person, ACCT), None, "nobody logs in as her");
        let snapshot = clinic.store.read().unwrap();
        let left = LeftBehind { account: ACCT.to_owned(), counts: [(Page, 1), (Encounter, 1)].into() };
        assert_eq!(snapshot.left_behind_after("", usize::MAX).unwrap(), [left]);
        assert_eq!(snapshot.open_conflicts_count().unwrap(), 1);
        let status = clinic.sync.status().unwrap();
        assert_eq!(status.conflicts_open, 1);
        assert_eq!(json!(status.left_behind), json!({"pols": 1, "encounter": 1}));
        for message in [&report.message, &status.message] {
            assert!(message.contains(SAID) && message.contains(ACCT), "{message}");
            assert!(!message.contains(UP_TO_DATE), "{message}");
        }
    }
}

fn assert_asks_nothing(clinics: &[Clinic], reports: &[Report]) {
    for (clinic, report) in clinics.iter().zip(reports) {
        assert_eq!(clinic.store.read().unwrap().open_conflicts_count().unwrap(), 0);
        assert!(report.message.starts_with(UP_TO_DATE), "{report:?}");
    }
}

fn sims() -> [Sim; 2] {
    [Sim::default(), Sim::with_history()]
}

#[tokio::test]
async fn records_of_somebody_who_was_deleted_are_a_question_until_one_node_restores_them() {
    for sim in sims() {
        let clinics = clinics(&sim, 3).await;
        sim.remove(Person, ACCT);
        let reports = rounds(&clinics).await;
        assert_asks(&clinics, &reports);
        // Every round says it again.
        let reports = rounds(&clinics).await;
        assert_asks(&clinics, &reports);
        let trash = clinics[1].store.read().unwrap().trash().unwrap();
        let row = trash.iter().find(|row| row.key.kind == Person).unwrap();
        clinics[1].store.undelete(Grant::operator(0, Verb::Post, Person), row.sequence).await.unwrap();
        rounds(&clinics).await;
        let reports = rounds(&clinics).await;
        assert_asks_nothing(&clinics, &reports);
        for clinic in &clinics {
            assert!(clinic.here(Person, ACCT).is_some());
            assert_eq!(clinic.book(ACCT), ["of Ana"]);
            clinic.assert_settled().await;
        }
    }
}

#[tokio::test]
async fn the_question_ends_everywhere_once_the_records_are_deleted_at_one_node() {
    for sim in sims() {
        let clinics = clinics(&sim, 3).await;
        sim.remove(Person, ACCT);
        let reports = rounds(&clinics).await;
        assert_asks(&clinics, &reports);
        clinics[2].delete(Page, "p1").await;
        clinics[2].delete(Encounter, "e1").await;
        rounds(&clinics).await;
        let reports = rounds(&clinics).await;
        assert_asks_nothing(&clinics, &reports);
    }
}

/// Whoever clears out a person with all records asks nothing, in whatever order and in however many rounds.
#[tokio::test]
async fn a_person_who_goes_with_all_records_is_no_question() {
    for sim in sims() {
        for (first, then) in [
            (&[(Person, ACCT), (Page, "p1"), (Encounter, "e1")][..], &[][..]),
            (&[(Page, "p1"), (Encounter, "e1"), (Person, ACCT)], &[]),
            (&[(Person, ACCT)], &[(Page, "p1"), (Encounter, "e1")]),
            (&[(Page, "p1"), (Person, ACCT)], &[(Encounter, "e1")]),
            (&[(Page, "p1"), (Encounter, "e1")], &[(Person, ACCT)]),
        ] {
            let clinics = clinics(&sim, 2).await;
            first.iter().for_each(|(kind, id)| sim.remove(*kind, id));
            let reports = rounds(&clinics).await;
            if then.is_empty() {
                assert_asks_nothing(&clinics, &reports);
            }
            then.iter().for_each(|(kind, id)| sim.remove(*kind, id));
            let reports = rounds(&clinics).await;
            assert_asks_nothing(&clinics, &reports);
        }
    }
}

/// One node deletes somebody of whose records, which another node is sending, it knows nothing.
#[tokio::test]
async fn a_delete_of_another_node_that_meets_new_records_is_a_question() {
    for sim in sims() {
        sim.put(Person, ana());
        let clinics = vec![Clinic::at(&sim), Clinic::at(&sim)];
        rounds(&clinics).await;
        clinics[0].edit(Page, page("p1", ACCT, "of Ana")).await;
        clinics[0].edit(Encounter, doc! {"_id": "e1", "person": ACCT}).await;
        clinics[1].delete(Person, ACCT).await;
        // The first one sends after the second one has read, and before it deletes.
        let sender = std::sync::Arc::clone(&clinics[0].sync);
        let sent = async move { drop(sender.round().await) };
        sim.state().write_faults.push_back(Fault::Meanwhile(Box::pin(sent)));
        for _ in 0..3 {
            clinics[1].sync.round().await;
            clinics[0].sync.round().await;
        }
        // The delete is carried out, and the records ask; or one of the two nodes asks about the delete.
        let mut questions = 0;
        for clinic in &clinics {
            let report = clinic.sync.round().await;
            let open = clinic.store.read().unwrap().open_conflicts_count().unwrap();
            if clinic.here(Person, ACCT).is_none() && clinic.here(Page, "p1").is_some() {
                let has_asked = open > 0 && !report.message.contains(UP_TO_DATE);
                assert!(has_asked, "{report:?}");
            }
            questions += open;
        }
        assert!(questions > 0);
    }
}
