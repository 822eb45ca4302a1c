//! Floor 1. How redb lays out its pages: leaves of rows, branches of what lies below them (`btree_base.rs` of redb 4.6).

use twox_hash::XxHash3_128;

pub(super) const LEAF: u8 = 1;
pub(super) const BRANCH: u8 = 2;
/// Of a table's root in a page: number, checksum, count of rows.
pub(super) const ROOT_BYTES: usize = 32;

pub(super) fn sum(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where a tree begins.
#[derive(Clone, Copy)]
pub(super) struct Root {
    pub(super) page: u64,
    pub(super) sum: u128,
}

impl Root {
    pub(super) fn read(bytes: &[u8]) -> Option<Root> {
        Some(Root { page: u64_at(bytes, 0)?, sum: u128_at(bytes, 8)? })
    }
}

/// Widths of keys and values, where all have the same.
#[derive(Clone, Copy)]
pub(super) struct Widths {
    pub(super) key: Option<usize>,
    pub(super) value: Option<usize>,
}

impl Widths {
    /// How much of a page its checksum covers.
    pub(super) fn covered(self, page: &[u8]) -> Option<usize> {
        let count = u16_at(page, 2).filter(|count| *count > 0)?;
        let end = match *page.first()? {
            LEAF => self.value_end(page, count, count - 1)?,
            BRANCH => {
                let keys = 8 + 24 * (count + 1);
                match self.key {
                    Some(width) => width.checked_mul(count)?.checked_add(keys)?,
                    None => u32_at(page, keys + 4 * (count - 1))?,
                }
            }
            _ => return None,
        };
        (end <= page.len()).then_some(end)
    }

    pub(super) fn is_good(self, page: &[u8], wanted: u128) -> bool {
        self.covered(page).and_then(|end| page.get(..end)).is_some_and(|covered| sum(covered) == wanted)
    }

    pub(super) fn key_end(self, page: &[u8], count: usize, row: usize) -> Option<usize> {
        let ends = |width: Option<usize>| if width.is_none() { 4 * count } else { 0 };
        match self.key {
            Some(width) => width.checked_mul(row + 1)?.checked_add(4 + ends(self.key) + ends(self.value)),
            None => u32_at(page, 4 + 4 * row),
        }
    }

    pub(super) fn value_end(self, page: &[u8], count: usize, row: usize) -> Option<usize> {
        match self.value {
            Some(width) => width.checked_mul(row + 1)?.checked_add(self.key_end(page, count, count - 1)?),
            None => {
                let ahead = if self.key.is_none() { 4 * count } else { 0 };
                u32_at(page, 4 + ahead + 4 * row)
            }
        }
    }

    /// Key and value of a row of a leaf, and where the value begins.
    pub(super) fn row(self, page: &[u8], row: usize) -> Option<(&[u8], &[u8], usize)> {
        let count = u16_at(page, 2).filter(|count| row < *count)?;
        let ends = |width: Option<usize>| if width.is_none() { 4 * count } else { 0 };
        let key_from = match row.checked_sub(1) {
            Some(before) => self.key_end(page, count, before)?,
            None => 4 + ends(self.key) + ends(self.value),
        };
        let value_from = match row.checked_sub(1) {
            Some(before) => self.value_end(page, count, before)?,
            None => self.key_end(page, count, count - 1)?,
        };
        let key = page.get(key_from..self.key_end(page, count, row)?)?;
        Some((key, page.get(value_from..self.value_end(page, count, row)?)?, value_from))
    }

    /// The keys of a branch: the greatest that each of the pages below it but the last may have.
    pub(super) fn separators(self, page: &[u8]) -> Vec<Vec<u8>> {
        let count = u16_at(page, 2).unwrap_or_default();
        let ends = 8 + 24 * (count + 1);
        let key = |n: usize| {
            let (from, to) = match (self.key, n.checked_sub(1)) {
                (Some(width), _) => (ends + width * n, ends + width * (n + 1)),
                (None, Some(before)) => (u32_at(page, ends + 4 * before)?, u32_at(page, ends + 4 * n)?),
                (None, None) => (ends + 4 * count, u32_at(page, ends)?),
            };
            page.get(from..to).map(<[u8]>::to_vec)
        };
        (0..count).map_while(key).collect()
    }

    /// The pages below a branch.
    pub(super) fn children(page: &[u8]) -> Vec<Root> {
        let children = u16_at(page, 2).unwrap_or_default() + 1;
        let child = |n: usize| {
            Some(Root { sum: u128_at(page, 8 + 16 * n)?, page: u64_at(page, 8 + 16 * children + 8 * n)? })
        };
        (0..children).filter_map(child).collect()
    }
}
