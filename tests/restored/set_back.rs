//! Somebody is written over a person on the node, and the centre is set back to an older copy: before it is asked whether the two are
//! one, or while that is open. What the centre has lost or holds as it was is of the one before, and of nobody else.

use super::written_over::{ACCT, NEW, ann, answer, book, carl, page, write};
use super::*;
use thalamus_edge::store::{ConflictStatus, HoldReason};
use thalamus_edge::sync::identity::hold_of;

/// When the other one is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// And the question is open when the centre is set back.
    Asked,
    /// With no round in between.
    JustBefore,
    /// Between the halt and the answer to it.
    Halted,
    /// After the answer, before the next round.
    Agreed,
}

/// What the centre is set back to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    /// A copy from before Ann was made.
    BeforeAnn,
    /// One in which Ann has another phone number, and her records are as they were.
    OlderAnn,
    /// The same, and somebody there has edited one of her pages since.
    Edited,
    /// Ann is as she was, and has no records yet.
    BareAnn,
}

const WHEN: [When; 4] = [When::Asked, When::JustBefore, When::Halted, When::Agreed];
const TO: [To; 4] = [To::BeforeAnn, To::OlderAnn, To::Edited, To::BareAnn];

fn with(mut document: Document, fields: Document) -> Document {
    document.extend(fields);
    document
}

fn visit() -> Document {
    doc! {"_id": "v1", "person": ACCT, "summary": "Ann"}
}

fn known() -> Document {
    with(ann(), doc! {"phone": "2", "password": "$2b$04$ann"})
}

/// Ann has two pages and a visit that both sides have, and an unsent page. Carl is written over her, with a page.
async fn rewritten(node: &Node) {
    write(node, page("u1", "Ann, unsent")).await;
    write(node, (key(ACCT), with(known(), carl()))).await;
    write(node, page("c1", "Carl")).await;
}

/// The node after its first round with the centre that was set back.
async fn set_back(when: When, to: To) -> (Sim, Node) {
    let sim = Sim::default();
    let node = Node::new(&sim);
    let copy_if = |is_now: bool, copy: &mut Option<Copy>| {
        if is_now {
            *copy = Some(copy_of(&sim));
        }
    };
    let mut copy = None;
    node.set("OWN", "own").await;
    node.complete().await;
    copy_if(to == To::BeforeAnn, &mut copy);
    sim.put(Kind::Person, with(known(), doc! {"phone": "1"}));
    node.complete().await;
    copy_if(to == To::BareAnn, &mut copy);
    // One page of hers is from elsewhere and was changed here, the other ones are from here.
    sim.put(Kind::Page, page("p1", "Ann, first").1);
    write(&node, page("p2", "Ann, of here")).await;
    let of_visit = (RecordKey::new(Kind::Encounter, "v1"), visit());
    write(&node, of_visit).await;
    node.complete().await;
    copy_if(to == To::OlderAnn || to == To::Edited, &mut copy);
    write(&node, page("p1", "Ann, second")).await;
    node.complete().await;
    sim.put(Kind::Page, page("p2", "Ann, changed elsewhere").1);
    sim.put(Kind::Person, known());
    node.complete().await;
    let set_back = || {
        restore(&sim, copy.as_ref().unwrap());
        if to == To::Edited {
            sim.put(Kind::Page, page("p1", "Ann, edited there").1);
        }
    };
    match when {
        When::Asked => {
            rewritten(&node).await;
            node.complete().await;
            assert_eq!(why(&node), Some(HoldReason::Rewritten));
            set_back();
            node.agrees().await;
        }
        When::JustBefore => {
            rewritten(&node).await;
            set_back();
            node.agrees().await;
        }
        When::Halted => {
            set_back();
            node.ends(Outcome::Halted).await;
            rewritten(&node).await;
            assert!(node.sync.centre_restored().await.unwrap());
        }
        When::Agreed => {
            set_back();
            node.agrees().await;
            rewritten(&node).await;
        }
    }
    node.complete().await;
    (sim, node)
}

fn why(node: &Node) -> Option<HoldReason> {
    node.store.read().unwrap().hold(ACCT).unwrap().map(|hold| hold.why)
}

/// Who is asked about, and how many records go along with the one of this node.
fn asked(node: &Node) -> (String, String, u64) {
    let snapshot = node.store.read().unwrap();
    let open = |conflict: &Conflict| conflict.is_identity() && conflict.status == ConflictStatus::Open;
    let found: Vec<_> = snapshot.conflicts().unwrap().into_iter().filter(open).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let (hold, pair) = hold_of(&snapshot, &found[0]).unwrap().unwrap();
    let name = |person: Option<Document>| person.unwrap().get_str("name").unwrap().to_owned();
    (name(pair.local), name(pair.central), snapshot.going_along_count(&hold).unwrap())
}

/// What is said of the two while it is open, in this round and in later ones.
async fn assert_is_open(node: &Node, sim: &Sim, what: &str) {
    for turn in 0..3 {
        if turn == 1 {
            node.sync.ask_for_verification().await.unwrap();
        }
        assert_eq!(why(node), Some(HoldReason::Rewritten), "{what} {turn}");
        assert_eq!(asked(node), ("Carl".to_owned(), "Ann".to_owned(), 1), "{what} {turn}");
        let there = sim.get(Kind::Person, ACCT);
        assert_ne!(there.map(|person| person.get_str("name").unwrap().to_owned()), Some("Carl".to_owned()));
        assert_eq!(sim.get(Kind::Page, "c1"), None, "{what} {turn}");
        node.complete().await;
    }
}

async fn rounds(node: &Node, what: &str) {
    for _ in 0..4 {
        node.complete().await;
    }
    assert_eq!(node.pending(), 0, "{what}");
    assert_eq!(node.store.read().unwrap().holds_count().unwrap(), 0, "{what}");
}

/// Nothing of Ann is with Carl, and all of it is there.
fn assert_apart(node: &Node, sim: &Sim, to: To, what: &str) {
    assert_eq!(book(sim, NEW), ["Carl"], "{what}");
    let of_ann = book(sim, ACCT);
    assert!(of_ann.iter().all(|text| text.starts_with("Ann")) && of_ann.len() == 3, "{what}: {of_ann:?}");
    if to == To::Edited {
        assert!(of_ann.contains(&"Ann, edited there".to_owned()), "{what}: {of_ann:?}");
    } else {
        assert!(of_ann.contains(&"Ann, second".to_owned()), "{what}: {of_ann:?}");
    }
    assert_eq!(sim.get(Kind::Encounter, "v1"), Some(visit()), "{what}");
    let (there, here) = (sim.get(Kind::Person, ACCT).unwrap(), node.get(ACCT).unwrap());
    assert_eq!(there.get_str("name").unwrap(), "Ann", "{what}");
    assert_eq!(there, here, "{what}");
    assert_eq!(sim.get(Kind::Person, NEW).unwrap().get("password"), None, "{what}");
}

#[tokio::test]
async fn they_are_asked_about_and_what_the_older_centre_lacks_stays_with_the_first() {
    for when in WHEN {
        for to in TO {
            let what = format!("{when:?} {to:?}");
            let (sim, node) = set_back(when, to).await;
            assert_is_open(&node, &sim, &what).await;
            answer(&node, Verdict::NewId(NEW.to_owned())).await;
            rounds(&node, &what).await;
            assert_apart(&node, &sim, to, &what);
        }
    }
}

/// Another node that has the first one comes together with the centre before it is decided here.
#[tokio::test]
async fn another_node_puts_the_first_one_back_meanwhile() {
    for when in WHEN {
        for is_phone_new in [false, true] {
            let what = format!("{when:?} {is_phone_new}");
            let (sim, node) = set_back(when, To::BeforeAnn).await;
            let back = if is_phone_new { with(known(), doc! {"phone": "3"}) } else { known() };
            sim.put(Kind::Person, back.clone());
            sim.put(Kind::Page, page("p1", "Ann, second").1);
            sim.put(Kind::Encounter, visit());
            node.complete().await;
            assert_is_open(&node, &sim, &what).await;
            answer(&node, Verdict::NewId(NEW.to_owned())).await;
            rounds(&node, &what).await;
            assert_apart(&node, &sim, To::BeforeAnn, &what);
            assert_eq!(sim.get(Kind::Person, ACCT), Some(back), "{what}");
        }
    }
}

#[tokio::test]
async fn who_is_said_to_be_the_same_has_all() {
    for when in WHEN {
        for to in TO {
            let what = format!("{when:?} {to:?}");
            let (sim, node) = set_back(when, to).await;
            assert_is_open(&node, &sim, &what).await;
            answer(&node, Verdict::Same).await;
            rounds(&node, &what).await;
            assert_eq!(book(&sim, ACCT).len(), 4, "{what}: {:?}", book(&sim, ACCT));
            assert_eq!(sim.get(Kind::Encounter, "v1"), Some(visit()), "{what}");
            assert_eq!(sim.get(Kind::Person, ACCT), node.get(ACCT), "{what}");
            if to == To::BeforeAnn {
                assert_eq!(node.get(ACCT).unwrap().get_str("name").unwrap(), "Carl", "{what}");
            }
        }
    }
}

/// What the other one had written into a record of hers is a record of his; hers is as it was agreed on.
#[tokio::test]
async fn a_record_of_hers_that_he_wrote_into_is_there_for_each() {
    for to in [To::OlderAnn, To::Edited] {
        let (sim, node) = set_back(When::Asked, to).await;
        write(&node, page("p2", "Carl, in a page of Ann")).await;
        node.complete().await;
        answer(&node, Verdict::NewId(NEW.to_owned())).await;
        rounds(&node, "").await;
        let of_ann = book(&sim, ACCT);
        assert!(of_ann.iter().all(|text| text.starts_with("Ann")) && of_ann.len() == 3, "{of_ann:?}");
        assert_eq!(sim.get(Kind::Page, "p2").unwrap().get_str("book").unwrap(), ACCT);
    }
}

/// She is written back while the centre lacks her: she goes there again, with what was hers.
#[tokio::test]
async fn who_is_written_back_goes_to_the_centre_again() {
    for when in WHEN {
        let what = format!("{when:?}");
        let (sim, node) = set_back(when, To::BeforeAnn).await;
        assert_is_open(&node, &sim, &what).await;
        node.edit(ACCT, Some(known())).await;
        let key = RecordKey::new(Kind::Page, "c1");
        node.store.transact(move |tx| tx.edit(&key, None, &Actor::Local("tech".to_owned()))).await.unwrap();
        rounds(&node, &what).await;
        assert_eq!(sim.get(Kind::Person, ACCT), Some(known()), "{what}");
        assert_eq!(book(&sim, ACCT).len(), 3, "{what}");
    }
}

/// The centre is set back twice, and the second time it has her.
#[tokio::test]
async fn set_back_again_while_it_is_open() {
    for is_there in [false, true] {
        let what = format!("{is_there}");
        let (sim, node) = set_back(When::JustBefore, To::BeforeAnn).await;
        let mut copy = copy_of(&sim);
        if is_there {
            copy.records.insert((Kind::Person, ACCT.to_owned()), known());
        }
        node.set("OWN", "changed").await;
        node.complete().await;
        restore(&sim, &copy);
        node.agrees().await;
        node.complete().await;
        assert_is_open(&node, &sim, &what).await;
        answer(&node, Verdict::NewId(NEW.to_owned())).await;
        rounds(&node, &what).await;
        assert_apart(&node, &sim, To::BeforeAnn, &what);
    }
}
