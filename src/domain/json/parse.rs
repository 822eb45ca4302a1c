//! Floor 0. Bodies that become records, read strictly.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::weight;
use super::{DOCUMENT_DEPTH_MAX, JsonError};
use crate::domain::text::encoding::{unmarked, utf8};

/// Parses a JSON object, however many values it has.
pub fn parse_object(body: &[u8]) -> Result<Map<String, Value>, JsonError> {
    object_of(parse(body)?)
}

fn object_of(body: Value) -> Result<Map<String, Value>, JsonError> {
    match body {
        Value::Object(map) => Ok(map),
        _ => Err(JsonError::invalid("", "the body must be a JSON object")),
    }
}

/// Why a request's body is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It has more values than a body may ([`BODY_VALUES_MAX`]).
    #[error(
        "The body has more values than this node reads at once: at most 20,000, fields and elements of lists counted \
         together. Spread them over several records"
    )]
    TooManyValues,
}

/// Values of one request's body, fields and elements of lists together. A large page has some hundreds. As trees, as JSON and
/// as BSON, 20,000 values take up to 25 MiB; a text of 1 MiB may have 500,000.
pub const BODY_VALUES_MAX: usize = 20_000;

/// Refuses a body with more than [`BODY_VALUES_MAX`] values. Counts what separates values, and builds nothing.
///
/// What is nested deeper than a record may be passes: parsing it ends there, and says so.
pub fn check_values(body: &[u8]) -> Result<(), BodyError> {
    match weight::values_in(body, BODY_VALUES_MAX, DOCUMENT_DEPTH_MAX) {
        values if values > BODY_VALUES_MAX => Err(BodyError::TooManyValues),
        _ => Ok(()),
    }
}

/// Parses a request's body, which must be a JSON object; how many values it has is bounded.
pub fn parse_body(body: &[u8]) -> Result<Map<String, Value>, BodyError> {
    check_values(body)?;
    Ok(object_of(parse(body)?)?)
}

/// Parses JSON in UTF-8, with a mark of byte order or without, refusing what `serde_json` would silently mend: repeated keys, integers that no longer
/// fit and depth beyond [`DOCUMENT_DEPTH_MAX`].
pub fn parse(sent: &[u8]) -> Result<Value, JsonError> {
    let body = unmarked(sent).map_err(|error| JsonError::Syntax {
        message: error.to_string(),
        line: 1,
        column: 1,
    })?;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let (mut refused, mut path) = (None, Vec::new());
    let result =
        Strict { numbers: &mut Numbers { rest: body }, path: &mut path, depth: 0, error: &mut refused }
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value));
    match (result, refused) {
        (_, Some(error)) => Err(error),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(JsonError::Syntax {
            line: error.line(),
            column: error.column(),
            message: describe_syntax(&error, sent),
        }),
    }
}

fn describe_syntax(error: &serde_json::Error, sent: &[u8]) -> String {
    let body = match utf8(sent) {
        Ok(body) => body.as_bytes(),
        Err(error) => return error.to_string(),
    };
    if body.iter().all(u8::is_ascii_whitespace) {
        return "the body is empty".to_owned();
    }
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

/// The texts of the numbers in a JSON body, in order. `serde_json` visits them in the same order, which
/// tells for each visit what was written: it reads an integer beyond 64 bits as a float.
struct Numbers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Numbers<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut at = 0;
        loop {
            match self.rest.get(at)? {
                b'-' | b'0'..=b'9' => break,
                b'"' => {
                    at += 1;
                    while *self.rest.get(at)? != b'"' {
                        at += if self.rest[at] == b'\\' { 2 } else { 1 };
                    }
                }
                _ => {}
            }
            at += 1;
        }
        let rest = &self.rest[at..];
        let in_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
        let (number, rest) = rest.split_at(rest.iter().take_while(|b| in_number(b)).count());
        self.rest = rest;
        std::str::from_utf8(number).ok()
    }
}

struct Strict<'a, 'b> {
    numbers: &'a mut Numbers<'b>,
    path: &'a mut Vec<String>,
    depth: usize,
    /// The refusal, kept beside serde's error because it is typed.
    error: &'a mut Option<JsonError>,
}

impl<'b> Strict<'_, 'b> {
    fn child(&mut self) -> Strict<'_, 'b> {
        Strict { numbers: self.numbers, path: self.path, depth: self.depth + 1, error: self.error }
    }

    fn refuse<E: serde::de::Error>(&mut self, message: impl fmt::Display) -> E {
        *self.error = Some(JsonError::invalid(&self.path.join("."), message));
        E::custom("refused")
    }

    fn check_depth<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth >= DOCUMENT_DEPTH_MAX {
            self.path.truncate(3);
            return Err(self.refuse(format_args!("nested deeper than {DOCUMENT_DEPTH_MAX} levels")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_, '_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        self.numbers.next();
        Ok(Value::from(v))
    }
    fn visit_u64<E: serde::de::Error>(mut self, v: u64) -> Result<Value, E> {
        self.numbers.next();
        match i64::try_from(v) {
            Ok(v) => Ok(Value::from(v)),
            Err(_) => Err(self.refuse("an integer outside 64 bits")),
        }
    }
    fn visit_f64<E: serde::de::Error>(mut self, v: f64) -> Result<Value, E> {
        const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
        let text = self.numbers.next().unwrap_or_default();
        let whole = !text.contains(['.', 'e', 'E']);
        if whole && v.abs() >= TWO_TO_63 {
            return Err(self.refuse("an integer outside 64 bits"));
        }
        Ok(Value::from(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut values = Vec::new();
        self.path.push("0".to_owned());
        while let Some(value) = seq.next_element_seed(self.child())? {
            values.push(value);
            self.path.pop();
            self.path.push(values.len().to_string());
        }
        self.path.pop();
        // It has grown by doubling.
        values.shrink_to_fit();
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            self.path.push(key);
            let value = access.next_value_seed(self.child())?;
            let key = self.path.pop().unwrap_or_default();
            if map.contains_key(&key) {
                self.path.push(key);
                return Err(self.refuse("the key stands twice"));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_of(row: &str, rows: usize) -> String {
        format!("{{\"x\":[{}]}}", vec![row; rows].join(","))
    }

    #[test]
    fn a_body_has_so_many_values_and_a_file_as_many_as_it_likes() {
        for (row, values) in [
            ("1", 1),
            ("\"te,x{t\\\"\"", 1),
            ("[]", 1),
            ("{ }", 1),
            ("{\"a\":1}", 2),
            ("{\"a\":{\"b\":[2,3]}}", 5),
        ] {
            // The list itself is one, and so is the body.
            let within = (BODY_VALUES_MAX - 2) / values;
            assert!(parse_body(list_of(row, within).as_bytes()).is_ok(), "{row}");
            let beyond = list_of(row, within + 1);
            assert_eq!(parse_body(beyond.as_bytes()), Err(BodyError::TooManyValues), "{row}");
            assert!(parse_object(beyond.as_bytes()).is_ok(), "{row}");
        }
        let fields: Vec<_> = (0..BODY_VALUES_MAX).map(|number| format!("\"f{number}\":0")).collect();
        let fields = |many: usize| format!("{{{}}}", fields[..many].join(","));
        assert!(parse_body(fields(BODY_VALUES_MAX - 1).as_bytes()).is_ok());
        assert_eq!(parse_body(fields(BODY_VALUES_MAX).as_bytes()), Err(BodyError::TooManyValues));
        assert!(parse_body(format!("{{\"x\":\"{}\"}}", "y,".repeat(8 << 20)).as_bytes()).is_ok());
        let said = BodyError::TooManyValues.to_string();
        assert!(said.contains("20,000") && BODY_VALUES_MAX == 20_000, "{said}");
    }

    #[test]
    fn what_is_nested_too_deep_is_called_so() {
        let deep = "{\"a\":".repeat(100_000);
        let error = parse_body(deep.as_bytes()).expect_err("too deep");
        assert!(error.to_string().contains("nested deeper"), "{error}");
    }
}
