//! Floor 4. The parts of a request that handlers take: path and query, with the API's own errors.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Uri;
use axum::http::request::Parts;

use crate::domain::encoding::decoded;
use crate::http::error::ApiError;

const NOT_TEXT: &str = "the path is not UTF-8 text";

/// The variable parts of the path by their names, decoded.
pub(crate) struct PathParams(Vec<(String, String)>);

impl PathParams {
    /// Of parts as they stand in the path.
    pub(crate) fn of<'p>(parts: impl Iterator<Item = (&'p str, &'p str)>) -> Result<PathParams, ApiError> {
        let decoded = parts.map(|(name, part)| {
            let part = percent_encoding::percent_decode_str(part).decode_utf8();
            let part = part.map_err(|_| ApiError::invalid("", NOT_TEXT))?;
            Ok((name.to_owned(), part.into_owned()))
        });
        Ok(PathParams(decoded.collect::<Result<_, ApiError>>()?))
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

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match RawPathParams::from_request_parts(parts, state).await {
            Ok(params) => {
                Ok(PathParams(params.iter().map(|(name, part)| (name.to_owned(), part.to_owned())).collect()))
            }
            Err(_) => Err(ApiError::invalid("", NOT_TEXT)),
        }
    }
}

/// The pairs of a query string, decoded; a name or value that is not UTF-8 is windows-1252.
pub(crate) fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    form_pairs(uri.query().unwrap_or_default().as_bytes())
}

/// The pairs of `application/x-www-form-urlencoded` text.
pub(crate) fn form_pairs(text: &[u8]) -> Vec<(String, String)> {
    let decode = |text: &[u8]| {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        decoded(&percent_encoding::percent_decode(&spaced).collect::<Vec<u8>>()).into_owned()
    };
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
            None => (decode(pair), String::new()),
        })
        .collect()
}

/// The pattern of a request's path, as `/people/{person_id}`; empty for a path that there is not.
pub(crate) type Pattern = &'static str;
