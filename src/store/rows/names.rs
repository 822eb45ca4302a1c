//! Floor 1. What the key of a row says for people, and which keys say that.

use redb::Key;

use crate::domain::record::Kind;

/// A record's key in the tables: the kind's code and the id.
pub(crate) type RowKey = (u8, &'static str);

/// What a key says for people.
pub(crate) trait RowName: Key + 'static {
    /// Code of the record's kind, and its id.
    fn row_name(key: &Self::SelfType<'_>) -> (Option<u8>, String);

    /// Where the keys are that say this: from the first key of each pair to the second.
    fn named(kind: Option<Kind>, id: &str) -> Vec<(Self::SelfType<'_>, Self::SelfType<'_>)>;
}

/// The codes of a kind, or all that no kind has: a row of such a code is of no kind.
fn codes(kind: Option<Kind>) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(move |code| Kind::from_code(*code) == kind)
}

impl RowName for (u8, &'static str) {
    fn row_name((code, id): &(u8, &str)) -> (Option<u8>, String) {
        (Some(*code), (*id).to_owned())
    }

    fn named(kind: Option<Kind>, id: &str) -> Vec<((u8, &str), (u8, &str))> {
        codes(kind).map(|code| ((code, id), (code, id))).collect()
    }
}

impl RowName for (u8, &'static str, u64) {
    fn row_name((code, id, _): &(u8, &str, u64)) -> (Option<u8>, String) {
        (Some(*code), (*id).to_owned())
    }

    fn named(kind: Option<Kind>, id: &str) -> Vec<((u8, &str, u64), (u8, &str, u64))> {
        codes(kind).map(|code| ((code, id, 0), (code, id, u64::MAX))).collect()
    }
}

impl RowName for &'static str {
    fn row_name(id: &&str) -> (Option<u8>, String) {
        (None, (*id).to_owned())
    }

    fn named(_: Option<Kind>, id: &str) -> Vec<(&str, &str)> {
        vec![(id, id)]
    }
}

impl RowName for (&'static str, u32) {
    fn row_name((id, _): &(&str, u32)) -> (Option<u8>, String) {
        (None, (*id).to_owned())
    }

    fn named(_: Option<Kind>, id: &str) -> Vec<((&str, u32), (&str, u32))> {
        vec![((id, 0), (id, u32::MAX))]
    }
}

impl RowName for u64 {
    fn row_name(id: &u64) -> (Option<u8>, String) {
        (None, id.to_string())
    }

    fn named(_: Option<Kind>, id: &str) -> Vec<(u64, u64)> {
        id.parse().map(|id| (id, id)).into_iter().collect()
    }
}
