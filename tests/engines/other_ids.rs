//! Records whose ids are no text, and pages that say of nobody that they are theirs: counted by collection, from the feed and
//! from scans, and said wherever somebody looks.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use serde_json::json;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::sync::{Outcome, SyncSettings};

use super::{Ground, Setup};

const NO_TEXT: &str = "no text, and are left alone";

impl Ground {
    async fn put_odd(&self, collection: &str, id: impl Into<Bson>) {
        let odd = doc! {"_id": id.into()};
        self.centre.collection::<Document>(collection).insert_one(odd).await.unwrap();
    }

    async fn remove_odd(&self, collection: &str, id: impl Into<Bson>) {
        let odd = doc! {"_id": id.into()};
        self.centre.collection::<Document>(collection).delete_one(odd).await.unwrap();
    }

    /// What `/sync/status` says of them, after a round that must say the same.
    async fn counted(&self) -> serde_json::Value {
        let report = self.ends(Outcome::Complete).await;
        let status = self.sync.status().unwrap();
        let total: u64 = status.other_ids.values().sum();
        for message in [&report.message, &status.message] {
            assert_eq!(message.contains("up to date"), total == 0, "{message}");
            match total {
                0 => assert!(!message.contains("no text"), "{message}"),
                1 => assert!(message.contains("an id that is no text, and is left alone: 1 in"), "{message}"),
                _ => assert!(message.contains(&format!("{total} records")), "{message}"),
            }
            for (collection, count) in &status.other_ids {
                assert!(message.contains(&format!("{count} in {collection}")), "{message}");
            }
        }
        json!(status.other_ids)
    }
}

fn odd_ids() -> [Bson; 5] {
    [
        ObjectId::from_bytes([1; 12]).into(),
        7.into(),
        Binary { subtype: BinarySubtype::Generic, bytes: vec![1] }.into(),
        DateTime::from_millis(5).into(),
        Bson::Null,
    ]
}

#[tokio::test]
async fn ids_that_are_no_text_are_counted_by_collection_from_scan_and_feed() {
    let ground = Ground::new().await;
    let collections: Vec<&str> =
        Kind::ALL.iter().map(|kind| kind.schema().collection).chain(["fs.files"]).collect();
    // The first round scans.
    for collection in &collections {
        ground.put_odd(collection, 1).await;
    }
    let one_each: serde_json::Map<_, _> =
        collections.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
    assert_eq!(ground.counted().await, json!(one_each));
    // From here on the feed tells: of each collection alone, so that none is counted because of another.
    for (at, id) in odd_ids().into_iter().enumerate() {
        ground.put_odd("people", id).await;
        assert_eq!(ground.counted().await["people"], json!(at + 2));
    }
    for (at, id) in odd_ids().into_iter().enumerate() {
        ground.remove_odd("people", id).await;
        assert_eq!(ground.counted().await["people"], json!(5 - at));
    }
    for collection in &collections {
        ground.put_odd(collection, ObjectId::from_bytes([1; 12])).await;
        assert_eq!(ground.counted().await[*collection], json!(2), "{collection}");
        ground.remove_odd(collection, 1).await;
        ground.remove_odd(collection, ObjectId::from_bytes([1; 12])).await;
        assert_eq!(ground.counted().await.get(*collection), None, "{collection}");
    }
    assert_eq!(ground.counted().await, json!({}));
}

/// Without a feed every round reads everything, and so counts.
#[tokio::test]
async fn ids_that_are_no_text_are_counted_at_a_centre_without_a_feed() {
    let setup = Setup { standalone: true, ..Setup::default() };
    let ground = Ground::with(setup, SyncSettings::default()).await;
    ground.put("ANA", "old").await;
    assert_eq!(ground.counted().await, json!({}));
    ground.put_odd("pols", 7).await;
    ground.put_odd("fs.files", ObjectId::from_bytes([1; 12])).await;
    assert_eq!(ground.counted().await, json!({"fs.files": 1, "pols": 1}));
    ground.remove_odd("pols", 7).await;
    assert_eq!(ground.counted().await, json!({"fs.files": 1}));
    ground.remove_odd("fs.files", ObjectId::from_bytes([1; 12])).await;
    assert_eq!(ground.counted().await, json!({}));
}

#[tokio::test]
async fn more_than_are_counted_are_said_to_be_more() {
    let ground = Ground::new().await;
    let odd = (0..101).map(|number| doc! {"_id": number});
    ground.people().insert_many(odd).await.unwrap();
    let report = ground.ends(Outcome::Complete).await;
    assert!(report.message.contains(NO_TEXT), "{report:?}");
    assert!(report.message.contains("100 or more in people"), "{report:?}");
}

#[tokio::test]
async fn pages_without_a_person_are_told_of() {
    let ground = Ground::agreed().await;
    let pages = ground.centre.collection::<Document>("pols");
    let said = async |pages: u64| {
        let report = ground.ends(Outcome::Complete).await;
        let status = ground.sync.status().unwrap();
        assert_eq!(status.ownerless.get("pols").copied().unwrap_or(0), pages, "{status:?}");
        for message in [report.message, status.message] {
            // They are on both sides.
            assert!(message.starts_with("Everything is up to date with the centre."), "{message}");
            let words = format!("{pages} in pols (`book`)");
            assert_eq!(message.contains(&words), pages > 0, "{message}");
            assert_eq!(message.contains("says of nobody") || message.contains("say of nobody"), pages > 0);
        }
    };
    said(0).await;
    pages.insert_one(doc! {"_id": "p1", "page": 1}).await.unwrap();
    said(1).await;
    pages.insert_one(doc! {"_id": "p2", "book": 5}).await.unwrap();
    pages.insert_one(doc! {"_id": "p3", "book": ""}).await.unwrap();
    pages.insert_one(doc! {"_id": "p4", "book": "ANA"}).await.unwrap();
    said(3).await;
    pages.update_one(doc! {"_id": "p1"}, doc! {"$set": {"book": "ANA"}}).await.unwrap();
    pages.delete_one(doc! {"_id": "p2"}).await.unwrap();
    said(1).await;
    pages.delete_one(doc! {"_id": "p3"}).await.unwrap();
    said(0).await;
}
