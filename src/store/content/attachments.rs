//! Floor 1. Attachments: the bytes in chunks, who names them, and what is to be fetched, sent or let go.
//!
//! Hides four tables that follow the records: whenever a document comes to name content, in the same
//! transaction the name becomes *wanted* (its bytes are not all here) or *owed* (they are, and the centre may
//! lack them). Once no document names it any more, a want is dropped with the chunks that came so far, and
//! bytes that are all here become *idle*: they stay until somebody has made sure that nothing else names
//! them and that the centre has them.
//!
//! Chunks of wanted content are written in order, so how many there are says where to go on.

use std::ops::Bound;

use bson::RawDocument;
use redb::ReadableTable;

use crate::domain::content::{CONTENT_CHUNK_BYTES, Content, EMPTY_CONTENT, has_content};
use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Checked, damaged, decode, kind_of, row_key};

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

pub(super) type Chunks = (&'static str, u32);

pub(super) fn is_here(
    chunks: &Checked<impl ReadableTable<Chunks, &'static [u8]>, Chunks>,
    wanted: &impl ReadableTable<&'static str, (u64, i64)>,
    sha256: &str,
) -> Result<bool, StoreError> {
    Ok(sha256 == EMPTY_CONTENT || chunks.contains((sha256, 0))? && wanted.get(sha256)?.is_none())
}

/// How many chunks are here, the first ones.
pub(super) fn count_chunks(
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
