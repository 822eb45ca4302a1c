//! Floor 4. Conflicts as JSON, written from the bytes that the store holds: values may have megabytes, and many may
//! be listed.

use bson::{Bson, RawBson, RawBsonRef, RawDocument};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::domain::json::{DateFormat, ShownPart, show_value};
use crate::domain::record::fold_account;
use crate::domain::same_meaning::{same_edit, same_meaning};
use crate::domain::schema::Owner;
use crate::domain::value::same_option;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;
use crate::store::{Conflict, ConflictStatus, Snapshot, StoreError, Subject, stands_name};

/// Largest value that a list shows, in bytes of BSON. In the place of a larger one stand its type and size.
pub(crate) const LIST_VALUE_BYTES_MAX: usize = 2 * 1024;

/// A conflict about a value.
pub(crate) struct ConflictView<'a> {
    /// Without values and notes.
    pub(crate) head: &'a Conflict,
    /// As it is stored.
    row: &'a RawDocument,
    /// The record that it is about.
    record: Option<&'a RawDocument>,
    dates: DateFormat,
    /// Largest value that is shown; `None` if all are.
    value_bytes_max: Option<usize>,
}

impl<'a> ConflictView<'a> {
    /// Account of the person whose record the conflict is about.
    pub(crate) fn owner(&self) -> Option<String> {
        let schema = self.head.key.kind.schema();
        let side = |name: &str| self.row.get_document(name).ok().filter(|_| self.head.path.is_empty());
        [self.record, side("local"), side("central")].into_iter().flatten().find_map(|d| schema.owner_in(d))
    }

    /// The accounts that its versions name, as whole records or as values of the field that names the owner; each may be
    /// somebody else's.
    pub(crate) fn owners(&self) -> Vec<String> {
        let schema = self.head.key.kind.schema();
        let named = |name| match (self.head.path.as_slice(), schema.owner) {
            ([], _) => schema.owner_in(self.row.get_document(name).ok()?),
            ([path], Owner::Field(field)) if path == field => self.row.get_str(name).ok().map(fold_account),
            _ => None,
        };
        ["base", "local", "central"].into_iter().filter_map(named).collect()
    }

    /// What the record holds now at the conflict's path, or in place of what the path goes through.
    fn current(&self) -> Option<RawBsonRef<'a>> {
        let mut found = RawBsonRef::Document(self.record?);
        for step in &self.head.path {
            let RawBsonRef::Document(document) = found else { break };
            found = document.get(step).ok()??;
        }
        Some(found)
    }

    /// The version of the conflict together with the value that it is about.
    pub(crate) fn etag(&self) -> String {
        etag(self.head, self.current())
    }

    fn side(&self, name: &str) -> Option<RawBsonRef<'a>> {
        self.row.get(name).ok().flatten()
    }

    /// Whether the conflict is between two values that mean the same. Where both sides had agreed on a value before, another
    /// spelling of a name is an edit.
    pub(crate) fn is_equal_by_meaning(&self) -> bool {
        let (Some(local), Some(central)) = (self.side("local"), self.side("central")) else {
            return false;
        };
        // A value that is not here is only described.
        let is_comparable = self.head.subject == Subject::Value && !self.head.is_withheld;
        let schema = self.head.key.kind.schema();
        let is_same = if self.side("base").is_some() { same_edit } else { same_meaning };
        is_comparable
            && matches!((Bson::try_from(local), Bson::try_from(central)), (Ok(local), Ok(central))
                if is_same(schema, &self.head.path, &local, &central))
    }

    /// Whether the record holds something else by now than what the conflict left standing.
    fn has_moved(&self) -> bool {
        if self.head.subject != Subject::Value {
            return false;
        }
        let standing = self.side(stands_name(self.head.stands));
        match (standing, self.current()) {
            (None, None) => false,
            (Some(a), Some(b)) => {
                let value = |raw: RawBsonRef<'_>| Bson::try_from(raw).ok();
                !same_option(value(a).as_ref(), value(b).as_ref())
            }
            _ => true,
        }
    }

    /// The values, by name.
    fn values(&self) -> impl Iterator<Item = (&'static str, RawBsonRef<'a>)> {
        let sides = ["base", "local", "central"].map(|name| (name, self.row.get(name).ok().flatten()));
        let all = sides.into_iter().chain([("current", self.current())]);
        all.filter_map(|(name, value)| Some((name, value?)))
    }

    fn notes(&self) -> Vec<NoteView<'a>> {
        let notes = self.row.get_array("notes").ok().into_iter().flatten();
        let notes = notes.filter_map(|note| note.ok()?.as_document());
        notes.map(|note| NoteView { note, value: self.part(note.get("value").ok().flatten()) }).collect()
    }

    fn part(&self, value: Option<RawBsonRef<'a>>) -> Option<PartView<'a>> {
        let schema = self.head.key.kind.schema();
        let hidden = if self.head.path.is_empty() { schema.secret_fields } else { &[] };
        let value = value.filter(|_| !self.head.is_secret())?;
        let part = ShownPart { value, dates: self.dates, hidden };
        Some(PartView { part, bytes_max: self.value_bytes_max })
    }
}

impl Serialize for ConflictView<'_> {
    /// Absent values have no field; secrets are never shown.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = self.head;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &head.id)?;
        map.serialize_entry("type", head.subject.name())?;
        map.serialize_entry("collection", head.key.kind.schema().collection)?;
        map.serialize_entry("record", &head.key.id)?;
        map.serialize_entry("path", &head.path)?;
        map.serialize_entry("stands", stands_name(head.stands))?;
        map.serialize_entry("status", head.status.name())?;
        if !head.author.is_empty() {
            map.serialize_entry("author", &head.author)?;
        }
        if let Some(at_ms) = head.edited_at_ms {
            map.serialize_entry("edited_at", &crate::sync::time_text(at_ms))?;
        }
        if let Some(author) = &head.central_author {
            map.serialize_entry("central_author", author)?;
        }
        if let Some(at) = &head.central_edited_at {
            map.serialize_entry("central_edited_at", at)?;
        }
        map.serialize_entry("found_at", &crate::sync::time_text(head.found_at_ms))?;
        map.serialize_entry("etag", &self.etag())?;
        if let Some(resolution) = &head.resolution {
            map.serialize_entry("resolution", resolution)?;
            map.serialize_entry("resolved_by", &head.resolved_by)?;
            map.serialize_entry("resolved_at", &head.resolved_at_ms.map(crate::sync::time_text))?;
        }
        let notes = self.notes();
        if !notes.is_empty() {
            map.serialize_entry("notes", &notes)?;
        }
        if head.is_secret() {
            map.serialize_entry("secret", &true)?;
        }
        if head.status == ConflictStatus::Open {
            if self.is_equal_by_meaning() {
                map.serialize_entry("equal_by_meaning", &true)?;
            }
            if self.has_moved() {
                map.serialize_entry("changed_since", &true)?;
            }
        }
        for (name, value) in self.values() {
            if let Some(part) = self.part(Some(value)) {
                map.serialize_entry(name, &part)?;
            }
        }
        map.end()
    }
}

/// A value, or its type and size if it is too large.
struct PartView<'a> {
    part: ShownPart<'a>,
    bytes_max: Option<usize>,
}

impl Serialize for PartView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.bytes_max, size_of(self.part.value)) {
            (Some(max), Some((kind, bytes))) if bytes > max => truncated(kind, bytes).serialize(serializer),
            _ => self.part.serialize(serializer),
        }
    }
}

/// A decision that was not carried out, or no longer counts.
struct NoteView<'a> {
    note: &'a RawDocument,
    value: Option<PartView<'a>>,
}

impl Serialize for NoteView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |field: &str| self.note.get_str(field).unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("reason", text("reason"))?;
        map.serialize_entry("resolution", text("resolution"))?;
        map.serialize_entry("resolved_by", text("by"))?;
        map.serialize_entry("at", &crate::sync::time_text(self.note.get_i64("at").unwrap_or_default()))?;
        if let Some(value) = &self.value {
            map.serialize_entry("value", value)?;
        }
        map.end()
    }
}

/// What stands in the place of a value that is too large for a list.
pub(crate) fn truncated(kind: &str, bytes: usize) -> Value {
    json!({"truncated": {"type": kind, "bytes": bytes}})
}

/// Type and bytes of a value whose size has no bound.
fn size_of(value: RawBsonRef<'_>) -> Option<(&'static str, usize)> {
    match value {
        RawBsonRef::String(text) => Some(("string", text.len())),
        RawBsonRef::Document(document) => Some(("object", document.as_bytes().len())),
        RawBsonRef::Array(array) => Some(("array", array.as_bytes().len())),
        RawBsonRef::Binary(binary) => Some(("binData", binary.bytes.len())),
        RawBsonRef::JavaScriptCode(code) | RawBsonRef::Symbol(code) => Some(("string", code.len())),
        _ => None,
    }
}

/// The version of a conflict together with the value that it is about.
fn etag(head: &Conflict, current: Option<RawBsonRef<'_>>) -> String {
    let mut digest = Sha256::new();
    for text in [head.id.as_str(), head.status.name()] {
        digest.update(text);
        digest.update([0]);
    }
    digest.update(head.found_at_ms.to_le_bytes());
    if let Some(current) = current {
        digest.update([current.element_type() as u8]);
        match current {
            RawBsonRef::String(text) => digest.update(text),
            RawBsonRef::Document(document) => digest.update(document.as_bytes()),
            RawBsonRef::Array(array) => digest.update(array.as_bytes()),
            RawBsonRef::Binary(binary) => {
                digest.update([u8::from(binary.subtype)]);
                digest.update(binary.bytes);
            }
            small => digest.update(bson::rawdoc! {"": small}.as_bytes()),
        }
    }
    format!("\"{}\"", hex::encode(&digest.finalize()[..16]))
}

/// The tag of [`ConflictView::etag`] of a conflict as it is in a transaction; `None` if the value is none of MongoDB's.
pub(crate) fn etag_of(conflict: &Conflict, current: Option<&Bson>) -> Option<String> {
    let current = current.map(|current| RawBson::try_from(current.clone())).transpose().ok()?;
    Some(etag(conflict, current.as_ref().map(RawBson::as_raw_bson_ref)))
}

/// Looks at a conflict about a value with the record that it is about; `None` if there is no such conflict. A list shows it
/// without its record where that is damaged, and is not stopped by it.
pub(crate) fn visit<T>(
    node: &AppState,
    snapshot: &Snapshot,
    id: &str,
    value_bytes_max: Option<usize>,
    visit: impl FnOnce(&ConflictView<'_>) -> T,
) -> Result<Option<T>, ApiError> {
    let is_in_list = value_bytes_max.is_some();
    let dates = node.settings.date_format;
    let visited = snapshot.visit_conflict(id, |head, row| {
        let mut visit = Some(visit);
        let mut look = |record: Option<&RawDocument>| {
            let visit = visit.take()?;
            Some(visit(&ConflictView { head: &head, row, record, dates, value_bytes_max }))
        };
        match snapshot.visit_record(&head.key, &mut look) {
            Err(StoreError::DamagedRow(_)) if is_in_list => Ok(look(None)),
            looked => looked,
        }
    });
    match visited {
        Err(StoreError::DamagedRow(_)) if is_in_list => Ok(None),
        visited => Ok(visited?.transpose()?.flatten()),
    }
}

/// JSON text of about `bytes` bytes, written into one piece of memory.
pub(crate) fn text_of(value: &impl Serialize, bytes: usize) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut text, value).map_err(|e| StoreError::Damaged(e.to_string()))?;
    Ok(text)
}

impl ConflictView<'_> {
    /// The JSON text.
    pub(crate) fn text(&self) -> Result<Vec<u8>, ApiError> {
        let shown = |(_, value)| size_of(value).map_or(0, |(_, bytes)| bytes);
        let fits = |bytes: &usize| self.value_bytes_max.is_none_or(|max| *bytes <= max);
        let values: usize = self.values().map(shown).filter(fits).sum();
        // Escapes and notes may need more, and rarely do.
        text_of(self, values + values / 16 + 2 * LIST_VALUE_BYTES_MAX)
    }
}

fn shown_value(node: &AppState, conflict: &Conflict, value: &Bson) -> Value {
    match value {
        Bson::Document(body) if conflict.path.is_empty() => {
            let shown = conflict.key.kind.schema().without_secrets(body);
            show_value(&Bson::Document(shown), node.settings.date_format)
        }
        value => show_value(value, node.settings.date_format),
    }
}

/// Decisions that were not carried out, or no longer count.
pub(crate) fn shown_notes(node: &AppState, conflict: &Conflict) -> Value {
    let notes = conflict.notes.iter().map(|note| {
        let mut shown = json!({
            "reason": note.reason,
            "resolution": note.resolution,
            "resolved_by": note.by,
            "at": crate::sync::time_text(note.at_ms),
        });
        if let Some(value) = note.value.as_ref().filter(|_| !conflict.is_secret()) {
            shown["value"] = shown_value(node, conflict, value);
        }
        shown
    });
    notes.collect()
}
