//! What requests leave in the trail: who, what, whose, from where, and never a value.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::audit::{Entry, Event, What};
use thalamus_edge::domain::record::Kind;

use super::support::api::{NOTHING, PASSWORD, PASSWORD_HASH, TestNode, pass_time};
use super::{entries, verified};

/// A minute and a bit: repeats no longer share an entry.
const LATER: Duration = Duration::from_secs(61);

/// The entries after `seq`, once everything that was noted is written.
async fn after(node: &TestNode, seq: u64) -> Vec<Entry> {
    node.node.store.flush_notes().await.unwrap();
    entries(node.node.store.unguarded()).into_iter().filter(|entry| entry.seq > seq).collect()
}

/// The newest entry of what was noted up to now.
async fn last(node: &TestNode) -> u64 {
    node.node.store.flush_notes().await.unwrap();
    entries(node.node.store.unguarded()).last().map_or(0, |entry| entry.seq)
}

fn told(entries: &[Entry]) -> Vec<String> {
    let line = |Entry { event: Event { who, verb, kind, id, outcome, .. }, times, .. }: &Entry| {
        format!("{who} {verb} {kind}/{id} {outcome} x{}", times.count)
    };
    entries.iter().map(line).collect()
}

#[tokio::test]
async fn an_entry_says_who_did_what_to_whom_and_from_where() {
    let node = TestNode::with_people().await;
    let before = last(&node).await;
    let from = IpAddr::from([192, 0, 2, 77]);
    let body = json!({"phone": "555-0100", "address": {"city": "Milano"}});
    node.patch("/people/ana001", body).by("DOC003").from(from).send().await;
    let new = after(&node, before).await;
    assert_eq!(told(&new), ["person:DOC003 update people/ANA001 ok x1"]);
    assert_eq!(new[0].event.owner, "ANA001");
    assert_eq!(new[0].event.peer, "192.0.2.77");
    let mut paths = new[0].event.paths.clone();
    paths.sort();
    assert_eq!(paths, ["address", "phone"]);
    assert_eq!(new[0].times.at_ms, node.node.store.now_ms());
}

#[tokio::test]
async fn writes_have_words_of_their_own() {
    let node = TestNode::with_people().await;
    let before = last(&node).await;
    node.post("/people/NEW005", json!({"name": "Eva"}))
        .by("DOC003")
        .send()
        .await
        .is(201, &["create people/NEW005"]);
    node.patch("/people/NEW005", json!({"password": "another cradle"})).by("ROOT004").send().await;
    node.patch("/people/NEW005", json!({"roles": ["end_user", "root"]})).by("ROOT004").send().await;
    node.patch("/people/NEW005", json!({"active": false})).by("ROOT004").send().await;
    node.delete("/people/NEW005").by("ROOT004").send().await.is(204, &["delete people/NEW005"]);
    let tech = json!({"password": "another cradle", "roles": ["root"], "local": true});
    node.post("/users/tech", tech).by_operator().send().await.is(201, NOTHING);
    node.post("/users/tech@local/active", json!({"active": false}))
        .by_operator()
        .send()
        .await
        .is(204, NOTHING);
    node.post("/users/ANA001/link", json!({})).by("ROOT004").send().await.is(201, NOTHING);
    let new = after(&node, before).await;
    assert_eq!(
        told(&new),
        [
            "person:DOC003 create people/NEW005 ok x1",
            "person:ROOT004 password people/NEW005 ok x1",
            "person:ROOT004 roles people/NEW005 ok x1",
            "person:ROOT004 grant people/NEW005 ok x1",
            "person:ROOT004 update people/NEW005 ok x1",
            "person:ROOT004 delete people/NEW005 ok x1",
            "person:ROOT004 grant people/NEW005 ok x1",
            "operator:0 account account/tech@local ok x1",
            "operator:0 account account/tech@local ok x1",
            "person:ROOT004 link people/ANA001 ok x1",
        ]
    );
    let details: Vec<&str> = new.iter().map(|entry| entry.event.detail.as_str()).collect();
    assert_eq!(details[3], "root");
    assert_eq!(new[7].event.peer, "", "the machine's own");
    assert_eq!(new[8].event.paths, ["active"]);
}

#[tokio::test]
async fn repeats_within_a_minute_share_entries() {
    let node = TestNode::with_people().await;
    let before = last(&node).await;
    let read = || node.get("/people/ANA001").by("DOC003").send();
    for _ in 0..5 {
        read().await.is(200, NOTHING);
    }
    node.get("/people/BOB002").by("DOC003").send().await.is(200, NOTHING);
    let first = after(&node, before).await;
    assert_eq!(
        told(&first),
        ["person:DOC003 read people/ANA001 ok x5", "person:DOC003 read people/BOB002 ok x1"]
    );
    for _ in 0..3 {
        pass_time(Duration::from_secs(1));
        read().await;
    }
    assert_eq!(after(&node, before).await.len(), 2, "within the minute the fact is known");
    pass_time(LATER);
    let all = after(&node, before).await;
    assert_eq!(told(&all[2..]), ["person:DOC003 read people/ANA001 ok x3"]);
    assert_eq!(all[2].times.until_ms - all[2].times.at_ms, 2000);
    read().await;
    assert_eq!(told(&after(&node, before).await[3..]), ["person:DOC003 read people/ANA001 ok x1"]);
}

#[tokio::test]
async fn every_way_to_see_a_record_is_a_read() {
    let node = TestNode::with_people().await;
    node.record(Kind::Encounter, doc! {"_id": "e1", "person": "ANA001", "note": "x"}).await;
    node.record(Kind::Page, doc! {"_id": "p1", "book": "ANA001"}).await;
    let etag = node.get("/encounters/e1").by("DOC003").send().await.header("etag").to_owned();
    let before = last(&node).await;
    pass_time(LATER);
    let calls = [
        node.get("/encounters/e1").by("DOC003"),
        node.request("HEAD", "/pols/ANA001/p1").by("DOC003"),
        node.get("/people/ana001").by("DOC003").header("if-none-match", "*"),
        node.get("/encounters").by("ANA001"),
        node.get("/encounters").by("DOC003"),
        node.get("/pols/ana001").by("DOC003"),
        node.get("/people?q=ana").by("DOC003"),
        // Neither changes anything, both show the record.
        node.patch("/encounters/e1", json!({"note": "x"})).by("ROOT004").header("if-match", &etag),
        node.post("/encounters/e1", json!({"person": "ANA001", "note": "x"})).by("ROOT004"),
        node.get("/sync/conflicts").by("DOC003"),
        node.get("/users").by("ROOT004"),
        node.get("/changes").by("ROOT004"),
        node.get("/login").by("ROOT004"),
        node.get("/sync/status").by("ROOT004"),
        node.get("/encounters/none").by("ROOT004"),
    ];
    for call in calls {
        let answer = call.send().await;
        assert!(answer.status < 500 && answer.changes.is_empty(), "{}: {}", answer.what, answer.status);
    }
    let new = after(&node, before).await;
    let lines: Vec<String> =
        new.iter().map(|e| format!("{} {} {}", e.event.who, e.event.verb, e.event.kind)).collect();
    let owners: Vec<&str> = new.iter().map(|entry| entry.event.owner.as_str()).collect();
    assert_eq!(
        lines,
        [
            "person:DOC003 read encounter",
            "person:DOC003 read pols",
            "person:DOC003 read people",
            "person:ANA001 list encounter",
            "person:DOC003 list encounter",
            "person:DOC003 list pols",
            "person:DOC003 list people",
            "person:ROOT004 read encounter",
            "person:DOC003 list conflicts",
            "person:ROOT004 list users",
            "person:ROOT004 read ",
            // Of the requests that show nothing, once.
            "person:ROOT004 login people",
        ]
    );
    assert_eq!(
        owners,
        ["ANA001", "ANA001", "ANA001", "ANA001", "*", "ANA001", "*", "ANA001", "*", "", "", "ROOT004"]
    );
    assert_eq!(new[7].times.count, 2);
    assert_eq!(new[10].event.detail, "/changes");
}

#[tokio::test]
async fn refusals_are_kept_with_their_reason() {
    let node = TestNode::with_people().await;
    node.record(Kind::Encounter, doc! {"_id": "e1", "person": "ANA001"}).await;
    let before = last(&node).await;
    node.get("/people").send().await.is(401, NOTHING);
    assert!(after(&node, before).await.is_empty(), "who tells no name is nobody's business");
    node.get("/people").login("ana001", "wrong").send().await.is(401, NOTHING);
    node.get("/people").login("my secret password", "ANA001").send().await.is(401, NOTHING);
    node.get("/people/BOB002").by("ANA001").send().await.is(403, NOTHING);
    node.get("/encounters/e1").by("BOB002").send().await.is(404, NOTHING);
    node.get("/encounters/none").by("BOB002").send().await.is(404, NOTHING);
    let foreign =
        node.post("/people/NEW005", json!({})).by("DOC003").header("origin", "https://evil.example");
    foreign.send().await.is(403, NOTHING);
    node.request("POST", "/password/ANA001").by("ANA001").bytes("token=x").send().await.is(403, NOTHING);
    node.get("/link/no-such-link").send().await.is(401, NOTHING);
    let new = after(&node, before).await;
    assert_eq!(
        told(&new),
        [
            "nobody login_failed people/ANA001 refused x1",
            "nobody login_failed / refused x1",
            "person:ANA001 denied people/BOB002 forbidden x1",
            "person:BOB002 denied encounter/e1 hidden x1",
            "nobody denied people/NEW005 cross_origin x1",
            "person:ANA001 denied / form_expired x1",
            "nobody login_failed / unknown_link x1",
        ]
    );
    assert_eq!(new[2].event.detail, "GET /people/{person_id}");
    assert_eq!(new[5].event.owner, "ANA001");
}

#[tokio::test]
async fn a_wrong_current_password_in_the_form_and_too_many_attempts_are_known() {
    let node = TestNode::with_people().await;
    let form = node.get("/password/ANA001").by("ANA001").send().await.text();
    let token =
        form.split("name=\"csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let before = last(&node).await;
    for _ in 0..8 {
        let body = format!("token={token}&current=wrong&password=one+cradle&again=one+cradle");
        node.request("POST", "/password/ANA001").by("ANA001").bytes(body).send().await;
    }
    let new = told(&after(&node, before).await);
    // Five, and what the throttle lets through meanwhile.
    assert_eq!(new.len(), 2, "{new:?}");
    assert!(new[0].starts_with("person:ANA001 login_failed people/ANA001 refused x"), "{new:?}");
    assert!(new[1].starts_with("person:ANA001 throttled people/ANA001 too_many_attempts x"), "{new:?}");
}

/// A person sees who has read what is theirs; whoever administers sees everything; nobody else anything.
#[tokio::test]
async fn people_see_who_has_read_their_record() {
    let node = TestNode::with_people().await;
    node.get("/people/ANA001").by("DOC003").send().await.is(200, NOTHING);
    node.get("/people/BOB002").by("DOC003").send().await.is(200, NOTHING);
    node.get("/people").by("DOC003").send().await.is(200, NOTHING);
    let lines = |answer: Value| -> Vec<String> {
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let entries = answer["entries"].as_array().unwrap().iter();
        entries.map(|e| format!("{} {} {}", text(e, "who"), text(e, "verb"), text(e, "owner"))).collect()
    };
    let own = node.get("/audit?person=ana001").by("ANA001").send().await.is(200, NOTHING).json();
    assert_eq!(
        lines(own),
        [
            "person:DOC003 list *",
            "person:DOC003 read ANA001",
            "operator:0 grant ANA001",
            "operator:0 create ANA001"
        ]
    );
    // That is a read too.
    let own = node.get("/audit?person=ANA001&limit=1").by("ANA001").send().await.json();
    assert_eq!(lines(own), ["person:ANA001 list ANA001"]);
    for path in ["/audit", "/audit?person=BOB002", "/audit?person=", "/audit?who=ANA001", "/audit?verb=dance"]
    {
        node.get(path).by("ANA001").send().await.is(403, NOTHING);
        node.get(path).by("DOC003").send().await.is(403, NOTHING);
    }
    let root = node.get("/audit?verb=read&person=BOB002").by("ROOT004").send().await.is(200, NOTHING).json();
    assert_eq!(lines(root), ["person:DOC003 read BOB002"]);
    let operator = node.get("/audit?who=doc003&limit=2").by_operator().send().await.is(200, NOTHING).json();
    assert_eq!(lines(operator.clone()), ["person:DOC003 denied ", "person:DOC003 list *"]);
    let next = operator["next"].as_u64().unwrap();
    let older = format!("/audit?who=doc003&before={next}&verb=read");
    let older = node.get(&older).by_operator().send().await.json();
    assert_eq!(lines(older.clone()), ["person:DOC003 read BOB002", "person:DOC003 read ANA001"]);
    assert_eq!(older["next"], Value::Null);
    node.get("/audit?verb=dance").by("ROOT004").send().await.is_invalid("verb");
    node.get("/audit?from=yesterday").by("ROOT004").send().await.is_invalid("from");
    pass_time(LATER);
    let (until, since) = ("to=2026-11-23T01:28:52Z", "from=2026-11-23T01:28:53Z");
    node.get("/people/ANA001").by("ROOT004").send().await;
    let late = node.get(&format!("/audit?person=ANA001&verb=read&{since}")).by("ROOT004").send().await.json();
    assert_eq!(lines(late), ["person:ROOT004 read ANA001"]);
    let early =
        node.get(&format!("/audit?person=ANA001&verb=read&{until}")).by("ROOT004").send().await.json();
    assert_eq!(lines(early), ["person:DOC003 read ANA001"]);
    let question = "/authorization?method=GET&path=";
    for (path, who, allowed) in [
        ("/audit", "ANA001", false),
        ("/audit%3Fperson=ana001", "ANA001", true),
        ("/audit%3Fperson=BOB002", "ANA001", false),
        ("/audit", "ROOT004", true),
    ] {
        let answer = node.get(&format!("{question}{path}")).by(who).send().await.is(200, NOTHING);
        assert_eq!(answer.json()["allowed"], allowed, "{path} {who}");
    }
}

/// The whole table is searched for everything secret that went through the node.
#[tokio::test]
async fn no_value_and_no_secret_gets_in() {
    let node = TestNode::with_people().await;
    let secrets =
        ["top-secret-1", "Diagnosis-42", "another cradle", "wrong-guess", "Query-Words", "typed-as-name"];
    node.patch("/people/ANA001", json!({"phone": "top-secret-1", "notes": ["Diagnosis-42"]}))
        .by("DOC003")
        .send()
        .await;
    node.post("/pols/ANA001/p1", json!({"id": "p1", "summary": "Diagnosis-42"})).by("DOC003").send().await;
    node.patch("/people/ANA001", json!({"password": "another cradle"}))
        .by("ROOT004")
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    node.get("/people/ANA001").login("ANA001", "wrong-guess").send().await;
    node.get("/people/ANA001").login("typed-as-name", "ANA001").send().await;
    node.get("/people?q=Query-Words").by("DOC003").send().await;
    node.delete("/pols/ANA001/p1").by("ROOT004").send().await;
    let made = node.post("/users/BOB002/link", json!({})).by_operator().send().await.json();
    let link = made["path"].as_str().unwrap().to_owned();
    node.get(&link).send().await.is(200, NOTHING);
    node.request("POST", &link).bytes("password=one+cradle&again=one+cradle").send().await;
    node.get(&link).send().await.is(401, NOTHING);
    let hash = node.stored(Kind::Person, "ANA001").unwrap().get_str("password").unwrap().to_owned();
    let all = after(&node, 0).await;
    assert!(
        told(&all).iter().any(|line| line == "person:BOB002 password people/BOB002 ok x1"),
        "{:?}",
        told(&all)
    );
    let bytes: Vec<u8> = all.iter().flat_map(|entry| entry.encode()).collect();
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("ANA001") && holds("phone") && !holds("summary"), "the search finds what is there");
    let more =
        ["one cradle", &hash, PASSWORD, PASSWORD_HASH.as_str(), link.trim_start_matches("/link/"), "Betz"];
    for secret in secrets.into_iter().chain(more) {
        assert!(!holds(secret), "{secret} is in the audit trail");
    }
}

/// Names that nobody has, from one address and from a thousand.
#[tokio::test]
async fn a_flood_leaves_few_entries_and_is_counted() {
    let node = TestNode::with_people().await;
    for n in 0..60 {
        node.person(&format!("GUESS{n}"), &["end_user"]).await;
    }
    let before = last(&node).await;
    let store = node.node.store.unguarded();
    let failed = |id: &str, peer: [u8; 4]| {
        Event::by_nobody(What::LoginFailed).about("people", id, Some(id)).at(Some(IpAddr::from(peer)))
    };
    for n in 0..60 {
        let call = node.get("/login").login(&format!("GUESS{n}"), "wrong").from(IpAddr::from([192, 0, 2, 9]));
        call.send().await;
    }
    let one_address = after(&node, before).await;
    // Sixteen, one for other names, and one for those who were told to wait.
    assert_eq!(one_address.len(), 18, "{:?}", told(&one_address));
    assert_eq!(one_address.iter().map(|entry| entry.times.count).sum::<u64>(), 60);
    for n in 0..10_000_u16 {
        let [high, low] = n.to_be_bytes();
        store.note(failed("ANA001", [10, 0, high, low]));
    }
    // Those who are logged in are not drowned by strangers.
    node.get("/people/BOB002").by("ANA001").send().await.is(403, NOTHING);
    let all = after(&node, before).await;
    assert!(all.len() <= 18 + 64 + 2, "{}", all.len());
    assert_eq!(all.iter().map(|entry| entry.times.count).sum::<u64>(), 60 + 10_000 + 1);
    assert!(all.iter().any(|entry| entry.event.who == "person:ANA001" && entry.event.id == "BOB002"));
    verified(store, &[]).unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_a_gap_with_a_number() {
    let node = TestNode::start();
    let store = node.node.store.unguarded();
    for n in 0..10_000 {
        store.note(Event::new(What::Read, &Actor::Person("DOC003".to_owned())).about(
            "people",
            &n.to_string(),
            None,
        ));
    }
    let all = after(&node, 0).await;
    let mut by_verb = BTreeMap::new();
    for entry in &all {
        *by_verb.entry(&*entry.event.verb).or_insert(0) += entry.times.count;
    }
    assert_eq!(by_verb.get("read"), Some(&8192));
    assert_eq!(by_verb.get("gap"), Some(&(10_000 - 8192)));
    assert_eq!(all.len(), 8193);
    store.flush_notes().await.unwrap();
    assert_eq!(after(&node, 0).await.len(), 8193, "the gap is told once");
}
