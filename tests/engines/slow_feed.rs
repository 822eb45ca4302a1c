//! A change feed that takes long to say anything: after hours of somebody else's changes a server reads through all of
//! them before its first reply.

use super::*;
use crate::support::proxy::{Act, Rule, failure, opens_feed, resumes_feed};

const ROUND: Duration = Duration::from_secs(8);

async fn agreed() -> Ground {
    let settings = SyncSettings { round_timeout: ROUND, ..SyncSettings::default() };
    let ground = Ground::with(Setup::default(), settings).await;
    ground.agree().await;
    ground
}

fn slow(delay: Duration) -> Vec<Rule> {
    vec![Rule::new("aggregate", Act::Delay(delay)).when(resumes_feed)]
}

/// The limit for an exchange is two seconds here.
#[tokio::test]
async fn the_first_reply_may_take_longer_than_any_other() {
    let ground = agreed().await;
    ground.change("ANA", "theirs").await;
    ground.set("BOB", "mine").await;
    ground.proxy.set_rules(slow(Duration::from_secs(4)));
    let report = ground.ends(Outcome::Complete).await;
    assert_eq!((report.pulled, report.pushed), (1, 1), "{report:?}");
    assert_eq!(ground.person("ANA").unwrap().get_str("g").ok(), Some("theirs"));
}

#[tokio::test]
async fn edits_are_sent_meanwhile_and_after_three_rounds_everything_is_looked_at() {
    let ground = agreed().await;
    ground.change("ANA", "theirs").await;
    ground.proxy.set_rules(slow(2 * ROUND));
    for turn in 0..3 {
        let value = format!("mine {turn}");
        ground.set("BOB", &value).await;
        let started = std::time::Instant::now();
        let report = ground.ends(Outcome::Partial).await;
        assert!(started.elapsed() < ROUND, "{:?}", started.elapsed());
        assert!(report.message.contains("What was edited here has been sent"), "{report:?}");
        assert!(!report.message.contains("cannot be reached"), "{report:?}");
        assert_eq!(report.pushed, 1, "{report:?}");
        assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some(value.as_str()));
        assert_eq!(ground.pending(), 0);
        assert_ne!(ground.person("ANA").unwrap().get_str("g").ok(), Some("theirs"));
    }
    // The position is given up: a new one is asked for, which is quick, and everything is read.
    ground.put("NEW", "theirs").await;
    ground.proxy.set_rules(Vec::new());
    ground.proxy.seen();
    let report = ground.ends(Outcome::Complete).await;
    let seen = ground.proxy.seen();
    let first = seen.iter().find(|command| opens_feed(command)).unwrap();
    assert!(!resumes_feed(first), "{first}");
    assert!(seen.iter().any(|command| command.get_str("find").ok() == Some("people")), "{seen:?}");
    assert_eq!(ground.person("ANA").unwrap().get_str("g").ok(), Some("theirs"));
    assert_eq!(ground.person("NEW").unwrap().get_str("f").ok(), Some("theirs"), "{report:?}");
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some("mine 2"));
}

/// Refused at once instead of being slow, whether a new position is any better or not.
#[tokio::test]
async fn a_feed_that_is_refused_whenever_it_goes_on_is_given_up() {
    for code in [43, 50, 1, 96, 11_601] {
        let ground = agreed().await;
        ground.change("ANA", "theirs").await;
        ground.proxy.set_rules(vec![Rule::new("aggregate", failure(code)).when(resumes_feed)]);
        for turn in 0..2 {
            let value = format!("mine {turn}");
            ground.set("BOB", &value).await;
            let report = ground.sync.round().await;
            assert_ne!(report.outcome, Outcome::Complete, "{code}: {report:?}");
            assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some(value.as_str()), "{code}");
            assert_ne!(ground.person("ANA").unwrap().get_str("g").ok(), Some("theirs"));
        }
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.person("ANA").unwrap().get_str("g").ok(), Some("theirs"), "{code}");
        // A new position is refused too: no round waits for it.
        for turn in 0..3 {
            ground.change("ANA", &format!("again {turn}")).await;
            ground.ends(Outcome::Complete).await;
            let here = ground.person("ANA").unwrap();
            assert_eq!(here.get_str("g").ok(), Some(format!("again {turn}").as_str()), "{code}");
        }
        // As soon as it is taken, the feed tells the news again.
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        ground.change("ANA", "told").await;
        ground.proxy.seen();
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.person("ANA").unwrap().get_str("g").ok(), Some("told"), "{code}");
        assert!(ground.proxy.seen().iter().filter(|command| opens_feed(command)).all(resumes_feed), "{code}");
    }
}

/// Neither a line that breaks nor a privilege that is missing is a reason to read everything again.
#[tokio::test]
async fn a_feed_that_a_new_one_would_not_better_keeps_its_position() {
    for act in [Act::CutBefore, failure(13)] {
        let ground = agreed().await;
        ground.change("ANA", "theirs").await;
        ground.proxy.set_rules(vec![Rule::new("aggregate", act).when(opens_feed)]);
        for _ in 0..4 {
            assert_ne!(ground.sync.round().await.outcome, Outcome::Complete);
        }
        ground.proxy.set_rules(Vec::new());
        ground.proxy.seen();
        ground.ends(Outcome::Complete).await;
        assert!(ground.proxy.seen().iter().filter(|command| opens_feed(command)).all(resumes_feed));
        assert_eq!(ground.person("ANA").unwrap().get_str("g").ok(), Some("theirs"));
    }
}

/// A round in which the feed got on is none of the three.
#[tokio::test]
async fn a_feed_that_gets_on_is_not_given_up() {
    let ground = agreed().await;
    for turn in 0..3 {
        ground.proxy.set_rules(slow(2 * ROUND));
        if turn < 2 {
            ground.ends(Outcome::Partial).await;
        }
        ground.proxy.set_rules(Vec::new());
        ground.change("ANA", &format!("theirs {turn}")).await;
        ground.proxy.seen();
        ground.ends(Outcome::Complete).await;
        let seen = ground.proxy.seen();
        assert!(seen.iter().filter(|command| opens_feed(command)).all(resumes_feed));
    }
}

/// Each reply comes in time, and all of them together do not.
#[tokio::test]
async fn reading_that_takes_too_long_leaves_time_for_edits() {
    let ground = agreed().await;
    let kinds = ["pols", "domiciliary_unit", "encounter", "event", "measurements", "hospitalization"];
    for kind in kinds {
        ground.centre.collection::<Document>(kind).insert_one(doc! {"_id": "X"}).await.unwrap();
    }
    let of_records: fn(&Document) -> bool = |command| command.get_str("find").is_ok();
    ground.proxy.set_rules(vec![Rule::new("find", Act::Delay(Duration::from_millis(1500))).when(of_records)]);
    let key = RecordKey::new(Kind::Institution, "HOSPITAL");
    edit(&ground.store, key, Some(doc! {"_id": "HOSPITAL", "name": "mine"})).await;
    let report = ground.ends(Outcome::Partial).await;
    assert_eq!(report.pushed, 1, "{report:?}");
    assert_eq!(ground.rows("institution").await.len(), 1);
    // The rest comes as soon as the line carries it.
    ground.proxy.set_rules(Vec::new());
    ground.ends(Outcome::Complete).await;
    for kind in kinds {
        assert!(ground.here(Kind::from_collection(kind).unwrap(), "X").is_some(), "{kind}");
    }
}

/// Neither a feed nor reads that fail keep an edit back, whatever the reply; the same round tells what failed.
#[tokio::test]
async fn edits_are_sent_whenever_only_reading_fails() {
    let ground = agreed().await;
    let no_reply = || Act::Delay(Duration::from_secs(60));
    let on_people: fn(&Document) -> bool = |command| command.get_str("find").ok() == Some("people");
    let goes_on: fn(&Document) -> bool = |command| command.contains_key("getMore");
    let broken: [(&str, Rule, Outcome); 9] = [
        ("opening cut off", Rule::new("aggregate", Act::CutBefore).when(opens_feed), Outcome::Offline),
        ("opening not allowed", Rule::new("aggregate", failure(13)).when(opens_feed), Outcome::Failed),
        ("opening interrupted", Rule::new("aggregate", failure(11_601)).when(opens_feed), Outcome::Offline),
        ("opening fails", Rule::new("aggregate", failure(8)).when(opens_feed), Outcome::Failed),
        ("the rest cut off", Rule::new("getMore", Act::CutAfter).when(goes_on), Outcome::Offline),
        ("the rest fails", Rule::new("getMore", failure(96)).when(goes_on), Outcome::Failed),
        ("reading cut off", Rule::new("find", Act::CutBefore).when(on_people), Outcome::Offline),
        ("reading fails", Rule::new("find", failure(8)).when(on_people), Outcome::Failed),
        ("reading takes too long", Rule::new("find", no_reply()).when(on_people), Outcome::Offline),
    ];
    for (turn, (what, rule, outcome)) in broken.into_iter().enumerate() {
        let value = format!("mine {turn}");
        ground.change("ANA", &format!("theirs {turn}")).await;
        // Looks up no person before it is sent.
        let key = RecordKey::new(Kind::Institution, "HOSPITAL");
        edit(&ground.store, key, Some(doc! {"_id": "HOSPITAL", "name": &value})).await;
        // The first reply must not tell everything.
        let first_is_empty: fn(&mut Document) = |reply| {
            let cursor = reply.get_document_mut("cursor").unwrap();
            cursor.insert("firstBatch", bson::Bson::Array(Vec::new()));
        };
        let mut rules = vec![rule];
        if what.starts_with("the rest") {
            rules.push(Rule::new("aggregate", Act::Alter(first_is_empty)).when(opens_feed));
        }
        ground.proxy.set_rules(rules);
        let report = ground.sync.round().await;
        assert_eq!(report.outcome, outcome, "{what}: {report:?}");
        let there = ground.rows("institution").await;
        assert_eq!(there[0].get_str("name").ok(), Some(value.as_str()), "{what}: {report:?}");
        assert_eq!(report.pushed, 1, "{what}: {report:?}");
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(
            ground.person("ANA").unwrap().get_str("g").ok(),
            Some(format!("theirs {turn}").as_str()),
            "{what}"
        );
        assert_eq!(ground.pending(), 0, "{what}");
    }
}

/// Patience with the feed is none with a line on which nothing comes back any more.
#[tokio::test]
async fn a_dead_line_is_noticed_while_the_feed_is_waited_for() {
    let ground = agreed().await;
    let is_no_lease: fn(&Document) -> bool = |command| !command.contains_key("update");
    ground.proxy.set_rules(vec![Rule::new("", Act::Delay(Duration::from_secs(60))).when(is_no_lease)]);
    let report = ground.ends(Outcome::Offline).await;
    // Two limits of two seconds: for the feed, and for the question whether anybody is there.
    assert!(report.duration_ms < 5_500, "{report:?}");
}
