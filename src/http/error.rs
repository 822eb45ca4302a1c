//! Floor 4. Errors as clients see them: the only place with status codes of failures.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::accounts::{EVERYBODYS_MIB_MAX, EVERYBODYS_MIB_PER_DAY, OWN_MIB_MAX, OWN_MIB_PER_DAY};
use crate::domain::audit::Outcome;
use crate::store::Stale;

pub(super) mod conversion;

/// When to come back to a node that has no room.
const OVERLOADED_RETRY_S: u64 = 5;
/// Seconds after which to ask again a store that is being opened.
const REOPENING_RETRY_S: u64 = 1;

/// There is no room for more of a request's body; who accepts connections and counts says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for more of the body")]
pub struct Overloaded;

/// Beside an answer that names a question about two people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeopleQuestion;

/// A request that was not fulfilled.
#[derive(Debug)]
pub(crate) enum ApiError {
    NotJson(String),
    BadRequest(String),
    Unauthorized,
    Forbidden,
    /// The rights by which the request was let in are gone.
    Stale(Stale),
    /// An emergency without a usable reason.
    NoReason {
        /// The header that gives it.
        field: &'static str,
        message: String,
    },
    /// No further emergency before somebody has reviewed some.
    Unreviewed,
    CrossOrigin,
    /// A write by a session without the token that goes with it.
    NoToken,
    /// Something that only goes where nobody listens.
    PlainHttp,
    NotFound(String),
    /// Answered as if it were absent.
    Hidden(String),
    /// A record with this id is there, and the caller may not know of it.
    Taken,
    /// The document is here, its bytes are not yet.
    ContentPending {
        length: u64,
    },
    MethodNotAllowed,
    /// It must be decided first who the person is; the conflict that waits for that comes along.
    DecisionPending {
        conflict: String,
    },
    /// What was decided on has changed: the present state comes along.
    Conflict {
        message: String,
        current: Value,
    },
    /// The feed's history before this sequence number is gone.
    Gone {
        oldest: u64,
    },
    /// A place in the change feed that it has not reached.
    NotYet {
        last: u64,
    },
    PreconditionFailed,
    TooLarge(String),
    UnsupportedMediaType(String),
    /// A body with a content coding that is not known.
    UnsupportedCoding,
    RangeNotSatisfiable {
        length: u64,
    },
    Invalid {
        field: String,
        message: String,
    },
    Busy {
        retry_after_s: u64,
    },
    /// The account has written more than it may for now.
    TooManyWrites {
        retry_after_s: u64,
    },
    /// The account has sent more than it may for now.
    TooManyBytes {
        retry_after_s: u64,
    },
    /// The account has read more of other people's records than it may for now.
    TooManyReads {
        retry_after_s: u64,
    },
    /// HTTP/1.1 without one `Host` (RFC 9112, 3.2): proxies and this node may not differ in whose request it is.
    NoHost,
    /// More fields in a head than are read.
    TooManyFields,
    /// A body that does not come on.
    TooSlow,
    /// The client, or all together, hold as much as the node keeps for them.
    Overloaded,
    /// The disk is full, or would be but for the reserve.
    StorageFull,
    /// No backup was made; the message says why, to those who may ask for one.
    BackupFailed(String),
    /// What is stored is not what was written.
    Damaged,
    /// The store takes nothing any more, and the node ends.
    StoreGivenUp,
    /// The store is being opened again after its disk failed, and nothing was done.
    StoreReopening,
    /// Logged where it is made; clients learn nothing about the inside.
    Internal,
}

impl ApiError {
    pub(crate) fn invalid(field: &str, message: impl Into<String>) -> ApiError {
        ApiError::Invalid { field: field.to_owned(), message: message.into() }
    }

    /// What the response says, as a part of another one.
    pub(crate) fn shown(&self) -> Value {
        self.problem().body
    }

    /// What the audit trail calls it, if it is a refusal.
    pub(crate) fn refusal(&self) -> Option<Outcome> {
        match self {
            ApiError::Forbidden | ApiError::NoReason { .. } | ApiError::Unreviewed => {
                Some(Outcome::Forbidden)
            }
            ApiError::TooManyWrites { .. }
            | ApiError::TooManyBytes { .. }
            | ApiError::TooManyReads { .. } => Some(Outcome::TooManyAttempts),
            ApiError::Hidden(_) | ApiError::Taken => Some(Outcome::Hidden),
            ApiError::Stale(_) => Some(Outcome::Stale),
            _ => None,
        }
    }

    fn problem(&self) -> Problem {
        let (status, code, message): (StatusCode, &'static str, String) = match self {
            ApiError::NotJson(message) => (StatusCode::BAD_REQUEST, "not_json", message.clone()),
            ApiError::BadRequest(message) => (StatusCode::BAD_REQUEST, "bad_request", message.clone()),
            ApiError::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "Log in with a valid account and password".into())
            }
            ApiError::Forbidden => {
                (StatusCode::FORBIDDEN, "forbidden", "This account may not do this".into())
            }
            ApiError::Stale(stale @ (Stale::Roles | Stale::Rules | Stale::Emergency)) => (
                StatusCode::FORBIDDEN,
                "forbidden",
                format!("Nothing was changed: {stale} since the request began. Send it again"),
            ),
            ApiError::Stale(stale) => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                format!("Nothing was changed: {stale} since the request began. Log in again"),
            ),
            ApiError::NoReason { message, .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", message.clone()),
            ApiError::Unreviewed => (
                StatusCode::FORBIDDEN,
                "emergencies_unreviewed",
                "Too many emergencies wait for a review; root has to look at them first \
                 (`thalamus-edge emergency list`)"
                    .into(),
            ),
            ApiError::CrossOrigin => {
                (StatusCode::FORBIDDEN, "cross_origin", "Requests from other sites are not accepted".into())
            }
            ApiError::NoToken => (
                StatusCode::FORBIDDEN,
                "csrf_token",
                "A session changes things only with the token from GET /session, in the header X-CSRF-Token"
                    .into(),
            ),
            ApiError::PlainHttp => (
                StatusCode::FORBIDDEN,
                "plain_http",
                "Logging in with a browser needs HTTPS, which this node does not serve (server.tls)".into(),
            ),
            ApiError::NotFound(message) | ApiError::Hidden(message) => {
                (StatusCode::NOT_FOUND, "not_found", message.clone())
            }
            ApiError::Taken => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                "id: cannot be given to a new record; choose another, best a UUID".into(),
            ),
            ApiError::ContentPending { length } => (
                StatusCode::NOT_FOUND,
                "content_pending",
                format!(
                    "The document is here, but its content of {length} bytes has not arrived on this node yet. \
                     It comes with one of the next rounds; try again later"
                ),
            ),
            ApiError::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This path does not know the method".into(),
            ),
            ApiError::DecisionPending { .. } => (
                StatusCode::CONFLICT,
                "decision_pending",
                "Another person has this account at the centre; decide first whether they are the same"
                    .into(),
            ),
            ApiError::Conflict { message, .. } => (StatusCode::CONFLICT, "conflict", message.clone()),
            ApiError::Gone { oldest } => {
                (StatusCode::GONE, "gone", format!("Changes before {oldest} are no longer kept"))
            }
            ApiError::NotYet { last } => (
                StatusCode::GONE,
                "gone",
                format!(
                    "The last change is {last}, and `since` is beyond it: it is from another store than this one. \
                     Read everything anew, and ask for changes since {last}"
                ),
            ),
            ApiError::PreconditionFailed => (
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "The record has changed since it was read".into(),
            ),
            ApiError::TooLarge(message) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", message.clone()),
            ApiError::UnsupportedMediaType(message) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message.clone())
            }
            ApiError::UnsupportedCoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Content-Encoding: bodies are taken plain, or with one of gzip and zstd".into(),
            ),
            ApiError::RangeNotSatisfiable { length } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "range", format!("The content has {length} bytes"))
            }
            ApiError::Invalid { message, .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", message.clone())
            }
            ApiError::Busy { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "busy", "Too many logins; try again later".into())
            }
            ApiError::TooManyWrites { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_writes",
                "This account has made more changes than it may for now; nothing was changed. Try again later".into(),
            ),
            ApiError::TooManyBytes { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_bytes",
                format!(
                    "This account has sent more than it may for now ({OWN_MIB_MAX} MiB at once and {OWN_MIB_PER_DAY} MiB a \
                     day, {EVERYBODYS_MIB_MAX} and {EVERYBODYS_MIB_PER_DAY} with a role that reaches everybody); nothing \
                     was changed. Try again later"
                ),
            ),
            ApiError::TooManyReads { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_reads",
                "This account has read more records of others than it may for now. Try again later".into(),
            ),
            ApiError::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "The body comes too slowly: at least 1 KiB a second is expected, after the first 30 seconds".into(),
            ),
            ApiError::NoHost => (
                StatusCode::BAD_REQUEST,
                "bad_request",
                "HTTP/1.1 needs one Host field, and only one".into(),
            ),
            ApiError::TooManyFields => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_fields",
                "The head of this request has more than 100 fields: leave out those that are not needed".into(),
            ),
            ApiError::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "Too much is under way, here or at this address: take the answers that are waiting, or try again in a \
                 moment"
                    .into(),
            ),
            ApiError::StorageFull => (
                StatusCode::INSUFFICIENT_STORAGE,
                "storage_full",
                "The node's disk is full; nothing was changed. Reading goes on; writing does once there is space"
                    .into(),
            ),
            ApiError::BackupFailed(message) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "backup_failed", message.clone())
            }
            ApiError::Damaged => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "damaged",
                "A record that this needs is damaged on the node's disk, and is not shown as if it were good. The next \
                 round reads it from the centre again, if nothing of it was unsent; otherwise `thalamus-edge doctor` \
                 says what to do"
                    .into(),
            ),
            ApiError::StoreGivenUp => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "damaged",
                "The node's store takes nothing any more, as when pages of its file are damaged; what was being written \
                 may not be stored. The node ends and is started again, which looks at the file; if it does not come back, `thalamus-edge \
                 doctor` says what to do"
                    .into(),
            ),
            ApiError::StoreReopening => (
                StatusCode::SERVICE_UNAVAILABLE,
                "store_reopening",
                "The node's disk failed a moment ago, and the node opens its store again: try again in a moment".into(),
            ),
            ApiError::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The node failed; the request id leads to the cause in its log".into(),
            ),
        };
        let mut body = json!({"error": message, "code": code, "status": status.as_u16()});
        match self {
            ApiError::Invalid { field, .. } if !field.is_empty() => body["field"] = json!(field),
            ApiError::Taken => body["field"] = json!("id"),
            ApiError::NoReason { field, .. } => body["field"] = json!(field),
            ApiError::Conflict { current, .. } => body["current"] = current.clone(),
            ApiError::DecisionPending { conflict } => body["conflict"] = json!(conflict),
            ApiError::Gone { oldest } => body["oldest"] = json!(oldest),
            ApiError::NotYet { last } => body["last"] = json!(last),
            _ => {}
        }
        Problem { status, body }
    }
}

/// What an error response says, kept beside it so that the format can follow the Accept header.
#[derive(Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    body: Value,
}

impl Problem {
    /// What happened, for people.
    pub(crate) fn sentence(&self) -> String {
        self.body["error"].as_str().unwrap_or_default().to_owned()
    }

    /// The same as RFC 9457 `application/problem+json`.
    pub(crate) fn into_problem_json(self, mut response: Response) -> Response {
        let mut body = self.body;
        body["type"] = json!("about:blank");
        body["title"] = json!(self.status.canonical_reason().unwrap_or_default());
        body["detail"] = body["error"].clone();
        let headers = std::mem::take(response.headers_mut());
        let mut response = (self.status, Json(body)).into_response();
        for (name, value) in &headers {
            if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
                response.headers_mut().append(name, value.clone());
            }
        }
        let problem_json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem_json);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let mut response = (problem.status, Json(problem.body.clone())).into_response();
        let headers = response.headers_mut();
        match &self {
            ApiError::Unauthorized | ApiError::Stale(_) if problem.status == StatusCode::UNAUTHORIZED => {
                let challenge = "Basic realm=\"Authentication Required\", charset=\"UTF-8\"";
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            ApiError::UnsupportedCoding => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
            }
            ApiError::Busy { retry_after_s }
            | ApiError::TooManyWrites { retry_after_s }
            | ApiError::TooManyBytes { retry_after_s }
            | ApiError::TooManyReads { retry_after_s } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
            }
            ApiError::Overloaded => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(OVERLOADED_RETRY_S));
            }
            ApiError::StoreReopening => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(REOPENING_RETRY_S));
            }
            ApiError::RangeNotSatisfiable { length } => {
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            _ => {}
        }
        let refused = self.refusal();
        response.extensions_mut().insert(problem);
        if matches!(self, ApiError::DecisionPending { .. }) {
            response.extensions_mut().insert(PeopleQuestion);
        }
        if let Some(outcome) = refused {
            response.extensions_mut().insert(Refused(outcome));
        }
        response
    }
}

/// Why an answer is a refusal, for the audit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) Outcome);
