//! Floor 1. What is noted beside the rows, made when a store is opened that lacks it or that an earlier version has written to.
//!
//! Such a version writes records and leaves alone what it does not know: whose they are stays as it was, and who has a record
//! now would be kept from it. `meta` says which process wrote last while this was kept; every version says there which process
//! changed a record last. Where the two differ, all is made anew.
//!
//! A large store takes minutes. So this goes in transactions of a bounded size, each of which says how far it has come: who
//! is ended meanwhile goes on from there. The service manager is asked for time, and the log says what is going on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use redb::{ReadableTable as _, WriteTransaction};

use crate::domain::record::{Kind, RecordKey};
use crate::store::conflicts::{Conflict, about};
use crate::store::engine::{Carry, StoreOptions, Tx};
use crate::store::error::{StoreError, unless_unreadable};
use crate::store::holders::{are_ownerless_indexed, index_ownerless};
use crate::store::records::is_named_in_record;
use crate::store::rows::{Fields, code_in, encode, kind_of, open_for_writing, raw, text_in};
use crate::store::schema::{BY_OWNER, CONFLICT, CONFLICT_ABOUT, META, OWNER_OF, TRASH, TRASH_OWNER};
use crate::store::sync::last_boot;
use crate::store::trash::TrashSummary;

/// In `meta`: which process was the last that kept these notes, and how far they are made.
const META_NOTED: &str = "noted";
/// Rows, and bytes of rows, that one transaction goes through.
const ROWS_MAX: u64 = if cfg!(test) { 3 } else { 20_000 };
const BYTES_MAX: usize = 32 << 20;
/// How often the log and the service manager are told that it goes on, and how long the latter waits for the next word.
const WORD_INTERVAL: Duration = Duration::from_secs(10);
const WORD_LASTS: Duration = Duration::from_secs(180);

/// The steps, in order.
const OWNERLESS: i32 = 0;
const RECORDS: i32 = 1;
const TRASHED: i32 = 2;
const CONFLICTS: i32 = 3;
const HOLDERS: i32 = 4;
const DONE: i32 = 5;

/// How far it has come, and what may be done before the next commit.
pub(in crate::store) struct Starting {
    rows_left: u64,
    bytes_left: usize,
    rows: u64,
    began: Instant,
    said: Instant,
}

/// Where the next step begins.
pub(in crate::store) struct Place {
    boot: String,
    step: i32,
    /// The last row that was gone through.
    at: Option<Document>,
}

impl Place {
    pub(in crate::store) fn decode(row: &[u8]) -> Result<Place, StoreError> {
        let row = Fields::of(row, "how far owners are noted")?;
        Ok(Place {
            boot: row.text("boot")?.to_owned(),
            step: row.int32("step")?,
            at: row.document_if_any("at")?,
        })
    }

    fn row(&self) -> Document {
        let mut row = doc! {"boot": &self.boot, "step": self.step};
        row.extend(self.at.clone().map(|at| ("at".to_owned(), at.into())));
        row
    }
}

impl Starting {
    pub(in crate::store) fn new() -> Starting {
        let now = Instant::now();
        Starting { rows_left: ROWS_MAX, bytes_left: BYTES_MAX, rows: 0, began: now, said: now }
    }

    /// Goes on with what is left to do, as far as one transaction goes. Returns whether all is done.
    pub(in crate::store) fn go_on(&mut self, transaction: &WriteTransaction) -> Result<bool, StoreError> {
        (self.rows_left, self.bytes_left) = (ROWS_MAX, BYTES_MAX);
        let (boot, found) = {
            let meta = transaction.open_table(META)?;
            let found = meta.get(META_NOTED)?.map(|row| Place::decode(row.value())).transpose();
            // All is noted anew, which is right whatever was noted before.
            (last_boot(&meta)?, unless_unreadable(found)?.flatten())
        };
        let has_ownerless = are_ownerless_indexed(transaction)?;
        let place = found.filter(|place| place.boot == boot && (has_ownerless || place.step == OWNERLESS));
        let mut place = match place {
            Some(place) if place.step == DONE => return Ok(true),
            Some(place) => place,
            None => {
                transaction.delete_table(OWNER_OF)?;
                transaction.delete_table(TRASH_OWNER)?;
                transaction.delete_table(CONFLICT_ABOUT)?;
                Place { boot, step: if has_ownerless { RECORDS } else { OWNERLESS }, at: None }
            }
        };
        while place.step != DONE && self.rows_left > 0 && self.bytes_left > 0 {
            let at = place.at.take();
            place.at = match place.step {
                OWNERLESS => index_ownerless(transaction, at.as_ref(), |bytes| self.has_passed(bytes))?,
                RECORDS => self.note_records(transaction, at.as_ref())?,
                TRASHED => self.note_trash(transaction, at.as_ref())?,
                CONFLICTS => self.note_conflicts(transaction, at.as_ref())?,
                HOLDERS => self.begin_holders(transaction, at.as_ref())?,
                _ => None,
            };
            if place.at.is_none() {
                place.step += 1;
            }
        }
        let row = encode(&place.row())?;
        transaction.open_table(META)?.insert(META_NOTED, row.as_slice())?;
        let is_done = place.step == DONE;
        if is_done && self.rows >= ROWS_MAX {
            let seconds = self.began.elapsed().as_secs();
            tracing::info!(rows = self.rows, seconds, "whose the records are is noted");
        }
        Ok(is_done)
    }

    /// A row of so many bytes was gone through. Returns whether the transaction has room for another one.
    pub(in crate::store) fn has_passed(&mut self, bytes: usize) -> bool {
        self.rows += 1;
        self.rows_left = self.rows_left.saturating_sub(1);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        if self.said.elapsed() >= WORD_INTERVAL {
            self.said = Instant::now();
            tracing::info!(
                rows = self.rows,
                "the store was written by an earlier version: whose its records are is being noted, once"
            );
            ask_for_time();
        }
        self.rows_left > 0 && self.bytes_left > 0
    }

    /// Notes whose records are, as the index of owners says, also those that are damaged.
    fn note_records(
        &mut self,
        transaction: &WriteTransaction,
        at: Option<&Document>,
    ) -> Result<Option<Document>, StoreError> {
        let mut owner_of = transaction.open_table(OWNER_OF)?;
        let by_owner = transaction.open_table(BY_OWNER)?;
        let first = (code_in(at), text_in(at, "owner"), text_in(at, "id"));
        for entry in by_owner.range((first.0, first.1.as_str(), first.2.as_str())..)? {
            let (row, _) = entry?;
            if at.is_some() && row.value() == (first.0, first.1.as_str(), first.2.as_str()) {
                continue;
            }
            let (code, owner, id) = row.value();
            if Kind::from_code(code).is_some_and(is_named_in_record) {
                owner_of.insert((code, id), owner)?;
            }
            if !self.has_passed(id.len()) {
                return Ok(Some(doc! {"code": i32::from(code), "owner": owner, "id": id}));
            }
        }
        Ok(None)
    }

    /// What is damaged keeps nobody from the rest: of it the row itself is asked.
    fn note_trash(
        &mut self,
        transaction: &WriteTransaction,
        at: Option<&Document>,
    ) -> Result<Option<Document>, StoreError> {
        let mut trash_owner = transaction.open_table(TRASH_OWNER)?;
        let number = at.and_then(|at| at.get_i64("number").ok()).unwrap_or_default() as u64;
        let first = (code_in(at), text_in(at, "id"), number);
        let trash = open_for_writing(transaction, &Arc::default(), TRASH)?;
        for entry in trash.range((first.0, first.1.as_str(), first.2)..)?.sound() {
            let (row_at, row) = entry?;
            if at.is_some() && row_at.value() == (first.0, first.1.as_str(), first.2) {
                continue;
            }
            let (code, id, number) = row_at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            if let Ok(summary) = TrashSummary::decode(key, number, row.value()) {
                trash_owner.insert(number, summary.owner.as_deref().unwrap_or_default())?;
            }
            if !self.has_passed(row.value().len()) {
                return Ok(Some(doc! {"code": i32::from(code), "id": id, "number": number as i64}));
            }
        }
        Ok(None)
    }

    fn note_conflicts(
        &mut self,
        transaction: &WriteTransaction,
        at: Option<&Document>,
    ) -> Result<Option<Document>, StoreError> {
        let mut conflict_about = transaction.open_table(CONFLICT_ABOUT)?;
        let first = text_in(at, "id");
        let conflicts = open_for_writing(transaction, &Arc::default(), CONFLICT)?;
        for entry in conflicts.range(first.as_str()..)?.sound() {
            let (id, row) = entry?;
            if at.is_some() && id.value() == first {
                continue;
            }
            if let Ok(conflict) = raw(row.value()).and_then(Conflict::head) {
                conflict_about.insert(id.value(), about(&conflict))?;
            }
            if !self.has_passed(row.value().len()) {
                return Ok(Some(doc! {"id": id.value()}));
            }
        }
        Ok(None)
    }

    /// Who has an account that somebody else had before: see `holders/holder_since.rs`.
    fn begin_holders(
        &mut self,
        transaction: &WriteTransaction,
        at: Option<&Document>,
    ) -> Result<Option<Document>, StoreError> {
        let options = StoreOptions {
            cache_bytes: 0,
            journal_keep_rows: u64::MAX,
            audit_keep_rows: u64::MAX,
            clock: || 0,
        };
        let mut carry = Carry::default();
        Tx::open(transaction, &options, &mut carry)?.begin_holders(at, |bytes| self.has_passed(bytes))
    }
}

/// Asks the service manager to wait for the next word.
pub(in crate::store) fn ask_for_time() {
    let microseconds = u32::try_from(WORD_LASTS.as_micros()).unwrap_or(u32::MAX);
    // Where there is none, nobody waits either.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::ExtendTimeoutUsec(microseconds)]);
}

impl Tx<'_> {
    /// The process of this name writes from now on, and keeps these notes.
    pub(in crate::store) fn note_keeper(&mut self, boot: &str) -> Result<(), StoreError> {
        self.set_meta(META_NOTED, Some(&Place { boot: boot.to_owned(), step: DONE, at: None }.row()))
    }
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _};

    use super::*;
    use crate::domain::access::Actor;
    use crate::store::Store;
    use crate::store::schema::{DEPARTED, HOLDER_SINCE};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 7 };

    /// The present holders of accounts begin in steps too, however long the audit trail is.
    #[tokio::test]
    async fn holders_begin_in_steps_that_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, OPTIONS).unwrap();
        store
            .transact(|tx| -> Result<(), StoreError> {
                for n in 0..10 {
                    let key = RecordKey::new(Kind::Person, format!("P{n}"));
                    let person = |name: &str| doc! {"_id": &key.id, "name": name, "lastname": name};
                    tx.edit(&key, Some(&person("Anna")), &Actor::Operator(0))?;
                    tx.edit(&key, None, &Actor::Operator(0))?;
                    if n % 2 == 0 {
                        tx.edit(&key, Some(&person("Berthold")), &Actor::Operator(0))?;
                    }
                }
                Ok(())
            })
            .await
            .unwrap();
        drop(store);
        let (mut starts, mut noted) = (0, 0);
        loop {
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            if starts == 0 {
                transaction.delete_table(HOLDER_SINCE).unwrap();
                // Half of those who are gone are known by their entries in the trail alone.
                let mut departed = open_for_writing(&transaction, &Arc::default(), DEPARTED).unwrap();
                for n in 5..10 {
                    departed.remove(format!("P{n}").as_str()).unwrap();
                }
                let mut meta = transaction.open_table(META).unwrap();
                let boot = last_boot(&meta).unwrap();
                let row = Place { boot, step: HOLDERS, at: None }.row();
                meta.insert(META_NOTED, encode(&row).unwrap().as_slice()).unwrap();
            }
            let is_done = Starting::new().go_on(&transaction).unwrap();
            transaction.commit().unwrap();
            starts += 1;
            let now = database.begin_read().unwrap().open_table(HOLDER_SINCE).unwrap().len().unwrap();
            assert!(now - noted <= ROWS_MAX, "{noted} {now}");
            noted = now;
            if is_done {
                break;
            }
        }
        // Three accounts of Berthold, and five of whom only the trail tells. P1 and P3 have nobody now, and it is known who had
        // them.
        assert_eq!(noted, 8);
        assert!(starts > 25 / ROWS_MAX, "{starts}");
    }

    /// However often it is ended meanwhile, it comes to its end, and no transaction goes through everything.
    #[tokio::test]
    async fn a_large_store_is_noted_in_steps_that_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, OPTIONS).unwrap();
        store
            .transact(|tx| -> Result<(), StoreError> {
                for n in 0..20 {
                    let key = RecordKey::new(Kind::Event, format!("e{n}"));
                    tx.edit(&key, Some(&doc! {"_id": &key.id, "person": "ANA"}), &Actor::Operator(0))?;
                    if n < 10 {
                        tx.edit(&key, None, &Actor::Operator(0))?;
                    }
                }
                Ok(())
            })
            .await
            .unwrap();
        drop(store);
        let mut starts = 0;
        loop {
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            if starts == 0 {
                transaction.open_table(META).unwrap().remove(META_NOTED).unwrap();
            }
            // A start that is ended after its first step.
            let is_done = Starting::new().go_on(&transaction).unwrap();
            transaction.commit().unwrap();
            let noted = database.begin_read().unwrap().open_table(OWNER_OF).unwrap().len().unwrap();
            starts += 1;
            assert!(noted <= ROWS_MAX * starts, "{noted} of {starts}");
            if is_done {
                assert_eq!(noted, 10);
                break;
            }
        }
        assert!(starts > 6, "{starts}");
        let store = Store::open(&path, OPTIONS).unwrap();
        assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
    }
}
