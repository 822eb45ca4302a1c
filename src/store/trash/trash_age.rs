//! Floor 1. How long the trash is kept.
//!
//! A row goes only if there are more than [`KEEP_ROWS`] and it is older than [`KEEP_MS`] in both of two measures:
//! by the clock, and by the time that the node has observed to pass. Clocks of boxes jump: one that says 2036 for an
//! hour makes every row old by the clock, and none by what was observed, because a step of more than
//! [`STEP_MS_MAX`] counts as no time at all. A row whose delete has not reached the centre never goes.
//!
//! If what is kept between calls cannot be read, time goes on from the last that was written down elsewhere, in the trash or of
//! the audit trail. It may be too little, and is never too much.
//!
//! The oldest rows stand first in `trash_order`. Each call looks at no more than [`LOOK_ROWS_MAX`] of them, and does
//! not look at all while there are few.

use bson::{Document, doc};
use redb::ReadableTable;

use super::deleted_bodies::{TrashState, TrashSummary};
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged, unless_unreadable};
use crate::store::rows::{Fields, damaged, kind_of, row_key};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// As many rows are kept whatever their age.
pub(in crate::store) const KEEP_ROWS: u64 = 10_000;
/// A row is kept as long whatever their number.
const KEEP_MS: i64 = 90 * DAY_MS;
/// Observed time is written down in steps of at least this.
const STEP_MS_MIN: i64 = HOUR_MS;
/// A longer step of the clock may be an error, and counts as no time: a node that was switched off for a week does
/// not age by that week.
const STEP_MS_MAX: i64 = 2 * DAY_MS;
/// Rows looked at in one call.
const LOOK_ROWS_MAX: usize = 64;

/// `{observed: milliseconds, at: clock when that was written, next: number of the row to go on with}`.
const META_TRASH_AGE: &str = "trash_age";

/// What is kept between calls.
pub(in crate::store) struct TrashAge {
    observed_ms: i64,
    at_ms: i64,
    /// Rows before this one were looked at and have to stay for now.
    next: u64,
}

impl TrashAge {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<TrashAge, StoreError> {
        let row = Fields::of(bytes, "the age of the trash")?;
        Ok(TrashAge {
            observed_ms: row.int64("observed")?,
            at_ms: row.int64("at")?,
            next: row.count("next")?,
        })
    }

    fn encode(&self) -> Document {
        doc! {"observed": self.observed_ms, "at": self.at_ms, "next": self.next as i64}
    }
}

impl Tx<'_> {
    /// The time that this node has observed to pass, in milliseconds since the first call.
    pub(in crate::store) fn observe_time(&mut self) -> Result<i64, StoreError> {
        let now_ms = self.now_ms();
        let mut age = match self.trash_age() {
            Ok(Some(age)) => age,
            Ok(None) => return self.begin_age(0),
            Err(StoreError::Damaged(why)) => {
                tracing::error!(
                    %why,
                    "how much time has passed cannot be read: trash and audit trail are kept for longer"
                );
                let observed_ms = self.last_observed()?;
                return self.begin_age(observed_ms);
            }
            Err(error) => return Err(error),
        };
        let step = now_ms.saturating_sub(age.at_ms);
        if (0..STEP_MS_MIN).contains(&step) {
            return Ok(age.observed_ms);
        }
        if (STEP_MS_MIN..=STEP_MS_MAX).contains(&step) {
            age.observed_ms += step;
        }
        age.at_ms = now_ms;
        self.set_trash_age(&age)?;
        Ok(age.observed_ms)
    }

    fn begin_age(&mut self, observed_ms: i64) -> Result<i64, StoreError> {
        self.set_trash_age(&TrashAge { observed_ms, at_ms: self.now_ms(), next: 0 })?;
        Ok(observed_ms)
    }

    /// The latest time that was written down with something else.
    fn last_observed(&self) -> Result<i64, StoreError> {
        let last_ms = self.observed_by_audit()?;
        for entry in self.trash_order.iter()?.rev().take(LOOK_ROWS_MAX) {
            let (at, _) = entry?;
            let (sequence, code, id) = at.value();
            if let Some(Some(row)) = unless_damaged(self.trash.get((code, id, sequence)))? {
                let key = RecordKey::new(kind_of(code)?, id);
                if let Some(row) = unless_unreadable(TrashSummary::decode(key, sequence, row.value()))? {
                    return Ok(last_ms.max(row.observed_ms));
                }
            }
        }
        Ok(last_ms)
    }

    /// Removes rows that are too many and old enough, a few at a time.
    pub(crate) fn trim_trash(&mut self) -> Result<(), StoreError> {
        self.trim_trash_to(KEEP_ROWS)
    }

    pub(in crate::store) fn trim_trash_to(&mut self, keep_rows: u64) -> Result<(), StoreError> {
        let observed_ms = self.observe_time()?;
        let mut excess = self.trash.len()?.saturating_sub(keep_rows);
        let Some(mut age) = self.trash_age()?.filter(|_| excess > 0) else {
            return Ok(());
        };
        let began = age.next;
        let rows = self.oldest_trash(age.next)?;
        let is_end = rows.len() < LOOK_ROWS_MAX;
        for row in &rows {
            let by_clock = self.now_ms().saturating_sub(row.at_ms);
            if excess == 0 || by_clock.min(observed_ms - row.observed_ms) < KEEP_MS {
                // Those behind it are younger.
                age.next = 0;
                break;
            }
            age.next = row.sequence + 1;
            if row.state != TrashState::Pending {
                self.remove_trash(&row.key, row.sequence)?;
                excess -= 1;
            }
        }
        if is_end {
            age.next = 0;
        }
        if age.next != began { self.set_trash_age(&age) } else { Ok(()) }
    }

    fn oldest_trash(&self, from: u64) -> Result<Vec<TrashSummary>, StoreError> {
        let mut rows = Vec::new();
        for entry in self.trash_order.range((from, 0, "")..)?.take(LOOK_ROWS_MAX) {
            let (at, _) = entry?;
            let (sequence, code, id) = at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            let (code, id) = row_key(&key);
            // One that is damaged stays until it is set aside.
            let row = match unless_damaged(self.trash.get((code, id, sequence)))? {
                Some(Some(row)) => row,
                Some(None) if !self.trash.has_damage() => return Err(damaged("an index")),
                // Or its key is.
                None | Some(None) => continue,
            };
            rows.push(TrashSummary::decode(key.clone(), sequence, row.value())?);
        }
        Ok(rows)
    }

    fn trash_age(&self) -> Result<Option<TrashAge>, StoreError> {
        self.meta.get(META_TRASH_AGE)?.map(|row| TrashAge::decode(row.value())).transpose()
    }

    fn set_trash_age(&mut self, age: &TrashAge) -> Result<(), StoreError> {
        self.set_meta(META_TRASH_AGE, Some(&age.encode()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::record::Kind;
    use crate::store::rows::encode;
    use crate::store::{Base, Store, StoreOptions};

    /// A clock in 2026.
    const NOW_MS: i64 = 1_795_397_332_000;
    const YEAR_MS: i64 = 365 * DAY_MS;
    /// So that few rows are enough for a test.
    const KEEP: u64 = 3;

    thread_local! {
        static CLOCK_MS: Cell<i64> = const { Cell::new(NOW_MS) };
    }

    fn store() -> Store {
        let clock = || CLOCK_MS.get();
        Store::in_memory(StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1000,
            audit_keep_rows: 1000,
            clock,
        })
        .unwrap()
    }

    async fn run(store: &Store, mut job: impl FnMut(&mut Tx<'_>) + Send + 'static) {
        let done = store.transact(move |tx| -> Result<(), StoreError> {
            job(tx);
            Ok(())
        });
        done.await.unwrap();
    }

    fn key(n: u64) -> RecordKey {
        RecordKey::new(Kind::Event, format!("e{n:04}"))
    }

    /// Deletes records that nobody else has: these are done at once.
    async fn delete(store: &Store, numbers: std::ops::Range<u64>) {
        run(store, move |tx| {
            for n in numbers.clone() {
                tx.edit(&key(n), Some(&doc! {"_id": key(n).id}), &Actor::Operator(0)).unwrap();
                tx.edit(&key(n), None, &Actor::Operator(0)).unwrap();
            }
        })
        .await;
    }

    /// Deletes a record that the centre has: this waits.
    async fn delete_there(store: &Store, n: u64) {
        run(store, move |tx| {
            let event = doc! {"_id": key(n).id};
            tx.put(&key(n), Some(&event), &Base::Document(event.clone()), &Actor::Centre).unwrap();
            tx.edit(&key(n), None, &Actor::Operator(0)).unwrap();
        })
        .await;
    }

    async fn pass_days(store: &Store, days: i64) {
        for _ in 0..days {
            CLOCK_MS.set(CLOCK_MS.get() + DAY_MS);
            trim(store).await;
        }
    }

    async fn trim(store: &Store) {
        run(store, |tx| tx.trim_trash_to(KEEP).unwrap()).await;
    }

    fn left(store: &Store) -> Vec<String> {
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        snapshot.trash().unwrap().into_iter().map(|row| row.key.id).collect()
    }

    #[tokio::test]
    async fn rows_go_only_when_they_are_too_many_and_old() {
        let store = store();
        delete(&store, 0..2).await;
        pass_days(&store, 200).await;
        assert_eq!(left(&store).len(), 2, "few are kept whatever their age");
        delete(&store, 2..6).await;
        trim(&store).await;
        assert_eq!(left(&store), ["e0002", "e0003", "e0004", "e0005"], "the old ones");
        pass_days(&store, 89).await;
        assert_eq!(left(&store).len(), 4, "too many, but not 90 days old");
        pass_days(&store, 1).await;
        assert_eq!(left(&store), ["e0003", "e0004", "e0005"]);
    }

    #[tokio::test]
    async fn a_clock_that_jumps_makes_nothing_old() {
        let store = store();
        delete(&store, 0..10).await;
        // An error at every start for half a year, and corrected after an hour.
        for _ in 0..180 {
            CLOCK_MS.set(CLOCK_MS.get() + 10 * YEAR_MS);
            trim(&store).await;
            CLOCK_MS.set(CLOCK_MS.get() - 10 * YEAR_MS + HOUR_MS);
            trim(&store).await;
        }
        assert_eq!(left(&store).len(), 10);
        // Written while the clock was wrong: in the future, and old after 90 days of it.
        CLOCK_MS.set(CLOCK_MS.get() + 10 * YEAR_MS);
        delete(&store, 10..12).await;
        CLOCK_MS.set(CLOCK_MS.get() - 10 * YEAR_MS);
        pass_days(&store, 100).await;
        assert_eq!(left(&store).len(), KEEP as usize);
        assert!(left(&store).contains(&"e0011".to_owned()));
    }

    #[tokio::test]
    async fn what_has_not_reached_the_centre_stays_and_does_not_hold_up_the_rest() {
        let store = store();
        for n in 0..2 * LOOK_ROWS_MAX as u64 {
            delete_there(&store, n).await;
        }
        delete(&store, 1000..1010).await;
        pass_days(&store, 89).await;
        assert_eq!(left(&store).len(), 2 * LOOK_ROWS_MAX + 10);
        pass_days(&store, 10).await;
        assert_eq!(left(&store).len(), 2 * LOOK_ROWS_MAX, "only what waits");
        run(&store, |tx| {
            for n in 0..2 * LOOK_ROWS_MAX as u64 {
                tx.settle_trash(&key(n), TrashState::Done).unwrap();
            }
        })
        .await;
        pass_days(&store, 3).await;
        assert_eq!(left(&store).len(), KEEP as usize);
    }

    /// What is kept between calls cannot be read: records can be deleted, nothing goes too early, and what is
    /// deleted later does not wait for the time of before to pass again.
    #[tokio::test]
    async fn an_age_that_cannot_be_read_begins_anew() {
        for bad in [&b"no document"[..], &encode(&doc! {"observed": 1.5}).unwrap()] {
            let store = store();
            delete(&store, 0..4).await;
            pass_days(&store, 80).await;
            delete(&store, 4..8).await;
            pass_days(&store, 5).await;
            let bad = bad.to_vec();
            run(&store, move |tx| {
                tx.meta.insert(META_TRASH_AGE, bad.as_slice()).unwrap();
                tx.wrote();
            })
            .await;
            delete(&store, 8..10).await;
            pass_days(&store, 9).await;
            assert_eq!(left(&store).len(), 10, "the time since the last delete was forgotten, and no other");
            pass_days(&store, 1).await;
            assert_eq!(left(&store).len(), 6);
            pass_days(&store, 80).await;
            assert_eq!(left(&store), ["e0007", "e0008", "e0009"]);
        }
    }

    #[tokio::test]
    async fn a_call_does_a_bounded_amount_of_work() {
        let store = store();
        delete(&store, 0..300).await;
        CLOCK_MS.set(CLOCK_MS.get() - DAY_MS);
        for _ in 0..91 {
            CLOCK_MS.set(CLOCK_MS.get() + DAY_MS);
            run(&store, |tx| assert!(tx.observe_time().is_ok())).await;
        }
        CLOCK_MS.set(CLOCK_MS.get() + DAY_MS);
        trim(&store).await;
        assert_eq!(left(&store).len(), 300 - LOOK_ROWS_MAX);
    }
}
