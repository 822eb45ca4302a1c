//! Floor 3. Staying connected: news is taken as the centre tells it, and local edits go there at once.
//!
//! For places with a steady link. The conversation and the feed of a complete round stay open; the feed is
//! read beside the writing. Whatever is not plain sailing ends this, and a round sorts it out.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::round::{Round, RoundError};
use crate::central::{Central, CentralError, Changes, Feed, Token};

/// Local edits that come within this time go together.
const GATHER: Duration = Duration::from_millis(200);
/// A position in the feed without news is saved this often.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Batches of news that may wait to be taken.
const WAITING_BATCHES_MAX: usize = 4;

/// Why the connection ended without an error.
pub(crate) enum End {
    /// The next round is due, or the process stops.
    HungUp,
    /// Something is left open that only a round can settle.
    RoundNeeded,
}

type News = Result<(Changes, Option<Token>), CentralError>;

impl Round<'_> {
    /// Follows the feed and the local edits until something ends it.
    pub(crate) async fn follow(
        &mut self,
        central: &mut dyn Central,
        node: &str,
        feed: Box<dyn Feed>,
        hang_up: &CancellationToken,
    ) -> Result<End, RoundError> {
        let (tell, mut told) = mpsc::channel(WAITING_BATCHES_MAX);
        let _reading = AbortOnDropHandle::new(tokio::spawn(read(feed, tell)));
        let mut edits = self.store.changes();
        // What was edited while the round pushed.
        edits.mark_changed();
        let mut saved = tokio::time::Instant::now();
        let mut is_news_first = true;
        loop {
            let next = next(hang_up, &mut told, &mut edits, is_news_first).await;
            is_news_first = !matches!(next, Next::News(_));
            match next {
                Next::HungUp => return Ok(End::HungUp),
                Next::News(news) => {
                    let (changes, token) = news?;
                    if changes.is_lost {
                        return Ok(End::RoundNeeded);
                    }
                    if changes.events.is_empty() && saved.elapsed() < SAVE_EVERY {
                        continue;
                    }
                    saved = tokio::time::Instant::now();
                    self.take_changes(central, changes, token).await?;
                    self.reread(central).await?;
                    self.deletes().await?;
                    self.store.transact(super::note_complete).await?;
                }
                Next::Edited => {
                    tokio::time::sleep(GATHER).await;
                    edits.mark_unchanged();
                    if let Some(message) = self.push(central, node).await? {
                        return Err(RoundError::Halted(message));
                    }
                    self.publish_conflicts(central, node).await?;
                    if self.unfinished > 0 {
                        return Ok(End::RoundNeeded);
                    }
                }
            }
        }
    }
}

/// What there is to be done next.
enum Next {
    HungUp,
    News(News),
    Edited,
}

/// Waits for news and local edits. Where both are there they take turns, so that neither keeps the other waiting,
/// and a test that runs twice runs the same way.
async fn next(
    hang_up: &CancellationToken,
    told: &mut mpsc::Receiver<News>,
    edits: &mut watch::Receiver<u64>,
    is_news_first: bool,
) -> Next {
    let news = |news: Option<News>| Next::News(news.unwrap_or_else(|| Err(ended())));
    let edited = |edited: Result<(), watch::error::RecvError>| edited.map_or(Next::HungUp, |()| Next::Edited);
    if is_news_first {
        tokio::select! {
            biased;
            () = hang_up.cancelled() => Next::HungUp,
            told = told.recv() => news(told),
            change = edits.changed() => edited(change),
        }
    } else {
        tokio::select! {
            biased;
            () = hang_up.cancelled() => Next::HungUp,
            change = edits.changed() => edited(change),
            told = told.recv() => news(told),
        }
    }
}

fn ended() -> CentralError {
    CentralError::Offline("its change feed ended".to_owned())
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
