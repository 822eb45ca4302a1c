//! One request, from its head until the last byte of its answer is taken, and what is held for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use super::accounts::Account;
use super::bodies::Pace;
use super::{
    BYTES_A_SECOND_MIN, Clients, Connection, REQUEST_BYTES, SMALL_ANSWER_BYTES, SMALL_BYTES, STALLED, Share,
    TRAILERS_BYTES, UNREAD_BYTES_MAX, lock,
};

/// From how many bytes on a head is let go when it is answered.
const LONG_HEAD_BYTES: usize = 4 << 10;

/// One request, from its head until the last byte of its answer is taken.
pub(in crate::app) struct Turn {
    pub(super) me: Weak<Turn>,
    pub(super) connection: Arc<Connection>,
    /// Of the client behind a proxy; of all others it is the connection's, which no request need count.
    share: Option<Arc<Share>>,
    /// Who has logged in with it, and how many bytes are counted there.
    pub(super) account: OnceLock<Arc<Account>>,
    pub(super) charged: AtomicUsize,
    pub(super) began_ms: u64,
    /// Bytes of its body that have arrived, until it is answered, and how fast they come.
    pub(super) arrived: AtomicUsize,
    pub(super) pace: Mutex<Pace>,
    /// Bytes of the request and its answer that are held; those of the request alone.
    pub(super) held: AtomicUsize,
    pub(super) requested: AtomicUsize,
    /// Of these the bytes for trailers that may still come.
    pub(super) trailers: AtomicUsize,
    /// Bytes of the next piece of its answer, among those that are held; how many of them there was room for.
    pub(super) ahead: AtomicUsize,
    pub(super) placed: AtomicUsize,
    /// Bytes of its answer that were given and are counted among the request.
    small: AtomicUsize,
    /// Since when it stands still: its begin, or when a piece of its answer was given or taken.
    pub(super) moved_ms: AtomicU64,
    /// Since when a piece of the answer waits to be taken; 0: none does.
    out_since_ms: AtomicU64,
    /// How long the pieces before it have waited together, and how many bytes they had.
    waited_ms: AtomicU64,
    pub(super) taken: AtomicU64,
}

impl Turn {
    pub(super) fn new(connection: Arc<Connection>, share: Option<Arc<Share>>) -> Arc<Turn> {
        let began_ms = connection.clients.now_ms();
        Arc::new_cyclic(|me| Turn {
            me: Weak::clone(me),
            connection,
            share,
            account: OnceLock::new(),
            charged: AtomicUsize::new(0),
            began_ms,
            arrived: AtomicUsize::new(0),
            pace: Mutex::default(),
            held: AtomicUsize::new(0),
            requested: AtomicUsize::new(0),
            trailers: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            placed: AtomicUsize::new(0),
            small: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(began_ms),
            out_since_ms: AtomicU64::new(0),
            waited_ms: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        })
    }

    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.connection.clients
    }

    pub(super) fn share(&self) -> &Arc<Share> {
        self.share.as_ref().unwrap_or_else(|| self.connection.share())
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.share().answers.fetch_add(bytes, Ordering::Relaxed);
        self.clients().answers.fetch_add(bytes, Ordering::Relaxed);
        if let Some(account) = self.account.get() {
            self.charged.fetch_add(bytes, Ordering::Relaxed);
            account.answers.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn let_go(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.discharge(bytes);
        self.clients().let_go(self.share(), bytes);
    }

    pub(super) fn hold_request(&self, bytes: usize) {
        self.requested.fetch_add(bytes, Ordering::Relaxed);
        self.clients().more_is_asked(self.share(), bytes);
        self.hold(bytes);
    }

    pub(super) fn let_request_go(&self, bytes: usize) {
        self.requested.fetch_sub(bytes, Ordering::Relaxed);
        self.clients().less_is_asked(self.share(), bytes);
        self.let_go(bytes);
    }

    /// Counts the trailers that may come at the end of an HTTP/2 body: until then, or until the answer is taken, because the
    /// connection keeps those that nobody reads for as long as it has the stream.
    pub(in crate::app) fn expects_trailers(&self) {
        self.trailers.store(TRAILERS_BYTES, Ordering::Relaxed);
        self.hold_request(TRAILERS_BYTES);
    }

    /// The body has ended: no trailers are kept.
    pub(super) fn expects_no_trailers(&self) {
        match self.trailers.swap(0, Ordering::Relaxed) {
            0 => {}
            bytes => self.let_request_go(bytes),
        }
    }

    /// Whether an answer of so many bytes, if that is known, may be held. Room for a small one is counted from the
    /// beginning.
    pub(in crate::app) fn has_room_for(&self, bytes: Option<u64>) -> bool {
        let placed = self.placed.load(Ordering::Relaxed);
        match bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)) {
            Some(bytes) if bytes <= REQUEST_BYTES.max(placed) => true,
            Some(bytes) if bytes > SMALL_BYTES => self.clients().has_room_for_long(self.client(), bytes),
            None if placed > 0 => true,
            _ => self.has_room(),
        }
    }

    /// Ends the connection, as if the line had broken.
    pub(in crate::app) fn break_off(&self) {
        lock(&self.clients().table).end(self.connection.number);
    }

    /// Counts bytes of an answer for as long as what is returned lives.
    pub(in crate::app) fn holding(self: &Arc<Self>, bytes: usize) -> Holding {
        self.holding_placed(bytes)
    }

    /// Counts a piece of the answer, beyond the first `SMALL_ANSWER_BYTES`: these have their room among the request.
    pub(in crate::app) fn holding_piece(self: &Arc<Self>, bytes: usize) -> Holding {
        let small = self.small.load(Ordering::Relaxed).saturating_add(bytes);
        if small > SMALL_ANSWER_BYTES || self.ahead.load(Ordering::Relaxed) > 0 {
            return self.holding_placed(bytes);
        }
        self.small.store(small, Ordering::Relaxed);
        self.placed.store(0, Ordering::Relaxed);
        Holding { turn: Arc::clone(self), bytes: 0 }
    }

    /// Counts bytes beside the next piece of the answer.
    pub(in crate::app) fn holding_beside(self: &Arc<Self>, bytes: usize) -> Holding {
        self.hold(bytes);
        Holding { turn: Arc::clone(self), bytes }
    }

    /// Counts bytes that a connection may take in of the request's body before they are asked for.
    pub(in crate::app) fn holding_unread(self: &Arc<Self>, bytes: usize) -> Unread {
        let own = lock(&self.connection.unread);
        self.count_unread(own, |sum| sum.saturating_add(bytes));
        Unread { turn: Arc::clone(self), bytes }
    }

    /// All bodies of a connection share a window, so no more than that is counted.
    fn count_unread(&self, mut own: MutexGuard<'_, usize>, change: impl FnOnce(usize) -> usize) {
        let before = (*own).min(UNREAD_BYTES_MAX);
        *own = change(*own);
        let now = (*own).min(UNREAD_BYTES_MAX);
        let (share, clients) = (self.connection.share(), self.clients());
        if self.connection.is_proxy {
            share.proxied_unread.fetch_add(now, Ordering::Relaxed);
            share.proxied_unread.fetch_sub(before, Ordering::Relaxed);
        }
        if now > before {
            clients.more_is_asked(share, now - before);
            for count in [&share.answers, &clients.answers] {
                count.fetch_add(now - before, Ordering::Relaxed);
            }
        } else if now < before {
            clients.less_is_asked(share, before - now);
            clients.let_go(share, before - now);
        }
    }

    /// The request is answered: its head and body are not needed any more. A small head stays counted until the answer is
    /// sent, because every count is one more thing that all workers share.
    pub(in crate::app) fn answered(&self, head_bytes: usize) {
        self.let_body_go();
        if head_bytes >= LONG_HEAD_BYTES {
            self.let_request_go(head_bytes);
        }
    }

    /// A piece of the answer is given to the connection.
    pub(in crate::app) fn gave(&self, bytes: usize) {
        let now_ms = self.clients().now_ms();
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        self.out_since_ms.store(now_ms, Ordering::Relaxed);
        self.moved_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The connection asks for the next piece.
    pub(in crate::app) fn asked(&self) {
        let since_ms = self.out_since_ms.swap(0, Ordering::Relaxed);
        if since_ms > 0 {
            let now_ms = self.clients().now_ms();
            self.waited_ms.fetch_add(now_ms.saturating_sub(since_ms), Ordering::Relaxed);
            self.moved_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    pub(super) fn is_stalled(&self, now_ms: u64) -> bool {
        let since_ms = self.out_since_ms.load(Ordering::Relaxed);
        if since_ms == 0 {
            return false;
        }
        let out_ms = now_ms.saturating_sub(since_ms);
        let stalled_ms = u64::try_from(STALLED.as_millis()).unwrap_or(u64::MAX);
        let taken_ms = self.taken.load(Ordering::Relaxed).saturating_mul(1000) / BYTES_A_SECOND_MIN;
        out_ms >= stalled_ms
            || self.waited_ms.load(Ordering::Relaxed) + out_ms >= stalled_ms.saturating_add(taken_ms)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.let_body_go();
        let requested = self.requested.load(Ordering::Relaxed);
        self.clients().less_is_asked(self.share(), requested);
        // The request is among what is held.
        self.discharge(usize::MAX);
        self.clients().let_go(self.share(), self.held.load(Ordering::Relaxed));
        self.connection.put_down();
    }
}

/// Bytes that are held for a request.
pub(in crate::app) struct Holding {
    pub(super) turn: Arc<Turn>,
    pub(super) bytes: usize,
}

/// Bytes of a body that its connection may take in before they are asked for.
pub(in crate::app) struct Unread {
    turn: Arc<Turn>,
    bytes: usize,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let own = lock(&self.turn.connection.unread);
        self.turn.count_unread(own, |sum| sum.saturating_sub(self.bytes));
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.turn.let_go(self.bytes);
        }
    }
}
