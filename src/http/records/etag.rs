//! Floor 4. Entity tags: of records, and the conditions on them in requests.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use crate::http::error::ApiError;

/// The version of stored bytes.
pub(crate) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..16]))
}

/// The answer when the client has this version already.
pub(crate) fn not_modified(etag: &str) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response()
}

/// `If-Match` and `If-None-Match` of a write to what is stored now, if anything is.
pub(crate) fn check_precondition(headers: &HeaderMap, stored: Option<&[u8]>) -> Result<(), ApiError> {
    if ![header::IF_MATCH, header::IF_NONE_MATCH].iter().any(|name| headers.contains_key(name)) {
        return Ok(());
    }
    let names = |header| match stored {
        Some(bytes) => names_etag(headers, header, &etag(bytes)),
        None => headers.contains_key(header).then_some(false),
    };
    if names(header::IF_MATCH) == Some(false) || names(header::IF_NONE_MATCH) == Some(true) {
        return Err(ApiError::PreconditionFailed);
    }
    Ok(())
}

/// Whether one of the entity tags in a header (RFC 9110, 8.8.3) is `etag`; `*` is any. `None` without the
/// header.
///
/// A tag that a proxy changed by compressing the answer still names the same stored bytes, so it counts in If-Match too:
/// nginx makes it weak, Apache and Caddy put `-gzip` (or another coding) into its end, Jetty `--gzip`.
pub(crate) fn names_etag(headers: &HeaderMap, name: HeaderName, etag: &str) -> Option<bool> {
    let mut lists = headers.get_all(name).iter().peekable();
    lists.peek()?;
    let is_named = |list: &str| list.split(',').map(str::trim).any(|tag| tag == "*" || is_made_of(tag, etag));
    Some(lists.any(|list| list.to_str().is_ok_and(is_named)))
}

/// Whether a tag is `etag`, or what a proxy made of it.
fn is_made_of(tag: &str, etag: &str) -> bool {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    if tag == etag {
        return true;
    }
    let end = etag.strip_suffix('"').and_then(|begin| tag.strip_prefix(begin)?.strip_suffix('"'));
    end.is_some_and(|end| {
        let coding = end.strip_prefix("--").or_else(|| end.strip_prefix(['-', ';']));
        coding.is_some_and(|coding| ["gzip", "br", "zstd", "deflate"].contains(&coding))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::header::IF_MATCH;

    use super::*;

    #[test]
    fn a_tag_counts_as_the_one_that_a_proxy_made_it_of() {
        let named = |given: &str| {
            let headers = HeaderMap::from_iter([(IF_MATCH, given.parse().unwrap())]);
            names_etag(&headers, IF_MATCH, "\"a1\"")
        };
        for given in [
            "\"a1\"",
            "W/\"a1\"",
            "*",
            "\"b2\", \"a1\"",
            "\"a1-gzip\"",
            "W/\"a1-gzip\"",
            "\"a1-br\"",
            "\"a1-zstd\"",
            "\"a1--gzip\"",
            "\"a1;gzip\"",
            "\"b2\",\"a1-deflate\"",
        ] {
            assert_eq!(named(given), Some(true), "{given}");
        }
        for given in
            ["\"a1-\"", "\"a1gzip\"", "\"a1-gzip-gzip\"", "\"a1-old\"", "\"a\"", "\"a11\"", "a1-gzip", ""]
        {
            assert_eq!(named(given), Some(false), "{given}");
        }
        assert_eq!(names_etag(&HeaderMap::new(), IF_MATCH, "\"a1\""), None);
    }
}
