//! Floor 1. How a block is sealed, and what is done with one that does not open.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

use super::key::{KEY_BYTES, fill_random};
use super::{NONCE_BYTES, SALT_BYTES};
use crate::store::error::SealError;

/// Seals with keys made from one, never twice with the same nonce.
pub(super) struct Cipher {
    source: Prk,
    salt: [u8; SALT_BYTES],
    /// Of this salt.
    key: LessSafeKey,
    sealed: AtomicU64,
}

impl Cipher {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Result<Cipher, SealError> {
        let source = Salt::new(HKDF_SHA256, b"thalamus-edge store").extract(key);
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt)?;
        let key = key_of(&source, &salt).ok_or(SealError::Damaged("no key could be made"))?;
        Ok(Cipher { source, salt, key, sealed: AtomicU64::new(0) })
    }

    /// Fills `sealed` with nonce, ciphertext and tag of `text`.
    pub(super) fn seal(&self, context: &[u8], text: &[u8], sealed: &mut [u8]) -> io::Result<()> {
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
    pub(super) fn open(&self, context: &[u8], sealed: &[u8], text: &mut [u8]) -> bool {
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
    /// What these bytes seem to have been before they were sealed, if more than one of their bits is wrong: wrong in the same
    /// bits, and nothing vouches for the others. Nonsense if the nonce is wrong.
    pub(super) fn guess(&self, sealed: &[u8], text: &mut [u8]) -> Option<()> {
        let (salt, rest) = sealed.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let other = if *salt == self.salt { None } else { Some(key_of(&self.source, salt)?) };
        let key = other.as_ref().unwrap_or(&self.key);
        // Zeros, sealed alike, are the stream that the cipher adds. They never leave this function.
        let mut stream = vec![0; text.len()];
        let nonce = counted(u64::from_le_bytes(*number));
        let _tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut stream).ok()?;
        for ((text, sealed), stream) in text.iter_mut().zip(rest).zip(stream) {
            *text = sealed ^ stream;
        }
        Some(())
    }

    /// Sealed bytes in which one bit is wrong, as they were written: the tag says which bit it is, as certainly as it says
    /// that anything is wrong. `text` holds what was sealed then.
    pub(super) fn put_right(&self, context: &[u8], sealed: &[u8], text: &mut [u8]) -> Option<Vec<u8>> {
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
