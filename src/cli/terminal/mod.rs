//! Floor 5. What all commands share at the terminal.
//!
//! Hides how values of arguments are read, and how what a command found becomes text that is safe to print.
//!
//! - `outcome`: how a command ends, and its exit code
//! - `show`: text, tables and facts without control characters
//! - `log`: the log on standard error
//! - `values`: values of arguments that several commands take
//! - `suggest`: what a mistyped subcommand was meant to be

pub(crate) mod show;

mod log;
mod outcome;
mod suggest;
mod values;

pub(crate) use log::start_log;
pub(crate) use outcome::{Done, EXIT_FAILED, EXIT_OFFLINE, EXIT_REFUSED, EXIT_USAGE, Failure};
pub(crate) use suggest::parse;
pub(crate) use values::{collection_names, row_number};
