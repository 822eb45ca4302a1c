//! Bits that flip on the disk: noticed, never sent, never the reason of a delete, and healed from the centre.

#![allow(clippy::unwrap_used)]

#[path = "rot/every_table.rs"]
mod every_table;
#[path = "rot/in_words.rs"]
mod in_words;
#[path = "rot/questions.rs"]
mod questions;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bson::{Document, doc};
use tempfile::TempDir;
use thalamus_edge::central::Hub;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{About, AsideRows, Store, StoreError, StoreOptions};
use thalamus_edge::sync::{Outcome, Reconciler, Report, SyncSettings};

/// Tables whose rows have no checksums: they are made of the others, or hold a few bytes.
const WITHOUT_SUMS: [&str; 31] = [
    "meta",
    "dirty",
    "held_of",
    "duplicate",
    "trash_order",
    "conflict_open",
    "conflict_outbox",
    "conflict_watched",
    "by_owner",
    "by_name",
    "by_spelling",
    "rights",
    "closed_here",
    "holder_since",
    "holder_identity",
    "former_trail",
    "closed_unsent",
    "reread",
    "vanished",
    "vanished_told",
    "echo",
    "landed",
    "taken",
    "content_named",
    "content_wanted",
    "content_owed",
    "content_idle",
    "audit_of",
    "owner_of",
    "trash_owner",
    "conflict_about",
];

use support::disk::damage;
use support::sim::{Backup, SetBack, Sim, person_key};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, audit_keep_rows: 100_000, clock: || 0 };

/// A node whose file is there to be damaged while it is switched off.
struct Clinic {
    directory: TempDir,
    sim: Sim,
}

impl Clinic {
    fn new() -> Clinic {
        Clinic { directory: TempDir::new().unwrap(), sim: Sim::default() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("store.redb")
    }

    /// Where the rows are that were set aside.
    fn damaged(&self) -> PathBuf {
        self.directory.path().join("damaged")
    }

    fn store(&self) -> Store {
        Store::open(&self.file(), OPTIONS).unwrap()
    }

    async fn round(&self, store: &Store) -> Report {
        let hub: Arc<dyn Hub> = Arc::new(self.sim.clone());
        Reconciler::new(store.clone(), Some(hub), SyncSettings::default()).round().await
    }
}

/// A node that is switched off, and its centre, as they were at one moment: each trial begins from there.
struct Kept {
    node: Clinic,
    image: PathBuf,
    centre: Backup,
}

impl Kept {
    fn of(node: Clinic) -> Kept {
        let image = node.directory.path().join("image");
        std::fs::copy(node.file(), &image).unwrap();
        let centre = node.sim.backup();
        Kept { node, image, centre }
    }

    fn set_back(&self) -> &Clinic {
        std::fs::copy(&self.image, self.node.file()).unwrap();
        let damaged = self.node.damaged();
        if damaged.exists() {
            std::fs::remove_dir_all(damaged).unwrap();
        }
        self.node.sim.restore(self.centre.clone(), SetBack::Files);
        &self.node
    }
}

fn blood(id: &str, f: &str) -> Document {
    doc! {"_id": id, "f": f}
}

async fn edit(store: &Store, id: &str, f: &str) {
    let (key, document, actor) = (person_key(id), blood(id, f), Actor::Local("tech".to_owned()));
    store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
}

fn is_damaged(store: &Store, id: &str) -> bool {
    match store.read().unwrap().record(&person_key(id)) {
        Err(StoreError::DamagedRow(row)) => {
            assert_eq!((row.table.as_str(), row.kind, row.id.as_str()), ("docs", Some(Kind::Person), id));
            true
        }
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    }
}

fn back_up(store: &Store) -> Result<(), String> {
    let about = About { node_name: "clinic".to_owned(), node_id: None, created_ms: 0 };
    let backup = store.read().unwrap().write_backup(&about, &mut std::io::sink());
    backup.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_damaged_record_is_noticed_and_comes_back_from_the_centre() {
    let node = Clinic::new();
    node.sim.put(Kind::Person, blood("ANA", "A-negative"));
    node.sim.put(Kind::Person, blood("EVA", "B-positive"));
    let store = node.store();
    assert_eq!(node.round(&store).await.outcome, Outcome::Complete);
    drop(store);
    assert!(damage(&node.file(), "A-negative") > 0);
    let store = node.store();
    assert!(is_damaged(&store, "ANA") && !is_damaged(&store, "EVA"));
    assert!(back_up(&store).unwrap_err().contains("is damaged"));
    assert_eq!(store.damaged_rows().len(), 1);
    // Known to the next process too, which has read nothing.
    store.settle_damage().await.unwrap();
    drop(store);
    let store = node.store();
    assert_eq!(store.damaged_rows().len(), 1);
    let report = node.round(&store).await;
    assert_eq!((report.outcome, report.pulled, report.pushed, report.deleted), (Outcome::Complete, 1, 0, 0));
    assert!(!is_damaged(&store, "ANA") && store.damaged_rows().is_empty());
    assert_eq!(node.sim.get(Kind::Person, "ANA"), Some(blood("ANA", "A-negative")));
    assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
    back_up(&store).unwrap();
}

#[tokio::test]
async fn a_damaged_record_that_is_gone_at_the_centre_stays_and_is_listed() {
    let node = Clinic::new();
    node.sim.put(Kind::Person, blood("ANA", "A-negative"));
    let store = node.store();
    node.round(&store).await;
    drop(store);
    damage(&node.file(), "A-negative");
    node.sim.remove(Kind::Person, "ANA");
    let store = node.store();
    assert!(is_damaged(&store, "ANA"));
    for _ in 0..2 {
        let report = node.round(&store).await;
        assert_ne!(report.outcome, Outcome::Failed, "{report:?}");
        assert_eq!((report.pushed, report.deleted), (0, 0));
    }
    assert!(is_damaged(&store, "ANA"));
    assert_eq!(store.damaged_rows().len(), 1);
}

#[tokio::test]
async fn what_was_not_sent_is_neither_sent_damaged_nor_written_over() {
    // The record itself, or what was last agreed about it.
    for text in ["B-unsent", "A-negative"] {
        let node = Clinic::new();
        node.sim.put(Kind::Person, blood("ANA", "A-negative"));
        node.sim.put(Kind::Person, blood("EVA", "B-positive"));
        let store = node.store();
        node.round(&store).await;
        edit(&store, "ANA", "B-unsent").await;
        drop(store);
        assert!(damage(&node.file(), text) > 0);
        let store = node.store();
        edit(&store, "EVA", "AB").await;
        // Somebody else writes to it meanwhile.
        node.sim.put(Kind::Person, blood("ANA", "0-negative"));
        for _ in 0..3 {
            let report = node.round(&store).await;
            assert_ne!(report.outcome, Outcome::Failed, "{text}: {report:?}");
        }
        assert_eq!(node.sim.get(Kind::Person, "ANA"), Some(blood("ANA", "0-negative")), "{text}");
        assert_eq!(node.sim.get(Kind::Person, "EVA"), Some(blood("EVA", "AB")), "{text}: others travel");
        assert_eq!(store.read().unwrap().pending_count().unwrap(), 1, "{text}");
        assert_eq!(store.damaged_rows().len(), 1, "{text}: {:?}", store.damaged_rows());
    }
}

#[tokio::test]
async fn records_of_a_damaged_person_wait_until_it_is_known_who_they_are() {
    let page = |id: &str| RecordKey::new(Kind::Page, id);
    let actor = || Actor::Local("tech".to_owned());
    let node = Clinic::new();
    for (id, f) in [("ANA", "A-negative"), ("EVA", "B-positive")] {
        node.sim.put(Kind::Person, blood(id, f));
        node.sim.put(Kind::Page, doc! {"_id": format!("{id}-1"), "book": id, "f": format!("of {id}")});
    }
    let store = node.store();
    node.round(&store).await;
    for (id, book) in [("ANA-1", "ANA"), ("ANA-2", "ANA"), ("EVA-2", "EVA")] {
        let (key, document) = (page(id), doc! {"_id": id, "book": book, "f": "written here"});
        store.transact(move |tx| tx.edit(&key, Some(&document), &actor())).await.unwrap();
    }
    drop(store);
    assert!(damage(&node.file(), "A-negative") > 0);
    node.sim.remove(Kind::Person, "ANA");
    let store = node.store();
    for _ in 0..3 {
        let report = node.round(&store).await;
        assert_ne!(report.outcome, Outcome::Failed, "{report:?}");
    }
    let written = |id: &str| node.sim.get(Kind::Page, id).map(|page| page.get_str("f").unwrap().to_owned());
    assert_eq!(written("EVA-2").as_deref(), Some("written here"), "others travel");
    assert_eq!(written("ANA-1").as_deref(), Some("of ANA"));
    assert_eq!(written("ANA-2"), None);
    // Once the centre has the person again, the row is healed and the records go.
    node.sim.put(Kind::Person, blood("ANA", "A-negative"));
    for _ in 0..2 {
        assert_eq!(node.round(&store).await.outcome, Outcome::Complete);
    }
    for id in ["ANA-1", "ANA-2"] {
        assert_eq!(written(id).as_deref(), Some("written here"));
    }
}

#[tokio::test]
async fn the_pass_in_the_background_finds_a_row_that_nobody_reads() {
    let node = Clinic::new();
    let store = node.store();
    for n in 0..50 {
        edit(&store, &format!("P{n:02}"), &format!("blood-{n:02}")).await;
    }
    drop(store);
    damage(&node.file(), "blood-33");
    let store = node.store();
    let mut pass = store.read().unwrap().scrubbed().unwrap();
    assert_eq!(pass.completed_ms, None);
    let mut steps = 0;
    while !store.scrub(500, steps % 10 == 0, &mut pass).await.unwrap() {
        steps += 1;
        assert!(steps < 10_000);
        if steps == 15 {
            // Another process goes on about where the last one was.
            pass = store.read().unwrap().scrubbed().unwrap();
            assert_ne!(pass, thalamus_edge::store::Scrub::default());
        }
    }
    assert!(steps > 15, "a little at a time");
    let names: Vec<_> = store.damaged_rows().into_iter().map(|row| (row.table, row.id)).collect();
    assert_eq!(names, [("docs".to_owned(), "P33".to_owned())]);
    assert_eq!(store.read().unwrap().scrubbed().unwrap().completed_ms, Some(0));
}

#[tokio::test]
async fn a_single_wrong_bit_in_what_was_not_sent_costs_nothing() {
    // The record itself, what was last agreed about it, and the id, which stands in keys of many tables.
    for (text, nth) in
        [("B-unsent", 0), ("A-negative", 0), ("ANA-MARIA", 0), ("ANA-MARIA", 1), ("ANA-MARIA", 2)]
            .into_iter()
            .chain((3..12).map(|nth| ("ANA-MARIA", nth)))
    {
        let node = Clinic::new();
        node.sim.put(Kind::Person, blood("ANA-MARIA", "A-negative"));
        node.sim.put(Kind::Person, blood("EVA", "B-positive"));
        let store = node.store();
        node.round(&store).await;
        edit(&store, "ANA-MARIA", "B-unsent").await;
        edit(&store, "NEW", "0-unsent").await;
        drop(store);
        let mut bytes = std::fs::read(node.file()).unwrap();
        let mut places = (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text.as_bytes()));
        let place = places.nth(nth).unwrap();
        bytes[place] ^= 2;
        std::fs::write(node.file(), bytes).unwrap();
        let store = node.store();
        for _ in 0..3 {
            let report = node.round(&store).await;
            assert_eq!((report.deleted, report.conflicts), (0, 0), "{text} {nth}: {report:?}");
        }
        assert_eq!(
            node.sim.get(Kind::Person, "ANA-MARIA"),
            Some(blood("ANA-MARIA", "B-unsent")),
            "{text} {nth}"
        );
        assert_eq!(node.sim.get(Kind::Person, "NEW"), Some(blood("NEW", "0-unsent")), "{text} {nth}");
        assert!(store.damaged_rows().is_empty(), "{text} {nth}: {:?}", store.damaged_rows());
        assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new(), "{text} {nth}");
        back_up(&store).unwrap();
    }
}

#[tokio::test]
async fn rounds_say_that_rows_are_damaged_until_they_are_set_aside() {
    let node = Clinic::new();
    node.sim.put(Kind::Person, blood("EVA", "B-positive"));
    let store = node.store();
    node.round(&store).await;
    edit(&store, "ANA", "A-unsent").await;
    drop(store);
    assert!(damage(&node.file(), "A-unsent") > 0);
    let store = node.store();
    assert_eq!(store.damaged_rows().len(), 1, "known before anybody asks: {:?}", store.damaged_rows());
    for _ in 0..2 {
        let report = node.round(&store).await;
        assert!(!report.message.contains("up to date"), "{report:?}");
        assert!(report.message.contains("damaged"), "{report:?}");
    }
    assert!(back_up(&store).is_err());
    assert!(store.set_aside(&person_key("EVA")).await.is_err(), "only what is damaged");
    let file = store.set_aside(&person_key("ANA")).await.unwrap();
    let kept = std::fs::read_to_string(file).unwrap();
    assert!(kept.contains("\"id\":\"ANA\"") && kept.contains("-unsent"), "{kept}");
    assert!(store.damaged_rows().is_empty());
    assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
    assert_eq!(store.read().unwrap().record(&person_key("ANA")).unwrap().map(|_| ()), None);
    back_up(&store).unwrap();
    // Whatever the centre has takes its place.
    node.sim.put(Kind::Person, blood("ANA", "A-known"));
    let report = node.round(&store).await;
    assert!(report.message.contains("up to date"), "{report:?}");
    assert!(store.read().unwrap().record(&person_key("ANA")).unwrap().is_some());
}

/// People who can be told apart.
fn human(id: &str, name: &str, dob: &str) -> Document {
    doc! {"_id": id, "name": name, "lastname": format!("{name}-last"), "dob": dob, "gender": "f"}
}

fn page(id: &str, book: &str, f: &str) -> Document {
    doc! {"_id": id, "book": book, "f": f}
}

async fn write(store: &Store, kind: Kind, document: Document) {
    let (key, actor) =
        (RecordKey::new(kind, document.get_str("_id").unwrap()), Actor::Local("tech".to_owned()));
    store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
}

async fn delete(store: &Store, kind: Kind, id: &str) {
    let (key, actor) = (RecordKey::new(kind, id), Actor::Local("tech".to_owned()));
    store.transact(move |tx| tx.edit(&key, None, &actor)).await.unwrap();
}

fn with_phone() -> Document {
    let mut ana = human("ANA-1", "Ana", "1980-01-01");
    ana.insert("phone", "later");
    ana
}

/// As `doctor` advises: every command of its list succeeds, and afterwards nothing is left.
async fn set_aside_all(store: &Store, what: &str) {
    store.settle_damage().await.unwrap();
    let mut done = std::collections::BTreeSet::new();
    for row in store.damaged_rows() {
        let of_records = ["docs", "base", "intent", "delivered", "undecided", "ghost"];
        let result = match row.kind {
            Some(kind) if of_records.contains(&row.table.as_str()) => {
                if !done.insert((kind, row.id.clone())) {
                    continue;
                }
                store.set_aside(&RecordKey::new(kind, row.id.as_str())).await.map(drop)
            }
            _ => {
                let which = AsideRows { table: row.table.clone(), kind: row.kind, id: Some(row.id.clone()) };
                store.set_aside_rows(which).await.map(drop)
            }
        };
        result.unwrap_or_else(|error| panic!("{what}: {row:?}: {error}"));
    }
    assert_eq!(store.damaged_rows(), [], "{what}");
    assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new(), "{what}");
}

/// Eve is here and Bob at the centre, under one account; Zelda and her page are new; a page's delete waits; a value lost.
async fn a_full_node() -> Clinic {
    let node = Clinic::new();
    for (id, name, dob) in [("ANA-1", "Ana", "1980-01-01"), ("EVA-1", "Eva", "1981-01-01")] {
        node.sim.put(Kind::Person, human(id, name, dob));
        node.sim.put(Kind::Page, page(&format!("{id}-page"), id, "agreed"));
    }
    node.sim.put(Kind::Page, page("GOING-1", "ANA-1", "goes"));
    let store = node.store();
    node.round(&store).await;
    write(&store, Kind::Person, human("HELD-1", "Eve", "1982-01-01")).await;
    write(&store, Kind::Page, page("EVES-1", "HELD-1", "of Eve")).await;
    node.sim.put(Kind::Person, human("HELD-1", "Bob", "1950-12-31"));
    node.sim.put(Kind::Page, page("BOBS-1", "HELD-1", "of Bob"));
    write(&store, Kind::Page, page("EVA-1-page", "EVA-1", "here")).await;
    node.sim.put(Kind::Page, page("EVA-1-page", "EVA-1", "there"));
    let report = node.round(&store).await;
    assert_eq!((report.outcome, report.conflicts), (Outcome::Complete, 2), "{report:?}");
    delete(&store, Kind::Page, "GOING-1").await;
    write(&store, Kind::Person, human("ZELDA-1", "Zelda", "1970-07-07")).await;
    write(&store, Kind::Page, page("ZELDAS-1", "ZELDA-1", "of Zelda")).await;
    node
}

/// Whose the records at the centre are.
fn nothing_is_anothers(node: &Clinic, what: &str) {
    let name = |id: &str| node.sim.get(Kind::Person, id).map(|p| p.get_str("name").unwrap().to_owned());
    let book = |id: &str| node.sim.get(Kind::Page, id).map(|p| p.get_str("book").unwrap().to_owned());
    for (page, of) in [("EVES-1", "Eve"), ("BOBS-1", "Bob"), ("ZELDAS-1", "Zelda")] {
        if let Some(person) = book(page).and_then(|account| name(&account)) {
            assert_eq!(person, of, "{what}: {page} is in another person's record");
        }
    }
}

/// A byte at this place of each text is damaged, wherever in the file the text stands.
async fn all_others_travel_and_nothing_becomes_anothers(texts: &[(&str, usize)]) {
    let (mut tried, mut refused) = (Vec::new(), 0);
    let kept = Kept::of(a_full_node().await);
    let whole = std::fs::read(&kept.image).unwrap();
    for &(text, at) in texts {
        let places = whole.windows(text.len()).enumerate().filter(|(_, found)| *found == text.as_bytes());
        for (nth, (place, _)) in places.enumerate() {
            let node = kept.set_back();
            let mut bytes = whole.clone();
            bytes[place + at] ^= 6;
            std::fs::write(node.file(), bytes).unwrap();
            let Ok(store) = Store::open(&node.file(), OPTIONS) else {
                refused += 1;
                continue;
            };
            let what = format!("{text} {at} {nth} {:?}", store.damaged_rows());
            let damaged = !store.damaged_rows().is_empty();
            write(&store, Kind::Person, with_phone()).await;
            for _ in 0..2 {
                let report = node.round(&store).await;
                assert_ne!(report.outcome, Outcome::Failed, "{what}: {report:?}");
                assert!(!damaged || !report.message.contains("up to date"), "{what}: {report:?}");
                nothing_is_anothers(node, &what);
            }
            let ana = node.sim.get(Kind::Person, "ANA-1").unwrap();
            assert_eq!(ana.get_str("phone").ok(), Some("later"), "{what}: others travel");
            set_aside_all(&store, &what).await;
            for _ in 0..2 {
                node.round(&store).await;
                nothing_is_anothers(node, &what);
            }
            if node.sim.get(Kind::Person, "ZELDA-1").is_none() {
                node.sim.put(Kind::Person, human("ZELDA-1", "Hugo", "1930-01-01"));
            }
            let mut last = None;
            for _ in 0..4 {
                last = Some(node.round(&store).await);
                nothing_is_anothers(node, &what);
                assert_eq!(store.damaged_rows(), [], "{what}: all were named at once");
            }
            assert!(last.as_ref().is_some_and(|last| last.outcome == Outcome::Complete), "{what}: {last:?}");
            back_up(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new(), "{what}");
            tried.extend(damaged.then_some(what));
        }
    }
    eprintln!("{refused} refused, {} damaged: {tried:#?}", tried.len());
    assert!(tried.len() > 10, "{tried:?}");
}

/// In the middle of an id, where a key comes to lie elsewhere.
#[tokio::test]
async fn whatever_row_is_damaged_all_others_travel_and_nothing_becomes_anothers() {
    let texts = ["HELD-1", "EVES-1", "BOBS-1", "GOING-1", "ZELDA-1"].map(|text| (text, 1));
    all_others_travel_and_nothing_becomes_anothers(&texts).await;
}

/// At the end of an id, where a key stays in order.
#[tokio::test]
async fn whatever_row_is_damaged_at_the_end_of_its_id_all_others_travel() {
    let texts = ["HELD-1", "ZELDAS-1", "EVA-1-page"].map(|text| (text, text.len() - 1));
    all_others_travel_and_nothing_becomes_anothers(&texts).await;
}
