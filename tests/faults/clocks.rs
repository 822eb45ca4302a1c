//! Clocks that jump by years, both ways: nothing breaks, nothing is lost, nothing stays open for longer.

use serde_json::json;

use super::support::api::{NOTHING, NOW_MS, TestNode, set_clock};

const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;
/// The clock after each jump: years ahead, back by twice that, at the beginning of all clocks, and right again.
const JUMPS: [i64; 5] = [NOW_MS + 30 * YEAR_MS, NOW_MS - 30 * YEAR_MS, 0, i64::MAX / 2, NOW_MS];

#[tokio::test]
async fn logins_and_records_do_not_mind_the_clock() {
    let node = TestNode::with_people().await;
    let (mut changes, mut known) = (node.last_change(), Vec::new());
    node.get("/login").by("DOC003").send().await.is(200, NOTHING);
    for (turn, ms) in JUMPS.into_iter().enumerate() {
        set_clock(ms);
        // Known from before, and seen for the first time.
        node.get("/login").by("DOC003").send().await.is(200, NOTHING);
        let (new, path) = (format!("NEW00{turn}"), format!("/people/NEW00{turn}"));
        node.person(&new, &["end_user"]).await;
        node.get("/login").by(&new).send().await.is(200, NOTHING);
        known.push(new);
        let patched = node.patch(&path, json!({"name": format!("at {ms}")})).by("ROOT004").send().await;
        patched.is(200, &[&format!("update people/NEW00{turn}")]);
        for id in &known {
            node.get(&format!("/people/{id}")).by("DOC003").send().await.is(200, NOTHING);
        }
        assert_eq!(node.last_change(), changes + 2, "the feed goes on where it was");
        changes += 2;
        node.get("/sync/status").by_operator().send().await.is(200, NOTHING);
        node.get(&format!("/changes?since={}", changes - 1)).by("ROOT004").send().await.is(200, NOTHING);
    }
    let snapshot = node.node.store.read().unwrap();
    assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_link_is_open_for_its_day_and_no_other() {
    let node = TestNode::with_people().await;
    let made = node.post("/users/ANA001/link", json!({})).by_operator().send().await.json();
    let path = made["path"].as_str().unwrap().to_owned();
    for ms in JUMPS.into_iter().filter(|ms| *ms != NOW_MS) {
        set_clock(ms);
        let body = "password=one+more+cradle&again=one+more+cradle";
        let answer = node.request("POST", &path).bytes(body).send().await;
        assert_eq!((answer.status, answer.changes), (401, Vec::new()), "at {ms}");
    }
    set_clock(NOW_MS);
    let answer = node.request("GET", &path).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
