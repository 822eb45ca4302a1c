//! Trailers that HTTP/2 keeps for a request whose body nobody reads.

use super::super::*;
use super::{begin, connected, has_ended};

#[tokio::test(start_paused = true)]
async fn trailers_that_may_come_are_counted_until_the_body_ends_or_the_answer_is_taken() {
    let clients = Clients::new(4096, 0);
    let here = connected(&clients, 1);
    let counts = || (clients.requests.load(Ordering::Relaxed), clients.answers.load(Ordering::Relaxed));
    let read = begin(&here);
    let alone = counts();
    read.expects_trailers();
    assert_eq!(counts(), (alone.0 + TRAILERS_BYTES, alone.1 + TRAILERS_BYTES));
    read.has_arrived();
    read.has_arrived();
    assert_eq!(counts(), alone, "once");
    drop(read);
    // Neither an answer nor a refusal that is not taken lets them go.
    let (answered, refused) = (begin(&here), begin(&here));
    answered.expects_trailers();
    answered.answered(0);
    refused.expects_trailers();
    refused.refused(true);
    let held = 2 * TRAILERS_BYTES + REQUEST_BYTES + REFUSED_BYTES;
    assert_eq!(counts(), (held, held));
    // So a client that asks for ever more is refused, and then loses its connection.
    let mut many = Vec::new();
    while !has_ended(&here) {
        let turn = begin(&here);
        turn.expects_trailers();
        if !turn.may_go_on() {
            turn.refused(true);
        }
        many.push(turn);
        assert!(counts().0 <= ANSWERS_EACH_MAX + ENDED_EACH_BESIDE + REQUEST_BYTES + TRAILERS_BYTES);
    }
    drop((answered, refused, many));
    assert_eq!(counts(), (0, 0));
}
