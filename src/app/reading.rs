//! Floor 5. Which connections may read: only some at the same time.
//!
//! HTTP/2 unpacks the heads of many requests from a few bytes, and each waits for a thread before anything counts it. So a
//! connection that has read lets the requests that it began come first.
//!
//! Connections come to read in the order in which they asked. One that does not come when it is its turn loses it: it may
//! wait for its client to take what is written, and a few that take nothing must not keep all others from being read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// How long a turn is kept for a connection that does not come.
const COMES_WITHIN: Duration = Duration::from_millis(20);

const IDLE: u8 = 0;
const ASKS: u8 = 1;
const IS_OFFERED: u8 = 2;
const READS: u8 = 3;

/// The places of those who read.
#[derive(Clone)]
pub(super) struct Readers(Arc<Semaphore>);

impl Readers {
    pub(super) fn new(places: usize) -> Readers {
        Readers(Arc::new(Semaphore::new(places)))
    }

    /// What a connection asks with. Has to be polled by one task at a time.
    pub(super) fn reading(&self) -> Reading {
        Reading { readers: self.clone(), turn: Arc::default() }
    }
}

/// Whether one connection may read.
pub(super) struct Reading {
    readers: Readers,
    turn: Arc<Turn>,
}

/// A connection's turn, whether it waits for it or has it.
#[derive(Default)]
struct Turn {
    is: AtomicU8,
    waker: AtomicWaker,
    has_come: Notify,
}

impl Turn {
    /// False if it was something else.
    fn becomes(&self, from: u8, to: u8) -> bool {
        self.is.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Reading {
    /// Ready once the connection may read: for as long as those that it wakes have not been looked at.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let turn = &self.turn;
        // Registered first, so that an offer in between is not missed.
        turn.waker.register(context.waker());
        if turn.becomes(IS_OFFERED, READS) {
            turn.has_come.notify_one();
            return Poll::Ready(Ok(()));
        }
        if turn.is.load(Ordering::Acquire) == READS {
            return Poll::Ready(Ok(()));
        }
        if !turn.becomes(IDLE, ASKS) {
            return Poll::Pending;
        }
        match Arc::clone(&self.readers.0).try_acquire_owned() {
            Ok(place) => {
                turn.is.store(READS, Ordering::Release);
                tokio::spawn(give_back_behind_others(Arc::clone(turn), place));
                Poll::Ready(Ok(()))
            }
            Err(TryAcquireError::NoPermits) => {
                tokio::spawn(offer(self.readers.clone(), Arc::clone(turn)));
                Poll::Pending
            }
            Err(TryAcquireError::Closed) => Poll::Ready(Err(io::ErrorKind::Other.into())),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.turn.has_come.notify_one();
    }
}

/// Runs when the requests that the connection is about to begin have had their first look.
async fn give_back_behind_others(turn: Arc<Turn>, place: OwnedSemaphorePermit) {
    tokio::task::yield_now().await;
    turn.is.store(IDLE, Ordering::Release);
    drop(place);
}

/// Waits for the connection's turn, and keeps it for a moment.
async fn offer(readers: Readers, turn: Arc<Turn>) {
    let Ok(place) = readers.0.acquire_owned().await else {
        return;
    };
    turn.is.store(IS_OFFERED, Ordering::Release);
    turn.waker.wake();
    let came = tokio::time::timeout(COMES_WITHIN, turn.has_come.notified()).await;
    if came.is_err() {
        if turn.becomes(IS_OFFERED, IDLE) {
            return;
        }
        // It has come just now.
        turn.has_come.notified().await;
    }
    give_back_behind_others(turn, place).await;
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn reads(reading: &mut Reading) {
        poll_fn(|context| reading.poll(context)).await.expect("no error");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_come_keeps_nobody_waiting() {
        let readers = Readers::new(2);
        let mut first: Vec<_> = (0..2).map(|_| readers.reading()).collect();
        for reading in &mut first {
            reads(reading).await;
        }
        // They ask while both places are taken, and never look again.
        let mut lost: Vec<_> = (0..40).map(|_| readers.reading()).collect();
        for reading in &mut lost {
            let waker = futures_util::task::noop_waker();
            assert!(reading.poll(&Context::from_waker(&waker)).is_pending());
        }
        let mut honest = readers.reading();
        let begun = tokio::time::Instant::now();
        tokio::time::timeout(COMES_WITHIN * 21, reads(&mut honest)).await.expect("its turn comes");
        assert!(begun.elapsed() >= COMES_WITHIN, "behind those who asked before");
        // Those who come at last ask anew.
        for reading in &mut lost {
            reads(reading).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_keeps_no_turn() {
        let readers = Readers::new(1);
        let mut first = readers.reading();
        reads(&mut first).await;
        let mut gone: Vec<_> = (0..1000).map(|_| readers.reading()).collect();
        for reading in &mut gone {
            let waker = futures_util::task::noop_waker();
            assert!(reading.poll(&Context::from_waker(&waker)).is_pending());
        }
        drop(gone);
        let begun = tokio::time::Instant::now();
        reads(&mut readers.reading()).await;
        assert!(begun.elapsed() < COMES_WITHIN, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_read_than_there_are_places() {
        let readers = Readers::new(3);
        let mut all: Vec<_> = (0..50).map(|_| readers.reading()).collect();
        let mut rounds = 0;
        while !all.is_empty() {
            let before = all.len();
            let waker = futures_util::task::noop_waker();
            all.retain_mut(|reading| reading.poll(&Context::from_waker(&waker)).is_pending());
            assert!(before - all.len() <= 3, "{before} {}", all.len());
            rounds += 1;
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        assert!(rounds >= 17, "{rounds}");
    }
}
