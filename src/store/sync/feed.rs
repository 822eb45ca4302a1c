//! Floor 1. What the reconciliation keeps about news from the centre: records to be read again, records that
//! vanished there, own writes that landed and whose echo is still to come, and writes that were given up.

use std::collections::BTreeSet;

use redb::{ReadableTable, ReadableTableMetadata as _};

use bson::doc;

use super::intents::{Intent, IntentWrite, OpenWrite, decode_intent};
use crate::domain::record::{RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{
    BaseRow, Checked, DELETE_RANK_MIN, Fields, RowKey, decode, encode, kind_of, row_key,
};
use crate::store::schema::{BASE, DIRTY, DOCS, ECHO, INTENT, REREAD, SENT, VANISHED, VANISHED_TOLD};

/// Landed writes that are remembered, the latest.
const SENT_ROWS_MAX: u64 = 50_000;

/// Why and how a record is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reread {
    /// Something happened at the centre that may have been the record's open write.
    pub is_unclear: bool,
    /// Too large to be asked for together with others.
    pub is_alone: bool,
    /// It was deleted at the centre; if it is there again, somebody has put it back.
    pub is_deleted: bool,
    /// The change feed has told that it was deleted. Carried out at once, see [`Vanished::is_told`].
    pub is_told: bool,
    /// What the centre holds could not be read. The row only keeps the mark `is_deleted` until it can: the record is not
    /// read again before it changes at the centre or somebody asks for it.
    pub is_unreadable: bool,
    /// Rounds in which asking for it alone failed.
    pub tries: u8,
}

impl Reread {
    const UNCLEAR: u8 = 1;
    const ALONE: u8 = 2;
    const TRIES_SHIFT: u32 = 2;
    const TRIES_MAX: u8 = 0b111;
    const TOLD: u8 = 32;
    const UNREADABLE: u8 = 64;
    const DELETED: u8 = 128;

    fn encode(self) -> u8 {
        (self.tries.min(Self::TRIES_MAX) << Self::TRIES_SHIFT)
            | if self.is_unclear { Self::UNCLEAR } else { 0 }
            | if self.is_alone { Self::ALONE } else { 0 }
            | if self.is_told { Self::TOLD } else { 0 }
            | if self.is_unreadable { Self::UNREADABLE } else { 0 }
            | if self.is_deleted { Self::DELETED } else { 0 }
    }

    fn decode(bits: u8) -> Reread {
        Reread {
            is_unclear: bits & Self::UNCLEAR != 0,
            is_alone: bits & Self::ALONE != 0,
            is_deleted: bits & Self::DELETED != 0,
            is_told: bits & Self::TOLD != 0,
            is_unreadable: bits & Self::UNREADABLE != 0,
            tries: bits >> Self::TRIES_SHIFT & Self::TRIES_MAX,
        }
    }

    /// To be read again because it was deleted at the centre.
    pub fn of_deleted() -> Reread {
        Reread { is_deleted: true, ..Reread::default() }
    }

    /// Both reasons together, for a record that is to be read.
    fn with(self, other: Reread) -> Reread {
        Reread {
            is_unclear: self.is_unclear || other.is_unclear,
            is_alone: self.is_alone || other.is_alone,
            is_deleted: self.is_deleted || other.is_deleted,
            is_told: self.is_told || other.is_told,
            is_unreadable: false,
            tries: self.tries.max(other.tries),
        }
    }
}

/// A record that was here as the centre knew it, and is gone there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vanished {
    pub key: RecordKey,
    /// The operator agrees that it goes here too.
    pub is_accepted: bool,
    /// The change feed has told of the delete. Otherwise a sweep has missed the record.
    pub is_told: bool,
}

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
    /// Asks for the record to be read again, whatever else is known of it.
    pub fn ask_again(&mut self, key: &RecordKey, why: Reread) -> Result<(), StoreError> {
        let known = self.reread_of(key)?;
        let why = known.unwrap_or_default().with(why);
        if known != Some(why) {
            self.reread.insert(row_key(key), why.encode())?;
            self.wrote();
        }
        Ok(())
    }

    /// Asks for the record to be read again as if it had changed at the centre.
    pub(crate) fn request_reread(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        self.ask_again(key, Reread::default())
    }

    /// The record has been read again, and what the centre holds is unreadable. That it was deleted there is remembered
    /// until it can be read: then it was put back, and is compared.
    pub fn read_unreadable(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        let was_vanished = self.clear_vanished(key)?;
        if !was_vanished && !self.reread_of(key)?.is_some_and(|why| why.is_deleted) {
            return self.read_again(key);
        }
        let kept = Reread { is_unreadable: true, ..Reread::of_deleted() };
        if self.reread_of(key)? != Some(kept) {
            self.reread.insert(row_key(key), kept.encode())?;
            self.wrote();
        }
        Ok(())
    }

    /// The record has been read again.
    pub fn read_again(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        self.carry.stopped.remove(key);
        if self.reread.remove(row_key(key))?.is_some() {
            self.wrote();
        }
        Ok(())
    }

    /// What happened at the centre may include any open write: no history tells.
    pub fn doubt_intents(&mut self) -> Result<(), StoreError> {
        let mut open = Vec::new();
        for at in self.intent.keys::<(u8, &str)>(..)? {
            let at = at?;
            let (code, id) = at.value();
            open.push(RecordKey::new(kind_of(code)?, id));
        }
        for key in open {
            self.ask_again(&key, Reread { is_unclear: true, ..Reread::default() })?;
        }
        Ok(())
    }

    /// What is noted about reading the record again, be it due or not.
    pub fn reread_of(&self, key: &RecordKey) -> Result<Option<Reread>, StoreError> {
        Ok(self.reread.get(row_key(key))?.map(|row| Reread::decode(row.value())))
    }

    /// Whether the record is to be read again, and why.
    pub fn reread_due(&self, key: &RecordKey) -> Result<Option<Reread>, StoreError> {
        Ok(self.reread_of(key)?.filter(|why| !why.is_unreadable))
    }

    /// Whether any record is to be read again.
    pub(crate) fn has_reread_due(&self) -> Result<bool, StoreError> {
        for entry in self.reread.iter()? {
            if !Reread::decode(entry?.1.value()).is_unreadable {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the centre has of a record that is to be read again could not be taken, because a damaged row is in the way.
    pub(crate) fn note_stopped(&mut self, key: &RecordKey) {
        self.carry.stopped.insert(key.clone());
    }

    /// Whether any record is to be read again for which a reading can do something: not one whose write is on the way, and not
    /// one that waits for a damaged row.
    pub(crate) fn has_unread(&self) -> Result<bool, StoreError> {
        for entry in self.reread.iter()? {
            let (at, why) = entry?;
            let (code, id) = at.value();
            let is_due = !Reread::decode(why.value()).is_unreadable && !self.intent.contains((code, id))?;
            if is_due && !self.carry.stopped.contains(&RecordKey::new(kind_of(code)?, id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes that the centre no longer has a record that is clean here.
    pub fn put_vanished(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.vanished.get(row_key(key))?.is_none() {
            self.vanished.insert(row_key(key), false)?;
            self.vanished_told.remove(row_key(key))?;
            self.wrote();
        }
        Ok(())
    }

    /// Notes that the change feed has told of the delete of a record, if the record is noted as vanished.
    pub fn note_vanished_told(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.vanished.get(row_key(key))?.is_some()
            && self.vanished_told.insert(row_key(key), ())?.is_none()
        {
            self.wrote();
        }
        Ok(())
    }

    /// Returns whether the record was noted as vanished.
    pub fn clear_vanished(&mut self, key: &RecordKey) -> Result<bool, StoreError> {
        self.vanished_told.remove(row_key(key))?;
        let was_noted = self.vanished.remove(row_key(key))?.is_some();
        if was_noted {
            self.wrote();
        }
        Ok(was_noted)
    }

    /// The operator agrees to everything that is noted as vanished now.
    pub fn accept_vanished(&mut self) -> Result<(), StoreError> {
        for key in self.vanished_keys()? {
            self.vanished.insert(row_key(&key), true)?;
            self.wrote();
        }
        Ok(())
    }

    pub fn vanished_keys(&self) -> Result<Vec<RecordKey>, StoreError> {
        let mut keys = Vec::new();
        for entry in self.vanished.iter()? {
            let (at, _) = entry?;
            let (code, id) = at.value();
            keys.push(RecordKey::new(kind_of(code)?, id));
        }
        Ok(keys)
    }

    /// Records deleted here that the centre still has, with their place in the push order.
    pub fn pending_deletes(&self) -> Result<Vec<(RecordKey, u64)>, StoreError> {
        deletes_in(&self.dirty)
    }

    /// The accounts whose records were deleted here while the centre has them still, folded.
    pub fn accounts_of_pending_deletes(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut accounts = BTreeSet::new();
        for (key, _) in self.pending_deletes()? {
            accounts.extend(account_deleted_from(&self.base, &key)?);
        }
        Ok(accounts)
    }

    /// Whether `account` is one of [`Tx::accounts_of_pending_deletes`].
    pub fn has_pending_deletes_of(&self, account: &str) -> Result<bool, StoreError> {
        let account = fold_account(account);
        for entry in self.dirty.range((DELETE_RANK_MIN, 0, 0, "")..)? {
            let (at, _) = entry?;
            let (_, _, code, id) = at.value();
            let owner = account_deleted_from(&self.base, &RecordKey::new(kind_of(code)?, id))?;
            if owner.is_some_and(|owner| owner == account) {
                return Ok(true);
            }
        }
        Ok(false)
    }

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

    /// Keeps a write that did not land as far as anybody can tell: it may still arrive, if it lingers in
    /// the network.
    pub(crate) fn put_ghost(&mut self, key: &RecordKey, intent: &Intent) -> Result<(), StoreError> {
        let row = encode(&intent.encode())?;
        self.ghost.insert(row_key(key), row.as_slice())?;
        self.wrote();
        Ok(())
    }

    pub fn ghost(&self, key: &RecordKey) -> Result<Option<IntentWrite>, StoreError> {
        let row = self.ghost.get(row_key(key))?;
        row.map(|row| Ok(decode_intent(row.value())?.write)).transpose()
    }

    pub fn clear_ghost(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.ghost.remove(row_key(key))? {
            self.wrote();
        }
        Ok(())
    }
}

impl Snapshot {
    /// Records to be read again after `after`, at most `max`, without those whose write is on the way.
    pub fn to_read_again(
        &self,
        after: Option<&RecordKey>,
        max: usize,
    ) -> Result<Vec<(RecordKey, Reread)>, StoreError> {
        let reread = self.transaction.open_table(REREAD)?;
        let intent = self.transaction.open_table(INTENT)?;
        let start = after.map_or(std::ops::Bound::Unbounded, |key| std::ops::Bound::Excluded(row_key(key)));
        let mut found = Vec::new();
        for entry in reread.range::<(u8, &str)>((start, std::ops::Bound::Unbounded))? {
            let (at, why) = entry?;
            let (code, id) = at.value();
            let why = Reread::decode(why.value());
            if !why.is_unreadable && !intent.contains((code, id))? {
                found.push((RecordKey::new(kind_of(code)?, id), why));
            }
            if found.len() >= max {
                break;
            }
        }
        Ok(found)
    }

    /// Why the record is to be read again, if it is.
    pub fn reread(&self, key: &RecordKey) -> Result<Option<Reread>, StoreError> {
        let reread = self.transaction.open_table(REREAD)?;
        Ok(reread.get(row_key(key))?.map(|row| Reread::decode(row.value())))
    }

    pub fn vanished(&self) -> Result<Vec<Vanished>, StoreError> {
        let vanished = self.transaction.open_table(VANISHED)?;
        let told = self.transaction.open_table(VANISHED_TOLD)?;
        let mut rows = Vec::new();
        for entry in vanished.iter()? {
            let (at, is_accepted) = entry?;
            let (code, id) = at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            let is_told = told.get((code, id))?.is_some();
            rows.push(Vanished { key, is_accepted: is_accepted.value(), is_told });
        }
        Ok(rows)
    }

    /// Records deleted here that the centre still has, with their place in the push order.
    pub fn pending_deletes(&self) -> Result<Vec<(RecordKey, u64)>, StoreError> {
        deletes_in(&self.transaction.open_table(DIRTY)?)
    }

    /// Whose these records were, which were deleted here and are not yet at the centre; accounts, folded.
    pub fn accounts_of(&self, deleted: &[RecordKey]) -> Result<BTreeSet<String>, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let accounts = deleted.iter().filter_map(|key| account_deleted_from(&base, key).transpose());
        accounts.collect()
    }

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

    /// The open write of a record.
    pub fn intent(&self, key: &RecordKey) -> Result<Option<Intent>, StoreError> {
        let intent = self.transaction.open_table(INTENT)?;
        intent.get(row_key(key))?.map(|row| decode_intent(row.value())).transpose()
    }

    /// [`Snapshot::intent`] without what it writes.
    pub fn open_write(&self, key: &RecordKey) -> Result<Option<OpenWrite>, StoreError> {
        let intent = self.transaction.open_table(INTENT)?;
        intent.get(row_key(key))?.map(|row| OpenWrite::decode(row.value())).transpose()
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

/// Whose a record was that was deleted here while the centre has it still, folded. What cannot be read is not sent, and is told
/// otherwise.
fn account_deleted_from<T: ReadableTable<RowKey, &'static [u8]>>(
    base: &Checked<T, RowKey>,
    key: &RecordKey,
) -> Result<Option<String>, StoreError> {
    let schema = key.kind.schema();
    let Owner::Field(_) = schema.owner else {
        return Ok(None);
    };
    let owner = |bytes: &[u8]| -> Result<Option<String>, StoreError> {
        Ok(BaseRow::body(bytes)?.and_then(|body| schema.owner_in(body)))
    };
    let row = base.get(row_key(key)).and_then(|row| row.map(|row| owner(row.value())).transpose());
    Ok(unless_damaged(row)?.flatten().flatten())
}

fn deletes_in(
    dirty: &impl ReadableTable<(u8, u64, u8, &'static str), (i64, &'static str)>,
) -> Result<Vec<(RecordKey, u64)>, StoreError> {
    let mut found = Vec::new();
    for entry in dirty.range((DELETE_RANK_MIN, 0, 0, "")..)? {
        let (at, _) = entry?;
        let (_, sequence, code, id) = at.value();
        found.push((RecordKey::new(kind_of(code)?, id), sequence));
    }
    Ok(found)
}
