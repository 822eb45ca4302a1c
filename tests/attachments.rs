//! Attachments between stores and a centre in memory: cut anywhere, spoiled, lost, and within an allowance.
//! `attachments_wire.rs` does the same over MongoDB's wire with real nodes.

#![allow(clippy::unwrap_used)]

mod contract;
mod support;

#[path = "attachments/lane.rs"]
mod lane;
#[path = "attachments/queues.rs"]
mod queues;
#[path = "attachments/spoiled.rs"]
mod spoiled;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use sha2::{Digest, Sha256};
use thalamus_edge::central::Hub;
use thalamus_edge::domain::access::{Actor, Grant, Verb};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Edit, Store, StoreError, StoreOptions};
use thalamus_edge::sync::{Outcome, Reconciler, Report, Status, SyncSettings};

use contract::content::ContentBehind;
use support::sim::Sim;

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, audit_keep_rows: 100_000, clock: || 0 };
const CHUNK: usize = 65_536;

/// Bytes that are compared as a whole and not shown as such.
#[derive(Clone, PartialEq)]
struct Blob(Vec<u8>);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes named {}", self.0.len(), name_of(self))
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What the centre has under a name, whether or not it is complete.
fn at_centre(sim: &Sim, sha256: &str) -> Blob {
    Blob(sim.contents().bytes(sha256))
}

struct Node {
    store: Store,
    sync: Arc<Reconciler>,
}

impl Node {
    fn new(sim: &Sim) -> Node {
        Node::with(Store::in_memory(OPTIONS).unwrap(), sim, 0)
    }

    /// A node whose rounds may carry so many bytes of attachments.
    fn allowed(sim: &Sim, bytes: u64) -> Node {
        Node::with(Store::in_memory(OPTIONS).unwrap(), sim, bytes)
    }

    fn on_disk(path: &Path, sim: &Sim) -> Node {
        Node::with(Store::open(path, OPTIONS).unwrap(), sim, 0)
    }

    fn with(store: Store, sim: &Sim, attachment_bytes_per_round: u64) -> Node {
        let settings = SyncSettings {
            node_name: "node".to_owned(),
            round_timeout: Duration::from_secs(60),
            attachment_bytes_per_round,
            ..SyncSettings::default()
        };
        let hub: Arc<dyn Hub> = Arc::new(sim.clone());
        Node { sync: Reconciler::new(store.clone(), Some(hub), settings), store }
    }

    async fn complete(&self) -> Report {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
        report
    }

    async fn rounds(&self, count: usize) {
        for _ in 0..count {
            self.complete().await;
        }
    }

    /// A document with these bytes, as the API makes it; what is there is replaced.
    async fn upload(&self, id: &str, bytes: &[u8]) -> String {
        let sha256 = name_of(bytes);
        self.edit(id, Some(document(id, &sha256, bytes.len())), Some((sha256.clone(), bytes.to_vec()))).await;
        sha256
    }

    /// Documents `d0`, `d1` and so on with these bytes, at once.
    async fn upload_all(&self, all: Vec<Vec<u8>>) {
        let actor = Actor::Local("tech".to_owned());
        let uploading = self.store.transact(move |tx| -> Result<(), StoreError> {
            for (number, bytes) in all.iter().enumerate() {
                let (id, sha256) = (format!("d{number}"), name_of(bytes));
                tx.put_content(&sha256, bytes)?;
                tx.edit(&key(&id), Some(&document(&id, &sha256, bytes.len())), &actor)?;
            }
            Ok(())
        });
        uploading.await.unwrap();
    }

    async fn set(&self, id: &str, document: Option<Document>) {
        self.edit(id, document, None).await;
    }

    async fn edit(&self, id: &str, document: Option<Document>, content: Option<(String, Vec<u8>)>) {
        let record = self.store.read().unwrap().record(&key(id)).unwrap();
        let edit = Edit {
            grant: Grant::operator(0, Verb::Put, Kind::PersonalDocument),
            id: id.to_owned(),
            expected: record.map(|record| record.document.as_bytes().to_vec()),
            document,
            requires: Vec::new(),
            grants: None,
            content: content.map(|(sha256, bytes)| (sha256, bytes.into())),
            closes: None,
        };
        self.store.edit(edit).await.unwrap();
    }

    fn get(&self, id: &str) -> Document {
        let record = self.store.read().unwrap().record(&key(id)).unwrap().unwrap();
        Document::try_from(record.document.as_ref()).unwrap()
    }

    /// The bytes, once all are here.
    fn bytes(&self, sha256: &str) -> Option<Blob> {
        let snapshot = self.store.read().unwrap();
        let chunks = (0..).map_while(|number| snapshot.content_chunk(sha256, number).unwrap());
        snapshot.has_content(sha256).unwrap().then(|| Blob(chunks.flatten().collect()))
    }

    fn chunks_here(&self, sha256: &str) -> u32 {
        self.store.read().unwrap().content_chunks_here(sha256).unwrap()
    }

    fn status(&self) -> Status {
        self.sync.status().unwrap()
    }

    /// Attachments to be fetched and to be sent.
    fn queued(&self) -> (u64, u64) {
        let status = self.status();
        (status.content_pending, status.content_owed)
    }
}

/// Chunks that were sent to the centre and fetched from it so far.
fn travelled(sim: &Sim) -> (usize, usize) {
    let contents = sim.contents();
    (contents.added.len(), contents.fetched.len())
}

fn key(id: &str) -> RecordKey {
    RecordKey::new(Kind::PersonalDocument, id)
}

fn document(id: &str, sha256: &str, length: usize) -> Document {
    let content = doc! {"sha256": sha256, "length": length as i64, "type": "image/png"};
    doc! {"_id": id, "content": content}
}

fn name_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Bytes that differ everywhere and from those of another seed.
fn picture(seed: u8, length: usize) -> Blob {
    Blob((0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8 ^ seed.wrapping_mul(37)).collect())
}

/// A centre that has a document with these bytes from somebody who is gone.
async fn centre_with(id: &str, bytes: &[u8]) -> (Sim, String) {
    let sim = Sim::default();
    let sha256 = Node::new(&sim).upload_and_leave(id, bytes).await;
    sim.contents().added.clear();
    (sim, sha256)
}

impl Node {
    async fn upload_and_leave(self, id: &str, bytes: &[u8]) -> String {
        let sha256 = self.upload(id, bytes).await;
        self.complete().await;
        assert_eq!(self.queued(), (0, 0));
        sha256
    }
}

#[async_trait]
impl ContentBehind for Sim {
    async fn file(&self, id: &str) -> Option<Document> {
        self.contents().files.get(id).cloned()
    }

    async fn set_file(&self, row: Document) {
        self.contents().files.insert(row.get_str("_id").unwrap().to_owned(), row);
    }

    async fn chunk(&self, id: &str, number: u64) -> Option<Bson> {
        self.contents().chunks.get(&(id.to_owned(), number)).cloned()
    }

    async fn set_chunk(&self, id: &str, number: u64, data: Bson) {
        self.contents().chunks.insert((id.to_owned(), number), data);
    }
}

#[tokio::test]
async fn the_centre_in_memory_keeps_the_contract() {
    let sim = Sim::default();
    let mut central = sim.open().await.unwrap();
    contract::content::chunks(central.as_mut(), &sim).await;
    contract::content::files(central.as_mut(), &sim).await;
    contract::content::marks(central.as_mut(), &sim).await;
}
