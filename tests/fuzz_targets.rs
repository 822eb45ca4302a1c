//! The fuzz targets without a fuzzer: every seed, and mutations of it that are the same on every machine.
//! `tests/fuzz/run` goes further.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "support/generator.rs"]
mod generator;
#[path = "fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use generator::Numbers;
use targets::{Feed, TARGETS};

/// Mutations for each target.
const MUTATIONS: u64 = 4_000;
/// Changes that make one mutation, at most.
const CHANGES_MAX: u64 = 4;
/// What means something to one of the readers: put in more often than chance would.
const WORDS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b":",
    b",",
    b"\x1e",
    b"\n",
    b"null",
    b"true",
    b"-0.0",
    b"1e400",
    b"\"_id\"",
    b"\"id\":1,",
    b"\"roles\"",
    b"\"active\"",
    b"\"content\"",
    b"{\"$date\":0}",
    b"\"a.b\":",
    b"\"$x\":",
    b"\xff",
    b"\0",
];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let seeds: Vec<_> = entries(&corpus().join(name)).iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds
}

fn mutation(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = numbers.pick(seeds).clone();
    for _ in 0..=numbers.below(CHANGES_MAX) {
        let place = |numbers: &mut Numbers, length: usize| numbers.below(length as u64 + 1) as usize;
        let from = place(numbers, bytes.len());
        let to = (from + place(numbers, 8)).min(bytes.len());
        match numbers.below(6) {
            0 => drop(bytes.drain(from..to)),
            1 => drop(bytes.splice(from..to, numbers.pick(&WORDS).iter().copied())),
            2 => drop(bytes.splice(from..from, numbers.pick(&WORDS).iter().copied())),
            3 if from < bytes.len() => bytes[from] ^= 1 << numbers.below(8),
            4 => bytes.truncate(from),
            // The end of another input, or a part of it.
            _ => {
                let other = numbers.pick(seeds);
                let (start, length) = (place(numbers, other.len()), place(numbers, other.len()));
                let part = other[start..].iter().take(length).copied().collect::<Vec<_>>();
                drop(bytes.splice(from..to, part));
            }
        }
    }
    bytes
}

/// Feeds a target, and gives the first input that it does not stand.
fn broken_by(target: Feed, seeds: &[Vec<u8>], mutations: u64) -> Option<Vec<u8>> {
    let mut numbers = Numbers::new(1);
    let mutations = (0..mutations).map(|_| mutation(seeds, &mut numbers));
    let mut inputs = seeds.iter().cloned().chain(mutations);
    inputs.find(|input| catch_unwind(AssertUnwindSafe(|| target(input))).is_err())
}

fn target(name: &str) -> Feed {
    TARGETS.into_iter().find(|(known, _)| *known == name).unwrap().1
}

fn stands_everything(name: &str) {
    if let Some(input) = broken_by(target(name), &seeds(name), MUTATIONS) {
        panic!("{name} is broken by {:?}", String::from_utf8_lossy(&input));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            stands_everything(stringify!($name));
        })*

        #[test]
        fn every_target_is_run_and_has_seeds() {
            let run = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|(name, _)| name), run);
            let folders = entries(&corpus()).into_iter().map(|path| path.file_name().unwrap().to_owned());
            assert_eq!(folders.collect::<Vec<_>>(), run);
        }
    };
}

targets! { authorization central import json roles }

/// A check proves nothing before it has seen what it looks for.
#[cfg(feature = "failpoints")]
#[test]
fn a_rule_that_is_left_out_is_noticed() {
    use thalamus_edge::flaw::{Flaw, plant};
    plant(Some(Flaw::DeleteBeatsEdit));
    let broken = broken_by(target("central"), &seeds("central"), 0);
    plant(None);
    assert!(broken.is_some());
}

/// The mutations reach both what is taken and what is refused.
#[test]
fn mutations_differ() {
    let (seeds, mut numbers) = (seeds("json"), Numbers::new(1));
    let made: BTreeSet<Vec<u8>> = (0..MUTATIONS).map(|_| mutation(&seeds, &mut numbers)).collect();
    let taken = made.iter().filter(|input| {
        let sent = input.rsplit(|byte| *byte == 0x1e).next().unwrap();
        thalamus_edge::domain::json::parse_object(sent).is_ok()
    });
    let taken = taken.count();
    assert!(made.len() > 3_000 && taken > 300 && taken < made.len(), "{taken} of {}", made.len());
}
