//! Floor 0. JSON values made BSON, with the types of what is stored.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bson::Bson;
use serde_json::Value;

use super::dates::{DATE_FORMS, date_of, parse_date};
use super::{DateFormat, JsonError, show_value};

/// The BSON value for a client's `value` at `path`, given what is stored there now.
///
/// Equal to what is shown: the stored value, with its type and precision. A date stays one: whatever is written to it
/// has to read as a date, or be null. A string onto a decimal that reads as one keeps that type. Anything else becomes
/// the plain BSON of the JSON: fields of text and new ones hold what clients like.
pub fn adopt(value: &Value, stored: Option<&Bson>, path: &str) -> Result<Bson, JsonError> {
    if let Some(stored) = stored {
        if is_shown_as(stored, value) {
            return Ok(stored.clone());
        }
        match (stored, value) {
            (Bson::DateTime(_), Value::Null) => {}
            (Bson::DateTime(_), _) => {
                let date = date_of(value).map(Bson::DateTime);
                return date.ok_or_else(|| JsonError::invalid(path, no_date(value)));
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

/// Why a value is refused where a date is stored.
fn no_date(value: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let shown: String = value.to_string().chars().take(SHOWN_CHARS_MAX).collect();
    format!("{shown} is no date, and a date is stored here. Send {DATE_FORMS}; null takes the date away")
}

/// An element that moved keeps its type too. Only where all elements are dates, each new one has to be one.
fn adopt_array(values: &[Value], stored: &[Bson], path: &str) -> Result<Vec<Bson>, JsonError> {
    // Made at the first element that is not where it was: comparing each with all would let one long
    // array hold a processor for minutes.
    let mut moved: Option<HashMap<u64, &Bson>> = None;
    let mut array = Vec::with_capacity(values.len());
    let are_dates = stored.iter().all(|old| matches!(old, Bson::DateTime(_)));
    for (index, value) in values.iter().enumerate() {
        let mut old = stored.get(index);
        if !old.is_some_and(|old| is_shown_as(old, value)) && !stored.is_empty() {
            let moved = moved.get_or_insert_with(|| by_fingerprint(stored));
            let elsewhere = moved.get(&fingerprint(value)).copied();
            old = elsewhere.filter(|old| is_shown_as(old, value)).or(old);
        }
        if are_dates && old.is_none() {
            old = stored.first();
        } else if !are_dates && matches!(old, Some(Bson::DateTime(_))) {
            // What only stands where a date was may be anything.
            let is_date = value.as_str().is_some_and(|text| parse_date(text).is_some());
            old = old.filter(|old| is_date || is_shown_as(old, value));
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
