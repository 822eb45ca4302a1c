//! Floor 3. SETTLE: what became of writes whose answer was lost. And reading records afresh.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use super::merge_in::{merge_in, note_unreadable};
use super::round::{Round, RoundError, Tally};
use super::step;
use crate::central::{ArchiveState, Central, Fetched};
use crate::domain::access::Actor;
use crate::domain::diff::{Change, holds, set};
use crate::domain::merge::same_identity;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::value::{same_document, same_option};
use crate::store::{Base, Intent, IntentWrite, StoreError, TrashState, Tx};

/// Ids asked for in one read.
pub(crate) const FETCH_IDS_MAX: usize = 100;

impl Round<'_> {
    /// SETTLE: reads again what unacknowledged writes were about. The centre holds what was sent: it
    /// landed. Anything else: it did not, or was overwritten by someone who saw it.
    pub(crate) async fn settle(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let intents = self.store.read()?.intents()?;
        let mut by_kind: BTreeMap<Kind, Vec<(RecordKey, Intent)>> = BTreeMap::new();
        for (key, intent) in intents {
            by_kind.entry(key.kind).or_default().push((key, intent));
        }
        for (kind, intents) in by_kind {
            for batch in intents.chunks(self.fetch_ids()) {
                self.settle_batch(central, kind, batch).await?;
            }
        }
        Ok(())
    }

    /// Ids to ask for in one read: no more than the link was seen to carry.
    fn fetch_ids(&self) -> usize {
        self.batch_documents.min(FETCH_IDS_MAX)
    }

    async fn settle_batch(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        batch: &[(RecordKey, Intent)],
    ) -> Result<(), RoundError> {
        let ids: Vec<String> = batch.iter().map(|(key, _)| key.id.clone()).collect();
        let found = by_id(central.fetch(kind, &ids).await?);
        step("settle.read");
        let (mut settled, mut unreadable, mut archives) = (Vec::new(), Vec::new(), Vec::new());
        for (key, intent) in batch {
            let remote = match found.get(&key.id) {
                Some(Remote::Unreadable(reason)) => {
                    // The write stays open until somebody can tell what became of it.
                    unreadable.push((key.clone(), reason.clone()));
                    continue;
                }
                Some(Remote::Document(document)) => Some(document.clone()),
                None => None,
            };
            let has_landed = landed(&intent.write, remote.as_ref());
            if let IntentWrite::Delete { archive } = &intent.write {
                let state = if has_landed { ArchiveState::Done } else { ArchiveState::Void };
                archives.push((archive.clone(), state));
            }
            settled.push((key.clone(), intent.clone(), has_landed, remote));
        }
        // First, because a settled intent is not looked at again.
        if !archives.is_empty() {
            central.settle_archive(&archives).await?;
        }
        let tally = self
            .store
            .transact(move |tx| -> Result<Tally, StoreError> {
                let mut tally = Tally::default();
                for (key, reason) in &unreadable {
                    tally += note_unreadable(tx, key, reason)?;
                }
                for (key, intent, has_landed, remote) in &settled {
                    if !tx.settle_intent(key, intent.number, *has_landed)? {
                        continue;
                    }
                    if let (false, Some(remote)) = (has_landed, remote) {
                        doubt(tx, key, &intent.write, remote)?;
                    }
                    tally.pushed += u64::from(*has_landed);
                    // The read came after the write that it settles, so it may be merged.
                    tally += merge_in(tx, key, remote.as_ref())?;
                }
                Ok(tally)
            })
            .await?;
        self.tally += tally;
        step("settle.applied");
        Ok(())
    }

    /// The push number now: a read sent from here on is newer than every push up to it.
    pub(crate) async fn read_now(&self) -> Result<u64, StoreError> {
        self.store.transact(|tx| tx.push_number()).await
    }

    /// Reads records afresh and merges those that exist; returns the ids of those that do not.
    pub(crate) async fn read_again(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        ids: Vec<String>,
    ) -> Result<Vec<RecordKey>, RoundError> {
        let mut absent = Vec::new();
        for ids in ids.chunks(self.fetch_ids()) {
            let read_at = self.read_now().await?;
            let found = by_id(central.fetch(kind, ids).await?);
            step("reread.read");
            absent.extend(
                ids.iter().filter(|id| !found.contains_key(*id)).map(|id| RecordKey::new(kind, id.as_str())),
            );
            let tally = self
                .store
                .transact(move |tx| -> Result<Tally, StoreError> {
                    let mut tally = Tally::default();
                    for (id, remote) in &found {
                        let key = RecordKey::new(kind, id.as_str());
                        // Stale now: the next round reads it again.
                        if !tx.is_read_stale(&key, read_at)? {
                            tally += match remote {
                                Remote::Document(document) => merge_in(tx, &key, Some(document))?,
                                Remote::Unreadable(reason) => note_unreadable(tx, &key, reason)?,
                            };
                        }
                    }
                    Ok(tally)
                })
                .await?;
            self.tally += tally;
        }
        Ok(absent)
    }

    /// Takes over that the centre was seen not to have these records.
    pub(crate) async fn take_absent(&mut self, absent: Vec<RecordKey>) -> Result<(), StoreError> {
        let tally = self
            .store
            .transact(move |tx| -> Result<Tally, StoreError> {
                let mut tally = Tally::default();
                for key in &absent {
                    // A write on the way will say more; the next round looks again.
                    if !tx.has_intent(key)? {
                        tally += merge_in(tx, key, None)?;
                    }
                }
                Ok(tally)
            })
            .await?;
        self.tally += tally;
        Ok(())
    }
}

/// A record as the centre holds it.
enum Remote {
    Document(Document),
    Unreadable(String),
}

fn by_id(fetched: Vec<Fetched>) -> BTreeMap<String, Remote> {
    let remote = |fetched| match fetched {
        Fetched::Document { id, document } => (id, Remote::Document(document)),
        Fetched::Unreadable { id, reason } => (id, Remote::Unreadable(reason)),
    };
    fetched.into_iter().map(remote).collect()
}

/// Whether the centre holds what this write would have left there.
fn landed(write: &IntentWrite, remote: Option<&Document>) -> bool {
    match (write, remote) {
        (IntentWrite::Delete { .. }, None) => true,
        (IntentWrite::Insert(sent) | IntentWrite::Replace(sent), Some(remote)) => same_document(sent, remote),
        (IntentWrite::Update(changes), Some(remote)) => {
            changes.iter().all(|change| holds(remote, &change.path, change.to.as_ref()))
        }
        _ => false,
    }
}

/// A write that may have landed and been overwritten since: where the record here has changed as well,
/// what was sent becomes the base, so that an undo or a removal is seen as an edit and not as never having
/// happened. Elsewhere the base stays, and the merge finds the two sides to differ.
fn doubt(tx: &mut Tx<'_>, key: &RecordKey, write: &IntentWrite, remote: &Document) -> Result<(), StoreError> {
    let local = tx.document(key)?;
    let mut base = tx.base(key)?.document().cloned().unwrap_or_default();
    match write {
        IntentWrite::Update(changes) => {
            let is_as_sent = |change: &&Change| {
                let local = local.as_ref();
                holds(remote, &change.path, change.to.as_ref())
                    || (!holds(remote, &change.path, change.from.as_ref())
                        && !local.is_some_and(|local| holds(local, &change.path, change.to.as_ref())))
            };
            for change in changes.iter().filter(is_as_sent) {
                set(&mut base, &change.path, change.to.clone());
            }
        }
        // Somebody else's record under the same account says nothing about this one.
        IntentWrite::Insert(sent) if key.kind != Kind::Person || same_identity(sent, remote) => {
            let is_as_sent = |(field, value): &(&String, &Bson)| {
                let local = local.as_ref().and_then(|local| local.get(field.as_str()));
                same_option(remote.get(field.as_str()), Some(value)) || !same_option(local, Some(value))
            };
            base =
                sent.iter().filter(is_as_sent).map(|(field, value)| (field.clone(), value.clone())).collect();
        }
        _ => return Ok(()),
    }
    tx.put(key, local.as_ref(), &Base::Document(base), &Actor::Centre)
}

/// What the trash says about a delete that has reached the centre.
pub(crate) const DELETED: TrashState = TrashState::Done;
