//! Floor 1. Reads conflicts: open ones, unpublished ones, or one by one, without loading all values at once.

use bson::RawDocument;
use redb::{ReadableTable, ReadableTableMetadata};

use super::conflict::{Conflict, ConflictStatus};
use crate::domain::json::weight;
use crate::domain::record::RecordKey;
use crate::store::engine::Snapshot;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Fields, raw, row_key};
use crate::store::schema::{CONFLICT, CONFLICT_OPEN, CONFLICT_OUTBOX, CONFLICT_WATCHED, DOCS};

/// Whether round `closed` is one of the last `rounds` before round `now`. A node that enrolled anew counts from 1
/// again.
pub(in crate::store) fn is_recent(closed: i64, now: i64, rounds: i64) -> bool {
    (now.saturating_sub(rounds)..=now).contains(&closed)
}

impl Snapshot {
    /// All conflicts, oldest first.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, StoreError> {
        let conflict = self.transaction.open_table(CONFLICT)?;
        let mut conflicts = Vec::new();
        for entry in conflict.iter()?.sound() {
            conflicts.push(Conflict::decode(entry?.1.value())?);
        }
        conflicts.sort_by(|a, b| (a.found_at_ms, &a.id).cmp(&(b.found_at_ms, &b.id)));
        Ok(conflicts)
    }

    pub fn conflict(&self, id: &str) -> Result<Option<Conflict>, StoreError> {
        let conflict = self.transaction.open_table(CONFLICT)?;
        conflict.get(id)?.map(|row| Conflict::decode(row.value())).transpose()
    }

    /// Whether any conflict waits for a decision. The questions that the records themselves ask are not among them.
    pub fn has_open_conflicts(&self) -> Result<bool, StoreError> {
        Ok(!self.transaction.open_table(CONFLICT_OPEN)?.is_empty()?)
    }

    /// How many questions wait for a decision: conflicts, and what [`Snapshot::standing_questions_count`] counts. As many as the
    /// list of open conflicts has lines for somebody who may see all.
    pub fn open_conflicts_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(CONFLICT_OPEN)?.len()? + self.standing_questions_count()?)
    }

    /// How many questions the records themselves ask, for as long as they do: accounts that two records have, and people who are
    /// gone whose records are here.
    pub fn standing_questions_count(&self) -> Result<u64, StoreError> {
        Ok(self.duplicates_count()? + self.left_behind_count()?.accounts)
    }

    /// Conflicts that the centre does not know in their present state, after this id: at most `max`, and no
    /// further one once they take more than `weight_max`, bytes and values ([`weight::of_decoded`]).
    pub fn unpublished_conflicts(
        &self,
        after: Option<&str>,
        max: usize,
        weight_max: usize,
    ) -> Result<Vec<Conflict>, StoreError> {
        let outbox = self.transaction.open_table(CONFLICT_OUTBOX)?;
        let table = self.transaction.open_table(CONFLICT)?;
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let (mut conflicts, mut weight) = (Vec::new(), 0);
        for entry in outbox.range::<&str>((start, std::ops::Bound::Unbounded))?.take(max) {
            let (id, _) = entry?;
            let row = match table.get(id.value()) {
                Err(StoreError::DamagedRow(_)) => continue,
                row => row?,
            };
            if let Some(row) = row {
                weight += weight::of_decoded(raw(row.value())?);
                conflicts.push(Conflict::decode(row.value())?);
            }
            if weight > weight_max {
                break;
            }
        }
        Ok(conflicts)
    }

    /// How many conflicts the centre does not know in their present state.
    pub fn unpublished_conflicts_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(CONFLICT_OUTBOX)?.len()?)
    }

    /// Ids of the conflicts whose rows at the centre are to be read: those that wait for a decision here and that
    /// the centre knows, and those closed in the last `rounds` rounds before round `now`.
    pub fn conflicts_to_read(&self, now: i64, rounds: i64) -> Result<Vec<String>, StoreError> {
        let open = self.transaction.open_table(CONFLICT_OPEN)?;
        let outbox = self.transaction.open_table(CONFLICT_OUTBOX)?;
        let mut ids = Vec::new();
        for entry in open.iter()? {
            let (at, _) = entry?;
            let (.., id) = at.value();
            if outbox.get(id)?.is_none() {
                ids.push(id.to_owned());
            }
        }
        let conflicts = self.transaction.open_table(CONFLICT)?;
        for entry in self.transaction.open_table(CONFLICT_WATCHED)?.iter()? {
            let (id, closed) = entry?;
            let is_closed = || -> Result<bool, StoreError> {
                let row = conflicts.get(id.value())?.map(|row| Conflict::decode(row.value())).transpose()?;
                Ok(row.is_some_and(|conflict| conflict.status == ConflictStatus::Resolved))
            };
            if is_recent(closed.value(), now, rounds)
                && outbox.get(id.value())?.is_none()
                && unless_damaged(is_closed())?.unwrap_or(false)
            {
                ids.push(id.value().to_owned());
            }
        }
        Ok(ids)
    }

    /// Whether a watched conflict was closed more than `rounds` rounds before round `now`.
    pub fn has_forgettable_conflicts(&self, now: i64, rounds: i64) -> Result<bool, StoreError> {
        for entry in self.transaction.open_table(CONFLICT_WATCHED)?.iter()? {
            if !is_recent(entry?.1.value(), now, rounds) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ids of all conflicts, or of those with this status, oldest first.
    pub fn conflict_ids(&self, status: Option<ConflictStatus>) -> Result<Vec<String>, StoreError> {
        self.conflict_ids_where(status, None, |_| Ok(true))
    }

    /// [`Snapshot::conflict_ids`] of those that come after the one that was found then and has this id, as far as `is_wanted`
    /// says so by the id. The others are not read.
    pub fn conflict_ids_where(
        &self,
        status: Option<ConflictStatus>,
        after: Option<(i64, &str)>,
        is_wanted: impl Fn(&str) -> Result<bool, StoreError>,
    ) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        let conflicts = self.transaction.open_table(CONFLICT)?;
        for id in conflicts.keys::<&str>(..)? {
            let id = id?;
            if !is_wanted(id.value())? {
                continue;
            }
            let Some(row) = unless_damaged(conflicts.get(id.value()))?.flatten() else {
                continue;
            };
            let row = Fields::of(row.value(), "a conflict")?;
            let has_status = row.text("status")?;
            if status.is_none_or(|status| status.name() == has_status) {
                let place = (row.int64("found_at")?, id.value());
                if after.is_none_or(|after| place > after) {
                    found.push((place.0, place.1.to_owned()));
                }
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// Looks at a conflict as it is stored, together with it decoded except for its values and notes.
    pub fn visit_conflict<T>(
        &self,
        id: &str,
        visit: impl FnOnce(Conflict, &RawDocument) -> T,
    ) -> Result<Option<T>, StoreError> {
        let conflicts = self.transaction.open_table(CONFLICT)?;
        let Some(row) = conflicts.get(id)? else {
            return Ok(None);
        };
        let row = raw(row.value())?;
        Ok(Some(visit(Conflict::head(row)?, row)))
    }

    /// Bytes of a conflict's row and of the record that it is about.
    pub fn conflict_bytes(&self, id: &str) -> Result<usize, StoreError> {
        let bytes = self.visit_conflict(id, |head, row| {
            let record =
                self.visit_record(&head.key, |record| record.map_or(0, |record| record.as_bytes().len()))?;
            Ok::<_, StoreError>(row.as_bytes().len() + record)
        })?;
        bytes.unwrap_or(Ok(0))
    }

    /// Looks at a record as it is stored, if there is one.
    pub fn visit_record<T>(
        &self,
        key: &RecordKey,
        visit: impl FnOnce(Option<&RawDocument>) -> T,
    ) -> Result<T, StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        let row = docs.get(row_key(key))?;
        Ok(visit(row.as_ref().map(|row| raw(row.value())).transpose()?))
    }
}
