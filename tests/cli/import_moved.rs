//! `import` of what a clinic brings from its Thalamus, and may take back there: accounts as they are spelled, records in the
//! wrong file, what another program has in the same database, and answers of this node itself.

use std::fs;

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::record::Kind;

use crate::cli_support::Clinic;
use crate::imports::{clinic, import, put};

fn ids(clinic: &Clinic, kind: Kind) -> Vec<String> {
    clinic.records(kind).iter().map(|record| record.get_str("_id").unwrap().to_owned()).collect()
}

/// For Thalamus two spellings are two people: what comes back in another one is in nobody's book, or in another person's.
#[test]
fn accounts_keep_the_spelling_of_the_files() {
    let clinic = Clinic::new();
    put(
        &clinic,
        "federation/people.jsonl",
        "{\"id\": \"arglow001aaa\", \"name\": \"Ana\", \"roles\": [\"end_user\"]}\n{\"id\": \"a/b\", \"name\": \"Bo\"}",
    );
    put(&clinic, "federation/pols.jsonl", r#"{"id": "p1", "book": "arglow001aaa"}"#);
    for number in 0..2 {
        let ran = clinic.run(&["import", "federation"]).ends(0);
        assert!(!ran.err.contains("spell"), "{number}: {}", ran.err);
    }
    assert_eq!(ids(&clinic, Kind::Person), ["a/b", "arglow001aaa"]);
    let node = clinic.serve(&[]);
    clinic.run_with(&["user", "passwd", "ARGLOW001AAA", "--password-stdin"], "long enough, 77\n").ends(0);
    // The account is the same in every spelling, and what is written on the node is in the same book.
    for account in ["arglow001aaa", "ARGLOW001AAA", "ArgLow001aaa"] {
        let login = format!("{account}:long enough, 77");
        assert_eq!(node.request("GET", &format!("/pols/{account}"), &login, "").0, 200, "{account}");
        let (path, body) = (format!("/pols/{account}/of-{account}"), format!("{{\"id\": \"of-{account}\"}}"));
        assert_eq!(node.request("POST", &path, &login, &body).0, 201, "{account}");
    }
    node.stop();
    clinic.run(&["export", "back"]).ends(0);
    let back = |file: &str| fs::read_to_string(clinic.path("back").join(file)).unwrap();
    for file in ["people.jsonl", "pols.jsonl"] {
        assert!(!back(file).contains("\"ARGLOW001AAA\""), "{}", back(file));
    }
    assert_eq!(back("pols.jsonl").matches(r#""book":"arglow001aaa""#).count(), 4, "{}", back("pols.jsonl"));
}

/// Who is here already has the spelling that they have, and each is named: in the files' database it is another one.
#[test]
fn each_person_with_another_spelling_here_is_named() {
    let clinic = clinic();
    let rows = "{\"id\": \"ana001\", \"name\": \"Ana\"}\n{\"id\": \"BOB001\", \"name\": \"Bob\"}";
    let ran = import(&clinic, "people.jsonl", rows, &["--json"]).ends(0);
    ran.complains("people.jsonl line 1 column 1: \"ana001\": the account is spelled \"ANA001\" here");
    ran.complains("note: 1 people have another spelling of their account here");
    assert_eq!(
        (&ran.json()["files"][0]["respelled"], &ran.json()["files"][0]["equal"]),
        (&json!(1), &json!(2))
    );
    import(&clinic, "pols.jsonl", r#"{"id": "p1", "book": "ana001"}"#, &[]).ends(0);
    assert_eq!(clinic.records(Kind::Page)[0].get_str("book").unwrap(), "ANA001");
    // Two people in one file whose accounts differ in nothing else are not mixed.
    let rows = "{\"id\": \"eva001\", \"name\": \"Eva\"}\n{\"id\": \"EVA001\", \"name\": \"Evelyn\", \"lastname\": \"B\"}";
    import(&clinic, "people.jsonl", rows, &["--replace"]).ends(1).complains("1 rows were refused");
    assert_eq!(ids(&clinic, Kind::Person), ["ANA001", "BOB001", "eva001"]);
}

#[test]
fn records_in_the_file_of_another_collection_are_refused() {
    let clinic = clinic();
    for (name, row, told) in [
        (
            "people.jsonl",
            r#"{"_id": "p1", "book": "ANA001", "summary": "s"}"#,
            "`book` stands in records of pols",
        ),
        (
            "people.jsonl",
            r#"{"id": "d1", "fedacct": "ANA001"}"#,
            "`fedacct` stands in records of personal_document",
        ),
        ("people.txt", "p1\t{\"id\": \"p1\", \"book\": \"ANA001\"}", "`book` stands in records of pols"),
        (
            "institutions.jsonl",
            r#"{"id": "EVA001", "name": "E", "lastname": "B"}"#,
            "`lastname` stands in records of people",
        ),
        ("dus.jsonl", r#"{"id": "p1", "book": "ANA001"}"#, "`book` stands in records of pols"),
        ("people.jsonl", r#"{"id": "ARGSCA001AAA", "data": 5}"#, "data: must be a JSON object"),
    ] {
        let ran = import(&clinic, name, row, &[]).ends(1);
        ran.complains(told).complains("not everything was taken: 1 rows were refused");
    }
    assert_eq!(ids(&clinic, Kind::Person), ["ANA001", "BOB001"]);
    assert_eq!(ids(&clinic, Kind::Institution).len() + ids(&clinic, Kind::DomiciliaryUnit).len(), 0);
}

/// Its tables happen to be called as kinds of record that Thalamus has no table for.
#[test]
fn tables_of_another_program_are_left_out_by_name() {
    let clinic = clinic();
    let ours = "COPY public.pols (id, book, data) FROM stdin;\nP1\tANA001\t{}\n\\.\n";
    for (rows, taken) in [("", 1), ("1\ttitle\n", 1)] {
        let theirs = format!("COPY public.events (id, title) FROM stdin;\n{rows}\\.\n");
        let ran = import(&clinic, "all.sql", theirs + ours, &["--json"]).ends(1);
        ran.complains("its table public.events is not Thalamus's: the column `title` is not one of");
        ran.complains("not everything was taken: 1 files were left out");
        assert!(!ran.err.contains("cannot be read"), "{}", ran.err);
        assert_eq!(ids(&clinic, Kind::Page).len(), taken);
    }
}

#[test]
fn a_file_of_mongodump_is_called_what_it_is() {
    let clinic = clinic();
    let bytes = doc! {"_id": "EVA001", "name": "Eva"}.to_vec().unwrap();
    import(&clinic, "people.json", bytes, &[]).ends(1).complains("this is BSON, as mongodump writes it");
}

/// An answer shows the id twice. That is no field of the record.
#[test]
fn answers_of_the_node_itself_are_what_it_has() {
    let clinic = clinic();
    import(&clinic, "pols.jsonl", r#"{"_id": "P1", "book": "ANA001", "n": 1}"#, &[]).ends(0);
    let both = r#"{"_id": "P2", "id": "P2", "book": "ANA001"}"#;
    import(&clinic, "pols.jsonl", both, &[]).ends(0);
    let before = (clinic.raw_records(Kind::Page), clinic.raw_records(Kind::Person));
    let answer = r#"[{"_id": "P1", "id": "P1", "book": "ANA001", "n": 1}, {"_id": "P2", "id": "P2", "book": "ANA001"}]"#;
    for more in [&["--json"][..], &["--json", "--replace"]] {
        import(&clinic, "pols.json", answer, more).ends(0).says("\"equal\": 2");
        import(&clinic, "people.json", r#"[{"_id": "ANA001", "id": "ana001", "name": "Ana"}]"#, more).ends(0);
    }
    assert_eq!((clinic.raw_records(Kind::Page), clinic.raw_records(Kind::Person)), before);
}

/// Documents that came without their bytes: the file that has them says more than the record here.
#[test]
fn bytes_that_come_later_are_added_by_replace() {
    let clinic = clinic();
    import(&clinic, "personal_docs.jsonl", r#"{"id": "D1", "fedacct": "ANA001"}"#, &[]).ends(1);
    let row =
        r#"{"id": "D1", "fedacct": "ANA001", "pol": null, "document": "\\x0102", "data": {"id": "D1"}}"#;
    import(&clinic, "personal_docs.jsonl", row, &[]).ends(1).complains("`--replace` overwrites them");
    import(&clinic, "personal_docs.jsonl", row, &["--replace"]).ends(0);
    assert!(clinic.records(Kind::PersonalDocument)[0].contains_key("content"));
}
