//! `doctor`: what is found, how bad it is, and that it says what to do.

use std::time::UNIX_EPOCH;

use rcgen::{CertificateParams, KeyPair};
use thalamus_edge::app::now_ms;
use thalamus_edge::store::{StoreError, Tx};
use thalamus_edge::tls::{Tls, TlsSettings};
use time::{Duration as Span, OffsetDateTime};

use super::*;

/// What is said about one thing: how it is, and in which words.
fn found(clinic: &Clinic, about: &str) -> Vec<(String, String)> {
    let said = clinic.run(&["doctor", "--json"]).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let about = said["findings"].as_array().unwrap().iter().filter(|finding| finding["about"] == about);
    about
        .map(|finding| {
            assert_eq!(finding["remedy"].is_string(), finding["health"] != "ok", "{finding}");
            (text(&finding["health"]), text(&finding["finding"]))
        })
        .collect()
}

fn finds(clinic: &Clinic, about: &str, health: &str, words: &str) {
    let found = found(clinic, about);
    let is_said = found.iter().any(|(is, said)| is == health && said.contains(words));
    assert!(is_said, "{about}: {health} {words:?} is not in {found:?}");
}

fn keygen(clinic: &Clinic) -> String {
    let pair = clinic.run(&["backup", "keygen"]).ends(0).out;
    format!("[{:?}]", pair.split('"').nth(1).unwrap())
}

fn file(clinic: &Clinic, name: &str, text: &str, mode: u32) -> String {
    let path = clinic.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_node_is_found_running_stopped_or_missing() {
    let clinic = Clinic::new();
    finds(&clinic, "node", "wrong", "there is no store in");
    assert!(!clinic.data().exists(), "it makes nothing");
    clinic.make_store();
    finds(&clinic, "node", "wrong", "not running");
    let node = clinic.serve(&[]);
    finds(&clinic, "node", "ok", "running");
    finds(&clinic, "reconciliation", "warning", "no centre is configured");
    finds(&clinic, "accounts", "warning", "nobody administers this node");
    node.stop();
    clinic.run(&["user", "add", "tech", "--local", "--role", "root", "--link"]).ends(0);
    finds(&clinic, "accounts", "ok", "1 are open");
}

#[test]
fn the_extent_of_the_audit_trail_is_said() {
    let clinic = Clinic::new();
    let node = clinic.serve(&[]);
    finds(&clinic, "audit trail", "ok", " entries over 0 days, lately ");
    finds(&clinic, "audit trail", "ok", "each stays for 400 days at least");
    node.stop();
    let kept = clinic.with("STORE__AUDIT_KEEP_DAYS", "0");
    let node = kept.serve(&[]);
    finds(&kept, "audit trail", "ok", "the last 1000000 stay");
    node.stop();
}

/// With ids that the alphabet of accounts does not have nobody logs in, so they are no open accounts.
#[test]
fn ids_that_are_no_account_are_told_and_not_counted() {
    let clinic = Clinic::new();
    let hash = "$2b$12$Y9rX7PoTHRXhTO1H78Tan.8mVmyayGAUIveiYxu2Qeo0ZDRvJQ8/6";
    let person = |id: &str| format!("{{\"_id\": {id:?}, \"name\": \"N\", \"password\": {hash:?}}}\n");
    let people: String = ["X Y", "BOSS@LOCAL", "AAA/1", "AAA000001"].map(person).concat();
    fs::write(clinic.path("people.jsonl"), people).unwrap();
    let ran = clinic.run(&["import", "people.jsonl"]).ends(0);
    ran.complains("note: 3 people have ids with which nobody can log in");
    for (line, id) in [(1, "X Y"), (2, "BOSS@LOCAL"), (3, "AAA/1")] {
        ran.complains(&format!(
            "people.jsonl line {line} column 1: {id:?}: taken, but nobody can log in with this id"
        ));
    }
    clinic.run(&["user", "add", "tech", "--local", "--role", "root", "--link"]).ends(0);
    finds(&clinic, "accounts", "ok", "2 are open; 3 people have ids with which nobody can log in: ");
}

/// A star is a name like any other in the rules, and stands for every site in the list of origins.
#[test]
fn a_star_is_told_wherever_it_may_stand() {
    let clinic = Clinic::new();
    let star = r#"[{"role": "*", "permissions": {"GET": ["*"], "global": false}},
                   {"role": "root", "permissions": {"GET": ["login"], "global": true}}]"#;
    let rules = file(&clinic, "star.cfg", star, 0o644);
    let ran = clinic.with("ACCOUNTS__ROLES_FILE", &rules).run(&["check"]).ends(0);
    ran.says("role \"*\", GET: nothing is called \"*\"");
    let ran = clinic.with("API__CORS_ALLOWED_ORIGINS", r#"["*"]"#).run(&["check"]).ends(0);
    ran.says("`api.cors_allowed_origins` holds \"*\"");
    clinic.with("SERVER__NAMES", r#"["*.example.org"]"#).run(&["check"]).ends(2);
}

#[test]
fn people_are_told_what_to_do_and_scripts_whether_they_must() {
    let clinic = Clinic::new();
    let ran = clinic.run(&["doctor"]).ends(1);
    ran.says("WRONG    node: there is no store in").says("-> systemctl start thalamus-edge");
    assert!(ran.out.trim_end().ends_with("warnings") && !ran.out.contains('\u{1b}'), "{}", ran.out);
    let clinic = clinic.with("BACKUP__RECIPIENTS", &keygen(&clinic));
    let node = clinic.serve(&[]);
    clinic.run(&["backup", "create"]).ends(0);
    let said = clinic.run(&["doctor"]).ends(0);
    said.says("0 wrong").says("ok       backups: the last one is of");
    node.stop();
    let (code, seen) = clinic.at_terminal(&["doctor"], &[]);
    assert!(code == 1 && seen.contains("\u{1b}[31mWRONG"), "{seen}");
}

#[test]
fn accounts_of_the_demo_are_wrong_in_a_clinic_until_they_are_closed() {
    let clinic = Clinic::new();
    let node = clinic.serve(&["--demo"]);
    finds(&clinic, "accounts", "wrong", "ARGBUE111FAV");
    for id in ["ITPYT999HON", "ESGNU777ORG", "ITAPYT999HON", "ESPGNU777ORG"] {
        clinic.run(&["user", "disable", id]).ends(0);
        finds(&clinic, "accounts", "wrong", "ARGBUE111FAV");
    }
    let password = "walnut harbour violin\n";
    clinic.run_with(&["user", "passwd", "ARGBUE111FAV", "--password-stdin"], password).ends(0);
    assert_eq!(found(&clinic, "accounts").iter().filter(|(health, _)| health == "wrong").count(), 0);
    node.stop();
}

#[test]
fn backups_are_looked_for() {
    let clinic = Clinic::new();
    finds(&clinic, "backups", "wrong", "not encrypted");
    finds(&clinic, "backups", "warning", "on the same disk");
    finds(&clinic, "backups", "wrong", "there is none yet");
    finds(&clinic.with("BACKUP__SCHEDULE", ""), "backups", "warning", "none are made by themselves");
    let gone = clinic.with("BACKUP__DIRECTORY", "/nonexistent/stick");
    finds(&gone, "backups", "wrong", "is the disk connected and mounted?");
    let encrypted = clinic.with("BACKUP__RECIPIENTS", &keygen(&clinic));
    assert!(found(&encrypted, "backups").iter().all(|(_, said)| !said.contains("not encrypted")));
    clinic.make_store();
    clinic.run(&["backup", "create"]).ends(0);
    finds(&clinic, "backups", "ok", "the last one is of");
    newest_backup_is_looked_at(&clinic);
    // By its name the newest is of another time.
    let directory = clinic.data().join("backups");
    for (number, time, health, words) in [
        (2, "20260101T030000Z", "wrong", "2026-01-01T03:00:00Z, 4 bytes, and the next is overdue"),
        (3, "20990101T030000Z", "warning", "in the future"),
    ] {
        let name = format!("clinic-0000000{number}-{time}.backup");
        fs::write(directory.join(&name), "made").unwrap();
        // Of "made".
        let sum = "ea0890697a77af0a2e054cccec587c8a42feb5cf38e778c6c6e2a96bfb945c0b";
        fs::write(directory.join(name + ".sha256"), sum).unwrap();
        finds(&clinic, "backups", health, words);
    }
}

/// Whoever makes them, and whether a checksum stands beside it or not.
fn newest_backup_is_looked_at(clinic: &Clinic) {
    let file = fs::read_dir(clinic.data().join("backups"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "backup"))
        .unwrap();
    let checksum = format!("{}.sha256", file.display());
    let (whole, sum) = (fs::read(&file).unwrap(), fs::read(&checksum).unwrap());
    let mut rotten = whole.clone();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    for clinic in [clinic, &clinic.with("BACKUP__SCHEDULE", "")] {
        finds(clinic, "backups", "ok", "the last one is of");
        for damaged in [&rotten[..], b""] {
            fs::write(&file, damaged).unwrap();
            finds(clinic, "backups", "wrong", "and it is damaged");
            fs::remove_file(&checksum).unwrap();
            finds(clinic, "backups", "wrong", "damaged, and no checksum stands beside it");
            fs::write(&checksum, &sum).unwrap();
        }
        fs::write(&file, &whole).unwrap();
        fs::remove_file(&checksum).unwrap();
        finds(clinic, "backups", "warning", "no checksum stands beside");
        fs::write(&checksum, &sum).unwrap();
        let tagged = String::from_utf8(sum.clone()).unwrap();
        let (hex, name) = tagged.trim().split_once("  ").unwrap();
        fs::write(&checksum, format!("SHA256 ({name}) = {hex}\n")).unwrap();
        finds(clinic, "backups", "ok", "the last one is of");
        fs::write(&checksum, &sum).unwrap();
    }
}

#[test]
fn rules_and_secrets_are_read_as_the_node_reads_them() {
    let clinic = Clinic::new();
    finds(&clinic, "access rules", "ok", "in order");
    let rules = file(&clinic, "roles.cfg", "[{\"role\": 1}]", 0o640);
    let wrong = clinic.with("ACCOUNTS__ROLES_FILE", &rules);
    finds(&wrong, "access rules", "wrong", "roles.cfg");
    // As Thalamus has them: nobody would administer the node, or read units, institutions and documents.
    let of_thalamus =
        r#"[{"role": "root", "permissions": {"GET": ["login", "people", "person"], "global": "True"}}]"#;
    let given = clinic.with("ACCOUNTS__ROLES_FILE", &file(&clinic, "thalamus.cfg", of_thalamus, 0o640));
    for words in ["\"root\" may use them", "\"root\" may read them"] {
        finds(&given, "access rules", "warning", words);
        given.run(&["check"]).ends(0).says(words);
    }
    finds(&clinic, "encryption of the store", "warning", "none");
    clinic.run(&["db", "keygen", clinic.path("key").to_str().unwrap()]).ends(0);
    let sealed = clinic.with("STORE__KEY_FILE", clinic.path("key").to_str().unwrap());
    finds(&sealed, "encryption of the store", "ok", "with key");
    finds(&sealed, "secrets", "ok", "no file");
    let lost = clinic.with("STORE__KEY_FILE", "/nonexistent/key");
    finds(&lost, "encryption of the store", "wrong", "/nonexistent/key");
    let uri = file(&clinic, "uri", "mongodb://127.0.0.1:1/", 0o644);
    let told = clinic.with("CENTRAL__URI_FILE", &uri);
    finds(&told, "secrets", "wrong", &uri);
    told.run(&["check"]).ends(0).says(&format!("everybody on this machine may read {uri}"));
    file(&clinic, "uri", "mongodb://127.0.0.1:1/", 0o640);
    finds(&told, "secrets", "ok", "no file");
    fs::remove_file(&uri).unwrap();
    finds(&told, "secrets", "warning", &uri);
    // The configuration is one if the password stands in it, and not if it comes from elsewhere.
    let address = "mongodb://north:xyzzy@127.0.0.1:1/";
    let with_password = format!("[central]\nuri = {address:?}\n");
    for (text, health) in [(with_password.as_str(), "wrong"), ("", "ok")] {
        let config = file(&clinic, "config.toml", text, 0o644);
        let said =
            clinic.with("CENTRAL__URI", address).run(&["doctor", "--json", "--config", &config]).json();
        let secrets = said["findings"].as_array().unwrap().iter().find(|f| f["about"] == "secrets").unwrap();
        assert_eq!(secrets["health"], health, "{secrets}");
    }
}

#[test]
fn the_way_to_the_centre_is_judged_by_its_address() {
    let clinic = Clinic::new();
    assert_eq!(found(&clinic, "way to the centre"), []);
    for (uri, health, words) in [
        ("mongodb://127.0.0.1:1/", "ok", "within this machine"),
        ("mongodb://u:xyzzy@centre.example.org/", "wrong", "not encrypted"),
        ("mongodb://u:xyzzy@centre.example.org/?tls=true", "ok", "encrypted"),
        ("mongodb://u:xyzzy@centre.example.org/?tls=true&tlsInsecure=true", "wrong", "not checked"),
        ("mongodb+srv://u:xyzzy@centre.example.org/", "ok", "encrypted"),
        ("mongodb+srv://u:xyzzy@centre.example.org/?tls=false", "wrong", "not encrypted"),
        ("mongodb://u:xyzzy@centre.example.org/?tls=perhaps", "wrong", ""),
    ] {
        let told = clinic.with("CENTRAL__URI", uri);
        finds(&told, "way to the centre", health, words);
        let is_said = told.run(&["check"]).out.contains("the way to the centre is");
        assert_eq!(is_said, health == "wrong" && !words.is_empty(), "`check` says what is wrong: {uri}");
        assert!(!told.run(&["doctor"]).out.contains("xyzzy"), "{uri}");
    }
    finds(&clinic.with("CENTRAL__URI_FILE", "/nonexistent"), "way to the centre", "wrong", "/nonexistent");
}

#[test]
fn certificates_are_watched() {
    let clinic = Clinic::new();
    finds(&clinic, "certificate", "ok", "for this machine only");
    finds(&clinic.with("SERVER__LISTEN", "0.0.0.0:0"), "certificate", "wrong", "readable");
    let secure = clinic.with("SERVER__TLS", "true");
    finds(&secure, "certificate", "ok", "the first start makes it");
    let now = OffsetDateTime::from_unix_timestamp(now_ms() / 1000).unwrap();
    let key = KeyPair::generate().unwrap();
    // The box's own authority, whose key is elsewhere.
    fs::create_dir_all(clinic.data().join("tls")).unwrap();
    for (days, health, words) in [
        (-1, "wrong", "authority (ca.pem) ended at 20"),
        (100, "warning", "authority (ca.pem) ends at 20"),
        (500, "wrong", "ca-key.pem is missing"),
    ] {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.not_before = now - Span::days(2);
        params.not_after = now + Span::days(days);
        file(&clinic, "data/tls/ca.pem", &params.self_signed(&key).unwrap().pem(), 0o644);
        finds(&secure, "certificate", health, words);
    }
    let key_file = file(&clinic, "own.key", &key.serialize_pem(), 0o600);
    for (days, health, words) in
        [(-1, "wrong", "ended at 20"), (10, "warning", "ends in "), (100, "ok", "ends in ")]
    {
        let mut params = CertificateParams::new(["clinic.local".to_owned()]).unwrap();
        params.not_before = now - Span::days(2);
        params.not_after = now + Span::days(days);
        let certificate = params.self_signed(&key).unwrap();
        let file = file(&clinic, "own.pem", &certificate.pem(), 0o644);
        let own = secure.with("SERVER__CERTIFICATE", &file).with("SERVER__KEY", &key_file);
        finds(&own, "certificate", health, words);
    }
    let mut params = CertificateParams::new(["clinic.local".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (now + Span::days(2), now + Span::days(90));
    let early = file(&clinic, "own.pem", &params.self_signed(&key).unwrap().pem(), 0o644);
    let own = secure.with("SERVER__CERTIFICATE", &early).with("SERVER__KEY", &key_file);
    finds(&own, "certificate", "wrong", "does not hold before");
    // As `check` says it.
    let checked = own.run(&["check"]).ends(0);
    assert!(checked.out.contains("does not hold before"), "{}", checked.out);
    file(&clinic, "own.pem", "no certificate", 0o644);
    let own = secure.with("SERVER__CERTIFICATE", clinic.path("own.pem").to_str().unwrap());
    finds(&own.with("SERVER__KEY", &key_file), "certificate", "wrong", "own.pem");
}

/// The node starts, and `check`, its log and `doctor` say the same.
#[test]
fn a_damaged_authority_is_told_while_the_certificate_still_holds() {
    let secure = Clinic::new().with("SERVER__TLS", "true");
    let tls = secure.data().join("tls");
    let settings = TlsSettings { directory: tls.clone(), own: None, names: Vec::new() };
    Tls::load(settings.clone(), UNIX_EPOCH + Duration::from_millis(now_ms() as u64)).unwrap();
    for (name, health) in [("ca.pem", "warning"), ("ca-key.pem", "wrong")] {
        let path = tls.join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
        finds(&secure, "certificate", health, "the authority of this box is damaged");
        let checked = secure.run(&["check"]).ends(0);
        assert!(checked.out.contains("the authority of this box is damaged"), "{}", checked.out);
        secure.serve(&[]).stop();
    }
    finds(&secure, "certificate", "wrong", "ca-key.pem holds no key that can be read");
}

#[test]
fn a_disk_without_room_is_told() {
    let clinic = Clinic::new();
    clinic.make_store();
    finds(&clinic, "disk", "ok", "MB free");
    let greedy = clinic.with("STORE__RESERVE_BYTES", &(1_u64 << 40).to_string());
    finds(&greedy, "disk", "wrong", "writes are refused");
}

#[test]
fn records_of_nobody_are_found() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        for (id, page) in [("p1", doc! {"_id": "p1"}), ("p2", doc! {"_id": "p2", "book": 5})] {
            tx.edit(&RecordKey::new(Kind::Page, id), Some(&page), &Actor::Operator(0))?;
        }
        Ok(())
    });
    let words = "2 in pols say of nobody that they are theirs";
    finds(&clinic, "records of nobody", "warning", words);
    let status = clinic.run(&["sync", "status", "--json"]).ends(0).json();
    assert_eq!((&status["ownerless"], &status["other_ids"]), (&json!({"pols": 2}), &json!({})), "{status}");
}

/// Who came open was closed by somebody elsewhere, and is not said to have come inactive.
#[test]
fn the_list_and_the_doctor_say_who_closed_an_account() {
    let clinic = Clinic::new();
    clinic.write(|tx| {
        for (id, versions) in [
            ("CAME01", &[false][..]),
            ("ELSE01", &[true, false]),
            ("HERE01", &[true]),
            ("BOTH01", &[false]),
            ("OPEN01", &[true]),
        ] {
            for active in versions {
                put_person(tx, id, *active)?;
            }
        }
        Ok(())
    });
    for id in ["HERE01", "BOTH01"] {
        clinic.run(&["user", "disable", id]).ends(0);
    }
    // Somebody opens it on another node, who cannot know that it was closed here.
    clinic.write(|tx| put_person(tx, "BOTH01", true));
    let listed = clinic.run(&["user", "list"]).ends(0);
    let found: Vec<_> = listed
        .out
        .lines()
        .filter_map(|line| {
            line.split_once("01 ").map(|(id, rest)| (id, rest.trim().split("  ").next().unwrap()))
        })
        .collect();
    assert_eq!(
        found,
        [
            ("BOTH", "no, closed here, opened elsewhere since"),
            ("CAME", "no, came here inactive"),
            ("ELSE", "no, closed elsewhere"),
            ("HERE", "no, closed here"),
            ("OPEN", "yes"),
        ]
    );
    let said = clinic.run(&["doctor"]);
    said.says("1 came open and were closed elsewhere since: ELSE01");
    said.says("1 were closed here and opened elsewhere since, and stay closed on this node: BOTH01");
    said.says("1 people have a password and cannot log in, because their records came inactive: 1 from the centre (CAME01)");
    // However a round ends, it says so.
    let round = || {
        let uri = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500";
        clinic.with("CENTRAL__URI", uri).run(&["sync", "now", "--json"]).ends(4).json()["message"].to_string()
    };
    let words = "One account that was closed on this node was opened elsewhere, and stays closed here";
    let message = round();
    assert!(message.contains(words), "{message}");
    let ran = clinic.run(&["user", "enable", "--all-inactive"]).ends(0);
    ran.says("CAME01 can log in again")
        .says("1 accounts were opened")
        .says("2 that were closed on this node stay closed");
    clinic.run(&["user", "enable", "BOTH01"]).ends(0);
    assert!(!round().contains("opened elsewhere"));
}

fn put_person(tx: &mut Tx<'_>, id: &str, active: bool) -> Result<(), StoreError> {
    let hash = "$2b$04$Y9rX7PoTHRXhTO1H78Tan.8mVmyayGAUIveiYxu2Qeo0ZDRvJQ8/2";
    let person = doc! {"_id": id, "name": id, "active": active, "password": hash, "roles": ["end_user"]};
    tx.put(&RecordKey::new(Kind::Person, id), Some(&person), &Base::Document(person.clone()), &Actor::Centre)
}
