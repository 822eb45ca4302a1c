//! The simulation of SYNC: the real engine over real stores against a simulated centre, in virtual time, with
//! everything that goes wrong chosen by seed. Needs the feature `failpoints`.
//!
//! `THALAMUS_EDGE_TEST_SEED=n` runs one seed and prints what happened; `THALAMUS_EDGE_TEST_SEEDS=a-b` runs these;
//! `THALAMUS_EDGE_TEST_LONG` runs many more.
//!
//! # What the simulated centre, the faults, the checker and the code take for granted
//!
//! They were written by the same people, so what all of them assume is tested by none of them. Every assumption that
//! was found is listed here, with what was made of it.
//!
//! | assumption | what was made of it |
//! |---|---|
//! | a copy of the centre is made while no node is busy | copies at any moment; by dump (new history) or by files (the old history, cut off) |
//! | an acknowledged write is on the centre's disk | `is_lazy`: batches of writes reach the disk with the next other write; `CentreCrash` |
//! | a position in the feed is never ahead of the centre | `accepts_positions_ahead` |
//! | moments of the centre's history begin anew with it | one clock over all restores |
//! | the same server answers during a whole conversation | `era` is the process; every crash and restore changes it |
//! | a record id belongs to one person for ever | records of other people under the same id; legacy applications that give records away |
//! | whoever sees a value may write it anywhere | `misplaced`: every value belongs to the person for whom it was written, or to whom the record was given by somebody who saw it |
//! | the centre takes every person | `Refusal`; `sent_before_their_person` |
//! | what a node delivers again does no harm | `calm` plans: nothing but old images, and no value may come twice |
//! | a node has its name before anything is edited | images from before the first round, in `calm` plans |
//! | two rounds of one node never run at once | the reconciler joins callers; tests/rounds.rs; over the wire in tests/chaos |
//! | journals and lists are never full | `journal_keep_rows` is 200 here; that more than 1,000 records are taken between two seals, or 64 edits stay undelivered, is not reached by few records: tests/holds and tests/store look at the bounds |
//! | few and small records | tests/attachments, tests/crash and tests/chaos carry large ones; sizes at the centre's limit are in tests/holds |
//! | ids are text | records with other ids are left alone and counted: tests/rounds.rs |
//! | nobody but nodes writes `edge_*` | decisions at the centre are written here; forged and deleted rows are in tests/holds |
//! | people have one name each, of two | twelve typographies are not tried here |
//! | attachments never fail together with records | they have a lane of their own after the records: tests/attachments, tests/chaos |
//! | a virtual machine does not go on from a snapshot with its memory | cannot be told from one process; docs/SYNC.md says so |

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the environment chooses seeds and lengths")]

mod support;

#[path = "simulation/checker.rs"]
mod checker;
#[path = "simulation/clinic.rs"]
mod clinic;
#[path = "simulation/decisions.rs"]
mod decisions;
#[path = "simulation/edits.rs"]
mod edits;
#[path = "simulation/ending.rs"]
mod ending;
#[path = "simulation/mutants.rs"]
mod mutants;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/versions.rs"]
mod versions;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use plan::Plan;
use thalamus_edge::flaw;
use world::World;

const SEEDS: std::ops::Range<u64> = 1..201;
/// Of those in which only old images come between.
const SEEDS_CALM: std::ops::Range<u64> = 1..61;
const SEEDS_LONG: std::ops::Range<u64> = 1..20_001;

/// What a run came to.
#[derive(Default)]
struct Ran {
    complaints: Vec<String>,
    story: Vec<String>,
    /// The simulation itself fell over.
    has_panicked: bool,
    edits: usize,
    repeats: usize,
    happened: BTreeMap<&'static str, u64>,
    passed: BTreeMap<String, u64>,
}

/// Runs a plan in a virtual time of its own.
fn run(plan: Plan) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let seed = plan.seed;
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::new(plan);
            let sim = world.sim.clone();
            flaw::count_ids(true);
            flaw::on_step(Some(Rc::new(move |step| sim.pass_step(step))));
            world.live().await;
            if world.complaints.is_empty() {
                world.heal().await;
            }
            if world.complaints.is_empty() && world.plan.decides_holds {
                world.decide_all_holds().await;
            }
            if world.complaints.is_empty() {
                world.converge().await;
            }
            let repeats = if world.complaints.is_empty() { world.judge() } else { 0 };
            let state = world.sim.state();
            Ran {
                complaints: world.complaints.clone(),
                story: world.story.clone(),
                has_panicked: false,
                edits: world.edits.len(),
                repeats,
                happened: state.weather.happened.clone(),
                passed: state.passed.clone(),
            }
        })
    }));
    flaw::on_step(None);
    flaw::count_ids(false);
    ended.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        let complaint = format!("seed {seed}: {}", said.unwrap_or_else(|| "a panic".to_owned()));
        Ran { complaints: vec![complaint], has_panicked: true, ..Ran::default() }
    })
}

/// The names of all steps, from the source, so that a new one is not forgotten here.
fn all_steps() -> Vec<String> {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sync");
    let mut names = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        // Below it are only tests.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        for rest in text.split("step(\"").skip(1) {
            names.insert(rest.split('"').next().unwrap().to_owned());
        }
    }
    names.into_iter().collect()
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    total: Ran,
    failed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, seed: u64, ran: Ran, is_told: bool) {
        if is_told {
            println!("{}", ran.story.join("\n"));
        }
        if !ran.complaints.is_empty() {
            self.failed.push(seed);
            println!("seed {seed} fails: {}", ran.complaints[0]);
            if self.failed.len() <= 3 {
                println!(
                    "seed {seed}; to run it alone: THALAMUS_EDGE_TEST_SEED={seed}\n{}\n{}",
                    ran.story.join("\n"),
                    ran.complaints.join("\n")
                );
            }
        }
        let total = &mut self.total;
        total.edits += ran.edits;
        total.repeats += ran.repeats;
        ran.happened.iter().for_each(|(name, count)| *total.happened.entry(name).or_default() += count);
        ran.passed.into_iter().for_each(|(name, count)| *total.passed.entry(name).or_default() += count);
    }
}

/// What was run, as far as git knows.
fn commit() -> String {
    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let said = git.ok().filter(|said| said.status.success()).map(|said| said.stdout);
    said.and_then(|said| String::from_utf8(said).ok())
        .map_or("unknown".to_owned(), |said| said.trim().to_owned())
}

#[test]
fn seeds_lose_nothing() {
    let chosen: Option<u64> = std::env::var("THALAMUS_EDGE_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let range = std::env::var("THALAMUS_EDGE_TEST_SEEDS").ok();
    let range = range.map(|range| {
        let (first, last) = range.split_once('-').expect("two numbers, as in 301-900");
        first.parse().unwrap()..last.parse::<u64>().unwrap() + 1
    });
    let is_long = range.is_some() || std::env::var_os("THALAMUS_EDGE_TEST_LONG").is_some();
    let seeds = match chosen {
        _ if range.is_some() => range.unwrap_or_default(),
        Some(seed) => seed..seed + 1,
        None if is_long => SEEDS_LONG,
        None => SEEDS,
    };
    // Each thread has a virtual time of its own.
    let threads = if is_long { std::thread::available_parallelism().map_or(1, NonZero::get) } else { 1 };
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let steps = all_steps();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let ran = run(Plan { is_told: chosen.is_some(), ..Plan::of(seed, &steps) });
                    sum.lock().unwrap().add(seed, ran, chosen.is_some());
                }
            });
        }
    });
    let Sum { total, failed } = sum.into_inner().unwrap();
    println!(
        "seeds {seeds:?} at commit {}: {} edits, {} repeats, {:?}\n{:?}\n{:?} failed {failed:?}",
        commit(),
        total.edits,
        total.repeats,
        total.happened,
        total.passed,
        started.elapsed()
    );
    assert!(failed.is_empty(), "{failed:?}");
}

/// Old images of disks, and nothing else that goes wrong: what was delivered from them is not delivered again.
#[test]
fn images_deliver_nothing_twice() {
    let steps = all_steps();
    let mut failed = Vec::new();
    for seed in SEEDS_CALM {
        let mut plan = Plan::of(seed, &steps);
        plan.calm();
        let ran = run(plan);
        if let Some(complaint) = ran.complaints.first() {
            println!("seed {seed}: {complaint}\n{}", ran.story.join("\n"));
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
