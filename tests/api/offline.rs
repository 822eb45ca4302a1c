//! Accounts that may have been closed at the centre, which has not been heard for long.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use thalamus_edge::central::Hub;

use crate::support::api::{NOTHING, NOW_MS, PASSWORD, TestNode, pass_time, set_clock};
use crate::support::disk::Disk;
use crate::support::sim::{Fault, Sim};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const FORM: &str = "application/x-www-form-urlencoded";
const SUSPENDED: &str = " People cannot log in until a round is complete: for 30 days there was none \
                         (offline_login_days in [accounts]).";

async fn started(offline_login_days: u32, hub: Option<Sim>) -> TestNode {
    let node = TestNode::start_with(|setup| {
        setup.offline_login_days = offline_login_days;
        setup.hub = hub.map(|sim| Arc::new(sim) as _);
    });
    node.people().await;
    add_technician(&node).await;
    node
}

async fn add_technician(node: &TestNode) {
    let technician = json!({"roles": ["root"], "password": PASSWORD});
    node.post("/users/tec@local", technician).by_operator().send().await.is(201, NOTHING);
}

async fn round(node: &TestNode) -> Value {
    node.request("POST", "/sync/rounds").by_operator().send().await.is(200, NOTHING).json()["outcome"].clone()
}

async fn status_of(node: &TestNode, user: &str) -> u16 {
    node.get("/login").by(user).send().await.status
}

/// Until when people may log in, and what the status says.
async fn sync_status(node: &TestNode) -> (Value, String) {
    let status = node.get("/sync/status").by("tec@local").send().await.is(200, NOTHING).json();
    (status["logins_until"].clone(), status["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn people_log_in_for_so_many_days_after_the_last_complete_round() {
    let node = started(30, Some(Sim::default())).await;
    assert_eq!(round(&node).await, json!("complete"));
    let login = || {
        let form = format!("account=ANA001&password={}", PASSWORD.replace(' ', "+"));
        node.request("POST", "/session").header("content-type", FORM).bytes(form).send()
    };
    let cookie = login().await.is(303, NOTHING).header("set-cookie").split(';').next().unwrap().to_owned();
    let by_session = async || node.get("/login").header("cookie", &cookie).send().await.status;

    pass_time(30 * DAY - Duration::from_millis(1));
    assert_eq!((status_of(&node, "ANA001").await, by_session().await), (200, 200));
    let (until, message) = sync_status(&node).await;
    assert_eq!(until, json!("2026-12-23T01:28:52Z"));
    assert!(!message.contains("cannot log in"), "{message}");

    // Nothing is written meanwhile, and the password was verified a moment ago.
    pass_time(Duration::from_millis(1));
    let refused = node.get("/login").by("ANA001").send().await.is(401, NOTHING);
    let unknown = node.get("/login").by("NOBODY").send().await.is(401, NOTHING);
    assert_eq!(refused.json(), unknown.json(), "it is not told why");
    assert_eq!((by_session().await, status_of(&node, "ROOT004").await), (401, 401));
    login().await.is(403, NOTHING);
    // Whoever mends it gets in, and is told.
    assert_eq!(status_of(&node, "tec@local").await, 200);
    let (_, message) = sync_status(&node).await;
    assert!(message.ends_with(SUSPENDED), "{message}");

    // A clock that is set back keeps nobody out; the session has ended for good.
    set_clock(NOW_MS - 400 * 24 * 60 * 60 * 1000);
    assert_eq!((status_of(&node, "ANA001").await, by_session().await), (200, 401));
}

#[tokio::test]
async fn a_one_time_link_opens_no_account_meanwhile() {
    let node = started(1, Some(Sim::default())).await;
    assert_eq!(round(&node).await, json!("complete"));
    pass_time(DAY - Duration::from_secs(60));
    let link = node.post("/users/ANA001/link", json!({})).by_operator().send().await.is(201, NOTHING).json();
    let path = link["path"].as_str().unwrap().to_owned();
    node.get(&path).send().await.is(200, NOTHING);
    pass_time(Duration::from_secs(60));
    node.get(&path).send().await.is(401, NOTHING);
}

/// Without a limit, before anything was tried, and on a node whose centre was taken out of the configuration.
#[tokio::test]
async fn nobody_is_kept_out_where_there_is_no_limit() {
    let unlimited = started(0, Some(Sim::default())).await;
    assert_eq!(round(&unlimited).await, json!("complete"));
    let fresh = started(30, Some(Sim::default())).await;
    let disk = Disk::default();
    let with_disk = |hub: Option<Arc<dyn Hub>>| {
        let disk = disk.clone();
        TestNode::start_with(move |setup| {
            (setup.offline_login_days, setup.hub, setup.disk) = (30, hub, Some(disk));
        })
    };
    {
        let node = with_disk(Some(Arc::new(Sim::default())));
        node.people().await;
        add_technician(&node).await;
        assert_eq!(round(&node).await, json!("complete"));
    }
    let alone = with_disk(None);
    pass_time(3_000 * DAY);
    for node in [&unlimited, &fresh, &alone] {
        assert_eq!(status_of(node, "ANA001").await, 200);
        assert_eq!(sync_status(node).await.0, Value::Null);
    }
}

/// Whoever waits for changes is looked at again before they see any.
#[tokio::test]
async fn a_wait_does_not_outlast_the_limit() {
    let node = started(1, Some(Sim::default())).await;
    assert_eq!(round(&node).await, json!("complete"));
    pass_time(DAY - Duration::from_secs(1));
    let path = format!("/changes?since={}&wait=30", node.last_change());
    let waiting = node.get(&path).by("ROOT004").send();
    let later = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        pass_time(Duration::from_secs(1));
        node.person("NEW009", &["end_user"]).await;
    };
    let (answer, ()) = tokio::join!(waiting, later);
    answer.is(401, &["create people/NEW009"]);
}

/// What a first round left behind that never came to its end is as old as that round.
#[tokio::test]
async fn before_the_first_complete_round_the_first_attempt_counts() {
    let sim = Sim::default();
    let node = started(30, Some(sim.clone())).await;
    let unreachable = || sim.state().lease_faults.push_back(Fault::LostRequest);
    unreachable();
    assert_eq!(round(&node).await, json!("offline"));
    pass_time(29 * DAY);
    assert_eq!(status_of(&node, "ANA001").await, 200);
    pass_time(DAY);
    assert_eq!(status_of(&node, "ANA001").await, 401);
    // Another attempt is no news of the centre.
    unreachable();
    assert_eq!(round(&node).await, json!("offline"));
    assert_eq!(status_of(&node, "ANA001").await, 401);
}

/// Who was refused for that long and is heard again logs in anew: what they were let in by before is over, though nobody
/// used it meanwhile.
#[tokio::test]
async fn what_was_made_before_the_limit_does_not_outlast_it() {
    let node = started(1, Some(Sim::default())).await;
    assert_eq!(round(&node).await, json!("complete"));
    pass_time(DAY - Duration::from_secs(60));
    let link = node.post("/users/BOB002/link", json!({})).by_operator().send().await.is(201, NOTHING).json();
    let path = link["path"].as_str().unwrap().to_owned();
    let login = async |account: &str| {
        let form = format!("account={account}&password={}", PASSWORD.replace(' ', "+"));
        let call = node.request("POST", "/session").header("content-type", FORM).bytes(form);
        let answer = call.send().await.is(303, NOTHING);
        answer.header("set-cookie").split(';').next().unwrap().to_owned()
    };
    let by_session = async |cookie: &str| node.get("/login").header("cookie", cookie).send().await.status;
    let (ana, technician) = (login("ANA001").await, login("tec%40local").await);
    // A round before the limit ends nothing.
    assert_eq!(round(&node).await, json!("complete"));
    assert_eq!((by_session(&ana).await, by_session(&technician).await), (200, 200));
    set_clock(node.node.store.now_ms() + i64::try_from(DAY.as_millis()).unwrap());
    assert_eq!(round(&node).await, json!("complete"));
    assert_eq!((by_session(&ana).await, by_session(&technician).await), (401, 200));
    node.get(&path).send().await.is(401, NOTHING);
    assert_eq!(status_of(&node, "ANA001").await, 200);
}
