//! Floor 1. A store that is looked at and not touched.
//!
//! redb writes to a file as soon as it opens it, and repairs what it finds damaged. Here its writes go into memory and
//! are forgotten with it; the file is open for reading only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, DatabaseError, StorageBackend, StorageError};
use rustix::fs::{FlockOperation, flock};

use super::pages::{Inspected, inspect, inspect_sealed, put_right};
use super::panics::unpanicked;
use super::sealed::{Guess, Sealed, StoreKey, store_sealed_with};
use crate::files::open_regular;
use crate::store::error::{SealError, StoreError};

/// Larger files are looked at as a whole in the background only, so that a node starts soon.
pub(crate) const WHOLE_BYTES_MAX: u64 = 512 << 20;
const BLOCK_BYTES: u64 = 4096;
/// Most bytes of a file's blocks that are written in memory: more than an index of a million records takes.
const WRITTEN_BYTES_MAX: u64 = 512 << 20;
const WRITTEN_BLOCKS_MAX: usize = (WRITTEN_BYTES_MAX / BLOCK_BYTES) as usize;

/// A database whose file stays as it is. Nobody else can open that file meanwhile.
pub(crate) struct Untouched {
    pub(crate) database: Database,
    _lock: File,
}

/// Opens a store to look at it.
pub(crate) fn open_untouched(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
) -> Result<Untouched, StoreError> {
    Ok(open(path, key, cache_bytes, Pages::None)?.0)
}

/// The same, and what the pages of the file are worth. Single wrong bits outside of records are right in what is looked
/// at.
pub(crate) fn open_to_check(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
) -> Result<(Untouched, Inspected), StoreError> {
    open(path, key, cache_bytes, Pages::All)
}

/// The same as a start does it: of a large file the bulk of its rows is passed over.
pub(crate) fn open_as_a_start(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
) -> Result<(Untouched, Inspected), StoreError> {
    open(path, key, cache_bytes, Pages::AsAStart)
}

/// Which pages are looked at.
#[derive(Clone, Copy)]
enum Pages {
    None,
    AsAStart,
    All,
}

fn open(
    path: &Path,
    key: Option<&StoreKey>,
    cache_bytes: usize,
    pages: Pages,
) -> Result<(Untouched, Inspected), StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    let (backend, file) = locked(path)?;
    let is_all = match pages {
        Pages::None => None,
        Pages::AsAStart => Some(backend.len().map_err(io)? <= WHOLE_BYTES_MAX),
        Pages::All => Some(true),
    };
    let (backend, pages) = match (key, store_sealed_with(&backend)?) {
        (None, Some(id)) => return Err(SealError::NoKey(id).into()),
        (Some(_), None) => return Err(SealError::NotSealed.into()),
        (None, None) => {
            let found = is_all.map(|is_all| inspect(&backend, is_all)).transpose().map_err(io)?;
            (Again(Arc::new(backend)), found.unwrap_or_default())
        }
        (Some(key), Some(_)) => {
            let sealed = Sealed::open(backend, key)?;
            let found = is_all.map(|is_all| inspect_sealed(&sealed, is_all)).transpose().map_err(io)?;
            (Again(Arc::new(sealed)), found.unwrap_or_default())
        }
    };
    refuse_cut_off(path, key, &pages)?;
    put_right(&backend, &pages).map_err(io)?;
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    let opened = unpanicked(|| builder.create_with_backend(backend).map_err(unreadable));
    let opened = opened.map_err(|error| if pages.broken.is_empty() { error } else { pages.refusal() })?;
    Ok((Untouched { database: opened, _lock: file }, pages))
}

fn unreadable(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::Storage(StorageError::Io(cause))
            if matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Damaged(cause.to_string())
        }
        other => other.into(),
    }
}

/// One file as often as it is wanted, with what was written to it meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Again(Arc<dyn StorageBackend>);

impl StorageBackend for Again {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// What became of a start that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rehearsed {
    /// It ended with every page as it should be.
    Whole,
    Broken,
    /// It wrote more than is kept in memory.
    TooLarge,
}

/// Starts a store as it will be started, and forgets what that wrote.
pub(crate) fn rehearse<T>(
    path: &Path,
    key: Option<&StoreKey>,
    pages: &Inspected,
    start: impl FnOnce(Again) -> Result<T, StoreError>,
) -> Result<Rehearsed, StoreError> {
    rehearse_within(WRITTEN_BLOCKS_MAX, path, key, pages, start)
}

fn rehearse_within<T>(
    blocks_max: usize,
    path: &Path,
    key: Option<&StoreKey>,
    pages: &Inspected,
    start: impl FnOnce(Again) -> Result<T, StoreError>,
) -> Result<Rehearsed, StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    let overlay = Overlay { blocks_max, ..Overlay::over(open_regular(path).map_err(io)?).map_err(io)? };
    let overlay = Arc::new(overlay);
    let file = Again(Arc::clone(&overlay) as Arc<dyn StorageBackend>);
    let plain = match key {
        None => file.clone(),
        Some(key) => Again(Arc::new(Sealed::open(file.clone(), key)?)),
    };
    put_right(&plain, pages).map_err(io)?;
    let started = unpanicked(|| start(plain).map(drop));
    if overlay.written().is_full {
        tracing::error!(
            "a start of this store would write more than the {} MB that are tried in memory",
            blocks_max as u64 * BLOCK_BYTES / 1_000_000
        );
        return Ok(Rehearsed::TooLarge);
    }
    if started.is_err() {
        return Ok(Rehearsed::Broken);
    }
    let after = match key {
        None => inspect(&file, true),
        Some(key) => inspect_sealed(&Sealed::open(file, key)?, true),
    };
    Ok(if after.map_err(io)?.is_sound() { Rehearsed::Whole } else { Rehearsed::Broken })
}

/// Fails with [`StoreError::Broken`] if the file was cut off. Where nothing is missing that a tree leads to, the header alone
/// does not tell a cut from a wrong bit in the length that it names. redb's own list of free pages does: it has the true length,
/// and redb opens the file for writing only if that list and the length fit together.
pub(crate) fn refuse_cut_off(
    path: &Path,
    key: Option<&StoreKey>,
    pages: &Inspected,
) -> Result<(), StoreError> {
    let Some(end) = &pages.cut_off_unless_flipped else { return Ok(()) };
    let begin_to_write = |bytes: Again| -> Result<(), StoreError> {
        let database = redb::Builder::new().create_with_backend(bytes)?;
        Ok(database.begin_write()?.commit()?)
    };
    match rehearse(path, key, pages, begin_to_write)? {
        Rehearsed::Whole => Ok(()),
        Rehearsed::Broken | Rehearsed::TooLarge => Err(StoreError::Broken(end.clone())),
    }
}

/// A store's file that stays as it is and that nobody else opens meanwhile.
pub(crate) struct ToRead {
    bytes: Bytes,
    _lock: File,
}

enum Bytes {
    Plain(Overlay),
    Sealed(Box<Sealed<Overlay>>),
}

impl ToRead {
    /// The bytes as redb would see them.
    pub(crate) fn bytes(&self) -> &dyn StorageBackend {
        match &self.bytes {
            Bytes::Plain(bytes) => bytes,
            Bytes::Sealed(bytes) => &**bytes,
        }
    }

    /// The same, if the file is encrypted.
    pub(crate) fn sealed(&self) -> Option<&dyn Guess> {
        match &self.bytes {
            Bytes::Plain(_) => None,
            Bytes::Sealed(bytes) => Some(&**bytes),
        }
    }
}

/// Opens a store's file to read it without redb.
pub(crate) fn bytes_to_read(path: &Path, key: Option<&StoreKey>) -> Result<ToRead, StoreError> {
    let (backend, _lock) = locked(path)?;
    let bytes = match (key, store_sealed_with(&backend)?) {
        (None, Some(id)) => return Err(SealError::NoKey(id).into()),
        (Some(_), None) => return Err(SealError::NotSealed.into()),
        (None, None) => Bytes::Plain(backend),
        (Some(key), Some(_)) => Bytes::Sealed(Box::new(Sealed::open(backend, key)?)),
    };
    Ok(ToRead { bytes, _lock })
}

fn locked(path: &Path) -> Result<(Overlay, File), StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    let file = open_regular(path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Held),
        locked => locked.map_err(|error| io(error.into()))?,
    }
    Ok((Overlay::over(file.try_clone().map_err(io)?).map_err(io)?, file))
}

#[derive(Debug)]
struct Overlay {
    file: File,
    /// Most blocks that are written.
    blocks_max: usize,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    /// How many bytes of the file have not been cut off.
    file_bytes: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
    /// More blocks were to be written.
    is_full: bool,
}

impl Written {
    /// Fails if there is no room for another block.
    fn make_room(&mut self, number: u64, blocks_max: usize) -> io::Result<()> {
        if self.blocks.len() < blocks_max || self.blocks.contains_key(&number) {
            return Ok(());
        }
        self.is_full = true;
        Err(io::Error::other(format!(
            "to look at this store takes more than the {} MB of memory that are allowed for it",
            blocks_max as u64 * BLOCK_BYTES / 1_000_000
        )))
    }
}

impl Overlay {
    fn over(file: File) -> io::Result<Overlay> {
        let file_bytes = file.metadata()?.len();
        if file_bytes == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is empty, which a store never is",
            ));
        }
        let blocks = BTreeMap::new();
        let written = Mutex::new(Written { length: file_bytes, file_bytes, blocks, is_full: false });
        Ok(Overlay { file, blocks_max: WRITTEN_BLOCKS_MAX, written })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the file has it, zeros behind its end.
    fn read_file(&self, file_bytes: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        self.file.read_exact_at(there, offset)
    }
}

/// The parts of a range, block by block: number of the block, where in it the part begins, where in the range.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK_BYTES) as usize;
        let step = (BLOCK_BYTES as usize - within).min(length - done);
        let part = done..done + step;
        done += step;
        (step > 0).then_some((at / BLOCK_BYTES, within, part))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.saturating_add(out.len() as u64) > written.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(written.file_bytes, offset, out)?;
        for (number, within, part) in parts(offset, out.len()) {
            let (Some(block), Some(out)) = (written.blocks.get(&number), out.get_mut(part)) else {
                continue;
            };
            if let Some(block) = block.get(within..within + out.len()) {
                out.copy_from_slice(block);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written();
        if length < written.length {
            // What lay behind reads as zeros, should it grow again.
            written.file_bytes = written.file_bytes.min(length);
            written.blocks.retain(|number, _| number * BLOCK_BYTES < length);
            let kept = usize::try_from(length % BLOCK_BYTES).unwrap_or_default();
            if let Some(block) = written.blocks.get_mut(&(length / BLOCK_BYTES))
                && let Some(behind) = block.get_mut(kept..)
            {
                behind.fill(0);
            }
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let file_bytes = written.file_bytes;
        for (number, within, part) in parts(offset, data.len()) {
            written.make_room(number, self.blocks_max)?;
            let block = match written.blocks.entry(number) {
                Entry::Occupied(block) => block.into_mut(),
                Entry::Vacant(place) => {
                    let mut block = vec![0; BLOCK_BYTES as usize];
                    self.read_file(file_bytes, number * BLOCK_BYTES, &mut block)?;
                    place.insert(block)
                }
            };
            if let Some(data) = data.get(part)
                && let Some(block) = block.get_mut(within..within + data.len())
            {
                block.copy_from_slice(data);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    #[test]
    fn what_is_written_in_memory_is_bounded_and_the_rest_refused() {
        let (_directory, path) = file(&[7; 20_000]);
        let overlay = Overlay { blocks_max: 2, ..Overlay::over(File::open(&path).unwrap()).unwrap() };
        overlay.write(0, &[1; 5_000]).unwrap();
        // The same blocks as often as wanted.
        overlay.write(4_096, &[2; 10]).unwrap();
        let refused = overlay.write(12_288, &[3; 10]).unwrap_err();
        assert!(refused.to_string().contains("MB of memory"), "{refused}");
        assert!(overlay.written().is_full);
        let mut read = [0; 20_000];
        overlay.read(0, &mut read).unwrap();
        assert_eq!((read[0], read[4_096], read[4_999], read[12_288]), (1, 2, 1, 7));
        assert_eq!(std::fs::read(&path).unwrap(), [7; 20_000]);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let (_directory, path) = file(&[7; 20_000]);
        let overlay = Overlay::over(File::open(&path).unwrap()).unwrap();
        overlay.write(8_000, &[1; 1_000]).unwrap();
        overlay.set_len(8_500).unwrap();
        assert!(overlay.read(8_400, &mut [0; 200]).is_err());
        overlay.set_len(20_000).unwrap();
        let mut read = [0; 20_000];
        overlay.read(0, &mut read).unwrap();
        assert_eq!((read[7_999], read[8_499], read[8_500], read[8_999], read[19_999]), (7, 1, 0, 0, 0));
        assert_eq!(std::fs::read(&path).unwrap(), [7; 20_000]);
    }

    #[test]
    fn a_start_that_writes_too_much_is_told_as_that() {
        let (_directory, path) = file(&[0; 40_960]);
        let writing = |blocks: u64| {
            move |again: Again| {
                for number in 0..blocks {
                    again.write(number * BLOCK_BYTES, &[0; 8]).map_err(|error| StoreError::of_io(&error))?;
                }
                Ok(())
            }
        };
        let tried = |blocks| rehearse_within(4, &path, None, &Inspected::default(), writing(blocks)).unwrap();
        assert_eq!(tried(5), Rehearsed::TooLarge);
        assert_ne!(tried(4), Rehearsed::TooLarge);
    }
}
