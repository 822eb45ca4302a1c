//! Floor 3. Backups on a schedule, in the machine's local time.
//!
//! Boxes are switched off at night: a backup whose hour has passed is made after the next start. Nothing is kept
//! for that but the backups themselves. Of one that was made in the future, as it seems, nobody knows how old it is: the
//! clock was wrong then or is now. So another is made once the node has been up for an hour, in which the clock may
//! still be set; that one is in order, and a jump, whichever way, costs at most one backup too many.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, FixedOffset};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::{Backups, list_own};
use crate::sync::budget::UtcOffset;

/// How long a node has been up before it makes a backup by itself.
const START_S: u64 = 600;
/// How often it looks whether one is due.
const LOOK_S: u64 = 30;
/// How long a node has been up before it makes one because the last seems to lie in the future.
const CLOCK_S: u64 = 3600;
/// Pause after a backup that failed.
const RETRY_S: u64 = 3600;

/// What tells the time: milliseconds since 1970, and what local time is ahead of UTC then.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    pub now_ms: fn() -> i64,
    pub utc_offset: UtcOffset,
}

/// Reads six fields of cron, seconds first.
pub fn parse_schedule(text: &str) -> Option<Cron> {
    CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build().parse(text).ok()
}

/// Makes backups when they are due, until it is dropped.
pub async fn keep_schedule(backups: Arc<Backups>, schedule: Cron, clocks: Clocks) {
    let started = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(START_S)).await;
    loop {
        let pause = match newest_ms(&backups) {
            Some(newest) if !is_due(&schedule, newest, started.elapsed(), clocks) => LOOK_S,
            _ => match backups.create().await {
                Ok(made) => {
                    tracing::info!(file = %made.file.display(), bytes = made.bytes, "backup made");
                    LOOK_S
                }
                Err(error) => {
                    tracing::error!(%error, "the scheduled backup failed; it is tried again in an hour");
                    RETRY_S
                }
            },
        };
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

/// When the last backup was made, by the clock of then.
fn newest_ms(backups: &Backups) -> Option<i64> {
    let own = list_own(&backups.settings, &backups.owner().ok()?).ok()?;
    own.into_iter().rfind(|listed| listed.checksum)?.created_s.checked_mul(1000)
}

/// Whether an hour of the schedule has passed since the last backup; for one that seems to lie in the future, whether
/// the node has been up for long enough.
fn is_due(schedule: &Cron, newest_ms: i64, up: Duration, clocks: Clocks) -> bool {
    let now_ms = (clocks.now_ms)();
    if newest_ms > now_ms {
        return up.as_secs() >= CLOCK_S;
    }
    // The zone of now: changes of the clock of a season in between may move an hour, not a day.
    let ahead_s = (clocks.utc_offset)(now_ms);
    next_ms(schedule, newest_ms, ahead_s).is_some_and(|next_ms| next_ms <= now_ms)
}

/// The first time of the schedule after this one, in milliseconds since 1970, where local time is so many seconds
/// ahead of UTC.
pub fn next_ms(schedule: &Cron, after_ms: i64, ahead_s: i32) -> Option<i64> {
    let zone = FixedOffset::east_opt(ahead_s)?;
    let after = DateTime::from_timestamp_millis(after_ms)?.with_timezone(&zone);
    Some(schedule.find_next_occurrence(&after, false).ok()?.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::backup::BackupSettings;
    use crate::store::{Store, StoreOptions};

    /// 2026-11-27, 00:00 UTC.
    const MIDNIGHT_MS: i64 = 1_795_737_600_000;
    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_backup_is_due_once_its_hour_has_passed() {
        static NOW: AtomicI64 = AtomicI64::new(0);
        let clocks = Clocks { now_ms: || NOW.load(Ordering::Relaxed), utc_offset: |_| 2 * 3600 };
        // Three in the morning, which is one o'clock in UTC.
        let daily = parse_schedule("0 0 3 * * *").unwrap();
        let hour = |hours: i64| MIDNIGHT_MS + hours * HOUR_MS;
        for (newest, up_h, now, expected) in [
            (hour(-20), 2, hour(1) - 1, false),
            (hour(-20), 2, hour(1), true),
            (hour(1) + 1, 3, hour(2), false),
            // It was off at that hour, or for a month.
            (hour(-20), 1, hour(6), true),
            (hour(-700), 1, hour(6), true),
            // The last one seems to have been made in ten years.
            (hour(90_000), 0, hour(0), false),
            (hour(90_000), 1, hour(0), true),
            // A box without a clock that works starts at the same hour every day.
            (hour(2), 0, hour(1), false),
            (hour(2), 1, hour(1), true),
            // The clock ran ahead by ten years.
            (hour(-20), 0, hour(90_000), true),
        ] {
            NOW.store(now, Ordering::Relaxed);
            assert_eq!(
                is_due(&daily, newest, Duration::from_secs(up_h * 3600), clocks),
                expected,
                "{newest} {up_h} {now}"
            );
        }
        assert!(parse_schedule("0 3 * * *").is_none() && parse_schedule("at night").is_none());
    }

    /// Booted in 2036, corrected to 2026; and a box that is off at the hour of the schedule.
    #[tokio::test(start_paused = true)]
    async fn backups_go_on_after_a_clock_that_was_wrong() {
        static NOW: AtomicI64 = AtomicI64::new(0);
        let now_ms = || NOW.load(Ordering::Relaxed);
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: now_ms,
        };
        let directory = tempfile::tempdir().unwrap();
        let settings = BackupSettings {
            directory: directory.path().join("backups"),
            keep: 20,
            recipients: Vec::new(),
            node_name: "clinic".to_owned(),
            data_dir: directory.path().to_owned(),
            reserve_bytes: 1 << 20,
        };
        let clocks = Clocks { now_ms, utc_offset: |_| 0 };
        let mut made = Vec::new();
        // Each day from eight to eighteen, the first of them ten years ahead.
        for (day, ahead_hours) in [(0, 90_000), (1, 0), (2, 0), (3, 0), (4, -400_000), (5, 0), (6, 0)] {
            let backups = Backups::new(Store::in_memory(options).unwrap(), settings.clone());
            let schedule = parse_schedule("0 0 3 * * *").unwrap();
            let from_ms = MIDNIGHT_MS + (day * 24 + 8 + ahead_hours) * HOUR_MS;
            NOW.store(from_ms, Ordering::Relaxed);
            let running = tokio::spawn(keep_schedule(Arc::clone(&backups), schedule, clocks));
            for minute in 0..600 {
                tokio::time::sleep(Duration::from_secs(60)).await;
                NOW.store(from_ms + (minute + 1) * 60_000, Ordering::Relaxed);
            }
            // What it made goes on in a thread of its own.
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            running.abort();
            made.push(crate::backup::list(&settings.directory).unwrap().len());
        }
        assert!(made.windows(2).all(|pair| pair[1] > pair[0]), "a backup on each day: {made:?}");
        assert!(made[6] <= 9, "and few too many: {made:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn backups_are_made_and_thinned_out_by_themselves() {
        let start = tokio::time::Instant::now();
        static ELAPSED_MS: AtomicI64 = AtomicI64::new(0);
        let now_ms = || MIDNIGHT_MS + ELAPSED_MS.load(Ordering::Relaxed);
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: now_ms,
        };
        let directory = tempfile::tempdir().unwrap();
        let backups = Backups::new(
            Store::in_memory(options).unwrap(),
            BackupSettings {
                directory: directory.path().join("backups"),
                keep: 2,
                recipients: Vec::new(),
                node_name: "clinic".to_owned(),
                data_dir: directory.path().to_owned(),
                reserve_bytes: 1 << 20,
            },
        );
        let clocks = Clocks { now_ms, utc_offset: |_| 0 };
        let daily = parse_schedule("0 0 3 * * *").unwrap();
        let running = tokio::spawn(keep_schedule(Arc::clone(&backups), daily, clocks));
        let numbers = || -> Vec<u64> {
            crate::backup::list(&backups.settings.directory)
                .unwrap()
                .iter()
                .map(|listed| listed.number)
                .collect()
        };
        // By the hour: a first one after the start, then one at three every day, of which two stay.
        let mut seen = Vec::new();
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            let elapsed = i64::try_from(start.elapsed().as_millis()).unwrap();
            ELAPSED_MS.store(elapsed, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(2 * LOOK_S)).await;
            if seen.last() != Some(&numbers()) {
                seen.push(numbers());
            }
        }
        running.abort();
        assert_eq!(seen, [vec![1], vec![1, 2], vec![2, 3], vec![3, 4], vec![4, 5], vec![5, 6]]);
    }
}
