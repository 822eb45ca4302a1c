//! Floor 1. The checksum at the end of a row.

use std::collections::HashMap;

/// At the end of a row.
pub(crate) const SUM_BYTES: usize = 4;

/// Whether a row as it stands in the file is what was written, by the name of its table and the bytes of its key.
pub(crate) fn is_row_good(table: &str, key: &[u8], row: &[u8]) -> bool {
    let mut seed = crc32fast::Hasher::new();
    seed.update(table.as_bytes());
    row.split_last_chunk::<SUM_BYTES>().is_some_and(|(value, found)| sum(seed, key, value) == *found)
}

/// Writes the checksum of a row that every reader refuses, and that [`is_row_marked`] knows: where nobody can vouch for it.
pub(crate) fn mark_row(table: &str, key: &[u8], row: &mut [u8]) {
    let mut seed = crc32fast::Hasher::new();
    seed.update(table.as_bytes());
    if let Some((value, found)) = row.split_last_chunk_mut::<SUM_BYTES>() {
        *found = sum(seed, key, value).map(|byte| !byte);
    }
}

/// Whether a row says that nobody can vouch for it.
pub(crate) fn is_row_marked(table: &str, key: &[u8], row: &[u8]) -> bool {
    let mut seed = crc32fast::Hasher::new();
    seed.update(table.as_bytes());
    row.split_last_chunk::<SUM_BYTES>()
        .is_some_and(|(value, found)| sum(seed, key, value) == found.map(|byte| !byte))
}

/// The one or two bits of a key that make the checksum of its row right when they change: place and bit. A CRC-32 tells
/// any two bits of so short a text from any other two.
pub(crate) fn wrong_key_bits(table: &str, key: &[u8], row: &[u8]) -> Option<Vec<(usize, u8)>> {
    let mut seed = crc32fast::Hasher::new();
    seed.update(table.as_bytes());
    let (value, found) = row.split_last_chunk::<SUM_BYTES>()?;
    let sum_with = |key: &[u8]| u32::from_le_bytes(sum(seed.clone(), key, value));
    let told = sum_with(key);
    let wrong = told ^ u32::from_le_bytes(*found);
    if wrong == 0 {
        return None;
    }
    let mut tried = key.to_vec();
    let mut by_change = HashMap::new();
    for place in (0..key.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let (at, bit) = place;
        tried.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
        let change = sum_with(&tried) ^ told;
        tried.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
        if change == wrong {
            return Some(vec![place]);
        }
        // A checksum is linear: what two bits change in it is what each of them changes.
        if let Some(other) = by_change.get(&(change ^ wrong)) {
            return Some(vec![*other, place]);
        }
        by_change.insert(change, place);
    }
    None
}

/// Which single bits of a row as it stands in the file make its checksum right when they change: place and bit. `None` if
/// it is right.
pub(crate) fn wrong_bits(table: &str, key: &[u8], row: &[u8]) -> Option<Vec<(usize, u8)>> {
    let mut seed = crc32fast::Hasher::new();
    seed.update(table.as_bytes());
    let (value, found) = match row.split_last_chunk::<SUM_BYTES>() {
        Some(row) => row,
        None => return Some(Vec::new()),
    };
    let wrong = u32::from_le_bytes(sum(seed, key, value)) ^ u32::from_le_bytes(*found);
    if wrong == 0 {
        return None;
    }
    let mut bits = Vec::new();
    if wrong.is_power_of_two() {
        let bit = wrong.trailing_zeros();
        bits.push((value.len() + (bit / 8) as usize, (bit % 8) as u8));
    }
    // What each bit of the last byte changes in a CRC-32, and one byte further to the front each time.
    let mut changes: [u32; 8] = std::array::from_fn(|bit| crc_step(1 << bit));
    for at in (0..value.len()).rev() {
        for (bit, change) in (0..8).zip(&mut changes) {
            if *change == wrong {
                bits.push((at, bit));
            }
            *change = (*change >> 8) ^ crc_step(*change & 0xff);
        }
    }
    Some(bits)
}

/// What one byte does to a CRC-32, in the reversed form of its polynomial.
const fn crc_step(byte: u32) -> u32 {
    let (mut crc, mut bit) = (byte, 0);
    while bit < 8 {
        crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        bit += 1;
    }
    crc
}

pub(super) fn sum(mut hasher: crc32fast::Hasher, key: &[u8], value: &[u8]) -> [u8; SUM_BYTES] {
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}
