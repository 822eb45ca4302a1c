//! Floor 5. A row of a file made the record that is stored.

use bson::{Bson, Document, doc};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::reader::Raw;
use super::wrapping::hint_of_rows;
use crate::cli::archive::ndjson::{Place, Text, Wrong, document_of, read_value};
use crate::domain::content::{CONTENT_FIELD, Content, has_content, media_type_of};
use crate::domain::exported::{Taken, take, take_list, take_row};
use crate::domain::record::Kind;

/// A record on its way into the store.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) id: String,
    pub(super) document: Document,
    /// The bytes of a document and their SHA-256, if the file has them.
    pub(super) content: Option<(String, Vec<u8>)>,
    /// Why a document came without bytes; `None` if the file has them or says that there are none.
    pub(super) missing: Option<MissingBytes>,
}

/// Why a document came without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingBytes {
    /// The file says nothing of bytes.
    Unsaid,
    /// It came with bytes, which are not those that its `hash` is of.
    OtherThanHash,
    /// The field `document` is text of another form than PostgreSQL's hexadecimal digits, perhaps base64.
    FlatText,
}

/// What holds for all rows of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) kind: Kind,
    /// The person that the operator says they are of.
    pub(crate) owner: Option<&'a str>,
    /// Most bytes of a document.
    pub(crate) content_bytes_max: u64,
}

/// Makes a record of a row, or says why it is none.
pub(super) fn read_item(raw: Raw, rules: Rules<'_>) -> Result<Item, Wrong> {
    match raw {
        Raw::Json(text) => read_text(&text, rules),
        Raw::Row { place, columns, cells } => take_row(rules.kind, columns.as_deref(), cells, rules.owner)
            .and_then(|taken| item_of(taken, place, rules))
            .map_err(|message| Wrong { place, message }),
    }
}

/// The same for a text of JSON.
pub(super) fn read_text(text: &Text, rules: Rules<'_>) -> Result<Item, Wrong> {
    let mut hint = None;
    let taken = match read_value(text)? {
        Value::Object(fields) => {
            hint = hint_of_rows(&fields);
            take(rules.kind, fields, rules.owner)
        }
        Value::Array(values) => take_list(rules.kind, values, rules.owner),
        _ => Err("expected a document, or a row of a table".to_owned()),
    };
    let place = text.place;
    let said = |message: String| Wrong { place, message: message + &hint.unwrap_or_default() };
    taken.and_then(|taken| item_of(taken, place, rules)).map_err(said)
}

/// The document that `import` makes of a line of an export.
pub(crate) fn read_exported(kind: Kind, text: &Text) -> Result<Document, Wrong> {
    let rules = Rules { kind, owner: None, content_bytes_max: u64::MAX };
    read_text(text, rules).map(|item| item.document)
}

fn item_of(taken: Taken, place: Place, rules: Rules<'_>) -> Result<Item, String> {
    let Taken { fields, bytes, tells_bytes, is_other_than_hash } = taken;
    let mut document = document_of(rules.kind, fields)?;
    let content = match bytes {
        Some(bytes) if bytes.len() as u64 > rules.content_bytes_max => {
            return Err("document: more bytes than api.content_limit_bytes allows".to_owned());
        }
        Some(bytes) => Some(named_content(rules.kind, &mut document, bytes)?),
        None => None,
    };
    let is_without = has_content(rules.kind)
        && content.is_none()
        && !tells_bytes
        && Content::of(rules.kind, &document).is_none()
        && !matches!(document.get("document"), Some(Bson::Binary(_) | Bson::Null));
    let id = document.get_str("_id").unwrap_or_default().to_owned();
    let is_flat = matches!(document.get("document"), Some(Bson::String(text)) if !text.is_empty());
    let missing = is_without.then_some(if is_flat { MissingBytes::FlatText } else { MissingBytes::Unsaid });
    let missing = missing.or(is_other_than_hash.then_some(MissingBytes::OtherThanHash));
    Ok(Item { place, id, document, content, missing })
}

/// Has the document name its bytes.
fn named_content(kind: Kind, document: &mut Document, bytes: Vec<u8>) -> Result<(String, Vec<u8>), String> {
    let sha256 = hex::encode(Sha256::digest(&bytes));
    match (Content::of(kind, document), document.contains_key(CONTENT_FIELD)) {
        (Some(content), _) if content.sha256 == sha256 => {}
        (None, false) => {
            let media_type = media_type_of(&bytes, document.get_str("extension").unwrap_or_default());
            let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            document.insert(CONTENT_FIELD, doc! {"sha256": &sha256, "length": length, "type": media_type});
        }
        _ => return Err("document: its bytes are others than those that `content` names".to_owned()),
    }
    Ok((sha256, bytes))
}
