//! Places of answers that are under way.

use super::super::*;
use super::{begin, connected, has_ended, who};
use crate::http::Arrivals as _;

const LARGE: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn pieces_of_answers_that_have_begun_are_held_within_the_bound() {
    let clients = Clients::new(4096, 0);
    let all: Vec<_> = (0..250).map(|last| connected(&clients, last)).collect();
    // All were let in while nothing was held.
    let turns: Vec<_> = all.iter().map(begin).collect();
    turns.iter().for_each(|turn| assert!(turn.has_room_for(None)));
    let placed: Vec<_> = turns.iter().filter(|turn| turn.place(LARGE)).collect();
    let held = clients.answers.load(Ordering::Relaxed);
    assert!(held <= ANSWERS_MAX && held > ANSWERS_MAX - 2 * LARGE, "{held}");
    // What is given to the connection is what was counted.
    let given: Vec<_> = placed.iter().map(|turn| turn.holding(LARGE)).collect();
    assert_eq!(clients.answers.load(Ordering::Relaxed), held);
    drop(given);
    assert_eq!(clients.answers.load(Ordering::Relaxed), held - placed.len() * LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_as_large_as_what_is_given() {
    let clients = Clients::new(4096, 0);
    let turn = begin(&connected(&clients, 1));
    let before = clients.answers.load(Ordering::Relaxed);
    let held = || clients.answers.load(Ordering::Relaxed) - before;
    for (placed, given) in [(LARGE, LARGE / 2), (LARGE / 2, LARGE), (LARGE, LARGE), (0, LARGE), (LARGE, 0)] {
        assert!(turn.place(placed));
        assert_eq!(held(), placed);
        assert!(turn.place(placed), "the same once more takes no more");
        assert_eq!(held(), placed);
        let holding = turn.holding(given);
        assert_eq!(held(), given);
        drop(holding);
        assert_eq!(held(), 0);
    }
    // A small one is among what the request counts for.
    assert!(turn.place(REQUEST_BYTES));
    assert_eq!(held(), 0);
    assert!(turn.place(LARGE));
    drop(turn);
    assert_eq!(clients.answers.load(Ordering::Relaxed), 0, "what was never given");
}

#[tokio::test(start_paused = true)]
async fn a_piece_waits_for_those_who_take_slowly_and_is_told_when_they_have() {
    let clients = Clients::new(4096, 0);
    let all: Vec<_> = (0..40).map(|last| connected(&clients, last)).collect();
    let turns: Vec<_> = all.iter().map(begin).collect();
    let mut held: Vec<_> =
        turns.iter().filter(|turn| turn.place(LARGE)).map(|turn| turn.holding(LARGE)).collect();
    // One that has as much as the others takes nothing from them.
    let more = begin(&all[0]);
    more.gave(1);
    let waits = tokio::spawn(more.wait_for_place(LARGE));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!waits.is_finished() && !all.iter().any(has_ended));
    held.pop();
    let freed_at = Instant::now();
    waits.await.expect("no panic").expect("room");
    assert!(freed_at.elapsed() < Duration::from_millis(10), "{:?}", freed_at.elapsed());
    assert!(clients.answers.load(Ordering::Relaxed) <= ANSWERS_MAX);
    // Without room it ends.
    let once_more = begin(&all[1]);
    once_more.gave(1);
    let began_at = Instant::now();
    once_more.wait_for_place(LARGE).await.expect_err("no room");
    assert!(began_at.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_piece_of_a_client_that_has_little_takes_the_place_of_the_stalest() {
    let clients = Clients::new(4096, 0);
    let all: Vec<_> = (0..40).map(|last| connected(&clients, last)).collect();
    let mut held = Vec::new();
    for connected in &all {
        let turn = begin(connected);
        if turn.place(LARGE) {
            turn.gave(1);
            held.push((turn.holding(LARGE), turn));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let newcomer = connected(&clients, 100);
    let turn = begin(&newcomer);
    assert!(turn.known_as(&who("A")).is_none());
    turn.gave(1);
    assert!(!turn.place(LARGE));
    let waits = tokio::spawn(turn.wait_for_place(LARGE));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let lost: Vec<_> = (0..all.len()).filter(|at| has_ended(&all[*at])).collect();
    assert!(
        lost.len() == 1 && !has_ended(&newcomer),
        "{lost:?}: one of those that have as much as each other"
    );
    assert!(!waits.is_finished(), "what has ended is still held");
    held.remove(lost[0]);
    waits.await.expect("no panic").expect("room");
    assert!(clients.answers.load(Ordering::Relaxed) <= ANSWERS_MAX);
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_keeps_is_counted_until_it_is_let_go() {
    let clients = Clients::new(4096, 0);
    let turn = begin(&connected(&clients, 1));
    let before = clients.answers.load(Ordering::Relaxed);
    assert!(turn.place(LARGE));
    let kept = turn.keep(LARGE);
    let piece = turn.holding(1000);
    assert_eq!(clients.answers.load(Ordering::Relaxed) - before, LARGE + 1000);
    drop(piece);
    assert_eq!(clients.answers.load(Ordering::Relaxed) - before, LARGE);
    drop(kept);
    // An answer that was made before it had a place needs no room beside itself.
    let full = begin(&connected(&clients, 2));
    let _others = full.holding(ANSWERS_MAX - 3 * LARGE);
    turn.made(2 * LARGE);
    assert!(turn.has_room_for(Some(2 * LARGE as u64)));
}
