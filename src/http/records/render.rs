//! Floor 4. The JSON text of a record, its hidden fields, and its path.

use std::io::Write;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bson::{Document, RawDocument};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::json::Shown;
use crate::domain::schema::{Schema, Shape};
use crate::http::access::caller::Caller;
use crate::http::error::ApiError;
use crate::http::records::etag::etag;
use crate::http::state::app_state::AppState;
use crate::http::workload::{Work, is_large, reading};
use crate::store::StoreError;

/// What making text of a large record takes, if that is not covered. Without `work` by its length, and with it as it is:
/// text with many signs that are written as escapes is several times as long.
pub(crate) fn uncovered(
    node: &AppState,
    record: &RawDocument,
    hidden: &[&str],
    work: Option<&Work>,
) -> Result<Option<usize>, ApiError> {
    if !is_large(record) {
        return Ok(None);
    }
    let bytes = record.as_bytes().len();
    let Some(work) = work else {
        return Ok(Some(reading(bytes)));
    };
    let bytes = bytes.saturating_add(work.run(|| shown_bytes(node, record, hidden))?);
    Ok((!work.covers(bytes)).then_some(bytes))
}

/// Counts what is written, and keeps nothing of it.
pub(crate) struct Length(pub(crate) usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn to_document(raw: &RawDocument) -> Result<Document, ApiError> {
    Document::try_from(raw).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

/// What stands in a path as it is: the alphabet of new ids.
const PATH_CHARS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b':').remove(b'-');

/// The path of a record, by its id and the account that it belongs to.
pub(crate) fn item_path(schema: &Schema, id: &str, owner: Option<&str>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, PATH_CHARS).to_string();
    let (id, owner) = (&encoded(id), &encoded(owner.unwrap_or_default()));
    let route = schema.routes.iter().find(|route| matches!(route.shape, Shape::Item | Shape::ItemOfPerson));
    route.map_or_else(String::new, |route| match route.shape {
        Shape::ItemOfPerson => route.path.replace("{person_id}", owner).replace("{id}", id),
        _ => route.path.replace("{person_id}", id).replace("{id}", id),
    })
}

/// Fields that this caller is not shown.
pub(crate) fn hidden_fields(
    node: &AppState,
    schema: &'static Schema,
    caller: &Caller,
) -> &'static [&'static str] {
    let shows_hashes = node.settings.expose_password_hashes && caller.principal.is_root();
    if shows_hashes { &[] } else { schema.secret_fields }
}

/// The same for a read, perhaps in an emergency: that shows no hash to anybody.
pub(crate) fn hidden_from(
    node: &AppState,
    schema: &'static Schema,
    caller: &Caller,
    opening: Option<u64>,
) -> &'static [&'static str] {
    if opening.is_some() { schema.secret_fields } else { hidden_fields(node, schema, caller) }
}

/// Appends a record as clients see it.
pub(crate) fn show_into(
    node: &AppState,
    document: &RawDocument,
    hidden: &[&str],
    text: impl Write,
) -> Result<(), ApiError> {
    let shown = Shown { document, dates: node.settings.date_format, hidden };
    serde_json::to_writer(text, &shown).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

/// How many bytes [`show_into`] appends.
pub(crate) fn shown_bytes(
    node: &AppState,
    document: &RawDocument,
    hidden: &[&str],
) -> Result<usize, ApiError> {
    let mut length = Length(0);
    show_into(node, document, hidden, &mut length)?;
    Ok(length.0)
}

pub(crate) fn record_response(
    node: &AppState,
    schema: &'static Schema,
    caller: &Caller,
    record: &RawDocument,
) -> Result<Response, ApiError> {
    let hidden = hidden_fields(node, schema, caller);
    // As long as it was counted: a text that grows takes up to twice its length, which stays with the answer.
    let mut text = Vec::with_capacity(shown_bytes(node, record, hidden)?);
    show_into(node, record, hidden, &mut text)?;
    Ok(text_response(text.into(), &etag(record.as_bytes())))
}

pub(crate) fn text_response(text: Bytes, etag: &str) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], [(header::ETAG, etag)], text).into_response()
}
