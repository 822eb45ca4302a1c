//! Servers before MongoDB 5.0 take names that begin with `$` in an insert, within a document, and in no update (error 52).

use super::*;
use crate::support::proxy::{Act, Rule, failure};

/// What such a server says of every statement of an update with the name of these tests in it.
fn before_5_0() -> Vec<Rule> {
    vec![Rule::new("bulkWrite", failure(59)), Rule::new("update", Act::FailStatements("$x", 52))]
}

fn odd() -> Document {
    doc! {"a": [{"$x": {"b.c": 1}}], "n": 1_i64}
}

async fn with_odd_record() -> Ground {
    let ground = Ground::agreed().await;
    ground.people().insert_one(doc! {"_id": "EVA", "f": "old", "odd": odd()}).await.unwrap();
    ground.ends(Outcome::Complete).await;
    ground
}

#[tokio::test]
async fn what_is_deleted_is_archived_as_it_was() {
    let ground = with_odd_record().await;
    let body = ground.person("EVA").unwrap();
    ground.edit("EVA", None).await;
    ground.edit("BOB", None).await;
    // The row is there, and the delete is not: the next try finds it.
    let mut rules = before_5_0();
    rules.push(Rule::new("delete", failure(8)));
    ground.proxy.set_rules(rules);
    ground.sync.round().await;
    assert!(ground.at("EVA").await.is_some());
    ground.proxy.set_rules(before_5_0());
    ground.ends(Outcome::Complete).await;
    assert_eq!((ground.at("EVA").await, ground.at("BOB").await, ground.pending()), (None, None, 0));
    assert_eq!(ground.dead(), Vec::<i32>::new());
    let trash = ground.rows("edge_trash").await;
    let of = |id: &str| trash.iter().filter(|row| row.get_str("id").ok() == Some(id)).collect::<Vec<_>>();
    for id in ["EVA", "BOB"] {
        assert_eq!((of(id).len(), of(id)[0].get_str("state").ok()), (1, Some("done")), "{trash:?}");
    }
    assert_eq!(of("EVA")[0].get_document("document").unwrap(), &body);
}

/// Where it is not taken in any way, the delete is carried out all the same, and the row says who has the body.
#[tokio::test]
async fn what_no_command_takes_stays_in_the_trash_of_the_node() {
    let ground = with_odd_record().await;
    ground.edit("EVA", None).await;
    let mut rules = before_5_0();
    rules.push(Rule::new("insert", Act::FailStatements("$x", 52)));
    ground.proxy.set_rules(rules);
    ground.ends(Outcome::Complete).await;
    assert_eq!((ground.at("EVA").await, ground.pending()), (None, 0));
    let trash = ground.rows("edge_trash").await;
    assert!(trash[0].get_document("truncated").unwrap().contains_key("sha256"), "{trash:?}");
}

#[tokio::test]
async fn a_conflict_is_published_and_says_what_stayed_on_the_node() {
    let ground = Ground::agreed().await;
    ground.edit("ANA", Some(doc! {"_id": "ANA", "f": odd()})).await;
    ground.people().update_one(doc! {"_id": "ANA"}, doc! {"$set": {"f": "theirs"}}).await.unwrap();
    ground.proxy.set_rules(before_5_0());
    let report = ground.sync.round().await;
    assert_eq!(ground.store.read().unwrap().unpublished_conflicts_count().unwrap(), 0, "{report:?}");
    let rows = ground.rows("edge_conflicts").await;
    let row = rows.iter().find(|row| row.get_str("id").ok() == Some("ANA")).expect("a row");
    assert_eq!(row.get_str("central").ok(), Some("theirs"), "{row}");
    assert!(row.get_document("local").unwrap().contains_key("truncated"), "{row}");
    assert_eq!(row.get_array("truncated").unwrap(), &["local".into()], "{row}");
}

/// Such a server has no way to hold it: the record is refused with the reason, and nothing else waits.
#[tokio::test]
async fn an_edit_that_the_centre_cannot_hold_is_refused_with_the_reason() {
    let ground = Ground::agreed().await;
    ground.edit("ANA", Some(doc! {"_id": "ANA", "f": "old", "odd": odd()})).await;
    ground.set("BOB", "mine").await;
    ground.proxy.set_rules(before_5_0());
    let report = ground.sync.round().await;
    assert_eq!((report.pushed, report.dead), (1, 1), "{report:?}");
    assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some("mine"));
    assert_eq!(ground.dead(), [52]);
    let read = ground.store.read().unwrap();
    let letters = read.dead_letters().unwrap();
    assert!(letters[0].reason.contains("begins with `$`"), "{}", letters[0].reason);
}
