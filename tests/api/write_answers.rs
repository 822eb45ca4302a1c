//! The answer to a write shows a record, and ends when its reader may not have it any more: also for what was taken between
//! the transaction of the write and the beginning of its answer. What the write itself has changed does not end it.

use std::collections::BTreeSet;

use axum::body::{Body, HttpBody as _};
use axum::http::Response;
use bson::doc;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use thalamus_edge::domain::access::Acl;
use thalamus_edge::domain::audit::Entry;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::schema::SCHEMAS;

use crate::effects::BusyWriter;
use crate::rights::{CHANGES, Change, World, path_of, routes};
use crate::support::api::{NOTHING, PASSWORD, TestNode};

/// Most bytes of an answer that goes out as it is.
const PIECE: u64 = 64 << 10;

fn long_text() -> String {
    "x".repeat(150_000)
}

/// Makes the records long that the routes lead to.
async fn lengthen(world: &World) {
    for kind in Kind::ALL {
        let id = if kind == Kind::Person { "ANA001" } else { "r1" };
        let mut record = world.node.stored(kind, id).unwrap();
        record.insert("scan", long_text());
        world.node.restore(kind, id, Some(record)).await;
    }
}

/// A request to a route of records, another one each time, whose answer is long if it shows the record.
async fn request(world: &World, pattern: &str, method: &str, number: usize) -> (String, Vec<u8>) {
    let new = |text: &str| text.replace("NEW001", &format!("NEW{number}"));
    let path = new(&path_of(pattern, method));
    let path = path.strip_suffix("/new").map_or(path.clone(), |rest| format!("{rest}/new{number}"));
    let body = world.body(pattern, method).await.unwrap_or_default();
    let Ok(mut body) = serde_json::from_slice::<Value>(&body) else {
        // An attachment.
        return (path, format!("bytes {number}").into_bytes());
    };
    body["note"] = json!(format!("note {number}"));
    body["scan"] = json!(long_text());
    if body["id"] == "new" {
        body["id"] = json!(format!("new{number}"));
    }
    (path, body.to_string().into_bytes())
}

fn is_long(answer: &Response<Body>) -> bool {
    answer.body().size_hint().exact().is_none_or(|bytes| bytes > PIECE)
}

async fn enter(world: &mut World, number: usize, is_local: bool, change: Change) {
    world.node.node.replace_rules(Acl::built_in()).await.unwrap();
    world.enter(&format!("CHIEF{number:03}"), is_local).await;
    if change == Change::SessionEnded {
        world.begin_session().await;
    }
    world.call("GET", "/login").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn what_is_taken_right_behind_a_write_ends_its_answer() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("store.redb");
    let mut world = World::on(TestNode::start_with(|setup| setup.file = Some(file)), false).await;
    lengthen(&world).await;
    let of_records: BTreeSet<&str> =
        SCHEMAS.iter().flat_map(|schema| schema.routes).map(|route| route.path).collect();
    let (mut cut, mut short) = (BTreeSet::new(), BTreeSet::new());
    let (mut number, mut routes_seen) = (100, 0);
    for (pattern, method) in routes(&world.node).await {
        if ["GET", "HEAD", "OPTIONS", "DELETE"].contains(&&*method) || !of_records.contains(pattern) {
            continue;
        }
        routes_seen += 1;
        for (at, change) in CHANGES.into_iter().enumerate() {
            number += 1;
            // Both for each change, by turns: the test below has all.
            let is_local = (at + routes_seen) % 2 == 0;
            let cell = format!("{method} {pattern} {change:?} {is_local}");
            enter(&mut world, number, is_local, change).await;
            let before = world.last_entry().await;
            let (path, body) = request(&world, pattern, &method, number).await;
            let busy = BusyWriter::begin(&world, None).await;
            let mut answer = Box::pin(world.call(&method, &path).bytes(body).open());
            BusyWriter::is_awaited(&world, 1, &mut answer, &cell).await;
            busy.release_before(&world, change, &mut answer, &cell).await;
            let answer = answer.await;
            // It was done before.
            assert!(answer.status().is_success(), "{cell}: {}", answer.status());
            if !is_long(&answer) {
                short.insert((pattern, method.clone()));
                break;
            }
            let mut body = answer.into_body();
            assert!(body.frame().await.unwrap().is_err(), "{cell}: it begins");
            assert!(body.frame().await.is_none(), "{cell}");
            let written = world.written_after(before).await;
            let denied: Vec<&Entry> = written.iter().filter(|entry| &*entry.event.verb == "denied").collect();
            let [Entry { event, .. }] = denied.as_slice() else { panic!("{cell}: {written:?}") };
            assert_eq!(&*event.outcome, "rights_ended", "{cell}");
            cut.insert((pattern, method.clone()));
        }
    }
    assert!(cut.len() > 15, "{cut:?}, and short: {short:?}");
}

#[tokio::test]
async fn what_is_taken_while_the_answer_to_a_write_is_under_way_ends_it() {
    let mut world = World::new(false).await;
    lengthen(&world).await;
    let both = CHANGES.into_iter().flat_map(|change| [(change, false), (change, true)]);
    for (number, (change, is_local)) in both.enumerate() {
        let cell = format!("{change:?} {is_local}");
        enter(&mut world, number, is_local, change).await;
        let patch = world.call("PATCH", "/people/ANA001").json(&json!({"phone": cell})).open().await;
        assert_eq!(patch.status(), 200, "{cell}");
        let mut body = patch.into_body();
        body.frame().await.unwrap().unwrap();
        world.make(change).await;
        assert!(body.frame().await.unwrap().is_err(), "{cell}");
    }
}

/// A write of one's own account ends the right by which it was made, and the session. Its answer is whole all the same, unless
/// something else is taken.
#[tokio::test]
async fn what_a_write_has_changed_itself_does_not_end_its_answer() {
    for is_by_session in [false, true] {
        for later in [None, Some(Change::Disabled), Some(Change::RulesChanged)] {
            let mut world = World::new(false).await;
            world.enter("CHIEF1", false).await;
            let mut own = world.node.stored(Kind::Person, "CHIEF1").unwrap();
            own.extend(doc! {"scan": long_text()});
            world.node.restore(Kind::Person, "CHIEF1", Some(own)).await;
            if is_by_session {
                world.begin_session().await;
            }
            let new = json!({"password": "another cradle in Roma", "current_password": PASSWORD});
            let answer = world.call("PATCH", "/people/CHIEF1").json(&new).open().await;
            let cell = format!("{is_by_session} {later:?}");
            assert_eq!(answer.status(), 200, "{cell}");
            assert!(is_long(&answer));
            if is_by_session {
                // It ends with the password, at the latest after a minute.
                world.node.node.end_old_sessions();
            }
            let mut body = answer.into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            if let Some(later) = later {
                world.make(later).await;
                assert!(body.frame().await.unwrap().is_err(), "{cell}");
                continue;
            }
            let rest = body.collect().await.unwrap().to_bytes();
            let whole: Value = serde_json::from_slice(&[first, rest].concat()).unwrap();
            assert_eq!(whole["scan"], json!(long_text()), "{cell}");
        }
    }
}
