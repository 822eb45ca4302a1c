//! Floor 1. Where a record had dates that were taken away ([`crate::domain::former_dates`]).

use bson::{Document, RawBsonRef, RawDocument};

use crate::domain::former_dates;
use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{decode, encode, row_key};
use crate::store::schema::FORMER_DATES;

impl Tx<'_> {
    /// A record changes from `old` to `new`, on this node or at the centre.
    pub(in crate::store) fn note_former_dates(
        &mut self,
        key: &RecordKey,
        old: Option<&RawDocument>,
        new: Option<&RawDocument>,
    ) -> Result<(), StoreError> {
        let is_known = self.former_dates.contains(row_key(key))?;
        let (Some(old), Some(new)) = (old, new) else {
            if is_known {
                self.former_dates.remove(row_key(key))?;
            }
            return Ok(());
        };
        if !is_known && !has_dates(RawBsonRef::Document(old)) {
            return Ok(());
        }
        let remembered = match self.former_dates.get(row_key(key)) {
            // It says of what type the next value is, and nothing else.
            Err(StoreError::DamagedRow(_)) => return Ok(()),
            row => row?.map(|row| decode(row.value())).transpose()?,
        };
        let former = former_dates::of(old, remembered.as_ref(), new);
        match former.is_empty() {
            true if is_known => self.former_dates.remove(row_key(key)).map(drop),
            true => Ok(()),
            false => self.former_dates.insert(row_key(key), encode(&former)?.as_slice()),
        }
    }
}

impl Snapshot {
    /// Where a record had dates that were taken away, as a document with a date at each such place; empty if nowhere.
    pub fn former_dates(&self, key: &RecordKey) -> Result<Document, StoreError> {
        match self.transaction.open_table(FORMER_DATES)?.get(row_key(key)) {
            Err(StoreError::DamagedRow(_)) => Ok(Document::new()),
            row => Ok(row?.map(|row| decode(row.value())).transpose()?.unwrap_or_default()),
        }
    }
}

fn has_dates(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::DateTime(_) => true,
        RawBsonRef::Array(values) => values.into_iter().flatten().any(has_dates),
        RawBsonRef::Document(document) => document.into_iter().flatten().any(|(_, value)| has_dates(value)),
        _ => false,
    }
}
