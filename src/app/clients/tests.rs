//! Who has a place, who loses one, and what ends by itself.

use std::net::IpAddr;

use futures_util::task::noop_waker;

use super::accounts::WAITING_OF_ACCOUNT_MAX;
use super::rooms::Client;
use super::*;
use crate::http::Arrivals as _;

mod equal;
mod neighbours;
mod own;
mod places;
mod shared;
mod still;
mod trailers;
mod unfinished;

fn client(last: u8) -> AddressPrefix {
    AddressPrefix::of(IpAddr::from([192, 0, 2, last]))
}

fn connect(clients: &Arc<Clients>, last: u8) -> Option<Connected> {
    clients.connect(client(last), false)
}

fn connected(clients: &Arc<Clients>, last: u8) -> Connected {
    let connected = connect(clients, last).expect("a place");
    connected.connection.is_whole();
    connected
}

fn begin(connected: &Connected) -> Arc<Turn> {
    connected.clients.begin(&connected.connection, Arc::clone(connected.connection.share()), 0)
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
        .inspect(|connected| connected.connection.is_whole())
        .collect();
    let _turns: Vec<_> = held.iter().map(begin).collect();
    assert!(clients.connect(of(9999), false).is_none());
    assert!(clients.connect(of(9999), true).is_some(), "a proxy has no share of its own");
}

#[tokio::test(start_paused = true)]
async fn answers_are_counted_until_nobody_has_them() {
    let clients = Clients::new(4096, 0);
    let here = connected(&clients, 1);
    let share = Arc::clone(here.connection.share());
    let turn = begin(&here);
    let held = turn.holding(ANSWERS_EACH_MAX);
    assert!(!clients.has_room(Client::at(&share)));
    drop(turn);
    assert!(!clients.has_room(Client::at(&share)), "the answer is still held");
    drop(held);
    assert!(clients.has_room(Client::at(&share)));
    assert_eq!(clients.answers.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn long_answers_leave_room_for_short_ones() {
    let clients = Clients::new(4096, 0);
    let long = ANSWERS_MAX / 4 - (1 << 16);
    let mut held = Vec::new();
    for last in 1..=4 {
        let connected = connected(&clients, last);
        let turn = begin(&connected);
        assert!(turn.has_room_for(Some(long as u64)), "{last}");
        held.push((turn.holding(long), turn, connected));
    }
    // Each may hold more for itself, but it would not fit.
    for (_, turn, _) in &held {
        assert!(!turn.has_room_for(Some(long as u64)));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let other = connected(&clients, 9);
    let turn = begin(&other);
    assert!(turn.has_room_for(Some(20_000)));
    assert!(held.iter().all(|(_, _, connected)| !has_ended(connected)), "nobody lost anything for it");
    assert!(turn.has_room_for(Some(long as u64)), "a newcomer's fits in the place of another");
    assert_eq!(held.iter().filter(|(_, _, connected)| has_ended(connected)).count(), 1);
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
    let list = begin(&newcomer).holding(SMALL_BYTES);
    assert!(clients.has_room(Client::at(newcomer.connection.share())));
    drop(list);
    let over: Vec<_> =
        holding.iter().map(|(stale, _, _, fresh, _)| (has_ended(stale), has_ended(fresh))).collect();
    assert_eq!(over[3], (true, false), "the stalest of who has most");
    assert_eq!(over[..3], [(false, false); 3]);
    // Who has about as much as the others does not push them out.
    let (_, _, _, fresh, _) = &holding[0];
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!clients.has_room(Client::at(fresh.connection.share())));
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
        turn.has_come(each).expect("within its share");
        assert_eq!(turn.has_come(1), Err(Crowded));
    }
    // All is taken; a newcomer gets in, and one of the others ends.
    newcomer.has_come(2 << 20).expect("room is made");
    assert_eq!(ended(&all).len(), 1);
    turns.iter().for_each(|turn| turn.answered(0));
    assert_eq!(clients.bodies.load(Ordering::Relaxed), 0);
    turns[0].has_come(each).expect("all is given back");
}

/// Requests of one client on so many connections, as if each waited for its body.
fn silent(
    clients: &Arc<Clients>,
    last: u8,
    connections: usize,
    each: usize,
) -> Vec<(Connected, Vec<Arc<Turn>>)> {
    let one = |_| {
        let connected = connected(clients, last);
        let turns = (0..each).map(|_| begin(&connected)).collect();
        (connected, turns)
    };
    (0..connections).map(one).collect()
}

fn lost(held: &[(Connected, Vec<Arc<Turn>>)]) -> Vec<usize> {
    (0..held.len()).filter(|at| has_ended(&held[*at].0)).collect()
}

#[tokio::test(start_paused = true)]
async fn who_holds_most_makes_room_though_nothing_of_it_waits_to_be_taken() {
    let clients = Clients::new(4096, 0);
    // A list under way, whose pieces wait to be taken, and far more requests whose bodies do not come.
    let (reader, newcomer) = (connected(&clients, 1), connected(&clients, 2));
    let list = begin(&reader);
    list.gave(1);
    let _piece = list.holding(1 << 20);
    tokio::time::advance(Duration::from_secs(1)).await;
    let attack = silent(&clients, 3, ANSWERS_MAX / REQUEST_BYTES / 32, 32);
    // A small request takes nothing from anybody.
    let small = begin(&newcomer);
    assert!(small.has_room() && small.has_room_for(Some(16 << 10)));
    assert_eq!((lost(&attack), has_ended(&reader)), (vec![], false));
    // A larger answer does: of the client that holds most, in the order in which it began.
    let _more = small.holding(SMALL_BYTES);
    assert!(small.has_room_for(None));
    let over = lost(&attack);
    assert!(!over.is_empty() && over == (0..over.len()).collect::<Vec<_>>(), "{over:?}");
    assert!(over.len() < 8, "no more than what is wanted: {over:?}");
    assert!(!has_ended(&reader));
}

#[tokio::test(start_paused = true)]
async fn there_is_no_room_where_nothing_can_be_ended() {
    let clients = Clients::new(4096, 0);
    let (holder, bystander, newcomer) =
        (connected(&clients, 1), connected(&clients, 2), connected(&clients, 3));
    let turn = begin(&holder);
    let _held = turn.holding(ANSWERS_MAX);
    let other = begin(&bystander);
    other.gave(1);
    let _piece = other.holding(4 << 20);
    // It is ending already, and has not given back anything.
    turn.break_off();
    let asks = begin(&newcomer);
    let _more = asks.holding(SMALL_BYTES);
    for _ in 0..3 {
        assert!(!asks.has_room(), "the bound in all holds");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!has_ended(&bystander), "nor does a client with less pay for it");
}

#[tokio::test(start_paused = true)]
async fn others_are_looked_through_now_and_then_only() {
    let clients = Clients::new(4096, 0);
    let attack = silent(&clients, 1, ANSWERS_MAX / REQUEST_BYTES / 32 + 64, 32);
    let newcomers: Vec<_> = (2..50).map(|last| connected(&clients, last)).collect();
    let asking: Vec<_> =
        newcomers.iter().map(|newcomer| (begin(newcomer).holding(SMALL_BYTES), begin(newcomer))).collect();
    let had_room = asking.iter().filter(|(_, turn)| turn.has_room()).count();
    let over = lost(&attack).len();
    assert_eq!(had_room, 1, "the others wait until what was ended is given back");
    tokio::time::advance(Duration::from_millis(ROOM_MADE_PAUSE_MS)).await;
    assert!(asking.iter().any(|(_, turn)| turn.has_room()));
    assert!(lost(&attack).len() > over);
}

#[tokio::test(start_paused = true)]
async fn what_requests_hold_is_bounded_and_more_of_them_end_their_connection() {
    let clients = Clients::new(4096, 0);
    let mut held = Vec::new();
    for _ in 0..4096 {
        let connected = clients.connect(client(1), true).expect("a place");
        for _ in 0..32 {
            let turn =
                clients.begin(&connected.connection, Arc::clone(connected.connection.share()), 20 << 10);
            if !turn.may_go_on() {
                turn.refused(true);
            }
            held.push((turn, None));
        }
        if has_ended(&connected) {
            // What its requests held is given back with it.
            held.retain(|(turn, _): &(Arc<Turn>, Option<Connected>)| {
                !turn.connection.has_ended.load(Ordering::Acquire)
            });
        } else if let Some((_, place)) = held.last_mut() {
            *place = Some(connected);
        }
        let now = clients.requests.load(Ordering::Relaxed);
        assert!(now <= ANSWERS_EACH_MAX + ENDED_EACH_BESIDE + 32 * REFUSED_BYTES + (36 << 10), "{now}");
    }
    drop(held);
    assert_eq!((clients.requests.load(Ordering::Relaxed), clients.answers.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn few_wait_and_are_woken_when_there_is_room() {
    let clients = Clients::new(4096, 0);
    let (here, elsewhere) = (connected(&clients, 1), connected(&clients, 2));
    let full = begin(&here).holding(ANSWERS_EACH_MAX);
    let turns: Vec<_> = (0..=WAITING_EACH_MAX).map(|_| begin(&here)).collect();
    let mut places: Vec<_> = turns.iter().map(Turn::wait).collect();
    assert!(places.pop().expect("the last").is_err(), "a client has so many places");
    let waiting: Vec<_> =
        places.into_iter().map(|place| tokio::spawn(place.expect("a place").for_room())).collect();
    assert!(begin(&elsewhere).wait().is_ok());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(waiting.iter().all(|waits| !waits.is_finished()));
    let freed_at = Instant::now();
    drop(full);
    for waits in waiting {
        waits.await.expect("no panic").expect("room");
    }
    assert!(freed_at.elapsed() < Duration::from_millis(10), "at once: {:?}", freed_at.elapsed());
    assert_eq!(
        (clients.waiting.load(Ordering::Relaxed), here.connection.share().waiting.load(Ordering::Relaxed)),
        (0, 0)
    );
    // In vain for long: refused.
    let _full = begin(&here).holding(ANSWERS_EACH_MAX);
    let began = Instant::now();
    turns[0].wait().expect("a place").for_room().await.expect_err("there is none");
    assert!((5..6).contains(&began.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_requests_are_refused_again_and_again_ends() {
    let clients = Clients::new(4096, 0);
    let (here, proxy) = (connected(&clients, 1), clients.connect(client(9), true).expect("a place"));
    for _ in 0..REFUSED_RUNNING_MAX {
        begin(&here).refused(true);
        begin(&proxy).refused(true);
    }
    assert!(!has_ended(&here));
    assert!(begin(&here).has_room());
    for _ in 0..=REFUSED_RUNNING_MAX {
        assert!(!has_ended(&here), "one was taken on between");
        begin(&here).refused(true);
        begin(&proxy).refused(true);
    }
    assert_eq!((has_ended(&here), has_ended(&proxy)), (true, false), "a proxy's goes on for the others");
}

#[tokio::test(start_paused = true)]
async fn of_several_with_as_many_the_longest_idle_one_ends() {
    // Clients of two connections each; the one that came first is idle for longest, wherever its entry lies.
    for first in 1..=20 {
        let clients = Clients::new(40, 0);
        let mut held = Vec::new();
        for at in 0..20 {
            let last = (first + at) % 20 + 1;
            held.extend([connected(&clients, last), connected(&clients, last)]);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let _newcomer = connected(&clients, 99);
        assert_eq!(ended(&held), [0]);
    }
}

#[tokio::test(start_paused = true)]
async fn networks_of_one_site_have_no_more_places_than_one_client() {
    let clients = Clients::new(64, 0);
    let of =
        |site: u16, network: u16| AddressPrefix::of(IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, 0, 1]));
    let others = [connected(&clients, 1), connected(&clients, 1)];
    let many: Vec<_> =
        (0..62).map(|network| clients.connect(of(7, network), false).expect("a place")).collect();
    let _turns: Vec<_> = others.iter().chain(&many).map(begin).collect();
    assert!(clients.connect(of(7, 100), false).is_none(), "all of its site are busy");
    let newcomer = clients.connect(of(8, 0), false).expect("a place");
    assert_eq!((ended(&others), ended(&many), has_ended(&newcomer)), (vec![], vec![0], false));
}

#[tokio::test(start_paused = true)]
async fn a_body_without_progress_loses_to_one_that_comes() {
    let body = 32 << 20;
    // Uploads as much as all may have, and the same of bodies of records.
    for (senders, each, bytes, pieces, expected) in
        [(12, 2, SHORT_BODY_BYTES + (16 << 10), 20 * 16, 8..=10), (6, 4, (1 << 20) - 1000, 16, 1..=2)]
    {
        let clients = Clients::new(4096, body);
        // Of some clients, each with several bodies that come quickly up to their last part.
        let attack: Vec<_> = (1..=senders).flat_map(|last| silent(&clients, last, each, 1)).collect();
        for (_, turns) in &attack {
            turns[0].has_come(bytes).expect("room");
        }
        let drip = || {
            attack
                .iter()
                .filter(|(at, _)| !has_ended(at))
                .for_each(|(_, turns)| turns[0].has_come(30).expect("room"))
        };
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(3)).await;
            drip();
        }
        // Slow ones lose, though each of their clients has less than the newcomer.
        let nurse = connected(&clients, 99);
        let upload = begin(&nurse);
        for _ in 0..pieces {
            upload.has_come(64 << 10).expect("room is made");
            tokio::time::advance(Duration::from_millis(2)).await;
        }
        let over = lost(&attack).len();
        assert!(expected.contains(&over), "{over}");
        assert!(!has_ended(&nurse));
        let in_all = clients.bodies.load(Ordering::Relaxed);
        assert!(in_all <= body + BODIES_BESIDE_MAX + BODIES_OTHERS_MAX + RESERVE_BYTES, "{in_all}");
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_come_quickly_do_not_end_each_other() {
    let clients = Clients::new(4096, 32 << 20);
    let uploads: Vec<_> = (1..=3).flat_map(|last| silent(&clients, last, 1, 1)).collect();
    let mut refused = Vec::new();
    'all: for _ in 0..32 * 16 {
        for (at, (_, turns)) in uploads.iter().enumerate() {
            if turns[0].has_come(64 << 10).is_err() {
                refused.push(at);
                break 'all;
            }
        }
        tokio::time::advance(Duration::from_millis(2)).await;
    }
    assert_eq!(
        (refused.len(), lost(&uploads)),
        (1, vec![]),
        "one has to come again, and takes nothing from the others"
    );
    // Neither does a small one, and there is a place for it.
    let small = connected(&clients, 9);
    begin(&small).has_come(500).expect("a place");
    assert_eq!(lost(&uploads), Vec::<usize>::new());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_come_is_not_slow() {
    let clients = Clients::new(4096, 32 << 20);
    let whole = silent(&clients, 1, 2, 1);
    for (_, turns) in &whole {
        turns[0].has_come(16 << 20).expect("room");
        turns[0].has_arrived();
    }
    tokio::time::advance(Duration::from_secs(30)).await;
    let newcomer = connected(&clients, 2);
    let upload = begin(&newcomer);
    let came = (0..32 * 16).take_while(|_| upload.has_come(64 << 10).is_ok()).count();
    assert_eq!((came, lost(&whole)), (20 * 16, vec![]), "as much as there is beside them");
}

fn who(name: &str) -> Actor {
    Actor::Person(name.to_owned())
}

/// Whether it has a place among those whose bodies are waited for, once it asks for one.
fn awaits(turn: &Arc<Turn>, place: &mut Option<u64>) -> bool {
    let waker = noop_waker();
    turn.awaits(place, &std::task::Context::from_waker(&waker)).is_ok()
}

#[tokio::test(start_paused = true)]
async fn few_forms_are_waited_for_and_no_account_loses_a_place_to_them() {
    let clients = Clients::new(4096, 0);
    let known = begin(&connected(&clients, 1));
    assert!(known.known_as(&who("A")).is_none());
    let mut known_place = None;
    assert!(awaits(&known, &mut known_place));
    let mut forms = Vec::new();
    let mut begin_form = |last: u8| {
        let (turn, mut place) = (begin(&connected(&clients, last)), None);
        assert!(awaits(&turn, &mut place), "a newcomer has a place");
        forms.push((turn, place));
        forms.iter_mut().map(|(turn, place)| awaits(turn, place)).collect::<Vec<_>>()
    };
    for _ in 0..17 {
        begin_form(10);
    }
    let left = begin_form(11);
    assert_eq!(left.iter().position(|is_there| !is_there), Some(0), "the first of the client that has most");
    assert_eq!(left.iter().filter(|is_there| **is_there).count(), 17);
    for number in 0..200 {
        let left = begin_form(12 + number % 100);
        assert!(left.iter().filter(|is_there| **is_there).count() <= 64);
    }
    assert!(awaits(&known, &mut known_place));
    for (turn, place) in &mut forms {
        turn.awaits_no_more(place);
    }
    known.awaits_no_more(&mut known_place);
    let mut place = None;
    assert!(awaits(&known, &mut place), "all is given back");
}

#[tokio::test(start_paused = true)]
async fn an_account_has_few_bodies_that_are_waited_for_from_all_its_addresses() {
    let clients = Clients::new(4096, 0);
    let of = |name: &str, last: u8| {
        let turn = begin(&connected(&clients, last));
        assert!(turn.known_as(&who(name)).is_none());
        let mut place = None;
        assert!(awaits(&turn, &mut place));
        (turn, place)
    };
    let mut other = of("B", 200);
    let mut all: Vec<_> = (0..100).map(|number| of("A", number)).collect();
    let left = all.iter_mut().filter_map(|(turn, place)| awaits(turn, place).then_some(())).count();
    assert_eq!((left, awaits(&other.0, &mut other.1)), (64, true));
}

#[tokio::test(start_paused = true)]
async fn an_account_is_one_client_wherever_it_comes_from() {
    let clients = Clients::new(4096, 0);
    let mut held = Vec::new();
    for last in 1..=44 {
        let connected = connected(&clients, last);
        let turn = begin(&connected);
        assert!(turn.known_as(&who("A")).is_none(), "{last}");
        turn.gave(1);
        held.push((turn.holding(SMALL_BYTES), turn, connected));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // Others have room, and nobody lost anything for it.
    let others = connected(&clients, 100);
    let other = begin(&others);
    assert!(other.known_as(&who("B")).is_none() && other.has_room_for(Some(8 << 20)));
    assert!(held.iter().all(|(_, _, connected)| !has_ended(connected)));
    // The account itself at another address gets in, and nothing of it ends as long as there is what is kept for this.
    let more = held[0].1.holding(1 << 20);
    let own = connected(&clients, 101);
    let first = begin(&own);
    assert!(first.known_as(&who("A")).is_none() && first.has_room());
    assert!(held.iter().all(|(_, _, connected)| !has_ended(connected)));
    // Then it does at the cost of what stood still for longest there.
    let yet_more = held[1].1.holding(ANSWERS_EACH_SLACK);
    let turn = begin(&own);
    assert!(turn.known_as(&who("A")).is_none());
    assert!(has_ended(&held[0].2) && !has_ended(&held[43].2));
    let account = Arc::clone(turn.charge(&who("A")));
    drop((more, yet_more, held, first, turn));
    assert_eq!(account.answers.load(Ordering::Relaxed), 0, "all is given back");
    assert_eq!(clients.answers.load(Ordering::Relaxed), other.held.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn an_account_without_room_waits_for_it() {
    let clients = Clients::new(4096, 0);
    let here = connected(&clients, 1);
    let first = begin(&here);
    assert!(first.known_as(&who("A")).is_none());
    let full = first.holding(ANSWERS_EACH_MAX);
    // From the same address: nothing else of it ends for this.
    let waits = begin(&here).known_as(&who("A")).expect("has to wait");
    let waits = tokio::spawn(waits);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!waits.is_finished() && !has_ended(&here));
    let freed_at = Instant::now();
    drop(full);
    waits.await.expect("no panic").expect("room");
    assert!(freed_at.elapsed() < Duration::from_millis(10), "{:?}", freed_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_accounts_requests_at_one_address_keep_no_other_address_of_its_out() {
    let clients = Clients::new(4096, 0);
    let full: Vec<_> = (0..2).map(|_| connected(&clients, 1)).collect();
    let mut held = Vec::new();
    for connected in &full {
        let turn = begin(connected);
        assert!(turn.known_as(&who("A")).is_none());
        turn.gave(1);
        held.push((turn.holding(8 << 20), turn));
    }
    let asks = connected(&clients, 1);
    let waiting: Vec<_> = (0..60).map(|_| begin(&asks).known_as(&who("A")).expect("no room")).collect();
    let waiting: Vec<_> = waiting.into_iter().map(tokio::spawn).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let refused = waiting.iter().filter(|task| task.is_finished()).count();
    assert_eq!(refused, 60 - WAITING_OF_ACCOUNT_MAX, "the account's places are few");
    let newcomer = connected(&clients, 2);
    let turns = [begin(&newcomer), begin(&newcomer)];
    assert!(turns[0].known_as(&who("A")).is_none());
    assert!(full.iter().any(has_ended));
    // What has ended is not given back yet.
    let waits = tokio::spawn(turns[1].known_as(&who("A")).expect("no room yet"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    held.clear();
    waits.await.expect("no panic").expect("a place to wait, and room in time");
}

#[tokio::test(start_paused = true)]
async fn what_a_connection_takes_in_unasked_is_counted_once_for_all_its_requests() {
    let clients = Clients::new(4096, 0);
    let here = connected(&clients, 1);
    let turns: Vec<_> = (0..32).map(|_| begin(&here)).collect();
    let alone = clients.answers.load(Ordering::Relaxed);
    let more = || clients.answers.load(Ordering::Relaxed) - alone;
    let small = turns[0].holding_unread(100);
    assert_eq!(more(), 100);
    let others: Vec<_> = turns.iter().map(|turn| turn.holding_unread(UNREAD_BYTES_MAX)).collect();
    assert_eq!(more(), UNREAD_BYTES_MAX);
    drop(small);
    assert_eq!(more(), UNREAD_BYTES_MAX);
    drop(others);
    assert_eq!((more(), clients.requests.load(Ordering::Relaxed)), (0, alone));
}
