//! Floor 2. How fast passwords may be guessed: per account name and peer address, never per account alone,
//! so that nobody is locked out by a stranger elsewhere.
//!
//! An attempt counts before its outcome is known, else many at once would be free; success forgets all.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Attempts that cost no more than their computation.
const FREE_ATTEMPTS_MAX: usize = 5;
/// Attempts are forgotten when none was made for this long.
const MEMORY_S_MAX: u64 = 10 * 60;
/// How long the next attempt has to wait after each one beyond the free ones; the last holds from then on.
const WAITS_S: [u64; 7] = [1, 3, 5, 10, 20, 40, 60];
/// Pairs remembered; the oldest goes first.
pub(super) const PAIRS_MAX: usize = 65_536;

/// Stands for an account name and a peer address.
pub(super) type Pair = [u8; 32];

#[derive(Debug, Clone, Copy)]
struct Attempts {
    count: usize,
    last: Instant,
}

impl Attempts {
    /// When the next attempt may be made.
    fn next(&self) -> Instant {
        let wait_s = match self.count.checked_sub(FREE_ATTEMPTS_MAX) {
            None => 0,
            Some(beyond) => WAITS_S[beyond.min(WAITS_S.len() - 1)],
        };
        self.last + Duration::from_secs(wait_s)
    }
}

/// Unsuccessful attempts of late.
#[derive(Default)]
pub(super) struct Throttle {
    pairs: HashMap<Pair, Attempts>,
    /// In order of time; may still name a pair that attempted again later, or was forgotten.
    order: VecDeque<(Pair, Instant)>,
}

impl Throttle {
    /// How many seconds an attempt would come too early, if any.
    pub(super) fn wait_s(&self, pair: &Pair, now: Instant) -> Option<u64> {
        let wait = self.pairs.get(pair)?.next().checked_duration_since(now)?;
        // Rounded up: who waits as long as told is not told again.
        Some(wait.as_millis().div_ceil(1000) as u64).filter(|wait_s| *wait_s > 0)
    }

    /// Counts an attempt.
    pub(super) fn count(&mut self, pair: Pair, now: Instant) {
        self.forget_old(now);
        let attempts = self.pairs.entry(pair).or_insert(Attempts { count: 0, last: now });
        *attempts = Attempts { count: attempts.count + 1, last: now };
        self.order.push_back((pair, now));
    }

    /// The password was right.
    pub(super) fn forget(&mut self, pair: &Pair) {
        self.pairs.remove(pair);
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((pair, at)) = self.order.front().copied() {
            let is_over = now.saturating_duration_since(at) >= Duration::from_secs(MEMORY_S_MAX);
            if self.order.len() < PAIRS_MAX && !is_over {
                return;
            }
            self.order.pop_front();
            if self.pairs.get(&pair).is_some_and(|attempts| attempts.last == at) {
                self.pairs.remove(&pair);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: usize) -> Pair {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        bytes
    }

    /// As a login does it.
    fn attempt(throttle: &mut Throttle, pair: Pair, now: Instant) -> Result<(), u64> {
        match throttle.wait_s(&pair, now) {
            Some(wait_s) => Err(wait_s),
            None => {
                throttle.count(pair, now);
                Ok(())
            }
        }
    }

    fn five_attempts(throttle: &mut Throttle, now: Instant) {
        for _ in 0..FREE_ATTEMPTS_MAX {
            attempt(throttle, pair(1), now).unwrap();
        }
    }

    #[test]
    fn five_are_free_and_each_more_waits_longer() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        five_attempts(&mut throttle, now);
        for wait_s in WAITS_S.into_iter().chain([60, 60]) {
            assert_eq!(attempt(&mut throttle, pair(1), now), Err(wait_s));
            let almost = now + Duration::from_secs(wait_s) - Duration::from_millis(1);
            assert_eq!(attempt(&mut throttle, pair(1), almost), Err(1));
            now += Duration::from_secs(wait_s);
            assert_eq!(attempt(&mut throttle, pair(1), now), Ok(()), "after {wait_s} s");
        }
        attempt(&mut throttle, pair(2), now).unwrap();
        throttle.forget(&pair(1));
        five_attempts(&mut throttle, now);
        attempt(&mut throttle, pair(1), now).unwrap_err();
    }

    #[test]
    fn ten_quiet_minutes_are_forgotten() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        five_attempts(&mut throttle, start);
        let later = start + Duration::from_secs(MEMORY_S_MAX);
        five_attempts(&mut throttle, later);
        attempt(&mut throttle, pair(1), later).unwrap_err();
        assert_eq!(throttle.pairs.len(), 1);
        assert_eq!(throttle.order.len(), FREE_ATTEMPTS_MAX);
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..PAIRS_MAX + 10 {
            throttle.count(pair(number), now);
        }
        assert!(throttle.pairs.len() <= PAIRS_MAX && throttle.order.len() <= PAIRS_MAX);
        assert!(!throttle.pairs.contains_key(&pair(0)));
        assert!(throttle.pairs.contains_key(&pair(PAIRS_MAX + 9)));
    }

    #[test]
    fn forgotten_pairs_leave_nothing_behind() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..PAIRS_MAX + 10 {
            throttle.count(pair(1), now);
            throttle.forget(&pair(1));
            now += Duration::from_millis(1);
        }
        assert!(throttle.order.len() <= PAIRS_MAX);
        assert!(throttle.pairs.is_empty());
    }
}
