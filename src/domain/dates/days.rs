//! Floor 0. Fields that hold a day, such as a date of birth, where a BSON date is stored.
//!
//! BSON has no days: one is stored as a moment, and everybody reads the day of that moment by UTC. What a client writes by
//! another clock, as the midnight of its own zone, is another day there. So the day that was written is stored.
//!
//! | field | in place of | what is written | is stored as |
//! |---|---|---|---|
//! | the record's own `dob` | any date | a date with an offset that is a day | the midnight in UTC of that day |
//! | another name of `DAY_NAMES` | a midnight in UTC | a date with an offset that is a day | the midnight in UTC of that day |
//! | another name of `DAY_NAMES` | any date | the midnight of a zone with an offset | the midnight in UTC of that day |
//! | any other | a midnight in UTC | the midnight of a zone with an offset | the midnight in UTC of that day |
//! | any but `dob` | any other moment | any other date with an offset | the moment that was written |
//!
//! [`crate::domain::json::adopt`] knows what a value takes the place of, at any depth and in lists, and asks here.

use chrono::NaiveTime;
use serde_json::Value;

use super::birth::{is_born_on, written_birth_day};
use super::{WrittenDate, written_date};

/// The field that people are told apart by. Its time, if it has one, never counts against its day.
const BIRTH_PATH: &str = "dob";
/// Names of fields that hold a day, wherever they stand; some programs write a time there too.
const DAY_NAMES: [&str; 9] = [
    "dob",
    "dod",
    "birth_date",
    "birthdate",
    "birthday",
    "date_of_birth",
    "death_date",
    "deathdate",
    "date_of_death",
];

/// Whether a field of this name holds a day, wherever it stands.
pub fn is_day_name(field: &str) -> bool {
    DAY_NAMES.contains(&field)
}

/// The day that `written` is, as its midnight in UTC; `None` where the moment that was written is stored.
///
/// `path` is dotted, with the places in lists. `holds_days`: a midnight in UTC is what the value takes the place of.
pub fn day_as_written(path: &str, written: &Value, holds_days: bool) -> Option<bson::DateTime> {
    let text = written.as_str().or_else(|| written.get("$date")?.as_str())?;
    let date = written_date(text)?;
    let is_midnight_written = date.local.time() == NaiveTime::MIN;
    let is_place_in_list = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let field = path.rsplit('.').find(|name| !is_place_in_list(name)).unwrap_or_default();
    let is_named_so = is_day_name(field) && (holds_days || is_midnight_written);
    if path == BIRTH_PATH || is_named_so {
        return moment_of_day(date);
    }
    (holds_days && is_midnight_written && date.offset_seconds != 0).then(|| midnight_of(date.local.date()))
}

/// Whether a stored date may be a day: a midnight in UTC.
pub fn is_day(stored: bson::DateTime) -> bool {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    stored.timestamp_millis().rem_euclid(DAY_MS) == 0
}

fn midnight_of(day: chrono::NaiveDate) -> bson::DateTime {
    bson::DateTime::from_millis(day.and_time(NaiveTime::MIN).and_utc().timestamp_millis())
}

/// The midnight in UTC of a day that is written by a clock of another zone; `None` where the moment itself says the same
/// day to everybody, as a time of birth in the middle of the day does.
fn moment_of_day(written: WrittenDate) -> Option<bson::DateTime> {
    let day = written_birth_day(written)?;
    let utc = written.utc()?;
    let is_time_of_that_day = written.local != day.into() && utc.date() == day && is_born_on(utc, day);
    (!is_time_of_that_day).then(|| midnight_of(day))
}
