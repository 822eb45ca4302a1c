//! Floor 1. Versions of records: the one last agreed with the centre, with its place in the push order, and decoded ones.

use std::borrow::Cow;

use bson::{Document, RawDocument};

use super::encoding::{damaged, decode, encode, raw};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::error::StoreError;

/// The version of a record that the node and the centre last agreed on.
#[derive(Debug, Clone, PartialEq)]
pub enum Base {
    /// The centre had no such record.
    Absent,
    Document(Document),
}

impl Base {
    pub fn document(&self) -> Option<&Document> {
        match self {
            Base::Absent => None,
            Base::Document(document) => Some(document),
        }
    }

    /// Whether the centre is known to have had the record `key`, as one of this account.
    pub fn is_under(&self, key: &RecordKey, account: &str) -> bool {
        let owner = self.document().and_then(|base| key.kind.schema().owner_of(base));
        self.is_at_centre() && owner.is_some_and(|owner| owner == fold_account(account))
    }

    /// Whether the centre is known to have had the record. An empty document stands for one of which nobody knows
    /// whether it was there.
    pub fn is_at_centre(&self) -> bool {
        self.document().is_some_and(|document| !document.is_empty())
    }
}

impl From<Option<Document>> for Base {
    fn from(document: Option<Document>) -> Self {
        document.map_or(Base::Absent, Base::Document)
    }
}

/// A row of `base`: where the record stands in `dirty`, and the agreed version (empty bytes: absent).
pub(crate) struct BaseRow {
    pub(crate) rank: u8,
    pub(crate) sequence: u64,
    pub(crate) base: Base,
}

const BASE_HEADER_BYTES: usize = 9;

impl BaseRow {
    pub(crate) fn decode(bytes: &[u8]) -> Result<BaseRow, StoreError> {
        let (rank, sequence) = BaseRow::place(bytes)?;
        let body = &bytes[BASE_HEADER_BYTES..];
        let base = if body.is_empty() { Base::Absent } else { Base::Document(decode(body)?) };
        Ok(BaseRow { rank, sequence, base })
    }

    /// Whether the row holds an agreed version.
    pub(crate) fn is_agreed(bytes: &[u8]) -> Result<bool, StoreError> {
        BaseRow::place(bytes)?;
        Ok(bytes.len() > BASE_HEADER_BYTES)
    }

    /// The agreed version, not decoded.
    pub(crate) fn body(bytes: &[u8]) -> Result<Option<&RawDocument>, StoreError> {
        if BaseRow::is_agreed(bytes)? { raw(&bytes[BASE_HEADER_BYTES..]).map(Some) } else { Ok(None) }
    }

    /// Rank and sequence alone.
    pub(crate) fn place(bytes: &[u8]) -> Result<(u8, u64), StoreError> {
        let header = bytes.first_chunk::<BASE_HEADER_BYTES>().ok_or_else(|| damaged("a base row"))?;
        let [rank, sequence @ ..] = *header;
        Ok((rank, u64::from_be_bytes(sequence)))
    }

    pub(crate) fn encode(rank: u8, sequence: u64, base: &Base) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![rank];
        bytes.extend_from_slice(&sequence.to_be_bytes());
        if let Base::Document(document) = base {
            bytes.extend_from_slice(&encode(document)?);
        }
        Ok(bytes)
    }
}

/// A version of a record, decoded and as it is stored: coding takes longer than most of what is done with either.
pub(crate) struct Version<'d> {
    document: Cow<'d, Document>,
    bytes: Vec<u8>,
}

impl<'d> Version<'d> {
    pub(crate) fn of(document: Cow<'d, Document>) -> Result<Version<'d>, StoreError> {
        Ok(Version { bytes: encode(&document)?, document })
    }

    pub(crate) fn stored(bytes: Vec<u8>) -> Result<Version<'d>, StoreError> {
        Ok(Version { document: Cow::Owned(decode(&bytes)?), bytes })
    }

    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where a record stands in the push order: edits by rank, then deletes in reverse, so that nothing is
/// deleted at the centre before what refers to it.
pub(crate) fn push_rank(kind: Kind, is_delete: bool) -> u8 {
    use crate::domain::schema::PUSH_RANK_MAX;
    let rank = kind.schema().push_rank;
    if is_delete { DELETE_RANK_MIN + (PUSH_RANK_MAX - rank) } else { rank }
}

/// Lowest value of [`push_rank`] of a delete.
pub(crate) const DELETE_RANK_MIN: u8 = crate::domain::schema::PUSH_RANK_MAX + 1;

/// Highest value of [`push_rank`].
pub(crate) const PUSH_ORDER_MAX: u8 = 2 * crate::domain::schema::PUSH_RANK_MAX + 1;
