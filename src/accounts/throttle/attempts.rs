//! Floor 2. How fast passwords may be guessed: per account name and client, per client over all names, per site of many
//! clients, and per account over all clients.
//!
//! Nobody is locked out: where many share a ladder, each who has to wait is given a turn ([`super::turns`]), and who comes
//! back for it gets in, however many others hammer meanwhile. Who has logged in to an account from a client before does not
//! wait for others. Within a pair, a credential that comes back has turns of its own ([`super::repeats`]). An attempt counts
//! before its outcome is known, else many at once would be free; one that comes to no outcome is taken back.

use std::time::{Duration, Instant};

use super::failures::{Failures, MEMORY, PAIRS_MAX, SLIPS_MAX};
use super::guess::{Code, Guess, Rank};
use super::recent::Recent;
use super::repeats::{CREDENTIAL_TURN, Repeats, Turns, Visits};
use super::turns::{OfSite, Shared, Standing, Step, Taken, wait};

/// Attempts of one pair that cost no more than their computation.
const FREE_ATTEMPTS_MAX: usize = 5;
/// How long the next attempt of a pair has to wait after each one beyond the free ones; the last holds from then on.
const WAITS_S: [u64; 7] = [1, 3, 5, 10, 20, 40, 60];
/// Pairs remembered that have succeeded, and for how long; the oldest goes first.
pub(super) const KNOWN_MAX: usize = 4096;
const KNOWN_MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long an entry of the audit trail about a pair is enough: long before it is too old to be looked at.
const NOTED_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// Unsuccessful attempts of late.
pub(crate) struct Throttle {
    pairs: Recent<Tries>,
    clients: Recent<Shared>,
    sites: Recent<OfSite>,
    accounts: Recent<Shared>,
    /// Pairs that have been told to wait for others.
    waiting: Recent<Waiting>,
    /// Pairs that have succeeded, and the clients of such.
    known: Recent<()>,
    known_clients: Recent<()>,
    /// Pairs of which the audit trail tells that they have logged in.
    noted: Recent<()>,
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
pub(crate) struct Counted {
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
            noted: Recent::new(KNOWN_MAX, NOTED_MEMORY),
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
    pub(crate) fn wait_s(&mut self, guess: &Guess, now: Instant) -> Option<u64> {
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
    pub(crate) fn count(&mut self, guess: &Guess, now: Instant) -> Counted {
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
    pub(crate) fn succeeded(&mut self, counted: &Counted, now: Instant) {
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
    pub(crate) fn failed(&mut self, counted: &Counted, now: Instant) {
        self.failures.add(&counted.guess, now);
    }

    /// The pair has logged in.
    pub(super) fn remember(&mut self, guess: &Guess, now: Instant) {
        self.known.touch(guess.pair, now);
        self.known_clients.touch(guess.client, now);
    }

    /// Whether an entry of the audit trail about requests that show nothing ([`Throttle::note_login`]) says already that the
    /// pair has logged in. Other entries about it are not looked at.
    pub(crate) fn is_login_noted(&mut self, pair: Code, now: Instant) -> bool {
        self.noted.get(&pair, now).is_some()
    }

    /// There is such an entry now.
    pub(crate) fn note_login(&mut self, pair: Code, now: Instant) {
        self.noted.touch(pair, now);
    }

    /// Where an attempt stands in the queue before it is counted.
    pub(crate) fn rank(&mut self, guess: &Guess, now: Instant) -> Rank {
        if self.known.holds(&guess.pair) {
            return Rank::Known;
        }
        match self.failures.weight(guess, now) {
            failed if failed <= SLIPS_MAX && self.known_clients.holds(&guess.client) => Rank::Neighbour,
            0 => Rank::Fresh,
            failed if failed <= SLIPS_MAX => Rank::Slipped,
            _ => Rank::Failing,
        }
    }

    /// The attempt has come to no outcome: the password was not looked at.
    pub(crate) fn take_back(&mut self, counted: &Counted) {
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
mod crowds;
#[cfg(test)]
mod tests;
