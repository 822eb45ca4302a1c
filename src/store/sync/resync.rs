//! Floor 1. What is kept while this node and a centre that was set back to an older copy are brought together.

use std::collections::HashMap;

use bson::{Bson, Document, RawDocument, doc};
use redb::ReadableTable as _;

use super::intents::IntentWrite;
use super::own_writes::Sent;
use super::rereads::Reread;
use crate::domain::access::Actor;
use crate::domain::rebuild::OwnWrite;
use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{BaseRow, Fields, damaged, decode, encode, raw, row_key};
use crate::store::trash::{TrashRow, TrashState, TrashSummary};

/// While both sides are being brought together: whether everything at the centre has been looked at, and whether only
/// the records in the table are meant (`partial`).
const META_RESTORE: &str = "restore";

impl Tx<'_> {
    /// The centre is back at what it held under `lease` of this node: from now on every record has to be
    /// brought together with it once. Nothing that was noted about the newer centre counts any more.
    pub fn begin_restore(&mut self, lease: i64) -> Result<(), StoreError> {
        self.restore.clear()?;
        let mut own = Vec::new();
        for entry in self.sent.iter()?.sound().rev() {
            let (sequence, row) = entry?;
            let sent = Sent::decode(sequence.value(), row.value())?;
            // Of those under the same lease nobody knows.
            if sent.lease < lease {
                break;
            }
            own.push(sent);
        }
        for sent in own.into_iter().rev() {
            let mut row = self.restore_row(&sent.key)?.unwrap_or_else(|| doc! {"own": []});
            let writes = row.get_array_mut("own").map_err(|_| damaged("a row of restored records"))?;
            writes.push(Bson::Document(sent.write.without_bodies().encode(0)));
            self.restore.insert(row_key(&sent.key), encode(&row)?.as_slice())?;
        }
        self.vanished.retain(|_, _| false)?;
        self.vanished_told.retain(|_, ()| false)?;
        // What waits behind a hold, or for somebody to have its account, is what the newer centre held.
        for account in self.waited_for()? {
            for key in self.held_of(&account)? {
                self.ask_again(&key, Reread::default())?;
            }
        }
        self.publish_all_conflicts()?;
        self.set_meta(META_RESTORE, Some(&doc! {"swept": false}))
    }

    /// Has these records brought together with the centre once more; see [`Tx::begin_restore`].
    pub(crate) fn begin_partial_restore(&mut self, records: &[RecordKey]) -> Result<(), StoreError> {
        for key in records {
            self.restore.insert(row_key(key), encode(&doc! {"own": []})?.as_slice())?;
        }
        if !self.is_restoring()? {
            self.set_meta(META_RESTORE, Some(&doc! {"swept": true, "partial": true}))?;
        }
        self.wrote();
        Ok(())
    }

    /// Own writes of a record that landed, as far as they are remembered, oldest first.
    pub fn own_writes(&mut self, key: &RecordKey) -> Result<Vec<OwnWrite>, StoreError> {
        let sent = self.sent_of(key)?;
        self.known_writes(key, sent.into_iter().map(|sent| sent.write).collect())
    }

    /// Writes of a record that landed, as far as they are remembered, oldest first. Where they stand is looked up for all
    /// records at once, the first time in a transaction.
    pub(in crate::store) fn sent_of(&mut self, key: &RecordKey) -> Result<Vec<Sent>, StoreError> {
        if self.sent_at.is_none() {
            let mut sent_at = HashMap::<String, Vec<u64>>::new();
            for entry in self.sent.iter()?.sound() {
                let (sequence, row) = entry?;
                let about = RawDocument::from_bytes(row.value());
                if let Some(id) = about.ok().and_then(|about| about.get_str("id").ok()) {
                    sent_at.entry(id.to_owned()).or_default().push(sequence.value());
                }
            }
            self.sent_at = Some(sent_at);
        }
        let at = self.sent_at.as_ref().and_then(|sent_at| sent_at.get(&key.id)).cloned().unwrap_or_default();
        let mut found = Vec::new();
        for sequence in at {
            // Not among what is remembered any more, like one that was trimmed.
            let row = unless_damaged(self.sent.get(sequence))?.flatten();
            let sent = row.map(|row| Sent::decode(sequence, row.value())).transpose()?;
            found.extend(sent.filter(|sent| sent.key == *key));
        }
        Ok(found)
    }

    pub fn is_restoring(&self) -> Result<bool, StoreError> {
        Ok(self.meta(META_RESTORE)?.is_some())
    }

    /// Whether every record is being brought together with the centre.
    pub fn is_resyncing_all(&self) -> Result<bool, StoreError> {
        Ok(self.restore_mode()?.is_some_and(|mode| !mode.is_partial))
    }

    /// While a record has still to be brought together with the restored centre: own writes of it that the
    /// centre may have forgotten, oldest first.
    pub fn to_bring_together(&self, key: &RecordKey) -> Result<Option<Vec<OwnWrite>>, StoreError> {
        let Some(mode) = self.restore_mode()? else {
            return Ok(None);
        };
        let writes = match self.restore.get(row_key(key))? {
            None if mode.is_partial => return Ok(None),
            None => return Ok(Some(Vec::new())),
            Some(row) => match own_in(row.value())? {
                None => return Ok(None),
                Some(writes) => writes,
            },
        };
        self.known_writes(key, writes).map(Some)
    }

    /// What own writes of a record did, as far as it is known.
    fn known_writes(&self, key: &RecordKey, writes: Vec<IntentWrite>) -> Result<Vec<OwnWrite>, StoreError> {
        let (mut own, count) = (Vec::new(), writes.len());
        for (index, write) in writes.into_iter().enumerate() {
            own.push(match write {
                IntentWrite::Insert(_) => OwnWrite::Inserted,
                IntentWrite::Replace(_) => OwnWrite::Replaced,
                IntentWrite::Update(changes) => OwnWrite::Updated(changes),
                IntentWrite::Delete { .. } => {
                    let is_last = index + 1 == count;
                    let body = if is_last { self.trashed_here(key)? } else { None };
                    OwnWrite::Deleted(body.map(|row| row.document))
                }
            });
        }
        Ok(own)
    }

    /// The record has been brought together with the restored centre.
    pub fn brought_together(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        self.restore.insert(row_key(key), encode(&Document::new())?.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// A record that nobody has edited here, and that differs from a restored centre, waits as one that was edited before its
    /// account came to be of the person `holder`: it is of the one who had the account at the centre.
    pub fn wait_since_before_holder(&mut self, key: &RecordKey, holder: &str) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        let row = self.base.get((code, id))?.map(|row| BaseRow::decode(row.value())).transpose()?;
        let (Some(row), Some(since)) = (row, self.unsent_since(holder)?) else {
            return Ok(());
        };
        let place = (row.rank, row.sequence, code, id);
        let edited = self.dirty.get(place)?.map(|edited| (edited.value().0, edited.value().1.to_owned()));
        if let Some((at_ms, author)) = edited.filter(|_| row.sequence > since) {
            self.dirty.remove(place)?;
            self.dirty.insert((row.rank, since, code, id), (at_ms, author.as_str()))?;
            let row = BaseRow::encode(row.rank, since, &row.base)?;
            self.base.insert((code, id), row.as_slice())?;
            self.wrote();
        }
        Ok(())
    }

    /// Everything at the restored centre has been looked at, or has to be looked at again.
    pub fn set_restore_swept(&mut self, is_swept: bool) -> Result<(), StoreError> {
        match self.is_resyncing_all()? {
            true => self.set_meta(META_RESTORE, Some(&doc! {"swept": is_swept})),
            false => Ok(()),
        }
    }

    /// Ends the restoring once everything was looked at and nothing is left to be read again.
    pub fn end_restore(&mut self) -> Result<(), StoreError> {
        if self.restore_mode()?.is_some_and(|mode| mode.is_swept) && !self.has_reread_due()? {
            self.restore.clear()?;
            self.set_meta(META_RESTORE, None)?;
        }
        Ok(())
    }

    /// A record that was deleted here and at the centre is deleted at the centre once more: its body is
    /// wanted again if somebody edits it there meanwhile.
    pub fn reopen_trash(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        let Some(TrashRow { sequence, .. }) = self.trashed_here(key)? else {
            return Ok(());
        };
        let (code, id) = row_key(key);
        let row = self.trash.get((code, id, sequence))?.map(|row| decode(row.value())).transpose()?;
        if let Some(mut row) = row {
            row.insert("state", TrashState::Pending.name());
            self.trash.insert((code, id, sequence), encode(&row)?.as_slice())?;
            self.wrote();
        }
        Ok(())
    }

    /// The body of the record that was deleted on this node last, the delete done.
    fn trashed_here(&self, key: &RecordKey) -> Result<Option<TrashRow>, StoreError> {
        let (code, id) = row_key(key);
        let by_centre = Actor::Centre.to_string();
        for entry in self.trash.range((code, id, 0)..=(code, id, u64::MAX))?.rev() {
            let (at, row) = entry?;
            let (_, _, sequence) = at.value();
            let about = TrashSummary::decode(key.clone(), sequence, row.value())?;
            if about.actor != by_centre && about.state == TrashState::Done {
                return TrashRow::decode(key.clone(), sequence, row.value()).map(Some);
            }
        }
        Ok(None)
    }

    fn restore_mode(&self) -> Result<Option<RestoreMode>, StoreError> {
        self.meta.get(META_RESTORE)?.map(|row| RestoreMode::decode(row.value())).transpose()
    }

    fn restore_row(&self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        self.restore.get(row_key(key))?.map(|row| decode(row.value())).transpose()
    }

    /// The centre may have forgotten any conflict.
    pub(in crate::store) fn publish_all_conflicts(&mut self) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        for id in self.conflict.keys::<&str>(..)? {
            ids.push(id?.value().to_owned());
        }
        for id in ids {
            self.conflict_outbox.insert(id.as_str(), ())?;
        }
        self.wrote();
        Ok(())
    }
}

/// The row of `meta` while records are brought together with a restored centre.
pub(in crate::store) struct RestoreMode {
    is_swept: bool,
    is_partial: bool,
}

impl RestoreMode {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<RestoreMode, StoreError> {
        let row = Fields::of(bytes, "the restore")?;
        Ok(RestoreMode { is_swept: row.flag("swept")?, is_partial: row.flag_if_any("partial")? })
    }
}

/// Own writes of a record that is still to be brought together with the restored centre; `None` if it has been.
pub(in crate::store) fn own_in(bytes: &[u8]) -> Result<Option<Vec<IntentWrite>>, StoreError> {
    if raw(bytes)?.is_empty() {
        return Ok(None);
    }
    let rows = Fields::of(bytes, "a row of restored records")?.rows("own")?;
    rows.into_iter().map(IntentWrite::decode).collect::<Result<_, _>>().map(Some)
}

impl Snapshot {
    pub fn is_restoring(&self) -> Result<bool, StoreError> {
        Ok(self.meta(META_RESTORE)?.is_some())
    }
}
