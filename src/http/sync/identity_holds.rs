//! Floor 4. People who may be two, over HTTP: seeing both, deciding.
//!
//! Whoever looks at this sees another human being who happens to have the same account, so it is for those who
//! may read anybody's record, and not for the person themselves.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use bson::{Bson, Document, doc};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::domain::access::{Target, Verb};
use crate::domain::json::show_value;
use crate::domain::merge::identity_differences;
use crate::domain::record::Kind;
use crate::http::access::caller::Caller;
use crate::http::access::kept_values::is_operator;
use crate::http::error::ApiError;
use crate::http::records::etag::names_etag;
use crate::http::state::app_state::AppState;
use crate::http::sync::conflict_rights;
use crate::http::sync::conflict_view::{self, truncated};
use crate::http::workload::Work;
use crate::store::{Conflict, ConflictStatus, Hold, Snapshot, Store, unless_damaged};
use crate::sync::conflicts::ResolveError;
use crate::sync::identity::{Pair, Verdict, decide, hold_of, told_of_same};

/// An identity conflict with its two people: as they are now, or as they were decided about.
pub(crate) struct Case {
    pub(crate) conflict: Conflict,
    /// While it waits for a decision.
    hold: Option<Hold>,
    pair: Pair,
    own: u64,
    held: u64,
    /// What "same" does to the account, for the one who decides.
    if_same: Vec<String>,
}

impl Case {
    pub(crate) fn read(node: &AppState, snapshot: &Snapshot, conflict: Conflict) -> Result<Case, ApiError> {
        let Some((hold, pair)) = hold_of(snapshot, &conflict)? else {
            return Ok(Case::as_found(conflict));
        };
        let own = snapshot.going_along_count(&hold)?;
        let waiting = snapshot.held_of(&hold.account)?;
        let held = waiting.iter().filter(|key| key.kind != Kind::Person).count() as u64;
        let if_same = told_of_same(snapshot, &hold, &pair, node.settings.active_from_centre)?;
        Ok(Case { conflict, hold: Some(hold), pair, own, held, if_same })
    }

    /// The same in a list: where a row is damaged that tells who the two are now, they are as they were found.
    pub(crate) fn in_list(
        node: &AppState,
        snapshot: &Snapshot,
        conflict: Conflict,
    ) -> Result<Case, ApiError> {
        if unless_damaged(hold_of(snapshot, &conflict))?.is_some() {
            return Case::read(node, snapshot, conflict);
        }
        Ok(Case::as_found(conflict))
    }

    fn as_found(conflict: Conflict) -> Case {
        let body = |value: &Option<Bson>| value.as_ref().and_then(Bson::as_document).cloned();
        let pair = Pair { local: body(&conflict.local), central: body(&conflict.central) };
        Case { conflict, hold: None, pair, own: 0, held: 0, if_same: Vec::new() }
    }

    /// The version of the case: of both people, and whether it is decided.
    pub(crate) fn etag(&self) -> String {
        let mut seen = doc! {
            "id": &self.conflict.id, "status": self.conflict.status.name(), "at": self.conflict.found_at_ms,
        };
        for (name, person) in [("local", &self.pair.local), ("central", &self.pair.central)] {
            if let Some(person) = person {
                seen.insert(name, person.clone());
            }
        }
        let digest = Sha256::digest(seen.to_vec().unwrap_or_default());
        format!("\"{}\"", hex::encode(&digest[..16]))
    }

    /// The case as clients see it. A person of more than `bytes_max` bytes is replaced by their size.
    pub(crate) fn shown(&self, node: &AppState, bytes_max: Option<usize>) -> Value {
        let conflict = &self.conflict;
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            fields.insert(name.to_owned(), value);
        };
        put("id", json!(conflict.id));
        put("type", json!(conflict.subject.name()));
        put("collection", json!(conflict.key.kind.schema().collection));
        put("record", json!(conflict.key.id));
        put("path", json!(conflict.path));
        put("status", json!(conflict.status.name()));
        if !conflict.author.is_empty() {
            put("author", json!(conflict.author));
        }
        put("found_at", json!(crate::sync::time_text(conflict.found_at_ms)));
        put("etag", json!(self.etag()));
        if let Some(hold) = &self.hold {
            put("why", json!(hold.why.name()));
            put("own_records", json!(self.own));
            put("held_records", json!(self.held));
        }
        if !self.if_same.is_empty() {
            put("if_same", json!(self.if_same));
        }
        if let Some(resolution) = &conflict.resolution {
            put("resolution", json!(resolution));
            if let Some(Bson::String(new_id)) = &conflict.value {
                put("new_id", json!(new_id));
            }
            put("resolved_by", json!(conflict.resolved_by));
            put("resolved_at", json!(conflict.resolved_at_ms.map(crate::sync::time_text)));
        }
        for (name, person) in [("local", &self.pair.local), ("central", &self.pair.central)] {
            let Some(person) = person else { continue };
            let bytes = person.to_vec().map_or(0, |bytes| bytes.len());
            if bytes_max.is_some_and(|max| bytes > max) {
                put(name, truncated("object", bytes));
            } else {
                put(name, shown_person(node, person));
            }
        }
        if !conflict.notes.is_empty() {
            put("notes", conflict_view::shown_notes(node, conflict));
        }
        Value::Object(fields)
    }

    /// A decision is made on two people that somebody saw. If nothing is said about them, both must still be
    /// called and born as they were when they were found.
    fn is_as_seen(&self, node: &AppState, headers: &HeaderMap, body: &Map<String, Value>) -> bool {
        let people = [
            (&self.pair.local, &self.conflict.local, "local"),
            (&self.pair.central, &self.conflict.central, "central"),
        ];
        match (names_etag(headers, header::IF_MATCH, &self.etag()), body.get("seen")) {
            (Some(is_named), _) => is_named,
            (None, Some(seen)) => people.iter().all(|(now, _, name)| match now {
                Some(now) => shown_person(node, now) == seen[*name],
                None => seen[*name].is_null(),
            }),
            (None, None) => people.iter().all(|(now, found, _)| match (now, found) {
                (Some(now), Some(Bson::Document(found))) => identity_differences(now, found) == 0,
                _ => false,
            }),
        }
    }
}

pub(crate) fn shown_person(node: &AppState, person: &Document) -> Value {
    let shown = Kind::Person.schema().without_secrets(person);
    show_value(&Bson::Document(shown), node.settings.date_format)
}

/// Carries out `{"decide": "same"}` or `{"decide": "new_id", "id": ...}`.
pub(crate) async fn resolve(
    node: &Arc<AppState>,
    caller: &Caller,
    case: Case,
    headers: &HeaderMap,
    (body, work): (&Map<String, Value>, &Arc<Work>),
) -> Result<Case, ApiError> {
    let verdict = match (body.get("decide"), body.get("id")) {
        (Some(Value::String(same)), None) if same == "same" => Verdict::Same,
        (Some(Value::String(new)), Some(Value::String(id))) if new == "new_id" => {
            Verdict::NewId(id.trim().to_owned())
        }
        (Some(Value::String(new)), _) if new == "new_id" => {
            return Err(ApiError::invalid("id", "id: the account that the person of this node gets"));
        }
        _ => {
            let message = "decide: \"same\", or \"new_id\" with the new account as id";
            return Err(ApiError::invalid("decide", message));
        }
    };
    authorize(node, caller, &verdict)?;
    let moved = |case: &Case, message: &str| ApiError::Conflict {
        message: message.to_owned(),
        current: case.shown(node, None),
    };
    if case.conflict.status == ConflictStatus::Resolved {
        return Err(moved(&case, "The conflict has been resolved already"));
    }
    if !case.is_as_seen(node, headers, body) {
        return Err(moved(&case, "One of the two people has changed meanwhile"));
    }
    let actor = caller.principal.actor.clone();
    let (id, pair) = (&case.conflict.id, case.pair.clone());
    let is_same = verdict == Verdict::Same;
    let decided = async |store: &Store| decide(store, id, verdict, pair, actor).await;
    let done = caller.writes(node).charged(work).through(decided).await;
    let again = |conflict: Conflict| Case::read(node, &*node.store.read()?, conflict);
    match done {
        // What the decision has done to the account is said once more in its answer.
        Ok(conflict) => {
            let done = again(conflict)?;
            let if_same = if is_same { case.if_same } else { done.if_same.clone() };
            Ok(Case { if_same, ..done })
        }
        Err(ResolveError::Resolved(conflict)) => {
            Err(moved(&again(*conflict)?, "The conflict has been resolved already"))
        }
        Err(ResolveError::Moved { conflict, .. }) => {
            Err(moved(&again(*conflict)?, "One of the two people has changed meanwhile"))
        }
        Err(ResolveError::Invalid { field, message }) => Err(ApiError::Invalid { field, message }),
        Err(ResolveError::Held { conflict }) => Err(ApiError::DecisionPending { conflict }),
        Err(ResolveError::Unknown) => Err(conflict_rights::absent()),
        Err(ResolveError::Store(error)) => Err(error.into()),
    }
}

/// Whoever decides must be able to change anybody's record, and to make one for a new account.
fn authorize(node: &AppState, caller: &Caller, verdict: &Verdict) -> Result<(), ApiError> {
    if is_operator(&caller.principal) {
        return Ok(());
    }
    let schema = Kind::Person.schema();
    let verbs: &[Verb] = match verdict {
        Verdict::Same => &[Verb::Patch],
        Verdict::NewId(_) => &[Verb::Patch, Verb::Post],
    };
    for verb in verbs {
        let target = Target::Record { owner: None };
        let granted = node.acl().authorize(&caller.principal, *verb, schema.item_acl(), schema.kind, target);
        granted.map_err(|_| ApiError::Forbidden)?;
    }
    Ok(())
}
