//! Floor 1. Deletes that have not reached the centre, and the accounts of their records.

use std::collections::BTreeSet;

use redb::ReadableTable;

use crate::domain::record::{RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{BaseRow, Checked, DELETE_RANK_MIN, RowKey, kind_of, row_key};
use crate::store::schema::{BASE, DIRTY};

impl Tx<'_> {
    /// Records deleted here that the centre still has, with their place in the push order.
    pub fn pending_deletes(&self) -> Result<Vec<(RecordKey, u64)>, StoreError> {
        deletes_in(&self.dirty)
    }

    /// The accounts whose records were deleted here while the centre has them still, folded.
    pub fn accounts_of_pending_deletes(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut accounts = BTreeSet::new();
        for (key, _) in self.pending_deletes()? {
            accounts.extend(account_deleted_from(&self.base, &key)?);
        }
        Ok(accounts)
    }

    /// Whether `account` is one of [`Tx::accounts_of_pending_deletes`].
    pub fn has_pending_deletes_of(&self, account: &str) -> Result<bool, StoreError> {
        let account = fold_account(account);
        for entry in self.dirty.range((DELETE_RANK_MIN, 0, 0, "")..)? {
            let (at, _) = entry?;
            let (_, _, code, id) = at.value();
            let owner = account_deleted_from(&self.base, &RecordKey::new(kind_of(code)?, id))?;
            if owner.is_some_and(|owner| owner == account) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Snapshot {
    /// Records deleted here that the centre still has, with their place in the push order.
    pub fn pending_deletes(&self) -> Result<Vec<(RecordKey, u64)>, StoreError> {
        deletes_in(&self.transaction.open_table(DIRTY)?)
    }

    /// Whose these records were, which were deleted here and are not yet at the centre; accounts, folded.
    pub fn accounts_of(&self, deleted: &[RecordKey]) -> Result<BTreeSet<String>, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let accounts = deleted.iter().filter_map(|key| account_deleted_from(&base, key).transpose());
        accounts.collect()
    }
}

/// Whose a record was that was deleted here while the centre has it still, folded. What cannot be read is not sent, and is told
/// otherwise.
fn account_deleted_from<T: ReadableTable<RowKey, &'static [u8]>>(
    base: &Checked<T, RowKey>,
    key: &RecordKey,
) -> Result<Option<String>, StoreError> {
    let schema = key.kind.schema();
    let Owner::Field(_) = schema.owner else {
        return Ok(None);
    };
    let owner = |bytes: &[u8]| -> Result<Option<String>, StoreError> {
        Ok(BaseRow::body(bytes)?.and_then(|body| schema.owner_in(body)))
    };
    let row = base.get(row_key(key)).and_then(|row| row.map(|row| owner(row.value())).transpose());
    Ok(unless_damaged(row)?.flatten().flatten())
}

fn deletes_in(
    dirty: &impl ReadableTable<(u8, u64, u8, &'static str), (i64, &'static str)>,
) -> Result<Vec<(RecordKey, u64)>, StoreError> {
    let mut found = Vec::new();
    for entry in dirty.range((DELETE_RANK_MIN, 0, 0, "")..)? {
        let (at, _) = entry?;
        let (_, sequence, code, id) = at.value();
        found.push((RecordKey::new(kind_of(code)?, id), sequence));
    }
    Ok(found)
}
