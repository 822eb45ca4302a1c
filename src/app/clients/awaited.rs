//! Requests that wait for their bodies: a resource of its own, because each holds its place however little it has sent.
//!
//! Those who have logged in and those who have not share nothing, so that nobody without an account takes room from those
//! who have one. Where there are too many, the one that has waited for longest of the client that has most is refused, so
//! that a newcomer always finds a place. There as elsewhere, all networks of one IPv6 site count as one client.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use super::{Crowded, Turn, lock};
use crate::domain::address::AddressPrefix;

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
    address: AddressPrefix,
    /// As where it is counted.
    account: Option<usize>,
    waker: Waker,
}

/// Whom places are counted for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Address(AddressPrefix),
    /// All networks of one site.
    Site(AddressPrefix),
    Account(usize),
}

impl Queue {
    fn of(&self, is_known: bool) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.is_known == is_known)
    }

    /// Who has most places of these; of several the one that has waited for longest, or a newcomer could be sent away by those
    /// who have as little.
    fn most(&self, is_known: bool) -> Option<Who> {
        let mut counts: HashMap<Who, (usize, Reverse<usize>)> = HashMap::new();
        for (at, place) in self.of(is_known).enumerate() {
            let site = Who::Site(place.address.site());
            for who in [Some(site), place.account.map(Who::Account)].into_iter().flatten() {
                counts.entry(who).or_insert((0, Reverse(at))).0 += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, held)| *held).map(|(who, _)| who)
    }

    fn count(&self, is_known: bool, who: Who) -> usize {
        self.of(is_known).filter(|place| place.is(who)).count()
    }

    /// Takes the place that was taken first by this client away; its request is woken to find that out.
    fn end_first(&mut self, is_known: bool, who: Who) {
        let first = self.places.iter().position(|place| place.is_known == is_known && place.is(who));
        if let Some(at) = first {
            self.places.remove(at).waker.wake();
        }
    }
}

impl Place {
    fn is(&self, who: Who) -> bool {
        match who {
            Who::Address(address) => self.address == address,
            Who::Site(site) => self.address.site() == site,
            Who::Account(account) => self.account == Some(account),
        }
    }
}

impl Turn {
    /// The request waits for its body, with a place if it has one already; an error if it has lost that.
    pub(in crate::app) fn awaits(
        &self,
        place: &mut Option<u64>,
        context: &Context<'_>,
    ) -> Result<(), Crowded> {
        let mut queue = lock(&self.clients().awaited.0);
        if let Some(number) = *place {
            let own = queue.places.iter_mut().find(|place| place.number == number).ok_or(Crowded)?;
            own.waker.clone_from(context.waker());
            return Ok(());
        }
        let number = queue.next;
        queue.next += 1;
        *place = Some(number);
        let address = self.share().prefix;
        let account = self.account().map(|account| Arc::as_ptr(account) as usize);
        let is_known = account.is_some();
        let whose = account.map_or(Who::Address(address), Who::Account);
        queue.places.push(Place { number, is_known, address, account, waker: context.waker().clone() });
        let bounds = if is_known { KNOWN } else { ANONYMOUS };
        if queue.count(is_known, whose) > bounds.each {
            queue.end_first(is_known, whose);
        } else if queue.of(is_known).count() > bounds.in_all
            && let Some(who) = queue.most(is_known)
        {
            queue.end_first(is_known, who);
        }
        Ok(())
    }

    /// It waits no longer.
    pub(in crate::app) fn awaits_no_more(&self, place: &mut Option<u64>) {
        if let Some(number) = place.take() {
            lock(&self.clients().awaited.0).places.retain(|place| place.number != number);
        }
    }
}
