//! Records that are too much for one answer of the centre.

use super::*;

/// Two of them fill an answer of the simulated centre.
const BYTES: usize = 40 << 10;

fn large(id: &str, letter: &str) -> Document {
    let mut document = person(id, letter);
    document.insert("scan", letter.repeat(BYTES));
    document
}

#[tokio::test]
async fn large_records_are_read_in_pieces_and_none_is_taken_for_gone() {
    for sim in [Sim::with_history(), Sim::default()] {
        let ids: Vec<String> = (0..9).map(|n| format!("P{n}")).collect();
        for id in &ids {
            sim.put(Kind::Person, large(id, "o"));
        }
        let node = Node::agreed(&sim).await;
        // News.
        for id in &ids {
            sim.put(Kind::Person, large(id, "n"));
        }
        let report = node.complete().await;
        assert_eq!((report.pulled, report.deleted), (9, 0), "{report:?}");
        // Writes without an answer, some of which others have overwritten.
        for id in &ids {
            node.edit(id, Some(large(id, "m"))).await;
        }
        sim.state().write_faults.push_back(Fault::LostAnswer);
        node.ends(Outcome::Offline).await;
        for id in &ids[..3] {
            sim.put(Kind::Person, large(id, "t"));
        }
        let report = node.complete().await;
        assert_eq!(report.deleted, 0, "{report:?}");
        for id in &ids {
            assert_settled(&node, &sim, id).await;
            assert!(node.get(id).is_some());
        }
    }
}

/// A node with people whose records do not fit one answer, and one small record before them all.
async fn beside_large(sim: &Sim, small: &str) -> (Node, Vec<String>) {
    let ids: Vec<String> = (0..6).map(|n| format!("P{n}")).collect();
    for id in &ids {
        sim.put(Kind::Person, large(id, "o"));
    }
    sim.put(Kind::Person, person(small, "o"));
    (Node::agreed(sim).await, ids)
}

/// What one answer says of a record is not asked of the next one, which has those that did not fit.
#[tokio::test]
async fn a_record_of_the_first_piece_is_not_taken_for_gone_with_the_second() {
    let sim = Sim::default();
    let (node, ids) = beside_large(&sim, "EDITED").await;
    for id in &ids {
        node.edit(id, Some(large(id, "m"))).await;
    }
    node.edit("EDITED", Some(person("EDITED", "m"))).await;
    sim.state().write_faults.push_back(Fault::LostRequest);
    node.ends(Outcome::Offline).await;
    assert_eq!(node.store.read().unwrap().intents().unwrap().len(), 7, "all are settled by one read");
    sim.state().unreadable.push("EDITED".to_owned());
    let report = node.sync.round().await;
    assert_eq!((report.deleted, report.dead), (0, 1), "{report:?}");
    assert_eq!((f(node.get("EDITED")).as_str(), node.conflicts()), ("m", 0));
    assert!(node.store.read().unwrap().intents().unwrap().iter().any(|(key, _)| key.id == "EDITED"));
    sim.state().unreadable.clear();
    node.sync.ask_for_verification().await.unwrap();
    node.sync.round().await;
    node.complete().await;
    for id in ids.iter().map(String::as_str).chain(["EDITED"]) {
        assert_settled(&node, &sim, id).await;
    }
    assert_eq!(at(&sim, "EDITED").as_str(), "m");
}

#[tokio::test]
async fn a_delete_of_the_first_piece_that_did_not_land_is_sent_again() {
    let sim = Sim::default();
    let (node, ids) = beside_large(&sim, "GONE").await;
    for id in ids.iter().map(String::as_str).chain(["GONE"]) {
        node.edit(id, None).await;
    }
    sim.state().write_faults.push_back(Fault::LostRequest);
    node.ends(Outcome::Offline).await;
    assert_eq!(node.store.read().unwrap().intents().unwrap().len(), 7, "all are settled by one read");
    node.complete().await;
    for id in ids.iter().map(String::as_str).chain(["GONE"]) {
        assert_settled(&node, &sim, id).await;
        assert_eq!(node.get(id), None, "{id}");
    }
    assert!(
        sim.state().trash.values().all(|row| row.get_str("state").is_ok_and(|state| state != "intended"))
    );
}
