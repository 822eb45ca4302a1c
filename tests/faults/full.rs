//! A disk that is full, and has space again: writes are refused before the store fails, everything else goes on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bson::{Document, doc};
use bytes::Bytes;
use serde_json::json;
use thalamus_edge::central::Hub;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Store, StoreError, StoreOptions};
use thalamus_edge::sync::{Outcome, Reconciler, SyncSettings};

use super::recorder::Recorder;
use super::support::api::{NOTHING, TestNode};
use super::support::disk::Disk;
use super::support::node::EdgeNode;
use super::support::sim::{Sim, person, person_key};

const MIB: u64 = 1 << 20;
const RESERVE_BYTES: u64 = 64 * MIB;
/// More than the reserve of a node that is not told otherwise, as it first starts.
const DISK_BYTES: u64 = 80 * MIB;
const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, audit_keep_rows: 100_000, clock: || 0 };
/// Longest that a recovery may take before the test takes it for none.
const RECOVERY_SECONDS_MAX: u64 = 30;

/// Free bytes that a test sets.
#[derive(Clone)]
struct Free(Arc<AtomicU64>);

impl Free {
    fn of(store: &Store) -> Free {
        let free = Free(Arc::new(AtomicU64::new(u64::MAX)));
        let shown = free.clone();
        store.keep_free(RESERVE_BYTES, Box::new(move || Ok(shown.0.load(Ordering::Relaxed))));
        free
    }

    fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn below_the_reserve_writes_are_refused_and_reading_goes_on() {
    let node = TestNode::with_people().await;
    let free = Free::of(node.node.store.unguarded());
    node.post("/personal-documents/d1", json!({"fedacct": "ANA001"}))
        .by("ROOT004")
        .send()
        .await
        .is(201, &["create personal_document/d1"]);
    free.set(RESERVE_BYTES - 1);
    let refused = [
        node.post("/people/NEW005", json!({"name": "Eva"})).by("ROOT004"),
        node.patch("/people/ANA001", json!({"name": "Eva"})).by("ROOT004"),
        node.put_json("/personal-documents/d1", json!({"fedacct": "ANA001", "f": 1})).by("ROOT004"),
        node.delete("/personal-documents/d1").by("ROOT004"),
        node.request("PUT", "/personal-documents/d1/content").by("ROOT004").bytes("bytes"),
        node.post("/users/tech@local", json!({"password": "a long enough secret", "roles": ["root"]}))
            .by_operator(),
        node.post("/users/ANA001/link", json!({})).by_operator(),
    ];
    for call in refused {
        let answer = call.send().await.is(507, NOTHING);
        answer.has(json!({"code": "storage_full", "status": 507}));
    }
    // A first login, too: ANA001 has not been seen before.
    node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING).has(json!({"name": "Ana"}));
    assert_eq!(
        node.get("/readyz").send().await.is(200, NOTHING).text(),
        "ready, but the disk is nearly full\n"
    );
    let status = node.get("/sync/status").by_operator().send().await.is(200, NOTHING).json();
    assert_eq!(status["storage_full"], true);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("Writes are refused: the disk is nearly full"), "{message}");

    free.set(u64::MAX);
    node.patch("/people/ANA001", json!({"name": "Eva"}))
        .by("ROOT004")
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    assert_eq!(node.get("/readyz").send().await.text(), "ready\n");
}

#[tokio::test]
async fn an_upload_is_refused_before_its_bytes_are_taken() {
    let node = TestNode::with_people().await;
    let free = Free::of(node.node.store.unguarded());
    node.post("/personal-documents/d1", json!({"fedacct": "ANA001"})).by("ROOT004").send().await;
    free.set(RESERVE_BYTES + 2 * MIB);
    for (length, status) in [(Some(3 * MIB), 507), (None, 507), (Some(MIB), 201)] {
        let was_read = Arc::new(AtomicBool::new(false));
        let reading = Arc::clone(&was_read);
        let bytes = vec![7; length.unwrap_or(MIB) as usize];
        let body = futures_util::stream::once(async move {
            reading.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(bytes))
        });
        let mut call = node.request("PUT", "/personal-documents/d1/content").by("ROOT004");
        if let Some(length) = length {
            call = call.header("content-length", &length.to_string());
        }
        let answer = call.bytes(Body::from_stream(body)).send().await;
        assert_eq!((answer.status, was_read.load(Ordering::Relaxed)), (status, status == 201), "{length:?}");
    }
}

#[test]
fn writes_on_their_way_count_as_written() {
    let store = Store::in_memory(OPTIONS).unwrap();
    let free = Free::of(&store);
    free.set(RESERVE_BYTES + 10);
    let first = store.claim(6).unwrap();
    assert!(matches!(store.claim(5), Err(StoreError::Short(_))));
    let second = store.claim(4).unwrap();
    assert!(matches!(store.claim(1), Err(StoreError::Short(_))));
    drop((first, second));
    assert!(store.claim(10).is_ok());
}

struct Synced {
    store: Store,
    sync: Arc<Reconciler>,
    free: Free,
}

impl Synced {
    fn with(sim: &Sim) -> Synced {
        let store = Store::in_memory(OPTIONS).unwrap();
        let hub: Arc<dyn Hub> = Arc::new(sim.clone());
        let free = Free::of(&store);
        Synced { sync: Reconciler::new(store.clone(), Some(hub), SyncSettings::default()), store, free }
    }

    async fn set(&self, id: &str, f: &str) {
        let (key, document) = (person_key(id), person(id, f));
        let actor = Actor::Local("tech".to_owned());
        self.store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
    }

    /// An institution belongs to nobody, and waits for nothing.
    async fn set_institution(&self, document: Document) {
        let key = RecordKey::new(Kind::Institution, document.get_str("_id").unwrap());
        let actor = Actor::Local("tech".to_owned());
        self.store.transact(move |tx| tx.edit(&key, Some(&document), &actor)).await.unwrap();
    }

    fn get(&self, id: &str) -> Option<Document> {
        let record = self.store.read().unwrap().record(&person_key(id)).unwrap()?;
        Some(Document::try_from(record.document.as_ref()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn without_space_edits_are_sent_and_nothing_is_taken() {
    for knows_the_centre in [true, false] {
        let sim = Sim::with_history();
        let node = Synced::with(&sim);
        sim.put(Kind::Person, person("OLD", "there"));
        if knows_the_centre {
            assert_eq!(node.sync.round().await.outcome, Outcome::Complete);
        }
        node.free.set(RESERVE_BYTES - 1);
        let mine = doc! {"_id": "MINE", "f": "edited here"};
        node.set_institution(mine.clone()).await;
        node.set("NEW", "edited here").await;
        sim.put(Kind::Person, person("THEIRS", "edited there"));
        for _ in 0..2 {
            let report = node.sync.round().await;
            assert_eq!(report.outcome, Outcome::Partial, "{report:?}");
            assert!(report.message.contains("Nothing more is taken from the centre until"), "{report:?}");
        }
        assert_eq!(sim.get(Kind::Institution, "MINE"), Some(mine));
        // What is unread may be records of somebody else under the account.
        assert_eq!(sim.get(Kind::Person, "NEW"), None);
        assert_eq!((node.get("THEIRS"), node.get("OLD").is_some()), (None, knows_the_centre));
        node.free.set(RESERVE_BYTES);
        assert_eq!(node.sync.round().await.outcome, Outcome::Complete);
        assert_eq!(node.get("THEIRS").unwrap().get_str("f").unwrap(), "edited there");
        assert!(node.get("OLD").is_some());
        assert_eq!(sim.get(Kind::Person, "NEW").unwrap().get_str("f").unwrap(), "edited here");
        let report = node.sync.round().await;
        assert_eq!((report.outcome, report.pushed, report.pulled), (Outcome::Complete, 0, 0), "{report:?}");
    }
}

/// A disk that fills up all the same.
#[tokio::test]
async fn a_store_works_again_once_a_full_disk_has_space() {
    let disk = Disk::default();
    let mounted = disk.clone();
    let store = Store::on_backends(OPTIONS, move || Ok(mounted.mount())).unwrap();
    let edit = |id: &'static str| {
        let actor = Actor::Local("tech".to_owned());
        store.transact(move |tx| tx.edit(&person_key(id), Some(&person(id, "x")), &actor))
    };
    edit("BEFORE").await.unwrap();
    let snapshot = store.read().unwrap();
    disk.set_full(true);
    assert!(matches!(edit("REFUSED").await, Err(StoreError::DiskFull)));
    for _ in 0..3 {
        assert!(edit("REFUSED").await.is_err());
        // A disk on which nothing can be written cannot be mounted either: an error, no panic.
        let _ = store.read().map(|snapshot| snapshot.record(&person_key("BEFORE")).is_ok());
    }
    // One that was taken before has lost its disk, and says so.
    let _ = snapshot.record(&person_key("BEFORE"));
    disk.set_full(false);
    until("the store to work", async || edit("AFTER").await.is_ok()).await;
    let snapshot = store.read().unwrap();
    for (id, is_there) in [("BEFORE", true), ("REFUSED", false), ("AFTER", true)] {
        assert_eq!(snapshot.record(&person_key(id)).unwrap().is_some(), is_there, "{id}");
    }
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
}

/// Each operation of a write fails in its turn, one write after the other: reading goes on at once after each.
#[tokio::test]
async fn reading_goes_on_whatever_write_fails() {
    let disk = Recorder::default();
    let mounted = disk.clone();
    let store = Store::on_backends(OPTIONS, move || Ok(mounted.clone())).unwrap();
    let edit = |text: String| {
        let actor = Actor::Local("tech".to_owned());
        store.transact(move |tx| tx.edit(&person_key("P"), Some(&person("P", &text)), &actor))
    };
    edit("written".to_owned()).await.unwrap();
    let before = disk.operations();
    edit("again".to_owned()).await.unwrap();
    let operations = disk.operations() - before;
    let (mut failed, mut refused) = (0, 0);
    for at in 0..operations {
        disk.fail_at(disk.operations() + at, ErrorKind::StorageFull);
        match edit(format!("x{at}")).await {
            Err(StoreError::DiskFull) => failed += 1,
            // Writes are tried again once a second.
            Err(StoreError::Reopening) => refused += 1,
            other => assert!(at > 0 && other.is_ok(), "{at}: {other:?}"),
        }
        let began = Instant::now();
        for _ in 0..20 {
            let snapshot = store.read().unwrap_or_else(|error| panic!("operation {at}: {error}"));
            assert!(snapshot.record(&person_key("P")).unwrap().is_some(), "operation {at}");
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{at}: {:?}", began.elapsed());
    }
    assert!(failed > 0 && refused > 0, "{failed} failed, {refused} refused of {operations}");
    until("writes to be taken", async || edit("after".to_owned()).await.is_ok()).await;
    assert_eq!(store.read().unwrap().disagreements().unwrap(), Vec::<String>::new());
}

/// Others read while writes fail: what they begin waits for the store to be opened again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_to_read_waits_for_the_store() {
    let disk = Recorder::default();
    let mounted = disk.clone();
    let open = move || {
        std::thread::sleep(Duration::from_millis(150));
        Ok(mounted.clone())
    };
    let store = Store::on_backends(OPTIONS, open).unwrap();
    let edit = |text: String| {
        let actor = Actor::Local("tech".to_owned());
        store.transact(move |tx| tx.edit(&person_key("P"), Some(&person("P", &text)), &actor))
    };
    edit("written".to_owned()).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (store, is_over) = (store.clone(), Arc::clone(&is_over));
            tokio::task::spawn_blocking(move || {
                let mut begun = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let snapshot = store.read().expect("a store that is opened again");
                    // The disk may fail between the two.
                    let read = snapshot.record(&person_key("P"));
                    assert!(matches!(read, Ok(Some(_)) | Err(StoreError::Reopening)), "{:?}", read.err());
                    begun += 1;
                }
                begun
            })
        })
        .collect();
    let mut failed = 0;
    for turn in 0..40 {
        // Opening the store writes too, and is not what is to fail.
        store.read().unwrap();
        disk.fail_at(disk.operations() + 1, ErrorKind::StorageFull);
        let edited = edit(format!("x{turn}")).await;
        failed += usize::from(matches!(edited, Err(StoreError::DiskFull)));
        disk.fail_at(usize::MAX, ErrorKind::StorageFull);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert!(failed > 1, "{failed}");
}

/// Nobody waits for a disk that is away: it is said at once, and the next one who asks later finds it back.
#[tokio::test]
async fn a_disk_that_is_away_is_told_at_once() {
    let (disk, is_away) = (Recorder::default(), Arc::new(AtomicBool::new(false)));
    let (mounted, away) = (disk.clone(), Arc::clone(&is_away));
    let open = move || match away.load(Ordering::Relaxed) {
        true => Err(StoreError::Failed("it is away".to_owned())),
        false => Ok(mounted.clone()),
    };
    let store = Store::on_backends(OPTIONS, open).unwrap();
    let actor = Actor::Local("tech".to_owned());
    is_away.store(true, Ordering::Relaxed);
    disk.fail_at(disk.operations(), ErrorKind::Other);
    let edited = store.transact(move |tx| tx.edit(&person_key("P"), Some(&person("P", "x")), &actor)).await;
    assert!(edited.is_err());
    let began = Instant::now();
    for _ in 0..20 {
        assert!(matches!(store.read(), Err(StoreError::Reopening)));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    is_away.store(false, Ordering::Relaxed);
    until("the store to be read", async || store.read().is_ok()).await;
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(RECOVERY_SECONDS_MAX), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A small file system of its own, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nobody may mount one; then what is promised here is tested in memory only, by the tests above.
    fn mount(directory: &Path, bytes: u64) -> Option<SmallDisk> {
        let at = directory.join("small");
        std::fs::create_dir(&at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&at);
        command.status().is_ok_and(|status| status.success()).then_some(SmallDisk(at))
    }

    /// Fills what is free but for so many bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        let bytes = (found.f_bavail * found.f_frsize).saturating_sub(left);
        let ballast = self.0.join("ballast");
        // The last bytes may not fit.
        let _ = std::fs::write(&ballast, vec![1; bytes as usize]);
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn add(node: &EdgeNode, id: &str) -> u16 {
    let body = json!({"fedacct": "ANA001", "text": "x".repeat(100_000)});
    node.call("POST", &format!("/personal-documents/{id}"), Some(&body)).await.status
}

/// The real program on a real file system that fills up: below its reserve, and without one to the last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_outlives_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    for reserve_bytes in [8 * MIB, 0] {
        let Some(disk) = SmallDisk::mount(directory.path(), DISK_BYTES) else {
            println!("no file system can be mounted here");
            return;
        };
        let mut node =
            EdgeNode::start_in(tempfile::tempdir_in(&disk.0).unwrap(), "small", "", "federation").await;
        node.set("STORE__RESERVE_BYTES", &reserve_bytes.to_string());
        node.restart(None).await;
        assert_eq!(add(&node, "before").await, 201);
        let ballast = disk.fill(reserve_bytes / 2);
        let mut acknowledged = vec!["before".to_owned()];
        let mut refused = 0;
        for turn in 0..100 {
            match add(&node, &format!("full{turn}")).await {
                201 => acknowledged.push(format!("full{turn}")),
                507 => refused += 1,
                // Only where the disk is really full may the store be failing.
                500 | 503 if reserve_bytes == 0 => refused += 1,
                status => panic!("{status}: {}", node.log()),
            }
            // Also then reading goes on at once.
            let read = node.call("GET", "/personal-documents/before", None).await;
            assert_eq!(read.status, 200, "{turn}: {}", node.log());
        }
        assert!(refused > 0, "the disk never was full");
        if reserve_bytes > 0 {
            assert_eq!(refused, 100);
            assert!(node.get("/sync/status").await["storage_full"].as_bool().unwrap());
        }
        std::fs::remove_file(&ballast).unwrap();
        until("writes to be taken", async || matches!(add(&node, "after").await, 200 | 201)).await;
        acknowledged.push("after".to_owned());
        node.kill_9();
        let store = node.open_store();
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        for id in &acknowledged {
            let key = thalamus_edge::domain::record::RecordKey::new(Kind::PersonalDocument, id.as_str());
            assert!(snapshot.record(&key).unwrap().is_some(), "{id} was acknowledged");
        }
        println!("reserve {reserve_bytes}: {} acknowledged, {refused} refused", acknowledged.len());
        drop((snapshot, store, node, disk));
        std::fs::remove_dir(directory.path().join("small")).unwrap();
    }
}
