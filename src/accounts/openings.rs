//! Floor 2. Who has opened whose records in an emergency, and until when.
//!
//! Time is monotonic, so no change of the machine's clock makes an opening last; and it is kept in memory only, so
//! every opening ends with the process. What is open here has a row in the store that waits for its review.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::access::Actor;
use crate::domain::emergency::OPEN_S_MAX;

/// The openings of this process; no more than there are rows in the store.
pub struct Openings {
    clock: fn() -> Instant,
    /// (who, whose records, folded) -> number, and since when.
    open: Mutex<HashMap<(Actor, String), (u64, Instant)>>,
}

impl Openings {
    pub(super) fn new(clock: fn() -> Instant) -> Openings {
        Openings { clock, open: Mutex::default() }
    }

    /// The present moment, for [`Openings::begin`].
    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    /// `who` has opened the records of `person` at `since`; in place of an earlier opening of them.
    pub fn begin(&self, who: &Actor, person: &str, id: u64, since: Instant) {
        let now = self.now();
        let mut open = self.lock();
        open.retain(|_, (_, since)| is_open(*since, now));
        open.insert((who.clone(), person.to_owned()), (id, since));
    }

    /// The number of the opening under which `who` may read what belongs to `person`.
    pub fn find(&self, who: &Actor, person: &str) -> Option<u64> {
        let now = self.now();
        let open = self.lock();
        let (id, since) = open.get(&(who.clone(), person.to_owned()))?;
        is_open(*since, now).then_some(*id)
    }

    /// Whether time has not ended it.
    pub fn is_open(&self, id: u64) -> bool {
        let now = self.now();
        self.lock().values().any(|(open, since)| *open == id && is_open(*since, now))
    }

    /// The numbers of those that are open.
    pub fn open(&self) -> HashSet<u64> {
        let now = self.now();
        let open = self.lock();
        open.values().filter(|(_, since)| is_open(*since, now)).map(|(id, _)| *id).collect()
    }

    /// Ends it.
    pub fn end(&self, id: u64) {
        self.lock().retain(|_, (open, _)| *open != id);
    }

    /// Ends all.
    pub fn end_all(&self) {
        self.lock().clear();
    }

    /// Changes under this lock are single calls, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, HashMap<(Actor, String), (u64, Instant)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_open(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < Duration::from_secs(OPEN_S_MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    fn clock() -> Instant {
        NOW.get().unwrap_or_else(Instant::now)
    }

    fn person(id: &str) -> Actor {
        Actor::Person(id.to_owned())
    }

    #[test]
    fn an_opening_is_for_two_and_ends_by_time() {
        let start = Instant::now();
        let at = |ms: u64| NOW.set(Some(start + Duration::from_millis(ms)));
        at(0);
        let openings = Openings::new(clock);
        openings.begin(&person("NURSE1"), "ANA001", 7, start);
        assert_eq!(openings.find(&person("NURSE1"), "ANA001"), Some(7));
        assert_eq!(openings.find(&person("NURSE2"), "ANA001"), None);
        assert_eq!(openings.find(&person("NURSE1"), "BOB002"), None);
        assert_eq!(openings.find(&person("ANA001"), "NURSE1"), None);
        assert_eq!(openings.find(&Actor::Local("NURSE1".to_owned()), "ANA001"), None);
        assert!(openings.is_open(7) && !openings.is_open(8));
        at(OPEN_S_MAX * 1000 - 1);
        assert_eq!(openings.find(&person("NURSE1"), "ANA001"), Some(7), "being asked does not matter");
        at(OPEN_S_MAX * 1000);
        assert_eq!(openings.find(&person("NURSE1"), "ANA001"), None);
        assert!(!openings.is_open(7));
        openings.begin(&person("NURSE1"), "BOB002", 9, clock());
        assert_eq!(openings.lock().len(), 1, "what is over is forgotten");
        openings.end(9);
        assert_eq!(openings.find(&person("NURSE1"), "BOB002"), None);
    }
}
