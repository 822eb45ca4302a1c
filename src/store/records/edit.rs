//! Floor 1. The write that handlers use: one record, conditions, effects, all in one transaction.

use std::borrow::Cow;

use bson::Document;
use bytes::Bytes;

use crate::domain::access::Grant;
use crate::domain::merge::{is_other_person, same_identity};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::flaw::step;
use crate::store::accounts::{Granted, Stays};
use crate::store::engine::{Store, Tx};
use crate::store::error::StoreError;
use crate::store::holders::OwnerNow;
use crate::store::rows::{Base, Version};

/// A change of one record, as authorized against the version in `expected`.
#[derive(Debug, Clone)]
pub struct Edit {
    pub grant: Grant,
    pub id: String,
    /// The stored bytes that the caller read and was authorized for; `None` if there was no record.
    pub expected: Option<Vec<u8>>,
    /// The record from now on; `None` deletes it.
    pub document: Option<Document>,
    pub requires: Vec<Requirement>,
    /// Roles of this person's record that count from now on because they are given on this node.
    pub grants: Option<Vec<String>>,
    /// Uploaded bytes to keep under their SHA-256.
    pub content: Option<(String, Bytes)>,
    /// Whether this person's account is said to be closed on this node, or opened, even if the record has said so before.
    pub closes: Option<bool>,
}

/// What must hold in the moment of the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// This person has a record.
    PersonExists(String),
    /// No person has this account in any spelling.
    AccountFree(String),
}

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The record is no longer what the caller saw: read again and decide again.
    #[error("the record has changed meanwhile")]
    Moved,
    #[error("a condition does not hold")]
    Unmet(Requirement),
    /// The person may not be deleted.
    #[error("the person may not be deleted")]
    Stays(Stays),
    /// The account was another person's, whose records are still here, or whom the centre still has.
    #[error("the account was another person's")]
    Departed,
    /// Under the id a record of another person was deleted here, which the centre still has.
    #[error("the delete of another person's record has not reached the centre")]
    Unsent,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes an edit and answers when it is durable. [`StoreError::Short`] if the disk is nearly full.
    pub async fn edit(&self, edit: Edit) -> Result<(), EditError> {
        self.edit_all(vec![edit]).await
    }

    /// Makes all of these edits, one after the other, or none; otherwise as [`Store::edit`].
    pub async fn edit_all(&self, edits: Vec<Edit>) -> Result<(), EditError> {
        // Here, because the writer has to do everything else for everybody.
        let edits = edits.into_iter().map(Prepared::new).collect::<Result<Vec<_>, _>>()?;
        // The record and its base; bytes beside it are known before they come, and claimed by who takes them.
        let bytes = |edit: &Prepared| edit.new.as_ref().map_or(0, |new| new.bytes().len() as u64);
        let _claim = self.claim(2 * edits.iter().map(bytes).sum::<u64>())?;
        self.transact(move |tx| {
            for edit in &edits {
                edit.make(tx)?;
                step("edit.made");
            }
            Ok(())
        })
        .await
    }
}

/// An [`Edit`] with both versions read.
struct Prepared {
    grant: Grant,
    id: String,
    old: Option<Version<'static>>,
    new: Option<Version<'static>>,
    requires: Vec<Requirement>,
    grants: Option<Vec<String>>,
    content: Option<(String, Bytes)>,
    closes: Option<bool>,
}

impl Prepared {
    fn new(edit: Edit) -> Result<Prepared, StoreError> {
        let Edit { grant, id, expected, document, requires, grants, content, closes } = edit;
        let old = expected.map(Version::stored).transpose()?;
        let new = document.map(Cow::Owned).map(Version::of).transpose()?;
        Ok(Prepared { grant, id, old, new, requires, grants, content, closes })
    }

    fn make(&self, tx: &mut Tx<'_>) -> Result<(), EditError> {
        let Prepared { grant, id, old, new, requires, grants, content, closes } = self;
        let key = RecordKey::new(grant.kind(), id.as_str());
        if !tx.is_stored(&key, old.as_ref().map(Version::bytes))? {
            return Err(EditError::Moved);
        }
        if let (Kind::Person, Some(person), None) = (key.kind, old, new)
            && let Some(stays) = tx.why_stays(&key.id, person.document())?
        {
            return Err(EditError::Stays(stays));
        }
        if let (None, Some(new)) = (old, new) {
            let is_person = key.kind == Kind::Person;
            if is_person && tx.is_another_ones(&key, new.document())? {
                return Err(EditError::Departed);
            }
            if !is_person && tx.is_over_another(&key, new.document())? {
                return Err(EditError::Unsent);
            }
        }
        for requirement in requires {
            let holds = match requirement {
                Requirement::PersonExists(id) => tx.resolve_person(id)?.is_some(),
                Requirement::AccountFree(id) => tx.resolve_person(id)?.is_none(),
            };
            if !holds {
                return Err(EditError::Unmet(requirement.clone()));
            }
        }
        if let Some((sha256, bytes)) = content {
            tx.put_content(sha256, bytes)?;
        }
        tx.edit_over(old.as_ref(), &key, new.as_ref(), grant.actor())?;
        if let (Kind::Person, Some(roles)) = (key.kind, grants) {
            match new {
                Some(_) => tx.set_grants(&key.id, roles, grant.actor())?,
                None => tx.replace_grants(&key.id, &Granted::default(), grant.actor())?,
            }
        }
        if let (Kind::Person, Some(_), Some(is_closed)) = (key.kind, new, *closes) {
            match old {
                Some(_) => tx.set_closed_here(&key.id, is_closed, grant.actor())?,
                // Who is made so is in the audit trail, and the closing travels with the record.
                None => drop(tx.note_closed_here(&key.id, is_closed)?),
            }
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Whether a person who is about to be made would get the account of another one, whose records are here, also if
    /// nobody knows who that is, or whom, or whose records, the centre still has.
    pub fn is_another_ones(&self, key: &RecordKey, person: &Document) -> Result<bool, StoreError> {
        Ok(self.is_of_departed(&key.id, person)?
            || self.is_over_another(key, person)?
            || (self.spellings(&key.id)?.is_empty()
                && (self.has_edited_records_of_nobody(&key.id)?
                    || self.has_deletes_of_another(key, person)?)))
    }

    /// Whether the centre has records under the account whose deletes have not been sent, and which were not this person's.
    fn has_deletes_of_another(&self, key: &RecordKey, person: &Document) -> Result<bool, StoreError> {
        let is_theirs = self.base(key)?.is_at_centre()
            || self.departed(&key.id)?.is_some_and(|last| same_identity(&last, person));
        Ok(!is_theirs && self.has_pending_deletes_of(&key.id)?)
    }

    /// Whether the centre has somebody else under the account, or somebody else's record under the id, whose delete here
    /// has not been sent: the two would become one change, and nobody would be asked.
    pub(crate) fn is_over_another(&self, key: &RecordKey, new: &Document) -> Result<bool, StoreError> {
        let before = self.base_if_dirty(key)?;
        let Some(before) = before.as_ref().and_then(Base::document).filter(|before| !before.is_empty())
        else {
            return Ok(false);
        };
        let schema = key.kind.schema();
        match schema.owner {
            Owner::Nobody => Ok(false),
            Owner::Itself => Ok(is_other_person(Some(before), before, new)),
            Owner::Field(_) if schema.owner_of(before) != schema.owner_of(new) => Ok(true),
            Owner::Field(_) => match self.pending_trash(key)? {
                Some(deleted) => Ok(self.owner_now(&deleted.whose)? == OwnerNow::Another),
                None => Ok(false),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::domain::access::{Actor, Verb};
    use crate::store::{Asker, Charge, Right, StoreOptions, asked_by};

    fn asker(last: u8) -> Asker {
        let from = Some(IpAddr::from([192, 0, 2, last]));
        Asker {
            who: Actor::Person("ANA001".to_owned()),
            from,
            right: Right::Machine,
            charge: Charge::default(),
        }
    }

    #[tokio::test]
    async fn edits_that_belong_together_are_made_as_one() {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        let store = Store::in_memory(options).unwrap();
        let edit = |id: &str, requires: Vec<Requirement>| Edit {
            grant: Grant::operator(0, Verb::Post, Kind::Event),
            id: id.to_owned(),
            expected: None,
            document: Some(bson::doc! {"_id": id}),
            requires,
            grants: None,
            content: None,
            closes: None,
        };
        let unmet = vec![Requirement::PersonExists("ANA".to_owned())];
        let error = store.edit_all(vec![edit("a", Vec::new()), edit("b", unmet)]).await.unwrap_err();
        assert!(matches!(error, EditError::Unmet(_)), "{error:?}");
        assert!(store.read().unwrap().is_empty().unwrap());
        store.edit_all(vec![edit("a", Vec::new()), edit("b", Vec::new())]).await.unwrap();
        assert_eq!(store.read().unwrap().count(Kind::Event).unwrap(), 2);
    }

    #[tokio::test]
    async fn many_edits_of_one_client_keep_no_other_from_the_record() {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        let store = Store::in_memory(options).unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let held = store.turn(Kind::Event, "e1").await;
        let edit = |last: u8| {
            let (store, order) = (store.clone(), Arc::clone(&order));
            tokio::spawn(asked_by(asker(last), async move {
                let _turn = store.turn(Kind::Event, "e1").await.expect("a turn");
                order.lock().unwrap().push(last);
                tokio::task::yield_now().await;
            }))
        };
        let all_wait = async || {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        };
        let mut edits: Vec<_> = (0..200).map(|_| edit(1)).collect();
        all_wait().await;
        edits.push(edit(2));
        all_wait().await;
        drop(held);
        for edit in edits {
            edit.await.unwrap();
        }
        let order = order.lock().unwrap();
        assert_eq!((order.len(), order.iter().position(|last| *last == 2)), (201, Some(1)));
    }
}
