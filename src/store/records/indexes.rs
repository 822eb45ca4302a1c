//! Floor 1. What records are found by beside their ids: owners, names, spellings of an account.

use std::collections::BTreeSet;

use bson::RawDocument;

use crate::domain::folding::terms;
use crate::domain::record::{RecordKey, fold_account};
use crate::domain::schema::IdRule;
use crate::store::engine::Tx;
use crate::store::error::StoreError;
use crate::store::holders::indexed_owner;
use crate::store::rows::row_key;

/// Fields whose words people are found by.
const NAME_FIELDS: [&str; 2] = ["name", "lastname"];

/// What a person is found by: the terms of the id and of the names.
pub(crate) fn search_terms(id: &str, document: &RawDocument) -> BTreeSet<String> {
    let mut found = terms(id);
    for field in NAME_FIELDS {
        if let Ok(text) = document.get_str(field) {
            found.append(&mut terms(text));
        }
    }
    found
}

impl Tx<'_> {
    /// Brings the indexes after a record from `old` to `new`.
    pub(in crate::store) fn index(
        &mut self,
        key: &RecordKey,
        old: Option<&RawDocument>,
        new: Option<&RawDocument>,
    ) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        let schema = key.kind.schema();
        let owner =
            |document: Option<&RawDocument>| document.and_then(|document| indexed_owner(schema, document));
        let (old_owner, new_owner) = (owner(old), owner(new));
        if old_owner != new_owner || old.is_some() != new.is_some() {
            self.note_owner(key, new.map(|_| new_owner.as_deref()))?;
        }
        if old_owner != new_owner {
            if let Some(owner) = old_owner {
                self.by_owner.remove((code, owner.as_str(), id))?;
            }
            if let Some(owner) = new_owner {
                self.by_owner.insert((code, owner.as_str(), id), ())?;
            }
        }
        if schema.id_rule == IdRule::Account {
            let canonical = fold_account(id);
            match (old, new) {
                (None, Some(_)) if canonical != id => {
                    self.by_spelling.insert((canonical.as_str(), id), ())?;
                }
                (Some(_), None) => {
                    self.by_spelling.remove((canonical.as_str(), id))?;
                }
                _ => {}
            }
            if old.is_none() != new.is_none() {
                self.note_duplicate(&canonical)?;
            }
            let is_named_alike = matches!((old, new), (Some(old), Some(new))
                if NAME_FIELDS.iter().all(|field| old.get_str(field).ok() == new.get_str(field).ok()));
            if is_named_alike {
                return Ok(());
            }
            let terms =
                |document: Option<&RawDocument>| document.map(|d| search_terms(id, d)).unwrap_or_default();
            let (old_terms, new_terms) = (terms(old), terms(new));
            for term in old_terms.difference(&new_terms) {
                self.by_name.remove((term.as_str(), id))?;
            }
            for term in new_terms.difference(&old_terms) {
                self.by_name.insert((term.as_str(), id), ())?;
            }
        }
        Ok(())
    }

    /// What follows from a person's record that is gone without having been read.
    pub(in crate::store) fn note_gone(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if key.kind.schema().id_rule != IdRule::Account {
            return Ok(());
        }
        let canonical = fold_account(&key.id);
        self.by_spelling.remove((canonical.as_str(), key.id.as_str()))?;
        self.note_duplicate(&canonical)
    }

    /// Keeps in mind whether an account has more than one record.
    fn note_duplicate(&mut self, canonical: &str) -> Result<(), StoreError> {
        if self.spellings(canonical)?.len() > 1 {
            self.duplicate.insert(canonical, ())?;
        } else {
            self.duplicate.remove(canonical)?;
            self.newcomer.remove(canonical)?;
        }
        Ok(())
    }
}
