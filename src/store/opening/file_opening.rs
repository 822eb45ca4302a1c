//! Floor 1. Opening the store's file: made as a whole or not at all when it is first opened, mended before it is opened again.
//!
//! redb makes a new file in several steps, and one that was begun and not finished never opens. So it is made
//! under another name, and gets its own once it is complete and on disk: a power cut in between leaves either
//! no store or an empty one. What it leaves under the other name holds nothing and is replaced.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, ReadableDatabase as _};
use rustix::fs::{FlockOperation, flock};

use super::file_repair::mend_file;
use super::prepare::prepare;
use crate::files::{Unfinished, directory_of, open_directory, open_regular_to_write, suffixed};
use crate::store::error::{DamagedRow, StoreError};
use crate::store::file::{StoreFile, StoreKey, lock, new_database, open_file};
use crate::store::rows::PAGES;
use crate::store::schema::is_index;

/// What the name of a file that is being made has at its end.
const UNFINISHED_SUFFIX: &str = ".new";
/// Page cache while a file is being made.
const CREATE_CACHE_BYTES: usize = 1 << 20;

impl StoreFile {
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
    prepare(&database.begin_read()?, || Ok(database.begin_write()?))?;
    drop(database);
    file.sync_all().map_err(|error| StoreError::of_io(&error))
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
