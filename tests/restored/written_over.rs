//! An image of a node in which a person was rewritten into somebody else, made before that was decided and put back after it.

use super::*;
use thalamus_edge::store::{ConflictStatus, HoldReason};
use thalamus_edge::sync::identity::{decide, hold_of};

pub(super) const ACCT: &str = "RST5X";
pub(super) const NEW: &str = "NEW5X";

pub(super) fn ann() -> Document {
    doc! {"_id": ACCT, "name": "Ann", "lastname": "Alpha", "dob": "1980-01-01", "gender": "f"}
}

pub(super) fn carl() -> Document {
    doc! {"_id": ACCT, "name": "Carl", "lastname": "Gamma", "dob": "1971-03-09", "gender": "m"}
}

pub(super) fn page(id: &str, text: &str) -> (RecordKey, Document) {
    (RecordKey::new(Kind::Page, id), doc! {"_id": id, "book": ACCT, "text": text})
}

pub(super) async fn write(node: &Node, (key, document): (RecordKey, Document)) {
    let actor = Actor::Local("tech".to_owned());
    node.store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
}

pub(super) async fn answer(node: &Node, verdict: Verdict) {
    let open = |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
    let conflict = node.store.read().unwrap().conflicts().unwrap().into_iter().find(open).unwrap();
    let pair = hold_of(&node.store.read().unwrap(), &conflict).unwrap().unwrap().1;
    let actor = Actor::Local("tech".to_owned());
    decide(&node.store, &conflict.id, verdict, pair, actor).await.unwrap();
}

pub(super) fn book(sim: &Sim, account: &str) -> Vec<String> {
    let records = sim.state().records.clone();
    let of_account = records.values().filter(|record| record.get_str("book").ok() == Some(account));
    let mut texts: Vec<String> =
        of_account.map(|record| record.get_str("text").unwrap().to_owned()).collect();
    texts.sort();
    texts
}

/// It is asked anew, for the right reason, and nothing of the first one goes along with the other.
#[tokio::test]
async fn an_image_from_before_the_decision_asks_anew() {
    for is_same in [false, true] {
        for is_asked in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let (file, image) = (directory.path().join("store"), directory.path().join("image"));
            let sim = Sim::default();
            sim.put(Kind::Person, ann());
            sim.put(Kind::Page, page("p1", "Ann").1);
            let node = Node::on_disk(&file, &sim);
            node.complete().await;
            write(&node, page("p2", "Ann, unsent")).await;
            write(&node, (key(ACCT), carl())).await;
            write(&node, page("p3", "Carl")).await;
            if is_asked {
                node.complete().await;
            }
            drop(node);
            std::fs::copy(&file, &image).unwrap();
            let node = Node::on_disk(&file, &sim);
            node.complete().await;
            let verdict = if is_same { Verdict::Same } else { Verdict::NewId(NEW.to_owned()) };
            answer(&node, verdict.clone()).await;
            for _ in 0..3 {
                node.complete().await;
            }
            let (first, second) = (book(&sim, ACCT), book(&sim, NEW));
            let all = ["Ann", "Ann, unsent", "Carl"].map(str::to_owned);
            let expected = if is_same { (&all[..], &all[3..]) } else { (&all[..2], &all[2..]) };
            assert_eq!((&first[..], &second[..]), expected);
            drop(node);

            let node = Node::on_disk(&image, &sim);
            // What others have now may need a second reading.
            for _ in 0..2 {
                node.sync.round().await;
                assert_eq!(book(&sim, ACCT), first, "{is_same} {is_asked}");
            }
            node.complete().await;
            let why = node.store.read().unwrap().hold(ACCT).unwrap().map(|hold| hold.why);
            if is_same {
                assert_eq!(why, None);
            } else {
                assert_eq!(why, Some(HoldReason::Rewritten), "{is_asked}");
                answer(&node, verdict).await;
                for _ in 0..3 {
                    node.complete().await;
                }
            }
            assert_eq!((book(&sim, ACCT), book(&sim, NEW)), (first, second), "{is_same} {is_asked}");
            assert_eq!(node.pending(), 0);
            assert_eq!(node.store.read().unwrap().holds_count().unwrap(), 0);
        }
    }
}
