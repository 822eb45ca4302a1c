//! The program as people run it: every command against the real binary, with a node running and without,
//! and what signals, other processes and power cuts do to it.

#![allow(clippy::unwrap_used)]

#[path = "cli/backups.rs"]
mod backups;
#[path = "cli/centre.rs"]
mod centre;
#[path = "cli/centre_stages.rs"]
mod centre_stages;
mod cli_support;
#[path = "cli/closed_users.rs"]
mod closed_users;
#[path = "cli/conflicts.rs"]
mod conflicts;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/encryption.rs"]
mod encryption;
#[path = "cli/equal_conflicts.rs"]
mod equal_conflicts;
#[path = "cli/exports.rs"]
mod exports;
#[path = "cli/import_answers.rs"]
mod import_answers;
#[path = "cli/import_deleted.rs"]
mod import_deleted;
#[path = "cli/import_losses.rs"]
mod import_losses;
#[path = "cli/import_moved.rs"]
mod import_moved;
#[path = "cli/import_reasons.rs"]
mod import_reasons;
#[path = "cli/imports.rs"]
mod imports;
#[cfg(feature = "failpoints")]
#[path = "cli/killed.rs"]
mod killed;
#[path = "cli/large_answers.rs"]
mod large_answers;
#[path = "cli/memory.rs"]
mod memory;
mod support;

#[path = "cli/exits.rs"]
mod exits;
#[path = "cli/pipes.rs"]
mod pipes;
#[path = "cli/proxy.rs"]
mod proxy;
#[path = "cli/rot.rs"]
mod rot;
#[path = "cli/secrets.rs"]
mod secrets;
#[path = "cli/setup.rs"]
mod setup;
#[path = "cli/trash.rs"]
mod trash;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bson::{Bson, doc};
use cli_support::{Clinic, IS_RUNNING, Node, PROFESSIONAL, ROOT};
use rustix::process::Signal;
use serde_json::{Value, json};
use thalamus_edge::app::{control_socket, store_file};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, Conflict, DeadLetter, Hold, HoldReason};

// ------------------------------------------------------------------------------------------- arguments

#[test]
fn version_says_which_one_and_whether_it_is_for_tests() {
    let clinic = Clinic::new();
    let ran = clinic.run(&["version"]).ends(0);
    let mut lines = ran.out.lines();
    assert_eq!(lines.next().unwrap(), format!("thalamus-edge {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(lines.next().is_some(), cfg!(feature = "failpoints"));
    clinic.run(&["--version"]).ends(0).says(env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let clinic = Clinic::new();
    for args in [
        &[][..],
        &["dance"],
        &["user", "add", "ANA"],
        &["sync", "resume", "--accept-everything"],
        &["sync", "resume", "--accept-deletes", "--restore-deleted"],
        &["conflicts", "resolve", "x"],
        &["conflicts", "resolve", "x", "--take", "neither"],
        &["conflicts", "resolve", "x", "--take", "local", "--value", "1"],
        &["conflicts", "resolve", "x", "--value", "{"],
        &["conflicts", "resolve", "x", "--same", "--take", "local"],
        &["conflicts", "resolve", "x", "--same", "--new-id", "NEW01"],
        &["conflicts", "resolve", "x", "--new-id"],
        &["conflicts", "resolve", "--take", "local"],
        &["conflicts", "resolve", "x", "--all", "--take", "local"],
        &["conflicts", "resolve", "--all"],
        &["conflicts", "resolve", "--all", "--take", "new-id"],
        &["conflicts", "resolve", "--all", "--same"],
        &["conflicts", "resolve", "--all", "--value", "1"],
        &["conflicts", "resolve", "--all", "--take", "local", "--etag", "x"],
        &["conflicts", "resolve", "x", "--take", "local", "--dry-run"],
        &["conflicts", "resolve", "--all", "--take", "local", "--collection", "peoples"],
        &["import"],
        &["import", "notes.txt"],
        &["import", "nothing.jsonl"],
    ] {
        clinic.run(args).ends(2);
    }
    clinic.run(&["sync", "nwo"]).ends(2).complains("'now'");
    clinic.run(&["audit", "zzz"]).ends(2).complains("tip: there are ");
    assert!(!clinic.data().exists(), "a command that makes no sense leaves nothing behind");
}

#[test]
fn an_error_in_the_configuration_is_named_with_file_line_and_key() {
    let clinic = Clinic::new();
    let file = clinic.path("site.toml");
    let file = file.to_str().unwrap();
    fs::write(file, "[server]\ntls = false\nlisten = \"here\"\n").unwrap();
    for args in [["--config", file, "check"], ["check", "--config", file]] {
        clinic.bare(&args).ends(2).complains(&format!("{file} line 3: `server.listen`"));
    }
    fs::write(file, "data_dri = \"/x\"\n").unwrap();
    clinic.bare(&["serve", "--config", file]).ends(2).complains("line 1").complains("data_dri");
    clinic.bare(&["check", "--config", "/absent.toml"]).ends(2).complains("/absent.toml: cannot be read");
    clinic.run(&["serve", "--listen", "nowhere"]).ends(2).complains("--listen: `server.listen`");
}

#[test]
fn check_looks_at_access_rules_and_certificate_too() {
    let clinic = Clinic::new();
    clinic.run(&["check"]).ends(0).says("in order");
    let roles = clinic.path("roles.cfg");
    let with_roles = clinic.with("ACCOUNTS__ROLES_FILE", roles.to_str().unwrap());
    with_roles.run(&["check"]).ends(2).complains("roles.cfg: cannot be read");
    fs::write(&roles, r#"[{"role": "visitor", "permissions": {"GET": ["peple"]}}]"#).unwrap();
    with_roles.run(&["check"]).ends(0).says("warning: access rules: ").says("peple");
    fs::write(&roles, "[\n{]").unwrap();
    with_roles.run(&["check"]).ends(2).complains("roles.cfg line 2: is no JSON");
    let named = clinic.with("ACCOUNTS__CENTRAL_ROLES", "[\"nurse\"]").run(&["check"]).ends(0);
    named.says(
        "names \"nurse\", which the access rules do not know; there are end_user, health_professional, root",
    );

    let pem = clinic.path("own.pem");
    fs::write(&pem, "no certificate").unwrap();
    let own = clinic.with("SERVER__TLS", "true");
    let own =
        own.with("SERVER__CERTIFICATE", pem.to_str().unwrap()).with("SERVER__KEY", pem.to_str().unwrap());
    own.run(&["check"]).ends(2).complains("own.pem");
}

/// What `check` finds keeps `serve` and `setup` from going on, unless the node can do without.
#[test]
fn check_and_serve_find_the_same_and_all_of_it_at_once() {
    let clinic = Clinic::new();
    fs::write(clinic.path("file"), "").unwrap();
    let file = clinic.path("site.toml");
    let site = file.to_str().unwrap();
    let args = |command: &'static str| [command, "--config", site];
    let text = format!(
        "data_dir = {:?}\n[server]\nlisten = \"127.0.0.1:0\"\ntls = false\n[accounts]\nroles_file = \"/absent.cfg\"\n\
         [store]\nkey_file = \"/absent.key\"\n[backup]\ndirectory = \"/absent/backups\"\n",
        clinic.path("file")
    );
    fs::write(&file, text).unwrap();
    for command in ["check", "serve", "setup"] {
        let args = if command == "setup" {
            vec!["setup", "--yes", "--config", site]
        } else {
            args(command).to_vec()
        };
        let ran = clinic.bare(&args).ends(2);
        ran.complains("line 1: `data_dir`")
            .complains("line 6: `accounts.roles_file`")
            .complains("line 8: `store.key_file`");
        assert_eq!(ran.err.contains("line 10: `backup.directory`"), command == "check", "{}", ran.err);
    }
    let ran = clinic.bare(&["check", "--config", site, "--json"]).ends(2);
    let found = ran.json();
    assert_eq!(found["ok"], false);
    let faults = found["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 4, "{found}");
    let backups = faults.iter().find(|fault| fault["key"] == "backup.directory").unwrap();
    assert_eq!((&backups["line"], &backups["stops_the_node"]), (&json!(10), &json!(false)));
    assert_eq!((&backups["file"], &backups["value"]), (&json!(site), &json!("\"/absent/backups\"")));
    assert_eq!(backups["example"], "\"/mnt/stick/backups\"");

    // What cannot be read at all is said in the same way.
    fs::write(&file, "[server]\nlisten = \"8443\"\nnames = [\"clinic.local.\"]\n[central]\nuri = \"mongodb://user:pa@ss@h/\"\n").unwrap();
    let found = clinic.bare(&["check", "--config", site, "--json"]).ends(2).json();
    let keys: Vec<_> = found["faults"].as_array().unwrap().iter().map(|fault| fault["key"].clone()).collect();
    assert_eq!(keys, ["server.listen", "server.names", "central.uri"]);
    assert!(!found.to_string().contains("pa@ss"));
    let ran = clinic.bare(&args("serve")).ends(2);
    ran.complains("line 2: `server.listen`")
        .complains("line 3: `server.names`")
        .complains("line 5: `central.uri`");
    let absent = clinic.bare(&["check", "--config", "/absent.toml", "--json"]).ends(2).json();
    assert_eq!(absent["faults"][0]["place"], "/absent.toml");
    assert!(absent["faults"][0]["problem"].as_str().unwrap().starts_with("cannot be read: "));
    for part in ["value", "allowed", "example"] {
        assert!(!absent["faults"][0][part].as_str().unwrap().is_empty(), "{absent}");
    }
    assert_eq!(clinic.run(&["check", "--json"]).ends(0).json()["faults"], json!([]));
}

/// A box whose stick was pulled out serves all the same.
#[test]
fn a_missing_place_for_backups_is_logged_and_the_node_serves() {
    let clinic = Clinic::new().with("BACKUP__DIRECTORY", "/absent/backups");
    let place = "variable THALAMUS_EDGE__BACKUP__DIRECTORY: `backup.directory`";
    clinic.run(&["check"]).ends(0).says(&format!("warning: {place}")).says("in order");
    let found = clinic.run(&["check", "--json"]).ends(0).json();
    assert_eq!((&found["ok"], &found["faults"][0]["stops_the_node"]), (&json!(true), &json!(false)));
    let doctor = clinic.run(&["doctor", "--json"]);
    assert!(
        doctor.out.contains("\"about\": \"configuration\"") && doctor.out.contains(place),
        "{}",
        doctor.out
    );
    let node = clinic.serve(&[]);
    assert!(node.log().contains("there is no such directory: is the disk connected"), "{}", node.log());
    node.stop();
    let failed = clinic.run(&["backup", "create"]).ends(1);
    assert_eq!(failed.err.matches("there is no such directory").count(), 1, "{}", failed.err);
}

#[test]
fn an_unknown_role_is_named_beside_those_that_there_are() {
    let clinic = Clinic::new();
    let add = |roles: &[&str]| {
        let args = [&["user", "add", "ANA001", "--link", "--role"], roles].concat();
        clinic.run(&args).ends(1)
    };
    let ran = add(&["nurse"]);
    ran.complains("no role \"nurse\"; there are end_user, health_professional, root");
    ran.complains("--role: ").complains("; for example --role end_user");
    add(&["end_user", "nurse", "medic"]).complains("no role \"nurse\", \"medic\"");
    add(&["end_user", "end_user"]).complains("\"end_user\" is there twice");
}

/// Whoever lacks a permission is told who has it, whatever they have run.
#[test]
fn a_permission_that_is_missing_comes_with_what_to_do() {
    let is_root = rustix::process::geteuid().is_root();
    let clinic = Clinic::new();
    clinic.make_store();
    fs::set_permissions(clinic.data(), fs::Permissions::from_mode(if is_root { 0o750 } else { 0o000 }))
        .unwrap();
    let config = clinic.path("closed.toml");
    fs::write(&config, "").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(if is_root { 0o600 } else { 0o000 })).unwrap();
    for args in [
        &["user", "list"][..],
        &["backup", "create"],
        &["backup", "list"],
        &["db", "check"],
        &["serve"],
        &["check", "--config", config.to_str().unwrap()],
        &["trash", "list"],
        &["audit", "verify"],
        &["setup", "--yes", "--config", config.to_str().unwrap()],
    ] {
        // Nobody else can be had without root, but what is closed is closed to its owner too.
        let ran = if is_root { clinic.run_as_other_user(args) } else { clinic.run(args) };
        ran.complains("run this as root or as the user that runs the node");
    }
    fs::set_permissions(clinic.data(), fs::Permissions::from_mode(0o750)).unwrap();
}

// --------------------------------------------------------------------------------------------- accounts

#[test]
fn nobody_invents_a_password_for_somebody_else() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        let node = is_running.then(|| clinic.serve(&[]));
        let add = ["user", "add", "head", "--local", "--role", "root", "--link"];
        let made = clinic.run(&add).ends(0).says("head@local logs in here as root").out.clone();
        let path = |text: &str| text.split_once("/link/").unwrap().1.lines().next().unwrap().to_owned();
        let first = path(&made);
        // A new one ends the one before.
        let second = path(&clinic.run(&["user", "link", "head@local"]).ends(0).out);
        assert_ne!(first, second);
        clinic.run(&["user", "link", "nobody@local"]).ends(1).complains("not found");
        let node = node.unwrap_or_else(|| clinic.serve(&[]));
        let form = "password=a+first+password&again=a+first+password";
        for (secret, status) in [(&first, 401), (&second, 200), (&second, 401)] {
            assert_eq!(node.request("POST", &format!("/link/{secret}"), "", form).0, status, "{secret}");
        }
        let login = || node.request("GET", "/users", "head@local:a first password", "").0;
        assert_eq!(login(), 200);
        clinic.run(&["user", "disable", "head@local"]).ends(0).says("cannot log in any more");
        assert_eq!(login(), 401);
        assert_eq!(clinic.run(&["user", "list", "--json"]).ends(0).json()[0]["active"], false);
        clinic.run(&["user", "enable", "head@local"]).ends(0);
        assert_eq!(login(), 200);
    }
}

/// The configuration may leave the port to the kernel, and the command line may name another address.
#[test]
fn a_link_names_the_address_on_which_the_node_listens() {
    let clinic = Clinic::new();
    let add = ["user", "add", "head", "--local", "--role", "root", "--link"];
    let shown = clinic.run(&add).ends(0);
    shown.says("http://localhost:PORT/link/").says("put the port of the node in the place of PORT");
    for args in [&[][..], &["--listen", "127.0.0.1:0"], &["--listen", "0.0.0.0:0"]] {
        let clinic =
            if args.is_empty() { clinic.clone() } else { clinic.with("SERVER__LISTEN", "127.0.0.1:9") };
        let node = clinic.serve(args);
        let shown = clinic.run(&["user", "link", "head@local"]).ends(0);
        shown.says(&format!(":{}/link/", node.port()));
        assert!(!shown.out.contains("PORT"), "{}", shown.out);
        node.stop();
    }
}

/// A hub that makes everybody inactive: their accounts are counted, and opened at once, but for those closed here.
#[test]
fn accounts_that_came_inactive_are_opened_together() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        let hash = "$2b$04$abcdefghijklmnopqrstuuO2bVnLq6JpYFOkZ3hTqTq0cI0pHZ9bO";
        let people: String = ["ANA001", "BEN002", "CLO003", "DAN004"]
            .iter()
            .map(|id| {
                format!(
                    "{{\"_id\": \"{id}\", \"name\": \"{id}\", \"active\": false, \"password\": \"{hash}\"}}\n"
                )
            })
            .collect();
        let file = clinic.path("people.jsonl");
        std::fs::write(&file, people).unwrap();
        clinic.run(&["import", file.to_str().unwrap()]).ends(0);
        let node = is_running.then(|| clinic.serve(&[]));
        clinic.run(&["user", "disable", "CLO003"]).ends(0);
        let doctor = clinic.run(&["doctor"]).out.clone();
        assert!(doctor.contains("3 people have a password and cannot log in"), "{doctor}");
        let all = |more: &[&str]| clinic.run(&[&["user", "enable", "--all-inactive"], more].concat());
        all(&["--dry-run"])
            .ends(0)
            .says("ANA001 would be opened")
            .says("3 accounts would be opened")
            .says("1 that were closed");
        clinic.run(&["user", "list"]).ends(0).says("4 accounts: 0 open; 3 came here inactive; 1 closed here");
        all(&["--since", "2026-01-01T00:00:00Z", "--dry-run"]).ends(0).says("3 accounts would be opened");
        all(&["--since", "2999-01-01T00:00:00Z"]).ends(0).says("0 accounts were opened");
        all(&["--since", "lately"]).ends(2).complains("2026-11-29T00:00:00Z");
        clinic.run(&["user", "enable"]).ends(2);
        clinic.run(&["user", "enable", "ANA001", "--all-inactive"]).ends(2);
        clinic.run(&["user", "enable", "ANA001", "--dry-run"]).ends(2);
        clinic.run(&["user", "enable", "ANA001", "--since", "2026-11-29T00:00:00Z"]).ends(2);
        all(&[]).ends(0).says("DAN004 can log in again").says("3 accounts were opened");
        all(&[]).ends(0).says("0 accounts were opened");
        let users = clinic.run(&["user", "list", "--json"]).ends(0).json();
        let open: Vec<_> = users.as_array().unwrap().iter().filter(|user| user["active"] == true).collect();
        assert_eq!(open.len(), 3, "{users}");
        drop(node);
    }
}

#[test]
fn accounts_are_made_listed_and_given_passwords() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        let node = is_running.then(|| clinic.serve(&[]));
        let add = ["user", "add", "ana777", "--role", "end_user", "health_professional", "--password-stdin"];
        clinic
            .run_with(&add, "a first password\n")
            .ends(0)
            .says("ANA777 logs in here as end_user, health_professional");
        let local = ["user", "add", "tech", "--local", "--role", "root", "--password-stdin"];
        clinic.run_with(&local, "s\0i\0x\0t\0e\0e\0n\0\n\0").ends(2).complains("UTF-16");
        clinic.run_with(&local, "\u{FEFF}\r\n").ends(2).complains("no password on standard input");
        clinic.run_with(&local, "\u{FEFF}a second password\r\n").ends(0).says("tech@local");
        // Without a password an account that exists keeps its own.
        let kept =
            "logs in here as root, and as end_user, health_professional: the record of this person says so";
        clinic.run(&["user", "add", "ANA777", "--role", "root"]).ends(0).says(kept);
        clinic.run(&["user", "add", "tech@local", "--role", "root", "end_user"]).ends(0);

        let listed = clinic.run(&["user", "list"]).ends(0);
        let rows: Vec<Vec<&str>> = listed.out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[1..],
            [
                vec!["tech@local", "yes", "root,", "end_user"],
                vec!["ANA777", "yes", "end_user,", "health_professional,", "root"],
                vec!["2", "accounts:", "2", "open"]
            ]
        );
        let json = clinic.run(&["user", "list", "--json"]).ends(0).json();
        assert_eq!(json[1]["id"], "ANA777");
        assert!(!json.to_string().contains("$2b$"));

        clinic
            .run_with(&["user", "passwd", "Ana777", "--password-stdin"], "\u{FEFF}a third password")
            .ends(0);
        clinic.run_with(&["user", "passwd", "tech@local", "--password-stdin"], "a fourth password\n").ends(0);

        let node = node.unwrap_or_else(|| clinic.serve(&[]));
        for (account, password, status) in [
            ("ANA777", "a third password", 200),
            ("ANA777", "a first password", 401),
            ("tech@local", "a fourth password", 200),
            ("tech@local", "a second password", 401),
        ] {
            let (found, _) = node.request("GET", "/users", &format!("{account}:{password}"), "");
            assert_eq!(found, status, "{account}:{password}, running: {is_running}");
        }
    }
}

#[test]
fn accounts_that_cannot_be_are_refused() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        let node = is_running.then(|| clinic.serve(&[]));
        let add = |id: &str, role: &str, input: &str| {
            clinic.run_with(&["user", "add", id, "--role", role, "--password-stdin"], input)
        };
        add("ANA", "wizard", "a good password\n").ends(1).complains("roles");
        add("ANA", "end_user", "short\n").ends(1).complains("at least 8 characters");
        add("A", "end_user", "a good password\n").ends(1).complains("letters and digits");
        add("ANA", "end_user", "").ends(2).complains("no password on standard input");
        add("ANA", "end_user", "\n").ends(2).complains("no password on standard input");
        clinic
            .without_terminal(&["user", "add", "ANA", "--role", "end_user"])
            .ends(2)
            .complains("--password-stdin");
        let passwd = clinic.run_with(&["user", "passwd", "ANA", "--password-stdin"], "a good password\n");
        passwd.ends(1).complains(if is_running { "User not found" } else { "" });
        drop(node);
    }
}

#[test]
fn a_password_is_asked_for_twice_and_not_shown() {
    let clinic = Clinic::new();
    let add = ["user", "add", "ANA", "--role", "end_user"];
    let (code, shown) = clinic.at_terminal(&add, &["a good password", "another password"]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("differ"), "{shown}");
    let (code, shown) = clinic.at_terminal(&add, &["a good password", "a good password"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("ANA logs in here") && !shown.contains("a good password"), "{shown}");
    let node = clinic.serve(&[]);
    assert_eq!(node.request("GET", "/login", "ANA:a good password", "").0, 200);
}

// --------------------------------------------------------------------------------------- reconciliation

#[test]
fn without_a_centre_synchronization_is_off() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        clinic.make_store();
        let node = is_running.then(|| clinic.serve(&[]));
        let status = clinic.run(&["sync", "status"]).ends(0);
        status.says("off").says(if is_running { "node                running" } else { "not running" });
        assert_eq!(clinic.run(&["sync", "status", "--json"]).ends(0).json()["state"], "off");
        clinic.run(&["sync", "now"]).ends(1).says("no centre is configured");
        clinic.run(&["sync", "resume", "--accept-deletes"]).ends(0);
        drop(node);
    }
}

#[test]
fn a_centre_that_is_away_is_not_a_failure() {
    for is_running in IS_RUNNING {
        // Nobody listens there: the port was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let clinic = Clinic::new();
        let clinic = clinic.with(
            "CENTRAL__URI",
            &format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=1000"),
        );
        clinic.make_store();
        let node = is_running.then(|| clinic.serve(&[]));
        clinic.run(&["sync", "now"]).ends(4).says("offline");
        clinic.run(&["sync", "now", "--verify"]).ends(4).says("offline");
        let report = clinic.run(&["sync", "now", "--json"]).ends(4).json();
        assert_eq!((&report["outcome"], &report["pushed"]), (&json!("offline"), &json!(0)));
        assert_eq!(clinic.run(&["sync", "status", "--json"]).ends(0).json()["state"], "offline");
        clinic.run(&["sync", "status"]).ends(0).says("last round          offline at ");
        drop(node);
    }
}

#[test]
fn a_pause_lasts_until_it_is_resumed() {
    for is_running in IS_RUNNING {
        // Whoever asks there would be told that the centre is away.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=1000");
        let clinic = Clinic::new().with("CENTRAL__URI", &uri);
        clinic.make_store();
        let node = is_running.then(|| clinic.serve(&[]));
        clinic.run(&["sync", "pause"]).ends(0).says("paused: no round runs until");
        if let Some(node) = node {
            node.stop();
        }
        let node = is_running.then(|| clinic.serve(&[]));
        let status = clinic.run(&["sync", "status"]).ends(0);
        status.says("state               paused").says("Synchronization was paused by operator:");
        assert!(!status.out.contains("next round "), "{}", status.out);
        clinic.run(&["sync", "now"]).ends(3).says("halted: Synchronization was paused by operator:");
        assert_eq!(clinic.run(&["sync", "now", "--json"]).ends(3).json()["outcome"], "halted");
        clinic.run(&["sync", "resume"]).ends(0).says("resumed: rounds run again");
        clinic.run(&["sync", "now"]).ends(4).says("offline");
        assert_eq!(clinic.run(&["sync", "status", "--json"]).ends(0).json()["state"], "offline");
        // Nothing to resume is nothing wrong.
        clinic.run(&["sync", "resume"]).ends(0);
        // An answer to a halt goes on as well.
        clinic.run(&["sync", "pause"]).ends(0);
        clinic.run(&["sync", "resume", "--accept-deletes"]).ends(0);
        clinic.run(&["sync", "now"]).ends(4).says("offline");
        drop(node);
    }
}

#[test]
fn records_whose_delete_waits_come_back_if_the_operator_wants_them() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        clinic.write(|tx| {
            for n in 0..30 {
                let key = RecordKey::new(Kind::Event, format!("e{n}"));
                let event = doc! {"_id": &key.id, "person": "ANA", "n": n};
                tx.put(&key, Some(&event), &Base::Document(event.clone()), &Actor::Centre)?;
                tx.edit(&key, None, &Actor::Operator(0))?;
            }
            Ok(())
        });
        let node = is_running.then(|| clinic.serve(&[]));
        clinic.run(&["sync", "resume"]).ends(0);
        assert_eq!(clinic.run(&["sync", "status", "--json"]).ends(0).json()["pending"], 30);
        clinic.run(&["sync", "resume", "--restore-deleted"]).ends(0).says("are back");
        assert_eq!(clinic.run(&["sync", "status", "--json"]).ends(0).json()["pending"], 0);
        drop(node);
        assert_eq!(clinic.records(Kind::Event).len(), 30);
    }
}

/// A person with a profession that both sides changed, and one whose conflict has been overtaken.
fn make_conflicts(clinic: &Clinic) -> [String; 2] {
    clinic.write(|tx| {
        let actor = Actor::Operator(0);
        for (id, profession) in [("ANA", "physician"), ("BOB", "retired")] {
            let key = RecordKey::new(Kind::Person, id);
            let person = doc! {"_id": id, "roles": ["end_user"], "active": true, "profession": profession};
            tx.edit(&key, Some(&person), &actor)?;
            let clash = Clash {
                path: vec!["profession".to_owned()],
                base: Some(Bson::from("teacher")),
                local: Some(Bson::from("nurse\u{1b}[2J")),
                remote: Some(Bson::from("physician")),
                stands: Side::Remote,
            };
            tx.add_conflict(&key, &clash, None)?;
        }
        Ok(())
    });
    let listed = clinic.run(&["conflicts", "list", "--json"]).ends(0).json();
    ["ANA", "BOB"].map(|person| {
        let conflicts = listed.as_array().unwrap().iter();
        let conflict = conflicts.clone().find(|conflict| conflict["record"] == person).unwrap();
        conflict["id"].as_str().unwrap().to_owned()
    })
}

#[test]
fn conflicts_are_listed_shown_and_decided() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        let [ana, bob] = make_conflicts(&clinic);
        let node = is_running.then(|| clinic.serve(&[]));
        clinic
            .run(&["conflicts", "list"])
            .ends(0)
            .says(&ana)
            .says("people/ANA")
            .says("profession")
            .says("central");
        let shown = clinic.run(&["conflicts", "show", &ana]).ends(0);
        shown.says("\"teacher\"").says("\"physician\"").says("\"nurse\\u001b[2J\"");
        assert!(!shown.out.contains('\u{1b}'));

        clinic
            .run(&["conflicts", "resolve", &ana, "--take", "local"])
            .ends(0)
            .says("resolved: people/ANA profession");
        clinic
            .run(&["conflicts", "resolve", &ana, "--take", "central"])
            .ends(3)
            .complains("resolved already");
        let moved = clinic.run(&["conflicts", "resolve", &bob, "--take", "central"]).ends(3);
        moved.complains("changed meanwhile").complains("--etag");
        let etag = clinic.run(&["conflicts", "show", &bob, "--json"]).ends(0).json()["etag"]
            .as_str()
            .unwrap()
            .to_owned();
        let resolve = ["conflicts", "resolve", &bob, "--value", "\"midwife\"", "--json", "--etag"];
        let resolved = clinic.run(&[&resolve[..], &[etag.trim_matches('"')]].concat()).ends(0).json();
        assert_eq!((&resolved["status"], &resolved["current"]), (&json!("resolved"), &json!("midwife")));

        clinic.run(&["conflicts", "list"]).ends(0).says("no conflicts");
        clinic.run(&["conflicts", "list", "--all"]).ends(0).says(&ana).says(&bob);
        clinic.run(&["conflicts", "show", "nothing/../x"]).ends(1).complains("no such conflict");
        drop(node);
        let stored = clinic.records(Kind::Person);
        let professions: Vec<_> = stored.iter().map(|record| record.get_str("profession").unwrap()).collect();
        assert_eq!(professions, ["nurse\u{1b}[2J", "midwife"]);
    }
}

/// ANA and BOB with a page each, who are somebody else at the centre, with a page each.
fn make_holds(clinic: &Clinic) -> [String; 2] {
    clinic.write(|tx| {
        let actor = Actor::Operator(0);
        for id in ["ANA", "BOB"] {
            let key = RecordKey::new(Kind::Person, id);
            let person = |name: &str, note: &str| doc! {"_id": id, "name": name, "note": note, "active": true, "roles": ["end_user"]};
            let (local, central) = (person("Ana", "nurse\u{1b}[2J"), person("Beatriz", "physician"));
            tx.edit(&key, Some(&local), &actor)?;
            let page = |id: String| (RecordKey::new(Kind::Page, id.as_str()), doc! {"_id": id, "book": key.id.as_str()});
            let (own, theirs) = (page(format!("own-{id}")), page(format!("theirs-{id}")));
            tx.edit(&own.0, Some(&own.1), &actor)?;
            let hold = Hold {
                account: id.to_owned(),
                conflict: format!("hold-{id}"),
                local: id.to_owned(),
                remote: id.to_owned(),
                why: HoldReason::Created,
                gone: None,
                since_ms: 0,
            };
            tx.put_hold(&hold)?;
            tx.put_held(&key, id, &central)?;
            tx.put_held(&theirs.0, id, &theirs.1)?;
            tx.open_conflict(Conflict::about_identity(&hold, &local, &central, String::new()))?;
        }
        // And an account that two records have.
        for id in ["TWIN", "twin"] {
            tx.edit(&RecordKey::new(Kind::Person, id), Some(&doc! {"_id": id, "roles": ["end_user"]}), &actor)?;
        }
        Ok(())
    });
    ["hold-ANA".to_owned(), "hold-BOB".to_owned()]
}

#[test]
fn people_who_may_be_two_are_listed_shown_and_decided() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        let [ana, bob] = make_holds(&clinic);
        let node = is_running.then(|| clinic.serve(&[]));
        let listed = clinic.run(&["conflicts", "list"]).ends(0);
        listed.says(&ana).says("people/BOB").says("(another person?)");
        listed.says("duplicate:TWIN").says("people/TWIN").says("(two records)");
        let shown = clinic.run(&["conflicts", "show", &ana]).ends(0);
        shown.says("is the person of this node the one at the centre?").says("both sides made a person");
        shown.says("\"name\":\"Ana\"").says("\"name\":\"Beatriz\"").says("nurse\\u001b[2J");
        shown.says("records that go along  1").says("waiting records        1");
        assert!(!shown.out.contains('\u{1b}'));
        clinic.run(&["conflicts", "show", "duplicate:TWIN"]).ends(0).says("\"_id\":\"twin\"");

        clinic.run(&["conflicts", "resolve", &ana, "--take", "local"]).ends(1).complains("decide");
        clinic.run(&["conflicts", "resolve", &ana, "--new-id", "BOB"]).ends(1).complains("exists already");
        let stale = clinic.run(&["conflicts", "resolve", &ana, "--same", "--etag", "0123"]).ends(3);
        stale.complains("changed meanwhile").complains("--etag");
        clinic.run(&["conflicts", "resolve", &ana, "--same"]).ends(0).says("resolved: people/ANA");
        clinic.run(&["conflicts", "resolve", &ana, "--same"]).ends(3).complains("resolved already");
        let etag = clinic.run(&["conflicts", "show", &bob, "--json"]).ends(0).json()["etag"].clone();
        let etag = etag.as_str().unwrap().trim_matches('"').to_owned();
        let moved = clinic.run(&["conflicts", "resolve", &bob, "--new-id", "new01", "--etag", &etag]).ends(0);
        moved.says("resolved: people/BOB is NEW01 now");
        clinic
            .run(&["conflicts", "resolve", "duplicate:TWIN", "--same"])
            .ends(1)
            .complains("correct or delete");

        let left = clinic.run(&["conflicts", "list", "--json"]).ends(0).json();
        let left: Vec<_> = left.as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
        assert_eq!(left, ["value", "value", "duplicate"], "what ANA's two records differ in");
        clinic.run(&["conflicts", "list", "--all"]).ends(0).says(&ana).says(&bob);
        clinic.run(&["conflicts", "show", &bob]).ends(0).says("new account  NEW01").says("new_id");
        drop(node);
        let people = clinic.records(Kind::Person);
        let names: Vec<_> =
            people.iter().filter_map(|p| Some((p.get_str("_id").ok()?, p.get_str("name").ok()?))).collect();
        assert_eq!(names, [("ANA", "Beatriz"), ("BOB", "Beatriz"), ("NEW01", "Ana")]);
        let pages = clinic.records(Kind::Page);
        let books: Vec<_> =
            pages.iter().map(|p| (p.get_str("_id").unwrap(), p.get_str("book").unwrap())).collect();
        assert_eq!(
            books,
            [("own-ANA", "ANA"), ("own-BOB", "NEW01"), ("theirs-ANA", "ANA"), ("theirs-BOB", "BOB")]
        );
    }
}

#[test]
fn refused_records_are_listed_and_tried_again() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        clinic.write(|tx| {
            let key = RecordKey::new(Kind::Page, "page/1");
            tx.edit(&key, Some(&doc! {"_id": "page/1", "book": "ANA"}), &Actor::Operator(0))?;
            let letter =
                DeadLetter { key, direction: "push", code: 121, reason: "not valid\u{7}".into(), at_ms: 0 };
            tx.put_dead(&letter)
        });
        let node = is_running.then(|| clinic.serve(&[]));
        clinic.run(&["dead", "list"]).ends(0).says("pols:page/1").says("push").says("not valid\\u{7}");
        assert_eq!(clinic.run(&["dead", "list", "--json"]).ends(0).json()[0]["code"], 121);
        clinic.run(&["dead", "retry", "pols:page/1"]).ends(0);
        clinic.run(&["dead", "retry", "pols:page/1"]).ends(1).complains("no such refused record");
        clinic.run(&["dead", "list"]).ends(0).says("no refused records");
        drop(node);
    }
}

#[test]
fn emergencies_are_listed_until_they_are_reviewed() {
    const READER: &str = "ESGNU777ORG:gnusolidario";
    let clinic = Clinic::new();
    let roles = clinic.path("roles.cfg");
    let nurse = r#"[{"role": "end_user", "permissions": {"GET": ["person", "sync"], "emergency": true}}]"#;
    fs::write(&roles, nurse).unwrap();
    let clinic = clinic.with("ACCOUNTS__ROLES_FILE", roles.to_str().unwrap());
    clinic.run(&["check"]).ends(0).says("does nothing until `emergency_access = true`");
    let clinic = clinic.with("ACCOUNTS__EMERGENCY_ACCESS", "true");
    assert!(!clinic.run(&["check"]).ends(0).out.contains("warning: access rules"));
    let node = clinic.serve(&["--demo"]);
    clinic.run(&["emergency", "list"]).ends(0).says("no emergency waits for a review");
    assert_eq!(node.request("GET", "/people/ITAPYT999HON", READER, "").0, 403);
    let reason = "X-Emergency-Reason: unconscious, \u{1f198} allergies?";
    let (status, said) = node.get_with("/people/ITAPYT999HON", READER, reason);
    assert!(status == 200 && said.contains("Cordara"), "{status} {said}");
    assert_eq!(node.request("GET", "/people/ITAPYT999HON", READER, "").0, 200);
    let listed = clinic.run(&["emergency", "list"]).ends(0);
    listed.says("ESGNU777ORG  ITAPYT999HON").says("  open   unconscious, \u{1f198} allergies?");
    clinic.run(&["sync", "status"]).ends(0).says("emergencies to review  1: thalamus-edge emergency list");
    let shown = clinic.run(&["emergency", "list", "--json"]).ends(0).json();
    let id = shown[0]["id"].to_string();
    clinic.run(&["emergency", "review", &id]).ends(3).complains("still open");
    let log = node.stop();
    assert!(log.contains(&format!("emergency={id}")), "{log}");
    assert!(!log.contains("unconscious") && !log.contains("ITAPYT999HON"), "{log}");
    // Over with the process, whether another one runs or not.
    clinic.run(&["emergency", "list"]).ends(0).says("  over   unconscious");
    let node = clinic.serve(&[]);
    assert_eq!(node.request("GET", "/people/ITAPYT999HON", READER, "").0, 403);
    clinic.run(&["emergency", "review", &id]).ends(0).says("reviewed");
    clinic.run(&["emergency", "review", &id]).ends(1).complains("no such emergency");
    clinic.run(&["emergency", "list"]).ends(0).says("no emergency waits for a review");
    clinic.run(&["emergency", "review", "x"]).ends(2);
    node.stop();
    assert!(!clinic.run(&["sync", "status"]).ends(0).out.contains("emergencies"));
}

// --------------------------------------------------------------------------------- who reaches the node

#[test]
fn commands_about_a_store_that_is_not_there_make_none() {
    let clinic = Clinic::new();
    for args in [
        &["sync", "status"][..],
        &["user", "list"],
        &["conflicts", "list"],
        &["dead", "list"],
        &["export", "out"],
    ] {
        clinic.run(args).ends(1).complains("there is no store in").complains("data");
    }
    assert!(!clinic.data().exists() && !clinic.path("out").exists());
}

#[test]
fn a_store_that_somebody_holds_without_answering_is_said_to_be_held() {
    let clinic = Clinic::new();
    let store = clinic.open_store();
    clinic.run(&["sync", "status"]).ends(1).complains("in use by another").complains("control.sock");
    drop(store);
    // What a killed node leaves behind is in nobody's way.
    fs::write(control_socket(&clinic.data()), "").unwrap();
    clinic.run(&["sync", "status"]).ends(0);
}

#[test]
fn the_control_socket_is_for_the_nodes_own_user_and_root() {
    let clinic = Clinic::new();
    let node = clinic.serve(&[]);
    let socket = control_socket(&clinic.data());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(clinic.data()).unwrap().permissions().mode() & 0o777, 0o750);
    assert_eq!(fs::metadata(store_file(&clinic.data())).unwrap().permissions().mode() & 0o777, 0o600);
    clinic
        .run_as_other_user(&["user", "list"])
        .ends(1)
        .complains("permission denied")
        .complains("as root or as the user");
    node.stop();
    assert!(!socket.exists(), "the socket goes with the node");
}

#[test]
fn commands_wait_for_a_node_that_is_starting_and_for_each_other() {
    let clinic = Clinic::new();
    clinic.make_store();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| clinic.run(&["user", "list"]))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for ran in outcomes {
        ran.ends(0);
    }
}

// ------------------------------------------------------------------------------------------------ serve

#[test]
fn demo_records_come_once_and_not_to_a_real_centre() {
    let clinic = Clinic::new();
    let far = clinic.with("CENTRAL__URI", "mongodb://hub.example.org/");
    far.run(&["serve", "--demo"]).ends(2).complains("--demo").complains("central.uri");
    assert!(!clinic.data().exists());
    let near = clinic.with("CENTRAL__URI", "mongodb://127.0.0.1:1/");
    let node = near.serve(&["--demo"]);
    assert!(node.log().contains("demo records added"), "{}", node.log());
    assert!(node.log().contains("their passwords are public"), "{}", node.log());
    node.stop();
    let before = clinic.records(Kind::Person);
    assert_eq!(before.len(), 5);
    let node = clinic.serve(&["--demo"]);
    assert!(node.log().contains("left as it is"), "{}", node.log());
    assert_eq!(node.request("GET", "/people/ESGNU777ORG", PROFESSIONAL, "").0, 200);
    node.stop();
    assert_eq!(clinic.records(Kind::Person), before);
    // Also without --demo, as long as somebody can log in with what everybody knows.
    let said = "ARGBUE111FAV came with the demo and everybody knows them";
    clinic.run(&["check"]).ends(0).says("warning: the passwords of ").says(said);
    let node = clinic.serve(&[]);
    assert!(node.log().contains(said), "{}", node.log());
    node.stop();
    for account in ["ITPYT999HON", "ESGNU777ORG", "ITAPYT999HON", "ESPGNU777ORG"] {
        clinic.run(&["user", "disable", account]).ends(0);
    }
    clinic
        .run_with(&["user", "passwd", "ARGBUE111FAV", "--password-stdin"], "a good long password\n")
        .ends(0);
    assert!(!clinic.run(&["check"]).ends(0).out.contains("came with the demo"));
    let node = clinic.serve(&[]);
    assert!(!node.log().contains("came with the demo"), "{}", node.log());
}

/// Nobody beyond this machine gets to a login that everybody knows, unless somebody said where to listen.
#[test]
fn public_passwords_stay_on_this_machine() {
    let clinic = Clinic::new();
    clinic.serve(&["--demo"]).stop();
    let config = clinic.path("config.toml");
    let text = format!("data_dir = {:?}\nserver.tls = false\naccounts.bcrypt_cost = 4\n", clinic.data());
    fs::write(&config, text).unwrap();
    // The port of the default may be taken here; then no more can be seen than that.
    let Ok(free) = TcpListener::bind("0.0.0.0:8443") else { return };
    drop(free);
    let node = clinic.without_settings().serve(&["--config", config.to_str().unwrap()]);
    assert!(node.log().contains("listening on http://127.0.0.1:8443"), "{}", node.log());
    assert!(node.log().contains("listening on 127.0.0.1:8443 only"), "{}", node.log());
}

/// Two of the demo's people have the names of two others: who follows the README meets each name once.
#[test]
fn the_tour_meets_one_patient_of_the_demo() {
    let readme = include_str!("../README.md");
    for known in ["ESPGNU777ORG", "ITPYT999HON"] {
        assert!(readme.contains(known), "{known}");
    }
    for other in ["ESGNU777ORG", "ITAPYT999HON", "ARGBUE111FAV"] {
        assert!(!readme.contains(other), "{other}");
    }
}

/// Technicians type their names as they like, as everybody else does.
#[test]
fn a_technicians_name_is_the_same_in_any_spelling() {
    let clinic = Clinic::new();
    let add = |name: &str, password: &str| {
        clinic.run_with(&["user", "add", name, "--local", "--role", "root", "--password-stdin"], password)
    };
    add("Admin", "a good password\n").ends(0).says("admin@local logs in here");
    add("ADMIN@Local", "another good password\n").ends(0).says("admin@local");
    let listed = clinic.run(&["user", "list", "--json"]).ends(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    for name in ["", " ", "@local"] {
        add(name, "a good password\n").ends(2).complains("needs a name");
    }
    let node = clinic.serve(&[]);
    for name in ["admin@local", "Admin@local", "ADMIN@LOCAL", "admin@Local"] {
        let login = format!("{name}:another good password");
        assert_eq!(node.request("GET", "/users", &login, "").0, 200, "{name}");
        assert_eq!(node.request("GET", &format!("/password/{name}"), &login, "").0, 200, "{name}");
    }
    clinic.run(&["user", "disable", "ADMIN@local"]).ends(0);
    assert_eq!(node.request("GET", "/users", "admin@local:another good password", "").0, 401);
    node.stop();
    // A store of an earlier version may hold capitals.
    clinic.write(|tx| {
        let account = doc! {"roles": ["root"], "active": true};
        tx.set_local_account("Head", Some(&account), &Actor::Centre)
    });
    clinic.run_with(&["user", "passwd", "head@local", "--password-stdin"], "one good password\n").ends(0);
    let node = clinic.serve(&[]);
    for name in ["Head@local", "head@local"] {
        assert_eq!(node.request("GET", "/users", &format!("{name}:one good password"), "").0, 200, "{name}");
    }
}

#[test]
fn a_second_node_on_the_same_data_is_told_so() {
    let clinic = Clinic::new();
    let node = clinic.serve(&[]);
    clinic.run(&["serve"]).ends(1).complains("store.redb").complains("in use by another thalamus-edge");
    // And the first one is still there for commands.
    clinic.run(&["sync", "status"]).ends(0);
    node.stop();
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let clinic = Clinic::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    clinic.run(&["serve", "--listen", &address]).ends(2).complains(&format!("cannot listen on {address}"));
    assert!(!control_socket(&clinic.data()).exists());

    let file = clinic.path("file");
    fs::write(&file, "").unwrap();
    let astray = clinic.with("DATA_DIR", file.join("data").to_str().unwrap());
    astray.run(&["serve"]).ends(2).complains("file/data: ");

    let certificate = clinic.with("SERVER__TLS", "true").with("SERVER__CERTIFICATE", "/absent.pem");
    certificate.with("SERVER__KEY", "/absent.pem").run(&["serve"]).ends(2).complains("/absent.pem");
    assert!(!control_socket(&clinic.data()).exists());
    drop(taken);
    clinic.serve(&["--listen", &address]).stop();
}

#[test]
fn plain_http_beyond_this_machine_is_warned_of() {
    let clinic = Clinic::new();
    let near = clinic.serve(&[]);
    assert!(!near.log().contains("plain HTTP"), "{}", near.log());
    near.stop();
    assert!(!clinic.run(&["check"]).ends(0).out.contains("plain HTTP"));
    clinic.with("SERVER__LISTEN", "0.0.0.0:0").run(&["check"]).ends(0).says("warning: plain HTTP");
    let far = clinic.serve(&["--listen", "0.0.0.0:0"]);
    assert!(far.log().contains("plain HTTP"), "{}", far.log());
    assert!(!far.log().contains('\u{1b}'), "no colours into a file");
}

/// A browser that was given the address without its scheme is told the right one.
#[test]
fn plain_http_on_the_port_of_https_is_answered_with_the_right_address() {
    let node = Clinic::new().with("SERVER__TLS", "true").serve(&[]);
    let port = node.port();
    let (status, body) = node.request("GET", "/people?q=x", "", "");
    assert_eq!(
        (status, body.as_str()),
        (
            400,
            format!("This port speaks HTTPS only. The right address is https://clinic:{port}/people?q=x\n")
                .as_str()
        )
    );
    let (status, body) = node.get_with("/", "", "Accept: text/html");
    assert!(status == 400 && body.contains(&format!("<a href=\"https://clinic:{port}/")), "{body}");
    // With a body that nobody reads, and half of a head.
    assert_eq!(node.request("POST", "/people/X", "", &"x".repeat(100_000)).0, 400);
    let mut half = node.connect().unwrap();
    half.write_all(b"GE").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // Whoever speaks TLS is served all the while, and silence keeps nobody out.
    let _silent: Vec<_> = (0..20).map(|_| node.connect().unwrap()).collect();
    let url = format!("https://127.0.0.1:{}/healthz", node.port());
    let served = std::process::Command::new("python3")
        .args(["-c", "import ssl,sys,urllib.request as u; print(u.urlopen(sys.argv[1], context=ssl._create_unverified_context()).read())", &url])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&served.stdout).contains("ok"), "{served:?}");
    node.stop();
}

#[test]
fn the_log_may_be_json() {
    let clinic = Clinic::new();
    let ran = clinic.serve_with_variable("THALAMUS_EDGE_LOG_FORMAT", "json");
    let log = ran.stop();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().any(|line| line["fields"]["message"] == "stopped"), "{log}");
}

#[test]
fn sigterm_lets_requests_in_flight_end() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    let body = r#"{"name": "Juana", "password": "a good long one"}"#;
    let mut slow = node.begin("POST", "/people/ARGJUN100AAA", PROFESSIONAL, body.len());
    slow.send(&body[..10]);
    // The request has been read up to here, by now.
    std::thread::sleep(Duration::from_millis(500));
    node.signal(Signal::TERM);
    node.wait_for_log("stopping");
    std::thread::sleep(Duration::from_millis(300));
    assert!(node.connect().is_err(), "no new connections");
    slow.send(&body[10..]);
    assert_eq!(slow.finish().0, 201);
    let log = node.ended(0);
    assert!(log.contains("stopped"), "{log}");
    assert!(
        clinic.records(Kind::Person).iter().any(|person| person.get_str("_id").unwrap() == "ARGJUN100AAA")
    );
}

#[test]
fn sigint_stops_too() {
    let clinic = Clinic::new();
    let node = clinic.serve(&[]);
    node.signal(Signal::INT);
    node.ended(0);
}

#[test]
fn sighup_reloads_the_access_rules_unless_they_are_wrong() {
    let clinic = Clinic::new();
    let roles = clinic.path("roles.cfg");
    let allow = |names: &str| {
        let rules = format!(
            r#"[{{"role": "health_professional", "permissions": {{"GET": [{names}], "global": true}}}}]"#
        );
        fs::write(&roles, rules).unwrap();
    };
    allow(r#""person""#);
    let clinic = clinic.with("ACCOUNTS__ROLES_FILE", roles.to_str().unwrap());
    let node = clinic.serve(&["--demo"]);
    let read = || node.request("GET", "/people/ESGNU777ORG", PROFESSIONAL, "").0;
    assert_eq!(read(), 200);

    allow("");
    assert_eq!(read(), 200, "not before the signal");
    node.signal(Signal::HUP);
    node.wait_for_log("access rules reloaded");
    assert_eq!(read(), 403);

    allow(r#""person""#);
    node.signal(Signal::HUP);
    node.wait_until(|| read() == 200);
    fs::write(&roles, "[{").unwrap();
    node.signal(Signal::HUP);
    node.wait_for_log("were not reloaded");
    assert_eq!(read(), 200, "the old rules stay in force");
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    for number in 0..20 {
        let path = format!("/people/ARGTST{number:03}AAA");
        assert_eq!(node.request("POST", &path, PROFESSIONAL, r#"{"name": "Test"}"#).0, 201);
    }
    node.signal(Signal::KILL);
    node.gone();
    let node = clinic.serve(&[]);
    for number in 0..20 {
        let path = format!("/people/ARGTST{number:03}AAA");
        assert_eq!(node.request("GET", &path, PROFESSIONAL, "").0, 200, "{path}");
    }
    clinic.run(&["user", "list"]).ends(0);
}

// ------------------------------------------------------------------------------------ import and export

#[test]
fn records_are_imported_as_generators_and_mongoexport_write_them() {
    let clinic = Clinic::new();
    let people = concat!(
        r#"{"id": "ARGGEN001AAA", "name": "Ana", "roles": ["end_user"], "active": true}"#,
        "\n",
        r#"{"_id": "arggen002aaa", "name": "Bo", "dob": {"$date": "1985-10-04T13:05:00Z"}, "roles": ["root"],"#,
        r#" "password": "$2b$12$Y9rX7PoTHRXhTO1H78Tan.8mVmyayGAUIveiYxu2Qeo0ZDRvJQ8/2"}"#,
        "\n\n",
    );
    let pols = r#"[{"_id": "p1", "book": "ARGGEN001AAA", "n": {"$numberLong": "5"}},
                   {"_id": "p2", "book": "ARGGEN001AAA"}]"#;
    fs::write(clinic.path("people.jsonl"), people).unwrap();
    fs::write(clinic.path("pols.json"), pols).unwrap();
    let ran = clinic.run(&["import", "people.jsonl", "pols.json"]).ends(0);
    ran.says("people.jsonl  2");
    assert!(!ran.err.contains("spell"), "{}", ran.err);
    ran.complains("note: 1 people have roles that count only where they are granted (root)")
        .complains("user add ID");

    let stored = clinic.records(Kind::Person);
    assert_eq!(stored[0], doc! {"_id": "ARGGEN001AAA", "name": "Ana", "roles": ["end_user"], "active": true});
    assert_eq!(stored[1].get_str("_id").unwrap(), "arggen002aaa");
    assert_eq!(stored[1].get_datetime("dob").unwrap().timestamp_millis(), 497_279_100_000);
    assert!(stored[1].get_str("password").unwrap().starts_with("$2b$12$Y9rX7"));
    assert_eq!(clinic.records(Kind::Page)[0].get_i64("n").unwrap(), 5);
    let listed = clinic.run(&["user", "list", "--json"]).ends(0).json();
    assert_eq!((&listed[0]["roles"], &listed[0]["not_honoured"]), (&json!([]), &json!(["root"])));

    // Over several lines, and with a number where text belongs.
    let pretty =
        "{\n\t\"_id\": \"p3\",\n\t\"book\": \"ARGGEN001AAA\",\n\t\"n\": {\n\t\t\"$numberLong\": 7\n\t}\n}\n";
    let other = clinic.path("pretty");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("pols.json"), pretty.to_owned() + &pretty.replace("p3", "p4")).unwrap();
    clinic.run(&["import", "pretty/pols.json"]).ends(0).says("2");
    assert_eq!(clinic.records(Kind::Page)[2].get_i64("n").unwrap(), 7);
    fs::remove_dir_all(&other).unwrap();

    // The same again changes nothing; other content is left alone until it is to be replaced.
    let again = clinic.run(&["import", ".", "--json"]).ends(0).json();
    assert_eq!((&again["files"][0]["equal"], &again["files"][1]["equal"]), (&json!(2), &json!(2)));
    fs::write(clinic.path("people.jsonl"), people.replace("\"Bo\"", "\"Bob\"")).unwrap();
    let kept = clinic.run(&["import", "people.jsonl"]).ends(1);
    kept.complains("people.jsonl line 2 column 1: arggen002aaa is stored with other content")
        .complains("--replace");
    assert_eq!(clinic.records(Kind::Person)[1].get_str("name").unwrap(), "Bo");
    clinic.run(&["import", "people.jsonl", "--replace"]).ends(0);
    assert_eq!(clinic.records(Kind::Person)[1].get_str("name").unwrap(), "Bob");
}

#[test]
fn nobody_is_imported_into_the_account_of_another() {
    let clinic = Clinic::new();
    let carl =
        r#"{"_id": "acca01", "name": "Carl", "lastname": "Gamma", "dob": "1970-03-03", "gender": "m"}"#;
    let anna =
        r#"{"_id": "ACCA01", "name": "Anna", "lastname": "Alpha", "dob": "1990-01-01", "gender": "f"}"#;
    fs::create_dir(clinic.path("first")).unwrap();
    fs::write(clinic.path("first/people.jsonl"), anna).unwrap();
    fs::write(clinic.path("first/pols.jsonl"), r#"{"_id": "a1", "book": "ACCA01"}"#).unwrap();
    clinic.run(&["import", "first"]).ends(0);
    fs::create_dir(clinic.path("second")).unwrap();
    fs::write(clinic.path("second/people.jsonl"), carl).unwrap();
    fs::write(clinic.path("second/encounter.jsonl"), r#"{"_id": "c1", "person": "ACCA01"}"#).unwrap();
    fs::write(clinic.path("second/pols.jsonl"), r#"{"_id": "c2", "book": "acca01"}"#).unwrap();
    for args in [&["import", "second"][..], &["import", "second", "--replace"]] {
        let ran = clinic.run(args).ends(1);
        ran.complains("ACCA01 is the account of somebody else here");
        ran.complains("c1 is of a person who was not taken").complains("c2 is of a person who was not taken");
        assert_eq!(clinic.records(Kind::Person)[0].get_str("name").unwrap(), "Anna");
        assert_eq!((clinic.records(Kind::Encounter).len(), clinic.records(Kind::Page).len()), (0, 1));
    }
    // Somebody who was typed anew is who they were.
    fs::write(clinic.path("second/people.jsonl"), anna.replace("Anna", "ÁNNA")).unwrap();
    clinic.run(&["import", "second", "--replace"]).ends(0);
    assert_eq!(clinic.records(Kind::Encounter).len(), 1);
}

#[test]
fn a_bad_document_does_not_keep_the_others_out() {
    let clinic = Clinic::new();
    let mut lines: Vec<String> =
        (0..1203).map(|n| format!(r#"{{"_id": "E{n}", "person": "ANA"}}"#)).collect();
    lines[600] = r#"{"_id": "E600", "person": }"#.to_owned();
    lines[700] = r#"{"_id": 700, "person": "ANA"}"#.to_owned();
    fs::write(clinic.path("encounter.ndjson"), lines.join("\n")).unwrap();
    let ran = clinic.run(&["import", "encounter.ndjson", "--json"]).ends(1);
    ran.complains("encounter.ndjson line 601 column 27: not JSON")
        .complains("line 701 column 1: _id: must be text");
    let file = ran.json()["files"][0].clone();
    assert_eq!((&file["added"], &file["refused"]), (&json!(1201), &json!(2)));
    assert_eq!(clinic.records(Kind::Encounter).len(), 1201);
}

#[test]
fn names_of_collections_at_the_centre_are_understood() {
    let clinic = Clinic::new();
    let clinic = clinic.with("CENTRAL__COLLECTIONS", "{ people = \"personas\" }");
    fs::write(clinic.path("personas.jsonl"), r#"{"_id": "ANA"}"#).unwrap();
    fs::write(clinic.path("edge_nodes.json"), r#"{"_id": "x"}"#).unwrap();
    let ran = clinic.run(&["import", "."]).ends(1);
    ran.complains("edge_nodes.json: not a collection of this node").complains("1 files were left out");
    assert_eq!(clinic.records(Kind::Person).len(), 1);
    clinic.run(&["export", "out"]).ends(0).says("personas.jsonl           1");
}

#[test]
fn files_wait_until_the_node_is_stopped() {
    let clinic = Clinic::new();
    fs::write(clinic.path("people.jsonl"), r#"{"_id": "ANA"}"#).unwrap();
    let node = clinic.serve(&[]);
    for args in [&["import", "people.jsonl"][..], &["export", "out"]] {
        clinic.run(args).ends(3).complains("in use by another thalamus-edge: stop it first");
    }
    assert!(!clinic.path("out").exists());
    node.stop();
    assert!(clinic.records(Kind::Person).is_empty());
}

#[test]
fn an_export_gives_every_byte_back() {
    let clinic = Clinic::new();
    clinic.serve(&["--demo"]).stop();
    clinic.write(|tx| {
        let regex = bson::Regex { pattern: bson::cstr!("a/\"b").into(), options: bson::cstr!("im").into() };
        let odd = doc! {
            "z": 1_i32, "_id": "E1", "a": 1_i64, "person": "ESPGNU777ORG", "double": 1.0, "tiny": 5e-324, "minus": -0.0,
            "infinite": f64::NEG_INFINITY, "date": bson::DateTime::from_millis(-1), "far": bson::DateTime::MAX,
            "id": bson::oid::ObjectId::from_bytes([7; 12]), "null": Bson::Null, "nested": {"b": [1_i32, {"c": [[]]}], "a": {}},
            "bytes": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![0; 16] },
            "stamp": bson::Timestamp { time: 1, increment: 2 }, "regex": regex,
            "decimal": "1.10".parse::<bson::Decimal128>().unwrap(), "code": Bson::JavaScriptCode("x()".into()),
            "min": Bson::MinKey, "max": Bson::MaxKey, "undefined": Bson::Undefined, "symbol": Bson::Symbol("s".into()),
            "text": "\u{200b}\0\u{1f600}\"\\\n", "": "empty", "dotted.key": 1_i32, "$price": 2_i32,
        };
        tx.edit(&RecordKey::new(Kind::Encounter, "E1"), Some(&odd), &Actor::Operator(0))?;
        for number in 0..1100 {
            let id = format!("M{number:05}");
            let measurement = doc! {"_id": &id, "person": "ESPGNU777ORG", "value": f64::from(number) / 7.0};
            tx.edit(&RecordKey::new(Kind::Measurement, id), Some(&measurement), &Actor::Operator(0))?;
        }
        Ok(())
    });
    let ran = clinic.run(&["export", "out"]).ends(0);
    ran.says("people.jsonl             5").says("measurements.jsonl       1100").complains("password hashes");
    let out = clinic.path("out");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&out).unwrap() {
        let entry = entry.unwrap();
        let mode = if entry.path().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, mode, "{:?}", entry.path());
    }
    clinic.run(&["export", "out"]).ends(1).complains("exists already");

    let fresh = Clinic::new();
    fresh.run(&["import", out.to_str().unwrap()]).ends(0);
    for kind in Kind::ALL {
        assert_eq!(fresh.raw_records(kind), clinic.raw_records(kind), "{kind:?}");
    }
    let node = fresh.serve(&[]);
    let picture = "/personal-documents/8789981f-4e31-48d5-8eb8-1774dac8b8f6/content";
    assert_eq!(node.request("GET", picture, PROFESSIONAL, "").0, 200, "uploaded bytes come along");
    // Being root is not a matter of files.
    assert_eq!(node.request("GET", "/people", ROOT, "").0, 403);
}

#[test]
fn an_export_says_what_cannot_come_back() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        let actor = Actor::Operator(0);
        // As a document these read like one value.
        let disguised = doc! {"_id": "E1", "d": {"$numberLong": "5"}};
        tx.edit(&RecordKey::new(Kind::Encounter, "E1"), Some(&disguised), &actor)?;
        let clear = doc! {"_id": "ANA", "password": "in clear"};
        tx.edit(&RecordKey::new(Kind::Person, "ANA"), Some(&clear), &actor)?;
        let document =
            doc! {"_id": "D1", "content": {"sha256": "0".repeat(64), "length": 5_i64, "type": "x/y"}};
        tx.edit(&RecordKey::new(Kind::PersonalDocument, "D1"), Some(&document), &actor).map(|_| ())
    });
    let ran = clinic.run(&["export", "out"]).ends(1);
    ran.complains("encounter/E1: ").complains("people/ANA: import refuses it: password");
    ran.complains("1 personal documents name uploaded bytes that are not on this node");
    assert!(!ran.err.contains("in clear\""));
}

#[test]
fn damaged_uploads_are_not_imported() {
    let clinic = Clinic::new();
    fs::create_dir_all(clinic.path("from/content")).unwrap();
    fs::write(clinic.path("from/people.jsonl"), r#"{"_id": "ANA"}"#).unwrap();
    fs::write(clinic.path("from/content").join("0".repeat(64)), "bytes").unwrap();
    clinic.run(&["import", "from"]).ends(1).complains("damaged").says("people.jsonl");
    assert_eq!(clinic.records(Kind::Person).len(), 1);
}

#[test]
fn a_node_after_an_import_serves_it() {
    let clinic = Clinic::new();
    fs::write(clinic.path("people.jsonl"), r#"{"_id": "ARGGEN001AAA", "name": "Ana", "lastname": "Betz"}"#)
        .unwrap();
    clinic.run(&["import", "people.jsonl"]).ends(0);
    let node: Node = clinic.serve(&[]);
    clinic
        .run_with(
            &["user", "add", "tech", "--local", "--role", "root", "--password-stdin"],
            "a good password\n",
        )
        .ends(0);
    let (status, body) = node.request("GET", "/people?q=betz", "tech@local:a good password", "");
    assert_eq!(status, 200);
    assert!(body.contains("ARGGEN001AAA"), "{body}");
}

// ------------------------------------------------------------------------------------- against a centre

mod mongo {
    use super::support::mongo::{MongoServer, unique_database};
    use super::*;

    /// A centre and clinics that know it.
    struct Federation {
        runtime: tokio::runtime::Runtime,
        server: MongoServer,
        database: String,
    }

    impl Federation {
        fn new() -> Federation {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let server = runtime.block_on(MongoServer::start());
            Federation { runtime, server, database: unique_database() }
        }

        fn uri(&self) -> String {
            let separator = if self.server.uri().contains('?') { "&" } else { "?" };
            format!("{}{separator}directConnection=true", self.server.uri())
        }

        fn clinic(&self) -> Clinic {
            self.join(&Clinic::new())
        }

        fn join(&self, clinic: &Clinic) -> Clinic {
            clinic.with("CENTRAL__URI", &self.uri()).with("CENTRAL__DATABASE", &self.database)
        }

        fn drop_collection(&self, name: &str) {
            self.runtime.block_on(async {
                let client = mongodb::Client::with_uri_str(self.uri()).await.unwrap();
                client.database(&self.database).collection::<bson::Document>(name).drop().await.unwrap();
            });
        }
    }

    #[test]
    fn records_travel_and_a_mass_delete_waits_for_a_person() {
        for is_running in IS_RUNNING {
            let federation = Federation::new();
            let (north, south) = (federation.clinic(), federation.clinic());
            let institutions: String =
                (0..30).map(|n| format!("{{\"_id\": \"I{n:02}\", \"n\": {n}}}\n")).collect();
            fs::write(north.path("institution.jsonl"), institutions).unwrap();
            north.run(&["import", "institution.jsonl"]).ends(0);
            south.make_store();
            let nodes = is_running.then(|| (north.serve(&[]), south.serve(&[])));

            north.run(&["sync", "status"]).ends(0).says("waiting to be sent  30, the oldest since ");
            north.run(&["sync", "now"]).ends(0).says("complete").says("30 pushed");
            let report = south.run(&["sync", "now", "--json"]).ends(0).json();
            assert_eq!((&report["outcome"], &report["pulled"]), (&json!("complete"), &json!(30)));

            federation.drop_collection("institution");
            south.run(&["sync", "now"]).ends(3).says("halted");
            assert_eq!(south.run(&["sync", "status", "--json"]).ends(0).json()["state"], "halted");
            south.run(&["sync", "resume", "--accept-deletes"]).ends(0);
            south.run(&["sync", "now"]).ends(0).says("30 deleted");
            drop(nodes);
            assert!(south.records(Kind::Institution).is_empty());
            assert_eq!(north.records(Kind::Institution).len(), 30);
        }
    }

    #[test]
    fn a_conflict_is_decided_where_it_was_found_and_everywhere() {
        let federation = Federation::new();
        let (alone, south) = (Clinic::new(), federation.clinic());
        alone.serve(&["--demo"]).stop();
        let north = federation.join(&alone);
        let north_node = north.serve(&[]);
        north.run(&["sync", "now"]).ends(0);
        south.make_store();
        south.run(&["sync", "now"]).ends(0);
        let south_node = south.serve(&[]);
        let edit = |node: &Node, profession: &str| {
            let body = json!({"profession": profession}).to_string();
            assert_eq!(node.request("PATCH", "/people/ESPGNU777ORG", PROFESSIONAL, &body).0, 200);
        };
        edit(&north_node, "physician");
        edit(&south_node, "nurse");
        north.run(&["sync", "now"]).ends(0);
        south.run(&["sync", "now"]).ends(0).says("1 conflicts");
        let conflicts = south.run(&["conflicts", "list", "--json"]).ends(0).json();
        let id = conflicts[0]["id"].as_str().unwrap();
        south.run(&["conflicts", "show", id]).ends(0).says("local           \"nurse\"").says("\"physician\"");
        south.run(&["conflicts", "resolve", id, "--take", "local"]).ends(0);
        south.run(&["sync", "now"]).ends(0);
        north.run(&["sync", "now"]).ends(0);
        for node in [&north_node, &south_node] {
            let (_, person) = node.request("GET", "/people/ESPGNU777ORG", PROFESSIONAL, "");
            assert!(person.contains("\"nurse\""), "{person}");
        }
        south.run(&["conflicts", "list"]).ends(0).says("no conflicts");
    }

    #[test]
    fn a_round_writes_to_the_database_that_the_connection_string_names() {
        let federation = Federation::new();
        let uri = federation.uri();
        let (address, options) = uri.split_once('?').unwrap();
        let database = format!("feddiff{}", federation.database);
        let uri = format!("{}/{database}?{options}", address.trim_end_matches('/'));
        let clinic = Clinic::new().with("CENTRAL__URI", &uri);
        let id = &federation.database;
        fs::write(clinic.path("institution.jsonl"), format!("{{\"_id\": \"{id}\"}}\n")).unwrap();
        clinic.run(&["import", "institution.jsonl"]).ends(0);
        clinic.run(&["sync", "now"]).ends(0).says("1 pushed");
        federation.runtime.block_on(async {
            let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
            for (name, expected) in [(database.as_str(), 1), ("federation", 0)] {
                let institutions = client.database(name).collection::<bson::Document>("institution");
                let count = institutions.count_documents(bson::doc! {"_id": id}).await.unwrap();
                assert_eq!(count, expected, "{name}");
            }
        });
        clinic.with("CENTRAL__DATABASE", "federation").run(&["sync", "now"]).ends(2).complains("feddiff");
    }
}
