//! More connections than the process may have open files: those that are there are served, others wait.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use super::support::node::EdgeNode;

/// Files that the process may open beyond those that it has.
const SPARE_FILES: u64 = 12;
const CONNECTIONS: usize = 60;
const CALLS: usize = 40;
/// Lines that the log may grow by beside the one of every call.
const LOG_LINES_MAX: usize = 20;
/// Longest that a new connection may take afterwards before the test takes it for refused.
const ACCEPT_SECONDS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_descriptors_serves_whom_it_has() {
    let node = EdgeNode::start("descriptors", "", "federation").await;
    node.done("POST", "/personal-documents/d1", Some(&json!({"fedacct": "ANA001"}))).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid().as_raw_nonzero())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + SPARE_FILES), maximum: Some(open + SPARE_FILES) };
    prlimit(Some(node.pid()), Resource::Nofile, limit).unwrap();

    let lines_before = node.log().lines().count();
    let silent: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(node.address()).unwrap()).collect();
    // Over the connection that is there, reading and writing.
    for number in 0..CALLS {
        node.patch("/personal-documents/d1", json!({"f": number})).await;
        assert_eq!(node.get("/personal-documents/d1").await["f"], number);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let taken =
        std::fs::read_dir(format!("/proc/{}/fd", node.pid().as_raw_nonzero())).unwrap().count() as u64;
    assert!(taken >= open + SPARE_FILES - 1, "{taken} of {} files are open", open + SPARE_FILES);
    let lines = node.log().lines().count() - lines_before;
    assert!(lines <= 2 * CALLS + LOG_LINES_MAX, "{lines} lines in the log:\n{}", node.log());

    drop(silent);
    let started = Instant::now();
    loop {
        match node.new_client().call("GET", "/personal-documents/d1", &[], None).await {
            Ok(reply) => break assert_eq!(reply.status, 200),
            Err(_) => assert!(started.elapsed() < Duration::from_secs(ACCEPT_SECONDS_MAX), "{}", node.log()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "{CONNECTIONS} connections, {SPARE_FILES} descriptors: {lines} lines of log, accepted again after {:?}",
        started.elapsed()
    );
}
