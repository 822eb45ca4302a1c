//! Whatever row is damaged, of whatever table: the status, every list, `doctor` and the round answer, and name it.

use std::process::Command;

use redb::{Database, ReadableDatabase as _, TableHandle as _};
use thalamus_edge::store::OwnerNow;

use super::every_table::Scene;
use super::questions::{Loss, look_at_all, lose};
use super::support::api::TestNode;
use super::*;

/// Rows of each table that are tried.
const ROWS: usize = 2;
/// Lists that pass over what is damaged, or say that it is.
const LISTS: [&str; 8] = [
    "/sync/conflicts",
    "/sync/conflicts?status=open",
    "/sync/conflicts?limit=3",
    "/sync/waiting",
    "/sync/dead",
    "/trash",
    "/users",
    "/emergencies",
];
const UP_TO_DATE: &str = "Everything is up to date";

fn tables_with_sums(file: &Path) -> Vec<String> {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_read().unwrap();
    let names = transaction.list_tables().unwrap().map(|table| table.name().to_owned());
    names.filter(|name| !WITHOUT_SUMS.contains(&name.as_str())).collect()
}

/// What is asked of a node with damaged rows. Whether there are any is returned.
async fn look(node: &Clinic, store: &Store, what: &str) -> bool {
    let hub: Arc<dyn Hub> = Arc::new(node.sim.clone());
    let serving = TestNode::start_with(|setup| {
        setup.hub = Some(hub);
        setup.store = Some(store.clone());
    });
    for path in LISTS {
        let answer = serving.get(path).by_operator().send().await;
        assert_eq!(answer.status, 200, "{what}: {path}: {:?}", answer.body);
    }
    let status = serving.get("/sync/status").by_operator().send().await;
    assert_eq!(status.status, 200, "{what}: {:?}", status.body);
    let status = status.json();
    let (rows, said) = (store.damaged_rows(), status["message"].as_str().unwrap().to_owned());
    assert_eq!(status["damaged"], rows.len(), "{what}: {said}");
    for row in rows.iter().take(3) {
        let names = [row.table.as_str(), row.id.as_str(), "db set-aside"];
        // What no terminal shows is written otherwise.
        let is_plain = row.id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
        assert!(!is_plain || names.iter().all(|name| said.contains(name)), "{what}: {said}");
        assert!(!said.contains(UP_TO_DATE), "{what}: {said}");
    }
    !rows.is_empty()
}

fn names_the_tables(store: &Store, report: &Report, what: &str) {
    for row in store.damaged_rows() {
        assert!(report.message.contains(&row.table), "{what}: {row:?}: {report:?}");
        assert!(!report.message.contains(UP_TO_DATE), "{what}: {row:?}: {report:?}");
    }
}

#[tokio::test]
async fn a_damaged_row_of_any_table_is_named_everywhere_and_fails_no_status_nor_list() {
    let scene = Scene::new(true).await;
    let (mut tried, mut named) = (Vec::new(), Vec::new());
    for table in tables_with_sums(scene.image()) {
        for loss in [Loss::Sum, Loss::Value, Loss::Key] {
            for nth in 0..ROWS {
                scene.set_back(false).await;
                let node = scene.node();
                let Some(row) = lose(&node.file(), &table, nth, loss) else { break };
                let store = node.store();
                // Wrong bits are found at the start; these were written, and are not.
                look_at_all(&store).await;
                look(node, &store, &format!("{row}, before a round")).await;
                for turn in 1..3 {
                    let what = format!("{row}, round {turn}");
                    let report = node.round(&store).await;
                    assert_ne!(report.outcome, Outcome::Failed, "{what}: {report:?}");
                    names_the_tables(&store, &report, &what);
                    named.extend(look(node, &store, &what).await.then(|| table.clone()));
                }
                tried.push(table.clone());
            }
        }
    }
    tried.dedup();
    named.dedup();
    assert!(tried.len() >= 15 && named.len() >= 10, "{tried:?}, {named:?}");
}

/// A command about the node that has its store in this directory.
fn command(node: &Clinic, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalamus-edge"));
    let settings = [
        ("DATA_DIR", node.directory.path().to_str().unwrap()),
        ("NODE__NAME", "clinic"),
        ("SERVER__LISTEN", "127.0.0.1:0"),
        ("SERVER__TLS", "false"),
    ];
    command.env_remove("THALAMUS_EDGE_CONFIG").env_remove("FAILPOINTS").args(words);
    command.envs(settings.map(|(name, value)| (format!("THALAMUS_EDGE__{name}"), value)));
    let ran = command.current_dir(node.directory.path()).output().unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn commands_name_a_damaged_row_of_a_question_and_what_takes_it_out_of_the_way() {
    let scene = Scene::new(true).await;
    for table in ["hold", "held", "conflict", "departed", "undecided", "waiting"] {
        for loss in [Loss::Sum, Loss::Key] {
            scene.set_back(false).await;
            let node = scene.node();
            let row = lose(&node.file(), table, 0, loss).unwrap();
            let store = node.store();
            look_at_all(&store).await;
            let id = store.damaged_rows().into_iter().find(|row| row.table == table).unwrap().id;
            drop(store);
            for words in [&["sync", "status"][..], &["sync", "waiting"], &["conflicts", "list"], &["doctor"]]
            {
                let (code, said) = command(node, words);
                let is_named = said.contains(table) && said.contains("db set-aside") && said.contains(&id);
                assert!(is_named, "{row}: {words:?} ended with {code:?}:\n{said}");
                assert!(!said.contains("A record that this needs"), "{row}: {said}");
            }
        }
    }
}

fn key(kind: Kind, id: &str) -> RecordKey {
    RecordKey::new(kind, id)
}

fn has(store: &Store, kind: Kind, id: &str) -> bool {
    store.read().unwrap().record(&key(kind, id)).is_ok_and(|record| record.is_some())
}

fn encounter(id: &str, person: &str) -> Document {
    doc! {"_id": id, "person": person, "summary": format!("{id} of {person}")}
}

/// Anna, of the account AAA001, is gone. Dora is well, and had an encounter that was deleted here.
async fn anna_is_gone() -> Clinic {
    let node = Clinic { sim: Sim::with_history(), ..Clinic::new() };
    node.sim.put(Kind::Person, human("AAA001", "Anna", "1950-01-01"));
    node.sim.put(Kind::Person, human("DDD001", "Dora", "1960-01-01"));
    node.sim.put(Kind::Encounter, encounter("doras", "DDD001"));
    let store = node.store();
    node.round(&store).await;
    delete(&store, Kind::Encounter, "doras").await;
    node.sim.remove(Kind::Person, "AAA001");
    node.round(&store).await;
    node.round(&store).await;
    assert!(!has(&store, Kind::Person, "AAA001"));
    node
}

#[tokio::test]
async fn a_damaged_row_of_who_had_an_account_is_in_the_way_of_no_other_account() {
    for loss in [Loss::Sum, Loss::Value, Loss::Key] {
        let node = anna_is_gone().await;
        let row = lose(&node.file(), "departed", 0, loss).unwrap();
        let store = node.store();
        look_at_all(&store).await;
        assert_eq!(store.damaged_rows().len(), 1, "{row}");
        // A record of a person who comes later, and never had a predecessor.
        node.sim.put(Kind::Encounter, encounter("carlas", "CCC001"));
        node.round(&store).await;
        assert!(has(&store, Kind::Encounter, "carlas"), "{row}: it waits for nobody");
        node.sim.put(Kind::Person, human("CCC001", "Carla", "1970-01-01"));
        node.round(&store).await;
        assert_eq!(store.read().unwrap().holds_count().unwrap(), 0, "{row}: Carla is nobody else");
        assert!(has(&store, Kind::Person, "CCC001"), "{row}");
        let doras = || {
            let snapshot = store.read().unwrap();
            let trash = snapshot.trash().unwrap();
            let of = trash.into_iter().find(|row| row.key.id == "doras").unwrap();
            snapshot.owner_now(&of.whose).unwrap()
        };
        assert_eq!(doras(), OwnerNow::Same, "{row}");
        set_aside_all(&store, &row).await;
        assert_eq!(doras(), OwnerNow::Same, "{row}, set aside: what was deleted is Dora's");
        let had = |account: &'static str| store.transact(move |tx| tx.had_somebody(account));
        assert!(had("AAA001").await.unwrap(), "{row}: somebody had Anna's account");
        for account in ["CCC001", "DDD001"] {
            assert!(!had(account).await.unwrap(), "{row}: nothing is noted of {account}");
        }
    }
}

#[tokio::test]
async fn a_view_and_a_transaction_agree_on_whose_something_is_while_a_row_is_damaged() {
    let node = anna_is_gone().await;
    lose(&node.file(), "departed", 0, Loss::Key).unwrap();
    let store = node.store();
    look_at_all(&store).await;
    node.sim.put(Kind::Person, human("AAA001", "Berta", "1990-01-01"));
    node.round(&store).await;
    let annas =
        store.read().unwrap().trash().unwrap().into_iter().find(|row| row.key.id == "AAA001").unwrap();
    let whose = annas.whose;
    let seen = store.read().unwrap().owner_now(&whose).unwrap();
    let found = store.transact(move |tx| tx.owner_now(&whose)).await.unwrap();
    assert_eq!((seen, found), (OwnerNow::Another, OwnerNow::Another));
}

/// Somebody else comes to have the account while the row of who had it before cannot be read.
#[tokio::test]
async fn nothing_of_a_person_is_half_taken_where_a_row_is_damaged() {
    for has_page in [false, true] {
        let node = Clinic { sim: Sim::with_history(), ..Clinic::new() };
        node.sim.put(Kind::Person, human("AAA001", "Anna", "1950-01-01"));
        if has_page {
            node.sim.put(Kind::Page, page("annas", "AAA001", "of Anna"));
        }
        let store = node.store();
        node.round(&store).await;
        node.sim.remove(Kind::Person, "AAA001");
        node.round(&store).await;
        node.round(&store).await;
        drop(store);
        let Some(row) = lose(&node.file(), "departed", 0, Loss::Sum) else {
            panic!("nobody is remembered: {has_page}");
        };
        let store = node.store();
        look_at_all(&store).await;
        node.sim.put(Kind::Person, human("AAA001", "Boris", "1980-05-05"));
        for _ in 0..2 {
            let report = node.round(&store).await;
            names_the_tables(&store, &report, &row);
            let found = store.read().unwrap().disagreements().unwrap();
            assert_eq!(found, Vec::<String>::new(), "{row}, page: {has_page}: half of it was taken");
        }
        set_aside_all(&store, &row).await;
        for _ in 0..2 {
            node.round(&store).await;
        }
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        let person = snapshot.record(&key(Kind::Person, "AAA001")).unwrap().unwrap();
        let name = Document::try_from(person.document.as_ref()).unwrap().get_str("name").unwrap().to_owned();
        if has_page {
            let holds = snapshot.holds().unwrap();
            assert_eq!(holds.iter().map(|hold| hold.why.name()).collect::<Vec<_>>(), ["departed"], "{row}");
        } else {
            assert_eq!(name, "Boris");
            let rows = snapshot.journal(0, 1000).unwrap().rows;
            let last = rows.iter().rfind(|row| row.key == key(Kind::Person, "AAA001")).unwrap();
            assert_eq!(last.op, "create", "readers of the changes hear of Boris");
        }
    }
}
