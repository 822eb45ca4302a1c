//! Two people under one account: who sees both, who decides, and what is refused until then.

use std::sync::Arc;

use bson::{Document, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Note, StoreError};

use crate::support::api::{Answer, Call, NOTHING, PASSWORD_HASH, Setup, TestNode};
use crate::support::sim::Sim;

const THEIRS: &str = "a cradle in Torino";

fn with_roles(setup: &mut Setup) {
    setup.add_roles(
        r#"{"role": "judge", "permissions": {"GET": ["conflicts", "person"], "POST": ["conflicts"], "global": true}},
             {"role": "editor", "permissions": {"GET": ["conflicts", "person"], "POST": ["conflicts"],
              "PATCH": ["person"], "global": true}},
             {"role": "own_judge", "permissions": {"GET": ["conflicts", "person", "page"],
              "POST": ["conflicts", "person", "page"], "PATCH": ["person", "page"]}},
             {"role": "clerk", "permissions": {"GET": ["conflicts"], "POST": ["conflicts"], "global": true}}"#,
    );
}

/// What the centre has under Ana's account.
fn beatriz() -> Document {
    doc! {
        "_id": "ANA001", "name": "Beatriz", "lastname": "Cordara", "dob": "1984-10-05", "active": true,
        "password": bcrypt::hash(THEIRS, 4).unwrap(), "roles": ["end_user"],
    }
}

/// A node where ANA001, made here with a page, is somebody else at the centre; and the conflict's id.
async fn start() -> (TestNode, Sim, String) {
    let (node, sim) = TestNode::with_centre(with_roles).await;
    for (id, role) in [("JUD005", "judge"), ("EDI006", "editor"), ("CLE007", "clerk")] {
        node.person(id, &[role]).await;
    }
    node.restore(Kind::Person, "ANA001", None).await;
    node.person("ANA001", &["own_judge"]).await;
    node.record(Kind::Page, doc! {"_id": "own", "book": "ANA001", "info": "hers"}).await;
    sim.put(Kind::Person, beatriz());
    sim.put(Kind::Page, doc! {"_id": "theirs", "book": "ANA001", "info": "theirs"});
    round(&node).await;
    let id = listed(&node).await[0]["id"].as_str().unwrap().to_owned();
    (node, sim, id)
}

async fn round(node: &TestNode) {
    let report = node.post("/sync/rounds", json!({})).by_operator().send().await.json();
    assert_eq!(report["outcome"], "complete", "{report}");
}

async fn listed(node: &TestNode) -> Vec<Value> {
    let list = node.get("/sync/conflicts?status=open").by_operator().send().await.is(200, NOTHING).json();
    list.as_array().unwrap().clone()
}

async fn show(node: &TestNode, who: &str, id: &str) -> Answer {
    node.get(&format!("/sync/conflicts/{id}")).by(who).send().await
}

fn decide<'a>(node: &'a TestNode, who: &str, id: &str, decision: Value) -> Call<'a> {
    node.post(&format!("/sync/conflicts/{id}/resolution"), decision).by(who)
}

/// What the journal says after the two records have become one.
const UNITED: &[&str] = &["update people/ANA001", "create pols/theirs"];
const PARTED: &[&str] = &[
    "delete people/ANA001",
    "create people/NEW001",
    "update pols/own",
    "create people/ANA001",
    "create pols/theirs",
];

#[tokio::test]
async fn both_people_are_shown_without_their_secrets() {
    let (node, _, id) = start().await;
    let shown = show(&node, "DOC003", &id).await.is(200, NOTHING);
    assert!(!shown.text().contains("$2b"), "{}", shown.text());
    let etag = shown.header("etag").to_owned();
    let shown = shown.says(json!({
        "id": id, "type": "identity", "collection": "people", "record": "ANA001", "path": [], "status": "open",
        "author": "operator:0", "found_at": "2026-11-23T01:28:52Z", "etag": etag, "why": "created",
        "own_records": 1, "held_records": 1,
        "if_same": ["the password becomes the centre's; this node's becomes a conflict",
                    "the roles become end_user; this node's becomes a conflict"],
        "local": {"_id": "ANA001", "active": true, "name": "Ana", "lastname": "Betz",
                  "roles": ["own_judge"]},
        "central": {"_id": "ANA001", "active": true, "dob": "1984-10-05", "name": "Beatriz",
                    "lastname": "Cordara", "roles": ["end_user"]},
    }));
    for status in ["", "?status=open"] {
        let list = node.get(&format!("/sync/conflicts{status}")).by("DOC003").send().await;
        list.is(200, NOTHING).says(json!([shown.json()]));
    }
    node.get("/sync/conflicts?status=resolved").by("DOC003").send().await.says(json!([]));
    let status = node.get("/sync/status").by("DOC003").send().await.json();
    assert_eq!((&status["conflicts_open"], &status["dead"]), (&json!(1), &json!(0)));
    assert!(status["message"].as_str().unwrap().contains("Accounts that two people have"), "{status}");
    // Everybody else sees the person of this node, as ever.
    node.get("/people/ANA001").by("DOC003").send().await.has(json!({"name": "Ana"}));
    node.get("/pols/ANA001/theirs").by("DOC003").send().await.is(404, NOTHING);
    assert_eq!(node.get("/pols/ANA001").by("DOC003").send().await.ids(), ["own"]);
}

/// The other one is another patient: not for Ana's eyes, though the account is hers too.
#[tokio::test]
async fn only_readers_of_anybody_see_the_two() {
    let (node, _, id) = start().await;
    for (who, sees) in [("DOC003", true), ("JUD005", true), ("ANA001", false), ("CLE007", false)] {
        let list = node.get("/sync/conflicts").by(who).send().await.is(200, NOTHING).json();
        assert_eq!(list.as_array().unwrap().len(), usize::from(sees), "{who}");
        show(&node, who, &id).await.is(if sees { 200 } else { 404 }, NOTHING);
        if !sees {
            decide(&node, who, &id, json!({"decide": "same"})).send().await.is(404, NOTHING);
        }
    }
    show(&node, "BOB002", &id).await.is(403, NOTHING);
    // To see is not to decide.
    let new = json!({"decide": "new_id", "id": "NEW001"});
    decide(&node, "JUD005", &id, json!({"decide": "same"})).send().await.is(403, NOTHING);
    decide(&node, "JUD005", &id, new.clone()).send().await.is(403, NOTHING);
    decide(&node, "EDI006", &id, new).send().await.is(403, NOTHING);
    decide(&node, "EDI006", &id, json!({"decide": "same"})).send().await.is(200, UNITED);
}

#[tokio::test]
async fn the_same_person() {
    let (node, sim, id) = start().await;
    let same = || decide(&node, "DOC003", &id, json!({"decide": "same"}));
    let done = same().send().await.is(200, UNITED);
    assert!(!done.text().contains("$2b"), "{}", done.text());
    done.has(json!({
        "status": "resolved", "resolution": "same", "resolved_by": "person:DOC003", "resolved_at": "2026-11-23T01:28:52Z",
    }));
    same().send().await.is(409, NOTHING).has(json!({"code": "conflict"}));
    node.get("/people/ANA001").by("DOC003").send().await.has(json!({"name": "Beatriz", "dob": "1984-10-05"}));
    // Name, lastname, password and roles differ: the centre's stand, the others wait.
    let open = listed(&node).await;
    let mut paths: Vec<_> = open.iter().map(|conflict| conflict["path"][0].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["lastname", "name", "password", "roles"]);
    node.get("/login").login("ANA001", THEIRS).send().await.is(200, NOTHING);
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    round(&node).await;
    assert!(sim.get(Kind::Page, "own").is_some());
}

#[tokio::test]
async fn a_new_id() {
    let (node, sim, id) = start().await;
    let new = |new: Value| decide(&node, "DOC003", &id, json!({"decide": "new_id", "id": new}));
    for bad in [json!("A"), json!("NEW<1>"), json!("BOB002"), json!("ana001"), json!("")] {
        new(bad).send().await.is_invalid("id");
    }
    let done = new(json!(" new001 ")).send().await.is(200, PARTED);
    done.has(json!({"status": "resolved", "resolution": "new_id", "new_id": "NEW001"}));
    // Each logs in under the own account, and sees the own book.
    node.get("/login").by("NEW001").send().await.is(200, NOTHING);
    node.get("/login").login("ANA001", THEIRS).send().await.is(200, NOTHING);
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    node.get("/people/NEW001").by("NEW001").send().await.has(json!({"name": "Ana", "roles": ["own_judge"]}));
    node.get("/pols/NEW001/own").by("NEW001").send().await.is(200, NOTHING);
    node.get("/pols/ANA001/theirs").login("ANA001", THEIRS).send().await.is(200, NOTHING);
    node.get("/pols/ANA001/own").login("ANA001", THEIRS).send().await.is(404, NOTHING);
    assert!(listed(&node).await.is_empty());
    round(&node).await;
    assert_eq!(sim.get(Kind::Person, "ANA001"), node.stored(Kind::Person, "ANA001"));
    assert_eq!(sim.get(Kind::Page, "own").unwrap().get_str("book").unwrap(), "NEW001");
}

/// A role that counts only because it was granted here goes along.
#[tokio::test]
async fn granted_roles_go_with_the_person() {
    let sim = Sim::default();
    let hub = Arc::new(sim.clone());
    let node = TestNode::start_with(|setup| setup.hub = Some(hub));
    node.person("ADM008", &["root"]).await;
    sim.put(Kind::Person, doc! {"_id": "ADM008", "name": "Mallory", "lastname": "Betz", "roles": ["root"]});
    round(&node).await;
    let id = listed(&node).await[0]["id"].as_str().unwrap().to_owned();
    let body = json!({"decide": "new_id", "id": "ADM009"});
    node.post(&format!("/sync/conflicts/{id}/resolution"), body).by_operator().send().await;
    node.get("/users").by("ADM009").send().await.is(200, NOTHING);
    assert!(
        node.stored(Kind::Person, "ADM009").unwrap().get_str("password").unwrap() == PASSWORD_HASH.as_str()
    );
    node.get("/users").by("ADM008").send().await.is(401, NOTHING);
}

#[tokio::test]
async fn decisions_about_people_are_checked() {
    let (node, _, id) = start().await;
    for (bad, field) in [
        (json!({}), "decide"),
        (json!({"take": "local"}), "decide"),
        (json!({"value": {}}), "decide"),
        (json!({"decide": "different"}), "decide"),
        (json!({"decide": 1}), "decide"),
        (json!({"decide": "same", "id": "NEW001"}), "decide"),
        (json!({"decide": "new_id"}), "id"),
        (json!({"decide": "new_id", "id": 5}), "id"),
    ] {
        decide(&node, "DOC003", &id, bad).send().await.is_invalid(field);
    }
    decide(&node, "DOC003", "none", json!({"decide": "same"})).send().await.is(404, NOTHING);
    // And about values no person is decided.
    let key = RecordKey::new(Kind::Person, "BOB002");
    let clash = Clash {
        path: vec!["name".to_owned()],
        base: None,
        local: Some("B".into()),
        remote: Some("Ana".into()),
        stands: Side::Remote,
    };
    let added = node
        .node
        .store
        .unguarded()
        .transact(move |tx| -> Result<(), StoreError> { tx.add_conflict(&key, &clash, None) });
    added.await.unwrap();
    let open = listed(&node).await;
    let name = open.iter().find(|conflict| conflict["type"] == "value").unwrap()["id"].as_str().unwrap();
    decide(&node, "DOC003", name, json!({"decide": "same"})).send().await.is_invalid("take");
}

#[tokio::test]
async fn a_decision_is_about_the_two_that_somebody_saw() {
    let (node, sim, id) = start().await;
    let seen = show(&node, "DOC003", &id).await;
    let tag = seen.header("etag").to_owned();
    let pair = json!({"local": seen.json()["local"], "central": seen.json()["central"]});
    let same = |more: Value| {
        let mut body = json!({"decide": "same"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        decide(&node, "DOC003", &id, body)
    };
    // Another phone number makes nobody somebody else; but who said what they saw must look again.
    let mut moved = beatriz();
    moved.insert("phone", "5");
    sim.put(Kind::Person, moved.clone());
    round(&node).await;
    for stale in
        [same(json!({})).header("if-match", &tag), same(json!({"seen": pair})), same(json!({"seen": null}))]
    {
        let stale = stale.send().await.is(409, NOTHING);
        assert_eq!(stale.json()["code"], "conflict");
        assert_eq!(stale.json()["current"]["central"]["phone"], "5");
        assert!(!stale.text().contains("$2b"), "{}", stale.text());
    }
    // Another name does.
    moved.insert("name", "Carla");
    sim.put(Kind::Person, moved);
    round(&node).await;
    same(json!({})).send().await.is(409, NOTHING);
    let now = show(&node, "DOC003", &id).await.json();
    assert_ne!(now["etag"], json!(tag));
    let pair = json!({"local": now["local"], "central": now["central"]});
    same(json!({"seen": pair})).send().await.is(200, UNITED);
}

/// Until it is decided, a person is edited like any other, but does not go.
#[tokio::test]
async fn a_held_person_is_edited_and_not_deleted() {
    let (node, _, id) = start().await;
    node.patch("/people/ANA001", json!({"phone": "7"}))
        .by("DOC003")
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    node.post("/pols/ana001/p2", json!({"id": "p2"})).by("DOC003").send().await.is(201, &["create pols/p2"]);
    node.patch("/people/ANA001", json!({"active": false}))
        .by("ROOT004")
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    for spelling in ["ANA001", "ana001"] {
        let refused = node.delete(&format!("/people/{spelling}")).by("ROOT004").send().await.is(409, NOTHING);
        refused.has(json!({"code": "decision_pending", "conflict": id, "status": 409}));
    }
    node.delete("/pols/ANA001/own").by("ROOT004").send().await.is(204, &["delete pols/own"]);
    // Nor by deciding another conflict.
    let key = RecordKey::new(Kind::Person, "ANA001");
    let person = node.stored(Kind::Person, "ANA001").unwrap();
    let clash = Clash {
        path: Vec::new(),
        base: None,
        local: None,
        remote: Some(person.into()),
        stands: Side::Remote,
    };
    let added = node
        .node
        .store
        .unguarded()
        .transact(move |tx| -> Result<(), StoreError> { tx.add_conflict(&key, &clash, None) });
    added.await.unwrap();
    let open = listed(&node).await;
    let whole = open.iter().find(|conflict| conflict["type"] == "value").unwrap();
    let whole = whole["id"].as_str().unwrap();
    let refused = decide(&node, "ROOT004", whole, json!({"take": "local"})).send().await.is(409, NOTHING);
    refused.has(json!({"code": "decision_pending", "conflict": id}));
}

/// Whose records are whose cannot be told, so neither sees or changes any as their own.
#[tokio::test]
async fn who_shares_an_account_with_another_has_no_records_of_their_own() {
    let (node, ..) = start().await;
    let person = |id: &str, name: &str| {
        doc! {
            "_id": id, "name": name, "password": PASSWORD_HASH.as_str(), "roles": ["own_judge"], "active": true,
        }
    };
    node.person("TWIN01", &["own_judge"]).await;
    node.record(Kind::Page, doc! {"_id": "t1", "book": "TWIN01", "info": "of Anna"}).await;
    node.get("/pols/TWIN01/t1").by("TWIN01").send().await.is(200, NOTHING);
    node.from_centre(Kind::Person, person("twin01", "Bert")).await;
    for who in ["TWIN01", "twin01"] {
        for path in [
            "/people",
            "/pols",
            "/people/TWIN01",
            "/people/twin01",
            "/pols/TWIN01",
            "/pols/twin01",
            "/pols/TWIN01/t1",
        ] {
            let answer = node.get(path).by(who).send().await;
            assert!([403, 404].contains(&answer.status), "{who} {path}: {}", answer.status);
        }
        let made = node.post("/pols/twin01/t2", json!({"info": "x"})).by(who).send().await;
        assert!([403, 404].contains(&made.status), "{who}: {}", made.status);
    }
    // Once they are one person they have what is theirs.
    node.from_centre(
        Kind::Person,
        doc! {"_id": "twin01", "name": node.stored(Kind::Person, "TWIN01").unwrap().get_str("name").unwrap()},
    )
    .await;
    node.get("/pols/TWIN01/t1").by("TWIN01").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn two_records_of_one_account_are_listed() {
    let (node, ..) = start().await;
    for id in ["twin01", "TWIN01"] {
        node.from_centre(Kind::Person, doc! {"_id": id, "name": id, "password": "$2b$04$secret"}).await;
    }
    let shown = json!({
        "id": "duplicate:TWIN01", "type": "duplicate", "collection": "people", "record": "TWIN01", "path": [],
        "status": "open",
        "records": [{"_id": "TWIN01", "name": "TWIN01"}, {"_id": "twin01", "name": "twin01"}],
    });
    for status in ["", "?status=open"] {
        let list = node.get(&format!("/sync/conflicts{status}")).by("JUD005").send().await.json();
        assert_eq!(list.as_array().unwrap().last(), Some(&shown));
    }
    let resolved = node.get("/sync/conflicts?status=resolved").by("JUD005").send().await.is(200, NOTHING);
    resolved.says(json!([]));
    show(&node, "JUD005", "duplicate:twin01").await.is(200, NOTHING).says(shown);
    let hidden = node.get("/sync/conflicts").by("CLE007").send().await.is(200, NOTHING);
    hidden.says(json!([]));
    show(&node, "CLE007", "duplicate:TWIN01").await.is(404, NOTHING);
    show(&node, "JUD005", "duplicate:BOB002").await.is(404, NOTHING);
    show(&node, "JUD005", "duplicate:").await.is(404, NOTHING);
    decide(&node, "ROOT004", "duplicate:TWIN01", json!({"decide": "same"})).send().await.is_invalid("");
    // Deleting one of them, by its exact spelling, is the end of it.
    node.patch("/people/twin01", json!({"active": false}))
        .by("ROOT004")
        .send()
        .await
        .is(200, &["update people/twin01"]);
    node.delete("/people/twin01").by("ROOT004").send().await.is(204, &["delete people/twin01"]);
    show(&node, "JUD005", "duplicate:TWIN01").await.is(404, NOTHING);
}

/// Decisions that came from the centre and were not carried out are told, but for secrets.
#[tokio::test]
async fn notes_are_shown() {
    let node = TestNode::with_people().await;
    for (field, value) in [("name", json!("X")), ("password", Value::Null)] {
        let key = RecordKey::new(Kind::Person, "BOB002");
        let clash = Clash {
            path: vec![field.to_owned()],
            base: None,
            local: Some("mine".into()),
            remote: Some("theirs".into()),
            stands: Side::Remote,
        };
        let noted = node.node.store.unguarded().transact(move |tx| -> Result<String, StoreError> {
            tx.add_conflict(&key, &clash, None)?;
            let mut conflict = tx.open_conflicts_of(&key)?.pop().unwrap();
            conflict.note(Note {
                reason: "too late".to_owned(),
                resolution: "value".to_owned(),
                value: Some("X".into()),
                by: "office".to_owned(),
                at_ms: 0,
            });
            tx.put_conflict(&conflict)?;
            Ok(conflict.id)
        });
        let id = noted.await.unwrap();
        let mut note = json!({
            "reason": "too late", "resolution": "value", "resolved_by": "office", "at": "1970-01-01T00:00:00Z",
        });
        if !value.is_null() {
            note["value"] = value;
        }
        show(&node, "DOC003", &id).await.has(json!({"notes": [note]}));
        node.node
            .store
            .unguarded()
            .transact(move |tx| -> Result<(), StoreError> {
                let mut conflict = tx.conflict(&id)?.unwrap();
                conflict.resolve("central", None, "test", 0);
                tx.put_conflict(&conflict)
            })
            .await
            .unwrap();
    }
}
