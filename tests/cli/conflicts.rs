//! `conflicts resolve --all`: many conflicts, each decided as if alone.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use bson::{Bson, doc};
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::Conflict;

use crate::IS_RUNNING;
use crate::cli_support::Clinic;

const OPERATOR: Actor = Actor::Operator(0);
/// More than two pages.
const MANY: usize = 230;

fn clash(path: &[&str], local: impl Into<Bson>, central: impl Into<Bson>) -> Clash {
    Clash {
        path: path.iter().map(|step| (*step).to_owned()).collect(),
        base: None,
        local: Some(local.into()),
        remote: Some(central.into()),
        stands: Side::Remote,
    }
}

/// Five conflicts of people, one of which has been overtaken, a question about two records, and many of events.
fn fill(clinic: &Clinic) {
    clinic.write(|tx| {
        let day = bson::DateTime::from_millis(497_232_000_000);
        let person = doc! {"_id": "ANA", "roles": ["end_user"], "active": true, "dob": day, "gender": "female",
            "phone": "2", "address": {"city": "B"}, "profession": "moved on"};
        let ana = RecordKey::new(Kind::Person, "ANA");
        tx.edit(&ana, Some(&person), &OPERATOR)?;
        for clash in [
            clash(&["dob"], "1985-10-04", day),
            clash(&["gender"], "f", "female"),
            clash(&["phone"], "1", "2"),
            clash(&["address", "city"], "A", "B"),
            clash(&["profession"], "x", "y"),
        ] {
            tx.add_conflict(&ana, &clash, None)?;
        }
        for n in 0..MANY {
            let key = RecordKey::new(Kind::Event, format!("e{n}"));
            tx.edit(&key, Some(&doc! {"_id": &key.id, "person": "ANA", "n": 70.0}), &OPERATOR)?;
            tx.add_conflict(&key, &clash(&["n"], 70, 70.0), None)?;
        }
        let (here, there) = (doc! {"_id": "p1", "person": "ANA"}, doc! {"_id": "p1", "person": "BOB"});
        let key = RecordKey::new(Kind::Encounter, "p1");
        tx.edit(&key, Some(&here), &OPERATOR)?;
        tx.open_conflict(Conflict::about_record("two".into(), &key, &here, Some(&there), String::new(), 0))
    });
}

fn open_fields(clinic: &Clinic) -> Vec<String> {
    let listed = clinic.run(&["conflicts", "list", "--json"]).ends(0).json();
    let fields = listed.as_array().unwrap().iter().filter(|conflict| conflict["type"] == "value");
    let mut fields: Vec<String> =
        fields.map(|conflict| format!("{}/{}", conflict["collection"], conflict["path"])).collect();
    fields.sort();
    fields.dedup();
    fields.into_iter().map(|field| field.replace('"', "")).collect()
}

/// Entries of decisions in the audit trail.
fn decisions(clinic: &Clinic) -> usize {
    let trail = clinic.run(&["audit", "export"]).ends(0);
    trail.out.lines().filter(|entry| entry.contains("\"decision\"")).count()
}

#[test]
fn many_conflicts_are_decided_by_one_command() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        fill(&clinic);
        let node = is_running.then(|| clinic.serve(&[]));
        let all = |more: &[&str]| clinic.run(&[&["conflicts", "resolve", "--all"], more].concat());

        // What is asked for has to exist.
        let unknown = all(&["--take", "central", "--path", "dobb"]).ends(2);
        unknown.complains("--path").complains("address.city, dob, gender, n, phone, profession");
        let unknown = all(&["--take", "central", "--path", "n", "--collection", "people"]).ends(2);
        unknown.complains("address.city, dob, gender, phone, profession");
        all(&["--take", "central", "--collection", "institution"]).ends(0).says("no conflict matches");

        // A dry run decides nothing.
        let before = open_fields(&clinic);
        let equal = ["--take", "central", "--where-equal-by-meaning"];
        let dry = all(&[&equal[..], &["--dry-run", "--json"]].concat()).ends(0).json();
        assert_eq!(
            (&dry["decided"], &dry["matched"], &dry["dry_run"]),
            (&json!(MANY + 2), &json!(MANY + 2), &json!(true))
        );
        all(&[&equal[..], &["--dry-run"]].concat())
            .ends(0)
            .says(&format!("{} would be decided: central", MANY + 2))
            .says("dob");
        assert_eq!(open_fields(&clinic), before);

        // One field of one collection, then what means the same, on all pages.
        let one = all(&["--take", "central", "--collection", "people", "--path", "dob"]).ends(0);
        one.says("1 decided: central");
        all(&["--take", "central", "--path", "dob"]).ends(0).says("no conflict matches");
        let decided = all(&[&equal[..], &["--json"]].concat()).ends(0).json();
        assert_eq!(decided["decided"], MANY + 1, "{decided}");
        assert_eq!(open_fields(&clinic), ["people/[address,city]", "people/[phone]", "people/[profession]"]);

        // What has been overtaken, and questions about records, are left and said.
        let rest = all(&["--take", "local"]).ends(3);
        rest.says("2 decided: local")
            .says("1 left: the value has changed since")
            .says("people/ANA profession");
        rest.says("1 about people or records");
        assert_eq!(open_fields(&clinic), ["people/[profession]"]);
        assert_eq!(decisions(&clinic), MANY + 4);
        let listed = clinic.run(&["conflicts", "list", "--json"]).ends(0).json();
        assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
        drop(node);
        let people = clinic.records(Kind::Person);
        let ana = people.iter().find(|person| person.get_str("_id").is_ok_and(|id| id == "ANA")).unwrap();
        assert_eq!((ana.get_str("phone").unwrap(), ana.get_str("gender").unwrap()), ("1", "female"));
        assert!(ana.get_datetime("dob").is_ok());
        assert_eq!(ana.get_document("address").unwrap(), &doc! {"city": "A"});
        assert_eq!(ana.get_str("profession").unwrap(), "moved on");
    }
}

/// What may let somebody in is decided only where its field is named.
#[test]
fn logins_are_decided_only_by_name() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        clinic.write(|tx| {
            let key = RecordKey::new(Kind::Person, "ANA");
            let person = doc! {"_id": "ANA", "roles": ["end_user"], "active": true, "phone": "2",
            "password": "$2b$12$hash-there"};
            tx.edit(&key, Some(&person), &OPERATOR)?;
            for clash in [
                clash(
                    &["roles"],
                    bson::bson!(["end_user", "health_professional"]),
                    bson::bson!(["end_user"]),
                ),
                clash(&["active"], false, true),
                clash(&["password"], "$2b$12$hash-here", "$2b$12$hash-there"),
                clash(&["phone"], "1", "2"),
            ] {
                tx.add_conflict(&key, &clash, None)?;
            }
            let gone = RecordKey::new(Kind::Person, "EVA");
            let eva = doc! {"_id": "EVA", "roles": ["end_user"], "active": false};
            tx.edit(&gone, Some(&eva), &OPERATOR)?;
            let whole = Clash { path: Vec::new(), stands: Side::Local, remote: None, ..clash(&[], eva, "") };
            tx.add_conflict(&gone, &whole, None)
        });
        let node = is_running.then(|| clinic.serve(&[]));
        let all = |more: &[&str]| clinic.run(&[&["conflicts", "resolve", "--all"], more].concat());
        let logins = ["people/[active]", "people/[password]", "people/[roles]", "people/[]"];
        for side in ["local", "central"] {
            let decided = all(&["--take", side]).ends(0);
            decided.says("4 about passwords, roles or `active` of people");
            let counts = all(&["--take", side, "--collection", "people", "--json"]).ends(0).json();
            assert_eq!((&counts["decided"], &counts["logins_left"]), (&json!(0), &json!(4)), "{counts}");
            assert_eq!(open_fields(&clinic), logins);
        }
        all(&["--take", "local", "--path", "roles", "--dry-run"]).ends(0).says("1 would be decided: local");
        all(&["--take", "local", "--path", "roles"]).ends(0).says("1 decided: local");
        assert_eq!(open_fields(&clinic), ["people/[active]", "people/[password]", "people/[]"]);
        all(&["--take", "central", "--path", ""]).ends(0).says("1 decided: central");
        assert_eq!(open_fields(&clinic), logins[..2]);
        drop(node);
        let people = clinic.records(Kind::Person);
        assert_eq!(people.len(), 1);
        assert_eq!(people[0].get_str("phone").unwrap(), "1");
        assert_eq!(people[0].get_array("roles").unwrap().len(), 2);
        assert!(people[0].get_bool("active").unwrap());
    }
}

#[test]
fn a_conflict_about_a_password_names_who_changed_it() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        let key = RecordKey::new(Kind::Person, "ANA");
        let mut person =
            doc! {"_id": "ANA", "roles": ["end_user"], "active": true, "password": "$2b$12$hash-here"};
        tx.edit(&key, Some(&person), &Actor::Person("NURSE1".into()))?;
        person.insert("phone", "1");
        tx.edit(&key, Some(&person), &Actor::Person("CLERK1".into()))?;
        let clash = clash(&["password"], "$2b$12$hash-here", "$2b$12$hash-there");
        let there = doc! {"_id": "ANA", "password": "$2b$12$hash-there",
        "modification_info": {"user": "HUBADMIN", "node": "hub", "timestamp": "2026-11-28 10:37:51"}};
        tx.add_conflict(&key, &clash, Some(&there))
    });
    let listed = clinic.run(&["conflicts", "list"]).ends(0);
    listed.says("person:NURSE1 (1970-01-01T00:00:01Z)").says("centre: HUBADMIN at hub (2026-11-28 10:37:51)");
    let json = clinic.run(&["conflicts", "list", "--json"]).ends(0).json();
    assert_eq!(json[0]["author"], "person:NURSE1");
    assert_eq!(json[0]["central_author"], "HUBADMIN at hub");
    assert_eq!(json[0]["central_edited_at"], "2026-11-28 10:37:51");
    assert!(json[0]["edited_at"].is_string(), "{json}");
    let shown = clinic.run(&["conflicts", "show", json[0]["id"].as_str().unwrap()]).ends(0);
    shown
        .says("edited here by    person:NURSE1")
        .says("centre's by       HUBADMIN at hub")
        .says("(never shown)");
    assert!(!format!("{json} {} {}", shown.out, listed.out).contains("hash"));
}

/// What a decision meets only when it is made is counted before, too.
#[test]
fn a_dry_run_counts_what_the_run_then_does() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        clinic.write(|tx| {
            for id in ["ANA", "BOB"] {
                let person = doc! {"_id": id, "roles": ["end_user"], "active": true, "name": id};
                tx.edit(&RecordKey::new(Kind::Person, id), Some(&person), &OPERATOR)?;
            }
            for id in ["e1", "e2"] {
                let key = RecordKey::new(Kind::Event, id);
                tx.edit(&key, Some(&doc! {"_id": id, "person": "ANA", "n": 2}), &OPERATOR)?;
                tx.add_conflict(&key, &clash(&["n"], 1, 2), None)?;
            }
            // The value was about somebody else.
            let of_bob = doc! {"_id": "e2", "person": "BOB", "n": 2};
            tx.edit(&RecordKey::new(Kind::Event, "e2"), Some(&of_bob), &OPERATOR).map(drop)
        });
        let node = is_running.then(|| clinic.serve(&[]));
        let all = |more: &[&str]| {
            clinic.run(&[&["conflicts", "resolve", "--all", "--take", "local", "--json"], more].concat())
        };
        let before = decisions(&clinic);
        let mut dry = all(&["--dry-run"]).ends(0).json();
        assert_eq!((&dry["decided"], &dry["refused"], &dry["dry_run"]), (&json!(1), &json!(1), &json!(true)));
        assert_eq!((open_fields(&clinic).len(), decisions(&clinic)), (1, before), "nothing was decided");
        let mut done = all(&[]).ends(1).json();
        for counts in [&mut dry, &mut done] {
            counts.as_object_mut().unwrap().remove("dry_run");
        }
        assert_eq!(dry, done);
        assert_eq!(decisions(&clinic), before + 1);
        drop(node);
    }
}

/// Two records of a person and the person, all deleted at the centre, two values of one field, a field and the object that it stands
/// in: what becomes of each is decided by those before it.
#[test]
fn a_dry_run_counts_what_decisions_do_to_those_behind_them() {
    for (is_running, path) in
        IS_RUNNING.into_iter().flat_map(|running| [(running, None), (running, Some(""))])
    {
        for side in ["central", "local"] {
            let clinic = Clinic::new();
            clinic.write(|tx| {
                for (number, id) in ["ANA", "BOB", "CID", "DAN"].into_iter().enumerate() {
                    let person = doc! {"_id": id, "roles": ["end_user"], "active": false, "phone": "2",
                    "address": {"city": "B", "street": {"name": "x"}}};
                    let key = RecordKey::new(Kind::Person, id);
                    tx.edit(&key, Some(&person), &OPERATOR)?;
                    let gone = |body: &bson::Document| Clash {
                        path: Vec::new(),
                        stands: Side::Local,
                        remote: None,
                        ..clash(&[], body.clone(), "")
                    };
                    for event in 0..number {
                        let key = RecordKey::new(Kind::Event, format!("{id}-{event}"));
                        let body = doc! {"_id": &key.id, "person": id, "n": 2};
                        tx.edit(&key, Some(&body), &OPERATOR)?;
                        tx.add_conflict(&key, &clash(&["n"], 1, 2), None)?;
                        tx.add_conflict(&key, &gone(&body), None)?;
                    }
                    tx.add_conflict(&key, &gone(&person), None)?;
                    for clash in [
                        clash(&["phone"], "1", "2"),
                        clash(&["phone"], "3", "2"),
                        clash(&["address"], doc! {"city": "A"}, doc! {"city": "B", "street": {"name": "x"}}),
                        clash(&["address", "city"], "C", "B"),
                        clash(&["address", "street", "name"], "y", "x"),
                    ] {
                        tx.add_conflict(&key, &clash, None)?;
                    }
                }
                Ok(())
            });
            let node = is_running.then(|| clinic.serve(&[]));
            let chosen: Vec<&str> = path.map(|path| ["--path", path]).into_iter().flatten().collect();
            let all = |more: &[&str]| {
                let args = ["conflicts", "resolve", "--all", "--take", side];
                clinic.run(&[&args[..], &chosen, more].concat())
            };
            let (before, entries) = (open_fields(&clinic), decisions(&clinic));
            let mut dry = all(&["--dry-run", "--json"]).ends(0).json();
            let named = all(&["--dry-run"]).ends(0).out;
            assert_eq!((open_fields(&clinic), decisions(&clinic)), (before, entries), "nothing was decided");
            // The counts, and each conflict that is named.
            let copy = clinic.data().parent().unwrap().join("copy");
            drop(node);
            copy_store(&clinic, &copy);
            let node = is_running.then(|| clinic.serve(&[]));
            let ran = all(&["--json"]);
            let mut done = ran.json();
            for counts in [&mut dry, &mut done] {
                counts.as_object_mut().unwrap().remove("dry_run");
            }
            assert_eq!(dry, done, "{path:?} {side}");
            assert!(done["decided"].as_u64() > Some(4), "{done}");
            if (path, side) == (None, "local") {
                assert!(done["changed"].as_u64() > Some(3), "{done}");
            }
            drop(node);
            put_store_back(&clinic, &copy);
            let node = is_running.then(|| clinic.serve(&[]));
            assert_eq!(all(&[]).out.replace(" decided: ", " would be decided: "), named, "{path:?} {side}");
            drop(node);
        }
    }
}

fn copy_store(clinic: &Clinic, to: &std::path::Path) {
    std::fs::copy(thalamus_edge::app::store_file(&clinic.data()), to).unwrap();
}

fn put_store_back(clinic: &Clinic, from: &std::path::Path) {
    std::fs::copy(from, thalamus_edge::app::store_file(&clinic.data())).unwrap();
}

/// Between installing a package and the restart an earlier version of the node runs, which takes what it does not know in a
/// body for nothing, and would decide.
#[test]
fn a_node_that_cannot_try_a_decision_decides_nothing() {
    let clinic = Clinic::new();
    clinic.make_store();
    let socket = UnixListener::bind(clinic.data().join("control.sock")).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            stream.read_exact(&mut vec![0; length.map_or(0, |length| length.parse().unwrap())]).unwrap();
            let Some(asked) = head.lines().next().map(|line| line.trim_end_matches(" HTTP/1.1").to_owned())
            else {
                continue;
            };
            let conflict =
                json!({"id": "c1", "type": "value", "collection": "event", "record": "e1", "path": ["n"]});
            let (status, body) = match asked.as_str() {
                "GET /healthz" | "GET /sync/status" | "POST /sync/conflicts/c1/resolution" => {
                    (200, json!({}))
                }
                "GET /sync/conflicts/c1" => (200, conflict),
                list if list.starts_with("GET /sync/conflicts?") => (200, json!([conflict])),
                _ => (404, json!({"error": "Not found"})),
            };
            let body = body.to_string();
            seen.lock().unwrap().push(asked);
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    let all = ["conflicts", "resolve", "--all", "--take", "local"];
    clinic.run(&[&all[..], &["--dry-run"]].concat()).ends(3).complains("earlier version");
    let decisions = || asked.lock().unwrap().iter().filter(|asked| asked.ends_with("/c1/resolution")).count();
    assert_eq!(decisions(), 0, "{:?}", asked.lock().unwrap());
    clinic.run(&all).ends(0).says("1 decided");
    assert_eq!(decisions(), 1);
}
