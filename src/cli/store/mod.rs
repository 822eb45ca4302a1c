//! Floor 5. Commands about the file of the store, and its backups.
//!
//! Hides which of them need a stopped node, and what each says about a file that is damaged.
//!
//! - `backup`: the `backup` command
//! - `restore`: the `restore` command
//! - `db`: the `db` command
//! - `clear_copies`: copies of an encrypted store that are not encrypted

pub(crate) mod backup;
pub(crate) mod clear_copies;
pub(crate) mod db;
pub(crate) mod restore;
