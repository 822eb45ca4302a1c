//! Floor 1. Damaged rows that are no records: what the node knows beside them, one table at a time.
//!
//! Such a row keeps every backup from being made, and nothing brings it back. It goes into a file as a record does, and
//! what depends on it is left as if it had never been, on the side where people are asked once more: roles are gone, an
//! account counts as another one's. What says whose records are, or what waits for a decision, follows the rule of
//! `lost_questions.rs`. An entry of the audit trail keeps its place and its hash, so that the chain goes on, and says no more
//! than that it cannot be read.

use std::collections::BTreeSet;
use std::path::PathBuf;

use redb::{Key, ReadableTable as _, TableDefinition, TableError, Value};

use super::damaged_accounts::{RowOf, accounts_in};
use super::set_aside::{DIRECTORY, SetAsideError, keep};
use crate::domain::access::Actor;
use crate::domain::audit::{Entry, What};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::files::directory_of;
use crate::store::conflicts::{Conflict, ConflictStatus, Subject};
use crate::store::engine::{Snapshot, Store, Tx};
use crate::store::error::{DamagedRow, StoreError};
use crate::store::rows::{RowKey, RowName, RowsDefinition, SUM_BYTES, damaged, kind_of, raw};
use crate::store::schema::{
    BASE, CONFLICT, DELIVERED, DOCS, EachTable, GHOST, HOLD, INTENT, META_JOURNAL_START, UNDECIDED,
    each_table,
};
use crate::store::sync::Reread;

/// Tables whose damaged rows are a record's: it is set aside as a whole.
const OF_RECORDS: [RowsDefinition<RowKey>; 6] = [DOCS, BASE, INTENT, DELIVERED, UNDECIDED, GHOST];

/// Where a row stands when all that are damaged are set aside one by one. A person goes while it is still known what is
/// asked about them, and what waits before what it waits for; a change takes along all that came before it.
pub(in crate::store) fn place_when_set_aside(row: &DamagedRow) -> (u8, String, Option<Kind>, u64, String) {
    let rank = match row.table.as_str() {
        table if OF_RECORDS.iter().any(|of| of.name() == table) && row.kind.is_some() => 1,
        table if table == HOLD.name() => 2,
        table if table == CONFLICT.name() => 3,
        _ => 0,
    };
    // The rows of one record stand together.
    let table = if rank == 1 { String::new() } else { row.table.clone() };
    let number = if row.kind.is_none() { row.id.parse().unwrap_or_default() } else { 0 };
    (rank, table, row.kind, number, row.id.clone())
}

/// Which rows are set aside: the damaged ones of a table with this kind and id, as they are listed, or all damaged ones.
#[derive(Debug, Clone)]
pub struct AsideRows {
    pub table: String,
    pub kind: Option<Kind>,
    pub id: Option<String>,
}

/// A damaged row as it stands in the file.
#[derive(Debug, Clone)]
struct FoundRow {
    name: (Option<Kind>, String),
    key: Vec<u8>,
    row: Vec<u8>,
}

impl FoundRow {
    /// What can be read of the value, whatever it is worth.
    fn left(&self) -> &[u8] {
        self.row.get(..self.row.len().saturating_sub(SUM_BYTES)).unwrap_or_default()
    }
}

impl Store {
    /// Sets damaged rows of one table aside; returns the file that has them now, and how many. The file is on disk before
    /// anything is removed.
    pub async fn set_aside_rows(&self, which: AsideRows) -> Result<(PathBuf, usize), SetAsideError> {
        let file = self.inner.file.as_ref().ok_or(SetAsideError::NoDirectory)?;
        let directory = directory_of(&file.path).join(DIRECTORY);
        let (store, table) = (self.clone(), which.table.clone());
        let looked = tokio::task::spawn_blocking(move || store.read()?.damaged_in(&which));
        let looked = looked.await.map_err(|error| StoreError::Damaged(error.to_string()))?;
        let rows = looked?.ok_or(SetAsideError::NoTable)?;
        // A kind that no record has is nobody's.
        let is_of_record = |row: &FoundRow| row.name.0.is_some();
        if OF_RECORDS.iter().any(|of| of.name() == table) && rows.iter().any(is_of_record) {
            return Err(SetAsideError::OfRecord);
        }
        if rows.is_empty() {
            return Err(SetAsideError::NotDamaged);
        }
        let lines = rows.iter().map(|row| {
            let collection = row.name.0.map_or("", |kind| kind.schema().collection);
            (collection, row.name.1.as_str(), table.as_str(), row.row.as_slice())
        });
        let path = keep(&directory, &table, lines)?;
        let (name, count) = (path.display().to_string(), rows.len());
        self.transact(move |tx| -> Result<(), StoreError> {
            for row in &rows {
                tx.drop_row(&table, row)?;
                let collection = row.name.0.map_or("", |kind| kind.schema().collection);
                let said = format!("{table} {name}");
                tx.audit_asked(What::SetAside, |event| {
                    event.about(collection, &row.name.1, None).saying(&said)
                })?;
            }
            Ok(())
        })
        .await?;
        self.settle_damage().await?;
        tracing::warn!(file = %path.display(), rows = count, "damaged rows were set aside");
        Ok((path, count))
    }
}

struct Finding<'a> {
    snapshot: &'a Snapshot,
    which: &'a AsideRows,
    found: Option<Vec<FoundRow>>,
}

impl EachTable for Finding<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    fn rows<K: RowName>(&mut self, definition: RowsDefinition<K>) -> Result<(), StoreError> {
        if definition.name() != self.which.table {
            return Ok(());
        }
        let found = self.found.insert(Vec::new());
        let table = match self.snapshot.transaction.open_table(definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            table => table?,
        };
        let keys = match &self.which.id {
            Some(id) => table.damaged_named(self.which.kind, id)?,
            None => table.all_damaged()?,
        };
        for key in keys {
            let at = K::from_bytes(&key);
            let (code, id) = K::row_name(&at);
            let row = table.unchecked(at)?.unwrap_or_default();
            found.push(FoundRow { name: (code.and_then(Kind::from_code), id), key: key.clone(), row });
        }
        Ok(())
    }
}

impl Snapshot {
    /// The damaged rows that are meant; `None` if there is no such table of rows with checksums.
    fn damaged_in(&self, which: &AsideRows) -> Result<Option<Vec<FoundRow>>, StoreError> {
        let mut finding = Finding { snapshot: self, which, found: None };
        each_table(&mut finding)?;
        Ok(finding.found)
    }
}

/// The accounts of which a row under the key of an account may have been.
fn named(account: &str, left: &[u8]) -> BTreeSet<String> {
    let mut named = accounts_in(left);
    named.insert(fold_account(account));
    named
}

/// Removes a row by the bytes of its key.
macro_rules! remove {
    ($rows:expr, $key:ty, $bytes:expr) => {
        $rows.remove(<$key as Value>::from_bytes($bytes))?
    };
}

impl Tx<'_> {
    /// Removes a damaged row, and what would be without sense then.
    fn drop_row(&mut self, table: &str, found: &FoundRow) -> Result<(), StoreError> {
        let (key, id) = (found.key.as_slice(), found.name.1.as_str());
        let left = found.left();
        let record = found.name.0.map(|kind| RecordKey::new(kind, id));
        // Whose the row was says its key, or what is left of it.
        let removed = match table {
            "docs" => remove!(self.docs, RowKey, key),
            "base" => remove!(self.base, RowKey, key),
            "intent" => remove!(self.intent, RowKey, key),
            "delivered" => remove!(self.delivered, RowKey, key),
            "unsent_versions" => remove!(self.unsent_versions, RowKey, key),
            "undecided" => remove!(self.undecided, RowKey, key),
            "ghost" => remove!(self.ghost, RowKey, key),
            "dead" => remove!(self.dead, RowKey, key),
            "waiting" => remove!(self.waiting, RowKey, key),
            "restore" => remove!(self.restore, RowKey, key),
            "former_dates" => remove!(self.former_dates, RowKey, key),
            "held" => self.drop_held(key, left)?,
            "hold" => self.drop_hold(id, left)?,
            "departed" => self.drop_departed(id, left)?,
            "meant" => self.drop_meant(id, left)?,
            "newcomer" => self.drop_newcomer(id, left)?,
            "journal" => self.cut_journal(<u64 as Value>::from_bytes(key))?,
            "trash" => {
                let (code, id, sequence) = <(u8, &str, u64) as Value>::from_bytes(key);
                // Under the key that it had, if it is the key that is damaged.
                self.trash_order.retain_in((sequence, 0, "")..(sequence + 1, 0, ""), |_, _| false)?;
                self.trash_owner.remove(sequence)?;
                self.trash.remove((code, id, sequence))?
            }
            "conflict" => self.drop_conflict(id, left)?,
            "grants" => {
                self.rights_changed(&Actor::Person(id.to_owned()))?;
                self.grants.remove(id)?
            }
            "local_accounts" => {
                self.rights_changed(&Actor::Local(id.to_owned()))?;
                self.local_accounts.remove(id)?
            }
            "content" => self.drop_content(id)?,
            "sent" => self.drop_sent(<u64 as Value>::from_bytes(key))?,
            "emergency" => remove!(self.emergency, u64, key),
            "audit" => {
                let seq = <u64 as Value>::from_bytes(key);
                let value = self.audit.unchecked_value(seq)?.unwrap_or_default();
                let hash = Entry::without_content(&value);
                self.audit.insert(seq, &hash)?;
                true
            }
            other => return Err(StoreError::Damaged(format!("rows of {other:?} cannot be set aside"))),
        };
        if let Some(record) = record.filter(|_| ["dead", "restore", "held"].contains(&table)) {
            self.ask_again(&record, Reread { is_alone: table == "dead", ..Reread::default() })?;
        }
        if removed {
            self.wrote();
        }
        Ok(())
    }

    /// Removes a document that waits behind a hold, whatever its row is worth. It is read again.
    fn drop_held(&mut self, key: &[u8], left: &[u8]) -> Result<bool, StoreError> {
        let (code, id) = <RowKey as Value>::from_bytes(key);
        let removed = self.drop_all_held(&BTreeSet::from([(code, id.to_owned())]))?;
        let named = raw(left).and_then(|row| {
            let id = row.get_document("document").and_then(|document| document.get_str("_id"));
            id.map(str::to_owned).map_err(|_| damaged("a held record"))
        });
        if let (Ok(named), Some(kind)) = (named, Kind::from_code(code)) {
            self.ask_again(&RecordKey::new(kind, named), Reread::default())?;
        }
        self.put_questions_back()?;
        Ok(removed)
    }

    /// The same for many, in one pass. Returns whether there was any.
    pub(in crate::store) fn drop_all_held(
        &mut self,
        keys: &BTreeSet<(u8, String)>,
    ) -> Result<bool, StoreError> {
        if keys.is_empty() {
            return Ok(false);
        }
        // The row that would say behind which account it waits may be the damaged one.
        self.held_of.retain(|(_, code, id), ()| !keys.contains(&(code, id.to_owned())))?;
        let mut was_any = false;
        for (code, id) in keys {
            was_any |= self.held.remove((*code, id.as_str()))?;
        }
        Ok(was_any)
    }

    /// Removes a hold. The conflict puts it back, or else the account is closed.
    fn drop_hold(&mut self, account: &str, left: &[u8]) -> Result<bool, StoreError> {
        let removed = self.hold.remove(account)?;
        self.put_questions_back()?;
        self.close_accounts(account, left)?;
        Ok(removed)
    }

    fn close_accounts(&mut self, account: &str, left: &[u8]) -> Result<(), StoreError> {
        let remote = raw(left).ok().and_then(|row| row.get_str("remote").ok().map(str::to_owned));
        for account in named(account, left) {
            self.close_account(&account, remote.as_deref())?;
        }
        Ok(())
    }

    /// The former holder of the account is not known any more, so nobody is taken for them.
    fn drop_departed(&mut self, account: &str, left: &[u8]) -> Result<bool, StoreError> {
        let of = self.row_of(account, left)?;
        let removed = self.departed.remove(account)?;
        let accounts = match &of {
            RowOf::Accounts(accounts) => accounts.clone(),
            RowOf::Anybody => self.accounts_in_trash()?,
        };
        for account in accounts {
            self.forget_who_departed(&account)?;
        }
        self.remember_unknown(&of)?;
        Ok(removed)
    }

    fn drop_meant(&mut self, account: &str, left: &[u8]) -> Result<bool, StoreError> {
        let of = self.row_of(account, left)?;
        let removed = self.meant.remove(account)?;
        let accounts = match of {
            RowOf::Accounts(accounts) => accounts,
            RowOf::Anybody => self.awaiting_accounts()?,
        };
        for account in accounts {
            if !self.meant.contains(account.as_str())? {
                self.forget_who_was_meant(&account)?;
            }
        }
        Ok(removed)
    }

    fn drop_newcomer(&mut self, account: &str, left: &[u8]) -> Result<bool, StoreError> {
        let of = self.row_of(account, left)?;
        let removed = self.newcomer.remove(account)?;
        let mut accounts = BTreeSet::new();
        match of {
            RowOf::Accounts(of) => accounts = of,
            RowOf::Anybody => {
                for entry in self.duplicate.iter()? {
                    accounts.insert(entry?.0.value().to_owned());
                }
            }
        }
        for account in accounts {
            if !self.newcomer.contains(account.as_str())? {
                self.forget_who_came(&account)?;
            }
        }
        Ok(removed)
    }

    /// Removes a conflict. What waits for it puts it back; the value that lost is gone. If it may have been about people and
    /// nothing puts it back, their account is closed.
    fn drop_conflict(&mut self, id: &str, left: &[u8]) -> Result<bool, StoreError> {
        let mut open = Vec::new();
        for entry in self.conflict_open.iter()? {
            let (at, ()) = (entry?.0, ());
            let (code, record, conflict) = at.value();
            if conflict == id {
                open.push((code, record.to_owned()));
            }
        }
        for (code, record) in &open {
            self.conflict_open.remove((*code, record.as_str(), id))?;
            self.ask_again(&RecordKey::new(kind_of(*code)?, record.as_str()), Reread::default())?;
        }
        self.conflict_about.remove(id)?;
        self.conflict_outbox.remove(id)?;
        self.conflict_watched.remove(id)?;
        let removed = self.conflict.remove(id)?;
        self.put_questions_back()?;
        let said = Conflict::decode(left).ok();
        if said.as_ref().is_none_or(|said| said.subject == Subject::Identity) {
            let said = said.filter(|said| said.status == ConflictStatus::Open).map(|said| said.key);
            let open = open.into_iter().filter(|(code, _)| *code == Kind::Person.schema().code);
            for account in open.map(|(_, id)| id).chain(said.map(|key| key.id)) {
                self.close_account(&account, None)?;
            }
        }
        Ok(removed)
    }

    /// Ends the change feed's memory at this change: readers that have not passed it start over.
    pub(in crate::store) fn cut_journal(&mut self, through: u64) -> Result<bool, StoreError> {
        let last = self.last_sequence();
        self.journal.remove_range(..=through)?;
        if self.journal.is_empty()? {
            self.meta.insert(META_JOURNAL_START, last.to_be_bytes().as_slice())?;
        }
        Ok(true)
    }

    /// Removes all pieces of an attachment; it is fetched again if a record names it.
    fn drop_content(&mut self, sha256: &str) -> Result<bool, StoreError> {
        self.content_owed.remove(sha256)?;
        self.content_idle.remove(sha256)?;
        if !self.refetch_damaged(sha256)? {
            self.content.remove_range((sha256, 0)..=(sha256, u32::MAX))?;
        }
        Ok(true)
    }

    fn drop_sent(&mut self, number: u64) -> Result<bool, StoreError> {
        let mut echoes = Vec::new();
        for entry in self.echo.iter()? {
            let (at, ()) = (entry?.0, ());
            let (code, id, of) = at.value();
            if of == number {
                echoes.push((code, id.to_owned()));
            }
        }
        for (code, id) in echoes {
            self.echo.remove((code, id.as_str(), number))?;
        }
        self.sent.remove(number)
    }
}

#[cfg(test)]
mod tests;
