//! Floor 4. The node about itself: welcome page, health, login check, reconciliation.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::conflict_rights::status_for;
use super::emergency;
use super::error::ApiError;
use super::extract::Sent;
use super::witness::Seen;
use super::workload;
use super::{BrowserSessions, Node};
use crate::domain::access::{Scope, Verb};
use crate::domain::json::parse_body;
use crate::store::unless_unreadable;
use crate::sync::{Status, damaged};

const WELCOME: &str = include_str!("pages/welcome.html");
const SESSION_LINK: &str = "<p><a href=\"/session\">Log in with this browser</a></p>\n";
/// Pages load nothing and run nothing.
pub(crate) const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

pub(crate) fn page(status: StatusCode, html: String) -> Response {
    let mut response = (status, Html(html)).into_response();
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    // With "no-referrer" browsers would send forms with the origin "null".
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

pub(crate) async fn welcome(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let has_sessions = node.settings.browser_sessions.for_request(&headers) == BrowserSessions::On;
    let session = if has_sessions { SESSION_LINK } else { "" };
    let html = WELCOME.replace("{{session}}", session).replace("{{version}}", env!("CARGO_PKG_VERSION"));
    page(StatusCode::OK, html)
}

/// The process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers.
pub(crate) async fn readyz(State(node): State<Arc<Node>>) -> Response {
    if node.store.has_given_up() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store takes nothing any more\n")
            .into_response();
    }
    match node.store.read().and_then(|snapshot| snapshot.is_empty()) {
        // It serves, if only readers: nothing is gained by sending them elsewhere.
        Ok(_) if node.store.shortage().is_some() => "ready, but the disk is nearly full\n".into_response(),
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

/// Whole tables are looked through for it, so it has its turn among what takes long.
async fn status_now(node: &Arc<Node>, caller: &Caller) -> Result<Status, ApiError> {
    let work = workload::take_for_list(node, caller).await?;
    Ok(work.run(|| node.sync.status())?)
}

/// How the reconciliation stands, and what has to be reviewed: how much, and for root and the operator what.
pub(crate) async fn sync_status(State(node): State<Arc<Node>>, caller: Caller) -> Result<Response, ApiError> {
    let scope = node.acl().authorize_node(&caller.principal, Verb::Get, "sync")?;
    let mut status = json!(status_now(&node, &caller).await?);
    let emergencies = match scope {
        Scope::Everyone => node.store.read()?.emergencies_count()?,
        Scope::Own => {
            let own = caller.principal.actor.to_string();
            node.store.read()?.emergencies()?.iter().filter(|row| row.who == own).count() as u64
        }
    };
    status["emergencies_unreviewed"] = json!(emergencies);
    let mut status = status_for(&node, &caller, scope, status).await?;
    if !caller.principal.administers() {
        return Ok(super::json(status));
    }
    let rows = node.store.damaged_rows();
    if let (Some(named), Some(message)) = (damaged::named(&rows), status["message"].as_str()) {
        status["message"] = json!(format!("{message} {named}"));
    }
    let rows = rows.into_iter().map(|row| {
        let kind = row.kind.map(|kind| kind.schema().collection);
        json!({"table": row.table, "kind": kind, "id": row.id})
    });
    status["damaged_rows"] = rows.collect();
    status["bits_put_right"] = match unless_unreadable(node.store.bits_put_right())? {
        Some(Some(found)) => {
            json!({"bits": found.bits, "blocks": found.blocks, "last_at": crate::sync::time_text(found.last_ms)})
        }
        Some(None) => json!(null),
        None => json!({"unreadable": true}),
    };
    let unreviewed = emergency::unreviewed(&node)?;
    let is_any = !unreviewed.is_empty();
    status["emergencies"] = json!(unreviewed);
    let response = super::json(status);
    Ok(if is_any { Seen::other("emergencies", None).on(response) } else { response })
}

/// Runs a round or joins the one that is running; with `{"verify": true}` the next rounds also look at
/// everything that the centre holds.
pub(crate) async fn sync_round(
    State(node): State<Arc<Node>>,
    caller: Caller,
    body: Sent,
) -> Result<Response, ApiError> {
    let scope = node.acl().authorize_node(&caller.principal, Verb::Post, "sync")?;
    let body = body.0?;
    if !body.is_empty() {
        match parse_body(&body)?.get("verify") {
            Some(serde_json::Value::Bool(true)) => node.sync.ask_for_verification().await?,
            Some(serde_json::Value::Bool(false)) | None => {}
            Some(_) => return Err(ApiError::invalid("verify", "verify: must be true or false")),
        }
    }
    let report = node.sync.round().await;
    if !caller.principal.administers() {
        return Ok(super::json(status_for(&node, &caller, scope, json!(report)).await?));
    }
    let mut report = json!(report);
    if let (Some(named), Some(message)) =
        (damaged::named(&node.store.damaged_rows()), report["message"].as_str())
    {
        report["message"] = json!(format!("{message} {named}"));
    }
    Ok(super::json(report))
}

pub(crate) async fn sync_pause(State(node): State<Arc<Node>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "sync")?;
    node.sync.pause(&caller.principal.actor).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Ends a pause. With a body it also answers a halt: `{"accept_deletes": true}`, the records whose delete waits
/// may go, on both sides; `{"restore_deleted": true}`, they are wanted back; `{"centre_restored": true}`, the
/// centre is meant to be as it is.
pub(crate) async fn sync_resume(
    State(node): State<Arc<Node>>,
    caller: Caller,
    body: Sent,
) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "sync")?;
    let body = body.0?;
    let answers = if body.is_empty() { Map::new() } else { parse_body(&body)? };
    if answers.len() > 1 {
        return Err(ApiError::invalid("", "there can be only one answer at a time"));
    }
    for (answer, value) in &answers {
        if *value != Value::Bool(true) {
            return Err(ApiError::invalid(answer, format!("{answer}: must be true")));
        }
        match answer.as_str() {
            "accept_deletes" => node.sync.accept_deletes().await?,
            "restore_deleted" => {
                node.sync.restore_deleted(caller.principal.actor.clone()).await?;
            }
            "centre_restored" => {
                if !node.sync.centre_restored().await? {
                    return Err(ApiError::Conflict {
                        message: "The centre was not found to be older than this node knows it".into(),
                        current: json!(status_now(&node, &caller).await?),
                    });
                }
            }
            _ => return Err(ApiError::invalid(answer, "there is no such answer to a halt")),
        }
    }
    node.sync.resume().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
