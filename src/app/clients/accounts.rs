//! An account is one client, however many addresses it comes from: what its requests hold counts for it as well as for the
//! address, and the larger of both counts.

use std::any::Any;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::rooms::{ROOM_LOOK, ROOM_WAIT};
use super::{ANSWERS_EACH_MAX, ANSWERS_EACH_SLACK, Clients, Crowded, Turn, WAITING_EACH_MIN, Waiting, lock};
use crate::domain::access::Actor;
use crate::http::{Arrivals, Overloaded};

/// Requests of one account that wait for room that the account has; a few from an address may always wait.
pub(super) const WAITING_OF_ACCOUNT_MAX: usize = 32;

/// What an account has on all its connections.
pub(super) struct Account {
    pub(super) actor: Actor,
    pub(super) answers: AtomicUsize,
    pub(super) bodies: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    pub(super) room: Notify,
    /// When connections of its own were ended for room last; 0: never.
    pub(super) made_room_ms: AtomicU64,
}

impl Account {
    fn new(actor: Actor) -> Account {
        Account {
            actor,
            answers: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
            made_room_ms: AtomicU64::new(0),
        }
    }
}

impl Clients {
    fn account(&self, actor: &Actor) -> Arc<Account> {
        let mut accounts = lock(&self.accounts);
        if let Some(account) = accounts.get(actor).and_then(Weak::upgrade) {
            return account;
        }
        // Nothing is kept of those who left.
        if accounts.len() == accounts.capacity() {
            accounts.retain(|_, account| account.strong_count() > 0);
        }
        let account = Arc::new(Account::new(actor.clone()));
        accounts.insert(actor.clone(), Arc::downgrade(&account));
        account
    }
}

impl Turn {
    pub(super) fn account(&self) -> Option<&Arc<Account>> {
        self.account.get()
    }

    /// Counts the request for the account that has logged in. Its connection mostly carries the same one's.
    pub(super) fn charge(&self, actor: &Actor) -> &Arc<Account> {
        self.account.get_or_init(|| {
            let mut last = self.connection.account.lock().unwrap_or_else(PoisonError::into_inner);
            let account = match &*last {
                Some(account) if account.actor == *actor => Arc::clone(account),
                _ => {
                    let account = self.clients().account(actor);
                    *last = Some(Arc::clone(&account));
                    account
                }
            };
            let held = self.held.load(Ordering::Relaxed);
            self.charged.fetch_add(held, Ordering::Relaxed);
            account.answers.fetch_add(held, Ordering::Relaxed);
            account
        })
    }

    /// So many bytes less are held for the account; never more than were counted.
    pub(super) fn discharge(&self, bytes: usize) {
        let Some(account) = self.account.get() else {
            return;
        };
        let less = |charged: usize| Some(charged.saturating_sub(bytes));
        let before =
            self.charged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
        let bytes = before.min(bytes);
        let had = account.answers.fetch_sub(bytes, Ordering::Relaxed);
        let has = had.saturating_sub(bytes);
        for bound in [ANSWERS_EACH_MAX, ANSWERS_EACH_MAX + ANSWERS_EACH_SLACK] {
            if had >= bound && has < bound {
                account.room.notify_waiters();
            }
        }
    }

    async fn wait_as_account(self: Arc<Self>, account: Arc<Account>) -> Result<(), Crowded> {
        let place = PlaceOfAccount::take(&self, &account)?;
        let until = Instant::now() + ROOM_WAIT;
        let look = Duration::from_millis(ROOM_LOOK);
        loop {
            let mut room = Box::pin(account.room.notified());
            // Nothing is missed between the look and the wait.
            room.as_mut().enable();
            if self.has_room_of_account(&account) {
                drop(place);
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                return Err(Crowded);
            }
            let _ = tokio::time::timeout_at(until.min(now + look), room).await;
        }
    }
}

/// A place among the requests of an account that wait, and among those of its address; given back when dropped.
struct PlaceOfAccount {
    account: Arc<Account>,
    _at_address: Waiting,
}

impl PlaceOfAccount {
    fn take(turn: &Arc<Turn>, account: &Arc<Account>) -> Result<PlaceOfAccount, Crowded> {
        let at_address = turn.wait()?;
        let here = turn.share().waiting.load(Ordering::Relaxed);
        let before = account.waiting.fetch_add(1, Ordering::Relaxed);
        let place = PlaceOfAccount { account: Arc::clone(account), _at_address: at_address };
        // The account's places may be full of requests from elsewhere: that keeps no address out that has few.
        let has_place = before < WAITING_OF_ACCOUNT_MAX || here <= WAITING_EACH_MIN;
        if has_place { Ok(place) } else { Err(Crowded) }
    }
}

impl Drop for PlaceOfAccount {
    fn drop(&mut self) {
        self.account.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Arrivals for Turn {
    fn arrived(&self, bytes: usize) -> Result<(), Overloaded> {
        self.has_come(bytes).map_err(|_| Overloaded)
    }

    fn known_as(&self, actor: &Actor) -> Option<BoxFuture<'static, Result<(), Overloaded>>> {
        let account = self.charge(actor);
        if self.has_room_of_account(account) {
            return None;
        }
        let turn = self.me.upgrade()?;
        let account = Arc::clone(account);
        Some(Box::pin(async move { turn.wait_as_account(account).await.map_err(|_| Overloaded) }))
    }

    fn place(&self, bytes: usize) -> bool {
        self.take_place(bytes)
    }

    fn wait_for_place(&self, bytes: usize) -> BoxFuture<'static, Result<(), Overloaded>> {
        let turn = self.me.upgrade();
        Box::pin(async move {
            let turn = turn.ok_or(Overloaded)?;
            turn.wait_for_room_of(bytes).await.map_err(|_| Overloaded)
        })
    }

    fn made(&self, bytes: usize) {
        self.count_made(bytes);
    }

    fn keep(&self, bytes: usize) -> Box<dyn Any + Send + Sync> {
        match self.me.upgrade() {
            Some(turn) => turn.kept(bytes),
            None => Box::new(()),
        }
    }
}
