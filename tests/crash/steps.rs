//! A node killed at every step of a round that has everything in it.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use futures_util::io::AsyncReadExt as _;
use mongodb::options::GridFsBucketOptions;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::federation::Federation;
use super::{all_steps, person};

/// Visits of one step in a round at which the node is killed, if there are so many.
const VISITS_MAX: usize = 3;

/// What the records of one turn are about.
const ROLES: [&str; 9] = ["EDIT", "GONE", "BOTH", "PULL", "AWAY", "KEEP", "BACK", "DECI", "VAIN"];
/// Chunks of an attachment, the last one short.
const CHUNK_BYTES: usize = 65_536;
/// Turns of all nodes after which every attachment has arrived, however often it came out wrong.
const ATTACHMENT_TURNS_MAX: usize = 12;

struct Turn {
    number: usize,
    /// Whether attachments are on their way as well; they take their time.
    has_attachments: bool,
}

pub(super) fn name_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Turn {
    fn id(&self, role: &str) -> String {
        format!("{role}{:03}", self.number)
    }

    fn path(&self, role: &str) -> String {
        format!("/people/{}", self.id(role))
    }

    /// Records that everybody agrees on.
    async fn prepare(&self, federation: &Federation) {
        let people: Vec<Document> = ROLES
            .iter()
            .map(|role| person(&self.id(role), doc! {"f": "old", "g": "old", "n": {"x": 1, "y": 1}}))
            .collect();
        federation.centre("people").insert_many(people).await.unwrap();
        let [north, south] = &federation.nodes[..] else { panic!() };
        if self.has_attachments {
            north.upload(&self.id("swap"), &self.id("KEEP"), &self.picture("first")).await;
            north.upload(&self.id("mend"), &self.id("KEEP"), &self.picture("mend")).await;
        }
        federation.rounds(1).await;
        // And two conflicts that are known at the centre.
        for role in ["DECI", "VAIN"] {
            north.patch(&self.path(role), json!({"f": "north"})).await;
            federation.legacy_set("people", &self.id(role), doc! {"f": "legacy"}).await;
        }
        north.round().await;
        if self.has_attachments {
            // Of somebody who stays: whose they are whom north reads of after their person is gone would be asked.
            south.upload(&self.id("down"), &self.id("PULL"), &self.picture("down")).await;
            south.upload(&self.id("bad"), &self.id("PULL"), &self.picture("bad")).await;
            south.round().await;
        }
    }

    /// Bytes of an attachment that no other one has.
    fn picture(&self, role: &str) -> Vec<u8> {
        let seed = name_of(self.id(role).as_bytes());
        seed.bytes().cycle().take(CHUNK_BYTES + 100).collect()
    }

    /// Attachments of all sorts on their way: new ones on both sides, one replaced, one that comes out wrong
    /// when it is fetched, and one that somebody else has found wrong.
    async fn attach(&self, federation: &Federation) {
        let north = &federation.nodes[0];
        north.upload(&self.id("up"), &self.id("KEEP"), &self.picture("up")).await;
        north.upload(&self.id("swap"), &self.id("KEEP"), &self.picture("second")).await;
        let wrong = Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![7; CHUNK_BYTES] });
        for role in ["bad", "mend"] {
            let chunk = doc! {"files_id": name_of(&self.picture(role)), "n": 0};
            let spoiling = doc! {"$set": {"data": &wrong}};
            federation.centre("fs.chunks").update_one(chunk, spoiling).await.unwrap();
        }
        let seen = Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1; 16] });
        let mark = doc! {"$set": {"metadata.suspect": {"node": "somebody", "seen": seen}}};
        let file = doc! {"_id": name_of(&self.picture("mend"))};
        federation.centre("fs.files").update_one(file, mark).await.unwrap();
    }

    /// Every attachment is everywhere, at the centre in a form that any program reads.
    async fn check_attachments(&self, federation: &Federation, what: &str) {
        let is_marked = doc! {"metadata.suspect": {"$exists": true}};
        for turn in 0.. {
            let mut left = federation.rows("fs.files", is_marked.clone()).await.len() as u64;
            for node in &federation.nodes {
                let status = node.get("/sync/status").await;
                left +=
                    status["content_pending"].as_u64().unwrap() + status["content_owed"].as_u64().unwrap();
            }
            if left == 0 {
                break;
            }
            assert!(turn < ATTACHMENT_TURNS_MAX, "{what}: {left} attachments do not arrive");
            federation.rounds(1).await;
        }
        for node in &federation.nodes {
            for (id, role) in
                [("up", "up"), ("swap", "second"), ("mend", "mend"), ("down", "down"), ("bad", "bad")]
            {
                let got = node.download(&self.id(id), &[]).await;
                assert_eq!(got.status, 200, "{what}: {role} at {}", node.name);
                assert!(got.body == self.picture(role), "{what}: {role} at {}", node.name);
            }
        }
        let bucket = federation.legacy.gridfs_bucket(GridFsBucketOptions::default());
        for role in ["up", "first", "second", "mend", "down", "bad"] {
            let name = Bson::from(name_of(&self.picture(role)));
            let mut stream = bucket.open_download_stream(name).await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            assert!(bytes == self.picture(role), "{what}: {role} at the centre");
        }
    }

    /// Acknowledged edits of all sorts, on both sides, that no round has seen.
    async fn edit(&self, federation: &Federation) {
        let [north, south] = &federation.nodes[..] else { panic!() };
        north.patch(&self.path("EDIT"), json!({"f": "north", "n": {"x": 2, "y": 1}})).await;
        north.done("DELETE", &self.path("GONE"), None).await;
        north.patch(&self.path("BOTH"), json!({"f": "north"})).await;
        north.patch(&self.path("KEEP"), json!({"f": "north"})).await;
        north.done("DELETE", &self.path("BACK"), None).await;
        north.done("POST", &self.path("NEWP"), Some(&json!({"f": "north", "active": false}))).await;
        let page = format!("/pols/{}/{}", self.id("NEWP"), self.id("page"));
        north.done("POST", &page, Some(&json!({"id": self.id("page"), "f": "north"}))).await;
        south.patch(&self.path("EDIT"), json!({"g": "south"})).await;
        federation.legacy_set("people", &self.id("BOTH"), doc! {"f": "legacy"}).await;
        federation.legacy_set("people", &self.id("PULL"), doc! {"f": "legacy", "n.y": 2}).await;
        let news = doc! {"_id": self.id("news"), "book": self.id("PULL"), "f": "legacy"};
        federation.centre("pols").insert_one(news).await.unwrap();
        federation.legacy_delete("people", &self.id("AWAY")).await;
        federation.legacy_delete("people", &self.id("KEEP")).await;
        federation.legacy_set("people", &self.id("BACK"), doc! {"g": "legacy"}).await;
        if self.has_attachments {
            self.attach(federation).await;
        }
        // One decision can be carried out, the other one is none.
        for (role, decided) in [("DECI", doc! {"resolution": "local"}), ("VAIN", doc! {"status": "resolved"})]
        {
            let open = doc! {"id": self.id(role), "status": "open"};
            let rows = federation.centre("edge_conflicts");
            let done = rows.update_one(open, doc! {"$set": decided}).await.unwrap();
            assert_eq!(done.matched_count, 1);
        }
    }

    async fn check(&self, federation: &Federation, what: &str) {
        let there = async |role: &str| federation.at_centre("people", &self.id(role)).await;
        let holds = |document: Option<Document>, field: &str, value: &str| {
            let document = document.unwrap_or_else(|| panic!("{what}: a record is gone"));
            assert_eq!(document.get_str(field).unwrap(), value, "{what}: {document}");
        };
        holds(there("EDIT").await, "f", "north");
        holds(there("EDIT").await, "g", "south");
        assert_eq!(there("EDIT").await.unwrap().get_document("n").unwrap(), &doc! {"x": 2, "y": 1}, "{what}");
        assert_eq!(there("GONE").await, None, "{what}");
        holds(there("BOTH").await, "f", "legacy");
        holds(there("PULL").await, "f", "legacy");
        assert_eq!(there("AWAY").await, None, "{what}");
        holds(there("KEEP").await, "f", "north");
        holds(there("BACK").await, "g", "legacy");
        holds(there("NEWP").await, "f", "north");
        holds(federation.at_centre("pols", &self.id("page")).await, "f", "north");
        holds(there("DECI").await, "f", "north");
        let decided = federation.rows("edge_conflicts", doc! {"id": self.id("DECI")}).await;
        assert_eq!(decided.len(), 1, "{what}: {decided:?}");
        assert_eq!(decided[0].get_str("status").unwrap(), "resolved", "{what}");
        assert!(decided[0].contains_key("applied_by"), "{what}: {decided:?}");
        holds(there("VAIN").await, "f", "legacy");
        let declined = federation.rows("edge_conflicts", doc! {"id": self.id("VAIN")}).await;
        assert_eq!(declined.len(), 1, "{what}: {declined:?}");
        assert_eq!(declined[0].get_str("status").unwrap(), "declined", "{what}");
        assert_eq!(declined[0].get_array("notes").map_or(0, Vec::len), 0, "{what}: {declined:?}");

        let conflicts = federation.nodes[0].get("/sync/conflicts?status=open").await;
        let about = |role: &str| -> &Value {
            let mut all = conflicts.as_array().unwrap().iter();
            let found = all.find(|conflict| conflict["record"] == self.id(role).as_str());
            found.unwrap_or_else(|| panic!("{what}: no conflict about {role}"))
        };
        assert_eq!((&about("BOTH")["local"], &about("BOTH")["central"]), (&json!("north"), &json!("legacy")));
        assert_eq!(about("KEEP")["stands"], "local", "{what}");
        // The delete lost, which is no value.
        assert_eq!((&about("BACK")["stands"], &about("BACK")["local"]), (&json!("central"), &Value::Null));
        for role in ["BOTH", "KEEP", "BACK"] {
            let rows = federation.rows("edge_conflicts", doc! {"id": self.id(role), "status": "open"}).await;
            assert_eq!(rows.len(), 1, "{what}: {role} {rows:?}");
        }
        // A delete that was sent twice is archived twice, and only what happened is called done.
        let archived = federation.rows("edge_trash", doc! {"id": self.id("GONE")}).await;
        let done: Vec<_> = archived.iter().filter(|row| row.get_str("state").unwrap() == "done").collect();
        assert_eq!(done.len(), 1, "{what}: {archived:?}");
        assert_eq!(done[0].get_document("document").unwrap().get_str("f").unwrap(), "old", "{what}");
        assert!(
            archived.iter().all(|row| row.get_str("state").unwrap() != "pending"),
            "{what}: {archived:?}"
        );
    }
}

/// Kills north at the given visit of a step; false if the round has no such visit.
async fn kill_at(
    federation: &mut Federation,
    turn: &Turn,
    before: Option<&str>,
    step: &str,
    visit: usize,
) -> bool {
    turn.prepare(federation).await;
    turn.edit(federation).await;
    let what = format!("killed at visit {visit} of {step} (after {before:?})");
    if let Some(before) = before {
        federation.nodes[0].restart(Some(&format!("{before}=return"))).await;
        assert!(federation.nodes[0].try_round().await.is_err(), "{before} is not reached");
        assert!(federation.nodes[0].has_died().await, "{before}");
    }
    let only_after_a_gap = ["scan.", "reread.", "drain.begun", "settle.read", "settle.applied"];
    if only_after_a_gap.iter().any(|start| step.starts_with(start)) {
        // A gap in the history of changes: everything has to be looked at.
        let dropped = federation.centre("event");
        dropped.insert_one(doc! {"_id": "DROPPED"}).await.unwrap();
        dropped.drop().await.unwrap();
    }
    let action = if visit == 0 { "return".to_owned() } else { format!("{visit}*off->return") };
    federation.nodes[0].restart(Some(&format!("{step}={action}"))).await;
    let is_reached = match federation.nodes[0].try_round().await {
        Ok(report) => {
            assert_eq!(report["outcome"], "complete", "{what}: {report}");
            false
        }
        Err(_) => {
            assert!(federation.nodes[0].has_died().await, "{what}: the node did not die");
            true
        }
    };
    federation.nodes[0].restart(None).await;
    federation.converge().await;
    turn.check(federation, &what).await;
    if turn.has_attachments {
        turn.check_attachments(federation, &what).await;
    }
    // As many deletes as this test makes would come to halt a node.
    for node in &federation.nodes {
        let accepted = node.operator("POST", "/sync/resume", Some(&json!({"accept_deletes": true}))).await;
        assert_eq!(accepted.status, 204);
    }
    is_reached
}

async fn kill_at_steps(which: impl Fn(usize) -> bool) {
    let mut federation = Federation::start(&["north", "south"]).await;
    let mut number = 0;
    for (index, step) in all_steps().into_iter().enumerate() {
        if !which(index) {
            continue;
        }
        // Only a round that finds open intents settles any: leave some, sent or not. What was sent the feed
        // shows, unless it has a gap.
        let befores: &[Option<&str>] = match step.as_str() {
            "settle.given_up" => &[Some("push.intents")],
            "settle.read" | "settle.applied" => &[Some("push.intents"), Some("push.sent")],
            _ => &[None],
        };
        let has_attachments = ["content.", "push.", "report."].iter().any(|part| step.starts_with(part));
        for before in befores {
            for visit in 0..VISITS_MAX {
                number += 1;
                let turn = Turn { number, has_attachments };
                let is_reached = kill_at(&mut federation, &turn, *before, &step, visit).await;
                assert!(is_reached || visit > 0, "no round of this test comes to the step {step}");
                if !is_reached {
                    break;
                }
            }
        }
    }
    federation.compare_stores().await;
    println!("{number} kills");
}

/// In four parts, because each takes a minute.
async fn a_quarter_of_the_steps(part: usize) {
    kill_at_steps(|index| index % 4 == part).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_at_steps_1() {
    a_quarter_of_the_steps(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_at_steps_2() {
    a_quarter_of_the_steps(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_at_steps_3() {
    a_quarter_of_the_steps(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_at_steps_4() {
    a_quarter_of_the_steps(3).await;
}
