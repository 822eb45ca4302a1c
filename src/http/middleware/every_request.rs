//! Floor 4. Surrounds every request: request id and log line, panics to 500, cross-origin rules, body limits, login.
//!
//! All of this is one future on the heap. Layers of axum would make three and copy their contents: a quarter of the memory
//! that a read allocates.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::http::auth::authentication::authenticate;
use crate::http::auth::links::LINK_ROUTE;
use crate::http::auth::origins::Crossing;
use crate::http::auth::sessions::{SESSION_END_ROUTE, SESSION_ROUTE};
use crate::http::bodies::decoding::BodyLimit;
use crate::http::bodies::unread_body::Unread;
use crate::http::error::ApiError;
use crate::http::extract::Pattern;
use crate::http::middleware::error_page::Reader;
use crate::http::middleware::known_caller;
use crate::http::request_id::RequestId;
use crate::http::routes::{Found, RouteMatch, ServedRoutes};
use crate::http::state::app_state::AppState;

/// Longest body of a form: names and passwords. Those without a login are forms.
const FORM_BYTES_MAX: usize = 4 << 10;
/// Where forms go.
const FORM_ROUTES: [Pattern; 4] = [LINK_ROUTE, SESSION_ROUTE, SESSION_END_ROUTE, "/password/{person_id}"];
/// An answer that took longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

/// The answer to a request, with what surrounds each: from the outside in, its id and log line, an answer instead of a
/// panic, the rules for pages of other sites, login, limits of bodies.
///
/// Gives every request an id, logs what is out of the ordinary without patient data, and lets the Accept header
/// choose the format of errors. Answers that are as they should be are logged at `debug`: a line for each would wear out
/// the cards that many boxes store on, and the audit trail knows who read what.
pub(crate) async fn answered(
    api: Arc<ServedRoutes>,
    found: Found,
    request: Request,
) -> Result<Response, Infallible> {
    let ServedRoutes { node, routes } = &*api;
    let route = routes.route_match(found);
    let id = RequestId::next();
    let (method, pattern) = (request.method().clone(), route.pattern);
    let reader = Reader::of(&request, pattern, node.settings.browser_sessions);
    let version = request.version();
    let (unread, request) = Unread::of(request);
    let started = tokio::time::Instant::now();
    let answering = AssertUnwindSafe(admitted(node, route, request)).catch_unwind();
    let answered = id.scope(answering).await;
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

async fn admitted(node: &Arc<AppState>, route: RouteMatch<'_>, mut request: Request) -> Response {
    // Handlers of reads do not look at bodies.
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let limit = node.settings.body_limit_bytes;
        let limit = if FORM_ROUTES.contains(&route.pattern) { limit.min(FORM_BYTES_MAX) } else { limit };
        request.extensions_mut().insert(BodyLimit(limit));
    }
    let crossing = Crossing::of(node, &request);
    let response = match crossing.refusal(node, route.pattern, &request) {
        Some(response) => response,
        None => entered(node, route, request).await,
    };
    crossing.marked(node, response)
}

/// The answer to a request from where it may come.
async fn entered(node: &Arc<AppState>, route: RouteMatch<'_>, mut request: Request) -> Response {
    match authenticate(node, route.pattern, &mut request).await {
        Ok(Some(caller)) => known_caller::answer(node, route, caller, request).await,
        Ok(None) => route.answer(node, None, request).await,
        Err(error) => error.into_response(),
    }
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
