//! Floor 1. Reads records and lists of them, in a view of the store at one moment.

use bson::{Document, RawDocument, RawDocumentBuf};

use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::Snapshot;
use crate::store::error::StoreError;
use crate::store::holders::{NO_ACCOUNT, resolve_person};
use crate::store::rows::{damaged, raw};
use crate::store::schema::{BASE, BY_OWNER, BY_SPELLING, DOCS};

/// A record as stored.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    pub id: String,
    pub document: RawDocumentBuf,
}

/// Some records in order of `_id`; `more` if the range goes on after the last.
#[derive(Debug, Default)]
pub struct RecordPage {
    pub records: Vec<StoredRecord>,
    pub more: bool,
}

impl RecordPage {
    /// Where the next page begins.
    pub fn next_after(&self) -> Option<&str> {
        let last = self.records.last()?;
        self.more.then_some(last.id.as_str())
    }
}

/// Which records of a list to visit: those after `after`, at most `max` and about `bytes_max`.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub after: Option<&'a str>,
    pub max: usize,
    pub bytes_max: usize,
    /// Whether damaged records are left out; otherwise they are errors.
    pub is_without_damaged: bool,
}

/// What has been visited of a part.
#[derive(Default)]
struct Taken {
    records: usize,
    bytes: usize,
    /// The last one of a part that is full.
    last: Option<String>,
}

impl Taken {
    fn is_all(&self, part: &Part<'_>) -> bool {
        self.records >= part.max || self.bytes >= part.bytes_max
    }

    fn take(
        &mut self,
        part: &Part<'_>,
        id: &str,
        bytes: &[u8],
        show: &mut impl FnMut(&str, &RawDocument),
    ) -> Result<(), StoreError> {
        show(id, RawDocument::from_bytes(bytes).map_err(|e| StoreError::Damaged(e.to_string()))?);
        self.records += 1;
        self.bytes += bytes.len();
        if self.is_all(part) {
            self.last = Some(id.to_owned());
        }
        Ok(())
    }
}

fn stored(id: &str, document: &RawDocument) -> StoredRecord {
    StoredRecord { id: id.to_owned(), document: document.to_owned() }
}

impl Snapshot {
    /// The record with exactly this id.
    pub fn record(&self, key: &RecordKey) -> Result<Option<StoredRecord>, StoreError> {
        self.look_at(key.kind, &key.id, stored)
    }

    /// The record, decoded.
    pub fn document(&self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        let record = self.record(key)?;
        let document = record.map(|record| Document::try_from(record.document.as_ref())).transpose();
        document.map_err(|_| damaged("a record"))
    }

    /// The record that a client means by `id`: for people any spelling of the account will do.
    pub fn find(&self, kind: Kind, id: &str) -> Result<Option<StoredRecord>, StoreError> {
        self.look(kind, id, stored)
    }

    /// What `see` makes of the record that a client means by `id`, and of the id as it is stored. Nothing is copied: a
    /// record may have 16 MiB.
    pub fn look<T>(
        &self,
        kind: Kind,
        id: &str,
        mut see: impl FnMut(&str, &RawDocument) -> T,
    ) -> Result<Option<T>, StoreError> {
        let exact = self.look_at(kind, id, &mut see)?;
        if kind != Kind::Person || exact.is_some() {
            return Ok(exact);
        }
        let by_spelling = self.transaction.open_table(BY_SPELLING)?;
        match resolve_person(self.docs()?, &by_spelling, id)? {
            Some(id) => self.look_at(kind, &id, see),
            None => Ok(None),
        }
    }

    /// Whether there is a record that a client means by `id`, whatever it is worth: it is not read.
    pub fn has(&self, kind: Kind, id: &str) -> Result<bool, StoreError> {
        if kind != Kind::Person {
            return self.docs()?.contains((kind.schema().code, id));
        }
        let by_spelling = self.transaction.open_table(BY_SPELLING)?;
        Ok(resolve_person(self.docs()?, &by_spelling, id)?.is_some())
    }

    /// [`Snapshot::look`] at the record with exactly this id.
    pub fn look_at<T>(
        &self,
        kind: Kind,
        id: &str,
        see: impl FnOnce(&str, &RawDocument) -> T,
    ) -> Result<Option<T>, StoreError> {
        let Some(row) = self.docs()?.get((kind.schema().code, id))? else {
            self.check_absent(&RecordKey::new(kind, id))?;
            return Ok(None);
        };
        Ok(Some(see(id, raw(row.value())?)))
    }

    /// Records of a kind after `after`, at most `max` and about `bytes_max`.
    pub fn list(
        &self,
        kind: Kind,
        after: Option<&str>,
        max: usize,
        bytes_max: usize,
    ) -> Result<RecordPage, StoreError> {
        let mut page = RecordPage::default();
        let part = Part { after, max, bytes_max, is_without_damaged: false };
        page.more = self.visit(kind, part, |id, document| page.records.push(stored(id, document)))?.is_some();
        Ok(page)
    }

    /// Records of a kind that belong to an account, like [`Snapshot::list`].
    pub fn list_of(
        &self,
        kind: Kind,
        owner: &str,
        after: Option<&str>,
        max: usize,
        bytes_max: usize,
    ) -> Result<RecordPage, StoreError> {
        let mut page = RecordPage::default();
        let part = Part { after, max, bytes_max, is_without_damaged: false };
        let push = |id: &str, document: &RawDocument| page.records.push(stored(id, document));
        page.more = self.visit_of(kind, owner, part, push)?.is_some();
        Ok(page)
    }

    /// Shows the records of a kind in order of their ids, as they lie in the store. Returns the last id if there are
    /// more behind it.
    pub fn visit(
        &self,
        kind: Kind,
        part: Part<'_>,
        mut show: impl FnMut(&str, &RawDocument),
    ) -> Result<Option<String>, StoreError> {
        let code = kind.schema().code;
        let mut taken = Taken::default();
        let from = (code, part.after.unwrap_or(""));
        for entry in self.docs()?.range(from..(code + 1, ""))? {
            let (at, row) = match entry {
                Err(StoreError::DamagedRow(_)) if part.is_without_damaged => continue,
                entry => entry?,
            };
            let (_, id) = at.value();
            if part.after == Some(id) {
                continue;
            }
            if taken.is_all(&part) {
                return Ok(taken.last);
            }
            taken.take(&part, id, row.value(), &mut show)?;
        }
        Ok(None)
    }

    /// [`Snapshot::visit`] of what belongs to an account.
    pub fn visit_of(
        &self,
        kind: Kind,
        owner: &str,
        part: Part<'_>,
        mut show: impl FnMut(&str, &RawDocument),
    ) -> Result<Option<String>, StoreError> {
        let docs = self.docs()?;
        let by_owner = self.transaction.open_table(BY_OWNER)?;
        let (code, owner) = (kind.schema().code, fold_account(owner));
        let mut taken = Taken::default();
        if owner == NO_ACCOUNT {
            return Ok(None);
        }
        for entry in by_owner.range((code, owner.as_str(), part.after.unwrap_or(""))..)? {
            let (at, _) = entry?;
            let (found_code, found_owner, id) = at.value();
            if found_code != code || found_owner != owner {
                break;
            }
            if part.after == Some(id) {
                continue;
            }
            if taken.is_all(&part) {
                return Ok(taken.last);
            }
            let row = match docs.get((code, id)) {
                Err(StoreError::DamagedRow(_)) if part.is_without_damaged => continue,
                // It lies under a key that is damaged.
                Ok(None) if part.is_without_damaged && self.transaction.has_damage_in(DOCS.name()) => {
                    continue;
                }
                row => row?.ok_or_else(|| damaged("an index"))?,
            };
            taken.take(&part, id, row.value(), &mut show)?;
        }
        Ok(None)
    }

    pub fn count(&self, kind: Kind) -> Result<u64, StoreError> {
        let docs = self.docs()?;
        let code = kind.schema().code;
        let mut count = 0;
        for at in docs.keys((code, "")..(code + 1, ""))? {
            at?;
            count += 1;
        }
        Ok(count)
    }

    pub fn is_empty(&self) -> Result<bool, StoreError> {
        let docs = self.docs()?;
        let base = self.transaction.open_table(BASE)?;
        Ok(docs.is_empty()? && base.is_empty()?)
    }
}
