//! Over all routes of the router: an account that sees its own records only cannot tell what others have from what nobody has.

use std::collections::BTreeSet;

use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::schema::{Owner, SCHEMAS};
use thalamus_edge::store::{Base, DeadLetter, StoreError};

use crate::rights::routes;
use crate::support::api::{NOTHING, PASSWORD, TestNode, seen};

/// May do everything with what is theirs.
const WHO: &str = "ALL007";
const OTHER: &str = "BOB002";
const NOBODY: &str = "NOB999";
const WORDS: &str = "words of another";
/// Rights over the node beside those over records.
const OF_NODE: [&str; 10] = [
    "login",
    "users",
    "audit",
    "changes",
    "backups",
    "sync",
    "conflicts",
    "trash",
    "emergencies",
    "authorization",
];

/// A role with every right there is, but for those over everybody.
fn roles() -> String {
    let mut names: BTreeSet<&str> = OF_NODE.into_iter().collect();
    names.extend(SCHEMAS.iter().flat_map(|schema| schema.routes.iter().map(|route| route.acl)));
    let names: Vec<_> = names.into_iter().collect();
    let all =
        json!({"GET": names, "POST": names, "PATCH": names, "PUT": names, "DELETE": names, "global": false});
    json!([
        {"role": "all", "permissions": all},
        {"role": "end_user", "permissions": {"GET": ["person"]}},
        {"role": "root", "permissions": {"GET": ["audit"], "global": true}},
    ])
    .to_string()
}

/// What stands for `{id}` in a route: of somebody else's, and of nobody's.
struct Ids {
    trash: (String, String),
    conflict: (String, String),
}

async fn start() -> (TestNode, Ids) {
    let node = TestNode::start_with(|setup| {
        setup.roles = roles();
        setup.settings.central_roles.push("all".to_owned());
    });
    for (id, role) in [(WHO, "all"), (OTHER, "end_user"), ("ROOT004", "root")] {
        node.person(id, &[role]).await;
    }
    for kind in Kind::ALL {
        let schema = kind.schema();
        if let Owner::Field(field) = schema.owner {
            let record = |id: &str| doc! {"_id": id, field: OTHER, "info": WORDS};
            node.record(kind, record("bobs")).await;
            // Deleted here, which the centre does not know.
            node.from_centre(kind, record("unsent")).await;
            let key = RecordKey::new(kind, "unsent");
            let deleted =
                node.node.store.unguarded().transact(move |tx| -> Result<bool, StoreError> {
                    tx.edit(&key, None, &Actor::Operator(0))
                });
            deleted.await.unwrap();
            // And one that the centre refused.
            let dead = DeadLetter {
                key: RecordKey::new(kind, "bobs"),
                direction: "push",
                code: 121,
                reason: WORDS.to_owned(),
                at_ms: 0,
            };
            let put = node.node.store.unguarded().transact(move |tx| tx.put_dead(&dead));
            put.await.unwrap();
        }
    }
    let key = RecordKey::new(Kind::Encounter, "bobs");
    let clash = Clash {
        path: vec!["info".to_owned()],
        base: None,
        local: Some(WORDS.into()),
        remote: Some("another".into()),
        stands: Side::Local,
    };
    let added = node.node.store.unguarded().transact(move |tx| -> Result<String, StoreError> {
        tx.add_conflict(&key, &clash)?;
        Ok(tx.open_conflicts_of(&key)?.remove(0).id)
    });
    let conflict = added.await.unwrap();
    let none = conflict.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    let trash = node.get("/trash").by_operator().send().await.json();
    let trash = trash.as_array().unwrap()[0]["id"].to_string();
    (node, Ids { trash: (trash, "999999".to_owned()), conflict: (conflict, none) })
}

/// Paths of the route that differ in nothing but whether somebody else has what they name.
fn pairs(pattern: &str, ids: &Ids) -> Vec<(String, String)> {
    let with = |person: &str, id: &str| pattern.replace("{person_id}", person).replace("{id}", id);
    if !pattern.contains('{') {
        let ask = |query: &str, id: &str| format!("{pattern}?{query}={id}");
        let of = |query: &str, hidden: &str, absent: &str| (ask(query, hidden), ask(query, absent));
        return vec![
            of("person", OTHER, NOBODY),
            of("owner", OTHER, NOBODY),
            of("book", OTHER, NOBODY),
            of("q", OTHER, NOBODY),
            of("id", "bobs", "none"),
            of("method=GET&path", "/encounters/bobs", "/encounters/none"),
            of("method=GET&path", "/people/BOB002", "/people/NOB999"),
        ];
    }
    let (id, none): (&str, &str) = match pattern {
        _ if pattern.starts_with("/users/") => (OTHER, NOBODY),
        _ if pattern.starts_with("/trash/") => (&ids.trash.0, &ids.trash.1),
        _ if pattern.starts_with("/sync/conflicts/") => (&ids.conflict.0, &ids.conflict.1),
        _ if pattern.starts_with("/sync/") => ("encounters/bobs", "encounters/none"),
        _ if pattern.starts_with("/emergencies/") => ("1", "999999"),
        _ => ("bobs", "none"),
    };
    let mut pairs = Vec::new();
    match (pattern.contains("{person_id}"), pattern.contains("{id}")) {
        (true, true) => {
            for person in [WHO, OTHER, NOBODY] {
                pairs.push((with(person, id), with(person, none)));
                pairs.push((with(person, "unsent"), with(person, none)));
            }
            pairs.push((with(OTHER, id), with(NOBODY, none)));
        }
        (true, false) => pairs.push((with(OTHER, ""), with(NOBODY, ""))),
        _ => {
            pairs.push((with("", id), with("", none)));
            if id == "bobs" {
                pairs.push((with("", "unsent"), with("", none)));
            }
        }
    }
    pairs
}

fn bodies(path: &str) -> Vec<Option<Value>> {
    let id = path.rsplit('/').next().unwrap_or_default();
    vec![
        None,
        Some(json!({})),
        Some(json!({"id": id, "book": WHO, "person": WHO, "fedacct": WHO, "info": "x"})),
        Some(json!({"id": id, "book": OTHER, "person": OTHER, "fedacct": OTHER, "info": "x"})),
        Some(json!({"take": "local"})),
        Some(json!({"active": false})),
        Some(json!({"password": PASSWORD})),
    ]
}

/// Whether an account is there is told to everybody who may make one (docs/SECURITY.md).
fn tells_by_right(pattern: &str, method: &str) -> bool {
    pattern == "/people/{person_id}" && ["POST", "PUT"].contains(&method)
}

#[tokio::test]
async fn what_others_have_looks_like_nothing_on_every_route() {
    let (node, ids) = start().await;
    let (mut compared, mut made, mut told) = (0, 0, Vec::new());
    for (pattern, method) in routes(&node).await {
        if tells_by_right(pattern, &method) {
            continue;
        }
        for (hidden_path, absent_path) in pairs(pattern, &ids) {
            for (hidden_body, absent_body) in bodies(&hidden_path).into_iter().zip(bodies(&absent_path)) {
                let ask = |path: &str, body: Option<Value>| {
                    let call = node.request(&method, path).by(WHO);
                    match body {
                        Some(body) => call.bytes(body.to_string()).send(),
                        None => call.send(),
                    }
                };
                let what = format!("{method} {hidden_path} {hidden_body:?}");
                let hidden = ask(&hidden_path, hidden_body).await;
                let absent = ask(&absent_path, absent_body).await;
                compared += 1;
                assert_eq!(hidden.changes, [""; 0], "{what}");
                assert!(!hidden.text().contains(WORDS), "{what}");
                if !absent.changes.is_empty() {
                    made += 1;
                    // It was made. That the id of another one's is taken cannot but show, and is one answer for all.
                    let is_taken = hidden.status == if method == "POST" { 422 } else { 404 };
                    if !is_taken || hidden.text().contains("exists") {
                        told.push(format!("{what}: {} {}", hidden.status, hidden.text()));
                    }
                    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Person) {
                        let key = RecordKey::new(kind, "none");
                        let gone =
                            node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
                                tx.put(&key, None, &Base::Absent, &Actor::Centre)
                            });
                        gone.await.unwrap();
                    }
                    continue;
                }
                let name = |path: &str| path.rsplit(['/', '=']).next().unwrap_or_default().to_owned();
                let (one, other) = (seen(&hidden), seen(&absent));
                let plain = |text: &str| {
                    let text = text.replace(&absent_path, &hidden_path);
                    text.replace(&name(&absent_path), &name(&hidden_path)).replace(NOBODY, OTHER)
                };
                if (one.0, plain(&one.2)) != (other.0, plain(&other.2)) || one.1.len() != other.1.len() {
                    told.push(format!("{what}: {} {} / {} {}", one.0, one.2, other.0, other.2));
                }
            }
        }
    }
    assert!(told.is_empty(), "{} of {compared}:\n{}", told.len(), told.join("\n"));
    assert!(compared > 1_000 && made > 20, "{compared}, {made} made");
}

/// What one person does is not to be seen in a number by another one.
#[tokio::test]
async fn the_status_counts_nobody_elses() {
    let (node, _) = start().await;
    let status = async || node.get("/sync/status").by(WHO).send().await.is(200, NOTHING).json();
    let before = status().await;
    assert_eq!((&before["pending"], &before["oldest_pending_at"]), (&Value::Null, &Value::Null));
    node.record(Kind::Encounter, doc! {"_id": "more", "person": OTHER}).await;
    assert_eq!(status().await, before);
}
