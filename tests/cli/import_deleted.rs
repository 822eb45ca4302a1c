//! `import` and what was deleted here: the same files again bring nobody back, unless that is asked for.

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, TrashState};

use crate::cli_support::Clinic;
use crate::imports::{import, put};

const PEOPLE: &str = r#"{"id": "ANA001", "name": "Ana", "lastname": "Betz", "dob": "1985-10-04", "active": true}
{"id": "BOB001", "name": "Bob", "lastname": "Cole", "dob": "1970-01-02", "active": true}"#;
const PAGES: &str = r#"{"id": "P1", "book": "ANA001", "info": "one"}
{"id": "P2", "book": "BOB001", "info": "two"}
{"id": "P3", "book": "BOB001", "info": "three"}"#;

/// A clinic that has taken these files.
fn clinic() -> Clinic {
    let clinic = Clinic::new();
    put(&clinic, "all/people.jsonl", PEOPLE);
    put(&clinic, "all/pols.jsonl", PAGES);
    clinic.run(&["import", "all"]).ends(0);
    clinic
}

/// Deletes on purpose, and the centre knows of it if `is_delivered`.
fn delete(clinic: &Clinic, kind: Kind, id: &'static str, is_delivered: bool) {
    clinic.write(move |tx| {
        let key = RecordKey::new(kind, id);
        let body = tx.document(&key)?.unwrap();
        tx.put(&key, Some(&body), &Base::Document(body.clone()), &Actor::Centre)?;
        tx.edit(&key, None, &Actor::Local("tech".to_owned()))?;
        if is_delivered {
            tx.put(&key, None, &Base::Absent, &Actor::Centre)?;
            tx.settle_trash(&key, TrashState::Done)?;
        }
        Ok(())
    });
}

/// The centre has deleted it, and that was taken over.
fn lose(clinic: &Clinic, kind: Kind, id: &'static str) {
    clinic.write(move |tx| {
        let key = RecordKey::new(kind, id);
        let body = tx.document(&key)?.unwrap();
        tx.discard(&key, &body)?;
        tx.put(&key, None, &Base::Absent, &Actor::Centre)
    });
}

fn ids(clinic: &Clinic, kind: Kind) -> Vec<String> {
    clinic.records(kind).iter().map(|record| record.get_str("_id").unwrap().to_owned()).collect()
}

fn close(clinic: &Clinic, id: &'static str) {
    clinic.run(&["user", "disable", id]).ends(0);
}

#[test]
fn the_same_files_again_bring_back_nothing_that_was_deleted() {
    for is_delivered in [false, true] {
        let clinic = clinic();
        close(&clinic, "ANA001");
        delete(&clinic, Kind::Page, "P1", is_delivered);
        delete(&clinic, Kind::Person, "ANA001", is_delivered);
        lose(&clinic, Kind::Page, "P2");
        for more in [&["--dry-run"][..], &[], &["--replace"]] {
            let ran = clinic.run(&[&["import", "all", "--json"], more].concat()).ends(1);
            ran.complains("people.jsonl line 1 column 1: people/ANA001 was deleted at 1970-01-01T00:00:01Z by local:tech");
            ran.complains("lies in the trash (").complains("`thalamus-edge trash restore ");
            ran.complains("pols.jsonl line 1 column 1: pols/P1 was deleted at ");
            ran.complains(
                "pols.jsonl line 2 column 1: pols/P2 was deleted at 1970-01-01T00:00:01Z by centre",
            );
            ran.complains("not everything was taken: 3 records, or their people, were deleted here");
            let files = ran.json()["files"].clone();
            assert_eq!((&files[0]["deleted"], &files[1]["deleted"]), (&json!(1), &json!(2)), "{files}");
            assert_eq!((&files[0]["added"], &files[1]["added"]), (&json!(0), &json!(0)), "{files}");
            assert_eq!(
                (ids(&clinic, Kind::Person), ids(&clinic, Kind::Page)),
                (vec!["BOB001".to_owned()], vec!["P3".to_owned()])
            );
        }
    }
}

/// The id of a person is an account in whatever case, here and in the trash.
#[test]
fn a_deleted_person_is_one_in_any_spelling() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        for id in ["ana001", "Bob001"] {
            let key = RecordKey::new(Kind::Person, id);
            let person = doc! {"_id": id, "name": id};
            tx.put(&key, Some(&person), &Base::Document(person.clone()), &Actor::Centre)?;
            tx.discard(&key, &person)?;
            tx.put(&key, None, &Base::Absent, &Actor::Centre)?;
        }
        Ok(())
    });
    for id in ["ana001", "ANA001", "Ana001"] {
        let text = format!(
            "{{\"id\": \"{id}\", \"name\": \"ana001\"}}\n{{\"id\": \"BOB001\", \"name\": \"Bob001\"}}"
        );
        let ran = import(&clinic, "people.jsonl", text, &[]).ends(1);
        ran.complains("people/ana001 was deleted at ").complains("people/Bob001 was deleted at ");
        assert_eq!(ids(&clinic, Kind::Person), [""; 0]);
    }
    // A page of theirs that never was here has nobody either.
    let page = r#"{"id": "P9", "book": "Ana001"}"#;
    let ran = import(&clinic, "pols.jsonl", page, &[]).ends(1);
    ran.complains("pols/P9 is of ANA001, who was deleted at ").complains("put that person back first");
    assert_eq!(ids(&clinic, Kind::Page), [""; 0]);
}

/// What the file has may have been mended since.
#[test]
fn other_content_is_as_deleted_and_another_ones_record_is_not() {
    let clinic = clinic();
    delete(&clinic, Kind::Page, "P2", true);
    import(&clinic, "pols.jsonl", r#"{"id": "P2", "book": "bob001", "info": "mended"}"#, &[])
        .ends(1)
        .complains("pols/P2 was deleted at ");
    // A page of somebody else that happens to have the id.
    import(&clinic, "pols.jsonl", r#"{"id": "P2", "book": "ANA001", "info": "other"}"#, &[]).ends(0);
    assert_eq!(ids(&clinic, Kind::Page), ["P1", "P2", "P3"]);
    // Another human being may have the account of somebody whose delete is delivered, and nothing of theirs is here.
    close(&clinic, "BOB001");
    delete(&clinic, Kind::Page, "P3", true);
    delete(&clinic, Kind::Person, "BOB001", true);
    let eva = r#"{"id": "BOB001", "name": "Eva", "lastname": "Diaz", "dob": "2001-05-06"}"#;
    import(&clinic, "people.jsonl", eva, &[]).ends(0);
    // And what was the first one's does not come back into the book of the second one.
    let ran = import(&clinic, "pols.jsonl", PAGES, &["--restore-deleted"]).ends(1);
    ran.complains("pols/P3 was deleted at ")
        .complains("cannot be put back: the account BOB001 is another person's now");
    assert!(!ids(&clinic, Kind::Page).contains(&"P3".to_owned()));
}

#[test]
fn deleted_records_come_back_where_that_is_asked_for() {
    for is_delivered in [false, true] {
        let clinic = clinic();
        clinic.run(&["user", "add", "ANA001", "--role", "root", "--link"]).ends(0);
        close(&clinic, "ANA001");
        delete(&clinic, Kind::Page, "P1", is_delivered);
        delete(&clinic, Kind::Person, "ANA001", is_delivered);
        // Without their person they do not.
        let ran = clinic.run(&["import", "all/pols.jsonl", "--restore-deleted"]).ends(1);
        ran.complains("cannot be put back: the person ANA001 does not exist here");
        put(&clinic, "all/pols.jsonl", PAGES.replace("one", "mended"));
        let counts = |more: &[&str]| {
            let ran = clinic.run(&[&["import", "all", "--json", "--restore-deleted"], more].concat()).ends(1);
            ran.complains("people/ANA001 was deleted at ").complains(": it is here again");
            ran.complains("ANA001: `active` stays as it is here: the account is closed");
            let files = ran.json()["files"].clone();
            assert_eq!((&files[0]["restored"], &files[1]["restored"]), (&json!(1), &json!(1)), "{files}");
            assert_eq!((&files[0]["deleted"], &files[1]["deleted"]), (&json!(0), &json!(0)), "{files}");
            files
        };
        let dry = counts(&["--dry-run"]);
        assert_eq!(ids(&clinic, Kind::Person), ["BOB001"]);
        assert_eq!(dry, counts(&[]));
        assert_eq!(ids(&clinic, Kind::Person), ["ANA001", "BOB001"]);
        assert_eq!(clinic.records(Kind::Page)[0].get_str("info").unwrap(), "mended");
        assert!(!clinic.records(Kind::Person)[0].get_bool("active").unwrap(), "closed as they were");
        let listed = clinic.run(&["trash", "list"]).ends(0);
        listed.says(if is_delivered { "done" } else { "void" });
        // Once more there is nothing to put back.
        let ran = clinic.run(&["import", "all", "--json", "--restore-deleted"]).ends(1);
        assert_eq!(ran.json()["files"][0]["restored"], json!(0));
    }
}

#[test]
fn the_bytes_of_a_deleted_document_stay_away_and_come_back_with_it() {
    let clinic = clinic();
    let row = "D1\tBOB001\tP2\t\\\\x010203\t{\"id\": \"D1\", \"fedacct\": \"BOB001\", \"pol\": \"P2\"}\n";
    import(&clinic, "personal_docs.txt", row, &[]).ends(0);
    delete(&clinic, Kind::PersonalDocument, "D1", true);
    import(&clinic, "personal_docs.txt", row, &[]).ends(1).complains("personal_document/D1 was deleted at ");
    assert_eq!(ids(&clinic, Kind::PersonalDocument), [""; 0]);
    import(&clinic, "personal_docs.txt", row, &["--restore-deleted"]).ends(0);
    assert!(clinic.records(Kind::PersonalDocument)[0].contains_key("content"));
}
