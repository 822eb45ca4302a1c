//! The change feed over the wire.

use bson::{Document, doc};
use thalamus_edge::domain::record::Kind;

use super::{Ground, open};
use crate::contract::{Behind, feeds};
use crate::support::mongo::{MongoServer, Setup};

#[tokio::test]
async fn what_others_do_is_told_in_order_and_what_is_nobodys_business_is_not() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    feeds::told_in_order(open(&ground.hub()).await.as_mut(), &ground).await;
    ground.clear().await;
    let ground = Ground::new(&server).await;
    feeds::told_as_changed(open(&ground.hub()).await.as_mut(), &ground).await;
    feeds::moments(open(&ground.hub()).await.as_mut(), &ground).await;
    ground.clear().await;
}

#[tokio::test]
async fn own_writes_and_the_own_lease_are_told() {
    let server = MongoServer::start().await;
    for bulk in [true, false] {
        let ground = Ground::new(&server).await;
        let hub = if bulk { ground.hub() } else { ground.hub().without_bulk_write() };
        feeds::own_writes_and_lease(open(&hub).await.as_mut(), &ground).await;
        ground.clear().await;
    }
}

#[tokio::test]
async fn a_token_continues_where_it_was_taken() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let (mut central, mut other) = (open(&ground.hub()).await, open(&ground.hub()).await);
    feeds::continuation(central.as_mut(), other.as_mut(), &ground).await;
    ground.clear().await;
}

#[tokio::test]
async fn a_feed_tells_no_more_at_a_time_than_asked_for() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    feeds::small_answers(open(&ground.hub()).await.as_mut(), &ground).await;
    ground.clear().await;
}

#[tokio::test]
async fn an_idle_feed_moves_on_and_costs_little() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    feeds::idling(open(&ground.hub()).await.as_mut(), &ground).await;
    ground.clear().await;
}

#[tokio::test]
async fn history_that_is_gone_is_lost() {
    let setup = Setup { secantus_arguments: vec!["--oplog-max-entries=500".to_owned()], ..Setup::default() };
    let server = MongoServer::start_own(setup).await;
    let ground = Ground::new(&server).await;
    ground.put(Kind::Person, doc! {"_id": "a"}).await;
    let mut central = open(&ground.hub()).await;
    let token = feeds::watch(central.as_mut(), None, &[]).await.token().expect("a token");
    // A real server keeps at least 990 MB of history, too much to be pushed out here.
    if server.is_secantus() {
        for _ in 0..8 {
            let documents = (0..200).map(|_| doc! {"text": "x"}).collect::<Vec<_>>();
            ground.database.collection::<Document>("others").insert_many(documents).await.expect("inserted");
        }
        feeds::forgotten(central.as_mut(), &token).await;
    }
    feeds::nonsense(central.as_mut()).await;
}

#[tokio::test]
async fn a_collection_that_is_dropped_or_renamed_loses_the_thread() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    feeds::upheavals(open(&ground.hub()).await.as_mut(), &ground).await;
}

#[tokio::test]
async fn a_standalone_server_has_no_feed() {
    let setup = Setup { standalone: true, ..Setup::default() };
    let server = MongoServer::start_own(setup).await;
    let ground = Ground::new(&server).await;
    feeds::unsupported(open(&ground.hub()).await.as_mut()).await;
}

/// What one conversation has seen, the next one sees as well, also at another member. A conversation that does not end
/// well takes it along: a time that a centre does not accept is offered once.
#[tokio::test]
async fn a_conversation_sees_no_less_than_the_one_before() {
    let server = MongoServer::start().await;
    let ground = Ground::new(&server).await;
    let hub = ground.hub();
    let mut first = open(&hub).await;
    assert_eq!(first.moment(), None);
    ground.put(Kind::Person, doc! {"_id": "a"}).await;
    assert_eq!(first.fetch(Kind::Person, &["a".to_owned()]).await.expect("a document").len(), 1);
    let seen = first.moment();
    assert!(seen.is_some());
    first.close().await;
    let mut second = open(&hub).await;
    assert_eq!(second.moment(), seen);
    assert_eq!(second.fetch(Kind::Person, &["a".to_owned()]).await.expect("a document").len(), 1);
    drop(second);
    assert_eq!(open(&hub).await.moment(), None);
    assert_eq!(open(&ground.hub()).await.moment(), None, "it is the hub's");
    ground.clear().await;
}
