//! Floor 5. What the node holds for each client: its connections, requests, bodies that arrive and answers that wait.
//!
//! One rule for all of it: what is held is counted for the client ([`AddressPrefix`]) and for all together, has to make
//! progress, and makes room for who has little. Where there is no place left for a newcomer, the client that has most
//! loses what has stood still for longest. What ends is always a whole connection: HTTP/2 hands a piece of an answer over
//! and does not take it back.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::domain::address::AddressPrefix;

/// Connections of one client.
pub(super) const CONNECTIONS_EACH_MAX: usize = 512;
/// What a request takes while it is answered, its head among it (see `HEAD_BYTES_MAX`).
const REQUEST_BYTES: usize = 16 << 10;
/// Bytes of answers, and of requests while they are answered, that are held for one client and in all.
const ANSWERS_EACH_MAX: usize = 12 << 20;
const ANSWERS_MAX: usize = 36 << 20;
/// Bytes of request bodies beside one of the largest: of one client, and in all beside those of that client.
const BODIES_BESIDE_MAX: usize = 4 << 20;
const BODIES_OTHERS_MAX: usize = 16 << 20;
/// How long an answer may lie there without a byte of it being taken, or in all beside what its size allows.
pub(super) const STALLED: Duration = Duration::from_secs(120);
/// The least that a client has to take of an answer, or to send of a body, in a second.
const BYTES_A_SECOND_MIN: u64 = 1024;
/// How long a connection may stay on which nothing is asked. HTTP/1 ends its own a little earlier, in good order.
const IDLE: Duration = Duration::from_secs(18);
/// How often connections are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Pause between two words in the log about the same.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Everybody's shares and connections.
pub(super) struct Clients {
    table: Mutex<Table>,
    connections_max: usize,
    bodies_each_max: usize,
    answers: AtomicUsize,
    bodies: AtomicUsize,
    /// Begin of the time that turns count.
    started: Instant,
}

#[derive(Default)]
struct Table {
    shares: HashMap<AddressPrefix, Weak<Share>>,
    connections: HashMap<u64, Arc<Connection>>,
    /// Connections that are not about to end.
    open: usize,
    next: u64,
    refused: u64,
    logged_at: Option<Instant>,
}

/// What one client has.
pub(super) struct Share {
    prefix: AddressPrefix,
    connections: AtomicUsize,
    answers: AtomicUsize,
    bodies: AtomicUsize,
}

/// One connection.
pub(super) struct Connection {
    number: u64,
    share: Arc<Share>,
    has_ended: AtomicBool,
    /// Of the task that serves it.
    waker: AtomicWaker,
    doing: Mutex<Doing>,
}

struct Doing {
    turns: Vec<Weak<Turn>>,
    idle_since: Instant,
}

/// One request, from its head until the last byte of its answer is taken.
pub(super) struct Turn {
    clients: Arc<Clients>,
    connection: Arc<Connection>,
    share: Arc<Share>,
    began_ms: u64,
    /// Bytes of its body that have arrived, until it is answered.
    arrived: AtomicUsize,
    /// Bytes of its answer that are held.
    held: AtomicUsize,
    /// Since when a piece of the answer waits to be taken; 0: none does.
    out_since_ms: AtomicU64,
    /// How long the pieces before it have waited together, and how many bytes they had.
    waited_ms: AtomicU64,
    taken: AtomicU64,
}

/// Why something is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    /// For bodies of at most `body_bytes_max`.
    pub(super) fn new(connections_max: usize, body_bytes_max: usize) -> Arc<Clients> {
        Arc::new(Clients {
            table: Mutex::default(),
            connections_max,
            bodies_each_max: body_bytes_max.saturating_add(BODIES_BESIDE_MAX),
            answers: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            started: Instant::now(),
        })
    }

    /// A new connection from there, if need be in the place of another. A proxy's carries the requests of many clients,
    /// and has no limit of its own.
    pub(super) fn connect(self: &Arc<Self>, prefix: AddressPrefix, is_proxy: bool) -> Option<Connected> {
        let mut table = lock(&self.table);
        let share = table.share(prefix);
        let here = share.connections.load(Ordering::Relaxed);
        let is_over_share = here >= CONNECTIONS_EACH_MAX && !is_proxy;
        let has_place = if is_over_share {
            table.end_one_of(prefix)
        } else {
            table.open < self.connections_max || table.end_one_for(here)
        };
        if !has_place {
            table.refused += 1;
            let is_quiet = |at: Instant| at.elapsed() < LOG_PAUSE;
            if !table.logged_at.is_some_and(is_quiet) {
                table.logged_at = Some(Instant::now());
                let (refused, in_all) = (table.refused, table.open);
                tracing::warn!(client = %prefix, from_client = here, in_all, refused, "too many connections: refused");
            }
            return None;
        }
        let number = table.next;
        table.next += 1;
        table.open += 1;
        share.connections.fetch_add(1, Ordering::Relaxed);
        let doing = Doing { turns: Vec::new(), idle_since: Instant::now() };
        let connection = Arc::new(Connection {
            number,
            share,
            has_ended: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            doing: Mutex::new(doing),
        });
        table.connections.insert(number, Arc::clone(&connection));
        drop(table);
        Some(Connected { clients: Arc::clone(self), connection })
    }

    /// The share of somebody behind a proxy.
    pub(super) fn share(&self, prefix: AddressPrefix) -> Arc<Share> {
        lock(&self.table).share(prefix)
    }

    /// Whether one more answer of this client may be held without anybody else losing one.
    fn has_free_room(&self, share: &Share) -> bool {
        share.answers.load(Ordering::Relaxed) < ANSWERS_EACH_MAX
            && self.answers.load(Ordering::Relaxed) < ANSWERS_MAX
    }

    /// Whether one more answer of this client may be held: its answers, and those of all, are within bounds, or it has
    /// little and others make room.
    fn has_room(&self, share: &Share) -> bool {
        let own = share.answers.load(Ordering::Relaxed);
        self.has_free_room(share)
            || own < ANSWERS_EACH_MAX && self.make_room(own, |share| &share.answers, Turn::waits_since_ms)
    }

    /// Begins a request.
    pub(super) fn begin(self: &Arc<Self>, connection: &Arc<Connection>, share: Arc<Share>) -> Arc<Turn> {
        let mut doing = lock(&connection.doing);
        let vacant = doing.turns.iter().position(|turn| turn.strong_count() == 0);
        let turn = Arc::new(Turn {
            clients: Arc::clone(self),
            connection: Arc::clone(connection),
            share,
            began_ms: self.now_ms(),
            arrived: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            out_since_ms: AtomicU64::new(0),
            waited_ms: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        match vacant.and_then(|vacant| doing.turns.get_mut(vacant)) {
            Some(place) => *place = Arc::downgrade(&turn),
            None => doing.turns.push(Arc::downgrade(&turn)),
        }
        drop(doing);
        turn.hold(REQUEST_BYTES);
        turn
    }

    /// From 1 on.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Ends the connection that has stood still for longest of the client that has most, if that has more than twice
    /// of what `own` is; false if none has.
    fn make_room(
        &self,
        own: usize,
        amount: impl Fn(&Share) -> &AtomicUsize,
        since_ms: impl Fn(&Turn) -> Option<u64>,
    ) -> bool {
        let mut table = lock(&self.table);
        let of = |share: &Weak<Share>| {
            let share = share.upgrade()?;
            Some((amount(&share).load(Ordering::Relaxed), share.prefix))
        };
        let mut much: Vec<_> =
            table.shares.values().filter_map(of).filter(|(held, _)| *held > own.saturating_mul(2)).collect();
        much.sort_unstable();
        for (held, prefix) in much.iter().rev() {
            let stalest = |connection: &Arc<Connection>| {
                let turns = connection.turns().into_iter().filter(|turn| turn.share.prefix == *prefix);
                Some((turns.filter_map(|turn| since_ms(&turn)).min()?, connection.number))
            };
            if let Some((_, number)) = table.connections.values().filter_map(stalest).min() {
                tracing::info!(client = %prefix, bytes = held, "a client that has much loses a connection: others have no room");
                table.end(number);
                return true;
            }
        }
        // What they hold is on connections that are ending already.
        !much.is_empty()
    }

    /// Looks at all connections now and then, and ends those on which nothing happens.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.end_those_who_stand_still();
        }
    }

    fn end_those_who_stand_still(&self) {
        let (now, now_ms) = (Instant::now(), self.now_ms());
        let mut table = lock(&self.table);
        let mut over = Vec::new();
        for connection in table.connections.values() {
            let turns = connection.turns();
            let is_idle = turns.is_empty() && now.duration_since(lock(&connection.doing).idle_since) >= IDLE;
            let is_stalled = turns.iter().any(|turn| turn.is_stalled(now_ms));
            if is_stalled {
                tracing::info!(client = %connection.share.prefix, "an answer is not taken: the connection is ended");
            }
            if is_idle || is_stalled {
                over.push(connection.number);
            }
        }
        for number in over {
            table.end(number);
        }
    }
}

impl Table {
    fn share(&mut self, prefix: AddressPrefix) -> Arc<Share> {
        if let Some(share) = self.shares.get(&prefix).and_then(Weak::upgrade) {
            return share;
        }
        // Nothing is kept of those who left.
        if self.shares.len() == self.shares.capacity() {
            self.shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Share {
            prefix,
            connections: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
        });
        self.shares.insert(prefix, Arc::downgrade(&share));
        share
    }

    /// Ends the connection of this client that has been idle for longest; false if none is.
    fn end_one_of(&mut self, prefix: AddressPrefix) -> bool {
        let of = |connection: &&Arc<Connection>| connection.share.prefix == prefix;
        let idle = |connection: &Arc<Connection>| Some((connection.idle_since()?, connection.number));
        let longest = self.connections.values().filter(of).filter_map(idle).min();
        longest.is_some_and(|(_, number)| self.end(number))
    }

    /// Makes a place for a client that has `here` connections: of those that have more, the one that has most loses the
    /// connection that has been idle for longest, and if all are busy the one that was opened first.
    fn end_one_for(&mut self, here: usize) -> bool {
        let most = self
            .connections
            .values()
            .max_by_key(|connection| connection.share.connections.load(Ordering::Relaxed));
        let Some(share) = most.map(|connection| Arc::clone(&connection.share)) else {
            return false;
        };
        if self.end_one_of(share.prefix) {
            return true;
        }
        if share.connections.load(Ordering::Relaxed) <= here.saturating_mul(2) {
            return false;
        }
        let of = |connection: &&Arc<Connection>| connection.share.prefix == share.prefix;
        let first = self.connections.values().filter(of).map(|connection| connection.number).min();
        first.is_some_and(|number| self.end(number))
    }

    /// Ends a connection; it has no place any more from now on.
    fn end(&mut self, number: u64) -> bool {
        let Some(connection) = self.connections.remove(&number) else {
            return false;
        };
        self.open -= 1;
        connection.share.connections.fetch_sub(1, Ordering::Relaxed);
        connection.has_ended.store(true, Ordering::Release);
        connection.waker.wake();
        true
    }
}

/// A connection's place, given back when dropped.
pub(super) struct Connected {
    pub(super) clients: Arc<Clients>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        lock(&self.clients.table).end(self.connection.number);
    }
}

impl Connection {
    pub(super) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Whether it is to end; the task that asks is woken when it is.
    pub(super) fn has_ended(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.has_ended.load(Ordering::Acquire)
    }

    /// Returns when it is to end.
    pub(super) async fn ended(&self) {
        poll_fn(|context| if self.has_ended(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn turns(&self) -> Vec<Arc<Turn>> {
        lock(&self.doing).turns.iter().filter_map(Weak::upgrade).collect()
    }

    /// Since when nothing is asked on it.
    fn idle_since(&self) -> Option<Instant> {
        let doing = lock(&self.doing);
        doing.turns.iter().all(|turn| turn.strong_count() == 0).then_some(doing.idle_since)
    }
}

impl Turn {
    fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.share.answers.fetch_add(bytes, Ordering::Relaxed);
        self.clients.answers.fetch_add(bytes, Ordering::Relaxed);
    }

    fn let_go(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.share.answers.fetch_sub(bytes, Ordering::Relaxed);
        self.clients.answers.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether there is room for its answer.
    pub(super) fn has_room(&self) -> bool {
        self.clients.has_room(&self.share)
    }

    /// The same, without a look at what others hold: who waits asks again and again.
    pub(super) fn has_free_room(&self) -> bool {
        self.clients.has_free_room(&self.share)
    }

    /// Whether an answer of so many bytes, if that is known, may be held. Room for a small one is counted from the
    /// beginning.
    pub(super) fn has_room_for(&self, bytes: Option<u64>) -> bool {
        bytes.is_some_and(|bytes| bytes <= REQUEST_BYTES as u64) || self.has_room()
    }

    /// Ends the connection, as if the line had broken.
    pub(super) fn break_off(&self) {
        lock(&self.clients.table).end(self.connection.number);
    }

    /// Counts bytes of an answer for as long as what is returned lives.
    pub(super) fn holding(self: &Arc<Self>, bytes: usize) -> Holding {
        self.hold(bytes);
        Holding { turn: Arc::clone(self), bytes }
    }

    /// A part of the request's body has arrived.
    pub(super) fn arrived(&self, bytes: usize) -> Result<(), Crowded> {
        let own = self.share.bodies.load(Ordering::Relaxed);
        let in_all = self.clients.bodies.load(Ordering::Relaxed);
        let each_max = self.clients.bodies_each_max;
        let has_room = own + bytes <= each_max
            && (in_all + bytes <= each_max.saturating_add(BODIES_OTHERS_MAX)
                || self.clients.make_room(own, |share| &share.bodies, Turn::arrives_since_ms));
        if !has_room {
            return Err(Crowded);
        }
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
        self.share.bodies.fetch_add(bytes, Ordering::Relaxed);
        self.clients.bodies.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The request is answered: its body is not needed any more.
    pub(super) fn answered(&self) {
        let arrived = self.arrived.swap(0, Ordering::Relaxed);
        self.share.bodies.fetch_sub(arrived, Ordering::Relaxed);
        self.clients.bodies.fetch_sub(arrived, Ordering::Relaxed);
    }

    /// A piece of the answer is given to the connection.
    pub(super) fn gave(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        self.out_since_ms.store(self.clients.now_ms(), Ordering::Relaxed);
    }

    /// The connection asks for the next piece.
    pub(super) fn asked(&self) {
        let since_ms = self.out_since_ms.swap(0, Ordering::Relaxed);
        if since_ms > 0 {
            let waited_ms = self.clients.now_ms().saturating_sub(since_ms);
            self.waited_ms.fetch_add(waited_ms, Ordering::Relaxed);
        }
    }

    fn is_stalled(&self, now_ms: u64) -> bool {
        let Some(since_ms) = self.waits_since_ms() else {
            return false;
        };
        let out_ms = now_ms.saturating_sub(since_ms);
        let stalled_ms = u64::try_from(STALLED.as_millis()).unwrap_or(u64::MAX);
        let taken_ms = self.taken.load(Ordering::Relaxed).saturating_mul(1000) / BYTES_A_SECOND_MIN;
        out_ms >= stalled_ms
            || self.waited_ms.load(Ordering::Relaxed) + out_ms >= stalled_ms.saturating_add(taken_ms)
    }

    fn waits_since_ms(&self) -> Option<u64> {
        Some(self.out_since_ms.load(Ordering::Relaxed)).filter(|since_ms| *since_ms > 0)
    }

    fn arrives_since_ms(&self) -> Option<u64> {
        (self.arrived.load(Ordering::Relaxed) > 0).then_some(self.began_ms)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.answered();
        self.let_go(self.held.load(Ordering::Relaxed));
        let mut doing = lock(&self.connection.doing);
        // The last ones are taken out, so that a connection that had many requests at once does not keep their places.
        while doing.turns.last().is_some_and(|turn| turn.strong_count() == 0) {
            doing.turns.pop();
        }
        doing.idle_since = Instant::now();
    }
}

/// Bytes of an answer that are held.
pub(super) struct Holding {
    turn: Arc<Turn>,
    bytes: usize,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.turn.let_go(self.bytes);
    }
}

#[cfg(test)]
mod tests;
