//! Floor 1. Writes to the audit trail what is audited without a write of its own: reads, and requests that were refused.
//!
//! Noting costs no transaction: events wait in memory (`engine/audit_buffer.rs`) until they are flushed, once a second.

use std::sync::Arc;

use crate::domain::access::Actor;
use crate::domain::audit::{Event, Times, What};
use crate::store::engine::{NOTES_MAX, Store, Unnoted, Unwritten};
use crate::store::error::StoreError;

/// How often a read that waits for room has the notes written before it gives up.
const ROOM_TRIES_MAX: usize = 16;

impl Store {
    /// Notes an event for the audit trail. Never waits and never fails: see [`Store::flush_notes`].
    pub fn note(&self, event: Event) {
        if self.note_read(event, |_| Ok(())).is_err() {
            self.inner.notes.window().lost += 1;
        }
    }

    /// Notes a read, which is to be answered only then. `take` is asked, with the account, for one more entry about
    /// other people's records: after how many seconds there is one if not now.
    pub fn note_read(&self, event: Event, take: impl FnOnce(&str) -> Result<(), u64>) -> Result<(), Unnoted> {
        let now_ms = self.now_ms();
        let notes = &self.inner.notes;
        let mut window = notes.window();
        let noted = window.note(event, now_ms, take);
        if window.is_crowded() {
            notes.crowded.notify_one();
        }
        noted
    }

    /// [`Store::note_read`] of what there was no room for, once the notes before it are written. Where the disk takes
    /// nothing the read is let through and counted as a gap, because a clinic has to read when its disk is full.
    pub async fn note_read_in_time(
        &self,
        mut event: Box<Event>,
        take: impl Fn(&str) -> Result<(), u64>,
    ) -> Result<(), Unnoted> {
        for _ in 0..ROOM_TRIES_MAX {
            let store = self.clone();
            let written = tokio::spawn(async move { store.write_notes().await }).await;
            if !matches!(written, Ok(Ok(()))) {
                self.note(*event);
                return Ok(());
            }
            match self.note_read(*event, &take) {
                Err(Unnoted::Full(again)) => event = again,
                noted => return noted,
            }
        }
        Err(Unnoted::Full(event))
    }

    /// Notes an event and returns when it has its entry on disk; as for all notes, repeats within a minute have
    /// theirs when it is over.
    pub async fn note_on_disk(&self, event: Event) -> Result<(), StoreError> {
        let store = self.clone();
        let written = tokio::spawn(async move {
            // What waits makes room first.
            store.flush_notes().await?;
            if store.note_read(event, |_| Ok(())).is_err() {
                return Err(StoreError::Failed("there is no room for what has to be audited".into()));
            }
            store.flush_notes().await
        });
        written.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
    }

    /// Writes what was noted. If that fails it is kept for the next time, as far as there is room. Must come to its
    /// end: whoever may be dropped in the middle spawns it.
    pub async fn flush_notes(&self) -> Result<(), StoreError> {
        let written = self.write_notes().await;
        // Whatever became of the notes: these are in the store already.
        written.and(self.flush_repeats().await)
    }

    async fn write_notes(&self) -> Result<(), StoreError> {
        let notes = &self.inner.notes;
        let mut unwritten = notes.unwritten.lock().await;
        let Unwritten { entries, lost } = notes.window().take(self.now_ms());
        unwritten.lost += lost;
        let room = NOTES_MAX.saturating_sub(unwritten.entries.len());
        let too_many = entries.iter().skip(room).map(|(times, _)| times.count);
        unwritten.lost += too_many.sum::<u64>();
        unwritten.entries.extend(entries.into_iter().take(room));
        if unwritten.entries.is_empty() && unwritten.lost == 0 {
            return Ok(());
        }
        let (entries, lost) = (Arc::new(std::mem::take(&mut unwritten.entries)), unwritten.lost);
        let job = Arc::clone(&entries);
        let written = self.transact(move |tx| -> Result<(), StoreError> {
            for (times, event) in job.iter() {
                tx.audit_at(*times, event.clone())?;
            }
            if lost > 0 {
                let times = Times { count: lost, ..Times::once(tx.now_ms()) };
                tx.audit_at(times, Event::new(What::Gap, &Actor::Node))?;
            }
            // Written on every day on which the node is used, so trail and trash learn of time that passes.
            tx.age_audit()?;
            tx.trim_trash()
        });
        match written.await {
            Ok(()) => {
                unwritten.lost = 0;
                Ok(())
            }
            Err(error) => {
                unwritten.entries = Arc::unwrap_or_clone(entries);
                Err(error)
            }
        }
    }

    /// Returns when there are so many notes that they should be flushed.
    pub async fn notes_are_many(&self) {
        self.inner.notes.crowded.notified().await;
    }
}
