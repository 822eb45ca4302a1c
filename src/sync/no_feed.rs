//! Floor 3. A centre that has no change feed: a standalone server, or another engine that speaks MongoDB's protocol. Each
//! round has to read everything there, which is a plain state and said wherever people look.

use bson::{Document, doc};

use super::SyncSettings;
use crate::store::{Snapshot, StoreError, Tx};

/// Exists while the centre is known to have no feed. `bytes`: what was received while everything was read last; `so_far`:
/// what was received since then by rounds that did not come to the end.
const META_NO_FEED: &str = "no_feed";
/// What people are told first.
pub(super) const WORDS: &str = "This centre has no change feed: every round reads everything";
const MB: u64 = 1_000_000;
/// Part of a day's budget that looking through records may use.
const BUDGET_SHARE: (u64, u64) = (3, 4);

/// What is known of such a centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoFeed {
    /// Bytes that reading everything took last; 0 before it was done once.
    bytes: u64,
    so_far: u64,
}

impl NoFeed {
    /// Nothing at a centre that has a feed, or that was never reached.
    pub(crate) fn known(snapshot: &Snapshot) -> Result<Option<NoFeed>, StoreError> {
        Ok(snapshot.meta(META_NO_FEED)?.as_ref().map(NoFeed::decode))
    }

    fn decode(row: &Document) -> NoFeed {
        let number = |field| row.get_i64(field).ok().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        NoFeed { bytes: number("bytes"), so_far: number("so_far") }
    }

    /// As it is once so much more was received, to the end of everything or not.
    fn after(self, received: u64, is_end: bool) -> NoFeed {
        let read = self.so_far.saturating_add(received);
        match is_end {
            true => NoFeed { bytes: read, so_far: 0 },
            false => NoFeed { so_far: read, ..self },
        }
    }

    /// Bytes that reading everything took last, if it was done and they were counted.
    pub(crate) fn bytes(self) -> Option<u64> {
        (self.bytes > 0).then_some(self.bytes)
    }

    /// For people.
    pub(crate) fn words(self, settings: &SyncSettings) -> String {
        let mut words = WORDS.to_owned();
        match self.bytes() {
            None => words.push('.'),
            Some(bytes) if bytes < MB => words.push_str(", less than 1 MB."),
            Some(bytes) => words.push_str(&format!(", about {} MB.", (bytes + MB / 2) / MB)),
        }
        if let (Some(bytes), budget @ 1..) = (self.bytes(), settings.budget_bytes_per_day) {
            let rounds = budget / BUDGET_SHARE.1 * BUDGET_SHARE.0 / bytes;
            let budget = budget as f64 / MB as f64;
            words.push_str(&match rounds {
                0 => format!(" The budget of {budget:.0} MB a day is not enough for one."),
                rounds => format!(" The budget of {budget:.0} MB a day is enough for {rounds} of them."),
            });
        }
        if settings.continuous {
            words.push_str(" `continuous` does nothing here, because it needs a change feed.");
        }
        words
    }
}

/// Notes whether the centre has a feed.
pub(crate) fn note(tx: &mut Tx<'_>, has_feed: bool) -> Result<(), StoreError> {
    match (has_feed, tx.meta(META_NO_FEED)?.is_some()) {
        (true, true) => tx.set_meta(META_NO_FEED, None),
        (false, false) => tx.set_meta(META_NO_FEED, Some(&doc! {"bytes": 0_i64, "so_far": 0_i64})),
        (true, false) | (false, true) => Ok(()),
    }
}

/// Counts what a round has received while it read everything, or the next part of it.
pub(crate) fn count(tx: &mut Tx<'_>, received: u64, is_end: bool) -> Result<(), StoreError> {
    let Some(known) = tx.meta(META_NO_FEED)?.as_ref().map(NoFeed::decode) else {
        return Ok(());
    };
    let counted = known.after(received, is_end);
    if counted == known {
        return Ok(());
    }
    let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    let row = doc! {"bytes": number(counted.bytes), "so_far": number(counted.so_far)};
    tx.set_meta(META_NO_FEED, Some(&row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_round_takes_is_told_with_what_it_means() {
        let plain = SyncSettings::default();
        let fresh = NoFeed { bytes: 0, so_far: 0 };
        assert_eq!(fresh.words(&plain), "This centre has no change feed: every round reads everything.");
        let known = fresh.after(20 * MB, false).after(10 * MB, true);
        assert_eq!(
            known.words(&plain),
            "This centre has no change feed: every round reads everything, about 30 MB."
        );
        let said = |budget, continuous| {
            known.words(&SyncSettings { budget_bytes_per_day: budget, continuous, ..SyncSettings::default() })
        };
        assert!(said(100 * MB, false).ends_with("The budget of 100 MB a day is enough for 2 of them."));
        assert!(said(20 * MB, false).ends_with("The budget of 20 MB a day is not enough for one."));
        assert!(said(0, true).ends_with("`continuous` does nothing here, because it needs a change feed."));
        let small = fresh.after(300, true);
        assert!(small.words(&plain).ends_with("everything, less than 1 MB."));
    }
}
