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
