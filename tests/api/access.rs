//! "Who may do what": what the matrix of `access_matrix.rs` does not ask.

use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::access::Acl;
use thalamus_edge::domain::record::Kind;

use crate::support::api::{NOTHING, PASSWORD, TestNode, person};

#[tokio::test]
async fn roles_add_up() {
    let node = TestNode::start_with(|setup| {
        setup.roles = r#"[{"role": "reader", "permissions": {"GET": ["person"], "global": "True"}},
                          {"role": "writer", "permissions": {"PATCH": ["person"], "global": "False"}}]"#
            .to_owned();
    });
    node.person("TWO001", &["reader", "writer"]).await;
    node.person("BOB002", &["reader"]).await;
    node.get("/people/BOB002").by("TWO001").send().await.is(200, NOTHING);
    node.patch("/people/TWO001", json!({"n": 1}))
        .by("TWO001")
        .send()
        .await
        .is(200, &["update people/TWO001"]);
    // Each role with its own reach.
    node.patch("/people/BOB002", json!({"n": 1})).by("TWO001").send().await.is(403, NOTHING);
    node.patch("/people/BOB002", json!({"n": 1})).by("BOB002").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn new_rules_hold_from_the_next_request_on() {
    let node = TestNode::with_people().await;
    node.get("/people/ANA001").by("ANA001").send().await.is(200, NOTHING);
    let rules = Acl::parse(r#"[{"role": "end_user", "permissions": {}}]"#).unwrap().0;
    node.node.replace_rules(rules).await.unwrap();
    node.get("/people/ANA001").by("ANA001").send().await.is(403, NOTHING);
}

#[tokio::test]
async fn owners_do_not_change() {
    let node = TestNode::with_people().await;
    for (kind, path, field) in [
        (Kind::Page, "/pols/ANA001/x1", "book"),
        (Kind::Event, "/events/x1", "person"),
        (Kind::PersonalDocument, "/personal-documents/x1", "fedacct"),
    ] {
        node.record(kind, doc! {"_id": "x1", field: "ANA001", "n": 1}).await;
        for owner in [json!("BOB002"), json!(["ANA001"]), json!("")] {
            node.patch(path, json!({field: owner})).by("ROOT004").send().await.is_invalid(field);
            node.put_json(path, json!({field: owner})).by("ROOT004").send().await.is_invalid(field);
        }
        node.patch(path, json!({field: "ANA001"})).by("ROOT004").send().await.is(200, NOTHING);
        let kept = node.put_json(path, json!({"n": 1})).by("ROOT004").send().await;
        kept.is(200, NOTHING).has(json!({field: "ANA001"}));
    }
}

/// A record of the centre that names no owner, or nonsense, belongs to nobody: only `global` finds it.
#[tokio::test]
async fn records_without_an_owner_are_hidden() {
    let node = TestNode::with_people().await;
    for (id, owner) in [("x1", bson::Bson::Null), ("x2", 5.into()), ("x3", "".into())] {
        node.from_centre(Kind::Event, doc! {"_id": id, "person": owner}).await;
        node.get(&format!("/events/{id}")).by("ANA001").send().await.is(404, NOTHING);
        node.get(&format!("/events/{id}")).by("DOC003").send().await.is(200, NOTHING);
    }
    node.from_centre(Kind::Event, doc! {"_id": "x4", "person": "ana001"}).await;
    node.get("/events/x4").by("ANA001").send().await.is(200, NOTHING);
    assert_eq!(node.get("/events").by("ANA001").send().await.ids(), ["x4"]);
}

/// A role that came from the centre counts if it is one of `central_roles`, else only if granted here.
#[tokio::test]
async fn root_is_not_imported() {
    let node = TestNode::with_people().await;
    node.from_centre(Kind::Person, person("CEN009", &["end_user", "health_professional", "root"])).await;
    let roles = async |who: &str| {
        node.get("/authorization?method=GET&path=/").by(who).send().await.json()["roles"].clone()
    };
    assert_eq!(roles("CEN009").await, json!(["end_user", "health_professional"]));
    node.patch("/people/ANA001", json!({"roles": ["root"]})).by("CEN009").send().await.is_invalid("roles");
    node.delete("/events/x").by("CEN009").send().await.is(403, NOTHING);
    // An equal value is no change, and gives nothing.
    let equal = json!({"roles": ["end_user", "health_professional", "root"]});
    node.patch("/people/CEN009", equal.clone()).by("CEN009").send().await.is(200, NOTHING);
    node.patch("/people/CEN009", equal).by("ROOT004").send().await.is(200, NOTHING);
    assert_eq!(roles("CEN009").await, json!(["end_user", "health_professional"]));
    // Root of this node grants by changing, and takes by changing.
    let given = json!({"roles": ["end_user", "root"]});
    node.patch("/people/CEN009", given).by("ROOT004").send().await.is(200, &["update people/CEN009"]);
    assert_eq!(roles("CEN009").await, json!(["end_user", "root"]));
    let taken = json!({"roles": ["end_user"]});
    node.patch("/people/CEN009", taken).by("ROOT004").send().await.is(200, &["update people/CEN009"]);
    // The centre says root again: it was taken here, so it counts no more.
    let again = person("CEN009", &["end_user", "root"]);
    node.restore(Kind::Person, "CEN009", Some(again)).await;
    assert_eq!(roles("CEN009").await, json!(["end_user"]));
}

/// A grant goes with the person: whoever gets the account later is somebody else.
#[tokio::test]
async fn a_grant_does_not_outlive_the_person() {
    let node = TestNode::with_people().await;
    node.person("OLD005", &["root"]).await;
    node.patch("/people/OLD005", json!({"active": false})).by("ROOT004").send().await;
    node.delete("/people/OLD005").by("ROOT004").send().await.is(204, &["delete people/OLD005"]);
    node.from_centre(Kind::Person, person("OLD005", &["root"])).await;
    let roles = node.get("/authorization?method=GET&path=/").by("OLD005").send().await;
    roles.has(json!({"roles": []}));
}

/// Whoever can write at the centre could give an administrator a password of their own choice.
#[tokio::test]
async fn granted_roles_do_not_pass_to_a_password_from_the_centre() {
    let node = TestNode::with_people().await;
    node.person("ADM005", &["end_user", "root"]).await;
    let roles = || async {
        let answer = node.get("/authorization?method=GET&path=/").by("ADM005").send().await;
        answer.json()["roles"].clone()
    };
    assert_eq!(roles().await, json!(["end_user", "root"]));
    // Changed on this node: the grant goes along, whatever else changes.
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    node.patch("/people/ADM005", json!({"password": hash, "name": "New"})).by("ROOT004").send().await;
    assert_eq!(roles().await, json!(["end_user", "root"]));
    // The same clear password, but another hash: this one was set elsewhere.
    let mut record = node.stored(Kind::Person, "ADM005").unwrap();
    record.insert("password", bcrypt::hash(PASSWORD, 4).unwrap());
    node.from_centre(Kind::Person, record).await;
    assert_eq!(roles().await, json!(["end_user"]));
}

#[tokio::test]
async fn a_professional_makes_people_without_power() {
    let node = TestNode::with_people().await;
    let post = |id: &str, body: Value| node.post(&format!("/people/{id}"), body).by("DOC003").send();
    for roles in [
        json!(["root"]),
        json!(["health_professional"]),
        json!(["end_user", "root"]),
        json!(["end_user", "end_user"]),
        json!([]),
        json!("end_user"),
        json!(null),
        json!(["wizard"]),
        json!([5]),
        json!({"0": "end_user"}),
    ] {
        post("NEW001", json!({"roles": roles, "password": PASSWORD})).await.is_invalid("roles");
    }
    post("NEW001", json!({"roles": ["end_user"], "password": PASSWORD}))
        .await
        .is(201, &["create people/NEW001"]);
    post("NEW002", json!({"password": PASSWORD})).await.is(201, &["create people/NEW002"]);
    post("NEW003", json!({"active": "yes"})).await.is_invalid("active");
    post("NEW003", json!({"active": null})).await.is_invalid("active");
    // Root may.
    let root = json!({"roles": ["root"], "password": PASSWORD});
    node.post("/people/NEW004", root).by("ROOT004").send().await.is(201, &["create people/NEW004"]);
    node.get("/users").by("NEW004").send().await.is(200, NOTHING);
}

#[tokio::test]
async fn hashes_are_shown_to_root_of_a_legacy_peer_only() {
    let node = TestNode::start_with(|setup| setup.settings.expose_password_hashes = true);
    node.people().await;
    for (who, shows) in [("ANA001", false), ("DOC003", false), ("ROOT004", true)] {
        let item = node.get("/people/ANA001").by(who).send().await.is(200, NOTHING);
        assert_eq!(item.text().contains("$2b$04$"), shows, "{who}");
        if who != "ANA001" {
            let list = node.get("/people").by(who).send().await.is(200, NOTHING);
            assert_eq!(list.text().contains("$2b$04$"), shows, "{who}");
        }
    }
}

#[tokio::test]
async fn a_changed_account_is_changed_for_the_next_request() {
    let node = TestNode::with_people().await;
    node.get("/login").by("ANA001").send().await.is(200, NOTHING);
    node.patch("/people/ANA001", json!({"active": false})).by("ROOT004").send().await;
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    node.patch("/people/ANA001", json!({"active": true, "roles": ["health_professional"]}))
        .by("ROOT004")
        .send()
        .await;
    node.get("/people").by("ANA001").send().await.is(200, NOTHING);
    node.patch("/people/ANA001", json!({"password": "another cradle"})).by("ROOT004").send().await;
    node.get("/login").by("ANA001").send().await.is(401, NOTHING);
}
