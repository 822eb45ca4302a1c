//! Floor 3. CONTENT: what records here name and the centre has, to this node.
//!
//! Chunks are kept in order as they come, 64 KiB each however the centre cuts them, and hashed when all are
//! here; not one byte is served before that.

use super::content::{ASK_NAMES_MAX, Lane, Layout, RETRY_AFTER_ROUNDS};
use super::round::RoundError;
use super::step;
use crate::central::Central;
use crate::central::content::{ContentFile, ContentMark, DIGEST_UNSEEN, DIGEST_WRONG};
use crate::domain::content::CONTENT_CHUNK_BYTES;
use crate::store::{StoreError, WantedContent};

/// Names that the centre turns out not to have, after which a round asks about no more: somebody may be off
/// line for long with what they are to send, and each name costs as much as a small edit.
const ABSENT_MAX: u64 = ASK_NAMES_MAX as u64;
const CHUNK: u64 = CONTENT_CHUNK_BYTES as u64;

/// A number of the centre's, for people.
fn shown(number: Option<u64>) -> String {
    number.map_or_else(|| "none".to_owned(), |number| number.to_string())
}

/// The wanted contents in the order in which this round asks about them: each comes to be the first. No position is kept
/// for that, because the number of the round goes round by itself. There may be very many, so only those of one question are
/// in memory.
struct WantedTurn {
    /// The last name of the question before.
    after: String,
    /// Where the turn began, and is over once it comes there again from the first name on.
    first: String,
    has_begun_anew: bool,
}

impl WantedTurn {
    fn of(lane: &Lane<'_>) -> Result<WantedTurn, StoreError> {
        let snapshot = lane.store.read()?;
        let count = usize::try_from(snapshot.content_wanted_count()?).unwrap_or(usize::MAX);
        let turns = count.div_ceil(ASK_NAMES_MAX).max(1);
        let turn = usize::try_from(lane.number).unwrap_or_default() % turns;
        let after = match (turn * ASK_NAMES_MAX).checked_sub(1) {
            Some(last) => snapshot.content_wanted_at(last)?.unwrap_or_default(),
            None => String::new(),
        };
        Ok(WantedTurn { first: after.clone(), after, has_begun_anew: false })
    }

    /// The names of the next question, as they are wanted now; none when the turn is over.
    fn next(&mut self, lane: &Lane<'_>) -> Result<Vec<WantedContent>, StoreError> {
        let snapshot = lane.store.read()?;
        let mut names = snapshot.content_wanted(&self.after, ASK_NAMES_MAX)?;
        if names.is_empty() && !self.has_begun_anew {
            self.has_begun_anew = true;
            names = snapshot.content_wanted("", ASK_NAMES_MAX)?;
        }
        if self.has_begun_anew {
            names.retain(|wanted| wanted.sha256 <= self.first);
        }
        if let Some(last) = names.last() {
            self.after.clone_from(&last.sha256);
        }
        Ok(names)
    }
}

impl Lane<'_> {
    pub(super) async fn fetch(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let mut turn = WantedTurn::of(self)?;
        loop {
            let names = turn.next(self)?;
            let is_disk_short = self.store.shortage().is_some();
            let is_over = names.is_empty() || self.absent >= ABSENT_MAX;
            if is_over || is_disk_short || self.budget.affordable(1, 1) == 0 {
                return Ok(());
            }
            let asked: Vec<String> = names.iter().map(|wanted| wanted.sha256.clone()).collect();
            let files = central.content_files(&asked).await?;
            self.absent += (names.len() - files.len()) as u64;
            for wanted in &names {
                let Some(file) = files.iter().find(|file| file.sha256 == wanted.sha256) else {
                    continue;
                };
                if self.is_worth_a_try(wanted, file).await? {
                    let fetched = self.fetch_one(central, file).await;
                    self.pass_over(&wanted.sha256, fetched)?;
                }
            }
        }
    }

    /// Marked content is fetched once its mark is gone, or after a long time.
    async fn is_worth_a_try(&self, wanted: &WantedContent, file: &ContentFile) -> Result<bool, StoreError> {
        let failed_at = wanted.failed_at;
        let is_long_ago = self.number < failed_at || self.number >= failed_at + RETRY_AFTER_ROUNDS;
        if !file.is_marked || failed_at > 0 && is_long_ago {
            return Ok(true);
        }
        if failed_at == 0 {
            self.note_failed(&wanted.sha256, false).await?;
        }
        Ok(false)
    }

    async fn note_failed(&self, sha256: &str, with_chunks: bool) -> Result<(), StoreError> {
        let (sha256, number) = (sha256.to_owned(), self.number);
        self.store.transact(move |tx| tx.content_failed(&sha256, number, with_chunks)).await
    }

    async fn fetch_one(&mut self, central: &mut dyn Central, file: &ContentFile) -> Result<(), RoundError> {
        let sha256 = file.sha256.as_str();
        let Some(layout) = Layout::of(file) else {
            self.note_trouble(&format!(
                "the centre's bytes of one are not what they should be: the row of fs.files {sha256} says what cannot be \
                 (length {}, chunkSize {})",
                shown(file.length),
                shown(file.chunk_bytes)
            ));
            self.note_failed(sha256, true).await?;
            return self.mark(central, sha256, Vec::new()).await;
        };
        let here = u64::from(self.store.read()?.content_chunks_here(sha256)?);
        // The row has changed since the chunks that are here were fetched.
        if here > layout.length.div_ceil(CHUNK) {
            self.note_failed(sha256, true).await?;
            return self.mark(central, sha256, Vec::new()).await;
        }
        if here == 0 && !self.is_whole_there(central, sha256, layout).await? {
            return Ok(());
        }
        if self.fetch_chunks(central, sha256, layout, here).await? {
            self.take(central, sha256, layout).await?;
        }
        Ok(())
    }

    /// Whether the centre has all chunks, as long as they must be: their lengths cost little to know.
    async fn is_whole_there(
        &mut self,
        central: &mut dyn Central,
        sha256: &str,
        layout: Layout,
    ) -> Result<bool, RoundError> {
        let lengths = central.content_chunk_lengths(sha256).await?;
        let mut is_whole = true;
        let mut seen = Vec::new();
        for number in 0..layout.parts() {
            let due = layout.part_length(number);
            let is_right = lengths.get(&number) == Some(&Some(due));
            seen.extend_from_slice(if is_right { &DIGEST_UNSEEN } else { &DIGEST_WRONG });
            is_whole &= is_right;
        }
        if !is_whole {
            self.note_failed(sha256, false).await?;
            self.mark(central, sha256, seen).await?;
        }
        Ok(is_whole)
    }

    /// Goes on fetching after the chunks that are here; true once all are.
    async fn fetch_chunks(
        &mut self,
        central: &mut dyn Central,
        sha256: &str,
        layout: Layout,
        mut here: u64,
    ) -> Result<bool, RoundError> {
        let Layout { length, unit } = layout;
        // What has come and does not fill a chunk of ours.
        let mut rest: Vec<u8> = Vec::new();
        while here * CHUNK + (rest.len() as u64) < length {
            let at = here * CHUNK + rest.len() as u64;
            let (first, skipped) = (at / unit, at % unit);
            // At least what fills the next chunk of ours: less would come for nothing.
            let needed = ((here + 1) * CHUNK).min(length).div_ceil(unit) - first;
            let most = (self.batch_chunks * CHUNK / unit).max(needed).min(layout.parts() - first);
            let count = self.budget.affordable(unit.min(length), most).max(needed);
            if self.store.shortage().is_some() || self.budget.affordable(count * unit.min(length), 1) == 0 {
                return Ok(false);
            }
            let started = tokio::time::Instant::now();
            let chunks = central.content_chunks(sha256, first, count).await?;
            let bytes = chunks.iter().map(|(_, chunk)| chunk.len() as u64).sum();
            self.note_batch(started.elapsed(), bytes);
            step("content.received");
            for (due, number) in (first..first + count).enumerate() {
                let chunk = chunks.get(due).filter(|(found, _)| *found == number);
                let Some((_, chunk)) =
                    chunk.filter(|(_, chunk)| chunk.len() as u64 == layout.part_length(number))
                else {
                    // It was there a moment ago, or when the earlier ones were fetched.
                    self.passed.insert(sha256.to_owned());
                    let whole = self.is_whole_there(central, sha256, layout).await?;
                    tracing::warn!(whole, "a chunk of an attachment is not what it was");
                    return Ok(false);
                };
                let skipped = if due == 0 { usize::try_from(skipped).unwrap_or(usize::MAX) } else { 0 };
                rest.extend_from_slice(chunk.get(skipped..).unwrap_or_default());
            }
            let is_end = here * CHUNK + rest.len() as u64 == length;
            let full =
                if is_end { rest.len() } else { rest.len() / CONTENT_CHUNK_BYTES * CONTENT_CHUNK_BYTES };
            let kept: Vec<u8> = rest.drain(..full).collect();
            if !kept.is_empty() && !self.keep(sha256, here, kept).await? {
                return Ok(false);
            }
            here += (full as u64).div_ceil(CHUNK);
        }
        Ok(true)
    }

    /// False if the content is not wanted any more.
    async fn keep(&self, sha256: &str, first: u64, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let sha256 = sha256.to_owned();
        let first = u32::try_from(first).map_err(|_| StoreError::Unstorable("too many chunks".into()))?;
        let is_kept = self.store.transact(move |tx| tx.keep_chunks(&sha256, first, &bytes)).await?;
        step("content.chunks_kept");
        Ok(is_kept)
    }

    /// All chunks are here: they are the content, or they are thrown away.
    async fn take(
        &mut self,
        central: &mut dyn Central,
        sha256: &str,
        layout: Layout,
    ) -> Result<(), RoundError> {
        let sum = self.sum(sha256, layout.unit).await?;
        if sum.is_sound {
            let name = sha256.to_owned();
            self.store.transact(move |tx| tx.content_arrived(&name)).await?;
            step("content.arrived");
            return Ok(());
        }
        self.note_failed(sha256, true).await?;
        step("content.thrown_away");
        self.mark(central, sha256, sum.digests).await
    }

    /// Tells whoever holds the right bytes, unless somebody has told already.
    async fn mark(
        &mut self,
        central: &mut dyn Central,
        sha256: &str,
        seen: Vec<u8>,
    ) -> Result<(), RoundError> {
        self.note_trouble("the centre's bytes of one are not what they should be");
        let mark = ContentMark { node: self.node.clone(), seen };
        central.mark_content(sha256, None, Some(&mark), None).await?;
        step("content.marked");
        Ok(())
    }
}
