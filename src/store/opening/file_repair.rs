//! Floor 1. Wrong bits of the store's file: found at every start, put right where one bit explains the damage.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bson::doc;
use redb::backends::FileBackend;
use redb::{StorageBackend, WriteTransaction};

use crate::files::open_regular_to_write;
use crate::store::check::{drop_indexes, name_rows};
use crate::store::engine::{Carry, Counted, Store, StoreOptions, Tx};
use crate::store::error::{DamagedRow, StoreError, unless_unreadable};
use crate::store::file::{
    Inspected, Rehearsed, Sealed, StoreKey, WHOLE_BYTES_MAX, inspect, inspect_sealed, put_right,
    refuse_cut_off, rehearse, store_sealed_with, unpanicked,
};
use crate::store::rows::{Fields, Ledger, PAGES, encode};
use crate::store::schema::{BASE, META, is_index};

/// In `meta`: how many wrong bits were put right in all, and when the last ones were, in milliseconds since 1970.
const META_BITS: &str = "bits_put_right";

/// What was found out about the file when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Rows in which more than one bit is wrong: table and key.
    damaged: Vec<(String, Vec<u8>)>,
    /// Tables with pages in which more is wrong than can be put right.
    broken: BTreeSet<String>,
    bits: u64,
    /// Blocks of an encrypted store that do not open, and that are written anew with what was found in them, as damaged
    /// rows.
    blocks: u64,
}

/// How often bits of this store were wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitsPutRight {
    pub bits: u64,
    /// Blocks of an encrypted store that did not open.
    pub blocks: u64,
    /// Milliseconds since 1970, for people.
    pub last_ms: i64,
}

impl BitsPutRight {
    pub(in crate::store) fn decode(row: &[u8]) -> Result<BitsPutRight, StoreError> {
        let row = Fields::of(row, "the count of wrong bits")?;
        Ok(BitsPutRight {
            bits: row.count("bits")?,
            blocks: row.count("blocks")?,
            last_ms: row.int64("last")?,
        })
    }
}

/// Looks at all pages of a store that nobody has open, and puts single wrong bits right. In an encrypted store rows in
/// blocks that do not open become damaged rows, so that all others are served.
///
/// A file with pages that are damaged beyond that is [`StoreError::Broken`] and stays as it is: to write to it is to lose
/// it. Indexes can be made anew; that is done without the file first, and a file that would not be whole afterwards is
/// broken like any other.
pub(crate) fn look_at_file(
    path: &Path,
    key: Option<&StoreKey>,
    options: StoreOptions,
) -> Result<Found, StoreError> {
    let found = mend(path, key, false, |pages| can_be_made_anew(path, key, options, pages))?;
    if !found.broken.is_empty() {
        let tables = found.broken.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::error!(tables, "indexes in the store's file have damaged pages and are made anew");
    }
    Ok(found)
}

/// Whether a start makes the tables anew of which pages are damaged, tried on a copy in memory.
pub(in crate::store) fn makes_anew(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
    pages: &Inspected,
) -> bool {
    let (journal_keep_rows, audit_keep_rows) = (u64::MAX, u64::MAX);
    let options = StoreOptions { cache_bytes, journal_keep_rows, audit_keep_rows, clock: || 0 };
    can_be_made_anew(path, key, options, pages)
}

fn can_be_made_anew(path: &Path, key: Option<&StoreKey>, options: StoreOptions, pages: &Inspected) -> bool {
    let found = Found { broken: pages.broken.clone(), ..Found::default() };
    pages.broken.iter().all(|table| is_index(table))
        && matches!(
            rehearse(path, key, pages, |backend| Store::rehearsed(backend, options, found)),
            Ok(Rehearsed::Whole)
        )
}

/// The same for a store that is opened again or not at all, so that no index is made anew.
pub(crate) fn mend_file(path: &Path, key: Option<&StoreKey>, is_all: bool) -> Result<Found, StoreError> {
    mend(path, key, is_all, |_| false)
}

fn mend(
    path: &Path,
    key: Option<&StoreKey>,
    is_all: bool,
    can_be_made_anew: impl FnOnce(&Inspected) -> bool,
) -> Result<Found, StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    if !path.exists() {
        return Ok(Found::default());
    }
    let file = open_regular_to_write(path).map_err(io)?;
    let file = FileBackend::new(file)?;
    let length = file.len().map_err(io)?;
    let is_all = is_all || length <= WHOLE_BYTES_MAX;
    match (key, store_sealed_with(&file)?) {
        (None, None) => {
            let pages = inspect(&file, is_all).map_err(io)?;
            refuse_cut_off(path, key, &pages)?;
            let found = settle(&file, pages, can_be_made_anew)?;
            file.close().map_err(io)?;
            Ok(found)
        }
        (Some(key), Some(_)) => {
            // One that does not open says why when it is opened for good.
            let Ok(mut file) = Sealed::open_to_look(file, key) else { return Ok(Found::default()) };
            let pages = inspect_sealed(&file, is_all).map_err(io)?;
            refuse_cut_off(path, Some(key), &pages)?;
            let is_to_write = pages.bits_in_blocks > 0;
            let found = settle(&file, pages, can_be_made_anew)?;
            let bits = if is_to_write { file.write_back().map_err(io)? } else { 0 };
            file.close().map_err(io)?;
            Ok(Found { bits: found.bits + bits, ..found })
        }
        _ => Ok(Found::default()),
    }
}

fn settle(
    file: &impl StorageBackend,
    pages: Inspected,
    can_be_made_anew: impl FnOnce(&Inspected) -> bool,
) -> Result<Found, StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    if !pages.broken.is_empty() && !can_be_made_anew(&pages) {
        return Err(pages.refusal());
    }
    put_right(file, &pages).map_err(io)?;
    let Inspected { flips, damaged, broken, closed_blocks, ahead, surplus, has_torn_head, .. } = pages;
    if has_torn_head {
        tracing::warn!(
            "a copy of the encrypted store's first block does not open, and is written anew: the power failed while it was \
             written, or it has rotted. Nothing is lost"
        );
    }
    if ahead.is_some() {
        tracing::warn!(
            "the last change was on the disk as a whole and not marked as the one that counts, and is now: the power \
             failed just then, or the mark has rotted. Nothing is lost"
        );
    }
    if surplus > 0 {
        tracing::warn!(
            bytes = surplus,
            "bytes behind the end of the store's file are none of its own, and are cut off. Nothing is lost"
        );
    }
    if !flips.is_empty() {
        tracing::error!(
            bits = flips.len(),
            "bits of the store's file were not what was written, and are put right: the disk may be failing"
        );
    }
    if closed_blocks > 0 {
        tracing::error!(
            blocks = closed_blocks,
            "blocks of the encrypted store do not open, and what is in them is damaged: the disk may be failing"
        );
    }
    Ok(Found { damaged, broken, bits: flips.len() as u64, blocks: closed_blocks })
}

impl Found {
    /// Makes indexes anew whose pages are damaged; those that cannot even be emptied stay as they are, and are named.
    fn rebuild(&self, store: &Store) -> Result<(), StoreError> {
        let engine = &store.inner.engine;
        let rebuilt = unpanicked(|| {
            // What is in their pages is not read any more, and nothing of it stays.
            let first = |transaction: &WriteTransaction| drop_indexes(transaction, &self.broken);
            write_now(store, first, |tx| tx.rebuild_indexes(&self.broken))?;
            // The pages to which only the damaged one led would belong to nobody for ever. A rehearsal leaves it at that.
            Ok(store.inner.file.is_none() || engine.count_pages_anew()?)
        });
        match rebuilt {
            Ok(is_counted) => {
                tracing::warn!("indexes with damaged pages were made anew");
                if !is_counted {
                    tracing::warn!(
                        "pages that those led to count as used, and are not, because other rows of the store are damaged: once \
                         these are healed or set aside, `thalamus-edge db compact` frees them"
                    );
                }
                for table in self.broken.iter().filter(|table| is_index(table)) {
                    let (table, id) = (table.clone(), PAGES.to_owned());
                    engine.ledger.forget(&DamagedRow { table, kind: None, id });
                }
            }
            Err(error) => tracing::error!(%error, "indexes with damaged pages cannot be made anew"),
        }
        Ok(())
    }

    /// Names what is damaged in the ledger, and counts what was put right.
    pub(crate) fn note(&self, store: &Store) -> Result<(), StoreError> {
        let ledger = &store.inner.engine.ledger;
        self.name_in(ledger);
        if self.broken.iter().any(|table| is_index(table)) {
            self.rebuild(store)?;
        }
        if ledger.is_news(BASE.name()) {
            write_now(store, |_| Ok(()), |tx| tx.mend_outbox().map(drop))?;
        }
        if !ledger.is_empty() {
            store.read()?.note_missing()?;
        }
        store.count_defects(self.bits, self.blocks)
    }

    /// Names what is damaged.
    pub(in crate::store) fn name_in(&self, ledger: &Ledger) {
        name_rows(&self.damaged, ledger);
        for table in &self.broken {
            ledger.note(DamagedRow { table: table.clone(), kind: None, id: PAGES.to_owned() });
        }
    }

    /// Wrong bits that were put right, and blocks that did not open.
    pub(in crate::store) fn defects(&self) -> (u64, u64) {
        (self.bits, self.blocks)
    }
}

/// Writes to a store that is being started; `first` is done before its tables are opened.
fn write_now(
    store: &Store,
    first: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
    job: impl FnOnce(&mut Tx<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (engine, options) = (&store.inner.engine, &store.inner.options);
    let mut tried = engine.writing();
    let mut transaction = engine.begin_write(&mut tried)?;
    transaction.set_quick_repair(true);
    first(&transaction)?;
    let mut carry = Carry { ledger: Arc::clone(&engine.ledger), ..Carry::default() };
    job(&mut Tx::open(&transaction, options, &mut carry)?)?;
    engine.commit(transaction, Counted::Anew)
}

impl Store {
    /// Adds to what is known of the disk.
    fn count_defects(&self, bits: u64, blocks: u64) -> Result<(), StoreError> {
        if (bits, blocks) == (0, 0) {
            return Ok(());
        }
        // The row that counts them may be among what is wrong: it is counted anew then.
        let before = unless_unreadable(self.bits_put_right())?.flatten();
        let (bits, blocks) =
            before.map_or((bits, blocks), |before| (before.bits + bits, before.blocks + blocks));
        let row = encode(&doc! {"bits": bits as i64, "blocks": blocks as i64, "last": self.now_ms()})?;
        let engine = &self.inner.engine;
        let mut tried = engine.writing();
        let mut transaction = engine.begin_write(&mut tried)?;
        transaction.set_quick_repair(true);
        transaction.open_table(META)?.insert(META_BITS, row.as_slice())?;
        engine.commit(transaction, Counted::AsBefore)
    }

    /// Counts what was found since the store was opened.
    pub(in crate::store) fn count_later_defects(&self) -> Result<(), StoreError> {
        let Some(file) = &self.inner.file else { return Ok(()) };
        let (bits, blocks) = file.take_defects();
        self.count_defects(bits, blocks).inspect_err(|_| file.give_back(bits, blocks))
    }
}

impl Store {
    /// How many wrong bits of the file were put right since the store was made; nothing if none were. [`StoreError::Damaged`]
    /// if that cannot be read.
    pub fn bits_put_right(&self) -> Result<Option<BitsPutRight>, StoreError> {
        self.read()?.meta_row(META_BITS)?.map(|row| BitsPutRight::decode(&row)).transpose()
    }
}
