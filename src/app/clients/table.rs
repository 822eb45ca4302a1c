//! The table of connections: who gets a place, and who loses one for it.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::accounts::Account;
use super::beginnings::Beginnings;
use super::{CONNECTIONS_EACH_MAX, Clients, IDLE, LOG_PAUSE, REFUSED_RUNNING_MAX, Share, Turn, lock};
use crate::domain::address::AddressPrefix;

#[derive(Default)]
pub(super) struct Table {
    pub(super) shares: HashMap<AddressPrefix, Weak<Share>>,
    pub(super) connections: HashMap<u64, Arc<Connection>>,
    /// Connections that are not about to end.
    pub(super) open: usize,
    /// Those whose next request is not whole ([`super::beginnings`]).
    pub(super) beginnings: Beginnings,
    pub(super) beginnings_of_proxies: Beginnings,
    next: u64,
    refused: u64,
    logged_at: Option<Instant>,
}

/// One connection.
pub(in crate::app) struct Connection {
    pub(super) number: u64,
    /// Until it ends, when the table lets go of it.
    pub(super) clients: Arc<Clients>,
    share: Arc<Share>,
    /// It carries the requests of many clients.
    pub(super) is_proxy: bool,
    /// Whether a part of a request has come and not all of it, since when, and how many connections that is so for.
    pub(super) is_beginning: AtomicBool,
    pub(super) began_ms: AtomicU64,
    pub(super) beginnings: Beginnings,
    /// When something of it has come last.
    pub(super) moved_ms: AtomicU64,
    /// How often a request has begun or ended on it.
    moves: AtomicUsize,
    /// Bytes of its requests' bodies that it may take in unasked, were there no window that they share.
    pub(super) unread: Mutex<usize>,
    /// Whose the last request was.
    pub(super) account: Mutex<Option<Arc<Account>>>,
    /// Bytes that have come over the line since HTTP was given one.
    mute: AtomicUsize,
    /// Whether the last that has come is a part of a record of TLS.
    is_within_record: AtomicBool,
    pub(super) has_ended: AtomicBool,
    /// Known from its first request on.
    speaks_http1: AtomicBool,
    /// Of the task that serves it.
    waker: AtomicWaker,
    doing: Mutex<Doing>,
    /// Requests that were refused for want of room since one was taken on.
    refused: AtomicUsize,
}

struct Doing {
    turns: Vec<Weak<Turn>>,
    idle_since: Instant,
}

impl Clients {
    /// A new connection from there, if need be in the place of another. A proxy's carries the requests of many clients,
    /// and has no limit of its own.
    pub(in crate::app) fn connect(
        self: &Arc<Self>,
        prefix: AddressPrefix,
        is_proxy: bool,
    ) -> Option<Connected> {
        let mut table = lock(&self.table);
        let share = table.share(prefix);
        let here = share.connections.load(Ordering::Relaxed);
        let is_over_share = here >= CONNECTIONS_EACH_MAX && !is_proxy;
        let has_place = if is_over_share {
            table.end_one_of(prefix)
        } else {
            table.open < self.connections_max || table.end_one_for(prefix, is_proxy)
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
        let beginnings = if is_proxy { &table.beginnings_of_proxies } else { &table.beginnings };
        let connection = Arc::new(Connection {
            number,
            clients: Arc::clone(self),
            share,
            is_proxy,
            is_beginning: AtomicBool::new(false),
            began_ms: AtomicU64::new(0),
            beginnings: Arc::clone(beginnings),
            moved_ms: AtomicU64::new(0),
            moves: AtomicUsize::new(0),
            unread: Mutex::default(),
            account: Mutex::default(),
            mute: AtomicUsize::new(0),
            is_within_record: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            speaks_http1: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            doing: Mutex::new(doing),
            refused: AtomicUsize::new(0),
        });
        table.connections.insert(number, Arc::clone(&connection));
        self.count_beginning(&mut table, &connection);
        drop(table);
        Some(Connected { clients: Arc::clone(self), connection })
    }
}

impl Table {
    pub(super) fn share(&mut self, prefix: AddressPrefix) -> Arc<Share> {
        if let Some(share) = self.shares.get(&prefix).and_then(Weak::upgrade) {
            return share;
        }
        // Nothing is kept of those who left.
        if self.shares.len() == self.shares.capacity() {
            self.shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Share::new(prefix));
        self.shares.insert(prefix, Arc::downgrade(&share));
        share
    }

    /// The site for which most bytes of requests and answers are held, and how many. What connections of proxies take in
    /// unasked is nobody's there: no request of the proxy's own could be ended for it. So many bytes are not counted of the
    /// client that asks.
    pub(super) fn who_has_most(
        &self,
        (asking, ahead): (AddressPrefix, usize),
    ) -> Option<(usize, AddressPrefix)> {
        let own = |share: &Share| {
            let held = share.answers.load(Ordering::Relaxed);
            let but = if share.prefix == asking { ahead } else { 0 };
            held.saturating_sub(share.proxied_unread.load(Ordering::Relaxed)).saturating_sub(but)
        };
        self.of_sites(own).into_iter().map(|(site, bytes)| (bytes, site)).max()
    }

    /// What the networks of each site have together.
    pub(super) fn of_sites(&self, has: impl Fn(&Share) -> usize) -> HashMap<AddressPrefix, usize> {
        let mut sites = HashMap::new();
        for share in self.shares.values().filter_map(Weak::upgrade) {
            *sites.entry(share.prefix.site()).or_default() += has(&share);
        }
        sites
    }

    /// The same of the site of this client.
    pub(super) fn of_site(&self, prefix: AddressPrefix, has: impl Fn(&Share) -> usize) -> usize {
        let shares = self.shares.values().filter_map(Weak::upgrade);
        shares.filter(|share| share.prefix.site() == prefix.site()).map(|share| has(&share)).sum()
    }

    /// Connections on which something of this client is held, but at one address: since when it stands still, the
    /// connection's number, and how many bytes; what stands still for longest comes first.
    fn stalest_of(&self, holder: &Holder, but: Option<AddressPrefix>) -> Vec<(u64, u64, usize)> {
        let about = |connection: &Arc<Connection>| {
            let turns = connection.turns();
            let own = turns.iter().filter(|turn| holder.has(turn) && Some(turn.share().prefix) != but);
            let held = own.clone().map(|turn| turn.held.load(Ordering::Relaxed)).sum();
            Some((own.map(|turn| turn.moved_ms.load(Ordering::Relaxed)).min()?, connection.number, held))
        };
        let mut all: Vec<_> = self.connections.values().filter_map(about).collect();
        all.sort_unstable();
        all
    }

    /// Ends these until so many bytes are free, or no more than `least` of the bytes that it has are left; returns how
    /// many that were.
    pub(super) fn end_stalest_of(
        &mut self,
        holder: &Holder,
        but: Option<AddressPrefix>,
        (bytes, least): (usize, usize),
        wanted: usize,
    ) -> usize {
        let mut freed = 0;
        for (_, number, held) in self.stalest_of(holder, but) {
            if freed >= wanted || bytes.saturating_sub(freed) <= least {
                break;
            }
            self.end(number);
            freed += held;
        }
        freed
    }

    /// Ends the connection of this client that has been idle for longest; false if none is.
    fn end_one_of(&mut self, prefix: AddressPrefix) -> bool {
        let of = |connection: &&Arc<Connection>| connection.share.prefix == prefix;
        let idle = |connection: &Arc<Connection>| Some((connection.idle_since()?, connection.number));
        let longest = self.connections.values().filter(of).filter_map(idle).min();
        longest.is_some_and(|(_, number)| self.end(number))
    }

    /// Makes a place for a newcomer from there: of all sites ([`AddressPrefix::site`]) that have most connections, the one
    /// that has been idle for longest ends; if all are busy, the one that was opened first, if its site has more than
    /// twice as many as the newcomer's. A connection of a proxy counts for the client whose requests it carries.
    fn end_one_for(&mut self, newcomer: AddressPrefix, is_proxy: bool) -> bool {
        // Counted once: who they are busy for may be another one when they are looked at again.
        let holders: Vec<_> =
            self.connections.values().map(|connection| (connection.holder(), connection)).collect();
        let idle = |connection: &&Arc<Connection>| Some((connection.idle_since()?, connection.number));
        let (_, all) = of_most(holders.iter().copied());
        let longest = all.iter().filter_map(idle).min().map(|(_, number)| number);
        let busy = || {
            // Whose requests a proxy's new connection is to carry is not known: perhaps those of a client without any
            // connection. It takes no place of a proxy's connection that carries those of several.
            let own = match is_proxy {
                true => 1,
                false => holders.iter().filter(|(holder, _)| *holder == newcomer.site()).count(),
            };
            let of_clients = holders.iter().copied().filter(|(holder, connection)| {
                !(is_proxy && connection.is_proxy && *holder == connection.share.prefix.site())
            });
            let (most, all) = of_most(of_clients);
            let first = all.iter().map(|connection| connection.number).min();
            first.filter(|_| most > own.saturating_mul(2))
        };
        let loser = longest.or_else(busy);
        loser.is_some_and(|number| self.end(number))
    }

    /// Ends a connection; it has no place any more from now on.
    pub(super) fn end(&mut self, number: u64) -> bool {
        let Some(connection) = self.connections.remove(&number) else {
            return false;
        };
        self.open -= 1;
        connection.share.connections.fetch_sub(1, Ordering::Relaxed);
        connection.is_whole();
        connection.has_ended.store(true, Ordering::Release);
        connection.waker.wake();
        true
    }

    pub(super) fn end_those_who_stand_still(&mut self, now_ms: u64) {
        let now = Instant::now();
        let mut over = Vec::new();
        for connection in self.connections.values() {
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
            self.end(number);
        }
    }
}

/// How many connections the sites have that have most of these, and which they are.
fn of_most<'a>(
    connections: impl Iterator<Item = (AddressPrefix, &'a Arc<Connection>)>,
) -> (usize, Vec<&'a Arc<Connection>>) {
    let mut sites: HashMap<AddressPrefix, Vec<&Arc<Connection>>> = HashMap::new();
    for (site, connection) in connections {
        sites.entry(site).or_default().push(connection);
    }
    let most = sites.values().map(Vec::len).max().unwrap_or_default();
    (most, sites.into_values().filter(|of_site| of_site.len() == most).flatten().collect())
}

/// Who holds something.
pub(super) enum Holder {
    /// All networks of one site ([`AddressPrefix::site`]).
    Site(AddressPrefix),
    Account(Arc<Account>),
}

impl Holder {
    fn has(&self, turn: &Turn) -> bool {
        match self {
            Holder::Site(site) => turn.share().prefix.site() == *site,
            Holder::Account(account) => turn.account().is_some_and(|own| Arc::ptr_eq(own, account)),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Site(site) => site.fmt(f),
            Holder::Account(account) => account.actor.fmt(f),
        }
    }
}

/// A connection's place, given back when dropped.
pub(in crate::app) struct Connected {
    pub(in crate::app) clients: Arc<Clients>,
    pub(in crate::app) connection: Arc<Connection>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        lock(&self.clients.table).end(self.connection.number);
    }
}

impl Connection {
    pub(in crate::app) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// So many bytes have come over the line; returns how many that are since HTTP was given one.
    pub(in crate::app) fn came_mute(&self, bytes: usize) -> usize {
        self.mute.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// The last that has come is a part of a record of TLS, or it ends one.
    pub(in crate::app) fn has_part_of_record(&self, is_within: bool) {
        // Read first: nearly all that comes are whole records.
        if self.is_within_record.load(Ordering::Relaxed) != is_within {
            self.is_within_record.store(is_within, Ordering::Relaxed);
        }
    }

    /// Whether something has come that HTTP was not given: TLS holds it.
    pub(in crate::app) fn is_held_by_tls(&self) -> bool {
        self.mute.load(Ordering::Relaxed) > 0 || self.is_within_record.load(Ordering::Relaxed)
    }

    /// HTTP is given some of what has come.
    pub(in crate::app) fn came_as_http(&self) {
        self.mute.store(0, Ordering::Relaxed);
    }

    /// How often a request has begun or ended on it.
    pub(in crate::app) fn moves(&self) -> usize {
        self.moves.load(Ordering::Relaxed)
    }

    /// Whether nothing is asked on it at the moment.
    pub(in crate::app) fn is_idle(&self) -> bool {
        self.idle_since().is_some()
    }

    /// Whether it is to end; the task that asks is woken when it is.
    pub(in crate::app) fn has_ended(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.has_ended.load(Ordering::Acquire)
    }

    /// Whether it is to end.
    pub(in crate::app) fn is_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Returns when it is to end.
    pub(in crate::app) async fn ended(&self) {
        poll_fn(|context| if self.has_ended(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    pub(in crate::app) fn asked_by_http1(&self) {
        self.speaks_http1.store(true, Ordering::Relaxed);
    }

    pub(in crate::app) fn speaks_http1(&self) -> bool {
        self.speaks_http1.load(Ordering::Relaxed)
    }

    /// A request has begun on it.
    pub(super) fn take_up(&self, turn: &Arc<Turn>) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        let mut doing = lock(&self.doing);
        let vacant = doing.turns.iter().position(|turn| turn.strong_count() == 0);
        match vacant.and_then(|vacant| doing.turns.get_mut(vacant)) {
            Some(place) => *place = Arc::downgrade(turn),
            None => doing.turns.push(Arc::downgrade(turn)),
        }
    }

    /// A request has ended on it.
    pub(super) fn put_down(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        let mut doing = lock(&self.doing);
        // The last ones are taken out, so that a connection that had many requests at once does not keep their places.
        while doing.turns.last().is_some_and(|turn| turn.strong_count() == 0) {
            doing.turns.pop();
        }
        doing.idle_since = Instant::now();
    }

    pub(super) fn has_taken_on(&self) {
        // Read first: this is so for nearly every request.
        if self.refused.load(Ordering::Relaxed) > 0 {
            self.refused.store(0, Ordering::Relaxed);
        }
    }

    /// Whether so many were refused without one being taken on that it has to end. A proxy's goes on for the others.
    pub(super) fn has_refused_again(&self) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed) >= REFUSED_RUNNING_MAX && !self.is_proxy
    }

    /// The site that has the connection: of a proxy's that of the client for which it is busy, if it is for one alone.
    fn holder(&self) -> AddressPrefix {
        let own = self.share.prefix.site();
        if !self.is_proxy {
            return own;
        }
        let mut sites = self.turns().into_iter().map(|turn| turn.share().prefix.site());
        match sites.next() {
            Some(first) if sites.all(|site| site == first) => first,
            _ => own,
        }
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
