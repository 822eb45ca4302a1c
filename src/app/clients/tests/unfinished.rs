//! Connections whose next request is not whole.

use super::super::beginnings::{BEGINNINGS_EACH_MAX, BEGINNINGS_MAX};
use super::super::*;
use super::{begin, client, connect, connected, ended, has_ended};

#[tokio::test(start_paused = true)]
async fn few_connections_of_a_client_have_an_unfinished_request() {
    let clients = Clients::new(4096, 0);
    let other = connect(&clients, 2).expect("a place");
    let mut all = Vec::new();
    for _ in 0..BEGINNINGS_EACH_MAX {
        all.push(connect(&clients, 1).expect("a place"));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    // One that has asked, and one that has and begins again, which then is the youngest.
    all[0].connection.is_whole();
    all[1].connection.is_whole();
    clients.has_begun(&all[1].connection);
    all.push(connect(&clients, 1).expect("a place"));
    assert_eq!(ended(&all), Vec::<usize>::new());
    all.push(connect(&clients, 1).expect("a place"));
    assert_eq!((ended(&all), has_ended(&other)), (vec![2], false), "the oldest of its own");
    clients.has_begun(&all[0].connection);
    assert_eq!(ended(&all), [2, 3], "also for one that had a request");
    // A proxy's are many clients'.
    let proxied: Vec<_> =
        (0..BEGINNINGS_EACH_MAX * 2).map(|_| clients.connect(client(9), true).expect("a place")).collect();
    assert_eq!(ended(&proxied), Vec::<usize>::new());
    drop((all, proxied, other));
    assert_eq!(lock(&clients.table).beginnings.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn in_all_few_connections_have_an_unfinished_request() {
    let clients = Clients::new(4096, 0);
    let slow = connect(&clients, 200).expect("a place");
    let mut all = Vec::new();
    for number in 0..BEGINNINGS_MAX * 2 {
        tokio::time::advance(Duration::from_millis(1)).await;
        all.push(connect(&clients, u8::try_from(number % 6).expect("small")).expect("a place"));
        assert!(lock(&clients.table).beginnings.load(Ordering::Relaxed) <= BEGINNINGS_MAX);
    }
    assert!(!has_ended(&slow), "a slow handshake goes on beside those who have more");
    assert_eq!(ended(&all).len(), BEGINNINGS_MAX + 1);
    assert!(has_ended(&all[0]) && !has_ended(&all[BEGINNINGS_MAX * 2 - 1]));
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_record_that_came_during_an_answer_counts_when_that_has_ended() {
    let clients = Clients::new(4096, 0);
    let all: Vec<_> = (0..BEGINNINGS_EACH_MAX + 50).map(|_| connected(&clients, 1)).collect();
    let turns: Vec<_> = all.iter().map(begin).collect();
    // Alone, or behind records that HTTP was given.
    for (at, connected) in all.iter().enumerate() {
        match at % 2 {
            0 => assert_eq!(connected.connection.came_mute(1000), 1000),
            _ => connected.connection.has_part_of_record(true),
        }
    }
    let watch = tokio::spawn(Arc::clone(&clients).watch());
    tokio::time::sleep(2 * LOOK).await;
    assert!(all.iter().all(|connected| !connected.connection.is_beginning()), "they are answered");
    drop(turns);
    // One of them is asked for the rest: it is HTTP's.
    all[0].connection.came_as_http();
    tokio::time::sleep(2 * LOOK).await;
    assert_eq!(ended(&all).len(), 49);
    assert!(!has_ended(&all[0]) && !all[0].connection.is_beginning());
    watch.abort();
}
