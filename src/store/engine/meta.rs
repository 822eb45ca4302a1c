//! Floor 1. Rows about the store as a whole, each under a name of its own: how far something came, what is due, who edited.

use bson::Document;
use redb::ReadableTable as _;

use super::snapshot::Snapshot;
use super::transaction::Tx;
use crate::store::error::StoreError;
use crate::store::rows::{decode, encode};
use crate::store::schema::META;

impl Tx<'_> {
    pub fn meta(&self, name: &str) -> Result<Option<Document>, StoreError> {
        self.meta_row(name)?.map(|row| decode(&row)).transpose()
    }

    /// The same as it is stored.
    pub(crate) fn meta_row(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.meta.get(name)?.map(|row| row.value().to_vec()))
    }

    pub fn set_meta(&mut self, name: &str, value: Option<&Document>) -> Result<(), StoreError> {
        match value {
            Some(value) => self.meta.insert(name, encode(value)?.as_slice())?,
            None => self.meta.remove(name)?,
        };
        self.wrote();
        Ok(())
    }
}

impl Snapshot {
    pub fn meta(&self, name: &str) -> Result<Option<Document>, StoreError> {
        self.meta_row(name)?.map(|row| decode(&row)).transpose()
    }

    /// The same as it is stored.
    pub(crate) fn meta_row(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.transaction.open_table(META)?.get(name)?.map(|row| row.value().to_vec()))
    }
}
