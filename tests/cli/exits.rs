//! A node that does not start because of its configuration, or of what it points to, ends with 2; so does `check`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use thalamus_edge::app::store_file;

use super::cli_support::Clinic;

/// Configuration files, each with a fault.
const WRONG: &str = include_str!("../../src/config/tests/wrong.txt");
/// Names every key, behind a #, with its default.
const SAMPLE: &str = include_str!("../../etc/config.toml");

/// `check` and `serve` end alike; returns whether the node would not start.
fn is_refused(clinic: &Clinic, options: &[&str], what: &str) -> bool {
    let run = |command| {
        let mut args = vec![command];
        args.extend(options);
        clinic.run(&args)
    };
    let checked = run("check");
    if checked.code() == Some(0) {
        return false;
    }
    for ran in [checked, run("serve")] {
        assert_eq!(ran.code(), Some(2), "{what}\n{}\n{}", ran.out, ran.err);
        assert!(!ran.err.contains("panicked"), "{what}\n{}", ran.err);
    }
    true
}

#[test]
fn every_refused_start_ends_with_the_code_of_a_wrong_configuration() {
    let clinic = Clinic::new();
    let mut refused = 0;
    let file = clinic.path("config.toml");
    let with_file = ["--config", file.to_str().unwrap()];
    let mut texts: Vec<String> = WRONG.trim_end().split("\n---\n").map(str::to_owned).collect();
    let mut section = "";
    for line in SAMPLE.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
        let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) else {
            continue;
        };
        if !key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            continue;
        }
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        for value in ["{ zzz = \"x\" }", "[[\"x\"]]", "\"mongodb://edge:s3cret@hub/\"", "-1"] {
            texts.push(format!("{header}{key} = {value}"));
        }
    }
    for text in &texts {
        fs::write(&file, text).unwrap();
        refused += u32::from(is_refused(&clinic, &with_file, text));
    }
    assert!(refused > 150, "{refused} of {}", texts.len());
    eprintln!("{refused} of {} files", texts.len());
}

#[test]
fn what_a_configuration_points_to_keeps_a_node_from_starting_with_the_same_code() {
    let clinic = Clinic::new();
    fs::write(clinic.path("file"), "no key, no rules, no certificate").unwrap();
    let file = clinic.path("file").to_str().unwrap().to_owned();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (key, value) in [
        ("DATA_DIR", file.as_str()),
        ("SERVER__LISTEN", "192.0.2.1:8443"),
        ("ACCOUNTS__ROLES_FILE", &file),
        ("ACCOUNTS__ROLES_FILE", "/absent"),
        ("CENTRAL__URI_FILE", "/absent"),
        ("CENTRAL__URI", "mongodb://hub/?tls=true&tlsCAFile=/absent"),
        ("STORE__KEY_FILE", "/absent"),
        ("STORE__KEY_FILE", &file),
        ("SERVER__LISTEN", &taken),
        ("CENTRAL__SCHEDULE", "0 0 0 30 2 *"),
    ] {
        assert!(is_refused(&clinic.with(key, value), &[], value), "{key} {value}");
    }
    let certificate = clinic.with("SERVER__TLS", "true").with("SERVER__CERTIFICATE", &file);
    assert!(is_refused(&certificate.with("SERVER__KEY", &file), &[], "no certificate"));
    // The store: of another key, cut off, zeros, an index of which no part is left, and whatever two bits do.
    clinic.serve(&["--demo"]).stop();
    let store = store_file(&clinic.data());
    let whole = fs::read(&store).unwrap();
    clinic.run(&["db", "keygen", "store.key"]).ends(0);
    let key = clinic.path("store.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(is_refused(&clinic.with("STORE__KEY_FILE", key.to_str().unwrap()), &[], "no encrypted store"));
    let mut refused = 0;
    let pages = whole.len() / 4096;
    for n in 0..60 {
        let mut bytes = whole.clone();
        let page = 1 + n * 7 % (pages - 1);
        let page = &mut bytes[page * 4096..(page + 1) * 4096];
        match n % 3 {
            0 => page.fill(0),
            1 => page[..512].fill(0),
            _ => page[8] ^= 6,
        }
        fs::write(&store, &bytes).unwrap();
        let what = format!("page {} {}", 1 + n * 7 % (pages - 1), n % 3);
        if is_refused(&clinic, &[], &what) {
            refused += 1;
            continue;
        }
        // Where `check` finds nothing the node starts.
        clinic.serve(&[]).stop();
    }
    assert!(refused > 5, "{refused}");
    for length in [0, 100, 4096, whole.len() / 2, whole.len() - 4096] {
        fs::write(&store, &whole[..length]).unwrap();
        assert!(is_refused(&clinic, &[], &format!("{length} bytes")), "{length} bytes");
    }
}

/// What no node could understand is an argument that makes no sense, whether a node runs or not.
#[test]
fn a_moment_that_is_none_ends_as_a_wrong_argument() {
    let clinic = Clinic::new();
    for since in ["yesterday", "2026-13-01T00:00:00Z", ""] {
        let args = ["user", "enable", "--all-inactive", "--since", since];
        clinic.run(&args).ends(2).complains("must be a moment such as 2026-11-29T00:00:00Z");
    }
}
