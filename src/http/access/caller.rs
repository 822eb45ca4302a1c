//! Floor 4. The caller of a request, and the facts from which their rights were made.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::accounts::{SessionId, StoredAccount};
use crate::domain::access::{Acl, Actor, Principal};
use crate::http::bodies::answer_budget::AnswerBudget;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;

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
    pub(crate) fn give_password(&self) {
        self.0.password_given.store(true, Ordering::Release);
    }

    pub(crate) fn is_password_given(&self) -> bool {
        self.0.password_given.load(Ordering::Acquire)
    }

    /// The caller's account as the last transaction of this request has left it.
    pub(crate) fn has_written(&self, account: StoredAccount) {
        *self.0.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
    }

    /// The account as the last transaction of this request has left it; nothing before the first.
    pub(crate) fn written(&self) -> Option<StoredAccount> {
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
        node: &AppState,
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
