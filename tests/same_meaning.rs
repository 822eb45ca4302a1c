//! When two values mean the same: a table, and the laws that hold for all values.

#![allow(clippy::unwrap_used)]

use bson::{Bson, DateTime, Decimal128, Document, bson, doc};
use thalamus_edge::domain::diff::{Diff, diff};
use thalamus_edge::domain::merge::merge;
use thalamus_edge::domain::rebuild::rebuilt_base;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::same_meaning::{same_edit, same_meaning};
use thalamus_edge::domain::value::{identical, same};

fn path(dotted: &str) -> Vec<String> {
    dotted.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect()
}

fn date(text: &str) -> Bson {
    Bson::DateTime(DateTime::parse_rfc3339_str(text).unwrap())
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse::<Decimal128>().unwrap())
}

/// The relation is symmetric: a row is checked both ways.
fn means_same(kind: Kind, at: &str, a: &Bson, b: &Bson) -> bool {
    let (there, back) =
        (same_meaning(kind.schema(), &path(at), a, b), same_meaning(kind.schema(), &path(at), b, a));
    assert_eq!(there, back, "{at}: {a} {b}");
    there
}

/// 13:05 on 4 October 1985 UTC, as clients write it.
fn moments() -> Vec<Bson> {
    vec![
        date("1985-10-04T13:05:00Z"),
        "1985-10-04T13:05:00".into(),
        "1985-10-04 13:05:00.000".into(),
        "1985-10-04T15:05:00+02:00".into(),
        "Fri, 04 Oct 1985 13:05:00 GMT".into(),
        "Fri Oct 04 1985 15:05:00 GMT+0200 (Mitteleuropäische Sommerzeit)".into(),
        "Oct 4, 1985, 1:05:00 PM".into(),
        "19851004130500".into(),
        "497279100000".into(),
        "1985年10月4日 13:05".into(),
        Bson::Int64(497_279_100_000),
        Bson::Double(497_279_100_000.0),
        bson!({"$date": "1985-10-04T13:05:00Z"}),
        bson!({"$date": {"$numberLong": "497279100000"}}),
    ]
}

#[test]
fn one_moment_in_every_form_is_one_where_dates_stand() {
    for a in moments() {
        assert!(means_same(Kind::Event, "seen", &a, &moments()[0]), "{a} beside a date");
        for b in moments() {
            assert!(means_same(Kind::Page, "page_date", &a, &b), "{a} {b}");
        }
    }
}

#[test]
fn what_is_stored_differently_and_means_the_same_agrees() {
    let (page, person) = (Kind::Page, Kind::Person);
    let rows: Vec<(Kind, &str, Bson, Bson)> = vec![
        // Dates and times.
        (page, "page_date", "2026-11-28T10:37:52.360417".into(), date("2026-11-28T10:37:52.360Z")),
        (page, "page_date", "2026-11-28T10:37:53".into(), "2026-11-28 10:37:53Z".into()),
        (page, "page_date", "2026-01-02".into(), date("2026-01-02T00:00:00Z")),
        (page, "page_date", "2026-01-02".into(), "2026-01-02T00:00:00".into()),
        (person, "dod", "2026-01-02".into(), date("2026-01-02T00:00:00Z")),
        (person, "dod", "2026/01/02".into(), "2026-01-02".into()),
        (person, "dod", "Fri, 02 Jan 2026 00:00:00 GMT".into(), date("2026-01-02T00:00:00Z")),
        (person, "x.date_of_death", "20260102".into(), "2026-01-02".into()),
        (page, "child.birthday", "20260102".into(), date("2026-01-02T00:00:00Z")),
        (page, "creation_info.timestamp", "2026-11-28 10:37:51.949".into(), date("2026-11-28T10:37:51.949Z")),
        (page, "x.y", "Fri, 02 Jan 2026 00:00:00 GMT".into(), "2026-01-02".into()),
        (page, "x", "1935-10-04T13:05:00.2509Z".into(), date("1935-10-04T13:05:00.250Z")),
        // Days of birth, with the latitude of a midnight somewhere.
        (person, "dob", "1985-10-04".into(), date("1985-10-04T00:00:00Z")),
        (person, "dob", "1985-10-04".into(), date("1985-10-03T22:00:00Z")),
        (person, "dob", "1985-10-04".into(), date("1985-10-04T05:00:00Z")),
        (person, "dob", "1985-10-04".into(), "Fri, 04 Oct 1985 13:05:00 GMT".into()),
        (person, "dob", "1985/10/04".into(), Bson::Int64(497_232_000_000)),
        (person, "dob", date("1985-10-03T23:00:00Z"), date("1985-10-04T00:00:00Z")),
        (person, "dob", "1985-10-04T01:07:00+05:00".into(), date("1985-10-03T20:07:00Z")),
        (person, "dob", "1985-10-04".into(), date("1985-10-03T18:30:00Z")),
        (person, "dob", "1985-10-04".into(), "1985-10-03T23:00:00.000Z".into()),
        (person, "dob", "1985-10-04".into(), "1985-10-04T13:15:00".into()),
        (person, "dob", "1985-10-04".into(), "1985-10-04 20:00".into()),
        (person, "dob", "1985-10-03 22:00:00".into(), date("1985-10-03T22:00:00Z")),
        // Numbers.
        (page, "n", 70.into(), 70.0.into()),
        (page, "n", 70.into(), 70_i64.into()),
        (page, "n", 70.into(), decimal("70.00")),
        (page, "n", 70.0.into(), decimal("7E+1")),
        // Large ones by all of their digits.
        (page, "n", 1e22.into(), decimal("1E+22")),
        (page, "n", 1e23.into(), decimal("99999999999999991611392")),
        (page, "n", 1_000_000_000_000_000_000_i64.into(), decimal("1E+18")),
        (page, "n", 1_000_000_000_000_000_000_i64.into(), 1e18.into()),
        (page, "n", i64::MAX.into(), decimal("9223372036854775807")),
        (page, "n", ((1_i64 << 53) + 1).into(), decimal("9007199254740993")),
        (page, "n", 2_f64.powi(100).into(), decimal("1267650600228229401496703205376")),
        (page, "n", decimal("1E+6144"), decimal("1000E+6141")),
        (page, "n", 1e-300.into(), decimal("1E-300")),
        (page, "n", 5e-324.into(), decimal("5E-324")),
        (page, "n", 36.6.into(), decimal("36.6")),
        (page, "n", (-0.5).into(), decimal("-0.50")),
        (page, "n", 0.into(), (-0.0).into()),
        (page, "n", f64::NAN.into(), decimal("NaN")),
        (page, "n", f64::NEG_INFINITY.into(), decimal("-Infinity")),
        (page, "n", (1_i64 << 60).into(), ((1_i64 << 60) as f64).into()),
        (page, "n", i64::MIN.into(), (i64::MIN as f64).into()),
        (page, "n", decimal("0E-6176"), 0.into()),
        // Measured values may be text.
        (Kind::Measurement, "hr", "66".into(), 66.into()),
        (Kind::Measurement, "t", "36.60".into(), 36.6.into()),
        (Kind::Measurement, "bp.systolic", "121".into(), "121.0".into()),
        (
            page,
            "measurements",
            bson!([{"bp": {"systolic": "121", "diastolic": 79}}, {"hr": 66.0}]),
            bson!([{"bp": {"diastolic": 79.0, "systolic": 121}}, {"hr": 66}]),
        ),
        // Identity.
        (person, "name", "José  María".into(), "JOSE MARIA".into()),
        (person, "lastname", "O'Brien".into(), "O’Brien".into()),
        (person, "gender", "f".into(), "female".into()),
        (person, "gender", "M".into(), "male".into()),
        (person, "gender", "nb".into(), "non-binary".into()),
        (person, "gender", "u".into(), "unknown".into()),
        (person, "gender", "nd".into(), "Undisclosed".into()),
        (person, "biological_sex", "F".into(), "female".into()),
        (person, "roles", bson!(["a", "b", "a"]), bson!(["b", "a"])),
        // Codes and accounts.
        (page, "social_context", "transport".into(), "transportation".into()),
        (page, "book", "espgnu777org".into(), "ESPGNU777ORG".into()),
        (Kind::Encounter, "person", "Esp1".into(), "ESP1".into()),
        // Arrays and objects.
        (
            page,
            "a",
            bson!([1, [2.0, {"d": "2026-01-02"}]]),
            bson!([1.0, [2, {"d": date("2026-01-02T00:00:00Z")}]]),
        ),
        (page, "genetic_info", bson!({"a": 1, "b": 2.0}), bson!({"b": 2, "a": 1_i64})),
        (page, "a", bson!([{"x": 1, "y": 2}]), bson!([{"y": 2, "x": 1}])),
    ];
    for (kind, at, a, b) in rows {
        assert!(means_same(kind, at, &a, &b), "{at}: {a} {b}");
    }
}

#[test]
fn what_may_be_two_things_does_not_agree() {
    let (page, person) = (Kind::Page, Kind::Person);
    let rows: Vec<(Kind, &str, Bson, Bson)> = vec![
        // A day and a moment of it, but for a birth.
        (page, "page_date", "2026-01-02".into(), date("2026-01-02T15:00:00Z")),
        (page, "page_date", "2026-01-02".into(), date("2026-01-01T23:00:00Z")),
        (page, "page_date", "2026-01-02".into(), "2026-01-02T15:00".into()),
        (page, "dob", "2026-01-02".into(), date("2026-01-02T15:00:00Z")),
        (person, "dod", "2026-01-02".into(), date("2026-01-01T23:00:00Z")),
        (person, "dod", "2026-01-02".into(), date("2026-01-02T15:00:00Z")),
        (person, "dod", "20260102".into(), "2026-01-03".into()),
        (page, "birthdays", "20260102".into(), "2026-01-02".into()),
        (person, "x.dob", "2026-01-02".into(), date("2026-01-02T15:00:00Z")),
        (page, "page_date", "2026-11-28T10:37:52.360417".into(), "2026-11-28T10:37:52.360999".into()),
        (page, "page_date", date("2026-01-02T15:00:00.001Z"), date("2026-01-02T15:00:00Z")),
        (page, "page_date", "04/10/1985".into(), date("1985-10-04T00:00:00Z")),
        (page, "page_date", "10-04-1985".into(), "04/10/1985".into()),
        (person, "dob", "1985-10-04".into(), "1985-10-05".into()),
        (person, "dob", "1985-10-05".into(), "1985-10-04T13:05:00".into()),
        (person, "dob", "1985-10-05".into(), "1985-10-04T13:15:00".into()),
        (person, "dob", "1985-10-05".into(), "1985-10-04 20:00".into()),
        (person, "dob", "1985-10-05".into(), date("1985-10-04T13:15:00Z")),
        (person, "dob", "1960-10-05".into(), "1960-10-04T13:05:00".into()),
        (person, "dob", "1985-10-04".into(), date("1985-10-05T00:00:00Z")),
        (person, "dob", "1985".into(), 1985.into()),
        (person, "dob", "".into(), Bson::Null),
        (person, "dob", "04/10/1985".into(), "1985-10-04".into()),
        // Numbers of something that read as dates.
        (page, "lot", "20260102".into(), "2026-01-02".into()),
        (page, "phone", "19851004130500".into(), "198510041305Z".into()),
        (page, "version", "2026.1.2".into(), "2026.01.02".into()),
        (page, "version", "2026/1/2".into(), "2026-01-02".into()),
        (page, "n", "497279100000".into(), Bson::Int64(497_279_100_000)),
        (page, "n", 20_260_102.into(), "2026-01-02".into()),
        (page, "n", Bson::Int64(1000), date("1970-01-01T00:00:01Z")),
        // A number is no text, no truth, and not what it rounds to.
        (page, "n", "70".into(), 70.into()),
        (page, "hr", "70".into(), 70.into()),
        (Kind::Measurement, "comments", "70".into(), 70.into()),
        (Kind::Measurement, "hr", "70".into(), 71.into()),
        (Kind::Measurement, "hr", "70 bpm".into(), 70.into()),
        (Kind::Measurement, "hr", "70,0".into(), 70.into()),
        (Kind::Measurement, "hr", "".into(), 0.into()),
        (Kind::Measurement, "hr", "-".into(), 0.into()),
        (Kind::Measurement, "hr", "NaN".into(), f64::NAN.into()),
        (page, "n", 1.into(), true.into()),
        (page, "n", 0.into(), Bson::Null),
        (page, "n", 0.into(), false.into()),
        (page, "n", ((1_i64 << 53) + 1).into(), ((1_i64 << 53) as f64).into()),
        (page, "n", i64::MAX.into(), (i64::MAX as f64).into()),
        (page, "n", i64::MAX.into(), decimal("9223372036854775808")),
        (page, "n", ((1_i64 << 53) + 1).into(), decimal("9007199254740992")),
        // 1E23 in binary is 99999999999999991611392, 1E300 has no 34 digits that are zeros.
        (page, "n", 1e23.into(), decimal("1E+23")),
        (page, "n", 1e23.into(), decimal("99999999999999990000000")),
        (page, "n", 1e23.into(), 1.0000000000000001e23.into()),
        (page, "n", 1e300.into(), decimal("1E+300")),
        (page, "n", 1e300.into(), decimal("1000000000000000052504760255204420E+267")),
        (page, "n", f64::MAX.into(), f64::INFINITY.into()),
        (page, "n", f64::MAX.into(), decimal("Infinity")),
        (page, "n", 5e-324.into(), 0.into()),
        (page, "n", decimal("1E+6144"), f64::INFINITY.into()),
        (page, "n", decimal("1E-6176"), 0.into()),
        (page, "n", decimal("1.000000000000000000000000000000001"), 1.into()),
        (page, "n", decimal("9223372036854775807.1"), i64::MAX.into()),
        (page, "n", 0.3.into(), (0.1 + 0.2).into()),
        (page, "n", (0.1 + 0.2).into(), decimal("0.3")),
        (page, "n", 36.6.into(), decimal("36.60000000000000142")),
        (page, "n", 1.into(), (-1).into()),
        (page, "n", f64::NAN.into(), f64::INFINITY.into()),
        (page, "n", f64::NAN.into(), 0.into()),
        // Text is text, but for identity.
        (page, "name", "José".into(), "Jose".into()),
        (person, "address", "Main St".into(), "main st".into()),
        (person, "x.name", "José".into(), "Jose".into()),
        (person, "name", bson!(["José"]), bson!(["Jose"])),
        (person, "name", "Ana".into(), "Anna".into()),
        (person, "name", "Ana".into(), "".into()),
        (person, "name", "?".into(), "-".into()),
        (person, "name", "70".into(), 70.into()),
        (person, "gender", "f".into(), "m".into()),
        (person, "gender", "u".into(), "nd".into()),
        (person, "gender", "other".into(), "nb".into()),
        (person, "gender", "u".into(), "".into()),
        (person, "gender", "-".into(), "?".into()),
        (page, "gender", "f".into(), "female".into()),
        (page, "relevance", "normal".into(), "informational".into()),
        (page, "page_type", "Medical".into(), "medical".into()),
        (page, "info", "transport".into(), "transportation".into()),
        (page, "age", "40 y".into(), "40\u{200b} y".into()),
        (person, "active", "false".into(), false.into()),
        // Secrets and ids are what they are.
        (person, "password", "1985-10-04".into(), date("1985-10-04T00:00:00Z")),
        (person, "password", "$2b$12$A".into(), "$2b$12$a".into()),
        (person, "_id", "ana".into(), "ANA".into()),
        (person, "id", 70.into(), 70.0.into()),
        // Owners.
        (page, "book", "ESP1".into(), "ESP2".into()),
        (page, "person", "esp1".into(), "ESP1".into()),
        (page, "book", "".into(), Bson::Null),
        // Arrays and objects.
        (page, "a", bson!([1, 2]), bson!([2.0, 1.0])),
        (page, "a", bson!([1]), bson!([1.0, 1.0])),
        (page, "a", bson!([1]), 1.into()),
        (page, "a", bson!({"x": 1}), bson!({"x": 1.0, "y": null})),
        (page, "a", bson!({"x": 1}), bson!({"y": 1.0})),
        (page, "measurements", "{'hr': 66}".into(), bson!([{"hr": 66}])),
        (page, "a", bson!({"0": 1}), bson!([1])),
    ];
    for (kind, at, a, b) in rows {
        assert!(!means_same(kind, at, &a, &b), "{at}: {a} {b}");
    }
}

/// Only the spelling of names makes the difference: to correct it is an edit.
#[test]
fn an_edit_of_a_spelling_is_one() {
    let edit = |kind: Kind, at: &str, a: &Bson, b: &Bson| {
        let (there, back) =
            (same_edit(kind.schema(), &path(at), a, b), same_edit(kind.schema(), &path(at), b, a));
        assert_eq!(there, back, "{at}: {a} {b}");
        there
    };
    let texts = ["José", "Jose", "JOSE"].map(Bson::from);
    for field in ["name", "lastname"] {
        for (i, a) in texts.iter().enumerate() {
            for (j, b) in texts.iter().enumerate() {
                assert!(means_same(Kind::Person, field, a, b));
                assert_eq!(edit(Kind::Person, field, a, b), i == j, "{a} {b}");
            }
        }
    }
    let person = |name: &str, n: Bson| Bson::from(doc! {"_id": "A", "name": name, "n": n});
    assert!(edit(Kind::Person, "", &person("José", 1.into()), &person("José", 1.0.into())));
    assert!(!edit(Kind::Person, "", &person("José", 1.into()), &person("Jose", 1.into())));
    for (kind, at) in PLACES {
        for a in zoo() {
            for b in zoo() {
                let is_name = at == "name";
                assert!(is_name || edit(kind, at, &a, &b) == means_same(kind, at, &a, &b), "{at}: {a} {b}");
            }
        }
    }
}

/// A value of every kind that the table names, and neighbours.
fn zoo() -> Vec<Bson> {
    let mut zoo = moments();
    zoo.extend([
        Bson::Null,
        Bson::Undefined,
        true.into(),
        "".into(),
        "f".into(),
        "female".into(),
        "1985-10-04".into(),
        "1985-10-05".into(),
        "soon".into(),
        "NaN".into(),
        "70".into(),
        70.into(),
        70.0.into(),
        decimal("70"),
        70_i64.into(),
        (-0.0).into(),
        0.into(),
        f64::NAN.into(),
        date("1985-10-03T12:00:00Z"),
        date("1985-10-04T12:00:00Z"),
        bson!([]),
        bson!({}),
        bson!([70, {"hr": "70"}]),
        bson!([70.0, {"hr": 70}]),
    ]);
    zoo
}

const PLACES: [(Kind, &str); 8] = [
    (Kind::Person, "dob"),
    (Kind::Person, "name"),
    (Kind::Person, "gender"),
    (Kind::Person, "password"),
    (Kind::Page, "page_date"),
    (Kind::Page, "x.y"),
    (Kind::Page, "measurements.hr"),
    (Kind::Measurement, "hr"),
];

#[test]
fn the_relation_is_reflexive_symmetric_and_wider_than_sameness() {
    for (kind, at) in PLACES {
        for a in zoo() {
            assert!(means_same(kind, at, &a, &a), "{at}: {a}");
            for b in zoo() {
                let agree = means_same(kind, at, &a, &b);
                assert!(agree || !same(&a, &b), "{at}: {a} {b}");
            }
        }
    }
}

/// Among numbers, and among dates of BSON and texts to the millisecond, it is a full equivalence.
#[test]
fn numbers_and_moments_make_classes() {
    let numbers = [
        0.into(),
        (-0.0).into(),
        70.into(),
        70.0.into(),
        decimal("70.0"),
        36.6.into(),
        decimal("36.6"),
        decimal("NaN"),
        f64::NAN.into(),
        (1_i64 << 60).into(),
        ((1_i64 << 60) as f64).into(),
        decimal("1152921504606846976"),
        decimal("1152921504606847000"),
        1e23.into(),
        decimal("1E+23"),
        decimal("99999999999999991611392"),
        1e300.into(),
        decimal("1E+300"),
        i64::MAX.into(),
        (i64::MAX as f64).into(),
        decimal("9223372036854775808"),
        f64::INFINITY.into(),
        decimal("Infinity"),
    ];
    for (place, values) in [("n", numbers.to_vec()), ("page_date", moments())] {
        for a in &values {
            for b in &values {
                for c in &values {
                    let agree = |x, y| means_same(Kind::Page, place, x, y);
                    assert!(!(agree(a, b) && agree(b, c)) || agree(a, c), "{a} {b} {c}");
                }
            }
        }
    }
}

/// The three places where it is not transitive. Nothing comes of it: after a merge without a base the node holds the bytes
/// of the centre, whichever form that had.
#[test]
fn where_it_is_not_transitive_the_centre_stands_and_nothing_is_sent() {
    let chains: [(Kind, &str, [Bson; 3]); 3] = [
        (
            Kind::Page,
            "page_date",
            [
                "2026-11-28T10:37:52.360417".into(),
                date("2026-11-28T10:37:52.360Z"),
                "2026-11-28T10:37:52.360999".into(),
            ],
        ),
        (Kind::Person, "dob", ["1985-10-03".into(), date("1985-10-03T12:00:00Z"), "1985-10-04".into()]),
        (Kind::Page, "lot", ["20260102".into(), date("2026-01-02T00:00:00Z"), "2026-01-02".into()]),
    ];
    for (kind, at, [a, b, c]) in chains {
        assert!(
            means_same(kind, at, &a, &b) && means_same(kind, at, &b, &c) && !means_same(kind, at, &a, &c)
        );
        let record = |value: &Bson| doc! {"_id": "X", at: value.clone()};
        for (local, remote) in [(&a, &b), (&b, &a), (&b, &c), (&c, &b)] {
            let merged = merge(kind.schema(), None, Some(&record(local)), Some(&record(remote)));
            let document = merged.document.unwrap();
            assert!(identical(&document.clone().into(), &record(remote).into()) && merged.clashes.is_empty());
            assert_eq!(diff(&record(remote), &document), Diff::Same, "nothing is left to send");
        }
        let merged = merge(kind.schema(), None, Some(&record(&a)), Some(&record(&c)));
        assert_eq!(merged.clashes.len(), 1);
    }
}

/// With a base types and bits count: the same values are a change, or a conflict.
#[test]
fn a_merge_with_a_base_stays_exact() {
    let record = |value: &Bson| -> Document {
        doc! {"_id": "X", "x": value.clone(), "in": {"x": value.clone()}}
    };
    let (one, other, third): (Bson, Bson, Bson) = (70.into(), 70.0.into(), 70_i64.into());
    let merged = |base: Option<&Document>, local: &Bson, remote: &Bson| {
        merge(Kind::Page.schema(), base, Some(&record(local)), Some(&record(remote)))
    };
    let changed = merged(Some(&record(&one)), &other, &one);
    assert!(
        identical(&changed.document.unwrap().into(), &record(&other).into()),
        "an edit of the type is an edit"
    );
    assert_eq!(merged(Some(&record(&one)), &other, &third).clashes.len(), 2);
    assert_eq!(
        merged(Some(&doc! {"_id": "X"}), &one, &other).clashes.len(),
        2,
        "also where a field is new on both sides"
    );
    let met = merged(None, &one, &other);
    assert!(met.clashes.is_empty() && identical(&met.document.unwrap().into(), &record(&other).into()));
}

/// A centre that was filled anew by another program: what differs in form only is no conflict, what differs is, and what this
/// node knows to have written is sent again as it was.
#[test]
fn at_a_restored_centre_values_agree_where_nothing_tells_which_is_older() {
    let held = doc! {"_id": "p1", "page_date": "2026-01-02T10:00:00", "in": {"n": 70}, "x": 1};
    let there = doc! {"_id": "p1", "page_date": date("2026-01-02T10:00:00Z"), "in": {"n": 70.0}, "x": 2.0};
    let base = rebuilt_base(Kind::Page, Some(&held), Some(&held), Some(&there), &[]);
    let merged = merge(Kind::Page.schema(), base.as_ref(), Some(&held), Some(&there));
    assert_eq!(merged.clashes.iter().map(|clash| clash.path.join(".")).collect::<Vec<_>>(), ["x"]);
    assert!(identical(&merged.document.unwrap().into(), &there.clone().into()));

    let edited = doc! {"_id": "p1", "page_date": "2026-01-02T11:00:00", "in": {"n": 70}, "x": 2.0};
    let base = rebuilt_base(Kind::Page, Some(&held), Some(&edited), Some(&there), &[]);
    let merged = merge(Kind::Page.schema(), base.as_ref(), Some(&edited), Some(&there));
    assert_eq!(merged.clashes.iter().map(|clash| clash.path.join(".")).collect::<Vec<_>>(), ["page_date"]);
}
