//! Floor 1. The key of a node's store, and the data key that it seals.

use std::{fmt, io};

use redb::StorageBackend;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::{KEYS_BYTES, NONCE_BYTES, SEALED_MAGIC, TAG_BYTES};
use crate::store::error::SealError;

pub(super) const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
/// Each copy of the sealed data key.
const KEY_PLACE_BYTES: usize = KEYS_BYTES as usize / 2;

pub(super) type DataKey = Zeroizing<[u8; KEY_BYTES]>;

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

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), SealError> {
    getrandom::fill(bytes).map_err(|error| SealError::NoRandomness(error.to_string()))
}

/// The id of the key with which these bytes are sealed, if they are.
pub(in crate::store) fn sealed_with(bytes: &impl StorageBackend) -> io::Result<Option<String>> {
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
        [&SEALED_MAGIC[..], &id].concat()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [&SEALED_MAGIC[..], &self.id, &self.sealed].concat();
        bytes.resize(KEY_PLACE_BYTES, 0);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<KeyPlace> {
        let (id, rest) = bytes.strip_prefix(&SEALED_MAGIC[..])?.split_first_chunk()?;
        Some(KeyPlace { id: *id, sealed: *rest.first_chunk()? })
    }
}

fn key_places(bytes: &impl StorageBackend) -> io::Result<[Option<KeyPlace>; 2]> {
    // Of a file that is cut off there, what is left of them.
    let mut both = vec![0; 2 * KEY_PLACE_BYTES];
    let there = usize::try_from(bytes.len()?).unwrap_or(usize::MAX).min(both.len());
    bytes.read(0, both.get_mut(..there).unwrap_or_default())?;
    let (first, second) = both.split_at(KEY_PLACE_BYTES);
    Ok([KeyPlace::from_bytes(first), KeyPlace::from_bytes(second)])
}

/// Writes both copies of the data key, each flushed before the other, so that one is always whole.
pub(super) fn write_keys(
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
/// A copy of the file from before still opens with the old key: who has both has the data.
pub(in crate::store) fn change_key(
    inner: &impl StorageBackend,
    old: &StoreKey,
    new: &StoreKey,
) -> Result<(), SealError> {
    // A change that was cut off after the first copy goes on.
    let data_key = data_key(inner, &[old, new])?;
    write_keys(inner, new, &data_key)
}

/// The data key, opened with the first of these keys that opens a copy of it.
pub(super) fn data_key(inner: &impl StorageBackend, keys: &[&StoreKey]) -> Result<DataKey, SealError> {
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
