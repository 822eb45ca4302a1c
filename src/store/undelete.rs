//! Floor 1. Putting a body from the trash back as a record.

use super::grants::Granted;
use super::records::Tx;
use super::trash::TrashRow;
use super::{Store, StoreError};
use crate::domain::access::{Actor, Grant};
use crate::domain::audit::What;
use crate::domain::record::{Kind, RecordKey};

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

impl Tx<'_> {
    fn undelete(&mut self, row: TrashRow, actor: &Actor) -> Result<RecordKey, UndeleteError> {
        let TrashRow { key, sequence, document, .. } = row;
        let schema = key.kind.schema();
        let owner = schema.owner_of(&document);
        let holding = match key.kind {
            Kind::Person => self.hold(&key.id)?,
            // A document of the centre with this id waits behind a hold.
            _ => match self.held(&key)? {
                Some(held) => self.hold(&held.account)?,
                // Whose it would be is not decided.
                None => owner.as_ref().map(|owner| self.hold(owner)).transpose()?.flatten(),
            },
        };
        if let Some(hold) = holding {
            return Err(UndeleteError::Held { conflict: hold.conflict });
        }
        let is_taken = match key.kind {
            Kind::Person => self.resolve_person(&key.id)?.is_some(),
            _ => self.document(&key)?.is_some(),
        };
        if is_taken {
            return Err(UndeleteError::Exists(key));
        }
        // As for a page that a client creates.
        if key.kind == Kind::Page {
            let owner = owner.clone().unwrap_or_default();
            if self.resolve_person(&owner)?.is_none() {
                return Err(UndeleteError::OwnerAbsent(owner));
            }
        }
        let account = owner.clone().unwrap_or_default();
        let is_of_another = match key.kind {
            Kind::Person => self.is_of_departed(&key.id, &document)?,
            _ => self.was_of_another(&account, sequence)?,
        };
        if is_of_another {
            return Err(UndeleteError::OwnerChanged(account));
        }
        self.edit(&key, Some(&document), actor)?;
        if key.kind == Kind::Person {
            self.replace_grants(&key.id, &Granted::default(), actor)?;
        }
        self.audit_asked(What::RestoreDeleted, |event| {
            event.about(schema.collection, &key.id, owner.as_deref()).saying(&format!("trash {sequence}"))
        })?;
        Ok(key)
    }
}
