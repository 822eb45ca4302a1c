//! "Identity and shape": ids, spellings, types, dates.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, Regex, Timestamp, doc};
use serde_json::{Value, json};
use thalamus_edge::domain::json::DateFormat;
use thalamus_edge::domain::record::Kind;

use crate::support::api::{NOTHING, TestNode, person};

#[tokio::test]
async fn an_account_is_one_person_in_any_case() {
    let node = TestNode::with_people().await;
    node.get("/people/bob002").by("Ana001").send().await.is(403, NOTHING);
    let made = node.post("/people/newone9", json!({"name": "New"})).by("doc003").send().await;
    let made = made.is(201, &["create people/NEWONE9"]).has(json!({"_id": "NEWONE9", "id": "NEWONE9"}));
    assert_eq!(made.header("location"), "/people/NEWONE9");
    node.get("/people/NewOne9").by("DOC003").send().await.is(200, NOTHING);
    let again = node.post("/people/NEWone9", json!({"name": "Other"})).by("DOC003");
    again.send().await.is(422, NOTHING).has(json!({"error": "User already exists"}));
    let patched = node.patch("/people/newONE9", json!({"name": "Newer"})).by("DOC003").send().await;
    patched.is(200, &["update people/NEWONE9"]);
    let page = json!({"id": "p1", "book": "Newone9"});
    let page = node.post("/pols/newone9/p1", page).by("DOC003").send().await;
    let page = page.is(201, &["create pols/p1"]).has(json!({"book": "NEWONE9"}));
    assert_eq!(page.header("location"), "/pols/NEWONE9/p1");
    assert_eq!(node.get("/pols/nEWONE9").by("DOC003").send().await.ids(), ["p1"]);
    node.put_json("/people/newone9", json!({"name": "N", "active": false})).by("root004").send().await;
    node.delete("/pols/newone9/p1").by("ROOT004").send().await.is(204, &["delete pols/p1"]);
    node.delete("/people/newone9").by("ROOT004").send().await.is(204, &["delete people/NEWONE9"]);
}

#[tokio::test]
async fn the_centres_spelling_is_found_exactly_first_and_by_any_other() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Person, person("espGNU777org", &["end_user"])).await;
    node.get("/people/ESPGNU777ORG")
        .by("DOC003")
        .send()
        .await
        .is(200, NOTHING)
        .has(json!({"_id": "espGNU777org"}));
    // Whoever types it in capitals is that person, everywhere.
    node.get("/people/espGNU777org").by("ESPGNU777ORG").send().await.is(200, NOTHING);
    let changed = node.patch("/people/ESPGNU777ORG", json!({"note": 1})).by("espgnu777ORG").send().await;
    changed.is(200, &["update people/espGNU777org"]);
    node.post("/people/ESPGNU777ORG", json!({})).by("DOC003").send().await.is(422, NOTHING);
    // Both exist at the centre: each is found by its own spelling.
    node.from_centre(Kind::Person, person("ESPGNU777ORG", &["end_user"])).await;
    for spelling in ["espGNU777org", "ESPGNU777ORG"] {
        let path = format!("/people/{spelling}");
        node.get(&path).by("DOC003").send().await.is(200, NOTHING).has(json!({"_id": spelling}));
    }
}

#[tokio::test]
async fn other_ids_are_case_sensitive() {
    let node = TestNode::with_people().await;
    node.post("/institutions/a", json!({"n": 1}))
        .by("DOC003")
        .send()
        .await
        .is(201, &["create institution/a"]);
    node.get("/institutions/A").by("DOC003").send().await.is(404, NOTHING);
    node.post("/institutions/A", json!({"n": 2}))
        .by("DOC003")
        .send()
        .await
        .is(201, &["create institution/A"]);
}

#[tokio::test]
async fn a_body_may_repeat_the_id_of_its_path_and_no_other() {
    let node = TestNode::with_people().await;
    for field in ["id", "_id"] {
        for method in ["POST", "PUT"] {
            let call = |body: Value| node.request(method, "/events/e1").json(&body).by("ROOT004");
            for wrong in [json!("e2"), json!("E1"), json!(1), json!(null), json!({"$oid": "x"})] {
                let body = json!({"person": "ANA001", field: wrong});
                call(body).send().await.is_invalid(field);
            }
            let made = call(json!({"person": "ANA001", field: "e1"})).send().await;
            assert!(made.status < 300, "{}", made.text());
            assert_eq!(node.stored(Kind::Event, "e1").unwrap(), doc! {"_id": "e1", "person": "ANA001"});
        }
        node.delete("/events/e1").by("ROOT004").send().await.is(204, &["delete event/e1"]);
    }
    // An account in the body may be written in any case.
    let body = json!({"id": "new001", "_id": "New001"});
    node.post("/people/NEW001", body).by("DOC003").send().await.is(201, &["create people/NEW001"]);
}

#[tokio::test]
async fn a_stored_id_field_is_not_shown_and_not_changed() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Event, doc! {"_id": "e1", "id": "legacy", "person": "ANA001", "n": 1}).await;
    let shown = node.get("/events/e1").by("ROOT004").send().await;
    let shown = shown.is(200, NOTHING).says(json!({"_id": "e1", "id": "e1", "n": 1, "person": "ANA001"}));
    node.put_json("/events/e1", shown.json()).by("ROOT004").send().await.is(200, NOTHING);
    node.patch("/events/e1", json!({"n": 2})).by("ROOT004").send().await.is(200, &["update event/e1"]);
    let stored = doc! {"_id": "e1", "id": "legacy", "person": "ANA001", "n": 2};
    assert_eq!(node.stored(Kind::Event, "e1").unwrap(), stored);
}

#[tokio::test]
async fn keys_are_sorted_and_collections_ordered_by_id() {
    let node = TestNode::with_people().await;
    for id in ["b", "B", "a:1", "_", "0", "a"] {
        let made = node.post(&format!("/institutions/{id}"), json!({"z": 1, "a": {"y": 1, "b": 2}, "k": 0}));
        made.by("DOC003").send().await.is(201, &[format!("create institution/{id}").as_str()]);
    }
    let list = node.get("/institutions").by("DOC003").send().await.is(200, NOTHING);
    assert_eq!(list.ids(), ["0", "B", "_", "a", "a:1", "b"]);
    let one = node.get("/institutions/a").by("DOC003").send().await;
    assert_eq!(one.text(), r#"{"_id":"a","a":{"b":2,"y":1},"id":"a","k":0,"z":1}"#);
}

#[tokio::test]
async fn new_ids_have_an_alphabet_and_a_length() {
    let node = TestNode::with_people().await;
    let long = "A".repeat(33);
    for bad in ["AB", "A-B", "A%20B", "A_B", "%C3%91ANDU", "<script>", long.as_str()] {
        let bad = bad.replace('<', "%3C").replace('>', "%3E");
        node.post(&format!("/people/{bad}"), json!({})).by("DOC003").send().await.is_invalid("_id");
        node.put_json(&format!("/people/{bad}"), json!({})).by("ROOT004").send().await.is_invalid("_id");
    }
    for good in ["ABC".to_owned(), "a1B2".to_owned(), "Z".repeat(32)] {
        let change = format!("create people/{}", good.to_uppercase());
        node.post(&format!("/people/{good}"), json!({})).by("DOC003").send().await.is(201, &[&change]);
    }
    for bad in ["a%20b", "a%2Fb", "%C3%A9", "a+b", "a,b", "~", "%00", &"x".repeat(129)] {
        node.post(&format!("/institutions/{bad}"), json!({})).by("DOC003").send().await.is_invalid("_id");
    }
    for good in ["a", "A.b_c:d-1", &"x".repeat(128)] {
        let change = format!("create institution/{good}");
        node.post(&format!("/institutions/{good}"), json!({})).by("DOC003").send().await.is(201, &[&change]);
    }
    // What the centre holds already is served.
    node.from_centre(Kind::Institution, doc! {"_id": "Posta Rural nº 1"}).await;
    node.get("/institutions/Posta%20Rural%20n%C2%BA%201").by("DOC003").send().await.is(200, NOTHING);
}

fn every_type() -> Document {
    doc! {
        "_id": "e1", "person": "ANA001",
        "date": DateTime::from_millis(497_279_100_000), "precise": DateTime::from_millis(497_279_100_123),
        "far": DateTime::from_millis(i64::MAX),
        "int": 1, "long": 1_i64, "double": 1.0, "fraction": 0.1, "big": i64::MAX,
        "nan": f64::NAN, "null": Bson::Null, "truth": true,
        "oid": ObjectId::from_bytes([7; 12]), "decimal": "1.10".parse::<bson::Decimal128>().unwrap(),
        "binary": Binary { subtype: BinarySubtype::Uuid, bytes: vec![1; 16] },
        "regex": Bson::RegularExpression(Regex { pattern: "a.b".try_into().unwrap(), options: "i".try_into().unwrap() }),
        "stamp": Bson::Timestamp(Timestamp { time: 1, increment: 2 }),
        "min": Bson::MinKey, "undefined": Bson::Undefined, "symbol": Bson::Symbol("s".into()),
        "code": Bson::JavaScriptCode("f()".into()),
        "list": [1, 1_i64, 1.5, {"z": DateTime::from_millis(0), "a": [ObjectId::from_bytes([1; 12])]}],
        "deep": {"b": {"date": DateTime::from_millis(0), "int": 5_i64}, "a": 1},
    }
}

/// A value equal to what is shown is the stored value, with its type and precision.
#[tokio::test]
async fn what_was_read_can_be_written_back_without_a_change() {
    for dates in [DateFormat::Http, DateFormat::Rfc3339] {
        let node = TestNode::start_with(|setup| setup.settings.date_format = dates);
        node.people().await;
        node.from_centre(Kind::Event, every_type()).await;
        let shown = node.get("/events/e1").by("ROOT004").send().await.is(200, NOTHING);
        let put = node.put_json("/events/e1", shown.json()).by("ROOT004").send().await.is(200, NOTHING);
        assert_eq!(put.header("etag"), shown.header("etag"));
        assert_eq!(put.body, shown.body);
        let mut fields = shown.json();
        fields.as_object_mut().unwrap().retain(|key, _| key != "id" && key != "_id");
        node.patch("/events/e1", fields.clone()).by("ROOT004").send().await.is(200, NOTHING);
        fields["note"] = json!("more");
        node.put_json("/events/e1", fields).by("ROOT004").send().await.is(200, &["update event/e1"]);
        let mut expected = every_type();
        expected.insert("note", "more");
        assert_eq!(format!("{:?}", node.stored(Kind::Event, "e1").unwrap()), format!("{expected:?}"));
    }
}

#[tokio::test]
async fn types_without_json_have_a_form() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Event, every_type()).await;
    node.get("/events/e1").by("ROOT004").send().await.is(200, NOTHING).has(json!({
        "oid": "070707070707070707070707", "decimal": "1.10", "binary": "AQEBAQEBAQEBAQEBAQEBAQ==",
        "nan": {"$numberDouble": "NaN"}, "stamp": {"$timestamp": {"t": 1, "i": 2}}, "min": {"$minKey": 1},
        "regex": {"$regularExpression": {"pattern": "a.b", "options": "i"}}, "null": null,
        "big": 9_223_372_036_854_775_807_i64,
    }));
}

#[tokio::test]
async fn dates_are_written_as_configured_and_read_in_every_form() {
    for (format, shown) in
        [(DateFormat::Http, "Fri, 04 Oct 1985 13:05:00 GMT"), (DateFormat::Rfc3339, "1985-10-04T13:05:00Z")]
    {
        let node = TestNode::start_with(|setup| setup.settings.date_format = format);
        node.people().await;
        let dob = DateTime::from_millis(497_279_100_000);
        node.from_centre(Kind::Person, doc! {"_id": "EVA009", "dob": dob, "text": "x"}).await;
        node.get("/people/EVA009").by("DOC003").send().await.is(200, NOTHING).has(json!({"dob": shown}));
        for same in ["Fri, 04 Oct 1985 13:05:00 GMT", "1985-10-04T13:05:00Z", "1985-10-04T15:05:00+02:00"] {
            node.patch("/people/EVA009", json!({"dob": same})).by("DOC003").send().await.is(200, NOTHING);
        }
        let day = node.patch("/people/EVA009", json!({"dob": "1985-10-05", "text": "1985-10-05"}));
        day.by("DOC003").send().await.is(200, &["update people/EVA009"]);
        let stored = node.stored(Kind::Person, "EVA009").unwrap();
        assert_eq!(stored.get_datetime("dob").unwrap().timestamp_millis(), 497_318_400_000);
        // Onto a string field a date stays a string, as in a new one.
        assert_eq!(stored.get_str("text").unwrap(), "1985-10-05");
        node.patch("/people/EVA009", json!({"new": "1985-10-05T00:00:00Z"})).by("DOC003").send().await;
        assert_eq!(
            node.stored(Kind::Person, "EVA009").unwrap().get_str("new").unwrap(),
            "1985-10-05T00:00:00Z"
        );
    }
}

#[tokio::test]
async fn bodies_are_read_whatever_their_type_says() {
    let node = TestNode::with_people().await;
    let types =
        ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "?"];
    for (at, media_type) in types.iter().enumerate() {
        let id = format!("i{at}");
        let call = node.post(&format!("/institutions/{id}"), json!({"name": "Ñ\u{200b}"})).by("DOC003");
        let call = if media_type.is_empty() { call } else { call.header("content-type", media_type) };
        call.send().await.is(201, &[format!("create institution/{id}").as_str()]);
        assert_eq!(node.stored(Kind::Institution, &id).unwrap().get_str("name").unwrap(), "Ñ\u{200b}");
    }
}

#[tokio::test]
async fn unknown_fields_are_kept() {
    let node = TestNode::with_people().await;
    let body = json!({"person": "ANA001", "anything": {"of": [1, 2.5, null, "x"]}, "Ünïcode": true});
    node.post("/encounters/e1", body.clone()).by("DOC003").send().await.is(201, &["create encounter/e1"]);
    node.get("/encounters/e1").by("ANA001").send().await.is(200, NOTHING).has(body);
}

/// A row in front, a row removed, a word changed: the dates of the other rows stay dates.
#[tokio::test]
async fn dates_in_lists_stay_dates_when_rows_move() {
    let node = TestNode::with_people().await;
    let date = |text: &str| DateTime::parse_rfc3339_str(text).unwrap();
    let (a, b) = (date("1950-01-01T00:00:00Z"), date("1951-02-02T00:00:00.5Z"));
    let event = doc! {"_id": "e9", "person": "ANA001", "v": [{"w": a, "t": "a"}, {"w": b, "t": "b"}]};
    node.from_centre(Kind::Event, event).await;
    let shown = node.get("/events/e9").by("ROOT004").send().await.json();
    let mut last = shown["v"][1].clone();
    last["t"] = json!("b2");
    let sent = json!({"v": [{"t": "new", "w": "1960-01-01"}, shown["v"][0], last]});
    node.patch("/events/e9", sent).by("ROOT004").send().await.is(200, &["update event/e9"]);
    let rows = |node: &TestNode| node.stored(Kind::Event, "e9").unwrap().get_array("v").unwrap().clone();
    let dates = |rows: Vec<Bson>| -> Vec<DateTime> {
        rows.iter().map(|row| *row.as_document().unwrap().get_datetime("w").unwrap()).collect()
    };
    assert_eq!(dates(rows(&node)), [date("1960-01-01T00:00:00Z"), a, b]);
    let mut put = node.get("/events/e9").by("ROOT004").send().await.json();
    put["v"].as_array_mut().unwrap().remove(0);
    put["v"][0]["t"] = json!("a2");
    node.put_json("/events/e9", put).by("ROOT004").send().await.is(200, &["update event/e9"]);
    assert_eq!(dates(rows(&node)), [a, b]);
    let soon = json!({"v": [{"t": "x"}, {"w": "soon"}]});
    let refused = node.patch("/events/e9", soon).by("ROOT004").send().await.is_invalid("v.1.w");
    assert!(refused.text().contains("milliseconds since 1970"), "{}", refused.text());
    assert_eq!(dates(rows(&node)), [a, b]);
}
