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
//! [`super::json::adopt`] knows what a value takes the place of, at any depth and in lists, and asks here.

use chrono::NaiveTime;
use serde_json::Value;

use super::identity::{is_born_on, written_birth_day};
use super::json::{WrittenDate, written_date};

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

#[cfg(test)]
mod tests {
    use bson::{Bson, bson, doc};
    use serde_json::json;

    use super::*;
    use crate::domain::json::{adopt, adopt_like, parse_date};

    fn date(text: &str) -> Bson {
        Bson::DateTime(parse_date(text).unwrap())
    }

    fn kept(value: &Value, stored: &Bson, field: &str) -> Bson {
        adopt(value, Some(stored), field).unwrap()
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
            // Whatever was stored in `dob`, and in place of a day elsewhere.
            assert_eq!(kept(&value, &date("1985-10-04T13:05:00Z"), "dob"), date(expected), "{value}");
            for field in ["dob", "dod", "child.date_of_death", "child.dob", "dods.0.dod"] {
                assert_eq!(kept(&value, &date("1985-10-04"), field), date(expected), "{field}: {value}");
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

    /// A time of death has no other field, so it stays one.
    #[test]
    fn a_time_is_dropped_from_birth_dates_only() {
        let moment = date("2020-01-01T09:30:00Z");
        for (value, expected) in [
            ("2026-02-01T21:00:00-05:00", "2026-02-02T02:00:00Z"),
            ("2026-02-01T01:30:00+05:30", "2026-01-31T20:00:00Z"),
            ("2026-02-01T10:05:00+02:00", "2026-02-01T08:05:00Z"),
            // A midnight that is written is a day.
            ("2026-02-01T00:00:00+02:00", "2026-02-01"),
            ("2026-02-01T24:00:00+02:00", "2026-02-01"),
        ] {
            for field in ["dod", "date_of_death", "child.dob"] {
                assert_eq!(kept(&json!(value), &moment, field), date(expected), "{field}: {value}");
            }
        }
        assert_eq!(kept(&json!("2026-02-01T21:00:00-05:00"), &moment, "dob"), date("2026-02-01"));
    }

    /// In lists a value takes the place of the row that it was, and a new one is like the others.
    #[test]
    fn rows_of_lists_are_days_where_days_were() {
        let new = "2026-02-01T00:00:00+02:00";
        let (midnight, day, moment) = (date("2020-01-01"), date("2026-02-01"), date("2026-01-31T22:00:00Z"));
        let (shown, time) = ("2020-01-01T00:00:00Z", date("2020-01-01T09:30:00Z"));
        let shown_time = "2020-01-01T09:30:00Z";
        for (stored, value, expected) in [
            // A new row.
            (bson!([midnight.clone()]), json!([shown, new]), bson!([midnight.clone(), day.clone()])),
            (bson!([midnight.clone()]), json!([new, shown]), bson!([day.clone(), midnight.clone()])),
            (bson!([time.clone()]), json!([shown_time, new]), bson!([time.clone(), moment.clone()])),
            (
                bson!([{"on": midnight.clone()}]),
                json!([{"on": shown}, {"on": new}]),
                bson!([{"on": midnight.clone()}, {"on": day.clone()}]),
            ),
            // A row was removed.
            (
                bson!([{"n": 1, "on": midnight.clone()}, {"n": 2, "on": time.clone()}]),
                json!([{"n": 2, "on": new}]),
                bson!([{"n": 2, "on": moment.clone()}]),
            ),
            (
                bson!([{"n": 1, "on": time.clone()}, {"n": 2, "on": midnight.clone()}]),
                json!([{"n": 2, "on": new}]),
                bson!([{"n": 2, "on": day.clone()}]),
            ),
            // Rows that cannot be told from each other, of days and moments.
            (
                bson!([midnight.clone(), time.clone(), time.clone()]),
                json!([new, "2026-02-02T00:00:00+02:00"]),
                bson!([moment.clone(), date("2026-02-01T22:00:00Z")]),
            ),
            // Another row has the same moment.
            (
                bson!([{"n": 1, "on": moment.clone()}, {"n": 2, "on": midnight.clone()}]),
                json!([{"n": 1, "on": "2026-01-31T22:00:00Z"}, {"n": 2, "on": new}]),
                bson!([{"n": 1, "on": moment.clone()}, {"n": 2, "on": day.clone()}]),
            ),
            // A row had none.
            (
                bson!([{"n": 1, "on": midnight.clone()}, {"n": 2, "on": null}]),
                json!([{"n": 1, "on": shown}, {"n": 2, "on": new}]),
                bson!([{"n": 1, "on": midnight.clone()}, {"n": 2, "on": day.clone()}]),
            ),
        ] {
            assert_eq!(kept(&value, &stored, "visits"), expected, "{stored} {value}");
        }
    }

    #[test]
    fn where_nothing_is_stored_other_versions_say_what_is_a_day() {
        let value = json!("2026-02-01T00:00:00+02:00");
        for (other, expected) in
            [("2020-01-01", "2026-02-01"), ("2020-01-01T09:30:00Z", "2026-01-31T22:00:00Z")]
        {
            let other = date(other);
            for stored in [None, Some(&Bson::Null)] {
                let found = adopt_like(&value, stored, &[&other], "created").unwrap();
                assert_eq!(found, date(expected), "{other}");
            }
        }
    }

    #[test]
    fn what_is_stored_already_and_what_is_text_stays() {
        let value = json!("1990-02-01T00:00:00+02:00");
        let moment = date("1990-01-31T22:00:00Z");
        assert_eq!(kept(&value, &moment, "dob"), moment);
        assert_eq!(kept(&value, &Bson::from("1990"), "dob"), Bson::from("1990-02-01T00:00:00+02:00"));
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
