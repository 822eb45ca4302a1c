//! Attachments from clinic to clinic over a MongoDB server: real nodes, and what other programs see there.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use bson::{Binary, Bson, Document, bson, doc, spec::BinarySubtype};
use futures_util::io::{AsyncReadExt as _, AsyncWriteExt as _};
use mongodb::options::GridFsBucketOptions;
use serde_json::Value;
use serde_json::json;
use sha2::{Digest, Sha256};

use support::federation::Federation;
use support::node::EdgeNode;

const CHUNK: usize = 65_536;

fn name_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Bytes that differ everywhere and from those of another seed.
fn picture(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16) ^ (seed * 37)) as u8).collect()
}

/// What the driver's own GridFS reads.
async fn in_gridfs(federation: &Federation, sha256: &str) -> Vec<u8> {
    let bucket = federation.legacy.gridfs_bucket(GridFsBucketOptions::default());
    let mut stream = bucket.open_download_stream(Bson::from(sha256)).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn queued(node: &EdgeNode) -> (u64, u64) {
    let status = node.get("/sync/status").await;
    (status["content_pending"].as_u64().unwrap(), status["content_owed"].as_u64().unwrap())
}

async fn has(node: &EdgeNode, id: &str, bytes: &[u8]) {
    let got = node.download(id, &[]).await;
    assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
    assert!(got.body == bytes, "{id} at {}: other bytes", node.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_travels_from_clinic_to_clinic() {
    let federation = Federation::start(&["north", "south"]).await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    north.done("POST", "/people/ESGNU777ORG", Some(&json!({"name": "Ana"}))).await;
    let bytes = picture(1, 1_200_000);
    let sha256 = name_of(&bytes);
    north.upload("scan", "ESGNU777ORG", &bytes).await;
    assert_eq!(queued(north).await, (0, 1));
    let report = north.round().await;
    println!("sent {} bytes of 1.2 MB in {} round trips", report["bytes_sent"], report["round_trips"]);
    assert!(
        report["bytes_sent"].as_u64().unwrap() < 1_300_000
            && report["bytes_received"].as_u64().unwrap() < 30_000
    );
    assert_eq!(queued(north).await, (0, 0));

    // Any program that reads GridFS can read it.
    assert!(in_gridfs(&federation, &sha256).await == bytes);
    let row = federation.at_centre("fs.files", &sha256).await.unwrap();
    assert_eq!(row.get("length"), Some(&Bson::Int64(1_200_000)));
    assert_eq!(row.get("chunkSize"), Some(&Bson::Int32(65_536)));
    assert_eq!(row.get("metadata"), Some(&bson!({"contentType": "image/png"})));
    assert!(row.get_datetime("uploadDate").is_ok());
    assert_eq!(federation.rows("fs.chunks", doc! {}).await.len(), 1_200_000_usize.div_ceil(CHUNK));

    // The document comes first; that its bytes are on their way is said.
    let files = federation.centre("fs.files");
    files.delete_one(doc! {"_id": &sha256}).await.unwrap();
    let report = south.round().await;
    let message = report["message"].as_str().unwrap();
    assert!(message.contains("Attachments still to come: 1 to fetch (1.2 MB)."), "{message}");
    assert_eq!(queued(south).await, (1, 0));
    let pending = south.download("scan", &[]).await;
    assert_eq!((pending.status, pending.json()["code"].as_str()), (404, Some("content_pending")));
    assert!(pending.json()["error"].as_str().unwrap().contains("1200000 bytes has not arrived"));
    files.insert_one(&row).await.unwrap();
    let report = south.round().await;
    println!("fetched {} bytes of 1.2 MB in {} round trips", report["bytes_received"], report["round_trips"]);
    assert!(report["bytes_received"].as_u64().unwrap() < 1_300_000);
    assert_eq!(queued(south).await, (0, 0));
    has(south, "scan", &bytes).await;
    let part = south.download("scan", &[("range", "bytes=65530-131080")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &bytes[65_530..=131_080]));

    // Nothing more is said about it: an idle round costs what it costs without attachments.
    let costs = async |node: &EdgeNode| node.round().await["round_trips"].as_u64().unwrap();
    let empty = Federation::with(support::mongo::MongoServer::start().await, &["east"]).await;
    empty.rounds(1).await;
    assert_eq!(
        (costs(north).await, costs(south).await),
        (costs(&empty.nodes[0]).await, costs(&empty.nodes[0]).await)
    );
}

/// Rows that promise gigabytes, or parts without number, take no memory of a node that believes none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_the_centre_take_no_memory() {
    let federation = Federation::start(&["south"]).await;
    let [south] = &federation.nodes[..] else { panic!() };
    south.round().await;
    let most_mb = || {
        let status = fs::read_to_string(format!("/proc/{}/status", south.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1000
    };
    let before = most_mb();
    let gib = 1_i64 << 30;
    // The last ones are the most that is believed: 65,536 parts, and the longest part.
    let rows = [
        (gib, 1),
        (gib, 1 << 14),
        (i64::MAX, i64::MAX),
        (gib, 1 << 24),
        (-1, 65_536),
        (gib, 16_384),
        (gib, 16 << 20),
    ];
    for (number, (length, chunk_bytes)) in rows.into_iter().enumerate() {
        let sha256 = format!("{number:02}").repeat(32);
        let content = doc! {"sha256": &sha256, "length": length, "type": "image/png"};
        let document = doc! {"_id": format!("scan{number}"), "fedacct": "ESGNU777ORG", "content": content};
        federation.centre("personal_docs").insert_one(document).await.unwrap();
        let row = doc! {"_id": &sha256, "length": length, "chunkSize": chunk_bytes, "uploadDate": bson::DateTime::from_millis(0)};
        federation.centre("fs.files").insert_one(row).await.unwrap();
        let chunk = Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1] });
        federation
            .centre("fs.chunks")
            .insert_one(doc! {"files_id": &sha256, "n": 0, "data": chunk})
            .await
            .unwrap();
    }
    federation.centre("people").insert_one(doc! {"_id": "ESGNU777ORG", "name": "Ana"}).await.unwrap();
    for _ in 0..3 {
        south.round().await;
    }
    let after = most_mb();
    println!("{before} MB before, at most {after} MB");
    assert!(after < before + 40 && after < 150, "{before} MB, then {after}");
    assert_eq!(south.get("/people/ESGNU777ORG").await["name"], "Ana");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_chunk_at_the_centre_is_found_and_replaced() {
    let federation = Federation::start(&["north", "south"]).await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    north.done("POST", "/people/ESGNU777ORG", Some(&json!({"name": "Ana"}))).await;
    let bytes = picture(2, 5 * CHUNK + 77);
    let sha256 = name_of(&bytes);
    north.upload("scan", "ESGNU777ORG", &bytes).await;
    north.round().await;
    let chunks = federation.centre("fs.chunks");
    let bad = Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: picture(3, CHUNK) });
    let at = doc! {"files_id": &sha256, "n": 3};
    chunks.update_one(at.clone(), doc! {"$set": {"data": bad}}).await.unwrap();
    let report = south.round().await;
    assert!(report["message"].as_str().unwrap().contains("are not what they should be"), "{report}");
    assert_eq!(south.download("scan", &[]).await.status, 404);
    let marked = federation.at_centre("fs.files", &sha256).await.unwrap();
    let mark = marked.get_document("metadata").unwrap().get_document("suspect").unwrap().clone();
    assert_eq!(mark.get_binary_generic("seen").unwrap().len(), 6 * 8);
    // North has other business, and looks at the mark as well.
    north.upload("other", "ESGNU777ORG", b"other").await;
    let report = north.round().await;
    assert!(report["bytes_received"].as_u64().unwrap() < 2 * CHUNK as u64, "one chunk is compared: {report}");
    assert!(in_gridfs(&federation, &sha256).await == bytes);
    let row = federation.at_centre("fs.files", &sha256).await.unwrap();
    assert_eq!(row.get("metadata"), Some(&bson!({"contentType": "image/png"})));
    south.round().await;
    has(south, "scan", &bytes).await;
    has(south, "other", b"other").await;
}

/// An administrator puts a file back with another program: under its name, in chunks of 255 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_another_program_is_fetched() {
    let federation = Federation::start(&["north"]).await;
    let north = &federation.nodes[0];
    let bytes = picture(4, 700_001);
    let sha256 = name_of(&bytes);
    let bucket = federation.legacy.gridfs_bucket(GridFsBucketOptions::default());
    let mut stream = bucket.open_upload_stream("scan.png").id(Bson::from(&sha256)).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream.close().await.unwrap();
    let row = federation.at_centre("fs.files", &sha256).await.unwrap();
    assert_eq!(row.get("chunkSize"), Some(&Bson::Int32(261_120)));
    let document: Document = doc! {"_id": "scan", "fedacct": "ANA", "content": {"sha256": &sha256, "length": 700_001_i64, "type": "image/png"}};
    federation.centre("personal_document").insert_one(document).await.unwrap();
    let report: Value = north.round().await;
    let message = report["message"].as_str().unwrap();
    assert!(message.starts_with("Everything is up to date with the centre."), "{message}");
    assert!(!message.contains("Attachments"), "{message}");
    has(north, "scan", &bytes).await;
}
