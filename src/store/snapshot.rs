//! Floor 1. Reading: a consistent view of the store at one moment.

use std::sync::{Arc, OnceLock};

use bson::{Document, RawDocument, RawDocumentBuf};
use redb::{ReadOnlyTable, ReadableTable, ReadableTableMetadata};

use super::StoreError;
use super::grants::{Grant, Granted};
use super::kept::Shelf;
use super::ownerless::NO_ACCOUNT;
use super::rows::{Checked, View};
use super::sync_rows::{DeadLetter, OpenWrite, Pending};
use super::tables::{self, *};
use super::tally::TallyShelf;
use crate::domain::record::{Kind, RecordKey, fold_account};

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

/// One change in the feed.
#[derive(Debug, Clone)]
pub struct JournalRow {
    pub sequence: u64,
    pub key: RecordKey,
    pub op: String,
    /// Folded account that the record belonged to.
    pub owner: Option<String>,
}

/// A stretch of the change feed.
#[derive(Debug)]
pub struct JournalWindow {
    pub rows: Vec<JournalRow>,
    /// Oldest sequence that is kept, or the next one if none is; 0 when nothing ever changed.
    pub oldest: u64,
    pub last: u64,
}

/// A consistent view. Keep it short: pages that it sees cannot be reused while it lives.
pub struct Snapshot {
    pub(crate) transaction: View,
    /// Opened once, for all who share the view.
    docs: OnceLock<Checked<ReadOnlyTable<RowKey, &'static [u8]>, RowKey>>,
    pub(super) owners: OnceLock<ReadOnlyTable<RowKey, &'static str>>,
    pub(crate) shelf: Shelf,
    pub(super) tally_shelf: Arc<TallyShelf>,
}

impl Snapshot {
    /// `tally_shelf`: that of the state that the view is of.
    pub(crate) fn new(transaction: View, tally_shelf: Arc<TallyShelf>) -> Self {
        let (docs, owners, shelf) = Default::default();
        Self { transaction, docs, owners, shelf, tally_shelf }
    }

    fn docs(&self) -> Result<&Checked<ReadOnlyTable<RowKey, &'static [u8]>, RowKey>, StoreError> {
        match self.docs.get() {
            Some(docs) => Ok(docs),
            None => {
                let docs = self.transaction.open_table(DOCS)?;
                Ok(self.docs.get_or_init(|| docs))
            }
        }
    }

    /// The record with exactly this id.
    pub fn record(&self, key: &RecordKey) -> Result<Option<StoredRecord>, StoreError> {
        self.look_at(key.kind, &key.id, stored)
    }

    /// The record, decoded.
    pub fn document(&self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        let record = self.record(key)?;
        let document = record.map(|record| Document::try_from(record.document.as_ref())).transpose();
        document.map_err(|_| super::tables::damaged("a record"))
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

    /// Roles granted to an account on this node.
    ///
    /// They hold for the record that they were given to, with the password that was set here: whoever can
    /// write at the centre could otherwise give that account a password of their own.
    pub fn grants(&self, id: &str, password_hash: &str) -> Result<Granted, StoreError> {
        let grants = self.transaction.open_table(GRANTS)?;
        let Some(row) = grants.get(fold_account(id).as_str())? else {
            return Ok(Granted::default());
        };
        Ok(Grant::decode(row.value())?.granted_to(id, password_hash))
    }

    /// A technician's account of this node: `password` (a bcrypt hash) and `roles`.
    pub fn local_account(&self, name: &str) -> Result<Option<Document>, StoreError> {
        let accounts = self.transaction.open_table(LOCAL_ACCOUNTS)?;
        accounts.get(name)?.map(|row| tables::decode(row.value())).transpose()
    }

    /// The name under which a technician's account is stored that is called so in some spelling.
    pub fn resolve_local_account(&self, name: &str) -> Result<Option<String>, StoreError> {
        if self.local_account(name)?.is_some() {
            return Ok(Some(name.to_owned()));
        }
        let names = self.local_accounts()?.into_iter().map(|(known, _)| known).collect();
        Ok(super::grants::alike(names, name))
    }

    pub fn local_accounts(&self) -> Result<Vec<(String, Document)>, StoreError> {
        let accounts = self.transaction.open_table(LOCAL_ACCOUNTS)?;
        let mut all = Vec::new();
        for entry in accounts.iter()?.sound() {
            let (name, row) = entry?;
            all.push((name.value().to_owned(), tables::decode(row.value())?));
        }
        Ok(all)
    }

    /// Changes after `since`, at most `max`.
    pub fn journal(&self, since: u64, max: usize) -> Result<JournalWindow, StoreError> {
        let journal = self.transaction.open_table(JOURNAL)?;
        let last = last_sequence(&journal, &self.transaction.open_table(META)?)?;
        // After a restore there may be no change yet, but a number from which on there will be.
        let next = if last == 0 { 0 } else { last + 1 };
        let mut oldest =
            journal.keys::<u64>(..)?.next().transpose()?.map_or(next, |sequence| sequence.value());
        let mut rows = Vec::new();
        for entry in journal.range(since.saturating_add(1)..)?.take(max) {
            let (sequence, row) = match entry {
                // What changed then is not known any more, as if it had been trimmed: readers start over.
                Err(StoreError::DamagedRow(row)) => {
                    oldest =
                        row.id.parse::<u64>().map_or(next, |sequence| sequence.saturating_add(1)).min(next);
                    rows.clear();
                    continue;
                }
                entry => entry?,
            };
            let row = Fields::of(row.value(), "a row of the journal")?;
            rows.push(JournalRow {
                sequence: sequence.value(),
                key: row.key()?,
                op: row.text("op")?.to_owned(),
                owner: row.text_or_null("owner")?.map(str::to_owned),
            });
        }
        Ok(JournalWindow { rows, oldest, last })
    }

    /// How many people have roles that were granted on this node.
    pub fn granted_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(GRANTS)?.len()
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

    // ------------------------------------------------------------------------------- reconciliation

    /// Unpushed records in push order after `after`, without those whose write is on the way or refused, and
    /// without those that are damaged.
    pub fn pending(
        &self,
        after: Option<(u8, u64, &RecordKey)>,
        max: usize,
    ) -> Result<Vec<(u8, u64, Pending)>, StoreError> {
        let (docs, base) = (self.docs()?, self.transaction.open_table(BASE)?);
        let dirty = self.transaction.open_table(DIRTY)?;
        let intent = self.transaction.open_table(INTENT)?;
        let dead = self.transaction.open_table(DEAD)?;
        let mut batch = Vec::new();
        let start = match after {
            Some((rank, sequence, key)) => {
                let (code, id) = row_key(key);
                std::ops::Bound::Excluded((rank, sequence, code, id))
            }
            None => std::ops::Bound::Unbounded,
        };
        for entry in dirty.range((start, std::ops::Bound::<(u8, u64, u8, &str)>::Unbounded))? {
            if batch.len() >= max {
                break;
            }
            let (at, row) = entry?;
            let (rank, sequence, code, id) = at.value();
            // One that is gone though nobody deleted it is damaged too, and no reason to delete it elsewhere.
            let is_there = rank >= DELETE_RANK_MIN || docs.contains((code, id))?;
            let is_sound = is_there && !docs.is_damaged((code, id))? && !base.is_damaged((code, id))?;
            if is_sound && !intent.contains((code, id))? && !dead.contains((code, id))? {
                let key = RecordKey::new(kind_of(code)?, id);
                batch.push((rank, sequence, Pending { key, since_ms: row.value().0 }));
            }
        }
        Ok(batch)
    }

    /// Ids after `after` up to `up_to` (or the end) of records that the centre is known to have had, those that
    /// wait behind a hold included.
    pub fn expected_at_centre(
        &self,
        kind: Kind,
        after: Option<&str>,
        up_to: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let docs = self.docs()?;
        let base = self.transaction.open_table(BASE)?;
        let code = kind.schema().code;
        let mut ids = Vec::new();
        for at in docs.keys((code, after.unwrap_or(""))..(code + 1, ""))? {
            let at = at?;
            let (_, id) = at.value();
            if up_to.is_some_and(|up_to| id > up_to) {
                break;
            }
            let is_new_here = match base.get((code, id)) {
                Ok(Some(row)) => BaseRow::decode(row.value())?.base == Base::Absent,
                Ok(None) => false,
                // Nobody knows, and nothing may go for that.
                Err(StoreError::DamagedRow(_)) => true,
                Err(error) => return Err(error),
            };
            if after != Some(id) && !is_new_here {
                ids.push(id.to_owned());
            }
        }
        let mut waiting = self.held_ids(kind, after, up_to)?;
        waiting.extend(self.undecided_ids(kind, after, up_to)?);
        if !waiting.is_empty() {
            ids.extend(waiting);
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(ids)
    }

    /// How many records differ from the centre, dead letters included.
    pub fn pending_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction.open_table(DIRTY)?.len()?)
    }

    /// How many records wait to be pushed, without those that were refused.
    pub fn waiting_count(&self) -> Result<u64, StoreError> {
        let dirty = self.transaction.open_table(DIRTY)?;
        let dead = self.transaction.open_table(DEAD)?;
        if dead.is_empty()? {
            return Ok(dirty.len()?);
        }
        let mut count = 0;
        for entry in dirty.iter()? {
            let (at, _) = entry?;
            let (_, _, code, id) = at.value();
            count += u64::from(!dead.contains((code, id))?);
        }
        Ok(count)
    }

    /// When the oldest unpushed edit was made.
    pub fn oldest_pending_ms(&self) -> Result<Option<i64>, StoreError> {
        let dirty = self.transaction.open_table(DIRTY)?;
        let mut oldest: Option<i64> = None;
        for rank in 0..=PUSH_ORDER_MAX {
            // Within a rank the first row is the oldest.
            if let Some(entry) = dirty.range((rank, 0, 0, "")..(rank + 1, 0, 0, ""))?.next() {
                let (since, _) = entry?.1.value();
                oldest = Some(oldest.map_or(since, |known| known.min(since)));
            }
        }
        Ok(oldest)
    }

    /// Whether a write of the record is on its way, or waits for a seal.
    pub fn has_intent(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.transaction.open_table(INTENT)?.contains(row_key(key))
    }

    /// The writes that are open, without what they write.
    pub fn intents(&self) -> Result<Vec<(RecordKey, OpenWrite)>, StoreError> {
        let intent = self.transaction.open_table(INTENT)?;
        let mut intents = Vec::new();
        for entry in intent.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            intents.push((RecordKey::new(kind_of(code)?, id), OpenWrite::decode(row.value())?));
        }
        Ok(intents)
    }

    pub fn is_clean(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.transaction.open_table(BASE)?.get(row_key(key))?.is_none())
    }

    /// Whether a record that is not clean was agreed on with the centre at some time.
    pub fn has_agreed(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let row = base.get(row_key(key))?;
        row.map_or(Ok(false), |row| BaseRow::is_agreed(row.value()))
    }

    pub fn base(&self, key: &RecordKey) -> Result<Option<Base>, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let row = base.get(row_key(key))?.map(|row| BaseRow::decode(row.value())).transpose()?;
        Ok(row.map(|row| row.base))
    }

    /// The number of the first edit that has not reached the centre; 0 if there is none.
    pub(super) fn edit_number(&self, key: &RecordKey) -> Result<u64, StoreError> {
        let base = self.transaction.open_table(BASE)?;
        let place = base.get(row_key(key))?.map(|row| BaseRow::place(row.value())).transpose()?;
        Ok(place.map_or(0, |(_, sequence)| sequence))
    }

    /// Whether the centre refuses the record, or it cannot be read there.
    pub fn is_dead(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.transaction.open_table(DEAD)?.contains(row_key(key))
    }

    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, StoreError> {
        let dead = self.transaction.open_table(DEAD)?;
        let mut letters = Vec::new();
        for entry in dead.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id) = at.value();
            letters.push(DeadLetter::decode(RecordKey::new(kind_of(code)?, id), row.value())?);
        }
        Ok(letters)
    }

    pub fn dead_count(&self) -> Result<u64, StoreError> {
        self.transaction.open_table(DEAD)?.len()
    }
}

/// Ids of a kind after `after` up to `up_to` (or the end).
pub(crate) fn ids_between(
    rows: &Checked<ReadOnlyTable<RowKey, &'static [u8]>, RowKey>,
    kind: Kind,
    after: Option<&str>,
    up_to: Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let code = kind.schema().code;
    let mut ids = Vec::new();
    for at in rows.keys((code, after.unwrap_or(""))..(code + 1, ""))? {
        let at = at?;
        let (_, id) = at.value();
        if up_to.is_some_and(|up_to| id > up_to) {
            break;
        }
        if after != Some(id) {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

/// The stored spelling of an account: exact first, then canonical, then any that folds to the same.
pub(crate) fn resolve_person(
    docs: &Checked<impl ReadableTable<RowKey, &'static [u8]>, RowKey>,
    by_spelling: &impl ReadableTable<(&'static str, &'static str), ()>,
    id: &str,
) -> Result<Option<String>, StoreError> {
    let code = Kind::Person.schema().code;
    let canonical = fold_account(id);
    for spelling in [id, canonical.as_str()] {
        if docs.contains((code, spelling))? {
            return Ok(Some(spelling.to_owned()));
        }
    }
    let Some(entry) = by_spelling.range((canonical.as_str(), "")..)?.next() else {
        return Ok(None);
    };
    let (at, _) = entry?;
    let (found, spelling) = at.value();
    Ok((found == canonical).then(|| spelling.to_owned()))
}

/// The ids of all people of an account: the canonical one first.
pub(crate) fn spellings(
    docs: &Checked<impl ReadableTable<RowKey, &'static [u8]>, RowKey>,
    by_spelling: &impl ReadableTable<(&'static str, &'static str), ()>,
    account: &str,
) -> Result<Vec<String>, StoreError> {
    let canonical = fold_account(account);
    let mut found = Vec::new();
    if docs.contains((Kind::Person.schema().code, canonical.as_str()))? {
        found.push(canonical.clone());
    }
    for entry in by_spelling.range((canonical.as_str(), "")..)? {
        let (at, _) = entry?;
        let (of, id) = at.value();
        if of != canonical {
            break;
        }
        found.push(id.to_owned());
    }
    Ok(found)
}

/// The ids of the records of a kind that belong to an account.
pub(crate) fn owned(
    by_owner: &impl ReadableTable<(u8, &'static str, &'static str), ()>,
    kind: Kind,
    account: &str,
) -> Result<Vec<String>, StoreError> {
    let (code, account) = (kind.schema().code, fold_account(account));
    let mut ids = Vec::new();
    if account == NO_ACCOUNT {
        return Ok(ids);
    }
    for entry in by_owner.range((code, account.as_str(), "")..)? {
        let (at, _) = entry?;
        let (found_code, found_account, id) = at.value();
        if found_code != code || found_account != account {
            break;
        }
        ids.push(id.to_owned());
    }
    Ok(ids)
}
