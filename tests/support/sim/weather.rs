//! What goes wrong between a node and the simulated centre: by name where a test says so, and at random by seed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::support::generator::Numbers;

/// What goes wrong with one call.
pub(crate) enum Fault {
    /// It never arrives.
    LostRequest,
    /// It is carried out, and nobody hears of it.
    LostAnswer,
    /// It is carried out later, when the test says so, and nobody hears of it.
    Late,
    /// Some of a batch is carried out, and nobody hears which.
    HalfDone,
    /// It is carried out, and the answer says no more than that there is one.
    Unanswered,
    /// The feed tells no more: its history broke.
    FeedBroken,
    /// It takes so long to arrive.
    Slow(Duration),
    /// Its answer takes so long.
    SlowAnswer(Duration),
    /// Something else happens after it was carried out and before the answer arrives.
    Meanwhile(BoxFuture<'static, ()>),
    /// Something else happens before it is carried out.
    Before(BoxFuture<'static, ()>),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::LostRequest => "(lost)",
            Fault::LostAnswer => "(answer lost)",
            Fault::Late => "(late)",
            Fault::HalfDone => "(half done)",
            Fault::Unanswered => "(unanswered)",
            Fault::FeedBroken => "(feed broken)",
            Fault::Slow(_) => "(slow)",
            Fault::SlowAnswer(_) => "(slow answer)",
            Fault::Meanwhile(_) => "(something meanwhile)",
            Fault::Before(_) => "(something before)",
        })
    }
}

/// What a node asks of the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Open,
    Fetch,
    Identities,
    Scan,
    ScanNext,
    LargeIds,
    Count,
    Watch,
    FeedNext,
    UnsupportedIds,
    Write,
    Archive,
    SettleArchive,
    PublishConflicts,
    Resolutions,
    WaitingConflicts,
    AnswerConflicts,
    TakeLease,
    NodeRow,
    Report,
}

impl Call {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Call::Open => "open",
            Call::Fetch => "fetch",
            Call::Identities => "identities",
            Call::Scan => "scan",
            Call::ScanNext => "scan_next",
            Call::LargeIds => "large_ids",
            Call::Count => "count",
            Call::Watch => "watch",
            Call::FeedNext => "feed_next",
            Call::UnsupportedIds => "unsupported_ids",
            Call::Write => "write",
            Call::Archive => "archive",
            Call::SettleArchive => "settle_archive",
            Call::PublishConflicts => "publish_conflicts",
            Call::Resolutions => "resolutions",
            Call::WaitingConflicts => "waiting_conflicts",
            Call::AnswerConflicts => "answer_conflicts",
            Call::TakeLease => "take_lease",
            Call::NodeRow => "node_row",
            Call::Report => "report",
        }
    }

    fn changes_something(self) -> bool {
        use Call::{AnswerConflicts, Archive, PublishConflicts, Report, SettleArchive, TakeLease, Write};
        matches!(
            self,
            Write | Archive | SettleArchive | PublishConflicts | AnswerConflicts | TakeLease | Report
        )
    }
}

/// How often what goes wrong by itself: of a thousand calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    pub(crate) lost_request: u64,
    pub(crate) lost_answer: u64,
    pub(crate) late: u64,
    pub(crate) half_done: u64,
    pub(crate) unanswered: u64,
    pub(crate) feed_broken: u64,
    pub(crate) slow: u64,
    /// Longest that a slow call or its answer takes, in seconds.
    pub(crate) slow_seconds_max: u64,
    /// Longest that a request or an answer usually travels, in milliseconds.
    pub(crate) latency_ms_max: u64,
}

/// The weather over the lines to the centre.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub(crate) rates: Rates,
    numbers: Numbers,
    /// How often each fault happened.
    pub(crate) happened: BTreeMap<&'static str, u64>,
}

impl Default for Weather {
    fn default() -> Weather {
        Weather::new(0, Rates::default())
    }
}

impl Weather {
    pub(crate) fn new(seed: u64, rates: Rates) -> Weather {
        Weather { rates, numbers: Numbers::new(seed), happened: BTreeMap::new() }
    }

    pub(crate) fn count(&mut self, fault: &'static str) {
        *self.happened.entry(fault).or_default() += 1;
    }

    fn strikes(&mut self, fault: &'static str, rate: u64) -> bool {
        let strikes = rate > 0 && self.numbers.below(1000) < rate;
        if strikes {
            self.count(fault);
        }
        strikes
    }

    /// What goes wrong with this call, if anything does.
    pub(super) fn fault(&mut self, call: Call) -> Option<Fault> {
        let rates = self.rates.clone();
        if self.strikes("lost request", rates.lost_request) {
            return Some(Fault::LostRequest);
        }
        if self.strikes("lost answer", rates.lost_answer) {
            return Some(Fault::LostAnswer);
        }
        if call.changes_something() && self.strikes("late write", rates.late) {
            return Some(Fault::Late);
        }
        if call == Call::Write && self.strikes("half done", rates.half_done) {
            return Some(Fault::HalfDone);
        }
        if call == Call::Write && self.strikes("unanswered", rates.unanswered) {
            return Some(Fault::Unanswered);
        }
        if self.strikes("slow", rates.slow) {
            let time = Duration::from_millis(1000 + self.numbers.below(rates.slow_seconds_max * 1000));
            return Some(if self.numbers.chance(50) { Fault::Slow(time) } else { Fault::SlowAnswer(time) });
        }
        None
    }

    /// Whether the feed breaks here.
    pub(super) fn feed_breaks(&mut self) -> bool {
        self.strikes("feed broken", self.rates.feed_broken)
    }

    /// How long a request or an answer travels.
    pub(super) fn latency(&mut self) -> Duration {
        match self.rates.latency_ms_max {
            0 => Duration::ZERO,
            max => Duration::from_millis(1 + self.numbers.below(max)),
        }
    }

    /// A number for whatever else is left to chance.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.numbers.below(limit)
    }
}
