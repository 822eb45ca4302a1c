//! Floor 1. Who had an account last, once that person is gone.
//!
//! Another human being may get the account. What is left here of the one before, records and bodies in the trash, must
//! not become theirs unasked. Remembered are the fields by which people are told apart, and in which numbers of the
//! trash the person's time was; of 10,000 accounts, and of all that records here still name.

use bson::{Bson, Document, RawDocument, doc};
use redb::ReadableTable;

use super::StoreError;
use super::records::Tx;
use super::tables::{self, *};
use crate::domain::access::Actor;
use crate::domain::merge::{IDENTITY_FIELDS, same_identity, unknown_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};

/// Accounts whose last person is remembered. Beyond that the oldest are forgotten, unless records here name them.
const ROWS_MAX: u64 = 10_000;
/// So many are forgotten at a time.
const TRIM_ROWS: usize = 1_000;

/// Who had an account last.
pub(super) struct Departed {
    /// The fields by which people are told apart.
    pub(super) identity: Document,
    /// Rows of the trash after the first number and through the second are of their time.
    since: u64,
    until: u64,
    /// The centre has somebody else under the account.
    is_succeeded: bool,
}

impl Departed {
    fn decode(bytes: &[u8]) -> Result<Departed, StoreError> {
        let row = tables::decode(bytes)?;
        let number = |field: &str| row.get_i64(field).ok().and_then(|number| u64::try_from(number).ok());
        match (row.get_document("identity"), number("at")) {
            (Ok(identity), Some(until)) => Ok(Departed {
                identity: identity.clone(),
                since: number("since").unwrap_or_default(),
                until,
                is_succeeded: row.get_bool("succeeded").unwrap_or_default(),
            }),
            _ => Err(damaged("a person who is gone")),
        }
    }

    fn encode(&self) -> Document {
        doc! {
            "identity": &self.identity, "since": self.since as i64, "at": self.until as i64,
            "succeeded": self.is_succeeded,
        }
    }

    pub(super) fn is_of(&self, person: &Document) -> bool {
        same_identity(&self.identity, person)
    }

    /// Through which number of the trash rows are another one's than `person`.
    pub(super) fn ends_before(&self, person: &Document) -> u64 {
        if self.is_of(person) { self.since } else { self.until }
    }
}

/// Somebody of whom nothing is known but that they had an account: nobody is taken for them.
pub(super) fn unknown_departed(until: u64) -> Departed {
    Departed { identity: unknown_identity(), since: 0, until, is_succeeded: false }
}

/// The fields by which people are told apart, with the id.
pub fn identity_row(person: &Document) -> Document {
    let fields = ["_id"].into_iter().chain(IDENTITY_FIELDS);
    fields.filter_map(|field| person.get(field).map(|value| (field.to_owned(), value.clone()))).collect()
}

/// [`identity_row`] of a record that is not decoded for it.
pub fn identity_in(person: &RawDocument) -> Result<Document, StoreError> {
    let mut row = Document::new();
    for field in ["_id"].into_iter().chain(IDENTITY_FIELDS) {
        if let Some(value) = person.get(field).map_err(|_| damaged("a person"))? {
            row.insert(field, Bson::try_from(value).map_err(|_| damaged("a person"))?);
        }
    }
    Ok(row)
}

impl Tx<'_> {
    /// Who had this account last, if that person is gone and the centre has nobody else: the fields by which people are
    /// told apart.
    pub fn departed(&self, account: &str) -> Result<Option<Document>, StoreError> {
        match self.departed_row(account)? {
            // It may be the row under a damaged key.
            None if self.departed.is_any_damaged() => Ok(Some(unknown_identity())),
            row => Ok(row.filter(|row| !row.is_succeeded).map(|row| row.identity)),
        }
    }

    pub(super) fn departed_row(&self, account: &str) -> Result<Option<Departed>, StoreError> {
        let row = self.departed.get(fold_account(account).as_str())?;
        row.map(|row| Departed::decode(row.value())).transpose()
    }

    pub(super) fn put_departed_row(
        &mut self,
        account: &str,
        row: Option<&Departed>,
    ) -> Result<(), StoreError> {
        let account = fold_account(account);
        match row {
            Some(row) => self.departed.insert(account.as_str(), tables::encode(&row.encode())?.as_slice())?,
            None => drop(self.departed.remove(account.as_str())?),
        }
        self.wrote();
        Ok(())
    }

    /// Remembers who had an account when its person goes, or is not at the centre any more.
    pub fn remember_departed(&mut self, id: &str, person: &Document) -> Result<(), StoreError> {
        let since = self.departed_row(id)?.map_or(0, |last| last.ends_before(person));
        let until = self.last_trash_number()?;
        let row = Departed { identity: identity_row(person), since, until, is_succeeded: false };
        self.put_departed_row(id, Some(&row))?;
        if self.departed.len()? > ROWS_MAX + TRIM_ROWS as u64 {
            self.trim_departed()?;
        }
        Ok(())
    }

    /// Somebody has the account from now on: until now it was the last one's.
    pub(super) fn note_arrival(
        &mut self,
        id: &str,
        person: &RawDocument,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let Some(mut last) = self.departed_row(id)? else {
            return Ok(());
        };
        last.until = self.last_trash_number()?;
        let is_another = !last.is_of(&identity_in(person)?);
        last.is_succeeded = *actor == Actor::Centre && is_another;
        self.put_departed_row(id, Some(&last))?;
        if is_another { self.disown_conflicts(id) } else { Ok(()) }
    }

    /// No row of the trash has a higher number.
    pub(super) fn last_trash_number(&self) -> Result<u64, StoreError> {
        let newest = self.trash_order.last()?.map_or(0, |(at, _)| at.value().0);
        Ok(self.last_sequence().max(newest))
    }

    /// Whether an account was another human being's than `person`, whose records are still here.
    pub fn is_of_departed(&self, id: &str, person: &Document) -> Result<bool, StoreError> {
        match self.departed(id)? {
            Some(identity) => Ok(!same_identity(&identity, person) && self.has_dependents(id)?),
            None => Ok(false),
        }
    }

    /// Whether what was deleted under this number of the trash was of somebody else than who has the account now.
    pub(super) fn was_of_another(&self, account: &str, sequence: u64) -> Result<bool, StoreError> {
        let Some(last) = self.departed_row(account)? else {
            return Ok(self.departed.is_any_damaged());
        };
        let person = self.resolve_person(&fold_account(account))?;
        let person = person.map(|id| self.document(&RecordKey::new(Kind::Person, id))).transpose()?.flatten();
        Ok(person.is_some_and(|person| sequence <= last.ends_before(&person)))
    }

    fn trim_departed(&mut self) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for entry in self.departed.iter()?.sound() {
            let (account, row) = entry?;
            rows.push((Departed::decode(row.value())?.until, account.value().to_owned()));
        }
        rows.sort_unstable();
        let mut forgotten = 0;
        for (_, account) in rows {
            if forgotten < TRIM_ROWS && !self.has_dependents(&account)? {
                self.departed.remove(account.as_str())?;
                forgotten += 1;
            }
        }
        self.wrote();
        Ok(())
    }

    /// The body of the person who had the account last, from the trash; nothing but their identity if it is not there
    /// any more.
    pub fn departed_body(&self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        let (code, id) = row_key(key);
        let identity = self.departed(&key.id)?;
        // Others may have had the account before.
        let is_theirs = |body: &Document| identity.as_ref().is_none_or(|last| same_identity(last, body));
        for entry in self.trash.range((code, id, 0)..=(code, id, u64::MAX))?.sound().rev() {
            let (at, row) = entry?;
            let row = super::TrashRow::decode(key.clone(), at.value().2, row.value())?;
            if is_theirs(&row.document) {
                return Ok(Some(row.document));
            }
        }
        Ok(identity.map(|mut identity| {
            identity.insert("_id", id);
            identity
        }))
    }
}
