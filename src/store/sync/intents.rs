//! Floor 1. Open writes: sent to the centre, and their fate is not settled.

use bson::{Bson, Document, doc};

use super::rereads::Reread;
use crate::domain::access::Actor;
use crate::domain::diff::{self, Change};
use crate::domain::json::weight;
use crate::domain::moment::Moment;
use crate::domain::record::RecordKey;
use crate::flaw::{Flaw, planted};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{Base, Fields, damaged, encode, insert_some, kind_of, raw, row_key};
use crate::store::schema::INTENT;

/// A write that was sent to the centre and whose fate is not settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Counts up over all pushes of this node.
    pub number: u64,
    /// It was sent after this moment of the centre's history, if that is known: what was told of earlier ones
    /// is somebody else's.
    pub after: Option<Moment>,
    /// Who made the edit, or the last of several; empty if that is not known.
    pub author: String,
    pub write: IntentWrite,
}

/// What was sent; the base row holds what it was compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum IntentWrite {
    Insert(Document),
    Update(Vec<Change>),
    Replace(Document),
    /// With the `_id` of the body archived in `edge_trash`.
    Delete {
        archive: String,
    },
}

/// What is known of an open write without reading what it writes: many of them are kept at a time, and what they write may
/// be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWrite {
    /// [`Intent::number`].
    pub number: u64,
    /// What it takes while it is worked with ([`weight::of_decoded`]).
    pub weight: usize,
    kind: OpenKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OpenKind {
    /// An insert or a replacement.
    Body,
    Update,
    Delete {
        archive: String,
    },
}

impl OpenWrite {
    pub(crate) fn decode(bytes: &[u8]) -> Result<OpenWrite, StoreError> {
        let row = Fields::of(bytes, "an intent")?;
        let kind = match row.word("op", Op::named)? {
            Op::Insert | Op::Replace => OpenKind::Body,
            Op::Update => OpenKind::Update,
            Op::Delete => OpenKind::Delete { archive: row.text("archive")?.to_owned() },
        };
        Ok(OpenWrite { number: row.count("number")?, weight: weight::of_decoded(raw(bytes)?), kind })
    }

    /// Whether it writes a whole document.
    pub fn has_body(&self) -> bool {
        self.kind == OpenKind::Body
    }

    /// For a delete the `_id` of the body archived in `edge_trash`.
    pub fn archive(&self) -> Option<&str> {
        match &self.kind {
            OpenKind::Delete { archive } => Some(archive),
            OpenKind::Body | OpenKind::Update => None,
        }
    }
}

impl Intent {
    pub(crate) fn encode(&self) -> Document {
        let mut row = self.write.encode(self.number);
        insert_some(&mut row, "after", &self.after.map(|Moment(after)| Bson::Int64(after as i64)));
        if !self.author.is_empty() {
            row.insert("author", &self.author);
        }
        row
    }
}

impl IntentWrite {
    /// The centre's version after this write hit `base`.
    pub fn applied_to(&self, base: &Base) -> Base {
        match self {
            IntentWrite::Insert(document) | IntentWrite::Replace(document) => {
                Base::Document(document.clone())
            }
            IntentWrite::Delete { .. } => Base::Absent,
            IntentWrite::Update(changes) => {
                let mut document = base.document().cloned().unwrap_or_default();
                for change in changes {
                    diff::set(&mut document, &change.path, change.to.clone());
                }
                Base::Document(document)
            }
        }
    }

    /// The document of an insert.
    pub(crate) fn into_insert(self) -> Option<Document> {
        match self {
            IntentWrite::Insert(document) => Some(document),
            IntentWrite::Replace(_) | IntentWrite::Update(_) | IntentWrite::Delete { .. } => None,
        }
    }

    /// The same without inserted and replaced documents, and without what was archived.
    pub(crate) fn without_bodies(&self) -> IntentWrite {
        match self {
            IntentWrite::Insert(_) => IntentWrite::Insert(Document::new()),
            IntentWrite::Replace(_) => IntentWrite::Replace(Document::new()),
            IntentWrite::Update(_) | IntentWrite::Delete { .. } => self.clone(),
        }
    }

    pub(crate) fn encode(&self, number: u64) -> Document {
        let number = number as i64;
        match self {
            IntentWrite::Insert(document) => {
                doc! {"number": number, "op": Op::Insert.name(), "document": document}
            }
            IntentWrite::Replace(document) => {
                doc! {"number": number, "op": Op::Replace.name(), "document": document}
            }
            IntentWrite::Delete { archive } => {
                doc! {"number": number, "op": Op::Delete.name(), "archive": archive}
            }
            IntentWrite::Update(changes) => {
                let changes: Vec<Document> = changes.iter().map(encode_change).collect();
                doc! {"number": number, "op": Op::Update.name(), "changes": changes}
            }
        }
    }

    pub(crate) fn decode(row: Fields<'_>) -> Result<IntentWrite, StoreError> {
        IntentWrite::decode_with(row, |row| row.document("document"))
    }

    /// `document` tells the document of a write that has one.
    fn decode_with(
        row: Fields<'_>,
        document: impl Fn(Fields<'_>) -> Result<Document, StoreError>,
    ) -> Result<IntentWrite, StoreError> {
        Ok(match row.word("op", Op::named)? {
            Op::Insert => IntentWrite::Insert(document(row)?),
            Op::Replace => IntentWrite::Replace(document(row)?),
            Op::Delete => IntentWrite::Delete { archive: row.text("archive")?.to_owned() },
            Op::Update => {
                let changes = row.rows("changes")?.into_iter().map(decode_change);
                IntentWrite::Update(changes.collect::<Result<_, _>>()?)
            }
        })
    }
}

/// What a write does, as rows name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Insert,
    Replace,
    Update,
    Delete,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Replace => "replace",
            Op::Update => "update",
            Op::Delete => "delete",
        }
    }

    fn named(name: &str) -> Option<Op> {
        [Op::Insert, Op::Replace, Op::Update, Op::Delete].into_iter().find(|op| op.name() == name)
    }
}

fn encode_change(change: &Change) -> Document {
    let mut row = doc! {"path": change.path.clone()};
    insert_some(&mut row, "from", &change.from);
    insert_some(&mut row, "to", &change.to);
    row
}

fn decode_change(row: Fields<'_>) -> Result<Change, StoreError> {
    Ok(Change { path: row.texts("path")?, from: row.value_if_any("from")?, to: row.value_if_any("to")? })
}

const PUSH_NUMBER: &str = "push_number";

impl Tx<'_> {
    /// The number of the next push; the numbers order reads and writes of one record.
    pub fn next_push_number(&mut self) -> Result<u64, StoreError> {
        let next = self.push_number()? + 1;
        self.set_meta(PUSH_NUMBER, Some(&doc! {"number": next as i64}))?;
        Ok(next)
    }

    /// The number of the last push.
    pub fn push_number(&self) -> Result<u64, StoreError> {
        let row = self.meta(PUSH_NUMBER)?;
        let number = row.map(|row| row.get_i64("number").map_err(|_| damaged("the number of the last push")));
        Ok(number.transpose()?.map_or(0, |number| number as u64))
    }

    pub fn intent(&self, key: &RecordKey) -> Result<Option<Intent>, StoreError> {
        let Some(row) = self.intent.get(row_key(key))? else {
            return Ok(None);
        };
        decode_intent(row.value()).map(Some)
    }

    /// [`Tx::intent`] without what it writes.
    pub(crate) fn open_write(&self, key: &RecordKey) -> Result<Option<OpenWrite>, StoreError> {
        self.intent.get(row_key(key))?.map(|row| OpenWrite::decode(row.value())).transpose()
    }

    /// [`Tx::intent`] with an empty document in place of the one that it writes.
    fn intent_without_body(&self, key: &RecordKey) -> Result<Option<Intent>, StoreError> {
        let Some(stored) = self.intent.get(row_key(key))? else {
            return Ok(None);
        };
        let row = Fields::of(stored.value(), "an intent")?;
        intent_in(row, IntentWrite::decode_with(row, |_| Ok(Document::new()))?).map(Some)
    }

    /// Notes that a write is about to be sent; the record is neither clean nor merged until it is settled.
    pub fn open_intent(&mut self, key: &RecordKey, intent: &Intent) -> Result<(), StoreError> {
        let row = encode(&intent.encode())?;
        self.intent.insert(row_key(key), row.as_slice())?;
        self.touch(key);
        self.owe_pushed(key)?;
        self.wrote();
        Ok(())
    }

    /// Settles the intent with this number, if it is still open. `landed`: the centre holds what was sent.
    ///
    /// The base becomes what was SENT, not what the record is now: it may have been edited meanwhile.
    /// Returns the intent if it was open; the one of a record that is what was sent comes without its document.
    pub fn settle_intent(
        &mut self,
        key: &RecordKey,
        number: u64,
        landed: bool,
    ) -> Result<Option<Intent>, StoreError> {
        if self.open_write(key)?.is_none_or(|open| open.number != number) {
            return Ok(None);
        }
        let is_as_sent = landed && self.is_as_sent(key)?;
        let Some(intent) = (if is_as_sent { self.intent_without_body(key)? } else { self.intent(key)? })
        else {
            return Ok(None);
        };
        self.intent.remove(row_key(key))?;
        self.forget_landed(key)?;
        self.wrote();
        self.touch(key);
        if landed {
            self.clear_ghost(key)?;
            // What the centre took it for was there: somebody has put it back, which its next reading looks at.
            if self.clear_vanished(key)? {
                self.ask_again(key, Reread::of_deleted())?;
            }
        }
        if is_as_sent {
            self.drop_base(key)?;
            return Ok(Some(intent));
        }
        let was = self.base(key)?;
        let document = self.document(key)?;
        let agreed = match landed {
            true if planted(Flaw::BaseIsWholeLocal) => Some(document.clone().into()),
            true => Some(intent.write.applied_to(&was)),
            false => None,
        };
        self.put_base(key, &was, document.as_ref(), agreed.as_ref().unwrap_or(&was), &Actor::Centre)?;
        if let (true, IntentWrite::Insert(sent), Some(now)) = (landed, &intent.write, &document) {
            self.has_come_there(key, sent, now)?;
        }
        Ok(Some(intent))
    }

    /// Whether the open write of a record sent exactly what it is now.
    fn is_as_sent(&self, key: &RecordKey) -> Result<bool, StoreError> {
        match (self.intent.get(row_key(key))?, self.docs.get(row_key(key))?) {
            (Some(intent), Some(record)) => writes_exactly(intent.value(), record.value()),
            _ => Ok(false),
        }
    }

    /// Drops the intent with this number: nothing of it was seen at the centre, so it did not land. Should it
    /// arrive late all the same, it is recognized ([`Tx::ghost`]).
    pub fn give_up_intent(&mut self, key: &RecordKey, number: u64) -> Result<bool, StoreError> {
        let Some(intent) = self.intent(key)?.filter(|intent| intent.number == number) else {
            return Ok(false);
        };
        self.put_ghost(key, &intent)?;
        Ok(self.settle_intent(key, number, false)?.is_some())
    }

    fn touch(&mut self, key: &RecordKey) {
        self.carry.touches += 1;
        self.carry.touched.insert(key.clone(), self.carry.touches);
    }

    /// How many intents were opened and settled by now, in this process: for [`Tx::is_read_stale`].
    pub fn touches(&self) -> u64 {
        self.carry.touches
    }

    /// Whether a read of the record that was sent after `read_at` touches may be too old to be applied:
    /// an intent is open, or was opened or settled since.
    pub fn is_read_stale(&self, key: &RecordKey, read_at: u64) -> Result<bool, StoreError> {
        let touched_since = self.carry.touched.get(key).is_some_and(|touched| *touched > read_at);
        Ok((touched_since && !planted(Flaw::StaleReadApplied))
            || (self.has_intent(key)? && !planted(Flaw::MergeWithOpenIntent)))
    }

    /// Forgets old intents; only while no read is on its way.
    pub fn forget_touched(&mut self) {
        self.carry.touched.clear();
    }
}

impl Snapshot {
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

    /// Whether a write of the record is on its way, or waits for a seal.
    pub fn has_intent(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.transaction.open_table(INTENT)?.contains(row_key(key))
    }

    /// The writes that are open, without what they write.
    pub fn intents(&self) -> Result<Vec<(RecordKey, OpenWrite)>, StoreError> {
        let intent = self.transaction.open_table(INTENT)?;
        let mut intents = Vec::new();
        for entry in intent.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            intents.push((RecordKey::new(kind_of(code)?, id), OpenWrite::decode(row.value())?));
        }
        Ok(intents)
    }
}

/// Whether the stored intent inserts, or puts in place of what was there, exactly this document: their bytes tell, without
/// decoding them. That it says no means nothing.
pub(crate) fn writes_exactly(intent: &[u8], document: &[u8]) -> Result<bool, StoreError> {
    Ok(raw(intent)?.get_document("document").is_ok_and(|written| written.as_bytes() == document))
}

pub(crate) fn decode_intent(bytes: &[u8]) -> Result<Intent, StoreError> {
    let row = Fields::of(bytes, "an intent")?;
    intent_in(row, IntentWrite::decode(row)?)
}

fn intent_in(row: Fields<'_>, write: IntentWrite) -> Result<Intent, StoreError> {
    Ok(Intent {
        number: row.count("number")?,
        // From 2038 on its highest bit is set: the number is kept, not its sign.
        after: row.int64_if_any("after")?.map(|after| Moment(after as u64)),
        author: row.text_if_any("author")?.unwrap_or_default().to_owned(),
        write,
    })
}
