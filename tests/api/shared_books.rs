//! Two human beings who have one account in two spellings: no list mixes their records, on any route that names an account.

use bson::doc;
use serde_json::{Value, json};
use thalamus_edge::domain::record::Kind;
use thalamus_edge::domain::schema::{Owner, SCHEMAS, Shape};

use crate::support::api::{NOTHING, TestNode};

const UPPER: &str = "TWIN01";
const LOWER: &str = "twin01";
/// In nobody's spelling: whose it is nobody knows.
const MIXED: &str = "Twin01";

/// A node with two people whose names are `names`, and a record of every kind for each spelling of their account.
async fn with_twins(names: [&str; 2]) -> TestNode {
    let node = TestNode::with_people().await;
    for (id, name) in [UPPER, LOWER].into_iter().zip(names) {
        node.from_centre(Kind::Person, doc! {"_id": id, "name": name, "lastname": name}).await;
    }
    for schema in SCHEMAS.iter() {
        if let Owner::Field(field) = schema.owner {
            for spelling in [UPPER, LOWER, MIXED] {
                let id = format!("r-{spelling}");
                node.from_centre(schema.kind, doc! {"_id": id, field: spelling, "pol": "of-both"}).await;
            }
        }
    }
    node
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().filter_map(|row| row["_id"].as_str().or(row["id"].as_str())).collect()
}

/// Every path that lists records of an account, and with `limit` page by page.
fn lists_of(account: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for schema in SCHEMAS.iter().filter(|schema| matches!(schema.owner, Owner::Field(_))) {
        for route in schema.routes {
            let path = route.path.replace("{person_id}", account).replace("{id}", "of-both");
            match route.shape {
                Shape::Collection => {
                    paths.push(format!("{path}?person={account}"));
                    paths.push(format!("{path}?person={account}&limit=1"));
                }
                Shape::OfPerson | Shape::OfPage => {
                    paths.extend([path.clone(), format!("{path}?limit=1")]);
                }
                Shape::Item | Shape::ItemOfPerson | Shape::Content => {}
            }
        }
    }
    paths
}

#[tokio::test]
async fn a_book_has_the_records_of_one_spelling_while_two_people_share_the_account() {
    let node = with_twins(["Bertram", "Carlos"]).await;
    for account in [UPPER, LOWER, MIXED] {
        for path in lists_of(account) {
            // Twice: the second answer may be one that was kept.
            for _ in 0..2 {
                let list = node.get(&path).by("ROOT004").send().await.is(200, NOTHING).json();
                assert_eq!(ids(&list), [format!("r-{account}")], "{path}");
            }
        }
        for other in [UPPER, LOWER, MIXED] {
            let expected = if other == account { 200 } else { 404 };
            let path = format!("/pols/{account}/r-{other}");
            for _ in 0..2 {
                node.get(&path).by("ROOT004").send().await.is(expected, NOTHING);
            }
            if other != account {
                node.patch(&path, json!({"info": "x"})).by("ROOT004").send().await.is(404, NOTHING);
                node.delete(&path).by("ROOT004").send().await.is(404, NOTHING);
                let again = node.post(&path, json!({"id": format!("r-{other}")})).by("ROOT004").send().await;
                assert_ne!(again.status, 200, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn new_pages_and_deleted_ones_stay_with_the_spelling() {
    let node = with_twins(["Bertram", "Carlos"]).await;
    for account in [UPPER, LOWER] {
        let id = format!("new-{account}");
        node.post(&format!("/pols/{account}/{id}"), json!({"id": id}))
            .by("ROOT004")
            .send()
            .await
            .is(201, &[&format!("create pols/{id}")]);
        let list = node.get(&format!("/pols/{account}")).by("ROOT004").send().await.json();
        assert_eq!(ids(&list), [id.as_str(), format!("r-{account}").as_str()]);
        node.delete(&format!("/pols/{account}/{id}"))
            .by("ROOT004")
            .send()
            .await
            .is(204, &[&format!("delete pols/{id}")]);
    }
    for account in [UPPER, LOWER] {
        let rows = node.get(&format!("/trash?person={account}")).by("ROOT004").send().await.is(200, NOTHING);
        let rows = rows.json();
        let names: Vec<&str> =
            rows.as_array().unwrap().iter().filter_map(|row| row["record"].as_str()).collect();
        assert_eq!(names, [format!("new-{account}")], "{rows}");
    }
}

/// A record of any kind is stored in exactly the spelling that was written, and no later write gives it to the other person.
#[tokio::test]
async fn a_new_record_has_exactly_the_spelling_that_was_written() {
    let node = with_twins(["Bertram", "Carlos"]).await;
    let mut made = 0;
    for schema in SCHEMAS.iter() {
        let Owner::Field(field) = schema.owner else {
            continue;
        };
        let mut items =
            schema.routes.iter().filter(|route| matches!(route.shape, Shape::Item | Shape::ItemOfPerson));
        let item = items.next().unwrap().path;
        for (account, other) in [(UPPER, LOWER), (LOWER, UPPER)] {
            let id = format!("new-{account}");
            let path = item.replace("{person_id}", account).replace("{id}", &id);
            let stored = || {
                let document = node.stored(schema.kind, &id).unwrap();
                document.get_str(field).unwrap().to_owned()
            };
            let created = format!("create {}/{id}", schema.collection);
            let body = json!({"id": id, field: account});
            let answer = node.post(&path, body.clone()).by("ROOT004").send().await.is(201, &[&created]);
            assert_eq!(
                (answer.json()[field].as_str(), stored().as_str()),
                (Some(account), account),
                "{path}"
            );
            let misspelled = json!({"id": id, field: other});
            node.patch(&path, misspelled.clone()).by("ROOT004").send().await.is_invalid(field);
            node.put_json(&path, misspelled).by("ROOT004").send().await.is_invalid(field);
            node.patch(&path, body).by("ROOT004").send().await.is(200, NOTHING);
            assert_eq!(stored(), account, "{path}");
            made += 1;
        }
    }
    assert_eq!(made, 12);
}

#[tokio::test]
async fn a_book_has_every_spelling_where_they_can_be_one() {
    let node = with_twins(["Bertram", "Bertram"]).await;
    let all = [UPPER, MIXED, LOWER].map(|spelling| format!("r-{spelling}"));
    for account in [UPPER, LOWER, MIXED] {
        for path in lists_of(account).into_iter().filter(|path| !path.contains("limit")) {
            let list = node.get(&path).by("ROOT004").send().await.is(200, NOTHING).json();
            assert_eq!(ids(&list), all, "{path}");
        }
        for id in &all {
            node.get(&format!("/pols/{account}/{id}")).by("ROOT004").send().await.is(200, NOTHING);
        }
    }
}

/// What `sync status` counts is what the list shows.
#[tokio::test]
async fn an_account_in_two_spellings_counts_as_an_open_question() {
    for names in [["Bertram", "Carlos"], ["Bertram", "Bertram"]] {
        let node = with_twins(names).await;
        let list = node.get("/sync/conflicts?status=open").by_operator().send().await.json();
        let status = node.get("/sync/status").by_operator().send().await.json();
        assert_eq!((ids(&list).len(), &status["conflicts_open"]), (1, &json!(1)));
    }
}
