//! Floor 1. Rows of conflicts inside a transaction: kept, closed, published.

use redb::ReadableTable;

use super::conflict::{Conflict, ConflictStatus, Subject};
use super::conflict_reads::is_recent;
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{encode, row_key};

impl Tx<'_> {
    /// Who made the last unpushed edit of a record; empty if there is none.
    pub fn author_of(&self, key: &RecordKey) -> Result<String, StoreError> {
        let Some(row) = self.base_row(key)? else {
            return Ok(String::new());
        };
        let (code, id) = row_key(key);
        let dirty = self.dirty.get((row.rank, row.sequence, code, id))?;
        Ok(dirty.map_or_else(String::new, |dirty| dirty.value().1.to_owned()))
    }

    /// Writes a conflict and puts it into the outbox to the centre.
    pub fn put_conflict(&mut self, conflict: &Conflict) -> Result<(), StoreError> {
        self.keep_conflict(conflict)?;
        self.conflict_outbox.insert(conflict.id.as_str(), ())?;
        Ok(())
    }

    /// Writes a conflict of which the centre need not hear.
    pub fn keep_conflict(&mut self, conflict: &Conflict) -> Result<(), StoreError> {
        let (code, id) = row_key(&conflict.key);
        let open = (code, id, conflict.id.as_str());
        if conflict.status == ConflictStatus::Open && self.conflict_open.get(open)?.is_none() {
            self.begin_to_wait(&conflict.key)?;
        }
        self.conflict.insert(conflict.id.as_str(), encode(&conflict.encode())?.as_slice())?;
        match conflict.status {
            ConflictStatus::Open => self.conflict_open.insert(open, ())?,
            ConflictStatus::Resolved => self.conflict_open.remove(open)?,
        };
        self.note_conflict(conflict)?;
        self.wrote();
        Ok(())
    }

    pub fn conflict(&self, id: &str) -> Result<Option<Conflict>, StoreError> {
        self.conflict.get(id)?.map(|row| Conflict::decode(row.value())).transpose()
    }

    /// The conflicts about a record that wait for a decision.
    pub fn open_conflicts_of(&self, key: &RecordKey) -> Result<Vec<Conflict>, StoreError> {
        let (code, id) = row_key(key);
        let mut conflicts = Vec::new();
        for entry in self.conflict_open.range((code, id, "")..)? {
            let (at, _) = entry?;
            let (found_code, found_id, conflict) = at.value();
            if (found_code, found_id) != (code, id) {
                break;
            }
            // One that is damaged is left out, and keeps nobody from the others.
            conflicts.extend(unless_damaged(self.conflict(conflict))?.flatten());
        }
        Ok(conflicts)
    }

    pub(crate) fn has_open_conflicts(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let (code, id) = row_key(key);
        let first = self.conflict_open.range((code, id, "")..)?.next().transpose()?;
        Ok(first.is_some_and(|(at, _)| (at.value().0, at.value().1) == (code, id)))
    }

    /// The conflicts about the values of a record go with it to its new owner.
    pub(crate) fn give_conflicts(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        for conflict in self.open_conflicts_of(key)? {
            if conflict.subject == Subject::Value {
                let fingerprint = conflict.fingerprint()?;
                let given = self.given(conflict, key)?;
                self.keep_conflict(&Conflict { row_fingerprint: Some(fingerprint), ..given })?;
            }
        }
        Ok(())
    }

    /// The centre knows these conflicts as they are in `published`, from a node of this name, in the round with
    /// this lease number.
    pub fn conflicts_published(
        &mut self,
        published: &[Conflict],
        node: &str,
        round: i64,
    ) -> Result<(), StoreError> {
        for conflict in published {
            // Changed meanwhile: it goes again.
            // By bytes, because NaN does not equal itself.
            let bytes = encode(&conflict.encode())?;
            let known = unless_damaged(self.conflict.get(conflict.id.as_str()))?.flatten();
            let is_same = known.is_some_and(|row| row.value() == bytes);
            if !is_same {
                continue;
            }
            self.conflict_outbox.remove(conflict.id.as_str())?;
            if conflict.status == ConflictStatus::Resolved {
                self.conflict_watched.insert(conflict.id.as_str(), round)?;
            }
            self.wrote();
            if conflict.publisher.is_none() || conflict.is_reopened {
                let known =
                    Conflict { publisher: Some(node.to_owned()), is_reopened: false, ..conflict.clone() };
                self.keep_conflict(&known)?;
            }
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Stops reading the rows of conflicts that were closed more than `rounds` rounds before round `now`.
    pub fn forget_watched_conflicts(&mut self, now: i64, rounds: i64) -> Result<(), StoreError> {
        let old = |closed: i64| !is_recent(closed, now, rounds);
        let count = self.conflict_watched.extract_if(|_, closed| old(closed))?.count();
        if count > 0 {
            self.wrote();
        }
        Ok(())
    }

    /// Publishes an open conflict whose row at the centre is gone.
    pub fn publish_conflict_again(&mut self, id: &str) -> Result<(), StoreError> {
        match self.conflict(id)? {
            // The new row has this node's name, whatever the old one had.
            Some(conflict) if conflict.status == ConflictStatus::Open => {
                self.put_conflict(&Conflict { publisher: None, is_reopened: false, ..conflict })
            }
            _ => Ok(()),
        }
    }
}
