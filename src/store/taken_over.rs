//! Floor 1. Conflicts that this store takes over from rows which it published under a former name.
//!
//! An older image of the store knows nothing of a conflict that was found after it was made. The row at the centre does,
//! but for secrets and large values. What a row does not tell is not made up: such a conflict can be looked at and closed,
//! and no value of it is written into a record.

use bson::{Bson, doc};
use redb::ReadableTable as _;

use super::StoreError;
use super::conflicts::{Conflict, ConflictStatus, Subject, digest};
use super::records::Tx;
use super::stand_in::unless_damaged;
use crate::domain::diff::Path;
use crate::domain::merge::{IDENTITY_FIELDS, Side};
use crate::domain::record::{Kind, RecordKey, fold_account};

/// What a row of the centre says of a conflict over a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    pub id: String,
    pub key: RecordKey,
    pub path: Path,
    pub base: Option<Bson>,
    pub local: Option<Bson>,
    pub central: Option<Bson>,
    pub stands: Side,
    pub author: String,
    pub found_at_ms: i64,
    /// Whose the record was, as [`Conflict::owner`] and [`Conflict::person`].
    pub owner: Option<String>,
    pub person: Option<String>,
    pub fingerprint: Option<String>,
    /// The node that published it.
    pub node: String,
    /// One of the two values is not in the row.
    pub is_withheld: bool,
}

impl Tx<'_> {
    /// Makes it a conflict of this node again; returns it as it is here now, unless it is one that waits here anyway, or
    /// was closed here and the centre does not know that yet.
    pub fn take_over(&mut self, row: Published) -> Result<Option<Conflict>, StoreError> {
        let known = self.conflict(&row.id)?;
        if let Some(known) = &known
            && (known.status == ConflictStatus::Open || self.conflict_outbox.get(row.id.as_str())?.is_some())
        {
            return Ok(None);
        }
        let owner = self.owner_in_row(&row)?;
        let mut conflict = Conflict {
            path: row.path,
            base: row.base,
            local: row.local,
            central: row.central,
            stands: row.stands,
            author: row.author,
            found_at_ms: row.found_at_ms,
            owner: Some(owner),
            person: row.person,
            publisher: Some(row.node),
            row_fingerprint: row.fingerprint,
            ..Conflict::new(row.id, row.key, Subject::Value)
        };
        conflict.is_withheld = row.is_withheld || conflict.is_secret();
        conflict.notes = known.map(|known| known.notes).unwrap_or_default();
        self.keep_conflict(&conflict)?;
        Ok(Some(conflict))
    }

    /// Whose the record was, if the account is the same human being's here. Else nobody's: then the value that lost is
    /// written into no record of any person.
    fn owner_in_row(&self, row: &Published) -> Result<String, StoreError> {
        match (&row.owner, &row.person) {
            (Some(owner), Some(person)) if self.human_under(owner)?.as_ref() == Some(person) => {
                Ok(owner.clone())
            }
            _ => Ok(String::new()),
        }
    }

    /// The open conflicts over values that were found in records of this account, in order of their records.
    fn value_conflicts_of(&self, account: &str) -> Result<Vec<Conflict>, StoreError> {
        let account = fold_account(account);
        let mut found = Vec::new();
        for entry in self.conflict_open.iter()? {
            let id = entry?.0.value().2.to_owned();
            // One that is damaged keeps nobody from the others.
            let conflict = unless_damaged(self.conflict(&id))?.flatten();
            found.extend(conflict.filter(|conflict| {
                conflict.subject == Subject::Value
                    && conflict.key.kind != Kind::Person
                    && conflict.owner.as_ref() == Some(&account)
            }));
        }
        Ok(found)
    }

    /// Somebody else has this account from now on: what lost in records of the last one is written into no record there.
    pub(super) fn disown_conflicts(&mut self, account: &str) -> Result<(), StoreError> {
        for conflict in self.value_conflicts_of(account)? {
            self.keep_conflict(&Conflict { owner: Some(String::new()), ..conflict })?;
        }
        Ok(())
    }

    /// The person has left this account for `new`. Conflicts over records that are gone go with them; over those that stay
    /// with the account they are nobody's.
    pub(crate) fn part_conflicts(&mut self, account: &str, new: &str) -> Result<(), StoreError> {
        for conflict in self.value_conflicts_of(account)? {
            if self.document(&conflict.key)?.is_none() {
                let (owner, person) = (Some(fold_account(new)), self.human_under(new)?);
                self.keep_conflict(&Conflict { owner, person, ..conflict })?;
            }
        }
        self.disown_conflicts(account)
    }

    /// The account to which a record belongs, folded and empty for none, and which human being has it.
    pub(super) fn whose(&self, key: &RecordKey) -> Result<(Option<String>, Option<String>), StoreError> {
        let owner = self.owner(key)?.unwrap_or_default();
        let person = self.human_under(&owner)?;
        Ok((Some(owner), person))
    }

    /// Tells who has an account, by what people are told apart by; `None` if nobody has it here, or several have.
    pub(super) fn human_under(&self, account: &str) -> Result<Option<String>, StoreError> {
        if account.is_empty() {
            return Ok(None);
        }
        let [id] = &self.spellings(account)?[..] else {
            return Ok(None);
        };
        let Some(person) = self.document(&RecordKey::new(Kind::Person, id.clone()))? else {
            return Ok(None);
        };
        let mut named = doc! {"account": fold_account(account)};
        for field in IDENTITY_FIELDS {
            named.extend(person.get(field).map(|value| (field.to_owned(), value.clone())));
        }
        Ok(Some(digest(&named)?))
    }
}
