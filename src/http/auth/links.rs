//! Floor 4. One-time links: whoever holds one sets the password of one account, once, without logging in.
//!
//! For a node's first administrator and for people who have forgotten their password: nobody has to invent a
//! password for somebody else and pass it on. The link carries 32 random bytes; only their SHA-256 is kept. It
//! ends with any change of the account's password, roles or activity, so it works once, and never for
//! another account that has come to bear the name. It is only as good as the right by which it was made: it ends with
//! any such change of the administrator who made it, taken back or not, and with access rules by which they may not. A link
//! that is wrong, used or too old is answered like any path without login.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bson::{Document, doc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::accounts::StoredAccount;
use crate::domain::access::{Acl, Actor, Verb};
use crate::domain::audit::What;
use crate::http::access::account::{Account, document_of, may_administer_by};
use crate::http::access::account_lookup::{account_in_tx, at_present};
use crate::http::access::caller::Caller;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;
use crate::store::{Stale, Standing, StoreError, Tx};

/// Where links lead; [`crate::http::auth::authentication`] lets requests for it through.
pub(crate) const LINK_ROUTE: &str = "/link/{secret}";
/// How long a link may be used.
const LINK_HOURS_MAX: i64 = 24;
const HOUR_MS: i64 = 60 * 60 * 1000;
/// Links open at the same time; a new one beyond that ends the oldest.
const LINKS_MAX: usize = 64;
const SECRET_BYTES: usize = 32;
/// Where links are kept: `{links: [{hash, account, rights, expires_ms, by, by_rights}]}`, the oldest first. One without
/// `rights` was made before that was kept, and does not open.
pub(crate) const META_LINKS: &str = "password_links";

pub(crate) struct Link {
    /// SHA-256 of the secret, in hexadecimal digits.
    pub(crate) hash: String,
    pub(crate) account: String,
    /// [`StoredAccount::rights_count`] of the account when it was made.
    rights: u64,
    expires_ms: i64,
    /// Who made it.
    by: Actor,
    /// The same of its maker; 0 if they have no account.
    by_rights: u64,
}

/// Why a link does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shut {
    /// None, used, replaced, too old, or of an account that is closed.
    Unknown,
    /// Who made it may not make it any more: a link to this account.
    Maker(Account),
}

impl Link {
    /// Whether it opens now. `accounts` finds accounts as they are.
    pub(crate) fn check<E>(
        &self,
        node: &AppState,
        now_ms: i64,
        accounts: impl Fn(&Actor) -> Result<Option<StoredAccount>, E>,
    ) -> Result<Result<(), Shut>, E> {
        let account = Account::named(&self.account);
        let replaced = accounts(&account.actor())?.filter(|account| account.active);
        let is_usable =
            self.is_open(now_ms) && replaced.is_some_and(|replaced| replaced.rights_count == self.rights);
        if !is_usable {
            return Ok(Err(Shut::Unknown));
        }
        if !self.by.has_account() {
            return Ok(Ok(()));
        }
        let maker = accounts(&self.by)?.filter(|maker| maker.active);
        let may_make = maker.is_some_and(|maker| {
            let allows = |acl: &Acl| may_administer_by(acl, &maker.principal, Verb::Post).is_ok();
            maker.rights_count == self.by_rights
                && allows(&node.acl())
                && node.unsettled_rules.all_allow(allows)
        });
        Ok(if may_make { Ok(()) } else { Err(Shut::Maker(account)) })
    }

    /// Whether its time is now. One that seems to be made in the future is over: the clock has been set back, and
    /// it would otherwise be open until it comes there again.
    fn is_open(&self, now_ms: i64) -> bool {
        let left_ms = self.expires_ms.saturating_sub(now_ms);
        left_ms > 0 && left_ms <= LINK_HOURS_MAX * HOUR_MS
    }
}

pub(crate) fn links(row: Option<&Document>) -> Vec<Link> {
    let rows = row.and_then(|row| row.get_array("links").ok()).map_or(&[][..], |rows| rows);
    let link = |row: &bson::Bson| {
        let row = row.as_document()?;
        Some(Link {
            hash: row.get_str("hash").ok()?.to_owned(),
            account: row.get_str("account").ok()?.to_owned(),
            rights: u64::try_from(row.get_i64("rights").ok()?).ok()?,
            expires_ms: row.get_i64("expires_ms").ok()?,
            by: Actor::read(row.get_str("by").ok()?)?,
            by_rights: u64::try_from(row.get_i64("by_rights").ok()?).ok()?,
        })
    };
    rows.iter().filter_map(link).collect()
}

pub(crate) fn keep(tx: &mut Tx<'_>, links: &[Link]) -> Result<(), StoreError> {
    let stored = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let rows = links.iter().map(|Link { hash, account, rights, expires_ms, by, by_rights }| {
        doc! {
            "hash": hash, "account": account, "rights": stored(*rights), "expires_ms": expires_ms,
            "by": by.to_string(), "by_rights": stored(*by_rights),
        }
    });
    let row = doc! {"links": rows.collect::<Vec<_>>()};
    tx.set_meta(META_LINKS, (!links.is_empty()).then_some(&row))
}

pub(crate) fn hash_of(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// A link that is being made. The secret is the only copy.
pub(crate) struct NewLink {
    by: Actor,
    secret: String,
    now_ms: i64,
}

impl NewLink {
    /// Fails if the machine gives no randomness.
    pub(crate) fn draw(node: &AppState, caller: &Caller) -> Result<NewLink, ApiError> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|error| {
            tracing::error!(%error, "no randomness for a link");
            ApiError::Internal
        })?;
        Ok(NewLink {
            by: caller.principal.actor.clone(),
            secret: URL_SAFE_NO_PAD.encode(secret),
            now_ms: node.store.now_ms(),
        })
    }

    fn expires_ms(&self) -> i64 {
        self.now_ms + LINK_HOURS_MAX * HOUR_MS
    }

    /// Makes it a link to this account; earlier ones of the same account end. False if there is no such account.
    pub(crate) fn keep_for(&self, tx: &mut Tx<'_>, account: &Account) -> Result<bool, StoreError> {
        if document_of(tx, account)?.is_none() {
            return Ok(false);
        }
        // As this transaction leaves them: it may be the maker's own account whose password it sets.
        let rights = tx.rights_count(&account.actor())?;
        let by_rights = tx.rights_count(&self.by)?;
        let name = account.to_string();
        let mut open = links(tx.meta(META_LINKS)?.as_ref());
        open.retain(|other| other.is_open(self.now_ms) && other.account != name);
        open.drain(..(open.len() + 1).saturating_sub(LINKS_MAX));
        tx.audit_asked(What::Link, |event| event.about(account.kind(), &name, account.owner()))?;
        open.push(Link {
            hash: hash_of(&self.secret),
            account: name,
            rights,
            expires_ms: self.expires_ms(),
            by: self.by.clone(),
            by_rights,
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

/// No account has changed so often: a link with this count of its maker is over for good.
const OVER: u64 = i64::MAX as u64;

/// Ends the links whose makers may not make them by these access rules, also if other rules come back.
pub(crate) fn end_disallowed(node: &AppState, acl: &Acl, tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let mut known = links(tx.meta(META_LINKS)?.as_ref());
    let mut is_any_over = false;
    for link in known.iter_mut().filter(|link| link.by.has_account() && link.by_rights != OVER) {
        let maker = account_in_tx(node, tx, &link.by)?;
        if maker.is_none_or(|maker| may_administer_by(acl, &maker.principal, Verb::Post).is_err()) {
            link.by_rights = OVER;
            is_any_over = true;
        }
    }
    if is_any_over { keep(tx, &known) } else { Ok(()) }
}

/// The right that a link gives, while it can be used.
pub(crate) struct Open {
    pub(crate) node: Arc<AppState>,
    pub(crate) hash: String,
    pub(crate) now_ms: i64,
}

impl Standing for Open {
    fn check(&self, tx: &Tx<'_>) -> Result<Result<(), Stale>, StoreError> {
        let open = links(tx.meta(META_LINKS)?.as_ref());
        let Some(link) = open.iter().find(|link| link.hash == self.hash) else {
            return Ok(Err(Stale::Link));
        };
        // How long the centre has not been heard changes with time, not with what others write now.
        let view = self.node.store.read()?;
        let checked = link.check(&self.node, self.now_ms, |actor| -> Result<_, StoreError> {
            let account = account_in_tx(&self.node, tx, actor)?;
            account.map(|account| at_present(&self.node, &view, account)).transpose()
        })?;
        Ok(checked.map_err(|_| Stale::Link))
    }
}
