//! Floor 3. Records that rotted on this node's disk are read from the centre again, before anything else.
//!
//! A damaged row is as good as unknown: it is never sent, never merged and never the reason of a delete. If nobody
//! here had changed the record, the centre's version takes its place; otherwise the row stays and is listed, because
//! what was not sent is nowhere else.

use std::collections::BTreeMap;

use super::pull::{Remote, by_id, deferred_in};
use super::round::{Round, RoundError, Tally};
use crate::central::Central;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{CONTENT_TABLE, Damage, DamagedRow, StoreError};

impl Round<'_> {
    /// Heals what can be healed. What the centre does not have, or what it has in a form that cannot be kept, stays
    /// damaged.
    pub(crate) async fn heal(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        if !self.is_disk_short() {
            let mended = self.store.transact(|tx| tx.mend_outbox()).await?;
            if mended > 0 {
                tracing::error!(records = mended, "what waits to be sent contradicted itself, and is mended");
            }
        }
        self.heal_contents().await?;
        let known: Vec<RecordKey> = self
            .store
            .damaged_rows()
            .into_iter()
            .filter_map(|row| Some(RecordKey::new(row.kind?, row.id)))
            .collect();
        if known.is_empty() || self.is_disk_short() {
            return Ok(());
        }
        let healable = self
            .store
            .transact(move |tx| -> Result<BTreeMap<Kind, Vec<String>>, StoreError> {
                let mut healable: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
                for key in &known {
                    if tx.damage(key)? == Some(Damage::Healable) {
                        healable.entry(key.kind).or_default().push(key.id.clone());
                    }
                }
                Ok(healable)
            })
            .await?;
        for (kind, ids) in healable {
            for ids in ids.chunks(self.fetch_ids()) {
                let mut left = ids.to_vec();
                while !left.is_empty() {
                    let found = by_id(self.fetch(central, kind, &left).await?);
                    left = deferred_in(&found);
                    let tally = self
                        .store
                        .transact(move |tx| -> Result<Tally, StoreError> {
                            let mut tally = Tally::default();
                            for (id, remote) in &found {
                                if let Remote::Document(document) = remote {
                                    let key = RecordKey::new(kind, id.as_str());
                                    let is_healed = tx.sparing(&key, |tx| tx.heal(&key, document.bytes()))?;
                                    tally.pulled += u64::from(is_healed.unwrap_or(false));
                                }
                            }
                            Ok(tally)
                        })
                        .await?;
                    if tally.pulled > 0 {
                        tracing::info!(
                            records = tally.pulled,
                            "damaged records were read from the centre again"
                        );
                    }
                    self.tally += tally;
                }
            }
        }
        Ok(self.store.settle_damage().await?)
    }

    /// Attachments of which a chunk is damaged are fetched again with all others that are wanted.
    async fn heal_contents(&self) -> Result<(), StoreError> {
        let is_chunk = |row: &DamagedRow| row.table == CONTENT_TABLE;
        let damaged: Vec<String> =
            self.store.damaged_rows().into_iter().filter(is_chunk).map(|row| row.id).collect();
        if damaged.is_empty() {
            return Ok(());
        }
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                for sha256 in &damaged {
                    // The record that names it may be damaged too.
                    tx.unless_damaged_first(|tx| tx.refetch_damaged(sha256))?;
                }
                Ok(())
            })
            .await?;
        self.store.settle_damage().await
    }
}
