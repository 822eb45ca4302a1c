//! "CORS", and what becomes of writes that pages of other sites make.

use bson::doc;
use http_body_util::BodyExt as _;
use serde_json::json;
use thalamus_edge::domain::record::Kind;

use crate::rights::{path_of, routes};
use crate::support::api::{Answer, NOTHING, TestNode};

const PORTAL: &str = "https://portal.example.org";

async fn with_origins(origins: &[&str]) -> TestNode {
    let node = TestNode::start_with(|setup| {
        setup.settings.cors_allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    });
    node.people().await;
    node
}

async fn preflight(node: &TestNode, origin: &str) -> Answer {
    let call = node.request("OPTIONS", "/people/ANA001").header("origin", origin);
    call.header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .send()
        .await
}

#[tokio::test]
async fn nobody_is_allowed_unless_named() {
    let node = TestNode::with_people().await;
    preflight(&node, PORTAL).await.is(204, NOTHING).lacks_header("access-control-allow-origin");
    let read = node.get("/people").by("DOC003").header("origin", PORTAL).send().await.is(200, NOTHING);
    read.lacks_header("access-control-allow-origin").lacks_header("vary");
}

#[tokio::test]
async fn an_allowed_origin_may_ask_without_a_login_and_read() {
    let node = with_origins(&[PORTAL, "http://localhost:8080"]).await;
    let allowed = preflight(&node, PORTAL).await.is(204, NOTHING);
    assert_eq!(allowed.header("access-control-allow-origin"), PORTAL);
    assert_eq!(
        allowed.header("access-control-allow-methods"),
        "GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS"
    );
    let headers = "Authorization, Content-Type, If-Match, If-None-Match, X-Emergency-Reason";
    assert_eq!(allowed.header("access-control-allow-headers"), headers);
    assert!(allowed.body.is_empty());
    for (path, status) in [("/people", 200), ("/nothing", 404), ("/people/NOBODY9", 404)] {
        let answer = node.get(path).by("DOC003").header("origin", PORTAL).send().await.is(status, NOTHING);
        assert_eq!(answer.header("access-control-allow-origin"), PORTAL);
        assert_eq!(answer.header("access-control-expose-headers"), "ETag, Link, Location, Retry-After");
        assert_eq!(answer.header("vary"), "Origin");
    }
    let refused = node.get("/people").header("origin", PORTAL).send().await.is(401, NOTHING);
    assert_eq!(refused.header("access-control-allow-origin"), PORTAL);
    for other in [
        "https://evil.example",
        "null",
        "https://portal.example.org.evil.example",
        "HTTPS://portal.example.org",
    ] {
        preflight(&node, other).await.is(204, NOTHING).lacks_header("access-control-allow-origin");
        let read = node.get("/people").by("DOC003").header("origin", other).send().await.is(200, NOTHING);
        read.lacks_header("access-control-allow-origin");
        assert_eq!(read.header("vary"), "Origin");
    }
}

#[tokio::test]
async fn a_star_opens_reading_without_credentials_and_nothing_else() {
    let node = with_origins(&["*"]).await;
    let asked = preflight(&node, PORTAL).await.is(204, NOTHING);
    assert_eq!(asked.header("access-control-allow-origin"), "*");
    assert_eq!(asked.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
    assert_eq!(asked.header("access-control-allow-headers"), "If-None-Match");
    for path in ["/", "/people", "/nothing"] {
        for call in [node.get(path), node.get(path).by("DOC003"), node.get(path).header("origin", PORTAL)] {
            let answer = call.send().await;
            assert_eq!(answer.header("access-control-allow-origin"), "*");
            // Without this a browser shows no page an answer to a request with credentials.
            answer.lacks_header("access-control-allow-credentials");
        }
    }
    // A browser adds the Basic credentials that it remembers to what a form of any site posts.
    for (method, path) in [
        ("POST", "/people/EVIL001"),
        ("PATCH", "/people/ANA001"),
        ("PUT", "/people/ANA001"),
        ("DELETE", "/people/ANA001"),
        ("POST", "/users/evil@local"),
        ("POST", "/users/ANA001/password"),
        ("POST", "/password/ROOT004"),
        ("POST", "/session"),
        ("POST", "/session/end"),
        ("DELETE", "/session"),
        ("POST", "/sync/pause"),
        ("POST", "/backups"),
    ] {
        for origin in [PORTAL, "null", "http://box.local:8443", "capacitor://localhost", "*"] {
            let call = node.request(method, path).by("ROOT004").json(&json!({"roles": ["root"]}));
            let call = call.header("host", "box.local:8443").header("origin", origin);
            call.send().await.is(403, NOTHING).has(json!({"code": "cross_origin"}));
        }
    }
    let own = node.patch("/people/ANA001", json!({"n": 1})).by("ANA001").header("host", "box.local:8443");
    own.header("origin", "https://box.local:8443").send().await.is(200, &["update people/ANA001"]);
}

/// The same on every route that there is.
#[tokio::test]
async fn a_star_opens_no_write_on_any_route() {
    let node = with_origins(&["*"]).await;
    let mut all = routes(&node).await;
    // Those that need no login.
    all.extend(
        [("/link/x", "POST"), ("/session", "POST"), ("/session", "DELETE"), ("/session/end", "POST")]
            .map(|(path, method)| (path, method.to_owned())),
    );
    let (mut read, mut refused) = (0, 0);
    for (pattern, method) in all {
        let path = path_of(pattern, &method);
        let call = node.request(&method, &path).by("ROOT004").header("host", "box.local:8443");
        let answer = call.header("origin", PORTAL).bytes("{}").open().await;
        let cell = format!("{method} {path}");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*", "{cell}");
        assert!(!answer.headers().contains_key("access-control-allow-credentials"), "{cell}");
        let is_read = ["GET", "HEAD", "OPTIONS"].contains(&method.as_str());
        assert_eq!(answer.status() == 403, !is_read, "{cell}: {}", answer.status());
        let text = answer.into_body();
        if is_read {
            read += 1;
        } else {
            let text = text.collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&text).contains("cross_origin"), "{cell}");
            refused += 1;
        }
    }
    assert!(read > 60 && refused > 40, "{read} and {refused}");
}

/// Beside `*`, pages that are named may do what named pages may.
#[tokio::test]
async fn a_named_page_may_write_beside_a_star() {
    let node = with_origins(&["*", PORTAL]).await;
    let named = preflight(&node, PORTAL).await.is(204, NOTHING);
    assert_eq!(named.header("access-control-allow-origin"), PORTAL);
    assert!(named.header("access-control-allow-headers").contains("Authorization"));
    assert_eq!(named.header("vary"), "Origin");
    let other = preflight(&node, "https://evil.example").await.is(204, NOTHING);
    assert_eq!(other.header("access-control-allow-origin"), "*");
    assert_eq!(other.header("access-control-allow-headers"), "If-None-Match");
    let write =
        |origin: &str| node.patch("/people/ANA001", json!({"n": 1})).by("ANA001").header("origin", origin);
    write("https://evil.example").send().await.is(403, NOTHING);
    write(PORTAL).send().await.is(200, &["update people/ANA001"]);
}

#[tokio::test]
async fn origins_of_packaged_apps_may_be_named() {
    let node = with_origins(&["capacitor://localhost", "ionic://localhost"]).await;
    for (n, origin) in ["capacitor://localhost", "ionic://localhost"].into_iter().enumerate() {
        let allowed = preflight(&node, origin).await.is(204, NOTHING);
        assert_eq!(allowed.header("access-control-allow-origin"), origin);
        let write = node.patch("/people/ANA001", json!({"n": n})).by("ANA001").header("origin", origin);
        let write = write.header("sec-fetch-site", "cross-site").send().await;
        write.is(200, &["update people/ANA001"]);
    }
    for other in ["tauri://localhost", "capacitor://localhost.evil", "https://localhost", "capacitor://"] {
        let write = node.patch("/people/ANA001", json!({"n": 9})).by("ANA001").header("host", "localhost");
        let status = if other == "https://localhost" { 200 } else { 403 };
        assert_eq!(write.header("origin", other).send().await.status, status, "{other}");
    }
}

/// Scheme, host and port make an origin; a proxy that is believed says which scheme the client used. What the listener
/// leaves in `X-Forwarded-Proto` is what such a proxy has said.
#[tokio::test]
async fn an_origin_is_scheme_host_and_port() {
    let encrypted = TestNode::with_people().await;
    let plain = TestNode::start_with(|setup| setup.settings.serves_https = false);
    plain.people().await;
    let mut number = 0;
    for (node, proxy, host, origin, is_own) in [
        (&encrypted, None, "box.local:8443", "https://box.local:8443", true),
        (&encrypted, None, "box.local:8443", "http://box.local:8443", false),
        (&encrypted, None, "box.local:8443", "https://box.local", false),
        (&encrypted, None, "box.local:8443", "https://box.local:9999", false),
        (&encrypted, None, "box.local:8443", "https://other.local:8443", false),
        (&encrypted, None, "box.local:8443", "ftp://box.local:8443", false),
        (&encrypted, None, "box.local:8443", "box.local:8443", false),
        (&encrypted, None, "BOX.local", "https://box.local", true),
        (&encrypted, None, "box.local:443", "https://box.local", true),
        (&encrypted, None, "box.local:80", "https://box.local", false),
        (&encrypted, None, "[::1]:8443", "https://[::1]:8443", true),
        (&encrypted, None, "box.local", "http://box.local", false),
        (&encrypted, Some("https"), "box.local", "https://box.local", true),
        (&encrypted, Some("http"), "box.local", "https://box.local", false),
        (&encrypted, Some("http"), "box.local", "http://box.local", true),
        (&plain, Some("https"), "box.local", "https://box.local", true),
        (&plain, Some("https"), "box.local", "http://box.local", false),
        (&plain, None, "box.local", "http://box.local", true),
        (&plain, None, "box.local:80", "http://box.local", true),
        (&plain, None, "box.local:80", "https://box.local", false),
        (&plain, None, "box.local:8080", "http://box.local", false),
        // A proxy with HTTPS that nobody named: nothing else answers at this host and port.
        (&plain, None, "box.local", "https://box.local", true),
    ] {
        number += 1;
        let call = node.patch("/people/ANA001", json!({"n": number})).by("ANA001");
        let mut call = call.header("host", host).header("origin", origin);
        if let Some(proto) = proxy {
            call = call.header("x-forwarded-proto", proto);
        }
        let status = if is_own { 200 } else { 403 };
        assert_eq!(call.send().await.status, status, "{proxy:?} {host} {origin}");
    }
    let twice = encrypted.patch("/people/ANA001", json!({"n": 0})).by("ANA001").header("host", "box.local");
    let twice = twice.header("origin", "https://box.local").header("origin", "https://evil.example");
    twice.send().await.is(403, NOTHING);
}

#[tokio::test]
async fn options_without_the_marks_of_a_preflight_needs_a_login() {
    let node = with_origins(&["*"]).await;
    node.request("OPTIONS", "/people").send().await.is(401, NOTHING);
    node.request("OPTIONS", "/people").header("origin", PORTAL).send().await.is(401, NOTHING);
    node.request("OPTIONS", "/people")
        .header("access-control-request-method", "GET")
        .send()
        .await
        .is(401, NOTHING);
}

#[tokio::test]
async fn writes_of_other_sites_are_refused() {
    let node = with_origins(&[PORTAL]).await;
    let write = |method: &str| node.request(method, "/people/ANA001").by("ROOT004").json(&json!({"n": 1}));
    for method in ["POST", "PATCH", "PUT", "DELETE", "FOO"] {
        for origin in
            ["https://evil.example", "null", "http://", "*", "", "https://localhost:8443.evil.example"]
        {
            let call = write(method).header("host", "localhost:8443").header("origin", origin);
            call.send().await.is(403, NOTHING).has(json!({"code": "cross_origin"}));
        }
        for site in ["cross-site", "same-site"] {
            let call = write(method).header("host", "localhost:8443").header("sec-fetch-site", site);
            call.send().await.is(403, NOTHING).has(json!({"code": "cross_origin"}));
        }
    }
    // A foreign form without credentials is told the same.
    let form = node.request("POST", "/password/ANA001").header("origin", "https://evil.example");
    form.send().await.is(403, NOTHING);
    let reads = node.get("/people/ANA001").by("ANA001").header("sec-fetch-site", "cross-site");
    reads.header("origin", "https://evil.example").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn writes_of_the_own_site_and_of_allowed_ones_pass() {
    let node = with_origins(&[PORTAL]).await;
    let mut number = 0;
    let mut write = || {
        number += 1;
        node.patch("/people/ANA001", json!({"n": number})).by("ANA001")
    };
    let changed = &["update people/ANA001"];
    write().send().await.is(200, changed);
    write().header("origin", PORTAL).header("sec-fetch-site", "cross-site").send().await.is(200, changed);
    let call = write().header("host", "box.local:8443").header("origin", "https://box.local:8443");
    call.header("sec-fetch-site", "same-origin").send().await.is(200, changed);
    write().header("host", "box.local").header("sec-fetch-site", "none").send().await.is(200, changed);
}

/// HTTP/2 has no Host header: the host stands in the request's target.
#[tokio::test]
async fn the_own_site_is_known_over_http_2_too() {
    let node = TestNode::with_people().await;
    let url = "https://box.local:8443/people/ANA001";
    let call = node.patch(url, json!({"n": 1})).by("ANA001").header("origin", "https://box.local:8443");
    call.send().await.is(200, &["update people/ANA001"]);
    let call = node.patch(url, json!({"n": 2})).by("ANA001").header("origin", "https://other.local:8443");
    call.send().await.is(403, NOTHING);
}

/// Browsers that ask without CORS, as for pictures and scripts, send no `Origin`, but a password that they remember.
#[tokio::test]
async fn nothing_is_loaded_into_pages_of_others() {
    let policy = async |node: &TestNode, path: &str, origin: Option<&str>| {
        let call = node.get(path).by("DOC003");
        let call = match origin {
            Some(origin) => call.header("origin", origin),
            None => call,
        };
        call.send().await.header("cross-origin-resource-policy").to_owned()
    };
    let evil = "https://evil.example";
    for origins in [&[][..], &["*"], &[PORTAL], &["*", PORTAL]] {
        let node = with_origins(origins).await;
        node.record(Kind::PersonalDocument, doc! {"_id": "d1", "person": "ANA001"}).await;
        let upload = node.request("PUT", "/personal-documents/d1/content").by("DOC003").bytes("bytes");
        assert_eq!(upload.send().await.status, 201);
        let of_named = if origins.contains(&PORTAL) { "cross-origin" } else { "same-origin" };
        for path in
            ["/people/ANA001", "/people", "/personal-documents/d1/content", "/", "/nothing", "/people/NO"]
        {
            assert_eq!(policy(&node, path, None).await, "same-origin", "{path} {origins:?}");
            assert_eq!(policy(&node, path, Some(evil)).await, "same-origin", "{path} {origins:?}");
            assert_eq!(policy(&node, path, Some(PORTAL)).await, of_named, "{path} {origins:?}");
        }
    }
}
