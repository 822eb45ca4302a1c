//! Floor 5. Rows that stand within something else: in a list that an object has as a member, as APIs answer, or in a list
//! within a list.
//!
//! An object is taken for a wrapping only if its list is called so (`LIST_NAMES`, a function of JSON, or a kind of record)
//! and nothing in it names a record: a record may have lists of objects itself.

use std::io::{self, BufRead, Cursor};

use serde_json::{Map, Value};

use super::reader::{Found, Raw};
use super::sources::kind_in_thalamus;
use crate::cli::archive::ndjson::{Documents, Text, Wrong, is_plain_value, is_without_records};
use crate::domain::exported::is_json_function;
use crate::domain::json::parse;
use crate::domain::record::Kind;

/// What programs call a list of rows, besides the names of collections.
const LIST_NAMES: &[&str] =
    &["data", "rows", "result", "results", "items", "records", "documents", "docs", "entries", "list"];
/// The names of lists that may stand an object deeper: a record may call a list of its own `documents`.
const INNER_LIST_NAMES: &[&str] = &["rows", "data"];
/// Texts that may stand beside the list. Any other text may be a field of a record that lacks its id.
const TEXTS_BESIDE: &[&str] = &[
    "status",
    "message",
    "msg",
    "code",
    "version",
    "next",
    "previous",
    "prev",
    "first",
    "last",
    "self",
    "href",
    "url",
    "database",
    "schema",
    "collection",
    "table",
];
/// Most objects around a list.
const DEPTH_MAX: usize = 4;

/// What surrounds the rows of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// The text is no wrapping.
    None,
    /// `before` bytes stand before the list, and so many objects are open there.
    List { before: usize, depth: usize },
    /// The list is called after another kind of record.
    OfOthers(String),
}

/// Looks for a list of rows in the object that a text begins with. Of a long file the text is only the beginning.
pub(super) fn wrapping_of(text: &[u8], kind: Kind) -> Wrapping {
    let found = (Scan { text, at: 0, kind }).object(1).unwrap_or(Wrapping::None);
    if found == Wrapping::None {
        return Wrapping::None;
    }
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let text = text.get(start..).unwrap_or_default();
    match end_of_value(text) {
        Some(length) if !is_all_around(text.get(..length).unwrap_or_default()) => Wrapping::None,
        _ => found,
    }
}

/// [`wrapping_of`] of a file, of which `head` is the beginning. What stands behind a long list says too whether it is a
/// record's: `again` reads the file a second time.
pub(super) fn wrapping_of_file<R: BufRead>(
    head: &[u8],
    kind: Kind,
    again: impl FnOnce() -> io::Result<R>,
) -> io::Result<Wrapping> {
    let found = wrapping_of(head, kind);
    let Wrapping::List { before, depth } = found else {
        return Ok(found);
    };
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    if head.get(start..).and_then(end_of_value).is_some() {
        return Ok(found);
    }
    let Some(rest) = Documents::rest_of_member(again()?, before, depth)? else {
        return Ok(found);
    };
    let without_list = [head.get(..before).unwrap_or_default(), b"[]", &rest].concat();
    Ok(if is_all_around(&without_list) { found } else { Wrapping::None })
}

/// Whether a text is an object around a list; also if it cannot be read.
fn is_all_around(text: &[u8]) -> bool {
    match parse(text) {
        Ok(Value::Object(fields)) => is_around(&fields),
        _ => true,
    }
}

/// What is said besides where an object was taken for a record, and refused, that may be an answer around rows.
pub(super) fn hint_of_rows(fields: &Map<String, Value>) -> Option<String> {
    let is_of_rows = |name: &str, value: &Value| {
        let is_list = value.as_array().is_some_and(|rows| rows.first().is_some_and(Value::is_object));
        is_list && LIST_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    let (list, _) = fields.iter().find(|(name, value)| !names_record(fields) && is_of_rows(name, value))?;
    Some(format!(
        "; if the rows are in `{list}`, take that list out of the file: what stands beside it may be of a record (jq .{list})"
    ))
}

/// Whether an object has nothing but lists and what may stand beside them.
fn is_around(fields: &Map<String, Value>) -> bool {
    !names_record(fields)
        && fields.iter().all(|(name, value)| match value {
            // Without a list in it, it only describes the rows.
            Value::Object(fields) => is_around(fields) || is_plain_value(value),
            Value::String(_) => is_text_beside(name),
            _ => true,
        })
}

fn is_text_beside(name: &str) -> bool {
    TEXTS_BESIDE.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn names_record(fields: &Map<String, Value>) -> bool {
    fields.contains_key("_id") || fields.contains_key("id")
}

/// What the operator is told of a list of another kind.
pub(super) fn of_others(name: &str, kind: Kind) -> String {
    format!(
        "the rows are called `{name}`, and the file is of {}: nothing of them was read; call the file after them, or say \
         --collection",
        kind.schema().collection
    )
}

/// A place in a text that begins with an object.
struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    kind: Kind,
}

impl<'t> Scan<'t> {
    /// Reads the members of an object up to the list of rows; `None` if there is none, or the text ends before.
    fn object(&mut self, depth: usize) -> Option<Wrapping> {
        self.sign(b'{')?;
        let mut is_first = true;
        loop {
            let name = self.name()?;
            self.sign(b':')?;
            if matches!(name, "id" | "_id") {
                return None;
            }
            match self.next()? {
                b'[' if self.is_list_name(name, depth) => return self.list(name, depth, is_first),
                b'{' if self.is_list_name(name, depth) && depth < DEPTH_MAX => return self.object(depth + 1),
                _ => self.skip_beside(name)?,
            }
            self.sign(b',')?;
            is_first = false;
        }
    }

    /// Whether what is called so may be the list, or an object around it.
    fn is_list_name(&self, name: &str, depth: usize) -> bool {
        let names = if depth == 1 { LIST_NAMES } else { INNER_LIST_NAMES };
        names.iter().any(|known| known.eq_ignore_ascii_case(name))
            || is_json_function(name)
            || kind_in_thalamus(name).is_some()
    }

    fn list(&self, name: &str, depth: usize, is_first: bool) -> Option<Wrapping> {
        let first = self.text.get(self.at + 1..)?.trim_ascii_start().first()?;
        if !b"{[]".contains(first) {
            return None;
        }
        match kind_in_thalamus(name) {
            // Behind other members it may be a field: pages have `measurements`.
            Some(other) if other != self.kind => is_first.then(|| Wrapping::OfOthers(name.to_owned())),
            _ => Some(Wrapping::List { before: self.at, depth }),
        }
    }

    /// Passes over a value that may stand beside the list; `None` if it may not.
    fn skip_beside(&mut self, name: &str) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        let length = match rest.first()? {
            b'"' if !is_text_beside(name) => return None,
            b'"' => 1 + end_of_string(rest.get(1..)?)?,
            b'{' => {
                let length = end_of_value(rest)?;
                is_without_records(rest.get(1..length)?, 1).then_some(length)?
            }
            b'[' if rest.get(1..)?.trim_ascii_start().starts_with(b"]") => end_of_value(rest)?,
            b'[' => return None,
            // A number, true, false or null: how many there are, or the like.
            _ => rest.iter().position(|byte| b",}]{[\":".contains(byte))?,
        };
        self.at += length;
        Some(())
    }

    /// A name in quotation marks; none of those that are looked for has an escape in it.
    fn name(&mut self) -> Option<&'t str> {
        self.sign(b'"')?;
        let rest = self.text.get(self.at..)?;
        let length = end_of_string(rest)?;
        self.at += length;
        std::str::from_utf8(rest.get(..length - 1)?).ok()
    }

    fn sign(&mut self, sign: u8) -> Option<()> {
        (self.next()? == sign).then(|| self.at += 1)
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        let rest = self.text.get(self.at..)?;
        let blank = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        self.at += blank;
        rest.get(blank).copied()
    }
}

/// How long a string is without its first quotation mark, with its last.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    let end = text.iter().position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    Some(end? + 1)
}

/// How long the object or list is with which a text begins; `None` if it does not end.
fn end_of_value(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        match text.get(at)? {
            b'"' => at += end_of_string(text.get(at + 1..)?)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The rows in a text that was read as one: itself, or those that it wraps.
pub(super) fn rows_in(text: Text, kind: Kind) -> Vec<Found> {
    rows_at(text, kind, 0)
}

fn rows_at(text: Text, kind: Kind, depth: usize) -> Vec<Found> {
    let place = text.place;
    let documents = match text.bytes.first() {
        _ if depth > DEPTH_MAX => return vec![Ok(Raw::Json(text))],
        Some(b'{') => match wrapping_of(&text.bytes, kind) {
            Wrapping::None => return vec![Ok(Raw::Json(text))],
            Wrapping::OfOthers(name) => return vec![Err(Wrong { place, message: of_others(&name, kind) })],
            Wrapping::List { before, depth } => {
                // Objects may follow each other with a comma between them.
                let mut bytes = text.bytes;
                let end = bytes.trim_ascii_end();
                bytes.truncate(end.strip_suffix(b",").unwrap_or(end).len());
                Documents::of_member(Cursor::new(bytes), place, before, depth)
            }
        },
        Some(b'[') if is_list_of_rows(&text.bytes, kind) => {
            Ok(Documents::starting_at(Cursor::new(text.bytes), place))
        }
        _ => return vec![Ok(Raw::Json(text))],
    };
    let fault = |error: io::Error| Wrong { place, message: error.to_string() };
    let documents = match documents {
        Ok(documents) => documents,
        Err(error) => return vec![Err(fault(error))],
    };
    let mut rows = Vec::new();
    for found in documents {
        match found.map_err(fault).and_then(|found| found) {
            Ok(text) => rows.append(&mut rows_at(text, kind, depth + 1)),
            Err(wrong) => rows.push(Err(wrong)),
        }
    }
    // An empty list where a row belongs is none, and no reason to pass over it in silence.
    if rows.is_empty() && depth > 0 {
        rows.push(Err(Wrong { place, message: "an empty list stands where a row belongs".to_owned() }));
    }
    rows
}

/// Whether a list that stands where a row belongs holds rows itself: nothing but lists, several documents that each
/// name their record, or one object around a list.
fn is_list_of_rows(text: &[u8], kind: Kind) -> bool {
    let mut scan = Scan { text, at: 0, kind };
    let mut elements = Vec::new();
    let mut read = || {
        scan.sign(b'[')?;
        while b"{[".contains(&scan.next()?) {
            let rest = text.get(scan.at..)?;
            let length = end_of_value(rest)?;
            elements.push(rest.get(..length)?);
            scan.at += length;
            match scan.next()? {
                b',' => scan.at += 1,
                _ => break,
            }
        }
        scan.sign(b']')
    };
    if read().is_none() {
        return false;
    }
    let names_itself = |element: &&[u8]| match parse(element) {
        Ok(Value::Object(fields)) => names_record(&fields),
        _ => false,
    };
    match elements.as_slice() {
        [] => false,
        [only] if only.starts_with(b"{") => wrapping_of(only, kind) != Wrapping::None,
        elements if elements.iter().all(|element| element.starts_with(b"[")) => true,
        elements => elements.iter().all(names_itself),
    }
}

#[cfg(test)]
mod tests;
