//! Floor 1. Which bit of a page is wrong.
//!
//! A checksum of 128 bits tells, and nothing but trying finds out: each bit of a page costs a look at all of the page.
//! So a large page costs far more than many small ones, and how much is looked at is bounded for each page and in all. What
//! makes a page large is a large row, and there the row's own checksum says which bit it is: a CRC is linear, so what a
//! wrong bit changes in it depends on the place of the bit alone.

use super::layout::{LEAF, u16_at};
use super::table::{Table, checksums};
use crate::store::rows::{is_row_good, wrong_bits, wrong_key_bits};

/// Where a leaf says where its keys and rows end, and in how many bytes each.
const ENDS_AT: usize = 4;
const END_BYTES: usize = 4;
/// How much may be hashed in search of the wrong bit of one page: all bits of a page of 32 KiB.
const PAGE_SEARCH_BYTES_MAX: u64 = 8 << 30;
/// The same for a whole file: about a minute.
const SEARCH_BYTES_MAX: u64 = 64 << 30;

/// What may still be hashed.
pub(super) struct Search {
    left: u64,
}

impl Search {
    pub(super) fn new() -> Search {
        Search { left: SEARCH_BYTES_MAX }
    }

    /// The one bit that makes the page what was written, which it is afterwards: the place of its byte, and which bit of
    /// that.
    pub(super) fn wrong_bit(
        &mut self,
        table: &Table<'_>,
        page: &mut [u8],
        wanted: u128,
    ) -> Option<(usize, u8)> {
        let mut left = self.left.min(PAGE_SEARCH_BYTES_MAX);
        let before = left;
        let places = places(table, page);
        let mut found = None;
        for (at, bit) in places {
            let Some(less) = left.checked_sub(page.len() as u64) else { break };
            left = less;
            let Some(byte) = page.get_mut(at) else { break };
            *byte ^= 1 << bit;
            if table.widths.is_good(page, wanted) {
                found = Some((at, bit));
                break;
            }
            if let Some(byte) = page.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        self.left -= before - left;
        found
    }
}

impl Search {
    /// The bits of keys that make a leaf what was written, which it is afterwards: one or two of each key whose row has a
    /// wrong checksum, which says which they are. Nothing else of the page is wrong then.
    pub(super) fn wrong_keys(
        &mut self,
        table: &Table<'_>,
        page: &mut [u8],
        wanted: u128,
    ) -> Option<Vec<(usize, u8)>> {
        if table.is_own || page.first() != Some(&LEAF) || !checksums().contains_key(table.name) {
            return None;
        }
        let count = u16_at(page, 2)?;
        let mut found = Vec::new();
        for n in 0..count {
            let (key, row, _) = table.widths.row(page, n)?;
            if is_row_good(table.name, key, row) {
                continue;
            }
            self.left = self.left.checked_sub(8 * (key.len() * row.len()) as u64)?;
            let from = table.widths.key_end(page, count, n)?.checked_sub(key.len())?;
            let bits = wrong_key_bits(table.name, key, row)?;
            found.extend(bits.into_iter().map(|(at, bit)| (from + at, bit)));
        }
        let change = |page: &mut [u8]| {
            for (at, bit) in &found {
                page.iter_mut().skip(*at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
        };
        change(page);
        if table.widths.is_good(page, wanted) {
            return Some(found);
        }
        change(page);
        None
    }
}

/// Where one wrong bit can be. A row with a checksum of its own says which bit of it that is, if one is; what is left is
/// what leads to the rows.
fn places(table: &Table<'_>, page: &[u8]) -> Vec<(usize, u8)> {
    let each_bit = |at: usize| (0..8).map(move |bit| (at, bit));
    let has_sums = !table.is_own && page.first() == Some(&LEAF) && checksums().contains_key(table.name);
    let count = u16_at(page, 2).filter(|_| has_sums).unwrap_or_default();
    let Some((_, _, rows_from)) = table.widths.row(page, 0).filter(|_| count > 0) else {
        return (0..page.len()).flat_map(each_bit).collect();
    };
    // Where rows seem to lie is wrong itself if the bit is in the list of their ends.
    let head = rows_from.max(ENDS_AT + 2 * END_BYTES * count).min(page.len());
    let of_rows = (0..count).filter_map(|row| table.widths.row(page, row));
    let told = of_rows.flat_map(|(key, row, from)| {
        let bits = wrong_bits(table.name, key, row).unwrap_or_default();
        bits.into_iter().map(move |(at, bit)| (from + at, bit))
    });
    told.chain((0..head).flat_map(each_bit)).collect()
}
