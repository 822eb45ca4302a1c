//! Floor 1. Records that vanished at the centre, until it is decided that they go here too.

use redb::ReadableTable;

use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{kind_of, row_key};
use crate::store::schema::{VANISHED, VANISHED_TOLD};

/// A record that was here as the centre knew it, and is gone there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vanished {
    pub key: RecordKey,
    /// The operator agrees that it goes here too.
    pub is_accepted: bool,
    /// The change feed has told of the delete. Otherwise a sweep has missed the record.
    pub is_told: bool,
}

impl Tx<'_> {
    /// Notes that the centre no longer has a record that is clean here.
    pub fn put_vanished(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.vanished.get(row_key(key))?.is_none() {
            self.vanished.insert(row_key(key), false)?;
            self.vanished_told.remove(row_key(key))?;
            self.wrote();
        }
        Ok(())
    }

    /// Notes that the change feed has told of the delete of a record, if the record is noted as vanished.
    pub fn note_vanished_told(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.vanished.get(row_key(key))?.is_some()
            && self.vanished_told.insert(row_key(key), ())?.is_none()
        {
            self.wrote();
        }
        Ok(())
    }

    /// Returns whether the record was noted as vanished.
    pub fn clear_vanished(&mut self, key: &RecordKey) -> Result<bool, StoreError> {
        self.vanished_told.remove(row_key(key))?;
        let was_noted = self.vanished.remove(row_key(key))?.is_some();
        if was_noted {
            self.wrote();
        }
        Ok(was_noted)
    }

    /// The operator agrees to everything that is noted as vanished now.
    pub fn accept_vanished(&mut self) -> Result<(), StoreError> {
        for key in self.vanished_keys()? {
            self.vanished.insert(row_key(&key), true)?;
            self.wrote();
        }
        Ok(())
    }

    pub fn vanished_keys(&self) -> Result<Vec<RecordKey>, StoreError> {
        let mut keys = Vec::new();
        for entry in self.vanished.iter()? {
            let (at, _) = entry?;
            let (code, id) = at.value();
            keys.push(RecordKey::new(kind_of(code)?, id));
        }
        Ok(keys)
    }
}

impl Snapshot {
    pub fn vanished(&self) -> Result<Vec<Vanished>, StoreError> {
        let vanished = self.transaction.open_table(VANISHED)?;
        let told = self.transaction.open_table(VANISHED_TOLD)?;
        let mut rows = Vec::new();
        for entry in vanished.iter()? {
            let (at, is_accepted) = entry?;
            let (code, id) = at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            let is_told = told.get((code, id))?.is_some();
            rows.push(Vanished { key, is_accepted: is_accepted.value(), is_told });
        }
        Ok(rows)
    }
}
