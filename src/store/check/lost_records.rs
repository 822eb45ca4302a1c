//! Floor 1. Records that should be there and are not, and places in the push order that contradict what was agreed.

use std::collections::BTreeSet;

use redb::ReadableTable as _;

use crate::domain::folding::terms;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::IdRule;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{DamagedRow, StoreError};
use crate::store::rows::{Base, BaseRow, DELETE_RANK_MIN, row_key};
use crate::store::schema::{BASE, BY_NAME, BY_OWNER, DOCS};

impl Snapshot {
    /// While rows are known to be damaged: whether a record that is not there is known from what follows from it, so that it
    /// lies under another key or is lost.
    pub(crate) fn check_absent(&self, key: &RecordKey) -> Result<(), StoreError> {
        if !self.transaction.has_damage() {
            return Ok(());
        }
        let (code, id) = row_key(key);
        let base = self.transaction.open_table(BASE)?;
        let place = base.get((code, id))?.map(|row| BaseRow::place(row.value())).transpose()?;
        let mut is_known = place.is_some_and(|(rank, _)| rank < DELETE_RANK_MIN);
        if key.kind.schema().id_rule == IdRule::Account {
            let by_name = self.transaction.open_table(BY_NAME)?;
            for term in terms(id) {
                is_known |= by_name.get((term.as_str(), id))?.is_some();
            }
        } else {
            for entry in self.transaction.open_table(BY_OWNER)?.range((code, "", "")..(code + 1, "", ""))? {
                is_known |= entry?.0.value().2 == id;
            }
        }
        if !is_known {
            return Ok(());
        }
        let (table, kind) = (DOCS.name().to_owned(), Some(key.kind));
        Err(self.transaction.missing(DamagedRow { table, kind, id: id.to_owned() }))
    }
}

impl Tx<'_> {
    /// Compares what is to be sent with the place it has in the queue, and mends what contradicts: a record that is in the
    /// queue and has no row of what was last agreed counts as damaged, never as sent; one that has lost its place
    /// gets it back. Returns how many.
    pub fn mend_outbox(&mut self) -> Result<u64, StoreError> {
        let (mut lost_base, mut phantoms) = (Vec::new(), Vec::new());
        for entry in self.dirty.iter()? {
            let (at, _) = entry?;
            let (rank, sequence, code, id) = at.value();
            if !self.base.contains((code, id))? {
                lost_base.push((rank, sequence, code, id.to_owned()));
            } else if !self.base.is_damaged((code, id))? {
                let row = self.base.get((code, id))?;
                let place = row.map(|row| BaseRow::place(row.value())).transpose()?;
                // The record has another place: a bit of this one was wrong.
                if place != Some((rank, sequence)) {
                    phantoms.push((rank, sequence, code, id.to_owned()));
                }
            }
        }
        let mut lost_place = Vec::new();
        for entry in self.base.iter()?.sound() {
            let (at, row) = entry?;
            let ((code, id), (rank, sequence)) = (at.value(), BaseRow::place(row.value())?);
            if self.dirty.get((rank, sequence, code, id))?.is_none() {
                lost_place.push((rank, sequence, code, id.to_owned()));
            }
        }
        let now_ms = self.now_ms();
        let count = (lost_base.len() + lost_place.len() + phantoms.len()) as u64;
        for (rank, sequence, code, id) in phantoms {
            self.dirty.remove((rank, sequence, code, id.as_str()))?;
        }
        for (rank, sequence, code, id) in lost_base {
            if lost_place
                .iter()
                .any(|(of_rank, of_sequence, ..)| (*of_rank, *of_sequence) == (rank, sequence))
            {
                // The same row under a wrong name.
                self.dirty.remove((rank, sequence, code, id.as_str()))?;
                continue;
            }
            let row = BaseRow::encode(rank, sequence, &Base::Absent)?;
            self.base.insert_damaged((code, id.as_str()), &row)?;
        }
        for (rank, sequence, code, id) in lost_place {
            self.dirty.insert((rank, sequence, code, id.as_str()), (now_ms, "unknown"))?;
        }
        if count > 0 {
            self.wrote();
        }
        Ok(count)
    }

    /// As [`Snapshot::check_absent`], for people: where a row lies under a key that is damaged, another person with the same
    /// account must not be taken for its owner.
    pub(crate) fn check_absent(&self, key: &RecordKey) -> Result<(), StoreError> {
        if key.kind != Kind::Person {
            return Ok(());
        }
        let mut is_known = self.is_lost(key)?;
        let known_by = if self.docs.has_damage() { terms(&key.id) } else { BTreeSet::new() };
        for term in known_by {
            is_known |= self.by_name.get((term.as_str(), key.id.as_str()))?.is_some();
        }
        if is_known { Err(self.docs.missing(row_key(key))) } else { Ok(()) }
    }

    /// Whether a record that was edited here is not there any more, though nobody deleted it.
    pub(crate) fn is_lost(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let at = row_key(key);
        let place = self.base.get(at)?.map(|row| BaseRow::place(row.value())).transpose()?;
        let is_edit = place.is_some_and(|(rank, _)| rank < DELETE_RANK_MIN);
        Ok(is_edit && !self.docs.contains(at)?)
    }
}
