//! What rows of the centre may take of a node's memory, whatever somebody has written into them.

use std::collections::BTreeSet;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use mongodb::Database;
use thalamus_edge::central::Central;

const MIB: usize = 1 << 20;

async fn put(database: &Database, collection: &str, rows: Vec<Document>) {
    let collection = database.collection::<Document>(collection);
    for some in rows.chunks(2000) {
        collection.insert_many(some).await.expect("rows");
    }
}

fn bytes(length: usize) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![7; length] })
}

/// Fields beside the bytes of an attachment are short, or as good as absent.
pub(crate) async fn fields_of_files(central: &mut dyn Central, database: &Database) {
    let (long, short) = ("c3".repeat(32), "c4".repeat(32));
    let file = |id: &str, length: Bson| doc! {"_id": id, "length": length, "chunkSize": 65_536};
    put(database, "fs.files", vec![file(&long, "9".repeat(2048).into()), file(&short, 9_i64.into())]).await;
    for row in central.content_files(&[long.clone(), short.clone()]).await.expect("files") {
        assert_eq!(row.chunk_bytes, Some(65_536));
        assert_eq!(row.length, (row.sha256 == short).then_some(9), "{}", row.sha256);
    }
}

/// Chunks longer than their file says are not all taken because so many were asked for.
pub(crate) async fn bytes_of_chunks(central: &mut dyn Central, database: &Database) {
    let name = "c6".repeat(32);
    for n in 0..20 {
        let row = doc! {"_id": 100_000 + n, "files_id": &name, "n": n, "data": bytes(2 * MIB)};
        put(database, "fs.chunks", vec![row]).await;
    }
    let got = central.content_chunks(&name, 0, 20).await.expect("chunks");
    let taken: usize = got.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!((16 * MIB..=20 * MIB).contains(&taken), "{taken} bytes of {} chunks", got.len());
}

/// Many rows that say that they are this store's.
pub(crate) async fn rows_of_nodes(central: &mut dyn Central, database: &Database) {
    for n in 0..17 {
        let row = doc! {"_id": format!("node{n}"), "store": "of-many", "note": "x".repeat(MIB)};
        put(database, "edge_nodes", vec![row]).await;
    }
    let error = central.node_rows("node1", Some("of-many")).await.expect_err("too much").to_string();
    assert!(error.contains("edge_nodes"), "{error}");
    // One that is large by itself is read: nothing could be done about it otherwise.
    put(database, "edge_nodes", vec![doc! {"_id": "large", "note": "x".repeat(14 * MIB)}]).await;
    assert_eq!(central.node_rows("large", None).await.expect("a row").len(), 1);
}

/// Decisions with large values come in parts, and all of them come.
pub(crate) async fn decisions(central: &mut dyn Central, database: &Database) {
    let mut left: Vec<String> = (0..14).map(|n| format!("large{n:02}")).collect();
    let all: BTreeSet<String> = left.iter().cloned().collect();
    for id in &left {
        let row = doc! {"_id": id, "status": "resolved", "resolution": "value", "value": "x".repeat(3 * MIB)};
        put(database, "edge_conflicts", vec![row]).await;
    }
    let (mut parts, mut seen) = (0, BTreeSet::new());
    while !left.is_empty() {
        let found = central.resolutions(&left).await.expect("rows");
        assert!(found.decided.len() <= 12 && found.left.len() < left.len(), "{}", found.decided.len());
        assert_eq!(found.missing, [""; 0]);
        seen.extend(found.decided.iter().filter_map(|row| row.get_str("_id").ok().map(str::to_owned)));
        left = found.left;
        parts += 1;
    }
    assert!(parts > 1 && seen == all, "{parts} parts, {} rows", seen.len());
}
