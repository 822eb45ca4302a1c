//! Floor 4. One record over HTTP: which one a path names, who may have it, how it is shown.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bson::{Document, RawDocument};
use sha2::{Digest, Sha256};

use super::Node;
use super::caller::Caller;
use super::emergency::{self, Subject};
use super::error::ApiError;
use super::extract::{At, names_etag};
use super::witness::Seen;
use crate::domain::access::{Acl, Denied, Grant, Target, Verb};
use crate::domain::json::Shown;
use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::{Owner, Route, Schema, Shape};
use crate::store::{Snapshot, StoreError, StoredRecord};

/// The record that a path names.
pub(crate) struct ItemTarget<'a> {
    pub(crate) schema: &'static Schema,
    acl_name: &'static str,
    pub(crate) id: &'a str,
    /// The person in the path, where it has one besides the id.
    pub(crate) path_owner: Option<&'a str>,
}

impl<'a> ItemTarget<'a> {
    pub(crate) fn new(schema: &'static Schema, route: &'static Route, at: &'a At) -> Self {
        let (id, path_owner) = match (route.shape, schema.kind) {
            (Shape::ItemOfPerson, _) => (at.id(), Some(at.person())),
            (_, Kind::Person) => (at.person(), None),
            _ => (at.id(), None),
        };
        ItemTarget { schema, acl_name: route.acl, id, path_owner }
    }

    pub(crate) fn absent(&self) -> ApiError {
        ApiError::NotFound(self.absence())
    }

    fn absence(&self) -> String {
        format!("{} not found", self.schema.noun)
    }

    /// The person that the path names, if it names one.
    fn path_person(&self) -> Option<&'a str> {
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
        acl.authorize(&caller.principal, verb, self.acl_name, self.schema.kind, target)?;
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

    /// The record with the id of the path, in whatever book it is.
    pub(crate) fn find(&self, snapshot: &Snapshot) -> Result<Option<Found>, ApiError> {
        Ok(snapshot.find(self.schema.kind, self.id)?.map(Found))
    }

    /// Whether the path leads to a record: a page only through its own book.
    pub(crate) fn leads_to(&self, found: &Found) -> bool {
        match self.path_owner {
            Some(person) => found.owner(self.schema) == Some(fold_account(person)),
            None => true,
        }
    }

    /// The answer when the record stands in another book than the path says: absent to everybody, and an attempt
    /// to reach it by those who may not have it.
    pub(crate) fn misfiled(&self, acl: &Acl, caller: &Caller, found: &Found) -> ApiError {
        let owner = found.owner(self.schema);
        match acl.may_read(&caller.principal, self.schema.kind, owner.as_deref()) {
            true => self.absent(),
            false => ApiError::Hidden(self.absence()),
        }
    }

    /// The record that the path leads to, and the grant to use `verb` on it; an error if it is absent or
    /// as good as.
    pub(crate) fn authorized(
        &self,
        node: &Node,
        caller: &Caller,
        verb: Verb,
    ) -> Result<(Found, Grant), ApiError> {
        let acl = node.acl();
        self.authorize_path(&acl, caller, verb)?;
        let found = self.find(&*node.store.read()?)?.ok_or_else(|| self.absent())?;
        if !self.leads_to(&found) {
            return Err(self.misfiled(&acl, caller, &found));
        }
        let owner = found.owner(self.schema);
        let grant = self.authorize_record(&acl, caller, verb, owner.as_deref())?;
        Ok((found, grant))
    }

    /// The record that the path leads to, if the caller may read it, and the emergency under which they may if not
    /// otherwise.
    pub(crate) async fn readable(
        &self,
        node: &Arc<Node>,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<(Found, Option<u64>), ApiError> {
        let refusal = match self.authorized(node, caller, Verb::Get) {
            Ok((found, _)) => return Ok((found, None)),
            Err(refusal @ (ApiError::Forbidden | ApiError::Hidden(_))) => refusal,
            Err(error) => return Err(error),
        };
        let owner = match self.path_person() {
            Some(person) => fold_account(person),
            None => {
                let found = self.find(&*node.store.read()?)?;
                let Some(owner) = found.and_then(|found| found.owner(self.schema)) else {
                    return Err(refusal);
                };
                owner
            }
        };
        let subject = self.path_person().map_or(Subject::Owner(&owner), Subject::Named);
        let Some(opening) = emergency::admit(node, caller, headers, self.acl_name, subject).await? else {
            return Err(refusal);
        };
        // Read again: it is theirs now, whatever it was, or it is not shown.
        let found = self.find(&*node.store.read()?)?.ok_or_else(|| self.absent())?;
        if found.owner(self.schema) != Some(owner) {
            return Err(ApiError::Hidden(self.absence()));
        }
        Ok((found, Some(opening)))
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
    pub(crate) fn seen(&self, schema: &Schema) -> Seen {
        Seen::record(schema, &self.0.id, self.owner(schema))
    }
}

pub(crate) fn to_document(raw: &RawDocument) -> Result<Document, ApiError> {
    Document::try_from(raw).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

/// The version of stored bytes.
pub(crate) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..16]))
}

/// The answer when the client has this version already.
pub(crate) fn not_modified(etag: &str) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response()
}

/// `If-Match` and `If-None-Match` of a write to what is stored now, if anything is.
pub(crate) fn check_precondition(headers: &HeaderMap, stored: Option<&[u8]>) -> Result<(), ApiError> {
    let names = |header| match stored {
        Some(bytes) => names_etag(headers, header, &etag(bytes)),
        None => headers.contains_key(header).then_some(false),
    };
    if names(header::IF_MATCH) == Some(false) || names(header::IF_NONE_MATCH) == Some(true) {
        return Err(ApiError::PreconditionFailed);
    }
    Ok(())
}

/// Fields that this caller is not shown.
pub(crate) fn hidden_fields(
    node: &Node,
    schema: &'static Schema,
    caller: &Caller,
) -> &'static [&'static str] {
    let shows_hashes = node.settings.expose_password_hashes && caller.principal.is_root();
    if shows_hashes { &[] } else { schema.secret_fields }
}

/// The same for a read, perhaps in an emergency: that shows no hash to anybody.
pub(crate) fn hidden_from(
    node: &Node,
    schema: &'static Schema,
    caller: &Caller,
    opening: Option<u64>,
) -> &'static [&'static str] {
    if opening.is_some() { schema.secret_fields } else { hidden_fields(node, schema, caller) }
}

/// Appends a record as clients see it.
pub(crate) fn show_into(
    node: &Node,
    document: &RawDocument,
    hidden: &[&str],
    text: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let shown = Shown { document, dates: node.settings.date_format, hidden };
    serde_json::to_writer(text, &shown).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

pub(crate) fn record_response(
    node: &Node,
    schema: &'static Schema,
    caller: &Caller,
    record: &RawDocument,
) -> Result<Response, ApiError> {
    let hidden = hidden_fields(node, schema, caller);
    response_without(node, hidden, record, &etag(record.as_bytes()))
}

fn response_without(
    node: &Node,
    hidden: &[&str],
    record: &RawDocument,
    etag: &str,
) -> Result<Response, ApiError> {
    // Field names and quotes of JSON take about as much as lengths and types of BSON.
    let mut body = Vec::with_capacity(record.as_bytes().len());
    show_into(node, record, hidden, &mut body)?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], [(header::ETAG, etag)], body).into_response())
}

pub(crate) async fn read(
    node: &Arc<Node>,
    target: &ItemTarget<'_>,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (found, opening) = target.readable(node, caller, headers).await?;
    let (shown, tag) = (found.seen(target.schema).under(opening), etag(found.bytes()));
    if names_etag(headers, header::IF_NONE_MATCH, &tag) == Some(true) {
        return Ok(shown.on(not_modified(&tag)));
    }
    let hidden = hidden_from(node, target.schema, caller, opening);
    Ok(shown.on(response_without(node, hidden, found.raw(), &tag)?))
}
