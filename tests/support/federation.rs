//! A federation under test: a MongoDB server as the centre, some nodes, and a legacy application that
//! writes to the centre without knowing of them.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;
use mongodb::options::{Acknowledgment, ReadConcern, WriteConcern};
use mongodb::{Collection, Database};
use serde_json::Value;
use thalamus_edge::domain::json::{DateFormat, Shown};
use thalamus_edge::domain::record::Kind;

use super::mongo::{MongoServer, Setup, unique_database};
use super::node::EdgeNode;

/// (collection, id) -> a record, in whatever form.
pub(crate) type Records<T> = BTreeMap<(String, String), T>;

/// Rounds of every node after which all copies must be equal.
pub(crate) const CLEAN_ROUNDS: usize = 2;

pub(crate) struct Federation {
    pub(crate) mongo: MongoServer,
    pub(crate) database: String,
    /// The legacy application's connection; its writes survive the server's death.
    pub(crate) legacy: Database,
    pub(crate) nodes: Vec<EdgeNode>,
}

impl Federation {
    pub(crate) async fn start(names: &[&str]) -> Federation {
        let mongo = MongoServer::start_own(Setup::default()).await;
        Federation::with(mongo, names).await
    }

    /// A new federation at a server that may have others.
    pub(crate) async fn with(mongo: MongoServer, names: &[&str]) -> Federation {
        let uri = mongo.uri().to_owned();
        Federation::behind(mongo, &uri, names).await
    }

    /// A new federation whose nodes reach the server by another address than the legacy application.
    pub(crate) async fn behind(mongo: MongoServer, uri: &str, names: &[&str]) -> Federation {
        let database = unique_database();
        let legacy = connect(&mongo, &database).await;
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(EdgeNode::start(name, uri, &database).await);
        }
        Federation { mongo, database, legacy, nodes }
    }

    /// The server back, for the next federation.
    pub(crate) fn end(self) -> MongoServer {
        self.mongo
    }

    /// Connects the legacy application anew, after the server was away.
    pub(crate) async fn reconnect(&mut self) {
        self.legacy = connect(&self.mongo, &self.database).await;
    }

    pub(crate) fn centre(&self, collection: &str) -> Collection<Document> {
        self.legacy.collection(collection)
    }

    /// What the centre has under this id.
    pub(crate) async fn at_centre(&self, collection: &str, id: &str) -> Option<Document> {
        self.centre(collection).find_one(doc! {"_id": id}).await.expect("reading at the centre")
    }

    pub(crate) async fn rows(&self, collection: &str, filter: Document) -> Vec<Document> {
        let cursor = self.centre(collection).find(filter).await.expect("reading at the centre");
        cursor.try_collect().await.expect("reading at the centre")
    }

    /// The legacy application sets fields.
    pub(crate) async fn legacy_set(&self, collection: &str, id: &str, fields: Document) {
        let update = doc! {"$set": fields};
        let done =
            self.centre(collection).update_one(doc! {"_id": id}, update).await.expect("a legacy write");
        assert_eq!(done.matched_count, 1, "{collection}/{id} is not there to be set");
    }

    pub(crate) async fn legacy_delete(&self, collection: &str, id: &str) {
        let done = self.centre(collection).delete_one(doc! {"_id": id}).await.expect("a legacy write");
        assert_eq!(done.deleted_count, 1, "{collection}/{id} is not there to be deleted");
    }

    /// Complete rounds of all nodes in turn, this many times; the reports of the last turn.
    pub(crate) async fn rounds(&self, turns: usize) -> Vec<Value> {
        let mut reports = Vec::new();
        for _ in 0..turns {
            reports.clear();
            for node in &self.nodes {
                reports.push(node.round().await);
            }
        }
        reports
    }

    /// Rounds until all must agree, then looks whether they do: over the API, and that one more round of
    /// each has nothing to push and changes nothing at the centre.
    pub(crate) async fn converge(&self) {
        self.rounds(CLEAN_ROUNDS).await;
        let before = self.raw_centre().await;
        for report in self.rounds(1).await {
            for count in ["pulled", "pushed", "merged", "deleted", "conflicts"] {
                assert_eq!(report[count], 0, "after clean rounds: {report}");
            }
        }
        assert!(before == self.raw_centre().await, "a round with nothing to push changed the centre");
        let centre = shown_centre(&before);
        for node in &self.nodes {
            assert_same(&format!("API of {}", node.name), &api_records(node, &before).await, &centre);
        }
    }

    /// Stops the nodes and compares their stores with the centre, byte by byte: after a verification, because
    /// the order of keys that somebody else's server chose is learned by reading only.
    pub(crate) async fn compare_stores(&mut self) {
        let centre = self.raw_centre().await;
        for node in &mut self.nodes {
            let report = node.verification().await;
            for count in ["pushed", "merged", "deleted", "conflicts"] {
                assert_eq!(report[count], 0, "a verification after clean rounds: {report}");
            }
            node.stop().await;
            let (stored, unsettled) = stored_records(node);
            assert!(unsettled.is_empty(), "{} still has bases or intents: {unsettled:?}", node.name);
            assert_same(&format!("store of {}", node.name), &stored, &centre);
        }
    }

    /// The bytes of every record at the centre.
    pub(crate) async fn raw_centre(&self) -> Records<Vec<u8>> {
        let mut records = Records::new();
        for kind in Kind::ALL {
            let name = kind.schema().collection;
            let collection = self.legacy.collection::<RawDocumentBuf>(name);
            let mut cursor = collection.find(doc! {}).await.expect("reading at the centre");
            while let Some(raw) = cursor.try_next().await.expect("reading at the centre") {
                let id = raw.get_str("_id").expect("a textual id").to_owned();
                records.insert((name.to_owned(), id), raw.as_bytes().to_vec());
            }
        }
        records
    }
}

async fn connect(mongo: &MongoServer, database: &str) -> Database {
    let mut options = mongodb::options::ClientOptions::parse(mongo.uri()).await.expect("a connection string");
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    options.read_concern = Some(ReadConcern::majority());
    mongodb::Client::with_options(options).expect("a client").database(database)
}

/// Says which records differ, not just that some do.
fn assert_same<T: PartialEq + std::fmt::Debug>(what: &str, found: &Records<T>, centre: &Records<T>) {
    let keys: BTreeSet<_> = found.keys().chain(centre.keys()).collect();
    let differing: Vec<_> = keys.into_iter().filter(|key| found.get(*key) != centre.get(*key)).collect();
    if let Some(first) = differing.first() {
        panic!(
            "{what} differs from the centre in {} of {} records, first {first:?}:\nthere:  {:?}\ncentre: {:?}",
            differing.len(),
            centre.len(),
            found.get(*first),
            centre.get(*first),
        );
    }
}

/// What root must see of these documents.
fn shown_centre(raw: &Records<Vec<u8>>) -> Records<Value> {
    let show = |bytes: &Vec<u8>| {
        let document = RawDocumentBuf::from_bytes(bytes.clone()).expect("a document");
        let shown = Shown { document: &document, dates: DateFormat::Http, hidden: &[] };
        serde_json::to_value(shown).expect("a shown document")
    };
    raw.iter().map(|(key, bytes)| (key.clone(), show(bytes))).collect()
}

/// Everything that the node's API serves to root. Books of people are found through `centre`.
pub(crate) async fn api_records(node: &EdgeNode, centre: &Records<Vec<u8>>) -> Records<Value> {
    let mut records = Records::new();
    let mut keep = |collection: &str, listed: Value| {
        for record in listed.as_array().expect("a list") {
            let id = record["_id"].as_str().expect("an id").to_owned();
            records.insert((collection.to_owned(), id), record.clone());
        }
    };
    let lists = [
        ("people", "/people"),
        ("personal_document", "/personal-documents"),
        ("domiciliary_unit", "/domiciliary-units"),
        ("institution", "/institutions"),
        ("encounter", "/encounters"),
        ("event", "/events"),
        ("measurements", "/measurements"),
        ("hospitalization", "/hospitalizations"),
    ];
    let mut books = BTreeSet::new();
    for (collection, path) in lists {
        let listed = node.get(path).await;
        if collection == "people" {
            let ids = listed.as_array().expect("a list").iter();
            books.extend(ids.map(|person| person["_id"].as_str().expect("an id").to_owned()));
        }
        keep(collection, listed);
    }
    for ((collection, _), bytes) in centre {
        if collection == "pols" {
            let page = RawDocumentBuf::from_bytes(bytes.clone()).expect("a document");
            books.extend(page.get_str("book").ok().map(str::to_uppercase));
        }
    }
    for book in books {
        keep("pols", node.get(&format!("/pols/{book}")).await);
    }
    records
}

/// The bytes in a stopped node's store, and the records that have a base row or an intent.
fn stored_records(node: &EdgeNode) -> (Records<Vec<u8>>, Vec<String>) {
    let store = node.open_store();
    let snapshot = store.read().expect("reading the store");
    let (mut records, mut unsettled) = (Records::new(), Vec::new());
    for kind in Kind::ALL {
        let page = snapshot.list(kind, None, usize::MAX, usize::MAX).expect("reading the store");
        for record in page.records {
            let key = (kind.schema().collection.to_owned(), record.id);
            records.insert(key, record.document.as_bytes().to_vec());
        }
    }
    let pending = snapshot.pending(None, usize::MAX).expect("reading the store");
    unsettled.extend(pending.into_iter().map(|(.., pending)| pending.key.to_string()));
    unsettled
        .extend(snapshot.intents().expect("reading the store").into_iter().map(|(key, _)| key.to_string()));
    (records, unsettled)
}
