//! Floor 4. Rights at the moment of effect: a request is let in when its head arrives, and its body and its answer may
//! take minutes.
//!
//! What a caller's rights were made from (account, session, access rules) is compared again in three
//! places, each of which everything passes: when a body has been read ([`crate::http::access::request_body`]), inside the transaction
//! of every write (the store asks, see [`crate::store::Standing`]), and before each piece of a long answer
//! ([`crate::http::middleware::long_answer`]). The account is the same as long as the count of its changes is (`store::rights_count`), the
//! rules as long as nobody replaced them by others: what was taken and given back meanwhile refuses the request too.

use std::sync::Arc;

use crate::accounts::StoredAccount;
use crate::domain::access::Acl;
use crate::http::access::account_lookup::{account_in_tx, account_now, account_of, at_present, is_admitted};
use crate::http::access::caller::{Caller, PasswordVersion};
use crate::http::bodies::answer_budget::AnswerBudget;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;
use crate::http::state::client_store::Writes;
use crate::store::{Asker, Charge, Right, Snapshot, Stale, Standing, StoreError, Tx};

/// A caller's rights, with what they were made from.
pub(crate) struct Rights {
    node: Arc<AppState>,
    caller: Caller,
}

impl Rights {
    pub(crate) fn of(node: &Arc<AppState>, caller: &Caller) -> Rights {
        // What is compared may outlive the answer, which is counted until it is sent.
        let caller = Caller { answer: AnswerBudget::default(), ..caller.clone() };
        Rights { node: Arc::clone(node), caller }
    }

    /// Those by which the answer to the caller's request is read. A write may have changed the account of its own caller,
    /// whose answer is not broken off for it: what ends it is what has changed since the transaction. A session ends with
    /// every change of its account, so it counts if the write has made none.
    pub(crate) fn of_answer(node: &Arc<AppState>, caller: &Caller) -> Rights {
        let Some(account) = caller.progress.written() else {
            return Rights::of(node, caller);
        };
        let session = caller.session.filter(|_| account.rights_count == caller.rights_count);
        let StoredAccount { principal, password_hash, rights_count, .. } = account;
        let password_hash = PasswordVersion(password_hash);
        Rights::of(node, &Caller { principal, session, password_hash, rights_count, ..caller.clone() })
    }

    /// Compares them with what is committed.
    pub(crate) fn check_now(&self) -> Result<(), ApiError> {
        self.compare_with(&*self.node.store.read()?)?.map_err(ApiError::Stale)
    }

    pub(crate) fn node(&self) -> &Arc<AppState> {
        &self.node
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// [`Rights::compare_with`] for a view with which they were compared before: only what changes while nothing is written.
    pub(crate) fn compare_by_time(&self, view: &Snapshot) -> Result<Result<(), Stale>, StoreError> {
        if !is_admitted(&self.node, view, &self.caller.principal.actor)? {
            return Ok(Err(Stale::Account));
        }
        Ok(self.check_session().and_then(|()| same_rules(&self.caller.acl, &self.node.acl())))
    }

    fn check_session(&self) -> Result<(), Stale> {
        let is_alive = |id| self.node.accounts.sessions().is_alive(&id);
        if self.caller.session.is_none_or(is_alive) { Ok(()) } else { Err(Stale::Session) }
    }

    pub(crate) fn compare_with(&self, view: &Snapshot) -> Result<Result<(), Stale>, StoreError> {
        let actor = &self.caller.principal.actor;
        if !actor.has_account() {
            return Ok(Ok(()));
        }
        let account = account_of(&self.node, view, actor)?;
        let account = account.map(|account| at_present(&self.node, view, account)).transpose()?;
        Ok(self.compare(account))
    }

    /// `now`: the account as it is.
    fn compare(&self, now: Option<StoredAccount>) -> Result<(), Stale> {
        let Caller { principal: then, password_hash, rights_count, acl, .. } = &self.caller;
        let now = now.filter(|now| now.active).ok_or(Stale::Account)?;
        if now.password_hash != password_hash.0 {
            return Err(Stale::Password);
        }
        self.check_session()?;
        let has_lost = then.roles.iter().any(|role| !now.principal.roles.contains(role));
        if has_lost || (now.principal.shares_account && !then.shares_account) {
            return Err(Stale::Roles);
        }
        // Above are the changes that can be named; this one tells of each.
        if now.rights_count != *rights_count {
            return Err(Stale::Changed);
        }
        same_rules(acl, &self.node.acl())
    }
}

pub(crate) fn same_rules(then: &Arc<Acl>, now: &Arc<Acl>) -> Result<(), Stale> {
    // Not whether they say the same: others may have been in force between them (`AppState::replace_rules`).
    if Arc::ptr_eq(then, now) { Ok(()) } else { Err(Stale::Rules) }
}

impl Standing for Rights {
    fn check(&self, tx: &Tx<'_>) -> Result<Result<(), Stale>, StoreError> {
        let actor = &self.caller.principal.actor;
        if !actor.has_account() {
            return Ok(Ok(()));
        }
        let account = account_in_tx(&self.node, tx, actor)?;
        // How long the centre has not been heard changes with time, not with what others write now.
        let view = self.node.store.read()?;
        let account = account.map(|account| at_present(&self.node, &view, account)).transpose()?;
        Ok(self.compare(account))
    }

    /// A session gives no right to another password of one's own: who has only found it open would have the account. This
    /// holds for every way on which a record of one's own is written, also by a decision or out of the trash.
    fn check_written(&self, tx: &Tx<'_>) -> Result<Result<(), Stale>, StoreError> {
        let Caller { principal, session, password_hash, progress, .. } = &self.caller;
        if session.is_none() || progress.is_password_given() {
            return Ok(Ok(()));
        }
        let now = account_in_tx(&self.node, tx, &principal.actor)?.and_then(|account| account.password_hash);
        let is_new = now.is_some() && now != password_hash.0;
        Ok(if is_new { Err(Stale::PasswordNotGiven) } else { Ok(()) })
    }

    fn note_written(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        if let Some(account) = account_in_tx(&self.node, tx, &self.caller.principal.actor)? {
            self.caller.progress.has_written(account);
        }
        Ok(())
    }
}

impl Caller {
    /// Who asks, with the right to write for as long as the caller's rights hold.
    pub(crate) fn asker(&self, node: &Arc<AppState>) -> Asker {
        let right = Right::Client(Arc::new(Rights::of(node, self)));
        Asker { who: self.principal.actor.clone(), from: self.from(), right, charge: Charge::default() }
    }

    /// The store for what this caller writes.
    pub(crate) fn writes<'a>(&self, node: &'a Arc<AppState>) -> Writes<'a> {
        Writes::by(&node.store, self.asker(node))
    }
}

/// The caller as they are now, for answers that are waited for: nobody whose account was changed or whose session ended
/// meanwhile.
pub(crate) fn refreshed(node: &AppState, caller: &Caller) -> Result<Option<Caller>, StoreError> {
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
