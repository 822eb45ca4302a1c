//! Floor 2. How fast passwords may be guessed: per account name and client, per client over all names, per site of many
//! clients, and per account over all clients.
//!
//! Nobody is locked out: where many share a ladder, each who has to wait is given a turn ([`super::turns`]), and who comes
//! back for it gets in, however many others hammer meanwhile. Who has logged in to an account from a client before does not
//! wait for others. Within a pair, a credential that comes back has turns of its own ([`super::repeats`]). An attempt counts
//! before its outcome is known, else many at once would be free; one that comes to no outcome is taken back.

use std::time::{Duration, Instant};

use super::failures::{Failures, SLIPS_MAX};
use super::recent::Recent;
use super::repeats::{CREDENTIAL_TURN, Repeats, Turns, Visits};
use super::turns::{OfSite, Shared, Standing, Step, Taken, wait};

/// Attempts of one pair that cost no more than their computation.
const FREE_ATTEMPTS_MAX: usize = 5;
/// Attempts are forgotten when none was made for this long.
pub(super) const MEMORY: Duration = Duration::from_secs(10 * 60);
/// How long the next attempt of a pair has to wait after each one beyond the free ones; the last holds from then on.
const WAITS_S: [u64; 7] = [1, 3, 5, 10, 20, 40, 60];
/// Pairs, clients and accounts remembered, of each; the oldest goes first.
pub(super) const PAIRS_MAX: usize = 65_536;
/// Pairs remembered that have succeeded, and for how long; the oldest goes first.
pub(super) const KNOWN_MAX: usize = 4096;
const KNOWN_MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Whose password is computed first where many wait. Goes by what is known of the client, and of its pair with the account
/// where that pair has logged in: a name tells nobody by it whether it is an account's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Has logged in to this account from there, or has logged in from there and hardly failed of late.
    Known,
    /// Has not failed of late.
    Fresh,
    Slipped,
    Failing,
}

impl Rank {
    pub(super) const COUNT: usize = 4;
}

/// Stands for a pair of account name and client, a client, or an account name.
pub(super) type Code = [u8; 32];

/// Who tries to log in, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) pair: Code,
    pub(super) client: Code,
    /// Its site, if that has more clients than this one.
    pub(super) site: Option<Code>,
    pub(super) account: Code,
    /// The pair and what it tries there.
    pub(super) credential: Code,
}

/// Unsuccessful attempts of late.
pub(super) struct Throttle {
    pairs: Recent<Tries>,
    clients: Recent<Shared>,
    sites: Recent<OfSite>,
    accounts: Recent<Shared>,
    /// Pairs that have been told to wait for others.
    waiting: Recent<Waiting>,
    /// Pairs that have succeeded, and the clients of such.
    known: Recent<()>,
    known_clients: Recent<()>,
    failures: Failures,
    repeats: Repeats,
}

#[derive(Default)]
struct Tries {
    count: usize,
    last: Option<Instant>,
    turns: Turns,
}

#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    /// When they first asked, and for when they were told to come.
    since: Option<Instant>,
    due: Option<Instant>,
    /// How often they have asked before that.
    early: u64,
}

/// An attempt that was counted, to say what has become of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    guess: Guess,
    at: Instant,
    /// When the pair had made its last one.
    before: Option<Instant>,
    turn: Step,
    visits: Option<Visits>,
    waiting: Option<Waiting>,
    /// Nothing for a pair that is known there.
    client: Option<Step>,
    site: Option<Step>,
    account: Step,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            pairs: Recent::new(PAIRS_MAX, MEMORY),
            clients: Recent::new(PAIRS_MAX, MEMORY),
            sites: Recent::new(PAIRS_MAX, MEMORY),
            accounts: Recent::new(PAIRS_MAX, MEMORY),
            waiting: Recent::new(PAIRS_MAX, MEMORY),
            known: Recent::new(KNOWN_MAX, KNOWN_MEMORY),
            known_clients: Recent::new(KNOWN_MAX, KNOWN_MEMORY),
            failures: Failures::default(),
            repeats: Repeats::default(),
        }
    }
}

impl Tries {
    /// Until when the pair has to wait for its own sake, if it has to.
    fn until(&self, now: Instant) -> Option<Instant> {
        let until = self.last? + wait(&WAITS_S, self.count, FREE_ATTEMPTS_MAX);
        Some(until).filter(|until| *until > now)
    }
}

impl Throttle {
    /// How many seconds an attempt would come too early, if any; who has to wait stands in a queue then. While a pair has to
    /// wait for its own sake, all its credentials are told the same: else the answer would say which has come before.
    pub(super) fn wait_s(&mut self, guess: &Guess, now: Instant) -> Option<u64> {
        let (mut failed, mut told, mut is_turn, mut has_missed_turn) = (0, None, true, false);
        if let Some(tries) = self.pairs.get(&guess.pair, now) {
            failed = tries.count;
            if let Some(until) = tries.until(now) {
                told = Some(until.min(now + CREDENTIAL_TURN));
                is_turn = self.repeats.visit(&mut tries.turns, guess, now);
            }
            has_missed_turn = tries.turns.has_missed_turn(&guess.credential);
        }
        let until = match told {
            Some(told) if !is_turn => told,
            _ if self.known.holds(&guess.pair) => return None,
            _ => self.turn(guess, failed, has_missed_turn, told, now)?,
        };
        // Rounded up: who waits as long as told is not told again.
        let wait = until.checked_duration_since(now)?;
        Some(wait.as_millis().div_ceil(1000) as u64).filter(|wait_s| *wait_s > 0)
    }

    /// When it is the pair's turn both at the client and at the account, or what is `told` instead of that; `None`: now. An
    /// attempt that is owed a turn may not have to wait for the last one.
    fn turn(
        &mut self,
        guess: &Guess,
        failed: usize,
        has_missed_turn: bool,
        told: Option<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        let Waiting { since, due, early } = self.waiting.get(&guess.pair, now).copied().unwrap_or_default();
        let since = since.unwrap_or(now);
        let standing = Standing::new(failed, early, since);
        let turn = |shared: &mut Shared| {
            if has_missed_turn && shared.may_borrow(&guess.pair, now) {
                return None;
            }
            shared.turn(&guess.pair, standing, now)
        };
        let at_client = self.clients.get(&guess.client, now).and_then(turn);
        let at_site =
            guess.site.and_then(|site| self.sites.get(&site, now)).and_then(|site| turn(&mut site.0));
        let at_account = self.accounts.get(&guess.account, now).and_then(turn);
        let until = at_client.max(at_site).max(at_account)?;
        let until = told.unwrap_or(until);
        let early = early.saturating_add(u64::from(due.is_some_and(|due| now < due)));
        *self.waiting.touch(guess.pair, now) = Waiting { since: Some(since), due: Some(until), early };
        Some(until)
    }

    /// Counts an attempt.
    pub(super) fn count(&mut self, guess: &Guess, now: Instant) -> Counted {
        let waiting = self.waiting.entries.remove(&guess.pair).map(|(waiting, _)| waiting);
        let tries = self.pairs.touch(guess.pair, now);
        let before = tries.last.replace(now);
        tries.count += 1;
        let has_missed_turn = tries.turns.has_missed_turn(&guess.credential);
        let (turn, visits) = self.repeats.count(&mut tries.turns, guess, now);
        let is_known = self.known.holds(&guess.pair);
        let taken = match has_missed_turn {
            _ if is_known => Taken::Beside,
            true => Taken::Owed,
            false => Taken::Turn,
        };
        let client = match is_known {
            false => Some(self.clients.touch(guess.client, now).count(&guess.pair, taken, now)),
            true => None,
        };
        let site = guess.site.filter(|_| !is_known);
        let site = site.map(|site| self.sites.touch(site, now).0.count(&guess.pair, taken, now));
        let account = self.accounts.touch(guess.account, now).count(&guess.pair, taken, now);
        Counted { guess: *guess, at: now, before, turn, visits, waiting, client, site, account }
    }

    /// The password was right. Only its own attempt is taken back from what others share: who has an account of their
    /// own could otherwise begin anew with each login to it.
    pub(super) fn succeeded(&mut self, counted: &Counted, now: Instant) {
        let Counted { guess, client, site, .. } = counted;
        self.pairs.entries.remove(&guess.pair);
        if client.is_some() {
            self.clients.change(&guess.client, Shared::uncount);
        }
        if let Some(code) = guess.site.filter(|_| site.is_some()) {
            self.sites.change(&code, |site| site.0.uncount());
        }
        self.failures.take_back(guess);
        self.accounts.change(&guess.account, Shared::uncount);
        self.remember(guess, now);
    }

    /// The password was wrong.
    pub(super) fn failed(&mut self, counted: &Counted, now: Instant) {
        self.failures.add(&counted.guess, now);
    }

    /// The pair has logged in.
    pub(super) fn remember(&mut self, guess: &Guess, now: Instant) {
        self.known.touch(guess.pair, now);
        self.known_clients.touch(guess.client, now);
    }

    /// Where an attempt stands in the queue before it is counted.
    pub(super) fn rank(&mut self, guess: &Guess, now: Instant) -> Rank {
        if self.known.holds(&guess.pair) {
            return Rank::Known;
        }
        match self.failures.weight(guess, now) {
            failed if failed <= SLIPS_MAX && self.known_clients.holds(&guess.client) => Rank::Known,
            0 => Rank::Fresh,
            failed if failed <= SLIPS_MAX => Rank::Slipped,
            _ => Rank::Failing,
        }
    }

    /// The attempt has come to no outcome: the password was not looked at.
    pub(super) fn take_back(&mut self, counted: &Counted) {
        let Counted { guess, at, before, turn, visits, waiting, client, site, account } = counted;
        if let Some(waiting) = waiting.filter(|_| !self.waiting.holds(&guess.pair)) {
            *self.waiting.touch(guess.pair, *at) = waiting;
        }
        if let Some(visits) = visits {
            self.repeats.put_back(guess, *visits);
        }
        self.pairs.take_back(&guess.pair, |tries| {
            tries.count = tries.count.saturating_sub(1);
            if tries.last == Some(*at) {
                tries.last = *before;
            }
            tries.turns.take_back(&guess.credential, *turn);
            tries.count == 0
        });
        if let Some(step) = client {
            self.clients.take_back(&guess.client, |shared| shared.take_back(&guess.pair, *step));
        }
        if let (Some(code), Some(step)) = (guess.site, site) {
            self.sites.take_back(&code, |site| site.0.take_back(&guess.pair, *step));
        }
        self.accounts.take_back(&guess.account, |shared| shared.take_back(&guess.pair, *account));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::accounts::failures::SITE_FAILURES;
    use crate::accounts::turns::{FREE_SHARED_MAX, FREE_SITE_MAX, SHARED_WAITS_S};

    fn code(kind: u8, number: usize) -> Code {
        let mut bytes = [kind; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        bytes
    }

    /// With a password that nobody has tried yet.
    fn guess(account: usize, client: usize) -> Guess {
        static PASSWORDS: AtomicUsize = AtomicUsize::new(0);
        Guess {
            pair: code(1, account * 100_000 + client),
            client: code(2, client),
            site: None,
            account: code(3, account),
            credential: code(4, PASSWORDS.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// As a login does it.
    fn attempt(throttle: &mut Throttle, guess: Guess, now: Instant) -> Result<Counted, u64> {
        match throttle.wait_s(&guess, now) {
            Some(wait_s) => Err(wait_s),
            None => Ok(throttle.count(&guess, now)),
        }
    }

    /// How many seconds too early it comes.
    fn early(throttle: &mut Throttle, guess: Guess, now: Instant) -> Option<u64> {
        attempt(throttle, guess, now).err()
    }

    /// Logs in.
    fn enter(throttle: &mut Throttle, guess: Guess, now: Instant) -> Result<(), u64> {
        attempt(throttle, guess, now).map(|counted| throttle.succeeded(&counted, now))
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
            // A credential that comes back has a turn earlier, so nobody is told more.
            assert_eq!(early(&mut throttle, guess(1, 1), now), Some(wait_s.min(CREDENTIAL_TURN.as_secs())));
            let almost = now + secs(wait_s) - Duration::from_millis(1);
            assert_eq!(early(&mut throttle, guess(1, 1), almost), Some(1));
            now += secs(wait_s);
            assert_eq!(early(&mut throttle, guess(1, 1), now), None, "after {wait_s} s");
        }
        attempt(&mut throttle, guess(2, 2), now).unwrap();
        enter(&mut throttle, guess(1, 1), now + secs(60)).unwrap();
        now += secs(60);
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

    /// From a network of its own each time, and under a name of its own.
    #[test]
    fn the_networks_of_a_site_share_a_ladder() {
        let of_site = |made: usize| Guess { site: Some(code(5, 1)), ..guess(made, made) };
        let made = guesses_in_an_hour(of_site);
        println!("{made} guesses in an hour from one site");
        assert!((FREE_SITE_MAX..FREE_SITE_MAX + 3600).contains(&made), "{made}");
        // Who has logged in from there does not wait with them.
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        enter(&mut throttle, of_site(7), start).unwrap();
        for number in 100..100 + FREE_SITE_MAX {
            attempt(&mut throttle, of_site(number), start).unwrap();
        }
        attempt(&mut throttle, of_site(1), start).unwrap_err();
        enter(&mut throttle, of_site(7), start).unwrap();
    }

    #[test]
    fn who_has_not_failed_comes_before_who_has() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.rank(&guess(1, 1), now), Rank::Fresh);
        enter(&mut throttle, guess(1, 1), now).unwrap();
        assert_eq!(throttle.rank(&guess(1, 1), now), Rank::Known);
        assert_eq!(throttle.rank(&guess(2, 1), now), Rank::Known, "another name at a client that is known");
        assert_eq!(throttle.rank(&guess(1, 2), now), Rank::Fresh, "the name alone is nothing");
        let fail = |throttle: &mut Throttle, guess| {
            let counted = attempt(throttle, guess, now).unwrap();
            throttle.failed(&counted, now);
        };
        // What is under way is no failure: many may begin to work at once behind one router.
        for name in 20..25 {
            attempt(&mut throttle, guess(name, 2), now).unwrap();
        }
        assert_eq!(throttle.rank(&guess(9, 2), now), Rank::Fresh);
        for (failed, rank) in [(1, Rank::Slipped), (2, Rank::Slipped), (3, Rank::Failing)] {
            fail(&mut throttle, guess(failed, 2));
            assert_eq!(throttle.rank(&guess(9, 2), now), rank, "{failed}");
            fail(&mut throttle, guess(failed + 10, 1));
        }
        assert_eq!(throttle.rank(&guess(2, 1), now), Rank::Failing, "somebody guesses there");
        assert_eq!(throttle.rank(&guess(1, 1), now), Rank::Known, "not those who were let in before");
        let of_site = |made: usize| Guess { site: Some(code(5, 1)), ..guess(made, made) };
        for made in 100..100 + SITE_FAILURES * (SLIPS_MAX + 1) {
            fail(&mut throttle, of_site(made));
        }
        assert_eq!(
            throttle.rank(&of_site(999), now),
            Rank::Failing,
            "its site has failed from many networks"
        );
        assert_eq!(throttle.rank(&guess(9, 2), now + MEMORY), Rank::Fresh);
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
                        Ok(_) => break,
                        Err(wait_s) => due = Some(now + secs(wait_s)),
                    }
                }
                assert!(tenth < 2_000, "never let in");
            }
            assert!(tries <= 3, "who comes when told is let in, or told the next time: {tries}");
        }
    }

    /// Steps of a simulated clock: a tenth of a second.
    const STEP: Duration = Duration::from_millis(100);

    /// Somebody with a right password comes when told, at the door of an account at which others are, or from the client of
    /// others: after how many seconds they are in.
    fn let_in_after(
        throttle: &mut Throttle,
        start: Instant,
        late_s: u64,
        mut others: impl FnMut(&mut Throttle, Instant),
    ) -> u64 {
        let honest = guess(999, 999);
        let (mut now, mut due) = (start, start);
        loop {
            others(throttle, now);
            // They come a little later, as programs and people do.
            if now >= due + secs(late_s) {
                match enter(throttle, honest, now) {
                    Ok(()) => return now.duration_since(start).as_secs(),
                    Err(wait_s) => due = now + secs(wait_s),
                }
            }
            now += STEP;
            assert!(now < start + secs(3600), "a lock-out");
        }
    }

    /// So many names behind the honest one's client, or so many clients at their account.
    type Others = fn(usize) -> Guess;
    const DOORS: [(&str, Others); 2] = [("names", |n| guess(n, 999)), ("clients", |n| guess(999, n))];

    #[test]
    fn two_hundred_who_hammer_hold_up_nobody_for_long() {
        for (door, other) in DOORS {
            for others in [31, 60, 200] {
                // They begin at the same time, a little before, or long before.
                for (begun_s, late_s) in [(0, 1), (10, 1), (600, 1), (0, 20), (600, 20)] {
                    let (mut throttle, start) = (Throttle::default(), Instant::now());
                    let mut at = 0;
                    let mut hammer = |throttle: &mut Throttle, now: Instant| {
                        // Five hundred a second, one after the other.
                        for _ in 0..50 {
                            at = (at + 1) % others;
                            let _ = attempt(throttle, other(at), now);
                        }
                    };
                    for step in 0..begun_s * 10 {
                        hammer(&mut throttle, start + STEP * step);
                    }
                    let after_s = let_in_after(&mut throttle, start + STEP * (begun_s * 10), late_s, hammer);
                    println!(
                        "{others} {door}, for {begun_s} s before, late by {late_s} s: in after {after_s} s"
                    );
                    assert!(
                        after_s <= 150,
                        "{others} {door}, {begun_s} s before, late by {late_s} s: {after_s} s"
                    );
                }
            }
        }
    }

    /// A new name, or a new client, for each question: none ever comes for its turn.
    #[test]
    fn names_without_end_that_do_not_come_hold_up_nobody_for_long() {
        for (door, other) in DOORS {
            for (come_back, late_s) in [(false, 1), (true, 1), (true, 20)] {
                let (mut throttle, start) = (Throttle::default(), Instant::now());
                let mut at = 1000;
                let hammer = |throttle: &mut Throttle, now: Instant| {
                    for n in 0..20 {
                        at += 1;
                        let back = if come_back && n % 2 == 0 { at - 100 } else { at };
                        let _ = attempt(throttle, other(back), now);
                    }
                };
                let after_s = let_in_after(&mut throttle, start, late_s, hammer);
                println!(
                    "{door} without end, come back {come_back}, late by {late_s} s: in after {after_s} s"
                );
                assert!(after_s <= 180, "{door}: {after_s} s");
            }
        }
    }

    /// Some who mistype and come when told get in as well, each in their turn.
    #[test]
    fn a_shift_that_begins_gets_in_one_after_the_other() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for number in 0..FREE_SHARED_MAX + 5 {
            let _ = attempt(&mut throttle, guess(number, 1), start);
        }
        let mut waiting: Vec<(usize, Instant)> = (100..140).map(|number| (number, start)).collect();
        let mut now = start;
        while !waiting.is_empty() {
            now += STEP;
            waiting.retain_mut(|(number, due)| {
                if now < *due {
                    return true;
                }
                match enter(&mut throttle, guess(*number, 1), now) {
                    Ok(()) => return false,
                    Err(wait_s) => *due = now + secs(wait_s),
                }
                true
            });
            assert!(now < start + secs(40 * 6), "{} of 40 still wait", waiting.len());
        }
    }

    #[test]
    fn an_attempt_without_an_outcome_leaves_nothing() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        // A pair with its own wait, and ladders that are used up.
        for _ in 0..7 {
            for (account, client) in [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)] {
                let _ = attempt(&mut throttle, guess(account, client), now);
                now += secs(60);
            }
        }
        for tried in [guess(1, 1), guess(1, 9), guess(9, 1)] {
            now += secs(60);
            for _ in 0..50 {
                let counted = attempt(&mut throttle, tried, now).unwrap();
                throttle.take_back(&counted);
            }
            attempt(&mut throttle, tried, now).unwrap();
            attempt(&mut throttle, tried, now).unwrap_err();
        }
        let counted = throttle.count(&guess(7, 7), now);
        throttle.take_back(&counted);
        assert!(!throttle.pairs.holds(&guess(7, 7).pair));
    }

    /// What finds no place in the queue is not computed, and so is not bounded by that.
    #[test]
    fn attempts_without_an_outcome_push_out_no_memory_of_guesses() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for client in 0..FREE_SHARED_MAX {
            attempt(&mut throttle, guess(1, client), now).unwrap();
            attempt(&mut throttle, guess(100 + client, 50), now).unwrap();
        }
        for number in 1_000..1_000 + PAIRS_MAX {
            let counted = throttle.count(&guess(number, number), now);
            throttle.take_back(&counted);
        }
        attempt(&mut throttle, guess(1, 999), now).unwrap_err();
        attempt(&mut throttle, guess(999, 50), now).unwrap_err();
    }

    /// Those who are known at an account do not wait for others there, but others wait for them: who guesses from where
    /// somebody has logged in does not guess beside all others.
    #[test]
    fn who_is_known_counts_at_the_account() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for client in 0..FREE_SHARED_MAX {
            enter(&mut throttle, guess(1, client), now).unwrap();
        }
        attempt(&mut throttle, guess(1, 500), now).unwrap();
        for client in 0..FREE_SHARED_MAX + 2 {
            attempt(&mut throttle, guess(1, client % FREE_SHARED_MAX), now).unwrap();
        }
        attempt(&mut throttle, guess(1, 501), now).unwrap_err();
        // And at their client nobody does.
        for account in 0..FREE_SHARED_MAX {
            attempt(&mut throttle, guess(100 + account, 0), now).unwrap();
        }
    }

    #[test]
    fn who_has_been_in_before_does_not_share_the_waits_of_others() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        enter(&mut throttle, guess(1, 7), now).unwrap();
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
            let _ = enter(&mut throttle, guess(1, 1), now);
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
            let counted = throttle.count(&guess(1, 1), now);
            throttle.succeeded(&counted, now);
            now += Duration::from_millis(1);
        }
        assert!(throttle.pairs.order.len() <= 2 * PAIRS_MAX && throttle.known.order.len() <= 2 * KNOWN_MAX);
        assert!(throttle.pairs.entries.is_empty());
    }
}
