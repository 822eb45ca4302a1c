//! Floor 1. Hides the form of backups: a store as one stream of bytes, and back; and which files beside it are in the
//! clear.
//!
//! - `rebuild`: a store made of a backup
//! - `stream`: the stream
//! - `unencrypted_files`: files that hold records in the clear

mod rebuild;
mod stream;
mod unencrypted_files;

pub use rebuild::{read_backup, rebuild};
pub use stream::{About, Manifest, StreamError, Summary};
pub use unencrypted_files::{ClearFiles, files_in_the_clear};
