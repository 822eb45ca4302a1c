//! "Methods": read, create, patch, replace, delete, and the conditions on them.

use bson::doc;
use serde_json::json;
use thalamus_edge::domain::record::Kind;

use crate::support::api::{NOTHING, PASSWORD, TestNode, person};

#[tokio::test]
async fn a_record_has_a_version() {
    let node = TestNode::with_people().await;
    let first = node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING);
    let tag = first.header("etag").to_owned();
    let get = || node.get("/people/ANA001").by("ANA001");
    for known in [tag.clone(), "*".into(), format!("\"x\", {tag}"), format!("W/{tag}")] {
        let same = get().header("if-none-match", &known).send().await.is(304, NOTHING);
        assert_eq!((same.header("etag"), same.body.len()), (tag.as_str(), 0), "{known}");
    }
    for other in ["\"x\"", "", "W/\"x\""] {
        get().header("if-none-match", other).send().await.is(200, NOTHING);
    }
    let two = get().header("if-none-match", "\"x\"").header("if-none-match", &tag);
    two.send().await.is(304, NOTHING);
    let patched = node.patch("/people/ANA001", json!({"n": 1})).by("ANA001").send().await;
    let patched = patched.is(200, &["update people/ANA001"]);
    assert_ne!(patched.header("etag"), tag);
    let after = get().header("if-none-match", &tag).send().await.is(200, NOTHING);
    assert_eq!(after.header("etag"), patched.header("etag"));
    assert_eq!(after.body, patched.body);
}

#[tokio::test]
async fn slashes_that_follow_one_another_are_one() {
    let node = TestNode::with_people().await;
    for path in ["//people/ANA001", "/people//ANA001", "///people//ANA001?a=%2F%2F"] {
        node.get(path).by("ANA001").send().await.is(200, NOTHING).has(json!({"id": "ANA001"}));
    }
    node.request("PATCH", "//people/ANA001")
        .by("ANA001")
        .json(&json!({"n": 1}))
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    // Whose record it is counts as on the plain path, and a slash that belongs to an id is none of the path's.
    node.get("//people/BERT02").by("ANA001").send().await.is(403, NOTHING);
    for path in ["/people/%2FANA001", "/people%2FANA001", "/people%2F%2FANA001"] {
        node.get(path).by("ROOT004").send().await.is(404, NOTHING);
    }
    // One at the end is none too many: there is nothing at that path, as at Thalamus.
    for path in ["/people/ANA001/", "/people/ANA001//", "//people/ANA001//", "/people/", "/people//"] {
        node.get(path).by("ROOT004").send().await.is(404, NOTHING);
    }
}

#[tokio::test]
async fn whose_a_record_is_stands_in_the_spelling_of_the_person() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Person, person("Juan", &["end_user"])).await;
    let made = node.post("/pols/JUAN/p1", json!({"id": "p1", "book": "juan"})).by("ROOT004").send().await;
    made.is(201, &["create pols/p1"]).has(json!({"book": "Juan"}));
    // The same again is the same.
    let again = node.post("/pols/juan/p1", json!({"id": "p1", "book": "JUAN"})).by("ROOT004").send().await;
    again.is(200, NOTHING).has(json!({"book": "Juan"}));
    node.post("/pols/juan/p2", json!({"id": "p2"})).by("ROOT004").send().await.has(json!({"book": "Juan"}));
    node.request("PUT", "/pols/JUAN/p2")
        .by("ROOT004")
        .json(&json!({"id": "p2", "book": "JUAN", "n": 1}))
        .send()
        .await
        .is(200, &["update pols/p2"])
        .has(json!({"book": "Juan"}));
    let documents = "/personal-documents";
    node.post(&format!("{documents}/d1"), json!({"fedacct": "JUAN"}))
        .by("ROOT004")
        .send()
        .await
        .is(201, &["create personal_document/d1"])
        .has(json!({"fedacct": "Juan"}));
    let event = node.post("/events/e1", json!({"person": "juan"})).by("ROOT004").send().await;
    event.is(201, &["create event/e1"]).has(json!({"person": "Juan"}));
    // What is stored otherwise stays so while others of its fields change.
    node.from_centre(Kind::Event, doc! {"_id": "e2", "person": "JUAN"}).await;
    node.patch("/events/e2", json!({"n": 1})).by("ROOT004").send().await.has(json!({"person": "JUAN"}));
    // Nobody has this account: a page needs a person, and of others the account is written as usual.
    node.post("/pols/NOBODY1/p3", json!({"id": "p3"})).by("ROOT004").send().await.is(404, NOTHING);
    let event = node.post("/events/e3", json!({"person": "Nobody1"})).by("ROOT004").send().await;
    event.is(201, &["create event/e3"]).has(json!({"person": "NOBODY1"}));
}

#[tokio::test]
async fn a_stale_version_is_not_written_over() {
    let node = TestNode::with_people().await;
    node.post("/events/e1", json!({"person": "ANA001"})).by("ROOT004").send().await;
    let tag = node.get("/events/e1").by("ROOT004").send().await.header("etag").to_owned();
    for method in ["PATCH", "PUT", "DELETE"] {
        let call = node.request(method, "/events/e1").by("ROOT004").json(&json!({"n": 1}));
        let stale = call.header("if-match", "\"00\"").send().await.is(412, NOTHING);
        stale.has(json!({"code": "precondition_failed"}));
    }
    // Proxies that compress say so in the tag.
    let coded = tag.replace('"', "").to_owned();
    for wrong in [format!("\"{coded}-old\""), format!("\"00{coded}-gzip\"")] {
        let call = node.patch("/events/e1", json!({"n": 0})).by("ROOT004").header("if-match", &wrong);
        call.send().await.is(412, NOTHING);
    }
    let through_a_proxy = format!("W/\"{coded}-gzip\"");
    let patch = node.patch("/events/e1", json!({"n": 0})).by("ROOT004").header("if-match", &through_a_proxy);
    let tag = patch.send().await.is(200, &["update event/e1"]).header("etag").to_owned();
    let patch = node.patch("/events/e1", json!({"n": 1})).by("ROOT004").header("if-match", &tag);
    let second = patch.send().await.is(200, &["update event/e1"]).header("etag").to_owned();
    let again = node.patch("/events/e1", json!({"n": 2})).by("ROOT004").header("if-match", &tag);
    again.send().await.is(412, NOTHING);
    let put = node.put_json("/events/e1", json!({"n": 3})).by("ROOT004");
    let third =
        put.header("if-match", &format!("\"x\", {second}")).send().await.is(200, &["update event/e1"]);
    let delete = node.delete("/events/e1").by("ROOT004").header("if-match", third.header("etag"));
    delete.send().await.is(204, &["delete event/e1"]);
    // Something must be there to match; with If-None-Match: * nothing must.
    let body = json!({"person": "ANA001"});
    for method in ["POST", "PUT"] {
        let call = node.request(method, "/events/e1").by("ROOT004").json(&body).header("if-match", "*");
        call.send().await.is(412, NOTHING);
    }
    let create = || node.put_json("/events/e1", body.clone()).by("ROOT004").header("if-none-match", "*");
    create().send().await.is(201, &["create event/e1"]);
    create().send().await.is(412, NOTHING);
}

#[tokio::test]
async fn conditions_do_not_tell_what_is_hidden() {
    let node = TestNode::with_people().await;
    node.person("EVE005", &["end_user"]).await;
    node.record(Kind::Page, doc! {"_id": "p1", "book": "BOB002"}).await;
    for (header, value) in [("if-match", "*"), ("if-match", "\"x\""), ("if-none-match", "*")] {
        for path in ["/pols/EVE005/p1", "/pols/EVE005/absent"] {
            let call = node.patch(path, json!({"n": 1})).by("EVE005").header(header, value);
            call.send().await.is(404, NOTHING).has(json!({"error": "Page not found"}));
        }
    }
}

#[tokio::test]
async fn post_creates() {
    let node = TestNode::with_people().await;
    let body = json!({"person": "ana001", "blood": {"group": "0"}});
    let made = node.post("/measurements/m1", body).by("DOC003").send().await;
    let made = made.is(201, &["create measurements/m1"]);
    let made = made.says(json!({"_id": "m1", "id": "m1", "person": "ANA001", "blood": {"group": "0"}}));
    assert_eq!(made.header("location"), "/measurements/m1");
    let read = node.get("/measurements/m1").by("DOC003").send().await;
    assert_eq!((read.header("etag"), &read.body), (made.header("etag"), &made.body));
    node.post("/measurements/m2", json!({})).by("DOC003").send().await.is_invalid("person");
    node.post("/measurements/m2", json!({"person": 5})).by("DOC003").send().await.is_invalid("person");
    node.post("/measurements/m2", json!({"person": "a b"})).by("DOC003").send().await.is_invalid("person");
}

#[tokio::test]
async fn a_person_gets_a_role_and_nothing_else() {
    let node = TestNode::with_people().await;
    let made = node.post("/people/NEW001", json!({"name": "N"})).by("DOC003").send().await;
    made.is(201, &["create people/NEW001"])
        .says(json!({"_id": "NEW001", "id": "NEW001", "name": "N", "roles": ["end_user"]}));
    assert_eq!(
        node.stored(Kind::Person, "NEW001").unwrap(),
        doc! {"_id": "NEW001", "name": "N", "roles": ["end_user"]}
    );
    let body = json!({"password": "a new cradle", "roles": ["end_user"], "active": true});
    let made = node.post("/people/NEW002", body).by("DOC003").send().await.is(201, &["create people/NEW002"]);
    assert!(!made.text().contains("password"));
    let stored = node.stored(Kind::Person, "NEW002").unwrap();
    assert!(bcrypt::verify("a new cradle", stored.get_str("password").unwrap()).unwrap());
    node.get("/login").login("new002", "a new cradle").send().await.is(200, NOTHING).says(json!(true));
}

/// A client that lost the answer may ask again.
#[tokio::test]
async fn post_of_the_same_again_is_no_error() {
    let node = TestNode::with_people().await;
    let body = json!({"name": "N", "dob": "1985-12-10", "list": [1, {"b": 2, "a": 1}]});
    let first = node.post("/people/NEW001", body.clone()).by("DOC003").send().await;
    let first = first.is(201, &["create people/NEW001"]);
    let same = json!({"list": [1, {"a": 1, "b": 2}], "dob": "1985-12-10", "id": "NEW001", "name": "N"});
    for again in [body.clone(), same] {
        let again = node.post("/people/new001", again).by("DOC003").send().await.is(200, NOTHING);
        assert_eq!((again.header("etag"), &again.body), (first.header("etag"), &first.body));
    }
    let mut more = body.clone();
    more["n"] = json!(1);
    let mut less = body.clone();
    less.as_object_mut().unwrap().remove("dob");
    let mut with_password = body.clone();
    with_password["password"] = json!(PASSWORD);
    for other in [more, less, with_password.clone()] {
        let refused = node.post("/people/NEW001", other).by("DOC003").send().await.is(422, NOTHING);
        refused.has(json!({"error": "User already exists"}));
    }
    // With a password it is never a retry, not even of itself.
    node.post("/people/NEW002", with_password.clone())
        .by("DOC003")
        .send()
        .await
        .is(201, &["create people/NEW002"]);
    node.post("/people/NEW002", with_password).by("DOC003").send().await.is(422, NOTHING);
    node.post("/people/NEW002", body).by("DOC003").send().await.is(422, NOTHING);
    let page = json!({"id": "p1", "info": "x"});
    node.post("/pols/NEW001/p1", page.clone()).by("DOC003").send().await.is(201, &["create pols/p1"]);
    node.post("/pols/NEW001/p1", page.clone()).by("DOC003").send().await.is(200, NOTHING);
    // The same page in another book is another page, whose id is taken.
    node.post("/pols/NEW002/p1", page).by("DOC003").send().await.is(422, NOTHING);
}

#[tokio::test]
async fn pages_belong_to_a_book() {
    let node = TestNode::with_people().await;
    node.post("/pols/ANA001/p1", json!({"info": "x"})).by("ANA001").send().await.is_invalid("id");
    node.post("/pols/ANA001/p1", json!({"id": "p2"})).by("ANA001").send().await.is_invalid("id");
    node.post("/pols/ANA001/p1", json!({"id": "p1", "book": "BOB002"}))
        .by("ANA001")
        .send()
        .await
        .is_invalid("book");
    node.post("/pols/ANA001/p1", json!({"id": "p1", "book": 7})).by("ANA001").send().await.is_invalid("book");
    let made = node.post("/pols/ANA001/p1", json!({"_id": "p1"})).by("ANA001").send().await;
    made.is(201, &["create pols/p1"]).says(json!({"_id": "p1", "id": "p1", "book": "ANA001"}));
    let nobody = node.post("/pols/NOBODY9/p9", json!({"id": "p9"})).by("DOC003").send().await;
    nobody.is(404, NOTHING);
    node.put_json("/pols/NOBODY9/p9", json!({})).by("ROOT004").send().await.is(404, NOTHING);
    node.put_json("/pols/BOB002/p9", json!({})).by("ROOT004").send().await.is(201, &["create pols/p9"]);
}

#[tokio::test]
async fn patch_merges_the_given_fields() {
    let node = TestNode::with_people().await;
    let body = json!({"person": "ANA001", "a": {"x": 1, "y": 2}, "b": 1, "c": [1, 2]});
    node.post("/events/e1", body).by("DOC003").send().await;
    let patched =
        node.patch("/events/e1", json!({"a": {"z": 3}, "b": null, "d": "new"})).by("DOC003").send().await;
    patched.is(200, &["update event/e1"]).says(json!({
        "_id": "e1", "id": "e1", "person": "ANA001", "a": {"z": 3}, "b": null, "c": [1, 2], "d": "new"}));
    for nothing in [json!({}), json!({"b": null, "c": [1, 2]})] {
        node.patch("/events/e1", nothing).by("DOC003").send().await.is(200, NOTHING);
    }
    for (path, noun, message) in [
        ("/people/BOB002", "User not found", "Not allowed to change the person ID"),
        ("/events/e1", "Event not found", "Not allowed to change the event ID"),
    ] {
        for field in ["id", "_id"] {
            for other in [json!("other"), json!(null), json!(1)] {
                let other = node.patch(path, json!({field: other})).by("DOC003").send().await;
                other.is_invalid(field).has(json!({"error": message}));
            }
        }
        let absent = node.patch(&format!("{path}9"), json!({"n": 1})).by("DOC003").send().await;
        absent.is(404, NOTHING).has(json!({"error": noun}));
    }
    let page = node.patch("/pols/BOB002/p9", json!({"n": 1})).by("DOC003").send().await;
    page.is(404, NOTHING).has(json!({"error": "Page not found"}));
}

#[tokio::test]
async fn put_replaces_and_creates() {
    let node = TestNode::with_people().await;
    let made =
        node.put_json("/events/e1", json!({"person": "ANA001", "a": 1, "b": 2})).by("ROOT004").send().await;
    assert_eq!(made.is(201, &["create event/e1"]).header("location"), "/events/e1");
    let put = node.put_json("/events/e1", json!({"b": 3})).by("ROOT004").send().await;
    put.is(200, &["update event/e1"]).says(json!({"_id": "e1", "id": "e1", "person": "ANA001", "b": 3}));
    // Password, roles and activation of a person stay when the body leaves them out.
    let before = node.stored(Kind::Person, "ANA001").unwrap();
    node.put_json("/people/ANA001", json!({"name": "A"}))
        .by("ROOT004")
        .send()
        .await
        .is(200, &["update people/ANA001"]);
    let after = node.stored(Kind::Person, "ANA001").unwrap();
    let mut expected = before.clone();
    expected.insert("name", "A");
    expected.remove("lastname");
    assert!(thalamus_edge::domain::value::same_document(&after, &expected), "{after}");
    let given =
        json!({"roles": ["end_user", "health_professional"], "active": false, "password": "another cradle"});
    node.put_json("/people/ANA001", given).by("ROOT004").send().await.is(200, &["update people/ANA001"]);
    let after = node.stored(Kind::Person, "ANA001").unwrap();
    assert!(!after.get_bool("active").unwrap());
    assert!(bcrypt::verify("another cradle", after.get_str("password").unwrap()).unwrap());
}

#[tokio::test]
async fn a_person_is_deleted_only_when_inactive_and_alone() {
    let node = TestNode::with_people().await;
    let delete = |path: &str| node.delete(path).by("ROOT004").send();
    delete("/people/ANA001").await.is_invalid("active").has(json!({"error": "The user is active."}));
    let mut absent_counts_as_active = person("EVA005", &["end_user"]);
    absent_counts_as_active.remove("active");
    node.record(Kind::Person, absent_counts_as_active).await;
    delete("/people/EVA005").await.is_invalid("active");
    node.patch("/people/ANA001", json!({"active": false})).by("ROOT004").send().await;
    for (path, owner_field) in [
        ("/pols/ANA001/x1", "book"),
        ("/personal-documents/x1", "fedacct"),
        ("/encounters/x1", "person"),
        ("/events/x1", "person"),
        ("/measurements/x1", "person"),
        ("/hospitalizations/x1", "person"),
    ] {
        let made = node.put_json(path, json!({owner_field: "ANA001"})).by("ROOT004").send().await;
        assert_eq!(made.status, 201, "{}", made.text());
        delete("/people/ANA001").await.is_invalid("");
        assert_eq!(delete(path).await.status, 204);
    }
    delete("/people/ANA001").await.is(204, &["delete people/ANA001"]);
    delete("/people/ANA001").await.is(404, NOTHING).has(json!({"error": "User not found"}));
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let node = TestNode::with_people().await;
    for path in ["/people", "/people/ANA001", "/", "/login", "/healthz", "/nothing"] {
        let get = node.get(path).by("DOC003").send().await;
        let head = node.request("HEAD", path).by("DOC003").send().await;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert_eq!(head.headers.get("etag"), get.headers.get("etag"), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

#[tokio::test]
async fn options_and_405_name_the_methods_of_the_path() {
    let node = TestNode::with_people().await;
    let item = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
    let cases: [(&str, &[&str]); 10] = [
        ("/people", &["GET", "HEAD", "OPTIONS"]),
        ("/people/ANA001", &item),
        ("/pols/ANA001/x", &item),
        ("/pols/ANA001", &["GET", "HEAD", "OPTIONS"]),
        ("/personal-documents/x/content", &["GET", "HEAD", "OPTIONS", "PUT"]),
        ("/password/ANA001", &["GET", "HEAD", "OPTIONS", "POST"]),
        ("/sync/rounds", &["OPTIONS", "POST"]),
        ("/sync/pause", &["OPTIONS", "POST"]),
        ("/login", &["GET", "HEAD", "OPTIONS"]),
        ("/", &["GET", "HEAD", "OPTIONS"]),
    ];
    for (path, methods) in cases {
        for method in ["OPTIONS", "TRACE", "FOO", "DELETE"] {
            if methods.contains(&method) && method != "OPTIONS" {
                continue;
            }
            let answer = node.request(method, path).by("ROOT004").send().await;
            assert_eq!(answer.status, if method == "OPTIONS" { 204 } else { 405 }, "{method} {path}");
            let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
            allowed.sort_unstable();
            assert_eq!(allowed, methods, "{method} {path}");
            if method == "OPTIONS" {
                assert!(answer.body.is_empty());
            } else {
                answer.has(json!({"code": "method_not_allowed", "status": 405}));
            }
        }
    }
}

/// Whoever answers: a handler, the login, or what makes errors another format.
#[tokio::test]
async fn head_is_get_without_the_body() {
    let node = TestNode::with_people().await;
    let problem = "application/problem+json";
    for (path, by, accept, status) in [
        ("/people/ANA001", Some("ANA001"), "*/*", 200),
        ("/people", Some("DOC003"), "*/*", 200),
        ("/people/NOBODY", Some("DOC003"), "*/*", 404),
        ("/people/NOBODY", Some("DOC003"), problem, 404),
        ("/nothing", Some("DOC003"), problem, 404),
        ("/people/ANA001", None, "*/*", 401),
        ("/people/ANA001", None, problem, 401),
    ] {
        let ask = async |method| {
            let call = node.request(method, path).header("accept", accept);
            let call = if let Some(user) = by { call.by(user) } else { call };
            call.send().await.is(status, NOTHING)
        };
        let (head, get) = (ask("HEAD").await, ask("GET").await);
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path} {by:?} {accept}");
        if let Some(length) = head.headers.get("content-length") {
            assert_eq!(length.to_str().unwrap(), get.body.len().to_string(), "{path} {by:?} {accept}");
        }
    }
}
