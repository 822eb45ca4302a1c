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

use super::guess::Code;

/// Attempts of a client over all names, and of an account over all clients, that cost no more than their computation.
pub(super) const FREE_SHARED_MAX: usize = 20;
/// How long each further one waits for the one before; the last holds from then on.
pub(super) const SHARED_WAITS_S: [u64; 5] = [1, 1, 2, 3, 5];
/// The same of a site ([`crate::domain::address::AddressPrefix::site`]) that has many clients: as much as four of them, and then
/// as much as five.
pub(super) const FREE_SITE_MAX: usize = 4 * FREE_SHARED_MAX;
const SITE_WAITS_S: [u64; 1] = [1];
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

/// What attempts that count together cost.
#[derive(Clone, Copy)]
struct Allowance {
    free: usize,
    waits_s: &'static [u64],
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance { free: FREE_SHARED_MAX, waits_s: &SHARED_WAITS_S }
    }
}

/// Attempts of all clients of a site.
pub(super) struct OfSite(pub(super) Shared);

impl Default for OfSite {
    fn default() -> OfSite {
        let allowance = Allowance { free: FREE_SITE_MAX, waits_s: &SITE_WAITS_S };
        OfSite(Shared { allowance, ..Shared::default() })
    }
}

/// Attempts that count together though different people make them.
#[derive(Default)]
pub(super) struct Shared {
    allowance: Allowance,
    pub(super) count: usize,
    /// When the next attempt may be made.
    next: Option<Instant>,
    /// Who waits for that, the next in front.
    queue: Vec<(Code, Standing)>,
    /// Since when who is in front is there.
    front_since: Option<Instant>,
    /// Whose turn is over without having been used, and until when they may come: few, because each had [`TURN_KEPT`].
    late: VecDeque<(Code, Instant)>,
    /// Whether the last attempt was made before its time.
    is_borrowed: bool,
}

/// By what right an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was its turn, or nobody had to wait.
    Turn,
    /// A turn among the credentials of its pair that it did not use: it may come before the time here.
    Owed,
    /// It does not wait for others here, and does not put off who waits.
    Beside,
}

/// What an attempt has changed, to take it back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    before: Option<Instant>,
    after: Option<Instant>,
    is_borrowed: bool,
    place: Option<Standing>,
    late: Option<Instant>,
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
        wait(self.allowance.waits_s, self.count, self.allowance.free)
    }

    /// When it is this one's turn as things stand; `None`: now.
    pub(super) fn turn(&mut self, who: &Code, standing: Standing, now: Instant) -> Option<Instant> {
        if self.count < self.allowance.free {
            return None;
        }
        let next = self.next.unwrap_or(now);
        self.let_move_up(who, next, now);
        // Before it counts against them that they have asked: else all who hammer would overtake each other for ever.
        if (self.is_front(who) && next <= now) || self.has_missed_turn(who) {
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
    pub(super) fn has_missed_turn(&self, who: &Code) -> bool {
        self.late.iter().any(|(late, _)| late == who)
    }

    /// Whether the owner of an owed turn may come before the time, which the next attempt waits for. Not twice in a row while
    /// others wait: the time would never come for them.
    pub(super) fn may_borrow(&mut self, who: &Code, now: Instant) -> bool {
        let longest = wait(self.allowance.waits_s, usize::MAX, self.allowance.free);
        let next = self.next.unwrap_or(now);
        self.let_move_up(who, next, now);
        next <= now + longest && !(self.is_borrowed && self.queue.iter().any(|(other, _)| other != who))
    }

    /// Counts an attempt that is made now.
    pub(super) fn count(&mut self, who: &Code, taken: Taken, now: Instant) -> Step {
        self.count += 1;
        let place = self.queue.iter().find(|(other, _)| other == who).map(|(_, standing)| *standing);
        let late = self.late.iter().find(|(other, _)| other == who).map(|(_, until)| *until);
        if self.is_front(who) {
            self.front_since = Some(now);
        }
        self.queue.retain(|(other, _)| other != who);
        self.late.retain(|(other, _)| other != who);
        let before = self.next;
        let early = before.filter(|before| *before > now);
        let is_borrowed = self.is_borrowed;
        match (early, taken) {
            (_, Taken::Beside) if !self.queue.is_empty() => {}
            (Some(early), Taken::Owed) => {
                self.is_borrowed = late.is_none();
                self.next = Some(early + self.wait());
            }
            _ => {
                self.is_borrowed = false;
                self.next = before.max(Some(now + self.wait()));
            }
        }
        Step { before, after: self.next, is_borrowed, place, late }
    }

    /// The attempt does not count any more.
    pub(super) fn uncount(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// The attempt was not made: the place and the turn are there again. Returns whether nothing is left to remember.
    pub(super) fn take_back(&mut self, who: &Code, step: Step) -> bool {
        self.uncount();
        if self.next == step.after {
            self.next = step.before;
            self.is_borrowed = step.is_borrowed;
        }
        if let Some(standing) = step.place.filter(|_| self.queue.iter().all(|(other, _)| other != who)) {
            let place = self.queue.partition_point(|(_, other)| *other <= standing);
            self.queue.insert(place, (*who, standing));
            self.queue.truncate(TURNS_MAX);
        }
        if let Some(until) = step.late.filter(|_| !self.has_missed_turn(who)) {
            let place = self.late.partition_point(|(_, other)| *other <= until);
            self.late.insert(place, (*who, until));
        }
        self.count == 0 && self.queue.is_empty() && self.late.is_empty()
    }
}
