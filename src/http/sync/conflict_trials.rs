//! Floor 4. `POST /sync/conflicts/trial`: what many decisions would do, one after the other. Nothing is decided.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::domain::access::Verb;
use crate::domain::audit::Outcome;
use crate::domain::json::{check_values, parse_body};
use crate::http::access::caller::Caller;
use crate::http::access::request_body::RequestBody;
use crate::http::audit_observer::{AuditEvent, note_refusals};
use crate::http::error::ApiError;
use crate::http::response;
use crate::http::state::app_state::AppState;
use crate::http::sync::conflict_decision::check_allowed;
use crate::http::sync::conflict_view::etag_of;
use crate::http::sync::conflicts::{check_known, check_value_conflict, refused};
use crate::http::workload::{self, showing, writing};
use crate::sync::conflict_trials::{Trial, try_in_turn};
use crate::sync::conflicts::Decision;

const PATH: &str = "/sync/conflicts/trial";
/// Decisions that are tried at once: others wait with what they write.
pub const TRIALS_MAX: usize = 300;
/// Bytes of conflicts and their records that are tried at once; one that is larger is tried alone.
const TRIED_BYTES_MAX: usize = 1 << 20;

/// One decision of the body.
struct Asked {
    id: String,
    /// The version of the conflict that it was made on, as `GET /sync/conflicts` shows it.
    etag: String,
    decision: Decision,
}

/// The decisions of a body of which an answer tells.
struct Chosen {
    /// How many of them, from the first.
    count: usize,
    /// What cannot be tried, with the reason.
    refusals: BTreeMap<usize, ApiError>,
    /// Of what is tried.
    bytes: usize,
}

/// What is said of a decision, and what the audit trail calls it.
type Told = (Value, Option<Outcome>);

fn told(error: &ApiError) -> Told {
    (error.shown(), error.refusal())
}

/// Body: `{"decisions": [{"id": CONFLICT, "etag": TAG, "take": "local"}]}`, each conflict once. Answer: `{"outcomes": [...]}` in the
/// same order, each with the conflict's `id` and the `status` that the decision would be answered with, and with `code` and
/// `error` where it would be refused. There may be fewer than decisions, but one at least: those behind them were not tried.
pub(crate) async fn try_all(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    body: RequestBody,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Post, "conflicts")?;
    let text = body.0?;
    check_values(&text)?;
    let _claim = node.store.claim(text.len() as u64)?;
    let work = workload::take(&node, &caller, writing(&text, 0)).await?;
    let asked = work.run(|| parse_asked(&parse_body(&text)?))?;
    drop((text, work));
    let work = workload::take_for_rows(&node, &caller).await?;
    let Chosen { count, refusals, bytes } = work.run(|| choose(&node, &caller, &asked))?;
    drop(work);
    let asked = asked.get(..count).unwrap_or_default();
    let tried: Vec<&Asked> =
        asked.iter().enumerate().filter(|(at, _)| !refusals.contains_key(at)).map(|(_, one)| one).collect();
    let trials =
        tried.iter().map(|one| Trial { conflict: one.id.clone(), decision: one.decision.clone() }).collect();
    let tags: Arc<[String]> = tried.iter().map(|one| one.etag.clone()).collect();
    let work = Arc::new(workload::take(&node, &caller, showing(bytes)).await?);
    let (acl, who, actor) = (node.acl(), caller.principal.clone(), caller.principal.actor.clone());
    let answers = caller.writes(&node).charged(&work).through(async |store| {
        let is_seen = move |at: usize, conflict: &_, current: Option<&_>| {
            tags.get(at).is_some_and(|tag| etag_of(conflict, current).as_ref() == Some(tag))
        };
        let check = move |conflict: &_, old: Option<&_>, new: Option<&_>| {
            check_allowed(&acl, &who, conflict, old, new)
        };
        let tell = |tried: Result<(), _>| match tried {
            Ok(()) => (json!({"status": 204}), None),
            Err(error) => {
                let conflict =
                    |message: &str| ApiError::Conflict { message: message.into(), current: Value::Null };
                told(&refused(error, conflict))
            }
        };
        try_in_turn(store, trials, actor, is_seen, check, tell).await
    });
    let mut answers = answers.await?;
    work.run(|| recheck(&node, &caller, &tried, &mut answers))?;
    drop(work);
    let mut answers = answers.into_iter();
    let mut outcomes = Vec::with_capacity(asked.len());
    let mut noted = Vec::new();
    for (at, one) in asked.iter().enumerate() {
        let Some((mut outcome, refusal)) = refusals.get(&at).map(told).or_else(|| answers.next()) else {
            break;
        };
        outcome["id"] = json!(one.id);
        outcomes.push(outcome);
        noted.extend(refusal.map(|refusal| (one.id.as_str(), refusal)));
    }
    note_refusals(&node, &caller, PATH, &noted);
    Ok(AuditEvent::other("conflicts", None)
        .of_everybody()
        .attach_to(response::json(json!({"outcomes": outcomes}))))
}

/// Looks the conflicts up until their bytes are too many for one transaction.
fn choose(node: &AppState, caller: &Caller, asked: &[Asked]) -> Result<Chosen, ApiError> {
    let snapshot = node.store.read()?;
    let mut chosen = Chosen { count: 0, refusals: BTreeMap::new(), bytes: 0 };
    for (at, one) in asked.iter().enumerate() {
        let found = check_value_conflict(node, caller, &snapshot, &one.id)
            .and_then(|()| Ok(snapshot.conflict_bytes(&one.id)?));
        match found {
            Ok(bytes) if at > 0 && chosen.bytes.saturating_add(bytes) > TRIED_BYTES_MAX => break,
            Ok(bytes) => chosen.bytes = chosen.bytes.saturating_add(bytes),
            Err(
                error @ (ApiError::NotFound(_)
                | ApiError::Hidden(_)
                | ApiError::Invalid { .. }
                | ApiError::Damaged),
            ) => {
                chosen.refusals.insert(at, error);
            }
            Err(error) => return Err(error),
        }
        chosen.count = at + 1;
    }
    Ok(chosen)
}

/// Of what has become another one's record meanwhile, a refusal says nothing.
fn recheck(node: &AppState, caller: &Caller, tried: &[&Asked], answers: &mut [Told]) -> Result<(), ApiError> {
    let snapshot = node.store.read()?;
    for (one, answer) in tried.iter().zip(answers).filter(|(_, (answer, _))| answer["status"] != 204) {
        if let Err(error) = check_known(node, caller, &snapshot, &one.id) {
            *answer = told(&error);
        }
    }
    Ok(())
}

fn parse_asked(body: &Map<String, Value>) -> Result<Vec<Asked>, ApiError> {
    let invalid = |message: &str| ApiError::invalid("decisions", format!("decisions: {message}"));
    let Some(Value::Array(decisions)) = body.get("decisions") else {
        return Err(invalid("must be a list"));
    };
    if decisions.len() > TRIALS_MAX {
        return Err(invalid(&format!("at most {TRIALS_MAX} are tried at once")));
    }
    let one = |decision: &Value| {
        let text = |field: &str| decision[field].as_str().map(str::to_owned);
        let decision = match decision["take"].as_str() {
            Some("local") => Decision::TakeLocal,
            Some("central") => Decision::TakeCentral,
            _ => return None,
        };
        Some(Asked { id: text("id")?, etag: text("etag")?, decision })
    };
    let all: Option<Vec<Asked>> = decisions.iter().map(one).collect();
    let all = all.ok_or_else(|| invalid("each has `id`, `etag`, and `take`: \"local\" or \"central\""))?;
    let mut ids = HashSet::new();
    match all.iter().all(|one| ids.insert(&one.id)) {
        true => Ok(all),
        false => Err(invalid("a conflict may be named once")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_decisions_as_are_tried_fit_into_a_body() {
        let one = |number: usize| json!({"id": format!("{number:032}"), "etag": "\"x\"", "take": "central"});
        let body = |count: usize| json!({"decisions": (0..count).map(one).collect::<Vec<_>>()}).to_string();
        let asked = |count: usize| parse_asked(&parse_body(body(count).as_bytes()).unwrap());
        assert_eq!(asked(TRIALS_MAX).unwrap().len(), TRIALS_MAX);
        assert!(asked(TRIALS_MAX + 1).is_err());
        for wrong in [
            json!({}),
            json!({"decisions": [{"id": "a", "etag": "b"}]}),
            json!({"decisions": [{"take": "local"}]}),
            json!({"decisions": [one(1), one(1)]}),
        ] {
            assert!(parse_asked(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }
}
