//! A node of the simulation: the real engine over a store on a disk in memory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use thalamus_edge::central::Hub;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::value::same_document;
use thalamus_edge::store::{Base, Snapshot, Store, StoreError, StoreOptions};
use thalamus_edge::sync::{Reconciler, Report, SyncSettings};
use tokio::task::JoinHandle;

use super::support::disk::Disk;
use super::support::sim::Sim;

thread_local! {
    /// What the nodes' clocks show, in milliseconds since 1970; nothing may depend on it.
    static CLOCK_MS: Cell<i64> = const { Cell::new(0) };
}

pub(crate) fn set_clock(ms: i64) {
    CLOCK_MS.set(ms);
}

/// Longest that a round may take, in virtual time.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);

fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        journal_keep_rows: 200,
        audit_keep_rows: 100_000,
        clock: || CLOCK_MS.get(),
    }
}

/// What is running while a node is on.
pub(crate) struct Running {
    pub(crate) store: Store,
    pub(crate) sync: Arc<Reconciler>,
    pub(crate) round: Option<JoinHandle<Report>>,
}

/// An older state of a node's disk.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) disk: Disk,
    /// How many edits had been made when it was taken.
    pub(crate) edits: usize,
}

pub(crate) struct Clinic {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) disk: Disk,
    /// Stays connected after a round.
    pub(crate) is_continuous: bool,
    pub(crate) running: Option<Running>,
    pub(crate) image: Option<Image>,
    /// Asks the operator whether the centre is meant to be as it is.
    pub(crate) is_asking: bool,
}

impl Clinic {
    pub(crate) fn new(index: usize, name: String, disk: Disk, is_continuous: bool) -> Clinic {
        Clinic { name, index, disk, is_continuous, running: None, image: None, is_asking: false }
    }

    /// Switches the node on, with what is on its disk.
    pub(crate) fn start(&mut self, sim: &Sim) -> Result<(), StoreError> {
        self.stop(sim);
        let store = Store::on_backend(self.disk.mount(), options())?;
        let settings = SyncSettings {
            node_name: self.name.clone(),
            round_timeout: ROUND_TIMEOUT,
            continuous: self.is_continuous,
            ..SyncSettings::default()
        };
        let hub: Arc<dyn Hub> = Arc::new(sim.line(self.index));
        let sync = Reconciler::new(store.clone(), Some(hub), settings);
        self.running = Some(Running { store, sync, round: None });
        Ok(())
    }

    /// The power fails; a round that is running goes no further.
    pub(crate) fn stop(&mut self, sim: &Sim) {
        self.disk.cut();
        sim.cut(self.index);
        self.running = None;
    }

    /// Starts a round that goes on by itself, unless one is running.
    pub(crate) fn start_round(&mut self) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        if running.round.is_some() {
            return false;
        }
        let sync = Arc::clone(&running.sync);
        running.round = Some(tokio::spawn(async move { sync.round().await }));
        true
    }

    /// Grows with every write to the disk.
    pub(crate) fn written(&self) -> u64 {
        self.disk.flushes()
    }

    pub(crate) fn is_in_a_round(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.round.is_some())
    }

    /// The report of a round that has ended meanwhile.
    pub(crate) async fn ended_round(&mut self) -> Option<Report> {
        let round = &mut self.running.as_mut()?.round;
        if !round.as_ref()?.is_finished() {
            return None;
        }
        let ended = round.take()?;
        Some(ended.await.expect("a round ends with a report, even if it is interrupted"))
    }

    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.running.as_ref().map(|running| running.store.read().expect("a store that can be read"))
    }
}

pub(crate) fn record(snapshot: &Snapshot, key: &RecordKey) -> Option<Document> {
    let record = snapshot.record(key).expect("a record")?;
    Some(Document::try_from(record.document.as_ref()).expect("a document"))
}

/// Everything that a node holds.
pub(crate) fn records(snapshot: &Snapshot) -> BTreeMap<RecordKey, Document> {
    let mut found = BTreeMap::new();
    for kind in Kind::ALL {
        let page = snapshot.list(kind, None, usize::MAX, usize::MAX).expect("the records");
        for record in page.records {
            let document = Document::try_from(record.document.as_ref()).expect("a document");
            found.insert(RecordKey::new(kind, record.id), document);
        }
    }
    found
}

/// Whether a person waits for a decision.
pub(crate) fn is_held(snapshot: &Snapshot, person: &str) -> bool {
    snapshot.hold(person).expect("the holds").is_some()
}

/// What is wrong with the bookkeeping: a base exists exactly while the record differs from it or a write is on
/// the way, and every such record has its place in the push order.
pub(crate) fn mistakes(snapshot: &Snapshot, keys: &BTreeSet<RecordKey>) -> Vec<String> {
    let mut found = Vec::new();
    let intents = snapshot.intents().expect("the intents");
    let mut bases = 0;
    for key in keys {
        let (base, record) = (snapshot.base(key).expect("a base"), record(snapshot, key));
        let has_intent = intents.iter().any(|(of, _)| of == key);
        let differs = match (&base, &record) {
            (Some(Base::Absent), None) | (None, _) => false,
            (Some(Base::Document(base)), Some(record)) => !same_document(base, record),
            _ => true,
        };
        bases += u64::from(base.is_some());
        if base.is_some() != (differs || has_intent) {
            found.push(format!("{key}: base {base:?}, record {record:?}, intent {has_intent}"));
        }
    }
    let pending = snapshot.pending_count().expect("a count");
    if pending != bases {
        found.push(format!("{pending} records are pending, {bases} have a base"));
    }
    found
}
