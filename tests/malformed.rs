//! Malformed requests against the real program: no 5xx, no panic, no dropped answer, and it serves on.
//! `tests/tools/malformed.py` makes them and judges the answers.
//!
//! A hundred thousand, which takes minutes without optimization; a million with
//! `THALAMUS_EDGE_TEST_LONG` set.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the environment chooses the length")]

mod support;

use std::process::Command;

use support::demo::DemoNode;

const REQUESTS: u32 = 100_000;
const REQUESTS_LONG: u32 = 1_000_000;
const WORKERS: u32 = 2;

#[test]
fn no_request_fails_or_harms_the_node() {
    let mut node = DemoNode::start();
    let count = if std::env::var_os("THALAMUS_EDGE_TEST_LONG").is_some() { REQUESTS_LONG } else { REQUESTS };
    let run = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/malformed.py"))
        .args(["--url", &node.url, "--user", "ARGBUE111FAV", "--password", "freedom", "--seed", "1"])
        .args(["--count", &count.to_string(), "--workers", &WORKERS.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    println!("{said}");
    assert!(run.status.success(), "{said}");
    assert!(said.contains(" 0 5xx"), "{said}");
    assert!(said.contains(&format!("\n{count} requests")), "{said}");
    assert!(node.is_alive());
    let log = node.stop();
    for word in ["panicked", "ERROR"] {
        assert!(!log.contains(word), "{log}");
    }
}
