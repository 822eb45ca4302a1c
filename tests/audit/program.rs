//! The trail of the real program: its commands, its end by force, and what the centre knows of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use redb::{Database, TableDefinition};
use rustix::process::Signal;
use serde_json::Value;
use thalamus_edge::app::store_file;

use super::cli_support::{Clinic, IS_RUNNING, PROFESSIONAL};
use super::entries;

const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

/// What the trail of a stopped clinic says, in order.
fn verbs(clinic: &Clinic) -> Vec<String> {
    entries(&clinic.open_store()).into_iter().map(|entry| entry.event.verb.into_owned()).collect()
}

/// The head that a check of the trail names.
fn head(said: &str) -> String {
    said.lines().find_map(|line| line.strip_prefix("head ")).unwrap().to_owned()
}

/// Takes the last entries away, as somebody can who has the file.
fn cut_end(clinic: &Clinic, entries: usize) {
    let database = Database::open(store_file(&clinic.data())).unwrap();
    let transaction = database.begin_write().unwrap();
    for _ in 0..entries {
        transaction.open_table(AUDIT).unwrap().pop_last().unwrap().unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_kill_is_told_by_the_next_start_and_an_orderly_end_by_itself() {
    let clinic = Clinic::new();
    let node = clinic.serve(&[]);
    node.signal(Signal::KILL);
    node.gone();
    assert_eq!(verbs(&clinic), ["start"]);
    clinic.serve(&[]).stop();
    assert_eq!(verbs(&clinic), ["start", "unclean_stop", "start", "stop"]);
    clinic.serve(&[]).stop();
    assert_eq!(verbs(&clinic)[4..], ["start", "stop"]);
}

#[test]
fn reads_get_to_the_disk_by_themselves_and_at_the_end() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    let call = |method: &str, id: &str, body: &str| {
        let (status, said) = node.request(method, &format!("/people/{id}"), PROFESSIONAL, body);
        assert_eq!(status, 200, "{said}");
    };
    let written = || fs::metadata(store_file(&clinic.data())).unwrap().modified().unwrap();
    let before = written();
    call("GET", "ESGNU777ORG", "");
    node.wait_until(|| written() != before);
    // Answered once everything before it is on disk.
    call("PATCH", "ITPYT999HON", r#"{"phone": "555-0100"}"#);
    node.signal(Signal::KILL);
    node.gone();
    let told = |clinic: &Clinic| -> Vec<String> {
        let all = entries(&clinic.open_store()).into_iter();
        all.map(|entry| format!("{} {}", entry.event.verb, entry.event.id)).collect()
    };
    let first = told(&clinic);
    assert_eq!(first[first.len() - 2..], ["read ESGNU777ORG", "update ITPYT999HON"]);
    for made in ["create ARGBUE111FAV", "grant ARGBUE111FAV"] {
        assert!(first.iter().any(|line| line == made), "{made} is not in {first:?}");
    }
    let node = clinic.serve(&[]);
    assert_eq!(node.request("GET", "/people/ESGNU777ORG", PROFESSIONAL, "").0, 200);
    node.stop();
    assert_eq!(told(&clinic)[first.len()..], ["unclean_stop ", "start ", "read ESGNU777ORG", "stop "]);
}

#[test]
fn a_trail_is_checked_exported_and_checked_again() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        clinic.serve(&["--demo"]).stop();
        let node = is_running.then(|| clinic.serve(&[]));
        let said = clinic.run(&["audit", "verify"]).ends(0);
        said.says("is whole: entries 1 to ").says("nobody else knows its end");
        let known = head(&said.out);
        let said = clinic.run(&["audit", "verify", "--expect", &known]).ends(0);
        said.says(&format!("--expect knows of entry {}", known.split(':').next().unwrap()));
        let file = clinic.path("trail.jsonl");
        let file = file.to_str().unwrap();
        clinic.run(&["audit", "export", file]).ends(0);
        clinic.run(&["audit", "export", file]).ends(1).complains("exists");
        clinic.run(&["audit", "verify", "--file", file, "--expect", &known]).ends(0).says("is whole");
        assert!(third_party(Path::new(file)).starts_with("whole: "));
        let shown = clinic.run(&["audit", "export"]).ends(0);
        let first: Value = serde_json::from_str(shown.out.lines().next().unwrap()).unwrap();
        assert_eq!(first["anchor"], format!("0:{}", "0".repeat(64)));
        assert_eq!(shown.out.lines().nth(1), fs::read_to_string(file).unwrap().lines().nth(1));
        // One letter of one entry.
        let text = fs::read_to_string(file).unwrap();
        fs::write(file, text.replacen("ESGNU777ORG", "ESGNU777ORX", 1)).unwrap();
        let refused = clinic.run(&["audit", "verify", "--file", file]).ends(1);
        refused.complains("the audit trail is not whole: entry ");
        assert!(third_party(Path::new(file)).contains("is not the one that was written"));
        let lines: Vec<&str> = text.lines().collect();
        fs::write(file, lines[..lines.len() - 3].join("\n")).unwrap();
        clinic.run(&["audit", "verify", "--file", file]).ends(0);
        let last: Value = serde_json::from_str(lines[lines.len() - 1]).unwrap();
        let last = format!("{}:{}", last["seq"], last["hash"].as_str().unwrap());
        clinic
            .run(&["audit", "verify", "--file", file, "--expect", &last])
            .ends(1)
            .complains("its end was cut off");
        fs::write(file, lines[1..].join("\n")).unwrap();
        clinic.run(&["audit", "verify", "--file", file]).ends(1).complains("line 1: not the anchor");
        drop(node);
    }
    let clinic = Clinic::new();
    clinic.run(&["audit", "verify"]).ends(1).complains("there is no store");
    clinic.run(&["audit", "verify", "--expect", "12"]).ends(2).complains("SEQ:HASH");
}

#[test]
fn a_trail_that_was_cut_while_the_node_was_down_is_noticed_by_a_known_head() {
    let clinic = Clinic::new();
    clinic.serve(&["--demo"]).stop();
    let known = head(&clinic.run(&["audit", "verify"]).ends(0).out);
    cut_end(&clinic, 3);
    clinic.run(&["audit", "verify"]).ends(0);
    clinic.run(&["audit", "verify", "--expect", &known]).ends(1).complains("--expect");
}

#[test]
fn whoever_exports_the_records_has_read_them() {
    let clinic = Clinic::new();
    clinic.serve(&["--demo"]).stop();
    clinic.run(&["export", clinic.path("records").to_str().unwrap()]).ends(0);
    let last = entries(&clinic.open_store()).pop().unwrap();
    let uid = rustix::process::getuid().as_raw();
    assert_eq!((&*last.event.verb, last.event.owner.as_str()), ("export", "*"));
    assert_eq!(last.event.who, format!("operator:{uid}"));
}

/// The check that `docs/SECURITY.md` gives to third parties, as it stands there.
fn third_party(file: &Path) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, program) = page.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let ran = Command::new("python3").args(["-c", program]).arg(file).output().unwrap();
    String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap()
}

mod mongo {
    use bson::Document;

    use super::*;
    use crate::support::mongo::{MongoServer, unique_database};

    /// What the centre was told shows what is missing here, however the rest was made to fit.
    #[test]
    fn the_centre_knows_the_end_of_the_trail() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(MongoServer::start());
        let database = unique_database();
        let separator = if server.uri().contains('?') { "&" } else { "?" };
        let uri = format!("{}{separator}directConnection=true", server.uri());
        let clinic = Clinic::new().with("CENTRAL__URI", &uri).with("CENTRAL__DATABASE", &database);
        clinic.serve(&["--demo"]).stop();
        clinic.run(&["sync", "now"]).ends(0);
        let told = || {
            runtime.block_on(async {
                let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
                let rows = client.database(&database).collection::<Document>("edge_nodes");
                rows.find_one(bson::doc! {}).await.unwrap().unwrap().get_str("audit").unwrap().to_owned()
            })
        };
        let first = told();
        let said = clinic.run(&["audit", "verify", "--expect", &first]).ends(0);
        let seq: usize = first.split(':').next().unwrap().parse().unwrap();
        said.says("the centre knows its end");
        // That look was audited, and the next round tells of it.
        clinic.run(&["sync", "now"]).ends(0);
        assert_ne!(told(), first);
        let known: usize = told().split(':').next().unwrap().parse().unwrap();
        let last = entries(&clinic.open_store()).len();
        assert!(known > seq && known <= last, "{seq} {known} {last}");
        cut_end(&clinic, last - known + 1);
        let refused = clinic.run(&["audit", "verify"]).ends(1);
        refused.complains(&format!("the centre knows of entry {known}"));
    }
}
