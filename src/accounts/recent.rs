//! Floor 2. What was lately seen, so many at most: the oldest makes room.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::guess::Code;

/// What was lately seen, and when.
pub(super) struct Recent<T> {
    pub(super) entries: HashMap<Code, (T, Instant)>,
    /// In order of time; may still name one that was seen again later, or was forgotten.
    pub(super) order: VecDeque<(Code, Instant)>,
    max: usize,
    memory: Duration,
}

impl<T: Default> Recent<T> {
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

    /// What is known of `code`, now seen again.
    pub(super) fn touch(&mut self, code: Code, now: Instant) -> &mut T {
        self.forget_old(now);
        self.order.push_back((code, now));
        let (what, last) = self.entries.entry(code).or_insert_with(|| (T::default(), now));
        *last = now;
        what
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((code, at)) = self.order.front().copied() {
            let is_over = now.saturating_duration_since(at) >= self.memory;
            if self.order.len() < self.max && !is_over {
                return;
            }
            self.order.pop_front();
            if self.entries.get(&code).is_some_and(|(_, last)| *last == at) {
                self.entries.remove(&code);
            }
        }
    }
}
