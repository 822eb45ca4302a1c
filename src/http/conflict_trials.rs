//! Floor 4. `POST /sync/conflicts/trial`: what many decisions would do, one after the other. Nothing is decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::Node;
use super::caller::Caller;
use super::conflict_view::etag_of;
use super::conflicts::{check_allowed, check_value_conflict, refused};
use super::error::ApiError;
use super::extract::Sent;
use super::witness::Seen;
use super::workload::{self, showing, writing};
use crate::domain::access::Verb;
use crate::domain::json::{check_values, parse_body};
use crate::sync::conflict_trials::{Trial, try_in_turn};
use crate::sync::conflicts::Decision;

/// Decisions that are tried at once: others wait with what they write, and a body holds so many values only.
pub const TRIALS_MAX: usize = 3_000;

/// One decision of the body.
struct Asked {
    id: String,
    /// The version of the conflict that it was made on, as `GET /sync/conflicts` shows it.
    etag: String,
    decision: Decision,
}

/// Body: `{"decisions": [{"id": CONFLICT, "etag": TAG, "take": "local"}]}`. Answer: `{"outcomes": [...]}` in the same order, each
/// with the conflict's `id` and the `status` that the decision would be answered with, and with `code` and `error` where it
/// would be refused.
pub(crate) async fn try_all(
    State(node): State<Arc<Node>>,
    caller: Caller,
    body: Sent,
) -> Result<Response, ApiError> {
    node.acl().authorize_node(&caller.principal, Verb::Post, "conflicts")?;
    let text = body.0?;
    check_values(&text)?;
    let _claim = node.store.claim(text.len() as u64)?;
    let work = workload::take(&node, &caller, writing(&text, 0)).await?;
    let asked = work.run(|| parse_asked(&parse_body(&text)?))?;
    drop((text, work));
    // What cannot be tried, with the reason.
    let mut refusals = BTreeMap::new();
    let mut row_bytes = 0;
    {
        let snapshot = node.store.read()?;
        for (at, one) in asked.iter().enumerate() {
            match check_value_conflict(&node, &caller, &snapshot, &one.id) {
                Ok(()) => row_bytes = row_bytes.max(snapshot.conflict_bytes(&one.id)?),
                Err(error @ (ApiError::NotFound(_) | ApiError::Hidden(_) | ApiError::Invalid { .. })) => {
                    refusals.insert(at, error.shown());
                }
                Err(error) => return Err(error),
            }
        }
    }
    let tried: Vec<&Asked> =
        asked.iter().enumerate().filter(|(at, _)| !refusals.contains_key(at)).map(|(_, one)| one).collect();
    let trials =
        tried.iter().map(|one| Trial { conflict: one.id.clone(), decision: one.decision.clone() }).collect();
    let tags: Arc<[String]> = tried.iter().map(|one| one.etag.clone()).collect();
    let work = Arc::new(workload::take(&node, &caller, showing(row_bytes)).await?);
    let (acl, who, actor) = (node.acl(), caller.principal.clone(), caller.principal.actor.clone());
    let answers = caller.writes(&node).charged(&work).through(async |store| {
        let is_seen = move |at: usize, conflict: &_, current: Option<&_>| {
            tags.get(at).is_some_and(|tag| etag_of(conflict, current).as_ref() == Some(tag))
        };
        let check = move |conflict: &_, old: Option<&_>, new: Option<&_>| {
            check_allowed(&acl, &who, conflict, old, new)
        };
        let tell = |tried: Result<(), _>| match tried {
            Ok(()) => json!({"status": 204}),
            Err(error) => {
                let conflict =
                    |message: &str| ApiError::Conflict { message: message.into(), current: Value::Null };
                refused(error, conflict).shown()
            }
        };
        try_in_turn(store, trials, actor, is_seen, check, tell).await
    });
    let mut answers = answers.await?.into_iter();
    let outcomes = asked.iter().enumerate().map(|(at, one)| {
        let mut outcome = refusals.remove(&at).or_else(|| answers.next()).unwrap_or_default();
        outcome["id"] = json!(one.id);
        outcome
    });
    let shown = json!({"outcomes": outcomes.collect::<Vec<_>>()});
    Ok(Seen::other("conflicts", None).of_everybody().on(super::json(shown)))
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
    all.ok_or_else(|| invalid("each has `id`, `etag`, and `take`: \"local\" or \"central\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_decisions_as_are_tried_fit_into_a_body() {
        let one = json!({"id": "a".repeat(32), "etag": "\"x\"", "take": "central"});
        let body = |count: usize| json!({"decisions": vec![one.clone(); count]}).to_string();
        let asked = |count: usize| parse_asked(&parse_body(body(count).as_bytes()).unwrap());
        assert_eq!(asked(TRIALS_MAX).unwrap().len(), TRIALS_MAX);
        assert!(asked(TRIALS_MAX + 1).is_err());
        for wrong in [
            json!({}),
            json!({"decisions": [{"id": "a", "etag": "b"}]}),
            json!({"decisions": [{"take": "local"}]}),
        ] {
            assert!(parse_asked(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }
}
