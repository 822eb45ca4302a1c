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
//! | 0, and again at 4096 | `MAGIC` 16, key id 8, nonce 24, the data key sealed 32, tag 16; zeros to 4096 |
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

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub(super) const MAGIC: &[u8; 16] = b"thalamus-sealed1";
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = SALT_BYTES + 8;
const TAG_BYTES: usize = 16;
const COUNTER_BYTES: usize = 8;
/// What redb sees as a unit: its smallest page.
const BLOCK_BYTES: usize = 4096;
const SEALED_BYTES: usize = NONCE_BYTES + BLOCK_BYTES + TAG_BYTES;
/// Each copy of the sealed data key.
const KEY_PLACE_BYTES: usize = 4096;
const KEYS_BYTES: u64 = 2 * KEY_PLACE_BYTES as u64;
/// Each of the two places of block 0: whole sectors.
const HEAD_PLACE_BYTES: usize = 4608;
const BLOCKS_AT: u64 = KEYS_BYTES + 2 * HEAD_PLACE_BYTES as u64;

const BLOCK_LEN: u64 = BLOCK_BYTES as u64;
const SEALED_LEN: u64 = SEALED_BYTES as u64;

type DataKey = Zeroizing<[u8; KEY_BYTES]>;

/// Why a file did not open with a key.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("a key is 64 hexadecimal digits, and nothing else in its file")]
    BadKey,
    #[error("the store is not encrypted, and a key was given: `db encrypt` encrypts it")]
    NotSealed,
    #[error("the store is encrypted: name the file of key {0} in [store] key_file")]
    NoKey(String),
    #[error("the store is encrypted with key {wanted}, and the key given is {given}")]
    OtherKey { wanted: String, given: String },
    #[error("the encrypted store is damaged: {0}")]
    Damaged(&'static str),
    #[error("the machine gives no randomness: {0}")]
    NoRandomness(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The key of a node's store, as an administrator keeps it. Shows nothing but its id.
#[derive(Clone)]
pub struct StoreKey(Zeroizing<[u8; KEY_BYTES]>);

impl StoreKey {
    /// A new one.
    pub fn random() -> Result<StoreKey, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill_random(bytes.as_mut())?;
        Ok(StoreKey(bytes))
    }

    /// From the content of a key's file: 64 hexadecimal digits, white space around them.
    pub fn parse(text: &str) -> Result<StoreKey, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), bytes.as_mut()).map_err(|_| SealError::BadKey)?;
        Ok(StoreKey(bytes))
    }

    /// What [`StoreKey::parse`] reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()) + "\n")
    }

    /// Tells keys apart without telling anything about them: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(self.id_bytes())
    }

    fn id_bytes(&self) -> [u8; KEY_ID_BYTES] {
        let mut hash = Sha256::new();
        hash.update(b"thalamus-edge key id");
        hash.update(self.0.as_slice());
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash.finalize()[..KEY_ID_BYTES]);
        id
    }

    fn cipher(&self) -> Result<Cipher, SealError> {
        Cipher::new(&self.0)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKey({})", self.id())
    }
}

fn fill_random(bytes: &mut [u8]) -> Result<(), SealError> {
    getrandom::fill(bytes).map_err(|error| SealError::NoRandomness(error.to_string()))
}

/// The id of the key with which these bytes are sealed, if they are.
pub(super) fn sealed_with(bytes: &impl StorageBackend) -> io::Result<Option<String>> {
    let ids = key_places(bytes)?.map(|place| place.map(|place| hex::encode(place.id)));
    Ok(ids.into_iter().flatten().next())
}

/// A copy of the data key, sealed.
struct KeyPlace {
    id: [u8; KEY_ID_BYTES],
    sealed: [u8; NONCE_BYTES + KEY_BYTES + TAG_BYTES],
}

impl KeyPlace {
    fn seal(key: &StoreKey, data_key: &[u8; KEY_BYTES]) -> Result<KeyPlace, SealError> {
        let id = key.id_bytes();
        let mut sealed = [0; NONCE_BYTES + KEY_BYTES + TAG_BYTES];
        key.cipher()?.seal(&Self::context(id), data_key, &mut sealed)?;
        Ok(KeyPlace { id, sealed })
    }

    fn open(&self, key: &StoreKey) -> Option<DataKey> {
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        let is_open = key.cipher().ok()?.open(&Self::context(self.id), &self.sealed, data_key.as_mut());
        is_open.then_some(data_key)
    }

    fn context(id: [u8; KEY_ID_BYTES]) -> Vec<u8> {
        [&MAGIC[..], &id].concat()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &self.id, &self.sealed].concat();
        bytes.resize(KEY_PLACE_BYTES, 0);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<KeyPlace> {
        let (id, rest) = bytes.strip_prefix(&MAGIC[..])?.split_first_chunk()?;
        Some(KeyPlace { id: *id, sealed: *rest.first_chunk()? })
    }
}

fn key_places(bytes: &impl StorageBackend) -> io::Result<[Option<KeyPlace>; 2]> {
    if bytes.len()? < KEYS_BYTES {
        return Ok([None, None]);
    }
    let mut both = vec![0; 2 * KEY_PLACE_BYTES];
    bytes.read(0, &mut both)?;
    let (first, second) = both.split_at(KEY_PLACE_BYTES);
    Ok([KeyPlace::from_bytes(first), KeyPlace::from_bytes(second)])
}

/// Seals with keys made from one, never twice with the same nonce.
struct Cipher {
    source: Prk,
    salt: [u8; SALT_BYTES],
    /// Of this salt.
    key: LessSafeKey,
    sealed: AtomicU64,
}

impl Cipher {
    fn new(key: &[u8; KEY_BYTES]) -> Result<Cipher, SealError> {
        let source = Salt::new(HKDF_SHA256, b"thalamus-edge store").extract(key);
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt)?;
        let key = key_of(&source, &salt).ok_or(SealError::Damaged("no key could be made"))?;
        Ok(Cipher { source, salt, key, sealed: AtomicU64::new(0) })
    }

    /// Fills `sealed` with nonce, ciphertext and tag of `text`.
    fn seal(&self, context: &[u8], text: &[u8], sealed: &mut [u8]) -> io::Result<()> {
        let number = self.sealed.fetch_add(1, Ordering::Relaxed);
        let (nonce, rest) = sealed.split_at_mut(NONCE_BYTES);
        nonce[..SALT_BYTES].copy_from_slice(&self.salt);
        nonce[SALT_BYTES..].copy_from_slice(&number.to_le_bytes());
        let (place, tag) = rest.split_at_mut(text.len());
        place.copy_from_slice(text);
        let made = self.key.seal_in_place_separate_tag(counted(number), Aad::from(context), place);
        tag.copy_from_slice(made.map_err(|_| io::Error::other("a block could not be encrypted"))?.as_ref());
        Ok(())
    }

    /// Whether these bytes open; then `text` holds what was sealed, and otherwise nothing of use.
    fn open(&self, context: &[u8], sealed: &[u8], text: &mut [u8]) -> bool {
        let Some((salt, rest)) = sealed.split_first_chunk() else { return false };
        let Some((number, rest)) = rest.split_first_chunk() else { return false };
        let other = if *salt == self.salt { None } else { key_of(&self.source, salt) };
        let key = other.as_ref().unwrap_or(&self.key);
        let mut place = rest.to_vec();
        let nonce = counted(u64::from_le_bytes(*number));
        let opened = key.open_in_place(nonce, Aad::from(context), &mut place);
        let Some(opened) = opened.ok().filter(|opened| opened.len() == text.len()) else { return false };
        text.copy_from_slice(opened);
        true
    }
}

impl Cipher {
    /// Sealed bytes in which one bit is wrong, as they were written: the tag says which bit it is, as certainly as it says
    /// that anything is wrong. `text` holds what was sealed then.
    fn put_right(&self, context: &[u8], sealed: &[u8], text: &mut [u8]) -> Option<Vec<u8>> {
        let mut sealed = sealed.to_vec();
        let (number, salt) = (SALT_BYTES..NONCE_BYTES, sealed.first_chunk::<SALT_BYTES>().copied()?);
        // One key serves for all tries but those in the salt.
        let key = if salt == self.salt { None } else { Some(key_of(&self.source, &salt)?) };
        let key = key.as_ref().unwrap_or(&self.key);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                *sealed.get_mut(at)? ^= 1 << bit;
                let is_open = match at < SALT_BYTES {
                    true => self.open(context, &sealed, text),
                    false => {
                        let nonce = counted(u64::from_le_bytes(*sealed.get(number.clone())?.first_chunk()?));
                        let mut place = sealed.get(NONCE_BYTES..)?.to_vec();
                        match key.open_in_place(nonce, Aad::from(context), &mut place) {
                            Ok(opened) if opened.len() == text.len() => {
                                text.copy_from_slice(opened);
                                true
                            }
                            _ => false,
                        }
                    }
                };
                if is_open {
                    return Some(sealed);
                }
                *sealed.get_mut(at)? ^= 1 << bit;
            }
        }
        None
    }
}

fn key_of(source: &Prk, salt: &[u8; SALT_BYTES]) -> Option<LessSafeKey> {
    let info = [&salt[..]];
    let made = source.expand(&info, &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(made)))
}

fn counted(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Bytes for redb, sealed on their way to `inner`.
pub struct Sealed<B> {
    inner: B,
    cipher: Cipher,
    head: Mutex<Head>,
}

/// Block 0, with redb's header in it.
struct Head {
    text: Box<[u8; BLOCK_BYTES]>,
    counter: u64,
    /// Where it was written last.
    place: usize,
    /// Whether that is safely on the disk.
    is_flushed: bool,
}

impl<B> fmt::Debug for Sealed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

impl<B: StorageBackend> Sealed<B> {
    /// Opens sealed bytes, or seals empty ones.
    pub fn open(inner: B, key: &StoreKey) -> Result<Sealed<B>, SealError> {
        // Nothing but keys: nothing has been stored yet, and making them may have been cut off.
        if inner.len()? <= KEYS_BYTES && sealed_with(&inner)?.is_none_or(|id| id == key.id()) {
            return Sealed::create(inner, key);
        }
        let data_key = data_key(&inner, &[key])?;
        let cipher = Cipher::new(&data_key)?;
        let head = Head::read(&inner, &cipher)?;
        Ok(Sealed { inner, cipher, head: Mutex::new(head) })
    }

    fn create(inner: B, key: &StoreKey) -> Result<Sealed<B>, SealError> {
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        fill_random(data_key.as_mut())?;
        inner.set_len(0)?;
        inner.set_len(KEYS_BYTES)?;
        write_keys(&inner, key, &data_key)?;
        let cipher = Cipher::new(&data_key)?;
        Ok(Sealed { inner, cipher, head: Mutex::new(Head::empty()) })
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
            let right = self.cipher.put_right(&number.to_le_bytes(), sealed, text).ok_or(error)?;
            tracing::error!(
                number,
                "a bit of the encrypted store was not what was written, and is put right: the disk may be failing"
            );
            self.inner.write(place_of(number), &right)?;
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

/// Writes both copies of the data key, each flushed before the other, so that one is always whole.
fn write_keys(
    inner: &impl StorageBackend,
    key: &StoreKey,
    data_key: &[u8; KEY_BYTES],
) -> Result<(), SealError> {
    for copy in 0..2 {
        let place = KeyPlace::seal(key, data_key)?;
        inner.write(copy * KEY_PLACE_BYTES as u64, &place.to_bytes())?;
        inner.sync_data()?;
    }
    Ok(())
}

/// Seals the data key with another key. Afterwards the old one opens nothing.
///
/// A copy of the file from before still opens with the old key: whoever may have both has the data.
pub(super) fn change_key(
    inner: &impl StorageBackend,
    old: &StoreKey,
    new: &StoreKey,
) -> Result<(), SealError> {
    // A change that was cut off after the first copy goes on.
    let data_key = data_key(inner, &[old, new])?;
    write_keys(inner, new, &data_key)
}

/// The data key, opened with the first of these keys that opens a copy of it.
fn data_key(inner: &impl StorageBackend, keys: &[&StoreKey]) -> Result<DataKey, SealError> {
    let places = key_places(inner)?;
    let wanted = places.iter().flatten().next().ok_or(SealError::NotSealed)?;
    let opened = keys.iter().find_map(|key| places.iter().flatten().find_map(|place| place.open(key)));
    opened.ok_or_else(|| {
        let given = keys[0].id();
        if wanted.id == keys[0].id_bytes() {
            return SealError::Damaged("the key fits by its id and opens nothing");
        }
        SealError::OtherKey { wanted: hex::encode(wanted.id), given }
    })
}

impl Head {
    fn empty() -> Head {
        Head { text: Box::new([0; BLOCK_BYTES]), counter: 0, place: 0, is_flushed: true }
    }

    fn context(counter: u64) -> [u8; COUNTER_BYTES + 1] {
        let mut context = [b'h'; COUNTER_BYTES + 1];
        context[..COUNTER_BYTES].copy_from_slice(&counter.to_le_bytes());
        context
    }

    /// The counter of a place and whether it opens, with one wrong bit in the counter or the block if need be.
    fn open(cipher: &Cipher, counter: u64, block: &[u8], text: &mut [u8]) -> (u64, bool) {
        let mut opens = |counter: u64| counter > 0 && cipher.open(&Head::context(counter), block, text);
        if opens(counter) {
            return (counter, true);
        }
        if let Some(right) = (0..u64::BITS).map(|bit| counter ^ (1 << bit)).find(|other| opens(*other)) {
            return (right, true);
        }
        let is_blank = block.iter().all(|byte| *byte == 0);
        (counter, !is_blank && cipher.put_right(&Head::context(counter), block, text).is_some())
    }

    fn place_at(place: usize) -> u64 {
        KEYS_BYTES + (place * HEAD_PLACE_BYTES) as u64
    }

    /// The later of the two that opens. A place that does not was being written when the power failed.
    fn read(inner: &impl StorageBackend, cipher: &Cipher) -> Result<Head, SealError> {
        if inner.len()? < BLOCKS_AT {
            return Ok(Head::empty());
        }
        let (mut latest, mut is_blank) = (None::<Head>, true);
        for place in 0..2 {
            let mut sealed = vec![0; HEAD_PLACE_BYTES];
            inner.read(Head::place_at(place), &mut sealed)?;
            is_blank &= sealed.iter().all(|byte| *byte == 0);
            let Some((number, block)) = sealed.split_first_chunk() else { continue };
            let counter = u64::from_le_bytes(*number);
            let mut text = Box::new([0; BLOCK_BYTES]);
            // The later of the two is what was committed last: with one wrong bit in it the earlier must not take its
            // place.
            let (counter, is_open) = Head::open(cipher, counter, &block[..SEALED_BYTES], &mut text[..]);
            if is_open && latest.as_ref().is_none_or(|other| other.counter < counter) {
                latest = Some(Head { text, counter, place, is_flushed: true });
            }
        }
        match latest {
            None if is_blank => Ok(Head::empty()),
            None => Err(SealError::Damaged("neither copy of its first block opens")),
            Some(head) => Ok(head),
        }
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
            Some(others) => self.inner.set_len(BLOCKS_AT + others * SEALED_LEN),
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
