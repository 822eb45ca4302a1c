//! Bits that flip on the disk, as people see it.

use std::collections::BTreeSet;
use std::fs;

use bson::doc;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use thalamus_edge::app::store_file;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Conflict, DeadLetter, WaitReason, Waiting};

use super::cli_support::{Clinic, Node, ROOT};

/// Somebody of the demo, by a name that stands nowhere else.
const PERSON: &str = "/people/ESPGNU777ORG";

fn asked(node: &Node, method: &str, path: &str, body: &str) -> (u16, Value) {
    let (status, body) = node.request(method, path, ROOT, body);
    (status, serde_json::from_str(&body).unwrap_or_default())
}

pub(super) fn flip(clinic: &Clinic, text: &str) {
    let file = store_file(&clinic.data());
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<usize> = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, at)| *at == text.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    for place in places {
        // More than one bit: nothing can say what it was.
        bytes[place] ^= 6;
    }
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_flipped_bit_is_refused_named_and_not_backed_up() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    assert_eq!(asked(&node, "PATCH", PERSON, r#"{"blood": "A-negative"}"#).0, 200);
    node.stop();
    clinic.run(&["backup", "create"]).ends(0);
    clinic.run(&["db", "check"]).ends(0).says("the store is in order");
    flip(&clinic, "A-negative");
    let file = store_file(&clinic.data());
    let about =
        || (Sha256::digest(fs::read(&file).unwrap()), fs::metadata(&file).unwrap().modified().unwrap());
    let before = about();
    clinic
        .run(&["db", "check"])
        .ends(1)
        .says("damaged: docs people ESPGNU777ORG")
        .says("Nothing was changed");
    let said = clinic.run(&["db", "check", "--json"]).ends(1).json();
    assert_eq!(said["damaged"][0]["id"], "ESPGNU777ORG", "{said}");
    assert!(about() == before, "db check has written to the file");

    let node = clinic.serve(&[]);
    let (status, body) = asked(&node, "GET", PERSON, "");
    assert_eq!((status, body["code"].as_str()), (500, Some("damaged")), "{body}");
    assert!(!body.to_string().contains("Ana"), "{body}");
    for (method, sent) in [("PATCH", r#"{"name": "Eva"}"#), ("DELETE", "")] {
        let (status, body) = asked(&node, method, PERSON, sent);
        assert_eq!((status, body["code"].as_str()), (500, Some("damaged")), "{method} {body}");
    }
    let (status, body) = asked(&node, "GET", "/people", "");
    assert_eq!((status, body.as_array().map(Vec::is_empty)), (200, Some(false)), "{body}");
    assert!(!body.to_string().contains("ESPGNU777ORG"), "a list leaves it out");
    let (head, _) = node.begin("GET", "/people", ROOT, 0).head_and_body();
    assert!(head.to_lowercase().contains("\r\nx-damaged: 1\r\n"), "{head}");
    assert_eq!(node.request("GET", "/people/ITPYT999HON", ROOT, "").0, 200, "others are served");
    let (_, status) = asked(&node, "GET", "/sync/status", "");
    assert_eq!(
        (status["damaged"].as_u64(), status["damaged_rows"][0]["id"].as_str()),
        (Some(1), Some("ESPGNU777ORG"))
    );
    clinic.run(&["doctor"]).ends(1).says("people ESPGNU777ORG is damaged");
    clinic.run(&["backup", "create"]).ends(1).complains("is damaged");
    node.stop();
    clinic.run(&["export", clinic.path("out").to_str().unwrap()]).ends(1).complains("damaged");
    let backups = fs::read_dir(clinic.data().join("backups")).unwrap();
    let backups =
        backups.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "backup"));
    assert_eq!(backups.count(), 1, "the good one stays, and no other is made");
    // Where no node runs.
    clinic.run(&["doctor"]).ends(1).says("people ESPGNU777ORG is damaged");
    // The way out, with a node or without.
    clinic.run(&["db", "set-aside", "people", "ITPYT999HON"]).complains("No row of such a record is damaged");
    clinic.run(&["db", "set-aside", "people", "ESPGNU777ORG"]).ends(0).says("is not in the store any more");
    let kept = fs::read_to_string(clinic.data().join("damaged/people-1.jsonl")).unwrap();
    assert!(kept.contains("ESPGNU777ORG"), "{kept}");
    clinic.run(&["backup", "create"]).ends(0);
    clinic.run(&["db", "check"]).ends(0).says("the store is in order");
}

#[test]
fn a_single_wrong_bit_outside_of_records_is_put_right_when_the_node_starts() {
    let clinic = Clinic::new();
    clinic.serve(&["--demo"]).stop();
    let file = store_file(&clinic.data());
    let whole = fs::read(&file).unwrap();
    // Names of tables, and terms that people are found by; copies that earlier commits left behind are used by nobody.
    for text in ["by_owner", "cameron"] {
        let places = (0..whole.len() - text.len()).filter(|at| whole[*at..].starts_with(text.as_bytes()));
        let damaged = places.map(|place| {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let said = clinic.run(&["db", "check"]).out;
            assert_eq!(fs::read(&file).unwrap(), bytes, "db check has written to the file");
            (bytes, said)
        });
        let used: Vec<_> = damaged.filter(|(_, said)| !said.contains("the store is in order")).collect();
        let (bytes, said) = used.first().unwrap_or_else(|| panic!("no {text} is used"));
        assert!(said.contains("1 single bits of the file are wrong"), "{said}");
        fs::write(&file, bytes).unwrap();
        let node = clinic.serve(&[]);
        assert_eq!(asked(&node, "GET", PERSON, "").0, 200, "{text}");
        let (_, status) = asked(&node, "GET", "/sync/status", "");
        assert_eq!(status["bits_put_right"]["bits"], 1, "{text}: {status}");
        clinic.run(&["backup", "create"]).ends(0);
        clinic.run(&["doctor"]).says("1 wrong bits of the store's file were put right");
        node.stop();
        clinic.run(&["db", "check"]).ends(0).says("the store is in order");
    }
}

/// A row that is no record: nothing brings it back, and nothing but setting it aside lets backups be made.
#[test]
fn a_damaged_row_that_is_no_record_is_set_aside_as_doctor_says() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    let visit = r#"{"person": "ESPGNU777ORG", "what": "Q-nowhere-else"}"#;
    assert_eq!(asked(&node, "POST", "/encounters/visit-1", visit).0, 201);
    assert_eq!(asked(&node, "DELETE", "/encounters/visit-1", "").0, 204);
    node.stop();
    // The body in the trash is the only place where it still stands.
    flip(&clinic, "Q-nowhere-else");
    let node = clinic.serve(&[]);
    let said = clinic.run(&["doctor"]).ends(1).out;
    let commands: Vec<Vec<String>> = said
        .match_indices("thalamus-edge db set-aside --table ")
        .filter_map(|(at, _)| said[at..].split(['`', '\n']).next())
        .map(|command| command.split(' ').skip(1).collect::<Vec<_>>())
        .map(|words| words.iter().map(|word| word.trim_matches('\'').to_owned()).collect::<Vec<_>>())
        .map(|words| words.iter().take_while(|word| !word.starts_with('(')).cloned().collect())
        .collect();
    assert!(!commands.is_empty(), "{said}");
    clinic.run(&["backup", "create"]).ends(1).complains("is damaged");
    // It is named in the message of the round as well.
    for command in commands.into_iter().collect::<BTreeSet<_>>() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        clinic.run(&words).ends(0).says("not in the store any more");
    }
    clinic.run(&["backup", "create"]).ends(0);
    node.stop();
    clinic.run(&["db", "check"]).ends(0).says("the store is in order");
}

#[test]
fn lists_say_what_they_cannot_read() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    let visit = r#"{"person": "ESPGNU777ORG", "what": "Q-in-the-trash"}"#;
    assert_eq!(asked(&node, "POST", "/encounters/visit-1", visit).0, 201);
    assert_eq!(asked(&node, "DELETE", "/encounters/visit-1", "").0, 204);
    assert_eq!(asked(&node, "PATCH", PERSON, r#"{"blood": "Q-of-a-person"}"#).0, 200);
    node.stop();
    let of = |collection: Kind, id: &str| RecordKey::new(collection, id);
    clinic.write(move |tx| {
        tx.put_dead(&DeadLetter {
            key: of(Kind::Page, "p-1"),
            direction: "push",
            code: 121,
            reason: "Q-refused".to_owned(),
            at_ms: 0,
        })?;
        let person = of(Kind::Person, "ESPGNU777ORG");
        let about = doc! {"_id": "ESPGNU777ORG"};
        let author = "Q-author".to_owned();
        tx.open_conflict(Conflict::about_record("c-1".to_owned(), &person, &about, None, author, 0))?;
        let (account, why) = ("Q-WAITS-FOR".to_owned(), WaitReason::Unknown);
        tx.put_waiting(&Waiting { key: of(Kind::Page, "p-2"), account, why })?;
        tx.set_local_account("helper", Some(&doc! {"roles": ["Q-role"], "password": "x"}), &Actor::Node)
    });
    let lists = [
        (["trash", "list"], "Q-in-the-trash"),
        (["dead", "list"], "Q-refused"),
        (["conflicts", "list"], "Q-author"),
        (["sync", "waiting"], "Q-WAITS-FOR"),
        (["user", "list"], "Q-of-a-person"),
        (["user", "list"], "Q-role"),
    ];
    let whole = fs::read(store_file(&clinic.data())).unwrap();
    for (list, text) in lists {
        fs::write(store_file(&clinic.data()), &whole).unwrap();
        clinic.run(&list).ends(0);
        let with_json = [list[0], list[1], "--json"];
        let before = clinic.run(&with_json).ends(0).json();
        flip(&clinic, text);
        clinic.run(&list).ends(1).says("damaged and not listed");
        let ran = clinic.run(&with_json).ends(1);
        ran.complains("damaged and not listed");
        let (before, now) = (before.as_array().unwrap().len(), ran.json().as_array().unwrap().len());
        assert!(now + 1 >= before && now <= before, "{list:?}: {before}, then {now}");
        let node = clinic.serve(&[]);
        clinic.run(&list).ends(1).says("damaged and not listed");
        node.stop();
    }
}

#[test]
fn what_is_refused_or_only_looks_leaves_the_store_as_it_is() {
    let clinic = Clinic::new();
    clinic.serve(&["--demo"]).stop();
    let backup = clinic.run(&["backup", "create", "--json"]).ends(0).json();
    let backup = backup["file"].as_str().unwrap();
    let bytes = fs::read(store_file(&clinic.data())).unwrap();
    let there = clinic.path("there");
    fs::create_dir(&there).unwrap();
    clinic.run(&["restore", backup, "--dry-run"]).ends(0).says("nothing was changed");
    clinic.run(&["restore", backup]).ends(3).complains("nothing was changed");
    clinic.run(&["restore", there.to_str().unwrap(), "--yes"]).ends(1);
    clinic.run(&["export", there.to_str().unwrap()]).ends(1).complains("exists already");
    clinic.run(&["db", "check"]).ends(0);
    assert!(fs::read(store_file(&clinic.data())).unwrap() == bytes);
}

/// redb panics in the middle of a write when it comes upon pages that make no sense.
#[cfg(feature = "failpoints")]
#[test]
fn a_node_whose_store_gives_up_says_so_and_ends() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    assert_eq!(asked(&node, "PATCH", PERSON, r#"{"blood": "A-negative"}"#).0, 200);
    node.stop();
    let node = clinic.serve_with_variable("FAILPOINTS", "writer.job=40*off->panic");
    assert_eq!(node.request("GET", "/readyz", ROOT, "").0, 200);
    let (status, body) = (0..100)
        .map(|n| asked(&node, "PATCH", PERSON, &format!(r#"{{"blood": "B-{n}"}}"#)))
        .find(|(status, _)| *status != 200)
        .expect("the fail point is passed");
    assert_eq!((status, body["code"].as_str()), (500, Some("damaged")), "{body}");
    assert!(body.to_string().contains("thalamus-edge doctor"), "{body}");
    let (status, body) = node.request("GET", "/readyz", ROOT, "");
    assert_eq!((status, body.contains("the store takes nothing any more")), (503, true), "{body}");
    let log = node.ended(1);
    assert!(log.contains("the store gave up in the middle of a write"), "{log}");
    let node = clinic.serve(&[]);
    let (status, body) = asked(&node, "GET", PERSON, "");
    assert_eq!(
        (status, body["blood"].as_str().is_some_and(|blood| blood.starts_with("B-"))),
        (200, true),
        "{body}"
    );
    node.stop();
    clinic.run(&["db", "check"]).ends(0).says("the store is in order");
}

/// Zeros in the place of the page that holds this text.
fn zero_pages_with(clinic: &Clinic, text: &str) -> Vec<u8> {
    let file = store_file(&clinic.data());
    let mut bytes = fs::read(&file).unwrap();
    let mut zeroed = 0;
    for page in bytes.chunks_exact_mut(4096).skip(1) {
        if page[0] == 1 && page.windows(text.len()).any(|part| part == text.as_bytes()) {
            page.fill(0);
            zeroed += 1;
        }
    }
    assert!(zeroed > 0);
    fs::write(&file, &bytes).unwrap();
    bytes
}

#[test]
fn a_store_with_a_page_beyond_repair_is_refused_untouched_exported_and_restored() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    assert_eq!(asked(&node, "PATCH", PERSON, r#"{"blood": "A-negative"}"#).0, 200);
    node.stop();
    let backup = clinic.run(&["backup", "create", "--json"]).ends(0).json();
    let backup = backup["file"].as_str().unwrap();
    let whole = fs::read(store_file(&clinic.data())).unwrap();
    // A page of the audit trail, and one of the list of tables.
    for (text, named, people) in
        [("127.0.0.1", "audit", true), ("content_named", "the list of tables", false)]
    {
        fs::write(store_file(&clinic.data()), &whole).unwrap();
        let bytes = zero_pages_with(&clinic, text);
        let is_untouched = || fs::read(store_file(&clinic.data())).unwrap() == bytes;
        let sentence = "nothing was written to it";
        clinic.run(&["serve"]).ends(2).complains(named).complains(sentence).complains("restore FILE");
        for command in ["doctor", "db check"] {
            let ran = clinic.run(&command.split(' ').collect::<Vec<_>>()).ends(1);
            assert!(format!("{}{}", ran.out, ran.err).contains(named), "{command}: {}\n{}", ran.out, ran.err);
        }
        let out = clinic.path(&format!("out-{people}"));
        let ran = clinic.run(&["export", out.to_str().unwrap()]).ends(1);
        ran.complains(named).complains("not in the audit trail");
        if people {
            let text = fs::read_to_string(out.join("people.jsonl")).unwrap();
            assert!(
                text.contains("A-negative") && text.contains("ESPGNU777ORG"),
                "an edit that was not sent"
            );
        }
        for ran in
            [clinic.run(&["db", "check"]), clinic.run(&["user", "list"]), clinic.run(&["db", "compact"])]
        {
            let ran = ran.ends(1);
            assert!(!ran.err.contains("panicked"), "{}\n{}", ran.out, ran.err);
        }
        assert!(is_untouched(), "{named}");
    }
    clinic.run(&["restore", backup, "--yes"]).ends(0);
    let node = clinic.serve(&[]);
    let (status, body) = asked(&node, "GET", PERSON, "");
    assert_eq!((status, body["blood"].as_str()), (200, Some("A-negative")), "{body}");
    node.stop();
}

/// A copy tool padded the file, or a file system gave it more bytes than it had.
#[test]
fn what_is_appended_to_the_store_is_told_cut_off_and_forgotten() {
    for is_sealed in [false, true] {
        let mut clinic = Clinic::new();
        if is_sealed {
            let key = clinic.path("key");
            clinic.run(&["db", "keygen", key.to_str().unwrap()]).ends(0);
            clinic = clinic.with("STORE__KEY_FILE", key.to_str().unwrap());
        }
        clinic.serve(&["--demo"]).stop();
        let file = store_file(&clinic.data());
        let mut longer = fs::read(&file).unwrap();
        longer.resize(longer.len() + 512, 0);
        fs::write(&file, &longer).unwrap();
        clinic
            .run(&["db", "check"])
            .ends(1)
            .says("512 bytes behind the end of the file")
            .says("The next start of the node puts all of it right");
        assert!(fs::read(&file).unwrap() == longer, "db check has written to the file");
        let node = clinic.serve(&[]);
        assert_eq!(asked(&node, "PATCH", PERSON, r#"{"blood": "A-negative"}"#).0, 200);
        clinic.run(&["backup", "create"]).ends(0);
        assert!(!clinic.run(&["doctor"]).out.contains("beyond repair"));
        let log = node.stop();
        assert!(log.contains("bytes behind the end of the store's file"), "{log}");
        clinic.run(&["db", "check"]).ends(0).says("the store is in order");
        // One that lacks bytes is refused, and the way out is named. The page at the end may be the one that leads to all
        // tables: one more write puts that elsewhere.
        let is_shown = (0..5).any(|n| {
            let whole = fs::read(&file).unwrap();
            // A page less: it may be one to which no tree leads, and one bit of the length in the header may explain that.
            let less = if is_sealed { 4_136 } else { 4_096 };
            fs::write(&file, &whole[..whole.len() - less]).unwrap();
            let said = format!("it should have {} bytes and has {}", whole.len(), whole.len() - less);
            clinic.run(&["serve"]).ends(2).complains(&said).complains("restore FILE");
            clinic.run(&["db", "check"]).ends(1).complains(&said);
            assert!(fs::read(&file).unwrap() == whole[..whole.len() - less], "written to");
            fs::write(&file, &whole[..whole.len() - 100]).unwrap();
            let said = format!("it should have {} bytes and has {}", whole.len(), whole.len() - 100);
            clinic.run(&["serve"]).ends(2).complains(&said).complains("restore FILE");
            let out = clinic.path(&format!("out{n}"));
            let export = clinic.run(&["export", out.to_str().unwrap()]);
            let is_led_nowhere = export.err.contains("the list of tables");
            export.ends(1).complains(&said);
            if !is_led_nowhere {
                return fs::read_to_string(out.join("people.jsonl")).unwrap().contains("A-negative");
            }
            fs::write(&file, &whole).unwrap();
            let node = clinic.serve(&[]);
            assert_eq!(asked(&node, "PATCH", PERSON, &format!(r#"{{"note": "{n}"}}"#)).0, 200);
            node.stop();
            false
        });
        assert!(is_shown);
    }
}

/// After a kill the last commit is marked by nothing but a place of the first block.
#[test]
fn an_acknowledged_change_is_there_although_the_block_that_marks_it_is_damaged() {
    let clinic = Clinic::new();
    let key = clinic.path("key");
    clinic.run(&["db", "keygen", key.to_str().unwrap()]).ends(0);
    let clinic = clinic.with("STORE__KEY_FILE", key.to_str().unwrap());
    let node = clinic.serve(&["--demo"]);
    for blood in ["A-positive", "A-negative"] {
        assert_eq!(asked(&node, "PATCH", PERSON, &format!(r#"{{"blood": "{blood}"}}"#)).0, 200);
    }
    node.signal(rustix::process::Signal::KILL);
    node.gone();
    let file = store_file(&clinic.data());
    let whole = fs::read(&file).unwrap();
    for (from, to) in [(8_192, 12_288), (12_800, 16_384), (16_384, 16_896), (13_000, 13_002)] {
        let mut bytes = whole.clone();
        bytes[from..to].fill(0);
        fs::write(&file, &bytes).unwrap();
        clinic.run(&["db", "check"]).ends(1).says("first block does not open");
        let node = clinic.serve(&[]);
        let (status, body) = asked(&node, "GET", PERSON, "");
        assert_eq!((status, body["blood"].as_str()), (200, Some("A-negative")), "{from} {body}");
        let log = node.stop();
        assert!(log.contains("first block does not open, and is written anew"), "{log}");
        clinic.run(&["db", "check"]).ends(0).says("the store is in order");
    }
}

/// Pages to which only a damaged page of an index led are free again once the index was made anew.
#[test]
fn an_index_that_was_made_anew_leaves_nothing_behind() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    for n in 0..60 {
        let name = format!(r#""name": "Nombre{n}", "lastname": "Apellido{n} Otro{n}""#);
        let body = format!(r#"{{{name}, "dob": "1950-01-{:02}", "gender": "f"}}"#, n % 28 + 1);
        let made = asked(&node, "POST", &format!("/people/LARGO{n:04}"), &body);
        assert_eq!(made.0, 201, "{made:?}");
    }
    node.stop();
    let file = store_file(&clinic.data());
    let whole = fs::read(&file).unwrap();
    let branches = (1..whole.len() / 4096).map(|page| page * 4096).filter(|at| whole[*at] == 2);
    let mut mended = 0;
    for at in branches {
        let mut bytes = whole.clone();
        bytes[at..at + 4096].fill(0);
        fs::write(&file, &bytes).unwrap();
        let said = clinic.run(&["db", "check"]);
        if !said.out.contains("no record is in it, and the next start of the node makes it anew") {
            continue;
        }
        said.ends(1).says("The next start of the node puts all of it right");
        let log = clinic.serve(&[]).stop();
        assert!(log.contains("indexes with damaged pages were made anew"), "{log}");
        clinic.run(&["db", "check"]).ends(0).says("the store is in order");
        mended += 1;
    }
    assert!(mended > 0);
}
