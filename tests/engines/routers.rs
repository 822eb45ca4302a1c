//! A router of a sharded cluster (`mongos`): what a node asks of it otherwise, and engines that say they are one.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use thalamus_edge::central::Watched;

use super::documentdb_mongo::documentdb;
use super::*;
use crate::support::proxy::{Act, Rule};

/// What the log says.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines_with(&self, words: &str) -> usize {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).lines().filter(|line| line.contains(words)).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const WARNED: &str = "collections at the centre have a collation of their own";

fn as_router() -> Vec<Rule> {
    let router: fn(&mut Document) = |reply| {
        for absent in ["setName", "hosts", "me", "primary", "topologyVersion", "setVersion", "electionId"] {
            reply.remove(absent);
        }
        reply.insert("msg", "isdbgrid");
    };
    ["hello", "isMaster", "ismaster"].map(|name| Rule::new(name, Act::Alter(router))).to_vec()
}

async fn with_collation(ground: &Ground) {
    let options = doc! {"create": "people", "collation": {"locale": "en", "strength": 2}};
    ground.centre.run_command(options).await.unwrap();
    // So many that it is worth asking whether a collation is needed.
    for n in 0..20 {
        ground.put(&format!("P{n:02}"), "old").await;
    }
}

/// A round of more edits than are sent with a collation unasked.
async fn send_many(ground: &Ground, value: &str) {
    for n in 0..20 {
        ground.set(&format!("P{n:02}"), value).await;
    }
    let report = ground.ends(Outcome::Complete).await;
    assert_eq!(report.pushed, 20, "{report:?}");
}

/// For how long a feed that has nothing to tell asks the server to wait, in milliseconds.
async fn feed_waits(ground: &Ground) -> i64 {
    let mut central = ground.hub().open().await.unwrap();
    // A round has talked to the centre before it opens a feed, so that it is known what answers.
    central.estimated_count(Kind::Person).await.unwrap();
    let Watched::Open(mut feed) = central.watch("me", None, &[], 10).await.unwrap() else {
        panic!("there is a feed");
    };
    ground.proxy.seen();
    let time = |command: &Document| {
        let time = command.get("maxTimeMS").filter(|_| command.contains_key("getMore"))?;
        time.as_i64().or_else(|| time.as_i32().map(i64::from))
    };
    for _ in 0..3 {
        // At a router it waits for longer than an exchange may take here.
        drop(feed.next().await);
        if let Some(wait) = ground.proxy.seen().iter().find_map(time) {
            return wait;
        }
    }
    panic!("no feed was asked to go on")
}

#[tokio::test]
async fn collations_are_told_once_and_a_feed_waits_for_the_shards() {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone()).finish();
    let _told = tracing::subscriber::set_default(subscriber);
    let ground = Ground::new().await;
    with_collation(&ground).await;
    ground.ends(Outcome::Complete).await;
    ground.ends(Outcome::Complete).await;
    assert_eq!(log.lines_with(WARNED), 1, "a replica set");
    let as_set = feed_waits(&ground).await;
    assert!(as_set < 5_000, "{as_set}");
    // The same centre, reached through a router from now on.
    ground.proxy.set_rules(as_router());
    send_many(&ground, "mine").await;
    assert_eq!(feed_waits(&ground).await, 5_000);
    assert_eq!(log.lines_with(WARNED), 1, "once in the life of a process");
}

/// All at once: it says that it is a router, has no feed and no collations, and lists collections that have one.
#[tokio::test]
async fn an_engine_with_nothing_but_a_routers_name_takes_and_sends_everything() {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone()).finish();
    let _told = tracing::subscriber::set_default(subscriber);
    let ground = Ground::new().await;
    ground.proxy.set_rules(documentdb());
    with_collation(&ground).await;
    ground.ends(Outcome::Complete).await;
    send_many(&ground, "mine").await;
    ground.change("P00", "theirs").await;
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.person("P00"), ground.at("P00").await);
    assert_eq!(ground.person("P00").unwrap().get_str("g").ok(), Some("theirs"));
    assert_eq!((ground.pending(), ground.dead()), (0, vec![]));
    assert_eq!(log.lines_with(WARNED), 1);
}
