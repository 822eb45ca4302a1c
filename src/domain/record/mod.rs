//! Floor 0. Records: their kinds, their keys, and the values in their documents.
//!
//! Hides what differs between kinds, which is one row each in the table of `schema`, and how values of BSON compare.
//!
//! - `key`: kinds of record, and identifiers
//! - `schema`: the table of kinds
//! - `active`: whether an account is open, as its document says
//! - `content`: the bytes that a document names instead of holding them
//! - `value`: when two stored values are the same
//! - `depth`: how deep a document may nest
//! - `verbatim`: documents whose bytes are kept as they came

pub mod active;
pub mod content;
pub mod depth;
pub mod schema;
pub mod value;
pub mod verbatim;

mod key;

pub use key::{Kind, RecordKey, fold_account};
