//! Floor 4. Reads the body of a request: within its limit, fast enough, and without its content coding.

use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::domain::encoding::decoded;
use crate::http::bodies::arrivals::Received;
use crate::http::error::{ApiError, Overloaded};

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

/// The body of a request before it is read.
pub(crate) struct IncomingBody {
    body: Body,
    coding: Option<Coding>,
    limit: usize,
    received: Option<Received>,
}

impl IncomingBody {
    /// Fails if the node takes no body of this kind or with this content coding.
    pub(crate) fn of(request: Request) -> Result<IncomingBody, ApiError> {
        refuse_forms_of_files(request.headers())?;
        let coding = Coding::of(request.headers())?;
        let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
        let received = request.extensions().get::<Received>().cloned();
        Ok(IncomingBody { body: request.into_body(), coding, limit, received })
    }

    /// How many bytes are announced, up to the limit: reading refuses what is beyond it.
    pub(crate) fn announced_bytes(&self) -> u64 {
        self.body.size_hint().lower().min(self.limit as u64)
    }

    /// The body without its content coding.
    pub(crate) async fn read(self) -> Result<Bytes, ApiError> {
        let IncomingBody { body, coding, limit, received } = self;
        let body = collect(body, limit).await?;
        let Some(coding) = coding.filter(|_| !body.is_empty()) else {
            return Ok(body);
        };
        let place = match coding {
            Coding::Gzip => None,
            Coding::Zstd => Some(ZSTD_PLACES.acquire().await.map_err(|_| ApiError::Internal)?),
        };
        let decode = move || {
            let decoded = coding.decode(&body, limit, received.as_ref());
            drop(place);
            decoded
        };
        tokio::task::spawn_blocking(decode).await.map_err(|_| ApiError::Internal)?
    }
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

#[cfg(test)]
mod tests {
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
}
