//! A node killed at every step of the rounds that bring it together with a restored centre.

use bson::{Document, doc};
use serde_json::json;

use super::support::federation::Federation;
use super::{all_steps, person};

/// Steps that such a round can have, by the beginning of their names, with the number of visits to kill at.
const STEPS: [(&str, usize); 7] = [
    ("lease.", 2),
    ("drain.", 1),
    ("settle.", 1),
    ("reread.", 2),
    ("scan.", 2),
    ("push.", 2),
    ("conflicts.", 1),
];

/// Records of one turn.
const ROLES: [&str; 5] = ["OWN", "GONE", "OTHER", "EDIT", "SAME"];

struct Turn(usize);

impl Turn {
    fn id(&self, role: &str) -> String {
        format!("{role}{:03}", self.0)
    }

    fn path(&self, role: &str) -> String {
        format!("/people/{}", self.id(role))
    }

    /// Edits that the centre is going to forget, and one that it has not seen yet.
    async fn edit_and_restore(&self, federation: &Federation) {
        let people: Vec<Document> =
            ROLES.iter().map(|role| person(&self.id(role), doc! {"f": "old", "g": "old"})).collect();
        federation.centre("people").insert_many(people).await.unwrap();
        federation.rounds(1).await;
        let mut copy = Vec::new();
        for collection in ["people", "edge_nodes"] {
            copy.push((collection, federation.rows(collection, doc! {}).await));
        }
        let north = &federation.nodes[0];
        north.patch(&self.path("OWN"), json!({"f": "north"})).await;
        north.done("DELETE", &self.path("GONE"), None).await;
        north.done("POST", &self.path("MADE"), Some(&json!({"f": "north", "active": false}))).await;
        federation.legacy_set("people", &self.id("OTHER"), doc! {"f": "legacy"}).await;
        federation.rounds(1).await;
        for (collection, rows) in &copy {
            federation.centre(collection).delete_many(doc! {}).await.unwrap();
            federation.centre(collection).insert_many(rows).await.unwrap();
        }
        north.patch(&self.path("EDIT"), json!({"f": "north"})).await;
        let report = north.try_round().await.unwrap();
        assert_eq!(report["outcome"], "halted", "{report}");
        let agreed = north.operator("POST", "/sync/resume", Some(&json!({"centre_restored": true}))).await;
        assert_eq!(agreed.status, 204);
    }

    async fn check(&self, federation: &Federation, what: &str) {
        let there = async |role: &str| {
            let person = federation.at_centre("people", &self.id(role)).await;
            person.map(|person| person.get_str("f").unwrap().to_owned())
        };
        let expected = [
            ("OWN", Some("north")),
            ("MADE", Some("north")),
            ("EDIT", Some("north")),
            ("GONE", None),
            ("OTHER", Some("old")),
            ("SAME", Some("old")),
        ];
        for (role, f) in expected {
            assert_eq!(there(role).await.as_deref(), f, "{what}: {role}");
        }
        let conflicts = federation.nodes[0].get("/sync/conflicts?status=open").await;
        let mut about: Vec<(&str, &str)> = Vec::new();
        for conflict in conflicts.as_array().unwrap() {
            let record = conflict["record"].as_str().unwrap();
            if record.ends_with(&format!("{:03}", self.0)) {
                about.push((record, conflict["local"].as_str().unwrap()));
            }
        }
        assert_eq!(about, [(self.id("OTHER").as_str(), "legacy")], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_while_it_comes_together_with_a_restored_centre() {
    let mut federation = Federation::start(&["north"]).await;
    let (mut turn, mut deaths) = (0, 0);
    for step in all_steps() {
        let visits = STEPS.iter().find(|(start, _)| step.starts_with(start)).map_or(0, |(_, visits)| *visits);
        for visit in 0..visits {
            turn += 1;
            let what = format!("killed at visit {visit} of {step}");
            Turn(turn).edit_and_restore(&federation).await;
            let action = if visit == 0 { "return".to_owned() } else { "1*off->return".to_owned() };
            federation.nodes[0].restart(Some(&format!("{step}={action}"))).await;
            let is_reached = federation.nodes[0].try_round().await.is_err();
            if is_reached {
                assert!(federation.nodes[0].has_died().await, "{what}: the node did not die");
                deaths += 1;
            }
            federation.nodes[0].restart(None).await;
            federation.converge().await;
            Turn(turn).check(&federation, &what).await;
            if !is_reached {
                break;
            }
        }
    }
    println!("{deaths} deaths in {turn} turns");
    assert!(deaths >= 15, "{deaths}");
    federation.compare_stores().await;
}
