//! Floor 1. Making a record again that is gone: of a body from the trash, or of one that a conflict keeps.

use bson::Document;

use super::deleted_bodies::{TrashRow, TrashState};
use crate::domain::access::{Actor, Grant};
use crate::domain::active::{ACTIVE, is_active};
use crate::domain::audit::What;
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::store::accounts::Granted;
use crate::store::engine::{Store, Tx};
use crate::store::error::StoreError;
use crate::store::holders::{OwnerNow, Whose};
use crate::store::rows::Base;

/// Why a record was not put back.
#[derive(Debug, thiserror::Error)]
pub enum UndeleteError {
    /// The trash has no such row, or no longer.
    #[error("there is no such record in the trash")]
    Unknown,
    #[error("{0} exists")]
    Exists(RecordKey),
    /// The person whose book it belongs to has no record here.
    #[error("the person {0} does not exist here")]
    OwnerAbsent(String),
    /// The account is another human being's by now.
    #[error("the account {0} is another person's now")]
    OwnerChanged(String),
    /// A record of somebody else was deleted under this id, which the centre does not know yet.
    #[error("the delete of another person's {0} has not reached the centre")]
    Unsent(RecordKey),
    /// It has to be decided first whether two people are one: the conflict that waits for that.
    #[error("a decision about this person is pending")]
    Held { conflict: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes a record of the body in this row of the trash, as an edit that travels like any other. A delete that has
    /// not reached the centre is undone: the record keeps its base, and the row becomes void. Roles that were granted
    /// to a person on this node do not come back.
    pub async fn undelete(&self, grant: Grant, sequence: u64) -> Result<RecordKey, UndeleteError> {
        let row = self.read()?.trashed(sequence)?.filter(|(about, _)| about.key.kind == grant.kind());
        let (about, document) = row.ok_or(UndeleteError::Unknown)?;
        let bytes = document.to_vec().map_err(|error| StoreError::Unstorable(error.to_string()))?.len();
        // Read again by the writer: not while this waits.
        drop(document);
        let _turn = self.turn(about.key.kind, &about.key.id).await;
        // The record and its base.
        let _claim = self.claim(2 * bytes as u64)?;
        self.transact(move |tx| {
            let row = tx.trashed(sequence)?.filter(|row| row.key.kind == grant.kind());
            tx.undelete(row.ok_or(UndeleteError::Unknown)?, grant.actor())
        })
        .await
    }
}

/// What a record is made again of.
pub(crate) struct Return<'a> {
    pub(crate) body: &'a Document,
    /// Whose the body was; `None` if that is not known.
    pub(crate) whose: Option<Whose>,
    /// It takes the place of the record that is here still, and that the centre has deleted.
    pub(crate) is_over_vanished: bool,
    /// The body is the one whose delete has not reached the centre.
    pub(crate) is_undoing: bool,
    /// Somebody has written into the body whether the account is open.
    pub(crate) is_account_named: bool,
}

impl TrashRow {
    /// The record made again with this body by the rules of the trash.
    pub(in crate::store) fn again_as<'a>(&self, body: &'a Document) -> Return<'a> {
        Return {
            body,
            whose: Some(self.whose.clone()),
            is_over_vanished: false,
            is_undoing: self.state == TrashState::Pending,
            is_account_named: false,
        }
    }
}

impl Tx<'_> {
    fn undelete(&mut self, row: TrashRow, actor: &Actor) -> Result<RecordKey, UndeleteError> {
        self.make_again(&row.key, row.again_as(&row.document), actor)?;
        let TrashRow { key, sequence, document, .. } = row;
        let schema = key.kind.schema();
        let owner = schema.owner_of(&document);
        self.audit_asked(What::RestoreDeleted, |event| {
            event.about(schema.collection, &key.id, owner.as_deref()).saying(&format!("trash {sequence}"))
        })?;
        Ok(key)
    }

    /// A person or a record comes back, out of the trash or by a decision about a conflict, as an edit that travels like
    /// any other. Roles that were granted to a person on this node do not come back.
    pub(crate) fn make_again(
        &mut self,
        key: &RecordKey,
        again: Return<'_>,
        actor: &Actor,
    ) -> Result<(), UndeleteError> {
        self.check_again(key, &again)?;
        let closed = self.closed_again(key, &again)?;
        let body = closed.as_ref().unwrap_or(again.body);
        let is_gone = self.document(key)?.is_none();
        // What the centre has deleted is not what was agreed on any more.
        if self.clear_vanished(key)? {
            self.put(key, Some(body), &Base::Absent, actor)?;
        } else {
            self.edit(key, Some(body), actor)?;
        }
        if key.kind == Kind::Person && is_gone {
            self.replace_grants(&key.id, &Granted::default(), actor)?;
        }
        Ok(self.note_if_back_alone(key, body)?)
    }

    /// The body of a person with the account closed, if somebody has closed it here and the body, which may be older, says nothing of
    /// it: who wants the person back has not said that the account is to be open.
    fn closed_again(&self, key: &RecordKey, again: &Return<'_>) -> Result<Option<Document>, StoreError> {
        let is_opening = key.kind == Kind::Person && is_active(again.body) && !again.is_account_named;
        if !is_opening || !self.is_closed_here(&key.id)? {
            return Ok(None);
        }
        let mut body = again.body.clone();
        body.insert(ACTIVE, false);
        Ok(Some(body))
    }

    /// A record that comes back while nobody has its account, and that the centre does not have, is older than the next
    /// holder of the account. If its delete is on the way, that is noted when the delete has landed
    /// ([`Tx::put_base`]).
    fn note_if_back_alone(&mut self, key: &RecordKey, body: &Document) -> Result<(), StoreError> {
        match (key.kind.schema().owner, key.kind.schema().owner_of(body)) {
            (Owner::Field(_), Some(account)) if !self.base(key)?.is_under(key, &account) => {
                self.note_left_alone(&account, key)
            }
            _ => Ok(()),
        }
    }

    /// Why a record cannot come back, if it cannot.
    pub(in crate::store) fn check_again(
        &self,
        key: &RecordKey,
        again: &Return<'_>,
    ) -> Result<(), UndeleteError> {
        let is_gone = self.document(key)?.is_none();
        self.check_not_held(key, again.body)?;
        let is_taken = match key.kind {
            Kind::Person => self.spellings(&key.id)?.iter().any(|id| is_gone || *id != key.id),
            _ => false,
        };
        if is_taken || !(is_gone || again.is_over_vanished) {
            return Err(UndeleteError::Exists(key.clone()));
        }
        match key.kind.schema().owner {
            Owner::Nobody => Ok(()),
            Owner::Itself => self.check_person_again(key, again),
            Owner::Field(_) => self.check_owner_again(key, again),
        }
    }

    /// Of a person, and of a document of the centre that waits under the id, it has to be decided first who that is.
    fn check_not_held(&self, key: &RecordKey, body: &Document) -> Result<(), UndeleteError> {
        let waiting = self.held(key)?.map(|held| held.account);
        for account in waiting.into_iter().chain(key.kind.schema().owner_of(body)) {
            if let Some(hold) = self.hold(&account)? {
                return Err(UndeleteError::Held { conflict: hold.conflict });
            }
        }
        Ok(())
    }

    fn check_person_again(&self, key: &RecordKey, again: &Return<'_>) -> Result<(), UndeleteError> {
        let is_another = match self.document(key)? {
            Some(person) => is_other_person(Some(&person), &person, again.body),
            None if again.is_undoing => self.is_of_departed(&key.id, again.body)?,
            None => self.is_another_ones(key, again.body)?,
        };
        if is_another { Err(UndeleteError::OwnerChanged(key.id.clone())) } else { Ok(()) }
    }

    fn check_owner_again(&self, key: &RecordKey, again: &Return<'_>) -> Result<(), UndeleteError> {
        let account = key.kind.schema().owner_of(again.body).unwrap_or_default();
        let owner_now = match &again.whose {
            Some(whose) => self.owner_now(whose)?,
            None => OwnerNow::Another,
        };
        match owner_now {
            OwnerNow::Another => return Err(UndeleteError::OwnerChanged(account)),
            OwnerNow::Nobody => return Err(UndeleteError::OwnerAbsent(account)),
            OwnerNow::Same => {}
        }
        // As for a page that a client creates.
        if key.kind == Kind::Page && self.resolve_person(&account)?.is_none() {
            return Err(UndeleteError::OwnerAbsent(account));
        }
        if !again.is_undoing && self.is_over_another(key, again.body)? {
            return Err(UndeleteError::Unsent(key.clone()));
        }
        Ok(())
    }
}
