//! What a round takes for records of many short values: each takes dozens of times its bytes once it is decoded, and is
//! decoded alone. And what it takes where very many attachments wait to be fetched.
//!
//! The figures are those of the process, so one test runs at a time.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::sync::Arc;

use bson::{Bson, Document, RawDocument, doc};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::json::weight;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{Store, StoreOptions};
use thalamus_edge::sync::{Outcome, Reconciler, Report, SyncSettings};

use support::sim::{Sim, person_key};
use tokio::sync::Mutex;

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 0 };
/// Fewer than one answer to a sweep has room for.
const PEOPLE: usize = 20;
/// Objects in a record of some 175 KB.
const OBJECTS: usize = 9_300;
/// What a round may take beyond what was there before it, in MB: the bytes of all these people, the work on one at a time,
/// and what the store writes at once. Decoded together they take more than 120.
const ROUND_MB_MAX: u64 = 60;
/// What may stay of it, in MB: the bytes that the store in memory keeps, and free places between what is used.
const STAYS_MB_MAX: u64 = 40;

fn heavy(id: &str, name: &str) -> Document {
    let objects = vec![Bson::Document(doc! {"a": {}}); OBJECTS];
    doc! {"_id": id, "name": name, "lastname": "N", "gender": "f", "m": objects}
}

fn ids() -> Vec<String> {
    (0..PEOPLE).map(|n| format!("PEO{n:03}")).collect()
}

/// A figure of this process in MB.
fn process_mb(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() / 1024
}

struct Node {
    store: Store,
    sync: Arc<Reconciler>,
}

/// What a round took at most, and what was held before and after it, in MB.
#[derive(Debug)]
struct Held {
    before: u64,
    most: u64,
    after: u64,
}

impl Node {
    fn new(sim: &Sim) -> Node {
        let store = Store::in_memory(OPTIONS).unwrap();
        let hub = Arc::new(sim.clone());
        Node { sync: Reconciler::new(store.clone(), Some(hub), SyncSettings::default()), store }
    }

    async fn round(&self, what: &str) -> (Report, Held) {
        // The highest figure begins anew.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = process_mb("VmRSS:");
        let report = self.sync.round().await;
        let held = Held { before, most: process_mb("VmHWM:"), after: process_mb("VmRSS:") };
        println!("{what}: {held:?}");
        assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
        (report, held)
    }
}

/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::const_new(());
/// Attachments that are named and not here.
const WANTED: u64 = 200_000;
/// What a round may take beyond what was there before it while so many are waited for, in MB. All names together take more
/// than 20.
const WANTED_ROUND_MB_MAX: u64 = 8;

#[tokio::test]
async fn names_of_what_is_to_be_fetched_are_read_some_at_a_time() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("store.redb");
    drop(Store::open(&file, OPTIONS).unwrap());
    let name = |number: u64| format!("{number:064x}");
    // Some at a time, so that what this takes is not there for the rounds.
    let database = redb::Builder::new().set_cache_size(1 << 20).open(&file).unwrap();
    let numbers: Vec<u64> = (0..WANTED).collect();
    for some in numbers.chunks(2_000) {
        let writing = database.begin_write().unwrap();
        {
            let wanted = redb::TableDefinition::<&str, (u64, i64)>::new("content_wanted");
            let mut wanted = writing.open_table(wanted).unwrap();
            for number in some {
                wanted.insert(name(*number).as_str(), (1000, 0)).unwrap();
            }
        }
        writing.commit().unwrap();
    }
    drop(database);
    let sim = Sim::default();
    let store = Store::open(&file, OPTIONS).unwrap();
    let node = Node {
        sync: Reconciler::new(store.clone(), Some(Arc::new(sim.clone())), SyncSettings::default()),
        store,
    };
    // What the first round of a process needs besides.
    Node::new(&sim).round("nothing is waited for").await;
    for _ in 0..3 {
        let calls = sim.contents().calls;
        let (report, held) = node.round("many are waited for").await;
        assert!(report.message.contains("200000 to fetch"), "{}", report.message);
        assert_eq!(sim.contents().calls - calls, 1, "one question about a hundred names");
        assert!(held.most <= held.before + WANTED_ROUND_MB_MAX, "{held:?}");
    }
    // The figures would tell.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = process_mb("VmRSS:");
    let all = node.store.read().unwrap().content_wanted("", usize::MAX).unwrap();
    assert_eq!(all.len() as u64, WANTED);
    assert!(process_mb("VmHWM:") > before + WANTED_ROUND_MB_MAX);
    drop(all);
    // A cursor meets each name once.
    let (mut after, mut count) = (String::new(), 0);
    let snapshot = node.store.read().unwrap();
    loop {
        let names = snapshot.content_wanted(&after, 1000).unwrap();
        let Some(last) = names.last() else { break };
        assert!(names.len() <= 1000);
        for (at, wanted) in names.iter().enumerate() {
            assert_eq!(wanted.sha256, name(count + at as u64));
        }
        (after, count) = (last.sha256.clone(), count + names.len() as u64);
    }
    assert_eq!(count, WANTED);
}

#[tokio::test]
async fn people_of_many_short_values_are_decoded_one_at_a_time_and_not_kept() {
    let _alone = ALONE.lock().await;
    let bytes = heavy("PEO000", "J").to_vec().unwrap();
    let of_one = weight::of_document(RawDocument::from_bytes(&bytes).unwrap(), usize::MAX);
    assert!(bytes.len() < 200_000 && of_one * PEOPLE > 120 << 20, "{of_one}");
    let sim = Sim::default();
    for id in ids() {
        sim.put(Kind::Person, heavy(&id, "J"));
    }
    let node = Node::new(&sim);
    for (what, name) in [("new here", None), ("changed there", Some("K"))] {
        if let Some(name) = name {
            ids().iter().for_each(|id| sim.put(Kind::Person, heavy(id, name)));
        }
        let (report, held) = node.round(what).await;
        assert_eq!(report.pulled, PEOPLE as u64, "{report:?}");
        assert!(held.most <= held.before + ROUND_MB_MAX, "{what}: {held:?}");
        assert!(held.after <= held.before + STAYS_MB_MAX, "{what}: {held:?}");
    }
    // The simulated centre keeps what it takes decoded, which is no memory of the node's.
    for id in ids() {
        let (key, actor) = (person_key(&format!("{id}NEW")), Actor::Local("tech".to_owned()));
        let made = heavy(&key.id, "M");
        node.store.transact(move |tx| tx.edit(&key, Some(&made), &actor)).await.unwrap();
    }
    let (report, held) = node.round("made here").await;
    assert_eq!(report.pushed, PEOPLE as u64, "{report:?}");
    assert!(held.most <= held.after + ROUND_MB_MAX, "{held:?}");
}
