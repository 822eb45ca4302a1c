//! Commands that change many things, and are killed in the middle: what was done stands, the rest is as it was, and a second
//! run does it.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::doc;
use serde_json::Value;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};

use crate::IS_RUNNING;
use crate::cli_support::{Clinic, PROFESSIONAL};

const MANY: usize = 120;
/// How many are done before the process is killed at the next: between two of them, on the second page of conflicts.
const DONE: usize = 103;
/// A start with the demo is done after so many milliseconds, on a quiet machine.
const MOMENTS_MS: usize = 320;

/// Runs a command that is killed, or whose node is, when it comes to this step once more.
fn run_and_kill(clinic: &Clinic, is_running: bool, step: &str, args: &[&str]) {
    let failpoint = format!("{step}={DONE}*off->return");
    if is_running {
        let node = clinic.serve_with_variable("FAILPOINTS", &failpoint);
        clinic.run(args).ends(1);
        node.gone();
    } else {
        clinic.run_with_variable("FAILPOINTS", &failpoint, args).was_killed();
    }
}

/// Records that entries with this verb and these fields are about.
fn audited(clinic: &Clinic, verb: &str, paths: &[&str]) -> Vec<String> {
    let trail = clinic.run(&["audit", "export"]).ends(0);
    let entries = trail.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = entries.filter(|entry| entry["verb"] == verb && entry["paths"] == serde_json::json!(paths));
    of.map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

/// Each once, and so many.
fn assert_each_once(ids: &[String], count: usize, what: &str) {
    assert_eq!((ids.iter().collect::<BTreeSet<_>>().len(), ids.len()), (count, count), "{what}: {ids:?}");
}

#[test]
fn decisions_that_were_made_stand_and_a_second_run_makes_the_others() {
    for is_running in IS_RUNNING {
        // In the transaction, and between it and the next.
        for (step, done) in [("conflict.deciding", DONE), ("conflict.decided", DONE + 1)] {
            let clinic = Clinic::new();
            clinic.write(|tx| {
                let ana = RecordKey::new(Kind::Person, "ANA");
                tx.edit(&ana, Some(&doc! {"_id": "ANA", "roles": ["end_user"]}), &Actor::Operator(0))?;
                for n in 0..MANY {
                    let key = RecordKey::new(Kind::Event, format!("e{n}"));
                    let event = doc! {"_id": &key.id, "person": "ANA", "n": "centre"};
                    tx.edit(&key, Some(&event), &Actor::Operator(0))?;
                    let clash = Clash {
                        path: vec!["n".to_owned()],
                        base: None,
                        local: Some("clinic".into()),
                        remote: Some("centre".into()),
                        stands: Side::Remote,
                    };
                    tx.add_conflict(&key, &clash, None)?;
                }
                Ok(())
            });
            let args = ["conflicts", "resolve", "--all", "--take", "local"];
            run_and_kill(&clinic, is_running, step, &args);
            let taken = || {
                let events = clinic.records(Kind::Event);
                events.iter().filter(|event| event.get_str("n").unwrap() == "clinic").count()
            };
            let open = || {
                let listed = clinic.run(&["conflicts", "list", "--json"]).ends(0).json();
                listed.as_array().unwrap().len()
            };
            assert_eq!((taken(), open()), (done, MANY - done), "{step}");
            assert_each_once(&audited(&clinic, "decision", &["n"]), done, step);
            clinic.run(&args).ends(0).says(&format!("{} decided: local", MANY - done));
            assert_eq!((taken(), open()), (MANY, 0), "{step}");
            assert_each_once(&audited(&clinic, "decision", &["n"]), MANY, step);
            clinic.run(&args).ends(0).says("no conflict matches");
            clinic.run(&["db", "check"]).ends(0);
        }
    }
}

#[test]
fn accounts_that_were_opened_stay_open_and_a_second_run_opens_the_others() {
    let hash = "$2b$04$abcdefghijklmnopqrstuuO2bVnLq6JpYFOkZ3hTqTq0cI0pHZ9bO";
    for is_running in IS_RUNNING {
        for (step, done) in [("active.setting", DONE), ("active.set", DONE + 1)] {
            let clinic = Clinic::new();
            clinic.write(move |tx| {
                for n in 0..MANY {
                    let key = RecordKey::new(Kind::Person, format!("HUB{n:03}AAA"));
                    let person = doc! {"_id": &key.id, "name": "Ana", "active": false, "password": hash};
                    tx.edit(&key, Some(&person), &Actor::Centre)?;
                }
                Ok(())
            });
            let args = ["user", "enable", "--all-inactive"];
            run_and_kill(&clinic, is_running, step, &args);
            let open = || {
                let users = clinic.run(&["user", "list", "--json"]).ends(0).json();
                users.as_array().unwrap().iter().filter(|user| user["active"] == true).count()
            };
            assert_eq!(open(), done, "{step}");
            assert_each_once(&audited(&clinic, "update", &["active"]), done, step);
            clinic.run(&args).ends(0).says(&format!("{} accounts were opened", MANY - done));
            assert_eq!(open(), MANY, "{step}");
            assert_each_once(&audited(&clinic, "update", &["active"]), MANY, step);
            clinic.run(&args).ends(0).says("0 accounts were opened");
            clinic.run(&["db", "check"]).ends(0);
        }
    }
}

/// All records of all kinds, as they are stored.
fn all_records(clinic: &Clinic) -> Vec<Vec<Vec<u8>>> {
    let store = clinic.open_store();
    let view = store.read().unwrap();
    let of_kind = |kind| view.list(kind, None, usize::MAX, usize::MAX).unwrap().records;
    let bytes = |kind| of_kind(kind).into_iter().map(|record| record.document.into_bytes()).collect();
    Kind::ALL.into_iter().map(bytes).collect()
}

#[test]
fn a_demo_that_was_killed_while_it_filled_the_store_is_whole_after_the_next_start() {
    let whole = Clinic::new();
    whole.serve(&["--demo"]).stop();
    let (wanted, count) = (all_records(&whole), all_records(&whole).iter().map(Vec::len).sum::<usize>());
    assert!(count > 7, "{count}");
    let is_whole = |clinic: &Clinic, what: &str| {
        let node = clinic.serve(&["--demo"]);
        let pages = node.request("GET", "/pols/ESPGNU777ORG", PROFESSIONAL, "");
        assert!(pages.0 == 200 && pages.1.len() > 2, "{what}: {pages:?}");
        node.stop();
        assert!(all_records(clinic) == wanted, "{what}");
        clinic.run(&["db", "check"]).ends(0);
    };
    for made in 0..count {
        let clinic = Clinic::new();
        let failpoint = format!("edit.made={made}*off->return");
        clinic.run_with_variable("FAILPOINTS", &failpoint, &["serve", "--demo"]).was_killed();
        is_whole(&clinic, &format!("after {} of {count} records", made + 1));
    }
    // And at any moment, with the making of the store and what comes after the last record.
    for ms in (0..=MOMENTS_MS).step_by(MOMENTS_MS / 16) {
        let clinic = Clinic::new();
        clinic.kill_after(Duration::from_millis(ms as u64), &["serve", "--demo"]);
        is_whole(&clinic, &format!("after {ms} ms"));
    }
}
