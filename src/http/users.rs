//! Floor 4. Accounts for those who administer the node: the operator's `user` commands, and root.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bson::{Document, doc};
use serde_json::{Map, Value, json};

use super::Node;
use super::caller::{Caller, LOCAL_SUFFIX, strings};
use super::error::ApiError;
use super::extract::{At, Sent};
use super::records::to_document;
use crate::domain::access::{Actor, Verb};
use crate::domain::json::parse_object;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::{Snapshot, StoreError};

/// People read from the store at once.
const BATCH_PEOPLE_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Longest name of a technician's account.
const LOCAL_NAME_CHARS_MAX: usize = 64;

/// Everybody who can log in here: technicians, and people with a password.
pub(crate) async fn list(State(node): State<Arc<Node>>, caller: Caller) -> Result<Response, ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Get, "users")?;
    let listed = tokio::task::spawn_blocking(move || read_users(&node)).await;
    let users = listed.map_err(|_| ApiError::Internal)??;
    Ok(super::json(users))
}

fn read_users(node: &Node) -> Result<Vec<Value>, ApiError> {
    let mut users = Vec::new();
    for (name, account) in node.store.read()?.local_accounts()? {
        users.push(json!({
            "id": format!("{name}{LOCAL_SUFFIX}"), "local": true, "active": true,
            "roles": strings(account.get("roles")), "not_honoured": [],
        }));
    }
    let mut after: Option<String> = None;
    loop {
        let snapshot = node.store.read()?;
        let page = snapshot.list(Kind::Person, after.as_deref(), BATCH_PEOPLE_MAX, BATCH_BYTES_MAX)?;
        for person in &page.records {
            users.extend(shown_person(node, &snapshot, &person.id, &to_document(&person.document)?)?);
        }
        after = page.next_after().map(str::to_owned);
        if after.is_none() {
            return Ok(users);
        }
    }
}

fn shown_person(
    node: &Node,
    snapshot: &Snapshot,
    id: &str,
    person: &Document,
) -> Result<Option<Value>, ApiError> {
    if !person.contains_key("password") {
        return Ok(None);
    }
    let granted = snapshot.grants(id, person)?;
    let counts = |role: &String| node.settings.central_roles.contains(role) || granted.contains(role);
    let (roles, not_honoured): (Vec<String>, Vec<String>) =
        strings(person.get("roles")).into_iter().partition(counts);
    let active = !matches!(person.get("active"), Some(bson::Bson::Boolean(false)));
    Ok(Some(json!({
        "id": id, "local": false, "active": active, "roles": roles, "not_honoured": not_honoured,
    })))
}

/// Whoever makes accounts could make one for root, so the name alone is not enough.
fn authorize(node: &Node, caller: &Caller) -> Result<(), ApiError> {
    node.acl().authorize_global(&caller.principal, Verb::Post, "users")?;
    if caller.principal.administers() { Ok(()) } else { Err(ApiError::Forbidden) }
}

/// `{"roles": [...], "password": "...", "local": true}`: makes an account, or gives an existing person
/// these roles on this node and, if there is one, this password.
pub(crate) async fn add(
    State(node): State<Arc<Node>>,
    caller: Caller,
    at: At,
    body: Sent,
) -> Result<Response, ApiError> {
    authorize(&node, &caller)?;
    let id = at.id().to_owned();
    let body = parse_object(&body.0?)?;
    let roles = wanted_roles(&node, &body)?;
    let hash = match body.get("password") {
        None => None,
        Some(Value::String(password)) => Some(node.accounts.hash(&id, password, caller.peer).await?),
        Some(_) => return Err(ApiError::invalid("password", "password: must be text")),
    };
    let is_local = body.get("local").is_some_and(|local| *local == Value::Bool(true));
    let actor = caller.principal.actor.clone();
    if is_local || id.ends_with(LOCAL_SUFFIX) {
        return add_local(&node, &id, roles, hash).await;
    }
    add_person(&node, &id, roles, hash, actor).await
}

fn wanted_roles(node: &Node, body: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let invalid =
        || ApiError::invalid("roles", "roles: a list of different roles that the access rules know");
    let roles: Vec<String> = match body.get("roles") {
        Some(roles) => serde_json::from_value(roles.clone()).map_err(|_| invalid())?,
        None => Vec::new(),
    };
    let acl = node.acl();
    let is_new = |(at, role): (usize, &String)| acl.knows_role(role) && !roles[..at].contains(role);
    if roles.is_empty() || !roles.iter().enumerate().all(is_new) {
        return Err(invalid());
    }
    Ok(roles)
}

async fn add_local(
    node: &Node,
    id: &str,
    roles: Vec<String>,
    hash: Option<String>,
) -> Result<Response, ApiError> {
    let name = id.strip_suffix(LOCAL_SUFFIX).unwrap_or(id).to_owned();
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if name.is_empty() || name.len() > LOCAL_NAME_CHARS_MAX || !is_plain {
        return Err(ApiError::invalid("id", "id: letters, digits and . _ - only"));
    }
    let shown = format!("{name}{LOCAL_SUFFIX}");
    let created = node
        .store
        .transact(move |tx| -> Result<Option<bool>, StoreError> {
            let known = tx.local_account(&name)?;
            let is_new = known.is_none();
            let mut account = known.unwrap_or_default();
            match &hash {
                Some(hash) => drop(account.insert("password", hash)),
                None if is_new => return Ok(None),
                None => {}
            }
            account.insert("roles", roles.clone());
            tx.set_local_account(&name, Some(&account))?;
            Ok(Some(is_new))
        })
        .await?;
    answer_added(created, &shown, true)
}

/// Whether the account is new; `None` if it would be and there is no password for it.
fn answer_added(is_new: Option<bool>, id: &str, is_local: bool) -> Result<Response, ApiError> {
    let body = json!({"id": id, "local": is_local});
    match is_new {
        None => Err(ApiError::invalid("password", "password: a new account needs one")),
        Some(true) => Ok((StatusCode::CREATED, axum::Json(body)).into_response()),
        Some(false) => Ok(super::json(body)),
    }
}

async fn add_person(
    node: &Node,
    id: &str,
    roles: Vec<String>,
    hash: Option<String>,
    actor: Actor,
) -> Result<Response, ApiError> {
    let id = fold_account(id);
    Kind::Person.schema().check_new_id(&id).map_err(|message| ApiError::invalid("id", message))?;
    let central = node.settings.central_roles.clone();
    let shown = id.clone();
    let created = node
        .store
        .transact(move |tx| -> Result<Option<bool>, StoreError> {
            let stored = tx.resolve_person(&id)?;
            let key = RecordKey::new(Kind::Person, stored.clone().unwrap_or_else(|| id.clone()));
            let mut person = tx.document(&key)?.unwrap_or_else(|| doc! {"_id": &id, "active": true});
            if let Some(hash) = &hash {
                person.insert("password", hash);
            } else if stored.is_none() {
                return Ok(None);
            }
            person.insert("roles", roles.clone());
            let granted: Vec<String> = roles.iter().filter(|role| !central.contains(role)).cloned().collect();
            tx.edit(&key, Some(&person), &actor)?;
            tx.set_grants(&key.id, &granted)?;
            Ok(Some(stored.is_none()))
        })
        .await?;
    answer_added(created, &shown, false)
}

/// `{"password": "..."}`: sets the password of a technician or of a person.
pub(crate) async fn set_password(
    State(node): State<Arc<Node>>,
    caller: Caller,
    at: At,
    body: Sent,
) -> Result<Response, ApiError> {
    authorize(&node, &caller)?;
    let id = at.id().to_owned();
    let body = parse_object(&body.0?)?;
    let Some(Value::String(password)) = body.get("password") else {
        return Err(ApiError::invalid("password", "password: must be text"));
    };
    let hash = node.accounts.hash(&id, password, caller.peer).await?;
    let actor = caller.principal.actor.clone();
    let is_known = node
        .store
        .transact(move |tx| -> Result<bool, StoreError> {
            if let Some(name) = id.strip_suffix(LOCAL_SUFFIX) {
                let Some(mut account) = tx.local_account(name)? else {
                    return Ok(false);
                };
                account.insert("password", &hash);
                tx.set_local_account(name, Some(&account))?;
                return Ok(true);
            }
            let Some(id) = tx.resolve_person(&id)? else {
                return Ok(false);
            };
            let key = RecordKey::new(Kind::Person, id);
            let mut person = tx.document(&key)?.unwrap_or_default();
            person.insert("password", &hash);
            tx.edit(&key, Some(&person), &actor)?;
            Ok(true)
        })
        .await?;
    if is_known {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(ApiError::NotFound("User not found".into()))
    }
}
