//! What a seed has in store for its run.

use super::edits::{FIELDS, RECORDS};
use super::support::generator::Numbers;
use super::support::sim::CentreFlaw;
use super::support::sim::weather::Rates;

/// What goes wrong by name, besides what the weather does to single calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    ClockSkew,
    /// The node dies at a named step, or at any call.
    Kill,
    PowerCut,
    /// The power fails in the middle of a write to the disk.
    TornWrite,
    DiskFull,
    /// A request whose answer nobody waits for any more is carried out.
    Zombie,
    HistoryTruncated,
    Upheaval,
    /// No trouble, but a pass over everything.
    Verification,
    Clone,
    RolledBack,
    /// The centre is set back to an older copy of itself.
    CentreRestored,
    /// The centre refuses a person for a time.
    Refusal,
    /// The centre dies and comes back, perhaps without what it acknowledged last.
    CentreCrash,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) operations: usize,
    pub(crate) pause_ms_max: u64,
    pub(crate) is_standalone: bool,
    pub(crate) answer_max: usize,
    /// Of a hundred nodes so many stay connected.
    pub(crate) continuous_percent: u64,
    pub(crate) rates: Rates,
    pub(crate) troubles: Vec<Trouble>,
    /// Names of the places where a node can die.
    pub(crate) steps: Vec<String>,
    pub(crate) centre_flaw: Option<CentreFlaw>,
    /// The centre acknowledges batches of writes before they are on its disk.
    pub(crate) is_lazy: bool,
    /// The centre accepts a position in its feed that lies ahead of everything that happened.
    pub(crate) accepts_positions_ahead: bool,
    /// In the end nobody waits for a decision any more.
    pub(crate) decides_holds: bool,
    /// Everybody is connected and works on the same.
    pub(crate) is_crowded: bool,
    /// Nothing but old images comes between.
    pub(crate) is_calm: bool,
    /// Of all records and fields so many are worked on.
    pub(crate) records: usize,
    pub(crate) fields: usize,
    /// With every word between nodes and centre.
    pub(crate) is_told: bool,
}

impl Plan {
    pub(crate) fn of(seed: u64, steps: &[String]) -> Plan {
        let mut numbers = Numbers::new(seed.wrapping_mul(0x9E37).wrapping_add(77));
        let rate = |numbers: &mut Numbers, percent: u64, max: u64| {
            if numbers.chance(percent) { 1 + numbers.below(max) } else { 0 }
        };
        let n = &mut numbers;
        let is_standalone = n.chance(30);
        let rates = Rates {
            lost_request: rate(n, 50, 20),
            lost_answer: rate(n, 50, 20),
            late: rate(n, 30, 60),
            half_done: rate(n, 30, 40),
            unanswered: rate(n, 30, 150),
            feed_broken: rate(n, 20, 10),
            slow: rate(n, 20, 4),
            slow_seconds_max: 90,
            latency_ms_max: 2 + n.below(120),
        };
        let mut troubles = Vec::new();
        for (trouble, percent) in [
            (Trouble::ClockSkew, 50),
            (Trouble::Kill, 60),
            (Trouble::PowerCut, 30),
            (Trouble::TornWrite, 20),
            (Trouble::DiskFull, 20),
            (Trouble::HistoryTruncated, 30),
            (Trouble::Upheaval, 20),
            (Trouble::Clone, 20),
            (Trouble::RolledBack, 25),
            (Trouble::CentreRestored, 15),
            (Trouble::CentreCrash, 20),
            (Trouble::Refusal, 15),
        ] {
            if n.chance(percent) {
                troubles.push(trouble);
            }
        }
        if rates.late > 0 {
            troubles.extend([Trouble::Zombie; 2]);
        }
        let mut plan = Plan {
            seed,
            nodes: 3 + usize::try_from(n.below(3)).expect("a number"),
            operations: 30 + usize::try_from(n.below(40)).expect("a number"),
            pause_ms_max: 50 + n.below(800),
            is_standalone,
            answer_max: 1 + usize::try_from(n.below(3)).expect("a number"),
            continuous_percent: *n.pick(&[0, 0, 50, 100]),
            rates,
            troubles,
            steps: steps.to_vec(),
            centre_flaw: None,
            is_lazy: n.chance(50),
            accepts_positions_ahead: n.chance(50),
            decides_holds: n.chance(70),
            is_crowded: false,
            is_calm: false,
            records: RECORDS.len(),
            fields: FIELDS.len(),
            is_told: false,
        };
        if n.chance(30) {
            plan.crowd(n);
        } else if n.chance(10) {
            plan.calm();
        }
        plan
    }

    /// Everybody is connected and works on the same, over slow lines, and the centre can prove what happened:
    /// for what goes wrong only where reads and writes of one record overlap.
    pub(crate) fn crowd(&mut self, n: &mut Numbers) {
        use Trouble::{ClockSkew, DiskFull, Kill, PowerCut, TornWrite};
        self.nodes = 2 + usize::try_from(n.below(2)).expect("a number");
        self.records = 1 + usize::try_from(n.below(2)).expect("a number");
        self.fields = 1 + usize::try_from(n.below(2)).expect("a number");
        self.operations += 80;
        self.is_crowded = true;
        self.pause_ms_max = 50 + n.below(300);
        self.is_standalone = false;
        self.continuous_percent = 100;
        self.rates = Rates {
            late: 0,
            feed_broken: 0,
            slow: 100,
            slow_seconds_max: 2,
            latency_ms_max: 20 + n.below(200),
            lost_request: self.rates.lost_request / 4,
            lost_answer: self.rates.lost_answer / 4,
            ..self.rates.clone()
        };
        self.troubles.retain(|trouble| matches!(trouble, ClockSkew | DiskFull | Kill | PowerCut | TornWrite));
    }

    /// Nothing goes wrong but that disks are set back to older images: what was delivered from them is known.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
        self.is_standalone = false;
        self.operations += 40;
        self.continuous_percent = 0;
        self.rates = Rates { latency_ms_max: self.rates.latency_ms_max, ..Rates::default() };
        self.troubles = vec![Trouble::RolledBack; 4];
    }

    pub(crate) fn has(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }

    /// Whether stores may fail.
    pub(crate) fn is_disk_failing(&self) -> bool {
        self.has(Trouble::DiskFull) || self.has(Trouble::TornWrite)
    }
}
