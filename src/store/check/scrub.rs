//! Floor 1. Going through all rows in the background, and what became of those that were found damaged.
//!
//! A row that nobody reads would rot until the last backup that knows it is gone. So every row is read once in a
//! while, a little at a time. Where the pass stands and which rows are damaged is kept in `meta`, because boxes are
//! switched off at night.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bson::{Bson, Document, doc};
use redb::{Key, TableDefinition, TableError, Value};

use super::set_aside_rows::place_when_set_aside;
use crate::domain::record::{Kind, RecordKey};
use crate::store::engine::{Snapshot, Store};
use crate::store::error::{DamagedRow, StoreError, unless_damaged};
use crate::store::rows::{PAGES, RowName, RowsDefinition, damaged, row_key};
use crate::store::schema::{BASE, DOCS, EachTable, TRASH, each_table};

const META_SCRUB: &str = "scrub";
const META_DAMAGED: &str = "damaged";

/// How far a pass over all rows has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrub {
    /// How many tables are done.
    table: u32,
    /// Key of the last row that was read in the present one.
    after: Option<Vec<u8>>,
    /// When the last pass came to its end, in milliseconds since 1970, for people.
    pub completed_ms: Option<i64>,
}

impl Scrub {
    fn decode(row: &Document) -> Scrub {
        Scrub {
            table: row.get_i32("table").ok().and_then(|table| u32::try_from(table).ok()).unwrap_or_default(),
            after: row.get_binary_generic("after").ok().cloned(),
            completed_ms: row.get_i64("completed").ok(),
        }
    }

    fn encode(&self) -> Document {
        let after = self.after.clone().map_or(Bson::Null, |bytes| {
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes })
        });
        doc! {
            "table": i32::try_from(self.table).unwrap_or_default(), "after": after,
            "completed": self.completed_ms.map_or(Bson::Null, Bson::Int64),
        }
    }
}

impl Snapshot {
    /// Reads every row; those that are damaged are in the ledger afterwards.
    pub(crate) fn damaged_rows(&self) -> Result<(), StoreError> {
        let mut scrub = Scrub::default();
        while !self.scrub(&mut scrub, u64::MAX)? {}
        Ok(())
    }

    /// Reads rows of about so many bytes from where a pass stands; returns whether that was the last of them. Then
    /// the pass begins anew.
    fn scrub(&self, scrub: &mut Scrub, bytes: u64) -> Result<bool, StoreError> {
        let mut reading = Reading { snapshot: self, scrub, table: 0, bytes };
        each_table(&mut reading)?;
        let is_done = reading.bytes > 0;
        if is_done {
            (scrub.table, scrub.after) = (0, None);
        }
        Ok(is_done)
    }

    /// Which of these rows are good again, or gone.
    fn healed(&self, rows: Vec<DamagedRow>) -> Result<Vec<DamagedRow>, StoreError> {
        let mut by_table = BTreeMap::<String, Vec<DamagedRow>>::new();
        for row in rows.into_iter().filter(|row| row.id != PAGES) {
            by_table.entry(row.table.clone()).or_default().push(row);
        }
        let mut looking = Looking { snapshot: self, by_table, healed: Vec::new() };
        each_table(&mut looking)?;
        // A record that is not there, and should be, is not good again for that.
        let docs = self.transaction.open_table(DOCS)?;
        let mut healed = Vec::new();
        for row in looking.healed {
            if let Some(kind) = row.kind.filter(|_| row.table == DOCS.name()) {
                let key = RecordKey::new(kind, row.id.as_str());
                if !docs.contains(row_key(&key))? && unless_damaged(self.check_absent(&key))?.is_none() {
                    continue;
                }
            }
            healed.push(row);
        }
        Ok(healed)
    }

    /// How far the pass over all rows has come.
    pub fn scrubbed(&self) -> Result<Scrub, StoreError> {
        Ok(self.meta(META_SCRUB)?.map(|row| Scrub::decode(&row)).unwrap_or_default())
    }
}

struct Reading<'a> {
    snapshot: &'a Snapshot,
    scrub: &'a mut Scrub,
    /// The table whose turn it is.
    table: u32,
    /// Still to be read.
    bytes: u64,
}

impl EachTable for Reading<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        // What has no checksum follows from what has, or is compared by `db check`.
        Ok(())
    }

    fn rows<K: RowName>(&mut self, definition: RowsDefinition<K>) -> Result<(), StoreError> {
        let number = self.table;
        self.table += 1;
        if number < self.scrub.table || self.bytes == 0 {
            return Ok(());
        }
        let table = match self.snapshot.transaction.open_table(definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            table => table?,
        };
        let after = self.scrub.after.take();
        let from = after.as_deref().map_or(Bound::Unbounded, |key| Bound::Excluded(K::from_bytes(key)));
        let mut last = None;
        for row in table.lengths((from, Bound::Unbounded))? {
            let (key, length) = row?;
            self.bytes = self.bytes.saturating_sub(length.max(1));
            if self.bytes == 0 {
                last = Some(K::as_bytes(&key.value()).as_ref().to_vec());
                break;
            }
        }
        (self.scrub.table, self.scrub.after) = match last {
            Some(key) => (number, Some(key)),
            None => (number + 1, None),
        };
        Ok(())
    }
}

struct Looking<'a> {
    snapshot: &'a Snapshot,
    by_table: BTreeMap<String, Vec<DamagedRow>>,
    healed: Vec<DamagedRow>,
}

impl EachTable for Looking<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    fn rows<K: RowName>(&mut self, definition: RowsDefinition<K>) -> Result<(), StoreError> {
        let Some(rows) = self.by_table.remove(definition.name()) else {
            return Ok(());
        };
        let table = self.snapshot.transaction.open_table(definition)?;
        for row in rows {
            if table.damaged_named(row.kind, &row.id)?.is_empty() {
                self.healed.push(row);
            }
        }
        Ok(())
    }
}

impl Store {
    /// Reads so many bytes of rows from where the pass stands. `is_kept`: also notes on disk how far it has come.
    /// Returns whether a pass has come to its end, which is always noted.
    pub async fn scrub(&self, bytes: u64, is_kept: bool, scrub: &mut Scrub) -> Result<bool, StoreError> {
        if let Err(error) = self.check_contents(bytes).await {
            // The pass below finds what is damaged; it must not wait for what the damage stops.
            tracing::warn!(%error, "the comparison of attachments with their names does not go on");
        }
        let snapshot = self.read()?;
        let (is_done, next) = {
            let mut next = scrub.clone();
            let read = tokio::task::spawn_blocking(move || {
                let is_done = snapshot.scrub(&mut next, bytes)?;
                Ok::<_, StoreError>((is_done, next))
            });
            read.await
                .map_err(|error| StoreError::Damaged(format!("a table cannot be followed: {error}")))??
        };
        *scrub = next;
        if is_done {
            scrub.completed_ms = Some(self.now_ms());
        }
        if is_done || is_kept {
            let row = scrub.encode();
            self.transact(move |tx| -> Result<(), StoreError> { tx.set_meta(META_SCRUB, Some(&row)) })
                .await?;
        }
        if is_done {
            // What has no checksum of its own.
            self.look_at_pages().await?;
            self.mend_indexes().await?;
        }
        self.settle_damage().await?;
        Ok(is_done)
    }

    /// Rows that are known to be damaged, in an order in which all of them can be set aside.
    pub fn damaged_rows(&self) -> Vec<DamagedRow> {
        let mut rows = self.inner.engine.ledger.rows();
        rows.sort_by_cached_key(place_when_set_aside);
        rows
    }

    /// How many records of a kind are known to be damaged.
    pub fn damaged_records(&self, kind: Kind) -> usize {
        let is_one = |row: &&DamagedRow| row.kind == Some(kind) && row.table == DOCS.name();
        self.damaged_rows().iter().filter(is_one).count()
    }

    /// How many bodies of deleted records are known to be damaged.
    pub fn damaged_trash(&self) -> usize {
        self.damaged_rows().iter().filter(|row| row.table == TRASH.name()).count()
    }

    /// Forgets rows that are good again, and notes on disk which are not, and how many bits were put right meanwhile.
    pub async fn settle_damage(&self) -> Result<(), StoreError> {
        let was_quiet = self.inner.engine.ledger.is_empty();
        self.settle_noted().await?;
        if !was_quiet && self.inner.engine.ledger.is_empty() {
            // With the last damaged row went what others refer to. The pass in the background tries again.
            if let Err(error) = self.mend_indexes().await {
                tracing::error!(%error, "tables could not be compared after the last damaged row was gone");
            }
        }
        Ok(())
    }

    async fn settle_noted(&self) -> Result<(), StoreError> {
        if self.inner.engine.ledger.is_news(BASE.name()) {
            // Under a damaged key it may be another record's.
            self.transact(|tx| tx.mend_outbox()).await?;
        }
        let store = self.clone();
        let blocking = move || -> Result<bool, StoreError> {
            store.count_later_defects()?;
            let (ledger, snapshot) = (&store.inner.engine.ledger, store.read()?);
            if ledger.is_news(DOCS.name()) {
                snapshot.note_missing()?;
            }
            for row in snapshot.healed(ledger.rows())? {
                ledger.forget(&row);
            }
            let rows: BTreeSet<DamagedRow> = ledger.rows().into_iter().collect();
            Ok(rows == snapshot.damaged_noted()?)
        };
        // Almost always there is nothing to look for.
        let is_quiet = self.inner.engine.ledger.is_empty();
        let is_noted = if is_quiet {
            blocking()?
        } else {
            let looked = tokio::task::spawn_blocking(blocking).await;
            looked.map_err(|error| StoreError::Damaged(format!("a table cannot be followed: {error}")))??
        };
        if is_noted {
            return Ok(());
        }
        let rows = self.damaged_rows();
        self.transact(move |tx| -> Result<(), StoreError> {
            let noted: Vec<Bson> = rows
                .iter()
                .map(|row| {
                    let kind = row.kind.map_or(-1, |kind| i32::from(kind.schema().code));
                    Bson::Document(doc! {"table": &row.table, "kind": kind, "id": &row.id})
                })
                .collect();
            tx.set_meta(META_DAMAGED, Some(&doc! {"rows": noted}))
        })
        .await
    }

    /// Takes up what was known when the process before this one ended.
    pub(in crate::store) fn recall_damage(&self) -> Result<(), StoreError> {
        // Its pages are looked at anew at every start.
        for row in self.read()?.damaged_noted()?.into_iter().filter(|row| row.id != PAGES) {
            self.inner.engine.ledger.note(row);
        }
        Ok(())
    }
}

impl Snapshot {
    fn damaged_noted(&self) -> Result<BTreeSet<DamagedRow>, StoreError> {
        let Some(noted) = self.meta(META_DAMAGED)? else {
            return Ok(BTreeSet::new());
        };
        let rows = noted.get_array("rows").map_err(|_| damaged("the list of damaged rows"))?;
        let row = |row: &Bson| {
            let row = row.as_document()?;
            let code = u8::try_from(row.get_i32("kind").ok()?).ok();
            Some(DamagedRow {
                table: row.get_str("table").ok()?.to_owned(),
                kind: code.and_then(Kind::from_code),
                id: row.get_str("id").ok()?.to_owned(),
            })
        };
        rows.iter().map(|at| row(at).ok_or_else(|| damaged("the list of damaged rows"))).collect()
    }
}
