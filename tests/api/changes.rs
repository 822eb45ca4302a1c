//! The change feed: at once, by long poll, as a stream of events.

use std::time::Duration;

use axum::body::Body;
use bson::doc;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use thalamus_edge::domain::record::Kind;

use crate::support::api::{NOTHING, Setup, TestNode};

/// Roles for reading the feed besides root: `relay` sees people and institutions, `self_relay` its own.
fn with_relays(setup: &mut Setup) {
    setup.add_roles(
        r#"{"role": "relay", "permissions": {"GET": ["changes", "person", "institution"], "global": true}},
             {"role": "self_relay", "permissions": {"GET": ["changes", "person", "page", "institution"]}}"#,
    );
}

async fn with_changes() -> TestNode {
    let node = TestNode::start_with(with_relays);
    node.person("ROOT004", &["root"]).await;
    node.person("REL005", &["relay"]).await;
    node.person("SEL006", &["self_relay"]).await;
    node.record(Kind::Institution, doc! {"_id": "i1"}).await;
    node.record(Kind::Page, doc! {"_id": "p1", "book": "SEL006"}).await;
    node.record(Kind::Page, doc! {"_id": "p2", "book": "ROOT004"}).await;
    node.patch("/people/SEL006", json!({"n": 1}))
        .by("ROOT004")
        .send()
        .await
        .is(200, &["update people/SEL006"]);
    node.delete("/pols/SEL006/p1").by("ROOT004").send().await.is(204, &["delete pols/p1"]);
    node
}

async fn feed(node: &TestNode, who: &str, query: &str) -> Value {
    node.get(&format!("/changes{query}")).by(who).send().await.is(200, NOTHING).json()
}

fn sequences(feed: &Value) -> Vec<u64> {
    feed["changes"].as_array().unwrap().iter().map(|change| change["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_feed_names_what_changed_and_not_how() {
    let node = with_changes().await;
    let all = feed(&node, "ROOT004", "").await;
    assert_eq!(all["last"], 8);
    assert_eq!(sequences(&all), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(all["changes"][0], json!({"seq": 1, "kind": "people", "id": "ROOT004", "op": "create"}));
    assert_eq!(all["changes"][6], json!({"seq": 7, "kind": "people", "id": "SEL006", "op": "update"}));
    assert_eq!(all["changes"][7], json!({"seq": 8, "kind": "pols", "id": "p1", "op": "delete"}));
    let some = feed(&node, "ROOT004", "?since=2&limit=3").await;
    assert_eq!((sequences(&some), &some["last"]), (vec![3, 4, 5], &json!(5)));
    let none = feed(&node, "ROOT004", "?since=8").await;
    assert_eq!(none, json!({"changes": [], "last": 8}));
}

#[tokio::test]
async fn everybody_sees_what_they_may_read() {
    let node = with_changes().await;
    node.get("/changes").by("REL005").login("x", "y").send().await.is(401, NOTHING);
    let relay = feed(&node, "REL005", "").await;
    assert_eq!((sequences(&relay), &relay["last"]), (vec![1, 2, 3, 4, 7], &json!(8)));
    let own = feed(&node, "SEL006", "").await;
    assert_eq!((sequences(&own), &own["last"]), (vec![3, 4, 5, 7, 8], &json!(8)));
    node.person("ANA001", &["end_user"]).await;
    node.get("/changes").by("ANA001").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn numbers_that_are_none_are_refused() {
    let node = with_changes().await;
    for field in ["since", "limit", "wait"] {
        for bad in ["-1", "abc", "", "1.5", "99999999999999999999", "NaN"] {
            node.get(&format!("/changes?{field}={bad}")).by("ROOT004").send().await.is_invalid(field);
        }
    }
    node.get("/changes?limit=0").by("ROOT004").send().await.is_invalid("limit");
    for twice in ["?since=0&since=1", "?limit=1&since=0&limit=1", "?wait=0&wait=0"] {
        let answer = node.get(&format!("/changes{twice}")).by("ROOT004").send().await.is(400, NOTHING);
        assert!(answer.text().contains("stands twice"), "{}", answer.text());
    }
    assert_eq!(sequences(&feed(&node, "ROOT004", "?limit=999999").await).len(), 8);
    // A number that the feed has not reached is from another store.
    for since in ["9", "1000", "18446744073709551615"] {
        for accept in ["application/json", "text/event-stream"] {
            let call =
                node.get(&format!("/changes?since={since}&wait=30")).by("ROOT004").header("accept", accept);
            let gone = call.send().await.is(410, NOTHING).has(json!({"code": "gone", "last": 8}));
            assert!(gone.text().contains("another store"), "{}", gone.text());
        }
        let stream = node.get("/changes").by("ROOT004").header("accept", "text/event-stream");
        stream.header("last-event-id", since).send().await.is(410, NOTHING);
    }
    for unknown in ["?sincee=1", "?since=1&from=2", "?SINCE=1", "?_=1", "?q"] {
        let answer = node.get(&format!("/changes{unknown}")).by("ROOT004").send().await.is(400, NOTHING);
        assert!(answer.text().contains("since, limit and wait"), "{}", answer.text());
    }
}

#[tokio::test]
async fn proxies_are_told_to_let_events_through_at_once() {
    let node = with_changes().await;
    for accept in ["application/json", "text/event-stream"] {
        let answer = node.get("/changes").by("ROOT004").header("accept", accept).open().await;
        assert_eq!(answer.headers()["x-accel-buffering"], "no", "{accept}");
    }
}

#[tokio::test]
async fn changes_that_are_no_longer_kept_are_gone() {
    let node = TestNode::start_with(|setup| setup.journal_keep_rows = 5);
    node.person("ROOT004", &["root"]).await;
    for number in 1..10 {
        node.record(Kind::Institution, doc! {"_id": format!("i{number}")}).await;
    }
    for since in [0, 1, 4] {
        let gone = node.get(&format!("/changes?since={since}")).by("ROOT004").send().await.is(410, NOTHING);
        gone.has(json!({"code": "gone", "oldest": 6}));
    }
    assert_eq!(sequences(&feed(&node, "ROOT004", "?since=5").await), [6, 7, 8, 9, 10]);
    assert_eq!(sequences(&feed(&node, "ROOT004", "").await), [6, 7, 8, 9, 10]);
    let stream = node.get("/changes?since=1").by("ROOT004").header("accept", "text/event-stream");
    stream.send().await.is(410, NOTHING);
}

#[tokio::test]
async fn a_poll_waits_for_the_next_change() {
    let node = with_changes().await;
    let waiting = async {
        let poll = node.get("/changes?since=8&wait=30").by("ROOT004").open().await;
        serde_json::from_slice::<Value>(&poll.into_body().collect().await.unwrap().to_bytes()).unwrap()
    };
    let change = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.record(Kind::Institution, doc! {"_id": "i2"}).await;
    };
    let (answer, ()) =
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(waiting, change) }).await.unwrap();
    assert_eq!(
        answer,
        json!({"changes": [{"seq": 9, "kind": "institution", "id": "i2", "op": "create"}], "last": 9})
    );
}

/// What a caller may not see must not keep a poll from what they may.
#[tokio::test]
async fn a_poll_looks_behind_what_it_may_not_show() {
    let node = with_changes().await;
    let poll = feed(&node, "REL005", "?since=4&limit=1&wait=30");
    let answer = tokio::time::timeout(Duration::from_secs(10), poll).await.unwrap();
    assert_eq!(sequences(&answer), [7]);
}

#[tokio::test]
async fn a_poll_ends_with_nothing_when_nothing_comes() {
    let node = with_changes().await;
    let started = std::time::Instant::now();
    assert_eq!(feed(&node, "ROOT004", "?since=8&wait=1").await, json!({"changes": [], "last": 8}));
    assert!(started.elapsed() >= Duration::from_millis(900));
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// The next `count` events of a stream, as (id, data).
async fn events(body: &mut Body, count: usize) -> Vec<(String, Value)> {
    let mut text = String::new();
    let read = async {
        while text.matches("\n\n").count() < count {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            text.push_str(std::str::from_utf8(&frame).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap();
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned)).unwrap()
    };
    let event = |event: &str| {
        assert_eq!(field(event, "event"), "change");
        (field(event, "id"), serde_json::from_str(&field(event, "data")).unwrap())
    };
    text.trim_end().split("\n\n").map(event).collect()
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let node = with_changes().await;
    let stream = || node.get("/changes?since=3").by("REL005").header("accept", "text/event-stream");
    let answer = stream().open().await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let mut body = answer.into_body();
    let first = events(&mut body, 2).await;
    assert_eq!(first[0], ("4".into(), json!({"seq": 4, "kind": "institution", "id": "i1", "op": "create"})));
    assert_eq!(first[1].0, "7");
    node.record(Kind::Page, doc! {"_id": "p9", "book": "ROOT004"}).await;
    node.record(Kind::Institution, doc! {"_id": "i9"}).await;
    assert_eq!(events(&mut body, 1).await[0].1["id"], "i9");
    // Going on after the last event seen counts for more than the address.
    let mut body = stream().header("last-event-id", "7").open().await.into_body();
    assert_eq!(events(&mut body, 1).await[0].0, "10");
    node.get("/changes").header("accept", "text/event-stream").send().await.is(401, NOTHING);
}

#[tokio::test]
async fn a_stream_ends_with_the_account_that_opened_it() {
    for taken in [json!({"active": false}), json!({"roles": ["end_user"]})] {
        let node = with_changes().await;
        let stream = node.get("/changes").by("REL005").header("accept", "text/event-stream");
        let mut body = stream.open().await.into_body();
        events(&mut body, 5).await;
        node.patch("/people/REL005", taken).by("ROOT004").send().await.is(200, &["update people/REL005"]);
        node.record(Kind::Institution, doc! {"_id": "i9"}).await;
        let end = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap();
        // As a broken one, so that the reader sees that it may not be complete.
        assert!(end.is_some_and(|end| end.is_err()));
        assert!(body.frame().await.is_none());
    }
}
