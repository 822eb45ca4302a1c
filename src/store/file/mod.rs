//! Floor 1. Hides the bytes below redb: the file of a store, its encryption, its pages and their checksums, and a file
//! that is looked at and not touched. Everything that opens, reads or mends a file without transactions goes through
//! it.
//!
//! - `pages`: pages compared with their checksums
//! - `panics`: panics of redb, caught
//! - `sealed`: blocks of an encrypted store
//! - `store_file`: place and state of the file of a store
//! - `untouched`: a file that stays as it is
//! - `watched`: a backend that tells when its disk failed

mod pages;
mod panics;
mod sealed;
mod store_file;
mod untouched;
mod watched;

pub(super) use pages::{Inspected, inspect, inspect_sealed, put_right, rows_left};
pub(super) use panics::{GIVEN_UP, caught, unpanicked};
pub(super) use sealed::{BLOCKS_AT, SEALED_MAGIC, change_key, store_sealed_with};
pub use sealed::{Sealed, StoreKey};
pub(super) use store_file::{StoreFile, lock, new_database, open_file, unreadable};
pub(super) use untouched::{
    Again, Rehearsed, Untouched, WHOLE_BYTES_MAX, bytes_to_read, open_as_a_start, open_to_check,
    open_untouched, refuse_cut_off, rehearse,
};
pub(super) use watched::Watched;
