//! What a node has seen of the centre's history, and what a feed leaves out of it.

use bson::{Bson, Timestamp};

use super::*;
use crate::support::proxy::{Act, Rule};

/// MongoDB tells an update by a pipeline as what was set, removed and shortened: the first two are not the whole of it.
#[tokio::test]
async fn a_change_told_with_shortened_arrays_is_looked_up() {
    fn shorten(reply: &mut Document) {
        let Ok(cursor) = reply.get_document_mut("cursor") else { return };
        for batch in ["firstBatch", "nextBatch"] {
            let Ok(events) = cursor.get_array_mut(batch) else { continue };
            for event in events.iter_mut().filter_map(Bson::as_document_mut) {
                if event.get_document("ns").unwrap().get_str("coll").unwrap() != "people" {
                    continue;
                }
                let Ok(told) = event.get_document_mut("updateDescription") else { continue };
                told.insert("updatedFields", doc! {});
                told.insert("truncatedArrays", vec![doc! {"field": "f", "newSize": 1}]);
            }
        }
    }
    let ground = Ground::agreed().await;
    let people = ground.people();
    people.update_one(doc! {"_id": "ANA"}, doc! {"$set": {"f": ["one", "two"]}}).await.unwrap();
    ground.ends(Outcome::Complete).await;
    let told = ["aggregate", "getMore"].map(|name| Rule::new(name, Act::Alter(shorten)));
    ground.proxy.set_rules(told.to_vec());
    people.update_one(doc! {"_id": "ANA"}, doc! {"$set": {"f": ["one"]}}).await.unwrap();
    ground.ends(Outcome::Complete).await;
    let one = Bson::from(vec!["one"]);
    assert_eq!(ground.person("ANA").unwrap().get("f"), Some(&one));
    ground.proxy.set_rules(Vec::new());
    ground.set("BOB", "mine").await;
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.at("ANA").await.unwrap().get("f"), Some(&one));
}

/// Another member may be behind the one that was talked to last.
#[tokio::test]
async fn a_round_reads_nothing_older_than_the_round_before_has_seen() {
    let after = |command: &Document| -> Option<Timestamp> {
        command.get_document("readConcern").ok()?.get_timestamp("afterClusterTime").ok()
    };
    let ground = Ground::agreed().await;
    ground.set("ANA", "mine").await;
    ground.ends(Outcome::Complete).await;
    let last = ground.proxy.seen().iter().filter_map(after).max();
    ground.change("BOB", "theirs").await;
    ground.ends(Outcome::Complete).await;
    let seen = ground.proxy.seen();
    // A feed goes on from its own position, which is later than anything.
    let reads: Vec<_> = seen.iter().filter(|command| command.contains_key("find")).map(after).collect();
    assert!(!reads.is_empty(), "{:?}", names(&seen));
    assert!(reads.iter().all(|time| time.is_some() && *time >= last), "{last:?} {reads:?}");
}
