//! Lists that clients send back with rows put in front, taken out, moved and edited: what is stored keeps its type.

#![allow(clippy::unwrap_used)]

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, bson};
use proptest::prelude::*;
use serde_json::{Value, json};
use thalamus_edge::domain::dates::parse_date;
use thalamus_edge::domain::json::{DateFormat, adopt, show_value};
use thalamus_edge::domain::value::identical;

const FORMATS: [DateFormat; 2] = [DateFormat::Http, DateFormat::Rfc3339];

fn date(text: &str) -> Bson {
    Bson::DateTime(parse_date(text).unwrap())
}

/// What a client changes of a list that it was shown.
type Edit = fn(&[Value]) -> Vec<Value>;

fn with(row: &Value, key: &str, value: impl Into<Value>) -> Value {
    let mut row = row.clone();
    row[key] = value.into();
    row
}

/// Keys in order: clients are shown them so, and an edited document takes the order of what was sent.
fn sorted(value: &Bson) -> Bson {
    match value {
        Bson::Array(values) => Bson::Array(values.iter().map(sorted).collect()),
        Bson::Document(document) => {
            let mut members: Vec<(String, Bson)> =
                document.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Bson::Document(members.into_iter().collect())
        }
        other => other.clone(),
    }
}

fn is_the_same(a: &Bson, b: &Bson) -> bool {
    identical(&sorted(a), &sorted(b))
}

#[test]
fn rows_keep_their_dates_wherever_they_move() {
    let (a, b, c) = (date("1950-01-01"), date("1951-02-02T03:04:05.678Z"), date("1960-01-01"));
    let rows = bson!([{"w": (a.clone()), "t": "a"}, {"w": (b.clone()), "t": "b"}]);
    let mixed = bson!([{"w": (a.clone()), "t": "a"}, {"t": "x"}, {"w": "soon", "t": "b"}]);
    let scalars = bson!([(a.clone()), "note", (b.clone())]);
    let nested = bson!([[(a.clone())], [(b.clone())]]);
    let deep = bson!([{"x": {"y": [{"w": (a.clone())}, {"w": (b.clone()), "n": 1}]}}]);
    let cases: Vec<(&str, Bson, Edit, Bson)> = vec![
        (
            "a row in front, a word of the last one changed",
            rows.clone(),
            |g| vec![json!({"w": "1960-01-01", "t": "n"}), g[0].clone(), with(&g[1], "t", "b2")],
            bson!([{"w": (c.clone()), "t": "n"}, {"w": (a.clone()), "t": "a"}, {"w": (b.clone()), "t": "b2"}]),
        ),
        (
            "a row without the date in front, both words changed",
            rows.clone(),
            |g| vec![json!({"t": "n"}), with(&g[0], "t", "a2"), with(&g[1], "t", "b2")],
            bson!([{"t": "n"}, {"w": (a.clone()), "t": "a2"}, {"w": (b.clone()), "t": "b2"}]),
        ),
        (
            "the first row removed, a word of the other changed",
            rows.clone(),
            |g| vec![with(&g[1], "t", "b2")],
            bson!([{"w": (b.clone()), "t": "b2"}]),
        ),
        (
            "turned round, both words changed",
            rows.clone(),
            |g| vec![with(&g[1], "t", "b2"), with(&g[0], "t", "a2")],
            bson!([{"w": (b.clone()), "t": "b2"}, {"w": (a.clone()), "t": "a2"}]),
        ),
        (
            "rows put behind, with dates as text and milliseconds",
            rows.clone(),
            |g| {
                vec![
                    g[0].clone(),
                    g[1].clone(),
                    json!({"w": "1960-01-01"}),
                    json!({"w": -315_619_200_000_i64}),
                ]
            },
            bson!([{"w": (a.clone()), "t": "a"}, {"w": (b.clone()), "t": "b"}, {"w": (c.clone())}, {"w": (c.clone())}]),
        ),
        (
            "the dates exchanged",
            rows.clone(),
            |g| vec![with(&g[0], "w", g[1]["w"].clone()), with(&g[1], "w", g[0]["w"].clone())],
            bson!([{"w": (b.clone()), "t": "a"}, {"w": (a.clone()), "t": "b"}]),
        ),
        (
            "a row twice",
            rows.clone(),
            |g| vec![g[0].clone(), g[0].clone(), with(&g[0], "t", "a2")],
            bson!([{"w": (a.clone()), "t": "a"}, {"w": (a.clone()), "t": "a"}, {"w": (a.clone()), "t": "a2"}]),
        ),
        (
            "the date of a row taken away",
            rows.clone(),
            |g| vec![json!({"t": "n"}), with(&g[0], "w", json!(null)), g[1].clone()],
            bson!([{"t": "n"}, {"w": null, "t": "a"}, {"w": (b.clone()), "t": "b"}]),
        ),
        (
            "text beside dates: moved and edited, each stays what it is",
            mixed.clone(),
            |g| vec![with(&g[2], "t", "b2"), json!({"w": "later"}), with(&g[0], "t", "a2")],
            bson!([{"w": "soon", "t": "b2"}, {"w": "later"}, {"w": (a.clone()), "t": "a2"}]),
        ),
        (
            "text beside dates: the date of a moved row in another form",
            mixed.clone(),
            |g| vec![g[1].clone(), with(&g[0], "w", "1950-01-01")],
            bson!([{"t": "x"}, {"w": (a.clone()), "t": "a"}]),
        ),
        (
            "text beside dates: another day onto the date of a row",
            mixed.clone(),
            |g| vec![with(&g[0], "w", "1960-01-01"), g[1].clone(), g[2].clone()],
            bson!([{"w": (c.clone()), "t": "a"}, {"t": "x"}, {"w": "soon", "t": "b"}]),
        ),
        (
            "text beside dates: text like a date stays text",
            bson!([{"w": (a.clone()), "n": 1}, {"w": "1950-01-01", "n": 2}]),
            |g| vec![json!({"n": 0}), with(&g[1], "n", 3), with(&g[0], "n", 4)],
            bson!([{"n": 0}, {"w": "1950-01-01", "n": 3}, {"w": (a.clone()), "n": 4}]),
        ),
        (
            "single values: put in front, taken out, turned round",
            scalars.clone(),
            |g| vec![json!("new"), g[2].clone(), g[0].clone()],
            bson!(["new", (b.clone()), (a.clone())]),
        ),
        (
            "single values: any text in the place of a date",
            scalars.clone(),
            |g| vec![json!("x"), g[1].clone()],
            bson!(["x", "note"]),
        ),
        (
            "lists of lists: put in front and behind",
            nested.clone(),
            |g| vec![json!([]), json!(["1960-01-01"]), g[1].clone(), json!([g[0][0], "1960-01-01"])],
            bson!([[], [(c.clone())], [(b.clone())], [(a.clone()), (c.clone())]]),
        ),
        (
            "lists of lists made flat",
            nested.clone(),
            |g| vec![g[1][0].clone(), json!("1960-01-01")],
            bson!([(b.clone()), (c.clone())]),
        ),
        (
            "documents two levels down",
            deep.clone(),
            |g| {
                let y = &g[0]["x"]["y"];
                let n = json!({"w": "1960-01-01"});
                vec![json!({"x": {"y": [n]}}), json!({"x": {"y": [n, y[0], with(&y[1], "n", 2)]}, "z": 1})]
            },
            bson!([{"x": {"y": [{"w": (c.clone())}]}},
                {"x": {"y": [{"w": (c.clone())}, {"w": (a.clone())}, {"w": (b.clone()), "n": 2}]}, "z": 1}]),
        ),
    ];
    for (what, stored, edit, expected) in cases {
        for dates in FORMATS {
            let shown = show_value(&stored, dates);
            let sent = Value::Array(edit(shown.as_array().unwrap()));
            let found = adopt(&sent, Some(&stored), "v");
            let found = found.unwrap_or_else(|error| panic!("{what}, {dates:?}: {error}"));
            assert!(is_the_same(&found, &expected), "{what}, {dates:?}: {found:?}");
        }
    }
}

/// A document that becomes a list of one, and back: the key path is the same.
#[test]
fn documents_and_lists_of_them_have_the_same_columns() {
    let (one, list) = (bson!({"w": (date("1950-01-01"))}), bson!([{"w": (date("1950-01-01"))}]));
    for dates in FORMATS {
        let (shown_one, shown_list) = (show_value(&one, dates), show_value(&list, dates));
        assert_eq!(adopt(&shown_list, Some(&one), "v").unwrap(), list);
        assert_eq!(adopt(&shown_one, Some(&list), "v").unwrap(), one);
        assert_eq!(
            adopt(&shown_one["w"], Some(&bson!([(date("1950-01-01"))])), "v").unwrap(),
            date("1950-01-01")
        );
    }
}

#[test]
fn a_list_of_dates_takes_nothing_else() {
    let day = || date("1950-01-01");
    let rows = bson!([{"w": (day()), "t": "a"}, {"t": "no date"}, {"w": null}]);
    for (stored, sent, field) in [
        (rows.clone(), json!([{"w": "tomorrow", "t": "n"}, {"t": "no date"}]), "v.0.w"),
        (rows.clone(), json!([{"t": "a"}, {"t": "b"}, {"t": "c"}, {"w": "tomorrow"}]), "v.3.w"),
        (rows.clone(), json!([{"t": "x"}, {"w": true}]), "v.1.w"),
        (rows.clone(), json!([{"t": "x"}, {"w": {"day": 1}}]), "v.1.w"),
        (rows.clone(), json!([{"t": "x"}, {"w": ["1950-01-01"]}]), "v.1.w"),
        (rows, json!([{"t": "x"}, {"w": "04/10/1985"}]), "v.1.w"),
        (bson!([(day())]), json!(["1950-01-01", "soon"]), "v.1"),
        (bson!([(day())]), json!("soon"), "v"),
        (bson!([[(day())], [(day())]]), json!([["x"], ["1950-01-01"], ["1950-01-01"]]), "v.0.0"),
        (bson!([{"x": {"y": [{"w": (day())}]}}]), json!([{}, {"x": {"y": [{"w": "soon"}]}}]), "v.1.x.y.0.w"),
        // The only row that changed is the same row.
        (
            bson!([{"w": (day()), "t": "a"}, {"w": "soon"}]),
            json!([{"w": "later", "t": "a"}, {"w": "soon"}]),
            "v.0.w",
        ),
    ] {
        let error = adopt(&sent, Some(&stored), "v").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field}: ")), "{sent}: {error}");
        assert!(error.contains("milliseconds since 1970"), "{error}");
    }
    // An empty list, and other keys, are no values of a date.
    for sent in [json!([]), json!([{"t": 1}]), json!([null]), json!({}), json!(null)] {
        assert!(adopt(&sent, Some(&bson!([{"w": (day())}])), "v").is_ok(), "{sent}");
    }
}

/// Dates are not the only values whose type JSON does not tell.
#[test]
fn other_types_move_with_their_rows_too() {
    let bytes = Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] });
    for value in [
        Bson::ObjectId(ObjectId::from_bytes([7; 12])),
        Bson::Decimal128("1.50".parse().unwrap()),
        bytes,
        Bson::Symbol("s".into()),
        Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 }),
        Bson::DateTime(DateTime::from_millis(i64::MAX)),
        Bson::Int64(5),
        Bson::Double(5.0),
        Bson::Double(f64::NAN),
    ] {
        let stored = bson!([{"w": (value.clone()), "t": "a"}, {"a.b": 1, "t": "b"}]);
        for dates in FORMATS {
            let shown = show_value(&stored, dates);
            let sent = json!([{"t": "n"}, with(&shown[1], "t", "b2"), with(&shown[0], "t", "a2")]);
            let found = adopt(&sent, Some(&stored), "v").unwrap();
            let expected = bson!([{"t": "n"}, {"a.b": 1, "t": "b2"}, {"w": (value.clone()), "t": "a2"}]);
            assert!(is_the_same(&found, &expected), "{found:?}");
        }
    }
}

#[test]
fn long_lists_take_time_in_proportion() {
    let started = std::time::Instant::now();
    let day = |n: i64| Bson::DateTime(DateTime::from_millis(n * 1000));
    let stored: Vec<Bson> = (0..4_000).map(|n| bson!({"w": (day(n)), "t": "same", "n": n})).collect();
    let stored = Bson::Array(stored);
    let Value::Array(mut rows) = show_value(&stored, DateFormat::Http) else { panic!("a list") };
    rows.reverse();
    rows.iter_mut().for_each(|row| row["t"] = json!("other"));
    rows.insert(0, json!({"t": "new"}));
    let found = adopt(&Value::Array(rows), Some(&stored), "v").unwrap();
    assert_eq!(found.as_array().unwrap()[1].as_document().unwrap().get("w"), Some(&day(3_999)));
    let same = |first: &str, last: &str| {
        [json!(first)].into_iter().chain(vec![json!(1.5); 40_000]).chain([json!(last)]).collect::<Vec<_>>()
    };
    let stored = adopt(&json!(same("a", "b")), None, "v").unwrap();
    adopt(&json!(same("c", "d")), Some(&stored), "v").unwrap();
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

/// A row: a date, text that reads as one, or neither, and a word that is no other row's.
fn rows() -> impl Strategy<Value = Vec<Bson>> {
    let moment = || prop_oneof![-3_i64..3, any::<i64>().prop_map(|ms| ms % 100_000_000_000_000)];
    let dated = moment().prop_map(|ms| Bson::DateTime(DateTime::from_millis(ms)));
    let text = prop::sample::select(vec!["soon", "", "1970-01-01", "1950-01-01"]).prop_map(Bson::from);
    let value = prop_oneof![4 => dated, 1 => text, 1 => Just(Bson::Null), 1 => Just(Bson::Int64(3))];
    prop::collection::vec(value, 1..6).prop_map(|values| {
        let row = |(n, value)| bson!({"w": value, "t": (format!("row {n}")), "s": {"l": [{"k": "x"}]}});
        values.into_iter().enumerate().map(row).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rows put in, taken out, moved and edited beside the value: each value stays, to the last millisecond.
    #[test]
    fn rows_that_move_keep_what_they_hold(
        stored in rows(),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<bool>()), 0..8),
    ) {
        for dates in FORMATS {
            let old = Bson::Array(stored.clone());
            let shown = show_value(&old, dates);
            prop_assert!(identical(&adopt(&shown, Some(&old), "v").unwrap(), &old));
            let (mut sent, mut from, mut left) = (Vec::new(), Vec::new(), (0..stored.len()).collect::<Vec<_>>());
            for (index, is_edited, is_new_before) in &order {
                if *is_new_before {
                    sent.push(json!({"u": "new"}));
                    from.push(None);
                }
                if left.is_empty() {
                    break;
                }
                let row = left.remove(index.index(left.len()));
                let mut value = shown[row].clone();
                if *is_edited {
                    value["s"]["l"][0]["k"] = json!("edited");
                }
                sent.push(value);
                from.push(Some(row));
            }
            let new = adopt(&Value::Array(sent), Some(&old), "v").unwrap();
            for (new, row) in new.as_array().unwrap().iter().zip(from).filter_map(|(new, row)| Some((new, row?))) {
                let (new, old) = (new.as_document().unwrap(), stored[row].as_document().unwrap());
                prop_assert!(identical(new.get("w").unwrap(), old.get("w").unwrap()), "{:?} {:?}", new, old);
            }
        }
    }
}
