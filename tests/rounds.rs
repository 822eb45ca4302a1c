//! Rounds against a centre in memory: the faults that a real server cannot be made to have at the right
//! moment. The same rounds run over the wire in `reconcile.rs` and `crash.rs`.

#![allow(clippy::unwrap_used)]

#[path = "rounds/authors.rs"]
mod authors;
#[path = "rounds/large.rs"]
mod large;
#[path = "rounds/new_people.rs"]
mod new_people;
#[path = "rounds/people_first.rs"]
mod people_first;
#[path = "rounds/put_back.rs"]
mod put_back;
#[path = "rounds/said.rs"]
mod said;
#[path = "rounds/same_meaning.rs"]
mod same_meaning;
mod support;
#[path = "rounds/sweeps.rs"]
mod sweeps;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use thalamus_edge::central::Hub;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Store, StoreOptions, TrashState};
use thalamus_edge::sync::schedule::{Schedule, Times};
use thalamus_edge::sync::{Outcome, Reconciler, Report, SyncSettings};

use support::sim::{Fault, Sim, WITHOUT_FEED, person, person_key};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, audit_keep_rows: 100_000, clock: || 0 };

struct Node {
    store: Store,
    sync: Arc<Reconciler>,
}

impl Node {
    fn new(sim: &Sim) -> Node {
        Node::with(Store::in_memory(OPTIONS).unwrap(), sim, Duration::from_secs(60))
    }

    fn on_disk(path: &Path, sim: &Sim) -> Node {
        Node::with(Store::open(path, OPTIONS).unwrap(), sim, Duration::from_secs(60))
    }

    fn with(store: Store, sim: &Sim, round_timeout: Duration) -> Node {
        let settings = SyncSettings { round_timeout, ..SyncSettings::default() };
        let hub: Arc<dyn Hub> = Arc::new(sim.clone());
        Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store }
    }

    /// A node that agrees with the centre.
    async fn agreed(sim: &Sim) -> Node {
        let node = Node::new(sim);
        node.complete().await;
        node
    }

    async fn complete(&self) -> Report {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
        report
    }

    async fn ends(&self, outcome: Outcome) -> Report {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, outcome, "{report:?}");
        report
    }

    async fn edit(&self, id: &str, document: Option<Document>) {
        edit(&self.store, id, document).await;
    }

    async fn set(&self, id: &str, f: &str) {
        self.edit(id, Some(person(id, f))).await;
    }

    fn get(&self, id: &str) -> Option<Document> {
        let record = self.store.read().unwrap().record(&person_key(id)).unwrap()?;
        Some(Document::try_from(record.document.as_ref()).unwrap())
    }

    fn pending(&self) -> u64 {
        self.store.read().unwrap().pending_count().unwrap()
    }

    fn conflicts(&self) -> usize {
        self.store.read().unwrap().conflicts().unwrap().len()
    }

    fn dead(&self) -> Vec<i32> {
        self.store.read().unwrap().dead_letters().unwrap().into_iter().map(|letter| letter.code).collect()
    }
}

async fn edit(store: &Store, id: &str, document: Option<Document>) {
    let key = person_key(id);
    let actor = Actor::Local("tech".to_owned());
    store.transact(move |tx| tx.edit(&key, document.as_ref(), &actor)).await.unwrap();
}

/// Somebody of the node writes a record of any kind.
async fn write(store: &Store, kind: Kind, document: Document) {
    let key = RecordKey::new(kind, document.get_str("_id").unwrap());
    let actor = Actor::Local("tech".to_owned());
    store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
}

fn f(document: Option<Document>) -> String {
    document.unwrap().get_str("f").unwrap().to_owned()
}

fn at(sim: &Sim, id: &str) -> String {
    f(sim.get(Kind::Person, id))
}

/// Both sides are the same and nothing is left to do.
async fn assert_settled(node: &Node, sim: &Sim, id: &str) {
    node.complete().await;
    let report = node.complete().await;
    assert_eq!((report.pushed, report.pulled, report.merged), (0, 0, 0), "{report:?}");
    assert_eq!(node.get(id), sim.get(Kind::Person, id));
    assert_eq!(node.pending(), 0);
    assert!(node.store.read().unwrap().intents().unwrap().is_empty());
}

#[tokio::test]
async fn an_edit_during_the_push_is_not_taken_for_pushed() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    let node = Node::agreed(&sim).await;
    node.set("ANA", "sent").await;
    let store = node.store.clone();
    let meanwhile = async move { edit(&store, "ANA", Some(person("ANA", "later"))).await };
    sim.state().write_faults.push_back(Fault::Meanwhile(Box::pin(meanwhile)));
    node.complete().await;
    assert_eq!((at(&sim, "ANA").as_str(), f(node.get("ANA")).as_str()), ("sent", "later"));
    assert_eq!(node.pending(), 1);
    assert_settled(&node, &sim, "ANA").await;
    assert_eq!((at(&sim, "ANA").as_str(), node.conflicts()), ("later", 0));
}

#[tokio::test]
async fn an_edit_between_read_and_merge_is_merged_not_overwritten() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    let node = Node::agreed(&sim).await;
    sim.put(Kind::Person, doc! {"_id": "ANA", "f": "old", "g": "theirs"});
    let store = node.store.clone();
    let meanwhile = async move { edit(&store, "ANA", Some(person("ANA", "mine"))).await };
    // Institutions and units come before the people.
    let nothing = || Fault::Meanwhile(Box::pin(async {}));
    sim.state().scan_faults.extend([nothing(), nothing(), Fault::Meanwhile(Box::pin(meanwhile))]);
    node.complete().await;
    assert_settled(&node, &sim, "ANA").await;
    assert_eq!(sim.get(Kind::Person, "ANA"), Some(doc! {"_id": "ANA", "f": "mine", "g": "theirs"}));
}

#[tokio::test]
async fn a_lost_answer_is_found_out_and_nothing_is_written_twice() {
    for fault in [|| Fault::LostAnswer, || Fault::LostRequest] {
        let sim = Sim::default();
        sim.put(Kind::Person, person("ANA", "old"));
        sim.put(Kind::Person, person("BOB", "old"));
        let node = Node::agreed(&sim).await;
        node.set("ANA", "new").await;
        node.set("NEW", "new").await;
        sim.state().write_faults.push_back(fault());
        node.ends(Outcome::Offline).await;
        // More happens before the next round: here, and there.
        node.set("ANA", "newer").await;
        node.edit("BOB", None).await;
        assert_settled(&node, &sim, "ANA").await;
        assert_eq!((at(&sim, "ANA").as_str(), at(&sim, "NEW").as_str()), ("newer", "new"));
        assert_eq!(sim.get(Kind::Person, "BOB"), None);
        assert_eq!((node.conflicts(), sim.state().writes["NEW"]), (0, 1));
    }
}

#[tokio::test]
async fn a_lost_answer_and_somebody_who_overwrote_it() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    let node = Node::agreed(&sim).await;
    node.set("ANA", "mine").await;
    sim.state().write_faults.push_back(Fault::LostAnswer);
    node.ends(Outcome::Offline).await;
    sim.put(Kind::Person, person("ANA", "theirs"));
    assert_settled(&node, &sim, "ANA").await;
    // Whether they saw it cannot be told, so the value is kept for somebody to look at.
    assert_eq!((at(&sim, "ANA").as_str(), node.conflicts()), ("theirs", 1));
}

/// The write landed, its answer was lost, it was undone here, and somebody who saw it wrote over it: the
/// undo is an edit that lost, not one that never happened.
#[tokio::test]
async fn an_undo_after_a_lost_answer_is_kept_as_a_conflict() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    let node = Node::agreed(&sim).await;
    node.set("ANA", "new").await;
    sim.state().write_faults.push_back(Fault::LostAnswer);
    node.ends(Outcome::Offline).await;
    assert_eq!(at(&sim, "ANA"), "new");
    node.set("ANA", "old").await;
    sim.put(Kind::Person, person("ANA", "theirs"));
    assert_settled(&node, &sim, "ANA").await;
    assert_eq!((at(&sim, "ANA").as_str(), node.conflicts()), ("theirs", 1));
}

/// The same for a record that was new: deleted here after the lost answer, edited there.
#[tokio::test]
async fn a_delete_after_a_lost_answer_is_kept_as_a_conflict() {
    let sim = Sim::default();
    let node = Node::new(&sim);
    node.edit("NEW", Some(person("NEW", "mine"))).await;
    sim.state().write_faults.push_back(Fault::LostAnswer);
    node.ends(Outcome::Offline).await;
    node.edit("NEW", None).await;
    sim.put(Kind::Person, person("NEW", "theirs"));
    assert_settled(&node, &sim, "NEW").await;
    assert_eq!((at(&sim, "NEW").as_str(), node.conflicts()), ("theirs", 1));
}

#[tokio::test]
async fn a_late_write_cannot_undo_a_newer_one() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    let node = Node::agreed(&sim).await;
    node.set("ANA", "first").await;
    sim.state().write_faults.push_back(Fault::Late);
    node.ends(Outcome::Offline).await;
    node.set("ANA", "second").await;
    node.complete().await;
    assert_eq!(at(&sim, "ANA"), "second");
    sim.deliver();
    assert_settled(&node, &sim, "ANA").await;
    assert_eq!(at(&sim, "ANA"), "second");
}

#[tokio::test]
async fn somebody_who_is_always_ahead_does_not_make_a_round_complete() {
    let sim = Sim::default();
    let roles = |roles: &[&str]| doc! {"_id": "ANA", "roles": roles};
    sim.put(Kind::Person, roles(&["a"]));
    let node = Node::agreed(&sim).await;
    node.edit("ANA", Some(roles(&["a", "mine"]))).await;
    for turn in [&["a", "b"][..], &["a", "b", "c"], &["b", "c", "d"]] {
        let (other, ahead) = (sim.clone(), roles(turn));
        let ahead = async move { other.put(Kind::Person, ahead) };
        sim.state().write_faults.push_back(Fault::Before(Box::pin(ahead)));
    }
    let report = node.ends(Outcome::Partial).await;
    assert_eq!((report.pushed, node.pending()), (0, 1), "{report:?}");
    assert_eq!(node.get("ANA"), Some(roles(&["b", "c", "d", "mine"])));
    assert_settled(&node, &sim, "ANA").await;
    assert_eq!(sim.get(Kind::Person, "ANA"), Some(roles(&["b", "c", "d", "mine"])));
    assert_eq!(node.conflicts(), 0);
}

#[tokio::test]
async fn a_lost_answer_to_the_lease_is_not_taken_for_a_clone() {
    let sim = Sim::default();
    let node = Node::new(&sim);
    for fault in [Fault::LostAnswer, Fault::LostRequest, Fault::LostAnswer] {
        sim.state().lease_faults.push_back(fault);
        node.ends(Outcome::Offline).await;
    }
    node.complete().await;
    sim.state().lease_faults.push_back(Fault::LostAnswer);
    node.ends(Outcome::Offline).await;
    node.complete().await;
    assert_eq!(sim.state().leases.len(), 1);
}

/// Three faults with one code refuse a record; another code, or an answer between them, begins anew.
#[tokio::test]
async fn the_same_fault_again_and_again_is_a_refusal() {
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    node.set("BAD", "mine").await;
    node.set("GOOD", "mine").await;
    let dead = || node.sync.status().unwrap().dead;
    for (code, refused) in [(8, 0), (8, 0), (96, 0), (96, 0), (96, 1)] {
        sim.state().faulty = vec![("BAD".to_owned(), code)];
        node.sync.round().await;
        assert_eq!(dead(), refused, "{code}");
    }
    assert!(sim.get(Kind::Person, "GOOD").is_some() && sim.get(Kind::Person, "BAD").is_none());
    let letter = node.store.read().unwrap().dead_letters().unwrap().remove(0);
    assert_eq!((letter.code, letter.reason.as_str()), (96, "the centre answered 3 times with error 96"));
    // Tried again by hand, it begins anew, and lands once the centre takes it.
    node.set("BAD", "again").await;
    node.sync.round().await;
    assert_eq!(dead(), 0);
    sim.state().faulty.clear();
    node.sync.round().await;
    node.complete().await;
    assert_settled(&node, &sim, "BAD").await;
}

/// A batch that fails as a whole is sent in parts: what is good in it arrives in the same round, and one record that
/// fails alone is refused in the end.
#[tokio::test]
async fn a_batch_that_fails_together_is_sent_apart() {
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    for number in 0..9 {
        node.set(&format!("P{number}"), "mine").await;
    }
    sim.state().batch_writes_max = Some(2);
    node.complete().await;
    for number in 0..9 {
        assert_settled(&node, &sim, &format!("P{number}")).await;
    }
    for number in 0..9 {
        node.set(&format!("P{number}"), "newer").await;
    }
    sim.state().batch_breakers = vec!["P4".to_owned()];
    let dead = || node.sync.status().unwrap().dead;
    node.ends(Outcome::Partial).await;
    for number in (0..9).filter(|number| *number != 4) {
        let stored = sim.get(Kind::Person, &format!("P{number}")).unwrap();
        assert_eq!(stored.get_str("f").unwrap(), "newer");
    }
    // Of one alone nobody can tell: it fails, is said, and refused only while others go through.
    node.ends(Outcome::Failed).await;
    assert_eq!(dead(), 0);
    for round in 0..2 {
        node.set("P5", &format!("{round}")).await;
        node.set("P6", &format!("{round}")).await;
        node.sync.round().await;
    }
    assert_eq!(dead(), 1);
    // If everything fails, it is the centre.
    let all = (0..9).filter(|number| *number != 4).map(|number| format!("P{number}"));
    sim.state().batch_breakers = all.clone().collect();
    for id in all {
        node.set(&id, "newest").await;
    }
    for _ in 0..4 {
        node.ends(Outcome::Failed).await;
    }
    assert_eq!(dead(), 1);
    sim.state().batch_breakers.clear();
    node.sync.round().await;
    assert_eq!((at(&sim, "P5"), at(&sim, "P8")), ("newest".to_owned(), "newest".to_owned()));
    assert_eq!((at(&sim, "P4"), dead()), ("mine".to_owned(), 1));
}

#[tokio::test]
async fn a_copy_of_a_node_enrols_as_a_new_one_and_loses_nothing() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    {
        let node = Node::on_disk(&first, &sim);
        node.complete().await;
        node.set("ANA", "before the copy").await;
        sim.state().write_faults.push_back(Fault::LostRequest);
        node.ends(Outcome::Offline).await;
    }
    std::fs::copy(&first, &second).unwrap();
    let (first, second) = (Node::on_disk(&first, &sim), Node::on_disk(&second, &sim));
    first.complete().await;
    second.edit("ANA", Some(doc! {"_id": "ANA", "f": "before the copy", "g": "by the copy"})).await;
    second.complete().await;
    assert_eq!(sim.state().leases.len(), 2);
    let id = |node: &Node| node.sync.status().unwrap().node;
    assert_ne!(id(&first), id(&second));
    assert_settled(&first, &sim, "ANA").await;
    assert_settled(&second, &sim, "ANA").await;
    assert_eq!(
        sim.get(Kind::Person, "ANA").unwrap(),
        doc! {"_id": "ANA", "f": "before the copy", "g": "by the copy"}
    );
}

#[tokio::test]
async fn a_restored_or_replaced_centre_halts_the_node() {
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    node.complete().await;
    node.set("NEW", "mine").await;
    let current = sim.state().leases.clone();
    let older = current.iter().map(|(node, lease)| {
        let mut lease = lease.clone();
        (lease.number, lease.nonce) = (1, "older".to_owned());
        (node.clone(), lease)
    });
    for leases in [Default::default(), older.collect()] {
        sim.state().leases = leases;
        node.ends(Outcome::Halted).await;
        assert_eq!(sim.get(Kind::Person, "NEW"), None);
        assert_eq!(node.sync.status().unwrap().state, "halted");
    }
    sim.state().leases = current.clone();
    sim.state().revoked = current.into_keys().collect();
    node.ends(Outcome::Halted).await;
    assert_eq!(node.sync.status().unwrap().state, "revoked");
    sim.state().revoked.clear();
    node.complete().await;
    assert_eq!(node.sync.status().unwrap().state, "idle");
    assert_eq!(at(&sim, "NEW"), "mine");
}

#[tokio::test]
async fn a_refused_record_holds_up_no_other_and_is_tried_again_when_it_changes() {
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    sim.state().refused.push("BAD".to_owned());
    for id in ["AAA", "BAD", "CCC"] {
        node.set(id, "1").await;
    }
    let report = node.complete().await;
    assert_eq!((report.pushed, report.dead), (2, 1));
    assert_eq!((node.dead(), node.pending()), (vec![121], 1));
    sim.state().refused.clear();
    assert_eq!(node.complete().await.pushed, 0, "not worth repeating as it is");
    node.set("BAD", "2").await;
    assert_eq!(node.complete().await.pushed, 1);
    assert_eq!((node.dead(), node.pending()), (vec![], 0));
}

#[tokio::test]
async fn refused_pushes_are_tried_again_by_a_verification_pass() {
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    sim.state().refused.push("BAD".to_owned());
    node.set("BAD", "1").await;
    node.complete().await;
    sim.state().refused.clear();
    for _ in 0..3 {
        assert_eq!(node.complete().await.pushed, 0, "not before");
    }
    // One that does not get through is due in the next round.
    node.sync.ask_for_verification().await.unwrap();
    sim.state().lease_faults.push_back(Fault::LostRequest);
    node.ends(Outcome::Offline).await;
    assert_eq!(node.complete().await.pushed, 1);
    assert_eq!(node.pending(), 0);
    // It was done once.
    sim.state().refused.push("BAD".to_owned());
    node.set("BAD", "2").await;
    assert_eq!(node.complete().await.dead, 1);
    sim.state().refused.clear();
    assert_eq!(node.complete().await.pushed, 0);
}

#[tokio::test]
async fn verification_has_a_schedule_of_its_own() {
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    sim.state().refused.push("BAD".to_owned());
    node.set("BAD", "1").await;
    node.complete().await;
    sim.state().refused.clear();
    let never = "0 0 0 29 2 *";
    let start = |rounds, verification| {
        Schedule::start(
            Arc::clone(&node.sync),
            Times { rounds, rounds_without_feed: rounds, verification, jitter: Duration::ZERO },
        )
    };
    let schedule = start("* * * * * *", "").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    schedule.stop().await;
    assert_eq!(node.pending(), 1, "no round by itself is a verification pass");
    let schedule = start(never, "* * * * * *").await.unwrap();
    let started = std::time::Instant::now();
    while node.pending() > 0 {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    schedule.stop().await;
    assert!(start(never, "weekly").await.is_err());
}

/// Where every round reads everything, rounds come by another schedule, as soon as that is known.
#[tokio::test]
async fn a_centre_without_a_change_feed_has_a_schedule_of_its_own() {
    let times = Times {
        rounds: "* * * * * *",
        rounds_without_feed: "0 0 0 29 2 *",
        verification: "",
        jitter: Duration::ZERO,
    };
    for (sim, has_feed) in [(Sim::default(), false), (Sim::with_history(), true)] {
        sim.put(Kind::Person, person("ANA", "old"));
        let node = Node::new(&sim);
        let schedule = Schedule::start(Arc::clone(&node.sync), times).await.unwrap();
        let started = std::time::Instant::now();
        while node.get("ANA").is_none() {
            assert!(started.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sim.put(Kind::Person, person("BOB", "old"));
        tokio::time::sleep(Duration::from_millis(2500)).await;
        schedule.stop().await;
        assert_eq!(node.get("BOB").is_some(), has_feed);
        let status = node.sync.status().unwrap();
        assert_eq!(status.change_feed, has_feed);
        assert_eq!(status.next_round_at.unwrap().contains("-02-29T"), !has_feed);
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_archived_is_not_deleted() {
    let sim = Sim::default();
    for id in ["AAA", "BAD", "CCC"] {
        sim.put(Kind::Person, person(id, "old"));
    }
    let node = Node::agreed(&sim).await;
    sim.state().not_archived.push("BAD".to_owned());
    for id in ["AAA", "BAD", "CCC"] {
        node.edit(id, None).await;
    }
    // It is no lasting fault until it has been there in three rounds; the others do not wait.
    for expected in [(2, 0), (0, 0), (0, 1)] {
        let report = node.sync.round().await;
        assert_eq!((report.pushed, report.dead), expected, "{report:?}");
    }
    node.complete().await;
    assert!(sim.get(Kind::Person, "BAD").is_some());
    assert!(sim.get(Kind::Person, "AAA").is_none() && sim.get(Kind::Person, "CCC").is_none());
    assert!(sim.state().trash.values().all(|row| row.get_str("state").unwrap() == "done"));
    // The record itself is still pending, and seen to be.
    assert_eq!((node.dead(), node.pending()), (vec![-3], 1));
}

#[tokio::test]
async fn a_conflict_that_the_centre_does_not_take_holds_up_nothing() {
    let sim = Sim::default();
    for id in ["AAA", "BAD", "CCC"] {
        sim.put(Kind::Person, person(id, "old"));
    }
    let node = Node::agreed(&sim).await;
    sim.state().conflicts_refused_about.push("BAD".to_owned());
    for id in ["AAA", "BAD", "CCC"] {
        node.set(id, "mine").await;
        sim.put(Kind::Person, person(id, "theirs"));
    }
    node.set("NEW", "mine").await;
    let report = node.complete().await;
    assert_eq!((report.conflicts, report.pushed), (3, 1));
    assert_eq!((node.conflicts(), sim.state().conflicts.len()), (3, 2));
    sim.state().conflicts_refused_about.clear();
    node.complete().await;
    assert_eq!(sim.state().conflicts.len(), 3);
}

#[tokio::test]
async fn an_unreadable_document_is_left_alone_and_shown_until_it_can_be_read() {
    let sim = Sim::default();
    for id in ["AAA", "BAD", "CCC"] {
        sim.put(Kind::Person, person(id, "old"));
    }
    let node = Node::agreed(&sim).await;
    node.set("BAD", "mine").await;
    node.set("CCC", "mine").await;
    sim.state().write_faults.push_back(Fault::LostRequest);
    node.ends(Outcome::Offline).await;
    sim.state().unreadable.extend(["BAD".to_owned(), "AAA".to_owned()]);
    let report = node.complete().await;
    assert_eq!((report.pushed, report.dead), (1, 2), "{report:?}");
    assert_eq!(node.dead(), [-2, -2]);
    assert_eq!((f(node.get("AAA")).as_str(), at(&sim, "CCC").as_str()), ("old", "mine"));
    assert_eq!(node.complete().await.dead, 0, "said once");
    sim.state().unreadable.clear();
    assert_settled(&node, &sim, "BAD").await;
    assert_eq!((at(&sim, "BAD").as_str(), node.dead()), ("mine", vec![]));
}

#[tokio::test]
async fn a_sweep_spans_rounds_and_deletes_are_counted_over_all_of_it() {
    let sim = Sim::default();
    let id = |n: usize| format!("P{n:04}");
    for n in 0..1500 {
        sim.put(Kind::Person, person(&id(n), "old"));
    }
    sim.state().scan_delay = Duration::from_millis(40);
    let node = Node::with(Store::in_memory(OPTIONS).unwrap(), &sim, Duration::from_millis(1000));
    node.set("LOCAL", "mine").await;
    let mut partial = 0;
    let mut complete = false;
    while !complete {
        // What is edited here does not wait for the end of the sweep, but for people who are new.
        let edited = doc! {"_id": "I1", "turn": partial as i64};
        write(&node.store, Kind::Institution, edited.clone()).await;
        let report = node.sync.round().await;
        assert_eq!(sim.get(Kind::Institution, "I1"), Some(edited), "{report:?}");
        complete = report.outcome == Outcome::Complete;
        assert_eq!(sim.get(Kind::Person, "LOCAL").is_some(), complete, "{report:?}");
        partial += usize::from(!complete);
        assert!(
            complete || (report.outcome == Outcome::Partial && report.message.contains('%')),
            "{report:?}"
        );
        if partial == 1 {
            sim.state().scan_delay = Duration::from_millis(200);
        }
        assert!(partial < 20);
    }
    println!("{partial} partial rounds");
    assert!(partial > 0);
    assert_eq!(node.store.read().unwrap().count(Kind::Person).unwrap(), 1501);

    // A few are gone in every part of the sweep: too many together.
    for n in (0..1500).step_by(50) {
        sim.remove(Kind::Person, &id(n));
    }
    let mut halted = 0;
    for _ in 0..8 {
        let report = node.sync.round().await;
        assert_eq!(report.deleted, 0, "{report:?}");
        halted += usize::from(report.outcome == Outcome::Halted);
        assert_ne!(report.outcome, Outcome::Complete);
    }
    assert!(halted > 0);
    node.sync.accept_deletes().await.unwrap();
    let mut turns = 0;
    while node.store.read().unwrap().count(Kind::Person).unwrap() != 1471 {
        node.sync.round().await;
        turns += 1;
        assert!(turns < 20);
    }
    let trash = node.store.read().unwrap().trash().unwrap();
    assert_eq!(trash.len(), 30);
    assert!(trash.iter().all(|row| row.state == TrashState::Done));
}

#[tokio::test]
async fn a_round_that_is_cut_forgets_no_missing_record() {
    let sim = Sim::default();
    for n in 0..10 {
        sim.put(Kind::Person, person(&format!("P{n}"), "old"));
    }
    let node = Node::agreed(&sim).await;
    sim.remove(Kind::Person, "P3");
    sim.put(Kind::Person, person("P5", "changed"));
    // The line is cut after the people were read, before the end of the sweep confirmed what is missing.
    let nothing = || Fault::Meanwhile(Box::pin(async {}));
    sim.state().scan_faults.extend([nothing(), nothing(), nothing(), Fault::LostRequest]);
    node.ends(Outcome::Offline).await;
    assert_eq!(f(node.get("P5")), "changed");
    assert!(node.get("P3").is_some());
    let report = node.complete().await;
    assert_eq!((report.deleted, node.get("P3")), (1, None), "{report:?}");
}

#[tokio::test]
async fn an_idle_round_writes_no_record() {
    let sim = Sim::default();
    for n in 0..200 {
        sim.put(Kind::Person, person(&format!("P{n:03}"), "old"));
    }
    let node = Node::agreed(&sim).await;
    let changes = node.store.changes();
    let before = (*changes.borrow(), sim.state().records.clone());
    for _ in 0..3 {
        let report = node.complete().await;
        assert_eq!((report.pulled, report.pushed, report.merged, report.deleted), (0, 0, 0, 0));
    }
    assert_eq!(*changes.borrow(), before.0);
    assert!(sim.state().records == before.1);
}

#[tokio::test]
async fn a_pause_stops_the_round_that_is_under_way_and_keeps_what_it_has() {
    let sim = Sim::default();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    let node = Node::on_disk(&file, &sim);
    for id in ["AAA", "BBB"] {
        node.set(id, "mine").await;
    }
    // The answer never comes.
    let hang = tokio::time::sleep(Duration::from_secs(3600));
    sim.state().write_faults.push_back(Fault::Meanwhile(Box::pin(hang)));
    let (report, ()) = tokio::join!(node.sync.round(), async {
        while sim.get(Kind::Person, "AAA").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.sync.pause(&Actor::Operator(0)).await.unwrap();
        assert_eq!(node.sync.status().unwrap().state, "paused", "the round has ended");
    });
    assert_eq!((report.outcome, report.pushed), (Outcome::Partial, 0), "{report:?}");
    assert!(report.message.contains("was paused in the middle of a round"), "{report:?}");
    drop(node);
    let node = Node::on_disk(&file, &sim);
    let often = "* * * * * *";
    let schedule =
        Times { rounds: often, rounds_without_feed: often, verification: often, jitter: Duration::ZERO };
    let schedule = Schedule::start(Arc::clone(&node.sync), schedule).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let leases = sim.state().leases.clone();
    assert_eq!(leases.values().map(|lease| lease.number).collect::<Vec<_>>(), [1], "no round was run");
    schedule.stop().await;
    node.sync.resume().await.unwrap();
    assert_settled(&node, &sim, "AAA").await;
    let writes = sim.state().writes.clone();
    assert_eq!((writes["AAA"], writes["BBB"]), (1, 1));
}

/// What a nurse reads is true in the moment in which it is read.
#[tokio::test]
async fn the_status_says_what_waits() {
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    let message = || {
        let message = node.sync.status().unwrap().message;
        message.strip_suffix(WITHOUT_FEED).expect("what every round does there").to_owned()
    };
    assert_eq!(message(), "Everything is up to date with the centre.");
    node.set("ANA", "1").await;
    assert_eq!(message(), "One record that was changed here at 1970-01-01T00:00:00Z waits to be sent.");
    node.set("BEA", "1").await;
    assert!(message().starts_with("2 records that were changed here wait to be sent, the oldest since"));
    sim.state().lease_faults.push_back(Fault::LostRequest);
    node.ends(Outcome::Offline).await;
    assert!(message().starts_with("The centre cannot be reached"), "{}", message());
    assert!(message().contains("2 records that were changed here wait"), "{}", message());
    sim.state().refused.push("BEA".to_owned());
    node.complete().await;
    let refused =
        "One record is refused by the centre or cannot be read from it: see `thalamus-edge dead list`.";
    assert_eq!((message().as_str(), node.dead().len()), (refused, 1));
}

/// Every complete round, and no other, is news of everybody's accounts.
#[tokio::test]
async fn a_complete_round_lets_people_in_again() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    static DAYS: AtomicI64 = AtomicI64::new(0);
    let options = StoreOptions { clock: || DAYS.load(Ordering::Relaxed) * DAY_MS, ..OPTIONS };
    let sim = Sim::default();
    let store = Store::in_memory(options).unwrap();
    let settings = SyncSettings { offline_login_days: 2, ..SyncSettings::default() };
    let hub: Arc<dyn Hub> = Arc::new(sim.clone());
    let node = Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store };
    let is_admitted = |days| {
        DAYS.store(days, Ordering::Relaxed);
        node.sync.admits_people(&node.store.read().unwrap()).unwrap()
    };
    node.complete().await;
    assert!(is_admitted(1) && !is_admitted(2));
    sim.state().lease_faults.push_back(Fault::LostRequest);
    node.ends(Outcome::Offline).await;
    assert!(!is_admitted(2));
    node.complete().await;
    assert!(is_admitted(3) && !is_admitted(4));
}

/// A verification pass that misses nothing but what the feed had told before is clean: deletes that come one by one
/// are not taken for an accident because one of them came together with the pass.
#[tokio::test]
async fn a_delete_that_was_heard_of_does_not_spoil_a_verification() {
    let sim = Sim::with_history();
    for n in 0..40 {
        sim.put(Kind::Person, person(&format!("P{n:02}"), "old"));
    }
    let node = Node::agreed(&sim).await;
    for n in 0..40 {
        sim.remove(Kind::Person, &format!("P{n:02}"));
        if n % 10 == 9 {
            node.sync.ask_for_verification().await.unwrap();
        }
        assert_eq!(node.complete().await.deleted, 1, "{n}");
    }
}

/// What is refused is counted in whatever is said, however a round ended, and once.
#[tokio::test]
async fn what_is_refused_is_said_however_a_round_ends() {
    const REFUSED: &str =
        "One record is refused by the centre or cannot be read from it: see `thalamus-edge dead list`.";
    let sim = Sim::default();
    let node = Node::agreed(&sim).await;
    sim.state().faulty = vec![("BAD".to_owned(), 8)];
    node.set("BAD", "mine").await;
    for _ in 0..3 {
        node.sync.round().await;
    }
    let said = |what: &str, message: &str| {
        assert_eq!(message.matches(REFUSED).count(), 1, "{what}: {message}");
        let status = node.sync.status().unwrap();
        assert_eq!(status.message.matches(REFUSED).count(), 1, "{what}: {status:?}");
        status.state
    };
    assert_eq!(said("complete", &node.ends(Outcome::Complete).await.message), "idle");
    sim.state().faulty.push(("OTHER".to_owned(), 96));
    node.set("OTHER", "mine").await;
    assert_eq!(said("partial", &node.ends(Outcome::Partial).await.message), "idle");
    sim.state().faulty.pop();
    node.complete().await;
    sim.state().lease_faults.push_back(Fault::LostRequest);
    assert_eq!(said("offline", &node.ends(Outcome::Offline).await.message), "offline");
    let clerk = Actor::Local("tech".to_owned());
    node.sync.pause(&clerk).await.unwrap();
    assert_eq!(said("paused", &node.ends(Outcome::Halted).await.message), "paused");
    node.sync.resume().await.unwrap();
    let id = node.sync.status().unwrap().node;
    sim.state().revoked.push(id);
    assert_eq!(said("revoked", &node.ends(Outcome::Halted).await.message), "revoked");
    sim.state().revoked.clear();
    node.complete().await;
    // By the time of the question nothing may be left of it.
    node.set("BAD", "better").await;
    sim.state().faulty.clear();
    assert!(!node.complete().await.message.contains("refused"));
    assert!(!node.sync.status().unwrap().message.contains("refused"));
}
