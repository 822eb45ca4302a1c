//! Floor 5. What `doctor` finds on this machine without the node: settings, secrets, clock, disk, certificate, backups.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::findings::{Findings, Health};
use super::{CLOCK_TOLERANCE_MS, DAY_MS};
use crate::app;
use crate::backup::{self, Owner, Weakness};
use crate::central::Protection;
use crate::cli::store::clear_copies::clear_files;
use crate::config::{Config, Loaded, close_to_others, is_open_to_others, open_to_others};
use crate::store::free_bytes_at;
use crate::sync::time_text;
use crate::tls::{Concern, RELEASE_EPOCH_S};

/// What to do about a backup that is damaged.
const DAMAGED_REMEDY: &str =
    "thalamus-edge backup create now, and another disk; thalamus-edge backup list names those that are whole";
const UNREAD_REMEDY: &str = "let the node's account read both files, or put the .sha256 back; if the disk fails, \
                             thalamus-edge backup create with [backup] directory on another one";
/// How long after it was due a backup may still come.
const BACKUP_LATE_MS: i64 = DAY_MS;

/// What of the configuration is unwise, though a node serves with it. What it does not start with is found below, and by
/// `check`.
pub(super) fn settings(found: &mut Findings, loaded: &Loaded) {
    for fault in loaded.examine().faults.iter().filter(|fault| !fault.stops_the_node) {
        let remedy = "correct it there, or put back what it names, then systemctl restart thalamus-edge";
        found.warning("configuration", fault.to_string(), remedy);
    }
    if let Some((finding, remedy)) = loaded.open_central_roles() {
        found.warning("roles of the centre", finding, remedy);
    }
}

pub(super) fn rules(found: &mut Findings, config: &Config) {
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
pub(super) fn secrets(found: &mut Findings, config: &Config, file: &Path) {
    const ABOUT: &str = "secrets";
    let mut is_closed = true;
    for file in config.secret_files(file) {
        let is_open = is_open_to_others(&file);
        is_closed &= matches!(is_open, Ok(false));
        match is_open {
            Ok(false) => {}
            Ok(true) => found.wrong(ABOUT, open_to_others(&file), close_to_others(&file)),
            Err(error) => {
                let finding = format!("{}: {error}", file.display());
                found.warning(ABOUT, finding, "run this as root, or put it back")
            }
        }
    }
    if is_closed {
        found.ok(ABOUT, "no file with a password or key is open to others");
    }
}

pub(super) fn clock(found: &mut Findings, now_ms: i64) {
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

pub(super) fn disk(found: &mut Findings, config: &Config) {
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

pub(super) fn encryption(found: &mut Findings, config: &Config) {
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
            "none: unless the whole disk is encrypted, a thief reads every record",
            "encrypt the disk, or the store: db keygen, [store] key_file, db encrypt",
        ),
    }
}

pub(super) fn certificate(found: &mut Findings, config: &Config, now_ms: i64) {
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
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or_default());
    match settings.concerns(now) {
        Err(error) => {
            return found.wrong(
                ABOUT,
                error.to_string(),
                "put it right, then systemctl restart thalamus-edge",
            );
        }
        Ok(concerns) if !concerns.is_empty() => {
            for Concern { is_grave, finding, remedy } in concerns {
                let health = if is_grave { Health::Wrong } else { Health::Warning };
                found.found(ABOUT, health, finding, remedy);
            }
            return;
        }
        Ok(_) => {}
    }
    match settings.validity_s() {
        Ok(Some((_, end_s))) => {
            let end_ms = end_s.saturating_mul(1000);
            let days = (end_ms - now_ms).div_euclid(DAY_MS);
            found.ok(ABOUT, format!("ends in {days} days, at {}", time_text(end_ms)));
        }
        _ => found.ok(ABOUT, "the first start makes it"),
    }
}

/// `ids`: of the store and of the node, if they are known.
pub(super) fn backups(found: &mut Findings, config: &Config, ids: Vec<String>, now_ms: i64) {
    const ABOUT: &str = "backups";
    let settings = config.backup_settings();
    for weakness in backup::weaknesses(&settings) {
        let health = match weakness {
            Weakness::NotEncrypted => Health::Wrong,
            Weakness::SameDisk => Health::Warning,
        };
        found.found(ABOUT, health, weakness.to_string(), weakness.remedy());
    }
    let schedule = backup::parse_schedule(&config.backup.schedule);
    if schedule.is_none() {
        let finding = "none are made by themselves ([backup] schedule is empty)";
        found.warning(ABOUT, finding, "set it, unless something else calls `backup create`");
    }
    let owner = match ids.is_empty() {
        true => Owner::of_any_store(&settings.node_name),
        false => Owner::new(&settings.node_name, ids),
    };
    let own = match backup::list_own(&settings, &owner) {
        Err(error) => return found.wrong(ABOUT, error.to_string(), "is the disk connected and mounted?"),
        Ok(own) => own,
    };
    // One without a checksum counts for nothing, and is looked at if it is the newest: somebody may rely on it.
    if let Some(unchecked) = own.last().filter(|last| !last.checksum) {
        without_checksum(found, unchecked);
    }
    let remedy = "thalamus-edge backup create says what is in the way";
    let Some(last) = own.into_iter().rfind(|listed| listed.checksum) else {
        if schedule.is_some() {
            let finding = "there is none yet; a node makes its first ten minutes after it was started";
            found.wrong(ABOUT, finding, remedy);
        }
        return;
    };
    let made_ms = last.created_s.saturating_mul(1000);
    let finding = format!("the last one is of {}, {} bytes", time_text(made_ms), last.bytes);
    match backup::is_as_written(&last) {
        Ok(Some(false)) => {
            let finding = format!(
                "{finding}, and it is damaged: the SHA-256 of {} is not the one that stands beside it",
                last.file.display()
            );
            return found.wrong(ABOUT, finding, DAMAGED_REMEDY);
        }
        Err(error) => {
            let finding = format!("{finding}, and it was not compared with its checksum: {error}");
            return found.wrong(ABOUT, finding, UNREAD_REMEDY);
        }
        Ok(_) => {}
    }
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
    let due_ms =
        schedule.and_then(|schedule| backup::next_ms(&schedule, made_ms, app::local_ahead_s(now_ms)));
    match due_ms.is_some_and(|due_ms| due_ms + BACKUP_LATE_MS < now_ms) {
        true => found.wrong(ABOUT, format!("{finding}, and the next is overdue"), remedy),
        false => found.ok(ABOUT, finding),
    }
}

/// The finding about a backup without a checksum file.
fn without_checksum(found: &mut Findings, listed: &backup::Listed) {
    const ABOUT: &str = "backups";
    let file = listed.file.display();
    match backup::check(&listed.file, None) {
        Ok(_) | Err(backup::BackupError::NotVerified { .. }) => {
            let finding =
                format!("no checksum stands beside {file}: it does not count as a backup of this node");
            found.warning(ABOUT, finding, "put its .sha256 back, or thalamus-edge backup create");
        }
        Err(error) => {
            let finding = format!("the newest one is damaged, and no checksum stands beside it: {error}");
            found.wrong(ABOUT, finding, DAMAGED_REMEDY);
        }
    }
}

/// Who else can read what travels to the centre.
pub(super) fn way_to_centre(found: &mut Findings, config: &Config) {
    const ABOUT: &str = "way to the centre";
    let (centre, is_local) = match (config.centre(), config.is_centre_local()) {
        (Ok(None), _) => return,
        (Ok(Some(centre)), Ok(is_local)) => (centre, is_local),
        (Err(error), _) | (_, Err(error)) => {
            return found.wrong(ABOUT, error.to_string(), "correct central.uri or the file central.uri_file");
        }
    };
    match centre.protection() {
        Err(error) => {
            found.wrong(ABOUT, error.to_string(), "correct central.uri or the file central.uri_file")
        }
        Ok(Protection::Full) => found.ok(ABOUT, "encrypted, and the server has to prove who it is"),
        Ok(Protection::NotProved | Protection::None) => match config.centre_weakness() {
            Ok(Some((finding, remedy))) => found.wrong(ABOUT, finding, remedy),
            _ if is_local => found.ok(ABOUT, "within this machine"),
            _ => {}
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_release_is_told() {
        let said = |year: i64| {
            let mut found = Findings::default();
            clock(&mut found, (year - 1970) * 31_556_952_000);
            found.lines()
        };
        for behind in [1970, 2000, 2020] {
            assert!(said(behind).contains("before this program was made"), "{behind}: {}", said(behind));
            assert!(said(behind).contains("timedatectl set-time"), "{behind}: {}", said(behind));
        }
        for good in [2028, 2038, 2100] {
            assert!(!said(good).contains("before this program"), "{good}: {}", said(good));
        }
    }
}
