//! Checks that nothing is left of damaged keys and lost tables, and that no duty is forgotten with them.

use std::path::Path;
use std::sync::Arc;

use bson::{Document, doc};
use redb::{Key, TableDefinition, Value};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::domain::access::Actor;
use crate::domain::audit::{Event, What};
use crate::store::check::reindex::drop_indexes;
use crate::store::engine::{Carry, Counted};
use crate::store::file::{caught, inspect};
use crate::store::rows::{RowName, RowsDefinition, encode};
use crate::store::schema::{EachTable, Role, each_table, names_of};
use crate::store::{
    AsideRows, DeadLetter, Hold, HoldReason, Intent, IntentWrite, Landing, Reread, Scrub, Store,
    StoreOptions, Undecided, WaitReason, Waiting, is_made_anew,
};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };
const SMALL: &[u8] = b"all of it";

fn key(kind: Kind, id: &str) -> RecordKey {
    RecordKey::new(kind, id)
}

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn tech() -> Actor {
    Actor::Local("tech".to_owned())
}

fn person(id: &str) -> Document {
    doc! {"_id": id, "name": format!("Name {id}"), "lastname": "Last", "dob": "1980-01-01", "gender": "f"}
}

fn page(id: &str, book: &str, info: &str) -> Document {
    doc! {"_id": id, "book": book, "info": info}
}

fn attached(id: &str, bytes: &[u8]) -> Document {
    let content = doc! {"sha256": sha(bytes), "length": bytes.len() as i64, "type": "image/png"};
    doc! {"_id": id, "fedacct": "ANA-01", "content": content}
}

/// Rows in every table.
fn fill(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let take = |tx: &mut Tx<'_>, kind, document: Document| {
        let id = document.get_str("_id").unwrap().to_owned();
        tx.put(&key(kind, &id), Some(&document), &Base::Document(document.clone()), &Actor::Centre)
    };
    for id in ["ANA-01", "EVA-01", "Iva-01", "IVA-01", "LEA-01", "HELD-1"] {
        take(tx, Kind::Person, person(id))?;
    }
    for (id, book) in
        [("page-11", "ANA-01"), ("page-21", "EVA-01"), ("page-31", "ANA-01"), ("page-41", "ANA-01")]
    {
        take(tx, Kind::Page, page(id, book, "agreed"))?;
    }
    let edits = [
        (Kind::Person, person("NEW-01")),
        (Kind::Page, page("page-21", "EVA-01", "edited")),
        (Kind::Page, page("page-51", "NEW-01", "new")),
        (Kind::Page, page("page-61", "EVA-01", "sent")),
    ];
    for (kind, document) in edits {
        let id = document.get_str("_id").unwrap().to_owned();
        tx.edit(&key(kind, &id), Some(&document), &tech())?;
    }
    tx.edit(&key(Kind::Page, "page-31"), None, &tech())?;
    tx.edit(&key(Kind::Person, "LEA-01"), None, &Actor::Centre)?;
    tx.put_content(&sha(SMALL), SMALL)?;
    for (id, bytes) in [("scan-01", SMALL), ("scan-02", b"to come")] {
        take(tx, Kind::PersonalDocument, attached(id, bytes))?;
    }
    tx.put_content(&sha(b"idle"), b"idle")?;

    let hold = Hold {
        account: "HELD-1".to_owned(),
        conflict: "identity-1".to_owned(),
        local: "HELD-1".to_owned(),
        remote: "HELD-1".to_owned(),
        why: HoldReason::Created,
        since_ms: 0,
        gone: None,
    };
    tx.put_hold(&hold)?;
    tx.open_conflict(Conflict::about_identity(&hold, &person("HELD-1"), &person("HELD-1"), String::new()))?;
    tx.put_held(&key(Kind::Person, "HELD-1"), "HELD-1", &person("HELD-1"))?;
    tx.put_held(&key(Kind::Page, "page-71"), "HELD-1", &page("page-71", "HELD-1", "of the other"))?;
    let asked = key(Kind::Page, "page-41");
    let (here, there) = (page("page-41", "ANA-01", "agreed"), page("page-41", "ANA-01", "another"));
    let about = Conflict::about_record("record-1".to_owned(), &asked, &here, Some(&there), String::new(), 0);
    tx.open_conflict(about.clone())?;
    tx.put_undecided(
        &asked,
        &Undecided { conflict: "record-1".to_owned(), central: Some(there), decided_owner: None },
    )?;
    let mut closed = Conflict { id: "closed-1".to_owned(), ..about };
    closed.resolve("local", None, "tech@local", 0);
    tx.put_conflict(&closed)?;
    tx.conflicts_published(&[closed], "clinic", 1)?;
    let why = WaitReason::Unknown;
    tx.put_waiting(&Waiting { key: key(Kind::Page, "page-51"), account: "NEW-01".to_owned(), why })?;
    tx.put_dead(&DeadLetter {
        key: key(Kind::Page, "page-21"),
        direction: "push",
        code: 121,
        reason: "no".to_owned(),
        at_ms: 0,
    })?;

    let intent = |number, id: &str| Intent {
        number,
        after: None,
        author: String::new(),
        write: IntentWrite::Insert(page(id, "EVA-01", "sent")),
    };
    tx.open_intent(&key(Kind::Page, "page-61"), &intent(1, "page-61"))?;
    tx.note_landed(&key(Kind::Page, "page-61"), 1, Landing::Acknowledged)?;
    tx.note_sent(&key(Kind::Page, "page-11"), &intent(2, "page-11"), 1, true)?;
    tx.note_sent(&key(Kind::Page, "page-21"), &intent(3, "page-21"), 1, true)?;
    tx.put_ghost(&key(Kind::Page, "page-51"), &intent(4, "page-51"))?;
    tx.note_taken(&key(Kind::Page, "page-11"))?;
    tx.ask_again(&key(Kind::Page, "page-21"), Reread::default())?;
    tx.put_vanished(&key(Kind::Page, "page-11"))?;
    tx.note_vanished_told(&key(Kind::Page, "page-11"))?;
    let some = encode(&doc! {"own": []})?;
    tx.restore.insert(row_key(&key(Kind::Page, "page-11")), &some)?;
    tx.delivered.insert(row_key(&key(Kind::Page, "page-51")), &encode(&doc! {"delivered": {}})?)?;
    let former = encode(&doc! {"due": bson::DateTime::from_millis(0)})?;
    tx.former_dates.insert(row_key(&key(Kind::Page, "page-11")), &former)?;
    let left = encode(&doc! {"first": 1_i64, "deleted": false, "versions": [{"changed_by": 9_i64}]})?;
    tx.unsent_versions.insert(row_key(&key(Kind::Page, "page-61")), &left)?;
    tx.meant.insert("NEW-01", &encode(&person("NEW-01"))?)?;
    tx.note_newcomer(&key(Kind::Person, "Iva-01"), 1)?;
    tx.set_grants("ANA-01", &["nurse".to_owned()], &tech())?;
    tx.set_closed_here("EVA-01", true, &tech())?;
    tx.give_trail("GONE-02", "EVA-01")?;
    tx.holder_identity.insert("EVA-01", encode(&person("EVA-01"))?.as_slice())?;
    tx.set_local_account("helper", Some(&doc! {"roles": ["root"]}), &tech())?;
    tx.audit(Event::new(What::SetAside, &tech()).about("people", "ANA-01", Some("ANA-01")))?;
    let opened = doc! {
        "who": "tech@local", "person": "ANA-01", "reason": "fall", "peer": "", "at": 0_i64, "ended": false,
    };
    tx.emergency.insert(1, &encode(&opened)?)?;
    tx.wrote();
    Ok(())
}

async fn filled(path: &Path) -> Store {
    let store = Store::open(path, OPTIONS).unwrap();
    store.transact(fill).await.unwrap();
    assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
    store
}

/// Every row of every table, as the bytes of its key.
#[derive(Default)]
struct Keys<'a> {
    snapshot: Option<&'a Snapshot>,
    keys: Vec<(&'static str, bool, Vec<u8>)>,
}

impl EachTable for Keys<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        use redb::TableHandle as _;
        for entry in self.snapshot.unwrap().transaction.open_table(table)?.iter()? {
            let key = K::as_bytes(&entry?.0.value()).as_ref().to_vec();
            let name: &'static str = Box::leak(table.name().to_owned().into_boxed_str());
            self.keys.push((name, false, key));
        }
        Ok(())
    }

    fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), StoreError> {
        let before = self.keys.len();
        self.table(rows.raw())?;
        self.keys[before..].iter_mut().for_each(|row| row.1 = true);
        Ok(())
    }
}

/// Puts one row under another key, as wrong bits do.
struct Moving<'a> {
    transaction: &'a redb::WriteTransaction,
    row: &'a (&'static str, bool, Vec<u8>),
    to: Vec<u8>,
}

impl EachTable for Moving<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        use redb::TableHandle as _;
        if table.name() != self.row.0 {
            return Ok(());
        }
        let mut open = self.transaction.open_table(table)?;
        let value = {
            let row = open.remove(K::from_bytes(&self.row.2))?.unwrap();
            V::as_bytes(&row.value()).as_ref().to_vec()
        };
        open.insert(K::from_bytes(&self.to), V::from_bytes(&value))?;
        Ok(())
    }

    fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), StoreError> {
        self.table(rows.raw())
    }
}

/// As `doctor` lists it, in one go: each succeeds.
async fn set_all_aside(store: &Store, what: &str) -> usize {
    store.settle_damage().await.unwrap();
    let (mut done, mut seen) = (0, BTreeSet::new());
    for row in store.damaged_rows() {
        let tables = ["docs", "base", "intent", "delivered", "undecided", "ghost"];
        let result = match row.kind.filter(|_| tables.contains(&row.table.as_str())) {
            Some(kind) if !seen.insert((kind, row.id.clone())) => continue,
            Some(kind) => store.set_aside(&key(kind, &row.id)).await.map(drop),
            None => {
                let which = AsideRows { table: row.table.clone(), kind: row.kind, id: Some(row.id.clone()) };
                store.set_aside_rows(which).await.map(drop)
            }
        };
        result.unwrap_or_else(|error| panic!("{what}: {row:?}: {error}"));
        done += 1;
    }
    assert_eq!(store.damaged_rows(), [], "{what}");
    done
}

#[tokio::test]
async fn a_row_under_a_damaged_key_leaves_nothing_behind_once_it_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("store.redb");
    let rows = {
        let store = filled(&whole).await;
        let snapshot = store.read().unwrap();
        let mut keys = Keys { snapshot: Some(&snapshot), ..Keys::default() };
        each_table(&mut keys).unwrap();
        keys.keys
    };
    let tables: BTreeSet<_> = rows.iter().map(|(table, ..)| *table).collect();
    struct Names(BTreeSet<String>);
    impl EachTable for Names {
        type Error = StoreError;
        fn table<K: Key + 'static, V: Value + 'static>(
            &mut self,
            table: TableDefinition<'static, K, V>,
        ) -> Result<(), StoreError> {
            use redb::TableHandle as _;
            self.0.insert(table.name().to_owned());
            Ok(())
        }
        fn rows<K: RowName>(&mut self, rows: RowsDefinition<K>) -> Result<(), StoreError> {
            self.table(rows.raw())
        }
    }
    let mut all = Names(BTreeSet::new());
    each_table(&mut all).unwrap();
    assert_eq!(tables, all.0.iter().map(String::as_str).collect(), "every table is tried");
    let mut tried = 0;
    let mut of_table = BTreeMap::<&str, u32>::new();
    for row in rows.iter().filter(|(table, ..)| *table != META_NAME) {
        // The rows of large tables are alike.
        let tried_of = of_table.entry(row.0).or_default();
        *tried_of += 1;
        if *tried_of > 4 && !["docs", "base", "conflict", "content"].contains(&row.0) {
            continue;
        }
        // The last byte, the first, and one in between.
        for at in [row.2.len() - 1, 0, row.2.len() / 2] {
            let mut to = row.2.clone();
            to[at] ^= 4;
            let what = format!("{} {:?} {at}", row.0, String::from_utf8_lossy(&row.2));
            let copy = tempfile::tempdir().unwrap();
            std::fs::copy(&whole, copy.path().join("store.redb")).unwrap();
            let store = Store::open(&copy.path().join("store.redb"), OPTIONS).unwrap();
            let before: u64 =
                Kind::ALL.into_iter().map(|kind| store.read().unwrap().count(kind).unwrap()).sum();
            {
                let engine = &store.inner.engine;
                let transaction = engine.begin_write(&mut engine.writing()).unwrap();
                let mut moving = Moving { transaction: &transaction, row, to };
                if caught(|| each_table(&mut moving).unwrap()).is_err() {
                    // No key of this table.
                    continue;
                }
                engine.commit(transaction, Counted::Anew).unwrap();
            }
            tried += 1;
            store.read().unwrap().damaged_rows().unwrap();
            set_all_aside(&store, &what).await;
            // What has no checksum is found by the pass over everything, or not known to be wrong at all.
            store.mend_indexes().await.unwrap();
            set_all_aside(&store, &what).await;
            let snapshot = store.read().unwrap();
            assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new(), "{what}");
            assert!(snapshot.content_sha256().is_ok(), "{what}");
            let after: u64 = Kind::ALL.into_iter().map(|kind| snapshot.count(kind).unwrap()).sum();
            assert!(after + 2 >= before, "{what}: {before} records, then {after}");
        }
    }
    eprintln!("{tried} keys of {} tables", tables.len());
    assert!(tried > 150, "{tried}");
}

/// The tables are made anew as after a damaged page.
fn lose(store: &Store, lost: &BTreeSet<String>) {
    let engine = &store.inner.engine;
    let transaction = engine.begin_write(&mut engine.writing()).unwrap();
    drop_indexes(&transaction, lost).unwrap();
    let mut carry = Carry { ledger: Arc::clone(&engine.ledger), ..Default::default() };
    Tx::open(&transaction, &OPTIONS, &mut carry).unwrap().rebuild_indexes(lost).unwrap();
    engine.commit(transaction, Counted::Anew).unwrap();
}

/// All parts of an attachment have come and one is wrong, which its last comparison would have shown.
#[tokio::test]
async fn contents_are_compared_with_their_names_after_the_table_that_says_which_are_whole_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("store")).await;
    assert!(store.transact(move |tx| tx.keep_chunks(&sha(b"to come"), 0, b"to COME")).await.unwrap());
    lose(&store, &BTreeSet::from(["content_wanted".to_owned()]));
    let wanted = || -> Vec<String> {
        store
            .read()
            .unwrap()
            .content_wanted("", usize::MAX)
            .unwrap()
            .into_iter()
            .map(|wanted| wanted.sha256)
            .collect()
    };
    assert_eq!(wanted(), Vec::<String>::new(), "not in the transaction that makes the tables anew");
    // A byte at a time: one attachment each.
    for _ in 0..4 {
        store.scrub(1, false, &mut Scrub::default()).await.unwrap();
    }
    assert_eq!(wanted(), [sha(b"to come")]);
    let snapshot = store.read().unwrap();
    assert!(snapshot.has_content(&sha(SMALL)).unwrap());
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
    assert_eq!(snapshot.meta("content_unchecked").unwrap(), None, "once");
}

const META_NAME: &str = "meta";

#[tokio::test]
async fn a_lost_table_without_checksums_is_made_anew_and_forgets_no_duty() {
    let directory = tempfile::tempdir().unwrap();
    for name in names_of(Role::Note) {
        let store = filled(&directory.path().join(name)).await;
        let before = store.read().unwrap().content_sha256().unwrap();
        // Parts of an attachment have come, and not all.
        assert!(store.transact(move |tx| tx.keep_chunks(&sha(b"to come"), 0, b"to")).await.unwrap());
        lose(&store, &BTreeSet::from([name.to_owned()]));
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new(), "{name}");
        assert_ne!(snapshot.content_sha256().unwrap(), before);
        let is_asked = snapshot.meta(META_VERIFY_DUE).unwrap().is_some();
        assert_eq!(is_asked, ["reread", "vanished", "landed"].contains(&name), "{name}");
        let published = snapshot.unpublished_conflicts(None, 10, 1 << 20).unwrap();
        let published: BTreeSet<_> = published.iter().map(|conflict| conflict.id.as_str()).collect();
        let wanted = match name {
            "conflict_outbox" | "conflict_watched" => vec!["closed-1", "identity-1", "record-1"],
            _ => vec!["identity-1", "record-1"],
        };
        assert_eq!(published, wanted.into_iter().collect(), "{name}");
        let wanted: Vec<_> =
            snapshot.content_wanted("", usize::MAX).unwrap().into_iter().map(|w| w.sha256).collect();
        assert_eq!(wanted, [sha(b"to come")], "{name}");
        let owed: Vec<_> = snapshot.content_owed("", 10).unwrap().into_iter().map(|o| o.sha256).collect();
        assert_eq!(owed, [sha(SMALL)], "{name}");
        let is_unclear =
            |id: &str| snapshot.reread(&key(Kind::Page, id)).unwrap().is_some_and(|why| why.is_unclear);
        assert_eq!(is_unclear("page-61"), is_asked, "{name}: a write on its way");
        assert!(snapshot.has_intent(&key(Kind::Page, "page-61")).unwrap(), "{name}");
        let counts = |id: &str| {
            let key = key(Kind::Page, id);
            store.transact(move |tx| tx.is_taken(&key))
        };
        assert!(counts("page-11").await.unwrap(), "{name}");
        assert_eq!(counts("page-21").await.unwrap(), name == "taken", "{name}");
        assert!(snapshot.reread(&key(Kind::Page, "page-21")).unwrap().is_some() || is_asked, "{name}");
    }
}

#[tokio::test]
async fn a_damaged_page_of_any_table_without_checksums_is_made_anew_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    drop(filled(&path).await);
    let whole = std::fs::read(&path).unwrap();
    let mut mended = BTreeSet::new();
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        // Two bits of where a row ends, or of the row.
        bytes[page * 4096 + 8] ^= 6;
        std::fs::write(&path, &bytes).unwrap();
        let file = redb::backends::FileBackend::new(std::fs::File::open(&path).unwrap()).unwrap();
        let broken = inspect(&file, true).unwrap().broken;
        drop(file);
        let tables: Vec<_> = broken.iter().map(String::as_str).collect();
        if tables.is_empty() || !is_made_anew(&tables.join(", ")) {
            continue;
        }
        let store = Store::open(&path, OPTIONS).unwrap_or_else(|error| panic!("{tables:?}: {error}"));
        assert_eq!(store.damaged_rows(), [], "{tables:?}");
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new(), "{tables:?}");
        assert!(snapshot.has_intent(&key(Kind::Page, "page-61")).unwrap(), "{tables:?}");
        mended.extend(broken);
    }
    let without: Vec<_> =
        names_of(Role::Index).chain(names_of(Role::Note)).filter(|name| !mended.contains(*name)).collect();
    assert_eq!(without, Vec::<&str>::new());
}

/// Two wrong bits in the queue: the record has its place, and a second one that nobody gave it.
#[tokio::test]
async fn a_place_in_the_queue_that_no_record_has_goes() {
    let store = Store::in_memory(OPTIONS).unwrap();
    let page = Kind::Page.schema().code;
    let edit = |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for id in ["page-1", "page-2"] {
            tx.edit(&key(Kind::Page, id), Some(&page_of(id)), &tech())?;
        }
        Ok(())
    };
    store.transact(edit).await.unwrap();
    let queue = || -> Vec<(RecordKey, i64)> {
        let pending = store.read().unwrap().pending(None, 10).unwrap();
        pending.into_iter().map(|(.., pending)| (pending.key, pending.since_ms)).collect()
    };
    let before = queue();
    assert_eq!(before.len(), 2);
    for (rank, sequence) in [(0, 1), (0, 77), (9, 1), (200, 2)] {
        let phantom = move |tx: &mut Tx<'_>| -> Result<u64, StoreError> {
            tx.dirty.insert((rank, sequence + (1 << 40), page, "page-1"), (5, "nobody"))?;
            tx.wrote();
            tx.mend_outbox()
        };
        assert_eq!(store.transact(phantom).await.unwrap(), 1, "{rank} {sequence}");
        assert_eq!(queue(), before, "{rank} {sequence}");
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.pending_count().unwrap(), 2);
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        assert_eq!(store.damaged_rows(), []);
        let clean = store.transact(|tx| tx.is_clean(&key(Kind::Page, "page-1"))).await.unwrap();
        assert!(!clean, "it is still to be sent");
    }
    assert_eq!(store.transact(|tx| tx.mend_outbox()).await.unwrap(), 0);
}

fn page_of(id: &str) -> Document {
    page(id, "ANA-01", "new")
}
