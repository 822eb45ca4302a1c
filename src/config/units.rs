//! Floor 5. Sizes and times as people write them: `"32 MiB"`, `"10 minutes"`. A number alone has the unit that the
//! key's name ends with.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserializer;
use serde::de::{Error, Visitor};

const DAY_S: u64 = 24 * 60 * 60;

/// Bytes.
pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(Quantity { what: "a size, as 1048576 or \"1 MiB\"", read: read_bytes })
}

/// Seconds.
pub(super) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(Quantity { what: "seconds, as 90 or \"1m 30s\"", read: |text| read_whole(text, 1) })
}

/// Days.
pub(super) fn days<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let what = "whole days, as 30 or \"30 days\"";
    let days = from.deserialize_any(Quantity { what, read: |text| read_whole(text, DAY_S) })?;
    u32::try_from(days).map_err(|_| D::Error::custom("more days than can be counted"))
}

fn read_bytes(text: &str) -> Option<u64> {
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// How many units of so many seconds the time has, if none is broken.
fn read_whole(text: &str, unit_s: u64) -> Option<u64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let time = humantime::parse_duration(text).ok()?;
    let units = time.as_secs() / unit_s;
    (Duration::from_secs(units * unit_s) == time).then_some(units)
}

struct Quantity {
    what: &'static str,
    read: fn(&str) -> Option<u64>,
}

impl Visitor<'_> for Quantity {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::custom(format!("is negative; expected {}", self.what)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        // What is written in the file is not repeated here: see `layers`.
        (self.read)(text.trim()).ok_or_else(|| E::custom(format!("cannot be read as {}", self.what)))
    }
}

/// The size in the largest unit that it is a whole number of: `64 MiB`.
pub(super) fn shown_bytes(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (bytes, 0);
    while number >= 1024 && number.is_multiple_of(1024) && unit + 1 < units.len() {
        (number, unit) = (number / 1024, unit + 1);
    }
    format!("{number} {}", units.get(unit).unwrap_or(&"bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("32MB", 32_000_000),
            ("32 MB", 32_000_000),
            ("32mb", 32_000_000),
            ("32MiB", 32 << 20),
            ("1.5 GiB", 3 << 29),
            ("64 KiB", 64 << 10),
            ("1 TiB", 1 << 40),
        ] {
            assert_eq!(read_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "-5 MB", "five", "5 parsecs", "5 MB more", "1,5 MB"] {
            assert_eq!(read_bytes(text), None, "{text}");
        }
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("1m 30s", 90), ("10 minutes", 600), ("1 day", DAY_S)]
        {
            assert_eq!(read_whole(text, 1), Some(seconds), "{text}");
        }
        for text in ["", "soon", "-1s", "500ms", "1 lightyear"] {
            assert_eq!(read_whole(text, 1), None, "{text}");
        }
        assert_eq!(read_whole("2 weeks", DAY_S), Some(14));
        assert_eq!(read_whole("36 hours", DAY_S), None, "a day and a half");
        assert_eq!(shown_bytes(64 << 20), "64 MiB");
        assert_eq!(shown_bytes(1000), "1000 bytes");
    }
}
