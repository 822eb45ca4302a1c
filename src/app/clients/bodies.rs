//! Bodies of requests that arrive, and who loses one where there is no room for all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use super::{
    ANSWERS_MAX, BODIES_OTHERS_MAX, Clients, Crowded, RESERVE_BYTES, ROOM_MADE_BYTES, SHORT_BODIES_MIN,
    SHORT_BODY_BYTES, SMALL_BYTES, Turn, lock, was_lately,
};
use crate::domain::address::AddressPrefix;

/// Over how long the pace of a body is taken.
const PACE_MS: f64 = 2000.0;
/// A body that is older than this and slower than so many bytes a second makes no progress.
const SLOW_AFTER_MS: u64 = 4000;
const SLOW: f64 = 16.0 * 1024.0;
/// How many times as fast a body has to come as one that loses to it.
const MUCH_FASTER: f64 = 4.0;
/// Smaller bodies make no room by their end.
const LOST_BYTES_MIN: usize = 16 << 10;

/// How fast a body comes: bytes a second, of which those of long ago count little.
#[derive(Default)]
pub(super) struct Pace {
    a_second: f64,
    at_ms: u64,
    /// It has come: what still takes time is the node's.
    pub(super) is_whole: bool,
}

impl Pace {
    pub(super) fn at(&self, now_ms: u64) -> f64 {
        let ms = now_ms.saturating_sub(self.at_ms) as f64;
        if self.is_whole { f64::INFINITY } else { self.a_second * (-ms / PACE_MS).exp() }
    }

    fn add(&mut self, now_ms: u64, bytes: usize) {
        self.a_second = self.at(now_ms) + bytes as f64 * 1000.0 / PACE_MS;
        self.at_ms = now_ms;
    }
}

/// Whether a body of so many bytes is short.
fn is_short(bytes: usize) -> bool {
    bytes <= SHORT_BODY_BYTES
}

/// A body that may have to make room.
struct Candidate {
    turn: Arc<Turn>,
    pace: f64,
    bytes: usize,
    /// Bytes of all bodies of its site or account, whichever are more.
    of_client: usize,
}

impl Turn {
    /// A part of the request's body has arrived.
    pub(in crate::app) fn has_come(&self, bytes: usize) -> Result<(), Crowded> {
        let own = self.bodies() + bytes;
        let each_max = self.clients().bodies_each_max;
        if own > each_max || !self.clients().has_room_for_body(self, own, bytes) {
            return Err(Crowded);
        }
        let before = self.arrived.fetch_add(bytes, Ordering::Relaxed);
        self.share().bodies.fetch_add(bytes, Ordering::Relaxed);
        self.clients().bodies.fetch_add(bytes, Ordering::Relaxed);
        if is_short(before + bytes) {
            self.clients().short_bodies.fetch_add(bytes, Ordering::Relaxed);
        } else if is_short(before) {
            self.clients().short_bodies.fetch_sub(before, Ordering::Relaxed);
        }
        if let Some(account) = self.account() {
            account.bodies.fetch_add(bytes, Ordering::Relaxed);
        }
        lock(&self.pace).add(self.clients().now_ms(), bytes);
        if before == 0 && bytes > 0 {
            self.clients().note_arriving(&self.me);
        }
        Ok(())
    }

    /// Bytes of bodies that are held for its client: at the address or for the account, whichever is more.
    fn bodies(&self) -> usize {
        let of_account = self.account().map_or(0, |account| account.bodies.load(Ordering::Relaxed));
        self.share().bodies.load(Ordering::Relaxed).max(of_account)
    }

    /// Whether both are of one site or account.
    fn is_of_same_site(&self, other: &Turn) -> bool {
        self.share().prefix.site() == other.share().prefix.site() || self.is_of_same_client(other)
    }

    /// Whether both are of one client.
    fn is_of_same_client(&self, other: &Turn) -> bool {
        let is_same_account = |account| other.account().is_some_and(|others| Arc::ptr_eq(others, account));
        self.share().prefix == other.share().prefix || self.account().is_some_and(is_same_account)
    }

    /// The last part has arrived.
    pub(in crate::app) fn has_arrived(&self) {
        lock(&self.pace).is_whole = true;
        self.expects_no_trailers();
    }

    /// Its body is not needed any more.
    pub(super) fn let_body_go(&self) {
        if self.arrived.load(Ordering::Relaxed) == 0 {
            return;
        }
        let arrived = self.arrived.swap(0, Ordering::Relaxed);
        self.share().bodies.fetch_sub(arrived, Ordering::Relaxed);
        self.clients().less_of_bodies(arrived);
        if let Some(account) = self.account() {
            account.bodies.fetch_sub(arrived, Ordering::Relaxed);
        }
    }
}

impl Clients {
    fn note_arriving(&self, turn: &Weak<Turn>) {
        let mut arriving = lock(&self.arriving);
        if arriving.len() == arriving.capacity() {
            arriving.retain(|turn| turn.strong_count() > 0);
        }
        arriving.push(Weak::clone(turn));
    }

    /// A body of so many bytes is held no more. What bodies had beyond what is theirs alone is room for answers.
    fn less_of_bodies(&self, bytes: usize) {
        let had_max = self.answers_max();
        self.bodies.fetch_sub(bytes, Ordering::Relaxed);
        if is_short(bytes) {
            self.short_bodies.fetch_sub(bytes, Ordering::Relaxed);
        }
        if had_max < ANSWERS_MAX {
            self.room.notify_waiters();
            self.tell_of_room(bytes);
        }
    }

    /// Whether so many bytes more may be held of a body, with which its client has `own`.
    fn has_room_for_body(&self, turn: &Turn, own: usize, bytes: usize) -> bool {
        let reserve = if own <= SMALL_BYTES { RESERVE_BYTES } else { 0 };
        let over = |held: &AtomicUsize, alone: usize, beyond: usize| {
            (held.load(Ordering::Relaxed) + bytes).saturating_sub(alone.saturating_add(beyond + reserve))
        };
        let is_short = is_short(turn.arrived.load(Ordering::Relaxed) + bytes);
        let over_short =
            |beyond| if is_short { over(&self.short_bodies, SHORT_BODIES_MIN, beyond) } else { 0 };
        let over_all = |beyond| over(&self.bodies, self.bodies_each_max, beyond);
        let beyond = || self.bodies_beyond_max();
        if over_short(beyond()) == 0 && over_all(beyond()) == 0 {
            return true;
        }
        // Where answers have what bodies would have otherwise, who does not take them makes room first.
        let is_for_answers = over_short(BODIES_OTHERS_MAX) == 0 && over_all(BODIES_OTHERS_MAX) == 0;
        is_for_answers && self.make_room_beside(turn.client(), own, bytes.max(ROOM_MADE_BYTES))
            || self.make_room_for_body(turn, own, true, || over_short(beyond()))
                && self.make_room_for_body(turn, own, false, || over_all(beyond()))
    }

    /// Ends connections whose bodies come slowly, only short ones or any, until nothing is `over` any more; false if it does
    /// not come to that.
    fn make_room_for_body(
        &self,
        newcomer: &Turn,
        own: usize,
        only_short: bool,
        over: impl Fn() -> usize,
    ) -> bool {
        if over() == 0 {
            return true;
        }
        let now_ms = self.now_ms();
        // A client that was told that there is no room is told so again for a moment, without a look.
        let failed_ms = &newcomer.share().bodies_failed_ms;
        if was_lately(failed_ms, now_ms) {
            return false;
        }
        let sites = lock(&self.table).of_sites(|share| share.bodies.load(Ordering::Relaxed));
        let own = own.max(sites.get(&newcomer.share().prefix.site()).copied().unwrap_or_default());
        let mut candidates = self.candidates(newcomer, &sites, now_ms);
        candidates.retain(|candidate| !only_short || is_short(candidate.bytes));
        let pace = lock(&newcomer.pace).at(now_ms);
        while over() > 0 {
            let Some(at) = slowest(&candidates, own, pace, now_ms) else {
                failed_ms.store(now_ms, Ordering::Relaxed);
                return false;
            };
            let lost = candidates.swap_remove(at);
            let (client, bytes) = (lost.turn.share().prefix, lost.bytes);
            tracing::info!(%client, bytes, "a body that comes slowly loses its connection: others have no room");
            lost.turn.break_off();
            // Counted as free at once, so that no more are ended than is needed.
            lost.turn.let_body_go();
        }
        true
    }

    fn candidates(
        &self,
        newcomer: &Turn,
        sites: &HashMap<AddressPrefix, usize>,
        now_ms: u64,
    ) -> Vec<Candidate> {
        let arriving = lock(&self.arriving);
        let others = arriving.iter().filter_map(|turn| {
            let turn = turn.upgrade()?;
            let bytes = turn.arrived.load(Ordering::Relaxed);
            let is_other = !turn.is_of_same_client(newcomer);
            (is_other && bytes >= LOST_BYTES_MIN).then(|| {
                let pace = lock(&turn.pace).at(now_ms);
                let of_site = sites.get(&turn.share().prefix.site()).copied().unwrap_or_default();
                let of_client = turn.bodies().max(of_site);
                Candidate { turn, pace, bytes, of_client }
            })
        });
        others.collect()
    }
}

/// The body that makes room: one that makes no progress, the largest of them; otherwise the slowest of the client that has
/// most, if that has more than twice as much as the newcomer or the newcomer's comes much faster.
fn slowest(candidates: &[Candidate], own: usize, pace: f64, now_ms: u64) -> Option<usize> {
    let is_slow = |candidate: &Candidate| {
        candidate.pace < SLOW && now_ms.saturating_sub(candidate.turn.began_ms) >= SLOW_AFTER_MS
    };
    let all = || candidates.iter().enumerate();
    if let Some((at, _)) =
        all().filter(|(_, candidate)| is_slow(candidate)).max_by_key(|(_, candidate)| candidate.bytes)
    {
        return Some(at);
    }
    let most = candidates.iter().max_by_key(|candidate| candidate.of_client)?;
    let (at, loser) = all()
        .filter(|(_, candidate)| candidate.turn.is_of_same_site(&most.turn))
        .min_by(|(_, one), (_, other)| one.pace.total_cmp(&other.pace))?;
    (most.of_client > own.saturating_mul(2) || loser.pace * MUCH_FASTER < pace).then_some(at)
}
