//! Floor 0. JSON values made BSON, with the types of what is stored.

use bson::Bson;
use serde_json::Value;

use super::columns::{Column, Was, rows_before};
use super::{DateFormat, JsonError, show_value};
use crate::domain::dates::days::{day_as_written, is_day};
use crate::domain::dates::{DATE_FORMS, date_of, parse_date};

/// Longest name of a field as it stands in a path, in characters.
const NAMED_CHARS_MAX: usize = 128;

/// The BSON value for a client's `value` at `path`, given what is stored there now.
///
/// - Equal to what is shown: the stored value, with its type and precision.
/// - Equal to what is shown of another value under the same key path, the places in lists left out: that value. So the
///   rows of a list keep their types wherever they move.
/// - A date stays one: what is written to it has to read as a date, or be null. The same holds for all rows of a list
///   under a key path where dates, and nothing else, are stored. In a list that holds something else there too, a new
///   text is text, unless it is a date in the place of a date.
/// - A date onto a date may be a day, see [`crate::domain::dates::days`].
/// - A string onto a decimal that reads as one keeps that type.
/// - Anything else becomes the plain BSON of the JSON: fields of text and new ones hold what clients like.
pub fn adopt(value: &Value, stored: Option<&Bson>, path: &str) -> Result<Bson, JsonError> {
    adopt_like(value, stored, &[], path)
}

/// [`adopt`] where other versions of the field are known, of which only the types count: where nothing is stored, or null,
/// or an empty list, and others have dates and nothing else, a date is written, and a day where they have days.
pub fn adopt_like(
    value: &Value,
    stored: Option<&Bson>,
    others: &[&Bson],
    path: &str,
) -> Result<Bson, JsonError> {
    if let Some(old) = stored.filter(|old| is_shown_as(old, value)) {
        return Ok(old.clone());
    }
    let mut column = stored.map(Column::of);
    for other in others {
        column.get_or_insert_default().add_types(other);
    }
    adopt_in(value, Known { old: stored, is_certain: true, is_found: true, column: column.as_ref() }, path)
}

/// What is stored at the place of a value.
#[derive(Clone, Copy)]
struct Known<'c, 's> {
    old: Option<&'s Bson>,
    /// Whether `old` is what was at this place for certain; in a list it may be another row's.
    is_certain: bool,
    /// Whether `old` is of a row that was found by what it holds, and not by its place.
    is_found: bool,
    column: Option<&'c Column<'s>>,
}

impl Known<'_, '_> {
    /// Whether nothing but a date (or null) may be written here.
    fn takes_only_dates(&self, value: &Value) -> bool {
        let is_date = matches!(self.old, Some(Bson::DateTime(_)));
        let is_of_dates = self.column.is_some_and(|column| {
            column.is_of_dates()
                && !match value {
                    Value::Array(_) => column.has_lists,
                    // A list that becomes a document has other keys.
                    Value::Object(_) => matches!(self.old, Some(Bson::Array(_))),
                    _ => false,
                }
        });
        is_of_dates || (is_date && self.is_certain)
    }

    /// Whether a day stands here: in the row that this one was, or else in all rows.
    fn holds_days(&self) -> bool {
        match self.old {
            Some(Bson::DateTime(date)) if self.is_found => is_day(*date),
            _ => self.column.is_some_and(Column::is_of_days),
        }
    }

    /// The day that is written onto a date; `None` where that is another moment, or the one that is stored.
    fn written_day(&self, value: &Value, path: &str) -> Option<bson::DateTime> {
        let is_onto_date = matches!(self.old, Some(Bson::DateTime(_))) && value.is_string();
        if !is_onto_date && !self.takes_only_dates(value) {
            return None;
        }
        let day = day_as_written(path, value, self.holds_days())?;
        let is_stored = self.old.is_some_and(|old| date_of(value).map(Bson::DateTime).as_ref() == Some(old));
        (!is_stored).then_some(day)
    }
}

/// The dotted path of a field, for people: long names are cut, because each path below them repeats them.
fn path_below(path: &str, key: &str) -> String {
    let key = match key.char_indices().nth(NAMED_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &key[..end]),
        None => key.to_owned(),
    };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn adopt_in(value: &Value, known: Known<'_, '_>, path: &str) -> Result<Bson, JsonError> {
    if let Some(old) = known.old.filter(|old| is_shown_as(old, value)) {
        return Ok(old.clone());
    }
    if let Some(day) = known.written_day(value, path) {
        return Ok(Bson::DateTime(day));
    }
    if let Some(moved) = known.column.and_then(|column| column.moved(value)) {
        return Ok(moved.clone());
    }
    if !value.is_null() && known.takes_only_dates(value) {
        let date = date_of(value).map(Bson::DateTime);
        return date.ok_or_else(|| JsonError::invalid(path, no_date(value)));
    }
    match (known.old, value) {
        // A row of a list of this and that: a text in its place may be anything.
        (Some(Bson::DateTime(_)), Value::String(text)) => {
            if let Some(date) = parse_date(text) {
                return Ok(Bson::DateTime(date));
            }
        }
        (Some(Bson::Decimal128(_)), Value::String(text)) => {
            if let Ok(number) = text.parse() {
                return Ok(Bson::Decimal128(number));
            }
        }
        _ => {}
    }
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(truth) => Bson::Boolean(*truth),
        Value::Number(number) => adopt_number(number, path)?,
        Value::String(text) if text.contains('\0') => {
            return Err(JsonError::invalid(path, "a string with a NUL character"));
        }
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(values) => Bson::Array(adopt_array(values, known, path)?),
        Value::Object(map) => {
            let stored = known.old.and_then(Bson::as_document);
            let mut document = bson::Document::new();
            for (key, value) in map {
                let at = path_below(path, key);
                let column = known.column.and_then(|column| column.under(key));
                if column.is_none() {
                    check_key(key, &at)?;
                }
                let old = stored.and_then(|d| d.get(key));
                document.insert(key, adopt_in(value, Known { old, column, ..known }, &at)?);
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

fn adopt_array(values: &[Value], known: Known<'_, '_>, path: &str) -> Result<Vec<Bson>, JsonError> {
    let stored = known.old.and_then(Bson::as_array).map_or(&[][..], |stored| stored);
    let before = rows_before(values, stored);
    let mut array = Vec::with_capacity(values.len());
    for (index, (value, was)) in values.iter().zip(before).enumerate() {
        let (old, is_certain, is_found) = match was {
            // What takes the place of a single value is not that value.
            Was::Row(row) => (stored.get(row), known.is_certain && value.is_object(), known.is_found),
            Was::Perhaps(row) => (stored.get(row), false, known.is_found),
            Was::AtPlace(row) => (stored.get(row), false, false),
            Was::Unknown => (None, false, false),
        };
        let known = Known { old, is_certain, is_found, ..known };
        array.push(adopt_in(value, known, &format!("{path}.{index}"))?);
    }
    Ok(array)
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
pub(super) fn is_shown_as(stored: &Bson, value: &Value) -> bool {
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
