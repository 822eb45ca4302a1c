//! Floor 1. For whom waiting records and conflicts were meant, where their person changes step by step.
//!
//! A person is held when two of the fields by which people are told apart change. Somebody may change one after the other,
//! with a round between; in the end it is still another person than the one for whom waiting records were written.

use bson::Document;

use super::departed::identity_row;
use crate::domain::merge::{identity_differences, unknown_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{decode, encode};
use crate::store::schema::MEANT;

impl Tx<'_> {
    /// For whom what waits under an account was meant, if a field of theirs has changed since: the fields by which people
    /// are told apart.
    pub fn meant(&self, account: &str) -> Result<Option<Document>, StoreError> {
        let row = match self.meant.get(fold_account(account).as_str()) {
            // Nobody agrees with somebody of whom nothing is known.
            Err(StoreError::DamagedRow(_)) => Some(unknown_identity()),
            Ok(None) if self.is_meant_lost(account)? => Some(unknown_identity()),
            row => row?.map(|row| decode(row.value())).transpose()?,
        };
        Ok(if row.is_some() && self.awaits(account)? { row } else { None })
    }

    /// The person in `key` changes from `before` to `after` and is taken for the same one. If anything waits for them, it
    /// was meant for the one before.
    pub fn note_meant(
        &mut self,
        key: &RecordKey,
        before: &Document,
        after: &Document,
    ) -> Result<(), StoreError> {
        let account = fold_account(&key.id);
        if identity_differences(before, after) == 0 {
            return Ok(());
        }
        let is_known = self.meant.contains(account.as_str())?;
        match (self.awaits(&account)?, is_known) {
            (true, false) => {
                let row = encode(&identity_row(before))?;
                self.meant.insert(account.as_str(), row.as_slice())?;
                self.wrote();
                Ok(())
            }
            (false, true) => self.forget_meant(&account),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// Something of this record begins to wait. If nothing has waited for its person until now, what was noted of them is
    /// about what was sent long ago.
    pub(in crate::store) fn begin_to_wait(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.meant.is_empty()? {
            return Ok(());
        }
        let account = match key.kind {
            Kind::Person => Some(key.id.clone()),
            _ => unless_damaged(self.owner(key))?.flatten(),
        };
        if let Some(account) = account
            && self.meant.contains(fold_account(&account).as_str())?
            // What cannot be read may wait.
            && !unless_damaged(self.awaits(&account))?.unwrap_or(true)
        {
            self.forget_meant(&account)?;
        }
        Ok(())
    }

    /// It is decided who has the account, or it is another one's now.
    pub fn forget_meant(&mut self, account: &str) -> Result<(), StoreError> {
        if self.meant.remove(fold_account(account).as_str())? {
            self.wrote();
        }
        Ok(())
    }

    /// Whether an unsent edit or an open conflict of a person, or of a record of theirs, waits.
    pub(in crate::store) fn awaits(&self, account: &str) -> Result<bool, StoreError> {
        let mut keys = self.dependents(account)?;
        keys.extend(self.spellings(account)?.into_iter().map(|id| RecordKey::new(Kind::Person, id)));
        for key in keys {
            if !self.is_clean(&key)? || self.has_open_conflicts(&key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Snapshot {
    /// [`Tx::meant`], where something is known to wait.
    pub fn meant(&self, account: &str) -> Result<Option<Document>, StoreError> {
        match self.transaction.open_table(MEANT)?.get(fold_account(account).as_str()) {
            Err(StoreError::DamagedRow(_)) => Ok(Some(unknown_identity())),
            Ok(None) if self.is_meant_lost(account)? => Ok(Some(unknown_identity())),
            row => row?.map(|row| decode(row.value())).transpose(),
        }
    }
}
