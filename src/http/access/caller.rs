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

/// Whether the caller has given the password of their account within this request, beside the session by which they came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct PasswordProof(Arc<AtomicBool>);

impl PasswordProof {
    pub(crate) fn give(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The caller's account as the last transaction of this request has left it; nothing before the first. Its `Debug` does not
/// show the hash of the password.
#[derive(Clone, Default)]
pub(crate) struct WrittenAccount(Arc<Mutex<Option<StoredAccount>>>);

impl std::fmt::Debug for WrittenAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrittenAccount")
    }
}

impl WrittenAccount {
    pub(crate) fn set(&self, account: StoredAccount) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
    }

    pub(crate) fn get(&self) -> Option<StoredAccount> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    pub(crate) proof: PasswordProof,
    pub(crate) written: WrittenAccount,
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
        let (acl, proof, written) = (node.acl(), PasswordProof::default(), WrittenAccount::default());
        let answer = AnswerBudget::default();
        Caller { principal, peer, session, password_hash, rights_count, acl, proof, written, answer }
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
