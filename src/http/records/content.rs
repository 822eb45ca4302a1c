//! Floor 4. The bytes of personal documents: upload, and download in whole or in part.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use bytes::Bytes;
use futures_util::stream;
use sha2::{Digest as _, Sha256};

use crate::domain::access::Verb;
use crate::domain::content::{CONTENT_CHUNK_BYTES, CONTENT_FIELD, Content};
use crate::domain::schema::{Route, Schema};
use crate::http::access::caller::Caller;
use crate::http::access::request_body::RequestBody;
use crate::http::auth::emergency;
use crate::http::bodies::decoding::{BodyLimit, refuse_forms_of_files};
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::records::etag::{check_precondition, names_etag, not_modified};
use crate::http::records::item::ItemTarget;
use crate::http::records::media_type;
use crate::http::state::app_state::AppState;
use crate::http::workload;
use crate::store::{Edit, EditError};

/// How often an upload starts over because the record changed meanwhile.
const UPLOAD_TRIES_MAX: usize = 8;
/// Longest media type accepted.
const MEDIA_TYPE_CHARS_MAX: usize = 128;

/// Fields in which clients say what a document is called, the most exact first.
const NAME_FIELDS: [&str; 4] = ["filename", "file_name", "title", "name"];

pub(crate) async fn upload(
    node: &Arc<AppState>,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    params: &PathParams,
    mut request: Request,
) -> Result<Response, ApiError> {
    let target = ItemTarget::new(schema, route, params);
    // Uploading changes the document as PATCH does, and needs the same right; before the bytes are read,
    // because there may be many.
    target.authorized(node, caller, Verb::Patch)?;
    request.extensions_mut().insert(BodyLimit(node.settings.content_limit_bytes));
    let headers = request.headers().clone();
    refuse_forms_of_files(&headers)?;
    // A part would take the place of the whole (RFC 9110, 14.5).
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(ApiError::BadRequest(
            "Content-Range: a part of a file is not taken; send the whole without Content-Range".into(),
        ));
    }
    let media_type = media_type(&headers)?;
    // Whether there is space is asked now; it is taken when the bytes are here, so that who is slow keeps none.
    drop(node.store.claim(bytes_to_come(&headers, node.settings.content_limit_bytes))?);
    let RequestBody(bytes) = RequestBody::from_request(request, &()).await?;
    let bytes = bytes?;
    let work = Arc::new(workload::take_for_upload(node, caller, bytes.len()).await?);
    let _claim = node.store.claim(bytes.len() as u64)?;
    let (bytes, sha256) = hashed(bytes).await?;
    for _ in 0..UPLOAD_TRIES_MAX {
        let changed = workload::take(node, caller, target.weight(node, caller, Verb::Patch)?).await?;
        let (found, grant) = target.authorized(node, caller, Verb::Patch)?;
        check_precondition(&headers, Some(found.bytes()))?;
        let expected = Some(found.bytes().to_vec());
        let mut document = found.document()?;
        let had_content = Content::of(schema.kind, &document).is_some();
        document.insert(
            CONTENT_FIELD,
            doc! {"sha256": &sha256, "length": bytes.len() as i64, "type": &media_type},
        );
        let edit = Edit {
            grant,
            id: found.0.id,
            expected,
            document: Some(document),
            requires: Vec::new(),
            grants: None,
            content: Some((sha256.clone(), bytes.clone())),
            closes: None,
        };
        let charge = Arc::new((Arc::clone(&work), changed));
        match caller.writes(node).charged(&charge).edit(edit).await {
            Ok(()) => {
                let status = if had_content { StatusCode::OK } else { StatusCode::CREATED };
                let body = serde_json::json!({"sha256": sha256, "length": bytes.len(), "type": media_type});
                return Ok((status, axum::Json(body)).into_response());
            }
            Err(EditError::Moved) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(EditError::Moved.into())
}

/// As many as the client says, and no more than are accepted; what is coded may become as many as are accepted.
fn bytes_to_come(headers: &HeaderMap, bytes_max: usize) -> u64 {
    let is_plain = !headers.contains_key(header::CONTENT_ENCODING);
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .filter(|_| is_plain)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes_max = bytes_max as u64;
    declared.map_or(bytes_max, |bytes: u64| bytes.min(bytes_max))
}

/// Hashing the largest content takes longer than other requests should wait for.
async fn hashed(bytes: Bytes) -> Result<(Bytes, String), ApiError> {
    let hash = move || {
        let sha256 = hex::encode(Sha256::digest(&bytes));
        (bytes, sha256)
    };
    tokio::task::spawn_blocking(hash).await.map_err(|_| ApiError::Internal)
}

fn media_type(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok("application/octet-stream".to_owned());
    };
    let text = value.to_str().unwrap_or_default().trim();
    let is_plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    match essence.split_once('/') {
        Some((kind, subtype))
            if is_plain(kind) && is_plain(subtype) && text.len() <= MEDIA_TYPE_CHARS_MAX =>
        {
            Ok(text.to_owned())
        }
        _ => {
            Err(ApiError::UnsupportedMediaType("Content-Type must be a media type such as image/png".into()))
        }
    }
}

pub(crate) async fn download(
    node: &Arc<AppState>,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    params: &PathParams,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (found, opening) = ItemTarget::new(schema, route, params).readable(node, caller, headers).await?;
    let shown = found.seen(schema).in_emergency(opening);
    let document = described(found.raw());
    let Some(content) = Content::of(schema.kind, &document) else {
        return Err(ApiError::NotFound("The document has no content".into()));
    };
    let tag = format!("\"{}\"", content.sha256);
    if names_etag(headers, header::IF_NONE_MATCH, &tag) == Some(true) {
        return Ok(shown.attach_to(not_modified(&tag)));
    }
    if !node.store.read()?.has_content(&content.sha256)? {
        return Err(ApiError::ContentPending { length: content.length });
    }
    // A part of something else is of no use to who has the beginning of another version.
    let is_same = headers.get(header::IF_RANGE).is_none_or(|known| known.as_bytes() == tag.as_bytes());
    let range = match headers
        .get(header::RANGE)
        .filter(|_| is_same)
        .map(|range| parse_range(range, content.length))
    {
        None | Some(Range::Ignored) => None,
        Some(Range::Bytes(first, last)) => Some((first, last)),
        Some(Range::Unsatisfiable) => return Err(ApiError::RangeNotSatisfiable { length: content.length }),
    };
    let (first, end) = range.map_or((0, content.length), |(first, last)| (first, last + 1));
    let name = file_name(&document, &found.0.id).to_owned();
    // The record may be large, and as many as wait would hold it.
    drop(found);
    // Here, where a refusal can still be told: when the body is read, the head has gone.
    if first < end {
        workload::wait_for_place(node, caller, CONTENT_CHUNK_BYTES).await?;
        opening.map_or(Ok(()), |opening| emergency::check_open(node, opening))?;
    }
    let mut response =
        Body::from_stream(read_bytes(Arc::clone(node), caller.clone(), content.sha256, first, end))
            .into_response();
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let out = response.headers_mut();
    let mut set = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            out.insert(name, value);
        }
    };
    let sent_type = media_type::sent_type(&content.media_type);
    set(header::CONTENT_TYPE, &sent_type);
    set(header::CONTENT_DISPOSITION, &media_type::disposition(&sent_type, &name));
    set(header::CONTENT_LENGTH, &(end - first).to_string());
    set(header::ETAG, &tag);
    set(header::ACCEPT_RANGES, "bytes");
    // Uploaded bytes are shown to nobody as a page of this origin.
    set(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
    if let Some((first, last)) = range {
        set(header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", content.length));
    }
    Ok(shown.attach_to(response))
}

/// What a document says about its bytes. The rest of it may have thousands of values, and is not looked at.
fn described(document: &RawDocument) -> Document {
    const DESCRIPTION_BYTES_MAX: usize = 4 << 10;
    let mut described = Document::new();
    for field in NAME_FIELDS.into_iter().chain([CONTENT_FIELD]) {
        let value = match document.get(field) {
            Ok(Some(RawBsonRef::Document(value))) if value.as_bytes().len() <= DESCRIPTION_BYTES_MAX => {
                Document::try_from(value).ok().map(Bson::Document)
            }
            Ok(Some(RawBsonRef::String(text))) if text.len() <= DESCRIPTION_BYTES_MAX => Some(text.into()),
            _ => None,
        };
        if let Some(value) = value {
            described.insert(field, value);
        }
    }
    described
}

/// What the document calls its bytes, or else its id.
fn file_name<'a>(document: &'a Document, id: &'a str) -> &'a str {
    let texts = NAME_FIELDS.iter().filter_map(|field| document.get_str(field).ok());
    texts.map(str::trim).find(|name| !name.is_empty()).unwrap_or(id)
}

/// The bytes from `first` to before `end`, chunk by chunk. Bytes under a hash never change, so no
/// transaction needs to span them; where some are missing the connection is cut.
fn read_bytes(
    node: Arc<AppState>,
    caller: Caller,
    sha256: String,
    first: u64,
    end: u64,
) -> impl stream::Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold(first, move |at| {
        let (node, caller, sha256) = (Arc::clone(&node), caller.clone(), sha256.clone());
        async move {
            if at >= end {
                return Ok(None);
            }
            // Each chunk is read whole.
            let placed = workload::wait_for_place(&node, &caller, CONTENT_CHUNK_BYTES).await;
            placed.map_err(|_| std::io::Error::other("there is no room for more of the content"))?;
            let read = tokio::task::spawn_blocking(move || read_part(&node, &sha256, at, end));
            let part = read.await.map_err(std::io::Error::other)??;
            let next = at + part.len() as u64;
            Ok(Some((part, next)))
        }
    })
}

fn read_part(node: &AppState, sha256: &str, at: u64, end: u64) -> std::io::Result<Bytes> {
    let chunk_bytes = CONTENT_CHUNK_BYTES as u64;
    let number = u32::try_from(at / chunk_bytes).map_err(std::io::Error::other)?;
    let snapshot = node.store.read().map_err(std::io::Error::other)?;
    let chunk = Bytes::from(
        snapshot.content_chunk(sha256, number).map_err(std::io::Error::other)?.unwrap_or_default(),
    );
    let start = usize::try_from(at % chunk_bytes).map_err(std::io::Error::other)?.min(chunk.len());
    let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len() - start);
    if wanted == 0 {
        return Err(std::io::Error::other("the content is not complete"));
    }
    Ok(chunk.slice(start..start + wanted))
}

enum Range {
    /// Not a single byte range: the whole is sent (RFC 9110, 14.2).
    Ignored,
    Bytes(u64, u64),
    Unsatisfiable,
}

fn parse_range(header: &HeaderValue, length: u64) -> Range {
    let spec = header.to_str().ok().and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else {
        return Range::Ignored;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last && first < length => Range::Bytes(first, last.min(length - 1)),
        (Ok(first), Ok(last)) if first > last => Range::Ignored,
        (Ok(first), Err(_)) if last.trim().is_empty() && first < length => Range::Bytes(first, length - 1),
        (Err(_), Ok(suffix)) if first.trim().is_empty() && suffix > 0 && length > 0 => {
            Range::Bytes(length.saturating_sub(suffix), length - 1)
        }
        (Ok(_), Ok(_)) => Range::Unsatisfiable,
        (Ok(_), Err(_)) if last.trim().is_empty() => Range::Unsatisfiable,
        (Err(_), Ok(_)) if first.trim().is_empty() => Range::Unsatisfiable,
        _ => Range::Ignored,
    }
}
