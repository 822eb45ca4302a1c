//! Nodes that stay connected: changes travel by themselves, both ways, beside each other, and a connection
//! that breaks costs nothing but the wait for the next round.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use bson::doc;
use serde_json::{Value, json};

use support::federation::Federation;
use support::node::EdgeNode;

/// Longest that a change may take before the test gives up; it takes a fraction of a second.
const TRAVEL_S_MAX: u64 = 30;

/// Waits until the node shows `value` in a field of a record.
async fn shows(node: &EdgeNode, path: &str, field: &str, value: Value) {
    let started = Instant::now();
    loop {
        let reply = node.call("GET", path, None).await;
        let shown = if reply.status == 200 { reply.json()[field].clone() } else { Value::Null };
        if shown == value {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(TRAVEL_S_MAX),
            "{}: {path} shows {shown}, not {value}; {}",
            node.name,
            node.get("/sync/status").await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_in_state(node: &EdgeNode, state: &str, words: &str) {
    let started = Instant::now();
    loop {
        let status = node.get("/sync/status").await;
        if status["state"] == state && status["message"].as_str().unwrap().contains(words) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(TRAVEL_S_MAX), "{}: {status}", node.name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connected() -> Federation {
    let mut federation = Federation::start(&["north", "south"]).await;
    for node in &mut federation.nodes {
        node.set("CENTRAL__CONTINUOUS", "true");
        node.restart(None).await;
        is_in_state(node, "idle", "at once").await;
    }
    federation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_travel_by_themselves_over_mongo() {
    let mut federation = connected().await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    let born = json!({"name": "Ana", "gender": "f", "active": false});
    north.done("POST", "/people/ANA", Some(&born)).await;
    shows(south, "/people/ANA", "name", json!("Ana")).await;
    // Back and forth, and the legacy application in between.
    for turn in 0..5 {
        north.patch("/people/ANA", json!({"phone": format!("north {turn}")})).await;
        shows(south, "/people/ANA", "phone", json!(format!("north {turn}"))).await;
        south.patch("/people/ANA", json!({"phone": format!("south {turn}")})).await;
        shows(north, "/people/ANA", "phone", json!(format!("south {turn}"))).await;
        federation.legacy_set("people", "ANA", doc! {"profession": format!("legacy {turn}")}).await;
        for node in [north, south] {
            shows(node, "/people/ANA", "profession", json!(format!("legacy {turn}"))).await;
        }
    }
    // Different fields of one record at the same time, over and over: pushing and pulling overlap.
    for turn in 0..30 {
        let (phone, education) = (json!({"phone": turn}), json!({"education": turn}));
        tokio::join!(north.patch("/people/ANA", phone), south.patch("/people/ANA", education));
    }
    for node in [north, south] {
        shows(node, "/people/ANA", "phone", json!(29)).await;
        shows(node, "/people/ANA", "education", json!(29)).await;
        assert_eq!(node.get("/sync/conflicts").await, json!([]));
    }
    north.done("DELETE", "/people/ANA", None).await;
    let started = Instant::now();
    while south.call("GET", "/people/ANA", None).await.status != 404 {
        assert!(started.elapsed() < Duration::from_secs(TRAVEL_S_MAX), "not deleted at south");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    federation.converge().await;
    federation.compare_stores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_is_noticed_and_made_again_over_mongo() {
    let mut federation = connected().await;
    federation.nodes[0].done("POST", "/people/ANA", Some(&json!({"name": "Ana"}))).await;
    shows(&federation.nodes[1], "/people/ANA", "name", json!("Ana")).await;
    federation.mongo.kill_9();
    for node in &federation.nodes {
        is_in_state(node, "offline", "cannot be reached").await;
    }
    federation.nodes[0].patch("/people/ANA", json!({"phone": "meanwhile"})).await;
    federation.mongo.restart().await;
    federation.reconnect().await;
    federation.legacy_set("people", "ANA", doc! {"profession": "meanwhile"}).await;
    federation.rounds(1).await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    shows(south, "/people/ANA", "phone", json!("meanwhile")).await;
    shows(north, "/people/ANA", "profession", json!("meanwhile")).await;
    // Connected again.
    south.patch("/people/ANA", json!({"phone": "again"})).await;
    shows(north, "/people/ANA", "phone", json!("again")).await;
    let log = north.log();
    assert!(log.contains("round ended"), "{log}");
    assert!(!log.contains("Password") && !log.contains("logged"), "a library's chatter: {log}");
    federation.converge().await;
    federation.compare_stores().await;
}
