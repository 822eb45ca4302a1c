//! Floor 1. Whether a record that is brought again may be of another human being than who has its account here.
//!
//! A record names its person by account alone, and files are older than the store: the account may have gone to somebody else
//! since, or two people may have it. Only a file that brings the person as well says whose its records are. What the store has
//! forgotten, such as a person who came under the account and went before any trace was kept, is not known here either.

use std::collections::{BTreeSet, HashMap};

use bson::Document;
use redb::ReadableTable as _;

use super::deletion::{Deletion, TrashedSpellings};
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::schema::FORMER_TRAIL;

/// Why a record that names an account may not be of the person who has it here.
#[derive(Debug, Clone)]
pub enum OwnerDoubt {
    /// Two people have the account, and it is not decided which of them is who.
    Held,
    /// Two records of people have the account, in two spellings.
    Shared,
    /// Its person was deleted, and nobody has the account now.
    Deleted(Box<Deletion>),
    /// Its person was deleted, and another one has the account now.
    Succeeded(Box<Deletion>),
    /// Its person has another account now, this one.
    Moved(String),
    /// Somebody had the account before, of whom no body is in the trash. `true`: another one has it now.
    Gone(bool),
    /// Somebody has the account, and it is not known whose the records of it were that were here before.
    Unknown,
}

/// Who had accounts before, as the store knows it.
#[derive(Debug, Clone, Default)]
pub struct FormerHolders {
    trashed: TrashedSpellings,
    /// Account -> the accounts that who had it has now.
    moved: HashMap<String, BTreeSet<String>>,
}

impl FormerHolders {
    /// How else people in the trash are spelled.
    pub(in crate::store) fn trashed(&self) -> &TrashedSpellings {
        &self.trashed
    }

    /// The accounts that those have now who had this one, folded.
    pub fn moved_from(&self, account: &str) -> impl Iterator<Item = &str> {
        self.moved.get(account).into_iter().flatten().map(String::as_str)
    }
}

impl Snapshot {
    /// Reads [`FormerHolders`].
    pub fn former_holders(&self) -> Result<FormerHolders, StoreError> {
        let mut moved: HashMap<String, BTreeSet<String>> = HashMap::new();
        for entry in self.transaction.open_table(FORMER_TRAIL)?.iter()? {
            let (at, _) = entry?;
            let (now, before, _) = at.value();
            // Who has come back to an account has it.
            if now != before {
                moved.entry(before.to_owned()).or_default().insert(now.to_owned());
            }
        }
        Ok(FormerHolders { trashed: self.trashed_spellings()?, moved })
    }
}

impl Tx<'_> {
    /// Why a record of this account may not be of the person who has it here, if that is in doubt. `is_brought` says of a person
    /// here that the same human being is brought together with the record.
    pub fn owner_doubt(
        &self,
        account: &str,
        former: &FormerHolders,
        is_brought: impl Fn(&RecordKey) -> bool,
    ) -> Result<Option<OwnerDoubt>, StoreError> {
        let account = fold_account(account);
        let people: Vec<_> =
            self.spellings(&account)?.into_iter().map(|id| RecordKey::new(Kind::Person, id)).collect();
        if people.iter().any(is_brought) {
            return Ok(None);
        }
        if self.hold(&account)?.is_some() {
            return Ok(Some(OwnerDoubt::Held));
        }
        let now = match &people[..] {
            [] => None,
            [person] => unless_damaged(self.document(person))?.flatten(),
            _ => return Ok(Some(OwnerDoubt::Shared)),
        };
        if people.is_empty() {
            if let Some(deletion) = self.deletion_of_person(&account, former.trashed())? {
                return Ok(Some(OwnerDoubt::Deleted(Box::new(deletion))));
            }
        } else if let Some(deletion) = self.deletion_of_another(&account, former.trashed(), now.as_ref())? {
            return Ok(Some(OwnerDoubt::Succeeded(Box::new(deletion))));
        }
        if let Some(to) = former.moved_from(&account).next() {
            return Ok(Some(OwnerDoubt::Moved(to.to_owned())));
        }
        let is_of_last = match unless_damaged(self.departed_row(&account))? {
            // Of a stand-in nothing is known either.
            Some(Some(last)) if now.as_ref().is_some_and(|now| last.is_of(now)) => true,
            // Nobody is known whose it could be but the next one, who is asked about.
            Some(Some(last)) if last.is_unknown() => {
                return Ok((!people.is_empty()).then_some(OwnerDoubt::Unknown));
            }
            Some(Some(_)) => false,
            Some(None) => !self.is_departed_lost(&account)?,
            None => false,
        };
        Ok((!is_of_last).then_some(OwnerDoubt::Gone(!people.is_empty())))
    }

    /// The account that a person has here who had this one before, if they are the one who is brought under it.
    pub fn moved_to(
        &self,
        account: &str,
        person: &Document,
        former: &FormerHolders,
    ) -> Result<Option<String>, StoreError> {
        for to in former.moved_from(&fold_account(account)) {
            for id in self.spellings(to)? {
                let there = unless_damaged(self.document(&RecordKey::new(Kind::Person, id)))?.flatten();
                if there.is_some_and(|there| !is_other_person(Some(&there), &there, person)) {
                    return Ok(Some(to.to_owned()));
                }
            }
        }
        Ok(None)
    }
}
