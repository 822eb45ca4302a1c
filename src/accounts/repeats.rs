//! Floor 2. Turns among the credentials that come back while their account has to wait at one client.
//!
//! Where guesses come from the address of the account's owner, the owner and the guesser are one pair of account and client,
//! and share its wait. A guesser's credentials differ each time; the owner's is the same each time. So beside the ladder
//! of the pair, a credential that has come [`VISITS_MIN`] times stands in a queue as [`super::turns`] has it, with a turn
//! every few seconds. One that was let in has to come back as often again.

use std::time::{Duration, Instant};

use super::recent::Recent;
use super::throttle::Code;
use super::turns::{Shared, Standing, Step};

/// How often a credential has to come, the first time included.
const VISITS_MIN: usize = 2;
/// Visits closer together than this are one.
const VISITS_APART: Duration = Duration::from_secs(3);
/// What everybody is told who has to wait for longer by the ladder of the pair.
pub(super) const COME_AGAIN: Duration = Duration::from_secs(5);
/// Credentials remembered, and for how long since they came last; the oldest goes first. A guesser who sends 2,000 a second
/// pushes out those that were not seen for 16 seconds.
const CREDENTIALS_MAX: usize = 32_768;
const MEMORY: Duration = Duration::from_secs(2 * 60);

/// How often one credential has come.
#[derive(Default)]
struct Visits {
    first: Option<Instant>,
    /// The last one that counted.
    last: Option<Instant>,
    count: usize,
    /// How often it came too early to count.
    early: u64,
}

/// The turns of one pair.
pub(super) struct Turns(Shared);

impl Default for Turns {
    fn default() -> Turns {
        Turns(Shared::slowed())
    }
}

/// What has come of late, over all pairs.
pub(super) struct Repeats(Recent<Visits>);

impl Default for Repeats {
    fn default() -> Repeats {
        Repeats(Recent::new(CREDENTIALS_MAX, MEMORY))
    }
}

impl Repeats {
    /// Notes that a credential has come. Returns whether it is its turn.
    pub(super) fn visit(&mut self, turns: &mut Turns, credential: &Code, now: Instant) -> bool {
        if self.0.get(credential, now).is_none() {
            self.0.entries.remove(credential);
        }
        let visits = self.0.touch(*credential, now);
        let first = *visits.first.get_or_insert(now);
        if visits.last.is_none_or(|last| now.saturating_duration_since(last) >= VISITS_APART) {
            visits.count += 1;
            visits.last = Some(now);
        } else {
            visits.early += 1;
        }
        visits.count >= VISITS_MIN
            && turns.0.turn(credential, Standing::new(0, visits.early, first), now).is_none()
    }

    /// Counts an attempt of the pair with this credential, which is forgotten by that.
    pub(super) fn count(&mut self, turns: &mut Turns, credential: &Code, now: Instant) -> Step {
        self.0.entries.remove(credential);
        turns.0.count(credential, turns.is_owed(credential), now)
    }
}

impl Turns {
    /// Whether the credential has had a turn without using it, because people come later than told: then it does not wait
    /// for the attempts that others of its pair have made meanwhile.
    pub(super) fn is_owed(&self, credential: &Code) -> bool {
        self.0.is_owed(credential)
    }

    /// The attempt was not made.
    pub(super) fn take_back(&mut self, step: Step) {
        self.0.take_back(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::throttle::{Guess, Throttle};

    const STEP: Duration = Duration::from_millis(100);

    fn code(kind: u8, number: u64) -> Code {
        let mut bytes = [kind; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// One account at one client, with this password.
    fn guess(password: u64) -> Guess {
        Guess { pair: code(1, 0), client: code(2, 0), account: code(3, 0), credential: code(4, password) }
    }

    /// How many seconds it comes too early, as a login does it.
    fn attempt(throttle: &mut Throttle, guess: Guess, now: Instant) -> Option<u64> {
        let wait_s = throttle.wait_s(&guess, now);
        if wait_s.is_none() {
            throttle.count(&guess, now);
        }
        wait_s
    }

    const RIGHT: u64 = u64::MAX;

    /// How the owner of the account behaves.
    #[derive(Debug, Clone, Copy)]
    enum Owner {
        /// Comes when told, so many seconds late.
        Late(u64),
        /// Comes after so many milliseconds, whatever is said.
        EachMs(u64),
    }

    const WATCHED_S: u64 = 300;

    /// After how many seconds the owner is in, who comes `begun_s` after the others; and how many guesses were looked at
    /// from then on, in [`WATCHED_S`].
    fn in_after(
        owner: Owner,
        begun_s: u64,
        mut others: impl FnMut(&mut Throttle, Instant) -> usize,
    ) -> (u64, usize) {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut now = start;
        for _ in 0..begun_s * 10 {
            others(&mut throttle, now);
            now += STEP;
        }
        let (came, mut due, mut in_after, mut guesses) = (now, now, None, 0);
        while now < came + Duration::from_secs(WATCHED_S) {
            guesses += others(&mut throttle, now);
            if in_after.is_none() && now >= due {
                match (attempt(&mut throttle, guess(RIGHT), now), owner) {
                    (None, _) => in_after = Some(now.duration_since(came).as_secs()),
                    (Some(wait_s), Owner::Late(late_s)) => due = now + Duration::from_secs(wait_s + late_s),
                    (Some(_), Owner::EachMs(ms)) => due = now + Duration::from_millis(ms),
                }
            }
            now += STEP;
        }
        (in_after.expect("let in"), guesses)
    }

    /// The owner is in soon, and no more is looked at than one guess in five seconds.
    fn assert_in_soon(what: &str, owner: Owner, begun_s: u64, found: (u64, usize)) {
        let (in_after, guesses) = found;
        println!("{what}, for {begun_s} s before, owner {owner:?}: in after {in_after} s, {guesses} guesses");
        let late_s = if let Owner::Late(late_s) = owner { late_s } else { 0 };
        assert!(in_after <= 60 + late_s, "{what}, {begun_s} s before, {owner:?}: {in_after} s");
        assert!(guesses <= WATCHED_S as usize / 5 + 12, "{what}: {guesses}");
    }

    const OWNERS: [Owner; 5] =
        [Owner::Late(0), Owner::Late(1), Owner::Late(20), Owner::EachMs(1000), Owner::EachMs(2500)];

    #[test]
    fn a_right_password_that_comes_back_is_in_among_other_guesses_without_end() {
        for a_second in [10, 20, 500] {
            for begun_s in [0, 10, 120] {
                for owner in OWNERS {
                    let mut number = 0;
                    let found = in_after(owner, begun_s, |throttle, now| {
                        let guesses = (0..a_second / 10).filter(|_| {
                            number += 1;
                            attempt(throttle, guess(number), now).is_none()
                        });
                        guesses.count()
                    });
                    assert_in_soon(&format!("{a_second} different guesses a second"), owner, begun_s, found);
                    // Guesses that never come back have the ladder alone.
                    assert!(found.1 <= WATCHED_S as usize / 60 + 15, "{}", found.1);
                }
            }
        }
    }

    #[test]
    fn guesses_that_come_back_at_any_time_do_not_hold_up_who_comes_when_told() {
        for words in [20, 200, 1_000] {
            for begun_s in [0, 120] {
                for owner in [Owner::Late(0), Owner::Late(1), Owner::Late(20)] {
                    let mut number = 0;
                    let found = in_after(owner, begun_s, |throttle, now| {
                        let guesses = (0..50).filter(|_| {
                            number = (number + 1) % words;
                            attempt(throttle, guess(number), now).is_none()
                        });
                        guesses.count()
                    });
                    assert_in_soon(&format!("{words} guesses over and over"), owner, begun_s, found);
                }
            }
        }
    }

    /// So many that come when told, each with another guess after each that was looked at.
    fn patient(guessers: u64) -> impl FnMut(&mut Throttle, Instant) -> usize {
        let mut next = guessers;
        let mut waiting: Vec<(u64, Option<Instant>)> = (0..guessers).map(|number| (number, None)).collect();
        move |throttle, now| {
            let mut guesses = 0;
            for (number, due) in &mut waiting {
                if due.is_some_and(|due| now < due) {
                    continue;
                }
                *due = match attempt(throttle, guess(*number), now) {
                    Some(wait_s) => Some(now + Duration::from_secs(wait_s)),
                    None => {
                        (*number, next, guesses) = (next, next + 1, guesses + 1);
                        None
                    }
                };
            }
            guesses
        }
    }

    #[test]
    fn a_few_who_guess_as_patiently_share_the_turns() {
        for begun_s in [0, 120] {
            for owner in [Owner::Late(0), Owner::Late(1)] {
                let found = in_after(owner, begun_s, patient(8));
                assert_in_soon("8 patient guessers", owner, begun_s, found);
            }
        }
        // More than that hold up for as many turns, and guess no faster.
        let (in_after, guesses) = in_after(Owner::Late(0), 120, patient(50));
        println!("50 patient guessers: in after {in_after} s, {guesses} guesses");
        assert!(in_after <= 50 * 5 + 60 && guesses <= WATCHED_S as usize / 5 + 12, "{in_after} s, {guesses}");
    }

    /// All are told the same: nobody learns from the answer which credentials have come before.
    #[test]
    fn an_answer_does_not_tell_which_credential_comes_back() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let (mut now, mut made) = (start, 0);
        for number in 0.. {
            made += usize::from(attempt(&mut throttle, guess(number), now).is_none());
            if made == 12 {
                break;
            }
            now += Duration::from_secs(1);
        }
        // From here the pair waits for a minute.
        let told = [RIGHT, 999, 0].map(|number| attempt(&mut throttle, guess(number), now));
        assert_eq!(told, [Some(5); 3]);
        now += COME_AGAIN;
        assert_eq!(attempt(&mut throttle, guess(777), now), Some(5));
        assert_eq!(attempt(&mut throttle, guess(RIGHT), now), None);
        let told = [RIGHT, 999, 0].map(|number| attempt(&mut throttle, guess(number), now));
        assert_eq!(told, [Some(5); 3], "one at a time");
    }

    #[test]
    fn what_does_not_come_back_is_forgotten() {
        let (mut repeats, mut turns, start) = (Repeats::default(), Turns::default(), Instant::now());
        let mut visit =
            |number, s| repeats.visit(&mut turns, &code(4, number), start + Duration::from_secs(s));
        assert_eq!([visit(1, 10), visit(1, 12), visit(1, 13)], [false, false, true]);
        assert_eq!([visit(2, 20), visit(2, 20 + MEMORY.as_secs())], [false; 2]);
        for number in 0..CREDENTIALS_MAX as u64 + 10 {
            visit(100 + number, 500);
        }
        assert!(repeats.0.entries.len() <= CREDENTIALS_MAX && repeats.0.order.len() <= CREDENTIALS_MAX);
    }
}
