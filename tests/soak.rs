//! Ordinary work for a long time, with the centre at the other end: what the process holds must not grow.
//!
//! The samples are printed (`--no-capture`). `THALAMUS_EDGE_TEST_LONG` makes it an hour with a round every minute.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the environment says how long the test is")]

mod support;

#[path = "soak/load.rs"]
mod load;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::doc;
use serde_json::json;
use support::federation::Federation;
use support::generator;
use support::node::EdgeNode;

use load::CONNECTIONS_MAX;

const PEOPLE: usize = 100;
const PAGES: usize = 2_000;
/// Page cache of the node, in bytes: the smallest that it takes, and less than it stores, so that it is full early.
const CACHE_BYTES: &str = "1048576";
/// The fewest that the node takes, so that both tables have their full length as early as can be.
const JOURNAL_KEEP_ROWS: &str = "1000";
const AUDIT_KEEP_ROWS: &str = "10000";
/// Rounds without which nothing was tried.
const ROUNDS_MIN: i64 = 5;
/// Files that a round may open: the driver's connections, each of which has further ends in the process itself (see
/// `central/mongo/line.rs`).
const ROUND_DESCRIPTORS_MAX: usize = 16;
/// What resident memory may grow by between two thirds of the time, in KiB: pages that the allocator has not given
/// back. 4 KiB kept for each request would be more than twice as much in the quick form.
const GROWTH_KB_MAX: u64 = 3 * 1024;
/// How often a process without work is looked at for the least that it holds: for longer than two rounds take.
const LOOKS: usize = 35;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The same once it had work. Each look is a request, and the threads for blocking work take such in turn: looked at more often
/// than they end (`cli::IDLE_THREAD`), all of them would stay.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(2_500);
/// Longest that the node may take to close what it needs no more, before the test takes it for kept.
const CLOSE_S_MAX: u64 = 120;
const NEVER: &str = "0 0 0 1 1 *";

/// How long, and how often.
struct Plan {
    lasts: Duration,
    sample_every: Duration,
    /// When rounds are run, and when the node looks through everything; cron with seconds.
    rounds: &'static str,
    verification: &'static str,
    /// How often a record is deleted at the centre: fewer than would halt the node go between two verifications.
    centre_deletes_every: Duration,
}

const QUICK: Plan = Plan {
    lasts: Duration::from_secs(30),
    sample_every: Duration::from_millis(250),
    rounds: "*/3 * * * * *",
    verification: "*/12 * * * * *",
    centre_deletes_every: Duration::from_secs(2),
};
const LONG: Plan = Plan {
    lasts: Duration::from_secs(3600),
    sample_every: Duration::from_secs(5),
    rounds: "0 * * * * *",
    verification: "30 */10 * * * *",
    centre_deletes_every: Duration::from_secs(60),
};

/// What the system says of a process.
#[derive(Debug, Clone, Copy)]
struct Sample {
    resident_kb: u64,
    /// The most that was ever resident.
    peak_kb: u64,
    descriptors: usize,
    threads: usize,
}

impl Sample {
    /// Of a node with one client that has just asked for something.
    async fn of(node: &EdgeNode) -> Sample {
        let status = node.get("/sync/status").await;
        let last_round = &status["last_round"];
        assert!(last_round.is_null() || last_round["outcome"] == "complete", "{status}");
        let process = format!("/proc/{}", node.pid().as_raw_nonzero());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Sample {
            resident_kb: number("VmRSS:"),
            peak_kb: number("VmHWM:"),
            descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count(),
            threads: usize::try_from(number("Threads:")).unwrap(),
        }
    }

    /// The fewer of the descriptors and of the threads.
    fn or_less(self, other: Sample) -> Sample {
        Sample {
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
            ..other
        }
    }
}

/// The least that the node holds with nothing to do but a round now and then.
async fn at_rest(node: &EdgeNode) -> Sample {
    let mut least = Sample::of(node).await;
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK_EVERY).await;
        least = least.or_less(Sample::of(node).await);
    }
    least
}

/// Waits until the node holds no more than it did `before` it had work; the least of each, as [`at_rest`] takes it, because a
/// round may be under way at any look.
async fn comes_to_rest(node: &EdgeNode, before: Sample) {
    let started = Instant::now();
    let mut least = Sample::of(node).await;
    while least.descriptors > before.descriptors || least.threads > before.threads {
        let is_late = started.elapsed() > Duration::from_secs(CLOSE_S_MAX);
        assert!(!is_late, "without work the node keeps more than before: {before:?}, at least {least:?}");
        tokio::time::sleep(LOOK_AGAIN_EVERY).await;
        least = least.or_less(Sample::of(node).await);
    }
}

fn median_kb(samples: &[Sample]) -> u64 {
    let mut resident: Vec<u64> = samples.iter().map(|sample| sample.resident_kb).collect();
    resident.sort_unstable();
    resident[resident.len() / 2]
}

/// The number of the node's lease, which every round renews.
async fn lease_number(federation: &Federation) -> i64 {
    let rows = federation.rows("edge_nodes", doc! {}).await;
    let [row] = &rows[..] else { panic!("one node: {rows:?}") };
    row.get_document("lease").unwrap().get_i64("number").unwrap()
}

/// A node that has taken everything from the centre, and goes on by itself.
async fn start(plan: &Plan) -> Federation {
    let mut federation = Federation::start(&["soak"]).await;
    let people = generator::people(PEOPLE, 1);
    federation.centre("people").insert_many(&people).await.unwrap();
    federation.centre("pols").insert_many(generator::pages(PAGES, &people, 2)).await.unwrap();
    let node = &mut federation.nodes[0];
    node.round().await;
    node.set("STORE__CACHE_BYTES", CACHE_BYTES);
    node.set("STORE__JOURNAL_KEEP_ROWS", JOURNAL_KEEP_ROWS);
    node.set("STORE__AUDIT_KEEP_ROWS", AUDIT_KEEP_ROWS);
    node.set("CENTRAL__SCHEDULE", plan.rounds);
    node.set("CENTRAL__VERIFY_SCHEDULE", plan.verification);
    node.restart(None).await;
    federation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_while_a_node_works_and_reconciles() {
    let plan = if std::env::var_os("THALAMUS_EDGE_TEST_LONG").is_some() { LONG } else { QUICK };
    let mut federation = start(&plan).await;
    let node = &federation.nodes[0];
    let (resting, lease_before) = (at_rest(node).await, lease_number(&federation).await);

    let is_over = Arc::new(AtomicBool::new(false));
    let load = load::begin(&federation, plan.centre_deletes_every, &is_over).await;
    let (began, mut samples) = (Instant::now(), Vec::new());
    println!("seconds, KiB resident, the most ever, descriptors, threads");
    while began.elapsed() < plan.lasts && load.goes_on() {
        tokio::time::sleep(plan.sample_every).await;
        let sample = Sample::of(node).await;
        let Sample { resident_kb, peak_kb, descriptors, threads } = sample;
        let seconds = began.elapsed().as_secs_f64();
        println!("{seconds:7.2} {resident_kb} {peak_kb} {descriptors} {threads}");
        samples.push(sample);
    }
    is_over.store(true, Ordering::Relaxed);
    println!("{:?}", load.ended().await);
    let rounds = lease_number(&federation).await - lease_before;

    // The first third is for warming up.
    let third = samples.len() / 3;
    let (second, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let (before_kb, after_kb) = (median_kb(second), median_kb(last));
    let (peak_before_kb, peak_after_kb) = (second[third - 1].peak_kb, last[last.len() - 1].peak_kb);
    let most = samples.iter().map(|sample| sample.descriptors).max().unwrap();
    println!(
        "{rounds} rounds; KiB resident: {before_kb}, then {after_kb}; the most ever: {peak_before_kb}, then \
         {peak_after_kb}; descriptors: {most}, at rest {}",
        resting.descriptors
    );
    assert!(rounds >= ROUNDS_MIN, "{rounds} rounds");
    assert!(after_kb <= before_kb + GROWTH_KB_MAX, "resident memory grows");
    assert!(peak_after_kb <= peak_before_kb + GROWTH_KB_MAX, "the most that is resident grows");
    let descriptors_max = resting.descriptors + CONNECTIONS_MAX + ROUND_DESCRIPTORS_MAX;
    assert!(most <= descriptors_max, "{most} descriptors, {descriptors_max} at most");
    comes_to_rest(node, resting).await;

    // What was tried is what was meant: both sides hold the same afterwards.
    assert_eq!(node.get("/sync/conflicts").await, json!([]));
    let node = &mut federation.nodes[0];
    node.set("CENTRAL__SCHEDULE", NEVER);
    node.set("CENTRAL__VERIFY_SCHEDULE", NEVER);
    node.restart(None).await;
    federation.converge().await;
}
