//! Floor 1. The change feed: one row for each change of a record, trimmed by count.

use bson::{RawArrayBuf, RawBson, RawDocument, rawdoc};

use crate::domain::access::Actor;
use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx, last_sequence};
use crate::store::error::StoreError;
use crate::store::rows::Fields;
use crate::store::schema::{JOURNAL, META, META_JOURNAL_START};

/// One change in the feed.
#[derive(Debug, Clone)]
pub struct JournalRow {
    pub sequence: u64,
    pub key: RecordKey,
    pub op: String,
    /// Folded account that the record belonged to.
    pub owner: Option<String>,
}

/// A stretch of the change feed.
#[derive(Debug)]
pub struct JournalWindow {
    pub rows: Vec<JournalRow>,
    /// Oldest sequence that is kept, or the next one if none is; 0 when nothing ever changed.
    pub oldest: u64,
    pub last: u64,
}

impl Snapshot {
    /// Changes after `since`, at most `max`.
    pub fn journal(&self, since: u64, max: usize) -> Result<JournalWindow, StoreError> {
        let journal = self.transaction.open_table(JOURNAL)?;
        let last = last_sequence(&journal, &self.transaction.open_table(META)?)?;
        // After a restore there may be no change yet, but a number from which on there will be.
        let next = if last == 0 { 0 } else { last + 1 };
        let mut oldest =
            journal.keys::<u64>(..)?.next().transpose()?.map_or(next, |sequence| sequence.value());
        let mut rows = Vec::new();
        for entry in journal.range(since.saturating_add(1)..)?.take(max) {
            let (sequence, row) = match entry {
                // What changed then is not known any more, as if it had been trimmed: readers start over.
                Err(StoreError::DamagedRow(row)) => {
                    oldest =
                        row.id.parse::<u64>().map_or(next, |sequence| sequence.saturating_add(1)).min(next);
                    rows.clear();
                    continue;
                }
                entry => entry?,
            };
            let row = Fields::of(row.value(), "a row of the journal")?;
            rows.push(JournalRow {
                sequence: sequence.value(),
                key: row.key()?,
                op: row.text("op")?.to_owned(),
                owner: row.text_or_null("owner")?.map(str::to_owned),
            });
        }
        Ok(JournalWindow { rows, oldest, last })
    }
}

impl Tx<'_> {
    pub(in crate::store) fn append_journal(
        &mut self,
        key: &RecordKey,
        old: Option<&RawDocument>,
        new: Option<&RawDocument>,
        paths: &[String],
        actor: &Actor,
    ) -> Result<(), StoreError> {
        if paths.is_empty() {
            return Ok(());
        }
        let op = match (old, new) {
            (None, _) => "create",
            (_, None) => "delete",
            _ => "update",
        };
        let schema = key.kind.schema();
        let owner = new.or(old).and_then(|document| schema.owner_in(document));
        self.audit_change(key, op, paths, owner.as_deref(), actor)?;
        self.rights_changed_after(key, op, paths)?;
        self.closed_after(key, (old, new), actor)?;
        let row = rawdoc! {
            "kind": i32::from(schema.code), "id": key.id.as_str(), "op": op,
            "paths": paths.iter().map(String::as_str).collect::<RawArrayBuf>(),
            "actor": actor.to_string(), "owner": owner.map_or(RawBson::Null, RawBson::String), "at": self.now_ms,
        };
        self.sequence += 1;
        if !self.carry.is_boot_kept {
            self.note_boot(self.sequence)?;
            self.carry.is_boot_written = true;
        }
        self.journal.insert(self.sequence, row.as_bytes())?;
        if let Some(expired) = self.sequence.checked_sub(self.journal_keep_rows) {
            self.journal.remove(expired)?;
        }
        self.writes += 1;
        Ok(())
    }

    /// Has the change feed begin behind this number: readers start over.
    pub(in crate::store) fn begin_journal_after(&mut self, sequence: u64) -> Result<(), StoreError> {
        self.journal.clear()?;
        self.meta.insert(META_JOURNAL_START, sequence.to_be_bytes().as_slice())?;
        self.sequence = sequence;
        self.writes += 1;
        Ok(())
    }

    /// An entry of the change feed for a record that was taken out of the store unread.
    pub(in crate::store) fn journal_gone(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        let actor = self.asker.as_ref().map_or(Actor::Centre, |asker| asker.who.clone()).to_string();
        let paths: RawArrayBuf = [""].into_iter().collect();
        let row = rawdoc! {
            "kind": i32::from(key.kind.schema().code), "id": key.id.as_str(), "op": "delete",
            "paths": paths,
            "actor": actor, "owner": RawBson::Null, "at": self.now_ms,
        };
        self.sequence += 1;
        self.journal.insert(self.sequence, row.as_bytes())?;
        self.writes += 1;
        Ok(())
    }
}
