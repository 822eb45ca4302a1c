//! Connections whose next request has begun to arrive and is not whole: of nobody knows whom, and uncounted by what
//! requests hold. So there are few of them, of one client and in all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::table::Table;
use super::{Clients, Connection, lock};
use crate::domain::address::AddressPrefix;

/// Connections of one client and in all that have sent a part of a request, or no whole one yet: of each a handshake, a
/// line's buffers and a head as HTTP/2 has unpacked it are held, some 100 KB. Behind a router there are many people, so one
/// client may have most of them; clients that come then get their places from it.
pub(super) const BEGINNINGS_EACH_MAX: usize = 192;
pub(super) const BEGINNINGS_MAX: usize = 256;
/// The same of all proxies, which open connections before they need them.
pub(super) const BEGINNINGS_OF_PROXIES_MAX: usize = 512;
/// How long one is young: as long as a handshake takes on a slow line.
const YOUNG_MS: u64 = 5000;

impl Clients {
    /// A part of a request has come on this connection, and the rest not yet. Where there are too many of these, one that
    /// began earlier ends.
    pub(in crate::app) fn has_begun(&self, connection: &Connection) {
        if connection.is_beginning.load(Ordering::Relaxed) {
            return;
        }
        let mut table = lock(&self.table);
        self.count_beginning(&mut table, connection);
    }

    /// [`Self::has_begun`] for a connection that is opened.
    pub(super) fn count_beginning(&self, table: &mut Table, connection: &Connection) {
        if connection.has_ended.load(Ordering::Acquire)
            || connection.is_beginning.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let now_ms = self.now_ms();
        for time in [&connection.began_ms, &connection.moved_ms] {
            time.store(now_ms, Ordering::Relaxed);
        }
        let own = connection.share().beginnings.fetch_add(1, Ordering::Relaxed) + 1;
        let in_all = connection.beginnings.fetch_add(1, Ordering::Relaxed) + 1;
        if connection.is_proxy {
            if in_all > BEGINNINGS_OF_PROXIES_MAX {
                table.end_beginning_of_proxies(now_ms);
            }
        } else if own > BEGINNINGS_EACH_MAX {
            table.end_beginning_of(connection.share().prefix, now_ms);
        } else if in_all > BEGINNINGS_MAX {
            table.end_beginning_of_most(now_ms);
        }
    }

    /// [`Self::has_begun`] for connections of which TLS holds a part of a record that came while a request was answered:
    /// nothing is read on them when the answer ends.
    pub(super) fn count_parts_of_records(&self, table: &mut Table) {
        let is_uncounted = |connection: &&Arc<Connection>| {
            connection.is_held_by_tls()
                && !connection.is_beginning.load(Ordering::Relaxed)
                && connection.is_idle()
        };
        let uncounted: Vec<_> = table.connections.values().filter(is_uncounted).cloned().collect();
        uncounted.iter().for_each(|connection| self.count_beginning(table, connection));
    }

    /// Something has come on this connection.
    pub(in crate::app) fn has_moved(&self, connection: &Connection) {
        if connection.is_beginning.load(Ordering::Relaxed) {
            connection.moved_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }
}

impl Connection {
    #[cfg(test)]
    pub(in crate::app) fn is_beginning(&self) -> bool {
        self.is_beginning.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(in crate::app) fn began_ms(&self) -> u64 {
        self.began_ms.load(Ordering::Relaxed)
    }

    /// Its request has come as a whole.
    pub(in crate::app) fn is_whole(&self) {
        if self.is_beginning.load(Ordering::Relaxed) && self.is_beginning.swap(false, Ordering::Relaxed) {
            self.share().beginnings.fetch_sub(1, Ordering::Relaxed);
            self.beginnings.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Table {
    fn beginnings(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.values().filter(|connection| connection.is_beginning.load(Ordering::Relaxed))
    }

    /// Ends one of this client ([`Connection::ends_before`]).
    fn end_beginning_of(&mut self, prefix: AddressPrefix, now_ms: u64) {
        let of = |connection: &&Arc<Connection>| connection.share().prefix == prefix && !connection.is_proxy;
        let first = self.beginnings().filter(of).map(|connection| connection.ends_before(now_ms)).min();
        self.end_beginning(first);
    }

    /// Ends one of a proxy's on which nothing is asked: the others go on for the clients behind it.
    fn end_beginning_of_proxies(&mut self, now_ms: u64) {
        let of = |connection: &&Arc<Connection>| connection.is_proxy && connection.is_idle();
        let first = self.beginnings().filter(of).map(|connection| connection.ends_before(now_ms)).min();
        self.end_beginning(first);
    }

    /// Ends one of the sites that have most of them.
    fn end_beginning_of_most(&mut self, now_ms: u64) {
        let mut sites: HashMap<AddressPrefix, (usize, Order)> = HashMap::new();
        for connection in self.beginnings().filter(|connection| !connection.is_proxy) {
            let order = connection.ends_before(now_ms);
            let (count, first) = sites.entry(connection.share().prefix.site()).or_insert((0, order));
            *count += 1;
            *first = order.min(*first);
        }
        let most = sites.values().map(|(count, _)| *count).max().unwrap_or_default();
        let first = sites.values().filter(|(count, _)| *count == most).map(|(_, first)| *first).min();
        self.end_beginning(first);
    }

    fn end_beginning(&mut self, first: Option<Order>) {
        if let Some((_, _, number)) = first {
            tracing::debug!(number, "a connection whose request is not whole ends: there are too many");
            self.end(number);
        }
    }
}

/// Which ends first: the lowest; with the connection's number.
type Order = (bool, u64, u64);

impl Connection {
    /// Those that are not young any more end first, the oldest of them; then of the young ones the one of which nothing has
    /// come for longest. So a handshake on a slow line is not ended for its many neighbours as long as it goes on.
    fn ends_before(&self, now_ms: u64) -> Order {
        let began_ms = self.began_ms.load(Ordering::Relaxed);
        let is_young = now_ms.saturating_sub(began_ms) < YOUNG_MS;
        let since_ms = if is_young { self.moved_ms.load(Ordering::Relaxed) } else { began_ms };
        (is_young, since_ms, self.number)
    }
}

/// How many there are in all, a proxy's apart.
pub(super) type Beginnings = Arc<AtomicUsize>;
