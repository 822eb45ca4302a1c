//! What reconciliation puts on the line, measured over MongoDB's wire. The bounds are promises to places where
//! every kilobyte is paid for; the figures are printed.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Database;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use support::mongo::{MongoServer, Setup};
use support::node::EdgeNode;

const DATABASE: &str = "federation";
/// An idle round.
const IDLE_ROUND_TRIPS_MAX: u64 = 6;
const IDLE_COMMAND_BYTES_MAX: u64 = 3_000;
const IDLE_COLD_LINE_BYTES_MAX: u64 = 16_000;
/// A changed field beyond its own bytes, once a round sends anything.
const FIELD_BYTES_MAX: u64 = 200;
/// The first one of a round above an idle round: an update with its frame and answer, and how the node stands
/// after it, the head of the audit trail, and which edits the node has delivered, which an idle round does not carry.
const FIRST_FIELD_BYTES_MAX: u64 = 2_000;

/// A centre that asks for TLS and a password, and a node that has agreed with it.
struct Ground {
    _server: MongoServer,
    _directory: TempDir,
    centre: Database,
    node: EdgeNode,
}

impl Ground {
    async fn new() -> Ground {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let authority: PathBuf = directory.path().join("centre-ca.pem");
        std::fs::write(&authority, certified.cert.pem()).unwrap();
        let setup = Setup {
            tls: Some((certified.cert.pem(), certified.signing_key.serialize_pem())),
            user: Some(("north".to_owned(), "of-the-box".to_owned())),
            ..Setup::default()
        };
        let server = MongoServer::start_own(setup).await;
        let uri = format!("{}&tlsCAFile={}&authSource=admin", server.uri(), authority.display());
        let centre = mongodb::Client::with_uri_str(&uri).await.unwrap().database(DATABASE);
        let people: Vec<Document> = (0..200)
            .map(|n| doc! {"_id": format!("P{n:03}"), "name": "Ana", "phone": "555-0000", "active": false})
            .collect();
        centre.collection("people").insert_many(people).await.unwrap();
        let mut node = EdgeNode::start("north", &uri, DATABASE).await;
        // Only then bytes of commands are counted.
        node.log_level = "info,thalamus_edge=debug";
        node.restart(None).await;
        for _ in 0..2 {
            node.round().await;
        }
        Ground { _server: server, _directory: directory, centre, node }
    }
}

const OTHERS_PAUSE: Duration = Duration::from_millis(20);

/// 40 other nodes announce themselves and another client uploads attachments, again and again.
struct Others {
    is_over: Arc<AtomicBool>,
    working: JoinHandle<(u64, u64)>,
}

impl Others {
    fn at(centre: &Database) -> Others {
        let (centre, is_over) = (centre.clone(), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        let working = tokio::spawn(async move {
            let nodes = centre.collection::<Document>("edge_nodes");
            let chunks = centre.collection::<Document>("fs.chunks");
            let (mut announced, mut uploaded) = (0, 0);
            while !over.load(Ordering::Relaxed) || announced < 40 || uploaded < 10_000_000 {
                let lease = doc! {"number": announced as i64, "nonce": "x"};
                let row = doc! {"$set": {"lease": lease, "name": "other", "status": "active"}};
                let of = doc! {"_id": format!("other-{}", announced % 40)};
                nodes.update_one(of, row).upsert(true).await.unwrap();
                announced += 1;
                let bytes =
                    bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![7; 65_536] };
                let chunk = doc! {"files_id": "other", "n": announced as i64, "data": Bson::Binary(bytes)};
                chunks.insert_one(chunk).await.unwrap();
                uploaded += 65_536;
                // The test server looks at some hundred changes of others an answer; a node asks once more for the rest.
                tokio::time::sleep(OTHERS_PAUSE).await;
            }
            (announced, uploaded)
        });
        Others { is_over, working }
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (announced, uploaded) = self.working.await.unwrap();
        println!("meanwhile {announced} announcements of 40 nodes, and {uploaded} bytes of attachments");
    }
}

fn number(report: &Value, names: [&str; 2]) -> u64 {
    names.iter().map(|name| report[*name].as_u64().unwrap()).sum()
}

fn commands(report: &Value) -> u64 {
    number(report, ["command_bytes_sent", "command_bytes_received"])
}

fn line(report: &Value) -> u64 {
    number(report, ["bytes_sent", "bytes_received"])
}

fn trips(report: &Value) -> u64 {
    report["round_trips"].as_u64().unwrap()
}

fn shown(what: &str, report: &Value) {
    println!(
        "{what}: {} round trips, {} bytes of commands, {} bytes on the line (cold, with TLS, SCRAM and monitors)",
        trips(report),
        commands(report),
        line(report)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_round_costs_little_however_busy_others_are() {
    let ground = Ground::new().await;
    let others = Others::at(&ground.centre);
    // One round in ten has more to look at.
    let mut dear = 0;
    for _ in 0..11 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let report = ground.node.round().await;
        shown("an idle round", &report);
        assert!(trips(&report) <= IDLE_ROUND_TRIPS_MAX, "{report}");
        dear += u32::from(commands(&report) > IDLE_COMMAND_BYTES_MAX);
        assert!(commands(&report) <= 2 * IDLE_COMMAND_BYTES_MAX, "{report}");
        assert!(line(&report) <= IDLE_COLD_LINE_BYTES_MAX, "{report}");
    }
    assert!(dear < 2, "{dear} of 11");
    others.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_field_costs_little_more_than_itself() {
    let ground = Ground::new().await;
    let idle = ground.node.round().await;
    shown("an idle round", &idle);
    let mut costs = Vec::new();
    for (turn, fields) in [(0, 1), (1, 11)] {
        for n in 0..fields {
            let phone = format!("777-{turn:02}{n:02}");
            ground.node.patch(&format!("/people/P{n:03}"), json!({"phone": phone})).await;
        }
        let pushed = ground.node.round().await;
        assert_eq!(pushed["pushed"], fields, "{pushed}");
        shown(&format!("a round that sends {fields} changed fields"), &pushed);
        let echoed = ground.node.round().await;
        assert_eq!(trips(&echoed), trips(&idle), "nothing of it is read again: {echoed}");
        shown("the round after it", &echoed);
        costs.push((fields, commands(&pushed) - commands(&idle), commands(&echoed) - commands(&idle)));
    }
    // What is compared, and what is set: path, old and new value.
    let own = doc! {"_id": "P000", "phone": "555-0000"}.to_vec().unwrap().len() as u64
        + doc! {"phone": "555-0000"}.to_vec().unwrap().len() as u64;
    let [(few, first, _), (many, all, _)] = costs[..] else { panic!() };
    let more = (all - first) / (many - few);
    println!(
        "the first field: {first} bytes of commands above an idle round; each further one: {more}, {own} of them its own"
    );
    assert!(first <= FIRST_FIELD_BYTES_MAX, "{first}");
    assert!(more <= own + FIELD_BYTES_MAX, "{more} {own}");
}
