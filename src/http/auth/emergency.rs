//! Floor 4. Emergency access: reading one other person's records for a while, for a reason, and answering for it.
//!
//! Asked only where somebody was refused a read; whoever may read anyway opens nothing. An opening is in the audit
//! trail, on disk, before anything is answered, and each read under it as well (see `audit_observer`).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::domain::access::Verb;
use crate::domain::emergency::Reason;
use crate::domain::record::{Kind, fold_account};
use crate::http::access::account::may_administer;
use crate::http::access::caller::Caller;
use crate::http::access::rights::same_rules;
use crate::http::audit_observer::AuditEvent;
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::response;
use crate::http::state::app_state::AppState;
use crate::store::{Emergency, EmergencyError, Stale};

/// Says why a record is needed now.
const REASON: &str = "x-emergency-reason";
const REASON_HEADER: HeaderName = HeaderName::from_static(REASON);

/// Somebody else's records that a refused read is about.
pub(crate) enum Subject<'a> {
    /// The path or the query names the person: there must be one.
    Named(&'a str),
    /// The owner of a record that is there.
    Owner(&'a str),
}

/// The number of the opening under which `caller` may read what belongs to this person; a reason opens one. `None`
/// if there is none: then the refusal stands, and the answer is the same as without any of this.
pub(crate) async fn admit(
    node: &Arc<AppState>,
    caller: &Caller,
    headers: &HeaderMap,
    acl_name: &str,
    subject: Subject<'_>,
) -> Result<Option<u64>, ApiError> {
    if !node.settings.emergency_access || !node.acl().may_open(&caller.principal, acl_name) {
        return Ok(None);
    }
    let (Subject::Named(person) | Subject::Owner(person)) = subject;
    let account = fold_account(person);
    if let Some(id) = present(node, caller, &account)? {
        return Ok(Some(id));
    }
    let Some(reason) = usable_reason(node, caller, headers)? else {
        return Ok(None);
    };
    // Who does not exist cannot be told from who may not be seen.
    if let Subject::Named(person) = subject
        && !node.store.read()?.has(Kind::Person, person)?
    {
        return Ok(None);
    }
    // On its own, so that what is in the trail is also open if the client goes away.
    let opened = tokio::spawn(open(Arc::clone(node), caller.clone(), account, reason));
    opened.await.map_err(|_| ApiError::Internal)?.map(Some)
}

/// What [`admit`] says about the request itself, for paths that lead to nobody's record: a reason that is refused, or a
/// limit that is reached, must not tell records that are hidden from those that do not exist.
pub(crate) fn check(
    node: &AppState,
    caller: &Caller,
    headers: &HeaderMap,
    acl_name: &str,
) -> Result<(), ApiError> {
    if !node.settings.emergency_access || !node.acl().may_open(&caller.principal, acl_name) {
        return Ok(());
    }
    usable_reason(node, caller, headers).map(drop)
}

/// The reason that the request gives, if one more opening may be made for it.
fn usable_reason(node: &AppState, caller: &Caller, headers: &HeaderMap) -> Result<Option<Reason>, ApiError> {
    let reason = given_reason(headers)?;
    if reason.is_some() && !node.store.read()?.may_open_emergency(&caller.principal.actor)? {
        return Err(ApiError::Unreviewed);
    }
    Ok(reason)
}

fn given_reason(headers: &HeaderMap) -> Result<Option<Reason>, ApiError> {
    let invalid =
        |message: &str| ApiError::NoReason { field: REASON, message: format!("{REASON}: {message}") };
    let mut given = headers.get_all(REASON_HEADER).iter();
    let Some(reason) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(invalid("must be there only once"));
    }
    Reason::parse(reason.as_bytes()).map(Some).map_err(|error| invalid(&error.to_string()))
}

/// The opening that is in force: neither over, nor ended by a change of the account.
fn present(node: &AppState, caller: &Caller, account: &str) -> Result<Option<u64>, ApiError> {
    let Some(id) = node.accounts.openings().find(&caller.principal.actor, account) else {
        return Ok(None);
    };
    let row = node.store.read()?.emergency(id)?;
    Ok(row.filter(|row| !row.is_ended).map(|row| row.id))
}

/// An error if an opening under which somebody waited is over meanwhile: as for those who had none.
pub(crate) fn check_open(node: &AppState, id: u64) -> Result<(), ApiError> {
    match node.store.read()?.emergency(id)? {
        Some(row) if is_open(node, &row) => Ok(()),
        _ => Err(ApiError::Stale(Stale::Emergency)),
    }
}

async fn open(node: Arc<AppState>, caller: Caller, account: String, reason: Reason) -> Result<u64, ApiError> {
    let since = node.accounts.openings().now();
    // Requests that come at once share an opening.
    let _turn = caller.writes(&node).through(async |store| store.turn(Kind::Person, &account).await).await;
    if let Some(id) = present(&node, &caller, &account)? {
        return Ok(id);
    }
    let person = account.clone();
    let opened = caller.writes(&node).transact(move |tx| tx.open_emergency(&person, &reason));
    let id = opened.await?;
    node.accounts.openings().begin(&caller.principal.actor, &account, id, since);
    // Rules that were replaced before this have ended those that were open then.
    if let Err(stale) = same_rules(&caller.acl, &node.acl()) {
        node.accounts.openings().end(id);
        return Err(ApiError::Stale(stale));
    }
    tracing::warn!(emergency = id, "records were opened in an emergency: they wait for a review");
    Ok(id)
}

/// What waits for a review, oldest first.
pub(crate) async fn list(State(node): State<Arc<AppState>>, caller: Caller) -> Result<Response, ApiError> {
    may_administer(&node, &caller.principal, Verb::Get)?;
    Ok(AuditEvent::other("emergencies", None).attach_to(response::json(unreviewed(&node)?)))
}

/// The same, as it is shown.
pub(crate) fn unreviewed(node: &AppState) -> Result<Vec<Value>, ApiError> {
    let rows = node.store.read()?.emergencies()?;
    Ok(rows.iter().map(|row| shown(node, row)).collect())
}

fn is_open(node: &AppState, row: &Emergency) -> bool {
    !row.is_ended && node.accounts.openings().is_open(row.id)
}

fn shown(node: &AppState, row: &Emergency) -> Value {
    json!({
        "id": row.id,
        "who": row.who,
        "person": row.person,
        "reason": row.reason,
        "peer": row.peer,
        "at": crate::sync::time_text(row.at_ms),
        "open": is_open(node, row),
    })
}

/// The caller answers for having looked at it. Not before it is over: what is read later would go unseen.
pub(crate) async fn review(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    may_administer(&node, &caller.principal, Verb::Post)?;
    let absent = || ApiError::NotFound("There is no such emergency that waits for a review".into());
    let id: u64 = params.id().parse().map_err(|_| absent())?;
    let row = node.store.read()?.emergency(id)?.ok_or_else(absent)?;
    if is_open(&node, &row) {
        return Err(ApiError::Conflict {
            message: "The records are still open: review it when the time is over, or close the account"
                .into(),
            current: shown(&node, &row),
        });
    }
    caller.writes(&node).transact(move |tx| tx.review_emergency(id)).await?.ok_or_else(absent)?;
    node.accounts.openings().end(id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl From<EmergencyError> for ApiError {
    fn from(error: EmergencyError) -> Self {
        match error {
            EmergencyError::Unreviewed => ApiError::Unreviewed,
            EmergencyError::Store(error) => error.into(),
        }
    }
}
