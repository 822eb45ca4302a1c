//! Floor 1. Tables and format version of a store, made or checked before anything else is done with it.

use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableTable, WriteTransaction};

use super::owner_notes::{Starting, ask_for_time};
use crate::store::engine::{create_tables, last_sequence};
use crate::store::error::StoreError;
use crate::store::records::refold_names;
use crate::store::rows::{damaged, open_for_writing};
use crate::store::schema::{FORMAT_VERSION, JOURNAL, META, META_FORMAT};
use crate::store::trash::index_trash;

/// A store's format version out of its row in `meta`.
pub(crate) fn format_of(row: &[u8]) -> Result<u32, StoreError> {
    let row = row.try_into().map_err(|_| damaged("the format version"))?;
    Ok(u32::from_be_bytes(row))
}

/// Checks or writes the format version and creates the tables; returns the journal's last sequence.
pub(crate) fn prepare(
    before: &ReadTransaction,
    mut begin_write: impl FnMut() -> Result<WriteTransaction, StoreError>,
) -> Result<u64, StoreError> {
    // A newer file is recognized before anything in it is touched.
    if let Ok(meta) = before.open_table(META)
        && let Some(found) = meta.get(META_FORMAT)?
    {
        let found = format_of(found.value())?;
        if found > FORMAT_VERSION {
            return Err(StoreError::Newer { found, known: FORMAT_VERSION });
        }
        if found < FORMAT_VERSION {
            return Err(StoreError::Older { found, known: FORMAT_VERSION });
        }
    }
    let mut transaction = begin_write()?;
    // After a power failure the file opens without all of its pages being good.
    transaction.set_quick_repair(true);
    let mut starting = Starting::new();
    let (last, mut is_done) = {
        create_tables(&transaction)?;
        index_trash(&transaction)?;
        refold_names(&transaction, ask_for_time)?;
        let last = {
            let mut meta = transaction.open_table(META)?;
            if meta.get(META_FORMAT)?.is_none() {
                meta.insert(META_FORMAT, FORMAT_VERSION.to_be_bytes().as_slice())?;
            }
            let journal = open_for_writing(&transaction, &Arc::default(), JOURNAL)?;
            last_sequence(&journal, &meta)?
        };
        (last, starting.go_on(&transaction)?)
    };
    transaction.commit()?;
    while !is_done {
        let mut transaction = begin_write()?;
        transaction.set_quick_repair(true);
        is_done = starting.go_on(&transaction)?;
        transaction.commit()?;
    }
    Ok(last)
}

/// The rows are in the format of this version, whatever it was in the store that was backed up.
pub(in crate::store) fn set_format(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(META_FORMAT, FORMAT_VERSION.to_be_bytes().as_slice())?;
    Ok(transaction.commit()?)
}
