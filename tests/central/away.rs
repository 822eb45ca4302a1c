//! How soon a server that is gone or hangs is noticed, and a centre that refuses the node is told from it.

use std::time::{Duration, Instant};

use bson::spec::BinarySubtype;
use bson::{Binary, doc};
use thalamus_edge::central::mongo::MongoHub;
use thalamus_edge::central::{CentralError, Hub, Written};
use thalamus_edge::domain::record::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Ground, hub, insert, open};
use crate::contract::Behind;
use crate::support::mongo::{MongoServer, Setup};

/// Longest that a node may take to notice that the centre is away.
const NOTICE_SECONDS_MAX: u64 = 27;
/// The same where the address says so.
const SOON: &str = "serverSelectionTimeoutMS=2000";
const SOON_SECONDS_MAX: u64 = 6;

fn is_offline<T>(answer: &thalamus_edge::central::Result<T>) -> bool {
    matches!(answer, Err(CentralError::Offline(_)))
}

#[tokio::test]
async fn a_killed_server_is_noticed_and_found_again() {
    let mut server = MongoServer::start_own(Setup::default()).await;
    let ground = Ground::new(&server).await;
    let soon = format!("{}&{SOON}", server.uri());
    let mut central = open(&hub(&soon, ground.database.name())).await;
    let hit = central.write(&[insert("a", doc! {"n": 1})]).await;
    assert_eq!(hit.expect("answers"), [Written::Hit]);
    server.kill_9();
    let started = Instant::now();
    let writing = central.write(&[insert("b", doc! {})]).await;
    assert!(is_offline(&writing), "{writing:?}");
    let reading = central.fetch(Kind::Person, &["a".to_owned()]).await;
    assert!(is_offline(&reading), "{reading:?}");
    assert!(started.elapsed() < Duration::from_secs(2 * SOON_SECONDS_MAX), "{:?}", started.elapsed());
    let started = Instant::now();
    let mut fresh = open(&ground.hub()).await;
    let counting = fresh.estimated_count(Kind::Person).await;
    assert!(is_offline(&counting), "{counting:?}");
    assert!(started.elapsed() < Duration::from_secs(NOTICE_SECONDS_MAX), "{:?}", started.elapsed());
    server.restart().await;
    let mut fresh = open(&ground.hub()).await;
    let found = fresh.fetch(Kind::Person, &["a".to_owned()]).await;
    assert_eq!(found.expect("a document").len(), 1, "an acknowledged write outlives the server");
}

#[tokio::test]
async fn a_hung_server_is_given_up() {
    let mut server = MongoServer::start_own(Setup::default()).await;
    let ground = Ground::new(&server).await;
    let limit = Duration::from_secs(2);
    let hub = ground.hub().with_call_limit(limit);
    let mut central = open(&hub).await;
    assert_eq!(central.estimated_count(Kind::Person).await.expect("a count"), 0);
    server.pause();
    let started = Instant::now();
    let writing = central.write(&[insert("a", doc! {})]).await;
    assert!(is_offline(&writing), "{writing:?}");
    assert!(started.elapsed() < limit + Duration::from_secs(1), "{:?}", started.elapsed());
    // A new conversation waits for the choice of a server, not for a call.
    let started = Instant::now();
    let mut fresh = open(&ground.hub()).await;
    let counting = fresh.estimated_count(Kind::Person).await;
    assert!(is_offline(&counting), "{counting:?}");
    assert!(started.elapsed() < Duration::from_secs(NOTICE_SECONDS_MAX), "{:?}", started.elapsed());
    server.resume();
    let mut fresh = open(&ground.hub()).await;
    assert!(fresh.estimated_count(Kind::Person).await.expect("a count") <= 1);
}

/// A line that carries so many bytes a second towards the node, and any number towards the server.
async fn slow_line(server: u16, bytes_per_second: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut piece = vec![0; bytes_per_second / 10];
                while let Ok(length @ 1..) = from_server.read(&mut piece).await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    to_client.write_all(&piece[..length]).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    port
}

#[tokio::test]
async fn a_slow_line_is_not_a_dead_one() {
    let server = MongoServer::start_own(Setup::default()).await;
    let ground = Ground::new(&server).await;
    // Nothing makes it shorter on the line.
    let mut bytes = vec![0; 120_000];
    getrandom::fill(&mut bytes).expect("random bytes");
    let bytes = Binary { subtype: BinarySubtype::Generic, bytes };
    ground.put(Kind::Person, doc! {"_id": "a", "bytes": bytes}).await;
    let port = slow_line(server.port(), 30_000).await;
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let limit = Duration::from_secs(1);
    let slow = hub(&uri, ground.database.name()).with_call_limit(limit);
    let mut central = open(&slow).await;
    let started = Instant::now();
    let found = central.fetch(Kind::Person, &["a".to_owned()]).await.expect("a document");
    assert_eq!(found.len(), 1);
    assert!(started.elapsed() > 2 * limit, "the line is too fast to tell: {:?}", started.elapsed());
    // All that travelled is counted: the handshake and the messages' frames as well.
    let traffic = central.traffic();
    assert!(traffic.line_bytes_received > traffic.command_bytes_received, "{traffic:?}");
    assert!(traffic.line_bytes_sent > traffic.command_bytes_sent, "{traffic:?}");
}

async fn first_answer(hub: &MongoHub) -> CentralError {
    let answer = match hub.open().await {
        Ok(mut central) => central.estimated_count(Kind::Person).await,
        Err(error) => Err(error),
    };
    let error = answer.expect_err("an error");
    let text = format!("{error} {error:?}");
    assert!(!format!("{error}").contains("127.0.0.1") && !text.contains("hunter2"), "{text}");
    error
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let user = ("clinic".to_owned(), "right".to_owned());
    let setup = Setup { user: Some(user), ..Setup::default() };
    let server = MongoServer::start_own(setup).await;
    let mut central = open(&hub(server.uri(), "federation")).await;
    assert_eq!(central.estimated_count(Kind::Person).await.expect("a count"), 0);
    for credentials in ["clinic:hunter2@", "nobody:hunter2@", ""] {
        let uri = server.uri().replace("clinic:right@", credentials);
        let error = first_answer(&hub(&uri, "federation")).await;
        assert!(matches!(error, CentralError::Refused(_)), "{credentials}: {error:?}");
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused() {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let setup = Setup {
        tls: Some((certified.cert.pem(), certified.signing_key.serialize_pem())),
        standalone: true,
        ..Setup::default()
    };
    let server = MongoServer::start_own(setup).await;
    let error = first_answer(&hub(server.uri(), "federation")).await;
    assert!(matches!(error, CentralError::Refused(_)), "{error:?}");
    let directory = tempfile::tempdir().expect("a directory");
    let authority = directory.path().join("authority.pem");
    std::fs::write(&authority, certified.cert.pem()).expect("a file");
    let uri = format!("{}&tlsCAFile={}", server.uri(), authority.display());
    let mut central = open(&hub(&uri, "federation")).await;
    assert_eq!(central.estimated_count(Kind::Person).await.expect("a count"), 0);
}

#[tokio::test]
async fn an_address_that_cannot_be_one_is_refused() {
    for uri in [
        "",
        "hunter2",
        "http://user:hunter2@127.0.0.1/",
        "mongodb://user:hunter2@127.0.0.1:99999/",
        "mongodb://user:hunter2%zz@127.0.0.1/",
        "mongodb://user:hunter2@127.0.0.1/?w=-5",
        "mongodb://user:hunter2@127.0.0.1/?proxyHost=127.0.0.1",
        "mongodb://user:hunter2@127.0.0.1/?tls=true&tlsCAFile=/nonexistent/ca.pem",
    ] {
        let error = first_answer(&hub(uri, "federation")).await;
        assert!(matches!(error, CentralError::Refused(_)), "{uri}: {error:?}");
    }
}
