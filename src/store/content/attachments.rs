//! Floor 1. Attachments: the bytes in chunks, who names them, and what is to be fetched, sent or let go.
//!
//! Hides four tables that follow the records: whenever a document comes to name content, in the same
//! transaction the name becomes *wanted* (its bytes are not all here) or *owed* (they are, and the centre may
//! lack them). Once no document names it any more, a want is dropped with the chunks that came so far, and
//! bytes that are all here become *idle*: they stay until somebody has made sure that nothing else names
//! them and that the centre has them.
//!
//! Chunks of wanted content are written in order, so how many there are says where to go on.

use std::collections::BTreeSet;
use std::ops::Bound;

use bson::RawDocument;
use redb::{ReadableTable, ReadableTableMetadata};

use crate::domain::content::{CONTENT_CHUNK_BYTES, Content, EMPTY_CONTENT, has_content, names_within};
use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Base, Checked, damaged, decode, kind_of, row_key};
use crate::store::schema::{
    BASE, CONFLICT, CONTENT, CONTENT_IDLE, CONTENT_NAMED, CONTENT_OWED, CONTENT_WANTED, INTENT, TRASH,
};

/// Content that a document names and whose bytes are not all here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedContent {
    pub sha256: String,
    /// In bytes, as a document says.
    pub length: u64,
    /// Lease number of the last round whose fetch came out wrong; 0 if none did.
    pub failed_at: i64,
}

/// Content that is here and that the centre is not known to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedContent {
    pub sha256: String,
    /// In bytes, as a document says.
    pub length: u64,
    pub media_type: String,
}

/// Idle content, by what else names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IdleContents {
    /// Named by a version agreed with the centre or by a write on its way: not for long.
    pub moving: Vec<String>,
    /// Named by a conflict or by a body in the trash.
    pub kept: Vec<String>,
    /// Named by nothing here.
    pub free: Vec<String>,
}

/// How many contents, and how many bytes of them are to travel yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentsLeft {
    pub count: u64,
    pub bytes: u64,
}

/// As [`crate::store::DamagedRow`] names the table of chunks.
pub const CONTENT_TABLE: &str = "content";

type Chunks = (&'static str, u32);

fn is_here(
    chunks: &Checked<impl ReadableTable<Chunks, &'static [u8]>, Chunks>,
    wanted: &impl ReadableTable<&'static str, (u64, i64)>,
    sha256: &str,
) -> Result<bool, StoreError> {
    Ok(sha256 == EMPTY_CONTENT || chunks.contains((sha256, 0))? && wanted.get(sha256)?.is_none())
}

/// How many chunks are here, the first ones.
fn count_chunks(
    chunks: &Checked<impl ReadableTable<Chunks, &'static [u8]>, Chunks>,
    sha256: &str,
) -> Result<u32, StoreError> {
    let last = chunks.keys((sha256, 0)..=(sha256, u32::MAX))?.next_back().transpose()?;
    Ok(last.map_or(0, |at| at.value().1 + 1))
}

impl Tx<'_> {
    /// Brings the tables to what follows from a record's document being `new` instead of `old`.
    pub(crate) fn follow_content(
        &mut self,
        key: &RecordKey,
        old: Option<&RawDocument>,
        new: Option<&RawDocument>,
    ) -> Result<(), StoreError> {
        let content = |document: Option<&RawDocument>| document.and_then(|d| Content::named_in(key.kind, d));
        let (old, new) = (content(old), content(new));
        let is_same = |other: &Option<Content>, content: &Content| {
            other.as_ref().is_some_and(|other| other.sha256 == content.sha256)
        };
        // First, so that content that moves between records is never without a name.
        if let Some(content) = new.as_ref().filter(|new| !is_same(&old, new)) {
            self.name_content(key, content)?;
        }
        match old.filter(|old| !is_same(&new, old)) {
            Some(content) => self.unname_content(key, &content.sha256),
            None => Ok(()),
        }
    }

    fn name_content(&mut self, key: &RecordKey, content: &Content) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        self.content_named.insert((content.sha256.as_str(), code, id), ())?;
        self.content_idle.remove(content.sha256.as_str())?;
        self.queue_content(content)
    }

    /// Puts content that a record's document names into the queue that it belongs to.
    ///
    /// Bytes that are here are owed even if the document came from the centre: whoever wrote it there may
    /// not have sent them yet, and may never come to.
    pub(in crate::store) fn queue_content(&mut self, content: &Content) -> Result<(), StoreError> {
        let sha256 = content.sha256.as_str();
        if self.has_content(sha256)? {
            self.content_owed.insert(sha256, (content.length, content.media_type.as_str()))?;
        } else if self.content_wanted.get(sha256)?.is_none() {
            self.content_wanted.insert(sha256, (content.length, 0))?;
        }
        self.wrote();
        Ok(())
    }

    pub(in crate::store) fn unname_content(
        &mut self,
        key: &RecordKey,
        sha256: &str,
    ) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        self.content_named.remove((sha256, code, id))?;
        self.wrote();
        if self.named_by(sha256)?.is_some() {
            return Ok(());
        }
        self.content_owed.remove(sha256)?;
        if self.content_wanted.remove(sha256)?.is_some() {
            self.remove_chunks(sha256)?;
        } else if self.content.contains((sha256, 0))? {
            self.content_idle.insert(sha256, 0)?;
        }
        Ok(())
    }

    /// A record whose document names this content.
    pub(in crate::store) fn named_by(&self, sha256: &str) -> Result<Option<RecordKey>, StoreError> {
        match self.content_named.range((sha256, 0, "")..)?.next().transpose()? {
            Some((at, _)) if at.value().0 == sha256 => {
                let (_, code, id) = at.value();
                Ok(Some(RecordKey::new(kind_of(code)?, id)))
            }
            _ => Ok(None),
        }
    }

    /// Whether all bytes are here.
    pub fn has_content(&self, sha256: &str) -> Result<bool, StoreError> {
        is_here(&self.content, &self.content_wanted, sha256)
    }

    /// The centre is about to be sent the record's document; it may have lost the content since it got it.
    pub(crate) fn owe_pushed(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if !has_content(key.kind) {
            return Ok(());
        }
        match self.document(key)?.and_then(|document| Content::of(key.kind, &document)) {
            Some(content) => self.queue_content(&content),
            None => Ok(()),
        }
    }

    /// Content of which a chunk is damaged is fetched from the centre again, if that is known to have it and a record
    /// names it. Returns whether it is so.
    pub(crate) fn refetch_damaged(&mut self, sha256: &str) -> Result<bool, StoreError> {
        let mut is_damaged = false;
        for row in self.content.range((sha256, 0)..=(sha256, u32::MAX))? {
            is_damaged |= matches!(row, Err(StoreError::DamagedRow(_)));
        }
        if !is_damaged || self.content_owed.get(sha256)?.is_some() {
            return Ok(false);
        }
        let Some(key) = self.named_by(sha256)? else {
            return Ok(false);
        };
        let document = self.document(&key)?;
        let Some(content) = document.and_then(|document| Content::of(key.kind, &document)) else {
            return Ok(false);
        };
        self.remove_chunks(sha256)?;
        self.content_wanted.insert(sha256, (content.length, 0))?;
        Ok(true)
    }

    /// The centre turned out to lack content that is here, if a record still names it.
    pub fn owe_content(&mut self, sha256: &str) -> Result<(), StoreError> {
        let Some(key) = self.named_by(sha256)? else {
            return Ok(());
        };
        let Some(document) = unless_damaged(self.document(&key))? else {
            return Ok(());
        };
        match document.and_then(|document| Content::of(key.kind, &document)) {
            Some(content) => self.queue_content(&content),
            None => Err(damaged("an index")),
        }
    }

    /// Keeps bytes that are known to be what their name says: all of the content.
    pub fn put_content(&mut self, sha256: &str, bytes: &[u8]) -> Result<(), StoreError> {
        // Chunks that came from the centre may be wrong ones, and more.
        if self.content_wanted.remove(sha256)?.is_some() {
            self.remove_chunks(sha256)?;
        }
        for (number, chunk) in (0_u32..).zip(bytes.chunks(CONTENT_CHUNK_BYTES)) {
            self.content.insert((sha256, number), chunk)?;
        }
        self.wrote();
        if self.named_by(sha256)?.is_some() {
            return self.owe_content(sha256);
        }
        // Kept for a document that may never come.
        if !bytes.is_empty() {
            self.content_idle.insert(sha256, 0)?;
        }
        Ok(())
    }

    /// Keeps the next chunks of wanted content, from number `first` on; all of full size but the content's
    /// last. False, and nothing is kept, if they are not wanted (any more) or not the next.
    pub fn keep_chunks(&mut self, sha256: &str, first: u32, bytes: &[u8]) -> Result<bool, StoreError> {
        if self.content_wanted.get(sha256)?.is_none() || count_chunks(&self.content, sha256)? != first {
            return Ok(false);
        }
        for (number, chunk) in (first..).zip(bytes.chunks(CONTENT_CHUNK_BYTES)) {
            self.content.insert((sha256, number), chunk)?;
            self.wrote();
        }
        Ok(true)
    }

    /// The chunks of wanted content are all here and turned out to be what their name says.
    pub fn content_arrived(&mut self, sha256: &str) -> Result<(), StoreError> {
        if self.content_wanted.remove(sha256)?.is_some() {
            self.wrote();
        }
        Ok(())
    }

    /// A fetch of wanted content came out wrong in the round with this lease number; `with_chunks`: what
    /// came of it is thrown away.
    pub fn content_failed(
        &mut self,
        sha256: &str,
        lease_number: i64,
        with_chunks: bool,
    ) -> Result<(), StoreError> {
        let Some(length) = self.content_wanted.get(sha256)?.map(|row| row.value().0) else {
            return Ok(());
        };
        self.content_wanted.insert(sha256, (length, lease_number))?;
        self.wrote();
        if with_chunks { self.remove_chunks(sha256) } else { Ok(()) }
    }

    /// The centre has this content.
    pub fn content_settled(&mut self, sha256: &str) -> Result<(), StoreError> {
        if self.content_owed.remove(sha256)?.is_some() {
            self.wrote();
        }
        Ok(())
    }

    /// Puts off the next look at idle content until the round with this lease number.
    pub fn keep_idle(&mut self, sha256: &str, lease_number: i64) -> Result<(), StoreError> {
        let is_idle = self.content_idle.get(sha256)?.is_some();
        if is_idle {
            self.content_idle.insert(sha256, lease_number)?;
            self.wrote();
        }
        Ok(())
    }

    /// Removes content that is still idle. The caller has made sure that the centre has it.
    pub fn remove_idle(&mut self, sha256: &str) -> Result<bool, StoreError> {
        if self.content_idle.remove(sha256)?.is_none() {
            return Ok(false);
        }
        self.remove_chunks(sha256)?;
        Ok(true)
    }

    pub(in crate::store) fn remove_chunks(&mut self, sha256: &str) -> Result<(), StoreError> {
        self.content.remove_range((sha256, 0)..=(sha256, u32::MAX))?;
        self.wrote();
        Ok(())
    }

    /// Brings the tables up to what some records after `after` name, for a store that was filled before
    /// there were such tables; returns where to go on, `None` at the end.
    pub fn queue_contents(
        &mut self,
        after: Option<&RecordKey>,
        max: usize,
    ) -> Result<Option<RecordKey>, StoreError> {
        let kinds = Kind::ALL.into_iter().filter(|kind| has_content(*kind));
        let mut codes: Vec<u8> = kinds.map(|kind| kind.schema().code).collect();
        codes.sort_unstable();
        let from = after.map_or((0, ""), row_key);
        let (mut found, mut seen, mut last) = (Vec::new(), 0, None);
        for code in codes.into_iter().filter(|code| *code >= from.0) {
            let start = if code == from.0 { Bound::Excluded(from) } else { Bound::Included((code, "")) };
            let records = self.docs.range((start, Bound::Excluded((code + 1, ""))))?;
            for entry in records.sound().take(max - seen) {
                let (at, row) = entry?;
                let key = RecordKey::new(kind_of(code)?, at.value().1);
                if let Some(content) = Content::of(key.kind, &decode(row.value())?) {
                    found.push((key.clone(), content));
                }
                last = Some(key);
                seen += 1;
            }
        }
        for (key, content) in &found {
            self.name_content(key, content)?;
        }
        Ok(last.filter(|_| seen == max))
    }

    /// Notes content after `after` that is here and that no record names as idle; returns where to go on,
    /// `None` at the end. Looks at no more than `max`.
    pub fn note_idle(&mut self, after: &str, max: usize) -> Result<Option<String>, StoreError> {
        let mut at = after.to_owned();
        for _ in 0..max {
            let next =
                self.content.keys((Bound::Excluded((at.as_str(), u32::MAX)), Bound::Unbounded))?.next();
            let Some(found) = next.transpose()? else {
                return Ok(None);
            };
            at = found.value().0.to_owned();
            drop(found);
            let is_known = self.content_idle.get(at.as_str())?.is_some();
            if !is_known && self.named_by(&at)?.is_none() {
                self.content_idle.insert(at.as_str(), 0)?;
                self.wrote();
            }
        }
        Ok(Some(at))
    }
}

impl Snapshot {
    /// A chunk of content.
    pub fn content_chunk(&self, sha256: &str, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let content = self.transaction.open_table(CONTENT)?;
        Ok(content.get((sha256, number))?.map(|row| row.value().to_vec()))
    }

    /// How many chunks of content are here, always the first ones.
    pub fn content_chunks_here(&self, sha256: &str) -> Result<u32, StoreError> {
        count_chunks(&self.transaction.open_table(CONTENT)?, sha256)
    }

    /// Whether all bytes are here.
    pub fn has_content(&self, sha256: &str) -> Result<bool, StoreError> {
        let (content, wanted) =
            (self.transaction.open_table(CONTENT)?, self.transaction.open_table(CONTENT_WANTED)?);
        is_here(&content, &wanted, sha256)
    }

    /// Whether there are any bytes here, whole or not, named or not.
    pub fn has_any_content(&self) -> Result<bool, StoreError> {
        Ok(!self.transaction.open_table(CONTENT)?.is_empty()?)
    }

    /// Content after `after` that is named and not all here, in order of its name.
    pub fn content_wanted(&self, after: &str, max: usize) -> Result<Vec<WantedContent>, StoreError> {
        let table = self.transaction.open_table(CONTENT_WANTED)?;
        let mut wanted = Vec::new();
        for entry in table.range::<&str>((Bound::Excluded(after), Bound::Unbounded))?.take(max) {
            let (name, row) = entry?;
            let (length, failed_at) = row.value();
            wanted.push(WantedContent { sha256: name.value().to_owned(), length, failed_at });
        }
        Ok(wanted)
    }

    /// The name that has this place among [`Snapshot::content_wanted`], counted from 0; none if there are fewer.
    pub fn content_wanted_at(&self, place: usize) -> Result<Option<String>, StoreError> {
        let table = self.transaction.open_table(CONTENT_WANTED)?;
        let found = table.iter()?.nth(place).transpose()?;
        Ok(found.map(|(name, _)| name.value().to_owned()))
    }

    /// Content after `after` that the centre is not known to have, in order of its name.
    pub fn content_owed(&self, after: &str, max: usize) -> Result<Vec<OwedContent>, StoreError> {
        let table = self.transaction.open_table(CONTENT_OWED)?;
        let mut owed = Vec::new();
        for entry in table.range::<&str>((Bound::Excluded(after), Bound::Unbounded))?.take(max) {
            let (name, row) = entry?;
            let (length, media_type) = row.value();
            owed.push(OwedContent {
                sha256: name.value().to_owned(),
                length,
                media_type: media_type.to_owned(),
            });
        }
        Ok(owed)
    }

    /// How many contents are still to be fetched.
    pub fn content_wanted_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(CONTENT_WANTED)?.len()?)
    }

    /// How many contents are still to be sent.
    pub fn content_owed_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(CONTENT_OWED)?.len()?)
    }

    /// What is still to be fetched, without the chunks that are here already.
    pub fn content_wanted_left(&self) -> Result<ContentsLeft, StoreError> {
        let (content, wanted) =
            (self.transaction.open_table(CONTENT)?, self.transaction.open_table(CONTENT_WANTED)?);
        let mut left = ContentsLeft::default();
        for entry in wanted.iter()? {
            let (name, row) = entry?;
            let here = u64::from(count_chunks(&content, name.value())?) * CONTENT_CHUNK_BYTES as u64;
            left.count += 1;
            left.bytes = left.bytes.saturating_add(row.value().0.saturating_sub(here));
        }
        Ok(left)
    }

    /// What is still to be sent, chunks that the centre has already included.
    pub fn content_owed_left(&self) -> Result<ContentsLeft, StoreError> {
        let table = self.transaction.open_table(CONTENT_OWED)?;
        let mut left = ContentsLeft::default();
        for entry in table.iter()? {
            left.count += 1;
            left.bytes = left.bytes.saturating_add(entry?.1.value().0);
        }
        Ok(left)
    }

    /// Whether the centre is known to hold a document that names this content.
    pub fn is_content_agreed(&self, sha256: &str) -> Result<bool, StoreError> {
        let named = self.transaction.open_table(CONTENT_NAMED)?;
        for entry in named.range((sha256, 0, "")..)? {
            let (at, _) = entry?;
            let (name, code, id) = at.value();
            if name != sha256 {
                break;
            }
            let key = RecordKey::new(kind_of(code)?, id);
            let is_agreed = match unless_damaged(self.base(&key))? {
                // The record is what the centre holds.
                Some(None) => true,
                None | Some(Some(Base::Absent)) => false,
                Some(Some(Base::Document(base))) => {
                    Content::of(key.kind, &base).is_some_and(|content| content.sha256 == sha256)
                }
            };
            if is_agreed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Content after `after` that is named and all here, in order of its name.
    pub fn content_held(&self, after: &str, max: usize) -> Result<Vec<String>, StoreError> {
        let named = self.transaction.open_table(CONTENT_NAMED)?;
        let mut held = Vec::new();
        let mut at = after.to_owned();
        while held.len() < max {
            let beyond = (at.as_str(), u8::MAX, "");
            let Some((found, _)) =
                named.range((Bound::Excluded(beyond), Bound::Unbounded))?.next().transpose()?
            else {
                break;
            };
            at = found.value().0.to_owned();
            if self.has_content(&at)? {
                held.push(at.clone());
            }
        }
        Ok(held)
    }

    /// Idle content that is due for a look in the round with this lease number, at most `max`, by what else
    /// names it. A look is put off by no more than `rounds_max`.
    ///
    /// Everything kept beside the records is searched for the names as text, so it does not matter where in
    /// a conflict's value or in a body they stand. Only bodies that came from here or from the centre are
    /// there, so a name that turns up after this look is one of content that the centre's records name.
    pub fn content_idle(
        &self,
        lease_number: i64,
        rounds_max: i64,
        max: usize,
    ) -> Result<IdleContents, StoreError> {
        let table = self.transaction.open_table(CONTENT_IDLE)?;
        let mut due = BTreeSet::new();
        for entry in table.iter()? {
            let (name, from) = entry?;
            // A node that has enrolled anew counts from the beginning.
            let is_due = from.value() <= lease_number || from.value() > lease_number + rounds_max;
            if is_due && due.len() < max {
                due.insert(name.value().to_owned());
            }
        }
        let mut idle = IdleContents::default();
        if due.is_empty() {
            return Ok(idle);
        }
        let mut is_unclear = false;
        for rows in [BASE, INTENT] {
            for entry in self.transaction.open_table(rows)?.iter()? {
                match unless_damaged(entry)? {
                    Some((_, row)) => {
                        idle.moving.extend(names_within(row.value()).filter_map(|name| due.take(name)))
                    }
                    None => is_unclear = true,
                }
            }
        }
        if due.is_empty() {
            return Ok(idle);
        }
        let mut keep = |row: Option<&[u8]>| match row {
            Some(bytes) => idle.kept.extend(names_within(bytes).filter_map(|name| due.take(name))),
            None => is_unclear = true,
        };
        for entry in self.transaction.open_table(CONFLICT)?.iter()? {
            keep(unless_damaged(entry)?.as_ref().map(|(_, row)| row.value()));
        }
        for entry in self.transaction.open_table(TRASH)?.iter()? {
            keep(unless_damaged(entry)?.as_ref().map(|(_, row)| row.value()));
        }
        // A row that cannot be read may name any of them.
        if is_unclear {
            idle.kept.extend(due)
        } else {
            idle.free = due.into_iter().collect()
        }
        Ok(idle)
    }
}
