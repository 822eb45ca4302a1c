//! Nodes that join a centre with older data, where two programs have stored the same thing differently.

use bson::{Bson, DateTime, bson};
use thalamus_edge::domain::record::RecordKey;
use thalamus_edge::domain::value::identical;

use super::*;

fn date(text: &str) -> Bson {
    Bson::DateTime(DateTime::parse_rfc3339_str(text).unwrap())
}

/// A person and their records as a hub stores them that writes BSON dates and floats.
fn by_hub() -> Vec<(Kind, Document)> {
    let decimal: bson::Decimal128 = "36.60".parse().unwrap();
    vec![
        (
            Kind::Person,
            doc! {"_id": "ANA", "name": "José", "lastname": "O'Brien", "gender": "female",
            "dob": date("1985-10-04T00:00:00Z"), "active": true},
        ),
        (
            Kind::Page,
            doc! {"_id": "p1", "book": "ANA", "page_date": date("2026-11-28T10:37:52.360Z"), "weight": 70.0,
            "measurements": [{"bp": {"systolic": 121.0, "diastolic": 79}}, {"t": decimal}],
            "seen": "Sat, 28 Nov 2026 10:37:52 GMT"},
        ),
        (Kind::Measurement, doc! {"_id": "m1", "person": "ANA", "hr": 66}),
    ]
}

/// The same as a clinic has them that writes text and whole numbers.
fn by_clinic() -> Vec<(Kind, Document)> {
    vec![
        (
            Kind::Person,
            doc! {"_id": "ANA", "dob": "1985-10-04", "gender": "f", "lastname": "O\u{2019}BRIEN", "name": "Jose",
            "active": true},
        ),
        (
            Kind::Page,
            doc! {"_id": "p1", "page_date": "2026-11-28T10:37:52.360417", "book": "ana", "weight": 70,
            "measurements": [{"bp": {"diastolic": 79.0, "systolic": "121"}}, {"t": 36.6}],
            "seen": "2026-11-28T10:37:52"},
        ),
        (Kind::Measurement, doc! {"_id": "m1", "person": "ANA", "hr": "66"}),
    ]
}

fn key_of((kind, document): &(Kind, Document)) -> RecordKey {
    RecordKey::new(*kind, document.get_str("_id").unwrap())
}

async fn make(node: &Node, records: &[(Kind, Document)]) {
    for record in records {
        let (key, document) = (key_of(record), record.1.clone());
        let actor = Actor::Local("tech".to_owned());
        node.store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
    }
}

/// The node holds these bytes, and has nothing to send and nothing to ask.
fn assert_holds(node: &Node, records: &[(Kind, Document)]) {
    for record in records {
        let stored = node.store.read().unwrap().record(&key_of(record)).unwrap().unwrap();
        let stored = Document::try_from(stored.document.as_ref()).unwrap();
        assert!(identical(&stored.clone().into(), &record.1.clone().into()), "{stored}");
    }
    assert_eq!((node.pending(), node.conflicts()), (0, 0));
}

fn writes(sim: &Sim) -> usize {
    sim.state().writes.values().sum()
}

#[tokio::test]
async fn joining_with_data_that_means_the_same_makes_no_conflicts() {
    for (here, there) in [(by_clinic(), by_hub()), (by_hub(), by_clinic())] {
        let sim = Sim::default();
        for (kind, document) in &there {
            sim.put(*kind, document.clone());
        }
        let nodes = [Node::new(&sim), Node::new(&sim)];
        for node in &nodes {
            make(node, &here).await;
        }
        for node in nodes.iter().chain(&nodes) {
            let report = node.complete().await;
            assert_eq!((report.pushed, report.conflicts), (0, 0), "{report:?}");
            assert_holds(node, &there);
        }
        assert_eq!(writes(&sim), 0, "nothing is written by a node");
        for node in &nodes {
            let report = node.complete().await;
            assert_eq!((report.pushed, report.pulled, report.merged), (0, 0, 0), "{report:?}");
        }
    }
}

/// The first node fills the centre; the second one has the same in its own form and takes the centre's.
#[tokio::test]
async fn two_nodes_with_the_same_data_do_not_write_in_turns() {
    let sim = Sim::default();
    let (first, second) = (Node::new(&sim), Node::new(&sim));
    make(&first, &by_clinic()).await;
    make(&second, &by_hub()).await;
    first.complete().await;
    let sent = writes(&sim);
    assert_eq!(sent, by_clinic().len());
    for node in [&second, &first, &second, &first] {
        node.complete().await;
    }
    assert_eq!(writes(&sim), sent);
    // It names its person at the centre as that person is stored there.
    let mut spelled = by_clinic();
    spelled[1].1.insert("book", "ANA");
    assert_holds(&first, &spelled);
    assert_holds(&second, &spelled);
}

/// What means something else beside it is a conflict as ever, what is only here is sent, and once both have agreed on a
/// record a change of the type alone travels.
#[tokio::test]
async fn only_what_means_the_same_agrees_and_only_without_a_base() {
    let sim = Sim::default();
    for (kind, document) in by_hub() {
        sim.put(kind, document);
    }
    let node = Node::new(&sim);
    let mut records = by_clinic();
    records[1].1.insert("page_date", "2026-11-28");
    records[1].1.insert("info", "only here");
    make(&node, &records).await;
    node.complete().await;
    node.complete().await;
    let conflicts = node.store.read().unwrap().conflicts().unwrap();
    assert_eq!(conflicts.iter().map(|conflict| conflict.path.join(".")).collect::<Vec<_>>(), ["page_date"]);
    let page = sim.get(Kind::Page, "p1").unwrap();
    assert_eq!((page.get_str("info").unwrap(), page.get("weight")), ("only here", Some(&Bson::Double(70.0))));
    assert_eq!(page.get("measurements"), by_hub()[1].1.get("measurements"));

    let mut page = page;
    page.insert("weight", 70);
    make(&node, &[(Kind::Page, page.clone())]).await;
    node.complete().await;
    assert_eq!(
        sim.get(Kind::Page, "p1").unwrap().get("weight"),
        Some(&Bson::Int32(70)),
        "an edit of the type is an edit"
    );
    page.insert("weight", bson!(70_i64));
    make(&node, &[(Kind::Page, page.clone())]).await;
    sim.put(Kind::Page, {
        page.insert("weight", 70.0);
        page
    });
    node.complete().await;
    assert_eq!(node.conflicts(), 2, "with a base types count");
}

/// What a person may do is nothing that two programs merely write differently: the centre's roles stand on both nodes and at
/// the centre, and others wait for a decision.
#[tokio::test]
async fn nobody_is_given_a_role_by_joining() {
    let person = |roles: Option<Bson>| {
        let mut person = by_hub().swap_remove(0).1;
        person.extend(roles.map(|roles| ("roles".to_owned(), roles)));
        (Kind::Person, person)
    };
    let (user, nurse) = (bson!(["end_user"]), bson!(["health_professional", "end_user"]));
    let same = bson!(["end_user", "health_professional"]);
    for (here, there, is_conflict) in [
        (Some(&nurse), Some(&user), true),
        (Some(&user), Some(&nurse), true),
        (Some(&nurse), None, true),
        (None, Some(&nurse), true),
        (Some(&same), Some(&nurse), false),
    ] {
        let sim = Sim::default();
        let at_centre = person(there.cloned());
        sim.put(Kind::Person, at_centre.1.clone());
        let nodes = [Node::new(&sim), Node::new(&sim)];
        make(&nodes[0], &[person(here.cloned())]).await;
        for node in nodes.iter().chain(&nodes) {
            node.complete().await;
        }
        let key = key_of(&at_centre);
        for node in &nodes {
            let stored = node.store.read().unwrap().record(&key).unwrap().unwrap();
            let stored = Document::try_from(stored.document.as_ref()).unwrap();
            assert_eq!(stored.get("roles"), there, "{here:?}");
        }
        assert_eq!(sim.get(Kind::Person, "ANA").unwrap().get("roles"), there, "{here:?}");
        assert_eq!(nodes.each_ref().map(Node::pending), [0, 0], "{here:?}");
        let conflicts = nodes[0].store.read().unwrap().conflicts().unwrap();
        let found: Vec<_> =
            conflicts.iter().map(|c| (c.path.join("."), c.local.as_ref(), c.central.as_ref())).collect();
        let expected = is_conflict.then(|| ("roles".to_owned(), here, there));
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

/// Once both have agreed on a person, roles are a set: what each side adds is added.
#[tokio::test]
async fn roles_that_are_given_on_two_sides_of_an_agreed_person_are_both_given() {
    let sim = Sim::default();
    let mut person = by_hub().swap_remove(0).1;
    person.insert("roles", bson!(["end_user"]));
    sim.put(Kind::Person, person.clone());
    let node = Node::new(&sim);
    node.complete().await;
    person.insert("roles", bson!(["end_user", "a"]));
    make(&node, &[(Kind::Person, person.clone())]).await;
    person.insert("roles", bson!(["end_user", "b"]));
    sim.put(Kind::Person, person);
    node.complete().await;
    assert_eq!(sim.get(Kind::Person, "ANA").unwrap().get("roles"), Some(&bson!(["end_user", "b", "a"])));
    assert_eq!(node.conflicts(), 0);
}
