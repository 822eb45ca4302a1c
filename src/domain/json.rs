//! Floor 0. Documents to and from the JSON that clients see.
//!
//! Outwards ([`Shown`]): `_id` and `id`, keys sorted, secrets left out, dates as Thalamus writes them.
//! Inwards ([`parse_object`], [`adopt`]): strict about what a record may hold, and careful about types: a
//! JSON value equal to what is shown for the stored value *is* the stored value, so that reading a record
//! and writing it back changes nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::{Bson, RawArray, RawBsonRef, RawDocument};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// Deepest nesting of a document accepted from clients, the document itself being level 1.
pub const DOCUMENT_DEPTH_MAX: usize = 64;

/// How BSON dates are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DateFormat {
    /// `Fri, 04 Oct 1985 13:05:00 GMT`, as Thalamus does (Flask's `http_date`).
    #[default]
    Http,
    /// RFC 3339, milliseconds only where there are some.
    Rfc3339,
}

/// A body that cannot become a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JsonError {
    #[error("not JSON: {message} at line {line} column {column}")]
    Syntax { message: String, line: usize, column: usize },
    #[error("{message}")]
    Invalid { field: String, message: String },
}

impl JsonError {
    fn invalid(field: &str, message: impl fmt::Display) -> Self {
        let message = if field.is_empty() { message.to_string() } else { format!("{field}: {message}") };
        JsonError::Invalid { field: field.to_owned(), message }
    }
}

// ---------------------------------------------------------------------------------------------- outwards

/// A stored document as clients see it; serialize it with `serde_json`.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    pub document: &'a RawDocument,
    pub dates: DateFormat,
    /// Top-level fields to leave out.
    pub hidden: &'a [&'a str],
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = sorted_fields(self.document).map_err(S::Error::custom)?;
        fields.retain(|(key, _)| *key != "id" && !self.hidden.contains(key));
        let mut map = serializer.serialize_map(None)?;
        let mut id = None;
        for (key, value) in fields {
            if id.is_some_and(|_| key > "id") {
                write_id(&mut map, &mut id)?;
            }
            let value = ShownValue { value, dates: self.dates };
            if key == "_id" {
                id = Some(value);
            }
            map.serialize_entry(key, &value)?;
        }
        write_id(&mut map, &mut id)?;
        map.end()
    }
}

/// `id` repeats `_id`, at its place in the order of keys.
fn write_id<M: SerializeMap>(map: &mut M, id: &mut Option<ShownValue<'_>>) -> Result<(), M::Error> {
    match id.take() {
        Some(value) => map.serialize_entry("id", &value),
        None => Ok(()),
    }
}

fn sorted_fields(document: &RawDocument) -> Result<Vec<(&str, RawBsonRef<'_>)>, bson::error::Error> {
    let mut fields = Vec::new();
    for entry in document {
        let (key, value) = entry?;
        fields.push((key.as_str(), value));
    }
    fields.sort_by_key(|(key, _)| *key);
    Ok(fields)
}

#[derive(Clone, Copy)]
struct ShownValue<'a> {
    value: RawBsonRef<'a>,
    dates: DateFormat,
}

impl Serialize for ShownValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = |value| ShownValue { value, dates: self.dates };
        match self.value {
            RawBsonRef::String(text) => serializer.serialize_str(text),
            RawBsonRef::Boolean(truth) => serializer.serialize_bool(truth),
            RawBsonRef::Null => serializer.serialize_unit(),
            RawBsonRef::Int32(number) => serializer.serialize_i32(number),
            RawBsonRef::Int64(number) => serializer.serialize_i64(number),
            RawBsonRef::Double(number) if number.is_finite() => serializer.serialize_f64(number),
            RawBsonRef::Document(document) => {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in sorted_fields(document).map_err(S::Error::custom)? {
                    map.serialize_entry(key, &inner(value))?;
                }
                map.end()
            }
            RawBsonRef::Array(array) => serialize_array(array, serializer, inner),
            RawBsonRef::DateTime(date) => match show_date(date, self.dates) {
                Some(text) => serializer.serialize_str(&text),
                // The library's extended JSON would show every such date as the last of the year 9999.
                None => json!({"$date": {"$numberLong": date.timestamp_millis().to_string()}})
                    .serialize(serializer),
            },
            RawBsonRef::ObjectId(oid) => serializer.serialize_str(&oid.to_hex()),
            RawBsonRef::Decimal128(number) => serializer.collect_str(&number),
            RawBsonRef::Binary(binary) => serializer.serialize_str(&BASE64.encode(binary.bytes)),
            other => extended(other).serialize(serializer),
        }
    }
}

fn serialize_array<'a, S: Serializer>(
    array: &'a RawArray,
    serializer: S,
    inner: impl Fn(RawBsonRef<'a>) -> ShownValue<'a>,
) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(None)?;
    for value in array {
        seq.serialize_element(&inner(value.map_err(S::Error::custom)?))?;
    }
    seq.end()
}

/// Types that have no JSON form of their own, as MongoDB relaxed extended JSON.
fn extended(value: RawBsonRef<'_>) -> Value {
    Bson::try_from(value).map_or(Value::Null, Bson::into_relaxed_extjson)
}

fn show_date(date: bson::DateTime, format: DateFormat) -> Option<String> {
    let date: DateTime<Utc> = DateTime::from_timestamp_millis(date.timestamp_millis())?;
    // Years outside four digits have neither an HTTP nor an RFC 3339 form.
    if !(0..=9999).contains(&chrono::Datelike::year(&date)) {
        return None;
    }
    Some(match format {
        DateFormat::Http => date.format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        DateFormat::Rfc3339 if date.timestamp_subsec_millis() == 0 => {
            date.to_rfc3339_opts(SecondsFormat::Secs, true)
        }
        DateFormat::Rfc3339 => date.to_rfc3339_opts(SecondsFormat::Millis, true),
    })
}

/// One value as clients see it.
pub fn show_value(value: &Bson, dates: DateFormat) -> Value {
    let Ok(raw) = bson::serialize_to_raw_document_buf(&bson::doc! {"v": value.clone()}) else {
        return Value::Null;
    };
    match raw.get("v") {
        Ok(Some(value)) => serde_json::to_value(ShownValue { value, dates }).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

// ----------------------------------------------------------------------------------------------- inwards

/// Parses a request body that must be a JSON object.
pub fn parse_object(body: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match parse(body)? {
        Value::Object(map) => Ok(map),
        _ => Err(JsonError::invalid("", "the body must be a JSON object")),
    }
}

/// Parses JSON, refusing what `serde_json` would silently mend: repeated keys, integers that no longer
/// fit and depth beyond [`DOCUMENT_DEPTH_MAX`].
pub fn parse(body: &[u8]) -> Result<Value, JsonError> {
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
            message: describe_syntax(&error, body),
        }),
    }
}

fn describe_syntax(error: &serde_json::Error, body: &[u8]) -> String {
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
/// tells for each visit what was written: it reads an integer beyond 64 bits as a float, and a long
/// fraction with an error in the last bit.
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
        let exact = text.parse().unwrap_or(v);
        if !exact.is_finite() {
            return Err(E::custom("number out of range"));
        }
        Ok(Value::from(exact))
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

/// The BSON value for a client's `value` at `path`, given what is stored there now.
///
/// Equal to what is shown: the stored value, with its type and precision. A string onto a date (or a
/// decimal) that reads as one keeps that type. Anything else becomes the plain BSON of the JSON.
pub fn adopt(value: &Value, stored: Option<&Bson>, path: &str) -> Result<Bson, JsonError> {
    if let Some(stored) = stored {
        if is_shown_as(stored, value) {
            return Ok(stored.clone());
        }
        match (stored, value) {
            (Bson::DateTime(_), Value::String(text)) => {
                if let Some(date) = parse_date(text) {
                    return Ok(Bson::DateTime(date));
                }
            }
            (Bson::Decimal128(_), Value::String(text)) => {
                if let Ok(number) = text.parse() {
                    return Ok(Bson::Decimal128(number));
                }
            }
            _ => {}
        }
    }
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(truth) => Bson::Boolean(*truth),
        Value::Number(number) => adopt_number(number, path)?,
        Value::String(text) if text.contains('\0') => {
            return Err(JsonError::invalid(path, "a string with a NUL character"));
        }
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(values) => {
            let stored = stored.and_then(Bson::as_array).map_or(&[][..], |a| a);
            Bson::Array(adopt_array(values, stored, path)?)
        }
        Value::Object(map) => {
            let stored = stored.and_then(Bson::as_document);
            let mut document = bson::Document::new();
            for (key, value) in map {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let old = stored.and_then(|d| d.get(key));
                if old.is_none() {
                    check_key(key, &at)?;
                }
                document.insert(key, adopt(value, old, &at)?);
            }
            Bson::Document(document)
        }
    })
}

/// An element that moved keeps its type too.
fn adopt_array(values: &[Value], stored: &[Bson], path: &str) -> Result<Vec<Bson>, JsonError> {
    // Made at the first element that is not where it was: comparing each with all would let one long
    // array hold a processor for minutes.
    let mut moved: Option<HashMap<u64, &Bson>> = None;
    let mut array = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let mut old = stored.get(index);
        if !old.is_some_and(|old| is_shown_as(old, value)) && !stored.is_empty() {
            let moved = moved.get_or_insert_with(|| by_fingerprint(stored));
            let elsewhere = moved.get(&fingerprint(value)).copied();
            old = elsewhere.filter(|old| is_shown_as(old, value)).or(old);
        }
        array.push(adopt(value, old, &format!("{path}.{index}"))?);
    }
    Ok(array)
}

fn by_fingerprint(stored: &[Bson]) -> HashMap<u64, &Bson> {
    let mut found = HashMap::new();
    for old in stored {
        for dates in [DateFormat::Http, DateFormat::Rfc3339] {
            found.entry(fingerprint(&show_value(old, dates))).or_insert(old);
        }
    }
    found
}

/// Equal for values that [`is_shown_as`] takes for the same; the order of keys does not count.
fn fingerprint(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0_u8.hash(&mut hasher),
        Value::Bool(truth) => truth.hash(&mut hasher),
        // Adding zero turns -0.0 into 0.0.
        Value::Number(number) => (number.as_f64().unwrap_or(0.0) + 0.0).to_bits().hash(&mut hasher),
        Value::String(text) => text.hash(&mut hasher),
        Value::Array(values) => {
            for value in values {
                fingerprint(value).hash(&mut hasher);
            }
        }
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| {
                let mut field = DefaultHasher::new();
                (key, fingerprint(value)).hash(&mut field);
                field.finish()
            });
            fields.fold(0, u64::wrapping_add).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn adopt_number(number: &serde_json::Number, path: &str) -> Result<Bson, JsonError> {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => Ok(i32::try_from(whole).map_or(Bson::Int64(whole), Bson::Int32)),
        (None, Some(float)) if float.is_finite() => Ok(Bson::Double(float)),
        _ => Err(JsonError::invalid(path, "a number out of range")),
    }
}

/// Refuses keys that MongoDB or its tools would read as something else.
pub fn check_key(key: &str, path: &str) -> Result<(), JsonError> {
    let problem = if key.is_empty() {
        "an empty key"
    } else if key.starts_with('$') {
        "a key may not start with $"
    } else if key.contains('.') {
        "a key may not hold a dot"
    } else if key.contains('\0') {
        "a key may not hold a NUL character"
    } else {
        return Ok(());
    };
    Err(JsonError::invalid(path, problem))
}

/// Whether `value` is what a client is shown for `stored`, in either date format.
fn is_shown_as(stored: &Bson, value: &Value) -> bool {
    match (stored, value) {
        (Bson::Document(document), Value::Object(map)) => {
            document.len() == map.len()
                && document.iter().all(|(key, old)| map.get(key).is_some_and(|v| is_shown_as(old, v)))
        }
        (Bson::Array(array), Value::Array(values)) => {
            array.len() == values.len() && array.iter().zip(values).all(|(old, v)| is_shown_as(old, v))
        }
        (Bson::String(old), Value::String(new)) => old == new,
        (Bson::Boolean(old), Value::Bool(new)) => old == new,
        (Bson::Null, Value::Null) => true,
        (Bson::Int32(old), Value::Number(new)) => same_number(i64::from(*old), new),
        (Bson::Int64(old), Value::Number(new)) => same_number(*old, new),
        (Bson::Double(old), Value::Number(new)) => match new.as_i64() {
            // A whole number that no double holds is another value, although it rounds to this one.
            Some(whole) => whole as f64 == *old && *old as i64 == whole,
            None => new.as_f64() == Some(*old),
        },
        (Bson::Int32(_) | Bson::Int64(_) | Bson::Boolean(_) | Bson::String(_) | Bson::Null, _) => false,
        (Bson::DateTime(_), Value::String(_)) => {
            show_value(stored, DateFormat::Http) == *value
                || show_value(stored, DateFormat::Rfc3339) == *value
        }
        _ => show_value(stored, DateFormat::Http) == *value,
    }
}

fn same_number(old: i64, new: &serde_json::Number) -> bool {
    // Browsers write whole floats without a point, Python with one: 5 and 5.0 are what was shown.
    new.as_i64() == Some(old) || (new.is_f64() && new.as_f64() == Some(old as f64))
}

/// Reads a date in any of the forms that clients write: HTTP, RFC 3339, or a day (midnight UTC).
pub fn parse_date(text: &str) -> Option<bson::DateTime> {
    let http = || {
        chrono::NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S GMT")
            .ok()
            .map(|date| date.and_utc())
    };
    let rfc3339 = || DateTime::parse_from_rfc3339(text).ok().map(|date| date.with_timezone(&Utc));
    let day = || {
        // chrono alone would also take signs and blanks.
        let shape = |(at, b): (usize, u8)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() };
        if text.len() != 10 || !text.bytes().enumerate().all(shape) {
            return None;
        }
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        day.and_hms_opt(0, 0, 0).map(|d| d.and_utc())
    };
    let date = rfc3339().or_else(http).or_else(day)?;
    Some(bson::DateTime::from_millis(date.timestamp_millis()))
}

/// The calendar day of a birth date, whether it is stored as a date or as a string.
pub fn day_of(value: &Bson) -> Option<String> {
    match value {
        Bson::DateTime(date) => {
            let date: DateTime<Utc> = DateTime::from_timestamp_millis(date.timestamp_millis())?;
            Some(date.format("%Y-%m-%d").to_string())
        }
        Bson::String(text) => {
            let date = parse_date(text.trim())?;
            day_of(&Bson::DateTime(date))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn shown(document: &bson::Document) -> String {
        let raw = bson::serialize_to_raw_document_buf(document).unwrap();
        serde_json::to_string(&Shown { document: &raw, dates: DateFormat::Http, hidden: &["password"] })
            .unwrap()
    }

    #[test]
    fn records_are_shown_sorted_with_both_ids_and_without_secrets() {
        let dob = bson::DateTime::from_millis(497_278_620_000);
        let text = shown(
            &doc! {"z": 1.0, "password": "x", "id": "old", "a": dob, "_id": "A", "n": {"b": 1, "a": null}},
        );
        assert_eq!(
            text,
            r#"{"_id":"A","a":"Fri, 04 Oct 1985 12:57:00 GMT","id":"A","n":{"a":null,"b":1},"z":1.0}"#
        );
        assert_eq!(shown(&doc! {"_id": "A"}), r#"{"_id":"A","id":"A"}"#);
    }

    #[test]
    fn dates_stay_dates_and_strings_stay_strings() {
        let date = Bson::DateTime(bson::DateTime::from_millis(0));
        for text in ["1985-10-04", "1985-10-04T00:00:00Z", "Fri, 04 Oct 1985 00:00:00 GMT"] {
            let adopted = adopt(&json!(text), Some(&date), "dob").unwrap();
            assert_eq!(adopted, Bson::DateTime(bson::DateTime::from_millis(497_232_000_000)), "{text}");
            assert_eq!(adopt(&json!(text), None, "dob").unwrap(), Bson::String(text.into()));
        }
        assert_eq!(adopt(&json!("soon"), Some(&date), "dob").unwrap(), Bson::String("soon".into()));
    }
}
