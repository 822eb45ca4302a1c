//! Floor 1. Conflicts that this store takes over from rows which it published under a former name.
//!
//! An older image of the store knows nothing of a conflict that was found after it was made. The row at the centre does,
//! but for secrets and large values. What a row does not tell is not made up: such a conflict can be looked at and closed,
//! and no value of it is written into a record.

use bson::{Bson, Document};
use redb::ReadableTable as _;

use super::conflict::{Conflict, ConflictStatus, Subject};
use crate::domain::diff::Path;
use crate::domain::merge::Side;
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::StoreError;

/// What a row of the centre says of a conflict over a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    pub id: String,
    pub key: RecordKey,
    pub path: Path,
    pub base: Option<Bson>,
    pub local: Option<Bson>,
    pub central: Option<Bson>,
    pub stands: Side,
    pub author: String,
    pub found_at_ms: i64,
    /// Whose the record was, as [`Conflict::owner`] and [`Conflict::person_mark`].
    pub owner: Option<String>,
    pub person: Option<String>,
    pub fingerprint: Option<String>,
    /// The node that published it.
    pub node: String,
    /// One of the two values is not in the row.
    pub is_withheld: bool,
}

impl Tx<'_> {
    /// Makes it a conflict of this node again; returns it as it is here now, unless it is one that waits here anyway, or
    /// was closed here and the centre does not know that yet.
    pub fn take_over(&mut self, row: Published) -> Result<Option<Conflict>, StoreError> {
        let known = self.conflict(&row.id)?;
        if let Some(known) = &known
            && (known.status == ConflictStatus::Open || self.conflict_outbox.get(row.id.as_str())?.is_some())
        {
            return Ok(None);
        }
        let person = self.person_in_row(&row)?;
        let noted_at = Some(self.last_trash_number()?);
        let mut conflict = Conflict {
            path: row.path,
            base: row.base,
            local: row.local,
            central: row.central,
            stands: row.stands,
            author: row.author,
            found_at_ms: row.found_at_ms,
            owner: row.owner,
            is_of_another: person.is_none(),
            person,
            noted_at,
            publisher: Some(row.node),
            row_fingerprint: row.fingerprint,
            ..Conflict::new(row.id, row.key, Subject::Value)
        };
        conflict.is_withheld = row.is_withheld || conflict.is_secret();
        conflict.notes = known.map(|known| known.notes).unwrap_or_default();
        self.keep_conflict(&conflict)?;
        Ok(Some(conflict))
    }

    /// Who had the account, by what a row says of them, if the account is that human being's here.
    fn person_in_row(&self, row: &Published) -> Result<Option<Document>, StoreError> {
        match (row.owner.as_deref(), row.person.as_deref()) {
            (Some(""), _) => Ok(Some(Document::new())),
            (Some(owner), Some(mark)) => self.person_of_mark(owner, mark),
            _ => Ok(None),
        }
    }
}
