//! Floor 1. What can still be read of a store whose pages are damaged, without redb, which gives up on them.
//!
//! Every page that can be reached is followed, and every row counts whose own checksum is right. The file stays as it is.

use std::path::Path;

use bson::RawDocumentBuf;
use redb::Value as _;

use crate::domain::record::RecordKey;
use crate::store::error::StoreError;
use crate::store::file::{StoreKey, bytes_to_read, rows_left, unpanicked};
use crate::store::rows::{RowKey, decode_raw, kind_of};
use crate::store::schema::{CONTENT, DOCS};

const SUM_BYTES: usize = 4;

/// A record that can be read: as it was written last, unless a damaged page holds an older row of it.
#[derive(Debug)]
pub struct LeftRecord {
    pub key: RecordKey,
    pub document: RawDocumentBuf,
}

/// A part of an attachment that can be read.
#[derive(Debug)]
pub struct LeftChunk {
    pub sha256: String,
    pub number: u32,
    pub bytes: Vec<u8>,
}

/// Something that can be read.
#[derive(Debug)]
pub enum Left {
    Record(LeftRecord),
    Chunk(LeftChunk),
}

/// Shows every record and then every part of an attachment that can be read in a store that nobody has open, each in
/// the order of its key. Returns the tables of which rows may be missing. Nothing is written.
pub fn read_what_is_left<E: From<StoreError>>(
    path: &Path,
    key: Option<&StoreKey>,
    mut show: impl FnMut(Left) -> Result<(), E>,
) -> Result<Vec<String>, E> {
    let opened = bytes_to_read(path, key)?;
    let (bytes, sealed) = (opened.bytes(), opened.sealed());
    let mut failed = None;
    let mut each = |row: Result<Left, StoreError>| {
        if failed.is_none() {
            failed = row.map_err(E::from).and_then(&mut show).err();
        }
    };
    let mut followed = |table: &str, read: fn(&[u8], &[u8]) -> Result<Left, StoreError>| {
        unpanicked(|| {
            rows_left(bytes, sealed, table, &mut |key, row| {
                let value = row.get(..row.len().saturating_sub(SUM_BYTES)).unwrap_or_default();
                each(read(key, value));
            })
            .map_err(|error| StoreError::of_io(&error))
        })
    };
    let mut broken = followed(DOCS.name(), record)?;
    broken.extend(followed(CONTENT.name(), chunk)?);
    match failed {
        Some(error) => Err(error),
        None => Ok(broken.into_iter().collect()),
    }
}

fn record(key: &[u8], value: &[u8]) -> Result<Left, StoreError> {
    let (code, id) = <RowKey as redb::Value>::from_bytes(key);
    let key = RecordKey::new(kind_of(code)?, id);
    Ok(Left::Record(LeftRecord { key, document: decode_raw(value)? }))
}

fn chunk(key: &[u8], value: &[u8]) -> Result<Left, StoreError> {
    let (sha256, number) = <(&str, u32)>::from_bytes(key);
    Ok(Left::Chunk(LeftChunk { sha256: sha256.to_owned(), number, bytes: value.to_vec() }))
}
