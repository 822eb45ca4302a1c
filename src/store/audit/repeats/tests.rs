//! What waits for its entry and cannot be read.

use std::cell::Cell;

use bson::doc;

use super::META_REPEATS;
use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::WINDOW_MS;
use crate::store::rows::encode;
use crate::store::{AuditQuery, Store, StoreError, StoreOptions, Tx};

thread_local! {
    static CLOCK_MS: Cell<i64> = const { Cell::new(1_795_397_332_000) };
}

async fn edit(store: &Store, turn: u32) {
    let job = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        let key = RecordKey::new(Kind::Institution, "I1");
        let new = doc! {"_id": "I1", "turn": i64::from(turn)};
        tx.edit(&key, Some(&new), &Actor::Operator(0)).map(drop)
    };
    store.transact(job).await.unwrap();
}

/// It is lost, as the trail says, and nothing stops.
#[tokio::test]
async fn changes_that_cannot_be_read_are_a_gap_in_the_trail() {
    for bad in [&b"no document"[..], &encode(&doc! {"rows": [{"event": 1}]}).unwrap()] {
        for is_flushed in [true, false] {
            let options = StoreOptions {
                cache_bytes: 1 << 20,
                journal_keep_rows: 1_000,
                audit_keep_rows: 1_000,
                clock: || CLOCK_MS.get(),
            };
            let store = Store::in_memory(options).unwrap();
            for turn in 0..65 {
                edit(&store, turn).await;
            }
            assert!(store.read().unwrap().meta(META_REPEATS).unwrap().is_some());
            let bad = bad.to_vec();
            let damage = store.transact(move |tx| -> Result<(), StoreError> {
                tx.meta.insert(META_REPEATS, bad.as_slice())?;
                tx.wrote();
                Ok(())
            });
            damage.await.unwrap();
            if !is_flushed {
                edit(&store, 1_000).await;
            }
            CLOCK_MS.set(CLOCK_MS.get() + WINDOW_MS);
            store.flush_repeats().await.unwrap();
            let query = AuditQuery { limit: usize::MAX, after: Some(0), ..AuditQuery::default() };
            let rows = store.read().unwrap().audit(&query).unwrap().rows;
            let verbs: Vec<_> = rows.into_iter().map(|row| row.unwrap().event.verb).collect();
            let others = verbs.iter().filter(|verb| *verb != "gap").count();
            // One makes the record.
            assert_eq!(others, 1 + 60 + usize::from(!is_flushed));
            assert_eq!(verbs.len(), others + 1, "{verbs:?}");
            assert_eq!(store.read().unwrap().meta(META_REPEATS).unwrap(), None);
        }
    }
}
