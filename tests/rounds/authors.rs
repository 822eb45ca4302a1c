//! Who made the two versions of a conflict: said on the node and in its row at the centre, however the node came to find it.

use thalamus_edge::store::Conflict;

use super::*;

/// What a hub writes into the records that it changes.
fn by_hub(mut record: Document, at: &str) -> Document {
    record.insert("modification_info", doc! {"user": "HUBADMIN", "node": "hub", "timestamp": at});
    record
}

async fn edit_by(node: &Node, document: Document, author: Actor) {
    let key = person_key(document.get_str("_id").unwrap());
    node.store.transact(move |tx| tx.edit(&key, Some(&document), &author)).await.unwrap();
}

/// The only conflict, and its row at the centre.
fn only_conflict(node: &Node, sim: &Sim) -> (Conflict, Document) {
    let [conflict] = &node.store.read().unwrap().conflicts().unwrap()[..] else { panic!("not one conflict") };
    let row = sim.state().conflicts.get(&conflict.id).cloned().unwrap();
    (conflict.clone(), row)
}

/// Both authors of the only conflict, with the time at the centre, which its row there names too.
fn authors(node: &Node, sim: &Sim) -> (String, Option<String>, Option<String>) {
    let (conflict, row) = only_conflict(node, sim);
    assert_eq!(
        row.get_str("author").ok(),
        Some(conflict.author.as_str()).filter(|author| !author.is_empty())
    );
    assert_eq!(row.get_str("central_author").ok(), conflict.central_author.as_deref());
    assert_eq!(row.get_str("central_edited_at").ok(), conflict.central_edited_at.as_deref());
    (conflict.author, conflict.central_author, conflict.central_edited_at)
}

fn named(
    author: &Actor,
    central_author: Option<&str>,
    at: Option<&str>,
) -> (String, Option<String>, Option<String>) {
    (author.to_string(), central_author.map(str::to_owned), at.map(str::to_owned))
}

const AT: &str = "2026-11-28 10:37:51";

#[tokio::test]
async fn both_who_changed_a_password_are_named() {
    let ana = |hash: &str| doc! {"_id": "ANA", "name": "Ana", "roles": ["end_user"], "active": true, "password": hash};
    let sim = Sim::default();
    sim.put(Kind::Person, by_hub(ana("$2b$12$hash-old"), "2020-01-01 00:00:00"));
    let node = Node::agreed(&sim).await;
    let nurse = Actor::Person("NURSE1".to_owned());
    let mut here = by_hub(ana("$2b$12$hash-here"), "2020-01-01 00:00:00");
    edit_by(&node, here.clone(), nurse.clone()).await;
    here.insert("phone", "1");
    edit_by(&node, here, Actor::Person("CLERK1".to_owned())).await;
    sim.put(Kind::Person, by_hub(ana("$2b$12$hash-there"), AT));
    node.complete().await;
    assert_eq!(authors(&node, &sim), named(&nurse, Some("HUBADMIN at hub"), Some(AT)));
    let (conflict, row) = only_conflict(&node, &sim);
    assert_eq!(conflict.path, ["password"]);
    assert!(!row.to_string().contains("hash-"), "{row}");
}

/// A program that leaves no name is not taken for the one that wrote before it.
#[tokio::test]
async fn the_stamp_of_an_older_version_names_nobody() {
    let stamped = |f: &str| by_hub(person("ANA", f), AT);
    let sim = Sim::default();
    sim.put(Kind::Person, stamped("old"));
    let node = Node::agreed(&sim).await;
    let tech = Actor::Local("tech".to_owned());
    edit_by(&node, stamped("here"), tech.clone()).await;
    sim.put(Kind::Person, stamped("there"));
    node.complete().await;
    assert_eq!(authors(&node, &sim), named(&tech, None, None));
}

#[tokio::test]
async fn who_put_an_older_version_back_is_named() {
    let sim = Sim::with_history();
    sim.put(Kind::Person, person("ANA", "old"));
    let node = Node::agreed(&sim).await;
    let tech = Actor::Local("tech".to_owned());
    edit_by(&node, person("ANA", "young"), tech.clone()).await;
    node.complete().await;
    sim.remove(Kind::Person, "ANA");
    sim.put(Kind::Person, by_hub(person("ANA", "old"), AT));
    node.complete().await;
    assert_eq!(authors(&node, &sim), named(&tech, Some("HUBADMIN at hub"), Some(AT)));
}

/// The centre was set back to an older state, and what stands there is not what this node sent or has seen.
#[tokio::test]
async fn authors_are_named_at_a_restored_centre() {
    for is_sent_here in [true, false] {
        let sim = Sim::default();
        sim.put(Kind::Person, person("ANA", "old"));
        let node = Node::agreed(&sim).await;
        let records = sim.state().records.clone();
        let leases = sim.state().leases.clone();
        let tech = Actor::Local("tech".to_owned());
        if is_sent_here {
            edit_by(&node, person("ANA", "mine"), tech.clone()).await;
        } else {
            sim.put(Kind::Person, person("ANA", "theirs"));
        }
        node.complete().await;
        sim.state().records = records;
        sim.state().leases = leases;
        sim.put(Kind::Person, by_hub(person("ANA", "since then"), AT));
        node.ends(Outcome::Halted).await;
        assert!(node.sync.centre_restored().await.unwrap());
        node.complete().await;
        let (author, central_author, at) = authors(&node, &sim);
        assert_eq!(author, if is_sent_here { tech.to_string() } else { String::new() });
        assert_eq!(
            (central_author.as_deref(), at.as_deref()),
            (Some("HUBADMIN at hub"), Some(AT)),
            "{is_sent_here}"
        );
    }
}
