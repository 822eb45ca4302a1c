//! Floor 1. Hides how a record is read and written, with everything that follows from a write in the same transaction:
//! indexes, agreed version, place in the push order, change feed.
//!
//! - `edit`: the write that handlers use
//! - `former_dates`: where a record had dates
//! - `indexes`: index rows of a record
//! - `journal`: the change feed
//! - `name_search`: people found by words
//! - `noted_owners`: owners told without reading a record
//! - `read`: records and lists
//! - `write`: records inside a transaction

mod edit;
mod former_dates;
mod indexes;
mod journal;
mod name_search;
mod noted_owners;
mod read;
mod write;

pub use edit::{Edit, EditError, Requirement};
pub(super) use indexes::search_terms;
pub use journal::{JournalRow, JournalWindow};
pub(super) use name_search::refold_names;
pub use noted_owners::NotedOwner;
pub(super) use noted_owners::is_named_in_record;
pub use read::{Part, RecordPage, StoredRecord};
