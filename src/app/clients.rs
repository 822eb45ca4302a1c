//! Floor 5. What the node holds for each client: its connections, requests, bodies that arrive and answers that wait.
//!
//! One rule for all of it: what is held is counted for the client ([`AddressPrefix`]) and for all together, has to make
//! progress, and makes room for clients that have little. Where there is no place left for a newcomer, the client that
//! has most loses what has stood still for longest. What ends is always a whole connection: HTTP/2 hands a piece of an
//! answer over and does not take it back.

mod accounts;
mod awaited;
mod beginnings;
mod bodies;
mod places;
mod rooms;
mod table;
mod turn;

use std::collections::HashMap;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::accounts::Account;
use self::awaited::Awaited;
pub(super) use self::rooms::Waiting;
use self::table::Table;
pub(super) use self::table::{Connected, Connection};
pub(super) use self::turn::{Holding, Turn, Unread};
use crate::domain::access::Actor;
use crate::domain::address::AddressPrefix;

/// Connections of one client.
pub(super) const CONNECTIONS_EACH_MAX: usize = 512;
/// What a request takes while it is answered, beside its head and body; room for a small answer is among it.
const REQUEST_BYTES: usize = 16 << 10;
/// So many bytes of its answer are that room. Each count is one more thing that all workers share.
const SMALL_ANSWER_BYTES: usize = 4 << 10;
/// What a connection takes in of bodies that are not asked for, of all its requests together.
const UNREAD_BYTES_MAX: usize = super::HTTP2_CONNECTION_WINDOW as usize;
/// Trailers of an HTTP/2 body as they lie in memory: as many fields as a head may have of 8 KiB, with the table that they are in.
const TRAILERS_BYTES: usize = 48 << 10;
/// What is left of a request that was refused, until it is told.
const REFUSED_BYTES: usize = 2 << 10;
/// Bytes of requests and answers that are held for one client and in all. Bodies take from those in all what they have beyond
/// what is theirs alone ([`Clients::answers_max`]).
const ANSWERS_EACH_MAX: usize = 12 << 20;
const ANSWERS_MAX: usize = 36 << 20;
/// Bytes beside those of an account for its requests at addresses that have less than `SMALL_BYTES`.
const ANSWERS_EACH_SLACK: usize = 2 << 20;
/// Bytes beside that for clients that have less than `SMALL_BYTES`, so that nobody loses anything for a small request;
/// the same for bodies.
const RESERVE_BYTES: usize = 4 << 20;
const SMALL_BYTES: usize = 256 << 10;
/// From how many bytes of requests on beside `ANSWERS_EACH_MAX` and `ANSWERS_MAX` a request is refused before it is looked
/// at, and from how many on its connection ends.
const REFUSED_EACH_BESIDE: usize = 2 << 20;
const ENDED_EACH_BESIDE: usize = 4 << 20;
const REFUSED_BESIDE: usize = 8 << 20;
const ENDED_BESIDE: usize = 12 << 20;
/// From how many on a request of a client that has less than `SMALL_BYTES` is refused. Up to then it waits: connections that
/// are told to end count until they have, and each of those that read may begin 32 requests meanwhile.
const WAITS_BESIDE: usize = 28 << 20;
/// From how many bytes of requests on a client that has its equal share of them is refused, so that there is room for those
/// that have less; how much that share is at least, for one that sends a body and reads meanwhile.
const CROWDED_BYTES: usize = ANSWERS_MAX - RESERVE_BYTES;
const EQUAL_SHARE_MIN: usize = UNREAD_BYTES_MAX;
/// Requests refused one after the other on a connection before it ends.
const REFUSED_RUNNING_MAX: usize = 64;
/// Requests of one client and of all that wait for room; a few of a client's own may always wait.
const WAITING_EACH_MAX: usize = 64;
const WAITING_MAX: usize = 256;
const WAITING_EACH_MIN: usize = 4;
/// Bytes of answers that are made, and wait because what was let in before them takes the room.
const MADE_WAITING_MAX: usize = 4 << 20;
/// Room that is made at once, so that it is not made for each request anew.
const ROOM_MADE_BYTES: usize = 1 << 20;
/// How often one client may have others looked through for room, and how long what was ended may take to be given back.
const ROOM_MADE_PAUSE_MS: u64 = 20;
/// Bytes of request bodies beside one of the largest: of one client, and in all beside those of that client, as far as
/// answers leave them.
const BODIES_BESIDE_MAX: usize = 4 << 20;
const BODIES_OTHERS_MAX: usize = 16 << 20;
/// A body is short up to so many bytes: that of a record, as against an upload. So many bytes of short ones may be there
/// whatever answers take, and `BODIES_OTHERS_MAX` more as far as answers leave them: of each there is an answer as long.
const SHORT_BODY_BYTES: usize = 2 << 20;
const SHORT_BODIES_MIN: usize = 8 << 20;
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
    /// Bytes of requests and answers; those of requests alone; bytes of bodies, and of short ones.
    answers: AtomicUsize,
    requests: AtomicUsize,
    bodies: AtomicUsize,
    short_bodies: AtomicUsize,
    /// Clients that have requests.
    asking: AtomicIsize,
    /// Accounts that have something.
    accounts: Mutex<HashMap<Actor, Weak<Account>>>,
    /// Requests that wait for their bodies.
    awaited: Awaited,
    /// Requests whose bodies have begun to arrive.
    arriving: Mutex<Vec<Weak<Turn>>>,
    /// Requests that wait for room, and what wakes them.
    waiting: AtomicUsize,
    made_waiting: AtomicUsize,
    room: Notify,
    /// Answers under way that wait for a place for their next piece, and what wakes them.
    waiting_for_places: AtomicUsize,
    places: Notify,
    /// When connections were ended for room last; 0: never.
    made_room_ms: AtomicU64,
    /// Begin of the time that turns count.
    started: Instant,
}

/// What one client has; the fields are those of [`Clients`].
pub(super) struct Share {
    prefix: AddressPrefix,
    connections: AtomicUsize,
    /// Connections whose next request is not whole.
    beginnings: AtomicUsize,
    answers: AtomicUsize,
    requests: AtomicUsize,
    bodies: AtomicUsize,
    /// Of the answers what a proxy's connections may take in unasked, for requests of its clients.
    proxied_unread: AtomicUsize,
    waiting: AtomicUsize,
    room: Notify,
    /// When others were last looked through for its sake, for bodies without success; 0: never.
    answers_tried_ms: AtomicU64,
    bodies_failed_ms: AtomicU64,
}

/// Why something is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether what is noted with its time is too new to be done again.
fn was_lately(at_ms: &AtomicU64, now_ms: u64) -> bool {
    let at_ms = at_ms.load(Ordering::Relaxed);
    at_ms > 0 && now_ms.saturating_sub(at_ms) < ROOM_MADE_PAUSE_MS
}

impl Share {
    fn new(prefix: AddressPrefix) -> Share {
        Share {
            prefix,
            connections: AtomicUsize::new(0),
            beginnings: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            proxied_unread: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
            answers_tried_ms: AtomicU64::new(0),
            bodies_failed_ms: AtomicU64::new(0),
        }
    }
}

impl Clients {
    /// For bodies of at most `body_bytes_max`.
    pub(super) fn new(connections_max: usize, body_bytes_max: usize) -> Arc<Clients> {
        Arc::new(Clients {
            table: Mutex::default(),
            connections_max,
            bodies_each_max: body_bytes_max.saturating_add(BODIES_BESIDE_MAX),
            answers: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            short_bodies: AtomicUsize::new(0),
            asking: AtomicIsize::new(0),
            accounts: Mutex::default(),
            awaited: Awaited::default(),
            arriving: Mutex::default(),
            waiting: AtomicUsize::new(0),
            made_waiting: AtomicUsize::new(0),
            room: Notify::new(),
            waiting_for_places: AtomicUsize::new(0),
            places: Notify::new(),
            made_room_ms: AtomicU64::new(0),
            started: Instant::now(),
        })
    }

    /// The share of a client behind a proxy.
    pub(super) fn share(&self, prefix: AddressPrefix) -> Arc<Share> {
        lock(&self.table).share(prefix)
    }

    /// Begins a request whose head takes so many bytes; `share` is that of its client, if it is not the connection's.
    pub(super) fn begin(
        &self,
        connection: &Arc<Connection>,
        share: impl Into<Option<Arc<Share>>>,
        head_bytes: usize,
    ) -> Arc<Turn> {
        let turn = Turn::new(Arc::clone(connection), share.into());
        connection.take_up(&turn);
        turn.hold_request(REQUEST_BYTES + head_bytes);
        turn
    }

    /// How many bytes of requests and answers there may be now. All that is held for clients is bounded by this: bodies and
    /// answers together by one of the largest bodies, `BODIES_BESIDE_MAX` and `ANSWERS_MAX`; short bodies and answers by
    /// `SHORT_BODIES_MIN` and `ANSWERS_MAX`; each with `RESERVE_BYTES` more of bodies and of answers.
    fn answers_max(&self) -> usize {
        let beyond = |held: &AtomicUsize, own: usize| held.load(Ordering::Relaxed).saturating_sub(own);
        let all = beyond(&self.bodies, self.bodies_each_max);
        let short = beyond(&self.short_bodies, SHORT_BODIES_MIN);
        ANSWERS_MAX - all.max(short).min(BODIES_OTHERS_MAX)
    }

    /// How many bytes bodies may have beyond what is theirs alone: what answers leave.
    fn bodies_beyond_max(&self) -> usize {
        ANSWERS_MAX.saturating_sub(self.answers.load(Ordering::Relaxed)).min(BODIES_OTHERS_MAX)
    }

    /// From 1 on.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Looks at all connections now and then, and ends those on which nothing happens.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let mut table = lock(&self.table);
            table.end_those_who_stand_still(self.now_ms());
            self.count_parts_of_records(&mut table);
        }
    }
}

#[cfg(test)]
mod tests;
