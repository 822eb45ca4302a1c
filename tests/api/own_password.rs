//! A session that somebody left open gives nobody the account: also decisions that would give its own account another
//! password ask for the present one.

use std::sync::Arc;

use bson::{Bson, doc};
use serde_json::{Value, json};
use thalamus_edge::accounts::BCRYPT_COST_MIN;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, DeadLetter, StoreError};

use crate::rights::World;
use crate::support::api::{Answer, NOTHING, PASSWORD, PASSWORD_HASH, TestNode, person};
use crate::support::sim::Sim;

fn other_hash() -> String {
    bcrypt::hash("a password that a thief knows", BCRYPT_COST_MIN).unwrap()
}

/// An administrator with a session, whose account every way below is about.
async fn boss() -> World {
    let mut world = World::new(false).await;
    world.begin_session().await;
    world
}

fn password_of(node: &TestNode) -> String {
    node.stored(Kind::Person, "BOSS09").unwrap().get_str("password").unwrap().to_owned()
}

/// A conflict about the password, where the present one stands; its id.
async fn conflict(node: &TestNode, clash: Clash) -> String {
    let add = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
        tx.add_conflict(&RecordKey::new(Kind::Person, "BOSS09"), &clash, None)
    });
    add.await.unwrap();
    let list = node.get("/sync/conflicts?status=open").by_operator().send().await.is(200, NOTHING).json();
    list[0]["id"].as_str().unwrap().to_owned()
}

fn of_password(local: Bson) -> Clash {
    Clash {
        path: vec!["password".to_owned()],
        base: None,
        local: Some(local),
        remote: Some(PASSWORD_HASH.as_str().into()),
        stands: Side::Remote,
    }
}

#[tokio::test]
async fn a_conflict_about_ones_own_password_asks_for_the_present_one() {
    for is_trial in [true, false] {
        let world = boss().await;
        let id = conflict(&world.node, of_password(other_hash().into())).await;
        let path = format!("/sync/conflicts/{id}/resolution{}", if is_trial { "/trial" } else { "" });
        let decide = async |current: Value| -> Answer {
            let mut decision = json!({"take": "local"});
            if !current.is_null() {
                decision["current_password"] = current;
            }
            world.call("POST", &path).json(&decision).send().await
        };
        for current in [Value::Null, json!(""), json!("wrong"), json!(1), json!([PASSWORD])] {
            decide(current).await.is_invalid("current_password");
            assert_eq!(password_of(&world.node), *PASSWORD_HASH);
        }
        // What leaves the password as it is asks for nothing.
        let same = world.call("POST", &path.replace("/trial", "")).json(&json!({"take": "central"}));
        if is_trial {
            assert_eq!(decide(json!(PASSWORD)).await.status, 204);
            assert_eq!(same.send().await.status, 200);
            continue;
        }
        assert_eq!(decide(json!(PASSWORD)).await.status, 200);
        assert_ne!(password_of(&world.node), *PASSWORD_HASH);
    }
}

/// HTTP Basic has given it, and another one's password is no matter of it.
#[tokio::test]
async fn a_conflict_about_a_password_is_decided_with_basic_or_by_others() {
    let mut world = boss().await;
    world.cookie = None;
    let id = conflict(&world.node, of_password(other_hash().into())).await;
    let path = format!("/sync/conflicts/{id}/resolution");
    let decided = world.call("POST", &path).json(&json!({"take": "local"})).send().await;
    assert_eq!(decided.status, 200, "{}", decided.text());

    let mut world = World::new(true).await;
    world.node.person("BOSS09", &["root"]).await;
    world.begin_session().await;
    let id = conflict(&world.node, of_password(other_hash().into())).await;
    let path = format!("/sync/conflicts/{id}/resolution");
    let decided = world.call("POST", &path).json(&json!({"take": "local"})).send().await;
    assert_eq!(decided.status, 200, "{}", decided.text());
}

/// A decision about the whole record is one about its password too.
#[tokio::test]
async fn the_centres_version_of_ones_own_record_needs_the_password() {
    let mut world = boss().await;
    let put = world.node.node.store.unguarded().transact(|tx| -> Result<(), StoreError> {
        let key = RecordKey::new(Kind::Person, "BOSS09");
        let mut agreed = person("BOSS09", &["root"]);
        agreed.insert("password", other_hash());
        let mine = tx.document(&key)?.unwrap();
        tx.put(&key, Some(&mine), &Base::Document(agreed), &Actor::Operator(0))?;
        tx.put_dead(&DeadLetter { key, direction: "push", code: 121, reason: "no".into(), at_ms: 0 })
    });
    put.await.unwrap();
    let take = "/sync/dead/people:BOSS09/take-central";
    let refused = world.call("POST", take).send().await.is_invalid("current_password");
    assert!(refused.text().contains("HTTP Basic"), "{}", refused.text());
    assert_eq!(password_of(&world.node), *PASSWORD_HASH);
    world.cookie = None;
    world.call("POST", take).send().await.is(204, &["update people/BOSS09"]);
    assert_ne!(password_of(&world.node), *PASSWORD_HASH);
}

/// Two people under the caller's own account become one: the other one's password is not let in by a session.
#[tokio::test]
async fn a_decision_about_ones_own_account_needs_the_password() {
    let sim = Sim::default();
    let hub = Arc::new(sim.clone());
    let node = TestNode::start_with(|setup| setup.hub = Some(hub));
    let mut world = World::on(node, false).await;
    world.begin_session().await;
    let mut theirs = person("BOSS09", &["end_user"]);
    theirs.extend(
        doc! {"name": "Beatriz", "lastname": "Cordara", "dob": "1984-10-05", "password": other_hash()},
    );
    sim.put(Kind::Person, theirs);
    let round = world.node.post("/sync/rounds", json!({})).by_operator().send().await;
    round.is(200, NOTHING).has(json!({"outcome": "complete"}));
    let list = world.node.get("/sync/conflicts").by_operator().send().await.is(200, NOTHING).json();
    assert_eq!(list[0]["type"], "identity", "{list}");
    let path = format!("/sync/conflicts/{}/resolution", list[0]["id"].as_str().unwrap());
    let decide = |decision: Value| world.call("POST", &path).json(&decision).send();
    for decision in [json!({"decide": "same"}), json!({"decide": "new_id", "id": "NEW001"})] {
        let answer = decide(decision).await;
        assert_eq!(password_of(&world.node), *PASSWORD_HASH, "{}", answer.text());
        answer.is_invalid("current_password");
    }
    let answer = decide(json!({"decide": "same", "current_password": PASSWORD})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
