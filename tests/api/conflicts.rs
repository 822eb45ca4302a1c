//! Conflicts: who sees them, who decides them, and what a decision cannot be used for.

use bson::{Bson, Document, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::merge::{Clash, Side};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{Base, Conflict, StoreError, Undecided};

use crate::support::api::{Answer, Call, NOTHING, Setup, TestNode, person};

fn with_roles(setup: &mut Setup) {
    setup.add_roles(
        r#"{"role": "judge", "permissions": {"GET": ["conflicts", "person"], "POST": ["conflicts"], "global": true}},
             {"role": "own_judge", "permissions": {"GET": ["conflicts", "person", "event"],
              "POST": ["conflicts"], "PATCH": ["person", "event"]}},
             {"role": "registrar", "permissions": {"GET": ["conflicts", "person"], "POST": ["conflicts", "person"],
              "PATCH": ["person"], "DELETE": ["person"], "global": true}}"#,
    );
}

async fn start() -> TestNode {
    let node = TestNode::start_with(with_roles);
    node.people().await;
    node.person("JUD005", &["judge"]).await;
    node.person("OWN006", &["own_judge"]).await;
    node.person("REG007", &["registrar"]).await;
    node.record(Kind::Event, doc! {"_id": "e1", "person": "ANA001", "n": 2}).await;
    node.record(Kind::Event, doc! {"_id": "e2", "person": "OWN006", "n": 2}).await;
    node
}

/// A conflict where the centre's value stands; gives its id.
async fn add(
    node: &TestNode,
    kind: Kind,
    id: &str,
    path: &[&str],
    local: Option<Bson>,
    central: Option<Bson>,
) -> String {
    let known = all(node).await;
    let key = RecordKey::new(kind, id);
    let path: Vec<String> = path.iter().map(|step| (*step).to_owned()).collect();
    let clash = Clash { path, base: None, local, remote: central, stands: Side::Remote };
    let added = node
        .node
        .store
        .unguarded()
        .transact(move |tx| -> Result<(), StoreError> { tx.add_conflict(&key, &clash, None) });
    added.await.unwrap();
    all(node).await.into_iter().find(|id| !known.contains(id)).unwrap()
}

async fn all(node: &TestNode) -> Vec<String> {
    let list = node.get("/sync/conflicts").by_operator().send().await.is(200, NOTHING).json();
    list.as_array().unwrap().iter().map(|conflict| conflict["id"].as_str().unwrap().to_owned()).collect()
}

fn decide<'a>(node: &'a TestNode, who: &str, id: &str, decision: Value) -> Call<'a> {
    node.post(&format!("/sync/conflicts/{id}/resolution"), decision).by(who)
}

async fn show(node: &TestNode, who: &str, id: &str) -> Answer {
    node.get(&format!("/sync/conflicts/{id}")).by(who).send().await
}

async fn event_conflict(node: &TestNode) -> String {
    add(node, Kind::Event, "e1", &["n"], Some(1.into()), Some(2.into())).await
}

#[tokio::test]
async fn a_conflict_shows_both_values() {
    let node = start().await;
    let id = event_conflict(&node).await;
    let shown = show(&node, "DOC003", &id).await.is(200, NOTHING);
    let etag = shown.header("etag").to_owned();
    let expected = json!({
        "id": id, "type": "value", "collection": "event", "record": "e1", "path": ["n"], "stands": "central", "status": "open",
        "author": "operator:0", "edited_at": "2026-11-23T01:28:52Z", "found_at": "2026-11-23T01:28:52Z", "local": 1, "central": 2, "current": 2,
        "etag": etag});
    let shown = shown.says(expected);
    let list = node.get("/sync/conflicts?status=open").by("DOC003").send().await.is(200, NOTHING);
    list.says(json!([shown.json()]));
    node.get("/sync/conflicts?status=resolved").by("DOC003").send().await.is(200, NOTHING).says(json!([]));
    node.get("/sync/conflicts?status=x").by("DOC003").send().await.is_invalid("status");
    show(&node, "DOC003", "none").await.is(404, NOTHING);
    show(&node, "ANA001", &id).await.is(403, NOTHING);
}

/// The ids on all pages of a list, and how many pages there are.
pub(crate) async fn paged(node: &TestNode, who: &str, query: &str) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut next) = (Vec::new(), 0, Some(format!("/sync/conflicts?{query}")));
    while let Some(path) = next {
        let page = node.get(&path).by(who).send().await.is(200, NOTHING);
        let rows = page.json();
        ids.extend(rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        pages += 1;
        let link = page.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| link.trim_start_matches('<').split('>').next().unwrap().to_owned());
    }
    (ids, pages)
}

#[tokio::test]
async fn a_list_is_narrowed_down_and_read_in_pages() {
    let node = start().await;
    let same = add(&node, Kind::Event, "e1", &["n"], Some(2.0.into()), Some(2.into())).await;
    let other = add(&node, Kind::Event, "e1", &["m"], Some(1.into()), Some(2.into())).await;
    let name = add(&node, Kind::Person, "BOB002", &["name"], Some("B".into()), Some("b".into())).await;
    let secret =
        add(&node, Kind::Person, "BOB002", &["password"], Some("$2b$1".into()), Some("$2b$2".into())).await;
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    for (query, expected) in [
        ("limit=3", vec![&same, &other, &name, &secret]),
        ("limit=1&status=open", vec![&same, &other, &name, &secret]),
        ("limit=1&status=resolved", vec![]),
        ("limit=1&collection=event", vec![&same, &other]),
        ("collection=people", vec![&name, &secret]),
        ("limit=9&path=n", vec![&same]),
        ("path=password", vec![&secret]),
        ("equal_by_meaning=true", vec![&same, &name]),
        ("limit=1&equal_by_meaning=true", vec![&same, &name]),
        ("equal_by_meaning=true&collection=event", vec![&same]),
        ("equal_by_meaning=false&limit=4", vec![&same, &other, &name, &secret]),
    ] {
        let (mut found, _) = paged(&node, "DOC003", query).await;
        found.sort();
        assert_eq!(found, sorted(&expected), "{query}");
    }
    assert_eq!(paged(&node, "DOC003", "limit=1").await.1, 4);
    assert_eq!(paged(&node, "DOC003", "limit=4").await.1, 1);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("collection=x", "collection"),
        ("path=x", "path"),
        ("path=n&collection=people", "path"),
        ("equal_by_meaning=x", "equal_by_meaning"),
    ] {
        node.get(&format!("/sync/conflicts?{query}")).by("DOC003").send().await.is_invalid(field);
    }
    let shown = show(&node, "DOC003", &same).await.is(200, NOTHING).json();
    assert_eq!((&shown["equal_by_meaning"], &shown["changed_since"]), (&json!(true), &Value::Null));
    node.patch("/events/e1", json!({"n": 5})).by("DOC003").send().await.is(200, &["update event/e1"]);
    let shown = show(&node, "DOC003", &same).await.is(200, NOTHING).json();
    assert_eq!(shown["changed_since"], true);
}

#[tokio::test]
async fn only_readers_of_a_record_see_its_conflicts() {
    let node = start().await;
    let of_ana = event_conflict(&node).await;
    let own = add(&node, Kind::Event, "e2", &["n"], Some(1.into()), Some(2.into())).await;
    let of_bob = add(&node, Kind::Person, "BOB002", &["name"], Some("B".into()), Some("Ana".into())).await;
    let seen = async |who: &str| {
        let list = node.get("/sync/conflicts").by(who).send().await.is(200, NOTHING).json();
        let mut ids: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|conflict| conflict["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    assert_eq!(seen("DOC003").await, sorted(vec![of_ana.clone(), own.clone(), of_bob.clone()]));
    assert_eq!(seen("JUD005").await, std::slice::from_ref(&of_bob));
    assert_eq!(seen("OWN006").await, std::slice::from_ref(&own));
    for (who, id) in [("JUD005", &of_ana), ("OWN006", &of_ana), ("OWN006", &of_bob)] {
        let hidden = show(&node, who, id).await.is(404, NOTHING);
        assert_eq!(hidden.body, show(&node, who, "none").await.body);
        decide(&node, who, id, json!({"take": "local"})).send().await.is(404, NOTHING);
    }
    decide(&node, "OWN006", &own, json!({"take": "local"})).send().await.is(200, &["update event/e2"]);
}

#[tokio::test]
async fn a_decision_is_an_ordinary_edit() {
    for (decision, name, value, changes) in [
        (json!({"take": "local"}), "local", 1, &["update event/e1"][..]),
        (json!({"take": "central"}), "central", 2, NOTHING),
        (json!({"value": 7}), "value", 7, &["update event/e1"]),
    ] {
        let node = start().await;
        let id = event_conflict(&node).await;
        let done = decide(&node, "DOC003", &id, decision).send().await.is(200, changes);
        done.has(json!({
            "status": "resolved", "resolution": name, "resolved_by": "person:DOC003", "current": value,
            "resolved_at": "2026-11-23T01:28:52Z"}));
        assert_eq!(node.stored(Kind::Event, "e1").unwrap().get_i32("n").unwrap(), value);
        let again = decide(&node, "DOC003", &id, json!({"take": "local"})).send().await.is(409, NOTHING);
        again.has(json!({"code": "conflict", "error": "The conflict has been resolved already"}));
    }
}

#[tokio::test]
async fn a_decision_is_about_what_somebody_saw() {
    let node = start().await;
    let id = event_conflict(&node).await;
    let tag = show(&node, "DOC003", &id).await.header("etag").to_owned();
    node.patch("/events/e1", json!({"n": 3})).by("DOC003").send().await.is(200, &["update event/e1"]);
    let take = || decide(&node, "DOC003", &id, json!({"take": "local"}));
    for stale in [
        take().header("if-match", &tag),
        take(),
        decide(&node, "DOC003", &id, json!({"take": "local", "seen": 2})),
        decide(&node, "DOC003", &id, json!({"take": "local", "seen": null})),
    ] {
        let moved = stale.send().await.is(409, NOTHING);
        assert_eq!(moved.json()["current"]["current"], 3);
    }
    let new = show(&node, "DOC003", &id).await.header("etag").to_owned();
    assert_ne!(new, tag);
    take().header("if-match", &new).send().await.is(200, &["update event/e1"]);
    let second = add(&node, Kind::Event, "e1", &["n"], Some(9.into()), Some(2.into())).await;
    decide(&node, "DOC003", &second, json!({"take": "central", "seen": 1}))
        .send()
        .await
        .is(200, &["update event/e1"]);
}

/// Whatever a decision would write over has to have been seen, also where it is no part of the path.
#[tokio::test]
async fn a_decision_about_a_part_shows_what_is_there_instead() {
    let node = start().await;
    let id = add(&node, Kind::Event, "e1", &["place", "room"], Some(5.into()), None).await;
    let tag = show(&node, "DOC003", &id).await.header("etag").to_owned();
    node.patch("/events/e1", json!({"place": "the yard"}))
        .by("DOC003")
        .send()
        .await
        .is(200, &["update event/e1"]);
    let take = || decide(&node, "DOC003", &id, json!({"take": "local"}));
    let moved = take().header("if-match", &tag).send().await.is(409, NOTHING);
    assert_eq!(moved.json()["current"]["current"], "the yard");
    let seen = decide(&node, "DOC003", &id, json!({"take": "local", "seen": "the yard"}));
    seen.send().await.is(200, &["update event/e1"]);
    assert_eq!(node.get("/events/e1").by("DOC003").send().await.json()["place"], json!({"room": 5}));
}

#[tokio::test]
async fn decisions_are_checked() {
    let node = start().await;
    let id = event_conflict(&node).await;
    for bad in [
        json!({}),
        json!({"take": "both"}),
        json!({"take": 1}),
        json!({"take": "local", "value": 1}),
        json!({"take": null}),
    ] {
        decide(&node, "DOC003", &id, bad).send().await.is_invalid("take");
    }
    decide(&node, "DOC003", &id, json!({"value": {"$set": 1}})).send().await.is_invalid("n.$set");
    let owner =
        add(&node, Kind::Event, "e1", &["person"], Some("BOB002".into()), Some("ANA001".into())).await;
    decide(&node, "ROOT004", &owner, json!({"take": "local"})).send().await.is_invalid("person");
    decide(&node, "JUD005", &id, json!({"take": "local"})).send().await.is(404, NOTHING);
    // To see is not to decide: the change needs the right to make it.
    let name = add(&node, Kind::Person, "BOB002", &["name"], Some("B".into()), Some("Ana".into())).await;
    decide(&node, "JUD005", &name, json!({"take": "local"})).send().await.is(403, NOTHING);
    decide(&node, "JUD005", &name, json!({"take": "central"})).send().await.is(200, NOTHING);
}

#[tokio::test]
async fn roles_and_passwords_are_decided_by_root() {
    let node = start().await;
    let hash = node.stored(Kind::Person, "ROOT004").unwrap().get_str("password").unwrap().to_owned();
    let stolen = bcrypt::hash("known to a thief", 4).unwrap();
    let roles = |roles: &[&str]| Some(Bson::Array(roles.iter().map(|role| Bson::from(*role)).collect()));
    let role = add(&node, Kind::Person, "BOB002", &["roles"], roles(&["root"]), roles(&["end_user"])).await;
    let active = add(&node, Kind::Person, "BOB002", &["active"], Some(false.into()), Some(true.into())).await;
    let secret =
        add(&node, Kind::Person, "ROOT004", &["password"], Some(stolen.clone().into()), Some(hash.into()))
            .await;
    for (id, field) in [(&role, "roles"), (&active, "active")] {
        for who in ["DOC003", "REG007"] {
            decide(&node, who, id, json!({"take": "local"})).send().await.is_invalid(field);
        }
    }
    for who in ["DOC003", "REG007", "ROOT004"] {
        let shown = show(&node, who, &secret).await.is(200, NOTHING);
        assert!(!shown.text().contains("$2") && shown.json()["secret"] == true, "{}", shown.text());
    }
    let take = json!({"take": "local"});
    decide(&node, "DOC003", &secret, take.clone()).send().await.is(403, NOTHING);
    decide(&node, "REG007", &secret, take.clone()).send().await.is(403, NOTHING);
    // Nobody writes a password that way, not even root: it would not be hashed.
    decide(&node, "ROOT004", &secret, json!({"value": "a new cradle"})).send().await.is_invalid("value");
    decide(&node, "ROOT004", &secret, take.clone()).send().await.is(200, &["update people/ROOT004"]);
    let root = |path: &str, decision| node.post(path, decision).login("ROOT004", "known to a thief");
    let path = format!("/sync/conflicts/{role}/resolution");
    root(&path, take).send().await.is(200, &["update people/BOB002"]);
}

fn whole(node: &TestNode, id: &str) -> Document {
    let mut document = node.stored(Kind::Person, id).unwrap();
    document.remove("password");
    document
}

/// A decision about a whole record is no way around the rules for its fields.
#[tokio::test]
async fn a_whole_record_keeps_what_is_not_shown() {
    let node = start().await;
    let local = whole(&node, "ROOT004");
    let id = add(&node, Kind::Person, "ROOT004", &[], Some(local.clone().into()), None).await;
    let tag = |answer: &Answer| answer.header("etag").to_owned();
    let shown = show(&node, "DOC003", &id).await;
    assert!(!shown.text().contains("$2"), "{}", shown.text());
    let mut value = shown.json()["current"].clone();
    for (field, wrong) in [
        ("password", json!(bcrypt::hash("known to a thief", 4).unwrap())),
        ("roles", json!(["end_user"])),
        ("active", json!(false)),
    ] {
        let mut value = value.clone();
        value[field] = wrong;
        let decision = decide(&node, "DOC003", &id, json!({"value": value})).header("if-match", &tag(&shown));
        decision.send().await.is_invalid(if field == "password" { "value" } else { field });
    }
    for bad in [json!("x"), json!({"name": "x"}), json!({"_id": "BOB002"}), json!({"id": "ROOT004"})] {
        decide(&node, "DOC003", &id, json!({"value": bad})).send().await.is_invalid("value");
    }
    value["name"] = json!("Decided");
    value["id"] = json!("ROOT004");
    let decision = decide(&node, "DOC003", &id, json!({"value": value})).header("if-match", &tag(&shown));
    decision.send().await.is(200, &["update people/ROOT004"]);
    let stored = node.stored(Kind::Person, "ROOT004").unwrap();
    assert_eq!(stored.get_str("name").unwrap(), "Decided");
    assert!(!stored.contains_key("id"));
    node.get("/users").by("ROOT004").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn a_record_that_comes_back_is_checked_like_a_new_one() {
    let node = start().await;
    let gone = doc! {"_id": "GONE01", "name": "Gone", "roles": ["end_user"]};
    let id = add(&node, Kind::Person, "GONE01", &[], Some(gone.into()), None).await;
    let value = |roles: Value| json!({"value": {"_id": "GONE01", "name": "Back", "roles": roles}});
    decide(&node, "DOC003", &id, value(json!(["root"]))).send().await.is_invalid("roles");
    decide(&node, "DOC003", &id, value(json!("end_user"))).send().await.is_invalid("roles");
    let hash = bcrypt::hash("known to a thief", 4).unwrap();
    let secret = json!({"value": {"_id": "GONE01", "roles": ["end_user"], "password": hash}});
    decide(&node, "DOC003", &id, secret).send().await.is_invalid("value");
    decide(&node, "DOC003", &id, value(json!(["end_user"]))).send().await.is(200, &["create people/GONE01"]);
    assert!(person("X", &[]).contains_key("password"));
    let document = doc! {"_id": "d1", "fedacct": "ANA001"};
    let id = add(&node, Kind::PersonalDocument, "d1", &[], Some(document.into()), None).await;
    let claim =
        json!({"value": {"_id": "d1", "fedacct": "ANA001", "content": {"sha256": "00", "length": 1}}});
    decide(&node, "DOC003", &id, claim).send().await.is_invalid("content");
}

/// Bytes that were uploaded to the record on either side may be chosen; a name that somebody writes may not.
#[tokio::test]
async fn one_of_two_uploads_can_be_taken() {
    let node = start().await;
    let content =
        |digit: &str, length: i64| doc! {"sha256": digit.repeat(64), "length": length, "type": "image/png"};
    let document = |content: Document| doc! {"_id": "d1", "fedacct": "ANA001", "content": content};
    node.from_centre(Kind::PersonalDocument, document(content("b", 2))).await;
    let (mine, theirs) = (content("a", 1), content("b", 2));
    let key = (Kind::PersonalDocument, "d1");
    let id = add(&node, key.0, key.1, &["content"], Some(mine.into()), Some(theirs.into())).await;
    let claim = json!({"value": {"sha256": "c".repeat(64), "length": 2, "type": "image/png"}});
    decide(&node, "ROOT004", &id, claim).send().await.is_invalid("content");
    let mixed = json!({"value": {"sha256": "a".repeat(64), "length": 2, "type": "image/png"}});
    decide(&node, "ROOT004", &id, mixed).send().await.is_invalid("content");
    decide(&node, "DOC003", &id, json!({"take": "local"}))
        .send()
        .await
        .is(200, &["update personal_document/d1"]);
    assert_eq!(node.stored(key.0, key.1), Some(document(content("a", 1))));
    // A record that was deleted there comes back with its bytes.
    let uploaded = doc! {"sha256": "d".repeat(64), "length": 4, "type": "image/png"};
    let gone = doc! {"_id": "d2", "fedacct": "ANA001", "content": uploaded};
    let id = add(&node, Kind::PersonalDocument, "d2", &[], Some(gone.clone().into()), None).await;
    let other = json!({"value": {"_id": "d2", "fedacct": "ANA001", "content": {"sha256": "e".repeat(64), "length": 1}}});
    decide(&node, "DOC003", &id, other).send().await.is_invalid("content");
    let back = json!({"value": {"_id": "d2", "fedacct": "ANA001", "content":
        {"sha256": "d".repeat(64), "length": 4, "type": "image/png"}}});
    decide(&node, "DOC003", &id, back).send().await.is(200, &["create personal_document/d2"]);
}

/// A person who is deleted by a decision must be one that DELETE would delete.
#[tokio::test]
async fn deleting_by_decision_needs_the_right_to_delete() {
    let node = start().await;
    let id = add(&node, Kind::Event, "e1", &[], None, Some(doc! {"_id": "e1"}.into())).await;
    // Not the body that the conflict left standing: somebody has added to it, and must not lose that unseen.
    decide(&node, "ROOT004", &id, json!({"take": "local"})).send().await.is(409, NOTHING);
    let tag = show(&node, "ROOT004", &id).await.header("etag").to_owned();
    let take_local = |who| decide(&node, who, &id, json!({"take": "local"})).header("if-match", &tag);
    take_local("DOC003").send().await.is(403, NOTHING);
    take_local("ROOT004").send().await.is(200, &["delete event/e1"]);
    let id = add(&node, Kind::Person, "ANA001", &[], None, Some(whole(&node, "ANA001").into())).await;
    let tag = show(&node, "ROOT004", &id).await.header("etag").to_owned();
    for who in ["REG007", "ROOT004"] {
        let decision = decide(&node, who, &id, json!({"take": "local"})).header("if-match", &tag);
        decision.send().await.is_invalid("active");
    }
}

/// A list says of a large value what it is; alone the conflict is shown whole.
#[tokio::test]
async fn large_values_are_shown_one_conflict_at_a_time() {
    let node = start().await;
    let large = |letter: &str| letter.repeat(100_000);
    node.record(Kind::Event, doc! {"_id": "e3", "person": "ANA001", "note": large("c")}).await;
    let id = add(
        &node,
        Kind::Event,
        "e3",
        &["note"],
        Some(large("m").into()),
        Some(doc! {"text": large("t"), "password": "not this one's"}.into()),
    )
    .await;
    let small = add(&node, Kind::Event, "e1", &["n"], Some("m".repeat(2_000).into()), Some(2.into())).await;
    let list = node.get("/sync/conflicts").by("DOC003").send().await.is(200, NOTHING).json();
    let find = |id: &str| list.as_array().unwrap().iter().find(|shown| shown["id"] == id).unwrap().clone();
    let listed = find(&id);
    assert_eq!(listed["local"], json!({"truncated": {"type": "string", "bytes": 100_000}}));
    assert_eq!(listed["central"]["truncated"]["type"], "object");
    assert_eq!(listed["current"], json!({"truncated": {"type": "string", "bytes": 100_000}}));
    assert_eq!(find(&small)["local"], "m".repeat(2_000));
    assert!(list.to_string().len() < 5_000, "{}", list.to_string().len());
    let shown = show(&node, "DOC003", &id).await.is(200, NOTHING);
    assert_eq!(shown.json()["local"], large("m"));
    assert_eq!(shown.json()["central"]["text"], large("t"));
    assert_eq!(shown.json()["current"], large("c"));
    assert_eq!(
        (shown.header("etag"), &shown.json()["etag"]),
        (listed["etag"].as_str().unwrap(), &listed["etag"])
    );
    // What is not on the version that was seen is refused with a summary.
    let stale = decide(&node, "DOC003", &id, json!({"take": "local"})).send().await.is(409, NOTHING);
    assert_eq!(stale.json()["current"]["current"]["truncated"]["bytes"], 100_000);
    let seen = decide(&node, "DOC003", &id, json!({"take": "local"}))
        .header("if-match", listed["etag"].as_str().unwrap());
    seen.send().await.is(200, &["update event/e3"]);
    assert_eq!(node.stored(Kind::Event, "e3").unwrap().get_str("note").unwrap(), large("m"));
}

#[tokio::test]
async fn many_conflicts_are_listed_in_order() {
    let node = start().await;
    let mut due = Vec::new();
    for n in 0..150 {
        let value = format!("{n:04}").repeat(300);
        due.push(add(&node, Kind::Event, "e1", &["n"], Some(value.into()), Some(2.into())).await);
    }
    due.sort();
    // All were found at the same time.
    assert_eq!(all(&node).await, due);
}

/// Two records under one id show two people: only who may read and change both sees and decides.
#[tokio::test]
async fn two_records_under_one_id_are_for_those_who_may_change_both() {
    let node = start().await;
    let key = RecordKey::new(Kind::Event, "e2");
    let local = doc! {"_id": "e2", "person": "OWN006", "n": 2};
    let central = doc! {"_id": "e2", "person": "ANA001", "n": "of Ana"};
    let other = central.clone();
    let undecided = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
        // Ana stands at the centre.
        let ana = RecordKey::new(Kind::Person, "ANA001");
        let agreed = tx.document(&ana)?.unwrap();
        tx.put(&ana, Some(&agreed), &Base::Document(agreed.clone()), &Actor::Centre)?;
        let id = "two-records".to_owned();
        tx.open_conflict(Conflict::about_record(id.clone(), &key, &local, Some(&other), String::new(), 0))?;
        tx.put_undecided(&key, &Undecided { conflict: id, central: Some(other.clone()), decided_owner: None })
    });
    undecided.await.unwrap();
    // One of the two is theirs, and the other one is not.
    for take in ["local", "central", "new_id"] {
        let answer = decide(&node, "OWN006", "two-records", json!({"take": take})).send().await;
        assert!([403, 404].contains(&answer.status), "{take}: {}", answer.status);
    }
    let seen = node.get("/sync/conflicts/two-records").by("OWN006").send().await;
    assert!([403, 404].contains(&seen.status), "{}", seen.status);
    node.get("/sync/conflicts").by("OWN006").send().await.is(200, NOTHING).says(json!([]));
    // Who may read everything, but change nothing, sees it and decides nothing.
    for take in ["local", "central", "new_id"] {
        let answer = decide(&node, "JUD005", "two-records", json!({"take": take})).send().await;
        assert!([403, 404].contains(&answer.status), "{take}: {}", answer.status);
    }
    decide(&node, "ROOT004", "two-records", json!({"value": {"_id": "e2"}})).send().await.is(422, NOTHING);
    let taken = decide(&node, "ROOT004", "two-records", json!({"take": "central"})).send().await;
    taken.is(200, &["update event/e2"]);
    assert_eq!(node.stored(Kind::Event, "e2"), Some(central));
}

#[tokio::test]
async fn a_decision_makes_a_record_no_larger_than_a_write() {
    let node = start().await;
    let id = event_conflict(&node).await;
    let large = "y".repeat((1 << 20) - 200);
    let mut event = doc! {"_id": "e1", "person": "ANA001", "n": 2};
    event.insert("notes", &large);
    node.from_centre(Kind::Event, event).await;
    let value = |bytes: usize| json!({"value": "z".repeat(bytes)});
    let refused = decide(&node, "DOC003", &id, value(100_000)).send().await.is(413, NOTHING);
    let refused = refused.has(json!({"code": "too_large"}));
    assert!(refused.text().contains("api.record_limit_bytes"), "{}", refused.text());
    decide(&node, "DOC003", &id, json!({"value": 3})).send().await.is(200, &["update event/e1"]);
    // What stands on one of the two sides may be taken.
    let local = Some("l".repeat(1 << 20).into());
    let id = add(&node, Kind::Event, "e2", &["n"], local, Some(2.into())).await;
    decide(&node, "OWN006", &id, json!({"take": "local"})).send().await.is(200, &["update event/e2"]);
}

/// The centre has deleted the record, which is here still: deciding for it makes it again there.
#[tokio::test]
async fn making_a_record_again_that_is_about_to_go_needs_the_right_to_make_it() {
    for (who, status) in [("JUD005", 403), ("REG007", 200)] {
        let node = start().await;
        let stored = node.stored(Kind::Person, "BOB002").unwrap();
        let id = add(&node, Kind::Person, "BOB002", &[], None, Some(Bson::Document(stored.clone()))).await;
        let gone = RecordKey::new(Kind::Person, "BOB002");
        let vanish = node
            .node
            .store
            .unguarded()
            .transact(move |tx| -> Result<(), StoreError> { tx.put_vanished(&gone) });
        vanish.await.unwrap();
        decide(&node, who, &id, json!({"take": "central"})).send().await.is(status, NOTHING);
        let snapshot = node.node.store.read().unwrap();
        let is_vanished = snapshot.is_vanished(&RecordKey::new(Kind::Person, "BOB002")).unwrap();
        assert_eq!(
            (is_vanished, node.stored(Kind::Person, "BOB002")),
            (status == 403, Some(stored)),
            "{who}"
        );
    }
}

/// The account has gone to another person since: what lost in records of the one before is not for them to see.
#[tokio::test]
async fn who_gets_an_account_does_not_see_values_of_the_one_before() {
    let node = start().await;
    let own = add(&node, Kind::Event, "e2", &["n"], Some(1.into()), Some(2.into())).await;
    show(&node, "OWN006", &own).await.is(200, NOTHING);
    let body = node.stored(Kind::Person, "OWN006").unwrap();
    let mut next = body.clone();
    next.extend(doc! {"name": "Nora", "lastname": "Next", "dob": "1951-05-05", "gender": "f"});
    let mut before = body;
    before.extend(doc! {"name": "Olga", "lastname": "Own", "dob": "1990-01-01", "gender": "f"});
    let change = node.node.store.unguarded().transact(move |tx| -> Result<(), StoreError> {
        let key = RecordKey::new(Kind::Person, "OWN006");
        let centre = thalamus_edge::domain::access::Actor::Centre;
        tx.put(&key, Some(&before), &thalamus_edge::store::Base::Document(before.clone()), &centre)?;
        tx.put(&key, None, &thalamus_edge::store::Base::Absent, &centre)?;
        tx.put(&key, Some(&next), &thalamus_edge::store::Base::Document(next.clone()), &centre)
    });
    change.await.unwrap();
    show(&node, "OWN006", &own).await.is(404, NOTHING);
    node.get("/sync/conflicts").by("OWN006").send().await.is(200, NOTHING).says(json!([]));
    show(&node, "DOC003", &own).await.is(200, NOTHING);
    decide(&node, "DOC003", &own, json!({"take": "local"})).send().await.is(422, NOTHING);
}

/// A node that does not know the path of a trial decides nothing; and none takes a trial for a decision.
#[tokio::test]
async fn a_trial_says_what_a_decision_would_and_changes_nothing() {
    let node = start().await;
    let id = event_conflict(&node).await;
    let before = node.last_change();
    let path = format!("/sync/conflicts/{id}/resolution");
    for body in [json!({"take": "local", "dry_run": true}), json!({"take": "local", "dry_run": false})] {
        node.post(&path, body).by("DOC003").send().await.is_invalid("dry_run");
    }
    let trial = |who: &str, body: Value| node.post(&format!("{path}/trial"), body).by(who).send();
    trial("DOC003", json!({"take": "local"})).await.is(204, NOTHING);
    trial("DOC003", json!({"take": "neither"})).await.is_invalid("take");
    trial("DOC003", json!({"take": "local", "seen": 5})).await.is(409, NOTHING);
    trial("ANA001", json!({"take": "local"})).await.is(403, NOTHING);
    assert_eq!(node.last_change(), before);
    let open = node.get("/sync/conflicts?status=open").by("DOC003").send().await.json();
    assert_eq!((&open[0]["id"], &open[0]["current"]), (&json!(id), &json!(2)));
    let trail = node.get("/audit?verb=decision").by("ROOT004").send().await.json();
    assert_eq!(trail["entries"], json!([]));
    assert_eq!(decide(&node, "DOC003", &id, json!({"take": "local"})).send().await.status, 200);
    trial("DOC003", json!({"take": "local"})).await.is(409, NOTHING);
}
