//! "Errors": one shape, exact places, no 5xx.

use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::record::Kind;

use crate::support::api::{NOTHING, TestNode};

#[tokio::test]
async fn an_error_is_a_sentence_a_word_and_a_status() {
    let node = TestNode::with_people().await;
    let absent = node.get("/people/NOBODY9").by("DOC003").send().await.is(404, NOTHING);
    assert_eq!(absent.header("content-type"), "application/json");
    absent.says(json!({"error": "User not found", "code": "not_found", "status": 404}));
    let denied = node.get("/people").by("ANA001").send().await.is(403, NOTHING);
    denied.has(json!({"code": "forbidden", "status": 403}));
    let invalid = node.patch("/people/ANA001", json!({"roles": ["root"]})).by("ANA001").send().await;
    invalid.is(422, NOTHING).has(json!({"code": "invalid", "status": 422, "field": "roles"}));
}

#[tokio::test]
async fn accept_chooses_problem_json() {
    let node = TestNode::with_people().await;
    for accept in ["application/problem+json", "application/json, application/problem+json;q=0.9"] {
        let call = node.get("/people/NOBODY9").by("DOC003").header("accept", accept);
        let problem = call.send().await.is(404, NOTHING);
        assert_eq!(problem.header("content-type"), "application/problem+json");
        problem.says(json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "detail": "User not found",
            "error": "User not found", "code": "not_found"}));
    }
    // Headers that belong to the error stay.
    let login =
        node.get("/people").header("accept", "application/problem+json").send().await.is(401, NOTHING);
    assert_eq!(
        login.header("www-authenticate"),
        "Basic realm=\"Authentication Required\", charset=\"UTF-8\""
    );
    let method = node.post("/people", json!({})).by("DOC003").header("accept", "application/problem+json");
    assert!(method.send().await.is(405, NOTHING).header("allow").contains("GET"));
    let fine = node.get("/login").by("DOC003").header("accept", "application/problem+json").send().await;
    assert_eq!(fine.is(200, NOTHING).header("content-type"), "application/json");
}

#[tokio::test]
async fn what_is_not_json_is_named_by_line_and_column() {
    let node = TestNode::with_people().await;
    let cases = [
        ("{\"a\": 1,\n \"b\": }", "line 2 column 7"),
        ("", "line 1"),
        ("{", "line 1 column 1"),
        ("{} x", "line 1 column 4"),
        ("{'a': 1}", "line 1 column 2"),
        ("{\"a\": NaN}", "line 1 column"),
        ("{\"a\": Infinity}", "line 1 column"),
        ("{\"a\": 1e400}", "line 1 column"),
        ("{\"a\": -1e400}", "line 1 column"),
        ("{\"a\": \"\u{1}\"}", "line 1 column"),
        ("{}\u{feff}", "line 1 column 3"),
    ];
    for (body, place) in cases {
        for (method, path) in
            [("POST", "/institutions/x"), ("PATCH", "/people/ANA001"), ("PUT", "/institutions/x")]
        {
            let answer = node.request(method, path).by("ROOT004").bytes(body).send().await.is(400, NOTHING);
            let answer = answer.has(json!({"code": "not_json"}));
            assert!(answer.json()["error"].as_str().unwrap().contains(place), "{body:?}: {}", answer.text());
        }
    }
    let not_utf8 = node.request("POST", "/institutions/x").by("DOC003").bytes(&b"{\"a\": \"\xff\"}"[..]);
    not_utf8.send().await.is(400, NOTHING);
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let node = TestNode::with_people().await;
    for body in ["[1]", "\"x\"", "null", "5", "true", "[]"] {
        for (method, path) in
            [("POST", "/people/NEW001"), ("PATCH", "/people/ANA001"), ("PUT", "/people/ANA001")]
        {
            node.request(method, path).by("ROOT004").bytes(body).send().await.is_invalid("");
        }
    }
}

#[tokio::test]
async fn what_a_record_cannot_hold_is_refused_with_its_place() {
    let node = TestNode::with_people().await;
    let cases = [
        ("{\"$set\": {}}", "$set"),
        ("{\"a\": {\"$where\": 1}}", "a.$where"),
        ("{\"a.b\": 1}", "a.b"),
        ("{\"a\": [0, {\"b.c\": 1}]}", "a.1.b.c"),
        ("{\"\": 1}", ""),
        ("{\"a\": {\"\": 1}}", "a."),
        ("{\"a\": 1, \"a\": 2}", "a"),
        ("{\"x\": {\"a\": 1, \"a\": 2}}", "x.a"),
        ("{\"k\\u0000\": 1}", "k\0"),
        ("{\"a\": \"x\\u0000\"}", "a"),
        ("{\"a\": [\"\\u0000\"]}", "a.0"),
        ("{\"a\": 9223372036854775808}", "a"),
        ("{\"a\": -9223372036854775809}", "a"),
    ];
    for (body, field) in cases {
        for method in ["POST", "PUT"] {
            let answer = node.request(method, "/institutions/x").by("ROOT004").bytes(body).send().await;
            answer.is_invalid(field);
        }
        node.request("PATCH", "/people/ANA001").by("ROOT004").bytes(body).send().await.is_invalid(field);
    }
    let deep = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let answer = node.request("POST", "/institutions/x").by("DOC003").bytes(deep(65)).send().await;
    answer.is(422, NOTHING);
    let answer = node.request("POST", "/institutions/x").by("DOC003").bytes(deep(64)).send().await;
    answer.is(201, &["create institution/x"]);
    let abyss = node.request("POST", "/institutions/y").by("DOC003").bytes(deep(100_000)).send().await;
    abyss.is(422, NOTHING);
}

#[tokio::test]
async fn a_large_body_is_refused_and_a_record_does_not_grow_without_end() {
    let node = TestNode::with_people().await;
    let text = |bytes: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(bytes));
    let post = |body: String| node.request("POST", "/institutions/x").by("DOC003").bytes(body).send();
    post(text((1 << 20) - 7)).await.is(413, NOTHING).has(json!({"code": "too_large"}));
    post(text((1 << 20) - 8)).await.is(201, &["create institution/x"]);
    // Whoever may not write at all does not learn of limits first.
    let refused = node.request("POST", "/institutions/z").by("ANA001").bytes(text(1 << 21)).send().await;
    refused.is(403, NOTHING);
    let big = "y".repeat(15_500_000);
    node.record(Kind::Institution, doc! {"_id": "big", "x": big}).await;
    let more = node.request("PATCH", "/institutions/big").by("DOC003");
    let more = more.bytes(format!("{{\"y\":\"{}\"}}", "y".repeat(600_000)));
    more.send().await.is(413, NOTHING);
}

#[tokio::test]
async fn without_a_login_every_path_is_401() {
    let node = TestNode::with_people().await;
    for path in [
        "/people",
        "/people/ANA001",
        "/nothing",
        "/login",
        "/password/ANA001",
        "/sync/status",
        "//people",
        "/healthz/",
    ] {
        for method in ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "FOO"] {
            let answer = node.request(method, path).send().await.is(401, NOTHING);
            assert_eq!(
                answer.header("www-authenticate"),
                "Basic realm=\"Authentication Required\", charset=\"UTF-8\""
            );
        }
    }
    let credentials = [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic QQ==",
        "Bearer x",
        "Digest a=b",
        "Basic Og==",
        "Basic  Og== x",
    ];
    for value in credentials {
        node.get("/people").header("authorization", value).send().await.is(401, NOTHING);
    }
    let two = node.get("/people").by("DOC003").by("DOC003").send().await;
    two.is(401, NOTHING);
    node.get("/people").raw_header("authorization", b"Basic \xff\xfe").send().await.is(401, NOTHING);
    // The scheme is a word in any case.
    let lower = node.get("/login").header("authorization", "basic RE9DMDAzOmEgY3JhZGxlIGluIE1pbGFubw==");
    lower.send().await.is(200, NOTHING);
}

#[tokio::test]
async fn every_answer_says_which_request_it_was_and_is_not_kept() {
    let node = TestNode::with_people().await;
    let mut ids = Vec::new();
    for path in ["/", "/people", "/people/ANA001", "/nothing"] {
        for answer in [node.get(path).send().await, node.get(path).by("DOC003").send().await] {
            ids.push(answer.header("x-request-id").to_owned());
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8);
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused() {
    let node = TestNode::with_people().await;
    for path in
        ["/people/%ff", "/pols/ANA001/%c3%28", "/institutions/%ed%a0%80", "/users/%ff", "/sync/conflicts/%ff"]
    {
        let answer = node.get(path).by("ROOT004").send().await;
        assert!([405, 422].contains(&answer.status), "{path}: {}", answer.status);
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn guessing_is_answered_with_the_time_to_wait() {
    let node = TestNode::with_people().await;
    node.get("/login").by("ANA001").send().await.is(200, NOTHING);
    for user in ["ANA001", "NOBODY9"] {
        for _ in 0..5 {
            node.get("/login").login(user, "wrong").send().await.is(401, NOTHING);
        }
        let early = node.get("/login").login(user, "wrong").send().await.is(429, NOTHING);
        assert_eq!(early.header("retry-after"), "1");
        early.says(json!({"error": "Too many logins; try again later", "code": "busy", "status": 429}));
    }
    // Headers that name another address are not believed; another address is another matter.
    let forwarded = node.get("/login").login("ANA001", "wrong").header("x-forwarded-for", "203.0.113.9");
    forwarded.send().await.is(429, NOTHING);
    let elsewhere = node.get("/login").login("ANA001", "wrong").from([203, 0, 113, 9].into());
    elsewhere.send().await.is(401, NOTHING);
    node.get("/login").by("ANA001").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn a_mark_of_byte_order_is_skipped_and_other_encodings_are_named() {
    let node = TestNode::with_people().await;
    let body = "{\"name\": \"Ñandú\"}";
    let post = |bytes: Vec<u8>| node.request("POST", "/institutions/i1").by("DOC003").bytes(bytes).send();
    let units = || body.encode_utf16();
    for (bytes, named) in [
        (units().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), "UTF-16"),
        (units().flat_map(u16::to_be_bytes).collect(), "UTF-16"),
        (std::iter::once(0xFEFF).chain(units()).flat_map(u16::to_le_bytes).collect(), "UTF-16"),
        (body.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(), "UTF-32"),
    ] {
        let answer = post(bytes).await.is(400, NOTHING).has(json!({"code": "not_json"}));
        assert!(answer.text().contains(named) && answer.text().contains("UTF-8"), "{}", answer.text());
    }
    post(format!("\u{FEFF}{body}").into_bytes()).await.is(201, &["create institution/i1"]);
    assert_eq!(node.stored(Kind::Institution, "i1").unwrap().get_str("name").unwrap(), "Ñandú");
}

/// A date that is stored stays one, whatever a client's library makes of dates.
#[tokio::test]
async fn what_is_no_date_is_not_written_over_one() {
    let node = TestNode::with_people().await;
    let stored = bson::doc! {"_id": "e1", "person": "ANA001", "at": bson::DateTime::from_millis(0), "note": "1985-10-04"};
    node.record(Kind::Event, stored).await;
    let patch = |value: Value| node.patch("/events/e1", json!({"at": value})).by("DOC003").send();
    for value in [
        json!("1985-10-04T13:05:00"),
        json!("Fri Oct 04 1985 15:05:00 GMT+0200 (CEST)"),
        json!(497_279_100_000_i64),
    ] {
        patch(json!("2001-01-01")).await.is(200, &["update event/e1"]);
        patch(value).await.is(200, &["update event/e1"]).has(json!({"at": "Fri, 04 Oct 1985 13:05:00 GMT"}));
        let at = node.stored(Kind::Event, "e1").unwrap().get_datetime("at").unwrap().timestamp_millis();
        assert_eq!(at, 497_279_100_000);
    }
    for value in [
        json!("soon"),
        json!("4/10/1985"),
        json!(true),
        json!({"day": 4}),
        json!([]),
        json!(19_800_505),
        json!(497_279_100),
    ] {
        let answer = patch(value).await;
        assert!(answer.text().contains("1985-10-04T13:05:00Z"), "{}", answer.text());
        answer.is_invalid("at");
    }
    node.patch("/events/e1", json!({"note": "soon", "new": "1985-10-04T13:05"}))
        .by("DOC003")
        .send()
        .await
        .is(200, &["update event/e1"]);
    patch(Value::Null).await.is(200, &["update event/e1"]);
}

/// A form that takes a date away and sets it again later writes a date.
#[tokio::test]
async fn a_date_that_was_taken_away_comes_back_as_a_date() {
    let node = TestNode::with_people().await;
    let day = bson::DateTime::from_millis(497_232_000_000);
    let dates = bson::doc! {"at": day, "list": [day], "in": {"at": day}, "rows": [{"at": day}]};
    let mut stored = bson::doc! {"_id": "e1", "person": "ANA001", "text": "1985-10-04"};
    stored.extend(dates.clone());
    node.record(Kind::Event, stored).await;
    let patch = |value: Value| node.patch("/events/e1", value).by("DOC003").send();
    let put = |value: Value| node.put_json("/events/e1", value).by("ROOT004").send();
    let empty = json!({"at": null, "list": [], "in": {"at": null}, "rows": [{"at": null}], "text": null});
    let again = json!({"at": "1985-10-04", "list": ["1985-10-04"], "in": {"at": "1985-10-04"},
        "rows": [{"at": "1985-10-04"}], "text": "1985-10-04"});
    let changed = &["update event/e1"];
    for is_put in [false, true] {
        // As a PATCH with nulls, and as a PUT without the fields.
        match is_put {
            false => patch(empty.clone()).await.is(200, changed),
            true => put(json!({"person": "ANA001", "note": "x"})).await.is(200, changed),
        };
        patch(json!({"note": "other"})).await.is(200, changed);
        for (field, wrong) in
            [("at", json!("soon")), ("list", json!(["soon"])), ("in", json!({"at": "soon"}))]
        {
            let answer = patch(json!({field: wrong})).await;
            assert_eq!(answer.status, 422, "{field}: {}", answer.text());
        }
        patch(again.clone()).await.is(200, changed);
        let found = node.stored(Kind::Event, "e1").unwrap();
        for (field, value) in &dates {
            assert_eq!(found.get(field), Some(value), "{field}");
        }
        assert_eq!(found.get_str("text").unwrap(), "1985-10-04");
    }
    // A field that has become something else meanwhile is no date any more.
    patch(json!({"in": null})).await.is(200, changed);
    patch(json!({"in": "soon"})).await.is(200, changed);
    patch(json!({"in": {"at": "soon"}})).await.is(200, changed);
}
