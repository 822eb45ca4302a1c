//! Floor 3. CONTENT: bytes at the centre that are not what their name says, put right by who has them.

use super::content::{Lane, Layout, Sum};
use super::round::RoundError;
use super::step;
use crate::central::Central;
use crate::central::content::{ContentFile, ContentMark, DIGEST_BYTES, DIGEST_UNSEEN};
use crate::domain::content::CONTENT_CHUNK_BYTES;
use crate::store::StoreError;

/// Marks that a round looks at; more than that are no accident.
const MARKS_MAX: usize = 1000;
const CHUNK: u64 = CONTENT_CHUNK_BYTES as u64;

impl Lane<'_> {
    /// Looks for marks on content that is here, and makes the centre's bytes what they should be.
    pub(super) async fn mend(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        for sha256 in central.marked_contents(MARKS_MAX).await? {
            if !self.store.read()?.has_content(&sha256)? {
                continue;
            }
            let mended = self.mend_one(central, &sha256).await;
            self.pass_over(&sha256, mended)?;
        }
        Ok(())
    }

    async fn mend_one(&mut self, central: &mut dyn Central, sha256: &str) -> Result<(), RoundError> {
        let Some(mark) = central.content_mark(sha256).await? else {
            return Ok(());
        };
        let Some(file) = central.content_files(&[sha256.to_owned()]).await?.pop() else {
            return Ok(());
        };
        let Some((layout, mark, sum)) = self.mend_row(central, &file, mark).await? else {
            return Ok(());
        };
        let mut seen = mark.seen.clone();
        seen.resize(sum.digests.len(), 0);
        let mut is_whole = true;
        let digests = sum.digests.chunks(DIGEST_BYTES);
        for (number, (theirs, own)) in (0..).zip(seen.chunks_mut(DIGEST_BYTES).zip(digests)) {
            if theirs == own || theirs == DIGEST_UNSEEN {
                continue;
            }
            if self.budget.affordable(layout.unit, 1) == 0 {
                is_whole = false;
                break;
            }
            let right = self.part(sha256, layout, number)?;
            if self.mend_chunk(central, sha256, number, &right).await? {
                theirs.copy_from_slice(own);
            } else {
                is_whole = false;
            }
        }
        // What is left to do stays noted: the next round, or another node, goes on there.
        let rest = ContentMark { node: mark.node.clone(), seen };
        if is_whole {
            central.mark_content(sha256, Some(&mark), None, None).await?;
        } else if rest != mark {
            central.mark_content(sha256, Some(&mark), Some(&rest), None).await?;
        }
        step("content.mended");
        Ok(())
    }

    /// Makes the row of `fs.files` say how long the content is, if it does not; returns how its chunks are
    /// to be cut, the mark as it is then, and what the own bytes come to. `None`: nothing can be done.
    async fn mend_row(
        &mut self,
        central: &mut dyn Central,
        file: &ContentFile,
        mark: ContentMark,
    ) -> Result<Option<(Layout, ContentMark, Sum)>, RoundError> {
        let sha256 = file.sha256.as_str();
        // Only a row that is about as much as is here is worth a look at its chunks.
        let here = u64::from(self.store.read()?.content_chunks_here(sha256)?);
        let layout = Layout::of(file).filter(|layout| layout.length.div_ceil(CHUNK) == here);
        let sum = self.sum(sha256, layout.map_or(CHUNK, |layout| layout.unit)).await?;
        if !sum.is_sound {
            self.note_trouble("the bytes of one here are damaged, and so are the centre's");
            return Ok(None);
        }
        if let Some(layout) = layout.filter(|layout| layout.length == sum.length) {
            return Ok(Some((layout, mark, sum)));
        }
        // Whatever was seen was seen as something else.
        let anew = ContentMark { node: mark.node.clone(), seen: Vec::new() };
        if !central.mark_content(sha256, Some(&mark), Some(&anew), Some(sum.length)).await? {
            return Ok(None);
        }
        let sum = self.sum(sha256, CHUNK).await?;
        Ok(Some((Layout { length: sum.length, unit: CHUNK }, anew, sum)))
    }

    /// Makes one chunk at the centre what it should be; false if somebody else was at it.
    pub(super) async fn mend_chunk(
        &mut self,
        central: &mut dyn Central,
        sha256: &str,
        number: u64,
        right: &[u8],
    ) -> Result<bool, RoundError> {
        let found = central.content_chunks(sha256, number, 1).await?.pop().map(|(_, bytes)| bytes);
        let bytes = found.as_ref().map_or(0, Vec::len) + right.len();
        self.budget.spend(bytes as u64);
        if found.as_deref() == Some(right) {
            return Ok(true);
        }
        let is_replaced = central.replace_content_chunk(sha256, number, found.as_deref(), right).await?;
        if !is_replaced && found.is_none() {
            central.add_content_chunks(sha256, &[(number, right.to_vec())]).await?;
        }
        step("content.chunk_mended");
        Ok(is_replaced || found.is_none())
    }

    /// A part of the content here, as the centre cuts it.
    fn part(&self, sha256: &str, layout: Layout, number: u64) -> Result<Vec<u8>, StoreError> {
        let begin = number * layout.unit;
        let end = begin + layout.part_length(number);
        let mut part = Vec::new();
        let mut at = begin;
        while at < end {
            let chunk = self.chunk(sha256, at / CHUNK)?;
            let from = usize::try_from(at % CHUNK).unwrap_or(usize::MAX);
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = chunk.get(from..).unwrap_or_default();
            let piece = &piece[..piece.len().min(most)];
            if piece.is_empty() {
                return Err(StoreError::Damaged("a chunk of an attachment is too short".into()));
            }
            part.extend_from_slice(piece);
            at += piece.len() as u64;
        }
        Ok(part)
    }
}
