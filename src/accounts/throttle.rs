//! Floor 2. How fast passwords may be guessed: per account name and client, per client over all names, and per account
//! over all clients.
//!
//! Nobody is locked out: where many share a ladder, each who has to wait is given a turn, and who comes back for it
//! gets in, however many others hammer meanwhile. Who has logged in to an account from a client before does not share
//! the ladders of others. An attempt counts before its outcome is known, else many at once would be free.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Attempts of one pair that cost no more than their computation.
const FREE_ATTEMPTS_MAX: usize = 5;
/// The same of one client over all names, and of one account over all clients.
const FREE_SHARED_MAX: usize = 20;
/// Attempts are forgotten when none was made for this long.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// How long the next attempt of a pair has to wait after each one beyond the free ones; the last holds from then on.
const WAITS_S: [u64; 7] = [1, 3, 5, 10, 20, 40, 60];
/// The same between attempts of a client or of an account.
const SHARED_WAITS_S: [u64; 5] = [1, 1, 2, 3, 5];
/// Turns that are given out at once: the last one comes after at most so many waits.
const TURNS_MAX: usize = 32;
/// How long a turn is kept for who does not come.
const TURN_KEPT: Duration = Duration::from_secs(60);
/// Pairs, clients and accounts remembered, of each; the oldest goes first.
pub(super) const PAIRS_MAX: usize = 65_536;
/// Pairs remembered that have succeeded, and for how long; the oldest goes first.
const KNOWN_MAX: usize = 4096;
const KNOWN_MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Stands for a pair of account name and client, a client, or an account name.
pub(super) type Code = [u8; 32];

/// Who tries to log in, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) pair: Code,
    pub(super) client: Code,
    pub(super) account: Code,
}

fn wait(waits_s: &[u64], count: usize, free_max: usize) -> Duration {
    let wait_s = count.checked_sub(free_max).and_then(|beyond| waits_s.get(beyond).or(waits_s.last()));
    Duration::from_secs(wait_s.copied().unwrap_or(0))
}

/// Unsuccessful attempts of late.
pub(super) struct Throttle {
    pairs: Recent<usize>,
    clients: Recent<Shared>,
    accounts: Recent<Shared>,
    /// Pairs that have succeeded.
    known: Recent<()>,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            pairs: Recent::new(PAIRS_MAX, MEMORY),
            clients: Recent::new(PAIRS_MAX, MEMORY),
            accounts: Recent::new(PAIRS_MAX, MEMORY),
            known: Recent::new(KNOWN_MAX, KNOWN_MEMORY),
        }
    }
}

impl Throttle {
    /// How many seconds an attempt would come too early, if any; who has to wait has a turn then.
    pub(super) fn wait_s(&mut self, guess: &Guess, now: Instant) -> Option<u64> {
        let own = self
            .pairs
            .get(&guess.pair, now)
            .map(|(count, last)| *last + wait(&WAITS_S, *count, FREE_ATTEMPTS_MAX));
        let until = match own.filter(|until| *until > now) {
            Some(until) => Some(until),
            None if self.known.holds(&guess.pair) => None,
            None => {
                let turn = |shared: &mut Recent<Shared>, code: &Code| {
                    shared.get(code, now).and_then(|(shared, _)| shared.turn(&guess.pair, now))
                };
                turn(&mut self.clients, &guess.client).max(turn(&mut self.accounts, &guess.account))
            }
        };
        // Rounded up: who waits as long as told is not told again.
        let wait = until?.checked_duration_since(now)?;
        Some(wait.as_millis().div_ceil(1000) as u64).filter(|wait_s| *wait_s > 0)
    }

    /// Counts an attempt.
    pub(super) fn count(&mut self, guess: &Guess, now: Instant) {
        *self.pairs.touch(guess.pair, now) += 1;
        if !self.known.holds(&guess.pair) {
            self.clients.touch(guess.client, now).count(&guess.pair, now);
            self.accounts.touch(guess.account, now).count(&guess.pair, now);
        }
    }

    /// The password was right. Only its own attempt is taken back from what others share: who has an account of their
    /// own could otherwise begin anew with each login to it.
    pub(super) fn succeeded(&mut self, guess: &Guess, now: Instant) {
        self.pairs.entries.remove(&guess.pair);
        if !self.known.holds(&guess.pair) {
            for (shared, code) in [(&mut self.clients, &guess.client), (&mut self.accounts, &guess.account)] {
                if let Some((shared, _)) = shared.entries.get_mut(code) {
                    shared.count = shared.count.saturating_sub(1);
                }
            }
        }
        self.known.touch(guess.pair, now);
    }
}

/// Attempts that count together though different people make them.
#[derive(Default)]
struct Shared {
    count: usize,
    /// When the next attempt may be made for which there is no turn yet.
    next: Option<Instant>,
    /// Turns given out, in order of time.
    turns: VecDeque<(Code, Instant)>,
}

impl Shared {
    fn wait(&self) -> Duration {
        wait(&SHARED_WAITS_S, self.count, FREE_SHARED_MAX)
    }

    /// When it is this pair's turn; `None`: now.
    fn turn(&mut self, pair: &Code, now: Instant) -> Option<Instant> {
        if self.count < FREE_SHARED_MAX {
            return None;
        }
        while self.turns.front().is_some_and(|(_, at)| *at + TURN_KEPT < now) {
            self.turns.pop_front();
        }
        if let Some((_, at)) = self.turns.iter().find(|(of, _)| of == pair) {
            return Some(*at).filter(|at| *at > now);
        }
        let at = self.next.filter(|next| *next > now)?;
        if self.turns.len() < TURNS_MAX {
            self.turns.push_back((*pair, at));
            self.next = Some(at + self.wait());
        }
        Some(at)
    }

    fn count(&mut self, pair: &Code, now: Instant) {
        self.count += 1;
        let turns = self.turns.len();
        self.turns.retain(|(of, _)| of != pair);
        if turns == self.turns.len() {
            self.next = self.next.max(Some(now + self.wait()));
        }
    }
}

/// What was lately seen, and when.
struct Recent<T> {
    entries: HashMap<Code, (T, Instant)>,
    /// In order of time; may still name one that was seen again later, or was forgotten.
    order: VecDeque<(Code, Instant)>,
    max: usize,
    memory: Duration,
}

impl<T: Default> Recent<T> {
    fn new(max: usize, memory: Duration) -> Recent<T> {
        Recent { entries: HashMap::new(), order: VecDeque::new(), max, memory }
    }

    fn holds(&self, code: &Code) -> bool {
        self.entries.contains_key(code)
    }

    fn get(&mut self, code: &Code, now: Instant) -> Option<&mut (T, Instant)> {
        let memory = self.memory;
        self.entries.get_mut(code).filter(|(_, last)| now.saturating_duration_since(*last) < memory)
    }

    /// What is known of `code`, now seen again.
    fn touch(&mut self, code: Code, now: Instant) -> &mut T {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn code(kind: u8, number: usize) -> Code {
        let mut bytes = [kind; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        bytes
    }

    fn guess(account: usize, client: usize) -> Guess {
        Guess {
            pair: code(1, account * 100_000 + client),
            client: code(2, client),
            account: code(3, account),
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// As a login does it.
    fn attempt(throttle: &mut Throttle, guess: Guess, now: Instant) -> Result<(), u64> {
        match throttle.wait_s(&guess, now) {
            Some(wait_s) => Err(wait_s),
            None => {
                throttle.count(&guess, now);
                Ok(())
            }
        }
    }

    fn five_attempts(throttle: &mut Throttle, now: Instant) {
        for _ in 0..FREE_ATTEMPTS_MAX {
            attempt(throttle, guess(1, 1), now).unwrap();
        }
    }

    #[test]
    fn five_are_free_and_each_more_waits_longer() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        five_attempts(&mut throttle, now);
        for wait_s in WAITS_S.into_iter().chain([60, 60]) {
            assert_eq!(attempt(&mut throttle, guess(1, 1), now), Err(wait_s));
            let almost = now + secs(wait_s) - Duration::from_millis(1);
            assert_eq!(attempt(&mut throttle, guess(1, 1), almost), Err(1));
            now += secs(wait_s);
            assert_eq!(attempt(&mut throttle, guess(1, 1), now), Ok(()), "after {wait_s} s");
        }
        attempt(&mut throttle, guess(2, 2), now).unwrap();
        throttle.succeeded(&guess(1, 1), now);
        five_attempts(&mut throttle, now);
        attempt(&mut throttle, guess(1, 1), now).unwrap_err();
    }

    /// Guesses for an hour as fast as they are let: how many get through.
    fn guesses_in_an_hour(guess_of: impl Fn(usize) -> Guess) -> usize {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut made = 0;
        for tenth in 0..36_000u64 {
            let now = start + Duration::from_millis(tenth * 100);
            for _ in 0..3 {
                made += usize::from(attempt(&mut throttle, guess_of(made), now).is_ok());
            }
        }
        made
    }

    #[test]
    fn many_names_from_one_client_and_many_clients_at_one_name_are_slowed_down() {
        for made in [guesses_in_an_hour(|made| guess(made, 1)), guesses_in_an_hour(|made| guess(1, made))] {
            println!("{made} guesses in an hour");
            assert!((FREE_SHARED_MAX..FREE_SHARED_MAX + 3600 / 4).contains(&made), "{made}");
        }
    }

    #[test]
    fn who_waits_for_a_turn_gets_in_however_many_hammer() {
        // Somebody else at the door of the same account, and at the same address.
        for (hammering, stranger) in [(guess(1, 1), guess(1, 999)), (guess(1, 1), guess(999, 1))] {
            let other = |number: usize| match stranger.client == hammering.client {
                true => guess(number, 1),
                false => guess(1, number),
            };
            let (mut throttle, start) = (Throttle::default(), Instant::now());
            let mut now = start;
            for number in 0..FREE_SHARED_MAX + 4 {
                attempt(&mut throttle, other(number), now).unwrap();
                now += secs(SHARED_WAITS_S[4]);
            }
            // Ten of them come again and again, ten times a second.
            let mut due = None;
            let mut tries = 0;
            for tenth in 0.. {
                now += Duration::from_millis(100);
                for number in 0..10 {
                    let _ = attempt(&mut throttle, other(number % 10 + 30), now);
                }
                if due.is_none_or(|due| now >= due) {
                    tries += 1;
                    match attempt(&mut throttle, stranger, now) {
                        Ok(()) => break,
                        Err(wait_s) => due = Some(now + secs(wait_s)),
                    }
                }
                assert!(tenth < 2_000, "never let in");
            }
            assert!(tries <= 2, "who comes when told is let in: {tries}");
        }
    }

    #[test]
    fn who_has_been_in_before_does_not_share_the_waits_of_others() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        attempt(&mut throttle, guess(1, 7), now).unwrap();
        throttle.succeeded(&guess(1, 7), now);
        for number in 0..FREE_SHARED_MAX + 9 {
            let _ = attempt(&mut throttle, guess(1, 100 + number), now);
            let _ = attempt(&mut throttle, guess(100 + number, 7), now);
        }
        attempt(&mut throttle, guess(1, 99), now).unwrap_err();
        attempt(&mut throttle, guess(99, 7), now).unwrap_err();
        attempt(&mut throttle, guess(1, 7), now).unwrap();
    }

    #[test]
    fn an_account_of_ones_own_does_not_make_guessing_free() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let mut guessed = 0;
        for number in 0..100 {
            if attempt(&mut throttle, guess(10 + number, 1), now).is_ok() {
                guessed += 1;
            }
            if attempt(&mut throttle, guess(1, 1), now).is_ok() {
                throttle.succeeded(&guess(1, 1), now);
            }
        }
        assert_eq!(guessed, FREE_SHARED_MAX, "each login takes back itself only");
    }

    #[test]
    fn ten_quiet_minutes_are_forgotten() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        five_attempts(&mut throttle, start);
        let later = start + MEMORY;
        five_attempts(&mut throttle, later);
        attempt(&mut throttle, guess(1, 1), later).unwrap_err();
        assert_eq!(throttle.pairs.entries.len(), 1);
        assert_eq!(throttle.pairs.order.len(), FREE_ATTEMPTS_MAX);
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..PAIRS_MAX + 10 {
            throttle.count(&guess(number, number), now);
        }
        for entries in [throttle.clients.entries.len(), throttle.accounts.order.len()] {
            assert!(entries <= PAIRS_MAX);
        }
        assert!(throttle.pairs.entries.len() <= PAIRS_MAX && throttle.pairs.order.len() <= PAIRS_MAX);
        assert!(!throttle.pairs.holds(&guess(0, 0).pair));
        assert!(throttle.pairs.holds(&guess(PAIRS_MAX + 9, PAIRS_MAX + 9).pair));
    }

    #[test]
    fn forgotten_pairs_leave_nothing_behind() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..PAIRS_MAX + 10 {
            throttle.count(&guess(1, 1), now);
            throttle.succeeded(&guess(1, 1), now);
            now += Duration::from_millis(1);
        }
        assert!(throttle.pairs.order.len() <= PAIRS_MAX && throttle.known.order.len() <= KNOWN_MAX);
        assert!(throttle.pairs.entries.is_empty());
    }
}
