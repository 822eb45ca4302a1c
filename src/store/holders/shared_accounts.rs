//! Floor 1. Accounts that two human beings have, each in a spelling of its own (`ESGNU777ORG` and `esgnu777org`).
//!
//! Records name their person in either spelling and in others, so nothing tells whose they are. A book is read in one
//! spelling only: it never has records of both.

use bson::{Document, doc};
use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::spellings::spellings;
use crate::domain::merge::same_identity;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Fields, encode};
use crate::store::schema::DUPLICATE;

/// A round that is later than all others.
pub(in crate::store) const ALWAYS: i64 = i64::MAX / 2;

impl Tx<'_> {
    /// Whether people who cannot be one have this account, in different spellings.
    pub fn is_shared(&self, account: &str) -> Result<bool, StoreError> {
        if self.duplicate.get(fold_account(account).as_str())?.is_none() {
            return Ok(false);
        }
        let mut people = Vec::new();
        for id in self.spellings(account)? {
            people.extend(self.document(&RecordKey::new(Kind::Person, id))?);
        }
        Ok(differ(&people))
    }

    /// The ids of the people stored under an account, in whatever spelling.
    pub fn spellings(&self, account: &str) -> Result<Vec<String>, StoreError> {
        spellings(&self.docs, &self.by_spelling, account)
    }

    /// [`Tx::own_dependents`] of one person. Where somebody else has the account in another spelling, only those that name it
    /// exactly as this person does: of the others nobody knows that they are theirs.
    pub fn own_dependents_of(&self, person: &RecordKey) -> Result<Vec<RecordKey>, StoreError> {
        let mut own = self.own_dependents(&person.id)?;
        if self.spellings(&person.id)?.iter().all(|id| *id == person.id) {
            return Ok(own);
        }
        let mut named = Vec::new();
        for key in own.drain(..) {
            let document = self.document(&key)?;
            let Owner::Field(field) = key.kind.schema().owner else {
                continue;
            };
            let is_theirs = document
                .is_some_and(|document| document.get_str(field).is_ok_and(|owner| owner == person.id));
            named.extend(is_theirs.then_some(key));
        }
        Ok(named)
    }

    /// A person comes to have an account beside somebody else, in this round.
    pub fn note_newcomer(&mut self, person: &RecordKey, round: i64) -> Result<(), StoreError> {
        let row = encode(&doc! {"id": &person.id, "round": round})?;
        self.newcomer.insert(fold_account(&person.id).as_str(), row.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// The round in which this person came to have the account beside somebody else, if they were the last who did.
    pub fn newcomer_since(&self, person: &RecordKey) -> Result<Option<i64>, StoreError> {
        let row = match self.newcomer.get(fold_account(&person.id).as_str()) {
            Ok(Some(row)) => row,
            // Nobody knows who came later, so either may have.
            Err(StoreError::DamagedRow(_)) => return Ok(Some(ALWAYS)),
            Ok(None) => return Ok(self.is_newcomer_lost(&person.id)?.then_some(ALWAYS)),
            Err(error) => return Err(error),
        };
        let fields = Fields::of(row.value(), "a newcomer")?;
        // An empty one stands for either of the two: which of them it was is lost.
        let is_meant = [&person.id, ""].contains(&fields.text("id")?);
        Ok(if is_meant { Some(fields.int64("round")?) } else { None })
    }
}

impl Snapshot {
    /// Under how many accounts more than one person is stored, each in a spelling of its own.
    pub fn duplicates_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(DUPLICATE)?.len()?)
    }

    /// How a record has to spell its owner to be in the book of `account`: exactly so while people who cannot be one have the
    /// account in two spellings, also if one of the two is damaged; `None` if every spelling is theirs.
    pub fn book_spelling<'a>(&self, account: &'a str) -> Result<Option<&'a str>, StoreError> {
        let is_shared = unless_damaged(self.is_shared(account))?.unwrap_or(true);
        Ok(is_shared.then_some(account))
    }

    /// [`Tx::is_shared`].
    pub fn is_shared(&self, account: &str) -> Result<bool, StoreError> {
        let duplicate = self.transaction.open_table(DUPLICATE)?;
        if duplicate.get(fold_account(account).as_str())?.is_none() {
            return Ok(false);
        }
        let mut people = Vec::new();
        for id in self.spellings(account)? {
            let person = self
                .visit_record(&RecordKey::new(Kind::Person, id), |record| record.map(Document::try_from))?;
            people.extend(person.transpose().map_err(|e| StoreError::Damaged(e.to_string()))?);
        }
        Ok(differ(&people))
    }
}

fn differ(people: &[Document]) -> bool {
    people
        .iter()
        .enumerate()
        .any(|(n, one)| people.iter().skip(n + 1).any(|other| !same_identity(one, other)))
}
