//! Floor 1. Whether a person may be deleted on this node: one rule for requests, commands and decisions, also those in rows
//! of the centre. It is asked in the transaction that would delete them.

use std::sync::atomic::Ordering;

use bson::Document;

use crate::domain::active::{ActiveFromCentre, is_active, is_open_here};
use crate::domain::merge::is_unknown;
use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::{Store, Tx};
use crate::store::error::StoreError;
use crate::store::rows::Base;

/// Why a person may not be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stays {
    /// It is to be decided first who they are: the conflict that waits for that.
    Held { conflict: String },
    /// Somebody else was written over the one whom the centre has, and the next round asks about that.
    Rewritten,
    /// They can log in here.
    LogsIn,
    /// They have records of their own.
    HasRecords,
}

impl Tx<'_> {
    /// Whether the account of this person is open on this node.
    pub fn is_account_open(&self, id: &str, person: &Document) -> Result<bool, StoreError> {
        let counts = match self.carry.ignores_active.load(Ordering::Relaxed) {
            true => ActiveFromCentre::Ignore,
            false => ActiveFromCentre::Honour,
        };
        Ok(is_open_here(counts, is_active(person), self.closing(id)?))
    }

    /// Why this person may not be deleted, if anything is in the way.
    pub fn why_stays(&self, id: &str, person: &Document) -> Result<Option<Stays>, StoreError> {
        if let Some(hold) = self.hold(id)? {
            return Ok(Some(Stays::Held { conflict: hold.conflict }));
        }
        let key = RecordKey::new(Kind::Person, id);
        // Once somebody has said that the two are one, nothing is noted any more.
        let is_noted = self.written_over(id)?.is_some() || self.is_made_anew(id)?;
        if let Some(Base::Document(agreed)) = self.base_if_dirty(&key)?
            && is_noted
            && !agreed.is_empty()
            && !is_unknown(&agreed)
            && self.is_rewritten(&key, &agreed, person)?
        {
            return Ok(Some(Stays::Rewritten));
        }
        if self.is_account_open(id, person)? {
            return Ok(Some(Stays::LogsIn));
        }
        Ok(self.has_dependents(id)?.then_some(Stays::HasRecords))
    }
}

impl Store {
    /// What counts of accounts that came here inactive (`accounts.active_from_centre`); at first they are closed.
    pub fn set_active_from_centre(&self, counts: ActiveFromCentre) {
        self.inner.engine.ignores_active.store(counts == ActiveFromCentre::Ignore, Ordering::Relaxed);
    }
}
