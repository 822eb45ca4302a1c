//! Floor 2. Turns among the credentials that come back while their account has to wait at one client.
//!
//! Where guesses come from the address of the account's owner, the owner and the guesser are one pair of account and client,
//! and share its wait. A guesser's credentials differ each time; the owner's is the same each time. So beside the ladder
//! of the pair, a credential that has come [`VISITS_MIN`] times stands in a queue as [`super::turns`] has it, with a turn
//! every few seconds. One that was let in has to come back as often again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::guess::{Code, Guess};
use super::turns::{Shared, Standing, Step, Taken};

/// How often a credential has to come, the first time included.
const VISITS_MIN: usize = 2;
/// Visits closer together than this are one.
const VISITS_APART: Duration = Duration::from_secs(3);
/// How long one turn is after the other. All credentials of a pair that has to wait for longer are told to come after it.
pub(super) const CREDENTIAL_TURN: Duration = Duration::from_secs(5);
/// Visits remembered, and for how long; the oldest of the client with most goes first.
const VISITS_MAX: usize = 32_768;
const MEMORY: Duration = Duration::from_secs(2 * 60);
/// How often all clients are looked through for what is older.
const TIDIED_EVERY: Duration = Duration::from_secs(10);
/// A visit so soon after the last one does not make its credential younger: who sends one over and over pushes out nothing.
const SEEN_APART: Duration = Duration::from_secs(1);

/// How often one credential has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Visits {
    first: Option<Instant>,
    /// The last one that counted.
    last: Option<Instant>,
    count: usize,
    /// How often it came too early to count.
    early: u64,
    /// When it was last put at the end of what its client has sent.
    seen: Option<Instant>,
}

/// The turns of one pair.
pub(super) struct Turns(Shared);

impl Default for Turns {
    fn default() -> Turns {
        Turns(Shared::slowed())
    }
}

/// What has come of late, by client.
#[derive(Default)]
pub(super) struct Repeats {
    clients: HashMap<Code, OfClient>,
    /// Clients by how many visits they have.
    by_visits: BTreeSet<(usize, Code)>,
    visits: usize,
    tidied: Option<Instant>,
}

#[derive(Default)]
struct OfClient {
    credentials: HashMap<Code, Visits>,
    /// In order of time; may still name one that was seen again later, or was forgotten.
    order: VecDeque<(Code, Instant)>,
}

impl OfClient {
    fn has_in_order(&self, credential: &Code, seen: Instant) -> bool {
        let to = self.order.partition_point(|(_, at)| *at <= seen);
        // From the end, where what has just been put there is: a flood has many of one moment.
        let mut same = self.order.range(..to).rev().take_while(|(_, at)| *at == seen);
        same.any(|(code, _)| code == credential)
    }

    fn forget_oldest(&mut self) {
        if let Some((oldest, at)) = self.order.pop_front()
            && self.credentials.get(&oldest).is_some_and(|visits| visits.seen == Some(at))
        {
            self.credentials.remove(&oldest);
        }
    }
}

impl Repeats {
    /// Notes that a credential has come. Returns whether it is its turn.
    pub(super) fn visit(&mut self, turns: &mut Turns, guess: &Guess, now: Instant) -> bool {
        let known =
            self.clients.get(&guess.client).and_then(|client| client.credentials.get(&guess.credential));
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < MEMORY;
        let mut visits =
            known.copied().filter(|visits| visits.seen.is_some_and(is_fresh)).unwrap_or_default();
        let first = *visits.first.get_or_insert(now);
        if visits.last.is_none_or(|last| now.saturating_duration_since(last) >= VISITS_APART) {
            visits.count += 1;
            visits.last = Some(now);
        } else {
            visits.early += 1;
        }
        if visits.seen.is_none_or(|seen| now.saturating_duration_since(seen) >= SEEN_APART) {
            self.make_room(now);
            visits.seen = Some(now);
            self.change(guess.client, |client| client.order.push_back((guess.credential, now)));
        }
        self.put_back(guess, visits);
        visits.count >= VISITS_MIN
            && turns.0.turn(&guess.credential, Standing::new(0, visits.early, first), now).is_none()
    }

    /// Counts an attempt of the pair with this credential, which is forgotten by that.
    pub(super) fn count(&mut self, turns: &mut Turns, guess: &Guess, now: Instant) -> (Step, Option<Visits>) {
        let client = self.clients.get_mut(&guess.client);
        let visits = client.and_then(|client| client.credentials.remove(&guess.credential));
        let taken = if turns.has_missed_turn(&guess.credential) { Taken::Owed } else { Taken::Turn };
        (turns.0.count(&guess.credential, taken, now), visits)
    }

    /// Remembers visits again, unless their time has come meanwhile: what does not stand in the order of its client would
    /// never be forgotten.
    pub(super) fn put_back(&mut self, guess: &Guess, visits: Visits) {
        if let Some(client) = self.clients.get_mut(&guess.client)
            && visits.seen.is_some_and(|seen| client.has_in_order(&guess.credential, seen))
        {
            client.credentials.insert(guess.credential, visits);
        }
    }

    fn change(&mut self, code: Code, change: impl FnOnce(&mut OfClient)) {
        let client = self.clients.entry(code).or_default();
        let before = client.order.len();
        change(client);
        let after = client.order.len();
        self.visits = self.visits + after - before;
        self.by_visits.remove(&(before, code));
        if after > 0 {
            self.by_visits.insert((after, code));
        } else {
            self.clients.remove(&code);
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.tidied.is_none_or(|tidied| now.saturating_duration_since(tidied) >= TIDIED_EVERY) {
            self.tidied = Some(now);
            let codes: Vec<Code> = self.clients.keys().copied().collect();
            for code in codes {
                self.change(code, |client| {
                    let is_old = |at: &Instant| now.saturating_duration_since(*at) >= MEMORY;
                    while client.order.front().is_some_and(|(_, at)| is_old(at)) {
                        client.forget_oldest();
                    }
                });
            }
        }
        if self.visits >= VISITS_MAX
            && let Some((_, most)) = self.by_visits.last().copied()
        {
            self.change(most, OfClient::forget_oldest);
        }
    }
}

impl Turns {
    /// Whether the credential has had a turn without using it, because people come later than told: then it does not wait
    /// for the attempts that others of its pair have made meanwhile.
    pub(super) fn has_missed_turn(&self, credential: &Code) -> bool {
        self.0.has_missed_turn(credential)
    }

    /// The attempt was not made.
    pub(super) fn take_back(&mut self, credential: &Code, step: Step) {
        self.0.take_back(credential, step);
    }
}

#[cfg(test)]
mod tests;
