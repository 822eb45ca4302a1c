//! Names are not identities: people come from the centre with any id that it holds, and are never taken for anybody
//! else, whatever their id reads like.

use std::net::IpAddr;
use std::time::Duration;

use bson::doc;
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use thalamus_edge::domain::audit::{Entry, Verifier};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{AuditQuery, StoreError};

use crate::support::api::{NOTHING, PASSWORD, TestNode, person};

/// As somebody with write access to the centre might name a person.
const STRANGE: &[&str] = &[
    "operator(uid 0)",
    "operator:0",
    "boss@local",
    "BOSS@LOCAL",
    "local:boss",
    "person:ROOT004",
    "node:clinic",
    "nobody:",
    "-",
    "*",
    "Ñandú",
    " ROOT004",
    "ROOT004 ",
    "AB",
    "ROOT_004",
];
/// These are accounts, if strange ones: they read like actors and are none.
const PLAIN: &[&str] = &["CENTRE", "node", "Nobody"];

fn encoded(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}

/// A node with everybody above, who have every role there is and [`PASSWORD`], and a technician `boss`.
async fn start() -> TestNode {
    let node = TestNode::start_with(|setup| {
        setup.settings.emergency_access = true;
        setup.settings.central_roles = vec!["end_user".into(), "root".into(), "nurse".into()];
        setup.roles = setup.roles.replacen(
            '[',
            r#"[{"role": "nurse", "permissions": {"GET": ["person"], "emergency": true}},"#,
            1,
        );
    });
    node.person("ANA001", &["end_user"]).await;
    node.person("ROOT004", &["root"]).await;
    for id in STRANGE.iter().chain(PLAIN) {
        node.from_centre(Kind::Person, person(id, &["root", "end_user"])).await;
    }
    let boss = json!({"roles": ["end_user"], "local": true, "password": "the technician is another"});
    node.post("/users/boss", boss).by_operator().send().await.is(201, NOTHING);
    node
}

async fn trail(node: &TestNode, query: &str) -> Vec<Value> {
    let answer = node.get(&format!("/audit?limit=1000&{query}")).by_operator().send().await.is(200, NOTHING);
    answer.json()["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn who_has_no_account_is_served_and_listed_and_does_not_log_in() {
    let node = start().await;
    node.from_centre(Kind::Page, doc! {"_id": "p1", "book": "operator(uid 0)"}).await;
    let listed = node.get("/people").by("ROOT004").send().await.is(200, NOTHING).ids();
    let mut strangers = 0;
    let users = node.get("/users").by_operator().send().await.is(200, NOTHING).json();
    for id in STRANGE {
        // From addresses of their own, so that none has to wait.
        strangers += 2;
        let (one, other) =
            (IpAddr::from([198, 51, 100, strangers]), IpAddr::from([198, 51, 100, strangers + 1]));
        node.get("/login").login(id, PASSWORD).from(one).send().await.is(401, NOTHING);
        let form = format!("account={}&password={PASSWORD}", encoded(id)).replace(' ', "+");
        let by_form = node.request("POST", "/session").bytes(form).from(other).send().await;
        // Blanks around a name do not count in the form.
        assert_eq!(by_form.status, if id.trim() == "ROOT004" { 303 } else { 403 }, "{id}");
        let path = format!("/people/{}", encoded(id));
        let read = node.get(&path).by("ROOT004").send().await.is(200, NOTHING);
        assert_eq!(read.json()["_id"], *id);
        assert!(listed.contains(&(*id).to_owned()), "{id}");
        let shown = |user: &&Value| user["id"] == *id && user["local"] == false;
        assert_eq!(users.as_array().unwrap().iter().find(shown).unwrap()["is_account"], false, "{id}");
    }
    let pages = format!("/pols/{}", encoded("operator(uid 0)"));
    assert_eq!(node.get(&pages).by("ROOT004").send().await.is(200, NOTHING).ids(), ["p1"]);
    for id in PLAIN {
        node.get("/login").login(id, PASSWORD).send().await.is(200, NOTHING);
        let shown = |user: &&Value| user["id"] == *id;
        assert_eq!(users.as_array().unwrap().iter().find(shown).unwrap().get("is_account"), None);
    }
    // The technician is who has the name, and has the password.
    node.get("/login").login("boss@local", "the technician is another").send().await.is(200, NOTHING);
    node.get("/people").login("boss@local", "the technician is another").send().await.is(403, NOTHING);
}

/// Closing, or naming, the person touches the technician nowhere, and the other way round.
#[tokio::test]
async fn a_person_and_a_technician_of_one_name_are_two() {
    let node = start().await;
    let boss = || node.get("/people/ANA001").login("boss@local", "the technician is another");
    let nurse = json!({"roles": ["nurse"], "local": true});
    node.post("/users/boss", nurse).by_operator().send().await.is(200, NOTHING);
    boss().header("x-emergency-reason", "unconscious, allergies?").send().await.is(200, NOTHING);
    boss().send().await.is(200, NOTHING);
    for id in ["boss@local", "BOSS@LOCAL", "local:boss"] {
        let path = format!("/people/{}", encoded(id));
        let patch = node.patch(&path, json!({"active": false})).by("ROOT004").send().await;
        assert_eq!(patch.status, 200, "{}", patch.text());
    }
    boss().send().await.is(200, NOTHING);
    // What is done to the account `boss@local` is done to the technician's.
    let before = node.stored(Kind::Person, "boss@local").unwrap();
    node.post("/users/boss@local/active", json!({"active": false}))
        .by_operator()
        .send()
        .await
        .is(204, NOTHING);
    boss().send().await.is(401, NOTHING);
    assert_eq!(node.stored(Kind::Person, "boss@local").unwrap(), before);
}

#[tokio::test]
async fn the_trail_names_everybody_unambiguously() {
    let node = start().await;
    let login = "the technician is another";
    node.get("/people/ANA001").login("boss@local", login).send().await.is(403, NOTHING);
    for id in PLAIN {
        node.get("/people/ANA001").by(id).send().await.is(200, NOTHING);
    }
    node.get("/people/ANA001").login("centre", "wrong").send().await.is(401, NOTHING);
    node.post("/institutions/i1", json!({})).by("ROOT004").send().await.is(201, &["create institution/i1"]);
    let who = |entries: Vec<Value>| -> Vec<String> {
        let mut who: Vec<String> =
            entries.iter().map(|entry| entry["who"].as_str().unwrap().to_owned()).collect();
        who.sort();
        who.dedup();
        who
    };
    let all = who(trail(&node, "").await);
    let known = [
        "local:boss",
        "nobody",
        "operator:0",
        "person:CENTRE",
        "person:Nobody",
        "person:ROOT004",
        "person:node",
    ];
    assert_eq!(all, known);
    for (asked, found) in [
        ("person:CENTRE", &["person:CENTRE"][..]),
        ("centre", &[]),
        ("person:centre", &["person:CENTRE"]),
        ("CENTRE", &["person:CENTRE"]),
        ("node", &[]),
        ("NODE", &["person:node"]),
        ("nobody", &["nobody"]),
        ("-", &["nobody"]),
        ("boss@local", &["local:boss"]),
        ("local:BOSS", &["local:boss"]),
        ("operator(uid%200)", &["operator:0"]),
        ("operator:0", &["operator:0"]),
        ("operator:7", &[]),
        ("person:operator(uid%200)", &[]),
    ] {
        assert_eq!(who(trail(&node, &format!("who={asked}")).await), found, "{asked}");
    }
    node.get("/audit?who=%C3%B1").by_operator().send().await.is_invalid("who");
}

/// The entries of one person are not those of everybody, whatever their id.
#[tokio::test]
async fn the_trail_of_a_person_is_theirs() {
    let node = start().await;
    node.patch("/people/%2A", json!({"note": "about the one with the star"})).by("ROOT004").send().await;
    let of = |entries: &[Value]| entries.iter().any(|entry| entry["verb"] == "update" && entry["id"] == "*");
    let ana = node.get("/audit?person=ANA001&limit=1000").by("ANA001").send().await.is(200, NOTHING).json();
    assert!(!of(ana["entries"].as_array().unwrap()), "{ana}");
    assert!(of(&trail(&node, "person=%2A").await));
    assert!(of(&trail(&node, "").await));
    node.get("/people").by("ROOT004").send().await.is(200, NOTHING);
    let is_list = |entry: &&Value| entry["verb"] == "list" && entry["kind"] == "people";
    let lists = |entries: Vec<Value>| entries.iter().filter(is_list).count();
    assert_eq!(lists(trail(&node, "person=%2A").await), 1, "lists of everybody show theirs too");
    assert_eq!(lists(trail(&node, "person=ANA001").await), 1);
}

/// Entries of versions up to 0.1.0 stay as they are, are found, and the chain over both forms is whole.
#[tokio::test]
async fn entries_of_before_are_read_and_found() {
    let node = start().await;
    let store = node.node.store.unguarded();
    let before = store.read().unwrap().audit_head().unwrap();
    let old = ["ANA001", "boss@local", "operator(uid 0)", "centre", "-", "Ñandú"];
    let write = store.transact(move |tx| -> Result<(), StoreError> {
        for who in old {
            let event =
                thalamus_edge::domain::audit::Event::by_nobody(thalamus_edge::domain::audit::What::Read);
            let event = event.about("people", "Ñandú", None);
            let event = thalamus_edge::domain::audit::Event {
                who: who.to_owned(),
                owner: "ÑANDÚ".to_owned(),
                ..event
            };
            tx.audit(event)?;
        }
        Ok(())
    });
    write.await.unwrap();
    node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING);
    store.flush_notes().await.unwrap();
    for (asked, shown) in [
        ("person:ANA001", &["ANA001", "person:ANA001"][..]),
        ("local:boss", &["boss@local"]),
        ("operator:0", &["operator(uid 0)"]),
        ("centre", &["centre"]),
        ("nobody", &["-"]),
    ] {
        let mut found: Vec<String> = trail(&node, &format!("who={asked}&after={}", before.seq))
            .await
            .iter()
            .filter(|entry| entry["verb"] == "read")
            .map(|entry| entry["who"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        found.dedup();
        assert_eq!(found, shown, "{asked}");
    }
    // By person too: ids that are no account stood there by themselves.
    let of = trail(&node, &format!("person={}", encoded("ÑandÚ"))).await;
    assert!(of.iter().any(|entry| entry["who"] == "Ñandú"), "{of:?}");
    let query = AuditQuery { after: Some(0), limit: usize::MAX, ..AuditQuery::default() };
    let mut chain = Verifier::new(store.read().unwrap().audit_anchor().unwrap());
    let rows: Vec<Entry> =
        store.read().unwrap().audit(&query).unwrap().rows.into_iter().map(Result::unwrap).collect();
    rows.iter().for_each(|entry| chain.take(entry).unwrap());
    chain.finish().unwrap();
}

/// A stream of changes follows the account that began it, not the one whose id reads like its name.
#[tokio::test]
async fn a_stream_is_not_taken_over_by_a_name() {
    let node = start().await;
    let relay = json!({"roles": ["root"], "local": true});
    node.post("/users/boss", relay).by_operator().send().await.is(200, NOTHING);
    let stream = node.get("/changes").login("boss@local", "the technician is another");
    let mut body = stream.header("accept", "text/event-stream").open().await.into_body();
    body.frame().await.unwrap().unwrap();
    let closed = json!({"active": false});
    node.post("/users/boss@local/active", closed).by_operator().send().await.is(204, NOTHING);
    let rest = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap();
    assert!(!matches!(rest, Some(Ok(_))), "the person boss@local is active");
}
