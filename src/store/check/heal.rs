//! Floor 1. A damaged record and what can be done about it.

use bson::{Document, RawDocument};

use crate::domain::content::Content;
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::row_key;

/// What is damaged of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Only the record itself, which nobody here has changed: the centre's version is as good.
    Healable,
    /// What was not sent yet, or what tells what was: only a backup may know it.
    Unsent,
}

impl Tx<'_> {
    /// What is damaged of a record; nothing if all of it is as it was written.
    pub fn damage(&self, key: &RecordKey) -> Result<Option<Damage>, StoreError> {
        let at = row_key(key);
        let is_unclear = self.base.is_damaged(at)?
            || self.intent.is_damaged(at)?
            || self.delivered.is_damaged(at)?
            || self.undecided.is_damaged(at)?
            || self.ghost.is_damaged(at)?;
        if !is_unclear && self.is_lost(key)? {
            return Ok(Some(Damage::Unsent));
        }
        let is_missing = || -> Result<bool, StoreError> {
            if self.docs.contains(at)? {
                return Ok(false);
            }
            Ok(self.docs.is_noted(at) || unless_damaged(self.check_absent(key))?.is_none())
        };
        if !is_unclear && !self.docs.is_damaged(at)? && !is_missing()? {
            return Ok(None);
        }
        let is_clean = !self.base.contains(at)? && !self.intent.contains(at)?;
        Ok(Some(if is_clean && !is_unclear { Damage::Healable } else { Damage::Unsent }))
    }

    /// Takes the centre's version of a record whose row is damaged and that nobody here has changed. Returns whether it was so.
    pub fn heal(&mut self, key: &RecordKey, new: &RawDocument) -> Result<bool, StoreError> {
        if self.damage(key)? != Some(Damage::Healable) {
            return Ok(false);
        }
        let document = Document::try_from(new).map_err(|error| StoreError::Damaged(error.to_string()))?;
        if !self.may_heal(key, &document)? {
            return Ok(false);
        }
        // What followed from the row that nobody can read.
        let contents = self.unindex_unreadable(key)?;
        self.put_new(key, new)?;
        let named = Content::named_in(key.kind, new).map(|content| content.sha256);
        for sha256 in contents.iter().filter(|sha256| named.as_ref() != Some(sha256)) {
            self.unname_content(key, sha256)?;
        }
        self.note_taken(key)?;
        Ok(true)
    }
}
