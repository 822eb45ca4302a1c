//! Floor 1. Who stays in place of a person whose rows are set aside.
//!
//! Records name their person by account, and somebody else may come to have it. So setting a person aside must not forget
//! whose the remaining records are: as long as records of theirs are not as the centre has them, or a question about them
//! is open, somebody stays in their place. That is the record itself if it can be read, or what was last agreed about
//! it, or somebody of whom nothing is known but the account, with whom nobody agrees ([`unknown_identity`]). They cannot
//! log in, and nothing of them is an edit. The reconciliation compares them with the centre's person as it does everybody,
//! so the records wait until somebody has decided.

use std::collections::BTreeSet;

use bson::{Document, doc};
use redb::ReadableTable as _;

use super::damaged_accounts::RowOf;
use crate::domain::access::Actor;
use crate::domain::merge::{IDENTITY_FIELDS, same_identity, unknown_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::conflicts::{Hold, HoldReason};
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Base, decode, kind_of, row_key};

/// Who stays in place of a person, and with what base.
pub(in crate::store) struct StandIn {
    person: Document,
    base: Base,
    /// The question that is open stays open as it is.
    pub(in crate::store) is_undecided: bool,
}

impl Tx<'_> {
    /// Who stays in place of a person who is about to be set aside, if somebody has to.
    pub(in crate::store) fn stand_in(&self, key: &RecordKey) -> Result<Option<StandIn>, StoreError> {
        if key.kind != Kind::Person || !(self.is_asked_about(key)? || self.has_unsent_dependents(&key.id)?) {
            return Ok(None);
        }
        let body = match unless_damaged(self.document(key))?.flatten() {
            Some(body) => Some(body),
            None => {
                let base = unless_damaged(self.base_if_dirty(key))?.flatten();
                base.and_then(|base| base.document().filter(|body| !body.is_empty()).cloned())
            }
        };
        let mut person = match body {
            Some(body) => Kind::Person.schema().without_secrets(&body),
            None => unknown(key),
        };
        person.remove("roles");
        person.insert("active", false);
        let is_taken = unless_damaged(self.hold(&key.id))?
            .flatten()
            .is_some_and(|hold| hold.why == HoldReason::Taken && hold.local == key.id);
        // The records at the centre are another one's.
        let base = if is_taken { Base::Absent } else { Base::Document(person.clone()) };
        let is_undecided = unless_damaged(self.undecided(key))?.flatten().is_some();
        Ok(Some(StandIn { person, base, is_undecided }))
    }

    /// Puts somebody of whom nothing is known in the place of a person who is not there any more, though a question about
    /// them is open: the key of their row was damaged.
    pub fn put_unknown(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        let mut person = unknown(key);
        person.insert("active", false);
        let base = Base::Document(person.clone());
        self.put_stand_in(key, &StandIn { person, base, is_undecided: false })
    }

    /// Puts them in the place of the person, whose rows are gone by now.
    pub(in crate::store) fn put_stand_in(
        &mut self,
        key: &RecordKey,
        stand_in: &StandIn,
    ) -> Result<(), StoreError> {
        self.put(key, Some(&stand_in.person), &stand_in.base, &Actor::Centre)?;
        if let Some(hold) = unless_damaged(self.hold(&key.id))?.flatten()
            && hold.local == key.id
            && hold.why == HoldReason::Spelling
        {
            // They count as agreed on, so that a question over new people would end.
            self.put_hold(&Hold { why: HoldReason::Created, ..hold })?;
        }
        for mut conflict in self.open_conflicts_of(key)? {
            if conflict.local.is_some() && conflict.path.is_empty() {
                // Staff see who is here now.
                conflict.local = Some(stand_in.person.clone().into());
                self.keep_conflict(&conflict)?;
            }
        }
        Ok(())
    }

    /// A person, or who had an account, was set aside, and nobody stays. Of each account whose row it may have been, that
    /// nobody here has, and that unsent records name, somebody is remembered with whom nobody agrees.
    pub(in crate::store) fn remember_unknown(&mut self, of: &RowOf) -> Result<(), StoreError> {
        let mut accounts = BTreeSet::new();
        for at in self.base.keys::<(u8, &str)>(..)? {
            let at = at?;
            let (code, id) = at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            let owner = match key.kind {
                Kind::Person => None,
                _ => unless_damaged(self.document(&key))?
                    .flatten()
                    .and_then(|document| key.kind.schema().owner_of(&document)),
            };
            accounts.extend(owner.map(|owner| fold_account(&owner)).filter(|account| of.may_be(account)));
        }
        for account in accounts {
            let is_known = unless_damaged(self.departed(&account))?.is_none_or(|last| last.is_some());
            if self.spellings(&account)?.is_empty() && !is_known {
                self.forget_who_departed(&account)?;
            }
        }
        Ok(())
    }

    /// Whether a question about who this is, or what becomes of them, is open or may be.
    fn is_asked_about(&self, key: &RecordKey) -> Result<bool, StoreError> {
        if self.hold.contains(fold_account(&key.id).as_str())? || self.undecided.contains(row_key(key))? {
            return Ok(true);
        }
        let (code, id) = row_key(key);
        for entry in self.conflict_open.range((code, id, "")..)? {
            let (at, _) = entry?;
            let (found_code, found_id, conflict) = at.value();
            if (found_code, found_id) != (code, id) {
                break;
            }
            let conflict = unless_damaged(self.conflict(conflict))?;
            if conflict.is_none_or(|conflict| conflict.is_some_and(|conflict| conflict.path.is_empty())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether records of this account are not as the centre has them.
    fn has_unsent_dependents(&self, account: &str) -> Result<bool, StoreError> {
        for key in self.dependents(account)? {
            if !self.is_clean(&key)? || self.has_intent(&key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the centre's version may take the place of a damaged record unasked: not if a question is open about it or
    /// its person, nor if records wait for a person of whom nobody can read any more that they are the centre's.
    pub(in crate::store) fn may_heal(&self, key: &RecordKey, new: &Document) -> Result<bool, StoreError> {
        if key.kind != Kind::Person {
            return match key.kind.schema().owner_of(new) {
                Some(owner) => Ok(!self.hold.contains(fold_account(&owner).as_str())?),
                None => Ok(true),
            };
        }
        if self.is_asked_about(key)? {
            return Ok(false);
        }
        if !self.has_unsent_dependents(&key.id)? {
            return Ok(true);
        }
        let left = self.docs.unchecked_value(row_key(key))?;
        let left = left.and_then(|bytes| decode(&bytes).ok());
        Ok(left.is_some_and(|left| is_evidently(&left, new)))
    }
}

/// Somebody of whom nothing is known but the account.
pub(in crate::store) fn unknown(key: &RecordKey) -> Document {
    let mut unknown = doc! {"_id": &key.id};
    unknown.extend(unknown_identity());
    unknown
}

/// Whether all that people are told apart by is left of a damaged row, and is the centre's.
fn is_evidently(left: &Document, new: &Document) -> bool {
    let is_kept = |field: &str| left.contains_key(field) == new.contains_key(field);
    IDENTITY_FIELDS.into_iter().all(is_kept) && same_identity(left, new)
}
