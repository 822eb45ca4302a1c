//! Who has a place, who loses one, and what ends by itself.

use std::net::IpAddr;

use super::*;

fn client(last: u8) -> AddressPrefix {
    AddressPrefix::of(IpAddr::from([192, 0, 2, last]))
}

fn connect(clients: &Arc<Clients>, last: u8) -> Option<Connected> {
    clients.connect(client(last), false)
}

fn connected(clients: &Arc<Clients>, last: u8) -> Connected {
    connect(clients, last).expect("a place")
}

fn begin(connected: &Connected) -> Arc<Turn> {
    connected.clients.begin(&connected.connection, Arc::clone(connected.connection.share()))
}

fn has_ended(connected: &Connected) -> bool {
    connected.connection.has_ended.load(Ordering::Acquire)
}

fn ended(all: &[Connected]) -> Vec<usize> {
    (0..all.len()).filter(|at| has_ended(&all[*at])).collect()
}

#[tokio::test(start_paused = true)]
async fn a_client_has_a_share_and_gives_it_back() {
    let clients = Clients::new(4096, 0);
    let held: Vec<_> = (0..CONNECTIONS_EACH_MAX).map(|_| connected(&clients, 1)).collect();
    let turns: Vec<_> = held.iter().map(begin).collect();
    assert!(connect(&clients, 1).is_none(), "all of its own are busy");
    let other = connected(&clients, 2);
    drop((turns, held, other));
    let table = lock(&clients.table);
    assert_eq!((table.open, table.connections.len()), (0, 0));
    assert!(
        table.shares.values().all(|share| share.strong_count() == 0),
        "nothing is kept of those who left"
    );
    assert_eq!(clients.answers.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn beyond_its_share_a_client_loses_what_is_idle_for_longest() {
    let clients = Clients::new(4096, 0);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_EACH_MAX {
        held.push(connected(&clients, 1));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    // The first is busy, and the second was a moment ago.
    let _turn = begin(&held[0]);
    drop(begin(&held[1]));
    let more = connected(&clients, 1);
    assert_eq!((ended(&held), has_ended(&more)), (vec![2], false));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_the_place_of_who_has_most() {
    let clients = Clients::new(6, 0);
    let mut few = vec![connected(&clients, 1), connected(&clients, 1)];
    let mut many = Vec::new();
    for _ in 0..4 {
        tokio::time::advance(Duration::from_millis(1)).await;
        many.push(connected(&clients, 2));
    }
    let first = connected(&clients, 3);
    assert_eq!((ended(&few), ended(&many)), (vec![], vec![0]), "though the others are idle for longer");
    // All are busy: who has more than twice as much makes room, the oldest first.
    let turns: Vec<_> = few.iter().chain(&many).map(begin).collect();
    let second = connected(&clients, 4);
    assert_eq!((ended(&few), ended(&many)), (vec![], vec![0, 1]));
    assert!(!has_ended(&first) && !has_ended(&second));
    assert!(connect(&clients, 2).is_none(), "who has most itself pushes nobody out");
    drop(turns);
    few.clear();
}

#[tokio::test(start_paused = true)]
async fn hosts_of_one_network_are_one_client() {
    let clients = Clients::new(4096, 0);
    let of = |last: u16| AddressPrefix::of(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
    let held: Vec<_> = (0..CONNECTIONS_EACH_MAX as u16)
        .map(|last| clients.connect(of(last), false).expect("a place"))
        .collect();
    let _turns: Vec<_> = held.iter().map(begin).collect();
    assert!(clients.connect(of(9999), false).is_none());
    assert!(clients.connect(of(9999), true).is_some(), "a proxy has no share of its own");
}

#[tokio::test(start_paused = true)]
async fn what_stands_still_ends() {
    let clients = Clients::new(4096, 0);
    let _watch = tokio::spawn(Arc::clone(&clients).watch());
    let (idle, unread, slow, reading, waiting) = (
        connected(&clients, 1),
        connected(&clients, 1),
        connected(&clients, 1),
        connected(&clients, 1),
        connected(&clients, 1),
    );
    // A long poll has nothing to give: it may wait.
    let _waiting = begin(&waiting);
    let unread_turn = begin(&unread);
    unread_turn.gave(1000);
    let (slow_turn, reading_turn) = (begin(&slow), begin(&reading));
    for second in 0..600 {
        // A byte at a time, and as much as is asked for.
        slow_turn.asked();
        slow_turn.gave(1);
        reading_turn.asked();
        reading_turn.gave(1100);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_over = [&idle, &unread, &slow, &reading, &waiting].map(has_ended);
        let due = [second >= 19, second >= 121, second >= 121, false, false];
        let not_yet = [second < 16, second < 118, second < 118, true, true];
        for at in 0..5 {
            assert!(is_over[at] || !due[at], "{at} after {second} s");
            assert!(!is_over[at] || !not_yet[at], "{at} after {second} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_counted_until_nobody_has_them() {
    let clients = Clients::new(4096, 0);
    let here = connected(&clients, 1);
    let share = Arc::clone(here.connection.share());
    let turn = begin(&here);
    let held = turn.holding(ANSWERS_EACH_MAX);
    assert!(!clients.has_room(&share));
    drop(turn);
    assert!(!clients.has_room(&share), "the answer is still held");
    drop(held);
    assert!(clients.has_room(&share));
    assert_eq!(clients.answers.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_holds_most_makes_room_for_an_answer() {
    let clients = Clients::new(4096, 0);
    let mut holding = Vec::new();
    for last in 1..=4 {
        let stale = connected(&clients, last);
        let turn = begin(&stale);
        turn.gave(1);
        let held = turn.holding(ANSWERS_MAX / 4 + usize::from(last));
        tokio::time::advance(Duration::from_secs(1)).await;
        let fresh = connected(&clients, last);
        let later = begin(&fresh);
        later.gave(1);
        holding.push((stale, turn, held, fresh, later));
    }
    let newcomer = connected(&clients, 9);
    assert!(clients.has_room(newcomer.connection.share()));
    let over: Vec<_> =
        holding.iter().map(|(stale, _, _, fresh, _)| (has_ended(stale), has_ended(fresh))).collect();
    assert_eq!(over[3], (true, false), "the stalest of who has most");
    assert_eq!(over[..3], [(false, false); 3]);
    // Who has about as much as the others does not push them out.
    let (_, _, _, fresh, _) = &holding[0];
    assert!(!clients.has_room(fresh.connection.share()));
}

#[tokio::test(start_paused = true)]
async fn bodies_have_bounds_of_a_client_and_in_all() {
    let body = 1 << 20;
    let clients = Clients::new(4096, body);
    let each = body + BODIES_BESIDE_MAX;
    let full = u8::try_from((each + BODIES_OTHERS_MAX) / each).expect("a few");
    let all: Vec<_> = (0..=full).map(|last| connected(&clients, last)).collect();
    let turns: Vec<_> = all.iter().map(begin).collect();
    let (newcomer, others) = turns.split_last().expect("some");
    for turn in others {
        turn.arrived(each).expect("within its share");
        assert_eq!(turn.arrived(1), Err(Crowded));
    }
    // All is taken; who has nothing gets in, and one of the others ends.
    newcomer.arrived(2 << 20).expect("room is made");
    assert_eq!(ended(&all).len(), 1);
    turns.iter().for_each(|turn| turn.answered());
    assert_eq!(clients.bodies.load(Ordering::Relaxed), 0);
    turns[0].arrived(each).expect("all is given back");
}
