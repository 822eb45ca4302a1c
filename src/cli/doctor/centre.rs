//! Floor 5. What `doctor` and `setup` say of the way to the centre, tried stage by stage.

use super::findings::{Findings, Health};
use crate::central::mongo::MongoHub;
use crate::central::survey::{Stage, Survey, Trouble};
use crate::config::Config;
use crate::sync::namesakes::{self, SameName};

const CENTRE: &str = "centre";
const MEMBER: &str = "member of the centre";
const NAME: &str = "name at the centre";

/// Tries the connection, login and rights, if a centre is configured. `own` is the node's id there.
pub(super) async fn look(found: &mut Findings, config: &Config, own: Option<&str>, now_ms: i64) {
    // An address that cannot be read is told with the way to the centre.
    let Ok(Some(address)) = config.centre() else {
        return;
    };
    let survey = MongoHub::new(address).survey(&config.node.name, own, now_ms).await;
    found_of(found, &survey, &config.node.name);
}

fn found_of(found: &mut Findings, survey: &Survey, name: &str) {
    match &survey.trouble {
        None => found.ok(CENTRE, reached(survey)),
        Some(trouble) => found.found(CENTRE, health(trouble), trouble.to_string(), trouble.remedy),
    }
    for member in &survey.members {
        match &member.found {
            Ok(role) => found.ok(MEMBER, format!("{} is {role}", member.name)),
            // It is told already if it is what keeps the node out.
            Err(trouble) if survey.trouble.is_some() => {
                found.found(MEMBER, health(trouble), trouble.to_string(), trouble.remedy)
            }
            Err(trouble) => found.warning(
                MEMBER,
                format!("{trouble}; once this member is primary, the centre cannot be reached"),
                trouble.remedy,
            ),
        }
    }
    for advice in &survey.advice {
        found.warning(CENTRE, advice.finding.clone(), advice.remedy);
    }
    for unseen in &survey.unseen {
        found.ok(CENTRE, *unseen);
    }
    let Some(others) = &survey.namesakes else {
        return;
    };
    let others: Vec<_> = others.iter().map(SameName::of).collect();
    match namesakes::words(name, &others) {
        None => found.ok(NAME, format!("{name:?} is this node's alone")),
        Some(words) => found.warning(NAME, words, "[node] name, then systemctl restart thalamus-edge"),
    }
}

/// A clinic may be without a network for a while.
fn health(trouble: &Trouble) -> Health {
    match trouble.stage.is_lasting() {
        true => Health::Wrong,
        false => Health::Warning,
    }
}

fn reached(survey: &Survey) -> String {
    let primary = survey.members.iter().find(|member| {
        member.found.as_ref().is_ok_and(|role| ["primary", "router", "standalone"].contains(role))
    });
    let name = primary.map_or("its primary", |member| member.name.as_str());
    let stages =
        [Stage::Name, Stage::Connection, Stage::Answer, Stage::Version, Stage::Login, Stage::Privilege];
    let stages: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
    format!("{name} is reached: {} are in order", stages.join(", "))
}

/// The same for a technician who has just given the address, and whether a node can reconcile there; nothing without a centre.
pub(crate) async fn told(config: &Config, own: Option<&str>, now_ms: i64) -> Option<(bool, String)> {
    let address = config.centre().ok()??;
    let survey = MongoHub::new(address).survey(&config.node.name, own, now_ms).await;
    let mut found = Findings::default();
    found_of(&mut found, &survey, &config.node.name);
    Some((survey.trouble.is_none(), found.lines()))
}
