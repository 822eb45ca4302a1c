//! Floor 1. The pages of the store's file compared with redb's checksums, before redb reads them.
//!
//! redb keeps a checksum of every page in the page above it and compares none of them when it reads. So a flipped bit in
//! a key, an index or a pointer goes unnoticed: a record is not found, or an edit that was never sent counts as
//! sent. Here the whole tree is followed from the file's header at every start. The checksums have 128 bits, so one
//! wrong bit is found by trying: exactly one change makes the page what was written, and that change is made. Pages with
//! more wrong bits stay as they are and are named.
//!
//! The layout is redb's file format 3 (its `docs/design.md`, and `header.rs`, `btree_base.rs`, `table_tree_base.rs` of
//! redb 4.6). The leaves of large pages of attachments are passed over: each of their rows has a checksum, and they
//! are most of a large file.

use std::collections::BTreeSet;
use std::io;

use redb::StorageBackend;

use super::sealed::Guess;
use crate::store::error::StoreError;
use crate::store::schema::{CONTENT, is_bulky_table, is_index};
pub(crate) use begin::{inspect, inspect_sealed, rows_left};
use header::Regions;
use layout::{LEAF, ROOT_BYTES, Root, Widths, u16_at, u32_at};
use search::Search;
use table::{Span, Table, checksums};

mod begin;
mod header;
mod layout;
mod search;
mod table;

const PAGE_BYTES: u64 = 4096;
const DEPTH_MAX: usize = 64;
/// What the tree of tables is called.
const LIST_OF_TABLES: &str = "the list of tables";

/// A bit of the file that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flip {
    at: u64,
    bit: u8,
}

/// A page with blocks that do not open, as it is to be from now on: its rows are there, and those that nobody can vouch
/// for have wrong checksums.
#[derive(Debug)]
pub(crate) struct Patch {
    at: u64,
    page: Vec<u8>,
}

/// What the pages of a file are worth.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// Single wrong bits.
    pub(crate) flips: Vec<Flip>,
    /// Rows with a checksum in which these are: table and key.
    pub(crate) in_rows: Vec<(String, Vec<u8>)>,
    /// Rows whose own checksum is wrong, with more than one bit: table and key.
    pub(crate) damaged: Vec<(String, Vec<u8>)>,
    /// Tables with pages in which more than one bit is wrong, where no row says so: rows of which nobody knows may be
    /// missing.
    pub(crate) broken: BTreeSet<String>,
    /// In an encrypted store: pages with blocks that do not open, and how many of these there are.
    pub(crate) patches: Vec<Patch>,
    pub(crate) closed_blocks: u64,
    /// In an encrypted store: wrong bits that were found while its blocks were read, and put right where that can be.
    pub(crate) bits_in_blocks: u64,
    /// The last commit was complete, and not marked as the one that counts: this bit marks it.
    pub(crate) ahead: Option<Flip>,
    /// How many bytes lie behind the end of the store, and where that end is, in bytes as redb sees them.
    pub(crate) surplus: u64,
    pub(crate) cut_to: Option<u64>,
    /// Nothing was looked at: it is no store, or one that was being written when the power failed, of which redb compares
    /// all checksums itself.
    pub(crate) is_left_to_redb: bool,
    /// In an encrypted store: one of the two places of its first block does not open.
    pub(crate) has_torn_head: bool,
    /// What the file lacks if its header is right about the length. Either the length in the header has a wrong bit, or pages to
    /// which no tree leads were cut off; [`super::untouched::refuse_cut_off`] decides.
    pub(crate) cut_off_unless_flipped: Option<String>,
}

impl Inspected {
    pub(crate) fn is_whole(&self) -> bool {
        self.is_sound() && self.damaged.is_empty()
    }

    /// Whether it is whole but for rows that say that they are damaged.
    pub(crate) fn is_sound(&self) -> bool {
        self.flips.is_empty() && self.broken.is_empty() && self.patches.is_empty() && self.bits_in_blocks == 0
    }

    /// Why such a file is not opened.
    pub(crate) fn refusal(&self) -> StoreError {
        let tables: Vec<&str> = self.broken.iter().map(String::as_str).collect();
        StoreError::Broken(tables.join(", "))
    }
}

/// Puts the single wrong bits right, has the last commit count, cuts off what was appended, and writes pages anew of which
/// blocks do not open.
pub(crate) fn put_right(
    bytes: &(impl StorageBackend + ?Sized),
    Inspected { flips, patches, ahead, cut_to, .. }: &Inspected,
) -> io::Result<()> {
    if let Some(length) = cut_to {
        bytes.set_len(*length)?;
    }
    for flip in flips.iter().chain(ahead) {
        let mut byte = [0];
        bytes.read(flip.at, &mut byte)?;
        bytes.write(flip.at, &byte.map(|byte| byte ^ (1 << flip.bit)))?;
    }
    for patch in patches {
        bytes.write(patch.at, &patch.page)?;
    }
    let is_changed = !flips.is_empty() || !patches.is_empty() || ahead.is_some() || cut_to.is_some();
    if is_changed { bytes.sync_data() } else { Ok(()) }
}

/// A table, and what is done with each of its rows that can be read.
type Wanted<'a> = Option<(&'a str, &'a mut dyn FnMut(&[u8], &[u8]))>;

/// Where a tree begins: any key belongs there.
const TOP: (usize, &Span) = (0, &Span { after: None, to: None });

struct Look<'a, B: ?Sized> {
    bytes: &'a B,
    length: u64,
    is_all: bool,
    /// The same bytes, of an encrypted store.
    guess: Option<&'a dyn Guess>,
    /// Damaged leaves are shown too: each row has its own checksum.
    wants_rows: bool,
    header: Regions,
    /// A file has no more than these; following a circle ends.
    pages_left: u64,
    search: Search,
    found: Inspected,
}

impl<B: StorageBackend + ?Sized> Look<'_, B> {
    /// Where a page lies, and how long it is.
    fn place(&self, page: u64) -> Option<(u64, usize)> {
        let (order, region) = (page >> 59, (page >> 20) & 0xf_ffff);
        let index = page & (0xf_ffff >> order.min(20));
        let length = PAGE_BYTES.checked_shl(u32::try_from(order).ok()?).filter(|_| order <= 20)?;
        let regions = (self.header.ahead + self.header.data).checked_mul(PAGE_BYTES)?;
        let at = PAGE_BYTES
            .checked_add(regions.checked_mul(region)?)?
            .checked_add(self.header.ahead * PAGE_BYTES)?
            .checked_add(index.checked_mul(length)?)?;
        (at.checked_add(length)? <= self.length).then_some((at, usize::try_from(length).ok()?))
    }

    /// The tables of a tree of tables, and their pages.
    fn tables(&mut self, root: Root, is_own: bool, mut wanted: Wanted<'_>) -> io::Result<()> {
        let name = if is_own { "redb's own tables" } else { LIST_OF_TABLES };
        let tree = Table { name, widths: Widths { key: None, value: None }, is_own: true };
        let mut tables = Vec::new();
        self.tree(root, &tree, TOP, &mut |page| {
            let mut row = 0;
            while let Some((key, value, _)) = tree.widths.row(page, row) {
                tables.push((String::from_utf8_lossy(key).into_owned(), value.to_vec()));
                row += 1;
            }
        })?;
        for (name, about) in tables {
            let width = |at: usize| match about.get(at) {
                Some(0) | None => None,
                Some(_) => u32_at(&about, at + 1),
            };
            let widths = Widths { key: width(10 + ROOT_BYTES), value: width(15 + ROOT_BYTES) };
            let root = about.get(10..).and_then(Root::read).filter(|_| about.get(9) == Some(&1));
            if let Some(root) = root.filter(|_| about.first() == Some(&3)) {
                let table = Table { name: &name, widths, is_own };
                match &mut wanted {
                    None => self.tree(root, &table, TOP, &mut |_| ())?,
                    Some((wanted, show)) if *wanted == name => {
                        self.wants_rows = true;
                        self.tree(root, &table, TOP, &mut |page| table.good_rows(page, *show))?;
                        self.wants_rows = false;
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn tree(
        &mut self,
        root: Root,
        table: &Table<'_>,
        (depth, span): (usize, &Span),
        leaf: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        let place = self.place(root.page).filter(|_| depth < DEPTH_MAX && self.pages_left > 0);
        let Some((at, length)) = place else {
            self.found.broken.insert(table.name.to_owned());
            return Ok(());
        };
        self.pages_left -= 1;
        // A block that does not open ends more than the reading of its row.
        let is_looked_through = self.wants_rows || (self.is_all && self.guess.is_some());
        let is_bulky = !table.is_own && table.name == CONTENT.name() && length as u64 > PAGE_BYTES;
        if is_bulky && !is_looked_through && self.is_leaf(root) {
            return Ok(());
        }
        let mut page = vec![0; length];
        match self.bytes.read(at, &mut page) {
            // A sealed block that does not open.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.look_behind_seal(table, span, (at, page));
            }
            read => read?,
        }
        if !table.widths.is_good(&page, root.sum) {
            match self.search.wrong_bit(table, &mut page, root.sum) {
                Some((byte, bit)) => self.note(table, &page, at, byte, bit),
                None => match table.damaged_rows(&page, span) {
                    Some(rows) => {
                        let rows = rows.into_iter().map(|key| (table.name.to_owned(), key));
                        self.found.damaged.extend(rows);
                        if self.wants_rows && page.first() == Some(&LEAF) {
                            leaf(&page);
                        }
                        return Ok(());
                    }
                    // Keys out of order, say: nobody finds the rows behind them.
                    None => match self.search.wrong_keys(table, &mut page, root.sum) {
                        Some(bits) => {
                            bits.into_iter().for_each(|(byte, bit)| self.note(table, &page, at, byte, bit));
                        }
                        None => {
                            self.found.broken.insert(table.name.to_owned());
                            self.empty_index(table, at, page.len());
                            if self.wants_rows && page.first() == Some(&LEAF) {
                                leaf(&page);
                            }
                            return Ok(());
                        }
                    },
                },
            }
        }
        if page.first() == Some(&LEAF) {
            leaf(&page);
            return Ok(());
        }
        let children = Widths::children(&page);
        let keys = table.widths.separators(&page);
        drop(page);
        // All leaves of a tree are at the same depth.
        let is_passed = !self.is_all && !table.is_own && is_bulky_table(table.name);
        if is_passed && children.first().is_some_and(|child| self.is_leaf(*child)) {
            return Ok(());
        }
        let mut after = span.after.clone();
        for (n, child) in children.into_iter().enumerate() {
            let to = keys.get(n).cloned().or_else(|| span.to.clone());
            let below = Span { after: std::mem::replace(&mut after, to.clone()), to };
            self.tree(child, table, (depth + 1, &below), leaf)?;
        }
        Ok(())
    }

    /// What becomes of a page of which blocks do not open. If it is the leaf that was written, but for some bits, its rows
    /// in those blocks are damaged, whatever their own checksums say: a thief who can write to the disk can make those
    /// right. An index will be made anew.
    fn look_behind_seal(
        &mut self,
        table: &Table<'_>,
        span: &Span,
        (at, mut page): (u64, Vec<u8>),
    ) -> io::Result<()> {
        let guessed = match self.guess {
            Some(bytes) => bytes.guess(at, &mut page)?,
            None => Vec::new(),
        };
        self.found.closed_blocks += guessed.len() as u64;
        match table.unvouched_rows(&mut page, span, &guessed) {
            Some(rows) => {
                let rows = rows.into_iter().map(|key| (table.name.to_owned(), key));
                self.found.damaged.extend(rows);
                self.found.patches.push(Patch { at, page });
            }
            None => {
                self.found.broken.insert(table.name.to_owned());
                self.empty_index(table, at, page.len());
            }
        }
        Ok(())
    }

    /// Has a page of an index that nothing explains be one without rows: redb can remove the table then, to be made anew.
    fn empty_index(&mut self, table: &Table<'_>, at: u64, length: usize) {
        if !table.is_own && is_index(table.name) {
            let mut page = vec![0; length];
            page.iter_mut().take(1).for_each(|kind| *kind = LEAF);
            self.found.patches.push(Patch { at, page });
        }
    }

    fn is_leaf(&self, child: Root) -> bool {
        let mut first = [0];
        let place = self.place(child.page);
        place.is_some_and(|(at, _)| self.bytes.read(at, &mut first).is_ok() && first == [LEAF])
    }

    /// Notes a wrong bit; `page` is as it should be.
    fn note(&mut self, table: &Table<'_>, page: &[u8], at: u64, byte: usize, bit: u8) {
        self.found.flips.push(Flip { at: at + byte as u64, bit });
        let has_sums = !table.is_own && page.first() == Some(&LEAF) && checksums().contains_key(table.name);
        let rows = 0..u16_at(page, 2).filter(|_| has_sums).unwrap_or_default();
        let mut rows = rows.filter_map(|row| table.widths.row(page, row));
        if let Some((key, ..)) = rows.find(|(_, value, from)| (*from..from + value.len()).contains(&byte)) {
            self.found.in_rows.push((table.name.to_owned(), key.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests;
