//! Floor 4. Verifies account and password: HTTP Basic credentials, and those of the login form.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::accounts::{LoginError, StoredAccount};
use crate::domain::access::Actor;
use crate::domain::encoding::decoded;
use crate::http::access::account_lookup::{find_account, known_account};
use crate::http::audit_observer::login_failed;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;

/// The account that name and password open; an attempt that fails is audited.
pub(crate) async fn log_in(
    node: &AppState,
    user: &str,
    password: &[u8],
    peer: IpAddr,
) -> Result<StoredAccount, ApiError> {
    let stored = known_account(node, user)?;
    // What follows is long and rare, so it is kept apart from what every request carries along.
    let is_verified = |stored: &&StoredAccount| node.accounts.has_verified(user, password, peer, stored);
    if let Some(stored) = stored.as_ref().filter(is_verified) {
        return Ok(stored.clone());
    }
    Box::pin(verify_anew(node, user, password, peer, stored)).await
}

async fn verify_anew(
    node: &AppState,
    user: &str,
    password: &[u8],
    peer: IpAddr,
    stored: Option<StoredAccount>,
) -> Result<StoredAccount, ApiError> {
    let account = stored.as_ref().map(|stored| stored.principal.actor.clone());
    let verified = node.accounts.verify(user, password, peer, stored.clone()).await;
    match verified.and_then(|_| stored.ok_or(LoginError::Refused)) {
        // It may have waited its turn while the account was changed: what counts is the account as it is now.
        Ok(stored) => {
            let now = find_account(node, user)?.filter(|now| now.active);
            now.filter(|now| now.rights_count == stored.rights_count).ok_or(ApiError::Unauthorized)
        }
        Err(error) => {
            if error == LoginError::Refused {
                tracing::info!(%peer, "login refused");
            }
            login_failed(node, &Actor::Nobody, account.as_ref(), Some(peer), error);
            Err(error.into())
        }
    }
}

/// The user and password of an `Authorization: Basic` header (RFC 7617); nothing if there is more than one
/// header, or if what it holds is not in order. A user that is not UTF-8 is windows-1252. Tests reach it by this name; handlers take a `Caller`.
pub fn basic_credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut user = BASE64.decode(encoded.trim()).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    Some((decoded(&user).into_owned(), password))
}
