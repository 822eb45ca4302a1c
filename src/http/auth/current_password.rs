//! Floor 4. Asks for the caller's current password where a session alone does not suffice.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::accounts::{LoginError, StoredAccount};
use crate::domain::access::{Actor, Principal};
use crate::domain::record::{Kind, fold_account};
use crate::http::access::account::{Account, fold_local, unknown};
use crate::http::access::account_lookup::find_account;
use crate::http::access::caller::Caller;
use crate::http::audit_observer::login_failed;
use crate::http::error::ApiError;
use crate::http::error::conversion::CURRENT_FIELD_NAME;
use crate::http::state::app_state::AppState;
use crate::store::StoredRecord;

/// Lets nobody change their own password, nor make themselves a way to, who has only found an open session: they must
/// say the current password. HTTP Basic has said it with this very request. Takes the field out of the body, so that it
/// is stored nowhere.
pub(crate) async fn require_current(
    node: &AppState,
    caller: &Caller,
    account: &str,
    body: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let invalid = |problem: &str| {
        Err(ApiError::invalid(CURRENT_FIELD_NAME, format!("{CURRENT_FIELD_NAME}: {problem}")))
    };
    let given = body.remove(CURRENT_FIELD_NAME);
    if !is_own(&caller.principal, account) {
        return Ok(());
    }
    match given {
        None if caller.session.is_none() => Ok(()),
        None => invalid("a session must give the password that is being replaced, to change one's own"),
        Some(Value::String(current)) => match is_current(node, caller, account, &current).await? {
            true => Ok(()),
            false => invalid("is not the password of this account"),
        },
        Some(_) => invalid("must be text"),
    }
}

/// Whether this is the caller's password at present; a wrong one counts and is audited as a login that failed.
pub(crate) async fn is_current(
    node: &AppState,
    caller: &Caller,
    account: &str,
    current: &str,
) -> Result<bool, ApiError> {
    let stored = StoredAccount {
        principal: caller.principal.clone(),
        password_hash: held(node, account)?,
        active: true,
        rights_count: caller.rights_count,
    };
    let verified = node.accounts.verify(account, current.as_bytes(), caller.peer, Some(stored)).await;
    let Err(error) = verified else {
        caller.progress.give_password();
        return Ok(true);
    };
    let actor = &caller.principal.actor;
    login_failed(node, actor, Some(actor), caller.from(), error);
    match error {
        LoginError::Refused => Ok(false),
        busy => Err(busy.into()),
    }
}

/// Whether somebody asks for their own account; technicians have one too. An account that two records share is their own
/// here: it is the password of theirs that would change.
pub(crate) fn is_own(who: &Principal, account: &str) -> bool {
    match (Account::named(account), &who.actor) {
        (Account::Local(name), Actor::Local(own)) => name == fold_local(own),
        (Account::Person(id), Actor::Person(own)) => id == fold_account(own),
        _ => false,
    }
}

/// Checks the caller's password that a body gives which decides about records: one of them may be the caller's own.
pub(crate) async fn check_given(node: &AppState, caller: &Caller, given: Value) -> Result<(), ApiError> {
    let Some(account) = caller.principal.actor.login_name() else {
        return Ok(());
    };
    let mut given = Map::from_iter([(CURRENT_FIELD_NAME.to_owned(), given)]);
    require_current(node, caller, &account, &mut given).await
}

/// The hash of an account's password, as it is; an error if there is no such account.
pub(crate) fn held(node: &AppState, account: &str) -> Result<Option<Arc<str>>, ApiError> {
    match Account::named(account) {
        Account::Local(_) => Ok(find_account(node, account)?.ok_or_else(unknown)?.password_hash),
        Account::Person(_) => Ok(find(node, account)?.document.get_str("password").ok().map(Into::into)),
    }
}

pub(crate) fn find(node: &AppState, person: &str) -> Result<StoredRecord, ApiError> {
    node.store.read()?.find(Kind::Person, person)?.ok_or_else(unknown)
}
