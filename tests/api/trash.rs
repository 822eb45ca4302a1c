//! The trash: deleted records are listed, shown and put back, for those who could read them.

use bson::{Document, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::audit::{Entry, Event};
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::store::{AuditQuery, Base, Hold, HoldReason, StoreError, Tx};

use crate::support::api::{Answer, NOTHING, Setup, TestNode, pass_time, person};

const AT: &str = "2026-11-23T01:28:52Z";

fn with_roles(setup: &mut Setup) {
    setup.add_roles(
        r#"{"role": "archivist", "permissions": {"GET": ["trash", "person", "page", "institution"],
              "POST": ["trash", "person", "page", "institution"], "global": true}},
             {"role": "viewer", "permissions": {"GET": ["trash", "page"], "global": true}},
             {"role": "keeper", "permissions": {"GET": ["trash", "page", "institution"], "POST": ["trash", "page"]}},
             {"role": "reader", "permissions": {"GET": ["page"], "POST": ["page"], "global": true}},
             {"role": "clerk", "permissions": {"GET": ["trash"], "POST": ["trash"], "global": true}}"#,
    );
}

async fn start() -> TestNode {
    let node = TestNode::start_with(with_roles);
    node.people().await;
    for (id, role) in
        [("ARC005", "archivist"), ("VIE006", "viewer"), ("KEE007", "keeper"), ("CLE008", "clerk")]
    {
        node.person(id, &[role]).await;
    }
    node
}

fn page(id: &str, book: &str) -> Document {
    doc! {"_id": id, "book": book, "info": "text"}
}

async fn listed(node: &TestNode, who: &str, query: &str) -> Vec<Value> {
    let list = node.get(&format!("/trash{query}")).by(who).send().await.is(200, NOTHING).json();
    list.as_array().unwrap().clone()
}

/// `collection/record` of each row.
fn names(rows: &[Value]) -> Vec<String> {
    let name =
        |row: &Value| format!("{}/{}", row["collection"].as_str().unwrap(), row["record"].as_str().unwrap());
    rows.iter().map(name).collect()
}

/// The number of the newest row of a record.
async fn row_of(node: &TestNode, record: &str) -> u64 {
    let rows = node.get("/trash?limit=1000").by_operator().send().await.json();
    let row = rows.as_array().unwrap().iter().find(|row| row["record"] == record);
    row.unwrap_or_else(|| panic!("{record} is not in {rows}"))["id"].as_u64().unwrap()
}

async fn restore(node: &TestNode, who: &str, row: u64) -> Answer {
    node.post(&format!("/trash/{row}/restore"), json!({})).by(who).send().await
}

async fn job(node: &TestNode, job: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static) {
    node.node.store.unguarded().transact(move |tx| job(tx)).await.unwrap();
}

/// What the store says of a record's state towards the centre: its base, and whether it waits.
fn base_of(node: &TestNode, kind: Kind, id: &str) -> (Option<Base>, u64) {
    let snapshot = node.node.store.read().unwrap();
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
    (snapshot.base(&RecordKey::new(kind, id)).unwrap(), snapshot.pending_count().unwrap())
}

#[tokio::test]
async fn a_deleted_record_is_listed_shown_and_put_back() {
    let node = start().await;
    let body = json!({"id": "p1", "info": "text", "n": 5});
    node.post("/pols/ANA001/p1", body).by("DOC003").send().await.is(201, &["create pols/p1"]);
    let before = node.get("/pols/ANA001/p1").by("ROOT004").send().await;
    node.delete("/pols/ana001/p1").by("ROOT004").send().await.is(204, &["delete pols/p1"]);
    let row = row_of(&node, "p1").await;
    let summary = json!({
        "id": row, "collection": "pols", "record": "p1", "owner": "ANA001", "state": "done",
        "deleted_by": "person:ROOT004", "deleted_at": AT,
    });
    assert_eq!(json!(listed(&node, "ROOT004", "").await), json!([summary]));
    let mut shown = summary.clone();
    shown["document"] = json!({"_id": "p1", "book": "ANA001", "info": "text", "n": 5});
    node.get(&format!("/trash/{row}")).by("ROOT004").send().await.is(200, NOTHING).says(shown);
    let restored = restore(&node, "ROOT004", row).await.is(201, &["create pols/p1"]).says(summary.clone());
    assert_eq!(restored.header("location"), "/pols/ANA001/p1");
    let after = node.get("/pols/ANA001/p1").by("ROOT004").send().await.is(200, NOTHING);
    assert_eq!((after.header("etag"), &after.body), (before.header("etag"), &before.body));
    // A record of its own again, that travels.
    assert_eq!(base_of(&node, Kind::Page, "p1").0, Some(Base::Absent));
    let again = restore(&node, "ROOT004", row).await.is(409, NOTHING).has(json!({"code": "conflict"}));
    assert!(again.text().contains("pols/p1"), "{}", again.text());
    for missing in ["0", "9999", "x", "-1", "18446744073709551616"] {
        node.get(&format!("/trash/{missing}")).by("ROOT004").send().await.is(404, NOTHING);
        let call = node.post(&format!("/trash/{missing}/restore"), json!({})).by("ROOT004");
        call.send().await.is(404, NOTHING).has(json!({"error": "There is no such record in the trash"}));
    }
}

#[tokio::test]
async fn a_delete_that_the_centre_does_not_know_is_undone() {
    let node = start().await;
    let agreed = page("p1", "ANA001");
    node.from_centre(Kind::Page, agreed.clone()).await;
    let waiting = base_of(&node, Kind::Page, "p1").1;
    node.delete("/pols/ANA001/p1").by("ROOT004").send().await.is(204, &["delete pols/p1"]);
    let row = row_of(&node, "p1").await;
    let state = async || listed(&node, "ROOT004", "").await[0]["state"].clone();
    assert_eq!(state().await, "pending");
    restore(&node, "ROOT004", row).await.is(201, &["create pols/p1"]).has(json!({"state": "void"}));
    assert_eq!((node.stored(Kind::Page, "p1"), state().await), (Some(agreed.clone()), json!("void")));
    assert_eq!(base_of(&node, Kind::Page, "p1"), (None, waiting), "clean, as before");
    // Edited before it was deleted: the edit is still to be sent.
    node.patch("/pols/ANA001/p1", json!({"info": "new"})).by("ROOT004").send().await;
    node.delete("/pols/ANA001/p1").by("ROOT004").send().await;
    restore(&node, "ROOT004", row_of(&node, "p1").await).await.is(201, &["create pols/p1"]);
    assert_eq!(base_of(&node, Kind::Page, "p1"), (Some(Base::Document(agreed.clone())), waiting + 1));
    assert_eq!(node.stored(Kind::Page, "p1").unwrap().get_str("info").unwrap(), "new");
    // An older body over a delete that waits: an edit of what the centre has.
    node.delete("/pols/ANA001/p1").by("ROOT004").send().await;
    restore(&node, "ROOT004", row).await.is(201, &["create pols/p1"]);
    assert_eq!((node.stored(Kind::Page, "p1"), base_of(&node, Kind::Page, "p1").0), (Some(agreed), None));
    assert!(listed(&node, "ROOT004", "").await.iter().all(|row| row["state"] == "void"));
}

#[tokio::test]
async fn what_the_centre_deleted_is_there_and_travels_back() {
    let (node, sim) = TestNode::with_centre(with_roles).await;
    sim.put(Kind::Institution, doc! {"_id": "Posta nº 1", "name": "Posta"});
    round(&node).await;
    sim.remove(Kind::Institution, "Posta nº 1");
    round(&node).await;
    assert_eq!(node.stored(Kind::Institution, "Posta nº 1"), None);
    let row = row_of(&node, "Posta nº 1").await;
    let shown = node.get(&format!("/trash/{row}")).by("ROOT004").send().await.is(200, NOTHING);
    shown.says(json!({
        "id": row, "collection": "institution", "record": "Posta nº 1", "owner": null, "state": "done",
        "deleted_by": "centre", "deleted_at": AT, "document": {"_id": "Posta nº 1", "name": "Posta"},
    }));
    let restored = restore(&node, "ROOT004", row).await.is(201, &["create institution/Posta nº 1"]);
    assert_eq!(restored.header("location"), "/institutions/Posta%20n%C2%BA%201");
    round(&node).await;
    assert_eq!(sim.get(Kind::Institution, "Posta nº 1").unwrap().get_str("name").unwrap(), "Posta");
}

async fn round(node: &TestNode) {
    let report = node.post("/sync/rounds", json!({})).by_operator().send().await.json();
    assert_eq!(report["outcome"], "complete", "{report}");
}

#[tokio::test]
async fn a_person_comes_back_as_they_were_without_granted_roles() {
    let node = start().await;
    node.person("EVA009", &["root", "end_user"]).await;
    node.patch("/people/EVA009", json!({"active": false})).by("ROOT004").send().await;
    node.delete("/people/EVA009").by("ROOT004").send().await.is(204, &["delete people/EVA009"]);
    let row = row_of(&node, "EVA009").await;
    let shown = node.get(&format!("/trash/{row}")).by("ROOT004").send().await.is(200, NOTHING);
    assert!(!shown.text().contains("$2") && !shown.text().contains("password"), "{}", shown.text());
    assert_eq!(shown.json()["document"]["roles"], json!(["root", "end_user"]));
    restore(&node, "ROOT004", row).await.is(201, &["create people/EVA009"]);
    let mut expected = person("EVA009", &["root", "end_user"]);
    expected.insert("active", false);
    assert_eq!(node.stored(Kind::Person, "EVA009"), Some(expected));
    node.get("/login").by("EVA009").send().await.is(401, NOTHING);
    node.post("/users/EVA009/active", json!({"active": true})).by_operator().send().await;
    node.get("/login").by("EVA009").send().await.is(200, NOTHING);
    node.get("/users").by("EVA009").send().await.is(403, NOTHING);
    let users = node.get("/users").by_operator().send().await.json();
    let eva = users.as_array().unwrap().iter().find(|user| user["id"] == "EVA009").unwrap();
    assert_eq!((&eva["roles"], &eva["not_honoured"]), (&json!(["end_user"]), &json!(["root"])));
}

/// Roles that were granted here were never taken back when it was the centre that deleted the person.
#[tokio::test]
async fn a_person_whom_the_centre_deleted_comes_back_without_granted_roles() {
    let node = start().await;
    node.person("EVA009", &["root"]).await;
    job(&node, |tx| {
        let key = RecordKey::new(Kind::Person, "EVA009");
        let body = tx.document(&key)?.unwrap();
        tx.discard(&key, &body)?;
        tx.put(&key, None, &Base::Absent, &Actor::Centre)
    })
    .await;
    restore(&node, "ROOT004", row_of(&node, "EVA009").await).await.is(201, &["create people/EVA009"]);
    node.get("/login").by("EVA009").send().await.is(200, NOTHING);
    node.get("/users").by("EVA009").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn a_person_comes_back_only_where_the_account_is_free() {
    let node = start().await;
    node.from_centre(Kind::Person, person("EVA009", &["end_user"])).await;
    node.restore(Kind::Person, "EVA009", None).await;
    let row = row_of(&node, "EVA009").await;
    node.from_centre(Kind::Person, person("Eva009", &["end_user"])).await;
    restore(&node, "ROOT004", row).await.is(409, NOTHING);
    node.restore(Kind::Person, "Eva009", None).await;
    // Somebody else waits under the account.
    job(&node, |tx| {
        let hold = Hold {
            account: "EVA009".to_owned(),
            conflict: "hold-1".to_owned(),
            local: "EVA009".to_owned(),
            remote: "EVA009".to_owned(),
            why: HoldReason::Created,
            gone: None,
            since_ms: 0,
        };
        tx.put_hold(&hold)?;
        tx.put_held(&RecordKey::new(Kind::Page, "p1"), "EVA009", &page("p1", "EVA009")).map(|_| ())
    })
    .await;
    let held = restore(&node, "ROOT004", row).await.is(409, NOTHING);
    held.has(json!({"code": "decision_pending", "conflict": "hold-1"}));
    // And so does a record with the id of a deleted one.
    node.record(Kind::Page, page("p1", "ANA001")).await;
    node.restore(Kind::Page, "p1", None).await;
    let held = restore(&node, "ROOT004", row_of(&node, "p1").await).await.is(409, NOTHING);
    held.has(json!({"code": "decision_pending", "conflict": "hold-1"}));
}

/// As for a page that somebody creates: its person comes first. Other kinds do not ask.
#[tokio::test]
async fn a_page_needs_its_person() {
    let node = start().await;
    for kind in Kind::ALL {
        let Some(field) = owner_field(kind) else { continue };
        if kind == Kind::Page {
            node.person("GON099", &["end_user"]).await;
        }
        node.record(kind, doc! {"_id": "r1", field: "GON099", "n": 1}).await;
        node.restore(kind, "r1", None).await;
        if kind == Kind::Page {
            node.restore(Kind::Person, "GON099", None).await;
        }
        let row = row_of(&node, "r1").await;
        let answer = restore(&node, "ROOT004", row).await;
        if kind == Kind::Page {
            let refused = answer.is_invalid("book");
            assert!(refused.text().contains("GON099 does not exist here; restore that person first"));
            node.person("GON099", &["end_user"]).await;
            restore(&node, "ROOT004", row).await.is(201, &["create pols/r1"]);
        } else {
            answer.is(201, &[format!("create {}/r1", kind.schema().collection).as_str()]);
        }
    }
}

fn owner_field(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Page => Some("book"),
        Kind::PersonalDocument => Some("fedacct"),
        Kind::Encounter | Kind::Event | Kind::Measurement | Kind::Hospitalization => Some("person"),
        Kind::Person | Kind::DomiciliaryUnit | Kind::Institution => None,
    }
}

#[tokio::test]
async fn a_document_comes_back_with_its_bytes() {
    let node = start().await;
    node.post("/personal-documents/d1", json!({"fedacct": "ANA001"})).by("ROOT004").send().await;
    let upload = node.request("PUT", "/personal-documents/d1/content").header("content-type", "text/plain");
    upload.bytes("bytes").by("ROOT004").send().await.is(201, &["update personal_document/d1"]);
    node.delete("/personal-documents/d1").by("ROOT004").send().await;
    restore(&node, "ROOT004", row_of(&node, "d1").await).await.is(201, &["create personal_document/d1"]);
    let content = node.get("/personal-documents/d1/content").by("ROOT004").send().await.is(200, NOTHING);
    assert_eq!(content.text(), "bytes");
}

const DELETED: [(Kind, &str); 5] = [
    (Kind::Page, "own"),
    (Kind::Page, "other"),
    (Kind::Institution, "posta"),
    (Kind::Event, "event"),
    (Kind::Person, "EVA009"),
];

/// Nobody sees a body that they could not have read, and nobody makes what they could not have made.
#[tokio::test]
async fn a_row_is_for_those_who_could_read_the_record() {
    // Who, what they see, and what becomes of their attempts to put each back.
    let cases: [(&str, &[&str], [u16; 5]); 5] = [
        (
            "ROOT004",
            &["people/EVA009", "event/event", "institution/posta", "pols/other", "pols/own"],
            [201; 5],
        ),
        // A body with a password is for root.
        (
            "ARC005",
            &["people/EVA009", "institution/posta", "pols/other", "pols/own"],
            [201, 201, 201, 404, 403],
        ),
        ("VIE006", &["pols/other", "pols/own"], [403; 5]),
        ("KEE007", &["institution/posta", "pols/own"], [201, 404, 403, 404, 404]),
        ("CLE008", &[], [404; 5]),
    ];
    for (who, sees, outcomes) in cases {
        let node = start().await;
        node.record(Kind::Page, page("own", "KEE007")).await;
        node.record(Kind::Page, page("other", "BOB002")).await;
        node.record(Kind::Institution, doc! {"_id": "posta"}).await;
        node.record(Kind::Event, doc! {"_id": "event", "person": "KEE007"}).await;
        node.person("EVA009", &["end_user"]).await;
        for (kind, id) in DELETED {
            node.restore(kind, id, None).await;
        }
        assert_eq!(names(&listed(&node, who, "").await), sees, "{who}");
        for ((kind, id), outcome) in DELETED.into_iter().zip(outcomes) {
            let (row, name) = (row_of(&node, id).await, format!("{}/{id}", kind.schema().collection));
            let shown = node.get(&format!("/trash/{row}")).by(who).send().await;
            if sees.contains(&name.as_str()) {
                assert_eq!(shown.is(200, NOTHING).json()["document"]["_id"], id, "{who} {name}");
            } else {
                shown.is(404, NOTHING).has(json!({"error": "There is no such record in the trash"}));
            }
            let created = format!("create {name}");
            let change: &[&str] = if outcome == 201 { &[&created] } else { NOTHING };
            restore(&node, who, row).await.is(outcome, change);
        }
    }
    let node = start().await;
    for who in ["ANA001", "DOC003"] {
        node.get("/trash").by(who).send().await.is(403, NOTHING);
        node.get("/trash/1").by(who).send().await.is(403, NOTHING);
        restore(&node, who, 1).await.is(403, NOTHING);
    }
}

/// The trash reaches as far as the role that names it, whatever another role lets its owner read.
#[tokio::test]
async fn a_role_for_ones_own_trash_shows_nobody_elses() {
    let node = start().await;
    node.person("TWO010", &["keeper", "reader"]).await;
    for (id, owner) in [("own", "TWO010"), ("other", "BOB002")] {
        node.record(Kind::Page, page(id, owner)).await;
        node.restore(Kind::Page, id, None).await;
    }
    assert_eq!(names(&listed(&node, "TWO010", "").await), ["pols/own"]);
    let row = row_of(&node, "other").await;
    node.get(&format!("/trash/{row}")).by("TWO010").send().await.is(404, NOTHING);
    restore(&node, "TWO010", row).await.is(404, NOTHING);
}

/// Roles are not given by putting somebody back.
#[tokio::test]
async fn only_root_puts_back_a_person_with_more_than_the_least_role() {
    let node = start().await;
    for (id, roles, status) in [("EVA009", "health_professional", 422), ("EVE010", "end_user", 201)] {
        node.record(Kind::Person, doc! {"_id": id, "roles": [roles]}).await;
        node.restore(Kind::Person, id, None).await;
        let created = format!("create people/{id}");
        let change: &[&str] = if status == 201 { &[&created] } else { NOTHING };
        restore(&node, "ARC005", row_of(&node, id).await).await.is(status, change);
    }
    restore(&node, "ROOT004", row_of(&node, "EVA009").await).await.is(201, &["create people/EVA009"]);
}

#[tokio::test]
async fn the_operator_puts_back_what_they_may_not_read() {
    let node = start().await;
    node.record(Kind::Page, page("p1", "ANA001")).await;
    node.delete("/pols/ANA001/p1").by("ROOT004").send().await;
    let row = row_of(&node, "p1").await;
    node.get(&format!("/trash/{row}")).by_operator().send().await.is(200, NOTHING).says(json!({
        "id": row, "collection": "pols", "record": "p1", "owner": "ANA001", "state": "done",
        "deleted_by": "person:ROOT004", "deleted_at": AT,
    }));
    let restored = node.post(&format!("/trash/{row}/restore"), json!({})).by_operator().send().await;
    assert!(!restored.is(201, &["create pols/p1"]).text().contains("text"));
    assert_eq!(node.stored(Kind::Page, "p1"), Some(page("p1", "ANA001")));
}

#[tokio::test]
async fn pages_and_filters() {
    let node = start().await;
    for (kind, id, owner) in [
        (Kind::Page, "p1", "ANA001"),
        (Kind::Event, "e1", "BOB002"),
        (Kind::Page, "p2", "BOB002"),
        (Kind::Institution, "i1", ""),
        (Kind::Event, "e2", "ANA001"),
    ] {
        let mut document = doc! {"_id": id};
        if let Some(field) = owner_field(kind) {
            document.insert(field, owner);
        }
        node.record(kind, document).await;
        node.restore(kind, id, None).await;
    }
    let all = ["event/e2", "institution/i1", "pols/p2", "event/e1", "pols/p1"];
    assert_eq!(names(&listed(&node, "ROOT004", "").await), all);
    for (query, expected) in [
        ("?collection=pols", &["pols/p2", "pols/p1"][..]),
        ("?person=ana001", &["event/e2", "pols/p1"]),
        ("?person=BOB002&collection=event", &["event/e1"]),
        ("?person=nobody", &[]),
        ("?limit=5", &all),
    ] {
        let list = node.get(&format!("/trash{query}")).by("ROOT004").send().await.is(200, NOTHING);
        assert_eq!(names(list.json().as_array().unwrap()), expected, "{query}");
        list.lacks_header("link");
    }
    // Page by page, with each filter.
    for (filter, expected) in [
        ("", &all[..]),
        ("&collection=pols", &["pols/p2", "pols/p1"]),
        ("&collection=event&person=BOB002", &["event/e1"]),
    ] {
        let (mut path, mut found) = (format!("/trash?limit=1{filter}"), Vec::new());
        loop {
            let list = node.get(&path).by("ROOT004").send().await.is(200, NOTHING);
            found.extend(names(list.json().as_array().unwrap()));
            let Some(link) = list.headers.get("link") else { break };
            let link = link.to_str().unwrap();
            path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        }
        assert_eq!(found, expected, "{filter}");
    }
    for (query, field) in [
        ("?limit=0", "limit"),
        ("?limit=x", "limit"),
        ("?after=x", "after"),
        ("?collection=peple", "collection"),
    ] {
        node.get(&format!("/trash{query}")).by("ROOT004").send().await.is_invalid(field);
    }
    // Another's account is refused before anything is looked for.
    node.get("/trash?person=BOB002").by("KEE007").send().await.is(403, NOTHING);
    assert_eq!(listed(&node, "KEE007", "?person=kee007").await, Vec::<Value>::new());
}

#[tokio::test]
async fn everything_is_audited() {
    let node = start().await;
    node.record(Kind::Page, page("p1", "ANA001")).await;
    node.delete("/pols/ANA001/p1").by("ROOT004").send().await;
    let row = row_of(&node, "p1").await;
    pass_time(std::time::Duration::from_secs(61));
    let last = audit(&node, 0).await.last().unwrap().seq;
    node.get("/trash").by("ROOT004").send().await;
    node.get("/trash?person=ana001").by("ROOT004").send().await;
    node.get(&format!("/trash/{row}")).by("ROOT004").send().await;
    node.get(&format!("/trash/{row}")).by_operator().send().await;
    node.get(&format!("/trash/{row}")).by("KEE007").send().await.is(404, NOTHING);
    node.get("/trash").by("ANA001").send().await.is(403, NOTHING);
    node.node.store.flush_notes().await.unwrap();
    restore(&node, "ROOT004", row).await.is(201, &["create pols/p1"]);
    let line = |Entry { event: Event { who, verb, kind, id, owner, outcome, detail, .. }, .. }: &Entry| {
        format!("{who} {verb} {kind}/{id} of {owner}: {outcome} {detail}").trim_end().to_owned()
    };
    let told: Vec<String> = audit(&node, last).await.iter().map(line).collect();
    assert_eq!(
        told,
        [
            "person:ROOT004 list trash/ of *: ok".to_owned(),
            "person:ROOT004 list trash/ of ANA001: ok".to_owned(),
            format!("person:ROOT004 read pols/p1 of ANA001: ok trash {row}"),
            format!("operator:0 read pols/p1 of ANA001: ok trash {row}, without its content"),
            format!("person:KEE007 denied /{row} of : hidden GET /trash/{{id}}"),
            "person:ANA001 denied / of : forbidden GET /trash".to_owned(),
            "person:ROOT004 create pols/p1 of ANA001: ok".to_owned(),
            format!("person:ROOT004 restore_deleted pols/p1 of ANA001: ok trash {row}"),
        ]
    );
}

async fn audit(node: &TestNode, after: u64) -> Vec<Entry> {
    node.node.store.flush_notes().await.unwrap();
    let query = AuditQuery { after: Some(after), limit: usize::MAX, ..AuditQuery::default() };
    let page = node.node.store.read().unwrap().audit(&query).unwrap();
    page.rows.into_iter().map(Result::unwrap).collect()
}

/// Bob's page was deleted here, and the centre has it still: another one under its id would take its place there.
#[tokio::test]
async fn a_record_is_not_made_over_an_unsent_delete_of_another_owner() {
    let node = start().await;
    job(&node, |tx| {
        let key = RecordKey::new(Kind::Page, "p1");
        let bobs = page("p1", "BOB002");
        tx.put(&key, Some(&bobs), &Base::Document(bobs.clone()), &Actor::Centre)?;
        tx.edit(&key, None, &Actor::Operator(0)).map(drop)
    })
    .await;
    let body = json!({"id": "p1", "info": "of Ana"});
    let refused = node.post("/pols/ANA001/p1", body.clone()).by("DOC003").send().await.is(409, NOTHING);
    refused.has(json!({"code": "conflict"}));
    assert_eq!(node.stored(Kind::Page, "p1"), None);
    // His own comes back, as an undone delete.
    restore(&node, "ROOT004", row_of(&node, "p1").await).await.is(201, &["create pols/p1"]);
    assert_eq!(node.stored(Kind::Page, "p1"), Some(page("p1", "BOB002")));
}
