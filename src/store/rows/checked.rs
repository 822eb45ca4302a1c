//! Floor 1. Rows that end in a checksum, so that rot is noticed wherever a row is read.
//!
//! A row is its value followed by four bytes: the CRC-32 of the table's name, the key and the value, in little endian.
//! A CRC finds every flipped bit and every run of up to 32 damaged bits for certain, and anything else but for one case
//! in four billion; key and table are part of it, so a row that came to lie under another key is found too. Processors
//! compute it as fast as they read memory (`crc32fast`, which the gzip of the Rust world rests on), in one pass.
//!
//! Tables of such rows have a type of their own, [`Checked`], and redb's is private to this file: nobody reads a
//! row and forgets its checksum. What is found is kept in the [`Ledger`], for whoever looks after the store.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use redb::{AccessGuard, ReadOnlyTable, ReadableTable, Table};

use super::ledger::Ledger;
use super::names::{RowKey, RowName};
use super::sums::{SUM_BYTES, sum};
use crate::domain::record::Kind;
use crate::store::error::{DamagedRow, StoreError};

/// An open table of rows with checksums.
pub(crate) struct Checked<T, K> {
    table: T,
    name: &'static str,
    /// Begun with the table's name.
    seed: crc32fast::Hasher,
    ledger: Arc<Ledger>,
    key: PhantomData<fn() -> K>,
}

/// A table of rows that can be read.
pub(crate) type Rows<'t, K> = Checked<Table<'t, K, &'static [u8]>, K>;

/// A row whose checksum is right.
pub(crate) struct Row<'a>(AccessGuard<'a, &'static [u8]>);

impl Row<'_> {
    pub(crate) fn value(&self) -> &[u8] {
        let row = self.0.value();
        row.get(..row.len().saturating_sub(SUM_BYTES)).unwrap_or_default()
    }
}

type Entry<'a, K> = (AccessGuard<'a, K>, Row<'a>);

impl<T, K: RowName> Checked<T, K> {
    /// `seed`: a checksum begun with the table's name.
    pub(super) fn new(table: T, name: &'static str, seed: crc32fast::Hasher, ledger: Arc<Ledger>) -> Self {
        Checked { table, name, seed, ledger, key: PhantomData }
    }

    fn sum(&self, key: &K::SelfType<'_>, value: &[u8]) -> [u8; SUM_BYTES] {
        sum(self.seed.clone(), K::as_bytes(key).as_ref(), value)
    }

    /// As people know the row.
    fn named(&self, key: &K::SelfType<'_>) -> DamagedRow {
        let (code, id) = K::row_name(key);
        DamagedRow { table: self.name.to_owned(), kind: code.and_then(Kind::from_code), id }
    }

    fn damaged(&self, key: &K::SelfType<'_>) -> StoreError {
        let row = self.named(key);
        self.ledger.note(row.clone());
        StoreError::DamagedRow(Box::new(row))
    }

    fn open<'a>(
        &self,
        key: &K::SelfType<'_>,
        row: AccessGuard<'a, &'static [u8]>,
    ) -> Result<Row<'a>, StoreError> {
        match row.value().split_last_chunk::<SUM_BYTES>() {
            Some((value, sum)) if self.sum(key, value) == *sum => Ok(Row(row)),
            _ => Err(self.damaged(key)),
        }
    }

    /// A failed read that shows that the bytes are not those that were written (a sealed block that does not open) is
    /// damage of this row, as far as anybody can tell.
    fn failed(&self, key: &K::SelfType<'_>, error: redb::StorageError) -> StoreError {
        match &error {
            redb::StorageError::Io(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                self.damaged(key)
            }
            _ => error.into(),
        }
    }
}

impl<K: RowName, T: ReadableTable<K, &'static [u8]>> Checked<T, K> {
    pub(crate) fn get<'k>(&self, key: impl Borrow<K::SelfType<'k>>) -> Result<Option<Row<'_>>, StoreError> {
        let key = key.borrow();
        let found = self.table.get(key).map_err(|error| self.failed(key, error))?;
        found.map(|row| self.open(key, row)).transpose()
    }

    /// The value of a row, whatever it is worth.
    pub(crate) fn unchecked_value<'k>(
        &self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.unchecked(key)?;
        Ok(row.map(|mut row| {
            row.truncate(row.len().saturating_sub(SUM_BYTES));
            row
        }))
    }

    /// A row as it stands in the file, whatever it is worth, for what keeps damaged rows.
    pub(crate) fn unchecked<'k>(
        &self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.table.get(key)?.map(|row| row.value().to_vec()))
    }

    /// Whether there is a row, good or damaged.
    pub(crate) fn contains<'k>(&self, key: impl Borrow<K::SelfType<'k>>) -> Result<bool, StoreError> {
        Ok(self.table.get(key)?.is_some())
    }

    /// Whether there is a row, and it is damaged.
    pub(crate) fn is_damaged<'k>(&self, key: impl Borrow<K::SelfType<'k>>) -> Result<bool, StoreError> {
        match self.get(key) {
            Ok(_) => Ok(false),
            Err(StoreError::DamagedRow(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether any row of the store is known to be damaged.
    pub(crate) fn has_damage(&self) -> bool {
        !self.ledger.is_empty()
    }

    /// Whether rows of this table may be damaged, or missing, of which nobody knows the names.
    pub(crate) fn has_unnamed_damage(&self) -> bool {
        self.ledger.has_unnamed_of(self.name)
    }

    /// What stands first in the keys of the rows of this table that are known to be damaged.
    pub(crate) fn damaged_ids(&self) -> Vec<String> {
        let rows = self.ledger.rows().into_iter();
        rows.filter(|row| row.table == self.name).map(|row| row.id).collect()
    }

    /// Whether this row is known to be damaged, or to be missing.
    pub(crate) fn is_noted<'k>(&self, key: impl Borrow<K::SelfType<'k>>) -> bool {
        self.ledger.has(&self.named(key.borrow()))
    }

    /// Notes a row that should be there and is not.
    pub(crate) fn missing<'k>(&self, key: impl Borrow<K::SelfType<'k>>) -> StoreError {
        self.damaged(key.borrow())
    }

    /// The bytes of the keys of all damaged rows.
    pub(crate) fn all_damaged(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut damaged = Vec::new();
        for key in self.keys::<K::SelfType<'_>>(..)? {
            let key = key?;
            if self.is_damaged(key.value())? {
                damaged.push(K::as_bytes(&key.value()).as_ref().to_vec());
            }
        }
        Ok(damaged)
    }

    /// The bytes of the keys of damaged rows with this name.
    pub(crate) fn damaged_named(&self, kind: Option<Kind>, id: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut damaged = Vec::new();
        for (from, to) in K::named(kind, id) {
            for key in self.keys(from..=to)? {
                let key = key?;
                if self.is_damaged(key.value())? {
                    damaged.push(K::as_bytes(&key.value()).as_ref().to_vec());
                }
            }
        }
        Ok(damaged)
    }

    pub(crate) fn range<'k, KR>(
        &self,
        range: impl RangeBounds<KR> + 'k,
    ) -> Result<RowRange<'_, T, K>, StoreError>
    where
        KR: Borrow<K::SelfType<'k>> + 'k,
    {
        Ok(RowRange { rows: self, range: self.table.range(range)? })
    }

    pub(crate) fn iter(&self) -> Result<RowRange<'_, T, K>, StoreError> {
        Ok(RowRange { rows: self, range: self.table.iter()? })
    }

    /// The keys in a range, whatever their rows are worth.
    pub(crate) fn keys<'k, KR>(
        &self,
        range: impl RangeBounds<KR> + 'k,
    ) -> Result<impl DoubleEndedIterator<Item = Result<AccessGuard<'_, K>, StoreError>>, StoreError>
    where
        KR: Borrow<K::SelfType<'k>> + 'k,
    {
        Ok(self.table.range(range)?.map(|entry| Ok(entry?.0)))
    }

    /// Keys and lengths of rows in a range, each of which is checked; one that is damaged is noted and counts as well.
    pub(crate) fn lengths<'k, KR>(
        &self,
        range: impl RangeBounds<KR> + 'k,
    ) -> Result<impl Iterator<Item = Result<(AccessGuard<'_, K>, u64), StoreError>>, StoreError>
    where
        KR: Borrow<K::SelfType<'k>> + 'k,
    {
        Ok(self.table.range(range)?.map(|entry| {
            let (key, row) = entry?;
            let length = row.value().len() as u64;
            match self.open(&key.value(), row) {
                Ok(_) | Err(StoreError::DamagedRow(_)) => {}
                Err(error) => return Err(error),
            }
            Ok((key, length))
        }))
    }

    pub(crate) fn first(&self) -> Result<Option<Entry<'_, K>>, StoreError> {
        self.table.first()?.map(|entry| self.open_entry(entry)).transpose()
    }

    fn open_entry<'a>(
        &self,
        (key, row): (AccessGuard<'a, K>, AccessGuard<'a, &'static [u8]>),
    ) -> Result<Entry<'a, K>, StoreError> {
        let row = self.open(&key.value(), row)?;
        Ok((key, row))
    }

    pub(crate) fn len(&self) -> Result<u64, StoreError> {
        Ok(self.table.len()?)
    }

    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.table.is_empty()?)
    }
}

impl<T: ReadableTable<u64, &'static [u8]>> Checked<T, u64> {
    /// The last number of rows that are counted. Damaged rows at the end count as far as their numbers follow: one far
    /// behind is another's number, damaged.
    pub(crate) fn last_number(&self) -> Result<Option<u64>, StoreError> {
        let (mut damaged, mut last) = (Vec::new(), None);
        for entry in self.table.iter()?.rev() {
            let (number, row) = entry?;
            let number = number.value();
            match self.open(&number, row) {
                Ok(_) => {
                    last = Some(number);
                    break;
                }
                Err(StoreError::DamagedRow(_)) => damaged.push(number),
                Err(error) => return Err(error),
            }
        }
        let mut last = last.or(damaged.last().copied());
        for number in damaged.into_iter().rev() {
            if last.is_some_and(|last| last.checked_add(1) == Some(number)) {
                last = Some(number);
            }
        }
        Ok(last)
    }
}

impl<K: RowName> Checked<Table<'_, K, &'static [u8]>, K> {
    pub(crate) fn insert<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let key = key.borrow();
        let mut row = Vec::with_capacity(value.len() + SUM_BYTES);
        row.extend_from_slice(value);
        row.extend_from_slice(&self.sum(key, value));
        self.table.insert(key, row.as_slice())?;
        Ok(())
    }

    /// Writes a row that every reader refuses, for a value that nobody knows any more.
    pub(crate) fn insert_damaged<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let key = key.borrow();
        let mut row = value.to_vec();
        row.extend(self.sum(key, value).map(|byte| !byte));
        self.table.insert(key, row.as_slice())?;
        self.damaged(key);
        Ok(())
    }

    /// Removes a row, whatever it is worth; returns whether there was one.
    pub(crate) fn remove<'k>(&mut self, key: impl Borrow<K::SelfType<'k>>) -> Result<bool, StoreError> {
        Ok(self.table.remove(key)?.is_some())
    }

    /// Removes a row that is good; returns its value.
    pub(crate) fn take<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.borrow();
        let value = self.get(key)?.map(|row| row.value().to_vec());
        if value.is_some() {
            self.remove(key)?;
        }
        Ok(value)
    }

    #[cfg(test)]
    pub(crate) fn pop_first(&mut self) -> Result<Option<()>, StoreError> {
        Ok(self.table.pop_first()?.map(|_| ()))
    }

    pub(crate) fn clear(&mut self) -> Result<(), StoreError> {
        Ok(self.table.retain(|_, _| false)?)
    }

    pub(crate) fn remove_range<'k, KR>(&mut self, range: impl RangeBounds<KR> + 'k) -> Result<(), StoreError>
    where
        KR: Borrow<K::SelfType<'k>> + 'k,
    {
        Ok(self.table.retain_in(range, |_, _| false)?)
    }
}

/// Rows in order of their keys.
pub(crate) struct RowRange<'a, T, K: RowName> {
    rows: &'a Checked<T, K>,
    range: redb::Range<'a, K, &'static [u8]>,
}

impl<'a, T: ReadableTable<K, &'static [u8]>, K: RowName> RowRange<'a, T, K> {
    /// Passes over rows that are damaged, which the ledger has then, so that one of them does not keep anybody from the
    /// others.
    pub(crate) fn sound(self) -> impl DoubleEndedIterator<Item = Result<Entry<'a, K>, StoreError>> {
        self.filter(|entry| !matches!(entry, Err(StoreError::DamagedRow(_))))
    }
}

impl<'a, T: ReadableTable<K, &'static [u8]>, K: RowName> Iterator for RowRange<'a, T, K> {
    type Item = Result<Entry<'a, K>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.range.next()?.map_err(StoreError::from).and_then(|entry| self.rows.open_entry(entry)))
    }
}

impl<T: ReadableTable<K, &'static [u8]>, K: RowName> DoubleEndedIterator for RowRange<'_, T, K> {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.range.next_back()?.map_err(StoreError::from).and_then(|entry| self.rows.open_entry(entry)))
    }
}

/// Ids of a kind after `after` up to `up_to` (or the end).
pub(crate) fn ids_between(
    rows: &Checked<ReadOnlyTable<RowKey, &'static [u8]>, RowKey>,
    kind: Kind,
    after: Option<&str>,
    up_to: Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let code = kind.schema().code;
    let mut ids = Vec::new();
    for at in rows.keys((code, after.unwrap_or(""))..(code + 1, ""))? {
        let at = at?;
        let (_, id) = at.value();
        if up_to.is_some_and(|up_to| id > up_to) {
            break;
        }
        if after != Some(id) {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}
