//! Emergency access: whoever has a role for it reads one other person's records for a while, for a reason, and
//! somebody answers for having looked at it. Everything else stays as it is without.

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use thalamus_edge::domain::access::{Acl, Actor, Grant, Verb};
use thalamus_edge::domain::audit::Entry;
use thalamus_edge::domain::emergency::{OPEN_S_MAX, Reason, UNREVIEWED_EACH_MAX, UNREVIEWED_MAX};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::store::{Asker, AuditQuery, Charge, Edit, EmergencyError, Right, Store, asked_by};

use crate::support::api::{Answer, Call, NOTHING, PASSWORD, Setup, TestNode, elapse, pass_time, person};
use crate::support::disk::Disk;

const HEADER: &str = "X-Emergency-Reason";
const REASON: &str = "unconscious, allergies?";
const QUARTER: Duration = Duration::from_secs(OPEN_S_MAX);
const BYTES: &[u8] = b"an X-ray";

/// A nurse may open what they may not read; a clerk may not. Neither may events.
const ROLES: &str = r#"[
    {"role": "nurse", "permissions": {
        "GET": ["people", "person", "book", "page", "personaldocs", "personaldoc", "poldocs", "encounters",
                "encounter", "password", "sync", "institutions", "institution", "changes", "conflicts"],
        "POST": ["page", "password", "encounter", "person"], "PATCH": ["person", "page", "personaldoc"],
        "PUT": ["page"], "DELETE": ["page"], "emergency": true}},
    {"role": "clerk", "permissions": {
        "GET": ["people", "person", "book", "page", "personaldocs", "personaldoc", "poldocs", "encounters",
                "encounter", "events", "event"]}},
    {"role": "end_user", "permissions": {"GET": ["person", "book", "page", "event", "events"], "PATCH": ["person"]}},
    {"role": "doctor", "permissions": {"GET": ["person", "page", "encounter", "encounters"], "global": true}},
    {"role": "root", "permissions": {
        "GET": ["people", "person", "audit", "users", "sync"], "PATCH": ["person"], "POST": ["users"],
        "global": "True"}}]"#;

/// Paths to what is Ana's, which the nurse may open.
const HERS: &[&str] = &[
    "/people/ANA001",
    "/people/ana001",
    "/people?person=ANA001",
    "/pols/ANA001",
    "/pols/ANA001/p1",
    "/personal-documents/d1",
    "/personal-documents/d1/content",
    "/personal-documents?person=ANA001",
    "/personal_docs/ANA001",
    "/personal_docs/ANA001/p1",
    "/encounters/e1",
    "/encounters?person=ana001",
];

/// Everything else that somebody could try, with what a nurse gets for it.
const NOT_HERS: &[(&str, u16)] = &[
    ("/people/BOB002", 403),
    ("/people/NOBODY9", 403),
    ("/pols/BOB002", 403),
    ("/pols/BOB002/p2", 403),
    ("/personal_docs/BOB002", 403),
    ("/encounters?person=BOB002", 403),
    ("/encounters/e2", 404),
    ("/encounters/none", 404),
    // Belongs to nobody.
    ("/encounters/e3", 404),
    // A kind that only another role of theirs names.
    ("/events/v1", 404),
    ("/events?person=ANA001", 403),
    ("/password/ANA001", 403),
    ("/audit?person=ANA001", 403),
    ("/audit", 403),
    ("/users", 403),
    ("/emergencies", 403),
];

async fn start_with(adjust: impl FnOnce(&mut Setup)) -> TestNode {
    let node = TestNode::start_with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.settings.emergency_access = true;
        adjust(setup);
    });
    for (id, roles) in [
        ("ANA001", &["end_user"][..]),
        ("BOB002", &["end_user"]),
        ("DOC003", &["doctor"]),
        ("ROOT004", &["root"]),
        ("NUR005", &["end_user", "nurse"]),
        ("CLE006", &["clerk"]),
    ] {
        node.person(id, roles).await;
    }
    for (kind, document) in [
        (Kind::Page, doc! {"_id": "p1", "book": "ANA001", "summary": "allergic"}),
        (Kind::Page, doc! {"_id": "p2", "book": "BOB002"}),
        (Kind::Encounter, doc! {"_id": "e1", "person": "ana001"}),
        (Kind::Encounter, doc! {"_id": "e2", "person": "BOB002"}),
        (Kind::Encounter, doc! {"_id": "e3"}),
        (Kind::Encounter, doc! {"_id": "e5", "person": "NUR005"}),
        (Kind::Event, doc! {"_id": "v1", "person": "ANA001"}),
    ] {
        node.record(kind, document).await;
    }
    let sha256 = hex::encode(Sha256::digest(BYTES));
    let document = doc! {
        "_id": "d1", "fedacct": "ANA001", "pol": "p1",
        "content": {"sha256": &sha256, "length": BYTES.len() as i64, "type": "image/png"},
    };
    let edit = Edit {
        grant: Grant::operator(0, Verb::Post, Kind::PersonalDocument),
        id: "d1".to_owned(),
        expected: None,
        document: Some(document),
        requires: Vec::new(),
        grants: None,
        content: Some((sha256, BYTES.into())),
        closes: None,
    };
    node.node.store.unguarded().edit(edit).await.unwrap();
    node
}

async fn start() -> TestNode {
    start_with(|_| {}).await
}

fn nurse<'a>(node: &'a TestNode, path: &str) -> Call<'a> {
    node.get(path).by("NUR005")
}

fn urgent<'a>(node: &'a TestNode, path: &str) -> Call<'a> {
    nurse(node, path).header(HEADER, REASON)
}

/// The trail as it is on disk now, without waiting for what is still to be written.
fn trail(store: &Store) -> Vec<Entry> {
    let query = AuditQuery { after: Some(0), limit: usize::MAX, ..AuditQuery::default() };
    store.read().unwrap().audit(&query).unwrap().rows.into_iter().map(Result::unwrap).collect()
}

fn told(entries: &[Entry]) -> Vec<String> {
    let line = |Entry { event, .. }: &Entry| {
        format!("{} {} {}/{} {}", event.who, event.verb, event.kind, event.id, event.detail)
    };
    entries.iter().map(line).collect()
}

fn openings(node: &TestNode) -> usize {
    trail(node.node.store.unguarded()).iter().filter(|entry| entry.event.verb == "emergency").count()
}

async fn unreviewed(node: &TestNode) -> Value {
    node.get("/emergencies").by("ROOT004").send().await.is(200, NOTHING).json()
}

async fn is_open(node: &TestNode) -> bool {
    let answer = nurse(node, "/people/ANA001").send().await;
    assert!([200, 403].contains(&answer.status), "{}", answer.text());
    answer.status == 200
}

/// What a client can tell two answers apart by.
fn visible(answer: &Answer) -> (u16, String, Option<String>) {
    let tag = answer.headers.get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    // Each store has an id of its own.
    let text = answer.text();
    let shown = match text.split_once(r#""store":""#) {
        Some((before, after)) => format!("{before}{}", after.split_once('"').map_or("", |(_, rest)| rest)),
        None => text,
    };
    (answer.status, shown, tag)
}

#[tokio::test]
async fn switched_off_the_header_does_nothing() {
    let (off, on) = (start_with(|setup| setup.settings.emergency_access = false).await, start().await);
    let all = HERS.iter().copied().chain(NOT_HERS.iter().map(|(path, _)| *path));
    let all = all.chain(["/encounters", "/people", "/events", "/sync/status", "/changes?since=1000"]);
    // The trail grows with every look at it.
    for path in all.filter(|path| !path.starts_with("/audit")) {
        for who in ["NUR005", "CLE006", "ANA001", "DOC003", "ROOT004"] {
            let with = off.get(path).by(who).header(HEADER, REASON).send().await;
            let bad = off.get(path).by(who).header(HEADER, "short").send().await;
            let without = off.get(path).by(who).send().await;
            // Nor does the switch do anything to whoever gives no reason.
            let unasked = on.get(path).by(who).send().await;
            assert_eq!(visible(&with), visible(&without), "{who} {path}");
            assert_eq!(visible(&bad), visible(&without), "{who} {path}");
            assert_eq!(visible(&unasked), visible(&without), "{who} {path}");
        }
    }
    for node in [&off, &on] {
        assert_eq!(openings(node), 0);
        assert_eq!(unreviewed(node).await, json!([]));
    }
}

#[tokio::test]
async fn a_reason_opens_what_is_theirs_and_nothing_else() {
    for first in HERS {
        let node = start().await;
        for path in HERS {
            let refused = nurse(&node, path).send().await;
            assert!([403, 404].contains(&refused.status), "{path}: {}", refused.status);
        }
        urgent(&node, first).send().await.is(200, NOTHING);
        for path in HERS {
            let shown = nurse(&node, path).send().await.is(200, NOTHING);
            assert!(!shown.text().contains("$2b$"), "{path}: a hash");
            assert_ne!(shown.text(), "[]", "{path}");
            node.request("HEAD", path).by("NUR005").send().await.is(200, NOTHING);
        }
        for (path, status) in NOT_HERS {
            nurse(&node, path).send().await.is(*status, NOTHING);
        }
        assert_eq!(openings(&node), 1, "{first}");
    }
}

#[tokio::test]
async fn lists_over_everybody_stay_lists_of_ones_own() {
    let node = start().await;
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    assert_eq!(urgent(&node, "/encounters").send().await.ids(), ["e5"]);
    assert_eq!(urgent(&node, "/people").send().await.ids(), ["NUR005"]);
    urgent(&node, "/events").send().await.is(200, NOTHING).says(json!([]));
    assert_eq!(nurse(&node, "/encounters?person=ANA001").send().await.ids(), ["e1"]);
    // What belongs to nobody is for everyone anyway.
    urgent(&node, "/institutions?person=ANA001").send().await.is(200, NOTHING).says(json!([]));
    let changes = urgent(&node, "/changes").send().await.is(200, NOTHING).json();
    assert_eq!(changes["changes"].as_array().unwrap().len(), 2, "{changes}");
    assert_eq!(openings(&node), 1);
}

#[tokio::test]
async fn a_list_of_one_person_is_for_whoever_may_read_them() {
    let node = start().await;
    assert_eq!(node.get("/encounters?person=ANA001").by("DOC003").send().await.ids(), ["e1"]);
    assert_eq!(node.get("/encounters?person=nur005").by("NUR005").send().await.ids(), ["e5"]);
    for id in ["e6", "e7"] {
        node.record(Kind::Encounter, doc! {"_id": id, "person": "ANA001"}).await;
    }
    let page = node.get("/encounters?person=ANA001&limit=2").by("DOC003").send().await;
    assert_eq!(page.ids(), ["e1", "e6"]);
    let link = page.header("link").to_owned();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    assert_eq!(node.get(next).by("DOC003").send().await.ids(), ["e7"]);
}

#[tokio::test]
async fn only_a_role_that_says_so_opens_and_only_what_is_not_open_anyway() {
    let node = start().await;
    for who in ["CLE006", "BOB002"] {
        node.get("/people/ANA001").by(who).header(HEADER, REASON).send().await.is(403, NOTHING);
        node.get("/pols/ANA001/p1").by(who).header(HEADER, REASON).send().await.is(403, NOTHING);
    }
    node.get("/encounters/e1").by("CLE006").header(HEADER, REASON).send().await.is(404, NOTHING);
    node.get("/people/ANA001").by("DOC003").header(HEADER, REASON).send().await.is(200, NOTHING);
    node.get("/people/ANA001").by_operator().header(HEADER, REASON).send().await.is(403, NOTHING);
    urgent(&node, "/people/NUR005").send().await.is(200, NOTHING);
    // Not even a bad reason matters where none is needed.
    nurse(&node, "/people/NUR005").header(HEADER, "x").send().await.is(200, NOTHING);
    // Kinds that the role does not name, and other verbs.
    for (path, status) in
        NOT_HERS.iter().filter(|(path, _)| !path.contains("BOB002") && !path.contains("/e2"))
    {
        urgent(&node, path).send().await.is(*status, NOTHING);
    }
    assert_eq!(openings(&node), 0);
    // A technician has no records of their own, and may have a role like anybody.
    let tess = json!({"roles": ["nurse"], "password": PASSWORD, "local": true});
    node.post("/users/tess@local", tess).by_operator().send().await.is(201, NOTHING);
    let call = || node.get("/people/ANA001").by("tess@local");
    call().send().await.is(403, NOTHING);
    call().header(HEADER, REASON).send().await.is(200, NOTHING);
    call().send().await.is(200, NOTHING);
    nurse(&node, "/people/ANA001").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn a_reason_must_be_one() {
    let node = start().await;
    let before = trail(node.node.store.unguarded()).len();
    for bad in [&b""[..], b"123456789", b"         x         ", b"tab\tin the middle", b"lines%0aof caf\xe9"]
    {
        let call = nurse(&node, "/people/ANA001").raw_header(HEADER, bad);
        call.send().await.is_invalid("x-emergency-reason");
        // Said before it is known who exists.
        let nobody = nurse(&node, "/people/NOBODY9").raw_header(HEADER, bad);
        nobody.send().await.is_invalid("x-emergency-reason");
    }
    urgent(&node, "/encounters/e1").header(HEADER, REASON).send().await.is_invalid("x-emergency-reason");
    let long = nurse(&node, "/people/ANA001").header(HEADER, &"x".repeat(129));
    long.send().await.is_invalid("x-emergency-reason");
    assert_eq!(openings(&node), 0);
    assert!(!is_open(&node).await);
    node.node.store.flush_notes().await.unwrap();
    let refused = trail(node.node.store.unguarded()).split_off(before);
    assert!(
        told(&refused).contains(&"person:NUR005 denied people/ANA001 GET /people/{person_id}".to_owned())
    );
    assert!(refused.iter().all(|entry| entry.event.verb == "denied"), "{:?}", told(&refused));
    let reason = "¿qué alergias tiene?";
    nurse(&node, "/people/ANA001").header(HEADER, &format!("  {reason} ")).send().await.is(200, NOTHING);
    assert_eq!(unreviewed(&node).await[0]["reason"], reason);
}

#[tokio::test]
async fn nothing_can_be_written_in_an_emergency() {
    let node = start().await;
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    let body = || json!({"id": "p1", "summary": "x"});
    for call in [
        node.patch("/people/ANA001", json!({"phone": "1"})),
        node.patch("/people/ANA001", json!({})),
        node.patch("/pols/ANA001/p1", json!({"summary": "x"})),
        node.put_json("/pols/ANA001/p1", body()),
        node.post("/pols/ANA001/p9", json!({"id": "p9"})),
        node.delete("/pols/ANA001/p1"),
        node.post("/encounters/e9", json!({"person": "ANA001"})),
        node.request("PUT", "/personal-documents/d1/content").header("content-type", "image/png").bytes("x"),
        node.post("/password/ANA001", json!({})),
        node.patch("/personal-documents/d1", json!({"type": "x"})),
    ] {
        let answer = call.by("NUR005").header(HEADER, REASON).send().await;
        assert!([403, 404].contains(&answer.status), "{}: {}", answer.what, answer.text());
        assert_eq!(answer.changes, NOTHING, "{}", answer.what);
    }
}

#[tokio::test]
async fn no_hash_is_shown_whatever_the_role_is_called() {
    let node = start_with(|setup| {
        setup.roles = ROLES.replace("\"root\"", "\"boss\"").replace("\"nurse\"", "\"root\"");
        setup.settings.expose_password_hashes = true;
    })
    .await;
    node.person("ROO007", &["root"]).await;
    let own = node.get("/people/ROO007").by("ROO007").send().await.is(200, NOTHING);
    assert!(own.text().contains("$2b$"), "a legacy peer's root sees hashes");
    for path in ["/people/ANA001", "/people?person=ANA001"] {
        let hers = node.get(path).by("ROO007").header(HEADER, REASON).send().await.is(200, NOTHING);
        assert!(hers.text().contains("Betz") && !hers.text().contains("$2b$"), "{path}");
    }
}

#[tokio::test]
async fn a_page_is_read_through_its_own_book_only() {
    let node = start().await;
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    nurse(&node, "/pols/ANA001/p2").send().await.is(404, NOTHING);
    nurse(&node, "/pols/ANA001/none").send().await.is(404, NOTHING);
    nurse(&node, "/pols/BOB002/p1").send().await.is(403, NOTHING);
    // Who has no record here cannot be opened, nor told from who is not allowed.
    urgent(&node, "/pols/NOBODY9").send().await.is(403, NOTHING);
    assert_eq!(openings(&node), 1);
}

#[tokio::test]
async fn it_ends_after_a_quarter_of_an_hour_whatever_the_clock_on_the_wall_says() {
    let node = start().await;
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    elapse(QUARTER - Duration::from_millis(1));
    // Neither use nor another reason makes it longer, nor does a clock that was set.
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    pass_time(Duration::from_secs(24 * 3600));
    assert!(is_open(&node).await, "the clock was set forward");
    assert_eq!(openings(&node), 1);
    elapse(Duration::from_millis(1));
    assert!(!is_open(&node).await);
    nurse(&node, "/encounters/e1").send().await.is(404, NOTHING);
    nurse(&node, "/personal-documents/d1/content").send().await.is(404, NOTHING);
    assert!(!is_open(&node).await, "and stays closed");
    // A reason opens anew.
    urgent(&node, "/encounters/e1").send().await.is(200, NOTHING);
    assert!(is_open(&node).await);
    assert_eq!(openings(&node), 2);
}

#[tokio::test]
async fn a_change_of_the_account_ends_it_at_once() {
    let node = start().await;
    let open = async || {
        urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
        assert!(is_open(&node).await);
    };
    let by_root = async |body: Value| {
        node.patch("/people/NUR005", body).by("ROOT004").send().await.is(200, &["update people/NUR005"]);
    };
    open().await;
    by_root(json!({"phone": "1"})).await;
    assert!(is_open(&node).await, "the telephone does not matter");
    by_root(json!({"active": false})).await;
    by_root(json!({"active": true})).await;
    assert!(!is_open(&node).await);
    open().await;
    by_root(json!({"roles": ["end_user"]})).await;
    by_root(json!({"roles": ["end_user", "nurse"]})).await;
    assert!(!is_open(&node).await);
    open().await;
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    by_root(json!({"password": hash})).await;
    assert!(!is_open(&node).await);
    open().await;
    // Granted once more, without a change of the record.
    node.post("/users/NUR005", json!({"roles": ["end_user", "nurse"]}))
        .by_operator()
        .send()
        .await
        .is(200, NOTHING);
    assert!(!is_open(&node).await);
    open().await;
    // What was opened of somebody who goes away is not what the next one under the account is.
    node.restore(Kind::Person, "ANA001", None).await;
    node.restore(Kind::Person, "ANA001", Some(person("ANA001", &["end_user"]))).await;
    assert!(!is_open(&node).await);
    open().await;
    let rules = Acl::parse(&ROLES.replace("\"emergency\": true", "\"emergency\": false")).unwrap().0;
    node.node.replace_rules(rules).await.unwrap();
    assert!(!is_open(&node).await, "the rules are read anew");
    // With rules that allow it again it does not come back, also if nobody asked meanwhile.
    let allowing = || Acl::parse(ROLES).unwrap().0;
    node.node.replace_rules(allowing()).await.unwrap();
    assert!(!is_open(&node).await, "the rules were put back");
    open().await;
    let ended = || {
        trail(node.node.store.unguarded()).iter().filter(|entry| entry.event.verb == "emergency_end").count()
    };
    let before = ended();
    let rules = Acl::parse(&ROLES.replace("\"emergency\": true", "\"emergency\": false")).unwrap().0;
    node.node.replace_rules(rules).await.unwrap();
    assert_eq!(ended(), before + 1);
    node.node.replace_rules(allowing()).await.unwrap();
    assert!(!is_open(&node).await, "the rules were put back unseen");
    let rows = node.node.store.read().unwrap().emergencies().unwrap();
    assert!(rows.iter().all(|row| row.is_ended));
    // Rules that are read again and say the same are the same.
    open().await;
    node.node.replace_rules(allowing()).await.unwrap();
    assert!(is_open(&node).await);
}

/// A large record has to wait until there is memory for its text.
#[tokio::test]
async fn it_may_end_while_its_reader_waits_for_memory() {
    let node = start().await;
    node.from_centre(Kind::Page, doc! {"_id": "large", "book": "ANA001", "scan": "x".repeat(300_000)}).await;
    urgent(&node, "/pols/ANA001/large").send().await.is(200, NOTHING);
    let everything = thalamus_edge::http::all_work().expect("nobody has any");
    let waits = nurse(&node, "/pols/ANA001/large").send();
    let ends = async {
        tokio::task::yield_now().await;
        elapse(QUARTER);
        drop(everything);
    };
    let (answer, ()) = tokio::join!(waits, ends);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(!answer.text().contains("xxx"));
    urgent(&node, "/pols/ANA001/large").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn a_change_that_comes_from_the_centre_ends_it_too() {
    let node = start_with(|setup| setup.settings.central_roles.push("nurse".to_owned())).await;
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    let mut record = node.stored(Kind::Person, "NUR005").unwrap();
    record.insert("education", "university");
    node.from_centre(Kind::Person, record.clone()).await;
    assert!(is_open(&node).await);
    record.insert("password", bcrypt::hash(PASSWORD, 4).unwrap());
    node.from_centre(Kind::Person, record).await;
    assert!(!is_open(&node).await);
}

#[tokio::test]
async fn a_technicians_account_ends_it_as_well() {
    let node = start().await;
    let tess = || json!({"roles": ["nurse"], "password": PASSWORD, "local": true});
    node.post("/users/tess@local", tess()).by_operator().send().await.is(201, NOTHING);
    let read = |path: &str| node.get(path).by("tess@local");
    read("/people/ANA001").header(HEADER, REASON).send().await.is(200, NOTHING);
    read("/people/ANA001").send().await.is(200, NOTHING);
    node.post("/users/tess@local", tess()).by_operator().send().await.is(200, NOTHING);
    read("/people/ANA001").send().await.is(403, NOTHING);
}

/// The trail knows of it before anybody sees anything, and names the reads.
#[tokio::test]
async fn the_trail_has_it_before_the_answer() {
    let node = start().await;
    let store = node.node.store.unguarded();
    store.flush_notes().await.unwrap();
    let before = trail(store).len();
    let from = std::net::IpAddr::from([192, 0, 2, 77]);
    urgent(&node, "/encounters/e1").from(from).send().await.is(200, NOTHING);
    let new = trail(store).split_off(before);
    let id = new[0].seq;
    assert_eq!(
        told(&new),
        [
            format!("person:NUR005 emergency people/ANA001 {REASON}"),
            format!("person:NUR005 read encounter/e1 emergency {id}"),
        ]
    );
    for entry in &new {
        assert_eq!((entry.event.owner.as_str(), entry.event.peer.as_str()), ("ANA001", "192.0.2.77"));
    }
    let tag = nurse(&node, "/people/ANA001").send().await.header("etag").to_owned();
    nurse(&node, "/people/ANA001").header("if-none-match", &tag).send().await.is(304, NOTHING);
    nurse(&node, "/encounters?person=ANA001").send().await.is(200, NOTHING);
    let content = nurse(&node, "/personal-documents/d1/content").header("range", "bytes=3-").send().await;
    assert_eq!((content.status, &content.body[..]), (206, &BYTES[3..]));
    let now = trail(store).split_off(before + 2);
    assert_eq!(
        told(&now),
        [
            format!("person:NUR005 read people/ANA001 emergency {id}"),
            format!("person:NUR005 list encounter/ emergency {id}"),
            format!("person:NUR005 read personal_document/d1 emergency {id}"),
        ]
    );
    // Repeats are counted as others are, and a read that is no emergency is not called one.
    pass_time(Duration::from_secs(61));
    nurse(&node, "/people/NUR005").send().await.is(200, NOTHING);
    store.flush_notes().await.unwrap();
    let later = trail(store).split_off(before + 5);
    assert_eq!(
        told(&later),
        [
            format!("person:NUR005 read people/ANA001 emergency {id}"),
            "person:NUR005 read people/NUR005 ".to_owned()
        ]
    );
}

#[tokio::test]
async fn people_see_who_has_opened_their_record_and_why() {
    let node = start().await;
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    let id = unreviewed(&node).await[0]["id"].as_u64().unwrap();
    elapse(QUARTER);
    node.post(&format!("/emergencies/{id}/review"), json!({})).by("ROOT004").send().await.is(204, NOTHING);
    let own = node.get("/audit?person=ANA001&limit=3").by("ANA001").send().await.is(200, NOTHING).json();
    let lines: Vec<String> = own["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| format!("{} {} {}", e["who"], e["verb"], e["detail"]).replace('"', ""))
        .collect();
    assert_eq!(
        lines,
        [
            format!("person:ROOT004 review emergency {id}"),
            format!("person:NUR005 read emergency {id}"),
            format!("person:NUR005 emergency {REASON}"),
        ]
    );
    node.get("/audit?person=ANA001").by("BOB002").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn it_stays_an_open_item_until_somebody_answers_for_it() {
    let node = start().await;
    let status = |who: &'static str| node.get("/sync/status").by(who).send();
    status("ROOT004").await.has(json!({"emergencies_unreviewed": 0, "emergencies": []}));
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    let items = unreviewed(&node).await;
    let id = items[0]["id"].as_u64().unwrap();
    let item = json!({
        "id": id, "who": "person:NUR005", "person": "ANA001", "reason": REASON, "peer": "192.0.2.1",
        "at": "2026-11-23T01:28:52Z", "open": true,
    });
    assert_eq!(items, json!([item]));
    status("ROOT004").await.has(json!({"emergencies_unreviewed": 1, "emergencies": [item]}));
    node.get("/sync/status").by_operator().send().await.has(json!({"emergencies": [item]}));
    // Others see how many there are, and nothing else.
    let counted = status("NUR005").await.is(200, NOTHING).has(json!({"emergencies_unreviewed": 1}));
    assert!(!counted.text().contains("ANA001") && counted.json()["emergencies"].is_null());

    let review = |id: &str| node.post(&format!("/emergencies/{id}/review"), json!({}));
    let path = id.to_string();
    for who in ["NUR005", "ANA001", "DOC003"] {
        review(&path).by(who).send().await.is(403, NOTHING);
    }
    // What is read after the review would go unseen.
    let early = review(&path).by("ROOT004").send().await.is(409, NOTHING);
    assert_eq!(early.json()["current"], item);
    assert!(is_open(&node).await);
    elapse(QUARTER);
    assert_eq!(unreviewed(&node).await[0]["open"], false);
    review(&path).by("ROOT004").send().await.is(204, NOTHING);
    let last = told(&trail(node.node.store.unguarded())).pop().unwrap();
    assert_eq!(last, format!("person:ROOT004 review people/ANA001 emergency {id}"));
    assert_eq!(unreviewed(&node).await, json!([]));
    status("ROOT004").await.has(json!({"emergencies_unreviewed": 0}));
    for gone in [&path, "0", "x", "-1", "99999999999999999999999"] {
        review(gone).by("ROOT004").send().await.is(404, NOTHING);
    }
    // A change of the account ends it too, so it can be reviewed at once; also by the operator.
    urgent(&node, "/people/BOB002").send().await.is(200, NOTHING);
    node.patch("/people/NUR005", json!({"active": false})).by("ROOT004").send().await;
    let id = unreviewed(&node).await[0]["id"].to_string();
    review(&id).by_operator().send().await.is(204, NOTHING);
    node.patch("/people/NUR005", json!({"active": true})).by("ROOT004").send().await;
    nurse(&node, "/people/BOB002").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn a_restart_ends_it_and_keeps_the_open_item() {
    let disk = Disk::default();
    let node = start_with(|setup| setup.disk = Some(disk.clone())).await;
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    drop(node);
    let node = TestNode::start_with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.settings.emergency_access = true;
        setup.disk = Some(disk);
    });
    assert!(!is_open(&node).await);
    let items = unreviewed(&node).await;
    assert_eq!((&items[0]["reason"], &items[0]["open"]), (&json!(REASON), &json!(false)), "{items}");
    let path = format!("/emergencies/{}/review", items[0]["id"]);
    node.post(&path, json!({})).by("ROOT004").send().await.is(204, NOTHING);
    assert_eq!(unreviewed(&node).await, json!([]));
}

/// What cannot be written down is not shown.
#[tokio::test]
async fn without_the_trail_there_is_no_access() {
    let disk = Disk::default();
    let node = start_with(|setup| setup.disk = Some(disk.clone())).await;
    nurse(&node, "/people/NUR005").send().await.is(200, NOTHING);
    disk.set_full(true);
    let (status, body) = bare(urgent(&node, "/people/ANA001")).await;
    assert!(status >= 500 && !body.contains("Betz"), "{status}: {body}");
    drop(node);
    for path in ["/pols/ANA001/p1", "/encounters?person=ANA001", "/personal-documents/d1/content"] {
        disk.set_full(false);
        let node = TestNode::start_with(|setup| {
            setup.roles = ROLES.to_owned();
            setup.settings.emergency_access = true;
            setup.disk = Some(disk.clone());
        });
        let before = openings(&node);
        urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
        // What was refused has left nothing; now the opening is there, and reading something else cannot be written.
        assert_eq!(openings(&node), before + 1);
        disk.set_full(true);
        let (status, body) = bare(nurse(&node, path)).await;
        assert!(status >= 500, "{path}: {status}: {body}");
        assert!(!body.contains("allergic") && body.as_bytes() != BYTES, "{path}: {body}");
    }
}

/// The status and the body of an answer, without a look into the store, which may have failed.
async fn bare(call: Call<'_>) -> (u16, String) {
    let (head, body) = call.open().await.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn requests_at_once_share_an_opening() {
    let node = start().await;
    let calls = HERS.iter().map(|path| urgent(&node, path).send());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200, "{}", answer.what);
    }
    assert_eq!(openings(&node), 1);
}

#[tokio::test]
async fn too_many_wait_for_somebody_to_look_at_them() {
    let node = start().await;
    for n in 0..UNREVIEWED_EACH_MAX {
        let id = format!("PAT{n}");
        node.record(Kind::Person, doc! {"_id": &id, "name": "Eva"}).await;
        urgent(&node, &format!("/people/{id}")).send().await.is(200, NOTHING);
    }
    let refused = urgent(&node, "/people/ANA001").send().await.is(403, NOTHING);
    assert_eq!(refused.json()["code"], "emergencies_unreviewed");
    assert!(!is_open(&node).await);
    nurse(&node, "/people/PAT0").send().await.is(200, NOTHING);
    // Others are not held up.
    node.person("NUR008", &["nurse"]).await;
    node.get("/people/ANA001").by("NUR008").header(HEADER, REASON).send().await.is(200, NOTHING);
    elapse(QUARTER);
    let first = unreviewed(&node).await[0]["id"].to_string();
    node.post(&format!("/emergencies/{first}/review"), json!({})).by("ROOT004").send().await.is(204, NOTHING);
    urgent(&node, "/people/ANA001").send().await.is(200, NOTHING);
    urgent(&node, "/people/BOB002").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn there_is_an_end_to_all_together() {
    let node = start().await;
    let open = |who: usize, count: usize| {
        let asker = Asker {
            who: Actor::Person(format!("NUR{who}")),
            from: None,
            right: Right::Machine,
            charge: Charge::default(),
        };
        let reason = Reason::parse(REASON.as_bytes()).unwrap();
        let work = node.node.store.unguarded().transact(move |tx| -> Result<(), EmergencyError> {
            (0..count).try_for_each(|_| tx.open_emergency("ANA001", &reason).map(drop))
        });
        asked_by(asker, work)
    };
    for who in 0..UNREVIEWED_MAX / UNREVIEWED_EACH_MAX {
        open(who, UNREVIEWED_EACH_MAX).await.unwrap();
    }
    let refused = open(9999, 1).await.unwrap_err();
    assert!(matches!(refused, EmergencyError::Unreviewed), "{refused}");
    urgent(&node, "/people/ANA001").send().await.is(403, NOTHING);
    assert_eq!(unreviewed(&node).await.as_array().unwrap().len(), UNREVIEWED_MAX);
}
