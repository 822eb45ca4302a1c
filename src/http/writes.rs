//! Floor 4. Writes that come too fast: 429 before they cost anybody a place in the audit trail.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};

use super::caller::Caller;
use super::error::ApiError;
use super::{Node, Way};
use crate::accounts::Writer;
use crate::domain::access::{Actor, Principal};

/// The answer of the handler, unless the caller has no write left. Only what changes something counts.
pub(crate) async fn go(node: &Arc<Node>, way: Way, caller: &Caller, request: Request) -> Response {
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    // The operator of the machine has no limit.
    if is_read || matches!(caller.principal.actor, Actor::Operator(_)) {
        return way.go(node, Some(caller), request).await;
    }
    Box::pin(counted(node, way, caller, request)).await
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
        return ApiError::TooManyWrites { retry_after_s }.into_response();
    }
    let response = way.go(node, Some(caller), request).await;
    if !response.status().is_success() {
        writes.give_back(&who);
    }
    response
}
