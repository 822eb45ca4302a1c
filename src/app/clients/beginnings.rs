//! Connections whose next request has begun to arrive and is not whole: of nobody knows whom, and uncounted by what
//! requests hold. So there are few of them, of one client and in all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::table::Table;
use super::{Clients, Connection, lock};
use crate::domain::address::AddressPrefix;

/// Connections of one client and in all that have sent a part of a request, or no whole one yet: of each a handshake, a
/// line's buffers and a head as HTTP/2 has unpacked it are held, some 100 KB.
pub(super) const BEGINNINGS_EACH_MAX: usize = 96;
pub(super) const BEGINNINGS_MAX: usize = 256;

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
        connection.began_ms.store(self.now_ms(), Ordering::Relaxed);
        let own = connection.share().beginnings.fetch_add(1, Ordering::Relaxed) + 1;
        let in_all = table.beginnings.fetch_add(1, Ordering::Relaxed) + 1;
        if own > BEGINNINGS_EACH_MAX && !connection.is_proxy {
            table.end_beginning_of(connection.share().prefix);
        } else if in_all > BEGINNINGS_MAX {
            table.end_beginning_of_most();
        }
    }
}

impl Connection {
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

    /// Ends the one that began first of this client.
    fn end_beginning_of(&mut self, prefix: AddressPrefix) {
        let of = |connection: &&Arc<Connection>| connection.share().prefix == prefix && !connection.is_proxy;
        let first = self.beginnings().filter(of).map(|connection| connection.began()).min();
        self.end_beginning(first);
    #[cfg(test)]
    pub(in crate::app) fn is_beginning(&self) -> bool {
        self.is_beginning.load(Ordering::Relaxed)
    }

    }

    /// Ends the one that began first of the sites that have most of them. A proxy's goes on for the others.
    fn end_beginning_of_most(&mut self) {
        let mut sites: HashMap<AddressPrefix, (usize, (u64, u64))> = HashMap::new();
        for connection in self.beginnings().filter(|connection| !connection.is_proxy) {
            let began = connection.began();
            let (count, first) = sites.entry(connection.share().prefix.site()).or_insert((0, began));
            *count += 1;
            *first = began.min(*first);
        }
        let most = sites.values().map(|(count, _)| *count).max().unwrap_or_default();
        let first = sites.values().filter(|(count, _)| *count == most).map(|(_, first)| *first).min();
        self.end_beginning(first);
    }

    fn end_beginning(&mut self, first: Option<(u64, u64)>) {
        if let Some((_, number)) = first {
            tracing::debug!(number, "a connection whose request is not whole ends: there are too many");
            self.end(number);
        }
    }
}

impl Connection {
    fn began(&self) -> (u64, u64) {
        (self.began_ms.load(Ordering::Relaxed), self.number)
    }
}

/// How many there are in all.
pub(super) type Beginnings = Arc<AtomicUsize>;
