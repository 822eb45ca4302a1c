//! Floor 4. The parts of a request that handlers take: path, query and body, with the API's own errors.

use std::convert::Infallible;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, request::Parts};
use bytes::Bytes;

use super::error::ApiError;

const NOT_TEXT: &str = "the path is not UTF-8 text";

/// The variable parts of the path by their names, decoded.
pub(crate) struct At(Vec<(String, String)>);

impl At {
    /// Of parts as they stand in the path.
    pub(crate) fn of<'p>(parts: impl Iterator<Item = (&'p str, &'p str)>) -> Result<At, ApiError> {
        let decoded = parts.map(|(name, part)| {
            let part = percent_encoding::percent_decode_str(part).decode_utf8();
            let part = part.map_err(|_| ApiError::invalid("", NOT_TEXT))?;
            Ok((name.to_owned(), part.into_owned()))
        });
        Ok(At(decoded.collect::<Result<_, ApiError>>()?))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(part, value)| (part == name).then_some(value.as_str()))
    }

    pub(crate) fn id(&self) -> &str {
        self.get("id").unwrap_or_default()
    }

    pub(crate) fn person(&self) -> &str {
        self.get("person_id").unwrap_or_default()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match RawPathParams::from_request_parts(parts, state).await {
            Ok(at) => Ok(At(at.iter().map(|(name, part)| (name.to_owned(), part.to_owned())).collect())),
            Err(_) => Err(ApiError::invalid("", NOT_TEXT)),
        }
    }
}

/// The body, or why it could not be read: handlers say who may not come in before they look.
pub(crate) struct Sent(pub(crate) Result<Bytes, ApiError>);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        let body = Bytes::from_request(request, state).await;
        Ok(Sent(body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::TooLarge("The body is larger than this node accepts".into())
            }
            _ => ApiError::BadRequest("The body could not be read".into()),
        })))
    }
}

/// The pairs of a query string, decoded; what is not UTF-8 is replaced.
pub(crate) fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    form_pairs(uri.query().unwrap_or_default().as_bytes())
}

/// The pairs of `application/x-www-form-urlencoded` text.
pub(crate) fn form_pairs(text: &[u8]) -> Vec<(String, String)> {
    let decode = |text: &[u8]| {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        percent_encoding::percent_decode(&spaced).decode_utf8_lossy().into_owned()
    };
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
            None => (decode(pair), String::new()),
        })
        .collect()
}

/// Whether one of the entity tags in a header (RFC 9110, 8.8.3) is `etag`; `*` is any. `None` without the
/// header.
///
/// A tag that a proxy made weak by compressing the answer still names the same stored bytes, so it counts
/// in If-Match too.
pub(crate) fn names_etag(headers: &HeaderMap, name: HeaderName, etag: &str) -> Option<bool> {
    let mut lists = headers.get_all(name).iter().peekable();
    lists.peek()?;
    let is_named = |list: &str| {
        list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    };
    Some(lists.any(|list| list.to_str().is_ok_and(is_named)))
}
