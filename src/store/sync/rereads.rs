//! Floor 1. Records to be read from the centre again, whatever else is known of them.

use redb::ReadableTable;

use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{kind_of, row_key};
use crate::store::schema::{INTENT, REREAD};

/// Why and how a record is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reread {
    /// Something happened at the centre that may have been the record's open write.
    pub is_unclear: bool,
    /// Too large to be asked for together with others.
    pub is_alone: bool,
    /// It was deleted at the centre; if it is there again, somebody has put it back.
    pub is_deleted: bool,
    /// The change feed has told that it was deleted. Carried out at once, see [`is_told`](crate::store::Vanished::is_told).
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
}
