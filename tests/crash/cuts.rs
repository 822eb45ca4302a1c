//! A bad line: rounds over a connection that is cut after so many bytes, slow in between, with every
//! acknowledged edit accounted for at the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use bson::{Document, doc};

use super::random::Run;
use super::support::federation::Federation;
use super::support::mongo::{MongoServer, Setup};

/// Cuts are spread over the first so many bytes of a round, handshake included.
const CUT_BYTES_MAX: u64 = 40_000;
/// Bytes that the line passes on at a time.
const PIECE_BYTES: usize = 1_400;

/// What the line is like.
#[derive(Clone, Copy)]
pub(super) struct Profile {
    pub(super) latency: Duration,
    /// Bytes a second in each direction.
    pub(super) speed: u64,
    pub(super) cycles: u64,
}

const SHORT: Profile = Profile { latency: Duration::from_millis(5), speed: 10_000_000, cycles: 24 };
const LATE: Profile = Profile { latency: Duration::from_millis(20), speed: 10_000_000, cycles: 200 };
const GPRS: Profile = Profile { latency: Duration::from_millis(300), speed: 5_000, cycles: 20 };

/// A line to the server that passes so many bytes in both directions together and is dead then.
pub(super) struct Line {
    pub(super) port: u16,
    passed: Arc<AtomicU64>,
    left: Arc<AtomicI64>,
}

impl Line {
    pub(super) async fn to(server: u16, profile: Profile) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Line { port, passed: Arc::default(), left: Arc::new(AtomicI64::new(i64::MAX)) };
        let (passed, left) = (Arc::clone(&line.passed), Arc::clone(&line.left));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if left.load(Ordering::SeqCst) <= 0 {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let counts = (Arc::clone(&passed), Arc::clone(&left));
                tokio::spawn(async move {
                    // Whichever direction ends first takes the other along.
                    tokio::select! {
                        _ = pass(from_client, to_server, profile, &counts) => {}
                        _ = pass(from_server, to_client, profile, &counts) => {}
                    }
                });
            }
        });
        line
    }

    pub(super) fn cut_after(&self, bytes: u64) {
        self.left.store(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
    }

    pub(super) fn mend(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    profile: Profile,
    (passed, left): &(Arc<AtomicU64>, Arc<AtomicI64>),
) -> io::Result<()> {
    let mut piece = [0; PIECE_BYTES];
    let mut last = tokio::time::Instant::now() - profile.latency;
    loop {
        let length = from.read(&mut piece).await?;
        let bytes = i64::try_from(length).unwrap();
        let allowed = left.fetch_sub(bytes, Ordering::SeqCst).clamp(0, bytes);
        if length == 0 {
            return Ok(());
        }
        // What follows at once travels right behind.
        if last.elapsed() >= profile.latency {
            tokio::time::sleep(profile.latency).await;
        }
        tokio::time::sleep(Duration::from_micros(1_000_000 * length as u64 / profile.speed)).await;
        last = tokio::time::Instant::now();
        to.write_all(&piece[..usize::try_from(allowed).unwrap()]).await?;
        passed.fetch_add(allowed as u64, Ordering::SeqCst);
        if allowed < bytes {
            return Ok(());
        }
    }
}

/// Where the line to the server begins.
fn uri_of(line: &Line, profile: Profile) -> String {
    let patience = 500 + 4 * profile.latency.as_millis();
    format!("mongodb://127.0.0.1:{}/?directConnection=true&serverSelectionTimeoutMS={patience}", line.port)
}

async fn rounds_over(profile: Profile) {
    let mongo = MongoServer::start_own(Setup::default()).await;
    let line = Line::to(mongo.port(), profile).await;
    let federation = Federation::behind(mongo, &uri_of(&line, profile), &["north", "south"]).await;
    let mut run = Run::new(profile.cycles, federation).await;
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    let mut cuts = 0;
    for cycle in 0..profile.cycles {
        for _ in 0..3 {
            run.one_edit().await;
        }
        let bytes = cycle * CUT_BYTES_MAX / profile.cycles + run.numbers.below(100);
        run.story.push(format!("a round of {} over {bytes} bytes", cycle % 2));
        line.cut_after(bytes);
        let node = usize::try_from(cycle % 2).unwrap();
        let report = run.federation.nodes[node].try_round().await.unwrap();
        cuts += usize::from(line.is_cut());
        let outcome = report["outcome"].as_str().unwrap().to_owned();
        // A round that was cut off is not called complete unless only its goodbye was.
        assert!(["complete", "partial", "offline"].contains(&outcome.as_str()), "{report}");
        *outcomes.entry(outcome).or_default() += 1;
        line.mend();
    }
    println!(
        "{} cycles, {cuts} cut, {outcomes:?}, {} bytes",
        profile.cycles,
        line.passed.load(Ordering::SeqCst)
    );
    assert!(outcomes["offline"] * 4 >= profile.cycles as usize, "too few cuts count: {outcomes:?}");
    run.conclude().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_at_any_byte_loses_nothing() {
    let is_long = std::env::var_os("THALAMUS_EDGE_TEST_LONG").is_some();
    let profiles = if is_long { [LATE, GPRS].as_slice() } else { &[SHORT] };
    for profile in profiles {
        rounds_over(*profile).await;
    }
}

/// Changes at the centre while the line was down, and what a connection carries before it is cut: less than
/// an answer that tells of a hundred changes.
const BACKLOG: usize = 300;
const CARRIED_BYTES: u64 = 20_000;
const ROUNDS_MAX: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_arrives_over_a_line_that_never_lasts() {
    let mongo = MongoServer::start_own(Setup::default()).await;
    let line = Line::to(mongo.port(), SHORT).await;
    let federation = Federation::behind(mongo, &uri_of(&line, SHORT), &["north"]).await;
    federation.rounds(1).await;
    let people = (0..BACKLOG).map(|n| doc! {"_id": format!("B{n:03}"), "name": format!("Person {n}")});
    federation.centre("people").insert_many(people.collect::<Vec<Document>>()).await.unwrap();
    let mut rounds = 0;
    let missing = async || {
        let mut missing = 0;
        for n in 0..BACKLOG {
            let reply = federation.nodes[0].call("GET", &format!("/people/B{n:03}"), None).await;
            missing += usize::from(reply.status != 200);
        }
        missing
    };
    let mut left = BACKLOG;
    while left > 0 {
        assert!(rounds < ROUNDS_MAX, "{left} of {BACKLOG} have not arrived in {rounds} rounds");
        line.cut_after(CARRIED_BYTES);
        federation.nodes[0].try_round().await.unwrap();
        line.mend();
        rounds += 1;
        left = missing().await;
    }
    println!("{BACKLOG} changes arrived in {rounds} rounds of {CARRIED_BYTES} bytes");
    federation.end();
}
