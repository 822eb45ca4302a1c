//! Floor 1. The store's file: where it is, its key, and what was found out about it while it was open; how redb opens it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};
use rustix::fs::{Advice, fadvise};

use super::panics::{GIVEN_UP, caught};
use super::sealed::{Defects, Sealed, StoreKey, store_sealed_with};
use super::watched::Watched;
use crate::files::create_private;
use crate::store::error::{SealError, StoreError};
use crate::store::rows::Ledger;

/// The store's file at one place. It may be made when it is first opened, never when it is opened again.
#[derive(Clone)]
pub(crate) struct StoreFile {
    pub(in crate::store) path: PathBuf,
    /// Of an encrypted store; one that is made is encrypted with it.
    pub(in crate::store) key: Option<StoreKey>,
    /// Device and number of the file that was opened first.
    pub(in crate::store) identity: Arc<OnceLock<(u64, u64)>>,
    /// Wrong bits were found while it was open: they are put right before it is opened again.
    pub(in crate::store) is_to_mend: Arc<AtomicBool>,
    pub(in crate::store) later: Arc<Later>,
}

/// What was found out about the file since it was opened first.
#[derive(Default)]
pub(in crate::store) struct Later {
    /// Where what is damaged is named.
    pub(in crate::store) ledger: Arc<Ledger>,
    /// In the blocks of an encrypted store, as they are read.
    pub(in crate::store) defects: Arc<Defects>,
    /// Blocks that did not open when the file was last mended.
    pub(in crate::store) mended: Mutex<BTreeSet<u64>>,
    /// Wrong bits that were put right, and blocks that did not open, before it was opened again.
    pub(in crate::store) found: Mutex<(u64, u64)>,
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
    pub(in crate::store) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.later.ledger)
    }

    /// Has wrong bits put right when it is opened again.
    pub(in crate::store) fn mend_next(&self) {
        self.is_to_mend.store(true, Ordering::Release);
    }

    /// Wrong bits that were put right, and blocks that did not open, since this was asked last.
    pub(in crate::store) fn take_defects(&self) -> (u64, u64) {
        let (bits, blocks) = std::mem::take(&mut *lock(&self.later.found));
        (bits + self.later.defects.take_bits(), blocks)
    }

    /// Those were not counted after all.
    pub(in crate::store) fn give_back(&self, bits: u64, blocks: u64) {
        let mut found = lock(&self.later.found);
        *found = (found.0 + bits, found.1 + blocks);
    }
}

pub(in crate::store) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(in crate::store) fn open_file(
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
