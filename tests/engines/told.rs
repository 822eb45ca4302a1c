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
