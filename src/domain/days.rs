//! Floor 0. Fields that hold a day, such as a date of birth, where a BSON date is stored.
//!
//! BSON has no days: one is stored as a moment, and everybody reads the day of that moment by UTC. What a client writes by
//! another clock, as the midnight of its own zone, is another day there. So the day that was written is stored.

use bson::Bson;
use serde_json::Value;

use super::identity::{is_born_on, written_birth_day};
use super::json::{WrittenDate, written_date};
use super::schema::Schema;

/// `adopted` with the days that were written in `written`, for the value at `path` of a record; empty for the whole record.
/// What is as it was `stored` stays so, and so does a text.
pub fn keep_written_days(
    schema: &Schema,
    path: &[String],
    written: &Value,
    stored: Option<&Bson>,
    adopted: Bson,
) -> Bson {
    match (path, adopted) {
        ([field], adopted) if schema.day_fields.contains(&field.as_str()) => {
            day_as_written(written, stored, adopted)
        }
        ([], Bson::Document(mut record)) => {
            for field in schema.day_fields {
                let stored = stored.and_then(Bson::as_document).and_then(|stored| stored.get(field));
                if let (Some(written), Some(adopted)) = (written.get(field), record.get_mut(field)) {
                    *adopted = day_as_written(written, stored, adopted.clone());
                }
            }
            Bson::Document(record)
        }
        (_, adopted) => adopted,
    }
}

fn day_as_written(written: &Value, stored: Option<&Bson>, adopted: Bson) -> Bson {
    if !matches!(adopted, Bson::DateTime(_)) || stored == Some(&adopted) {
        return adopted;
    }
    let text = written.as_str().or_else(|| written.get("$date")?.as_str());
    text.and_then(written_date).and_then(moment_of_day).map_or(adopted, Bson::DateTime)
}

/// The midnight in UTC of a day that is written by a clock of another zone; `None` where the moment itself says the same
/// day to everybody, as a time of birth in the middle of the day does.
fn moment_of_day(written: WrittenDate) -> Option<bson::DateTime> {
    let day = written_birth_day(written)?;
    let utc = written.utc()?;
    let is_time_of_that_day = written.local != day.into() && utc.date() == day && is_born_on(utc, day);
    (!is_time_of_that_day).then(|| {
        bson::DateTime::from_millis(day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::json::{adopt, parse_date};
    use crate::domain::record::Kind;

    fn written(value: &Value, stored: &str, kind: Kind, field: &str) -> Bson {
        let stored = Bson::DateTime(parse_date(stored).unwrap());
        let adopted = adopt(value, Some(&stored), field).unwrap();
        keep_written_days(kind.schema(), &[field.to_owned()], value, Some(&stored), adopted)
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
            let found = written(&value, "1985-10-04", Kind::Person, "dob");
            assert_eq!(found, Bson::DateTime(parse_date(expected).unwrap()), "{value}");
        }
    }

    #[test]
    fn what_is_stored_already_and_what_is_no_day_keeps_its_moment() {
        let value = json!("1990-02-01T00:00:00+02:00");
        let moment = Bson::DateTime(parse_date("1990-01-31T22:00:00Z").unwrap());
        assert_eq!(written(&value, "1990-01-31T22:00:00Z", Kind::Person, "dob"), moment);
        assert_eq!(written(&value, "1985-10-04", Kind::Person, "date"), moment);
        assert_eq!(written(&value, "1985-10-04", Kind::Page, "page_date"), moment);
        let text = Bson::from("1990-02-01T00:00:00+02:00");
        let path = ["dob".to_owned()];
        assert_eq!(keep_written_days(Kind::Person.schema(), &path, &value, None, text.clone()), text);
    }

    #[test]
    fn whole_records_keep_their_days_too() {
        let stored =
            bson::doc! {"dob": parse_date("1985-10-04").unwrap(), "seen": parse_date("1985-10-04").unwrap()};
        let stored = Bson::Document(stored);
        let value = json!({"dob": "1990-02-01T00:00:00+02:00", "seen": "1990-02-01T00:00:00+02:00"});
        let adopted = adopt(&value, Some(&stored), "").unwrap();
        let found = keep_written_days(Kind::Person.schema(), &[], &value, Some(&stored), adopted);
        let expected = bson::doc! {
            "dob": parse_date("1990-02-01").unwrap(), "seen": parse_date("1990-01-31T22:00:00Z").unwrap()
        };
        assert_eq!(found, Bson::Document(expected));
    }
}
