//! Floor 4. `GET /audit`: the audit trail for those who administer the node, and for everybody what was done with
//! their own record.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use chrono::DateTime;
use serde_json::{Value, json};

use crate::domain::access::{Acl, Actor, Denied, Principal, Verb};
use crate::domain::audit::What;
use crate::domain::record::fold_account;
use crate::http::access::caller::Caller;
use crate::http::audit_observer::AuditEvent;
use crate::http::error::ApiError;
use crate::http::extract::query_pairs;
use crate::http::state::app_state::AppState;
use crate::http::{response, workload};
use crate::store::{AuditQuery, AuditRow};

/// Entries in one answer, if nothing is said and at most.
const LIMIT_ENTRIES_DEFAULT: usize = 100;
const LIMIT_ENTRIES_MAX: usize = 1000;
/// What a thousand entries take, about, read and shown.
const ENTRIES_WORK: usize = 4 << 20;

const NO_ACTOR: &str = "who: an actor as the trail writes them: person:ID, local:NAME, operator:UID, centre, node or nobody; \
                        an account and NAME@local are taken too";

/// Whether `who` may see the trail of one person, or of everybody. Who may only because the account is theirs sees what is
/// about themselves: somebody else may have had it before.
pub(crate) fn authorize(acl: &Acl, who: &Principal, person: Option<&str>) -> Result<(), Denied> {
    match person {
        Some(person) if who.is(person) => Ok(()),
        _ => acl.authorize_global(who, Verb::Get, "audit"),
    }
}

/// `{"entries": [...], "next": SEQ, "anchor", "head", "acknowledged": "SEQ:HASH"}`: the newest entries first, and
/// with `before` those that precede; with `after` the oldest first.
pub(crate) async fn list(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = parse(&request);
    // Who may not see it does not learn what would have been wrong with the rest either.
    let person = query_pairs(request.uri()).into_iter().rfind(|(name, _)| name == "person");
    authorize(&node.acl(), &caller.principal, person.as_ref().map(|(_, person)| person.as_str()))?;
    let mut query = query?;
    query.is_of_holder = node.acl().authorize_global(&caller.principal, Verb::Get, "audit").is_err();
    let work = workload::take(&node, &caller, ENTRIES_WORK).await?;
    // On its own, so that it comes to its end also if the client goes away.
    let store = node.store.clone();
    match tokio::spawn(async move { store.flush_notes().await }).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "what was read lately is not in the audit trail yet"),
        Err(_) => return Err(ApiError::Internal),
    }
    let about = query.person.clone();
    let read = tokio::task::spawn_blocking(move || {
        let snapshot = node.store.read()?;
        let page = snapshot.audit(&query)?;
        let heads = (snapshot.audit_anchor()?, snapshot.audit_head()?, snapshot.audit_acknowledged()?);
        Ok::<_, ApiError>((page, heads))
    });
    let (page, (anchor, head, acknowledged)) = read.await.map_err(|_| ApiError::Internal)??;
    let answer = work.run(|| {
        json!({
            "entries": page.rows.iter().map(shown).collect::<Vec<_>>(),
            "next": page.next,
            "anchor": anchor.to_string(),
            "head": head.to_string(),
            "acknowledged": acknowledged.map(|head| head.to_string()),
        })
    });
    Ok(AuditEvent::other("audit", about).attach_to(response::json(answer)))
}

fn shown(row: &AuditRow) -> Value {
    match row {
        Ok(entry) => {
            let mut shown = json!(entry);
            shown["at"] = json!(crate::sync::time_text(entry.times.at_ms));
            shown
        }
        Err(seq) => json!({"seq": seq, "unreadable": true}),
    }
}

fn parse(request: &Request) -> Result<AuditQuery, ApiError> {
    let mut query = AuditQuery { limit: LIMIT_ENTRIES_DEFAULT, ..AuditQuery::default() };
    for (name, value) in query_pairs(request.uri()) {
        let number = || {
            let message = format!("{name}: must be a whole number");
            value.parse::<u64>().map_err(|_| ApiError::invalid(&name, message))
        };
        let time = || match DateTime::parse_from_rfc3339(&value) {
            Ok(time) => Ok(Some(time.timestamp_millis())),
            Err(_) => {
                let message = format!("{name}: must be a time like 2026-11-23T01:28:52Z");
                Err(ApiError::invalid(&name, message))
            }
        };
        match name.as_str() {
            "after" => query.after = Some(number()?),
            "before" => query.before = Some(number()?),
            "limit" => {
                let limit = usize::try_from(number()?).unwrap_or(usize::MAX);
                query.limit = limit.clamp(1, LIMIT_ENTRIES_MAX);
            }
            "person" => query.person = Some(fold_account(&value)),
            "who" => match Actor::read(&value) {
                Some(who) => query.who = Some(who),
                None => return Err(ApiError::invalid("who", NO_ACTOR)),
            },
            "verb" if What::from_name(&value).is_none() => {
                let known: Vec<_> = What::ALL.iter().map(|what| what.name()).collect();
                return Err(ApiError::invalid("verb", format!("verb: one of {}", known.join(", "))));
            }
            "verb" => query.verb = Some(value),
            "from" => query.from_ms = time()?,
            "to" => query.to_ms = time()?,
            _ => {}
        }
    }
    Ok(query)
}
