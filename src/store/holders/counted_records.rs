//! Floor 1. Counts records of nobody, and records of people who are gone, once for each state of the tables.

use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use crate::store::engine::{Snapshot, Tally, off_workers};
use crate::store::error::StoreError;

impl Snapshot {
    /// The counts of this state. One counts, others who ask meanwhile wait for that, and none of them on a thread that serves
    /// everybody.
    pub(in crate::store) fn tally(&self) -> Result<Arc<Tally>, StoreError> {
        let kept = match self.tally_shelf.0.try_lock() {
            Ok(kept) => self.tally_in(&kept),
            Err(TryLockError::Poisoned(poisoned)) => self.tally_in(&poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        match kept {
            Some(tally) => Ok(tally),
            None => off_workers(|| {
                let mut kept = self.tally_shelf.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(tally) = self.tally_in(&kept) {
                    return Ok(tally);
                }
                let damage = self.transaction.damage_number();
                let tally = Arc::new(self.count_tally()?);
                *kept = Some((damage, Arc::clone(&tally)));
                Ok(tally)
            }),
        }
    }

    fn tally_in(&self, kept: &MutexGuard<'_, Option<(u64, Arc<Tally>)>>) -> Option<Arc<Tally>> {
        let (damage, tally) = kept.as_ref()?;
        (*damage == self.transaction.damage_number()).then(|| Arc::clone(tally))
    }

    fn count_tally(&self) -> Result<Tally, StoreError> {
        Ok(Tally { ownerless: self.count_ownerless()?, left_behind: self.count_left_behind()? })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bson::{Document, doc};

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::record::{Kind, RecordKey};
    use crate::store::engine::{Counted, PresentShelf};
    use crate::store::{Base, Store, StoreOptions, Tx};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 0 };

    async fn put(store: &Store, key: RecordKey, document: Option<Document>) {
        let put = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let base = document.clone().map_or(Base::Absent, Base::Document);
            tx.put(&key, document.as_ref(), &base, &Actor::Centre)
        };
        store.transact(put).await.unwrap();
    }

    /// Writes nothing that is counted, as the audit trail does each second.
    async fn write_beside(store: &Store) {
        let write =
            |tx: &mut Tx<'_>| -> Result<(), StoreError> { tx.set_meta("beside", Some(&doc! {"n": 1})) };
        store.transact(write).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_counted_once_for_each_state_and_never_out_of_date() {
        let store = Store::in_memory(OPTIONS).unwrap();
        let (ana, page) = (RecordKey::new(Kind::Person, "ANA"), |id| RecordKey::new(Kind::Page, id));
        let person = doc! {"_id": "ANA", "name": "Ana"};
        let steps = [
            (ana.clone(), Some(person.clone()), (0, 0)),
            (page("p"), Some(doc! {"_id": "p", "book": "ana"}), (0, 0)),
            (page("q"), Some(doc! {"_id": "q"}), (0, 1)),
            (ana.clone(), None, (1, 1)),
            (page("r"), Some(doc! {"_id": "r", "book": "ANA"}), (1, 1)),
            (page("p"), None, (1, 1)),
            (page("q"), Some(doc! {"_id": "q", "book": "EVA"}), (1, 0)),
            (page("r"), Some(doc! {"_id": "r", "book": "EVA"}), (0, 0)),
            (page("q"), Some(doc! {"_id": "q", "book": "ANA"}), (1, 0)),
            (ana, Some(person), (0, 0)),
        ];
        for (n, (key, document, expected)) in steps.into_iter().enumerate() {
            let before = store.read().unwrap();
            let was = before.tally().unwrap();
            put(&store, key, document).await;
            let snapshot = store.read().unwrap();
            let tally = snapshot.tally().unwrap();
            assert_eq!(*tally, snapshot.count_tally().unwrap(), "step {n}");
            let counts = (tally.left_behind.accounts, tally.ownerless.values().sum());
            assert_eq!(counts, expected, "step {n}");
            // Who still has the view of before sees what was then.
            assert!(Arc::ptr_eq(&was, &before.tally().unwrap()), "step {n}");
            write_beside(&store).await;
            let later = store.read().unwrap();
            assert!(!Arc::ptr_eq(&later, &snapshot), "a view of another commit");
            assert!(Arc::ptr_eq(&tally, &later.tally().unwrap()), "step {n}: counted again");
        }
    }

    #[test]
    fn a_view_that_begins_during_a_commit_shares_nothing() {
        let mut present = PresentShelf::default();
        let before = present.shelf();
        present.begin_commit(Counted::AsBefore);
        assert!(Arc::ptr_eq(&before, &present.shelf()));
        present.end_commit(Counted::AsBefore);
        assert!(Arc::ptr_eq(&before, &present.shelf()));
        present.begin_commit(Counted::Anew);
        let between = present.shelf();
        present.end_commit(Counted::Anew);
        let after = present.shelf();
        for (one, other) in [(&before, &between), (&between, &after), (&before, &after)] {
            assert!(!Arc::ptr_eq(one, other));
        }
        assert!(Arc::ptr_eq(&after, &present.shelf()));
    }

    /// While one counts, the threads that serve everybody go on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn nobody_waits_for_it_on_a_worker() {
        let store = Store::in_memory(OPTIONS).unwrap();
        let snapshot = store.read().unwrap();
        let counting = snapshot.tally_shelf.0.lock().unwrap();
        let asked = Arc::clone(&snapshot);
        let (asks, has_asked) = std::sync::mpsc::channel();
        let answer = tokio::spawn(async move {
            asks.send(()).unwrap();
            asked.tally().map(|tally| tally.left_behind.accounts)
        });
        has_asked.recv_timeout(Duration::from_secs(10)).unwrap();
        // The only worker has that task. It can serve another one only if it does not wait in it.
        let (serves, is_served) = std::sync::mpsc::channel();
        tokio::spawn(async move { serves.send(()).unwrap() });
        is_served.recv_timeout(Duration::from_secs(10)).expect("others are served");
        drop(counting);
        assert_eq!(answer.await.unwrap().unwrap(), 0);
    }
}
