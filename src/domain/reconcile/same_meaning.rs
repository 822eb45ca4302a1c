//! Floor 0. When two values mean the same, although they are stored differently.
//!
//! Two versions of a record that meet without a common base were often written by two programs: one stores a date as
//! text and one as a date, one writes `70` and one `70.0`. [`same_meaning`] finds such pairs, so that nobody has to
//! decide between them. A merge with a base never asks it: there, types and bits count. Where a version was agreed on once and
//! it is not known any more which of two values is the later one, [`same_edit`] tells whether that matters.
//!
//! | values | mean the same if |
//! |---|---|
//! | numbers | they are equal without rounding: 70, 70.0, a 64-bit 70 and a decimal 70.00; a fraction in binary equals the decimal that it is written as (36.6), a whole number counts with all of its digits; 0 equals -0.0, NaN equals NaN |
//! | a number and a text | the field is a measured value (`MEASURED`) and the text is that number |
//! | a BSON date and a text | the text reads as the same moment, to the millisecond of BSON; without a zone it is UTC |
//! | a BSON date and a number | the number is that many milliseconds since 1970, and one that the API takes for a date ([`stored_moment`]) |
//! | two texts | both read as the same moment, to the nanosecond, and both can be nothing but dates: a month by its name, or `1985-10-04`. In a field that is named as a date every form counts |
//! | a person's `dob` | they are the same day, as identity has it (`same_birth_day`) |
//! | a person's `name`, `lastname` | they fold alike, as in search; for [`same_edit`] they are the same text, because to correct the spelling is an edit |
//! | a person's `gender`, `biological_sex` | they are words for one gender |
//! | other codes | the table of synonyms has them in one row (`CODES`) |
//! | a person's `roles` | they are the same set |
//! | the account that owns a record | the spellings differ in case only |
//! | arrays | they are of one length, and mean the same element by element |
//! | objects | they have the same keys, and mean the same under each |
//! | anything else | they are the same, see [`crate::domain::record::value`] |
//!
//! Secrets and ids are never compared by meaning. A missing value, null and an empty text are three values.
//!
//! The relation is reflexive and symmetric. It is no full equivalence: two texts that differ below the millisecond both
//! mean the one BSON date between them, a birth at a midnight on both sides of the date line agrees with two days, and
//! a text of digits only is a date beside a BSON date and none beside a text. That does no harm: two versions are
//! compared, the centre's stands as it is, and nothing is written, so no chain of values can drift.

use bson::{Bson, Document};
use chrono::NaiveDateTime;

use super::diff::is_identity;
use super::genders::same_gender;
use super::identity::{same_birth_day, same_name};
use crate::domain::dates::days::is_day_name;
use crate::domain::dates::{plain_date, stored_moment, written_date};
use crate::domain::record::schema::{Owner, Schema};
use crate::domain::record::value::{is_same_set, same};
use crate::domain::record::{Kind, fold_account};

/// Codes that programs write differently for one meaning: kind, field, synonyms.
const CODES: [(Kind, &str, &[&str]); 1] = [(Kind::Page, "social_context", &["transport", "transportation"])];

/// Values that were measured: fields of a measurement, and keys of the `measurements` of a page. A number may stand there
/// as text.
const MEASURED: [&[&str]; 20] = [
    &["bp", "systolic"],
    &["bp", "diastolic"],
    &["hr"],
    &["rr"],
    &["t"],
    &["osat"],
    &["bg"],
    &["wt"],
    &["ht"],
    &["bmi"],
    &["sleep", "sleeptime"],
    &["pa", "aerobic"],
    &["pa", "anaerobic"],
    &["pa", "steps"],
    &["nutrition", "calmorning"],
    &["nutrition", "calafternoon"],
    &["nutrition", "calevening"],
    &["nutrition", "caltotal"],
    &["mood_energy", "energy"],
    &["mood_energy", "mood"],
];

/// The field of a page of life that holds measured values.
const MEASUREMENTS_FIELD: &str = "measurements";

/// Longest text that is read as a number, in bytes.
const NUMBER_CHARS_MAX: usize = 40;

/// Whether two values at `path` of a record mean the same. An empty path is the record as a whole.
pub fn same_meaning(schema: &Schema, path: &[String], a: &Bson, b: &Bson) -> bool {
    Place::new(schema, path).agree(a, b)
}

/// [`same_meaning`] of an edit and what stands in its place.
pub fn same_edit(schema: &Schema, path: &[String], a: &Bson, b: &Bson) -> bool {
    Place { is_spelling_counted: true, ..Place::new(schema, path) }.agree(a, b)
}

/// [`same_edit`] for values that may be absent.
pub fn same_edit_option(schema: &Schema, path: &[String], a: Option<&Bson>, b: Option<&Bson>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_edit(schema, path, a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// [`same_meaning`] for values that may be absent: an absent one means the same as none but an absent one.
pub fn same_meaning_option(schema: &Schema, path: &[String], a: Option<&Bson>, b: Option<&Bson>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_meaning(schema, path, a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// Where two values stand. Places in arrays are no part of the path.
struct Place<'v> {
    schema: &'v Schema,
    path: Vec<&'v str>,
    is_in_array: bool,
    /// Whether two spellings of a name are two values.
    is_spelling_counted: bool,
}

impl<'v> Place<'v> {
    fn new(schema: &'v Schema, path: &'v [String]) -> Place<'v> {
        let path = path.iter().map(String::as_str).collect();
        Place { schema, path, is_in_array: false, is_spelling_counted: false }
    }

    fn agree(&mut self, a: &'v Bson, b: &'v Bson) -> bool {
        if same(a, b) {
            return true;
        }
        if self.path.first().is_some_and(|field| self.schema.is_secret(field) || is_identity(field)) {
            return false;
        }
        if self.agree_in_field(a, b) || self.same_moment(a, b) {
            return true;
        }
        match (a, b) {
            (Bson::Document(a), Bson::Document(b)) => self.agree_as_objects(a, b),
            (Bson::Array(a), Bson::Array(b)) => {
                let before = std::mem::replace(&mut self.is_in_array, true);
                let is_same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.agree(a, b));
                self.is_in_array = before;
                is_same
            }
            _ => self.same_number(a, b),
        }
    }

    fn agree_as_objects(&mut self, a: &'v Document, b: &'v Document) -> bool {
        a.len() == b.len()
            && a.iter().all(|(key, value)| {
                self.path.push(key);
                let is_same = b.get(key).is_some_and(|other| self.agree(value, other));
                self.path.pop();
                is_same
            })
    }

    /// By what the field is: a person's identity, a code, the owner.
    fn agree_in_field(&self, a: &Bson, b: &Bson) -> bool {
        let ([field], false) = (&self.path[..], self.is_in_array) else {
            return false;
        };
        let (kind, texts) = (self.schema.kind, a.as_str().zip(b.as_str()));
        match (kind, *field, texts) {
            (Kind::Person, "dob", _) => same_birth_day(a, b),
            (Kind::Person, "name" | "lastname", Some((a, b))) => !self.is_spelling_counted && same_name(a, b),
            (Kind::Person, "gender" | "biological_sex", Some((a, b))) => same_gender(a, b),
            (_, field, _) if self.schema.set_fields.contains(&field) => is_same_set(Some(a), Some(b)),
            (_, field, Some((a, b))) if matches!(self.schema.owner, Owner::Field(owner) if owner == field) => {
                !a.is_empty() && fold_account(a) == fold_account(b)
            }
            (_, _, Some((a, b))) => CODES.iter().any(|(of, code, synonyms)| {
                (*of, *code) == (kind, *field) && synonyms.contains(&a) && synonyms.contains(&b)
            }),
            _ => false,
        }
    }

    fn same_moment(&self, a: &Bson, b: &Bson) -> bool {
        let (Some(a), Some(b)) = (Written::read(a), Written::read(b)) else {
            return false;
        };
        use Form::{Date, Number, PlainText, Text};
        let is_date_field = self.is_named_as_date();
        match (a.form, b.form) {
            // A number is no date because of another number.
            (Number, Number) => false,
            (Date, _) | (_, Date) => a.milliseconds() == b.milliseconds(),
            (Number, PlainText) | (PlainText, Number) => a.milliseconds() == b.milliseconds(),
            (Number, Text) | (Text, Number) => is_date_field && a.milliseconds() == b.milliseconds(),
            (PlainText, PlainText) => a.utc == b.utc,
            (PlainText, Text) | (Text, PlainText) | (Text, Text) => is_date_field && a.utc == b.utc,
        }
    }

    /// Whether the field is named as dates are: what stands in it is no number, and no name of something.
    fn is_named_as_date(&self) -> bool {
        self.path.last().is_some_and(|key| {
            is_day_name(key) || matches!(*key, "date" | "timestamp") || key.ends_with("_date")
        })
    }

    fn same_number(&self, a: &Bson, b: &Bson) -> bool {
        let is_measured = self.is_measured();
        let read = |value: &Bson| match value {
            Bson::String(text) if is_measured => Number::of_text(text),
            value => Number::of(value),
        };
        matches!((read(a), read(b)), (Some(a), Some(b)) if a == b)
    }

    fn is_measured(&self) -> bool {
        let path = match (self.schema.kind, &self.path[..]) {
            (Kind::Measurement, path) => path,
            (Kind::Page, [MEASUREMENTS_FIELD, path @ ..]) => path,
            _ => return false,
        };
        MEASURED.contains(&path)
    }
}

/// How a moment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As a BSON date, or as the Extended JSON of one.
    Date,
    /// As text that can be nothing but a date.
    PlainText,
    /// As text that reads as a date, and may be something else: `20260102`, `2026.1.2`.
    Text,
    /// In milliseconds since 1970.
    Number,
}

/// A moment as a program wrote it.
struct Written {
    form: Form,
    utc: NaiveDateTime,
}

impl Written {
    fn read(value: &Bson) -> Option<Written> {
        let (form, utc) = match value {
            Bson::DateTime(_) | Bson::Document(_) => (Form::Date, stored_moment(value)?),
            Bson::Int64(_) | Bson::Double(_) => (Form::Number, stored_moment(value)?),
            Bson::String(text) => {
                let utc = written_date(text)?.utc()?;
                (if is_plain_date(text) { Form::PlainText } else { Form::Text }, utc)
            }
            _ => return None,
        };
        Some(Written { form, utc })
    }

    /// What is left of the moment in BSON.
    fn milliseconds(&self) -> i64 {
        self.utc.and_utc().timestamp_millis()
    }
}

/// Whether a text that reads as a date can be nothing else: it begins like `1985-10-04`, or it names the month.
fn is_plain_date(text: &str) -> bool {
    let text = plain_date(text);
    let is_iso = text.as_bytes().get(..10).is_some_and(|day| {
        day.iter()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() })
    });
    // What does not begin with the year has a month by its name. Behind the year, letters are a zone.
    let has_names = text.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word.len() >= 3);
    let is_year_first = text.as_bytes().get(..4).is_some_and(|year| year.iter().all(u8::is_ascii_digit));
    is_iso || (has_names && !is_year_first)
}

/// A number without its type: digits times a power of ten.
#[derive(Debug, PartialEq, Eq)]
enum Number {
    Nan,
    Infinite { is_negative: bool },
    Finite { is_negative: bool, digits: String, exponent: i64 },
}

impl Number {
    fn of(value: &Bson) -> Option<Number> {
        match value {
            Bson::Int32(number) => Number::read(&number.to_string()),
            Bson::Int64(number) => Number::read(&number.to_string()),
            Bson::Double(number) => Some(Number::of_double(*number)?),
            Bson::Decimal128(number) => Number::read(&number.to_string()),
            _ => None,
        }
    }

    /// A whole number by all of its digits; a fraction by the fewest that lead back to it.
    fn of_double(number: f64) -> Option<Number> {
        match number {
            _ if number.is_nan() => Some(Number::Nan),
            _ if number.is_infinite() => Some(Number::Infinite { is_negative: number < 0.0 }),
            _ if number.fract() == 0.0 => Number::read(&format!("{number:.0}")),
            _ => Number::read(&number.to_string()),
        }
    }

    /// A number as people type it: `70`, `-1.50`.
    fn of_text(text: &str) -> Option<Number> {
        let is_typed = text.len() <= NUMBER_CHARS_MAX
            && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
        is_typed.then(|| Number::read(text)).flatten()
    }

    /// Reads `-1.50`, `1E+3`, `NaN`, `-Infinity`.
    fn read(text: &str) -> Option<Number> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match text {
            "NaN" => return Some(Number::Nan),
            "Infinity" => return Some(Number::Infinite { is_negative }),
            _ => {}
        }
        let (mantissa, exponent) = text.split_once('E').unwrap_or((text, "0"));
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let exponent = exponent.parse::<i64>().ok()?;
        let significant = digits.trim_start_matches('0');
        let trimmed = significant.trim_end_matches('0');
        if trimmed.is_empty() {
            return Some(Number::Finite { is_negative: false, digits: String::new(), exponent: 0 });
        }
        let zeros = (significant.len() - trimmed.len()) as i64;
        let exponent = exponent - fraction.len() as i64 + zeros;
        Some(Number::Finite { is_negative, digits: trimmed.to_owned(), exponent })
    }
}
