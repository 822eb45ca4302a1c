//! Floor 0. The day of a birth that was stored as a moment: programs store it as its midnight in a zone of their own.

use bson::Bson;
use chrono::{Datelike as _, NaiveDate, NaiveDateTime, Timelike as _};

use super::{WrittenDate, plain_date, stored_moment, written_date};
use crate::domain::text::folding::plain_text;

/// Since this year the offsets of all zones are whole or half hours, or one of [`QUARTER_HOUR_MIDNIGHTS`] (Liberia was the
/// last to change).
const WHOLE_OFFSETS_YEAR_MIN: i32 = 1972;
/// Midnights by UTC in zones at an odd quarter of an hour: Nepal (UTC+5:45), Eucla in Australia (+8:45), the Chatham Islands
/// (+12:45, in summer +13:45).
const QUARTER_HOUR_MIDNIGHTS: [(u32, u32); 4] = [(18, 15), (15, 15), (11, 15), (10, 15)];
/// From this hour on by UTC the next day begins somewhere: UTC+14:00.
const NEXT_DAY_HOUR_MIN: u32 = 10;
/// Until this second of the day by UTC the day still begins somewhere: UTC-12:00.
const SAME_DAY_SECOND_MAX: u32 = 12 * 3600;

/// When somebody was born, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Birth {
    /// On this day.
    Day(NaiveDate),
    /// On this day or the next one: a moment that is a midnight on both sides of the date line.
    DayOrNext(NaiveDate),
    /// In doubt people are kept apart: what cannot be read is compared as it is typed.
    Unread(String),
}

/// The moment that a value stands for, by UTC. Small numbers are none: they may be years, ages, days or seconds as well.
pub(crate) fn moment_of(value: &Bson) -> Option<NaiveDateTime> {
    match value {
        Bson::String(text) => written_date(text)?.utc(),
        other => stored_moment(other),
    }
}

/// A stored date.
pub(crate) fn birth_of(value: &Bson) -> Birth {
    moment_of(value).map_or_else(|| Birth::Unread(value.to_string()), born_at)
}

/// The day that is written by a clock of a zone other than UTC: such clocks show the day, whatever the hour. So does
/// 24:00, the end of a day, in every zone. `None` where UTC was written or meant.
pub(super) fn written_birth_day(date: WrittenDate) -> Option<NaiveDate> {
    (date.offset_seconds != 0 || date.is_end_of_day()).then(|| date.written_day())
}

/// Whether a birth at a moment of UTC may be one of that day.
pub(super) fn is_born_on(utc: NaiveDateTime, day: NaiveDate) -> bool {
    born_at(utc).agrees(&Birth::Day(day))
}

/// A birth as it is written.
pub(crate) fn birth_in(text: &str) -> Birth {
    match written_date(text) {
        // Only what is written in UTC may be the midnight of another zone.
        Some(date) if date.has_zone && written_birth_day(date).is_none() => born_at(date.local),
        Some(date) => Birth::Day(date.written_day()),
        None => Birth::Unread(plain_text(&plain_date(text))),
    }
}

impl Birth {
    /// Whether both may be one day.
    pub(crate) fn agrees(&self, other: &Birth) -> bool {
        match (self, other) {
            (Birth::DayOrNext(first), Birth::Day(day)) | (Birth::Day(day), Birth::DayOrNext(first)) => {
                first == day || first.succ_opt() == Some(*day)
            }
            (Birth::DayOrNext(a), Birth::DayOrNext(b)) => {
                a == b || a.succ_opt() == Some(*b) || b.succ_opt() == Some(*a)
            }
            (a, b) => a == b,
        }
    }
}

/// The day that a moment of UTC stands for. Programs store a day as its midnight in their own zone: in the east of
/// Greenwich, from UTC+1 to UTC+14, that is from 10:00 to 23:00 UTC of the day before, in the west, to UTC-12, until
/// 12:00 UTC of the same day. All other moments are times of their day by UTC.
fn born_at(utc: NaiveDateTime) -> Birth {
    let day = utc.date();
    let (Some(next), true) = (day.succ_opt(), utc.hour() >= NEXT_DAY_HOUR_MIN) else {
        return Birth::Day(day);
    };
    let is_west = utc.num_seconds_from_midnight() <= SAME_DAY_SECOND_MAX;
    match (is_midnight_somewhere(utc), is_west) {
        (true, false) => Birth::Day(next),
        (true, true) => Birth::DayOrNext(day),
        // Before, clocks had minutes and seconds of their own.
        (false, _) if utc.year() < WHOLE_OFFSETS_YEAR_MIN && utc.nanosecond() == 0 => Birth::DayOrNext(day),
        (false, _) => Birth::Day(day),
    }
}

/// Whether this is a midnight in a zone of today.
fn is_midnight_somewhere(utc: NaiveDateTime) -> bool {
    let is_half_hour = utc.minute().is_multiple_of(30);
    let is_quarter = QUARTER_HOUR_MIDNIGHTS.contains(&(utc.hour(), utc.minute()));
    (is_half_hour || is_quarter) && utc.second() == 0 && utc.nanosecond() == 0
}
