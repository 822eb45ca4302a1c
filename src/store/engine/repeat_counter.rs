//! Floor 1. Counts how often an account changed one record in the present minute; only the writer knows it.

use std::collections::HashMap;

use crate::domain::audit::Event;

/// Changes of one record by one account that have an entry each in a minute: one in a second, which is more than people
/// and forms make.
const REPEATS_EACH_MAX: u32 = 60;
pub(in crate::store) const WINDOW_MS: i64 = 60_000;
/// Records whose changes are counted at once; more are counted from the beginning.
const COUNTED_MAX: usize = 16_384;

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
