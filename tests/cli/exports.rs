//! What an export holds beside the records.

use std::fs;

use bson::{Bson, Document, doc};
use sha2::{Digest as _, Sha256};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, Tx};

use super::cli_support::Clinic;
use super::rot::flip;

fn rows(clinic: &Clinic, file: &str) -> Vec<Document> {
    let text = fs::read_to_string(clinic.path("out").join(file)).unwrap();
    let row = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        Bson::try_from(json).unwrap().as_document().unwrap().clone()
    };
    text.lines().map(row).collect()
}

/// A technician who replaces the box must not lose what somebody wrote here and lost to the centre.
#[test]
fn an_export_holds_lost_values_and_deleted_records_and_says_so() {
    let clinic = Clinic::new();
    clinic.make_store();
    let ran = clinic.run(&["export", "empty"]).ends(0);
    assert!(!ran.err.contains("conflicts"), "{}", ran.err);
    // A file for each collection: who reads them need not ask which are there.
    for kind in Kind::ALL {
        let file = format!("{}.jsonl", kind.schema().collection);
        ran.says(&file);
        assert_eq!(fs::read(clinic.path("empty").join(file)).unwrap(), b"");
    }
    clinic.write(|tx| {
        let ana = RecordKey::new(Kind::Person, "ANA01");
        let person = doc! {"_id": "ANA01", "name": "Ana", "phone": "2", "active": false};
        tx.put(&ana, Some(&person), &Base::Document(person.clone()), &Actor::Centre)?;
        let clash = |path: &str, lost: &str| Clash {
            path: vec![path.to_owned()],
            base: None,
            local: Some(lost.into()),
            remote: Some("2".into()),
            stands: Side::Remote,
        };
        tx.add_conflict(&ana, &clash("phone", "the lost one"), None)?;
        tx.add_conflict(&ana, &clash("mobile", "settled"), None)?;
        let id = tx.open_conflicts_of(&ana)?.into_iter().find(|c| c.path == ["mobile"]).unwrap().id;
        let mut conflict = tx.conflict(&id)?.unwrap();
        conflict.resolve("central", None, "local:tech", 7);
        tx.put_conflict(&conflict)?;
        tx.discard(&RecordKey::new(Kind::Page, "p1"), &doc! {"_id": "p1", "book": "ANA01", "info": "gone"})
    });
    let ran = clinic.run(&["export", "out"]).ends(0);
    ran.says("people.jsonl             1").says("edge_conflicts.jsonl     2");
    ran.says("edge_trash.jsonl         1");
    ran.complains("2 conflicts, of which 1 wait for a decision, and the bodies of 1 deleted records");
    ran.complains("thalamus-edge conflicts list");
    let conflicts = rows(&clinic, "edge_conflicts.jsonl");
    let open = conflicts.iter().find(|row| row.get_str("status").unwrap() == "open").unwrap();
    assert_eq!(open.get_str("local").unwrap(), "the lost one");
    let record = ["collection", "id"].map(|field| open.get_str(field).unwrap());
    assert_eq!(record, ["people", "ANA01"]);
    assert!(!open.contains_key("author"), "nobody knows: {open}");
    let shown = clinic.run(&["conflicts", "show", open.get_str("_id").unwrap()]).ends(0);
    shown.says("edited here by  unknown");
    let shown = clinic.run(&["conflicts", "show", open.get_str("_id").unwrap(), "--json"]).ends(0).json();
    assert_eq!(shown.get("author"), None);
    let trash = rows(&clinic, "edge_trash.jsonl");
    assert_eq!(trash[0].get_document("document").unwrap().get_str("info").unwrap(), "gone");

    let fresh = Clinic::new();
    let out = clinic.path("out");
    let ran = fresh.run(&["import", out.to_str().unwrap()]).ends(0);
    ran.complains("edge_conflicts.jsonl: conflicts and deleted records are not imported");
    ran.complains("edge_trash.jsonl: conflicts and deleted records are not imported");
    assert!(!ran.err.contains("holds no records"), "an export has empty files: {}", ran.err);
    assert_eq!(fresh.records(Kind::Person).len(), 1);
    let file = out.join("edge_trash.jsonl");
    fresh.run(&["import", file.to_str().unwrap()]).ends(2).complains("are not imported");
}

/// A value whose keys mean a type in extended JSON reads back as that type.
#[test]
fn a_lost_value_that_json_cannot_hold_is_named() {
    let clinic = Clinic::new();
    clinic.make_store();
    clinic.write(|tx| {
        let ana = RecordKey::new(Kind::Person, "ANA01");
        let person = doc! {"_id": "ANA01", "name": "Ana"};
        tx.put(&ana, Some(&person), &Base::Document(person.clone()), &Actor::Centre)?;
        let clash = Clash {
            path: vec!["device".to_owned()],
            base: None,
            local: Some(doc! {"$oid": "0123456789abcdef01234567"}.into()),
            remote: None,
            stands: Side::Remote,
        };
        tx.add_conflict(&ana, &clash, None)
    });
    clinic.run(&["export", "out"]).ends(1).complains("extended JSON cannot tell it apart");
    assert_eq!(rows(&clinic, "edge_conflicts.jsonl").len(), 1);
}

/// A damaged attachment, record, conflict and deleted record, each with whole ones before and behind it.
#[test]
fn an_export_names_what_is_damaged_and_goes_on() {
    const COUNT: usize = 6;
    let clinic = Clinic::new();
    clinic.make_store();
    let bytes = |n: usize| format!("bytes-of-{n} ").repeat(20_000);
    let name = move |n: usize| hex::encode(Sha256::digest(bytes(n)));
    clinic.write(move |tx| {
        for n in 0..COUNT {
            let id = |kind: &str| format!("{kind}{n}");
            let edit = |tx: &mut Tx<'_>, kind, document: Document| {
                let key = RecordKey::new(kind, document.get_str("_id").unwrap());
                tx.edit(&key, Some(&document), &Actor::Operator(0))
            };
            edit(tx, Kind::Person, doc! {"_id": id("ANA"), "name": "Ana", "note": format!("Note-{n}")})?;
            let document = doc! {
                "_id": id("d"), "fedacct": id("ANA"), "description": "x",
                "content": {"sha256": name(n), "length": bytes(n).len() as i64, "type": "text/plain"},
            };
            tx.put_content(&name(n), bytes(n).as_bytes())?;
            edit(tx, Kind::PersonalDocument, document)?;
            edit(tx, Kind::Event, doc! {"_id": id("e"), "person": id("ANA")})?;
            let page = RecordKey::new(Kind::Page, id("p"));
            tx.discard(&page, &doc! {"_id": &page.id, "book": id("ANA"), "info": format!("Info-{n}")})?;
            let clash = Clash {
                path: vec!["phone".to_owned()],
                base: None,
                local: Some(format!("Phone-{n}").into()),
                remote: None,
                stands: Side::Remote,
            };
            tx.add_conflict(&RecordKey::new(Kind::Person, id("ANA")), &clash, None)?;
        }
        Ok(())
    });
    clinic.run(&["export", "out"]).ends(0);
    let files = ["people", "personal_document", "event", "edge_trash", "edge_conflicts"];
    let files = files.map(|file| format!("{file}.jsonl"));
    let lines = || files.each_ref().map(|file| rows(&clinic, file).len());
    assert_eq!(lines(), [COUNT; 5]);
    fs::rename(clinic.path("out"), clinic.path("whole")).unwrap();

    for text in ["bytes-of-1 ", "Note-2", "Info-3", "Phone-4"] {
        flip(&clinic, text);
    }
    let ran = clinic.run(&["export", "out"]).ends(1);
    ran.complains(&format!("personal_document/d1: the attachment {} is damaged and is left out", name(1)));
    ran.complains("people/ANA2 is damaged and is left out");
    ran.complains("the body of the deleted pols/p3 is damaged and is left out");
    let conflicts = ran.err.lines().filter(|line| line.contains("error: the conflict "));
    assert_eq!(conflicts.count(), 1, "{}", ran.err);
    ran.complains("not everything is in this export");
    assert_eq!(lines(), [COUNT - 1, COUNT, COUNT, COUNT - 1, COUNT - 1]);
    for n in 0..COUNT {
        let (was, is) = ["whole", "out"].map(|out| clinic.path(out).join("content").join(name(n))).into();
        assert!(was.exists());
        assert_eq!(is.exists(), n != 1, "{n}");
    }
    // What is there is imported.
    let fresh = Clinic::new();
    fresh.run(&["import", clinic.path("out").to_str().unwrap()]);
    let imported = [Kind::Person, Kind::PersonalDocument].map(|kind| fresh.records(kind).len());
    assert_eq!(imported, [COUNT - 1, COUNT]);
}
