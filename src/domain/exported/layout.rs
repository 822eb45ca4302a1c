//! Floor 0. Which format a file of records has, told from how it begins.

use serde_json::Value;

use super::bytea::HEX_MARK;
use super::copy::{self, end_of_object, unescaped};
use crate::domain::json::parse;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// JSON, extended JSON or the shell's syntax: documents, arrays of them, or rows in arrays.
    Json,
    /// `COPY ... TO STDOUT`: cells with a tab between them, and escapes.
    Copy,
    /// The same in CSV, with this delimiter.
    Csv(u8),
    /// `psql -At`: cells with this delimiter between them, and no escapes.
    Unaligned(u8),
    /// What `pg_dump` writes.
    Dump,
    /// None that is read, and why.
    Unknown(&'static str),
}

/// Tells the format from the first bytes of a file, without a mark of byte order. `is_sql`: it is called so.
pub fn layout_of(head: &[u8], is_sql: bool) -> Layout {
    if is_sql {
        return Layout::Dump;
    }
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(head.len());
    let text = head.get(start..).unwrap_or_default();
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (line, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let is_rule = |line: &[u8]| line.starts_with(b"--") && line.iter().all(|byte| b"-+".contains(byte));
    match text {
        [] => Layout::Json,
        [b'{', ..] => match line.get(end_of_object(line)..).unwrap_or_default() {
            // Columns after `data`.
            [b'\t', rest, ..] if !b"{\" ".contains(rest) => Layout::Copy,
            [b'|', ..] => Layout::Unaligned(b'|'),
            _ => Layout::Json,
        },
        [b'[', ..] => Layout::Json,
        [b'<', ..] => Layout::Unknown("this is HTML or XML"),
        [b'-', b'[', ..] | [b'-', b' ', b'[', ..] => {
            Layout::Unknown("psql's expanded display is not read: export with psql -At or COPY ... TO STDOUT")
        }
        text if text.starts_with(b"-[ RECORD") => {
            Layout::Unknown("psql's expanded display is not read: export with psql -At or COPY ... TO STDOUT")
        }
        text if begins_dump(text) => Layout::Dump,
        [b'/', ..] => Layout::Json,
        _ if is_rule(second) => Layout::Unknown(
            "psql's tables for people are not read: export with psql -At or COPY ... TO STDOUT",
        ),
        [b'"', ..] => Layout::Csv(after_quoted(text)),
        _ => table_layout(line, second),
    }
}

fn begins_dump(text: &[u8]) -> bool {
    [&b"--\n"[..], b"--\r\n", b"-- ", b"COPY ", b"SET ", b"\\restrict", b"BEGIN;"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// The delimiter after a first cell in quotation marks.
fn after_quoted(text: &[u8]) -> u8 {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match (byte, text.get(at + 1)) {
            (b'"', Some(b'"')) => at += 2,
            (b'"', Some(delimiter)) if b",;|\t".contains(delimiter) => return *delimiter,
            (b'"', _) => break,
            _ => at += 1,
        }
    }
    b','
}

/// The format of lines whose first cell is neither JSON nor in quotation marks.
fn table_layout(line: &[u8], second: &[u8]) -> Layout {
    let at = line.iter().position(|byte| b"\t|,;".contains(byte));
    let delimiter = at.and_then(|at| line.get(at)).copied();
    let is_quoted = at.is_some_and(|at| line.get(at + 1) == Some(&b'"'));
    match delimiter {
        Some(delimiter) if is_quoted => Layout::Csv(delimiter),
        Some(b'\t') if second.contains(&b'"') && has_quoted_cell(second) => Layout::Csv(b'\t'),
        Some(b'\t') => Layout::Copy,
        Some(b'|') => Layout::Unaligned(b'|'),
        Some(delimiter) => Layout::Csv(delimiter),
        None if line == b"\\N" || line == copy::END => Layout::Copy,
        None => match second.first() {
            Some(b'"') => Layout::Csv(b','),
            Some(b'{' | b'(') => Layout::Unaligned(b'|'),
            _ => Layout::Unknown("neither JSON nor rows of a table"),
        },
    }
}

/// Whether a cell begins with JSON in quotation marks.
fn has_quoted_cell(line: &[u8]) -> bool {
    line.windows(3).any(|three| three == b"\t\"{") || line.starts_with(b"\"{")
}

/// What a line says about whether the backslashes of its JSON are escaped once more, as COPY does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// It would be the same either way.
    Nothing,
    /// As JSON has them.
    Once,
    /// As COPY writes them.
    Twice,
    /// Both can be read, and are different documents.
    Either,
}

/// Looks at one line whose JSON may be escaped.
pub fn escapes_of(line: &[u8]) -> Escapes {
    let mut cells = line.split(|byte| *byte == b'\t');
    if line == copy::END || cells.clone().any(|cell| cell == b"\\N" || cell.starts_with(b"\\\\x")) {
        return Escapes::Twice;
    }
    if cells.clone().any(|cell| cell.starts_with(b"\\x")) {
        return Escapes::Once;
    }
    let json = cells.find(|cell| cell.trim_ascii_start().starts_with(b"{") || cell.starts_with(b"["));
    let json = json.or_else(|| line.iter().position(|byte| *byte == b'{').and_then(|at| line.get(at..)));
    let Some(json) = json.filter(|json| json.contains(&b'\\')) else {
        return Escapes::Nothing;
    };
    let json = json.get(..end_of_object(json)).unwrap_or(json);
    if has_what_copy_never_writes(json) {
        return Escapes::Once;
    }
    let once = parse(json).ok();
    let twice = unescaped(json).and_then(|text| parse(&text).ok());
    match (once, twice) {
        (None, None) => Escapes::Nothing,
        (Some(_), None) => Escapes::Once,
        (None, Some(_)) => Escapes::Twice,
        (Some(a), Some(b)) if a == b => Escapes::Nothing,
        // The bytes of a document begin with one backslash.
        (Some(_), Some(b)) if has_bytes(&b) => Escapes::Twice,
        (Some(a), Some(_)) if has_bytes(&a) => Escapes::Once,
        (Some(_), Some(_)) => Escapes::Either,
    }
}

/// Whether a backslash that no other one belongs to stands before a sign of which COPY makes no escape: it doubles the
/// backslashes of JSON, so that there is an even number of them before such a sign.
fn has_what_copy_never_writes(json: &[u8]) -> bool {
    let mut is_escaped = false;
    for byte in json {
        match byte {
            b'\\' => is_escaped = !is_escaped,
            b'u' | b'"' | b'/' if is_escaped => return true,
            _ => is_escaped = false,
        }
    }
    false
}

/// Whether a row, or the first of a list, has bytes as PostgreSQL writes them.
fn has_bytes(row: &Value) -> bool {
    let row = row.get(0).unwrap_or(row);
    let document = row.get("document").and_then(Value::as_str);
    document.is_some_and(|text| text.starts_with(HEX_MARK))
}

/// Whether a line may be a row in JSON that came from PostgreSQL, where COPY escapes it. Others, as mongoexport and
/// `export` write them, were never escaped: they begin with `_id` and have no blank after it.
pub fn may_be_copied(line: &[u8]) -> bool {
    let row = line.strip_prefix(b"[").map_or(line, <[u8]>::trim_ascii_start);
    // Pretty printed: COPY writes a row in one line.
    let begins = row.strip_prefix(b"{").filter(|rest| !rest.trim_ascii().is_empty());
    begins.is_some_and(|rest| {
        !rest.starts_with(b"\"_id\":\"") && !rest.starts_with(b"\"_id\":{") && !rest.starts_with(b" \"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_their_beginning() {
        for (text, layout) in [
            ("", Layout::Json),
            (" \n {\"a\": 1}", Layout::Json),
            ("[[{}]]", Layout::Json),
            ("/* 1 */\n{}", Layout::Json),
            ("// x\n{}", Layout::Json),
            ("{\n\t\"_id\": 1}", Layout::Json),
            ("{\"id\": \"A\"}\t{}", Layout::Json),
            ("{\"id\": \"A\"}\tA", Layout::Copy),
            ("{\"id\": \"A\"}|A", Layout::Unaligned(b'|')),
            ("A\t{\"id\": \"A\"}", Layout::Copy),
            ("id\tdata\nA\t{}", Layout::Copy),
            ("id\tdata\nA\t\"{\"\"id\"\"}\"", Layout::Csv(b'\t')),
            ("\\N\n{}", Layout::Copy),
            ("A,\"{\"\"id\"\": \"\"A\"\"}\"", Layout::Csv(b',')),
            ("id;data\nA;\"{}\"", Layout::Csv(b';')),
            ("\"{\"\"id\"\": \"\"A\"\"}\"\n", Layout::Csv(b',')),
            ("\"A\"\"\";\"{}\"", Layout::Csv(b';')),
            ("data\r\n\"{}\"", Layout::Csv(b',')),
            ("A|{}", Layout::Unaligned(b'|')),
            ("data\n{}", Layout::Unaligned(b'|')),
            ("data\n(0 rows)", Layout::Unaligned(b'|')),
            ("--\n-- PostgreSQL database dump\n--", Layout::Dump),
            ("COPY public.people (id, data) FROM stdin;", Layout::Dump),
        ] {
            assert_eq!(layout_of(text.as_bytes(), false), layout, "{text}");
        }
        for text in [
            " id | data\n----+------\n A | {}",
            "-[ RECORD 1 ]",
            "<!doctype html>",
            "Unauthorized Access",
            "null",
        ] {
            assert!(matches!(layout_of(text.as_bytes(), false), Layout::Unknown(_)), "{text}");
        }
        assert_eq!(layout_of(b"/* People table */", true), Layout::Dump);
    }

    #[test]
    fn escapes_are_told_by_what_can_be_read() {
        for (line, escapes) in [
            (r#"{"a": "x"}"#, Escapes::Nothing),
            (r#"{"a": "x\ny"}"#, Escapes::Once),
            (r#"{"a": "\"x"}"#, Escapes::Once),
            (r#"{"a": "N\u00fa\u00f1ez"}"#, Escapes::Once),
            (r#"{"a": "a\/b"}"#, Escapes::Once),
            (r#"{"a": "C:\\"}"#, Escapes::Once),
            (r#"{"a": "\\"x"}"#, Escapes::Twice),
            (r#"{"a": "x\\ny"}"#, Escapes::Either),
            (r#"{"a": "C:\\Users"}"#, Escapes::Once),
            (r#"{"a": "C:\\\\new"}"#, Escapes::Either),
            (r#"A	{"a": "\\"x"}"#, Escapes::Twice),
            (r#"[{"a": "\\"x"}, \n {}]"#, Escapes::Twice),
            (r#"[{"a": "x\\ny"}]"#, Escapes::Either),
            (r#"{"id":"D","document":"\\xff","data":{}}"#, Escapes::Once),
            (r#"{"id":"D","document":"\\\\xff","data":{}}"#, Escapes::Twice),
            (r#"[{"id":"D","document":"\\\\xff","data":{}}]"#, Escapes::Twice),
            ("D\t\\xff\t{}", Escapes::Once),
            ("D\t\\\\xff\t{}", Escapes::Twice),
            ("\\N\t{}", Escapes::Twice),
            ("\\.", Escapes::Twice),
        ] {
            assert_eq!(escapes_of(line.as_bytes()), escapes, "{line}");
        }
        for (line, may_be) in [
            (r#"{"id": "A", "n": 1}"#, true),
            (r#"{"id":"A","data":{"id": "A"}}"#, true),
            (r#"{"a": "\\"}{x"}"#, true),
            (r#"{"_id": "A"}"#, true),
            (r#"[{"id": "A"}]"#, true),
            (r#"[{"_id":"A"}]"#, false),
            ("[", false),
            (r#"{"_id":"A","n":1}"#, false),
            (r#"{ "_id" : "A", "n" : 1 }"#, false),
            ("{", false),
            ("", false),
        ] {
            assert_eq!(may_be_copied(line.as_bytes()), may_be, "{line}");
        }
    }
}
