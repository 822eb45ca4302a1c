//! A damaged row, of whatever table, stops its own record and no other: rounds go on, and say that there is damage.

use super::*;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _};

use super::support::sim::Fault;

type OfRecord = (u8, &'static str);

/// Tables whose rows end in checksums, by what their keys are.
const OF_RECORDS: [&str; 12] = [
    "docs",
    "base",
    "intent",
    "dead",
    "held",
    "delivered",
    "unsent_versions",
    "undecided",
    "waiting",
    "former_dates",
    "ghost",
    "restore",
];
const OF_ACCOUNTS: [&str; 7] =
    ["hold", "departed", "meant", "newcomer", "conflict", "grants", "local_accounts"];
const OF_NUMBERS: [&str; 4] = ["journal", "sent", "audit", "emergency"];
const OF_OTHERS: [&str; 2] = ["trash", "content"];
/// Rows of a table with numbers that are damaged, the last ones.
const ROWS: usize = 2;
const NOT_A_ROW: &[u8] = b"these bytes were never written";

/// What is damaged, once in each trial.
#[derive(Debug, Clone)]
enum Place {
    Record(&'static str, Kind, String),
    Account(&'static str, String),
    Number(&'static str, u64),
    Trash(u8, String, u64),
    Content(String, u32),
}

/// Damages the row; one that is not there is there then, and nobody can read it.
fn damage_row(file: &Path, place: &Place) {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    fn spoiled<K: redb::Key + 'static>(table: &mut redb::Table<'_, K, &'static [u8]>, key: K::SelfType<'_>) {
        let mut row = table.get(&key).unwrap().map_or(NOT_A_ROW.to_vec(), |row| row.value().to_vec());
        let last = row.len() - 1;
        row[last] ^= 6;
        table.insert(&key, row.as_slice()).unwrap();
    }
    match place {
        Place::Record(name, kind, id) => {
            let table = TableDefinition::<OfRecord, &[u8]>::new(name);
            spoiled(&mut transaction.open_table(table).unwrap(), (kind.schema().code, id.as_str()));
        }
        Place::Account(name, id) => {
            let table = TableDefinition::<&str, &[u8]>::new(name);
            spoiled(&mut transaction.open_table(table).unwrap(), id.as_str());
        }
        Place::Number(name, number) => {
            let table = TableDefinition::<u64, &[u8]>::new(name);
            spoiled(&mut transaction.open_table(table).unwrap(), *number);
        }
        Place::Trash(code, id, sequence) => {
            let table = TableDefinition::<(u8, &str, u64), &[u8]>::new("trash");
            spoiled(&mut transaction.open_table(table).unwrap(), (*code, id.as_str(), *sequence));
        }
        Place::Content(sha256, number) => {
            let table = TableDefinition::<(&str, u32), &[u8]>::new("content");
            spoiled(&mut transaction.open_table(table).unwrap(), (sha256.as_str(), *number));
        }
    }
    transaction.commit().unwrap();
}

/// The records of the scene that may be damaged.
fn records() -> Vec<(Kind, &'static str)> {
    vec![
        (Kind::Person, "ANA01"),
        (Kind::Person, "HEL01"),
        (Kind::Person, "DEP01"),
        (Kind::Person, "NEW01"),
        (Kind::Page, "edited"),
        (Kind::Page, "asked"),
        (Kind::Page, "waits"),
        (Kind::Page, "of-held"),
        (Kind::Page, "gone"),
        (Kind::Institution, "BAD"),
    ]
}

fn places(file: &Path) -> Vec<Place> {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_read().unwrap();
    let known: Vec<&str> = [&OF_RECORDS[..], &OF_ACCOUNTS, &OF_NUMBERS, &OF_OTHERS, &WITHOUT_SUMS].concat();
    for table in transaction.list_tables().unwrap() {
        assert!(known.contains(&table.name()), "{} is damaged by no trial", table.name());
    }
    let mut places = Vec::new();
    for table in OF_RECORDS {
        places.extend(records().into_iter().map(|(kind, id)| Place::Record(table, kind, id.to_owned())));
    }
    let accounts = ["ANA01", "HEL01", "DEP01", "NEW01"];
    for table in OF_ACCOUNTS {
        places.extend(accounts.map(|account| Place::Account(table, account.to_owned())));
    }
    let conflicts = transaction.open_table(TableDefinition::<&str, &[u8]>::new("conflict")).unwrap();
    for row in conflicts.iter().unwrap() {
        places.push(Place::Account("conflict", row.unwrap().0.value().to_owned()));
    }
    for name in OF_NUMBERS {
        let table = transaction.open_table(TableDefinition::<u64, &[u8]>::new(name)).unwrap();
        let last = table.iter().unwrap().rev().take(ROWS);
        let mut numbers: Vec<u64> = last.map(|row| row.unwrap().0.value()).collect();
        if numbers.is_empty() {
            numbers.push(1);
        }
        places.extend(numbers.into_iter().map(|number| Place::Number(name, number)));
    }
    let trash = transaction.open_table(TableDefinition::<(u8, &str, u64), &[u8]>::new("trash")).unwrap();
    for row in trash.iter().unwrap() {
        let (code, id, sequence) = row.as_ref().unwrap().0.value();
        places.push(Place::Trash(code, id.to_owned(), sequence));
    }
    let content = transaction.open_table(TableDefinition::<(&str, u32), &[u8]>::new("content")).unwrap();
    for row in content.iter().unwrap() {
        let (sha256, number) = row.as_ref().unwrap().0.value();
        places.push(Place::Content(sha256.to_owned(), number));
    }
    places
}

fn human(id: &str, name: &str) -> Document {
    doc! {"_id": id, "name": name, "lastname": format!("Of {name}"), "dob": "1980-01-01", "gender": "f"}
}

fn page(id: &str, book: &str, info: &str) -> Document {
    doc! {"_id": id, "book": book, "info": info}
}

async fn write(store: &Store, kind: Kind, id: &str, document: Option<Document>) {
    let (key, actor) = (RecordKey::new(kind, id), Actor::Local("tech".to_owned()));
    store.transact(move |tx| tx.edit(&key, document.as_ref(), &actor)).await.unwrap();
}

/// A node with something of everything.
pub(super) struct Scene(Kept);

impl Scene {
    pub(super) async fn new(has_history: bool) -> Scene {
        let sim = if has_history { Sim::with_history() } else { Sim::default() };
        let node = Clinic { sim, ..Clinic::new() };
        let sim = &node.sim;
        for (id, name) in
            [("ANA01", "Ana"), ("BEA01", "Bea"), ("DEP01", "Dep"), ("UMA01", "Uma"), ("VERA01", "Vera")]
        {
            sim.put(Kind::Person, human(id, name));
        }
        for (id, book) in [("edited", "ANA01"), ("asked", "ANA01"), ("of-dep", "DEP01"), ("gone", "ANA01")] {
            sim.put(Kind::Page, page(id, book, "agreed"));
        }
        sim.put(Kind::Page, page("veras", "VERA01", "agreed"));
        sim.state().refused.push("BAD".to_owned());
        let store = node.store();
        node.round(&store).await;
        // Somebody who is gone, a refused record, two people under one account, a record that nobody owns, bytes.
        sim.remove(Kind::Person, "DEP01");
        sim.remove(Kind::Page, "gone");
        write(&store, Kind::Institution, "BAD", Some(doc! {"_id": "BAD"})).await;
        write(&store, Kind::Person, "HEL01", Some(human("HEL01", "Helen"))).await;
        write(&store, Kind::Page, "waits", Some(page("waits", "NOBODY", "new"))).await;
        sim.put(Kind::Person, human("HEL01", "Hilda"));
        sim.put(Kind::Page, page("of-held", "HEL01", "hilda's"));
        node.round(&store).await;
        node.round(&store).await;
        // Both sides change a page; another one is moved while it is edited.
        write(&store, Kind::Page, "edited", Some(page("edited", "ANA01", "here"))).await;
        sim.put(Kind::Page, page("edited", "ANA01", "there"));
        write(&store, Kind::Page, "asked", Some(page("asked", "ANA01", "here"))).await;
        sim.put(Kind::Page, page("asked", "BEA01", "bea's"));
        node.round(&store).await;
        node.round(&store).await;
        let bytes = b"bytes".to_vec();
        store.transact(move |tx| tx.put_content(SHA256_OF_BYTES, &bytes)).await.unwrap();
        let actor = Actor::Local("tech".to_owned());
        store.transact(move |tx| tx.set_grants("ANA01", &["nurse".to_owned()], &actor)).await.unwrap();
        // Edits wait, and the answer to one of them is lost.
        write(&store, Kind::Page, "edited", Some(page("edited", "ANA01", "here again"))).await;
        write(&store, Kind::Person, "NEW01", Some(human("NEW01", "New"))).await;
        sim.state().write_faults.push_back(Fault::LostAnswer);
        node.round(&store).await;
        drop(store);
        Scene(Kept::of(node))
    }

    pub(super) fn node(&self) -> &Clinic {
        &self.0.node
    }

    pub(super) fn image(&self) -> &Path {
        &self.0.image
    }

    /// As it was; `is_settled`: but for a round since.
    pub(super) async fn set_back(&self, is_settled: bool) {
        let node = self.0.set_back();
        if is_settled {
            let store = node.store();
            node.round(&store).await;
        }
    }

    /// Everything is touched at the centre, and somebody unrelated edited here.
    async fn goes_on(&self, store: &Store) {
        let sim = &self.node().sim;
        let there: Vec<(Kind, Document)> =
            sim.state().records.iter().map(|((kind, _), record)| (*kind, record.clone())).collect();
        for (kind, mut record) in there {
            record.insert("touched", true);
            sim.put(kind, record);
        }
        sim.put(Kind::Person, human("DEP01", "Somebody else"));
        let uma = RecordKey::new(Kind::Person, "UMA01");
        let mut document = shown(store, &uma).unwrap();
        document.insert("phone", "777");
        write(store, Kind::Person, "UMA01", Some(document)).await;
    }
}

const SHA256_OF_BYTES: &str = "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9";

fn shown(store: &Store, key: &RecordKey) -> Option<Document> {
    let record = store.read().unwrap().record(key).unwrap()?;
    Some(Document::try_from(record.document.as_ref()).unwrap())
}

#[tokio::test]
async fn a_damaged_row_of_any_table_stops_no_other_record() {
    for (has_history, is_settled) in [(true, false), (true, true), (false, false)] {
        let scene = Scene::new(has_history).await;
        for place in places(scene.image()) {
            let what = format!("{place:?}, history: {has_history}, settled: {is_settled}");
            scene.set_back(is_settled).await;
            damage_row(&scene.node().file(), &place);
            let store = scene.node().store();
            scene.goes_on(&store).await;
            for _ in 0..2 {
                let report = scene.node().round(&store).await;
                let is_well = matches!(report.outcome, Outcome::Complete | Outcome::Partial);
                assert!(is_well, "{what}: {report:?}");
            }
            let phone =
                scene.node().sim.get(Kind::Person, "UMA01").unwrap().get_str("phone").map(str::to_owned);
            assert_eq!(phone.ok().as_deref(), Some("777"), "{what}: an edit of somebody else is sent");
            for key in [RecordKey::new(Kind::Person, "VERA01"), RecordKey::new(Kind::Page, "veras")] {
                let is_taken = shown(&store, &key).unwrap().contains_key("touched");
                assert!(is_taken, "{what}: news of {key} is taken");
            }
            // What is in the way is named, if it is still there.
            let report = scene.node().round(&store).await;
            let hub: Arc<dyn Hub> = Arc::new(scene.node().sim.clone());
            let reconciler = Reconciler::new(store.clone(), Some(hub), SyncSettings::default());
            let status = reconciler.status().unwrap_or_else(|error| panic!("{what}: {error}"));
            if !store.damaged_rows().is_empty() {
                for said in [&report.message, &status.message] {
                    assert!(said.contains("damaged on the disk"), "{what}: {said}");
                }
            }
        }
    }
}
