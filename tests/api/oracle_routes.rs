//! Over all routes of the router: an account that sees its own records only cannot tell what others have from what nobody has.

use std::collections::BTreeSet;

use axum::http::HeaderValue;
use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::schema::{Owner, SCHEMAS};
use thalamus_edge::store::{Base, DeadLetter, StoreError};

use crate::rights::routes;
use crate::support::api::{Answer, NOTHING, PASSWORD, TestNode, seen};

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
        tx.add_conflict(&key, &clash, None)?;
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

/// What changes an answer on its way to the comparison: a leak that the test plants.
type Leak = fn(&str, &mut Answer);

fn without_leak(_: &str, _: &mut Answer) {}

/// What comparing found.
#[derive(Default)]
struct Found {
    compared: usize,
    /// Records that were made where nobody had one.
    made: usize,
    /// Differences, in words.
    told: Vec<String>,
}

/// How the answer about what somebody else has differs from the one about what nobody has, but for the names in the paths.
fn difference(hidden: (&str, &Answer), absent: (&str, &Answer)) -> Option<String> {
    let name = |path: &str| path.rsplit(['/', '=']).next().unwrap_or_default().to_owned();
    let plain = |text: &str| {
        let text = text.replace(absent.0, hidden.0);
        text.replace(&name(absent.0), &name(hidden.0)).replace(NOBODY, OTHER)
    };
    let shown = |answer: &Answer| {
        let (status, headers, text) = seen(answer);
        // Names have several lengths; the text is compared as a whole.
        let headers = headers.into_iter().filter(|(name, _)| name != "content-length");
        let headers: Vec<_> = headers.map(|(name, value)| (name, plain(&value))).collect();
        (status, headers, plain(&text))
    };
    let (one, other) = (shown(hidden.1), shown(absent.1));
    (one != other).then(|| format!("{one:?} / {other:?}"))
}

/// Compares all that one route answers.
async fn compare(node: &TestNode, ids: &Ids, (pattern, method): (&str, &str), leak: Leak, found: &mut Found) {
    for (hidden_path, absent_path) in pairs(pattern, ids) {
        for (hidden_body, absent_body) in bodies(&hidden_path).into_iter().zip(bodies(&absent_path)) {
            let what = format!("{method} {hidden_path} {hidden_body:?}");
            let ask = async |path: &str, body: Option<Value>| {
                let call = node.request(method, path).by(WHO);
                let mut answer = match body {
                    Some(body) => call.bytes(body.to_string()).send().await,
                    None => call.send().await,
                };
                leak(path, &mut answer);
                answer
            };
            let hidden = ask(&hidden_path, hidden_body).await;
            let absent = ask(&absent_path, absent_body).await;
            found.compared += 1;
            if !hidden.changes.is_empty() {
                found.told.push(format!("{what} changed {:?}", hidden.changes));
            }
            if hidden.text().contains(WORDS) {
                found.told.push(format!("{what} shows {}", hidden.text()));
            }
            if !absent.changes.is_empty() {
                found.made += 1;
                // It was made. That the id of another one's is taken cannot but show, and is one answer for all.
                let is_taken = hidden.status == if method == "POST" { 422 } else { 404 };
                if !is_taken || hidden.text().contains("exists") {
                    found.told.push(format!("{what}: {} {}", hidden.status, hidden.text()));
                }
                for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Person) {
                    let key = RecordKey::new(kind, "none");
                    let gone = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
                        tx.put(&key, None, &Base::Absent, &Actor::Centre)
                    });
                    gone.await.unwrap();
                }
                continue;
            }
            let differs = difference((&hidden_path, &hidden), (&absent_path, &absent));
            found.told.extend(differs.map(|differs| format!("{what}: {differs}")));
        }
    }
}

#[tokio::test]
async fn what_others_have_looks_like_nothing_on_every_route() {
    let (node, ids) = start().await;
    let mut found = Found::default();
    for (pattern, method) in routes(&node).await {
        if !tells_by_right(pattern, &method) {
            compare(&node, &ids, (pattern, &method), without_leak, &mut found).await;
        }
    }
    let Found { compared, made, told } = found;
    assert!(told.is_empty(), "{} of {compared}:\n{}", told.len(), told.join("\n"));
    assert!(compared > 1_000 && made > 20, "{compared}, {made} made");
}

/// The path names something that somebody else has.
fn is_of_another(path: &str) -> bool {
    ["bobs", "unsent", OTHER].iter().any(|name| path.contains(name))
}

/// The comparison sees each kind of leak, on a route of each kind: of a record, of a list, of a decision, of what is made.
#[tokio::test]
async fn a_leak_is_seen() {
    fn status(path: &str, answer: &mut Answer) {
        if is_of_another(path) {
            answer.status = 418;
        }
    }
    fn further_header(path: &str, answer: &mut Answer) {
        if is_of_another(path) {
            answer.headers.insert("etag", HeaderValue::from_static("\"0\""));
        }
    }
    fn other_header(path: &str, answer: &mut Answer) {
        let length = if is_of_another(path) { "900000" } else { "0" };
        answer.headers.insert("x-length", HeaderValue::from_static(length));
    }
    fn one_sign(path: &str, answer: &mut Answer) {
        if is_of_another(path) {
            answer.body = [&answer.body[..], b" "].concat().into();
        }
    }
    fn words(path: &str, answer: &mut Answer) {
        if is_of_another(path) {
            answer.body = format!("[{WORDS:?}]").into();
        }
    }
    fn change(path: &str, answer: &mut Answer) {
        if is_of_another(path) {
            answer.changes.push("update encounters/bobs".to_owned());
        }
    }
    let (node, ids) = start().await;
    let routes_asked = [
        ("/encounters/{id}", "GET"),
        ("/encounters/{id}", "PUT"),
        ("/encounters", "GET"),
        ("/users/{id}", "POST"),
        ("/pols/{person_id}/{id}", "DELETE"),
    ];
    let leaks: [(&str, Leak); 6] = [
        ("status", status),
        ("a header more", further_header),
        ("the value of a header", other_header),
        ("one sign of text", one_sign),
        ("words", words),
        ("a change", change),
    ];
    let known = routes(&node).await;
    for (pattern, method) in routes_asked {
        assert!(known.iter().any(|(other, verb)| *other == pattern && verb == method), "{method} {pattern}");
        let mut found = Found::default();
        compare(&node, &ids, (pattern, method), without_leak, &mut found).await;
        assert_eq!(found.told, [""; 0], "{method} {pattern}");
        for (what, leak) in leaks {
            let mut found = Found::default();
            compare(&node, &ids, (pattern, method), leak, &mut found).await;
            assert!(!found.told.is_empty(), "{what} at {method} {pattern}, {} compared", found.compared);
        }
    }
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
