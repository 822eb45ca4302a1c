//! Floor 1. Hides the way from a file to an open store: looked at, mended, upgraded, prepared, and filled with what
//! earlier versions did not note.
//!
//! - `file_opening`: the file made or opened
//! - `file_repair`: wrong bits put right
//! - `open_store`: stores in files, in memory, on bytes
//! - `owner_notes`: notes of owners made at a start
//! - `prepare`: tables and format version
//! - `upgrade`: stores of an earlier format

mod file_opening;
mod file_repair;
mod open_store;
mod owner_notes;
mod prepare;
mod upgrade;

pub use file_repair::BitsPutRight;
pub(super) use file_repair::{Found, makes_anew, mend_file};
#[cfg(test)]
pub(super) use owner_notes::Place;
pub(super) use prepare::{prepare, set_format};
pub(super) use upgrade::format_in;
