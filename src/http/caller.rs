//! Floor 4. Who is asking: HTTP Basic or a session, before any routing.
//!
//! [`require_login`] stands in front of every route, so a path cannot be reached, nor be told from one
//! that does not exist, without valid credentials. Handlers take a [`Caller`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::extract::{FromRequestParts, Request};
use axum::http::{HeaderMap, Method, header, request::Parts};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::RawDocument;

use super::answer_budget::AnswerBudget;
use super::effects;
use super::error::ApiError;
use super::link::LINK_ROUTE;
use super::session;
use super::witness::login_failed;
use super::{Node, Pattern, Way};
use crate::accounts::{LoginError, SessionId, StoredAccount};
use crate::domain::access::{Acl, Actor, Principal, local_name};
use crate::domain::active::{Closing, is_active, is_active_raw, is_open_here};
use crate::domain::encoding::decoded;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::is_account;
use crate::store::{Granted, Snapshot, StoreError, Tx};

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

/// The hash of an account's password when its owner was let in, to notice another one. Its `Debug` does not show it.
#[derive(Clone, Default)]
pub(crate) struct PasswordVersion(pub(crate) Option<Arc<str>>);

impl std::fmt::Debug for PasswordVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordVersion")
    }
}

/// What the caller has done within this request, seen by all copies of the caller.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Done>);

#[derive(Default)]
struct Done {
    /// Whether the password of the account was given, beside the session by which the caller came in.
    password_given: AtomicBool,
    written: Mutex<Option<StoredAccount>>,
}

impl Progress {
    pub(super) fn give_password(&self) {
        self.0.password_given.store(true, Ordering::Release);
    }

    pub(super) fn is_password_given(&self) -> bool {
        self.0.password_given.load(Ordering::Acquire)
    }

    /// The caller's account as the last transaction of this request has left it.
    pub(super) fn has_written(&self, account: StoredAccount) {
        *self.0.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
    }

    /// The account as the last transaction of this request has left it; nothing before the first.
    pub(super) fn written(&self) -> Option<StoredAccount> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Does not show the hash of the password.
impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

/// Somebody whose credentials were verified for this request, with everything that their rights were made from.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) peer: IpAddr,
    /// The session by which they came in, if it was not by their password.
    pub(crate) session: Option<SessionId>,
    pub(crate) password_hash: PasswordVersion,
    /// [`StoredAccount::rights_count`] when they were let in.
    pub(crate) rights_count: u64,
    /// The access rules when the request began.
    pub(crate) acl: Arc<Acl>,
    pub(crate) progress: Progress,
    /// Of the answer to this request.
    pub(crate) answer: AnswerBudget,
}

impl Caller {
    /// The owner of an account, as it is stored now.
    pub(crate) fn of_account(
        node: &Node,
        account: StoredAccount,
        peer: IpAddr,
        session: Option<SessionId>,
    ) -> Caller {
        let StoredAccount { principal, password_hash, rights_count, .. } = account;
        let password_hash = PasswordVersion(password_hash);
        let (acl, progress, answer) = (node.acl(), Progress::default(), AnswerBudget::default());
        Caller { principal, peer, session, password_hash, rights_count, acl, progress, answer }
    }

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
pub(crate) async fn require_login(node: &Arc<Node>, way: Way<'_>, request: Request) -> Response {
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
            password_hash: PasswordVersion::default(),
            rights_count: 0,
            acl: node.acl(),
            progress: Progress::default(),
            answer: AnswerBudget::default(),
        }),
        Some(Peer::Address(peer)) => match session::caller(node, pattern, &request, peer) {
            Some(caller) => caller,
            None => verify(node, request.headers(), peer).await,
        },
        None => Err(ApiError::Unauthorized),
    };
    match caller {
        Ok(caller) => effects::answer(node, way, caller, request).await,
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

/// Accounts as they were in a view of the store, by the names that people gave; also of names that nobody has, which would
/// take longer than others otherwise.
#[derive(Default)]
pub struct KnownAccounts(Mutex<Names>);

#[derive(Default)]
struct Names {
    present: HashMap<String, (Weak<Snapshot>, StoredAccount)>,
    /// Apart, so that no flood of them makes others forgotten.
    absent: HashMap<String, Weak<Snapshot>>,
}

/// Most names that are remembered of either; a clinic has fewer who work at the same time.
const KNOWN_ACCOUNTS_MAX: usize = 256;
/// Longest name that is remembered of nobody.
const ABSENT_NAME_BYTES_MAX: usize = 64;

impl Names {
    /// What is known of a name in this view, if anything is: an account, or that there is none.
    fn get(&self, view: &Arc<Snapshot>, name: &str) -> Option<Option<StoredAccount>> {
        let is_of_view = |seen_in: &Weak<Snapshot>| std::ptr::eq(seen_in.as_ptr(), Arc::as_ptr(view));
        let present = self.present.get(name).filter(|(seen_in, _)| is_of_view(seen_in));
        let absent = self.absent.get(name).filter(|seen_in| is_of_view(seen_in));
        present.map(|(_, account)| Some(account.clone())).or(absent.map(|_| None))
    }

    fn insert(&mut self, view: &Arc<Snapshot>, name: &str, account: Option<&StoredAccount>) {
        let seen_in = Arc::downgrade(view);
        match account {
            Some(account) => {
                if self.present.len() >= KNOWN_ACCOUNTS_MAX {
                    self.present.clear();
                }
                self.present.insert(name.to_owned(), (seen_in, account.clone()));
            }
            None if name.len() <= ABSENT_NAME_BYTES_MAX => {
                if self.absent.len() >= KNOWN_ACCOUNTS_MAX {
                    self.absent.clear();
                }
                self.absent.insert(name.to_owned(), seen_in);
            }
            None => {}
        }
    }
}

/// [`find_account`], without looking again for what is the same for as long as nothing is written: that costs a
/// quarter of what answering with a record does.
fn known_account(node: &Node, user: &str) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    let known = || node.known_accounts.0.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = known().get(&view, user);
    let found = match seen {
        Some(seen) => seen,
        None => {
            let found = account_of(node, &view, &login_name(user))?;
            known().insert(&view, user, found.as_ref());
            found
        }
    };
    found.map(|account| at_present(node, &view, account)).transpose()
}

/// The account of this name as it is now, with the roles that count on this node.
pub(crate) fn find_account(node: &Node, user: &str) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    account_of(node, &view, &login_name(user))?.map(|account| at_present(node, &view, account)).transpose()
}

/// Whose account a name means that somebody typed.
fn login_name(user: &str) -> Actor {
    match local_name(user) {
        Some(name) => Actor::Local(name.to_owned()),
        None => Actor::Person(user.to_owned()),
    }
}

/// The account at this moment: a person's is as if closed while the centre has not been heard for too long. Not part of
/// what is remembered of a view, because time passes while nothing is written.
pub(crate) fn at_present(
    node: &Node,
    view: &Snapshot,
    account: StoredAccount,
) -> Result<StoredAccount, StoreError> {
    let active = account.active && is_admitted(node, view, &account.principal.actor)?;
    Ok(StoredAccount { active, ..account })
}

/// Whether an account of this kind lets in while the centre has not been heard for so long: technicians' always do.
pub(crate) fn is_admitted(node: &Node, view: &Snapshot, actor: &Actor) -> Result<bool, StoreError> {
    Ok(!matches!(actor, Actor::Person(_)) || node.sync.admits_people(view)?)
}

/// An account as a view of the store holds it; `None` if there is none, or nobody can log in with it.
pub(crate) fn account_of(
    node: &Node,
    snapshot: &Snapshot,
    actor: &Actor,
) -> Result<Option<StoredAccount>, StoreError> {
    match actor {
        Actor::Local(name) => {
            let Some(name) = snapshot.resolve_local_account(name)? else {
                return Ok(None);
            };
            let count = snapshot.rights_count(actor)?;
            Ok(snapshot.local_account(&name)?.map(|account| local_account(name, &account, count)))
        }
        Actor::Person(id) if is_account(id) => {
            let Some((id, mut fields)) =
                snapshot.look(Kind::Person, id, |id, person| (id.to_owned(), AccountFields::of(person)))?
            else {
                return Ok(None);
            };
            fields.active = is_open(node, fields.active, || snapshot.closing(&id))?;
            let granted = snapshot.grants(&id, fields.password_hash())?;
            let shares_account = snapshot.is_shared(&id)?;
            let count = snapshot.rights_count(actor)?;
            Ok(Some(fields.account(node, id, &granted, shares_account, count)))
        }
        _ => Ok(None),
    }
}

/// [`account_of`] in a transaction.
pub(crate) fn account_in_tx(
    node: &Node,
    tx: &Tx<'_>,
    actor: &Actor,
) -> Result<Option<StoredAccount>, StoreError> {
    match actor {
        Actor::Local(name) => {
            let Some(name) = tx.resolve_local_account(name)? else {
                return Ok(None);
            };
            let count = tx.rights_count(actor)?;
            Ok(tx.local_account(&name)?.map(|account| local_account(name, &account, count)))
        }
        Actor::Person(id) if is_account(id) => {
            let Some(id) = tx.resolve_person(id)? else {
                return Ok(None);
            };
            let Some(mut fields) = tx.look(&RecordKey::new(Kind::Person, id.as_str()), AccountFields::of)?
            else {
                return Ok(None);
            };
            fields.active = is_open(node, fields.active, || tx.closing(&id))?;
            let granted = tx.grants_of(&id, fields.password_hash())?;
            let shares_account = tx.is_shared(&id)?;
            let count = tx.rights_count(actor)?;
            Ok(Some(fields.account(node, id, &granted, shares_account, count)))
        }
        _ => Ok(None),
    }
}

/// What the record of a person says about their account. Read from it as it lies there: this is done for every request,
/// and a record may have 16 MiB.
struct AccountFields {
    password_hash: Option<Arc<str>>,
    roles: Vec<String>,
    active: bool,
}

impl AccountFields {
    fn of(person: &RawDocument) -> AccountFields {
        let roles = person.get_array("roles").ok();
        let roles = roles.into_iter().flatten().flatten();
        AccountFields {
            password_hash: person.get_str("password").ok().map(Arc::from),
            roles: roles.filter_map(|role| role.as_str().map(str::to_owned)).collect(),
            active: is_active_raw(person),
        }
    }

    fn password_hash(&self) -> &str {
        self.password_hash.as_deref().unwrap_or_default()
    }

    /// `granted`: roles that count because they were given on this node.
    fn account(
        self,
        node: &Node,
        id: String,
        granted: &Granted,
        shares_account: bool,
        rights_count: u64,
    ) -> StoredAccount {
        let AccountFields { password_hash, roles, active } = self;
        let roles = granted.counting(roles, &node.settings.central_roles);
        let principal = Arc::new(Principal { actor: Actor::Person(id), roles, shares_account });
        StoredAccount { password_hash, active, principal, rights_count }
    }
}

fn local_account(name: String, account: &bson::Document, rights_count: u64) -> StoredAccount {
    StoredAccount {
        principal: Arc::new(Principal::new(Actor::Local(name), strings(account.get("roles")))),
        password_hash: account.get_str("password").ok().map(Arc::from),
        active: is_active(account),
        rights_count,
    }
}

/// The spelling in which a technician's account is stored: any is the same account.
pub fn fold_local(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Whether a person's account is open here, by its record and by how it was closed here: [`is_open_here`].
pub(crate) fn is_open(
    node: &Node,
    is_active: bool,
    closing: impl FnOnce() -> Result<Option<Closing>, StoreError>,
) -> Result<bool, StoreError> {
    Ok(is_open_here(node.settings.active_from_centre, is_active, closing()?))
}

/// The caller as they are now, for answers that are waited for: nobody whose account was changed or whose session ended
/// meanwhile.
pub(crate) fn refreshed(node: &Node, caller: &Caller) -> Result<Option<Caller>, StoreError> {
    let actor = &caller.principal.actor;
    if !actor.has_account() {
        return Ok(Some(caller.clone()));
    }
    if caller.session.is_some_and(|id| !node.accounts.sessions().is_alive(&id)) {
        return Ok(None);
    }
    let account = account_now(node, actor)?.filter(|account| account.active);
    let account = account.filter(|account| account.rights_count == caller.rights_count);
    Ok(account.map(|account| Caller { principal: account.principal, ..caller.clone() }))
}

/// The account of a caller who has been let in, as it is now.
pub(crate) fn account_now(node: &Node, actor: &Actor) -> Result<Option<StoredAccount>, StoreError> {
    let view = node.store.read()?;
    account_of(node, &view, actor)?.map(|account| at_present(node, &view, account)).transpose()
}

/// The strings of a stored list; anything else there grants nothing.
pub(crate) fn strings(value: Option<&bson::Bson>) -> Vec<String> {
    let values = value.and_then(bson::Bson::as_array).map_or(&[][..], |values| values);
    values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}
