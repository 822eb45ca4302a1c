//! Floor 2. Credentials that come back while their account has to wait, by a simulated clock.

use super::*;
use crate::accounts::throttle::attempts::Throttle;

const STEP: Duration = Duration::from_millis(100);

fn code(kind: u8, number: u64) -> Code {
    let mut bytes = [kind; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// One account at one client, with this password.
fn guess(password: u64) -> Guess {
    Guess {
        pair: code(1, 0),
        client: code(2, 0),
        site: None,
        account: code(3, 0),
        credential: code(4, password),
    }
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

struct Found {
    /// After how many seconds the owner is in.
    in_after_s: u64,
    /// How many guesses were looked at since the owner came, in so many seconds.
    guesses: usize,
    watched_s: u64,
}

/// What becomes of the owner, who comes `begun_s` after the others. How often the others are looked at is watched for
/// [`WATCHED_S`] beside an owner who comes when told, and until the owner is in beside all: once in, they are alike.
fn in_after(owner: Owner, begun_s: u64, mut others: impl FnMut(&mut Throttle, Instant) -> usize) -> Found {
    let is_watched_on = matches!(owner, Owner::Late(0));
    let (mut throttle, start) = (Throttle::default(), Instant::now());
    let mut now = start;
    for _ in 0..begun_s * 10 {
        others(&mut throttle, now);
        now += STEP;
    }
    let (came, mut due, mut in_after, mut guesses) = (now, now, None, 0);
    while now < came + Duration::from_secs(WATCHED_S) && (is_watched_on || in_after.is_none()) {
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
    let watched_s = now.duration_since(came).as_secs();
    Found { in_after_s: in_after.expect("let in"), guesses, watched_s }
}

/// The owner is in soon, and no more is looked at than one guess in five seconds.
fn assert_in_soon(what: &str, owner: Owner, begun_s: u64, found: &Found) {
    let Found { in_after_s, guesses, watched_s } = *found;
    println!("{what}, {begun_s} s before, {owner:?}: in after {in_after_s} s, {guesses} in {watched_s} s");
    let late_s = if let Owner::Late(late_s) = owner { late_s } else { 0 };
    assert!(in_after_s <= 60 + late_s, "{what}, {begun_s} s before, {owner:?}: {in_after_s} s");
    assert!(guesses <= watched_s as usize / 5 + 12, "{what}: {guesses} in {watched_s} s");
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
                assert_in_soon(&format!("{a_second} different guesses a second"), owner, begun_s, &found);
                // Guesses that never come back have the ladder alone.
                assert!(found.guesses <= found.watched_s as usize / 60 + 15, "{}", found.guesses);
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
                assert_in_soon(&format!("{words} guesses over and over"), owner, begun_s, &found);
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
            assert_in_soon("8 patient guessers", owner, begun_s, &found);
        }
    }
    // More than that hold up for as many turns, and guess no faster.
    let Found { in_after_s, guesses, .. } = in_after(Owner::Late(0), 120, patient(50));
    println!("50 patient guessers: in after {in_after_s} s, {guesses} guesses");
    assert!(in_after_s <= 50 * 5 + 60 && guesses <= WATCHED_S as usize / 5 + 12, "{in_after_s} s, {guesses}");
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
    now += CREDENTIAL_TURN;
    assert_eq!(attempt(&mut throttle, guess(777), now), Some(5));
    assert_eq!(attempt(&mut throttle, guess(RIGHT), now), None);
    let told = [RIGHT, 999, 0].map(|number| attempt(&mut throttle, guess(number), now));
    assert_eq!(told, [Some(5); 3], "one at a time");
}

#[test]
fn what_does_not_come_back_is_forgotten() {
    let (mut repeats, mut turns, start) = (Repeats::default(), Turns::default(), Instant::now());
    let mut visit = |number, s| repeats.visit(&mut turns, &guess(number), start + Duration::from_secs(s));
    assert_eq!([visit(1, 10), visit(1, 12), visit(1, 13)], [false, false, true]);
    assert_eq!([visit(2, 20), visit(2, 20 + MEMORY.as_secs())], [false; 2]);
    for number in 0..VISITS_MAX as u64 + 10 {
        visit(100 + number, 500);
    }
    assert!(repeats.visits <= VISITS_MAX);
    repeats.visit(&mut turns, &guess(1), start + Duration::from_secs(1000));
    assert_eq!((repeats.visits, repeats.clients.len(), repeats.by_visits.len()), (1, 1, 1));
}

/// As a password that lost its place in the queue for computing, after its visits were pushed out.
#[test]
fn visits_that_are_put_back_are_forgotten_in_their_time() {
    let (mut repeats, mut turns, start) = (Repeats::default(), Turns::default(), Instant::now());
    let mut lost = Vec::new();
    for number in 0..100 {
        repeats.visit(&mut turns, &guess(number), start);
        let (_, visits) = repeats.count(&mut turns, &guess(number), start);
        lost.push((guess(number), visits.unwrap()));
    }
    // In time it is as if nothing had been.
    for (guess, visits) in &lost[..50] {
        repeats.put_back(guess, *visits);
    }
    assert_eq!(repeats.clients[&guess(0).client].credentials.len(), 50);
    let later = start + MEMORY;
    repeats.visit(&mut turns, &guess(999), later);
    for (guess, visits) in &lost[50..] {
        repeats.put_back(guess, *visits);
    }
    let client = &repeats.clients[&guess(0).client];
    assert_eq!((client.credentials.len(), client.order.len(), repeats.visits), (1, 1, 1));
}

#[test]
fn a_flood_pushes_out_what_its_own_client_has_sent() {
    let (mut repeats, mut turns, start) = (Repeats::default(), Turns::default(), Instant::now());
    let others = Guess { pair: code(1, 1), client: code(2, 1), ..guess(RIGHT) };
    assert!(!repeats.visit(&mut turns, &others, start));
    for number in 0..3 * VISITS_MAX as u64 {
        repeats.visit(&mut Turns::default(), &guess(number), start);
    }
    assert!(repeats.visits <= VISITS_MAX);
    assert!(repeats.visit(&mut turns, &others, start + VISITS_APART), "remembered");
    // And the same one over and over pushes out nothing.
    let before = repeats.visits;
    for ms in 0..900 {
        repeats.visit(&mut turns, &others, start + VISITS_APART + Duration::from_millis(ms));
    }
    assert_eq!(repeats.visits, before);
}

/// A password that lost its place in the queue for computing has its turn again.
#[test]
fn an_attempt_that_was_not_made_gives_back_its_visits_and_its_turn() {
    let (mut throttle, mut now) = (Throttle::default(), Instant::now());
    for number in 0..12 {
        now += Duration::from_secs(60);
        assert_eq!(attempt(&mut throttle, guess(number), now), None);
    }
    assert_eq!(attempt(&mut throttle, guess(RIGHT), now), Some(5));
    now += CREDENTIAL_TURN;
    for _ in 0..20 {
        assert_eq!(throttle.wait_s(&guess(RIGHT), now), None);
        let counted = throttle.count(&guess(RIGHT), now);
        throttle.take_back(&counted);
    }
    // Late as well.
    assert_eq!(attempt(&mut throttle, guess(777), now), Some(5));
    now += Duration::from_secs(20);
    for _ in 0..20 {
        assert_eq!(throttle.wait_s(&guess(RIGHT), now), None);
        let counted = throttle.count(&guess(RIGHT), now);
        throttle.take_back(&counted);
    }
}

/// Also while the account is slowed down for all: no credential of a pair that waits is told anything else.
#[test]
fn an_answer_does_not_tell_more_while_the_account_is_slowed_down() {
    let (mut throttle, mut now) = (Throttle::default(), Instant::now());
    let elsewhere = |client: u64, password: u64| Guess {
        pair: code(1, client),
        client: code(2, client),
        ..guess(password)
    };
    for number in 0..12 {
        now += Duration::from_secs(60);
        assert_eq!(attempt(&mut throttle, guess(number), now), None);
    }
    for number in 0..40 {
        let _ = attempt(&mut throttle, elsewhere(1 + number, 1000 + number), now);
    }
    for _ in 0..8 {
        let told = [RIGHT, 999, 0].map(|number| throttle.wait_s(&guess(number), now));
        // Looked at, or told what all are told.
        assert!(told.iter().all(|told| [None, Some(5)].contains(told)), "{told:?}");
        now += CREDENTIAL_TURN;
        for number in 0..40 {
            let _ = attempt(&mut throttle, elsewhere(1 + number, 2000 + number), now);
        }
    }
}

/// A right password from an address that the account does not know, beside guessers at so many others who send fifteen
/// guesses round: after how many seconds it is in.
fn stranger_in_after(guessers: u64, known: u64, late_s: u64, begun_s: u64) -> u64 {
    let (mut throttle, start) = (Throttle::default(), Instant::now());
    let at = |client: u64, password: u64| Guess {
        pair: code(1, client),
        client: code(2, client),
        credential: code(4, client * 1_000_000 + password),
        ..guess(0)
    };
    for client in 0..known {
        let counted = throttle.count(&at(client, 0), start);
        throttle.succeeded(&counted, start);
    }
    let (mut due, came) = (None, start + Duration::from_secs(begun_s));
    for step in 0u32.. {
        let now = start + STEP * step;
        if step % 2 == 0 {
            for client in 0..guessers {
                let _ = attempt(&mut throttle, at(client, 1 + u64::from(step / 2 % 15)), now);
            }
        }
        if now >= came && due.is_none_or(|due| now >= due) {
            match attempt(&mut throttle, at(99_999, RIGHT / 2_000_000), now) {
                None => return now.duration_since(came).as_secs(),
                Some(wait_s) => due = Some(now + Duration::from_secs(wait_s + late_s)),
            }
        }
        assert!(now < came + Duration::from_secs(900), "a lock-out: {guessers}, {known}, {late_s}");
    }
    unreachable!()
}

#[test]
fn guesses_that_come_back_at_several_addresses_keep_out_no_stranger() {
    for (guessers, known) in [(1, 0), (2, 0), (3, 0), (3, 1), (8, 0), (8, 3), (40, 0), (40, 5)] {
        for late_s in [0, 1, 20] {
            let after: Vec<u64> = [0, 30, 300]
                .into_iter()
                .map(|begun_s| stranger_in_after(guessers, known, late_s, begun_s))
                .collect();
            println!("{guessers} addresses, {known} of them known, late by {late_s} s: in after {after:?} s");
            assert!(after.iter().all(|after| *after <= STRANGER_IN_S_MAX), "{after:?}");
        }
    }
}

/// Of docs/SECURITY.md.
const STRANGER_IN_S_MAX: u64 = 180;
