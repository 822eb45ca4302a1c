//! Floor 4. Rights at the moment of effect: a request is let in when its head arrives, and its body and its answer may
//! take minutes.
//!
//! What a caller's rights were made from (account, session, access rules) is compared again in three
//! places, each of which everything passes: when a body has been read ([`super::extract::Sent`]), inside the transaction
//! of every write (the store asks, see [`crate::store::Standing`]), and before each piece of a long answer
//! ([`super::long_answer`]). The account is the same as long as the count of its changes is (`store::rights_count`), the
//! rules as long as nobody replaced them by others: what was taken and given back meanwhile refuses the request too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Node;
use super::answer_budget::AnswerBudget;
use super::caller::{Caller, PasswordVersion, account_in_tx, account_of, at_present, is_admitted};
use super::error::ApiError;
use super::link::end_disallowed;
use crate::accounts::StoredAccount;
use crate::domain::access::Acl;
use crate::domain::audit::Event;
use crate::store::{
    Asker, Charge, Edit, EditError, Right, Snapshot, Stale, Standing, Store, StoreError, Tx, Unnoted,
    asked_by,
};

/// A caller's rights, with what they were made from.
pub(crate) struct Rights {
    node: Arc<Node>,
    caller: Caller,
}

impl Rights {
    pub(crate) fn of(node: &Arc<Node>, caller: &Caller) -> Rights {
        // What is compared may outlive the answer, which is counted until it is sent.
        let caller = Caller { answer: AnswerBudget::default(), ..caller.clone() };
        Rights { node: Arc::clone(node), caller }
    }

    /// Those by which the answer to the caller's request is read. A write may have changed the account of its own caller,
    /// whose answer is not broken off for it: what ends it is what has changed since the transaction. A session ends with
    /// every change of its account, so it counts if the write has made none.
    pub(crate) fn of_answer(node: &Arc<Node>, caller: &Caller) -> Rights {
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

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// [`Rights::compare_with`] for a view with which they were compared before: only what changes while nothing is written.
    pub(super) fn compare_by_time(&self, view: &Snapshot) -> Result<Result<(), Stale>, StoreError> {
        if !is_admitted(&self.node, view, &self.caller.principal.actor)? {
            return Ok(Err(Stale::Account));
        }
        Ok(self.check_session().and_then(|()| same_rules(&self.caller.acl, &self.node.acl())))
    }

    fn check_session(&self) -> Result<(), Stale> {
        let is_alive = |id| self.node.accounts.sessions().is_alive(&id);
        if self.caller.session.is_none_or(is_alive) { Ok(()) } else { Err(Stale::Session) }
    }

    pub(super) fn compare_with(&self, view: &Snapshot) -> Result<Result<(), Stale>, StoreError> {
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

pub(super) fn same_rules(then: &Arc<Acl>, now: &Arc<Acl>) -> Result<(), Stale> {
    // Not whether they say the same: others may have been in force between them (`Node::replace_rules`).
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

/// Access rules that came into force and whose end of what they do not allow is not in the store yet, the first in front.
/// Until it is, they count beside those in force: what one of them has ended does not come back with others.
#[derive(Default)]
pub struct UnsettledRules(Mutex<Vec<Unsettled>>);

#[derive(Clone)]
struct Unsettled {
    acl: Arc<Acl>,
    /// Whether they took the place of others, by which emergencies were opened.
    are_others: bool,
}

impl UnsettledRules {
    fn lock(&self) -> MutexGuard<'_, Vec<Unsettled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, acl: &Arc<Acl>, are_others: bool) {
        self.lock().push(Unsettled { acl: Arc::clone(acl), are_others });
    }

    /// Whether all of them allow it.
    pub(crate) fn all_allow(&self, allows: impl Fn(&Acl) -> bool) -> bool {
        self.lock().iter().all(|unsettled| allows(&unsettled.acl))
    }
}

impl Node {
    /// Puts these access rules into force. Unless they are the same as those before, what was made by the former rules and
    /// is kept is over for good, also if they come back: emergencies, requests that are under way, and links whose makers
    /// may not make them any more. After an error that holds too, and is to be written by [`Node::settle_rules`].
    pub async fn replace_rules(self: &Arc<Self>, acl: Acl) -> Result<(), StoreError> {
        {
            let mut rules = self.acl.write().unwrap_or_else(PoisonError::into_inner);
            if **rules != acl {
                let acl = Arc::new(acl);
                self.unsettled_rules.add(&acl, true);
                *rules = acl;
                // From this moment on, whether or not the store takes anything.
                self.accounts.openings().end_all();
            }
        }
        if !self.unsettled_rules.lock().is_empty() {
            self.mark_rules(true);
        }
        self.settle_rules().await
    }

    /// Says beside the store whether it is still to be told what access rules have ended.
    fn mark_rules(&self, are_unsettled: bool) {
        if let Err(error) = self.store.0.set_rules_unsettled(are_unsettled) {
            tracing::error!(%error, "what access rules have ended may be forgotten if the node ends now");
        }
    }

    /// Ends what the access rules do not allow with which the node starts; they may have been other ones before.
    pub async fn begin_with_rules(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.store.0.are_rules_unsettled() {
            // Which rules they were is not known any more: what any may have ended is over.
            self.unsettled_rules.add(&Arc::new(Acl::without_roles()), true);
        }
        self.unsettled_rules.add(&self.acl(), false);
        self.settle_rules().await
    }

    /// Writes what access rules have ended, as far as that could not be written yet.
    pub async fn settle_rules(self: &Arc<Self>) -> Result<(), StoreError> {
        let unsettled = self.unsettled_rules.lock().clone();
        if unsettled.is_empty() {
            if self.store.0.are_rules_unsettled() {
                self.mark_rules(false);
            }
            return Ok(());
        }
        let (node, ended) = (Arc::clone(self), unsettled.clone());
        let end = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            if ended.iter().any(|unsettled| unsettled.are_others) {
                // Those that were opened since are open by the rules in force.
                tx.end_emergencies_but(&node.accounts.openings().open())?;
            }
            ended.iter().try_for_each(|unsettled| end_disallowed(&node, &unsettled.acl, tx))
        };
        if let Err(error) = self.store.0.transact(end).await {
            // This process may end before it is.
            self.mark_rules(true);
            return Err(error);
        }
        let is_settled = |rules: &Unsettled| unsettled.iter().any(|done| Arc::ptr_eq(&done.acl, &rules.acl));
        let mut rest = self.unsettled_rules.lock();
        rest.retain(|rules| !is_settled(rules));
        if rest.is_empty() && self.store.0.are_rules_unsettled() {
            self.mark_rules(false);
        }
        Ok(())
    }
}

/// The store as requests have it: everything can be read. Writes go through `Caller::writes`, so that none is made
/// without the rights by which it may be.
#[derive(Clone)]
pub struct ClientStore(Store);

impl ClientStore {
    pub fn new(store: Store) -> ClientStore {
        ClientStore(store)
    }

    /// The store itself, for the process that serves it. Nothing in `http` beside this file calls it
    /// (`tests/architecture/main.rs`).
    pub fn unguarded(&self) -> &Store {
        &self.0
    }

    pub fn read(&self) -> Result<Arc<Snapshot>, StoreError> {
        self.0.read()
    }

    pub fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    /// [`Store::changes`].
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes()
    }

    /// [`Store::note`].
    pub fn note(&self, event: Event) {
        self.0.note(event);
    }

    /// [`Store::note_read`].
    pub fn note_read(&self, event: Event, take: impl FnOnce(&str) -> Result<(), u64>) -> Result<(), Unnoted> {
        self.0.note_read(event, take)
    }

    /// [`Store::note_read_in_time`].
    pub async fn note_read_in_time(
        &self,
        event: Box<Event>,
        take: impl Fn(&str) -> Result<(), u64>,
    ) -> Result<(), Unnoted> {
        self.0.note_read_in_time(event, take).await
    }

    /// [`Store::note_on_disk`].
    pub async fn note_on_disk(&self, event: Event) -> Result<(), StoreError> {
        self.0.note_on_disk(event).await
    }

    /// [`Store::flush_notes`].
    pub async fn flush_notes(&self) -> Result<(), StoreError> {
        self.0.flush_notes().await
    }

    /// [`Store::claim`].
    pub fn claim(&self, bytes: u64) -> Result<crate::store::Claim<'_>, StoreError> {
        self.0.claim(bytes)
    }

    /// [`Store::turn`].
    pub async fn turn(&self, kind: crate::domain::record::Kind, id: &str) -> Option<crate::store::Share> {
        self.0.turn(kind, id).await
    }

    pub(crate) fn shortage(&self) -> Option<crate::store::Shortage> {
        self.0.shortage()
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.0.has_given_up()
    }

    pub(crate) fn has_broken_pages(&self) -> bool {
        self.0.has_broken_pages()
    }

    pub(crate) fn damaged_trash(&self) -> usize {
        self.0.damaged_trash()
    }

    pub(crate) fn damaged_rows(&self) -> Vec<crate::store::DamagedRow> {
        self.0.damaged_rows()
    }

    pub(crate) fn damaged_records(&self, kind: crate::domain::record::Kind) -> usize {
        self.0.damaged_records(kind)
    }

    pub(crate) fn bits_put_right(&self) -> Result<Option<crate::store::BitsPutRight>, StoreError> {
        self.0.bits_put_right()
    }
}

/// The store for the writes of one request, each of which is refused once its right no longer holds.
pub(crate) struct Writes<'a> {
    store: &'a Store,
    asker: Asker,
}

impl<'a> Writes<'a> {
    /// By another right than that of a [`Caller`].
    pub(crate) fn by(store: &'a ClientStore, asker: Asker) -> Writes<'a> {
        Writes { store: &store.0, asker }
    }

    /// [`Store::transact`].
    pub(crate) async fn transact<T, E, F>(self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        asked_by(self.asker, self.store.transact(job)).await
    }

    /// [`Store::edit`].
    pub(crate) async fn edit(self, edit: Edit) -> Result<(), EditError> {
        asked_by(self.asker, self.store.edit(edit)).await
    }

    /// With what is counted for it until it is done, also if the client goes away meanwhile.
    pub(crate) fn charged<W: Send + Sync + 'static>(mut self, work: &Arc<W>) -> Self {
        self.asker.charge = Charge::of(Arc::clone(work));
        self
    }

    /// Work of the floors below that writes.
    pub(crate) async fn through<F, T>(self, work: F) -> T
    where
        F: AsyncFnOnce(&Store) -> T,
    {
        asked_by(self.asker, work(self.store)).await
    }
}

impl Caller {
    /// Who asks, with the right to write for as long as the caller's rights hold.
    pub(crate) fn asker(&self, node: &Arc<Node>) -> Asker {
        let right = Right::Client(Arc::new(Rights::of(node, self)));
        Asker { who: self.principal.actor.clone(), from: self.from(), right, charge: Charge::default() }
    }

    /// The store for what this caller writes.
    pub(crate) fn writes<'a>(&self, node: &'a Arc<Node>) -> Writes<'a> {
        Writes::by(&node.store, self.asker(node))
    }
}
