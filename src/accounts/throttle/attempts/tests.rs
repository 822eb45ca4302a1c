//! What each ladder counts, forgets and gives back.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::accounts::throttle::failures::SITE_FAILURES;
use crate::accounts::throttle::guess::Code;
use crate::accounts::throttle::turns::{FREE_SHARED_MAX, FREE_SITE_MAX};

fn code(kind: u8, number: usize) -> Code {
    let mut bytes = [kind; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

/// With a password that nobody has tried yet.
pub(super) fn guess(account: usize, client: usize) -> Guess {
    static PASSWORDS: AtomicUsize = AtomicUsize::new(0);
    Guess {
        pair: code(1, account * 100_000 + client),
        client: code(2, client),
        site: None,
        account: code(3, account),
        credential: code(4, PASSWORDS.fetch_add(1, Ordering::Relaxed)),
    }
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// As a login does it.
pub(super) fn attempt(throttle: &mut Throttle, guess: Guess, now: Instant) -> Result<Counted, u64> {
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
pub(super) fn enter(throttle: &mut Throttle, guess: Guess, now: Instant) -> Result<(), u64> {
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
    assert_eq!(throttle.rank(&guess(2, 1), now), Rank::Neighbour, "another name at a client that is known");
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
    assert_eq!(throttle.rank(&of_site(999), now), Rank::Failing, "its site has failed from many networks");
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

#[test]
fn a_login_is_noted_once_a_day_for_each_account_and_client() {
    let (mut throttle, start) = (Throttle::default(), Instant::now());
    let mut is_noted = |account: usize, client: usize, hours: u64| {
        let (pair, now) = (guess(account, client).pair, start + secs(hours * 3600));
        let has_to_be = !throttle.is_login_noted(pair, now);
        assert_eq!(throttle.is_login_noted(pair, now), !has_to_be, "an entry that failed is tried again");
        if has_to_be {
            throttle.note_login(pair, now);
        }
        has_to_be
    };
    assert!(is_noted(1, 1, 0) && is_noted(1, 2, 0) && is_noted(2, 1, 0));
    assert!(!is_noted(1, 1, 1) && !is_noted(1, 1, 23));
    assert!(is_noted(1, 1, 24), "also where it is asked all the time");
    assert!(!is_noted(1, 1, 25));
}
