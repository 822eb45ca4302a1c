//! Floor 2. How many writes an account may make before it has to wait, and how many reads of other people's records.
//!
//! Each of them leaves an entry in the audit trail, which is kept for more than a year, so an account that may write, or read
//! everybody's records, may fill the disk. Each account has a store of writes, and one of reads, that fills again with time, by a clock that nobody sets.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const DAY_S: f64 = 24.0 * 60.0 * 60.0;
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
    fn figures(self) -> (f64, f64) {
        match self {
            Writer::Own => (f64::from(OWN_WRITES_MAX), f64::from(OWN_WRITES_PER_DAY) / DAY_S),
            Writer::Everybody => {
                (f64::from(EVERYBODYS_WRITES_MAX), f64::from(EVERYBODYS_WRITES_PER_MINUTE) / 60.0)
            }
            Writer::Reader => (f64::from(OTHERS_READS_MAX), f64::from(OTHERS_READS_PER_MINUTE) / 60.0),
        }
    }
}

/// Writes of an account without `global`, at once and in a day.
pub const OWN_WRITES_MAX: u32 = 2_000;
pub const OWN_WRITES_PER_DAY: u32 = 5_000;
/// Writes of an account with `global`, at once and in a minute.
pub const EVERYBODYS_WRITES_MAX: u32 = 60_000;
pub const EVERYBODYS_WRITES_PER_MINUTE: u32 = 6_000;

/// Reads of other people's records that one account has entries of, at once and in a minute.
pub const OTHERS_READS_MAX: u32 = 250_000;
pub const OTHERS_READS_PER_MINUTE: u32 = 3_000;

struct Left {
    writes: f64,
    at: Instant,
    writer: Writer,
}

impl Left {
    fn fill(&mut self, now: Instant) {
        let (max, per_s) = self.writer.figures();
        let passed = now.saturating_duration_since(self.at);
        (self.writes, self.at) = ((self.writes + passed.as_secs_f64() * per_s).min(max), now);
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
        let now = (self.clock)();
        let (max, per_s) = writer.figures();
        let mut accounts = self.lock();
        if accounts.len() >= COUNTED_MAX && !accounts.contains_key(who) {
            accounts.retain(|_, left| {
                left.fill(now);
                left.writes < left.writer.figures().0
            });
        }
        let left = accounts.entry(who.to_owned()).or_insert(Left { writes: max, at: now, writer });
        left.writer = writer;
        left.fill(now);
        if left.writes < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - left.writes) / per_s);
            return Err(wait.as_secs() + 1);
        }
        left.writes -= 1.0;
        Ok(())
    }

    /// A write that was taken has changed nothing.
    pub fn give_back(&self, who: &str) {
        if let Some(left) = self.lock().get_mut(who) {
            left.writes += 1.0;
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
        assert_eq!(taken(&writes, "ANA", Writer::Own, 10_400), OWN_WRITES_MAX);
        assert_eq!(writes.take("ANA", Writer::Own), Err(18), "5,000 a day");
        assert_eq!(taken(&writes, "BOB", Writer::Own, 10), 10);
        pass(18);
        assert_eq!(taken(&writes, "ANA", Writer::Own, 10), 1);
        pass(24 * 60 * 60);
        assert_eq!(taken(&writes, "ANA", Writer::Own, 10_400), OWN_WRITES_MAX, "not more than at first");
        for _ in 0..5 {
            assert!(writes.take("ANA", Writer::Own).is_err());
            writes.give_back("ANA");
            assert!(writes.take("ANA", Writer::Own).is_ok(), "what changed nothing does not count");
        }
    }

    #[test]
    fn thousands_a_minute_go_on_for_who_writes_for_everybody() {
        let writes = Writes::new(clock);
        for _ in 0..600 {
            assert_eq!(taken(&writes, "hmis@local", Writer::Everybody, 6_000), 6_000);
            pass(60);
        }
        assert_eq!(taken(&writes, "hmis@local", Writer::Everybody, 100_000), EVERYBODYS_WRITES_MAX);
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
