//! Floor 1. Reads attachments, and lists of those that are wanted, owed or idle.

use std::collections::BTreeSet;
use std::ops::Bound;

use redb::{ReadableTable, ReadableTableMetadata};

use super::attachments::{ContentsLeft, IdleContents, OwedContent, WantedContent, count_chunks, is_here};
use crate::domain::content::{CONTENT_CHUNK_BYTES, Content, names_within};
use crate::domain::record::RecordKey;
use crate::store::engine::Snapshot;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Base, kind_of};
use crate::store::schema::{
    BASE, CONFLICT, CONTENT, CONTENT_IDLE, CONTENT_NAMED, CONTENT_OWED, CONTENT_WANTED, INTENT, TRASH,
};

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
