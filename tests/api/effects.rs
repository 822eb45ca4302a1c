//! Rights hold in the transaction of every write: what is taken while a write waits for the store's writer counts.
//!
//! The routes are those of the router itself. Each write waits behind a transaction that changes the caller's account, so
//! that nothing but the check in its own transaction can see the change.

use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use bson::{Document, doc};
use futures_util::FutureExt as _;
use serde_json::json;
use thalamus_edge::accounts::BCRYPT_COST_MIN;
use thalamus_edge::domain::access::{Acl, Actor, BUILT_IN_ROLES};
use thalamus_edge::domain::emergency::Reason;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, DeadLetter, StoreError, Tx};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::rights::{
    CHANGES, Change, LINK_CHANGES, LINK_FORM, NEW_PASSWORD, World, change_link, make_link, path_of, routes,
};
use crate::support::api::{NOTHING, PASSWORD_HASH, TestNode};
use crate::support::disk::damage;
use crate::support::sim::Sim;
use crate::waits::BusyHashes;

static NEW_HASH: LazyLock<String> = LazyLock::new(|| bcrypt::hash(NEW_PASSWORD, BCRYPT_COST_MIN).unwrap());

/// When a request has come to the writer, however busy the machine is.
const LATEST: Duration = Duration::from_secs(20);
/// Has a test of its own below: a record that is not damaged is not set aside.
const SET_ASIDE: &str = "/sync/damaged/{id}/set-aside";
/// Writes a file, and nothing into the store: it waits behind another backup.
const BACKUPS: &str = "/backups";

/// A request whose write is to be refused.
struct Case {
    path: String,
    body: Vec<u8>,
}

/// Puts what the routes decide about into the store.
async fn furnish(world: &World) -> Furniture {
    let node = &world.node;
    // On a busy machine the time of a round may be over before its end.
    for turn in 1.. {
        let round = node.post("/sync/rounds", json!({})).by_operator().send().await.is(200, NOTHING).json();
        if round["outcome"] == "complete" {
            break;
        }
        assert!(turn < 20, "{round}");
    }
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

/// The access rules of the installation, by which root also makes backups.
fn rules() -> Acl {
    Acl::parse(&BUILT_IN_ROLES.replace("\"POST\": [", "\"POST\": [\"backups\", ")).unwrap().0
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

/// Changes what is no part of the store.
fn is_beside(change: &Change) -> bool {
    [Change::SessionEnded, Change::RulesChanged, Change::RulesPutBack].contains(change)
}

/// The writer of a node, kept busy by a transaction until it is told to go on.
pub(crate) struct BusyWriter {
    go: mpsc::Sender<()>,
    job: JoinHandle<Result<u64, StoreError>>,
}

impl BusyWriter {
    /// Returns when the writer is busy. `change`: what the transaction does to the account of the caller.
    pub(crate) async fn begin(world: &World, change: Option<Change>) -> BusyWriter {
        let (began, has_begun) = oneshot::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (mut began, may_go, caller) = (Some(began), Mutex::new(may_go), world.caller.clone());
        let store = world.node.node.store.unguarded().clone();
        let job = tokio::spawn(async move {
            let job = move |tx: &mut Tx<'_>| -> Result<u64, StoreError> {
                let _ = began.take().map(|began| began.send(()));
                let _ = may_go.lock().unwrap().recv();
                change.map_or(Ok(0), |change| change_account(tx, &caller, change))
            };
            store.transact(job).await
        });
        has_begun.await.unwrap();
        BusyWriter { go, job }
    }

    /// Returns when so many jobs wait for the writer behind it.
    pub(crate) async fn is_awaited(
        world: &World,
        jobs: usize,
        answer: &mut (impl Future<Output = Response<Body>> + Unpin),
        cell: &str,
    ) {
        let asked = Instant::now();
        while world.node.node.store.unguarded().waiting_jobs() < jobs {
            assert!((&mut *answer).now_or_never().is_none(), "{cell}: it does not wait for the writer");
            assert!(asked.elapsed() < LATEST, "{cell}: it does not come to the writer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Goes on with one transaction of the waiting request and, behind it in the same commit, with the change; what is no
    /// part of the store is changed then. The request has not been told of its transaction when this returns.
    pub(crate) async fn release_before(
        self,
        world: &World,
        change: Change,
        answer: &mut (impl Future<Output = Response<Body>> + Unpin),
        cell: &str,
    ) {
        let (store, caller) = (world.node.node.store.unguarded().clone(), world.caller.clone());
        let behind = tokio::spawn(async move {
            store.transact(move |tx: &mut Tx<'_>| change_account(tx, &caller, change)).await
        });
        BusyWriter::is_awaited(world, 2, answer, cell).await;
        self.go.send(()).unwrap();
        self.job.await.unwrap().unwrap();
        behind.await.unwrap().unwrap();
        if is_beside(&change) {
            world.make(change).await;
        }
    }

    /// Goes on, after what is no part of the store has been changed. Returns the answer that was waited for, and how many
    /// rows the change has left in the journal.
    pub(crate) async fn release<T>(
        self,
        world: &World,
        change: Option<Change>,
        answer: impl Future<Output = T>,
    ) -> (T, u64) {
        // Rules are in force at once, and written when the writer is free.
        let mut beside = Box::pin(async {
            if let Some(change) = change.filter(is_beside) {
                world.make(change).await
            }
        });
        let made = (&mut beside).now_or_never();
        self.go.send(()).unwrap();
        let answer = answer.await;
        if made.is_none() {
            beside.await;
        }
        (answer, self.job.await.unwrap().unwrap())
    }
}

/// The answer to a request for a backup that comes while another one is made, and after which the caller's rights change.
async fn behind_a_backup(
    world: &World,
    change: Change,
    mut answer: impl Future<Output = Response<Body>> + Unpin,
) -> Response<Body> {
    // It has its turn for as long as nobody asks what became of it.
    let mut first = Box::pin(world.node.node.backups.create());
    assert!((&mut first).now_or_never().is_none());
    for _ in 0..100 {
        let early = (&mut answer).now_or_never().map(|answer| answer.status());
        assert_eq!(early, None, "{change:?}: it does not wait for its turn");
        tokio::task::yield_now().await;
    }
    world.make(change).await;
    let first = first.await.unwrap();
    let answer = answer.await;
    // Only the last one is kept.
    assert!(first.file.exists(), "{change:?}: there is another backup");
    answer
}

#[tokio::test]
async fn what_is_taken_before_the_transaction_of_any_write_counts() {
    let (mut refused, mut done, mut callers) = (0, 0, 0);
    for (pattern, method) in routes(&World::new(false).await.node).await {
        if ["GET", "HEAD", "OPTIONS"].contains(&method.as_str()) || pattern == SET_ASIDE {
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
            world.node.node.replace_rules(rules()).await.unwrap();
            world.enter(&format!("CHIEF{callers:03}"), is_local).await;
            if change == Change::SessionEnded {
                world.begin_session().await;
            }
            // The password is known then, and the request gets to the writer at once.
            world.call("GET", "/login").send().await.is(200, NOTHING);
            let case = furniture.cases(&world, pattern, &method).await.swap_remove(at);
            let (before, changes) = (world.last_entry().await, world.node.last_change());

            let mut answer = Box::pin(world.call(&method, &case.path).bytes(case.body).open());
            let (answer, rows) = if pattern == BACKUPS {
                (behind_a_backup(&world, change, answer).await, world.node.last_change() - changes)
            } else {
                let busy = BusyWriter::begin(&world, Some(change)).await;
                BusyWriter::is_awaited(&world, 1, &mut answer, &cell).await;
                busy.release(&world, Some(change), answer).await
            };
            assert_eq!(answer.status().as_u16(), change.status(), "{cell}");
            assert_eq!(world.node.last_change(), changes + rows, "{cell}: changes");
            assert_eq!(world.own_entries_after(before).await, ["denied rights_ended"], "{cell}");
            refused += 1;
        }
        // The same is done if nothing is taken, so that the refusals are for that.
        world.node.node.replace_rules(rules()).await.unwrap();
        world.enter("CHIEF9", false).await;
        for case in furniture.cases(&world, pattern, &method).await {
            let answer = world.call(&method, &case.path).bytes(case.body).send().await;
            assert!((200..300).contains(&answer.status), "{method} {}: {}", case.path, answer.text());
            done += 1;
        }
    }
    assert!(refused > 400 && done > 40, "{refused} refused, {done} done");
}

/// A node with a damaged record.
async fn with_damage(directory: &tempfile::TempDir) -> World {
    let file = directory.path().join("store.redb");
    let start = || TestNode::start_with(|setup| setup.file = Some(file.clone()));
    let rotten = doc! {"_id": "rotten", "person": "ANA001", "note": "what rots away"};
    let node = start();
    node.record(Kind::Event, rotten).await;
    drop(node);
    assert!(damage(&file, "rots away") >= 1);
    World::on(start(), false).await
}

/// It makes two transactions: one looks, and one drops. What is taken between them counts too.
#[tokio::test]
async fn what_is_taken_before_a_damaged_record_is_set_aside_counts() {
    const PATH: &str = "/sync/damaged/event:rotten/set-aside";
    let directory = tempfile::TempDir::new().unwrap();
    let mut world = with_damage(&directory).await;
    let is_there = |world: &World| {
        let key = RecordKey::new(Kind::Event, "rotten");
        world.node.node.store.read().unwrap().record(&key).is_err()
    };
    assert!(is_there(&world));
    let mut number = 0;
    for change in CHANGES {
        for (is_second, is_local) in [(false, false), (false, true), (true, number % 2 == 0)] {
            number += 1;
            let cell = format!("{change:?} {is_second} {is_local}");
            world.node.node.replace_rules(Acl::built_in()).await.unwrap();
            world.enter(&format!("CHIEF{number:03}"), is_local).await;
            if change == Change::SessionEnded {
                world.begin_session().await;
            }
            world.call("GET", "/login").send().await.is(200, NOTHING);
            let at_first = (!is_second).then_some(change);
            let busy = BusyWriter::begin(&world, at_first).await;
            let mut answer = Box::pin(world.call("POST", PATH).open());
            BusyWriter::is_awaited(&world, 1, &mut answer, &cell).await;
            let status = if is_second {
                busy.release_before(&world, change, &mut answer, &cell).await;
                answer.await.status()
            } else {
                busy.release(&world, Some(change), answer).await.0.status()
            };
            assert_eq!(status.as_u16(), change.status(), "{cell}");
            assert!(is_there(&world), "{cell}");
        }
    }
    world.node.node.replace_rules(Acl::built_in()).await.unwrap();
    world.enter("CHIEF999", false).await;
    world.call("POST", PATH).send().await.is(200, &["delete event/rotten"]);
    assert!(!is_there(&world));
}

const EMERGENCY_ROLES: &str = r#"[
    {"role": "end_user", "permissions": {"GET": ["login", "person"]}},
    {"role": "root", "permissions": {"GET": ["login", "person", "book", "page"], "emergency": true}}]"#;

/// A GET that gives a reason writes: it opens somebody's records.
#[tokio::test]
async fn what_is_taken_before_records_are_opened_in_an_emergency_counts() {
    let directory = tempfile::TempDir::new().unwrap();
    let node = TestNode::start_with(|setup| {
        setup.settings.emergency_access = true;
        setup.roles = EMERGENCY_ROLES.to_owned();
        setup.file = Some(directory.path().join("store.redb"));
    });
    let (rules, _) = Acl::parse(EMERGENCY_ROLES).unwrap();
    let mut world = World::on(node, false).await;
    let opened = |world: &World| world.node.node.store.read().unwrap().emergencies().unwrap().len();
    let both = CHANGES.into_iter().flat_map(|change| [(change, false), (change, true)]);
    for (number, (change, is_local)) in both.enumerate() {
        let cell = format!("{change:?} {is_local}");
        world.node.node.replace_rules(rules.clone()).await.unwrap();
        world.enter(&format!("NURSE{number:03}"), is_local).await;
        if change == Change::SessionEnded {
            world.begin_session().await;
        }
        world.call("GET", "/login").send().await.is(200, NOTHING);
        let busy = BusyWriter::begin(&world, Some(change)).await;
        let call = world.call("GET", "/pols/ANA001/r1");
        let mut answer = Box::pin(call.header("x-emergency-reason", "unconscious, allergies?").open());
        BusyWriter::is_awaited(&world, 1, &mut answer, &cell).await;
        let (answer, _) = busy.release(&world, Some(change), answer).await;
        assert_eq!(answer.status().as_u16(), change.status(), "{cell}");
        assert_eq!(opened(&world), 0, "{cell}");
    }
    world.node.node.replace_rules(rules).await.unwrap();
    world.enter("NURSE999", false).await;
    let call = world.call("GET", "/pols/ANA001/r1");
    call.header("x-emergency-reason", "unconscious, allergies?").send().await.is(200, NOTHING);
    assert_eq!(opened(&world), 1);
}

/// A link is a right too. Its form has come, and the hash of the new password is being made: only the transaction sees what
/// is taken then.
#[tokio::test]
async fn what_is_taken_before_a_link_sets_a_password_counts() {
    for account in ["ANA001", "fred@local"] {
        for what in LINK_CHANGES {
            let node = TestNode::start();
            let path = make_link(&node, account).await;
            let busy = BusyHashes::begin(&node).await;
            let mut answer = Box::pin(node.request("POST", &path).bytes(LINK_FORM).open());
            assert!((&mut answer).now_or_never().is_none(), "{account} {what}: it does not wait");
            let before = hash_of(&node, account).await;
            change_link(&node, account, &path, what).await;
            let changed = hash_of(&node, account).await;
            drop(busy);
            let expected = if what == "nothing" { 200 } else { 401 };
            assert_eq!(answer.await.status().as_u16(), expected, "{account} {what}");
            assert_eq!(hash_of(&node, account).await == changed, what != "nothing", "{account} {what}");
            assert_eq!(before == changed, !["used", "password"].contains(&what), "{account} {what}");
        }
    }
}

async fn hash_of(node: &TestNode, account: &str) -> String {
    let document = match account.strip_suffix("@local") {
        Some(name) => node.node.store.read().unwrap().local_account(name).unwrap(),
        None => node.stored(Kind::Person, account),
    };
    document.unwrap().get_str("password").unwrap().to_owned()
}
