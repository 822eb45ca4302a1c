//! Floor 0. Fields that hold a day, such as a date of birth, where a BSON date is stored.
//!
//! BSON has no days: one is stored as a moment, and everybody reads the day of that moment by UTC. What a client writes by
//! another clock, as the midnight of its own zone, is another day there. So the day that was written is stored.
//!
//! | in place of | what is written | is stored as |
//! |---|---|---|
//! | anything, in a field of days (`DAY_NAMES`) | a date with an offset that is a day | the midnight in UTC of that day |
//! | a midnight in UTC, in any field | the midnight of a zone with an offset | the midnight in UTC of that day |
//! | any other moment | a date with an offset | the moment that was written |
//!
//! This holds at any depth, in objects and in lists.

use bson::Bson;
use chrono::NaiveTime;
use serde_json::Value;

use super::identity::{is_born_on, written_birth_day};
use super::json::{WrittenDate, written_date};

/// Names of fields that hold a day and no moment, wherever they stand.
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

/// `adopted` with the days that were written in `written`. `field` is the name of the field, or empty for a whole record. What is
/// as it was `stored` stays so, and so does a text.
pub fn keep_written_days(field: &str, written: &Value, stored: Option<&Bson>, adopted: Bson) -> Bson {
    match adopted {
        adopted if stored == Some(&adopted) => adopted,
        Bson::DateTime(_) => day_as_written(field, written, stored).unwrap_or(adopted),
        Bson::Document(mut record) => {
            let stored = stored.and_then(Bson::as_document);
            for (name, value) in record.iter_mut() {
                if let Some(written) = written.get(name) {
                    let before = stored.and_then(|stored| stored.get(name));
                    *value = keep_written_days(name, written, before, value.clone());
                }
            }
            Bson::Document(record)
        }
        Bson::Array(values) => {
            let stored = stored.and_then(Bson::as_array);
            let kept = values.into_iter().enumerate().map(|(at, value)| match written.get(at) {
                Some(written) => {
                    let before = stored.and_then(|stored| stored.get(at));
                    keep_written_days(field, written, before, value)
                }
                None => value,
            });
            Bson::Array(kept.collect())
        }
        adopted => adopted,
    }
}

/// The day that was written, if it is one.
fn day_as_written(field: &str, written: &Value, stored: Option<&Bson>) -> Option<Bson> {
    let text = written.as_str().or_else(|| written.get("$date")?.as_str())?;
    let date = written_date(text)?;
    let day = match DAY_NAMES.contains(&field) {
        true => moment_of_day(date)?,
        false if date.offset_seconds != 0 && date.local.time() == NaiveTime::MIN && is_midnight(stored?) => {
            midnight_of(date.local.date())
        }
        false => return None,
    };
    Some(Bson::DateTime(day))
}

/// Whether what is stored may be a day: a midnight in UTC.
fn is_midnight(stored: &Bson) -> bool {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    matches!(stored, Bson::DateTime(date) if date.timestamp_millis().rem_euclid(DAY_MS) == 0)
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

#[cfg(test)]
mod tests {
    use bson::{bson, doc};
    use serde_json::json;

    use super::*;
    use crate::domain::json::{adopt, parse_date};

    fn date(text: &str) -> Bson {
        Bson::DateTime(parse_date(text).unwrap())
    }

    fn kept(value: &Value, stored: &Bson, field: &str) -> Bson {
        let adopted = adopt(value, Some(stored), field).unwrap();
        keep_written_days(field, value, Some(stored), adopted)
    }

    #[test]
    fn the_day_that_was_written_is_the_day() {
        for (value, expected) in [
            (json!("1990-02-01"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00Z"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00+02:00"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00+05:30"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00+09:00"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00+14:00"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00-03:00"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00-12:00"), "1990-02-01T00:00:00Z"),
            (json!("Thu Feb 01 1990 00:00:00 GMT+0100 (CET)"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T00:00:00+01:00[Europe/Madrid]"), "1990-02-01T00:00:00Z"),
            (json!({"$date": "1990-02-01T00:00:00+02:00"}), "1990-02-01T00:00:00Z"),
            // The end of the day.
            (json!("1990-02-01T24:00:00Z"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T24:00"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T24:00:00+02:00"), "1990-02-01T00:00:00Z"),
            // Times whose day by UTC is another one, or might be taken for the midnight of another one.
            (json!("1990-02-01T21:00:00-05:00"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T01:30:00+05:30"), "1990-02-01T00:00:00Z"),
            (json!("1990-02-01T22:00:00+02:00"), "1990-02-01T00:00:00Z"),
            // Times of the day, which stay.
            (json!("1990-02-01T10:05:00+02:00"), "1990-02-01T08:05:00Z"),
            (json!("1990-02-01T13:05:00-03:00"), "1990-02-01T16:05:00Z"),
            // Written in UTC: a moment.
            (json!("1990-01-31T22:00:00Z"), "1990-01-31T22:00:00Z"),
            (json!({"$date": 633_823_200_000_i64}), "1990-01-31T22:00:00Z"),
            (json!(633_823_200_000_i64), "1990-01-31T22:00:00Z"),
        ] {
            // Whatever was stored.
            for stored in ["1985-10-04", "1985-10-04T13:05:00Z"] {
                for field in ["dob", "dod", "date_of_death"] {
                    assert_eq!(kept(&value, &date(stored), field), date(expected), "{field}: {value}");
                }
            }
        }
    }

    /// A field that holds a day is known by what it holds.
    #[test]
    fn a_stored_day_stays_a_day_and_a_stored_moment_a_moment() {
        for (stored, value, expected) in [
            ("2020-01-01", "2026-02-01T00:00:00+02:00", "2026-02-01"),
            ("2020-01-01", "2026-02-01T00:00:00-05:00", "2026-02-01"),
            ("2020-01-01", "2026-02-01T21:00:00-05:00", "2026-02-02T02:00:00Z"),
            ("2020-01-01", "2026-02-01T00:00:00Z", "2026-02-01"),
            ("2020-01-01", "2026-02-01T24:00:00Z", "2026-02-02"),
            ("2020-01-01T09:30:00Z", "2026-02-01T00:00:00+02:00", "2026-01-31T22:00:00Z"),
            ("2026-01-31T22:00:00Z", "2026-02-01T00:00:00+02:00", "2026-01-31T22:00:00Z"),
        ] {
            for field in ["created", "page_date", "date"] {
                assert_eq!(kept(&json!(value), &date(stored), field), date(expected), "{stored}: {value}");
            }
        }
    }

    #[test]
    fn what_is_stored_already_and_what_is_text_stays() {
        let value = json!("1990-02-01T00:00:00+02:00");
        let moment = date("1990-01-31T22:00:00Z");
        assert_eq!(keep_written_days("dob", &value, Some(&moment), moment.clone()), moment);
        let text = Bson::from("1990-02-01T00:00:00+02:00");
        assert_eq!(keep_written_days("dob", &value, None, text.clone()), text);
    }

    #[test]
    fn days_are_kept_at_any_depth() {
        let old = date("1985-10-04");
        let stored = bson!({"dob": old.clone(), "seen": date("1985-10-04T09:30:00Z"), "child": {"dob": old.clone()},
            "visits": [old.clone(), {"on": old.clone()}]});
        let day = "1990-02-01T00:00:00+02:00";
        let value = json!({"dob": day, "seen": day, "child": {"dob": day}, "visits": [day, {"on": day}]});
        let new = date("1990-02-01");
        let expected = doc! {"dob": new.clone(), "seen": date("1990-01-31T22:00:00Z"), "child": {"dob": new.clone()},
        "visits": [new.clone(), {"on": new}]};
        assert_eq!(kept(&value, &stored, ""), Bson::Document(expected));
    }
}
