//! Floor 1. The trash: the bodies of deleted records.
//!
//! A row is written in the transaction that deletes the record. `trash_order` has the rows in the order of the
//! deletes, so that the newest are listed and the oldest are trimmed (`trash_age.rs`) without reading the rest.

use bson::{Document, doc};
use redb::{ReadableTable, ReadableTableMetadata as _, WriteTransaction};

use crate::domain::access::Actor;
use crate::domain::merge::same_identity;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::domain::value::same_document;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::holders::{Whose, identity_in, identity_row};
use crate::store::rows::{Fields, damaged, decode, encode, kind_of, open_for_writing, raw, row_key};
use crate::store::schema::{TRASH, TRASH_ORDER, TRASH_OWNER};

/// Most rows of the trash that one page looks at; a page that wants few of them may end before its limit.
const LOOK_ROWS_MAX: usize = 20_000;

/// In a row: the body waited behind an identity hold, and was not of the person here.
const HELD_APART: &str = "held";
/// The fields by which the human being is told apart who had the account, see [`Whose::person`].
const IDENTITY: &str = "identity";
/// The last number of the trash when the row went with its person to another account.
const GIVEN_AT: &str = "given_at";

/// What became of a deleted record's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrashState {
    /// The delete has not reached the centre.
    Pending,
    Done,
    /// The record exists again: it had been edited elsewhere, or was restored before the delete was sent.
    Void,
}

impl TrashState {
    const ALL: [TrashState; 3] = [TrashState::Pending, TrashState::Done, TrashState::Void];

    /// The state as rows and answers name it.
    pub fn name(self) -> &'static str {
        match self {
            TrashState::Pending => "pending",
            TrashState::Done => "done",
            TrashState::Void => "void",
        }
    }

    fn from_name(name: &str) -> Option<TrashState> {
        TrashState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// The body of a deleted record.
#[derive(Debug, Clone, PartialEq)]
pub struct TrashRow {
    pub key: RecordKey,
    pub sequence: u64,
    pub document: Document,
    pub state: TrashState,
    /// Whose it was.
    pub whose: Whose,
}

impl TrashRow {
    pub(crate) fn decode(key: RecordKey, sequence: u64, bytes: &[u8]) -> Result<TrashRow, StoreError> {
        let row = Fields::of(bytes, "a trash row")?;
        let document = row.document("document")?;
        let whose = Whose {
            account: key.kind.schema().owner_of(&document).unwrap_or_default(),
            person: row.document_if_any(IDENTITY)?,
            number: row.count_if_any(GIVEN_AT)?.unwrap_or(sequence),
            is_of_another: row.flag_if_any(HELD_APART)?,
        };
        Ok(TrashRow { key, sequence, document, state: row.word("state", TrashState::from_name)?, whose })
    }
}

/// A row of the trash without the body.
#[derive(Debug, Clone, PartialEq)]
pub struct TrashSummary {
    pub key: RecordKey,
    /// Names the row; a later delete has a higher number.
    pub sequence: u64,
    /// Folded account that the record belonged to.
    pub owner: Option<String>,
    /// The account as the record has it.
    pub owner_spelled: Option<String>,
    /// Whose it was who had that account then.
    pub whose: Whose,
    pub state: TrashState,
    /// Who deleted the record.
    pub actor: String,
    /// Milliseconds since 1970 by the clock of the box.
    pub at_ms: i64,
    /// [`super::trash_age`]: the time that the node had observed to pass.
    pub(in crate::store) observed_ms: i64,
}

impl TrashSummary {
    pub(crate) fn decode(key: RecordKey, sequence: u64, bytes: &[u8]) -> Result<TrashSummary, StoreError> {
        let (row, fields) = (raw(bytes)?, Fields::of(bytes, "a trash row")?);
        let body = row.get_document("document").map_err(|_| damaged("a trash row"))?;
        let owner = key.kind.schema().owner_in(body);
        let person = match key.kind.schema().owner {
            // Who it was the body says.
            Owner::Itself => Some(identity_in(body)?),
            _ => fields.document_if_any(IDENTITY)?,
        };
        Ok(TrashSummary {
            whose: Whose {
                account: owner.clone().unwrap_or_default(),
                person,
                number: fields.count_if_any(GIVEN_AT)?.unwrap_or(sequence),
                is_of_another: fields.flag_if_any(HELD_APART)?,
            },
            owner_spelled: key.kind.schema().owner_spelled_in(body).map(str::to_owned),
            owner,
            key,
            sequence,
            state: fields.word("state", TrashState::from_name)?,
            actor: fields.text("actor")?.to_owned(),
            at_ms: fields.int64("at")?,
            // Rows of earlier versions do not say: they age from the update on.
            observed_ms: fields.int64_if_any("observed")?.unwrap_or_default(),
        })
    }
}

/// Some rows of the trash, newest first.
#[derive(Debug)]
pub struct TrashPage {
    pub rows: Vec<TrashSummary>,
    /// The last row that was looked at, if there are older ones.
    pub next: Option<u64>,
}

impl Tx<'_> {
    /// Puts the body of a record into the trash.
    pub fn put_trash(
        &mut self,
        key: &RecordKey,
        document: &Document,
        actor: &Actor,
        state: TrashState,
    ) -> Result<(), StoreError> {
        let row = doc! {"actor": actor.to_string(), "state": state.name()};
        self.put_trash_row(key, document, row)
    }

    fn put_trash_row(
        &mut self,
        key: &RecordKey,
        document: &Document,
        mut row: Document,
    ) -> Result<(), StoreError> {
        let observed_ms = self.observe_time()?;
        row.extend(doc! {"document": document, "at": self.now_ms(), "observed": observed_ms});
        if let (Owner::Field(_), Some(owner)) =
            (key.kind.schema().owner, key.kind.schema().owner_of(document))
        {
            let mut whose = self.whose_now(&owner)?;
            if let Some(former) = self.former_owner(key, &owner)? {
                whose.person = Some(identity_row(&former));
            }
            let is_of_nobody = whose.person.as_ref().is_some_and(Document::is_empty);
            if !is_of_nobody && self.late(&owner)?.contains(key) {
                // It need not be of who had the account before.
                row.insert(HELD_APART, true);
            }
            row.extend(whose.person.map(|person| (IDENTITY.to_owned(), person.into())));
        }
        let (code, id) = row_key(key);
        let newest = self.trash_order.last()?.map_or(0, |(at, _)| at.value().0);
        let sequence = self.last_sequence().max(newest) + 1;
        self.trash.insert((code, id, sequence), encode(&row)?.as_slice())?;
        self.trash_order.insert((sequence, code, id), ())?;
        self.note_trash_owner(key.kind, sequence, document)?;
        self.wrote();
        self.trim_trash()
    }

    pub(in crate::store) fn remove_trash(
        &mut self,
        key: &RecordKey,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        self.trash.remove((code, id, sequence))?;
        self.trash_order.remove((sequence, code, id))?;
        self.trash_owner.remove(sequence)?;
        self.wrote();
        Ok(())
    }

    /// The body of a record that was deleted here and not yet at the centre.
    pub fn pending_trash(&self, key: &RecordKey) -> Result<Option<TrashRow>, StoreError> {
        let (code, id) = row_key(key);
        // A body that is damaged is no reason not to send the delete: what the centre has is archived there.
        for entry in self.trash.range((code, id, 0)..=(code, id, u64::MAX))?.sound().rev() {
            let (at, row) = entry?;
            let row = TrashRow::decode(key.clone(), at.value().2, row.value())?;
            if row.state == TrashState::Pending {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Makes sure that the trash holds this body of a record that was deleted here.
    pub fn keep_in_trash(&mut self, key: &RecordKey, document: &Document) -> Result<(), StoreError> {
        let (code, id) = row_key(key);
        for entry in self.trash.range((code, id, 0)..=(code, id, u64::MAX))?.sound() {
            let (at, row) = entry?;
            let kept = TrashRow::decode(key.clone(), at.value().2, row.value())?;
            if same_document(&kept.document, document) {
                return Ok(());
            }
        }
        self.put_trash(key, document, &Actor::Centre, TrashState::Done)
    }

    /// Puts a version into the trash that was given up for the centre's.
    pub(crate) fn trash_given_up(
        &mut self,
        key: &RecordKey,
        document: &Document,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        self.put_trash(key, document, actor, TrashState::Done)
    }

    /// Puts a body that the centre deleted into the trash.
    pub fn discard(&mut self, key: &RecordKey, document: &Document) -> Result<(), StoreError> {
        self.put_trash(key, document, &Actor::Centre, TrashState::Done)
    }

    /// Puts a body that waited here apart, as another person's of the account, into the trash.
    pub fn discard_held(&mut self, key: &RecordKey, document: &Document) -> Result<(), StoreError> {
        let row =
            doc! {"actor": Actor::Centre.to_string(), "state": TrashState::Done.name(), HELD_APART: true};
        self.put_trash_row(key, document, row)
    }

    /// What is in the trash of `person`, whose account was `account` until now, goes with them to `new`. What waited
    /// apart was another person's, and so was what was deleted before the last person of the account had gone.
    pub fn give_trash(&mut self, account: &str, person: &Document, new: &str) -> Result<(), StoreError> {
        let given_at = self.last_trash_number()?;
        self.change_trash_of(account, person, |row, owner| {
            row.insert(GIVEN_AT, given_at as i64);
            if let Ok(document) = row.get_document_mut("document") {
                document.insert(owner, new);
            }
        })
    }

    /// Notes that the present holder of the account is this `person`, by decision, although their identities differ.
    pub(in crate::store) fn note_trash_same(
        &mut self,
        account: &str,
        person: &Document,
        now: &Document,
    ) -> Result<(), StoreError> {
        let now = identity_row(now);
        self.change_trash_of(account, person, |row, _| {
            row.insert(IDENTITY, now.clone());
        })
    }

    /// Changes each row of the trash that is of this `person`; `change` is told in which field a body names its owner.
    fn change_trash_of(
        &mut self,
        account: &str,
        person: &Document,
        change: impl Fn(&mut Document, &str),
    ) -> Result<(), StoreError> {
        let account = fold_account(account);
        let mut theirs = Vec::new();
        for entry in self.trash.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id, sequence) = at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            let Owner::Field(field) = key.kind.schema().owner else {
                continue;
            };
            let summary = TrashSummary::decode(key, sequence, row.value())?;
            if summary.owner.as_ref() != Some(&account) {
                continue;
            }
            let whose = TrashRow::decode(summary.key.clone(), sequence, row.value())?.whose;
            if !self.was_of(&whose, person)? {
                continue;
            }
            let mut row = decode(row.value())?;
            change(&mut row, field);
            theirs.push((summary.key, sequence, row));
        }
        for (key, sequence, row) in theirs {
            let (code, id) = row_key(&key);
            self.trash.insert((code, id, sequence), encode(&row)?.as_slice())?;
            let owner = row.get_document("document").ok().and_then(|body| key.kind.schema().owner_of(body));
            self.trash_owner.insert(sequence, owner.unwrap_or_default().as_str())?;
            self.wrote();
        }
        Ok(())
    }

    /// Closes every pending body of the record.
    pub fn settle_trash(&mut self, key: &RecordKey, state: TrashState) -> Result<(), StoreError> {
        self.settle_trash_as(key, state, None)
    }

    /// The delete of a record was not of this `person`, who has it, and is not sent: its bodies are theirs too.
    pub fn void_trash_of(&mut self, key: &RecordKey, person: &Document) -> Result<(), StoreError> {
        self.settle_trash_as(key, TrashState::Void, Some(identity_row(person)))
    }

    fn settle_trash_as(
        &mut self,
        key: &RecordKey,
        state: TrashState,
        person: Option<Document>,
    ) -> Result<(), StoreError> {
        while let Some(pending) = self.pending_trash(key)? {
            let (code, id) = row_key(key);
            let at = (code, id, pending.sequence);
            let mut row = match self.trash.get(at)? {
                Some(row) => decode(row.value())?,
                None => return Ok(()),
            };
            row.insert("state", state.name());
            row.extend(person.clone().map(|person| (IDENTITY.to_owned(), person.into())));
            self.trash.insert(at, encode(&row)?.as_slice())?;
            self.wrote();
        }
        Ok(())
    }

    /// The row of the trash with this number.
    pub(in crate::store) fn trashed(&self, sequence: u64) -> Result<Option<TrashRow>, StoreError> {
        let Some(key) = key_of(&self.trash_order, sequence)? else {
            return Ok(None);
        };
        let (code, id) = row_key(&key);
        let row = self.trash.get((code, id, sequence))?;
        row.map(|row| TrashRow::decode(key.clone(), sequence, row.value())).transpose()
    }
}

impl Tx<'_> {
    /// The body of the person who had the account last, from the trash; nothing but their identity if it is not there
    /// any more.
    pub fn departed_body(&self, key: &RecordKey) -> Result<Option<Document>, StoreError> {
        let (code, id) = row_key(key);
        let identity = self.departed(&key.id)?;
        // Others may have had the account before.
        let is_theirs = |body: &Document| identity.as_ref().is_none_or(|last| same_identity(last, body));
        for entry in self.trash.range((code, id, 0)..=(code, id, u64::MAX))?.sound().rev() {
            let (at, row) = entry?;
            let row = TrashRow::decode(key.clone(), at.value().2, row.value())?;
            if is_theirs(&row.document) {
                return Ok(Some(row.document));
            }
        }
        Ok(identity.map(|mut identity| {
            identity.insert("_id", id);
            identity
        }))
    }
}

impl Snapshot {
    /// Bytes of a row, if there is one.
    pub fn trashed_bytes(&self, sequence: u64) -> Result<usize, StoreError> {
        let Some(key) = key_of(&self.transaction.open_table(TRASH_ORDER)?, sequence)? else {
            return Ok(0);
        };
        let (code, id) = row_key(&key);
        let trash = self.transaction.open_table(TRASH)?;
        let row = trash.get((code, id, sequence))?;
        Ok(row.map_or(0, |row| row.value().len()))
    }

    /// Bodies of deleted records, by record and then oldest first.
    pub fn trash(&self) -> Result<Vec<TrashRow>, StoreError> {
        let trash = self.transaction.open_table(TRASH)?;
        let mut rows = Vec::new();
        for entry in trash.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id, sequence) = at.value();
            rows.push(TrashRow::decode(RecordKey::new(kind_of(code)?, id), sequence, row.value())?);
        }
        Ok(rows)
    }

    /// The rows that are `wanted`, newest first, at most `limit`; with `before` only those with lower numbers. Rows of which
    /// it is noted whose they are, and that are then not in `reach`, are not read.
    pub fn trash_page(
        &self,
        before: Option<u64>,
        limit: usize,
        reach: impl Fn(Kind, Option<&str>) -> bool,
        wanted: impl Fn(&TrashSummary) -> Result<bool, StoreError>,
    ) -> Result<TrashPage, StoreError> {
        let owners = self.transaction.open_table(TRASH_OWNER)?;
        let trash = self.transaction.open_table(TRASH)?;
        let order = self.transaction.open_table(TRASH_ORDER)?;
        let mut page = TrashPage { rows: Vec::new(), next: None };
        let mut last = None;
        for (looked, entry) in order.range(..(before.unwrap_or(u64::MAX), 0, ""))?.rev().enumerate() {
            if looked == LOOK_ROWS_MAX {
                page.next = last;
                break;
            }
            let (at, _) = entry?;
            let (sequence, code, id) = at.value();
            let owner = owners.get(sequence)?;
            let owner = owner.as_ref().map(|owner| Some(owner.value()).filter(|owner| !owner.is_empty()));
            let kind = kind_of(code)?;
            if owner.is_some_and(|owner| !reach(kind, owner)) {
                last = Some(sequence);
                continue;
            }
            // One that is damaged is left out, and counted by who lists them.
            let row = match unless_damaged(trash.get((code, id, sequence)))? {
                Some(Some(row)) => row,
                Some(None) if !self.transaction.has_damage() => return Err(damaged("an index")),
                // Or its key is.
                None | Some(None) => {
                    last = Some(sequence);
                    continue;
                }
            };
            let summary = TrashSummary::decode(RecordKey::new(kind, id), sequence, row.value())?;
            let is_wanted = wanted(&summary)?;
            // Rows that are not wanted must not show themselves as a next page with nothing on it.
            if is_wanted && page.rows.len() == limit {
                page.next = last;
                break;
            }
            last = Some(sequence);
            page.rows.extend(is_wanted.then_some(summary));
        }
        Ok(page)
    }

    /// The row of the trash with this number, and the body in it.
    pub fn trashed(&self, sequence: u64) -> Result<Option<(TrashSummary, Document)>, StoreError> {
        let Some(key) = key_of(&self.transaction.open_table(TRASH_ORDER)?, sequence)? else {
            return Ok(None);
        };
        let (code, id) = row_key(&key);
        let trash = self.transaction.open_table(TRASH)?;
        let Some(row) = trash.get((code, id, sequence))? else {
            return Ok(None);
        };
        let summary = TrashSummary::decode(key.clone(), sequence, row.value())?;
        Ok(Some((summary, TrashRow::decode(key.clone(), sequence, row.value())?.document)))
    }
}

pub(in crate::store) fn key_of(
    order: &impl ReadableTable<(u64, u8, &'static str), ()>,
    sequence: u64,
) -> Result<Option<RecordKey>, StoreError> {
    let Some(entry) = order.range((sequence, 0, "")..)?.next() else {
        return Ok(None);
    };
    let (at, _) = entry?;
    let (found, code, id) = at.value();
    if found == sequence { Ok(Some(RecordKey::new(kind_of(code)?, id))) } else { Ok(None) }
}

/// Fills `trash_order` in a store that does not have it yet.
pub(in crate::store) fn index_trash(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let trash = open_for_writing(transaction, &std::sync::Arc::default(), TRASH)?;
    let mut order = transaction.open_table(TRASH_ORDER)?;
    if order.is_empty()? {
        for at in trash.keys::<(u8, &str, u64)>(..)? {
            let at = at?;
            let (code, id, sequence) = at.value();
            order.insert((sequence, code, id), ())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
