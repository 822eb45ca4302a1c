//! Floor 0. How the C library's allocator keeps memory that the program has given back.
//!
//! It reads its settings from the environment when a program begins, and has no way to set them later that is safe Rust. So
//! a node that was started without them starts itself once more with them, as the same process, before it does anything.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Without these a node keeps what an attack made it take, and each further attack adds to it: by default every thread
/// fills an arena of its own, up to eight for each core, and blocks of up to 32 MiB stay in arenas once one was freed.
///
/// - Two arenas: as many as there are worker threads on a small box.
/// - Blocks from 128 KiB on are mapped each by itself, and go back as a whole.
/// - Free memory at the end of an arena goes back from 256 KiB on.
pub const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "262144")];

/// Says that the process was started with the settings. A system that takes them away again, as from a program with
/// capabilities of its own, leaves this.
const STARTED_AGAIN: &str = "THALAMUS_EDGE_MALLOC";
/// The command of a node; others end before memory matters.
const SERVE: &str = "serve";

/// Starts the program again with the settings that are missing. Returns if none is, if this is no node, or if the system
/// does not let it: then the node runs without them. What an administrator has set stays.
#[allow(clippy::disallowed_methods, reason = "variables of the C library, no keys of the configuration")]
pub fn start_with_settings() {
    let is_node = env::args_os().skip(1).any(|word| word == SERVE);
    if !cfg!(target_env = "gnu") || !is_node || env::var_os(STARTED_AGAIN).is_some() {
        return;
    }
    let missing: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| env::var_os(name).is_none()).collect();
    let Ok(program) = env::current_exe() else {
        return;
    };
    if missing.is_empty() {
        return;
    }
    let mut again = Command::new(program);
    again.args(env::args_os().skip(1)).envs(missing).env(STARTED_AGAIN, "set");
    if let Some(name) = env::args_os().next() {
        again.arg0(name);
    }
    // It only returns with an error.
    let _ = again.exec();
}
