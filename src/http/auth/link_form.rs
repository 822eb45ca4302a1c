//! Floor 4. The form to which a one-time link leads.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::accounts::{HashError, canonical};
use crate::domain::audit::{Event, Outcome, What};
use crate::http::access::account::{ACCOUNT_BYTES, Account, store_password};
use crate::http::access::account_lookup::{account_of, at_present};
use crate::http::access::caller::Peer;
use crate::http::access::request_body::RequestBody;
use crate::http::audit_observer::about_account;
use crate::http::auth::links::{META_LINKS, Open, Shut, hash_of, keep, links};
use crate::http::auth::password_form::{Fields, FormPage};
use crate::http::error::ApiError;
use crate::http::extract::PathParams;
use crate::http::state::app_state::AppState;
use crate::http::state::client_store::Writes;
use crate::http::state::settings::BrowserSessions;
use crate::store::{Asker, Charge, Right, StoreError};

/// The hash of the link that the path carries, and the account that it is for.
fn find(node: &AppState, params: &PathParams, peer: Peer) -> Result<(String, Account), ApiError> {
    let hash = hash_of(params.get("secret").unwrap_or_default());
    let view = node.store.read()?;
    // Comparing hashes tells by its time nothing about the secret of which they are made.
    let link = links(view.meta(META_LINKS)?.as_ref()).into_iter().find(|link| link.hash == hash);
    let Some(link) = link else {
        return Err(refused(node, peer, Shut::Unknown));
    };
    let checked = link.check(node, node.store.now_ms(), |actor| -> Result<_, StoreError> {
        account_of(node, &view, actor)?.map(|account| at_present(node, &view, account)).transpose()
    })?;
    match checked {
        Ok(()) => Ok((hash, Account::named(&link.account))),
        Err(shut) => Err(refused(node, peer, shut)),
    }
}

/// The answer to a link that does not open: always the same one, as a credential that fails. The audit trail tells more.
fn refused(node: &AppState, peer: Peer, shut: Shut) -> ApiError {
    let event = Event::by_nobody(What::LoginFailed).at(peer.from());
    node.store.note(match shut {
        Shut::Unknown => event.ended(Outcome::UnknownLink),
        Shut::Maker(account) => about_account(event, &account.actor()).ended(Outcome::Stale),
    });
    ApiError::Unauthorized
}

pub(crate) async fn form(
    State(node): State<Arc<AppState>>,
    params: PathParams,
    Extension(peer): Extension<Peer>,
) -> Result<Response, ApiError> {
    let (_, account) = find(&node, &params, peer)?;
    Ok(page(&node, &account).render(StatusCode::OK, None))
}

fn page(node: &AppState, account: &Account) -> FormPage {
    // The link is the secret that another site does not have, so the form needs no token of its own.
    FormPage {
        account: account.to_string(),
        token: String::new(),
        asks_current: false,
        chars_min: node.accounts.password_chars_min(),
        can_log_in: node.settings.browser_sessions == BrowserSessions::On,
    }
}

pub(crate) async fn submit(
    State(node): State<Arc<AppState>>,
    params: PathParams,
    Extension(peer): Extension<Peer>,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let (hash, account) = find(&node, &params, peer)?;
    let fields = Fields::parse(&body.0?);
    let page = page(&node, &account);
    let refuse = |message: &str| page.render(StatusCode::UNPROCESSABLE_ENTITY, Some((false, message)));
    if canonical(&fields.password) != canonical(&fields.again) {
        return Ok(refuse("The two new passwords differ."));
    }
    let shown = account.to_string();
    let password_hash = match node.accounts.hash(&shown, &fields.password, peer.address()).await {
        Ok(hash) => hash,
        Err(HashError::Unacceptable(message)) => return Ok(refuse(&message)),
        Err(error) => return Err(error.into()),
    };
    let now_ms = node.store.now_ms();
    let actor = account.actor();
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let right = Right::Client(Arc::new(Open { node: Arc::clone(&node), hash: hash.clone(), now_ms }));
    let writes = Writes::by(
        &node.store,
        Asker { who: actor.clone(), from: peer.from(), right, charge: Charge::default() },
    );
    let setting = writes.transact(move |tx| -> Result<bool, StoreError> {
        let mut open = links(tx.meta(META_LINKS)?.as_ref());
        open.retain(|link| link.hash != hash);
        keep(tx, &open)?;
        tx.password_is_given();
        store_password(tx, &account, &password_hash, &actor)
    });
    match setting.await {
        Ok(true) => {}
        // Used by somebody else, or replaced, or its maker gone, while the body came or the password was being hashed.
        Ok(false) | Err(StoreError::Stale(_)) => return Err(refused(&node, peer, Shut::Unknown)),
        Err(error) => return Err(error.into()),
    }
    tracing::info!("a password was set by a one-time link");
    Ok(page.render(StatusCode::OK, Some((true, "The password is set. This link cannot be used again."))))
}
