//! Whether there is room for requests and their answers, who makes it, and how the others wait for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::accounts::Account;
use super::table::Holder;
use super::{
    ANSWERS_EACH_MAX, ANSWERS_EACH_SLACK, ANSWERS_MAX, CROWDED_BYTES, Clients, Crowded, ENDED_BESIDE,
    ENDED_EACH_BESIDE, EQUAL_SHARE_MIN, MADE_WAITING_MAX, REFUSED_BESIDE, REFUSED_BYTES, REFUSED_EACH_BESIDE,
    RESERVE_BYTES, ROOM_MADE_BYTES, ROOM_MADE_PAUSE_MS, SMALL_BYTES, Share, Turn, WAITING_EACH_MAX,
    WAITING_EACH_MIN, WAITING_MAX, WAITS_BESIDE, lock, was_lately,
};

/// How long a request waits for room before it is refused, and after how many milliseconds at the latest it looks again:
/// then others may be looked through anew.
pub(super) const ROOM_WAIT: Duration = Duration::from_secs(5);
pub(super) const ROOM_LOOK: u64 = ROOM_MADE_PAUSE_MS + 5;

/// A client, as one of its turns sees what it holds and what all hold: beside the bytes that are counted for the next
/// piece of this turn's answer already, so that an answer is not held against itself.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    share: &'a Share,
    account: Option<&'a Arc<Account>>,
    ahead: usize,
}

impl<'a> Client<'a> {
    #[cfg(test)]
    pub(super) fn at(share: &'a Share) -> Client<'a> {
        Client { share, account: None, ahead: 0 }
    }

    fn at_address(&self) -> usize {
        self.share.answers.load(Ordering::Relaxed).saturating_sub(self.ahead)
    }

    fn of_account(&self, account: &Account) -> usize {
        account.answers.load(Ordering::Relaxed).saturating_sub(self.ahead)
    }

    /// What all hold.
    pub(super) fn in_all(&self, clients: &Clients) -> usize {
        clients.answers.load(Ordering::Relaxed).saturating_sub(self.ahead)
    }

    /// What is held for it: at its address or for its account, whichever is more.
    pub(super) fn held(&self) -> usize {
        self.at_address().max(self.account.map_or(0, |account| self.of_account(account)))
    }

    /// Whether its account has not all that one may have, for one more request at this address: it has a little more at
    /// addresses that have little.
    fn has_room_of_account(&self, account: &Account) -> bool {
        let slack = if self.at_address() < SMALL_BYTES { ANSWERS_EACH_SLACK } else { 0 };
        self.of_account(account) < ANSWERS_EACH_MAX + slack
    }

    /// Whether its address has not all that one may have.
    fn has_room_at_address(&self) -> bool {
        self.at_address() < ANSWERS_EACH_MAX
    }

    /// Whether it has not all that one may have.
    pub(super) fn has_own_room(&self) -> bool {
        self.has_room_at_address() && self.account.is_none_or(|account| self.has_room_of_account(account))
    }
}

impl Clients {
    /// Whether one more answer of this client may be held without anybody else losing one.
    fn has_free_room(&self, client: Client<'_>) -> bool {
        let (in_all, max) = (client.in_all(self), self.answers_max());
        client.has_own_room() && (in_all < max || client.held() < SMALL_BYTES && in_all < max + RESERVE_BYTES)
    }

    /// Whether one more answer of this client may be held: its answers, and those of all, are within bounds, or it has
    /// little and others make room.
    pub(super) fn has_room(&self, client: Client<'_>) -> bool {
        self.has_free_room(client) || client.has_room_at_address() && self.make_room(client, ROOM_MADE_BYTES)
    }

    /// Whether a long answer of so many bytes may be held: it has to fit as a whole, or it would take what is kept for
    /// short ones. One that fits nowhere may be held while all hold little.
    pub(super) fn has_room_for_long(&self, client: Client<'_>, bytes: usize) -> bool {
        let in_all = client.in_all(self);
        let is_fitting = in_all.saturating_add(bytes) <= self.answers_max() || in_all < ANSWERS_EACH_MAX;
        let bytes = bytes.max(ROOM_MADE_BYTES);
        client.has_room_at_address()
            && (is_fitting && client.held() < ANSWERS_EACH_MAX || self.make_room(client, bytes))
    }

    /// Makes room for a piece of an answer of this client, if it has not all that one may have.
    pub(super) fn make_room_for_place(&self, client: Client<'_>, bytes: usize) {
        if client.has_room_at_address() {
            self.make_room(client, bytes.max(ROOM_MADE_BYTES));
        }
    }

    /// Ends connections of the site or account that holds most, if that is more than twice of what this one has, first those that
    /// have stood still for longest, until so many bytes are free; false if none was ended.
    fn make_room(&self, client: Client<'_>, bytes_free: usize) -> bool {
        self.make_room_beside(client, 0, bytes_free)
    }

    /// The same for one that holds so many bytes of bodies: it takes nothing from who has less of answers than twice of that.
    pub(super) fn make_room_beside(&self, client: Client<'_>, bodies: usize, bytes_free: usize) -> bool {
        let Client { share, account, ahead } = client;
        if let Some(account) = account
            && client.of_account(account) >= ANSWERS_EACH_MAX
        {
            return self.make_room_of_account(client, account, bytes_free);
        }
        let now_ms = self.now_ms();
        // What was ended is being given back; those who wait are told.
        if was_lately(&self.made_room_ms, now_ms) || was_lately(&share.answers_tried_ms, now_ms) {
            return false;
        }
        share.answers_tried_ms.store(now_ms, Ordering::Relaxed);
        let wanted = client.in_all(self).saturating_add(bytes_free).saturating_sub(self.answers_max());
        let mut table = lock(&self.table);
        let of_site = table.of_site(share.prefix, |share| share.answers.load(Ordering::Relaxed));
        let held = client.held().max(of_site.saturating_sub(ahead)).max(bodies);
        let least = held.saturating_mul(2);
        let address = table.who_has_most((share.prefix, ahead));
        let address = address.map(|(bytes, prefix)| (bytes, Holder::Site(prefix)));
        let accounts = lock(&self.accounts);
        let of = |other: Arc<Account>| {
            let bytes = match account.is_some_and(|own| Arc::ptr_eq(own, &other)) {
                true => client.of_account(&other),
                false => other.answers.load(Ordering::Relaxed),
            };
            (bytes, Holder::Account(other))
        };
        let account = accounts.values().filter_map(Weak::upgrade).map(of).max_by_key(|(bytes, _)| *bytes);
        drop(accounts);
        // An account that has as much as its address is the same client.
        let Some((bytes, holder)) = address.into_iter().chain(account).max_by_key(|(bytes, _)| *bytes) else {
            return false;
        };
        let freed = table.end_stalest_of(&holder, None, (bytes, least), wanted);
        if freed > 0 {
            self.made_room_ms.store(now_ms, Ordering::Relaxed);
            tracing::info!(client = %holder, bytes, freed, "a client that has much loses connections: others have no room");
        }
        freed > 0
    }

    /// The same within an account that has as much as one may have: its connections at other addresses make room for
    /// this one's, if they have more than twice as much.
    fn make_room_of_account(&self, client: Client<'_>, account: &Arc<Account>, bytes_free: usize) -> bool {
        let (share, now_ms) = (client.share, self.now_ms());
        // Each address tries for itself: one that has much finds nobody to end, and must not use up the others' tries.
        if was_lately(&account.made_room_ms, now_ms) || was_lately(&share.answers_tried_ms, now_ms) {
            return false;
        }
        share.answers_tried_ms.store(now_ms, Ordering::Relaxed);
        let bytes = client.of_account(account);
        let wanted = bytes.saturating_add(bytes_free).saturating_sub(ANSWERS_EACH_MAX);
        let least = client.at_address().saturating_mul(2);
        let holder = Holder::Account(Arc::clone(account));
        let freed = lock(&self.table).end_stalest_of(&holder, Some(share.prefix), (bytes, least), wanted);
        if freed > 0 {
            account.made_room_ms.store(now_ms, Ordering::Relaxed);
            tracing::info!(client = %holder, bytes, freed, "an account that has much loses connections: it has no room");
        }
        freed > 0
    }

    pub(super) fn more_is_asked(&self, share: &Share, bytes: usize) {
        self.change_asked(share, |count| {
            let before = count.fetch_add(bytes, Ordering::AcqRel);
            (before, before.wrapping_add(bytes))
        });
    }

    pub(super) fn less_is_asked(&self, share: &Share, bytes: usize) {
        self.change_asked(share, |count| {
            let before = count.fetch_sub(bytes, Ordering::AcqRel);
            (before, before.wrapping_sub(bytes))
        });
    }

    /// Changes what is asked. A client asks while it has more than nothing, with a sign: what is taken off before it was put
    /// on counts as less than nothing, so that what each change adds to the number of those who ask cancels out.
    fn change_asked(&self, share: &Share, change: impl Fn(&AtomicUsize) -> (usize, usize)) {
        let (before, after) = change(&share.requests);
        change(&self.requests);
        let asks = |bytes: usize| isize::from(bytes.cast_signed() > 0);
        let more = asks(after) - asks(before);
        if more != 0 {
            self.asking.fetch_add(more, Ordering::AcqRel);
        }
    }

    /// How much a client may have of requests where all together have much.
    pub(super) fn equal_share(&self) -> usize {
        let asking = usize::try_from(self.asking.load(Ordering::Relaxed)).unwrap_or(0);
        (CROWDED_BYTES / asking.max(1)).max(EQUAL_SHARE_MIN)
    }

    /// Wakes those who wait, where a bound was crossed downwards.
    pub(super) fn let_go(&self, share: &Share, bytes: usize) {
        let own = share.answers.fetch_sub(bytes, Ordering::Relaxed);
        let in_all = self.answers.fetch_sub(bytes, Ordering::Relaxed);
        let has_crossed =
            |before: usize, bound: usize| before >= bound && before.saturating_sub(bytes) < bound;
        if has_crossed(own, ANSWERS_EACH_MAX) {
            share.room.notify_waiters();
        }
        let max = self.answers_max();
        if has_crossed(in_all, max) || has_crossed(in_all, max + RESERVE_BYTES) {
            self.room.notify_waiters();
        }
        self.tell_of_room(bytes);
    }
}

impl Turn {
    /// Whether a request that has just begun may be looked at, by what its client and all have asked. Where even telling
    /// that it may not would be too much, the connection ends.
    pub(in crate::app) fn may_go_on(&self) -> bool {
        let own = self.share().requests.load(Ordering::Relaxed);
        let in_all = self.clients().requests.load(Ordering::Relaxed);
        let beside = own.saturating_sub(self.requested.load(Ordering::Relaxed));
        // Many clients with their share each would leave nothing for one more.
        let has_share = in_all > CROWDED_BYTES
            && beside > self.clients().equal_share()
            // The many may be the networks of one site, which is one client then.
            && !self.clients().make_room(self.client(), RESERVE_BYTES + ROOM_MADE_BYTES);
        let has_much = has_share || own > ANSWERS_EACH_MAX + REFUSED_EACH_BESIDE;
        if !has_much {
            let has_room = in_all <= ANSWERS_MAX || self.clients().make_room(self.client(), ROOM_MADE_BYTES);
            let beside_max = if own < SMALL_BYTES { WAITS_BESIDE } else { REFUSED_BESIDE };
            if has_room || in_all <= ANSWERS_MAX + beside_max {
                return true;
            }
        }
        let bound_in_all = if has_share { ANSWERS_MAX } else { ANSWERS_MAX + ENDED_BESIDE };
        if own > ANSWERS_EACH_MAX + ENDED_EACH_BESIDE || in_all > bound_in_all {
            self.break_off();
        }
        false
    }

    /// The request is refused; its head and body are dropped before. Trailers may still come.
    pub(in crate::app) fn refused(&self, for_want_of_room: bool) {
        let left = REFUSED_BYTES + self.trailers.load(Ordering::Relaxed);
        self.let_request_go(self.requested.load(Ordering::Relaxed).saturating_sub(left));
        if for_want_of_room && self.connection.has_refused_again() {
            self.break_off();
        }
    }

    /// Who asks.
    pub(super) fn client(&self) -> Client<'_> {
        Client { share: self.share(), account: self.account(), ahead: self.ahead.load(Ordering::Relaxed) }
    }

    /// Whether one more request of this account may go on: it has room, or what it holds at other addresses makes some.
    pub(super) fn has_room_of_account(&self, account: &Arc<Account>) -> bool {
        let client = self.client();
        client.has_room_of_account(account)
            || self.clients().make_room_of_account(client, account, ROOM_MADE_BYTES)
    }

    /// Whether there is room for its answer.
    pub(in crate::app) fn has_room(&self) -> bool {
        let has_room = self.clients().has_room(self.client());
        if has_room {
            self.connection.has_taken_on();
        }
        has_room
    }

    /// A place among those that wait for room.
    pub(in crate::app) fn wait(self: &Arc<Self>) -> Result<Waiting, Crowded> {
        // Counted first, so that as many as come at once do not all see the last place.
        let own = self.share().waiting.fetch_add(1, Ordering::Relaxed);
        let in_all = self.clients().waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Arc::clone(self));
        let has_place = own < WAITING_EACH_MAX && (in_all < WAITING_MAX || own < WAITING_EACH_MIN);
        if has_place { Ok(waiting) } else { Err(Crowded) }
    }

    /// A place among those that wait with an answer that is made, for a client that has little. All that wait so hold
    /// at most `MADE_WAITING_MAX` bytes of answers.
    pub(in crate::app) fn wait_with(self: &Arc<Self>, bytes: Option<u64>) -> Result<WaitingMade, Crowded> {
        let bytes = usize::try_from(bytes.unwrap_or(0)).map_err(|_| Crowded)?;
        if self.client().held().saturating_add(bytes) >= SMALL_BYTES {
            return Err(Crowded);
        }
        let before = self.clients().made_waiting.fetch_add(bytes, Ordering::Relaxed);
        let made = MadeBytes { clients: Arc::clone(self.clients()), bytes };
        if before.saturating_add(bytes) > MADE_WAITING_MAX {
            return Err(Crowded);
        }
        Ok(WaitingMade { waiting: self.wait()?, _made: made })
    }
}

/// A place among those that wait with an answer that is made, given back when dropped.
pub(in crate::app) struct WaitingMade {
    waiting: Waiting,
    _made: MadeBytes,
}

impl WaitingMade {
    /// Returns when there is room; an error if there is none for long.
    pub(in crate::app) async fn for_room(self) -> Result<(), Crowded> {
        self.waiting.for_room().await
    }
}

/// Bytes of answers that are made and wait.
struct MadeBytes {
    clients: Arc<Clients>,
    bytes: usize,
}

impl Drop for MadeBytes {
    fn drop(&mut self) {
        self.clients.made_waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request's place among those that wait for room, given back when dropped.
pub(in crate::app) struct Waiting(Arc<Turn>);

impl Waiting {
    /// Returns when there is room; an error if there is none for long.
    pub(in crate::app) async fn for_room(self) -> Result<(), Crowded> {
        let turn = &self.0;
        let until = Instant::now() + ROOM_WAIT;
        loop {
            let (mut own, mut all) =
                (Box::pin(turn.share().room.notified()), Box::pin(turn.clients().room.notified()));
            // Nothing is missed between the look and the wait.
            own.as_mut().enable();
            all.as_mut().enable();
            if turn.has_room() {
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                return Err(Crowded);
            }
            tokio::select! {
                () = own => {}
                () = all => {}
                () = tokio::time::sleep_until(until.min(now + Duration::from_millis(ROOM_LOOK))) => {}
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.share().waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.clients().waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
