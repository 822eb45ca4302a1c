//! Floor 4. What the API does differently on request: the settings of the configuration that handlers read.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::active::ActiveFromCentre;
use crate::domain::json::DateFormat;

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
