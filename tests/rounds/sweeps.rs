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
