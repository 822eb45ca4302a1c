//! The real program killed (-9) in the middle of writes: what was acknowledged is there, and nothing is half there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use thalamus_edge::domain::record::{Kind, RecordKey};

use super::is_long;
use super::support::generator::Numbers;
use super::support::node::{Client, EdgeNode, Gone};

const CYCLES: u64 = 10;
const CYCLES_LONG: u64 = 1_000;
const WRITERS: u64 = 8;
/// Longest that the writers work before the kill, in milliseconds.
const WORK_MS_MAX: u64 = 400;
/// Cycles after which a node begins anew, so that the long form does not measure large stores.
const CYCLES_OF_A_NODE: u64 = 50;

/// What may be found of a record: the value last acknowledged, and one that was on its way.
#[derive(Debug, Clone, Default)]
struct Known {
    acknowledged: Option<u64>,
    sent: Option<u64>,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

/// Makes records and changes them, until the node is gone. The two fields always have the same value.
async fn write(client: Client, ledger: Ledger, cycle: u64, writer: u64) {
    for number in 0.. {
        let id = format!("c{cycle}w{writer}n{}", number / 3);
        let path = format!("/personal-documents/{id}");
        let (method, body) = match number % 3 {
            0 => ("POST", json!({"fedacct": "ANA001", "f": number, "g": number})),
            _ => ("PATCH", json!({"f": number, "g": number})),
        };
        ledger.lock().unwrap().entry(id.clone()).or_default().sent = Some(number);
        match client.call(method, &path, &[], Some(&body)).await {
            Ok(reply) if reply.is_success() => {
                ledger.lock().unwrap().entry(id).or_default().acknowledged = Some(number);
            }
            Ok(reply) => panic!("{method} {path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body)),
            Err(Gone(_)) => return,
        }
    }
}

/// Opens the store of a killed node; returns how long that took.
fn check(node: &EdgeNode, ledger: &Ledger) -> Duration {
    let started = Instant::now();
    let store = node.open_store();
    let took = started.elapsed();
    let snapshot = store.read().unwrap();
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
    let mut count = 0;
    for (id, known) in ledger.lock().unwrap().iter_mut() {
        let record = snapshot.record(&RecordKey::new(Kind::PersonalDocument, id.as_str())).unwrap();
        let values = record.map(|record| {
            let number = |field| record.document.get(field).unwrap().unwrap().as_i32().map(i64::from);
            let number = |field| number(field).or_else(|| record.document.get_i64(field).ok()).unwrap();
            (number("f") as u64, number("g") as u64)
        });
        count += u64::from(values.is_some());
        if let Some((f, g)) = values {
            assert_eq!(f, g, "{id} is half written");
        }
        let found = values.map(|(f, _)| f);
        assert!(found == known.acknowledged || found == known.sent, "{id}: {found:?} is there, {known:?}");
        // What was on its way has come or not; from now on that is what is known.
        *known = Known { acknowledged: found, sent: found };
    }
    assert_eq!(snapshot.count(Kind::PersonalDocument).unwrap(), count, "nothing else is there");
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed_in_the_middle_of_writes() {
    let cycles = if is_long() { CYCLES_LONG } else { CYCLES };
    let mut numbers = Numbers::new(7);
    let (mut writes, mut slowest) = (0, Duration::ZERO);
    let mut node: Option<(EdgeNode, Ledger)> = None;
    for cycle in 0..cycles {
        if cycle % CYCLES_OF_A_NODE == 0 {
            node = Some((EdgeNode::start("killed", "", "federation").await, Ledger::default()));
        }
        let (node, ledger) = node.as_mut().unwrap();
        let before = ledger.lock().unwrap().len();
        // One login for all of them.
        node.get("/sync/status").await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(node.client(), Arc::clone(ledger), cycle, writer)))
            .collect();
        tokio::time::sleep(Duration::from_millis(numbers.below(WORK_MS_MAX))).await;
        node.kill_9();
        for writer in writers {
            writer.await.unwrap();
        }
        slowest = slowest.max(check(node, ledger));
        writes += ledger.lock().unwrap().len() - before;
        node.restart(None).await;
    }
    assert!(writes > 0, "nothing was written");
    println!("{cycles} kills, {writes} records written by {WRITERS} writers, slowest opening {slowest:?}");
}
