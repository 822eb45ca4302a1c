//! Floor 4. Requests from pages of other sites: which may read answers, and which are refused outright.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Node;
use super::caller::{Peer, check_origin};
use super::witness::Witness;
use crate::domain::audit::{NOBODY, Outcome};

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS");
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, If-Match, If-None-Match, X-Emergency-Reason");
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("ETag, Link, Location, Retry-After");
/// How long browsers may remember a preflight.
const PREFLIGHT_S_MAX: HeaderValue = HeaderValue::from_static("600");

/// Answers preflights without login, refuses cross-site writes, and marks answers for allowed origins.
pub(crate) async fn cors(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let any = node.settings.cors_allowed_origins.iter().any(|allowed| allowed == "*");
    let allowed = match &origin {
        _ if any => Some(HeaderValue::from_static("*")),
        Some(origin) if node.settings.allows_origin(origin.as_bytes()) => Some(origin.clone()),
        _ => None,
    };
    let is_preflight = request.method() == Method::OPTIONS
        && origin.is_some()
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        StatusCode::NO_CONTENT.into_response()
    } else if let Err(error) = check_origin(&node, &request) {
        let from = request.extensions().get::<Peer>().and_then(|peer| peer.from());
        Witness::of(&request).refused(&node, NOBODY, from, Outcome::CrossOrigin);
        error.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    if let Some(allowed) = allowed {
        if is_preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_S_MAX);
        }
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
    if !any && !node.settings.cors_allowed_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}
