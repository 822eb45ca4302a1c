//! Floor 4. `GET /authorization`: what the caller may do here, for other services to ask before they do
//! something in a person's name.
//!
//! Says no more about records than the request in question would, and says what roles allow: of an emergency that
//! somebody has opened other services learn nothing here, because what they do in it would not be audited.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::domain::access::{Acl, Actor, Denied, Principal, Target, Verb};
use crate::domain::schema::{Owner, Route, SCHEMAS, Schema, Shape};
use crate::http::access::caller::Caller;
use crate::http::admin::audit_trail;
use crate::http::auth::password_form;
use crate::http::error::ApiError;
use crate::http::extract::{form_pairs, query_pairs};
use crate::http::response;
use crate::http::state::app_state::AppState;

/// What a path of the node itself asks for.
#[derive(Clone, Copy)]
enum Needs {
    Login,
    Name(&'static str),
    /// The name in a role with `global`.
    Global(&'static str),
    /// The same, and to be root or the operator.
    Administer(&'static str),
    /// The right to the form for this person's password.
    Password,
    /// The right to the trail of the person in the query, or of everybody.
    Audit,
}

/// The paths that are not in the schema.
const NODE_PATHS: &[(Verb, &str, Needs)] = &[
    (Verb::Get, "/", Needs::Login),
    (Verb::Get, "/healthz", Needs::Login),
    (Verb::Get, "/readyz", Needs::Login),
    (Verb::Get, "/login", Needs::Login),
    (Verb::Get, "/authorization", Needs::Login),
    (Verb::Get, "/password/{person_id}", Needs::Password),
    (Verb::Post, "/password/{person_id}", Needs::Password),
    (Verb::Get, "/changes", Needs::Name("changes")),
    (Verb::Get, "/audit", Needs::Audit),
    (Verb::Get, "/users", Needs::Global("users")),
    (Verb::Post, "/users/{id}", Needs::Administer("users")),
    (Verb::Post, "/users/{id}/password", Needs::Administer("users")),
    (Verb::Get, "/emergencies", Needs::Administer("users")),
    (Verb::Post, "/emergencies/{id}/review", Needs::Administer("users")),
    (Verb::Get, "/sync/status", Needs::Name("sync")),
    (Verb::Post, "/sync/rounds", Needs::Name("sync")),
    (Verb::Post, "/sync/pause", Needs::Global("sync")),
    (Verb::Post, "/sync/resume", Needs::Global("sync")),
    (Verb::Get, "/sync/conflicts", Needs::Name("conflicts")),
    (Verb::Get, "/sync/conflicts/{id}", Needs::Name("conflicts")),
    (Verb::Post, "/sync/conflicts/{id}/resolution", Needs::Name("conflicts")),
    (Verb::Post, "/sync/conflicts/{id}/resolution/trial", Needs::Name("conflicts")),
    (Verb::Post, "/sync/conflicts/trial", Needs::Name("conflicts")),
    (Verb::Get, "/sync/waiting", Needs::Global("sync")),
    (Verb::Get, "/sync/dead", Needs::Global("sync")),
    (Verb::Post, "/sync/dead/{id}/retry", Needs::Global("sync")),
    (Verb::Post, "/sync/damaged/{id}/set-aside", Needs::Administer("sync")),
    (Verb::Get, "/trash", Needs::Name("trash")),
    (Verb::Get, "/trash/{id}", Needs::Name("trash")),
    (Verb::Post, "/trash/{id}/restore", Needs::Name("trash")),
];

pub(crate) async fn authorization(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut method, mut path) = (None, None);
    for (name, value) in query_pairs(request.uri()) {
        match name.as_str() {
            "method" => method = Verb::of_method(&value),
            "path" => path = Some(value),
            _ => {}
        }
    }
    let verb =
        method.ok_or_else(|| ApiError::invalid("method", "method: GET, HEAD, POST, PATCH, PUT or DELETE"))?;
    let path = path.ok_or_else(|| ApiError::invalid("path", "path: the path in question"))?;
    let actor = &caller.principal.actor;
    let user = actor.login_name().unwrap_or_else(|| actor.to_string());
    let decision = decide(&node, &caller.principal, verb, &path)?;
    let reason = match decision {
        Ok(()) => "allowed",
        Err(Refusal::Denied(Denied::Forbidden)) => "no role of this account allows it",
        Err(Refusal::Denied(Denied::Hidden)) => "there is no such record for this account",
        Err(Refusal::NoPath) => "there is nothing at this path",
        Err(Refusal::NoMethod) => "the path does not know the method",
    };
    Ok(response::json(json!({
        "user": user,
        "roles": caller.principal.roles,
        "allowed": decision.is_ok(),
        "reason": reason,
    })))
}

enum Refusal {
    NoPath,
    NoMethod,
    Denied(Denied),
}

fn decide(node: &AppState, who: &Principal, verb: Verb, path: &str) -> Result<Result<(), Refusal>, ApiError> {
    let acl = node.acl();
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let segments: Vec<String> = path
        .strip_prefix('/')
        .map(|path| {
            path.split('/').map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    for schema in &SCHEMAS {
        for route in schema.routes {
            if let Some(parts) = match_path(route.path, &segments) {
                return decide_record(node, &acl, who, verb, (schema, route), &parts);
            }
        }
    }
    let mut refusal = Refusal::NoPath;
    for (known_verb, pattern, needs) in NODE_PATHS {
        match match_path(pattern, &segments) {
            Some(mut parts) if *known_verb == verb => {
                let named = form_pairs(query.as_bytes()).into_iter().rfind(|(name, _)| name == "person");
                let named = named.map(|(_, person)| person);
                parts.person = parts.person.or(named.as_deref());
                return Ok(decide_node(&acl, who, verb, *needs, &parts).map_err(Refusal::Denied));
            }
            Some(_) => refusal = Refusal::NoMethod,
            None => {}
        }
    }
    Ok(Err(refusal))
}

fn decide_node(
    acl: &Acl,
    who: &Principal,
    verb: Verb,
    needs: Needs,
    parts: &Parts<'_>,
) -> Result<(), Denied> {
    match needs {
        Needs::Login => Ok(()),
        Needs::Name(name) => acl.authorize_node(who, verb, name).map(|_| ()),
        Needs::Global(name) => acl.authorize_global(who, verb, name),
        Needs::Administer(name) => {
            acl.authorize_global(who, verb, name)?;
            if who.administers() { Ok(()) } else { Err(Denied::Forbidden) }
        }
        Needs::Audit => audit_trail::authorize(acl, who, parts.person),
        Needs::Password => password_form::authorize(acl, who, verb, parts.person.unwrap_or_default()),
    }
}

fn decide_record(
    node: &AppState,
    acl: &Acl,
    who: &Principal,
    verb: Verb,
    (schema, route): (&Schema, &Route),
    parts: &Parts<'_>,
) -> Result<Result<(), Refusal>, ApiError> {
    let is_offered = match route.shape {
        Shape::Collection | Shape::OfPerson | Shape::OfPage => verb == Verb::Get,
        Shape::Content => matches!(verb, Verb::Get | Verb::Put),
        Shape::Item | Shape::ItemOfPerson => true,
    };
    if !is_offered {
        return Ok(Err(Refusal::NoMethod));
    }
    // Uploading changes the document.
    let verb = if route.shape == Shape::Content && verb == Verb::Put { Verb::Patch } else { verb };
    let owner;
    let target = match (parts.person, parts.id) {
        (Some(person), _) => Target::PathPerson(person),
        (None, None) => {
            return Ok(acl.authorize_list(who, schema.kind, route.acl).map(|_| ()).map_err(Refusal::Denied));
        }
        (None, Some(id)) => {
            owner = match (verb, owner_of(node, schema, id)?) {
                // About creating a record: its owner would be in the body.
                (Verb::Post, _) | (Verb::Put, None) => own_account(who, schema),
                (_, owner) => owner,
            };
            Target::Record { owner: owner.as_deref() }
        }
    };
    let decide = |target| acl.authorize(who, verb, route.acl, schema.kind, target).map(|_| ());
    let decision = match (decide(target), verb) {
        // As for a record that is not there: PUT would make one, and only an attempt tells that it cannot.
        (Err(Denied::Hidden), Verb::Put) => {
            decide(Target::Record { owner: own_account(who, schema).as_deref() })
        }
        (decision, _) => decision,
    };
    Ok(decision.map_err(Refusal::Denied))
}

fn own_account(who: &Principal, schema: &Schema) -> Option<String> {
    match &who.actor {
        Actor::Person(id) if schema.owner != Owner::Nobody => Some(id.clone()),
        _ => None,
    }
}

fn owner_of(node: &AppState, schema: &Schema, id: &str) -> Result<Option<String>, ApiError> {
    let view = node.store.read()?;
    if let Some(noted) = view.noted_owner(schema.kind, id)? {
        return Ok(noted.account().map(str::to_owned));
    }
    let record = view.find(schema.kind, id)?;
    Ok(record.and_then(|record| schema.owner_in(&record.document)))
}

/// The variable parts of a path that fits a pattern.
#[derive(Default)]
struct Parts<'a> {
    person: Option<&'a str>,
    id: Option<&'a str>,
}

fn match_path<'a>(pattern: &str, segments: &'a [String]) -> Option<Parts<'a>> {
    let mut parts = Parts::default();
    let mut pattern = pattern.trim_start_matches('/').split('/');
    for segment in segments {
        match pattern.next()? {
            "{person_id}" if !segment.is_empty() => parts.person = Some(segment),
            "{id}" if !segment.is_empty() => parts.id = Some(segment),
            literal if literal == segment => {}
            _ => return None,
        }
    }
    pattern.next().is_none().then_some(parts)
}
