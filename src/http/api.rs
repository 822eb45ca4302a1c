//! Floor 4. The API as a service: its routes, and what surrounds every request to them.
//!
//! What surrounds a request has to know the pattern of its path before anybody has logged in, so patterns are looked
//! up here, in the same kind of tree in which axum finds handlers. That leaves one future on the heap for all of
//! it, where a layer of axum's puts three there and copies what is inside: a quarter of what a read allocates. A GET of
//! records goes to its handler from there without being looked up again (see [`Way`]).

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{self, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use axum::{BoxError, Router};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tower::Service;

use super::Node;
use super::browser::Reader;
use super::caller::{self, Caller};
use super::cors::Crossing;
use super::error::ApiError;
use super::extract::{At, BodyLimit};
use super::link::LINK_ROUTE;
use super::session::{SESSION_END_ROUTE, SESSION_ROUTE};
use super::unread::Unread;
use crate::domain::schema::{Route, Schema};

/// Longest body of a form: names and passwords. Those without a login are forms.
const FORM_BYTES_MAX: usize = 4 << 10;
/// Where forms go.
const FORM_ROUTES: [Pattern; 4] = [LINK_ROUTE, SESSION_ROUTE, SESSION_END_ROUTE, "/password/{person_id}"];
/// An answer that took longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

/// The pattern of a request's path, as `/people/{person_id}`; empty for a path that there is not.
pub(crate) type Pattern = &'static str;

/// Routes while they are put together.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Arc<Node>>,
    places: matchit::Router<Place>,
    patterns: Vec<Pattern>,
}

/// What a pattern stands for.
struct Place {
    pattern: Pattern,
    /// The records that GET shows.
    records: Option<Records>,
}

/// The records behind a row of the schema's routes.
#[derive(Clone, Copy)]
pub(super) struct Records {
    pub(super) schema: &'static Schema,
    pub(super) route: &'static Route,
}

/// Where a request goes once it may.
///
/// A GET of records goes to its handler from here: looked up and called by axum once more it takes 17 µs of processor
/// time instead of 16 (the book of `benches/run`). The router has the same handler for those, and answers HEAD with it.
pub(crate) struct Way<'a> {
    pub(crate) pattern: Pattern,
    reading: Option<Reading>,
    api: &'a Api,
}

/// Records that a GET is for, and what its path names.
type Reading = (Records, Result<At, ApiError>);

/// What a path leads to.
#[derive(Default)]
struct Found {
    pattern: Pattern,
    reading: Option<Reading>,
}

impl Way<'_> {
    /// The answer of the handler; `caller` is who has logged in.
    pub(crate) async fn go(
        self,
        node: &Arc<Node>,
        caller: Option<&Caller>,
        mut request: Request,
    ) -> Response {
        if let (Some((records, at)), Some(caller)) = (self.reading, caller) {
            let read = async { records.read(node, caller, &at?, &request.into_parts().0).await };
            return read.await.into_response();
        }
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller.clone());
        }
        let handled = Box::pin(self.api.0.router.clone().call(request));
        match handled.await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Routes {
    /// Each pattern once.
    pub(super) fn route(self, pattern: Pattern, methods: MethodRouter<Arc<Node>>) -> Routes {
        self.add(Place { pattern, records: None }, methods)
    }

    /// The pattern of a row of the schema's routes.
    pub(super) fn records(self, records: Records, methods: MethodRouter<Arc<Node>>) -> Routes {
        self.add(Place { pattern: records.route.path, records: Some(records) }, methods)
    }

    fn add(mut self, place: Place, methods: MethodRouter<Arc<Node>>) -> Routes {
        let pattern = place.pattern;
        self.patterns.push(pattern);
        self.router = self.router.route(pattern, methods);
        // axum has taken the same pattern into the same kind of tree.
        let added = self.places.insert(pattern, place);
        debug_assert!(added.is_ok(), "{pattern}: {added:?}");
        self
    }

    pub(super) fn serve(self, node: Arc<Node>) -> Api {
        let router = self
            .router
            .fallback(|| async { ApiError::NotFound("There is nothing at this path".into()) })
            .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
            .with_state(Arc::clone(&node));
        Api(Arc::new(Parts { node, router, places: self.places, patterns: self.patterns }))
    }
}

/// The whole API; a copy serves the same node.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

struct Parts {
    node: Arc<Node>,
    router: Router,
    places: matchit::Router<Place>,
    patterns: Vec<Pattern>,
}

impl Api {
    /// The patterns of all paths that there are, as `/people/{person_id}`.
    pub fn patterns(&self) -> &[&'static str] {
        &self.0.patterns
    }
}

impl<B> Service<http::Request<B>> for Api
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let mut request = request.map(Body::new);
        if let Some(uri) = with_single_slashes(request.uri()) {
            *request.uri_mut() = uri;
        }
        let mut found = Found::default();
        if let Ok(place) = self.0.places.at(request.uri().path()) {
            found.pattern = place.value.pattern;
            let records = place.value.records.filter(|_| request.method() == Method::GET);
            found.reading = records.map(|records| (records, At::of(place.params.iter())));
        }
        Box::pin(answered(self.clone(), found, request))
    }
}

/// `//people//ANA001` means `/people/ANA001`, as at Thalamus: some clients put a base that ends in a slash before a path.
fn with_single_slashes(uri: &Uri) -> Option<Uri> {
    // A search for text takes longer.
    if !uri.path().as_bytes().windows(2).any(|two| two == b"//") {
        return None;
    }
    let mut path = String::with_capacity(uri.path().len());
    for c in uri.path().chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Names a request in the log and in its answer: no other of this process has the same, and none of another one
/// is likely to.
#[derive(Debug, Clone, Copy)]
struct RequestId(u64);

impl RequestId {
    fn next() -> RequestId {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        RequestId(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        static PROCESS: LazyLock<u32> = LazyLock::new(|| uuid::Uuid::new_v4().as_fields().0);
        write!(f, "{:08x}-{:x}", *PROCESS, self.0)
    }
}

tokio::task_local! {
    static REQUEST: RequestId;
}

/// The request that is being answered, for what is logged about it.
pub(crate) fn present_request() -> String {
    REQUEST.try_with(RequestId::to_string).unwrap_or_default()
}

/// The answer to a request, with what surrounds each: from the outside in, its id and log line, an answer instead of a
/// panic, the rules for pages of other sites, login, limits of bodies.
///
/// Gives every request an id, logs what is out of the ordinary without patient data, and lets the Accept header
/// choose the format of errors. Answers that are as they should be are logged at `debug`: a line for each would wear out
/// the cards that many boxes store on, and the audit trail knows who read what.
async fn answered(api: Api, found: Found, request: Request) -> Result<Response, Infallible> {
    let node = &api.0.node;
    let Found { pattern, reading } = found;
    let id = RequestId::next();
    let method = request.method().clone();
    let reader = Reader::of(&request, pattern, node.settings.browser_sessions);
    let version = request.version();
    let (unread, request) = Unread::of(request);
    let started = tokio::time::Instant::now();
    let way = Way { pattern, reading, api: &api };
    let answering = AssertUnwindSafe(admitted(node, way, request)).catch_unwind();
    let answered = REQUEST.scope(id, answering).await;
    let mut response = answered.unwrap_or_else(|_| {
        // redb gives up on pages that make no sense.
        let error = if node.store.has_broken_pages() { ApiError::Damaged } else { ApiError::Internal };
        error.into_response()
    });
    let (status, took) = (response.status(), started.elapsed());
    // The pattern, never the path: ids of people do not belong into logs.
    let path = if pattern.is_empty() { "(none)" } else { pattern };
    let (code, ms) = (status.as_u16(), took.as_millis() as u64);
    if status.is_server_error() || took > SLOW {
        tracing::info!(%id, %method, %path, status = code, ms, "answered");
    } else {
        tracing::debug!(%id, %method, %path, status = code, ms, "answered");
    }
    if let Some(unread) = unread.filter(|_| !status.is_success()) {
        unread.read_away(version).await;
    }
    if !status.is_success() {
        response = reader.shown(response, &id.to_string());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response = with_options(response, method == Method::OPTIONS);
    }
    if method == Method::HEAD {
        response = without_body(response);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_maybe_shared(Bytes::from(id.to_string())) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn admitted(node: &Arc<Node>, way: Way<'_>, mut request: Request) -> Response {
    // Handlers of reads do not look at bodies.
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let limit = node.settings.body_limit_bytes;
        let limit = if FORM_ROUTES.contains(&way.pattern) { limit.min(FORM_BYTES_MAX) } else { limit };
        request.extensions_mut().insert(BodyLimit(limit));
    }
    let crossing = Crossing::of(node, &request);
    let response = match crossing.refusal(node, way.pattern, &request) {
        Some(response) => response,
        None => caller::require_login(node, way, request).await,
    };
    crossing.marked(node, response)
}

/// The answer to HEAD. axum does the same for handlers; over HTTP/2 a body that is sent all the same breaks the stream.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// Every path answers OPTIONS, with the methods that it has.
fn with_options(mut response: Response, is_options: bool) -> Response {
    let allow = match response.headers().get(header::ALLOW).and_then(|value| value.to_str().ok()) {
        Some(methods) => format!("{methods},OPTIONS"),
        None => "OPTIONS".to_owned(),
    };
    if is_options {
        let mut headers = std::mem::take(response.headers_mut());
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_LENGTH);
        response = StatusCode::NO_CONTENT.into_response();
        *response.headers_mut() = headers;
    }
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
