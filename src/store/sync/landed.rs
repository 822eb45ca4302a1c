//! Floor 1. What has happened with the centre since the last seal: writes that landed there, and records that were
//! taken from there.
//!
//! A seal is a lease that this node takes at the end of its work: the centre has it on its disk, and so everything
//! that happened before. Until then an acknowledged write keeps its intent, because a centre that crashes, or that is
//! set back to a copy, may forget it. What was taken is listed for the same reason.

use std::collections::BTreeSet;

use bson::doc;
use redb::{ReadableTable, ReadableTableMetadata as _};

use super::intents::{IntentWrite, OpenWrite, decode_intent, writes_exactly};
use super::rereads::Reread;
use crate::domain::json::weight;
use crate::domain::record::RecordKey;
use crate::domain::value::same_document;
use crate::flaw::{Flaw, planted};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Base, Fields, decode, kind_of, row_key};
use crate::store::schema::{DOCS, INTENT, LANDED, TAKEN};
use crate::store::trash::TrashState;

/// Records that are listed one by one between two seals; beyond that all count as taken.
const TAKEN_ROWS_MAX: u64 = 1_000;
/// Set while more records were taken than are listed; `sealing` as in the rows.
const META_ALL_TAKEN: &str = "taken_all";

/// How it is known that a write landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// The centre has answered.
    Acknowledged,
    /// The change feed has told of it.
    Told,
}

impl Landing {
    fn bit(self) -> u8 {
        match self {
            Landing::Acknowledged => 1,
            Landing::Told => 2,
        }
    }
}

/// Bit of a landed write that a seal on its way covers.
const SEALING: u8 = 4;

/// What was taken from the centre since the last seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    All,
    Records(Vec<RecordKey>),
}

pub(in crate::store) fn is_sealing(bytes: &[u8]) -> Result<bool, StoreError> {
    Fields::of(bytes, "what was taken from the centre")?.flag("sealing")
}

impl Tx<'_> {
    /// Notes that the open write with this number has landed. Returns whether it is open.
    pub fn note_landed(&mut self, key: &RecordKey, number: u64, how: Landing) -> Result<bool, StoreError> {
        let is_mine = |open: &OpenWrite| open.number == number || planted(Flaw::UnguardedAck);
        let Some(OpenWrite { number, .. }) = self.open_write(key)?.filter(is_mine) else {
            return Ok(false);
        };
        let known = self.landed.get(row_key(key))?.map(|row| row.value());
        let bits = known.filter(|(of, _)| *of == number).map_or(0, |(_, bits)| bits);
        self.landed.insert(row_key(key), (number, bits | how.bit()))?;
        self.wrote();
        Ok(true)
    }

    /// Whether the record's open write is known to have landed.
    pub fn has_landed(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.landed.get(row_key(key))?.is_some())
    }

    pub(crate) fn forget_landed(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.landed.remove(row_key(key))?.is_some() {
            self.wrote();
        }
        Ok(())
    }

    /// Notes that something of this record was taken from the centre.
    pub fn note_taken(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        let sealing = self.all_taken()?;
        if sealing == Some(false) {
            return Ok(());
        }
        if sealing.is_some() || self.taken.len()? >= TAKEN_ROWS_MAX {
            return self.set_meta(META_ALL_TAKEN, Some(&doc! {"sealing": false}));
        }
        if self.taken.get(row_key(key))?.is_none_or(|row| row.value()) {
            self.taken.insert(row_key(key), false)?;
            self.wrote();
        }
        Ok(())
    }

    /// If all records count as taken: whether a seal that covers them is on its way.
    fn all_taken(&self) -> Result<Option<bool>, StoreError> {
        self.meta.get(META_ALL_TAKEN)?.map(|row| is_sealing(row.value())).transpose()
    }

    /// Which records were taken from the centre is not known any more: all count as taken.
    pub(in crate::store) fn take_all(&mut self) -> Result<(), StoreError> {
        self.set_meta(META_ALL_TAKEN, Some(&doc! {"sealing": false}))
    }

    /// A seal is about to be sent: it covers everything that has happened until now.
    pub fn begin_seal(&mut self) -> Result<(), StoreError> {
        let mut landed = Vec::new();
        for entry in self.landed.iter()? {
            let (at, row) = entry?;
            let ((code, id), (number, bits)) = (at.value(), row.value());
            if bits & SEALING == 0 {
                landed.push((RecordKey::new(kind_of(code)?, id), number, bits | SEALING));
            }
        }
        for (key, number, bits) in landed {
            self.landed.insert(row_key(&key), (number, bits))?;
            self.wrote();
        }
        for key in self.taken_keys(false)? {
            self.taken.insert(row_key(&key), true)?;
            self.wrote();
        }
        match self.meta(META_ALL_TAKEN)? {
            Some(_) => self.set_meta(META_ALL_TAKEN, Some(&doc! {"sealing": true})),
            None => Ok(()),
        }
    }

    /// The centre has the seal. Writes that it covers are settled: the base becomes what was sent. `lease` is the
    /// number before the seal; `is_echo_due`: the change feed is still to tell of those that were acknowledged.
    /// Returns the records whose writes were settled.
    pub fn complete_seal(&mut self, lease: i64, is_echo_due: bool) -> Result<Vec<RecordKey>, StoreError> {
        let settled = self.settle_covered(self.covered()?, lease, is_echo_due)?;
        for key in self.taken_keys(true)? {
            self.taken.remove(row_key(&key))?;
            self.wrote();
        }
        if self.all_taken()? == Some(true) {
            self.set_meta(META_ALL_TAKEN, None)?;
        }
        Ok(settled)
    }

    /// Settles some of the writes that a seal covers which the centre is known to have: as many as are worked with
    /// together ([`weight`]). [`Tx::complete_seal`] does what is left. Returns whether any is left.
    pub fn settle_sealed(&mut self, lease: i64, is_echo_due: bool) -> Result<bool, StoreError> {
        let (mut together, mut part, covered) = (weight::Together::default(), Vec::new(), self.covered()?);
        let count = covered.len();
        for covered in covered {
            let weight = unless_damaged(self.open_write(&covered.0))?.flatten().map_or(0, |open| open.weight);
            if !together.takes(weight) {
                break;
            }
            part.push(covered);
        }
        let is_any_left = part.len() < count;
        self.settle_covered(part, lease, is_echo_due)?;
        Ok(is_any_left)
    }

    /// The landed writes that a seal on its way covers, with their numbers and how it is known.
    fn covered(&self) -> Result<Vec<(RecordKey, u64, u8)>, StoreError> {
        let mut covered = Vec::new();
        for entry in self.landed.iter()? {
            let (at, row) = entry?;
            let ((code, id), (number, bits)) = (at.value(), row.value());
            if bits & SEALING != 0 {
                covered.push((RecordKey::new(kind_of(code)?, id), number, bits));
            }
        }
        Ok(covered)
    }

    fn settle_covered(
        &mut self,
        covered: Vec<(RecordKey, u64, u8)>,
        lease: i64,
        is_echo_due: bool,
    ) -> Result<Vec<RecordKey>, StoreError> {
        let mut settled = Vec::new();
        for (key, number, bits) in covered {
            let is_settled = self.sparing(&key, |tx| {
                let Some(intent) = tx.settle_intent(&key, number, true)? else {
                    return Ok(false);
                };
                let is_told = bits & Landing::Told.bit() != 0;
                tx.note_sent(&key, &intent, lease, is_echo_due && !is_told)?;
                tx.note_deleted(&key, &intent.write)?;
                Ok(true)
            })?;
            match is_settled {
                Some(true) => settled.push(key),
                Some(false) => {}
                // The write stays open. What became of it is found out once the row is set aside.
                None => self.forget_landed(&key)?,
            }
        }
        Ok(settled)
    }

    /// [`Snapshot::is_seal_due`].
    pub fn is_seal_due(&self) -> Result<bool, StoreError> {
        Ok(!self.landed.is_empty()? || !self.taken.is_empty()? || self.meta(META_ALL_TAKEN)?.is_some())
    }

    /// The centre is not known to have kept what happened since the last seal. Its answers and what its feed told of
    /// open writes count no more. Returns what was taken from it.
    pub fn doubt_unsealed(&mut self) -> Result<Taken, StoreError> {
        if !self.landed.is_empty()? {
            self.landed.retain(|_, _| false)?;
            self.wrote();
        }
        let mut records = self.taken_keys(false)?;
        records.extend(self.taken_keys(true)?);
        if !records.is_empty() {
            self.taken.retain(|_, _| false)?;
            self.wrote();
        }
        if self.meta(META_ALL_TAKEN)?.is_some() {
            self.set_meta(META_ALL_TAKEN, None)?;
            return Ok(Taken::All);
        }
        Ok(Taken::Records(records))
    }

    /// Reads records again whose centre may have gone back behind what was taken from it; differences are decided as
    /// with a centre that was set back.
    pub fn resync(&mut self, records: &[RecordKey]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        self.begin_partial_restore(records)?;
        for key in records {
            self.ask_again(key, Reread::default())?;
        }
        Ok(())
    }

    /// Whether something of this record was taken from the centre since the last seal.
    pub fn is_taken(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.meta(META_ALL_TAKEN)?.is_some() || self.taken.get(row_key(key))?.is_some())
    }

    fn taken_keys(&self, is_sealing: bool) -> Result<Vec<RecordKey>, StoreError> {
        let mut keys = Vec::new();
        for entry in self.taken.iter()? {
            let (at, row) = entry?;
            let (code, id) = at.value();
            if row.value() == is_sealing {
                keys.push(RecordKey::new(kind_of(code)?, id));
            }
        }
        Ok(keys)
    }

    /// A delete of this node has reached the centre.
    pub(crate) fn note_deleted(&mut self, key: &RecordKey, write: &IntentWrite) -> Result<(), StoreError> {
        if matches!(write, IntentWrite::Delete { .. }) && self.document(key)?.is_none() {
            self.settle_trash(key, TrashState::Done)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// Whether anything has happened with the centre since the last seal.
    pub fn is_seal_due(&self) -> Result<bool, StoreError> {
        Ok(!self.transaction.open_table(LANDED)?.is_empty()?
            || !self.transaction.open_table(TAKEN)?.is_empty()?
            || self.meta(META_ALL_TAKEN)?.is_some())
    }

    /// How many writes have landed since the last seal.
    pub fn landed_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(LANDED)?.len()?)
    }

    /// Whether the record's open write is known to have landed.
    pub fn has_landed(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.transaction.open_table(LANDED)?.get(row_key(key))?.is_some())
    }

    /// Whether the change feed has told of the record's open write.
    pub fn is_told(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let landed = self.transaction.open_table(LANDED)?;
        Ok(landed.get(row_key(key))?.is_some_and(|row| row.value().1 & Landing::Told.bit() != 0))
    }

    /// How many records will be clean once the next seal is there.
    pub fn clean_with_seal_count(&self) -> Result<u64, StoreError> {
        Ok(self.landed_clean()?.len() as u64)
    }

    /// The records that will be clean once the next seal is there.
    pub(in crate::store) fn landed_clean(&self) -> Result<BTreeSet<(u8, String)>, StoreError> {
        let intents = self.transaction.open_table(INTENT)?;
        let docs = self.transaction.open_table(DOCS)?;
        let mut clean = BTreeSet::new();
        for entry in self.transaction.open_table(LANDED)?.iter()? {
            let (at, _) = entry?;
            let (code, id) = at.value();
            let is_clean = || -> Result<bool, StoreError> {
                let Some(intent) = intents.get((code, id))? else {
                    return Ok(false);
                };
                let record = docs.get((code, id))?;
                if let Some(record) = &record
                    && writes_exactly(intent.value(), record.value())?
                {
                    return Ok(true);
                }
                let key = RecordKey::new(kind_of(code)?, id);
                let base = self.base(&key)?.unwrap_or(Base::Absent);
                let sent = decode_intent(intent.value())?.write.applied_to(&base);
                let document = record.map(|row| decode(row.value())).transpose()?;
                Ok(match (sent.document(), &document) {
                    (Some(sent), Some(document)) => same_document(sent, document),
                    (None, None) => true,
                    _ => false,
                })
            };
            // A damaged record counts as one that is not.
            if unless_damaged(is_clean())?.unwrap_or(false) {
                clean.insert((code, id.to_owned()));
            }
        }
        Ok(clean)
    }
}
