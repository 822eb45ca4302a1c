//! Floor 4. One-time links: whoever holds one sets the password of one account, once, without logging in.
//!
//! For a node's first administrator and for people who have forgotten their password: nobody has to invent a
//! password for somebody else and pass it on. The link carries 32 random bytes; only their SHA-256 is kept. It
//! ends with the password that it was made to replace, however that changes, so it works once, and never for
//! another account that has come to bear the name. A link that is wrong, used or too old is answered like any
//! path without login.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bson::{Document, doc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::caller::{Peer, find_account, is_active};
use super::error::ApiError;
use super::extract::{At, Sent};
use super::password::{Fields, FormPage};
use super::rights::Writes;
use super::users::{ACCOUNT_BYTES, Account, document_of, store_password};
use super::{BrowserSessions, Node};
use crate::accounts::{HashError, canonical};
use crate::domain::access::Actor;
use crate::domain::audit::{Event, Outcome, What};
use crate::store::{Asker, Right, Stale, Standing, StoreError, Tx};

/// Where links lead; [`super::caller::require_login`] lets requests for it through.
pub(crate) const LINK_ROUTE: &str = "/link/{secret}";
/// How long a link may be used.
const LINK_HOURS_MAX: i64 = 24;
const HOUR_MS: i64 = 60 * 60 * 1000;
/// Links open at the same time; a new one beyond that ends the oldest.
const LINKS_MAX: usize = 64;
const SECRET_BYTES: usize = 32;
/// Where links are kept: `{links: [{hash, account, replaces, expires_ms}]}`, the oldest first.
const META_LINKS: &str = "password_links";

struct Link {
    /// SHA-256 of the secret, in hexadecimal digits.
    hash: String,
    account: String,
    /// SHA-256 of the bcrypt hash that the account had; of nothing if it had none.
    replaces: String,
    expires_ms: i64,
}

impl Link {
    fn is_usable(&self, now_ms: i64, is_active: bool, password_hash: Option<&str>) -> bool {
        let replaces = hash_of(password_hash.unwrap_or_default());
        self.is_open(now_ms) && is_active && self.replaces == replaces
    }

    /// Whether its time is now. One that seems to be made in the future is over: the clock has been set back, and
    /// it would otherwise be open until it comes there again.
    fn is_open(&self, now_ms: i64) -> bool {
        let left_ms = self.expires_ms.saturating_sub(now_ms);
        left_ms > 0 && left_ms <= LINK_HOURS_MAX * HOUR_MS
    }
}

fn links(row: Option<&Document>) -> Vec<Link> {
    let rows = row.and_then(|row| row.get_array("links").ok()).map_or(&[][..], |rows| rows);
    let link = |row: &bson::Bson| {
        let row = row.as_document()?;
        Some(Link {
            hash: row.get_str("hash").ok()?.to_owned(),
            account: row.get_str("account").ok()?.to_owned(),
            replaces: row.get_str("replaces").ok()?.to_owned(),
            expires_ms: row.get_i64("expires_ms").ok()?,
        })
    };
    rows.iter().filter_map(link).collect()
}

fn keep(tx: &mut Tx<'_>, links: &[Link]) -> Result<(), StoreError> {
    let rows = links.iter().map(|Link { hash, account, replaces, expires_ms }| {
        doc! {"hash": hash, "account": account, "replaces": replaces, "expires_ms": expires_ms}
    });
    let row = doc! {"links": rows.collect::<Vec<_>>()};
    tx.set_meta(META_LINKS, (!links.is_empty()).then_some(&row))
}

fn hash_of(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// A link that is being made. The secret is the only copy.
pub(crate) struct NewLink {
    secret: String,
    now_ms: i64,
}

impl NewLink {
    /// Fails if the machine gives no randomness.
    pub(crate) fn draw(node: &Node) -> Result<NewLink, ApiError> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|error| {
            tracing::error!(%error, "no randomness for a link");
            ApiError::Internal
        })?;
        Ok(NewLink { secret: URL_SAFE_NO_PAD.encode(secret), now_ms: node.store.now_ms() })
    }

    fn expires_ms(&self) -> i64 {
        self.now_ms + LINK_HOURS_MAX * HOUR_MS
    }

    /// Makes it a link to this account; earlier ones of the same account end. False if there is no such account.
    pub(crate) fn keep_for(&self, tx: &mut Tx<'_>, account: &Account) -> Result<bool, StoreError> {
        let Some(document) = document_of(tx, account)? else {
            return Ok(false);
        };
        let replaces = hash_of(document.get_str("password").unwrap_or_default());
        let name = account.to_string();
        let mut open = links(tx.meta(META_LINKS)?.as_ref());
        open.retain(|other| other.is_open(self.now_ms) && other.account != name);
        open.drain(..(open.len() + 1).saturating_sub(LINKS_MAX));
        tx.audit_asked(What::Link, |event| event.about(account.kind(), &name, account.owner()))?;
        open.push(Link {
            hash: hash_of(&self.secret),
            account: name,
            replaces,
            expires_ms: self.expires_ms(),
        });
        keep(tx, &open)?;
        Ok(true)
    }

    /// `{"path", "expires_at"}`.
    pub(crate) fn shown(&self) -> Value {
        let expires_at = bson::DateTime::from_millis(self.expires_ms()).try_to_rfc3339_string();
        json!({
            "path": LINK_ROUTE.replace("{secret}", &self.secret),
            "expires_at": expires_at.unwrap_or_default(),
        })
    }
}

/// The hash of the link that the path carries, and the account that it is for.
fn find(node: &Node, at: &At, peer: Peer) -> Result<(String, Account), ApiError> {
    let found = find_usable(node, at);
    if let Err(ApiError::Unauthorized) = found {
        note_refused(node, peer);
    }
    found
}

/// A link that is none is a credential that fails.
fn note_refused(node: &Node, peer: Peer) {
    let event = Event::by_nobody(What::LoginFailed).at(peer.from());
    node.store.note(event.ended(Outcome::UnknownLink));
}

fn find_usable(node: &Node, at: &At) -> Result<(String, Account), ApiError> {
    let hash = hash_of(at.get("secret").unwrap_or_default());
    let row = node.store.read()?.meta(META_LINKS)?;
    // Comparing hashes tells by its time nothing about the secret of which they are made.
    let link =
        links(row.as_ref()).into_iter().find(|link| link.hash == hash).ok_or(ApiError::Unauthorized)?;
    let account = find_account(node, &link.account)?.ok_or(ApiError::Unauthorized)?;
    if !link.is_usable(node.store.now_ms(), account.active, account.password_hash.as_deref()) {
        return Err(ApiError::Unauthorized);
    }
    Ok((hash, Account::named(&link.account)))
}

/// The right that a link gives, while it can be used.
struct Open {
    hash: String,
    account: Account,
    now_ms: i64,
}

impl Standing for Open {
    fn check(&self, tx: &Tx<'_>) -> Result<Result<(), Stale>, StoreError> {
        let open = links(tx.meta(META_LINKS)?.as_ref());
        let link = open.iter().find(|link| link.hash == self.hash);
        let (Some(link), Some(document)) = (link, document_of(tx, &self.account)?) else {
            return Ok(Err(Stale::Link));
        };
        let password = document.get_str("password").ok();
        let is_usable = link.is_usable(self.now_ms, is_active(&document), password);
        Ok(if is_usable { Ok(()) } else { Err(Stale::Link) })
    }
}

pub(crate) async fn form(
    State(node): State<Arc<Node>>,
    at: At,
    Extension(peer): Extension<Peer>,
) -> Result<Response, ApiError> {
    let (_, account) = find(&node, &at, peer)?;
    Ok(page(&node, &account).render(StatusCode::OK, None))
}

fn page(node: &Node, account: &Account) -> FormPage {
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
    State(node): State<Arc<Node>>,
    at: At,
    Extension(peer): Extension<Peer>,
    body: Sent,
) -> Result<Response, ApiError> {
    let (hash, account) = find(&node, &at, peer)?;
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
    let actor = match &account {
        Account::Local(name) => Actor::Local(name.clone()),
        Account::Person(id) => Actor::Person(id.clone()),
    };
    let _claim = node.store.claim(ACCOUNT_BYTES)?;
    let right = Right::Client(Arc::new(Open { hash: hash.clone(), account: account.clone(), now_ms }));
    let writes = Writes::by(&node.store, Asker { who: actor.clone(), from: peer.from(), right });
    let setting = writes.transact(move |tx| -> Result<bool, StoreError> {
        let mut open = links(tx.meta(META_LINKS)?.as_ref());
        open.retain(|link| link.hash != hash);
        keep(tx, &open)?;
        store_password(tx, &account, &password_hash, &actor)
    });
    match setting.await {
        Ok(true) => {}
        // Used by somebody else, or replaced, while the body came or the password was being hashed.
        Ok(false) | Err(StoreError::Stale(_)) => {
            note_refused(&node, peer);
            return Err(ApiError::Unauthorized);
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!("a password was set by a one-time link");
    Ok(page.render(StatusCode::OK, Some((true, "The password is set. This link cannot be used again."))))
}
