//! Floor 0. Documents as clients see them: `_id` and `id`, keys sorted, secrets left out, dates as Thalamus writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::{Bson, RawArray, RawBsonRef, RawDocument};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

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
}
