//! What GET showed, sent back: id, owner and values in the form in which they were shown change nothing.

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::json::DateFormat;
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::schema::{Owner, SCHEMAS, Schema, Shape};

use crate::support::api::{Answer, NOTHING, TestNode};

/// A record of each kind that belongs to ANA001, if it belongs to somebody.
struct Place {
    schema: &'static Schema,
    path: String,
    id: String,
}

impl Place {
    fn owner_field(&self) -> Option<&'static str> {
        match self.schema.owner {
            Owner::Field(field) => Some(field),
            Owner::Itself | Owner::Nobody => None,
        }
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "id": self.id, "name": "Ñ\u{200b}", "n": 5, "x": 5.0, "none": null, "list": [1, {"b": 2.5, "a": "1985-10-04"}],
            "day": "1985-10-04", "time": "2026-11-23 01:28:52.383411", "deep": {"z": {"y": []}, "a": {}},
        });
        if let Some(field) = self.owner_field() {
            body[field] = json!("ana001");
        }
        body
    }
}

fn places() -> Vec<Place> {
    let places: Vec<Place> = SCHEMAS
        .iter()
        .flat_map(|schema| {
            let items = schema.routes.iter().filter(|r| matches!(r.shape, Shape::Item | Shape::ItemOfPerson));
            items.map(move |route| {
                let id = if schema.kind == Kind::Person { "EVA009" } else { "r-1" };
                let person = if schema.kind == Kind::Person { id } else { "ANA001" };
                let path = route.path.replace("{person_id}", person).replace("{id}", id);
                Place { schema, path, id: id.to_owned() }
            })
        })
        .collect();
    assert_eq!(places.len(), Kind::ALL.len());
    places
}

fn pending(node: &TestNode) -> u64 {
    node.node.store.read().unwrap().pending_count().unwrap()
}

async fn get(node: &TestNode, path: &str) -> Answer {
    node.get(path).by("ROOT004").send().await.is(200, NOTHING)
}

/// Sends the body with each method; nothing changes, and the answer is what GET said.
async fn send_back(node: &TestNode, path: &str, shown: &Answer, methods: &[&str]) {
    let waiting = pending(node);
    for method in methods {
        let answer = node.request(method, path).json(&shown.json()).by("ROOT004").send().await;
        let answer = answer.is(200, NOTHING);
        assert_eq!((answer.header("etag"), &answer.body), (shown.header("etag"), &shown.body), "{method}");
    }
    assert_eq!(pending(node), waiting, "{path}");
}

#[tokio::test]
async fn a_record_of_any_kind_is_created_read_and_sent_back() {
    for dates in [DateFormat::Http, DateFormat::Rfc3339] {
        let node = TestNode::start_with(|setup| setup.settings.date_format = dates);
        node.people().await;
        for place in places() {
            let change = format!("create {}/{}", place.schema.collection, place.id);
            node.post(&place.path, place.body()).by("ROOT004").send().await.is(201, &[&change]);
            let shown = get(&node, &place.path).await;
            send_back(&node, &place.path, &shown, &["PATCH", "PUT", "POST"]).await;
            // And with something new besides.
            let mut more = shown.json();
            more["note"] = json!("more");
            let change = format!("update {}/{}", place.schema.collection, place.id);
            node.patch(&place.path, more.clone()).by("ROOT004").send().await.is(200, &[&change]).says(more);
        }
    }
}

/// A document of the centre with types that JSON does not have, and with a field `id` of its own.
fn legacy(place: &Place) -> Document {
    let mut document = doc! {
        "_id": &place.id, "id": "legacy-7", "date": DateTime::from_millis(497_279_100_123), "long": 1_i64,
        "double": 1.0, "nan": f64::NAN, "oid": ObjectId::from_bytes([7; 12]), "null": Bson::Null,
        "decimal": "1.10".parse::<bson::Decimal128>().unwrap(), "$key": {"with.dot": 1},
        "list": [1_i64, {"z": DateTime::from_millis(0), "a": 1}], "roles": ["end_user"], "active": true,
    };
    if let Some(field) = place.owner_field() {
        document.insert(field, "Ana001");
    }
    document
}

#[tokio::test]
async fn a_record_of_the_centre_keeps_every_byte_and_stays_clean() {
    for dates in [DateFormat::Http, DateFormat::Rfc3339] {
        let node = TestNode::start_with(|setup| setup.settings.date_format = dates);
        node.people().await;
        for place in places() {
            node.from_centre(place.schema.kind, legacy(&place)).await;
            let shown = get(&node, &place.path).await.has(json!({"_id": place.id, "id": place.id}));
            send_back(&node, &place.path, &shown, &["PATCH", "PUT"]).await;
            let stored = node.stored(place.schema.kind, &place.id).unwrap();
            assert_eq!(format!("{stored:?}"), format!("{:?}", legacy(&place)));
            let mut more = shown.json();
            more["note"] = json!("more");
            node.patch(&place.path, more).by("ROOT004").send().await;
            let mut expected = legacy(&place);
            expected.insert("note", "more");
            let stored = node.stored(place.schema.kind, &place.id).unwrap();
            assert_eq!(format!("{stored:?}"), format!("{expected:?}"));
        }
    }
}

#[tokio::test]
async fn another_id_is_refused_by_every_method() {
    let node = TestNode::with_people().await;
    for place in places() {
        let body = |field: &str, id: &Value| {
            let mut body = place.body();
            body[field] = id.clone();
            body
        };
        for is_there in [false, true] {
            if is_there {
                node.post(&place.path, place.body()).by("ROOT004").send().await;
            }
            for method in ["POST", "PUT", "PATCH"].into_iter().filter(|method| is_there || *method != "PATCH")
            {
                for field in ["id", "_id"] {
                    for other in [json!("other"), json!(""), json!(7), json!(null), json!(["r-1"])] {
                        let call = node.request(method, &place.path).json(&body(field, &other));
                        let refused = call.by("ROOT004").send().await.is_invalid(field);
                        assert!(refused.text().contains("ID") || refused.text().contains(field));
                    }
                    // Only accounts are the same in any case.
                    let call =
                        node.request(method, &place.path).json(&body(field, &json!(swapped(&place.id))));
                    let answer = call.by("ROOT004").send().await;
                    if place.schema.kind != Kind::Person {
                        answer.is_invalid(field);
                    } else if is_there {
                        answer.is(200, NOTHING);
                    } else {
                        answer.is(201, &["create people/EVA009"]);
                        node.restore(Kind::Person, "EVA009", None).await;
                    }
                }
            }
        }
    }
}

/// Letters in the other case.
fn swapped(id: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    id.chars().map(swap).collect()
}

#[tokio::test]
async fn an_owner_in_another_case_is_the_same_owner() {
    let node = TestNode::with_people().await;
    for place in places() {
        let Some(field) = place.owner_field() else { continue };
        // As the centre may spell it, and as this node does.
        for stored in ["Ana001", "ANA001"] {
            let document = doc! {"_id": &place.id, field: stored, "n": 1};
            node.from_centre(place.schema.kind, document.clone()).await;
            let waiting = pending(&node);
            for owner in ["ana001", "ANA001", "aNa001"] {
                let body = json!({field: owner, "n": 1, "id": place.id});
                for method in ["PATCH", "PUT", "POST"] {
                    let call = node.request(method, &place.path).json(&body).by("ROOT004");
                    call.send().await.is(200, NOTHING).has(json!({field: stored}));
                }
            }
            assert_eq!(pending(&node), waiting);
            assert_eq!(node.stored(place.schema.kind, &place.id).unwrap(), document);
            for other in [json!("BOB002"), json!(null), json!("ana0012"), json!(1)] {
                let body = json!({field: other, "n": 1, "id": place.id});
                // Null names nobody, and the path may name the person.
                let is_told_by_path = other.is_null() && place.path.contains("ANA001");
                for method in ["PATCH", "PUT"] {
                    let call = node.request(method, &place.path).json(&body).by("ROOT004");
                    let answer = call.send().await;
                    match is_told_by_path {
                        true => answer.is(200, NOTHING).has(json!({field: stored})),
                        false => answer.is_invalid(field),
                    };
                }
            }
        }
    }
}

/// The centre may spell an account otherwise; whoever sends back what was shown means that record.
#[tokio::test]
async fn a_person_in_the_centres_spelling_is_sent_back() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Person, doc! {"_id": "espGNU777org", "name": "Ana", "roles": ["end_user"]}).await;
    let shown = get(&node, "/people/ESPGNU777ORG").await.has(json!({"id": "espGNU777org"}));
    send_back(&node, "/people/ESPGNU777ORG", &shown, &["PATCH", "PUT", "POST"]).await;
    assert_eq!(pending(&node), 4, "the people of this node only");
}

/// The bytes of a document are described by a field that only their upload changes, and that can be sent back.
#[tokio::test]
async fn a_document_with_uploaded_bytes_is_sent_back() {
    let node = TestNode::with_people().await;
    node.post("/personal-documents/d1", json!({"fedacct": "ANA001"})).by("ROOT004").send().await;
    let upload = node.request("PUT", "/personal-documents/d1/content").header("content-type", "text/plain");
    upload.bytes("bytes").by("ROOT004").send().await.is(201, &["update personal_document/d1"]);
    let shown = get(&node, "/personal-documents/d1").await;
    assert_eq!(shown.json()["content"]["length"], 5);
    send_back(&node, "/personal-documents/d1", &shown, &["PATCH", "PUT"]).await;
}

/// Everybody may send back what they may read and change: their own record, too.
#[tokio::test]
async fn a_person_sends_back_their_own_record() {
    let node = TestNode::with_people().await;
    let shown = node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING);
    let answer = node.patch("/people/ana001", shown.json()).by("ANA001").send().await.is(200, NOTHING);
    assert_eq!(answer.body, shown.body);
}

/// What a client writes by the clock of its own zone is stored as the day that it shows, where days are.
#[tokio::test]
async fn a_day_stays_one_and_a_time_stays_one() {
    let node = TestNode::with_people().await;
    let date = |text: &str| DateTime::parse_rfc3339_str(text).unwrap();
    let (day, time) = (date("2020-01-01T00:00:00Z"), date("2020-01-01T09:30:00Z"));
    let person =
        doc! {"_id": "EVA009", "name": "Eva", "dod": time, "created": day, "seen": time, "shots": [day]};
    node.record(Kind::Person, person).await;
    let patch = async |body: Value| {
        node.patch("/people/EVA009", body).by("ROOT004").send().await.is(200, &["update people/EVA009"]);
    };
    patch(json!({"created": null, "seen": null})).await;
    let new = "2026-02-01T00:00:00+02:00";
    patch(json!({
        "dod": "2026-02-01T21:00:00-05:00", "created": new, "seen": new, "shots": ["2020-01-01T00:00:00Z", new],
    }))
    .await;
    let stored = node.stored(Kind::Person, "EVA009").unwrap();
    let (new_day, new_time) = (date("2026-02-01T00:00:00Z"), date("2026-01-31T22:00:00Z"));
    assert_eq!(stored.get("dod"), Some(&date("2026-02-02T02:00:00Z").into()));
    assert_eq!(stored.get("created"), Some(&new_day.into()));
    assert_eq!(stored.get("seen"), Some(&new_time.into()));
    assert_eq!(stored.get("shots"), Some(&vec![day, new_day].into()));
}
