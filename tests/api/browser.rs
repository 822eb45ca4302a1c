//! What people see who look at the node with a browser: pages, and a way on from each.

use serde_json::json;
use thalamus_edge::http::BrowserSessions;

use crate::support::api::{Answer, Call, NOTHING, TestNode};

/// What browsers ask for when somebody follows a link or sends a form.
const NAVIGATING: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const FORM: &str = "application/x-www-form-urlencoded";

fn navigating<'a>(node: &'a TestNode, method: &str, path: &str) -> Call<'a> {
    node.request(method, path).header("accept", NAVIGATING)
}

fn is_page(answer: &Answer, text: &str) {
    assert!(answer.header("content-type").starts_with("text/html"), "{}", answer.text());
    assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    assert!(answer.text().contains(text) && !answer.text().contains("{{"), "{}", answer.text());
    answer.lacks_header("www-authenticate");
}

#[tokio::test]
async fn who_is_not_logged_in_is_led_to_the_login() {
    let node = TestNode::with_people().await;
    for path in ["/people", "/people/ANA001", "/nowhere", "/login", "/password/ANA001", "/pols/ANA001"] {
        let led = navigating(&node, "GET", path).send().await.is(303, NOTHING);
        assert_eq!(led.header("location"), "/session");
        led.lacks_header("www-authenticate");
        navigating(&node, "HEAD", path).send().await.is(303, NOTHING);
        // Everybody else gets what they always got.
        let program = node.get(path).send().await.is(401, NOTHING);
        assert!(program.header("www-authenticate").starts_with("Basic "));
        assert!(program.header("content-type").starts_with("application/json"));
    }
    // An old cookie is no credential.
    let old = navigating(&node, "GET", "/people").header("cookie", "__Host-session=gone").send().await;
    assert_eq!(old.is(303, NOTHING).header("location"), "/session");
    let login = node.get("/session").header("accept", NAVIGATING).send().await.is(200, NOTHING);
    assert!(login.text().contains("name=\"password\""));
    // Wrong credentials and writes are not led anywhere, and no box pops up.
    is_page(
        &navigating(&node, "GET", "/people").login("ANA001", "wrong").send().await.is(401, NOTHING),
        "/session",
    );
    is_page(&navigating(&node, "POST", "/people/X").send().await.is(401, NOTHING), "/session");
}

/// Without sessions the box of the browser is the only way in.
#[tokio::test]
async fn without_sessions_the_browsers_own_box_stays() {
    let node = TestNode::start_with(|setup| setup.settings.browser_sessions = BrowserSessions::Off);
    let answer = navigating(&node, "GET", "/people").send().await.is(401, NOTHING);
    assert!(answer.header("www-authenticate").starts_with("Basic "));
    assert!(answer.header("content-type").starts_with("text/html") && !answer.text().contains("/session"));
}

#[tokio::test]
async fn every_error_is_a_page_for_a_browser() {
    let node = TestNode::with_people().await;
    for (method, path, status, text) in [
        ("GET", "/nowhere", 404, "nothing at this path"),
        ("GET", "/people/NOBODY9", 403, "may not do this"),
        ("DELETE", "/login", 405, "method"),
        ("PATCH", "/people/ANA001", 400, "Bad Request"),
        ("GET", "/pols/ANA001/none", 404, "Not Found"),
    ] {
        let answer = navigating(&node, method, path).by("ANA001").send().await.is(status, NOTHING);
        is_page(&answer, text);
        let id = answer.header("x-request-id");
        assert!(answer.text().contains(id), "the page names the request of the log");
        let json = node.request(method, path).by("ANA001").send().await.is(status, NOTHING);
        assert_eq!(json.json()["status"], json!(status));
    }
    let head = navigating(&node, "HEAD", "/nowhere").by("ANA001").send().await.is(404, NOTHING);
    assert!(head.text().is_empty());
    let options = navigating(&node, "OPTIONS", "/people").by("ANA001").send().await.is(204, NOTHING);
    assert!(options.text().is_empty());
    // What was sent is shown as text.
    let evil =
        navigating(&node, "PATCH", "/people/ANA001").by("ANA001").bytes("{\"<script>\": 1, \"<script>\": 2}");
    let page = evil.send().await;
    assert!(page.status >= 400 && !page.text().contains("<script"), "{}", page.text());
    let foreign = navigating(&node, "POST", "/session").header("origin", "https://elsewhere.example");
    is_page(&foreign.bytes("account=x").send().await.is(403, NOTHING), "other sites");
}

async fn link_for(node: &TestNode, account: &str) -> String {
    let made = node.post(&format!("/users/{account}/link"), json!({})).by_operator().send().await;
    made.is(201, NOTHING).json()["path"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_used_link_says_so_and_a_new_password_leads_to_the_login() {
    let node = TestNode::with_people().await;
    let path = link_for(&node, "ANA001").await;
    let form = || {
        navigating(&node, "POST", &path)
            .header("content-type", FORM)
            .bytes("password=one+cradle&again=one+cradle")
    };
    let set = form().send().await.is(200, &["update people/ANA001"]);
    assert!(set.text().contains("<a href=\"/session\">Log in</a>"), "{}", set.text());
    for answer in [
        form().send().await,
        navigating(&node, "GET", &path).send().await,
        navigating(&node, "GET", "/link/x").send().await,
    ] {
        is_page(&answer.is(401, NOTHING), "used already, has run out");
    }
    // Scripts cannot tell it from any other path.
    let other = node.get("/nowhere").send().await.is(401, NOTHING);
    assert_eq!(node.get(&path).send().await.is(401, NOTHING).json(), other.json());
}

fn token(form: &Answer) -> String {
    let (_, rest) = form
        .text()
        .split_once("name=\"csrf_token\" value=\"")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

#[tokio::test]
async fn technicians_change_their_own_password() {
    let node = TestNode::with_people().await;
    for (name, role) in [("admin", "root"), ("helper", "health_professional")] {
        let account = json!({"roles": [role], "local": true, "password": "a first password"});
        node.post(&format!("/users/{name}"), account).by_operator().send().await.is(201, NOTHING);
    }
    // Whatever their role: of their own account everybody has to know the present password.
    for name in ["helper", "admin"] {
        let account = format!("{name}@local");
        let path = format!("/password/{name}%40local");
        let login = node.request("POST", "/session").header("content-type", FORM);
        let login = login.bytes(format!("account={name}%40local&password=a+first+password"));
        let login = login.send().await.is(303, NOTHING);
        let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
        let session = node.get("/session").header("cookie", &cookie).send().await.is(200, NOTHING);
        assert!(session.text().contains(&path), "{}", session.text());
        let page = node.get(&path).header("cookie", &cookie).send().await.is(200, NOTHING);
        assert!(page.text().contains("name=\"current\""), "{account}");
        let submit = |current: &str, token: &str| {
            let body =
                format!("token={token}&current={current}&password=another+cradle&again=another+cradle");
            let submitted = node.request("POST", &path).header("cookie", &cookie);
            submitted.header("content-type", FORM).bytes(body).send()
        };
        let token = token(&page);
        submit("wrong", &token).await.is(422, NOTHING);
        submit("a+first+password", "x").await.is(403, NOTHING);
        let set = submit("a+first+password", &token).await.is(200, NOTHING);
        assert!(set.text().contains("has been changed") && set.text().contains("href=\"/session\""));
        node.get("/login").login(&account, "a first password").send().await.is(401, NOTHING);
        node.get("/login").login(&account, "another cradle").send().await.is(200, NOTHING);
    }
    // Another's only root.
    node.get("/password/admin@local").login("helper@local", "another cradle").send().await.is(403, NOTHING);
    node.get("/password/nobody@local").login("helper@local", "another cradle").send().await.is(403, NOTHING);
    node.get("/password/helper@local").by("DOC003").send().await.is(403, NOTHING);
    let root = |path: &'static str| node.get(path).login("admin@local", "another cradle").send();
    assert!(!root("/password/helper@local").await.is(200, NOTHING).text().contains("name=\"current\""));
    root("/password/nobody@local").await.is(404, NOTHING);
}
