//! Floor 1. Wrong bits of the store's file: found at every start, put right where one bit explains the damage.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bson::doc;
use redb::backends::FileBackend;
use redb::{Key, ReadableTable as _, StorageBackend, TableDefinition, Value, WriteTransaction};

use super::carry::Carry;
use super::fields::{Fields, unless_unreadable};
use super::overlay::{Rehearsed, refuse_cut_off, rehearse, unpanicked};
use super::pages::{Inspected, inspect, inspect_sealed, put_right};
use super::reindex::{drop_indexes, is_index};
use super::rows::{DamagedRow, Ledger, RowName, RowsDefinition};
use super::sealed::{BLOCKS_AT, Sealed, store_sealed_with};
use super::tables::{
    BASE, BY_NAME, BY_OWNER, BaseRow, DELETE_RANK_MIN, DOCS, EachTable, META, each_table, encode, row_key,
};
use super::tally::Counted;
use super::{Snapshot, Store, StoreError, StoreKey, StoreOptions, Tx};
use crate::domain::folding::terms;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::IdRule;
use crate::files::{open_regular, open_regular_to_write};

/// In `meta`: how many wrong bits were put right in all, and when the last ones were, in milliseconds since 1970.
const META_BITS: &str = "bits_put_right";
/// Larger files are looked at as a whole in the background only, so that a node starts soon.
pub(crate) const WHOLE_BYTES_MAX: u64 = 512 << 20;
/// What is written in place: the header and what lies beside it in its page; in an encrypted store all before its blocks.
const HEADER_BYTES: usize = BLOCKS_AT as usize;
/// What stands for the id where pages of a table are damaged.
pub(crate) const PAGES: &str = "(pages)";

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
    pub(super) fn decode(row: &[u8]) -> Result<BitsPutRight, StoreError> {
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
pub(super) fn makes_anew(path: &Path, key: Option<&StoreKey>, cache_bytes: usize, pages: &Inspected) -> bool {
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
    pub(super) fn name_in(&self, ledger: &Ledger) {
        name_rows(&self.damaged, ledger);
        for table in &self.broken {
            ledger.note(DamagedRow { table: table.clone(), kind: None, id: PAGES.to_owned() });
        }
    }

    /// Wrong bits that were put right, and blocks that did not open.
    pub(super) fn defects(&self) -> (u64, u64) {
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
    pub(super) fn count_later_defects(&self) -> Result<(), StoreError> {
        let Some(file) = &self.inner.file else { return Ok(()) };
        let (bits, blocks) = file.take_defects();
        self.count_defects(bits, blocks).inspect_err(|_| file.give_back(bits, blocks))
    }
}

/// Notes damaged rows, by table and key, as what their keys say.
pub(crate) fn name_rows(damaged: &[(String, Vec<u8>)], ledger: &Ledger) {
    let Ok(()) = each_table(&mut Naming { damaged, ledger });
}

struct Naming<'a> {
    damaged: &'a [(String, Vec<u8>)],
    ledger: &'a Ledger,
}

impl EachTable for Naming<'_> {
    type Error = std::convert::Infallible;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), Self::Error> {
        for (table, key) in self.damaged.iter().filter(|(table, _)| *table == rows.name()) {
            // A key that is none of this type would make redb give up.
            let named = catch_unwind(AssertUnwindSafe(|| K::row_name(&K::from_bytes(key))));
            let (code, id) = named.unwrap_or_else(|_| (None, hex::encode(key)));
            self.ledger.note(DamagedRow { table: table.clone(), kind: code.and_then(Kind::from_code), id });
        }
        Ok(())
    }
}

impl Snapshot {
    /// While rows are known to be damaged: whether a record that is not there is known from what follows from it, so that it
    /// lies under another key or is lost.
    pub(crate) fn check_absent(&self, key: &RecordKey) -> Result<(), StoreError> {
        if !self.transaction.has_damage() {
            return Ok(());
        }
        let (code, id) = row_key(key);
        let base = self.transaction.open_table(BASE)?;
        let place = base.get((code, id))?.map(|row| BaseRow::place(row.value())).transpose()?;
        let mut is_known = place.is_some_and(|(rank, _)| rank < DELETE_RANK_MIN);
        if key.kind.schema().id_rule == IdRule::Account {
            let by_name = self.transaction.open_table(BY_NAME)?;
            for term in terms(id) {
                is_known |= by_name.get((term.as_str(), id))?.is_some();
            }
        } else {
            for entry in self.transaction.open_table(BY_OWNER)?.range((code, "", "")..(code + 1, "", ""))? {
                is_known |= entry?.0.value().2 == id;
            }
        }
        if !is_known {
            return Ok(());
        }
        let (table, kind) = (DOCS.name().to_owned(), Some(key.kind));
        Err(self.transaction.missing(DamagedRow { table, kind, id: id.to_owned() }))
    }
}

/// The file of an open store as one commit left it. Pages of that commit stay as they are while a view of it lives; the
/// header is kept from when the view was made.
#[derive(Debug)]
struct Committed {
    file: File,
    length: u64,
    header: Vec<u8>,
}

impl StorageBackend for Committed {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.header.get(from..from.saturating_add(out.len())) {
            Some(header) => out.copy_from_slice(header),
            None => self.file.read_exact_at(out, offset)?,
        }
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Store {
    /// Looks at the pages of the open store. Wrong bits are put right by opening it again, which ends what is being read at
    /// that moment; what is beyond that is named. Reads the whole file.
    pub async fn look_at_pages(&self) -> Result<(), StoreError> {
        let store = self.clone();
        let looked = tokio::task::spawn_blocking(move || store.look_at_pages_now());
        looked.await.map_err(|error| StoreError::Damaged(format!("pages cannot be followed: {error}")))?
    }

    fn look_at_pages_now(&self) -> Result<(), StoreError> {
        let io = |error: io::Error| StoreError::of_io(&error);
        let engine = &self.inner.engine;
        let Some(file) = self.inner.file.as_ref() else {
            return Ok(());
        };
        let (_view, committed) = {
            let _nobody_writes = engine.writing();
            let view = engine.view()?;
            let open = open_regular(&file.path).map_err(io)?;
            let mut header = vec![0; HEADER_BYTES];
            open.read_exact_at(&mut header, 0).map_err(io)?;
            let length = open.metadata().map_err(io)?.len();
            (view, Committed { file: open, length, header })
        };
        let found = match &file.key {
            None => inspect(&committed, true).map_err(io)?,
            Some(key) => inspect_sealed(&Sealed::open_to_look(committed, key)?, true).map_err(io)?,
        };
        name_rows(&found.damaged, &engine.ledger);
        for table in &found.broken {
            engine.ledger.note(DamagedRow { table: table.clone(), kind: None, id: PAGES.to_owned() });
        }
        let bits = found.flips.len() as u64 + found.bits_in_blocks;
        if bits > 0 || (found.closed_blocks > 0 && !found.patches.is_empty()) {
            tracing::error!(
                bits,
                blocks = found.closed_blocks,
                "the store's file is not what was written: it is opened again"
            );
            file.mend_next();
            engine.reopen();
        }
        Ok(())
    }

    /// Whether pages of the file are damaged, so that rows may be missing of which nobody knows: then nothing is
    /// concluded from a row that is not there.
    pub fn has_broken_pages(&self) -> bool {
        self.damaged_rows().iter().any(|row| row.id == PAGES)
    }

    /// How many wrong bits of the file were put right since the store was made; nothing if none were. [`StoreError::Damaged`]
    /// if that cannot be read.
    pub fn bits_put_right(&self) -> Result<Option<BitsPutRight>, StoreError> {
        self.read()?.meta_row(META_BITS)?.map(|row| BitsPutRight::decode(&row)).transpose()
    }
}

impl Tx<'_> {
    /// Compares what is to be sent with the place it has in the queue, and mends what contradicts: a record that is in the
    /// queue and has no row of what was last agreed counts as damaged, never as sent; one that has lost its place
    /// gets it back. Returns how many.
    pub fn mend_outbox(&mut self) -> Result<u64, StoreError> {
        let (mut lost_base, mut phantoms) = (Vec::new(), Vec::new());
        for entry in self.dirty.iter()? {
            let (at, _) = entry?;
            let (rank, sequence, code, id) = at.value();
            if !self.base.contains((code, id))? {
                lost_base.push((rank, sequence, code, id.to_owned()));
            } else if !self.base.is_damaged((code, id))? {
                let row = self.base.get((code, id))?;
                let place = row.map(|row| BaseRow::place(row.value())).transpose()?;
                // The record has another place: a bit of this one was wrong.
                if place != Some((rank, sequence)) {
                    phantoms.push((rank, sequence, code, id.to_owned()));
                }
            }
        }
        let mut lost_place = Vec::new();
        for entry in self.base.iter()?.sound() {
            let (at, row) = entry?;
            let ((code, id), (rank, sequence)) = (at.value(), BaseRow::place(row.value())?);
            if self.dirty.get((rank, sequence, code, id))?.is_none() {
                lost_place.push((rank, sequence, code, id.to_owned()));
            }
        }
        let now_ms = self.now_ms();
        let count = (lost_base.len() + lost_place.len() + phantoms.len()) as u64;
        for (rank, sequence, code, id) in phantoms {
            self.dirty.remove((rank, sequence, code, id.as_str()))?;
        }
        for (rank, sequence, code, id) in lost_base {
            if lost_place
                .iter()
                .any(|(of_rank, of_sequence, ..)| (*of_rank, *of_sequence) == (rank, sequence))
            {
                // The same row under a wrong name.
                self.dirty.remove((rank, sequence, code, id.as_str()))?;
                continue;
            }
            let row = BaseRow::encode(rank, sequence, &super::Base::Absent)?;
            self.base.insert_damaged((code, id.as_str()), &row)?;
        }
        for (rank, sequence, code, id) in lost_place {
            self.dirty.insert((rank, sequence, code, id.as_str()), (now_ms, "unknown"))?;
        }
        if count > 0 {
            self.wrote();
        }
        Ok(count)
    }

    /// As [`Snapshot::check_absent`], for people: where a row lies under a key that is damaged, another person with the same
    /// account must not be taken for its owner.
    pub(crate) fn check_absent(&self, key: &RecordKey) -> Result<(), StoreError> {
        if key.kind != Kind::Person {
            return Ok(());
        }
        let mut is_known = self.is_lost(key)?;
        let known_by = if self.docs.has_damage() { terms(&key.id) } else { BTreeSet::new() };
        for term in known_by {
            is_known |= self.by_name.get((term.as_str(), key.id.as_str()))?.is_some();
        }
        if is_known { Err(self.docs.missing(row_key(key))) } else { Ok(()) }
    }

    /// Whether a record that was edited here is not there any more, though nobody deleted it.
    pub(crate) fn is_lost(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let at = row_key(key);
        let place = self.base.get(at)?.map(|row| BaseRow::place(row.value())).transpose()?;
        let is_edit = place.is_some_and(|(rank, _)| rank < DELETE_RANK_MIN);
        Ok(is_edit && !self.docs.contains(at)?)
    }
}
