//! Conflicts and deleted records that are larger than a MongoDB document may be.

use bson::{Bson, Document, doc};
use thalamus_edge::domain::record::Kind::{Page, Person};
use thalamus_edge::store::ConflictStatus;
use thalamus_edge::sync::conflicts::Decision;

use super::resolutions::{ID, patient};
use super::{Clinic, page, with};
use crate::support::sim::WITHOUT_FEED;

/// Three values of this size do not fit into one row.
const LARGE: usize = 6 << 20;

fn large(letter: &str) -> String {
    letter.repeat(LARGE)
}

async fn about_large_phone() -> Clinic {
    let [old, mine, theirs] = ["o", "m", "t"].map(|letter| patient(&large(letter)));
    Clinic::with_conflict(Person, old, mine, Some(theirs)).await
}

#[tokio::test]
async fn a_large_conflict_reaches_the_centre_without_its_values() {
    let clinic = about_large_phone().await;
    let row = clinic.row();
    assert!(row.to_vec().unwrap().len() < 4096, "{}", row.to_vec().unwrap().len());
    assert_eq!(row.get_str("status").unwrap(), "open");
    let truncated: Vec<&str> = row.get_array("truncated").unwrap().iter().filter_map(Bson::as_str).collect();
    assert_eq!(truncated, ["base", "local", "central"]);
    let mut hashes = Vec::new();
    for name in truncated {
        let marker = row.get_document(name).unwrap().get_document("truncated").unwrap();
        assert_eq!(marker.get_str("type").unwrap(), "string", "{name}");
        // A BSON string has its length before it and a zero after it.
        assert_eq!(marker.get_i64("bytes").unwrap(), LARGE as i64 + 5, "{name}");
        assert_eq!(marker.get_str("node").unwrap(), clinic.name(), "{name}");
        hashes.push(marker.get_str("sha256").unwrap().to_owned());
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 3);
    // Nothing is left over, and nothing is sent again.
    let status = clinic.sync.status().unwrap();
    assert_eq!((status.conflicts_open, status.conflicts_unpublished), (1, 0));
    clinic.round().await;
    assert_eq!(clinic.row(), row);
}

#[tokio::test]
async fn a_large_conflict_can_be_decided_anywhere() {
    for (decision, letter) in [("local", "m"), ("central", "t"), ("value", "v")] {
        let clinic = about_large_phone().await;
        let mut written = doc! {"status": "resolved", "resolution": decision, "resolved_by": "office"};
        if decision == "value" {
            written.insert("value", large(letter));
        }
        clinic.written(written);
        clinic.assert_settled().await;
        assert!(clinic.phone_there() == large(letter), "{decision}");
        let row = clinic.row();
        assert_eq!(row.get_str("status").unwrap(), "resolved", "{decision}");
        assert_eq!(row.get_str("applied_by").unwrap(), clinic.name(), "{decision}");
        assert!(!row.contains_key("declined"), "{decision}");
        assert_eq!(clinic.notes(), Vec::<String>::new(), "{decision}");
    }
    // At the node, with a value that the row cannot hold either.
    let clinic = about_large_phone().await;
    let id = clinic.only().id;
    let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
    let (decision, seen) = (Decision::Value(large("v").into()), Some(large("t").into()));
    let resolved =
        thalamus_edge::sync::conflicts::resolve(&clinic.store, &id, decision, seen, super::clerk(), allow);
    resolved.await.unwrap();
    for _ in 0..3 {
        clinic.assert_settled().await;
        assert!(clinic.phone_there() == large("v"));
        let row = clinic.row();
        assert!(row.get_document("value").unwrap().contains_key("truncated"));
        assert!(!row.contains_key("declined"));
        assert_eq!(clinic.notes(), Vec::<String>::new());
    }
    assert_eq!(clinic.only().status, ConflictStatus::Resolved);
}

/// Decisions with more bytes than one answer of the centre takes. Those of other nodes are decided in the centre's rows
/// for ever and come first in every round: they must not keep the others from being read.
#[tokio::test]
async fn many_large_decisions_are_all_read_in_one_round() {
    let clinic = Clinic::new();
    let fields = |value: &str| -> Document { (0..12).map(|n| (format!("f{n:02}"), value.into())).collect() };
    let [old, mine, theirs] = ["old", "mine", "theirs"].map(|value| with(patient("1"), fields(value)));
    clinic.lose(Person, old, mine, Some(theirs)).await;
    clinic.round().await;
    assert_eq!(clinic.conflicts().len(), 12);
    let decided: Vec<String> = clinic.conflicts().into_iter().map(|conflict| conflict.id).collect();
    {
        let mut state = clinic.sim.state();
        let last = state.conflicts.keys().next_back().cloned().unwrap();
        for (id, row) in &mut state.conflicts {
            if *id != last {
                row.insert("node", "another node");
            }
            row.extend(doc! {"status": "resolved", "resolution": "value", "value": "v".repeat(100 << 10)});
        }
    }
    clinic.round().await;
    let is_open = |id: &&String| {
        let conflict = clinic.store.read().unwrap().conflict(id).unwrap().unwrap();
        conflict.status == ConflictStatus::Open
    };
    let open: Vec<&String> = decided.iter().filter(is_open).collect();
    assert_eq!(open.len(), 11, "the node's own decision is carried out: {open:?}");
}

/// Many large conflicts at once are published a few at a time.
#[tokio::test]
async fn what_is_not_published_is_counted_and_never_called_up_to_date() {
    let clinic = Clinic::new();
    clinic.sim.state().conflicts_refused_about.push(ID.to_owned());
    clinic.lose(Person, patient("old"), patient("mine"), Some(patient("theirs"))).await;
    let says = |clinic: &Clinic| clinic.sync.status().unwrap();
    let words = "One conflict, as it is now, is not written at the centre yet.";
    for _ in 0..2 {
        let report = clinic.round().await;
        assert!(report.message.contains(words), "{}", report.message);
        assert!(!report.message.contains("up to date"), "{}", report.message);
        let status = says(&clinic);
        assert_eq!((status.conflicts_open, status.conflicts_unpublished), (1, 1));
        assert!(
            status.message.contains(words) && !status.message.contains("up to date"),
            "{}",
            status.message
        );
        let row = clinic.sim.state().nodes[&clinic.name()].clone();
        assert_eq!(row.get_i64("conflicts_unpublished").unwrap(), 1, "{row}");
    }
    clinic.sim.state().conflicts_refused_about.clear();
    let report = clinic.round().await;
    // It still waits for somebody.
    let words = "Some records differ and wait for a decision: see the conflicts.";
    let words = format!("{words}{WITHOUT_FEED}");
    assert_eq!(report.message, words);
    assert_eq!(says(&clinic).conflicts_unpublished, 0);
    assert_eq!(says(&clinic).message, words);
    let row = clinic.sim.state().nodes[&clinic.name()].clone();
    assert_eq!(row.get_i64("conflicts_unpublished").unwrap(), 0, "{row}");
}

/// The body of a deleted record does not fit into a row with anything beside it, or has keys that a server does not
/// store.
#[tokio::test]
async fn a_delete_goes_to_the_centre_without_a_body_that_cannot_be_archived() {
    for is_large in [true, false] {
        let clinic = Clinic::new();
        let info = if is_large { "x".repeat((16 << 20) - 60) } else { "x".to_owned() };
        let body = with(page("p1", "ANA01", &info), doc! {"$x": 1});
        clinic.there(Page, body.clone());
        clinic.round().await;
        // Edited before it was deleted: the centre never had that.
        let edited = with(body.clone(), doc! {"$x": 2});
        if !is_large {
            clinic.sim.state().bodies_refused.push("p1".to_owned());
            clinic.edit(Page, edited.clone()).await;
        }
        clinic.delete(Page, "p1").await;
        clinic.round().await;
        assert_eq!(clinic.at_centre(Page, "p1"), None, "{is_large}");
        assert_eq!(clinic.store.read().unwrap().dead_count().unwrap(), 0, "{is_large}");
        let rows: Vec<Document> = clinic.sim.state().trash.values().cloned().collect();
        assert_eq!(rows.len(), 1, "{is_large}");
        assert_eq!(rows[0].get_str("state").unwrap(), "done", "{is_large}");
        assert!(!rows[0].contains_key("document"), "{is_large}");
        let marker = rows[0].get_document("truncated").unwrap();
        assert_eq!(marker.get_str("node").unwrap(), clinic.name(), "{is_large}");
        assert_eq!(marker.get_i64("bytes").unwrap() as usize, body.to_vec().unwrap().len(), "{is_large}");
        let trash = clinic.store.read().unwrap().trash().unwrap();
        let kept = |document: &Document| trash.iter().any(|row| row.document == *document);
        assert!(kept(&body), "{is_large}");
        assert_eq!(trash.len(), if is_large { 1 } else { 2 }, "{is_large}");
        assert!(is_large || kept(&edited));
        clinic.assert_settled().await;
    }
}
