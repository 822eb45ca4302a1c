//! Faults of disks, machines and clocks: what was acknowledged is there afterwards, and nothing is half there.
//!
//! The quick forms take samples; with `THALAMUS_EDGE_TEST_LONG` set every case is tried.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/creation.rs"]
mod creation;
#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/full.rs"]
mod full;
#[path = "faults/killed.rs"]
mod killed;
#[path = "faults/power.rs"]
mod power;
#[path = "faults/recorder.rs"]
mod recorder;
#[path = "faults/workload.rs"]
mod workload;

/// Whether every case is to be tried.
#[allow(clippy::disallowed_methods, reason = "the environment says how much to try")]
fn is_long() -> bool {
    std::env::var_os("THALAMUS_EDGE_TEST_LONG").is_some()
}
