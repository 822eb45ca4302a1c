//! Floor 1. Hides the audit trail in its tables: appended in the transaction of what it is about, cut off at the front,
//! never changed.
//!
//! - `notes`: reads and refusals, written once a second
//! - `repeats`: repeated changes that share an entry
//! - `trail`: entries
//! - `trail_age`: age of entries

mod notes;
mod repeats;
mod trail;
mod trail_age;

pub(super) use trail::META_SERVING;
pub use trail::{AuditPage, AuditQuery, AuditRow};
#[cfg(test)]
pub(super) use trail_age::{Old, marks_in};
