//! Floor 1. Looking after the file of a store that no node holds: is it whole, does it add up, how small can it be.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, StorageBackend};
use rustix::fs::{FlockOperation, flock};

use crate::files::{Unfinished, create_private, open_regular, open_regular_to_write, suffixed};
use crate::store::backup::Summary;
use crate::store::check::name_rows;
use crate::store::engine::Snapshot;
use crate::store::error::{DamagedRow, SealError, StoreError};
use crate::store::file::{
    Inspected, Sealed, StoreFile, StoreKey, Untouched, change_key, inspect, open_as_a_start, open_to_check,
    store_sealed_with, unpanicked, unreadable,
};
use crate::store::opening::{format_in, makes_anew, mend_file, prepare};
use crate::store::rows::{Ledger, View};
use crate::store::schema::{FORMAT_VERSION, is_index};

/// The name of a store that is being written anew, behind that of the store.
const RECODED_ENDING: &str = ".recoded";
/// How much is copied at a time.
const COPY_BYTES_MAX: usize = 1 << 20;
/// What an encrypted store is sealed in.
const BLOCK_BYTES: usize = 4096;

/// Page cache while a store is looked at.
const LOOK_CACHE_BYTES: usize = 4 << 20;

/// What was found out about a store.
#[derive(Debug)]
pub struct CheckedStore {
    /// Whether redb finds the pages of its file as they should be.
    pub was_clean: bool,
    /// Rows whose checksum is wrong. If there are any, the tables were not compared.
    pub damaged: Vec<DamagedRow>,
    pub summary: Summary,
    /// What does not add up: see [`Snapshot::disagreements`].
    pub complaints: Vec<String>,
    /// Whether the next start of the node puts all of this right.
    pub is_put_right_by_a_start: bool,
}

/// Keeps everybody else from opening a store, also one that cannot be opened.
pub fn lock_file(path: &Path) -> Result<File, StoreError> {
    let file = open_regular_to_write(path).map_err(|e| StoreError::of_io(&e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Held),
        locked => locked.map(|()| file).map_err(|e| StoreError::of_io(&e.into())),
    }
}

fn open(path: &Path, key: Option<&StoreKey>, cache_bytes: usize) -> Result<Database, StoreError> {
    mend_file(path, key, false)?;
    let database = StoreFile::at(path, key).open(cache_bytes, Arc::default())?;
    prepare(&database.begin_read()?, || Ok(database.begin_write()?))?;
    Ok(database)
}

/// Goes through a store that nobody has open: every row, what the tables say about each other, and redb's pages.
/// Changes nothing in the file.
pub fn check_store(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
) -> Result<CheckedStore, StoreError> {
    let (store, pages) = open_to_check(path, key, cache_bytes).map_err(with_way_out)?;
    unpanicked(|| check(store, &pages)).map_err(|error| match error {
        StoreError::Newer { .. } | StoreError::Older { .. } => error,
        _ if !pages.broken.is_empty() => pages.refusal(),
        error => with_way_out(error),
    })
}

fn with_way_out(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged(cause) => unreadable(&cause),
        other => other,
    }
}

fn check(mut store: Untouched, pages: &Inspected) -> Result<CheckedStore, StoreError> {
    match format_in(&store.database.begin_read()?)? {
        Some(found) if found > FORMAT_VERSION => {
            return Err(StoreError::Newer { found, known: FORMAT_VERSION });
        }
        Some(found) if found < FORMAT_VERSION => {
            return Err(StoreError::Older { found, known: FORMAT_VERSION });
        }
        _ => {}
    }
    let ledger = Arc::<Ledger>::default();
    name_rows(&pages.in_rows, &ledger);
    let of_one_bit = ledger.rows();
    let snapshot =
        Snapshot::new(View::new(store.database.begin_read()?, Arc::clone(&ledger)), Arc::default());
    let mut complaints = Vec::new();
    let damaged = match unpanicked(|| snapshot.damaged_rows().and_then(|()| snapshot.note_missing())) {
        Ok(()) => ledger.rows(),
        Err(error) => {
            complaints.push(error.to_string());
            ledger.rows()
        }
    };
    let summary = unpanicked(|| snapshot.summary()).unwrap_or_default();
    let is_comparable = damaged.is_empty() && complaints.is_empty() && pages.broken.is_empty();
    if is_comparable {
        complaints.extend(unpanicked(|| snapshot.disagreements())?);
    }
    drop(snapshot);
    let is_put_right_by_a_start =
        complaints.is_empty() && damaged == of_one_bit && pages.broken.iter().all(|table| is_index(table));
    // Last, because what it would mend is what the rows above were read from.
    let was_clean =
        pages.is_whole() && matches!(unpanicked(|| Ok(store.database.check_integrity()?)), Ok(true));
    if pages.surplus > 0 {
        complaints.push(format!(
            "{} bytes behind the end of the file are none of its own, which the next start of the node cuts off",
            pages.surplus
        ));
    }
    if pages.has_torn_head {
        complaints.push(
            "a copy of the encrypted file's first block does not open, as after a power cut, or because it has rotted: the \
             next start of the node writes it anew"
                .to_owned(),
        );
    }
    let bits = pages.flips.len() as u64 + pages.bits_in_blocks;
    if bits > 0 {
        complaints.push(format!(
            "{bits} single bits of the file are wrong, which the next start of the node puts right"
        ));
    }
    if pages.closed_blocks > 0 {
        complaints.push(format!(
            "{} blocks of the encrypted file do not open: rows in them are damaged",
            pages.closed_blocks
        ));
    }
    for table in &pages.broken {
        complaints.push(match is_index(table) {
            true => format!(
                "pages of {table} are damaged; no record is in it, and the next start of the node makes it anew"
            ),
            false => format!(
                "pages of {table} are damaged beyond repair, and rows of it may be missing: keep a copy of the file and \
                 restore the last good backup"
            ),
        });
    }
    let is_put_right_by_a_start =
        is_put_right_by_a_start && !complaints.is_empty() && pages.closed_blocks == 0;
    if !was_clean && damaged.is_empty() && complaints.is_empty() {
        complaints.push(
            "pages of the file count as used and are not, though every row reads well: `thalamus-edge db compact` frees \
             them"
                .to_owned(),
        );
    }
    Ok(CheckedStore { was_clean, summary, damaged, complaints, is_put_right_by_a_start })
}

/// Looks at a store that nobody has open, as a start would find it, and writes nothing; `None` if there is none yet, or
/// one of an older format, which a start upgrades. Fails as a start would.
pub fn look_at_store<T>(
    path: &Path,
    key: Option<&StoreKey>,
    look: impl FnOnce(&Snapshot) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| StoreError::of_io(&error))?,
    };
    let about = path.metadata().map_err(|error| StoreError::of_io(&error))?;
    if about.is_dir() {
        return Err(StoreError::Failed("it is a directory, where the store's file belongs".to_owned()));
    }
    if about.len() == 0 {
        return Err(unreadable("the file is empty, which a store never is"));
    }
    let looked = unpanicked(|| {
        let (store, pages) = open_as_a_start(path, key, LOOK_CACHE_BYTES)?;
        if !pages.broken.is_empty() && !makes_anew(path, key, LOOK_CACHE_BYTES, &pages) {
            return Err(pages.refusal());
        }
        match format_in(&store.database.begin_read()?)? {
            Some(found) if found > FORMAT_VERSION => Err(StoreError::Newer { found, known: FORMAT_VERSION }),
            Some(found) if found == FORMAT_VERSION => {
                let view = View::new(store.database.begin_read()?, Arc::default());
                look(&Snapshot::new(view, Arc::default())).map(Some)
            }
            _ => Ok(None),
        }
    });
    looked.map_err(with_way_out)
}

/// Makes the file of a store that nobody has open as small as it can be; its size before and after, in bytes.
pub fn compact_store(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
) -> Result<(u64, u64), StoreError> {
    let size = || path.metadata().map(|about| about.len()).map_err(|e| StoreError::of_io(&e));
    let before = size()?;
    let mut database = open(path, key, cache_bytes)?;
    // Frees pages that count as used and are not. It is given up where a row is damaged, and asks to be opened again then.
    if !matches!(unpanicked(|| Ok(database.check_integrity())), Ok(Ok(_))) {
        drop(database);
        database = open(path, key, cache_bytes)?;
    }
    // Moves what is at the end of the file forward, as often as that helps.
    while database.compact()? {}
    drop(database);
    Ok((before, size()?))
}

/// Writes a store that nobody has open anew, encrypted with `new` or not, and puts it in the place of the old one
/// once it has been read back and compared. Returns its size in bytes.
///
/// At every moment the name belongs to the old file or to the new one. What the old one held stays on the disk where
/// it was until something else is written there.
pub fn recode_store(path: &Path, old: Option<&StoreKey>, new: Option<&StoreKey>) -> Result<u64, StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    // The store may be a link to another disk.
    let path = &path.canonicalize().map_err(io)?;
    mend_file(path, old, true)?;
    let _lock = lock_file(path)?;
    let source = bytes_of(open_regular(path).map_err(io)?, old)?;
    let unfinished = Unfinished::at(suffixed(path, RECODED_ENDING)).map_err(io)?;
    let file = create_private(unfinished.path()).map_err(io)?;
    let owner = path.metadata().map_err(io)?;
    chown(unfinished.path(), Some(owner.uid()), Some(owner.gid())).map_err(io)?;
    let target = bytes_of(file, new)?;
    let unread = copy(&*source, &*target).map_err(io)?;
    if unread > 0 {
        // Pages that are used open, or were written anew with damaged rows. What does not open is free if all that is used
        // is there without it.
        let pages = inspect(&*target, true).map_err(io)?;
        if pages.is_left_to_redb {
            return Err(StoreError::Failed(format!(
                "{unread} blocks of it do not open, and it was not closed: start the node and stop it, then try again"
            )));
        }
        if !pages.is_sound() {
            return Err(StoreError::Broken("blocks of the encrypted store that do not open".to_owned()));
        }
        tracing::warn!(blocks = unread, "unused blocks of the encrypted store do not open, and are left out");
    }
    if !is_same(&*source, &*target).map_err(io)? {
        return Err(StoreError::Failed(
            "what was read back is not what was written: the disk may be failing".into(),
        ));
    }
    unfinished.take_place(path).map_err(io)?;
    Ok(path.metadata().map_err(io)?.len())
}

/// Gives an encrypted store that nobody has open another key.
pub fn change_store_key(path: &Path, old: &StoreKey, new: &StoreKey) -> Result<(), StoreError> {
    let _lock = lock_file(path)?;
    let file = open_regular_to_write(path).map_err(|e| StoreError::of_io(&e))?;
    let file = FileBackend::new(file)?;
    store_sealed_with(&file)?;
    Ok(change_key(&file, old, new)?)
}

/// What redb would see of this file, which is empty or a store.
fn bytes_of(file: File, key: Option<&StoreKey>) -> Result<Box<dyn StorageBackend>, StoreError> {
    let file = FileBackend::new(file)?;
    let sealed_with = store_sealed_with(&file)?;
    let is_empty = file.len().map_err(|error| StoreError::of_io(&error))? == 0;
    Ok(match (key, sealed_with) {
        (None, Some(id)) => return Err(SealError::NoKey(id).into()),
        (Some(_), None) if !is_empty => return Err(SealError::NotSealed.into()),
        (None, None) => Box::new(file),
        (Some(key), _) => Box::new(Sealed::open(file, key)?),
    })
}

/// Copies all bytes. Returns how many blocks of an encrypted store did not open, for which there are zeros now.
fn copy(from: &dyn StorageBackend, to: &dyn StorageBackend) -> io::Result<u64> {
    let length = from.len()?;
    let mut unread = 0;
    to.set_len(length)?;
    for (at, mut part) in parts(length) {
        unread += read_part(from, at, &mut part)?;
        to.write(at, &part)?;
    }
    to.sync_data()?;
    Ok(unread)
}

/// Reads bytes that begin with a block. Returns how many blocks of an encrypted store did not open; they are zeros then.
fn read_part(from: &dyn StorageBackend, at: u64, part: &mut [u8]) -> io::Result<u64> {
    let is_closed =
        |read: &io::Result<()>| matches!(read, Err(error) if error.kind() == io::ErrorKind::InvalidData);
    let read = from.read(at, part);
    if !is_closed(&read) {
        return read.map(|()| 0);
    }
    let mut unread = 0;
    for (block, at) in part.chunks_mut(BLOCK_BYTES).zip((at..).step_by(BLOCK_BYTES)) {
        let read = from.read(at, block);
        if is_closed(&read) {
            block.fill(0);
            unread += 1;
        } else {
            read?;
        }
    }
    Ok(unread)
}

fn is_same(a: &dyn StorageBackend, b: &dyn StorageBackend) -> io::Result<bool> {
    let length = a.len()?;
    if b.len()? != length {
        return Ok(false);
    }
    for (at, mut part) in parts(length) {
        let mut other = part.clone();
        read_part(a, at, &mut part)?;
        b.read(at, &mut other)?;
        if part != other {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Room for each part of so many bytes, and where the part begins.
fn parts(length: u64) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let step = COPY_BYTES_MAX as u64;
    (0..length).step_by(COPY_BYTES_MAX).map(move |at| (at, vec![0; step.min(length - at) as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::BY_NAME;
    use crate::store::{Store, StoreOptions, Tx};

    const CACHE_BYTES: usize = 1 << 20;

    async fn store_in(path: &Path) {
        let options = StoreOptions {
            cache_bytes: CACHE_BYTES,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        let store = Store::open(path, options).unwrap();
        let job = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let person = bson::doc! {"_id": "ana01", "name": "Ana", "lastname": "Núñez"};
            let actor = crate::domain::access::Actor::Local("tech".to_owned());
            let key = crate::domain::record::RecordKey::new(crate::domain::record::Kind::Person, "ana01");
            tx.edit(&key, Some(&person), &actor).map(|_| ())
        };
        store.transact(job).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_does_not_add_up_is_told_from_one_that_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        store_in(&path).await;
        let checked = check_store(&path, None, CACHE_BYTES).unwrap();
        assert_eq!((checked.was_clean, checked.complaints), (true, Vec::new()));
        assert_eq!(checked.summary.records.values().sum::<u64>(), 1);
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(BY_NAME).unwrap().pop_first().unwrap();
        transaction.commit().unwrap();
        drop(database);
        let checked = check_store(&path, None, CACHE_BYTES).unwrap();
        assert_eq!(checked.complaints, ["by_name: 1 rows are missing, 0 should not be there"]);
    }

    #[tokio::test]
    async fn a_store_that_is_locked_cannot_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        store_in(&path).await;
        let lock = lock_file(&path).unwrap();
        assert!(matches!(check_store(&path, None, CACHE_BYTES), Err(StoreError::Held)));
        assert!(matches!(lock_file(&path), Err(StoreError::Held)));
        drop(lock);
        let database = Database::open(&path).unwrap();
        assert!(matches!(lock_file(&path), Err(StoreError::Held)));
        drop(database);
        assert!(compact_store(&path, None, CACHE_BYTES).is_ok());
    }
}
