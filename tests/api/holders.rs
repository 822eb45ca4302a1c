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

/// What Anna has: a session, a link, the trail of what was done about her, and her part of the feed.
struct Belongings<'n> {
    node: &'n TestNode,
    cookie: String,
    link: String,
}

/// What of it is there for who asks with the password of the account.
#[derive(Debug, PartialEq)]
struct Left {
    session: bool,
    link: bool,
    trail: bool,
    feed: bool,
}

const ALL: Left = Left { session: true, link: true, trail: true, feed: true };
const NONE: Left = Left { session: false, link: false, trail: false, feed: false };

impl Belongings<'_> {
    async fn of(node: &TestNode) -> Belongings<'_> {
        let made = node.post("/users/ANA001/link", json!({})).by("ROOT004").send().await.is(201, NOTHING);
        let link = made.json()["path"].as_str().unwrap().to_owned();
        let form = format!("account=ANA001&password={}", PASSWORD.replace(' ', "+"));
        let call =
            node.request("POST", "/session").header("content-type", "application/x-www-form-urlencoded");
        let login = call.bytes(form).send().await.is(303, NOTHING);
        let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
        let belongings = Belongings { node, cookie, link };
        assert_eq!(belongings.left().await, ALL);
        belongings
    }

    async fn left(&self) -> Left {
        let node = self.node;
        node.node.store.flush_notes().await.unwrap();
        let session = node.get("/login").header("cookie", &self.cookie).send().await.status;
        let link = node.get(&self.link).send().await.status;
        let trail = node.get("/audit?person=ANA001&limit=1000").by("ANA001").send().await.is(200, NOTHING);
        let feed = node.get("/changes").by("ANA001").send().await.is(200, NOTHING).json();
        let ops: Vec<_> = feed["changes"].as_array().unwrap().iter().map(|row| row["op"].clone()).collect();
        assert!([200, 401].contains(&session) && [200, 401].contains(&link), "{session} {link}");
        Left {
            session: session == 200,
            link: link == 200,
            trail: trail.text().contains("unconscious here"),
            feed: ops.contains(&json!("create")),
        }
    }
}

async fn patch(node: &TestNode, body: serde_json::Value) {
    let answer = node.patch("/people/ANA001", body).by("STA006").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The fields by which people are told apart, of the next one.
fn others() -> [(&'static str, &'static str); 4] {
    [("name", "Berthold"), ("lastname", "Cordara"), ("dob", "1951-02-03"), ("gender", "m")]
}

/// A person who is rewritten in their place: sessions, links and the trail of the one before are not the next one's.
#[tokio::test]
async fn nothing_of_the_one_before_is_the_next_ones() {
    let node = start().await;
    let given = Belongings::of(&node).await;
    edit(&node, Some(berthold()), Actor::Person("STA006".to_owned())).await;
    assert_eq!(given.left().await, NONE);
    let feed = node.get("/changes").by("ANA001").send().await.is(200, NOTHING).json();
    let ops: Vec<_> = feed["changes"].as_array().unwrap().iter().map(|row| row["op"].clone()).collect();
    assert_eq!(ops, ["update"], "{feed}");
    // Who opened it answers for it all the same.
    let open = node.get("/emergencies").by("ROOT004").send().await.is(200, NOTHING).json();
    assert_eq!(open[0]["open"], false);
}

/// The same where each field is a write of its own, in whatever order, here or at the centre.
#[tokio::test]
async fn nothing_passes_on_field_by_field() {
    for first in 0..4 {
        for is_here in [true, false] {
            let node = start().await;
            let given = Belongings::of(&node).await;
            let mut fields = others();
            fields.rotate_left(first);
            let mut person = anna();
            for (turn, (field, value)) in fields.into_iter().enumerate() {
                person.insert(field, value);
                match is_here {
                    true => patch(&node, json!({field: value})).await,
                    false => node.from_centre(Kind::Person, person.clone()).await,
                }
                // One field alone is a correction.
                let left = if turn == 0 { ALL } else { NONE };
                assert_eq!(given.left().await, left, "{fields:?} {turn} {is_here}");
            }
        }
    }
}

/// Nor with something between the fields: other writes, the same field again, or a field that is taken away first.
#[tokio::test]
async fn nothing_passes_on_in_between() {
    for way in ["other fields", "the same field", "taken away"] {
        let node = start().await;
        let given = Belongings::of(&node).await;
        patch(&node, json!({"name": "Berthold"})).await;
        assert_eq!(given.left().await, ALL, "{way}");
        match way {
            "other fields" => {
                patch(&node, json!({"phone": "7"})).await;
                patch(&node, json!({"phone": "8"})).await;
            }
            "the same field" => patch(&node, json!({"name": "Bert"})).await,
            _ => {
                let mut less = anna();
                less.insert("name", "Berthold");
                less.remove("lastname");
                edit(&node, Some(less), Actor::Operator(0)).await;
            }
        }
        assert_eq!(given.left().await, ALL, "{way}");
        patch(&node, json!({"lastname": "Cordara"})).await;
        assert_eq!(given.left().await, NONE, "{way}");
    }
}

/// Typos that are corrected make nobody another human being.
#[tokio::test]
async fn who_corrects_a_typo_keeps_everything() {
    for (field, typo) in [("name", "Ana"), ("lastname", "Beetz"), ("dob", "1985-04-10"), ("gender", "m")] {
        let node = start().await;
        let given = Belongings::of(&node).await;
        let right = anna().get_str(field).unwrap().to_owned();
        patch(&node, json!({field: typo})).await;
        patch(&node, json!({"phone": "7"})).await;
        patch(&node, json!({field: right})).await;
        assert_eq!(given.left().await, ALL, "{field}");
        // Corrected once more, and another field: one is another than it was.
        let (other, value) = others().into_iter().find(|(other, _)| *other != field).unwrap();
        patch(&node, json!({other: value})).await;
        assert_eq!(given.left().await, ALL, "{field}");
    }
}
