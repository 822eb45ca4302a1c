//! Floor 1. A new store out of a backup.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, Key, ReadableDatabase as _, TableDefinition, TableHandle as _, Value};

use super::stream::{Ascending, Frame, Manifest, Reading, StreamError, write_rows};
use crate::domain::audit::Event;
use crate::store::audit::META_SERVING;
use crate::store::engine::{Carry, StoreOptions, Tx};
use crate::store::error::StoreError;
use crate::store::file::{StoreKey, caught, new_database};
use crate::store::opening::{prepare, set_format};
use crate::store::rows::{RowName, RowsDefinition, View};
use crate::store::schema::{EachTable, JOURNAL, META, META_JOURNAL_START, each_table};

/// Rows written to a new store in one transaction.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Where the numbers of the change feed go on after a restore: farther than the history that was lost can have
/// come, so that no reader takes a new change for one that it has seen.
const RESTORE_SEQUENCES: u64 = 1 << 32;

/// Makes a new store out of a backup, in a file that does not exist yet. When this returns, the file is whole, on
/// disk and closed; after an error it is for the caller to remove.
///
/// The rows are hashed once more as the new store gives them back. Then the change feed gets a new beginning:
/// readers of the history that is no more are told so; and the audit trail says, as the event, who went back to what.
pub fn rebuild(
    input: &mut dyn Read,
    path: &Path,
    key: Option<&StoreKey>,
    options: &StoreOptions,
    by: &Event,
) -> Result<Manifest, StreamError> {
    let (database, file) = new_database(path, key, options.cache_bytes)?;
    let manifest = fill(input, Some(&database))?;
    let view = View::new(database.begin_read()?, Arc::default());
    let (content, _) = write_rows(&view, &mut io::sink())?;
    drop(view);
    if hex::encode(content) != manifest.content_sha256 {
        return Err(StoreError::Damaged("the new store does not give back what was written".into()).into());
    }
    set_format(&database)?;
    let last = prepare(&database.begin_read()?, || Ok(database.begin_write()?))?;
    begin_history(&database, last, options, by.clone().saying(&manifest.audit_head))?;
    drop(database);
    file.sync_all().map_err(|error| StoreError::of_io(&error))?;
    Ok(*manifest)
}

/// Reads a backup to its end and says what it holds, if it is whole and [`rebuild`] makes a store of it.
pub fn read_backup(input: &mut dyn Read) -> Result<Manifest, StreamError> {
    fill(input, None).map(|manifest| *manifest)
}

/// Reads all of a backup, into a database if there is one.
fn fill(input: &mut dyn Read, database: Option<&Database>) -> Result<Box<Manifest>, StreamError> {
    let mut reading = Reading::start(input)?;
    let ahead = reading.next()?;
    let mut filling = Filling { database, reading, ahead };
    each_table(&mut filling)?;
    let what = match filling.ahead {
        Frame::Manifest(manifest) => return Ok(manifest),
        Frame::Table(name) => {
            format!("it holds {name:?}, which this version does not know, or out of order")
        }
        Frame::Row(..) => "its tables are out of order".to_owned(),
    };
    // The manifest says if a later version has made it.
    while !matches!(filling.reading.next()?, Frame::Manifest(_)) {}
    Err(StreamError::Damaged(what))
}

/// Tables are filled one after the other, as the stream has them.
struct Filling<'a> {
    /// None: the rows are only looked at.
    database: Option<&'a Database>,
    reading: Reading<'a>,
    /// Read, but not used yet.
    ahead: Frame,
}

impl EachTable for Filling<'_> {
    type Error = StreamError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), StreamError> {
        self.fill(definition, |_, value| Cow::Borrowed(value))
    }

    fn rows<K: RowName>(&mut self, definition: RowsDefinition<K>) -> Result<(), StreamError> {
        self.fill(definition.raw(), |key, value| Cow::Owned(definition.with_sum(key, value)))
    }
}

impl Filling<'_> {
    /// Fills a table; `spell` says how a value of the stream is spelled in the file.
    fn fill<K: Key + 'static, V: Value + 'static>(
        &mut self,
        definition: TableDefinition<'static, K, V>,
        spell: impl for<'v> Fn(&[u8], &'v [u8]) -> Cow<'v, [u8]>,
    ) -> Result<(), StreamError> {
        if !matches!(&self.ahead, Frame::Table(name) if name == definition.name()) {
            return Ok(());
        }
        let mut order = Ascending::new(definition.name());
        let Some(database) = self.database else {
            loop {
                match self.reading.next()? {
                    Frame::Row(key_length, row) => {
                        let (key, value) = row.split_at(key_length);
                        order.follow::<K>(key)?;
                        readable::<V>(definition.name(), &spell(key, value))?;
                    }
                    other => {
                        self.ahead = other;
                        return Ok(());
                    }
                }
            }
        };
        let mut is_done = false;
        while !is_done {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(definition)?;
                let mut bytes = 0;
                while bytes < BATCH_BYTES_MAX && !is_done {
                    match self.reading.next()? {
                        Frame::Row(key_length, row) => {
                            let (key, value) = row.split_at(key_length);
                            order.follow::<K>(key)?;
                            let value = spell(key, value);
                            readable::<V>(definition.name(), &value)?;
                            table.insert(K::from_bytes(key), V::from_bytes(&value))?;
                            bytes += row.len();
                        }
                        other => {
                            self.ahead = other;
                            is_done = true;
                        }
                    }
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }
}

/// Whether redb can read a value of this type; on others it gives up.
fn readable<V: Value>(table: &str, value: &[u8]) -> Result<(), StreamError> {
    let is_fitting = V::fixed_width().is_none_or(|width| width == value.len());
    if is_fitting && caught(|| drop(V::from_bytes(value))).is_ok() {
        return Ok(());
    }
    Err(StreamError::Damaged(format!("a row of {table:?} in it cannot be read")))
}

/// Numbers of changes go on far behind `last`, without the changes up to there.
fn begin_history(
    database: &Database,
    last: u64,
    options: &StoreOptions,
    event: Event,
) -> Result<(), StreamError> {
    let transaction = database.begin_write()?;
    transaction.delete_table(JOURNAL.raw())?;
    transaction.open_table(JOURNAL.raw())?;
    let start = last.saturating_add(RESTORE_SEQUENCES);
    transaction.open_table(META)?.insert(META_JOURNAL_START, start.to_be_bytes().as_slice())?;
    {
        let mut carry = Carry::default();
        let mut tx = Tx::open(&transaction, options, &mut carry)?;
        // The node that made the backup was serving; nobody serves from this store yet.
        tx.set_meta(META_SERVING, None)?;
        tx.audit(event)?;
    }
    transaction.commit()?;
    Ok(())
}
