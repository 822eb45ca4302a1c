//! Floor 4. Records that the centre refused, or that could not be taken from it, over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Node;
use super::caller::Caller;
use super::error::ApiError;
use super::extract::At;
use crate::domain::access::Verb;
use crate::domain::record::{Kind, RecordKey};

pub(crate) async fn list(State(node): State<Arc<Node>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Get, "sync")?;
    let letters = node.store.read()?.dead_letters()?;
    let shown: Vec<Value> = letters
        .iter()
        .map(|letter| {
            json!({
                "id": dead_id(&letter.key),
                "collection": letter.key.kind.schema().collection,
                "record": letter.key.id,
                "direction": letter.direction,
                "code": letter.code,
                "reason": letter.reason,
                "at": crate::sync::time_text(letter.at_ms),
            })
        })
        .collect();
    Ok(super::json(shown))
}

/// A dead letter is named by its record: `people:ESPGNU777ORG`.
fn dead_id(key: &RecordKey) -> String {
    format!("{}:{}", key.kind.schema().collection, key.id)
}

pub(crate) async fn retry(
    State(node): State<Arc<Node>>,
    caller: Caller,
    at: At,
) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "sync")?;
    let absent = || ApiError::NotFound("There is no such refused record".into());
    let (collection, record) = at.id().split_once(':').ok_or_else(absent)?;
    let kind = Kind::from_collection(collection).ok_or_else(absent)?;
    let key = RecordKey::new(kind, record);
    let was_dead = node.store.transact(move |tx| tx.retry_dead(&key)).await?;
    if was_dead { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(absent()) }
}
