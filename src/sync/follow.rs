//! Floor 3. Staying connected: news is taken as the centre tells it, and local edits go there at once.
//!
//! For places with a steady link. The conversation and the feed of a complete round stay open. One half takes
//! news, the other sends edits, each over a conversation of its own, so that an edit never waits for what
//! others have written. Only the first half reads, so reads keep their order; what keeps a read and a write of
//! one record apart are the guards of the store ([`Tx::is_read_stale`], [`Tx::settle_intent`]). Whatever is not
//! plain sailing ends both, and a round sorts it out.
//!
//! [`Tx::is_read_stale`]: crate::store::Tx::is_read_stale
//! [`Tx::settle_intent`]: crate::store::Tx::settle_intent

use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::push::PUSH_TRIES_MAX;
use super::round::{Round, RoundError};
use crate::central::{Central, CentralError, Changes, Feed, Token};
use crate::store::StoreError;

/// Local edits that come within this time go together.
const GATHER: Duration = Duration::from_millis(200);
/// What was taken from the centre is sealed after this time, unless edits are sealed before.
const SEAL_AFTER: Duration = Duration::from_secs(60);
/// A position in the feed without news is saved this often.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Times in a row that records are read again and some are left, before a round sorts it out.
const REREADS_MAX: u32 = 3;
/// Batches of news that may wait to be taken.
const WAITING_BATCHES_MAX: usize = 4;

/// Why the connection ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The next round is due, or the process stops.
    HungUp,
    /// Something is left open that only a round can settle.
    RoundNeeded,
}

type News = Result<(Changes, Option<Token>), CentralError>;

/// What the two halves tell each other.
struct Signals {
    /// Something is to be read again.
    read: Notify,
    /// What was to be read again has been: edits that waited for it can go.
    send: Notify,
    /// Something was taken that is to be sealed.
    seal: Notify,
    /// Both are to end.
    end: CancellationToken,
}

impl Signals {
    /// One half; its end is the end of both.
    async fn ending(&self, half: impl Future<Output = Result<End, RoundError>>) -> Result<End, RoundError> {
        let _ends = self.end.clone().drop_guard();
        half.await
    }
}

impl Round<'_> {
    /// Follows the feed and the local edits until something ends it.
    pub(crate) async fn follow(
        &mut self,
        central: &mut dyn Central,
        node: &str,
        feed: Box<dyn Feed>,
        hang_up: &CancellationToken,
    ) -> Result<End, RoundError> {
        let mut reading = central.beside().await?;
        let mut reader = self.beside();
        let signals = Signals {
            read: Notify::new(),
            send: Notify::new(),
            seal: Notify::new(),
            end: hang_up.child_token(),
        };
        self.beside = Some(signals.end.clone());
        // Whichever half ends lets the other finish what it has begun: a write that is given up on its way
        // would have to be settled.
        let (taken, sent) = tokio::join!(
            signals.ending(reader.take_news(reading.as_mut(), feed, &signals)),
            signals.ending(self.send_edits(central, node, &signals)),
        );
        self.tally += reader.tally;
        match (taken, sent) {
            (Err(error), sent) => {
                if let Err(other) = sent {
                    tracing::info!(%other, "sending ended too");
                }
                Err(error)
            }
            (Ok(End::RoundNeeded), Ok(_)) => Ok(End::RoundNeeded),
            (Ok(_), sent) => sent,
        }
    }

    /// Takes what the feed tells, and reads again what is to be, until both are to end.
    async fn take_news(
        &mut self,
        central: &mut dyn Central,
        feed: Box<dyn Feed>,
        signals: &Signals,
    ) -> Result<End, RoundError> {
        let (tell, mut told) = mpsc::channel(WAITING_BATCHES_MAX);
        let _reading = AbortOnDropHandle::new(tokio::spawn(read(feed, tell)));
        let (mut saved, mut left) = (tokio::time::Instant::now(), 0);
        loop {
            let news = tokio::select! {
                biased;
                () = signals.end.cancelled() => return Ok(End::HungUp),
                () = signals.read.notified() => None,
                news = told.recv() => Some(news.unwrap_or_else(|| Err(ended()))?),
            };
            let is_news = news.is_some();
            if let Some((changes, token)) = news {
                if changes.is_lost {
                    return Ok(End::RoundNeeded);
                }
                if changes.events.is_empty() && !changes.has_other_ids && saved.elapsed() < SAVE_EVERY {
                    continue;
                }
                saved = tokio::time::Instant::now();
                self.take_changes(central, changes, token).await?;
            }
            if self.is_to_read_again()? {
                if self.is_disk_short() {
                    // A round says why, and the next ones try again.
                    return Ok(End::RoundNeeded);
                }
                self.reread(central).await?;
                // What waits for something that only a round can settle would be read again and again.
                left = if self.is_to_read_again()? { left + 1 } else { 0 };
                if left == REREADS_MAX {
                    return Ok(End::RoundNeeded);
                }
                signals.send.notify_one();
            }
            self.deletes().await?;
            if is_news {
                self.store.transact(super::note_complete).await?;
            }
            if self.store.read()?.is_seal_due()? {
                signals.seal.notify_one();
            }
        }
    }

    /// Sends what is edited, until both are to end.
    async fn send_edits(
        &mut self,
        central: &mut dyn Central,
        node: &str,
        signals: &Signals,
    ) -> Result<End, RoundError> {
        let mut edits = self.store.changes();
        // What was edited while the round pushed.
        edits.mark_changed();
        let mut misses = 0;
        let mut seal_due: Option<tokio::time::Instant> = None;
        loop {
            let far = tokio::time::Instant::now() + SAVE_EVERY;
            tokio::select! {
                biased;
                () = signals.end.cancelled() => return Ok(End::HungUp),
                () = signals.send.notified() => {}
                () = signals.seal.notified(), if seal_due.is_none() => {
                    seal_due = Some(tokio::time::Instant::now() + SEAL_AFTER);
                    continue;
                }
                () = tokio::time::sleep_until(seal_due.unwrap_or(far)), if seal_due.is_some() => {}
                edited = edits.changed() => if edited.is_err() {
                    return Ok(End::HungUp);
                },
            }
            tokio::select! {
                biased;
                () = signals.end.cancelled() => return Ok(End::HungUp),
                () = tokio::time::sleep(GATHER) => {}
            }
            edits.mark_unchanged();
            // News keeps the line alive for the driver, whatever became of the connection of this half.
            let pushing = tokio::time::timeout(self.settings.round_timeout, self.push(central, node));
            if let Some(message) = pushing.await.map_err(|_| RoundError::TooLong)?? {
                return Err(RoundError::Halted(message));
            }
            if let Some(error) = self.unsent.take() {
                return Err(error.into());
            }
            self.publish_conflicts(central, node).await?;
            match self.seal(central).await {
                Err(RoundError::LeaseLost) => return Ok(End::RoundNeeded),
                sealed => sealed?,
            }
            seal_due = None;
            misses = if std::mem::take(&mut self.missed) > 0 { misses + 1 } else { 0 };
            if self.unfinished > 0 || misses == PUSH_TRIES_MAX {
                return Ok(End::RoundNeeded);
            }
            // Missed, or told of while its write was on the way.
            if self.is_to_read_again()? {
                signals.read.notify_one();
            }
        }
    }

    fn is_to_read_again(&self) -> Result<bool, StoreError> {
        Ok(!self.store.read()?.to_read_again(None, 1)?.is_empty())
    }
}

fn ended() -> CentralError {
    CentralError::Offline("its change feed ended".into())
}

/// Hands on what the feed tells; a read that has begun is never given up, because what it brings would be
/// lost.
async fn read(mut feed: Box<dyn Feed>, tell: mpsc::Sender<News>) {
    loop {
        let news = feed.next().await.map(|changes| (changes, feed.token()));
        let is_over = news.as_ref().map_or(true, |(changes, _)| changes.is_lost);
        if tell.send(news).await.is_err() || is_over {
            return;
        }
    }
}
