//! A centre that was set back to an older copy, or replaced: the node asks, and then both are brought together.
//!
//! In memory, where the moment of everything can be chosen; and over the wire, as an administrator does it.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "restored/delivered_person.rs"]
mod delivered_person;
#[path = "restored/former.rs"]
mod former;
#[path = "restored/images.rs"]
mod images;
#[path = "restored/new_edits.rs"]
mod new_edits;
#[path = "restored/passed_on.rs"]
mod passed_on;
#[path = "restored/reused.rs"]
mod reused;
#[path = "restored/set_back.rs"]
mod set_back;
#[path = "restored/written_over.rs"]
mod written_over;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, bson, doc};
use serde_json::{Value, json};
use thalamus_edge::central::Lease;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Conflict, Store, StoreOptions};
use thalamus_edge::sync::identity::Verdict;
use thalamus_edge::sync::{Outcome, Reconciler, Report, SyncSettings};

use support::federation::Federation;
use support::sim::{Fault, Sim, person};

struct Node {
    store: Store,
    sync: Arc<Reconciler>,
}

impl Node {
    fn new(sim: &Sim) -> Node {
        Node::with(Store::in_memory(options()).unwrap(), sim, SyncSettings::default())
    }

    fn on_disk(path: &Path, sim: &Sim) -> Node {
        Node::with(Store::open(path, options()).unwrap(), sim, SyncSettings::default())
    }

    fn with(store: Store, sim: &Sim, settings: SyncSettings) -> Node {
        Node { sync: Reconciler::new(store.clone(), Some(Arc::new(sim.clone())), settings), store }
    }

    async fn ends(&self, outcome: Outcome) -> Report {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, outcome, "{report:?}");
        report
    }

    async fn complete(&self) -> Report {
        self.ends(Outcome::Complete).await
    }

    async fn edit(&self, id: &str, document: Option<Document>) {
        let (key, actor) = (key(id), Actor::Local("tech".to_owned()));
        self.store.transact(move |tx| tx.edit(&key, document.as_ref(), &actor)).await.unwrap();
    }

    async fn set(&self, id: &str, f: &str) {
        self.edit(id, Some(person(id, f))).await;
    }

    fn get(&self, id: &str) -> Option<Document> {
        let record = self.store.read().unwrap().record(&key(id)).unwrap()?;
        Some(Document::try_from(record.document.as_ref()).unwrap())
    }

    fn pending(&self) -> u64 {
        self.store.read().unwrap().pending_count().unwrap()
    }

    /// The values that lost, by record.
    fn lost(&self) -> BTreeMap<String, Bson> {
        let conflicts = self.store.read().unwrap().conflicts().unwrap();
        let loser = |conflict: Conflict| (conflict.key.id.clone(), conflict.loser().cloned().unwrap());
        conflicts.into_iter().map(loser).collect()
    }

    async fn agrees(&self) {
        self.ends(Outcome::Halted).await;
        assert!(self.sync.centre_restored().await.unwrap());
    }
}

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, audit_keep_rows: 100_000, clock: || 0 }
}

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}

/// What a centre holds.
struct Copy {
    records: BTreeMap<(Kind, String), Document>,
    leases: BTreeMap<String, Lease>,
    conflicts: BTreeMap<String, Document>,
    trash: BTreeMap<String, Document>,
}

fn copy_of(sim: &Sim) -> Copy {
    let state = sim.state();
    Copy {
        records: state.records.clone(),
        leases: state.leases.clone(),
        conflicts: state.conflicts.clone(),
        trash: state.trash.clone(),
    }
}

fn restore(sim: &Sim, copy: &Copy) {
    let mut state = sim.state();
    state.records = copy.records.clone();
    state.leases = copy.leases.clone();
    state.conflicts = copy.conflicts.clone();
    state.trash = copy.trash.clone();
}

fn at(sim: &Sim, id: &str) -> Option<String> {
    sim.get(Kind::Person, id).map(|document| document.get_str("f").unwrap().to_owned())
}

async fn assert_settled(node: &Node, sim: &Sim) {
    node.complete().await;
    let report = node.complete().await;
    assert_eq!((report.pushed, report.pulled, report.merged, report.deleted), (0, 0, 0, 0), "{report:?}");
    assert_eq!(node.pending(), 0);
    let records = sim.state().records.clone();
    for ((_, id), document) in &records {
        assert_eq!(node.get(id).as_ref(), Some(document), "{id}");
    }
    assert_eq!(node.store.read().unwrap().count(Kind::Person).unwrap(), records.len() as u64);
}

#[tokio::test]
async fn the_node_asks_with_the_numbers_and_changes_nothing() {
    let sim = Sim::default();
    for n in 0..30 {
        sim.put(Kind::Person, person(&format!("P{n:02}"), "old"));
    }
    let node = Node::new(&sim);
    node.complete().await;
    let copy = copy_of(&sim);
    assert!(!node.sync.centre_restored().await.unwrap(), "there is nothing to agree to");
    for n in 0..3 {
        node.set(&format!("P{n:02}"), "sent").await;
        node.complete().await;
    }
    let number = |sim: &Sim| sim.state().leases.values().next().unwrap().number;
    let (there, here) = (copy.leases.values().next().unwrap().number, number(&sim));
    assert!(there < here);
    restore(&sim, &copy);
    node.set("NEW", "mine").await;
    let empty = Copy {
        records: BTreeMap::new(),
        leases: BTreeMap::new(),
        conflicts: BTreeMap::new(),
        trash: BTreeMap::new(),
    };
    let remembers = format!(
        "The centre is older than what this node knows of it (it confirms step {there}, and has confirmed step {here} \
         before): "
    );
    let knows_not = format!("The centre does not know this node, which has taken {here} steps with it: ");
    for (centre, words) in [(&copy, remembers), (&empty, knows_not)] {
        restore(&sim, centre);
        for _ in 0..2 {
            let report = node.ends(Outcome::Halted).await;
            assert!(report.message.starts_with(&words), "{report:?}");
            let numbers = "This node holds 31 records, and remembers 3 writes of its own that";
            assert!(report.message.contains(numbers), "{report:?}");
            assert!(report.message.contains("sync resume --centre-restored"), "{report:?}");
            let status = node.sync.status().unwrap();
            assert_eq!((status.state, status.message), ("halted", report.message));
        }
        assert!(sim.state().records == centre.records && sim.state().leases == centre.leases);
        assert_eq!((node.pending(), node.store.read().unwrap().count(Kind::Person).unwrap()), (1, 31));
    }
    // Who agreed to one state of the centre has not agreed to another.
    assert!(node.sync.centre_restored().await.unwrap());
    restore(&sim, &copy);
    node.ends(Outcome::Halted).await;
    node.ends(Outcome::Halted).await;
    assert!(node.sync.centre_restored().await.unwrap());
    node.complete().await;
    assert!(number(&sim) > here, "above both");
    assert!(!node.sync.centre_restored().await.unwrap());
    assert_settled(&node, &sim).await;
}

#[tokio::test]
async fn own_writes_are_repeated_and_what_cannot_be_told_becomes_a_conflict() {
    let sim = Sim::default();
    for id in ["OWN", "TWICE", "FOREIGN", "BOTH", "GONE", "RETURNS", "EDITED", "DROPPED", "SAME"] {
        sim.put(Kind::Person, person(id, "old"));
    }
    let node = Node::new(&sim);
    node.complete().await;
    let copy = copy_of(&sim);

    // What the centre is going to forget.
    node.set("OWN", "mine").await;
    node.set("TWICE", "first").await;
    node.set("NEW", "mine").await;
    node.edit("GONE", None).await;
    node.edit("RETURNS", None).await;
    sim.put(Kind::Person, person("FOREIGN", "theirs"));
    sim.put(Kind::Person, person("THEIRS", "new"));
    sim.remove(Kind::Person, "DROPPED");
    node.complete().await;
    node.set("TWICE", "mine").await;
    node.set("BOTH", "mine").await;
    node.complete().await;
    // What nobody has seen yet.
    node.set("EDITED", "pending").await;
    node.set("LATER", "pending").await;

    restore(&sim, &copy);
    sim.put(Kind::Person, person("BOTH", "since then"));
    sim.put(Kind::Person, person("RETURNS", "since then"));
    node.agrees().await;
    node.complete().await;
    assert_settled(&node, &sim).await;
    let expected = [
        ("OWN", Some("mine")),
        ("TWICE", Some("mine")),
        ("NEW", Some("mine")),
        ("GONE", None),
        ("RETURNS", Some("since then")),
        // Somebody else had written there, or removed it: the older copy stands, the newer value is kept.
        ("FOREIGN", Some("old")),
        ("DROPPED", Some("old")),
        ("THEIRS", Some("new")),
        ("BOTH", Some("since then")),
        ("EDITED", Some("pending")),
        ("LATER", Some("pending")),
        ("SAME", Some("old")),
    ];
    for (id, f) in expected {
        assert_eq!(at(&sim, id).as_deref(), f, "{id}");
    }
    let lost = |id: &str, value: &str| (id.to_owned(), Bson::from(value));
    assert_eq!(node.lost(), BTreeMap::from([lost("FOREIGN", "theirs"), lost("BOTH", "mine")]));
    assert_eq!(sim.state().conflicts.len(), 2);
    assert!(sim.state().trash.values().all(|row| row.get_str("state").unwrap() == "done"));
}

/// Values that only look different are no question after the centre was set back; the spelling of a name and the roles of a
/// person are, and nobody gets a role by it.
#[tokio::test]
async fn values_that_mean_the_same_are_no_question_and_spellings_and_roles_are() {
    let rows: [(&str, Bson, Bson, bool); 6] = [
        ("f", 70.into(), 70.0.into(), false),
        ("dob", "1985-10-04".into(), "1985-10-04T00:00:00Z".into(), false),
        ("gender", "f".into(), "female".into(), false),
        ("name", "José".into(), "Jose".into(), true),
        ("roles", bson!(["end_user"]), bson!(["health_professional", "end_user"]), true),
        ("roles", bson!(["a", "b"]), bson!(["b", "a"]), false),
    ];
    for (field, newer, older, is_conflict) in rows {
        let with = |value: &Bson| {
            let mut person = doc! {"_id": "P", "name": "Jose", "lastname": "Betz"};
            person.insert(field, value.clone());
            person
        };
        // Written by somebody else, and seen here.
        let sim = Sim::default();
        sim.put(Kind::Person, with(&older));
        let node = Node::new(&sim);
        let copy = copy_of(&sim);
        node.complete().await;
        sim.put(Kind::Person, with(&newer));
        node.complete().await;
        restore(&sim, &copy);
        node.agrees().await;
        assert_settled(&node, &sim).await;
        assert_eq!(sim.get(Kind::Person, "P"), Some(with(&older)), "{field}: the centre's stands");
        let expected = is_conflict.then(|| ("P".to_owned(), newer.clone()));
        assert_eq!(node.lost(), expected.into_iter().collect::<BTreeMap<_, _>>(), "{field}");

        // Written here and sent, together with another field that is still there.
        let sim = Sim::default();
        sim.put(Kind::Person, doc! {"_id": "P", "name": "Jo", "lastname": "Betz"});
        let node = Node::new(&sim);
        let copy = copy_of(&sim);
        node.complete().await;
        let mut written = with(&newer);
        written.insert("phone", "1");
        node.edit("P", Some(written)).await;
        node.complete().await;
        restore(&sim, &copy);
        let mut changed = with(&older);
        changed.insert("phone", "1");
        sim.put(Kind::Person, changed.clone());
        node.agrees().await;
        assert_settled(&node, &sim).await;
        assert_eq!(sim.get(Kind::Person, "P"), Some(changed), "{field}, sent: the centre's stands");
        let expected = is_conflict.then(|| ("P".to_owned(), newer.clone()));
        assert_eq!(node.lost(), expected.into_iter().collect::<BTreeMap<_, _>>(), "{field}, sent");
    }
}

/// Each node remembers what it wrote itself; together they bring back what both knew.
#[tokio::test]
async fn two_nodes_and_a_centre_come_together() {
    let sim = Sim::default();
    for id in ["NORTH", "SOUTH", "BOTH"] {
        sim.put(Kind::Person, person(id, "old"));
    }
    let (north, south) = (Node::new(&sim), Node::new(&sim));
    for node in [&north, &south] {
        node.complete().await;
    }
    let copy = copy_of(&sim);
    north.set("NORTH", "north").await;
    north.set("BOTH", "north").await;
    north.set("MADE", "north").await;
    north.complete().await;
    south.complete().await;
    south.set("SOUTH", "south").await;
    south.edit("BOTH", Some(doc! {"_id": "BOTH", "f": "north", "g": "south"})).await;
    south.complete().await;
    north.complete().await;
    restore(&sim, &copy);
    south.agrees().await;
    south.complete().await;
    north.agrees().await;
    for _ in 0..2 {
        north.complete().await;
        south.complete().await;
    }
    assert_settled(&north, &sim).await;
    assert_settled(&south, &sim).await;
    assert_eq!(sim.get(Kind::Person, "BOTH"), Some(doc! {"_id": "BOTH", "f": "north", "g": "south"}));
    assert_eq!(at(&sim, "SOUTH").as_deref(), Some("south"));
    assert_eq!(at(&sim, "NORTH").as_deref(), Some("north"));
    assert_eq!(at(&sim, "MADE").as_deref(), Some("north"));
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_out() {
    for (fault, is_landed) in [(Fault::LostAnswer, true), (Fault::LostRequest, false)] {
        let sim = Sim::default();
        sim.put(Kind::Person, person("OWN", "old"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("store");
        let node = Node::on_disk(&file, &sim);
        node.complete().await;
        let copy = copy_of(&sim);
        node.set("OWN", "mine").await;
        node.complete().await;
        restore(&sim, &copy);
        node.agrees().await;
        sim.state().lease_faults.push_back(fault);
        node.ends(Outcome::Offline).await;
        assert_eq!(sim.state().leases != copy.leases, is_landed);
        drop(node);
        let node = Node::on_disk(&file, &sim);
        node.complete().await;
        assert_settled(&node, &sim).await;
        assert_eq!((at(&sim, "OWN").as_deref(), node.lost().len()), (Some("mine"), 0));
        assert_eq!(sim.state().leases.len(), 1);
    }
}

/// While a long sweep goes on, edits travel; and whoever writes at the centre meanwhile has seen what was
/// brought there, and is not overwritten.
#[tokio::test]
async fn edits_do_not_wait_and_later_changes_at_the_centre_stand() {
    let sim = Sim::default();
    let id = |n: usize| format!("P{n:04}");
    for n in 0..1000 {
        sim.put(Kind::Person, person(&id(n), "old"));
    }
    sim.state().line_bytes_per_document = 1000;
    let settings = SyncSettings { scan_bytes_per_round: 200_000, ..SyncSettings::default() };
    let node = Node::with(Store::in_memory(options()).unwrap(), &sim, settings);
    while node.sync.round().await.outcome != Outcome::Complete {}
    let copy = copy_of(&sim);
    for n in (0..1000).step_by(100) {
        node.set(&id(n), "mine").await;
    }
    while node.sync.round().await.outcome != Outcome::Complete {}
    restore(&sim, &copy);
    // The sweep comes to this one last.
    node.edit(&id(999), Some(doc! {"_id": id(999), "f": "old", "g": "pending"})).await;
    node.set(&id(900), "pending").await;
    node.agrees().await;
    let report = node.ends(Outcome::Partial).await;
    assert!(
        report.message.starts_with("This node and the restored centre are brought together: "),
        "{report:?}"
    );
    assert_eq!(sim.get(Kind::Person, &id(999)), Some(doc! {"_id": id(999), "f": "old", "g": "pending"}));
    assert_eq!(at(&sim, &id(900)).as_deref(), Some("pending"));
    // Back to what it was, by somebody who has seen it.
    sim.put(Kind::Person, person(&id(900), "old"));
    sim.put(Kind::Person, person(&id(999), "old"));
    let mut rounds = 0;
    while node.sync.round().await.outcome != Outcome::Complete {
        rounds += 1;
        assert!(rounds < 20);
    }
    assert!(rounds > 0);
    while node.sync.round().await.outcome != Outcome::Complete {}
    assert_eq!(sim.get(Kind::Person, &id(900)), Some(person(&id(900), "old")));
    assert_eq!(sim.get(Kind::Person, &id(999)), Some(person(&id(999), "old")));
    for n in (0..900).step_by(100) {
        assert_eq!(at(&sim, &id(n)).as_deref(), Some("mine"), "{n}");
    }
    assert_eq!((node.lost().len(), node.pending()), (0, 0));
    // From now on everything is as usual: what changes there is taken.
    sim.put(Kind::Person, person(&id(0), "theirs"));
    while node.sync.round().await.outcome != Outcome::Complete {}
    assert_eq!(node.get(&id(0)), Some(person(&id(0), "theirs")));
    assert_eq!(node.lost().len(), 0);
}

#[tokio::test]
async fn an_empty_centre_is_filled_again() {
    let sim = Sim::default();
    for n in 0..100 {
        sim.put(Kind::Person, person(&format!("P{n:02}"), "old"));
    }
    let node = Node::new(&sim);
    node.complete().await;
    let before = copy_of(&sim);
    let empty = Copy {
        records: BTreeMap::new(),
        leases: BTreeMap::new(),
        conflicts: BTreeMap::new(),
        trash: BTreeMap::new(),
    };
    restore(&sim, &empty);
    node.agrees().await;
    let report = node.complete().await;
    assert_eq!((report.pushed, report.deleted), (100, 0));
    assert_settled(&node, &sim).await;
    assert!(sim.state().records == before.records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_centre_is_restored_from_a_copy_of_its_collections() {
    let mut federation = Federation::start(&["north", "south"]).await;
    let person = |id: &str| doc! {"_id": id, "name": id, "phone": "1", "address": "a", "active": false};
    let people = ["ANA", "BOB", "CLO", "DAN", "EVA"].map(person);
    federation.centre("people").insert_many(people).await.unwrap();
    federation.rounds(1).await;
    let mut copy = Vec::new();
    for collection in ["people", "edge_nodes"] {
        copy.push((collection, federation.rows(collection, doc! {}).await));
    }
    let [north, south] = &federation.nodes[..] else { panic!() };
    north.patch("/people/ANA", json!({"phone": "north"})).await;
    north.done("DELETE", "/people/DAN", None).await;
    north.done("POST", "/people/NEW01", Some(&json!({"name": "Nueva"}))).await;
    south.patch("/people/BOB", json!({"phone": "south"})).await;
    federation.legacy_set("people", "CLO", doc! {"phone": "legacy"}).await;
    federation.rounds(2).await;

    for (collection, rows) in &copy {
        federation.centre(collection).drop().await.unwrap();
        federation.centre(collection).insert_many(rows).await.unwrap();
    }
    let [north, south] = &federation.nodes[..] else { panic!() };
    north.patch("/people/EVA", json!({"address": "pending"})).await;
    for node in [north, south] {
        let report = node.try_round().await.unwrap();
        assert_eq!((&report["outcome"], &report["pushed"]), (&json!("halted"), &json!(0)), "{report}");
        println!("{}: {}", node.name, report["message"]);
        let status = node.get("/sync/status").await;
        assert_eq!((&status["state"], &status["message"]), (&json!("halted"), &report["message"]));
        let agreed = node.operator("POST", "/sync/resume", Some(&json!({"centre_restored": true}))).await;
        assert_eq!(agreed.status, 204);
    }
    assert_eq!(federation.at_centre("people", "ANA").await.unwrap().get_str("phone").unwrap(), "1");
    for report in federation.rounds(2).await {
        println!("{report}");
    }
    for node in &federation.nodes {
        let again = node.operator("POST", "/sync/resume", Some(&json!({"centre_restored": true}))).await;
        assert_eq!(again.status, 409);
    }
    federation.converge().await;
    let phone = async |id: &str| {
        federation.at_centre("people", id).await.map(|p| p.get_str("phone").unwrap().to_owned())
    };
    assert_eq!(phone("ANA").await.as_deref(), Some("north"));
    assert_eq!(phone("BOB").await.as_deref(), Some("south"));
    assert_eq!(phone("CLO").await.as_deref(), Some("1"));
    assert_eq!(phone("DAN").await, None);
    let eva = federation.at_centre("people", "EVA").await.unwrap();
    assert_eq!(eva.get_str("address").unwrap(), "pending");
    assert!(federation.at_centre("people", "NEW01").await.is_some());
    // What the legacy application wrote is kept by whoever had seen it.
    let conflicts = federation.nodes[0].get("/sync/conflicts?status=open").await;
    let about: Vec<(&Value, &Value)> =
        conflicts.as_array().unwrap().iter().map(|c| (&c["record"], &c["local"])).collect();
    assert_eq!(about, [(&json!("CLO"), &json!("legacy"))]);
    federation.compare_stores().await;
}

/// The process may die at any moment of it.
#[tokio::test]
async fn a_store_that_is_opened_again_goes_on() {
    let sim = Sim::default();
    let id = |n: usize| format!("P{n:03}");
    for n in 0..300 {
        sim.put(Kind::Person, person(&id(n), "old"));
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    let node = Node::on_disk(&file, &sim);
    node.complete().await;
    let copy = copy_of(&sim);
    for n in 0..300 {
        node.set(&id(n), "mine").await;
    }
    node.complete().await;
    restore(&sim, &copy);
    node.agrees().await;
    drop(node);
    let mut rounds = 0;
    loop {
        let node = Node::on_disk(&file, &sim);
        // Each time the line is cut a little later.
        let nothing = || Fault::Meanwhile(Box::pin(async {}));
        let faults = (0..rounds).map(|_| nothing()).chain([Fault::LostRequest]).collect();
        sim.state().scan_faults = faults;
        let outcome = node.sync.round().await.outcome;
        rounds += 1;
        if outcome == Outcome::Complete {
            break;
        }
        assert!(rounds < 40);
    }
    assert!(rounds > 3, "{rounds}");
    let node = Node::on_disk(&file, &sim);
    sim.state().scan_faults.clear();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_settled(&node, &sim).await;
    assert!((0..300).all(|n| at(&sim, &id(n)).as_deref() == Some("mine")));
    assert_eq!(node.lost().len(), 0);
}
