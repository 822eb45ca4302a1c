//! Floor 0. What people are told apart by, compared by meaning: names without their typography, births by the day,
//! genders by what their words mean.

use bson::{Bson, Document};
use chrono::NaiveDateTime;

use super::genders::gender_of;
use crate::domain::dates::{Birth, birth_in, birth_of, moment_of};
use crate::domain::text::folding::{beginning, fold_name, plain_text};

/// Whether two texts are one name: they differ in case, accents and other typography at most.
pub(super) fn same_name(a: &str, b: &str) -> bool {
    name_of(a) == name_of(b)
}

/// Whether two values are a birth on the same day, in the latitude that days have which were stored as moments. What
/// cannot be read as a day is no birth.
pub(super) fn same_birth_day(a: &Bson, b: &Bson) -> bool {
    let read = |value: &Bson| match value {
        Bson::String(text) => birth_in(text),
        other => birth_of(other),
    };
    match (read(a), read(b)) {
        (Birth::Unread(_), _) | (_, Birth::Unread(_)) => false,
        (a, b) => a.agrees(&b),
    }
}

/// What is known of somebody in one of the fields of identity; `None` if nothing is.
pub(super) fn value_of(person: &Document, field: &str) -> Option<IdentityValue> {
    let value = person.get(field)?;
    let text = match value {
        Bson::String(text) if !text.trim().is_empty() => text,
        Bson::String(_) | Bson::Null | Bson::Undefined => return None,
        Bson::Array(values) if values.is_empty() => return None,
        Bson::Document(values) if values.is_empty() => return None,
        // In doubt people are kept apart: other types are compared as they are.
        other if field == "dob" => return Some(IdentityValue::Birth(birth_of(other), moment_of(other))),
        Bson::Int32(_) | Bson::Int64(_) if field == "gender" => {
            return gender_of(&value.to_string()).map(IdentityValue::Text);
        }
        other => return Some(IdentityValue::Text(other.to_string())),
    };
    // What is kept to tell people apart is no more of it.
    let text = beginning(text);
    match field {
        "dob" => Some(IdentityValue::Birth(birth_in(text), moment_of(value))),
        "gender" => gender_of(text).map(IdentityValue::Text),
        _ => Some(IdentityValue::Text(name_of(text))),
    }
}

/// A value by which people are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdentityValue {
    Text(String),
    /// The day, and the moment that was written for it, by UTC.
    Birth(Birth, Option<NaiveDateTime>),
}

impl IdentityValue {
    /// Whether both can be said of one person.
    pub(super) fn agrees(&self, other: &IdentityValue) -> bool {
        match (self, other) {
            // A date that a program wrote as text without its zone is the same date.
            (IdentityValue::Birth(a, moment), IdentityValue::Birth(b, other)) => {
                a.agrees(b) || (moment.is_some() && moment == other)
            }
            (a, b) => a == b,
        }
    }

    /// The same text for whatever certainly means the same, on every node.
    pub(super) fn canonical(self) -> String {
        match self {
            IdentityValue::Text(text) | IdentityValue::Birth(Birth::Unread(text), _) => text,
            IdentityValue::Birth(Birth::Day(day), _) => day.to_string(),
            IdentityValue::Birth(Birth::DayOrNext(day), _) => format!("{day} or the next day"),
        }
    }
}

/// A name, folded; one without letters and digits as it is typed.
fn name_of(text: &str) -> String {
    Some(fold_name(text)).filter(|folded| !folded.is_empty()).unwrap_or_else(|| plain_text(text))
}
