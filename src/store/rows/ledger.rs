//! Floor 1. Damaged rows that somebody came upon.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::error::DamagedRow;

/// What stands for the id where pages of a table are damaged.
pub(crate) const PAGES: &str = "(pages)";
/// Most damaged rows that are kept by name; a store with more of them is beyond a list.
const LEDGER_ROWS_MAX: usize = 1_000;

/// Rows that were found damaged by any read.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: Mutex<BTreeSet<DamagedRow>>,
    /// Those that were known when it was last asked what is news.
    seen: Mutex<BTreeSet<DamagedRow>>,
    /// How often a row was noted or forgotten.
    changes: AtomicU64,
}

impl Ledger {
    fn locked(&self) -> MutexGuard<'_, BTreeSet<DamagedRow>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, row: DamagedRow) {
        let mut rows = self.locked();
        // Of broken pages there is one for each table, and as long as one is known nothing is deleted.
        if (rows.len() < LEDGER_ROWS_MAX || row.id == PAGES) && rows.insert(row.clone()) {
            self.changes.fetch_add(1, Ordering::Release);
            let kind = row.kind.map_or("", |kind| kind.schema().collection);
            tracing::error!(
                table = row.table,
                kind,
                "a stored row is damaged; `thalamus-edge doctor` names it"
            );
        }
    }

    /// Another one whenever a row was noted or forgotten.
    pub(crate) fn number(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    pub(crate) fn has(&self, row: &DamagedRow) -> bool {
        self.locked().contains(row)
    }

    /// Whether a row of this table is damaged.
    pub(crate) fn has_of(&self, table: &str) -> bool {
        self.locked().iter().any(|row| row.table == table)
    }

    /// Whether rows of this table may be damaged, or missing, of which nobody knows the names.
    pub(crate) fn has_unnamed_of(&self, table: &str) -> bool {
        let rows = self.locked();
        rows.len() >= LEDGER_ROWS_MAX || rows.iter().any(|row| row.table == table && row.id == PAGES)
    }

    /// Whether a row of this table has become known since this was asked last.
    pub(crate) fn is_news(&self, table: &str) -> bool {
        let rows: BTreeSet<DamagedRow> =
            self.locked().iter().filter(|row| row.table == table).cloned().collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = !rows.is_subset(&seen);
        seen.retain(|row| row.table != table);
        seen.extend(rows);
        is_news
    }

    /// It is whole again, or gone.
    pub(crate) fn forget(&self, row: &DamagedRow) {
        if self.locked().remove(row) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn rows(&self) -> Vec<DamagedRow> {
        self.locked().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_pages_are_noted_however_many_rows_are_damaged() {
        let ledger = Ledger::default();
        let row = |id: String| DamagedRow { table: "docs".to_owned(), kind: None, id };
        for n in 0..2 * LEDGER_ROWS_MAX {
            ledger.note(row(n.to_string()));
        }
        assert_eq!(ledger.rows().len(), LEDGER_ROWS_MAX);
        ledger.note(row(PAGES.to_owned()));
        assert!(ledger.rows().iter().any(|row| row.id == PAGES));
    }
}
