//! What a node answers in rows of `edge_conflicts`: decisions that cannot be carried out or come second, rows that
//! are gone.

use bson::{Bson, Document, doc};
use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::ConflictStatus;
use thalamus_edge::sync::conflicts::Decision;

use super::resolutions::{ID, patient, two_nodes};
use super::{Clinic, page, with};

const SPELLINGS: &str =
    "the resolution must be \"local\", \"central\", or \"value\" with the field \"value\"";

impl Clinic {
    /// Asserts that the one row says that its decision was declined, and returns the sentence.
    fn declined(&self) -> String {
        let row = self.row();
        assert_eq!(row.get_str("status").unwrap(), "declined", "{row}");
        assert!(!row.contains_key("applied_by"), "{row}");
        row.get_str("declined").unwrap().to_owned()
    }

    fn status_there(&self) -> String {
        self.row().get_str("status").unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_decision_that_makes_no_sense_is_declined() {
    let needs_value = "the resolution \"value\" needs the field \"value\"";
    for (written, reason) in [
        (doc! {"resolution": "mine"}, SPELLINGS),
        (doc! {"resolution": 5}, SPELLINGS),
        (doc! {"resolution": ["local"]}, SPELLINGS),
        (doc! {"resolution": ""}, SPELLINGS),
        (doc! {"resolution": null}, SPELLINGS),
        (doc! {}, SPELLINGS),
        (doc! {"resolution": "value"}, needs_value),
        (doc! {"resolution": " VALUE "}, needs_value),
    ] {
        for status in [Bson::from("resolved"), Bson::from("closed"), Bson::from(5), Bson::Null] {
            let what = format!("{written} {status}");
            let clinic = Clinic::about_phone().await;
            clinic.written(with(written.clone(), doc! {"status": status}));
            for _ in 0..3 {
                clinic.round().await;
                assert_eq!(clinic.only().status, ConflictStatus::Open, "{what}");
                assert_eq!(clinic.notes(), [reason], "{what}");
                let sentence = clinic.declined();
                let due = format!(
                    "Not carried out: {reason}. The conflict is still open on node {}.",
                    clinic.name()
                );
                assert_eq!(sentence, due, "{what}");
                assert_eq!(clinic.row().get("resolution"), written.get("resolution"), "{what}");
                assert_eq!(clinic.phone_there(), "theirs", "{what}");
            }
        }
    }
}

/// A decision that a node has not answered is `open` with a resolution, or whatever the administrator wrote.
#[tokio::test]
async fn clear_spellings_are_taken_as_meant() {
    for (written, resolution, phone) in [
        (doc! {"resolution": "LOCAL"}, "local", "mine"),
        (doc! {"resolution": " local\n"}, "local", "mine"),
        (doc! {"resolution": "Central", "value": 5}, "central", "theirs"),
        (doc! {"resolution": " Value", "value": "agreed"}, "value", "agreed"),
    ] {
        for status in ["resolved", "open", "RESOLVED", "done"] {
            let what = format!("{written} {status}");
            let clinic = Clinic::about_phone().await;
            clinic.written(with(written.clone(), doc! {"status": status}));
            clinic.assert_settled().await;
            assert_eq!(clinic.phone_there(), phone, "{what}");
            assert_eq!(clinic.notes(), Vec::<String>::new(), "{what}");
            let row = clinic.row();
            assert_eq!(row.get_str("status").unwrap(), "resolved", "{what}");
            assert_eq!(row.get_str("resolution").unwrap(), resolution, "{what}");
            assert_eq!(row.get_str("applied_by").unwrap(), clinic.name(), "{what}");
            assert!(!row.contains_key("declined"), "{what}: {row}");
        }
    }
}

/// Another decision in the place of the declined one is looked at, however its status is spelled.
#[tokio::test]
async fn a_declined_row_waits_for_another_decision() {
    for status in ["resolved", "open", "declined"] {
        let clinic = Clinic::about_phone().await;
        clinic.written(doc! {"status": "resolved", "resolution": "mine", "resolved_by": "office"});
        clinic.round().await;
        clinic.declined();
        clinic.written(doc! {"status": status, "resolution": "value"});
        clinic.round().await;
        assert!(clinic.declined().contains("needs the field"), "{status}");
        assert_eq!(clinic.notes().len(), 2, "{status}");
        clinic.written(doc! {"status": status, "value": "agreed"});
        clinic.assert_settled().await;
        assert_eq!(
            (clinic.phone_there().as_str(), clinic.only().status),
            ("agreed", ConflictStatus::Resolved)
        );
        let row = clinic.row();
        assert_eq!(row.get_str("status").unwrap(), "resolved", "{status}");
        for gone in ["declined", "declined_fingerprint"] {
            assert!(!row.contains_key(gone), "{status}: {row}");
        }
    }
}

#[tokio::test]
async fn a_decision_that_is_too_late_is_declined() {
    let clinic = Clinic::about_phone().await;
    clinic.there(Person, patient("later"));
    clinic.round().await;
    let decided = doc! {"status": "resolved", "resolution": "local", "resolved_by": "office"};
    clinic.written(decided.clone());
    for _ in 0..3 {
        clinic.round().await;
        assert_eq!(clinic.notes(), ["the value has changed meanwhile"]);
        assert!(clinic.declined().contains("the value has changed meanwhile"));
    }
    let open = clinic.only();
    assert_eq!(open.status, ConflictStatus::Open);
    assert_eq!((open.notes[0].resolution.as_str(), open.notes[0].by.as_str()), ("local", "centre (office)"));
    let row = clinic.row();
    assert_eq!(
        (row.get("resolution"), row.get("resolved_by")),
        (decided.get("resolution"), decided.get("resolved_by"))
    );
    assert_eq!(clinic.phone_there(), "later");
    // Now staff decide otherwise: the row says what stands, and what had been asked for.
    clinic.resolve(Decision::Value("new".into()), "later").await;
    clinic.assert_settled().await;
    assert_eq!(clinic.phone_there(), "new");
    assert_eq!(clinic.notes(), ["the value has changed meanwhile"]);
    let row = clinic.row();
    assert_eq!(row.get_str("status").unwrap(), "resolved", "{row}");
    assert_eq!(
        (row.get_str("resolution").unwrap(), row.get_str("value").unwrap()),
        ("value", "new"),
        "{row}"
    );
    assert_eq!(
        (row.get_str("resolved_by").unwrap(), row.get_str("applied_by").unwrap()),
        ("person:CLERK", clinic.name().as_str())
    );
    let asked = row.get_document("declined_decision").unwrap();
    assert_eq!(
        (asked.get_str("resolution").unwrap(), asked.get_str("resolved_by").unwrap()),
        ("local", "office")
    );
    assert!(row.get_str("declined").unwrap().contains("the value has changed meanwhile"), "{row}");
}

#[tokio::test]
async fn what_cannot_be_done_to_the_record_is_declined() {
    // A record that is gone cannot be given a value.
    let clinic = Clinic::about_phone().await;
    clinic.sim.remove(Person, ID);
    clinic.round().await;
    clinic.written(doc! {"status": "resolved", "resolution": "local"});
    clinic.round().await;
    let gone = "the record is gone: take \"central\" at the node, which closes the conflict";
    assert_eq!((clinic.notes(), clinic.at_centre(Person, ID)), (vec![gone.to_owned()], None));
    assert!(clinic.declined().contains(gone));
    // A value that is no record does not delete one.
    for value in [Bson::from("text"), Bson::Null, Bson::from(vec![Bson::Null])] {
        let clinic =
            Clinic::with_conflict(Page, page("p1", "ANA01", "old"), page("p1", "ANA01", "mine"), None).await;
        clinic.written(doc! {"status": "resolved", "resolution": "value", "value": value.clone()});
        clinic.round().await;
        clinic.round().await;
        assert!(clinic.declined().contains("for a whole record the value must be the record"), "{value}");
        assert_eq!(clinic.at_centre(Page, "p1"), Some(page("p1", "ANA01", "mine")), "{value}");
    }
}

/// Who a person is, is decided where the person is.
#[tokio::test]
async fn identities_are_not_decided_at_the_centre() {
    for resolution in ["same", "new_id", "local", "central"] {
        let clinic = Clinic::with_hold().await;
        let written = doc! {"status": "resolved", "resolution": resolution, "resolved_by": "office"};
        clinic.written(written);
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!(clinic.holds(), 1);
            assert_eq!(clinic.notes(), ["who a person is, is decided at the node"]);
            assert!(clinic.declined().contains("who a person is, is decided at the node"));
        }
        // Nor by a row that claims that a node has done it.
        clinic.written(doc! {"status": "resolved", "applied_by": clinic.name()});
        for _ in 0..2 {
            clinic.round().await;
            assert_eq!((clinic.holds(), clinic.status_there().as_str()), (1, "open"), "{resolution}");
        }
    }
}

/// A decision was carried out, and somebody writes another one over it.
#[tokio::test]
async fn a_second_decision_says_which_one_stands() {
    for (second, is_kept) in [
        (doc! {"status": "resolved", "resolution": "central", "resolved_by": "other office"}, true),
        (doc! {"status": "open", "resolution": "value", "value": "x", "resolved_by": "other office"}, true),
        (doc! {"status": "open"}, false),
        (doc! {"status": "declined"}, false),
    ] {
        for is_unset in [false, true] {
            let what = format!("{second} {is_unset}");
            let clinic = Clinic::about_phone().await;
            clinic.written(doc! {"status": "resolved", "resolution": "local", "resolved_by": "office"});
            clinic.assert_settled().await;
            clinic.written(second.clone());
            if is_unset {
                let id = clinic.only().id;
                clinic.sim.state().conflicts.get_mut(&id).unwrap().remove("applied_by");
            }
            for _ in 0..2 {
                clinic.assert_settled().await;
                assert_eq!(clinic.phone_there(), "mine", "{what}");
                let row = clinic.row();
                let text =
                    |field: &str| row.get_str(field).unwrap_or_else(|_| panic!("{what}: {field} of {row}"));
                assert_eq!(
                    (text("status"), text("resolution"), text("resolved_by")),
                    ("resolved", "local", "office")
                );
                assert_eq!(text("applied_by"), clinic.name(), "{what}");
                assert!(!row.contains_key("value"), "{what}: {row}");
                if is_kept {
                    let stands = "The decision \"local\" by office stands";
                    assert!(text("declined").contains(stands), "{what}: {row}");
                    let asked = row.get_document("declined_decision").unwrap();
                    assert_eq!(asked.get("resolution"), second.get("resolution"), "{what}");
                    assert_eq!(asked.get("value"), second.get("value"), "{what}");
                    assert_eq!(clinic.notes(), ["another decision came first"], "{what}");
                }
            }
        }
    }
}

/// The node is not asked about a closed conflict for ever.
#[tokio::test]
async fn a_closed_row_is_read_again_for_ten_rounds() {
    let clinic = Clinic::about_phone().await;
    clinic.resolve(Decision::TakeCentral, "theirs").await;
    clinic.round().await;
    clinic.sim.state().resolution_questions.clear();
    for _ in 0..15 {
        clinic.round().await;
    }
    assert_eq!(clinic.sim.state().resolution_questions, [1; 10]);
    assert_eq!(clinic.store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
}

/// Staff decide while the administrator does, before either could know: what was carried out stands.
#[tokio::test]
async fn of_an_edit_and_a_written_decision_the_edit_stands() {
    let clinic = Clinic::about_phone().await;
    clinic.resolve(Decision::TakeLocal, "theirs").await;
    clinic.written(doc! {"status": "resolved", "resolution": "value", "value": "x", "resolved_by": "office"});
    clinic.assert_settled().await;
    assert_eq!(clinic.phone_there(), "mine");
    let row = clinic.row();
    assert_eq!(
        (row.get_str("resolution").unwrap(), row.get_str("resolved_by").unwrap()),
        ("local", "person:CLERK")
    );
    assert!(
        row.get_str("declined").unwrap().contains("The decision \"local\" by person:CLERK stands"),
        "{row}"
    );
    let asked = row.get_document("declined_decision").unwrap();
    assert_eq!((asked.get_str("value").unwrap(), asked.get_str("resolved_by").unwrap()), ("x", "office"));
    assert_eq!(clinic.notes(), ["another decision came first"]);
    // The same decision by both needs no answer.
    let clinic = Clinic::about_phone().await;
    clinic.resolve(Decision::TakeLocal, "theirs").await;
    clinic.written(doc! {"status": "resolved", "resolution": "LOCAL", "resolved_by": "office"});
    clinic.assert_settled().await;
    let row = clinic.row();
    assert_eq!((row.get_str("resolution").unwrap(), row.contains_key("declined")), ("local", false), "{row}");
    assert_eq!(clinic.notes(), Vec::<String>::new());
}

/// Other nodes with the same conflict close it only once the decision was carried out.
#[tokio::test]
async fn a_declined_decision_closes_nothing_elsewhere() {
    let (north, south) = two_nodes().await;
    north.there(Person, patient("later"));
    north.round().await;
    south.round().await;
    north.written(doc! {"status": "resolved", "resolution": "local"});
    for node in [&south, &north, &south, &north] {
        node.round().await;
    }
    for node in [&north, &south] {
        assert_eq!(node.only().status, ConflictStatus::Open);
        assert!(node.declined().contains(&north.name()));
    }
    north.resolve(Decision::TakeLocal, "later").await;
    for node in [&north, &south] {
        node.assert_settled().await;
        assert_eq!((node.only().status, node.phone_there().as_str()), (ConflictStatus::Resolved, "mine"));
    }
}

/// Somebody deleted the row of a conflict that still waits.
#[tokio::test]
async fn a_row_that_was_deleted_is_published_again() {
    let (north, south) = two_nodes().await;
    let before = north.row();
    north.sim.state().conflicts.clear();
    south.round().await;
    let row = south.row();
    assert_eq!(row.get_str("node").unwrap(), south.name());
    assert_eq!(with(row, doc! {"node": before.get("node").cloned()}), before);
    // And is decided by the node that published it last.
    south.written(doc! {"resolution": "local"});
    for node in [&north, &south, &north] {
        node.round().await;
    }
    for node in [&north, &south] {
        node.assert_settled().await;
        assert_eq!((node.only().status, node.phone_there().as_str()), (ConflictStatus::Resolved, "mine"));
    }
    // One that is closed may go.
    north.sim.state().conflicts.clear();
    north.assert_settled().await;
    assert_eq!(north.sim.state().conflicts.len(), 0);
}

/// The row lost the fields that a node compares.
#[tokio::test]
async fn a_row_without_its_fields_is_answered_too() {
    let clinic = Clinic::about_phone().await;
    let id = clinic.only().id;
    let damaged: Document = doc! {"_id": &id, "status": "resolved"};
    clinic.sim.state().conflicts.insert(id, damaged);
    clinic.round().await;
    assert!(clinic.declined().contains(SPELLINGS));
}
