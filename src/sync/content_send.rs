//! Floor 3. CONTENT: what only this node is known to have, to the centre.
//!
//! A chunk that is there is not sent again, whoever sent it. The row that says that all are there comes
//! last, after their numbers and lengths have been compared.

use std::collections::BTreeMap;

use super::content::{ASK_NAMES_MAX, Lane, Layout};
use super::round::RoundError;
use super::step;
use crate::central::Central;
use crate::central::content::NewContentFile;
use crate::domain::content::CONTENT_CHUNK_BYTES;
use crate::store::{OwedContent, StoreError};

const CHUNK: u64 = CONTENT_CHUNK_BYTES as u64;

impl Lane<'_> {
    /// Sends what the centre lacks; false if the allowance was used up before the end.
    pub(super) async fn send(&mut self, central: &mut dyn Central) -> Result<bool, RoundError> {
        let mut after = String::new();
        loop {
            let snapshot = self.store.read()?;
            let mut owed = snapshot.content_owed(&after, ASK_NAMES_MAX)?;
            let Some(last) = owed.last() else {
                return Ok(true);
            };
            after.clone_from(&last.sha256);
            // Attachments follow their documents: what no document at the centre names is not for it.
            let mut due = Vec::new();
            for content in owed.drain(..) {
                if !self.passed.contains(&content.sha256) && snapshot.is_content_agreed(&content.sha256)? {
                    due.push(content);
                }
            }
            drop(snapshot);
            if self.budget.affordable(CHUNK, 1) == 0 {
                return Ok(false);
            }
            for content in self.settle_known(central, due).await? {
                if self.budget.affordable(CHUNK, 1) == 0 {
                    return Ok(false);
                }
                let sent = self.send_one(central, &content).await;
                self.pass_over(&content.sha256, sent)?;
            }
        }
    }

    /// Settles what the centre has already, whoever sent it; returns the others.
    async fn settle_known(
        &mut self,
        central: &mut dyn Central,
        due: Vec<OwedContent>,
    ) -> Result<Vec<OwedContent>, RoundError> {
        let names: Vec<String> = due.iter().map(|content| content.sha256.clone()).collect();
        let known: Vec<String> =
            central.content_files(&names).await?.into_iter().map(|file| file.sha256).collect();
        let absent = due.into_iter().filter(|content| !known.contains(&content.sha256)).collect();
        if !known.is_empty() {
            self.settle_content(known).await?;
        }
        Ok(absent)
    }

    async fn settle_content(&self, names: Vec<String>) -> Result<(), StoreError> {
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                names.iter().try_for_each(|sha256| tx.content_settled(sha256))
            })
            .await?;
        step("content.settled");
        Ok(())
    }

    async fn send_one(&mut self, central: &mut dyn Central, owed: &OwedContent) -> Result<(), RoundError> {
        let sha256 = owed.sha256.as_str();
        let sum = self.sum(sha256, CHUNK).await?;
        if !sum.is_sound {
            self.passed.insert(sha256.to_owned());
            self.note_trouble("the bytes of one here are damaged, and are not sent");
            return Ok(());
        }
        let layout = Layout { length: sum.length, unit: CHUNK };
        let mut there = central.content_chunk_lengths(sha256).await?;
        let missing: Vec<u64> = (0..layout.parts()).filter(|number| !there.contains_key(number)).collect();
        if !missing.is_empty() {
            if !self.send_chunks(central, sha256, &missing).await? {
                return Ok(());
            }
            there = central.content_chunk_lengths(sha256).await?;
        }
        if !self.make_fit(central, sha256, layout, &there).await? {
            return Ok(());
        }
        let file = NewContentFile {
            sha256: sha256.to_owned(),
            length: sum.length,
            media_type: owed.media_type.clone(),
            uploaded_at_ms: self.store.now_ms(),
        };
        central.add_content_file(&file).await?;
        step("content.file_added");
        self.settle_content(vec![file.sha256]).await?;
        Ok(())
    }

    /// False if the allowance was used up before the end.
    async fn send_chunks(
        &mut self,
        central: &mut dyn Central,
        sha256: &str,
        numbers: &[u64],
    ) -> Result<bool, RoundError> {
        let mut rest = numbers;
        while !rest.is_empty() {
            let now = self.budget.affordable(CHUNK, self.batch_chunks.min(rest.len() as u64));
            if now == 0 {
                return Ok(false);
            }
            let (batch, later) = rest.split_at(usize::try_from(now).unwrap_or(usize::MAX).min(rest.len()));
            let mut chunks = Vec::with_capacity(batch.len());
            for number in batch {
                chunks.push((*number, self.chunk(sha256, *number)?));
            }
            let started = tokio::time::Instant::now();
            central.add_content_chunks(sha256, &chunks).await?;
            let bytes = chunks.iter().map(|(_, chunk)| chunk.len() as u64).sum();
            self.note_batch(started.elapsed(), bytes);
            step("content.chunks_sent");
            rest = later;
        }
        Ok(true)
    }

    /// Whether the chunks at the centre are as many and as long as they must be. One of another length is
    /// replaced; what has no place in the content is not for a node to remove.
    async fn make_fit(
        &mut self,
        central: &mut dyn Central,
        sha256: &str,
        layout: Layout,
        there: &BTreeMap<u64, Option<u64>>,
    ) -> Result<bool, RoundError> {
        for number in 0..layout.parts() {
            if there.get(&number) == Some(&Some(layout.part_length(number))) {
                continue;
            }
            let right = self.chunk(sha256, number)?;
            if self.budget.affordable(CHUNK, 1) == 0
                || !self.mend_chunk(central, sha256, number, &right).await?
            {
                return Ok(false);
            }
        }
        if there.keys().any(|number| *number >= layout.parts()) {
            self.passed.insert(sha256.to_owned());
            self.note_trouble("the centre has chunks of one that do not belong to it");
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn chunk(&self, sha256: &str, number: u64) -> Result<Vec<u8>, StoreError> {
        let missing = || StoreError::Damaged("a chunk of an attachment is missing".into());
        let number = u32::try_from(number).map_err(|_| missing())?;
        self.store.read()?.content_chunk(sha256, number)?.ok_or_else(missing)
    }
}
