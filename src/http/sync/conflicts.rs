//! Floor 4. One conflict over HTTP: seeing it, and deciding.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bson::{Bson, Document};
use serde_json::{Map, Value, json};

use crate::domain::access::Verb;
use crate::domain::json::{check_values, parse_body, show_value};
use crate::domain::record::{Kind, fold_account};
use crate::domain::value::same_option;
use crate::http::access::caller::Caller;
use crate::http::access::request_body::RequestBody;
use crate::http::audit_observer::{AuditEvent, note_read};
use crate::http::auth::current_password::check_given;
use crate::http::error::ApiError;
use crate::http::error::conversion::CURRENT_FIELD_NAME;
use crate::http::extract::PathParams;
use crate::http::records::etag::names_etag;
use crate::http::records::render::to_document;
use crate::http::response;
use crate::http::state::app_state::AppState;
use crate::http::sync::conflict_decision::{
    FORBIDDEN, ONLY_VALUES_TRIED, TOO_LARGE, check_allowed, check_decided_size, parse_decision,
};
use crate::http::sync::conflict_rights::{ConflictReader, absent, hidden};
use crate::http::sync::conflict_view::{self, LIST_VALUE_BYTES_MAX};
use crate::http::sync::identity_holds::{self, Case};
use crate::http::sync::standing_questions;
use crate::http::workload::{self, Work, showing, writing};
use crate::store::{Conflict, ConflictStatus, Snapshot, Store};
use crate::sync::conflicts::{Decision, ResolveError, current_value, resolve as carry_out, try_resolving};

pub(crate) async fn show(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "conflicts")?;
    let id = params.id().to_owned();
    let bytes = {
        let view = node.store.read()?;
        check_known(&node, &caller, &view, &id)?;
        view.conflict_bytes(&id)?
    };
    let _work = workload::take(&node, &caller, showing(bytes)).await?;
    let shown = tokio::task::spawn_blocking(move || -> Result<(Response, AuditEvent), ApiError> {
        let snapshot = node.store.read()?;
        match find_in(&node, &caller, &snapshot, &id)? {
            Found::Value(seen) => Ok((respond(&node, &caller, &snapshot, &id)?, seen)),
            Found::Identity(case) => {
                let seen = seen_person(&case.conflict.key.id);
                Ok((respond_with(case.shown(&node, None), &case.etag()), seen))
            }
            Found::Standing(shown) => {
                let seen = seen_person(shown["record"].as_str().unwrap_or_default());
                Ok((response::json(shown), seen))
            }
        }
    });
    let (response, seen) = shown.await.map_err(|_| ApiError::Internal)??;
    Ok(seen.attach_to(response))
}

/// What an id in the path of a conflict names.
enum Found {
    /// With the record that is shown, for the audit.
    Value(AuditEvent),
    Identity(Box<Case>),
    /// As it is shown, see [`standing_questions`].
    Standing(Value),
}

impl Found {
    /// The record that the caller gets to see, for the audit.
    fn seen(&self) -> AuditEvent {
        match self {
            Found::Value(seen) => seen.clone(),
            Found::Identity(case) => seen_person(&case.conflict.key.id),
            Found::Standing(shown) => seen_person(shown["record"].as_str().unwrap_or_default()),
        }
    }
}

fn seen_person(id: &str) -> AuditEvent {
    AuditEvent::record(Kind::Person.schema(), id, Some(fold_account(id)))
}

/// An error if the caller may not know of what the id names, or if it names nothing.
pub(crate) fn check_known(
    node: &AppState,
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
fn find_in(node: &AppState, caller: &Caller, snapshot: &Snapshot, id: &str) -> Result<Found, ApiError> {
    check_known(node, caller, snapshot, id)?;
    if let Some(shown) = standing_questions::find(node, snapshot, id)? {
        return Ok(Found::Standing(shown));
    }
    let found = conflict_view::visit(node, snapshot, id, None, |view| {
        let schema = view.head.key.kind.schema();
        (view.head.is_identity(), AuditEvent::record(schema, &view.head.key.id, view.owner()))
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
fn respond(node: &AppState, caller: &Caller, snapshot: &Snapshot, id: &str) -> Result<Response, ApiError> {
    check_known(node, caller, snapshot, id)?;
    let shown = conflict_view::visit(node, snapshot, id, None, |view| (view.text(), view.etag()))?;
    let (text, etag) = shown.ok_or_else(absent)?;
    let text = text?;
    Ok(tagged(response::json_body(Body::from(text)), &etag))
}

fn respond_with(shown: Value, etag: &str) -> Response {
    tagged(response::json(shown), etag)
}

fn tagged(mut response: Response, etag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Decides a conflict. `IS_TRIAL`: says what it would say, and changes nothing: 204 if nothing is in the way. That has a path of
/// its own: a node that does not know it decides nothing.
pub(crate) async fn resolve<const IS_TRIAL: bool>(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Post, "conflicts")?;
    let found = find_in(&node, &caller, &*node.store.read()?, params.id())?;
    // Also an answer that carries nothing out shows both values.
    note_read(&node, found.seen().event(&caller.principal.actor).at(caller.from())).await?;
    let text = body.0?;
    check_values(&text)?;
    let _claim = node.store.claim(text.len() as u64)?;
    let bytes = node.store.read()?.conflict_bytes(params.id())?;
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
            let case = identity_holds::resolve(&node, &caller, *case, &headers, (&body, &work)).await?;
            return Ok(respond_with(case.shown(&node, None), &case.etag()));
        }
        Found::Standing(shown) => return Err(ApiError::invalid("", standing_questions::remedy(&shown))),
    }
    let (conflict, current) = {
        let snapshot = node.store.read()?;
        let conflict = snapshot.conflict(params.id())?.ok_or_else(absent)?;
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
    let id = params.id();
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
        Ok(_) => match respond(&node, &caller, &*node.store.read()?, params.id()) {
            Err(ApiError::Hidden(_)) => Ok(StatusCode::NO_CONTENT.into_response()),
            answer => answer,
        },
        Err(error) => Err(refused(error, |message| moved(&node, &caller, params.id(), message))),
    }
}

/// What the answer to a decision is that was not carried out. `moved` answers where what was decided on has changed.
pub(crate) fn refused(error: ResolveError, moved: impl FnOnce(&str) -> ApiError) -> ApiError {
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
pub(crate) fn check_value_conflict(
    node: &AppState,
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
    node: &Arc<AppState>,
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

/// What is decided on has changed. The conflict as it is now comes along, as in a list, if the caller may know of it still.
fn moved(node: &AppState, caller: &Caller, id: &str, message: &str) -> ApiError {
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

/// A decision is made on a value that somebody saw; if it is another one by now, they must look again.
fn check_seen(
    (node, caller): (&AppState, &Caller),
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
