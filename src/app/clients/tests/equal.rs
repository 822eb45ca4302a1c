//! Where many clients ask for much at once, each has an equal share, and there is room for one more.

use std::net::IpAddr;

use super::*;

const MIB: usize = 1 << 20;

/// As many requests as a client's connections take, none of whose answers is taken; what was refused is told.
async fn floods(clients: &Arc<Clients>, clients_number: u8) -> Vec<(Connected, Vec<Arc<Turn>>)> {
    let mut all = Vec::new();
    for _ in 0..4 {
        for last in 0..clients_number {
            let connected = connected(clients, last);
            let mut turns = Vec::new();
            tokio::time::advance(Duration::from_millis(1)).await;
            for _ in 0..32 {
                if has_ended(&connected) {
                    break;
                }
                let turn = begin(&connected);
                if !turn.may_go_on() {
                    turn.refused(true);
                }
                turns.push(turn);
            }
            all.push((connected, turns));
            // The task of a connection that has ended gives back what it held.
            all.retain(|(connected, _)| !has_ended(connected));
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_served_beside_hundreds_that_take_nothing() {
    for number in [10, 60, 120, 250] {
        let clients = Clients::new(4096, 0);
        let flood = floods(&clients, number).await;
        for last in 251..=255 {
            let newcomer = connected(&clients, last);
            for _ in 0..3 {
                let turn = begin(&newcomer);
                assert!(turn.may_go_on(), "{number}: {}", clients.requests.load(Ordering::Relaxed));
                assert!(turn.has_room(), "{number}: {}", clients.answers.load(Ordering::Relaxed));
                turn.answered(0);
            }
            assert!(!has_ended(&newcomer), "{number}");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(clients.answers.load(Ordering::Relaxed) <= ANSWERS_MAX + ENDED_BESIDE, "{number}");
        drop(flood);
        assert_eq!(
            (clients.asking.load(Ordering::Relaxed), clients.requests.load(Ordering::Relaxed)),
            (0, 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn few_clients_are_not_held_to_an_equal_share() {
    let clients = Clients::new(4096, 0);
    let one: Vec<_> = (0..20).map(|_| connected(&clients, 1)).collect();
    let turns: Vec<_> = one.iter().flat_map(|connected| (0..32).map(move |_| begin(connected))).collect();
    assert!(turns.iter().all(|turn| turn.may_go_on()), "10 MiB, of 12 that it may have");
}

#[tokio::test(start_paused = true)]
async fn the_networks_of_one_site_leave_others_more_than_a_share() {
    let clients = Clients::new(4096, 0);
    let mut flood = Vec::new();
    for network in 0..600u16 {
        let host = IpAddr::from([0x2001, 0xdb8, 7, network, 0, 0, 0, 1]);
        let connected = clients.connect(AddressPrefix::of(host), false).expect("a place");
        let turns: Vec<_> = (0..4).map(|_| begin(&connected)).filter(|turn| turn.may_go_on()).collect();
        flood.push((connected, turns));
        flood.retain(|(connected, _)| !has_ended(connected));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    // A clinic behind one address, whose requests take a little each.
    let clinic: Vec<_> = (0..4).map(|_| connected(&clients, 9)).collect();
    let mut turns = Vec::new();
    for connected in clinic.iter().cycle().take(20) {
        tokio::time::advance(Duration::from_millis(25)).await;
        flood.retain(|(connected, _)| !has_ended(connected));
        let turn = begin(connected);
        assert!(turn.may_go_on(), "{} of {}", turns.len(), clients.requests.load(Ordering::Relaxed));
        turns.push(turn);
    }
}

/// Of a request that was refused, more may be taken off than is there, for a moment: its trailers end beside that.
#[tokio::test(start_paused = true)]
async fn what_is_taken_off_before_it_is_put_on_leaves_the_number_of_those_who_ask_right() {
    let clients = Clients::new(4096, 0);
    let share = clients.share(AddressPrefix::of(IpAddr::from([192, 0, 2, 1])));
    let asking = || (clients.asking.load(Ordering::Relaxed), clients.requests.load(Ordering::Relaxed));
    let less_than_nothing = 2_usize.wrapping_sub(48);
    clients.more_is_asked(&share, 2);
    clients.more_is_asked(&share, 46);
    assert_eq!(asking(), (1, 48));
    clients.less_is_asked(&share, 48);
    clients.less_is_asked(&share, less_than_nothing);
    assert_eq!(asking(), (1, 46), "the other request is still there");
    clients.less_is_asked(&share, 46);
    assert_eq!(asking(), (0, 0));
    clients.less_is_asked(&share, 5);
    assert!(clients.equal_share() == CROWDED_BYTES);
    clients.more_is_asked(&share, 5);
    assert_eq!(asking(), (0, 0));
}

/// Connections that are told to end have begun more before they have.
#[tokio::test(start_paused = true)]
async fn a_client_with_little_waits_while_others_are_about_to_end() {
    let clients = Clients::new(4096, 0);
    let flood: Vec<_> = (0..54).map(|last| connected(&clients, last)).collect();
    let _turns: Vec<_> = flood
        .iter()
        .map(|one| clients.begin(&one.connection, Arc::clone(one.connection.share()), MIB))
        .collect();
    let in_all = clients.requests.load(Ordering::Relaxed);
    assert!(in_all > ANSWERS_MAX + ENDED_BESIDE && in_all < ANSWERS_MAX + WAITS_BESIDE, "{in_all}");
    let newcomer = connected(&clients, 250);
    for _ in 0..5 {
        assert!(begin(&newcomer).may_go_on());
    }
    assert!(!has_ended(&newcomer));
    // Who has more is refused.
    let second = clients.begin(&flood[0].connection, Arc::clone(flood[0].connection.share()), 0);
    assert!(!second.may_go_on());
}
