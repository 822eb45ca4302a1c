//! Floor 1. A store that a thief of the disk cannot read: every page is encrypted before it reaches the file.
//!
//! Hides a file format below redb. Encryption below the tables covers what encrypting values would leave open:
//! names of records, indexes, the journal, and how often a record changes. What remains visible is the length
//! of the file and which of its blocks change.
//!
//! The file, numbers in bytes:
//!
//! | at | what |
//! |---|---|
//! | 0, and again at 4096 | `SEALED_MAGIC` 16, key id 8, nonce 24, the data key sealed 32, tag 16; zeros to 4096 |
//! | 8192, and again at 12800 | block 0: counter 8 (little endian), nonce 24, 4096 sealed, tag 16; zeros to 4608 |
//! | 17408 + 4136 (n - 1) | block n of 4096 bytes: nonce 24, 4096 sealed, tag 16; all zeros stand for zeros |
//!
//! The cipher is ChaCha20-Poly1305 (RFC 8439). A nonce is 16 random bytes, the same as long as the file is open,
//! and a number that counts; the random bytes make the cipher's key, by HKDF-SHA256 from the data key, and the
//! number is its nonce. So no two blocks are ever sealed alike, however often the file is opened or copied. What
//! is authenticated beside a block is its place, so blocks cannot change places. Data is sealed with a data key
//! that never leaves the file; the key that the node is given seals that one, so a new key costs no new
//! encryption.
//!
//! redb writes its header in place, and a block that is torn by a power cut opens no more. Therefore block 0
//! has two places: what was flushed last is never written over. All other pages are written where nothing
//! that counts is.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use redb::{BackendError, StorageBackend};
use zeroize::Zeroizing;

use crate::store::error::{SealError, StoreError};
use cipher::Cipher;
use head::Head;
pub use key::StoreKey;
use key::{KEY_BYTES, data_key, fill_random, write_keys};
pub(in crate::store) use key::{change_key, sealed_with};

mod cipher;
mod head;
mod key;

pub(in crate::store) const SEALED_MAGIC: &[u8; 16] = b"thalamus-sealed1";
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = SALT_BYTES + 8;
const TAG_BYTES: usize = 16;
const COUNTER_BYTES: usize = 8;
/// What redb sees as a unit: its smallest page.
const BLOCK_BYTES: usize = 4096;
const SEALED_BYTES: usize = NONCE_BYTES + BLOCK_BYTES + TAG_BYTES;
/// Both copies of the sealed data key.
const KEYS_BYTES: u64 = 8192;
/// Each of the two places of block 0: whole sectors.
const HEAD_PLACE_BYTES: usize = 4608;
/// Where the blocks behind the first begin.
pub(in crate::store) const BLOCKS_AT: u64 = KEYS_BYTES + 2 * HEAD_PLACE_BYTES as u64;

/// So many blocks are searched for a wrong bit in vain, which takes some ten seconds.
const SEARCHES_IN_VAIN_MAX: usize = 100;

const BLOCK_LEN: u64 = BLOCK_BYTES as u64;
const SEALED_LEN: u64 = SEALED_BYTES as u64;

/// What was found wrong in the blocks of a file by any read.
#[derive(Debug, Default)]
pub(crate) struct Defects {
    /// Wrong bits that were found, and those of them that are right on the disk now.
    found: AtomicU64,
    put_right: AtomicU64,
    /// Blocks with a wrong bit that is to be put right later.
    wrong: Mutex<BTreeSet<u64>>,
    /// Blocks that do not open.
    closed: Mutex<BTreeSet<u64>>,
}

impl Defects {
    /// A wrong bit is known, and what it should be was written back, unless that is for later.
    fn put_right(&self, number: u64, written: Option<io::Result<()>>) {
        self.found.fetch_add(1, Ordering::Relaxed);
        match written {
            None => drop(self.wrong.lock().unwrap_or_else(PoisonError::into_inner).insert(number)),
            Some(Ok(())) => {
                self.put_right.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    number,
                    "a bit of the encrypted store was not what was written, and is put right: the disk may be failing"
                );
            }
            // What was read is right all the same.
            Some(Err(error)) => tracing::warn!(
                number,
                %error,
                "a bit of the encrypted store is not what was written, and what it should be cannot be written back"
            ),
        }
    }

    /// Whether the wrong bit of a block is looked for, which takes a tenth of a second: once for each block, and not for
    /// ever where whole parts of a file are lost.
    fn may_search(&self, number: u64) -> bool {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.len() < SEARCHES_IN_VAIN_MAX && !closed.contains(&number)
    }

    fn note_closed(&self, number: u64) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Wrong bits, those that stay wrong on the disk too.
    pub(crate) fn bits(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// How many bits were put right since this was asked last.
    pub(crate) fn take_bits(&self) -> u64 {
        self.put_right.swap(0, Ordering::Relaxed)
    }

    /// Blocks that do not open.
    pub(crate) fn closed(&self) -> BTreeSet<u64> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Bytes of which some may be guessed only.
pub(crate) trait Guess: StorageBackend {
    /// Reads as [`StorageBackend::read`] does, also where a block does not open. Returns the parts of `out` for which
    /// nothing vouches.
    fn guess(&self, offset: u64, out: &mut [u8]) -> io::Result<Vec<Range<usize>>>;

    /// Whether one place of the first block did not open. It is never written before all that the other one leads to is on
    /// the disk.
    fn has_torn_head(&self) -> bool;

    /// How long the file is.
    fn file_bytes(&self) -> io::Result<u64>;

    /// How long the file is to be in which redb sees so many bytes.
    fn bytes_in_file(&self, length: u64) -> u64;
}

/// Bytes for redb, sealed on their way to `inner`.
pub struct Sealed<B> {
    inner: B,
    cipher: Cipher,
    head: Mutex<Head>,
    defects: Arc<Defects>,
    /// Whether wrong bits are put right on the disk as soon as they are found.
    is_writing_back: bool,
    /// Whether a place of the first block did not open when this was opened.
    has_torn_head: bool,
}

impl<B> fmt::Debug for Sealed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

impl<B: StorageBackend> Sealed<B> {
    /// Opens sealed bytes, or seals empty ones.
    pub fn open(inner: B, key: &StoreKey) -> Result<Sealed<B>, SealError> {
        Sealed::open_noting(inner, key, Arc::default())
    }

    /// The same; what is found wrong in it is noted there.
    pub(crate) fn open_noting(
        inner: B,
        key: &StoreKey,
        defects: Arc<Defects>,
    ) -> Result<Sealed<B>, SealError> {
        // Nothing but keys: nothing has been stored yet, and making them may have been cut off.
        if inner.len()? <= KEYS_BYTES && sealed_with(&inner)?.is_none_or(|id| id == key.id()) {
            return Sealed::create(inner, key, defects);
        }
        Sealed::open_as(inner, key, defects, true)
    }

    /// Opens sealed bytes and writes nothing: what is read is right, and [`Sealed::write_back`] makes it so on the disk.
    pub(crate) fn open_to_look(inner: B, key: &StoreKey) -> Result<Sealed<B>, SealError> {
        Sealed::open_as(inner, key, Arc::default(), false)
    }

    fn open_as(
        inner: B,
        key: &StoreKey,
        defects: Arc<Defects>,
        is_writing_back: bool,
    ) -> Result<Sealed<B>, SealError> {
        let data_key = data_key(&inner, &[key])?;
        let cipher = Cipher::new(&data_key)?;
        let (head, has_torn_head) = Head::read(&inner, &cipher, &defects, is_writing_back)?;
        Ok(Sealed { inner, cipher, head: Mutex::new(head), defects, is_writing_back, has_torn_head })
    }

    /// Puts right on the disk what was found by looking; returns how many bits that were.
    pub(crate) fn write_back(&mut self) -> io::Result<u64> {
        self.is_writing_back = true;
        let wrong = std::mem::take(&mut *self.defects.wrong.lock().unwrap_or_else(PoisonError::into_inner));
        if wrong.contains(&0) {
            Head::read(&self.inner, &self.cipher, &self.defects, true).map_err(io::Error::other)?;
        }
        for number in wrong.into_iter().filter(|number| *number > 0) {
            self.read_blocks(number, &mut [0; BLOCK_BYTES])?;
        }
        self.inner.sync_data()?;
        Ok(self.defects.take_bits())
    }

    fn create(inner: B, key: &StoreKey, defects: Arc<Defects>) -> Result<Sealed<B>, SealError> {
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        fill_random(data_key.as_mut())?;
        inner.set_len(0)?;
        inner.set_len(KEYS_BYTES)?;
        write_keys(&inner, key, &data_key)?;
        let cipher = Cipher::new(&data_key)?;
        let head = Mutex::new(Head::empty());
        Ok(Sealed { inner, cipher, head, defects, is_writing_back: true, has_torn_head: false })
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads whole blocks, of which `first` is not block 0.
    fn read_blocks(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        let mut sealed = vec![0; out.len() / BLOCK_BYTES * SEALED_BYTES];
        self.inner.read(place_of(first), &mut sealed)?;
        let blocks = sealed.chunks_exact(SEALED_BYTES).zip(out.chunks_exact_mut(BLOCK_BYTES));
        for (number, (sealed, text)) in (first..).zip(blocks) {
            let Err(error) = open_block(&self.cipher, number, sealed, text) else {
                continue;
            };
            let search = || self.cipher.put_right(&number.to_le_bytes(), sealed, text);
            let Some(right) = self.defects.may_search(number).then(search).flatten() else {
                self.defects.note_closed(number);
                return Err(error);
            };
            let written = self.is_writing_back.then(|| self.inner.write(place_of(number), &right));
            self.defects.put_right(number, written);
        }
        Ok(())
    }

    /// Writes whole blocks, of which `first` is not block 0, at once.
    fn write_blocks(&self, first: u64, text: &[u8]) -> io::Result<()> {
        let mut sealed = vec![0; text.len() / BLOCK_BYTES * SEALED_BYTES];
        let blocks = sealed.chunks_exact_mut(SEALED_BYTES).zip(text.chunks_exact(BLOCK_BYTES));
        for (number, (sealed, text)) in (first..).zip(blocks) {
            self.cipher.seal(&number.to_le_bytes(), text, sealed)?;
        }
        self.inner.write(place_of(first), &sealed)
    }

    fn write_head(&self, at: usize, data: &[u8]) -> io::Result<()> {
        let mut head = self.head();
        let mut text = head.text.clone();
        text[at..at + data.len()].copy_from_slice(data);
        let (counter, place) = (head.counter + 1, if head.is_flushed { 1 - head.place } else { head.place });
        let mut sealed = vec![0; HEAD_PLACE_BYTES];
        sealed[..COUNTER_BYTES].copy_from_slice(&counter.to_le_bytes());
        let block = &mut sealed[COUNTER_BYTES..COUNTER_BYTES + SEALED_BYTES];
        self.cipher.seal(&Head::context(counter), &text[..], block)?;
        self.inner.write(Head::place_at(place), &sealed)?;
        *head = Head { text, counter, place, is_flushed: false };
        Ok(())
    }
}

/// Where block `number` lies, which is not block 0.
fn place_of(number: u64) -> u64 {
    BLOCKS_AT + (number - 1) * SEALED_LEN
}

fn open_block(cipher: &Cipher, number: u64, sealed: &[u8], text: &mut [u8]) -> io::Result<()> {
    if sealed.iter().all(|byte| *byte == 0) {
        text.fill(0);
        return Ok(());
    }
    if cipher.open(&number.to_le_bytes(), sealed, text) {
        return Ok(());
    }
    let what = format!("block {number} of the encrypted store does not open: damaged, or not ours");
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// The blocks that these bytes touch, and which bytes of each.
fn blocks(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (number, within) = (at / BLOCK_LEN, (at % BLOCK_LEN) as usize);
        let count = (BLOCK_BYTES - within).min((end - at) as usize);
        at += count as u64;
        Some((number, within, count))
    })
}

impl<B: StorageBackend> Sealed<B> {
    /// What was found wrong in it.
    pub(crate) fn defects(&self) -> &Defects {
        &self.defects
    }
}

impl<B: StorageBackend> Guess for Sealed<B> {
    fn guess(&self, offset: u64, out: &mut [u8]) -> io::Result<Vec<Range<usize>>> {
        let mut guessed = Vec::new();
        let mut done = 0;
        for (number, _, count) in blocks(offset, out.len()) {
            let part = done..done + count;
            done += count;
            let Some(place) = out.get_mut(part.clone()) else { break };
            match self.read(offset + part.start as u64, place) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData && count == BLOCK_BYTES => {
                    let mut sealed = vec![0; SEALED_BYTES];
                    self.inner.read(place_of(number), &mut sealed)?;
                    self.cipher.guess(&sealed, place).ok_or(error)?;
                    guessed.push(part);
                }
                read => read?,
            }
        }
        Ok(guessed)
    }

    fn has_torn_head(&self) -> bool {
        self.has_torn_head
    }

    fn file_bytes(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn bytes_in_file(&self, length: u64) -> u64 {
        file_length(length)
    }
}

/// How long the file is in which redb sees so many bytes.
fn file_length(length: u64) -> u64 {
    BLOCKS_AT + (length / BLOCK_LEN).saturating_sub(1) * SEALED_LEN
}

/// The id of the key with which a store's file is sealed, if it is. One that is cut off so near its beginning that to open
/// it would be to begin a new store is [`StoreError::Broken`].
pub(in crate::store) fn store_sealed_with(file: &impl StorageBackend) -> Result<Option<String>, StoreError> {
    let io = |error: io::Error| StoreError::of_io(&error);
    let (id, length, least) =
        (sealed_with(file).map_err(io)?, file.len().map_err(io)?, file_length(2 * BLOCK_LEN));
    let mut begin = [0; SEALED_MAGIC.len()];
    let there = usize::try_from(length).unwrap_or(usize::MAX).min(begin.len());
    let begin = begin.get_mut(..there).unwrap_or_default();
    if !begin.is_empty() {
        file.read(0, begin).map_err(io)?;
    }
    let is_sealed = id.is_some() || (!begin.is_empty() && SEALED_MAGIC.starts_with(begin));
    if is_sealed && length < least {
        let what = format!("the end of the file (it should have {least} bytes at least and has {length})");
        return Err(StoreError::Broken(what));
    }
    Ok(id)
}

impl<B: StorageBackend> StorageBackend for Sealed<B> {
    fn len(&self) -> io::Result<u64> {
        let length = self.inner.len()?;
        Ok(match length.checked_sub(BLOCKS_AT) {
            // A block that is cut off at the end was being added when the power failed.
            Some(blocks) => BLOCK_LEN + blocks / SEALED_LEN * BLOCK_LEN,
            None => 0,
        })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_whole =
            offset >= BLOCK_LEN && offset.is_multiple_of(BLOCK_LEN) && out.len().is_multiple_of(BLOCK_BYTES);
        if is_whole {
            return self.read_blocks(offset / BLOCK_LEN, out);
        }
        let mut done = 0;
        for (number, within, count) in blocks(offset, out.len()) {
            let place = &mut out[done..done + count];
            if number == 0 {
                place.copy_from_slice(&self.head().text[within..within + count]);
            } else {
                let mut text = [0; BLOCK_BYTES];
                self.read_blocks(number, &mut text)?;
                place.copy_from_slice(&text[within..within + count]);
            }
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK_LEN) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a sealed store has whole blocks only"));
        }
        match (len / BLOCK_LEN).checked_sub(1) {
            Some(_) => self.inner.set_len(file_length(len)),
            None => {
                *self.head() = Head::empty();
                self.inner.set_len(KEYS_BYTES)
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut head = self.head();
        self.inner.sync_data()?;
        head.is_flushed = true;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let is_whole =
            offset >= BLOCK_LEN && offset.is_multiple_of(BLOCK_LEN) && data.len().is_multiple_of(BLOCK_BYTES);
        if is_whole {
            return self.write_blocks(offset / BLOCK_LEN, data);
        }
        let mut rest = data;
        for (number, within, count) in blocks(offset, data.len()) {
            let (part, others) = rest.split_at(count);
            rest = others;
            if number == 0 {
                self.write_head(within, part)?;
            } else {
                let mut text = [0; BLOCK_BYTES];
                self.read_blocks(number, &mut text)?;
                text[within..within + count].copy_from_slice(part);
                self.write_blocks(number, &text)?;
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests;
