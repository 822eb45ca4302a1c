//! The program itself with a centre: a backup while people write, more edits on both sides, and the way back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bson::{Bson, doc};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::support::federation::Federation;
use super::support::generator;
use super::support::node::{Client, EdgeNode};
use super::*;

/// Enough that the backup takes some writes' time.
const PAGES: usize = 3_000;
const WRITERS: usize = 3;
/// Writes of each writer before the backup begins, and after it has ended.
const WRITES_AROUND: u64 = 20;
/// What the centre does not take until after the restore, so that it never got there before.
const REFUSED: &str = "not yet";

/// Somebody who counts in one record: the node has acknowledged `acknowledged` and may have `sent`.
#[derive(Default)]
struct Count {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

fn writer_id(writer: usize) -> String {
    format!("WRITER{writer}")
}

async fn write(client: Client, writer: usize, count: Arc<Count>, is_over: Arc<AtomicBool>) {
    let path = format!("/people/{}", writer_id(writer));
    for number in 1.. {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        count.sent.store(number, Ordering::SeqCst);
        let reply = client.call("PATCH", &path, &[], Some(&json!({"f": number.to_string()}))).await.unwrap();
        assert!(reply.is_success(), "{path}: {}", reply.status);
        count.acknowledged.store(number, Ordering::SeqCst);
    }
}

/// Writers at work.
struct Writing {
    counts: Vec<Arc<Count>>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writing {
    fn begin(node: &EdgeNode) -> Writing {
        let counts: Vec<Arc<Count>> = (0..WRITERS).map(|_| Arc::default()).collect();
        let is_over = Arc::<AtomicBool>::default();
        let task = |(writer, count): (usize, &Arc<Count>)| {
            tokio::spawn(write(node.new_client(), writer, Arc::clone(count), Arc::clone(&is_over)))
        };
        let tasks = counts.iter().enumerate().map(task).collect();
        Writing { counts, is_over, tasks }
    }

    fn acknowledged(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.acknowledged.load(Ordering::SeqCst)).collect()
    }

    fn sent(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.sent.load(Ordering::SeqCst)).collect()
    }

    /// Waits until everybody has written this often since.
    async fn goes_on(&self, writes: u64) {
        let before = self.acknowledged();
        while self.acknowledged().iter().zip(&before).any(|(now, before)| *now < before + writes) {
            assert!(!self.tasks.iter().any(JoinHandle::is_finished), "a writer has failed");
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// What a command that must end well has said.
async fn done(node: &EdgeNode, args: &[&str]) -> String {
    let (code, said) = node.command(args).await;
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

async fn set(node: &EdgeNode, id: &str, f: &str) {
    node.patch(&format!("/people/{id}"), json!({"f": f})).await;
}

async fn conflicts(node: &EdgeNode) -> BTreeMap<String, Value> {
    let rows = node.get("/sync/conflicts").await;
    let text = |row: &Value| row["record"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(|row| (text(row), row["local"].clone())).collect()
}

/// Whether the centre takes [`REFUSED`].
async fn centre_refuses(federation: &Federation, is_so: bool) {
    let validator = if is_so {
        doc! {"f": {"$ne": REFUSED}}
    } else {
        doc! {}
    };
    federation.legacy.run_command(doc! {"collMod": "people", "validator": validator}).await.unwrap();
}

/// A federation of one node, whose store has been filled by a round; two edits have not been sent, and one of them
/// the centre would refuse.
async fn federation() -> Federation {
    let federation = Federation::start(&["north"]).await;
    let person = |id: String| doc! {"_id": id, "name": "Ana", "f": "old", "active": false};
    let ids = ["BEFORE", "SINCE", "BOTH", "GONE", "PENDING", "THEIRS", "AGAIN", "LOST"];
    let writers: Vec<Document> = (0..WRITERS).map(writer_id).map(person).collect();
    let people = federation.centre("people");
    people.insert_many(ids.map(|id| person(id.to_owned()))).await.unwrap();
    people.insert_many(&writers).await.unwrap();
    federation.centre("pols").insert_many(generator::pages(PAGES, &writers, 1)).await.unwrap();
    let node = &federation.nodes[0];
    node.round().await;
    set(node, "BEFORE", "mine").await;
    node.round().await;
    centre_refuses(&federation, true).await;
    set(node, "PENDING", REFUSED).await;
    set(node, "AGAIN", "pending").await;
    federation
}

/// A backup made in the middle of writes: its file, and the sum over what is in it. The store at that moment had
/// something between the first and the second numbers.
async fn back_up_under_load(node: &EdgeNode) -> (String, String, [Vec<u64>; 2]) {
    let writing = Writing::begin(node);
    writing.goes_on(WRITES_AROUND).await;
    let before = writing.acknowledged();
    let made: Value = serde_json::from_str(&done_json(node, &["backup", "create", "--json"]).await).unwrap();
    assert_ne!(writing.acknowledged(), before, "somebody has written meanwhile");
    let after = writing.sent();
    println!("{} bytes; writes before and after: {before:?}, {after:?}", made["bytes"]);
    writing.goes_on(WRITES_AROUND).await;
    writing.end().await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["file"]), text(&made["manifest"]["content_sha256"]), [before, after])
}

/// The answer of a command without what it warns of.
async fn done_json(node: &EdgeNode, args: &[&str]) -> String {
    let said = done(node, args).await;
    said[..=said.rfind('}').unwrap()].to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_under_load_is_restored_and_the_centre_loses_nothing_over_mongo() {
    let mut federation = federation().await;
    let node = &federation.nodes[0];
    let (file, content, [before, after]) = back_up_under_load(node).await;
    let content = format!("sha256 of what is in it: {content}");
    let verified = done(node, &["backup", "verify", &file]).await;
    assert!(verified.contains(&content), "{verified}");

    // It goes on here and at the centre.
    set(node, "SINCE", "sent").await;
    node.done("POST", "/people/NEW", Some(&json!({"name": "Eva", "f": "sent"}))).await;
    set(node, "AGAIN", "newer").await;
    set(node, "BOTH", "mine").await;
    node.done("DELETE", "/people/GONE", None).await;
    node.round().await;
    for id in ["THEIRS", "BOTH"] {
        federation.legacy_set("people", id, doc! {"f": "theirs"}).await;
    }
    set(node, "LOST", "here only").await;
    let pending = federation.at_centre("people", "PENDING").await.unwrap();
    assert_eq!(pending.get_str("f").unwrap(), "old", "it has not got there");
    let first = node.get("/sync/status").await["node"].clone();
    let mut last = Vec::new();
    for writer in 0..WRITERS {
        last.push(node.get(&format!("/people/{}", writer_id(writer))).await["f"].clone());
    }

    let node = &mut federation.nodes[0];
    let (code, said) = node.command(&["restore", &file, "--yes"]).await;
    assert!(code == Some(3) && said.contains("stop it first"), "{code:?} {said}");
    node.stop().await;
    let sum = |node: &EdgeNode| node.open_store().read().unwrap().content_sha256().unwrap();
    let settled = sum(node);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let spoiled = node.data().join("spoiled.backup");
    std::fs::write(&spoiled, bytes).unwrap();
    let (code, said) = node.command(&["restore", spoiled.to_str().unwrap(), "--yes"]).await;
    assert!(code == Some(1) && said.contains("the backup is damaged"), "{code:?} {said}");
    assert_eq!(sum(node), settled, "the store is as it was");
    let restored = done(node, &["restore", &file, "--yes"]).await;
    assert!(restored.contains(&content), "{restored}");

    // It is one moment of the time in which the backup was made.
    {
        let store = node.open_store();
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        for (writer, (before, after)) in before.iter().zip(&after).enumerate() {
            let record = snapshot.record(&key(&writer_id(writer))).unwrap().unwrap();
            let document = Document::try_from(record.document.as_ref()).unwrap();
            let held: u64 = document.get_str("f").unwrap().parse().unwrap();
            assert!((*before..=*after).contains(&held), "{held} is not within {before} and {after}");
        }
    }

    node.restart(None).await;
    let node = &federation.nodes[0];
    assert_eq!(node.call("GET", "/people/NEW", None).await.status, 404, "it is the old state");
    centre_refuses(&federation, false).await;
    let said = done(node, &["sync", "now"]).await;
    assert_ne!(node.get("/sync/status").await["node"], first, "an old image is another node: {said}");
    federation.converge().await;
    let mut expected = vec![
        ("BEFORE".to_owned(), Some(json!("mine"))),
        ("SINCE".to_owned(), Some(json!("sent"))),
        ("NEW".to_owned(), Some(json!("sent"))),
        ("BOTH".to_owned(), Some(json!("theirs"))),
        ("GONE".to_owned(), None),
        ("PENDING".to_owned(), Some(json!(REFUSED))),
        ("THEIRS".to_owned(), Some(json!("theirs"))),
        ("AGAIN".to_owned(), Some(json!("newer"))),
        ("LOST".to_owned(), Some(json!("old"))),
    ];
    expected.extend(last.into_iter().enumerate().map(|(writer, f)| (writer_id(writer), Some(f))));
    for (id, expected) in expected {
        let there = federation.at_centre("people", &id).await;
        let there = there.and_then(|person| person.get("f").and_then(Bson::as_str).map(|f| json!(f)));
        assert_eq!(there, expected, "{id}");
    }
    // What the older state said of records that have gone on since is for somebody to decide.
    let open = conflicts(node).await;
    assert_eq!(open.get("AGAIN"), Some(&json!("pending")), "{open:?}");
    let is_expected = |id: &String| id == "AGAIN" || id.starts_with("WRITER");
    assert!(open.keys().all(is_expected), "{open:?}");
    federation.compare_stores().await;
}
