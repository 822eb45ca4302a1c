//! What a request may make the node hold: bodies, how long they may take, and how large a record may become.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bson::doc;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;
use thalamus_edge::domain::record::Kind;
use tokio::time::{Instant, sleep};

use crate::support::api::{NOTHING, TestNode};

/// Longest form that is taken.
const FORM_BYTES_MAX: usize = 4096;

#[tokio::test]
async fn forms_are_short() {
    let node = TestNode::with_people().await;
    let form = |bytes: usize| format!("account={}", "x".repeat(bytes - 8));
    for path in ["/session", "/session/end", "/link/x", "/password/ANA001"] {
        for who in [None, Some("ANA001")] {
            let post = |bytes: usize| {
                let call = node.request("POST", path).bytes(form(bytes));
                if let Some(who) = who { call.by(who) } else { call }
            };
            let within = post(FORM_BYTES_MAX).send().await;
            assert_ne!(within.status, 413, "{path}");
            let beyond = post(FORM_BYTES_MAX + 1).send().await;
            // Without a session, a link or a login nothing is said about the form.
            let says_nothing =
                ["/session/end", "/link/x"].contains(&path) || path == "/password/ANA001" && who.is_none();
            assert_eq!(beyond.status, if says_nothing { within.status } else { 413 }, "{path} {who:?}");
        }
    }
    // What unpacks to more than a form is no form either.
    let packed = {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b'a'; 1 << 20]).unwrap();
        gzip.finish().unwrap()
    };
    node.request("POST", "/session")
        .header("content-encoding", "gzip")
        .bytes(packed)
        .send()
        .await
        .is(413, NOTHING);
}

/// A body of which so many bytes are there at once, and `rest` in pieces of `piece` bytes, with a pause before each.
fn dripping(at_once: usize, rest: usize, piece: usize, pause: Duration) -> Body {
    let first = stream::iter((at_once > 0).then(|| vec![b' '; at_once]));
    let rest = stream::iter(0..rest / piece).then(move |_| async move {
        sleep(pause).await;
        vec![b' '; piece]
    });
    Body::from_stream(first.chain(rest).map(|piece| Ok::<_, Infallible>(Bytes::from(piece))))
}

/// How long what comes behind a refusal is thrown away.
const THROWN_AWAY_S_MAX: u64 = 30;

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_on_is_given_up() {
    let node = TestNode::with_people().await;
    let doctor = ("/institutions/x", Some("DOC003"));
    for ((path, who), at_once, rest, piece, pause_ms, given_up_s) in [
        // One byte every 15 seconds is never silent for long, and would go on for hours.
        (("/session", None), 0, 4000, 1, 15_000, Some(30)),
        (doctor, 0, 100_000, 1, 1000, Some(30)),
        // Slower than a kibibyte a second from the beginning, and as fast as that.
        (doctor, 0, 500_000, 100, 200, Some(60)),
        (doctor, 0, 100_000, 1100, 1000, None),
        // Long before the time is over in which so much may come, but it does not come on: silent, a byte each second,
        // and less than a kibibyte in 30 seconds.
        (doctor, 900_000, 10, 1, 100_000, Some(30)),
        (doctor, 900_000, 100_000, 1, 1000, Some(30)),
        (doctor, 900_000, 20_000, 1000, 29_000, Some(30)),
        // Pauses are taken if enough comes behind each.
        (doctor, 900_000, 20_000, 1100, 29_000, None),
        (doctor, 0, 200_000, 50_000, 25_000, None),
        // The end may be shorter.
        (doctor, 10_000, 1, 1, 29_000, None),
    ] {
        let pause = Duration::from_millis(pause_ms);
        let call = node.request("POST", path).bytes(dripping(at_once, rest, piece, pause));
        let call = if let Some(who) = who { call.by(who) } else { call };
        let began = Instant::now();
        let answer = call.send().await;
        let took = began.elapsed().as_secs();
        match given_up_s {
            Some(most_s) => {
                answer.is(408, NOTHING).has(json!({"code": "too_slow"}));
                // While the store writes who was refused, time goes on to when more of the body comes, which is thrown away.
                assert!((29..=most_s + THROWN_AWAY_S_MAX).contains(&took), "{path}: {took} s");
            }
            // Spaces are no JSON: the whole body was read.
            None => drop(answer.is(400, NOTHING)),
        }
    }
}

#[tokio::test]
async fn a_record_grows_only_so_far_and_a_larger_one_of_the_centre_is_served() {
    let node = TestNode::with_people().await;
    node.post("/institutions/x", json!({"name": "x"}))
        .by("DOC003")
        .send()
        .await
        .is(201, &["create institution/x"]);
    let mut taken = 0;
    for number in 0..20 {
        let part = json!({format!("part{number}"): "y".repeat(100_000)});
        let answer = node.patch("/institutions/x", part).by("DOC003").send().await;
        if answer.status == 413 {
            answer.is(413, NOTHING).has(json!({"code": "too_large"}));
            break;
        }
        answer.is(200, &["update institution/x"]);
        taken += 1;
    }
    assert_eq!(taken, 10, "a mebibyte");

    let large = doc! {"_id": "big", "name": "b", "x": "y".repeat(9_000_000)};
    node.from_centre(Kind::Institution, large).await;
    let whole = node.get("/institutions/big").by("DOC003").send().await.is(200, NOTHING);
    assert!(whole.body.len() > 9_000_000);
    // It may be changed, but it does not grow here.
    let changed = node.patch("/institutions/big", json!({"name": "c"})).by("DOC003").send().await;
    changed.is(200, &["update institution/big"]);
    node.patch("/institutions/big", json!({"name": "longer"})).by("DOC003").send().await.is(413, NOTHING);
    let small = node.patch("/institutions/big", json!({"x": "y"})).by("DOC003").send().await;
    small.is(200, &["update institution/big"]);
}

/// A JSON object with a list of so many such rows.
fn list_of(row: &str, rows: usize) -> String {
    format!("{{\"x\":[{}]}}", vec![row; rows].join(","))
}

#[tokio::test]
async fn a_body_has_so_many_values_wherever_it_is_sent() {
    let node = TestNode::with_people().await;
    // Each has less than a mebibyte, and would take 60 to 150 times as much.
    let bodies =
        [("1", 300_000), ("{}", 300_000), ("{\"a\":1}", 110_000), ("\"\"", 300_000), ("[[]]", 150_000)];
    for (row, rows) in bodies {
        let body = list_of(row, rows);
        assert!(body.len() < 1 << 20);
        for (method, path, who) in [
            ("POST", "/institutions/x", "DOC003"),
            ("PATCH", "/people/ANA001", "ANA001"),
            ("PUT", "/people/ANA001", "ROOT004"),
            ("POST", "/users/new", "ROOT004"),
            ("POST", "/users/ANA001/password", "ROOT004"),
            ("POST", "/users/ANA001/active", "ROOT004"),
            ("POST", "/users/ANA001/link", "ROOT004"),
            ("POST", "/sync/resume", "ROOT004"),
        ] {
            let refused = node.request(method, path).by(who).bytes(body.clone()).send().await;
            let refused = refused.is(413, NOTHING).has(json!({"code": "too_large"}));
            assert!(refused.text().contains("more values than this node reads"), "{method} {path} {row}");
        }
    }
    let within = list_of("1", 19_998);
    node.request("POST", "/institutions/x")
        .by("DOC003")
        .bytes(within)
        .send()
        .await
        .is(201, &["create institution/x"]);
}

#[tokio::test]
async fn a_record_has_so_many_values_and_one_of_the_centre_may_have_more() {
    let node = TestNode::with_people().await;
    node.post("/institutions/x", json!({"name": "x"}))
        .by("DOC003")
        .send()
        .await
        .is(201, &["create institution/x"]);
    let part = |number: usize| json!({format!("part{number}"): vec![json!({"a": 1}); 4000]});
    let mut taken = 0;
    let refused = loop {
        let answer = node.patch("/institutions/x", part(taken)).by("DOC003").send().await;
        if answer.status != 200 {
            break answer.is(413, NOTHING).has(json!({"code": "too_large"}));
        }
        taken += 1;
    };
    assert!(refused.text().contains("more values than this node takes in one"), "{}", refused.text());
    assert_eq!(taken, 5, "half a megabyte");

    let rows = vec![doc! {"a": 1}; 50_000];
    node.from_centre(Kind::Institution, doc! {"_id": "many", "name": "b", "rows": rows}).await;
    let patch = |body| node.patch("/institutions/many", body).by("DOC003").send();
    patch(json!({"name": "c"})).await.is(200, &["update institution/many"]);
    patch(json!({"more": [1, 2, 3]})).await.is(413, NOTHING);
    patch(json!({"rows": []})).await.is(200, &["update institution/many"]);
}

/// Readers of large records hold up nobody who asks for little.
#[tokio::test]
async fn what_takes_little_does_not_wait_for_what_takes_much() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Institution, doc! {"_id": "big", "x": "x".repeat(9_000_000)}).await;
    let large = thalamus_edge::http::all_large_work().expect("nobody has any");
    let mut waits = std::pin::pin!(node.get("/institutions/big").by("DOC003").send());
    assert!((&mut waits).now_or_never().is_none());
    for path in ["/pols/ANA001", "/people", "/users", "/trash", "/people/ANA001"] {
        let answer = node.get(path).by("ROOT004").send();
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await;
        answer.unwrap_or_else(|_| panic!("{path} waits")).is(200, NOTHING);
    }
    let patch = node.patch("/people/ANA001", json!({"note": "small"})).by("ROOT004").send();
    let patch = tokio::time::timeout(Duration::from_secs(5), patch).await.expect("a small write waits");
    patch.is(200, &["update people/ANA001"]);
    drop(large);
    assert_eq!(waits.await.status, 200);
}

/// Signs that JSON writes as escapes make a text six times as long as the record.
#[tokio::test]
async fn a_large_record_is_served_whatever_its_text_takes() {
    let node = TestNode::with_people().await;
    let escaped = "\u{1}".repeat(9_000_000);
    node.from_centre(Kind::Institution, doc! {"_id": "big", "x": &escaped}).await;
    for path in ["/institutions/big", "/institutions"] {
        let whole = node.get(path).by("DOC003").send().await.is(200, NOTHING);
        assert!(whole.body.len() > 6 * escaped.len(), "{path}");
    }
    assert!(thalamus_edge::http::all_work().is_some(), "all is given back");
}
