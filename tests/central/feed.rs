//! The change feed over the wire: what a node is told, from where, and when it cannot be told.

use bson::{Bson, Document, bson, doc};
use thalamus_edge::central::{
    Central, Changes, Effect, Event, Feed, Lease, LeaseAnswer, NODES_COLLECTION, Token, Watched, Write,
    Written,
};
use thalamus_edge::domain::diff::Change;
use thalamus_edge::domain::record::{Kind, RecordKey};

use super::{Ground, insert, open, person, set};
use crate::contract::Behind;
use crate::support::mongo::{MongoServer, Setup};

/// Empty answers after which nothing more is expected.
const QUIET_ANSWERS: usize = 2;

async fn watch(central: &mut dyn Central, after: Option<&Token>, bodies: &[RecordKey]) -> Box<dyn Feed> {
    match central.watch("me", after, bodies).await.expect("an answer") {
        Watched::Open(feed) => feed,
        Watched::Lost => panic!("the history is lost"),
        Watched::Unsupported => panic!("no change feed"),
    }
}

/// Everything that the feed tells until it is quiet.
async fn all(feed: &mut dyn Feed) -> Changes {
    let mut changes = Changes::default();
    let mut quiet = 0;
    while quiet < QUIET_ANSWERS && !changes.is_lost {
        let next = feed.next().await.expect("changes");
        quiet = if next.events.is_empty() { quiet + 1 } else { 0 };
        changes.events.extend(next.events);
        changes.is_lost = next.is_lost;
    }
    changes
}

fn record(key: RecordKey, effect: Effect) -> Event {
    Event::Record { key, effect }
}

fn updated(set: Vec<(&str, Bson)>, unset: &[&str]) -> Effect {
    let set = set.into_iter().map(|(path, value)| (path.to_owned(), value)).collect();
    Effect::Updated { set, unset: unset.iter().map(|path| (*path).to_owned()).collect() }
}

#[tokio::test]
async fn what_others_do_is_told_in_order_and_what_is_nobodys_business_is_not() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    ground.put(Kind::Person, doc! {"_id": "a", "f": 1, "n": {"x": 1, "y": 2}}).await;
    let mut central = open(&ground.hub()).await;
    let mut feed = watch(central.as_mut(), None, &[]).await;
    assert!(feed.token().is_some(), "a fresh feed knows where it begins");
    let people = ground.database.collection::<Document>("people");
    let by_id = doc! {"_id": "a"};
    people.update_one(by_id.clone(), doc! {"$set": {"n.x": 5}, "$unset": {"f": 1}}).await.expect("set");
    ground.put(Kind::Page, doc! {"_id": "p", "page": 1}).await;
    people.replace_one(by_id.clone(), doc! {"_id": "a", "f": 2}).await.expect("replaced");
    people.delete_one(by_id).await.expect("deleted");
    // Not told: ids that are no text, other collections, files, other nodes.
    people.insert_one(doc! {"_id": 5}).await.expect("inserted");
    for collection in ["others", "fs.files", "fs.chunks"] {
        let rows = ground.database.collection::<Document>(collection);
        rows.insert_one(doc! {"_id": "a"}).await.expect("inserted");
    }
    ground.set_row(NODES_COLLECTION, doc! {"_id": "other", "lease": {"number": 1_i64, "nonce": "n"}}).await;
    let told = all(feed.as_mut()).await;
    let page = RecordKey::new(Kind::Page, "p");
    let expected = [
        record(person("a"), updated(vec![("n.x", bson!(5))], &["f"])),
        record(page, Effect::Inserted(None)),
        record(person("a"), Effect::Replaced(None)),
        record(person("a"), Effect::Deleted),
    ];
    assert_eq!(told.events, expected);
    assert!(!told.is_lost);
    ground.clear().await;
}

/// Own writes are told like those of others: that is the proof that they landed.
#[tokio::test]
async fn own_writes_and_the_own_lease_are_told() {
    let server = MongoServer::start().await;
    for bulk in [true, false] {
        let ground = Ground::new(&server).await;
        let hub = if bulk { ground.hub() } else { ground.hub().without_bulk_write() };
        let mut central = open(&hub).await;
        ground.put(Kind::Person, doc! {"_id": "a", "f": "old", "n": {"x": 1}, "gone": 1}).await;
        ground.put(Kind::Person, doc! {"_id": "r", "f": 1}).await;
        ground.put(Kind::Person, doc! {"_id": "d", "f": 1}).await;
        let bodies = [person("new"), person("r")];
        let first = Lease { number: 1, nonce: "one".to_owned() };
        let second = Lease { number: 2, nonce: "two".to_owned() };
        let taken = central.take_lease("me", &[], &first, &doc! {"name": "n"}).await.expect("an answer");
        assert_eq!(taken, LeaseAnswer::Taken);
        let mut feed = watch(central.as_mut(), None, &bodies).await;
        let expected = std::slice::from_ref(&first);
        central.take_lease("me", expected, &second, &doc! {"name": "n"}).await.expect("an answer");
        let change = |path: &[&str], from: Option<Bson>, to: Option<Bson>| {
            let path = path.iter().map(|step| (*step).to_owned()).collect();
            Change { path, from, to }
        };
        let changes = vec![
            change(&["f"], Some(bson!("old")), Some(bson!("new"))),
            change(&["gone"], Some(bson!(1)), None),
            change(&["n", "x"], Some(bson!(1)), Some(bson!(2_i64))),
        ];
        let replaced = doc! {"_id": "r", "a.b": 1};
        let batch = [
            insert("new", doc! {"f": "1"}),
            insert("unasked", doc! {"f": "1"}),
            Write::Update { key: person("a"), changes },
            Write::Replace { key: person("r"), base: doc! {"_id": "r", "f": 1}, document: replaced.clone() },
            Write::Delete { key: person("d"), base: doc! {"_id": "d", "f": 1} },
        ];
        for write in batch {
            let answer = central.write(std::slice::from_ref(&write)).await.expect("an answer");
            assert_eq!(answer, [Written::Hit], "{write:?}");
        }
        let told = all(feed.as_mut()).await;
        let set = vec![("f", bson!("new")), ("n.x", bson!(2_i64))];
        let expected = [
            Event::Lease(second),
            record(person("new"), Effect::Inserted(Some(doc! {"_id": "new", "f": "1"}))),
            record(person("unasked"), Effect::Inserted(None)),
            record(person("a"), updated(set, &["gone"])),
            record(person("r"), Effect::Replaced(Some(replaced))),
            record(person("d"), Effect::Deleted),
        ];
        assert_eq!(told.events, expected);
        ground.clear().await;
    }
}

#[tokio::test]
async fn a_token_continues_where_it_was_taken() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    let mut feed = watch(central.as_mut(), None, &[]).await;
    let start = feed.token().expect("a token");
    for n in 0..40 {
        ground.put(Kind::Person, doc! {"_id": format!("{n:02}")}).await;
    }
    let everything = all(feed.as_mut()).await.events;
    assert_eq!(everything.len(), 40);
    let end = feed.token().expect("a token");
    assert_ne!(start, end);
    drop(feed);
    // From the start again, and from wherever a token was given: nothing is lost and nothing comes twice.
    let mut other = open(&ground.hub()).await;
    let mut again = watch(other.as_mut(), Some(&start), &[]).await;
    let mut seen = Vec::new();
    while seen.len() < everything.len() {
        let token = again.token().expect("a token");
        let mut rest = watch(central.as_mut(), Some(&token), &[]).await;
        assert_eq!(all(rest.as_mut()).await.events, everything[seen.len()..]);
        seen.extend(again.next().await.expect("changes").events);
    }
    assert_eq!(seen, everything);
    ground.put(Kind::Person, doc! {"_id": "later"}).await;
    let mut later = watch(central.as_mut(), Some(&end), &[]).await;
    let told = all(later.as_mut()).await.events;
    assert_eq!(told, [record(person("later"), Effect::Inserted(None))]);
    ground.clear().await;
}

#[tokio::test]
async fn an_idle_feed_moves_on_and_costs_little() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    ground.put(Kind::Person, doc! {"_id": "a"}).await;
    let mut central = open(&ground.hub()).await;
    let token = watch(central.as_mut(), None, &[]).await.token().expect("a token");
    // Somebody else is busy with what is none of this node's business.
    let others = ground.database.collection::<Document>("others");
    others.insert_many((0..50).map(|n| doc! {"_id": n})).await.expect("inserted");
    let before = central.traffic();
    let mut feed = watch(central.as_mut(), Some(&token), &[]).await;
    assert_eq!(feed.next().await.expect("an answer"), Changes::default());
    assert_ne!(feed.token().expect("a token"), token);
    let after = central.traffic();
    let (sent, received) =
        (after.bytes_sent - before.bytes_sent, after.bytes_received - before.bytes_received);
    let trips = after.round_trips - before.round_trips;
    println!(
        "opening and {QUIET_ANSWERS} empty answers: {trips} trips, {sent} bytes sent, {received} received"
    );
    assert!(trips <= 1 + QUIET_ANSWERS as u64, "{trips}");
    assert!(sent + received < 3_000, "{sent} {received}");
    ground.clear().await;
}

#[tokio::test]
async fn history_that_is_gone_is_lost() {
    let setup = Setup { secantus_arguments: vec!["--oplog-max-entries=500".to_owned()], ..Setup::default() };
    let server = MongoServer::start_own(setup).await;
    let ground = Ground::new(&server).await;
    ground.put(Kind::Person, doc! {"_id": "a"}).await;
    let mut central = open(&ground.hub()).await;
    let token = watch(central.as_mut(), None, &[]).await.token().expect("a token");
    // A real server keeps at least 990 MB of history, too much to be pushed out here.
    if server.is_secantus() {
        for _ in 0..8 {
            let documents = (0..200).map(|_| doc! {"text": "x"}).collect::<Vec<_>>();
            ground.database.collection::<Document>("others").insert_many(documents).await.expect("inserted");
        }
        let answer = central.watch("me", Some(&token), &[]).await.expect("an answer");
        let is_lost = match answer {
            Watched::Lost => true,
            Watched::Open(mut feed) => all(feed.as_mut()).await.is_lost,
            Watched::Unsupported => false,
        };
        assert!(is_lost);
    }
    // A token that makes no sense is no better.
    let nonsense = Token(doc! {"_data": "00"});
    assert!(!matches!(central.watch("me", Some(&nonsense), &[]).await, Ok(Watched::Open(_))));
    assert!(matches!(central.watch("me", None, &[]).await, Ok(Watched::Open(_))));
}

#[tokio::test]
async fn a_collection_that_is_dropped_or_renamed_loses_the_thread() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let admin = ground.database.client().database("admin");
    let name = |collection: &str| format!("{}.{collection}", ground.database.name());
    ground.put(Kind::Person, doc! {"_id": "a"}).await;
    ground.database.collection("others").insert_one(doc! {"_id": "a"}).await.expect("inserted");
    let mut central = open(&ground.hub()).await;
    let mut feed = watch(central.as_mut(), None, &[]).await;
    ground.database.collection::<Document>("others").drop().await.expect("dropped");
    ground.database.collection("others").insert_one(doc! {"_id": "a"}).await.expect("inserted");
    let rename = doc! {"renameCollection": name("others"), "to": name("more")};
    admin.run_command(rename).await.expect("renamed");
    assert_eq!(all(feed.as_mut()).await, Changes::default(), "nobody's business");
    let rename = doc! {"renameCollection": name("people"), "to": name("persons")};
    admin.run_command(rename).await.expect("renamed");
    assert!(all(feed.as_mut()).await.is_lost);
    let mut feed = watch(central.as_mut(), None, &[]).await;
    let back = doc! {"renameCollection": name("persons"), "to": name("people")};
    admin.run_command(back).await.expect("renamed");
    assert!(all(feed.as_mut()).await.is_lost, "renamed to what nodes read");
    let mut feed = watch(central.as_mut(), None, &[]).await;
    ground.database.collection::<Document>("people").drop().await.expect("dropped");
    assert!(all(feed.as_mut()).await.is_lost);
    ground.put(Kind::Person, doc! {"_id": "a"}).await;
    let mut feed = watch(central.as_mut(), None, &[]).await;
    ground.clear().await;
    assert!(all(feed.as_mut()).await.is_lost, "the whole database");
}

#[tokio::test]
async fn a_standalone_server_has_no_feed() {
    let setup = Setup { standalone: true, ..Setup::default() };
    let server = MongoServer::start_own(setup).await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    assert!(matches!(central.watch("me", None, &[]).await, Ok(Watched::Unsupported)));
    // The conversation goes on.
    let hit = central.write(&[insert("a", doc! {"f": 1})]).await.expect("an answer");
    assert_eq!(hit, [Written::Hit]);
    let hit = central.write(&[set("a", "f", Some(bson!(1)), 2)]).await.expect("an answer");
    assert_eq!(hit, [Written::Hit]);
}
