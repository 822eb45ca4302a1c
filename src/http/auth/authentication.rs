//! Floor 4. Verifies the caller of a request: by HTTP Basic or by a session, before any routing.
//!
//! [`authenticate`] is asked for every request, so a path cannot be reached, nor be told from one that does not exist, without
//! valid credentials. Handlers take a [`Caller`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::accounts::{LoginError, StoredAccount};
use crate::domain::access::{Actor, Principal};
use crate::domain::encoding::decoded;
use crate::http::access::account_lookup::{find_account, known_account};
use crate::http::access::caller::{Caller, PasswordVersion, Peer, Progress};
use crate::http::audit_observer::login_failed;
use crate::http::auth::links::LINK_ROUTE;
use crate::http::auth::sessions;
use crate::http::bodies::answer_budget::AnswerBudget;
use crate::http::error::ApiError;
use crate::http::extract::Pattern;
use crate::http::state::app_state::Node;

/// Paths that need no login.
const PUBLIC_PATHS: &[&str] = &["/", "/healthz", "/readyz"];

/// Returns the caller of a request, or nothing for one that needs no login.
///
/// Takes the request by `&mut` because a shared borrow of a body may not be held while passwords are verified.
pub(crate) async fn authenticate(
    node: &Node,
    pattern: Pattern,
    request: &mut Request,
) -> Result<Option<Caller>, ApiError> {
    if PUBLIC_PATHS.contains(&request.uri().path())
        || is_link(pattern, request)
        || sessions::is_open(node, pattern, request)
    {
        return Ok(None);
    }
    let peer = request.extensions().get::<Peer>().copied();
    match peer {
        Some(peer @ Peer::Operator { uid }) => Ok(Some(Caller {
            principal: Arc::new(Principal::new(Actor::Operator(uid), Vec::new())),
            peer: peer.address(),
            session: None,
            password_hash: PasswordVersion::default(),
            rights_count: 0,
            acl: node.acl(),
            progress: Progress::default(),
            answer: AnswerBudget::default(),
        })),
        Some(Peer::Address(peer)) => match sessions::caller(node, pattern, request, peer) {
            Some(caller) => caller.map(Some),
            None => verify(node, request.headers(), peer).await.map(Some),
        },
        None => Err(ApiError::Unauthorized),
    }
}

/// A link is a credential of its own; without a valid one its handler answers what is answered here. It asks where
/// the request comes from, so one that comes from nowhere gets no farther.
fn is_link(pattern: Pattern, request: &Request) -> bool {
    let is_from_somewhere = request.extensions().get::<Peer>().is_some();
    is_from_somewhere
        && pattern == LINK_ROUTE
        && [Method::GET, Method::HEAD, Method::POST].contains(request.method())
}

async fn verify(node: &Node, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, ApiError> {
    let (user, password) = basic_credentials(headers).ok_or(ApiError::Unauthorized)?;
    let account = log_in(node, &user, &password, peer).await?;
    Ok(Caller::of_account(node, account, peer, None))
}

/// The account that name and password open; an attempt that fails is audited.
pub(crate) async fn log_in(
    node: &Node,
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
    node: &Node,
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
