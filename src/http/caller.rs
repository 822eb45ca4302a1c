//! Floor 4. Who is asking: HTTP Basic or a session, before any routing.
//!
//! [`require_login`] stands in front of every route, so a path cannot be reached, nor be told from one
//! that does not exist, without valid credentials. Handlers take a [`Caller`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::extract::{FromRequestParts, Request};
use axum::http::{HeaderMap, Method, header, request::Parts};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::error::ApiError;
use super::link::LINK_ROUTE;
use super::session;
use super::witness::{Witness, login_failed};
use super::{Node, Pattern, Way, writes};
use crate::accounts::{LoginError, SessionId, StoredAccount};
use crate::domain::access::{Actor, Principal};
use crate::domain::audit::NOBODY;
use crate::domain::encoding::decoded;
use crate::domain::record::Kind;
use crate::store::{Asker, Snapshot, StoreError, asked_by};

/// Ending of the names of technicians' accounts, which exist on one node only.
pub const LOCAL_SUFFIX: &str = "@local";

/// Paths that need no login.
const PUBLIC_PATHS: &[&str] = &["/", "/healthz", "/readyz"];

/// Where a request comes from; set by whoever accepted the connection.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    Address(IpAddr),
    /// The node's Unix socket: the operator of the machine, by user id.
    Operator {
        uid: u32,
    },
}

impl Peer {
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Peer::Address(address) => address,
            Peer::Operator { .. } => IpAddr::from([127, 0, 0, 1]),
        }
    }

    /// Nothing for the machine itself.
    pub(crate) fn from(self) -> Option<IpAddr> {
        match self {
            Peer::Address(address) => Some(address),
            Peer::Operator { .. } => None,
        }
    }
}

/// Somebody whose credentials were verified for this request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) peer: IpAddr,
    /// The session by which they came in, if it was not by their password.
    pub(crate) session: Option<SessionId>,
}

impl Caller {
    /// Where the request comes from; nothing for the machine itself.
    pub(crate) fn from(&self) -> Option<IpAddr> {
        let is_operator = matches!(self.principal.actor, Actor::Operator(_));
        (!is_operator).then_some(self.peer)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Absent only if a route were mounted outside the login layer: then nobody gets in.
        parts.extensions.get::<Caller>().cloned().ok_or(ApiError::Unauthorized)
    }
}

/// Lets verified callers through and answers everybody else.
pub(crate) async fn require_login(node: &Arc<Node>, way: Way, request: Request) -> Response {
    let pattern = way.pattern;
    if PUBLIC_PATHS.contains(&request.uri().path())
        || is_link(pattern, &request)
        || session::is_open(node, pattern, &request)
    {
        return way.go(node, None, request).await;
    }
    let peer = request.extensions().get::<Peer>().copied();
    let caller = match peer {
        Some(peer @ Peer::Operator { uid }) => Ok(Caller {
            principal: Arc::new(Principal::new(Actor::Operator(uid), Vec::new())),
            peer: peer.address(),
            session: None,
        }),
        Some(Peer::Address(peer)) => match session::caller(node, pattern, &request, peer) {
            Some(caller) => caller,
            None => verify(node, request.headers(), peer).await,
        },
        None => Err(ApiError::Unauthorized),
    };
    match caller {
        Ok(caller) => {
            let witness = Witness::of(&request, pattern);
            let asker = Asker { who: caller.principal.actor.clone(), from: caller.from() };
            let response = asked_by(asker, writes::go(node, way, &caller, request)).await;
            witness.saw(node, &caller, response).await
        }
        Err(error) => error.into_response(),
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
    let StoredAccount { principal, .. } = log_in(node, &user, &password, peer).await?;
    Ok(Caller { principal, peer, session: None })
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
    if let Some(stored) = stored.as_ref().filter(|stored| node.accounts.has_verified(user, password, stored))
    {
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
        Ok(stored) => Ok(stored),
        Err(error) => {
            if error == LoginError::Refused {
                tracing::info!(%peer, "login refused");
            }
            login_failed(node, NOBODY, account.as_ref(), Some(peer), error);
            Err(error.into())
        }
    }
}

/// The user and password of an `Authorization: Basic` header (RFC 7617); nothing if there is more than one
/// header, or if what it holds is not in order. A user that is not UTF-8 is Latin-1. Tests reach it by this name; handlers take a `Caller`.
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

/// Accounts as they were in a view of the store, by the names that people gave.
#[derive(Default)]
pub struct KnownAccounts(Mutex<HashMap<String, (Weak<Snapshot>, StoredAccount)>>);

/// Most names that are remembered; a clinic has fewer who work at the same time.
const KNOWN_ACCOUNTS_MAX: usize = 256;

/// [`find_account`], without looking again for what is the same for as long as nothing is written: that costs a
/// quarter of what answering with a record does.
fn known_account(node: &Node, user: &str) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    let known = || node.known_accounts.0.lock().unwrap_or_else(PoisonError::into_inner);
    let seen =
        known().get(user).filter(|(seen_in, _)| std::ptr::eq(seen_in.as_ptr(), Arc::as_ptr(&view))).cloned();
    if let Some((_, account)) = seen {
        return at_present(node, &view, account).map(Some);
    }
    let found = account_in(node, &view, user)?;
    if let Some(account) = &found {
        let mut known = known();
        if known.len() >= KNOWN_ACCOUNTS_MAX {
            known.clear();
        }
        known.insert(user.to_owned(), (Arc::downgrade(&view), account.clone()));
    }
    found.map(|account| at_present(node, &view, account)).transpose()
}

/// The account of this name as it is now, with the roles that count on this node.
pub(crate) fn find_account(node: &Node, user: &str) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    account_in(node, &view, user)?.map(|account| at_present(node, &view, account)).transpose()
}

/// The account at this moment: a person's is as if closed while the centre has not been heard for too long. Not part of
/// what is remembered of a view, because time passes while nothing is written.
fn at_present(node: &Node, view: &Snapshot, account: StoredAccount) -> Result<StoredAccount, StoreError> {
    let is_person = matches!(account.principal.actor, Actor::Person(_));
    let active = account.active && (!is_person || node.sync.admits_people(view)?);
    Ok(StoredAccount { active, ..account })
}

fn account_in(node: &Node, snapshot: &Snapshot, user: &str) -> Result<Option<StoredAccount>, StoreError> {
    if let Some(name) = local_name(user) {
        let Some(name) = snapshot.resolve_local_account(name)? else {
            return Ok(None);
        };
        let Some(account) = snapshot.local_account(&name)? else {
            return Ok(None);
        };
        return Ok(Some(StoredAccount {
            principal: Arc::new(Principal::new(Actor::Local(name), strings(account.get("roles")))),
            password_hash: account.get_str("password").ok().map(Arc::from),
            active: is_active(&account),
        }));
    }
    let Some(record) = snapshot.find(Kind::Person, user)? else {
        return Ok(None);
    };
    // Not decoded as a whole: this is done for every request.
    let person = &record.document;
    let password_hash = person.get_str("password").ok();
    let granted = snapshot.grants(&record.id, password_hash.unwrap_or_default())?;
    let mut roles: Vec<String> = match person.get_array("roles") {
        Ok(roles) => {
            roles.into_iter().flatten().filter_map(|role| role.as_str().map(str::to_owned)).collect()
        }
        Err(_) => Vec::new(),
    };
    roles.retain(|role| node.settings.central_roles.contains(role) || granted.contains(role));
    let shares_account = snapshot.is_shared(&record.id)?;
    Ok(Some(StoredAccount {
        password_hash: password_hash.map(Arc::from),
        active: person.get_bool("active").unwrap_or(true),
        principal: Arc::new(Principal { actor: Actor::Person(record.id), roles, shares_account }),
    }))
}

/// The name of a technician's account without its ending, as it was typed.
pub fn local_name(user: &str) -> Option<&str> {
    let (name, ending) = user.split_at_checked(user.len().checked_sub(LOCAL_SUFFIX.len())?)?;
    ending.eq_ignore_ascii_case(LOCAL_SUFFIX).then_some(name)
}

/// The spelling in which a technician's account is stored: any is the same account.
pub fn fold_local(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Only what says so is inactive: records of the HMIS leave the field out.
pub(crate) fn is_active(account: &bson::Document) -> bool {
    !matches!(account.get("active"), Some(bson::Bson::Boolean(false)))
}

/// The caller as they are now, for answers that go on for long: nobody whose account was closed meanwhile.
pub(crate) fn refreshed(node: &Node, caller: &Caller) -> Result<Option<Caller>, StoreError> {
    let Some(user) = account_name(&caller.principal.actor) else {
        return Ok(Some(caller.clone()));
    };
    if caller.session.is_some_and(|id| !node.accounts.sessions().is_alive(&id)) {
        return Ok(None);
    }
    let account = find_account(node, &user)?.filter(|account| account.active);
    Ok(account.map(|account| Caller { principal: account.principal, ..caller.clone() }))
}

/// The name by which somebody logs in, if they do.
pub(crate) fn account_name(actor: &Actor) -> Option<String> {
    match actor {
        Actor::Person(id) => Some(id.clone()),
        Actor::Local(name) => Some(format!("{name}{LOCAL_SUFFIX}")),
        Actor::Operator(_) | Actor::Centre => None,
    }
}

/// The strings of a stored list; anything else there grants nothing.
pub(crate) fn strings(value: Option<&bson::Bson>) -> Vec<String> {
    let values = value.and_then(bson::Bson::as_array).map_or(&[][..], |values| values);
    values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}
