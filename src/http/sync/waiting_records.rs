//! Floor 4. Records that wait for their person or for a decision instead of being sent, over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use crate::domain::access::Verb;
use crate::http::access::caller::Caller;
use crate::http::error::ApiError;
use crate::http::records::damage::counting_damaged;
use crate::http::response;
use crate::http::state::app_state::AppState;

/// Records in one answer; the status counts all.
const LISTED_MAX: usize = 1_000;

/// Answers with the waiting records by collection and id, and why each waits. No body is shown.
pub(crate) async fn list(State(node): State<Arc<AppState>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Get, "sync")?;
    let waiting = node.store.read()?.waiting(None, LISTED_MAX)?;
    let shown = waiting.into_iter().map(|waiting| {
        json!({
            "collection": waiting.key.kind.schema().collection,
            "record": waiting.key.id,
            "person": waiting.account,
            "why": waiting.why.name(),
            "reason": waiting.why.words(),
        })
    });
    let shown = response::json(shown.collect::<Vec<Value>>());
    Ok(counting_damaged(&node.store.damaged_rows(), &["waiting"], shown))
}
