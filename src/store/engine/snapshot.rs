//! Floor 1. A consistent view of the store at one moment, shared by all who read between two commits.

use std::sync::{Arc, OnceLock};

use redb::ReadOnlyTable;

use super::kept::Shelf;
use super::tally::TallyShelf;
use crate::store::error::StoreError;
use crate::store::rows::{Checked, RowKey, View};
use crate::store::schema::DOCS;

/// A consistent view. Keep it short: pages that it sees cannot be reused while it lives.
pub struct Snapshot {
    pub(crate) transaction: View,
    /// Opened once, for all who share the view.
    pub(in crate::store) docs: OnceLock<Checked<ReadOnlyTable<RowKey, &'static [u8]>, RowKey>>,
    pub(in crate::store) owners: OnceLock<ReadOnlyTable<RowKey, &'static str>>,
    pub(crate) shelf: Shelf,
    pub(in crate::store) tally_shelf: Arc<TallyShelf>,
}

impl Snapshot {
    /// `tally_shelf`: that of the state that the view is of.
    pub(crate) fn new(transaction: View, tally_shelf: Arc<TallyShelf>) -> Self {
        let (docs, owners, shelf) = Default::default();
        Self { transaction, docs, owners, shelf, tally_shelf }
    }

    pub(in crate::store) fn docs(
        &self,
    ) -> Result<&Checked<ReadOnlyTable<RowKey, &'static [u8]>, RowKey>, StoreError> {
        match self.docs.get() {
            Some(docs) => Ok(docs),
            None => {
                let docs = self.transaction.open_table(DOCS)?;
                Ok(self.docs.get_or_init(|| docs))
            }
        }
    }
}
