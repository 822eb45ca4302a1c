//! Floor 4. The reconciliation over HTTP: status, rounds, pause and resume.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use crate::domain::access::{Scope, Verb};
use crate::domain::json::parse_body;
use crate::http::access::caller::Caller;
use crate::http::access::request_body::RequestBody;
use crate::http::audit_observer::AuditEvent;
use crate::http::auth::emergency;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;
use crate::http::sync::conflict_rights::status_for;
use crate::http::{response, workload};
use crate::store::unless_unreadable;
use crate::sync::{Status, damaged};

/// Whole tables are looked through for it, so it has its turn among what takes long.
async fn status_now(node: &Arc<AppState>, caller: &Caller) -> Result<Status, ApiError> {
    let work = workload::take_for_list(node, caller).await?;
    Ok(work.run(|| node.sync.status())?)
}

/// How the reconciliation stands, and what has to be reviewed: how much, and for root and the operator what.
pub(crate) async fn sync_status(
    State(node): State<Arc<AppState>>,
    caller: Caller,
) -> Result<Response, ApiError> {
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
        return Ok(response::json(status));
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
    let response = response::json(status);
    Ok(if is_any { AuditEvent::other("emergencies", None).attach_to(response) } else { response })
}

/// Runs a round or joins the one that is running; with `{"verify": true}` the next rounds also look at
/// everything that the centre holds.
pub(crate) async fn sync_round(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    body: RequestBody,
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
        return Ok(response::json(status_for(&node, &caller, scope, json!(report)).await?));
    }
    let mut report = json!(report);
    if let (Some(named), Some(message)) =
        (damaged::named(&node.store.damaged_rows()), report["message"].as_str())
    {
        report["message"] = json!(format!("{message} {named}"));
    }
    Ok(response::json(report))
}

pub(crate) async fn sync_pause(
    State(node): State<Arc<AppState>>,
    caller: Caller,
) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "sync")?;
    node.sync.pause(&caller.principal.actor).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Ends a pause. With a body it also answers a halt: `{"accept_deletes": true}`, the records whose delete waits
/// may go, on both sides; `{"restore_deleted": true}`, they are wanted back; `{"centre_restored": true}`, the
/// centre is meant to be as it is.
pub(crate) async fn sync_resume(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    body: RequestBody,
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
