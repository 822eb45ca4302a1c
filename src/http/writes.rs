//! Floor 4. Writes that come too fast, or bring too much: 429 before they cost anybody a place in the audit trail or on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};

use super::caller::Caller;
use super::error::ApiError;
use super::{Node, Way};
use crate::accounts::Writer;
use crate::domain::access::{Actor, Principal};

/// The answer of the handler, unless the caller has no write left. Only what changes something counts.
pub(crate) async fn go(node: &Arc<Node>, way: Way<'_>, caller: &Caller, request: Request) -> Response {
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

/// What the account of a request may send: among its extensions, asked where bodies are read.
#[derive(Clone)]
pub(crate) struct Allowance(Arc<Sender>);

struct Sender {
    node: Arc<Node>,
    who: String,
    writer: Writer,
    taken: AtomicU64,
}

impl Allowance {
    /// Refuses a body of which so many bytes are announced, before it comes.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), ApiError> {
        let Sender { node, who, writer, .. } = &*self.0;
        let checked = node.accounts.writes().check_bytes(who, *writer, bytes);
        checked.map_err(|retry_after_s| ApiError::TooManyBytes { retry_after_s })
    }

    /// Counts a body that has come, as many bytes as it has without its content coding.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), ApiError> {
        let Sender { node, who, writer, taken } = &*self.0;
        let took = node.accounts.writes().take_bytes(who, *writer, bytes);
        took.map_err(|retry_after_s| ApiError::TooManyBytes { retry_after_s })?;
        taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

async fn counted(node: &Arc<Node>, way: Way<'_>, caller: &Caller, mut request: Request) -> Response {
    let who = caller.principal.actor.to_string();
    let writer = writer(node, &caller.principal);
    if let Err(retry_after_s) = node.accounts.writes().take(&who, writer) {
        return ApiError::TooManyWrites { retry_after_s }.into_response();
    }
    let sender = Arc::new(Sender { node: Arc::clone(node), who, writer, taken: AtomicU64::new(0) });
    request.extensions_mut().insert(Allowance(Arc::clone(&sender)));
    let response = way.go(node, Some(caller), request).await;
    if !response.status().is_success() {
        node.accounts.writes().give_back(&sender.who, sender.taken.load(Ordering::Relaxed));
    }
    response
}
