//! Floor 1. Who was here when another human being was written over them, until the record is agreed on with the centre again.
//!
//! What the centre has of them may be older than what they were here: they may have another password by now, which is not sent. So
//! the body as it was before that write is kept, with the number of the journal behind which writes are the other one's. Both
//! stand in the row of the account's holder (`holder_identity.rs`), and end once nothing of the person is left to be sent, or they
//! have another id.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocument};
use redb::ReadableTable as _;

use super::ownership::Whose;
use crate::domain::access::Actor;
use crate::domain::merge::{is_other_person, is_unknown, same_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Base, damaged, decode, encode};

/// In the row of a person who was written over another one: behind which number of the journal that began.
const FIRST_WRITE: &str = "written_over";
/// In the same row: who was here before that write; `null` if nobody was, so that nothing in the record is of a former one.
const FORMER: &str = "former";
/// What opens an account.
const PASSWORD: &str = "password";

/// What [`FIRST_WRITE`] says in a row; nothing in one that cannot be read.
pub(in crate::store) fn first_write_in(row: &[u8]) -> Option<u64> {
    // Not decoded as a whole: the body beside it may be long, and this is asked of each record of theirs.
    let first = RawDocument::from_bytes(row).ok()?.get_i64(FIRST_WRITE).ok()?;
    u64::try_from(first).ok()
}

/// A body as it is kept: its checksum, then itself. It is sent again when it comes back, so rot in it must be noticed, and rows of
/// this table have no checksum of their own.
fn kept(id: &str, body: &RawDocument) -> Bson {
    let bytes = [&sum(id, body.as_bytes()).to_be_bytes()[..], body.as_bytes()].concat();
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })
}

/// The body that was [`kept`]; `None` if it is not what was written.
fn opened(id: &str, kept: &[u8]) -> Option<Document> {
    let (given, body) = kept.split_first_chunk()?;
    (*given == sum(id, body).to_be_bytes()).then(|| decode(body).ok()).flatten()
}

fn sum(id: &str, body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(id.as_bytes());
    sum.update(body);
    sum.finalize()
}

impl Tx<'_> {
    /// Behind which number of the journal the person `id` was written over another one, if that is not agreed on with the centre.
    pub(in crate::store) fn written_over(&self, id: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.holder_identity.get(id)?.and_then(|row| first_write_in(row.value())))
    }

    /// Who was here before another human being was written over the person `id`, which is not agreed on with the centre; `None`
    /// where that is not known.
    pub(crate) fn written_over_body(&self, id: &str) -> Result<Option<Document>, StoreError> {
        let row = self.noted_holder(id)?;
        Ok(row.and_then(|row| opened(id, row.get_binary_generic(FORMER).ok()?)))
    }

    /// The person `id` is rewritten on this node from `before`, which was stored as `old`, to `now`, another human being. Corrections
    /// of one who was written over another, and is not sent, begin nobody new: their records begin where that one ended.
    pub(in crate::store) fn note_rewrite(
        &mut self,
        id: &str,
        (old, before): (&RawDocument, &Document),
        now: &Document,
    ) -> Result<(), StoreError> {
        let written_over = self.written_over_since(id, before)?;
        let former = match written_over {
            Some(_) => self.noted_holder(id)?.and_then(|row| row.get(FORMER).cloned()),
            None => Some(kept(id, old)),
        };
        self.note_late_of_former(id, before, now)?;
        self.note_holder(id, true)?;
        let first = match written_over {
            Some(first) => first,
            None => self.unsent_since(id)?.unwrap_or_default(),
        };
        let mut known = now.clone();
        known.insert(FIRST_WRITE, first as i64);
        known.extend(former.map(|former| (FORMER.to_owned(), former)));
        self.note_holder_identity(id, Some(&known))
    }

    /// The person `id` is made on this node where nobody is, as `now`, before the delete of the one whom the centre has was sent.
    pub(in crate::store) fn note_made_anew(&mut self, id: &str, now: &Document) -> Result<(), StoreError> {
        let key = RecordKey::new(Kind::Person, id);
        match self.base_if_dirty(&key)? {
            Some(Base::Document(agreed)) if !same_identity(&agreed, now) => {}
            _ => return Ok(()),
        }
        let mut known = self.noted_holder(id)?.unwrap_or_else(|| now.clone());
        known.entry(FORMER.to_owned()).or_insert(Bson::Null);
        self.note_holder_identity(id, Some(&known))
    }

    /// Whether nobody was here when the person `id` was made, whom the centre does not know.
    pub(crate) fn is_made_anew(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.noted_holder(id)?.is_some_and(|row| row.get(FORMER) == Some(&Bson::Null)))
    }

    /// The person `before` stood at the centre once, is gone there, and was to be put there again. What waits to be sent for them
    /// is not of the other human being whom they become `now`: it is asked about, as after a delete. Who is written back has it.
    fn note_late_of_former(&mut self, id: &str, before: &Document, now: &Document) -> Result<(), StoreError> {
        let key = RecordKey::new(Kind::Person, id);
        let Some(last) = self.departed(id)?.filter(|last| !is_unknown(last)) else {
            return Ok(());
        };
        if self.base_if_dirty(&key)? != Some(Base::Absent) || self.has_intent(&key)? {
            return Ok(());
        }
        // A letter that is corrected makes nobody else of them: the rewrite may come step by step.
        let was_theirs = !is_other_person(Some(&last), &last, before);
        if same_identity(&last, now) {
            let late: Vec<RecordKey> = self.late(id)?.into_iter().collect();
            return self.forget_late(id, &late);
        }
        if was_theirs {
            for of_account in self.dependents(id)? {
                if !self.is_clean(&of_account)? {
                    self.note_late(id, &of_account)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the present write of this node makes another human being of the person `before` than the centre has, who `before` is
    /// still.
    pub(in crate::store) fn is_rewritten_by(
        &self,
        id: &str,
        before: &Document,
        now: &Document,
    ) -> Result<bool, StoreError> {
        let key = RecordKey::new(Kind::Person, id);
        Ok(match self.agreed_or_sent(&key, before)? {
            Some(agreed) => {
                is_other_person(Some(&agreed), &agreed, now) && !self.is_rewritten(&key, &agreed, before)?
            }
            None => false,
        })
    }

    /// Behind which number of the journal somebody was written over the person whom the centre has, if that is so already of who was
    /// here `before` the present write.
    fn written_over_since(&self, id: &str, before: &Document) -> Result<Option<u64>, StoreError> {
        let key = RecordKey::new(Kind::Person, id);
        match self.agreed_or_sent(&key, before)? {
            Some(agreed) if self.is_rewritten(&key, &agreed, before)? => self.unsent_since(id),
            Some(_) => Ok(None),
            None => match self.departed(id)?.filter(|last| !is_unknown(last)) {
                Some(last) if !same_identity(&last, before) => self.written_over(id),
                _ => Ok(None),
            },
        }
    }

    /// Who was made here as `sent` has come to the centre, and is written as `now`. All corrections before it was sent were of this
    /// person, whom the centre knows in no other way. Who was written over them since, and back, is asked about.
    pub(in crate::store) fn has_come_there(
        &mut self,
        key: &RecordKey,
        sent: &Document,
        now: &Document,
    ) -> Result<(), StoreError> {
        if key.kind != Kind::Person || is_other_person(Some(sent), sent, now) {
            return Ok(());
        }
        let former = unless_damaged(self.written_over_body(&key.id))?.flatten();
        let was_corrected = former.is_some_and(|former| is_other_person(Some(sent), sent, &former));
        if !was_corrected || unless_damaged(self.hold(&key.id))? != Some(None) {
            return Ok(());
        }
        self.forget_written_over(&key.id)?;
        match self.unsent_since(&key.id)? {
            // What is left to be sent of them is theirs.
            Some(since) if self.edit_number(key)? <= since => self.move_edit(key, since + 1),
            _ => Ok(()),
        }
    }

    /// Whom the centre has as far as is known, or will have if what is on its way arrives. `before` is who was here before the
    /// present write.
    fn agreed_or_sent(&self, key: &RecordKey, before: &Document) -> Result<Option<Document>, StoreError> {
        Ok(match self.base_if_dirty(key)? {
            None => Some(before.clone()),
            Some(Base::Document(agreed)) => Some(agreed).filter(|agreed| !agreed.is_empty()),
            Some(Base::Absent) => self.intent(key)?.and_then(|intent| intent.write.into_insert()),
        })
    }

    /// The one over whom somebody else is written under this account, which is not agreed on with the centre, if the record `key` is
    /// theirs: all that the centre has under the account, and what was written here before the other one came.
    pub(in crate::store) fn former_owner(
        &self,
        key: &RecordKey,
        account: &str,
    ) -> Result<Option<Document>, StoreError> {
        for id in self.spellings(account)? {
            let person = RecordKey::new(Kind::Person, id);
            let Some(first) = unless_damaged(self.written_over(&person.id))?.flatten() else {
                continue;
            };
            let is_made_since = match unless_damaged(self.base_row(key))?.flatten() {
                Some(row) => row.base == Base::Absent && row.sequence > first,
                None => false,
            };
            if is_made_since {
                return Ok(None);
            }
            let agreed = unless_damaged(self.base(&person))?.and_then(|base| base.document().cloned());
            return Ok(match agreed.filter(|agreed| !agreed.is_empty()) {
                Some(agreed) => Some(agreed),
                None => self.former_known_there(&person.id)?,
            });
        }
        Ok(None)
    }

    /// Who was here before another human being was written over the person `id`, if the centre once had that one and has not any
    /// more: they came out of the trash here. Of who was never there, a rewrite is a correction.
    pub(crate) fn former_known_there(&self, id: &str) -> Result<Option<Document>, StoreError> {
        let last = self.departed(id)?.filter(|last| !is_unknown(last));
        Ok(match (last, self.written_over_body(id)?) {
            (Some(last), Some(former)) if !is_other_person(Some(&last), &last, &former) => Some(former),
            _ => None,
        })
    }

    /// Whether the record is of the one who was written over, and was theirs when it was kept: as long as nobody has decided, it goes
    /// back to them.
    pub(crate) fn is_of_former_owner(&self, key: &RecordKey, whose: &Whose) -> Result<bool, StoreError> {
        let former = self.former_owner(key, &whose.account)?;
        let was = whose.person.as_ref().filter(|was| !was.is_empty());
        Ok(
            matches!((former, was), (Some(former), Some(was)) if !is_other_person(Some(&former), &former, was)),
        )
    }

    /// A record of which the centre knows, or that was written before, goes on as a record of the one who was written over, if
    /// somebody was: it waits in the place of a write from before.
    pub(crate) fn leave_with_former_owner(
        &mut self,
        key: &RecordKey,
        account: &str,
    ) -> Result<(), StoreError> {
        for id in self.spellings(account)? {
            if let Some(first) = unless_damaged(self.written_over(&id))?.flatten() {
                self.move_edit(key, first)?;
                // Whom the centre had is gone there: nothing of the record says so, and it is asked whose it is.
                if self.former_known_there(&id)?.is_some() {
                    self.note_late(account, key)?;
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// The password that this transaction writes as its person's own was given by an administrator's link: nobody has shown the
    /// former one.
    pub fn password_is_given(&mut self) {
        self.password_is_given = true;
    }

    /// The present write changes the password of the person `id`. Who changes their own, while another human being is written over
    /// them, got in with the password of the former one, and is that one.
    pub(in crate::store) fn follow_password(
        &mut self,
        id: &str,
        (old, new): (&RawDocument, &RawDocument),
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let is_own = matches!(actor, Actor::Person(account) if fold_account(account) == fold_account(id));
        let (Some(before), Some(now)) = (password_in(old), password_in(new)) else {
            return Ok(());
        };
        if !is_own || self.password_is_given || before == now {
            return Ok(());
        }
        let Some(mut former) = self.written_over_body(id)? else {
            return Ok(());
        };
        if former.get_str(PASSWORD).ok() != Some(before) {
            return Ok(());
        }
        former.insert(PASSWORD, now);
        let mut row = self.noted_holder(id)?.unwrap_or_default();
        let former = encode(&former)?;
        let former = RawDocument::from_bytes(&former).map_err(|_| damaged("a person"))?;
        row.insert(FORMER, kept(id, former));
        self.note_holder_identity(id, Some(&row))
    }

    /// Nothing of the person `id` is left to be sent: who was written over is known at the centre as they are, or is nobody's
    /// question any more.
    pub(crate) fn forget_written_over(&mut self, id: &str) -> Result<(), StoreError> {
        let Some(mut row) = self.noted_holder(id)? else {
            return Ok(());
        };
        let was = row.len();
        row.remove(FIRST_WRITE);
        row.remove(FORMER);
        match row.len() == was {
            true => Ok(()),
            // They came to have the account as they are in it.
            false => self.note_holder_identity(id, Some(&row)),
        }
    }
}

fn password_in(person: &RawDocument) -> Option<&str> {
    person.get_str(PASSWORD).ok()
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_body_that_rotted_is_not_known() {
        let body = encode(&doc! {"_id": "ANA001", "password": "$2b$04$x"}).expect("bytes");
        let Bson::Binary(kept) = kept("ANA001", RawDocument::from_bytes(&body).expect("a document")) else {
            panic!("bytes are kept")
        };
        assert_eq!(opened("ANA001", &kept.bytes), Some(doc! {"_id": "ANA001", "password": "$2b$04$x"}));
        assert_eq!(opened("BOB002", &kept.bytes), None);
        for at in 0..kept.bytes.len() {
            let mut bytes = kept.bytes.clone();
            bytes[at] ^= 4;
            assert_eq!(opened("ANA001", &bytes), None, "byte {at}");
        }
        for length in 0..8 {
            assert_eq!(opened("ANA001", &kept.bytes[..length]), None);
        }
    }
}
