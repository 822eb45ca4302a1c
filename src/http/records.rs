//! Floor 4. One record over HTTP: read, create, patch, replace, delete, for every kind in the schema.
//!
//! A write reads the record, checks the precondition, authorizes against what it read, computes the new
//! document, and asks the store to write it if the record is still the one it read; if not, it starts
//! over. So nothing is decided on a version that was not there in the moment of the write.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bson::{Bson, Document, RawDocument};
use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::caller::Caller;
use super::error::ApiError;
use super::{Node, caller};
use crate::domain::access::{Acl, Grant, Scope, Target, Verb};
use crate::domain::edit::{self, Editor};
use crate::domain::json::{Shown, parse_object, show_value};
use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::{Route, Schema, Shape};
use crate::domain::value::same_document;
use crate::store::{Edit, EditError, Requirement, Snapshot, StoreError, StoredRecord};

/// How often a write starts over because others changed the record first.
const EDIT_TRIES_MAX: usize = 32;

/// The record that a path names.
pub(crate) struct ItemTarget<'a> {
    pub(crate) schema: &'static Schema,
    pub(crate) acl_name: &'static str,
    pub(crate) id: &'a str,
    /// The person in the path, where it has one besides the id.
    pub(crate) path_owner: Option<&'a str>,
}

impl<'a> ItemTarget<'a> {
    pub(crate) fn new(schema: &'static Schema, route: &'static Route, at: &'a BTreeMap<String, String>) -> Self {
        let param = |name: &str| at.get(name).map(String::as_str);
        let person = param("person_id");
        match route.shape {
            Shape::ItemOfPerson => {
                ItemTarget { schema, acl_name: route.acl, id: param("id").unwrap_or(""), path_owner: person }
            }
            _ => ItemTarget {
                schema,
                acl_name: route.acl,
                id: param("id").or(person).unwrap_or(""),
                path_owner: None,
            },
        }
    }

    fn absent(&self) -> ApiError {
        ApiError::NotFound(format!("{} not found", self.schema.noun))
    }

    /// The person that the path names, if it names one.
    fn path_person(&self) -> Option<&'a str> {
        match self.schema.kind {
            Kind::Person => Some(self.id),
            _ => self.path_owner,
        }
    }

    /// Checks what can be known before the record is read; says nothing about whether it exists.
    fn authorize_path(&self, acl: &Acl, caller: &Caller, verb: Verb) -> Result<(), ApiError> {
        match self.path_person() {
            Some(person) => {
                let target = Target::PathPerson(person);
                acl.authorize(&caller.principal, verb, self.acl_name, self.schema.kind, target)?;
            }
            None => {
                acl.authorize_node(&caller.principal, verb, self.acl_name)?;
            }
        }
        Ok(())
    }

    /// The grant to use `verb` on a record that belongs to `owner`.
    fn authorize_record(
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
        acl.authorize(&caller.principal, verb, self.acl_name, self.schema.kind, target).map_err(|denied| match denied {
            crate::domain::access::Denied::Hidden => self.absent(),
            denied => denied.into(),
        })
    }

    /// The stored record, if the path leads to it: a page only through its own book.
    fn find(&self, snapshot: &Snapshot) -> Result<Option<(StoredRecord, Document)>, ApiError> {
        let Some(record) = snapshot.find(self.schema.kind, self.id)? else {
            return Ok(None);
        };
        let document = to_document(&record.document)?;
        Ok(Some((record, document)))
    }

    fn belongs_to_path(&self, document: &Document) -> bool {
        match self.path_owner {
            Some(person) => self.schema.owner_of(document) == Some(fold_account(person)),
            None => true,
        }
    }
}

pub(crate) fn to_document(raw: &RawDocument) -> Result<Document, ApiError> {
    Document::try_from(raw).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

/// The version of stored bytes.
pub(crate) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..16]))
}

/// Whether a list of entity tags (RFC 9110, 8.8.3) names this one; `*` names any.
fn names_etag(header: &HeaderValue, etag: &str) -> bool {
    let Ok(list) = header.to_str() else {
        return false;
    };
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// Fields that this caller is not shown.
pub(crate) fn hidden_fields(node: &Node, schema: &'static Schema, caller: &Caller) -> &'static [&'static str] {
    let shows_hashes = node.settings.expose_password_hashes && caller.principal.is_root();
    if shows_hashes { &[] } else { schema.secret_fields }
}

pub(crate) fn shown_bytes(node: &Node, document: &RawDocument, hidden: &[&str]) -> Result<Vec<u8>, ApiError> {
    let shown = Shown { document, dates: node.settings.date_format, hidden };
    serde_json::to_vec(&shown).map_err(|e| StoreError::Damaged(e.to_string()).into())
}

fn record_response(node: &Node, schema: &'static Schema, caller: &Caller, record: &RawDocument) -> Result<Response, ApiError> {
    let body = shown_bytes(node, record, hidden_fields(node, schema, caller))?;
    let json = HeaderValue::from_static("application/json");
    let mut response = ([(header::CONTENT_TYPE, json)], body).into_response();
    if let Ok(value) = HeaderValue::from_str(&etag(record.as_bytes())) {
        response.headers_mut().insert(header::ETAG, value);
    }
    Ok(response)
}

pub(crate) fn read(
    node: &Node,
    schema: &'static Schema,
    route: &'static Route,
    caller: &Caller,
    at: &BTreeMap<String, String>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let target = ItemTarget::new(schema, route, at);
    let record = find_readable(node, &target, caller)?;
    let tag = etag(record.document.as_bytes());
    if headers.get(header::IF_NONE_MATCH).is_some_and(|header| names_etag(header, &tag)) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        if let Ok(value) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(header::ETAG, value);
        }
        return Ok(response);
    }
    record_response(node, schema, caller, &record.document)
}

/// The record that `target` names, if the caller may read it.
pub(crate) fn find_readable(node: &Node, target: &ItemTarget<'_>, caller: &Caller) -> Result<StoredRecord, ApiError> {
    let acl = node.acl();
    target.authorize_path(&acl, caller, Verb::Get)?;
    let (record, document) = target.find(&node.store.read()?)?.ok_or_else(|| target.absent())?;
    if !target.belongs_to_path(&document) {
        return Err(target.absent());
    }
    target.authorize_record(&acl, caller, Verb::Get, target.schema.owner_of(&document).as_deref())?;
    Ok(record)
}

/// POST, PATCH, PUT and DELETE of one record.
pub(crate) async fn write(
    node: &Node,
    target: &ItemTarget<'_>,
    caller: &Caller,
    method: &Method,
    headers: &HeaderMap,
    body: Result<Bytes, ApiError>,
) -> Result<Response, ApiError> {
    let verb = Verb::of_method(method.as_str()).ok_or(ApiError::MethodNotAllowed)?;
    target.authorize_path(&node.acl(), caller, verb)?;
    let mut body = match verb {
        Verb::Delete => Map::new(),
        _ => parse_object(&body?)?,
    };
    let gave_password = body.contains_key("password") && target.schema.kind == Kind::Person;
    if gave_password {
        let hash = new_password(node, target, caller, verb, &body).await?;
        body.insert("password".into(), Value::String(hash));
    }
    let request = WriteRequest { node, target, caller, verb, headers, body: &body, gave_password };
    for _ in 0..EDIT_TRIES_MAX {
        match request.attempt().await? {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Moved => {}
        }
    }
    Err(EditError::Moved.into())
}

/// Checks a password in a body and returns its hash.
async fn new_password(
    node: &Node,
    target: &ItemTarget<'_>,
    caller: &Caller,
    verb: Verb,
    body: &Map<String, Value>,
) -> Result<String, ApiError> {
    let is_root = caller.principal.is_root();
    if verb != Verb::Post && !is_root && !caller.principal.is(target.id) {
        return Err(ApiError::Forbidden);
    }
    let Some(Value::String(password)) = body.get("password") else {
        return Err(ApiError::invalid("password", "password: must be text"));
    };
    if password.starts_with("$2") {
        if !is_root {
            return Err(ApiError::invalid("password", "password: ready-made hashes are not accepted"));
        }
        if !crate::accounts::is_acceptable_hash(password) {
            return Err(ApiError::invalid("password", "password: not a bcrypt hash of cost 4 to 14"));
        }
        return Ok(password.clone());
    }
    Ok(node.accounts.hash(password, caller.peer).await?)
}

struct WriteRequest<'a> {
    node: &'a Node,
    target: &'a ItemTarget<'a>,
    caller: &'a Caller,
    verb: Verb,
    headers: &'a HeaderMap,
    body: &'a Map<String, Value>,
    gave_password: bool,
}

enum Attempt {
    Answered(Response),
    /// The record changed between reading and writing.
    Moved,
}

impl WriteRequest<'_> {
    async fn attempt(&self) -> Result<Attempt, ApiError> {
        let acl = self.node.acl();
        // Own block: a snapshot must not live across an await.
        let (stored, edit) = {
            let snapshot = self.node.store.read()?;
            let stored = self.target.find(&snapshot)?;
            self.check_precondition(stored.as_ref().map(|(record, _)| record))?;
            let edit = match (&stored, self.verb) {
                (None, Verb::Post | Verb::Put) => self.create(&acl, &snapshot)?,
                (Some((record, document)), Verb::Post) => return self.create_again(&acl, record, document),
                (Some((record, document)), Verb::Patch | Verb::Put) => self.change(&acl, record, document)?,
                (Some((record, document)), Verb::Delete) => self.delete(&acl, record, document)?,
                _ => return Err(self.target.absent()),
            };
            (stored.map(|(record, _)| record), edit)
        };
        let document = edit.document.clone();
        match self.node.store.edit(edit).await {
            Ok(()) => self.answer(stored.as_ref(), document).map(Attempt::Answered),
            Err(EditError::Moved) | Err(EditError::Unmet(Requirement::AccountFree(_))) => Ok(Attempt::Moved),
            Err(EditError::Unmet(Requirement::PersonExists(_))) => {
                Err(ApiError::NotFound("Person not found".into()))
            }
            Err(EditError::Unmet(Requirement::NoDependents(_))) => {
                Err(ApiError::invalid("", "The user has records of their own."))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check_precondition(&self, stored: Option<&StoredRecord>) -> Result<(), ApiError> {
        let Some(header) = self.headers.get(header::IF_MATCH) else {
            return Ok(());
        };
        match stored {
            Some(record) if names_etag(header, &etag(record.document.as_bytes())) => Ok(()),
            _ => Err(ApiError::PreconditionFailed),
        }
    }

    fn editor<'a>(&self, acl: &'a Acl) -> Editor<'a> {
        Editor { acl, is_root: self.caller.principal.is_root() }
    }

    /// The document that POST makes of the body.
    fn created(&self, acl: &Acl) -> Result<Document, ApiError> {
        let schema = self.target.schema;
        let id = schema.canonical_id(self.target.id);
        schema.check_new_id(&id).map_err(|message| ApiError::invalid("_id", message))?;
        if self.verb == Verb::Post && schema.kind == Kind::Page && !self.body.contains_key("id") && !self.body.contains_key("_id") {
            return Err(ApiError::invalid("id", "id: a page needs its id in the body"));
        }
        let owner = self.target.path_owner.map(fold_account);
        Ok(edit::create(schema, &id, owner.as_deref(), self.body, self.editor(acl))?)
    }

    fn create(&self, acl: &Acl, snapshot: &Snapshot) -> Result<Edit, ApiError> {
        let schema = self.target.schema;
        let document = self.created(acl)?;
        let owner = schema.owner_of(&document);
        let grant = self.target.authorize_record(acl, self.caller, self.verb, owner.as_deref())?;
        let mut requires = Vec::new();
        match schema.kind {
            Kind::Page => {
                let person = owner.unwrap_or_default();
                if snapshot.find(Kind::Person, &person)?.is_none() {
                    return Err(ApiError::NotFound("Person not found".into()));
                }
                requires.push(Requirement::PersonExists(person));
            }
            Kind::Person => requires.push(Requirement::AccountFree(schema.canonical_id(self.target.id))),
            _ => {}
        }
        let grants = self.granted_roles(None, &document);
        let id = document.get_str("_id").unwrap_or_default().to_owned();
        Ok(Edit { grant, id, expected: None, document: Some(document), requires, grants, content: None })
    }

    /// POST of a record that exists: fine if it is the same record again, because the client may have
    /// lost the first answer.
    fn create_again(&self, acl: &Acl, record: &StoredRecord, stored: &Document) -> Result<Attempt, ApiError> {
        let schema = self.target.schema;
        let exists = || ApiError::invalid("", format!("{} already exists", schema.noun));
        if self.gave_password || !self.target.belongs_to_path(stored) {
            return Err(exists());
        }
        let created = self.created(acl)?;
        let owner = schema.owner_of(&created);
        self.target.authorize_record(acl, self.caller, self.verb, owner.as_deref())?;
        let dates = self.node.settings.date_format;
        let shown = |document: &Document| show_value(&Bson::Document(strip_identity(document)), dates);
        if shown(&created) != shown(stored) {
            return Err(exists());
        }
        record_response(self.node, schema, self.caller, &record.document).map(Attempt::Answered)
    }

    fn change(&self, acl: &Acl, record: &StoredRecord, stored: &Document) -> Result<Edit, ApiError> {
        if !self.target.belongs_to_path(stored) {
            return Err(self.target.absent());
        }
        let schema = self.target.schema;
        let owner = schema.owner_of(stored);
        let grant = self.target.authorize_record(acl, self.caller, self.verb, owner.as_deref())?;
        let document = match self.verb {
            Verb::Patch => edit::patch(schema, stored, self.body, self.editor(acl))?,
            _ => edit::replace(schema, stored, self.body, self.editor(acl))?,
        };
        let grants = self.granted_roles(Some(stored), &document);
        // A write that changes nothing keeps the stored bytes, key order included.
        let document = if same_document(&document, stored) { stored.clone() } else { document };
        Ok(Edit {
            grant,
            id: record.id.clone(),
            expected: Some(record.document.as_bytes().to_vec()),
            document: Some(document),
            requires: Vec::new(),
            grants,
            content: None,
        })
    }

    fn delete(&self, acl: &Acl, record: &StoredRecord, stored: &Document) -> Result<Edit, ApiError> {
        if !self.target.belongs_to_path(stored) {
            return Err(self.target.absent());
        }
        let owner = self.target.schema.owner_of(stored);
        let grant = self.target.authorize_record(acl, self.caller, self.verb, owner.as_deref())?;
        let mut requires = Vec::new();
        let mut grants = None;
        if self.target.schema.kind == Kind::Person {
            if !matches!(stored.get("active"), Some(Bson::Boolean(false))) {
                return Err(ApiError::invalid("active", "The user is active."));
            }
            requires.push(Requirement::NoDependents(record.id.clone()));
            grants = Some(Vec::new());
        }
        Ok(Edit {
            grant,
            id: record.id.clone(),
            expected: Some(record.document.as_bytes().to_vec()),
            document: None,
            requires,
            grants,
            content: None,
        })
    }

    /// Roles that count here only because root gave them on this node; `None` if roles do not change.
    fn granted_roles(&self, stored: Option<&Document>, document: &Document) -> Option<Vec<String>> {
        let roles = document.get("roles");
        if self.target.schema.kind != Kind::Person || stored.is_some_and(|stored| stored.get("roles") == roles) {
            return None;
        }
        let central = &self.node.settings.central_roles;
        Some(caller::strings(roles).into_iter().filter(|role| !central.contains(role)).collect())
    }

    fn answer(&self, stored: Option<&StoredRecord>, document: Option<Document>) -> Result<Response, ApiError> {
        let Some(document) = document else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        let raw = bson::serialize_to_raw_document_buf(&document).map_err(|e| StoreError::Unstorable(e.to_string()))?;
        let mut response = record_response(self.node, self.target.schema, self.caller, &raw)?;
        if stored.is_none() {
            *response.status_mut() = StatusCode::CREATED;
            if let Ok(location) = HeaderValue::from_str(&self.location(&document)) {
                response.headers_mut().insert(header::LOCATION, location);
            }
        }
        Ok(response)
    }

    fn location(&self, document: &Document) -> String {
        let id = document.get_str("_id").unwrap_or_default();
        let mut routes = self.target.schema.routes.iter();
        let route = routes.find(|route| matches!(route.shape, Shape::Item | Shape::ItemOfPerson));
        let owner = self.target.schema.owner_of(document).unwrap_or_default();
        route.map_or_else(String::new, |route| match route.shape {
            Shape::ItemOfPerson => route.path.replace("{person_id}", &owner).replace("{id}", id),
            _ => route.path.replace("{person_id}", id).replace("{id}", id),
        })
    }
}

fn strip_identity(document: &Document) -> Document {
    document.iter().filter(|(key, _)| *key != "id").map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// How far a caller may read records of the kind behind a list.
pub(crate) fn list_scope(node: &Node, schema: &'static Schema, route: &'static Route, caller: &Caller) -> Result<Scope, ApiError> {
    Ok(node.acl().authorize_list(&caller.principal, schema.kind, route.acl)?)
}
