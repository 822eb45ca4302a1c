//! Floor 3. How many documents a scan asks for at a time, so that a round receives about as much as it may.

/// What a document is taken to have before one of its kind was read in this round: with 64 KiB left to read, the smallest
/// limit, a kind begins with one document.
const UNSEEN_DOCUMENT_BYTES: u64 = 64 << 10;

/// What the documents of one kind take on the line, as far as a round has read them. A round learns what a batch takes once
/// it is here, so each batch is of no more documents than would use up what the round may still read.
#[derive(Default)]
pub(super) struct Sizes {
    /// Bytes of one document in the batch whose documents were the largest, with the look at their people.
    per_document: Option<u64>,
    /// Documents in the batch before, and what the scan had received when it was asked for.
    documents: usize,
    received: u64,
}

impl Sizes {
    /// How many documents to ask for next, after the scan has `received` so many bytes, and may receive `left` more: a power
    /// of two, as the cursor wants it, and at most twice as many as before.
    pub(super) fn next(&mut self, received: u64, left: u64) -> usize {
        let before = std::mem::replace(&mut self.received, received);
        let documents = u64::try_from(self.documents).unwrap_or(u64::MAX);
        if let Some(bytes) = (received - before).checked_div(documents) {
            self.per_document = self.per_document.max(Some(bytes));
        }
        let fitting = left / self.per_document.unwrap_or(UNSEEN_DOCUMENT_BYTES).max(1);
        let growing = match self.per_document {
            Some(_) => documents.saturating_mul(2),
            None => u64::MAX,
        };
        let documents = fitting.min(growing).max(1);
        usize::try_from(1_u64 << documents.ilog2()).unwrap_or(usize::MAX)
    }

    /// The batch that was asked for had so many documents.
    pub(super) fn note_batch(&mut self, documents: usize) {
        self.documents = documents;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads documents of these sizes with so many bytes allowed; returns what was received.
    fn read(sizes: impl IntoIterator<Item = u64>, limit: u64) -> u64 {
        let (mut seen, mut received, mut sizes) = (Sizes::default(), 0, sizes.into_iter());
        while received < limit {
            let max = seen.next(received, limit - received);
            let batch: Vec<u64> = sizes.by_ref().take(max.min(512)).collect();
            if batch.is_empty() {
                break;
            }
            seen.note_batch(batch.len());
            received += batch.iter().sum::<u64>();
        }
        received
    }

    #[test]
    fn a_round_receives_at_most_one_document_more_than_it_may() {
        for size in [1, 200, 4_200, 20_000, 65_536] {
            for limit in [65_536, 1 << 20, 64 << 20] {
                let received = read(std::iter::repeat(size), limit);
                assert!((limit..limit + size).contains(&received), "{size} {limit}: {received}");
            }
        }
        assert_eq!(read(std::iter::repeat(3_000_000), 65_536), 3_000_000);
        // Where later ones are larger: the first batch in which they come, of twice as many as before.
        let growing = std::iter::repeat_n(500, 7).chain(std::iter::repeat(20_000));
        assert!(read(growing, 65_536) <= 65_536 + 8 * 20_000);
    }
}
