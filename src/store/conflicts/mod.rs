//! Floor 1. Hides open decisions of people: values that lost against the other side's, and accounts that may be of two
//! people.
//!
//! - `conflict`: a conflict, and how it is spelled
//! - `conflict_about`: what a conflict is about, without its values
//! - `conflict_authors`: who made the two versions
//! - `conflict_owners`: owner of the values of a conflict
//! - `conflict_reads`: reading conflicts
//! - `conflict_rows`: conflicts inside a transaction
//! - `dependents`: records of an account
//! - `held_records`: documents that wait behind a hold
//! - `holds`: identity holds
//! - `new_conflicts`: conflicts that are found
//! - `published_conflicts`: conflicts taken over from their rows at the centre

mod conflict;
mod conflict_about;
mod conflict_authors;
mod conflict_owners;
mod conflict_reads;
mod conflict_rows;
mod dependents;
mod held_records;
mod holds;
mod new_conflicts;
mod published_conflicts;

pub use conflict::{Conflict, ConflictStatus, Note, Subject, stands_name};
pub use conflict_about::About;
pub(super) use conflict_about::about;
pub use held_records::Held;
pub use holds::{Hold, HoldReason};
pub use published_conflicts::Published;
