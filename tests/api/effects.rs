//! Rights hold in the transaction of every write: what is taken while a write waits for the store's writer counts.
//!
//! The routes are those of the router itself. Each write waits behind a transaction that changes the caller's account, so
//! that nothing but the check in its own transaction can see the change.

use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::FutureExt as _;
use serde_json::json;
use thalamus_edge::accounts::BCRYPT_COST_MIN;
use thalamus_edge::domain::access::{Acl, Actor};
use thalamus_edge::domain::emergency::Reason;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, DeadLetter, StoreError, Tx};
use tokio::sync::oneshot;

use crate::rights::{CHANGES, Change, NEW_PASSWORD, World, path_of, routes};
use crate::support::api::{NOTHING, PASSWORD_HASH, TestNode};
use crate::support::sim::Sim;

static NEW_HASH: LazyLock<String> = LazyLock::new(|| bcrypt::hash(NEW_PASSWORD, BCRYPT_COST_MIN).unwrap());

/// When a request has come to the writer, however busy the machine is.
const LATEST: Duration = Duration::from_secs(20);
/// These do not write by the caller's right: a backup is a file, made by the node from what is committed; a record that is
/// not damaged is not set aside.
const WITHOUT_WRITE: &[&str] = &["/backups", "/sync/damaged/{id}/set-aside"];

/// A request whose write is to be refused.
struct Case {
    path: String,
    body: Vec<u8>,
}

/// Puts what the routes decide about into the store.
async fn furnish(world: &World) -> Furniture {
    let node = &world.node;
    let round = node.post("/sync/rounds", json!({})).by_operator().send().await;
    round.is(200, NOTHING).has(json!({"outcome": "complete"}));
    let hold = listed(node, "/sync/conflicts").await;
    let furnish = node.node.store.unguarded().transact(|tx| -> Result<u64, StoreError> {
        for id in ["retry", "central", "discard"] {
            let key = RecordKey::new(Kind::Event, id);
            let agreed = doc! {"_id": id, "person": "ANA001", "n": 1};
            let mine = doc! {"_id": id, "person": "ANA001", "n": 2};
            if id != "discard" {
                tx.put(&key, Some(&agreed), &Base::Document(agreed.clone()), &Actor::Centre)?;
            }
            tx.edit(&key, Some(&mine), &Actor::Operator(0))?;
            let reason = "refused".to_owned();
            tx.put_dead(&DeadLetter { key, direction: "push", code: 121, reason, at_ms: 0 })?;
        }
        let gone = RecordKey::new(Kind::Event, "gone");
        tx.edit(&gone, Some(&doc! {"_id": "gone", "person": "ANA001"}), &Actor::Operator(0))?;
        tx.edit(&gone, None, &Actor::Operator(0))?;
        let path = vec!["note".to_owned()];
        let (local, remote) = (Some("here".into()), Some("from the start".into()));
        let clash = Clash { path, base: None, local, remote, stands: Side::Remote };
        tx.add_conflict(&RecordKey::new(Kind::Event, "r1"), &clash, None)?;
        tx.open_emergency("ANA001", &Reason::parse(b"unconscious, allergies?").unwrap())
            .map_err(|_| StoreError::Failed("too many emergencies".to_owned()))
    });
    let emergency = furnish.await.unwrap();
    let conflicts = node.get("/sync/conflicts").by_operator().send().await.is(200, NOTHING).json();
    let value = conflicts.as_array().unwrap().iter().find(|conflict| conflict["type"] == "value").unwrap();
    let conflict = value["id"].as_str().unwrap().to_owned();
    Furniture {
        hold,
        conflict,
        trash: listed(node, "/trash?limit=1").await,
        emergency: emergency.to_string(),
    }
}

struct Furniture {
    hold: String,
    conflict: String,
    trash: String,
    emergency: String,
}

/// The id of the first one in a list.
async fn listed(node: &TestNode, path: &str) -> String {
    let list = node.get(path).by_operator().send().await.is(200, NOTHING).json();
    list[0]["id"].to_string().replace('"', "")
}

impl Furniture {
    /// The requests to a route that would succeed.
    async fn cases(&self, world: &World, pattern: &str, method: &str) -> Vec<Case> {
        let decision = |id: &str, body: serde_json::Value| {
            let path = pattern.replace("{id}", id);
            Case { path, body: body.to_string().into_bytes() }
        };
        let without_body = |id: &str| Case { path: pattern.replace("{id}", id), body: Vec::new() };
        match pattern {
            "/sync/conflicts/{id}/resolution" => vec![
                decision(&self.conflict, json!({"take": "local"})),
                decision(&self.hold, json!({"decide": "same"})),
            ],
            "/sync/conflicts/{id}/resolution/trial" => {
                vec![decision(&self.conflict, json!({"take": "local"}))]
            }
            "/sync/dead/{id}/retry" => vec![without_body("event:retry")],
            "/sync/dead/{id}/take-central" => vec![without_body("event:central")],
            "/sync/dead/{id}/discard" => vec![without_body("event:discard")],
            "/trash/{id}/restore" => vec![without_body(&self.trash)],
            "/emergencies/{id}/review" => vec![without_body(&self.emergency)],
            _ => {
                let body = world.body(pattern, method).await.unwrap_or_default();
                vec![Case { path: path_of(pattern, method), body }]
            }
        }
    }
}

/// A node whose store has a writer of its own, and a person whom the centre knows as somebody else.
async fn world(directory: &tempfile::TempDir) -> World {
    let sim = Sim::default();
    let hub = Arc::new(sim.clone());
    let node = TestNode::start_with(|setup| {
        setup.file = Some(directory.path().join("store.redb"));
        setup.hub = Some(hub);
    });
    node.person("HOLD01", &["end_user"]).await;
    sim.put(
        Kind::Person,
        doc! {"_id": "HOLD01", "name": "Beatriz", "lastname": "Cordara", "dob": "1984-10-05", "active": true},
    );
    World::on(node, false).await
}

/// The change in a transaction; how many rows it leaves in the journal. What is no part of the store is changed by
/// [`World::make`].
fn change_account(tx: &mut Tx<'_>, caller: &str, change: Change) -> Result<u64, StoreError> {
    let operator = Actor::Operator(0);
    let mut rows = 0;
    let mut set = |fields: Document| -> Result<(), StoreError> {
        if let Some(name) = caller.strip_suffix("@local") {
            let mut account = tx.local_account(name)?.unwrap();
            account.extend(fields);
            return tx.set_local_account(name, Some(&account), &operator);
        }
        let key = RecordKey::new(Kind::Person, caller);
        let mut person = tx.document(&key)?.unwrap();
        person.extend(fields);
        tx.edit(&key, Some(&person), &operator)?;
        rows += 1;
        Ok(())
    };
    match change {
        Change::Disabled => set(doc! {"active": false})?,
        Change::PasswordChanged => set(doc! {"password": NEW_HASH.as_str()})?,
        Change::RoleTaken => set(doc! {"roles": ["end_user"]})?,
        Change::DisabledAndEnabled => {
            set(doc! {"active": false})?;
            set(doc! {"active": true})?;
        }
        Change::PasswordSetBack => {
            set(doc! {"password": NEW_HASH.as_str()})?;
            set(doc! {"password": PASSWORD_HASH.as_str()})?;
        }
        Change::RoleGivenBack => {
            set(doc! {"roles": ["end_user"]})?;
            set(doc! {"roles": ["root"]})?;
        }
        Change::RoleGained => set(doc! {"roles": ["root", "end_user"]})?,
        Change::SessionEnded | Change::RulesChanged | Change::RulesPutBack => {}
    }
    Ok(rows)
}

#[tokio::test]
async fn what_is_taken_before_the_transaction_of_any_write_counts() {
    let (mut refused, mut done, mut callers) = (0, 0, 0);
    for (pattern, method) in routes(&World::new(false).await.node).await {
        if ["GET", "HEAD", "OPTIONS"].contains(&method.as_str()) || WITHOUT_WRITE.contains(&pattern) {
            continue;
        }
        let directory = tempfile::TempDir::new().unwrap();
        let mut world = world(&directory).await;
        let furniture = furnish(&world).await;
        let count = furniture.cases(&world, pattern, &method).await.len();
        for (at, change) in (0..count).flat_map(|at| CHANGES.into_iter().map(move |change| (at, change))) {
            callers += 1;
            let is_local = callers % 2 == 0;
            let cell = format!("{method} {pattern} {at} {change:?} {is_local}");
            world.node.node.replace_rules(Acl::built_in()).await.unwrap();
            world.enter(&format!("CHIEF{callers:03}"), is_local).await;
            if change == Change::SessionEnded {
                world.begin_session().await;
            }
            // The password is known then, and the request gets to the writer at once.
            world.call("GET", "/login").send().await.is(200, NOTHING);
            let case = furniture.cases(&world, pattern, &method).await.swap_remove(at);
            let (before, changes) = (world.last_entry().await, world.node.last_change());

            let (began, has_begun) = oneshot::channel();
            let (go, may_go) = mpsc::channel::<()>();
            let (mut began, may_go, caller) = (Some(began), Mutex::new(may_go), world.caller.clone());
            let store = world.node.node.store.unguarded().clone();
            let busy = tokio::spawn(async move {
                let job = move |tx: &mut Tx<'_>| -> Result<u64, StoreError> {
                    let _ = began.take().map(|began| began.send(()));
                    let _ = may_go.lock().unwrap().recv();
                    change_account(tx, &caller, change)
                };
                store.transact(job).await
            });
            has_begun.await.unwrap();
            let mut answer = Box::pin(world.call(&method, &case.path).bytes(case.body).open());
            let asked = Instant::now();
            while world.node.node.store.unguarded().waiting_jobs() == 0 {
                assert!((&mut answer).now_or_never().is_none(), "{cell}: it does not wait for the writer");
                assert!(asked.elapsed() < LATEST, "{cell}: it does not come to the writer");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Rules are in force at once, and written when the writer is free.
            let is_beside =
                matches!(change, Change::SessionEnded | Change::RulesChanged | Change::RulesPutBack);
            let mut beside = Box::pin(async {
                if is_beside {
                    world.make(change).await
                }
            });
            let made = (&mut beside).now_or_never();
            go.send(()).unwrap();
            let answer = answer.await;
            if made.is_none() {
                beside.await;
            }
            let rows = busy.await.unwrap().unwrap();
            assert_eq!(answer.status().as_u16(), change.status(), "{cell}");
            assert_eq!(world.node.last_change(), changes + rows, "{cell}: changes");
            let who = match world.caller.strip_suffix("@local") {
                Some(name) => format!("local:{name}"),
                None => format!("person:{}", world.caller),
            };
            let written = world.written_after(before).await;
            let own = written.iter().filter(|entry| entry.event.who == who);
            let own: Vec<_> = own.map(|entry| (&*entry.event.verb, &*entry.event.outcome)).collect();
            assert_eq!(own, [("denied", "rights_ended")], "{cell}");
            refused += 1;
        }
        // The same is done if nothing is taken, so that the refusals are for that.
        world.node.node.replace_rules(Acl::built_in()).await.unwrap();
        world.enter("CHIEF9", false).await;
        for case in furniture.cases(&world, pattern, &method).await {
            let answer = world.call(&method, &case.path).bytes(case.body).send().await;
            assert!((200..300).contains(&answer.status), "{method} {}: {}", case.path, answer.text());
            done += 1;
        }
    }
    assert!(refused > 400 && done > 40, "{refused} refused, {done} done");
}
