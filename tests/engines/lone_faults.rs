//! Errors about single records, single collections and the node's own rows: they hold up nothing else, and nothing waits
//! for them for ever.

use thalamus_edge::sync::conflicts::{Decision, resolve};

use super::*;
use crate::support::proxy::{Act, Rule, failure, opens_feed, resumes_feed};

const VERBS: [&str; 4] = ["insert", "update", "delete", "bulkWrite"];

fn is_of(command: &Document, what: &str) -> bool {
    command.to_string().contains(what)
}

/// Whatever writes and has a record of the test's in it fails as a whole.
fn whole_calls(code: i32) -> Vec<Rule> {
    let is_faulty: fn(&Document) -> bool = |command| is_of(command, "its fault");
    VERBS.map(|verb| Rule::new(verb, failure(code)).when(is_faulty)).to_vec()
}

async fn set_institution(ground: &Ground, name: &str) {
    let key = RecordKey::new(Kind::Institution, "HOSPITAL");
    edit(&ground.store, key, Some(doc! {"_id": "HOSPITAL", "name": name})).await;
}

async fn institution_there(ground: &Ground) -> Option<String> {
    let rows = ground.rows("institution").await;
    rows.first().map(|row| row.get_str("name").unwrap().to_owned())
}

fn record_writes(seen: &[Document]) -> usize {
    let is_write = |command: &&Document| {
        let name = command.keys().next().unwrap().as_str();
        VERBS.contains(&name) && !is_of(command, "edge_nodes") && !is_of(command, "edge_conflicts")
    };
    seen.iter().filter(is_write).count()
}

#[tokio::test]
async fn a_record_whose_call_fails_is_refused_and_holds_up_nobody() {
    for code in [8, 1, 96, 50, 64, 112, 20, 10_107] {
        let ground = Ground::agreed().await;
        ground.proxy.set_rules(whole_calls(code));
        ground.set("NEW", "its fault").await;
        // Alone at first, so that nobody else's success tells whose fault it is.
        for turn in 1..=8 {
            ground.sync.round().await;
            let dead = if turn < 3 { vec![] } else { vec![code] };
            assert_eq!(ground.dead(), dead, "{code}, {turn}");
        }
        ground.set("BOB", "mine").await;
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some("mine"), "{code}");
        assert_eq!(ground.at("NEW").await, None);
        assert_eq!(ground.person("NEW").unwrap().get_str("f").ok(), Some("its fault"));
        // As many go together as before.
        for number in 0..40 {
            ground.set(&format!("MANY{number:02}"), "mine").await;
        }
        ground.proxy.seen();
        ground.ends(Outcome::Complete).await;
        let writes = record_writes(&ground.proxy.seen());
        assert!(writes <= 3, "{code}: {writes} writes");
        // It goes out once it is another one.
        ground.set("NEW", "better").await;
        ground.ends(Outcome::Complete).await;
        assert_eq!((ground.dead(), ground.pending()), (vec![], 0), "{code}");
    }
}

#[tokio::test]
async fn others_go_out_in_the_same_round_however_many_fail() {
    for (code, count) in [(8, 1), (50, 4), (96, 7), (8, 40)] {
        let ground = Ground::agreed().await;
        ground.proxy.set_rules(whole_calls(code));
        ground.set("ANA", "before them").await;
        for number in 0..count {
            ground.set(&format!("BAD{number}"), "its fault").await;
        }
        for turn in 1..=3 {
            let value = format!("mine {turn}");
            ground.set("BOB", &value).await;
            set_institution(&ground, &value).await;
            ground.ends(Outcome::Partial).await;
            assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some(value.as_str()), "{code}");
            assert_eq!(institution_there(&ground).await, Some(value), "{code}");
            assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some("before them"), "{code}");
        }
        assert_eq!(ground.dead(), vec![code; count]);
        ground.ends(Outcome::Complete).await;
    }
}

/// Another error each time is no new beginning for ever.
#[tokio::test]
async fn errors_of_one_record_are_counted_whatever_their_codes() {
    let ground = Ground::agreed().await;
    ground.set("NEW", "its fault").await;
    for code in [8, 112, 50, 8, 112, 50] {
        assert_eq!(ground.dead(), Vec::<i32>::new());
        ground.proxy.set_rules(whole_calls(code));
        ground.ends(Outcome::Partial).await;
    }
    assert_eq!(ground.dead(), [50]);
}

/// A collection that takes no writes is no record's fault, and no reason for the others to wait.
#[tokio::test]
async fn a_collection_that_is_closed_holds_up_no_other() {
    let of_institutions: fn(&Document) -> bool = |command| is_of(command, "institution");
    for (code, outcome) in [(13, Outcome::Failed), (8, Outcome::Failed), (50, Outcome::Offline)] {
        let ground = Ground::agreed().await;
        let rules = VERBS.map(|verb| Rule::new(verb, failure(code)).when(of_institutions));
        ground.proxy.set_rules(rules.to_vec());
        set_institution(&ground, "mine").await;
        for turn in 1..=5 {
            let value = format!("mine {turn}");
            ground.set("BOB", &value).await;
            // Of a later rank.
            let key = RecordKey::new(Kind::from_collection("encounter").unwrap(), "E");
            edit(&ground.store, key, Some(doc! {"_id": "E", "summary": &value})).await;
            ground.ends(outcome).await;
            assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some(value.as_str()), "{code}");
            assert_eq!(ground.rows("encounter").await.len(), 1, "{code}");
            assert_eq!(ground.dead(), Vec::<i32>::new(), "{code}");
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(institution_there(&ground).await.as_deref(), Some("mine"), "{code}");
    }
}

/// Also where a feed that is to begin is refused, everything is read from the third round on.
#[tokio::test]
async fn a_feed_that_is_refused_at_its_beginning_is_done_without() {
    // The last two say of a position that it is lost: of a feed that begins now, they say that it fails.
    for code in [8, 1, 96, 50, 43, 11_601, 280, 286] {
        for is_known in [false, true] {
            let ground = Ground::new().await;
            if is_known {
                ground.agree().await;
                // What the feed knew is lost, and no other one begins.
                ground.proxy.set_rules(vec![
                    Rule::new("aggregate", failure(286)).when(resumes_feed),
                    Rule::new("aggregate", failure(code)).when(opens_feed),
                ]);
            } else {
                ground.proxy.set_rules(vec![Rule::new("aggregate", failure(code)).when(opens_feed)]);
            }
            ground.put("NEW", "theirs").await;
            for turn in 1..=2 {
                let value = format!("mine {turn}");
                set_institution(&ground, &value).await;
                let report = ground.sync.round().await;
                assert_ne!(report.outcome, Outcome::Complete, "{code}: {report:?}");
                assert_eq!(institution_there(&ground).await, Some(value), "{code}: {report:?}");
                assert_eq!(ground.person("NEW"), None, "{code}");
            }
            for turn in 0..4 {
                let value = format!("theirs {turn}");
                let said = format!(
                    "This centre refuses its change feed (MongoDB error {code}): every round reads everything, less \
                     than 1 MB."
                );
                ground.change("NEW", &value).await;
                ground.proxy.seen();
                let report = ground.ends(Outcome::Complete).await;
                assert_eq!(ground.person("NEW").unwrap().get_str("g").ok(), Some(value.as_str()), "{code}");
                assert!(report.message.contains(&said), "{report:?}");
                let status = ground.sync.status().unwrap();
                assert!(status.message.contains(&said), "{status:?}");
                assert_eq!((status.change_feed, status.change_feed_error), (false, Some(code)));
                assert!(status.full_read_bytes.unwrap() > 0, "{status:?}");
                assert!(ground.proxy.seen().iter().any(opens_feed), "it is tried again");
            }
            ground.proxy.set_rules(Vec::new());
            ground.ends(Outcome::Complete).await;
            ground.change("NEW", "told").await;
            ground.proxy.seen();
            let report = ground.ends(Outcome::Complete).await;
            assert_eq!(ground.person("NEW").unwrap().get_str("g").ok(), Some("told"), "{code}");
            assert!(
                ground.proxy.seen().iter().filter(|command| opens_feed(command)).all(resumes_feed),
                "{code}"
            );
            assert!(!report.message.contains("every round reads"), "{report:?}");
            let status = ground.sync.status().unwrap();
            assert_eq!((status.change_feed, status.change_feed_error), (true, None));
        }
    }
}

/// A feed that fails as it begins, a login that fails on the way, and writes that no majority confirms: the round says which
/// member, what it said, and what to do.
#[tokio::test]
async fn what_fails_on_the_way_is_told_with_code_member_and_remedy() {
    let unconfirmed = Act::Alter(|reply| {
        reply.insert("writeConcernError", doc! {"code": 64, "errmsg": "waiting timed out"});
    });
    let of_record: fn(&Document) -> bool = |command| is_of(command, "sent once");
    let not_confirmed = || VERBS.map(|verb| Rule::new(verb, unconfirmed.clone()).when(of_record)).to_vec();
    let without_bulk_write = [vec![Rule::new("bulkWrite", failure(115))], not_confirmed()].concat();
    let confirm = "on people with an error (the write is not confirmed: MongoDB error 64, WriteConcernFailed). Remedy: at the \
                   centre: rs.status()";
    let feed = |code, name, remedy| {
        (
            vec![Rule::new("aggregate", failure(code))],
            Outcome::Failed,
            format!("answers aggregate on its change feed with an error ({name}). Remedy: {remedy}"),
        )
    };
    let history =
        "it is tried again in the next round. If it lasts: at the centre: rs.printReplicationInfo()";
    for (rules, outcome, words) in [
        (not_confirmed(), Outcome::Partial, confirm.to_owned()),
        (without_bulk_write, Outcome::Partial, confirm.to_owned()),
        feed(280, "MongoDB error 280, ChangeStreamFatalError", history),
        feed(286, "MongoDB error 286, ChangeStreamHistoryLost", history),
        feed(391, "authentication failed, AuthenticationFailed", "correct user, password and authSource"),
    ] {
        let ground = Ground::agreed().await;
        ground.proxy.set_rules(rules);
        ground.set("NEW", "sent once").await;
        let report = ground.ends(outcome).await;
        let member = format!("127.0.0.1:{} ", ground.proxy.port());
        assert!(report.message.contains(&member) && report.message.contains(&words), "{report:?}");
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!((ground.pending(), ground.dead()), (0, vec![]), "{words}");
    }
}

/// What the feed lost in the meantime is found by the look at everything that goes with its new beginning.
#[tokio::test]
async fn a_feed_that_is_refused_whenever_it_goes_on_is_told_of_too() {
    let ground = Ground::agreed().await;
    ground.proxy.set_rules(vec![Rule::new("aggregate", failure(96)).when(resumes_feed)]);
    for _ in 0..2 {
        ground.sync.round().await;
    }
    for _ in 0..3 {
        let report = ground.ends(Outcome::Complete).await;
        assert!(report.message.contains("refuses its change feed (MongoDB error 96)"), "{report:?}");
        let status = ground.sync.status().unwrap();
        assert!(status.message.contains("refuses its change feed (MongoDB error 96)"), "{status:?}");
        assert!(status.full_read_bytes.unwrap() > 0, "{status:?}");
    }
    ground.proxy.set_rules(Vec::new());
    ground.ends(Outcome::Complete).await;
    let report = ground.ends(Outcome::Complete).await;
    assert!(!report.message.contains("every round reads"), "{report:?}");
}

/// A conflict that was decided here and is not published yet.
async fn with_closed_conflict() -> Ground {
    let ground = Ground::agreed().await;
    ground.people().update_one(doc! {"_id": "ANA"}, doc! {"$set": {"f": "theirs"}}).await.unwrap();
    ground.set("ANA", "mine").await;
    ground.sync.round().await;
    let conflicts = ground.store.read().unwrap().conflicts().unwrap();
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    let clerk = Actor::Local("tech".to_owned());
    resolve(&ground.store, &conflict.id, Decision::TakeCentral, Some("theirs".into()), clerk, |_, _, _| {
        Ok(())
    })
    .await
    .unwrap();
    ground
}

#[tokio::test]
async fn conflicts_that_cannot_be_read_or_published_hold_up_no_edit() {
    let reads: fn(&Document) -> bool = |command| command.get_str("find").ok() == Some("edge_conflicts");
    let writes: fn(&Document) -> bool = |command| command.get_str("update").ok() == Some("edge_conflicts");
    for (what, rule) in [
        ("reading fails", Rule::new("find", failure(8)).when(reads)),
        ("reading is refused", Rule::new("find", failure(13)).when(reads)),
        ("reading is interrupted", Rule::new("find", failure(50)).when(reads)),
        ("reading is cut off", Rule::new("find", Act::CutBefore).when(reads)),
        ("writing fails", Rule::new("update", failure(8)).when(writes)),
        ("writing is refused", Rule::new("update", failure(13)).when(writes)),
        ("writing is interrupted", Rule::new("update", failure(50)).when(writes)),
        ("no primary for it", Rule::new("update", failure(10_107)).when(writes)),
        ("rows fail", Rule::new("update", Act::FailStatements("ANA", 1)).when(writes)),
        ("rows find no primary", Rule::new("update", Act::FailStatements("ANA", 10_107)).when(writes)),
        ("rows are refused", Rule::new("update", Act::FailStatements("ANA", 13)).when(writes)),
    ] {
        let ground = with_closed_conflict().await;
        ground.proxy.set_rules(vec![rule]);
        for turn in 0..2 {
            let value = format!("mine {turn}");
            ground.set("BOB", &value).await;
            ground.sync.round().await;
            assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some(value.as_str()), "{what}");
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        let rows = ground.rows("edge_conflicts").await;
        assert_eq!(rows[0].get_str("status").ok(), Some("resolved"), "{what}: {rows:?}");
    }
}

/// The node's own rows: what depends on one waits, and nothing else.
#[tokio::test]
async fn rows_of_the_trash_hold_up_only_what_needs_them() {
    let archives: fn(&Document) -> bool =
        |command| command.get_str("update").ok() == Some("edge_trash") && is_of(command, "pending");
    let settles: fn(&Document) -> bool =
        |command| command.get_str("update").ok() == Some("edge_trash") && !is_of(command, "pending");
    let statement = |code| Act::FailStatements("EVA", code);
    for (what, rule, is_deleted) in [
        ("archive interrupted", Rule::new("update", failure(50)).when(archives), false),
        ("archive without primary", Rule::new("update", failure(10_107)).when(archives), false),
        ("archive refused", Rule::new("update", failure(13)).when(archives), false),
        ("body without primary", Rule::new("update", statement(10_107)).when(archives), false),
        ("body refused", Rule::new("update", statement(13)).when(archives), false),
        ("mark fails", Rule::new("update", failure(8)).when(settles), true),
        ("mark interrupted", Rule::new("update", failure(50)).when(settles), true),
        ("mark without primary", Rule::new("update", statement(10_107)).when(settles), true),
        ("mark refused", Rule::new("update", statement(13)).when(settles), true),
        ("mark of the row fails", Rule::new("update", statement(1)).when(settles), true),
    ] {
        let ground = Ground::agreed().await;
        ground.put("EVA", "old").await;
        ground.ends(Outcome::Complete).await;
        ground.edit("EVA", None).await;
        ground.proxy.set_rules(vec![rule]);
        for turn in 0..2 {
            let value = format!("value {turn}");
            ground.set("ANA", &value).await;
            ground.change("BOB", &value).await;
            let report = ground.sync.round().await;
            assert_ne!(report.outcome, Outcome::Complete, "{what}: {report:?}");
            assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some(value.as_str()), "{what}");
            assert_eq!(ground.person("BOB").unwrap().get_str("g").ok(), Some(value.as_str()), "{what}");
            assert_eq!(ground.at("EVA").await.is_none(), is_deleted, "{what}");
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!((ground.at("EVA").await, ground.pending()), (None, 0), "{what}");
        assert_eq!(ground.dead(), Vec::<i32>::new(), "{what}");
        let trash = ground.rows("edge_trash").await;
        assert_eq!(trash.len(), 1, "{what}: {trash:?}");
        assert_eq!(trash[0].get_str("state").ok(), Some("done"), "{what}: {trash:?}");
    }
}

/// It stays `pending`, and the log says so.
#[tokio::test]
async fn a_row_of_the_trash_that_is_never_taken_is_given_up() {
    let ground = Ground::agreed().await;
    let settles: fn(&Document) -> bool =
        |command| command.get_str("update").ok() == Some("edge_trash") && !is_of(command, "pending");
    ground.edit("ANA", None).await;
    ground.proxy.set_rules(vec![Rule::new("update", failure(8)).when(settles)]);
    for _ in 0..3 {
        ground.sync.round().await;
    }
    ground.ends(Outcome::Complete).await;
    assert_eq!((ground.at("ANA").await, ground.pending()), (None, 0));
}

/// The row of the node itself: without a lease nothing is done, everything after it is.
#[tokio::test]
async fn a_seal_or_a_report_that_is_not_taken_holds_up_nothing_else() {
    for code in [8, 50, 10_107] {
        let ground = Ground::agreed().await;
        // The first one of a round is the lease.
        let of_node: fn(&Document) -> bool = |command| command.get_str("update").ok() == Some("edge_nodes");
        for turn in 0..3 {
            let value = format!("mine {turn}");
            ground.set("ANA", &value).await;
            ground.change("BOB", &value).await;
            ground.proxy.set_rules(vec![
                Rule::new("update", Act::Delay(Duration::ZERO)).when(of_node).times(1),
                Rule::new("update", failure(code)).when(of_node),
            ]);
            let report = ground.sync.round().await;
            assert_ne!(report.outcome, Outcome::Complete, "{code}: {report:?}");
            assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some(value.as_str()), "{code}");
            assert_eq!(ground.person("BOB").unwrap().get_str("g").ok(), Some(value.as_str()), "{code}");
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.pending(), 0, "{code}");
        assert_eq!(ground.rows("edge_nodes").await.len(), 1, "{code}: taken for a copy");
    }
}
