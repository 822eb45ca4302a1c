//! Answers that take long to send end when their reader may not have them any more, also those whose length is known.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody as _;
use bson::{Document, doc};
use http_body_util::BodyExt as _;
use serde_json::json;
use thalamus_edge::accounts::SESSION_S_MAX;
use thalamus_edge::domain::access::{Acl, Actor};
use thalamus_edge::domain::audit::Entry;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::schema::{SCHEMAS, Shape};
use thalamus_edge::http::PIECE_BYTES;
use thalamus_edge::store::{Base, DeadLetter, StoreError};

use crate::rights::{CHANGES, Change, RECORDS, World, path_of, record_of, routes};
use crate::support::api::{NOTHING, PASSWORD, PASSWORD_HASH, TestNode, elapse, pass_time, person};
use crate::support::sim::Sim;

/// Answers that stay below a piece, whatever is in the store: about the caller and the node, and lists that have a bound.
const SHORT: &[&str] = &[
    "/",
    "/authorization",
    "/emergencies",
    "/healthz",
    "/login",
    "/password/{person_id}",
    "/readyz",
    "/sync/status",
    "/sync/waiting",
];

/// What takes several pieces.
pub(crate) fn long_text() -> String {
    "x".repeat(5 * PIECE_BYTES)
}

/// Fills every list of the node, and an attachment of several chunks.
pub(crate) async fn fill(node: &TestNode) {
    for kind in Kind::ALL {
        let fill = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
            for n in 0..RECORDS {
                let id = format!("FILL{n:04}");
                let mut record = record_of(kind.schema(), &id);
                match kind {
                    Kind::Person => record.insert("password", PASSWORD_HASH.as_str()),
                    Kind::PersonalDocument => record.insert("pol", "r1"),
                    _ => None,
                };
                let key = RecordKey::new(kind, id.as_str());
                tx.put(&key, Some(&record), &Base::Document(record.clone()), &Actor::Centre)?;
            }
            Ok(())
        });
        fill.await.unwrap();
    }
    let upload = node.request("PUT", "/personal-documents/r1/content").login("BOSS09", PASSWORD);
    upload.bytes(vec![7; 300_000]).send().await.is(201, &["update personal_document/r1"]);
}

/// Makes every single answer long. Gives the paths of those whose names come from the store.
pub(crate) async fn lengthen(node: &TestNode) -> HashMap<&'static str, String> {
    let lengthen = node.node.store.unguarded().transact(|tx| -> Result<(), StoreError> {
        for kind in Kind::ALL {
            let key = RecordKey::new(kind, if kind == Kind::Person { "ANA001" } else { "r1" });
            let mut record = tx.document(&key)?.unwrap();
            record.insert("note", long_text());
            tx.edit(&key, Some(&record), &Actor::Operator(0))?;
        }
        for n in 0..RECORDS {
            let key = RecordKey::new(Kind::Event, format!("FILL{n:04}"));
            tx.edit(&key, None, &Actor::Operator(0))?;
            let key = RecordKey::new(Kind::Encounter, format!("FILL{n:04}"));
            let reason = "x".repeat(1_000);
            tx.put_dead(&DeadLetter { key, direction: "push", code: 121, reason, at_ms: 0 })?;
        }
        let key = RecordKey::new(Kind::Event, "gone");
        let gone = doc! {"_id": "gone", "person": "ANA001", "note": long_text()};
        tx.put(&key, Some(&gone), &Base::Document(gone.clone()), &Actor::Centre)?;
        tx.edit(&key, None, &Actor::Operator(0))?;
        let clash = Clash {
            path: vec!["note".to_owned()],
            base: None,
            local: Some(long_text().into()),
            remote: Some("short".into()),
            stands: Side::Remote,
        };
        tx.add_conflict(&RecordKey::new(Kind::Event, "r1"), &clash, None)?;
        for n in 0..RECORDS {
            let short = Clash { local: Some("here".into()), ..clash.clone() };
            tx.add_conflict(&RecordKey::new(Kind::Measurement, format!("FILL{n:04}")), &short, None)?;
        }
        Ok(())
    });
    lengthen.await.unwrap();
    let first = async |path: &str| {
        let list = node.get(path).by_operator().send().await.is(200, NOTHING).json();
        list[0]["id"].to_string().replace('"', "")
    };
    HashMap::from([
        ("/audit", "/audit?limit=1000".to_owned()),
        ("/trash", "/trash?limit=1000".to_owned()),
        ("/trash/{id}", format!("/trash/{}", first("/trash?limit=1").await)),
        (
            "/sync/conflicts/{id}",
            format!("/sync/conflicts/{}", first("/sync/conflicts?collection=event").await),
        ),
    ])
}

#[tokio::test]
async fn what_is_taken_while_an_answer_is_under_way_ends_it() {
    let mut world = World::new(false).await;
    fill(&world.node).await;
    let paths = lengthen(&world.node).await;
    let (mut ended, mut short) = (BTreeSet::new(), BTreeSet::new());
    let mut known_length = BTreeSet::new();
    let mut count = 0;
    for (pattern, method) in routes(&world.node).await {
        if method != "GET" {
            continue;
        }
        let path = paths.get(pattern).cloned().unwrap_or_else(|| path_of(pattern, "GET"));
        for (change, is_local) in CHANGES.into_iter().flat_map(|change| [(change, false), (change, true)]) {
            let cell = format!("GET {pattern} {change:?} {is_local}");
            count += 1;
            world.enter(&format!("BOSS{count:03}"), is_local).await;
            if change == Change::SessionEnded {
                world.begin_session().await;
            }
            world.node.node.replace_rules(Acl::built_in()).await.unwrap();
            let call = world.call("GET", &path);
            let call = if pattern == "/changes" { call.header("accept", "text/event-stream") } else { call };
            let answer = call.open().await;
            assert!(answer.status().is_success() || SHORT.contains(&pattern), "{cell}: {}", answer.status());
            let mut body = answer.into_body();
            let length = body.size_hint().exact();
            if length.is_some_and(|length| length <= PIECE_BYTES as u64) {
                // In one piece, which is complete when it begins.
                short.insert(pattern);
                break;
            }
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(!first.is_empty() && first.len() <= PIECE_BYTES, "{cell}");
            if let Some(length) = length {
                known_length.insert(pattern);
                assert_eq!(body.size_hint().exact(), Some(length - first.len() as u64), "{cell}");
            }
            world.make(change).await;
            let before = world.last_entry().await;
            let next = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect(&cell);
            match next {
                Some(Err(_)) => {
                    let written = world.written_after(before).await;
                    let [Entry { event, .. }] = written.as_slice() else { panic!("{cell}: {written:?}") };
                    assert_eq!((&*event.verb, &*event.outcome), ("denied", "rights_ended"), "{cell}");
                }
                more => panic!("{cell}: it goes on: {:?}", more.map(|more| more.map(|_| ()))),
            }
            assert!(body.frame().await.is_none(), "{cell}");
            ended.insert(pattern);
        }
    }
    assert_eq!(short, SHORT.iter().copied().collect(), "short answers");
    let lists = SCHEMAS.iter().flat_map(|schema| schema.routes);
    for pattern in lists.map(|route| route.path).chain(["/changes", "/users", "/sync/conflicts"]) {
        assert!(ended.contains(pattern), "{pattern} was not ended: {ended:?}");
    }
    let items = SCHEMAS.iter().flat_map(|schema| schema.routes);
    let items = items.filter(|route| matches!(route.shape, Shape::Item | Shape::ItemOfPerson));
    for pattern in items.map(|route| route.path).chain(["/audit", "/trash", "/trash/{id}", "/sync/dead"]) {
        assert!(known_length.contains(pattern), "{pattern} does not say how long it is: {known_length:?}");
    }
}

/// ANA001 with a long record.
fn ana(roles: &[&str]) -> Document {
    let mut ana = person("ANA001", roles);
    ana.insert("note", long_text());
    ana
}

/// Nothing is written meanwhile: time alone ends it.
#[tokio::test]
async fn an_answer_ends_with_the_offline_login_and_with_the_session() {
    const DAYS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    let node = TestNode::start_with(|setup| {
        setup.offline_login_days = 30;
        setup.hub = Some(Arc::new(Sim::default()));
    });
    node.people().await;
    node.restore(Kind::Person, "ANA001", Some(ana(&["end_user"]))).await;
    let report = node.request("POST", "/sync/rounds").by_operator().send().await;
    report.is(200, NOTHING).has(json!({"outcome": "complete"}));
    let mut body = node.get("/people/ANA001").by("ANA001").open().await.into_body();
    pass_time(DAYS - Duration::from_millis(1));
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    pass_time(Duration::from_millis(1));
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.frame().await.is_none());

    let mut world = World::new(true).await;
    world.node.restore(Kind::Person, "ANA001", Some(ana(&["end_user"]))).await;
    world.begin_session().await;
    let mut body = world.call("GET", "/people/ANA001").open().await.into_body();
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    elapse(Duration::from_secs(SESSION_S_MAX));
    assert!(body.frame().await.unwrap().is_err());
}
