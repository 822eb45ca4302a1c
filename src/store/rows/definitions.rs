//! Floor 1. Definitions of tables with checksums, and transactions that open them and note the damage that they find.

use std::marker::PhantomData;
use std::sync::Arc;

use redb::{
    Key, ReadOnlyTable, ReadTransaction, Table, TableDefinition, TableError, Value, WriteTransaction,
};

use super::checked::Checked;
use super::ledger::{Ledger, PAGES};
use super::names::RowName;
use super::sums::{SUM_BYTES, sum};
use crate::store::error::{DamagedRow, StoreError};

/// A table of rows with checksums.
pub(crate) struct RowsDefinition<K> {
    name: &'static str,
    key: PhantomData<fn() -> K>,
}

impl<K> Clone for RowsDefinition<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for RowsDefinition<K> {}

impl<K: RowName> RowsDefinition<K> {
    pub(crate) const fn new(name: &'static str) -> Self {
        RowsDefinition { name, key: PhantomData }
    }

    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// The table as redb has it, for what copies rows with their checksums or looks at a store of an earlier format.
    pub(crate) const fn raw(self) -> TableDefinition<'static, K, &'static [u8]> {
        TableDefinition::new(self.name)
    }

    /// A row as it stands in the file, by the bytes of its key.
    pub(crate) fn with_sum(self, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(value.len() + SUM_BYTES);
        row.extend_from_slice(value);
        row.extend_from_slice(&sum(self.seed(), key, value));
        row
    }

    /// A row that every reader refuses, for a value that nobody can vouch for.
    pub(crate) fn with_wrong_sum(self, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut row = value.to_vec();
        row.extend(sum(self.seed(), key, value).map(|byte| !byte));
        row
    }

    fn seed(self) -> crc32fast::Hasher {
        let mut seed = crc32fast::Hasher::new();
        seed.update(self.name.as_bytes());
        seed
    }

    fn over<T>(self, table: T, ledger: &Arc<Ledger>) -> Checked<T, K> {
        Checked::new(table, self.name, self.seed(), Arc::clone(ledger))
    }
}

/// Something that a transaction can open: a table of redb's, or one of rows with checksums.
pub(crate) trait Openable {
    type Read;
    type Write<'t>;
    fn open_read(self, transaction: &ReadTransaction, ledger: &Arc<Ledger>)
    -> Result<Self::Read, TableError>;
    fn open_write<'t>(
        self,
        transaction: &'t WriteTransaction,
        ledger: &Arc<Ledger>,
    ) -> Result<Self::Write<'t>, TableError>;
}

impl<K: Key + 'static, V: Value + 'static> Openable for TableDefinition<'static, K, V> {
    type Read = ReadOnlyTable<K, V>;
    type Write<'t> = Table<'t, K, V>;

    fn open_read(self, transaction: &ReadTransaction, _: &Arc<Ledger>) -> Result<Self::Read, TableError> {
        transaction.open_table(self)
    }

    fn open_write<'t>(
        self,
        transaction: &'t WriteTransaction,
        _: &Arc<Ledger>,
    ) -> Result<Self::Write<'t>, TableError> {
        transaction.open_table(self)
    }
}

impl<K: RowName> Openable for RowsDefinition<K> {
    type Read = Checked<ReadOnlyTable<K, &'static [u8]>, K>;
    type Write<'t> = Checked<Table<'t, K, &'static [u8]>, K>;

    fn open_read(
        self,
        transaction: &ReadTransaction,
        ledger: &Arc<Ledger>,
    ) -> Result<Self::Read, TableError> {
        Ok(self.over(transaction.open_table(self.raw())?, ledger))
    }

    fn open_write<'t>(
        self,
        transaction: &'t WriteTransaction,
        ledger: &Arc<Ledger>,
    ) -> Result<Self::Write<'t>, TableError> {
        Ok(self.over(transaction.open_table(self.raw())?, ledger))
    }
}

/// A transaction that reads, and where damage that it finds is noted.
pub(crate) struct View {
    transaction: ReadTransaction,
    ledger: Arc<Ledger>,
}

impl View {
    pub(crate) fn new(transaction: ReadTransaction, ledger: Arc<Ledger>) -> View {
        View { transaction, ledger }
    }

    pub(crate) fn open_table<D: Openable>(&self, definition: D) -> Result<D::Read, TableError> {
        definition.open_read(&self.transaction, &self.ledger)
    }

    /// Whether any row is known to be damaged.
    pub(crate) fn has_damage(&self) -> bool {
        !self.ledger.is_empty()
    }

    /// Whether any row of this table is known to be damaged.
    pub(crate) fn has_damage_in(&self, table: &str) -> bool {
        self.ledger.has_of(table)
    }

    /// Notes a row that should be there and is not.
    pub(crate) fn missing(&self, row: DamagedRow) -> StoreError {
        self.ledger.note(row.clone());
        StoreError::DamagedRow(Box::new(row))
    }

    /// A table of which rows may be missing that nobody knows of.
    pub(crate) fn broken_pages(&self) -> Option<DamagedRow> {
        self.ledger.rows().into_iter().find(|row| row.id == PAGES)
    }

    /// Another one whenever damage was noted or forgotten.
    pub(crate) fn damage_number(&self) -> u64 {
        self.ledger.number()
    }

    pub(crate) fn redb(&self) -> &ReadTransaction {
        &self.transaction
    }
}

/// Opens a table for writing.
pub(crate) fn open_for_writing<'t, D: Openable>(
    transaction: &'t WriteTransaction,
    ledger: &Arc<Ledger>,
    definition: D,
) -> Result<D::Write<'t>, TableError> {
    definition.open_write(transaction, ledger)
}
