//! A centre that fails at each stage of a conversation, made by the proxy: what the round says, and how long it waits.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use super::*;
use crate::support::proxy::{Act, Rule, failure, opens_feed};

const HELLOS: [&str; 3] = ["hello", "isMaster", "ismaster"];
const VERBS: [&str; 4] = ["insert", "update", "delete", "bulkWrite"];
/// Codes of errors that pass, and that are not about one record.
const PASSING_CODES: [i32; 9] = [43, 136, 150, 175, 234, 237, 365, 462, 11_601];
const PASSING_LABELS: [&str; 3] =
    ["RetryableWriteError", "ResumableChangeStreamError", "SystemOverloadedError"];

fn hellos(act: &Act) -> Vec<Rule> {
    HELLOS.map(|name| Rule::new(name, act.clone())).to_vec()
}

fn labelled(label: &str) -> Act {
    Act::Answer(doc! {"ok": 0.0, "code": 8, "errmsg": "the proxy says so", "errorLabels": [label]})
}

/// A node that agrees with the centre and has an edit to send; the proxy stands between them under these options of the
/// address.
async fn with_address(user: &str, options: &str) -> Ground {
    let mut ground = Ground::agreed().await;
    let uri = ground.proxy.uri().replace("mongodb://", &format!("mongodb://{user}"));
    let uri = format!("{uri}&{options}");
    let hub: Arc<dyn Hub> = Arc::new(hub(&uri, ground.centre.name()));
    ground.sync = Reconciler::new(ground.store.clone(), Some(hub), SyncSettings::default());
    ground.set("NEW", "mine").await;
    ground
}

/// Each stage has its name, the member and a remedy; the edit is kept and is at the centre after the next round.
#[tokio::test]
async fn a_round_names_the_stage_at_which_it_failed() {
    const SOON: &str = "connectTimeoutMS=1000&serverSelectionTimeoutMS=4000";
    let old: fn(&mut Document) = |reply| drop(reply.insert("maxWireVersion", 6));
    let new: fn(&mut Document) = |reply| {
        reply.insert("minWireVersion", 99);
        reply.insert("maxWireVersion", 99);
    };
    let late = Act::Delay(Duration::from_secs(60));
    let of_people: fn(&Document) -> bool = |command| command.to_string().contains("people");
    for (what, user, rules, stage, words) in [
        ("cut", "", hellos(&Act::CutBefore), "answer", "closes the connection"),
        ("silent", "", hellos(&late), "answer", "takes the connection and does not answer"),
        ("starting", "", hellos(&failure(11_600)), "answer", "starts or shuts down"),
        ("old", "", hellos(&Act::Alter(old)), "version", "older than MongoDB 4.4"),
        ("new", "", hellos(&Act::Alter(new)), "version", "newer than this program knows"),
        (
            "user",
            "north-clinic:hunter2@",
            vec![Rule::new("saslStart", failure(18))],
            "login",
            "does not accept user and password",
        ),
        ("reads", "", vec![Rule::new("aggregate", failure(50))], "reading", "aggregate on its change feed"),
        (
            "writes",
            "",
            VERBS.map(|verb| Rule::new(verb, failure(50)).when(of_people)).to_vec(),
            "writing",
            "MaxTimeMSExpired",
        ),
    ] {
        let ground = with_address(user, SOON).await;
        ground.proxy.set_rules(rules);
        let report = ground.sync.round().await;
        assert_eq!(report.stage, Some(stage), "{what}: {report:?}");
        let is_lasting = ["version", "login"].contains(&stage);
        let outcome = if is_lasting { Outcome::Failed } else { Outcome::Offline };
        assert_eq!(report.outcome, outcome, "{what}: {report:?}");
        let member = format!("127.0.0.1:{}", ground.proxy.port());
        assert_eq!(report.member, Some(member), "{what}: {report:?}");
        assert!(report.message.contains(words), "{what}: {report:?}");
        assert!(report.message.contains(&format!("({stage})")), "{what}: {report:?}");
        assert!(!report.message.contains("hunter2"), "{what}: {report:?}");
        // Nothing is lost. A new person is not sent before all is read; edits of others are, see `slow_feed`.
        assert_eq!(ground.pending(), 1, "{what}");
        ground.proxy.set_rules(Vec::new());
        if user.is_empty() {
            ground.ends(Outcome::Complete).await;
            assert_eq!(ground.at("NEW").await.unwrap().get_str("f").ok(), Some("mine"), "{what}");
        }
    }
}

/// Passing codes and labels at each kind of command: offline, nothing refused, and the next round is complete.
#[tokio::test]
async fn what_passes_is_offline_at_every_command() {
    let rows = PASSING_CODES.map(|code| (code.to_string(), failure(code)));
    let labels = PASSING_LABELS.map(|label| (label.to_owned(), labelled(label)));
    let ground = Ground::agreed().await;
    let of_people: fn(&Document) -> bool = |command| command.to_string().contains("people");
    for (turn, (what, act)) in rows.into_iter().chain(labels).enumerate() {
        let feed = vec![Rule::new("aggregate", act.clone()).when(opens_feed)];
        let more = vec![Rule::new("getMore", act.clone())];
        let writes = VERBS.map(|verb| Rule::new(verb, act.clone()).when(of_people)).to_vec();
        for (place, rules) in [("feed", feed), ("getMore", more), ("writes", writes)] {
            let value = format!("{turn} {place}");
            ground.change("ANA", &value).await;
            ground.set("BOB", &value).await;
            ground.proxy.set_rules(rules);
            let report = ground.sync.round().await;
            // A feed that is refused is replaced by a scan in the same round.
            let is_replaced = place != "writes" && report.outcome == Outcome::Complete;
            assert!(report.outcome == Outcome::Offline || is_replaced, "{what} {place}: {report:?}");
            assert_eq!(ground.dead(), Vec::<i32>::new(), "{what} {place}");
            ground.proxy.set_rules(Vec::new());
            ground.ends(Outcome::Complete).await;
            assert_eq!(
                ground.person("ANA").unwrap().get_str("g").ok(),
                Some(value.as_str()),
                "{what} {place}"
            );
            assert_eq!(
                ground.at("BOB").await.unwrap().get_str("f").ok(),
                Some(value.as_str()),
                "{what} {place}"
            );
            assert_eq!(ground.pending(), 0, "{what} {place}");
        }
    }
}

/// Beside a connection that carries a lot, one whose question stays without an answer is given up all the same.
#[tokio::test]
async fn an_exchange_without_an_answer_is_not_hidden_by_another_connection() {
    let ground = Ground::agreed().await;
    let wide = doc! {"_id": "WIDE", "name": "x".repeat(100_000)};
    ground.centre.collection::<Document>("institution").insert_one(wide).await.unwrap();
    let mut central = ground.hub().open().await.unwrap();
    let mut beside = central.beside().await.unwrap();
    let of_people: fn(&Document) -> bool = |command| command.get_str("find").ok() == Some("people");
    ground.proxy.set_rules(vec![Rule::new("find", Act::Delay(Duration::from_secs(60))).when(of_people)]);
    let begun = Instant::now();
    let reading = async {
        let mut count = 0;
        loop {
            beside.fetch(Kind::Institution, &["WIDE".to_owned()]).await.unwrap();
            count += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if begun.elapsed() > Duration::from_secs(30) {
                return count;
            }
        }
    };
    let ids = ["ANA".to_owned()];
    let answer = tokio::select! {
        answer = central.fetch(Kind::Person, &ids) => answer,
        count = reading => panic!("{count} answers on the other connection hide it"),
    };
    assert!(matches!(answer, Err(CentralError::Offline(_))), "{answer:?}");
    // It is noticed within two limits of two seconds, and the driver reads once more.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Port of the proxy under which the server calls itself a member of a replica set.
static MEMBER_PORT: AtomicU16 = AtomicU16::new(0);

/// Makes the server's greeting that of the only member of a replica set, at the proxy.
fn member_reply(reply: &mut Document, is_primary: bool) {
    let member = format!("127.0.0.1:{}", MEMBER_PORT.load(Ordering::Relaxed));
    for field in ["primary", "electionId", "setVersion", "topologyVersion"] {
        reply.remove(field);
    }
    for (field, is) in
        [("isWritablePrimary", is_primary), ("ismaster", is_primary), ("secondary", !is_primary)]
    {
        reply.insert(field, is);
    }
    reply.insert("setName", "rs0");
    reply.insert("hosts", [member.as_str()].as_slice());
    reply.insert("me", member);
}

/// Without a primary the driver waits for twenty seconds, which is longer than an election takes.
#[tokio::test]
async fn a_primary_is_waited_for_as_long_as_an_election_takes() {
    let mut ground = Ground::agreed().await;
    MEMBER_PORT.store(ground.proxy.port(), Ordering::Relaxed);
    let second: fn(&mut Document) = |reply| member_reply(reply, false);
    let first: fn(&mut Document) = |reply| member_reply(reply, true);
    let uri = format!("mongodb://127.0.0.1:{}/", ground.proxy.port());
    let away: Arc<dyn Hub> =
        Arc::new(hub(&uri, ground.centre.name()).with_call_limit(Duration::from_secs(30)));
    ground.sync = Reconciler::new(ground.store.clone(), Some(away), SyncSettings::default());
    ground.proxy.set_rules(hellos(&Act::Alter(second)));
    ground.set("NEW", "mine").await;
    let begun = Instant::now();
    let report = ground.ends(Outcome::Offline).await;
    assert_eq!(report.stage, Some("not primary"), "{report:?}");
    assert!(report.message.contains("is secondary"), "{report:?}");
    let seconds = begun.elapsed().as_secs();
    assert!((18..30).contains(&seconds), "{seconds} s: {report:?}");
    // One that is elected meanwhile ends the waiting.
    let sync = Arc::clone(&ground.sync);
    let round = tokio::spawn(async move { sync.round().await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    ground.proxy.set_rules(hellos(&Act::Alter(first)));
    let report = round.await.unwrap();
    assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
    assert_eq!(ground.at("NEW").await.unwrap().get_str("f").ok(), Some("mine"));
}
