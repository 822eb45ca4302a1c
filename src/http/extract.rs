//! Floor 4. The parts of a request that handlers take: path, query and body, with the API's own errors.

use std::error::Error;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderName, Uri, header, request::Parts};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::Received;
use super::error::{ApiError, Overloaded};
use super::rights::Rights;
use super::writes::Allowance;
use crate::domain::encoding::decoded;

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

/// How long a body may take before anything of it has come.
const BODY_BEGIN: Duration = Duration::from_secs(30);
/// What it has to bring from then on, on the average.
const BODY_BYTES_A_SECOND_MIN: u64 = 1024;
/// How long it may take for [`BODY_STEP_BYTES`] more, or for its end.
const BODY_STEP: Duration = Duration::from_secs(30);
const BODY_STEP_BYTES: usize = 1024;

/// Most bytes of a request's body, coded and decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit(pub(crate) usize);

/// The body without its content coding, or why it could not be read: handlers say who may not come in before they look.
pub(crate) struct Sent(pub(crate) Result<Bytes, ApiError>);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = ApiError;

    /// Fails if the rights of the caller have ended while the body came: then the handler is not run at all.
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let rights = request.extensions().get::<Arc<Rights>>().cloned();
        let sent = Sent(read_body(request).await);
        if let Some(rights) = rights {
            rights.check_now()?;
        }
        Ok(sent)
    }
}

async fn read_body(request: Request) -> Result<Bytes, ApiError> {
    refuse_forms_of_files(request.headers())?;
    let coding = Coding::of(request.headers())?;
    let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
    let received = request.extensions().get::<Received>().cloned();
    let allowance = request.extensions().get::<Allowance>().cloned();
    if let Some(allowance) = &allowance {
        // What is announced beyond the limit is refused for that.
        allowance.check(request.body().size_hint().lower().min(limit as u64))?;
    }
    let body = collect(request.into_body(), limit).await?;
    let body = match coding {
        None => body,
        Some(_) if body.is_empty() => body,
        Some(coding) => {
            let place = match coding {
                Coding::Gzip => None,
                Coding::Zstd => Some(ZSTD_PLACES.acquire().await.map_err(|_| ApiError::Internal)?),
            };
            let decode = move || {
                let decoded = coding.decode(&body, limit, received.as_ref());
                drop(place);
                decoded
            };
            tokio::task::spawn_blocking(decode).await.map_err(|_| ApiError::Internal)??
        }
    };
    if let Some(allowance) = allowance {
        allowance.take(body.len() as u64)?;
    }
    Ok(body)
}

/// The whole body, if it is no longer than `limit` and comes on: fast enough in all, and without standing still.
async fn collect(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let started = Instant::now();
    let mut parts = Parted::default();
    // When it last came on, and how long it was then.
    let (mut stepped, mut stepped_length) = (started, 0);
    loop {
        if parts.length - stepped_length >= BODY_STEP_BYTES {
            (stepped, stepped_length) = (Instant::now(), parts.length);
        }
        let taken = Duration::from_secs(parts.length as u64 / BODY_BYTES_A_SECOND_MIN);
        let deadline = (started + BODY_BEGIN + taken).min(stepped + BODY_STEP);
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(ApiError::TooSlow),
            Ok(None) => return Ok(parts.whole()),
            Ok(Some(Err(error))) => return Err(unreadable(&error)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if parts.length + bytes.len() > limit {
            return Err(too_large());
        }
        parts.add(bytes);
    }
}

/// A body as it comes.
///
/// It grows by doubling, and takes no more memory for that: what is not written yet is not there, and large blocks move
/// without being copied, as long as the allocator maps each by itself ([`crate::memory`]).
#[derive(Default)]
struct Parted {
    /// Most bodies come in one piece, which is not copied.
    only: Bytes,
    parts: Vec<u8>,
    length: usize,
}

/// What is unpacked at once.
const PART_BYTES: usize = 64 << 10;

impl Parted {
    fn add(&mut self, bytes: Bytes) {
        if self.length == 0 {
            self.only = bytes;
            self.length = self.only.len();
            return;
        }
        self.length += bytes.len();
        if !self.only.is_empty() {
            self.parts = std::mem::take(&mut self.only).into();
        }
        self.parts.extend_from_slice(&bytes);
    }

    fn whole(self) -> Bytes {
        if self.parts.is_empty() { self.only } else { self.parts.into() }
    }
}

fn unreadable(error: &axum::Error) -> ApiError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<Overloaded>() {
            return ApiError::Overloaded;
        }
        cause = error.source();
    }
    ApiError::BadRequest("The body could not be read".into())
}

fn too_large() -> ApiError {
    ApiError::TooLarge("The body is larger than this node accepts".into())
}

/// Refuses what a browser's form for files sends: stored as it is, it would be no file.
pub(crate) fn refuse_forms_of_files(headers: &HeaderMap) -> Result<(), ApiError> {
    const FORM: &str = "multipart/";
    let given =
        headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes().trim_ascii_start());
    if !given.get(..FORM.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(FORM.as_bytes())) {
        return Ok(());
    }
    Err(ApiError::UnsupportedMediaType(
        "Forms with files (multipart/form-data) are not taken. Send the file's bytes alone as the body, with their own \
         Content-Type (curl -T photo.png -H 'Content-Type: image/png'); records as application/json, the forms of this \
         node as application/x-www-form-urlencoded"
            .into(),
    ))
}

/// Content codings of bodies that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zstd,
}

/// Largest window of zstd, as a power of two: what RFC 9659 asks of HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// A body of some hundred bytes may need such a window, which no budget counts: so many are decoded at once, in turn.
static ZSTD_PLACES: Semaphore = Semaphore::const_new(2);

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Option<Coding>, ApiError> {
        let given: Vec<String> = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(|coding| decoded(coding.trim_ascii()).to_ascii_lowercase())
            .filter(|coding| !coding.is_empty() && coding != "identity")
            .collect();
        match given.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            ["gzip" | "x-gzip"] => Ok(Some(Coding::Gzip)),
            ["zstd"] => Ok(Some(Coding::Zstd)),
            _ => Err(ApiError::UnsupportedCoding),
        }
    }

    /// What is decoded is counted as it grows: little that comes may become much.
    fn decode(self, body: &[u8], limit: usize, received: Option<&Received>) -> Result<Bytes, ApiError> {
        let name = match self {
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        };
        let broken = |_| {
            ApiError::BadRequest(format!("Content-Encoding says {name}, and the body is no whole {name}"))
        };
        let unreadable = |error: io::Error| match error.to_string().contains("too much memory") {
            true => ApiError::BadRequest(format!(
                "The body is zstd with a window larger than {} MiB, as `--long` makes it; compress it without",
                1 << (ZSTD_WINDOW_LOG_MAX - 20)
            )),
            false => broken(error),
        };
        let mut decoder: Box<dyn Read> = match self {
            Coding::Gzip => Box::new(MultiGzDecoder::new(body)),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
                Box::new(decoder)
            }
        };
        let mut plain = Parted::default();
        loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            decoder.by_ref().take(PART_BYTES as u64).read_to_end(&mut part).map_err(unreadable)?;
            if part.is_empty() {
                return Ok(plain.whole());
            }
            if plain.length + part.len() > limit {
                return Err(too_large());
            }
            if let Some(Received(count)) = received {
                count.arrived(part.len()).map_err(|_| ApiError::Overloaded)?;
            }
            plain.add(part.into());
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
    fn parts_make_the_whole() {
        for pieces in [
            &[][..],
            &[0],
            &[5],
            &[0, 5, 0],
            &[1, 1, 1],
            &[PART_BYTES],
            &[1, PART_BYTES, 3 * PART_BYTES - 1, 9],
        ] {
            let (mut parts, mut expected) = (Parted::default(), Vec::new());
            for (number, length) in pieces.iter().enumerate() {
                let piece = vec![number as u8; *length];
                expected.extend_from_slice(&piece);
                parts.add(piece.into());
            }
            assert_eq!(parts.whole(), expected, "{pieces:?}");
        }
    }

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
