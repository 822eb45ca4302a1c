//! A store that only its key opens.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::cli_support::{Clinic, ROOT};

/// Whether the store's file or what lies beside it holds these bytes.
fn lies_open(clinic: &Clinic, text: &str) -> bool {
    let files = fs::read_dir(clinic.data()).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .any(|path| fs::read(path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes()))
}

#[test]
fn a_thief_of_the_disk_finds_nothing_to_read() {
    let plain = Clinic::new();
    plain.serve(&["--demo"]).stop();
    for known in ["Betz", "ARGBUE111FAV", "by_owner"] {
        assert!(lies_open(&plain, known), "{known:?} can be read in a store without a key");
    }
    let key = plain.path("key");
    plain.run(&["db", "keygen", key.to_str().unwrap()]).ends(0).says("made key ");
    plain.run(&["db", "keygen", key.to_str().unwrap()]).ends(1).complains("give the new key another name");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    plain.run(&["db", "encrypt"]).ends(2).complains("key_file").complains("db keygen");
    plain.run(&["db", "decrypt"]).ends(2).complains("the key that the store is encrypted with");

    let sealed = plain.with("STORE__KEY_FILE", key.to_str().unwrap());
    sealed.run(&["user", "list"]).ends(1).complains("not encrypted");
    // Two stores in the clear, where nobody looks for them: what is encrypted says that it is not all.
    fs::copy(plain.data().join("store.redb"), plain.data().join("store.redb.before-restore-3")).unwrap();
    fs::create_dir_all(plain.data().join("backups/kept")).unwrap();
    fs::copy(plain.data().join("store.redb"), plain.data().join("backups/kept/yesterday")).unwrap();
    let encrypted = sealed.run(&["db", "encrypt"]).ends(0);
    encrypted.says("encrypted with key ").says("store.redb.before-restore-3").says("backups/kept/yesterday");
    fs::remove_file(plain.data().join("store.redb.before-restore-3")).unwrap();
    fs::remove_dir_all(plain.data().join("backups/kept")).unwrap();
    sealed.run(&["db", "encrypt"]).ends(1).complains("is encrypted already");
    for known in ["Betz", "ARGBUE111FAV", "by_owner", "people"] {
        assert!(!lies_open(&sealed, known), "{known:?} can be read");
    }
    sealed.run(&["db", "check"]).ends(0).says("the store is in order");
    // Without the key, and with another one.
    plain.run(&["user", "list"]).ends(1).complains("name the file of key ");
    let other = plain.path("other");
    plain.run(&["db", "keygen", other.to_str().unwrap()]).ends(0);
    let wrong = plain.with("STORE__KEY_FILE", other.to_str().unwrap());
    wrong.run(&["user", "list"]).ends(1).complains("the key given is ");
    // It serves as before.
    let node = sealed.serve(&[]);
    assert_eq!(node.request("GET", "/people/ARGBUE111FAV", ROOT, "").0, 200);
    node.stop();
    // A backup of it holds the records, and restoring makes an encrypted store again.
    sealed.run(&["backup", "create"]).ends(0);
    let backups = fs::read_dir(sealed.data().join("backups")).unwrap().map(|entry| entry.unwrap().path());
    let backup = backups.into_iter().find(|path| path.extension().is_some_and(|e| e == "backup")).unwrap();
    sealed.run(&["restore", "--yes", backup.to_str().unwrap()]).ends(0);
    sealed.run(&["db", "check"]).ends(0).says("the store is in order");
    plain.run(&["db", "check"]).ends(1).complains("name the file of key ");
    // Without the key the records would lie in the clear from then on.
    let restored = plain.run(&["restore", "--yes", backup.to_str().unwrap()]).ends(3);
    restored.complains("nothing was changed").complains("in the clear");
    plain.run(&["restore", "--dry-run", backup.to_str().unwrap()]).ends(0);
    sealed.run(&["db", "check"]).ends(0);
    // The backup is not encrypted; neither is a store that a restore kept before, or one under any other name.
    let copy = plain.path("data/store.redb.before-restore-7");
    let clear = Clinic::new();
    clear.serve(&["--demo"]).stop();
    fs::copy(clear.data().join("store.redb"), &copy).unwrap();
    fs::create_dir(plain.path("data/old")).unwrap();
    fs::copy(&copy, plain.path("data/old/whatever")).unwrap();
    let doctor = sealed.run(&["doctor"]).ends(1);
    let listed = sealed.run(&["db", "clear-copies"]).ends(1);
    for named in ["before-restore-7 is not", "old/whatever is not", ".backup is not"] {
        doctor.says(named);
        listed.says(named.trim_end_matches(" is not"));
    }
    // An export, an archive of which nobody knows what is in it, and the only backup.
    let export = sealed.data().join("export");
    sealed.run(&["export", export.to_str().unwrap()]).ends(0);
    assert!(fs::read_dir(export.join("content")).unwrap().count() > 0, "an attachment");
    fs::copy(export.join("people.jsonl"), sealed.data().join("people.json")).unwrap();
    fs::write(sealed.data().join("old.tar"), "who knows").unwrap();
    let ran = sealed.run(&["db", "clear-copies", "--remove"]).ends(1);
    ran.says("removed:").says("before-restore-7").says("kept, because no backup").says("old.tar");
    assert!(!copy.exists() && sealed.data().join("store.redb").exists() && backup.exists());
    assert!(!lies_open(&sealed, "Betz") && fs::read_dir(export.join("content")).unwrap().count() == 0);
    // One that is newer, encrypted and whole takes its place.
    let recipient = "[\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]";
    sealed.with("BACKUP__RECIPIENTS", recipient).run(&["backup", "create"]).ends(0);
    sealed.run(&["db", "clear-copies", "--remove"]).ends(1).says("removed:").says(".backup").says("old.tar");
    assert!(!backup.exists());
    sealed.run(&["doctor"]).ends(1).says("old.tar may hold records");
    fs::remove_file(sealed.data().join("old.tar")).unwrap();
    sealed.run(&["db", "clear-copies"]).ends(0).says("no other file");
    // Somebody may want to be without any.
    let node = sealed.serve(&[]);
    node.stop();
    sealed.run(&["backup", "create"]).ends(0);
    sealed.run(&["db", "clear-copies", "--remove"]).ends(1).says("--backups removes them all the same");
    sealed.run(&["db", "clear-copies", "--remove", "--backups"]).ends(0);
    sealed.run(&["db", "clear-copies", "--backups"]).ends(2).complains("--remove");
    assert!(!sealed.run(&["doctor"]).out.contains("holds records"));

    // Another key; the old one opens nothing more.
    sealed.run(&["db", "rekey", other.to_str().unwrap()]).ends(0);
    sealed.run(&["db", "check"]).ends(1).complains("the key given is ");
    wrong.run(&["db", "check"]).ends(0);
    wrong.run(&["db", "decrypt"]).ends(0).says("no longer encrypted");
    plain.run(&["db", "check"]).ends(0).says("the store is in order");
}

#[test]
fn a_key_that_cannot_be_used_is_said_to_be_so() {
    let clinic = Clinic::new();
    let key = clinic.path("key");
    let with_key = clinic.with("STORE__KEY_FILE", key.to_str().unwrap());
    with_key.run(&["check"]).ends(2).complains("cannot be read");
    fs::write(&key, "no key").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    with_key.run(&["check"]).ends(2).complains("64 hexadecimal digits");
    fs::write(&key, "5e".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).unwrap();
    with_key.run(&["check"]).ends(2).complains("everybody on this machine may read the key");
    with_key.run(&["user", "add", "tech", "--local", "--role", "root", "--link"]).ends(2);
    assert!(!with_key.data().join("store.redb").exists());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    // A new store is encrypted from its first byte.
    with_key.serve(&["--demo"]).stop();
    assert!(!lies_open(&with_key, "Betz"));
    let path = with_key.data().join("store.redb");
    let mut bytes = fs::read(&path).unwrap();
    // Not its head, but everything else, wherever the records lie.
    let from = bytes.len() / 8;
    bytes[from..].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&path, bytes).unwrap();
    with_key.run(&["db", "check"]).ends(1).complains("damaged beyond repair");
}
