//! People who were made on a node are sent once everything at the centre has been read: before that nobody knows whether the
//! centre has records of somebody else under their account.

use super::*;
use thalamus_edge::store::{HoldReason, WaitReason};
use thalamus_edge::sync::identity::{Verdict, decide, hold_of};

const ACCT: &str = "NWP4X";
const NEW: &str = "NWP5X";
/// One round reads about so many documents.
const PIECE: u64 = 100;
const SAID: &str = "One person who was made here is sent once everything at the centre has been read";

fn anna() -> Document {
    doc! {"_id": ACCT, "name": "Anna", "lastname": "Alpha", "dob": "1990-01-01", "gender": "f"}
}

fn page(id: &str, info: &str) -> Document {
    doc! {"_id": id, "book": ACCT, "info": info}
}

/// A centre with more people than a round of these nodes reads. Pages are read after people.
fn centre(has_history: bool) -> Sim {
    let sim = if has_history { Sim::with_history() } else { Sim::default() };
    for n in 0..12 * PIECE {
        sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
    }
    sim.state().line_bytes_per_document = 1_000;
    sim
}

/// A node that reads in pieces.
fn in_pieces(sim: &Sim) -> Node {
    let settings = SyncSettings { scan_bytes_per_round: PIECE * 1_000, ..SyncSettings::default() };
    let store = Store::in_memory(OPTIONS).unwrap();
    let hub: Arc<dyn Hub> = Arc::new(sim.clone());
    Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store }
}

/// The node runs rounds until one is complete; `during` is called after each that is not.
async fn until_complete(node: &Node, mut during: impl AsyncFnMut(&Report)) -> usize {
    for partial in 0.. {
        let report = node.sync.round().await;
        if report.outcome == Outcome::Complete {
            return partial;
        }
        assert_eq!(report.outcome, Outcome::Partial, "{report:?}");
        assert!(partial < 40);
        during(&report).await;
    }
    unreachable!()
}

fn here(node: &Node, kind: Kind, id: &str) -> Option<Document> {
    let record = node.store.read().unwrap().record(&RecordKey::new(kind, id)).unwrap()?;
    Some(Document::try_from(record.document.as_ref()).unwrap())
}

fn waits_for(node: &Node, kind: Kind, id: &str) -> Option<WaitReason> {
    let waiting = node.store.read().unwrap().waiting_of(&RecordKey::new(kind, id)).unwrap();
    waiting.map(|waiting| waiting.why)
}

/// Anna and her page are not sent, and it is said why.
fn assert_waits(node: &Node, sim: &Sim, report: &Report) {
    assert_eq!(sim.get(Kind::Person, ACCT), None, "{report:?}");
    assert_eq!(sim.get(Kind::Page, "a1"), None, "{report:?}");
    assert_eq!(waits_for(node, Kind::Person, ACCT), Some(WaitReason::Unread));
    assert_eq!(waits_for(node, Kind::Page, "a1"), Some(WaitReason::Unread), "why her page waits");
    let status = node.sync.status().unwrap();
    assert!(report.message.contains(SAID) && status.message.contains(SAID), "{report:?} {status:?}");
    assert!(status.waiting >= 2, "{status:?}");
}

/// The page of somebody else is in nobody's book: it is asked about, and stays with the account if Anna is another one.
async fn assert_asked(node: &Node, sim: &Sim, what: &str) {
    assert_eq!(sim.get(Kind::Person, ACCT), None, "{what}: Anna would get the page");
    assert_eq!(here(node, Kind::Page, "b1"), None, "{what}: in the book of Anna");
    let conflicts = node.store.read().unwrap().conflicts().unwrap();
    assert_eq!(conflicts.len(), 1, "{what}: {conflicts:?}");
    let (hold, pair) = hold_of(&node.store.read().unwrap(), &conflicts[0]).unwrap().expect(what);
    assert_eq!(hold.why, HoldReason::Taken, "{what}");
    let verdict = Verdict::NewId(NEW.to_owned());
    let actor = Actor::Local("tech".to_owned());
    decide(&node.store, &conflicts[0].id, verdict, pair, actor).await.unwrap();
    until_complete(node, async |_| {}).await;
    let book = |id: &str| sim.get(Kind::Page, id).unwrap().get_str("book").unwrap().to_owned();
    assert_eq!((book("a1"), book("b1")), (NEW.to_owned(), ACCT.to_owned()), "{what}");
    assert!(sim.get(Kind::Person, NEW).is_some(), "{what}");
}

#[tokio::test]
async fn a_new_node_sends_no_new_people_before_it_has_read_everything() {
    for has_history in [false, true] {
        for has_others in [true, false] {
            let what = format!("history: {has_history}, records of somebody else: {has_others}");
            let sim = centre(has_history);
            if has_others {
                sim.put(Kind::Page, page("b1", "of somebody else"));
            }
            let node = in_pieces(&sim);
            write(&node.store, Kind::Person, anna()).await;
            write(&node.store, Kind::Page, page("a1", "of Anna")).await;
            let mut turn = 0;
            let partial = until_complete(&node, async |report| {
                assert_waits(&node, &sim, report);
                // What was edited of people whom the centre has is sent meanwhile.
                let of_known = |turn: i32| doc! {"_id": format!("k{turn}"), "book": "P0000", "info": "here"};
                if turn > 0 {
                    assert_eq!(at(&sim, "P0000"), turn.to_string(), "{report:?}");
                    assert_eq!(sim.get(Kind::Page, &format!("k{turn}")), Some(of_known(turn)), "{report:?}");
                }
                turn += 1;
                node.set("P0000", &turn.to_string()).await;
                write(&node.store, Kind::Page, of_known(turn)).await;
            })
            .await;
            assert!(partial > 2, "{what}: {partial}");
            if has_others {
                assert_asked(&node, &sim, &what).await;
            } else {
                assert_eq!(sim.get(Kind::Person, ACCT), Some(anna()), "{what}");
                assert_eq!(sim.get(Kind::Page, "a1"), Some(page("a1", "of Anna")), "{what}");
                assert_eq!(waits_for(&node, Kind::Person, ACCT), None, "{what}");
                assert_eq!(node.pending(), 0, "{what}");
            }
        }
    }
}

/// What came while the history had a gap is found by reading everything again, in pieces.
#[tokio::test]
async fn new_people_wait_until_a_gap_in_the_history_is_read() {
    let sim = centre(true);
    let node = in_pieces(&sim);
    until_complete(&node, async |_| {}).await;
    sim.put(Kind::Page, page("b1", "of somebody else"));
    sim.forget_history(0);
    write(&node.store, Kind::Person, anna()).await;
    write(&node.store, Kind::Page, page("a1", "of Anna")).await;
    let partial = until_complete(&node, async |report| assert_waits(&node, &sim, report)).await;
    assert!(partial > 2, "{partial}");
    assert_asked(&node, &sim, "after a gap").await;
}

/// A pass that only makes sure of what is known holds up nobody.
#[tokio::test]
async fn a_verification_pass_holds_up_no_new_people() {
    let sim = centre(true);
    let node = in_pieces(&sim);
    until_complete(&node, async |_| {}).await;
    node.sync.ask_for_verification().await.unwrap();
    write(&node.store, Kind::Person, anna()).await;
    write(&node.store, Kind::Page, page("a1", "of Anna")).await;
    node.sync.round().await;
    assert_eq!(sim.get(Kind::Person, ACCT), Some(anna()));
    assert_eq!(sim.get(Kind::Page, "a1"), Some(page("a1", "of Anna")));
}

/// A node that is in step, with Anna and her page made on it, and a page of somebody else there that cannot be read.
async fn unreadable() -> (Sim, Node) {
    let sim = Sim::with_history();
    sim.put(Kind::Person, person("P0000", "old"));
    sim.put(Kind::Page, page("b1", "of somebody else"));
    sim.state().unreadable.push("b1".to_owned());
    let node = in_pieces(&sim);
    until_complete(&node, async |_| {}).await;
    // So large that it is sent alone, before Anna.
    node.set("P0000", &"new".repeat(400_000)).await;
    write(&node.store, Kind::Person, anna()).await;
    write(&node.store, Kind::Page, page("a1", "of Anna")).await;
    (sim, node)
}

/// What cannot be read, nobody can wait for.
#[tokio::test]
async fn a_record_that_cannot_be_read_holds_up_no_new_people() {
    let (sim, node) = unreadable().await;
    until_complete(&node, async |_| {}).await;
    assert_eq!(sim.get(Kind::Person, ACCT), Some(anna()));
    assert_eq!(sim.get(Kind::Page, "a1"), Some(page("a1", "of Anna")));
}

/// Staff ask for a record once more that could not be read, while the round is sending already.
#[tokio::test]
async fn new_people_wait_for_what_is_to_be_read_while_the_round_sends() {
    let (sim, node) = unreadable().await;
    let (store, there) = (node.store.clone(), sim.clone());
    let asked = async move {
        there.state().unreadable.clear();
        let asked = store.transact(|tx| tx.retry_dead(&RecordKey::new(Kind::Page, "b1"))).await;
        assert!(asked.unwrap(), "there is a letter about it");
    };
    sim.state().write_faults.push_back(Fault::Meanwhile(Box::pin(asked)));
    node.sync.round().await;
    assert!(at(&sim, "P0000").starts_with("new"));
    assert_asked(&node, &sim, "asked for once more").await;
}
