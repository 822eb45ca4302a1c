//! "What the real clients do": their bodies as recorded, on a node as it is shipped.

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::http::CollectionShape;

use crate::support::api::{NOTHING, TestNode};

/// GNU Health HMIS (Tryton, health_federation): preemptive Basic, no Content-Type.
#[tokio::test]
async fn the_hmis_sends_people_and_pages() {
    let node = TestNode::with_people().await;
    let send = |method: &str, path: &str, body: &str| {
        node.request(method, path).by("DOC003").bytes(body.to_owned()).send()
    };
    let person = r#"{"creation_info": {"user": "DOC003", "timestamp": "2026-11-23 01:28:52.383411", "node": "Clinic"},
        "name": "Ana", "lastname": "Betz", "dob": "1985-12-10", "gender": "f", "id": "ESPXYZ777ORG"}"#;
    let made = send("POST", "/people/ESPXYZ777ORG", person).await.is(201, &["create people/ESPXYZ777ORG"]);
    made.has(json!({"dob": "1985-12-10", "gender": "f", "roles": ["end_user"],
        "creation_info": {"user": "DOC003", "timestamp": "2026-11-23 01:28:52.383411", "node": "Clinic"}}));
    assert!(!node.stored(Kind::Person, "ESPXYZ777ORG").unwrap().contains_key("active"));
    // The queue sends it again when the answer was lost.
    send("POST", "/people/ESPXYZ777ORG", person).await.is(200, NOTHING);
    let change = r#"{"modification_info": {"user": "DOC003", "timestamp": "2026-11-23 02:00:00.000001", "node": "Clinic"},
        "lastname": "Betz Cordara"}"#;
    let changed =
        send("PATCH", "/people/ESPXYZ777ORG", change).await.is(200, &["update people/ESPXYZ777ORG"]);
    changed.has(json!({"lastname": "Betz Cordara", "name": "Ana"}));
    let id = "55c1d0d8-9d2c-4f7e-bd8a-2c4ee2a1f5d1";
    let page = format!(
        "{{\"id\": \"{id}\", \"book\": \"ESPXYZ777ORG\", \"page_date\": \"2026-11-23 01:28:52\", \
         \"age\": \"40y\u{200b} 11m\u{200b} 13d\", \"page_type\": \"medical\", \"relevance\": \"important\", \
         \"medical_context\": \"health_condition\", \"summary\": \"Malaria\", \"info\": \"Fever\\nfor 3 days\", \
         \"node\": \"Clinic\", \"author\": \"Cordara, Cameron\", \"author_acct\": null, \"health_condition\": \"B54\", \
         \"measurements\": \"{{'bp': '120/80'}}\", \"fsynced\": false}}"
    );
    let path = format!("/pols/ESPXYZ777ORG/{id}");
    let made = send("POST", &path, &page).await.is(201, &[format!("create pols/{id}").as_str()]);
    made.has(json!({"age": "40y\u{200b} 11m\u{200b} 13d", "measurements": "{'bp': '120/80'}"}));
    send("POST", &path, &page).await.is(200, NOTHING);
    let change =
        r#"{"modification_info": {"user": "DOC003", "timestamp": "x", "node": "Clinic"}, "info": "Better"}"#;
    send("PATCH", &path, change).await.is(200, &[format!("update pols/{id}").as_str()]);
    // A refused entry stays in its queue and is tried again: the same answer each time.
    for _ in 0..3 {
        send("POST", "/pols/NOBODY9/p1", r#"{"id": "p1", "book": "NOBODY9"}"#).await.is(404, NOTHING);
    }
}

#[tokio::test]
async fn mygnuhealth_writes_into_its_own_book() {
    let node = TestNode::with_people().await;
    node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING).has(json!({"id": "ANA001"}));
    let id = "e5a3c9ce-14b7-4d08-9c0b-7d1a5a5ce4d3";
    let page = json!({
        "domain": "medical", "context": "self_monitoring", "genetic_info": "", "privacy": 0, "fsynced": 1,
        "measurements": [{"bp": {"systolic": 120, "diastolic": 80}}, {"hr": {"heart_rate": 61}}, {"wt": {"weight": 61.5}}],
        "page": id, "page_date": "2026-11-23T01:28:52.383411", "book": "ANA001", "author": "ANA001",
        "creation_info": {"user": "ANA001", "timestamp": "2026-11-23T01:28:52", "node": "mygnuhealth"}, "id": id});
    let path = format!("/pols/ANA001/{id}");
    let call = || node.post(&path, page.clone()).by("ANA001").header("content-type", "application/json");
    let made = call().send().await.is(201, &[format!("create pols/{id}").as_str()]);
    made.has(json!({"measurements": page["measurements"], "privacy": 0, "page": id}));
    call().send().await.is(200, NOTHING);
    assert_eq!(node.get("/pols/ANA001").by("ANA001").send().await.ids(), [id]);
    // Not into another's, and not under another's name.
    node.post(&format!("/pols/BOB002/{id}"), page.clone()).by("ANA001").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn the_portal_signs_people_up() {
    const PORTAL: &str = "http://localhost:8080";
    let node = TestNode::start_with(|setup| {
        setup.settings.cors_allowed_origins = vec![PORTAL.to_owned()];
        setup.settings.collection_shape = CollectionShape::Rows;
    });
    node.people().await;
    for (path, method) in [("/login", "GET"), ("/people", "GET"), ("/people/ESPNEW001ORG", "POST")] {
        let preflight = node.request("OPTIONS", path).header("origin", PORTAL);
        let preflight = preflight
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "authorization,content-type")
            .header("sec-fetch-mode", "cors")
            .header("sec-fetch-site", "cross-site");
        let answer = preflight.send().await.is(204, NOTHING);
        assert_eq!(answer.header("access-control-allow-origin"), PORTAL);
        assert!(answer.header("access-control-allow-methods").contains(method));
        assert!(answer.header("access-control-allow-headers").to_lowercase().contains("authorization"));
    }
    let browser = |method: &str, path: &str| {
        let call = node.request(method, path).by("DOC003").header("origin", PORTAL);
        call.header("sec-fetch-site", "cross-site").header("accept", "application/json, text/plain, */*")
    };
    let login = browser("GET", "/login").send().await.is(200, NOTHING).says(json!(true));
    assert_eq!(login.header("access-control-allow-origin"), PORTAL);
    let people = browser("GET", "/people").send().await.is(200, NOTHING).json();
    assert_eq!(people[0][0]["id"], "ANA001");
    let body = json!({"id": "ESPNEW001ORG", "name": "New", "lastname": "Person", "gender": "f", "dob": "1990-01-01",
        "password": "a clear cradle", "roles": ["end_user"], "active": true});
    let made = browser("POST", "/people/ESPNEW001ORG").header("content-type", "application/json").json(&body);
    made.send().await.is(201, &["create people/ESPNEW001ORG"]);
    node.get("/login").login("ESPNEW001ORG", "a clear cradle").send().await.is(200, NOTHING);
}

/// What Thalamus stored stays as the clients know it, unknown fields and odd types included.
#[tokio::test]
async fn records_of_older_servers_are_served() {
    let node = TestNode::with_people().await;
    let dob = bson::DateTime::from_millis(497_279_100_000);
    node.from_centre(Kind::Person, doc! {"_id": "OLD001", "dob": dob, "roles": "root", "active": 1, "id": 7})
        .await;
    let shown = node.get("/people/OLD001").by("DOC003").send().await.is(200, NOTHING);
    shown.says(json!({"_id": "OLD001", "id": "OLD001", "dob": "Fri, 04 Oct 1985 13:05:00 GMT", "roles": "root", "active": 1}));
    node.patch("/people/OLD001", json!({"name": "x"}))
        .by("DOC003")
        .send()
        .await
        .is(200, &["update people/OLD001"]);
}
