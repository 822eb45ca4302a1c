//! Floor 5. The `doctor` command: everything that a technician would look at, with the remedy.
//!
//! It mends nothing. Each finding is about one thing and says what is there; one that is not as it should be also
//! says what to do. What only looks at files works without a node too, and what cannot be looked at is a finding.

pub(super) mod centre;
mod closed_accounts;
mod findings;
mod machine;
mod rot;
mod trail;

use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde_json::{Value, json};

use super::admin::users::add_how_they_came;
use super::control::{Client, Missing};
use super::terminal::Done;
use super::terminal::show::cell;
use crate::app;
use crate::config::{Config, DEFAULT_FILE, Loaded};
use crate::domain::access::ROOT;
use closed_accounts::some_ids;
use findings::{Findings, shown};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How far ahead of the clock something may lie that has happened already.
const CLOCK_TOLERANCE_MS: i64 = 60 * 60 * 1000;
/// A clinic may be without a network for some days; later somebody should know.
const OFFLINE_DAYS: i64 = 7;
/// By then the centre's history may not reach back so far, and everything has to be looked at again.
const OFFLINE_DAYS_MAX: i64 = 30;
/// What is left of the days without the centre when the end of logins is warned about: one part in so many.
const LOGINS_WARNED_SHARE: i64 = 4;

const NODE: &str = "node";
const START: &str = "systemctl start thalamus-edge; journalctl -u thalamus-edge says why it ended";

/// Looks at everything; `file` is the configuration that was named on the command line. Ends with 1 if something is
/// wrong.
pub(super) async fn run(loaded: Loaded, file: Option<PathBuf>, json: bool) -> anyhow::Result<Done> {
    let now_ms = app::now_ms();
    let mut found = Findings::default();
    machine::settings(&mut found, &loaded);
    let config = loaded.config;
    machine::rules(&mut found, &config);
    machine::secrets(&mut found, &config, file.as_deref().unwrap_or(Path::new(DEFAULT_FILE)));
    machine::clock(&mut found, now_ms);
    machine::disk(&mut found, &config);
    machine::encryption(&mut found, &config);
    machine::certificate(&mut found, &config, now_ms);
    machine::way_to_centre(&mut found, &config);
    let Ids { store, node: own } = match node(&mut found, &config, now_ms).await {
        Ok(ids) => ids,
        Err(error) => {
            found.wrong(NODE, format!("{error:#}"), START);
            Ids::default()
        }
    };
    machine::backups(&mut found, &config, store.into_iter().chain(own.clone()).collect(), now_ms);
    centre::look(&mut found, &config, own.as_deref(), now_ms).await;
    Ok(shown(&found, json))
}

/// Who this node is, as far as it is known.
#[derive(Default)]
struct Ids {
    /// Of its store, once anything was edited in it.
    store: Option<String>,
    /// At the centre, if it has been there.
    node: Option<String>,
}

/// What only the node knows.
async fn node(found: &mut Findings, config: &Config, now_ms: i64) -> anyhow::Result<Ids> {
    let client = Client::connect(config, Missing::Refuse).await?;
    match client.is_node_running() {
        true => found.ok(NODE, concat!("running; this program is version ", env!("CARGO_PKG_VERSION"))),
        false => found.wrong(NODE, "not running", START),
    }
    let status = client.get("/sync/status").await?.accepted()?;
    reconciliation(found, &status, now_ms);
    change_feed(found, &status, config.central.schedule_without_feed());
    logins(found, &status, config.accounts.offline_login_days, now_ms);
    open_items(found, &status);
    unseen(found, &status);
    rot::look(found, &status);
    trail::look(found, &client, config, now_ms).await?;
    let mut users = client.get("/users").await?.accepted()?;
    add_how_they_came(&client, &mut users).await?;
    accounts(found, users.as_array().map_or(&[][..], |users| users));
    let id = |name: &str| status[name].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    Ok(Ids { store: id("store"), node: id("node") })
}

fn reconciliation(found: &mut Findings, status: &Value, now_ms: i64) {
    const ABOUT: &str = "reconciliation";
    let message = cell(&status["message"]);
    let last = status["last_complete_at"].as_str();
    let finding = match last {
        Some(last) => format!("{message} Last complete round: {last}."),
        None => format!("{message} There was no complete round yet."),
    };
    let last_ms = last.and_then(|last| Some(DateTime::parse_from_rfc3339(last).ok()?.timestamp_millis()));
    let days = last_ms.map(|last_ms| (now_ms - last_ms).div_euclid(DAY_MS));
    let outcome = status["last_round"]["outcome"].as_str();
    const NOW: &str = "thalamus-edge sync now says what is in the way";
    match (status["state"].as_str(), days) {
        (Some("off"), _) => found.warning(
            ABOUT,
            message,
            "what is recorded here is nowhere else: [central] uri_file names the address of a centre",
        ),
        (Some("revoked"), _) => {
            let remedy = "ask the federation's administrator (docs/SYNC.md: a box that was stolen)";
            found.wrong(ABOUT, finding, remedy);
        }
        // Also while it is paused.
        (state, _) if state == Some("halted") || outcome == Some("halted") => {
            found.wrong(ABOUT, finding, "decide as the sentence says: thalamus-edge sync resume --help");
        }
        (_, Some(OFFLINE_DAYS_MAX..)) => found.wrong(ABOUT, finding, NOW),
        (Some("paused"), _) => found.warning(ABOUT, finding, "thalamus-edge sync resume"),
        _ if last_ms.is_some_and(|last_ms| last_ms > now_ms + CLOCK_TOLERANCE_MS) => {
            let finding = format!("{finding} That is in the future.");
            found.warning(ABOUT, finding, "look at the clock: it was ahead then, or is behind now");
        }
        _ if outcome == Some("failed") => found.warning(ABOUT, finding, NOW),
        (_, Some(OFFLINE_DAYS..) | None) => found.warning(ABOUT, finding, NOW),
        _ => found.ok(ABOUT, finding),
    }
}

/// Said only where there is none.
fn change_feed(found: &mut Findings, status: &Value, schedule: &str) {
    if status["change_feed"] != false {
        return;
    }
    let much = match status["full_read_bytes"].as_u64() {
        Some(bytes) => format!("{} bytes the last time, ", bytes),
        None => String::new(),
    };
    if let Some(code) = status["change_feed_error"].as_i64() {
        found.warning(
            "change feed",
            format!(
                "this centre refuses it (MongoDB error {code}): every round reads everything, {much}and rounds follow \
                 the schedule {schedule}"
            ),
            "at the centre: see its log and rs.status(), and whether db.watch() works there; the node tries it again by \
             itself",
        );
        return;
    }
    found.warning(
        "change feed",
        format!("this centre has none: every round reads everything, {much}and rounds follow the schedule {schedule}"),
        "a replica set of MongoDB, of one member at least, has one; else see that the line can pay for it: [central] \
         schedule_without_feed and budget_bytes_per_day",
    );
}

/// Said only where somebody has set a limit.
fn logins(found: &mut Findings, status: &Value, limit_days: u32, now_ms: i64) {
    const ABOUT: &str = "logins";
    const REMEDY: &str = "thalamus-edge sync now says what is in the way; [accounts] offline_login_days = 0 and a \
                          restart lift the limit";
    let Some(until) = status["logins_until"].as_str() else {
        return;
    };
    let Some(until_ms) = DateTime::parse_from_rfc3339(until).ok().map(|until| until.timestamp_millis())
    else {
        return;
    };
    let left_ms = until_ms - now_ms;
    if left_ms <= 0 {
        found.wrong(ABOUT, format!("people cannot log in since {until}, until a round is complete"), REMEDY);
    } else if left_ms < i64::from(limit_days) * DAY_MS / LOGINS_WARNED_SHARE {
        found.warning(
            ABOUT,
            format!("from {until} on people cannot log in, unless a round is complete"),
            REMEDY,
        );
    } else {
        found.ok(ABOUT, format!("people may log in until {until} at least"));
    }
}

/// What waits for somebody.
fn open_items(found: &mut Findings, status: &Value) {
    let items = [
        ("conflicts_open", "conflicts", "wait for a decision", "thalamus-edge conflicts list"),
        (
            "conflicts_unpublished",
            "unsent conflicts",
            "are not written at the centre yet",
            "thalamus-edge sync now",
        ),
        ("dead", "refused records", "stay behind", "thalamus-edge dead list"),
        ("emergencies_unreviewed", "emergencies", "wait for a review", "thalamus-edge emergency list"),
    ];
    for (name, about, what, remedy) in items {
        match status[name].as_u64() {
            // A node of another version may not say.
            None => {}
            Some(0) => found.ok(about, "none"),
            Some(count) => found.warning(about, format!("{count} {what}"), remedy),
        }
    }
}

/// Records that nobody sees, by collection: said only where there are some.
fn unseen(found: &mut Findings, status: &Value) {
    let items = [
        (
            "other_ids",
            "ids at the centre",
            "have ids that are no text, and are left alone",
            "at the centre: store them again under text (db.COLLECTION.find({_id: {$not: {$type: \"string\"}}}))",
        ),
        (
            "ownerless",
            "records of nobody",
            "say of nobody that they are theirs, so they are in nobody's book",
            "thalamus-edge export shows them; who knows whose they are sets book, fedacct or person at the centre",
        ),
        (
            "left_behind",
            "records of deleted people",
            "are of people who have been deleted, and are in nobody's book",
            "thalamus-edge conflicts list names them; restore from the trash those who should be here, or delete their records too",
        ),
    ];
    for (name, about, what, remedy) in items {
        let Some(counts) = status[name].as_object().filter(|counts| !counts.is_empty()) else {
            continue;
        };
        let places: Vec<_> =
            counts.iter().map(|(collection, count)| format!("{} in {collection}", cell(count))).collect();
        found.warning(about, format!("{} {what}", places.join(", ")), remedy);
    }
}

fn accounts(found: &mut Findings, users: &[Value]) {
    const ABOUT: &str = "accounts";
    let active = || users.iter().filter(|user| user["active"] == true);
    let is_root = |user: &&Value| user["roles"].as_array().is_some_and(|roles| roles.contains(&json!(ROOT)));
    if active().find(is_root).is_none() {
        found.warning(ABOUT, "nobody administers this node", "thalamus-edge setup");
    }
    closed_accounts::look(found, users);
    let of_demo: Vec<_> =
        active().filter(|user| user["public_password"] == true).map(|user| cell(&user["id"])).collect();
    let no_accounts: Vec<_> = users.iter().filter(|user| user["is_account"] == false).collect();
    let told = match no_accounts.len() {
        0 => String::new(),
        count => {
            format!("; {count} people have ids with which nobody can log in: {}", some_ids(&no_accounts))
        }
    };
    match of_demo.is_empty() {
        true => {
            let open = active().filter(|user| user["is_account"].is_null()).count();
            found.ok(ABOUT, format!("{open} are open{told}"));
        }
        false => found.wrong(
            ABOUT,
            format!("{} came with the demo: everybody knows their passwords", of_demo.join(", ")),
            "thalamus-edge user disable ACCOUNT, or a password of their own: thalamus-edge user passwd ACCOUNT",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::findings::Health;
    use super::*;

    const NOW: &str = "2026-11-28T12:00:00Z";

    fn now_ms() -> i64 {
        DateTime::parse_from_rfc3339(NOW).unwrap().timestamp_millis()
    }

    #[test]
    fn reconciliation_is_as_well_as_its_last_complete_round() {
        for (state, last, health) in [
            ("off", Value::Null, Health::Warning),
            ("idle", Value::Null, Health::Warning),
            ("idle", json!("2026-11-28T11:55:00Z"), Health::Ok),
            ("running", json!("2026-11-28T11:55:00Z"), Health::Ok),
            ("offline", json!("2026-11-22T11:55:00Z"), Health::Ok),
            ("offline", json!("2026-11-21T11:55:00Z"), Health::Warning),
            ("idle", json!("2026-10-29T11:55:00Z"), Health::Wrong),
            ("paused", json!("2026-10-29T11:55:00Z"), Health::Wrong),
            ("idle", json!("2026-11-28T14:55:00Z"), Health::Warning),
            ("revoked", json!("2026-11-28T11:55:00Z"), Health::Wrong),
            ("paused", json!("2026-11-28T11:55:00Z"), Health::Warning),
        ] {
            let mut found = Findings::default();
            reconciliation(
                &mut found,
                &json!({"state": state, "message": "So it is.", "last_complete_at": last}),
                now_ms(),
            );
            let [finding] = &found.0[..] else { panic!("{found:?}") };
            assert_eq!(finding.health, health, "{state} {last}");
            assert!(finding.finding.starts_with("So it is."), "{finding:?}");
        }
    }

    #[test]
    fn a_centre_without_a_change_feed_is_told_with_what_it_costs() {
        let said = |status: Value| {
            let mut found = Findings::default();
            change_feed(&mut found, &status, "0 0 * * * *");
            found.0.first().map(|finding| finding.finding.clone())
        };
        assert_eq!(said(json!({"change_feed": true, "full_read_bytes": null})), None);
        // A node of another version does not say.
        assert_eq!(said(json!({})), None);
        let finding = said(json!({"change_feed": false, "full_read_bytes": 30_000_000})).unwrap();
        assert!(finding.contains("30000000 bytes") && finding.contains("0 0 * * * *"), "{finding}");
        let refused = json!({"change_feed": false, "change_feed_error": 96, "full_read_bytes": 30_000_000});
        let finding = said(refused).unwrap();
        assert!(
            finding.contains("refuses it (MongoDB error 96)") && finding.contains("30000000"),
            "{finding}"
        );
    }

    #[test]
    fn the_end_of_logins_is_told_before_it_comes() {
        for (until, health) in [
            (json!("2026-12-20T12:00:00Z"), Some(Health::Ok)),
            (json!("2026-12-06T00:00:00Z"), Some(Health::Ok)),
            (json!("2026-12-05T00:00:00Z"), Some(Health::Warning)),
            (json!("2026-11-28T12:00:01Z"), Some(Health::Warning)),
            (json!("2026-11-28T12:00:00Z"), Some(Health::Wrong)),
            (Value::Null, None),
        ] {
            let mut found = Findings::default();
            logins(&mut found, &json!({"logins_until": until}), 30, now_ms());
            assert_eq!(found.0.first().map(|finding| finding.health), health, "{until}");
        }
    }

    #[test]
    fn a_last_round_that_came_to_nothing_is_told() {
        for (state, outcome, health) in [
            ("idle", "complete", Health::Ok),
            ("idle", "failed", Health::Warning),
            ("halted", "halted", Health::Wrong),
            ("paused", "halted", Health::Wrong),
        ] {
            let mut found = Findings::default();
            let status = json!({
                "state": state, "message": "", "last_complete_at": "2026-11-28T11:55:00Z",
                "last_round": {"outcome": outcome},
            });
            reconciliation(&mut found, &status, now_ms());
            assert_eq!(found.0[0].health, health, "{state} {outcome}");
        }
    }

    #[test]
    fn records_that_nobody_sees_are_told_by_collection() {
        let said = |status: Value| {
            let mut found = Findings::default();
            unseen(&mut found, &status);
            found.0.into_iter().map(|finding| finding.finding).collect::<Vec<_>>()
        };
        // A node of another version does not say.
        assert_eq!(said(json!({})), [""; 0]);
        assert_eq!(said(json!({"other_ids": {}, "ownerless": {}})), [""; 0]);
        assert_eq!(
            said(json!({"other_ids": {"fs.files": 1, "people": 2}, "ownerless": {"pols": 3}})),
            [
                "1 in fs.files, 2 in people have ids that are no text, and are left alone",
                "3 in pols say of nobody that they are theirs, so they are in nobody's book"
            ]
        );
    }

    #[test]
    fn what_waits_for_somebody_is_counted() {
        let mut found = Findings::default();
        let status =
            json!({"conflicts_open": 2, "conflicts_unpublished": 3, "dead": 0, "emergencies_unreviewed": 1});
        open_items(&mut found, &status);
        let said: Vec<_> = found.0.iter().map(|f| (f.health, f.finding.as_str())).collect();
        assert_eq!(
            said,
            [
                (Health::Warning, "2 wait for a decision"),
                (Health::Warning, "3 are not written at the centre yet"),
                (Health::Ok, "none"),
                (Health::Warning, "1 wait for a review")
            ]
        );
    }
}
