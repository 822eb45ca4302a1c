//! Floor 0. Dates as clients write them.
//!
//! Accepted is what has one meaning only: whatever begins with the year, in any typography (ISO 8601, RFC 3339, HL7, XML
//! Schema, Chinese, Japanese and Korean dates), the three forms of HTTP (RFC 9110, 5.6.7), RFC 5322, what JavaScript,
//! Python, Java and `date` print, and milliseconds since 1970 ([`moment_in_digits`]). A text without a zone is UTC.
//! `04/10/1985` is two days, so it is none.

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Weekday};
use serde_json::Value;

use crate::domain::text::folding::plain_text;

/// The forms that [`parse_date`] and [`date_of`] read, for messages.
pub const DATE_FORMS: &str = "1985-10-04, 1985-10-04T13:05:00Z (or with +02:00), \
     \"Fri, 04 Oct 1985 13:05:00 GMT\", milliseconds since 1970 as a number of 11 digits or more, or {\"$date\": milliseconds} \
     of any length; without a zone it is UTC; years from 1 to 9999";

/// Moments outside of the years 1 to 9999 are no dates: most programs that read MongoDB fail on them, and they come of
/// microseconds that were taken for milliseconds.
const DATE_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// The fewest digits of milliseconds since 1970, as text or number: all but the moments from September 1969 to April 1970.
/// Shorter numbers are days of the calendar (`19800505`) or seconds as well.
const MOMENT_DIGITS_MIN: usize = 11;
/// The most in a text: until 2286.
const MOMENT_DIGITS_MAX: usize = 13;
/// Years in which a number of 12 or 14 digits is taken for a day and a time of the calendar.
const WRITTEN_YEARS: std::ops::RangeInclusive<i32> = 1800..=2199;

/// Longest text that can be a date, in bytes; JavaScript adds the zone's name in the browser's language.
const DATE_CHARS_MAX: usize = 128;
/// Zones by name that have one meaning: RFC 5322, 4.3 names no others.
const ZONES: [(&str, i32); 12] = [
    ("Z", 0),
    ("UT", 0),
    ("UTC", 0),
    ("GMT", 0),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
/// The largest offset from UTC that is read, in seconds; the largest in use is +14:00.
const OFFSET_SECONDS_MAX: i32 = 18 * 3600;

/// A date and time as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenDate {
    /// By the clock of the zone that was written.
    pub local: NaiveDateTime,
    /// East of UTC, in seconds; 0 if no zone was written.
    pub offset_seconds: i32,
    /// Whether a zone was written, UTC too. Milliseconds since 1970 are UTC.
    pub has_zone: bool,
    /// Whether the time is 24:00, the end of the day that was written. `local` is the midnight after it then.
    is_end_of_day: bool,
}

impl WrittenDate {
    fn day(day: NaiveDate) -> Self {
        let local = day.and_time(NaiveTime::MIN);
        WrittenDate { local, offset_seconds: 0, has_zone: false, is_end_of_day: false }
    }

    /// `zone` is what is written behind the time.
    fn at(day: NaiveDate, time: TimeDelta, zone: &str) -> Option<Self> {
        let local = day.and_time(NaiveTime::MIN).checked_add_signed(time)?;
        let offset_seconds = offset_of(zone)?;
        let is_end_of_day = time == TimeDelta::days(1);
        Some(WrittenDate { local, offset_seconds, has_zone: !zone.trim().is_empty(), is_end_of_day })
    }

    /// The day that was written.
    pub fn written_day(&self) -> NaiveDate {
        let day = self.local.date();
        if self.is_end_of_day { day.pred_opt().unwrap_or(day) } else { day }
    }

    /// Whether the time is 24:00.
    pub fn is_end_of_day(&self) -> bool {
        self.is_end_of_day
    }

    pub fn utc(&self) -> Option<NaiveDateTime> {
        self.local.checked_sub_signed(TimeDelta::seconds(i64::from(self.offset_seconds)))
    }
}

/// Reads a date in any unambiguous form that clients write; `None` for anything else.
pub fn parse_date(text: &str) -> Option<bson::DateTime> {
    moment_of(written_date(text)?.utc()?.and_utc().timestamp_millis())
}

fn moment_of(ms: i64) -> Option<bson::DateTime> {
    DATE_MS.contains(&ms).then(|| bson::DateTime::from_millis(ms))
}

/// The date that a client's JSON value means where a date is stored: text, milliseconds since 1970, or MongoDB's
/// `{"$date": ...}`, in which a number is milliseconds, whatever its length.
pub fn date_of(value: &Value) -> Option<bson::DateTime> {
    match value {
        Value::String(text) => parse_date(text),
        Value::Number(number) => moment_in_digits(whole_of(number)?),
        Value::Object(map) if map.len() == 1 => match map.get("$date")? {
            Value::Object(inner) if inner.len() == 1 => {
                moment_of(inner.get("$numberLong")?.as_str()?.parse().ok()?)
            }
            Value::Number(number) => moment_of(whole_of(number)?),
            Value::String(text) => parse_date(text),
            _ => None,
        },
        _ => None,
    }
}

fn whole_of(number: &serde_json::Number) -> Option<i64> {
    let float = number.as_f64().filter(|float| number.is_f64() && is_whole(*float));
    number.as_i64().or(float.map(|float| float as i64))
}

/// The moment of a number that is milliseconds since 1970 and nothing else. `19800505` is a day and `497279100` is
/// seconds; as milliseconds both are in January 1970. `19851004130500` and `198510041305` are a day and a time.
pub(super) fn moment_in_digits(number: i64) -> Option<bson::DateTime> {
    let digits = number.unsigned_abs().to_string();
    let written = year_first(&digits).filter(|written| WRITTEN_YEARS.contains(&written.local.year()));
    let is_moment = digits.len() >= MOMENT_DIGITS_MIN && (number < 0 || written.is_none());
    is_moment.then(|| moment_of(number)).flatten()
}

/// Whether a float holds a whole number exactly.
pub(super) fn is_whole(float: f64) -> bool {
    float.fract() == 0.0 && float.abs() < (1_u64 << 53) as f64
}

/// Reads a date and keeps how it was written.
pub fn written_date(text: &str) -> Option<WrittenDate> {
    if text.len() > DATE_CHARS_MAX {
        return None;
    }
    let text = plain_date(text);
    let text = without_zone_name(without_brackets(&text));
    match (written_moment(text), year_first(text)) {
        // `199002010730` of HL7 is a moment of 1976 as well.
        (Some(_), Some(_)) => None,
        (moment, date) => moment.or(date).or_else(|| spelled_date(text)),
    }
}

/// JavaScript and mail put the zone's name behind its offset: `GMT+0200 (CEST)`, `+0200 (GMT+02:00)`. Anything else in
/// parentheses is no part of a date.
fn without_zone_name(text: &str) -> &str {
    let Some((date, name)) = text.strip_suffix(')').and_then(|text| text.split_once(" (")) else {
        return text;
    };
    // `Central Standard Time (Mexico)` has one of its own.
    let inner = name.strip_suffix(')').and_then(|name| name.split_once(" (")).unwrap_or((name, ""));
    let is_name = |name: &str| name.chars().all(|c| !c.is_numeric() && !matches!(c, '(' | ')'));
    let zone = date.rsplit_once(' ').map(|(_, zone)| zone);
    let offset = zone.filter(|zone| zone.contains(['+', '-']) && zone.is_ascii()).and_then(offset_of);
    // A name that is an offset says the same, or the text has two meanings.
    let is_zone_name = (is_name(inner.0) && is_name(inner.1)) || offset_in_name(name) == offset;
    if offset.is_some() && is_zone_name { date } else { text }
}

/// The offset in a zone's name of JavaScript: `GMT+02:00`, `GMT+2`, `GMT-3:30`, `-03`. East of UTC, in seconds.
fn offset_in_name(name: &str) -> Option<i32> {
    let at = name.find(['+', '-'])?;
    let (before, hours) = name.split_at_checked(at + 1)?;
    let is_short = hours.find(|c: char| !c.is_ascii_digit()).unwrap_or(hours.len()) == 1;
    offset_of(&if is_short { format!("{before}0{hours}") } else { name.to_owned() })
}

/// Java and RFC 9557 put the zone's name behind its offset too: `+01:00[Europe/Madrid]`. A calendar
/// (`[u-ca=hebrew]`) is only about how the date is shown.
fn without_brackets(text: &str) -> &str {
    let Some((date, suffixes)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) else {
        return text;
    };
    let is_name = |name: &str| {
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-=:!".contains(&byte);
        name.bytes().all(is_sign) && name.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    let has_zone = year_first(date).is_some_and(|date| date.has_zone);
    if has_zone && suffixes.split("][").all(is_name) { date } else { text }
}

/// A date without its typography: width, digits of other scripts, invisible marks, hyphens, slashes and blanks of every
/// kind; the signs for year and month of Chinese, Japanese and Korean are hyphens.
pub fn plain_date(text: &str) -> String {
    if text.is_ascii() {
        return text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    }
    let plain: String = plain_text(text).chars().map(plain_sign).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn plain_sign(c: char) -> char {
    match c {
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{2043}' | '\u{02D7}' | '\u{05BE}' | '\u{30FC}' => '-',
        '年' | '月' | '년' | '월' => '-',
        '日' | '일' => ' ',
        '\u{2044}' | '\u{2215}' | '\u{060D}' => '/',
        '\u{2236}' | '\u{A789}' => ':',
        '\u{3002}' | '\u{06D4}' => '.',
        _ => c,
    }
}

/// Milliseconds since 1970 as text: more digits than a day of the calendar has.
fn written_moment(text: &str) -> Option<WrittenDate> {
    let number = text.strip_prefix('-').unwrap_or(text);
    digits_only(number).filter(|number| (MOMENT_DIGITS_MIN..=MOMENT_DIGITS_MAX).contains(&number.len()))?;
    let local = utc_of(moment_of(text.parse().ok()?)?)?;
    Some(WrittenDate { local, offset_seconds: 0, has_zone: true, is_end_of_day: false })
}

/// A date that begins with the year, with a time or without: `1985-10-04`, `1985/10/4`, `19851004`, `1985-277`,
/// `1985-W40-5`.
fn year_first(text: &str) -> Option<WrittenDate> {
    let mut reader = Reader { rest: text };
    let day = reader.day()?;
    let has_time = if reader.rest.is_empty() {
        false
    } else if reader.rest.starts_with(|c: char| c.is_ascii_digit()) {
        // `19851004130500` of HL7; behind a day with hyphens it would be a day of three digits.
        (text.len() - reader.rest.len() == 8).then_some(true)?
    } else if reader.take("T") || reader.take("t") {
        true
    } else {
        let has_blank = reader.take_blanks();
        has_blank && reader.rest.starts_with(|c: char| c.is_ascii_digit())
    };
    if !has_time {
        // `1985-10-04Z` and `1985-10-04+02:00` of XML Schema. `1985-10-04-05` is as well the fifth of that day.
        if reader.rest.starts_with('-') && !reader.rest.contains(':') {
            return None;
        }
        return WrittenDate::at(day, TimeDelta::zero(), reader.rest);
    }
    let time = reader.time()?;
    WrittenDate::at(day, time, reader.rest)
}

/// Dates with names of months: those of HTTP and mail, `asctime`, `date`, JavaScript, Java.
fn spelled_date(text: &str) -> Option<WrittenDate> {
    // `04-Oct-85` of RFC 850; an offset keeps its sign.
    let mut tokens: Vec<&str> = Vec::new();
    for token in text.split([' ', ',']).filter(|token| !token.is_empty()) {
        match token.split('-').collect::<Vec<_>>().as_slice() {
            [day, month, year] if month_of(month).is_some() => tokens.extend([day, month, year]),
            _ => tokens.push(token),
        }
    }
    let mut tokens = tokens.into_iter().peekable();
    let weekday = tokens.peek().and_then(|token| weekday_of(token));
    if weekday.is_some() {
        tokens.next();
    }
    let first = tokens.next()?;
    let (day, month, is_month_first) = match month_of(first) {
        Some(month) => (tokens.next()?, month, true),
        None => (first, month_of(tokens.next()?)?, false),
    };
    let mut rest: Vec<&str> = tokens.collect();
    // `Oct 4 13:05:00 1985` and `Oct 4 13:05:00 UTC 1985` have the year at the end.
    let is_year_last = is_month_first && rest.first().is_some_and(|token| token.contains(':'));
    let year = if is_year_last { rest.pop()? } else { rest.remove_first()? };
    let day = without_ordinal(day);
    let day = digits(day, 1..=2)?;
    let date = match (digits(year, 2..=4)?, year.len(), weekday) {
        (year, 4, _) => NaiveDate::from_ymd_opt(year.try_into().ok()?, month, day)?,
        // The weekday tells the century: a day of the year falls on another one a hundred years later.
        (year, 2, Some(weekday)) => [1900, 2000]
            .into_iter()
            .filter_map(|century| NaiveDate::from_ymd_opt(century + i32::try_from(year).ok()?, month, day))
            .find(|date| date.weekday() == weekday)?,
        _ => return None,
    };
    if weekday.is_some_and(|weekday| weekday != date.weekday()) {
        return None;
    }
    if rest.is_empty() {
        // `Fri Oct 04 1985`.
        return Some(WrittenDate::day(date));
    }
    let rest = rest.join(" ");
    let mut reader = Reader { rest: &rest };
    let time = reader.time()?;
    WrittenDate::at(date, time, reader.rest)
}

/// `4` of `4th`.
fn without_ordinal(day: &str) -> &str {
    let suffix = day.split_at_checked(day.len().saturating_sub(2));
    let is_ordinal = |suffix: &str| ["st", "nd", "rd", "th"].iter().any(|th| suffix.eq_ignore_ascii_case(th));
    suffix.filter(|(_, suffix)| is_ordinal(suffix)).map_or(day, |(number, _)| number)
}

trait RemoveFirst<T> {
    fn remove_first(&mut self) -> Option<T>;
}

impl<T> RemoveFirst<T> for Vec<T> {
    fn remove_first(&mut self) -> Option<T> {
        (!self.is_empty()).then(|| self.remove(0))
    }
}

/// Reads a zone: nothing, a name, an offset, or a name of UTC and an offset. East of UTC, in seconds.
fn offset_of(text: &str) -> Option<i32> {
    let text = text.trim();
    // `+0000 UTC`, as Go writes it.
    let text = text.strip_suffix(" UTC").filter(|rest| rest.starts_with(['+', '-'])).unwrap_or(text);
    if text.is_empty() {
        return Some(0);
    }
    let named = ZONES.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    if let Some((_, hours)) = named {
        return Some(hours * 3600);
    }
    let offset = match text.split_at_checked(3) {
        Some((name, offset)) if ["GMT", "UTC"].iter().any(|utc| name.eq_ignore_ascii_case(utc)) => offset,
        _ => text,
    };
    let (sign, offset) = match offset.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let mut reader = Reader { rest: offset };
    let hours = reader.number(2)?;
    let has_colon = reader.take(":");
    let minutes = if reader.rest.is_empty() && !has_colon { 0 } else { reader.number(2)? };
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    (reader.rest.is_empty() && minutes < 60 && seconds <= OFFSET_SECONDS_MAX).then_some(sign * seconds)
}

fn month_of(name: &str) -> Option<u32> {
    let short = name.get(..3)?.to_ascii_lowercase();
    let at = MONTHS.iter().position(|month| month.starts_with(&short))?;
    let is_name = name.len() == 3 || MONTHS.get(at).is_some_and(|month| name.eq_ignore_ascii_case(month));
    if is_name { u32::try_from(at + 1).ok() } else { None }
}

/// `Fri` or `Friday`.
fn weekday_of(name: &str) -> Option<Weekday> {
    if name.bytes().all(|byte| byte.is_ascii_alphabetic()) { name.parse().ok() } else { None }
}

fn digits_only(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<u32> {
    digits_only(text).filter(|text| length.contains(&text.len()))?.parse().ok()
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn take(&mut self, sign: &str) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take_blanks(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches(' ');
        self.rest.len() < before
    }

    /// A number of exactly so many digits.
    fn number(&mut self, length: usize) -> Option<u32> {
        let (number, rest) = self.rest.split_at_checked(length)?;
        let number = digits(number, length..=length)?;
        self.rest = rest;
        Some(number)
    }

    /// A number of at most so many digits, and no more.
    fn short_number(&mut self, most: usize) -> Option<u32> {
        let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        (1..=most).contains(&length).then(|| self.number(length)).flatten()
    }

    /// A day of the calendar, year first.
    fn day(&mut self) -> Option<NaiveDate> {
        let year = i32::try_from(self.number(4)?).ok()?;
        let has_blank = self.take_blanks();
        let separator = ["-", "/", ".", "_"].into_iter().find(|sign| self.take(sign));
        let separator = separator.or(has_blank.then_some(" "));
        self.take_blanks();
        if matches!(separator, Some("-") | None) && (self.take("W") || self.take("w")) {
            let week = self.number(2)?;
            if separator.is_some() && !self.take("-") {
                return None;
            }
            let weekday = u8::try_from(self.number(1)?.checked_sub(1)?).ok()?;
            return NaiveDate::from_isoywd_opt(year, week, Weekday::try_from(weekday).ok()?);
        }
        let Some(separator) = separator else {
            return NaiveDate::from_ymd_opt(year, self.number(2)?, self.number(2)?);
        };
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        if separator == "-" && digits == 3 {
            return NaiveDate::from_yo_opt(year, self.number(3)?);
        }
        let month = self.short_number(2)?;
        let is_parted = self.take_blanks() && separator == " ";
        if !is_parted && !self.take(separator) {
            return None;
        }
        self.take_blanks();
        let day = self.short_number(2)?;
        // `1990. 2. 1.`, as in Hungary and Korea.
        if separator == "." && (self.rest == "." || self.rest.starts_with(". ")) {
            self.take(".");
        }
        NaiveDate::from_ymd_opt(year, month, day)
    }

    /// `AM`, `p.m.`: the hour at which this half of the day begins.
    fn half_of_day(&mut self) -> Option<u32> {
        [("am", 0), ("a.m.", 0), ("pm", 12), ("p.m.", 12)].into_iter().find_map(|(sign, first_hour)| {
            let (said, rest) = self.rest.split_at_checked(sign.len())?;
            let is_said = said.eq_ignore_ascii_case(sign) && (rest.is_empty() || rest.starts_with(' '));
            is_said.then(|| {
                self.rest = rest;
                first_hour
            })
        })
    }

    /// `13:05`, `13:05:00`, `13:05:00.123`, `24:00`, with colons or without, `1:05 PM`, as time since midnight.
    fn time(&mut self) -> Option<TimeDelta> {
        let hours = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let hour = if hours == 1 { self.number(1)? } else { self.number(2)? };
        let has_colons = self.take(":");
        if hours == 1 && !has_colons {
            return None;
        }
        let minute = self.number(2)?;
        let has_seconds =
            if has_colons { self.take(":") } else { self.rest.starts_with(|c: char| c.is_ascii_digit()) };
        let second = if has_seconds { self.number(2)? } else { 0 };
        // A leap second is the first one of the next minute, and 24:00 the end of the day (ISO 8601).
        let is_end_of_day = hour == 24 && minute == 0 && second == 0;
        if (hour > 23 && !is_end_of_day) || minute > 59 || second > 60 {
            return None;
        }
        let mut nanoseconds = 0;
        if has_seconds && (self.take(".") || self.take(",")) {
            let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, rest) = self.rest.split_at_checked(length).filter(|_| length > 0)?;
            // BSON cuts off what is finer than milliseconds, but two texts that differ in it are two moments.
            nanoseconds = format!("{fraction:0<9}").get(..9)?.parse::<i64>().ok()?;
            self.rest = rest;
        }
        if is_end_of_day && nanoseconds > 0 {
            return None;
        }
        self.take_blanks();
        let hour = match self.half_of_day() {
            Some(first_hour) => (has_colons && (1..=12).contains(&hour)).then_some(hour % 12 + first_hour)?,
            None => hour,
        };
        let seconds = TimeDelta::seconds(i64::from(hour * 3600 + minute * 60 + second));
        Some(seconds + TimeDelta::nanoseconds(nanoseconds))
    }
}

/// The moment of a BSON date, if it lies within the years that a calendar has.
pub(super) fn utc_of(date: bson::DateTime) -> Option<NaiveDateTime> {
    Some(DateTime::from_timestamp_millis(date.timestamp_millis())?.naive_utc())
}

#[cfg(test)]
mod tests;
