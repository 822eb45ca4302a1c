//! Floor 0. What people are told apart by, compared by meaning: names without their typography, births by the day,
//! genders in the words and letters that are in use.

use bson::{Bson, Document};
use chrono::{Datelike as _, NaiveDate, NaiveDateTime, Timelike as _};

use super::folding::{fold_name, plain_text};
use super::json::{date_of, utc_of, written_date};

/// Genders as GNU Health (`f`), HL7 FHIR (`female`) and people who speak its languages write them, each behind the
/// one that stands for it. Nothing is known of somebody whose gender is "unknown".
const GENDERS: [(&str, &[&str]); 4] = [
    (
        "female",
        &[
            "f",
            "fem",
            "woman",
            "girl",
            "femenino",
            "femenina",
            "feminino",
            "feminina",
            "feminin",
            "feminine",
            "mujer",
            "mulher",
            "femme",
            "femminile",
            "femmina",
            "weiblich",
            "w",
            "frau",
            "kobieta",
            "kadin",
            "kvinna",
            "kvinne",
            "kvinde",
            "vrouw",
            "nu",
            "mwanamke",
            "женский",
            "жен",
            "ж",
            "महिला",
            "أنثى",
            "زن",
            "女",
            "女性",
        ],
    ),
    (
        "male",
        &[
            "m",
            "masc",
            "man",
            "boy",
            "masculino",
            "masculin",
            "masculine",
            "hombre",
            "homem",
            "homme",
            "varon",
            "maschile",
            "maschio",
            "mannlich",
            "mann",
            "mezczyzna",
            "erkek",
            "mand",
            "nam",
            "mwanamume",
            "мужской",
            "муж",
            "м",
            "पुरुष",
            "ذكر",
            "مرد",
            "男",
            "男性",
        ],
    ),
    ("non-binary", &["nb", "x"]),
    ("other", &["o"]),
];
const UNKNOWN_GENDERS: [&str; 25] = [
    "u",
    "unk",
    "unknown",
    "nd",
    "undisclosed",
    "non disclosed",
    "not known",
    "n/a",
    "none",
    "null",
    "not available",
    "not applicable",
    "not specified",
    "unspecified",
    "not stated",
    "desconocido",
    "desconocida",
    "sin especificar",
    "no especificado",
    "desconhecido",
    "inconnu",
    "non specifie",
    "sconosciuto",
    "unbekannt",
    "keine angabe",
];

/// Smaller numbers may be years, ages, days or seconds as well; somebody born in the first months of 1970 is compared as
/// typed.
const MOMENT_MS_MIN: u64 = 10_000_000_000;

/// Offsets of zones are whole quarters of an hour since this year (Liberia was the last to change).
const QUARTER_HOURS_YEAR_MIN: i32 = 1972;
/// From this hour on by UTC the next day begins somewhere: UTC+14:00.
const NEXT_DAY_HOUR_MIN: u32 = 10;
/// From this hour on a midnight of somewhere is nearer to the next day.
const NEAREST_DAY_HOUR_MIN: u32 = 12;

/// What is known of somebody in one of the fields of identity; `None` if nothing is.
pub(super) fn value_of(person: &Document, field: &str) -> Option<IdentityValue> {
    let value = person.get(field)?;
    let text = match value {
        Bson::String(text) if !text.trim().is_empty() => text,
        Bson::String(_) | Bson::Null | Bson::Undefined => return None,
        Bson::Array(values) if values.is_empty() => return None,
        Bson::Document(values) if values.is_empty() => return None,
        // In doubt people are kept apart: other types are compared as they are.
        other if field == "dob" => return Some(IdentityValue::Birth(birth_of(other))),
        other => return Some(IdentityValue::Text(other.to_string())),
    };
    match field {
        "dob" => Some(IdentityValue::Birth(birth_in(text))),
        "gender" => gender_of(text).map(IdentityValue::Text),
        _ => Some(IdentityValue::Text(name_of(text))),
    }
}

/// A value by which people are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdentityValue {
    Text(String),
    Birth(Birth),
}

impl IdentityValue {
    /// Whether both can be said of one person.
    pub(super) fn agrees(&self, other: &IdentityValue) -> bool {
        match (self, other) {
            (IdentityValue::Birth(a), IdentityValue::Birth(b)) => a.agrees(b),
            (a, b) => a == b,
        }
    }

    /// The same text for whatever certainly means the same, on every node.
    pub(super) fn canonical(self) -> String {
        match self {
            IdentityValue::Text(text) | IdentityValue::Birth(Birth::Unread(text)) => text,
            IdentityValue::Birth(Birth::Day(day)) => day.to_string(),
            IdentityValue::Birth(Birth::Moment { utc, written }) => {
                written.unwrap_or_else(|| nearest_day(utc)).to_string()
            }
        }
    }
}

/// A name, folded; one without letters and digits as it is typed.
fn name_of(text: &str) -> String {
    Some(fold_name(text)).filter(|folded| !folded.is_empty()).unwrap_or_else(|| plain_text(text))
}

fn gender_of(text: &str) -> Option<String> {
    let folded = fold_name(text);
    // A dash or a question mark.
    if folded.is_empty() {
        return None;
    }
    let is = |word: &str| fold_name(word) == folded;
    if UNKNOWN_GENDERS.into_iter().any(is) {
        return None;
    }
    let known = GENDERS.into_iter().find(|(name, words)| is(name) || words.iter().any(|word| is(word)));
    Some(known.map_or(folded, |(name, _)| name.to_owned()))
}

/// When somebody was born, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Birth {
    /// A day, or the midnight UTC that stands for one.
    Day(NaiveDate),
    /// A moment; `written` is its day by the clock of the zone that was written with it.
    Moment { utc: NaiveDateTime, written: Option<NaiveDate> },
    /// In doubt people are kept apart: what cannot be read is compared as it is typed.
    Unread(String),
}

/// A stored date; a large number is milliseconds since 1970, as clients write dates.
fn birth_of(value: &Bson) -> Birth {
    let is_moment = match value {
        Bson::Int64(ms) => ms.unsigned_abs() >= MOMENT_MS_MIN,
        Bson::Double(ms) => ms.abs() >= MOMENT_MS_MIN as f64,
        _ => false,
    };
    let date = is_moment.then(|| date_of(&value.clone().into_relaxed_extjson())).flatten();
    match date.map_or_else(|| utc_of(value), |date| utc_of(&Bson::DateTime(date))) {
        Some(utc) if is_midnight(utc) => Birth::Day(utc.date()),
        Some(utc) => Birth::Moment { utc, written: None },
        None => Birth::Unread(value.to_string()),
    }
}

fn birth_in(text: &str) -> Birth {
    let typed = plain_text(text);
    match written_date(&typed).and_then(|date| Some((date.local, date.utc()?))) {
        Some((local, _)) if is_midnight(local) => Birth::Day(local.date()),
        Some((local, utc)) => Birth::Moment { utc, written: Some(local.date()) },
        None => Birth::Unread(typed),
    }
}

impl Birth {
    fn agrees(&self, other: &Birth) -> bool {
        match (self, other) {
            (Birth::Day(day), Birth::Moment { utc, written })
            | (Birth::Moment { utc, written }, Birth::Day(day)) => {
                *written == Some(*day) || may_be_on(*utc, *day)
            }
            (Birth::Moment { utc: a, written: on_a }, Birth::Moment { utc: b, written: on_b }) => {
                a.date() == b.date()
                    || nearest_day(*a) == nearest_day(*b)
                    || on_a.is_some_and(|day| may_be_on(*b, day))
                    || on_b.is_some_and(|day| may_be_on(*a, day))
            }
            (a, b) => a == b,
        }
    }
}

/// Whether a stored moment may stand for this day: it is on the day by UTC, or is its midnight in a zone to the east.
fn may_be_on(utc: NaiveDateTime, day: NaiveDate) -> bool {
    let is_next =
        || is_local_midnight(utc) && utc.hour() >= NEXT_DAY_HOUR_MIN && utc.date().succ_opt() == Some(day);
    utc.date() == day || is_next()
}

/// The day whose midnight a moment is, where it may be one, and else its day by UTC.
fn nearest_day(utc: NaiveDateTime) -> NaiveDate {
    let is_next = is_local_midnight(utc) && utc.hour() >= NEAREST_DAY_HOUR_MIN;
    if is_next { utc.date().succ_opt().unwrap_or(utc.date()) } else { utc.date() }
}

fn is_midnight(time: NaiveDateTime) -> bool {
    time.num_seconds_from_midnight() == 0 && time.nanosecond() == 0
}

/// Whether it is midnight somewhere.
fn is_local_midnight(utc: NaiveDateTime) -> bool {
    let is_quarter = utc.minute().is_multiple_of(15) && utc.second() == 0;
    utc.nanosecond() == 0 && (is_quarter || utc.year() < QUARTER_HOURS_YEAR_MIN)
}
