//! Floor 4. The route table, and the API as a service.
//!
//! Record routes are made from the schema table.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::http::{self, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tower::Service;

use crate::domain::schema::SCHEMAS;
use crate::http::admin::{account_list, audit_trail, backups, users};
use crate::http::auth::{emergency, link_form, links, password_form, sessions};
use crate::http::middleware::every_request::answered;
use crate::http::records::change_feed;
use crate::http::routes::{Records, Routes, ServedRoutes};
use crate::http::state::app_state::AppState;
use crate::http::state::settings::BrowserSessions;
use crate::http::sync::{
    conflict_list, conflict_trials, conflicts, refused_records, status, trash, waiting_records,
};
use crate::http::{authorization, health};

/// The whole API.
pub fn api(node: Arc<AppState>) -> Api {
    let mut routes = Routes::default()
        .route("/", get(health::welcome))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/login", get(health::login))
        .route("/authorization", get(authorization::authorization))
        .route("/password/{person_id}", get(password_form::form).post(password_form::submit))
        .route("/changes", get(change_feed::changes))
        .route("/audit", get(audit_trail::list))
        .route("/backups", post(backups::create))
        .route("/users", get(account_list::list))
        .route("/users/{id}", post(users::add))
        .route("/users/{id}/password", post(users::set_password))
        .route("/users/{id}/active", post(users::set_active))
        .route("/users/{id}/link", post(users::make_link))
        .route(links::LINK_ROUTE, get(link_form::form).post(link_form::submit))
        .route("/emergencies", get(emergency::list))
        .route("/emergencies/{id}/review", post(emergency::review))
        .route("/sync/status", get(status::sync_status))
        .route("/sync/rounds", post(status::sync_round))
        .route("/sync/pause", post(status::sync_pause))
        .route("/sync/resume", post(status::sync_resume))
        .route("/sync/conflicts", get(conflict_list::list))
        .route("/sync/conflicts/{id}", get(conflicts::show))
        .route("/sync/conflicts/{id}/resolution", post(conflicts::resolve::<false>))
        .route("/sync/conflicts/{id}/resolution/trial", post(conflicts::resolve::<true>))
        .route("/sync/conflicts/trial", post(conflict_trials::try_all))
        .route("/sync/waiting", get(waiting_records::list))
        .route("/sync/dead", get(refused_records::list))
        .route("/sync/dead/{id}/retry", post(refused_records::retry))
        .route("/sync/dead/{id}/take-central", post(refused_records::take_central))
        .route("/sync/dead/{id}/discard", post(refused_records::discard))
        .route("/sync/damaged/{id}/set-aside", post(refused_records::set_aside))
        .route("/trash", get(trash::list))
        .route("/trash/{id}", get(trash::show))
        .route("/trash/{id}/restore", post(trash::restore));
    if node.settings.browser_sessions != BrowserSessions::Off {
        let form = get(sessions::form).post(sessions::submit).delete(sessions::delete);
        routes = routes
            .route(sessions::SESSION_ROUTE, form)
            .route(sessions::SESSION_END_ROUTE, post(sessions::submit_end));
    }
    for schema in &SCHEMAS {
        for route in schema.routes {
            let records = Records { schema, route };
            routes = routes.records(records, records.methods());
        }
    }
    Api(Arc::new(ServedRoutes { routes: routes.finish(&node), node }))
}

/// The whole API; a copy serves the same node.
#[derive(Clone)]
pub struct Api(Arc<ServedRoutes>);

impl Api {
    /// The patterns of all paths that there are, as `/people/{person_id}`.
    pub fn patterns(&self) -> &[&'static str] {
        self.0.routes.patterns()
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
        let found = self.0.routes.find(&request);
        Box::pin(answered(Arc::clone(&self.0), found, request))
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
