//! Floor 1. Hides redb's transactions: the open database, views for reading, the one writer and its groups, and the
//! task that a transaction works for. The other rooms add their methods to `Tx`, `Snapshot` and `Store`.
//!
//! - `asker`: for whom a task works
//! - `audit_buffer`: audit events that wait for their entries
//! - `carry`: what the writer keeps between transactions, with the count of repeated changes
//! - `database`: the open database, opened again after its disk failed
//! - `kept`: texts made of a view
//! - `meta`: single rows about the store as a whole
//! - `record_locks`: edits of one record in line
//! - `snapshot`: a view
//! - `space`: the reserve of the disk
//! - `sparing`: what a damaged row stops
//! - `standing`: whether rights hold when a write takes effect
//! - `store`: the open store
//! - `tally`: counts that views of one state share
//! - `transaction`: a write transaction
//! - `writer`: the queue of jobs and their commits

mod asker;
mod audit_buffer;
mod carry;
mod database;
mod kept;
mod meta;
mod record_locks;
mod snapshot;
mod space;
mod sparing;
mod standing;
mod store;
mod tally;
mod transaction;
mod writer;

pub use asker::{Asker, Charge, asked_by};
pub use audit_buffer::Unnoted;
pub(super) use audit_buffer::{NOTES_MAX, Notes, Unwritten, client_at};
pub(super) use carry::{Carry, WINDOW_MS, bare};
pub(super) use database::Engine;
pub(crate) use database::off_workers;
pub use kept::{Kept, KeptKey, KeptOf};
pub(super) use record_locks::RecordLocks;
pub use snapshot::Snapshot;
pub use space::{Claim, FreeBytes, free_bytes_at, space_at};
pub use standing::{Right, Standing};
pub(super) use store::Inner;
pub use store::{Clock, Store, StoreOptions};
#[cfg(test)]
pub(super) use tally::PresentShelf;
pub(super) use tally::{Counted, Tally};
pub use tally::{LeftBehind, LeftBehindCount};
pub use transaction::Tx;
pub(super) use transaction::{Opened, create_tables, last_sequence};
pub(super) use writer::{Writer, WriterLoop};
