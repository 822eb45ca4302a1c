//! Floor 4. The bytes of personal documents: upload, and download in whole or in part.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bson::{Document, doc};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Node;
use super::caller::Caller;
use super::error::ApiError;
use super::records::{ItemTarget, etag, find_readable, to_document};
use crate::domain::access::{Target, Verb};
use crate::domain::edit::CONTENT_FIELD;
use crate::domain::schema::{Route, Schema};
use crate::store::{CONTENT_CHUNK_BYTES, Edit, EditError};

/// How often an upload starts over because the record changed meanwhile.
const UPLOAD_TRIES_MAX: usize = 8;
/// Longest media type accepted.
const MEDIA_TYPE_CHARS_MAX: usize = 128;

/// Where uploaded bytes are and what they are, as the document says.
struct Content {
    sha256: String,
    length: u64,
    media_type: String,
}

impl Content {
    fn of(document: &Document) -> Option<Content> {
        let content = document.get_document(CONTENT_FIELD).ok()?;
        let length = match content.get("length")? {
            bson::Bson::Int64(length) => u64::try_from(*length).ok()?,
            bson::Bson::Int32(length) => u64::try_from(*length).ok()?,
            _ => return None,
        };
        Some(Content {
            sha256: content.get_str("sha256").ok()?.to_owned(),
            length,
            media_type: content.get_str("type").unwrap_or("application/octet-stream").to_owned(),
        })
    }
}

pub(crate) async fn upload(
    node: &Node,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    at: &BTreeMap<String, String>,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let media_type = media_type(headers)?;
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let target = ItemTarget::new(schema, route, at);
    for _ in 0..UPLOAD_TRIES_MAX {
        let acl = node.acl();
        // Uploading changes the document as PATCH does, and needs the same right.
        acl.authorize_node(&caller.principal, Verb::Patch, target.acl_name)?;
        let absent = || ApiError::NotFound(format!("{} not found", schema.noun));
        let record = node.store.read()?.find(schema.kind, target.id)?.ok_or_else(absent)?;
        let mut document = to_document(&record.document)?;
        let owner = schema.owner_of(&document);
        let subject = Target::Record { owner: owner.as_deref() };
        let grant = acl.authorize(&caller.principal, Verb::Patch, target.acl_name, schema.kind, subject)?;
        if headers.get(header::IF_MATCH).is_some_and(|tag| tag.as_bytes() != etag(record.document.as_bytes()).as_bytes()) {
            return Err(ApiError::PreconditionFailed);
        }
        let had_content = Content::of(&document).is_some();
        document.insert(
            CONTENT_FIELD,
            doc! {"sha256": &sha256, "length": bytes.len() as i64, "type": &media_type},
        );
        let edit = Edit {
            grant,
            id: record.id.clone(),
            expected: Some(record.document.as_bytes().to_vec()),
            document: Some(document),
            requires: Vec::new(),
            grants: None,
            content: Some((sha256.clone(), bytes.to_vec())),
        };
        match node.store.edit(edit).await {
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

fn media_type(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok("application/octet-stream".to_owned());
    };
    let text = value.to_str().unwrap_or_default().trim();
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let essence = text.split(';').next().unwrap_or_default().trim();
    match essence.split_once('/') {
        Some((kind, subtype)) if is_plain(kind) && is_plain(subtype) && text.len() <= MEDIA_TYPE_CHARS_MAX => {
            Ok(text.to_owned())
        }
        _ => Err(ApiError::UnsupportedMediaType("Content-Type must be a media type such as image/png".into())),
    }
}

pub(crate) fn download(
    node: &Node,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    at: &BTreeMap<String, String>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let target = ItemTarget::new(schema, route, at);
    let record = find_readable(node, &target, caller)?;
    let Some(content) = Content::of(&to_document(&record.document)?) else {
        return Err(ApiError::NotFound("The document has no content".into()));
    };
    let tag = format!("\"{}\"", content.sha256);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes()) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    if content.length > 0 && node.store.read()?.content_chunk(&content.sha256, 0)?.is_none() {
        return Err(ApiError::NotFound("The content has not arrived on this node yet (content_pending)".into()));
    }
    let range = match headers.get(header::RANGE).map(|range| parse_range(range, content.length)) {
        None | Some(Range::Ignored) => None,
        Some(Range::Bytes(first, last)) => Some((first, last)),
        Some(Range::Unsatisfiable) => return Err(ApiError::RangeNotSatisfiable { length: content.length }),
    };
    let (first, end) = range.map_or((0, content.length), |(first, last)| (first, last + 1));
    let bytes = read_bytes(node, &content.sha256, first, end)?;
    let mut response = Body::from(bytes).into_response();
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let out = response.headers_mut();
    let mut set = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            out.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, &content.media_type);
    set(header::ETAG, &tag);
    set(header::ACCEPT_RANGES, "bytes");
    // Uploaded bytes are shown to nobody as a page of this origin.
    set(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
    if let Some((first, last)) = range {
        set(header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", content.length));
    }
    Ok(response)
}

fn read_bytes(node: &Node, sha256: &str, first: u64, end: u64) -> Result<Vec<u8>, ApiError> {
    let snapshot = node.store.read()?;
    let chunk_bytes = CONTENT_CHUNK_BYTES as u64;
    let mut bytes = Vec::with_capacity(usize::try_from(end - first).unwrap_or_default());
    let mut at = first;
    while at < end {
        let number = u32::try_from(at / chunk_bytes).unwrap_or(u32::MAX);
        let chunk = snapshot.content_chunk(sha256, number)?.unwrap_or_default();
        let offset = usize::try_from(at % chunk_bytes).unwrap_or_default();
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
        let part: Vec<u8> = chunk.into_iter().skip(offset).take(wanted).collect();
        if part.is_empty() {
            return Err(ApiError::NotFound("The content has not arrived on this node yet (content_pending)".into()));
        }
        at += part.len() as u64;
        bytes.extend(part);
    }
    Ok(bytes)
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
