//! Rights hold at the moment of effect: what was taken while a body or an answer was under way is gone.
//!
//! The routes are those of the router itself, so a new one is covered, or fails here until it has a request.

use std::time::Duration;

use axum::body::Body;
use bson::{Document, doc};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use thalamus_edge::accounts::SessionId;
use thalamus_edge::domain::access::{Acl, Actor};
use thalamus_edge::domain::audit::{Entry, What};
use thalamus_edge::domain::emergency::OPEN_S_MAX;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::schema::{Owner, SCHEMAS, Schema, Shape};
use thalamus_edge::store::{AuditQuery, Base, StoreError};
use tokio::sync::oneshot;

use crate::long_answers::fill;
use crate::support::api::{Call, NOTHING, PASSWORD, PASSWORD_HASH, TestNode, elapse, person};
use crate::support::disk::Disk;

pub(crate) const NEW_PASSWORD: &str = "another cradle in Roma";
/// More than one batch of a list.
pub(crate) const RECORDS: usize = 520;
/// These have credentials of their own; see [`a_link_is_good_for_what_it_replaces`].
const OPEN: &[&str] = &["/link/{secret}", "/session", "/session/end"];

/// What becomes of the caller's rights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    Disabled,
    PasswordChanged,
    RoleTaken,
    SessionEnded,
    RulesChanged,
    DisabledAndEnabled,
    PasswordSetBack,
    RoleGivenBack,
    RoleGained,
    RulesPutBack,
}

pub(crate) const CHANGES: [Change; 10] = [
    Change::Disabled,
    Change::PasswordChanged,
    Change::RoleTaken,
    Change::SessionEnded,
    Change::RulesChanged,
    Change::DisabledAndEnabled,
    Change::PasswordSetBack,
    Change::RoleGivenBack,
    Change::RoleGained,
    Change::RulesPutBack,
];

impl Change {
    pub(crate) fn status(self) -> u16 {
        match self {
            Change::RoleTaken | Change::RulesChanged | Change::RulesPutBack => 403,
            _ => 401,
        }
    }
}

pub(crate) struct World {
    pub(crate) node: TestNode,
    /// An administrator, by the name with which they log in.
    pub(crate) caller: String,
    pub(crate) cookie: Option<String>,
    token: String,
}

impl World {
    pub(crate) async fn new(is_local: bool) -> World {
        World::on(TestNode::start(), is_local).await
    }

    pub(crate) async fn on(node: TestNode, is_local: bool) -> World {
        node.person("ANA001", &["end_user"]).await;
        for kind in Kind::ALL {
            let record = record_of(kind.schema(), "r1");
            match kind {
                Kind::Person => {
                    let mut gone = person("r1", &["end_user"]);
                    gone.extend(doc! {"_id": "GONE01", "active": false});
                    node.record(kind, gone).await;
                }
                _ => node.record(kind, record).await,
            }
        }
        let mut world = World { node, caller: String::new(), cookie: None, token: String::new() };
        world.enter("BOSS09", is_local).await;
        world
    }

    /// Makes an administrator the caller.
    pub(crate) async fn enter(&mut self, id: &str, is_local: bool) {
        (self.cookie, self.token) = (None, String::new());
        if is_local {
            let account = doc! {"password": PASSWORD_HASH.as_str(), "roles": ["root"]};
            let name = id.to_lowercase();
            let set = self.node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
                tx.set_local_account(&name, Some(&account), &Actor::Operator(0))
            });
            set.await.unwrap();
            self.caller = format!("{}@local", id.to_lowercase());
        } else {
            self.node.person(id, &["root"]).await;
            self.caller = id.to_owned();
        }
    }

    /// Logs in with a browser.
    pub(crate) async fn begin_session(&mut self) {
        let form = format!("account={}&password={PASSWORD}", self.caller.replace('@', "%40"));
        let answer = self.node.request("POST", "/session").bytes(form.replace(' ', "+")).send().await;
        let answer = answer.is(303, NOTHING);
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        let page = self.node.get("/session").header("cookie", &cookie).send().await;
        self.token = page.header("x-csrf-token").to_owned();
        self.cookie = Some(cookie);
    }

    pub(crate) fn call(&self, method: &str, path: &str) -> Call<'_> {
        let call = self.node.request(method, path);
        match &self.cookie {
            Some(cookie) => call.header("cookie", cookie).header("x-csrf-token", &self.token),
            None => call.login(&self.caller, PASSWORD),
        }
    }

    pub(crate) async fn make(&self, change: Change) {
        match change {
            Change::Disabled => self.user("/active", json!({"active": false})).await,
            Change::PasswordChanged => self.user("/password", json!({"password": NEW_PASSWORD})).await,
            Change::RoleTaken => self.user("", json!({"roles": ["end_user"]})).await,
            Change::SessionEnded => {
                let secret = self.cookie.as_ref().unwrap().strip_prefix("__Host-session=").unwrap();
                self.node.node.accounts.sessions().end(&SessionId::of(secret)).unwrap();
            }
            Change::RulesChanged => {
                let rules = r#"[{"role": "root", "permissions": {"GET": ["login"]}}]"#;
                let (rules, _) = Acl::parse(rules).unwrap();
                self.node.node.replace_rules(rules).await.unwrap();
            }
            Change::DisabledAndEnabled => {
                self.user("/active", json!({"active": false})).await;
                self.user("/active", json!({"active": true})).await;
            }
            Change::PasswordSetBack => {
                self.user("/password", json!({"password": NEW_PASSWORD})).await;
                self.set_hash_back().await;
            }
            Change::RoleGivenBack => {
                self.user("", json!({"roles": ["end_user"]})).await;
                self.user("", json!({"roles": ["root"]})).await;
            }
            Change::RoleGained => self.user("", json!({"roles": ["root", "end_user"]})).await,
            Change::RulesPutBack => {
                let before = Acl::clone(&self.node.node.acl.read().unwrap());
                let (rules, _) = Acl::parse(r#"[{"role": "root", "permissions": {}}]"#).unwrap();
                self.node.node.replace_rules(rules).await.unwrap();
                self.node.node.replace_rules(before).await.unwrap();
            }
        }
    }

    /// The operator changes the caller's account.
    async fn user(&self, end: &str, body: Value) {
        let answer = self.node.post(&format!("/users/{}{end}", self.caller), body).by_operator().send().await;
        assert!(answer.status < 300, "{}", answer.text());
    }

    /// Gives the caller the very hash that they had at the beginning.
    async fn set_hash_back(&self) {
        let caller = self.caller.clone();
        let set = self.node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
            let hash = PASSWORD_HASH.as_str();
            if let Some(name) = caller.strip_suffix("@local") {
                let mut account = tx.local_account(name)?.unwrap();
                account.insert("password", hash);
                return tx.set_local_account(name, Some(&account), &Actor::Operator(0));
            }
            let key = RecordKey::new(Kind::Person, caller.as_str());
            let mut person = tx.document(&key)?.unwrap();
            person.insert("password", hash);
            tx.edit(&key, Some(&person), &Actor::Operator(0)).map(drop)
        });
        set.await.unwrap();
    }

    /// The entries of the audit trail after this one, but for those about reads.
    pub(crate) async fn written_after(&self, seq: u64) -> Vec<Entry> {
        let store = self.node.node.store.unguarded();
        store.flush_notes().await.unwrap();
        let query = AuditQuery { after: Some(seq), limit: usize::MAX, ..AuditQuery::default() };
        let rows = store.read().unwrap().audit(&query).unwrap().rows.into_iter().map(Result::unwrap);
        let reads = [What::Read, What::List, What::Login].map(What::name);
        rows.filter(|entry| !reads.contains(&&*entry.event.verb)).collect()
    }

    /// What the caller has left in the trail after this entry but reads and logins: verb and outcome of each.
    pub(crate) async fn own_entries_after(&self, seq: u64) -> Vec<String> {
        let who = match self.caller.strip_suffix("@local") {
            Some(name) => format!("local:{name}"),
            None => format!("person:{}", self.caller),
        };
        let written = self.written_after(seq).await;
        let own = written.iter().filter(|entry| entry.event.who == who);
        own.map(|entry| format!("{} {}", entry.event.verb, entry.event.outcome)).collect()
    }

    pub(crate) async fn last_entry(&self) -> u64 {
        self.node.node.store.flush_notes().await.unwrap();
        self.node.node.store.read().unwrap().audit_head().unwrap().seq
    }

    /// What a request to the route sends; `None` if it takes no body.
    pub(crate) async fn body(&self, pattern: &str, method: &str) -> Option<Vec<u8>> {
        let route = SCHEMAS.iter().flat_map(|schema| schema.routes.iter().map(move |route| (schema, route)));
        let mut route = route.filter(|(_, route)| route.path == pattern);
        if let Some((schema, route)) = route.next() {
            return match (method, route.shape) {
                ("DELETE", _) => Some(Vec::new()),
                (_, Shape::Content) => Some(b"bytes".to_vec()),
                _ => {
                    let mut body = json!({"note": "from far away"});
                    if let (Owner::Field(field), "POST" | "PUT") = (schema.owner, method) {
                        body[field] = json!("ANA001");
                    }
                    if schema.kind == Kind::Page {
                        body["id"] = json!(if method == "POST" { "new" } else { "r1" });
                    }
                    Some(body.to_string().into_bytes())
                }
            };
        }
        let body: Value = match (method, pattern) {
            ("POST", "/users/{id}") => json!({"roles": ["root"], "local": true, "password": NEW_PASSWORD}),
            ("POST", "/users/{id}/password") => json!({"password": NEW_PASSWORD}),
            ("POST", "/users/{id}/active") => json!({"active": false}),
            ("POST", "/sync/rounds") => json!({"verify": true}),
            ("POST", "/sync/resume" | "/users/{id}/link") => json!({}),
            ("POST", "/sync/conflicts/trial") => json!({"decisions": []}),
            // There is none, which is said when its body has come.
            ("POST", "/sync/conflicts/{id}/resolution" | "/sync/conflicts/{id}/resolution/trial") => {
                json!({"take": "local"})
            }
            ("POST", "/password/{person_id}") => {
                let page = self.call("GET", "/password/ANA001").send().await.is(200, NOTHING).text();
                let token =
                    page.split("name=\"csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
                let new = NEW_PASSWORD.replace(' ', "+");
                return Some(format!("token={token}&password={new}&again={new}").into_bytes());
            }
            _ => return None,
        };
        Some(body.to_string().into_bytes())
    }
}

pub(crate) fn record_of(schema: &Schema, id: &str) -> Document {
    let mut record = doc! {"_id": id, "note": "from the start"};
    if let Owner::Field(field) = schema.owner {
        record.insert(field, "ANA001");
    }
    record
}

/// The path to what a request to the route is about.
pub(crate) fn path_of(pattern: &str, method: &str) -> String {
    let person = match (pattern, method) {
        ("/people/{person_id}", "POST") => "NEW001",
        ("/people/{person_id}", "DELETE") => "GONE01",
        _ => "ANA001",
    };
    let id = match (pattern, method) {
        ("/users/{id}", _) => "fred",
        (users, _) if users.starts_with("/users/") => "ANA001",
        (_, "POST") => "new",
        _ => "r1",
    };
    pattern.replace("{person_id}", person).replace("{id}", id)
}

/// Every route and what it knows, from the router.
pub(crate) async fn routes(node: &TestNode) -> Vec<(&'static str, String)> {
    let mut routes = Vec::new();
    for pattern in node.patterns().into_iter().filter(|pattern| !OPEN.contains(pattern)) {
        let path = path_of(pattern, "OPTIONS");
        let options = node.request("OPTIONS", &path).by_operator().send().await;
        let allow = options.headers["allow"].to_str().unwrap().to_owned();
        routes.extend(allow.split(',').map(|method| (pattern, method.trim().to_owned())));
    }
    assert!(routes.len() > 60, "{routes:?}");
    routes
}

/// A body that comes in two halves. Tells when it is asked for, and goes on when it is told to.
fn in_halves(bytes: &[u8]) -> (Body, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let (asked, is_asked) = oneshot::channel();
    let (go, may_go) = oneshot::channel::<()>();
    let (first, second) = (first.to_vec(), second.to_vec());
    let begin = stream::once(async move {
        asked.send(()).unwrap();
        Ok::<_, std::io::Error>(first)
    });
    let rest = stream::once(async move {
        may_go.await.unwrap();
        Ok(second)
    });
    (Body::from_stream(begin.chain(rest)), is_asked, go)
}

#[tokio::test]
async fn what_is_taken_while_a_body_is_under_way_counts_for_every_write() {
    let mut held = Vec::new();
    for (pattern, method) in routes(&World::new(false).await.node).await {
        if ["GET", "HEAD", "OPTIONS"].contains(&method.as_str()) {
            continue;
        }
        for (change, is_local) in CHANGES.into_iter().flat_map(|change| [(change, false), (change, true)]) {
            let cell = format!("{method} {pattern} {change:?} {}", if is_local { "local" } else { "person" });
            let mut world = World::new(is_local).await;
            if change == Change::SessionEnded {
                world.begin_session().await;
            }
            let body = world.body(pattern, &method).await;
            let (stream, is_asked, go) = in_halves(body.as_deref().unwrap_or(b"{}"));
            let path = path_of(pattern, &method);
            let mut answer = Box::pin(world.call(&method, &path).bytes(stream).open());
            let answered = tokio::select! {
                biased;
                answer = &mut answer => Some(answer),
                asked = is_asked => asked.map(|()| None).unwrap(),
            };
            if answered.is_some() {
                // It does not look at a body: its moment is that of its head.
                assert_eq!(body, None, "{cell}: it is answered before the body has come");
                continue;
            }
            assert!(body.is_some(), "{cell}: it waits for a body; what does it take?");
            world.make(change).await;
            let (before, changes) = (world.last_entry().await, world.node.last_change());
            go.send(()).unwrap();
            let answer = answer.await;
            assert_eq!(answer.status().as_u16(), change.status(), "{cell}");
            assert_eq!(world.node.last_change(), changes, "{cell}: changes");
            let written = world.written_after(before).await;
            let [Entry { event, .. }] = written.as_slice() else { panic!("{cell}: {written:?}") };
            assert_eq!((&*event.verb, &*event.outcome), ("denied", "rights_ended"), "{cell}");
            held.push(cell);
        }
    }
    // Records alone: six methods' worth of eight kinds.
    assert!(held.len() > 300, "{}: {held:?}", held.len());
}

/// The same requests are answered as ever if nothing is taken, so that the refusals above are for that.
#[tokio::test]
async fn a_body_that_takes_its_time_is_taken_if_nothing_was() {
    for (pattern, method) in routes(&World::new(false).await.node).await {
        for is_local in [false, true] {
            let world = World::new(is_local).await;
            let Some(body) = world.body(pattern, &method).await else { continue };
            if ["GET", "HEAD", "OPTIONS"].contains(&method.as_str()) {
                continue;
            }
            let (stream, is_asked, go) = in_halves(&body);
            let path = path_of(pattern, &method);
            let call = world.call(&method, &path).bytes(stream);
            let (answer, ()) = tokio::join!(call.open(), async {
                is_asked.await.unwrap();
                // A change of somebody else takes nothing.
                let grant = json!({"roles": ["root"], "password": NEW_PASSWORD, "local": true});
                world.node.post("/users/other", grant).by_operator().send().await;
                go.send(()).unwrap();
            });
            let status = answer.status().as_u16();
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            let expected = match pattern {
                "/sync/conflicts/{id}/resolution" | "/sync/conflicts/{id}/resolution/trial" => status == 404,
                _ => (200..300).contains(&status),
            };
            assert!(expected, "{method} {pattern}: {status} {}", String::from_utf8_lossy(&text));
        }
    }
}

/// Between the body and the transaction there is time too: it waits for its turn, or for the hash of a password.
#[tokio::test]
async fn what_is_taken_before_the_transaction_counts() {
    for (change, is_local) in CHANGES.into_iter().flat_map(|change| [(change, false), (change, true)]) {
        let mut world = World::new(is_local).await;
        if change == Change::SessionEnded {
            world.begin_session().await;
        }
        world.call("GET", "/events/r1").send().await.is(200, NOTHING);
        let turn = world.node.node.store.turn(Kind::Event, "r1").await;
        let call = world.call("PATCH", "/events/r1").json(&json!({"note": "late"}));
        let mut answer = Box::pin(call.open());
        for _ in 0..100 {
            assert!((&mut answer).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        world.make(change).await;
        let (before, changes) = (world.last_entry().await, world.node.last_change());
        drop(turn);
        assert_eq!(answer.await.status().as_u16(), change.status(), "{change:?}");
        assert_eq!(world.node.last_change(), changes, "{change:?}");
        let written = world.written_after(before).await;
        // Rules are read again by the handler too, which has the turn now.
        let expected = if change == Change::RulesChanged { "forbidden" } else { "rights_ended" };
        let outcomes: Vec<&str> = written.iter().map(|entry| &*entry.event.outcome).collect();
        assert_eq!(outcomes, [expected], "{change:?}");
    }
}

/// A list goes on while others are changed, and its reader in what has nothing to do with their rights.
#[tokio::test]
async fn an_answer_under_way_goes_on_if_nothing_was_taken() {
    let world = World::new(false).await;
    fill(&world.node).await;
    let mut body = world.call("GET", "/events").open().await.into_body();
    let mut shown = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    world.node.person("OTHER1", &["root"]).await;
    let phone = json!({"phone": "555"});
    let phone = world.call("PATCH", "/people/BOSS09").json(&phone).send().await;
    assert_eq!(phone.status, 200);
    world.node.node.replace_rules(Acl::built_in()).await.unwrap();
    shown.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    let shown: Vec<Value> = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown.len(), RECORDS + 1);
}

const EMERGENCY_ROLES: &str = r#"[
    {"role": "end_user", "permissions": {"GET": ["person", "book", "page"], "global": "False"}},
    {"role": "health_professional", "permissions": {"GET": ["person", "book", "page"], "emergency": true}},
    {"role": "root", "permissions": {"GET": ["users"], "POST": ["users"], "global": "True"}}]"#;

/// What a professional reads of somebody in an emergency ends with it, in the middle of a list too.
#[tokio::test]
async fn a_list_under_an_emergency_ends_with_it() {
    for is_by_time in [true, false] {
        let node = TestNode::start_with(|setup| {
            setup.settings.emergency_access = true;
            setup.roles = EMERGENCY_ROLES.to_owned();
        });
        node.person("ANA001", &["end_user"]).await;
        node.person("DOC003", &["health_professional"]).await;
        let pages = node.node.store.unguarded().transact(|tx| -> Result<(), StoreError> {
            for n in 0..RECORDS {
                let id = format!("p{n:04}");
                let page = doc! {"_id": &id, "book": "ANA001"};
                let key = RecordKey::new(Kind::Page, id.as_str());
                tx.put(&key, Some(&page), &Base::Document(page.clone()), &Actor::Centre)?;
            }
            Ok(())
        });
        pages.await.unwrap();
        let call = node.get("/pols/ANA001").by("DOC003");
        let answer = call.header("x-emergency-reason", "unconscious, allergies?").open().await;
        assert_eq!(answer.status().as_u16(), 200);
        let mut body = answer.into_body();
        body.frame().await.unwrap().unwrap();
        body.frame().await.unwrap().unwrap();
        if is_by_time {
            elapse(Duration::from_secs(OPEN_S_MAX));
        } else {
            // The row of the opening ends with any change of the account.
            let same = json!({"roles": ["health_professional"]});
            let answer = node.post("/users/DOC003", same).by_operator().send().await;
            assert_eq!(answer.status, 200);
        }
        assert!(body.frame().await.unwrap().is_err(), "by time: {is_by_time}");
    }
}

/// What may become of a link, the last of which takes nothing.
pub(crate) const LINK_CHANGES: [&str; 8] =
    ["used", "replaced", "closed", "reopened", "password", "maker closed", "maker reopened", "nothing"];
/// What the form of a link sends.
pub(crate) const LINK_FORM: &str = "password=another+cradle+in+Roma&again=another+cradle+in+Roma";

/// Where a link to the account leads; ANA001 and the technician fred may have one. BOSS09 has made it.
pub(crate) async fn make_link(node: &TestNode, account: &str) -> String {
    node.person("ANA001", &["end_user"]).await;
    node.person("BOSS09", &["root"]).await;
    let fred = json!({"roles": ["root"], "local": true, "password": PASSWORD});
    node.post("/users/fred", fred).by_operator().send().await.is(201, NOTHING);
    let made = node.post(&format!("/users/{account}/link"), json!({})).by("BOSS09").send().await;
    made.is(201, NOTHING).json()["path"].as_str().unwrap().to_owned()
}

pub(crate) async fn change_link(node: &TestNode, account: &str, path: &str, what: &str) {
    let user =
        |end: &str, body: Value| node.post(&format!("/users/{account}/{end}"), body).by_operator().send();
    let boss = async |active: bool| {
        let call = node.post("/users/BOSS09/active", json!({"active": active})).by_operator();
        call.send().await.is(204, &["update people/BOSS09"]);
    };
    match what {
        "used" => drop(node.request("POST", path).bytes(LINK_FORM).send().await),
        "replaced" => {
            drop(node.post(&format!("/users/{account}/link"), json!({})).by("BOSS09").send().await);
        }
        "closed" => drop(user("active", json!({"active": false})).await),
        "reopened" => {
            user("active", json!({"active": false})).await;
            user("active", json!({"active": true})).await;
        }
        "password" => drop(user("password", json!({"password": NEW_PASSWORD})).await),
        "maker closed" => boss(false).await,
        "maker reopened" => {
            boss(false).await;
            boss(true).await;
        }
        _ => {}
    }
}

/// A link is a right too: it is gone once it is used, replaced, or its account or its maker's closed, while its form is
/// under way.
#[tokio::test]
async fn a_link_is_good_for_what_it_replaces() {
    for account in ["ANA001", "fred@local"] {
        for what in LINK_CHANGES {
            let node = TestNode::start();
            let path = make_link(&node, account).await;
            let (stream, is_asked, go) = in_halves(LINK_FORM.as_bytes());
            let mut answer = Box::pin(node.request("POST", &path).bytes(stream).open());
            tokio::select! {
                answer = &mut answer => panic!("{what}: {}", answer.status()),
                asked = is_asked => asked.unwrap(),
            }
            change_link(&node, account, &path, what).await;
            go.send(()).unwrap();
            let expected = if what == "nothing" { 200 } else { 401 };
            assert_eq!(answer.await.status().as_u16(), expected, "{account} {what}");
        }
    }
}

/// An administrator who gives themselves a link does it in one step: the first half cannot end the right to the second.
#[tokio::test]
async fn one_request_makes_ones_own_account_and_its_link() {
    let world = World::new(true).await;
    let own = json!({"roles": ["root"], "password": NEW_PASSWORD, "link": true, "local": true});
    let answer = world.call("POST", "/users/boss09").json(&own).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["link"]["path"].as_str().is_some());
}

/// What somebody was let in by does not come back with the account: a session that nobody used meanwhile.
#[tokio::test]
async fn a_session_does_not_outlast_a_change_that_is_taken_back() {
    let back =
        [Change::DisabledAndEnabled, Change::PasswordSetBack, Change::RoleGivenBack, Change::RoleGained];
    for (change, is_local) in back.into_iter().flat_map(|change| [(change, false), (change, true)]) {
        for is_swept in [false, true] {
            let mut world = World::new(is_local).await;
            world.begin_session().await;
            let before = world.last_entry().await;
            world.make(change).await;
            let ends = || async {
                let written = world.written_after(before).await;
                written.iter().filter(|entry| &*entry.event.verb == "session_end").count()
            };
            if is_swept {
                world.node.node.end_old_sessions();
                assert_eq!(ends().await, 1, "{change:?} {is_local}: it is told though nobody uses it");
            }
            let late = world.call("PATCH", "/events/r1").json(&json!({"note": "late"})).send().await;
            late.is(401, NOTHING);
            assert_eq!(ends().await, 1, "{change:?} {is_local}");
            // By their password they get in as before.
            world.cookie = None;
            let login = world.call("GET", "/login").send().await;
            assert_eq!(login.status, 200, "{change:?} {is_local}");
        }
    }
}

/// Deleted and put back as it was: another account, as far as anybody knows.
#[tokio::test]
async fn nothing_outlasts_the_account() {
    let mut world = World::new(false).await;
    world.begin_session().await;
    let link = world.node.post("/users/BOSS09/link", json!({})).by_operator().send().await;
    let path = link.is(201, NOTHING).json()["path"].as_str().unwrap().to_owned();
    let boss = world.node.stored(Kind::Person, "BOSS09");
    world.node.restore(Kind::Person, "BOSS09", None).await;
    world.node.restore(Kind::Person, "BOSS09", boss).await;
    world.call("GET", "/events/r1").send().await.is(401, NOTHING);
    world.node.get(&path).send().await.is(401, NOTHING);
}

/// What rules have ended does not come back with others because the store took nothing while they were in force.
#[tokio::test]
async fn rules_that_could_not_be_written_count_all_the_same() {
    let disk = Disk::default();
    let start = || TestNode::start_with(|setup| setup.disk = Some(disk.clone()));
    let node = start();
    node.people().await;
    let made = node.post("/users/ANA001/link", json!({})).by("ROOT004").send().await.is(201, NOTHING);
    let path = made.json()["path"].as_str().unwrap().to_owned();
    let link = async |node: &TestNode| node.get(&path).send().await.status;
    assert_eq!(link(&node).await, 200);
    let (others, _) =
        Acl::parse(r#"[{"role": "root", "permissions": {"GET": ["login", "users"], "global": true}}]"#)
            .unwrap();
    disk.set_full(true);
    node.node.replace_rules(others.clone()).await.unwrap_err();
    // The same again is tried again.
    node.node.replace_rules(others).await.unwrap_err();
    node.node.replace_rules(Acl::built_in()).await.unwrap_err();
    disk.set_full(false);
    let settled = async || {
        for _ in 0..100 {
            if node.node.settle_rules().await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    // Before it is written: the node can read again once it is asked to.
    while node.node.store.read().is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(link(&node).await, 401, "the rules in force allow it, those before did not");
    assert!(settled().await);
    assert_eq!(link(&node).await, 401);
    node.node.settle_rules().await.unwrap();
    drop(node);
    let node = start();
    node.node.begin_with_rules().await.unwrap();
    assert_eq!(link(&node).await, 401, "it is in the store");
}
