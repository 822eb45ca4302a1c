//! Floor 1. Hides how a row is spelled: checksums at the end of rows, so that rot is noticed wherever a row is read,
//! the fields of BSON values, the keys, and the version of a record that was last agreed with the centre.
//!
//! - `checked`: open tables whose rows end in a checksum
//! - `definitions`: tables with checksums, and opening them
//! - `encoding`: values, keys and places as bytes
//! - `fields`: typed fields of a row
//! - `ledger`: damaged rows that were found
//! - `names`: what a key says for people
//! - `sums`: the checksum
//! - `versions`: agreed and decoded versions of a record

mod checked;
mod definitions;
mod encoding;
mod fields;
mod ledger;
mod names;
mod sums;
mod versions;

pub(super) use checked::{Checked, Rows, ids_between};
pub(super) use definitions::{RowsDefinition, View, open_for_writing};
pub(super) use encoding::{
    code_in, damaged, decode, decode_raw, encode, insert_some, kind_of, raw, row_key, text_in,
};
pub(crate) use fields::Fields;
#[cfg(test)]
pub(crate) use fields::field_codec::Codec;
pub(super) use ledger::{Ledger, PAGES};
pub(super) use names::{RowKey, RowName};
pub(super) use sums::{SUM_BYTES, is_row_good, is_row_marked, mark_row, wrong_bits, wrong_key_bits};
pub use versions::Base;
pub(super) use versions::{BaseRow, DELETE_RANK_MIN, PUSH_ORDER_MAX, Version, push_rank};
