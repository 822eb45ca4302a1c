//! Floor 2. Wrong passwords of the last ten minutes, by client and by site: the rank of the next passwords depends on them.
//!
//! A failure counts for [`MEMORY`], whatever else is tried meanwhile. It stops counting earlier if the right password for the
//! same account comes from the same client: then it was a slip. A right password takes back no failure at another account, so
//! that an account of one's own does not hide guesses at others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::guess::{Code, Guess};
use super::recent::Recent;

/// Attempts are forgotten when none was made for this long.
pub(super) const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Pairs, clients and accounts remembered, of each; the oldest goes first.
pub(super) const PAIRS_MAX: usize = 65_536;
/// A client with at most this many failures may belong to people who mistype.
pub(super) const SLIPS_MAX: usize = 2;
/// Failures of a site that weigh as much as one of a client: it may have at least as many clients.
pub(super) const SITE_FAILURES: usize = 4;
/// Failures remembered of a client or a site. More make no difference to a rank.
const COUNTED_MAX: usize = SITE_FAILURES * (SLIPS_MAX + 1);

/// Failures of all clients and sites.
pub(super) struct Failures {
    clients: Recent<Counted>,
    sites: Recent<Counted>,
}

/// Failures of one client or site, the oldest first: the pair that failed, or nothing if no success takes the failure back.
#[derive(Default)]
struct Counted(VecDeque<(Option<Code>, Instant)>);

impl Default for Failures {
    fn default() -> Failures {
        Failures { clients: Recent::new(PAIRS_MAX, MEMORY), sites: Recent::new(PAIRS_MAX, MEMORY) }
    }
}

impl Failures {
    /// The password was wrong.
    pub(super) fn add(&mut self, guess: &Guess, now: Instant) {
        self.clients.touch(guess.client, now).add(guess.pair, now);
        if let Some(site) = guess.site {
            self.sites.touch(site, now).add(guess.pair, now);
        }
    }

    /// The password was right: earlier failures of the same account and client were slips.
    pub(super) fn take_back(&mut self, guess: &Guess) {
        self.clients.change(&guess.client, |counted| counted.take_back(&guess.pair));
        if let Some(site) = guess.site {
            self.sites.change(&site, |counted| counted.take_back(&guess.pair));
        }
    }

    /// Failures of the client, or a quarter of those of its site if that is more.
    pub(super) fn weight(&mut self, guess: &Guess, now: Instant) -> usize {
        let count = |counted: &mut Counted| counted.count(now);
        let of_client = self.clients.get(&guess.client, now).map_or(0, count);
        let of_site = guess.site.and_then(|site| self.sites.get(&site, now)).map_or(0, count);
        of_client.max(of_site / SITE_FAILURES)
    }
}

impl Counted {
    fn add(&mut self, pair: Code, now: Instant) {
        let has_room = self.count(now) < COUNTED_MAX;
        if !has_room {
            self.0.pop_front();
        }
        // The new failure stands for the dropped one too, which may be another account's.
        self.0.push_back((has_room.then_some(pair), now));
    }

    fn take_back(&mut self, pair: &Code) {
        self.0.retain(|(failed, _)| failed.as_ref() != Some(pair));
    }

    fn count(&mut self, now: Instant) -> usize {
        self.0.retain(|(_, at)| now.saturating_duration_since(*at) < MEMORY);
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(account: u8, client: u8) -> Guess {
        Guess {
            pair: [account, client].repeat(16).try_into().unwrap(),
            client: [client; 32],
            site: Some([0; 32]),
            account: [account; 32],
            credential: [0; 32],
        }
    }

    #[test]
    fn a_failure_counts_for_ten_minutes_however_many_attempts_follow() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        // One slip every nine minutes of a working day, each followed by another person's right password.
        for slip in 0..60 {
            let now = start + Duration::from_secs(slip * 9 * 60);
            failures.add(&guess(1, 1), now);
            failures.take_back(&guess(2, 1));
            assert!(failures.weight(&guess(3, 1), now) <= 2, "slip {slip}");
            assert_eq!(failures.weight(&guess(3, 2), now), 0, "elsewhere at the site, slip {slip}");
        }
        let (mut failures, almost) = (Failures::default(), start + MEMORY - Duration::from_millis(1));
        failures.add(&guess(1, 1), start);
        assert_eq!(failures.weight(&guess(1, 1), almost), 1);
        assert_eq!(failures.weight(&guess(1, 1), start + MEMORY), 0);
    }

    #[test]
    fn the_right_password_takes_back_slips_of_its_own_account_and_client_only() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for client in 0..SITE_FAILURES as u8 {
            failures.add(&guess(1, client), now);
            failures.add(&guess(9, client), now);
        }
        assert_eq!(failures.weight(&guess(0, 99), now), 2);
        for client in 0..SITE_FAILURES as u8 {
            failures.take_back(&guess(1, client));
        }
        assert_eq!(failures.weight(&guess(0, 99), now), 1, "those at account 9");
        assert_eq!(failures.weight(&guess(0, 0), now), 1);
        failures.take_back(&guess(9, 99));
        assert_eq!(failures.weight(&guess(0, 0), now), 1, "the account was not entered from there");
    }

    /// Own failures, which a login takes back, do not displace failures at other accounts.
    #[test]
    fn an_account_of_ones_own_hides_no_guesses_at_others() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for account in 0..COUNTED_MAX as u8 {
            failures.add(&guess(account, 1), now);
        }
        let (own, before) = (guess(200, 1), failures.weight(&guess(0, 99), now));
        for _ in 0..100 {
            failures.add(&own, now);
            failures.take_back(&own);
        }
        for _ in 0..100 {
            failures.add(&own, now);
        }
        failures.take_back(&own);
        assert_eq!(failures.weight(&guess(0, 99), now), before);
        assert_eq!(failures.weight(&guess(0, 1), now), COUNTED_MAX);
    }
}
