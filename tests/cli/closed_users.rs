//! Commands about the account of somebody who is closed out say so.

use bson::doc;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};

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
