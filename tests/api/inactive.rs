//! Accounts whose records say that they are inactive: by whom, and whether that counts here.

use bson::{Bson, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::active::ActiveFromCentre;
use thalamus_edge::domain::record::Kind;

use crate::support::api::TestNode;

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
    // Opened at the centre, and made inactive there again by the hub.
    for active in [true, false] {
        node.from_centre(Kind::Person, doc! {"_id": "HUB005", "name": "HUB005", "active": active}).await;
    }
    assert_eq!(listed(&node).await.len(), 5, "without a password it is no account");
}

#[tokio::test]
async fn the_list_tells_who_became_inactive_lately() {
    let node = with_people(ActiveFromCentre::Honour).await;
    let since = async |moment: &str| {
        let answer = node.get(&format!("/users?inactive_since={moment}")).by_operator().send().await;
        assert_eq!(answer.status, 200);
        let ids = answer
            .json()
            .as_array()
            .expect("a list")
            .iter()
            .map(|user| user["id"].to_string())
            .collect::<Vec<_>>();
        ids.len()
    };
    assert_eq!(since("1970-01-01T00:00:00Z").await, 4);
    assert_eq!(since("2999-01-01T00:00:00%2B02:00").await, 0);
    for query in ["inactive_since=yesterday", "since=2026-11-29T00:00:00Z", "inactive_since="] {
        node.get(&format!("/users?{query}"))
            .by_operator()
            .send()
            .await
            .is_invalid(query.split('=').next().expect("a name"));
    }
}
