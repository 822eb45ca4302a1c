//! Floor 2. What was lately seen, so many at most: the oldest makes room.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::guess::Code;

/// What was lately seen, and when.
pub(super) struct Recent<T> {
    pub(super) entries: HashMap<Code, (T, Instant)>,
    /// In order of time; may still name one that was seen again later, or was forgotten. At most twice as long as there may be
    /// entries.
    pub(super) order: VecDeque<(Code, Instant)>,
    max: usize,
    memory: Duration,
}

impl<T: Default> Recent<T> {
    /// Of at most `max` codes, each until it was not seen for so long.
    pub(super) fn new(max: usize, memory: Duration) -> Recent<T> {
        Recent { entries: HashMap::new(), order: VecDeque::new(), max, memory }
    }

    pub(super) fn holds(&self, code: &Code) -> bool {
        self.entries.contains_key(code)
    }

    pub(super) fn get(&mut self, code: &Code, now: Instant) -> Option<&mut T> {
        let memory = self.memory;
        let entry = self.entries.get_mut(code);
        entry.filter(|(_, last)| now.saturating_duration_since(*last) < memory).map(|(what, _)| what)
    }

    /// Changes what is known of `code`, which is not seen by that.
    pub(super) fn change<R>(&mut self, code: &Code, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.entries.get_mut(code).map(|(what, _)| change(what))
    }

    /// Takes back what an attempt has changed. Forgets `code` if `change` says that nothing is left.
    pub(super) fn take_back(&mut self, code: &Code, change: impl FnOnce(&mut T) -> bool) {
        if self.change(code, change) == Some(true) {
            self.entries.remove(code);
        }
    }

    /// What is known of `code`, now seen again.
    pub(super) fn touch(&mut self, code: Code, now: Instant) -> &mut T {
        let is_new = !self.holds(&code);
        self.forget_old(is_new, now);
        self.order.push_back((code, now));
        let (what, last) = self.entries.entry(code).or_insert_with(|| (T::default(), now));
        *last = now;
        what
    }

    /// Makes room. Only a new code takes the place of another one: a code that is seen over and over does not.
    fn forget_old(&mut self, is_new: bool, now: Instant) {
        if self.order.len() >= self.max.saturating_mul(2) {
            let (entries, mut named) = (&self.entries, HashSet::new());
            let is_current =
                |code: &Code, at: &Instant| entries.get(code).is_some_and(|(_, last)| last == at);
            self.order.retain(|(code, at)| is_current(code, at) && named.insert(*code));
        }
        while let Some((code, at)) = self.order.front().copied() {
            let is_over = now.saturating_duration_since(at) >= self.memory;
            let is_full = is_new && self.entries.len() >= self.max;
            if !is_over && !is_full {
                return;
            }
            self.order.pop_front();
            if self.entries.get(&code).is_some_and(|(_, last)| *last == at) {
                self.entries.remove(&code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_is_seen_over_and_over_takes_the_place_of_no_other() {
        let start = Instant::now();
        let mut recent = Recent::<()>::new(4, Duration::from_secs(60));
        recent.touch([1; 32], start);
        for seen in 0..1_000 {
            // Many at the same moment, too.
            recent.touch([2; 32], start + Duration::from_millis(seen / 10));
            assert!(recent.order.len() <= 8);
        }
        assert!(recent.holds(&[1; 32]) && recent.holds(&[2; 32]));
        for code in 3..6 {
            recent.touch([code; 32], start + Duration::from_secs(1));
        }
        assert!(!recent.holds(&[1; 32]), "the oldest makes room for a new one");
        assert!((2..6).all(|code| recent.holds(&[code; 32])));
        recent.touch([6; 32], start + Duration::from_secs(61));
        assert_eq!((recent.entries.len(), recent.order.len()), (1, 1), "what is old is forgotten");
    }
}
