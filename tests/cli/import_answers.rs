//! `import` of answers of APIs and of queries that put the rows into something, and of people whose ids are odd. Each row is
//! taken, or refused with file, line and reason, and nothing that was passed over ends with 0.

use serde_json::json;
use thalamus_edge::domain::record::Kind;

use crate::imports::{clinic, import};

const ONE: &str = r#"{"id": "P1", "book": "ANA001", "info": "a"}"#;
const TWO: &str = r#"{"id": "P2", "book": "BOB001", "info": "b"}"#;

#[test]
fn rows_are_found_in_what_surrounds_them() {
    for text in [
        format!("{{\"data\": [{ONE}, {TWO}]}}"),
        format!("{{\n  \"data\": [\n    {ONE},\n    {TWO}\n  ]\n}}\n"),
        format!("\u{feff}{{\"status\": \"ok\", \"count\": 2, \"data\": [{ONE}, {TWO}], \"next\": null}}"),
        format!("{{\"meta\": {{\"page\": 1, \"of\": \"1\"}}, \"results\": [{ONE}, {TWO}]}}"),
        format!("{{\"data\": [{ONE}, {TWO}], \"meta\": {{\"total\": 2}}}}"),
        format!("{{\"data\": {{\"pols\": [{ONE}, {TWO}]}}, \"ok\": true}}"),
        // Page by page, one after the other.
        format!("{{\"data\": [{ONE}], \"page\": 1}}\n{{\"data\": [{TWO}], \"page\": 2}}\n{{\"data\": []}}\n"),
        format!("[{{\"data\": [{ONE}]}}, {{\"data\": [{TWO}]}}]"),
        format!("{{\"data\": [{ONE}]}}{{\"data\": [{TWO}]}}{{\"data\": []}}"),
        format!("{{\"errors\": [], \"data\": [{ONE}, {TWO}]}}"),
        format!("{{\"data\": [{ONE}]}}{}{{\"data\": [{TWO}]}}", "{\"data\": []}".repeat(20)),
        // Rows of a table.
        format!("{{\"data\": [[{ONE}], [{TWO}]]}}"),
        format!("{{\"data\": [[\"P1\", \"ANA001\", {ONE}], [\"P2\", \"BOB001\", {TWO}]]}}"),
        format!(
            "{{\"rows\": [{{\"id\": \"P1\", \"book\": \"ANA001\", \"data\": {ONE}}}, {{\"data\": {TWO}}}]}}"
        ),
        // psql: json_agg, with its name or one that the query gave, and as programs fetch it.
        format!("{{\"json_agg\": [{ONE}, \n {TWO}]}}"),
        format!("{{\"pols\": [{ONE}, {TWO}]}}"),
        format!("[[[{ONE}, {TWO}]]]"),
        format!("[[{ONE}, {TWO}]]"),
        format!("[{{\"json_agg\": [{ONE}, {TWO}]}}]"),
    ] {
        let clinic = clinic();
        import(&clinic, "pols.json", &text, &[]).ends(0);
        let pages = clinic.records(Kind::Page);
        let found: Vec<_> = pages.iter().map(|page| page.get_str("_id").unwrap()).collect();
        assert_eq!(found, ["P1", "P2"], "{text}");
        // A second time everything is there.
        let again = import(&clinic, "pols.json", &text, &["--json"]).ends(0).json();
        assert_eq!(
            (&again["files"][0]["equal"], &again["files"][0]["refused"]),
            (&json!(2), &json!(0)),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_row_is_told_with_its_place() {
    let bad = r#"{"id": "P3"}"#;
    for (text, taken, told) in [
        (
            format!("{{\"data\": [\n{ONE},\n{bad},\n{TWO}]}}"),
            2,
            "pols.json line 3 column 1: `book` is missing: nobody would see the record",
        ),
        (
            format!("{{\"data\": [{ONE}]}}\n{{\"data\": [\n  {bad}\n]}}\n{{\"data\": [{TWO}]}}"),
            2,
            "pols.json line 3 column 3: `book` is missing",
        ),
        (
            format!("{{\"data\": [{ONE}], \"people\": [{{\"id\": \"EVA001\"}}]}}"),
            1,
            "pols.json line 1 column 55: what stands beside the rows was not read",
        ),
        (
            format!("{{\"people\": [{ONE}]}}"),
            0,
            "line 1 column 1: the rows are called `people`, and the file is of pols: nothing of them was read",
        ),
        (format!("{{\"data\": [{ONE}, 5]}}"), 1, "expected a document in the array; the rest was not read"),
        (format!("{{\"data\": [{ONE}]"), 1, "what stands beside the rows was not read"),
        (format!("{{\"message\": \"{}\"}}", "Unauthorized"), 0, "line 1 column 1: `book` is missing"),
        ("{\"data\": null}".to_owned(), 0, "`data` is NULL"),
        ("{\"data\": [5]}".to_owned(), 0, "line 1 column 1: "),
        ("{\"data\": []}".to_owned(), 0, "none of the files holds a record"),
        (
            format!("{{\"id\": \"P9\", \"book\": \"ANA001\", \"data\": [{ONE}]}}"),
            0,
            "data: a list stands where",
        ),
        // A record that lacks its id is none that wraps those in its own lists.
        (format!("{{\"book\": \"ANA001\", \"info\": \"x\", \"data\": [{ONE}]}}"), 0, "_id: missing"),
        (format!("[[{ONE}, {bad}, {{\"n\": 1}}]]"), 0, "several documents"),
        (
            format!("{{\"generated\": \"2026\", \"data\": [{ONE}]}}"),
            0,
            "if the rows are in `data`, take that list out",
        ),
    ] {
        let clinic = clinic();
        import(&clinic, "pols.json", &text, &[]).ends(1).complains(told);
        assert_eq!(clinic.records(Kind::Page).len(), taken, "{text}");
        let counted = import(&clinic, "pols.json", &text, &["--dry-run"]).ends(1);
        counted.complains(told);
    }
}

/// A file that is larger than what is looked at in the beginning.
#[test]
fn a_long_answer_is_read_row_by_row() {
    let clinic = clinic();
    let rows: Vec<String> = (0..3000)
        .map(|number| {
            format!("{{\"id\": \"P{number}\", \"book\": \"ANA001\", \"info\": \"{}\"}}", "x".repeat(60))
        })
        .collect();
    import(&clinic, "pols.json", format!("{{\"data\": [{}], \"total\": 3000}}", rows.join(",\n")), &[])
        .ends(0);
    assert_eq!(clinic.records(Kind::Page).len(), 3000);
}

#[test]
fn each_person_with_an_odd_id_is_told_of() {
    let clinic = clinic();
    let long = "X".repeat(33);
    let taken = ["ANA 001", "ana-001", "ÑANDU1", "AB", "ANA001 ", "a/b", "..", "ROOT@local", &long, "123"];
    let refused = [
        ("5", "_id: must be text"),
        ("null", "_id: must be text"),
        ("\"\"", "_id: must not be empty"),
        ("\"A\\u0001B\"", "_id: must not be empty or hold control characters"),
        ("{\"$oid\": \"0102030405060708090a0b0c\"}", "_id: must be text"),
        ("[\"EVA001\"]", "_id: must be text"),
        ("true", "_id: must be text"),
    ];
    let rows =
        taken.iter().map(|id| json!(id).to_string()).chain(refused.iter().map(|(id, _)| (*id).to_owned()));
    let lines: Vec<String> = rows.map(|id| format!("{{\"id\": {id}, \"name\": \"N\"}}")).collect();
    for more in [&["--dry-run"][..], &[]] {
        let ran = import(&clinic, "people.jsonl", lines.join("\n"), more).ends(1);
        ran.complains(&format!("not everything was taken: {} rows were refused", refused.len()));
        for (number, id) in taken.iter().enumerate() {
            let told =
                format!("people.jsonl line {} column 1: {id:?}: taken, but nobody can log in", number + 1);
            // "123" is an account.
            assert_eq!(ran.err.contains(&told), *id != "123", "{told}\n{}", ran.err);
        }
        for (number, (id, why)) in refused.iter().enumerate() {
            let line = taken.len() + number + 1;
            assert!(
                ran.err
                    .lines()
                    .any(|told| told.contains(&format!("line {line} column 1")) && told.contains(why)),
                "{id}: {why}\n{}",
                ran.err
            );
        }
    }
    assert_eq!(clinic.records(Kind::Person).len(), 2 + taken.len());
    // Where all are taken it ends with 0, and a program finds how many there are.
    let ran = import(&clinic, "people.jsonl", r#"{"id": "EVA-1"}"#, &["--json"]).ends(0);
    assert_eq!(ran.json()["files"][0]["no_account"], 1);
}
