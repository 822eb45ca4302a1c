//! Floor 1. Who had an account last, once that person is gone.
//!
//! Another human being may get the account. What is left here of the one before, records and bodies in the trash, must
//! not become theirs unasked. Remembered are the fields by which people are told apart, and in which numbers of the
//! trash the person's time was; of 10,000 accounts, and of all that records here still name, or that wait here.
//!
//! A person who was made and deleted on this node had the account too, and rows of the trash are of their time. But the centre
//! never had them, and no record there is theirs. So the last person whom the centre had is remembered as well.
//!
//! Records of the centre that came under the account after that person was gone may be anybody's. They are noted beside
//! them, until somebody has the account.
//!
//! A record may be left on this node alone, deleted at the centre, while its account has no person and never had one here. An
//! earlier holder wrote it, so one without a known identity is remembered for the account.

use std::collections::BTreeSet;

use bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use redb::ReadableTable;

use crate::domain::access::Actor;
use crate::domain::folding::beginning;
use crate::domain::merge::{IDENTITY_FIELDS, is_unknown, same_identity, unknown_identity};
use crate::domain::record::{RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Base, Fields, damaged, encode};
use crate::store::schema::DEPARTED;

/// Accounts whose last person is remembered. Beyond that the oldest are forgotten, unless records here name them.
const ROWS_MAX: u64 = 10_000;
/// So many are forgotten at a time.
const TRIM_ROWS: usize = 1_000;

/// Who had an account last.
pub(in crate::store) struct Departed {
    /// The fields by which people are told apart.
    pub(in crate::store) identity: Document,
    /// Rows of the trash after the first number and through the second are of their time.
    since: u64,
    until: u64,
    /// The centre has somebody else under the account.
    is_succeeded: bool,
    /// The centre was never known to have them.
    is_only_here: bool,
    /// Who stood at the centre before somebody who was only here.
    stood: Option<Document>,
    /// Records that came from the centre after they were gone.
    pub(in crate::store) late: BTreeSet<RecordKey>,
}

impl Departed {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Departed, StoreError> {
        let row = Fields::of(bytes, "a person who is gone")?;
        Ok(Departed {
            identity: row.document("identity")?,
            // Rows of earlier versions say neither since when nor whether they were succeeded.
            since: row.count_if_any("since")?.unwrap_or_default(),
            until: row.count("at")?,
            is_succeeded: row.flag_if_any("succeeded")?,
            is_only_here: row.flag_if_any("only_here")?,
            stood: row.document_if_any("stood")?,
            late: row.rows_if_any("late")?.iter().map(Fields::key).collect::<Result<_, _>>()?,
        })
    }

    fn encode(&self) -> Document {
        let mut row = doc! {
            "identity": &self.identity, "since": self.since as i64, "at": self.until as i64,
            "succeeded": self.is_succeeded,
        };
        if self.is_only_here {
            row.insert("only_here", true);
        }
        row.extend(self.stood.clone().map(|stood| ("stood".to_owned(), stood.into())));
        if !self.late.is_empty() {
            let late = |key: &RecordKey| doc! {"kind": i32::from(key.kind.schema().code), "id": &key.id};
            row.insert("late", self.late.iter().map(late).collect::<Vec<_>>());
        }
        row
    }

    /// Who stood at the centre last, as far as this node knows.
    fn last_there(self) -> Option<Document> {
        if self.is_only_here { self.stood } else { Some(self.identity) }
    }

    /// The same, unless the centre has had somebody else since.
    pub(in crate::store) fn last_holder(self) -> Option<Document> {
        if self.is_succeeded { None } else { self.last_there() }
    }

    pub(in crate::store) fn is_of(&self, person: &Document) -> bool {
        same_identity(&self.identity, person)
    }

    /// Whether nothing is known of them but that they had the account.
    pub(in crate::store) fn is_unknown(&self) -> bool {
        is_unknown(&self.identity)
    }

    /// The last number of the trash of their time.
    pub(in crate::store) fn until(&self) -> u64 {
        self.until
    }

    /// Through which number of the trash rows are another one's than `person`.
    pub(in crate::store) fn ends_before(&self, person: &Document) -> u64 {
        if self.is_of(person) { self.since } else { self.until }
    }
}

/// Somebody of whom nothing is known but that they had an account: nobody is taken for them.
pub(in crate::store) fn unknown_departed(until: u64) -> Departed {
    Departed {
        identity: unknown_identity(),
        since: 0,
        until,
        is_succeeded: false,
        is_only_here: false,
        stood: None,
        late: BTreeSet::new(),
    }
}

/// The fields by which people are told apart, with the id. Of texts no more than people are told apart by: these rows stand
/// beside each thing of theirs that waits.
pub fn identity_row(person: &Document) -> Document {
    let fields = ["_id"].into_iter().chain(IDENTITY_FIELDS);
    fields.filter_map(|field| person.get(field).map(|value| (field.to_owned(), compared(value)))).collect()
}

fn compared(value: &Bson) -> Bson {
    match value {
        Bson::String(text) => beginning(text).into(),
        other => other.clone(),
    }
}

/// [`identity_row`] of a record that is not decoded for it.
pub fn identity_in(person: &RawDocument) -> Result<Document, StoreError> {
    let mut row = Document::new();
    for field in ["_id"].into_iter().chain(IDENTITY_FIELDS) {
        if let Some(value) = person.get(field).map_err(|_| damaged("a person"))? {
            let value = match value {
                RawBsonRef::String(text) => beginning(text).into(),
                other => Bson::try_from(other).map_err(|_| damaged("a person"))?,
            };
            row.insert(field, value);
        }
    }
    Ok(row)
}

impl Tx<'_> {
    /// Who had this account last at the centre, if that person is gone and the centre has nobody else: the fields by which
    /// people are told apart.
    pub fn departed(&self, account: &str) -> Result<Option<Document>, StoreError> {
        match self.departed_row(account) {
            // Nobody agrees with somebody of whom nothing is known.
            Err(StoreError::DamagedRow(_)) => Ok(Some(unknown_identity())),
            // It may be the row under a damaged key.
            Ok(None) if self.is_departed_lost(account)? => Ok(Some(unknown_identity())),
            row => Ok(row?.and_then(Departed::last_holder)),
        }
    }

    /// Whether somebody who is gone had this account here, whoever that was.
    pub fn had_somebody(&self, account: &str) -> Result<bool, StoreError> {
        // A damaged row says as much.
        Ok(self.departed.contains(fold_account(account).as_str())? || self.is_departed_lost(account)?)
    }

    pub(in crate::store) fn departed_row(&self, account: &str) -> Result<Option<Departed>, StoreError> {
        let row = self.departed.get(fold_account(account).as_str())?;
        row.map(|row| Departed::decode(row.value())).transpose()
    }

    pub(in crate::store) fn put_departed_row(
        &mut self,
        account: &str,
        row: Option<&Departed>,
    ) -> Result<(), StoreError> {
        let account = fold_account(account);
        match row {
            Some(row) => self.departed.insert(account.as_str(), encode(&row.encode())?.as_slice())?,
            None => drop(self.departed.remove(account.as_str())?),
        }
        self.wrote();
        Ok(())
    }

    /// Remembers who had an account when its person goes, or is not at the centre any more.
    pub fn remember_departed(&mut self, id: &str, person: &Document) -> Result<(), StoreError> {
        self.remember(id, person, false)
    }

    /// A person leaves this store.
    pub(in crate::store) fn note_departure(
        &mut self,
        key: &RecordKey,
        person: &RawDocument,
    ) -> Result<(), StoreError> {
        let is_only_here = self.base_if_dirty(key)? == Some(Base::Absent)
            && !self.has_intent(key)?
            && !self.has_landed(key)?;
        self.remember(&key.id, &identity_in(person)?, is_only_here)
    }

    fn remember(&mut self, id: &str, person: &Document, is_only_here: bool) -> Result<(), StoreError> {
        let last = self.departed_row(id)?;
        let since = last.as_ref().map_or(0, |last| last.ends_before(person));
        let until = self.last_trash_number()?;
        let identity = identity_row(person);
        // One who stood at the centre once, and was to be put there again, is no stranger there.
        let is_only_here =
            is_only_here && !last.as_ref().is_some_and(|last| last.is_of(person) && !last.is_only_here);
        let late = last.as_ref().filter(|last| last.is_of(person)).map(|last| last.late.clone());
        let stood = last.filter(|_| is_only_here).and_then(Departed::last_holder);
        let late = late.unwrap_or_default();
        let row = Departed { identity, since, until, is_succeeded: false, is_only_here, stood, late };
        self.put_departed_row(id, Some(&row))?;
        if self.departed.len()? > self.carry.departed_max.max(ROWS_MAX + TRIM_ROWS as u64) {
            self.trim_departed()?;
            // If none of them may be forgotten, it is not tried again at once: each is looked at for that.
            self.carry.departed_max = self.departed.len()? + TRIM_ROWS as u64;
        }
        Ok(())
    }

    /// Somebody has the account from now on: until now it was the last one's.
    pub(in crate::store) fn note_arrival(
        &mut self,
        id: &str,
        person: &RawDocument,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let Some(mut last) = self.departed_row(id)? else {
            return self.note_holder(id, false);
        };
        last.until = self.last_trash_number()?;
        let is_another = !last.is_of(&identity_in(person)?);
        if is_another {
            self.note_holder(id, true)?;
        }
        last.is_succeeded = *actor == Actor::Centre && is_another;
        // Theirs, or set apart by who lets them in.
        last.late.clear();
        self.put_departed_row(id, Some(&last))?;
        // That the account was closed here was about the last one. If nobody knows who that was, it stays closed.
        if is_another && !is_unknown(&last.identity) {
            self.note_closed_here(id, false).map(drop)
        } else {
            Ok(())
        }
    }

    /// No row of the trash has a higher number.
    pub(in crate::store) fn last_trash_number(&self) -> Result<u64, StoreError> {
        let newest = self.trash_order.last()?.map_or(0, |(at, _)| at.value().0);
        Ok(self.last_sequence().max(newest))
    }

    /// Whether an account was another human being's than `person`, whose records are still here, or wait.
    pub fn is_of_departed(&self, id: &str, person: &Document) -> Result<bool, StoreError> {
        match self.departed(id)? {
            Some(identity) if !same_identity(&identity, person) => {
                let has_records = match is_unknown(&identity) {
                    true => self.has_records_but_late(id)?,
                    false => self.has_dependents(id)?,
                };
                Ok(has_records || !self.held_of(id)?.is_empty())
            }
            _ => Ok(false),
        }
    }

    /// Whether there are records of the account that did not come late. Without any there is nothing to ask about a former
    /// holder of whom nothing is known.
    fn has_records_but_late(&self, account: &str) -> Result<bool, StoreError> {
        let late = self.late(account)?;
        Ok(self.dependents(account)?.iter().any(|key| !late.contains(key)))
    }

    /// Whether it can be noted whose a record is not that comes while nobody has the account: nobody had it at the centre
    /// before, or the row of who had it is sound.
    pub fn can_note_late(&self, account: &str) -> Result<bool, StoreError> {
        Ok(self.departed(account)?.is_none()
            || unless_damaged(self.departed_row(account))?.flatten().is_some())
    }

    /// A record came from the centre after the last one of the account was gone. If somebody else gets the account, it is
    /// asked whose it is.
    pub fn note_late(&mut self, account: &str, key: &RecordKey) -> Result<(), StoreError> {
        if self.departed(account)?.is_none() {
            return Ok(());
        }
        let Some(mut last) = self.departed_row(account)? else {
            return Ok(());
        };
        if last.late.insert(key.clone()) { self.put_departed_row(account, Some(&last)) } else { Ok(()) }
    }

    /// These records are known not to be anybody else's than of the last one who had the account.
    pub fn forget_late(&mut self, account: &str, keys: &[RecordKey]) -> Result<(), StoreError> {
        let Some(mut last) = unless_damaged(self.departed_row(account))?.flatten() else {
            return Ok(());
        };
        let noted = last.late.len();
        last.late.retain(|key| !keys.contains(key));
        if last.late.len() == noted { Ok(()) } else { self.put_departed_row(account, Some(&last)) }
    }

    /// The centre does not have a `record` that is here, from now on; `was` is what was agreed on before.
    pub(in crate::store) fn note_if_left_alone(
        &mut self,
        key: &RecordKey,
        record: &Document,
        was: &Base,
    ) -> Result<(), StoreError> {
        match (key.kind.schema().owner, key.kind.schema().owner_of(record)) {
            (Owner::Field(_), Some(account)) if was.is_under(key, &account) => {
                self.note_left_alone(&account, key)
            }
            _ => Ok(()),
        }
    }

    /// Notes that this record of the account is here, which the centre had once and does not have now, while nobody on this
    /// node has the account. If it is not known who had the account before, a person of whom nothing is known is remembered:
    /// the next holder is not taken for them. What the centre has under the account may be anybody's.
    pub(in crate::store) fn note_left_alone(
        &mut self,
        account: &str,
        key: &RecordKey,
    ) -> Result<(), StoreError> {
        if !self.spellings(account)?.is_empty() {
            return Ok(());
        }
        match self.departed(account)? {
            Some(last) if is_unknown(&last) => return self.note_left_alone_too(account, key),
            // Of the next holder it is asked anyway.
            Some(_) => return Ok(()),
            None => {}
        }
        let mut late = BTreeSet::new();
        for key in self.dependents(account)? {
            if self.base(&key)?.is_under(&key, account) {
                late.insert(key);
            }
        }
        let mut identity = unknown_identity();
        identity.insert("_id", fold_account(account));
        let row = match self.departed_row(account)? {
            // A person who was made and deleted here had nothing at the centre.
            Some(last) => {
                Departed { is_succeeded: false, is_only_here: true, stood: Some(identity), late, ..last }
            }
            // The number 0: what is in the trash can go back as before, while nobody has the account.
            None => Departed { identity, late, ..unknown_departed(0) },
        };
        self.put_departed_row(account, Some(&row))
    }

    /// The same of one more record, where it is noted that nothing is known of who had the account.
    fn note_left_alone_too(&mut self, account: &str, key: &RecordKey) -> Result<(), StoreError> {
        let Some(mut last) = unless_damaged(self.departed_row(account))?.flatten() else {
            return Ok(());
        };
        // The next holder would get it with what the centre has.
        if last.late.remove(key) { self.put_departed_row(account, Some(&last)) } else { Ok(()) }
    }

    /// The holder of the account `now` is `person`, by decision, who had it last.
    pub(in crate::store) fn note_departed_same(
        &mut self,
        account: &str,
        person: &Document,
        now: &Document,
    ) -> Result<(), StoreError> {
        match unless_damaged(self.departed_row(account))?.flatten() {
            Some(last) if last.is_of(person) => {
                self.put_departed_row(account, Some(&Departed { identity: identity_row(now), ..last }))
            }
            _ => Ok(()),
        }
    }

    /// Records of an account that came after the last one who had it was gone. They may be anybody's.
    pub fn late(&self, account: &str) -> Result<BTreeSet<RecordKey>, StoreError> {
        let last = unless_damaged(self.departed_row(account))?.flatten();
        Ok(last.map(|last| last.late).unwrap_or_default())
    }

    /// What came late waits apart with what the centre has of the account, and is in nobody's book. What was written into
    /// it here and is not sent goes to the trash; one of which a write is on its way stays, and stays noted.
    pub fn set_late_apart(&mut self, account: &str, late: BTreeSet<RecordKey>) -> Result<(), StoreError> {
        let account = fold_account(account);
        let mut left = BTreeSet::new();
        for key in late {
            let Some(document) = self.document(&key)? else {
                continue;
            };
            if key.kind.schema().owner_of(&document).as_ref() != Some(&account) {
                continue;
            }
            if self.has_intent(&key)? {
                left.insert(key);
                continue;
            }
            let there = self.base(&key)?.document().filter(|there| !there.is_empty()).cloned();
            if !self.is_clean(&key)? {
                self.discard_held(&key, &document)?;
            }
            match there {
                Some(there) => self.set_apart(&key, &account, &there)?,
                // The centre has it no longer.
                None => self.put(&key, None, &Base::Absent, &Actor::Centre)?,
            }
        }
        match unless_damaged(self.departed_row(&account))?.flatten() {
            Some(last) if last.late != left => {
                self.put_departed_row(&account, Some(&Departed { late: left, ..last }))
            }
            _ => Ok(()),
        }
    }

    fn trim_departed(&mut self) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for entry in self.departed.iter()?.sound() {
            let (account, row) = entry?;
            rows.push((Departed::decode(row.value())?.until, account.value().to_owned()));
        }
        rows.sort_unstable();
        let (mut forgotten, mut through) = (0, 0);
        for (until, account) in rows {
            if forgotten < TRIM_ROWS && !self.has_dependents(&account)? && self.held_of(&account)?.is_empty()
            {
                self.departed.remove(account.as_str())?;
                (forgotten, through) = (forgotten + 1, until);
            }
        }
        self.wrote();
        if forgotten > 0 { self.note_forgotten(through) } else { Ok(()) }
    }
}

impl Snapshot {
    pub(in crate::store) fn departed_row(&self, account: &str) -> Result<Option<Departed>, StoreError> {
        let departed = self.transaction.open_table(DEPARTED)?;
        let row = departed.get(fold_account(account).as_str())?;
        row.map(|row| Departed::decode(row.value())).transpose()
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::domain::record::Kind;
    use crate::store::{Store, StoreOptions};

    /// That an account was closed here is about a human being: it stays with them, and is not the next one's.
    #[tokio::test]
    async fn a_closed_account_is_open_to_the_next_person() {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        for (next, is_closed) in [("Anna", true), ("Bertha", false)] {
            let store = Store::in_memory(options).unwrap();
            let person =
                |name: &str| doc! {"_id": "AAA001", "name": name, "lastname": name, "dob": "1990-01-01"};
            let (before, next) = (person("Anna"), person(next));
            let found = store
                .transact(move |tx| -> Result<bool, StoreError> {
                    let key = RecordKey::new(Kind::Person, "AAA001");
                    tx.put(&key, Some(&before), &Base::Document(before.clone()), &Actor::Centre)?;
                    tx.set_closed_here("AAA001", true, &Actor::Centre)?;
                    tx.put(&key, None, &Base::Absent, &Actor::Centre)?;
                    tx.put(&key, Some(&next), &Base::Document(next.clone()), &Actor::Centre)?;
                    tx.is_closed_here("AAA001")
                })
                .await
                .unwrap();
            assert_eq!(found, is_closed);
        }
    }
}
