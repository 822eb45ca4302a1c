//! Floor 4. What surrounds the handler of a request whose caller is known: its place, its right to write, the audit trail,
//! and the rights of the caller in the moment in which the answer is given.
//!
//! All of it is here, so that no handler can forget it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::BoxFuture;

use crate::domain::access::Actor;
use crate::http::access::caller::Caller;
use crate::http::access::rights::Rights;
use crate::http::access::write_quota::Allowance;
use crate::http::audit_observer::{AuditEvent, AuditObserver};
use crate::http::auth::emergency;
use crate::http::bodies::answer_budget::AnswerBudget;
use crate::http::bodies::arrivals::Received;
use crate::http::error::{ApiError, Overloaded};
use crate::http::middleware::long_answer::guarded;
use crate::http::routes::RouteMatch;
use crate::http::state::app_state::AppState;
use crate::http::sync::conflict_rights::without_questions;
use crate::store::{Asker, Charge, Right, asked_by};

/// A read that takes longer looks at the rights of the reader once more before it is answered.
const LONG_READ: Duration = Duration::from_millis(100);

/// The answer to a caller who has been let in.
pub(crate) async fn answer(
    node: &Arc<AppState>,
    route: RouteMatch<'_>,
    mut caller: Caller,
    request: Request,
) -> Response {
    let began = Instant::now();
    caller.answer = AnswerBudget::of(&request);
    let observer = AuditObserver::of(&request, route.pattern);
    if let Some(waiting) = waits_for_room(&caller, &request)
        && let Err(error) = waited(node, &caller, waiting).await
    {
        return observer.note_answer(node, &caller, error.into_response()).await;
    }
    let asked = (request.method().clone(), route.pattern);
    let is_read = [Method::GET, Method::HEAD].contains(&asked.0);
    let response = if is_read {
        read(node, route, &caller, began, request).await
    } else {
        // Longer, so not a part of what every read carries along.
        Box::pin(write(node, route, &caller, request)).await
    };
    let response = without_questions(node, &caller, response);
    if let Some(bytes) = response.body().size_hint().exact() {
        caller.answer.made(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    let response = observer.note_answer(node, &caller, response).await;
    // It may have waited for the disk. A refusal is in the audit trail too.
    let response = match check_shown(node, &caller, is_read, began, &response) {
        Ok(()) => response,
        Err(error) => observer.note_answer(node, &caller, error.into_response()).await,
    };
    guarded(node, &caller, asked, response)
}

/// Counts the request for the account; a wait where that has no room.
fn waits_for_room(caller: &Caller, request: &Request) -> Option<BoxFuture<'static, Result<(), Overloaded>>> {
    request.extensions().get::<Received>()?.0.known_as(&caller.principal.actor)
}

/// A caller who has waited may have lost the right to ask.
async fn waited(
    node: &Arc<AppState>,
    caller: &Caller,
    waiting: BoxFuture<'static, Result<(), Overloaded>>,
) -> Result<(), ApiError> {
    waiting.await.map_err(|_| ApiError::Overloaded)?;
    Rights::of(node, caller).check_now()
}

/// A read takes effect when it is answered. A short one is answered by the rights with which it was let in.
async fn read(
    node: &Arc<AppState>,
    route: RouteMatch<'_>,
    caller: &Caller,
    began: Instant,
    request: Request,
) -> Response {
    let asker = Asker {
        who: caller.principal.actor.clone(),
        from: caller.from(),
        right: Right::ReadOnly,
        charge: Charge::default(),
    };
    let response = asked_by(asker, route.answer(node, Some(caller), request)).await;
    if began.elapsed() < LONG_READ {
        return response;
    }
    match Rights::of(node, caller).check_now() {
        Ok(()) => response,
        Err(error) => error.into_response(),
    }
}

/// An error if the caller may not be shown any more what is in the answer to a read, or to a write that has changed nothing
/// ([`AuditEvent`]). The answer to any other write says what has been done: it is given whatever was taken since.
fn check_shown(
    node: &Arc<AppState>,
    caller: &Caller,
    is_read: bool,
    began: Instant,
    response: &Response,
) -> Result<(), ApiError> {
    let seen = response.extensions().get::<AuditEvent>();
    let is_shown = response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED;
    if !is_shown || !(is_read || seen.is_some()) {
        return Ok(());
    }
    // What an emergency shows has always waited for the disk.
    let opening = seen.and_then(AuditEvent::opening);
    if opening.is_none() && began.elapsed() < LONG_READ {
        return Ok(());
    }
    Rights::of(node, caller).check_now()?;
    opening.map_or(Ok(()), |opening| emergency::check_open(node, opening))
}

/// A write takes effect when it is written, which the store compares, and in everything else that it does when its body has
/// been read.
async fn write(
    node: &Arc<AppState>,
    route: RouteMatch<'_>,
    caller: &Caller,
    mut request: Request,
) -> Response {
    let rights = Arc::new(Rights::of(node, caller));
    request.extensions_mut().insert(Arc::clone(&rights));
    let right = Right::Client(rights);
    let asker =
        Asker { who: caller.principal.actor.clone(), from: caller.from(), right, charge: Charge::default() };
    asked_by(asker, within_quota(node, route, caller, request)).await
}

/// The answer of the handler, unless the caller has no write left. Only what changes something counts.
async fn within_quota(
    node: &Arc<AppState>,
    route: RouteMatch<'_>,
    caller: &Caller,
    request: Request,
) -> Response {
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    // The operator of the machine has no limit.
    if is_read || matches!(caller.principal.actor, Actor::Operator(_)) {
        return route.answer(node, Some(caller), request).await;
    }
    Box::pin(counted(node, route, caller, request)).await
}

async fn counted(
    node: &Arc<AppState>,
    route: RouteMatch<'_>,
    caller: &Caller,
    mut request: Request,
) -> Response {
    let allowance = match Allowance::take_write(node, caller) {
        Ok(allowance) => allowance,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(allowance.clone());
    let response = route.answer(node, Some(caller), request).await;
    if !response.status().is_success() {
        allowance.give_back();
    }
    response
}
