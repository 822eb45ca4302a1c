//! Floor 4. The API over HTTP: the route table, what surrounds every request, and the node's state.
//!
//! Record routes are made from the schema table; see `records` for what they do. Around all of them, from
//! the outside in: request id and log line, error format, cross-origin rules, login, the audit of what the answer
//! shows or refuses, body limits.

mod audit;
mod authorization;
mod backups;
mod caller;
mod changes;
mod conflicts;
mod content;
mod cors;
mod dead;
mod emergency;
mod error;
mod extract;
mod form_token;
mod holds;
mod link;
mod lists;
mod node;
mod password;
mod records;
mod session;
mod users;
mod witness;
mod write;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use futures_util::FutureExt as _;
use tower_http::timeout::TimeoutBody;

pub use caller::{KnownAccounts, LOCAL_SUFFIX, Peer, basic_credentials};

use crate::accounts::Accounts;
use crate::backup::Backups;
use crate::domain::access::Acl;
use crate::domain::json::DateFormat;
use crate::domain::schema::{Route, SCHEMAS, Schema, Shape};
use crate::store::Store;
use crate::sync::Reconciler;
use caller::Caller;
use cors::Crossing;
use error::{ApiError, Problem};
use extract::{At, Sent};
use records::ItemTarget;

/// Longest silence while a body arrives.
const BODY_TIMEOUT_S_MAX: u64 = 30;

/// An answer that took longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

/// How collections are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectionShape {
    /// An array of documents.
    #[default]
    Flat,
    /// An array of one-element arrays, as Thalamus 0.9 sends and the Federation Portal reads.
    Rows,
}

/// Whether browsers may log in for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrowserSessions {
    Off,
    /// Wanted, but the line is readable to others, so nobody gets one.
    OverPlainHttp,
    On,
}

/// What the API does differently on request.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub date_format: DateFormat,
    pub collection_shape: CollectionShape,
    /// Shows password hashes to root, for a legacy peer.
    pub expose_password_hashes: bool,
    /// Origins whose pages may call the API; `*` is any.
    pub cors_allowed_origins: Vec<String>,
    pub body_limit_bytes: usize,
    pub content_limit_bytes: usize,
    /// Roles that count wherever they came from.
    pub central_roles: Vec<String>,
    /// Whether `"emergency": true` in the access rules means anything.
    pub emergency_access: bool,
    pub browser_sessions: BrowserSessions,
}

impl ApiSettings {
    fn allows_origin(&self, origin: &[u8]) -> bool {
        self.cors_allowed_origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin)
    }
}

/// Everything that requests share.
pub struct Node {
    pub store: Store,
    pub backups: Arc<Backups>,
    pub accounts: Arc<Accounts>,
    /// Filled by itself.
    pub known_accounts: KnownAccounts,
    pub acl: RwLock<Arc<Acl>>,
    pub settings: ApiSettings,
    pub sync: Arc<Reconciler>,
    /// Key of form tokens; made anew at every start.
    pub form_key: [u8; 32],
}

impl Node {
    /// The access rules in force now.
    pub(crate) fn acl(&self) -> Arc<Acl> {
        match self.acl.read() {
            Ok(acl) => Arc::clone(&acl),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }
}

/// The whole API.
pub fn router(node: Arc<Node>) -> Router {
    let mut router = Router::new()
        .route("/", get(node::welcome))
        .route("/healthz", get(node::healthz))
        .route("/readyz", get(node::readyz))
        .route("/login", get(node::login))
        .route("/authorization", get(authorization::authorization))
        .route("/password/{person_id}", get(password::form).post(password::submit))
        .route("/changes", get(changes::changes))
        .route("/audit", get(audit::list))
        .route("/backups", post(backups::create))
        .route("/users", get(users::list))
        .route("/users/{id}", post(users::add))
        .route("/users/{id}/password", post(users::set_password))
        .route("/users/{id}/active", post(users::set_active))
        .route("/users/{id}/link", post(users::make_link))
        .route(link::LINK_ROUTE, get(link::form).post(link::submit))
        .route("/emergencies", get(emergency::list))
        .route("/emergencies/{id}/review", post(emergency::review))
        .route("/sync/status", get(node::sync_status))
        .route("/sync/rounds", post(node::sync_round))
        .route("/sync/pause", post(node::sync_pause))
        .route("/sync/resume", post(node::sync_resume))
        .route("/sync/conflicts", get(conflicts::list))
        .route("/sync/conflicts/{id}", get(conflicts::show))
        .route("/sync/conflicts/{id}/resolution", post(conflicts::resolve))
        .route("/sync/dead", get(dead::list))
        .route("/sync/dead/{id}/retry", post(dead::retry));
    if node.settings.browser_sessions != BrowserSessions::Off {
        let form = get(session::form).post(session::submit).delete(session::delete);
        router = router
            .route(session::SESSION_ROUTE, form)
            .route(session::SESSION_END_ROUTE, post(session::submit_end));
    }
    for schema in &SCHEMAS {
        for route in schema.routes {
            router = router.route(route.path, record_route(schema, route, &node.settings));
        }
    }
    let router = router
        .fallback(|| async { ApiError::NotFound("There is nothing at this path".into()) })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(middleware::from_fn_with_state(Arc::clone(&node), around))
        .with_state(node);
    // Outside of everything: axum names the methods of a path only after its own layers have run.
    Router::new().fallback_service(router).layer(middleware::from_fn(answer_options))
}

/// The methods of one row of the schema's routes.
fn record_route(
    schema: &'static Schema,
    route: &'static Route,
    settings: &ApiSettings,
) -> MethodRouter<Arc<Node>> {
    match route.shape {
        Shape::Collection | Shape::OfPerson | Shape::OfPage => {
            get(move |State(node): State<Arc<Node>>, caller: Caller, at: At, request: Request| async move {
                lists::list(node, schema, route, &caller, &at, &request.into_parts().0).await
            })
        }
        Shape::Item | Shape::ItemOfPerson => record_item_route(schema, route),
        Shape::Content => {
            get(move |State(node): State<Arc<Node>>, caller: Caller, at: At, headers: HeaderMap| async move {
                content::download(&node, schema, route, &caller, &at, &headers).await
            })
            .put(move |State(node): State<Arc<Node>>, caller: Caller, at: At, request: Request| async move {
                content::upload(&node, schema, route, &caller, &at, request).await
            })
            // Inside of the limit for all other bodies, so this one counts.
            .layer(DefaultBodyLimit::max(settings.content_limit_bytes))
        }
    }
}

fn record_item_route(schema: &'static Schema, route: &'static Route) -> MethodRouter<Arc<Node>> {
    let read = move |State(node): State<Arc<Node>>, caller: Caller, at: At, headers: HeaderMap| async move {
        records::read(&node, &ItemTarget::new(schema, route, &at), &caller, &headers).await
    };
    let write = move |method: Method,
                      State(node): State<Arc<Node>>,
                      caller: Caller,
                      at: At,
                      headers: HeaderMap,
                      body: Sent| async move {
        write::write(&node, &ItemTarget::new(schema, route, &at), &caller, &method, &headers, body).await
    };
    get(read).post(write).patch(write).put(write).delete(write)
}

/// Answers OPTIONS from the methods that a path has.
async fn answer_options(request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
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
    }
    response
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
fn present_request() -> String {
    REQUEST.try_with(RequestId::to_string).unwrap_or_default()
}

/// What surrounds every request, from the outside in: its id and log line, an answer instead of a panic, the rules for
/// pages of other sites, login, limits of bodies. One layer instead of six, each of which would put its future on the
/// heap.
///
/// Gives every request an id, logs what is out of the ordinary without patient data, and lets the Accept header
/// choose the format of errors. Answers that are as they should be are logged at `debug`: a line for each would wear out
/// the cards that many boxes store on, and the audit trail knows who read what.
async fn around(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let id = RequestId::next();
    let method = request.method().clone();
    // The pattern, never the path: ids of people do not belong into logs.
    let path = request.extensions().get::<MatchedPath>().cloned();
    let wants_problem_json = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/problem+json"));
    let started = tokio::time::Instant::now();
    let answering = AssertUnwindSafe(admitted(node, request, next)).catch_unwind();
    let answered = REQUEST.scope(id, answering).await;
    let mut response = answered.unwrap_or_else(|_| ApiError::Internal.into_response());
    let (status, took) = (response.status(), started.elapsed());
    let path = path.as_ref().map_or("(none)", MatchedPath::as_str);
    let (code, ms) = (status.as_u16(), took.as_millis() as u64);
    if status.is_server_error() || took > SLOW {
        tracing::info!(%id, %method, %path, status = code, ms, "answered");
    } else {
        tracing::debug!(%id, %method, %path, status = code, ms, "answered");
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>()
        && wants_problem_json
    {
        response = problem.into_problem_json(response);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn admitted(node: Arc<Node>, mut request: Request, next: Next) -> Response {
    // Handlers of reads do not look at bodies.
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let silence = Duration::from_secs(BODY_TIMEOUT_S_MAX);
        request = request.map(|body| Body::new(TimeoutBody::new(silence, body)));
    }
    DefaultBodyLimit::max(node.settings.body_limit_bytes).apply(&mut request);
    let crossing = Crossing::of(&node, &request);
    let response = match crossing.refusal(&node, &request) {
        Some(response) => response,
        None => caller::require_login(&node, request, next).await,
    };
    crossing.marked(&node, response)
}

/// JSON that the node makes itself (not records).
fn json(value: impl serde::Serialize) -> Response {
    Json(value).into_response()
}
