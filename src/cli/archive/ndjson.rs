//! Floor 5. Files of documents as JSON: one a line as mongoexport writes them, over several lines, in arrays, or each in an
//! array of its own as APIs answer; in the syntax of MongoDB's shell too.
//!
//! Reads one document at a time, so a file may be larger than memory, and goes on after a bad one.

use std::fmt;
use std::io::{self, BufRead};

use bson::{Bson, Document};
use serde_json::{Map, Value};

use crate::accounts::is_acceptable_hash;
use crate::domain::encoding::unmarked;
use crate::domain::json::{JsonError, bson_of_extended, parse, parse_shell};
use crate::domain::record::Kind;

/// Longest document as text: canonical extended JSON takes up to five times the bytes of BSON.
pub(crate) const TEXT_BYTES_MAX: usize = 96 << 20;
/// MongoDB takes no larger document.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Longest id, so that the store's indexes and MongoDB's can hold it.
const ID_BYTES_MAX: usize = 512;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where in a file, counted from 1; columns in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// The text of one document and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    pub place: Place,
    pub bytes: Vec<u8>,
}

/// A document that cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub place: Place,
    pub message: String,
}

/// The documents of a file, in order; an `Err` of the inner kind is one bad document.
pub struct Documents<R> {
    input: R,
    place: Place,
    form: Form,
    /// How many objects are open around the array.
    depth: usize,
    /// Where a comment begins that does not end.
    comment: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Lines,
    /// In an array, before its first element.
    ArrayStart,
    /// In an array, after an element.
    Array,
    Ended,
}

impl<R: BufRead> Iterator for Documents<R> {
    type Item = io::Result<Result<Text, Wrong>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_next().transpose()
    }
}

impl<R: BufRead> Documents<R> {
    pub fn new(input: R) -> Documents<R> {
        let place = Place { line: 1, column: 1 };
        Documents { input, place, form: Form::Unknown, depth: 0, comment: None }
    }

    /// The documents of a part of a file that begins at `place`.
    pub(crate) fn starting_at(input: R, place: Place) -> Documents<R> {
        Documents { place, form: Form::Lines, ..Documents::new(input) }
    }

    /// The documents of an array that is a member of an object, as in `{"rows": [...]}`. `before` bytes stand before it, and
    /// `depth` objects are open there.
    pub(crate) fn of_member(input: R, place: Place, before: usize, depth: usize) -> io::Result<Documents<R>> {
        let mut documents = Documents::starting_at(input, place);
        for _ in 0..before {
            documents.peek()?;
            documents.bump();
        }
        documents.depth = depth;
        Ok(documents)
    }

    fn read_next(&mut self) -> io::Result<Option<Result<Text, Wrong>>> {
        if self.form == Form::Unknown {
            let begin = self.input.fill_buf()?;
            let has_mark = begin.starts_with(BYTE_ORDER_MARK);
            if let Err(error) = unmarked(begin.get(..2).unwrap_or(begin)) {
                self.form = Form::Ended;
                return Ok(Some(Err(self.wrong(&error.to_string()))));
            }
            if has_mark {
                self.input.consume(BYTE_ORDER_MARK.len());
            }
            self.form = Form::Lines;
        }
        let mut found = None;
        while found.is_none() && self.form != Form::Ended {
            found = match self.form {
                Form::ArrayStart | Form::Array => self.next_element()?,
                Form::Lines | Form::Unknown | Form::Ended => self.next_line()?,
            };
        }
        let comment = if found.is_none() { self.comment.take() } else { None };
        Ok(found.or_else(|| {
            let message = "a comment does not end; the rest was not read".to_owned();
            comment.map(|place| Err(Wrong { place, message }))
        }))
    }

    /// The next document outside of an array; `None` if there is none, or an array begins. It may take several lines, as
    /// `mongoexport --pretty` writes it; a line that begins none is one bad document.
    fn next_line(&mut self) -> io::Result<Option<Result<Text, Wrong>>> {
        self.skip_blank()?;
        // Between documents, as within an array.
        while self.peek()? == Some(b',') {
            self.bump();
            self.skip_blank()?;
        }
        match self.peek()? {
            None => {
                self.form = Form::Ended;
                return Ok(None);
            }
            Some(b'{') => return self.read_object(true, 0).map(Some),
            Some(b'[') => {
                self.bump();
                self.form = Form::ArrayStart;
                return Ok(None);
            }
            Some(_) => {}
        }
        let place = self.place;
        let mut text = Text { place, bytes: Vec::new() };
        let is_whole = self.rest_of_line(&mut text.bytes)?;
        Ok(Some(if is_whole { Ok(text) } else { Err(too_long(place)) }))
    }

    /// Appends what is left of the line; false if that is too much.
    fn rest_of_line(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let mut is_whole = true;
        while let Some(byte) = self.peek()? {
            self.bump();
            if byte == b'\n' {
                break;
            }
            is_whole &= bytes.len() < TEXT_BYTES_MAX;
            if is_whole {
                bytes.push(byte);
            }
        }
        Ok(is_whole)
    }

    /// The next element of the array; `None` if that has ended. Anything but a document or a list ends the file: no place
    /// to continue from is known.
    fn next_element(&mut self) -> io::Result<Option<Result<Text, Wrong>>> {
        self.skip_blank()?;
        if self.form == Form::Array {
            match self.peek()? {
                Some(b',') => {
                    self.bump();
                    self.skip_blank()?;
                }
                Some(b']') => {}
                _ => {
                    self.form = Form::Ended;
                    let message = "expected `,` or `]` in the array; the rest was not read";
                    return Ok(Some(Err(self.wrong(message))));
                }
            }
        }
        self.form = Form::Array;
        match self.peek()? {
            Some(b']') => self.end_array(),
            Some(b'{' | b'[') => self.read_object(false, 0).map(Some),
            _ => {
                self.form = Form::Ended;
                Ok(Some(Err(self.wrong("expected a document in the array; the rest was not read"))))
            }
        }
    }

    /// After the last element. Another array or document may follow.
    fn end_array(&mut self) -> io::Result<Option<Result<Text, Wrong>>> {
        self.bump();
        self.form = Form::Lines;
        let depth = std::mem::take(&mut self.depth);
        if depth > 0 {
            let place = self.place;
            let after = self.read_object(false, depth)?;
            if !after.is_ok_and(|text| is_without_records(&text.bytes, depth)) {
                let message = "what stands beside the rows was not read".to_owned();
                return Ok(Some(Err(Wrong { place, message })));
            }
        }
        self.skip_blank()?;
        match self.peek()? {
            None | Some(b'{' | b'[') => Ok(None),
            Some(b',') if depth > 0 => Ok(None),
            Some(_) => {
                self.form = Form::Ended;
                Ok(Some(Err(self.wrong("something follows the array; the rest was not read"))))
            }
        }
    }

    /// What stands behind the array that is a member of an object, to the end of that object; of `before` and `depth` see
    /// [`Documents::of_member`]. `None` if it does not end, or is too long.
    pub(crate) fn rest_of_member(input: R, before: usize, depth: usize) -> io::Result<Option<Vec<u8>>> {
        let mut documents = Documents::of_member(input, Place { line: 1, column: 1 }, before, depth)?;
        // The array itself may be longer than a document.
        let _ = documents.read_object(false, 0)?;
        Ok(documents.read_object(false, depth)?.ok().map(|text| text.bytes))
    }

    /// Appends what is left of the line, up to another document that begins on it; false if that is too much.
    fn rest_of_document(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        while let Some(byte @ (b' ' | b'\t' | b'\r')) = self.peek()? {
            self.bump();
            if bytes.len() < TEXT_BYTES_MAX {
                bytes.push(byte);
            }
        }
        if self.peek()? == Some(b'{') { Ok(true) } else { self.rest_of_line(bytes) }
    }

    /// From one bracket to the one that closes it, and to the end of the line, or the next document on it. JSON has no line end
    /// within a string: there the document ends too, so that one that was cut off does not take all that follows.
    ///
    /// `depth`: how many brackets have been opened before.
    fn read_object(&mut self, is_line: bool, mut depth: usize) -> io::Result<Result<Text, Wrong>> {
        let place = self.place;
        let mut bytes = Vec::new();
        let (mut within, mut is_too_long) = (Within::Nothing, false);
        // What a slash after it begins: a regular expression is a value.
        let mut before = 0;
        loop {
            let Some(byte) = self.peek()? else {
                self.form = Form::Ended;
                return Ok(Err(Wrong { place, message: "the file ends within this document".to_owned() }));
            };
            self.bump();
            is_too_long |= bytes.len() >= TEXT_BYTES_MAX;
            if !is_too_long {
                bytes.push(byte);
            }
            within = match (within, byte) {
                (Within::Escape(quote), _) => Within::Quotes(quote),
                (Within::Quotes(quote), b'\\') => Within::Escape(quote),
                (Within::Quotes(quote), byte) if byte == quote => Within::Nothing,
                (Within::Quotes(b'/'), b'\n') => Within::Nothing,
                (Within::Comment(true), b'/') if bytes.ends_with(b"*/") && !bytes.ends_with(b"/*/") => {
                    Within::Nothing
                }
                (Within::Comment(is_block), b'\n') if !is_block => Within::Nothing,
                (Within::Nothing, b'"' | b'\'') => Within::Quotes(byte),
                (Within::Nothing, b'/') => match self.peek()? {
                    Some(b'*') => Within::Comment(true),
                    Some(b'/') => Within::Comment(false),
                    _ if b":,[(".contains(&before) => Within::Quotes(b'/'),
                    _ => Within::Nothing,
                },
                (Within::Nothing, b'{' | b'[') => {
                    depth += 1;
                    Within::Nothing
                }
                (Within::Nothing, b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    Within::Nothing
                }
                (within, _) => within,
            };
            if !byte.is_ascii_whitespace() {
                before = byte;
            }
            // What stands over several lines is indented: a brace at the beginning of one is another document.
            let is_text = matches!(within, Within::Quotes(_) | Within::Escape(_));
            let is_torn = is_line && byte == b'\n' && (is_text || self.peek()? == Some(b'{'));
            if (depth == 0 && within == Within::Nothing) || is_torn {
                if is_line && !is_torn {
                    is_too_long |= !self.rest_of_document(&mut bytes)?;
                }
                return Ok(if is_too_long { Err(too_long(place)) } else { Ok(Text { place, bytes }) });
            }
        }
    }

    fn wrong(&self, message: &str) -> Wrong {
        Wrong { place: self.place, message: message.to_owned() }
    }

    /// Passes over white space and comments.
    fn skip_blank(&mut self) -> io::Result<()> {
        loop {
            while self.peek()?.is_some_and(|byte| byte.is_ascii_whitespace()) {
                self.bump();
            }
            let place = self.place;
            if self.peek()? != Some(b'/') {
                return Ok(());
            }
            self.bump();
            let is_block = self.peek()? == Some(b'*');
            let mut last = 0;
            // Anything but a comment is no document either, and is told from what follows the slash.
            if !is_block && self.peek()? != Some(b'/') {
                return Ok(());
            }
            self.bump();
            loop {
                let Some(byte) = self.peek()? else {
                    self.comment = Some(place).filter(|_| is_block);
                    return Ok(());
                };
                self.bump();
                if (is_block && (last, byte) == (b'*', b'/')) || (!is_block && byte == b'\n') {
                    break;
                }
                last = byte;
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(bytes.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the byte that was peeked at.
    fn bump(&mut self) {
        let is_line_end = self.input.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&b'\n'));
        self.input.consume(1);
        if is_line_end {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += 1;
        }
    }
}

/// What a byte of a document stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    /// Between two of these: quotation marks, or the slashes of a regular expression.
    Quotes(u8),
    /// After a backslash in there.
    Escape(u8),
    /// To the end of a block, or of the line.
    Comment(bool),
}

/// Whether the end of an object, without its opening brace, has neither records nor lists but empty ones. `depth`: how many objects end
/// there, each within the next.
pub(crate) fn is_without_records(rest: &[u8], depth: usize) -> bool {
    let mut text = b"{\"\":".repeat(depth.saturating_sub(1));
    text.push(b'{');
    let start = rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
    let rest = rest.get(start..).unwrap_or_default();
    text.extend_from_slice(rest.strip_prefix(b",").unwrap_or(rest));
    parse_shell(&text).is_ok_and(|value| is_plain_value(&value))
}

/// Whether a value is no record, and has neither records nor lists in it but empty ones, as `"errors": []`.
pub(crate) fn is_plain_value(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().all(|(name, value)| name != "_id" && name != "id" && is_plain_value(value))
        }
        Value::Array(values) => values.is_empty(),
        _ => true,
    }
}

pub(crate) fn too_long(place: Place) -> Wrong {
    Wrong { place, message: format!("the document is longer than {} MiB", TEXT_BYTES_MAX >> 20) }
}

/// The value that a text of JSON, or of the syntax of MongoDB's shell, stands for.
pub(crate) fn read_value(text: &Text) -> Result<Value, Wrong> {
    let trimmed = text.bytes.trim_ascii_end();
    // Where documents follow each other as in an array.
    let bytes = trimmed.strip_suffix(b",").unwrap_or(&text.bytes);
    let at = |line: usize, column: usize| {
        let Place { line: first, column: before } = text.place;
        let column = if line == 1 { before + column.saturating_sub(1) } else { column };
        Place { line: first + line - 1, column }
    };
    let (message, line, column) = match parse(bytes) {
        Ok(value) => return Ok(value),
        Err(JsonError::Invalid { message, .. }) => return Err(Wrong { place: text.place, message }),
        Err(JsonError::Syntax { message, line, column }) => (message, line, column),
    };
    let error = match parse_shell(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // The parser that got further names the fault better.
    let is_named = message.contains("expected value") && error.message != "expected a value";
    if (error.line, error.column) > (line, column) || is_named {
        let message = format!("not understood: {}", error.message);
        return Err(Wrong { place: at(error.line, error.column), message });
    }
    Err(Wrong { place: at(line, column), message: format!("not JSON: {message}") })
}

/// The document that a text of MongoDB extended JSON stands for, with its `_id` as text.
pub fn read_document(kind: Kind, text: &Text) -> Result<Document, Wrong> {
    let wrong = |message: String| Wrong { place: text.place, message };
    match read_value(text)? {
        Value::Object(fields) => document_of(kind, fields).map_err(wrong),
        _ => Err(wrong("a record must be a JSON object".to_owned())),
    }
}

/// The document of these fields in MongoDB extended JSON, with its `_id` as text.
///
/// Values keep the types that they have there, and fields their order. A document that has `id` instead
/// of `_id` gets that name.
pub(crate) fn document_of(kind: Kind, fields: Map<String, Value>) -> Result<Document, String> {
    let is_renamed = !fields.contains_key("_id");
    let mut document = Document::new();
    for (key, value) in fields {
        // The library's message would repeat the value, which may be about a patient.
        let value = bson_of_extended(value).ok_or_else(|| format!("{key}: not MongoDB extended JSON"))?;
        let key = if is_renamed && key == "id" { "_id".to_owned() } else { key };
        document.insert(key, value);
    }
    check(kind, &document)?;
    Ok(document)
}

fn check(kind: Kind, document: &Document) -> Result<(), String> {
    match document.get("_id") {
        Some(Bson::String(id)) if id.is_empty() || id.chars().any(char::is_control) => {
            return Err("_id: must not be empty or hold control characters".to_owned());
        }
        Some(Bson::String(id)) if id.len() > ID_BYTES_MAX => {
            return Err(format!("_id: longer than {ID_BYTES_MAX} bytes"));
        }
        Some(Bson::String(_)) => {}
        Some(_) => return Err("_id: must be text".to_owned()),
        None => return Err("_id: missing, and there is no `id` either".to_owned()),
    }
    if kind == Kind::Person {
        match document.get("password") {
            None | Some(Bson::Null) => {}
            Some(Bson::String(hash)) if is_acceptable_hash(hash) => {}
            Some(_) => {
                return Err("password: not a bcrypt hash; passwords in clear are not imported".to_owned());
            }
        }
    }
    match document.to_vec() {
        Ok(bytes) if bytes.len() <= DOCUMENT_BYTES_MAX => Ok(()),
        Ok(_) => Err(format!("larger than {} MiB", DOCUMENT_BYTES_MAX >> 20)),
        Err(_) => Err("cannot be stored: a field's name holds a NUL character".to_owned()),
    }
}

#[cfg(test)]
mod tests;
