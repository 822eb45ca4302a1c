//! Floor 2. How many writes, and bytes with them, an account may make before it has to wait, and how many reads of other
//! people's records.
//!
//! Each of them leaves an entry in the audit trail, which is kept for more than a year, and bytes stay in records and
//! attachments, so an account that may write, or read everybody's records, may fill the disk. Each account has a store of
//! writes and bytes, and one of reads, that fill again with time, by a clock that nobody sets.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const DAY_S: f64 = 24.0 * 60.0 * 60.0;
const MIB: f64 = 1_048_576.0;
/// Accounts whose writes are counted at once; those that have all theirs are forgotten first.
const COUNTED_MAX: usize = 4_096;

/// Who is writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// An account that writes its own records.
    Own,
    /// An account that writes everybody's records: staff, the HMIS, an import.
    Everybody,
    /// An account that reads records of others. Counted apart from writes.
    Reader,
}

impl Writer {
    /// Writes at once, and how many come back in a second.
    ///
    /// Own: an app that was offline for a year sends some hundred pages at once, and a person makes some tens on a
    /// day. Everybody's: an HMIS or an import sends some thousand a minute for hours; one node makes some two hundred a
    /// second. Reader: an HMIS that takes over everything from a node with the records of a district asks for some hundred
    /// thousand records one by one, and then for what has changed.
    fn writes(self) -> Figures {
        match self {
            Writer::Own => Figures::new(OWN_WRITES_MAX, f64::from(OWN_WRITES_PER_DAY) / DAY_S),
            Writer::Everybody => {
                Figures::new(EVERYBODYS_WRITES_MAX, f64::from(EVERYBODYS_WRITES_PER_MINUTE) / 60.0)
            }
            Writer::Reader => Figures::new(OTHERS_READS_MAX, f64::from(OTHERS_READS_PER_MINUTE) / 60.0),
        }
    }

    /// MiB of bodies at once, and how many come back in a second.
    ///
    /// Own: somebody photographs ten letters of 3 to 6 MB in an evening, and no app writes as much text. Everybody's: a
    /// day of an X-ray room is 100 pictures of 10 to 30 MB; scans of a year's paper, or an HMIS that moves in, send more, and go on
    /// for days.
    fn bytes(self) -> Figures {
        let (max, per_day) = match self {
            Writer::Own => (OWN_MIB_MAX, OWN_MIB_PER_DAY),
            Writer::Everybody => (EVERYBODYS_MIB_MAX, EVERYBODYS_MIB_PER_DAY),
            Writer::Reader => (0, 0),
        };
        Figures { max: f64::from(max) * MIB, per_s: f64::from(per_day) * MIB / DAY_S }
    }
}

/// How much of something there is at once, and how much comes back in a second.
#[derive(Clone, Copy)]
struct Figures {
    max: f64,
    per_s: f64,
}

impl Figures {
    fn new(max: u32, per_s: f64) -> Figures {
        Figures { max: f64::from(max), per_s }
    }

    fn filled(self, left: f64, passed: Duration) -> f64 {
        (left + passed.as_secs_f64() * self.per_s).min(self.max)
    }

    /// An error where `left` is not as much as is wanted, or all that there can be: after how many seconds it is.
    fn check(self, left: f64, wanted: f64) -> Result<(), u64> {
        let missing = wanted.min(self.max) - left;
        if missing <= 0.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(missing / self.per_s).as_secs() + 1)
    }
}

/// Writes of an account without `global`, at once and in a day.
const OWN_WRITES_MAX: u32 = 2_000;
const OWN_WRITES_PER_DAY: u32 = 5_000;
/// Writes of an account with `global`, at once and in a minute.
const EVERYBODYS_WRITES_MAX: u32 = 60_000;
const EVERYBODYS_WRITES_PER_MINUTE: u32 = 6_000;

/// MiB that an account without `global` sends, at once and in a day.
pub const OWN_MIB_MAX: u32 = 64;
pub const OWN_MIB_PER_DAY: u32 = 256;
/// MiB that an account with `global` sends, at once and in a day.
pub const EVERYBODYS_MIB_MAX: u32 = 4 << 10;
pub const EVERYBODYS_MIB_PER_DAY: u32 = 16 << 10;

/// Reads of other people's records that one account has entries of, at once and in a minute.
const OTHERS_READS_MAX: u32 = 250_000;
const OTHERS_READS_PER_MINUTE: u32 = 3_000;

struct Left {
    writes: f64,
    /// Below nothing after a body that is larger than all that there can be.
    bytes: f64,
    at: Instant,
    writer: Writer,
}

impl Left {
    fn all_of(writer: Writer, at: Instant) -> Left {
        Left { writes: writer.writes().max, bytes: writer.bytes().max, at, writer }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.writes = self.writer.writes().filled(self.writes, passed);
        self.bytes = self.writer.bytes().filled(self.bytes, passed);
        self.at = now;
    }

    fn is_all(&self) -> bool {
        self.writes >= self.writer.writes().max && self.bytes >= self.writer.bytes().max
    }
}

/// What every account has left.
pub struct Writes {
    left: Mutex<HashMap<String, Left>>,
    clock: fn() -> Instant,
}

impl Writes {
    pub(super) fn new(clock: fn() -> Instant) -> Writes {
        Writes { left: Mutex::default(), clock }
    }

    /// Takes one write of `who`. If there is none left: after how many seconds there is one.
    pub fn take(&self, who: &str, writer: Writer) -> Result<(), u64> {
        self.with(who, writer, |left| {
            writer.writes().check(left.writes, 1.0)?;
            left.writes -= 1.0;
            Ok(())
        })
    }

    /// Takes so many bytes of `who`. If there are not as many left: after how many seconds there are. A body larger than all
    /// that there can be is taken when all is there, and counts in full.
    pub fn take_bytes(&self, who: &str, writer: Writer, bytes: u64) -> Result<(), u64> {
        self.with(who, writer, |left| {
            writer.bytes().check(left.bytes, bytes as f64)?;
            left.bytes -= bytes as f64;
            Ok(())
        })
    }

    /// Whether [`Writes::take_bytes`] would take them, without taking any.
    pub fn check_bytes(&self, who: &str, writer: Writer, bytes: u64) -> Result<(), u64> {
        self.with(who, writer, |left| writer.bytes().check(left.bytes, bytes as f64))
    }

    fn with<T>(&self, who: &str, writer: Writer, take: impl FnOnce(&mut Left) -> T) -> T {
        let now = (self.clock)();
        let mut accounts = self.lock();
        if accounts.len() >= COUNTED_MAX && !accounts.contains_key(who) {
            accounts.retain(|_, left| {
                left.fill(now);
                !left.is_all()
            });
        }
        let left = accounts.entry(who.to_owned()).or_insert_with(|| Left::all_of(writer, now));
        left.writer = writer;
        left.fill(now);
        take(left)
    }

    /// A write that was taken, with so many bytes, has changed nothing.
    pub fn give_back(&self, who: &str, bytes: u64) {
        if let Some(left) = self.lock().get_mut(who) {
            left.writes += 1.0;
            left.bytes += bytes as f64;
        }
    }

    /// Changes under this lock are single calls, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::*;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    thread_local! {
        static PASSED_S: Cell<u64> = const { Cell::new(0) };
    }

    fn clock() -> Instant {
        *START + Duration::from_secs(PASSED_S.get())
    }

    fn pass(s: u64) {
        PASSED_S.set(PASSED_S.get() + s);
    }

    /// How many are let through of so many.
    fn taken(writes: &Writes, who: &str, writer: Writer, tries: u32) -> u32 {
        (0..tries).filter(|_| writes.take(who, writer).is_ok()).count() as u32
    }

    #[test]
    fn a_flood_of_one_waits_and_the_others_do_not() {
        let writes = Writes::new(clock);
        assert_eq!(taken(&writes, "ANA", Writer::Own, 10_400), 2_000);
        assert_eq!(writes.take("ANA", Writer::Own), Err(18), "5,000 a day");
        assert_eq!(taken(&writes, "BOB", Writer::Own, 10), 10);
        pass(18);
        assert_eq!(taken(&writes, "ANA", Writer::Own, 10), 1);
        pass(24 * 60 * 60);
        assert_eq!(taken(&writes, "ANA", Writer::Own, 10_400), 2_000, "not more than at first");
        for _ in 0..5 {
            assert!(writes.take("ANA", Writer::Own).is_err());
            writes.give_back("ANA", 0);
            assert!(writes.take("ANA", Writer::Own).is_ok(), "what changed nothing does not count");
        }
    }

    #[test]
    fn bytes_of_one_run_out_and_come_back() {
        let writes = Writes::new(clock);
        let mib = |count: u64| count << 20;
        let take = |who: &str, writer: Writer, bytes: u64| writes.take_bytes(who, writer, bytes);
        let sent = (0..2_000).filter(|_| take("ANA", Writer::Own, mib(1)).is_ok()).count();
        assert_eq!(sent, 64);
        assert_eq!(take("ANA", Writer::Own, mib(1)), Err(338), "256 MiB a day");
        assert_eq!(writes.check_bytes("ANA", Writer::Own, mib(1)), Err(338));
        assert_eq!(take("BOB", Writer::Own, mib(5)), Ok(()));
        assert!(writes.take("ANA", Writer::Own).is_ok(), "it may still write what takes nothing");
        pass(338);
        assert_eq!(take("ANA", Writer::Own, mib(1)), Ok(()));
        writes.give_back("ANA", mib(1));
        assert_eq!(take("ANA", Writer::Own, mib(1)), Ok(()), "what changed nothing does not count");
        pass(24 * 60 * 60);
        // More than there ever is goes once all is there, and is owed then.
        assert_eq!(take("ANA", Writer::Own, mib(100)), Ok(()));
        assert_eq!(take("ANA", Writer::Own, 1), Err(12_151));
        pass(12_151);
        assert_eq!(take("ANA", Writer::Own, 1), Ok(()));
        // A day of an X-ray room, and what one of them may write in all.
        let pictures = (0..1_000).filter(|_| take("DOC", Writer::Everybody, mib(30)).is_ok()).count();
        assert_eq!(pictures, 136);
    }

    #[test]
    fn thousands_a_minute_go_on_for_who_writes_for_everybody() {
        let writes = Writes::new(clock);
        for _ in 0..600 {
            assert_eq!(taken(&writes, "hmis@local", Writer::Everybody, 6_000), 6_000);
            pass(60);
        }
        assert_eq!(taken(&writes, "hmis@local", Writer::Everybody, 100_000), 60_000);
        assert_eq!(writes.take("hmis@local", Writer::Everybody), Err(1));
    }

    #[test]
    fn nobody_makes_it_hold_more_than_so_many() {
        let writes = Writes::new(clock);
        for number in 0..COUNTED_MAX + 10 {
            writes.take(&format!("P{number}"), Writer::Own).unwrap();
            pass(20);
        }
        assert!(writes.lock().len() <= COUNTED_MAX);
    }
}
