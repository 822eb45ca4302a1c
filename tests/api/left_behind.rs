//! Somebody was deleted of whom records are here: a question that is listed, shown, and ended by the records.

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, StoreError};

use crate::support::api::{NOTHING, TestNode};

const ID: &str = "left-behind:GON001";

#[tokio::test]
async fn records_of_somebody_who_was_deleted_are_listed_as_a_question() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Person, doc! {"_id": "GON001", "name": "Gina"}).await;
    node.from_centre(Kind::Page, doc! {"_id": "g1", "book": "gon001"}).await;
    node.get(&format!("/sync/conflicts/{ID}")).by_operator().send().await.is(404, NOTHING);
    let key = RecordKey::new(Kind::Person, "GON001");
    let gone = move |tx: &mut thalamus_edge::store::Tx<'_>| -> Result<(), StoreError> {
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
