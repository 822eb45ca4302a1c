//! What was given for a human being ends when their account comes to be another one's, in whatever way.

use bson::{Document, doc};
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, StoreError};

use crate::support::api::{NOTHING, PASSWORD, TestNode, person};

const ROLES: &str = r#"[
    {"role": "end_user", "permissions": {"GET": ["person", "page", "audit", "changes"], "PATCH": ["person"]}},
    {"role": "nurse", "permissions": {"GET": ["person", "page"], "emergency": true}},
    {"role": "staff", "permissions": {"GET": ["person", "users"], "PATCH": ["person"], "PUT": ["person"], "POST": ["person", "users"],
                      "DELETE": ["person"], "global": true}},
    {"role": "root", "permissions": {"GET": ["person", "users", "audit"], "PATCH": ["person"], "PUT": ["person"], "POST": ["users"],
                     "global": true}}]"#;

fn anna() -> Document {
    let mut anna = person("ANA001", &["end_user"]);
    anna.extend(doc! {"name": "Anna", "lastname": "Betz", "dob": "1985-10-04", "gender": "f"});
    anna
}

fn berthold() -> Document {
    let mut berthold = anna();
    berthold.extend(doc! {"name": "Berthold", "lastname": "Cordara", "dob": "1951-02-03", "gender": "m"});
    berthold
}

async fn start() -> TestNode {
    let node = TestNode::start_with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.settings.emergency_access = true;
    });
    for (id, role) in [("NUR005", "nurse"), ("STA006", "staff"), ("ROOT004", "root")] {
        node.person(id, &[role]).await;
    }
    node.record(Kind::Person, anna()).await;
    node.record(Kind::Page, doc! {"_id": "p1", "book": "ANA001", "info": "of Anna"}).await;
    let urgent = node.get("/people/ANA001").by("NUR005").header("x-emergency-reason", "unconscious here");
    urgent.send().await.is(200, NOTHING);
    assert!(is_open(&node).await);
    node
}

async fn is_open(node: &TestNode) -> bool {
    let page = node.get("/pols/ANA001/p1").by("NUR005").send().await.status;
    let person = node.get("/people/ANA001").by("NUR005").send().await.status;
    assert_eq!(page == 200, person == 200, "{page} {person}");
    person == 200
}

async fn edit(node: &TestNode, body: Option<Document>, actor: Actor) {
    let key = RecordKey::new(Kind::Person, "ANA001");
    let job = move |tx: &mut thalamus_edge::store::Tx<'_>| -> Result<bool, StoreError> {
        tx.edit(&key, body.as_ref(), &actor)
    };
    node.node.store.unguarded().transact(job).await.unwrap();
}

#[tokio::test]
async fn an_emergency_ends_with_the_human_being_for_whom_it_was_opened() {
    let ways = [
        "rewritten",
        "field by field",
        "put",
        "deleted and made",
        "from the centre",
        "new id",
        "another spelling",
        "imported",
    ];
    for way in ways {
        let node = start().await;
        let other = json!({"name": "Berthold", "lastname": "Cordara", "dob": "1951-02-03", "gender": "m"});
        match way {
            "rewritten" => {
                node.patch("/people/ANA001", other)
                    .by("STA006")
                    .send()
                    .await
                    .is(200, &["update people/ANA001"]);
            }
            "field by field" => {
                for (field, value) in other.as_object().unwrap() {
                    let patch = json!({field: value});
                    let answer = node.patch("/people/ANA001", patch).by("STA006").send().await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            }
            "put" => {
                let shown = node.get("/people/ANA001").by("ROOT004").send().await.json();
                let mut whole = shown.as_object().unwrap().clone();
                whole.extend(other.as_object().unwrap().clone());
                let call = node.request("PUT", "/people/ANA001").json(&json!(whole)).by("ROOT004");
                call.send().await.is(200, &["update people/ANA001"]);
            }
            "deleted and made" => {
                edit(&node, None, Actor::Operator(0)).await;
                edit(&node, Some(berthold()), Actor::Operator(0)).await;
            }
            "from the centre" => node.from_centre(Kind::Person, berthold()).await,
            "new id" => {
                let rename = node.node.store.unguarded().transact(|tx| -> Result<(), StoreError> {
                    let (old, new) =
                        (RecordKey::new(Kind::Person, "ANA001"), RecordKey::new(Kind::Person, "NEW001"));
                    let mut renamed = anna();
                    renamed.insert("_id", "NEW001");
                    tx.edit(&old, None, &Actor::Operator(0))?;
                    tx.edit(&new, Some(&renamed), &Actor::Operator(0))?;
                    tx.put(&old, Some(&berthold()), &Base::Document(berthold()), &Actor::Centre)
                });
                rename.await.unwrap();
            }
            "another spelling" => {
                let mut lower = berthold();
                lower.insert("_id", "ana001");
                node.from_centre(Kind::Person, lower).await;
            }
            _ => edit(&node, Some(berthold()), Actor::Operator(0)).await,
        }
        assert!(!is_open(&node).await, "{way}");
    }
}

/// A corrected field, or a new address, makes nobody another human being.
#[tokio::test]
async fn an_emergency_goes_on_for_the_same_human_being() {
    let node = start().await;
    for patch in [json!({"phone": "7"}), json!({"name": "Ana"}), json!({"name": "Anna"})] {
        let answer = node.patch("/people/ANA001", patch).by("STA006").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    edit(&node, Some(anna()), Actor::Operator(0)).await;
    assert!(is_open(&node).await);
}

/// A person who is rewritten in their place: sessions, links and the trail of the one before are not the next one's.
#[tokio::test]
async fn nothing_of_the_one_before_is_the_next_ones() {
    let node = start().await;
    let made = node.post("/users/ANA001/link", json!({})).by("ROOT004").send().await.is(201, NOTHING);
    let link = made.json()["path"].as_str().unwrap().to_owned();
    let form = format!("account=ANA001&password={}", PASSWORD.replace(' ', "+"));
    let call = node.request("POST", "/session").header("content-type", "application/x-www-form-urlencoded");
    let login = call.bytes(form).send().await.is(303, NOTHING);
    let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
    let status = async |path: &str| node.get(path).header("cookie", &cookie).send().await.status;
    let trail = async || {
        node.node.store.flush_notes().await.unwrap();
        node.get("/audit?person=ANA001&limit=1000").by("ANA001").send().await.is(200, NOTHING).text()
    };
    assert_eq!(status("/login").await, 200);
    assert_eq!(node.get(&link).send().await.status, 200);
    assert!(trail().await.contains("unconscious here"));
    // One field, corrected.
    node.patch("/people/ANA001", json!({"lastname": "Beetz"})).by("STA006").send().await;
    assert_eq!((status("/login").await, node.get(&link).send().await.status), (200, 200));
    edit(&node, Some(berthold()), Actor::Person("STA006".to_owned())).await;
    assert_eq!(status("/login").await, 401);
    assert_eq!(node.get(&link).send().await.status, 401);
    let trail = trail().await;
    assert!(!trail.contains("unconscious here"), "{trail}");
    let feed = node.get("/changes").by("ANA001").send().await.is(200, NOTHING).json();
    let ops: Vec<_> = feed["changes"].as_array().unwrap().iter().map(|row| row["op"].clone()).collect();
    assert_eq!(ops, ["update"], "{feed}");
    // Who opened it answers for it all the same.
    let open = node.get("/emergencies").by("ROOT004").send().await.is(200, NOTHING).json();
    assert_eq!(open[0]["open"], false);
}
