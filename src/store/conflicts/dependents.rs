//! Floor 1. Records that belong to an account, and what becomes of them when its two people are told apart or united.

use std::collections::BTreeSet;

use bson::{Document, doc};

use super::conflict::digest;
use super::holds::Hold;
use crate::domain::access::Actor;
use crate::domain::merge::same_identity;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::holders::{Departed, owned};
use crate::store::rows::{Base, BaseRow, kind_of, row_key};
use crate::store::schema::{BY_OWNER, LANDED};

/// The kinds whose records belong to a person by a field.
fn dependent_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| matches!(kind.schema().owner, Owner::Field(_)))
}

impl Tx<'_> {
    /// Records of an account that the centre has never been known to have under it: made here, or given to it here.
    pub fn own_dependents(&self, account: &str) -> Result<Vec<RecordKey>, StoreError> {
        let mut own = Vec::new();
        for kind in dependent_kinds() {
            for id in self.owned(kind, account)? {
                let key = RecordKey::new(kind, id);
                let is_there = self.base(&key)?.is_under(&key, account) || self.has_landed(&key)?;
                own.extend((!is_there).then_some(key));
            }
        }
        Ok(own)
    }

    /// The records of the account that go with the person of this node, if the two of a hold are two people.
    pub fn going_along(&self, hold: &Hold) -> Result<BTreeSet<RecordKey>, StoreError> {
        let own: BTreeSet<_> = self.own_dependents(&hold.account)?.into_iter().collect();
        // What came late may be the other one's, with what was written into it here.
        let late = self.late(&hold.account)?;
        let person = self.document(&hold.local_key())?.unwrap_or_default();
        let is_last_holder = self.departed(&hold.account)?.is_some_and(|last| same_identity(&last, &person));
        let mut going = BTreeSet::new();
        for key in self.dependents(&hold.account)?.into_iter().filter(|key| !late.contains(key)) {
            let is_older = self.is_older_than_holder(&hold.local, &key)?;
            if hold.why.takes_along(own.contains(&key), is_older, is_last_holder) {
                going.insert(key);
            }
        }
        Ok(going)
    }

    /// Whether a record waits to be sent since before its account came to be of the person `holder`.
    pub fn is_older_than_holder(&self, holder: &str, key: &RecordKey) -> Result<bool, StoreError> {
        let since = self.unsent_since(holder)?;
        let first_write = self.edit_number(key)?;
        Ok(since.is_some_and(|since| first_write > 0 && first_write <= since))
    }

    /// Records that the centre has under an account and that were deleted here, which is not sent yet.
    pub fn deleted_dependents(&self, account: &str) -> Result<Vec<RecordKey>, StoreError> {
        let mut deleted = Vec::new();
        for entry in self.base.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            if !matches!(key.kind.schema().owner, Owner::Field(_)) || self.docs.get(at.value())?.is_some() {
                continue;
            }
            if BaseRow::decode(row.value())?.base.is_under(&key, account) {
                deleted.push(key);
            }
        }
        Ok(deleted)
    }

    /// All records of an account but the person's own.
    pub fn dependents(&self, account: &str) -> Result<Vec<RecordKey>, StoreError> {
        let mut found = Vec::new();
        for kind in dependent_kinds() {
            let ids = self.owned(kind, account)?;
            found.extend(ids.into_iter().map(|id| RecordKey::new(kind, id)));
        }
        Ok(found)
    }

    /// Gives the record of this node another id, under which the centre does not know it. Conflicts about it go with it.
    pub fn rename(
        &mut self,
        from: &RecordKey,
        to: &RecordKey,
        document: &Document,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let old = self.document(from)?.unwrap_or_default();
        let departed = self.departed_row(&from.id)?;
        self.put(from, None, &Base::Absent, actor)?;
        self.put(to, Some(document), &Base::Absent, actor)?;
        if from.kind == Kind::Person {
            self.is_not_gone(&from.id, &old, departed)?;
            self.move_grants(&from.id, &old, &to.id)?;
            self.move_closed_here(&from.id, &to.id)?;
            self.give_trail(&from.id, &to.id)?;
        }
        self.move_conflicts(from, to, actor)
    }

    /// A person of this node is the one who stands under another id already, `to`. What was written into them here and is not sent is
    /// in the trash.
    pub fn unite_with(
        &mut self,
        from: &RecordKey,
        to: &RecordKey,
        person: &Document,
    ) -> Result<(), StoreError> {
        let departed = self.departed_row(&from.id)?;
        self.discard(from, person)?;
        self.put(from, None, &Base::Absent, &Actor::Centre)?;
        self.is_not_gone(&from.id, person, departed)?;
        self.move_closed_here(&from.id, &to.id)?;
        let them = self.document(to)?.unwrap_or_default();
        // Roles were granted to who knows this password.
        if them.get("password") == person.get("password") {
            self.move_grants(&from.id, person, &to.id)?;
        }
        self.give_trail(&from.id, &to.id)
    }

    /// Who had the account until now has another one; `before` is who had it before them, as it was remembered.
    fn is_not_gone(
        &mut self,
        id: &str,
        person: &Document,
        before: Option<Departed>,
    ) -> Result<(), StoreError> {
        // They are not gone. Somebody else who had the account before may be.
        if let Some(last) = before.as_ref().filter(|last| last.is_of(person)) {
            // Of who had it before them nothing is remembered any more.
            self.note_forgotten(last.ends_before(person))?;
        }
        self.put_departed_row(id, before.filter(|last| !last.is_of(person)).as_ref())
    }

    /// An id that no record of this kind has; the same for the same record and account.
    pub(crate) fn free_id(&self, kind: Kind, name: &str, account: &str) -> Result<String, StoreError> {
        let mut turn = 0_i64;
        loop {
            let digest = digest(&doc! {"id": name, "account": account, "turn": turn})?;
            // In the shape of a UUID, as ids of pages are.
            let id = format!(
                "{}-{}-8{}-8{}-{}",
                &digest[..8],
                &digest[8..12],
                &digest[13..16],
                &digest[17..20],
                &digest[20..32]
            );
            let key = RecordKey::new(kind, id);
            if self.document(&key)?.is_none() && self.is_clean(&key)? && self.held(&key)?.is_none() {
                return Ok(key.id);
            }
            turn += 1;
        }
    }
}

impl Snapshot {
    /// How many records [`Tx::going_along`] are, and those that are damaged.
    pub fn going_along_count(&self, hold: &Hold) -> Result<u64, StoreError> {
        let by_owner = self.transaction.open_table(BY_OWNER)?;
        let landed = self.transaction.open_table(LANDED)?;
        let since = self.unsent_since(&hold.local)?;
        let last = unless_damaged(self.departed_row(&hold.account))?.flatten();
        let late = last.as_ref().map(|last| last.late.clone()).unwrap_or_default();
        let person = unless_damaged(self.document(&hold.local_key()))?.flatten().unwrap_or_default();
        let is_last_holder =
            last.and_then(Departed::last_holder).is_some_and(|last| same_identity(&last, &person));
        let mut count = 0;
        for kind in dependent_kinds() {
            for id in owned(&by_owner, kind, &hold.account)? {
                let key = RecordKey::new(kind, id);
                // Of one that is damaged nobody can say that the centre has it.
                let base = unless_damaged(self.base(&key))?;
                let is_own = base
                    .is_none_or(|base| base.is_some_and(|base| !base.is_under(&key, &hold.account)))
                    && landed.get(row_key(&key))?.is_none();
                let first_write = unless_damaged(self.edit_number(&key))?.unwrap_or_default();
                let is_older = since.is_some_and(|since| first_write > 0 && first_write <= since);
                let is_going = hold.why.takes_along(is_own, is_older, is_last_holder);
                count += u64::from(!late.contains(&key) && is_going);
            }
        }
        Ok(count)
    }
}
