//! Places for pieces of answers that are under way. A list is let in when nothing of it is known yet, so each of its
//! pieces needs room of its own, which is counted before the piece is given to the connection.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::rooms::{ROOM_LOOK, ROOM_WAIT};
use super::{ANSWERS_EACH_MAX, Clients, Crowded, Holding, REQUEST_BYTES, RESERVE_BYTES, SMALL_BYTES, Turn};

/// How long an answer that has begun waits for room for its next piece. It holds little meanwhile, and a client whose
/// answer is broken off would have to begin anew.
const GOING_ON_WAIT: Duration = Duration::from_secs(30);
/// How often such an answer tries to make room, in milliseconds. It is told at once when some comes free.
const GOING_ON_LOOK: u64 = 250;
/// From how many bytes on what comes free is told to those who wait for a place.
const TOLD_BYTES: usize = 16 << 10;

impl Clients {
    /// Tells those who wait for a place that so many bytes have come free.
    pub(super) fn tell_of_room(&self, bytes: usize) {
        if bytes >= TOLD_BYTES && self.waiting_for_places.load(Ordering::Relaxed) > 0 {
            self.places.notify_waiters();
        }
    }
}

impl Turn {
    /// Whether the next piece of its answer may have so many bytes now. Nobody loses anything for it.
    fn fits(&self, bytes: usize) -> bool {
        let client = self.client();
        if !client.has_own_room() {
            return false;
        }
        let in_all = client.in_all(self.clients());
        let with_it = in_all.saturating_add(bytes);
        let is_small = client.held().saturating_add(bytes) < SMALL_BYTES;
        // What fits nowhere may be held while all hold little.
        let max = self.clients().answers_max();
        with_it <= max || in_all < ANSWERS_EACH_MAX || is_small && with_it <= max + RESERVE_BYTES
    }

    /// How many of so many bytes of the next piece need a count of their own: room for a small answer is among the request.
    fn uncounted(&self, bytes: usize) -> usize {
        let ahead = self.ahead.load(Ordering::Relaxed);
        if bytes > REQUEST_BYTES { bytes.saturating_sub(ahead) } else { 0 }
    }

    /// Counts so many bytes of the next piece of its answer; false, and nothing is counted, where there is no room.
    pub(super) fn take_place(&self, bytes: usize) -> bool {
        let more = self.uncounted(bytes);
        if more > 0 {
            if !self.fits(bytes) {
                return false;
            }
            self.count_ahead(more);
        }
        self.placed.fetch_max(bytes, Ordering::Relaxed);
        true
    }

    /// Gives its place back: who waits for a larger one keeps nobody else waiting with it.
    fn give_place_back(&self) {
        self.placed.store(0, Ordering::Relaxed);
        self.let_go(self.ahead.swap(0, Ordering::Relaxed));
    }

    fn count_ahead(&self, bytes: usize) {
        self.ahead.fetch_add(bytes, Ordering::Relaxed);
        self.hold(bytes);
    }

    /// Counts so many bytes that are made already. They have their place if there is room for them now, before another
    /// answer of the client is counted: of two that come together, one is given.
    pub(super) fn count_made(&self, bytes: usize) {
        let more = self.uncounted(bytes);
        if more > 0 {
            if self.has_room_for(Some(bytes as u64)) {
                self.placed.fetch_max(bytes, Ordering::Relaxed);
            }
            self.count_ahead(more);
        }
    }

    /// Takes a place as soon as there is room, at the cost of clients that have much. What the turn has a place for already
    /// must be let go: it is counted no more while it waits.
    pub(super) async fn wait_for_room_of(self: Arc<Self>, bytes: usize) -> Result<(), Crowded> {
        if self.take_place(bytes) {
            return Ok(());
        }
        self.give_place_back();
        let has_begun = self.taken.load(Ordering::Relaxed) > 0;
        // An answer that has begun may always wait.
        let _waiting = if has_begun { None } else { Some(self.wait()?) };
        let (patience, pause) = match has_begun {
            true => (GOING_ON_WAIT, GOING_ON_LOOK),
            false => (ROOM_WAIT, ROOM_LOOK),
        };
        let (until, pause) = (Instant::now() + patience, Duration::from_millis(pause));
        let _place = WaitingForPlace::of(&self);
        let mut next_look = Instant::now();
        loop {
            let mut told = Box::pin(self.clients().places.notified());
            let mut own = Box::pin(self.share().room.notified());
            // Nothing is missed between the look and the wait.
            told.as_mut().enable();
            own.as_mut().enable();
            if self.take_place(bytes) {
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                return Err(Crowded);
            }
            if now >= next_look {
                next_look = now + pause;
                self.clients().make_room_for_place(self.client(), bytes);
            }
            tokio::select! {
                () = told => {}
                () = own => {}
                () = tokio::time::sleep_until(until.min(next_look)) => {}
            }
        }
    }

    /// Counts so many bytes for as long as what is returned lives, first those that have a place.
    pub(super) fn kept(self: &Arc<Self>, bytes: usize) -> Box<dyn Any + Send + Sync> {
        Box::new(self.holding(bytes))
    }

    /// Counts a piece of an answer that has its place, or else takes it on; what was counted beyond it is let go.
    pub(super) fn holding_placed(self: &Arc<Self>, bytes: usize) -> Holding {
        let ahead = self.ahead.swap(0, Ordering::Relaxed);
        self.placed.store(0, Ordering::Relaxed);
        match bytes.checked_sub(ahead) {
            Some(0) => {}
            Some(more) => self.hold(more),
            None => self.let_go(ahead - bytes),
        }
        Holding { turn: Arc::clone(self), bytes }
    }
}

/// One of those who are told when room comes free.
struct WaitingForPlace(Arc<Clients>);

impl WaitingForPlace {
    fn of(turn: &Turn) -> WaitingForPlace {
        turn.clients().waiting_for_places.fetch_add(1, Ordering::Relaxed);
        WaitingForPlace(Arc::clone(turn.clients()))
    }
}

impl Drop for WaitingForPlace {
    fn drop(&mut self) {
        self.0.waiting_for_places.fetch_sub(1, Ordering::Relaxed);
    }
}
