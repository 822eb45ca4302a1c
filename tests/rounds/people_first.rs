//! An account is given to somebody else at the centre, and the feed tells of a record of theirs before it tells of them.

use super::*;
use thalamus_edge::domain::record::RecordKey;
use thalamus_edge::sync::budget::QuietHours;

const ACCT: &str = "PPL4X";
/// More than the batches of a feed that get larger and larger.
const OTHERS: usize = 1_500;

fn anna() -> Document {
    doc! {"_id": ACCT, "name": "Anna", "lastname": "Alpha", "dob": "1990-01-01", "gender": "f"}
}

fn bertha() -> Document {
    doc! {"_id": ACCT, "name": "Bertha", "lastname": "Beta", "dob": "1951-05-05", "gender": "f"}
}

fn page(id: &str, fields: Document) -> Document {
    let mut page = doc! {"_id": id, "book": ACCT, "summary": "agreed"};
    page.extend(fields);
    page
}

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Page, id)
}

async fn write(node: &Node, id: &str, document: Document) {
    let (key, actor) = (key(id), Actor::Local("tech".to_owned()));
    node.store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
}

fn here(node: &Node, key: &RecordKey) -> Option<Document> {
    let record = node.store.read().unwrap().record(key).unwrap()?;
    Some(Document::try_from(record.document.as_ref()).unwrap())
}

/// A node that agrees with the centre about Anna and her page `r4`.
async fn agreed(sim: &Sim) -> Node {
    sim.put(Kind::Person, anna());
    sim.put(Kind::Page, page("r4", doc! {}));
    Node::agreed(sim).await
}

fn becomes_bertha(sim: &Sim) {
    sim.put(Kind::Person, bertha());
    sim.put(Kind::Page, page("r4", doc! {"bertha": "HIV"}));
    sim.put(Kind::Page, page("r9", doc! {"bertha": "HIV"}));
}

/// Anna is here with what is hers, and nothing of Bertha's is in her book, nor Anna's in Bertha's.
fn assert_apart(node: &Node, sim: &Sim, what: &str) {
    let snapshot = node.store.read().unwrap();
    assert_eq!(snapshot.holds_count().unwrap(), 1, "{what}: they are held");
    assert_eq!(node.get(ACCT), Some(anna()), "{what}");
    for id in ["r4", "r9"] {
        let page = here(node, &key(id));
        assert!(page.is_none_or(|page| !page.contains_key("bertha")), "{what}: {id} in Anna's book");
        let there = sim.get(Kind::Page, id).unwrap();
        assert_eq!(there, page_of_bertha(id), "{what}: {id} at the centre");
    }
    assert!(here(node, &key("r4")).is_some(), "{what}");
}

fn page_of_bertha(id: &str) -> Document {
    page(id, doc! {"bertha": "HIV"})
}

#[tokio::test]
async fn a_backlog_tells_of_the_person_last_and_nothing_is_mixed() {
    for is_edited in [true, false] {
        for others in [3, OTHERS] {
            let what = format!("edited here: {is_edited}, {others} other events");
            let sim = Sim::with_history();
            let node = agreed(&sim).await;
            node.complete().await;
            if is_edited {
                write(&node, "r4", page("r4", doc! {"summary": "ANNA's edit"})).await;
            } else {
                write(&node, "r5", page("r5", doc! {"summary": "ANNA's own"})).await;
            }
            sim.put(Kind::Page, page("r4", doc! {"x": 1}));
            for n in 0..others {
                sim.put(Kind::Institution, doc! {"_id": format!("I{n:05}")});
            }
            becomes_bertha(&sim);
            for _ in 0..2 {
                node.complete().await;
                assert_apart(&node, &sim, &what);
            }
            let summary = here(&node, &key("r4")).unwrap().get_str("summary").unwrap().to_owned();
            assert_eq!(summary == "ANNA's edit", is_edited, "{what}");
            assert_eq!(sim.get(Kind::Page, "r5"), None, "{what}");
        }
    }
}

/// The record is read while Anna has the account, or when she has it no more; the person changes between the two reads.
#[tokio::test]
async fn somebody_gets_the_account_between_the_two_reads() {
    for is_new in [false, true] {
        let sim = Sim::with_history();
        let node = agreed(&sim).await;
        node.complete().await;
        write(&node, "r4", page("r4", doc! {"summary": "ANNA's edit"})).await;
        let id = if is_new { "r9" } else { "r4" };
        sim.put(Kind::Page, page(id, doc! {"x": 1}));
        let centre = sim.clone();
        let meanwhile = async move { becomes_bertha(&centre) };
        sim.state().identity_faults.push_back(Fault::Before(Box::pin(meanwhile)));
        for _ in 0..3 {
            node.sync.round().await;
        }
        assert!(sim.state().identity_faults.is_empty());
        assert_apart(&node, &sim, id);
    }
}

/// Also a node that is new, and has nothing to send, takes nothing into the book of who had the account a moment ago.
#[tokio::test]
async fn somebody_gets_the_account_while_a_new_node_reads_everything() {
    for has_history in [false, true] {
        let sim = if has_history { Sim::with_history() } else { Sim::default() };
        sim.put(Kind::Person, anna());
        // Institutions and units have been read, and people.
        let before = (0..3).map(|_| Fault::Before(Box::pin(async {})));
        let centre = sim.clone();
        let meanwhile = Fault::Before(Box::pin(async move { becomes_bertha(&centre) }));
        sim.state().scan_faults.extend(before.chain([meanwhile]));
        let node = Node::new(&sim);
        for _ in 0..2 {
            node.complete().await;
            assert_eq!(node.get(ACCT), Some(anna()), "history: {has_history}");
            assert_eq!(node.store.read().unwrap().holds_count().unwrap(), 1, "history: {has_history}");
            let taken = ["r4", "r9"].map(|id| here(&node, &key(id)));
            assert_eq!(taken, [None, None], "history: {has_history}: in Anna's book");
        }
        assert!(sim.state().scan_faults.is_empty());
    }
}

/// A page that comes with its person is taken in the same round, and so is news of people who are who they were.
#[tokio::test]
async fn what_belongs_to_the_people_here_waits_for_nothing() {
    let sim = Sim::with_history();
    let node = agreed(&sim).await;
    node.complete().await;
    sim.put(Kind::Person, doc! {"_id": "NEW4X", "name": "Nora", "lastname": "New"});
    sim.put(Kind::Page, doc! {"_id": "n1", "book": "NEW4X"});
    sim.put(Kind::Page, page("r4", doc! {"x": 1}));
    sim.put(Kind::Page, doc! {"_id": "nobodys", "book": "NOBODY"});
    let report = node.complete().await;
    assert_eq!(report.pulled, 4, "{report:?}");
    for id in ["n1", "r4", "nobodys"] {
        assert_eq!(here(&node, &key(id)), sim.get(Kind::Page, id), "{id}");
    }
}

/// At a centre without a history a verification is a sweep like any other: what happened is not known.
#[tokio::test]
async fn a_verification_without_a_history_mixes_nothing() {
    for is_verification in [false, true] {
        let sim = Sim::default();
        let node = agreed(&sim).await;
        write(&node, "r4", page("r4", doc! {"summary": "ANNA's edit"})).await;
        sim.state().write_faults.push_back(Fault::LostRequest);
        node.ends(Outcome::Offline).await;
        becomes_bertha(&sim);
        if is_verification {
            node.sync.ask_for_verification().await.unwrap();
        }
        for _ in 0..3 {
            node.sync.round().await;
        }
        assert_apart(&node, &sim, &format!("verification: {is_verification}"));
        let page = here(&node, &key("r4")).unwrap();
        assert_eq!(page.get_str("summary").unwrap(), "ANNA's edit");
    }
}

/// Small news travels in quiet hours, also before everything was looked at for the first time.
#[tokio::test]
async fn news_of_known_people_does_not_wait_for_a_sweep() {
    let sim = Sim::with_history();
    let settings = SyncSettings {
        quiet_hours: vec![QuietHours::parse("00:00-23:59").unwrap()],
        ..SyncSettings::default()
    };
    let hub: Arc<dyn Hub> = Arc::new(sim.clone());
    let store = Store::in_memory(OPTIONS).unwrap();
    let node = Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store };
    // Of somebody whom nobody here knows.
    write(&node, "own", doc! {"_id": "own", "book": "UNSEEN"}).await;
    node.ends(Outcome::Partial).await;
    sim.put(Kind::Person, anna());
    sim.put(Kind::Page, page("r4", doc! {}));
    node.ends(Outcome::Partial).await;
    assert_eq!(here(&node, &key("r4")), sim.get(Kind::Page, "r4"));
    assert!(here(&node, &key("r4")).is_some());
    let report = node.ends(Outcome::Partial).await;
    assert!(report.message.contains("One record waits for its person"), "{report:?}");
    // And what does wait for the sweep is said.
    sim.put(Kind::Page, doc! {"_id": "own", "book": "UNSEEN", "x": 1});
    let report = node.ends(Outcome::Partial).await;
    assert!(report.message.contains("News of one record waits until all people"), "{report:?}");
}

/// What was noted of somebody's name counts as long as something waits that was meant for who they were.
#[tokio::test]
async fn an_edit_that_was_sent_asks_no_question_later() {
    let sim = Sim::with_history();
    let node = agreed(&sim).await;
    let edited = |phone: &str, person: Option<Document>| {
        let mut person = person.unwrap();
        person.insert("phone", phone);
        Some(person)
    };
    let corrected = |field: &str, value: &str| {
        let mut person = sim.get(Kind::Person, ACCT).unwrap();
        person.insert(field, value);
        sim.put(Kind::Person, person);
    };
    node.edit(ACCT, edited("1", node.get(ACCT))).await;
    corrected("name", "Greta");
    for _ in 0..3 {
        node.complete().await;
    }
    node.edit(ACCT, edited("2", node.get(ACCT))).await;
    corrected("dob", "1991-07-07");
    for _ in 0..2 {
        node.complete().await;
    }
    assert_eq!(node.store.read().unwrap().holds_count().unwrap(), 0);
    assert_eq!(sim.get(Kind::Person, ACCT).unwrap().get_str("phone").unwrap(), "2");
    // Both at once, while an edit waits, is somebody else.
    node.edit(ACCT, edited("3", node.get(ACCT))).await;
    corrected("lastname", "Gamma");
    sim.state().write_faults.push_back(Fault::LostRequest);
    node.sync.round().await;
    corrected("dob", "1960-06-06");
    node.sync.round().await;
    node.sync.round().await;
    assert_eq!(node.store.read().unwrap().holds_count().unwrap(), 1);
}
