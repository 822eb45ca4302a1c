//! Floor 1. Hides work on the file of a store that no node holds: checked, compacted, encrypted, copied for a trial, or
//! read without redb.
//!
//! - `maintenance`: check, compact, encrypt
//! - `salvage`: what can still be read of damaged pages
//! - `trial`: a copy to try something out

mod maintenance;
mod salvage;
mod trial;

pub use maintenance::{
    CheckedStore, change_store_key, check_store, compact_store, lock_file, look_at_store, recode_store,
};
pub use salvage::{Left, LeftChunk, LeftRecord, read_what_is_left};
pub use trial::Trial;
