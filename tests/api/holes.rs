//! The table of upstream holes in the security page, row by row.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::central::{Central, CentralError, Hub};
use thalamus_edge::domain::record::Kind;

use crate::support::api::{NOTHING, PASSWORD, PASSWORD_HASH, Setup, TestNode, person};

#[tokio::test]
async fn nobody_gives_themselves_roles() {
    let node = TestNode::with_people().await;
    for roles in [json!(["root"]), json!(["end_user", "root"]), json!(["health_professional"]), json!([])] {
        for (who, person) in [("ANA001", "ANA001"), ("DOC003", "DOC003"), ("DOC003", "ANA001")] {
            let path = format!("/people/{person}");
            node.patch(&path, json!({"roles": roles})).by(who).send().await.is_invalid("roles");
        }
    }
    for active in [json!(false), json!(null), json!("true")] {
        node.patch("/people/ANA001", json!({"active": active}))
            .by("ANA001")
            .send()
            .await
            .is_invalid("active");
        node.patch("/people/ANA001", json!({"active": active}))
            .by("DOC003")
            .send()
            .await
            .is_invalid("active");
    }
    for field in ["id", "_id"] {
        node.patch("/people/ANA001", json!({field: "ROOT004"})).by("ANA001").send().await.is_invalid(field);
        node.patch("/people/ANA001", json!({field: "ANA002"})).by("ROOT004").send().await.is_invalid(field);
    }
    let equal = json!({"roles": ["end_user"], "active": true});
    node.patch("/people/ANA001", equal).by("ANA001").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn anothers_page_is_not_reached_through_ones_own_book() {
    let node = TestNode::with_people().await;
    node.record(Kind::Page, doc! {"_id": "bobs", "book": "BOB002", "info": "secret"}).await;
    for who in ["ANA001", "DOC003", "ROOT004"] {
        let path = format!("/pols/{who}/bobs");
        let absent = node.get(&format!("/pols/{who}/absent")).by(who).send().await.is(404, NOTHING);
        let hidden = node.get(&path).by(who).send().await.is(404, NOTHING);
        assert_eq!(hidden.body, absent.body);
        node.patch(&path, json!({"info": "x"})).by(who).send().await.is(404, NOTHING);
        node.post(&path, json!({"id": "bobs", "info": "x"})).by(who).send().await.is(422, NOTHING);
        // Not even with the very same content.
        node.post(&path, json!({"id": "bobs", "info": "secret"})).by(who).send().await.is(422, NOTHING);
    }
    node.put_json("/pols/ANA001/bobs", json!({})).by("ROOT004").send().await.is(404, NOTHING);
    node.delete("/pols/ANA001/bobs").by("ROOT004").send().await.is(404, NOTHING);
}

#[tokio::test]
async fn hashes_are_never_in_an_answer() {
    let node = TestNode::with_people().await;
    node.patch("/people/ANA001", json!({"password": "another cradle"})).by("ROOT004").send().await;
    for call in [
        node.get("/people").by("DOC003"),
        node.get("/people").by("ROOT004"),
        node.get("/people/BOB002").by("BOB002"),
        node.get("/people/BOB002").by("ROOT004"),
        node.get("/people?q=ana").by("ROOT004"),
        node.get("/users").by("ROOT004"),
        node.patch("/people/BOB002", json!({"n": 1})).by("BOB002"),
        node.put_json("/people/BOB002", json!({"n": 2})).by("ROOT004"),
        node.post("/people/NEW005", json!({"password": "another cradle"})).by("DOC003"),
        node.get("/changes").by("ROOT004"),
    ] {
        let answer = call.send().await;
        assert!(answer.status < 300, "{}: {}", answer.what, answer.status);
        for word in ["$2b", "password", PASSWORD, "another cradle"] {
            assert!(!answer.text().contains(word), "{}: {}", answer.what, answer.text());
        }
    }
}

/// Every refusal costs one computation at the same price, whoever does not exist.
#[tokio::test]
async fn an_unknown_user_costs_what_a_wrong_password_costs() {
    let node = TestNode::with_people().await;
    let mut odd = person("ODD005", &["end_user"]);
    odd.insert("password", "$2b$oops");
    node.record(Kind::Person, odd).await;
    let mut inactive = person("INA006", &["end_user"]);
    inactive.insert("active", false);
    node.record(Kind::Person, inactive).await;
    node.record(Kind::Person, doc! {"_id": "NOPASS", "roles": ["end_user"]}).await;
    let long = "y".repeat(73);
    let logins = [
        ("ANA001", "wrong"),
        ("NOBODY9", "wrong"),
        ("NOBODY8", PASSWORD),
        ("INA006", PASSWORD),
        ("ODD005", PASSWORD),
        ("NOPASS", PASSWORD),
        ("ANA001", long.as_str()),
        ("NOBODY9", long.as_str()),
        ("AN\0A001", PASSWORD),
        ("ANA001", "a cradle\0in Milano"),
        ("", ""),
        ("tess@local", "wrong"),
        ("\u{e9}\u{200b}", "x"),
    ];
    for (at, (user, password)) in logins.into_iter().enumerate() {
        let before = node.node.accounts.bcrypts();
        let peer = IpAddr::from([198, 51, 100, u8::try_from(at).unwrap()]);
        let answer = node.get("/login").login(user, password).from(peer).send().await.is(401, NOTHING);
        answer.says(json!({"error": "Log in with a valid account and password", "code": "unauthorized", "status": 401}));
        assert_eq!(node.node.accounts.bcrypts() - before, 1, "{user:?} {password:?}");
    }
}

#[tokio::test]
async fn a_patched_password_is_hashed() {
    let node = TestNode::with_people().await;
    node.patch("/people/ANA001", json!({"password": "a new cradle"})).by("ANA001").send().await;
    let stored = node.stored(Kind::Person, "ANA001").unwrap();
    let hash = stored.get_str("password").unwrap();
    assert!(hash.starts_with("$2") && bcrypt::verify("a new cradle", hash).unwrap());
    // Ready-made hashes only from root, and only those that can be verified in bearable time.
    let ready = bcrypt::hash("made elsewhere", 4).unwrap();
    for (who, person) in [("ANA001", "/people/BOB002"), ("DOC003", "/people/ANA001")] {
        node.patch(person, json!({"password": ready})).by(who).login("x", "y").send().await.is(401, NOTHING);
    }
    node.patch("/people/BOB002", json!({"password": ready})).by("BOB002").send().await.is_invalid("password");
    node.post("/people/NEW005", json!({"password": ready})).by("DOC003").send().await.is_invalid("password");
    let body = &PASSWORD_HASH[6..];
    for bad in [
        "$2b$oops".to_owned(),
        format!("$2b$31${body}1"),
        format!("$2b$31{body}"),
        format!("$2b$15{body}"),
        format!("$2b$03{body}"),
        format!("$2x$04{body}"),
        format!("$2b$+4{body}"),
        format!("$2b$04{}", &body[..20]),
    ] {
        node.patch("/people/BOB002", json!({"password": bad}))
            .by("ROOT004")
            .send()
            .await
            .is_invalid("password");
    }
    for prefix in ["$2a$", "$2b$", "$2y$"] {
        let hash = format!("{prefix}{}", &ready[4..]);
        node.patch("/people/BOB002", json!({"password": hash}))
            .by("ROOT004")
            .send()
            .await
            .is(200, &["update people/BOB002"]);
        node.get("/login").login("BOB002", "made elsewhere").send().await.is(200, NOTHING);
    }
}

#[tokio::test]
async fn a_password_that_bcrypt_would_cut_is_refused() {
    let node = TestNode::with_people().await;
    let accents = "ñ".repeat(37);
    for bad in [
        "y".repeat(65),
        accents,
        "with a\0nul".to_owned(),
        "1234567".to_owned(),
        String::new(),
        "12345678".to_owned(),
    ] {
        node.patch("/people/ANA001", json!({"password": bad}))
            .by("ANA001")
            .send()
            .await
            .is_invalid("password");
        node.patch("/people/BOB002", json!({"password": bad}))
            .by("ROOT004")
            .send()
            .await
            .is_invalid("password");
        node.post("/people/NEW005", json!({"password": bad}))
            .by("DOC003")
            .send()
            .await
            .is_invalid("password");
    }
    let of_64_chars = "kxitxvt1ipHbvkhNlqQW5CT1+v4j8mqpGl9R3jgheO9MirvOU44fCxqjTHYM/4mn";
    let of_72_bytes = "мойдядясамыхчестныхправилкогданевшут";
    for good in [of_64_chars, of_72_bytes, "gnusolidario"] {
        node.patch("/people/BOB002", json!({"password": good}))
            .by("ROOT004")
            .send()
            .await
            .is(200, &["update people/BOB002"]);
        node.get("/login").login("BOB002", good).send().await.is(200, NOTHING);
    }
}

#[tokio::test]
async fn what_was_an_error_of_the_server_is_none() {
    let node = TestNode::with_people().await;
    node.record(Kind::Page, doc! {"_id": "p1", "book": "ANA001"}).await;
    node.delete("/people/ANA001").by("ROOT004").send().await.is(422, NOTHING);
    node.delete("/pols/ANA001/p1").by("ROOT004").send().await.is(204, &["delete pols/p1"]);
    for path in ["/people", "/people/ANA001", "/pols/ANA001", "/pols/ANA001/p1"] {
        let head = node.request("HEAD", path).by("ROOT004").send().await;
        assert!([200, 404].contains(&head.status), "{path}");
    }
    node.post("/people/ana001", json!({"name": "x"})).by("DOC003").send().await.is(422, NOTHING);
    let page = json!({"id": "p2"});
    node.post("/pols/ANA001/p2", page.clone()).by("ANA001").send().await.is(201, &["create pols/p2"]);
    node.post("/pols/ANA001/p2", page).by("ANA001").send().await.is(200, NOTHING);
    node.post("/pols/ANA001/p2", json!({"id": "p2", "n": 1})).by("ANA001").send().await.is(422, NOTHING);
    node.request("POST", "/people/NEW005").by("DOC003").bytes("{bad").send().await.is(400, NOTHING);
    node.request("PATCH", "/people/ANA001").by("ANA001").send().await.is(400, NOTHING);
}

#[tokio::test]
async fn everything_but_three_paths_needs_a_login_and_no_origin_is_allowed() {
    let node = TestNode::with_people().await;
    for path in ["/", "/healthz", "/readyz"] {
        let answer = node.get(path).header("origin", "https://example.org").send().await.is(200, NOTHING);
        answer.lacks_header("access-control-allow-origin");
    }
    for schema in &thalamus_edge::domain::schema::SCHEMAS {
        for route in schema.routes {
            let path = route.path.replace("{person_id}", "ANA001").replace("{id}", "x");
            node.get(&path).header("origin", "https://example.org").send().await.is(401, NOTHING);
        }
    }
    for path in [
        "/login",
        "/password/ANA001",
        "/users",
        "/changes",
        "/sync/status",
        "/sync/conflicts",
        "/authorization",
        "/x",
    ] {
        node.get(path).send().await.is(401, NOTHING);
    }
}

#[tokio::test]
async fn inactive_accounts_are_unknown() {
    let node = TestNode::with_people().await;
    node.get("/login").by("ANA001").send().await.is(200, NOTHING);
    node.patch("/people/ANA001", json!({"active": false})).by("ROOT004").send().await;
    let inactive = node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    let unknown = node.get("/login").by("NOBODY9").send().await.is(401, NOTHING);
    assert_eq!(inactive.body, unknown.body);
    // Records of the HMIS leave the field out: that is active.
    let mut absent = person("EVA005", &["end_user"]);
    absent.remove("active");
    node.record(Kind::Person, absent).await;
    node.get("/login").by("EVA005").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn a_professional_takes_over_nobody() {
    let node = TestNode::with_people().await;
    let new = |roles: Value| json!({"roles": roles, "password": PASSWORD});
    for roles in [json!(["root"]), json!(["health_professional"]), json!(["end_user", "root"])] {
        node.post("/people/NEW005", new(roles)).by("DOC003").send().await.is_invalid("roles");
    }
    for person in ["ROOT004", "ANA001", "NOBODY9"] {
        let path = format!("/people/{person}");
        node.patch(&path, json!({"password": "another cradle"})).by("DOC003").send().await.is(403, NOTHING);
        let form = node.request("POST", &format!("/password/{person}")).by("DOC003").bytes("password=x");
        form.send().await.is(403, NOTHING);
        let users = node.post(&format!("/users/{person}/password"), json!({"password": "another cradle"}));
        users.by("DOC003").send().await.is(403, NOTHING);
    }
    node.post("/users/DOC003", json!({"roles": ["root"]})).by("DOC003").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn a_body_that_is_no_object_changes_nothing() {
    let node = TestNode::with_people().await;
    let before = node.stored(Kind::Person, "ANA001").unwrap();
    for body in ["[1]", "\"x\"", "null", "5", "false", "[]", "[{\"name\": \"x\"}]"] {
        for method in ["PATCH", "PUT", "POST"] {
            node.request(method, "/people/ANA001").by("ROOT004").bytes(body).send().await.is_invalid("");
        }
    }
    assert_eq!(node.stored(Kind::Person, "ANA001").unwrap(), before);
}

#[tokio::test]
async fn roles_and_passwords_have_a_shape() {
    let node = TestNode::with_people().await;
    let bad_roles = [
        json!("root"),
        json!(null),
        json!(["wizard"]),
        json!(["end_user", "end_user"]),
        json!([]),
        json!({}),
        json!([["root"]]),
    ];
    for roles in bad_roles {
        node.patch("/people/ANA001", json!({"roles": roles})).by("ROOT004").send().await.is_invalid("roles");
        node.put_json("/people/ANA001", json!({"roles": roles}))
            .by("ROOT004")
            .send()
            .await
            .is_invalid("roles");
        node.post("/people/NEW005", json!({"roles": roles})).by("ROOT004").send().await.is_invalid("roles");
    }
    for password in
        [json!(""), json!(123456), json!(null), json!("$2b$oops"), json!(["x"]), json!({}), json!(true)]
    {
        node.patch("/people/ANA001", json!({"password": password}))
            .by("ROOT004")
            .send()
            .await
            .is_invalid("password");
        node.put_json("/people/ANA001", json!({"password": password}))
            .by("ROOT004")
            .send()
            .await
            .is_invalid("password");
        node.post("/people/NEW005", json!({"password": password}))
            .by("DOC003")
            .send()
            .await
            .is_invalid("password");
    }
    // Stored by someone else at the centre: kept, grants nothing, no login.
    for (id, field, value) in [
        ("CEN001", "roles", bson::Bson::from("root")),
        ("CEN002", "roles", bson::Bson::Null),
        ("CEN003", "roles", bson::bson!(["wizard", 5])),
        ("CEN004", "roles", bson::bson!({"0": "health_professional"})),
    ] {
        let mut odd = person(id, &[]);
        odd.insert(field, value.clone());
        node.from_centre(Kind::Person, odd).await;
        let who = node.get("/authorization?method=GET&path=/").by(id).send().await.is(200, NOTHING);
        who.has(json!({"roles": []}));
        node.get(&format!("/people/{id}")).by(id).send().await.is(403, NOTHING);
        assert_eq!(node.stored(Kind::Person, id).unwrap().get(field), Some(&value));
    }
    let too_dear = format!("$2b$31{}", &PASSWORD_HASH[6..]);
    for (at, hash) in [
        bson::Bson::from(""),
        123456.into(),
        "$2b$oops".into(),
        bson::Bson::Null,
        PASSWORD.into(),
        too_dear.into(),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("CEN1{at}");
        let mut odd = person(&id, &["end_user"]);
        odd.insert("password", hash.clone());
        node.from_centre(Kind::Person, odd).await;
        for guess in [PASSWORD, "", "123456", "$2b$oops"] {
            let peer = IpAddr::from([198, 51, 100, u8::try_from(at).unwrap()]);
            node.get("/login").login(&id, guess).from(peer).send().await.is(401, NOTHING);
        }
        assert_eq!(node.stored(Kind::Person, &id).unwrap().get("password"), Some(&hash));
    }
}

#[tokio::test]
async fn odd_logins_are_401() {
    let node = TestNode::with_people().await;
    let long = "y".repeat(73);
    for user in ["ANA001", "NOBODY9", "ANA\0", "ANA001\0"] {
        for password in [long.as_str(), "a\0b"] {
            node.get("/login").login(user, password).send().await.is(401, NOTHING);
        }
    }
}

#[tokio::test]
async fn a_page_says_in_its_body_what_its_path_says() {
    let node = TestNode::with_people().await;
    for body in [json!({"id": "p2"}), json!({"_id": "p2", "id": "p1"}), json!({"id": 1})] {
        let answer = node.post("/pols/ANA001/p1", body).by("ANA001").send().await.is(422, NOTHING);
        assert!(["id", "_id"].contains(&answer.json()["field"].as_str().unwrap()));
    }
    for book in [json!("BOB002"), json!(""), json!(["ANA001"])] {
        let body = json!({"id": "p1", "book": book});
        node.post("/pols/ANA001/p1", body).by("ANA001").send().await.is_invalid("book");
    }
}

/// MyGNUHealth sends pages so that were made before its account was set, and again with each synchronization until they are
/// taken.
#[tokio::test]
async fn a_page_without_a_book_is_in_the_book_of_its_path() {
    let node = TestNode::with_people().await;
    for (body, status) in [(json!({"id": "p1", "book": null}), 201), (json!({"id": "p1", "book": null}), 200)]
    {
        let answer = node.post("/pols/ANA001/p1", body).by("ANA001").send().await;
        assert_eq!((answer.status, &answer.json()["book"]), (status, &json!("ANA001")));
    }
    for method in ["PATCH", "PUT"] {
        let body = json!({"id": "p1", "book": null, "summary": method});
        let answer = node.request(method, "/pols/ANA001/p1").by("ROOT004").json(&body).send().await;
        let page = answer.json();
        assert_eq!((&page["book"], &page["summary"]), (&json!("ANA001"), &json!(method)), "{method}");
    }
    // Where the path names nobody, null is no person, and takes none away.
    let document = json!({"fedacct": null});
    node.post("/personal-documents/d1", document.clone()).by("DOC003").send().await.is_invalid("fedacct");
    let made = node.post("/personal-documents/d1", json!({"fedacct": "ANA001"})).by("DOC003").send().await;
    assert_eq!(made.status, 201);
    node.patch("/personal-documents/d1", document).by("DOC003").send().await.is_invalid("fedacct");
}

#[tokio::test]
async fn ids_are_no_place_for_markup() {
    let node = TestNode::with_people().await;
    let markup = "%3Cscript%3E%20AAAA";
    node.post(&format!("/people/{markup}"), json!({})).by("DOC003").send().await.is_invalid("_id");
    node.post(&format!("/institutions/{markup}"), json!({})).by("DOC003").send().await.is_invalid("_id");
    let page = json!({"id": "<script> AAAA"});
    node.post(&format!("/pols/ANA001/{markup}"), page).by("DOC003").send().await.is_invalid("_id");
    // What the centre already holds under such an id is served.
    node.from_centre(Kind::Institution, doc! {"_id": "<script> AAAA", "name": "x"}).await;
    node.get(&format!("/institutions/{markup}")).by("DOC003").send().await.is(200, NOTHING);
    node.patch(&format!("/institutions/{markup}"), json!({"name": "y"}))
        .by("DOC003")
        .send()
        .await
        .is(200, &["update institution/<script> AAAA"]);
}

#[tokio::test]
async fn huge_and_deep_bodies_are_refused() {
    let node = TestNode::with_people().await;
    let post = |body: Vec<u8>| node.request("POST", "/institutions/x").by("DOC003").bytes(body).send();
    post(vec![b' '; 20 << 20]).await.is(413, NOTHING);
    post(b"{\"a\":".repeat(100_000)).await.is(422, NOTHING);
    post(b"[".repeat(100_000)).await.is(422, NOTHING);
    post(b"{\"a\": NaN}".to_vec()).await.is(400, NOTHING);
    post(b"{\"a\": \"\\u0000\"}".to_vec()).await.is_invalid("a");
    post(b"{\"a\\u0000\": 1}".to_vec()).await.is_invalid("a\0");
}

/// A centre that never answers.
struct Silent;

#[async_trait]
impl Hub for Silent {
    async fn open(&self) -> Result<Box<dyn Central>, CentralError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn the_state_of_the_centre_never_reaches_a_request() {
    let node = TestNode::start_with(|setup: &mut Setup| setup.hub = Some(Arc::new(Silent)));
    node.people().await;
    let round = async {
        let round = node.request("POST", "/sync/rounds").by("ROOT004").open().await;
        assert_eq!(round.status(), 200);
    };
    let requests = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let status = node.get("/sync/status").by("ROOT004").send().await;
        status.is(200, NOTHING).has(json!({"state": "running"}));
        for number in 0..20 {
            let patched = node.patch("/people/ANA001", json!({"n": number})).by("ANA001").send().await;
            patched.is(200, &["update people/ANA001"]);
        }
        node.get("/people").by("DOC003").send().await.is(200, NOTHING);
        let status = node.get("/sync/status").by("ROOT004").send().await;
        status.is(200, NOTHING).has(json!({"state": "running"}));
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(round, requests) }).await.unwrap();
}
