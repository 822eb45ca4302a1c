//! Commands about the account of somebody who is closed out say so.

use bson::{Bson, doc};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::Base;

use crate::IS_RUNNING;
use crate::cli_support::Clinic;

const NOTE: &str = "the account is closed: nobody logs in with it before `thalamus-edge user enable";

fn commands(clinic: &Clinic, id: &str) -> Vec<String> {
    let password = "a good long one\n";
    let add = ["user", "add", id, "--role", "health_professional"];
    vec![
        clinic.run_with(&[&add[..], &["--password-stdin"]].concat(), password).ends(0).out,
        clinic.run(&[&add[..], &["--link"]].concat()).ends(0).out,
        clinic.run_with(&["user", "passwd", id, "--password-stdin"], password).ends(0).out,
        clinic.run(&["user", "link", id]).ends(0).out,
    ]
}

#[test]
fn what_is_done_to_a_closed_account_says_that_it_is_closed() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        clinic.write(|tx| {
            for (id, active) in [("ANA001", true), ("BOB001", false)] {
                let person = doc! {"_id": id, "name": id, "roles": ["end_user"], "active": active};
                tx.edit(&RecordKey::new(Kind::Person, id), Some(&person), &Actor::Centre)?;
            }
            Ok(())
        });
        let node = is_running.then(|| clinic.serve(&[]));
        for out in commands(&clinic, "ANA001") {
            assert!(!out.contains("closed"), "{out}");
        }
        for id in ["BOB001", "ANA001"] {
            if id == "ANA001" {
                clinic.run(&["user", "disable", id]).ends(0);
            }
            for out in commands(&clinic, id) {
                assert!(out.contains(&format!("{NOTE} {id}`")), "{out}");
                assert!(!out.contains("logs in here as"), "{out}");
            }
        }
        drop(node);
        // Where what the centre says does not count, only a closing on this node does.
        let clinic = clinic.with("ACCOUNTS__ACTIVE_FROM_CENTRE", "ignore");
        for out in commands(&clinic, "BOB001") {
            assert!(!out.contains("closed"), "{out}");
        }
        assert!(commands(&clinic, "ana001").iter().all(|out| out.contains(NOTE)));
        clinic.run(&["user", "enable", "ANA001"]).ends(0);
        assert!(commands(&clinic, "ANA001").iter().all(|out| !out.contains("closed")));
    }
}

#[test]
fn a_technicians_account_that_is_closed_is_told_of_too() {
    let clinic = Clinic::new();
    let add = ["user", "add", "tech@local", "--role", "root", "--password-stdin"];
    let out = clinic.run_with(&add, "a good long one\n").ends(0).out;
    assert!(out.contains("tech@local logs in here as root") && !out.contains("closed"), "{out}");
    clinic.run(&["user", "disable", "tech@local"]).ends(0);
    clinic.run_with(&add, "a good long one\n").ends(0).says(&format!("{NOTE} tech@local`"));
    clinic.run(&["user", "link", "tech@local"]).ends(0).says(NOTE);
}

const HASH: &str = "$2b$04$Y9rX7PoTHRXhTO1H78Tan.8mVmyayGAUIveiYxu2Qeo0ZDRvJQ8/2";

/// What `doctor` says of inactive accounts.
fn doctor_says(clinic: &Clinic) -> Vec<String> {
    let doctor = clinic.run(&["doctor", "--json"]).json();
    let findings = doctor["findings"].as_array().unwrap();
    let about = |finding: &&serde_json::Value| finding["about"] == "inactive accounts";
    findings.iter().filter(about).map(|finding| finding["finding"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn values_that_are_no_booleans_are_named_by_what_they_do_here() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        let values = [
            ("TEXT01", Bson::from("false")),
            ("ZERO01", 0.into()),
            ("NULL01", Bson::Null),
            ("HERE01", 1.into()),
        ];
        for (id, active) in values {
            let person =
                doc! {"_id": id, "name": id, "active": active, "password": HASH, "roles": ["end_user"]};
            tx.put(
                &RecordKey::new(Kind::Person, id),
                Some(&person),
                &Base::Document(person.clone()),
                &Actor::Centre,
            )?;
        }
        Ok(())
    });
    const VALUES: &str = "NULL01 (as null), TEXT01 (as \"false\"), ZERO01 (as 0)";
    const ODD: &str = "`active` is neither true nor false";
    let three = format!("{ODD}, and counts as false: HERE01 (as 1), {VALUES}");
    assert!(doctor_says(&clinic).contains(&three), "{:?}", doctor_says(&clinic));
    let ignoring = clinic.with("ACCOUNTS__ACTIVE_FROM_CENTRE", "ignore");
    let four = format!(
        "{ODD}, and is not looked at, as `active_from_centre` says: they log in: HERE01 (as 1), {VALUES}"
    );
    let said = doctor_says(&ignoring);
    assert!(said.contains(&four) && !said.iter().any(|words| words.contains("counts as false")), "{said:?}");

    // Who is closed here gets a value that is one.
    ignoring.run(&["user", "disable", "HERE01"]).ends(0);
    let three = format!("{ODD}, and is not looked at, as `active_from_centre` says: they log in: {VALUES}");
    let said = doctor_says(&ignoring);
    assert!(said.contains(&three), "{said:?}");
    ignoring.run(&["user", "enable", "ZERO01"]).ends(0);
    assert!(!doctor_says(&ignoring).iter().any(|words| words.contains("ZERO01")));
}

#[test]
fn the_doctor_says_from_where_closed_accounts_came() {
    let clinic = Clinic::new();
    let file = clinic.path("people.jsonl");
    let imported = format!("{{\"_id\": \"FILE01\", \"active\": false, \"password\": \"{HASH}\"}}\n");
    std::fs::write(&file, imported).unwrap();
    clinic.run(&["import", file.to_str().unwrap()]).ends(0);
    clinic.write(|tx| {
        for id in ["CAME01", "CAME02"] {
            let person = doc! {"_id": id, "name": id, "active": false, "password": HASH};
            tx.put(
                &RecordKey::new(Kind::Person, id),
                Some(&person),
                &Base::Document(person.clone()),
                &Actor::Centre,
            )?;
        }
        Ok(())
    });
    let words = "3 people have a password and cannot log in, because their records came inactive: 2 from the centre (CAME01, \
                 CAME02), 1 by an import (FILE01)";
    assert!(doctor_says(&clinic).contains(&words.to_owned()), "{:?}", doctor_says(&clinic));
}
