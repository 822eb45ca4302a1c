//! Floor 1. The store's file: made as a whole or not at all, opened, and never written over.
//!
//! redb makes a new file in several steps, and one that was begun and not finished never opens. So it is made
//! under another name, and gets its own once it is complete and on disk: a power cut in between leaves either
//! no store or an empty one. What it leaves under the other name holds nothing and is replaced.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, StorageError};
use rustix::fs::{Advice, FlockOperation, fadvise, flock};

use super::engine::Watched;
use super::overlay::{GIVEN_UP, caught};
use super::put_right::{PAGES, mend_file};
use super::reindex::is_index;
use super::rows::{DamagedRow, Ledger};
use super::sealed::{Defects, SealError, Sealed, StoreKey, store_sealed_with};
use super::{StoreError, writer};
use crate::files::{
    Unfinished, create_private, directory_of, open_directory, open_regular_to_write, suffixed,
};

/// What the name of a file that is being made has at its end.
const UNFINISHED_SUFFIX: &str = ".new";
/// Page cache while a file is being made.
const CREATE_CACHE_BYTES: usize = 1 << 20;

/// The store's file at one place. It may be made when it is first opened, never when it is opened again.
#[derive(Clone)]
pub(crate) struct StoreFile {
    pub(super) path: PathBuf,
    /// Of an encrypted store; one that is made is encrypted with it.
    pub(super) key: Option<StoreKey>,
    /// Device and number of the file that was opened first.
    identity: Arc<OnceLock<(u64, u64)>>,
    /// Wrong bits were found while it was open: they are put right before it is opened again.
    is_to_mend: Arc<AtomicBool>,
    later: Arc<Later>,
}

/// What was found out about the file since it was opened first.
#[derive(Default)]
struct Later {
    /// Where what is damaged is named.
    ledger: Arc<Ledger>,
    /// In the blocks of an encrypted store, as they are read.
    defects: Arc<Defects>,
    /// Blocks that did not open when the file was last mended.
    mended: Mutex<BTreeSet<u64>>,
    /// Wrong bits that were put right, and blocks that did not open, before it was opened again.
    found: Mutex<(u64, u64)>,
}

impl StoreFile {
    pub(crate) fn at(path: &Path, key: Option<&StoreKey>) -> StoreFile {
        StoreFile {
            path: path.to_owned(),
            key: key.cloned(),
            identity: Arc::default(),
            is_to_mend: Arc::default(),
            later: Arc::default(),
        }
    }

    /// Where what is found damaged in it is named.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.later.ledger)
    }

    /// Has wrong bits put right when it is opened again.
    pub(super) fn mend_next(&self) {
        self.is_to_mend.store(true, Ordering::Release);
    }

    /// Wrong bits that were put right, and blocks that did not open, since this was asked last.
    pub(super) fn take_defects(&self) -> (u64, u64) {
        let (bits, blocks) = std::mem::take(&mut *lock(&self.later.found));
        (bits + self.later.defects.take_bits(), blocks)
    }

    /// Those were not counted after all.
    pub(super) fn give_back(&self, bits: u64, blocks: u64) {
        let mut found = lock(&self.later.found);
        *found = (found.0 + bits, found.1 + blocks);
    }

    /// Puts right what can be before the file is opened again. The wish to do so lasts until it is fulfilled. Where more is
    /// damaged than can be put right, it is named, and the file is opened all the same: it was open until now, and much of
    /// it can be read.
    fn mend_before_opening(&self) -> Result<(), StoreError> {
        let closed = self.later.defects.closed();
        let is_news = !closed.is_subset(&lock(&self.later.mended));
        // A file that is not there is told of when it is opened.
        if (!is_news && !self.is_to_mend.load(Ordering::Acquire)) || !is_there(&self.path)? {
            return Ok(());
        }
        match mend_file(&self.path, self.key.as_ref(), is_news) {
            Ok(found) => {
                found.name_in(&self.later.ledger);
                let (bits, blocks) = found.defects();
                self.give_back(bits, blocks);
            }
            Err(StoreError::Broken(what)) => {
                if what.split(", ").all(is_index) {
                    tracing::error!(
                        what,
                        "indexes in the store's file have damaged pages: restart the node, which makes them anew"
                    );
                } else {
                    tracing::error!(
                        what,
                        "more of the store's file is damaged than can be put right: thalamus-edge doctor says what to do"
                    );
                }
                for table in what.split(", ").map(str::to_owned) {
                    self.later.ledger.note(DamagedRow { table, kind: None, id: PAGES.to_owned() });
                }
            }
            Err(error) => return Err(error),
        }
        self.is_to_mend.store(false, Ordering::Release);
        lock(&self.later.mended).extend(closed);
        Ok(())
    }

    /// Opens the store. What fails on the file later raises the flag.
    pub(crate) fn open(
        &self,
        cache_bytes: usize,
        has_failed: Arc<AtomicBool>,
    ) -> Result<Database, StoreError> {
        let is_first = self.identity.get().is_none();
        if !is_first {
            self.mend_before_opening()?;
        }
        if is_first && !is_there(&self.path)? {
            create(&self.path, self.key.as_ref())?;
        }
        let open = open_regular_to_write(&self.path);
        let file = open.map_err(|error| StoreError::of_io(&error))?;
        let found = file.metadata().map_err(|error| StoreError::of_io(&error))?;
        let identity = (found.dev(), found.ino());
        if *self.identity.get_or_init(|| identity) != identity {
            // The disk may have gone, and another one, or none, be mounted in its place.
            return Err(StoreError::Failed(
                "another file has taken its place: start the node again".to_owned(),
            ));
        }
        let key = self.key.as_ref().map(|key| (key, &self.later.defects));
        open_file(file, found.len(), key, cache_bytes, has_failed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_file(
    file: File,
    length: u64,
    key: Option<(&StoreKey, &Arc<Defects>)>,
    cache_bytes: usize,
    has_failed: Arc<AtomicBool>,
) -> Result<Database, StoreError> {
    if length == 0 {
        return Err(unreadable("the file is empty, which a store never is"));
    }
    // After a failed write the system may hold what the disk does not. Where it cannot forget that, nothing is lost
    // that would not be lost by starting again.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let backend = Watched { backend: FileBackend::new(file)?, has_failed };
    let sealed_with = store_sealed_with(&backend)?;
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    let opened = match (key, sealed_with) {
        (None, Some(id)) => return Err(SealError::NoKey(id).into()),
        (Some(_), None) => return Err(SealError::NotSealed.into()),
        (None, None) => open_unpanicked(|| builder.create_with_backend(backend)),
        (Some((key, defects)), Some(_)) => {
            // Also a block that does not open makes redb refuse all work until it is opened again.
            let has_failed = Arc::clone(&backend.has_failed);
            let sealed = Sealed::open_noting(backend, key, Arc::clone(defects))?;
            let sealed = Watched { backend: sealed, has_failed };
            open_unpanicked(|| builder.create_with_backend(sealed))
        }
    };
    opened.map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(cause))
            if matches!(cause.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            unreadable(&cause.to_string())
        }
        DatabaseError::Storage(StorageError::Corrupted(cause)) => unreadable(&cause),
        other => other.into(),
    })
}

/// redb gives up on some damaged files by panicking.
fn open_unpanicked(
    open: impl FnOnce() -> Result<Database, DatabaseError>,
) -> Result<Database, DatabaseError> {
    caught(open).unwrap_or_else(|_| Err(StorageError::Corrupted(GIVEN_UP.to_owned()).into()))
}

pub(crate) fn unreadable(cause: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{cause}. Nothing in it was changed. Restore a backup, or move the file away to begin with an empty store"
    ))
}

/// Whether something has this name. A link that leads nowhere has it too: the disk that it leads to may only be
/// missing, and an empty store in its place would hide that.
fn is_there(path: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::of_io(&error)),
    }
}

fn create(path: &Path, key: Option<&StoreKey>) -> Result<(), StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    let directory = open_directory(directory_of(path)).map_err(io)?;
    // Two that start at once must not make it in each other's hands; the lock ends with the handle.
    flock(&directory, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
    if is_there(path)? {
        return Ok(());
    }
    let unfinished = Unfinished::at(suffixed(path, UNFINISHED_SUFFIX)).map_err(io)?;
    make(unfinished.path(), key)?;
    unfinished.take_place(path).map_err(io)
}

/// An empty store, complete and on disk.
fn make(path: &Path, key: Option<&StoreKey>) -> Result<(), StoreError> {
    let (database, file) = new_database(path, key, CREATE_CACHE_BYTES)?;
    writer::prepare(&database.begin_read()?, || Ok(database.begin_write()?))?;
    drop(database);
    file.sync_all().map_err(|error| StoreError::of_io(&error))
}

/// A database without tables in a file that does not exist yet, and the file, to make it safe afterwards.
pub(crate) fn new_database(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
) -> Result<(Database, File), StoreError> {
    let file = create_private(path).map_err(|error| StoreError::of_io(&error))?;
    let backend = FileBackend::new(file.try_clone().map_err(|error| StoreError::of_io(&error))?)?;
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    let database = match key {
        Some(key) => builder.create_with_backend(Sealed::open(backend, key)?)?,
        None => builder.create_with_backend(backend)?,
    };
    Ok((database, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &StoreFile) -> Result<(), StoreError> {
        file.open(CREATE_CACHE_BYTES, Arc::default()).map(drop)
    }

    #[test]
    fn a_store_is_opened_again_only_in_its_own_file() {
        let directory = tempfile::TempDir::new().unwrap();
        let (path, other) = (directory.path().join("store.redb"), directory.path().join("other.redb"));
        open(&StoreFile::at(&other, None)).unwrap();
        let file = StoreFile::at(&path, None);
        open(&file).unwrap();
        open(&file).unwrap();
        let away = directory.path().join("away.redb");
        fs::rename(&path, &away).unwrap();
        assert!(open(&file).is_err());
        assert!(!path.exists(), "no empty store takes the place of one that is missing");
        fs::rename(&other, &path).unwrap();
        let error = open(&file).unwrap_err().to_string();
        assert!(error.contains("another file has taken its place"), "{error}");
        fs::rename(&away, &path).unwrap();
        open(&file).unwrap();
    }

    #[test]
    fn the_wish_to_mend_lasts_until_it_is_fulfilled() {
        let directory = tempfile::TempDir::new().unwrap();
        let (path, away) = (directory.path().join("store.redb"), directory.path().join("away.redb"));
        let file = StoreFile::at(&path, None);
        open(&file).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let name = b"by_owner";
        // Copies that earlier commits left behind are used by nobody.
        let places = (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name));
        for at in places.collect::<Vec<_>>() {
            bytes[at] ^= 1;
        }
        fs::write(&path, &bytes).unwrap();
        file.mend_next();
        fs::rename(&path, &away).unwrap();
        assert!(open(&file).is_err());
        assert_eq!(file.take_defects(), (0, 0));
        fs::rename(&away, &path).unwrap();
        open(&file).unwrap();
        assert!(file.take_defects().0 > 0);
        open(&file).unwrap();
        assert_eq!(file.take_defects(), (0, 0), "once is enough");
    }
}
