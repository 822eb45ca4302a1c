//! What stands still ends by itself: connections on which nothing is asked, and answers that are not taken.

use super::*;

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

/// Streams of one connection are looked at one by one: one that is read does not speak for another.
#[tokio::test(start_paused = true)]
async fn a_stream_that_stands_still_ends_its_connection_beside_one_that_is_read() {
    let clients = Clients::new(4096, 0);
    let _watch = tokio::spawn(Arc::clone(&clients).watch());
    let (one_unread, all_read) = (connected(&clients, 1), connected(&clients, 1));
    let (unread, read, other) = (begin(&one_unread), begin(&one_unread), begin(&all_read));
    unread.gave(1000);
    for second in 0..150 {
        for turn in [&read, &other] {
            turn.asked();
            turn.gave(1100);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(has_ended(&one_unread) || second < 121, "after {second} s");
        assert!(!has_ended(&one_unread) || second >= 118, "after {second} s");
        assert!(!has_ended(&all_read), "after {second} s");
    }
}
