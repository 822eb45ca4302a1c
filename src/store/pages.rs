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

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use redb::{Key, StorageBackend, TableDefinition, Value};
use twox_hash::XxHash3_128;

use super::StoreError;
use super::overlay::caught;
use super::rows::{RowName, RowsDefinition, is_row_good};
use super::tables::{CONTENT, EachTable, each_table};

const PAGE_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 320;
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Where the flags are: which slot counts, and whether the file was closed properly.
const FLAGS_AT: usize = 9;
const SECOND_SLOT: u8 = 1;
const IS_OPEN: u8 = 2;
/// Whether the slot that counts was on the disk before it came to count.
const IS_SETTLED: u8 = 4;
const FLAGS_KNOWN: u8 = 0x0f;
/// Pages of a region, unless whoever makes a file says otherwise, which nobody here does.
const REGION_PAGES: u64 = 1 << 20;
const SLOTS_AT: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;
const SLOT_SUM_AT: usize = 112;
const SLOT_VERSION: u8 = 3;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// Of a table's root in a page: number, checksum, count of rows.
const ROOT_BYTES: usize = 32;
const DEPTH_MAX: usize = 64;
/// What a row may have ahead of its document.
const ROW_HEAD_BYTES_MAX: usize = 24;
/// What the tree of tables is called.
const LIST_OF_TABLES: &str = "the list of tables";
/// Tables that are most of a large file, with checksums in their rows.
const BULKY: [&str; 6] = ["docs", "journal", "audit", "trash", "conflict", "content"];
/// Largest page of which a wrong bit is looked for.
const SEARCHED_PAGE_BYTES_MAX: usize = 256 << 10;
/// How much may be hashed in search of wrong bits: about a minute.
const SEARCH_BYTES_MAX: u64 = 64 << 30;

/// A bit of the file that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flip {
    at: u64,
    bit: u8,
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
}

impl Inspected {
    pub(crate) fn is_whole(&self) -> bool {
        self.flips.is_empty() && self.damaged.is_empty() && self.broken.is_empty()
    }
}

impl Inspected {
    /// Why such a file is not opened.
    pub(crate) fn refusal(&self) -> StoreError {
        let tables: Vec<&str> = self.broken.iter().map(String::as_str).collect();
        StoreError::Broken(tables.join(", "))
    }
}

/// Puts the single wrong bits right.
pub(crate) fn put_right(bytes: &(impl StorageBackend + ?Sized), flips: &[Flip]) -> io::Result<()> {
    for flip in flips {
        let mut byte = [0];
        bytes.read(flip.at, &mut byte)?;
        bytes.write(flip.at, &byte.map(|byte| byte ^ (1 << flip.bit)))?;
    }
    if flips.is_empty() { Ok(()) } else { bytes.sync_data() }
}

/// Follows the tree of pages; unless `is_all`, past the rows of tables that are most of a large file and whose rows have
/// checksums. A file that is no database of redb's is left to redb, which says so.
pub(crate) fn inspect(bytes: &(impl StorageBackend + ?Sized), is_all: bool) -> io::Result<Inspected> {
    let length = bytes.len()?;
    let mut header = [0; HEADER_BYTES];
    if length < PAGE_BYTES {
        return Ok(Inspected::default());
    }
    bytes.read(0, &mut header)?;
    let Some(wrong) = Header(&mut header).put_right(length) else {
        return Ok(Inspected::default());
    };
    if header[FLAGS_AT] & (IS_OPEN | IS_SETTLED) == IS_OPEN {
        // The power failed, perhaps while this commit was written: redb compares all checksums itself, and goes back to
        // the commit before if it has to.
        return Ok(Inspected::default());
    }
    let mut look = Look {
        bytes,
        length,
        is_all,
        wants_rows: false,
        header: Header(&mut header).regions(),
        pages_left: length / PAGE_BYTES,
        search_left: SEARCH_BYTES_MAX,
        found: Inspected::default(),
    };
    look.found.flips.extend(wrong);
    let header = Header(&mut header);
    let slot = header.primary();
    for (is_there, at, is_own) in [(1, 8, false), (2, 40, true)] {
        if slot.get(is_there).is_some_and(|byte| *byte != 0)
            && let Some(root) = slot.get(at..).and_then(Root::read)
        {
            look.tables(root, is_own, None)?;
        }
    }
    Ok(look.found)
}

/// Shows all rows of a table with checksums that can be reached and whose own checksum is right, whatever their page is
/// worth. Returns what is damaged beyond repair. Nothing is written.
pub(crate) fn rows_left(
    bytes: &(impl StorageBackend + ?Sized),
    name: &str,
    show: &mut dyn FnMut(&[u8], &[u8]),
) -> io::Result<BTreeSet<String>> {
    let length = bytes.len()?;
    let mut header = [0; HEADER_BYTES];
    if length < PAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too short for a store"));
    }
    bytes.read(0, &mut header)?;
    // Of a file that nobody closed this is the last commit as well, as far as it was written.
    let _ = Header(&mut header).put_right(length);
    let mut look = Look {
        bytes,
        length,
        is_all: true,
        wants_rows: false,
        header: Header(&mut header).regions(),
        pages_left: length / PAGE_BYTES,
        search_left: SEARCH_BYTES_MAX,
        found: Inspected::default(),
    };
    let header = Header(&mut header);
    match header.primary().get(8..).and_then(Root::read) {
        Some(root) => look.tables(root, false, Some((name, show)))?,
        None => drop(look.found.broken.insert(LIST_OF_TABLES.to_owned())),
    }
    Ok(look.found.broken)
}

fn sum(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The file's first bytes.
struct Header<'a>(&'a mut [u8; HEADER_BYTES]);

/// Pages before the data of each region, and of data.
#[derive(Clone, Copy)]
struct Regions {
    ahead: u64,
    data: u64,
}

impl Header<'_> {
    fn regions(&self) -> Regions {
        let number = |at| u32_at(&self.0[..], at).unwrap_or_default() as u64;
        Regions { ahead: number(16), data: number(20) }
    }

    fn slot(&self, number: usize) -> &[u8] {
        SLOTS_AT.get(number).and_then(|at| self.0.get(*at..*at + SLOT_BYTES)).unwrap_or_default()
    }

    fn primary_number(&self) -> usize {
        usize::from(self.0[FLAGS_AT] & SECOND_SLOT)
    }

    fn primary(&self) -> &[u8] {
        self.slot(self.primary_number())
    }

    fn is_closed(&self) -> bool {
        self.0[FLAGS_AT] & IS_OPEN == 0
    }

    fn is_slot_good(&self, number: usize) -> bool {
        let slot = self.slot(number);
        slot.first() == Some(&SLOT_VERSION) && u128_at(slot, SLOT_SUM_AT) == slot.get(..SLOT_SUM_AT).map(sum)
    }

    /// The number of the last commit in a slot.
    fn commit(&self, number: usize) -> Option<u64> {
        u64_at(self.slot(number), 104)
    }

    /// Whether it can be what redb wrote: for a file that was closed properly all of it is known.
    fn is_sound(&self, length: u64) -> bool {
        let Regions { ahead, data } = self.regions();
        let is_known = self.0.starts_with(MAGIC)
            && self.0[FLAGS_AT] & !FLAGS_KNOWN == 0
            && u32_at(&self.0[..], 12) == Some(PAGE_BYTES as usize)
            && ahead == 0
            && data == REGION_PAGES
            && self.is_slot_good(self.primary_number());
        if !is_known || !self.is_closed() {
            return is_known;
        }
        let (full, rest) = (u32_at(&self.0[..], 24), u32_at(&self.0[..], 28));
        let pages = full.unwrap_or_default() as u64 * data + rest.unwrap_or_default() as u64;
        let other = 1 - self.primary_number();
        PAGE_BYTES + pages * PAGE_BYTES == length
            && !(self.is_slot_good(other) && self.commit(other) > self.commit(self.primary_number()))
    }

    /// Puts single wrong bits right and says where they were; nothing if they do not explain what there is.
    fn put_right(&mut self, length: u64) -> Option<Vec<Flip>> {
        let mut flips = Vec::new();
        // Each slot has a checksum of its own. redb opens no file with a slot of which it does not know the version.
        for (number, at) in SLOTS_AT.into_iter().enumerate() {
            if !self.is_slot_good(number) {
                let is_good = |header: &Self| header.is_slot_good(number);
                flips.extend(self.only_bit(at..at + SLOT_BYTES, is_good));
            }
        }
        if self.is_sound(length) {
            return Some(flips);
        }
        flips.push(self.only_bit(0..SLOTS_AT[0], |header| header.is_sound(length))?);
        Some(flips)
    }

    /// Changes the only bit of this range whose change is good, and says which it was.
    fn only_bit(&mut self, range: Range<usize>, is_good: impl Fn(&Self) -> bool) -> Option<Flip> {
        let mut found = None;
        for at in range {
            for bit in 0..8 {
                // A file that is not closed could be anything.
                if (at, bit) == (FLAGS_AT, 1) {
                    continue;
                }
                *self.0.get_mut(at)? ^= 1 << bit;
                let is_it = is_good(self);
                *self.0.get_mut(at)? ^= 1 << bit;
                if is_it && found.replace((at, bit)).is_some() {
                    return None;
                }
            }
        }
        let (at, bit) = found?;
        *self.0.get_mut(at)? ^= 1 << bit;
        Some(Flip { at: at as u64, bit })
    }
}

/// Where a tree begins.
#[derive(Clone, Copy)]
struct Root {
    page: u64,
    sum: u128,
}

impl Root {
    fn read(bytes: &[u8]) -> Option<Root> {
        Some(Root { page: u64_at(bytes, 0)?, sum: u128_at(bytes, 8)? })
    }
}

/// Widths of keys and values, where all have the same.
#[derive(Clone, Copy)]
struct Widths {
    key: Option<usize>,
    value: Option<usize>,
}

/// A table, as the tree of tables describes it.
struct Table<'a> {
    name: &'a str,
    widths: Widths,
    /// Of redb's own.
    is_own: bool,
}

impl Table<'_> {
    /// Shows the rows of a leaf whose checksum is right: it covers the name of the table and the key.
    fn good_rows(&self, page: &[u8], show: &mut dyn FnMut(&[u8], &[u8])) {
        for row in 0..u16_at(page, 2).unwrap_or_default() {
            if let Some((key, row, _)) = self.widths.row(page, row)
                && is_row_good(self.name, key, row)
            {
                show(key, row);
            }
        }
    }

    /// The keys of the damaged rows of a leaf, if they explain that the page is damaged: then all others are what was
    /// written, and can be found.
    ///
    /// They do if this can be the leaf that was written: its keys are in order and lie where the page above it says; no
    /// row is one of another table; and of several rows at least one is good, while a single one has the shape of a
    /// document. A page that lies in the place of another explains nothing, even if its rows are good.
    fn damaged_rows(&self, page: &[u8], span: &Span) -> Option<Vec<Vec<u8>>> {
        let tables = checksums();
        let compare = tables.get(self.name).filter(|_| !self.is_own && page.first() == Some(&LEAF))?;
        let count = u16_at(page, 2)?;
        let (mut damaged, mut before, mut is_likely) = (Vec::new(), span.after.as_deref(), false);
        for row in 0..count {
            let (key, row, _) = self.widths.row(page, row)?;
            // A key that is none of this table's makes redb panic.
            let is_less =
                |one: &[u8], other: &[u8]| caught(|| compare(one, other)).is_ok_and(Ordering::is_lt);
            let is_in_span =
                before.is_none_or(|before| is_less(before, key)) && compare_to_itself(compare, key);
            if !is_in_span {
                return None;
            }
            before = Some(key);
            if is_row_good(self.name, key, row) {
                continue;
            }
            is_likely |= self.name == CONTENT.name() || is_like_document(row);
            if tables.keys().any(|other| *other != self.name && is_row_good(other, key, row)) {
                return None;
            }
            damaged.push(key.to_owned());
        }
        let is_last_in_span = match (&span.to, before) {
            (Some(to), Some(last)) => caught(|| compare(last, to)).is_ok_and(Ordering::is_le),
            _ => true,
        };
        let is_any_good = damaged.len() < count || (count == 1 && is_likely);
        (is_last_in_span && is_any_good && !damaged.is_empty()).then_some(damaged)
    }
}

/// Whether a damaged row can have been a document and its checksum, behind a few bytes of its own as rows of `base` have
/// them: a document begins with its length and ends in a zero.
fn is_like_document(row: &[u8]) -> bool {
    let Some((value, _)) = row.split_last_chunk::<4>() else {
        return false;
    };
    let begins =
        |at: usize| u32_at(value, at).is_some_and(|length| Some(length) == value.len().checked_sub(at));
    value.last() == Some(&0) && (0..=ROW_HEAD_BYTES_MAX).any(begins)
}

/// Whether a key can be read at all.
fn compare_to_itself(compare: &Compare, key: &[u8]) -> bool {
    caught(|| compare(key, key)).is_ok_and(Ordering::is_eq)
}

/// Which keys belong below a page: those behind the first, up to the second.
#[derive(Clone, Default)]
struct Span {
    after: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

/// How the keys of a table are ordered.
type Compare = fn(&[u8], &[u8]) -> Ordering;

/// The tables whose rows have checksums.
fn checksums() -> BTreeMap<&'static str, Compare> {
    struct Names(BTreeMap<&'static str, Compare>);
    impl EachTable for Names {
        type Error = std::convert::Infallible;

        fn table<K: Key + 'static, V: Value + 'static>(
            &mut self,
            _: TableDefinition<'static, K, V>,
        ) -> Result<(), Self::Error> {
            Ok(())
        }

        fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), Self::Error> {
            self.0.insert(rows.name(), <K as Key>::compare);
            Ok(())
        }
    }
    let mut names = Names(BTreeMap::new());
    let Ok(()) = each_table(&mut names);
    names.0
}

impl Widths {
    /// How much of a page its checksum covers.
    fn covered(self, page: &[u8]) -> Option<usize> {
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

    fn is_good(self, page: &[u8], wanted: u128) -> bool {
        self.covered(page).and_then(|end| page.get(..end)).is_some_and(|covered| sum(covered) == wanted)
    }

    fn key_end(self, page: &[u8], count: usize, row: usize) -> Option<usize> {
        let ends = |width: Option<usize>| if width.is_none() { 4 * count } else { 0 };
        match self.key {
            Some(width) => width.checked_mul(row + 1)?.checked_add(4 + ends(self.key) + ends(self.value)),
            None => u32_at(page, 4 + 4 * row),
        }
    }

    fn value_end(self, page: &[u8], count: usize, row: usize) -> Option<usize> {
        match self.value {
            Some(width) => width.checked_mul(row + 1)?.checked_add(self.key_end(page, count, count - 1)?),
            None => {
                let ahead = if self.key.is_none() { 4 * count } else { 0 };
                u32_at(page, 4 + ahead + 4 * row)
            }
        }
    }

    /// Key and value of a row of a leaf, and where the value begins.
    fn row(self, page: &[u8], row: usize) -> Option<(&[u8], &[u8], usize)> {
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
    fn separators(self, page: &[u8]) -> Vec<Vec<u8>> {
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
    fn children(page: &[u8]) -> Vec<Root> {
        let children = u16_at(page, 2).unwrap_or_default() + 1;
        let child = |n: usize| {
            Some(Root { sum: u128_at(page, 8 + 16 * n)?, page: u64_at(page, 8 + 16 * children + 8 * n)? })
        };
        (0..children).filter_map(child).collect()
    }
}

/// A table, and what is done with each of its rows that can be read.
type Wanted<'a> = Option<(&'a str, &'a mut dyn FnMut(&[u8], &[u8]))>;

/// Where a tree begins: any key belongs there.
const TOP: (usize, &Span) = (0, &Span { after: None, to: None });

struct Look<'a, B: ?Sized> {
    bytes: &'a B,
    length: u64,
    is_all: bool,
    /// Damaged leaves are shown too: each row has its own checksum.
    wants_rows: bool,
    header: Regions,
    /// A file has no more than these; following a circle ends.
    pages_left: u64,
    search_left: u64,
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
        if !self.wants_rows && !table.is_own && table.name == CONTENT.name() && length as u64 > PAGE_BYTES {
            let mut first = [0];
            self.bytes.read(at, &mut first)?;
            if first == [LEAF] {
                return Ok(());
            }
        }
        let mut page = vec![0; length];
        match self.bytes.read(at, &mut page) {
            // A sealed block that does not open.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.found.broken.insert(table.name.to_owned());
                return Ok(());
            }
            read => read?,
        }
        if !table.widths.is_good(&page, root.sum) {
            match self.wrong_bit(table.widths, &mut page, root.sum) {
                Some((byte, bit)) => self.note(table, &page, at, byte, bit),
                None => {
                    match table.damaged_rows(&page, span) {
                        Some(rows) => {
                            let rows = rows.into_iter().map(|key| (table.name.to_owned(), key));
                            self.found.damaged.extend(rows);
                        }
                        None => drop(self.found.broken.insert(table.name.to_owned())),
                    }
                    if self.wants_rows && page.first() == Some(&LEAF) {
                        leaf(&page);
                    }
                    return Ok(());
                }
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
        let is_passed = !self.is_all && !table.is_own && BULKY.contains(&table.name);
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

    fn is_leaf(&self, child: Root) -> bool {
        let mut first = [0];
        let place = self.place(child.page);
        place.is_some_and(|(at, _)| self.bytes.read(at, &mut first).is_ok() && first == [LEAF])
    }

    /// The one bit that makes the page what was written, which it is afterwards.
    fn wrong_bit(&mut self, widths: Widths, page: &mut [u8], wanted: u128) -> Option<(usize, u8)> {
        if page.len() > SEARCHED_PAGE_BYTES_MAX {
            return None;
        }
        for byte in 0..page.len() {
            for bit in 0..8 {
                self.search_left = self.search_left.checked_sub(page.len() as u64)?;
                *page.get_mut(byte)? ^= 1 << bit;
                if widths.is_good(page, wanted) {
                    return Some((byte, bit));
                }
                *page.get_mut(byte)? ^= 1 << bit;
            }
        }
        None
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
