//! Floor 1. What the writer remembers between transactions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};

use crate::domain::audit::Event;
use crate::domain::record::RecordKey;
use crate::store::rows::Ledger;

/// Of the name of a process.
const BOOT_NAME_CHARS: usize = 12;

/// Changes of one record by one account that have an entry each in a minute: one in a second, which is more than people
/// and forms make.
const REPEATS_EACH_MAX: u32 = 60;
/// How long changes are counted together.
pub(in crate::store) const WINDOW_MS: i64 = 60_000;
/// Records whose changes are counted at once; more are counted from the beginning.
const COUNTED_MAX: usize = 16_384;

/// What the writer remembers between transactions.
pub(crate) struct Carry {
    /// Name of this process among those that edited the store.
    pub(crate) boot: String,
    /// Whether a change of this process has been written, and whether one has been committed.
    pub(crate) is_boot_written: bool,
    pub(crate) is_boot_kept: bool,
    /// The number of the last change that this process found in the store.
    pub(crate) found: Option<u64>,
    /// Counts the intents opened and settled in this process.
    pub(crate) touches: u64,
    /// The count at which a record's intent was last opened or settled: a read sent before that must not be
    /// applied.
    pub(crate) touched: HashMap<RecordKey, u64>,
    /// Where damaged rows are noted.
    pub(crate) ledger: Arc<Ledger>,
    /// So many people who are gone may be remembered before it is looked again who can be forgotten.
    pub(crate) departed_max: u64,
    /// Records that are to be read again, and that a damaged row has kept from being taken in this process.
    pub(crate) stopped: BTreeSet<RecordKey>,
    /// How often records were changed in the present minute.
    pub(crate) repeats: Repeats,
    /// Entries of the audit trail that are younger than this stay.
    pub(crate) audit_keep_ms: Arc<AtomicI64>,
    /// Whether it does not count that a person came here inactive.
    pub(crate) ignores_active: Arc<AtomicBool>,
}

impl Default for Carry {
    fn default() -> Carry {
        let boot = crate::flaw::fresh_id().simple().to_string();
        Carry {
            boot: boot[..BOOT_NAME_CHARS].to_owned(),
            is_boot_written: false,
            is_boot_kept: false,
            found: None,
            touches: 0,
            touched: HashMap::new(),
            departed_max: 0,
            stopped: BTreeSet::new(),
            ledger: Arc::default(),
            repeats: Repeats::default(),
            audit_keep_ms: Arc::default(),
            ignores_active: Arc::default(),
        }
    }
}

impl Carry {
    /// The number of the last change of earlier processes.
    pub(in crate::store) fn found(&self) -> u64 {
        self.found.unwrap_or_default()
    }
}

/// How often records were changed in the present minute, known to the writer only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repeats {
    since_ms: i64,
    counts: HashMap<Event, u32>,
}

impl Repeats {
    /// Counts a change; true if it has no entry of its own.
    pub(in crate::store) fn is_one_too_many(&mut self, event: &Event, now_ms: i64) -> bool {
        let is_over = !(self.since_ms..self.since_ms.saturating_add(WINDOW_MS)).contains(&now_ms);
        if is_over || self.counts.len() >= COUNTED_MAX {
            (self.since_ms, self.counts) = (now_ms, HashMap::new());
        }
        let count = self.counts.entry(bare(event)).or_default();
        *count = count.saturating_add(1);
        *count > REPEATS_EACH_MAX
    }
}

/// Who does what to which record.
pub(in crate::store) fn bare(event: &Event) -> Event {
    Event { peer: String::new(), paths: Vec::new(), detail: String::new(), ..event.clone() }
}
