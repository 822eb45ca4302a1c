//! Floor 4. The API over HTTP: the route table, what surrounds every request, and the node's state.
//!
//! Record routes are made from the schema table; see `records` for what they do. Around all of them, from
//! the outside in: request id and log line, error format, cross-origin rules, login, the audit of what the answer
//! shows or refuses, body limits.

mod account_list;
mod answer_budget;
mod api;
mod audit;
mod authorization;
mod backups;
mod browser;
mod caller;
mod changes;
mod conflict_list;
mod conflict_rights;
pub mod conflict_trials;
mod conflict_view;
mod conflicts;
mod content;
mod cors;
mod dead;
mod effects;
mod emergency;
mod error;
mod extract;
mod form_token;
mod holds;
mod kept;
mod link;
mod list_pieces;
mod lists;
mod long_answer;
mod media;
mod node;
mod password;
mod pieces;
mod records;
mod rights;
mod session;
mod standing_questions;
mod trash;
mod unread;
mod users;
mod waiting;
mod witness;
mod workload;
mod write;
mod writes;

use std::any::Any;
use std::sync::{Arc, RwLock};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

pub use api::Api;
pub(crate) use api::{Pattern, Way, present_request};
pub(crate) use browser::{Refusal, Unasked};
pub use caller::{KnownAccounts, Peer, basic_credentials, fold_local};
pub use error::Overloaded;
pub use long_answer::PIECE_BYTES;
pub(crate) use pieces::{PieceRule, Pieces};
pub use rights::{ClientStore, UnsettledRules};
pub use users::check_local_name;
pub use workload::{all_large_work, all_work};

use futures_util::future::BoxFuture;

use crate::accounts::Accounts;
use crate::backup::Backups;
use crate::domain::access::{Acl, Actor};
use crate::domain::active::ActiveFromCentre;
use crate::domain::json::DateFormat;
use crate::domain::schema::{SCHEMAS, Shape};
use crate::sync::Reconciler;
use api::{Records, Routes};
use caller::Caller;
use error::ApiError;
use extract::{At, Sent};
use records::ItemTarget;

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

/// Counts what a request holds.
pub trait Arrivals: Send + Sync {
    /// Bytes of its body beside those that come over the line; an error where there is no room for so many more.
    fn arrived(&self, bytes: usize) -> Result<(), Overloaded>;

    /// It counts for this account from now on. Where the account has no room, waits for some; an error if there is none for
    /// long.
    fn known_as(&self, actor: &Actor) -> Option<BoxFuture<'static, Result<(), Overloaded>>>;

    /// Counts so many bytes of what comes next of its answer, before they are given to the connection; false, and nothing is
    /// counted, where there is no room for them.
    fn place(&self, bytes: usize) -> bool;

    /// The same, as soon as there is room; an error if there is none for long.
    fn wait_for_place(&self, bytes: usize) -> BoxFuture<'static, Result<(), Overloaded>>;

    /// Counts so many bytes of its answer that are made already, whether there is room or not.
    fn made(&self, bytes: usize);

    /// Counts so many bytes for as long as what is returned lives, first those that have a place.
    fn keep(&self, bytes: usize) -> Box<dyn Any + Send + Sync>;
}

/// The count of a request, among its extensions, put there by the server.
#[derive(Clone)]
pub struct Received(pub Arc<dyn Arrivals>);

/// How the client speaks to a proxy in between. Whoever accepts connections removes it unless such a proxy has written it.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl BrowserSessions {
    /// What counts for a request: a proxy knows whether the client's line is readable to others.
    pub(crate) fn for_request(self, headers: &HeaderMap) -> BrowserSessions {
        let proto = headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes);
        match (self, proto) {
            (BrowserSessions::Off, _) => BrowserSessions::Off,
            (_, Some(b"https")) => BrowserSessions::On,
            (_, Some(_)) => BrowserSessions::OverPlainHttp,
            (configured, None) => configured,
        }
    }
}

/// What the API does differently on request.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub date_format: DateFormat,
    pub collection_shape: CollectionShape,
    /// Shows password hashes to root, for a legacy peer.
    pub expose_password_hashes: bool,
    /// Whether the node itself speaks HTTPS: then pages over plain HTTP are of another origin.
    pub serves_https: bool,
    /// Origins whose pages may call the API. `*`: any may read what needs no login, and nothing else.
    pub cors_allowed_origins: Vec<String>,
    pub body_limit_bytes: usize,
    pub content_limit_bytes: usize,
    /// Of records that clients make, as BSON.
    pub record_limit_bytes: usize,
    /// Roles that count wherever they came from.
    pub central_roles: Vec<String>,
    pub active_from_centre: ActiveFromCentre,
    /// Whether `"emergency": true` in the access rules means anything.
    pub emergency_access: bool,
    pub browser_sessions: BrowserSessions,
}

/// Everything that requests share.
pub struct Node {
    pub store: ClientStore,
    pub backups: Arc<Backups>,
    pub accounts: Arc<Accounts>,
    /// Filled by itself.
    pub known_accounts: KnownAccounts,
    /// Replaced by [`Node::replace_rules`] alone.
    pub acl: RwLock<Arc<Acl>>,
    /// Filled by itself.
    pub unsettled_rules: UnsettledRules,
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
pub fn api(node: Arc<Node>) -> Api {
    let mut routes = Routes::default()
        .route("/", get(node::welcome))
        .route("/healthz", get(node::healthz))
        .route("/readyz", get(node::readyz))
        .route("/login", get(node::login))
        .route("/authorization", get(authorization::authorization))
        .route("/password/{person_id}", get(password::form).post(password::submit))
        .route("/changes", get(changes::changes))
        .route("/audit", get(audit::list))
        .route("/backups", post(backups::create))
        .route("/users", get(account_list::list))
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
        .route("/sync/conflicts", get(conflict_list::list))
        .route("/sync/conflicts/{id}", get(conflicts::show))
        .route("/sync/conflicts/{id}/resolution", post(conflicts::resolve::<false>))
        .route("/sync/conflicts/{id}/resolution/trial", post(conflicts::resolve::<true>))
        .route("/sync/conflicts/trial", post(conflict_trials::try_all))
        .route("/sync/waiting", get(waiting::list))
        .route("/sync/dead", get(dead::list))
        .route("/sync/dead/{id}/retry", post(dead::retry))
        .route("/sync/dead/{id}/take-central", post(dead::take_central))
        .route("/sync/dead/{id}/discard", post(dead::discard))
        .route("/sync/damaged/{id}/set-aside", post(dead::set_aside))
        .route("/trash", get(trash::list))
        .route("/trash/{id}", get(trash::show))
        .route("/trash/{id}/restore", post(trash::restore));
    if node.settings.browser_sessions != BrowserSessions::Off {
        let form = get(session::form).post(session::submit).delete(session::delete);
        routes = routes
            .route(session::SESSION_ROUTE, form)
            .route(session::SESSION_END_ROUTE, post(session::submit_end));
    }
    for schema in &SCHEMAS {
        for route in schema.routes {
            let records = Records { schema, route };
            routes = routes.records(records, records.methods());
        }
    }
    routes.serve(node)
}

impl Records {
    /// What GET answers.
    async fn read(
        self,
        node: &Arc<Node>,
        caller: &Caller,
        at: &At,
        parts: &Parts,
    ) -> Result<Response, ApiError> {
        let Records { schema, route } = self;
        match route.shape {
            Shape::Item | Shape::ItemOfPerson => {
                records::read(node, &ItemTarget::new(schema, route, at), caller, &parts.headers).await
            }
            // Longer, so not a part of what every read carries along.
            Shape::Collection | Shape::OfPerson | Shape::OfPage => {
                Box::pin(lists::list(Arc::clone(node), schema, route, caller, at, parts)).await
            }
            Shape::Content => {
                Box::pin(content::download(node, schema, route, caller, at, &parts.headers)).await
            }
        }
    }

    /// The methods of its path.
    fn methods(self) -> MethodRouter<Arc<Node>> {
        let Records { schema, route } = self;
        let read =
            get(move |State(node): State<Arc<Node>>, caller: Caller, at: At, request: Request| async move {
                self.read(&node, &caller, &at, &request.into_parts().0).await
            });
        let write = move |method: Method,
                          State(node): State<Arc<Node>>,
                          caller: Caller,
                          at: At,
                          headers: HeaderMap,
                          body: Sent| async move {
            write::write(&node, &ItemTarget::new(schema, route, &at), &caller, &method, &headers, body).await
        };
        match route.shape {
            Shape::Collection | Shape::OfPerson | Shape::OfPage => read,
            Shape::Item | Shape::ItemOfPerson => read.post(write).patch(write).put(write).delete(write),
            Shape::Content => read.put(
                move |State(node): State<Arc<Node>>, caller: Caller, at: At, request: Request| async move {
                    content::upload(&node, schema, route, &caller, &at, request).await
                },
            ),
        }
    }
}

/// JSON text as an answer.
fn json_body(body: axum::body::Body) -> Response {
    let json = axum::http::HeaderValue::from_static("application/json");
    ([(axum::http::header::CONTENT_TYPE, json)], body).into_response()
}

/// JSON that the node makes itself (not records).
fn json(value: impl serde::Serialize) -> Response {
    Json(value).into_response()
}
