//! Floor 1. Whether who has an account is still the human being who came to have it.
//!
//! A record may be rewritten into another human being's field by field, each write a small correction. So a person is not
//! compared with the write before, but with who they were when they came to have the account, or when somebody decided last
//! that they are the same. That is noted as soon as one of the fields is another one than then; without a row, it is the
//! person as they are. So it is in a store of an earlier version too, at the first such change after the update.
//!
//! The row follows a person to another id, and stays where one is deleted: who is made again alike is compared as before.

use bson::{Bson, Document};
use redb::ReadableTable as _;

use crate::domain::merge::{IDENTITY_FIELDS, identity_of, is_other_person};
use crate::store::engine::Tx;
use crate::store::error::StoreError;
use crate::store::rows::{decode, encode};

/// Whether `now` is another human being than the one of whom `known` was noted. Nobody is taken for somebody of whom nothing
/// was noted. The one rule for all that ends with a person: emergencies, sessions, links, the trail, the feed.
pub(in crate::store) fn is_another_than(known: &Document, now: &Document) -> bool {
    known.is_empty() || is_other_person(Some(known), known, now)
}

impl Tx<'_> {
    /// The person `id` changes from `before` to `now` in a field by which people are told apart. Returns whether they are
    /// another human being than the one who came to have the account.
    pub(in crate::store) fn follow_holder(
        &mut self,
        id: &str,
        before: &Document,
        now: &Document,
    ) -> Result<bool, StoreError> {
        let mut known = self.noted_holder(id)?.unwrap_or_else(|| before.clone());
        if is_another_than(&known, now) {
            return Ok(true);
        }
        // What has become known since then.
        let has = identity_of(&known);
        for field in IDENTITY_FIELDS.into_iter().filter(|field| !has.contains_key(field)) {
            known.extend(before.get(field).map(|value| (field.to_owned(), value.clone())));
        }
        let noted = (known != *now).then_some(known);
        self.note_holder_identity(id, noted.as_ref()).map(|()| false)
    }

    /// The person is who has the account, as they are now: it is another one's from now on, or it was decided so.
    pub(crate) fn confirm_holder(&mut self, id: &str) -> Result<(), StoreError> {
        self.note_holder_identity(id, None)
    }

    /// They have another id from now on.
    pub(in crate::store) fn move_holder_identity(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        self.forget_written_over(from)?;
        let mut noted = self.noted_holder(from)?;
        if let Some(known) = noted.as_mut().filter(|known| !known.is_empty()) {
            known.insert("_id", Bson::from(to));
        }
        self.note_holder_identity(from, None)?;
        self.note_holder_identity(to, noted.as_ref())
    }

    /// Nothing is known of the person of a row that cannot be read.
    pub(in crate::store) fn noted_holder(&self, id: &str) -> Result<Option<Document>, StoreError> {
        let row = self.holder_identity.get(id)?;
        Ok(row.map(|row| decode(row.value()).unwrap_or_default()))
    }

    pub(in crate::store) fn note_holder_identity(
        &mut self,
        id: &str,
        known: Option<&Document>,
    ) -> Result<(), StoreError> {
        let is_written = match known {
            Some(known) => {
                self.holder_identity.insert(id, encode(known)?.as_slice())?;
                true
            }
            None => self.holder_identity.remove(id)?.is_some(),
        };
        if is_written {
            self.wrote();
        }
        Ok(())
    }
}
