//! The `trash` commands, with a node running and without.

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::Base;

use super::cli_support::{Clinic, IS_RUNNING};

/// A person who was deleted here, and a page and an event that the centre deleted.
fn delete(clinic: &Clinic) {
    clinic.write(|tx| {
        let ana = RecordKey::new(Kind::Person, "ANA01");
        let person = doc! {"_id": "ANA01", "name": "Ana", "active": false, "roles": ["end_user"]};
        tx.put(&ana, Some(&person), &Base::Document(person.clone()), &Actor::Centre)?;
        for (kind, id, field) in [(Kind::Page, "p\u{1b}1", "book"), (Kind::Event, "e1", "person")] {
            let key = RecordKey::new(kind, id);
            let document = doc! {"_id": id, field: "ANA01", "info": "a secret"};
            tx.put(&key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)?;
            tx.discard(&key, &document)?;
            tx.put(&key, None, &Base::Absent, &Actor::Centre)?;
        }
        tx.edit(&ana, None, &Actor::Local("tech".to_owned())).map(|_| ())
    });
}

#[test]
fn what_was_deleted_is_listed_shown_and_restored() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        delete(&clinic);
        let node = is_running.then(|| clinic.serve(&[]));
        let listed = clinic.run(&["trash", "list"]).ends(0);
        listed.says("people/ANA01").says("pending").says("local:tech").says("pols/p\\u{1b}1").says("centre");
        assert!(!listed.out.contains("a secret"));
        let rows = clinic.run(&["trash", "list", "--json"]).ends(0).json();
        let found: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["record"].clone()).collect();
        assert_eq!(found, ["ANA01", "e1", "p\u{1b}1"]);
        let [ana, event, page] = [0, 1, 2].map(|n| rows[n]["id"].to_string());

        let events = clinic.run(&["trash", "list", "--collection", "event", "--json"]).ends(0).json();
        assert_eq!(events, json!([rows[1]]));
        clinic.run(&["trash", "list", "--person", "nobody"]).ends(0).says("no deleted records");
        let cut = clinic.run(&["trash", "list", "--limit", "2"]).ends(0);
        cut.says("event/e1").says("There are older ones; --limit 20");
        assert!(!cut.out.contains("pols/"));
        clinic.run(&["trash", "list", "--collection", "peple"]).ends(2).complains("people").complains("pols");
        clinic.run(&["trash", "restore", "x"]).ends(2).complains("must be a number");
        clinic.run(&["emergency", "review", "x"]).ends(2).complains("must be a number");
        clinic.run(&["db", "set-aside", "poeple", "X"]).ends(2).complains("people").complains("pols");

        let shown = clinic.run(&["trash", "show", &page]).ends(0);
        shown.says("deleted by  centre").says("belongs to  ANA01").says("not shown to commands");
        assert!(!shown.out.contains('\u{1b}') && !shown.out.contains("a secret"));
        assert_eq!(clinic.run(&["trash", "show", &page, "--json"]).ends(0).json(), rows[2]);
        clinic.run(&["trash", "show", "9999"]).ends(1).complains("no such record in the trash");

        clinic.run(&["trash", "restore", &page]).ends(1).complains("restore that person first");
        let restored = clinic.run(&["trash", "restore", &ana]).ends(0);
        restored.says("restored: people/ANA01").says("user enable ANA01");
        clinic.run(&["trash", "restore", &ana]).ends(3).complains("There is a record people/ANA01");
        assert_eq!(clinic.run(&["trash", "show", &ana, "--json"]).ends(0).json()["state"], "void");
        clinic.run(&["trash", "restore", &page]).ends(0).says("restored: pols/p\\u{1b}1");
        let restored = clinic.run(&["trash", "restore", &event, "--json"]).ends(0).json();
        assert_eq!(restored, rows[1]);
        drop(node);
        assert_eq!(clinic.records(Kind::Page)[0].get_str("info").unwrap(), "a secret");
        assert_eq!((clinic.records(Kind::Person).len(), clinic.records(Kind::Event).len()), (1, 1));
    }
}

#[test]
fn trash_commands_that_make_no_sense_are_usage_errors() {
    let clinic = Clinic::new();
    for args in [
        &["trash"][..],
        &["trash", "empty"],
        &["trash", "show"],
        &["trash", "show", "x"],
        &["trash", "restore", "people/ANA01"],
        &["trash", "list", "--limit", "0"],
    ] {
        clinic.run(args).ends(2);
    }
    clinic.run(&["trash", "list"]).ends(1).complains("there is no store in");
}
