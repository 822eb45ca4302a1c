//! A node inside the test: the real router over a store in memory, asked without a network.
//!
//! Every answer carries the changes that the request left in the journal, and [`Answer::is`] compares
//! both, so that no test can overlook a side effect.

use std::cell::Cell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, RwLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::{Document, doc};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use thalamus_edge::accounts::{Accounts, AccountsSettings, BCRYPT_COST_MIN};
use thalamus_edge::backup::{BackupSettings, Backups};
use thalamus_edge::central::Hub;
use thalamus_edge::domain::access::{Acl, Actor, BUILT_IN_ROLES, END_USER, Grant, Verb};
use thalamus_edge::domain::active::ActiveFromCentre;
use thalamus_edge::domain::json::DateFormat;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::http::{
    Api, ApiSettings, AppState, BrowserSessions, ClientStore, CollectionShape, Peer, Received, api,
};
use thalamus_edge::store::{Base, Edit, Store, StoreError, StoreOptions};
use thalamus_edge::sync::{Reconciler, SyncSettings};
use tower::ServiceExt as _;

use super::disk::Disk;
use super::sim::Sim;

/// 2026-11-23T01:28:52Z.
pub(crate) const NOW_MS: i64 = 1_795_397_332_000;
/// The password of everybody made by [`TestNode::person`].
pub(crate) const PASSWORD: &str = "a cradle in Milano";
/// Its hash, at the cheapest cost there is.
pub(crate) static PASSWORD_HASH: LazyLock<String> =
    LazyLock::new(|| bcrypt::hash(PASSWORD, BCRYPT_COST_MIN).unwrap());
/// The change that a request left, when it left none.
pub(crate) const NOTHING: &[&str] = &[];

thread_local! {
    /// Handlers run on the test's own thread, so each test has a clock of its own.
    static CLOCK_MS: Cell<i64> = const { Cell::new(NOW_MS) };
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

pub(crate) fn now_ms() -> i64 {
    CLOCK_MS.get()
}

/// Moves the clock of nodes in this test.
pub(crate) fn pass_time(by: Duration) {
    CLOCK_MS.set(CLOCK_MS.get() + i64::try_from(by.as_millis()).unwrap());
}

/// Sets the clock of nodes in this test to another time, be it past.
pub(crate) fn set_clock(ms: i64) {
    CLOCK_MS.set(ms);
}

fn monotonic() -> Instant {
    // Only requests see it: threads that compute hashes go by the machine's.
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + ELAPSED.get()
}

/// Moves the monotonic clock, which stands still otherwise; the one above stays as it is.
pub(crate) fn elapse(by: Duration) {
    ELAPSED.set(ELAPSED.get() + by);
}

/// How a test's node differs from the default.
pub(crate) struct Setup {
    pub(crate) settings: ApiSettings,
    /// The text of `roles.cfg`.
    pub(crate) roles: String,
    pub(crate) journal_keep_rows: u64,
    /// The centre, if there is one.
    pub(crate) hub: Option<Arc<dyn Hub>>,
    pub(crate) offline_login_days: u32,
    /// Where the store lies, if not in memory of its own.
    pub(crate) disk: Option<Disk>,
    /// The store itself, if it is open already.
    pub(crate) store: Option<Store>,
    /// Or in this file.
    pub(crate) file: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Setup {
        let settings = ApiSettings {
            date_format: DateFormat::Http,
            collection_shape: CollectionShape::Flat,
            expose_password_hashes: false,
            serves_https: true,
            cors_allowed_origins: Vec::new(),
            body_limit_bytes: 1 << 20,
            content_limit_bytes: 32 << 20,
            record_limit_bytes: 1 << 20,
            central_roles: vec![END_USER.to_owned(), "health_professional".to_owned()],
            active_from_centre: ActiveFromCentre::Honour,
            emergency_access: false,
            browser_sessions: BrowserSessions::On,
        };
        let roles = BUILT_IN_ROLES.to_owned();
        Setup {
            settings,
            roles,
            journal_keep_rows: 1_000_000,
            hub: None,
            offline_login_days: 0,
            disk: None,
            store: None,
            file: None,
        }
    }
}

impl Setup {
    /// Adds roles to those of `roles.cfg`, written as there.
    pub(crate) fn add_roles(&mut self, roles: &str) {
        let before = self.roles.trim_end().strip_suffix(']').unwrap();
        self.roles = format!("{before}, {roles}]");
    }
}

pub(crate) struct TestNode {
    pub(crate) node: Arc<AppState>,
    api: Api,
    /// Where its backups go.
    _directory: TempDir,
}

impl TestNode {
    /// An empty node with the settings and access rules that it is shipped with.
    pub(crate) fn start() -> TestNode {
        TestNode::start_with(|_| {})
    }

    pub(crate) fn start_with(adjust: impl FnOnce(&mut Setup)) -> TestNode {
        let mut setup = Setup::default();
        adjust(&mut setup);
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: setup.journal_keep_rows,
            audit_keep_rows: 100_000,
            clock: now_ms,
        };
        let store = match (setup.store, setup.disk, setup.file) {
            (Some(store), _, _) => store,
            (None, Some(disk), _) => Store::on_backends(options, move || Ok(disk.mount())).unwrap(),
            (None, None, Some(file)) => Store::open(&file, options).unwrap(),
            (None, None, None) => Store::in_memory(options).unwrap(),
        };
        store.set_active_from_centre(setup.settings.active_from_centre);
        let sync_settings = SyncSettings {
            round_timeout: Duration::from_secs(1),
            offline_login_days: setup.offline_login_days,
            ..SyncSettings::default()
        };
        let accounts = AccountsSettings { bcrypt_cost: BCRYPT_COST_MIN, ..AccountsSettings::default() };
        let (acl, _) = Acl::parse(&setup.roles).unwrap();
        let directory = TempDir::new().unwrap();
        let backup_settings = BackupSettings {
            directory: directory.path().join("backups"),
            keep: 1,
            recipients: Vec::new(),
            node_name: "clinic".to_owned(),
            data_dir: directory.path().to_owned(),
            reserve_bytes: 0,
        };
        let node = Arc::new(AppState {
            backups: Backups::new(store.clone(), backup_settings),
            sync: Reconciler::new(store.clone(), setup.hub, sync_settings),
            store: ClientStore::new(store),
            accounts: Accounts::with_clock(accounts, monotonic).unwrap(),
            known_accounts: Default::default(),
            acl: RwLock::new(Arc::new(acl)),
            settings: setup.settings,
            form_key: [7; 32],
            unsettled_rules: Default::default(),
        });
        TestNode { api: api(Arc::clone(&node)), node, _directory: directory }
    }

    /// A node with the people that most tests need: ANA001 and BOB002 (end_user), DOC003
    /// (health_professional), ROOT004 (root, granted here).
    pub(crate) async fn with_people() -> TestNode {
        let node = TestNode::start();
        node.people().await;
        node
    }

    /// The same people at a node with a centre in memory.
    pub(crate) async fn with_centre(adjust: impl FnOnce(&mut Setup)) -> (TestNode, Sim) {
        let sim = Sim::default();
        let hub = Arc::new(sim.clone());
        let node = TestNode::start_with(|setup| {
            adjust(setup);
            setup.hub = Some(hub);
        });
        node.people().await;
        (node, sim)
    }

    pub(crate) async fn people(&self) {
        self.person("ANA001", &["end_user"]).await;
        self.person("BOB002", &["end_user"]).await;
        self.person("DOC003", &["end_user", "health_professional"]).await;
        self.person("ROOT004", &["root"]).await;
    }

    /// An active person who may log in, their roles granted on this node.
    pub(crate) async fn person(&self, id: &str, roles: &[&str]) {
        let granted = roles.iter().map(|role| (*role).to_owned()).collect();
        self.put(Kind::Person, person(id, roles), Some(granted)).await;
    }

    /// A record as somebody of this node left it.
    pub(crate) async fn record(&self, kind: Kind, document: Document) {
        self.put(kind, document, None).await;
    }

    async fn put(&self, kind: Kind, document: Document, grants: Option<Vec<String>>) {
        let edit = Edit {
            grant: Grant::operator(0, Verb::Post, kind),
            id: document.get_str("_id").unwrap().to_owned(),
            expected: None,
            document: Some(document),
            requires: Vec::new(),
            grants,
            content: None,
            closes: None,
        };
        self.node.store.unguarded().edit(edit).await.unwrap();
    }

    /// Sets or removes a record, whatever is there.
    pub(crate) async fn restore(&self, kind: Kind, id: &str, document: Option<Document>) {
        let key = RecordKey::new(kind, id);
        let restored = self.node.store.unguarded().transact(move |tx| -> Result<bool, StoreError> {
            tx.edit(&key, document.as_ref(), &Actor::Centre)
        });
        restored.await.unwrap();
    }

    /// A record as it came from the centre.
    pub(crate) async fn from_centre(&self, kind: Kind, document: Document) {
        let key = RecordKey::new(kind, document.get_str("_id").unwrap());
        let put = self.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
            tx.put(&key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)
        });
        put.await.unwrap();
    }

    /// The record as it is stored.
    pub(crate) fn stored(&self, kind: Kind, id: &str) -> Option<Document> {
        let record = self.node.store.read().unwrap().record(&RecordKey::new(kind, id)).unwrap()?;
        Some(Document::try_from(record.document.as_ref()).unwrap())
    }

    /// The patterns of all paths of the API.
    pub(crate) fn patterns(&self) -> Vec<&'static str> {
        self.api.patterns().to_vec()
    }

    pub(crate) fn last_change(&self) -> u64 {
        self.node.store.read().unwrap().journal(u64::MAX, 1).unwrap().last
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Call<'_> {
        Call {
            node: self,
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Body::empty(),
            peer: Some(Peer::Address(IpAddr::from([192, 0, 2, 1]))),
            received: None,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Call<'_> {
        self.request("GET", path)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Call<'_> {
        self.request("POST", path).json(&body)
    }

    pub(crate) fn patch(&self, path: &str, body: Value) -> Call<'_> {
        self.request("PATCH", path).json(&body)
    }

    pub(crate) fn put_json(&self, path: &str, body: Value) -> Call<'_> {
        self.request("PUT", path).json(&body)
    }

    pub(crate) fn delete(&self, path: &str) -> Call<'_> {
        self.request("DELETE", path)
    }
}

/// The record of a person with [`PASSWORD`].
pub(crate) fn person(id: &str, roles: &[&str]) -> Document {
    doc! {
        "_id": id, "name": "Ana", "lastname": "Betz", "active": true, "password": PASSWORD_HASH.as_str(),
        "roles": roles.iter().map(|role| (*role).to_owned()).collect::<Vec<_>>(),
    }
}

/// A request that is being put together.
pub(crate) struct Call<'a> {
    node: &'a TestNode,
    method: Method,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Body,
    peer: Option<Peer>,
    /// What counts the request and its answer.
    received: Option<Received>,
}

impl Call<'_> {
    /// Sent by somebody made by [`TestNode::person`].
    pub(crate) fn by(self, user: &str) -> Self {
        self.login(user, PASSWORD)
    }

    pub(crate) fn login(self, user: &str, password: &str) -> Self {
        let credentials = BASE64.encode(format!("{user}:{password}"));
        self.header("authorization", &format!("Basic {credentials}"))
    }

    /// Sent over the node's Unix socket.
    pub(crate) fn by_operator(mut self) -> Self {
        self.peer = Some(Peer::Operator { uid: 0 });
        self
    }

    pub(crate) fn from(mut self, peer: IpAddr) -> Self {
        self.peer = Some(Peer::Address(peer));
        self
    }

    /// Counted by this.
    pub(crate) fn with(mut self, received: Received) -> Self {
        self.received = Some(received);
        self
    }

    /// Sent over that socket by somebody whom it is not for.
    pub(crate) fn from_nowhere(mut self) -> Self {
        self.peer = None;
        self
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.raw_header(name, value.as_bytes())
    }

    pub(crate) fn raw_header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_vec()));
        self
    }

    /// A JSON body, without a Content-Type: real clients send none.
    pub(crate) fn json(self, body: &Value) -> Self {
        self.bytes(body.to_string())
    }

    pub(crate) fn bytes(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The answer before its body is read, for streams.
    pub(crate) async fn open(self) -> Response<Body> {
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let mut request = request.body(self.body).unwrap();
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(received) = self.received {
            request.extensions_mut().insert(received);
        }
        self.node.api.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(self) -> Answer {
        let node = self.node;
        let what = format!("{} {}", self.method, self.path);
        let before = node.last_change();
        let (head, body) = self.open().await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            what,
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            changes: changes_after(node, before),
        }
    }
}

/// `create people/ANA001` and the like, for every change after `since`.
pub(crate) fn changes_after(node: &TestNode, since: u64) -> Vec<String> {
    let rows = node.node.store.read().unwrap().journal(since, usize::MAX).unwrap().rows;
    rows.iter().map(|row| format!("{} {}", row.op, row.key)).collect()
}

pub(crate) struct Answer {
    pub(crate) what: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: bytes::Bytes,
    /// What the request left in the journal.
    pub(crate) changes: Vec<String>,
}

impl Answer {
    /// Asserts the status and the changes that the request made.
    #[track_caller]
    pub(crate) fn is(self, status: u16, changes: &[&str]) -> Answer {
        assert_eq!(self.status, status, "{}: {}", self.what, self.text());
        assert_eq!(self.changes, changes, "{}: changes", self.what);
        self
    }

    /// Asserts a refusal that changes nothing and names the field.
    #[track_caller]
    pub(crate) fn is_invalid(self, field: &str) -> Answer {
        let answer = self.is(422, NOTHING);
        assert_eq!(
            answer.json()["field"].as_str().unwrap_or(""),
            field,
            "{}: {}",
            answer.what,
            answer.text()
        );
        answer
    }

    /// Asserts the whole body.
    #[track_caller]
    pub(crate) fn says(self, body: Value) -> Answer {
        assert_eq!(self.json(), body, "{}", self.what);
        self
    }

    /// Asserts some members of the body.
    #[track_caller]
    pub(crate) fn has(self, members: Value) -> Answer {
        let body = self.json();
        for (name, value) in members.as_object().unwrap() {
            assert_eq!(body.get(name), Some(value), "{}: {name} in {body}", self.what);
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{}: {e}: {}", self.what, self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("{}: no header {name}", self.what));
        value.to_str().unwrap()
    }

    #[track_caller]
    pub(crate) fn lacks_header(&self, name: &str) -> &Answer {
        assert!(!self.headers.contains_key(name), "{}: {:?}", self.what, self.headers);
        self
    }

    /// The ids of a list.
    #[track_caller]
    pub(crate) fn ids(&self) -> Vec<String> {
        let list = self.json();
        list.as_array().unwrap().iter().map(|item| item["_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// What a client sees of an answer, without the request's own id.
pub(crate) fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "x-request-id")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.text().replace(answer.header("x-request-id"), ""))
}
