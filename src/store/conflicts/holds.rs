//! Floor 1. Identity holds: two people under one account, and the centre's records that wait until somebody has
//! decided whether they are one.
//!
//! The person of this node stays in `docs`, with their records; what the centre holds under the account and is
//! not agreed on goes to `held`. So does a record of the centre whose person nobody knows: it waits for somebody to have
//! the account, behind no hold. Whether somebody is held, and what follows from a decision, is the business of
//! the reconciliation; here it is only kept.

use std::collections::BTreeSet;
use std::ops::Bound;

use bson::{Document, doc};
use redb::ReadableTable;

use super::conflict::digest;
use crate::domain::access::Actor;
use crate::domain::merge::{is_other_person, same_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::holders::{Departed, owned, spellings};
use crate::store::rows::{Base, BaseRow, Fields, encode, ids_between, kind_of, row_key};
use crate::store::schema::{BY_OWNER, BY_SPELLING, DOCS, DUPLICATE, HELD, HELD_OF, HOLD, LANDED};

/// Why two people under one account may be two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// Made on both sides, and not alike.
    Created,
    /// Agreed once; then the centre's record came to be about somebody else.
    Reused,
    /// New on both sides, and the ids are spelled differently.
    Spelling,
    /// The person of this node was deleted, records of theirs are still here, and somebody else came to have the
    /// account.
    Departed,
    /// The person was made here; the account was another one's, whose records are at the centre while nobody is there
    /// who has it.
    Taken,
    /// Agreed once; then the person was rewritten on this node into somebody else.
    Rewritten,
}

impl HoldReason {
    const ALL: [HoldReason; 6] = [
        HoldReason::Created,
        HoldReason::Reused,
        HoldReason::Spelling,
        HoldReason::Departed,
        HoldReason::Taken,
        HoldReason::Rewritten,
    ];

    pub(in crate::store) fn named(name: &str) -> Option<HoldReason> {
        HoldReason::ALL.into_iter().find(|reason| reason.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            HoldReason::Created => "created",
            HoldReason::Reused => "reused",
            HoldReason::Spelling => "spelling",
            HoldReason::Departed => "departed",
            HoldReason::Taken => "taken",
            HoldReason::Rewritten => "rewritten",
        }
    }
}

impl HoldReason {
    /// Whether a record of the account goes with the person of this node to a new account. `is_own`: the centre has never been
    /// known to have it under the account. `is_older`: its first unsent write came before the account was this person's.
    /// `is_last_holder`: this very person stood at the centre last.
    fn takes_along(self, is_own: bool, is_older: bool, is_last_holder: bool) -> bool {
        match self {
            // What was agreed before the other person came is of the one who is here.
            HoldReason::Departed | HoldReason::Reused => true,
            HoldReason::Rewritten => is_own && !is_older,
            // What was agreed while they stood there is theirs.
            HoldReason::Taken => is_own || is_last_holder,
            HoldReason::Created | HoldReason::Spelling => is_own,
        }
    }
}

/// Two people under one account, until somebody has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The account that both have, folded.
    pub account: String,
    /// The conflict under which it is listed and decided.
    pub conflict: String,
    /// The id of the person here, and that of the one at the centre: the same but for [`HoldReason::Spelling`].
    pub local: String,
    pub remote: String,
    pub why: HoldReason,
    pub since_ms: i64,
    /// The fields by which the other person is told apart, if the centre has them no longer but records of theirs.
    pub gone: Option<Document>,
}

impl Hold {
    pub fn local_key(&self) -> RecordKey {
        RecordKey::new(Kind::Person, self.local.as_str())
    }

    pub fn remote_key(&self) -> RecordKey {
        RecordKey::new(Kind::Person, self.remote.as_str())
    }

    /// Whether the centre has given the account away since: `agreed` is who had it there when another person was written
    /// over them here, `held` who has it now.
    fn is_taken(&self, agreed: &Document, held: &Document) -> bool {
        let is_known = self.why == HoldReason::Rewritten && !agreed.is_empty();
        is_known && is_other_person(Some(agreed), agreed, held)
    }

    fn other(&self, agreed: Option<Document>, held: Option<Document>) -> Option<Document> {
        match (agreed, held) {
            (Some(agreed), Some(held)) if self.is_taken(&agreed, &held) => Some(agreed),
            (_, held) => held.or_else(|| self.gone.clone()),
        }
    }

    /// Whether nothing is known of the other person if the centre's does not wait here.
    pub(crate) fn is_other_missing(&self) -> bool {
        self.gone.is_none() && self.why != HoldReason::Taken
    }

    fn encode(&self) -> Document {
        let mut row = doc! {
            "conflict": &self.conflict, "local": &self.local, "remote": &self.remote,
            "why": self.why.name(), "since": self.since_ms,
        };
        row.extend(self.gone.clone().map(|gone| ("gone".to_owned(), gone.into())));
        row
    }

    pub(in crate::store) fn decode(account: &str, bytes: &[u8]) -> Result<Hold, StoreError> {
        let row = Fields::of(bytes, "a hold")?;
        Ok(Hold {
            account: account.to_owned(),
            conflict: row.text("conflict")?.to_owned(),
            local: row.text("local")?.to_owned(),
            remote: row.text("remote")?.to_owned(),
            why: row.word("why", HoldReason::named)?,
            since_ms: row.int64("since")?,
            gone: row.document_if_any("gone")?,
        })
    }
}

/// A document of the centre that waits behind a hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The hold's account.
    pub account: String,
    pub document: Document,
    /// It was agreed on here while the one stood at the centre who had the account before, so it is theirs.
    pub is_agreed: bool,
}

impl Held {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Held, StoreError> {
        let row = Fields::of(bytes, "a held record")?;
        Ok(Held {
            account: row.text("account")?.to_owned(),
            document: row.document("document")?,
            is_agreed: row.flag_if_any("agreed")?,
        })
    }
}

/// The kinds whose records belong to a person by a field.
fn dependent_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| matches!(kind.schema().owner, Owner::Field(_)))
}

impl Tx<'_> {
    /// Whether anybody is held; almost always nobody is.
    pub fn has_holds(&self) -> Result<bool, StoreError> {
        Ok(!self.hold.is_empty()?)
    }

    /// The hold of an account, in any spelling.
    pub fn hold(&self, account: &str) -> Result<Option<Hold>, StoreError> {
        let account = fold_account(account);
        if let Some(row) = self.hold.get(account.as_str())? {
            return Hold::decode(&account, row.value()).map(Some);
        }
        // Its row may lie under another key, which is damaged.
        if self.hold.is_empty()? { Ok(None) } else { self.hold_asked_about(&account) }
    }

    pub fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        let mut holds = Vec::new();
        for entry in self.hold.iter()?.sound() {
            let (account, row) = entry?;
            holds.push(Hold::decode(account.value(), row.value())?);
        }
        Ok(holds)
    }

    pub fn put_hold(&mut self, hold: &Hold) -> Result<(), StoreError> {
        self.hold.insert(hold.account.as_str(), encode(&hold.encode())?.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// Ends a hold. What waits behind it stays until it is taken.
    pub fn remove_hold(&mut self, hold: &Hold) -> Result<(), StoreError> {
        self.hold.remove(hold.account.as_str())?;
        self.wrote();
        Ok(())
    }

    /// What the centre holds under this key and has to wait.
    pub fn held(&self, key: &RecordKey) -> Result<Option<Held>, StoreError> {
        self.held.get(row_key(key))?.map(|row| Held::decode(row.value())).transpose()
    }

    /// The other person of a hold: the centre's, or what is remembered of the one who is gone there. Of a person who was
    /// rewritten here it is the one who was written over, even if a third person has the account at the centre by now.
    pub fn other_person(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        let held = self.held(&hold.remote_key())?.map(|held| held.document);
        let agreed = self.written_over_in(hold)?;
        Ok(hold.other(agreed, held))
    }

    /// Who has the account at the centre by now, if that is not the person over whom another one was written here. Whether
    /// these two are one is asked once it is decided what becomes of the one who was written here.
    pub fn taken_by(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        let held = self.held(&hold.remote_key())?.map(|held| held.document);
        let agreed = self.written_over_in(hold)?;
        Ok(held.filter(|held| agreed.is_some_and(|agreed| hold.is_taken(&agreed, held))))
    }

    /// The person over whom another one was written here.
    pub fn written_over_in(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        match hold.why {
            HoldReason::Rewritten => Ok(self.base(&hold.local_key())?.document().cloned()),
            _ => Ok(None),
        }
    }

    /// Lets a document of the centre wait behind the hold of `account`; returns whether that is news.
    pub fn put_held(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
    ) -> Result<bool, StoreError> {
        let known = unless_damaged(self.held(key))?.flatten();
        let is_agreed = known.is_some_and(|known| known.is_agreed && known.account == account);
        self.put_held_row(key, account, document, is_agreed)
    }

    /// The same for one that was agreed on here while the one stood at the centre who had the account before.
    pub fn put_held_agreed(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
    ) -> Result<bool, StoreError> {
        self.put_held_row(key, account, document, true)
    }

    fn put_held_row(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
        is_agreed: bool,
    ) -> Result<bool, StoreError> {
        let mut row = doc! {"account": account, "document": document};
        if is_agreed {
            row.insert("agreed", true);
        }
        let row = encode(&row)?;
        if self.held.get(row_key(key))?.is_some_and(|known| known.value() == row) {
            return Ok(false);
        }
        self.take_held(key)?;
        let (code, id) = row_key(key);
        self.held.insert((code, id), row.as_slice())?;
        self.held_of.insert((account, code, id), ())?;
        self.wrote();
        Ok(true)
    }

    /// The document does not wait any longer.
    pub fn take_held(&mut self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        let Some(held) = self.held(key)? else {
            return Ok(None);
        };
        let (code, id) = row_key(key);
        self.held.remove((code, id))?;
        self.held_of.remove((held.account.as_str(), code, id))?;
        self.wrote();
        Ok(Some(held.document))
    }

    /// What waits behind the hold of an account: people first, then the rest in the order of their kinds.
    pub fn held_of(&self, account: &str) -> Result<Vec<RecordKey>, StoreError> {
        held_of(&self.held_of, account)
    }

    /// The accounts behind which something waits, with a hold or without.
    pub fn waited_for(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut accounts = BTreeSet::new();
        for entry in self.held_of.iter()? {
            let (at, ()) = (entry?.0, ());
            accounts.insert(at.value().0.to_owned());
        }
        Ok(accounts)
    }

    /// Records that the centre has under an account, where nobody is known who had it there, or that came later; the
    /// latter also if the centre has them no longer.
    fn records_of_nobody(
        &self,
        account: &str,
        late: &BTreeSet<RecordKey>,
    ) -> Result<Vec<RecordKey>, StoreError> {
        let mut found = Vec::new();
        if self.hold(account)?.is_none() {
            let is_all = self.departed(account)?.is_none();
            for key in self.dependents(account)? {
                if late.contains(&key) || (is_all && self.base(&key)?.is_under(&key, account)) {
                    found.push(key);
                }
            }
        }
        Ok(found)
    }

    /// Whether there is one among them with edits that have not been sent, or that is here alone: it could not wait apart.
    pub(in crate::store) fn has_edited_records_of_nobody(&self, account: &str) -> Result<bool, StoreError> {
        for key in self.records_of_nobody(account, &self.late(account)?)? {
            if !self.is_clean(&key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A person has been made here. What the centre has under their account came before them and is not theirs: it is in
    /// nobody's book from now on, and waits. So does what came `late`, after the last one was gone.
    pub(in crate::store) fn set_apart_from(
        &mut self,
        key: &RecordKey,
        late: &BTreeSet<RecordKey>,
    ) -> Result<(), StoreError> {
        let is_known_there = self.base(key)?.is_at_centre() || self.has_landed(key)?;
        if is_known_there || self.spellings(&key.id)?.len() > 1 {
            return Ok(());
        }
        for of_account in self.records_of_nobody(&key.id, late)? {
            if let (Some(document), true) = (self.document(&of_account)?, self.is_clean(&of_account)?) {
                self.set_apart(&of_account, &fold_account(&key.id), &document)?;
            }
        }
        Ok(())
    }

    /// A record that nobody has changed here waits for who has the account, as what the centre has.
    pub fn set_apart(
        &mut self,
        key: &RecordKey,
        account: &str,
        document: &Document,
    ) -> Result<(), StoreError> {
        self.put(key, None, &Base::Absent, &Actor::Centre)?;
        self.put_held(key, account, document).map(drop)
    }

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
    /// All holds.
    pub fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        let mut holds = Vec::new();
        for entry in self.transaction.open_table(HOLD)?.iter()?.sound() {
            let (account, row) = entry?;
            holds.push(Hold::decode(account.value(), row.value())?);
        }
        Ok(holds)
    }

    /// The hold of an account, in any spelling.
    pub fn hold(&self, account: &str) -> Result<Option<Hold>, StoreError> {
        let account = fold_account(account);
        let hold = self.transaction.open_table(HOLD)?;
        let row = hold.get(account.as_str())?;
        row.map(|row| Hold::decode(&account, row.value())).transpose()
    }

    /// How many people are held.
    pub fn holds_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(HOLD)?.len()
    }

    pub fn held(&self, key: &RecordKey) -> Result<Option<Held>, StoreError> {
        let held = self.transaction.open_table(HELD)?;
        held.get(row_key(key))?.map(|row| Held::decode(row.value())).transpose()
    }

    /// The other person of a hold, see [`Tx::other_person`].
    pub fn other_person(&self, hold: &Hold) -> Result<Option<Document>, StoreError> {
        let held = self.held(&hold.remote_key())?.map(|held| held.document);
        let agreed = match (hold.why, self.base(&hold.local_key())?) {
            (HoldReason::Rewritten, Some(base)) => base.document().cloned(),
            (HoldReason::Rewritten, None) => self.document(&hold.local_key())?,
            _ => None,
        };
        Ok(hold.other(agreed, held))
    }

    /// What waits behind the hold of an account.
    pub fn held_of(&self, account: &str) -> Result<Vec<RecordKey>, StoreError> {
        held_of(&self.transaction.open_table(HELD_OF)?, account)
    }

    /// How many records of the centre wait for somebody to have their account, behind no hold.
    pub fn nobodys_count(&self) -> Result<u64, StoreError> {
        let holds = self.transaction.open_table(HOLD)?;
        let mut count = 0;
        for entry in self.transaction.open_table(HELD_OF)?.iter()? {
            let (at, ()) = (entry?.0, ());
            count += u64::from(!holds.contains(at.value().0)?);
        }
        Ok(count)
    }

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

    /// Ids after `after` up to `up_to` (or the end) of a kind's records that wait behind a hold.
    pub(crate) fn held_ids(
        &self,
        kind: Kind,
        after: Option<&str>,
        up_to: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        ids_between(&self.transaction.open_table(HELD)?, kind, after, up_to)
    }

    /// Accounts under which more than one person is stored, each with the ids of these people, in order: at most `max` of those
    /// behind `after`, and all from the first for the empty text.
    pub fn duplicates_after(
        &self,
        after: &str,
        max: usize,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let mut found = Vec::new();
        let duplicate = self.transaction.open_table(DUPLICATE)?;
        for entry in duplicate.range::<&str>((Bound::Excluded(after), Bound::Unbounded))?.take(max) {
            let (account, ()) = (entry?.0, ());
            found.push((account.value().to_owned(), self.spellings(account.value())?));
        }
        Ok(found)
    }

    /// The ids of the people stored under an account, in whatever spelling.
    pub fn spellings(&self, account: &str) -> Result<Vec<String>, StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        spellings(&docs, &self.transaction.open_table(BY_SPELLING)?, account)
    }
}

fn held_of(
    held_of: &impl ReadableTable<(&'static str, u8, &'static str), ()>,
    account: &str,
) -> Result<Vec<RecordKey>, StoreError> {
    let account = fold_account(account);
    let mut keys = Vec::new();
    for entry in held_of.range((account.as_str(), 0, "")..)? {
        let (at, _) = entry?;
        let (of, code, id) = at.value();
        if of != account {
            break;
        }
        keys.push(RecordKey::new(kind_of(code)?, id));
    }
    Ok(keys)
}
