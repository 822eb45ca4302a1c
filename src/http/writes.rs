//! Floor 4. Writes that come too fast: 429 before they cost anybody a place in the audit trail.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{Method, header};
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;

use super::caller::Caller;
use super::error::ApiError;
use super::{Node, Way};
use crate::accounts::Writer;
use crate::domain::access::{Actor, Principal};

const READ_AWAY_BYTES_MAX: usize = 64 * 1024;
/// How long a refused request's body is waited for.
const READ_AWAY: Duration = Duration::from_secs(1);

/// The answer of the handler, unless the caller has no write left. Only what changes something counts.
pub(crate) async fn go(node: &Arc<Node>, way: Way, caller: &Caller, request: Request) -> Response {
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    // The operator of the machine has no limit.
    if is_read || matches!(caller.principal.actor, Actor::Operator(_)) {
        return way.go(node, Some(caller), request).await;
    }
    Box::pin(counted(node, way, caller, request)).await
}

/// Takes a small body off the line: a connection with an unread body cannot be used again, and a client that is told to wait
/// would begin another one for each try.
async fn read_away(request: Request) {
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length <= READ_AWAY_BYTES_MAX) {
        // What is wrong with it is of no interest, nor is what comes slowly.
        let _ = timeout(READ_AWAY, to_bytes(request.into_body(), READ_AWAY_BYTES_MAX)).await;
    }
}

/// As whom somebody writes.
pub(crate) fn writer(node: &Node, who: &Principal) -> Writer {
    if node.acl().reaches_everybody(who) { Writer::Everybody } else { Writer::Own }
}

async fn counted(node: &Arc<Node>, way: Way, caller: &Caller, request: Request) -> Response {
    let who = caller.principal.actor.to_string();
    let writer = writer(node, &caller.principal);
    let writes = node.accounts.writes();
    if let Err(retry_after_s) = writes.take(&who, writer) {
        read_away(request).await;
        return ApiError::TooManyWrites { retry_after_s }.into_response();
    }
    let response = way.go(node, Some(caller), request).await;
    if !response.status().is_success() {
        writes.give_back(&who);
    }
    response
}
