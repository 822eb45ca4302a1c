//! Floor 1. Whose something is, told without reading it.
//!
//! A record, a body in the trash or a conflict may have megabytes. To read one takes as long as it is large, and shows that
//! it is damaged. Who may not see it must learn neither, nor that it is there. So what rights look at stands in tables of
//! short rows beside them, which are asked first. These follow from the rows that they are about. Where nothing is noted,
//! as of a row that was damaged when the table was made anew, the row itself is asked, as it is again after it was read.
//! A store of an earlier version gets them when it is opened (`opening/owner_notes.rs`).

use bson::Document;
use redb::ReadOnlyTable;

use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{RowKey, row_key};
use crate::store::schema::{OWNER_OF, TRASH_ORDER, TRASH_OWNER};
use crate::store::trash::key_of;

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedOwner(pub(in crate::store) String);

impl NotedOwner {
    /// Folded; `None` if it names nobody.
    pub fn account(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|account| !account.is_empty())
    }
}

/// Whether the records of a kind name the account that they belong to in a field: otherwise id or kind tell it.
pub(in crate::store) fn is_named_in_record(kind: Kind) -> bool {
    matches!(kind.schema().owner, Owner::Field(_))
}

impl Snapshot {
    fn owner_of(&self) -> Result<&ReadOnlyTable<RowKey, &'static str>, StoreError> {
        match self.owners.get() {
            Some(owners) => Ok(owners),
            None => {
                let owners = self.transaction.open_table(OWNER_OF)?;
                Ok(self.owners.get_or_init(|| owners))
            }
        }
    }

    /// Whose the record with exactly this id is; `None` if that is not noted, as of records that are not there.
    pub fn noted_owner(&self, kind: Kind, id: &str) -> Result<Option<NotedOwner>, StoreError> {
        if !is_named_in_record(kind) {
            return Ok(None);
        }
        let owner = self.owner_of()?.get((kind.schema().code, id))?;
        Ok(owner.map(|owner| NotedOwner(owner.value().to_owned())))
    }

    /// Kind and owner of a body in the trash.
    pub fn noted_owner_of_trash(&self, sequence: u64) -> Result<Option<(Kind, NotedOwner)>, StoreError> {
        let Some(key) = key_of(&self.transaction.open_table(TRASH_ORDER)?, sequence)? else {
            return Ok(None);
        };
        let owner = self.transaction.open_table(TRASH_OWNER)?.get(sequence)?;
        Ok(owner.map(|owner| (key.kind, NotedOwner(owner.value().to_owned()))))
    }
}

impl Tx<'_> {
    /// Notes whose a record is, and forgets it with the record: `None`.
    pub(in crate::store) fn note_owner(
        &mut self,
        key: &RecordKey,
        owner: Option<Option<&str>>,
    ) -> Result<(), StoreError> {
        match owner {
            _ if !is_named_in_record(key.kind) => {}
            Some(owner) => drop(self.owner_of.insert(row_key(key), owner.unwrap_or_default())?),
            None => drop(self.owner_of.remove(row_key(key))?),
        }
        Ok(())
    }

    pub(in crate::store) fn note_trash_owner(
        &mut self,
        kind: Kind,
        sequence: u64,
        body: &Document,
    ) -> Result<(), StoreError> {
        let owner = kind.schema().owner_of(body).unwrap_or_default();
        self.trash_owner.insert(sequence, owner.as_str())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use redb::{Database, ReadableDatabase as _, ReadableTable as _};

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::merge::{Clash, Side};
    use crate::store::conflicts::About;
    use crate::store::rows::{decode, encode};
    use crate::store::schema::{CONFLICT_ABOUT, META};
    use crate::store::{Store, StoreOptions, Subject};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 7 };

    fn key(id: &str) -> RecordKey {
        RecordKey::new(Kind::Event, id)
    }

    async fn run(store: &Store, job: fn(&mut Tx<'_>) -> Result<(), StoreError>) {
        store.transact(job).await.unwrap();
    }

    async fn fill(store: &Store) {
        run(store, |tx| {
            let tech = Actor::Local("tech".to_owned());
            for (id, person) in [("a", Some("Ana")), ("b", Some("eva")), ("c", None), ("gone", Some("ana"))] {
                let mut event = doc! {"_id": id};
                event.extend(person.map(|person| ("person".to_owned(), person.into())));
                tx.edit(&key(id), Some(&event), &tech)?;
            }
            tx.edit(&key("gone"), None, &tech)?;
            tx.edit(&RecordKey::new(Kind::Person, "ANA"), Some(&doc! {"_id": "ANA"}), &tech)?;
            let (path, local) = (vec!["n".to_owned()], Some(1.into()));
            tx.add_conflict(
                &key("b"),
                &Clash { path, base: None, local, remote: None, stands: Side::Local },
                None,
            )
        })
        .await;
    }

    /// What is noted of the records, the body in the trash, and the conflict.
    type Noted = (Vec<Option<String>>, Option<(Kind, NotedOwner)>, Option<About>);

    /// Of the records a, b, c and gone, of the first body in the trash, and of the first conflict.
    fn noted(store: &Store) -> Noted {
        let view = store.read().unwrap();
        let owner = |id: &str| view.noted_owner(Kind::Event, id).unwrap().map(|NotedOwner(owner)| owner);
        let trash = view.trash_page(None, 1, |_, _| true, |_| Ok(true)).unwrap();
        let conflict = view.conflict_ids(None).unwrap().remove(0);
        (
            ["a", "b", "c", "gone"].map(owner).into(),
            view.noted_owner_of_trash(trash.rows[0].sequence).unwrap(),
            view.conflict_about(&conflict).unwrap(),
        )
    }

    fn expected() -> Noted {
        let owner = |text: &str| Some(text.to_owned());
        let whose = |text: &str| NotedOwner(text.to_owned());
        (
            vec![owner("ANA"), owner("EVA"), owner(""), None],
            Some((Kind::Event, whose("ANA"))),
            Some(About { key: key("b"), subject: Subject::Value, owner: whose("EVA") }),
        )
    }

    #[tokio::test]
    async fn whose_something_is_follows_it() {
        let store = Store::in_memory(OPTIONS).unwrap();
        fill(&store).await;
        assert_eq!(noted(&store), expected());
        assert_eq!(store.read().unwrap().noted_owner(Kind::Person, "ANA").unwrap(), None, "its id tells");
        run(&store, |tx| {
            let tech = Actor::Local("tech".to_owned());
            tx.edit(&key("a"), Some(&doc! {"_id": "a", "person": "EVA"}), &tech)?;
            tx.edit(&key("c"), None, &tech).map(drop)
        })
        .await;
        let (owners, ..) = noted(&store);
        assert_eq!(owners, [Some("EVA".to_owned()), Some("EVA".to_owned()), None, None]);
        assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_store_of_an_earlier_version_is_noted_when_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, OPTIONS).unwrap();
        fill(&store).await;
        let sum = store.read().unwrap().content_sha256().unwrap();
        drop(store);
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.delete_table(OWNER_OF).unwrap();
        transaction.delete_table(TRASH_OWNER).unwrap();
        transaction.delete_table(CONFLICT_ABOUT).unwrap();
        transaction.open_table(META).unwrap().remove("noted").unwrap();
        transaction.commit().unwrap();
        assert!(database.begin_read().unwrap().open_table(OWNER_OF).is_err());
        drop(database);
        let store = Store::open(&path, OPTIONS).unwrap();
        assert_eq!(noted(&store), expected());
        assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
        assert_eq!(store.read().unwrap().content_sha256().unwrap(), sum);
    }

    /// A version that does not keep these notes writes records and leaves them as they were.
    #[tokio::test]
    async fn what_an_earlier_version_left_behind_is_noted_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, OPTIONS).unwrap();
        fill(&store).await;
        drop(store);
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut owners = transaction.open_table(OWNER_OF).unwrap();
            for id in ["a", "c", "not there any more"] {
                owners.insert((Kind::Event.schema().code, id), "WHO HAD IT").unwrap();
            }
            owners.remove((Kind::Event.schema().code, "b")).unwrap();
            let mut trash = transaction.open_table(TRASH_OWNER).unwrap();
            trash.retain(|_, _| false).unwrap();
            trash.insert(1_000_000, "WHO HAD IT").unwrap();
            // As each version does with its first change.
            let mut meta = transaction.open_table(META).unwrap();
            let mut boots = decode(meta.get("boots").unwrap().unwrap().value()).unwrap();
            boots.get_array_mut("boots").unwrap().push(doc! {"name": "earlier", "from": 100_i64}.into());
            meta.insert("boots", encode(&boots).unwrap().as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let store = Store::open(&path, OPTIONS).unwrap();
            assert_eq!(noted(&store), expected());
            assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
        }
    }

    /// Whose a damaged record is nothing else knows: who may not see it must not learn that it is damaged. What is noted of
    /// others is made anew, also while rows of any table are damaged.
    #[tokio::test]
    async fn whose_a_damaged_record_is_stays_known_while_indexes_are_made_anew() {
        let store = Store::in_memory(OPTIONS).unwrap();
        fill(&store).await;
        run(&store, |tx| {
            tx.docs.insert_damaged(row_key(&key("a")), b"rot")?;
            tx.owner_of.insert(row_key(&key("gone")), "ANA")?;
            tx.owner_of.remove(row_key(&key("b")))?;
            tx.rebuild_indexes(&std::collections::BTreeSet::new())
        })
        .await;
        assert_eq!(noted(&store), expected());
    }
}
