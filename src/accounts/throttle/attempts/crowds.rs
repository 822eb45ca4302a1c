//! How long somebody with a right password is held up by many who try at the same time, by a simulated clock.

use super::tests::{attempt, enter, guess, secs};
use super::*;
use crate::accounts::throttle::turns::{FREE_SHARED_MAX, SHARED_WAITS_S};

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
                println!("{others} {door}, for {begun_s} s before, late by {late_s} s: in after {after_s} s");
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
            println!("{door} without end, come back {come_back}, late by {late_s} s: in after {after_s} s");
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
