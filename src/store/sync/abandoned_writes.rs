//! Floor 1. Abandoned writes: given up without an answer, and recognized if they arrive late.

use super::intents::{Intent, IntentWrite, decode_intent};
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::StoreError;
use crate::store::rows::{encode, row_key};

impl Tx<'_> {
    /// Keeps a write that did not land as far as anybody can tell: it may still arrive, if it lingers in
    /// the network.
    pub(crate) fn put_ghost(&mut self, key: &RecordKey, intent: &Intent) -> Result<(), StoreError> {
        let row = encode(&intent.encode())?;
        self.ghost.insert(row_key(key), row.as_slice())?;
        self.wrote();
        Ok(())
    }

    pub fn ghost(&self, key: &RecordKey) -> Result<Option<IntentWrite>, StoreError> {
        let row = self.ghost.get(row_key(key))?;
        row.map(|row| Ok(decode_intent(row.value())?.write)).transpose()
    }

    pub fn clear_ghost(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.ghost.remove(row_key(key))? {
            self.wrote();
        }
        Ok(())
    }
}
