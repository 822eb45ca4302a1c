//! What bodies and answers may take together.

use super::super::*;
use super::{begin, connected, ended};

/// The largest body that clients of these tests may send.
const BODY: usize = 8 << 20;
const PIECE: usize = 1 << 20;

fn together(clients: &Clients) -> usize {
    clients.bodies.load(Ordering::Relaxed) + clients.answers.load(Ordering::Relaxed)
}

/// So many clients from this one on, each with a request.
fn requests(clients: &Arc<Clients>, first: u8, number: u8) -> (Vec<Connected>, Vec<Arc<Turn>>) {
    let all: Vec<_> = (first..first + number).map(|last| connected(clients, last)).collect();
    let turns = all.iter().map(begin).collect();
    (all, turns)
}

#[tokio::test(start_paused = true)]
async fn bodies_and_answers_have_one_bound() {
    for (body, alone) in [(SHORT_BODY_BYTES / 2, SHORT_BODIES_MIN), (3 << 20, BODY + BODIES_BESIDE_MAX)] {
        for bodies_first in [true, false] {
            let clients = Clients::new(4096, BODY);
            // As many clients with little each, so that nobody makes room for anybody.
            let (all, turns) = requests(&clients, 0, 100);
            let bodies = || turns.iter().filter(|turn| turn.has_come(body).is_ok()).count() * body;
            let answers = || turns.iter().filter(|turn| turn.take_place(PIECE)).count() * PIECE;
            let (bodies, answers) = match bodies_first {
                true => {
                    let bodies = bodies();
                    (bodies, answers())
                }
                false => {
                    let answers = answers();
                    (bodies(), answers)
                }
            };
            let (held, max) = (together(&clients), alone + ANSWERS_MAX);
            assert!(held <= max && held + body + PIECE > max, "{held}: {bodies} and {answers}");
            assert!(ended(&all).is_empty());
            // Neither keeps the other one out.
            assert!(bodies + body > alone, "{bodies}");
            assert!(answers + 4 * PIECE >= ANSWERS_MAX - BODIES_OTHERS_MAX, "{answers}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_bodies_give_back_is_room_for_an_answer_that_waits() {
    let clients = Clients::new(4096, BODY);
    let (_all, turns) = requests(&clients, 0, 100);
    let sending: Vec<_> = turns.iter().filter(|turn| turn.has_come(PIECE).is_ok()).collect();
    let reading = turns.iter().filter(|turn| turn.take_place(PIECE)).count();
    assert!(reading < 25, "{reading}");
    // It has as much as the others, so that nobody makes room for it.
    let (_own, newcomer) = requests(&clients, 200, 2);
    let _held = newcomer[0].holding(PIECE);
    assert!(!newcomer[0].take_place(PIECE));
    let waits = tokio::spawn(Arc::clone(&newcomer[0]).wait_for_room_of(PIECE));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waits.is_finished());
    sending.iter().take(4).for_each(|turn| turn.answered(0));
    assert_eq!(waits.await.expect("it ends"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_answer_makes_room_for_a_body() {
    let clients = Clients::new(4096, BODY);
    let (readers, reading) = requests(&clients, 0, 3);
    let _held: Vec<_> = reading.iter().map(|turn| turn.holding(ANSWERS_EACH_MAX)).collect();
    // Two honest uploads, of which only one has room beside so many answers.
    let (uploads, sending) = requests(&clients, 10, 2);
    (0..BODY / PIECE).for_each(|_| sending[0].has_come(PIECE).expect("room"));
    assert!(ended(&readers).is_empty());
    for _ in 0..5 {
        sending[1].has_come(PIECE).expect("room is made");
        tokio::time::sleep(Duration::from_millis(2 * ROOM_MADE_PAUSE_MS)).await;
    }
    assert!(!ended(&readers).is_empty());
    assert!(ended(&uploads).is_empty(), "no body is lost for it");
}
