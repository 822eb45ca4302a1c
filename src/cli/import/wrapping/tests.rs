//! Beginnings of files as examples: which of them wrap rows, and which are records.

use super::*;
use crate::cli::archive::ndjson::Place;

/// How many objects are open where the list of rows begins.
fn found(text: &str) -> Option<usize> {
    match wrapping_of(text.as_bytes(), Kind::Person) {
        Wrapping::List { before, depth } => {
            assert!(text[before..].starts_with('['), "{text}: {before}");
            Some(depth)
        }
        Wrapping::None | Wrapping::OfOthers(_) => None,
    }
}

#[test]
fn a_list_is_found_in_what_surrounds_it() {
    for (text, list) in [
        (r#"{"rows": [{}]}"#, Some(1)),
        (" {\n \"rows\" : [ [{}]]}", Some(1)),
        (r#"{"total": 3, "ok": true, "rows": [{}]}"#, Some(1)),
        (r#"{"rows": []}"#, Some(1)),
        (r#"{"data": [{"id": "ANA001"}]}"#, Some(1)),
        (r#"{"Data": [{"id": "ANA001"}"#, Some(1)),
        (r#"{"status": "ok, \"[{", "data": [{}]}"#, Some(1)),
        (r#"{"meta": {"page": {"n": 1}}, "results": [{}]}"#, Some(1)),
        (r#"{"json_agg": [{}]}"#, Some(1)),
        (r#"{"people": [{}]}"#, Some(1)),
        (r#"{"public.people": [{}]}"#, Some(1)),
        (r#"{"data": {"people": [{}]}}"#, Some(2)),
        (r#"{"result": {"total": 1, "rows": [{}]}, "ok": 1}"#, Some(2)),
        (r#"{"meta": {"of": "1"}, "data": [{}]}"#, Some(1)),
        (r#"{"data": [{}], "meta": {"of": "1"}}"#, Some(1)),
        (r#"{"errors": [ ], "data": [{}], "warnings": []}"#, Some(1)),
        (r#"{"errors": ["x"], "data": [{}]}"#, None),
        // Of a long file there is only the beginning.
        (r#"{"data": [{"id": "ANA001"}, "#, Some(1)),
        // Records, with lists of their own.
        (r#"{"id": "A", "data": [{}]}"#, None),
        (r#"{"data": [{}], "id": "A"}"#, None),
        (r#"{"data": {"name": "Ana", "rows": [{}]}, "id": "A"}"#, None),
        (r#"{"data": {"rows": [{}], "id": "A"}}"#, None),
        (r#"{"data": {"name": "Ana", "documents": [{}]}}"#, None),
        (r#"{"name": "Ana", "data": [{}]}"#, None),
        (r#"{"data": [{}], "name": "Ana"}"#, None),
        (r#"{"address": {"id": 1}, "data": [{}]}"#, None),
        (r#"{"address": {"list": [1]}, "data": [{}]}"#, None),
        (r#"{"rows": ["a"]}"#, None),
        (r#"{"roles": [{}]}"#, None),
        (r#"{"_id": "x"}"#, None),
        (r#"{"data": "#, None),
        ("[{}]", None),
        ("{", None),
        ("", None),
    ] {
        assert_eq!(found(text), list, "{text}");
    }
    let others = wrapping_of(br#"{"pols": [{"id": "P1"}]}"#, Kind::Person);
    assert_eq!(others, Wrapping::OfOthers("pols".to_owned()));
    assert_eq!(wrapping_of(br#"{"n": 1, "pols": [{}]}"#, Kind::Person), Wrapping::None);
}

/// What stands behind a list counts the same whether it is long or short.
#[test]
fn a_long_list_is_one_by_the_same_rule() {
    for (after, is_list) in [
        ("}", true),
        (r#", "total": 5, "next": "x", "errors": []}"#, true),
        (r#", "people": [{"id": "A"}]}"#, true),
        (r#", "generated": "2026"}"#, false),
        (r#", "book": "ANA001"}"#, false),
        (r#", "id": "A"}"#, false),
    ] {
        for rows in [1, 5000] {
            let rows = vec![r#"{"id": "ANA001"}"#; rows].join(",\n");
            let text = format!("{{\"total\": 1, \"data\": [{rows}]{after}\n{{}}");
            let head = text.as_bytes().get(..64 << 10).unwrap_or(text.as_bytes());
            let found = wrapping_of_file(head, Kind::Person, || Ok(text.as_bytes())).unwrap();
            assert_eq!(found != Wrapping::None, is_list, "{after}");
        }
    }
}

#[test]
fn each_row_within_a_list_has_its_place() {
    let rows = |text: &str| -> Vec<String> {
        let text = Text { place: Place { line: 3, column: 5 }, bytes: text.as_bytes().to_vec() };
        let shown = |found: Found| match found {
            Ok(Raw::Json(text)) => format!("{} {}", text.place, String::from_utf8(text.bytes).unwrap()),
            Ok(Raw::Row { .. }) => "a row".to_owned(),
            Err(wrong) => format!("{} ! {}", wrong.place, wrong.message),
        };
        rows_in(text, Kind::Person).into_iter().map(shown).collect()
    };
    for (text, expected) in [
        (r#"{"id": "A"}"#, &[r#"line 3 column 5 {"id": "A"}"#][..]),
        (r#"[{"id": "A"}]"#, &[r#"line 3 column 5 [{"id": "A"}]"#]),
        (r#"["A", {"id": "A"}]"#, &[r#"line 3 column 5 ["A", {"id": "A"}]"#]),
        (r#"[{"id": "A"}, {"n": 1}]"#, &[r#"line 3 column 5 [{"id": "A"}, {"n": 1}]"#]),
        ("[]", &["line 3 column 5 []"]),
        ("{\"data\": [\n{\"id\": \"A\"}]},", &[r#"line 4 column 1 {"id": "A"}"#]),
        (
            r#"[{"id": "A"}, {"id": "B"}]"#,
            &[r#"line 3 column 6 {"id": "A"}"#, r#"line 3 column 19 {"id": "B"}"#],
        ),
        (
            r#"[[{"id": "A"}, {"id": "B"}], ["C", {}]]"#,
            &[
                r#"line 3 column 7 {"id": "A"}"#,
                r#"line 3 column 20 {"id": "B"}"#,
                r#"line 3 column 34 ["C", {}]"#,
            ],
        ),
        (r#"[{"json_agg": [{"id": "A"}]}]"#, &[r#"line 3 column 20 {"id": "A"}"#]),
        (
            r#"{"data": {"people": [{"id": "A"}], "pols": [{}]}}"#,
            &[
                r#"line 3 column 26 {"id": "A"}"#,
                "line 3 column 38 ! what stands beside the rows was not read",
            ],
        ),
    ] {
        assert_eq!(rows(text), expected, "{text}");
    }
    let fault = rows(r#"{"pols": [{"id": "P1"}]}"#);
    assert!(fault[0].contains("the rows are called `pols`, and the file is of people"), "{fault:?}");
    assert!(rows(r#"[{"data": []}]"#)[0].contains("an empty list"), "an empty list is named");
}
