//! Somebody was deleted of whom records are here: a question that is listed, shown, and ended by the records.

use std::time::Duration;

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::http::all_work;
use thalamus_edge::store::{Base, StoreError, Tx};

use crate::conflicts::paged;
use crate::support::api::{NOTHING, Setup, TestNode};

const ID: &str = "left-behind:GON001";

#[tokio::test]
async fn records_of_somebody_who_was_deleted_are_listed_as_a_question() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Person, doc! {"_id": "GON001", "name": "Gina"}).await;
    node.from_centre(Kind::Page, doc! {"_id": "g1", "book": "gon001"}).await;
    node.get(&format!("/sync/conflicts/{ID}")).by_operator().send().await.is(404, NOTHING);
    let key = RecordKey::new(Kind::Person, "GON001");
    let gone = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        let person = tx.document(&key)?.unwrap();
        tx.discard(&key, &person)?;
        tx.put(&key, None, &Base::Absent, &Actor::Centre)
    };
    node.node.store.unguarded().transact(gone).await.unwrap();
    let shown = json!({
        "id": ID, "type": "left_behind", "collection": "people", "record": "GON001", "path": [], "status": "open",
        "counts": {"pols": 1},
    });
    for path in ["/sync/conflicts", "/sync/conflicts?status=open", "/sync/conflicts?limit=5"] {
        let list = node.get(path).by_operator().send().await.is(200, NOTHING).json();
        assert_eq!(list, json!([shown]), "{path}");
    }
    node.get("/sync/conflicts?status=resolved").by_operator().send().await.is(200, NOTHING).says(json!([]));
    node.get(&format!("/sync/conflicts/{ID}")).by_operator().send().await.is(200, NOTHING).says(shown);
    let status = node.get("/sync/status").by_operator().send().await.json();
    assert_eq!((&status["conflicts_open"], &status["left_behind"]), (&json!(1), &json!({"pols": 1})));
    let decided = node.post(&format!("/sync/conflicts/{ID}/resolution"), json!({"take": "central"}));
    let refused = decided.by_operator().send().await.is_invalid("");
    assert!(refused.text().contains("Restore the person from the trash"), "{}", refused.text());
    // The record goes, and the question with it.
    node.delete("/pols/GON001/g1").by("ROOT004").send().await.is(204, &["delete pols/g1"]);
    node.get(&format!("/sync/conflicts/{ID}")).by_operator().send().await.is(404, NOTHING);
    let status = node.get("/sync/status").by_operator().send().await.json();
    assert_eq!(status["conflicts_open"], json!(0));
}

/// Has so many people deleted, of each of whom a page stays, and gives the ids of the questions about them.
async fn delete_people(node: &TestNode, count: usize) -> Vec<String> {
    let delete = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
        for n in 0..count {
            let (person, page) = (format!("GON{n:03}"), format!("g{n:03}"));
            let page = doc! {"_id": page, "book": &person};
            let key = RecordKey::new(Kind::Page, page.get_str("_id").unwrap());
            tx.put(&key, Some(&page), &Base::Document(page.clone()), &Actor::Centre)?;
            let (key, person) = (RecordKey::new(Kind::Person, &*person), doc! {"_id": &person});
            tx.put(&key, Some(&person), &Base::Document(person.clone()), &Actor::Centre)?;
            tx.put(&key, None, &Base::Absent, &Actor::Centre)?;
        }
        Ok(())
    };
    node.node.store.unguarded().transact(delete).await.unwrap();
    (0..count).map(|n| format!("left-behind:GON{n:03}")).collect()
}

async fn conflict(node: &TestNode, record: &str) {
    let (key, path) = (RecordKey::new(Kind::Person, record), vec!["name".to_owned()]);
    let (local, remote) = (Some("A".into()), Some("B".into()));
    let clash = Clash { path, base: None, local, remote, stands: Side::Remote };
    let add = move |tx: &mut Tx<'_>| -> Result<(), StoreError> { tx.add_conflict(&key, &clash, None) };
    node.node.store.unguarded().transact(add).await.unwrap();
}

/// However many are asked, a page has no more of them than it may have, and a piece of the whole list no more than fit into it.
#[tokio::test]
async fn such_questions_are_listed_in_pages_and_piece_by_piece() {
    let node = TestNode::start_with(|setup: &mut Setup| {
        setup.add_roles(r#"{"role": "own_judge", "permissions": {"GET": ["conflicts", "person"]}}"#);
    });
    node.people().await;
    node.person("OWN005", &["own_judge"]).await;
    node.from_centre(Kind::Person, doc! {"_id": "TWIN01"}).await;
    node.from_centre(Kind::Person, doc! {"_id": "twin01"}).await;
    conflict(&node, "ANA001").await;
    conflict(&node, "BOB002").await;
    let mut expected = vec!["duplicate:TWIN01".to_owned()];
    expected.extend(delete_people(&node, 700).await);
    let whole = node.get("/sync/conflicts").by("ROOT004").send().await.is(200, NOTHING);
    assert!(whole.text().len() > 64 << 10, "more than one piece");
    let whole = whole.json();
    let ids: Vec<&str> = whole.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids[2..], expected, "behind the conflicts");
    for (limit, pages) in
        [("limit=1", 703), ("limit=2", 352), ("limit=3&status=open", 235), ("limit=9000", 2)]
    {
        let (found, count) = paged(&node, "ROOT004", limit).await;
        assert_eq!((found.len(), count), (ids.len(), pages), "{limit}");
        assert_eq!(found, ids, "{limit}");
    }
    let (of_people, _) = paged(&node, "ROOT004", "limit=100&collection=people").await;
    assert_eq!(of_people, ids);
    for query in ["limit=100&collection=event", "limit=100&status=resolved", "limit=9&equal_by_meaning=true"]
    {
        assert_eq!(paged(&node, "ROOT004", query).await, (Vec::new(), 1), "{query}");
    }
    // A place stays one when the question there has ended.
    let behind = |place: &str| format!("limit=2&after={}", place.replace(':', "%3A"));
    node.from_centre(Kind::Person, doc! {"_id": "GON697"}).await;
    let (rest, _) = paged(&node, "ROOT004", &behind("left-behind:GON697")).await;
    assert_eq!(rest, expected[699..]);
    let (rest, _) = paged(&node, "ROOT004", &behind("duplicate:TWIN01")).await;
    assert_eq!(rest.len(), 699);
    let (rest, _) = paged(&node, "ROOT004", &behind("duplicate:ZZZ")).await;
    assert_eq!(rest.len(), 699);
    let invalid = node.get("/sync/conflicts?limit=2&after=else:GON001").by("ROOT004").send().await;
    invalid.is_invalid("after");
    // Who may not know of them learns nothing by naming a place.
    for query in ["limit=2".to_owned(), behind("duplicate:"), behind("left-behind:GON001")] {
        assert_eq!(paged(&node, "OWN005", &query).await, (Vec::new(), 1), "{query}");
    }
    let status = node.get("/sync/status").by("ROOT004").send().await.json();
    assert_eq!((&status["conflicts_open"], &status["left_behind"]), (&json!(702), &json!({"pols": 699})));
}

/// The counts are made by looking through whole tables, which waits for its turn.
#[tokio::test]
async fn the_status_waits_for_its_turn() {
    let node = TestNode::with_people().await;
    let everything = all_work().expect("nobody works");
    let status = node.get("/sync/status").by_operator().send();
    let mut status = std::pin::pin!(status);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut status).await.is_err(), "it waits");
    drop(everything);
    status.await.is(200, NOTHING);
}
