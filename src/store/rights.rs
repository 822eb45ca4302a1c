//! Floor 1. How often the rights of an account have changed.
//!
//! What somebody was let in by (a session, a request that is under way, a one-time link, the token of a form) was made
//! from an account as it was then. To compare the account with what it is now is not enough: it may have been closed and
//! opened again meanwhile. So each account has a count that only rises, in the transaction that changes its password, its
//! roles or `active`, or makes or removes it, from whatever side that comes. Who was let in carries the count of that
//! moment, and is out as soon as it is another one.

use redb::ReadableTable as _;

use super::tables::RIGHTS;
use super::{Snapshot, StoreError, Tx};
use crate::domain::access::Actor;
use crate::domain::merge::IDENTITY_FIELDS;
use crate::domain::record::{Kind, RecordKey, fold_account};

/// Fields of a person of which their rights are made; an empty path is the whole record.
const RIGHTS_FIELDS: [&str; 4] = ["", "password", "roles", "active"];

/// The row for all people together.
const PEOPLE: &str = "person:";

/// The row of an account, the same in all its spellings; `None` for actors without one.
fn row_of(who: &Actor) -> Option<String> {
    match who {
        Actor::Person(id) => Some(format!("{PEOPLE}{}", fold_account(id))),
        Actor::Local(name) => Some(format!("local:{}", name.to_ascii_lowercase())),
        _ => None,
    }
}

/// The count of an account, of the counts in the rows.
fn count_of(who: &Actor, count: impl Fn(&str) -> Result<Option<u64>, StoreError>) -> Result<u64, StoreError> {
    let Some(row) = row_of(who) else {
        return Ok(0);
    };
    let own = count(&row)?.unwrap_or(0);
    // Both only rise, so their sum is another one after each change.
    let of_all = if matches!(who, Actor::Person(_)) { count(PEOPLE)?.unwrap_or(0) } else { 0 };
    Ok(own + of_all)
}

impl Tx<'_> {
    /// The rights of this account change in this transaction: what it was let in by is over, and what it has opened in
    /// an emergency.
    pub(crate) fn rights_changed(&mut self, who: &Actor) -> Result<(), StoreError> {
        if let Some(row) = row_of(who) {
            self.raise_rights(&row)?;
        }
        self.end_emergencies_of(who)
    }

    /// [`Tx::rights_changed`] of all people, as when they were refused because the centre had not been heard for too long.
    pub(crate) fn rights_of_people_changed(&mut self) -> Result<(), StoreError> {
        self.raise_rights(PEOPLE)?;
        self.end_emergencies(|open| matches!(Actor::read(&open.who), Some(Actor::Person(_))))
    }

    /// A record was changed: [`Tx::rights_changed`] if it was an account, and one of the fields of which its rights are
    /// made. If a person went away, what others have opened of them ends too: who gets the account next is somebody else.
    pub(crate) fn rights_changed_after(
        &mut self,
        key: &RecordKey,
        op: &str,
        paths: &[String],
    ) -> Result<(), StoreError> {
        if key.kind != Kind::Person {
            return Ok(());
        }
        let is_one_of = |fields: &[&str]| {
            let field = |path: &String| path.split('.').next().map(str::to_owned).unwrap_or_default();
            paths.iter().map(field).any(|field| fields.contains(&field.as_str()))
        };
        // Whether two spellings are one human being is a part of what both may.
        let is_shared =
            is_one_of(&IDENTITY_FIELDS) && self.duplicate.get(fold_account(&key.id).as_str())?.is_some();
        if !is_shared && !is_one_of(&RIGHTS_FIELDS) {
            return Ok(());
        }
        self.rights_changed(&Actor::Person(key.id.clone()))?;
        if op == "delete" { self.end_emergencies_at(&key.id) } else { Ok(()) }
    }

    /// How often the rights of this account have changed, this transaction included.
    pub fn rights_count(&self, who: &Actor) -> Result<u64, StoreError> {
        count_of(who, |row| Ok(self.rights.get(row)?.map(|count| count.value())))
    }

    fn raise_rights(&mut self, row: &str) -> Result<(), StoreError> {
        let count = self.rights.get(row)?.map_or(0, |count| count.value());
        self.rights.insert(row, count + 1)?;
        self.wrote();
        Ok(())
    }
}

impl Snapshot {
    /// How often the rights of this account have changed: not 0 for an account that there is, unless an earlier version
    /// made it.
    pub fn rights_count(&self, who: &Actor) -> Result<u64, StoreError> {
        let rights = self.transaction.open_table(RIGHTS)?;
        count_of(who, |row| Ok(rights.get(row)?.map(|count| count.value())))
    }
}
