//! Floor 1. Wrong bits of the store's file: found at every start, put right where one bit explains the damage.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bson::doc;
use redb::backends::FileBackend;
use redb::{Key, ReadableTable as _, StorageBackend, TableDefinition, Value};

use super::overlay::{Rehearsed, rehearse, unpanicked};
use super::pages::{Inspected, inspect, put_right};
use super::records::Carry;
use super::reindex::is_index;
use super::rows::{DamagedRow, Ledger, RowName, RowsDefinition};
use super::sealed::sealed_with;
use super::tables::{
    BASE, BY_NAME, BY_OWNER, BaseRow, DELETE_RANK_MIN, DOCS, EachTable, META, each_table, encode, row_key,
};
use super::{Snapshot, Store, StoreError, StoreKey, StoreOptions, Tx};
use crate::domain::folding::terms;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::IdRule;

/// In `meta`: how many wrong bits were put right in all, and when the last ones were, in milliseconds since 1970.
const META_BITS: &str = "bits_put_right";
/// Larger files are looked at as a whole in the background only, so that a node starts soon.
pub(crate) const WHOLE_BYTES_MAX: u64 = 512 << 20;
/// The header and what lies beside it in its page.
const HEADER_PAGE_BYTES: usize = 4096;
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
}

/// How often bits of this store were wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitsPutRight {
    pub bits: u64,
    /// Milliseconds since 1970, for people.
    pub last_ms: i64,
}

/// Looks at all pages of a store that nobody has open, and puts single wrong bits right. An encrypted store does that
/// block by block while it reads.
///
/// A file with pages that are damaged beyond that is [`StoreError::Broken`] and stays as it is: to write to it is to lose
/// it. Indexes can be made anew; that is done without the file first, and a file that would not be whole afterwards is
/// broken like any other.
pub(crate) fn look_at_file(
    path: &Path,
    key: Option<&StoreKey>,
    options: StoreOptions,
) -> Result<Found, StoreError> {
    let found = mend(path, key, |pages| {
        let found = || Found { broken: pages.broken.clone(), ..Found::default() };
        let start = |backend| Store::rehearsed(backend, options, found());
        pages.broken.iter().all(|table| is_index(table))
            && matches!(rehearse(path, pages, start), Ok(Rehearsed::Whole))
    })?;
    if !found.broken.is_empty() {
        let tables = found.broken.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::error!(tables, "indexes in the store's file have damaged pages and are made anew");
    }
    Ok(found)
}

/// The same for a store that is opened again or not at all, so that no index is made anew.
pub(crate) fn mend_file(path: &Path, key: Option<&StoreKey>) -> Result<(), StoreError> {
    mend(path, key, |_| false).map(drop)
}

fn mend(
    path: &Path,
    key: Option<&StoreKey>,
    can_be_made_anew: impl FnOnce(&Inspected) -> bool,
) -> Result<Found, StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    if key.is_some() || !path.exists() {
        return Ok(Found::default());
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    let file = FileBackend::new(file)?;
    if sealed_with(&file).map_err(io)?.is_some() {
        return Ok(Found::default());
    }
    let length = file.len().map_err(io)?;
    let pages = inspect(&file, length <= WHOLE_BYTES_MAX).map_err(io)?;
    if !pages.broken.is_empty() && !can_be_made_anew(&pages) {
        return Err(pages.refusal());
    }
    let Inspected { flips, damaged, broken, .. } = pages;
    put_right(&file, &flips).map_err(io)?;
    file.close().map_err(io)?;
    if !flips.is_empty() {
        tracing::error!(
            bits = flips.len(),
            "bits of the store's file were not what was written, and are put right: the disk may be failing"
        );
    }
    Ok(Found { damaged, broken, bits: flips.len() as u64 })
}

impl Found {
    /// Makes indexes anew whose pages are damaged; those that cannot even be emptied stay as they are, and are named.
    fn rebuild(&self, store: &Store) -> Result<(), StoreError> {
        let (engine, options) = (&store.inner.engine, &store.inner.options);
        // Emptying a table whose keys make no sense makes redb give up in the middle of a write.
        let snapshot = store.read()?;
        let unreadable = |error| StoreError::Damaged(format!("not every row can be read: {error}"));
        let is_readable = unpanicked(|| snapshot.content_sha256().map_err(unreadable));
        drop(snapshot);
        if let Err(error) = is_readable {
            tracing::error!(%error, "indexes with damaged pages cannot be made anew");
            return Ok(());
        }
        let rebuilt = unpanicked(|| {
            let mut tried = engine.writing();
            let mut transaction = engine.begin_write(&mut tried)?;
            transaction.set_quick_repair(true);
            let mut carry = Carry { ledger: Arc::clone(&engine.ledger), ..Carry::default() };
            Tx::open(&transaction, options, &mut carry)?.rebuild_indexes()?;
            engine.commit(transaction)
        });
        match rebuilt {
            Ok(()) => {
                tracing::warn!("indexes with damaged pages were made anew");
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
        name_rows(&self.damaged, ledger);
        for table in &self.broken {
            ledger.note(DamagedRow { table: table.clone(), kind: None, id: PAGES.to_owned() });
        }
        if self.broken.iter().any(|table| is_index(table)) {
            self.rebuild(store)?;
        }
        if self.bits == 0 {
            return Ok(());
        }
        let before = store.bits_put_right()?.map_or(0, |before| before.bits);
        let row = encode(&doc! {"bits": (before + self.bits) as i64, "last": store.now_ms()})?;
        let engine = &store.inner.engine;
        let mut tried = engine.writing();
        let mut transaction = engine.begin_write(&mut tried)?;
        transaction.set_quick_repair(true);
        transaction.open_table(META)?.insert(META_BITS, row.as_slice())?;
        engine.commit(transaction)
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
        let Some(file) = self.inner.file.as_ref().filter(|file| !file.is_sealed()) else {
            return Ok(());
        };
        let (_view, committed) = {
            let _nobody_writes = engine.writing();
            let view = engine.view()?;
            let open = File::open(&file.path).map_err(io)?;
            let mut header = vec![0; HEADER_PAGE_BYTES];
            open.read_exact_at(&mut header, 0).map_err(io)?;
            let length = open.metadata().map_err(io)?.len();
            (view, Committed { file: open, length, header })
        };
        let found = inspect(&committed, true).map_err(io)?;
        name_rows(&found.damaged, &engine.ledger);
        for table in &found.broken {
            engine.ledger.note(DamagedRow { table: table.clone(), kind: None, id: PAGES.to_owned() });
        }
        if !found.flips.is_empty() {
            tracing::error!(
                bits = found.flips.len(),
                "bits of the store's file are wrong: it is opened again"
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

    /// How many wrong bits of the file were put right since the store was made; nothing if none were.
    pub fn bits_put_right(&self) -> Result<Option<BitsPutRight>, StoreError> {
        let row = self.read()?.meta(META_BITS)?;
        Ok(row.map(|row| BitsPutRight {
            bits: row.get_i64("bits").map_or(0, |bits| u64::try_from(bits).unwrap_or_default()),
            last_ms: row.get_i64("last").unwrap_or_default(),
        }))
    }
}

impl Tx<'_> {
    /// Compares what is to be sent with the place it has in the queue, and mends what contradicts: a record that is in the
    /// queue and has no row of what was last agreed counts as damaged, never as sent; one that has lost its place
    /// gets it back. Returns how many.
    pub fn mend_outbox(&mut self) -> Result<u64, StoreError> {
        let mut lost_base = Vec::new();
        for entry in self.dirty.iter()? {
            let (at, _) = entry?;
            let (rank, sequence, code, id) = at.value();
            if !self.base.contains((code, id))? {
                lost_base.push((rank, sequence, code, id.to_owned()));
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
        let count = (lost_base.len() + lost_place.len()) as u64;
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

    /// Whether a record that was edited here is not there any more, though nobody deleted it.
    pub(crate) fn is_lost(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let at = row_key(key);
        let place = self.base.get(at)?.map(|row| BaseRow::place(row.value())).transpose()?;
        let is_edit = place.is_some_and(|(rank, _)| rank < DELETE_RANK_MIN);
        Ok(is_edit && !self.docs.contains(at)?)
    }
}
