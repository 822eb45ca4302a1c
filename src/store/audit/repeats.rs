//! Floor 1. Changes of one record that one account repeats within a minute: from so many on they share an entry.
//!
//! From whichever addresses they come: a client has as many as it likes.
//!
//! Otherwise an account that may write one field of its own record could fill the trail with it. What shares an entry waits in
//! `meta`, in the transaction of each change, so none is lost; it gets its entry, with how often and which fields, when the
//! minute is over. The chain is only ever added to. If what waits cannot be read it is lost, and the trail has a gap for it.

use bson::{Bson, doc};
use serde::{Deserialize, Serialize};

use crate::domain::access::Actor;
use crate::domain::audit::{Event, PATHS_MAX, Times, What};
use crate::store::engine::{Snapshot, Store, Tx, WINDOW_MS, bare, client_at};
use crate::store::error::{StoreError, unless_unreadable};
use crate::store::rows::{damaged, decode};

/// `{rows: [...]}`: what waits for its entry.
const META_REPEATS: &str = "audit_repeats";
/// What waits at most; more makes room first.
const WAITING_MAX: usize = 64;
const DETAIL: &str = "repeated changes of one record";

/// Changes without an entry of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Waiting {
    times: Times,
    event: Event,
}

impl Waiting {
    fn is_due(&self, now_ms: i64) -> bool {
        // The clock of a box may also go back.
        !(self.times.at_ms..self.times.at_ms + WINDOW_MS).contains(&now_ms)
    }

    fn is_like(&self, event: &Event) -> bool {
        bare(&self.event) == bare(event)
    }

    fn add(&mut self, event: &Event, now_ms: i64) {
        let Event { peer, paths, .. } = event;
        if self.event.peer != *peer {
            self.event.peer = shared_part(&self.event.peer, peer);
        }
        self.times = Times { until_ms: now_ms, count: self.times.count + 1, ..self.times };
        for path in paths {
            if self.event.paths.len() < PATHS_MAX && !self.event.paths.contains(path) {
                self.event.paths.push(path.clone());
            }
        }
    }
}

/// The client to which both addresses belong; empty if these are two.
fn shared_part(one: &str, other: &str) -> String {
    let client = client_at(one);
    if client == client_at(other) { client.into_owned() } else { String::new() }
}

impl Tx<'_> {
    /// Appends an entry about a change, or adds it to those that wait for one.
    pub(crate) fn audit_repeatable(&mut self, event: Event) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        let is_repeatable = What::from_name(&event.verb)
            .is_some_and(|what| matches!(what, What::Create | What::Update | What::Delete));
        if !is_repeatable || !self.carry.repeats.is_one_too_many(&event, now_ms) {
            return self.audit(event);
        }
        let mut waiting = self.waiting_repeats()?;
        if waiting.len() >= WAITING_MAX || waiting.iter().any(|row| row.is_due(now_ms)) {
            let is_full = waiting.len() >= WAITING_MAX;
            self.write_repeats(|row| is_full || row.is_due(now_ms))?;
            waiting = self.waiting_repeats()?;
        }
        match waiting.iter_mut().find(|row| row.is_like(&event)) {
            Some(row) => row.add(&event, now_ms),
            None => waiting.push(Waiting { times: Times::once(now_ms), event: event.saying(DETAIL) }),
        }
        self.keep_repeats(&waiting)
    }

    /// Changes that wait for their entry.
    fn waiting_repeats(&mut self) -> Result<Vec<Waiting>, StoreError> {
        let read = self.meta_row(META_REPEATS)?.map_or(Ok(Vec::new()), |row| waiting_in(&row));
        if let Some(waiting) = unless_unreadable(read)? {
            return Ok(waiting);
        }
        tracing::error!("repeated changes that waited for their entry in the audit trail cannot be read");
        // Before the entry: it may ask for those that wait.
        self.keep_repeats(&[])?;
        self.audit(Event::new(What::Gap, &Actor::Node).saying(DETAIL))?;
        Ok(Vec::new())
    }

    /// Gives their entries to those that wait and are wanted.
    fn write_repeats(&mut self, is_wanted: impl Fn(&Waiting) -> bool) -> Result<(), StoreError> {
        let (due, rest): (Vec<_>, Vec<_>) = self.waiting_repeats()?.into_iter().partition(is_wanted);
        for Waiting { times, event } in due {
            self.audit_at(times, event)?;
        }
        self.keep_repeats(&rest)
    }

    /// Gives their entries to all that wait.
    pub(crate) fn write_all_repeats(&mut self) -> Result<(), StoreError> {
        match self.meta_row(META_REPEATS)? {
            Some(_) => self.write_repeats(|_| true),
            None => Ok(()),
        }
    }

    fn keep_repeats(&mut self, waiting: &[Waiting]) -> Result<(), StoreError> {
        let rows = waiting.iter().map(bson::serialize_to_bson);
        let rows: Vec<Bson> =
            rows.collect::<Result<_, _>>().map_err(|error| StoreError::Unstorable(error.to_string()))?;
        self.set_meta(META_REPEATS, (!rows.is_empty()).then_some(&doc! {"rows": rows}))?;
        self.wrote();
        Ok(())
    }
}

impl Snapshot {
    /// Whether changes wait for their entry whose minute is over, or cannot be read.
    fn has_repeats_due(&self, now_ms: i64) -> Result<bool, StoreError> {
        let Some(row) = self.meta_row(META_REPEATS)? else {
            return Ok(false);
        };
        let waiting = unless_unreadable(waiting_in(&row))?;
        Ok(waiting.is_none_or(|waiting| waiting.iter().any(|row| row.is_due(now_ms))))
    }
}

impl Store {
    /// Gives their entries to repeated changes whose minute is over.
    pub(crate) async fn flush_repeats(&self) -> Result<(), StoreError> {
        if !self.read()?.has_repeats_due(self.now_ms())? {
            return Ok(());
        }
        self.transact(|tx| -> Result<(), StoreError> {
            let now_ms = tx.now_ms();
            tx.write_repeats(|row| row.is_due(now_ms))
        })
        .await
    }
}

fn waiting_in(row: &[u8]) -> Result<Vec<Waiting>, StoreError> {
    let damaged = || damaged("a repeated change that waits for its entry in the audit trail");
    let row = decode(row)?;
    let rows = row.get_array("rows").map_err(|_| damaged())?;
    rows.iter().map(|row| bson::deserialize_from_bson(row.clone()).map_err(|_| damaged())).collect()
}

#[cfg(test)]
mod tests;
