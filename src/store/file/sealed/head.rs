//! Floor 1. The first block of an encrypted store, which has two places.

use redb::StorageBackend;

use super::cipher::Cipher;
use super::{BLOCK_BYTES, BLOCKS_AT, COUNTER_BYTES, Defects, HEAD_PLACE_BYTES, KEYS_BYTES, SEALED_BYTES};
use crate::store::error::SealError;

/// Block 0, with redb's header in it.
pub(super) struct Head {
    pub(super) text: Box<[u8; BLOCK_BYTES]>,
    pub(super) counter: u64,
    /// Where it was written last.
    pub(super) place: usize,
    /// Whether that is safely on the disk.
    pub(super) is_flushed: bool,
}

impl Head {
    pub(super) fn empty() -> Head {
        Head { text: Box::new([0; BLOCK_BYTES]), counter: 0, place: 0, is_flushed: true }
    }

    pub(super) fn context(counter: u64) -> [u8; COUNTER_BYTES + 1] {
        let mut context = [b'h'; COUNTER_BYTES + 1];
        context[..COUNTER_BYTES].copy_from_slice(&counter.to_le_bytes());
        context
    }

    /// The counter and block of a place as they were written, if it opens: with one wrong bit in either if need be.
    fn open(cipher: &Cipher, counter: u64, block: &[u8], text: &mut [u8]) -> Option<(u64, Option<Vec<u8>>)> {
        let mut opens = |counter: u64| counter > 0 && cipher.open(&Head::context(counter), block, text);
        if opens(counter) {
            return Some((counter, None));
        }
        if let Some(right) = (0..u64::BITS).map(|bit| counter ^ (1 << bit)).find(|other| opens(*other)) {
            return Some((right, Some(block.to_vec())));
        }
        if block.iter().all(|byte| *byte == 0) {
            return None;
        }
        Some((counter, Some(cipher.put_right(&Head::context(counter), block, text)?)))
    }

    pub(super) fn place_at(place: usize) -> u64 {
        KEYS_BYTES + (place * HEAD_PLACE_BYTES) as u64
    }

    /// The later of the two that opens, and whether the other one does not. That one was being written when the power
    /// failed, or it has rotted; it was never written before this one was on the disk, and all that this one leads to.
    pub(super) fn read(
        inner: &impl StorageBackend,
        cipher: &Cipher,
        defects: &Defects,
        is_writing_back: bool,
    ) -> Result<(Head, bool), SealError> {
        if inner.len()? < BLOCKS_AT {
            return Ok((Head::empty(), false));
        }
        let (mut latest, mut opened) = (None::<Head>, 0);
        for place in 0..2 {
            let mut sealed = vec![0; HEAD_PLACE_BYTES];
            inner.read(Head::place_at(place), &mut sealed)?;
            let Some((number, block)) = sealed.split_first_chunk() else { continue };
            let counter = u64::from_le_bytes(*number);
            let mut text = Box::new([0; BLOCK_BYTES]);
            // The later of the two is what was committed last: with one wrong bit in it the earlier must not take its
            // place.
            let Some((counter, right)) = Head::open(cipher, counter, &block[..SEALED_BYTES], &mut text[..])
            else {
                continue;
            };
            if let Some(right) = right {
                let bytes = [&counter.to_le_bytes()[..], &right].concat();
                let written = is_writing_back.then(|| inner.write(Head::place_at(place), &bytes));
                defects.put_right(0, written);
            }
            opened += 1;
            if latest.as_ref().is_none_or(|other| other.counter < counter) {
                latest = Some(Head { text, counter, place, is_flushed: true });
            }
        }
        match latest {
            None if inner.len()? == BLOCKS_AT => Ok((Head::empty(), false)),
            None => Err(SealError::Damaged("neither copy of its first block opens")),
            // The second place is written for the first time by the write after the first flush.
            Some(head) => {
                let is_torn = opened < 2 && head.counter > 2;
                Ok((head, is_torn))
            }
        }
    }
}
