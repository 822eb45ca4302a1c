//! What `tests/demonstrate` shows: one centre, five nodes and a legacy application, edits on all sides,
//! rounds one by one and all at once, nodes killed in the middle, and the checker's verdict.

use std::time::{Duration, Instant};

use super::random::Run;
use super::support::federation::Federation;

const NODES: [&str; 5] = ["north", "south", "east", "west", "island"];
/// Length in every run of the tests; the script asks for more.
const SECONDS_DEFAULT: u64 = 8;
const SECONDS_VARIABLE: &str = "THALAMUS_EDGE_DEMONSTRATION_SECONDS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demonstration() {
    let seconds = std::env::var(SECONDS_VARIABLE).map_or(SECONDS_DEFAULT, |text| text.parse().unwrap());
    let seed = std::env::var("THALAMUS_EDGE_TEST_SEED").map_or(7, |text| text.parse().unwrap());
    println!("one centre, {} nodes, a legacy application: {seconds} s of chaos, seed {seed}", NODES.len());
    let mut run = Run::new(seed, Federation::start(&NODES).await).await;
    let started = Instant::now();
    let (mut operations, mut told) = (0, 0);
    while started.elapsed() < Duration::from_secs(seconds) {
        if operations % 10 == 9 {
            run.agree_to_deletes().await;
            run.rounds_at_once().await;
        } else {
            run.one_operation().await;
        }
        operations += 1;
        if started.elapsed().as_secs() / 10 > told {
            told = started.elapsed().as_secs() / 10;
            println!("{:>4} s: {operations} operations, last: {}", told * 10, run.story.last().unwrap());
        }
    }
    let deaths = run.story.iter().filter(|line| line.ends_with(": died")).count();
    println!("{operations} operations, {deaths} deaths of nodes; now everybody reconciles");
    run.agree_to_deletes().await;
    run.conclude().await;
    println!("verdict: every edit is visible, was overwritten by someone who saw it, or is recorded");
}
