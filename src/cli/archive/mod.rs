//! Floor 5. Files of records: what an export looks like on disk, and how its lines are read.
//!
//! Hides the names in the directory that `export` writes and `import` reads, and where one document in a file ends.
//!
//! - `directory`: the directory of an export
//! - `closed_list`: the file of the accounts that were closed on a node
//! - `ndjson`: documents in a file, one a line or in lists

pub mod ndjson;

pub(crate) mod closed_list;
mod directory;

pub(crate) use directory::{CONTENT_DIRECTORY, KEPT, create, kept_file, make_directory};
