//! Rows of Thalamus's tables as examples: what each becomes, or why it is refused.

use serde_json::{Value, json};

use super::*;
use crate::domain::record::Kind;

const PICTURE: &str = "\\xffd8ff";

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

/// What a row of a table without a heading becomes, as JSON; or what is wrong with it.
fn row(kind: Kind, cells: &[&str]) -> Result<String, String> {
    let cell = |cell: &&str| if *cell == "NULL" { Cell::Null } else { text(cell) };
    shown(take_row(kind, None, cells.iter().map(cell).collect(), None))
}

fn shown(taken: Result<Taken, String>) -> Result<String, String> {
    taken.map(|taken| {
        let bytes = taken.bytes.map(|bytes| format!(" and {} bytes", bytes.len())).unwrap_or_default();
        Value::Object(taken.fields).to_string() + &bytes
    })
}

fn object(kind: Kind, value: Value) -> Result<String, String> {
    shown(take(kind, value.as_object().unwrap().clone(), None))
}

fn agrees(found: &Result<String, String>, expected: Result<&str, &str>) -> bool {
    match (found, expected) {
        (Ok(found), Ok(expected)) => found == expected,
        (Err(found), Err(expected)) => found.contains(expected),
        _ => false,
    }
}

#[test]
fn rows_without_a_heading_are_told_by_their_table() {
    let page = r#"{"id":"P1","book":"ANA"}"#;
    let document = r#"{"id":"D1","fedacct":"ANA","pol":"P1"}"#;
    for (kind, cells, expected) in [
        (Kind::Person, vec![r#"{"id":"ANA"}"#], Ok(r#"{"id":"ANA"}"#)),
        (Kind::Person, vec!["ANA", r#"{"id":"ana"}"#], Ok(r#"{"id":"ana"}"#)),
        (Kind::Person, vec!["ANA", r#"{"name":"Ana"}"#], Ok(r#"{"name":"Ana","id":"ANA"}"#)),
        (Kind::Person, vec!["ANA", r#"{"_id":"ANA","id":"ANA"}"#], Ok(r#"{"_id":"ANA","id":"ANA"}"#)),
        (
            Kind::Person,
            vec!["ANA", r#"{"id":"BOB"}"#],
            Err("column `id` is \"ANA\", and the document says \"BOB\""),
        ),
        (Kind::Person, vec!["ANA", r#"{"id":5}"#], Err("id: must be text")),
        (Kind::Person, vec!["ANA", "NULL"], Err("the row has no document in it")),
        (Kind::Person, vec!["NULL", r#"{"id":"ANA"}"#], Err("column `id` is NULL")),
        (Kind::Person, vec!["ANA", r#"{"id":"ANA""#], Err("data: not JSON")),
        (Kind::Person, vec!["ANA", "x", r#"{"id":"ANA"}"#], Err("which columns these are cannot be told")),
        (Kind::Page, vec![page], Ok(page)),
        (Kind::Page, vec!["P1", "ANA", page], Ok(page)),
        (Kind::Page, vec!["P1", "ana", page], Ok(page)),
        (Kind::Page, vec!["P1", "ANA", r#"{"n":1}"#], Ok(r#"{"n":1,"id":"P1","book":"ANA"}"#)),
        (Kind::Page, vec!["P1", "ANA", r#"{"id":"P1","book":null}"#], Ok(page)),
        (Kind::Page, vec!["ANA", "P1", r#"{"n":1}"#], Err("which columns these are cannot be told")),
        (Kind::Page, vec!["ANA001", "BOB001", r#"{"n":1}"#], Err("which columns these are cannot be told")),
        (Kind::Page, vec!["ANA", r#"{"n":1}"#, "P1"], Err("which columns these are cannot be told")),
        (Kind::Page, vec!["P1", r#"{"n":1}"#, "ANA"], Ok(r#"{"n":1,"id":"P1","book":"ANA"}"#)),
        (
            Kind::PersonalDocument,
            vec!["D1", "P1", "ANA", "NULL", r#"{"id":"D1"}"#],
            Err("which columns these are cannot be told"),
        ),
        (
            Kind::PersonalDocument,
            vec!["P1", "ANA", "D1", "NULL", r#"{"fedacct":"ANA"}"#],
            Err("which columns these are cannot be told"),
        ),
        (Kind::Page, vec!["P1", "BOB", page], Err("column `book` is \"BOB\", and the document says \"ANA\"")),
        (Kind::Page, vec!["P2", "ANA", page], Err("column `id` is \"P2\", and the document says \"P1\"")),
        (Kind::Page, vec!["p1", "ANA", page], Err("column `id` is \"p1\"")),
        (Kind::Page, vec!["P1", "NULL", page], Err("column `book` is NULL, and the document says \"ANA\"")),
        (Kind::Page, vec!["P1", "NULL", r#"{"n":1}"#], Err("`book` is missing: nobody would see the record")),
        (Kind::Page, vec!["P1", page], Ok(page)),
        (Kind::Page, vec!["ANA", page], Ok(page)),
        (Kind::Page, vec![page, "P1", "ANA"], Ok(page)),
        (Kind::Page, vec!["BOB", page], Err("which columns these are cannot be told")),
        (Kind::Page, vec![page, page], Err("several documents")),
        (Kind::Page, vec!["P1", "ANA"], Err("no document")),
        (Kind::PersonalDocument, vec!["D1", "ANA", "P1", "NULL", document], Ok(document)),
        (
            Kind::PersonalDocument,
            vec!["D1", "ANA", "P1", PICTURE, document],
            Ok(r#"{"id":"D1","fedacct":"ANA","pol":"P1"} and 3 bytes"#),
        ),
        (Kind::PersonalDocument, vec!["D1", "ANA", "P2", "NULL", document], Err("column `pol` is \"P2\"")),
        (
            Kind::PersonalDocument,
            vec!["D1", "ANA", "NULL", "NULL", r#"{"id":"D1"}"#],
            Ok(r#"{"id":"D1","fedacct":"ANA"}"#),
        ),
        (Kind::PersonalDocument, vec!["ANA", "P1", document, "NULL"], Ok(document)),
        (
            Kind::PersonalDocument,
            vec!["D1", "ANA", "P1", document, PICTURE],
            Ok(r#"{"id":"D1","fedacct":"ANA","pol":"P1"} and 3 bytes"#),
        ),
        (
            Kind::PersonalDocument,
            vec!["D1", "ANA", "P1", "AQID", document],
            Err("document: whether its bytes are"),
        ),
        (Kind::DomiciliaryUnit, vec!["U1", r#"{"n":1}"#], Ok(r#"{"n":1,"id":"U1"}"#)),
    ] {
        let found = row(kind, &cells);
        assert!(agrees(&found, expected), "{cells:?}: {found:?}");
    }
}

#[test]
fn objects_are_rows_or_documents() {
    let page = json!({"id": "P1", "book": "ANA"});
    let said = r#"{"id":"P1","book":"ANA"}"#;
    for (kind, value, expected) in [
        (Kind::Page, page.clone(), Ok(said)),
        (Kind::Page, json!({"data": page}), Ok(said)),
        (Kind::Page, json!({"data": page.to_string()}), Ok(said)),
        (Kind::Page, json!({"id": "P1", "book": "ANA", "data": page}), Ok(said)),
        (Kind::Page, json!({"id": "P1", "book": "BOB", "data": page}), Err("column `book` is \"BOB\"")),
        (Kind::Page, json!({"id": "P2", "data": page}), Err("column `id` is \"P2\"")),
        (Kind::Page, json!({"id": "P1", "book": "ANA", "data": null}), Err("`data` is NULL")),
        (Kind::Page, json!({"id": 1, "book": "ANA", "data": page}), Err("id: must be text")),
        // As in a cell of COPY: what is no document makes no row, and is no field of a record.
        (Kind::Person, json!({"id": "ANA", "data": 5}), Err("data: must be a JSON object")),
        (Kind::Person, json!({"id": "ANA", "data": true}), Err("data: must be a JSON object")),
        (Kind::Person, json!({"id": "ANA", "data": []}), Err("data: a list stands where")),
        (Kind::Person, json!({"data": [1]}), Err("data: a list stands where")),
        (Kind::Person, json!({"id": "ANA", "data": "x"}), Err("data: not JSON")),
        (
            Kind::Encounter,
            json!({"id": "E1", "person": "ANA", "data": 5}),
            Ok(r#"{"id":"E1","person":"ANA","data":5}"#),
        ),
        // With a field of its own it is a document, and so is one of MongoDB.
        (
            Kind::Page,
            json!({"id": "P1", "book": "ANA", "data": {}, "n": 1}),
            Ok(r#"{"id":"P1","book":"ANA","data":{},"n":1}"#),
        ),
        (
            Kind::Page,
            json!({"_id": "P1", "book": "ANA", "data": {}}),
            Ok(r#"{"_id":"P1","book":"ANA","data":{}}"#),
        ),
        (
            Kind::Page,
            json!({"id": "P1", "book": "ANA", "data": page, "written": "x"}),
            Err("columns that are not of Thalamus's table: written"),
        ),
        (
            Kind::Page,
            json!({"id": "P1", "book": "ANA", "data": {"page": 1}, "written": "x"}),
            Err("columns that are not of Thalamus's table: written"),
        ),
        (
            Kind::Page,
            json!({"id": "P1", "book": "ANA", "data": "{\"page\": 1}", "written": "x"}),
            Err("columns that are not of Thalamus's table: written"),
        ),
        (
            Kind::Page,
            json!({"id": "P1", "book": "ANA", "data": "as told", "n": 1}),
            Ok(r#"{"id":"P1","book":"ANA","data":"as told","n":1}"#),
        ),
        (Kind::Page, json!({"id": "P1"}), Err("`book` is missing")),
        (Kind::Page, json!({"id": "P1", "book": ""}), Err("`book` is missing")),
        (Kind::Page, json!({"id": "P1", "book": 5}), Err("book: must be text")),
        (
            Kind::Page,
            json!({"_id": "P1", "id": "P2", "book": "ANA"}),
            Err("`_id` is \"P1\" and `id` is \"P2\""),
        ),
        (Kind::Encounter, json!({"id": "E1"}), Err("`person` is missing")),
        (Kind::Person, json!({"_id": "ANA", "id": "ana"}), Ok(r#"{"_id":"ANA","id":"ana"}"#)),
        (Kind::Institution, json!({"id": "I1", "data": {"name": "x"}}), Ok(r#"{"name":"x","id":"I1"}"#)),
        (
            Kind::PersonalDocument,
            json!({"id": "D1", "fedacct": "ANA", "document": PICTURE}),
            Ok(r#"{"id":"D1","fedacct":"ANA"} and 3 bytes"#),
        ),
        (
            Kind::PersonalDocument,
            json!({"id": "D1", "fedacct": "ANA", "document": "a scan"}),
            Ok(r#"{"id":"D1","fedacct":"ANA","document":"a scan"}"#),
        ),
    ] {
        let found = object(kind, value.clone());
        assert!(agrees(&found, expected), "{value}: {found:?}");
    }
}

/// Who has one account is seen by other people than who reads a page or an institution.
#[test]
fn records_of_another_collection_are_refused() {
    let ana = r#"{"id":"ANA","name":"Ana","book":"x"}"#;
    for (kind, value, expected) in [
        (
            Kind::Person,
            json!({"_id": "P1", "book": "ANA"}),
            Err("`book` stands in records of pols, not of people"),
        ),
        (Kind::Person, json!({"_id": "D1", "fedacct": "ANA"}), Err("in records of personal_document")),
        (
            Kind::Person,
            json!({"_id": "E1", "person": "ANA"}),
            Err("in records of encounter, event, measurements, "),
        ),
        (Kind::Person, json!({"id": "P1", "data": {"book": "ANA"}}), Err("`book` stands in records of pols")),
        // A person may have any fields besides a person's own.
        (Kind::Person, json!({"id": "ANA", "name": "Ana", "book": "x"}), Ok(ana)),
        (Kind::Person, json!({"id": "ANA", "book": null}), Ok(r#"{"id":"ANA","book":null}"#)),
        (
            Kind::Institution,
            json!({"id": "P1", "book": "ANA"}),
            Err("in records of pols, not of institution"),
        ),
        (
            Kind::Institution,
            json!({"id": "P1", "name": "x", "book": "x"}),
            Ok(r#"{"id":"P1","name":"x","book":"x"}"#),
        ),
        (
            Kind::DomiciliaryUnit,
            json!({"id": "ANA", "lastname": "B"}),
            Err("`lastname` stands in records of people"),
        ),
        (
            Kind::Institution,
            json!({"id": "ANA", "name": "x", "password": "x"}),
            Err("`password` stands in records of people"),
        ),
    ] {
        let found = object(kind, value.clone());
        assert!(agrees(&found, expected), "{value}: {found:?}");
    }
    assert!(agrees(
        &row(Kind::Person, &["P1", r#"{"id":"P1","book":"ANA"}"#]),
        Err("`book` stands in records of pols")
    ));
}

#[test]
fn lists_are_rows_of_a_query() {
    let list = |kind, value: Value| shown(take_list(kind, value.as_array().unwrap().clone(), None));
    let page = json!({"id": "P1", "book": "ANA"});
    assert_eq!(list(Kind::Page, json!([page])), Ok(page.to_string()));
    assert_eq!(list(Kind::Page, json!([{"id": "P1", "book": "ANA", "data": page}])), Ok(page.to_string()));
    let document = json!({"id": "D1"});
    let row = list(Kind::PersonalDocument, json!(["ANA", "P1", document, null]));
    assert_eq!(row, Ok(r#"{"id":"D1","fedacct":"ANA","pol":"P1"}"#.to_owned()));
    for wrong in [json!([]), json!([5]), json!([page, page]), json!([[page]]), json!(["ANA"])] {
        assert!(list(Kind::Page, wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn headings_name_columns() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let named = |kind, list: &[&str]| columns_named(kind, &names(list));
    use Column::{Data, Document, Id, Owner, Page};
    assert_eq!(named(Kind::Page, &["book", "id", "DATA"]), Ok(vec![Owner, Id, Data]));
    let columns = ["id", "fedacct", "pol", "document", "data"];
    assert_eq!(named(Kind::PersonalDocument, &columns), Ok(vec![Id, Owner, Page, Document, Data]));
    assert_eq!(named(Kind::Person, &["row_to_json"]), Ok(vec![Data]));
    for (kind, list, message) in [
        (Kind::Page, vec!["id", "book"], "no column `data`"),
        (Kind::Page, vec!["id", "author", "data"], "the column `author` is not one"),
        (Kind::Person, vec!["id", "book", "data"], "the column `book` is not one"),
        (Kind::Person, vec!["id", "document", "data"], "the column `document` is not one"),
        (Kind::Page, vec!["id", "id", "data"], "stands twice"),
    ] {
        assert!(named(kind, &list).unwrap_err().contains(message), "{list:?}");
    }
    assert!(
        is_heading(&[text("ID"), text("Data ")])
            && is_heading(&[text("id"), text("data")])
            && !is_heading(&[text("ANA"), text("{}")])
    );
}

#[test]
fn the_operator_may_say_whose_a_file_is() {
    let of = |value: Value| shown(take(Kind::Page, value.as_object().unwrap().clone(), Some("ANA")));
    assert_eq!(of(json!({"id": "P1"})), Ok(r#"{"id":"P1","book":"ANA"}"#.to_owned()));
    assert_eq!(of(json!({"id": "P1", "book": "ana"})), Ok(r#"{"id":"P1","book":"ana"}"#.to_owned()));
    assert!(of(json!({"id": "P1", "book": "BOB"})).unwrap_err().contains("--owner says \"ANA\""));
}
