//! Pipes, sockets, devices and directories in the place of files: each command says what is in the way, and none waits for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cli_support::{Clinic, Ran};

/// What no command may take. None of them reads much, and debug builds share the machine with others.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Puts something else in the place of a file; returns what a message calls it.
type Odd = fn(&Path) -> &'static str;

fn pipe(path: &Path) -> &'static str {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    "a pipe (FIFO)"
}

fn directory(path: &Path) -> &'static str {
    fs::create_dir(path).unwrap();
    "a directory"
}

fn socket(path: &Path) -> &'static str {
    drop(UnixListener::bind(path).unwrap());
    "a socket"
}

fn device(path: &Path) -> &'static str {
    symlink("/dev/zero", path).unwrap();
    "a device"
}

const ODD: [Odd; 4] = [pipe, directory, socket, device];

fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path);
    let _ = fs::remove_file(path);
}

fn quick(clinic: &Clinic, args: &[&str]) -> Ran {
    let began = Instant::now();
    let ran = clinic.run(args);
    assert!(began.elapsed() < TIME_MAX, "{args:?} took {:?}", began.elapsed());
    ran
}

fn backup_in(clinic: &Clinic, number: &str) -> PathBuf {
    let entries = fs::read_dir(clinic.data().join("backups")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.collect();
    found.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.contains(number) && name.ends_with(".backup")
    });
    found.pop().unwrap()
}

#[test]
fn beside_backups_nothing_is_waited_for() {
    for odd in ODD {
        let clinic = Clinic::new().with("BACKUP__KEEP", "2");
        clinic.make_store();
        for _ in 0..2 {
            clinic.run(&["backup", "create"]).ends(0);
        }
        let newest = backup_in(&clinic, "-00000002-");
        let checksum = PathBuf::from(format!("{}.sha256", newest.display()));
        remove(&checksum);
        let name = odd(&checksum);
        let file = newest.to_str().unwrap();
        let node = clinic.serve(&[]);
        let verified = quick(&clinic, &["backup", "verify", file]);
        let listed = quick(&clinic, &["backup", "list"]);
        let doctor = quick(&clinic, &["doctor"]);
        if name == "a directory" {
            // That is nobody's checksum.
            verified.ends(0).says("no checksum stands beside it");
            listed.ends(0).says(" none");
            doctor.says("no checksum stands beside");
        } else {
            verified.ends(1).complains(name);
            listed.ends(1).says("WRONG: not compared").says(name);
            doctor.says(name).says(".sha256");
        }
        for _ in 0..3 {
            quick(&clinic, &["backup", "create"]).ends(0);
        }
        // Whole ones stay, whatever else is there.
        quick(&clinic, &["backup", "verify", backup_in(&clinic, "-00000005-").to_str().unwrap()]).ends(0);
        quick(&clinic, &["backup", "verify", backup_in(&clinic, "-00000004-").to_str().unwrap()]).ends(0);
        let began = Instant::now();
        node.signal(Signal::TERM);
        node.ended(0);
        assert!(began.elapsed() < TIME_MAX);
    }
}

#[test]
fn what_the_configuration_names_is_a_file() {
    for odd in ODD {
        let clinic = Clinic::new();
        let path = clinic.path("odd");
        let name = odd(&path);
        let text = path.to_str().unwrap();
        for key in [
            "ACCOUNTS__ROLES_FILE",
            "CENTRAL__URI_FILE",
            "STORE__KEY_FILE",
            "SERVER__CERTIFICATE",
            "SERVER__KEY",
        ] {
            let named = clinic.with(key, text);
            for command in [&["check"][..], &["serve"], &["sync", "now"]] {
                let ran = quick(&named, command);
                assert_ne!(ran.code(), Some(0), "{key} {command:?}");
                assert!(ran.err.contains(name) || command[0] == "sync", "{key} {command:?}: {}", ran.err);
            }
            quick(&named, &["doctor"]);
        }
        let named = clinic.with("CENTRAL__URI", &format!("mongodb://127.0.0.1:1/?tls=true&tlsCAFile={text}"));
        quick(&named, &["check"]).ends(2).complains(name);
        let named = clinic
            .with("CENTRAL__URI", &format!("mongodb://127.0.0.1:1/?tls=true&tlsCertificateKeyFile={text}"));
        quick(&named, &["check"]).ends(2).complains(name);
        for args in [
            &["check", "--config", text][..],
            &["backup", "verify", text],
            &["import", text, "--collection", "people"],
            &["setup", "--from", text, "--yes"],
        ] {
            let ran = quick(&clinic, args);
            assert_ne!(ran.code(), Some(0), "{args:?}");
        }
        quick(&clinic, &["backup", "verify", text]).ends(1).complains(name);
        // A pipe is waited for here.
        if name != "a pipe (FIFO)" {
            quick(&clinic, &["audit", "verify", "--file", text]).ends(1).complains(name);
            quick(&clinic, &["backup", "verify", "/dev/null", "--identity", text]).ends(1).complains(name);
        }
    }
}

/// `<(zcat FILE)` is one: what is named on the command line and read once may come through it.
#[test]
fn pipes_on_the_command_line_are_read() {
    let clinic = Clinic::new();
    clinic.make_store();
    let through = |text: &str, args: &[&str]| {
        let path = clinic.path("through");
        pipe(&path);
        let (to, text) = (path.clone(), text.to_owned());
        let writer = std::thread::spawn(move || fs::write(to, text).unwrap());
        let ran = quick(&clinic, &[args, &[path.to_str().unwrap()]].concat());
        writer.join().unwrap();
        remove(&path);
        ran
    };
    let keys = clinic.run(&["backup", "keygen"]).ends(0).out.clone();
    clinic.run(&["backup", "create"]).ends(0);
    let backup = backup_in(&clinic, "-00000001-");
    through(&keys, &["backup", "verify", backup.to_str().unwrap(), "--identity"]).ends(0);
    let trail = clinic.run(&["audit", "export"]).ends(0).out.clone();
    through(&trail, &["audit", "verify", "--file"]).ends(0);
}

#[test]
fn in_the_data_directory_nothing_is_waited_for() {
    for odd in ODD {
        let clinic = Clinic::new().with("SERVER__TLS", "true");
        clinic.serve(&[]).stop();
        for file in ["tls/ca.pem", "tls/ca-key.pem", "tls/cert.pem", "tls/key.pem", "store.redb"] {
            let path = clinic.data().join(file);
            let kept = clinic.path("kept");
            fs::rename(&path, &kept).unwrap();
            odd(&path);
            for args in
                [&["check"][..], &["doctor"], &["db", "check"], &["backup", "create"], &["user", "list"]]
            {
                quick(&clinic, args);
            }
            remove(&path);
            fs::rename(&kept, &path).unwrap();
        }
        clinic.serve(&[]).stop();
    }
}
