//! `import`: what Thalamus produces, in each format; what is not taken is named, and ends with 1.

use std::fs;
use std::io::Write as _;

use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::record::Kind;

use crate::cli_support::{Clinic, Ran};

const PEOPLE: &str = r#"{"id": "ANA001", "name": "Ana"}
{"id": "BOB001", "name": "Bob"}"#;
const PICTURE: &[u8] = b"\xff\xd8\xffa picture";
const PICTURE_SHA256: &str = "d010a3f9e4a595fc2dd95a8112b6a926be093e4f29a4bd26b5cb950bf44e0366";

/// A clinic that knows Ana and Bob.
pub(crate) fn clinic() -> Clinic {
    let clinic = Clinic::new();
    put(&clinic, "people.jsonl", PEOPLE);
    clinic.run(&["import", "people.jsonl"]).ends(0);
    fs::remove_file(clinic.path("people.jsonl")).unwrap();
    clinic
}

pub(crate) fn put(clinic: &Clinic, name: &str, text: impl AsRef<[u8]>) {
    let path = clinic.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn import(clinic: &Clinic, name: &str, text: impl AsRef<[u8]>, more: &[&str]) -> Ran {
    put(clinic, name, text);
    let ran = clinic.run(&[&["import", name], more].concat());
    fs::remove_file(clinic.path(name)).unwrap();
    ran
}

/// Every form of the same two pages.
#[test]
fn pages_are_read_in_every_form_in_which_thalamus_has_them() {
    let quoted = |text: &str| text.replace('"', "\"\"");
    let one = r#"{"id": "P1", "book": "ANA001", "info": "a \"b\"\nc | d, e; \\ f"}"#;
    let two = r#"{"id": "P2", "book": "BOB001", "info": "it's ñ"}"#;
    let copied = |text: &str| text.replace('\\', "\\\\");
    let shell = "/* 1 */\n{\n  _id: 'P1', // the first\n  book: \"ANA001\",\n  info: \"a \\\"b\\\"\\nc | d, e; \\\\ f\",\n}\n\n/* 2 */\n\
                 { \"_id\" : \"P2\", \"book\" : \"BOB001\", \"info\" : 'it\\'s ñ' }\n";
    let (c1, c2, q1, q2) = (copied(one), copied(two), quoted(one), quoted(two));
    for (name, text) in [
        ("pols.json", format!("[{one},\n{two}]")),
        ("pols.json", format!("\u{feff}[{one},\r\n{two},]\r\n")),
        ("pols.json", format!("[[{one}],[{two}]]\n")),
        ("pols.json", format!("{{\"rows\": [{one}, {two}]}}")),
        ("pols.json", format!("{{\"total\": 2, \"rows\": [[{one}], [{two}]], \"ok\": true}}")),
        ("pols.json", format!("[{one}]\n[{two}]\n")),
        ("pols.jsonl", format!("{one}\r\n\r\n{two}")),
        ("pols.jsonl", format!("{one},\n{two},\n")),
        ("pols.jsonl", format!("[{one}]\n[{two}]\n")),
        ("pols.jsonl", shell.to_owned()),
        (
            "pols.jsonl",
            format!(
                "{{\"id\":\"P1\",\"book\":\"ANA001\",\"data\":{one}}}\n{{\"id\":\"P2\",\"book\":\"BOB001\",\"data\":{two}}}\n"
            ),
        ),
        ("pols.jsonl", format!("{{\"data\":{one}}}\n{{\"data\":{two}}}\n")),
        // COPY, with and without key columns, a heading, the mark of the end, and the line ends of Windows.
        ("pols.txt", format!("P1\tANA001\t{c1}\nP2\tBOB001\t{c2}\n")),
        ("pols.copy", format!("P1\tANA001\t{c1}\r\nP2\tBOB001\t{c2}\r\n\\.\r\n")),
        ("pols.tsv", format!("book\tid\tdata\nANA001\tP1\t{c1}\nBOB001\tP2\t{c2}\n")),
        ("pols.txt", format!("{c1}\n{c2}\n")),
        (
            "pols.txt",
            format!("{{\"id\":\"P1\",\"book\":\"ANA001\",\"data\":{c1}}}\n{{\"id\":\"P2\",\"data\":{c2}}}\n"),
        ),
        ("pols.txt", format!("{c1}\tP1\n{c2}\tP2\n")),
        ("public.pols.csv", format!("P1,ANA001,\"{q1}\"\nP2,BOB001,\"{q2}\"\n")),
        ("pols.csv", format!("\u{feff}id,book,data\r\nP1,ANA001,\"{q1}\"\r\n\"P2\",\"BOB001\",\"{q2}\"\r\n")),
        ("pols.csv", format!("data\n\"{q1}\"\n\"{q2}\"\n")),
        ("pols.csv", format!("\"{q1}\"\n\"{}\"", q2.replace(", ", ",\n "))),
        ("pols.csv", format!("id;data\nP1;\"{q1}\"\nP2;\"{q2}\"\n")),
        // psql -At, and -A with its heading and its count.
        ("pols.txt", format!("P1|ANA001|{one}\nP2|BOB001|{two}\n")),
        ("pols.txt", format!("id|book|data\nP1|ANA001|{one}\nP2|BOB001|{two}\n(2 rows)\n")),
        ("pols.txt", format!("data\n{one}\n{two}\n(2 rows)\n")),
        ("pols.txt", format!("P1\tANA001\t{one}\nP2\tBOB001\t{two}\n")),
        (
            "federation.sql",
            format!(
                "--\n-- PostgreSQL database dump\n--\nSET x = 1;\nCOPY public.pols (id, book, data) FROM stdin;\n\
                 P1\tANA001\t{c1}\nP2\tBOB001\t{c2}\n\\.\n\nCOPY public.people (id, data) FROM stdin;\n\\.\n\n\
                 -- PostgreSQL database dump complete\n"
            ),
        ),
    ] {
        let clinic = clinic();
        import(&clinic, name, &text, &[]).ends(0).says("2");
        let pages: Vec<_> = clinic.records(Kind::Page);
        let expected = [("P1", "ANA001", "a \"b\"\nc | d, e; \\ f"), ("P2", "BOB001", "it's ñ")];
        for (page, (id, book, info)) in pages.iter().zip(expected) {
            let found = ["_id", "book", "info"].map(|field| page.get_str(field).unwrap_or_default());
            assert_eq!(found, [id, book, info], "{name}\n{text}");
        }
        assert_eq!(pages.len(), 2, "{text}");
    }
}

#[test]
fn a_packed_file_is_read_and_a_cut_one_named() {
    let clinic = clinic();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for number in 0..2000 {
        writeln!(packed, "{{\"_id\": \"P{number}\", \"book\": \"ANA001\", \"n\": {}}}", number * 7919)
            .unwrap();
    }
    let packed = packed.finish().unwrap();
    let cut = import(&clinic, "pols.jsonl.gz", &packed[..packed.len() / 2], &[]).ends(1);
    cut.complains("pols.jsonl.gz: the rest cannot be read").complains("not everything was taken");
    let taken = clinic.records(Kind::Page).len();
    assert!((1..2000).contains(&taken), "{taken}");
    import(&clinic, "pols.jsonl.gz", &packed, &[]).ends(0);
    assert_eq!(clinic.records(Kind::Page).len(), 2000);
}

#[test]
fn no_page_is_taken_without_its_person_or_moved_to_another() {
    let clinic = clinic();
    let page = r#"{"id": "P1", "book": "ANA001"}"#;
    import(&clinic, "pols.jsonl", page, &[]).ends(0);
    for (name, text, told) in [
        (
            "pols.jsonl",
            r#"{"id": "P2"}"#,
            "pols.jsonl line 1 column 1: `book` is missing: nobody would see the record",
        ),
        ("pols.jsonl", "\n{\"id\": \"P2\", \"book\": null}", "line 2 column 1: `book` is missing"),
        ("encounter.jsonl", r#"{"id": "E2"}"#, "`person` is missing"),
        ("personal_docs.jsonl", r#"{"id": "D2"}"#, "`fedacct` is missing"),
        (
            "pols.jsonl",
            r#"{"id": "P2", "book": "ANA001", "data": {"id": "P2", "book": "BOB001"}}"#,
            "the column `book` is \"ANA001\", and the document says \"BOB001\"",
        ),
        (
            "pols.txt",
            "P2\tANA001\t{\"id\": \"P3\", \"book\": \"ANA001\"}",
            "pols.txt line 1 column 1: the column `id` is \"P2\", and the document says \"P3\"",
        ),
        (
            "pols.csv",
            "id,book,data\nP2,,\"{\"\"id\"\": \"\"P2\"\", \"\"book\"\": \"\"BOB001\"\"}\"",
            "pols.csv line 2 column 1: the column `book` is NULL",
        ),
        (
            "pols.jsonl",
            r#"{"_id": "P2", "id": "P3", "book": "ANA001"}"#,
            "`_id` is \"P2\" and `id` is \"P3\"",
        ),
        (
            "pols.jsonl",
            r#"{"id": "P1", "book": "BOB001"}"#,
            "P1 is a record of ANA001 here, and no record changes hands",
        ),
    ] {
        for more in [&[][..], &["--replace"]] {
            import(&clinic, name, text, more).ends(1).complains(told).complains("1 rows were refused");
            assert_eq!(clinic.records(Kind::Page), [doc! {"_id": "P1", "book": "ANA001"}], "{text}");
        }
    }
    // Who knows whose they are says it, and cannot say otherwise than the file.
    import(&clinic, "pols.jsonl", r#"[[{"id": "P2"}]]"#, &["--owner", "ana001"]).ends(0);
    assert_eq!(clinic.records(Kind::Page)[1], doc! {"_id": "P2", "book": "ANA001"});
    let other = r#"{"id": "P3", "book": "BOB001"}"#;
    import(&clinic, "pols.jsonl", other, &["--owner", "ANA001"]).ends(1).complains("--owner says \"ANA001\"");
    import(&clinic, "people.jsonl", PEOPLE, &["--owner", "ANA001"])
        .ends(2)
        .complains("--owner is for records");
    import(&clinic, "pols.jsonl", other, &["--owner", "a b"]).ends(2).complains("not a federation account");
    // A record of somebody who is not here is taken, and told of.
    let ran = import(&clinic, "pols.jsonl", r#"{"id": "P4", "book": "CID001"}"#, &[]).ends(0);
    ran.complains("1 records are of people who are not on this node");
}

#[test]
fn a_record_that_stands_twice_does_not_replace_itself() {
    let clinic = clinic();
    let text = "{\"_id\": \"P1\", \"book\": \"ANA001\", \"n\": 1}\n{\"_id\": \"P1\", \"book\": \"ANA001\", \"n\": 2}\n";
    import(&clinic, "pols.jsonl", text, &[])
        .ends(1)
        .complains("line 2 column 1: P1 stands in the files before, with other content");
    // In another file of the same import it is a second one as well, and `--replace` is no advice.
    put(&clinic, "federation.pols.jsonl", text.lines().next().unwrap().replace("P1", "P2"));
    put(&clinic, "pols.jsonl", text.lines().last().unwrap().replace("P1", "P2"));
    let ran = clinic.run(&["import", "--json", "federation.pols.jsonl", "pols.jsonl"]).ends(1);
    ran.complains("pols.jsonl line 1 column 1: P2 stands in the files before, with other content");
    assert_eq!(
        (&ran.json()["files"][1]["refused"], &ran.json()["files"][1]["different"]),
        (&json!(1), &json!(0))
    );
    assert!(!ran.err.contains("--replace"), "{}", ran.err);
    // The same row twice is no second one, whatever is stored.
    let twice = "{\"_id\": \"P2\", \"book\": \"ANA001\", \"n\": 9}\n".repeat(2);
    let ran = import(&clinic, "pols.jsonl", twice, &["--json"]).ends(1);
    assert_eq!(
        (&ran.json()["files"][0]["refused"], &ran.json()["files"][0]["different"]),
        (&json!(0), &json!(2))
    );
    fs::remove_file(clinic.path("federation.pols.jsonl")).unwrap();
    import(&clinic, "pols.jsonl", text.replace("\"n\": 1", "\"n\": 3"), &["--replace"])
        .ends(1)
        .complains("line 2 column 1: P1 stands in the files before");
    assert_eq!(clinic.records(Kind::Page)[0].get_i32("n").unwrap(), 3);
}

#[test]
fn the_bytes_of_documents_come_along() {
    let data = r#"{"id": "D1", "fedacct": "ANA001", "pol": "P1", "extension": "jpg", "hash": "00"}"#;
    let hex = hex::encode(PICTURE);
    let escaped: String = PICTURE.iter().map(|byte| format!("\\{byte:03o}")).collect();
    for (name, text) in [
        ("personal_docs.txt", format!("D1\tANA001\tP1\t\\\\x{hex}\t{data}\n")),
        ("personal_docs.txt", format!("D1\tANA001\tP1\t{}\t{data}\n", escaped.replace('\\', "\\\\"))),
        (
            "personal_docs.csv",
            format!("fedacct,pol,document,data\nANA001,P1,\\x{hex},\"{}\"\n", data.replace('"', "\"\"")),
        ),
        ("personal_docs.txt", format!("D1|ANA001|P1|\\x{hex}|{data}\n")),
        (
            "personal_docs.jsonl",
            format!(
                "{{\"id\":\"D1\",\"fedacct\":\"ANA001\",\"pol\":\"P1\",\"document\":\"\\\\x{hex}\",\"data\":{data}}}\n"
            ),
        ),
        // COPY escapes what row_to_json has escaped; psql does not.
        (
            "personal_docs.txt",
            format!(
                "{{\"id\":\"D1\",\"fedacct\":\"ANA001\",\"pol\":\"P1\",\"document\":\"\\\\\\\\x{hex}\",\"data\":{data}}}\n"
            ),
        ),
        ("personal_docs.txt", format!("D1\tANA001\tP1\t\\x{hex}\t{data}\n")),
        ("personal-documents.json", format!("[[\"ANA001\", \"P1\", {data}, \"\\\\x{hex}\"]]")),
    ] {
        let clinic = clinic();
        let ran = import(&clinic, name, &text, &[]).ends(0);
        assert!(!ran.err.contains("incomplete"), "{text}\n{}", ran.err);
        let document = clinic.records(Kind::PersonalDocument).remove(0);
        let content = document.get_document("content").unwrap_or_else(|_| panic!("{text}\n{document}"));
        assert_eq!(content.get_str("type").unwrap(), "image/jpeg");
        assert_eq!(document.get_str("pol").unwrap(), "P1");
        // The same once more changes nothing, and a file without the bytes does not take them away.
        import(&clinic, name, &text, &["--replace", "--json"]).ends(0).says("\"equal\": 1");
        import(&clinic, "personal_docs.jsonl", data, &["--replace"]).ends(0);
        clinic.run(&["export", "out"]).ends(0);
        let sha256 = content.get_str("sha256").unwrap();
        assert_eq!(fs::read(clinic.path("out/content").join(sha256)).unwrap(), PICTURE, "{text}");
        assert_eq!(sha256, PICTURE_SHA256);
    }
    let clinic = clinic();
    let ran = import(&clinic, "personal_docs.json", format!("[{data}]"), &["--json"]).ends(1);
    ran.complains("D1: incomplete: the file says nothing of its bytes");
    assert_eq!(ran.json()["files"][0]["incomplete"], json!(1));
    // Of a row that says there are none, nothing is missing.
    let ran =
        import(&clinic, "personal_docs.json", format!("[[\"ANA001\", \"P1\", {data}, null]]"), &[]).ends(0);
    assert!(!ran.err.contains("incomplete"), "{}", ran.err);
    let large = clinic.with("API__CONTENT_LIMIT_BYTES", "5");
    let text = format!("D2\tANA001\tP1\t\\\\x{hex}\t{}\n", data.replace("D1", "D2"));
    import(&large, "personal_docs.txt", &text, &[])
        .ends(1)
        .complains("more bytes than api.content_limit_bytes allows");
    let text = text.replace("\\\\x", "\\\\xf");
    import(&clinic, "personal_docs.txt", &text, &[])
        .ends(1)
        .complains("hexadecimal digits of its bytes are damaged");
    assert_eq!(clinic.records(Kind::PersonalDocument).len(), 1);
}

#[test]
fn names_of_thalamus_are_understood_and_others_refused() {
    let clinic = clinic();
    for (name, kind) in [
        ("dus.jsonl", Kind::DomiciliaryUnit),
        ("domiciliary-units.json", Kind::DomiciliaryUnit),
        ("institutions.json", Kind::Institution),
        ("federation.institution.json", Kind::Institution),
    ] {
        import(&clinic, name, format!("{{\"id\": \"{name}\"}}"), &[]).ends(0);
        assert!(clinic.records(kind).iter().any(|record| record.get_str("_id").unwrap() == name), "{name}");
    }
    for name in ["du.json", "people (1).json", "Ana.json", "pagesoflife.csv"] {
        import(&clinic, name, PEOPLE, &[]).ends(2).complains("a file is called after its collection");
    }
    import(&clinic, "Ana.json", r#"{"id": "P9", "book": "ANA001"}"#, &["--collection", "pols"]).ends(0);
    import(&clinic, "Ana.json", "{}", &["--collection", "pages"])
        .ends(2)
        .complains("not a collection of this node");
}

/// What a directory holds and is not taken is named, and the command does not end as if it were.
#[test]
fn nothing_in_a_directory_is_skipped_in_silence() {
    let clinic = Clinic::new();
    put(&clinic, "d/people.json", PEOPLE);
    put(&clinic, "d/load.py", "#!/usr/bin/env python3\n");
    put(&clinic, "d/schema.sql", "/* People */\nCREATE TABLE people (id varchar);\n");
    put(&clinic, "d/people/notes", "");
    let ran = clinic.run(&["import", "d"]).ends(0);
    ran.complains("load.py: a program holds no records").complains("schema.sql: holds no rows");
    for (name, told) in [
        ("d/patients.json", "not a collection of this node, left out"),
        ("d/newborn.jpg", "not a file of records, left out"),
        ("d/README", "not a file of records, left out"),
        ("d/more/pols.json", "directories in a directory are not searched"),
        ("d/content/x", "not called after the SHA-256"),
        ("d/all.sql", "its table public.patients is not a collection of this node"),
    ] {
        put(&clinic, name, "COPY public.patients (id, data) FROM stdin;\n\\.\n");
        let ran = clinic.run(&["import", "d", "--json"]).ends(1);
        ran.complains(told).complains("not everything was taken: 1 files were left out");
        assert_eq!(ran.json()["skipped"].as_array().unwrap().len(), 1, "{name}");
        fs::remove_file(clinic.path(name)).unwrap();
    }
    let rows = "COPY pols (id, data) FROM stdin;\n\\.\n";
    let utf16: Vec<u8> =
        "\u{feff}".encode_utf16().chain(rows.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for (bytes, told) in [(utf16, "it is UTF-16"), (b"PGDMP\x01\x0e\0".to_vec(), "packed format of pg_dump")]
    {
        fs::write(clinic.path("d/pols.sql"), bytes).unwrap();
        clinic.run(&["import", "d"]).ends(1).complains(told);
    }
}

#[test]
fn what_is_no_file_of_records_is_named() {
    let clinic = clinic();
    let page = r#"{"id": "P1", "book": "ANA001"}"#;
    for (name, text, told) in [
        ("pols.txt", format!(" id | data\n----+------\n P1 | {page}\n(1 row)\n"), "psql's tables for people"),
        ("pols.txt", "-[ RECORD 1 ]\nid | P1\n".to_owned(), "psql's expanded display"),
        ("pols.json", "<!doctype html>".to_owned(), "this is HTML"),
        ("pols.json", "Unauthorized Access".to_owned(), "neither JSON nor rows of a table"),
        ("pols.json", "null".to_owned(), "neither JSON nor rows of a table"),
        ("pols.csv", "_id,book\nP1,ANA001\n".to_owned(), "the first line is neither a heading with `data`"),
        ("pols.csv", "id,author,data\n".to_owned(), "the column `author` is not one of Thalamus's table"),
        ("pols.csv", "id,data\nP1,\"{".to_owned(), "line 2 column 1: the file ends within a cell"),
        ("pols.txt", "P1\tANA001\t{\"id\": \"P1\", ".to_owned(), "line 1 column 1: data: not JSON"),
        ("pols.txt", "P1\tANA001\t\\N\n".to_owned(), "the row has no document in it"),
        (
            "pols.txt",
            format!("id|data\nP2|\n(3 rows)\n{page}"),
            "psql says that there were 3 rows, and here are 1",
        ),
        ("pols.json", format!("[{page}"), "expected `,` or `]`"),
        ("pols.json", "{\"id\": \"P2\",".to_owned(), "the file ends within this document"),
        ("pols.json", "{\"message\": \"not found\"}".to_owned(), "`book` is missing"),
        ("pols.json", "\"\"".to_owned(), "not "),
        ("pols.json", "{_id: 'P2', book: 'ANA001', at: print(1)}".to_owned(), "`print(…)` is not understood"),
        (
            "pols.json",
            "{_id: ObjectId('0102030405060708090a0b0c'), book: 'ANA001'}".to_owned(),
            "_id: must be text",
        ),
        ("pols.txt", "COPY pols (id, data) FROM stdin;\n".to_owned(), "give it the ending .sql"),
        ("pols.sql", "COPY pols (id, data) FROM stdin;\nP2\t{".to_owned(), "the file ends within the rows"),
        (
            "pols.jsonl",
            r#"{"id": "P2", "book": "ANA001", "a": "x\\ny"}"#.to_owned(),
            "say --format copy or --format json",
        ),
    ] {
        let ran = import(&clinic, name, &text, &[]).ends(1);
        ran.complains(told).complains("rows were refused");
    }
    let either = r#"{"id": "P2", "book": "ANA001", "a": "x\\ny"}"#;
    import(&clinic, "pols.jsonl", either, &["--format", "copy"]).ends(0);
    import(&clinic, "pols.jsonl", either.replace("P2", "P3"), &["--format", "json"]).ends(0);
    let texts: Vec<_> =
        clinic.records(Kind::Page)[1..].iter().map(|page| page.get_str("a").unwrap().to_owned()).collect();
    assert_eq!(texts, ["x\ny", "x\\ny"]);
    for empty in ["", "[]", " \n", "{\"rows\": []}", "id|data\n(0 rows)\n"] {
        let ran = import(&clinic, "pols.json", empty, &[]).ends(1);
        ran.complains("holds no records").complains("nothing was imported: none of the files holds a record");
    }
    // As psql leaves them that could not connect. One that is empty beside others is a table without rows.
    for name in ["people", "pols", "personal_docs", "dus", "institutions"] {
        put(&clinic, &format!("failed/{name}.json"), "");
    }
    clinic.run(&["import", "failed"]).ends(1).complains("look whether the export has failed");
    clinic.run(&["import", "failed", "--dry-run"]).ends(1).complains("look whether the export has failed");
    put(&clinic, "failed/people.json", PEOPLE);
    clinic.run(&["import", "failed"]).ends(0).complains("pols.json: holds no records");
}

/// It counts what the import counts, and no byte of the store is another one afterwards.
#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let bytes = |clinic: &Clinic| fs::read(clinic.data().join("store.redb")).unwrap();
    for is_encrypted in [false, true] {
        let mut clinic = Clinic::new();
        if is_encrypted {
            clinic.run(&["db", "keygen", "store.key"]).ends(0);
            let path = clinic.path("store.key");
            clinic = clinic.with("STORE__KEY_FILE", path.to_str().unwrap());
        }
        put(&clinic, "all/people.jsonl", PEOPLE);
        let ran = clinic.run(&["import", "all", "--dry-run"]).ends(0);
        ran.says("people.jsonl  2").says("nothing was changed");
        assert!(!clinic.data().exists(), "a store was made");
        clinic.run(&["import", "all"]).ends(0);
        let before = bytes(&clinic);
        put(
            &clinic,
            "all/people.jsonl",
            PEOPLE.replace("Bob", "Bobby") + "\n{\"id\": \"CID001\"}\n{\"id\": \"cid001\", \"n\": 1}",
        );
        put(&clinic, "all/pols.jsonl", r#"{"id": "P1", "book": "CID001"}"#);
        for more in [&[][..], &["--replace"]] {
            let dry = clinic.run(&[&["import", "all", "--json", "--dry-run"], more].concat()).ends(1);
            assert_eq!(bytes(&clinic), before, "the store was written to");
            let entries: Vec<_> =
                fs::read_dir(clinic.data()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(entries.len(), 1, "{entries:?}");
            let copy = clinic.path("copy.redb");
            fs::copy(clinic.data().join("store.redb"), &copy).unwrap();
            let wet = clinic.run(&[&["import", "all", "--json"], more].concat()).ends(1);
            let (dry, wet): (Value, Value) = (dry.json(), wet.json());
            assert_eq!((&dry["files"], &dry["dry_run"]), (&wet["files"], &json!(true)));
            fs::copy(&copy, clinic.data().join("store.redb")).unwrap();
        }
    }
    let clinic = clinic();
    put(&clinic, "pols.jsonl", r#"{"id": "P1", "book": "ANA001"}"#);
    let node = clinic.serve(&[]);
    clinic.run(&["import", "pols.jsonl", "--dry-run"]).ends(3).complains("in use by another thalamus-edge");
    node.stop();
}

/// Members that no answer of an API has are not taken away by one.
#[test]
fn an_answer_without_passwords_takes_none_away() {
    let clinic = Clinic::new();
    let hash = "$2b$12$Y9rX7PoTHRXhTO1H78Tan.8mVmyayGAUIveiYxu2Qeo0ZDRvJQ8/2";
    let ana = format!(
        r#"{{"id": "ANA001", "name": "Ana", "roles": ["end_user"], "active": true, "password": "{hash}"}}"#
    );
    import(&clinic, "people.json", &ana, &[]).ends(0);
    import(&clinic, "people.json", r#"[{"_id": "ANA001", "id": "ANA001", "name": "Anna"}]"#, &["--replace"])
        .ends(0);
    let stored = clinic.records(Kind::Person).remove(0);
    assert_eq!((stored.get_str("name").unwrap(), stored.get_str("password").unwrap()), ("Anna", hash));
    assert!(stored.get_bool("active").unwrap());
}
