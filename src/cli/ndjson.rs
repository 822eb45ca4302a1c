//! Floor 5. Files of documents as mongoexport writes them: one a line, or all in one JSON array.
//!
//! Reads one document at a time, so a file may be larger than memory, and goes on after a bad one.

use std::fmt;
use std::io::{self, BufRead};

use bson::{Bson, Document};
use serde_json::{Value, json};

use crate::accounts::is_acceptable_hash;
use crate::domain::encoding::unmarked;
use crate::domain::json::{JsonError, parse_date, parse_object};
use crate::domain::record::Kind;

/// Longest document as text: canonical extended JSON takes up to five times the bytes of BSON.
const TEXT_BYTES_MAX: usize = 96 << 20;
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
        Documents { input, place: Place { line: 1, column: 1 }, form: Form::Unknown }
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
            self.skip_blank()?;
            self.form = Form::Lines;
            if self.peek()? == Some(b'[') {
                self.bump();
                self.form = Form::ArrayStart;
            }
        }
        match self.form {
            Form::Ended => Ok(None),
            Form::Lines | Form::Unknown => self.next_line(),
            Form::ArrayStart | Form::Array => self.next_element(),
        }
    }

    /// The next document outside of an array. It may take several lines, as `mongoexport --pretty` writes it; a line that
    /// begins none is one bad document.
    fn next_line(&mut self) -> io::Result<Option<Result<Text, Wrong>>> {
        self.skip_blank()?;
        if self.peek()? == Some(b'{') {
            return self.read_object(true).map(Some);
        }
        if self.peek()?.is_none() {
            return Ok(None);
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

    /// The next element of the array. What is no array ends the file: there is no place to go on from.
    fn next_element(&mut self) -> io::Result<Option<Result<Text, Wrong>>> {
        self.skip_blank()?;
        let mut at = self.peek()?;
        let is_first = self.form == Form::ArrayStart;
        if at == Some(b']') {
            self.bump();
            self.form = Form::Ended;
            self.skip_blank()?;
            return Ok(self.peek()?.map(|_| Err(self.wrong("something follows the array"))));
        }
        if !is_first {
            if at != Some(b',') {
                self.form = Form::Ended;
                return Ok(Some(Err(self.wrong("expected `,` or `]` in the array; the rest was not read"))));
            }
            self.bump();
            self.skip_blank()?;
            at = self.peek()?;
        }
        self.form = Form::Array;
        if at != Some(b'{') {
            self.form = Form::Ended;
            return Ok(Some(Err(self.wrong("expected a document in the array; the rest was not read"))));
        }
        self.read_object(false).map(Some)
    }

    /// From one brace to the one that closes it, and where a line holds nothing else, to its end. JSON has no line end
    /// within a string: there the document ends too, so that one that was cut off does not take all that follows.
    fn read_object(&mut self, is_line: bool) -> io::Result<Result<Text, Wrong>> {
        let place = self.place;
        let mut bytes = Vec::new();
        let (mut depth, mut in_string, mut is_escaped, mut is_too_long) = (0_usize, false, false, false);
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
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_string => is_escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            // What stands over several lines is indented: a brace at the beginning of one is another document.
            let is_torn = is_line && byte == b'\n' && (in_string || self.peek()? == Some(b'{'));
            if depth == 0 || is_torn {
                if is_line && !is_torn {
                    is_too_long |= !self.rest_of_line(&mut bytes)?;
                }
                return Ok(if is_too_long { Err(too_long(place)) } else { Ok(Text { place, bytes }) });
            }
        }
    }

    fn wrong(&self, message: &str) -> Wrong {
        Wrong { place: self.place, message: message.to_owned() }
    }

    fn skip_blank(&mut self) -> io::Result<()> {
        while self.peek()?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.bump();
        }
        Ok(())
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

fn too_long(place: Place) -> Wrong {
    Wrong { place, message: format!("the document is longer than {} MiB", TEXT_BYTES_MAX >> 20) }
}

/// The document that a text of MongoDB extended JSON stands for, with its `_id` as text.
///
/// Values keep the types that they have there, and fields their order. A document that has `id` instead
/// of `_id` gets that name.
pub fn read_document(kind: Kind, text: &Text) -> Result<Document, Wrong> {
    let wrong = |message: String| Wrong { place: text.place, message };
    let fields = parse_object(&text.bytes).map_err(|error| match error {
        JsonError::Syntax { message, line, column } => {
            let Place { line: first, column: before } = text.place;
            let column = if line == 1 { before + column.saturating_sub(1) } else { column };
            Wrong { place: Place { line: first + line - 1, column }, message: format!("not JSON: {message}") }
        }
        JsonError::Invalid { message, .. } => wrong(message),
    })?;
    let is_renamed = !fields.contains_key("_id");
    let mut document = Document::new();
    for (key, value) in fields {
        // The library's message would repeat the value, which may be about a patient.
        let value =
            Bson::try_from(modern(value)).map_err(|_| wrong(format!("{key}: not MongoDB extended JSON")))?;
        let key = if is_renamed && key == "id" { "_id".to_owned() } else { key };
        document.insert(key, value);
    }
    check(kind, &document).map_err(wrong)?;
    Ok(document)
}

/// Extended JSON of version 2 out of what mongoexport wrote before MongoDB 4.2 ("strict mode"): `$binary` beside `$type`,
/// `$regex` beside `$options`, `$date` with `+0000`.
fn modern(value: Value) -> Value {
    let Value::Object(fields) = value else {
        return match value {
            Value::Array(values) => Value::Array(values.into_iter().map(modern).collect()),
            other => other,
        };
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    match (fields.len(), text("$binary"), text("$regex"), text("$date")) {
        (2, Some(base64), ..) => {
            let subtype = match fields.get("$type") {
                Some(Value::Number(number)) => number.as_u64().map(|number| format!("{number:02x}")),
                Some(Value::String(hex)) => Some(format!("{hex:0>2}")),
                _ => None,
            };
            if let Some(subtype) = subtype {
                return json!({"$binary": {"base64": base64, "subType": subtype}});
            }
        }
        (2, _, Some(pattern), _) => {
            if let Some(options) = text("$options") {
                return json!({"$regularExpression": {"pattern": pattern, "options": options}});
            }
        }
        (1, None, None, None) => {
            // Some tools write the number as a number.
            if let Some(number) = fields.get("$numberLong").or_else(|| fields.get("$numberInt"))
                && let Some(whole) = number.as_i64()
            {
                let name = if fields.contains_key("$numberLong") { "$numberLong" } else { "$numberInt" };
                return json!({name: whole.to_string()});
            }
            if let Some(number) = fields.get("$numberDouble").filter(|number| number.is_number()) {
                return json!({"$numberDouble": number.to_string()});
            }
            if let Some(number) = fields.get("$numberDecimal").filter(|number| number.is_number()) {
                return json!({"$numberDecimal": number.to_string()});
            }
        }
        (1, .., Some(date)) => {
            if let Some(date) = parse_date(date) {
                return json!({"$date": {"$numberLong": date.timestamp_millis().to_string()}});
            }
        }
        _ => {}
    }
    Value::Object(fields.into_iter().map(|(key, value)| (key, modern(value))).collect())
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
mod tests {
    use super::*;
    use bson::doc;

    /// What a file holds: texts, and faults with their places.
    fn documents(file: &str) -> Vec<String> {
        // A tiny buffer, so that everything lies across its edge once.
        let input = io::BufReader::with_capacity(3, file.as_bytes());
        let shown = |found: Result<Text, Wrong>| match found {
            Ok(text) => format!(
                "{}:{} {}",
                text.place.line,
                text.place.column,
                String::from_utf8(text.bytes).unwrap()
            ),
            Err(wrong) => format!("{}:{} ! {}", wrong.place.line, wrong.place.column, wrong.message),
        };
        Documents::new(input).map(|found| shown(found.unwrap())).collect()
    }

    fn document(kind: Kind, text: &str) -> Result<Document, String> {
        let text = Text { place: Place { line: 7, column: 3 }, bytes: text.as_bytes().to_vec() };
        read_document(kind, &text).map_err(|wrong| format!("{}: {}", wrong.place, wrong.message))
    }

    #[test]
    fn lines_stand_for_themselves() {
        assert_eq!(documents("{\"a\":1}\r\n\n  {\"b\":2}"), ["1:1 {\"a\":1}\r", "3:3 {\"b\":2}"]);
        assert_eq!(documents("{]\n{}\n"), ["1:1 {]", "2:1 {}"], "a bad line does not swallow the next");
        assert!(documents("").is_empty() && documents(" \n\n").is_empty());
    }

    #[test]
    fn documents_may_take_several_lines() {
        let pretty = "{\n\t\"_id\": \"a\",\n\t\"in\": [\n\t\t{\n\t\t\t\"b\": \"}{\"\n\t\t}\n\t]\n}\n{\n\t\"_id\": \"c\"\n}\n";
        let found = documents(pretty);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("1:1 {") && found[1].starts_with("9:1 {"), "{found:?}");
        assert_eq!(document(Kind::Page, &found[1][4..]).unwrap(), doc! {"_id": "c"});
        // What was cut off takes nothing else along.
        let found = documents("{\"a\": {\n{\"b\": 1}\n{\"c\": \"x\n{\"d\": 1}\n{\"e\": 1}{\n{}\n");
        let begins: Vec<_> = found.iter().map(|text| text.split_whitespace().next().unwrap()).collect();
        assert_eq!(begins, ["1:1", "2:1", "3:1", "4:1", "5:1", "6:1"], "{found:?}");
        assert_eq!(documents("{\n \"a\": 1\n"), ["1:1 ! the file ends within this document"]);
    }

    #[test]
    fn numbers_of_a_type_may_be_numbers() {
        let text = r#"{"_id": "p", "l": {"$numberLong": 5}, "i": {"$numberInt": -5}, "d": {"$numberDouble": 1.5},
            "c": {"$numberDecimal": 1.25}, "in": [{"$numberLong": 5000000000}], "when": {"$date": {"$numberLong": 7}}}"#;
        let found = document(Kind::Page, text).unwrap();
        assert_eq!(found.get("l"), Some(&Bson::Int64(5)));
        assert_eq!(found.get("i"), Some(&Bson::Int32(-5)));
        assert_eq!(found.get("d"), Some(&Bson::Double(1.5)));
        assert_eq!(found.get("c").unwrap().to_string(), "1.25");
        assert_eq!(found.get_array("in").unwrap(), &[Bson::Int64(5_000_000_000)]);
        assert_eq!(found.get_datetime("when").unwrap().timestamp_millis(), 7);
        for wrong in
            [r#"{"_id": "p", "n": {"$numberLong": 1.5}}"#, r#"{"_id": "p", "n": {"$numberInt": 5000000000}}"#]
        {
            assert!(document(Kind::Page, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arrays_are_taken_apart() {
        let file = "[{\"a\":\"]},\\\"\"},\n {\"b\":[{}]}\n]\n";
        assert_eq!(documents(file), ["1:2 {\"a\":\"]},\\\"\"}", "2:2 {\"b\":[{}]}"]);
        assert!(documents("[]").is_empty());
        for (file, fault) in [
            ("[{} {}]", "1:5 ! expected `,`"),
            ("[1]", "1:2 ! expected a document"),
            ("[{},]", "1:5 ! expected a document"),
            ("[{}", "1:4 ! expected `,`"),
            ("[{\"a\":1", "1:2 ! the file ends"),
            ("[{}] x", "1:6 ! something follows"),
        ] {
            let found = documents(file);
            assert!(found.last().unwrap().starts_with(fault), "{file}: {found:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_nothing() {
        let found: Vec<_> = Documents::new("\u{feff}{}".as_bytes()).collect();
        assert_eq!(found[0].as_ref().unwrap().as_ref().unwrap().bytes, b"{}");
    }

    #[test]
    fn types_and_order_survive() {
        let text = r#"{"z":{"$numberLong":"5"},"_id":"p1","n":5,"m":5000000000,"x":1.0,"id":"q",
            "d":{"$date":"1985-10-04T13:05:00Z"},"e":{"$date":{"$numberLong":"-1"}},"o":{"$oid":"0102030405060708090a0b0c"},
            "c":{"$numberDecimal":"1.10"},"b":{"$binary":{"base64":"AQI=","subType":"00"}}}"#;
        let found = document(Kind::Page, text).unwrap();
        assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>().join(""), "z_idnmxiddeocb");
        assert_eq!(found.get("z"), Some(&Bson::Int64(5)));
        assert_eq!(found.get("n"), Some(&Bson::Int32(5)));
        assert_eq!(found.get("m"), Some(&Bson::Int64(5_000_000_000)));
        assert_eq!(found.get("x"), Some(&Bson::Double(1.0)));
        assert_eq!(found.get_datetime("d").unwrap().timestamp_millis(), 497_279_100_000);
        assert_eq!(found.get_datetime("e").unwrap().timestamp_millis(), -1);
        assert_eq!(found.get("c").unwrap().to_string(), "1.10");
    }

    #[test]
    fn an_id_is_an_id_by_either_name() {
        let found = document(Kind::Person, r#"{"name": "Ana", "id": "ANA", "active": true}"#).unwrap();
        assert_eq!(found, doc! {"name": "Ana", "_id": "ANA", "active": true});
        assert_eq!(found.keys().nth(1).map(String::as_str), Some("_id"), "it keeps its place");
    }

    /// What mongoexport wrote before MongoDB 4.2.
    #[test]
    fn old_exports_are_read() {
        let text = r#"{"_id": "p", "b": {"$binary": "AQID", "$type": "00"}, "c": {"$binary": "AQID", "$type": 4},
            "in": [{"at": {"$date": "1985-10-04T13:05:00.000+0000"}}], "r": {"$regex": "^a", "$options": "i"},
            "d": {"$date": "1985-10-04T15:05:00.000+0200"}, "n": {"$date": 497279100000},
            "t": {"$timestamp": {"t": 5, "i": 1}}, "l": {"$numberLong": "7"}, "u": {"$undefined": true}}"#;
        let found = document(Kind::Page, text).unwrap();
        let date = bson::DateTime::from_millis(497_279_100_000);
        let binary = |subtype| bson::Binary { subtype, bytes: vec![1, 2, 3] };
        let regex = bson::Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() };
        assert_eq!(
            found,
            doc! {"_id": "p", "b": binary(bson::spec::BinarySubtype::Generic),
            "c": binary(bson::spec::BinarySubtype::Uuid), "in": [{"at": date}], "r": regex, "d": date, "n": date,
            "t": bson::Timestamp { time: 5, increment: 1 }, "l": 7_i64, "u": Bson::Undefined}
        );
        assert!(document(Kind::Page, r#"{"_id": "p", "b": {"$binary": "AQID", "$type": "zz"}}"#).is_err());
    }

    #[test]
    fn a_mark_of_byte_order_is_skipped_and_utf_16_is_named() {
        assert_eq!(documents("\u{FEFF}{\"a\":1}"), ["1:1 {\"a\":1}"]);
        for text in ["{\"_id\":\"a\"}", "\u{FEFF}[]"] {
            let units = text.encode_utf16();
            let (little, big): (Vec<[u8; 2]>, Vec<[u8; 2]>) =
                units.map(|unit| (unit.to_le_bytes(), unit.to_be_bytes())).unzip();
            for bytes in [little.concat(), big.concat()] {
                let found: Vec<_> = Documents::new(bytes.as_slice()).map(Result::unwrap).collect();
                let [Err(wrong)] = found.as_slice() else { panic!("{found:?}") };
                assert!(wrong.message.contains("UTF-16"), "{}", wrong.message);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let clear = r#"{"_id": "A", "password": "gnusolidario"}"#;
        for (text, message) in [
            ("{\"_id\": \"A\",\n  \"n\": tru}", "line 8 column 11: not JSON"),
            ("{\"_id\" \"A\"}", "line 7 column 10: not JSON"),
            (r#"{"_id": "A", "a": {"b": 1, "b": 2}}"#, "line 7 column 3: a.b: the key stands twice"),
            (r#"{"_id": "A", "n": 99999999999999999999}"#, "n: an integer outside 64 bits"),
            (r#"{"_id": "A", "dob": {"$date": "yesterday"}}"#, "dob: not MongoDB extended JSON"),
            (r#"{"_id": {"$oid": "0102030405060708090a0b0c"}}"#, "_id: must be text"),
            (r#"{"_id": 5}"#, "_id: must be text"),
            (r#"{"_id": ""}"#, "_id: must not be empty"),
            (r#"{"name": "A"}"#, "_id: missing"),
            (r#"{"_id": "A", "a\u0000b": 1}"#, "NUL"),
            ("[]", "the body must be a JSON object"),
            (clear, "password: not a bcrypt hash"),
        ] {
            let error = document(Kind::Person, text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
            assert!(!error.contains("yesterday") && !error.contains("gnusolidario"), "{error}");
        }
        assert!(document(Kind::Page, clear).is_ok(), "only people log in");
        assert!(document(Kind::Person, r#"{"_id": "A", "password": null}"#).is_ok());
    }
}
