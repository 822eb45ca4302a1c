//! Floor 1. How often the rights of an account have changed.
//!
//! What somebody was let in by (a session, a request that is under way, a one-time link, the token of a form) was made
//! from an account as it was then. To compare the account with what it is now is not enough: it may have been closed and
//! opened again meanwhile. So each account has a count that only rises, in the transaction that changes its password, its
//! roles or `active`, or makes or removes it, from whatever side that comes. Who was let in carries the count of that
//! moment, and is out as soon as it is another one.

use redb::ReadableTable as _;

use crate::domain::access::Actor;
use crate::domain::merge::IDENTITY_FIELDS;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::schema::RIGHTS;

/// Fields of a person of which their rights are made; an empty path is the whole record.
const RIGHTS_FIELDS: [&str; 4] = ["", "password", "roles", "active"];

/// The rows for all people together, and for all technicians.
const PEOPLE: &str = "person:";
const TECHNICIANS: &str = "local:";
/// More than any account's rights ever change.
const AFTER_LOSS: u64 = 1 << 48;

/// The row of an account, the same in all its spellings; `None` for actors without one.
fn row_of(who: &Actor) -> Option<String> {
    match who {
        Actor::Person(id) => Some(format!("{PEOPLE}{}", fold_account(id))),
        Actor::Local(name) => Some(format!("{TECHNICIANS}{}", name.to_ascii_lowercase())),
        _ => None,
    }
}

/// The count of an account, of the counts in the rows.
fn count_of(who: &Actor, count: impl Fn(&str) -> Result<Option<u64>, StoreError>) -> Result<u64, StoreError> {
    let Some(row) = row_of(who) else {
        return Ok(0);
    };
    let own = count(&row)?.unwrap_or(0);
    let of_all = count(if matches!(who, Actor::Person(_)) { PEOPLE } else { TECHNICIANS })?.unwrap_or(0);
    // Both only rise, so their sum is another one after each change.
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
        self.end_emergencies(|open| matches!(open.by, Some(Actor::Person(_))))
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

    /// The counts are lost with damaged pages: all begin anew where none has ever been.
    pub(in crate::store) fn rights_are_lost(&mut self) -> Result<(), StoreError> {
        let count = AFTER_LOSS + u64::try_from(self.now_ms()).unwrap_or(0);
        for all in [PEOPLE, TECHNICIANS] {
            self.rights.insert(all, count)?;
            self.wrote();
        }
        self.end_all_emergencies()
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

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;
    use crate::store::{Base, Store, StoreOptions};

    fn store() -> Store {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        Store::in_memory(options).unwrap()
    }

    fn ana() -> Actor {
        Actor::Person("ANA001".to_owned())
    }

    fn tech() -> Actor {
        Actor::Local("tech".to_owned())
    }

    fn person() -> Document {
        doc! {"_id": "ANA001", "name": "Ana", "roles": ["end_user"], "password": "a", "phone": "1"}
    }

    /// By how much both counts rise with this.
    async fn rises(
        store: &Store,
        job: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> (u64, u64) {
        let counts = || {
            let view = store.read().unwrap();
            (view.rights_count(&ana()).unwrap(), view.rights_count(&tech()).unwrap())
        };
        let before = counts();
        let seen = store.transact(move |tx| -> Result<(u64, u64), StoreError> {
            job(tx)?;
            Ok((tx.rights_count(&ana())?, tx.rights_count(&tech())?))
        });
        let (seen, after) = (seen.await.unwrap(), counts());
        assert_eq!(seen, after, "it is a part of the transaction");
        (after.0 - before.0, after.1 - before.1)
    }

    fn key(id: &str) -> RecordKey {
        RecordKey::new(Kind::Person, id)
    }

    async fn edit(store: &Store, change: Document) -> (u64, u64) {
        let edit = move |tx: &mut Tx<'_>| {
            let mut person = tx.document(&key("ANA001"))?.unwrap();
            person.extend(change.clone());
            tx.edit(&key("ANA001"), Some(&person), &Actor::Operator(0)).map(drop)
        };
        rises(store, edit).await
    }

    #[tokio::test]
    async fn every_change_of_rights_counts_and_no_other() {
        let store = store();
        let made = rises(&store, |tx| tx.edit(&key("ANA001"), Some(&person()), &tech()).map(drop)).await;
        assert_eq!(made, (1, 0));
        assert_eq!(edit(&store, doc! {"phone": "2", "name": "Anna"}).await, (0, 0));
        assert_eq!(edit(&store, doc! {"password": "b"}).await, (1, 0));
        assert_eq!(edit(&store, doc! {"active": false}).await, (1, 0));
        assert_eq!(edit(&store, doc! {"active": true}).await, (1, 0));
        assert_eq!(edit(&store, doc! {"roles": []}).await, (1, 0));
        // Back and forth in one transaction too.
        let both = rises(&store, |tx| {
            let person = tx.document(&key("ANA001"))?.unwrap();
            let mut closed = person.clone();
            closed.insert("active", false);
            tx.edit(&key("ANA001"), Some(&closed), &tech())?;
            tx.edit(&key("ANA001"), Some(&person), &tech()).map(drop)
        });
        assert_eq!(both.await, (2, 0));
        // From the centre.
        let taken = rises(&store, |tx| {
            let mut theirs = tx.document(&key("ANA001"))?.unwrap();
            theirs.insert("password", "c");
            tx.put(&key("ANA001"), Some(&theirs), &Base::Document(theirs.clone()), &Actor::Centre)
        });
        assert_eq!(taken.await, (1, 0));
        assert_eq!(rises(&store, |tx| tx.set_grants("ana001", &[], &tech())).await, (0, 0));
        let roles = || ["nurse".to_owned()];
        assert_eq!(rises(&store, move |tx| tx.set_grants("ana001", &roles(), &tech())).await, (1, 0));
        assert_eq!(rises(&store, |tx| tx.set_grants("ana001", &[], &tech())).await, (1, 0));
        let gone = rises(&store, |tx| tx.edit(&key("ANA001"), None, &tech()).map(drop)).await;
        assert_eq!(gone, (1, 0));
        let technician = doc! {"password": "x", "roles": ["root"]};
        for account in [Some(technician.clone()), Some(technician), None] {
            let set = rises(&store, move |tx| tx.set_local_account("tech", account.as_ref(), &tech())).await;
            assert_eq!(set, (0, 1));
        }
        assert_eq!(rises(&store, |tx| tx.rights_of_people_changed()).await, (1, 0));
        let lost = rises(&store, |tx| tx.rights_are_lost()).await;
        assert!(lost.0 > 1 << 40 && lost.1 > 1 << 40);
    }

    /// Whether the others of an account are the same human being decides what they may.
    #[tokio::test]
    async fn another_spelling_counts_for_both() {
        let store = store();
        rises(&store, |tx| tx.edit(&key("ANA001"), Some(&person()), &tech()).map(drop)).await;
        let other = |name: &'static str| {
            move |tx: &mut Tx<'_>| {
                let other = doc! {"_id": "Ana001", "name": name, "dob": "1990-01-01"};
                tx.put(&key("Ana001"), Some(&other), &Base::Document(other.clone()), &Actor::Centre)
            }
        };
        assert_eq!(rises(&store, other("Ana")).await, (1, 0));
        assert_eq!(rises(&store, other("Eva")).await, (1, 0));
        assert_eq!(rises(&store, other("Ana")).await, (1, 0));
    }

    /// A transaction that is not committed changes no rights.
    #[tokio::test]
    async fn what_is_not_committed_does_not_count() {
        let store = store();
        let failed = store.transact(|tx| -> Result<(), StoreError> {
            tx.set_local_account("tech", Some(&doc! {"roles": ["root"]}), &tech())?;
            Err(StoreError::Failed("no".into()))
        });
        failed.await.unwrap_err();
        assert_eq!(store.read().unwrap().rights_count(&tech()).unwrap(), 0);
    }
}
