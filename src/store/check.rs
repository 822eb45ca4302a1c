//! Floor 1. Whether the tables agree with each other.
//!
//! Everything beside the records follows from them or refers to them; each rule is written down where the rows
//! are written, and here only whether they hold. What is found is told in counts: ids do not belong into logs.

use std::collections::{BTreeMap, BTreeSet};

use redb::{Key, ReadableTable as _, TableDefinition, Value};

use super::conflicts::{Conflict, ConflictStatus};
use super::records::search_terms;
use super::snapshot::Snapshot;
use super::tables::*;
use super::{Base, StoreError};
use crate::domain::content::{Content, EMPTY_CONTENT};
use crate::domain::record::fold_account;
use crate::domain::schema::IdRule;
use crate::domain::value::same_document;

/// A record's key, owned.
type Place = (u8, String);

/// The rows that the records call for, in the tables that follow from them.
#[derive(Default)]
struct Due {
    owners: BTreeSet<(u8, String, String)>,
    names: BTreeSet<(String, String)>,
    spellings: BTreeSet<(String, String)>,
    /// Accounts by how many people have them.
    accounts: BTreeMap<String, usize>,
    contents: BTreeSet<(String, u8, String)>,
    /// Records that differ from their base, or have a write on the way.
    dirty: BTreeSet<Place>,
}

impl Snapshot {
    /// Where tables contradict each other, for people; empty if nowhere. Reads everything.
    pub fn disagreements(&self) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        let due = self.due(&mut found)?;
        self.compare_indexes(due, &mut found)?;
        self.compare_contents(&mut found)?;
        self.compare_conflicts(&mut found)?;
        self.look_at_journal(&mut found)?;
        Ok(found)
    }

    /// What has to stand beside the records.
    fn due(&self, found: &mut Vec<String>) -> Result<Due, StoreError> {
        let (docs, base) = (self.transaction.open_table(DOCS)?, self.transaction.open_table(BASE)?);
        let intents = self.rows(INTENT, |(code, id), _| (code, id.to_owned()))?;
        let mut due = Due { dirty: intents, ..Due::default() };
        let mut misnamed = 0;
        for entry in docs.iter()? {
            let (at, row) = entry?;
            let ((code, id), document) = (at.value(), decode(row.value())?);
            let kind = kind_of(code)?;
            let schema = kind.schema();
            misnamed += usize::from(document.get_str("_id").ok() != Some(id));
            due.owners.extend(schema.owner_of(&document).map(|owner| (code, owner, id.to_owned())));
            if schema.id_rule == IdRule::Account {
                let account = fold_account(id);
                due.names.extend(search_terms(id, &document).into_iter().map(|term| (term, id.to_owned())));
                if account != id {
                    due.spellings.insert((account.clone(), id.to_owned()));
                }
                *due.accounts.entry(account).or_default() += 1;
            }
            due.contents.extend(Content::of(kind, &document).map(|c| (c.sha256, code, id.to_owned())));
            let row = base.get((code, id))?.map(|row| BaseRow::decode(row.value())).transpose()?;
            let is_base = |row: &BaseRow| row.base.document().is_some_and(|b| same_document(b, &document));
            if row.is_some_and(|row| !is_base(&row)) {
                due.dirty.insert((code, id.to_owned()));
            }
        }
        for entry in base.iter()? {
            let (at, row) = entry?;
            // Deleted here, and still at the centre.
            let is_absent = BaseRow::decode(row.value())?.base == Base::Absent;
            if docs.get(at.value())?.is_none() && !is_absent {
                due.dirty.insert((at.value().0, at.value().1.to_owned()));
            }
        }
        count(found, "records under another id than their own", misnamed);
        Ok(due)
    }

    fn compare_indexes(&self, due: Due, found: &mut Vec<String>) -> Result<(), StoreError> {
        let owned = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        compare(
            found,
            "by_owner",
            due.owners,
            self.rows(BY_OWNER, |(c, o, id), ()| (c, o.to_owned(), id.to_owned()))?,
        );
        compare(found, "by_name", due.names, self.rows(BY_NAME, |(a, b), ()| owned(a, b))?);
        compare(found, "by_spelling", due.spellings, self.rows(BY_SPELLING, |(a, b), ()| owned(a, b))?);
        let shared = due.accounts.into_iter().filter(|(_, people)| *people > 1).map(|(account, _)| account);
        compare(
            found,
            "duplicate",
            shared.collect(),
            self.rows(DUPLICATE, |account, ()| account.to_owned())?,
        );
        let named = self.rows(CONTENT_NAMED, |(name, c, id), ()| (name.to_owned(), c, id.to_owned()))?;
        compare(found, "content_named", due.contents, named);
        let bases = self.rows(BASE, |(code, id), row| {
            let place = BaseRow::decode(row).map_or((0, 0), |row| (row.rank, row.sequence));
            (place.0, place.1, code, id.to_owned())
        })?;
        let of_bases = bases.iter().map(|(.., code, id)| (*code, id.clone())).collect();
        compare(found, "base", due.dirty, of_bases);
        compare(found, "dirty", bases, self.rows(DIRTY, |(r, s, c, id), _| (r, s, c, id.to_owned()))?);
        let held = self.rows(HELD, |(code, id), _| (code, id.to_owned()))?;
        let held_of = self.rows(HELD_OF, |(_, code, id), ()| (code, id.to_owned()))?;
        compare(found, "held_of", held, held_of);
        Ok(())
    }

    /// Chunks without a gap; a content that is named is wanted or here, one that is not is idle.
    fn compare_contents(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let named = self.rows(CONTENT_NAMED, |(name, ..), ()| name.to_owned())?;
        let wanted = self.rows(CONTENT_WANTED, |name, _| name.to_owned())?;
        let owed = self.rows(CONTENT_OWED, |name, _| name.to_owned())?;
        let idle = self.rows(CONTENT_IDLE, |name, _| name.to_owned())?;
        let mut chunks: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for (name, number) in self.rows(CONTENT, |(name, number), _| (name.to_owned(), number))? {
            let (here, last) = chunks.entry(name).or_default();
            (*here, *last) = (*here + 1, number);
        }
        let gaps = chunks.values().filter(|(here, last)| *here != last + 1).count();
        count(found, "contents with missing chunks", gaps);
        let is_here =
            |name: &String| name == EMPTY_CONTENT || chunks.contains_key(name) && !wanted.contains(name);
        compare(
            found,
            "content_wanted",
            named.iter().filter(|name| !is_here(name)).cloned().collect(),
            wanted.clone(),
        );
        let unnamed = chunks.keys().filter(|name| is_here(name) && !named.contains(*name)).cloned();
        compare(found, "content_idle", unnamed.collect(), idle);
        let astray = owed.iter().filter(|name| !named.contains(*name) || !is_here(name)).count();
        count(found, "contents to be sent that are not here or not named", astray);
        Ok(())
    }

    fn compare_conflicts(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let conflicts = self.transaction.open_table(CONFLICT)?;
        let (mut open, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for entry in conflicts.iter()? {
            let (at, row) = entry?;
            let conflict = Conflict::decode(row.value())?;
            if conflict.status == ConflictStatus::Open {
                let (code, id) = row_key(&conflict.key);
                open.insert((code, id.to_owned(), at.value().to_owned()));
            }
            ids.insert(at.value().to_owned());
        }
        let rows =
            self.rows(CONFLICT_OPEN, |(c, id, conflict), ()| (c, id.to_owned(), conflict.to_owned()))?;
        compare(found, "conflict_open", open, rows);
        let outbox = self.rows(CONFLICT_OUTBOX, |id, ()| id.to_owned())?;
        count(found, "conflicts to be published that are not there", outbox.difference(&ids).count());
        let (sent, echo) = (self.rows(SENT, |at, _| at)?, self.rows(ECHO, |(.., at), ()| at)?);
        let oldest = sent.first().copied().unwrap_or(0);
        let lost = echo.iter().filter(|at| **at >= oldest && !sent.contains(at)).count();
        count(found, "echoes of writes that are not there", lost);
        Ok(())
    }

    fn look_at_journal(&self, found: &mut Vec<String>) -> Result<(), StoreError> {
        let journal = self.transaction.open_table(JOURNAL)?;
        let last = last_sequence(&journal, &self.transaction.open_table(META)?)?;
        let sequences = self.rows(JOURNAL, |sequence, _| sequence)?;
        let gaps = sequences.iter().zip(sequences.iter().skip(1)).filter(|(a, b)| *a + 1 != **b).count();
        count(found, "gaps in the journal", gaps);
        let beyond = self.rows(DIRTY, |(_, sequence, ..), _| sequence)?;
        count(
            found,
            "edits that the journal does not know",
            beyond.into_iter().filter(|s| *s > last).count(),
        );
        Ok(())
    }

    fn rows<K: Key + 'static, V: Value + 'static, T: Ord>(
        &self,
        table: TableDefinition<'static, K, V>,
        mut take: impl for<'r> FnMut(K::SelfType<'r>, V::SelfType<'r>) -> T,
    ) -> Result<BTreeSet<T>, StoreError> {
        let mut rows = BTreeSet::new();
        for entry in self.transaction.open_table(table)?.iter()? {
            let (key, value) = entry?;
            rows.insert(take(key.value(), value.value()));
        }
        Ok(rows)
    }
}

fn count(found: &mut Vec<String>, what: &str, number: usize) {
    if number > 0 {
        found.push(format!("{what}: {number}"));
    }
}

fn compare<T: Ord>(found: &mut Vec<String>, table: &str, due: BTreeSet<T>, there: BTreeSet<T>) {
    let (missing, superfluous) = (due.difference(&there).count(), there.difference(&due).count());
    if (missing, superfluous) != (0, 0) {
        found.push(format!("{table}: {missing} rows are missing, {superfluous} should not be there"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::record::{Kind, RecordKey};
    use crate::store::{Store, StoreOptions, Tx};
    use bson::doc;
    use redb::TableHandle as _;
    use sha2::{Digest as _, Sha256};

    fn store() -> Store {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1000,
            audit_keep_rows: 1000,
            clock: || 0,
        };
        Store::in_memory(options).unwrap()
    }

    async fn run(store: &Store, mut job: impl FnMut(&mut Tx<'_>) + Send + 'static) {
        let done = store.transact(move |tx| -> Result<(), StoreError> {
            job(tx);
            Ok(())
        });
        done.await.unwrap();
    }

    #[tokio::test]
    async fn what_follows_from_records_is_missed_when_it_is_gone() {
        let store = store();
        let (name, bytes) = (hex::encode(Sha256::digest(b"bytes")), b"bytes");
        let content = doc! {"sha256": &name, "length": 5_i64, "type": "image/png"};
        run(&store, move |tx| {
            let ana = doc! {"_id": "Ana", "name": "Ana"};
            tx.edit(&RecordKey::new(Kind::Person, "Ana"), Some(&ana), &Actor::Centre).unwrap();
            tx.put_content(&name, bytes).unwrap();
            let key = RecordKey::new(Kind::PersonalDocument, "d1");
            let document = doc! {"_id": "d1", "fedacct": "ANA", "content": content.clone()};
            tx.edit(&key, Some(&document), &Actor::Centre).unwrap();
        })
        .await;
        let (mut found, mut before) = {
            let snapshot = store.read().unwrap();
            (snapshot.disagreements().unwrap(), snapshot.content_sha256().unwrap())
        };
        assert_eq!(found, Vec::<String>::new());
        // One row after the other taken out of a table: each is missed, and each changes the sum.
        macro_rules! take_out {
            ($($table:expr),*) => { $({
                let transaction = store.inner.engine.begin_write(&mut store.inner.engine.writing()).unwrap();
                {
                    let mut table = transaction.open_table($table).unwrap();
                    assert!(table.pop_first().unwrap().is_some(), "{} is empty", $table.name());
                }
                store.inner.engine.commit(transaction).unwrap();
                let snapshot = store.read().unwrap();
                let (now, sum) = (snapshot.disagreements().unwrap(), snapshot.content_sha256().unwrap());
                assert!(now != found && !now.is_empty(), "a row of {} is not missed", $table.name());
                assert_ne!(sum, before);
                (found, before) = (now, sum);
            })* };
        }
        take_out!(BY_OWNER, BY_NAME, BY_SPELLING, CONTENT_NAMED, CONTENT, BASE, DIRTY, DOCS);
        let snapshot = store.read().unwrap();
        assert_eq!((snapshot.disagreements().unwrap(), snapshot.content_sha256().unwrap()), (found, before));
    }
}
