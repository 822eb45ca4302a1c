//! The three examples that Thalamus's users know, run by the real clients against the real program.
//!
//! They live in a virtual environment that `tests/run` makes.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::demo::{DemoNode, client};

const PROFESSIONAL: &str = "ITPYT999HON:gnusolidario";

fn output(command: &mut Command) -> String {
    let run = command.output().unwrap();
    assert!(run.status.success(), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

fn http(node: &DemoNode, arguments: &[&str], path: &str) -> String {
    let mut command = client("http");
    command.args(["--ignore-stdin", "--verify", "no", "--auth", PROFESSIONAL]).args(arguments);
    output(command.arg(format!("{}{path}", node.url)))
}

fn http_json(node: &DemoNode, path: &str) -> Value {
    serde_json::from_str(&http(node, &["--body"], path)).unwrap()
}

/// Ana Betz as the documentation of Thalamus shows her.
fn ana() -> Value {
    json!({
        "_id": "ESGNU777ORG", "id": "ESGNU777ORG", "active": true, "biological_sex": "female",
        "dob": "Fri, 04 Oct 1985 13:05:00 GMT", "education": "tertiary", "ethnicity": "latino",
        "gender": "female", "lastname": "Betz", "marital_status": "married", "name": "Ana",
        "profession": "teacher", "roles": ["end_user"]})
}

#[test]
fn httpie_reads_one_person_and_all() {
    let node = DemoNode::start();
    assert_eq!(http_json(&node, "/people/ESGNU777ORG"), ana());
    let head = http(&node, &["--headers"], "/people/ESGNU777ORG");
    let mut lines = head.lines();
    assert_eq!(lines.next().unwrap().trim_end(), "HTTP/1.1 200 OK");
    assert!(
        lines.any(|line| line.trim_end().eq_ignore_ascii_case("content-type: application/json")),
        "{head}"
    );
    let people = http_json(&node, "/people");
    let ids: Vec<&str> =
        people.as_array().unwrap().iter().map(|person| person["_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["ARGBUE111FAV", "ESGNU777ORG", "ESPGNU777ORG", "ITAPYT999HON", "ITPYT999HON"]);
    assert_eq!(people[1], ana());
    let later = json!({
        "_id": "ESPGNU777ORG", "id": "ESPGNU777ORG", "active": true, "dob": "1985-10-04", "education": "tertiary",
        "ethnicity": "latino", "gender": "f", "lastname": "Betz", "marital_status": "married", "name": "Ana",
        "profession": "teacher", "roles": ["end_user"]});
    assert_eq!(people[2], later);
    assert_eq!(people[4]["dob"], "Fri, 05 Oct 1984 09:00:00 GMT");
    assert_eq!(people[4]["roles"], json!(["end_user", "health_professional"]));
    assert_eq!(people[0]["profession"], "System Administrator");
    assert!(!people.to_string().contains("$2b$"));
    let pages = http_json(&node, "/pols/ESPGNU777ORG");
    let pages: BTreeSet<&str> =
        pages.as_array().unwrap().iter().map(|page| page["id"].as_str().unwrap()).collect();
    let expected = ["119b352e-8e4f-4847-9f05-53462cf94f10", "919c352f-7e4f-5341-7c22-8423acf76b32"];
    assert_eq!(pages, BTreeSet::from(expected));
}

#[test]
fn python_requests_reads_one_person() {
    let node = DemoNode::start();
    let script = format!(
        "import json, requests, urllib3\n\
         urllib3.disable_warnings()\n\
         print(json.dumps(requests.get('{}/people/ESGNU777ORG', auth=('ITPYT999HON','gnusolidario'), verify=False).json()))\n",
        node.url
    );
    let read: Value = serde_json::from_str(&output(client("python").args(["-c", &script]))).unwrap();
    assert_eq!(read, ana());
}

/// Two such connections stopped a Thalamus with two workers for 30 seconds.
#[test]
fn silent_connections_hold_up_nobody() {
    let node = DemoNode::start();
    let address = node.url.strip_prefix("https://").unwrap();
    http_json(&node, "/login");
    // As many as one client may have without a whole request.
    let silent: Vec<TcpStream> = (0..90).map(|_| TcpStream::connect(address).unwrap()).collect();
    let started = Instant::now();
    assert_eq!(http_json(&node, "/login"), json!(true));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    for mut connection in silent {
        connection.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = connection.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "they were still open");
    }
}
