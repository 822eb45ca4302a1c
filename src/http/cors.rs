//! Floor 4. Requests from pages of other sites: which may read answers, and which are refused outright.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::caller::{Peer, check_origin};
use super::witness::Witness;
use super::{Node, Pattern};
use crate::domain::access::Actor;
use crate::domain::audit::Outcome;

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS");
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, If-Match, If-None-Match, X-Emergency-Reason");
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("ETag, Link, Location, Retry-After");
/// How long browsers may remember a preflight.
const PREFLIGHT_S_MAX: HeaderValue = HeaderValue::from_static("600");

/// What a request from a page of another site may do, if it is one.
pub(crate) struct Crossing {
    /// The origin, if it may read the answer.
    allowed: Option<HeaderValue>,
    is_preflight: bool,
    any: bool,
}

impl Crossing {
    pub(crate) fn of(node: &Node, request: &Request) -> Crossing {
        let origin = request.headers().get(header::ORIGIN);
        let any = node.settings.cors_allowed_origins.iter().any(|allowed| allowed == "*");
        let allowed = match origin {
            _ if any => Some(HeaderValue::from_static("*")),
            Some(origin) if node.settings.allows_origin(origin.as_bytes()) => Some(origin.clone()),
            _ => None,
        };
        let is_preflight = request.method() == Method::OPTIONS
            && origin.is_some()
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        Crossing { allowed, is_preflight, any }
    }

    /// The answer to preflights, which need no login, and to writes of other sites, which are refused.
    pub(crate) fn refusal(&self, node: &Node, pattern: Pattern, request: &Request) -> Option<Response> {
        if self.is_preflight {
            return Some(StatusCode::NO_CONTENT.into_response());
        }
        let error = check_origin(node, request).err()?;
        let from = request.extensions().get::<Peer>().and_then(|peer| peer.from());
        Witness::of(request, pattern).refused(node, &Actor::Nobody, from, Outcome::CrossOrigin);
        Some(error.into_response())
    }

    /// Tells browsers who may read the answer.
    pub(crate) fn marked(self, node: &Node, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(allowed) = self.allowed {
            if self.is_preflight {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_S_MAX);
            }
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        if !self.any && !node.settings.cors_allowed_origins.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        response
    }
}
