//! Logging in with a browser, and everything by which somebody else might get in.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::http::BrowserSessions;

use crate::support::api::{Answer, Call, NOTHING, PASSWORD, TestNode, elapse, pass_time};

/// Both clocks go on.
fn time_passes(by: Duration) {
    pass_time(by);
    elapse(by);
}

const MINUTE: Duration = Duration::from_secs(60);
const FORM: &str = "application/x-www-form-urlencoded";
const RIGHT: &str = "a+cradle+in+Milano";

fn login<'a>(node: &'a TestNode, account: &str, password: &str) -> Call<'a> {
    let form = format!("account={account}&password={password}");
    node.request("POST", "/session").header("content-type", FORM).bytes(form)
}

/// What a browser sends of what it was told to keep.
fn kept(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

async fn logged_in(node: &TestNode, account: &str) -> String {
    kept(&login(node, account, RIGHT).send().await.is(303, NOTHING))
}

async fn token(node: &TestNode, cookie: &str) -> String {
    let page = node.get("/session").header("cookie", cookie).send().await.is(200, NOTHING);
    page.header("x-csrf-token").to_owned()
}

async fn status(node: &TestNode, cookie: &str) -> u16 {
    node.get("/login").header("cookie", cookie).send().await.status
}

/// The entries of the audit trail about logins and refusals.
async fn audited(node: &TestNode) -> Vec<String> {
    node.node.store.flush_notes().await.unwrap();
    let list = node.get("/audit?limit=1000&after=0").by_operator().send().await.json();
    let entries = list["entries"].as_array().unwrap();
    let line = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        let words = ["who", "verb", "outcome", "detail"].map(text).join(" ");
        words.trim_end().to_owned()
    };
    let of_sessions = |entry: &&Value| {
        ["login", "logoff", "session_end", "login_failed", "throttled", "denied"]
            .contains(&entry["verb"].as_str().unwrap())
    };
    entries.iter().filter(of_sessions).map(line).collect()
}

#[tokio::test]
async fn a_browser_logs_in_works_and_logs_off() {
    let node = TestNode::with_people().await;
    let welcome = node.get("/").send().await.is(200, NOTHING);
    assert!(welcome.text().contains("href=\"/session\""));
    let form = node.get("/session").send().await.is(200, NOTHING);
    assert!(form.text().contains("name=\"password\"") && !form.text().contains("<script"));
    assert!(form.header("content-security-policy").contains("default-src 'none'"));
    form.lacks_header("x-csrf-token").lacks_header("set-cookie").lacks_header("www-authenticate");

    let answer = login(&node, "ana001", RIGHT).send().await.is(303, NOTHING);
    assert_eq!(answer.header("location"), "/session");
    assert_eq!(answer.header("cache-control"), "no-store");
    let (cookie, attributes) = answer.header("set-cookie").split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Strict");
    assert_eq!(cookie.strip_prefix("__Host-session=").unwrap().len(), 43);

    let page = node.get("/session").header("cookie", cookie).send().await.is(200, NOTHING);
    assert!(page.text().contains("ANA001") && page.text().contains("/password/ANA001"));
    let token = page.header("x-csrf-token");
    // Among other cookies, and in several headers.
    let read = node.get("/people/ANA001").header("cookie", "theme=dark").header("cookie", cookie);
    read.send().await.is(200, NOTHING).has(json!({"id": "ANA001"}));
    node.get("/people/BOB002").header("cookie", cookie).send().await.is(403, NOTHING);
    let patch = node.patch("/people/ANA001", json!({"education": "university"}));
    let patch = patch.header("cookie", cookie).header("x-csrf-token", token);
    patch.send().await.is(200, &["update people/ANA001"]);

    let off = node.request("DELETE", "/session").header("cookie", cookie);
    let off = off.header("x-csrf-token", token).send().await.is(204, NOTHING);
    assert!(
        off.header("set-cookie").starts_with("__Host-session=; ")
            && off.header("set-cookie").ends_with("Max-Age=0")
    );
    assert_eq!(
        audited(&node).await,
        [
            "person:ANA001 login ok",
            "person:ANA001 denied forbidden GET /people/{person_id}",
            "person:ANA001 logoff ok"
        ]
    );
}

#[tokio::test]
async fn what_was_logged_off_is_of_no_use() {
    let node = TestNode::with_people().await;
    let cookie = logged_in(&node, "ANA001").await;
    let other = logged_in(&node, "ANA001").await;
    let form = format!("token={}", token(&node, &cookie).await);
    let end = |form: &str| {
        node.request("POST", "/session/end").header("cookie", &cookie).bytes(form.to_owned()).send()
    };
    let ended = end(&form).await.is(303, NOTHING);
    assert_eq!(kept(&ended), "__Host-session=");
    let refused = node.get("/login").header("cookie", &cookie).send().await.is(401, NOTHING);
    assert_eq!(
        refused.header("www-authenticate"),
        "Basic realm=\"Authentication Required\", charset=\"UTF-8\""
    );
    assert_eq!(status(&node, &other).await, 200, "the other browser's goes on");
    // A second click, after the end, leads to the same place.
    end(&form).await.is(303, NOTHING);
    let login_form = node.get("/session").header("cookie", &cookie).send().await.is(200, NOTHING);
    assert!(login_form.text().contains("name=\"password\""));
    assert!(audited(&node).await.contains(&"nobody login_failed unknown_session".to_owned()));
}

/// The cookie alone changes nothing: a browser sends it whoever has made the page.
#[tokio::test]
async fn a_write_needs_the_token_of_its_session() {
    let node = TestNode::with_people().await;
    let cookie = logged_in(&node, "ANA001").await;
    let own = token(&node, &cookie).await;
    let bobs = token(&node, &logged_in(&node, "BOB002").await).await;
    let of_another_browser = token(&node, &logged_in(&node, "ANA001").await).await;
    let (expiry, code) = own.split_once('.').unwrap();
    let later = format!("{}.{code}", expiry.parse::<i64>().unwrap() + 1);
    let write = |method: &str, path: &str, token: Option<&str>| {
        let call = node.request(method, path).header("cookie", &cookie).json(&json!({"education": "x"}));
        match token {
            Some(token) => call.header("x-csrf-token", token).send(),
            None => call.send(),
        }
    };
    let bad =
        [None, Some(""), Some("."), Some(&*bobs), Some(&*of_another_browser), Some(&*later), Some(code)];
    for token in bad {
        for (method, path) in [
            ("PATCH", "/people/ANA001"),
            ("PUT", "/people/ANA001"),
            ("DELETE", "/people/ANA001"),
            ("POST", "/nowhere"),
            ("DELETE", "/session"),
        ] {
            let refused = write(method, path, token).await.is(403, NOTHING);
            assert_eq!(refused.json()["code"], "csrf_token", "{method} {path} {token:?}");
        }
        let form = format!("token={}", token.unwrap_or_default());
        let end = node.request("POST", "/session/end").header("cookie", &cookie).bytes(form);
        end.send().await.is(403, NOTHING);
    }
    assert_eq!(status(&node, &cookie).await, 200);
    let told = audited(&node).await;
    assert!(
        told.contains(&"person:ANA001 denied form_expired PATCH /people/{person_id}".to_owned()),
        "{told:?}"
    );
    assert!(told.contains(&"person:ANA001 denied form_expired POST /session/end".to_owned()), "{told:?}");
    write("PATCH", "/people/ANA001", Some(&own)).await.is(200, &["update people/ANA001"]);
    // It outlives half an hour less than its session does.
    for _ in 0..3 {
        time_passes(10 * MINUTE);
        assert_eq!(status(&node, &cookie).await, 200);
    }
    write("PATCH", "/people/ANA001", Some(&own)).await.is(200, NOTHING);
    time_passes(Duration::from_secs(1));
    write("PATCH", "/people/ANA001", Some(&own)).await.is(403, NOTHING);
    let fresh = token(&node, &cookie).await;
    write("PATCH", "/people/ANA001", Some(&fresh)).await.is(200, NOTHING);
}

#[tokio::test]
async fn a_session_ends_by_itself() {
    let node = TestNode::with_people().await;
    let idle = logged_in(&node, "ANA001").await;
    time_passes(15 * MINUTE - Duration::from_secs(1));
    assert_eq!(status(&node, &idle).await, 200);
    time_passes(15 * MINUTE);
    assert_eq!(status(&node, &idle).await, 401);
    assert_eq!(status(&node, &idle).await, 401);

    let old = logged_in(&node, "BOB002").await;
    for _ in 0..71 {
        time_passes(10 * MINUTE);
        assert_eq!(status(&node, &old).await, 200);
    }
    time_passes(10 * MINUTE);
    assert_eq!(status(&node, &old).await, 401);

    // Nobody has to come back for the trail to tell it.
    logged_in(&node, "DOC003").await;
    time_passes(15 * MINUTE);
    node.node.end_old_sessions();
    assert_eq!(
        audited(&node).await,
        [
            "person:ANA001 login ok",
            "person:ANA001 session_end ok idle",
            "nobody login_failed unknown_session",
            "person:BOB002 login ok",
            "person:BOB002 session_end ok too old",
            "person:DOC003 login ok",
            "person:DOC003 session_end ok idle",
        ]
    );
}

#[tokio::test]
async fn a_session_ends_with_what_the_account_was() {
    let node = TestNode::with_people().await;
    let changes = [
        json!({"password": "another cradle"}),
        json!({"roles": ["end_user", "health_professional"]}),
        json!({"active": false}),
    ];
    for (change, account) in changes.into_iter().zip(["ANA001", "BOB002", "DOC003"]) {
        let cookie = logged_in(&node, account).await;
        // What it does not depend on ends nothing.
        let path = format!("/people/{account}");
        let phone = node.patch(&path, json!({"phone": "555"})).by("ROOT004").send().await;
        phone.is(200, &[&format!("update people/{account}")]);
        assert_eq!(status(&node, &cookie).await, 200);
        node.patch(&path, change).by("ROOT004").send().await.is(200, &[&format!("update people/{account}")]);
        assert_eq!(status(&node, &cookie).await, 401, "{account}");
    }
    let cookie = logged_in(&node, "ROOT004").await;
    node.restore(Kind::Person, "ROOT004", None).await;
    assert_eq!(status(&node, &cookie).await, 401);
    assert!(
        audited(&node).await.contains(&"person:ROOT004 session_end ok the account has changed".to_owned())
    );
}

/// A session that somebody else has put there is never the one that begins.
#[tokio::test]
async fn nobody_chooses_anothers_session() {
    let node = TestNode::with_people().await;
    let planted = logged_in(&node, "BOB002").await;
    for before in [&planted, "__Host-session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = login(&node, "ANA001", RIGHT).header("cookie", before).send().await.is(303, NOTHING);
        assert_ne!(kept(&answer), *before);
        assert_eq!(status(&node, before).await, 401, "{before}");
        assert_eq!(status(&node, &kept(&answer)).await, 200);
    }
}

#[tokio::test]
async fn only_one_cookie_of_the_right_name_counts() {
    let node = TestNode::with_people().await;
    let cookie = logged_in(&node, "ANA001").await;
    let secret = cookie.strip_prefix("__Host-session=").unwrap();
    for wrong in [
        format!("session={secret}"),
        format!("__Secure-session={secret}"),
        format!("__host-session={secret}"),
        format!("__Host-session-x={secret}"),
        format!("__Host-session={secret}A"),
        "__Host-session=".to_owned(),
        format!("{cookie}; {cookie}"),
        format!("{cookie}; __Host-session=x"),
    ] {
        assert_eq!(status(&node, &wrong).await, 401, "{wrong}");
        let form = node.get("/session").header("cookie", &wrong).send().await.is(200, NOTHING);
        form.lacks_header("x-csrf-token");
    }
    let two = node.get("/login").header("cookie", &cookie).header("cookie", "__Host-session=x");
    two.send().await.is(401, NOTHING);
    assert_eq!(status(&node, &format!("a=b;{cookie};c")).await, 200);
}

#[tokio::test]
async fn pages_of_other_sites_neither_log_in_nor_off() {
    let node = TestNode::with_people().await;
    let cookie = logged_in(&node, "ANA001").await;
    let token = token(&node, &cookie).await;
    for (name, value) in [("origin", "https://elsewhere.example"), ("sec-fetch-site", "cross-site")] {
        let refused = login(&node, "ANA001", RIGHT).header(name, value).send().await.is(403, NOTHING);
        refused.lacks_header("set-cookie").lacks_header("location");
        let end = node.request("POST", "/session/end").header("cookie", &cookie).header(name, value);
        end.bytes(format!("token={token}")).send().await.is(403, NOTHING);
        let write = node.patch("/people/ANA001", json!({"education": "x"})).header("cookie", &cookie);
        write.header("x-csrf-token", &token).header(name, value).send().await.is(403, NOTHING);
    }
    assert_eq!(status(&node, &cookie).await, 200);
    // What a page shows or runs names no origin; browsers say where it is.
    for (site, mode, dest, expected) in [
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "script", 403),
        ("same-site", "navigate", "iframe", 403),
        ("cross-site", "navigate", "embed", 403),
        ("same-site", "navigate", "", 403),
        ("same-site", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),
        ("same-origin", "no-cors", "image", 200),
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
    ] {
        let read = node.get("/people/ANA001").header("cookie", &cookie).header("sec-fetch-site", site);
        let read = read.header("sec-fetch-mode", mode).header("sec-fetch-dest", dest);
        println!("{site} {mode} {dest}");
        read.send().await.is(expected, NOTHING);
    }
}

/// Clients that send a password are answered as if there were no sessions.
#[tokio::test]
async fn a_password_counts_before_a_session() {
    let node = TestNode::with_people().await;
    let cookie = logged_in(&node, "ANA001").await;
    let both = |user: &str, password: &str| {
        node.get("/people/BOB002").header("cookie", &cookie).login(user, password).send()
    };
    both("BOB002", PASSWORD).await.is(200, NOTHING);
    both("ANA001", "wrong").await.is(401, NOTHING);
    let write = node.patch("/people/BOB002", json!({"education": "x"})).by("BOB002");
    write.header("cookie", &cookie).send().await.is(200, &["update people/BOB002"]);
    let bearer = node.get("/login").header("cookie", &cookie).header("authorization", "Bearer x");
    bearer.send().await.is(401, NOTHING);
    // There is no session to end for somebody with a password.
    node.request("DELETE", "/session").by("ANA001").send().await.is(404, NOTHING);
}

/// The form is no other door: the same waits, and the same words for every reason.
#[tokio::test]
async fn guessing_by_the_form_is_guessing() {
    let node = TestNode::with_people().await;
    node.patch("/people/BOB002", json!({"active": false})).by("ROOT004").send().await;
    let peer = IpAddr::from([192, 0, 2, 77]);
    let mut pages = Vec::new();
    for (account, password) in [("ANA001", "wrong"), ("NOBODY9", RIGHT), ("BOB002", RIGHT), ("", "")] {
        let refused = login(&node, account, password).from(peer).send().await.is(403, NOTHING);
        refused.lacks_header("set-cookie").lacks_header("www-authenticate");
        pages.push(refused.text());
    }
    assert!(pages[0].contains("account or the password is wrong"));
    assert!(pages.iter().all(|page| *page == pages[0]));
    for _ in 0..4 {
        login(&node, "ANA001", "wrong").from(peer).send().await.is(403, NOTHING);
    }
    let busy = login(&node, "ANA001", RIGHT).from(peer).send().await.is(429, NOTHING);
    assert!(busy.header("retry-after").parse::<u64>().unwrap() >= 1);
    node.get("/login").by("ANA001").from(peer).send().await.is(429, NOTHING);
    let told = audited(&node).await;
    assert!(told.contains(&"nobody login_failed refused".to_owned()), "{told:?}");
    assert!(told.contains(&"nobody throttled too_many_attempts".to_owned()), "{told:?}");
}

/// Without JavaScript, from the login to the changed password, which ends the session.
#[tokio::test]
async fn the_password_form_works_in_a_session() {
    let node = TestNode::with_people().await;
    let cookie = logged_in(&node, "ANA001").await;
    let page = node.get("/password/ANA001").header("cookie", &cookie).send().await.is(200, NOTHING);
    let (_, rest) =
        page.text().split_once("name=\"csrf_token\" value=\"").map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    let token = rest.split_once('"').unwrap().0.to_owned();
    let submit = |token: &str| {
        let form = format!("token={token}&current={RIGHT}&password=one+cradle&again=one+cradle");
        node.request("POST", "/password/ANA001").header("cookie", &cookie).bytes(form).send()
    };
    submit("x").await.is(403, NOTHING);
    submit(&token).await.is(200, &["update people/ANA001"]);
    assert_eq!(status(&node, &cookie).await, 401);
    let again = login(&node, "ANA001", "one+cradle").send().await.is(303, NOTHING);
    assert_eq!(status(&node, &kept(&again)).await, 200);
}

/// What goes on for long ends with the session, not only at the next request.
#[tokio::test]
async fn a_stream_of_changes_ends_with_the_session() {
    let node = TestNode::with_people().await;
    let cookie = logged_in(&node, "ROOT004").await;
    let token = token(&node, &cookie).await;
    let stream = node.get("/changes").header("cookie", &cookie).header("accept", "text/event-stream");
    let mut body = stream.open().await.into_body();
    let mut shown = Vec::new();
    for _ in 0..4 {
        shown.extend_from_slice(body.frame().await.unwrap().unwrap().data_ref().unwrap());
    }
    let off = node.request("DELETE", "/session").header("cookie", &cookie).header("x-csrf-token", &token);
    off.send().await.is(204, NOTHING);
    node.record(Kind::Institution, bson::doc! {"_id": "i9"}).await;
    while let Some(Ok(frame)) = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap() {
        shown.extend_from_slice(frame.data_ref().unwrap());
    }
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("ROOT004") && !shown.contains("i9"), "{shown}");
}

#[tokio::test]
async fn a_technician_logs_in_too() {
    let node = TestNode::with_people().await;
    let add = node.post("/users/tech", json!({"roles": ["root"], "local": true, "password": PASSWORD}));
    add.by_operator().send().await.is(201, NOTHING);
    let cookie = logged_in(&node, "tech%40local").await;
    let page = node.get("/session").header("cookie", &cookie).send().await.is(200, NOTHING);
    assert!(page.text().contains("tech@local") && page.text().contains("/password/tech%40local"));
    node.get("/users").header("cookie", &cookie).send().await.is(200, NOTHING);
}

#[tokio::test]
async fn without_a_private_line_or_the_wish_there_are_none() {
    let plain = TestNode::start_with(|setup| {
        setup.settings.browser_sessions = BrowserSessions::OverPlainHttp;
    });
    plain.people().await;
    assert!(!plain.get("/").send().await.text().contains("/session"));
    plain.get("/session").send().await.is(403, NOTHING).has(json!({"code": "plain_http"}));
    let refused = login(&plain, "ANA001", RIGHT).send().await.is(403, NOTHING);
    refused.has(json!({"code": "plain_http"})).lacks_header("set-cookie");

    let off = TestNode::start_with(|setup| setup.settings.browser_sessions = BrowserSessions::Off);
    off.people().await;
    let nowhere = off.get("/nowhere").send().await.is(401, NOTHING);
    for (method, path) in [("GET", "/session"), ("POST", "/session"), ("POST", "/session/end")] {
        let answer = off.request(method, path).bytes("account=ANA001").send().await.is(401, NOTHING);
        assert_eq!(answer.json(), nowhere.json(), "{method} {path}");
    }
    off.get("/session").by("ANA001").send().await.is(404, NOTHING);
}

/// Browsers send the cookie to every port of its host, whatever page asks.
#[tokio::test]
async fn a_page_of_another_port_gets_nothing_by_a_session() {
    let portal = "https://portal.example.org";
    let node = TestNode::start_with(|setup| {
        setup.settings.cors_allowed_origins = vec!["*".to_owned(), portal.to_owned()];
    });
    node.people().await;
    let cookie = logged_in(&node, "ANA001").await;
    let token = token(&node, &cookie).await;
    let from = |method: &str, path: &str, origin: &str| {
        let call = node.request(method, path).header("cookie", &cookie).header("x-csrf-token", &token);
        call.header("host", "box.local:8443").header("origin", origin).json(&json!({"n": 1}))
    };
    for origin in ["https://box.local:9999", "http://box.local:8443", "https://evil.example", "null"] {
        for (method, path) in [
            ("GET", "/people/ANA001"),
            ("HEAD", "/people/ANA001"),
            ("PATCH", "/people/ANA001"),
            ("GET", "/login"),
        ] {
            from(method, path, origin).send().await.is(403, NOTHING);
        }
        from("GET", "/session", origin).send().await.is(200, NOTHING).lacks_header("x-csrf-token");
    }
    for origin in ["https://box.local:8443", portal] {
        from("GET", "/people/ANA001", origin).send().await.is(200, NOTHING);
    }
    from("PATCH", "/people/ANA001", portal).send().await.is(200, &["update people/ANA001"]);
}

/// A browser that was left open gives nobody the account: every way to a new password of one's own asks for the old one.
#[tokio::test]
async fn a_session_changes_its_own_password_only_with_the_current_one() {
    let node = TestNode::with_people().await;
    let new = "one cradle in Torino";
    let body = |current: Value| {
        let mut body = json!({"password": new, "roles": ["root"], "link": true, "_id": "ROOT004"});
        if !current.is_null() {
            body["current_password"] = current;
        }
        body
    };
    for (method, path, fields, done) in [
        ("PATCH", "/people/ROOT004", &["password"][..], 200),
        ("PATCH", "/people/root004", &["password"], 200),
        ("PUT", "/people/ROOT004", &["password", "_id"], 200),
        ("POST", "/users/ROOT004/password", &["password"], 204),
        ("POST", "/users/ROOT004", &["password", "roles"], 200),
        ("POST", "/users/ROOT004", &["link", "roles"], 200),
        ("POST", "/users/root004/link", &[], 201),
    ] {
        let cookie = logged_in(&node, "ROOT004").await;
        let other = logged_in(&node, "ROOT004").await;
        let token = token(&node, &cookie).await;
        node.get("/login").by("ROOT004").send().await.is(200, NOTHING);
        let send = |current: Value| {
            let mut sent = body(current);
            let keep = |name: &str| fields.contains(&name) || name == "current_password";
            sent.as_object_mut().unwrap().retain(|name, _| keep(name));
            let call = node.request(method, path).json(&sent);
            call.header("cookie", &cookie).header("x-csrf-token", &token).send()
        };
        for current in [Value::Null, json!(""), json!("wrong"), json!(1), json!([PASSWORD])] {
            send(current).await.is_invalid("current_password");
        }
        assert_eq!(send(json!(PASSWORD)).await.status, done, "{method} {path} {fields:?}");
        let stored = node.stored(Kind::Person, "ROOT004").unwrap();
        assert!(!stored.contains_key("current_password"), "{stored}");
        if fields.contains(&"password") {
            // Everything that was let in by the password of before.
            assert_eq!((status(&node, &cookie).await, status(&node, &other).await), (401, 401));
            node.get("/login").by("ROOT004").send().await.is(401, NOTHING);
            node.get("/login").login("ROOT004", new).send().await.is(200, NOTHING);
        }
        elapse(11 * MINUTE);
        let back = node.post("/users/ROOT004/password", json!({"password": PASSWORD})).by_operator();
        assert_eq!(back.send().await.status, 204);
    }
    // Another's, by root: nobody knows that one's current password but they.
    let cookie = logged_in(&node, "ROOT004").await;
    let token = token(&node, &cookie).await;
    for (method, path, done) in [
        ("PATCH", "/people/ANA001", 200),
        ("POST", "/users/BOB002/password", 204),
        ("POST", "/users/BOB002/link", 201),
    ] {
        let call = node.request(method, path).json(&json!({"password": new}));
        let answer = call.header("cookie", &cookie).header("x-csrf-token", &token).send().await;
        assert_eq!(answer.status, done, "{method} {path}: {}", answer.text());
    }
    // Basic has given it with this request; what it gives besides must be right, and is not stored.
    let patch = |body: Value| node.patch("/people/DOC003", body).by("DOC003").send();
    patch(json!({"password": new, "current_password": "wrong"})).await.is_invalid("current_password");
    patch(json!({"current_password": PASSWORD})).await.is_invalid("current_password");
    patch(json!({"password": new, "current_password": PASSWORD})).await.is(200, &["update people/DOC003"]);
    assert!(!node.stored(Kind::Person, "DOC003").unwrap().contains_key("current_password"));
}

/// Technicians have accounts that are no records.
#[tokio::test]
async fn a_technicians_session_needs_the_current_password_too() {
    let node = TestNode::with_people().await;
    let account = json!({"roles": ["root"], "password": PASSWORD});
    node.post("/users/tess@local", account).by_operator().send().await.is(201, NOTHING);
    let cookie = logged_in(&node, "tess@local").await;
    let token = token(&node, &cookie).await;
    let send = |path: &str, body: Value| {
        let call = node.post(path, body).header("cookie", &cookie).header("x-csrf-token", &token);
        call.send()
    };
    let new = "one cradle in Torino";
    for path in ["/users/tess@local/password", "/users/TESS@LOCAL/password", "/users/tess@local/link"] {
        send(path, json!({"password": new})).await.is_invalid("current_password");
    }
    for id in ["tess@local", "Tess@local", "tess"] {
        let body = json!({"password": new, "roles": ["root"], "local": true});
        send(&format!("/users/{id}"), body).await.is_invalid("current_password");
    }
    let body = json!({"password": new, "current_password": PASSWORD});
    send("/users/tess@local/password", body).await.is(204, NOTHING);
    assert_eq!(status(&node, &cookie).await, 401);
}
