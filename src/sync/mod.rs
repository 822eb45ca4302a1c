//! Floor 3. Reconciliation: how the node and the centre come to agree.
//!
//! Hides the round. A [`Reconciler`] runs at most one at a time, on the schedule or on request, and tells
//! how things stand. Network calls happen between store transactions, never inside one; whatever step a
//! round dies at, the next one goes on from what is in the store.

mod apart;
mod archives;
pub mod budget;
pub mod closings;
mod conflict_rows;
pub mod conflict_trials;
pub mod conflicts;
mod content;
mod content_fetch;
mod content_mend;
mod content_send;
mod content_tidy;
pub mod damaged;
mod deletes;
mod doubt;
mod drain;
mod ending;
mod evidence;
mod follow;
mod forgotten;
mod former;
mod former_person;
mod heal;
mod hold;
pub mod identity;
mod identity_answers;
mod kept_rows;
mod lease;
mod left;
mod made_again;
mod merge_in;
pub mod namesakes;
mod naming_nobody;
mod no_feed;
mod operator;
mod other_ids;
mod ownerless;
mod owners;
mod people_first;
mod position;
mod pull;
mod push;
mod put_back;
pub mod refused;
mod resolutions;
mod restore;
mod round;
mod scan;
mod scan_sizes;
pub mod schedule;
mod status;
mod undecided;
mod unread;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::doc;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::central::survey::Diagnosis;
use crate::central::{Central, Feed, Hub, Traffic};
use crate::store::{Store, StoreError, off_workers};

use budget::{QuietHours, UtcOffset};
pub(crate) use lease::node_id;
use left::{Left, Said};
use no_feed::NoFeed;
use operator::Pause;
pub use round::Outcome;
use round::RoundError;
pub use status::Status;

/// Writes sent together at first; adapts to the link.
const BATCH_WRITES_START: usize = 50;
const META_REPORT: &str = "report";
/// Fields beside the report in its row: what it says without what is left over.
const SAID_ENDED: &str = "ended";
const SAID_REST: &str = "rest";

/// How rounds are run.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// What people call this node; shown at the centre.
    pub node_name: String,
    /// A round that takes longer is stopped; the next one goes on where it was.
    pub round_timeout: Duration,
    /// Keep the line open and exchange changes as they happen.
    pub continuous: bool,
    /// Bytes, 0 for as many as there are: of attachments in one round, received by one round while it looks
    /// through the centre's records, and both ways in one day.
    pub attachment_bytes_per_round: u64,
    pub scan_bytes_per_round: u64,
    pub budget_bytes_per_day: u64,
    /// When large transfers wait.
    pub quiet_hours: Vec<QuietHours>,
    /// Days after the last complete round in which people may log in; 0 for ever.
    pub offline_login_days: u32,
    /// What the day and its hours are here.
    pub utc_offset: UtcOffset,
}

impl Default for SyncSettings {
    fn default() -> SyncSettings {
        SyncSettings {
            node_name: "node".to_owned(),
            round_timeout: Duration::from_secs(600),
            continuous: false,
            attachment_bytes_per_round: budget::ATTACHMENT_BYTES_PER_ROUND_DEFAULT,
            scan_bytes_per_round: budget::SCAN_BYTES_PER_ROUND_DEFAULT,
            budget_bytes_per_day: 0,
            quiet_hours: Vec::new(),
            offline_login_days: 0,
            utc_offset: |_| 0,
        }
    }
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
    /// All that travelled.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Commands and answers before compression and encryption, without handshakes and looks at the servers: counted
    /// where the log is at `debug`.
    #[serde(skip_serializing_if = "is_uncounted")]
    pub command_bytes_sent: u64,
    #[serde(skip_serializing_if = "is_uncounted")]
    pub command_bytes_received: u64,
    pub duration_ms: u64,
    /// Where on the way to the centre it ended, [`crate::central::survey::Stage::name`], and at which `host:port`; as far
    /// as that could be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// For people.
    pub message: String,
    /// The message without what is left over.
    #[serde(skip)]
    said: Said,
}

fn is_uncounted(bytes: &u64) -> bool {
    *bytes == 0
}

/// A round that was started.
#[derive(Clone)]
struct Running {
    finished: watch::Receiver<Option<Report>>,
    stop: CancellationToken,
}

impl Running {
    fn is_over(&self) -> bool {
        self.finished.has_changed().is_err() || self.finished.borrow().is_some()
    }
}

/// Runs rounds, one at a time.
pub struct Reconciler {
    store: Store,
    hub: Option<Arc<dyn Hub>>,
    settings: SyncSettings,
    running: Mutex<Option<Running>>,
    next_round_ms: Mutex<Option<i64>>,
    /// Writes sent and documents read at a time, kept between rounds.
    batch_writes: AtomicUsize,
    batch_documents: AtomicUsize,
    /// Held by whoever converses with the centre.
    conversing: tokio::sync::Mutex<()>,
    /// Ends the connection that stays open after a round.
    hang_up: Mutex<CancellationToken>,
    is_connected: AtomicBool,
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
            batch_documents: AtomicUsize::new(round::READ_START),
            conversing: tokio::sync::Mutex::default(),
            hang_up: Mutex::default(),
            is_connected: AtomicBool::new(false),
        })
    }

    pub fn is_configured(&self) -> bool {
        self.hub.is_some()
    }

    /// Whether changes go both ways as they are made, just now.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Runs a round, or joins the one that is running. The round goes on if the caller goes away.
    pub async fn round(self: &Arc<Self>) -> Report {
        let mut finished = match self.join_or_start() {
            Ok(running) => running,
            Err(report) => return *report,
        };
        match finished.wait_for(Option::is_some).await {
            Ok(report) => {
                report.clone().unwrap_or_else(|| Report::ended(Outcome::Failed, "the round was lost"))
            }
            Err(_) => Report::ended(Outcome::Failed, "the round was interrupted"),
        }
    }

    fn join_or_start(self: &Arc<Self>) -> Result<watch::Receiver<Option<Report>>, Box<Report>> {
        let Some(hub) = self.hub.clone() else {
            return Err(Box::new(Report::ended(
                Outcome::Failed,
                "synchronization is off: no centre is configured",
            )));
        };
        let mut running = lock(&self.running);
        if let Some(round) = running.as_ref().filter(|round| !round.is_over()) {
            return Ok(round.finished.clone());
        }
        // Under the lock, so that a pause finds every round that has not seen it.
        let pause = self.store.read().and_then(|snapshot| match Pause::of(&snapshot)? {
            Some(pause) => Ok(Some(pause.report(&off_workers(|| Left::now(&self.store, &snapshot))?))),
            None => Ok(None),
        });
        match pause {
            Ok(None) => {}
            Ok(Some(report)) => return Err(Box::new(report)),
            Err(error) => {
                tracing::error!(%error, "no round was started");
                let report = Report::ended(Outcome::Failed, "The round failed: the store could not be read.");
                return Err(Box::new(report));
            }
        }
        let (done, finished) = watch::channel(None);
        let stop = CancellationToken::new();
        *running = Some(Running { finished: finished.clone(), stop: stop.clone() });
        let reconciler = Arc::clone(self);
        tokio::spawn(async move { reconciler.converse(hub.as_ref(), &stop, done).await });
        Ok(finished)
    }

    /// One conversation with the centre: a round, and what is to follow it at once.
    async fn converse(
        self: &Arc<Self>,
        hub: &dyn Hub,
        stop: &CancellationToken,
        done: watch::Sender<Option<Report>>,
    ) {
        lock(&self.hang_up).cancel();
        let _conversing = self.conversing.lock().await;
        let hang_up = CancellationToken::new();
        *lock(&self.hang_up) = hang_up.clone();
        let mut round = round::Round::new(&self.store, &self.settings);
        let opened = tokio::select! {
            biased;
            opened = hub.open() => opened.map_err(RoundError::from),
            end = self.end_of_round(stop) => Err(end),
        };
        let mut central = match opened {
            Ok(central) => central,
            Err(error) => {
                let diagnosis = diagnosed(hub, &error, stop).await;
                let report = round.finish(Err(error), &diagnosis, Traffic::default());
                // Kept in the channel for whoever still waits.
                let _ = done.send(Some(self.ended(report).await));
                return;
            }
        };
        let (open, report) = self.run(&mut round, hub, central.as_mut(), stop).await;
        let _ = done.send(Some(report));
        if let Some((node, feed)) = open {
            self.stay(round, hub, central, node, feed, hang_up).await;
        }
    }

    /// Waits until a round that begins now has to end, and says why.
    async fn end_of_round(&self, stop: &CancellationToken) -> RoundError {
        tokio::select! {
            biased;
            () = stop.cancelled() => RoundError::Stopped,
            () = tokio::time::sleep(self.settings.round_timeout) => RoundError::TooLong,
        }
    }

    async fn run(
        &self,
        round: &mut round::Round<'_>,
        hub: &dyn Hub,
        central: &mut dyn Central,
        stop: &CancellationToken,
    ) -> (Option<(String, Box<dyn Feed>)>, Report) {
        let started = tokio::time::Instant::now();
        round.batch_writes = self.batch_writes.load(Ordering::Relaxed);
        round.batch_documents = self.batch_documents.load(Ordering::Relaxed);
        let result = tokio::select! {
            biased;
            end = self.end_of_round(stop) => Err(end),
            result = round.run(central) => result,
            // Nothing was sent yet.
            error = hub.obstacle() => Err(error.into()),
        };
        let (open, result) = match result {
            Ok(open) => (Some(open), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let diagnosis = match &result {
            Ok(()) => Diagnosis::Unknown,
            // The centre has taken what was sent: there is nothing to find out.
            Err(RoundError::Central(crate::central::CentralError::Offline(_))) if round.has_only_sent => {
                Diagnosis::Unknown
            }
            Err(error) => diagnosed(hub, error, stop).await,
        };
        let mut report = round.finish(result, &diagnosis, central.traffic());
        let open = match open {
            Some((node, Some(feed))) if self.settings.continuous && report.outcome == Outcome::Complete => {
                Some((node, feed))
            }
            Some((_, feed)) => {
                central.close().await;
                drop(feed);
                report.set_cost(central.traffic());
                None
            }
            // Whatever went wrong with the line, it is not waited for.
            None => None,
        };
        self.batch_writes.store(round.batch_writes, Ordering::Relaxed);
        self.batch_documents.store(round.batch_documents, Ordering::Relaxed);
        report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        (open, self.ended(report).await)
    }

    /// Stays connected after a complete round, until it is time for the next one or something goes wrong.
    async fn stay(
        self: &Arc<Self>,
        mut round: round::Round<'_>,
        hub: &dyn Hub,
        mut central: Box<dyn Central>,
        node: String,
        feed: Box<dyn Feed>,
        hang_up: CancellationToken,
    ) {
        self.is_connected.store(true, Ordering::Relaxed);
        round.tally = round::Tally::default();
        let before = central.traffic();
        let ended = round.follow(central.as_mut(), &node, feed, &hang_up).await;
        self.is_connected.store(false, Ordering::Relaxed);
        let traffic = central.traffic().since(before);
        match ended {
            Ok(end) => {
                self.charge(traffic).await;
                if let follow::End::RoundNeeded = end {
                    let reconciler = Arc::clone(self);
                    tokio::spawn(async move { reconciler.round().await });
                }
            }
            Err(error) => {
                let diagnosis = diagnosed(hub, &error, &hang_up).await;
                let report = round.finish(Err(error), &diagnosis, traffic);
                self.ended(report).await;
            }
        }
    }

    /// Counts what a connection that stayed open has put on the line.
    async fn charge(&self, traffic: Traffic) {
        let (utc_offset, bytes) = (self.settings.utc_offset, traffic.line_bytes());
        if let Err(error) = self.store.transact(move |tx| budget::charge(tx, utc_offset, bytes)).await {
            tracing::error!(%error, "the bytes of the connection could not be counted");
        }
    }

    /// Keeps and logs the report.
    async fn ended(&self, report: Report) -> Report {
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
            stage = report.stage,
            member = report.member,
            message = %report.message,
            "round ended"
        );
        report
    }

    async fn keep_report(&self, report: &Report) -> Result<(), StoreError> {
        let row = bson::serialize_to_document(report).map_err(|e| StoreError::Unstorable(e.to_string()))?;
        let is_complete = report.outcome == Outcome::Complete;
        let said = report.said.clone();
        let (utc_offset, line_bytes) = (self.settings.utc_offset, report.bytes_sent + report.bytes_received);
        let login_limit = self.login_limit();
        self.store
            .transact(move |tx| {
                budget::charge(tx, utc_offset, line_bytes)?;
                let last = tx.meta(META_REPORT)?.unwrap_or_default();
                let now_ms = tx.now_ms();
                // People were refused until now: what they were let in by before that is over.
                if is_complete && login_limit.until_ms(&last).is_some_and(|until_ms| until_ms <= now_ms) {
                    tx.rights_of_people_changed()?;
                }
                let complete_ms = if is_complete { Some(now_ms) } else { last.get_i64("complete_at").ok() };
                let mut kept = doc! {"report": row.clone(), "at": now_ms};
                kept.insert(SAID_ENDED, &said.ended);
                kept.insert(SAID_REST, &said.rest);
                if let Some(complete_ms) = complete_ms {
                    kept.insert("complete_at", complete_ms);
                }
                kept.insert("first_at", last.get_i64("first_at").unwrap_or(now_ms));
                tx.set_meta(META_REPORT, Some(&kept))
            })
            .await
    }

    /// The centre may have lost attachments, having been restored from an older copy say: the next rounds
    /// ask about all that are here.
    pub async fn recheck_contents(&self) -> Result<(), StoreError> {
        self.store.transact(content_tidy::look_again_soon).await
    }

    /// Whether the centre is known to have no change feed, or to refuse it, so that each round reads everything.
    pub(crate) fn is_without_feed(&self) -> bool {
        // A store that cannot be read says so in the round itself.
        self.store.read().and_then(|snapshot| NoFeed::known(&snapshot)).is_ok_and(|known| known.is_some())
    }

    pub(crate) fn set_next_round(&self, at_ms: Option<i64>) {
        *lock(&self.next_round_ms) = at_ms;
    }
}

impl Report {
    fn set_cost(&mut self, traffic: Traffic) {
        self.round_trips = traffic.round_trips;
        (self.bytes_sent, self.bytes_received) = (traffic.line_bytes_sent, traffic.line_bytes_received);
        self.command_bytes_sent = traffic.command_bytes_sent;
        self.command_bytes_received = traffic.command_bytes_received;
    }

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
            command_bytes_sent: 0,
            command_bytes_received: 0,
            duration_ms: 0,
            stage: None,
            member: None,
            message: message.to_owned(),
            said: Said { ended: message.to_owned(), rest: String::new() },
        }
    }
}

/// Why the centre gave no answer, unless somebody wants the round to end.
async fn diagnosed(hub: &dyn Hub, error: &RoundError, stop: &CancellationToken) -> Diagnosis {
    if !matches!(error, RoundError::Central(_)) {
        return Diagnosis::Unknown;
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => Diagnosis::Unknown,
        diagnosis = hub.diagnose() => diagnosis,
    }
}

/// Everything that happened is known here, and everything that was edited here is known there.
fn note_complete(tx: &mut crate::store::Tx<'_>) -> Result<(), StoreError> {
    let mut kept = tx.meta(META_REPORT)?.unwrap_or_default();
    kept.insert("complete_at", tx.now_ms());
    tx.set_meta(META_REPORT, Some(&kept))
}

/// A poisoned lock only means that another thread panicked between two assignments.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// RFC 3339 in UTC of a moment in milliseconds since 1970, for people.
pub(crate) fn time_text(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A named place between two steps of a round: the crash tests stop the process here, the simulation a node.
pub(crate) fn step(name: &'static str) {
    crate::flaw::step(name);
}
