//! Floor 4. Answers that take long to send: they are sent in pieces, and before each piece the rights of the reader are
//! compared again.
//!
//! A slow reader may take hours for one large record. Answers of at most [`PIECE_BYTES`] go out as they are: they were
//! complete when they began.

use std::sync::{Arc, Weak};

use axum::body::{Body, HttpBody as _};
use axum::http::Method;
use axum::response::Response;

use crate::domain::audit::{Event, Outcome, What};
use crate::http::access::caller::Caller;
use crate::http::access::rights::Rights;
use crate::http::audit_observer::AuditEvent;
use crate::http::bodies::pieces::{PieceRule, Pieces};
use crate::http::extract::Pattern;
use crate::http::state::app_state::AppState;
use crate::store::{Snapshot, Stale, StoreError};

/// Most bytes that are sent before the rights are compared again.
pub const PIECE_BYTES: usize = 64 << 10;

/// The answer, which ends as a broken one as soon as its reader may not have it any more. `asked`: by which method, of which
/// path.
pub(crate) fn guarded(
    node: &Arc<AppState>,
    caller: &Caller,
    asked: (Method, Pattern),
    response: Response,
) -> Response {
    // The operator of the machine has no rights that could end.
    if is_short(&response) || !caller.principal.actor.has_account() {
        return response;
    }
    let rights = Rights::of_answer(node, caller);
    let opening = response.extensions().get::<AuditEvent>().and_then(AuditEvent::opening);
    let guard = Guard { rights, opening, checked: Weak::new(), asked };
    response.map(|body| Body::new(Pieces::new(body, guard)))
}

fn is_short(response: &Response) -> bool {
    response.body().size_hint().exact().is_some_and(|bytes| bytes <= PIECE_BYTES as u64)
}

/// Compares the rights of the reader of an answer again.
struct Guard {
    rights: Rights,
    /// The emergency under which the answer is read.
    opening: Option<u64>,
    /// The view for which the account was compared.
    checked: Weak<Snapshot>,
    asked: (Method, Pattern),
}

impl PieceRule for Guard {
    const BYTES_MAX: usize = PIECE_BYTES;

    fn check(&mut self) -> Result<(), axum::Error> {
        self.check_rights().map_err(axum::Error::new)
    }
}

impl Guard {
    fn check_rights(&mut self) -> std::io::Result<()> {
        let Err(stale) = self.compare().map_err(std::io::Error::other)? else {
            return Ok(());
        };
        let (node, caller) = (self.rights.node(), self.rights.caller());
        let event = Event::new(What::Denied, &caller.principal.actor).at(caller.from());
        let (method, pattern) = &self.asked;
        node.store.note(event.ended(Outcome::Stale).saying(&format!("{method} {pattern}")));
        Err(std::io::Error::other(stale))
    }

    fn compare(&mut self) -> Result<Result<(), Stale>, StoreError> {
        let node = self.rights.node();
        let view = node.store.read()?;
        let is_same_view = std::ptr::eq(self.checked.as_ptr(), Arc::as_ptr(&view));
        let compared = match is_same_view {
            true => self.rights.compare_by_time(&view)?,
            false => self.rights.compare_with(&view)?,
        };
        if compared.is_err() {
            return Ok(compared);
        }
        if let Some(opening) = self.opening {
            let row = view.emergency(opening)?;
            let is_over = row.is_none_or(|row| row.is_ended) || !node.accounts.openings().is_open(opening);
            if is_over {
                return Ok(Err(Stale::Emergency));
            }
        }
        self.checked = Arc::downgrade(&view);
        Ok(Ok(()))
    }
}
