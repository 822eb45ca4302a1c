//! Floor 1. Record and owner that a conflict is about, told without reading its values.

use super::conflict::{Conflict, Subject};
use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::records::NotedOwner;
use crate::store::rows::{damaged, kind_of, row_key};
use crate::store::schema::CONFLICT_ABOUT;

/// What a conflict is about, as far as rights look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub key: RecordKey,
    pub subject: Subject,
    /// Whose the record was when the conflict was found; names nobody if that is not known either.
    pub owner: NotedOwner,
}

/// The row of `conflict_about`.
pub(in crate::store) fn about(conflict: &Conflict) -> (u8, &str, u8, &str) {
    let (code, id) = row_key(&conflict.key);
    (code, id, conflict.subject.number(), conflict.owner.as_deref().unwrap_or_default())
}

impl Snapshot {
    /// What a conflict is about.
    pub fn conflict_about(&self, id: &str) -> Result<Option<About>, StoreError> {
        let Some(row) = self.transaction.open_table(CONFLICT_ABOUT)?.get(id)? else {
            return Ok(None);
        };
        let (code, record, subject, owner) = row.value();
        Ok(Some(About {
            key: RecordKey::new(kind_of(code)?, record),
            subject: Subject::numbered(subject).ok_or_else(|| damaged("a subject"))?,
            owner: NotedOwner(owner.to_owned()),
        }))
    }
}

impl Tx<'_> {
    pub(in crate::store) fn note_conflict(&mut self, conflict: &Conflict) -> Result<(), StoreError> {
        self.conflict_about.insert(conflict.id.as_str(), about(conflict))?;
        Ok(())
    }
}
