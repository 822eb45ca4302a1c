//! One-time links that set a password.

use std::time::Duration;

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::access::{Acl, Actor};
use thalamus_edge::domain::audit::{Outcome, What};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{AuditQuery, StoreError};

use crate::support::api::{Answer, NOTHING, PASSWORD, PASSWORD_HASH, TestNode, pass_time, person};

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

/// A link that has fallen into wrong hands ends with the password that it was to replace, and with an account that is
/// closed, though it be opened again.
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
    node.get(&path).send().await.is(401, NOTHING);
    let path = made(&node, "ANA001").await;
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

/// How an administrator loses the right to make links.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Closed,
    Deleted,
    Password,
    Role,
    Rules,
}

impl Loss {
    const ALL: [Loss; 5] = [Loss::Closed, Loss::Deleted, Loss::Password, Loss::Role, Loss::Rules];

    async fn befall(self, node: &TestNode, maker: &str) {
        let (end, body) = match self {
            Loss::Closed => ("/active", json!({"active": false})),
            Loss::Password => ("/password", json!({"password": "reset by the operator"})),
            Loss::Role => ("", json!({"roles": ["end_user"]})),
            Loss::Deleted => {
                match maker.strip_suffix("@local") {
                    None => node.restore(Kind::Person, maker, None).await,
                    Some(name) => {
                        let name = name.to_owned();
                        let gone =
                            node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
                                tx.set_local_account(&name, None, &Actor::Operator(0))
                            });
                        gone.await.unwrap();
                    }
                }
                return;
            }
            Loss::Rules => {
                let rules =
                    r#"[{"role": "root", "permissions": {"GET": ["login", "users"], "global": true}}]"#;
                let (rules, _) = Acl::parse(rules).unwrap();
                node.node.replace_rules(rules).await.unwrap();
                return;
            }
        };
        let lost = node.post(&format!("/users/{maker}{end}"), body).by_operator().send().await;
        assert!(lost.status < 300, "{self:?}: {}", lost.text());
    }

    /// The administrator is again what they were.
    async fn make_good(self, node: &TestNode, maker: &str) {
        match self {
            Loss::Rules => node.node.replace_rules(Acl::built_in()).await.unwrap(),
            Loss::Closed => {
                let open = node.post(&format!("/users/{maker}/active"), json!({"active": true}));
                assert_eq!(open.by_operator().send().await.status, 204);
            }
            Loss::Role | Loss::Password | Loss::Deleted => {
                let account = doc! {"password": PASSWORD_HASH.as_str(), "roles": ["root"]};
                match maker.strip_suffix("@local") {
                    None => {
                        node.restore(Kind::Person, maker, Some(person(maker, &["root"]))).await;
                        let roles = json!({"roles": ["root"]});
                        let given = node.post(&format!("/users/{maker}"), roles).by_operator().send().await;
                        assert_eq!(given.status, 200);
                    }
                    Some(name) => {
                        let name = name.to_owned();
                        let set = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
                            tx.set_local_account(&name, Some(&account), &Actor::Operator(0))
                        });
                        set.await.unwrap();
                    }
                }
            }
        }
    }
}

/// The right to set a password lasts no longer than the right to hand it on: an administrator who is sent away has no way
/// back by links that they made before, to whichever account.
#[tokio::test]
async fn a_link_ends_with_the_right_of_its_maker() {
    for maker in ["BOSS09", "boss09@local"] {
        for loss in Loss::ALL {
            let node = TestNode::with_people().await;
            node.person("BOSS09", &["root"]).await;
            for name in ["boss09", "fred"] {
                let account = doc! {"password": PASSWORD_HASH.as_str(), "roles": ["root"]};
                let set = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
                    tx.set_local_account(name, Some(&account), &Actor::Operator(0))
                });
                set.await.unwrap();
            }
            let by_operator = made(&node, "BOB002").await;
            let mut links = Vec::new();
            for account in ["ROOT004", "fred@local", "ANA001"] {
                let call = node.post(&format!("/users/{account}/link"), json!({})).login(maker, PASSWORD);
                let path = call.send().await.is(201, NOTHING).json()["path"].as_str().unwrap().to_owned();
                links.push((account, path));
            }
            for (account, is_local) in [("new@local", true), ("NEW777", false)] {
                let new = json!({"roles": ["root"], "local": is_local, "link": true});
                let name = account.trim_end_matches("@local");
                let call = node.post(&format!("/users/{name}"), new).login(maker, PASSWORD).send().await;
                assert_eq!(call.status, 201, "{}", call.text());
                links.push((account, call.json()["link"]["path"].as_str().unwrap().to_owned()));
            }
            for (_, path) in &links {
                node.get(path).send().await.is(200, NOTHING);
            }
            loss.befall(&node, maker).await;
            let expected = node.get("/nowhere").send().await.is(401, NOTHING);
            for (account, path) in &links {
                let answer = node.get(path).send().await.is(401, NOTHING);
                assert_eq!(answer.json(), expected.json(), "{maker} {loss:?} {account}");
                submit(&node, path, "taken+over+long", "taken+over+long").await.is(401, NOTHING);
            }
            loss.make_good(&node, maker).await;
            for (account, path) in &links {
                let answer = node.get(path).send().await.is(401, NOTHING);
                assert_eq!(answer.json(), expected.json(), "{maker} {loss:?} made good: {account}");
            }
            let store = node.node.store.unguarded();
            store.flush_notes().await.unwrap();
            let query = AuditQuery {
                verb: Some(What::LoginFailed.name().to_owned()),
                limit: usize::MAX,
                ..AuditQuery::default()
            };
            let rows = store.read().unwrap().audit(&query).unwrap().rows.into_iter().map(Result::unwrap);
            let told = rows.filter(|row| row.event.outcome == Outcome::Stale.name()).count();
            assert_eq!(told, links.len(), "one entry for each account");
            submit(&node, &by_operator, "one+cradle", "one+cradle").await.is(200, &["update people/BOB002"]);
        }
    }
}

/// A maker who is what they were is no obstacle, though they have logged off or come from elsewhere.
#[tokio::test]
async fn a_link_does_not_depend_on_a_session() {
    let node = TestNode::with_people().await;
    let form = format!("account=ROOT004&password={}", PASSWORD.replace(' ', "+"));
    let answer = node.request("POST", "/session").bytes(form).send().await.is(303, NOTHING);
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let page = node.get("/session").header("cookie", &cookie).send().await;
    let token = page.header("x-csrf-token").to_owned();
    let call = node.post("/users/ANA001/link", json!({})).header("cookie", &cookie);
    let call = call.header("x-csrf-token", &token).send().await.is(201, NOTHING);
    let path = call.json()["path"].as_str().unwrap().to_owned();
    let end = node.request("DELETE", "/session").header("cookie", &cookie).header("x-csrf-token", &token);
    end.send().await.is(204, NOTHING);
    submit(&node, &path, "one+cradle", "one+cradle").await.is(200, &["update people/ANA001"]);
}
