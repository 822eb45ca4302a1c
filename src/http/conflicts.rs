//! Floor 4. One conflict over HTTP: seeing it, and deciding.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bson::{Bson, Document};
use serde_json::{Map, Value, json};

use super::Node;
use super::caller::Caller;
use super::conflict_rights::{ConflictReader, absent, hidden};
use super::conflict_view::{self, LIST_VALUE_BYTES_MAX};
use super::error::ApiError;
use super::extract::{At, Sent, names_etag};
use super::holds::{self, Case};
use super::kept::is_operator;
use super::password::{CURRENT_FIELD_NAME, check_given};
use super::records::to_document;
use super::standing_questions;
use super::witness::{Seen, note_read};
use super::workload::{self, Work, showing, writing};
use super::write::{check_size, to_raw};
use crate::domain::access::{Acl, Principal, Target, Verb};
use crate::domain::content::{CONTENT_FIELD, has_content};
use crate::domain::edit::{self, Editor};
use crate::domain::json::{adopt_like, check_values, parse_body, show_value};
use crate::domain::record::{Kind, fold_account};
use crate::domain::value::same_option;
use crate::store::{Conflict, ConflictStatus, Snapshot, Store, Subject};
use crate::sync::conflicts::{Decision, ResolveError, current_value, resolve as carry_out, try_resolving};

pub(crate) async fn show(
    State(node): State<Arc<Node>>,
    caller: Caller,
    at: At,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "conflicts")?;
    let id = at.id().to_owned();
    let bytes = {
        let view = node.store.read()?;
        check_known(&node, &caller, &view, &id)?;
        view.conflict_bytes(&id)?
    };
    let _work = workload::take(&node, &caller, showing(bytes)).await?;
    let shown = tokio::task::spawn_blocking(move || -> Result<(Response, Seen), ApiError> {
        let snapshot = node.store.read()?;
        match find_in(&node, &caller, &snapshot, &id)? {
            Found::Value(seen) => Ok((respond(&node, &caller, &snapshot, &id)?, seen)),
            Found::Identity(case) => {
                let seen = seen_person(&case.conflict.key.id);
                Ok((respond_with(case.shown(&node, None), &case.etag()), seen))
            }
            Found::Standing(shown) => {
                let seen = seen_person(shown["record"].as_str().unwrap_or_default());
                Ok((super::json(shown), seen))
            }
        }
    });
    let (response, seen) = shown.await.map_err(|_| ApiError::Internal)??;
    Ok(seen.on(response))
}

/// What an id in the path of a conflict names.
enum Found {
    /// With the record that is shown, for the audit.
    Value(Seen),
    Identity(Box<Case>),
    /// As it is shown, see [`standing_questions`].
    Standing(Value),
}

impl Found {
    /// The record that the caller gets to see, for the audit.
    fn seen(&self) -> Seen {
        match self {
            Found::Value(seen) => seen.clone(),
            Found::Identity(case) => seen_person(&case.conflict.key.id),
            Found::Standing(shown) => seen_person(shown["record"].as_str().unwrap_or_default()),
        }
    }
}

fn seen_person(id: &str) -> Seen {
    Seen::record(Kind::Person.schema(), id, Some(fold_account(id)))
}

/// An error if the caller may not know of what the id names, or if it names nothing.
pub(super) fn check_known(
    node: &Node,
    caller: &Caller,
    snapshot: &Snapshot,
    id: &str,
) -> Result<(), ApiError> {
    let reader = ConflictReader::new(node, caller, snapshot);
    match standing_questions::find(node, snapshot, id)? {
        Some(_) if reader.may_know_people() => Ok(()),
        Some(_) => Err(hidden()),
        None => reader.check(id),
    }
}

/// What the id names, if the caller may know of it.
fn find_in(node: &Node, caller: &Caller, snapshot: &Snapshot, id: &str) -> Result<Found, ApiError> {
    check_known(node, caller, snapshot, id)?;
    if let Some(shown) = standing_questions::find(node, snapshot, id)? {
        return Ok(Found::Standing(shown));
    }
    let found = conflict_view::visit(node, snapshot, id, None, |view| {
        let schema = view.head.key.kind.schema();
        (view.head.is_identity(), Seen::record(schema, &view.head.key.id, view.owner()))
    })?;
    let (is_identity, seen) = found.ok_or_else(absent)?;
    if !is_identity {
        return Ok(Found::Value(seen));
    }
    let conflict = snapshot.conflict(id)?.ok_or_else(absent)?;
    Case::read(node, snapshot, conflict).map(Box::new).map(Found::Identity)
}

fn read_record(snapshot: &Snapshot, conflict: &Conflict) -> Result<Option<Document>, ApiError> {
    let record = snapshot.record(&conflict.key)?;
    record.map(|record| to_document(&record.document)).transpose()
}

/// A conflict as it is now, if the caller may know of it still.
fn respond(node: &Node, caller: &Caller, snapshot: &Snapshot, id: &str) -> Result<Response, ApiError> {
    check_known(node, caller, snapshot, id)?;
    let shown = conflict_view::visit(node, snapshot, id, None, |view| (view.text(), view.etag()))?;
    let (text, etag) = shown.ok_or_else(absent)?;
    let text = text?;
    Ok(tagged(super::json_body(Body::from(text)), &etag))
}

fn respond_with(shown: Value, etag: &str) -> Response {
    tagged(super::json(shown), etag)
}

fn tagged(mut response: Response, etag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn shown_value(node: &Node, conflict: &Conflict, value: &Bson) -> Value {
    match value {
        Bson::Document(body) if conflict.path.is_empty() => {
            let shown = conflict.key.kind.schema().without_secrets(body);
            show_value(&Bson::Document(shown), node.settings.date_format)
        }
        value => show_value(value, node.settings.date_format),
    }
}

/// Decisions that were not carried out, or no longer count.
pub(super) fn shown_notes(node: &Node, conflict: &Conflict) -> Value {
    let notes = conflict.notes.iter().map(|note| {
        let mut shown = json!({
            "reason": note.reason,
            "resolution": note.resolution,
            "resolved_by": note.by,
            "at": crate::sync::time_text(note.at_ms),
        });
        if let Some(value) = note.value.as_ref().filter(|_| !conflict.is_secret()) {
            shown["value"] = shown_value(node, conflict, value);
        }
        shown
    });
    notes.collect()
}

/// Decides a conflict. `IS_TRIAL`: says what it would say, and changes nothing: 204 if nothing is in the way. That has a path of
/// its own: a node that does not know it decides nothing.
pub(crate) async fn resolve<const IS_TRIAL: bool>(
    State(node): State<Arc<Node>>,
    caller: Caller,
    at: At,
    headers: HeaderMap,
    body: Sent,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Post, "conflicts")?;
    let found = find_in(&node, &caller, &*node.store.read()?, at.id())?;
    // Also an answer that carries nothing out shows both values.
    note_read(&node, found.seen().event(&caller.principal.actor).at(caller.from())).await?;
    let text = body.0?;
    check_values(&text)?;
    let _claim = node.store.claim(text.len() as u64)?;
    let bytes = node.store.read()?.conflict_bytes(at.id())?;
    let (body, work) = read_decision(&node, &caller, &text, showing(bytes)).await?;
    drop(text);
    if body.contains_key("dry_run") {
        let message = "dry_run: POST /sync/conflicts/ID/resolution/trial decides nothing";
        return Err(ApiError::invalid("dry_run", message));
    }
    match found {
        Found::Identity(_) if IS_TRIAL => {
            return Err(ApiError::invalid("", ONLY_VALUES_TRIED));
        }
        Found::Value(_) => {}
        Found::Identity(case) => {
            let case = holds::resolve(&node, &caller, *case, &headers, (&body, &work)).await?;
            return Ok(respond_with(case.shown(&node, None), &case.etag()));
        }
        Found::Standing(shown) => return Err(ApiError::invalid("", standing_questions::remedy(&shown))),
    }
    let (conflict, current) = {
        let snapshot = node.store.read()?;
        let conflict = snapshot.conflict(at.id())?.ok_or_else(absent)?;
        let record = read_record(&snapshot, &conflict)?;
        let current = current_value(&conflict, record.as_ref());
        (conflict, current)
    };
    let decision = parse_decision(&conflict, current.as_ref(), &body)?;
    check_seen((&node, &caller), &conflict, current.as_ref(), &headers, &body)?;
    let (acl, who) = (node.acl(), caller.principal.clone());
    // What stands on one of the two sides may be taken, however large it is.
    let is_bounded = matches!(decision, Decision::Value(_)).then(|| Arc::clone(&node));
    let check = move |conflict: &Conflict, old: Option<&Document>, new: Option<&Document>| {
        check_allowed(&acl, &who, conflict, old, new)?;
        is_bounded.as_ref().map_or(Ok(()), |node| check_decided_size(node, old, new))
    };
    let actor = caller.principal.actor.clone();
    let id = at.id();
    let carried_out = async |store: &Store| match IS_TRIAL {
        false => carry_out(store, id, decision, current, actor, check).await,
        true => try_resolving(store, id, decision, current, actor, check).await,
    };
    let done = caller.writes(&node).charged(&work).through(carried_out).await;
    if done.as_ref().is_err_and(|error| !matches!(error, ResolveError::Store(_))) {
        // The record may have become another one's meanwhile: then nothing is said of it.
        check_known(&node, &caller, &*node.store.read()?, id)?;
    }
    match done {
        Ok(_) if IS_TRIAL => Ok(StatusCode::NO_CONTENT.into_response()),
        // What was decided may have taken the record out of the caller's reach.
        Ok(_) => match respond(&node, &caller, &*node.store.read()?, at.id()) {
            Err(ApiError::Hidden(_)) => Ok(StatusCode::NO_CONTENT.into_response()),
            answer => answer,
        },
        Err(error) => Err(refused(error, |message| moved(&node, &caller, at.id(), message))),
    }
}

/// What the answer to a decision is that was not carried out. `moved` answers where what was decided on has changed.
pub(super) fn refused(error: ResolveError, moved: impl FnOnce(&str) -> ApiError) -> ApiError {
    match error {
        ResolveError::Unknown => absent(),
        ResolveError::Resolved(_) => moved("The conflict has been resolved already"),
        ResolveError::Moved { .. } => moved("The value has changed meanwhile"),
        ResolveError::Invalid { field, .. } if field == FORBIDDEN => ApiError::Forbidden,
        ResolveError::Invalid { field, message } if field == TOO_LARGE => ApiError::TooLarge(message),
        ResolveError::Invalid { field, message } => ApiError::Invalid { field, message },
        ResolveError::Held { conflict } => ApiError::DecisionPending { conflict },
        ResolveError::Store(error) => error.into(),
    }
}

/// An error unless the id names a conflict about a value or a record of which the caller may know.
pub(super) fn check_value_conflict(
    node: &Node,
    caller: &Caller,
    snapshot: &Snapshot,
    id: &str,
) -> Result<(), ApiError> {
    check_known(node, caller, snapshot, id)?;
    let is_question = match standing_questions::find(node, snapshot, id)? {
        Some(_) => true,
        None => conflict_view::visit(node, snapshot, id, None, |view| view.head.is_identity())?
            .ok_or_else(absent)?,
    };
    if is_question { Err(ApiError::invalid("", ONLY_VALUES_TRIED)) } else { Ok(()) }
}

/// What the body says, and the work of carrying it out. The caller's password, if it is there, is verified meanwhile.
async fn read_decision(
    node: &Arc<Node>,
    caller: &Caller,
    text: &[u8],
    shown_bytes: usize,
) -> Result<(Map<String, Value>, Arc<Work>), ApiError> {
    let take = async || workload::take(node, caller, writing(text, shown_bytes)).await;
    let work = take().await?;
    let mut body = work.run(|| parse_body(text))?;
    let Some(current) = body.shift_remove(CURRENT_FIELD_NAME) else {
        return Ok((body, Arc::new(work)));
    };
    // Passwords wait to be computed, and what the body takes does not wait with them.
    drop((body, work));
    check_given(node, caller, current).await?;
    let work = take().await?;
    let mut body = work.run(|| parse_body(text))?;
    body.shift_remove(CURRENT_FIELD_NAME);
    Ok((body, Arc::new(work)))
}

const ONLY_VALUES_TRIED: &str = "Only decisions about values and records can be tried";
/// Marks a refusal that is about rights rather than content.
const FORBIDDEN: &str = "$forbidden";
/// Marks a refusal that is about the size of the record.
const TOO_LARGE: &str = "$too_large";

/// A value that somebody types makes the record no larger than a write may.
fn check_decided_size(
    node: &Node,
    old: Option<&Document>,
    new: Option<&Document>,
) -> Result<(), ResolveError> {
    let raw = |document: Option<&Document>| document.map(to_raw).transpose();
    let checked =
        raw(old).and_then(|old| check_size(node, raw(new)?.as_ref(), old.as_ref().map(|old| old.as_bytes())));
    checked.map_err(|error| {
        let (field, message) = match error {
            ApiError::TooLarge(message) => (TOO_LARGE, message),
            _ => ("value", "value: cannot be stored".to_owned()),
        };
        ResolveError::Invalid { field: field.into(), message }
    })
}

/// What is decided on has changed. The conflict as it is now comes along, as in a list, if the caller may know of it still.
fn moved(node: &Node, caller: &Caller, id: &str, message: &str) -> ApiError {
    let read = || -> Result<Option<Value>, ApiError> {
        let snapshot = node.store.read()?;
        check_known(node, caller, &snapshot, id)?;
        conflict_view::visit(node, &snapshot, id, Some(LIST_VALUE_BYTES_MAX), |view| json!(view))
    };
    match read() {
        Ok(Some(current)) => ApiError::Conflict { message: message.into(), current },
        Ok(None) => absent(),
        Err(error) => error,
    }
}

fn parse_decision(
    conflict: &Conflict,
    current: Option<&Bson>,
    body: &Map<String, Value>,
) -> Result<Decision, ApiError> {
    let is_about_record = conflict.subject == Subject::Record;
    match (body.get("take"), body.get("value")) {
        (Some(Value::String(side)), None) if side == "local" => Ok(Decision::TakeLocal),
        (Some(Value::String(side)), None) if side == "central" => Ok(Decision::TakeCentral),
        (Some(Value::String(side)), None) if side == "new_id" && is_about_record => Ok(Decision::NewId),
        _ if is_about_record => Err(ApiError::invalid("take", "take: \"local\", \"central\" or \"new_id\"")),
        // Passwords are not shown, so nobody can have seen what they would write over; and this way round
        // they would not be hashed.
        (None, Some(_)) if conflict.is_secret() => {
            Err(ApiError::invalid("value", "value: of this field only one of the two sides can be taken"))
        }
        (None, Some(value)) => {
            let stored = current.or(conflict.base.as_ref());
            let is_empty = match stored {
                None | Some(Bson::Null) => true,
                Some(Bson::Array(values)) => values.is_empty(),
                Some(_) => false,
            };
            let versions = [&conflict.base, &conflict.local, &conflict.central];
            let others: Vec<&Bson> = versions.into_iter().flatten().filter(|_| is_empty).collect();
            let value = adopt_like(value, stored, &others, &conflict.path.join("."))?;
            if conflict.path.is_empty() {
                whole_record(conflict, current, value)
            } else {
                Ok(Decision::Value(value))
            }
        }
        _ => Err(ApiError::invalid("take", "take: \"local\" or \"central\", or else a value")),
    }
}

/// A decision about a whole record names it, and leaves what is not shown as it is.
fn whole_record(conflict: &Conflict, current: Option<&Bson>, value: Bson) -> Result<Decision, ApiError> {
    let schema = conflict.key.kind.schema();
    let Bson::Document(mut document) = value else {
        return Err(ApiError::invalid("value", "value: must be the whole record"));
    };
    if document.get_str("_id").ok() != Some(&conflict.key.id) {
        return Err(ApiError::invalid("value", "value: must be the whole record with its _id"));
    }
    document.remove("id");
    for secret in schema.secret_fields {
        if document.contains_key(secret) {
            return Err(ApiError::invalid("value", format!("value: must not hold {secret}")));
        }
        if let Some(kept) = current.and_then(Bson::as_document).and_then(|current| current.get(secret)) {
            document.insert(*secret, kept.clone());
        }
    }
    Ok(Decision::Value(Bson::Document(document)))
}

/// A decision is made on a value that somebody saw; if it is another one by now, they must look again.
fn check_seen(
    (node, caller): (&Node, &Caller),
    conflict: &Conflict,
    current: Option<&Bson>,
    headers: &HeaderMap,
    body: &Map<String, Value>,
) -> Result<(), ApiError> {
    let etag = conflict_view::visit(node, &*node.store.read()?, &conflict.id, None, |view| view.etag())?;
    let etag = etag.ok_or_else(absent)?;
    let is_current = match (names_etag(headers, header::IF_MATCH, &etag), body.get("seen")) {
        (Some(is_named), _) => is_named,
        (None, Some(seen)) => match current {
            Some(current) => show_value(current, node.settings.date_format) == *seen,
            None => seen.is_null(),
        },
        // Nothing was said: then it must be the value that the conflict left standing.
        (None, None) => same_option(conflict.standing(), current),
    };
    if is_current && conflict.status == ConflictStatus::Open {
        return Ok(());
    }
    let message = match conflict.status {
        ConflictStatus::Open => "The value has changed meanwhile",
        ConflictStatus::Resolved => "The conflict has been resolved already",
    };
    Err(moved(node, caller, &conflict.id, message))
}

/// A decision needs the right to make the same change directly.
pub(super) fn check_allowed(
    acl: &Acl,
    who: &Principal,
    conflict: &Conflict,
    old: Option<&Document>,
    new: Option<&Document>,
) -> Result<(), ResolveError> {
    if conflict.subject == Subject::Record {
        return check_both_records(acl, who, conflict, old, new);
    }
    let verb = match (old, new) {
        (old, new) if old == new => return Ok(()),
        (_, None) => Verb::Delete,
        (None, Some(_)) => Verb::Post,
        _ => Verb::Patch,
    };
    let schema = conflict.key.kind.schema();
    check_right(acl, who, verb, conflict.key.kind, old.or(new))?;
    if conflict.is_secret() && !who.administers() {
        return Err(forbidden());
    }
    if let Some(new) = new {
        let editor = Editor { acl, is_root: who.administers() };
        let (old, new) = without_own_content(conflict, old, new);
        edit::check_change(schema, old.as_ref(), &new, editor)
            .map_err(|invalid| ResolveError::Invalid { field: invalid.field, message: invalid.message })?;
    }
    Ok(())
}

/// A decision between two records needs the right to change both, whichever of them stands.
fn check_both_records(
    acl: &Acl,
    who: &Principal,
    conflict: &Conflict,
    old: Option<&Document>,
    new: Option<&Document>,
) -> Result<(), ResolveError> {
    let verb = if new.is_none() { Verb::Delete } else { Verb::Patch };
    let central = conflict.central.as_ref().and_then(Bson::as_document);
    for document in [old, central].into_iter().flatten() {
        check_right(acl, who, verb, conflict.key.kind, Some(document))?;
    }
    Ok(())
}

/// Whether somebody may do this to a record directly. The operator of the machine may decide everything.
fn check_right(
    acl: &Acl,
    who: &Principal,
    verb: Verb,
    kind: Kind,
    document: Option<&Document>,
) -> Result<(), ResolveError> {
    if is_operator(who) {
        return Ok(());
    }
    let schema = kind.schema();
    let owner = document.and_then(|document| schema.owner_of(document));
    let target = match (kind, &owner) {
        (Kind::Person, Some(person)) => Target::PathPerson(person),
        _ => Target::Record { owner: owner.as_deref() },
    };
    acl.authorize(who, verb, schema.item_acl(), kind, target).map(|_| ()).map_err(|_| forbidden())
}

fn forbidden() -> ResolveError {
    ResolveError::Invalid { field: FORBIDDEN.into(), message: "not allowed".into() }
}

/// The record before and after, without the name of its uploaded bytes if that is one of the conflict's own:
/// those were uploaded to this record, here or elsewhere, so the name opens nobody else's.
fn without_own_content(
    conflict: &Conflict,
    old: Option<&Document>,
    new: &Document,
) -> (Option<Document>, Document) {
    let (mut old, mut new) = (old.cloned(), new.clone());
    let named = new.get(CONTENT_FIELD);
    let is_own = [&conflict.base, &conflict.local, &conflict.central].into_iter().any(|value| {
        let own = match conflict.path.as_slice() {
            [] => value.as_ref().and_then(Bson::as_document).and_then(|body| body.get(CONTENT_FIELD)),
            [field] if field == CONTENT_FIELD => value.as_ref(),
            _ => return false,
        };
        same_option(own, named)
    });
    if is_own && has_content(conflict.key.kind) {
        new.remove(CONTENT_FIELD);
        old.as_mut().map(|old| old.remove(CONTENT_FIELD));
    }
    (old, new)
}
