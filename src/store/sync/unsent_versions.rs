//! Floor 1. Unsent records, as earlier processes left them.
//!
//! A store may be put back to an older image. What waits in it was delivered since, perhaps, exactly as the image has it, and
//! no process can tell whether it works on an image before the centre says so. Therefore a process keeps the version that it
//! finds of a record that waits, before it changes it for the first time. If the store turns out to be an image, that
//! version is what was delivered, and everything after it is new ([`Tx::settle_delivered`]). If the centre gives this node its
//! lease, the store is no image and nothing of this counts any more.

use bson::{Document, doc};

use crate::domain::access::Actor;
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{BaseRow, Fields, decode, encode, insert_some, kind_of, row_key};

/// Records of which versions are kept. A node that never sees its centre, or for months, has no end of records that wait; of any
/// more, all counts as delivered should the store turn out to be an image, and becomes a conflict where it was not; a record that
/// was deleted before it was sent comes back then.
const RECORDS_MAX: u64 = 20_000;
/// Versions that are kept of one record. The latest stay: what came before counts as delivered together with them, and
/// becomes a conflict where it was not.
const VERSIONS_MAX: usize = 8;

/// Versions of a record that waits to be sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::store) struct UnsentVersions {
    /// The number of the record's first unsent edit.
    pub(in crate::store) first: u64,
    /// The centre was not known to have the record, and it was deleted here: nothing else tells that it may be there.
    pub(in crate::store) is_deleted: bool,
    /// Oldest first.
    versions: Vec<LeftVersion>,
}

/// A record as the processes before left it.
#[derive(Debug, Clone, PartialEq)]
struct LeftVersion {
    /// The number of the change that a later process made to it.
    changed_by: u64,
    /// `None` if it was deleted.
    document: Option<Document>,
}

impl UnsentVersions {
    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<UnsentVersions, StoreError> {
        let row = Fields::of(bytes, "versions of an unsent record")?;
        let version = |row: Fields<'_>| -> Result<LeftVersion, StoreError> {
            Ok(LeftVersion {
                changed_by: row.count("changed_by")?,
                document: row.document_if_any("document")?,
            })
        };
        Ok(UnsentVersions {
            first: row.count("first")?,
            is_deleted: row.flag("deleted")?,
            versions: row.rows("versions")?.into_iter().map(version).collect::<Result<_, _>>()?,
        })
    }

    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let versions = self.versions.iter().map(|version| {
            let mut row = doc! {"changed_by": version.changed_by as i64};
            insert_some(&mut row, "document", &version.document.clone().map(Into::into));
            row
        });
        let versions: Vec<Document> = versions.collect();
        encode(&doc! {"first": self.first as i64, "deleted": self.is_deleted, "versions": versions})
    }

    /// The first change that `is_new`, and the version before it, if one was kept; absent for a record that was deleted then.
    pub(in crate::store) fn before(&self, is_new: impl Fn(u64) -> bool) -> Option<(u64, Option<&Document>)> {
        let version = self.versions.iter().find(|version| is_new(version.changed_by))?;
        Some((version.changed_by, version.document.as_ref()))
    }
}

impl Tx<'_> {
    /// The record, which is `old`, is about to be changed.
    pub(in crate::store) fn keep_unsent_version(
        &mut self,
        key: &RecordKey,
        old: Option<&[u8]>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let at = row_key(key);
        let place = self.base.get(at).and_then(|row| row.map(|row| BaseRow::place(row.value())).transpose());
        let Some((_, first)) = unless_damaged(place)?.flatten() else {
            // Another record under this id.
            return self.forget_unsent_version(key);
        };
        if *actor == Actor::Centre || first > self.carry.found() {
            return Ok(());
        }
        let row = match self.unsent_versions.get(at) {
            // Without it all of the record counts as delivered, and what was not becomes a conflict.
            Err(StoreError::DamagedRow(_)) => return Ok(()),
            row => row?.map(|row| UnsentVersions::decode(row.value())).transpose()?,
        };
        if row.is_none() && self.unsent_versions.len()? >= RECORDS_MAX {
            return Ok(());
        }
        let mut row = row.unwrap_or(UnsentVersions { first, ..UnsentVersions::default() });
        if row.versions.last().is_some_and(|version| version.changed_by > self.carry.found()) {
            return Ok(());
        }
        let document = old.map(decode).transpose()?;
        row.versions.push(LeftVersion { changed_by: self.last_sequence() + 1, document });
        let surplus = row.versions.len().saturating_sub(VERSIONS_MAX);
        row.versions.drain(..surplus);
        self.unsent_versions.insert(at, row.encode()?.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// The record does not wait any more.
    pub(in crate::store) fn forget_unsent_version(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if self.unsent_versions.contains(row_key(key))? {
            self.unsent_versions.remove(row_key(key))?;
            self.wrote();
        }
        Ok(())
    }

    /// A record that the centre was not known to have is deleted here, so that it does not wait any more: `work` says so.
    /// What was kept of it stays.
    pub(in crate::store) fn keeping_unsent_delete(
        &mut self,
        key: &RecordKey,
        work: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (at, row) = (row_key(key), self.unsent_version(key)?);
        work(self)?;
        if let Some(row) = row {
            let row = UnsentVersions { is_deleted: true, ..row };
            self.unsent_versions.insert(at, row.encode()?.as_slice())?;
        }
        Ok(())
    }

    /// The centre has given this node its lease: the store is no image.
    pub fn forget_unsent_versions(&mut self) -> Result<(), StoreError> {
        if !self.unsent_versions.is_empty()? {
            self.unsent_versions.clear()?;
            self.wrote();
        }
        Ok(())
    }

    /// What was kept of the record. A row that cannot be read says nothing.
    pub(in crate::store) fn unsent_version(
        &self,
        key: &RecordKey,
    ) -> Result<Option<UnsentVersions>, StoreError> {
        let row = self.unsent_versions.get(row_key(key));
        let row = row.and_then(|row| row.map(|row| UnsentVersions::decode(row.value())).transpose());
        Ok(unless_damaged(row)?.flatten())
    }

    /// The records that the centre was not known to have and that were deleted here.
    pub(in crate::store) fn unsent_deletes(&self) -> Result<Vec<RecordKey>, StoreError> {
        let mut found = Vec::new();
        for entry in self.unsent_versions.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            if unless_damaged(UnsentVersions::decode(row.value()))?.is_some_and(|row| row.is_deleted) {
                found.push(RecordKey::new(kind_of(code)?, id));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(changed_by: u64) -> LeftVersion {
        LeftVersion { changed_by, document: Some(doc! {"f": changed_by as i64}) }
    }

    #[test]
    fn the_version_before_the_first_new_change_is_the_delivered_one() {
        let versions = vec![left(5), left(9), LeftVersion { changed_by: 12, document: None }];
        let row = UnsentVersions { first: 2, is_deleted: false, versions };
        let row = UnsentVersions::decode(&row.encode().unwrap()).unwrap();
        let found = |new: &[u64]| {
            row.before(|change| new.contains(&change)).map(|(change, found)| (change, found.cloned()))
        };
        assert_eq!(found(&[5, 9, 12]), Some((5, Some(doc! {"f": 5_i64}))));
        assert_eq!(found(&[9, 12]), Some((9, Some(doc! {"f": 9_i64}))));
        assert_eq!(found(&[12]), Some((12, None)), "deleted by then");
        assert_eq!(found(&[]), None, "nothing is new");
    }
}
