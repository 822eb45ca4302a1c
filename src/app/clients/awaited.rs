//! Requests that wait for their bodies: a resource of its own, because each holds its place however little it has sent.
//!
//! Those who have logged in and those who have not share nothing, so that nobody without an account takes room from those
//! who have one. Where there are too many, the one that has waited for longest of the client that has most is refused, so
//! that a newcomer always finds a place.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use super::{Crowded, Turn, lock};

/// Of one client and in all: of those who have not logged in, whose forms are small, and of the others.
const ANONYMOUS: Bounds = Bounds { each: 16, in_all: 64 };
const KNOWN: Bounds = Bounds { each: 64, in_all: 256 };

struct Bounds {
    each: usize,
    in_all: usize,
}

/// All requests that wait for their bodies, in the order in which they began to.
#[derive(Default)]
pub(super) struct Awaited(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    next: u64,
    places: Vec<Place>,
}

struct Place {
    number: u64,
    is_known: bool,
    /// The address and the account, as where they are counted.
    address: usize,
    account: usize,
    waker: Waker,
}

impl Queue {
    fn of(&self, is_known: bool) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.is_known == is_known)
    }

    /// Who has most places of these; of several the one that has waited for longest, or a newcomer could be sent away by those
    /// who have as little.
    fn most(&self, is_known: bool) -> usize {
        let mut counts: HashMap<usize, (usize, Reverse<usize>)> = HashMap::new();
        for (at, place) in self.of(is_known).enumerate() {
            let of_account = is_known.then_some(place.account);
            for who in [Some(place.address), of_account].into_iter().flatten() {
                counts.entry(who).or_insert((0, Reverse(at))).0 += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, held)| *held).map(|(who, _)| who).unwrap_or_default()
    }

    fn count(&self, is_known: bool, who: usize) -> usize {
        self.of(is_known).filter(|place| place.is(who)).count()
    }

    /// Takes the place that was taken first by this client away; its request is woken to find that out.
    fn end_first(&mut self, is_known: bool, who: usize) {
        let first = self.places.iter().position(|place| place.is_known == is_known && place.is(who));
        if let Some(at) = first {
            self.places.remove(at).waker.wake();
        }
    }
}

impl Place {
    fn is(&self, who: usize) -> bool {
        self.address == who || self.account == who
    }
}

impl Turn {
    /// The request waits for its body, with a place if it has one already; an error if it has lost that.
    pub(in crate::app) fn awaits(
        &self,
        place: &mut Option<u64>,
        context: &Context<'_>,
    ) -> Result<(), Crowded> {
        let mut queue = lock(&self.clients.awaited.0);
        if let Some(number) = *place {
            let own = queue.places.iter_mut().find(|place| place.number == number).ok_or(Crowded)?;
            own.waker.clone_from(context.waker());
            return Ok(());
        }
        let number = queue.next;
        queue.next += 1;
        *place = Some(number);
        let address = Arc::as_ptr(&self.share) as usize;
        let account = self.account().map(|account| Arc::as_ptr(account) as usize);
        let is_known = account.is_some();
        let whose = account.unwrap_or(address);
        queue.places.push(Place {
            number,
            is_known,
            address,
            account: whose,
            waker: context.waker().clone(),
        });
        let bounds = if is_known { KNOWN } else { ANONYMOUS };
        if queue.count(is_known, whose) > bounds.each {
            queue.end_first(is_known, whose);
        } else if queue.of(is_known).count() > bounds.in_all {
            let who = queue.most(is_known);
            queue.end_first(is_known, who);
        }
        Ok(())
    }

    /// It waits no longer.
    pub(in crate::app) fn awaits_no_more(&self, place: &mut Option<u64>) {
        if let Some(number) = place.take() {
            lock(&self.clients.awaited.0).places.retain(|place| place.number != number);
        }
    }
}
