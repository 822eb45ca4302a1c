//! Floor 1. A store of an earlier format becomes one of this version, and the old file is kept as it was.
//!
//! A new file is made beside the old one, which nobody writes to; then the old one is linked to the name under which it
//! is kept, and the new one takes its place. At every moment the store's name belongs to one of them, each whole: whoever
//! is killed in between begins anew.

use std::borrow::Cow;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
    TableHandle as _, Value,
};

use super::prepare::{format_of, set_format};
use crate::files::{Unfinished, directory_of, give_to_owner_of_directory, suffixed, sync_directory};
use crate::store::error::StoreError;
use crate::store::file::{StoreKey, new_database, open_untouched};
use crate::store::rows::{RowName, RowsDefinition, raw};
use crate::store::schema::{DOCS, EachTable, FORMAT_VERSION, META, META_FORMAT, each_table};

const UNFINISHED_ENDING: &str = ".upgrading";
/// What the old file is called afterwards; the number is of the format that it does not have.
const KEPT_ENDING: &str = ".before-format-2";
/// Rows written in one transaction, in bytes.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Rows between two lines in the log.
const PROGRESS_ROWS: u64 = 100_000;

/// Brings the store in this file to the format of this version, if it has an earlier one. Whoever reads what is kept
/// of the old file needs its key, if it had one.
pub(crate) fn upgrade(path: &Path, key: Option<&StoreKey>, cache_bytes: usize) -> Result<(), StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    // The store may be a link to another disk.
    let path = &match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        path => path.map_err(io)?,
    };
    let mut old = match open_untouched(path, key, cache_bytes) {
        Ok(old) => old,
        // Opening it for good says what is wrong with it.
        Err(StoreError::Held) => return Err(StoreError::Held),
        Err(_) => return Ok(()),
    };
    let Some(found) = format_in(&old.database.begin_read()?)?.filter(|found| *found < FORMAT_VERSION) else {
        return Ok(());
    };
    let bytes = fs::metadata(path).map_err(io)?.len();
    let kept = name_to_keep(path)?;
    tracing::info!(
        from = found, to = FORMAT_VERSION, bytes, kept = %kept.display(),
        "upgrading the store: a new file is made, and the old one is kept as it is"
    );
    if !matches!(old.database.check_integrity(), Ok(true)) {
        tracing::error!(
            "the store to be upgraded has damaged pages: some of its records may not be what was written. Compare \
             them with older backups"
        );
    }
    let unfinished = Unfinished::at(suffixed(path, UNFINISHED_ENDING)).map_err(io)?;
    let (database, file) = new_database(unfinished.path(), key, cache_bytes)?;
    give_to_owner_of_directory(unfinished.path()).map_err(io)?;
    let mut copying = Copying { old: old.database.begin_read()?, new: &database, refused: 0 };
    each_table(&mut copying)?;
    if copying.refused > 0 {
        tracing::error!(
            records = copying.refused,
            "records that cannot be read are marked as damaged: `thalamus-edge doctor` names them"
        );
    }
    set_format(&database)?;
    drop(database);
    file.sync_all().map_err(io)?;
    crate::flaw::step("upgrade.copied");
    if !is_same_file(&kept, path)? {
        fs::hard_link(path, &kept).and_then(|()| sync_directory(directory_of(path))).map_err(io)?;
    }
    crate::flaw::step("upgrade.kept");
    unfinished.take_place(path).map_err(io)?;
    crate::flaw::step("upgrade.swapped");
    tracing::info!(kept = %kept.display(), "the store is upgraded; the old file may go once you trust the new one");
    Ok(())
}

/// The format that a store says it has; nothing if it is not one yet.
pub(crate) fn format_in(transaction: &ReadTransaction) -> Result<Option<u32>, StoreError> {
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        meta => meta?,
    };
    meta.get(META_FORMAT)?.map(|row| format_of(row.value())).transpose()
}

/// A name that is free, or that an upgrade which was killed has given to this very file.
fn name_to_keep(path: &Path) -> Result<PathBuf, StoreError> {
    let first = suffixed(path, KEPT_ENDING);
    let others = (1..u32::MAX).map(|n| suffixed(path, &format!("{KEPT_ENDING}-{n}")));
    for name in std::iter::once(first).chain(others) {
        if fs::symlink_metadata(&name).is_err() || is_same_file(&name, path)? {
            return Ok(name);
        }
    }
    Err(StoreError::Failed("there is no name left for the old store".to_owned()))
}

fn is_same_file(a: &Path, b: &Path) -> Result<bool, StoreError> {
    let Ok(a) = fs::metadata(a) else {
        return Ok(false);
    };
    let b = fs::metadata(b).map_err(|error| StoreError::of_io(&error))?;
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

struct Copying<'a> {
    old: ReadTransaction,
    new: &'a Database,
    /// Records that are no documents, or other records' documents.
    refused: u64,
}

impl Copying<'_> {
    fn copy<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
        spell: impl for<'v> Fn(&K::SelfType<'_>, &'v [u8]) -> (Cow<'v, [u8]>, bool),
    ) -> Result<(), StoreError> {
        let old = match self.old.open_table(definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            old => old?,
        };
        let mut rows = old.iter()?.peekable();
        let mut count = 0;
        while rows.peek().is_some() {
            let transaction = self.new.begin_write()?;
            {
                let mut new = transaction.open_table(definition)?;
                let mut bytes = 0;
                while bytes < BATCH_BYTES_MAX
                    && let Some(entry) = rows.next()
                {
                    let (key, value) = entry?;
                    let (key, value) = (key.value(), value.value());
                    let value = V::as_bytes(&value);
                    let (value, is_good) = spell(&key, value.as_ref());
                    bytes += value.len();
                    self.refused += u64::from(!is_good);
                    new.insert(&key, V::from_bytes(&value))?;
                    count += 1;
                    if count % PROGRESS_ROWS == 0 {
                        tracing::info!(table = definition.name(), rows = count, "upgrading the store");
                    }
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }
}

impl EachTable for Copying<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        self.copy(definition, |_, value| (Cow::Borrowed(value), true))
    }

    fn rows<K: RowName>(&mut self, definition: RowsDefinition<K>) -> Result<(), StoreError> {
        let is_record = definition.name() == DOCS.name();
        self.copy(definition.raw(), |key, value| {
            let bytes = K::as_bytes(key);
            let is_good = !is_record || is_document_of(value, &K::row_name(key).1);
            let row = match is_good {
                true => definition.with_sum(bytes.as_ref(), value),
                false => definition.with_wrong_sum(bytes.as_ref(), value),
            };
            (Cow::Owned(row), is_good)
        })
    }
}

fn is_document_of(bytes: &[u8], id: &str) -> bool {
    let is_sound = |document: &bson::RawDocument| document.iter().all(|element| element.is_ok());
    raw(bytes)
        .is_ok_and(|document| is_sound(document) && document.get_str("_id").is_ok_and(|found| found == id))
}

#[cfg(test)]
mod tests;
