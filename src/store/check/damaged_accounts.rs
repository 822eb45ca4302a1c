//! Floor 1. Whose account a damaged row was about, and for whom it is in the way.
//!
//! Rows of `departed`, `meant` and `newcomer` stand under an account. One that is damaged is in the way of its own account and
//! of no other. Two things say which that is:
//!
//! | key | value | the row may be of |
//! |---|---|---|
//! | whatever it is | can be read, and names its account | that account, and that of the key |
//! | an account of which the node knows anything | cannot be read | that account |
//! | nobody's | cannot be read | every account that has no row of its own |

use std::collections::BTreeSet;

use bson::Document;
use redb::ReadableTable;

use crate::domain::record::{Kind, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::holders::owned;
use crate::store::rows::{Checked, decode};
use crate::store::schema::{BY_OWNER, DEPARTED, HELD_OF, MEANT, TRASH_ORDER};

/// Of which account a damaged row may be.
#[derive(Debug, PartialEq)]
pub(in crate::store) enum RowOf {
    /// Of one of these, folded.
    Accounts(BTreeSet<String>),
    /// Of anybody's who has no row.
    Anybody,
}

impl RowOf {
    pub(in crate::store) fn may_be(&self, account: &str) -> bool {
        match self {
            RowOf::Accounts(accounts) => accounts.contains(account),
            RowOf::Anybody => true,
        }
    }
}

/// The accounts that can be read in what is left of a row.
pub(in crate::store) fn accounts_in(left: &[u8]) -> BTreeSet<String> {
    let Ok(row) = decode(left) else {
        return BTreeSet::new();
    };
    let inner = ["identity", "document", "gone", "local", "central"];
    let inner = inner.into_iter().filter_map(|field| row.get_document(field).ok());
    let named = inner.chain([&row]).flat_map(|row: &Document| {
        let fields = ["_id", "id", "account", "local", "remote", "book", "fedacct", "person"];
        fields.into_iter().filter_map(|field| row.get_str(field).ok())
    });
    named.filter(|named| !named.is_empty()).map(fold_account).collect()
}

/// Of whom a damaged row with this key is; `left` is what there is of its value.
fn row_of(
    key: &str,
    left: &[u8],
    is_known: impl FnOnce(&str) -> Result<bool, StoreError>,
) -> Result<RowOf, StoreError> {
    let key = fold_account(key);
    let mut accounts = accounts_in(left);
    if accounts.is_empty() && !is_known(&key)? {
        return Ok(RowOf::Anybody);
    }
    accounts.insert(key);
    Ok(RowOf::Accounts(accounts))
}

/// Whether a row of this table that is known to be damaged may be the one of `account`, under whatever key.
fn is_lost_in<T: ReadableTable<&'static str, &'static [u8]>>(
    rows: &Checked<T, &'static str>,
    account: &str,
    is_known: impl Fn(&str) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    if rows.has_unnamed_damage() {
        return Ok(true);
    }
    let account = fold_account(account);
    for key in rows.damaged_ids() {
        if rows.is_damaged(key.as_str())? {
            let left = rows.unchecked_value(key.as_str())?.unwrap_or_default();
            if row_of(&key, &left, &is_known)?.may_be(&account) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the node knows anything of an account: somebody has it, or records name it, or wait for it, or its person was
/// deleted.
fn is_account_known(
    spellings: impl FnOnce() -> Result<Vec<String>, StoreError>,
    by_owner: &impl ReadableTable<(u8, &'static str, &'static str), ()>,
    held_of: &impl ReadableTable<(&'static str, u8, &'static str), ()>,
    trash_order: &impl ReadableTable<(u64, u8, &'static str), ()>,
    account: &str,
) -> Result<bool, StoreError> {
    if !spellings()?.is_empty() {
        return Ok(true);
    }
    for kind in Kind::ALL {
        if !owned(by_owner, kind, account)?.is_empty() {
            return Ok(true);
        }
    }
    if let Some(entry) = held_of.range((account, 0, "")..)?.next()
        && entry?.0.value().0 == account
    {
        return Ok(true);
    }
    let code = Kind::Person.schema().code;
    for entry in trash_order.iter()? {
        let at = entry?.0;
        let (_, of, id) = at.value();
        if of == code && fold_account(id) == account {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Tx<'_> {
    fn is_account_known(&self, account: &str) -> Result<bool, StoreError> {
        let spellings = || self.spellings(account);
        is_account_known(spellings, &*self.by_owner, &self.held_of, &self.trash_order, account)
    }

    /// Of whom a damaged row is that stood under this account.
    pub(in crate::store) fn row_of(&self, key: &str, left: &[u8]) -> Result<RowOf, StoreError> {
        row_of(key, left, |account| self.is_account_known(account))
    }

    /// Whether it is not known any more who had this account, because the row that says it is damaged.
    pub(in crate::store) fn is_departed_lost(&self, account: &str) -> Result<bool, StoreError> {
        is_lost_in(&self.departed, account, |account| self.is_account_known(account))
    }

    /// The same for whom something was meant.
    pub(in crate::store) fn is_meant_lost(&self, account: &str) -> Result<bool, StoreError> {
        is_lost_in(&self.meant, account, |account| self.is_account_known(account))
    }

    /// The same for who came to share an account.
    pub(in crate::store) fn is_newcomer_lost(&self, account: &str) -> Result<bool, StoreError> {
        is_lost_in(&self.newcomer, account, |account| self.is_account_known(account))
    }
}

impl Snapshot {
    fn is_account_known(&self, account: &str) -> Result<bool, StoreError> {
        let by_owner = self.transaction.open_table(BY_OWNER)?;
        let held_of = self.transaction.open_table(HELD_OF)?;
        let trash_order = self.transaction.open_table(TRASH_ORDER)?;
        is_account_known(|| self.spellings(account), &by_owner, &held_of, &trash_order, account)
    }

    /// [`Tx::is_departed_lost`]
    pub(in crate::store) fn is_departed_lost(&self, account: &str) -> Result<bool, StoreError> {
        let departed = self.transaction.open_table(DEPARTED)?;
        is_lost_in(&departed, account, |account| self.is_account_known(account))
    }

    /// [`Tx::is_meant_lost`]
    pub(in crate::store) fn is_meant_lost(&self, account: &str) -> Result<bool, StoreError> {
        let meant = self.transaction.open_table(MEANT)?;
        is_lost_in(&meant, account, |account| self.is_account_known(account))
    }
}
