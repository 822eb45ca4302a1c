//! `backup`, `restore` and `db`, as a technician uses them.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::*;

fn made_in(clinic: &Clinic) -> PathBuf {
    let ran = clinic.run(&["backup", "create", "--json"]).ends(0);
    ran.json()["file"].as_str().unwrap().into()
}

fn add_person(clinic: &Clinic, id: &'static str) {
    clinic.write(move |tx| {
        let actor = Actor::Local("tech".to_owned());
        tx.edit(&RecordKey::new(Kind::Person, id), Some(&doc! {"_id": id}), &actor).map(|_| ())
    });
}

fn people(clinic: &Clinic) -> Vec<String> {
    clinic.records(Kind::Person).iter().map(|person| person.get_str("_id").unwrap().to_owned()).collect()
}

#[test]
fn a_backup_is_made_with_and_without_a_node() {
    for is_running in IS_RUNNING {
        let clinic = Clinic::new();
        add_person(&clinic, "ANA");
        let node = is_running.then(|| clinic.serve(&[]));
        clinic.run(&["backup", "list"]).ends(0).says("there is no backup in").complains("not encrypted");
        let ran = clinic.run(&["backup", "create"]).ends(0);
        ran.says("clinic-00000001-").says("encrypted").complains("on the same disk as the store");
        let file = made_in(&clinic);
        clinic.run(&["backup", "list"]).ends(0).says("clinic-00000001-").says(file.to_str().unwrap());
        let listed = clinic.run(&["backup", "list", "--json"]).ends(0).json();
        assert_eq!(listed["backups"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&listed["backups"][1]["number"], &listed["backups"][1]["checksum"]),
            (&json!(2), &json!(true))
        );
        let file = file.to_str().unwrap();
        let ran = clinic.run(&["backup", "verify", file]).ends(0);
        ran.says("as it was written").says("the backup is whole").says("people: 1").says("\"clinic\"");
        if let Some(node) = node {
            let log = node.stop();
            assert!(log.contains("backups are not encrypted") && !log.contains("ANA"), "{log}");
        }
    }
    let nowhere = Clinic::new();
    nowhere.run(&["backup", "create"]).ends(1).complains("there is no store in");
}

#[test]
fn a_damaged_backup_is_called_so() {
    let clinic = Clinic::new();
    add_person(&clinic, "ANA");
    let file = made_in(&clinic);
    clinic.run(&["backup", "list"]).ends(0).says(" right");
    fs::write(&file, b"").unwrap();
    clinic.run(&["backup", "list"]).ends(1).says("WRONG: damaged");
    let listed = clinic.run(&["backup", "list", "--json"]).ends(1).json();
    assert_eq!(listed["backups"][0]["as_written"], false);
    clinic.run(&["doctor"]).ends(1).says("and it is damaged");
    let pair = clinic.run(&["backup", "keygen"]).ends(0).out;
    let secret = clinic.with("BACKUP__RECIPIENTS", &format!("[{:?}]", pair.split('"').nth(1).unwrap()));
    let file = made_in(&secret);
    let copy = clinic.path("copy.backup.age");
    fs::copy(&file, &copy).unwrap();
    clinic.run(&["backup", "verify", file.to_str().unwrap()]).ends(0).says("as it was written");
    clinic.run(&["backup", "verify", copy.to_str().unwrap()]).ends(2).complains("not verified");
    fs::write(clinic.path("keys"), pair).unwrap();
    let keys = clinic.path("keys");
    let args = ["backup", "verify", copy.to_str().unwrap(), "--identity", keys.to_str().unwrap()];
    clinic.run(&args).ends(0).says("the backup is whole");
}

#[test]
fn a_node_whose_backup_fails_says_why_and_goes_on() {
    let clinic = Clinic::new();
    fs::write(clinic.path("file"), "").unwrap();
    let astray = clinic.with("BACKUP__DIRECTORY", clinic.path("file/backups").to_str().unwrap());
    let node = astray.serve(&[]);
    let ran = astray.run(&["backup", "create"]).ends(1);
    ran.complains("file/backups: ");
    // The command and the node both know of it: it is said once.
    assert_eq!(ran.err.matches("file/backups").count(), 1, "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    astray.run(&["backup", "list"]).ends(1).complains("file/backups: ");
    clinic.run(&["sync", "status"]).ends(0);
    assert!(node.stop().contains("the backup failed"));
}

#[test]
fn the_configuration_takes_public_keys_only() {
    let clinic = Clinic::new();
    let pair = clinic.run(&["backup", "keygen"]).ends(0).out;
    assert!(!clinic.data().exists(), "the pair is kept nowhere");
    let secret = pair.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap();
    let public = pair.split('"').nth(1).unwrap();
    assert!(public.starts_with("age1"));
    let ran = clinic.with("BACKUP__RECIPIENTS", &format!("[\"{public}\"]")).run(&["check"]).ends(0);
    assert!(!ran.out.contains("not encrypted"), "{}", ran.out);
    clinic.run(&["check"]).ends(0).says("backups are not encrypted");
    clinic.with("BACKUP__SCHEDULE", "").run(&["check"]).ends(0).says("no backups are made by themselves");
    for (key, value, words) in [
        ("RECIPIENTS", "[\"age1notakey\"]".to_owned(), "which is not a public key"),
        ("RECIPIENTS", format!("[\"{secret}\"]"), "holds a secret key"),
        ("SCHEDULE", "\"at night\"".to_owned(), "is not a schedule"),
        ("KEEP", "0".to_owned(), "must lie between 1 and 1000"),
    ] {
        let name = format!("BACKUP__{key}");
        let ran = clinic.with(&name, &value).run(&["check"]).ends(2);
        ran.complains(&format!("THALAMUS_EDGE__BACKUP__{key}: `backup.")).complains(words);
        assert!(!ran.err.contains(secret), "{}", ran.err);
    }
}

#[test]
fn what_was_encrypted_comes_back_with_the_key_only() {
    let clinic = Clinic::new();
    let pair = clinic.run(&["backup", "keygen"]).ends(0).out;
    let (key, other) = (clinic.path("key.txt"), clinic.path("other.txt"));
    fs::write(&key, &pair).unwrap();
    fs::write(&other, clinic.run(&["backup", "keygen"]).ends(0).out).unwrap();
    let clinic = clinic.with("BACKUP__RECIPIENTS", &format!("[\"{}\"]", pair.split('"').nth(1).unwrap()));
    add_person(&clinic, "ANA");
    let file = made_in(&clinic);
    let (file, key, other) = (file.to_str().unwrap(), key.to_str().unwrap(), other.to_str().unwrap());
    clinic.run(&["backup", "verify", file]).ends(0).says("only with the key");
    clinic.run(&["backup", "verify", file, "--identity", key]).ends(0).says("the backup is whole");
    clinic.run(&["backup", "verify", file, "--identity", other]).ends(1).complains("to another key");
    clinic.run(&["backup", "verify", file, "--identity", file]).ends(1).complains(".backup.age");
    add_person(&clinic, "EVA");
    clinic.run(&["restore", file, "--yes"]).ends(2).complains("--identity");
    clinic.run(&["restore", file, "--yes", "--identity", other]).ends(1).complains("to another key");
    assert_eq!(people(&clinic), ["ANA", "EVA"]);
    clinic.run(&["restore", file, "--yes", "--identity", key]).ends(0).says("before-restore-1");
    assert_eq!(people(&clinic), ["ANA"]);
}

#[test]
fn a_restore_says_what_goes_back_and_asks() {
    let clinic = Clinic::new();
    let one = doc! {"password": "$2b$04$x", "roles": ["root"]};
    clinic.write(move |tx| tx.set_local_account("berta", Some(&one), &Actor::Operator(0)));
    add_person(&clinic, "ANA");
    let file = made_in(&clinic);
    let file = file.to_str().unwrap();
    add_person(&clinic, "EVA");
    clinic.write(|tx| tx.set_local_account("berta", None, &Actor::Operator(0)));

    let ran = clinic.run(&["restore", "--dry-run", file]).ends(0);
    ran.says("NOW").says("1 (berta)").says("nothing was changed").says("the backup is whole, made at 20");
    clinic.without_terminal(&["restore", file]).ends(3).complains("--yes was not given");
    let (code, seen) = clinic.at_terminal(&["restore", file], &["no"]);
    assert!(code == 3 && seen.contains("accounts, passwords and"), "{code} {seen}");
    clinic.run(&["restore", "--dry-run", "--yes", file]).ends(2);
    clinic.run(&["restore", clinic.path("absent").to_str().unwrap(), "--yes"]).ends(1).complains("absent: ");
    assert_eq!(people(&clinic), ["ANA", "EVA"]);

    let node = clinic.serve(&[]);
    clinic.run(&["restore", file, "--yes"]).ends(3).complains("stop it first");
    clinic.run(&["restore", file, "--dry-run"]).ends(0).says("a node is running");
    node.stop();
    let (code, seen) = clinic.at_terminal(&["restore", file], &["yes"]);
    assert!(code == 0 && seen.contains("before-restore-1"), "{code} {seen}");
    assert_eq!(people(&clinic), ["ANA"]);
    let store = fs::metadata(store_file(&clinic.data())).unwrap();
    assert_eq!(store.mode() & 0o777, 0o600);
    // The node starts on it, and the next backup has the next number.
    let node = clinic.serve(&[]);
    clinic.run(&["user", "list"]).ends(0).says("berta@local");
    assert!(made_in(&clinic).to_str().unwrap().contains("clinic-00000002-"));
    node.stop();
}

#[test]
fn a_new_box_takes_over_from_a_backup() {
    let old = Clinic::new();
    add_person(&old, "ANA");
    let file = made_in(&old);
    let new = Clinic::new();
    new.run(&["restore", file.to_str().unwrap(), "--dry-run"]).ends(0).says("there is no store yet");
    assert!(!new.data().exists());
    new.run(&["restore", file.to_str().unwrap(), "--yes"]).ends(0);
    assert_eq!(people(&new), ["ANA"]);
    new.serve(&[]).stop();
}

/// Whenever the power fails, the store is the old one or the new one, and the restore can be done again.
#[cfg(feature = "failpoints")]
#[test]
fn a_restore_that_is_killed_leaves_one_of_two_stores() {
    for (step, expected) in [
        ("restore.rebuilt", &["ANA", "EVA"][..]),
        ("restore.kept", &["ANA", "EVA"]),
        ("restore.swapped", &["ANA"]),
    ] {
        let clinic = Clinic::new();
        add_person(&clinic, "ANA");
        let file = made_in(&clinic);
        add_person(&clinic, "EVA");
        let args = ["restore", file.to_str().unwrap(), "--yes"];
        clinic.run_with_variable("FAILPOINTS", &format!("{step}=return"), &args).was_killed();
        assert_eq!(people(&clinic), expected, "{step}");
        clinic.run(&args).ends(0);
        assert_eq!(people(&clinic), ["ANA"], "{step}");
        clinic.run(&["db", "check"]).ends(0);
        let left = fs::read_dir(clinic.data()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_str().unwrap().ends_with("restoring")), "{step}");
    }
}

#[test]
fn the_store_is_checked_and_compacted_while_no_node_has_it() {
    let clinic = Clinic::new();
    for command in ["check", "compact"] {
        clinic.run(&["db", command]).ends(1).complains("there is no store in");
    }
    clinic.serve(&["--demo"]).stop();
    let node = clinic.serve(&[]);
    for command in ["check", "compact"] {
        clinic.run(&["db", command]).ends(3).complains("stop it first");
    }
    node.stop();
    clinic.run(&["db", "check"]).ends(0).says("the store is in order").says("people");
    let before = clinic.raw_records(Kind::Person);
    let sizes = clinic.run(&["db", "compact"]).ends(0).out;
    let numbers: Vec<u64> = sizes.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!((numbers.len(), numbers[1]), (2, fs::metadata(store_file(&clinic.data())).unwrap().len()));
    assert!(numbers[1] < numbers[0], "{sizes}");
    assert_eq!(clinic.raw_records(Kind::Person), before);
    assert_eq!(clinic.run(&["db", "check", "--json"]).ends(0).json()["complaints"], json!([]));

    // Rubble is called so, and left as it is.
    fs::write(store_file(&clinic.data()), vec![7; 100_000]).unwrap();
    clinic.run(&["db", "check"]).ends(1).complains("store.redb: ");
    assert_eq!(fs::read(store_file(&clinic.data())).unwrap(), vec![7; 100_000]);
}
