//! Over all routes: what a connection is given of a long answer has been counted before, and where there is no room nothing is
//! given until there is.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::http::{Arrivals, Overloaded, Received};

use crate::long_answers::{fill, lengthen, long_text};
use crate::rights::{World, path_of, routes};

/// What is among a request: small pieces need no count of their own.
const SMALL_BYTES: usize = 16 << 10;

/// The server's count of one answer.
#[derive(Default)]
struct Counted {
    /// Counted and not given yet.
    ahead: AtomicUsize,
    is_full: AtomicBool,
    /// It stays so.
    is_full_for_long: bool,
    refused: AtomicUsize,
    waited: AtomicUsize,
}

impl Counted {
    fn count(&self, bytes: usize) {
        self.ahead.fetch_max(bytes, Ordering::SeqCst);
    }

    /// Takes as much as is given now; how much of it was not counted.
    fn give(&self, bytes: usize) -> usize {
        let ahead = self.ahead.load(Ordering::SeqCst);
        self.ahead.store(ahead.saturating_sub(bytes), Ordering::SeqCst);
        bytes.saturating_sub(ahead)
    }
}

impl Arrivals for Counted {
    fn arrived(&self, _: usize) -> Result<(), Overloaded> {
        Ok(())
    }

    fn known_as(&self, _: &Actor) -> Option<BoxFuture<'static, Result<(), Overloaded>>> {
        None
    }

    fn place(&self, bytes: usize) -> bool {
        if bytes > SMALL_BYTES && self.is_full.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return false;
        }
        self.count(bytes);
        true
    }

    /// There is room at once, or none for long.
    fn wait_for_place(&self, bytes: usize) -> BoxFuture<'static, Result<(), Overloaded>> {
        if self.is_full_for_long {
            return Box::pin(async { Err(Overloaded) });
        }
        self.is_full.store(false, Ordering::SeqCst);
        self.waited.fetch_add(1, Ordering::SeqCst);
        self.count(bytes);
        Box::pin(async { Ok(()) })
    }

    fn made(&self, bytes: usize) {
        self.count(bytes);
    }

    fn keep(&self, _: usize) -> Box<dyn Any + Send + Sync> {
        self.ahead.store(0, Ordering::SeqCst);
        Box::new(())
    }
}

/// The whole text, the bytes of it that were given uncounted, and how many pieces that had.
async fn read(mut body: Body, counted: &Counted, fill_up: bool) -> (Vec<u8>, usize, usize) {
    let (mut text, mut uncounted, mut pieces) = (Vec::new(), 0, 0);
    loop {
        // Full before each piece that has to be made: it waits once.
        if fill_up && counted.ahead.load(Ordering::SeqCst) == 0 {
            counted.is_full.store(true, Ordering::SeqCst);
        }
        let Some(frame) = body.frame().await else { break };
        let bytes = frame.unwrap().into_data().unwrap();
        let more = counted.give(bytes.len());
        uncounted += if more > SMALL_BYTES { more } else { 0 };
        pieces += 1;
        text.extend_from_slice(&bytes);
    }
    (text, uncounted, pieces)
}

#[tokio::test]
async fn every_long_answer_is_counted_before_it_is_given() {
    let mut world = World::new(false).await;
    fill(&world.node).await;
    let paths = lengthen(&world.node).await;
    world.enter("BOSS001", false).await;
    let (mut long, mut waited) = (Vec::new(), Vec::new());
    for (pattern, method) in routes(&world.node).await {
        // The stream of changes does not end; its events are small.
        if method != "GET" || pattern == "/changes" {
            continue;
        }
        let path = paths.get(pattern).cloned().unwrap_or_else(|| path_of(pattern, "GET"));
        let mut texts = Vec::new();
        for fill_up in [false, true] {
            let counted = Arc::new(Counted::default());
            counted.is_full.store(fill_up, Ordering::SeqCst);
            let received = Received(Arc::<Counted>::clone(&counted));
            let answer = world.call("GET", &path).with(received).open().await;
            let status = answer.status();
            let body = answer.into_body();
            let is_known = body.size_hint().exact().is_some();
            let (text, uncounted, pieces) = read(body, &counted, fill_up).await;
            assert_eq!(uncounted, 0, "{path}: {} bytes in {pieces} pieces", text.len());
            if text.len() > SMALL_BYTES && !fill_up {
                long.push(pattern);
            }
            if counted.waited.load(Ordering::SeqCst) > 0 {
                waited.push((pattern, is_known));
            }
            texts.push((status, text));
        }
        // Whatever was dropped for want of room is there all the same.
        if !["/audit", "/sync/status"].contains(&pattern) {
            assert!(texts[0] == texts[1], "{path}: {} and {} bytes", texts[0].1.len(), texts[1].1.len());
        }
    }
    assert!(long.len() > 20, "{long:?}");
    // The text of a single record is there already, from the first time.
    let of = |wanted: &str| waited.iter().any(|(pattern, _)| *pattern == wanted);
    for pattern in
        ["/people", "/pols/{person_id}", "/users", "/sync/conflicts", "/personal-documents/{id}/content"]
    {
        assert!(of(pattern), "{pattern} never waited: {waited:?}");
    }
}

/// When the head of an answer has gone, nothing but a cut connection could say that there is no room for the rest.
#[tokio::test]
async fn an_answer_whose_first_piece_has_no_room_is_refused_and_not_cut() {
    let mut world = World::new(false).await;
    fill(&world.node).await;
    let paths = lengthen(&world.node).await;
    world.enter("BOSS001", false).await;
    let mut refused = Vec::new();
    for (pattern, method) in routes(&world.node).await {
        if method != "GET" || pattern == "/changes" {
            continue;
        }
        let path = paths.get(pattern).cloned().unwrap_or_else(|| path_of(pattern, "GET"));
        let counted = Counted { is_full: true.into(), is_full_for_long: true, ..Counted::default() };
        let answer = world.call("GET", &path).with(Received(Arc::new(counted))).open().await;
        if answer.status() == 503 {
            refused.push(pattern);
        }
        let first = answer.into_body().frame().await;
        assert!(first.is_none_or(|first| first.is_ok()), "{path} is cut before its first byte");
    }
    for pattern in ["/people", "/encounters", "/personal-documents/{id}/content"] {
        assert!(refused.contains(&pattern), "{pattern}: {refused:?}");
    }
}

/// What is written cannot be taken back where there turns out to be no room for the answer.
#[tokio::test]
async fn a_write_has_the_place_of_its_answer_before_anything_is_written() {
    let mut world = World::new(false).await;
    fill(&world.node).await;
    let paths = lengthen(&world.node).await;
    world.enter("BOSS001", false).await;
    let all = routes(&world.node).await;
    let mut done = BTreeMap::new();
    for (pattern, _) in all.iter().filter(|(_, method)| method == "PATCH") {
        let path = paths.get(pattern).cloned().unwrap_or_else(|| path_of(pattern, "PATCH"));
        waits_before_it_writes(&world, ("PATCH", &path), &json!({"remark": "seen"}), 200).await;
        *done.entry("PATCH").or_insert(0) += 1;
        let has = |method: &str| all.iter().any(|(other, known)| other == pattern && known == method);
        if !has("POST") {
            continue;
        }
        let new_path = path_of(pattern, "POST");
        let mut new: Value = serde_json::from_slice(&world.body(pattern, "POST").await.unwrap()).unwrap();
        new["note"] = long_text().into();
        waits_before_it_writes(&world, ("POST", &new_path), &new, 201).await;
        // The same again, as if its answer had been lost: it shows the record, and writes nothing.
        waits_before_it_writes(&world, ("POST", &new_path), &new, 200).await;
        *done.entry("POST").or_insert(0) += 1;
        if has("PUT") {
            new["remark"] = "as a whole".into();
            waits_before_it_writes(&world, ("PUT", &new_path), &new, 200).await;
            *done.entry("PUT").or_insert(0) += 1;
        }
    }
    assert!(done["PATCH"] > 5 && done["POST"] > 5 && done["PUT"] > 5, "{done:?}");
}

/// What the record at this path is shown as.
async fn shown(world: &World, path: &str) -> (StatusCode, Bytes) {
    let answer = world.call("GET", path).open().await;
    (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
}

/// Without room for the answer the request changes nothing; if room comes in time it is done, and its answer was counted.
async fn waits_before_it_writes(world: &World, (method, path): (&str, &str), body: &Value, done: u16) {
    let before = shown(world, path).await;
    let send = async |counted: &Arc<Counted>| {
        let received = Received(Arc::<Counted>::clone(counted));
        world.call(method, path).json(body).with(received).open().await
    };
    let full = Arc::new(Counted { is_full: true.into(), is_full_for_long: true, ..Counted::default() });
    assert_eq!(send(&full).await.status(), 503, "{method} {path} with {before:?} there");
    assert!(shown(world, path).await == before, "{method} {path} was done without room for the answer");
    let counted = Arc::new(Counted { is_full: true.into(), ..Counted::default() });
    let answer = send(&counted).await;
    let status = answer.status();
    let (text, uncounted, _) = read(answer.into_body(), &counted, false).await;
    assert_eq!(status, done, "{method} {path}: {}", String::from_utf8_lossy(&text));
    assert_eq!(counted.waited.load(Ordering::SeqCst), 1, "{method} {path}");
    assert!(text.len() > SMALL_BYTES, "{method} {path}: {} bytes", text.len());
    assert_eq!(uncounted, 0, "{method} {path}");
    let after = shown(world, path).await;
    assert!(text == after.1, "{method} {path}");
    // The same POST again is the only one that changes nothing.
    assert_eq!(after == before, (method, done) == ("POST", 200), "{method} {path}");
}
