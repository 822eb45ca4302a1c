//! Floor 3. A centre that has no change feed, a standalone server or another engine that speaks MongoDB's protocol, or
//! that refuses it again and again. Rounds have to read everything there, which is said wherever people look.

use bson::{Document, doc};

use super::SyncSettings;
use super::kept_rows::or_anew;
use crate::store::{Fields, Snapshot, StoreError, Tx};

/// Exists while the centre is known to have no feed. `bytes`: what was received while everything was read last; `so_far`:
/// what was received since then by rounds that did not come to the end; `refused`: there is one, and this is the error
/// with which it is refused, 0 for one without a code.
const META_NO_FEED: &str = "no_feed";
const REFUSED: &str = "refused";
const MB: u64 = 1_000_000;
/// Part of a day's budget that looking through records may use.
const BUDGET_SHARE: (u64, u64) = (3, 4);

/// What is known of such a centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoFeed {
    /// Bytes that reading everything took last; 0 before it was done once.
    bytes: u64,
    so_far: u64,
    refused: Option<i32>,
}

/// Whether the centre has a change feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Told,
    None,
    /// With the code of the error, if there is one.
    Refused(Option<i32>),
}

impl NoFeed {
    /// Nothing at a centre that has a feed, or that was never reached.
    pub(crate) fn known(snapshot: &Snapshot) -> Result<Option<NoFeed>, StoreError> {
        NoFeed::in_row(snapshot.meta_row(META_NO_FEED)?)
    }

    /// A row that cannot be read says that there is no feed; what reading everything takes is counted anew.
    fn in_row(row: Option<Vec<u8>>) -> Result<Option<NoFeed>, StoreError> {
        row.map(|row| or_anew(NoFeed::decode(&row), || NoFeed { bytes: 0, so_far: 0, refused: None }))
            .transpose()
    }

    pub(super) fn decode(row: &[u8]) -> Result<NoFeed, StoreError> {
        let row = Fields::of(row, "what reading everything takes")?;
        Ok(NoFeed {
            bytes: row.count("bytes")?,
            so_far: row.count("so_far")?,
            refused: row.int32_if_any(REFUSED)?,
        })
    }

    fn encode(self) -> Document {
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut row = doc! {"bytes": number(self.bytes), "so_far": number(self.so_far)};
        row.extend(self.refused.map(|code| (REFUSED.to_owned(), code.into())));
        row
    }

    /// As it is once so much more was received, to the end of everything or not.
    fn after(self, received: u64, is_end: bool) -> NoFeed {
        let read = self.so_far.saturating_add(received);
        match is_end {
            true => NoFeed { bytes: read, so_far: 0, ..self },
            false => NoFeed { so_far: read, ..self },
        }
    }

    /// Bytes that reading everything took last, if it was done and they were counted.
    pub(crate) fn bytes(self) -> Option<u64> {
        (self.bytes > 0).then_some(self.bytes)
    }

    /// The error with which the centre refuses the feed that it has, 0 for one without a code.
    pub(crate) fn refused(self) -> Option<i32> {
        self.refused
    }

    /// What people are told first.
    pub(super) fn opening(self) -> String {
        let what = match self.refused {
            None => "has no change feed".to_owned(),
            Some(0) => "refuses its change feed".to_owned(),
            Some(code) => format!("refuses its change feed (MongoDB error {code})"),
        };
        format!("This centre {what}: every round reads everything")
    }

    /// For people.
    pub(crate) fn words(self, settings: &SyncSettings) -> String {
        let mut words = self.opening();
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
pub(crate) fn note(tx: &mut Tx<'_>, standing: Standing) -> Result<(), StoreError> {
    let known = NoFeed::in_row(tx.meta_row(META_NO_FEED)?)?;
    let refused = match standing {
        Standing::Told if known.is_none() => return Ok(()),
        Standing::Told => return tx.set_meta(META_NO_FEED, None),
        Standing::None => None,
        Standing::Refused(code) => Some(code.unwrap_or_default()),
    };
    // What it takes to read everything is the same for either reason.
    let noted = NoFeed { refused, ..known.unwrap_or(NoFeed { bytes: 0, so_far: 0, refused }) };
    match known == Some(noted) {
        true => Ok(()),
        false => tx.set_meta(META_NO_FEED, Some(&noted.encode())),
    }
}

/// Counts what a round has received while it read everything, or the next part of it.
pub(crate) fn count(tx: &mut Tx<'_>, received: u64, is_end: bool) -> Result<(), StoreError> {
    let Some(known) = NoFeed::in_row(tx.meta_row(META_NO_FEED)?)? else {
        return Ok(());
    };
    let counted = known.after(received, is_end);
    if counted == known {
        return Ok(());
    }
    tx.set_meta(META_NO_FEED, Some(&counted.encode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_round_takes_is_told_with_what_it_means() {
        let plain = SyncSettings::default();
        let fresh = NoFeed { bytes: 0, so_far: 0, refused: None };
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
        let refused = NoFeed { refused: Some(96), ..known }.after(MB, true);
        assert_eq!(
            refused.words(&plain),
            "This centre refuses its change feed (MongoDB error 96): every round reads everything, about 1 MB."
        );
        let small = fresh.after(300, true);
        assert!(small.words(&plain).ends_with("everything, less than 1 MB."));
    }
}
