//! Floor 3. SCAN and DELETES: a sweep over everything that the centre holds, which may span rounds.
//!
//! Hides where the sweep stands. The position is saved together with what was taken up to it and with the
//! records in doubt: those that the sweep did not meet, or met in a read that may be too old. They are read
//! once more before anything is concluded, and nothing is deleted here before a kind was swept to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Bson, Document, doc};

use super::merge_in::{merge_in, note_unreadable};
use super::round::{Round, RoundError, Tally};
use super::step;
use crate::central::{Central, CentralError, Fetched};
use crate::domain::record::{Kind, RecordKey};
use crate::store::{StoreError, Tx};

/// Bounds of the number of documents read from the centre at a time, and where it begins; powers of two,
/// because the centre's cursor follows doubling and halving.
const SCAN_DOCUMENTS_MIN: usize = 1;
const SCAN_DOCUMENTS_MAX: usize = 512;
pub(super) const SCAN_DOCUMENTS_START: usize = 64;
/// A batch that took longer than the first is not followed by a larger one, than the second by a smaller.
const SCAN_FAST: Duration = Duration::from_secs(2);
const SCAN_SLOW: Duration = Duration::from_secs(10);
/// Part of a round's time that a scan may use, so that local edits are pushed in every round.
const SCAN_TIME_SHARE: u32 = 2;
/// A position without effects is saved this often: an idle round over a fast link writes nothing.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Ids that are no text, counted up to here for each kind.
const UNSUPPORTED_IDS_MAX: usize = 100;
/// Pulled deletes that need no confirmation: this many, or one in [`DELETES_PER_RECORD`] of what is here.
const DELETES_UNASKED_MAX: usize = 20;
const DELETES_PER_RECORD: u64 = 100;

const META_SCAN: &str = "scan";
const META_ACCEPT_DELETES: &str = "accept_deletes";
const META_UNSUPPORTED: &str = "unsupported_ids";

/// How far the sweep over one kind has come.
struct Position {
    kind: Kind,
    after: Option<String>,
    /// Ids up to `after` to be read again at the end.
    doubtful: BTreeSet<String>,
}

impl Position {
    fn start_of(kind: Kind) -> Position {
        Position { kind, after: None, doubtful: BTreeSet::new() }
    }

    fn decode(row: &Document) -> Option<Position> {
        let doubtful = row.get_array("doubtful").map_or(&[][..], Vec::as_slice);
        Some(Position {
            kind: Kind::from_collection(row.get_str("collection").ok()?)?,
            after: row.get_str("after").ok().map(str::to_owned),
            doubtful: doubtful.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
        })
    }

    fn encode(&self) -> Document {
        let after = self.after.clone().map_or(Bson::Null, Bson::String);
        let doubtful: Vec<&String> = self.doubtful.iter().collect();
        doc! {"collection": self.kind.schema().collection, "after": after, "doubtful": doubtful}
    }
}

impl Round<'_> {
    /// Looks through the centre's collections from where the last round stopped, and takes what changed.
    pub(crate) async fn scan(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        if self.allowance.scan_bytes == 0 {
            (self.is_large_waiting, self.is_scan_waiting) = (true, true);
            return Ok(());
        }
        self.received_before_scan = central.traffic().line_bytes_received;
        let saved = self.store.read()?.meta(META_SCAN)?;
        let has_saved = saved.is_some();
        let mut kinds = Kind::ALL;
        kinds.sort_by_key(|kind| kind.schema().push_rank);
        let mut position =
            saved.as_ref().and_then(Position::decode).unwrap_or_else(|| Position::start_of(kinds[0]));
        let start = kinds.iter().position(|kind| *kind == position.kind).unwrap_or(0);
        for (index, kind) in kinds.iter().enumerate().skip(start) {
            let mut is_cut = false;
            if position.kind != *kind {
                position = Position::start_of(*kind);
                is_cut = self.is_scan_share_used(central);
            }
            if is_cut || !self.scan_kind(central, &mut position).await? {
                self.save_position(&position).await?;
                self.sweep_percent = Some(self.percent_scanned(central, &kinds, index).await?);
                return Ok(());
            }
        }
        if has_saved || self.has_saved_position {
            self.store.transact(|tx| tx.set_meta(META_SCAN, None)).await?;
        }
        Ok(())
    }

    /// Returns false if the round's time for scanning ran out before the end.
    async fn scan_kind(&mut self, central: &mut dyn Central, at: &mut Position) -> Result<bool, RoundError> {
        let read_at = self.read_now().await?;
        let here = self.store.read()?.count(at.kind)?;
        let unasked =
            DELETES_UNASKED_MAX.max(usize::try_from(here / DELETES_PER_RECORD).unwrap_or(usize::MAX));
        central.scan(at.kind, at.after.as_deref()).await?;
        loop {
            let batch = self.scan_batch(central).await?;
            step("scan.read");
            let up_to = batch.last().map(|fetched| fetched.id().to_owned());
            let is_done = up_to.is_none();
            let present: BTreeSet<&str> = batch.iter().map(Fetched::id).collect();
            let local =
                self.store.read()?.expected_at_centre(at.kind, at.after.as_deref(), up_to.as_deref())?;
            at.doubtful.extend(local.into_iter().filter(|id| !present.contains(id.as_str())));
            at.after = up_to.or(at.after.take());
            self.take_batch(batch, read_at, at).await?;
            step("scan.applied");
            if is_done {
                self.decide_doubtful(central, at, unasked, true).await?;
                return Ok(true);
            }
            if at.doubtful.len() > unasked {
                self.decide_doubtful(central, at, unasked, false).await?;
            }
            if self.is_scan_share_used(central) {
                return Ok(false);
            }
        }
    }

    /// Whether this round has looked through as much as it may: by time, or by what has travelled for it.
    fn is_scan_share_used(&self, central: &dyn Central) -> bool {
        let received = central.traffic().line_bytes_received - self.received_before_scan;
        received >= self.allowance.scan_bytes
            || self.started.elapsed() > self.settings.round_timeout / SCAN_TIME_SHARE
    }

    /// The next documents; how many are asked for follows the link.
    async fn scan_batch(&mut self, central: &mut dyn Central) -> Result<Vec<Fetched>, CentralError> {
        let started = tokio::time::Instant::now();
        let result = central.scan_next(self.batch_documents).await;
        let elapsed = started.elapsed();
        if result.is_err() || elapsed > SCAN_SLOW {
            self.batch_documents = (self.batch_documents / 2).max(SCAN_DOCUMENTS_MIN);
        } else if elapsed < SCAN_FAST {
            self.batch_documents = (self.batch_documents * 2).min(SCAN_DOCUMENTS_MAX);
        }
        result
    }

    /// Merges what was read and saves the position, in one transaction. What may be too old becomes doubtful.
    async fn take_batch(
        &mut self,
        batch: Vec<Fetched>,
        read_at: u64,
        at: &mut Position,
    ) -> Result<(), StoreError> {
        let is_due = self.position_saved.elapsed() > SAVE_EVERY;
        let (kind, doubtful, after) = (at.kind, at.doubtful.clone(), at.after.clone());
        let (tally, doubtful, is_saved) = self
            .store
            .transact(move |tx| -> Result<_, StoreError> {
                let mut tally = Tally::default();
                let mut position = Position { kind, after: after.clone(), doubtful: doubtful.clone() };
                let before = tx.writes();
                for fetched in &batch {
                    let key = RecordKey::new(kind, fetched.id());
                    if tx.is_read_stale(&key, read_at)? {
                        position.doubtful.insert(key.id);
                        continue;
                    }
                    tally += match fetched {
                        Fetched::Document { document, .. } => merge_in(tx, &key, Some(document))?,
                        Fetched::Unreadable { reason, .. } => note_unreadable(tx, &key, reason)?,
                    };
                }
                let is_saved = is_due || tx.writes() != before;
                if is_saved {
                    tx.set_meta(META_SCAN, Some(&position.encode()))?;
                }
                Ok((tally, position.doubtful, is_saved))
            })
            .await?;
        self.tally += tally;
        at.doubtful = doubtful;
        if is_saved {
            self.note_saved();
        }
        Ok(())
    }

    async fn save_position(&mut self, at: &Position) -> Result<(), StoreError> {
        let row = at.encode();
        self.store.transact(move |tx| tx.set_meta(META_SCAN, Some(&row))).await?;
        self.note_saved();
        Ok(())
    }

    fn note_saved(&mut self) {
        self.has_saved_position = true;
        self.position_saved = tokio::time::Instant::now();
    }

    /// Reads doubtful records again. Those that are gone are deleted here at the end of the sweep, or at
    /// once if the operator has agreed; too many of them halt the node.
    async fn decide_doubtful(
        &mut self,
        central: &mut dyn Central,
        at: &mut Position,
        unasked: usize,
        is_end: bool,
    ) -> Result<(), RoundError> {
        if at.doubtful.is_empty() {
            return Ok(());
        }
        let absent = self.read_again(central, at.kind, at.doubtful.iter().cloned().collect()).await?;
        let snapshot = self.store.read()?;
        let is_accepted = snapshot.meta(META_ACCEPT_DELETES)?.is_some();
        let here = snapshot.count(at.kind)?;
        drop(snapshot);
        if absent.len() > unasked && !is_accepted {
            return Err(RoundError::Halted(halt_message(at.kind, here, &absent)));
        }
        if is_end || is_accepted {
            at.doubtful.clear();
            self.take_absent(absent).await?;
            step("deletes.applied");
        } else {
            at.doubtful = absent.into_iter().map(|key| key.id).collect();
        }
        Ok(())
    }

    /// Counts records that the centre holds under ids that are no text: they stay where they are, but are
    /// not kept secret.
    pub(crate) async fn count_unsupported(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let mut count = 0;
        for kind in Kind::ALL {
            let ids = central.unsupported_ids(kind, UNSUPPORTED_IDS_MAX).await?;
            count += i64::try_from(ids.len()).unwrap_or(i64::MAX);
        }
        self.store.transact(move |tx| tx.set_meta(META_UNSUPPORTED, Some(&doc! {"count": count}))).await?;
        Ok(())
    }

    /// What [`Round::count_unsupported`] found last.
    pub(crate) fn unsupported_known(&self) -> i64 {
        let row = self.store.read().and_then(|snapshot| snapshot.meta(META_UNSUPPORTED)).ok().flatten();
        row.and_then(|row| row.get_i64("count").ok()).unwrap_or(0)
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

fn halt_message(kind: Kind, here: u64, absent: &[RecordKey]) -> String {
    let examples: Vec<&str> = absent.iter().take(3).map(|key| key.id.as_str()).collect();
    format!(
        "At least {} of {here} records in {} are gone at the centre (for example {}). Nothing has been deleted \
         here. If that is right, run: thalamus-edge sync resume --accept-deletes",
        absent.len(),
        kind.schema().collection,
        examples.join(", "),
    )
}

/// The operator accepts that many records vanish at the centre, for the rounds until one completes.
pub(crate) fn accept_deletes(tx: &mut Tx<'_>, is_accepted: bool) -> Result<(), StoreError> {
    let was_accepted = tx.meta(META_ACCEPT_DELETES)?.is_some();
    if is_accepted != was_accepted {
        tx.set_meta(META_ACCEPT_DELETES, is_accepted.then(|| doc! {"accepted": true}).as_ref())?;
    }
    Ok(())
}
