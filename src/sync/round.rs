//! Floor 3. One round, step by step.
//!
//! LEASE, SETTLE, SCAN, DELETES, CONFLICTS, PUSH, REPORT. Each step leaves the store in a state that the
//! next round understands, so a round may end anywhere.

use bson::doc;
use serde::Serialize;

use super::{Report, SyncSettings, lease, step};
use crate::central::{Central, CentralError, Hub, Lease, Traffic};
use crate::store::{Store, StoreError};

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything that was to be pulled and pushed has been.
    Complete,
    /// Went well as far as it came; the rest follows in the next round.
    Partial,
    /// The centre was not reachable, or no longer; normal for a clinic.
    Offline,
    /// A person must decide before anything goes on.
    Halted,
    Failed,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::Partial => "partial",
            Outcome::Offline => "offline",
            Outcome::Halted => "halted",
            Outcome::Failed => "failed",
        }
    }
}

/// Why a round stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error(transparent)]
    Central(#[from] CentralError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// In words for whoever has to decide.
    #[error("{0}")]
    Halted(String),
    #[error("the round took too long and goes on in the next one")]
    TooLong,
}

/// One round of so many, the first among them, tries refused pushes again and looks for records that
/// rounds pass over.
const THOROUGH_EVERY_ROUNDS: i64 = 100;

/// Counts of what a round did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) pulled: u64,
    pub(crate) pushed: u64,
    pub(crate) merged: u64,
    pub(crate) deleted: u64,
    pub(crate) conflicts: u64,
    pub(crate) dead: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.pulled += other.pulled;
        self.pushed += other.pushed;
        self.merged += other.merged;
        self.deleted += other.deleted;
        self.conflicts += other.conflicts;
        self.dead += other.dead;
    }
}

pub(crate) struct Round<'a> {
    pub(crate) store: &'a Store,
    pub(crate) settings: &'a SyncSettings,
    pub(crate) tally: Tally,
    /// Writes sent and documents read at a time; they follow the link.
    pub(crate) batch_writes: usize,
    pub(crate) batch_documents: usize,
    /// How far the sweep over the centre came, unless it reached its end.
    pub(crate) sweep_percent: Option<u64>,
    pub(crate) has_saved_position: bool,
    pub(crate) position_saved: tokio::time::Instant,
    pub(crate) started: tokio::time::Instant,
    /// Pushes whose end is open, or that others were always ahead of: the next round goes on with them.
    pub(crate) unfinished: usize,
    traffic: Traffic,
}

impl<'a> Round<'a> {
    pub(crate) fn new(store: &'a Store, settings: &'a SyncSettings) -> Self {
        let now = tokio::time::Instant::now();
        Round {
            store,
            settings,
            tally: Tally::default(),
            batch_writes: 1,
            batch_documents: 1,
            sweep_percent: None,
            has_saved_position: false,
            position_saved: now,
            started: now,
            unfinished: 0,
            traffic: Traffic::default(),
        }
    }

    pub(crate) async fn run(&mut self, hub: &dyn Hub) -> Result<(), RoundError> {
        let mut central = hub.open().await?;
        let result = self.steps(central.as_mut()).await;
        self.traffic = central.traffic();
        result
    }

    async fn steps(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        // No read of an earlier round is on its way any more.
        self.store
            .transact(|tx| -> Result<(), StoreError> {
                tx.forget_touched();
                Ok(())
            })
            .await?;
        let (node, lease) = lease::take(self.store, central, &self.settings.node_name).await?;
        self.settle(central).await?;
        if lease.number % THOROUGH_EVERY_ROUNDS == 1 {
            self.store.transact(|tx| tx.retry_refused()).await?;
            self.count_unsupported(central).await?;
        }
        // A scan that is cut off, by one large document on a slow link say, must not hold up local edits.
        let scanned = match self.scan(central).await {
            Err(error @ RoundError::Central(CentralError::Offline(_))) => Err(error),
            scanned => Ok(scanned?),
        };
        self.end_holds().await?;
        self.publish_conflicts(central, &node).await?;
        self.pull_resolutions(central, &node).await?;
        self.push(central, &node).await?;
        scanned?;
        // Pushing may have found more.
        self.publish_conflicts(central, &node).await?;
        self.report(central, &node, &lease).await
    }

    /// Tells the centre how this node stands.
    async fn report(
        &mut self,
        central: &mut dyn Central,
        node: &str,
        lease: &Lease,
    ) -> Result<(), RoundError> {
        step("report.before");
        let snapshot = self.store.read()?;
        let now = bson::DateTime::from_millis(self.store.now_ms());
        let report = doc! {
            "pending": snapshot.pending_count()? as i64,
            "conflicts_open": snapshot.open_conflicts_count()? as i64,
            "dead": snapshot.dead_count()? as i64,
            "last_round_at": now,
        };
        drop(snapshot);
        central.report(node, lease, &report).await?;
        step("report.sent");
        Ok(())
    }

    /// The report of the round, whatever became of it.
    pub(crate) fn finish(&mut self, result: Result<(), RoundError>) -> Report {
        let (outcome, message) = match result {
            Ok(()) => match self.sweep_percent {
                None if self.unfinished > 0 => (
                    Outcome::Partial,
                    format!("{} records are sent again in the next round.", self.unfinished),
                ),
                None => (Outcome::Complete, self.complete_message()),
                Some(percent) => (
                    Outcome::Partial,
                    format!(
                        "{percent} % of the centre's records have been looked through; the next round goes on."
                    ),
                ),
            },
            Err(RoundError::Central(CentralError::Offline(cause))) => {
                tracing::info!(%cause, "the centre cannot be reached");
                let message = "The centre cannot be reached. Everything is kept here and will be sent later.";
                (Outcome::Offline, message.to_owned())
            }
            Err(RoundError::Halted(message)) => (Outcome::Halted, message),
            Err(RoundError::TooLong) => (Outcome::Partial, RoundError::TooLong.to_string()),
            Err(error) => {
                tracing::error!(%error, "the round failed");
                (Outcome::Failed, format!("The round failed: {error}."))
            }
        };
        let Tally { pulled, pushed, merged, deleted, conflicts, dead } = self.tally;
        let Traffic { round_trips, line_bytes_sent, line_bytes_received, .. } = self.traffic;
        Report {
            outcome,
            pulled,
            pushed,
            merged,
            deleted,
            conflicts,
            dead,
            round_trips,
            bytes_sent: line_bytes_sent,
            bytes_received: line_bytes_received,
            duration_ms: 0,
            message,
        }
    }

    fn complete_message(&self) -> String {
        let mut message = "Everything is up to date with the centre.".to_owned();
        if self.tally.conflicts > 0 {
            message.push_str(" Some records differ and wait for a decision: see the conflicts.");
        }
        let held = self.store.read().and_then(|snapshot| snapshot.holds_count()).unwrap_or(0);
        if held > 0 {
            message.push_str(&format!(
                " Accounts that two people have, one here and one at the centre: {held}. They and their records \
                 wait for a decision: see the conflicts."
            ));
        }
        let unsupported = self.unsupported_known();
        if unsupported > 0 {
            message.push_str(&format!(
                " {unsupported} records at the centre have ids that are no text and were left alone."
            ));
        }
        message
    }
}

/// A body without the fields that are never shown.
pub(crate) fn without_secrets(
    schema: &crate::domain::schema::Schema,
    body: &bson::Document,
) -> bson::Document {
    schema.without_secrets(body)
}
