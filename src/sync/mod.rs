//! Floor 3. Reconciliation: how the node and the centre come to agree.
//!
//! Hides the round. A [`Reconciler`] runs at most one at a time, on the schedule or on request, and tells
//! how things stand. Network calls happen between store transactions, never inside one; whatever step a
//! round dies at, the next one goes on from what is in the store.

pub mod conflicts;
mod lease;
mod merge_in;
mod pull;
mod push;
mod round;
mod scan;
pub mod schedule;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{Document, doc};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio::sync::watch;

use crate::central::Hub;
use crate::store::{Store, StoreError};

pub use round::Outcome;

/// Writes sent together at first; adapts to the link.
const BATCH_WRITES_START: usize = 50;
const META_REPORT: &str = "report";

/// How rounds are run.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// What people call this node; shown at the centre.
    pub node_name: String,
    /// A round that takes longer is stopped; the next one goes on where it was.
    pub round_timeout: Duration,
}

/// What a round did; the answer of `POST /sync/rounds`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub outcome: Outcome,
    pub pulled: u64,
    pub pushed: u64,
    pub merged: u64,
    pub deleted: u64,
    pub conflicts: u64,
    pub dead: u64,
    pub round_trips: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub duration_ms: u64,
    /// For people.
    pub message: String,
}

/// How things stand; the answer of `GET /sync/status`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub node: String,
    pub state: &'static str,
    pub pending: u64,
    pub oldest_pending_at: Option<String>,
    pub conflicts_open: u64,
    pub dead: u64,
    pub last_round: Option<serde_json::Value>,
    pub last_complete_at: Option<String>,
    pub next_round_at: Option<String>,
    pub message: String,
}

/// Runs rounds, one at a time.
pub struct Reconciler {
    store: Store,
    hub: Option<Arc<dyn Hub>>,
    settings: SyncSettings,
    running: Mutex<Option<watch::Receiver<Option<Report>>>>,
    next_round_ms: Mutex<Option<i64>>,
    /// Writes sent and documents read at a time, kept between rounds.
    batch_writes: AtomicUsize,
    batch_documents: AtomicUsize,
}

impl Reconciler {
    /// Without a hub the node serves alone and says that synchronization is off.
    pub fn new(store: Store, hub: Option<Arc<dyn Hub>>, settings: SyncSettings) -> Arc<Reconciler> {
        Arc::new(Reconciler {
            store,
            hub,
            settings,
            running: Mutex::new(None),
            next_round_ms: Mutex::new(None),
            batch_writes: AtomicUsize::new(BATCH_WRITES_START),
            batch_documents: AtomicUsize::new(scan::SCAN_DOCUMENTS_START),
        })
    }

    pub fn is_configured(&self) -> bool {
        self.hub.is_some()
    }

    /// Runs a round, or joins the one that is running. The round goes on if the caller goes away.
    pub async fn round(self: &Arc<Self>) -> Report {
        let mut finished = match self.join_or_start() {
            Ok(running) => running,
            Err(report) => return report,
        };
        match finished.wait_for(Option::is_some).await {
            Ok(report) => {
                report.clone().unwrap_or_else(|| Report::ended(Outcome::Failed, "the round was lost"))
            }
            Err(_) => Report::ended(Outcome::Failed, "the round was interrupted"),
        }
    }

    fn join_or_start(self: &Arc<Self>) -> Result<watch::Receiver<Option<Report>>, Report> {
        let Some(hub) = self.hub.clone() else {
            return Err(Report::ended(Outcome::Failed, "synchronization is off: no centre is configured"));
        };
        let mut running = lock(&self.running);
        if let Some(round) = running.as_ref()
            && round.has_changed().is_ok()
            && round.borrow().is_none()
        {
            return Ok(round.clone());
        }
        let (done, finished) = watch::channel(None);
        *running = Some(finished.clone());
        let reconciler = Arc::clone(self);
        tokio::spawn(async move {
            let report = reconciler.run(hub).await;
            // Kept in the channel for whoever still waits.
            let _ = done.send(Some(report));
        });
        Ok(finished)
    }

    async fn run(&self, hub: Arc<dyn Hub>) -> Report {
        let started = tokio::time::Instant::now();
        let mut round = round::Round::new(&self.store, &self.settings);
        round.batch_writes = self.batch_writes.load(Ordering::Relaxed);
        round.batch_documents = self.batch_documents.load(Ordering::Relaxed);
        let result = tokio::time::timeout(self.settings.round_timeout, round.run(hub.as_ref())).await;
        let mut report = match result {
            Ok(result) => round.finish(result),
            Err(_) => round.finish(Err(round::RoundError::TooLong)),
        };
        self.batch_writes.store(round.batch_writes, Ordering::Relaxed);
        self.batch_documents.store(round.batch_documents, Ordering::Relaxed);
        report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Err(error) = self.keep_report(&report).await {
            tracing::error!(%error, "the report of the round could not be kept");
        }
        tracing::info!(
            outcome = report.outcome.name(),
            pulled = report.pulled,
            pushed = report.pushed,
            merged = report.merged,
            deleted = report.deleted,
            conflicts = report.conflicts,
            dead = report.dead,
            round_trips = report.round_trips,
            ms = report.duration_ms,
            message = %report.message,
            "round ended"
        );
        report
    }

    async fn keep_report(&self, report: &Report) -> Result<(), StoreError> {
        let row = bson::serialize_to_document(report).map_err(|e| StoreError::Unstorable(e.to_string()))?;
        let is_complete = report.outcome == Outcome::Complete;
        self.store
            .transact(move |tx| {
                let last = tx.meta(META_REPORT)?.unwrap_or_default();
                if is_complete {
                    scan::accept_deletes(tx, false)?;
                }
                let now_ms = tx.now_ms();
                let complete_ms = if is_complete { Some(now_ms) } else { last.get_i64("complete_at").ok() };
                let mut kept = doc! {"report": row.clone(), "at": now_ms};
                if let Some(complete_ms) = complete_ms {
                    kept.insert("complete_at", complete_ms);
                }
                tx.set_meta(META_REPORT, Some(&kept))
            })
            .await
    }

    pub fn status(&self) -> Result<Status, StoreError> {
        let snapshot = self.store.read()?;
        let kept = snapshot.meta(META_REPORT)?.unwrap_or_default();
        let report: Option<&Document> = kept.get_document("report").ok();
        let is_running = lock(&self.running)
            .as_ref()
            .is_some_and(|round| round.has_changed().is_ok() && round.borrow().is_none());
        let last_outcome = report.and_then(|report| report.get_str("outcome").ok());
        let last_message = report.and_then(|report| report.get_str("message").ok()).unwrap_or_default();
        let (state, message) = match (self.is_configured(), is_running, last_outcome) {
            (false, ..) => ("off", "Synchronization is off: no centre is configured.".to_owned()),
            (_, true, _) => ("running", "Synchronizing with the centre now.".to_owned()),
            (.., Some("offline")) => ("offline", last_message.to_owned()),
            (.., Some("halted")) if snapshot.meta(lease::META_REVOKED)?.is_some() => {
                ("revoked", last_message.to_owned())
            }
            (.., Some("halted")) => ("halted", last_message.to_owned()),
            (.., None) => ("idle", "No round has been run yet.".to_owned()),
            (.., Some(_)) => ("idle", last_message.to_owned()),
        };
        let last_round = report.map(|report| {
            let mut shown = bson::Bson::Document(report.clone()).into_relaxed_extjson();
            shown["at"] = kept.get_i64("at").map_or(serde_json::Value::Null, |ms| time_text(ms).into());
            shown
        });
        Ok(Status {
            node: lease::node_id(&snapshot)?.unwrap_or_default(),
            state,
            pending: snapshot.pending_count()?,
            oldest_pending_at: snapshot.oldest_pending_ms()?.map(time_text),
            conflicts_open: snapshot.open_conflicts_count()?,
            dead: snapshot.dead_count()?,
            last_round,
            last_complete_at: kept.get_i64("complete_at").ok().map(time_text),
            next_round_at: lock(&self.next_round_ms).map(time_text),
            message,
        })
    }

    /// The operator agrees that records which vanished at the centre vanish here; holds until a round
    /// completes.
    pub async fn accept_deletes(&self) -> Result<(), StoreError> {
        self.store.transact(|tx| scan::accept_deletes(tx, true)).await
    }

    pub(crate) fn set_next_round(&self, at_ms: Option<i64>) {
        *lock(&self.next_round_ms) = at_ms;
    }
}

impl Report {
    fn ended(outcome: Outcome, message: &str) -> Report {
        Report {
            outcome,
            pulled: 0,
            pushed: 0,
            merged: 0,
            deleted: 0,
            conflicts: 0,
            dead: 0,
            round_trips: 0,
            bytes_sent: 0,
            bytes_received: 0,
            duration_ms: 0,
            message: message.to_owned(),
        }
    }
}

/// A poisoned lock only means that another thread panicked between two assignments.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// RFC 3339 in UTC, for people.
pub(crate) fn time_text(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A named place between two steps of a round: the crash tests stop the process here, the simulation a node.
pub(crate) fn step(_name: &'static str) {
    #[cfg(feature = "failpoints")]
    {
        crate::flaw::passing(_name);
        fail::eval(_name, |_| {
            // What a power cut does: no destructor, no flush.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        });
    }
}
