//! Floor 2. What `doctor` and `setup` are told about the centre, and what a failed round is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Database;

use super::probe::{self, LOGIN, Primary, Way};
use super::rights;
use crate::central::NODES_COLLECTION;
use crate::central::mongo::counters::Counters;
use crate::central::mongo::{MongoHub, number};
use crate::central::survey::{Advice, Diagnosis, Namesake, Stage, Survey, Trouble};

/// Longest that a failed round looks for the cause.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(30);
/// Longest that `doctor` and `setup` look at the centre, all in all: what was found by then is told.
pub(in crate::central::mongo) const SURVEY_LIMIT: Duration = Duration::from_secs(90);
/// How long ago another node may have been at the centre and still count as being there.
pub(super) const NAMESAKE_DAYS: i64 = 7;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// A clinic may be away for so long without everything being read again.
const HISTORY_HOURS_MIN: u64 = 30 * 24;

/// A driver that has found no server for so long is looked after; and again after that time, because a server that is
/// started anew is away for a moment.
const FOUND_AFTER: Duration = Duration::from_secs(1);
/// A look that took so long has seen more than a moment, and needs no second one.
const SEEN_LONG: Duration = Duration::from_secs(3);

impl MongoHub {
    /// What keeps the driver from finding a server. It would try all of them for as long as it may, and then know only that
    /// there was none. An election is waited for.
    pub(in crate::central::mongo) async fn obstacle_of(&self, opened: Option<Arc<Counters>>) -> Trouble {
        let looking = async {
            let mut before = None;
            loop {
                tokio::time::sleep(FOUND_AFTER).await;
                let begun = Instant::now();
                let found = probe::way(&self.address).await.primary.err();
                let found = found.filter(|trouble| trouble.stage != Stage::Primary);
                let is_seen_long = begun.elapsed() >= SEEN_LONG;
                match (&before, found) {
                    (_, Some(found)) if is_seen_long || found.stage.is_lasting() => return found,
                    (Some(before), Some(found)) if *before == found.stage => return found,
                    (_, found) => before = found.map(|trouble| trouble.stage),
                }
            }
        };
        let found = async {
            match opened {
                Some(counters) => counters.found().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = found => std::future::pending().await,
            trouble = looking => trouble,
        }
    }

    /// Why the centre cannot be reached, or that it can.
    pub(in crate::central::mongo) async fn cause(&self) -> Diagnosis {
        let looking = async {
            let way = probe::way(&self.address).await;
            let entered = match way.primary {
                Ok(primary) => rights::enter(&primary, &self.address).await,
                Err(trouble) => Err(trouble),
            };
            match entered {
                Ok(entered) => {
                    entered.client.shutdown().immediate(true).await;
                    Diagnosis::Well
                }
                Err(trouble) => Diagnosis::Trouble(trouble),
            }
        };
        tokio::time::timeout(DIAGNOSIS_LIMIT, looking).await.unwrap_or(Diagnosis::Unknown)
    }

    /// Looks at everything on the way to the centre, and who else is called `name` there; `own` is this node's id at the
    /// centre, if it has one. Changes nothing.
    pub async fn survey(&self, name: &str, own: Option<&str>, now_ms: i64) -> Survey {
        let mut survey = Survey::default();
        let looking = self.look_at(&mut survey, name, own, now_ms);
        if tokio::time::timeout(self.survey_limit, looking).await.is_err() && survey.trouble.is_none() {
            let member = survey.members.iter().find(|member| member.found.is_ok());
            let member = member.map(|member| member.name.clone());
            let who = member.as_deref().unwrap_or("the centre");
            let reason = format!(
                "{who} answers too slowly to be looked at within {} seconds",
                self.survey_limit.as_secs()
            );
            survey.trouble = Some(Trouble { stage: Stage::Answer, member, reason, remedy: SLOW });
        }
        survey
    }

    async fn look_at(&self, survey: &mut Survey, name: &str, own: Option<&str>, now_ms: i64) {
        let Way { members, primary } = probe::way(&self.address).await;
        survey.members = members;
        let primary = match primary {
            Ok(primary) => primary,
            Err(trouble) => {
                survey.trouble = Some(trouble);
                return;
            }
        };
        survey.advice.extend(of_address(&primary));
        let entered = match rights::enter(&primary, &self.address).await {
            Ok(entered) => entered,
            Err(trouble) => {
                survey.trouble = Some(trouble);
                return;
            }
        };
        if entered.is_open_to_all {
            survey.advice.push(Advice {
                finding:
                    "the server asks for no login: anybody who reaches its port reads and changes every record"
                        .to_owned(),
                remedy: LOGIN,
            });
        }
        let database = entered.client.database(&self.address.database);
        let member = primary.name.as_str();
        match rights::asked(&database, collations_command()).await {
            None => survey.advice.push(slow(member, "asked for its collections")),
            Some(reply) => survey.advice.extend(reply.ok().and_then(|reply| of_collations(&reply))),
        }
        match of_history(&entered.client.database("local")).await {
            Err(Late) => survey.advice.push(slow(member, "asked how far its history reaches back")),
            Ok(History::Short(advice)) => survey.advice.push(advice),
            // A standalone server has none, which is said already.
            Ok(History::Unseen) if !primary.is_standalone => survey.unseen.push(UNSEEN_HISTORY),
            Ok(History::Unseen | History::LongEnough) => {}
        }
        match rights::asked(&database, namesakes_command(name, own)).await {
            None => survey.advice.push(slow(member, "asked for other nodes of this name")),
            Some(rows) => survey.namesakes = rows.ok().map(|reply| namesakes(&reply, now_ms)),
        }
        entered.client.shutdown().immediate(true).await;
    }
}

const SLOW: &str = "see how busy the server is; its log says what it waits for";

/// A server that logs in and then does not answer.
fn slow(member: &str, what: &str) -> Advice {
    Advice { finding: rights::late(member, what), remedy: SLOW }
}

/// The server did not answer in time.
struct Late;

fn of_address(primary: &Primary) -> Vec<Advice> {
    let mut advice = Vec::new();
    if primary.is_standalone {
        advice.push(Advice {
            finding: "the server is no replica set and keeps no history: every round reads every record".to_owned(),
            remedy: "at the centre: replication.replSetName, then rs.initiate() with a member under a name that clinics \
                     can resolve (docs/SYNC.md: What a node needs)",
        });
    }
    if primary.is_direct && primary.hosts > 1 {
        advice.push(Advice {
            finding: format!(
                "directConnection=true keeps to one of {} members: no round works once another one is primary",
                primary.hosts
            ),
            remedy: "take directConnection=true out of the address, and name all members in it",
        });
    } else if primary.hosts > 1 && primary.seeds == 1 {
        advice.push(Advice {
            finding: format!(
                "the address names one of {} members: while that one is away, no round begins",
                primary.hosts
            ),
            remedy: "name all members in the address, with commas between them (or mongodb+srv://)",
        });
    }
    advice
}

/// Nodes compare by bytes, and where a collection does not they have to ask for it with each statement.
fn collations_command() -> Document {
    let filter = doc! {"options.collation": {"$exists": true}, "options.collation.locale": {"$ne": "simple"}};
    doc! {"listCollections": 1, "filter": filter}
}

fn of_collations(reply: &Document) -> Option<Advice> {
    let found = reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?;
    let names: Vec<&str> = found.iter().filter_map(|row| row.as_document()?.get_str("name").ok()).collect();
    (!names.is_empty()).then(|| Advice {
        finding: format!(
            "collections with a collation of their own: {}. Nodes ask to compare by bytes in each statement, which such \
             indexes do not serve: every write looks through the collection",
            names.join(", ")
        ),
        remedy: "at the centre: copy them into collections without a collation (docs/SYNC.md: What a node needs)",
    })
}

/// The role in docs/SYNC.md may not read the oplog, and needs not to for anything else.
const UNSEEN_HISTORY: &str = "how far the centre's history (oplog) reaches back could not be looked at: the role in \
     docs/SYNC.md may not read local.oplog.rs. Ask the centre's administrator what rs.printReplicationInfo() says: it has to be longer \
     than a clinic is ever away (docs/SYNC.md: What a node needs). Or let this user see it: grantRolesToUser with {role: \
     \"read\", db: \"local\"}";

/// How far back the server can tell what happened.
#[derive(Debug)]
enum History {
    LongEnough,
    Short(Advice),
    /// This user may not see it; most may not.
    Unseen,
}

async fn of_history(local: &Database) -> Result<History, Late> {
    let find = |order: i32| doc! {"find": "oplog.rs", "sort": {"$natural": order}, "limit": 1, "projection": {"ts": 1}};
    let mut replies = Vec::new();
    for command in [find(1), find(-1), doc! {"collStats": "oplog.rs"}] {
        match rights::asked(local, command).await.ok_or(Late)? {
            Ok(reply) => replies.push(reply),
            Err(_) => return Ok(History::Unseen),
        }
    }
    Ok(history_in(&replies))
}

/// From its first and last entry, and how large it may be.
fn history_in(replies: &[Document]) -> History {
    let read = || {
        let [first, last, stats] = replies else { return None };
        let hours = rights::hours_between(rights::first_of(first)?, rights::first_of(last)?)?;
        Some((hours, number(stats, "size")?, number(stats, "maxSize")?))
    };
    let Some((hours, used, most)) = read() else {
        return History::Unseen;
    };
    // A young one is short because nothing was before.
    let is_full = used >= most / 10 * 9;
    if !is_full || hours >= HISTORY_HOURS_MIN {
        return History::LongEnough;
    }
    History::Short(Advice {
        finding: format!(
            "the centre's history (oplog, {} MB) reaches back {hours} hours: a clinic that is away for longer reads \
             everything again",
            most / 1_000_000
        ),
        remedy: "at the centre: replSetResizeOplog with minRetentionHours (docs/SYNC.md: What a node needs)",
    })
}

/// Finds other rows under a name.
pub(in crate::central::mongo) fn namesakes_command(name: &str, own: Option<&str>) -> Document {
    let mut filter = doc! {"name": name, "status": {"$ne": "revoked"}};
    if let Some(own) = own {
        filter.insert("_id", doc! {"$ne": own});
    }
    doc! {"find": NODES_COLLECTION, "filter": filter, "projection": {"last_round_at": 1}, "singleBatch": true}
}

/// Those of the rows found that still run rounds.
pub(in crate::central::mongo) fn namesakes(reply: &Document, now_ms: i64) -> Vec<Namesake> {
    let rows = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let rows = rows.map_or(&[][..], |rows| rows).iter().filter_map(|row| row.as_document());
    let found = rows.filter_map(|row| {
        let last_round_ms = row.get_datetime("last_round_at").ok().map(|at| at.timestamp_millis());
        Some(Namesake { node: row.get_str("_id").ok()?.to_owned(), last_round_ms })
    });
    let since_ms = now_ms - NAMESAKE_DAYS * DAY_MS;
    found.filter(|other| other.last_round_ms.is_none_or(|at_ms| at_ms > since_ms)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_that_still_run_rounds_are_namesakes() {
        let now_ms = 1_000 * DAY_MS;
        let row = |id: &str, days: i64| {
            doc! {"_id": id, "last_round_at": bson::DateTime::from_millis(now_ms - days * DAY_MS)}
        };
        let rows =
            vec![row("new", 0), row("old", 8), row("ahead", -3), doc! {"_id": "never"}, doc! {"_id": 5}];
        let reply = doc! {"cursor": {"firstBatch": rows}};
        let names: Vec<_> = namesakes(&reply, now_ms).into_iter().map(|other| other.node).collect();
        assert_eq!(names, ["new", "ahead", "never"]);
        assert!(namesakes(&doc! {}, now_ms).is_empty());
    }

    #[test]
    fn an_address_that_fails_with_one_member_is_advised_against() {
        let advised = |is_standalone: bool, is_direct: bool, seeds: usize, hosts: usize| {
            let primary = Primary {
                name: "a:27017".to_owned(),
                options: mongodb::options::ClientOptions::default(),
                is_standalone,
                seeds,
                hosts,
                is_direct,
            };
            let advice = of_address(&primary);
            assert!(advice.iter().all(|advice| !advice.remedy.is_empty()));
            advice.into_iter().map(|advice| advice.finding).collect::<Vec<_>>()
        };
        // One seed of several members; several seeds; the only member.
        let one_seed = advised(false, false, 1, 3);
        assert!(
            one_seed.len() == 1 && one_seed[0].starts_with("the address names one of 3 members"),
            "{one_seed:?}"
        );
        assert!(advised(false, false, 2, 3).is_empty());
        assert!(advised(false, false, 1, 1).is_empty());
        // directConnection at a primary that works, which hides the others however many are named.
        for seeds in [1, 3] {
            let direct = advised(false, true, seeds, 3);
            assert!(
                direct.len() == 1 && direct[0].starts_with("directConnection=true keeps to one of 3"),
                "{direct:?}"
            );
        }
        assert!(advised(false, true, 1, 1).is_empty());
        let standalone = advised(true, false, 1, 0);
        assert!(standalone.len() == 1 && standalone[0].contains("no replica set"), "{standalone:?}");
    }

    #[test]
    fn a_history_that_is_too_short_is_advised_against() {
        let entry = |hours: u64| {
            let time = u32::try_from(1_700_000_000 + hours * 3600).unwrap();
            doc! {"cursor": {"firstBatch": [{"ts": bson::Timestamp { time, increment: 1 }}]}}
        };
        let stats = |size: i64| doc! {"size": size, "maxSize": 1_000_000_000_i64};
        let found = |hours, size| history_in(&[entry(0), entry(hours), stats(size)]);
        let History::Short(advice) = found(719, 900_000_000) else {
            panic!("full after 719 hours");
        };
        assert!(advice.finding.contains("(oplog, 1000 MB) reaches back 719 hours"), "{}", advice.finding);
        assert!(advice.remedy.contains("minRetentionHours"));
        assert!(matches!(found(720, 1_000_000_000), History::LongEnough));
        // Not full yet: nothing was before.
        assert!(matches!(found(10, 899_000_000), History::LongEnough));
        // What cannot be read is not taken for a history that is long enough.
        let empty = doc! {"cursor": {"firstBatch": []}};
        assert!(matches!(history_in(&[empty, entry(1), stats(1)]), History::Unseen));
        assert!(matches!(history_in(&[entry(0), entry(1), doc! {}]), History::Unseen));
    }
}
