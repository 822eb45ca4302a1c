//! Floor 1. Values of rows as bytes, keys of records, and places at which a pass over rows continues.
//!
//! Values are BSON, so that every MongoDB type survives; keys sort the way MongoDB sorts strings.

use bson::{Bson, Document, RawDocument, RawDocumentBuf};

use crate::domain::record::{Kind, RecordKey};
use crate::store::error::StoreError;

pub(crate) fn encode(document: &Document) -> Result<Vec<u8>, StoreError> {
    document.to_vec().map_err(|e| StoreError::Unstorable(e.to_string()))
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Document, StoreError> {
    Document::try_from(raw(bytes)?).map_err(|e| StoreError::Damaged(e.to_string()))
}

/// Stored bytes as the document that they are, not decoded.
pub(crate) fn raw(bytes: &[u8]) -> Result<&RawDocument, StoreError> {
    RawDocument::from_bytes(bytes).map_err(|e| StoreError::Damaged(e.to_string()))
}

pub(crate) fn decode_raw(bytes: &[u8]) -> Result<RawDocumentBuf, StoreError> {
    Ok(raw(bytes)?.to_owned())
}

pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} cannot be read"))
}

pub(crate) fn row_key(key: &RecordKey) -> (u8, &str) {
    (key.kind.schema().code, key.id.as_str())
}

pub(crate) fn kind_of(code: u8) -> Result<Kind, StoreError> {
    Kind::from_code(code).ok_or_else(|| StoreError::Damaged(format!("unknown kind {code}")))
}

/// Absent and null stay apart: an absent value has no field.
pub(crate) fn insert_some(row: &mut Document, field: &str, value: &Option<Bson>) {
    if let Some(value) = value {
        row.insert(field, value.clone());
    }
}

pub(in crate::store) fn code_in(at: Option<&Document>) -> u8 {
    at.and_then(|at| at.get_i32("code").ok()).and_then(|code| u8::try_from(code).ok()).unwrap_or_default()
}

pub(in crate::store) fn text_in(at: Option<&Document>, field: &str) -> String {
    at.and_then(|at| at.get_str(field).ok()).unwrap_or_default().to_owned()
}
