//! Reconciliation with a centre on the same machine, and how much of the work is the node's own.

use std::time::{Duration, Instant};

use bson::Document;

use super::{PEOPLE, Settings};
use crate::federation::{self, PAGES, account};
use crate::limit;
use crate::load::{CONNECTIONS, Script};
use crate::mongo::{MongoServer, Setup};
use crate::node::{Files, Node, scratch};
use crate::table::{Figure, Target};

const DATABASE: &str = "federation";
/// What PouchDB needs, the replication that the field uses, for the same documents over HTTP on loopback:
/// documents a second and processor milliseconds for a thousand, as measured where these targets were set.
const POUCH_PULLS_PER_S: f64 = 5_700.0;
const POUCH_PULL_MS: f64 = 89.0;
const POUCH_PUSH_MS: f64 = 806.0;
/// Records changed in each turn: everybody.
const CHANGED: usize = PEOPLE;
const INSERT_BATCH: usize = 2_000;

struct Centre {
    server: MongoServer,
}

impl Centre {
    fn start() -> Centre {
        Centre { server: wait(MongoServer::start_own(Setup::default())) }
    }

    fn filled() -> Centre {
        let centre = Centre::start();
        let hash = bcrypt::hash(federation::PASSWORD, 12).unwrap();
        wait(async {
            let client = mongodb::Client::with_uri_str(centre.server.uri()).await.unwrap();
            let database = client.database(DATABASE);
            let to_document =
                |value: serde_json::Value| Document::try_from(value.as_object().unwrap().clone()).unwrap();
            let people: Vec<Document> =
                (0..PEOPLE).map(|n| to_document(federation::person(n, 0, &hash))).collect();
            let pages: Vec<Document> = (0..PEOPLE)
                .flat_map(|owner| (0..PAGES).map(move |at| federation::page(owner, at)))
                .map(to_document)
                .collect();
            for (name, records) in [("people", people), ("pols", pages)] {
                for some in records.chunks(INSERT_BATCH) {
                    database.collection::<Document>(name).insert_many(some).await.unwrap();
                }
            }
        });
        centre
    }

    fn uri(&self) -> &str {
        self.server.uri()
    }

    fn files(&self, name: &str) -> Files {
        let directory = scratch().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        Files::empty(directory)
            .with("THALAMUS_EDGE__CENTRAL__URI", self.uri())
            .with("THALAMUS_EDGE__CENTRAL__DATABASE", DATABASE)
    }

    /// Lets the driver alone change everybody's phone number.
    fn pushed_by_driver(&self, turn: usize) -> Vec<f64> {
        limit::measure(&["push", self.uri(), DATABASE, &CHANGED.to_string(), &turn.to_string()])
    }
}

/// Waits on the runtime that the program has entered.
fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(work)
}

/// A round, with processor seconds and seconds of the node.
fn round(files: &Files, node: &Node) -> (f64, f64) {
    let (cpu, began) = (node.process.cpu_s(), Instant::now());
    files.command(&["sync", "now"]);
    (node.process.cpu_s() - cpu, began.elapsed().as_secs_f64())
}

fn ms_per_thousand(cpu_s: f64, documents: usize) -> f64 {
    cpu_s * 1e3 / (documents as f64 / 1e3)
}

pub(super) fn pull(settings: &Settings) -> Vec<Figure> {
    let centre = Centre::filled();
    let documents = PEOPLE * (1 + PAGES);
    let figure = |what: &str, target| Figure::alone(what, "ms CPU per 1,000", Vec::new(), target);
    let mut first = figure("first sync of 60,000, beside the driver into redb", Target::AtMost(1.5));
    let mut with_rows = figure(
        "the same, beside the driver into redb with the rows of the journal and the indexes",
        Target::None,
    );
    let mut speed = Figure::alone("the same, documents a second", "/s", Vec::new(), Target::None);
    let mut changes = figure("10,000 changed elsewhere, pulled", Target::None);
    for turn in 1..=settings.turns {
        let bare_store = scratch().join("bare.redb");
        let bare = limit::measure(&["pull", centre.uri(), DATABASE, bare_store.to_str().unwrap()]);
        let rows = limit::measure(&["pull-rows", centre.uri(), DATABASE, bare_store.to_str().unwrap()]);
        let files = centre.files("pull");
        let node = files.start(false);
        let (cpu_s, seconds) = round(&files, &node);
        first.node.push(ms_per_thousand(cpu_s, documents));
        first.limit.push(ms_per_thousand(bare[0], documents));
        with_rows.node.push(ms_per_thousand(cpu_s, documents));
        with_rows.limit.push(ms_per_thousand(rows[0], documents));
        speed.node.push(documents as f64 / seconds);
        speed.limit.push(documents as f64 / bare[1]);
        centre.pushed_by_driver(turn);
        changes.node.push(ms_per_thousand(round(&files, &node).0, CHANGED));
    }
    let mut pouch_cpu = figure("first sync, beside PouchDB's CPU", Target::AtMost(0.25));
    pouch_cpu.node.clone_from(&first.node);
    pouch_cpu.limit = vec![POUCH_PULL_MS; settings.turns];
    let mut pouch_speed =
        Figure::alone("first sync, beside PouchDB's speed", "/s", Vec::new(), Target::AtLeast(3.0));
    pouch_speed.node.clone_from(&speed.node);
    pouch_speed.limit = vec![POUCH_PULLS_PER_S; settings.turns];
    let seen = "the centre, in Python, is what takes the time";
    vec![first, with_rows, speed.seeing(seen), pouch_cpu, pouch_speed.seeing(seen), changes]
}

pub(super) fn push(settings: &Settings) -> Vec<Figure> {
    let centre = Centre::filled();
    let files = centre.files("push");
    let mut node = files.start(false);
    round(&files, &node);
    let mut cpu = Figure::alone(
        "10,000 edits pushed, beside the driver alone",
        "ms CPU per 1,000",
        Vec::new(),
        Target::AtMost(1.5),
    );
    let mut speed = Figure::alone("the same, edits a second", "/s", Vec::new(), Target::None);
    let records = scratch().join("edits");
    std::fs::create_dir_all(&records).unwrap();
    for turn in 0..settings.turns {
        node.process.stop();
        edit_everybody(&files, &records, 2 * turn + 1);
        node = files.start(false);
        let (cpu_s, seconds) = round(&files, &node);
        cpu.node.push(ms_per_thousand(cpu_s, CHANGED));
        speed.node.push(CHANGED as f64 / seconds);
        let bare = centre.pushed_by_driver(2 * turn + 2);
        cpu.limit.push(ms_per_thousand(bare[0], CHANGED));
        speed.limit.push(CHANGED as f64 / bare[1]);
        // What the driver wrote has to come here before it can be edited here.
        round(&files, &node);
    }
    let mut pouch = Figure::alone(
        "10,000 edits pushed, beside PouchDB's CPU",
        "ms CPU per 1,000",
        cpu.node.clone(),
        Target::AtMost(0.125),
    );
    pouch.limit = vec![POUCH_PUSH_MS; settings.turns];
    vec![cpu, speed.seeing("the centre, in Python, is what takes the time"), pouch]
}

/// Everybody gets the phone number of this turn, on a node that is stopped.
fn edit_everybody(files: &Files, records: &std::path::Path, turn: usize) {
    let exported = files.directory.join("exported");
    let _ = std::fs::remove_dir_all(&exported);
    files.command(&["export", exported.to_str().unwrap()]);
    let people = std::fs::read_to_string(exported.join("people.jsonl")).unwrap();
    let mut changed = String::new();
    for (number, line) in people.lines().enumerate() {
        let mut person: serde_json::Value = serde_json::from_str(line).unwrap();
        // In order of their accounts: the doctor, then by number.
        assert_eq!(person["_id"], account(number));
        person["phone"] = federation::phone_of(number, turn).into();
        changed += &person.to_string();
        changed.push('\n');
    }
    std::fs::write(records.join("people.jsonl"), changed).unwrap();
    files.command(&["import", "--replace", records.to_str().unwrap()]);
}

/// Rounds that pull, or the driver alone that does, while somebody reads.
pub(super) fn beside(settings: &Settings) -> Vec<Figure> {
    let centre = Centre::filled();
    let files = centre.files("beside");
    let node = files.start(false);
    round(&files, &node);
    let paths: Vec<String> = (1..1_000).map(|n| format!("/people/{}", account(n * 7))).collect();
    let script = Script::reads(&scratch(), "beside", &paths);
    script.run(&node.url, CONNECTIONS, Duration::from_secs(2));
    let mut figure = Figure::alone(
        "GET /people/{id} while a round pulls 10,000, beside reads while the driver alone drains the centre",
        "/s",
        Vec::new(),
        Target::AtLeast(0.7),
    );
    let mut alone = Figure::alone("the same, beside reads with nothing else", "/s", Vec::new(), Target::None);
    for turn in 1..=settings.turns {
        let quiet = script.run(&node.url, CONNECTIONS, settings.length).requests_per_s;
        let bare_store = scratch().join("bare.redb");
        let uri = centre.uri().to_owned();
        let draining = std::thread::spawn(move || {
            limit::measure(&["pull", &uri, DATABASE, bare_store.to_str().unwrap()]);
        });
        let with_driver = script.run(&node.url, CONNECTIONS, settings.length).requests_per_s;
        draining.join().unwrap();
        centre.pushed_by_driver(turn);
        let (before, began) = (node.process.cpu_s(), Instant::now());
        let load = script.start(&node.url, CONNECTIONS, settings.length);
        files.command(&["sync", "now"]);
        let pulled_s = began.elapsed().as_secs_f64();
        let with_round = load.join().requests_per_s;
        assert!(node.process.cpu_s() > before);
        figure.node.push(with_round);
        figure.limit.push(with_driver);
        alone.node.push(with_round);
        alone.limit.push(quiet);
        figure.seen =
            format!("the round took {pulled_s:.1} s of the last turn's {:.0}", settings.length.as_secs_f64());
    }
    vec![figure, alone.seeing("the centre takes one of two cores meanwhile")]
}
