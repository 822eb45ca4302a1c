//! Records that are deleted at the centre and put back from an older version, where something is in the way of seeing it.

use bson::Bson;
use thalamus_edge::store::ConflictStatus;

use super::*;

const YOUNG: &str = "allergic to penicillin";

fn old() -> Document {
    person("ANA", "old")
}

/// A node that has written Ana's record last, and its centre.
async fn written() -> (Sim, Node) {
    let sim = Sim::with_history();
    sim.put(Kind::Person, old());
    let node = Node::agreed(&sim).await;
    node.set("ANA", YOUNG).await;
    node.complete().await;
    assert_eq!(at(&sim, "ANA"), YOUNG);
    (sim, node)
}

/// Whether a conflict tells of what the node had written.
fn is_told(node: &Node) -> bool {
    let conflicts = node.store.read().unwrap().conflicts().unwrap();
    conflicts.iter().any(|conflict| {
        conflict.status == ConflictStatus::Open
            && conflict.path == ["f"]
            && conflict.author == Actor::Local("tech".to_owned()).to_string()
            && conflict.local == Some(Bson::from(YOUNG))
            && conflict.central == Some(Bson::from("old"))
    })
}

fn put_back(sim: &Sim) {
    sim.remove(Kind::Person, "ANA");
    sim.put(Kind::Person, old());
}

/// How the node comes to read the record once it can be read.
#[derive(Debug, Clone, Copy)]
enum Way {
    Changed,
    Verified,
    Retried,
}

#[tokio::test]
async fn an_older_version_that_could_not_be_read_at_first_is_compared_once_it_can() {
    for way in [Way::Changed, Way::Verified, Way::Retried] {
        let (sim, node) = written().await;
        sim.state().unreadable.push("ANA".to_owned());
        put_back(&sim);
        let report = node.complete().await;
        assert_eq!((report.dead, report.deleted), (1, 0), "{way:?}: {report:?}");
        // It stays as it is, and is not asked for again and again.
        let report = node.complete().await;
        assert!(!report.message.contains("read again"), "{way:?}: {report:?}");
        assert_eq!((f(node.get("ANA")).as_str(), node.conflicts()), (YOUNG, 0), "{way:?}");
        sim.state().unreadable.clear();
        match way {
            Way::Changed => sim.put(Kind::Person, {
                let mut changed = old();
                changed.insert("g", 1);
                changed
            }),
            Way::Verified => node.sync.ask_for_verification().await.unwrap(),
            Way::Retried => {
                assert!(node.store.transact(|tx| tx.retry_dead(&person_key("ANA"))).await.unwrap());
            }
        }
        node.complete().await;
        assert!(is_told(&node), "{way:?}: {:?}", node.store.read().unwrap().conflicts());
        assert_settled(&node, &sim, "ANA").await;
        assert_eq!((at(&sim, "ANA").as_str(), node.dead()), ("old", vec![]), "{way:?}");
    }
}

/// Many are gone at once, so that the node asks before it deletes; meanwhile one of them is there again, and cannot be read.
#[tokio::test]
async fn an_unreadable_record_that_was_gone_is_not_deleted_here() {
    let (sim, node) = written().await;
    let others: Vec<String> = (0..30).map(|n| format!("P{n:02}")).collect();
    for id in &others {
        sim.put(Kind::Person, person(id, "old"));
    }
    node.complete().await;
    sim.remove(Kind::Person, "ANA");
    for id in &others {
        sim.remove(Kind::Person, id);
    }
    node.ends(Outcome::Halted).await;
    sim.state().unreadable.push("ANA".to_owned());
    sim.put(Kind::Person, old());
    node.ends(Outcome::Halted).await;
    node.sync.accept_deletes().await.unwrap();
    assert_eq!(node.complete().await.deleted, 30);
    assert_eq!(f(node.get("ANA")), YOUNG);
    sim.state().unreadable.clear();
    node.sync.ask_for_verification().await.unwrap();
    node.complete().await;
    assert!(is_told(&node), "{:?}", node.store.read().unwrap().conflicts());
    assert_settled(&node, &sim, "ANA").await;
}

/// The centre has acknowledged the write, and the round broke off before it said that it keeps it.
#[tokio::test]
async fn a_write_without_a_seal_is_not_taken_away_without_a_word() {
    for has_history in [true, false] {
        let sim = Sim::with_history();
        sim.put(Kind::Person, old());
        let node = Node::agreed(&sim).await;
        node.set("ANA", YOUNG).await;
        let breaking = sim.clone();
        let meanwhile = async move { breaking.state().lease_faults.push_back(Fault::LostRequest) };
        sim.state().write_faults.push_back(Fault::Meanwhile(Box::pin(meanwhile)));
        node.ends(Outcome::Offline).await;
        assert_eq!(at(&sim, "ANA"), YOUNG);
        assert_eq!(node.store.read().unwrap().landed_count().unwrap(), 1, "the answer has come");
        put_back(&sim);
        if !has_history {
            sim.forget_history(0);
        }
        node.complete().await;
        match has_history {
            true => assert!(is_told(&node), "{:?}", node.store.read().unwrap().conflicts()),
            // Nobody can tell whether it was there: it is sent again.
            false => assert!(
                at(&sim, "ANA") == YOUNG || is_told(&node),
                "{:?} {:?}",
                node.store.read().unwrap().conflicts(),
                node.get("ANA")
            ),
        }
        assert_settled(&node, &sim, "ANA").await;
    }
}

/// The delete waits, because nobody can tell what it would delete, and is neither forgotten nor taken back.
#[tokio::test]
async fn a_record_that_was_deleted_here_stays_so_while_the_centres_cannot_be_read() {
    let (sim, node) = written().await;
    node.edit("ANA", None).await;
    sim.state().unreadable.push("ANA".to_owned());
    node.sync.ask_for_verification().await.unwrap();
    node.complete().await;
    for _ in 0..2 {
        assert_eq!((node.get("ANA"), node.pending(), node.dead()), (None, 1, vec![-2]));
        assert_eq!(at(&sim, "ANA"), YOUNG);
        node.complete().await;
    }
    sim.state().unreadable.clear();
    node.sync.ask_for_verification().await.unwrap();
    assert_settled(&node, &sim, "ANA").await;
    assert_eq!((node.get("ANA"), node.conflicts(), node.dead()), (None, 0, vec![]));
}
