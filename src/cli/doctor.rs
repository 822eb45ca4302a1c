//! Floor 5. The `doctor` command: everything that a technician would look at, with the remedy.
//!
//! It mends nothing. Each finding is about one thing and says what is there; one that is not as it should be also
//! says what to do. What only looks at files works without a node too, and what cannot be looked at is a finding.

pub(super) mod centre;
mod findings;

use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde_json::{Value, json};

use super::Done;
use super::clear_copies::clear_files;
use super::control::{Client, Missing};
use super::show::cell;
use crate::app;
use crate::backup::{self, Weakness};
use crate::central::Protection;
use crate::config::{Config, DEFAULT_FILE, is_open_to_others};
use crate::domain::access::ROOT;
use crate::store::free_bytes_at;
use crate::sync::time_text;
use crate::tls::RELEASE_EPOCH_S;
use findings::{Findings, Health, shown};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How far ahead of the clock something may lie that has happened already.
const CLOCK_TOLERANCE_MS: i64 = 60 * 60 * 1000;
/// A clinic may be without a network for some days; later somebody should know.
const OFFLINE_DAYS: i64 = 7;
/// By then the centre's history may not reach back so far, and everything has to be looked at again.
const OFFLINE_DAYS_MAX: i64 = 30;
/// When somebody should see to another certificate; a node has renewed its own long before.
const CERTIFICATE_WARNED_DAYS: i64 = 30;
/// What is left of the days without the centre when the end of logins is warned about: one part in so many.
const LOGINS_WARNED_SHARE: i64 = 4;
/// How long after it was due a backup may still come.
const BACKUP_LATE_MS: i64 = DAY_MS;

const NODE: &str = "node";
const START: &str = "systemctl start thalamus-edge; journalctl -u thalamus-edge says why it ended";

/// Looks at everything; `file` is the configuration that was named on the command line. Ends with 1 if something is
/// wrong.
pub(super) async fn run(config: Config, file: Option<PathBuf>, json: bool) -> anyhow::Result<Done> {
    let now_ms = app::now_ms();
    let mut found = Findings::default();
    rules(&mut found, &config);
    secrets(&mut found, &config, file.as_deref().unwrap_or(Path::new(DEFAULT_FILE)));
    clock(&mut found, now_ms);
    disk(&mut found, &config);
    encryption(&mut found, &config);
    certificate(&mut found, &config, now_ms);
    backups(&mut found, &config, now_ms);
    way_to_centre(&mut found, &config);
    // Its id at the centre, if there is a store and it has one.
    let own = match node(&mut found, &config, now_ms).await {
        Ok(own) => own,
        Err(error) => {
            found.wrong(NODE, format!("{error:#}"), START);
            None
        }
    };
    centre::look(&mut found, &config, own.as_deref(), now_ms).await;
    Ok(shown(&found, json))
}

fn rules(found: &mut Findings, config: &Config) {
    const ABOUT: &str = "access rules";
    match config.acl() {
        Err(error) => {
            found.wrong(ABOUT, error.to_string(), "correct it there; a running node goes on with the rules that it has read, and does not start again")
        }
        Ok((_, warnings)) if warnings.is_empty() => found.ok(ABOUT, "in order"),
        Ok((_, warnings)) => {
            for warning in warnings {
                found.warning(ABOUT, warning, "correct it, then systemctl reload thalamus-edge (restart, if it was in config.toml)");
            }
        }
    }
}

/// Files that hold a password or a key.
fn secrets(found: &mut Findings, config: &Config, file: &Path) {
    const ABOUT: &str = "secrets";
    let mut is_closed = true;
    for file in config.secret_files(file) {
        let is_open = is_open_to_others(&file);
        is_closed &= matches!(is_open, Ok(false));
        let file = file.display();
        match is_open {
            Ok(false) => {}
            Ok(true) => found.wrong(
                ABOUT,
                format!("everybody on this machine may read {file}"),
                format!("chmod o= {file}, and change the password or key in it"),
            ),
            Err(error) => {
                found.warning(ABOUT, format!("{file}: {error}"), "run this as root, or put it back")
            }
        }
    }
    if is_closed {
        found.ok(ABOUT, "no file with a password or key is open to others");
    }
}

fn clock(found: &mut Findings, now_ms: i64) {
    const ABOUT: &str = "clock";
    let at = time_text(now_ms);
    if now_ms.div_euclid(1000) < i64::try_from(RELEASE_EPOCH_S).unwrap_or(i64::MAX) {
        let finding = format!("it says {at}, which is before this program was made");
        found.wrong(
            ABOUT,
            finding,
            "set it (timedatectl set-time), or let it be set (timedatectl set-ntp true)",
        );
    } else {
        found.ok(ABOUT, at);
    }
}

fn disk(found: &mut Findings, config: &Config) {
    const ABOUT: &str = "disk";
    let store = app::store_file(&config.data_dir);
    let store_bytes = std::fs::metadata(&store).map_or(0, |about| about.len());
    // It may be a link to another disk.
    let place = if store.exists() { &store } else { &config.data_dir };
    let free = match free_bytes_at(place)() {
        Ok(free) => free,
        Err(error) => {
            let finding = format!("{}: {error}", place.display());
            return found.wrong(
                ABOUT,
                finding,
                "is the disk mounted? A node that starts makes its directory",
            );
        }
    };
    let reserve = config.store.reserve_bytes;
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let finding = format!("{} MB free, the store has {} MB", megabytes(free), megabytes(store_bytes));
    if free < reserve {
        let finding = format!("{finding}: below [store] reserve_bytes, so writes are refused");
        found.wrong(
            ABOUT,
            finding,
            "make room: old backups, logs, restored stores (store.redb.before-restore-*)",
        );
    } else if free < reserve.saturating_add(store_bytes) {
        let finding = format!("{finding}: not enough for a copy of it, as a restore needs");
        found.warning(
            ABOUT,
            finding,
            "make room: old backups, logs, restored stores (store.redb.before-restore-*)",
        );
    } else {
        found.ok(ABOUT, finding);
    }
}

fn encryption(found: &mut Findings, config: &Config) {
    const ABOUT: &str = "encryption of the store";
    match config.store_key() {
        Err(error) => found.wrong(
            ABOUT,
            error.to_string(),
            "put back the file that [store] key_file names: without the key the store cannot be opened",
        ),
        Ok(Some(key)) => {
            let files = clear_files(config);
            if files.is_empty() {
                found.ok(ABOUT, format!("with key {}", key.id()));
            }
            for file in files.copies {
                let finding = format!("{} is not encrypted and holds records", file.display());
                found.wrong(
                    ABOUT,
                    finding,
                    "if it is not needed any more: thalamus-edge db clear-copies --remove",
                );
            }
            for file in files.backups {
                let finding = format!("{} is not encrypted and holds a backup", file.display());
                found.wrong(
                    ABOUT,
                    finding,
                    "[backup] recipients, a new backup, then thalamus-edge db clear-copies --remove",
                );
            }
            if let [first, others @ ..] = &files.unknown[..] {
                let others = match others.len() {
                    0 => String::new(),
                    count => format!(" and {count} more"),
                };
                let finding =
                    format!("{}{others} may hold records: not known to be harmless", first.display());
                found.warning(ABOUT, finding, "thalamus-edge db clear-copies names all of them");
            }
        }
        Ok(None) => found.warning(
            ABOUT,
            "none: unless the whole disk is encrypted, whoever takes it reads every record",
            "encrypt the disk, or the store: db keygen, [store] key_file, db encrypt",
        ),
    }
}

fn certificate(found: &mut Findings, config: &Config, now_ms: i64) {
    const ABOUT: &str = "certificate";
    let Some(settings) = config.tls_settings() else {
        if config.server.listen.ip().is_loopback() {
            return found.ok(ABOUT, "none: plain HTTP, for this machine only");
        }
        return found.wrong(
            ABOUT,
            "none: passwords and health records cross the network readable",
            "[server] tls = true",
        );
    };
    let is_own = settings.own.is_some();
    let remedy = match is_own {
        true => {
            "put a new pair in the place of [server] certificate and key, then systemctl reload thalamus-edge"
        }
        false => "systemctl restart thalamus-edge, which signs a new one",
    };
    match settings.validity_s() {
        Err(error) => {
            found.wrong(ABOUT, error.to_string(), "put it right, then systemctl restart thalamus-edge")
        }
        Ok(None) => found.ok(ABOUT, "the first start makes it"),
        Ok(Some((begin_s, _))) if begin_s.saturating_mul(1000) > now_ms => {
            let finding = format!("does not hold before {}", time_text(begin_s.saturating_mul(1000)));
            found.wrong(ABOUT, finding, "look at the clock, or at [server] certificate");
        }
        Ok(Some((_, end_s))) => {
            let end_ms = end_s.saturating_mul(1000);
            let (days, at) = ((end_ms - now_ms).div_euclid(DAY_MS), time_text(end_ms));
            match days {
                ..0 => found.wrong(ABOUT, format!("ended at {at}"), remedy),
                // A node renews its own by then.
                _ if days < CERTIFICATE_WARNED_DAYS => {
                    found.warning(ABOUT, format!("ends in {days} days, at {at}"), remedy)
                }
                _ => found.ok(ABOUT, format!("ends in {days} days, at {at}")),
            }
        }
    }
}

fn backups(found: &mut Findings, config: &Config, now_ms: i64) {
    const ABOUT: &str = "backups";
    let settings = config.backup_settings();
    for weakness in backup::weaknesses(&settings) {
        let health = match weakness {
            Weakness::NotEncrypted => Health::Wrong,
            Weakness::SameDisk => Health::Warning,
        };
        found.found(ABOUT, health, weakness.to_string(), weakness.remedy());
    }
    let Some(schedule) = backup::parse_schedule(&config.backup.schedule) else {
        let finding = "none are made by themselves ([backup] schedule is empty)";
        return found.warning(ABOUT, finding, "set it, unless something else calls `backup create`");
    };
    let remedy = "thalamus-edge backup create says what is in the way";
    let last = match backup::newest(&settings) {
        Err(error) => return found.wrong(ABOUT, error.to_string(), "is the disk connected and mounted?"),
        Ok(None) => {
            return found.wrong(
                ABOUT,
                "there is none yet; a node makes its first ten minutes after it was started",
                remedy,
            );
        }
        Ok(Some(last)) => last,
    };
    let made_ms = last.created_s.saturating_mul(1000);
    let finding = format!("the last one is of {}, {} bytes", time_text(made_ms), last.bytes);
    if made_ms > now_ms + CLOCK_TOLERANCE_MS {
        let finding = format!("{finding}, which is in the future");
        return found.warning(ABOUT, finding, "look at the clock: it was ahead then, or is behind now");
    }
    // As large as the last one, if it goes to a disk of its own: the store's is looked at elsewhere.
    if free_bytes_at(&settings.directory)().is_ok_and(|free| free < last.bytes) {
        let finding =
            format!("{finding}, and there is no room for another one in {}", settings.directory.display());
        return found.wrong(ABOUT, finding, "make room there");
    }
    let due_ms = backup::next_ms(&schedule, made_ms, app::local_ahead_s(now_ms));
    match due_ms.is_some_and(|due_ms| due_ms + BACKUP_LATE_MS < now_ms) {
        true => found.wrong(ABOUT, format!("{finding}, and the next is overdue"), remedy),
        false => found.ok(ABOUT, finding),
    }
}

/// Who else can read what travels to the centre.
fn way_to_centre(found: &mut Findings, config: &Config) {
    const ABOUT: &str = "way to the centre";
    let (centre, is_local) = match (config.centre(), config.is_centre_local()) {
        (Ok(None), _) => return,
        (Ok(Some(centre)), Ok(is_local)) => (centre, is_local),
        (Err(error), _) | (_, Err(error)) => {
            return found.wrong(ABOUT, error.to_string(), "correct central.uri or the file central.uri_file");
        }
    };
    match centre.protection() {
        Err(error) => found.wrong(ABOUT, error.to_string(), "correct central.uri or the file central.uri_file"),
        Ok(Protection::Full) => found.ok(ABOUT, "encrypted, and the server has to prove who it is"),
        Ok(_) if is_local => found.ok(ABOUT, "within this machine"),
        Ok(Protection::NotProved) => found.wrong(
            ABOUT,
            "encrypted to whoever answers: certificates are not checked",
            "take tlsInsecure and tlsAllowInvalidCertificates out of the address; tlsCAFile names an authority",
        ),
        Ok(Protection::None) => found.wrong(
            ABOUT,
            "not encrypted: whoever is in between reads and changes health records",
            "tls=true in the address, or a VPN",
        ),
    }
}

/// What only the node knows.
async fn node(found: &mut Findings, config: &Config, now_ms: i64) -> anyhow::Result<Option<String>> {
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
    rot(found, &status);
    let users = client.get("/users").await?.accepted()?;
    accounts(found, users.as_array().map_or(&[][..], |users| users));
    Ok(status["node"].as_str().filter(|own| !own.is_empty()).map(str::to_owned))
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

/// Rows that rotted on the disk.
fn rot(found: &mut Findings, status: &Value) {
    const ABOUT: &str = "stored rows";
    let Some(rows) = status["damaged_rows"].as_array() else {
        return;
    };
    for row in rows {
        let (id, in_table) = (cell(&row["id"]), cell(&row["table"]));
        let what = if row["kind"].is_null() { id } else { format!("{} {id}", cell(&row["kind"])) };
        found.wrong(
            ABOUT,
            format!("{what} is damaged on the disk (table {in_table}): not shown, not sent, not backed up"),
            "thalamus-edge sync now reads it from the centre again; if it stays, restore the last good backup, or take a \
             record out of the way: thalamus-edge db set-aside COLLECTION ID. The disk may be failing",
        );
    }
    if let Some(bits) = status["bits_put_right"]["bits"].as_u64() {
        let at = cell(&status["bits_put_right"]["last_at"]);
        found.warning(
            ABOUT,
            format!("{bits} wrong bits of the store's file were put right, the last at {at}"),
            "the disk or the memory of this machine is failing: replace it while all is well",
        );
    }
    if rows.is_empty() {
        let finding = match status["scrubbed_at"].as_str() {
            Some(at) => format!("good; all of them were last read through by {at}"),
            None => "none is known to be damaged; they have not all been read through yet".to_owned(),
        };
        found.ok(ABOUT, finding);
    }
}

fn accounts(found: &mut Findings, users: &[Value]) {
    const ABOUT: &str = "accounts";
    let active = || users.iter().filter(|user| user["active"] == true);
    let is_root = |user: &&Value| user["roles"].as_array().is_some_and(|roles| roles.contains(&json!(ROOT)));
    if active().find(is_root).is_none() {
        found.warning(ABOUT, "nobody administers this node", "thalamus-edge setup");
    }
    let of_demo: Vec<_> =
        active().filter(|user| user["public_password"] == true).map(|user| cell(&user["id"])).collect();
    match of_demo.is_empty() {
        true => found.ok(ABOUT, format!("{} are open", active().count())),
        false => found.wrong(
            ABOUT,
            format!("{} came with the demo: everybody knows their passwords", of_demo.join(", ")),
            "thalamus-edge user disable ACCOUNT, or a password of their own: thalamus-edge user passwd ACCOUNT",
        ),
    }
}

#[cfg(test)]
mod tests {
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
