//! Floor 4. Verifies the caller of a request: by HTTP Basic or by a session, before any routing.
//!
//! [`authenticate`] is asked for every request, so a path cannot be reached, nor be told from one that does not exist, without
//! valid credentials. Handlers take a [`Caller`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, Method};

use crate::accounts::StoredAccount;
use crate::domain::access::{Actor, Principal};
use crate::http::access::caller::{Caller, Peer};
use crate::http::auth::basic_login::{basic_credentials, log_in};
use crate::http::auth::links::LINK_ROUTE;
use crate::http::auth::sessions;
use crate::http::error::ApiError;
use crate::http::extract::Pattern;
use crate::http::state::app_state::AppState;

/// Paths that need no login.
const PUBLIC_PATHS: &[&str] = &["/", "/healthz", "/readyz"];

/// Returns the caller of a request, or nothing for one that needs no login.
///
/// Takes the request by `&mut` because a shared borrow of a body may not be held while passwords are verified.
pub(crate) async fn authenticate(
    node: &AppState,
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
        Some(peer @ Peer::Operator { uid }) => {
            let principal = Arc::new(Principal::new(Actor::Operator(uid), Vec::new()));
            let operator = StoredAccount { principal, password_hash: None, active: true, rights_count: 0 };
            Ok(Some(Caller::of_account(node, operator, peer.address(), None)))
        }
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

async fn verify(node: &AppState, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, ApiError> {
    let (user, password) = basic_credentials(headers).ok_or(ApiError::Unauthorized)?;
    let account = log_in(node, &user, &password, peer).await?;
    Ok(Caller::of_account(node, account, peer, None))
}
