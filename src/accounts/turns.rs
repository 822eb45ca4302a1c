//! Floor 2. Turns among those who try to log in and share a wait: of one client under many names, or at one account from
//! many clients.
//!
//! Attempts are let through one after the other, with a wait between them. Who comes too early is told when to come, and
//! stands in a short queue meanwhile. In front stands the pair of client and account that looks least like guessing: no
//! attempt that failed, and no asking before the time that was told; among equals, the one that asked first. So many who hammer hold
//! up nobody who comes when told. Who is in front and does not come within [`TURN_KEPT`] makes room for the next, and may
//! still come for a while: nobody has used the time that was theirs, and people type more slowly than programs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::throttle::Code;

/// Attempts of a client over all names, and of an account over all clients, that cost no more than their computation.
pub(super) const FREE_SHARED_MAX: usize = 20;
/// How long each further one waits for the one before; the last holds from then on.
pub(super) const SHARED_WAITS_S: [u64; 5] = [1, 1, 2, 3, 5];
/// How many wait with a place; who has none is told to come when the last of them has been.
pub(super) const TURNS_MAX: usize = 12;
/// How long a turn is kept for who does not come.
pub(super) const TURN_KEPT: Duration = Duration::from_secs(5);

/// How long somebody may still come whose turn is over.
const LATE: Duration = Duration::from_secs(60);

/// Where somebody stands: who has less of it comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    /// Attempts that failed, and asking too early, as [`Standing::new`] counts them.
    reasons: u64,
    since: Instant,
}

/// A page asks for several things at once, and people press twice: so many questions before the time are nothing.
const EARLY_FREE: u64 = 8;
/// An attempt that failed weighs as much as so many questions before the time.
const FAILED_WEIGHS: u64 = 4;

impl Standing {
    /// `failed`: attempts of late; `early`: questions before the time that was told; `since`: the first question.
    pub(super) fn new(failed: usize, early: u64, since: Instant) -> Standing {
        let failed = FAILED_WEIGHS.saturating_mul(failed as u64);
        Standing { reasons: failed.saturating_add(early.saturating_sub(EARLY_FREE)), since }
    }
}

/// Attempts that count together though different people make them.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) count: usize,
    /// When the next attempt may be made.
    next: Option<Instant>,
    /// Who waits for that, the next in front.
    queue: Vec<(Code, Standing)>,
    /// Since when who is in front is there.
    front_since: Option<Instant>,
    /// Whose turn is over without having been used, and until when they may come: few, because each had [`TURN_KEPT`].
    late: VecDeque<(Code, Instant)>,
}

/// What an attempt has changed, to take it back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    before: Option<Instant>,
    after: Option<Instant>,
}

pub(super) fn wait(waits_s: &[u64], count: usize, free_max: usize) -> Duration {
    let wait_s = count.checked_sub(free_max).and_then(|beyond| waits_s.get(beyond).or(waits_s.last()));
    Duration::from_secs(wait_s.copied().unwrap_or(0))
}

impl Shared {
    /// With the longest wait from the first attempt on.
    pub(super) fn slowed() -> Shared {
        Shared { count: FREE_SHARED_MAX + SHARED_WAITS_S.len(), ..Shared::default() }
    }

    fn wait(&self) -> Duration {
        wait(&SHARED_WAITS_S, self.count, FREE_SHARED_MAX)
    }

    /// When it is this one's turn as things stand; `None`: now.
    pub(super) fn turn(&mut self, who: &Code, standing: Standing, now: Instant) -> Option<Instant> {
        if self.count < FREE_SHARED_MAX {
            return None;
        }
        let next = self.next.unwrap_or(now);
        self.let_move_up(who, next, now);
        // Before it counts against them that they have asked: else all who hammer would overtake each other for ever.
        if (self.is_front(who) && next <= now) || self.is_owed(who) {
            return None;
        }
        let place = self.stand(who, standing, now);
        let wait = TURN_KEPT.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
        Some(next.max(now) + wait).filter(|at| *at > now)
    }

    fn is_front(&self, who: &Code) -> bool {
        self.queue.first().is_some_and(|(front, _)| front == who)
    }

    /// Takes out those in front who have not come in their time; `who` is here.
    fn let_move_up(&mut self, who: &Code, next: Instant, now: Instant) {
        while self.late.front().is_some_and(|(_, until)| *until <= now) {
            self.late.pop_front();
        }
        while let Some((front, _)) = self.queue.first() {
            let over = self.front_since.map_or(next, |since| since.max(next)) + TURN_KEPT;
            if over > now || front == who {
                return;
            }
            let (front, _) = self.queue.remove(0);
            self.front_since = Some(over);
            if over + LATE > now {
                self.late.push_back((front, over + LATE));
            }
        }
    }

    /// Puts somebody where they belong; how many are before them.
    fn stand(&mut self, who: &Code, standing: Standing, now: Instant) -> usize {
        let front = self.queue.first().map(|(front, _)| *front);
        self.queue.retain(|(other, _)| other != who);
        let place = self.queue.partition_point(|(_, other)| *other <= standing);
        self.queue.insert(place, (*who, standing));
        self.queue.truncate(TURNS_MAX);
        if self.queue.first().map(|(front, _)| *front) != front {
            self.front_since = Some(now);
        }
        place
    }

    /// Whether a turn is over that this one has not used, and may use late.
    pub(super) fn is_owed(&self, who: &Code) -> bool {
        self.late.iter().any(|(late, _)| late == who)
    }

    /// Whether an attempt may be made before its time, which the next one waits for.
    pub(super) fn lends(&self, now: Instant) -> bool {
        let longest = wait(&SHARED_WAITS_S, usize::MAX, FREE_SHARED_MAX);
        self.next.is_none_or(|next| next <= now + longest)
    }

    /// Counts an attempt that is made now; one that is `owed` puts the next one off by as much as it comes too early.
    pub(super) fn count(&mut self, who: &Code, is_owed: bool, now: Instant) -> Step {
        self.count += 1;
        if self.is_front(who) {
            self.front_since = Some(now);
        }
        self.queue.retain(|(other, _)| other != who);
        self.late.retain(|(other, _)| other != who);
        let before = self.next;
        let from = before.filter(|before| is_owed && *before > now).unwrap_or(now);
        self.next = before.max(Some(from + self.wait()));
        Step { before, after: self.next }
    }

    /// The attempt does not count any more.
    pub(super) fn uncount(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// The attempt was not made.
    pub(super) fn take_back(&mut self, step: Step) {
        self.uncount();
        if self.next == step.after {
            self.next = step.before;
        }
    }
}
