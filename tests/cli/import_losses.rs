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
    ran.complains("3 people stay open or closed as they are here");
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
    import(&clinic, "people.jsonl", hub, &[]).ends(1).complains("3 people stay open or closed");
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

/// The head and the end of what `pg_dump` writes.
const DUMP_HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\nSET standard_conforming_strings = on;\n\n";
const DUMP_TAIL: &str = "--\n-- PostgreSQL database dump complete\n--\n";

fn copy_of(table: &str, rows: &str) -> String {
    let columns = if table.ends_with("people") { "id, data" } else { "id, book, data" };
    format!("COPY {table} ({columns}) FROM stdin;\n{rows}\\.\n\n")
}

const PAGE_ROW: &str = "P1\tANA001\t{\"id\": \"P1\"}\n";

#[test]
fn a_dump_that_was_cut_off_between_tables_is_named() {
    let whole = format!(
        "{DUMP_HEAD}{}{}{DUMP_TAIL}",
        copy_of("public.people", "EVA001\t{\"name\": \"Eva\"}\n"),
        copy_of("public.pols", PAGE_ROW)
    );
    let clinic = clinic();
    import(&clinic, "all.sql", &whole, &[]).ends(0);
    for cut in ["COPY public.pols", "P1\t", "--\n-- PostgreSQL database dump complete"] {
        let cut = whole.split(cut).next().unwrap();
        let clinic = self::clinic();
        for more in [&["--dry-run", "--json"][..], &["--json"]] {
            let ran = import(&clinic, "all.sql", cut, more).ends(1);
            ran.complains("all.sql: the dump ").complains("it was cut off").complains("1 dumps were cut off");
            let told = ran.json();
            assert_eq!(told["cut_off"][0]["file"], json!("all.sql"), "{told}");
            assert_eq!(told["files"][0]["added"], json!(1), "what is there counts: {told}");
        }
        assert_eq!(clinic.records(Kind::Person).len(), 3);
    }
}

#[test]
fn tables_of_two_schemas_are_not_mixed() {
    let clinic = clinic();
    let dump = format!(
        "{DUMP_HEAD}{}{}{}{DUMP_TAIL}",
        copy_of("archive.people", "OLD001\t{\"name\": \"Old\"}\n"),
        copy_of("public.people", "EVA001\t{\"name\": \"Eva\"}\n"),
        copy_of("public.pols", PAGE_ROW),
    );
    let ran = import(&clinic, "all.sql", &dump, &[]).ends(2);
    ran.complains("several schemas: say with --schema which are to be taken (archive, public)");
    assert_eq!(clinic.records(Kind::Person).len(), 2, "nothing was taken");
    import(&clinic, "all.sql", &dump, &["--schema", "other"])
        .ends(2)
        .complains("no such table in the schema other");
    let ran = import(&clinic, "all.sql", &dump, &["--schema", "public"]).ends(0);
    ran.complains("its table archive.people is of another schema and is not taken");
    let people = clinic.records(Kind::Person);
    let ids: Vec<_> = people.iter().map(|person| person.get_str("_id").unwrap()).collect();
    assert_eq!(ids, ["ANA001", "BOB001", "EVA001"]);
    assert_eq!(clinic.records(Kind::Page).len(), 1);
}

/// `pg_dumpall`, or `pg_dump -C` of two databases in one file: one of them may be there to practise.
#[test]
fn tables_of_two_databases_are_not_mixed() {
    let dump_of = |person: &str| {
        format!(
            "{DUMP_HEAD}{}{}{DUMP_TAIL}",
            copy_of("public.people", &format!("{person}\t{{\"name\": \"Eva\"}}\n")),
            copy_of("public.pols", PAGE_ROW)
        )
    };
    let whole = format!(
        "\\connect template1\n{DUMP_HEAD}{DUMP_TAIL}\\connect -reuse-previous=on \"dbname='a test'\"\n{}\\c clinic\n{}",
        dump_of("OLD001"),
        dump_of("EVA001")
    );
    let clinic = clinic();
    for more in [&["--dry-run"][..], &[], &["--replace"], &["--schema", "public"]] {
        let ran = import(&clinic, "all.sql", &whole, more).ends(2);
        ran.complains("all.sql: several databases have such tables: say with --database which one is to be taken (a test, clinic)");
        assert_eq!(clinic.records(Kind::Person).len(), 2, "nothing was taken");
    }
    import(&clinic, "all.sql", &whole, &["--database", "other"])
        .ends(2)
        .complains("no dump has such a table of the database other");
    // What stands before the first change of the database is of another one.
    let changed = format!("{}\\connect clinic\n{}", dump_of("OLD001"), dump_of("EVA001"));
    let ran = import(&clinic, "all.sql", &changed, &[]).ends(2);
    ran.complains("(\"\", before the first \\connect, clinic)");
    // Two dumps of nobody knows what.
    let ran = import(&clinic, "all.sql", dump_of("OLD001") + &dump_of("EVA001"), &[]).ends(2);
    ran.complains("stands in two dumps that were put together");
    // In files of their own they are two databases as well.
    put(&clinic, "two/a.sql", format!("\\connect atest\n{}", dump_of("OLD001")));
    put(&clinic, "two/b.sql", format!("\\connect clinic\n{}", dump_of("EVA001")));
    clinic.run(&["import", "two"]).ends(2).complains("which one is to be taken (atest, clinic)");
    clinic
        .run(&["import", "two", "--database", "clinic", "--dry-run"])
        .ends(0)
        .complains("is of the database atest");
    put(&clinic, "named/clinic.people.json", r#"{"id": "EVA001"}"#);
    put(&clinic, "named/atest.people.json", r#"{"id": "OLD001"}"#);
    clinic.run(&["import", "named"]).ends(2).complains("of several databases or schemas (atest, clinic)");
    assert_eq!(clinic.records(Kind::Person).len(), 2, "nothing was taken");
    // One of them may be chosen, and one that stands alone needs no choice.
    let ran = import(&clinic, "all.sql", &whole, &["--database", "clinic"]).ends(0);
    ran.complains("its table public.people is of the database a test and is not taken");
    let people = clinic.records(Kind::Person);
    let ids: Vec<_> = people.iter().map(|person| person.get_str("_id").unwrap()).collect();
    assert_eq!(ids, ["ANA001", "BOB001", "EVA001"]);
    let alone = format!("\\connect template1\n{DUMP_HEAD}{DUMP_TAIL}\\connect clinic\n{}", dump_of("EVA001"));
    import(&clinic, "all.sql", alone, &["--json"]).ends(0).says("\"equal\": 1");
}

#[test]
fn what_reads_like_rows_within_functions_and_comments_is_not_taken() {
    let clinic = clinic();
    let fake = copy_of("public.pols", "FAKE\tBOB001\t{\"id\": \"FAKE\"}\n");
    let dump = format!(
        "{DUMP_HEAD}/* as before:\n{fake}*/\nCREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$\n{fake}$_$;\n\
         COMMENT ON TABLE pols IS 'it''s like\n{fake}';\n{}{DUMP_TAIL}",
        copy_of("public.pols", PAGE_ROW)
    );
    import(&clinic, "all.sql", &dump, &["--json"]).ends(0).says("\"added\": 1");
    assert_eq!(clinic.records(Kind::Page)[0].get_str("_id").unwrap(), "P1");
}

/// `row_to_json` of a table to which somebody has added a column.
#[test]
fn no_record_ends_up_within_its_column() {
    let clinic = clinic();
    for row in [
        r#"{"id":"P1","book":"ANA001","data":{"page":1},"added":"x"}"#,
        r#"{"id":"P1","book":"ANA001","data":{"id":"P1","page":1},"added":"x"}"#,
        r#"{"id":"P1","book":"ANA001","data":"{\"page\": 1}","added":"x"}"#,
    ] {
        let ran = import(&clinic, "pols.jsonl", row, &[]).ends(1);
        ran.complains(
            "pols.jsonl line 1 column 1: a row with columns that are not of Thalamus's table: added",
        );
        assert_eq!(clinic.records(Kind::Page), [], "{row}");
    }
    // A document may have a field that is called so.
    let document = r#"{"_id":"P1","book":"ANA001","data":{"page":1},"added":"x"}"#;
    import(&clinic, "pols.jsonl", document, &[]).ends(0);
    assert_eq!(clinic.records(Kind::Page).len(), 1);
}

/// `COPY ... TO STDOUT (NULL '')`.
#[test]
fn an_empty_text_that_stands_for_null_adds_nothing() {
    let clinic = clinic();
    let row = "D1\tANA001\t\t\t{\"id\": \"D1\", \"fedacct\": \"ANA001\"}\n";
    let ran = import(&clinic, "personal_docs.txt", row, &["--json"]).ends(0);
    assert_eq!(ran.json()["files"][0]["incomplete"], json!(0));
    let document = clinic.records(Kind::PersonalDocument).remove(0);
    for field in ["pol", "document", "content"] {
        assert!(!document.contains_key(field), "{document}");
    }
    // Without an owner it is nobody's.
    let ran = import(&clinic, "personal_docs.txt", "D2\t\t\t\t{\"id\": \"D2\"}\n", &[]).ends(1);
    ran.complains("`fedacct` is missing");
}

#[test]
fn every_mark_of_null_in_csv_is_null() {
    for null in ["", "\\N", "NULL", "null"] {
        let clinic = clinic();
        let text = format!("id,book,data\nP1,{null},\"{{\"\"page\"\": 1}}\"\n");
        import(&clinic, "pols.csv", &text, &[]).ends(1).complains("line 2 column 1: `book` is missing");
        assert_eq!(clinic.records(Kind::Page), [], "{null}");
    }
}

/// psql with a tab between the columns escapes nothing, unlike COPY.
#[test]
fn rows_of_psql_with_tabs_are_read_as_they_are_or_refused() {
    let clinic = clinic();
    // Text of the type `json` may hold tabs and line ends between its signs.
    let text =
        "P1\tANA001\t{\"id\":\t\"P1\",\n\"n\": 1}\nP2\tANA001\t{\"id\": \"P2\", \"note\": \"a\\nb\"}\n";
    let ran = import(&clinic, "pols.txt", text, &[]).ends(1);
    ran.complains("pols.txt line 1 column 1: data: not JSON").complains("pols.txt line 2 column 1: ");
    let pages = clinic.records(Kind::Page);
    let [page] = pages.as_slice() else { panic!("{pages:?}") };
    assert_eq!((page.get_str("_id").unwrap(), page.get_str("note").unwrap()), ("P2", "a\nb"));
}

#[test]
fn a_document_with_other_bytes_than_its_hash_says_is_named() {
    let clinic = clinic();
    let row = |hash: &str| {
        let data = format!(r#"{{"id": "D1", "fedacct": "ANA001", "pol": "P1", "hash": "{hash}"}}"#);
        format!("D1\tANA001\tP1\t\\\\x010203\t{data}\n")
    };
    // SHA-256 of the three bytes.
    let right = "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81";
    let ran = import(&clinic, "personal_docs.txt", row(&"0".repeat(64)), &["--json"]).ends(0);
    ran.complains("D1: its bytes are not those that `hash` is of; they are taken as they are");
    assert_eq!(ran.json()["files"][0]["incomplete"], json!(0));
    import(&self::clinic(), "personal_docs.txt", row(right), &[]).ends(0);
}

#[test]
fn blank_lines_of_json_count_in_the_numbers_of_lines() {
    let clinic = clinic();
    let text = "\n\n{\"id\": \"P1\", \"book\": \"ANA001\"}\n\r\n   \n{\"id\": \"P2\"}\n\n{\"id\": oops}\n";
    let ran = import(&clinic, "pols.jsonl", text, &[]).ends(1);
    ran.complains("pols.jsonl line 6 column 1: `book` is missing").complains("pols.jsonl line 8 column 8: ");
    assert_eq!(clinic.records(Kind::Page).len(), 1);
}

#[test]
fn an_import_beside_a_running_node_ends_with_3() {
    let clinic = clinic();
    put(&clinic, "pols.jsonl", r#"{"id": "P1", "book": "ANA001"}"#);
    let node = clinic.serve(&[]);
    clinic
        .run(&["import", "pols.jsonl"])
        .ends(3)
        .complains("is in use by another thalamus-edge: stop it first");
    clinic.run(&["import", "--dry-run", "pols.jsonl"]).ends(3).complains("stop it first");
    clinic.run(&["export", "out"]).ends(3).complains("stop it first");
    drop(node);
    clinic.run(&["import", "pols.jsonl"]).ends(0);
}

/// A hub stores `active: false` for everybody, so the record alone does not say that somebody closed the account.
#[test]
fn an_account_that_was_closed_stays_closed_on_another_box() {
    let clinic = clinic();
    clinic.run(&["user", "disable", "ANA001"]).ends(0);
    clinic.run(&["export", "out"]).ends(0).says("closed_accounts.jsonl");
    assert_eq!(
        fs::read_to_string(clinic.path("out/closed_accounts.jsonl")).unwrap(),
        "{\"_id\":\"ANA001\"}\n"
    );
    let other = Clinic::new();
    fs::rename(clinic.path("out"), other.path("out")).unwrap();
    other.run(&["import", "--dry-run", "out"]).ends(0);
    other.run(&["import", "out"]).ends(0);
    let is_closed = |clinic: &Clinic, id: &str| {
        let store = clinic.open_store();
        let snapshot = store.read().unwrap();
        snapshot.is_closed_here(id).unwrap()
    };
    assert_eq!((is_closed(&other, "ANA001"), is_closed(&other, "BOB001")), (true, false));
    // The same once more changes nothing.
    other.run(&["import", "out"]).ends(0);
    // Whoever is here and open is closed by no file.
    other.run(&["user", "enable", "ANA001"]).ends(0).says("is open, and has no password yet");
    other
        .run(&["import", "out"])
        .ends(1)
        .complains("ANA001: `active` stays as it is here: the account is open");
    assert!(!is_closed(&other, "ANA001"));
}
