//! Floor 4. Conflicts over HTTP: seeing them, and deciding.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bson::{Bson, Document};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Node;
use super::caller::Caller;
use super::error::ApiError;
use super::extract::{At, Sent, names_etag, query_pairs};
use super::holds::{self, Case};
use super::records::to_document;
use super::witness::Seen;
use crate::domain::access::{Acl, Actor, Principal, Target, Verb};
use crate::domain::audit::EVERYBODY;
use crate::domain::content::has_content;
use crate::domain::edit::{self, CONTENT_FIELD, Editor};
use crate::domain::json::{adopt, parse_object, show_value};
use crate::domain::record::{Kind, fold_account};
use crate::domain::value::same_option;
use crate::store::{Conflict, ConflictStatus, Snapshot, Store, stands_name};
use crate::sync::conflicts::{Decision, ResolveError, current_value, resolve as carry_out};

pub(crate) async fn list(
    State(node): State<Arc<Node>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "conflicts")?;
    let mut wanted = None;
    for (name, value) in query_pairs(request.uri()) {
        if name == "status" {
            wanted = Some(match value.as_str() {
                "open" => ConflictStatus::Open,
                "resolved" => ConflictStatus::Resolved,
                _ => return Err(ApiError::invalid("status", "status: open or resolved")),
            });
        }
    }
    // There may be many; the async workers must not wait for them.
    let listed = tokio::task::spawn_blocking(move || {
        let snapshot = node.store.read()?;
        let may_see_anybody = holds::may_see(&node, &caller);
        let mut out = Vec::new();
        for conflict in snapshot.conflicts()? {
            if wanted.is_some_and(|wanted| conflict.status != wanted) {
                continue;
            }
            if conflict.is_identity() {
                if may_see_anybody {
                    out.push(Case::read(&snapshot, conflict)?.shown(&node));
                }
                continue;
            }
            let record = read_record(&snapshot, &conflict)?;
            if may_see(&node, &caller, &conflict, record.as_ref()) {
                let current = current_value(&conflict, record.as_ref());
                out.push(shown(&node, &conflict, current.as_ref()));
            }
        }
        if may_see_anybody && wanted != Some(ConflictStatus::Resolved) {
            out.extend(holds::duplicates(&node, &snapshot)?);
        }
        Ok::<_, ApiError>(out)
    });
    let shown = Seen::other("conflicts", Some(EVERYBODY.to_owned()));
    Ok(shown.on(super::json(listed.await.map_err(|_| ApiError::Internal)??)))
}

pub(crate) async fn show(
    State(node): State<Arc<Node>>,
    caller: Caller,
    at: At,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "conflicts")?;
    let found = find(&node, &caller, at.id())?;
    let seen = found.seen(&node)?;
    let response = match found {
        Found::Value(conflict, current) => respond(&node, &conflict, current.as_ref())?,
        Found::Identity(case) => respond_with(case.shown(&node), &case.etag()),
        Found::Duplicate(shown) => super::json(shown),
    };
    Ok(seen.on(response))
}

/// What an id in the path of a conflict names.
enum Found {
    /// With what the record holds now.
    Value(Conflict, Option<Bson>),
    Identity(Case),
    /// As it is shown.
    Duplicate(Value),
}

impl Found {
    /// Whose data whoever asks gets to see, for the audit.
    fn seen(&self, node: &Node) -> Result<Seen, ApiError> {
        let person = |id: &str| Seen::record(Kind::Person.schema(), id, Some(fold_account(id)));
        Ok(match self {
            Found::Value(conflict, _) => {
                let owner = owner_of(conflict, read_record(&*node.store.read()?, conflict)?.as_ref());
                Seen::record(conflict.key.kind.schema(), &conflict.key.id, owner)
            }
            Found::Identity(case) => person(&case.conflict.key.id),
            Found::Duplicate(shown) => person(shown["record"].as_str().unwrap_or_default()),
        })
    }
}

/// What the id names, if the caller may see it.
fn find(node: &Node, caller: &Caller, id: &str) -> Result<Found, ApiError> {
    let snapshot = node.store.read()?;
    if let Some(shown) = holds::duplicate(node, &snapshot, id)? {
        return if holds::may_see(node, caller) { Ok(Found::Duplicate(shown)) } else { Err(hidden()) };
    }
    let conflict = snapshot.conflict(id)?.ok_or_else(absent)?;
    if conflict.is_identity() {
        let may_see = holds::may_see(node, caller);
        return if may_see { Case::read(&snapshot, conflict).map(Found::Identity) } else { Err(hidden()) };
    }
    let record = read_record(&snapshot, &conflict)?;
    if !may_see(node, caller, &conflict, record.as_ref()) {
        return Err(hidden());
    }
    let current = current_value(&conflict, record.as_ref());
    Ok(Found::Value(conflict, current))
}

/// Conflicts hold values of records, so they are for those who may read the record; and for the operator,
/// who decides where nobody else can.
fn may_see(node: &Node, caller: &Caller, conflict: &Conflict, record: Option<&Document>) -> bool {
    let owner = owner_of(conflict, record);
    is_operator(&caller.principal)
        || node.acl().may_read(&caller.principal, conflict.key.kind, owner.as_deref())
}

/// Whose record a conflict is about.
fn owner_of(conflict: &Conflict, record: Option<&Document>) -> Option<String> {
    let schema = conflict.key.kind.schema();
    let sides =
        [conflict.local.as_ref(), conflict.central.as_ref()].map(|side| side.and_then(Bson::as_document));
    let known = [record].into_iter().chain(sides.map(|side| side.filter(|_| conflict.path.is_empty())));
    known.flatten().find_map(|document| schema.owner_of(document))
}

fn is_operator(who: &Principal) -> bool {
    matches!(who.actor, Actor::Operator(_))
}

const ABSENT: &str = "There is no such conflict";

pub(super) fn absent() -> ApiError {
    ApiError::NotFound(ABSENT.into())
}

fn hidden() -> ApiError {
    ApiError::Hidden(ABSENT.into())
}

fn read_record(snapshot: &Snapshot, conflict: &Conflict) -> Result<Option<Document>, ApiError> {
    let record = snapshot.record(&conflict.key)?;
    record.map(|record| to_document(&record.document)).transpose()
}

/// The version of a conflict together with the value that it is about.
fn etag(conflict: &Conflict, current: Option<&Bson>) -> String {
    let mut seen =
        bson::doc! {"id": &conflict.id, "status": conflict.status.name(), "at": conflict.found_at_ms};
    if let Some(current) = current {
        seen.insert("current", current.clone());
    }
    let digest = Sha256::digest(seen.to_vec().unwrap_or_default());
    format!("\"{}\"", hex::encode(&digest[..16]))
}

fn respond(node: &Node, conflict: &Conflict, current: Option<&Bson>) -> Result<Response, ApiError> {
    Ok(respond_with(shown(node, conflict, current), &etag(conflict, current)))
}

fn respond_with(shown: Value, etag: &str) -> Response {
    let mut response = super::json(shown);
    if let Ok(tag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// One conflict as clients see it. Absent values have no field; secrets are never shown.
fn shown(node: &Node, conflict: &Conflict, current: Option<&Bson>) -> Value {
    let schema = conflict.key.kind.schema();
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    put("id", json!(conflict.id));
    put("type", json!(conflict.subject.name()));
    put("collection", json!(schema.collection));
    put("record", json!(conflict.key.id));
    put("path", json!(conflict.path));
    put("stands", json!(stands_name(conflict.stands)));
    put("status", json!(conflict.status.name()));
    put("author", json!(conflict.author));
    put("found_at", json!(crate::sync::time_text(conflict.found_at_ms)));
    put("etag", json!(etag(conflict, current)));
    if let Some(resolution) = &conflict.resolution {
        put("resolution", json!(resolution));
        put("resolved_by", json!(conflict.resolved_by));
        put("resolved_at", json!(conflict.resolved_at_ms.map(crate::sync::time_text)));
    }
    if !conflict.notes.is_empty() {
        put("notes", shown_notes(node, conflict));
    }
    if conflict.is_secret() {
        put("secret", json!(true));
        return Value::Object(fields);
    }
    let values = [
        ("base", conflict.base.as_ref()),
        ("local", conflict.local.as_ref()),
        ("central", conflict.central.as_ref()),
        ("current", current),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            put(name, shown_value(node, conflict, value));
        }
    }
    Value::Object(fields)
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

pub(crate) async fn resolve(
    State(node): State<Arc<Node>>,
    caller: Caller,
    at: At,
    headers: HeaderMap,
    body: Sent,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Post, "conflicts")?;
    let found = find(&node, &caller, at.id())?;
    // Also an answer that carries nothing out shows both values.
    node.store.note(found.seen(&node)?.event(&caller.principal.actor).at(caller.from()));
    let body = body.0?;
    let _claim = node.store.claim(body.len() as u64)?;
    let body = parse_object(&body)?;
    let (conflict, current) = match found {
        Found::Value(conflict, current) => (conflict, current),
        Found::Identity(case) => {
            let case = holds::resolve(&node, &caller, case, &headers, &body).await?;
            return Ok(respond_with(case.shown(&node), &case.etag()));
        }
        Found::Duplicate(_) => {
            let message = "Both records are at the centre: correct or delete one of them";
            return Err(ApiError::invalid("", message));
        }
    };
    let decision = parse_decision(&conflict, current.as_ref(), &body)?;
    check_seen(&node, &conflict, current.as_ref(), &headers, &body)?;
    let (acl, who, store) = (node.acl(), caller.principal.clone(), node.store.clone());
    let check = move |conflict: &Conflict, old: Option<&Document>, new: Option<&Document>| {
        check_allowed(&acl, &who, conflict, old, new)?;
        check_deletable(&store, conflict, old, new)
    };
    let actor = caller.principal.actor.clone();
    match carry_out(&node.store, at.id(), decision, current, actor, check).await {
        Ok(conflict) => {
            let record = read_record(&*node.store.read()?, &conflict)?;
            respond(&node, &conflict, current_value(&conflict, record.as_ref()).as_ref())
        }
        Err(ResolveError::Unknown) => Err(absent()),
        Err(ResolveError::Resolved(conflict)) => {
            Err(moved(&node, &conflict, None, "The conflict has been resolved already"))
        }
        Err(ResolveError::Moved { conflict, current }) => {
            Err(moved(&node, &conflict, current.as_ref(), "The value has changed meanwhile"))
        }
        Err(ResolveError::Invalid { field, .. }) if field == FORBIDDEN => Err(ApiError::Forbidden),
        Err(ResolveError::Invalid { field, message }) => Err(ApiError::Invalid { field, message }),
        Err(ResolveError::Held { conflict }) => Err(ApiError::DecisionPending { conflict }),
        Err(ResolveError::Store(error)) => Err(error.into()),
    }
}

/// Marks a refusal that is about rights rather than content.
const FORBIDDEN: &str = "$forbidden";

fn moved(node: &Node, conflict: &Conflict, current: Option<&Bson>, message: &str) -> ApiError {
    ApiError::Conflict { message: message.into(), current: shown(node, conflict, current) }
}

fn parse_decision(
    conflict: &Conflict,
    current: Option<&Bson>,
    body: &Map<String, Value>,
) -> Result<Decision, ApiError> {
    match (body.get("take"), body.get("value")) {
        (Some(Value::String(side)), None) if side == "local" => Ok(Decision::TakeLocal),
        (Some(Value::String(side)), None) if side == "central" => Ok(Decision::TakeCentral),
        // Passwords are not shown, so nobody can have seen what they would write over; and this way round
        // they would not be hashed.
        (None, Some(_)) if conflict.is_secret() => {
            Err(ApiError::invalid("value", "value: of this field only one of the two sides can be taken"))
        }
        (None, Some(value)) => {
            let value = adopt(value, current.or(conflict.base.as_ref()), &conflict.path.join("."))?;
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
    node: &Node,
    conflict: &Conflict,
    current: Option<&Bson>,
    headers: &HeaderMap,
    body: &Map<String, Value>,
) -> Result<(), ApiError> {
    let is_current = match (names_etag(headers, header::IF_MATCH, &etag(conflict, current)), body.get("seen"))
    {
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
    Err(moved(node, conflict, current, message))
}

/// A decision needs the right to make the same change directly.
fn check_allowed(
    acl: &Acl,
    who: &Principal,
    conflict: &Conflict,
    old: Option<&Document>,
    new: Option<&Document>,
) -> Result<(), ResolveError> {
    let forbidden = || ResolveError::Invalid { field: FORBIDDEN.into(), message: "not allowed".into() };
    let schema = conflict.key.kind.schema();
    let verb = match (old, new) {
        (old, new) if old == new => return Ok(()),
        (_, None) => Verb::Delete,
        (None, Some(_)) => Verb::Post,
        _ => Verb::Patch,
    };
    if !is_operator(who) {
        let owner = old.or(new).and_then(|document| schema.owner_of(document));
        let target = match (conflict.key.kind, &owner) {
            (Kind::Person, Some(person)) => Target::PathPerson(person),
            _ => Target::Record { owner: owner.as_deref() },
        };
        acl.authorize(who, verb, schema.item_acl(), schema.kind, target).map_err(|_| forbidden())?;
    }
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

/// A person goes only as DELETE would let them go.
fn check_deletable(
    store: &Store,
    conflict: &Conflict,
    old: Option<&Document>,
    new: Option<&Document>,
) -> Result<(), ResolveError> {
    let (Kind::Person, Some(person), None) = (conflict.key.kind, old, new) else {
        return Ok(());
    };
    let snapshot = store.read()?;
    if let Some(hold) = snapshot.hold(&conflict.key.id)? {
        return Err(ResolveError::Held { conflict: hold.conflict });
    }
    if !matches!(person.get("active"), Some(Bson::Boolean(false))) {
        return Err(ResolveError::Invalid { field: "active".into(), message: "The user is active.".into() });
    }
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Person) {
        if !snapshot.list_of(kind, &conflict.key.id, None, 1, 1)?.records.is_empty() {
            let message = "The user has records of their own.".into();
            return Err(ResolveError::Invalid { field: String::new(), message });
        }
    }
    Ok(())
}
