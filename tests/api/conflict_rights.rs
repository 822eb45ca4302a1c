//! What waits for a decision, seen by accounts that do not read everybody: their own, another one's, and what is not there.

use std::sync::Arc;

use bson::{Bson, doc};
use serde_json::json;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Conflict, DeadLetter, StoreError, Tx};

use crate::support::api::{Answer, NOTHING, TestNode, person, seen};
use crate::support::disk::Disk;
use crate::support::sim::Sim;

/// A patient who decides about their own records, and a technician who reads nobody's.
const ROLES: &str = r#"[
    {"role": "end_user", "permissions": {
        "GET": ["person", "event", "page", "sync", "conflicts", "changes"],
        "POST": ["event", "page", "sync", "conflicts"], "PATCH": ["person", "event", "page"],
        "DELETE": ["person", "event"]}},
    {"role": "technician", "permissions": {
        "GET": ["sync", "conflicts", "page"], "POST": ["sync", "conflicts"], "global": true}},
    {"role": "root", "permissions": {
        "GET": ["sync", "conflicts", "person", "event"], "POST": ["sync", "conflicts"],
        "PATCH": ["person"], "DELETE": ["person"], "global": true}}]"#;

const HIDDEN: &str = "words of another";

fn node_on(disk: Option<Disk>, hub: Option<Sim>) -> TestNode {
    TestNode::start_with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.disk = disk;
        if let Some(sim) = hub {
            setup.hub = Some(Arc::new(sim));
        }
    })
}

async fn start(disk: Option<Disk>, hub: Option<Sim>) -> TestNode {
    let node = node_on(disk, hub);
    for (id, role) in
        [("ANA001", "end_user"), ("BOB002", "end_user"), ("TEC003", "technician"), ("ROOT004", "root")]
    {
        node.person(id, &[role]).await;
    }
    for (id, owner) in [("hers", "ANA001"), ("his", "BOB002"), ("given", "ANA001")] {
        node.record(Kind::Event, doc! {"_id": id, "person": owner, "info": HIDDEN}).await;
    }
    node
}

async fn run(node: &TestNode, job: impl FnMut(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static) {
    node.node.store.unguarded().transact(job).await.unwrap();
}

/// A conflict where the value of this node stands; gives its id.
async fn clash(node: &TestNode, kind: Kind, id: &str, path: &str, local: Bson, central: Bson) -> String {
    let before = node.node.store.read().unwrap().conflict_ids(None).unwrap();
    let key = RecordKey::new(kind, id);
    let clash = Clash {
        path: vec![path.to_owned()],
        base: None,
        local: Some(local),
        remote: Some(central),
        stands: Side::Local,
    };
    run(node, move |tx| tx.add_conflict(&key, &clash, None)).await;
    let mut after = node.node.store.read().unwrap().conflict_ids(None).unwrap();
    after.retain(|id| !before.contains(id));
    after.remove(0)
}

fn ids(list: &Answer) -> Vec<String> {
    list.json().as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// What `who` gets on every path for everything: lists, counts, the feed.
async fn lists(node: &TestNode, who: &str) -> Vec<(u16, Vec<(String, String)>, String)> {
    let mut answers = Vec::new();
    for path in [
        "/sync/conflicts",
        "/sync/conflicts?status=open",
        "/sync/conflicts?limit=1",
        "/sync/conflicts?path=info",
        "/sync/conflicts?path=person",
        "/sync/conflicts?collection=people",
        "/sync/status",
        "/sync/dead",
        "/sync/waiting",
    ] {
        answers.push(seen(&node.get(path).by(who).send().await));
    }
    answers
}

/// What `who` gets for one conflict, in all ways to see it and to decide it.
async fn answers(node: &TestNode, who: &str, id: &str) -> Vec<(u16, Vec<(String, String)>, String)> {
    let mut answers = Vec::new();
    let one = format!("/sync/conflicts/{id}");
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        answers.push(seen(&node.request(method, &one).by(who).send().await));
    }
    for end in ["resolution", "resolution/trial"] {
        for body in [
            "",
            "no JSON",
            "{}",
            r#"{"take": "local"}"#,
            r#"{"take": "central"}"#,
            r#"{"take": "new_id"}"#,
            r#"{"value": 7}"#,
            r#"{"value": 7, "seen": null}"#,
            r#"{"decide": "same"}"#,
            r#"{"decide": "new_id", "id": "NEW001"}"#,
            r#"{"dry_run": true}"#,
        ] {
            for tag in ["\"x\"", "*"] {
                let call = node.post(&format!("{one}/{end}"), json!({})).by(who).header("if-match", tag);
                let answer = call.bytes(body.to_owned()).send().await;
                assert_eq!(answer.changes, [""; 0], "{id} {end} {body}");
                answers.push(seen(&answer));
            }
        }
    }
    for side in ["local", "central"] {
        let decisions = json!({"decisions": [{"id": id, "etag": "\"x\"", "take": side}]});
        let answer = node.post("/sync/conflicts/trial", decisions).by(who).send().await.is(200, NOTHING);
        // Its length is that of the id.
        answers.push((answer.status, Vec::new(), answer.text()));
    }
    answers
}

/// Own, another one's, absent: over every path.
#[tokio::test]
async fn only_what_one_may_read_oneself_is_known_and_decided() {
    let node = start(None, None).await;
    let bare = lists(&node, "ANA001").await;
    let absent = answers(&node, "ANA001", "none").await;
    let his = clash(&node, Kind::Event, "his", "info", HIDDEN.into(), "there".into()).await;
    let of_person = clash(&node, Kind::Person, "BOB002", "note", 1.into(), 2.into()).await;
    // The centre gives her event to Bob: that he has to do with it is not for her.
    let given = clash(&node, Kind::Event, "given", "person", "ANA001".into(), "BOB002".into()).await;
    run(&node, |tx| {
        let local = doc! {"_id": "ANA001", "name": "Ana"};
        let key = RecordKey::new(Kind::Person, "ANA001");
        let two = Conflict::about_record("two".to_owned(), &key, &local, None, String::new(), 0);
        tx.open_conflict(two)?;
        tx.put_dead(&DeadLetter {
            key: RecordKey::new(Kind::Event, "his"),
            direction: "push",
            code: 121,
            reason: HIDDEN.to_owned(),
            at_ms: 0,
        })
    })
    .await;
    let hidden = [his.as_str(), of_person.as_str(), given.as_str(), "two"];
    for id in hidden {
        let found = answers(&node, "ANA001", id).await;
        for (number, (found, absent)) in found.iter().zip(&absent).enumerate() {
            let named = (found.0, found.1.clone(), found.2.replace(id, "none"));
            assert_eq!(&named, absent, "{id} {number}");
        }
    }
    assert_eq!(lists(&node, "ANA001").await, bare);
    // Her own is all hers.
    let hers = clash(&node, Kind::Event, "hers", "info", HIDDEN.into(), "there".into()).await;
    let list = node.get("/sync/conflicts").by("ANA001").send().await.is(200, NOTHING);
    assert_eq!(ids(&list), [hers.as_str()]);
    let status = node.get("/sync/status").by("ANA001").send().await.is(200, NOTHING).json();
    assert_eq!(status["conflicts_open"], 1);
    assert!(status.get("dead").is_none() && status.get("message").is_none(), "{status}");
    let whole = node.get("/sync/status").by("ROOT004").send().await.is(200, NOTHING).json();
    assert_eq!((&whole["conflicts_open"], &whole["dead"]), (&json!(5), &json!(1)));
    let report = node.post("/sync/rounds", json!({})).by("ANA001").send().await.is(200, NOTHING).json();
    assert!(report.get("message").is_none() && report.get("dead").is_none(), "{report}");
    let path = format!("/sync/conflicts/{hers}/resolution");
    node.post(&format!("{path}/trial"), json!({"take": "central"}))
        .by("ANA001")
        .send()
        .await
        .is(204, NOTHING);
    let decided = node.post(&path, json!({"take": "central"})).by("ANA001").send().await;
    decided.is(200, &["update event/hers"]).has(json!({"status": "resolved"}));
    // What she decides changes nothing of his.
    assert_eq!(node.stored(Kind::Event, "his").unwrap().get("info"), Some(&HIDDEN.into()));
}

/// Many decisions are tried by one request, of which the trail says the same as of a request for each.
#[tokio::test]
async fn many_trials_are_bounded_and_leave_a_note_of_what_is_hidden() {
    let node = start(None, None).await;
    let his = clash(&node, Kind::Event, "his", "info", HIDDEN.into(), "there".into()).await;
    let large = "x".repeat(700 << 10);
    let mut hers = Vec::new();
    for field in ["a", "b"] {
        hers.push(clash(&node, Kind::Event, "hers", field, large.as_str().into(), 1.into()).await);
    }
    let trial = async |ids: &[&str]| {
        let one = |id: &&str| json!({"id": id, "etag": "\"x\"", "take": "central"});
        let body = json!({"decisions": ids.iter().map(one).collect::<Vec<_>>()});
        node.post("/sync/conflicts/trial", body).by("ANA001").send().await
    };
    trial(&[&hers[0], &hers[0]]).await.is_invalid("decisions");
    // What is behind too many bytes is not tried.
    let statuses = |answer: &Answer| -> Vec<u64> {
        let outcomes = answer.json()["outcomes"].as_array().unwrap().clone();
        outcomes.iter().map(|outcome| outcome["status"].as_u64().unwrap()).collect()
    };
    assert_eq!(statuses(&trial(&[&hers[0], &hers[1], "none"]).await), [409]);
    assert_eq!(statuses(&trial(&["none", &hers[1], &his]).await), [404, 409, 404]);
    let trail = node.get("/audit?verb=denied").by_operator().send().await.json();
    let entries = trail["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{trail}");
    let text = entries[0].to_string();
    assert!(text.contains(&his) && text.contains("POST /sync/conflicts/trial, 1 of them"), "{text}");
}

/// Refused records are listed without their bodies, for those who look after the node; what a decision about one changes needs
/// the right to that.
#[tokio::test]
async fn who_looks_after_the_node_sees_which_records_are_refused() {
    let node = start(None, None).await;
    let letter = DeadLetter {
        key: RecordKey::new(Kind::Event, "his"),
        direction: "push",
        code: 121,
        reason: "the centre has said why".to_owned(),
        at_ms: 0,
    };
    run(&node, move |tx| tx.put_dead(&letter)).await;
    let list = node.get("/sync/dead").by("TEC003").send().await.is(200, NOTHING);
    assert_eq!(list.json()[0]["id"], "event:his");
    node.post("/sync/dead/event:his/discard", json!({})).by("TEC003").send().await.is(403, NOTHING);
    node.post("/sync/dead/event:his/retry", json!({})).by("TEC003").send().await.is(204, NOTHING);
}

/// That a row of another one's conflict is damaged is told to nobody else, and none is read for a list.
#[tokio::test]
async fn damage_in_conflicts_of_others_is_not_counted() {
    let disk = Disk::default();
    let node = start(Some(disk.clone()), None).await;
    clash(&node, Kind::Event, "his", "info", "rots away".into(), "there".into()).await;
    let hers = clash(&node, Kind::Event, "hers", "info", "stays".into(), "there".into()).await;
    drop(node);
    assert!(disk.damage("rots away") >= 1);
    let node = node_on(Some(disk), None);
    let list = node.get("/sync/conflicts").by("ANA001").send().await.is(200, NOTHING);
    assert_eq!(ids(&list), [hers.as_str()]);
    list.lacks_header("x-damaged");
    assert_eq!(node.node.store.unguarded().damaged_rows(), [], "nobody has looked at the row");
    let all = node.get("/sync/conflicts").by("ROOT004").send().await.is(200, NOTHING);
    assert_eq!(all.header("x-damaged"), "1");
    // Neither after somebody has found it.
    for path in ["/sync/conflicts", "/sync/conflicts?limit=5"] {
        node.get(path).by("ANA001").send().await.is(200, NOTHING).lacks_header("x-damaged");
        assert_eq!(node.get(path).by("BOB002").send().await.header("x-damaged"), "1", "it is his");
    }
}

/// Another person has the account at the centre: she learns neither that, nor under which number it is decided.
#[tokio::test]
async fn a_question_about_two_people_is_not_named_to_one_of_them() {
    let sim = Sim::default();
    let node = start(None, Some(sim.clone())).await;
    let mut other = person("ANA001", &["end_user"]);
    other.extend(doc! {"name": "Beatriz", "lastname": "Cordara", "dob": "1984-10-05"});
    sim.put(Kind::Person, other);
    let report = node.post("/sync/rounds", json!({})).by_operator().send().await.json();
    assert_eq!(report["outcome"], "complete", "{report}");
    let open = node.get("/sync/conflicts?status=open").by_operator().send().await.json();
    let id = open[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(open[0]["type"], "identity");
    let refused = node.delete("/people/ANA001").by("ANA001").send().await.is(409, NOTHING);
    assert!(
        !refused.text().contains(&id) && !refused.text().contains("Another person"),
        "{}",
        refused.text()
    );
    let told = node.delete("/people/ANA001").by("ROOT004").send().await.is(409, NOTHING);
    told.has(json!({"code": "decision_pending", "conflict": id}));
    node.get(&format!("/sync/conflicts/{id}")).by("ANA001").send().await.is(404, NOTHING);
    assert_eq!(
        node.get("/sync/status").by("ANA001").send().await.json()["conflicts_open"],
        0,
        "it is about somebody else"
    );
}
