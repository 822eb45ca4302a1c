//! Floor 1. Locks that put edits of one record one after the other.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::asker::present_client;
use super::store::Store;
use crate::domain::record::Kind;
use crate::store::budget::{Budget, Given, Share};

/// Locks that put edits of one record in line; records share them by hash.
const LOCKS: usize = 1024;

/// Puts edits of the same record one after the other; clients take turns ([`Budget`]).
///
/// Edits are optimistic: of many that start from the same version one wins and the others start over. In
/// line, each starts from the version that the one before it left, and none gives up.
///
/// Which records share a lock is different in each process: a client that chooses ids cannot choose whose records wait
/// for it.
pub(crate) struct RecordLocks {
    locks: Vec<Arc<Budget>>,
    chosen: RandomState,
}

impl Default for RecordLocks {
    fn default() -> Self {
        RecordLocks {
            locks: (0..LOCKS).map(|_| Arc::new(Budget::one_at_a_time())).collect(),
            chosen: RandomState::new(),
        }
    }
}

impl Store {
    /// Waits for one's turn to edit a record; keep what is returned until the edit is answered. Nobody is refused; without
    /// a turn an edit would start over more often, and be right all the same.
    pub async fn turn(&self, kind: Kind, id: &str) -> Option<Share> {
        let RecordLocks { locks, chosen } = &self.inner.record_locks;
        let hash = chosen.hash_one((kind, kind.schema().canonical_id(id)));
        match locks[hash as usize % locks.len()].take(present_client(), 1) {
            Given::Share(turn) => Some(turn),
            Given::Waits(turn) => turn.await.ok(),
        }
    }
}
