//! Access rules that end something while the store takes nothing, and a process that ends then.

use serde_json::json;
use tempfile::TempDir;
use thalamus_edge::domain::access::Acl;
use thalamus_edge::store::{StoreError, Tx};

use crate::support::api::{NOTHING, TestNode};

/// The directory as the next process finds it, which nobody closed.
fn left_behind(directory: &TempDir) -> TempDir {
    let next = TempDir::new().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), next.path().join(entry.file_name())).unwrap();
    }
    next
}

async fn start(directory: &TempDir) -> TestNode {
    let node = TestNode::start_with(|setup| setup.file = Some(directory.path().join("store.redb")));
    node.node.begin_with_rules().await.unwrap();
    node
}

async fn make_link(node: &TestNode) -> String {
    let made = node.post("/users/ANA001/link", json!({})).by("ROOT004").send().await.is(201, NOTHING);
    made.json()["path"].as_str().unwrap().to_owned()
}

/// What rules have ended does not come back with others because the process did not live to write it.
#[tokio::test]
async fn rules_that_were_never_written_have_ended_what_they_did_not_allow() {
    let (others, _) =
        Acl::parse(r#"[{"role": "root", "permissions": {"GET": ["login", "users"], "global": true}}]"#)
            .unwrap();
    let first = TempDir::new().unwrap();
    let node = start(&first).await;
    node.people().await;
    let link = make_link(&node).await;
    // A start by itself ends nothing.
    let second = left_behind(&first);
    let node = start(&second).await;
    node.get(&link).send().await.is(200, NOTHING);
    // Nothing can be written from here on.
    let panicking = |_: &mut Tx<'_>| -> Result<(), StoreError> { panic!("a page that makes no sense") };
    node.node.store.unguarded().transact(panicking).await.unwrap_err();
    node.node.replace_rules(others).await.unwrap_err();
    let third = left_behind(&second);
    let node = start(&third).await;
    node.get(&link).send().await.is(401, NOTHING);
    // Once only.
    let link = make_link(&node).await;
    let fourth = left_behind(&third);
    let node = start(&fourth).await;
    node.get(&link).send().await.is(200, NOTHING);
}
