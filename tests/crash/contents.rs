//! Attachments over a line that is cut after so many bytes: each goes on where it was, and what comes out is
//! what was sent.

use serde_json::json;
use std::time::Duration;

use super::cuts::{Line, Profile};
use super::steps::name_of;
use super::support::federation::Federation;
use super::support::mongo::{MongoServer, Setup};

const LINE: Profile = Profile { latency: Duration::from_millis(2), speed: 10_000_000, cycles: 24 };
const ATTACHMENT_BYTES: usize = 600_000;
/// What a round needs beside attachments, at most.
const ROUND_BYTES: u64 = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachments_get_through_a_line_that_is_cut_again_and_again() {
    let mongo = MongoServer::start_own(Setup::default()).await;
    let line = Line::to(mongo.port(), LINE).await;
    let uri =
        format!("mongodb://127.0.0.1:{}/?directConnection=true&serverSelectionTimeoutMS=500", line.port);
    let federation = Federation::behind(mongo, &uri, &["north", "south"]).await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    let bytes: Vec<u8> = (0..ATTACHMENT_BYTES).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
    let sha256 = name_of(&bytes);
    north.done("POST", "/people/ANA001", Some(&json!({"name": "Ana"}))).await;
    north.upload("scan", "ANA001", &bytes).await;
    let mut cuts = 0;
    for node in [north, south] {
        // More and more of a round gets through; what has got through is not lost.
        let mut rounds = 0;
        for cycle in 1..=LINE.cycles {
            line.cut_after(cycle * (ATTACHMENT_BYTES as u64 + ROUND_BYTES) / LINE.cycles);
            let report = node.try_round().await.unwrap();
            cuts += usize::from(line.is_cut());
            line.mend();
            rounds += 1;
            let status = node.get("/sync/status").await;
            let left = &status[if node.name == "north" { "content_owed" } else { "content_pending" }];
            let is_known = node.call("GET", "/personal-documents/scan", None).await.status == 200;
            if report["outcome"] == "complete" && is_known && left == 0 {
                break;
            }
        }
        println!("{}: {rounds} rounds", node.name);
        assert!((4..LINE.cycles).contains(&rounds), "{}: {rounds} rounds", node.name);
    }
    assert!(cuts >= 6, "{cuts} cuts");
    let chunks = federation.rows("fs.chunks", bson::doc! {"files_id": &sha256}).await;
    assert_eq!(chunks.len(), ATTACHMENT_BYTES.div_ceil(65_536));
    let got = south.download("scan", &[]).await;
    assert!(got.status == 200 && got.body == bytes);
}

/// The time of a round is over in the middle of an attachment: the records are complete, the centre is told
/// how the node stands, and the next round goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_line_carries_an_attachment_in_several_rounds() {
    let slow = Profile { speed: 40_000, ..LINE };
    let mongo = MongoServer::start_own(Setup::default()).await;
    let line = Line::to(mongo.port(), slow).await;
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", line.port);
    let mut federation = Federation::behind(mongo, &uri, &["north"]).await;
    federation.nodes[0].set("CENTRAL__ROUND_TIMEOUT_S", "10");
    federation.nodes[0].restart(None).await;
    let north = &federation.nodes[0];
    let bytes: Vec<u8> = (0..ATTACHMENT_BYTES).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
    north.done("POST", "/people/ANA001", Some(&json!({"name": "Ana"}))).await;
    north.upload("scan", "ANA001", &bytes).await;
    let told = async || {
        let rows = federation.rows("edge_nodes", bson::doc! {}).await;
        rows[0].get_i64("content_owed").unwrap()
    };
    let mut rounds = 0;
    loop {
        let report = north.round().await;
        let chunks = federation.rows("fs.chunks", bson::doc! {}).await.len();
        rounds += 1;
        assert!(federation.at_centre("personal_document", "scan").await.is_some(), "records come first");
        let left = report["message"].as_str().unwrap().contains("1 to send");
        assert_eq!(told().await, i64::from(left), "{report}");
        println!("round {rounds}: {chunks} chunks, {} ms", report["duration_ms"]);
        if !left {
            assert_eq!(chunks, ATTACHMENT_BYTES.div_ceil(65_536));
            break;
        }
        assert!((rounds..10).contains(&chunks), "{chunks} chunks after {rounds} rounds");
    }
    assert!(rounds > 1);
}
