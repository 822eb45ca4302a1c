//! Floor 1. A copy of a store to try something out on, which nobody ever sees.
//!
//! The copy is a file without a name: it is gone with the process, however that ends. That of an encrypted store is
//! encrypted with the same key.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Mutex;

use redb::backends::FileBackend;
use rustix::fs::{FlockOperation, flock};

use crate::files::{create_private, open_regular, open_regular_to_write};
use crate::store::engine::{Engine, Store, StoreOptions, Writer, free_bytes_at};
use crate::store::error::{SealError, Shortage, StoreError};
use crate::store::file::{Sealed, StoreKey, store_sealed_with};
use crate::store::opening::Found;

/// A store that is forgotten; the one that it was copied from is closed to others meanwhile.
pub struct Trial {
    pub store: Store,
    _original: Option<File>,
}

impl Trial {
    /// Copies the store at `path`, or makes an empty one if there is none. The copy takes as much space in that directory
    /// as the store, for as long as it lives.
    ///
    /// [`StoreError::Short`] if less than `reserve_bytes` would be free beside the copy; writes to it keep them free too.
    pub fn of(
        path: &Path,
        key: Option<&StoreKey>,
        options: StoreOptions,
        reserve_bytes: u64,
    ) -> Result<Trial, StoreError> {
        let io = |error: io::Error| StoreError::of_io(&error);
        let original = match open_regular(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(io)?),
        };
        if let Some(original) = &original {
            match flock(original, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Held),
                locked => locked.map_err(|error| io(error.into()))?,
            }
        }
        let free = free_bytes_at(directory_for(path));
        // A disk that cannot be asked says it when it is written to.
        if let (Some(original), Ok(free_bytes)) = (&original, free()) {
            let copy_bytes = original.metadata().map_err(io)?.len();
            if free_bytes < reserve_bytes.saturating_add(copy_bytes) {
                return Err(StoreError::Short(Shortage { free_bytes, reserve_bytes }));
            }
        }
        let copy = nameless(path).map_err(io)?;
        if let Some(original) = &original {
            io::copy(&mut &*original, &mut &copy).map_err(io)?;
        }
        let store = open(copy, key, options, original.is_some())?;
        store.keep_free(reserve_bytes, free);
        Ok(Trial { store, _original: original })
    }
}

/// The directory of `path`, or the first above it that exists.
fn directory_for(path: &Path) -> &Path {
    path.ancestors().skip(1).find(|directory| directory.is_dir()).unwrap_or(Path::new("."))
}

/// A file that only this process has, in the directory for `path`.
fn nameless(path: &Path) -> io::Result<File> {
    let name = directory_for(path).join(format!(".thalamus-edge-trial-{}", std::process::id()));
    // Left by a process that ended before the next lines.
    let _ = fs::remove_file(&name);
    drop(create_private(&name)?);
    let file = open_regular_to_write(&name);
    fs::remove_file(&name)?;
    file
}

fn open(
    copy: File,
    key: Option<&StoreKey>,
    options: StoreOptions,
    is_made: bool,
) -> Result<Store, StoreError> {
    let backend = FileBackend::new(copy)?;
    if is_made {
        match (key, store_sealed_with(&backend)?) {
            (None, Some(id)) => return Err(SealError::NoKey(id).into()),
            (Some(_), None) => return Err(SealError::NotSealed.into()),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
    let mut builder = redb::Builder::new();
    builder.set_cache_size(options.cache_bytes);
    let database = match key {
        Some(key) => builder.create_with_backend(Sealed::open(backend, key)?)?,
        None => builder.create_with_backend(backend)?,
    };
    let database = Mutex::new(Some(database));
    let open = move |_| {
        let mut database = database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        database.take().ok_or_else(|| StoreError::Failed("its disk failed".to_owned()))
    };
    let engine = Engine::new(Box::new(open), std::sync::Arc::default())?;
    Store::start(engine, options, Writer::inline, (Found::default(), None))
}
