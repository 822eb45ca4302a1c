//! Accounts whose records say that they are inactive: by whom, and whether that counts here.

use std::sync::Arc;

use bson::{Bson, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::active::ActiveFromCentre;
use thalamus_edge::domain::record::Kind;

use crate::support::api::{TestNode, now_ms, set_clock};
use crate::support::sim::Sim;

const PASSWORD: &str = "a horse that came from the hub";

/// A node with people who came with these values of `active`.
async fn with_people(counts: ActiveFromCentre) -> TestNode {
    let node = TestNode::start_with(|setup| setup.settings.active_from_centre = counts);
    let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
    for (id, active) in [
        ("HUB001", Some(Bson::Boolean(false))),
        ("HUB002", Some(Bson::String("false".into()))),
        ("HUB003", Some(Bson::Int32(0))),
        ("HUB004", Some(Bson::Null)),
        ("HUB005", Some(Bson::Boolean(true))),
        ("HUB006", None),
    ] {
        let mut person = doc! {"_id": id, "name": id, "password": &hash, "roles": ["end_user"]};
        if let Some(active) = active {
            person.insert("active", active);
        }
        node.from_centre(Kind::Person, person).await;
    }
    node
}

async fn who_gets_in(node: &TestNode) -> Vec<&'static str> {
    let mut let_in = Vec::new();
    for id in ["HUB001", "HUB002", "HUB003", "HUB004", "HUB005", "HUB006"] {
        let answer = node.get("/login").login(id, PASSWORD).send().await;
        if answer.status == 200 {
            let_in.push(id);
        }
    }
    let_in
}

async fn set_active(node: &TestNode, id: &str, is_active: bool) {
    let call = node.post(&format!("/users/{id}/active"), json!({"active": is_active})).by_operator();
    assert_eq!(call.send().await.status, 204);
}

/// The list of people's accounts: id, whether it is open, and what is said of one that came inactive.
async fn listed(node: &TestNode) -> Vec<(String, bool, Value, Value)> {
    let users = node.get("/users").by_operator().send().await.json();
    let shown = |user: &Value| {
        let id = user["id"].as_str().expect("an id").to_owned();
        (id, user["active"] == true, user["closed_here"].clone(), user["active_stored"].clone())
    };
    users.as_array().expect("a list").iter().map(shown).collect()
}

#[tokio::test]
async fn only_true_and_nothing_let_people_in() {
    let node = with_people(ActiveFromCentre::Honour).await;
    assert_eq!(who_gets_in(&node).await, ["HUB005", "HUB006"]);
    let row = |id: &str, is_open, closed: Value, stored: Value| (id.to_owned(), is_open, closed, stored);
    let expected = [
        row("HUB001", false, json!(false), Value::Null),
        row("HUB002", false, json!(false), json!("\"false\"")),
        row("HUB003", false, json!(false), json!("0")),
        row("HUB004", false, json!(false), json!("null")),
        row("HUB005", true, Value::Null, Value::Null),
        row("HUB006", true, Value::Null, Value::Null),
    ];
    assert_eq!(listed(&node).await, expected);
}

/// What a hub stores does not count; what is closed on this node is closed, whatever the hub had stored before.
#[tokio::test]
async fn where_the_centre_does_not_count_a_closing_here_does() {
    let node = with_people(ActiveFromCentre::Ignore).await;
    assert_eq!(who_gets_in(&node).await.len(), 6);
    let session = node.get("/people/HUB001").login("HUB001", PASSWORD);
    assert_eq!(session.send().await.status, 200);
    for id in ["HUB001", "hub002", "HUB005"] {
        set_active(&node, id, false).await;
    }
    assert_eq!(who_gets_in(&node).await, ["HUB003", "HUB004", "HUB006"]);
    let closed: Vec<_> = listed(&node).await.into_iter().filter(|(_, _, here, _)| *here == true).collect();
    assert_eq!(closed.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ["HUB001", "HUB002", "HUB005"]);
    set_active(&node, "HUB001", true).await;
    assert_eq!(who_gets_in(&node).await, ["HUB001", "HUB003", "HUB004", "HUB006"]);
    // What the centre says opens nothing that was closed here.
    let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
    for active in [true, false] {
        let person = doc! {"_id": "HUB005", "name": "HUB005", "active": active, "password": &hash, "roles": ["end_user"]};
        node.from_centre(Kind::Person, person).await;
        assert!(!who_gets_in(&node).await.contains(&"HUB005"));
    }
}

/// Who is made inactive by root was closed here: `enable --all-inactive` and the setting are about others.
#[tokio::test]
async fn who_is_made_inactive_here_is_closed_here() {
    for counts in [ActiveFromCentre::Honour, ActiveFromCentre::Ignore] {
        let node = with_people(counts).await;
        node.people().await;
        let body = |active: bool| json!({"name": "N", "password": PASSWORD, "active": active, "roles": ["end_user"]});
        node.post("/people/NEW001", body(false))
            .by("ROOT004")
            .send()
            .await
            .is(201, &["create people/NEW001"]);
        node.put_json("/people/NEW002", body(false))
            .by("ROOT004")
            .send()
            .await
            .is(201, &["create people/NEW002"]);
        node.post("/people/NEW003", body(true)).by("ROOT004").send().await.is(201, &["create people/NEW003"]);
        for (id, status) in [("NEW001", 401), ("NEW002", 401), ("NEW003", 200)] {
            assert_eq!(node.get("/login").login(id, PASSWORD).send().await.status, status, "{id} {counts:?}");
        }
        let closed: Vec<_> =
            listed(&node).await.into_iter().filter(|(_, _, here, _)| *here == true).collect();
        assert_eq!(closed.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ["NEW001", "NEW002"]);
    }
}

#[tokio::test]
async fn the_list_tells_who_became_inactive_and_when() {
    let node = with_people(ActiveFromCentre::Honour).await;
    let came_ms = now_ms();
    set_clock(came_ms + 60_000);
    let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
    let person = doc! {"_id": "HUB006", "name": "HUB006", "active": false, "password": &hash};
    node.from_centre(Kind::Person, person).await;
    let asked = async |query: &str| {
        let answer = node.get(&format!("/users?inactive=true{query}")).by_operator().send().await;
        assert_eq!(answer.status, 200);
        let shown =
            |user: &Value| (user["id"].as_str().expect("an id").to_owned(), user["became_inactive"] == true);
        answer.json().as_array().expect("a list").iter().map(shown).collect::<Vec<_>>()
    };
    let row = |id: &str, is_later: bool| (id.to_owned(), is_later);
    let all = [
        row("HUB001", false),
        row("HUB002", false),
        row("HUB003", false),
        row("HUB004", false),
        row("HUB006", true),
    ];
    assert_eq!(asked("").await, all);
    let users = node.get("/users?inactive=true").by_operator().send().await.json();
    assert!(users.as_array().expect("a list").iter().all(|user| user["came_from"] == "centre"), "{users}");
    let at = |ms: i64| {
        let moment = chrono::DateTime::from_timestamp_millis(ms).expect("a moment");
        format!("&since={}", moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
    };
    assert_eq!(asked(&at(came_ms)).await, all);
    assert_eq!(asked(&at(came_ms + 1)).await, [row("HUB006", true)]);
    assert_eq!(asked(&at(came_ms + 60_001)).await, []);
    for (query, field) in [
        ("inactive=true&since=yesterday", "since"),
        ("since=2026-11-29T00:00:00Z", "since"),
        ("inactive=no", "inactive"),
        ("inactiv=true", "inactiv"),
    ] {
        node.get(&format!("/users?{query}")).by_operator().send().await.is_invalid(field);
    }
}

/// Between the list and the change somebody may close the account here.
#[tokio::test]
async fn what_was_closed_here_meanwhile_is_not_opened() {
    let node = with_people(ActiveFromCentre::Honour).await;
    let open = async |id: &str| {
        let body = json!({"active": true, "unless_closed_here": true});
        node.post(&format!("/users/{id}/active"), body).by_operator().send().await
    };
    set_active(&node, "HUB001", false).await;
    open("hub001").await.is_invalid("active");
    assert_eq!(open("HUB002").await.status, 204);
    assert_eq!(who_gets_in(&node).await, ["HUB002", "HUB005", "HUB006"]);
}

/// What was audited of somebody's `active`, without what only reads.
async fn audited(node: &TestNode, id: &str) -> Vec<(String, String)> {
    let entries = node.get(&format!("/audit?person={id}")).by_operator().send().await.json();
    let told = |entry: &Value| (entry["who"].as_str().expect("who").to_owned(), entry["detail"].to_string());
    let entries = entries["entries"].as_array().expect("a list");
    entries.iter().filter(|entry| entry["paths"] == json!(["active"])).map(told).collect()
}

/// Root closes and opens with a change of the record, whatever a hub has stored there. Nobody closes by sending back what
/// they were shown.
#[tokio::test]
async fn a_change_that_says_no_more_than_the_hub_closes_here_if_root_makes_it() {
    let node = with_people(ActiveFromCentre::Ignore).await;
    node.people().await;
    let closed = json!({"active": false});
    for (id, says) in
        [("HUB001", json!({"active": false})), ("hub003", json!({"active": false, "phone": "1"}))]
    {
        // The person, whoever may write it whole, and root with the whole of it.
        node.patch(&format!("/people/{id}"), says.clone()).login(id, PASSWORD).send().await;
        let whole = node.get(&format!("/people/{id}")).by("ROOT004").send().await.json();
        assert_eq!(node.put_json(&format!("/people/{id}"), whole).by("ROOT004").send().await.status, 200);
        let node = &node;
        assert_eq!(node.get("/login").login(id, PASSWORD).send().await.status, 200, "{id}");
        assert_eq!(node.patch(&format!("/people/{id}"), says).by("ROOT004").send().await.status, 200);
        assert_eq!(node.get("/login").login(id, PASSWORD).send().await.status, 401, "{id}");
    }
    assert_eq!(
        audited(&node, "HUB001").await,
        [("person:ROOT004".to_owned(), "\"closed on this node\"".to_owned())]
    );
    // Twice is once.
    assert_eq!(node.patch("/people/HUB001", closed).by("ROOT004").send().await.status, 200);
    assert_eq!(audited(&node, "HUB001").await.len(), 1);
    let found = listed(&node).await.into_iter().filter(|(_, _, here, _)| *here == true);
    assert_eq!(found.map(|(id, ..)| id).collect::<Vec<_>>(), ["HUB001", "HUB003"]);
    // Another side does not open what was closed here, root does.
    let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
    let from_hub = |active: bool| {
        doc! {"_id": "HUB001", "name": "HUB001", "active": active, "password": &hash, "roles": ["end_user"]}
    };
    node.from_centre(Kind::Person, from_hub(true)).await;
    assert_eq!(node.get("/login").login("HUB001", PASSWORD).send().await.status, 401);
    assert_eq!(node.patch("/people/HUB001", json!({"active": true})).by("ROOT004").send().await.status, 200);
    node.from_centre(Kind::Person, from_hub(false)).await;
    assert_eq!(node.get("/login").login("HUB001", PASSWORD).send().await.status, 200);
    let told: Vec<_> = audited(&node, "HUB001").await.into_iter().map(|(_, detail)| detail).collect();
    assert!(told.contains(&"\"opened on this node\"".to_owned()), "{told:?}");
}

#[tokio::test]
async fn a_closing_by_the_operator_is_in_the_trail_whatever_the_record_says() {
    let node = with_people(ActiveFromCentre::Ignore).await;
    for _ in 0..2 {
        set_active(&node, "HUB001", false).await;
        set_active(&node, "HUB005", false).await;
    }
    let details = async |id: &str| -> Vec<String> {
        audited(&node, id).await.into_iter().map(|(_, detail)| detail).collect()
    };
    assert_eq!(details("HUB001").await, ["\"closed on this node\""]);
    assert_eq!(details("HUB005").await.len(), 1, "the change of the record is the entry");
}

/// A person goes only once nobody gets in with their account any more.
#[tokio::test]
async fn who_gets_in_is_not_deleted() {
    for (counts, refused) in [(ActiveFromCentre::Ignore, true), (ActiveFromCentre::Honour, false)] {
        let node = with_people(counts).await;
        node.people().await;
        let delete = async || node.delete("/people/HUB001").by("ROOT004").send().await;
        if refused {
            delete().await.is_invalid("active");
            assert!(node.stored(Kind::Person, "HUB001").is_some());
            assert_eq!(
                node.patch("/people/HUB001", json!({"active": false})).by("ROOT004").send().await.status,
                200
            );
        }
        assert_eq!(delete().await.status, 204);
        assert!(node.stored(Kind::Person, "HUB001").is_none());
    }
}

/// Two people have the account in two spellings: who closes one has not closed the other.
#[tokio::test]
async fn a_closing_is_of_one_person_and_of_no_other_spelling() {
    let node = with_people(ActiveFromCentre::Ignore).await;
    let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
    let other =
        doc! {"_id": "hub001", "name": "Another", "password": &hash, "roles": ["end_user"], "active": false};
    node.from_centre(Kind::Person, other).await;
    set_active(&node, "hub001", false).await;
    let found = async || -> Vec<String> {
        let closed = listed(&node).await.into_iter().filter(|(_, _, here, _)| *here == true);
        closed.map(|(id, ..)| id).collect()
    };
    assert_eq!(found().await, ["hub001"]);
    assert_eq!(node.get("/login").login("HUB001", PASSWORD).send().await.status, 200);
    set_active(&node, "HUB001", false).await;
    set_active(&node, "hub001", true).await;
    assert_eq!(found().await, ["HUB001"]);
}

/// A person who can log in here is not deleted, however that is decided. One who cannot may go, whatever the record says.
#[tokio::test]
async fn a_decision_deletes_nobody_who_logs_in_here() {
    for (counts, logs_in) in [(ActiveFromCentre::Ignore, true), (ActiveFromCentre::Honour, false)] {
        let sim = Sim::default();
        let hub = Arc::new(sim.clone());
        let node = TestNode::start_with(|setup| {
            setup.settings.active_from_centre = counts;
            setup.hub = Some(hub);
        });
        let round = async || {
            let report = node.post("/sync/rounds", json!({})).by_operator().send().await.json();
            assert_eq!(report["outcome"], "complete", "{report}");
        };
        let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
        let person =
            doc! {"_id": "HUB001", "name": "Hub", "password": hash, "roles": ["end_user"], "active": false};
        sim.put(Kind::Person, person);
        node.person("ROOT004", &["root"]).await;
        round().await;
        let change = node.patch("/people/HUB001", json!({"note": "edited here"})).by("ROOT004").send().await;
        assert_eq!(change.status, 200);
        sim.remove(Kind::Person, "HUB001");
        round().await;
        let open = node.get("/sync/conflicts?status=open").by_operator().send().await.json();
        let id = open[0]["id"].as_str().expect("a conflict").to_owned();
        let mut row = sim.row("edge_conflicts", &id).expect("a row");
        row.extend(doc! {"status": "resolved", "resolution": "central", "resolved_by": "office"});
        sim.set_row("edge_conflicts", row);
        round().await;
        let login = node.get("/login").login("HUB001", PASSWORD).send().await.status;
        let is_there = node.stored(Kind::Person, "HUB001").is_some();
        assert_eq!((login == 200, is_there), (logs_in, logs_in), "{counts:?}");
    }
}

/// Somebody is deleted at the centre and has records that were never sent, so they stay until that is decided: nobody gets in as
/// them meanwhile, whatever `active` counts.
#[tokio::test]
async fn who_is_deleted_at_the_centre_logs_in_no_more_while_their_records_wait() {
    for counts in [ActiveFromCentre::Ignore, ActiveFromCentre::Honour] {
        let (node, sim) = TestNode::with_centre(|setup| setup.settings.active_from_centre = counts).await;
        let round = async || {
            let report = node.post("/sync/rounds", json!({})).by_operator().send().await.json();
            assert_eq!(report["outcome"], "complete", "{report}");
        };
        let login = async || node.get("/login").by("ANA001").send().await.status;
        round().await;
        let count = || node.node.store.read().unwrap().rights_count(&Actor::Person("ANA001".to_owned()));
        node.record(Kind::Page, doc! {"_id": "p1", "book": "ANA001"}).await;
        assert_eq!(login().await, 200);
        let before = count().unwrap();
        sim.remove(Kind::Person, "ANA001");
        round().await;
        assert!(node.stored(Kind::Person, "ANA001").is_some());
        assert_eq!(login().await, 401, "{counts:?}");
        assert!(count().unwrap() > before, "sessions end");
        let users = node.get("/users").by_operator().send().await.json();
        let user = users.as_array().unwrap().iter().find(|user| user["id"] == "ANA001").unwrap();
        assert_eq!((&user["active"], &user["deleted_at_centre"]), (&json!(false), &json!(true)));
        assert!(user.get("closed_here").is_none() && user.get("opened_elsewhere").is_none(), "{user}");
        let inactive = node.get("/users?inactive=true").by_operator().send().await.json();
        assert!(!inactive.as_array().unwrap().iter().any(|user| user["id"] == "ANA001"), "{inactive}");
        // A word opens it no more than it closed it.
        let opening = node.post("/users/ANA001/active", json!({"active": true})).by_operator().send().await;
        opening.is_invalid("active");
        assert_eq!(login().await, 401, "{counts:?}");
        let open = node.get("/sync/conflicts?status=open").by_operator().send().await.json();
        let id = open[0]["id"].as_str().expect("a conflict").to_owned();
        let shown = node.get(&format!("/sync/conflicts/{id}")).by_operator().send().await;
        let decision = node.post(&format!("/sync/conflicts/{id}/resolution"), json!({"take": "local"}));
        let decision = decision.by_operator().header("if-match", shown.header("etag"));
        assert_eq!(decision.send().await.status, 200);
        assert_eq!(login().await, 200, "{counts:?}");
        round().await;
        assert!(sim.get(Kind::Person, "ANA001").is_some() && sim.get(Kind::Page, "p1").is_some());
    }
}

/// Where the centre's `active` counts, it opens what a change had closed. It was never told of a closing that found the record
/// inactive already, so nobody there can have meant to open that.
#[tokio::test]
async fn what_was_closed_here_without_a_change_is_opened_here_only() {
    for counts in [ActiveFromCentre::Honour, ActiveFromCentre::Ignore] {
        let node = with_people(counts).await;
        node.people().await;
        let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
        let from_centre = async |id: &str| {
            let person =
                doc! {"_id": id, "name": id, "active": true, "password": &hash, "roles": ["end_user"]};
            node.from_centre(Kind::Person, person).await;
        };
        let logs_in = async |id: &str| node.get("/login").login(id, PASSWORD).send().await.status == 200;
        // The operator, and root by a change that says what the record says.
        set_active(&node, "HUB001", false).await;
        let closed = node.patch("/people/HUB002", json!({"active": false})).by("ROOT004").send().await;
        assert_eq!(closed.status, 200);
        set_active(&node, "HUB003", false).await;
        // Closed by a change, which travels.
        set_active(&node, "HUB005", false).await;
        for id in ["HUB001", "HUB003", "HUB004", "HUB005"] {
            from_centre(id).await;
        }
        assert!(!logs_in("HUB001").await && !logs_in("HUB003").await, "{counts:?}");
        assert!(logs_in("HUB004").await, "{counts:?}: nobody had closed it here");
        assert_eq!(logs_in("HUB005").await, counts == ActiveFromCentre::Honour);
        // It is said, also where only those are listed who are closed.
        for query in ["", "?inactive=true"] {
            let users = node.get(&format!("/users{query}")).by_operator().send().await.json();
            let users = users.as_array().expect("a list");
            let shown = users.iter().find(|user| user["id"] == "HUB001").expect("listed");
            let told = [&shown["active"], &shown["closed_here"], &shown["opened_elsewhere"]];
            assert_eq!(told, [&json!(false), &json!(true), &json!(true)], "{query}");
        }
        // An edit of something else opens nothing; who opens it here does.
        let edit = node.patch("/people/HUB001", json!({"phone": "1"})).by("ROOT004").send().await;
        assert_eq!(edit.status, 200);
        assert!(!logs_in("HUB001").await);
        set_active(&node, "HUB001", true).await;
        let opened = node.patch("/people/HUB003", json!({"active": true})).by("ROOT004").send().await;
        assert_eq!(opened.status, 200);
        assert!(logs_in("HUB001").await && logs_in("HUB003").await);
        let users = node.get("/users").by_operator().send().await.json();
        assert!(
            users
                .as_array()
                .expect("a list")
                .iter()
                .all(|user| user["opened_elsewhere"] != true || user["id"] == "HUB005")
        );
    }
}
