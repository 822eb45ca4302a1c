//! Floor 0. JSON values made BSON: what stays a date, and which day a written date is.

use bson::{Bson, bson, doc};
use serde_json::{Value, json};

use super::*;
use crate::domain::dates::parse_date;

#[test]
fn dates_stay_dates_and_strings_stay_strings() {
    let (stored, day) = (Bson::DateTime(bson::DateTime::from_millis(0)), 497_232_000_000_i64);
    for value in [
        json!("1985-10-04"),
        json!("1985-10-04T00:00:00Z"),
        json!("1985-10-04 00:00"),
        json!("1985-10-04T02:00:00+0200"),
        json!("Fri, 04 Oct 1985 00:00:00 GMT"),
        json!("Friday, 04-Oct-85 00:00:00 GMT"),
        json!("Fri Oct  4 00:00:00 1985"),
        json!("Fri Oct 04 1985 00:00:00 GMT+0000 (Coordinated Universal Time)"),
        json!(day),
    ] {
        let adopted = adopt(&value, Some(&stored), "dob").unwrap();
        assert_eq!(adopted, Bson::DateTime(bson::DateTime::from_millis(day)), "{value}");
        let (plain, text) = (adopt(&value, None, "dob").unwrap(), Bson::from("soon"));
        assert!(!matches!(plain, Bson::DateTime(_)), "a new field is what was sent: {value}");
        assert_eq!(adopt(&value, Some(&text), "dob").unwrap(), plain, "and so is one of text: {value}");
    }
    assert_eq!(adopt(&Value::Null, Some(&stored), "dob").unwrap(), Bson::Null);
    for value in [
        json!("soon"),
        json!(""),
        json!("04/10/1985"),
        json!(true),
        json!([]),
        json!({}),
        json!(0.5),
        json!(19_800_505),
        json!(497_279_100),
    ] {
        let error = adopt(&value, Some(&stored), "dob").unwrap_err().to_string();
        assert!(error.starts_with(&format!("dob: {value} is no date")), "{error}");
        assert!(error.contains("1985-10-04T13:05:00Z"), "{error}");
    }
}

#[test]
fn what_was_a_date_in_another_version_is_one_again() {
    let date = |day: &str| Bson::DateTime(parse_date(day).unwrap());
    let was = Bson::Document(doc! {"d": date("2001-01-01"), "l": [date("2001-01-01")], "t": "x"});
    let now = Bson::Document(doc! {"d": null, "l": [], "t": "x"});
    for stored in [Some(&now), None] {
        let like = |value: Value| adopt_like(&value, stored, &[&was], "n");
        let again = like(json!({"d": "2002-02-02", "l": ["2003-03-03"], "t": "2004-04-04"})).unwrap();
        let expected = doc! {"d": date("2002-02-02"), "l": [date("2003-03-03")], "t": "2004-04-04"};
        assert_eq!(again, Bson::Document(expected));
        assert!(like(json!({"d": null, "l": [null]})).is_ok());
        for (value, field) in [(json!({"d": "soon"}), "n.d"), (json!({"l": ["soon"]}), "n.l.0")] {
            let error = like(value).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
    let text = Bson::from("soon");
    assert_eq!(
        adopt_like(&json!("later"), Some(&text), &[&date("2001-01-01")], "d").unwrap(),
        "later".into()
    );
}

#[test]
fn dates_within_arrays_and_objects_stay_dates() {
    let date = |day: &str| Bson::DateTime(parse_date(day).unwrap());
    let stored = Bson::Document(doc! {"of": {"when": date("2001-01-01")}, "all": [date("2001-01-01")],
    "mixed": ["a", date("2001-01-01")], "rows": [{"when": date("2001-01-01")}]});
    let adopted = adopt(
        &json!({"of": {"when": "2002-01-01T00:00"}, "all": ["2002-01-01", "2003-01-01 00:00"],
            "mixed": ["b", "c", "2001-01-01T00:00:00Z"], "rows": [{"when": {"$date": 1}}]}),
        Some(&stored),
        "",
    );
    let expected = doc! {"of": {"when": date("2002-01-01")}, "all": [date("2002-01-01"), date("2003-01-01")],
    "mixed": ["b", "c", date("2001-01-01")],
    "rows": [{"when": bson::DateTime::from_millis(1)}]};
    assert_eq!(adopted.unwrap(), Bson::Document(expected));
    for (value, field) in [
        (json!({"of": {"when": "soon"}}), "of.when"),
        (json!({"all": ["soon"]}), "all.0"),
        (json!({"all": ["2001-01-01", 978_307_200_000_i64, true]}), "all.2"),
        (json!({"rows": [{"when": false}]}), "rows.0.when"),
    ] {
        let error = adopt(&value, Some(&stored), "").unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}

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
    for (other, expected) in [("2020-01-01", "2026-02-01"), ("2020-01-01T09:30:00Z", "2026-01-31T22:00:00Z")]
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
