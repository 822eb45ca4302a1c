//! Floor 1. Refused records: those that the centre refused, and those that could not be taken from it.

use bson::doc;

use super::rereads::Reread;
use crate::domain::audit::What;
use crate::domain::record::RecordKey;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{Fields, encode, kind_of, row_key};
use crate::store::schema::DEAD;

/// Codes of dead letters that the node gives itself: the centre's document cannot be kept; it does not take
/// the body of a record to be deleted. (-1 was a person who is held now, see [`crate::store::Hold`].)
pub const UNREADABLE_CODE: i32 = -2;
pub const NOT_ARCHIVED_CODE: i32 = -3;

/// A record that the centre refused, or that could not be taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub key: RecordKey,
    pub direction: &'static str,
    pub code: i32,
    pub reason: String,
    pub at_ms: i64,
}

impl DeadLetter {
    pub(crate) fn decode(key: RecordKey, bytes: &[u8]) -> Result<DeadLetter, StoreError> {
        let row = Fields::of(bytes, "a refused record")?;
        let direction = |word: &str| ["pull", "push"].into_iter().find(|known| *known == word);
        Ok(DeadLetter {
            key,
            direction: row.word("direction", direction)?,
            code: row.int32("code")?,
            reason: row.text("reason")?.to_owned(),
            at_ms: row.int64("at")?,
        })
    }
}

impl Tx<'_> {
    pub fn put_dead(&mut self, letter: &DeadLetter) -> Result<(), StoreError> {
        let row = doc! {
            "direction": letter.direction, "code": letter.code, "reason": &letter.reason, "at": letter.at_ms,
        };
        self.dead.insert(row_key(&letter.key), encode(&row)?.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// Gives a refused record another try; returns whether there was one.
    pub fn clear_dead(&mut self, key: &RecordKey) -> Result<bool, StoreError> {
        let was_dead = self.dead.remove(row_key(key))?;
        if was_dead {
            self.wrote();
        }
        Ok(was_dead)
    }

    /// Why the record was refused, if it was.
    pub fn dead_letter(&self, key: &RecordKey) -> Result<Option<DeadLetter>, StoreError> {
        let row = self.dead.get(row_key(key))?;
        row.map(|row| DeadLetter::decode(key.clone(), row.value())).transpose()
    }

    /// Gives a dead letter another try on request: a refused record is sent again, one that could not be
    /// taken is read again. Returns whether there was one.
    pub fn retry_dead(&mut self, key: &RecordKey) -> Result<bool, StoreError> {
        let Some(letter) = self.dead_letter(key)? else {
            return Ok(false);
        };
        if letter.direction == "pull" {
            self.ask_again(key, Reread { is_alone: true, ..Reread::default() })?;
        }
        let owner = self.owner(key)?;
        let collection = key.kind.schema().collection;
        self.audit_asked(What::Retry, |event| event.about(collection, &key.id, owner.as_deref()))?;
        self.clear_dead(key)
    }

    /// Whether the record has a dead letter with this code.
    pub fn has_dead_letter(&self, key: &RecordKey, code: i32) -> Result<bool, StoreError> {
        Ok(self.dead_letter(key)?.is_some_and(|letter| letter.code == code))
    }

    /// Whether the record waits for the centre's document to change, rather than for itself.
    pub fn waits_for_centre(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.has_dead_letter(key, UNREADABLE_CODE)
    }

    /// Gives every refused push another try.
    pub fn retry_refused(&mut self) -> Result<(), StoreError> {
        let mut refused = Vec::new();
        for entry in self.dead.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            let letter = DeadLetter::decode(RecordKey::new(kind_of(code)?, id), row.value())?;
            refused.extend((letter.direction == "push").then_some(letter.key));
        }
        for key in refused {
            self.clear_dead(&key)?;
        }
        Ok(())
    }

    pub fn is_dead(&self, key: &RecordKey) -> Result<bool, StoreError> {
        // A damaged letter is one.
        self.dead.contains(row_key(key))
    }
}

impl Snapshot {
    /// Whether the centre refuses the record, or it cannot be read there.
    pub fn is_dead(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.transaction.open_table(DEAD)?.contains(row_key(key))
    }

    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, StoreError> {
        let dead = self.transaction.open_table(DEAD)?;
        let mut letters = Vec::new();
        for entry in dead.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            letters.push(DeadLetter::decode(RecordKey::new(kind_of(code)?, id), row.value())?);
        }
        Ok(letters)
    }

    pub fn dead_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(DEAD)?.len()
    }
}
