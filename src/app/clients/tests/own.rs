//! What a turn has counted of its own answer is not held against that answer.

use super::super::*;
use super::{begin, connected, who};
use crate::http::Arrivals as _;

const MIB: usize = 1 << 20;

/// A turn of this client, alone and of an account.
fn turns(last: u8) -> Vec<(Arc<Clients>, Connected, Arc<Turn>)> {
    let of = |is_known: bool| {
        let clients = Clients::new(4096, 0);
        let connected = connected(&clients, last);
        let turn = begin(&connected);
        if is_known {
            assert!(turn.known_as(&who("A")).is_none());
        }
        (clients, connected, turn)
    };
    vec![of(false), of(true)]
}

#[tokio::test(start_paused = true)]
async fn one_answer_of_any_length_may_be_held() {
    for bytes in [MIB, 11 * MIB, ANSWERS_EACH_MAX, 13 * MIB, 16 * MIB, 100 * MIB] {
        for (clients, _connected, turn) in turns(1) {
            turn.made(bytes);
            assert!(turn.has_room_for(Some(bytes as u64)), "{bytes}");
            let held = turn.holding(bytes);
            // It is all that the client may have.
            let next = begin(&_connected);
            next.made(MIB);
            let has_room = bytes < ANSWERS_EACH_MAX;
            assert_eq!(next.has_room_for(Some(MIB as u64)), has_room, "{bytes}");
            drop((next, held, turn));
            assert_eq!(clients.answers.load(Ordering::Relaxed), 0);
        }
    }
}

/// As behind a router.
#[tokio::test(start_paused = true)]
async fn an_answer_may_bring_its_client_over_the_bound() {
    for (_clients, connected, turn) in turns(1) {
        let other = begin(&connected);
        let _held = other.holding(6 * MIB);
        turn.made(7 * MIB);
        assert!(turn.has_room_for(Some(7 * MIB as u64)));
    }
}

#[tokio::test(start_paused = true)]
async fn of_answers_made_together_the_first_is_given() {
    for (_clients, connected, first) in turns(1) {
        let second = begin(&connected);
        first.made(13 * MIB);
        second.made(13 * MIB);
        assert!(first.has_room_for(Some(13 * MIB as u64)));
        assert!(!second.has_room_for(Some(13 * MIB as u64)));
    }
}

/// Text with many escapes is longer than its first place.
#[tokio::test(start_paused = true)]
async fn a_longer_place_is_found_in_spite_of_the_first() {
    for (clients, connected, turn) in turns(1) {
        for bytes in [7, 13, 14, 26, 70] {
            assert!(turn.place(bytes * MIB), "{bytes}");
        }
        let other = begin(&connected);
        assert!(!other.place(MIB), "another answer is held to it");
        drop((turn, other));
        assert_eq!(clients.answers.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_longer_place_keeps_none() {
    for (clients, connected, turn) in turns(1) {
        assert!(turn.place(11 * MIB));
        let held = begin(&connected).holding(ANSWERS_EACH_MAX);
        let waits = tokio::spawn(turn.wait_for_place(13 * MIB));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let in_all = || clients.answers.load(Ordering::Relaxed);
        assert!(!waits.is_finished() && in_all() < 13 * MIB, "{}", in_all());
        drop(held);
        waits.await.expect("no panic").expect("room");
        assert!(in_all() >= 13 * MIB, "{}", in_all());
    }
}

/// A client with a long answer of its own under way is not the one that has most, and does not end itself.
#[tokio::test(start_paused = true)]
async fn room_is_made_by_others_and_not_by_the_answer_itself() {
    let clients = Clients::new(4096, 0);
    let all: Vec<_> = (1..=3).map(|last| connected(&clients, last)).collect();
    let held: Vec<_> = all.iter().map(|connected| begin(connected).holding(11 * MIB)).collect();
    let here = connected(&clients, 9);
    let turn = begin(&here);
    turn.made(13 * MIB);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(turn.has_room_for(Some(13 * MIB as u64)));
    assert!(!super::has_ended(&here));
    assert_eq!(super::ended(&all).len(), 1, "one of those that held most");
    drop(held);
}

/// What was let in before it takes the room for a moment: connections that are told to end hold it until they have.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_made_waits_for_room_if_its_client_has_little() {
    let clients = Clients::new(4096, 0);
    let many: Vec<_> = (1..=4).map(|last| connected(&clients, last)).collect();
    let full: Vec<_> =
        many.iter().map(|connected| begin(connected).holding(ANSWERS_EACH_MAX - MIB)).collect();
    let reader = connected(&clients, 9);
    let turn = begin(&reader);
    assert!(turn.has_room(), "others are told to make room");
    let answer = Some(20 << 10);
    assert!(!turn.has_room_for(answer), "and have not yet");
    assert!(turn.wait_with(Some(SMALL_BYTES as u64)).is_err(), "one with much waits for a place instead");
    let waiting = tokio::spawn(turn.wait_with(answer).expect("a place").for_room());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!waiting.is_finished());
    drop(full);
    assert!(waiting.await.expect("no panic").is_ok());
    assert_eq!(clients.made_waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_made_and_wait_are_few() {
    let clients = Clients::new(4096, 0);
    let connected: Vec<_> = (0..30).map(|last| connected(&clients, last)).collect();
    let turns: Vec<_> = connected.iter().map(begin).collect();
    let waiting: Vec<_> = turns.iter().filter_map(|turn| turn.wait_with(Some(200 << 10)).ok()).collect();
    assert_eq!(waiting.len(), MADE_WAITING_MAX / (200 << 10));
    drop(waiting);
    assert_eq!(clients.made_waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_answer_is_among_its_request() {
    for (clients, _connected, turn) in turns(1) {
        let before = clients.answers.load(Ordering::Relaxed);
        let counted = || clients.answers.load(Ordering::Relaxed) - before;
        let small = turn.holding_piece(SMALL_ANSWER_BYTES - 1);
        assert_eq!(counted(), 0);
        let next = turn.holding_piece(2);
        assert_eq!(counted(), 2, "there is room for one");
        drop((small, next));
        assert_eq!(counted(), 0);
        let _third = turn.holding_piece(SMALL_ANSWER_BYTES);
        assert_eq!(counted(), SMALL_ANSWER_BYTES);
    }
}
