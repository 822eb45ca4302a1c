//! Two nodes, a legacy application and a MongoDB server as the centre: what each sees of the others' edits.
//!
//! The nodes are the real binary, used through its API over TLS; the legacy application uses the plain
//! driver and leaves no sign for the nodes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests are told by the environment what to run with"
)]

mod support;

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use serde_json::{Value, json};

use support::federation::{CLEAN_ROUNDS, Federation, api_records};
use support::generator;
use support::node::EdgeNode;

const PEOPLE: usize = 1000;
const PAGES: usize = 5000;

async fn fill_centre(federation: &Federation) -> Vec<Document> {
    let people = generator::people(PEOPLE, 1);
    let pages = generator::pages(PAGES, &people, 2);
    federation.centre("people").insert_many(&people).await.unwrap();
    federation.centre("pols").insert_many(&pages).await.unwrap();
    for (collection, document) in generator::every_type() {
        federation.centre(collection).insert_one(document).await.unwrap();
    }
    people
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_nodes_take_everything_and_push_back_nothing() {
    let mut federation = Federation::start(&["north", "south"]).await;
    let people = fill_centre(&federation).await;
    let before = federation.raw_centre().await;

    for node in &federation.nodes {
        let started = Instant::now();
        let report = node.round().await;
        println!(
            "first sweep of {} records by {}: {:?}, {report}",
            before.len(),
            node.name,
            started.elapsed()
        );
        assert_eq!(report["pulled"], before.len(), "{report}");
        assert_eq!(report["pushed"], 0, "{report}");
    }
    for node in &federation.nodes {
        let served = node.get("/people").await;
        assert_eq!(served.as_array().unwrap().len(), PEOPLE + 3);
        let first = &people[0];
        let shown = node.get(&format!("/people/{}", first.get_str("_id").unwrap())).await;
        for field in ["name", "lastname", "dob", "phone", "address"] {
            assert_eq!(shown[field], first.get_str(field).unwrap(), "{field}");
        }
        assert_eq!(api_records(node, &before).await.len(), before.len());
    }
    for report in federation.rounds(1).await {
        println!("idle round over {} records: {report}", before.len());
    }
    assert!(before == federation.raw_centre().await, "an idle round changed the centre");
    federation.converge().await;
    assert!(before == federation.raw_centre().await, "the bytes at the centre have changed");
    federation.compare_stores().await;
    assert_eq!(federation.rows("edge_conflicts", doc! {}).await, Vec::<Document>::new());
    assert_eq!(federation.rows("edge_trash", doc! {}).await, Vec::<Document>::new());
}

/// A federation whose nodes have pulled some people and a page.
async fn small_federation() -> Federation {
    let federation = Federation::start(&["north", "south"]).await;
    let person = |id: &str, name: &str| {
        doc! {"_id": id, "name": name, "lastname": "Betz", "phone": "1", "address": "a", "active": false,
        "roles": ["end_user"], "password": "$2b$12$cjrKVGYEKUwCmVDCtEnwcegcrmECTmeBz526AAD/ZqMGPWFpHJ4FW"}
    };
    let people = ["ANA", "BOB", "CLO", "DAN", "EVA"].map(|id| person(id, id));
    federation.centre("people").insert_many(people).await.unwrap();
    let page = doc! {"_id": "p1", "book": "ANA", "info": "x", "vitals": {"pulse": 70, "bp": {"sys": 120, "dia": 80}}};
    federation.centre("pols").insert_one(page).await.unwrap();
    federation.rounds(1).await;
    federation
}

async fn field(node: &EdgeNode, path: &str, field: &str) -> Value {
    node.get(path).await[field].clone()
}

/// The open conflicts that a node lists.
async fn open_conflicts(node: &EdgeNode) -> Vec<Value> {
    node.get("/sync/conflicts?status=open").await.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_of_different_fields_both_stand() {
    let mut federation = small_federation().await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    north.patch("/people/ANA", json!({"phone": "n"})).await;
    north.patch("/pols/ANA/p1", json!({"vitals": {"pulse": 71, "bp": {"sys": 120, "dia": 80}}})).await;
    south.patch("/people/ANA", json!({"address": "s"})).await;
    south.patch("/pols/ANA/p1", json!({"vitals": {"pulse": 70, "bp": {"sys": 120, "dia": 90}}})).await;
    north.done("POST", "/pols/ANA/p2", Some(&json!({"id": "p2", "info": "by north"}))).await;
    south.done("POST", "/people/NEW01", Some(&json!({"name": "Nueva", "password": "a long password"}))).await;
    federation.legacy_set("people", "ANA", doc! {"name": "Anna", "seen": 5_i64}).await;
    federation.converge().await;

    let ana = federation.at_centre("people", "ANA").await.unwrap();
    assert_eq!(ana.get_str("phone").unwrap(), "n");
    assert_eq!(ana.get_str("address").unwrap(), "s");
    assert_eq!((ana.get_str("name").unwrap(), ana.get_i64("seen").unwrap()), ("Anna", 5));
    let page = federation.at_centre("pols", "p1").await.unwrap();
    assert_eq!(page.get_document("vitals").unwrap(), &doc! {"pulse": 71, "bp": {"sys": 120, "dia": 90}});
    assert!(federation.at_centre("pols", "p2").await.is_some());
    assert!(federation.at_centre("people", "NEW01").await.is_some());
    for node in &federation.nodes {
        assert_eq!(open_conflicts(node).await, Vec::<Value>::new());
    }
    federation.compare_stores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_of_one_field_leave_a_conflict_to_decide() {
    let mut federation = small_federation().await;
    let decisions = [
        ("ANA", json!({"take": "local"}), "south"),
        ("BOB", json!({"take": "central"}), "north"),
        ("CLO", json!({"value": "both"}), "both"),
    ];
    for (person, ..) in &decisions {
        federation.nodes[0].patch(&format!("/people/{person}"), json!({"phone": "north"})).await;
        federation.nodes[1].patch(&format!("/people/{person}"), json!({"phone": "south"})).await;
    }
    federation.converge().await;
    assert!(open_conflicts(&federation.nodes[0]).await.is_empty());
    let conflicts = open_conflicts(&federation.nodes[1]).await;
    assert_eq!(conflicts.len(), 3, "{conflicts:?}");
    assert_eq!(federation.nodes[1].get("/sync/status").await["conflicts_open"], 3);
    let published = federation.rows("edge_conflicts", doc! {"status": "open"}).await;
    assert_eq!(published.len(), 3, "{published:?}");
    for row in &published {
        assert_eq!((row.get_str("local").unwrap(), row.get_str("central").unwrap()), ("south", "north"));
        assert_eq!(row.get_array("path").unwrap(), &vec![Bson::from("phone")]);
    }

    let south = &federation.nodes[1];
    for (person, decision, _) in &decisions {
        let conflict = conflicts.iter().find(|conflict| conflict["record"] == *person).unwrap();
        assert_eq!((&conflict["local"], &conflict["central"]), (&json!("south"), &json!("north")));
        assert_eq!(field(south, &format!("/people/{person}"), "phone").await, "north");
        let path = format!("/sync/conflicts/{}", conflict["id"].as_str().unwrap());
        // What was seen moves on, so that the decision would be made on something else.
        let seen = south.call("GET", &path, None).await.etag.unwrap();
        south.patch(&format!("/people/{person}"), json!({"phone": "moved"})).await;
        let resolution = format!("{path}/resolution");
        let stale =
            south.try_call("POST", &resolution, &[("if-match", &seen)], Some(decision)).await.unwrap();
        assert_eq!(stale.status, 409, "{}", stale.json());
        assert_eq!(stale.json()["current"]["current"], "moved");
        south.patch(&format!("/people/{person}"), json!({"phone": "north"})).await;
        let seen = south.call("GET", &path, None).await.etag.unwrap();
        let decided =
            south.try_call("POST", &resolution, &[("if-match", &seen)], Some(decision)).await.unwrap();
        assert_eq!(decided.status, 200, "{}", decided.json());
        let again = south.call("POST", &resolution, Some(decision)).await;
        assert_eq!(again.status, 409, "{}", again.json());
    }
    federation.converge().await;
    for (person, _, phone) in &decisions {
        let there = federation.at_centre("people", person).await.unwrap();
        assert_eq!(there.get_str("phone").unwrap(), *phone, "{person}");
    }
    assert!(open_conflicts(&federation.nodes[1]).await.is_empty());
    let closed = federation.rows("edge_conflicts", doc! {"status": "resolved"}).await;
    let mut resolutions: Vec<&str> = closed.iter().map(|row| row.get_str("resolution").unwrap()).collect();
    resolutions.sort_unstable();
    assert_eq!(resolutions, ["central", "local", "value"]);
    federation.compare_stores().await;
}

/// Two clinics and a hub have the same page, each in the form of its program: text and BSON dates, whole numbers and floats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_means_the_same_is_no_conflict_where_versions_meet_first() {
    let mut federation = small_federation().await;
    let moment = bson::DateTime::from_millis(1_796_000_400_000);
    let by_hub = doc! {"_id": "p9", "book": "ANA", "page_date": moment, "weight": 70.0, "info": "x"};
    federation.centre("pols").insert_one(&by_hub).await.unwrap();
    for (node, page_date) in
        federation.nodes.iter().zip(["2026-11-30T01:00:00Z", "Mon, 30 Nov 2026 01:00:00 GMT"])
    {
        let page = json!({"id": "p9", "page_date": page_date, "weight": 70, "info": "x"});
        node.done("POST", "/pols/ANA/p9", Some(&page)).await;
    }
    let before = federation.raw_centre().await;
    federation.converge().await;
    assert!(before == federation.raw_centre().await, "nothing is written at the centre");
    for node in &federation.nodes {
        assert_eq!(open_conflicts(node).await, Vec::<Value>::new());
        assert_eq!(node.get("/sync/status").await["pending"], 0);
    }
    assert_eq!(federation.rows("edge_conflicts", doc! {}).await, Vec::<Document>::new());
    federation.compare_stores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_application_writes_in_between() {
    let mut federation = small_federation().await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    north.patch("/people/ANA", json!({"phone": "north"})).await;
    federation.legacy_set("people", "ANA", doc! {"phone": "legacy", "address": "legacy"}).await;
    // A replacement takes away what nobody here touched, and the order of fields.
    south.patch("/people/BOB", json!({"address": "south"})).await;
    let replaced =
        doc! {"_id": "BOB", "lastname": "Betz", "address": "a", "roles": ["end_user"], "name": "Robert"};
    federation.centre("people").replace_one(doc! {"_id": "BOB"}, replaced).await.unwrap();
    // Roles are a set.
    north.patch("/people/CLO", json!({"roles": ["end_user", "root"]})).await;
    south.patch("/people/CLO", json!({"roles": ["health_professional"]})).await;
    federation.legacy_set("people", "CLO", doc! {"roles": ["end_user", "epidemiologist"]}).await;
    // Gone from everywhere.
    federation.legacy_delete("people", "DAN").await;
    federation.converge().await;

    let ana = federation.at_centre("people", "ANA").await.unwrap();
    assert_eq!((ana.get_str("phone").unwrap(), ana.get_str("address").unwrap()), ("legacy", "legacy"));
    let conflicts = open_conflicts(&federation.nodes[0]).await;
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!((&conflicts[0]["local"], &conflicts[0]["central"]), (&json!("north"), &json!("legacy")));
    let bob = federation.at_centre("people", "BOB").await.unwrap();
    assert_eq!(
        bob,
        doc! {"_id": "BOB", "lastname": "Betz", "address": "south", "roles": ["end_user"], "name": "Robert"}
    );
    let clo = federation.at_centre("people", "CLO").await.unwrap();
    let roles: Vec<&str> =
        clo.get_array("roles").unwrap().iter().map(|role| role.as_str().unwrap()).collect();
    assert_eq!(roles, ["epidemiologist", "root", "health_professional"]);
    for node in &federation.nodes {
        assert_eq!(node.call("GET", "/people/DAN", None).await.status, 404);
    }
    federation.compare_stores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_beats_a_delete_and_bodies_are_archived_first() {
    let mut federation = small_federation().await;
    let [north, south] = &federation.nodes[..] else { panic!() };
    // Edited here, deleted there.
    north.patch("/people/ANA", json!({"phone": "kept"})).await;
    federation.legacy_delete("people", "ANA").await;
    // Deleted here, with an edit that nobody else has seen, and edited there.
    south.patch("/people/BOB", json!({"address": "unseen"})).await;
    south.done("DELETE", "/people/BOB", None).await;
    federation.legacy_set("people", "BOB", doc! {"phone": "kept"}).await;
    // Deleted by one node and edited by the other.
    north.done("DELETE", "/people/CLO", None).await;
    south.patch("/people/CLO", json!({"phone": "kept"})).await;
    // Deleted by a node and nobody else.
    south.done("DELETE", "/people/DAN", None).await;
    // A password that loses.
    north.patch("/people/EVA", json!({"password": "first new password"})).await;
    south.patch("/people/EVA", json!({"password": "second new password"})).await;
    federation.converge().await;

    for person in ["ANA", "BOB", "CLO"] {
        let there =
            federation.at_centre("people", person).await.unwrap_or_else(|| panic!("{person} is gone"));
        assert_eq!(there.get_str("phone").unwrap(), "kept", "{person}");
    }
    assert!(federation.at_centre("people", "DAN").await.is_none());
    let whole = |node: usize, person: &'static str| {
        let federation = &federation;
        async move {
            let conflicts = open_conflicts(&federation.nodes[node]).await;
            let found = conflicts.into_iter().find(|conflict| conflict["record"] == person);
            found.unwrap_or_else(|| panic!("no conflict about {person} on node {node}"))
        }
    };
    assert_eq!(whole(0, "ANA").await["stands"], "local");
    let bob = whole(1, "BOB").await;
    assert_eq!((&bob["stands"], &bob["path"]), (&json!("central"), &json!([])));
    assert_eq!((bob.get("local"), &bob["central"]["phone"]), (None, &json!("kept")), "{bob}");
    let trash = federation.nodes[1].get("/trash?person=BOB").await;
    let bob = trash.as_array().unwrap().iter().find(|row| row["record"] == "BOB").unwrap();
    assert_eq!(bob["state"], "void");
    let body = federation.nodes[1].get(&format!("/trash/{}", bob["id"])).await;
    assert_eq!(body["document"]["address"], "unseen", "the deleted body with its unpushed edit: {body}");
    let eva = whole(1, "EVA").await;
    assert_eq!((&eva["secret"], eva.get("local")), (&json!(true), None));

    let archived = federation.rows("edge_trash", doc! {"id": "DAN"}).await;
    assert_eq!(archived.len(), 1, "{archived:?}");
    assert_eq!(archived[0].get_str("state").unwrap(), "done");
    assert_eq!(archived[0].get_document("document").unwrap().get_str("name").unwrap(), "DAN");
    for collection in ["edge_trash", "edge_conflicts"] {
        for row in federation.rows(collection, doc! {}).await {
            let text = Bson::Document(row).into_relaxed_extjson().to_string();
            assert!(!text.contains("$2b$"), "a password hash in {collection}: {text}");
        }
    }
    // The delete was carried out before the other node's edit brought the record back.
    let archived = federation.rows("edge_trash", doc! {"id": "CLO"}).await;
    assert_eq!(archived.len(), 1, "{archived:?}");
    assert_eq!(archived[0].get_document("document").unwrap().get_str("phone").unwrap(), "1");
    assert_eq!(whole(1, "CLO").await["stands"], "local");
    federation.compare_stores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_is_normal() {
    let mut federation = small_federation().await;
    federation.mongo.kill_9();
    let north = &federation.nodes[0];
    edit_everything(north, "offline").await;
    let started = Instant::now();
    let reply = north.call("POST", "/sync/rounds", None).await;
    assert_eq!((reply.status, &reply.json()["outcome"]), (200, &json!("offline")), "{}", reply.json());
    println!("a round without a centre: {:?}", started.elapsed());
    // An election has time to end before a node gives up.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let status = north.get("/sync/status").await;
    assert_eq!(status["state"], "offline");
    assert!(status["pending"].as_u64().unwrap() > 0, "{status}");

    federation.mongo.restart().await;
    federation.reconnect().await;
    federation.converge().await;
    assert_eq!(federation.at_centre("people", "ANA").await.unwrap().get_str("phone").unwrap(), "offline");

    // A centre that takes connections and says nothing.
    federation.mongo.pause();
    let north = &federation.nodes[0];
    let round = async { north.try_round().await.unwrap() };
    let calls = async {
        let (mut slowest, mut count) = (Duration::ZERO, 0);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            let one = Instant::now();
            edit_everything(north, &format!("hung {count}")).await;
            slowest = slowest.max(one.elapsed());
            count += 1;
        }
        (slowest, count, started.elapsed())
    };
    let (report, (slowest, count, _)) = tokio::join!(round, calls);
    println!(
        "a round at a hung centre: {report}; meanwhile {count} times six calls, slowest six {slowest:?}"
    );
    assert_eq!(report["outcome"], "offline", "{report}");
    assert!(count > 5 && slowest < Duration::from_secs(2), "{count} in 3 s, slowest {slowest:?}");
    assert_eq!(north.get("/sync/status").await["state"], "offline");
    federation.mongo.resume();
    federation.converge().await;
    federation.compare_stores().await;
}

/// One call of each sort.
async fn edit_everything(node: &EdgeNode, text: &str) {
    node.get("/people").await;
    node.patch("/people/ANA", json!({"phone": text})).await;
    node.done("PUT", "/pols/ANA/p9", Some(&json!({"id": "p9", "info": text}))).await;
    node.done("DELETE", "/pols/ANA/p9", None).await;
    node.get("/sync/status").await;
    node.get("/changes?since=0&limit=10").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_deletes_at_the_centre_wait_for_the_operator() {
    let mut federation = Federation::start(&["north", "south"]).await;
    let people = generator::people(60, 5);
    federation.centre("people").insert_many(&people).await.unwrap();
    federation.rounds(1).await;
    let (gone, kept) = people.split_at(50);
    let ids =
        |people: &[Document]| people.iter().map(|p| p.get_str("_id").unwrap().to_owned()).collect::<Vec<_>>();
    let kept_id = ids(kept).remove(0);
    federation.centre("people").delete_many(doc! {"_id": {"$in": ids(gone)}}).await.unwrap();
    let north = &federation.nodes[0];
    north.patch(&format!("/people/{kept_id}"), json!({"phone": "not yet"})).await;
    // However often it looks.
    for _ in 0..3 {
        let report = north.try_round().await.unwrap();
        assert_eq!((&report["outcome"], &report["pushed"]), (&json!("halted"), &json!(0)), "{report}");
        assert!(report["message"].as_str().unwrap().contains("of 60 records in people are gone"), "{report}");
    }
    assert_eq!(north.get("/sync/status").await["state"], "halted");
    assert_eq!(north.get("/people").await.as_array().unwrap().len(), 60);
    for node in &federation.nodes {
        assert_eq!(node.try_round().await.unwrap()["outcome"], "halted");
        let accepted = node.operator("POST", "/sync/resume", Some(&json!({"accept_deletes": true}))).await;
        assert_eq!(accepted.status, 204);
    }
    federation.rounds(CLEAN_ROUNDS).await;
    federation.converge().await;
    for node in &federation.nodes {
        assert_eq!(node.get("/people").await.as_array().unwrap().len(), 10);
    }
    federation.compare_stores().await;
}

/// The commands that `docs/SYNC.md` gives for `mongosh`: filter and update of each.
fn commands_of_the_manual() -> Vec<(Document, Document)> {
    let manual = include_str!("../docs/SYNC.md");
    let calls = manual.split("db.edge_conflicts.updateOne(").skip(1);
    let arguments = calls.map(|rest| rest.split(")\n").next().unwrap());
    let parsed = arguments.map(|arguments| {
        let arguments: Value = serde_json::from_str(&format!("[{arguments}]")).unwrap();
        let argument = |at: usize| bson::serialize_to_document(&arguments[at]).unwrap();
        (argument(0), argument(1))
    });
    parsed.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_decides_at_the_centre() {
    let mut federation = small_federation().await;
    let commands = commands_of_the_manual();
    assert_eq!(commands.len(), 2);
    for person in ["ANA", "BOB"] {
        federation.nodes[0].patch(&format!("/people/{person}"), json!({"phone": "555-2000"})).await;
        federation.nodes[1].patch(&format!("/people/{person}"), json!({"phone": "555-3000"})).await;
    }
    federation.converge().await;
    for (person, (filter, update)) in ["ANA", "BOB"].iter().zip(&commands) {
        let row = federation.rows("edge_conflicts", doc! {"id": *person}).await.remove(0);
        assert_eq!(row.get_str("local").unwrap(), "555-3000");
        let mut filter = filter.clone();
        assert!(filter.get_str("_id").unwrap().ends_with('…'));
        filter.insert("_id", row.get_str("_id").unwrap());
        for matched in [1, 0] {
            let done = federation.centre("edge_conflicts").update_one(filter.clone(), update.clone()).await;
            assert_eq!(done.unwrap().matched_count, matched, "of two decisions the first stands");
        }
    }
    federation.converge().await;
    for (person, phone) in [("ANA", "555-3000"), ("BOB", "555-4000")] {
        let there = federation.at_centre("people", person).await.unwrap();
        assert_eq!(there.get_str("phone").unwrap(), phone, "{person}");
    }
    assert!(open_conflicts(&federation.nodes[1]).await.is_empty());
    let closed = federation.nodes[1].get("/sync/conflicts?status=resolved").await;
    for conflict in closed.as_array().unwrap() {
        assert_eq!(conflict["resolved_by"], "centre (Head office)", "{conflict}");
        assert_eq!(conflict.get("notes"), None, "{conflict}");
    }
    // The same value lost once more: the row is open again.
    federation.nodes[0].patch("/people/ANA", json!({"phone": "555-5000"})).await;
    federation.nodes[1].patch("/people/ANA", json!({"phone": "555-6000"})).await;
    federation.converge().await;
    federation.nodes[0].patch("/people/ANA", json!({"phone": "555-7000"})).await;
    federation.nodes[1].patch("/people/ANA", json!({"phone": "555-3000"})).await;
    federation.converge().await;
    let open = federation.rows("edge_conflicts", doc! {"id": "ANA", "status": "open"}).await;
    let again = open.iter().find(|row| row.get_str("local").unwrap() == "555-3000").unwrap();
    assert_eq!(again.get_str("central").unwrap(), "555-7000");
    assert_eq!(again.get_array("notes").unwrap().len(), 1);
    assert_eq!((again.get("resolution"), again.get("resolved_by")), (None, None));
    federation.compare_stores().await;
}

/// What an administrator writes by hand, with its mistakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_written_at_the_centre_is_answered_in_its_row() {
    let mut federation = small_federation().await;
    for person in ["ANA", "BOB", "CLO"] {
        federation.nodes[0].patch(&format!("/people/{person}"), json!({"phone": "north"})).await;
        federation.nodes[1].patch(&format!("/people/{person}"), json!({"phone": "south"})).await;
    }
    federation.converge().await;
    let write = async |person: &str, fields: Document| {
        let rows = federation.centre("edge_conflicts");
        let done = rows.update_one(doc! {"id": person}, doc! {"$set": fields}).await.unwrap();
        assert_eq!(done.matched_count, 1, "{person}");
    };
    write("ANA", doc! {"status": "resolved"}).await;
    write("BOB", doc! {"status": "resolved", "resolution": " LOCAL "}).await;
    federation.centre("edge_conflicts").delete_one(doc! {"id": "CLO"}).await.unwrap();
    federation.rounds(1).await;
    let row = async |person: &str| federation.rows("edge_conflicts", doc! {"id": person}).await.remove(0);
    let text = |row: &Document, field: &str| row.get_str(field).unwrap_or("-").to_owned();
    let ana = row("ANA").await;
    assert_eq!(text(&ana, "status"), "declined", "{ana}");
    assert!(text(&ana, "declined").contains("must be \"local\", \"central\", or \"value\""), "{ana}");
    let bob = row("BOB").await;
    assert_eq!(
        (text(&bob, "status"), text(&bob, "resolution")),
        ("resolved".into(), "local".into()),
        "{bob}"
    );
    assert_ne!(text(&bob, "applied_by"), "-", "{bob}");
    let clo = row("CLO").await;
    assert_eq!((text(&clo, "status"), text(&clo, "local")), ("open".into(), "south".into()), "{clo}");
    assert_eq!(open_conflicts(&federation.nodes[1]).await.len(), 2);
    // Another decision over the declined one; and one over the row that is decided.
    write("ANA", doc! {"resolution": "value", "value": "555", "status": "resolved"}).await;
    write("BOB", doc! {"resolution": "central", "status": "resolved", "resolved_by": "office"}).await;
    federation.converge().await;
    let ana = row("ANA").await;
    assert_eq!((text(&ana, "status"), text(&ana, "value")), ("resolved".into(), "555".into()), "{ana}");
    assert_eq!(text(&ana, "declined"), "-", "{ana}");
    let bob = row("BOB").await;
    assert_eq!(
        (text(&bob, "status"), text(&bob, "resolution")),
        ("resolved".into(), "local".into()),
        "{bob}"
    );
    assert!(text(&bob, "declined").contains("\"local\" by the federation's administrator stands"), "{bob}");
    assert_eq!(text(bob.get_document("declined_decision").unwrap(), "resolution"), "central", "{bob}");
    for (person, phone) in [("ANA", "555"), ("BOB", "south"), ("CLO", "north")] {
        let there = federation.at_centre("people", person).await.unwrap();
        assert_eq!(there.get_str("phone").unwrap(), phone, "{person}");
    }
    federation.compare_stores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_under_one_account_are_told_apart() {
    let mut federation = small_federation().await;
    let person = |name: &str| doc! {"_id": "NEW01", "name": name, "lastname": "Betz", "active": false};
    for (people, decision) in
        [("NEW01", json!({"decide": "new_id", "id": "NEW02"})), ("NEW03", json!({"decide": "same"}))]
    {
        let north = &federation.nodes[0];
        let body = json!({"name": "Ana", "lastname": "Betz", "active": false});
        north.done("POST", &format!("/people/{people}"), Some(&body)).await;
        let page = format!("own-{people}");
        north
            .done("POST", &format!("/pols/{people}/{page}"), Some(&json!({"id": page, "info": "hers"})))
            .await;
        let mut theirs = person("Beatriz");
        theirs.insert("_id", people);
        federation.centre("people").insert_one(&theirs).await.unwrap();
        let page = doc! {"_id": format!("theirs-{people}"), "book": people.to_lowercase(), "info": "theirs"};
        federation.centre("pols").insert_one(page).await.unwrap();
        federation.rounds(CLEAN_ROUNDS).await;
        let north = &federation.nodes[0];
        assert_eq!(field(north, &format!("/people/{people}"), "name").await, "Ana");
        assert_eq!(field(&federation.nodes[1], &format!("/people/{people}"), "name").await, "Beatriz");
        assert!(federation.at_centre("pols", &format!("own-{people}")).await.is_none());
        let rows = federation.rows("edge_conflicts", doc! {"type": "identity", "status": "open"}).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].get_document("central").unwrap().get_str("name").unwrap(), "Beatriz");
        let conflicts = open_conflicts(north).await;
        let conflict = conflicts.iter().find(|conflict| conflict["type"] == "identity").unwrap();
        assert_eq!((&conflict["own_records"], &conflict["held_records"]), (&json!(1), &json!(1)));
        let resolution = format!("/sync/conflicts/{}/resolution", conflict["id"].as_str().unwrap());
        let refused = north.call("DELETE", &format!("/people/{people}"), None).await;
        assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("decision_pending")));
        let decided = north.call("POST", &resolution, Some(&decision)).await;
        assert_eq!(decided.status, 200, "{}", decided.json());
        federation.converge().await;
    }
    let book =
        async |id: &str| federation.at_centre("pols", id).await.unwrap().get_str("book").unwrap().to_owned();
    assert_eq!((book("own-NEW01").await.as_str(), book("theirs-NEW01").await.as_str()), ("NEW02", "new01"));
    assert_eq!((book("own-NEW03").await.as_str(), book("theirs-NEW03").await.as_str()), ("NEW03", "new03"));
    let name = async |id: &str| {
        federation.at_centre("people", id).await.unwrap().get_str("name").unwrap().to_owned()
    };
    assert_eq!(
        [name("NEW01").await, name("NEW02").await, name("NEW03").await],
        ["Beatriz", "Ana", "Beatriz"]
    );
    federation.compare_stores().await;
}
