//! One-time links that set a password.

use std::time::Duration;

use serde_json::json;
use thalamus_edge::domain::record::Kind;

use crate::support::api::{Answer, NOTHING, TestNode, pass_time};

async fn made(node: &TestNode, account: &str) -> String {
    let made = node.post(&format!("/users/{account}/link"), json!({})).by_operator().send().await;
    made.is(201, NOTHING).json()["path"].as_str().unwrap().to_owned()
}

async fn submit(node: &TestNode, path: &str, password: &str, again: &str) -> Answer {
    let call = node.request("POST", path).header("content-type", "application/x-www-form-urlencoded");
    call.bytes(format!("password={password}&again={again}")).send().await
}

#[tokio::test]
async fn a_link_sets_a_password_once() {
    let node = TestNode::with_people().await;
    let path = made(&node, "ana001").await;
    let page = node.get(&path).send().await.is(200, NOTHING);
    assert!(page.text().contains("Password of ANA001") && !page.text().contains("name=\"current\""));
    assert!(page.header("content-security-policy").contains("form-action 'self'"));
    for (password, again, reason) in
        [("one+cradle", "other+cradle", "differ"), ("short", "short", "at least 8"), ("", "", "at least 8")]
    {
        let refused = submit(&node, &path, password, again).await.is(422, NOTHING);
        assert!(refused.text().contains(reason), "{}", refused.text());
    }
    let set = submit(&node, &path, "one+cradle", "one+cradle").await.is(200, &["update people/ANA001"]);
    assert!(set.text().contains("cannot be used again"));
    node.get("/login").login("ANA001", "one cradle").send().await.is(200, NOTHING);
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    submit(&node, &path, "other+cradle", "other+cradle").await.is(401, NOTHING);
    node.get("/login").login("ANA001", "one cradle").send().await.is(200, NOTHING);
}

/// What is no link, is used or too old cannot be told from any path without login.
#[tokio::test]
async fn links_that_lead_nowhere_look_like_everything_else() {
    let node = TestNode::with_people().await;
    let expected = node.get("/nowhere").send().await.is(401, NOTHING);
    let replaced = made(&node, "ANA001").await;
    let late = made(&node, "ANA001").await;
    node.get(&late).send().await.is(200, NOTHING);
    pass_time(Duration::from_secs(24 * 60 * 60 + 1));
    for path in [&late, &replaced, "/link/", "/link/x", "/link/x/y", &format!("/link/{}", "A".repeat(43))] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
            let answer = node.request(method, path).send().await.is(401, NOTHING);
            if method != "HEAD" {
                assert_eq!(answer.json(), expected.json(), "{method} {path}");
            }
            assert_eq!(answer.header("www-authenticate"), expected.header("www-authenticate"));
        }
    }
}

/// A link that has fallen into wrong hands ends with the password that it was to replace, and is of no use for an
/// account that is closed.
#[tokio::test]
async fn a_link_ends_with_the_password_that_it_replaces() {
    let node = TestNode::with_people().await;
    let path = made(&node, "ANA001").await;
    let active = async |is_active: bool| {
        let call = node.post("/users/ANA001/active", json!({"active": is_active})).by_operator();
        call.send().await.is(204, &["update people/ANA001"]);
    };
    active(false).await;
    node.get(&path).send().await.is(401, NOTHING);
    submit(&node, &path, "one+cradle", "one+cradle").await.is(401, NOTHING);
    active(true).await;
    node.get(&path).send().await.is(200, NOTHING);
    let patch = node.patch("/people/ANA001", json!({"password": "another cradle"})).by("ROOT004");
    patch.send().await.is(200, &["update people/ANA001"]);
    node.get(&path).send().await.is(401, NOTHING);
    submit(&node, &path, "one+cradle", "one+cradle").await.is(401, NOTHING);
    node.get("/login").login("ANA001", "another cradle").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn only_those_who_administer_make_links_and_close_accounts() {
    let node = TestNode::with_people().await;
    for who in ["ANA001", "DOC003"] {
        node.post("/users/ROOT004/link", json!({})).by(who).send().await.is(403, NOTHING);
        node.post("/users/ROOT004/active", json!({"active": false})).by(who).send().await.is(403, NOTHING);
    }
    node.post("/users/NOBODY9/link", json!({})).by_operator().send().await.is(404, NOTHING);
    node.post("/users/NOBODY9/active", json!({"active": false})).by_operator().send().await.is(404, NOTHING);
    node.post("/users/ANA001/active", json!({"active": 1})).by_operator().send().await.is_invalid("active");
    let close = node.post("/users/ana001/active", json!({"active": false})).by_operator();
    close.send().await.is(204, &["update people/ANA001"]);
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    // A link sets no password of an account that is gone.
    let path = made(&node, "BOB002").await;
    node.restore(Kind::Person, "BOB002", None).await;
    submit(&node, &path, "one+cradle", "one+cradle").await.is(401, NOTHING);
}

/// A form of another site cannot use a link that its visitor holds.
#[tokio::test]
async fn other_sites_cannot_post_to_a_link() {
    let node = TestNode::with_people().await;
    let path = made(&node, "ANA001").await;
    let call = node.request("POST", &path).header("origin", "https://elsewhere.example");
    call.bytes("password=one+cradle&again=one+cradle").send().await.is(403, NOTHING);
}

/// Another user of the machine who got hold of the node's own socket is no peer at all.
#[tokio::test]
async fn who_comes_from_nowhere_is_not_let_in_by_a_link_either() {
    let node = TestNode::with_people().await;
    let path = made(&node, "ANA001").await;
    let expected = node.get("/nowhere").send().await.is(401, NOTHING);
    for path in [path.as_str(), "/link/x", "/session"] {
        for method in ["GET", "HEAD", "POST"] {
            let call = node.request(method, path).from_nowhere();
            let answer = call.bytes("password=one+cradle&again=one+cradle").send().await.is(401, NOTHING);
            if method != "HEAD" {
                assert_eq!(answer.json(), expected.json(), "{method} {path}");
            }
        }
    }
    submit(&node, &path, "one+cradle", "one+cradle").await.is(200, &["update people/ANA001"]);
}
