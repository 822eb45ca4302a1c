//! What the next round does when the centre replies otherwise than the server of the tests: older and set up as older,
//! slow, broken, or another engine that speaks MongoDB's protocol. A proxy makes the replies.

#![allow(clippy::unwrap_used)]

#[path = "engines/documentdb.rs"]
mod documentdb_mongo;
#[path = "engines/dollar_names.rs"]
mod dollar_names_mongo;
#[path = "engines/duplicates.rs"]
mod duplicates_mongo;
#[path = "engines/history.rs"]
mod history_mongo;
#[path = "engines/lone_faults.rs"]
mod lone_faults_mongo;
#[path = "engines/moved.rs"]
mod moved_mongo;
#[path = "engines/other_ids.rs"]
mod other_ids_mongo;
#[path = "engines/put_back.rs"]
mod put_back_mongo;
#[path = "engines/replies.rs"]
mod replies_mongo;
#[path = "engines/routers.rs"]
mod routers_mongo;
#[path = "engines/slow_feed.rs"]
mod slow_feed_mongo;
#[path = "engines/stages.rs"]
mod stages_mongo;
mod support;
#[path = "engines/told.rs"]
mod told_mongo;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Database;
use thalamus_edge::central::mongo::MongoHub;
use thalamus_edge::central::{CentralError, CentreAddress, Hub};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Store, StoreOptions};
use thalamus_edge::sync::{Outcome, Reconciler, Report, SyncSettings};

use support::mongo::{MongoServer, Setup, takes_dollar_names, unique_database};
use support::proxy::Proxy;
use support::sim::{person, person_key};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, audit_keep_rows: 100_000, clock: || 0 };

/// A node, the proxy that it takes for the centre, and the centre as others see it.
struct Ground {
    _server: MongoServer,
    proxy: Proxy,
    centre: Database,
    store: Store,
    sync: Arc<Reconciler>,
}

impl Ground {
    async fn new() -> Ground {
        Ground::with(Setup::default(), SyncSettings::default()).await
    }

    async fn with(setup: Setup, settings: SyncSettings) -> Ground {
        let server = MongoServer::start_own(setup).await;
        let proxy = Proxy::start(server.port()).await;
        let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
        let centre = client.database(&unique_database());
        let store = Store::in_memory(OPTIONS).unwrap();
        let hub: Arc<dyn Hub> = Arc::new(hub(&proxy.uri(), centre.name()));
        let sync = Reconciler::new(store.clone(), Some(hub), settings);
        Ground { _server: server, proxy, centre, store, sync }
    }

    /// A conversation of the test's own.
    fn hub(&self) -> MongoHub {
        hub(&self.proxy.uri(), self.centre.name())
    }

    /// A node that agrees with the centre about two people.
    async fn agreed() -> Ground {
        let ground = Ground::new().await;
        ground.agree().await;
        ground
    }

    async fn agree(&self) {
        for id in ["ANA", "BOB"] {
            self.put(id, "old").await;
        }
        self.ends(Outcome::Complete).await;
        self.ends(Outcome::Complete).await;
        self.proxy.seen();
    }

    async fn put(&self, id: &str, f: &str) {
        self.people().insert_one(person(id, f)).await.unwrap();
    }

    async fn change(&self, id: &str, g: &str) {
        self.people().update_one(doc! {"_id": id}, doc! {"$set": {"g": g}}).await.unwrap();
    }

    fn people(&self) -> mongodb::Collection<Document> {
        self.centre.collection("people")
    }

    async fn at(&self, id: &str) -> Option<Document> {
        self.people().find_one(doc! {"_id": id}).await.unwrap()
    }

    async fn rows(&self, collection: &str) -> Vec<Document> {
        let mut cursor = self.centre.collection::<Document>(collection).find(doc! {}).await.unwrap();
        let mut rows = Vec::new();
        while cursor.advance().await.unwrap() {
            rows.push(cursor.deserialize_current().unwrap());
        }
        rows
    }

    async fn ends(&self, outcome: Outcome) -> Report {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, outcome, "{report:?}");
        report
    }

    async fn edit(&self, id: &str, document: Option<Document>) {
        edit(&self.store, person_key(id), document).await;
    }

    async fn set(&self, id: &str, f: &str) {
        self.edit(id, Some(person(id, f))).await;
    }

    fn here(&self, kind: Kind, id: &str) -> Option<Document> {
        let record = self.store.read().unwrap().record(&RecordKey::new(kind, id)).unwrap()?;
        Some(Document::try_from(record.document.as_ref()).unwrap())
    }

    fn person(&self, id: &str) -> Option<Document> {
        self.here(Kind::Person, id)
    }

    fn pending(&self) -> u64 {
        self.store.read().unwrap().pending_count().unwrap()
    }

    fn dead(&self) -> Vec<i32> {
        self.store.read().unwrap().dead_letters().unwrap().into_iter().map(|letter| letter.code).collect()
    }
}

/// A centre that is given up after two seconds without a reply.
fn hub(uri: &str, database: &str) -> MongoHub {
    let address = CentreAddress {
        uri: uri.to_owned(),
        database: database.to_owned(),
        collections: BTreeMap::new(),
        app_name: "thalamus-edge tests".to_owned(),
    };
    MongoHub::new(address).with_call_limit(Duration::from_secs(2))
}

async fn edit(store: &Store, key: RecordKey, document: Option<Document>) {
    let actor = Actor::Local("tech".to_owned());
    store.transact(move |tx| tx.edit(&key, document.as_ref(), &actor)).await.unwrap();
}

/// The names of commands, in order.
fn names(commands: &[Document]) -> Vec<String> {
    commands.iter().map(|command| command.keys().next().unwrap().clone()).collect()
}
