//! A duplicate key at one of the nodes' own collections: what was sent counts as being there only if it is there.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::support::proxy::{Act, Rule, statement_failures};

/// What servers say of an index that is in the way: one by its name, one that they do not name, that of the identifier.
const WORDS: [&str; 3] = [
    "E11000 duplicate key error collection: f.x index: collection_1 dup key: { collection: \"pols\" }",
    "duplicate key value violates a unique constraint",
    "E11000 duplicate key error collection: f.x index: _id_ dup key: { _id: \"a\" }",
];

fn duplicate(words: &str) -> Act {
    statement_failures(1, 11_000, words)
}

/// The server has carried it out, and says that it was there already: a statement that was repeated.
fn repeated(reply: &mut Document) {
    let failure = doc! {"index": 0, "code": 11_000, "errmsg": WORDS[1]};
    reply.insert("writeErrors", vec![failure]);
    reply.insert("n", 0);
}

async fn attach(ground: &Ground) -> String {
    let bytes: &[u8] = b"an X-ray";
    let sha256 = hex::encode(Sha256::digest(bytes));
    let content = doc! {"sha256": &sha256, "length": bytes.len() as i64, "type": "image/png"};
    let (key, name) = (RecordKey::new(Kind::PersonalDocument, "scan"), sha256.clone());
    ground.store.transact(move |tx| tx.put_content(&name, bytes)).await.unwrap();
    edit(&ground.store, key, Some(doc! {"_id": "scan", "fedacct": "ANA", "content": content})).await;
    sha256
}

#[tokio::test]
async fn nothing_is_deleted_whose_body_a_duplicate_keeps_out_of_the_trash() {
    let of_trash: fn(&Document) -> bool = |command| command.get_str("update").ok() == Some("edge_trash");
    for words in WORDS {
        let ground = Ground::agreed().await;
        ground.proxy.set_rules(vec![Rule::new("update", duplicate(words)).when(of_trash)]);
        ground.edit("BOB", None).await;
        for _ in 0..2 {
            let report = ground.sync.round().await;
            assert!(!report.message.contains("up to date"), "{words}: {report:?}");
            assert!(ground.at("BOB").await.is_some(), "{words}: deleted, and nobody has its body");
        }
        assert_eq!(ground.rows("edge_trash").await, Vec::<Document>::new());
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!((ground.at("BOB").await, ground.rows("edge_trash").await.len()), (None, 1), "{words}");
    }
    // It is there as it was sent.
    let ground = Ground::agreed().await;
    ground.proxy.set_rules(vec![Rule::new("update", Act::Alter(repeated)).when(of_trash).times(1)]);
    ground.edit("BOB", None).await;
    ground.ends(Outcome::Complete).await;
    assert_eq!((ground.at("BOB").await, ground.rows("edge_trash").await.len()), (None, 1));
}

#[tokio::test]
async fn a_conflict_that_a_duplicate_keeps_out_is_not_published() {
    let of_conflicts: fn(&Document) -> bool =
        |command| command.get_str("update").ok() == Some("edge_conflicts");
    for words in WORDS {
        let ground = Ground::agreed().await;
        ground.set("ANA", "mine").await;
        ground.people().update_one(doc! {"_id": "ANA"}, doc! {"$set": {"f": "theirs"}}).await.unwrap();
        ground.proxy.set_rules(vec![Rule::new("update", duplicate(words)).when(of_conflicts)]);
        let unpublished = || ground.store.read().unwrap().unpublished_conflicts_count().unwrap();
        for _ in 0..2 {
            let report = ground.sync.round().await;
            assert!(!report.message.contains("up to date"), "{words}: {report:?}");
            assert_eq!(unpublished(), 1, "{words}");
        }
        ground.proxy.set_rules(Vec::new());
        ground.sync.round().await;
        assert_eq!((unpublished(), ground.rows("edge_conflicts").await.len()), (0, 1), "{words}");
    }
    let ground = Ground::agreed().await;
    ground.set("ANA", "mine").await;
    ground.people().update_one(doc! {"_id": "ANA"}, doc! {"$set": {"f": "theirs"}}).await.unwrap();
    ground.proxy.set_rules(vec![Rule::new("update", Act::Alter(repeated)).when(of_conflicts).times(1)]);
    ground.sync.round().await;
    assert_eq!(ground.store.read().unwrap().unpublished_conflicts_count().unwrap(), 0);
    assert_eq!(ground.rows("edge_conflicts").await.len(), 1);
}

#[tokio::test]
async fn an_attachment_is_at_the_centre_only_if_all_of_it_can_be_read_there() {
    for collection in ["fs.files", "fs.chunks"] {
        let is_of: fn(&Document) -> bool = match collection {
            "fs.files" => |command: &Document| command.get_str("insert").ok() == Some("fs.files"),
            _ => |command: &Document| command.get_str("insert").ok() == Some("fs.chunks"),
        };
        for words in WORDS {
            let ground = Ground::agreed().await;
            let sha256 = attach(&ground).await;
            ground.proxy.set_rules(vec![Rule::new("insert", duplicate(words)).when(is_of)]);
            let owed = || ground.store.read().unwrap().content_owed("", 10).unwrap().len();
            for _ in 0..3 {
                let report = ground.sync.round().await;
                let is_told = report.message.contains("Attachments still to come: 1 to send")
                    && report.message.contains(collection)
                    && report.message.contains("dropIndex");
                assert!(is_told, "{collection} {words}: {report:?}");
                assert_eq!(owed(), 1, "{collection} {words}");
            }
            assert_eq!(ground.rows(collection).await, Vec::<Document>::new());
            ground.proxy.set_rules(Vec::new());
            for _ in 0..2 {
                ground.sync.round().await;
            }
            assert_eq!(owed(), 0, "{collection} {words}");
            let files = ground.rows("fs.files").await;
            assert_eq!(files[0].get_str("_id").ok(), Some(sha256.as_str()));
            assert_eq!(ground.rows("fs.chunks").await.len(), 1);
        }
        // It is there, as it was sent.
        let ground = Ground::agreed().await;
        attach(&ground).await;
        ground.proxy.set_rules(vec![Rule::new("insert", Act::Alter(repeated)).when(is_of).times(1)]);
        ground.ends(Outcome::Complete).await;
        assert!(ground.store.read().unwrap().content_owed("", 10).unwrap().is_empty(), "{collection}");
        assert_eq!(ground.rows(collection).await.len(), 1);
    }
}

/// Another row under the same name is none of this one.
#[tokio::test]
async fn a_row_of_an_attachment_that_is_another_does_not_count() {
    let ground = Ground::agreed().await;
    let mut central = ground.hub().open().await.unwrap();
    let sha256 = "ab".repeat(32);
    central.add_content_chunks(&sha256, &[(0, b"right".to_vec())]).await.unwrap();
    // Once more the same.
    central.add_content_chunks(&sha256, &[(0, b"right".to_vec())]).await.unwrap();
    let file = |length| thalamus_edge::central::content::NewContentFile {
        sha256: sha256.clone(),
        length,
        media_type: "image/png".to_owned(),
        uploaded_at_ms: 0,
    };
    for _ in 0..2 {
        central.add_content_file(&file(5)).await.unwrap();
    }
    let other = central.add_content_file(&file(6)).await.unwrap_err();
    assert!(other.to_string().contains("does not let the row"), "{other}");
}

#[tokio::test]
async fn a_report_that_a_duplicate_keeps_out_is_told() {
    let is_report: fn(&Document) -> bool = |command| {
        let sets = |update: &Document| update.to_string().contains("last_round_at");
        command.get_str("update").ok() == Some("edge_nodes") && sets(command)
    };
    // That of the identifier says that another row is there: the lease is somebody else's.
    for words in &WORDS[..2] {
        let ground = Ground::agreed().await;
        ground.set("ANA", "mine").await;
        ground.proxy.set_rules(vec![Rule::new("update", duplicate(words)).when(is_report)]);
        let report = ground.sync.round().await;
        assert!(report.message.contains("edge_nodes"), "{words}: {report:?}");
        assert!(report.message.contains("dropIndex"), "{words}: {report:?}");
        assert!(!report.message.contains("up to date"), "{words}: {report:?}");
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some("mine"), "{words}");
    }
}
