//! Floor 3. SCAN: a sweep over everything that the centre holds, which may span rounds.
//!
//! Needed at first, where the history of changes has a gap, now and then to make sure, and always where
//! the centre keeps no history. Hides where the sweep stands. The position is saved together with what was
//! taken up to it. Records that the sweep should have met and did not are asked for once more; what comes
//! of it is decided elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};

use super::deletes;
use super::drain::Source;
use super::people_first::PeopleThere;
use super::pull::{take_document, take_unreadable};
use super::put_back::note_older;
use super::round::{Round, RoundError, Tally};
use super::scan_sizes::Sizes;
use super::{no_feed, step};
use crate::central::{Central, CentralError, Fetched};
use crate::domain::json::weight;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Fields, META_VERIFY_DUE, Reread, Snapshot, StoreError, Tx};

/// Part of a round's time that a scan may use, so that local edits are pushed in every round.
const SCAN_TIME_SHARE: u32 = 2;
/// A position without effects is saved this often: an idle round over a fast link writes nothing.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Where a sweep under way stands.
pub(crate) const META_SCAN: &str = "scan";
/// Set once a sweep has reached its end.
pub(crate) const META_EVER_SWEPT: &str = "ever_swept";
/// In the row of a verification that is due: the sweep under way is it.
const BEGUN: &str = "begun";

/// Why everything is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The node is new.
    First,
    /// What happened meanwhile is not known in full.
    Lost,
    /// To make sure that both sides are what they are taken for.
    Verify,
    /// The centre keeps no history.
    Sweep,
    /// The centre was set back to an older copy, with which every record has to be brought together.
    Restored,
}

impl Reason {
    const ALL: [Reason; 5] = [Reason::First, Reason::Lost, Reason::Verify, Reason::Sweep, Reason::Restored];

    fn name(self) -> &'static str {
        match self {
            Reason::First => "first",
            Reason::Lost => "lost",
            Reason::Verify => "verify",
            Reason::Sweep => "sweep",
            Reason::Restored => "restored",
        }
    }

    fn named(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Asks for a sweep from the start; one that only verifies lets one that is under way go on.
pub(crate) fn make_due(tx: &mut Tx<'_>, reason: Reason) -> Result<(), StoreError> {
    let reason = if tx.is_restoring()? { Reason::Restored } else { reason };
    tx.set_restore_swept(false)?;
    tx.set_meta(META_SCAN, Some(&Position::start(reason).encode()))
}

/// There is no history of changes any more. A sweep that only made sure begins anew, as one that finds out what happened.
pub(super) fn begin_without_history(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let saved = Position::saved(tx.meta_row(META_SCAN)?);
    if saved.is_some_and(|saved| saved.reason == Reason::Verify) {
        tx.set_meta(META_SCAN, Some(&Position::start(Reason::Sweep).encode()))?;
    }
    Ok(())
}

/// How far the sweep has come.
#[derive(Clone)]
pub(super) struct Position {
    pub(super) reason: Reason,
    kind: Kind,
    after: Option<String>,
    /// The line broke in the middle of it: large documents are read alone.
    is_careful: bool,
}

/// Kinds in the order of the sweep: what others refer to comes first.
fn kinds() -> [Kind; Kind::ALL.len()] {
    let mut kinds = Kind::ALL;
    kinds.sort_by_key(|kind| kind.schema().push_rank);
    kinds
}

impl Position {
    fn start(reason: Reason) -> Position {
        Position { reason, kind: kinds()[0], after: None, is_careful: false }
    }

    /// Whether it has not come to the records that belong to people.
    pub(super) fn is_before_records(&self) -> bool {
        self.kind.schema().push_rank <= Kind::Person.schema().push_rank
    }

    /// Where the sweep in this row of `meta` stands. Of one that cannot be read nobody knows what it has reached: it is at
    /// its beginning, and what happened meanwhile is not known.
    pub(super) fn saved(row: Option<Vec<u8>>) -> Option<Position> {
        row.map(|row| Position::decode(&row).unwrap_or_else(|_| Position::start(Reason::Lost)))
    }

    fn decode(row: &[u8]) -> Result<Position, StoreError> {
        let row = Fields::of(row, "the place of the sweep")?;
        Ok(Position {
            reason: row.word("reason", Reason::named)?,
            kind: row.word("collection", Kind::from_collection)?,
            after: row.text_or_null("after")?.map(str::to_owned),
            // Earlier versions did not write it.
            is_careful: row.flag_if_any("careful")?,
        })
    }

    pub(super) fn encode(&self) -> Document {
        let after = self.after.clone().map_or(Bson::Null, Bson::String);
        let collection = self.kind.schema().collection;
        doc! {
            "reason": self.reason.name(), "collection": collection, "after": after, "careful": self.is_careful,
        }
    }
}

/// Whether a sweep is under way, wherever it stands.
pub(super) fn is_under_way(snapshot: &Snapshot) -> Result<bool, StoreError> {
    Ok(snapshot.meta_row(META_SCAN)?.is_some())
}

/// A place that cannot be read is written anew, and the sweep begins anew with it.
pub(super) fn mend_position(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    match tx.meta_row(META_SCAN)?.map(|row| Position::decode(&row)) {
        Some(Err(error)) => {
            tracing::error!(%error, "where the reading of everything stands is not known: it begins anew");
            make_due(tx, Reason::Lost)
        }
        Some(Ok(_)) | None => Ok(()),
    }
}

impl Round<'_> {
    /// Where a sweep has to go on from, if one is due.
    fn scan_due(&self) -> Result<Option<(Position, bool)>, StoreError> {
        let snapshot = self.store.read()?;
        if let Some(saved) = Position::saved(snapshot.meta_row(META_SCAN)?) {
            return Ok(Some((saved, true)));
        }
        Ok(if self.source == Source::Sweep {
            // It verifies as well. But nobody tells what happened, so it is no sweep that only makes sure.
            Some((Position::start(Reason::Sweep), false))
        } else if snapshot.meta(META_VERIFY_DUE)?.is_some() {
            Some((Position::start(Reason::Verify), false))
        } else {
            None
        })
    }

    /// Where every round looks at everything no position may be saved before the sweep begins. If records are to be read
    /// before, it is: they wait for their people.
    pub(crate) async fn note_sweep_ahead(&mut self) -> Result<(), StoreError> {
        let snapshot = self.store.read()?;
        let is_idle = snapshot.intents()?.is_empty() && snapshot.to_read_again(None, 1)?.is_empty();
        drop(snapshot);
        match self.scan_due()? {
            Some((position, false)) if position.reason == Reason::Sweep && !is_idle => {
                let at = position.encode();
                self.store.transact(move |tx| tx.set_meta(META_SCAN, Some(&at))).await
            }
            _ => Ok(()),
        }
    }

    /// Looks through the centre's collections from where the last round stopped, and takes what changed.
    pub(crate) async fn scan(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let Some((mut position, has_saved)) = self.scan_due()? else {
            return Ok(());
        };
        if self.allowance.scan_bytes == 0 {
            (self.is_large_waiting, self.waiting_sweep) = (true, Some(position.reason));
            return Ok(());
        }
        self.received_before_scan = central.traffic().line_bytes_received;
        self.has_saved_position = has_saved;
        let is_verifying = self.store.read()?.meta(META_VERIFY_DUE)?.is_some();
        let is_all = position.after.is_none() && position.kind == kinds()[0];
        if is_all && (is_verifying || position.reason != Reason::Sweep) {
            self.store
                .transact(move |tx| -> Result<(), StoreError> {
                    if is_verifying {
                        tx.set_meta(META_VERIFY_DUE, Some(&doc! {BEGUN: true}))?;
                    }
                    tx.retry_refused()
                })
                .await?;
        }
        if is_all {
            self.count_other_ids(central).await?;
        }
        let start = kinds().iter().position(|kind| *kind == position.kind).unwrap_or(0);
        for (index, kind) in kinds().into_iter().enumerate().skip(start) {
            let mut is_cut = false;
            if position.kind != kind {
                let was_before = position.is_before_records();
                position = Position { kind, after: None, ..position };
                if was_before && !position.is_before_records() {
                    self.records_follow(central, &position).await?;
                }
                is_cut = self.is_scan_share_used(&*central);
            }
            if is_cut || !self.scan_kind(central, &mut position).await? {
                let (at, received) = (position.clone(), self.received_by_scan(&*central));
                self.store
                    .transact(move |tx| -> Result<(), StoreError> {
                        tx.set_meta(META_SCAN, Some(&at.encode()))?;
                        no_feed::count(tx, received, false)
                    })
                    .await?;
                self.sweep = Some((position.reason, self.percent_scanned(central, index).await?));
                return Ok(());
            }
        }
        let received = self.received_by_scan(&*central);
        self.end_scan(position.reason, received).await
    }

    /// Bytes that this round has received since its scan began.
    fn received_by_scan(&self, central: &dyn Central) -> u64 {
        central.traffic().line_bytes_received - self.received_before_scan
    }

    async fn end_scan(&mut self, reason: Reason, received: u64) -> Result<(), RoundError> {
        let has_saved = self.has_saved_position;
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                if has_saved {
                    tx.set_meta(META_SCAN, None)?;
                }
                if tx.meta(META_EVER_SWEPT)?.is_none() {
                    tx.set_meta(META_EVER_SWEPT, Some(&doc! {"swept": true}))?;
                }
                // One that was asked for in the middle of this sweep is still to come.
                let has_verified = |row: Document| reason != Reason::Sweep || row.contains_key(BEGUN);
                if tx.meta(META_VERIFY_DUE)?.is_some_and(has_verified) {
                    tx.set_meta(META_VERIFY_DUE, None)?;
                }
                no_feed::count(tx, received, true)?;
                tx.set_restore_swept(true)?;
                deletes::note_sweep(tx)
            })
            .await?;
        step("scan.ended");
        Ok(())
    }

    /// Returns false if the round's share of scanning was used up before the end.
    async fn scan_kind(&mut self, central: &mut dyn Central, at: &mut Position) -> Result<bool, RoundError> {
        let read_at = self.read_now().await?;
        let large = match at.is_careful {
            true => central.large_ids(at.kind, at.after.as_deref()).await?,
            false => Vec::new(),
        };
        central.scan(at.kind, at.after.as_deref(), &large).await?;
        let large: BTreeSet<String> = large.into_iter().collect();
        let mut sizes = Sizes::default();
        loop {
            let batch = match self.scan_batch(central, &mut sizes).await {
                Ok(batch) => batch,
                Err(error) => {
                    at.is_careful = true;
                    let at = at.encode();
                    self.store.transact(move |tx| tx.set_meta(META_SCAN, Some(&at))).await?;
                    return Err(error.into());
                }
            };
            step("scan.read");
            let is_done = batch.is_empty();
            let people = Arc::new(self.people_of_batch(central, &batch, at).await?);
            let mut parts = weight::parts(batch, Fetched::weight);
            if is_done {
                parts.push(Vec::new());
            }
            for part in parts {
                self.take_up_to((part, &people), &large, read_at, at).await?;
                step("scan.applied");
            }
            if is_done {
                self.reread(central).await?;
                return Ok(true);
            }
            if self.is_scan_share_used(&*central) {
                return Ok(false);
            }
        }
    }

    /// Who has the accounts of the records of a batch ([`super::people_first`]).
    async fn people_of_batch(
        &mut self,
        central: &mut dyn Central,
        batch: &[Fetched],
        at: &Position,
    ) -> Result<PeopleThere, RoundError> {
        let documents = batch.iter().filter_map(|fetched| match fetched {
            Fetched::Document { id, document } => {
                Some((RecordKey::new(at.kind, id.as_str()), document.bytes()))
            }
            Fetched::Unreadable { .. } | Fetched::Deferred { .. } => None,
        });
        let documents: Vec<_> = documents.collect();
        let read = documents.iter().map(|(key, document)| (key, Some(*document))).collect();
        self.people_there(central, read).await
    }

    /// Takes what was read next, or that nothing follows, and notes what should have been among it. Moves the position.
    async fn take_up_to(
        &mut self,
        (batch, people): (Vec<Fetched>, &Arc<PeopleThere>),
        large: &BTreeSet<String>,
        read_at: u64,
        at: &mut Position,
    ) -> Result<(), StoreError> {
        let up_to = batch.last().map(|fetched| fetched.id().to_owned());
        let present: BTreeSet<&str> = batch.iter().map(Fetched::id).collect();
        let mut to_ask: Vec<(String, bool)> = self
            .store
            .read()?
            .expected_at_centre(at.kind, at.after.as_deref(), up_to.as_deref())?
            .into_iter()
            .filter(|id| !present.contains(id.as_str()) && !large.contains(id))
            .map(|id| (id, false))
            .collect();
        let is_passed = |id: &String| {
            at.after.as_ref().is_none_or(|after| id > after) && up_to.as_ref().is_none_or(|end| id <= end)
        };
        to_ask.extend(large.iter().filter(|id| is_passed(id)).map(|id| (id.clone(), true)));
        at.after = up_to.or(at.after.take());
        self.take_batch((batch, people), to_ask, read_at, at).await
    }

    fn is_scan_share_used(&mut self, central: &dyn Central) -> bool {
        self.is_disk_short();
        self.received_by_scan(central) >= self.allowance.scan_bytes
            || self.started.elapsed() > self.settings.round_timeout / SCAN_TIME_SHARE
    }

    /// The next documents; how many are asked for follows the link, and what this round may still look through.
    async fn scan_batch(
        &mut self,
        central: &mut dyn Central,
        sizes: &mut Sizes,
    ) -> Result<Vec<Fetched>, CentralError> {
        let received = self.received_by_scan(&*central);
        let max = sizes.next(received, self.allowance.scan_bytes.saturating_sub(received));
        let started = tokio::time::Instant::now();
        let result = central.scan_next(self.batch_documents.min(max)).await;
        self.fit_reads(result.is_ok(), started.elapsed());
        sizes.note_batch(result.as_ref().map_or(0, Vec::len));
        result
    }

    /// Merges what was read and saves the position, in one transaction. What may be too old, is missing or
    /// is too large is asked for again, alone where it is large.
    async fn take_batch(
        &mut self,
        (batch, people): (Vec<Fetched>, &Arc<PeopleThere>),
        to_ask: Vec<(String, bool)>,
        read_at: u64,
        at: &Position,
    ) -> Result<(), StoreError> {
        let is_due = self.position_saved.elapsed() > SAVE_EVERY;
        let (at, people) = (at.clone(), Arc::clone(people));
        let (tally, is_saved) = self
            .store
            .transact(move |tx| -> Result<_, StoreError> {
                let mut tally = Tally::default();
                let before = tx.writes();
                let is_deleted = at.reason == Reason::Lost;
                for fetched in &batch {
                    let key = RecordKey::new(at.kind, fetched.id());
                    let taken = if tx.is_read_stale(&key, read_at)? {
                        None
                    } else {
                        tx.sparing(&key, |tx| take_fetched(tx, &key, fetched, is_deleted, &people))?
                    };
                    match taken {
                        Some(taken) => tally += taken,
                        None => tx.ask_again(&key, Reread { is_deleted, ..Reread::default() })?,
                    }
                }
                for (id, is_alone) in &to_ask {
                    let key = RecordKey::new(at.kind, id.as_str());
                    tx.ask_again(&key, Reread { is_alone: *is_alone, is_deleted, ..Reread::default() })?;
                }
                let is_saved = is_due || tx.writes() != before;
                if is_saved {
                    tx.set_meta(META_SCAN, Some(&at.encode()))?;
                }
                Ok((tally, is_saved))
            })
            .await?;
        self.tally += tally;
        if is_saved {
            self.has_saved_position = true;
            self.position_saved = tokio::time::Instant::now();
        }
        Ok(())
    }

    async fn percent_scanned(&self, central: &mut dyn Central, index: usize) -> Result<u64, RoundError> {
        let (mut there, mut here) = (0, 0);
        let snapshot = self.store.read()?;
        let counts: Vec<u64> = kinds().iter().map(|kind| snapshot.count(*kind)).collect::<Result<_, _>>()?;
        drop(snapshot);
        for (at, kind) in kinds().into_iter().enumerate() {
            let count = central.estimated_count(kind).await?;
            there += count;
            here += if at <= index { counts[at].min(count) } else { 0 };
        }
        Ok((here * 100).checked_div(there).unwrap_or(0).min(99))
    }
}

/// Takes one record that a sweep has met. `is_deleted`: it may have been deleted and put back since.
fn take_fetched(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    fetched: &Fetched,
    is_deleted: bool,
    people: &PeopleThere,
) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    let is_marked = tx.reread_of(key)?.is_some_and(|why| why.is_deleted);
    match fetched {
        Fetched::Document { document, .. } => {
            if is_deleted && !is_marked {
                tally += note_older(tx, key, &document.decode())?;
            }
            tally += take_document(tx, key, document, people)?;
        }
        Fetched::Unreadable { reason, .. } => {
            if is_deleted {
                tx.ask_again(key, Reread::of_deleted())?;
            }
            tally += take_unreadable(tx, key, reason)?;
        }
        Fetched::Deferred { .. } => tx.ask_again(key, Reread { is_deleted, ..Reread::default() })?,
    }
    Ok(tally)
}
