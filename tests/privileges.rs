//! The privileges that the manual tells administrators to give a node: enough for everything that a node
//! does, over TLS and with a password, and for nothing else.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use bson::{Document, doc};
use serde_json::json;
use thalamus_edge::central::content::{CHUNKS_COLLECTION, FILES_COLLECTION};
use thalamus_edge::central::{CONFLICTS_COLLECTION, NODES_COLLECTION, TRASH_COLLECTION};
use thalamus_edge::domain::record::Kind;

use support::mongo::{MongoServer, Setup};
use support::node::EdgeNode;

const DATABASE: &str = "federation";

/// The command that `docs/SYNC.md` gives.
fn role_of_the_manual() -> Document {
    let manual = include_str!("../docs/SYNC.md");
    let command = manual.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let command: serde_json::Value = serde_json::from_str(command).unwrap();
    let command: Document = bson::serialize_to_document(&command).unwrap();
    // The manual's names are those that nodes use.
    let listed: BTreeSet<&str> = command
        .get_array("privileges")
        .unwrap()
        .iter()
        .map(|privilege| {
            privilege.as_document().unwrap().get_document("resource").unwrap().get_str("collection").unwrap()
        })
        .collect();
    let mut used: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.schema().collection).collect();
    used.extend(["", NODES_COLLECTION, CONFLICTS_COLLECTION, TRASH_COLLECTION]);
    used.extend([FILES_COLLECTION, CHUNKS_COLLECTION]);
    assert_eq!(listed, used);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_of_the_manual_is_enough_and_no_more() {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("centre-ca.pem");
    std::fs::write(&authority, certified.cert.pem()).unwrap();
    let setup = Setup {
        tls: Some((certified.cert.pem(), certified.signing_key.serialize_pem())),
        user: Some(("administrator".to_owned(), "of-users".to_owned())),
        ..Setup::default()
    };
    let server = MongoServer::start_own(setup).await;
    let uri = format!("{}&tlsCAFile={}&authSource=admin", server.uri(), authority.display());
    let administrator = mongodb::Client::with_uri_str(&uri).await.unwrap();
    let admin = administrator.database("admin");
    admin.run_command(role_of_the_manual()).await.unwrap();
    let user = doc! {"createUser": "north-clinic", "pwd": "of-the-box", "roles": ["thalamusEdgeNode"]};
    admin.run_command(user).await.unwrap();
    let uri = uri.replace("administrator:of-users", "north-clinic:of-the-box");

    let people = administrator.database(DATABASE).collection::<Document>("people");
    let person = |id: &str| doc! {"_id": id, "active": false, "name": "Ana", "roles": ["end_user"]};
    people.insert_many([person("ESGNU111ORG"), person("ESGNU222ORG"), person("ESGNU333ORG")]).await.unwrap();

    // Reads, inserts, updates, deletes with their archive, a conflict, attachments, the report: all with this
    // role.
    let node = EdgeNode::start("north", &uri, DATABASE).await;
    assert_eq!(node.round().await["outcome"], "complete");
    node.patch("/people/ESGNU111ORG", json!({"name": "Bea"})).await;
    let set = people.update_one(doc! {"_id": "ESGNU111ORG"}, doc! {"$set": {"name": "Eva"}});
    set.await.unwrap();
    node.patch("/people/ESGNU222ORG", json!({"name": "Bea"})).await;
    node.done("DELETE", "/people/ESGNU333ORG", None).await;
    node.done("POST", "/people/ESGNU444ORG", Some(&json!({"name": "New"}))).await;
    let picture = vec![7; 100_000];
    node.upload("scan", "ESGNU111ORG", &picture).await;
    for _ in 0..2 {
        let report = node.round().await;
        assert_eq!(report["outcome"], "complete", "{report}");
        let message = report["message"].as_str().unwrap();
        assert!(!message.contains("Attachments"), "{message}");
    }
    attachments_come_back(&administrator, &uri, &picture).await;
    let name = async |id: &str| {
        let found = people.find_one(doc! {"_id": id}).await.unwrap();
        found.map(|person| person.get_str("name").unwrap().to_owned())
    };
    assert_eq!(name("ESGNU111ORG").await.as_deref(), Some("Eva"));
    assert_eq!(name("ESGNU222ORG").await.as_deref(), Some("Bea"));
    assert_eq!(name("ESGNU333ORG").await, None);
    assert_eq!(name("ESGNU444ORG").await.as_deref(), Some("New"));
    for collection in ["edge_nodes", "edge_conflicts", "edge_trash"] {
        let rows = administrator.database(DATABASE).collection::<Document>(collection);
        let nodes = if collection == "edge_nodes" { 2 } else { 1 };
        assert_eq!(rows.count_documents(doc! {}).await.unwrap(), nodes, "{collection}");
    }

    let box_ = mongodb::Client::with_uri_str(&uri).await.unwrap();
    let mut forbidden = Vec::new();
    // SecantusDB gives what is allowed in one collection in all collections of the database.
    if !server.is_secantus() {
        forbidden.push((DATABASE, doc! {"delete": "edge_trash", "deletes": [{"q": {}, "limit": 0}]}));
        forbidden.push((DATABASE, doc! {"delete": "edge_conflicts", "deletes": [{"q": {}, "limit": 0}]}));
        forbidden.push((DATABASE, doc! {"delete": "fs.chunks", "deletes": [{"q": {}, "limit": 0}]}));
        forbidden.push((DATABASE, doc! {"insert": "others", "documents": [{"_id": 1}]}));
    }
    forbidden.extend([
        (DATABASE, doc! {"drop": "people"}),
        (DATABASE, doc! {"dropDatabase": 1}),
        ("other", doc! {"find": "people"}),
        ("admin", doc! {"usersInfo": 1}),
        ("admin", doc! {"createUser": "x", "pwd": "x", "roles": ["root"]}),
    ]);
    for (database, forbidden) in forbidden {
        let answer = box_.database(database).run_command(forbidden.clone()).await;
        let error = answer.expect_err(&forbidden.to_string());
        let code = match error.kind.as_ref() {
            mongodb::error::ErrorKind::Command(command) => command.code,
            other => panic!("{forbidden}: {other:?}"),
        };
        assert_eq!(code, 13, "{forbidden}");
    }
}

/// A second node with the same role fetches what the first one sent, marks what it finds wrong, and sends what
/// the centre has lost.
async fn attachments_come_back(administrator: &mongodb::Client, uri: &str, picture: &[u8]) {
    let node = EdgeNode::start("south", uri, DATABASE).await;
    let chunks = administrator.database(DATABASE).collection::<Document>(CHUNKS_COLLECTION);
    let files = administrator.database(DATABASE).collection::<Document>(FILES_COLLECTION);
    let one = doc! {"n": 1};
    let right = chunks.find_one(one.clone()).await.unwrap().unwrap();
    let wrong =
        bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![8; 100_000 - 65_536] };
    chunks.update_one(one.clone(), doc! {"$set": {"data": wrong}}).await.unwrap();
    let report = node.round().await;
    assert!(report["message"].as_str().unwrap().contains("are not what they should be"), "{report}");
    let marked = doc! {"metadata.suspect.node": {"$exists": true}};
    assert_eq!(files.count_documents(marked).await.unwrap(), 1);
    // It has them after all: somebody uploads them here.
    node.upload("scan", "ESGNU111ORG", picture).await;
    node.round().await;
    assert_eq!(chunks.find_one(one).await.unwrap().unwrap().get("data"), right.get("data"));
    assert_eq!(files.count_documents(doc! {"metadata.suspect": {"$exists": false}}).await.unwrap(), 1);
}
