//! `import`: what a file holds and the store does not get is refused or named, and the command ends with 1 or 2.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use thalamus_edge::domain::record::Kind;

use crate::cli_support::Clinic;
use crate::imports::{clinic, import, put};

/// Pages that fill the buffer of a pipe several times.
fn many_pages() -> String {
    let mut text = String::new();
    for number in 0..4000 {
        writeln!(text, "{{\"_id\": \"P{number}\", \"book\": \"ANA001\", \"info\": \"{}\"}}", "x".repeat(40))
            .unwrap();
    }
    assert!(text.len() > 200 << 10);
    text
}

/// A pipe gives its bytes once, and a file is read twice: the second reading would begin in the middle.
#[test]
fn a_pipe_is_refused_before_anything_is_read() {
    let clinic = clinic();
    put(&clinic, "many.jsonl", many_pages());
    for name in ["pols", "pols.jsonl", "federation.sql"] {
        let made = Command::new("mkfifo").arg(clinic.path(name)).status().unwrap();
        assert!(made.success());
        let mut writer = Command::new("sh");
        writer.arg("-c").arg("exec cat \"$1\" > \"$2\"").arg("sh");
        writer.arg(clinic.path("many.jsonl")).arg(clinic.path(name)).stderr(Stdio::null());
        let mut writer = writer.spawn().unwrap();
        let ran = clinic.run(&["import", "--collection", "pols", name]);
        writer.kill().unwrap();
        writer.wait().unwrap();
        ran.ends(2).complains("it is a pipe (FIFO)").complains("save it as a file");
        assert_eq!(clinic.records(Kind::Page), []);
        fs::remove_file(clinic.path(name)).unwrap();
    }
    let args = ["import", "--collection", "pols", "/dev/stdin"];
    clinic.run_with(&args, &many_pages()).ends(2).complains("it is a pipe (FIFO)");
    clinic.run(&args).ends(2).complains("it is a device");
    // In a directory it is left out, and nobody waits for a writer.
    put(&clinic, "all/people.jsonl", r#"{"id": "ANA001", "name": "Ana"}"#);
    assert!(Command::new("mkfifo").arg(clinic.path("all/pols.jsonl")).status().unwrap().success());
    clinic.run(&["import", "all"]).ends(1).complains("pols.jsonl: it is a pipe (FIFO)");
    assert_eq!(clinic.records(Kind::Page), []);
}

/// Hubs store `active: false` for everybody.
#[test]
fn an_import_opens_and_closes_nobody_who_is_here() {
    let clinic = Clinic::new();
    let here = r#"{"id": "ANA001", "name": "Ana", "active": true}
{"id": "BOB001", "name": "Bob"}
{"id": "CID001", "name": "Cid", "active": false}"#;
    import(&clinic, "people.jsonl", here, &[]).ends(0);
    let hub = r#"{"id": "ANA001", "name": "Anna", "active": false}
{"id": "BOB001", "name": "Bob", "active": false}
{"id": "CID001", "name": "Cid", "active": true}
{"id": "DAN001", "name": "Dan", "active": false}"#;
    let ran = import(&clinic, "people.jsonl", hub, &["--replace", "--json"]).ends(1);
    ran.complains("line 1 column 1: ANA001: `active` stays as it is here: the account is open");
    ran.complains("line 2 column 1: BOB001: `active` stays as it is here: the account is open");
    ran.complains("line 3 column 1: CID001: `active` stays as it is here: the account is closed");
    ran.complains("3 people are open or closed here unlike in the files");
    let counts = &ran.json()["files"][0];
    assert_eq!((&counts["replaced"], &counts["equal"]), (&json!(1), &json!(2)));
    assert_eq!((&counts["added"], &counts["active_kept"]), (&json!(1), &json!(3)));
    let people = clinic.records(Kind::Person);
    let found: Vec<_> = people
        .iter()
        .map(|person| (person.get_str("name").unwrap(), person.get_bool("active").ok()))
        .collect();
    assert_eq!(
        found,
        [("Anna", Some(true)), ("Bob", None), ("Cid", Some(false)), ("Dan", Some(false))],
        "{people:?}"
    );
    import(&clinic, "people.jsonl", hub, &[]).ends(1).complains("3 people are open or closed here unlike");
}

/// Of these nothing tells which cell is the person's.
#[test]
fn a_page_is_not_given_to_a_person_by_the_order_of_its_cells() {
    let clinic = clinic();
    for (name, text) in [
        ("pols.txt", "ANA001|P1|{\"n\": 1}\n"),
        ("pols.txt", "ANA001|PAGE1|{\"n\": 1}\n"),
        ("pols.txt", "ANA001\tP1\t{\"n\": 1}\n"),
        ("pols.csv", "ANA001,P1,\"{\"\"n\"\": 1}\"\n"),
        ("pols.json", "[[\"ANA001\", \"P1\", {\"n\": 1}]]"),
        ("personal_docs.txt", "D1|P1|ANA001||{\"id\": \"D1\"}\n"),
        ("personal_docs.json", "[[\"P1\", \"ANA001\", {\"id\": \"D1\"}, null]]"),
    ] {
        let ran = import(&clinic, name, text, &[]).ends(1);
        ran.complains("which columns these are cannot be told; name the columns");
        assert_eq!(clinic.records(Kind::Page), [], "{text}");
        assert_eq!(clinic.records(Kind::PersonalDocument), [], "{text}");
    }
    import(&clinic, "pols.txt", "P1|ANA001|{\"n\": 1}\n", &[]).ends(0);
    assert_eq!(clinic.records(Kind::Page)[0].get_str("book").unwrap(), "ANA001");
}

#[test]
fn every_copy_of_a_dump_is_read_or_named() {
    let clinic = clinic();
    let page = "P1\tANA001\t{\"id\": \"P1\", \"book\": \"ANA001\"}\n\\.\n";
    for copy in
        ["COPY pols FROM stdin;", "copy public.pols from STDIN;", "COPY pols (id, book, data) FROM stdin;"]
    {
        import(&clinic, "all.sql", format!("{copy}\n{page}"), &["--json"]).ends(0).says("\"refused\": 0");
        assert_eq!(clinic.records(Kind::Page).len(), 1, "{copy}");
    }
    for copy in [
        "COPY pols (id,",
        "COPY pols FROM '/tmp/pols.txt';",
        "COPY pols FROM stdin WITH (FORMAT csv);",
        "COPY (SELECT 1) TO stdout;",
    ] {
        import(&clinic, "all.sql", format!("{copy}\n{page}"), &[])
            .ends(1)
            .complains("line 1: rows of this COPY are not read");
    }
}

#[test]
fn every_document_without_its_bytes_is_named() {
    let clinic = clinic();
    let data = r#"{"id": "D1", "fedacct": "ANA001"}"#;
    let missing = "D1: incomplete: the file says nothing of its bytes";
    let ran = import(&clinic, "personal_docs.jsonl", data, &["--json"]).ends(1);
    ran.complains(missing).complains("1 personal documents are incomplete");
    assert_eq!(ran.json()["files"][0]["incomplete"], json!(1));
    import(&clinic, "personal_docs.jsonl", data, &[]).ends(1).complains(missing);
    let flat = r#"{"id": "D2", "fedacct": "ANA001", "document": "AQID"}"#;
    import(&clinic, "personal_docs.jsonl", flat, &[])
        .ends(1)
        .complains("D2: incomplete: `document` is text that does not begin with `\\x` and was kept as text");
    let told = r#"[["ANA001", "P1", {"id": "D3", "fedacct": "ANA001"}, null]]"#;
    import(&clinic, "personal_docs.json", told, &[]).ends(0);
    let none = r#"{"_id": "D4", "fedacct": "ANA001", "document": null}"#;
    import(&clinic, "personal_document.jsonl", none, &[]).ends(0);
    // An export of a node says which documents have bytes.
    clinic.run(&["export", "out"]).ends(0);
    Clinic::new().run(&["import", clinic.path("out").to_str().unwrap()]).ends(0);
}

#[test]
fn a_row_after_a_refused_one_of_its_id_is_taken() {
    let clinic = clinic();
    import(&clinic, "pols.jsonl", r#"{"id": "P1", "book": "ANA001", "n": 0}"#, &[]).ends(0);
    let text = "{\"id\": \"P1\", \"book\": \"BOB001\", \"n\": 1}\n{\"id\": \"P1\", \"book\": \"ANA001\", \"n\": 2}\n";
    import(&clinic, "pols.jsonl", text, &["--replace"]).ends(1).complains("1 rows were refused");
    assert_eq!(clinic.records(Kind::Page)[0].get_i32("n").unwrap(), 2);
}

/// The only column of a row is NULL, and CSV writes nothing for it.
#[test]
fn an_empty_line_among_rows_is_named() {
    let clinic = clinic();
    let page = r#"{"id": "P1", "book": "ANA001"}"#;
    let quoted = page.replace('"', "\"\"");
    for (name, text, line) in [
        ("pols.csv", format!("id,data\n\nP1,\"{quoted}\"\n"), "line 2 column 1"),
        ("pols.csv", format!("data\n\"{quoted}\"\n\n"), "line 3 column 1"),
        ("pols.txt", format!("P1\tANA001\t{page}\n\n"), "line 2 column 1"),
        ("pols.txt", format!("data\n{page}\n\n(2 rows)\n"), "line 3 column 1"),
        ("all.sql", format!("COPY pols (data) FROM stdin;\n\n{page}\n\\.\n"), "line 2 column 1"),
    ] {
        let ran = import(&clinic, name, &text, &[]).ends(1);
        ran.complains(&format!("{line}: the line is empty")).complains("1 rows were refused");
    }
    import(&clinic, "pols.txt", format!("P1\tANA001\t{page}\n\\.\n\n"), &[]).ends(0);
}

#[test]
fn a_dry_run_keeps_the_reserve() {
    let clinic = clinic();
    put(&clinic, "pols.jsonl", r#"{"id": "P1", "book": "ANA001"}"#);
    let full = clinic.with("STORE__RESERVE_BYTES", "1TiB");
    let before = fs::read(clinic.data().join("store.redb")).unwrap();
    for more in [&["--dry-run"][..], &[]] {
        let ran = full.run(&[&["import", "pols.jsonl"], more].concat()).ends(1);
        ran.complains("store.reserve_bytes");
        if !more.is_empty() {
            ran.complains("a dry run works on a copy of the store");
        }
    }
    assert_eq!(fs::read(clinic.data().join("store.redb")).unwrap().len(), before.len());
    assert_eq!(clinic.records(Kind::Page), []);
}
