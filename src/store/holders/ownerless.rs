//! Floor 1. Records that say of nobody that they are theirs: pages of life without `book`, and the like. They stand in the
//! index of owners under the empty account, which nobody has. Also counts records whose person has been deleted.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bson::{Document, RawDocument, doc};
use redb::{ReadableTable as _, WriteTransaction};

use crate::domain::record::{Kind, fold_account};
use crate::domain::schema::{Owner, SCHEMAS, Schema};
use crate::store::engine::{LeftBehind, LeftBehindCount, Snapshot};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{code_in, open_for_writing, raw, text_in};
use crate::store::schema::{BY_OWNER, DEPARTED, DOCS, META};

/// The account under which they stand.
pub(in crate::store) const NO_ACCOUNT: &str = "";
/// In `meta`: they are in the index. Earlier versions left them out.
const META_OWNERLESS: &str = "ownerless_indexed";

/// The account under which a record stands in the index of owners; `None` if it stands in no row.
pub(in crate::store) fn indexed_owner(schema: &Schema, document: &RawDocument) -> Option<String> {
    schema
        .owner_in(document)
        .or_else(|| matches!(schema.owner, Owner::Field(_)).then(|| NO_ACCOUNT.to_owned()))
}

impl Snapshot {
    /// How many records of each kind say of nobody that they are theirs; none of a kind without such.
    pub fn ownerless_counts(&self) -> Result<BTreeMap<Kind, u64>, StoreError> {
        Ok(self.tally()?.ownerless.clone())
    }

    pub(in crate::store) fn count_ownerless(&self) -> Result<BTreeMap<Kind, u64>, StoreError> {
        self.owned_counts(NO_ACCOUNT)
    }

    /// The accounts of people who were on this node and are gone, whose records are here, in order: at most `max` of those
    /// behind `after`, and all from the first for the empty text. However many there are, all of them are known: an account is
    /// forgotten only while no record names it (`trim_departed`). Looks at each person who is gone until it has so many.
    pub fn left_behind_after(&self, after: &str, max: usize) -> Result<Vec<LeftBehind>, StoreError> {
        let mut found = Vec::new();
        let departed = self.transaction.open_table(DEPARTED)?;
        for at in departed.keys::<&str>((Bound::Excluded(after), Bound::Unbounded))? {
            if found.len() == max {
                break;
            }
            found.extend(self.left_behind_under(at?.value())?);
        }
        Ok(found)
    }

    /// The same of one account; `None` if nobody had it, somebody has it, or nothing of theirs is here.
    pub fn left_behind_of(&self, account: &str) -> Result<Option<LeftBehind>, StoreError> {
        let account = fold_account(account);
        match self.transaction.open_table(DEPARTED)?.contains(account.as_str())? {
            true => self.left_behind_under(&account),
            false => Ok(None),
        }
    }

    /// How many such accounts and records there are.
    pub fn left_behind_count(&self) -> Result<LeftBehindCount, StoreError> {
        Ok(self.tally()?.left_behind.clone())
    }

    pub(in crate::store) fn count_left_behind(&self) -> Result<LeftBehindCount, StoreError> {
        let mut count = LeftBehindCount::default();
        for at in self.transaction.open_table(DEPARTED)?.keys::<&str>(..)? {
            if let Some(left) = self.left_behind_under(at?.value())? {
                count.add(left);
            }
        }
        Ok(count)
    }

    /// How many records of each kind stand under this account.
    fn owned_counts(&self, account: &str) -> Result<BTreeMap<Kind, u64>, StoreError> {
        let by_owner = self.transaction.open_table(BY_OWNER)?;
        let mut counts = BTreeMap::new();
        for schema in SCHEMAS.iter().filter(|schema| matches!(schema.owner, Owner::Field(_))) {
            let mut count = 0;
            for entry in by_owner.range((schema.code, account, "")..)? {
                let (at, _) = entry?;
                let (code, owner, _) = at.value();
                if code != schema.code || owner != account {
                    break;
                }
                count += 1;
            }
            counts.extend((count > 0).then_some((schema.kind, count)));
        }
        Ok(counts)
    }

    fn left_behind_under(&self, account: &str) -> Result<Option<LeftBehind>, StoreError> {
        let counts = self.owned_counts(account)?;
        // Somebody whose record is damaged is somebody.
        let is_gone = || -> Result<bool, StoreError> {
            Ok(unless_damaged(self.look(Kind::Person, account, |_, _| ()))?
                .is_some_and(|found| found.is_none()))
        };
        let is_left = !counts.is_empty() && is_gone()?;
        Ok(is_left.then(|| LeftBehind { account: account.to_owned(), counts }))
    }
}

/// Whether they are in the index of this store.
pub(in crate::store) fn are_ownerless_indexed(transaction: &WriteTransaction) -> Result<bool, StoreError> {
    Ok(transaction.open_table(META)?.get(META_OWNERLESS)?.is_some())
}

/// Adds them to the index of a store that an earlier version made: those behind `after`, as many as
/// `has_room` says after each row that there is room for. Returns where to go on, or nothing when all are done.
pub(in crate::store) fn index_ownerless(
    transaction: &WriteTransaction,
    after: Option<&Document>,
    mut has_room: impl FnMut(usize) -> bool,
) -> Result<Option<Document>, StoreError> {
    let docs = open_for_writing(transaction, &Arc::default(), DOCS)?;
    let mut by_owner = transaction.open_table(BY_OWNER)?;
    let (first_code, first) = (code_in(after), text_in(after, "id"));
    for schema in SCHEMAS.iter().filter(|schema| matches!(schema.owner, Owner::Field(_))) {
        let first = match schema.code.cmp(&first_code) {
            Ordering::Less => continue,
            Ordering::Equal => first.as_str(),
            Ordering::Greater => "",
        };
        for entry in docs.range((schema.code, first)..(schema.code + 1, ""))? {
            // A damaged record keeps nobody from the others: `db check` names it.
            let Ok((at, row)) = entry else {
                continue;
            };
            let (code, id) = at.value();
            if after.is_some() && (code, id) == (first_code, first) {
                continue;
            }
            if raw(row.value()).is_ok_and(|document| schema.owner_in(document).is_none()) {
                by_owner.insert((code, NO_ACCOUNT, id), ())?;
            }
            if !has_room(row.value().len()) {
                return Ok(Some(doc! {"code": i32::from(code), "id": id}));
            }
        }
    }
    transaction.open_table(META)?.insert(META_OWNERLESS, [1_u8].as_slice())?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use redb::Database;

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::record::RecordKey;
    use crate::store::{Base, Store, StoreOptions, Tx};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1000, audit_keep_rows: 1000, clock: || 0 };

    #[tokio::test]
    async fn records_of_nobody_are_counted_also_those_of_an_earlier_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, OPTIONS).unwrap();
        let add = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let actor = Actor::Operator(0);
            tx.edit(&RecordKey::new(Kind::Person, "ANA"), Some(&doc! {"_id": "ANA"}), &actor)?;
            for (id, book) in [("p", Some("ANA")), ("q", None), ("r", Some("")), ("s", None)] {
                let mut page = doc! {"_id": id};
                page.extend(book.map(|book| ("book".to_owned(), book.into())));
                tx.edit(&RecordKey::new(Kind::Page, id), Some(&page), &actor)?;
            }
            tx.edit(&RecordKey::new(Kind::Page, "s"), None, &actor)?;
            let unit = doc! {"_id": "u"};
            tx.edit(&RecordKey::new(Kind::DomiciliaryUnit, "u"), Some(&unit), &actor)?;
            let document = doc! {"_id": "d", "fedacct": 5};
            tx.edit(&RecordKey::new(Kind::PersonalDocument, "d"), Some(&document), &actor).map(|_| ())
        };
        store.transact(add).await.unwrap();
        let expected = BTreeMap::from([(Kind::Page, 2), (Kind::PersonalDocument, 1)]);
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.ownerless_counts().unwrap(), expected);
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        drop((snapshot, store));
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut owners = transaction.open_table(BY_OWNER).unwrap();
            owners.retain(|(_, account, _), ()| account != NO_ACCOUNT).unwrap();
            transaction.open_table(META).unwrap().remove(META_OWNERLESS).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        let store = Store::open(&path, OPTIONS).unwrap();
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.ownerless_counts().unwrap(), expected);
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        // Nobody has the empty account.
        let job = |tx: &mut Tx<'_>| -> Result<_, StoreError> {
            Ok((tx.owned(Kind::Page, "")?, tx.has_dependents("")?))
        };
        assert_eq!(store.transact(job).await.unwrap(), (Vec::new(), false));
    }

    #[tokio::test]
    async fn records_of_people_who_are_gone_are_counted_until_somebody_has_the_account() {
        let store = Store::in_memory(OPTIONS).unwrap();
        let counts = || {
            let snapshot = store.read().unwrap();
            let all = snapshot.left_behind_after("", usize::MAX).unwrap();
            assert!(all.iter().all(|one| one.account == "ANA"), "{all:?}");
            assert_eq!(snapshot.left_behind_of("ana").unwrap().as_ref(), all.first());
            assert_eq!(snapshot.left_behind_after("ANA", usize::MAX).unwrap(), []);
            assert_eq!(snapshot.left_behind_after("", 0).unwrap(), []);
            let count = snapshot.left_behind_count().unwrap();
            assert_eq!(count.accounts, all.len() as u64);
            count.counts
        };
        let ana = RecordKey::new(Kind::Person, "ana");
        let put = async |key: RecordKey, document: Option<Document>| {
            let put = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                let base = document.clone().map_or(Base::Absent, Base::Document);
                tx.put(&key, document.as_ref(), &base, &Actor::Centre)
            };
            store.transact(put).await.unwrap();
        };
        put(ana.clone(), Some(doc! {"_id": "ana", "name": "Ana"})).await;
        for (kind, id, owner) in
            [(Kind::Page, "p", "book"), (Kind::Page, "q", "book"), (Kind::Event, "e", "person")]
        {
            put(RecordKey::new(kind, id), Some(doc! {"_id": id, owner: "ANA"})).await;
        }
        assert_eq!(counts(), BTreeMap::new());
        put(ana.clone(), None).await;
        assert_eq!(counts(), BTreeMap::from([(Kind::Page, 2), (Kind::Event, 1)]));
        put(RecordKey::new(Kind::Page, "p"), None).await;
        assert_eq!(counts(), BTreeMap::from([(Kind::Page, 1), (Kind::Event, 1)]));
        put(ana, Some(doc! {"_id": "ana", "name": "Ana"})).await;
        assert_eq!(counts(), BTreeMap::new());
    }
}
