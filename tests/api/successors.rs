//! Who gets an account after somebody else: what is kept of the one before is not theirs.

use bson::{Bson, Document, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{StoreError, Tx};

use crate::support::api::{NOTHING, Setup, TestNode, person};
use crate::support::sim::Sim;

const REASON: &str = "overdose at home";
const NEW: &str = "NEW001";

/// Everybody may look at what is kept of their own.
fn with_roles(setup: &mut Setup) {
    setup.add_roles(
        r#"{"role": "keeper", "permissions": {"GET": ["trash", "changes", "conflicts", "person", "page"],
              "POST": ["trash", "page"]}}"#,
    );
    setup.settings.emergency_access = true;
    setup.settings.central_roles.push("keeper".to_owned());
}

fn named(id: &str, name: &str) -> Document {
    let mut person = person(id, &["keeper"]);
    person.extend(doc! {"name": name, "lastname": name, "dob": format!("19{}0-01-01", name.len())});
    person
}

/// Anna has ANA009, a page, one that is deleted, and somebody has opened her records in an emergency.
async fn with_anna() -> (TestNode, Sim) {
    let (node, sim) = TestNode::with_centre(with_roles).await;
    node.record(Kind::Person, named("ANA009", "Anna")).await;
    for id in ["kept", "gone"] {
        node.record(Kind::Page, doc! {"_id": id, "book": "ANA009", "info": "of Anna"}).await;
    }
    node.delete("/pols/ANA009/gone").by("ROOT004").send().await.is(204, &["delete pols/gone"]);
    let urgent = node.get("/people/ANA009").by("DOC003").header("x-emergency-reason", REASON);
    urgent.send().await.is(200, NOTHING);
    node.patch("/people/ANA009", json!({"note": "changed"})).by("ROOT004").send().await;
    (node, sim)
}

/// The conflicts that `who` is shown, each also by itself.
async fn conflicts_for(node: &TestNode, who: &str) -> Vec<String> {
    let list = node.get("/sync/conflicts").by(who).send().await.is(200, NOTHING).json();
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let shown = ids(&list);
    for id in ids(&node.get("/sync/conflicts").by_operator().send().await.json()) {
        let answer = node.get(&format!("/sync/conflicts/{id}")).by(who).send().await;
        assert_eq!(answer.status, if shown.contains(&id) { 200 } else { 404 }, "{who} {id}");
    }
    shown
}

async fn add_conflict(node: &TestNode, key: RecordKey, path: &[&str], local: Bson, central: Bson) -> String {
    let path = path.iter().map(|step| (*step).to_owned()).collect();
    let clash = Clash { path, base: None, local: Some(local), remote: Some(central), stands: Side::Remote };
    let add = move |tx: &mut Tx<'_>| -> Result<(), StoreError> { tx.add_conflict(&key, &clash, None) };
    let before = node.node.store.read().unwrap().conflict_ids(None).unwrap();
    node.node.store.unguarded().transact(add).await.unwrap();
    let mut after = node.node.store.read().unwrap().conflict_ids(None).unwrap();
    after.retain(|id| !before.contains(id));
    after.remove(0)
}

/// An id may come to be another one's record; then one side of the conflict is theirs.
#[tokio::test]
async fn a_conflict_with_a_version_of_somebody_else_is_shown_to_neither() {
    let (node, _) = with_anna().await;
    node.record(Kind::Person, named("BEA010", "Bea")).await;
    node.record(Kind::Page, doc! {"_id": "bea", "book": "BEA010"}).await;
    node.record(Kind::Page, doc! {"_id": "other", "book": "ANA009"}).await;
    let mut shown = Vec::new();
    for (id, local, central) in
        [("kept", "ANA009", "ANA009"), ("other", "ANA009", "BEA010"), ("bea", "ANA009", "BEA010")]
    {
        let body = |book: &str, info: &str| Bson::Document(doc! {"_id": id, "book": book, "info": info});
        let key = RecordKey::new(Kind::Page, id);
        shown.push(add_conflict(&node, key, &[], body(local, "here"), body(central, "there")).await);
    }
    shown.truncate(1);
    assert_eq!(conflicts_for(&node, "ANA009").await, shown);
    assert_eq!(conflicts_for(&node, "BEA010").await, Vec::<String>::new());
}

async fn round(node: &TestNode) {
    let report = node.post("/sync/rounds", json!({})).by_operator().send().await.json();
    assert_eq!(report["outcome"], "complete", "{report}");
}

/// What `who` is shown: bodies in the trash, the feed, and whatever else somebody did about them.
async fn kept_for(node: &TestNode, who: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let list = |answer: Value, shown: fn(&Value) -> String| -> Vec<String> {
        answer.as_array().unwrap().iter().map(shown).collect()
    };
    let trash = node.get("/trash").by(who).send().await.is(200, NOTHING).json();
    for row in node.get("/trash?limit=1000").by_operator().send().await.json().as_array().unwrap() {
        let is_listed = trash.as_array().unwrap().iter().any(|listed| listed["id"] == row["id"]);
        let shown = node.get(&format!("/trash/{}", row["id"])).by(who).send().await;
        assert_eq!(shown.status, if is_listed { 200 } else { 404 }, "{who} {row}");
    }
    let trash = list(trash, |row| row["record"].as_str().unwrap().to_owned());
    let feed = node.get("/changes").by(who).send().await.is(200, NOTHING).json();
    let feed = list(feed["changes"].clone(), |row| format!("{} {}", row["op"], row["id"]).replace('"', ""));
    let trail =
        node.get(&format!("/audit?limit=1000&person={who}")).by(who).send().await.is(200, NOTHING).json();
    let mut trail = list(trail["entries"].clone(), |row| {
        format!("{} {} {}", row["who"], row["verb"], row["id"]).replace('"', "")
    });
    // Not what they, and this test, have just looked at.
    trail.retain(|line| line.starts_with("person:ROOT004") || line.starts_with("person:DOC003"));
    (trash, feed, trail)
}

#[tokio::test]
async fn nothing_that_is_kept_of_somebody_is_shown_to_the_next_holder() {
    let (node, _) = with_anna().await;
    let (trash, feed, trail) = kept_for(&node, "ANA009").await;
    assert_eq!(trash, ["gone"]);
    assert!(feed.contains(&"create gone".to_owned()), "{feed:?}");
    assert!(trail.contains(&"person:ROOT004 update ANA009".to_owned()), "{trail:?}");
    node.restore(Kind::Page, "kept", None).await;
    node.restore(Kind::Person, "ANA009", None).await;
    node.restore(Kind::Person, "ANA009", Some(named("ANA009", "Berthold"))).await;
    node.patch("/people/ANA009", json!({"note": "of Berthold"})).by("ROOT004").send().await;
    assert_eq!(
        kept_for(&node, "ANA009").await,
        (
            Vec::new(),
            vec!["create ANA009".to_owned(), "update ANA009".to_owned()],
            vec!["person:ROOT004 update ANA009".to_owned()],
        )
    );
    // Who may look at everybody sees it all, as ever.
    let all = node.get("/audit?limit=1000&person=ANA009").by("ROOT004").send().await.is(200, NOTHING).text();
    assert!(all.contains("gone"), "{all}");
}

#[tokio::test]
async fn what_is_kept_stays_with_who_comes_back() {
    let (node, _) = with_anna().await;
    let (trash, feed, trail) = kept_for(&node, "ANA009").await;
    node.restore(Kind::Person, "ANA009", None).await;
    node.restore(Kind::Person, "ANA009", Some(named("ANA009", "Anna"))).await;
    let after = kept_for(&node, "ANA009").await;
    assert!(trash.iter().all(|row| after.0.contains(row)), "{after:?}");
    assert!(feed.iter().all(|row| after.1.contains(row)), "{after:?}");
    assert!(trail.iter().all(|row| after.2.contains(row)), "{after:?}");
}

#[tokio::test]
async fn what_is_kept_goes_with_who_gets_a_new_id() {
    let (node, sim) = with_anna().await;
    let before = kept_for(&node, "ANA009").await;
    let key = RecordKey::new(Kind::Person, "ANA009");
    let conflict = add_conflict(&node, key, &["note"], "hers".into(), "changed".into()).await;
    let decided = json!({"take": "local"});
    let call = node.post(&format!("/sync/conflicts/{conflict}/resolution"), decided).by("ROOT004");
    assert_eq!(call.send().await.status, 200);
    assert_eq!(conflicts_for(&node, "ANA009").await, [conflict]);
    let mut there = named("ANA009", "Berthold");
    there.insert("password", person("ANA009", &[]).get_str("password").unwrap());
    sim.put(Kind::Person, there);
    round(&node).await;
    let open = node.get("/sync/conflicts?status=open").by_operator().send().await.json();
    let id = open[0]["id"].as_str().unwrap().to_owned();
    let decision = json!({"decide": "new_id", "id": NEW});
    let call = node.post(&format!("/sync/conflicts/{id}/resolution"), decision).by("ROOT004");
    assert_eq!(call.send().await.status, 200);
    round(&node).await;
    let (trash, feed, mut trail) = kept_for(&node, "ANA009").await;
    // Who decided has seen both.
    trail.retain(|line| line != "person:ROOT004 read ANA009");
    assert_eq!((trash, trail), (Vec::new(), Vec::new()), "Berthold is new");
    assert_eq!(feed, ["create ANA009"]);
    assert_eq!(conflicts_for(&node, "ANA009").await, Vec::<String>::new());
    let (trash, _, trail) = kept_for(&node, NEW).await;
    assert_eq!(trash, ["gone"]);
    assert!(before.2.iter().all(|row| trail.contains(row)), "{before:?} {trail:?}");
    // Their own way on takes it along; the next one there gets nothing of it.
    node.restore(Kind::Person, NEW, None).await;
    node.restore(Kind::Person, NEW, Some(named(NEW, "Clementine"))).await;
    assert_eq!(kept_for(&node, NEW).await.2, Vec::<String>::new());
}
