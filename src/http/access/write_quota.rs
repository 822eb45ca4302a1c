//! Floor 4. Limits the writes and bytes of an account: 429 before they cost a place in the audit trail or on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::accounts::Writer;
use crate::domain::access::Principal;
use crate::http::access::caller::Caller;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;

/// As whom somebody writes.
pub(crate) fn writer(node: &AppState, who: &Principal) -> Writer {
    if node.acl().reaches_everybody(who) { Writer::Everybody } else { Writer::Own }
}

/// What the account of a request may send: among its extensions, asked where bodies are read.
#[derive(Clone)]
pub(crate) struct Allowance(Arc<Sender>);

struct Sender {
    node: Arc<AppState>,
    who: String,
    writer: Writer,
    taken: AtomicU64,
}

impl Allowance {
    /// Takes one write from what the caller's account has left.
    pub(crate) fn take_write(node: &Arc<AppState>, caller: &Caller) -> Result<Allowance, ApiError> {
        let who = caller.principal.actor.to_string();
        let writer = writer(node, &caller.principal);
        let took = node.accounts.writes().take(&who, writer);
        took.map_err(|retry_after_s| ApiError::TooManyWrites { retry_after_s })?;
        Ok(Allowance(Arc::new(Sender { node: Arc::clone(node), who, writer, taken: AtomicU64::new(0) })))
    }

    /// Gives back the write, with the bytes of its body: it changed nothing.
    pub(crate) fn give_back(&self) {
        let Sender { node, who, taken, .. } = &*self.0;
        node.accounts.writes().give_back(who, taken.load(Ordering::Relaxed));
    }

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
