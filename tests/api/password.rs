//! The form that changes a password in a browser.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use thalamus_edge::domain::record::Kind;

use crate::support::api::{Answer, NOTHING, PASSWORD, TestNode, pass_time};

/// The token in a form.
fn token(form: &Answer) -> String {
    let text = form.text();
    let (_, rest) = text.split_once("name=\"csrf_token\" value=\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

async fn form(node: &TestNode, who: &str, person: &str) -> String {
    token(&node.get(&format!("/password/{person}")).by(who).send().await.is(200, NOTHING))
}

async fn submit(node: &TestNode, who: &str, person: &str, body: &str) -> Answer {
    let call = node.request("POST", &format!("/password/{person}")).by(who);
    call.header("content-type", "application/x-www-form-urlencoded").bytes(body.to_owned()).send().await
}

const CURRENT: &str = "a+cradle+in+Milano";

#[tokio::test]
async fn ones_own_takes_the_current_one_and_the_new_one_twice() {
    let node = TestNode::with_people().await;
    let page = node.get("/password/ana001").by("ANA001").send().await.is(200, NOTHING);
    assert!(page.text().contains("name=\"current\"") && page.text().contains("minlength=\"8\""));
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("form-action 'self'"));
    // With another policy browsers would send the form with the origin "null", which is refused.
    assert_eq!(page.header("referrer-policy"), "same-origin");
    let token = token(&page);
    let refusals = [
        (format!("token={token}&current={CURRENT}&password=one+cradle&again=other+cradle"), "differ"),
        (
            format!("token={token}&current=wrong&password=one+cradle&again=one+cradle"),
            "current password is wrong",
        ),
        (format!("token={token}&password=one+cradle&again=one+cradle"), "current password is wrong"),
        (format!("token={token}&current={CURRENT}&password=short&again=short"), "at least 8"),
        (format!("token={token}&current={CURRENT}&password=password&again=password"), "tried first"),
        (format!("token={token}&current={CURRENT}&password=&again="), "at least 8"),
    ];
    for (body, reason) in refusals {
        let answer = submit(&node, "ANA001", "ANA001", &body).await.is(422, NOTHING);
        assert!(answer.text().contains(reason), "{body}: {}", answer.text());
    }
    // As Thalamus calls them, and as earlier versions of this node did.
    let body = format!(
        "csrf_token={token}&current={CURRENT}&password=other+cradle&pconfirm=other+cradle&update=Update"
    );
    submit(&node, "ANA001", "ANA001", &body).await.is(200, &["update people/ANA001"]);
    node.get("/login").login("ANA001", "other cradle").send().await.is(200, NOTHING);
    let node = TestNode::with_people().await;
    let token = self::token(&node.get("/password/ana001").by("ANA001").send().await.is(200, NOTHING));
    let body = format!(
        "token={token}&current={CURRENT}&password=%C3%B1and%C3%BA+100%25&again=%C3%B1and%C3%BA+100%25"
    );
    let answer = submit(&node, "ANA001", "ANA001", &body).await.is(200, &["update people/ANA001"]);
    assert!(answer.text().contains("has been changed"));
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    node.get("/login").login("ANA001", "ñandú 100%").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn root_changes_anybodys_and_nobody_else_does() {
    let node = TestNode::with_people().await;
    for who in ["BOB002", "DOC003"] {
        for person in ["ANA001", "NOBODY9"] {
            let path = format!("/password/{person}");
            node.get(&path).by(who).send().await.is(403, NOTHING).has(json!({"code": "forbidden"}));
            submit(&node, who, person, "").await.is(403, NOTHING).has(json!({"code": "forbidden"}));
        }
    }
    node.get("/password/NOBODY9").by("ROOT004").send().await.is(404, NOTHING);
    let page = node.get("/password/ANA001").by("ROOT004").send().await;
    assert!(!page.text().contains("name=\"current\""));
    let body = format!("token={}&password=one+cradle&again=one+cradle", token(&page));
    submit(&node, "ROOT004", "ANA001", &body).await.is(200, &["update people/ANA001"]);
    node.get("/login").login("ANA001", "one cradle").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn a_token_is_for_one_caller_one_path_and_half_an_hour() {
    let node = TestNode::with_people().await;
    let body = |token: &str| format!("token={token}&current={CURRENT}&password=one+cradle&again=one+cradle");
    let own = form(&node, "ANA001", "ANA001").await;
    let bobs = form(&node, "BOB002", "BOB002").await;
    let roots = form(&node, "ROOT004", "ANA001").await;
    let (expiry, code) = own.split_once('.').unwrap();
    let later = format!("{}.{code}", expiry.parse::<i64>().unwrap() + 1);
    for bad in ["", "x", ".", &bobs, &roots, &later, &format!("{expiry}."), &format!("{expiry}.zz"), code] {
        let answer = submit(&node, "ANA001", "ANA001", &body(bad)).await.is(403, NOTHING);
        assert!(answer.text().contains("expired"), "{bad}");
    }
    pass_time(Duration::from_secs(30 * 60 + 1));
    submit(&node, "ANA001", "ANA001", &body(&own)).await.is(403, NOTHING);
    let fresh = form(&node, "ANA001", "ANA001").await;
    pass_time(Duration::from_secs(30 * 60));
    submit(&node, "ANA001", "ANA001", &body(&fresh)).await.is(200, &["update people/ANA001"]);
}

#[tokio::test]
async fn what_is_typed_is_not_run() {
    let node = TestNode::with_people().await;
    let evil = "%22%3E%3Cscript%3E%7B%7Btoken%7D%7D";
    node.get(&format!("/password/{evil}")).by("ROOT004").send().await.is(404, NOTHING);
    node.from_centre(Kind::Person, bson::doc! {"_id": "\"><script>{{token}}"}).await;
    let page = node.get(&format!("/password/{evil}")).by("ROOT004").send().await.is(200, NOTHING);
    assert!(page.text().contains("&quot;&gt;&lt;script&gt;{{token}}") && !page.text().contains("<script"));
    let sent = submit(&node, "ROOT004", evil, "token=%3Cscript%3E&&=&x&password=%ff").await;
    assert!(!sent.is(403, NOTHING).text().contains("<script"));
}

/// PATCH of one's own: the login of the request was the current password.
#[tokio::test]
async fn ones_own_changes_by_patch_too() {
    let node = TestNode::with_people().await;
    let patched = node.patch("/people/ANA001", json!({"password": "one cradle"})).by("ANA001").send().await;
    assert!(!patched.is(200, &["update people/ANA001"]).text().contains("password"));
    node.get("/login").login("ANA001", PASSWORD).send().await.is(401, NOTHING);
    node.get("/login").login("ANA001", "one cradle").send().await.is(200, NOTHING);
    node.patch("/people/BOB002", json!({"password": "one cradle"}))
        .by("DOC003")
        .send()
        .await
        .is(403, NOTHING);
    node.patch("/people/NOBODY9", json!({"password": "one cradle"}))
        .by("DOC003")
        .send()
        .await
        .is(403, NOTHING);
    let root = node.patch("/people/BOB002", json!({"password": "one cradle"})).by("ROOT004").send().await;
    root.is(200, &["update people/BOB002"]);
}

/// One password as keyboards and clients send it, in a header and in the form of a browser.
#[tokio::test]
async fn a_password_is_the_same_on_every_keyboard() {
    let node = TestNode::with_people().await;
    let composed = "ñandú\u{20}Größe";
    let apart = "n\u{303}andu\u{301} Gro\u{308}ße";
    let latin_1: Vec<u8> = composed.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let by = |user: &str, password: &[u8]| {
        let credentials = BASE64.encode([user.as_bytes(), b":", password].concat());
        node.get("/login").header("authorization", &format!("Basic {credentials}"))
    };
    let encoded =
        |text: &[u8]| percent_encoding::percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    // However it was set, here or elsewhere.
    let hashes = [composed.as_bytes(), apart.as_bytes()].map(|typed| bcrypt::hash(typed, 4).unwrap());
    for (number, hash) in hashes.iter().enumerate() {
        let id = format!("KEY00{number}");
        let person = bson::doc! {"_id": &id, "active": true, "password": hash, "roles": ["end_user"]};
        node.record(Kind::Person, person).await;
        for typed in [composed.as_bytes(), apart.as_bytes(), &latin_1] {
            by(&id, typed).send().await.is(200, NOTHING);
            let form = format!("account={id}&password={}", encoded(typed));
            let call =
                node.request("POST", "/session").header("content-type", "application/x-www-form-urlencoded");
            let session = call.bytes(form).send().await;
            assert_eq!(session.status, 303, "{}", session.text());
        }
        by(&id, "nandu Grosse".as_bytes()).send().await.is(401, NOTHING);
        by(&id, "ñandú Größ".as_bytes()).send().await.is(401, NOTHING);
    }
    // A new one is hashed in one form, and typed twice in two it is one.
    let token = form(&node, "ANA001", "ANA001").await;
    let (new, again) = (encoded(apart.as_bytes()), encoded(composed.replace(' ', "\u{A0}").as_bytes()));
    let body = format!("token={token}&current={CURRENT}&password={new}&again={again}");
    submit(&node, "ANA001", "ANA001", &body).await.is(200, &["update people/ANA001"]);
    let stored = node.stored(Kind::Person, "ANA001").unwrap();
    assert!(bcrypt::verify(composed, stored.get_str("password").unwrap()).unwrap());
    by("ANA001", &latin_1).send().await.is(200, NOTHING);
    // The name may be Latin-1 as well; nobody is called so.
    let credentials = BASE64.encode(b"A\xD1A:x");
    let unknown = node.get("/login").header("authorization", &format!("Basic {credentials}")).send().await;
    unknown.is(401, NOTHING);
    let challenge = node.get("/people").send().await.is(401, NOTHING);
    assert_eq!(
        challenge.header("www-authenticate"),
        "Basic realm=\"Authentication Required\", charset=\"UTF-8\""
    );
}

/// A token is good for both accounts as they were when the form was fetched: that of who changes, and the changed one.
#[tokio::test]
async fn a_form_is_over_with_any_change_of_the_accounts_that_it_is_about() {
    for (who, changed) in [("ANA001", "ANA001"), ("ROOT004", "ROOT004"), ("ROOT004", "ANA001")] {
        for role in ["end_user", "root"] {
            let node = TestNode::with_people().await;
            let token = form(&node, who, "ANA001").await;
            let both = json!({"roles": ["end_user", "root"]});
            node.post(&format!("/users/{changed}"), both).by_operator().send().await;
            // Taken back, or left with what they had.
            let one = json!({"roles": [if changed == "ROOT004" { "root" } else { role }]});
            let given = node.post(&format!("/users/{changed}"), one).by_operator().send().await;
            assert_eq!(given.status, 200);
            let current = if who == "ANA001" { CURRENT } else { "" };
            let body = format!("token={token}&current={current}&password=one+cradle&again=one+cradle");
            let answer = submit(&node, who, "ANA001", &body).await;
            assert_eq!(answer.status, 403, "{who} {changed}: {}", answer.text());
            assert!(answer.text().contains("expired"));
        }
    }
}
