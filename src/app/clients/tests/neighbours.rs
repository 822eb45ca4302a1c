//! Clients that share something: the networks of an IPv6 site, a router, a proxy.

use std::net::IpAddr;

use super::super::beginnings::{BEGINNINGS_EACH_MAX, BEGINNINGS_MAX, BEGINNINGS_OF_PROXIES_MAX};
use super::super::*;
use super::{awaits, begin, client, connect, connected, ended, has_ended};

/// A host of a network of a site.
fn host(site: u16, network: u16, last: u16) -> AddressPrefix {
    AddressPrefix::of(IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, 0, last]))
}

fn connected_from(clients: &Arc<Clients>, prefix: AddressPrefix) -> Connected {
    let connected = clients.connect(prefix, false).expect("a place");
    connected.connection.is_whole();
    connected
}

#[tokio::test(start_paused = true)]
async fn hosts_of_one_network_share_what_is_held_for_a_client() {
    let clients = Clients::new(4096, 0);
    let [one, neighbour, other] =
        [host(7, 1, 1), host(7, 1, 2), host(7, 2, 1)].map(|prefix| connected_from(&clients, prefix));
    let _full = begin(&one).holding(ANSWERS_EACH_MAX);
    assert!(!begin(&neighbour).has_room(), "an answer");
    assert!(begin(&other).has_room());
    let body = begin(&one);
    body.has_come(BODIES_BESIDE_MAX).expect("room");
    begin(&neighbour).has_come(1000).expect_err("a body");
    begin(&other).has_come(1000).expect("room");
    let places: Vec<_> = [&one, &neighbour].iter().cycle().take(40).map(|at| (begin(at), None)).collect();
    let mut places: Vec<(Arc<Turn>, Option<u64>)> = places;
    places.iter_mut().for_each(|(turn, place)| assert!(awaits(turn, place)));
    let left = places.iter_mut().filter_map(|(turn, place)| awaits(turn, place).then_some(())).count();
    assert_eq!(left, 16, "forms that are waited for");
}

#[tokio::test(start_paused = true)]
async fn networks_of_one_site_lose_their_places_to_a_newcomer() {
    let clients = Clients::new(4096, 0);
    // Each of them has less than the client that has two.
    let few = [connected(&clients, 1), connected(&clients, 1)];
    let many: Vec<_> = (0..62).map(|network| connected_from(&clients, host(7, network, 1))).collect();
    let mut turns: Vec<_> = few.iter().chain(&many).map(|at| (begin(at), None)).collect();
    turns.iter_mut().for_each(|(turn, place)| assert!(awaits(turn, place)));
    let (newcomer, mut place) = (begin(&connected(&clients, 3)), None);
    assert!(awaits(&newcomer, &mut place));
    let lost: Vec<_> = (0..turns.len())
        .filter(|at| {
            let (turn, place) = &mut turns[*at];
            !awaits(turn, place)
        })
        .collect();
    assert_eq!(lost, [2], "the first of the site");
    assert!(awaits(&newcomer, &mut place));
}

#[tokio::test(start_paused = true)]
async fn networks_of_one_site_make_room_for_answers_and_bodies_as_one_client() {
    let clients = Clients::new(4096, 0);
    let reader = connected(&clients, 1);
    let reading = begin(&reader);
    let _read = reading.holding(1 << 20);
    let many: Vec<_> = (0..100).map(|network| connected_from(&clients, host(7, network, 1))).collect();
    let held: Vec<_> = many.iter().map(|at| begin(at).holding(400 << 10)).collect();
    // It has more than each network, and less than all together.
    let turn = begin(&connected(&clients, 2));
    let _own = turn.holding(SMALL_BYTES);
    assert!(turn.has_room(), "{}", clients.answers.load(Ordering::Relaxed));
    assert!(!ended(&many).is_empty() && !has_ended(&reader));
    // Another network of the site takes nothing from who has less than the site.
    drop((held, many));
    let many: Vec<_> = (0..3).map(|network| connected_from(&clients, host(7, network, 1))).collect();
    let _held: Vec<_> = many.iter().map(|at| begin(at).holding(11 << 20)).collect();
    let further = connected_from(&clients, host(7, 9, 1));
    let _further = begin(&further).holding(3 << 20);
    assert!(!begin(&further).has_room());
    assert!(!has_ended(&reader) && ended(&many).is_empty());

    let clients = Clients::new(4096, 1 << 20);
    let many: Vec<_> = (0..120).map(|network| connected_from(&clients, host(7, network, 1))).collect();
    let bodies: Vec<_> = many.iter().map(begin).collect();
    let came = bodies.iter().take_while(|body| body.has_come(250 << 10).is_ok()).count();
    assert!((80..120).contains(&came), "{came}");
    assert!(ended(&many).is_empty(), "they take nothing from each other");
    let upload = begin(&connected(&clients, 1));
    (0..10).for_each(|_| upload.has_come(100 << 10).expect("room is made"));
    assert!(!ended(&many).is_empty());
}

#[tokio::test(start_paused = true)]
async fn clients_behind_a_proxy_make_room_for_each_other() {
    let clients = Clients::new(4096, 0);
    let through = |connected: &Connected, last: u8| {
        clients.begin(&connected.connection, clients.share(client(last)), 0)
    };
    // What the proxy's connections may take in unasked is more than any client has.
    let proxies: Vec<_> = (0..200).map(|_| clients.connect(client(9), true).expect("a place")).collect();
    let turns: Vec<_> = (0..200).map(|at| through(&proxies[at], 50 + (at % 150) as u8)).collect();
    let _unread: Vec<_> = turns.iter().map(|turn| turn.holding_unread(UNREAD_BYTES_MAX)).collect();
    let greedy: Vec<_> = (0..3).map(|_| clients.connect(client(9), true).expect("a place")).collect();
    let _held: Vec<_> = greedy.iter().map(|at| through(at, 1).holding(4 << 20)).collect();
    let others: Vec<_> = (0..10).map(|_| clients.connect(client(9), true).expect("a place")).collect();
    let _others: Vec<_> = (0..10).map(|at| through(&others[at], 2 + at as u8).holding(2 << 20)).collect();
    assert!(clients.answers.load(Ordering::Relaxed) > ANSWERS_MAX + RESERVE_BYTES);
    let newcomer = clients.connect(client(9), true).expect("a place");
    assert!(through(&newcomer, 40).has_room());
    assert_eq!((ended(&proxies), ended(&others)), (vec![], vec![]));
    assert!(!ended(&greedy).is_empty() && !has_ended(&newcomer));
}

#[tokio::test(start_paused = true)]
async fn connections_that_proxies_open_in_advance_take_no_places_of_others() {
    let clients = Clients::new(4096, 0);
    let proxy = || clients.connect(client(9), true).expect("a place");
    let busy = proxy();
    let _turn = begin(&busy);
    let mut proxied = Vec::new();
    for _ in 0..BEGINNINGS_OF_PROXIES_MAX + 10 {
        proxied.push(proxy());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(ended(&proxied), (0..11).collect::<Vec<_>>(), "those that nobody uses");
    assert!(!has_ended(&busy));
    let others: Vec<_> =
        (0..BEGINNINGS_MAX).map(|at| connect(&clients, 100 + (at % 100) as u8).expect("a place")).collect();
    assert_eq!(ended(&others), Vec::<usize>::new());
    drop((proxied, busy, others));
    let table = lock(&clients.table);
    let counts = [&table.beginnings, &table.beginnings_of_proxies];
    assert_eq!(counts.map(|count| count.load(Ordering::Relaxed)), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_young_handshake_that_goes_on_is_not_ended_for_its_neighbours() {
    let clients = Clients::new(4096, 0);
    // Something comes on it every second and a half, as on a slow line.
    let honest = connect(&clients, 1).expect("a place");
    let mut flood = Vec::new();
    for at in 1..=450 {
        flood.push(connect(&clients, 1).expect("a place"));
        tokio::time::advance(Duration::from_millis(10)).await;
        if at % 150 == 0 {
            clients.has_moved(&honest.connection);
        }
    }
    assert!(!has_ended(&honest), "in 4.5 s with 100 others each second");
    assert_eq!(flood.iter().filter(|at| !has_ended(at)).count(), BEGINNINGS_EACH_MAX - 1);
    // Not for ever.
    for _ in 0..60 {
        flood.push(connect(&clients, 1).expect("a place"));
        tokio::time::advance(Duration::from_millis(10)).await;
        clients.has_moved(&honest.connection);
    }
    assert!(has_ended(&honest));
}

/// Behind a proxy all connections have one address. The one that a client's requests are on counts for that client.
#[tokio::test(start_paused = true)]
async fn a_proxys_connections_count_for_the_clients_they_are_busy_for() {
    let proxy = AddressPrefix::of(IpAddr::from([10, 0, 0, 1]));
    let of =
        |site: u16, network: u16| AddressPrefix::of(IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, 0, 1]));
    let clients = Clients::new(64, 0);
    let connect = || clients.connect(proxy, true);
    let held: Vec<_> = (0..64).map(|_| connect().expect("a place")).collect();
    // Of one client all of a site's networks, and two of each of two others.
    let client_of = |at: u16| if at < 60 { of(7, at) } else { of(8 + (at - 60) / 2, 0) };
    let ask = |connected: &Connected, client: AddressPrefix| {
        clients.begin(&connected.connection, clients.share(client), 100)
    };
    let turns: Vec<_> = held.iter().zip(0..).map(|(at, number)| ask(at, client_of(number))).collect();
    let newcomer = connect().expect("of the site that has most");
    assert_eq!((ended(&held), has_ended(&newcomer)), (vec![0], false));
    // A client that comes without the proxy has a place of that site too.
    let direct = connected(&clients, 5);
    assert_eq!((ended(&held), has_ended(&direct)), (vec![0, 1], false));
    drop(turns);

    // Where nobody knows whose they are, a proxy's connections do not end each other while they are busy.
    let clients = Clients::new(4, 0);
    let held: Vec<_> = (0..4).map(|_| clients.connect(proxy, true).expect("a place")).collect();
    let both = |connected: &Connected| {
        [1, 2].map(|site| clients.begin(&connected.connection, clients.share(of(site, 0)), 100))
    };
    let _turns: Vec<_> = held.iter().map(both).collect();
    assert!(clients.connect(proxy, true).is_none());
    assert_eq!(ended(&held), Vec::<usize>::new());
}
