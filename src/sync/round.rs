//! Floor 3. One round, step by step.
//!
//! LEASE, DRAIN, SETTLE, SCAN, DELETES, CONFLICTS, PUSH, CONTENT, REPORT. Each step leaves the store in a state
//! that the next round understands, so a round may end anywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Document, doc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::budget::Allowance;
use super::drain::{Begun, Source};
use super::scan::{self, Reason};
use super::{SyncSettings, lease, position, step};
use crate::central::{Central, CentralError, Feed, Lease};
use crate::flaw::{Flaw, planted};
use crate::store::{Snapshot, Store, StoreError, off_workers};

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
    #[error("Reading what has changed at the centre took too long; the next round goes on.")]
    ReadingSlow,
    /// The node's row at the centre holds another lease than this round's, or another server process answers.
    #[error(
        "The centre was restarted or set back, or a copy of this node was busy; the next round sorts it out."
    )]
    LeaseLost,
    #[error("Synchronization was paused in the middle of a round; the next one goes on from there.")]
    Stopped,
}

/// Bounds of the number of documents, or of events, that the centre is asked for at a time, and where it
/// begins; powers of two, because the centre's cursor follows doubling and halving.
const READ_MIN: usize = 1;
const READ_MAX: usize = 512;
pub(super) const READ_START: usize = 64;
/// A read that took longer than the first is not followed by a larger one, than the second by a smaller.
const READ_FAST: Duration = Duration::from_secs(2);
const READ_SLOW: Duration = Duration::from_secs(10);
/// Part of a round's time that reading may take.
const READ_TIME_SHARE: f64 = 0.75;
/// Version of the program that ran the last round.
const META_VERSION: &str = "round_version";

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
    /// Writes sent, and documents or events read at a time; they follow the link.
    pub(crate) batch_writes: usize,
    pub(crate) batch_documents: usize,
    /// Why and how far the sweep over the centre came, unless there was none or it reached its end.
    pub(crate) sweep: Option<(Reason, u64)>,
    pub(crate) source: Source,
    /// The lease that the node holds, and the server process that gave it.
    pub(crate) lease: Option<Lease>,
    process: Option<String>,
    /// The feed is being drained up to this round's lease: what it tells is at the centre for good.
    pub(crate) is_draining: bool,
    /// How the node stood when it took the lease.
    announced: Document,
    pub(crate) has_saved_position: bool,
    pub(crate) position_saved: tokio::time::Instant,
    pub(crate) started: tokio::time::Instant,
    /// What this round may spend on what can wait, and whether anything does wait for that reason.
    pub(crate) allowance: Allowance,
    pub(crate) is_large_waiting: bool,
    /// The sweep that is due and has to wait.
    pub(crate) waiting_sweep: Option<Reason>,
    pub(crate) received_before_scan: u64,
    /// Pushes whose end is open, and those that others were always ahead of: the next round goes on with them.
    pub(crate) unfinished: usize,
    /// Open writes could not be settled before people were read again.
    pub(super) has_put_off: bool,
    pub(crate) missed: usize,
    /// Another task reads while this one writes, and is to read again what was missed; cancelled when both are
    /// to end.
    pub(crate) beside: Option<CancellationToken>,
    /// What is to be said about attachments.
    pub(crate) content_note: String,
    /// What else did not work and held up nothing, for people; each sentence after a blank.
    pub(crate) aside: String,
    /// The first failure of a reading in the middle of sending.
    pub(crate) unread: Option<CentralError>,
    /// The first failure of the centre over something that was to be sent, which kept nothing else from being sent.
    pub(crate) unsent: Option<CentralError>,
    /// Rows of the centre's trash that could not be marked in this round.
    pub(super) unmarked: BTreeSet<String>,
    /// A seal was asked for and not confirmed. Another one could hide it from the next round.
    is_unsealed: bool,
    /// Everything was sent, although not everything could be read.
    pub(crate) has_only_sent: bool,
    /// Everything that the centre held when this round began has been read, in this round or before, but for what is noted as
    /// to be read again.
    pub(crate) is_swept: bool,
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
            sweep: None,
            source: Source::Feed,
            lease: None,
            process: None,
            is_draining: false,
            announced: Document::new(),
            has_saved_position: false,
            position_saved: now,
            started: now,
            allowance: Allowance::unlimited(),
            is_large_waiting: false,
            waiting_sweep: None,
            received_before_scan: 0,
            unfinished: 0,
            has_put_off: false,
            missed: 0,
            beside: None,
            content_note: String::new(),
            aside: String::new(),
            unread: None,
            unsent: None,
            unmarked: BTreeSet::new(),
            is_unsealed: false,
            has_only_sent: false,
            is_swept: false,
        }
    }

    /// One that does a part of this one's work in a task of its own, with counts of its own.
    pub(crate) fn beside(&self) -> Round<'a> {
        Round {
            batch_documents: self.batch_documents,
            source: self.source,
            lease: self.lease.clone(),
            process: self.process.clone(),
            ..Round::new(self.store, self.settings)
        }
    }

    /// Lets the size of later reads follow how one of the full size went: a line that is cut after so many
    /// bytes must still carry a whole answer.
    pub(crate) fn fit_reads(&mut self, is_answered: bool, elapsed: Duration) {
        self.batch_documents = if !is_answered || elapsed > READ_SLOW {
            (self.batch_documents / 2).max(READ_MIN)
        } else if elapsed < READ_FAST {
            (self.batch_documents * 2).min(READ_MAX)
        } else {
            self.batch_documents
        };
    }

    /// Runs the steps; returns the node's id at the centre, and the feed where it stands now.
    pub(crate) async fn run(
        &mut self,
        central: &mut dyn Central,
    ) -> Result<(String, Option<Box<dyn Feed>>), RoundError> {
        self.begin().await?;
        let healed = match self.heal(central).await {
            Err(RoundError::Central(error)) => Err(error),
            healed => Ok(healed?),
        };
        let Begun { node, feed, cut } = match self.lease_and_drain(central).await {
            Ok(begun) => begun,
            // Of two failures of the centre the first says more.
            Err(RoundError::Central(error)) => return Err(healed.err().unwrap_or(error).into()),
            Err(error) => return Err(error),
        };
        // A reading that fails, because of one large document on a slow link say, must not hold up local edits.
        let read = match cut {
            Some(error) => Err(error),
            None => match tokio::time::timeout_at(self.reading_deadline(), self.read_on(central)).await {
                Err(_) => Err(RoundError::ReadingSlow),
                Ok(Err(error @ RoundError::Central(_))) => Err(error),
                Ok(read) => Ok(read?),
            },
        };
        let read = healed.map_err(RoundError::from).and(read);
        self.is_swept = read.is_ok() && self.has_swept();
        if self.is_swept {
            self.end_holds().await?;
        }
        match self.send(central, &node).await {
            Ok(held_back) => {
                let read = read.and(self.unread.take().map_or(Ok(()), |error| Err(error.into())));
                self.has_only_sent = read.is_err();
                read?;
                self.content(central).await?;
                self.look_for_namesakes(central, &node).await?;
                self.report(central, &node).await?;
                match (held_back, self.unsent.take()) {
                    (Some(message), _) => Err(RoundError::Halted(message)),
                    (None, Some(error)) => Err(error.into()),
                    (None, None) => Ok((node, feed)),
                }
            }
            Err(error @ RoundError::Central(_)) => Err(read.err().unwrap_or(error)),
            Err(error) => Err(error),
        }
    }

    /// Whether no sweep has a part to come, unless it only makes sure of what is known.
    fn has_swept(&self) -> bool {
        let left = self.sweep.map(|(reason, _)| reason).or(self.waiting_sweep);
        left.is_none_or(|reason| reason == Reason::Verify)
    }

    /// When reading has to end for this time, so that local edits are sent in every round.
    pub(crate) fn reading_deadline(&self) -> tokio::time::Instant {
        self.started + self.settings.round_timeout.mul_f64(READ_TIME_SHARE)
    }

    /// What this node has to tell the centre: conflicts and edits, and the seal behind them. Returns what to say if many
    /// deletes wait for the operator.
    async fn send(&mut self, central: &mut dyn Central, node: &str) -> Result<Option<String>, RoundError> {
        let published = self.publish_conflicts(central, node).await;
        self.note_unsent(published)?;
        let resolutions = self.pull_resolutions(central, node).await;
        self.note_unread(resolutions)?;
        let held_back = self.push(central, node).await?;
        // Pushing may have found more.
        let published = self.publish_conflicts(central, node).await;
        self.note_unsent(published)?;
        self.seal_or_note(central).await?;
        Ok(held_back)
    }

    /// Lets sending go on after something that the centre did not take; the round tells it at its end.
    fn note_unsent(&mut self, sent: Result<(), RoundError>) -> Result<(), RoundError> {
        match sent {
            Err(RoundError::Central(error)) => {
                self.unsent.get_or_insert(error);
                Ok(())
            }
            sent => sent,
        }
    }

    /// Has the round say at its end what was not taken and held up nothing; each once.
    pub(crate) fn note_aside(&mut self, what: &str, error: &CentralError) {
        let sentence = format!(" {what}: {}.", error.told());
        if !self.aside.contains(&sentence) {
            self.aside.push_str(&sentence);
        }
    }

    /// [`Round::seal`], and goes on if the centre answers that it does not take it: what was sent stays open until the
    /// next round has its lease.
    pub(crate) async fn seal_or_note(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        match self.seal(central).await {
            Err(RoundError::Central(error)) if error.is_about_call() => {
                self.unsent.get_or_insert(error);
                Ok(())
            }
            sealed => sealed,
        }
    }

    /// Lets sending go on after a reading that failed; the round tells it at its end.
    pub(crate) fn note_unread(&mut self, read: Result<(), RoundError>) -> Result<(), RoundError> {
        match read {
            Err(RoundError::Central(error)) => {
                self.unread.get_or_insert(error);
                Ok(())
            }
            read => read,
        }
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        self.allowance = Allowance::now(self.store, self.settings)?;
        self.is_disk_short();
        self.store
            .transact(|tx| -> Result<(), StoreError> {
                // No read of an earlier round is on its way any more.
                tx.forget_touched();
                scan::mend_position(tx)?;
                position::mend(tx)?;
                // What an older version could not send, this one may be able to.
                let version = doc! {"version": env!("CARGO_PKG_VERSION")};
                if tx.meta(META_VERSION)?.as_ref() != Some(&version) {
                    tx.set_meta(META_VERSION, Some(&version))?;
                    tx.retry_refused()?;
                }
                Ok(())
            })
            .await
    }

    /// Whether the disk is too full to take more from the centre; if so, the report says it.
    pub(crate) fn is_disk_short(&mut self) -> bool {
        let shortage = self.store.shortage();
        if let Some(shortage) = shortage {
            self.allowance.wait_for_space(shortage);
            self.is_large_waiting = true;
        }
        shortage.is_some()
    }

    /// What is to be read besides what the feed told.
    async fn read_on(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        self.note_sweep_ahead().await?;
        self.settle(central).await?;
        self.reread(central).await?;
        // Writes that waited for people to be read again.
        if std::mem::take(&mut self.has_put_off) {
            self.settle(central).await?;
            self.reread(central).await?;
        }
        self.deletes_before_sweep().await?;
        self.scan(central).await?;
        self.deletes().await?;
        self.end_restore().await?;
        let taken = self.take_over_conflicts(central).await;
        self.note_unread(taken)
    }

    /// What the centre is told together with the lease: who this is, and how it stands as the round begins.
    pub(crate) fn announcement(&mut self) -> Result<Document, StoreError> {
        let snapshot = self.store.read()?;
        self.announced = standing(&snapshot)?;
        let mut announcement = doc! {"name": &self.settings.node_name, "version": env!("CARGO_PKG_VERSION")};
        announcement.extend(self.announced.clone());
        // Whoever cuts off or rewrites the end of the trail here cannot do so there.
        let head = snapshot.audit_head()?;
        if snapshot.audit_acknowledged()? != Some(head) {
            announcement.insert(lease::ANNOUNCED_AUDIT, head.to_string());
        }
        announcement.insert("last_round_at", bson::DateTime::from_millis(self.store.now_ms()));
        Ok(announcement)
    }

    /// The lease of this round.
    pub(crate) fn hold_lease(&mut self, lease: Lease, central: &dyn Central) {
        (self.lease, self.process) = (Some(lease), central.process());
    }

    pub(crate) fn lease_number(&self) -> i64 {
        self.lease.as_ref().map_or(0, |lease| lease.number)
    }

    /// Has the centre keep what was sent and taken since the last seal, if anything was, and tells it how this node
    /// stands.
    pub(crate) async fn seal(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let snapshot = self.store.read()?;
        let Some(lease) = self.lease.clone().filter(|_| !planted(Flaw::NeverSealed) && !self.is_unsealed)
        else {
            return Ok(());
        };
        if !snapshot.is_seal_due()? {
            return Ok(());
        }
        let (standing, delivered) = (standing(&snapshot)?, snapshot.delivered()?);
        drop(snapshot);
        let changed = standing.iter().filter(|(field, value)| self.announced.get(field) != Some(value));
        let mut changed: Document = changed.map(|(field, value)| (field.clone(), value.clone())).collect();
        changed.extend(delivered);
        let is_echo_due = self.source == Source::Feed;
        let process = self.process.as_deref();
        let sealed = lease::seal(self.store, central, &lease, process, &changed, is_echo_due).await;
        self.is_unsealed = sealed.is_err();
        let sealed = sealed?;
        (self.lease, self.announced) = (Some(sealed), standing);
        Ok(())
    }

    /// Tells the centre how this node stands now, if that has changed since it was last told.
    async fn report(&mut self, central: &mut dyn Central, node: &str) -> Result<(), RoundError> {
        let standing = standing(&*self.store.read()?)?;
        let Some(lease) = self.lease.as_ref().filter(|_| standing != self.announced) else {
            return Ok(());
        };
        step("report.before");
        central.report(node, lease, &standing).await?;
        step("report.sent");
        Ok(())
    }
}

/// How the node stands once the next seal is there, as the federation's administrator sees it.
fn standing(snapshot: &Snapshot) -> Result<Document, StoreError> {
    off_workers(|| {
        Ok(doc! {
            "pending": (snapshot.pending_count()? - snapshot.clean_with_seal_count()?) as i64,
            "conflicts_open": snapshot.open_conflicts_count()? as i64,
            "conflicts_unpublished": snapshot.unpublished_conflicts_count()? as i64,
            "dead": snapshot.dead_count()? as i64,
            "waiting": snapshot.held_back_count()? as i64,
            "content_owed": snapshot.content_owed_count()? as i64,
        })
    })
}

/// A body without the fields that are never shown.
pub(crate) fn without_secrets(
    schema: &crate::domain::schema::Schema,
    body: &bson::Document,
) -> bson::Document {
    schema.without_secrets(body)
}
