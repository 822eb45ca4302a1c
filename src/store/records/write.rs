//! Floor 1. Records inside a write transaction, with the bookkeeping that every change of one needs.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bson::{Document, RawDocument};
use redb::ReadableTable;

use crate::domain::access::Actor;
use crate::domain::diff::changed_paths;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{IdRule, Owner};
use crate::domain::value::same_document;
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::holders::{NO_ACCOUNT, owned, resolve_person};
use crate::store::rows::{Base, BaseRow, Version, decode, encode, push_rank, raw, row_key};
use crate::store::trash::TrashState;

impl Tx<'_> {
    /// The record as it is now.
    pub fn document(&self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        match self.docs.get(row_key(key))? {
            Some(row) => decode(row.value()).map(Some),
            None => self.check_absent(key).map(|()| None),
        }
    }

    /// What `see` makes of the record as it is now, without a copy of it.
    pub fn look<T>(
        &self,
        key: &RecordKey,
        see: impl FnOnce(&RawDocument) -> T,
    ) -> Result<Option<T>, StoreError> {
        self.docs.get(row_key(key))?.map(|row| Ok(see(raw(row.value())?))).transpose()
    }

    /// Whether exactly these bytes are stored; `None` if nothing is.
    pub fn is_stored(&self, key: &RecordKey, bytes: Option<&[u8]>) -> Result<bool, StoreError> {
        Ok(self.docs.get(row_key(key))?.as_ref().map(|row| row.value()) == bytes)
    }

    /// The stored bytes of a record, for comparing versions.
    pub fn bytes(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.docs.get(row_key(key))?.map(|row| row.value().to_vec()))
    }

    /// The version last agreed with the centre: the record itself unless it has a base row.
    pub fn base(&self, key: &RecordKey) -> Result<Base, StoreError> {
        match self.base_row(key)? {
            Some(row) => Ok(row.base),
            None => Ok(self.document(key)?.into()),
        }
    }

    /// The version last agreed with the centre, if the record is not that version itself.
    pub fn base_if_dirty(&self, key: &RecordKey) -> Result<Option<Base>, StoreError> {
        Ok(self.base_row(key)?.map(|row| row.base))
    }

    pub(crate) fn base_row(&self, key: &RecordKey) -> Result<Option<BaseRow>, StoreError> {
        self.base.get(row_key(key))?.map(|row| BaseRow::decode(row.value())).transpose()
    }

    /// The number of the first edit that has not reached the centre; 0 if there is none.
    pub fn edit_number(&self, key: &RecordKey) -> Result<u64, StoreError> {
        let place = self.base.get(row_key(key))?.map(|row| BaseRow::place(row.value())).transpose()?;
        Ok(place.map_or(0, |(_, sequence)| sequence))
    }

    /// Whether the record is what the centre was last known to hold, with no write on the way.
    pub fn is_clean(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(!self.base.contains(row_key(key))?)
    }

    pub fn has_intent(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.intent.contains(row_key(key))
    }

    /// An edit made on this node: the record differs from its base from now on, until it is pushed.
    ///
    /// A write that changes only the order of keys keeps the stored bytes. A delete puts the body into
    /// the trash. Returns whether anything changed.
    pub fn edit(
        &mut self,
        key: &RecordKey,
        new: Option<&Document>,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let old = self.bytes(key)?.map(Version::stored).transpose()?;
        let new = new.map(Cow::Borrowed).map(Version::of).transpose()?;
        self.edit_over(old.as_ref(), key, new.as_ref(), actor)
    }

    /// [`Tx::edit`] over what is stored, which is `old`.
    pub(crate) fn edit_over(
        &mut self,
        old: Option<&Version<'_>>,
        key: &RecordKey,
        new: Option<&Version<'_>>,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let (old_document, new_document) = (old.map(Version::document), new.map(Version::document));
        let unchanged = match (old_document, new_document) {
            (None, None) => true,
            (Some(old), Some(new)) => same_document(old, new),
            _ => false,
        };
        if unchanged {
            return Ok(false);
        }
        if let (Some(old), None) = (old_document, new) {
            self.put_trash(key, old, actor, TrashState::Pending)?;
        }
        // The record changed, so what the centre refused is worth another try.
        self.clear_dead(key)?;
        let base = self.base_if_dirty(key)?.unwrap_or_else(|| old_document.cloned().into());
        self.put_over(old, key, new, &base, actor)?;
        match (old, new) {
            // Nobody else ever had it.
            (_, None) if self.is_clean(key)? => self.settle_trash(key, TrashState::Done)?,
            (None, Some(_)) => self.settle_trash(key, TrashState::Void)?,
            _ => {}
        }
        if new.is_none() && self.undecided(key)?.is_some() {
            // Nothing is left here to decide about: what the centre has is taken.
            self.request_reread(key)?;
        }
        self.carry_grants(key, old_document, new_document)?;
        Ok(true)
    }

    /// Writes a record and its base with everything that follows from them: indexes, base row, place in
    /// the push order, journal.
    pub fn put(
        &mut self,
        key: &RecordKey,
        new: Option<&Document>,
        base: &Base,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let old = self.bytes(key)?.map(Version::stored).transpose()?;
        let new = new.map(Cow::Borrowed).map(Version::of).transpose()?;
        self.put_over(old.as_ref(), key, new.as_ref(), base, actor)
    }

    /// [`Tx::put`] over what is stored, which is `old`.
    fn put_over(
        &mut self,
        old: Option<&Version<'_>>,
        key: &RecordKey,
        new: Option<&Version<'_>>,
        base: &Base,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let (old_bytes, new_bytes) = (old.map(Version::bytes), new.map(Version::bytes));
        let (old_document, new_document) = (old.map(Version::document), new.map(Version::document));
        let is_here_alone = *base == Base::Absent && new.is_some();
        // Of no other change it matters what was agreed on before.
        let was_agreed = if is_here_alone { self.base(key)? } else { Base::Absent };
        let is_made_here =
            key.kind == Kind::Person && old.is_none() && new.is_some() && *actor != Actor::Centre;
        let late = if is_made_here { self.late(&key.id)? } else { BTreeSet::new() };
        // Who stood at the centre, where the one here was written over them and is not sent.
        let stood = match (key.kind, was_agreed.document().filter(|agreed| !agreed.is_empty()), old_document)
        {
            (Kind::Person, Some(agreed), Some(person)) if self.is_rewritten(key, agreed, person)? => {
                Some(agreed.clone())
            }
            _ => None,
        };
        if old_bytes != new_bytes {
            self.write((old_bytes, new_bytes), key, &changed_paths(old_document, new_document), actor)?;
        }
        self.put_base(key, &was_agreed, new_document, base, actor)?;
        if is_made_here {
            self.set_apart_from(key, &late)?;
        }
        match (key.kind.schema().owner, old_document) {
            // Records of theirs that the centre has stay theirs.
            (Owner::Itself, Some(person)) if is_here_alone && was_agreed.is_at_centre() => {
                self.remember_departed(&key.id, stood.as_ref().unwrap_or(person))
            }
            _ => Ok(()),
        }
    }

    /// Writes what was last agreed about a record with the centre; `new` is what it holds here. `was` is what was agreed on
    /// until now; it only matters if the centre does not have the record any more. Every change of a base passes here, also
    /// that by a delete that lands after its record was restored. So it is noted here that a record is on this node alone
    /// from now on.
    pub(crate) fn put_base(
        &mut self,
        key: &RecordKey,
        was: &Base,
        new: Option<&Document>,
        base: &Base,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let differs = match (new, base.document()) {
            (None, None) => false,
            (Some(new), Some(base)) => !same_document(new, base),
            _ => true,
        };
        if differs || self.has_intent(key)? {
            self.keep_base(key, base, new.is_none(), actor)?;
        } else if new.is_none() && *actor != Actor::Centre {
            self.keeping_unsent_delete(key, |tx| tx.drop_base(key))?;
        } else {
            self.drop_base(key)?;
        }
        match (base, new) {
            (Base::Absent, Some(new)) => self.note_if_left_alone(key, new, was),
            _ => Ok(()),
        }
    }

    /// Takes the centre's version of a record that nobody here has changed, `old` as it is here. Returns whether its
    /// bytes changed.
    pub(crate) fn put_agreed(
        &mut self,
        key: &RecordKey,
        old: Option<&Document>,
        new: &Document,
    ) -> Result<bool, StoreError> {
        let (old_bytes, new_bytes) = (self.bytes(key)?, encode(new)?);
        let has_changed = old_bytes.as_ref() != Some(&new_bytes);
        if has_changed {
            let change = (old_bytes.as_deref(), Some(new_bytes.as_slice()));
            self.write(change, key, &changed_paths(old, Some(new)), &Actor::Centre)?;
        }
        Ok(has_changed)
    }

    /// Whether there is nothing here that a record of the centre could meet: no record, no trace of one, and nothing
    /// that any record has to be compared with first.
    pub(crate) fn is_unheard_of(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let at = row_key(key);
        let is_known = self.docs.contains(at)?
            || self.base.contains(at)?
            || self.held.contains(at)?
            || self.ghost.contains(at)?
            || self.vanished.get(at)?.is_some()
            || self.has_holds()?
            || self.undecided.contains(at)?
            || self.delivered.contains(at)?
            || self.is_resyncing_all()?
            || self.has_open_conflicts(key)?;
        let is_person = key.kind.schema().id_rule == IdRule::Account;
        if is_known || !is_person {
            return Ok(!is_known);
        }
        // What waits for somebody who has the account is taken with them.
        Ok(self.spellings(&key.id)?.is_empty()
            && self.departed(&key.id)?.is_none()
            && self.held_of(&key.id)?.is_empty())
    }

    /// Takes a record of the centre that is [unheard of](Tx::is_unheard_of).
    pub(crate) fn put_new(&mut self, key: &RecordKey, new: &RawDocument) -> Result<(), StoreError> {
        // The whole document, as `changed_paths` says it of one that is new.
        self.write((None, Some(new.as_bytes())), key, &[String::new()], &Actor::Centre)
    }

    /// Writes a record with what follows from it whatever its base is: indexes, journal, audit entry. The only place
    /// where records are written.
    fn write(
        &mut self,
        (old, new): (Option<&[u8]>, Option<&[u8]>),
        key: &RecordKey,
        paths: &[String],
        actor: &Actor,
    ) -> Result<(), StoreError> {
        self.keep_unsent_version(key, old, actor)?;
        match new {
            Some(bytes) => self.docs.insert(row_key(key), bytes)?,
            None => {
                self.docs.remove(row_key(key))?;
            }
        }
        self.writes += 1;
        let (old, new) = (old.map(raw).transpose()?, new.map(raw).transpose()?);
        if let (Kind::Person, Some(old), None) = (key.kind, old, new) {
            self.note_departure(key, old)?;
            if self.spellings(&key.id)?.is_empty() {
                self.forget_meant(&key.id)?;
            }
        }
        if let (Kind::Person, None, Some(new)) = (key.kind, old, new) {
            self.note_arrival(&key.id, new, actor)?;
        }
        if let (Kind::Person, Some(new)) = (key.kind, new) {
            self.end_what_was_of_another(&key.id, old, new, actor)?;
        }
        self.note_former_dates(key, old, new)?;
        self.index(key, old, new)?;
        self.follow_content(key, old, new)?;
        self.append_journal(key, old, new, paths, actor)
    }

    fn keep_base(
        &mut self,
        key: &RecordKey,
        base: &Base,
        is_delete: bool,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let rank = push_rank(key.kind, is_delete);
        let (code, id) = row_key(key);
        let (mut since, mut sequence, mut author) = (self.now_ms, self.sequence, actor.to_string());
        let old_row = self.base.get((code, id))?.map(|row| row.value().to_vec());
        if let Some(old_row) = &old_row {
            let (old_rank, old_sequence) = BaseRow::place(old_row)?;
            let old_place = (old_rank, old_sequence, code, id);
            // Keeps its place in the queue, unless it became a delete or came back from one.
            sequence = old_sequence;
            let mut is_by_another = true;
            if let Some(old) = self.dirty.get(old_place)? {
                let (first_edit, last_author) = old.value();
                since = first_edit;
                if *actor == Actor::Centre {
                    author = last_author.to_owned();
                }
                is_by_another = last_author != author;
            }
            // By bytes: the order of keys is what the next compare-and-set of a whole sub-document needs. Most edits
            // are not the first since the last push, and leave both rows as they are.
            let is_kept = *old_row == BaseRow::encode(rank, sequence, base)?;
            if is_kept && !is_by_another {
                return Ok(());
            }
            self.dirty.remove(old_place)?;
        }
        if old_row.is_none() {
            self.begin_to_wait(key)?;
        }
        let row = BaseRow::encode(rank, sequence, base)?;
        self.dirty.insert((rank, sequence, code, id), (since, author.as_str()))?;
        self.base.insert((code, id), row.as_slice())?;
        self.writes += 1;
        Ok(())
    }

    /// The record's first unsent edit is the one of this number, if it waits.
    pub(in crate::store) fn move_edit(&mut self, key: &RecordKey, number: u64) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        let Some(BaseRow { rank, sequence, base }) = self.base_row(key)? else {
            return Ok(());
        };
        let old = self.dirty.remove((rank, sequence, code, id))?.map(|row| {
            let (since, author) = row.value();
            (since, author.to_owned())
        });
        if let Some((since, author)) = old {
            self.dirty.insert((rank, number, code, id), (since, author.as_str()))?;
        }
        let row = BaseRow::encode(rank, number, &base)?;
        self.base.insert((code, id), row.as_slice())?;
        self.writes += 1;
        Ok(())
    }

    pub(in crate::store) fn drop_base(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        let place = self.base.get((code, id))?.map(|row| BaseRow::place(row.value())).transpose()?;
        if let Some((rank, sequence)) = place {
            self.base.remove((code, id))?;
            self.dirty.remove((rank, sequence, code, id))?;
            self.clear_dead(key)?;
            self.clear_waiting(key)?;
            // As long as it is asked who they are, records that were made in between are told apart by it.
            if key.kind == Kind::Person && unless_damaged(self.hold(&key.id))? == Some(None) {
                self.forget_written_over(&key.id)?;
            }
            self.forget_unsent_version(key)?;
            self.writes += 1;
        }
        Ok(())
    }

    /// The account to which the record belongs; a deleted one belongs to whom it belonged.
    pub fn owner(&self, key: &RecordKey) -> Result<Option<String>, StoreError> {
        let schema = key.kind.schema();
        match self.look(key, |record| schema.owner_in(record))? {
            Some(owner) => Ok(owner),
            None => {
                self.check_absent(key)?;
                Ok(self.base(key)?.document().and_then(|document| schema.owner_of(document)))
            }
        }
    }

    /// The ids of the records of a kind that belong to an account.
    pub fn owned(&self, kind: Kind, account: &str) -> Result<Vec<String>, StoreError> {
        owned(&*self.by_owner, kind, account)
    }

    /// Whether any record other than the person's own belongs to this account.
    pub fn has_dependents(&self, account: &str) -> Result<bool, StoreError> {
        let owner = fold_account(account);
        if owner == NO_ACCOUNT {
            return Ok(false);
        }
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Person) {
            let code = kind.schema().code;
            let from = (code, owner.as_str(), "");
            if let Some(entry) = self.by_owner.range(from..)?.next() {
                let (entry, _) = entry?;
                let (found_code, found_owner, _) = entry.value();
                if found_code == code && found_owner == owner {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The stored spelling of a person's id: exact, canonical, or any that folds to the same.
    pub fn resolve_person(&self, id: &str) -> Result<Option<String>, StoreError> {
        resolve_person(&self.docs, &self.by_spelling, id)
    }
}
