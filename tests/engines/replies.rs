//! Replies of other versions and states of a server, and what the next round makes of them.

use super::*;
use crate::support::proxy::{Act, Rule, failure};

/// A server 8.0 that is set up as 7.0 has the version of the protocol, not the command.
#[tokio::test]
async fn a_server_that_does_not_take_bulk_writes_is_written_to_by_the_older_commands() {
    let newest: fn(&mut Document) = |reply| drop(reply.insert("maxWireVersion", 25));
    for code in [115, 59] {
        let ground = Ground::agreed().await;
        let hellos = ["hello", "isMaster", "ismaster"].map(|name| Rule::new(name, Act::Alter(newest)));
        let mut rules = hellos.to_vec();
        rules.push(Rule::new("bulkWrite", failure(code)));
        ground.proxy.set_rules(rules);
        ground.set("NEW", "mine").await;
        ground.set("ANA", "mine").await;
        ground.edit("BOB", None).await;
        let report = ground.ends(Outcome::Complete).await;
        assert_eq!((report.pushed, report.dead), (3, 0), "{code}: {report:?}");
        let seen = names(&ground.proxy.seen());
        let of = |name: &str| seen.iter().filter(|seen| *seen == name).count();
        assert_eq!(of("bulkWrite"), 1, "once in a conversation: {seen:?}");
        assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some("mine"));
        assert_eq!(ground.at("BOB").await, None);
        // Refused again and again, the delete is archived under one name.
        ground.put("EVA", "old").await;
        ground.ends(Outcome::Complete).await;
        ground.edit("EVA", None).await;
        ground.proxy.set_rules(vec![Rule::new("bulkWrite", failure(8)), Rule::new("delete", failure(8))]);
        for _ in 0..3 {
            ground.sync.round().await;
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        let trash = ground.rows("edge_trash").await;
        let of_eva: Vec<_> = trash.iter().filter(|row| row.get_str("id").ok() == Some("EVA")).collect();
        assert_eq!(of_eva.len(), 1, "{trash:?}");
        assert_eq!(of_eva[0].get_str("state").ok(), Some("done"));
    }
}

/// Errors that pass: the round is told as offline, and what waits is sent as soon as reading is all that fails.
#[tokio::test]
async fn errors_that_pass_are_no_failure() {
    let labelled = |label: &str| {
        Act::Answer(doc! {"ok": 0.0, "code": 8, "errmsg": "the proxy says so", "errorLabels": [label]})
    };
    let mut rows: Vec<(String, Act)> =
        [6, 7, 43, 89, 91, 136, 150, 175, 189, 234, 237, 365, 462, 10_107, 11_600, 11_601, 11_602, 13_435]
            .map(|code| (code.to_string(), failure(code)))
            .to_vec();
    for label in ["RetryableWriteError", "ResumableChangeStreamError", "SystemOverloadedError"] {
        rows.push((label.to_owned(), labelled(label)));
    }
    let ground = Ground::agreed().await;
    let of_people: fn(&Document) -> bool = |command| command.get_str("find").ok() == Some("people");
    for (turn, (what, act)) in rows.into_iter().enumerate() {
        let value = format!("value {turn}");
        ground.change("ANA", &value).await;
        let key = RecordKey::new(Kind::Institution, "HOSPITAL");
        edit(&ground.store, key, Some(doc! {"_id": "HOSPITAL", "name": &value})).await;
        ground.proxy.set_rules(vec![Rule::new("find", act).when(of_people)]);
        let report = ground.sync.round().await;
        assert_eq!((report.outcome, report.pushed), (Outcome::Offline, 1), "{what}: {report:?}");
        assert_eq!(ground.rows("institution").await[0].get_str("name").ok(), Some(value.as_str()), "{what}");
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.person("ANA").unwrap().get_str("g").ok(), Some(value.as_str()), "{what}");
    }
}

/// A write whose line breaks is not sent again before the news is read: meanwhile the account may be another person's.
#[tokio::test]
async fn no_write_is_sent_again_behind_the_back_of_the_round() {
    let ground = Ground::agreed().await;
    let human = |name: &str, dob: &str| doc! {"_id": "ANA", "name": name, "lastname": name, "dob": dob};
    ground.people().replace_one(doc! {"_id": "ANA"}, human("Betz", "1985-10-04")).await.unwrap();
    ground.ends(Outcome::Complete).await;
    ground.proxy.seen();
    let page = RecordKey::new(Kind::Page, "hers");
    let written = doc! {"_id": "hers", "book": "ANA", "info": "for the first Ana"};
    edit(&ground.store, page, Some(written)).await;
    let has_page: fn(&Document) -> bool = |command| command.to_string().contains("for the first Ana");
    let rules = ["bulkWrite", "insert", "update", "findAndModify"];
    let rules = rules.map(|command| Rule::new(command, Act::CutBefore).when(has_page).times(1));
    ground.proxy.set_rules(rules.to_vec());
    ground.ends(Outcome::Offline).await;
    let sent = ground.proxy.seen().iter().filter(|command| has_page(command)).count();
    assert_eq!(sent, 1, "{:?}", names(&ground.proxy.seen()));
    ground.proxy.set_rules(Vec::new());
    ground.people().delete_one(doc! {"_id": "ANA"}).await.unwrap();
    ground.people().insert_one(human("Other", "1930-01-01")).await.unwrap();
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.rows("pols").await, Vec::<Document>::new());
    assert!(ground.pending() > 0);
}

fn institution(name: &str) -> (RecordKey, Option<Document>) {
    (RecordKey::new(Kind::Institution, "HOSPITAL"), Some(doc! {"_id": "HOSPITAL", "name": name}))
}

/// Whatever the code: neither the rest of the call nor the rest of the round waits, and three rounds are enough.
#[tokio::test]
async fn an_error_of_one_statement_speaks_for_no_other() {
    for (code, verb) in [
        (50, "insert"),
        (50, "update"),
        (64, "insert"),
        (112, "insert"),
        (11_601, "update"),
        (43, "insert"),
        (262, "insert"),
        (13, "insert"),
        (10_107, "insert"),
        (14_031, "update"),
        (20, "insert"),
    ] {
        let ground = Ground::agreed().await;
        // Most codes by the older commands.
        let mut rules = vec![Rule::new(verb, Act::FailStatements("its fault", code))];
        rules.push(match code {
            64 | 20 | 10_107 => Rule::new("bulkWrite", Act::FailStatements("its fault", code)),
            _ => Rule::new("bulkWrite", failure(59)),
        });
        ground.proxy.set_rules(rules);
        let (bad, good) = if verb == "insert" { ("NEW", "OTHER") } else { ("ANA", "BOB") };
        ground.set(bad, "its fault").await;
        ground.set(good, "mine").await;
        for turn in 1..=3 {
            let value = format!("mine {turn}");
            let (key, document) = institution(&value);
            edit(&ground.store, key, document).await;
            let report = ground.sync.round().await;
            assert_eq!(report.outcome, Outcome::Partial, "{code}, {turn}: {report:?}");
            let there = ground.rows("institution").await;
            assert_eq!(there[0].get_str("name").ok(), Some(value.as_str()), "{code}, {turn}: {report:?}");
            assert_eq!(ground.at(good).await.unwrap().get_str("f").ok(), Some("mine"), "{code}: {report:?}");
            let dead = if turn < 3 { vec![] } else { vec![code] };
            assert_eq!(ground.dead(), dead, "{code}, {turn}: {report:?}");
        }
        // Kept, and sent again once it is edited.
        assert_eq!(ground.person(bad).unwrap().get_str("f").ok(), Some("its fault"));
        ground.set(bad, "better").await;
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at(bad).await.unwrap().get_str("f").ok(), Some("better"), "{code}");
        assert_eq!((ground.dead(), ground.pending()), (vec![], 0), "{code}");
    }
}

/// All statements of a call answered as by a centre that takes no writes: it is not the records, however often.
#[tokio::test]
async fn a_centre_that_takes_no_writes_refuses_no_record() {
    let ground = Ground::agreed().await;
    for (code, outcome) in [
        (10_107, Outcome::Offline),
        (14_031, Outcome::Offline),
        (91, Outcome::Offline),
        (13, Outcome::Failed),
    ] {
        let update = Rule::new("update", Act::FailStatements("_id", code)).when(of_people);
        ground.proxy.set_rules(vec![update, Rule::new("bulkWrite", failure(59))]);
        ground.set("ANA", &format!("mine {code}")).await;
        ground.set("BOB", &format!("mine {code}")).await;
        for _ in 0..4 {
            ground.ends(outcome).await;
            assert_eq!((ground.dead(), ground.pending()), (vec![], 2), "{code}");
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at("BOB").await.unwrap().get_str("f").ok(), Some(format!("mine {code}").as_str()));
        assert_eq!(ground.pending(), 0);
    }
    // One record alone: a write that changes nothing tells whether it is the record.
    let update = Rule::new("update", Act::FailStatements("_id", 10_107)).when(of_people);
    ground.proxy.set_rules(vec![update, Rule::new("bulkWrite", failure(59))]);
    ground.set("ANA", "alone").await;
    for _ in 0..4 {
        let report = ground.ends(Outcome::Offline).await;
        assert!(!report.message.contains("line"), "{report:?}");
        assert_eq!((ground.dead(), ground.pending()), (vec![], 1));
    }
}

fn of_records(command: &Document) -> bool {
    let collection = ["insert", "update", "delete"].iter().find_map(|verb| command.get_str(verb).ok());
    collection.is_none_or(|name| !name.starts_with("edge_"))
}

/// A server that answers has been reached, and is asked no more than is of use.
#[tokio::test]
async fn an_answer_with_an_error_is_told_as_what_it_is() {
    let refusing = |code| {
        let verbs = ["insert", "update", "delete", "bulkWrite"];
        verbs.map(|verb| Rule::new(verb, failure(code)).when(of_records)).to_vec()
    };
    let written = |seen: &[Document]| {
        let is_write = |name: &&String| ["insert", "update", "delete", "bulkWrite"].contains(&name.as_str());
        let own = seen.iter().filter(|command| of_records(command)).cloned().collect::<Vec<_>>();
        names(&own).iter().filter(is_write).count()
    };
    let ground = Ground::agreed().await;
    for (code, most) in [(13, Kind::ALL.len() + 3), (59, 12), (115, 12), (79, 12), (2, 12)] {
        ground.proxy.set_rules(refusing(code));
        for id in ["ANA", "BOB", "NEW"] {
            ground.set(id, &format!("mine {code}")).await;
        }
        ground.proxy.seen();
        let report = ground.ends(Outcome::Failed).await;
        let count = written(&ground.proxy.seen());
        assert!(count <= most, "{code}: {count} writes");
        assert!(!report.message.contains("asks for a login"), "{report:?}");
        assert_eq!(report.message.contains("does not allow update on"), code == 13, "{report:?}");
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
    }
    for code in [43, 50, 11_601] {
        ground.change("ANA", &format!("theirs {code}")).await;
        for rules in [vec![Rule::new("find", failure(code))], refusing(code)] {
            ground.set("BOB", &format!("mine {code} {}", rules.len())).await;
            ground.proxy.set_rules(rules);
            let report = ground.ends(Outcome::Offline).await;
            let wrong = ["cannot be reached", "answers no question", "line to the centre broke off"];
            assert!(wrong.iter().all(|words| !report.message.contains(words)), "{report:?}");
        }
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
    }
}

fn of_people(command: &Document) -> bool {
    ["insert", "update", "delete"].iter().any(|verb| command.get_str(verb).ok() == Some("people"))
}

/// A body that the centre's trash does not take now is no lasting fault at once.
#[tokio::test]
async fn an_error_about_a_body_for_the_trash_holds_up_nobody() {
    let ground = Ground::agreed().await;
    let of_trash: fn(&Document) -> bool = |command| command.get_str("update").ok() == Some("edge_trash");
    for code in [50, 112, 1] {
        ground.put("EVA", "old").await;
        ground.ends(Outcome::Complete).await;
        ground.edit("EVA", None).await;
        let failing = Rule::new("update", Act::FailStatements("EVA", code)).when(of_trash);
        ground.proxy.set_rules(vec![failing]);
        ground.set("ANA", &format!("mine {code}")).await;
        ground.ends(Outcome::Partial).await;
        assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some(format!("mine {code}").as_str()));
        assert_eq!(ground.dead(), Vec::<i32>::new(), "{code}");
        ground.ends(Outcome::Partial).await;
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!((ground.at("EVA").await, ground.pending()), (None, 0), "{code}");
    }
}

/// A centre that was initiated under a name that only it knows: the round ends in time, and everything is kept.
#[tokio::test]
async fn members_that_nobody_can_find_cost_nothing_but_the_round() {
    let ground = Ground::agreed().await;
    let elsewhere: fn(&mut Document) = |reply| {
        reply.insert("hosts", vec!["centre.invalid:27017"]);
        reply.insert("me", "centre.invalid:27017");
        reply.insert("primary", "centre.invalid:27017");
    };
    let hellos = ["hello", "isMaster", "ismaster"].map(|name| Rule::new(name, Act::Alter(elsewhere)));
    ground.proxy.set_rules(hellos.to_vec());
    let admin = ground.centre.client().database("admin");
    let hello = admin.run_command(doc! {"isMaster": 1}).await.unwrap();
    let set = hello.get_str("setName").unwrap();
    let uri = format!("mongodb://127.0.0.1:{}/?replicaSet={set}", ground.proxy.port());
    let elsewhere: Arc<dyn Hub> = Arc::new(hub(&uri, ground.centre.name()));
    let sync = Reconciler::new(ground.store.clone(), Some(elsewhere), SyncSettings::default());
    ground.set("ANA", "mine").await;
    let started = std::time::Instant::now();
    let report = sync.round().await;
    assert_eq!(report.outcome, Outcome::Offline, "{report:?}");
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    assert_eq!(ground.pending(), 1);
    ground.proxy.set_rules(Vec::new());
    ground.ends(Outcome::Complete).await;
    assert_eq!(ground.at("ANA").await.unwrap().get_str("f").ok(), Some("mine"));
}

/// What a server would answer by reading all of a collection before its first reply.
#[tokio::test]
async fn no_question_reads_a_whole_collection_before_its_first_answer() {
    let ground = Ground::new().await;
    ground.put("ANA", "old").await;
    ground.people().insert_one(doc! {"_id": 7}).await.unwrap();
    // The line breaks in the middle of a first sync, after which large documents are looked for.
    let sorted: fn(&Document) -> bool =
        |command| command.get_str("find").ok() == Some("people") && command.contains_key("sort");
    ground.proxy.set_rules(vec![Rule::new("find", Act::CutAfter).when(sorted).times(2)]);
    ground.ends(Outcome::Offline).await;
    let report = ground.ends(Outcome::Complete).await;
    assert!(report.message.contains("One record at the centre has an id that is no text"), "{report:?}");
    ground.sync.ask_for_verification().await.unwrap();
    ground.ends(Outcome::Complete).await;
    let seen = ground.proxy.seen();
    let asked = |command: &Document| {
        let pipeline = command.get_array("pipeline").ok().and_then(|stages| stages.first()?.as_document());
        let first = pipeline.and_then(|stage| stage.get_document("$match").ok());
        command.get_document("filter").ok().or(first).cloned()
    };
    let mut looked_for = [false; 2];
    for command in &seen {
        let Some(filter) = asked(command) else { continue };
        let of_id = filter.get_document("_id").cloned().unwrap_or_default();
        assert!(!of_id.contains_key("$not") && !filter.contains_key("$expr"), "{command}");
        looked_for[0] |= of_id.get_array("$type").is_ok();
        let is_of_sizes = command.contains_key("pipeline") && format!("{command}").contains("$bsonSize");
        if is_of_sizes {
            assert!(format!("{command}").contains(r#"{ "$limit": 1000 }"#), "{command}");
            looked_for[1] = true;
        }
    }
    assert_eq!(looked_for, [true; 2], "{seen:?}");
}

/// Nobody waits for a driver that tries for as long as it may; the stage is told all the same.
#[tokio::test]
async fn a_centre_that_is_not_there_is_told_soon() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (uri, stage) in [
        (format!("mongodb://127.0.0.1:{closed}/"), "connection"),
        (format!("mongodb://127.0.0.1:{closed}/?replicaSet=rs0"), "connection"),
        ("mongodb://centre.invalid/".to_owned(), "name"),
        (format!("mongodb://centre.invalid,127.0.0.1:{closed}/?replicaSet=rs0"), "connection"),
    ] {
        let store = Store::in_memory(OPTIONS).unwrap();
        let away: Arc<dyn Hub> = Arc::new(hub(&uri, "federation").with_call_limit(Duration::from_secs(30)));
        let sync = Reconciler::new(store.clone(), Some(away), SyncSettings::default());
        edit(&store, person_key("ANA"), Some(person("ANA", "mine"))).await;
        let started = std::time::Instant::now();
        let report = sync.round().await;
        assert!(started.elapsed() < Duration::from_secs(4), "{uri}: {:?}", started.elapsed());
        assert_eq!((report.outcome, report.stage), (Outcome::Offline, Some(stage)), "{uri}: {report:?}");
        assert_eq!(store.read().unwrap().pending_count().unwrap(), 1);
    }
}
