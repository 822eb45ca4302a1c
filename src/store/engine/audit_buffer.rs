//! Floor 1. Audit events that wait in memory for their entries: reads, and requests that were refused.
//!
//! Noting costs no transaction. Notes lie in memory until somebody flushes them, once a second; the same event
//! within a minute becomes one entry at once, and one for all its repeats when the minute is over. Nothing here
//! grows without end: what does not fit is counted as a gap, but a read waits until there is room for it, so nobody hides
//! theirs behind many others; and strangers get only so many entries in a minute
//! before theirs are counted together. Whatever comes from one client ([`AddressPrefix`]) is the same event, whichever of
//! its addresses it came from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::access::Actor;
use crate::domain::address::AddressPrefix;
use crate::domain::audit::{Event, Times, What};
use crate::domain::record::Kind;
use crate::domain::schema::Owner;

/// Events of one minute, and entries that wait for a disk that fails.
pub(in crate::store) const NOTES_MAX: usize = 8192;
/// From so many on they are written out early.
const NOTES_CROWDED: usize = NOTES_MAX / 2;
/// How long repeats share an entry.
const WINDOW_MS: i64 = 60_000;
/// Different refusals in a minute to one address, or to one account that is logged in.
const REFUSALS_EACH_MAX: u32 = 16;
/// Different reads in a minute of what is their own, to one account. What others read of somebody is never put together.
const OWN_READS_MAX: u32 = 64;
/// Different reads in a minute, by one account, of what is no person's: institutions, lists of the node.
const OWNERLESS_READS_MAX: u32 = 256;
/// Beginnings and ends of sessions in a minute, from different clients, of one account.
const SESSIONS_EACH_MAX: u32 = 16;
/// Different refusals in a minute to all who are not logged in.
const REFUSALS_UNKNOWN_MAX: u32 = 64;

/// What is noted and not written.
#[derive(Default)]
pub(crate) struct Notes {
    pub(in crate::store) window: Mutex<Window>,
    /// Taken out of the window and not written yet; whoever holds it writes.
    pub(in crate::store) unwritten: tokio::sync::Mutex<Unwritten>,
    pub(in crate::store) crowded: Notify,
}

/// The present minute.
#[derive(Default)]
pub(in crate::store) struct Window {
    since_ms: Option<i64>,
    slots: HashMap<Event, Slot>,
    refused: HashMap<String, u32>,
    refused_unknown: u32,
    /// By account.
    counted: HashMap<(String, Counted), u32>,
    pub(in crate::store) lost: u64,
}

/// Events that have an entry of their own only so often in a minute, the same for every account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    OwnRead,
    /// A read of what is no person's.
    OwnerlessRead,
    Session,
}

impl Counted {
    fn of(event: &Event) -> Option<Counted> {
        match What::from_name(&event.verb)? {
            What::Login | What::Logoff | What::SessionEnd => Some(Counted::Session),
            What::Read | What::List if is_ownerless(event) => Some(Counted::OwnerlessRead),
            What::Read | What::List if is_own(event) => Some(Counted::OwnRead),
            _ => None,
        }
    }

    fn max(self) -> u32 {
        match self {
            Counted::OwnRead => OWN_READS_MAX,
            Counted::OwnerlessRead => OWNERLESS_READS_MAX,
            Counted::Session => SESSIONS_EACH_MAX,
        }
    }
}

fn is_read(event: &Event) -> bool {
    [What::Read.name(), What::List.name()].contains(&&*event.verb)
}

fn is_ownerless(event: &Event) -> bool {
    event.owner.is_empty()
        && Kind::from_collection(&event.kind).is_none_or(|kind| kind.schema().owner == Owner::Nobody)
}

fn is_own(event: &Event) -> bool {
    matches!(Actor::read(&event.who), Some(Actor::Person(own)) if own.eq_ignore_ascii_case(&event.owner))
}

struct Slot {
    /// Of what has no entry yet.
    times: Times,
    /// The one address of the client from which that came.
    peer: Option<String>,
    /// In which order they came.
    number: usize,
    has_entry: bool,
}

impl Slot {
    fn again(&mut self, now_ms: i64, peer: Option<String>) {
        if self.times.count == 0 {
            (self.times, self.peer) = (Times::once(now_ms), peer);
            return;
        }
        self.times = Times { until_ms: now_ms, count: self.times.count + 1, ..self.times };
        if self.peer != peer {
            self.peer = None;
        }
    }
}

#[derive(Default)]
pub(in crate::store) struct Unwritten {
    pub(in crate::store) entries: Vec<(Times, Event)>,
    pub(in crate::store) lost: u64,
}

/// Why an event was not noted.
#[derive(Debug)]
pub enum Unnoted {
    /// There is no room for it, nor for anything else until the notes are written.
    Full(Box<Event>),
    /// Its account has to wait so many seconds for its next entry.
    TooMany { retry_after_s: u64 },
}

/// Whom an address stands for.
pub(in crate::store) fn client_at(peer: &str) -> Cow<'_, str> {
    // An IPv4 address is a client, and the most frequent one.
    let address = Some(peer).filter(|peer| peer.contains(':')).and_then(|peer| peer.parse().ok());
    address.map_or(Cow::Borrowed(peer), |address| AddressPrefix::of(address).to_string().into())
}

/// Has the event come from the client instead of one of its addresses, which is returned.
fn take_address(event: &mut Event) -> Option<String> {
    match client_at(&event.peer) {
        Cow::Borrowed(_) => None,
        Cow::Owned(client) => Some(std::mem::replace(&mut event.peer, client)),
    }
}

impl Window {
    /// `take` is asked, with the account, before an entry is begun of something that it may read of others.
    pub(in crate::store) fn note(
        &mut self,
        mut event: Event,
        now_ms: i64,
        take: impl FnOnce(&str) -> Result<(), u64>,
    ) -> Result<(), Unnoted> {
        self.since_ms.get_or_insert(now_ms);
        let address = take_address(&mut event);
        if let Some(slot) = self.slots.get_mut(&event) {
            slot.again(now_ms, address);
            return Ok(());
        }
        let number = self.slots.len();
        if is_read(&event) {
            if number >= NOTES_MAX {
                let peer = address.unwrap_or_else(|| event.peer.clone());
                return Err(Unnoted::Full(Box::new(Event { peer, ..event })));
            }
            if Counted::of(&event).is_none() {
                take(&event.who).map_err(|retry_after_s| Unnoted::TooMany { retry_after_s })?;
            }
        }
        let event = self.bounded(event);
        let peer = address.filter(|_| !event.peer.is_empty());
        match self.slots.entry(event) {
            Entry::Occupied(mut slot) => slot.get_mut().again(now_ms, peer),
            Entry::Vacant(place) if number >= NOTES_MAX => {
                return Err(Unnoted::Full(Box::new(place.into_key())));
            }
            Entry::Vacant(place) => {
                place.insert(Slot { times: Times::once(now_ms), peer, number, has_entry: false });
            }
        }
        Ok(())
    }

    /// A new event as it is, or together with others if it is one too many.
    fn bounded(&mut self, event: Event) -> Event {
        if !What::from_name(&event.verb).is_some_and(What::is_refusal) {
            return self.bounded_each(event);
        }
        if Actor::read(&event.who) != Some(Actor::Nobody) {
            let refused = self.refused.entry(event.who.clone()).or_default();
            let is_one_too_many = one_too_many(refused, REFUSALS_EACH_MAX);
            return if is_one_too_many { nowhere(together(event)) } else { event };
        }
        if self.refused_unknown >= REFUSALS_UNKNOWN_MAX {
            return nowhere(together(event));
        }
        let refused = self.refused.entry(event.peer.clone()).or_default();
        if one_too_many(refused, REFUSALS_EACH_MAX) {
            return together(event);
        }
        self.refused_unknown += 1;
        event
    }

    /// An event of an account that has its own entry only so often.
    fn bounded_each(&mut self, event: Event) -> Event {
        let Some(what) = Counted::of(&event) else {
            return event;
        };
        let count = self.counted.entry((event.who.clone(), what)).or_default();
        if !one_too_many(count, what.max()) {
            return event;
        }
        let owner = event.owner.clone();
        Event { owner, ..nowhere(together(event)) }
    }

    /// Whether there are so many events that they should be written early.
    pub(in crate::store) fn is_crowded(&self) -> bool {
        self.slots.len() >= NOTES_CROWDED
    }

    fn is_over(&self, now_ms: i64) -> bool {
        // The clock of a box may also go back.
        self.since_ms.is_some_and(|since| !(since..since + WINDOW_MS).contains(&now_ms))
    }

    /// What is to be written now.
    pub(in crate::store) fn take(&mut self, now_ms: i64) -> Unwritten {
        let (is_over, is_crowded) = (self.is_over(now_ms), self.is_crowded());
        let mut taken = Vec::new();
        for (event, slot) in &mut self.slots {
            if slot.times.count > 0 && (!slot.has_entry || is_over || is_crowded) {
                let peer = slot.peer.clone().unwrap_or_else(|| event.peer.clone());
                taken.push((slot.number, slot.times, Event { peer, ..event.clone() }));
                (slot.has_entry, slot.times.count) = (true, 0);
            }
        }
        if is_over || is_crowded {
            self.slots.clear();
        }
        if is_over {
            (self.since_ms, self.refused_unknown) = (None, 0);
            self.refused.clear();
            self.counted.clear();
        }
        taken.sort_unstable_by_key(|(number, ..)| *number);
        let entries = taken.into_iter().map(|(_, times, event)| (times, event)).collect();
        Unwritten { entries, lost: std::mem::take(&mut self.lost) }
    }
}

/// Counts one more, unless there are `max`.
fn one_too_many(count: &mut u32, max: u32) -> bool {
    if *count >= max {
        return true;
    }
    *count += 1;
    false
}

/// The event from wherever.
fn nowhere(event: Event) -> Event {
    Event { peer: String::new(), ..event }
}

/// The event without what tells it from others of its kind.
fn together(event: Event) -> Event {
    Event { kind: "".into(), id: String::new(), owner: String::new(), ..event }.saying("and others")
}

impl Notes {
    pub(in crate::store) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
