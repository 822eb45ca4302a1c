//! Dates in every form that people and programs write, and what is none.

use super::*;
use serde_json::json;

/// 1985-10-04, typed by all kinds of people and programs.
const DAYS: [&str; 30] = [
    "1985-10-04",
    "1985–10–04",
    "1985\u{2011}10\u{2011}04",
    "1985\u{2010}10\u{2010}04",
    "1985—10—04",
    "1985\u{2212}10\u{2212}04",
    "1985－10－04",
    "1985-10-4",
    "1985/10/04",
    "1985／10／04",
    "1985\u{2044}10\u{2044}04",
    "1985.10.04",
    "1985. 10. 4",
    "1985．10．04",
    "1985 10 04",
    "1985\u{A0}10\u{202F}04",
    "1985 - 10 - 04",
    "19851004",
    "１９８５-１０-０４",
    "١٩٨٥/١٠/٠٤",
    "۱۹۸۵/۱۰/۴",
    "१९८५-१०-०४",
    "1985年10月4日",
    "１９８５年１０月０４日",
    "1985年 10月 4日",
    "1985년 10월 4일",
    "1985-10-04Z",
    "1985-277",
    "1985-W40-5",
    "1985W405",
];

#[test]
fn every_unambiguous_form_is_read() {
    for text in [
        "1985-10-04T13:05:00Z",
        "1985-10-04t13:05:00z",
        "1985-10-04T13:05:00",
        "1985-10-04 13:05:00",
        "1985-10-04T13:05",
        "1985-10-04 13:05",
        " 1985-10-04T13:05:00Z ",
        "1985-10-04T13:05:00+0000",
        "1985-10-04T13:05:00+00",
        "1985-10-04T13:05:00+00:00",
        "1985-10-04T15:05:00+0200",
        "1985-10-04T15:05+02:00",
        "1985-10-04T08:05:00 -05:00",
        "1985-10-04 13:05:00 +0000",
        "1985-10-04 13:05:00 UTC",
        "1985-10-04 13:05:00 +0000 UTC",
        "1985-10-04T13:05:00.000Z",
        "1985-10-04T13:05:00.0004567",
        "1985-10-04T13:05:00,000Z",
        "19851004T130500Z",
        "19851004T1305Z",
        "1985-10-04T130500Z",
        "1985-10-04T1305",
        "19851004 13:05",
        "19851004130500",
        "198510041305Z",
        "19851004150500+0200",
        "1985/10/04 13:05",
        "1985.10.4 13:05:00",
        "1985-277T13:05Z",
        "1985-W40-5T13:05Z",
        "497279100000",
        "\u{FEFF}1985-10-04T13:05:00Z\u{200E}",
        "1985\u{2011}10\u{2011}04T11:05:00\u{2212}02:00 ",
        "1985年10月4日 13:05",
        "1985년 10월 4일 13：05",
        "Fri, 04 Oct 1985 13:05:00 GMT",
        "Fri, 4 Oct 1985 13:05:00 GMT",
        "fri, 04 oct 1985 13:05:00 gmt",
        "Fri, 04 Oct 1985 13:05:00 +0000",
        "Fri, 04 Oct 1985 13:05 +0000",
        "Fri, 04 Oct 1985 09:05:00 EDT",
        "04 Oct 1985 13:05:00 +0000",
        "4 October 1985 13:05",
        "Friday, 04-Oct-85 13:05:00 GMT",
        "Friday, 04-Oct-1985 13:05:00 GMT",
        "Fri Oct  4 13:05:00 1985",
        "Fri Oct  4 13:05:00 UTC 1985",
        "Fri Oct 04 1985 13:05:00 GMT+0000 (Coordinated Universal Time)",
        "Fri Oct 04 1985 15:05:00 GMT+0200 (Mitteleuropäische Sommerzeit)",
        "Fri Oct 04 1985 15:05:00 GMT+0200 (GMT+02:00)",
        "Fri Oct 04 1985 15:05:00 GMT+0200 (GMT+2)",
        "Fri Oct 04 1985 09:35:00 GMT-0330 (GMT-3:30)",
        "Fri Oct 04 1985 10:05:00 GMT-0300 (-03)",
        "Fri Oct 04 1985 07:05:00 GMT-0600 (Central Standard Time (Mexico))",
        "Fri, 4 Oct 1985 15:05:00 +0200 (CEST)",
        "Fri Oct 04 1985 18:35:00 GMT+0530",
        "1985-10-04 1:05 pm",
        "1985-10-04 01:05:00 PM",
        "1985/10/4 1:05PM UTC",
        "Oct 4, 1985, 1:05:00\u{202F}PM",
        "4 Oct 1985 11:05 a.m. -0200",
        "October 4th, 1985 13:05",
        "4th October 1985, 1:05 PM",
    ] {
        assert_eq!(parse_date(text).map(|d| d.timestamp_millis()), Some(497_279_100_000), "{text}");
    }
    let at = |text: &str| parse_date(text).map(|date| date.timestamp_millis());
    assert_eq!(at("1985-10-04"), Some(497_232_000_000));
    assert_eq!(at("Fri Oct 04 1985"), Some(497_232_000_000));
    for day in DAYS {
        assert_eq!(at(day), Some(497_232_000_000), "{day}");
    }
    assert_eq!(at("1985-10-04 12:00:00 AM"), Some(497_232_000_000));
    assert_eq!(at("1985-10-04 12:05 PM"), at("1985-10-04T12:05"));
    for end in ["1985-10-03T24:00", "1985-10-03T24:00:00.000Z", "1985-10-04T02:00+02:00[Africa/Maputo]"] {
        assert_eq!(at(end), Some(497_232_000_000), "{end}");
    }
    for zoned in ["[UTC]", "[Europe/Madrid]", "[Etc/GMT+3][u-ca=hebrew]", "[!u-ca=gregory]"] {
        assert_eq!(at(&format!("1985-10-04T00:00Z{zoned}")), Some(497_232_000_000), "{zoned}");
    }
    assert_eq!(at("1985-10-04+02:00"), Some(497_224_800_000));
    assert_eq!(at("1985-10-04-05:00"), Some(497_250_000_000));
    assert_eq!(at("-62135596800"), at("1968-01-12T20:06:43.200Z"));
    assert_eq!(at("2020-W53-5"), at("2021-01-01"));
    assert_eq!(at("2024-366"), at("2024-12-31"));
    assert_eq!(at("1985-10-04T13:05:00.25Z"), Some(497_279_100_250));
    assert_eq!(at("1985-10-04T13:05:00.2509999Z"), Some(497_279_100_250), "cut off, not rounded");
    assert_eq!(at("1935-10-04T13:05:00.2509999Z"), Some(-1_080_644_099_750));
    assert_eq!(at("2016-12-31T23:59:60Z"), at("2017-01-01T00:00:00Z"));
    // The weekday of RFC 850 says which century is meant.
    assert_eq!(at("Sunday, 06-Nov-94 08:49:37 GMT"), at("1994-11-06T08:49:37Z"));
    assert_eq!(at("Sunday, 06-Nov-05 08:49:37 GMT"), at("2005-11-06T08:49:37Z"));
}

#[test]
fn what_has_no_one_meaning_is_no_date() {
    for text in [
        "",
        "soon",
        "04/10/1985",
        "4.10.1985",
        "10-04-1985",
        "1985",
        "1985-10",
        "1985100",
        "1985277",
        "851004",
        "1985-10/04",
        "1985-366",
        "1985-000",
        "1985-W53-1",
        "1985-W40-8",
        "1985-W40",
        "1985-10-041305",
        "19851304",
        "1985-10-04T1:5",
        "1985-10-04T105",
        "497278620",
        "4972786200000000",
        "199002010730",
        "1985-10-04 x",
        "年月日",
        "10月4日",
        "1985-13-01",
        "1985-02-30",
        "1985-10-04T25:00:00Z",
        "1985-10-04T24:00:01Z",
        "1985-10-04T24:00:00.5Z",
        "1985-10-04 24:00 pm",
        "1985-10-04-05",
        "1985-10-04-00",
        "1985-10-04-0500",
        "1985-10-04T13:05[Europe/Madrid]",
        "Fri Oct 04 1985 15:05:00 GMT+0200 (GMT+3)",
        "Fri Oct 04 1985 15:05:00 GMT+0200 (GMT-02:00)",
        "Fri Oct 04 1985 15:05:00 GMT+0200 (+2x)",
        "Fri Oct 04 1985 15:05:00 GMT+0200 (2)",
        "1985-10-04T13:05Z[5]",
        "1985-10-04T13:05Z[5 mg]",
        "1985-10-04T13:05Z[]",
        "October 4xx, 1985",
        "October th, 1985",
        "1985-10-04T13",
        "1985-10-04T13:60",
        "1985-10-04T13:05:61Z",
        "1985-10-04T13:05:00 CET",
        "1985-10-04T13:05:00+99:00",
        "Mon, 04 Oct 1985 13:05:00 GMT",
        "Monday, 04-Oct-85 13:05:00 GMT",
        "04-Oct-85",
        "4 Oct 85 13:05",
        "+985-10-04",
        "1985-10-04 13:05 pm",
        "1985-10-04 0:05 am",
        "1985-10-04 1305 pm",
        "1985-10-04 1:05 pmx",
        "1985-10-04 pm",
        "1985-10-04T13:05:00Zulu",
        "Oct 1985",
        "13:05",
        "1985-10-04T13:05:00.",
        "1985-10-04 (5 mg)",
        "1985-10-04 (negative)",
        "1985-10-04T13:05:00Z (5 mg)",
        "04 Oct 1985 13:05:00 (positive)",
        "Fri, 04 Oct 1985 13:05:00 GMT (5 mg)",
        "Fri Oct 04 1985 13:05:00 GMT+0200 (5 mg)",
        "Fri Oct 04 1985 13:05:00 GMT+0200 (CEST) (positive)",
        "Fri Oct 04 1985 (GMT+0200)",
    ] {
        assert_eq!(parse_date(text), None, "{text:?}");
    }
}

#[test]
fn milliseconds_and_extended_json_are_dates_too() {
    let date = Some(bson::DateTime::from_millis(497_232_000_000));
    for value in [
        json!(497_232_000_000_i64),
        json!(497_232_000_000.0),
        json!({"$date": 497_232_000_000_i64}),
        json!({"$date": {"$numberLong": "497232000000"}}),
        json!({"$date": "1985-10-04T00:00:00Z"}),
    ] {
        assert_eq!(date_of(&value), date, "{value}");
    }
    // Of any length where the form says what the number is; 0 is 1970.
    for ms in [0_i64, 19_800_505, 497_279_100, -86_400_000, 19_851_004_130_500] {
        let date = Some(bson::DateTime::from_millis(ms));
        assert_eq!(date_of(&json!({"$date": ms})), date, "{ms}");
        assert_eq!(date_of(&json!({"$date": {"$numberLong": ms.to_string()}})), date, "{ms}");
    }
    for ms in
        [10_000_000_000_i64, -10_000_000_000, 2_208_988_800_000, -2_208_988_800_000, 253_402_300_799_999]
    {
        assert_eq!(date_of(&json!(ms)), Some(bson::DateTime::from_millis(ms)), "{ms}");
    }
    for value in [
        json!(true),
        json!(null),
        json!([]),
        json!({}),
        json!(1.5),
        json!(1e300),
        json!({"$date": true}),
        json!({"$date": {"$date": 5}}),
        json!({"day": 5}),
        // A day of the calendar, and with a time; a year; seconds, of people born before 1970 too.
        json!(19_800_505),
        json!(19_800_505.0),
        json!(198_510_041_305_i64),
        json!(19_851_004_130_500_i64),
        json!(1980),
        json!(0),
        json!(497_279_100),
        json!(-497_279_100),
        json!(9_999_999_999_i64),
        json!(-9_999_999_999_i64),
        // Microseconds; beyond what calendars and other programs can say.
        json!(1_700_000_000_000_000_i64),
        json!({"$date": {"$numberLong": "253402300800000"}}),
        json!(-62_135_596_800_001_i64),
        json!("0000-01-01"),
        json!("9999-12-31T23:30:00-01:00"),
    ] {
        assert_eq!(date_of(&value), None, "{value}");
    }
}
