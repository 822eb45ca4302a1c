//! Floor 4. Records that the centre refused, or that could not be taken from it, over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::domain::access::{Actor, Target, Verb};
use crate::domain::record::{Kind, RecordKey};
use crate::http::access::caller::Caller;
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::records::damage::counting_damaged;
use crate::http::response;
use crate::http::state::app_state::AppState;
use crate::store::{AsideRows, SetAsideError, unless_damaged};
use crate::sync::refused::{self, Effect, RefusedError, WayOut, ways_out};

/// Longest reason in the list: a server may repeat the document in it.
const REASON_CHARS_MAX: usize = 2_000;
/// What a name begins with that is of rows of a table and not of a record.
const ROWS_OF: char = '*';

pub(crate) async fn list(State(node): State<Arc<AppState>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Get, "sync")?;
    let snapshot = node.store.read()?;
    let shown = snapshot.dead_letters()?.into_iter().map(|letter| {
        // What a damaged row is needed for is no way out.
        let ways = unless_damaged(ways_out(&snapshot, &letter))?.unwrap_or_default();
        Ok(json!({
            "id": dead_id(&letter.key),
            "collection": letter.key.kind.schema().collection,
            "record": letter.key.id,
            "direction": letter.direction,
            "code": letter.code,
            "reason": letter.reason.chars().take(REASON_CHARS_MAX).collect::<String>(),
            "at": crate::sync::time_text(letter.at_ms),
            "ways_out": ways.into_iter().map(WayOut::name).collect::<Vec<_>>(),
        }))
    });
    let shown = response::json(shown.collect::<Result<Vec<Value>, ApiError>>()?);
    Ok(counting_damaged(&node.store.damaged_rows(), &["dead"], shown))
}

/// A dead letter is named by its record: `people:ESPGNU777ORG`.
fn dead_id(key: &RecordKey) -> String {
    format!("{}:{}", key.kind.schema().collection, key.id)
}

pub(crate) async fn retry(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "sync")?;
    let key = named(&params)?;
    let was_dead = caller.writes(&node).transact(move |tx| tx.retry_dead(&key)).await?;
    if was_dead { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(absent()) }
}

/// The record that the path names.
fn named(params: &PathParams) -> Result<RecordKey, ApiError> {
    let (collection, record) = params.id().split_once(':').ok_or_else(absent)?;
    Ok(RecordKey::new(Kind::from_collection(collection).ok_or_else(absent)?, record))
}

fn absent() -> ApiError {
    ApiError::NotFound("There is no such refused record".into())
}

/// Rows of a table, in the place of a record: `*TABLE:COLLECTION:ID`. The collection may be empty; so may both, for all
/// damaged rows of the table.
fn rows_named(name: &str) -> Result<AsideRows, ApiError> {
    let (table, row) = name.split_once(':').ok_or_else(absent)?;
    let (collection, id) = row.split_once(':').ok_or_else(absent)?;
    let kind = match collection {
        "" => None,
        collection => Some(Kind::from_collection(collection).ok_or_else(absent)?),
    };
    Ok(AsideRows { table: table.to_owned(), kind, id: Some(id.to_owned()).filter(|id| !id.is_empty()) })
}

/// Takes a damaged record out of the store, its rows into a file. For root and the operator of the machine.
pub(crate) async fn set_aside(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "sync")?;
    if !caller.principal.administers() {
        return Err(ApiError::Forbidden);
    }
    let done = match params.id().strip_prefix(ROWS_OF) {
        Some(rows) => {
            let rows = rows_named(rows)?;
            caller.writes(&node).through(async |store| store.set_aside_rows(rows).await).await
        }
        None => {
            let key = named(&params)?;
            let aside = caller.writes(&node).through(async |store| store.set_aside(&key).await).await;
            aside.map(|file| (file, 1))
        }
    };
    match done {
        Ok((file, rows)) => Ok(response::json(json!({"file": file.display().to_string(), "rows": rows}))),
        Err(SetAsideError::NoTable) => Err(ApiError::NotFound(
            "There is no such table with rows that can be set aside: `thalamus-edge doctor` names them"
                .into(),
        )),
        Err(SetAsideError::OfRecord) => Err(ApiError::BadRequest(
            "These rows are of records, each of which is set aside as a whole: COLLECTION:ID".into(),
        )),
        Err(SetAsideError::NotDamaged) if params.id().starts_with(ROWS_OF) => Err(ApiError::NotFound(
            "No such row of this table is damaged: `thalamus-edge doctor` names those that are".into(),
        )),
        Err(SetAsideError::NotDamaged) => Err(ApiError::NotFound(
            "No row of such a record is damaged: `thalamus-edge doctor` names those".into(),
        )),
        Err(SetAsideError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "a damaged record could not be set aside");
            Err(ApiError::Internal)
        }
    }
}

/// Puts the local version into the trash and the centre's in its place.
pub(crate) async fn take_central(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    give_up(&node, &caller, &params, WayOut::TakeCentral).await
}

/// Puts the local version into the trash.
pub(crate) async fn discard(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
) -> Result<Response, ApiError> {
    give_up(&node, &caller, &params, WayOut::Discard).await
}

/// Besides the right to decide about refused records it needs the one to make the same change directly.
async fn give_up(
    node: &Arc<AppState>,
    caller: &Caller,
    params: &PathParams,
    way: WayOut,
) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "sync")?;
    let key = named(params)?;
    let (acl, who, kind) = (node.acl(), caller.principal.clone(), key.kind);
    let allow = move |effect: Effect, owner: Option<&str>| {
        let verb = match effect {
            Effect::Changed => Verb::Patch,
            Effect::Gone => Verb::Delete,
            Effect::Back => Verb::Post,
        };
        let target = match (kind, owner) {
            (Kind::Person, Some(person)) => Target::PathPerson(person),
            _ => Target::Record { owner },
        };
        matches!(who.actor, Actor::Operator(_))
            || acl.authorize(&who, verb, kind.schema().item_acl(), kind, target).is_ok()
    };
    let actor = caller.principal.actor.clone();
    let given_up =
        caller.writes(node).through(async |store| refused::give_up(store, &key, way, actor, allow).await);
    match given_up.await {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(RefusedError::Unknown) => Err(absent()),
        Err(RefusedError::Impossible(reason)) => Err(ApiError::invalid("", reason)),
        Err(RefusedError::Held { conflict }) => Err(ApiError::DecisionPending { conflict }),
        Err(RefusedError::Forbidden) => Err(ApiError::Forbidden),
        Err(RefusedError::Store(error)) => Err(error.into()),
    }
}
