//! Floor 1. Tables as the pages have them, and which rows of a damaged page explain that it is damaged.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use redb::{Key, TableDefinition, Value};

use super::layout::{LEAF, Widths, u16_at, u32_at};
use crate::store::file::panics::caught;
use crate::store::rows::{RowName, RowsDefinition, is_row_good, is_row_marked, mark_row};
use crate::store::schema::{CONTENT, EachTable, each_table};

/// What a row may have ahead of its document.
const ROW_HEAD_BYTES_MAX: usize = 24;

/// A table, as the tree of tables describes it.
pub(super) struct Table<'a> {
    pub(super) name: &'a str,
    pub(super) widths: Widths,
    /// Of redb's own.
    pub(super) is_own: bool,
}

impl Table<'_> {
    /// Shows the rows of a leaf whose checksum is right: it covers the name of the table and the key.
    pub(super) fn good_rows(&self, page: &[u8], show: &mut dyn FnMut(&[u8], &[u8])) {
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
    /// row is one of another table; and of several rows at least one is good, or says that it is damaged, while a single one
    /// has the shape of a document. A page that lies in the place of another explains nothing, even if its rows are good.
    pub(super) fn damaged_rows(&self, page: &[u8], span: &Span) -> Option<Vec<Vec<u8>>> {
        self.rows_of_leaf(page, span).filter(|damaged| !damaged.is_empty())
    }

    /// The keys of the damaged rows of a leaf of which these parts are guessed, if it can be the one that was written.
    /// Afterwards a row that touches them has a wrong checksum, and so has every row if what leads to them is guessed.
    pub(super) fn unvouched_rows(
        &self,
        page: &mut [u8],
        span: &Span,
        guessed: &[Range<usize>],
    ) -> Option<Vec<Vec<u8>>> {
        let mut damaged = self.rows_of_leaf(page, span).filter(|_| !guessed.is_empty())?;
        let (_, _, head) = self.widths.row(page, 0)?;
        let touches = |from: usize, to: usize| guessed.iter().any(|part| part.start < to && from < part.end);
        let is_all = touches(0, head);
        for n in 0..u16_at(page, 2)? {
            let (key, row, from) = self.widths.row(page, n)?;
            let to = from + row.len();
            if !(is_all || touches(from, to)) {
                continue;
            }
            let (key, is_good) = (key.to_owned(), is_row_good(self.name, key, row));
            mark_row(self.name, &key, page.get_mut(from..to)?);
            damaged.extend(is_good.then_some(key));
        }
        Some(damaged)
    }

    fn rows_of_leaf(&self, page: &[u8], span: &Span) -> Option<Vec<Vec<u8>>> {
        let tables = checksums();
        let compare = tables.get(self.name).filter(|_| !self.is_own && page.first() == Some(&LEAF))?;
        let count = u16_at(page, 2)?;
        let (mut damaged, mut before) = (Vec::new(), span.after.as_deref());
        let (mut is_likely, mut is_marked) = (false, false);
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
            if is_row_marked(self.name, key, row) {
                is_marked = true;
                damaged.push(key.to_owned());
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
        let is_any_good = damaged.len() < count || is_marked || (count == 1 && is_likely);
        (is_last_in_span && is_any_good).then_some(damaged)
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
pub(super) struct Span {
    pub(super) after: Option<Vec<u8>>,
    pub(super) to: Option<Vec<u8>>,
}

/// How the keys of a table are ordered.
pub(super) type Compare = fn(&[u8], &[u8]) -> Ordering;

/// The tables whose rows have checksums.
pub(super) fn checksums() -> BTreeMap<&'static str, Compare> {
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
