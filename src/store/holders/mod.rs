//! Floor 1. Hides which human being has an account, who had it before, and to whom a record or value belongs. Records
//! name people by account only, and accounts change hands.
//!
//! - `counted_records`: records of nobody and of people who are gone, counted
//! - `departed`: the last person of an account, if they are gone
//! - `holder_identity`: fields by which the present holder is told apart
//! - `holder_since`: since when the present holder has an account
//! - `meant_holder`: the holder when something began to wait
//! - `ownerless`: records that name nobody
//! - `ownership`: owner of a value when it was kept
//! - `shared_accounts`: accounts of two people
//! - `spellings`: people by the spellings of their account
//! - `written_over`: a person over whom another one was written

mod counted_records;
mod departed;
mod holder_identity;
mod holder_since;
mod meant_holder;
mod ownerless;
mod ownership;
mod shared_accounts;
mod spellings;
mod written_over;

pub(super) use departed::{Departed, unknown_departed};
pub use departed::{identity_in, identity_row};
pub(super) use holder_identity::is_another_than;
pub(super) use holder_since::Stretch;
pub(super) use ownerless::{NO_ACCOUNT, are_ownerless_indexed, index_ownerless, indexed_owner};
#[cfg(test)]
pub(super) use ownership::forgotten_in;
pub use ownership::{OwnerNow, Whose};
pub(super) use shared_accounts::ALWAYS;
pub(super) use spellings::{owned, resolve_person};
