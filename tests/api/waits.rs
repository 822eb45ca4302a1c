//! Rights hold after every wait of a request: for the disk, for a place, for memory, and for the hash of a password.

use std::any::Any;
use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bson::doc;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use tokio::sync::Notify;

use thalamus_edge::domain::access::{Acl, Actor};
use thalamus_edge::domain::audit::{Event, What};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::http::{Arrivals, Overloaded, Received, all_work};

use crate::effects::BusyWriter;
use crate::rights::{CHANGES, Change, World, record_of};
use crate::support::api::{NOTHING, PASSWORD, TestNode, elapse, person};

/// Longer than a read may take without another look at the rights of its reader: 100 ms.
const LONG: Duration = Duration::from_millis(150);
/// How many notes of the audit trail fit into memory.
const NOTES: usize = 8192;
/// How long an emergency lasts.
const QUARTER: Duration = Duration::from_secs(15 * 60);

/// A node whose store has a writer of its own.
async fn world(directory: &tempfile::TempDir) -> World {
    let file = directory.path().join("store.redb");
    World::on(TestNode::start_with(|setup| setup.file = Some(file)), false).await
}

/// Makes somebody else the caller, whose password is verified already unless they come by a session.
async fn enter(world: &mut World, number: usize, is_local: bool, change: Change) {
    world.node.node.replace_rules(Acl::built_in()).await.unwrap();
    world.enter(&format!("CHIEF{number:03}"), is_local).await;
    if change == Change::SessionEnded {
        world.begin_session().await;
    }
    world.call("GET", "/login").send().await.is(200, NOTHING);
}

/// Every change, for a person and a technician in turn, numbered.
fn cells() -> impl Iterator<Item = (usize, Change, bool)> {
    let both = [false, true].into_iter();
    both.flat_map(|is_local| CHANGES.into_iter().map(move |change| (change, is_local)))
        .enumerate()
        .map(|(number, (change, is_local))| (number, change, is_local))
}

/// A read that has to be written down before it is shown, and for which there is no room: the answer is made then, and
/// waits for the disk.
#[tokio::test]
async fn what_is_taken_while_a_read_waits_to_be_noted_counts() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut world = world(&directory).await;
    for (number, change) in CHANGES.into_iter().enumerate() {
        let is_local = number % 2 == 0;
        let cell = format!("{change:?} {is_local}");
        enter(&mut world, number, is_local, change).await;
        let before = world.last_entry().await;
        let busy = BusyWriter::begin(&world, Some(change)).await;
        for n in 0..NOTES {
            let event = Event::new(What::Read, &Actor::Person(format!("OTHER{number}")));
            world.node.node.store.note(event.about("events", &format!("{n}"), Some("ANA001")));
        }
        let mut answer = Box::pin(world.call("GET", "/events/r1").open());
        BusyWriter::is_awaited(&world, 1, &mut answer, &cell).await;
        tokio::time::sleep(LONG).await;
        let (answer, _) = busy.release(&world, Some(change), answer).await;
        assert_eq!(answer.status().as_u16(), change.status(), "{cell}");
        let written = world.written_after(before).await;
        let denied = written.iter().filter(|entry| &*entry.event.outcome == "rights_ended").count();
        assert_eq!(denied, 1, "{cell}: {written:?}");
    }
    // The same is answered if nothing is taken.
    enter(&mut world, 900, false, Change::Disabled).await;
    let busy = BusyWriter::begin(&world, None).await;
    for n in 0..NOTES {
        let event = Event::new(What::Read, &Actor::Person("OTHER".to_owned()));
        world.node.node.store.note(event.about("events", &format!("{n}"), Some("ANA001")));
    }
    let mut answer = Box::pin(world.call("GET", "/events/r1").open());
    BusyWriter::is_awaited(&world, 1, &mut answer, "nothing").await;
    tokio::time::sleep(LONG).await;
    let (answer, _) = busy.release(&world, None, answer).await;
    assert_eq!(answer.status(), 200);
}

/// The handler itself waits for the disk.
#[tokio::test]
async fn what_is_taken_while_a_read_takes_long_counts() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut world = world(&directory).await;
    for (number, change, is_local) in cells() {
        let cell = format!("{change:?} {is_local}");
        enter(&mut world, number, is_local, change).await;
        let busy = BusyWriter::begin(&world, Some(change)).await;
        // What is read has the entries of the reads before it.
        let mut answer = Box::pin(world.call("GET", "/audit?limit=1").open());
        BusyWriter::is_awaited(&world, 1, &mut answer, &cell).await;
        tokio::time::sleep(LONG).await;
        let (answer, _) = busy.release(&world, Some(change), answer).await;
        assert_eq!(answer.status().as_u16(), change.status(), "{cell}");
    }
}

const EMERGENCY_ROLES: &str = r#"[
    {"role": "end_user", "permissions": {"GET": ["person"]}},
    {"role": "nurse", "permissions": {"GET": ["person", "book", "page"], "emergency": true}},
    {"role": "root", "permissions": {"GET": ["login", "users"], "POST": ["users"], "global": "True"}}]"#;

/// What an emergency shows is on disk before, so every such read waits for it.
#[tokio::test]
async fn what_is_taken_while_a_read_in_an_emergency_waits_for_the_disk_counts() {
    enum Taken {
        Time,
        Account(Change),
        Nothing,
    }
    for (taken, status) in [
        (Taken::Time, 403),
        (Taken::Account(Change::Disabled), 401),
        (Taken::Account(Change::PasswordChanged), 401),
        (Taken::Account(Change::DisabledAndEnabled), 401),
        (Taken::Account(Change::SessionEnded), 401),
        (Taken::Account(Change::RulesChanged), 403),
        (Taken::Account(Change::RulesPutBack), 403),
        (Taken::Nothing, 200),
    ] {
        let directory = tempfile::TempDir::new().unwrap();
        let node = TestNode::start_with(|setup| {
            setup.settings.emergency_access = true;
            setup.roles = EMERGENCY_ROLES.to_owned();
            setup.file = Some(directory.path().join("store.redb"));
        });
        let mut world = World::on(node, false).await;
        world.node.person("NUR005", &["nurse"]).await;
        world.caller = "NUR005".to_owned();
        world.node.record(Kind::Page, doc! {"_id": "p1", "book": "ANA001", "note": "secret"}).await;
        let change = if let Taken::Account(change) = taken { Some(change) } else { None };
        let cell = format!("{change:?} {status}");
        if change == Some(Change::SessionEnded) {
            world.begin_session().await;
        }
        let opened =
            world.call("GET", "/pols/ANA001/p1").header("x-emergency-reason", "unconscious, allergies?");
        opened.send().await.is(200, NOTHING);
        let busy = BusyWriter::begin(&world, change).await;
        // So that there is something to be written: a path of its own.
        let mut answer = Box::pin(world.call("GET", "/pols/ANA001/r1").open());
        BusyWriter::is_awaited(&world, 1, &mut answer, &cell).await;
        if let Taken::Time = taken {
            elapse(QUARTER);
        }
        let (answer, _) = busy.release(&world, change, answer).await;
        let answered = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answered, status, "{cell}: {}", String::from_utf8_lossy(&text));
    }
}

/// A count in which there is no room until it is made.
#[derive(Default)]
struct NoRoom {
    /// For the account, or else for the answer.
    is_for_account: bool,
    is_asked: AtomicBool,
    made: Arc<Notify>,
}

impl NoRoom {
    fn wait(&self) -> BoxFuture<'static, Result<(), Overloaded>> {
        self.is_asked.store(true, Ordering::SeqCst);
        let made = Arc::clone(&self.made);
        Box::pin(async move {
            made.notified().await;
            Ok(())
        })
    }
}

impl Arrivals for NoRoom {
    fn arrived(&self, _: usize) -> Result<(), Overloaded> {
        Ok(())
    }

    fn known_as(&self, _: &Actor) -> Option<BoxFuture<'static, Result<(), Overloaded>>> {
        self.is_for_account.then(|| self.wait())
    }

    fn place(&self, _: usize) -> bool {
        self.is_for_account
    }

    fn wait_for_place(&self, _: usize) -> BoxFuture<'static, Result<(), Overloaded>> {
        if self.is_for_account { Box::pin(ready(Ok(()))) } else { self.wait() }
    }

    fn made(&self, _: usize) {}

    fn keep(&self, _: usize) -> Box<dyn Any + Send + Sync> {
        Box::new(())
    }
}

/// Polls the answer as often as it may need to come to its wait.
async fn comes_to_wait(answer: &mut (impl Future<Output = Response<Body>> + Unpin), cell: &str) {
    for _ in 0..100 {
        assert!((&mut *answer).now_or_never().is_none(), "{cell}: it does not wait");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_taken_while_a_request_waits_for_its_turn_counts() {
    // For the place of the account, for that of the answer, and for memory in which to work.
    for what in ["account", "answer", "work"] {
        let mut world = World::new(false).await;
        let mut large = record_of(Kind::Event.schema(), "large");
        large.insert("scan", "x".repeat(300_000));
        world.node.from_centre(Kind::Event, large).await;
        for (number, change, is_local) in cells() {
            let cell = format!("{what} {change:?} {is_local}");
            enter(&mut world, number, is_local, change).await;
            let counted = Arc::new(NoRoom { is_for_account: what == "account", ..NoRoom::default() });
            let call = world.call("GET", "/events/large");
            let call = match what {
                "work" => call,
                _ => call.with(Received(Arc::<NoRoom>::clone(&counted))),
            };
            let work = (what == "work").then(|| all_work().expect("nobody has any"));
            let before = world.last_entry().await;
            let mut answer = Box::pin(call.open());
            comes_to_wait(&mut answer, &cell).await;
            assert_eq!(counted.is_asked.load(Ordering::SeqCst), what != "work", "{cell}");
            world.make(change).await;
            drop(work);
            counted.made.notify_one();
            assert_eq!(answer.await.status().as_u16(), change.status(), "{cell}");
            assert_eq!(world.own_entries_after(before).await, ["denied rights_ended"], "{cell}");
        }
        enter(&mut world, 900, false, Change::Disabled).await;
        world.call("GET", "/events/large").send().await.is(200, NOTHING);
    }
}

/// All threads that make hashes are busy for some time: with logins that fail in the end.
pub(crate) struct BusyHashes<'a>(
    #[expect(dead_code, reason = "they end when they are dropped")] Vec<Login<'a>>,
);

type Login<'a> = Pin<Box<dyn Future<Output = Response<Body>> + 'a>>;

impl BusyHashes<'_> {
    pub(crate) async fn begin(node: &TestNode) -> BusyHashes<'_> {
        static COSTLY: LazyLock<String> = LazyLock::new(|| bcrypt::hash(PASSWORD, 10).unwrap());
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let mut logins = Vec::new();
        // At least as many as there are threads for it; each of somebody else, from somewhere else.
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let (id, [high, low]) = (format!("SLOW{count:04}"), count.to_be_bytes());
            let mut slow = person(&id, &["end_user"]);
            slow.insert("password", COSTLY.as_str());
            node.restore(Kind::Person, &id, Some(slow)).await;
            let call = node.get("/login").login(&id, "wrong in all ways");
            let mut login: Login<'_> = Box::pin(call.from(IpAddr::from([198, 18, high, low])).open());
            let early = (&mut login).now_or_never().map(|answer| answer.status());
            assert_eq!(early, None, "{id} does not wait");
            logins.push(login);
        }
        BusyHashes(logins)
    }
}

/// A password that waits for its turn to be hashed opens the account as it is then.
#[tokio::test]
async fn what_is_taken_while_a_password_is_verified_counts() {
    let of_account = |change: &Change| {
        ![Change::SessionEnded, Change::RulesChanged, Change::RulesPutBack].contains(change)
    };
    for is_form in [false, true] {
        let mut world = World::new(false).await;
        for (number, change, is_local) in cells().filter(|(_, change, _)| of_account(change)) {
            let cell = format!("{is_form} {change:?} {is_local}");
            world.enter(&format!("CHIEF{number:03}"), is_local).await;
            let form = format!("account={}&password={PASSWORD}", world.caller.replace('@', "%40"));
            let call = match is_form {
                true => world.node.request("POST", "/session").bytes(form.replace(' ', "+")),
                false => world.call("GET", "/login"),
            };
            let before = world.last_entry().await;
            let _busy = BusyHashes::begin(&world.node).await;
            let mut answer = Box::pin(call.open());
            assert!((&mut answer).now_or_never().is_none(), "{cell}: it does not wait");
            world.make(change).await;
            let answer = answer.await;
            // The form is shown again, without a request for credentials of the browser's own.
            assert_eq!(answer.status(), if is_form { 403 } else { 401 }, "{cell}");
            assert!(!answer.headers().contains_key("set-cookie"), "{cell}");
            let written = world.written_after(before).await;
            assert!(written.iter().all(|entry| &*entry.event.verb != "login"), "{cell}: {written:?}");
        }
    }
}
