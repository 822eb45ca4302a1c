//! What a round says of commands that failed: the stage, the command and its collection, the member, and what to do.

use super::*;
use crate::support::proxy::{Act, Rule, failure, statement_failures};

const VERBS: [&str; 4] = ["insert", "update", "delete", "bulkWrite"];

fn is_of_people(command: &Document) -> bool {
    command.to_string().contains("people")
}

fn has_member(report: &Report) -> bool {
    report.member.as_deref().is_some_and(|member| report.message.contains(member))
}

#[tokio::test]
async fn writes_that_fail_with_a_passing_code_are_told_with_code_member_and_remedy() {
    for (code, words) in [
        (112, "MongoDB error 112, WriteConflict"),
        (50, "MongoDB error 50, MaxTimeMSExpired"),
        (262, "MongoDB error 262, ExceededTimeLimit"),
    ] {
        let ground = Ground::agreed().await;
        ground.proxy.set_rules(VERBS.map(|verb| Rule::new(verb, failure(code))).to_vec());
        ground.set("NEW", "mine").await;
        let report = ground.sync.round().await;
        assert_eq!(report.stage, Some("writing"), "{report:?}");
        assert!(has_member(&report), "{report:?}");
        assert!(report.message.contains(words) && report.message.contains("Remedy: "), "{report:?}");
        assert!(report.message.contains("next round"), "{report:?}");
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at("NEW").await.unwrap().get_str("f").ok(), Some("mine"));
    }
}

#[tokio::test]
async fn reads_that_fail_or_stay_without_an_answer_are_told_as_well() {
    let late = Act::Delay(Duration::from_secs(30));
    for (act, words) in [(failure(50), "MaxTimeMSExpired"), (late, "no answer")] {
        let ground = Ground::agreed().await;
        ground.change("ANA", "changed").await;
        ground.proxy.set_rules(vec![Rule::new("find", act).when(is_of_people)]);
        let report = ground.ends(Outcome::Offline).await;
        assert_eq!(report.stage, Some("reading"), "{report:?}");
        assert!(has_member(&report), "{report:?}");
        let is_told = report.message.contains("find on people") && report.message.contains(words);
        assert!(is_told && report.message.contains("Remedy: "), "{report:?}");
    }
}

#[tokio::test]
async fn rows_of_the_node_that_a_validator_refuses_are_told_with_their_collection() {
    let of_trash: fn(&Document) -> bool = |command| command.get_str("update").ok() == Some("edge_trash");
    for act in [failure(121), statement_failures(1, 121, "Document failed validation")] {
        let ground = Ground::agreed().await;
        ground.proxy.set_rules(vec![Rule::new("update", act).when(of_trash)]);
        ground.edit("BOB", None).await;
        let report = ground.sync.round().await;
        for words in [
            "update on edge_trash",
            "MongoDB error 121",
            "DocumentValidationFailure",
            "the validator of this",
        ] {
            assert!(report.message.contains(words), "{words}: {report:?}");
        }
        assert!(ground.at("BOB").await.is_some(), "nothing is deleted before it is in the trash");
        ground.proxy.set_rules(Vec::new());
        ground.ends(Outcome::Complete).await;
        assert_eq!(ground.at("BOB").await, None);
    }
}

/// An answer is no broken line: the round goes on and says what it could not do.
#[tokio::test]
async fn a_look_for_namesakes_that_fails_ends_no_round() {
    let of_names: fn(&Document) -> bool = |command| {
        command.get_str("find").ok() == Some("edge_nodes") && command.to_string().contains("last_round_at")
    };
    for code in [50, 112, 8, 13] {
        let ground = Ground::new().await;
        ground.put("ANA", "old").await;
        ground.set("NEW", "mine").await;
        ground.proxy.set_rules(vec![Rule::new("find", failure(code)).when(of_names)]);
        let report = ground.ends(Outcome::Complete).await;
        let is_told = report.message.contains("Other nodes of the same name could not be looked for")
            && report.message.contains("find on edge_nodes");
        assert!(is_told, "{code}: {report:?}");
        assert!(ground.at("NEW").await.is_some());
        ground.proxy.set_rules(Vec::new());
        let report = ground.ends(Outcome::Complete).await;
        assert!(!report.message.contains("could not be looked for"), "{report:?}");
    }
}

/// Errors about single records, and such that look like a refusal of this node: the command is told, whatever a look at the
/// way to the centre finds afterwards.
#[tokio::test]
async fn errors_of_writes_are_told_with_command_collection_code_member_and_remedy() {
    let of_write = |act: &Act| VERBS.map(|verb| Rule::new(verb, act.clone()).when(is_of_people)).to_vec();
    for code in [40_671, 8_000, 121, 13, 2] {
        let alone = Act::FailStatements("mine", code);
        for (what, act) in [("a call", failure(code)), ("a statement", alone)] {
            let ground = Ground::agreed().await;
            ground.proxy.set_rules(of_write(&act));
            ground.set("NEW", "mine").await;
            let report = ground.sync.round().await;
            let named = format!("MongoDB error {code}");
            for words in ["on people", named.as_str(), "answers", "Remedy: ", "127.0.0.1:"] {
                assert!(report.message.contains(words), "{what} {code} {words}: {report:?}");
            }
            assert!(!report.message.contains("up to date"), "{report:?}");
            ground.proxy.set_rules(Vec::new());
        }
    }
}

/// `doctor` and `setup` ask for much; all of it together has an end, and what was found by then is told.
#[tokio::test]
async fn a_look_at_a_centre_that_falls_silent_ends() {
    let ground = Ground::agreed().await;
    let survey = ground.hub().survey("clinic", None, 0).await;
    assert!(survey.trouble.is_none() && !survey.members.is_empty(), "{survey:?}");
    for command in ["listCollections", "aggregate", "find"] {
        ground.proxy.set_rules(vec![Rule::new(command, Act::Delay(Duration::from_secs(60)))]);
        let begun = std::time::Instant::now();
        let limit = Duration::from_secs(2);
        let survey = ground.hub().with_survey_limit(limit).survey("clinic", None, 0).await;
        let took = begun.elapsed();
        let is_asked = ground.proxy.seen().iter().any(|seen| seen.contains_key(command));
        if !is_asked {
            continue;
        }
        assert!(took >= limit && took < limit * 3, "{command}: {took:?}");
        let trouble = survey.trouble.unwrap();
        assert!(trouble.reason.contains("within 2 seconds"), "{command}: {trouble:?}");
        assert!(trouble.member.is_some() && trouble.remedy.contains("how busy"), "{trouble:?}");
        assert!(!survey.members.is_empty(), "{command}: what was found is told");
    }
    // Nobody says anything at all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("mongodb://{}/", silent.local_addr().unwrap());
    let begun = std::time::Instant::now();
    let survey = hub(&uri, "none").with_survey_limit(Duration::from_secs(1)).survey("clinic", None, 0).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(survey.trouble.unwrap().reason.contains("within 1 seconds"));
}
