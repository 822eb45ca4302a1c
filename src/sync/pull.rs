//! Floor 3. SETTLE and SCAN: what the centre holds, and what became of writes whose answer was lost.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, doc};

use super::merge_in::{merge_in, note_unreadable};
use super::round::{Round, RoundError, Tally};
use super::step;
use crate::central::{ArchiveState, Central, Fetched};
use crate::domain::diff::holds;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::value::same_document;
use crate::store::{Intent, IntentWrite, StoreError, TrashState};

/// Documents read from the centre at a time.
const SCAN_DOCUMENTS_MAX: usize = 500;
/// Ids asked for in one read.
pub(crate) const FETCH_IDS_MAX: usize = 100;
/// Part of a round's time that a scan may use, so that local edits are pushed in every round.
const SCAN_TIME_SHARE: u32 = 2;
/// Ids that are no text, counted up to here.
const UNSUPPORTED_IDS_MAX: usize = 100;
/// Pulled deletes that need no confirmation: this many, or one in [`DELETES_PER_RECORD`] of what is here.
const DELETES_UNASKED_MAX: u64 = 20;
const DELETES_PER_RECORD: u64 = 100;

const META_SCAN: &str = "scan";
const META_ACCEPT_DELETES: &str = "accept_deletes";

/// Where the scan of one collection goes on.
struct Position {
    kind: Kind,
    after: Option<String>,
}

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
            for batch in intents.chunks(FETCH_IDS_MAX) {
                self.settle_batch(central, kind, batch).await?;
            }
        }
        Ok(())
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
        let mut settled = Vec::new();
        let mut archives = Vec::new();
        for (key, intent) in batch {
            let remote = found.get(&key.id);
            let has_landed = match remote {
                Some(Remote::Unreadable(_)) => continue,
                Some(Remote::Document(document)) => landed(&intent.write, Some(document)),
                None => landed(&intent.write, None),
            };
            if let IntentWrite::Delete { archive } = &intent.write {
                let state = if has_landed { ArchiveState::Done } else { ArchiveState::Void };
                archives.push((archive.clone(), state));
            }
            settled.push((key.clone(), intent.number, has_landed, remote.and_then(Remote::document)));
        }
        let tally = self
            .store
            .transact(move |tx| -> Result<Tally, StoreError> {
                let mut tally = Tally::default();
                for (key, number, has_landed, remote) in &settled {
                    if !tx.settle_intent(key, *number, *has_landed)? {
                        continue;
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
        if !archives.is_empty() {
            central.settle_archive(&archives).await?;
        }
        Ok(())
    }

    /// SCAN: looks through the centre's collections from where the last round stopped, and takes what
    /// changed. Records that are missing there are confirmed by a second read before anything is deleted.
    pub(crate) async fn scan(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let saved = self.store.read()?.meta(META_SCAN)?;
        let saved = saved.and_then(|row| {
            let kind = Kind::from_collection(row.get_str("collection").ok()?)?;
            Some(Position { kind, after: row.get_str("after").ok().map(str::to_owned) })
        });
        let mut kinds = Kind::ALL;
        kinds.sort_by_key(|kind| kind.schema().push_rank);
        let start = saved.as_ref().map_or(0, |at| kinds.iter().position(|kind| *kind == at.kind).unwrap_or(0));
        let mut after = saved.and_then(|at| at.after);
        for (index, kind) in kinds.iter().enumerate().skip(start) {
            let is_done = self.scan_kind(central, *kind, after.take()).await?;
            if !is_done {
                self.sweep_percent = Some(self.percent_scanned(central, &kinds, index).await?);
                return Ok(());
            }
        }
        self.store.transact(|tx| tx.set_meta(META_SCAN, None)).await?;
        Ok(())
    }

    /// Returns false if the round's time for scanning ran out before the end.
    async fn scan_kind(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        mut after: Option<String>,
    ) -> Result<bool, RoundError> {
        let read_at = self.read_now().await?;
        if after.is_none() {
            self.unsupported += central.unsupported_ids(kind, UNSUPPORTED_IDS_MAX).await?.len() as u64;
        }
        central.scan(kind, after.as_deref()).await?;
        let mut missing = BTreeSet::new();
        let (mut reread, mut is_done) = (BTreeSet::new(), false);
        while !is_done {
            let batch = central.scan_next(SCAN_DOCUMENTS_MAX).await?;
            step("scan.read");
            let up_to = batch.last().map(|fetched| fetched.id().to_owned());
            let present: BTreeSet<String> = batch.iter().map(|fetched| fetched.id().to_owned()).collect();
            let local = self.store.read()?.expected_at_centre(kind, after.as_deref(), up_to.as_deref())?;
            missing.extend(local.into_iter().filter(|id| !present.contains(id)));
            reread.extend(self.take_batch(kind, batch, read_at, up_to.clone()).await?);
            step("scan.applied");
            is_done = up_to.is_none();
            after = up_to.or(after);
            if !is_done && self.started.elapsed() > self.settings.round_timeout / SCAN_TIME_SHARE {
                break;
            }
        }
        let absent = self.read_again(central, kind, missing.union(&reread).cloned().collect()).await?;
        self.take_deletes(kind, absent).await?;
        Ok(is_done)
    }

    /// The push number now: a read sent from here on is newer than every push up to it.
    pub(crate) async fn read_now(&self) -> Result<u64, StoreError> {
        self.store.transact(|tx| tx.push_number()).await
    }

    /// Merges what was read and saves the position, in one transaction; returns the ids to be read again.
    async fn take_batch(
        &mut self,
        kind: Kind,
        batch: Vec<Fetched>,
        read_at: u64,
        up_to: Option<String>,
    ) -> Result<Vec<String>, StoreError> {
        let (tally, stale) = self
            .store
            .transact(move |tx| -> Result<(Tally, Vec<String>), StoreError> {
                let (mut tally, mut stale) = (Tally::default(), Vec::new());
                for fetched in &batch {
                    let key = RecordKey::new(kind, fetched.id());
                    if tx.is_read_stale(&key, read_at)? {
                        stale.push(key.id);
                        continue;
                    }
                    tally += match fetched {
                        Fetched::Document { document, .. } => merge_in(tx, &key, Some(document))?,
                        Fetched::Unreadable { reason, .. } => note_unreadable(tx, &key, reason)?,
                    };
                }
                if let Some(up_to) = &up_to {
                    let position = doc! {"collection": kind.schema().collection, "after": up_to};
                    tx.set_meta(META_SCAN, Some(&position))?;
                }
                Ok((tally, stale))
            })
            .await?;
        self.tally += tally;
        Ok(stale)
    }

    /// Reads records afresh and merges those that exist; returns the ids of those that do not.
    pub(crate) async fn read_again(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        ids: Vec<String>,
    ) -> Result<Vec<RecordKey>, RoundError> {
        let mut absent = Vec::new();
        for ids in ids.chunks(FETCH_IDS_MAX) {
            let read_at = self.read_now().await?;
            let found = by_id(central.fetch(kind, ids).await?);
            step("reread.read");
            absent.extend(ids.iter().filter(|id| !found.contains_key(*id)).map(|id| RecordKey::new(kind, id.as_str())));
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

    /// DELETES: takes over that records are gone at the centre, unless that would be suspiciously many.
    async fn take_deletes(&mut self, kind: Kind, absent: Vec<RecordKey>) -> Result<(), RoundError> {
        if absent.is_empty() {
            return Ok(());
        }
        let snapshot = self.store.read()?;
        let here = snapshot.count(kind)?;
        let is_accepted = snapshot.meta(META_ACCEPT_DELETES)?.is_some();
        drop(snapshot);
        let unasked = DELETES_UNASKED_MAX.max(here / DELETES_PER_RECORD);
        if absent.len() as u64 > unasked && !is_accepted {
            let examples: Vec<&str> = absent.iter().take(3).map(|key| key.id.as_str()).collect();
            return Err(RoundError::Halted(format!(
                "{} of {here} records in {} are gone at the centre (for example {}). Nothing has been deleted here. \
                 If that is right, run: thalamus-edge sync resume --accept-deletes",
                absent.len(),
                kind.schema().collection,
                examples.join(", "),
            )));
        }
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
        step("deletes.applied");
        Ok(())
    }

    async fn percent_scanned(
        &self,
        central: &mut dyn Central,
        kinds: &[Kind],
        index: usize,
    ) -> Result<u64, RoundError> {
        let (mut there, mut here) = (0, 0);
        let snapshot = self.store.read()?;
        let counts: Vec<u64> = kinds.iter().map(|kind| snapshot.count(*kind)).collect::<Result<_, _>>()?;
        drop(snapshot);
        for (at, kind) in kinds.iter().enumerate() {
            let count = central.estimated_count(*kind).await?;
            there += count;
            here += if at <= index { counts[at].min(count) } else { 0 };
        }
        Ok((here * 100).checked_div(there).unwrap_or(0).min(99))
    }
}

/// A record as the centre holds it.
enum Remote {
    Document(Document),
    Unreadable(String),
}

impl Remote {
    fn document(&self) -> Option<Document> {
        match self {
            Remote::Document(document) => Some(document.clone()),
            Remote::Unreadable(_) => None,
        }
    }
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

/// The operator accepts that many records vanish at the centre, for the rounds until one completes.
pub(crate) fn accept_deletes(tx: &mut crate::store::Tx<'_>, is_accepted: bool) -> Result<(), StoreError> {
    let was_accepted = tx.meta(META_ACCEPT_DELETES)?.is_some();
    if is_accepted != was_accepted {
        tx.set_meta(META_ACCEPT_DELETES, is_accepted.then(|| doc! {"accepted": true}).as_ref())?;
    }
    Ok(())
}

/// What the trash says about a delete that has reached the centre.
pub(crate) const DELETED: TrashState = TrashState::Done;
