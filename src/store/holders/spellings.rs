//! Floor 1. People by the spellings of their account, and records by the account that they belong to.

use redb::ReadableTable;

use super::ownerless::NO_ACCOUNT;
use crate::domain::record::{Kind, fold_account};
use crate::store::engine::Snapshot;
use crate::store::error::StoreError;
use crate::store::rows::{Checked, RowKey};
use crate::store::schema::{BY_SPELLING, DOCS};

/// The stored spelling of an account: exact first, then canonical, then any that folds to the same.
pub(crate) fn resolve_person(
    docs: &Checked<impl ReadableTable<RowKey, &'static [u8]>, RowKey>,
    by_spelling: &impl ReadableTable<(&'static str, &'static str), ()>,
    id: &str,
) -> Result<Option<String>, StoreError> {
    let code = Kind::Person.schema().code;
    let canonical = fold_account(id);
    for spelling in [id, canonical.as_str()] {
        if docs.contains((code, spelling))? {
            return Ok(Some(spelling.to_owned()));
        }
    }
    let Some(entry) = by_spelling.range((canonical.as_str(), "")..)?.next() else {
        return Ok(None);
    };
    let (at, _) = entry?;
    let (found, spelling) = at.value();
    Ok((found == canonical).then(|| spelling.to_owned()))
}

/// The ids of all people of an account: the canonical one first.
pub(crate) fn spellings(
    docs: &Checked<impl ReadableTable<RowKey, &'static [u8]>, RowKey>,
    by_spelling: &impl ReadableTable<(&'static str, &'static str), ()>,
    account: &str,
) -> Result<Vec<String>, StoreError> {
    let canonical = fold_account(account);
    let mut found = Vec::new();
    if docs.contains((Kind::Person.schema().code, canonical.as_str()))? {
        found.push(canonical.clone());
    }
    for entry in by_spelling.range((canonical.as_str(), "")..)? {
        let (at, _) = entry?;
        let (of, id) = at.value();
        if of != canonical {
            break;
        }
        found.push(id.to_owned());
    }
    Ok(found)
}

/// The ids of the records of a kind that belong to an account.
pub(crate) fn owned(
    by_owner: &impl ReadableTable<(u8, &'static str, &'static str), ()>,
    kind: Kind,
    account: &str,
) -> Result<Vec<String>, StoreError> {
    let (code, account) = (kind.schema().code, fold_account(account));
    let mut ids = Vec::new();
    if account == NO_ACCOUNT {
        return Ok(ids);
    }
    for entry in by_owner.range((code, account.as_str(), "")..)? {
        let (at, _) = entry?;
        let (found_code, found_account, id) = at.value();
        if found_code != code || found_account != account {
            break;
        }
        ids.push(id.to_owned());
    }
    Ok(ids)
}

impl Snapshot {
    /// The ids of the people stored under an account, in whatever spelling.
    pub fn spellings(&self, account: &str) -> Result<Vec<String>, StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        spellings(&docs, &self.transaction.open_table(BY_SPELLING)?, account)
    }
}
