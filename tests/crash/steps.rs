//! A node killed at every step of a round that has everything in it.

use bson::{Document, doc};
use serde_json::{Value, json};

use super::support::federation::Federation;
use super::{all_steps, person};

/// Visits of one step in a round at which the node is killed, if there are so many.
const VISITS_MAX: usize = 3;

/// What the records of one turn are about.
const ROLES: [&str; 8] = ["EDIT", "GONE", "BOTH", "PULL", "AWAY", "KEEP", "BACK", "DECI"];

struct Turn {
    number: usize,
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
        federation.rounds(1).await;
        // And a conflict that is known at the centre.
        federation.nodes[0].patch(&self.path("DECI"), json!({"f": "north"})).await;
        federation.legacy_set("people", &self.id("DECI"), doc! {"f": "legacy"}).await;
        federation.nodes[0].round().await;
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
        federation.legacy_delete("people", &self.id("AWAY")).await;
        federation.legacy_delete("people", &self.id("KEEP")).await;
        federation.legacy_set("people", &self.id("BACK"), doc! {"g": "legacy"}).await;
        let (open, decided) = (doc! {"id": self.id("DECI"), "status": "open"}, doc! {"resolution": "local"});
        let done =
            federation.centre("edge_conflicts").update_one(open, doc! {"$set": decided}).await.unwrap();
        assert_eq!(done.matched_count, 1);
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

        let conflicts = federation.nodes[0].get("/sync/conflicts?status=open").await;
        let about = |role: &str| -> &Value {
            let mut all = conflicts.as_array().unwrap().iter();
            let found = all.find(|conflict| conflict["record"] == self.id(role).as_str());
            found.unwrap_or_else(|| panic!("{what}: no conflict about {role}"))
        };
        assert_eq!((&about("BOTH")["local"], &about("BOTH")["central"]), (&json!("north"), &json!("legacy")));
        assert_eq!(about("KEEP")["stands"], "local", "{what}");
        assert_eq!(
            (&about("BACK")["stands"], &about("BACK")["local"]["g"]),
            (&json!("central"), &json!("old"))
        );
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
    is_reached
}

async fn kill_at_steps(which: impl Fn(usize) -> bool) {
    let mut federation = Federation::start(&["north", "south"]).await;
    let mut number = 0;
    for (index, step) in all_steps().into_iter().enumerate() {
        if !which(index) {
            continue;
        }
        // Only a round that finds open intents settles any: leave some, sent or not.
        let befores: &[Option<&str>] =
            if step.starts_with("settle.") { &[Some("push.intents"), Some("push.sent")] } else { &[None] };
        for before in befores {
            for visit in 0..VISITS_MAX {
                number += 1;
                let is_reached = kill_at(&mut federation, &Turn { number }, *before, &step, visit).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_at_even_steps() {
    kill_at_steps(|index| index % 2 == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_at_odd_steps() {
    kill_at_steps(|index| index % 2 == 1).await;
}
