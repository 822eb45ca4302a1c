//! Floor 1. How old entries of the audit trail are.
//!
//! What an entry says of its time is the clock of the box, which may say 1970 after a start or be set ahead for an hour.
//! So their age is counted in the time that the node has observed to pass, as that of the trash (`trash/trash_age.rs`).
//! Entries are hashed as they are and cannot hold it: now and then it is marked how far the trail had come. An entry is as
//! old as the next mark behind it, which is up to one step younger than it is. If marks cannot be read, they begin anew: what
//! stands in the trail is as young then as what is written now.

use std::sync::atomic::Ordering;

use bson::doc;
use redb::ReadableTable as _;

use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_unreadable};
use crate::store::rows::Fields;

/// `{marks: [{seq, observed}]}`: the last entry at that time, the oldest mark first.
const META_MARKS: &str = "audit_marks";
/// `{keep, observed, seq}`: up to which entry the trail is old enough to be cut, found for `keep` at that time.
const META_OLD: &str = "audit_old";
/// Between marks lies at least a day, or this part of the time for which entries are kept: so many marks there are.
const STEPS: i64 = 400;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(in crate::store) struct Mark {
    seq: u64,
    observed_ms: i64,
}

pub(in crate::store) struct Old {
    keep_ms: i64,
    observed_ms: i64,
    seq: u64,
}

impl Old {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Old, StoreError> {
        let row = Fields::of(bytes, "the age of the audit trail")?;
        Ok(Old { keep_ms: row.int64("keep")?, observed_ms: row.int64("observed")?, seq: row.count("seq")? })
    }
}

/// The marks in a row of [`META_MARKS`], oldest first.
pub(in crate::store) fn marks_in(bytes: &[u8]) -> Result<Vec<Mark>, StoreError> {
    let rows = Fields::of(bytes, "the age of the audit trail")?.rows("marks")?;
    rows.into_iter()
        .map(|row| Ok(Mark { seq: row.count("seq")?, observed_ms: row.int64("observed")? }))
        .collect()
}

impl Tx<'_> {
    fn audit_keep_ms(&self) -> i64 {
        self.carry.audit_keep_ms.load(Ordering::Relaxed)
    }

    /// Whether an entry has been kept long enough.
    pub(in crate::store) fn has_been_kept(&self, seq: u64) -> Result<bool, StoreError> {
        let keep_ms = self.audit_keep_ms();
        if keep_ms == 0 {
            return Ok(true);
        }
        let old = self.audit_age()?.filter(|old| old.keep_ms == keep_ms);
        Ok(old.is_some_and(|old| seq <= old.seq))
    }

    /// Nothing is old of which that cannot be read.
    fn audit_age(&self) -> Result<Option<Old>, StoreError> {
        let row = self.meta.get(META_OLD)?;
        Ok(row.map(|row| unless_unreadable(Old::decode(row.value()))).transpose()?.flatten())
    }

    fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        self.meta.get(META_MARKS)?.map_or(Ok(Vec::new()), |row| marks_in(row.value()))
    }

    /// The latest observed time that is noted of the trail.
    pub(in crate::store) fn observed_by_audit(&self) -> Result<i64, StoreError> {
        let marks = unless_unreadable(self.marks())?.unwrap_or_default();
        let old_ms = self.audit_age()?.map_or(0, |old| old.observed_ms);
        Ok(marks.last().map_or(0, |last| last.observed_ms).max(old_ms))
    }

    /// Learns of time that passes.
    pub(in crate::store) fn age_audit(&mut self) -> Result<(), StoreError> {
        let keep_ms = self.audit_keep_ms();
        if keep_ms == 0 {
            return Ok(());
        }
        let observed_ms = self.observe_time()?;
        let is_known = |old: Old| old.keep_ms == keep_ms && old.observed_ms == observed_ms;
        if self.audit_age()?.is_some_and(is_known) {
            return Ok(());
        }
        let mut marks = unless_unreadable(self.marks())?.unwrap_or_else(|| {
            tracing::error!("how old the audit trail is cannot be read: what is in it is kept for longer");
            Vec::new()
        });
        let step_ms = (keep_ms / STEPS).max(DAY_MS);
        if marks.last().is_none_or(|last| observed_ms.saturating_sub(last.observed_ms) >= step_ms) {
            marks.push(Mark { seq: self.audit_head()?.seq, observed_ms });
        }
        let old =
            marks.iter().take_while(|mark| observed_ms.saturating_sub(mark.observed_ms) >= keep_ms).count();
        // The newest of the old ones stands for those before it.
        marks.drain(..old.saturating_sub(1));
        let seq = marks.first().filter(|_| old > 0).map_or(0, |mark| mark.seq);
        let marks =
            marks.iter().map(|Mark { seq, observed_ms }| doc! {"seq": *seq as i64, "observed": observed_ms});
        let marks = doc! {"marks": marks.collect::<Vec<_>>()};
        self.set_meta(META_MARKS, Some(&marks))?;
        let old = doc! {"keep": keep_ms, "observed": observed_ms, "seq": seq as i64};
        self.set_meta(META_OLD, Some(&old))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::audit::{Event, What};
    use crate::store::rows::encode;
    use crate::store::{AuditQuery, Store, StoreOptions};

    const HOUR_MS: i64 = 60 * 60 * 1000;
    const NOW_MS: i64 = 1_795_397_332_000;
    const KEEP_DAYS: u32 = 400;

    thread_local! {
        static CLOCK_MS: Cell<i64> = const { Cell::new(NOW_MS) };
    }

    fn store() -> Store {
        let store = Store::in_memory(StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1000,
            audit_keep_rows: 10,
            clock: || CLOCK_MS.get(),
        })
        .unwrap();
        store.keep_audit_for(KEEP_DAYS);
        store
    }

    /// Entries are written, about as many records.
    async fn write(store: &Store, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            store.note(Event::new(What::Read, &Actor::Operator(0)).about("people", &id, Some(&id)));
        }
        store.flush_notes().await.unwrap();
    }

    async fn pass_days(store: &Store, days: i64) {
        for day in 0..days {
            CLOCK_MS.set(CLOCK_MS.get() + DAY_MS);
            write(store, [format!("day {day}")]).await;
        }
    }

    fn kept(store: &Store, id: &str) -> usize {
        let query = AuditQuery { limit: usize::MAX, ..AuditQuery::default() };
        let rows = store.read().unwrap().audit(&query).unwrap().rows;
        rows.into_iter().filter(|row| row.as_ref().unwrap().event.id.starts_with(id)).count()
    }

    #[tokio::test]
    async fn a_clock_that_is_wrong_makes_nothing_old() {
        let store = store();
        // A box without a battery starts in 1970, then is told the time, then is set ten years ahead for an hour.
        CLOCK_MS.set(HOUR_MS);
        write(&store, (0..50).map(|n| format!("early {n}"))).await;
        CLOCK_MS.set(NOW_MS);
        write(&store, (0..50).map(|n| format!("now {n}"))).await;
        CLOCK_MS.set(NOW_MS + 3650 * DAY_MS);
        write(&store, (0..50).map(|n| format!("late {n}"))).await;
        CLOCK_MS.set(NOW_MS + HOUR_MS);
        write(&store, (0..50).map(|n| format!("then {n}"))).await;
        pass_days(&store, i64::from(KEEP_DAYS) - 1).await;
        for id in ["early", "now", "late", "then"] {
            assert_eq!(kept(&store, id), 50, "{id}");
        }
        // And what was written while it was wrong goes with the rest.
        pass_days(&store, 10).await;
        for id in ["early", "now", "late", "then"] {
            assert_eq!(kept(&store, id), 0, "{id}");
        }
        let marks = store.read().unwrap().meta(META_MARKS).unwrap().unwrap();
        assert!(marks.get_array("marks").unwrap().len() <= STEPS as usize + 2);
    }

    /// What is noted of their age cannot be read: entries are written all the same, none goes too early, and all go once
    /// they are old enough as far as is known.
    #[tokio::test]
    async fn an_age_that_cannot_be_read_begins_anew() {
        let days = i64::from(KEEP_DAYS);
        // With which rows, and how much later the entries go for that.
        for (names, later) in [
            (&[META_OLD][..], 0),
            (&["trash_age"], 0),
            (&[META_MARKS], 100),
            (&[META_OLD, META_MARKS], 100),
            (&[META_OLD, META_MARKS, "trash_age"], 100),
        ] {
            for bad in [&b"no document"[..], &encode(&doc! {"marks": 1}).unwrap()] {
                let store = store();
                write(&store, (0..50).map(|n| format!("first {n}"))).await;
                pass_days(&store, 100).await;
                let bad = bad.to_vec();
                let damage = store.transact(move |tx| -> Result<(), StoreError> {
                    for name in names {
                        tx.meta.insert(name, bad.as_slice())?;
                    }
                    tx.wrote();
                    Ok(())
                });
                damage.await.unwrap();
                pass_days(&store, days - 101 + later).await;
                assert_eq!(kept(&store, "first"), 50, "{names:?}");
                pass_days(&store, 10).await;
                assert_eq!(kept(&store, "first"), 0, "{names:?}");
            }
        }
    }

    /// Kept for longer from now on: nothing goes by what was found for the shorter time.
    #[tokio::test]
    async fn another_setting_counts_at_once() {
        let store = store();
        write(&store, (0..50).map(|n| format!("first {n}"))).await;
        store.keep_audit_for(10);
        pass_days(&store, 9).await;
        assert_eq!(kept(&store, "first"), 50);
        store.keep_audit_for(0);
        write(&store, ["one".to_owned()]).await;
        assert_eq!(kept(&store, "first"), 0, "by their number only");
        write(&store, (0..50).map(|n| format!("second {n}"))).await;
        store.keep_audit_for(10);
        pass_days(&store, 11).await;
        store.keep_audit_for(KEEP_DAYS);
        let before = kept(&store, "day");
        pass_days(&store, 20).await;
        assert_eq!(kept(&store, "day"), before + 20);
    }
}
