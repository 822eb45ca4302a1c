//! Floor 5. How fast a connection may send what makes no request and is no part of one.
//!
//! Every frame costs the node time, also one that asks for nothing: pings, settings, priorities, kinds that nobody knows. No
//! client has use for many of them. A connection that sends more is read more slowly, so that it takes none of the time of
//! others; it is not ended, because what it sent is allowed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bytes of such frames that come in at once; the same again each second. A client that takes 100 MB a second in steps of
/// 32 KiB sends half of it.
const BYTES_A_SECOND: u32 = 96 * 1024;

/// What one connection has left.
pub(super) struct Pace {
    /// Bytes.
    spent: u32,
    /// When `spent` was true.
    at: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { spent: 0, at: Instant::now(), pause: None }
    }

    /// So many bytes came that are no part of a request.
    pub(super) fn spend(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let now = Instant::now();
        let earned = (now - self.at).as_secs_f64() * f64::from(BYTES_A_SECOND);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // Casts of floats stay within the bounds of their type.
        self.spent = self.spent.saturating_sub(earned as u32).saturating_add(bytes);
        self.at = now;
        if let Some(above) = self.spent.checked_sub(BYTES_A_SECOND).filter(|above| *above > 0) {
            let seconds = f64::from(above) / f64::from(BYTES_A_SECOND);
            self.pause = Some(Box::pin(tokio::time::sleep_until(now + Duration::from_secs_f64(seconds))));
        }
    }

    /// Ready once the connection may be read.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const READ_BYTES: usize = 16 * 1024;

    /// Seconds in which so many bytes are read.
    async fn seconds_for(pace: &mut Pace, bytes: usize) -> f64 {
        let begun = Instant::now();
        for _ in 0..bytes / READ_BYTES {
            poll_fn(|context| pace.poll(context)).await;
            pace.spend(READ_BYTES);
        }
        poll_fn(|context| pace.poll(context)).await;
        begun.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_are_free_and_all_others_take_their_time() {
        let mut pace = Pace::new();
        let burst = BYTES_A_SECOND as usize;
        assert!(seconds_for(&mut pace, burst).await < 0.01);
        let taken = seconds_for(&mut pace, 10 * burst).await;
        assert!((9.9..10.2).contains(&taken), "{taken} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_below_the_rate_is_never_held_up() {
        let mut pace = Pace::new();
        for _ in 0..200 {
            pace.spend(READ_BYTES / 2);
            let begun = Instant::now();
            poll_fn(|context| pace.poll(context)).await;
            assert!(begun.elapsed() < Duration::from_millis(2));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
