//! A sweep of which nobody can read any more where it stands.

use super::*;
use thalamus_edge::store::StoreError;

const PEOPLE: u64 = 1_200;
/// One round reads about so many documents.
const PIECE: u64 = 100;

/// It begins anew: the rest would never be read, and the round would say that all is up to date.
#[tokio::test]
async fn a_position_that_cannot_be_read_is_no_end_of_the_sweep() {
    let rows = [
        doc! {},
        doc! {"reason": "first", "collection": 5, "after": "P0200", "careful": false},
        doc! {"reason": "first", "collection": "unheard-of", "after": "P0200", "careful": false},
        doc! {"reason": "unheard-of", "collection": "people", "after": "P0500", "careful": false},
        doc! {"reason": "first", "collection": "people", "after": 7, "careful": false},
        doc! {"reason": "first", "collection": "people", "after": "P0200", "careful": "no"},
    ];
    for row in rows {
        let sim = Sim::with_history();
        for n in 0..PEOPLE {
            sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
        }
        sim.state().line_bytes_per_document = 1_000;
        let settings = SyncSettings { scan_bytes_per_round: PIECE * 1_000, ..SyncSettings::default() };
        let store = Store::in_memory(OPTIONS).unwrap();
        let hub: Arc<dyn Hub> = Arc::new(sim.clone());
        let node = Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store };
        for _ in 0..2 {
            node.ends(Outcome::Partial).await;
        }
        assert!(node.store.read().unwrap().count(Kind::Person).unwrap() < PEOPLE);
        let bad = row.clone();
        let damage = move |tx: &mut thalamus_edge::store::Tx<'_>| -> Result<(), StoreError> {
            tx.set_meta("scan", Some(&bad))
        };
        node.store.transact(damage).await.unwrap();
        let mut rounds = 0;
        while node.sync.round().await.outcome != Outcome::Complete {
            rounds += 1;
            assert!(rounds < 40, "{row}");
        }
        assert_eq!(node.store.read().unwrap().count(Kind::Person).unwrap(), PEOPLE, "{row}");
        assert_eq!(node.store.read().unwrap().meta("scan").unwrap(), None);
    }
}

/// However large the documents are, a round goes beyond its limit by one of them at most; and it is said how far a
/// verification has come.
#[tokio::test]
async fn a_piece_ends_where_the_limit_is() {
    const LIMIT: u64 = 65_536;
    const DOCUMENT: u64 = 20_000;
    let sim = Sim::with_history();
    for n in 0..30 {
        sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
    }
    sim.state().line_bytes_per_document = DOCUMENT;
    let settings = SyncSettings { scan_bytes_per_round: LIMIT, ..SyncSettings::default() };
    let store = Store::in_memory(OPTIONS).unwrap();
    let hub: Arc<dyn Hub> = Arc::new(sim.clone());
    let node = Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store };
    let mut rounds = 0;
    loop {
        let report = node.sync.round().await;
        assert!(report.bytes_received <= LIMIT + DOCUMENT, "{report:?}");
        if report.outcome == Outcome::Complete {
            break;
        }
        rounds += 1;
        assert!(rounds < 30);
    }
    assert!(rounds > 5);
    node.sync.ask_for_verification().await.unwrap();
    let report = node.sync.round().await;
    assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
    let said = "% of the centre's records; the next rounds look at the rest.";
    assert!(report.message.contains(said), "{report:?}");
    assert!(node.sync.status().unwrap().message.contains(said));
    for _ in 0..30 {
        node.sync.round().await;
    }
    let report = node.sync.round().await;
    assert_eq!(report.message, "Everything is up to date with the centre.");
}

/// A deleted account must not log in for as long as it takes to read everything. What the feed tells is deleted in the same
/// round, on either side of the place that the reading has reached; what only the reading misses waits for its end.
#[tokio::test]
async fn a_delete_that_is_told_waits_for_no_reading_of_everything() {
    for is_first in [false, true] {
        let sim = Sim::with_history();
        for n in 0..PEOPLE {
            sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
        }
        sim.state().line_bytes_per_document = 1_000;
        let settings = SyncSettings { scan_bytes_per_round: PIECE * 1_000, ..SyncSettings::default() };
        let store = Store::in_memory(OPTIONS).unwrap();
        let hub: Arc<dyn Hub> = Arc::new(sim.clone());
        let node = Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store };
        if !is_first {
            while node.sync.round().await.outcome != Outcome::Complete {}
            // Missed by the reading alone, near its beginning.
            sim.state().records.remove(&(Kind::Person, "P0003".to_owned())).unwrap();
            node.sync.ask_for_verification().await.unwrap();
        }
        for _ in 0..3 {
            node.sync.round().await;
        }
        let is_reading = |node: &Node| node.store.read().unwrap().meta("scan").unwrap().is_some();
        for id in ["P0002", "P0250", "P1100"] {
            sim.remove(Kind::Person, id);
            node.sync.round().await;
            assert!(node.get(id).is_none(), "{id}, {is_first}");
        }
        assert!(is_reading(&node));
        assert!(node.get("P0003").is_some(), "{is_first}");
        let mut rounds = 0;
        while is_reading(&node) {
            node.sync.round().await;
            rounds += 1;
            assert!(rounds < 40);
        }
        assert_eq!(node.get("P0003").is_some(), is_first);
        let report = node.complete().await;
        assert_eq!((report.deleted, report.pulled), (0, 0), "{report:?}");
    }
}

/// One after the other they are counted, as without a reading.
#[tokio::test]
async fn many_deletes_that_are_told_meanwhile_are_asked_about() {
    let sim = Sim::with_history();
    for n in 0..PEOPLE {
        sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
    }
    sim.state().line_bytes_per_document = 1_000;
    let settings = SyncSettings { scan_bytes_per_round: PIECE * 1_000, ..SyncSettings::default() };
    let store = Store::in_memory(OPTIONS).unwrap();
    let hub: Arc<dyn Hub> = Arc::new(sim.clone());
    let node = Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store };
    while node.sync.round().await.outcome != Outcome::Complete {}
    node.sync.ask_for_verification().await.unwrap();
    node.sync.round().await;
    for n in 0..30 {
        sim.remove(Kind::Person, &format!("P{n:04}"));
        if n % 5 == 4 {
            let outcome = node.sync.round().await.outcome;
            let (gone, is_halted) = (n + 1, outcome == Outcome::Halted);
            assert_eq!(is_halted, gone > 20, "{gone}");
            assert_eq!(node.store.read().unwrap().count(Kind::Person).unwrap(), PEOPLE - gone.min(20));
        }
    }
}

#[tokio::test]
async fn a_piece_ends_where_the_budget_is() {
    const DOCUMENT: u64 = 20_000;
    let sim = Sim::default();
    for n in 0..30 {
        sim.put(Kind::Person, person(&format!("P{n:04}"), "old"));
    }
    sim.state().line_bytes_per_document = DOCUMENT;
    let settings = SyncSettings { budget_bytes_per_day: 200_000, ..SyncSettings::default() };
    let store = Store::in_memory(OPTIONS).unwrap();
    let hub: Arc<dyn Hub> = Arc::new(sim.clone());
    let node = Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store };
    let report = node.sync.round().await;
    assert_eq!(report.outcome, Outcome::Partial, "{report:?}");
    assert!(report.bytes_received <= 150_000 + DOCUMENT, "three quarters: {report:?}");
}
