//! Power cuts: a node killed at every step of a round, a centre killed in the middle of one, and random
//! runs of both, with every acknowledged edit accounted for. Needs the feature `failpoints`.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the environment chooses seeds and lengths")]

mod support;

#[path = "crash/contents.rs"]
mod contents;
#[path = "crash/cuts.rs"]
mod cuts;
#[path = "crash/demonstration.rs"]
mod demonstration;
#[path = "crash/random.rs"]
mod random;
#[path = "crash/restored.rs"]
mod restored;
#[path = "crash/steps.rs"]
mod steps;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use serde_json::json;

use support::federation::{CLEAN_ROUNDS, Federation};
use support::generator;

/// The names of all steps, from the source, so that a new one is not forgotten here.
fn all_steps() -> Vec<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sync")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            for rest in text.split("step(\"").skip(1) {
                let name = rest.split('"').next().unwrap();
                // Commands take these, not rounds: `tests/cli/killed.rs` kills them there.
                if !name.starts_with("conflict.") {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    assert!(names.len() >= 15, "{names:?}");
    names.into_iter().collect()
}

fn person(id: &str, fields: Document) -> Document {
    let mut person = doc! {"_id": id, "roles": ["end_user"], "active": false};
    person.extend(fields);
    person
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_centre_dies_in_the_middle_of_a_push() {
    let mut federation = Federation::start(&["north", "south"]).await;
    let people: Vec<Document> = (0..20).map(|n| person(&format!("PUSH{n:02}"), doc! {"f": "0"})).collect();
    federation.centre("people").insert_many(&people).await.unwrap();
    federation.rounds(1).await;
    // Before the write leaves, after its answer came, and with the write in the dead server's hands.
    for (turn, step) in ["push.intents", "push.sent", "push.settled", "push.intents"].iter().enumerate() {
        federation.nodes[0].restart(Some(&format!("{step}=sleep(700)"))).await;
        for n in 0..20 {
            federation.nodes[0]
                .patch(&format!("/people/PUSH{n:02}"), json!({"f": format!("{turn}-{n}")}))
                .await;
        }
        federation.nodes[0].done("DELETE", &format!("/people/PUSH{turn:02}"), None).await;
        let north = &federation.nodes[0];
        let mongo = &mut federation.mongo;
        let killing = async {
            tokio::time::sleep(Duration::from_millis(350)).await;
            if turn == 3 {
                mongo.pause();
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            mongo.kill_9();
        };
        let (report, ()) = tokio::join!(north.try_round(), killing);
        assert_eq!(report.unwrap()["outcome"], "offline", "{step}");
        federation.mongo.restart().await;
        federation.reconnect().await;
        federation.nodes[0].restart(None).await;
        federation.converge().await;
        for n in 0..20 {
            let there = federation.at_centre("people", &format!("PUSH{n:02}")).await;
            match there {
                Some(there) => assert_eq!(there.get_str("f").unwrap(), format!("{turn}-{n}"), "{step}"),
                None => assert!(n <= turn, "PUSH{n:02} is gone after {step}"),
            }
        }
        if let Some(back) = people.get(turn) {
            // For the next turn every record is there again.
            federation.centre("people").insert_one(back).await.unwrap();
            federation.rounds(CLEAN_ROUNDS).await;
        }
    }
    federation.compare_stores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_centre_dies_in_the_middle_of_a_pull() {
    let mut federation = Federation::start(&["north", "south"]).await;
    let people = generator::people(700, 3);
    federation.centre("people").insert_many(&people).await.unwrap();
    let some = people[10].get_str("_id").unwrap().to_owned();
    for failpoints in ["scan.read=1*off->1*sleep(700)->off", "scan.applied=2*off->1*sleep(700)->off"] {
        federation.nodes[0].restart(Some(failpoints)).await;
        let north = &federation.nodes[0];
        let mongo = &mut federation.mongo;
        let killing = async {
            tokio::time::sleep(Duration::from_millis(450)).await;
            mongo.kill_9();
        };
        let verify = json!({"verify": true});
        let (report, ()) = tokio::join!(north.done("POST", "/sync/rounds", Some(&verify)), killing);
        assert_eq!(report["outcome"], "offline", "{report}");
        federation.mongo.restart().await;
        federation.reconnect().await;
        federation.legacy_set("people", &some, doc! {"phone": failpoints}).await;
        federation.converge().await;
        assert_eq!(federation.nodes[0].get(&format!("/people/{some}")).await["phone"], failpoints);
    }
    federation.compare_stores().await;
}

/// The server executes a write whose sender has died and been restarted meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_arrives_after_its_sender_has_died() {
    let mut federation = Federation::start(&["north", "south"]).await;
    federation.centre("people").insert_one(person("LATE", doc! {"f": "0", "g": "0"})).await.unwrap();
    federation.rounds(1).await;
    federation.nodes[0].restart(Some("push.intents=sleep(400)")).await;
    federation.nodes[0].patch("/people/LATE", json!({"f": "late"})).await;
    let north = &federation.nodes[0];
    let mongo = &mut federation.mongo;
    let pausing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        mongo.pause();
        tokio::time::sleep(Duration::from_millis(700)).await;
    };
    tokio::select! {
        report = north.try_round() => panic!("the round did not wait for the centre: {report:?}"),
        () = pausing => {}
    }
    federation.nodes[0].restart(None).await;
    federation.nodes[0].patch("/people/LATE", json!({"f": "later", "g": "1"})).await;
    federation.mongo.resume();
    federation.converge().await;
    let there = federation.at_centre("people", "LATE").await.unwrap();
    assert_eq!((there.get_str("f").unwrap(), there.get_str("g").unwrap()), ("later", "1"));
    federation.compare_stores().await;
}
