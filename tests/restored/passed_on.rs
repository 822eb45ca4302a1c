//! A centre is put back, and somebody was made and deleted under an account on the node in between: nothing that the centre
//! has was ever theirs.

use super::*;
use thalamus_edge::store::ConflictStatus;
use thalamus_edge::sync::identity::{Verdict, decide, hold_of};

const ACCT: &str = "PST5X";

fn named(name: &str, born: &str) -> Document {
    doc! {"_id": ACCT, "name": name, "lastname": format!("L{name}"), "dob": born, "gender": "f"}
}

fn page() -> Document {
    doc! {"_id": "r1", "book": ACCT, "info": "Hanna"}
}

fn visit() -> Document {
    doc! {"_id": "q6", "person": ACCT, "info": "Hanna"}
}

async fn write(node: &Node, kind: Kind, id: &str, document: Option<Document>) {
    let (key, actor) = (RecordKey::new(kind, id), Actor::Local("tech".to_owned()));
    node.store.transact(move |tx| tx.edit(&key, document.as_ref(), &actor)).await.unwrap();
}

async fn write_all(node: &Node, are_there: bool) {
    let person = named("Hanna", "1940-01-01");
    let mut all =
        [(Kind::Person, ACCT, person), (Kind::Page, "r1", page()), (Kind::Encounter, "q6", visit())];
    if !are_there {
        all.reverse();
    }
    for (kind, id, document) in all {
        write(node, kind, id, are_there.then_some(document)).await;
    }
}

async fn made_between(node: &Node) {
    write(node, Kind::Person, ACCT, Some(named("Ida", "1950-01-01"))).await;
    write(node, Kind::Person, ACCT, None).await;
    write(node, Kind::Person, ACCT, Some(named("Jana", "1960-01-01"))).await;
}

#[tokio::test]
async fn who_was_made_and_deleted_here_has_nothing_at_the_centre() {
    for is_agreed_first in [true, false] {
        let sim = Sim::default();
        let node = Node::new(&sim);
        write_all(&node, true).await;
        node.complete().await;
        let copy = copy_of(&sim);
        write_all(&node, false).await;
        node.complete().await;
        assert_eq!(sim.state().records.len(), 0);
        restore(&sim, &copy);
        if is_agreed_first {
            node.agrees().await;
            made_between(&node).await;
        } else {
            node.ends(Outcome::Halted).await;
            made_between(&node).await;
            node.agrees().await;
        }
        node.complete().await;
        let mut asked = Vec::new();
        for turn in 0..4 {
            let open =
                |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
            let conflicts = node.store.read().unwrap().conflicts().unwrap();
            if let Some(conflict) = conflicts.into_iter().find(open) {
                let pair = hold_of(&node.store.read().unwrap(), &conflict).unwrap().unwrap().1;
                asked.push(pair.local.as_ref().unwrap().get_str("name").unwrap().to_owned());
                let verdict = Verdict::NewId(format!("NEW0{turn}"));
                decide(&node.store, &conflict.id, verdict, pair, Actor::Local("tech".to_owned()))
                    .await
                    .unwrap();
            }
            node.complete().await;
        }
        assert_eq!(asked, ["Jana"]);
        let at = |kind, id| sim.get(kind, id);
        assert_eq!(at(Kind::Person, ACCT), Some(named("Hanna", "1940-01-01")));
        assert_eq!((at(Kind::Page, "r1"), at(Kind::Encounter, "q6")), (Some(page()), Some(visit())));
    }
}
