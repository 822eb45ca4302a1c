//! Floor 1. Own writes that landed at the centre, and those of which the change feed is still to tell.

use bson::doc;
use redb::{ReadableTable, ReadableTableMetadata as _};

use super::intents::{Intent, IntentWrite};
use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Fields, encode, row_key};
use crate::store::schema::{ECHO, SENT};

/// Landed writes that are remembered, the latest.
const SENT_ROWS_MAX: u64 = 50_000;

/// A write of this node that is known to have landed.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub sequence: u64,
    pub key: RecordKey,
    /// Number of the lease under which it was sent.
    pub lease: i64,
    /// Number of the push.
    pub number: u64,
    /// Who made the edit, or the last of several; empty if that is not known.
    pub author: String,
    /// Inserted and replaced documents are not kept a second time: they are empty here.
    pub write: IntentWrite,
}

impl Sent {
    pub(crate) fn decode(sequence: u64, bytes: &[u8]) -> Result<Sent, StoreError> {
        let row = Fields::of(bytes, "a row of sent writes")?;
        Ok(Sent {
            sequence,
            key: row.key()?,
            lease: row.int64("lease")?,
            number: row.count("number")?,
            author: row.text_if_any("author")?.unwrap_or_default().to_owned(),
            write: IntentWrite::decode(row)?,
        })
    }
}

impl Tx<'_> {
    /// Remembers a write that landed under this lease. `is_echo_due`: the change feed is going to tell of it.
    pub fn note_sent(
        &mut self,
        key: &RecordKey,
        intent: &Intent,
        lease: i64,
        is_echo_due: bool,
    ) -> Result<(), StoreError> {
        let last = self.sent.keys::<u64>(..)?.next_back().transpose()?;
        let sequence = last.map_or(0, |last| last.value()) + 1;
        self.sent_at = None;
        let mut row = intent.write.without_bodies().encode(intent.number);
        let (code, id) = row_key(key);
        row.extend(doc! {"kind": i32::from(code), "id": id, "lease": lease});
        if !intent.author.is_empty() {
            row.insert("author", &intent.author);
        }
        self.sent.insert(sequence, encode(&row)?.as_slice())?;
        if is_echo_due {
            self.echo.insert((code, id, sequence), ())?;
        }
        if let Some(expired) = sequence.checked_sub(SENT_ROWS_MAX) {
            self.sent.remove(expired)?;
        }
        self.wrote();
        Ok(())
    }

    /// The change feed has told of the write with this number among those that landed ([`Sent::sequence`]).
    pub fn echoed(&mut self, key: &RecordKey, sequence: u64) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        self.echo.remove((code, id, sequence))?;
        self.wrote();
        Ok(())
    }

    /// The change feed has told of the write with this number, which was settled meanwhile. Returns whether that
    /// was expected.
    pub fn echoed_push(&mut self, key: &RecordKey, number: u64) -> Result<bool, StoreError> {
        let (code, id) = row_key(key);
        let mut due = Vec::new();
        for entry in self.echo.range((code, id, 0)..=(code, id, u64::MAX))? {
            let (at, ()) = (entry?.0, ());
            due.push(at.value().2);
        }
        for sequence in due {
            let row = unless_damaged(self.sent.get(sequence))?.flatten();
            let sent = row.map(|row| Sent::decode(sequence, row.value())).transpose()?;
            if let Some(sent) = sent.filter(|sent| sent.number == number) {
                self.echoed(key, sent.sequence)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets which writes landed: they were another node's.
    pub fn forget_sent(&mut self) -> Result<(), StoreError> {
        if !self.sent.is_empty()? {
            self.sent.clear()?;
            self.wrote();
        }
        self.forget_echoes()
    }

    /// No echo will come: the history is lost, or there is none.
    pub fn forget_echoes(&mut self) -> Result<(), StoreError> {
        if !self.echo.is_empty()? {
            self.echo.retain(|_, ()| false)?;
            self.wrote();
        }
        Ok(())
    }
}

impl Snapshot {
    /// Own landed writes of a record that the change feed has not told of yet, oldest first.
    pub fn expected_echoes(&self, key: &RecordKey) -> Result<Vec<Sent>, StoreError> {
        let echo = self.transaction.open_table(ECHO)?;
        let sent = self.transaction.open_table(SENT)?;
        let (code, id) = row_key(key);
        let mut found = Vec::new();
        for entry in echo.range((code, id, 0)..=(code, id, u64::MAX))? {
            let (at, ()) = (entry?.0, ());
            let (_, _, sequence) = at.value();
            // Trimmed meanwhile, or damaged: its event counts as somebody else's.
            if let Some(row) = unless_damaged(sent.get(sequence))?.flatten() {
                found.push(Sent::decode(sequence, row.value())?);
            }
        }
        Ok(found)
    }

    /// Own landed writes under leases from `lease` on, oldest first.
    pub fn sent_since(&self, lease: i64) -> Result<Vec<Sent>, StoreError> {
        let sent = self.transaction.open_table(SENT)?;
        let mut found = Vec::new();
        for entry in sent.iter()?.sound().rev() {
            let (sequence, row) = entry?;
            let sent = Sent::decode(sequence.value(), row.value())?;
            if sent.lease < lease {
                break;
            }
            found.push(sent);
        }
        found.reverse();
        Ok(found)
    }
}
