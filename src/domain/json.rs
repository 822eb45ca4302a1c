//! Floor 0. Documents to and from the JSON that clients see.
//!
//! Outwards ([`Shown`]): `_id` and `id`, keys sorted, secrets left out, dates as Thalamus writes them.
//! Inwards ([`parse_object`], [`adopt()`]): strict about what a record may hold, and careful about types: a
//! JSON value equal to what is shown for the stored value *is* the stored value, so that reading a record
//! and writing it back changes nothing.

mod adopt;
mod columns;
mod dates;
mod extended;
pub(crate) mod lines;
mod parse;
mod shell;
mod stored;
pub mod weight;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::{Bson, RawArray, RawBsonRef, RawDocument};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use adopt::is_shown_as;
pub use adopt::{adopt, adopt_like, check_key};
pub use dates::{DATE_FORMS, WrittenDate, date_of, parse_date, plain_date, written_date};
pub use extended::bson_of_extended;
pub use parse::{BODY_VALUES_MAX, BodyError, check_values, parse, parse_body, parse_object};
pub use shell::{ShellError, parse_shell};
pub use stored::stored_moment;

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

/// A stored value as clients see it, without copies of it; serialize it with `serde_json`.
#[derive(Clone, Copy)]
pub struct ShownPart<'a> {
    pub value: RawBsonRef<'a>,
    pub dates: DateFormat,
    /// Fields to leave out, if it is a document.
    pub hidden: &'a [&'a str],
}

impl Serialize for ShownPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let RawBsonRef::Document(document) = self.value else {
            return ShownValue { value: self.value, dates: self.dates }.serialize(serializer);
        };
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in sorted_fields(document).map_err(S::Error::custom)? {
            if !self.hidden.contains(&key) {
                map.serialize_entry(key, &ShownValue { value, dates: self.dates })?;
            }
        }
        map.end()
    }
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
        let (stored, day) = (Bson::DateTime(bson::DateTime::from_millis(0)), 497_232_000_000_i64);
        for value in [
            json!("1985-10-04"),
            json!("1985-10-04T00:00:00Z"),
            json!("1985-10-04 00:00"),
            json!("1985-10-04T02:00:00+0200"),
            json!("Fri, 04 Oct 1985 00:00:00 GMT"),
            json!("Friday, 04-Oct-85 00:00:00 GMT"),
            json!("Fri Oct  4 00:00:00 1985"),
            json!("Fri Oct 04 1985 00:00:00 GMT+0000 (Coordinated Universal Time)"),
            json!(day),
        ] {
            let adopted = adopt(&value, Some(&stored), "dob").unwrap();
            assert_eq!(adopted, Bson::DateTime(bson::DateTime::from_millis(day)), "{value}");
            let (plain, text) = (adopt(&value, None, "dob").unwrap(), Bson::from("soon"));
            assert!(!matches!(plain, Bson::DateTime(_)), "a new field is what was sent: {value}");
            assert_eq!(adopt(&value, Some(&text), "dob").unwrap(), plain, "and so is one of text: {value}");
        }
        assert_eq!(adopt(&Value::Null, Some(&stored), "dob").unwrap(), Bson::Null);
        for value in [
            json!("soon"),
            json!(""),
            json!("04/10/1985"),
            json!(true),
            json!([]),
            json!({}),
            json!(0.5),
            json!(19_800_505),
            json!(497_279_100),
        ] {
            let error = adopt(&value, Some(&stored), "dob").unwrap_err().to_string();
            assert!(error.starts_with(&format!("dob: {value} is no date")), "{error}");
            assert!(error.contains("1985-10-04T13:05:00Z"), "{error}");
        }
    }

    #[test]
    fn what_was_a_date_in_another_version_is_one_again() {
        let date = |day: &str| Bson::DateTime(parse_date(day).unwrap());
        let was = Bson::Document(doc! {"d": date("2001-01-01"), "l": [date("2001-01-01")], "t": "x"});
        let now = Bson::Document(doc! {"d": null, "l": [], "t": "x"});
        for stored in [Some(&now), None] {
            let like = |value: Value| adopt_like(&value, stored, &[&was], "n");
            let again = like(json!({"d": "2002-02-02", "l": ["2003-03-03"], "t": "2004-04-04"})).unwrap();
            let expected = doc! {"d": date("2002-02-02"), "l": [date("2003-03-03")], "t": "2004-04-04"};
            assert_eq!(again, Bson::Document(expected));
            assert!(like(json!({"d": null, "l": [null]})).is_ok());
            for (value, field) in [(json!({"d": "soon"}), "n.d"), (json!({"l": ["soon"]}), "n.l.0")] {
                let error = like(value).unwrap_err().to_string();
                assert!(error.starts_with(field), "{error}");
            }
        }
        let text = Bson::from("soon");
        assert_eq!(
            adopt_like(&json!("later"), Some(&text), &[&date("2001-01-01")], "d").unwrap(),
            "later".into()
        );
    }

    #[test]
    fn dates_within_arrays_and_objects_stay_dates() {
        let date = |day: &str| Bson::DateTime(parse_date(day).unwrap());
        let stored = Bson::Document(doc! {"of": {"when": date("2001-01-01")}, "all": [date("2001-01-01")],
        "mixed": ["a", date("2001-01-01")], "rows": [{"when": date("2001-01-01")}]});
        let adopted = adopt(
            &json!({"of": {"when": "2002-01-01T00:00"}, "all": ["2002-01-01", "2003-01-01 00:00"],
                "mixed": ["b", "c", "2001-01-01T00:00:00Z"], "rows": [{"when": {"$date": 1}}]}),
            Some(&stored),
            "",
        );
        let expected = doc! {"of": {"when": date("2002-01-01")}, "all": [date("2002-01-01"), date("2003-01-01")],
        "mixed": ["b", "c", date("2001-01-01")],
        "rows": [{"when": bson::DateTime::from_millis(1)}]};
        assert_eq!(adopted.unwrap(), Bson::Document(expected));
        for (value, field) in [
            (json!({"of": {"when": "soon"}}), "of.when"),
            (json!({"all": ["soon"]}), "all.0"),
            (json!({"all": ["2001-01-01", 978_307_200_000_i64, true]}), "all.2"),
            (json!({"rows": [{"when": false}]}), "rows.0.when"),
        ] {
            let error = adopt(&value, Some(&stored), "").unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
