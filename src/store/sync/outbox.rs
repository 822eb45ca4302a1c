//! Floor 1. The outbox: records that wait to be sent, and the versions that were last agreed with the centre.

use redb::{ReadableTable as _, ReadableTableMetadata as _};

use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::Snapshot;
use crate::store::error::StoreError;
use crate::store::rows::{Base, BaseRow, DELETE_RANK_MIN, PUSH_ORDER_MAX, decode, kind_of, row_key};
use crate::store::schema::{BASE, DEAD, DIRTY, DOCS, INTENT, VANISHED};

/// A record that waits to be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub key: RecordKey,
    pub since_ms: i64,
}

impl Snapshot {
    /// Unpushed records in push order after `after`, without those whose write is on the way or refused, and
    /// without those that are damaged.
    pub fn pending(
        &self,
        after: Option<(u8, u64, &RecordKey)>,
        max: usize,
    ) -> Result<Vec<(u8, u64, Pending)>, StoreError> {
        let (docs, base) = (self.docs()?, self.transaction.open_table(BASE)?);
        let dirty = self.transaction.open_table(DIRTY)?;
        let intent = self.transaction.open_table(INTENT)?;
        let dead = self.transaction.open_table(DEAD)?;
        let mut batch = Vec::new();
        let start = match after {
            Some((rank, sequence, key)) => {
                let (code, id) = row_key(key);
                std::ops::Bound::Excluded((rank, sequence, code, id))
            }
            None => std::ops::Bound::Unbounded,
        };
        for entry in dirty.range((start, std::ops::Bound::<(u8, u64, u8, &str)>::Unbounded))? {
            if batch.len() >= max {
                break;
            }
            let (at, row) = entry?;
            let (rank, sequence, code, id) = at.value();
            // One that is gone though nobody deleted it is damaged too, and no reason to delete it elsewhere.
            let is_there = rank >= DELETE_RANK_MIN || docs.contains((code, id))?;
            let is_sound = is_there && !docs.is_damaged((code, id))? && !base.is_damaged((code, id))?;
            if is_sound && !intent.contains((code, id))? && !dead.contains((code, id))? {
                let key = RecordKey::new(kind_of(code)?, id);
                batch.push((rank, sequence, Pending { key, since_ms: row.value().0 }));
            }
        }
        Ok(batch)
    }

    /// Ids after `after` up to `up_to` (or the end) of records that the centre is known to have had, those that
    /// wait behind a hold included.
    pub fn expected_at_centre(
        &self,
        kind: Kind,
        after: Option<&str>,
        up_to: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let docs = self.docs()?;
        let base = self.transaction.open_table(BASE)?;
        let code = kind.schema().code;
        let mut ids = Vec::new();
        for at in docs.keys((code, after.unwrap_or(""))..(code + 1, ""))? {
            let at = at?;
            let (_, id) = at.value();
            if up_to.is_some_and(|up_to| id > up_to) {
                break;
            }
            let is_new_here = match base.get((code, id)) {
                Ok(Some(row)) => BaseRow::decode(row.value())?.base == Base::Absent,
                Ok(None) => false,
                // Nobody knows, and nothing may go for that.
                Err(StoreError::DamagedRow(_)) => true,
                Err(error) => return Err(error),
            };
            if after != Some(id) && !is_new_here {
                ids.push(id.to_owned());
            }
        }
        let mut waiting = self.held_ids(kind, after, up_to)?;
        waiting.extend(self.undecided_ids(kind, after, up_to)?);
        if !waiting.is_empty() {
            ids.extend(waiting);
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(ids)
    }

    /// How many records differ from the centre, dead letters included.
    pub fn pending_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(DIRTY)?.len()?)
    }

    /// How many records wait to be pushed, without those that were refused.
    pub fn waiting_count(&self) -> Result<u64, StoreError> {
        let dirty = self.transaction.open_table(DIRTY)?;
        let dead = self.transaction.open_table(DEAD)?;
        if dead.is_empty()? {
            return Ok(dirty.len()?);
        }
        let mut count = 0;
        for entry in dirty.iter()? {
            let (at, _) = entry?;
            let (_, _, code, id) = at.value();
            count += u64::from(!dead.contains((code, id))?);
        }
        Ok(count)
    }

    /// When the oldest unpushed edit was made.
    pub fn oldest_pending_ms(&self) -> Result<Option<i64>, StoreError> {
        let dirty = self.transaction.open_table(DIRTY)?;
        let mut oldest: Option<i64> = None;
        for rank in 0..=PUSH_ORDER_MAX {
            // Within a rank the first row is the oldest.
            if let Some(entry) = dirty.range((rank, 0, 0, "")..(rank + 1, 0, 0, ""))?.next() {
                let (since, _) = entry?.1.value();
                oldest = Some(oldest.map_or(since, |known| known.min(since)));
            }
        }
        Ok(oldest)
    }

    pub fn is_clean(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.transaction.open_table(BASE)?.get(row_key(key))?.is_none())
    }

    /// Whether a record that is not clean was agreed on with the centre at some time.
    pub fn has_agreed(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let row = base.get(row_key(key))?;
        row.map_or(Ok(false), |row| BaseRow::is_agreed(row.value()))
    }

    pub fn base(&self, key: &RecordKey) -> Result<Option<Base>, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let row = base.get(row_key(key))?.map(|row| BaseRow::decode(row.value())).transpose()?;
        Ok(row.map(|row| row.base))
    }

    /// The number of the first edit that has not reached the centre; 0 if there is none.
    pub(in crate::store) fn edit_number(&self, key: &RecordKey) -> Result<u64, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let place = base.get(row_key(key))?.map(|row| BaseRow::place(row.value())).transpose()?;
        Ok(place.map_or(0, |(_, sequence)| sequence))
    }

    /// The version of a record that the node takes for the centre's.
    pub fn agreed(&self, key: &RecordKey) -> Result<Option<bson::Document>, StoreError> {
        if self.transaction.open_table(VANISHED)?.get(row_key(key))?.is_some() {
            return Ok(None);
        }
        match self.base(key)? {
            Some(base) => Ok(base.document().cloned()),
            None => {
                let docs = self.transaction.open_table(DOCS)?;
                docs.get(row_key(key))?.map(|row| decode(row.value())).transpose()
            }
        }
    }
}
