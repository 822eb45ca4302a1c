//! Floor 3. What a round may put on the line: so many bytes a day, and hours in which large transfers wait.
//!
//! Hides how little is left. Edits of records that the centre has, word of edits made elsewhere and conflicts never wait.
//! People who are new wait for the end of a reading that waits (`sync::unread`).
//! Attachments give way first, then looking through the centre's records: a first sync, a verification pass,
//! every sweep of a standalone server. The day is counted in the store by the node's clock, which only
//! shifts large transfers to another hour and decides nothing about records.

use bson::{Document, doc};

use super::SyncSettings;
use super::kept_rows::or_anew;
use crate::store::{Fields, Shortage, Store, StoreError, Tx};

/// Bytes of attachments in one round: what a slow mobile line, 10,000 bytes a second, carries within the
/// round's time.
pub const ATTACHMENT_BYTES_PER_ROUND_DEFAULT: u64 = 4 << 20;
/// Bytes that one round may look through: the first sync of a clinic with tens of thousands of records ends
/// in one round, and that of a whole country does not take a metered line for itself. A line below 200,000
/// bytes a second is bounded by the round's time before.
pub const SCAN_BYTES_PER_ROUND_DEFAULT: u64 = 64 << 20;

/// Parts of a day's budget up to which attachments and looking through records may use it, in quarters; the
/// last quarter is kept for edits.
const CONTENT_QUARTERS: u64 = 2;
const SCAN_QUARTERS: u64 = 3;
/// Less than this is not worth beginning with: no chunk of an attachment fits.
const REST_BYTES_MIN: u64 = 128 << 10;
/// Days whose bytes are remembered: a box whose clock jumps to and fro finds its day again.
const DAYS_KEPT_MAX: usize = 4;
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const MINUTE_MS: i64 = 60 * 1000;
const DAY_MINUTES: u16 = 24 * 60;

/// Days by number, oldest use first, with their bytes.
const META_LINE_BYTES: &str = "line_bytes";

/// Seconds that local time is ahead of UTC, at milliseconds since 1970.
pub type UtcOffset = fn(i64) -> i32;

/// A part of every day in local time; one that ends before it begins passes midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    /// Minutes since midnight; `until` is the first one after.
    from: u16,
    until: u16,
}

impl QuietHours {
    /// Reads `HH:MM-HH:MM`; 24:00 is the end of the day. `None` for anything else, and for no time at all.
    pub fn parse(text: &str) -> Option<QuietHours> {
        let (from, until) = text.split_once('-')?;
        let (from, until) = (minute_of(from)?, minute_of(until)?);
        (from < DAY_MINUTES && from != until).then_some(QuietHours { from, until })
    }

    fn covers(self, minute: u16) -> bool {
        match self.from < self.until {
            true => (self.from..self.until).contains(&minute),
            false => minute >= self.from || minute < self.until,
        }
    }
}

fn minute_of(text: &str) -> Option<u16> {
    let number = |digits: &str| {
        let is_plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute) = (number(hour)?, number(minute)?);
    let at = hour * 60 + minute;
    (minute < 60 && at <= DAY_MINUTES).then_some(at)
}

/// The first minute of a day, from this one on and around midnight, that is in no quiet hours.
pub fn next_loud_minute(hours: &[QuietHours], minute: u16) -> Option<u16> {
    (0..DAY_MINUTES)
        .map(|ahead| (minute + ahead) % DAY_MINUTES)
        .find(|at| !hours.iter().any(|hours| hours.covers(*at)))
}

/// What a round may spend on what can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Bytes of attachments, both ways; 0: they wait, `u64::MAX`: as many as there are.
    pub(crate) content_bytes: u64,
    /// Bytes received while looking through the centre's records, in the same way.
    pub(crate) scan_bytes: u64,
    wait: Option<Wait>,
}

/// Why something waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For a minute of the local day.
    Until(u16),
    /// For the next day: so much of the day's budget is used.
    Tomorrow { used: u64, budget: u64 },
    /// For space on the disk here.
    Space(Shortage),
}

impl Allowance {
    /// For a node that may spend what it likes.
    pub(crate) fn unlimited() -> Allowance {
        Allowance { content_bytes: u64::MAX, scan_bytes: u64::MAX, wait: None }
    }

    /// For a round that begins now.
    pub(crate) fn now(store: &Store, settings: &SyncSettings) -> Result<Allowance, StoreError> {
        let moment = Moment::of(store.now_ms(), settings.utc_offset);
        let counted = Days::in_row(store.read()?.meta_row(META_LINE_BYTES)?)?;
        Ok(Allowance::of(settings, moment, counted.bytes_of(moment.day)))
    }

    fn of(settings: &SyncSettings, moment: Moment, used: u64) -> Allowance {
        let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        let per_round = Allowance {
            content_bytes: or_none(settings.attachment_bytes_per_round),
            scan_bytes: or_none(settings.scan_bytes_per_round),
            wait: None,
        };
        match next_loud_minute(&settings.quiet_hours, moment.minute) {
            Some(minute) if minute == moment.minute => {}
            // A whole day of quiet hours is refused by the configuration.
            until => {
                let wait = until.map(Wait::Until);
                return Allowance { content_bytes: 0, scan_bytes: 0, wait };
            }
        }
        let budget = settings.budget_bytes_per_day;
        if budget == 0 {
            return per_round;
        }
        let left = |quarters: u64| {
            let share = budget / 4 * quarters + budget % 4 * quarters / 4;
            let left = share.saturating_sub(used);
            if left < REST_BYTES_MIN { 0 } else { left }
        };
        let (content_left, scan_left) = (left(CONTENT_QUARTERS), left(SCAN_QUARTERS));
        Allowance {
            content_bytes: per_round.content_bytes.min(content_left),
            scan_bytes: per_round.scan_bytes.min(scan_left),
            wait: (content_left == 0 || scan_left == 0).then_some(Wait::Tomorrow { used, budget }),
        }
    }

    /// Nothing more is to be taken from the centre; what is here may go on being sent.
    pub(crate) fn wait_for_space(&mut self, shortage: Shortage) {
        (self.scan_bytes, self.wait) = (0, Some(Wait::Space(shortage)));
    }

    /// What to tell people when something large waits; nothing if nothing has to.
    pub(crate) fn words(&self) -> Option<String> {
        Some(match self.wait? {
            Wait::Space(shortage) => format!(
                "Nothing more is taken from the centre until there is space here: {shortage}. What was edited here \
                 is sent."
            ),
            Wait::Until(minute) => {
                format!("Large transfers wait until {:02}:{:02}.", minute / 60, minute % 60)
            }
            Wait::Tomorrow { used, budget } => format!(
                "Large transfers wait until tomorrow: {} of today's {} have been used.",
                megabytes(used),
                megabytes(budget)
            ),
        })
    }
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// Adds what a round has put on the line to its day. Bytes of a round that a power cut ended are not counted:
/// no more than one round's.
pub(crate) fn charge(tx: &mut Tx<'_>, utc_offset: UtcOffset, bytes: u64) -> Result<(), StoreError> {
    if bytes == 0 {
        return Ok(());
    }
    let day = Moment::of(tx.now_ms(), utc_offset).day;
    let mut days = Days::in_row(tx.meta_row(META_LINE_BYTES)?)?;
    days.add(day, bytes);
    tx.set_meta(META_LINE_BYTES, Some(&days.encode()))
}

/// A local day by number, and a minute of it.
#[derive(Debug, Clone, Copy)]
struct Moment {
    day: i64,
    minute: u16,
}

impl Moment {
    fn of(now_ms: i64, utc_offset: UtcOffset) -> Moment {
        let local_ms = now_ms.saturating_add(i64::from(utc_offset(now_ms)) * 1000);
        let minute = local_ms.rem_euclid(DAY_MS) / MINUTE_MS;
        Moment { day: local_ms.div_euclid(DAY_MS), minute: u16::try_from(minute).unwrap_or(0) }
    }
}

/// Bytes by day. A day that is not among them has used nothing, whether the clock says that it is to come or
/// long past: so no jump of the clock keeps a node waiting for longer than a day.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Days(Vec<(i64, u64)>);

impl Days {
    /// A row that cannot be read is counted anew: a node spends a day's budget twice at most, and records wait for no count.
    fn in_row(row: Option<Vec<u8>>) -> Result<Days, StoreError> {
        row.map_or(Ok(Days::default()), |row| or_anew(Days::decode(&row), Days::default))
    }

    pub(super) fn decode(row: &[u8]) -> Result<Days, StoreError> {
        let row = Fields::of(row, "the bytes of the last days")?;
        let days = row.rows("days")?.into_iter();
        days.map(|day| Ok((day.int64("day")?, day.count("bytes")?))).collect::<Result<_, _>>().map(Days)
    }

    fn encode(&self) -> Document {
        let row =
            |(day, bytes): &(i64, u64)| doc! {"day": day, "bytes": i64::try_from(*bytes).unwrap_or(i64::MAX)};
        doc! {"days": self.0.iter().map(row).collect::<Vec<_>>()}
    }

    fn bytes_of(&self, day: i64) -> u64 {
        self.0.iter().find(|(known, _)| *known == day).map_or(0, |(_, bytes)| *bytes)
    }

    fn add(&mut self, day: i64, bytes: u64) {
        let bytes = self.bytes_of(day).saturating_add(bytes);
        let is_new = !self.0.iter().any(|(known, _)| *known == day);
        self.0.retain(|(known, _)| *known != day);
        // Once: every exchange of that day comes past here.
        if is_new && self.0.last().is_some_and(|(last, _)| day < *last) {
            tracing::warn!(
                "the clock has gone back by a day or more: the bytes of this day are counted on their own"
            );
        }
        self.0.push((day, bytes));
        let excess = self.0.len().saturating_sub(DAYS_KEPT_MAX);
        self.0.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn hours(texts: &[&str]) -> Vec<QuietHours> {
        texts.iter().map(|text| QuietHours::parse(text).unwrap_or_else(|| panic!("{text}"))).collect()
    }

    fn at(text: &str) -> Moment {
        Moment { day: 20_000, minute: minute_of(text).unwrap() }
    }

    fn read(row: &Document) -> Days {
        let mut bytes = Vec::new();
        row.to_writer(&mut bytes).unwrap();
        Days::in_row(Some(bytes)).unwrap()
    }

    #[test]
    fn quiet_hours_are_read_as_people_write_them() {
        for text in ["08:00-18:30", "22:00-06:00", "00:00-24:00", "23:59-00:00", "12:00-24:00"] {
            assert!(QuietHours::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "-",
            "8:00-18:00",
            "08:00",
            "08:00 - 18:00",
            "08:00-18:60",
            "24:00-08:00",
            "25:00-26:00",
            "08:00-08:00",
            "+8:00-18:00",
            "08:00-18:00-20:00",
            "０8:00-18:00",
        ] {
            assert_eq!(QuietHours::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_next_loud_minute_is_found_around_midnight() {
        let cases: [(&[&str], &str, Option<&str>); 11] = [
            (&[], "08:00", Some("08:00")),
            (&["08:00-18:00"], "07:59", Some("07:59")),
            (&["08:00-18:00"], "08:00", Some("18:00")),
            (&["08:00-18:00"], "17:59", Some("18:00")),
            (&["08:00-18:00"], "18:00", Some("18:00")),
            (&["22:00-06:00"], "23:00", Some("06:00")),
            (&["22:00-06:00"], "05:59", Some("06:00")),
            (&["22:00-06:00"], "06:00", Some("06:00")),
            (&["08:00-12:00", "11:00-14:00", "14:00-15:00"], "09:00", Some("15:00")),
            (&["18:00-24:00", "00:00-07:00"], "20:00", Some("07:00")),
            (&["12:00-11:00", "11:00-12:00"], "20:00", None),
        ];
        for (quiet, now, expected) in cases {
            let minute = |text: &str| minute_of(text).unwrap();
            assert_eq!(next_loud_minute(&hours(quiet), minute(now)), expected.map(minute), "{quiet:?} {now}");
        }
    }

    /// Attachments stop first, then looking through records; both say for how long.
    #[test]
    fn what_can_wait_waits_in_order() {
        let unlimited = u64::MAX;
        let wait = |text: &str| Some(format!("Large transfers wait until {text}."));
        // Budget, used, quiet hours; at 09:00; bytes for attachments and for looking through records.
        type Case<'a> = (u64, u64, &'a [&'a str], u64, u64, Option<String>);
        let cases: [Case<'_>; 9] = [
            (0, 0, &[], 4 * MB, unlimited, None),
            (0, 900 * MB, &[], 4 * MB, unlimited, None),
            (100 * MB, 0, &[], 4 * MB, 75 * MB, None),
            (100 * MB, 48 * MB, &[], 2 * MB, 27 * MB, None),
            (
                100 * MB,
                50 * MB,
                &[],
                0,
                25 * MB,
                wait("tomorrow: 50.0 MB of today's 100.0 MB have been used"),
            ),
            (100 * MB, 75 * MB - 1, &[], 0, 0, wait("tomorrow: 74.9 MB of today's 100.0 MB have been used")),
            (100 * MB, 900 * MB, &[], 0, 0, wait("tomorrow: 900.0 MB of today's 100.0 MB have been used")),
            (0, 0, &["08:00-18:00"], 0, 0, wait("18:00")),
            (100 * MB, 900 * MB, &["08:00-18:05"], 0, 0, wait("18:05")),
        ];
        for (budget_bytes_per_day, used, quiet, content_bytes, scan_bytes, words) in cases {
            let settings = SyncSettings {
                attachment_bytes_per_round: 4 * MB,
                scan_bytes_per_round: 0,
                budget_bytes_per_day,
                quiet_hours: hours(quiet),
                ..SyncSettings::default()
            };
            let allowance = Allowance::of(&settings, at("09:00"), used);
            let shown = (allowance.content_bytes, allowance.scan_bytes, allowance.words());
            assert_eq!(shown, (content_bytes, scan_bytes, words), "{budget_bytes_per_day} {used} {quiet:?}");
        }
    }

    #[test]
    fn a_days_share_does_not_overflow() {
        let settings = SyncSettings { budget_bytes_per_day: u64::MAX, ..SyncSettings::default() };
        let allowance = Allowance::of(&settings, at("09:00"), u64::MAX);
        assert_eq!((allowance.content_bytes, allowance.scan_bytes), (0, 0));
        let allowance = Allowance::of(&settings, at("09:00"), 0);
        assert_eq!(allowance.scan_bytes, SCAN_BYTES_PER_ROUND_DEFAULT);
    }

    #[test]
    fn a_local_day_has_its_own_midnight() {
        let moment = |ms: i64, ahead_s: UtcOffset| {
            let Moment { day, minute } = Moment::of(ms, ahead_s);
            (day, minute)
        };
        assert_eq!(moment(0, |_| 0), (0, 0));
        assert_eq!(moment(0, |_| -3 * 3600), (-1, 21 * 60));
        assert_eq!(moment(DAY_MS - 1, |_| 0), (0, DAY_MINUTES - 1));
        assert_eq!(moment(DAY_MS - 1, |_| 5 * 3600 + 1800), (1, 5 * 60 + 29));
        assert_eq!(moment(i64::MIN, |_| -3600).1, moment(i64::MIN, |_| 0).1, "no clock makes it fail");
    }

    /// A clock that jumps neither keeps the node waiting for years nor gives it a second budget each time.
    #[test]
    fn days_are_counted_apart_whatever_the_clock_does() {
        let mut days = Days::default();
        let mut add = |day, bytes| {
            days.add(day, bytes);
            days = read(&days.encode());
            days.bytes_of(day)
        };
        assert_eq!(add(20_000, 5), 5);
        assert_eq!(add(20_000, 5), 10);
        // Switched on without a clock, then told the time, again and again.
        assert_eq!(add(0, 1), 1);
        assert_eq!(add(20_000, 5), 15);
        assert_eq!(add(0, 1), 2);
        assert_eq!(add(20_000, 5), 20);
        // A century ahead and back.
        assert_eq!(add(56_000, 7), 7);
        assert_eq!(add(20_001, 5), 5);
        assert_eq!(add(20_002, u64::MAX), i64::MAX as u64);
        assert_eq!(days.0.len(), DAYS_KEPT_MAX);
        assert_eq!(read(&doc! {"days": [1, {"day": "x"}]}), Days::default());
    }
}
