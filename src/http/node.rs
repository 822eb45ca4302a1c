//! Floor 4. The node about itself: welcome page, health, login check, authorization, reconciliation.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;

use super::Node;
use super::caller::Caller;
use super::changes::query_pairs;
use super::error::ApiError;
use crate::domain::access::{Actor, Denied, Target, Verb};
use crate::domain::json::parse_object;
use crate::domain::record::Kind;
use crate::domain::schema::{Owner, Route, SCHEMAS, Schema, Shape};

const WELCOME: &str = include_str!("pages/welcome.html");
/// Pages load nothing and run nothing.
pub(crate) const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

pub(crate) fn page(status: StatusCode, html: String) -> Response {
    let mut response = (status, Html(html)).into_response();
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

pub(crate) async fn welcome() -> Response {
    page(StatusCode::OK, WELCOME.replace("{{version}}", env!("CARGO_PKG_VERSION")))
}

/// The process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers.
pub(crate) async fn readyz(State(node): State<Arc<Node>>) -> Response {
    match node.store.read().and_then(|snapshot| snapshot.is_empty()) {
        Ok(_) => "ready\n".into_response(),
        Err(error) => {
            tracing::error!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
        }
    }
}

pub(crate) async fn login(_: Caller) -> Response {
    super::json(true)
}

pub(crate) async fn sync_status(State(node): State<Arc<Node>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Get, "sync")?;
    Ok(super::json(node.sync.status()?))
}

pub(crate) async fn sync_round(State(node): State<Arc<Node>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Post, "sync")?;
    Ok(super::json(node.sync.round().await))
}

/// `{"accept_deletes": true}`: the records that vanished at the centre may vanish here too.
pub(crate) async fn sync_resume(
    State(node): State<Arc<Node>>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Post, "sync")?;
    let body = parse_object(&super::json_body(body)?)?;
    if body.get("accept_deletes") != Some(&serde_json::Value::Bool(true)) {
        return Err(ApiError::invalid("accept_deletes", "accept_deletes: must be true"));
    }
    node.sync.accept_deletes().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /authorization?method=M&path=P`: what the caller may do here, for other services to ask.
pub(crate) async fn authorization(
    State(node): State<Arc<Node>>,
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
    let verb = method.ok_or_else(|| ApiError::invalid("method", "method: GET, POST, PATCH, PUT or DELETE"))?;
    let path = path.ok_or_else(|| ApiError::invalid("path", "path: the path in question"))?;
    let user = match &caller.principal.actor {
        Actor::Person(id) => id.clone(),
        other => other.to_string(),
    };
    let reason = decide(&node, &caller, verb, &path)?;
    Ok(super::json(json!({
        "user": user,
        "roles": caller.principal.roles,
        "allowed": reason == "allowed",
        "reason": reason,
    })))
}

fn decide(node: &Node, caller: &Caller, verb: Verb, path: &str) -> Result<&'static str, ApiError> {
    let acl = node.acl();
    let who = &caller.principal;
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let denied = |result: Result<(), Denied>| match result {
        Ok(()) => "allowed",
        Err(Denied::Forbidden) => "no role of this account allows it",
        Err(Denied::Hidden) => "there is no such record for this account",
    };
    let found = SCHEMAS.iter().find_map(|schema| {
        schema.routes.iter().find_map(|route| Some((schema, route, match_route(route, &segments)?)))
    });
    let Some((schema, route, params)) = found else {
        let name = match segments[..] {
            ["login"] => "login",
            ["password", person] => {
                let target = Target::PathPerson(person);
                return Ok(denied(acl.authorize(who, verb, "password", Kind::Person, target).map(|_| ())));
            }
            ["changes"] => "changes",
            ["sync", "conflicts", ..] => "conflicts",
            ["sync", ..] => "sync",
            ["users", ..] => "users",
            _ => return Ok("there is nothing at this path"),
        };
        return Ok(denied(acl.authorize_node(who, verb, name).map(|_| ())));
    };
    let verb = if route.shape == Shape::Content && verb == Verb::Put { Verb::Patch } else { verb };
    let result = match (route.shape, params.person, params.id) {
        (Shape::Collection, ..) => acl.authorize_list(who, schema.kind, route.acl).map(|_| ()),
        (_, Some(person), _) => {
            acl.authorize(who, verb, route.acl, schema.kind, Target::PathPerson(person)).map(|_| ())
        }
        (_, None, Some(id)) => {
            let owner = owner_of(node, schema, id)?;
            // Without a record it is about creating one, whose owner the body would name.
            let owner = match (&who.actor, verb, owner) {
                (Actor::Person(own), Verb::Post | Verb::Put, None) if schema.owner != Owner::Nobody => Some(own.clone()),
                (_, _, owner) => owner,
            };
            let target = Target::Record { owner: owner.as_deref() };
            acl.authorize(who, verb, route.acl, schema.kind, target).map(|_| ())
        }
        _ => Err(Denied::Forbidden),
    };
    Ok(denied(result))
}

fn owner_of(node: &Node, schema: &Schema, id: &str) -> Result<Option<String>, ApiError> {
    let record = node.store.read()?.find(schema.kind, id)?;
    Ok(match record {
        Some(record) => schema.owner_of(&super::records::to_document(&record.document)?),
        None => None,
    })
}

struct RouteParams<'a> {
    person: Option<&'a str>,
    id: Option<&'a str>,
}

fn match_route<'a>(route: &Route, segments: &[&'a str]) -> Option<RouteParams<'a>> {
    let pattern: Vec<&str> = route.path.trim_start_matches('/').split('/').collect();
    if pattern.len() != segments.len() {
        return None;
    }
    let mut params = RouteParams { person: None, id: None };
    for (part, segment) in pattern.iter().zip(segments) {
        match *part {
            "{person_id}" => params.person = Some(segment),
            "{id}" => params.id = Some(segment),
            literal if literal == *segment => {}
            _ => return None,
        }
    }
    Some(params)
}
