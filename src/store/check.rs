//! Floor 1. Looking after a store that no node holds: is it whole, does it add up, how small can it be.
//!
//! Every row of an index follows from a record. So each record is asked which rows there must be, these are
//! looked up, and then the tables may not have more: nothing is held in memory but counts.

use std::fs::{File, OpenOptions};
use std::path::Path;

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _,
};
use rustix::fs::{FlockOperation, flock};

use super::records::search_terms;
use super::snapshot::Snapshot;
use super::tables::{self, *};
use super::{Base, StoreError, Summary, writer};
use crate::domain::content::Content;
use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::IdRule;
use crate::domain::value::same_document;

/// Most complaints that are spelled out; the others are only counted.
const COMPLAINTS_MAX: usize = 100;

/// What was found out about a store.
#[derive(Debug)]
pub struct CheckedStore {
    /// Whether redb found its file as it should be; if not, it has been repaired.
    pub was_clean: bool,
    pub summary: Summary,
    /// What does not add up, at most a hundred; without patient data but for ids.
    pub complaints: Vec<String>,
    /// How many there are in all.
    pub complaints_count: u64,
}

/// Keeps everybody else from opening a store, also one that cannot be opened.
pub fn lock_file(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| StoreError::of_io(&e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Held),
        locked => locked.map(|()| file).map_err(|e| StoreError::of_io(&e.into())),
    }
}

fn open(path: &Path, cache_bytes: usize) -> Result<Database, StoreError> {
    let database = redb::Builder::new().set_cache_size(cache_bytes).open(path)?;
    writer::prepare(&database)?;
    Ok(database)
}

/// Goes through a store that nobody has open: redb's pages first, then what our tables say about each other.
pub fn check_store(path: &Path, cache_bytes: usize) -> Result<CheckedStore, StoreError> {
    let mut database = open(path, cache_bytes)?;
    let was_clean = database.check_integrity()?;
    let transaction = database.begin_read()?;
    let mut check = Check { transaction: &transaction, complaints: Vec::new(), count: 0 };
    check.records()?;
    check.bases()?;
    check.conflicts()?;
    let (complaints, complaints_count) = (check.complaints, check.count);
    let summary = Snapshot::new(transaction).summary()?;
    Ok(CheckedStore { was_clean, summary, complaints, complaints_count })
}

/// Makes the file of a store that nobody has open as small as it can be; its size before and after, in bytes.
pub fn compact_store(path: &Path, cache_bytes: usize) -> Result<(u64, u64), StoreError> {
    let size = || path.metadata().map(|about| about.len()).map_err(|e| StoreError::of_io(&e));
    let before = size()?;
    let mut database = open(path, cache_bytes)?;
    // Moves what is at the end of the file forward, as often as that helps.
    while database.compact()? {}
    drop(database);
    Ok((before, size()?))
}

/// The tables that follow from the records.
struct Indexes {
    by_owner: ReadOnlyTable<(u8, &'static str, &'static str), ()>,
    by_name: ReadOnlyTable<(&'static str, &'static str), ()>,
    by_spelling: ReadOnlyTable<(&'static str, &'static str), ()>,
    named: ReadOnlyTable<(&'static str, u8, &'static str), ()>,
}

/// How many rows there should be.
#[derive(Default)]
struct Counts {
    by_owner: u64,
    by_name: u64,
    by_spelling: u64,
    named: u64,
}

struct Check<'t> {
    transaction: &'t ReadTransaction,
    complaints: Vec<String>,
    count: u64,
}

impl Check<'_> {
    fn complain(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what());
        }
    }

    fn expect(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            self.complain(what);
        }
    }

    /// Every record can be read, and the indexes are what follows from the records.
    fn records(&mut self) -> Result<(), StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        let indexes = Indexes {
            by_owner: self.transaction.open_table(BY_OWNER)?,
            by_name: self.transaction.open_table(BY_NAME)?,
            by_spelling: self.transaction.open_table(BY_SPELLING)?,
            named: self.transaction.open_table(CONTENT_NAMED)?,
        };
        let mut counts = Counts::default();
        for entry in docs.iter()? {
            let (at, row) = entry?;
            let (code, id) = at.value();
            match (Kind::from_code(code), tables::decode(row.value())) {
                (Some(kind), Ok(document)) => self.record(&indexes, &mut counts, kind, id, &document)?,
                _ => self.complain(|| format!("record {code}/{id}: cannot be read")),
            }
        }
        for (name, found, expected) in [
            ("by_owner", indexes.by_owner.len()?, counts.by_owner),
            ("by_name", indexes.by_name.len()?, counts.by_name),
            ("by_spelling", indexes.by_spelling.len()?, counts.by_spelling),
            ("content_named", indexes.named.len()?, counts.named),
        ] {
            self.expect(found <= expected, || {
                format!("table {name}: {found} rows, of which the records account for {expected}")
            });
        }
        Ok(())
    }

    fn record(
        &mut self,
        indexes: &Indexes,
        counts: &mut Counts,
        kind: Kind,
        id: &str,
        document: &bson::Document,
    ) -> Result<(), StoreError> {
        let schema = kind.schema();
        let missing = |table: &str| format!("{}/{id}: its row in {table} is missing", schema.collection);
        if let Some(owner) = schema.owner_of(document) {
            counts.by_owner += 1;
            let found = indexes.by_owner.get((schema.code, owner.as_str(), id))?.is_some();
            self.expect(found, || missing("by_owner"));
        }
        if let Some(content) = Content::of(kind, document) {
            counts.named += 1;
            let found = indexes.named.get((content.sha256.as_str(), schema.code, id))?.is_some();
            self.expect(found, || missing("content_named"));
        }
        if schema.id_rule != IdRule::Account {
            return Ok(());
        }
        for term in search_terms(id, document) {
            counts.by_name += 1;
            let found = indexes.by_name.get((term.as_str(), id))?.is_some();
            self.expect(found, || missing("by_name"));
        }
        let canonical = fold_account(id);
        if canonical != id {
            counts.by_spelling += 1;
            let found = indexes.by_spelling.get((canonical.as_str(), id))?.is_some();
            self.expect(found, || missing("by_spelling"));
        }
        Ok(())
    }

    /// A base row exists exactly while a record differs from it or has a write on the way, and each has its
    /// place in the push order.
    fn bases(&mut self) -> Result<(), StoreError> {
        let docs = self.transaction.open_table(DOCS)?;
        let base = self.transaction.open_table(BASE)?;
        let dirty = self.transaction.open_table(DIRTY)?;
        let intent = self.transaction.open_table(INTENT)?;
        for entry in base.iter()? {
            let (at, row) = entry?;
            let (code, id) = at.value();
            let Ok(row) = BaseRow::decode(row.value()) else {
                self.complain(|| format!("base {code}/{id}: cannot be read"));
                continue;
            };
            let queued = dirty.get((row.rank, row.sequence, code, id))?.is_some();
            self.expect(queued, || format!("base {code}/{id}: the edit is not in the push order"));
            let Ok(document) = docs.get((code, id))?.map(|row| tables::decode(row.value())).transpose()
            else {
                // Said of the record already.
                continue;
            };
            let differs = match (&document, &row.base) {
                (None, Base::Absent) => false,
                (Some(document), Base::Document(base)) => !same_document(document, base),
                _ => true,
            };
            let is_sent = intent.get((code, id))?.is_some();
            self.expect(differs || is_sent, || format!("base {code}/{id}: the record is the same"));
        }
        self.expect(dirty.len()? == base.len()?, || "the push order has rows without a base".to_owned());
        for entry in intent.iter()? {
            let (at, _) = entry?;
            let (code, id) = at.value();
            let found = base.get((code, id))?.is_some();
            self.expect(found, || format!("intent {code}/{id}: there is no base"));
        }
        Ok(())
    }

    /// What refers to a conflict or to a hold finds it.
    fn conflicts(&mut self) -> Result<(), StoreError> {
        let conflict = self.transaction.open_table(CONFLICT)?;
        for entry in self.transaction.open_table(CONFLICT_OPEN)?.iter()? {
            let (at, _) = entry?;
            let (_, _, id) = at.value();
            let found = conflict.get(id)?.is_some();
            self.expect(found, || format!("conflict {id}: is open and missing"));
        }
        for entry in self.transaction.open_table(CONFLICT_OUTBOX)?.iter()? {
            let (at, _) = entry?;
            let found = conflict.get(at.value())?.is_some();
            self.expect(found, || format!("conflict {}: is to be sent and missing", at.value()));
        }
        let (hold, held) = (self.transaction.open_table(HOLD)?, self.transaction.open_table(HELD)?);
        let held_of = self.transaction.open_table(HELD_OF)?;
        for entry in held_of.iter()? {
            let (at, _) = entry?;
            let (account, code, id) = at.value();
            let found = hold.get(account)?.is_some() && held.get((code, id))?.is_some();
            self.expect(found, || format!("held {code}/{id}: without a hold or a document"));
        }
        self.expect(held.len()? == held_of.len()?, || "documents wait behind no hold".to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::record::RecordKey;
    use crate::store::{Store, StoreOptions};

    type Spoil = fn(&redb::WriteTransaction) -> Result<(), StoreError>;

    async fn store_in(path: &Path) {
        let options = StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, clock: || 0 };
        let store = Store::open(path, options).unwrap();
        let actor = Actor::Local("tech".to_owned());
        let job = move |tx: &mut crate::store::Tx<'_>| -> Result<(), StoreError> {
            let person = doc! {"_id": "ana01", "name": "Ana", "lastname": "Núñez"};
            tx.edit(&RecordKey::new(Kind::Person, "ana01"), Some(&person), &actor)?;
            let page = doc! {"_id": "p1", "book": "ANA01", "page": "ANA01"};
            tx.edit(&RecordKey::new(Kind::Page, "p1"), Some(&page), &actor)?;
            Ok(())
        };
        store.transact(job).await.unwrap();
    }

    #[tokio::test]
    async fn what_does_not_add_up_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let person = Kind::Person.schema().code;
        assert_eq!(person, 1, "the cases below spell it out");
        let cases: [(&str, Spoil); 9] = [
            ("", |_| Ok(())),
            ("cannot be read", |tx| {
                Ok(tx.open_table(DOCS)?.insert((1, "x"), &b"no BSON"[..]).map(|_| ())?)
            }),
            ("its row in by_name is missing", |tx| {
                Ok(tx.open_table(BY_NAME)?.remove(("ana", "ana01")).map(|_| ())?)
            }),
            ("its row in by_spelling is missing", |tx| {
                Ok(tx.open_table(BY_SPELLING)?.remove(("ANA01", "ana01")).map(|_| ())?)
            }),
            ("table by_owner: ", |tx| {
                Ok(tx.open_table(BY_OWNER)?.insert((1, "EVA", "nobody"), ()).map(|_| ())?)
            }),
            ("the edit is not in the push order", |tx| {
                tx.open_table(DIRTY)?.retain(|_, _| false)?;
                Ok(())
            }),
            ("the record is the same", |tx| {
                let document = tx.open_table(DOCS)?.get((1, "ana01"))?.map(|row| row.value().to_vec());
                let mut base = tx.open_table(BASE)?;
                let mut row = base.get((1, "ana01"))?.map(|row| row.value().to_vec()).unwrap_or_default();
                row.extend(document.unwrap_or_default());
                base.insert((1, "ana01"), row.as_slice())?;
                Ok(())
            }),
            ("there is no base", |tx| Ok(tx.open_table(INTENT)?.insert((1, "x"), &[][..]).map(|_| ())?)),
            ("is open and missing", |tx| {
                Ok(tx.open_table(CONFLICT_OPEN)?.insert((1, "x", "lost"), ()).map(|_| ())?)
            }),
        ];
        for (complaint, spoil) in cases {
            let _ = std::fs::remove_file(&path);
            store_in(&path).await;
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            spoil(&transaction).unwrap();
            transaction.commit().unwrap();
            drop(database);
            let checked = check_store(&path, 1 << 20).unwrap();
            assert_eq!(checked.complaints_count > 0, !complaint.is_empty(), "{complaint}: {checked:?}");
            assert!(
                checked.complaints.iter().any(|said| said.contains(complaint)) || complaint.is_empty(),
                "{complaint}: {checked:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_store_that_is_locked_cannot_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        store_in(&path).await;
        let lock = lock_file(&path).unwrap();
        assert!(matches!(check_store(&path, 1 << 20), Err(StoreError::Held)));
        assert!(matches!(lock_file(&path), Err(StoreError::Held)));
        drop(lock);
        let database = Database::open(&path).unwrap();
        assert!(matches!(lock_file(&path), Err(StoreError::Held)));
        drop(database);
        assert!(compact_store(&path, 1 << 20).is_ok());
    }
}
