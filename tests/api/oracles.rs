//! Answers that must not tell records that are hidden from those that do not exist.

use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::emergency::UNREVIEWED_EACH_MAX;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Conflict, StoreError};

use crate::support::api::{NOTHING, TestNode, seen};
use crate::support::disk::Disk;

/// A patient who may write pages and encounters of their own, a nurse who may open records in an emergency, a clerk who
/// writes everybody's pages and reads none.
const ROLES: &str = r#"[
    {"role": "end_user", "permissions": {
        "GET": ["person", "book", "page", "personaldoc", "personaldocs", "poldocs", "encounter", "encounters", "trash",
                "conflicts"],
        "POST": ["page", "encounter", "personaldoc", "trash", "conflicts"],
        "PATCH": ["page", "encounter", "personaldoc"], "PUT": ["page", "encounter", "personaldoc"],
        "DELETE": ["page", "encounter", "personaldoc"]}},
    {"role": "nurse", "permissions": {"GET": ["person", "page", "encounter", "personaldoc"], "emergency": true}},
    {"role": "clerk", "permissions": {"POST": ["page", "encounter"], "global": true}},
    {"role": "root", "permissions": {"GET": ["audit"], "global": true}}]"#;

/// What stands in everything that is hidden.
const HIDDEN: &str = "words of another";

fn node_on(disk: Disk) -> TestNode {
    TestNode::start_with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.settings.emergency_access = true;
        setup.settings.central_roles.extend(["nurse", "clerk"].map(str::to_owned));
        setup.disk = Some(disk);
    })
}

async fn start() -> TestNode {
    start_on(Disk::default()).await
}

/// A node whose disk has rotted wherever something hidden stands, before anybody has read it.
async fn start_with_rot(fill: impl AsyncFnOnce(&TestNode)) -> TestNode {
    let disk = Disk::default();
    let node = start_on(disk.clone()).await;
    fill(&node).await;
    drop(node);
    assert!(disk.damage(HIDDEN) >= 4);
    node_on(disk)
}

async fn start_on(disk: Disk) -> TestNode {
    let node = node_on(disk);
    for (id, roles) in [
        ("ANA001", &["end_user"][..]),
        ("BOB002", &["end_user"]),
        ("NUR005", &["end_user", "nurse"]),
        ("CLE006", &["clerk"]),
        ("ROOT004", &["root"]),
    ] {
        node.person(id, roles).await;
    }
    node.record(Kind::Page, doc! {"_id": "bobs", "book": "BOB002", "info": HIDDEN}).await;
    node.record(Kind::Encounter, doc! {"_id": "bobs", "person": "BOB002", "info": HIDDEN}).await;
    node.record(Kind::Encounter, doc! {"_id": "nobodys", "info": HIDDEN}).await;
    node.record(Kind::PersonalDocument, doc! {"_id": "bobs", "fedacct": "BOB002", "info": HIDDEN}).await;
    node
}

type Headers = Vec<(&'static str, &'static str)>;

/// Everything that a request can have beside its path.
fn variants(id: &str) -> Vec<(Headers, Option<Value>)> {
    let own = json!({"id": id, "book": "ANA001", "person": "ANA001", "fedacct": "ANA001", "info": "x"});
    let bodies = [
        None,
        Some(json!({})),
        Some(own.clone()),
        Some(json!({"id": "other"})),
        Some(json!({"id": id, "person": "BOB002", "fedacct": "BOB002", "book": "BOB002"})),
        Some(json!({"id": id, "$x": 1})),
        Some(json!([1])),
    ];
    let headers = [
        vec![],
        vec![("if-match", "\"x\"")],
        vec![("if-match", "*")],
        vec![("if-none-match", "*")],
        vec![("if-none-match", "\"x\"")],
        vec![("range", "bytes=0-0")],
        vec![("content-type", "multipart/form-data; boundary=x")],
        vec![("content-encoding", "br")],
        vec![("x-emergency-reason", "short")],
        vec![("x-emergency-reason", "")],
        vec![("accept", "text/html")],
        vec![("accept", "application/problem+json")],
    ];
    headers.into_iter().flat_map(|headers| bodies.clone().map(|body| (headers.clone(), body))).collect()
}

/// Over all routes with an id, methods, preconditions and bodies, as a patient and as a nurse: nothing but an attempt
/// that makes a record where there is none tells that there is one.
#[tokio::test]
async fn hidden_and_absent_look_alike_on_every_route() {
    compare_everywhere(&start().await).await;
}

/// A record is not read to find out that it is hidden: that would take as long as it is large, and tell that it has rotted.
#[tokio::test]
async fn what_is_hidden_is_not_read() {
    let node = start_with_rot(async |_| {}).await;
    compare_everywhere(&node).await;
    for who in ["ANA001", "NUR005"] {
        let (hidden, absent) =
            (node.get("/encounters/nobodys").by(who).send(), node.get("/encounters/none").by(who).send());
        assert_eq!(seen(&hidden.await), seen(&absent.await));
    }
    let store = node.node.store.unguarded();
    assert_eq!(store.damaged_rows(), [], "nobody has looked at the rows");
    // Its owner is told.
    for path in ["/encounters/bobs", "/pols/BOB002/bobs", "/personal-documents/bobs"] {
        node.get(path).by("BOB002").send().await.is(500, NOTHING).has(json!({"code": "damaged"}));
    }
    assert_eq!(store.damaged_rows().len(), 3);
}

/// The same of bodies in the trash and of conflicts.
#[tokio::test]
async fn hidden_trash_and_conflicts_are_not_read() {
    let mut paths = Vec::new();
    let node = start_with_rot(async |node| {
        for (id, who) in [("gone", "BOB002"), ("mine", "ANA001")] {
            let text = if who == "BOB002" { HIDDEN } else { "own words" };
            node.record(Kind::Encounter, doc! {"_id": id, "person": who, "info": text}).await;
            assert_eq!(node.delete(&format!("/encounters/{id}")).by(who).send().await.status, 204);
        }
        let trash = node.get("/trash").by_operator().send().await.json();
        let gone = trash.as_array().unwrap().iter().find(|row| row["record"] == "gone").unwrap();
        paths.push(("GET", format!("/trash/{}", gone["id"])));
        paths.push(("POST", format!("/trash/{}/restore", gone["id"])));
        for key in [RecordKey::new(Kind::Encounter, "bobs"), RecordKey::new(Kind::Person, "BOB002")] {
            let of = key.clone();
            let clash = Clash {
                path: vec!["info".to_owned()],
                base: None,
                local: Some(HIDDEN.into()),
                remote: Some("another".into()),
                stands: Side::Local,
            };
            let added =
                node.node.store.unguarded().transact(move |tx| -> Result<Vec<Conflict>, StoreError> {
                    tx.add_conflict(&of, &clash, None)?;
                    // Whose it was then is not known of conflicts that earlier versions found.
                    let found = tx.open_conflicts_of(&of)?.remove(0);
                    tx.open_conflict(Conflict { id: format!("old-{}", found.id), owner: None, ..found })?;
                    tx.open_conflicts_of(&of)
                });
            for conflict in added.await.unwrap() {
                paths.push(("GET", format!("/sync/conflicts/{}", conflict.id)));
                paths.push(("POST", format!("/sync/conflicts/{}/resolution", conflict.id)));
            }
        }
    })
    .await;
    assert_eq!(paths.len(), 10);
    for (method, path) in &paths {
        let absent = match (path.starts_with("/trash"), *method) {
            (true, "GET") => "/trash/999999",
            (true, _) => "/trash/999999/restore",
            (false, "GET") => "/sync/conflicts/none",
            (false, _) => "/sync/conflicts/none/resolution",
        };
        let ask = |path: &str| node.request(method, path).by("ANA001").bytes("{\"take\": \"local\"}").send();
        let (hidden, absent) = (ask(path).await.is(404, NOTHING), ask(absent).await.is(404, NOTHING));
        assert_eq!(seen(&hidden), seen(&absent), "{method} {path}");
    }
    let listed = node.get("/trash").by("ANA001").send().await.is(200, NOTHING);
    listed.lacks_header("x-damaged");
    assert_eq!(listed.json().as_array().unwrap().len(), 1);
    let store = node.node.store.unguarded();
    assert_eq!(store.damaged_rows(), [], "nobody has looked at the rows");
    // Whose they are is told.
    for (_, path) in paths.iter().filter(|(method, path)| *method == "GET" && !path.contains("old-")) {
        node.get(path).by("BOB002").send().await.is(500, NOTHING).has(json!({"code": "damaged"}));
    }
}

async fn compare_everywhere(node: &TestNode) {
    let mut compared = 0;
    for who in ["ANA001", "NUR005"] {
        for pattern in [
            "/pols/{who}/{id}",
            "/personal_docs/{who}/{id}",
            "/encounters/{id}",
            "/personal-documents/{id}",
            "/personal-documents/{id}/content",
            "/authorization?method=GET&path=/encounters/{id}",
            "/authorization?method=PATCH&path=/encounters/{id}",
            "/authorization?method=PUT&path=/encounters/{id}",
            "/authorization?method=POST&path=/encounters/{id}",
            "/authorization?method=PUT&path=/personal-documents/{id}/content",
            "/authorization?method=PUT&path=/pols/{who}/{id}",
            "/authorization?method=DELETE&path=/personal-documents/{id}",
            "/authorization?method=GET&path=/pols/{who}/{id}",
        ] {
            for method in ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"] {
                for (headers, body) in variants("{id}") {
                    let ask = |id: &'static str| {
                        let path = pattern.replace("{who}", who).replace("{id}", id);
                        let mut call = node.request(method, &path).by(who);
                        for (name, value) in &headers {
                            call = call.header(name, value);
                        }
                        if let Some(body) = &body {
                            let body = body.to_string().replace("{id}", id).replace("ANA001", who);
                            call = call.bytes(body);
                        }
                        call.send()
                    };
                    let (hidden, absent) = (ask("bobs").await, ask("none").await);
                    let what = format!("{who} {method} {pattern} {headers:?} {body:?}");
                    assert_eq!(hidden.changes, [""; 0], "{what}");
                    compared += 1;
                    if absent.changes.is_empty() {
                        let (hidden, absent) = (seen(&hidden), seen(&absent));
                        let absent = (absent.0, absent.1, absent.2.replace("none", "bobs"));
                        assert_eq!(hidden, absent, "{what}");
                        continue;
                    }
                    // It was made: the same for a record of somebody else's is refused, and does not say why.
                    assert!([404, 422].contains(&hidden.status), "{what}: {}", hidden.text());
                    assert!(!hidden.text().contains("exists"), "{what}: {}", hidden.text());
                    for kind in [Kind::Page, Kind::Encounter, Kind::PersonalDocument] {
                        node.restore(kind, "none", None).await;
                    }
                }
            }
        }
    }
    assert!(compared > 5_000, "{compared}");
}

/// As much may be learned by writing, and that is in the trail.
#[tokio::test]
async fn an_id_that_is_taken_is_refused_without_a_reason_and_audited() {
    let node = start().await;
    for (who, path, body) in [
        ("ANA001", "/pols/ANA001/bobs", json!({"id": "bobs"})),
        ("ANA001", "/pols/ANA001/bobs", json!({"id": "bobs", "info": "x"})),
        ("ANA001", "/encounters/bobs", json!({"person": "ANA001"})),
        ("CLE006", "/pols/ANA001/bobs", json!({"id": "bobs"})),
    ] {
        let answer = node.post(path, body).by(who).send().await;
        let text = answer.is_invalid("id").text();
        assert!(text.contains("choose another") && !text.contains("exists"), "{text}");
    }
    node.node.store.flush_notes().await.unwrap();
    let trail = node.get("/audit?verb=denied&limit=100").by("ROOT004").send().await.json();
    let entries = trail["entries"].as_array().unwrap();
    let hidden = entries.iter().filter(|entry| entry["outcome"] == "hidden");
    let count: u64 = hidden.map(|entry| entry["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 4, "{trail}");
    // One's own is told as ever, and so is a caller who may read the other one.
    node.post("/pols/ANA001/own", json!({"id": "own"}))
        .by("ANA001")
        .send()
        .await
        .is(201, &["create pols/own"]);
    let own = node.post("/pols/ANA001/own", json!({"id": "own", "info": "y"})).by("ANA001").send().await;
    own.is(422, NOTHING).has(json!({"error": "Page already exists"}));
}

/// Whatever is wrong with what would be made is said whether the id is taken or not.
#[tokio::test]
async fn a_record_that_is_too_large_does_not_tell_whether_its_id_is_taken() {
    let node = start().await;
    // A text that is taken, of a record that is not.
    let large = json!([vec![json!(1.5); 19_980], "x".repeat(900_000)]);
    for id in ["bobs", "free"] {
        for (method, path, body) in [
            ("POST", format!("/pols/ANA001/{id}"), json!({"id": id, "a": large})),
            ("POST", format!("/encounters/{id}"), json!({"person": "ANA001", "a": large})),
            ("PUT", format!("/encounters/{id}"), json!({"person": "ANA001", "a": large})),
        ] {
            let answer = node.request(method, &path).json(&body).by("ANA001").send().await;
            assert_eq!(answer.status, 413, "{method} {path}: {}", answer.text());
        }
    }
}

/// That somebody else's record was deleted under an id is for those who could have read it.
#[tokio::test]
async fn an_id_of_an_unsent_delete_is_taken_without_a_reason() {
    let node = start().await;
    let key = RecordKey::new(Kind::Page, "unsent");
    node.from_centre(Kind::Page, doc! {"_id": "unsent", "book": "BOB002"}).await;
    let deleted = node
        .node
        .store
        .unguarded()
        .transact(move |tx| -> Result<bool, StoreError> { tx.edit(&key, None, &Actor::Operator(0)) });
    deleted.await.unwrap();
    let body = json!({"id": "unsent"});
    let answer = node.post("/pols/ANA001/unsent", body).by("ANA001").send().await;
    let text = answer.is_invalid("id").text();
    assert!(text.contains("choose another"), "{text}");
    node.node.store.flush_notes().await.unwrap();
    let trail = node.get("/audit?verb=denied&limit=100").by("ROOT004").send().await.json();
    let is_told = |entry: &&Value| entry["id"] == "unsent" && entry["outcome"] == "hidden";
    assert_eq!(trail["entries"].as_array().unwrap().iter().filter(is_told).count(), 1, "{trail}");
}

/// A reason that is refused, or one too many, says nothing about what the path leads to.
#[tokio::test]
async fn an_emergency_that_is_refused_tells_nothing() {
    let node = start().await;
    let paths =
        ["/encounters/bobs", "/encounters/none", "/encounters/nobodys", "/people/BOB002", "/people/NOBODY9"];
    let refused = |reason: &'static str| {
        let node = &node;
        async move {
            let mut answers = Vec::new();
            for path in paths {
                let call = node.get(path).by("NUR005").header("x-emergency-reason", reason);
                let (status, _, text) =
                    seen(&call.send().await.is(if reason == "short" { 422 } else { 403 }, NOTHING));
                answers.push((status, text));
            }
            answers.dedup();
            assert_eq!(answers.len(), 1, "{answers:?}");
        }
    };
    refused("short").await;
    for number in 0..UNREVIEWED_EACH_MAX {
        let id = format!("PAT{number:03}");
        node.person(&id, &["end_user"]).await;
        let call =
            node.get(&format!("/people/{id}")).by("NUR005").header("x-emergency-reason", "unconscious here");
        call.send().await.is(200, NOTHING);
    }
    refused("unconscious here").await;
    // What is open stays so, whatever the header says.
    node.get("/people/PAT000")
        .by("NUR005")
        .header("x-emergency-reason", "short")
        .send()
        .await
        .is(200, NOTHING);
}

/// A page of the trash with nothing more for the caller leads to none, whatever others have deleted.
#[tokio::test]
async fn the_trash_of_others_makes_no_further_page() {
    let node = start().await;
    for (who, id) in [("BOB002", "b1"), ("ANA001", "a1"), ("ANA001", "a2"), ("BOB002", "b2")] {
        let path = format!("/pols/{who}/{id}");
        node.post(&path, json!({"id": id})).by(who).send().await;
        node.delete(&path).by(who).send().await;
    }
    let page = node.get("/trash?limit=2").by("ANA001").send().await.is(200, NOTHING);
    assert_eq!(page.json().as_array().unwrap().len(), 2);
    page.lacks_header("link");
    let first = node.get("/trash?limit=1").by("ANA001").send().await.is(200, NOTHING);
    let next = first.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    let second = node.get(&next).by("ANA001").send().await.is(200, NOTHING);
    assert_eq!(second.json()[0]["record"], "a1");
    second.lacks_header("link");
}
