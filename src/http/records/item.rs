//! Floor 4. The record that a path names, and the rights to use it.

use bson::{Document, RawDocument};

use crate::domain::access::{Acl, Denied, Grant, Target, Verb};
use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::{Owner, Route, Schema, Shape};
use crate::http::access::caller::Caller;
use crate::http::audit_observer::AuditEvent;
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::records::render::to_document;
use crate::http::state::app_state::AppState;
use crate::http::workload::changing;
use crate::store::{Snapshot, StoreError, StoredRecord};

/// The record that a path names.
pub(crate) struct ItemTarget<'a> {
    pub(crate) schema: &'static Schema,
    pub(crate) acl_name: &'static str,
    pub(crate) id: &'a str,
    /// The person in the path, where it has one besides the id.
    pub(crate) path_owner: Option<&'a str>,
}

impl<'a> ItemTarget<'a> {
    pub(crate) fn new(schema: &'static Schema, route: &'static Route, params: &'a PathParams) -> Self {
        let (id, path_owner) = match (route.shape, schema.kind) {
            (Shape::ItemOfPerson, _) => (params.id(), Some(params.person())),
            (_, Kind::Person) => (params.person(), None),
            _ => (params.id(), None),
        };
        ItemTarget { schema, acl_name: route.acl, id, path_owner }
    }

    pub(crate) fn absent(&self) -> ApiError {
        ApiError::NotFound(self.absence())
    }

    pub(crate) fn absence(&self) -> String {
        format!("{} not found", self.schema.noun)
    }

    /// The person that the path names, if it names one.
    pub(crate) fn path_person(&self) -> Option<&'a str> {
        match self.schema.kind {
            Kind::Person => Some(self.id),
            _ => self.path_owner,
        }
    }

    /// Checks what can be known before the record is read; says nothing about whether it exists.
    pub(crate) fn authorize_path(&self, acl: &Acl, caller: &Caller, verb: Verb) -> Result<(), ApiError> {
        let target = match self.path_person() {
            Some(person) => Target::PathPerson(person),
            None if self.schema.owner == Owner::Nobody => Target::Record { owner: None },
            None => {
                acl.authorize_node(&caller.principal, verb, self.acl_name)?;
                return Ok(());
            }
        };
        acl.permits(&caller.principal, verb, self.acl_name, self.schema.kind, target)?;
        Ok(())
    }

    /// The grant to use `verb` on a record that belongs to `owner`. What must not show is absent.
    pub(crate) fn authorize_record(
        &self,
        acl: &Acl,
        caller: &Caller,
        verb: Verb,
        owner: Option<&str>,
    ) -> Result<Grant, ApiError> {
        let target = match self.path_person() {
            Some(person) => Target::PathPerson(person),
            None => Target::Record { owner },
        };
        acl.authorize(&caller.principal, verb, self.acl_name, self.schema.kind, target).map_err(|denied| {
            match denied {
                Denied::Hidden => ApiError::Hidden(self.absence()),
                Denied::Forbidden => ApiError::Forbidden,
            }
        })
    }

    /// Whether the path leads to a record that belongs to `owner`, and the caller may use `verb` on it.
    pub(crate) fn may_reach(&self, acl: &Acl, caller: &Caller, verb: Verb, owner: Option<&str>) -> bool {
        self.leads_to(owner) && self.authorize_record(acl, caller, verb, owner).is_ok()
    }

    /// The record with the id of the path, in whatever book it is.
    pub(crate) fn find(&self, snapshot: &Snapshot) -> Result<Option<Found>, ApiError> {
        Ok(snapshot.find(self.schema.kind, self.id)?.map(Found))
    }

    /// Whether the path leads to a record: a page only through its own book.
    pub(crate) fn leads_to(&self, owner: Option<&str>) -> bool {
        match self.path_owner {
            Some(person) => owner == Some(fold_account(person).as_str()),
            None => true,
        }
    }

    /// Whether the record is in the book that the path names, if [`ItemTarget::leads_to`] leads there: not in that of somebody
    /// else who has the account in another spelling.
    pub(crate) fn is_in_book(&self, view: &Snapshot, record: &RawDocument) -> Result<bool, StoreError> {
        let spelling = match self.path_owner {
            Some(person) => view.book_spelling(person)?,
            None => None,
        };
        Ok(self.schema.is_in_book(record, spelling))
    }

    /// The answer when the record stands in another book than the path says: absent to everybody, and an attempt
    /// to reach it by those who may not have it.
    pub(crate) fn misfiled(&self, acl: &Acl, caller: &Caller, owner: Option<&str>) -> ApiError {
        match acl.may_read(&caller.principal, self.schema.kind, owner) {
            true => self.absent(),
            false => ApiError::Hidden(self.absence()),
        }
    }

    /// The record that the path leads to, and the grant to use `verb` on it; an error if it is absent or
    /// as good as.
    pub(crate) fn authorized(
        &self,
        node: &AppState,
        caller: &Caller,
        verb: Verb,
    ) -> Result<(Found, Grant), ApiError> {
        self.authorize_path(&node.acl(), caller, verb)?;
        let view = node.store.read()?;
        self.check_noted(&view, node, caller, verb)?;
        let found = self.find(&view)?.ok_or_else(|| self.absent())?;
        let grant = self.authorize_found(node, caller, verb, found.owner(self.schema).as_deref())?;
        if !self.is_in_book(&view, found.raw())? {
            return Err(self.absent());
        }
        Ok((found, grant))
    }

    /// Refuses by the note of whose the record is, before it is read: what the caller may not have takes as long as what is
    /// not there, however large it is, and nobody else learns that it is damaged.
    pub(crate) fn check_noted(
        &self,
        view: &Snapshot,
        node: &AppState,
        caller: &Caller,
        verb: Verb,
    ) -> Result<(), ApiError> {
        match view.noted_owner(self.schema.kind, self.id)? {
            Some(noted) => self.authorize_found(node, caller, verb, noted.account()).map(drop),
            None => Ok(()),
        }
    }

    /// What changing the record takes that the path leads to, if the caller may use `verb` on it.
    pub(crate) fn weight(&self, node: &AppState, caller: &Caller, verb: Verb) -> Result<usize, ApiError> {
        let view = node.store.read()?;
        self.check_noted(&view, node, caller, verb)?;
        let stored = view.look(self.schema.kind, self.id, |_, stored| changing(stored))?;
        Ok(stored.unwrap_or(0))
    }

    /// The grant to use `verb` on a record that was found and belongs to `owner`, if the path leads to it.
    pub(crate) fn authorize_found(
        &self,
        node: &AppState,
        caller: &Caller,
        verb: Verb,
        owner: Option<&str>,
    ) -> Result<Grant, ApiError> {
        let acl = node.acl();
        if !self.leads_to(owner) {
            return Err(self.misfiled(&acl, caller, owner));
        }
        self.authorize_record(&acl, caller, verb, owner)
    }
}

/// A record as it is stored.
pub(crate) struct Found(pub(crate) StoredRecord);

impl Found {
    pub(crate) fn raw(&self) -> &RawDocument {
        &self.0.document
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.document.as_bytes()
    }

    /// Decoded, for who changes it.
    pub(crate) fn document(&self) -> Result<Document, ApiError> {
        to_document(self.raw())
    }

    /// The account that it belongs to, folded.
    pub(crate) fn owner(&self, schema: &Schema) -> Option<String> {
        schema.owner_in(self.raw())
    }

    /// An answer that shows it, for the audit.
    pub(crate) fn seen(&self, schema: &Schema) -> AuditEvent {
        AuditEvent::record(schema, &self.0.id, self.owner(schema))
    }
}
