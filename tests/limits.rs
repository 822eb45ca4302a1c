//! What strangers on the same network cannot do: keep others out with silent connections or wrong passwords,
//! or learn from the time of an answer who has an account.
//!
//! The figures are printed (`--no-capture`); `THALAMUS_EDGE_TEST_LONG` makes the runs long enough for them.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the environment says how long the tests are")]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use thalamus_edge::accounts::{Accounts, AccountsSettings, LoginError, StoredAccount};
use thalamus_edge::domain::access::{Actor, Principal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use support::node::{Client, EdgeNode, Reply};

/// Longest that the node may keep a connection that says nothing, with time for a slow machine.
const SILENT_S_MAX: u64 = 60;
/// Connections of one client without a whole request (docs/SECURITY.md, "What is held, and for whom").
const SILENT_EACH_MAX: usize = 192;
/// Connections that one address may have (`PER_ADDRESS_MAX` of the node).
const PER_ADDRESS_MAX: usize = 512;
/// How many more one address tries to have.
const BEYOND: usize = 8;

fn is_long() -> bool {
    std::env::var_os("THALAMUS_EDGE_TEST_LONG").is_some()
}

async fn node(name: &str) -> EdgeNode {
    EdgeNode::start(name, "", "federation").await
}

async fn get(client: &Client, path: &str) -> Reply {
    client.send("GET", path, &[], Bytes::new()).await.unwrap()
}

/// The median and the 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Asks again and again; all must be answered.
async fn time_of_answers(client: &Client, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        assert_eq!(get(client, "/people").await.status, 200);
        times.push(started.elapsed());
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_nobody_out() {
    let node = node("silent").await;
    let nurse = node.client();
    let mut silent = Vec::new();
    // 1,000 in all: half of them say nothing at all, half stop in the middle of a request's head.
    for source in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        let stranger = nurse.of(source, "nobody", "nothing");
        for _ in 0..250 {
            let mut unsaid = stranger.tcp().await.unwrap();
            silent.push(tokio::spawn(async move { unsaid.read(&mut [0; 64]).await.unwrap_or(0) }));
            let mut half = stranger.tls().await.unwrap();
            half.write_all(b"GET /people HTTP/1.1\r\nHost: local").await.unwrap();
            silent.push(tokio::spawn(async move {
                let mut answer = Vec::new();
                let _ = half.read_to_end(&mut answer).await;
                answer.len()
            }));
        }
    }
    let times = time_of_answers(&nurse, if is_long() { 2000 } else { 300 }).await;
    let is_open = silent.iter().filter(|connection| !connection.is_finished()).count();
    let (median, p99) = percentiles(times);
    println!(
        "{} silent connections, {is_open} open to the end: {median:?} median, {p99:?} p99",
        silent.len()
    );
    let started = Instant::now();
    for connection in silent {
        let left = Duration::from_secs(SILENT_S_MAX).saturating_sub(started.elapsed());
        let said = tokio::time::timeout(left, connection).await.expect("the node ends it").unwrap();
        assert_eq!(said, 0, "nothing is answered to half a request");
    }
    assert_eq!(get(&nurse, "/people").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_cannot_take_all_connections() {
    let node = node("crowd").await;
    let root = node.client();
    let stranger = root.of([127, 0, 0, 2], "nobody", "nothing");
    let mut held = JoinSet::new();
    for number in 0..SILENT_EACH_MAX + BEYOND {
        let mut stream = stranger.tcp().await.unwrap();
        held.spawn(async move { (number, stream.read(&mut [0; 64]).await.unwrap_or(0)) });
    }
    // Those that have been idle for longest make room for as many as are beyond.
    let mut ended = Vec::new();
    for _ in 0..BEYOND {
        let (number, said) = held.join_next().await.unwrap().unwrap();
        assert_eq!(said, 0, "ended without a word");
        ended.push(number);
    }
    assert!(ended.iter().all(|number| *number < SILENT_EACH_MAX / 2), "the oldest: {ended:?}");
    assert!(stranger.tls().await.is_ok(), "one more has a place too");
    assert_eq!(held.join_next().await.unwrap().unwrap().1, 0, "in the place of another");
    assert_eq!(get(&root.of([127, 0, 0, 3], "nobody", "nothing"), "/healthz").await.status, 200);
    assert_eq!(get(&root, "/people").await.status, 200);
    assert!(held.try_join_next().is_none(), "those within the share stay");
    held.shutdown().await;
}

/// A client sends 4 MB before it looks for the answer, which is there after the first bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_seen_by_who_sends_everything_first() {
    let node = node("refused").await;
    let root = node.client();
    let body = vec![b' '; 4 << 20];
    let stranger = root.of([127, 0, 0, 2], "nobody", "nothing");
    for (client, authorization, status) in
        [(&root, root.authorization(), 413), (&stranger, String::new(), 401)]
    {
        let mut seen = 0;
        for _ in 0..20 {
            let mut stream = client.tls().await.unwrap();
            let head = format!(
                "POST /people/ANA001 HTTP/1.1\r\nHost: l\r\n{authorization}Content-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // Whether all of it is taken is the node's affair.
            let _ = stream.write_all(&body).await;
            let _ = stream.flush().await;
            let mut answer = vec![0; 4096];
            let bytes = stream.read(&mut answer).await.unwrap_or(0);
            seen += usize::from(answer[..bytes].starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
        }
        assert_eq!(seen, 20, "{status}");
    }
    assert_eq!(get(&root, "/people").await.status, 200);
}

/// Bodies of one client that has not logged in that are waited for.
const BODIES_EACH_MAX: usize = 16;
/// The head of a request whose body does not come.
const BODILESS: &[u8] = b"POST /session HTTP/1.1\r\nHost: l\r\nContent-Length: 100\r\n\r\na";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_of_one_address_are_its_own_affair() {
    let node = node("busy").await;
    let root = node.client();
    let stranger = root.of([127, 0, 0, 2], "nobody", "nothing");
    let mut held = Vec::new();
    for _ in 0..PER_ADDRESS_MAX {
        let mut stream = stranger.tls().await.unwrap();
        stream.write_all(BODILESS).await.unwrap();
        held.push(stream);
    }
    // Few bodies of strangers are waited for: the other requests are refused, and their connections make room.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(get(&stranger, "/healthz").await.status, 200, "one more has a place");
    assert_eq!(get(&root.of([127, 0, 0, 3], "nobody", "nothing"), "/healthz").await.status, 200);
    let mut waiting = 0;
    for stream in &mut held {
        let answered = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 64])).await;
        waiting += usize::from(answered.is_err());
    }
    assert!((1..=BODIES_EACH_MAX).contains(&waiting), "{waiting} bodies are waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_passwords_keeps_nobody_out() {
    let mut node = node("flood").await;
    node.set("ACCOUNTS__BCRYPT_COST", "12");
    node.restart(None).await;
    let root = node.client();
    let account = json!({"password": "correct horse battery", "roles": ["root"], "local": true});
    assert_eq!(node.operator("POST", "/users/nurse@local", Some(&account)).await.status, 201);
    assert_eq!(get(&root, "/people").await.status, 200, "root is in before the flood begins");

    let seconds = if is_long() { 60 } else { 5 };
    let flood = {
        let root = root.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            let mut attempts = Vec::new();
            for number in 0..200 * seconds {
                ticks.tick().await;
                // Another name each time, so that only the queue is in the way.
                let guess = root.of([127, 0, 0, 2], &format!("GUESS{number}"), "wrong password");
                attempts.push(tokio::spawn(async move { get(&guess, "/people").await.status }));
            }
            let mut answers = BTreeMap::<u16, usize>::new();
            for attempt in attempts {
                *answers.entry(attempt.await.unwrap()).or_default() += 1;
            }
            answers
        })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let nurse = root.of([127, 0, 0, 3], "nurse@local", "correct horse battery");
    let started = Instant::now();
    assert_eq!(get(&nurse, "/people").await.status, 200, "a first login from another address");
    let first_login = started.elapsed();
    let mut times = Vec::new();
    while !flood.is_finished() {
        times.extend(time_of_answers(&root, 10).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answers = flood.await.unwrap();
    let count = times.len();
    let (median, p99) = percentiles(times);
    println!(
        "wrong passwords answered {answers:?}; {count} requests of somebody who is in: {median:?} median, \
         {p99:?} p99; a first login: {first_login:?}"
    );
    let known: Vec<_> = answers.keys().copied().collect();
    assert_eq!(known, [401, 429], "computed, or put off: {answers:?}");
}

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
static HOURS: AtomicU32 = AtomicU32::new(0);

/// An hour later with every look, so that nothing is remembered and nobody waits.
fn hurried() -> Instant {
    *STARTED + Duration::from_secs(3600) * HOURS.fetch_add(1, Ordering::Relaxed)
}

/// The mean and the median of refused logins of an account that exists and of one that does not.
async fn refusal_times(cost: u32, pairs: usize) -> [(Duration, Duration); 2] {
    let settings = AccountsSettings { bcrypt_cost: cost, bcrypt_threads: 1, ..AccountsSettings::default() };
    let accounts = Accounts::with_clock(settings, hurried).unwrap();
    let known = StoredAccount {
        principal: Arc::new(Principal::new(Actor::Person("ESPGNU777ORG".into()), Vec::new())),
        password_hash: Some(bcrypt::hash("correct horse battery", cost).unwrap().into()),
        active: true,
        rights_count: 1,
    };
    let peer = IpAddr::from([192, 0, 2, 1]);
    let mut times = [Vec::new(), Vec::new()];
    for pair in 0..pairs {
        // In turn, and each first as often as the other.
        for which in [pair % 2, 1 - pair % 2] {
            let (user, stored) =
                if which == 0 { ("ESPGNU777ORG", Some(known.clone())) } else { ("ESPGNU777ORX", None) };
            let started = Instant::now();
            let outcome = accounts.verify(user, b"wrong password", peer, stored).await;
            times[which].push(started.elapsed());
            assert_eq!(outcome.unwrap_err(), LoginError::Refused);
        }
    }
    times.map(|times| {
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).unwrap();
        (mean, percentiles(times).0)
    })
}

#[tokio::test]
async fn time_does_not_tell_who_has_an_account() {
    let (cost, pairs) = if is_long() { (12, 500) } else { (6, 50) };
    let [known, unknown] = refusal_times(cost, pairs).await;
    let apart = |a: Duration, b: Duration| (a.as_secs_f64() / b.as_secs_f64() - 1.0).abs();
    let (means, medians) = (apart(known.0, unknown.0), apart(known.1, unknown.1));
    println!(
        "{pairs} pairs at cost {cost}: means {:?} and {:?}, {:.2} % apart; medians {:.2} % apart",
        known.0,
        unknown.0,
        means * 100.0,
        medians * 100.0
    );
    // Without the same work an unknown name is answered in a hundredth of the time. The median, because other
    // work on the machine may hold up any single answer.
    assert!(medians < if is_long() { 0.02 } else { 0.5 }, "{known:?} {unknown:?}");
}
