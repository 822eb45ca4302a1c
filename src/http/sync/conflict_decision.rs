//! Floor 4. Parses a decision about a conflict, and checks the right to make it.

use bson::{Bson, Document};
use serde_json::{Map, Value};

use crate::domain::access::{Acl, Principal, Target, Verb};
use crate::domain::content::has_content;
use crate::domain::edit::{self, Editor};
use crate::domain::json::adopt_like;
use crate::domain::record::Kind;
use crate::domain::record::content::CONTENT_FIELD;
use crate::domain::value::same_option;
use crate::http::access::kept_values::is_operator;
use crate::http::error::ApiError;
use crate::http::records::write_body::{check_size, to_raw};
use crate::http::state::app_state::AppState;
use crate::store::{Conflict, Subject};
use crate::sync::conflicts::{Decision, ResolveError};

pub(crate) const ONLY_VALUES_TRIED: &str = "Only decisions about values and records can be tried";
/// Marks a refusal that is about rights rather than content.
pub(crate) const FORBIDDEN: &str = "$forbidden";
/// Marks a refusal that is about the size of the record.
pub(crate) const TOO_LARGE: &str = "$too_large";

/// A value that somebody types makes the record no larger than a write may.
pub(crate) fn check_decided_size(
    node: &AppState,
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

pub(crate) fn parse_decision(
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

/// A decision needs the right to make the same change directly.
pub(crate) fn check_allowed(
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
