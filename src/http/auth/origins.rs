//! Floor 4. Requests from pages of other sites: which may read answers, and which are refused outright.
//!
//! | origin of the page | reads without login | other reads | writes, and anything by a session |
//! |---|---|---|---|
//! | none, or the node's own | yes | yes | yes |
//! | named in `cors_allowed_origins` | yes | yes | yes |
//! | any other, with `*` | yes | not readable | refused |
//! | any other | not readable | not readable | refused |
//!
//! An origin is scheme, host and port (RFC 6454). Browsers add passwords that they remember to requests of every page, so
//! what a page may not do is refused for every account.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

use crate::domain::access::Actor;
use crate::domain::audit::Outcome;
use crate::http::access::caller::Peer;
use crate::http::audit_observer::AuditObserver;
use crate::http::error::ApiError;
use crate::http::extract::Pattern;
use crate::http::state::app_state::AppState;
use crate::http::state::settings::{ApiSettings, FORWARDED_PROTO};

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS");
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, If-Match, If-None-Match, X-Emergency-Reason");
/// What a page that nobody named may send: nothing that changes a record or carries a login.
const ALLOWED_METHODS_OF_ANY: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const ALLOWED_HEADERS_OF_ANY: HeaderValue = HeaderValue::from_static("If-None-Match");
/// In `cors_allowed_origins`: every origin.
const ANY: &str = "*";
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("ETag, Link, Location, Retry-After");
/// Which pages may load an answer without asking as CORS does.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// How long browsers may remember a preflight.
const PREFLIGHT_S_MAX: HeaderValue = HeaderValue::from_static("600");

/// What a request from a page of another site may do, if it is one.
pub(crate) struct Crossing {
    /// The origin, if it may read the answer.
    allowed: Option<HeaderValue>,
    is_preflight: bool,
}

impl Crossing {
    pub(crate) fn of(node: &AppState, request: &Request) -> Crossing {
        let origin = request.headers().get(header::ORIGIN);
        let any = node.settings.cors_allowed_origins.iter().any(|allowed| allowed == ANY);
        let named = origin.filter(|origin| node.settings.names_origin(origin.as_bytes()));
        let allowed = named.cloned().or(any.then_some(HeaderValue::from_static(ANY)));
        let is_preflight = request.method() == Method::OPTIONS
            && origin.is_some()
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        Crossing { allowed, is_preflight }
    }

    /// The answer to preflights, which need no login, and to writes of other sites, which are refused.
    pub(crate) fn refusal(&self, node: &AppState, pattern: Pattern, request: &Request) -> Option<Response> {
        if self.is_preflight {
            return Some(StatusCode::NO_CONTENT.into_response());
        }
        if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method())
            || !is_foreign(&node.settings, request.headers(), request.uri())
        {
            return None;
        }
        let from = request.extensions().get::<Peer>().and_then(|peer| peer.from());
        AuditObserver::of(request, pattern).refused(node, &Actor::Nobody, from, Outcome::CrossOrigin);
        Some(ApiError::CrossOrigin.into_response())
    }

    /// Tells browsers who may read the answer.
    pub(crate) fn marked(self, node: &AppState, mut response: Response) -> Response {
        let headers = response.headers_mut();
        // Pages of others do not get it as a picture or a script either: browsers would add a password that they remember.
        let is_named = self.allowed.as_ref().is_some_and(|allowed| allowed != ANY);
        headers.insert(
            RESOURCE_POLICY,
            HeaderValue::from_static(if is_named { "cross-origin" } else { "same-origin" }),
        );
        if let Some(allowed) = self.allowed {
            if self.is_preflight {
                let (methods, names) = match allowed == ANY {
                    true => (ALLOWED_METHODS_OF_ANY, ALLOWED_HEADERS_OF_ANY),
                    false => (ALLOWED_METHODS, ALLOWED_HEADERS),
                };
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_S_MAX);
            }
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        if node.settings.cors_allowed_origins.iter().any(|allowed| allowed != ANY) {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        response
    }
}

impl ApiSettings {
    /// Whether pages of this origin may write and log in.
    fn names_origin(&self, origin: &[u8]) -> bool {
        self.cors_allowed_origins.iter().any(|allowed| allowed != ANY && allowed.as_bytes() == origin)
    }
}

/// Whether a request comes from a page of another site that is not named in the configuration.
///
/// Bodies are read without a Content-Type and browsers remember Basic credentials, so a foreign form
/// could post otherwise. The real clients send neither of these headers.
pub(crate) fn is_foreign(settings: &ApiSettings, headers: &HeaderMap, uri: &Uri) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes);
    match (origins.next(), origins.next()) {
        (_, Some(_)) => return true,
        (Some(origin), None) if settings.names_origin(origin) => return false,
        (Some(origin), None) if !is_own(settings, headers, uri, origin) => return true,
        _ => {}
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| [&b"cross-site"[..], b"same-site"].contains(&site))
}

/// Whether an origin is the one under which the client has reached this node.
///
/// A proxy that is believed says which scheme that was. A node without TLS of its own may stand behind a proxy that says
/// nothing: both schemes are the same site then, because nothing else can answer at its host and port.
fn is_own(settings: &ApiSettings, headers: &HeaderMap, uri: &Uri, origin: &[u8]) -> bool {
    let Some((scheme, place)) = std::str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"))
    else {
        return false;
    };
    let is_scheme = match headers.get(FORWARDED_PROTO) {
        Some(forwarded) => forwarded.as_bytes() == scheme.as_bytes(),
        None => scheme == "https" || (scheme == "http" && !settings.serves_https),
    };
    // HTTP/2 has no Host header; its :authority stands in the URI.
    let host = headers
        .get(header::HOST)
        .map_or_else(|| uri.authority().map(|at| at.as_str()), |host| host.to_str().ok());
    let usual_port = match scheme {
        "https" => ":443",
        _ => ":80",
    };
    let bare = |place: &str| place.strip_suffix(usual_port).unwrap_or(place).to_ascii_lowercase();
    is_scheme && !place.is_empty() && host.is_some_and(|host| bare(host) == bare(place))
}
