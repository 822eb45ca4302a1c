//! The centre over a MongoDB server: a database for each test, and what only a real server can show.

mod away;
mod errors;
mod feed;
mod relay;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bson::{Bson, Document, bson, doc};
use mongodb::{Client, Collection, Database};
use thalamus_edge::central::content::{CHUNKS_COLLECTION, FILES_COLLECTION};
use thalamus_edge::central::mongo::MongoHub;
use thalamus_edge::central::{Central, CentreAddress, Hub};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::value::has_dollar_name;

use crate::contract::Behind;
use crate::contract::content::ContentBehind;
pub(crate) use crate::contract::{insert, person, set};
use crate::support::mongo::{MongoServer, takes_dollar_names, unique_database};

/// A database of the test's own, by the driver alone.
pub(crate) struct Ground {
    uri: String,
    pub(crate) database: Database,
}

impl Ground {
    pub(crate) async fn new(server: &MongoServer) -> Self {
        let client = Client::with_uri_str(server.uri()).await.expect("a client");
        Self { uri: server.uri().to_owned(), database: client.database(&unique_database()) }
    }

    pub(crate) fn hub(&self) -> MongoHub {
        hub(&self.uri, self.database.name())
    }

    /// Whether the server has `bulkWrite`, since 8.0. Before that a mixed batch may leave answers open.
    pub(crate) async fn has_bulk_write(&self) -> bool {
        let admin = self.database.client().database("admin");
        let hello = admin.run_command(doc! {"isMaster": 1}).await.expect("an answer");
        hello.get_i32("maxWireVersion").expect("a version") >= 25
    }

    fn collection(&self, kind: Kind) -> Collection<Document> {
        self.database.collection(kind.schema().collection)
    }

    pub(crate) async fn clear(self) {
        self.database.drop().await.expect("dropping the test's database");
    }
}

pub(crate) fn hub(uri: &str, database: &str) -> MongoHub {
    MongoHub::new(CentreAddress {
        uri: uri.to_owned(),
        database: database.to_owned(),
        collections: BTreeMap::new(),
        app_name: "thalamus-edge tests".to_owned(),
    })
    .counting_command_bytes(true)
}

pub(crate) async fn open(hub: &MongoHub) -> Box<dyn Central> {
    hub.open().await.expect("a conversation")
}

#[async_trait]
impl Behind for Ground {
    async fn put(&self, kind: Kind, document: Document) {
        self.collection(kind).insert_one(document).await.expect("an insert");
    }

    async fn put_all(&self, kind: Kind, documents: Vec<Document>) {
        self.collection(kind).insert_many(documents).await.expect("inserts");
    }

    async fn get(&self, kind: Kind, id: &str) -> Option<Document> {
        self.row(kind.schema().collection, id).await
    }

    async fn row(&self, collection: &str, id: &str) -> Option<Document> {
        let rows = self.database.collection::<Document>(collection);
        rows.find_one(doc! {"_id": id}).await.expect("a find")
    }

    async fn set_row(&self, collection: &str, row: Document) {
        let rows = self.database.collection::<Document>(collection);
        let id = doc! {"_id": row.get("_id").cloned()};
        if has_dollar_name(&row) {
            // MongoDB before 5.0 takes such names in an insert only.
            rows.delete_one(id).await.expect("a delete");
            rows.insert_one(row).await.expect("an insert");
            return;
        }
        let replacing = rows.replace_one(id, row).upsert(true);
        replacing.await.expect("a replace");
    }

    async fn update(&self, kind: Kind, id: &str, set: Document, unset: &[&str]) {
        let mut update = doc! {"$set": set};
        if !unset.is_empty() {
            update.insert(
                "$unset",
                unset.iter().map(|path| ((*path).to_owned(), bson!(""))).collect::<Document>(),
            );
        }
        self.collection(kind).update_one(doc! {"_id": id}, update).await.expect("an update");
    }

    async fn replace(&self, kind: Kind, document: Document) {
        let id = document.get("_id").cloned();
        self.collection(kind).replace_one(doc! {"_id": id}, document).await.expect("a replacement");
    }

    async fn remove(&self, kind: Kind, id: &str) {
        self.collection(kind).delete_one(doc! {"_id": id}).await.expect("a delete");
    }

    async fn put_elsewhere(&self, collection: &str, documents: Vec<Document>) {
        self.database.collection(collection).insert_many(documents).await.expect("inserts");
    }

    async fn rename(&self, from: &str, to: &str) {
        let name = |collection: &str| format!("{}.{collection}", self.database.name());
        let rename = doc! {"renameCollection": name(from), "to": name(to)};
        self.database.client().database("admin").run_command(rename).await.expect("renamed");
    }

    async fn drop_collection(&self, collection: &str) {
        self.database.collection::<Document>(collection).drop().await.expect("dropped");
    }

    async fn drop_everything(&self) {
        self.database.drop().await.expect("dropped");
    }

    async fn takes_dollar_names(&self) -> bool {
        takes_dollar_names(&self.database).await
    }
}

#[async_trait]
impl ContentBehind for Ground {
    async fn file(&self, id: &str) -> Option<Document> {
        self.row(FILES_COLLECTION, id).await
    }

    async fn set_file(&self, row: Document) {
        self.set_row(FILES_COLLECTION, row).await;
    }

    async fn chunk(&self, id: &str, number: u64) -> Option<Bson> {
        let chunks = self.database.collection::<Document>(CHUNKS_COLLECTION);
        let found = chunks.find_one(doc! {"files_id": id, "n": number as i64}).await.expect("a find");
        found.map(|chunk| chunk.get("data").cloned().expect("data"))
    }

    async fn set_chunk(&self, id: &str, number: u64, data: Bson) {
        let chunks = self.database.collection::<Document>(CHUNKS_COLLECTION);
        let set = doc! {"$set": {"data": data}};
        let setting = chunks.update_one(doc! {"files_id": id, "n": number as i32}, set).upsert(true);
        setting.await.expect("an update");
    }
}
