//! Floor 4. One record written over HTTP: create, patch, replace, delete, for every kind in the schema.
//!
//! A write reads the record, authorizes against what it read, checks the precondition, computes the new
//! document, and asks the store to write it if the record is still the one it read; if not, it starts
//! over. So nothing is decided on a version that was not there in the moment of the write.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bson::{Document, RawDocument, RawDocumentBuf};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::domain::access::{Acl, Verb};
use crate::domain::active::ACTIVE;
use crate::domain::edit::{self, Editor};
use crate::domain::json::{Shown, check_values};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{Owner, Schema};
use crate::domain::value::same_document;
use crate::http::access::account_lookup::strings;
use crate::http::access::caller::Caller;
use crate::http::access::kept_values::may_read_all;
use crate::http::access::request_body::RequestBody;
use crate::http::audit_observer::AuditEvent;
use crate::http::error::ApiError;
use crate::http::records::etag::check_precondition;
use crate::http::records::item::{Found, ItemTarget};
use crate::http::records::render::{hidden_fields, item_path, record_response, shown_bytes};
use crate::http::records::write_body::{Fields, PASSWORD, check_size, new_password, read_body, to_raw};
use crate::http::state::app_state::AppState;
use crate::http::workload::{self, Work, changing, writing};
use crate::store::{Edit, EditError, Requirement, Snapshot, StoreError};

/// How often a write starts over because others changed the record first.
const EDIT_TRIES_MAX: usize = 32;

/// What a body may take that is kept as what it says while the write waits for others.
const PARSED_BYTES_MAX: usize = 64 << 10;

/// POST, PATCH, PUT and DELETE of one record.
pub(crate) async fn write(
    node: &Arc<AppState>,
    target: &ItemTarget<'_>,
    caller: &Caller,
    method: &Method,
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let verb = Verb::of_method(method.as_str()).ok_or(ApiError::MethodNotAllowed)?;
    target.authorize_path(&node.acl(), caller, verb)?;
    let text = match verb {
        Verb::Delete => Bytes::from_static(b"{}"),
        _ => body.0?,
    };
    // Before it waits for memory: it would wait for all there is.
    check_values(&text)?;
    let is_long = writing(&text, 0) > PARSED_BYTES_MAX;
    // A text may take many times its length once it is read: not while this waits.
    let (mut body, mut secrets) = match is_long {
        false => read_body(target, &text)?,
        true => {
            let work = workload::take(node, caller, writing(&text, 0)).await?;
            (Map::new(), work.run(|| read_body(target, &text))?.1)
        }
    };
    let gave_password = secrets.contains_key(PASSWORD);
    let hash = match gave_password {
        true => Some(new_password(node, target, caller, verb, &mut secrets).await?),
        false => None,
    };
    // Whom it is hidden from is answered as if it were absent, in the same time.
    let is_hidden = is_noted_as_hidden(node, target, caller, verb)?;
    for _ in 0..EDIT_TRIES_MAX {
        // Others who edit this record wait; what still comes between is a reconciliation.
        let edits = match is_hidden {
            true => None,
            false => node.store.turn(target.schema.kind, target.id).await,
        };
        let stored = match is_hidden {
            true => None,
            false => node.store.read()?.look(target.schema.kind, target.id, |_, stored| changing(stored))?,
        };
        let work = Arc::new(workload::take(node, caller, writing(&text, stored.unwrap_or(0))).await?);
        if is_long {
            body = work.run(|| read_body(target, &text))?.0;
        }
        if let Some(hash) = &hash {
            body.insert(PASSWORD.into(), Value::String(hash.clone()));
        }
        let request = WriteRequest { node, target, caller, verb, headers, body: &body, gave_password };
        let place_bytes = match request.attempt(&work).await? {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Moved => continue,
            Attempt::NoPlace { bytes } => bytes,
        };
        // Slow readers are waited for: not with what others wait for.
        if is_long {
            body = Map::new();
        }
        drop((work, edits));
        workload::wait_for_place(node, caller, place_bytes).await?;
    }
    Err(EditError::Moved.into())
}

/// Whether a note says whose the record is, and by it the caller may not use `verb`: then it is not read.
fn is_noted_as_hidden(
    node: &AppState,
    target: &ItemTarget<'_>,
    caller: &Caller,
    verb: Verb,
) -> Result<bool, ApiError> {
    let Some(noted) = node.store.read()?.noted_owner(target.schema.kind, target.id)? else {
        return Ok(false);
    };
    Ok(match verb {
        Verb::Post | Verb::Put => is_hidden(&node.acl(), target, caller, verb, noted.account()),
        _ => target.authorize_found(node, caller, verb, noted.account()).is_err(),
    })
}

/// Whether the caller may not learn that there is this record. Of accounts everybody who may make one learns it.
fn is_hidden(acl: &Acl, target: &ItemTarget<'_>, caller: &Caller, verb: Verb, owner: Option<&str>) -> bool {
    let schema = target.schema;
    schema.kind != Kind::Person
        && schema.owner != Owner::Nobody
        && !acl.may_read(&caller.principal, schema.kind, owner)
        && !target.may_reach(acl, caller, verb, owner)
}

struct WriteRequest<'a> {
    node: &'a Arc<AppState>,
    target: &'a ItemTarget<'a>,
    caller: &'a Caller,
    verb: Verb,
    headers: &'a HeaderMap,
    body: &'a Fields,
    gave_password: bool,
}

/// What is done of a write before the store is asked to write it.
enum Prepared {
    Answered(Response),
    Edit { edit: Box<Edit>, is_new: bool, after: Option<RawDocumentBuf> },
    NoPlace { bytes: usize },
}

enum Attempt {
    Answered(Response),
    /// The record changed between reading and writing.
    Moved,
    /// There is no room for so many bytes of the answer. Nothing is written.
    NoPlace {
        bytes: usize,
    },
}

impl WriteRequest<'_> {
    fn prepare(&self) -> Result<Prepared, ApiError> {
        let (acl, snapshot) = (self.node.acl(), self.node.store.read()?);
        if let Some(noted) = snapshot.noted_owner(self.target.schema.kind, self.target.id)? {
            self.check_owner(&acl, &snapshot, noted.account())?;
        }
        let (edit, is_new) = match (self.target.find(&snapshot)?, self.verb) {
            (Some(found), Verb::Post | Verb::Put)
                if self.is_hidden(&acl, found.owner(self.target.schema).as_deref()) =>
            {
                return Err(self.taken(&acl, &snapshot)?);
            }
            (Some(found), Verb::Post) => {
                return self.create_again(&acl, &snapshot, &found);
            }
            (None, Verb::Post | Verb::Put) => (self.create(&acl, &snapshot)?, true),
            (Some(found), _) if self.leads_to(&snapshot, &found)? => {
                (self.change(&acl, &snapshot, found)?, false)
            }
            (Some(found), _) => return Err(self.misfiled(&acl, &found)),
            _ => return Err(self.target.absent()),
        };
        let after = edit.document.as_ref().map(to_raw).transpose()?;
        check_size(self.node, after.as_ref(), edit.expected.as_deref())?;
        // The answer has its place before anything is written: afterwards it could only be counted, or lost.
        let no_place = match &after {
            Some(after) => self.no_place_for(after)?,
            None => None,
        };
        Ok(no_place.unwrap_or(Prepared::Edit { edit: Box::new(edit), is_new, after }))
    }

    async fn attempt(&self, work: &Arc<Work>) -> Result<Attempt, ApiError> {
        let (edit, is_new, after) = match work.run(|| self.prepare())? {
            Prepared::Answered(response) => return Ok(Attempt::Answered(response)),
            Prepared::NoPlace { bytes } => return Ok(Attempt::NoPlace { bytes }),
            Prepared::Edit { edit, is_new, after } => (edit, is_new, after),
        };
        // What changes nothing is not in the audit trail as a write, and shows the record all the same. A role that counts from now
        // on, or an account that is closed, is a change although the record has said so before.
        let writes_beside = edit.grants.is_some() || edit.content.is_some() || edit.closes.is_some();
        let is_same = !writes_beside && after.as_ref().map(|raw| raw.as_bytes()) == edit.expected.as_deref();
        let unchanged = edit.document.as_ref().filter(|_| is_same);
        let schema = self.target.schema;
        let shown = unchanged.map(|document| AuditEvent::record(schema, &edit.id, schema.owner_of(document)));
        match self.caller.writes(self.node).charged(work).edit(*edit).await {
            Ok(()) => {
                let response = work.run(|| self.answer(is_new, after))?;
                Ok(Attempt::Answered(match shown {
                    Some(shown) => shown.attach_to(response),
                    None => response,
                }))
            }
            Err(EditError::Moved) | Err(EditError::Unmet(Requirement::AccountFree(_))) => Ok(Attempt::Moved),
            Err(EditError::Unmet(Requirement::PersonExists(_))) => Err(person_absent()),
            // That a record of somebody else was deleted is for those who could have read it.
            Err(EditError::Unsent)
                if !may_read_all(&self.node.acl(), &self.caller.principal, schema.kind) =>
            {
                Err(self.refused_as_taken())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn leads_to(&self, snapshot: &Snapshot, found: &Found) -> Result<bool, StoreError> {
        Ok(self.target.leads_to(found.owner(self.target.schema).as_deref())
            && self.target.is_in_book(snapshot, found.raw())?)
    }

    fn is_hidden(&self, acl: &Acl, owner: Option<&str>) -> bool {
        is_hidden(acl, self.target, self.caller, self.verb, owner)
    }

    /// Refuses who may not do this with what belongs to `owner`, before it is read.
    fn check_owner(&self, acl: &Acl, snapshot: &Snapshot, owner: Option<&str>) -> Result<(), ApiError> {
        match self.verb {
            Verb::Post | Verb::Put if self.is_hidden(acl, owner) => Err(self.taken(acl, snapshot)?),
            Verb::Post | Verb::Put => Ok(()),
            verb => self.target.authorize_found(self.node, self.caller, verb, owner).map(drop),
        }
    }

    /// The refusal to make a record whose id is taken by one that is hidden. Everything else that could be wrong is said
    /// first, as where there is no such record: only an attempt that would have made one tells that the id is taken, and
    /// such an attempt is audited.
    fn taken(&self, acl: &Acl, snapshot: &Snapshot) -> Result<ApiError, ApiError> {
        let edit = self.create(acl, snapshot)?;
        let document = edit.document.as_ref().map(to_raw).transpose()?;
        check_size(self.node, document.as_ref(), None)?;
        // The room that it would need, as `Store::edit` asks for it.
        drop(self.node.store.claim(2 * document.map_or(0, |document| document.as_bytes().len() as u64))?);
        Ok(self.refused_as_taken())
    }

    fn refused_as_taken(&self) -> ApiError {
        match self.verb {
            Verb::Post => ApiError::Taken,
            _ => ApiError::Hidden(self.target.absence()),
        }
    }

    fn misfiled(&self, acl: &Acl, found: &Found) -> ApiError {
        self.target.misfiled(acl, self.caller, found.owner(self.target.schema).as_deref())
    }

    fn editor<'a>(&self, acl: &'a Acl) -> Editor<'a> {
        Editor { acl, is_root: self.caller.principal.is_root() }
    }

    /// The document that POST makes of the body.
    fn created(&self, acl: &Acl, snapshot: &Snapshot) -> Result<Document, ApiError> {
        let schema = self.target.schema;
        let id = schema.canonical_id(self.target.id);
        schema.check_new_id(&id).map_err(|message| ApiError::invalid("_id", message))?;
        let names_id = ["id", "_id"].iter().any(|field| self.body.contains_key(*field));
        if self.verb == Verb::Post && schema.kind == Kind::Page && !names_id {
            return Err(ApiError::invalid("id", "id: a page needs its id in the body"));
        }
        let owner = match self.target.path_owner {
            Some(person) => {
                let spelling = snapshot.book_spelling(person)?;
                Some(spelling.map_or_else(|| fold_account(person), str::to_owned))
            }
            None => None,
        };
        let mut document = edit::create(schema, &id, owner.as_deref(), self.body, self.editor(acl))?;
        spell_owner(snapshot, schema, &mut document)?;
        // While two people have the account in two spellings, the one who is written is meant.
        if let Owner::Field(field) = schema.owner
            && let Some(given) = self.body.get(field).and_then(Value::as_str)
            && let Some(spelling) = snapshot.book_spelling(given)?
        {
            document.insert(field, spelling);
        }
        Ok(document)
    }

    fn create(&self, acl: &Acl, snapshot: &Snapshot) -> Result<Edit, ApiError> {
        let schema = self.target.schema;
        let document = self.created(acl, snapshot)?;
        let owner = schema.owner_of(&document);
        let grant = self.target.authorize_record(acl, self.caller, self.verb, owner.as_deref())?;
        check_precondition(self.headers, None)?;
        let mut requires = Vec::new();
        match schema.kind {
            Kind::Page => {
                let person = owner.unwrap_or_default();
                if snapshot.find(Kind::Person, &person)?.is_none() {
                    return Err(person_absent());
                }
                requires.push(Requirement::PersonExists(person));
            }
            Kind::Person => requires.push(Requirement::AccountFree(schema.canonical_id(self.target.id))),
            _ => {}
        }
        let grants = self.granted_roles(None, &document);
        let id = document.get_str("_id").unwrap_or_default().to_owned();
        let document = Some(document);
        let closes = self.said_by_root().filter(|is_closed| *is_closed);
        Ok(Edit { grant, id, expected: None, document, requires, grants, content: None, closes })
    }

    /// POST of a record that exists: fine if it is the same record again, because the client may have
    /// lost the first answer.
    fn create_again(&self, acl: &Acl, snapshot: &Snapshot, found: &Found) -> Result<Prepared, ApiError> {
        let schema = self.target.schema;
        let exists = || ApiError::invalid("", format!("{} already exists", schema.noun));
        let created = self.created(acl, snapshot)?;
        let owner = schema.owner_of(&created);
        self.target.authorize_record(acl, self.caller, self.verb, owner.as_deref())?;
        if self.gave_password || !self.leads_to(snapshot, found)? {
            return Err(exists());
        }
        let created = to_raw(&edit::spelled_like(schema, created, &found.document()?))?;
        // As text: trees of both would take several times as much.
        let dates = self.node.settings.date_format;
        let shown = |document| {
            let text = serde_json::to_vec(&Shown { document, dates, hidden: &[] });
            text.map_err(|error| ApiError::from(StoreError::Damaged(error.to_string())))
        };
        if shown(&created)? != shown(found.raw())? {
            return Err(exists());
        }
        check_precondition(self.headers, Some(found.bytes()))?;
        if let Some(no_place) = self.no_place_for(found.raw())? {
            return Ok(no_place);
        }
        let response = record_response(self.node, schema, self.caller, found.raw())?;
        Ok(Prepared::Answered(found.seen(schema).attach_to(response)))
    }

    /// PATCH, PUT and DELETE of a record that the path leads to.
    fn change(&self, acl: &Acl, snapshot: &Snapshot, found: Found) -> Result<Edit, ApiError> {
        let schema = self.target.schema;
        let stored = &found.document()?;
        let owner = schema.owner_of(stored);
        let grant = self.target.authorize_record(acl, self.caller, self.verb, owner.as_deref())?;
        check_precondition(self.headers, Some(found.bytes()))?;
        self.check_owner_spelling(snapshot, stored)?;
        let mut grants = None;
        let document = match self.verb {
            Verb::Delete => {
                // Whether a person may go the store knows.
                grants = (schema.kind == Kind::Person).then(Vec::new);
                None
            }
            Verb::Patch => {
                let former = snapshot.former_dates(&RecordKey::new(schema.kind, found.0.id.as_str()))?;
                Some(edit::patch(schema, stored, &former, self.body, self.editor(acl))?)
            }
            _ => {
                let former = snapshot.former_dates(&RecordKey::new(schema.kind, found.0.id.as_str()))?;
                Some(edit::replace(schema, stored, &former, self.body, self.editor(acl))?)
            }
        };
        if let Some(document) = &document {
            grants = self.granted_roles(Some(stored), document);
        }
        // A write that changes nothing keeps the stored bytes, key order included.
        let document = document.map(|new| if same_document(&new, stored) { stored.clone() } else { new });
        Ok(Edit {
            grant,
            expected: Some(found.bytes().to_vec()),
            id: found.0.id,
            document,
            requires: Vec::new(),
            grants,
            content: None,
            closes: self.closes(),
        })
    }

    /// Refuses another spelling of the owner while two people have the account in two spellings: it names the other one.
    fn check_owner_spelling(&self, snapshot: &Snapshot, stored: &Document) -> Result<(), ApiError> {
        let Owner::Field(field) = self.target.schema.owner else {
            return Ok(());
        };
        let given = self.body.get(field).and_then(Value::as_str);
        let given = given.filter(|given| stored.get_str(field).is_ok_and(|stored| stored != *given));
        match given.map(|given| snapshot.book_spelling(given)).transpose()?.flatten() {
            Some(_) => Err(ApiError::invalid(field, format!("Not allowed to change {field}"))),
            None => Ok(()),
        }
    }

    /// Whether root says by this change alone that a person's account is to be closed or open: also where a hub has stored the
    /// same, which does not count here perhaps. A whole record that is sent back says nothing of the kind.
    fn closes(&self) -> Option<bool> {
        self.said_by_root().filter(|_| self.verb == Verb::Patch)
    }

    /// Whether root says that a person's account is closed.
    fn said_by_root(&self) -> Option<bool> {
        let is_said = self.target.schema.kind == Kind::Person && self.caller.principal.is_root();
        let said = self.body.get(ACTIVE).filter(|_| is_said)?;
        said.as_bool().map(|is_active| !is_active)
    }

    /// Roles that count here only because root gave them on this node; `None` if roles do not change.
    fn granted_roles(&self, stored: Option<&Document>, document: &Document) -> Option<Vec<String>> {
        let roles = document.get("roles");
        if self.target.schema.kind != Kind::Person
            || stored.is_some_and(|stored| stored.get("roles") == roles)
        {
            return None;
        }
        let central = &self.node.settings.central_roles;
        Some(strings(roles).into_iter().filter(|role| !central.contains(role)).collect())
    }

    /// Counts the answer that shows this record; what to do instead of the write where there is no room for it.
    fn no_place_for(&self, record: &RawDocument) -> Result<Option<Prepared>, ApiError> {
        let hidden = hidden_fields(self.node, self.target.schema, self.caller);
        let bytes = shown_bytes(self.node, record, hidden)?;
        Ok((!self.caller.answer.place(bytes)).then_some(Prepared::NoPlace { bytes }))
    }

    /// `after`: the record from now on.
    fn answer(&self, is_new: bool, after: Option<RawDocumentBuf>) -> Result<Response, ApiError> {
        let Some(after) = after else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        let mut response = record_response(self.node, self.target.schema, self.caller, &after)?;
        if is_new {
            *response.status_mut() = StatusCode::CREATED;
            let schema = self.target.schema;
            let owner = self.target.path_owner.map(fold_account);
            let path = item_path(schema, &schema.canonical_id(self.target.id), owner.as_deref());
            if let Ok(location) = HeaderValue::from_str(&path) {
                response.headers_mut().insert(header::LOCATION, location);
            }
        }
        Ok(response)
    }
}

/// Writes whose a record is in the spelling in which that person is stored.
fn spell_owner(snapshot: &Snapshot, schema: &Schema, document: &mut Document) -> Result<(), StoreError> {
    edit::spell_owner(schema, document, None, |account| {
        snapshot.look(Kind::Person, account, |id, _| id.to_owned())
    })
}

fn person_absent() -> ApiError {
    ApiError::NotFound("Person not found".into())
}
