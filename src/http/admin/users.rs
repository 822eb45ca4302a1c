//! Floor 4. Accounts for those who administer the node: the operator's `user` commands, and root.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bson::doc;
use serde_json::{Map, Value, json};

use crate::domain::access::{END_USER, LOCAL_SUFFIX, Verb, local_name};
use crate::domain::active::{ACTIVE, Closing, is_active};
use crate::domain::json::parse_body;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{PERSON_ID_CHARS_MAX, PERSON_ID_CHARS_MIN, is_account};
use crate::flaw::step;
use crate::http::access::account::{
    ACCOUNT_BYTES, Account, change_account, document_of, fold_local, may_administer, store_password, unknown,
};
use crate::http::access::account_lookup::strings;
use crate::http::access::caller::Caller;
use crate::http::access::request_body::RequestBody;
use crate::http::auth::current_password::require_current;
use crate::http::auth::links::NewLink;
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::state::app_state::AppState;
use crate::store::{EditError, Granted, StoreError, Tx};

/// Longest name of a technician's account.
const LOCAL_NAME_CHARS_MAX: usize = 64;

/// The account that a path means. A technician is named in any spelling of theirs, but for one that is a person's at the
/// centre: their record is not to be taken for the technician's account. Ids with which nobody can ever log in are no
/// accounts, so they get no password, link or role.
fn account_at(node: &AppState, id: &str) -> Result<Account, ApiError> {
    let account = Account::named(id);
    let name = account.to_string();
    match &account {
        Account::Local(_)
            if id != name && node.store.read()?.look(Kind::Person, id, |_, _| ())?.is_some() =>
        {
            let message = format!(
                "id: {id} is a person of the federation, with whose id nobody logs in; the technician is {name}"
            );
            Err(ApiError::invalid("id", message))
        }
        Account::Person(_) if !is_account(id) => {
            let message = format!(
                "id: {id} is no federation account ({PERSON_ID_CHARS_MIN} to {PERSON_ID_CHARS_MAX} letters and digits), and \
                 nobody logs in with it"
            );
            Err(ApiError::invalid("id", message))
        }
        _ => Ok(account),
    }
}

/// Whoever makes accounts could make one for root, so the name alone is not enough.
fn authorize(node: &AppState, caller: &Caller) -> Result<(), ApiError> {
    may_administer(node, &caller.principal, Verb::Post)
}

/// `{"roles": [...], "password": "...", "local": true}`: makes an account, or gives an existing person
/// these roles on this node and, if there is one, this password. With `"link": true` the answer brings a one-time
/// link, and a new account needs no password.
///
/// A person's record goes to the centre and to all nodes, so it is told of no roles but those that count from any record
/// (`accounts.central_roles`), and of these only when it is made. The others are granted on this node. Roles that count
/// because the record names them stay; if any was not asked for, the answer names it in `kept_roles`. If the account is closed, the
/// answer says `"active": false`.
pub(crate) async fn add(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
    body: RequestBody,
) -> Result<Response, ApiError> {
    authorize(&node, &caller)?;
    let id = params.id().to_owned();
    let mut body = parse_body(&body.0?)?;
    let is_asked = |body: &Map<String, Value>, name: &str| body.get(name) == Some(&Value::Bool(true));
    let roles = wanted_roles(&node, &body)?;
    if body.contains_key("password") || is_asked(&body, "link") {
        let local = is_asked(&body, "local") && local_name(&id).is_none();
        let account = if local { format!("{id}{LOCAL_SUFFIX}") } else { id.clone() };
        require_current(&node, &caller, &account, &mut body).await?;
    }
    let hash = match body.get("password") {
        None => None,
        Some(Value::String(password)) => Some(node.accounts.hash(&id, password, caller.peer).await?),
        Some(_) => return Err(ApiError::invalid("password", "password: must be text")),
    };
    let is_asked = |name: &str| is_asked(&body, name);
    let link = is_asked("link").then(|| NewLink::draw(&node, &caller)).transpose()?.map(Arc::new);
    let new = NewAccount { roles, hash, link: link.clone() };
    let account = match local_name(&id) {
        None if is_asked("local") => Account::Local(fold_local(&id)),
        _ => account_at(&node, &id)?,
    };
    let added = match &account {
        Account::Local(name) => add_local(&node, &caller, name, new).await?,
        Account::Person(id) => add_person(&node, &caller, id, new).await?,
    };
    let Some(Added { is_new, is_open, kept_roles }) = added else {
        return Err(ApiError::invalid("password", "password: a new account needs one, or a link"));
    };
    let mut answer = json!({"id": account.to_string(), "local": matches!(account, Account::Local(_))});
    if !is_open {
        answer["active"] = json!(false);
    }
    if !kept_roles.is_empty() {
        answer["kept_roles"] = json!(kept_roles);
    }
    if let Some(link) = link {
        answer["link"] = link.shown();
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(answer)).into_response())
}

/// What an account is to have.
struct NewAccount {
    roles: Vec<String>,
    hash: Option<String>,
    /// A password comes later, by this link.
    link: Option<Arc<NewLink>>,
}

/// What became of an account that was to be added.
struct Added {
    is_new: bool,
    /// Whether anybody can log in with it here.
    is_open: bool,
    /// Roles that the person has beside those that were asked for, because their record names them.
    kept_roles: Vec<String>,
}

fn wanted_roles(node: &AppState, body: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let acl = node.acl();
    let known = || acl.role_names().join(", ");
    let invalid = |problem: String| ApiError::invalid("roles", format!("roles: {problem}"));
    let not_a_list = |_| invalid(format!("must be a list of names; there are {}", known()));
    let roles: Vec<String> = match body.get("roles") {
        Some(roles) => serde_json::from_value(roles.clone()).map_err(not_a_list)?,
        None => Vec::new(),
    };
    let unknown: Vec<String> =
        roles.iter().filter(|role| !acl.knows_role(role)).map(|role| format!("{role:?}")).collect();
    let is_repeated = |(at, role): &(usize, &String)| roles.iter().take(*at).any(|other| other == *role);
    let repeated = roles.iter().enumerate().find(is_repeated);
    match (roles.is_empty(), unknown.is_empty(), repeated) {
        (true, ..) => Err(invalid(format!("at least one is needed; there are {}", known()))),
        (_, false, _) => Err(invalid(format!(
            "the access rules know no role {}; there are {}",
            unknown.join(", "),
            known()
        ))),
        (_, _, Some((_, role))) => Err(invalid(format!("{role:?} is there twice"))),
        _ => Ok(roles),
    }
}

/// Whether a technician's account may have this name, without its ending; in words if not.
pub fn check_local_name(name: &str) -> Result<(), &'static str> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match !name.is_empty() && name.len() <= LOCAL_NAME_CHARS_MAX && is_plain {
        true => Ok(()),
        false => Err("id: 1 to 64 letters, digits and . _ - only"),
    }
}

/// What became of the account; `None` if it would be new and there is no way to a password for it.
async fn add_local(
    node: &Arc<AppState>,
    caller: &Caller,
    name: &str,
    new: NewAccount,
) -> Result<Option<Added>, ApiError> {
    let actor = caller.principal.actor.clone();
    check_local_name(name).map_err(|message| ApiError::invalid("id", message))?;
    let name = name.to_owned();
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let added = caller.writes(node).transact(move |tx| -> Result<Option<Added>, StoreError> {
        // Earlier versions kept capitals.
        let name = tx.resolve_local_account(&name)?.unwrap_or_else(|| name.clone());
        let known = tx.local_account(&name)?;
        let is_new = known.is_none();
        let mut account = known.unwrap_or_default();
        match &new.hash {
            Some(hash) => drop(account.insert("password", hash)),
            None if is_new && new.link.is_none() => return Ok(None),
            None => {}
        }
        account.insert("roles", new.roles.clone());
        tx.set_local_account(&name, Some(&account), &actor)?;
        if let Some(link) = &new.link {
            link.keep_for(tx, &Account::Local(fold_local(&name)))?;
        }
        Ok(Some(Added { is_new, is_open: is_active(&account), kept_roles: Vec::new() }))
    });
    Ok(added.await?)
}

/// As [`add_local`], for people. The record of one who is there changes in its password only: a person who was deleted at
/// the centre meanwhile does not come back because of a role.
async fn add_person(
    node: &Arc<AppState>,
    caller: &Caller,
    id: &str,
    new: NewAccount,
) -> Result<Option<Added>, ApiError> {
    let actor = caller.principal.actor.clone();
    let central = node.settings.central_roles.clone();
    let id = id.to_owned();
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let added = caller.writes(node).transact(move |tx| -> Result<Option<Added>, EditError> {
        let stored = tx.resolve_person(&id)?;
        let is_new = stored.is_none();
        let key = RecordKey::new(Kind::Person, stored.unwrap_or_else(|| id.clone()));
        let mut person = tx.document(&key)?.unwrap_or_else(|| doc! {"_id": &id, "active": true});
        if let Some(hash) = &new.hash {
            person.insert("password", hash);
        } else if is_new && new.link.is_none() {
            return Ok(None);
        }
        if is_new {
            let of_all: Vec<String> =
                new.roles.iter().filter(|role| central.contains(role)).cloned().collect();
            person.insert("roles", if of_all.is_empty() { vec![END_USER.to_owned()] } else { of_all });
        }
        if is_new && tx.is_another_ones(&key, &person)? {
            return Err(EditError::Departed);
        }
        tx.edit(&key, Some(&person), &actor)?;
        let of_record = Granted::default().counting(strings(person.get("roles")), &central);
        let here = new.roles.iter().filter(|role| !of_record.contains(role)).cloned().collect();
        tx.replace_grants(&key.id, &Granted { of_record: Vec::new(), here }, &actor)?;
        if let Some(link) = &new.link {
            link.keep_for(tx, &Account::Person(fold_account(&id)))?;
        }
        let kept_roles = of_record.into_iter().filter(|role| !is_new && !new.roles.contains(role)).collect();
        let is_open = tx.is_account_open(&key.id, &person)?;
        Ok(Some(Added { is_new, is_open, kept_roles }))
    });
    Ok(added.await?)
}

/// `{"password": "..."}`: sets the password of a technician or of a person.
pub(crate) async fn set_password(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
    body: RequestBody,
) -> Result<Response, ApiError> {
    authorize(&node, &caller)?;
    let id = params.id().to_owned();
    let mut body = parse_body(&body.0?)?;
    let account = account_at(&node, &id)?;
    require_current(&node, &caller, &id, &mut body).await?;
    let Some(Value::String(password)) = body.get("password") else {
        return Err(ApiError::invalid("password", "password: must be text"));
    };
    let hash = node.accounts.hash(&id, password, caller.peer).await?;
    let actor = caller.principal.actor.clone();
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let set = caller
        .writes(&node)
        .transact(move |tx| -> Result<bool, StoreError> { store_password(tx, &account, &hash, &actor) });
    if set.await? { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(unknown()) }
}

/// Why nobody opens an account by a word.
const GONE: &str = "the person was deleted at the centre, and records of theirs were never sent: decide the conflict about the \
                    person first (thalamus-edge conflicts list); \"local\" opens the account";

/// `{"active": false}` closes an account, `true` opens it again; with `"unless_closed_here": true` only if it was not closed
/// on this node.
pub(crate) async fn set_active(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
    body: RequestBody,
) -> Result<Response, ApiError> {
    authorize(&node, &caller)?;
    let actor = caller.principal.actor.clone();
    let account = match account_at(&node, params.id())? {
        // Two people may have the account in two spellings: the one whose stored spelling is given is meant.
        Account::Person(id) => {
            let stored = node.store.read()?.look(Kind::Person, params.id(), |stored, _| stored.to_owned())?;
            Account::Person(stored.unwrap_or(id))
        }
        technician => technician,
    };
    let body = parse_body(&body.0?)?;
    let Some(Value::Bool(is_active)) = body.get("active").cloned() else {
        return Err(ApiError::invalid("active", "active: must be true or false"));
    };
    let spares_closed = body.get("unless_closed_here") == Some(&Value::Bool(true));
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let set = caller.writes(&node).transact(move |tx| -> Result<Result<bool, &'static str>, StoreError> {
        if let Account::Person(id) = &account
            && let Some(id) = tx.resolve_person(id)?
        {
            if is_active && tx.closing(&id)? == Some(Closing::Gone) {
                return Ok(Err(GONE));
            }
            if spares_closed && tx.is_closed_here(&id)? {
                return Ok(Err("the account was closed on this node"));
            }
        }
        if !change_account(tx, &account, &actor, |document| drop(document.insert(ACTIVE, is_active)))? {
            return Ok(Ok(false));
        }
        // Also if the record has said so before: now it is this node's word.
        if let Account::Person(id) = &account {
            let id = tx.resolve_person(id)?.unwrap_or_else(|| id.clone());
            tx.set_closed_here(&id, !is_active, &actor)?;
        }
        step("active.setting");
        Ok(Ok(true))
    });
    let set = set.await?;
    step("active.set");
    match set {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(false) => Err(unknown()),
        Err(why) => Err(ApiError::invalid("active", why)),
    }
}

/// Whether anybody can log in with an account here, as far as it is open; false if there is no such account.
fn is_account_open(tx: &Tx<'_>, account: &Account) -> Result<bool, StoreError> {
    let Some(document) = document_of(tx, account)? else {
        return Ok(false);
    };
    match account {
        Account::Local(_) => Ok(is_active(&document)),
        Account::Person(id) => {
            let id = tx.resolve_person(id)?.unwrap_or_else(|| id.clone());
            tx.is_account_open(&id, &document)
        }
    }
}

/// Makes a one-time link that sets the account's password. The answer says `"active": false` if the account
/// is closed.
pub(crate) async fn make_link(
    State(node): State<Arc<AppState>>,
    caller: Caller,
    params: PathParams,
    body: RequestBody,
) -> Result<Response, ApiError> {
    authorize(&node, &caller)?;
    let body = body.0?;
    let mut body = if body.is_empty() { Map::new() } else { parse_body(&body)? };
    // A link to one's own account is a new password of one's own.
    require_current(&node, &caller, params.id(), &mut body).await?;
    let (account, link) = (account_at(&node, params.id())?, Arc::new(NewLink::draw(&node, &caller)?));
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let kept = Arc::clone(&link);
    let made = caller.writes(&node).transact(move |tx| -> Result<Option<bool>, StoreError> {
        match kept.keep_for(tx, &account)? {
            true => is_account_open(tx, &account).map(Some),
            false => Ok(None),
        }
    });
    let is_open = made.await?.ok_or_else(unknown)?;
    let mut answer = link.shown();
    if !is_open {
        answer["active"] = json!(false);
    }
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}
