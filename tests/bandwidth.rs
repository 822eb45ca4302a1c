//! What rounds may put on the line: hours and days in which large transfers wait and edits do not.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bson::doc;
use thalamus_edge::central::Traffic;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Store, StoreOptions};
use thalamus_edge::sync::budget::QuietHours;
use thalamus_edge::sync::{Outcome, Reconciler, Report, SyncSettings};

use support::sim::{Fault, Sim, WITHOUT_FEED, person, person_key};

const MB: u64 = 1_000_000;
const INSTITUTION: &str = "HOSPITAL";
/// Said while one person who was made here is not sent.
const NEW_WAITS: &str = " One person who was made here is sent once everything at the centre has been read, because records \
                         of somebody else may be there under the account.";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The local midnight of some day in Buenos Aires, three hours behind.
const MIDNIGHT_MS: i64 = 20_000 * DAY_MS + 3 * 60 * 60 * 1000;

/// A clock for each test: the store asks it from a thread of its own.
static CLOCKS: [AtomicI64; 8] = [const { AtomicI64::new(MIDNIGHT_MS) }; 8];

fn clock<const N: usize>() -> i64 {
    CLOCKS[N].load(Ordering::Relaxed)
}

struct Node<const N: usize> {
    store: Store,
    sync: Arc<Reconciler>,
}

impl<const N: usize> Node<N> {
    fn new(sim: &Sim, settings: SyncSettings) -> Node<N> {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1000,
            audit_keep_rows: 100_000,
            clock: clock::<N>,
        };
        let store = Store::in_memory(options).unwrap();
        let settings = SyncSettings { utc_offset: |_| -3 * 60 * 60, ..settings };
        Node { sync: Reconciler::new(store.clone(), Some(Arc::new(sim.clone())), settings), store }
    }

    /// Sets the clock to this time of the local day so many days after the first.
    fn at(&self, day: i64, hour: i64, minute: i64) {
        CLOCKS[N].store(MIDNIGHT_MS + day * DAY_MS + (hour * 60 + minute) * 60_000, Ordering::Relaxed);
    }

    async fn ends(&self, outcome: Outcome) -> Report {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, outcome, "{report:?}");
        report
    }

    async fn set(&self, id: &str, f: &str) {
        let (key, document) = (person_key(id), person(id, f));
        let actor = Actor::Local("tech".to_owned());
        self.store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
    }

    /// An institution belongs to nobody, so it waits for nothing.
    async fn set_institution(&self, f: &str) {
        let (key, document) = (institution_key(), doc! {"_id": INSTITUTION, "f": f});
        let actor = Actor::Local("tech".to_owned());
        self.store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
    }

    fn count(&self) -> u64 {
        self.store.read().unwrap().count(Kind::Person).unwrap()
    }

    fn state(&self) -> (&'static str, String) {
        let status = self.sync.status().unwrap();
        (status.state, status.message)
    }
}

fn institution_key() -> RecordKey {
    RecordKey::new(Kind::Institution, INSTITUTION)
}

/// What the centre has of it.
fn institution_there(sim: &Sim) -> Option<String> {
    let document = sim.get(Kind::Institution, INSTITUTION)?;
    Some(document.get_str("f").unwrap().to_owned())
}

fn line(sent: u64, received: u64) -> Traffic {
    Traffic { line_bytes_sent: sent, line_bytes_received: received, ..Traffic::default() }
}

fn quiet(hours: &[&str]) -> Vec<QuietHours> {
    hours.iter().map(|hours| QuietHours::parse(hours).unwrap()).collect()
}

#[tokio::test]
async fn in_quiet_hours_edits_travel_and_looking_through_everything_waits() {
    let sim = Sim::default();
    for n in 0..100 {
        sim.put(Kind::Person, person(&format!("P{n:03}"), "old"));
    }
    let quiet_hours = quiet(&["08:00-12:30", "12:30-18:00"]);
    let node = Node::<0>::new(&sim, SyncSettings { quiet_hours, ..SyncSettings::default() });
    node.set("NEW", "mine").await;
    node.set_institution("mine").await;
    for (hour, minute) in [(8, 0), (17, 59)] {
        node.at(0, hour, minute);
        let report = node.ends(Outcome::Partial).await;
        let words = "What was edited here has been sent to the centre, except for people who are new.";
        let words = format!("{words}{NEW_WAITS} Large transfers wait until 18:00.{WITHOUT_FEED}");
        assert_eq!((&report.message, report.pulled), (&words, 0));
        assert_eq!(node.state(), ("idle", words));
        assert_eq!(institution_there(&sim).as_deref(), Some("mine"));
        // Records of somebody else may be there under the account, which the node has not read.
        assert_eq!(sim.get(Kind::Person, "NEW"), None);
        assert_eq!((node.count(), node.sync.status().unwrap().last_complete_at), (1, None));
    }
    node.at(0, 18, 0);
    let report = node.ends(Outcome::Complete).await;
    assert_eq!((report.pulled, node.count()), (100, 101));
    assert!(sim.get(Kind::Person, "NEW").is_some());
    assert_eq!(report.message, format!("Everything is up to date with the centre.{WITHOUT_FEED}"));
    node.at(1, 7, 59);
    node.ends(Outcome::Complete).await;
}

#[tokio::test]
async fn a_days_budget_keeps_its_last_quarter_for_edits() {
    let sim = Sim::default();
    sim.put(Kind::Person, person("ANA", "old"));
    sim.state().traffic = line(10 * MB, 20 * MB);
    let settings = SyncSettings { budget_bytes_per_day: 100 * MB, ..SyncSettings::default() };
    let node = Node::<1>::new(&sim, settings);
    node.at(0, 0, 0);
    for used in [0, 30, 60] {
        println!("{used} MB used");
        node.ends(Outcome::Complete).await;
    }
    // Far beyond it, edits still go out.
    for used in [90, 120, 150] {
        node.at(0, 23, 59);
        node.set("ANA", &used.to_string()).await;
        let report = node.ends(Outcome::Partial).await;
        let words = format!("tomorrow: {used}.0 MB of today's 100.0 MB have been used.");
        assert!(report.message.ends_with(&format!("{words}{WITHOUT_FEED}")), "{report:?}");
        assert_eq!((report.pushed, report.bytes_sent, report.bytes_received), (1, 10 * MB, 20 * MB));
        assert_eq!(sim.get(Kind::Person, "ANA"), Some(person("ANA", &used.to_string())));
    }
    node.at(1, 0, 0);
    node.ends(Outcome::Complete).await;
    // Whoever sets the clock back does not lock the node out, nor gets more than that day's share.
    node.at(-15_000, 12, 0);
    for _ in 0..3 {
        node.ends(Outcome::Complete).await;
    }
    node.ends(Outcome::Partial).await;
    node.at(1, 1, 0);
    for _ in 0..2 {
        node.ends(Outcome::Complete).await;
    }
    node.ends(Outcome::Partial).await;
}

#[tokio::test]
async fn one_round_looks_through_so_many_bytes_and_the_next_goes_on() {
    let sim = Sim::default();
    for n in 0..1000 {
        sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
    }
    sim.state().line_bytes_per_document = 1000;
    let settings = SyncSettings { scan_bytes_per_round: MB / 5, ..SyncSettings::default() };
    let node = Node::<2>::new(&sim, settings);
    let mut counts = Vec::new();
    for turn in 0.. {
        node.set("LOCAL", &turn.to_string()).await;
        node.set_institution(&turn.to_string()).await;
        let report = node.sync.round().await;
        assert_eq!(institution_there(&sim), Some(turn.to_string()));
        counts.push(node.count());
        if report.outcome == Outcome::Complete {
            assert_eq!(sim.get(Kind::Person, "LOCAL"), Some(person("LOCAL", &turn.to_string())));
            break;
        }
        // A person who is new waits until everything was read.
        assert_eq!(sim.get(Kind::Person, "LOCAL"), None);
        assert!(report.message.contains(NEW_WAITS), "{report:?}");
        assert!(report.message.contains('%'), "{report:?}");
        assert!(turn < 10);
    }
    println!("records after each round: {counts:?}");
    assert!(counts.len() > 2 && counts.is_sorted() && counts.last() == Some(&1001));
}

#[tokio::test]
async fn a_round_that_takes_too_long_counts_as_well() {
    let sim = Sim::default();
    sim.state().traffic = line(MB, 2 * MB);
    let settings = SyncSettings {
        round_timeout: Duration::from_millis(300),
        budget_bytes_per_day: 4 * MB,
        ..SyncSettings::default()
    };
    let node = Node::<3>::new(&sim, settings);
    node.set_institution("mine").await;
    let hang = tokio::time::sleep(Duration::from_secs(60));
    sim.state().write_faults.push_back(Fault::Before(Box::pin(hang)));
    let report = node.ends(Outcome::Partial).await;
    assert!(report.message.contains("took too long"), "{report:?}");
    assert_eq!((report.bytes_sent, report.bytes_received), (MB, 2 * MB));
    let report = node.ends(Outcome::Partial).await;
    assert!(report.message.contains("3.0 MB of today's 4.0 MB"), "{report:?}");
    assert!(institution_there(&sim).is_some());
}
