//! The contract of a centre, kept by MongoDB over the wire and by both ways of writing.

mod central;
mod contract;
#[path = "contract/simulated.rs"]
mod simulated;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{bson, doc};
use central::{Ground, open, person, set};
use contract::cases::Sending;
use contract::{Behind, bounds, cases, content, ledger, reading};
use support::mongo::{MongoServer, Setup};
use thalamus_edge::central::mongo::MongoHub;
use thalamus_edge::central::{Central, CentreAddress, Traffic, Write, Written};
use thalamus_edge::domain::record::{Kind, RecordKey};

#[tokio::test]
async fn writes_compare_and_set() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut bulk = open(&ground.hub()).await;
    cases::run(bulk.as_mut(), &ground, Kind::Person, Sending::OneByOne).await;
    let together = match ground.has_bulk_write().await {
        true => Sending::Together,
        false => Sending::TogetherPerhapsOpen,
    };
    cases::run(bulk.as_mut(), &ground, Kind::Person, together).await;
    let mut commands = open(&ground.hub().without_bulk_write()).await;
    cases::run(commands.as_mut(), &ground, Kind::Page, Sending::OneByOne).await;
    let sending = Sending::TogetherPerhapsOpen;
    let open = cases::run(commands.as_mut(), &ground, Kind::Page, sending).await;
    assert!(open > 0, "a mixed batch of commands must leave something open");
    ground.clear().await;
}

#[tokio::test]
async fn a_standalone_server_is_enough() {
    let setup = Setup { standalone: true, ..Setup::default() };
    let server = MongoServer::start_own(setup).await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    let together = match ground.has_bulk_write().await {
        true => Sending::Together,
        false => Sending::TogetherPerhapsOpen,
    };
    cases::run(central.as_mut(), &ground, Kind::Person, together).await;
    reading::order_and_resumption(central.as_mut(), &ground, Kind::Event).await;
    ledger::leases(central.as_mut(), &ground).await;
}

/// A collection may have been made to compare text without regard to case: the centre of a node does not.
/// (SecantusDB does not apply a collection's collation by itself; there the test sees that it is asked not
/// to by what the question costs.)
#[tokio::test]
async fn text_compares_by_bytes_whatever_the_collation() {
    let server = MongoServer::start().await;
    for bulk in [true, false] {
        let mut costs = Vec::new();
        for collation in [None, Some(doc! {"locale": "en", "strength": 2})] {
            // A conversation with little to say is on the safe side without asking.
            for is_asked in [true, false] {
                let ground = Ground::new(&server).await;
                let mut create = doc! {"create": "people"};
                let chosen = collation.clone().map(|collation| doc! {"collation": collation});
                create.extend(chosen.unwrap_or_default());
                ground.database.run_command(create).await.expect("a collection");
                costs.push(compare_text(&ground, bulk, is_asked).await);
                ground.clear().await;
            }
        }
        let [plain, unasked, folding, folding_unasked] = &costs[..] else { panic!() };
        for other in [unasked, folding, folding_unasked] {
            // Nothing is sent in place of the scan.
            for (plain, other) in plain.iter().zip(other).filter(|(_, other)| **other > 0) {
                assert!(other - plain >= 20, "{costs:?}");
            }
        }
        assert!(folding.iter().all(|cost| *cost > 0), "{costs:?}");
    }
}

/// Returns the bytes sent by each exchange. `is_asked`: the conversation looks for collations before them.
async fn compare_text(ground: &Ground, bulk: bool, is_asked: bool) -> Vec<u64> {
    ground.put(Kind::Person, doc! {"_id": "a", "name": "ANA"}).await;
    ground.put(Kind::Person, doc! {"_id": "b", "name": "ANA"}).await;
    let hub = if bulk { ground.hub() } else { ground.hub().without_bulk_write() };
    let mut central = open(&hub).await;
    let mut costs = Vec::new();
    // The first exchange says less than all others: no time of the server is known.
    assert_eq!(central.fetch(Kind::Person, &["none".to_owned()]).await.expect("nothing"), []);
    if is_asked {
        central.scan(Kind::Event, None, &[]).await.expect("a scan");
        assert_eq!(central.scan_next(1).await.expect("nothing"), []);
    }
    let mut sent = central.traffic().command_bytes_sent;
    let mut cost = |central: &dyn Central| {
        costs.push(central.traffic().command_bytes_sent - sent);
        sent = central.traffic().command_bytes_sent;
    };
    let ids = ["a", "A", "b"].map(str::to_owned);
    assert_eq!(central.fetch(Kind::Person, &ids).await.expect("documents").len(), 2);
    cost(central.as_ref());
    if is_asked {
        central.scan(Kind::Person, None, &[]).await.expect("a scan");
        assert_eq!(central.scan_next(5).await.expect("documents").len(), 2);
    }
    cost(central.as_ref());
    let key = person("b");
    let base = doc! {"_id": "b", "name": "Ana"};
    let writes = [
        (set("a", "name", Some(bson!("ana")), "lost"), Written::Miss),
        (Write::Delete { key, base }, Written::Miss),
        (set("a", "name", Some(bson!("ANA")), "kept"), Written::Hit),
    ];
    for (write, expected) in writes {
        assert_eq!(central.write(&[write]).await.expect("answers"), [expected]);
        cost(central.as_ref());
    }
    costs
}

#[tokio::test]
async fn of_two_inserts_at_once_one_happens() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut one = open(&ground.hub()).await;
    let mut other = open(&ground.hub().without_bulk_write()).await;
    for round in 0..20 {
        let insert = |by: &str| {
            let key = RecordKey::new(Kind::Person, format!("race {round}"));
            let document = doc! {"_id": &key.id, "by": by};
            [Write::Insert { key, document }]
        };
        let (a, b) = (insert("a"), insert("b"));
        let (a, b) = tokio::join!(one.write(&a), other.write(&b));
        let answers = [a.expect("an answer"), b.expect("an answer")].concat();
        let expected = [[Written::Hit, Written::Miss], [Written::Miss, Written::Hit]];
        assert!(expected.iter().any(|expected| answers == expected), "{answers:?}");
        let by = if answers[0] == Written::Hit { "a" } else { "b" };
        let stored = ground.get(Kind::Person, &format!("race {round}")).await.expect("a record");
        assert_eq!(stored.get_str("by").ok(), Some(by));
    }
    ground.clear().await;
}

#[tokio::test]
async fn documents_are_read_as_they_are() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    reading::order_and_resumption(central.as_mut(), &ground, Kind::Event).await;
    reading::fetch(central.as_mut(), &ground, Kind::Person).await;
    reading::large_fetch(central.as_mut(), &ground, Kind::Person).await;
    reading::identities(central.as_mut(), &ground).await;
    reading::beside(central.as_mut()).await;
    ground.clear().await;
}

/// Whatever the federation calls its collections.
#[tokio::test]
async fn people_are_told_apart_under_other_names() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let hub = MongoHub::new(CentreAddress {
        uri: server.uri().to_owned(),
        database: ground.database.name().to_owned(),
        collections: BTreeMap::from([(Kind::Person, "personas".to_owned())]),
        app_name: "thalamus-edge tests".to_owned(),
    });
    let ana = doc! {"_id": "ANA", "name": "Ana"};
    ground.database.collection("personas").insert_one(ana.clone()).await.expect("an insert");
    let mut central = open(&hub).await;
    assert_eq!(central.identities(&["ANA".to_owned()]).await.expect("people"), [ana]);
    ground.clear().await;
}

#[tokio::test]
async fn a_scan_takes_time_in_proportion() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    let small = reading::scan_many(central.as_mut(), &ground, Kind::Page, 2_000).await;
    let large = reading::scan_many(central.as_mut(), &ground, Kind::Measurement, 10_000).await;
    println!("2,000 documents {small:?}, 10,000 documents {large:?}");
    // Five times the documents; were it quadratic, 25 times the time.
    assert!(large < small * 12 + Duration::from_secs(1), "{small:?} {large:?}");
    ground.clear().await;
}

#[tokio::test]
async fn leases_conflicts_and_the_archive_are_kept() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    ledger::leases(central.as_mut(), &ground).await;
    ledger::conflicts(central.as_mut(), &ground).await;
    ledger::reopened_conflicts(central.as_mut(), &ground).await;
    ledger::resolutions(central.as_mut(), &ground).await;
    ledger::large_resolutions(central.as_mut(), &ground).await;
    ledger::waiting_conflicts(central.as_mut(), &ground).await;
    ledger::large_waiting_conflicts(central.as_mut(), &ground).await;
    ledger::closed_conflicts(central.as_mut(), &ground).await;
    ledger::answers(central.as_mut(), &ground).await;
    ledger::archive(central.as_mut(), &ground).await;
    let mut other = open(&ground.hub()).await;
    ledger::lease_race(central.as_mut(), other.as_mut()).await;
    ground.clear().await;
}

#[tokio::test]
async fn attachments_lie_in_gridfs() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    content::chunks(central.as_mut(), &ground).await;
    content::files(central.as_mut(), &ground).await;
    content::marks(central.as_mut(), &ground).await;
    let index_names = async |collection: &str| {
        let rows = ground.database.collection::<bson::Document>(collection);
        let mut names = rows.list_index_names().await.expect("indexes");
        names.sort();
        names
    };
    assert_eq!(index_names("fs.chunks").await, ["_id_", "files_id_1_n_1"]);
    let of_files = ["_id_", "filename_1_uploadDate_1", "metadata.suspect.node_1"];
    assert_eq!(index_names("fs.files").await, of_files);
    // A conversation asks for the indexes once, and one that adds nothing does not.
    let cost = async |central: &mut dyn Central, number| {
        let before = central.traffic().round_trips;
        central.add_content_chunks(&"ee".repeat(32), &[(number, vec![1])]).await.expect("added");
        central.traffic().round_trips - before
    };
    assert_eq!(cost(central.as_mut(), 0).await, 1);
    let mut other = open(&ground.hub()).await;
    assert_eq!((cost(other.as_mut(), 1).await, cost(other.as_mut(), 2).await), (3, 1));
    ground.clear().await;
}

#[tokio::test]
async fn what_rows_take_is_bounded() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let mut central = open(&ground.hub()).await;
    bounds::fields_of_files(central.as_mut(), &ground.database).await;
    bounds::bytes_of_chunks(central.as_mut(), &ground.database).await;
    bounds::rows_of_nodes(central.as_mut(), &ground.database).await;
    bounds::decisions(central.as_mut(), &ground.database).await;
    ground.clear().await;
}

#[tokio::test]
async fn one_changed_field_costs_little() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    ground.put(Kind::Person, doc! {"_id": "ESPGNU777ORG", "name": "Ana"}).await;
    let mut central = open(&ground.hub()).await;
    assert_eq!(central.traffic(), Traffic::default());
    let value = "x".repeat(500);
    let cost = async |central: &mut dyn Central, writes: &[Write]| {
        let before = central.traffic();
        let answers = central.write(writes).await.expect("answers");
        assert!(answers.iter().all(|answer| *answer == Written::Hit), "{answers:?}");
        let after = central.traffic();
        assert_eq!(after.round_trips, before.round_trips + 1);
        assert!(after.command_bytes_received > before.command_bytes_received);
        after.command_bytes_sent - before.command_bytes_sent
    };
    assert_eq!(central.fetch(Kind::Person, &["none".to_owned()]).await.expect("nothing"), []);
    assert_eq!(central.traffic().round_trips, 1);
    println!("finding nothing, first exchange included: {:?}", central.traffic());
    let first = set("ESPGNU777ORG", "name", Some(bson!("Ana")), value.as_str());
    let one = cost(central.as_mut(), std::slice::from_ref(&first)).await;
    // The old value is compared, the new one sent: once each, and once only.
    let back = set("ESPGNU777ORG", "name", Some(bson!(value.as_str())), "Ana");
    let second = set("ESPGNU777ORG", "active", None, true);
    let two = cost(central.as_mut(), &[back, second]).await;
    println!("one field of 500 bytes {one} bytes sent, one field more {} bytes", two - one);
    assert!(one > 500 && one < 500 + 600, "{one}");
    assert!(two - one <= 200, "{}", two - one);
    ground.clear().await;
}
