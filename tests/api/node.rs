//! The node's own endpoints: welcome, health, login, authorization, accounts, reconciliation.

use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, DeadLetter, StoreError};

use crate::support::api::{NOTHING, PASSWORD, PASSWORD_HASH, Setup, TestNode, pass_time, person};
use crate::support::sim::Sim;

#[tokio::test]
async fn the_welcome_page_and_health_need_no_login() {
    let node = TestNode::with_people().await;
    let page = node.get("/").send().await.is(200, NOTHING);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(page.text().contains("GNU Health") && !page.text().contains("{{"));
    assert_eq!(node.get("/healthz").send().await.is(200, NOTHING).text(), "ok\n");
    assert_eq!(node.get("/readyz").send().await.is(200, NOTHING).text(), "ready\n");
}

#[tokio::test]
async fn any_valid_account_may_log_in() {
    let node = TestNode::start_with(|setup| setup.roles = "[]".to_owned());
    node.person("ANA001", &[]).await;
    node.get("/login").by("ANA001").send().await.is(200, NOTHING).says(json!(true));
    node.get("/login").login("ANA001", "wrong").send().await.is(401, NOTHING);
    node.get("/people/ANA001").by("ANA001").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn authorization_says_who_may_do_what_and_why() {
    let node = TestNode::with_people().await;
    node.record(Kind::Event, doc! {"_id": "e1", "person": "ANA001"}).await;
    node.record(Kind::Event, doc! {"_id": "e2", "person": "BOB002"}).await;
    let ask = async |who: &str, method: &str, path: &str| {
        let answer = node.get(&format!("/authorization?method={method}&path={path}")).by(who).send().await;
        let body = answer.is(200, NOTHING).json();
        assert_eq!(body["user"], who.to_uppercase());
        (body["allowed"].as_bool().unwrap(), body["reason"].as_str().unwrap().to_owned())
    };
    let no = |reason: &str| (false, reason.to_owned());
    let yes = (true, "allowed".to_owned());
    let no_role = no("no role of this account allows it");
    let hidden = no("there is no such record for this account");
    assert_eq!(ask("ana001", "GET", "/people/ANA001").await, yes);
    assert_eq!(ask("ANA001", "GET", "/people/ana001?x=1").await, yes);
    assert_eq!(
        ask("ANA001", "GET", "/people/%2541NA001").await,
        yes,
        "the path may be escaped, as in a request"
    );
    assert_eq!(ask("ANA001", "GET", "/people/BOB002").await, no_role);
    assert_eq!(ask("ANA001", "GET", "/people/NOBODY9").await, no_role);
    assert_eq!(ask("ANA001", "GET", "/people").await, no_role);
    assert_eq!(ask("ANA001", "HEAD", "/events/e1").await, yes);
    assert_eq!(ask("ANA001", "GET", "/events/e2").await, hidden);
    assert_eq!(ask("ANA001", "GET", "/events/e9").await, hidden);
    assert_eq!(ask("DOC003", "GET", "/events/e9").await, yes);
    assert_eq!(ask("DOC003", "DELETE", "/events/e1").await, no_role);
    assert_eq!(ask("DOC003", "PUT", "/personal-documents/d/content").await, yes);
    assert_eq!(ask("DOC003", "POST", "/password/ANA001").await, no_role);
    assert_eq!(ask("ANA001", "POST", "/password/ANA001").await, yes);
    assert_eq!(ask("ROOT004", "POST", "/password/ANA001").await, yes);
    assert_eq!(ask("ROOT004", "DELETE", "/people").await, no("the path does not know the method"));
    assert_eq!(ask("ROOT004", "POST", "/sync/status").await, no("the path does not know the method"));
    assert_eq!(ask("ROOT004", "GET", "/nothing").await, no("there is nothing at this path"));
    assert_eq!(ask("ROOT004", "GET", "people").await, no("there is nothing at this path"));
    assert_eq!(ask("ROOT004", "GET", "/pols//x").await, no("there is nothing at this path"));
    assert_eq!(ask("ROOT004", "GET", "").await, no("there is nothing at this path"));
    node.get("/authorization?path=/people").by("ANA001").send().await.is_invalid("method");
    node.get("/authorization?method=LOOK&path=/people").by("ANA001").send().await.is_invalid("method");
    node.get("/authorization?method=GET").by("ANA001").send().await.is_invalid("path");
    let roles = node.get("/authorization?method=GET&path=/").by("DOC003").send().await;
    roles.has(json!({"roles": ["end_user", "health_professional"]}));
}

#[tokio::test]
async fn users_are_listed_with_what_counts_here() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Person, person("CEN009", &["end_user", "root"])).await;
    node.record(Kind::Person, doc! {"_id": "NOLOGIN", "name": "x"}).await;
    let made = node.post("/users/tess@local", json!({"roles": ["root"], "password": PASSWORD})).by_operator();
    made.send().await.is(201, NOTHING).says(json!({"id": "tess@local", "local": true}));
    for call in [
        node.get("/users").by("ROOT004"),
        node.get("/users").by_operator(),
        node.get("/users").by("tess@local"),
    ] {
        let users = call.send().await.is(200, NOTHING).json();
        let shown = |id: &str| users.as_array().unwrap().iter().find(|user| user["id"] == id).cloned();
        let centre = json!({"id": "CEN009", "local": false, "active": true, "roles": ["end_user"], "not_honoured": ["root"]});
        assert_eq!(shown("CEN009").unwrap(), centre);
        assert_eq!(shown("tess@local").unwrap()["local"], true);
        assert_eq!(shown("ROOT004").unwrap()["roles"], json!(["root"]));
        assert!(shown("NOLOGIN").is_none());
        assert!(!users.to_string().contains("$2"));
    }
}

#[tokio::test]
async fn users_are_made_by_root_and_the_operator() {
    let node = TestNode::with_people().await;
    let add = |id: &str, body| node.post(&format!("/users/{id}"), body).by_operator().send();
    let made = add("new005", json!({"roles": ["root"], "password": "a new cradle"})).await;
    made.is(201, &["create people/NEW005"]).says(json!({"id": "NEW005", "local": false}));
    // Root that was given here counts.
    node.get("/users").login("NEW005", "a new cradle").send().await.is(200, NOTHING);
    add("NEW006", json!({"roles": ["end_user"]})).await.is_invalid("password");
    add("NEW006", json!({"roles": ["end_user"], "password": "short"})).await.is_invalid("password");
    add("NEW006", json!({"roles": ["end_user"], "password": 12345678})).await.is_invalid("password");
    for roles in
        [json!([]), json!(["wizard"]), json!("root"), json!(null), json!(["root", "root"]), json!([1])]
    {
        add("NEW006", json!({"roles": roles, "password": PASSWORD})).await.is_invalid("roles");
    }
    add("N-6", json!({"roles": ["root"], "password": PASSWORD})).await.is_invalid("id");
    add("te%20ss@local", json!({"roles": ["root"], "password": PASSWORD})).await.is_invalid("id");
    // Of the roles the record has those that count everywhere.
    let roles = |id: &str| node.stored(Kind::Person, id).unwrap().get("roles").cloned().unwrap();
    assert_eq!(roles("NEW005"), bson::bson!(["end_user"]));
    add("NEW007", json!({"roles": ["health_professional", "root"], "password": "a new cradle"})).await;
    assert_eq!(roles("NEW007"), bson::bson!(["health_professional"]));
}

/// A record goes to the centre and to all nodes: what is granted on this node is no part of it.
#[tokio::test]
async fn roles_that_are_granted_here_leave_the_record_alone() {
    let node = TestNode::with_people().await;
    let of_record = ["end_user", "health_professional"];
    node.from_centre(Kind::Person, person("CEN009", &["end_user", "health_professional", "root"])).await;
    let before = node.stored(Kind::Person, "CEN009").unwrap();
    let add = |roles| node.post("/users/cen009", json!({"roles": roles})).by_operator().send();
    let shown = async || {
        let users = node.get("/users").by_operator().send().await.json();
        let shown = users.as_array().unwrap().iter().find(|user| user["id"] == "CEN009").unwrap().clone();
        (shown["roles"].clone(), shown["not_honoured"].clone())
    };
    let with_root = json!(["end_user", "health_professional", "root"]);
    assert_eq!(shown().await, (json!(of_record), json!(["root"])));
    // Nothing of the record is changed, so nothing is sent, and the answer says which roles stay.
    let kept = json!({"id": "CEN009", "local": false, "kept_roles": of_record});
    add(json!(["root"])).await.is(200, NOTHING).says(kept);
    assert_eq!(shown().await, (with_root.clone(), json!([])));
    node.get("/users").by("CEN009").send().await.is(200, NOTHING);
    // All that the account is to have: fewer take away what was granted.
    let all = json!({"id": "CEN009", "local": false, "kept_roles": ["health_professional"]});
    add(json!(["end_user"])).await.is(200, NOTHING).says(all);
    assert_eq!(shown().await, (json!(of_record), json!(["root"])));
    node.get("/users").by("CEN009").send().await.is(403, NOTHING);
    assert_eq!(node.stored(Kind::Person, "CEN009"), Some(before.clone()));
    // What was granted stays when the record loses the role, or changes otherwise, and goes with a password from elsewhere.
    add(json!(["end_user", "health_professional", "root"]))
        .await
        .says(json!({"id": "CEN009", "local": false}));
    let mut theirs = person("CEN009", &["end_user"]);
    node.from_centre(Kind::Person, theirs.clone()).await;
    assert_eq!(shown().await, (json!(["end_user", "root"]), json!([])));
    node.patch("/people/CEN009", json!({"roles": ["end_user", "health_professional"]}))
        .by("ROOT004")
        .send()
        .await;
    assert_eq!(shown().await, (with_root, json!([])));
    theirs.insert("password", bcrypt::hash("from elsewhere", 4).unwrap());
    node.from_centre(Kind::Person, theirs).await;
    assert_eq!(shown().await, (json!(["end_user"]), json!([])));
    // A password given here goes to the centre, and the roles do not.
    let both = json!({"roles": ["root"], "password": "a new cradle"});
    node.post("/users/CEN009", both).by_operator().send().await.is(200, &["update people/CEN009"]);
    assert_eq!(node.stored(Kind::Person, "CEN009").unwrap().get("roles"), Some(&bson::bson!(["end_user"])));
    node.get("/users").login("CEN009", "a new cradle").send().await.is(200, NOTHING);
}

/// Ids with which nobody logs in get no passwords, links and roles, and a person is never taken for a technician.
#[tokio::test]
async fn what_is_no_account_is_none_in_any_path() {
    let node = TestNode::with_people().await;
    for id in ["G1", "operator(uid 0)", "BOSS@LOCAL", "boss@local"] {
        node.from_centre(Kind::Person, person(id, &["end_user", "root"])).await;
    }
    let boss = json!({"roles": ["root"], "password": PASSWORD});
    node.post("/users/boss@local", boss).by_operator().send().await.is(201, NOTHING);
    let calls = |id: &str| {
        let of = |end: &str, body| node.post(&format!("/users/{id}{end}"), body).by_operator().send();
        let password = json!({"password": "another cradle"});
        [
            of("", json!({"roles": ["root"]})),
            of("/password", password),
            of("/link", json!({})),
            of("/active", json!({"active": true})),
        ]
    };
    for id in ["G1", "g1", "operator(uid%200)", "BOSS@LOCAL", "Boss@Local"] {
        for call in calls(id) {
            let answer = call.await.is_invalid("id");
            let is_technician = id.contains('@');
            let why = if is_technician { "the technician is boss@local" } else { "no federation account" };
            assert!(answer.text().contains(why), "{}", answer.text());
        }
    }
    node.get("/users").login("boss@local", PASSWORD).send().await.is(200, NOTHING);
    // The technician's own spelling is the technician's, whatever the centre has.
    let set = node.post("/users/boss@local/password", json!({"password": "another cradle"})).by_operator();
    set.send().await.is(204, NOTHING);
    node.get("/users").login("BOSS@local", "another cradle").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn passwords_of_others_are_set_by_root_and_the_operator() {
    let node = TestNode::with_people().await;
    let body = || json!({"password": "another cradle"});
    node.post("/users/ana001/password", body()).by("ROOT004").send().await.is(204, &["update people/ANA001"]);
    node.get("/login").login("ANA001", "another cradle").send().await.is(200, NOTHING);
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    node.post("/users/NOBODY9/password", body()).by_operator().send().await.is(404, NOTHING);
    node.post("/users/no@local/password", body()).by_operator().send().await.is(404, NOTHING);
    node.post("/users/BOB002/password", json!({})).by_operator().send().await.is_invalid("password");
    node.post("/users/BOB002/password", json!({"password": "password"}))
        .by_operator()
        .send()
        .await
        .is_invalid("password");
    node.post("/users/tess@local", json!({"roles": ["root"], "password": PASSWORD}))
        .by_operator()
        .send()
        .await;
    node.post("/users/tess@local/password", body()).by("ROOT004").send().await.is(204, NOTHING);
    node.get("/login").login("tess@local", "another cradle").send().await.is(200, NOTHING);
}

/// A name in `roles.cfg` gives the list, not the keys of the house.
#[tokio::test]
async fn whoever_may_use_users_cannot_make_root() {
    let node = TestNode::start_with(|setup| {
        setup.roles =
            r#"[{"role": "manager", "permissions": {"GET": ["users"], "POST": ["users"], "global": true}},
                          {"role": "root", "permissions": {}}]"#
                .to_owned();
    });
    node.person("MAN001", &["manager"]).await;
    node.person("ANA001", &["end_user"]).await;
    node.get("/users").by("MAN001").send().await.is(200, NOTHING);
    let body = json!({"roles": ["root"], "password": PASSWORD});
    node.post("/users/MAN001", body.clone()).by("MAN001").send().await.is(403, NOTHING);
    node.post("/users/x@local", body.clone()).by("MAN001").send().await.is(403, NOTHING);
    node.post("/users/ANA001/password", body).by("MAN001").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn without_a_centre_synchronization_is_off() {
    let node = TestNode::with_people().await;
    let status = node.get("/sync/status").by("DOC003").send().await.is(200, NOTHING);
    status.has(json!({
        "state": "off", "pending": 4, "oldest_pending_at": "2026-11-23T01:28:52Z", "conflicts_open": 0,
        "conflicts_unpublished": 0, "dead": 0,
        "last_round": null, "last_complete_at": null, "next_round_at": null, "namesakes": [], "storage_full": false, "logins_until": null,
        "message": "Synchronization is off: no centre is configured."}));
    node.get("/sync/status").by("ANA001").send().await.is(403, NOTHING);
    let round = node.request("POST", "/sync/rounds").by("ROOT004").send().await.is(200, NOTHING);
    round.has(json!({"outcome": "failed", "pulled": 0, "pushed": 0, "message": "synchronization is off: no centre is configured"}));
    node.request("POST", "/sync/rounds").by("DOC003").send().await.is(403, NOTHING);
    node.get("/sync/conflicts").by("DOC003").send().await.is(200, NOTHING).says(json!([]));
    // A pause says nothing about a node that has nobody to synchronize with.
    node.post("/sync/pause", json!({})).by("ROOT004").send().await.is(204, NOTHING);
    node.get("/sync/status").by("DOC003").send().await.is(200, NOTHING).has(json!({"state": "off"}));
}

#[tokio::test]
async fn root_pauses_and_resumes() {
    let sim = Sim::default();
    let node = TestNode::start_with(|setup| setup.hub = Some(Arc::new(sim.clone())));
    node.people().await;
    let round = || node.request("POST", "/sync/rounds").by("ROOT004").send();
    round().await.is(200, NOTHING).has(json!({"outcome": "complete", "pushed": 4}));
    node.request("POST", "/sync/pause").by("DOC003").send().await.is(403, NOTHING);
    node.request("POST", "/sync/pause").by("ROOT004").send().await.is(204, NOTHING);
    pass_time(Duration::from_secs(60));
    // The first one stays named.
    node.request("POST", "/sync/pause").by_operator().send().await.is(204, NOTHING);
    let message = "Synchronization was paused by person:ROOT004 at 2026-11-23T01:28:52Z. \
                   Everything is kept here and is sent once it is resumed.";
    let status = node.get("/sync/status").by("DOC003").send().await.is(200, NOTHING);
    status.has(json!({"state": "paused", "message": message, "next_round_at": null}));
    node.patch("/people/ANA001", json!({"n": 1}))
        .by("ANA001")
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    round().await.is(200, NOTHING).has(json!({"outcome": "halted", "pushed": 0, "message": message}));
    assert_eq!(sim.get(Kind::Person, "ANA001").unwrap().get("n"), None);
    let resume = |body| node.post("/sync/resume", body).by("ROOT004").send();
    resume(json!({"accept_deletes": false})).await.is_invalid("accept_deletes");
    resume(json!({"accept_deletes": 1})).await.is_invalid("accept_deletes");
    resume(json!({"accept_everything": true})).await.is_invalid("accept_everything");
    resume(json!({"accept_deletes": true, "more": true})).await.is(422, NOTHING);
    resume(json!([])).await.is(422, NOTHING);
    node.request("POST", "/sync/resume").by("DOC003").send().await.is(403, NOTHING);
    round().await.is(200, NOTHING).has(json!({"outcome": "halted"}));
    // Nothing of this ended the pause.
    node.request("POST", "/sync/resume").by("ROOT004").send().await.is(204, NOTHING);
    node.get("/sync/status").by("DOC003").send().await.is(200, NOTHING).has(json!({"state": "idle"}));
    round().await.is(200, NOTHING).has(json!({"outcome": "complete", "pushed": 1}));
    assert_eq!(sim.get(Kind::Person, "ANA001").unwrap().get_i32("n").unwrap(), 1);
}

#[tokio::test]
async fn refused_records_are_listed_and_tried_again() {
    let node = TestNode::with_people().await;
    node.get("/sync/dead").by("DOC003").send().await.is(200, NOTHING).says(json!([]));
    let put = node.node.store.unguarded().transact(|tx| -> Result<(), StoreError> {
        let key = RecordKey::new(Kind::Person, "ANA001");
        tx.put_dead(&DeadLetter { key, direction: "push", code: 121, reason: "refused".into(), at_ms: 0 })
    });
    put.await.unwrap();
    node.get("/sync/dead").by("DOC003").send().await.is(200, NOTHING).says(json!([{
        "id": "people:ANA001", "collection": "people", "record": "ANA001", "direction": "push", "code": 121,
        "reason": "refused", "at": "1970-01-01T00:00:00Z", "ways_out": ["retry", "edit", "discard"]}]));
    let retry = |id: &str| node.request("POST", &format!("/sync/dead/{id}/retry")).by("ROOT004").send();
    for id in ["people:BOB002", "people", "dogs:ANA001", ":", "people%3AANA001x"] {
        retry(id).await.is(404, NOTHING);
    }
    retry("people%3AANA001").await.is(204, NOTHING);
    retry("people:ANA001").await.is(404, NOTHING);
}

#[tokio::test]
async fn refused_records_are_given_up_by_those_who_may_change_them() {
    let roles = |setup: &mut Setup| {
        setup.add_roles(
            r#"{"role": "technician", "permissions": {"GET": ["sync"], "POST": ["sync"], "global": true}}"#,
        );
    };
    let node = TestNode::start_with(roles);
    node.people().await;
    node.person("TEC005", &["technician"]).await;
    let refused = async |id: &str, is_agreed: bool| {
        let key = RecordKey::new(Kind::Event, id);
        let (agreed, mine) =
            (doc! {"_id": id, "person": "ANA001", "n": 1}, doc! {"_id": id, "person": "ANA001", "n": 2});
        let put = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
            if is_agreed {
                tx.put(&key, Some(&agreed), &Base::Document(agreed.clone()), &Actor::Centre)?;
            }
            tx.edit(&key, Some(&mine), &Actor::Operator(0))?;
            let reason = "x".repeat(5_000);
            tx.put_dead(&DeadLetter { key: key.clone(), direction: "push", code: 121, reason, at_ms: 0 })
        });
        put.await.unwrap();
    };
    let post = |who: &str, id: &str, way: &str| {
        node.request("POST", &format!("/sync/dead/{id}/{way}")).by(who).send()
    };
    refused("e1", true).await;
    refused("e2", false).await;
    let list = node.get("/sync/dead").by("ROOT004").send().await.is(200, NOTHING).json();
    assert_eq!(list[0]["ways_out"], json!(["retry", "edit", "take-central", "discard"]));
    assert_eq!(list[0]["reason"].as_str().unwrap().len(), 2_000);
    for way in ["take-central", "discard"] {
        post("DOC003", "event:e1", way).await.is(403, NOTHING);
        post("TEC005", "event:e1", way).await.is(403, NOTHING);
        post("ROOT004", "event:none", way).await.is(404, NOTHING);
        post("ROOT004", "none", way).await.is(404, NOTHING);
    }
    post("ROOT004", "event:e2", "take-central").await.is(422, NOTHING);
    post("ROOT004", "event:e1", "take-central").await.is(204, &["update event/e1"]);
    post("ROOT004", "event:e2", "discard").await.is(204, &["delete event/e2"]);
    assert_eq!(node.stored(Kind::Event, "e1").unwrap().get_i32("n").unwrap(), 1);
    assert_eq!(node.stored(Kind::Event, "e2"), None);
    node.get("/sync/dead").by("ROOT004").send().await.is(200, NOTHING).says(json!([]));
    let trail = node.get("/audit").by("ROOT004").send().await.is(200, NOTHING).json().to_string();
    for entry in ["take_central", "discard"] {
        assert!(trail.contains(entry), "{entry}: {trail}");
    }
}

#[tokio::test]
async fn technicians_exist_on_one_node_and_own_nothing() {
    let node = TestNode::with_people().await;
    let account = doc! {"password": PASSWORD_HASH.as_str(), "roles": ["end_user"]};
    let added = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
        tx.set_local_account("ANA001", Some(&account), &Actor::Operator(0))
    });
    added.await.unwrap();
    node.get("/login").by("ANA001@local").send().await.is(200, NOTHING);
    // A technician of the same name is not that person.
    node.get("/people/ANA001").by("ANA001@local").send().await.is(403, NOTHING);
    node.get("/encounters").by("ANA001@local").send().await.is(403, NOTHING);
    // Their names are the same in any spelling, and so are they.
    node.get("/login").by("ANA001@LOCAL").send().await.is(200, NOTHING);
    node.get("/people/ANA001").by("ana001@LOCAL").send().await.is(403, NOTHING);
}
