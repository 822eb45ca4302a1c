//! Floor 4. Welcome page, liveness, readiness and login check.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::http::access::caller::Caller;
use crate::http::response::{self, page};
use crate::http::state::app_state::AppState;
use crate::http::state::settings::BrowserSessions;

const WELCOME: &str = include_str!("pages/welcome.html");
const SESSION_LINK: &str = "<p><a href=\"/session\">Log in with this browser</a></p>\n";

pub(crate) async fn welcome(State(node): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    let has_sessions = node.settings.browser_sessions.for_request(&headers) == BrowserSessions::On;
    let session = if has_sessions { SESSION_LINK } else { "" };
    let html = WELCOME.replace("{{session}}", session).replace("{{version}}", env!("CARGO_PKG_VERSION"));
    page(StatusCode::OK, html)
}

/// The process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers.
pub(crate) async fn readyz(State(node): State<Arc<AppState>>) -> Response {
    if node.store.has_given_up() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store takes nothing any more\n")
            .into_response();
    }
    match node.store.read().and_then(|snapshot| snapshot.is_empty()) {
        // It serves, if only readers: nothing is gained by sending them elsewhere.
        Ok(_) if node.store.shortage().is_some() => "ready, but the disk is nearly full\n".into_response(),
        Ok(_) => "ready\n".into_response(),
        Err(error) => {
            tracing::error!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
        }
    }
}

pub(crate) async fn login(_: Caller) -> Response {
    response::json(true)
}
