//! Floor 3. CONTENT: attachments between the node and the centre, after everything else.
//!
//! Hides the lane that carries them. What is to travel stands in the store (`store/content/attachments.rs`), how far it
//! got follows from the chunks that are here and there, so a lane may be cut anywhere and the next one goes
//! on. It may use so many bytes and the rest of the round's time; what it cannot do is never a reason for
//! the records to be called incomplete.
//!
//! **What comes out wrong.** A name is the SHA-256 of the bytes, so whoever has all of them knows whether
//! they are right, and nobody else does. An upload therefore looks at numbers and lengths only. A download
//! whose bytes are not what the name says is thrown away, noted here, and marked at the centre in the row of
//! `fs.files`, with eight bytes of every chunk's own hash as it came. Nodes that hold the content look for
//! marks now and then, compare with their own chunks, and replace those that differ: only these travel
//! again. Then the mark goes, which is what the downloader waits for: fetching the same wrong bytes in every
//! round would use up the allowance of all others. Should nobody have the right bytes, it tries again after
//! [`RETRY_AFTER_ROUNDS`]. A write under a name is always the same write, so it matters to nobody in which
//! order nodes do this; that they compare first is only so that what is right is left alone.

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::lease;
use super::round::{Round, RoundError};
use crate::central::content::{ContentFile, DIGEST_BYTES};
use crate::central::{Central, CentralError};
use crate::store::{ContentsLeft, Store, StoreError};

/// Longest content that is fetched, in bytes: nothing longer can be uploaded to a node.
const ATTACHMENT_BYTES_MAX: u64 = 1 << 30;
/// Longest chunk: MongoDB holds no longer document.
const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// Most chunks that content may be cut into: what the row of a file says is believed within these bounds only, because
/// so many lengths and digests are kept in memory.
pub(crate) const PARTS_MAX: u64 = 1 << 16;
/// Names that the centre is asked about at a time.
pub(super) const ASK_NAMES_MAX: usize = 100;
/// Rounds after which what came out wrong, and what cannot be let go, is looked at again.
pub(super) const RETRY_AFTER_ROUNDS: i64 = 100;
/// Without other work at the centre marks are looked for in one of so many rounds.
const MARKS_EVERY_ROUNDS: i64 = 10;
/// Chunks sent or fetched together, at first and at most; adapts to the link.
const BATCH_CHUNKS_START: u64 = 1;
const BATCH_CHUNKS_MAX: u64 = 16;
/// A batch faster than this may grow, one slower than the second shrinks.
const BATCH_FAST: Duration = Duration::from_secs(2);
const BATCH_SLOW: Duration = Duration::from_secs(10);
/// Part of the time left that an exchange may take by the speed of the last one: lines are not even.
const TIME_SURE: f64 = 0.8;
/// Tenths of the round's time after which the lane ends, so that the report still has its turn.
const TIME_TENTHS_MAX: u32 = 9;

/// What the lane may still use.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes of content, both ways; `None` is no limit.
    left: Option<u64>,
    /// Part of `left` that is kept for the other direction.
    reserved: u64,
    has_spent: bool,
    deadline: Instant,
    /// Bytes a second of the last exchange; unknown before the first.
    speed: Option<f64>,
}

impl Budget {
    fn new(allowance: Option<u64>, deadline: Instant) -> Budget {
        Budget { left: allowance, reserved: 0, has_spent: false, deadline, speed: None }
    }

    /// How many pieces of `unit` bytes may travel now, at most `max`: as many as the allowance is worth and
    /// as come through before the deadline, by the speed so far, because what is cut off has travelled for
    /// nothing. The first piece of a lane may be larger than the allowance, unless that is nothing, so that
    /// the smallest one leads somewhere.
    pub(super) fn affordable(&self, unit: u64, max: u64) -> u64 {
        let time = self.deadline.saturating_duration_since(Instant::now());
        if time.is_zero() {
            return 0;
        }
        let max = match self.speed {
            // The conversion saturates.
            Some(speed) => max.min((time.as_secs_f64() * TIME_SURE * speed / unit.max(1) as f64) as u64),
            None => max,
        };
        match self.left {
            None => max,
            Some(0) => 0,
            Some(left) => {
                let pieces = left.saturating_sub(self.reserved) / unit.max(1);
                pieces.max(u64::from(!self.has_spent)).min(max)
            }
        }
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.has_spent = true;
        self.left = self.left.map(|left| left.saturating_sub(bytes));
    }
}

/// How content is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) length: u64,
    /// Length of every chunk but the last.
    pub(super) unit: u64,
}

impl Layout {
    /// As the row of `fs.files` says; `None` if it cannot be about content of ours.
    pub(super) fn of(file: &ContentFile) -> Option<Layout> {
        let layout = Layout { length: file.length?, unit: file.chunk_bytes? };
        let is_possible = layout.length <= ATTACHMENT_BYTES_MAX
            && (1..=CHUNK_BYTES_MAX).contains(&layout.unit)
            && layout.parts() <= PARTS_MAX;
        is_possible.then_some(layout)
    }

    /// How many chunks there are.
    pub(super) fn parts(self) -> u64 {
        self.length.div_ceil(self.unit)
    }

    pub(super) fn part_length(self, number: u64) -> u64 {
        self.length.saturating_sub(number.saturating_mul(self.unit)).min(self.unit)
    }
}

/// What the bytes of content here come to.
pub(super) struct Sum {
    pub(super) length: u64,
    /// They are what their name says.
    pub(super) is_sound: bool,
    /// The first [`DIGEST_BYTES`] of the SHA-256 of every part.
    pub(super) digests: Vec<u8>,
}

/// One round's exchange of attachments.
pub(super) struct Lane<'a> {
    pub(super) store: &'a Store,
    /// The node's id, and the number of the round.
    pub(super) node: String,
    pub(super) number: i64,
    pub(super) budget: Budget,
    pub(super) batch_chunks: u64,
    /// Names that are not tried again in this round.
    pub(super) passed: BTreeSet<String>,
    /// Wanted content that the centre does not have.
    pub(super) absent: u64,
    /// What did not work, for people.
    pub(super) trouble: Option<String>,
}

impl Round<'_> {
    /// Exchanges attachments, as many bytes of them as the round is allowed. Fails only if the line is cut
    /// or the centre takes nothing from anybody now: anything else that goes wrong is said in the message and no reason to call the round incomplete.
    pub(crate) async fn content(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let allowance = Some(self.allowance.content_bytes).filter(|bytes| *bytes < u64::MAX);
        let snapshot = self.store.read()?;
        let (node, number) = (lease::node_id(&snapshot)?.unwrap_or_default(), lease::rounds(&snapshot)?);
        drop(snapshot);
        let deadline = self.started + self.settings.round_timeout * TIME_TENTHS_MAX / 10;
        let mut lane = Lane {
            store: self.store,
            node,
            number,
            budget: Budget::new(allowance, deadline),
            batch_chunks: BATCH_CHUNKS_START,
            passed: BTreeSet::new(),
            absent: 0,
            trouble: None,
        };
        // Cut in the middle of an exchange it is where the next round goes on.
        let result = tokio::time::timeout_at(deadline, lane.run(central)).await.unwrap_or(Ok(()));
        match result {
            Ok(()) => {}
            Err(RoundError::Central(error @ CentralError::Offline(_)))
                if !error.is_answer() || error.is_of_centre() =>
            {
                return Err(error.into());
            }
            Err(RoundError::Central(error)) => lane.note_trouble(&error.told()),
            Err(error) => lane.note_trouble(&error.to_string()),
        }
        self.content_note = lane.note()?;
        self.is_large_waiting |= allowance == Some(0) && !self.content_note.is_empty();
        Ok(())
    }
}

impl Lane<'_> {
    async fn run(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        self.queue().await?;
        if self.budget.affordable(1, 1) == 0 {
            return Ok(());
        }
        self.look_again(central).await?;
        let snapshot = self.store.read()?;
        let (owed, wanted) = (snapshot.content_owed_count()?, snapshot.content_wanted_count()?);
        let is_any_here = snapshot.has_any_content()?;
        drop(snapshot);
        if is_any_here && (owed > 0 || wanted > 0 || self.number % MARKS_EVERY_ROUNDS == 0) {
            self.mend(central).await?;
        }
        // What only this node has goes first, but not for ever.
        if wanted > 0 {
            self.budget.reserved = self.budget.left.unwrap_or(0) / 2;
        }
        let is_all_sent = self.send(central).await?;
        self.budget.reserved = 0;
        self.fetch(central).await?;
        if !is_all_sent && self.budget.affordable(1, 1) > 0 {
            self.send(central).await?;
        }
        self.tidy(central).await
    }

    pub(super) fn note_trouble(&mut self, cause: &str) {
        tracing::warn!(%cause, "attachments are not exchanged completely");
        self.trouble.get_or_insert_with(|| cause.to_owned());
    }

    /// One content that cannot be exchanged does not hold up the others.
    pub(super) fn pass_over(
        &mut self,
        sha256: &str,
        result: Result<(), RoundError>,
    ) -> Result<(), RoundError> {
        match result {
            Err(RoundError::Central(error)) if error.is_about_call() && !error.is_of_centre() => {
                self.passed.insert(sha256.to_owned());
                self.note_trouble(&error.told());
                Ok(())
            }
            result => result,
        }
    }

    /// Notes what a batch has cost, and follows the link with the number of chunks that travel together.
    pub(super) fn note_batch(&mut self, elapsed: Duration, bytes: u64) {
        self.budget.spend(bytes);
        self.budget.speed = Some(bytes as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
        if elapsed > BATCH_SLOW {
            self.batch_chunks = (self.batch_chunks / 2).max(1);
        } else if elapsed < BATCH_FAST {
            self.batch_chunks = (self.batch_chunks * 2).min(BATCH_CHUNKS_MAX);
        }
    }

    /// Reads and hashes the bytes of content that are here, in parts of `part_bytes`.
    pub(super) async fn sum(&self, sha256: &str, part_bytes: u64) -> Result<Sum, StoreError> {
        let (store, sha256) = (self.store.clone(), sha256.to_owned());
        let summing = tokio::task::spawn_blocking(move || sum_up(&store, &sha256, part_bytes.max(1)));
        summing.await.map_err(|error| StoreError::Failed(error.to_string()))?
    }

    /// What is still to come, for people; empty if nothing is.
    fn note(&self) -> Result<String, StoreError> {
        let snapshot = self.store.read()?;
        let (owed, wanted) = (snapshot.content_owed_left()?, snapshot.content_wanted_left()?);
        drop(snapshot);
        let mut note = String::new();
        let left = |left: ContentsLeft, what: &str| {
            (left.count > 0).then(|| format!("{} {what} ({})", left.count, bytes_text(left.bytes)))
        };
        let parts: Vec<String> =
            [left(owed, "to send"), left(wanted, "to fetch")].into_iter().flatten().collect();
        if !parts.is_empty() {
            note.push_str(&format!(" Attachments still to come: {}.", parts.join(", ")));
        }
        if self.absent > 0 {
            note.push_str(&format!(" {} of them have not reached the centre yet.", self.absent));
        }
        if let Some(trouble) = &self.trouble {
            note.push_str(&format!(" Attachments are not exchanged completely: {trouble}."));
        }
        Ok(note)
    }
}

fn sum_up(store: &Store, sha256: &str, part_bytes: u64) -> Result<Sum, StoreError> {
    let (mut whole, mut part) = (Sha256::new(), Sha256::new());
    let mut sum = Sum { length: 0, is_sound: false, digests: Vec::new() };
    let mut left = part_bytes;
    for number in 0.. {
        // Each chunk through a view of its own: bytes under a name do not change, and no page waits for us.
        let Some(chunk) = store.read()?.content_chunk(sha256, number)? else {
            break;
        };
        sum.length += chunk.len() as u64;
        whole.update(&chunk);
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            part.update(now);
            left -= now.len() as u64;
            if left == 0 {
                let digest = part.finalize_reset();
                // Parts as small as the centre says, of content that may be longer than it says.
                if sum.digests.len() < PARTS_MAX as usize * DIGEST_BYTES {
                    sum.digests.extend_from_slice(&digest[..DIGEST_BYTES]);
                }
                left = part_bytes;
            }
            rest = later;
        }
    }
    if left < part_bytes {
        sum.digests.extend_from_slice(&part.finalize()[..DIGEST_BYTES]);
    }
    sum.is_sound = hex::encode(whole.finalize()) == sha256;
    Ok(sum)
}

fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} KB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_length() {
        for (length, unit, expected) in
            [(0, 4, vec![]), (1, 4, vec![1]), (4, 4, vec![4]), (5, 4, vec![4, 1]), (12, 4, vec![4, 4, 4])]
        {
            let layout = Layout { length, unit };
            let lengths: Vec<u64> = (0..layout.parts()).map(|number| layout.part_length(number)).collect();
            assert_eq!(lengths, expected, "{length}");
            assert_eq!(layout.part_length(u64::MAX), 0);
        }
    }

    #[test]
    fn a_row_that_makes_no_sense_has_no_layout() {
        let file = |length, chunk_bytes| ContentFile {
            sha256: String::new(),
            length,
            chunk_bytes,
            is_marked: false,
        };
        for (length, unit) in [(9, 4), (0, 1), (PARTS_MAX, 1), (1 << 30, 1 << 14), (9, CHUNK_BYTES_MAX)] {
            assert_eq!(Layout::of(&file(Some(length), Some(unit))), Some(Layout { length, unit }));
        }
        for (length, chunk_bytes) in [
            (None, Some(4)),
            (Some(9), None),
            (Some(9), Some(0)),
            (Some(1 << 40), Some(4)),
            (Some(9), Some(1 << 40)),
            (Some(9), Some(CHUNK_BYTES_MAX + 1)),
            (Some(1 << 30), Some(1)),
            (Some(PARTS_MAX + 1), Some(1)),
            (Some(1 << 30), Some((1 << 14) - 1)),
        ] {
            assert_eq!(Layout::of(&file(length, chunk_bytes)), None);
        }
    }

    #[tokio::test]
    async fn an_allowance_is_kept_but_leads_somewhere() {
        let later = Instant::now() + Duration::from_secs(60);
        let mut budget = Budget::new(Some(100), later);
        assert_eq!(
            (budget.affordable(30, 16), budget.affordable(30, 2), budget.affordable(101, 16)),
            (3, 2, 1)
        );
        budget.spend(60);
        assert_eq!((budget.affordable(30, 16), budget.affordable(101, 16)), (1, 0));
        budget.reserved = 20;
        assert_eq!(budget.affordable(30, 16), 0);
        budget.spend(60);
        budget.reserved = 0;
        assert_eq!(budget.affordable(1, 16), 0);
        let mut budget = Budget::new(None, later);
        // Sixty seconds less some, four fifths of which are reckoned with.
        budget.speed = Some(10.0);
        assert_eq!(
            (budget.affordable(100, 16), budget.affordable(100, 2), budget.affordable(700, 2)),
            (4, 2, 0)
        );
        budget.speed = Some(f64::INFINITY);
        assert_eq!(budget.affordable(100, 16), 16);
        assert_eq!(Budget::new(Some(0), later).affordable(1, 16), 0);
        assert_eq!(Budget::new(None, later).affordable(1 << 40, 16), 16);
        assert_eq!(Budget::new(None, Instant::now()).affordable(1, 16), 0);
    }

    #[test]
    fn amounts_read_well() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (64_000, "64 KB"),
            (1_049_999, "1.0 MB"),
            (12_300_000, "12.3 MB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
