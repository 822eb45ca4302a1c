//! Floor 1. Accounts that two human beings have, each in a spelling of its own (`ESGNU777ORG` and `esgnu777org`).
//!
//! Records name their person in either spelling and in others, so nothing tells whose they are.

use bson::Document;

use redb::ReadableTable as _;

use super::StoreError;
use super::records::Tx;
use super::snapshot::Snapshot;
use super::tables::DUPLICATE;
use crate::domain::merge::same_identity;
use crate::domain::record::{Kind, RecordKey, fold_account};

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
}

impl Snapshot {
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
