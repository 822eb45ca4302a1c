//! Over all routes: what a connection is given of a long answer has been counted before, and where there is no room nothing is
//! given until there is.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::{Body, HttpBody as _};
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::http::{Arrivals, Overloaded, Received};

use crate::long_answers::{fill, lengthen};
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
    let mut patched = 0;
    for (pattern, method) in routes(&world.node).await {
        if method != "PATCH" {
            continue;
        }
        let path = paths.get(pattern).cloned().unwrap_or_else(|| path_of(pattern, "PATCH"));
        let shown =
            async || world.call("GET", &path).open().await.into_body().collect().await.unwrap().to_bytes();
        let before = shown().await;
        assert!(before.len() > SMALL_BYTES, "{path}: {} bytes", before.len());
        let patch = async |counted: &Arc<Counted>| {
            let received = Received(Arc::<Counted>::clone(counted));
            world.call("PATCH", &path).json(&json!({"remark": "seen"})).with(received).open().await
        };
        let full = Arc::new(Counted { is_full: true.into(), is_full_for_long: true, ..Counted::default() });
        assert_eq!(patch(&full).await.status(), 503, "{path}");
        assert!(shown().await == before, "{path} was written without room for the answer");
        // Who is waited for takes its answer at last.
        let counted = Arc::new(Counted { is_full: true.into(), ..Counted::default() });
        let answer = patch(&counted).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(counted.waited.load(Ordering::SeqCst), 1, "{path}");
        let (text, uncounted, _) = read(answer.into_body(), &counted, false).await;
        assert_eq!(uncounted, 0, "{path}");
        assert!(text == shown().await && text != before, "{path}");
        patched += 1;
    }
    assert!(patched > 5, "{patched}");
}
