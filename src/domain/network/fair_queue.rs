//! Floor 0. A bounded queue in which clients take turns.
//!
//! Turns go by site ([`AddressPrefix::site`]), and within a site by client: who has a whole /48 of IPv6 networks has one turn,
//! as who has one IPv4 address, which is a site of its own. One client can fill only its own share of the queue, and one site
//! a few such shares. A client whose site has nothing in it always has a place: where all are taken, the site that has most
//! loses the latest item of its client that has most. So does a client that has nothing, if a neighbour has more than one.

use std::collections::{BTreeMap, VecDeque};

use super::address::AddressPrefix;

/// How many items may wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of one client.
    pub each: usize,
    /// In all, as long as somebody has more than one.
    pub in_all: usize,
}

/// Sites that wait with one item each.
const WAITING_SITES_MAX: usize = 1024;
/// How many times as much as a client a site may have.
const SITE_TIMES: usize = 4;

/// Items by site and client, handed out one site after the other.
pub struct FairQueue<T> {
    sites: BTreeMap<AddressPrefix, Site<T>>,
    /// Sites with something waiting, each once, the next to be served in front.
    turns: VecDeque<AddressPrefix>,
    waiting: usize,
    closed: bool,
    bounds: Bounds,
}

/// What waits for the clients of one site.
struct Site<T> {
    by_client: BTreeMap<AddressPrefix, VecDeque<T>>,
    /// Clients with something waiting, each once.
    turns: VecDeque<AddressPrefix>,
    waiting: usize,
}

impl<T> FairQueue<T> {
    pub fn new(bounds: Bounds) -> FairQueue<T> {
        FairQueue { sites: BTreeMap::new(), turns: VecDeque::new(), waiting: 0, closed: false, bounds }
    }

    /// Gives back what made room for the item, or the item if there is no room for it.
    pub fn push(&mut self, client: AddressPrefix, item: T) -> Result<Option<T>, T> {
        let site = client.site();
        let waiting_here = self.waiting_of(client);
        let waiting_at_site = self.sites.get(&site).map_or(0, |known| known.waiting);
        if self.closed || waiting_here >= self.bounds.each {
            return Err(item);
        }
        let mut displaced = None;
        if waiting_at_site >= self.bounds.each.saturating_mul(SITE_TIMES) {
            // A neighbour that has nothing has a place, of one that has more.
            displaced = if waiting_here == 0 { self.latest_of_one_with_more(site) } else { None };
            if displaced.is_none() {
                return Err(item);
            }
        } else if self.waiting >= self.bounds.in_all {
            if waiting_here > 0 {
                return Err(item);
            }
            displaced =
                self.latest_of_most(waiting_at_site + 1).or_else(|| self.latest_of_one_with_more(site));
            let is_full = self.waiting >= WAITING_SITES_MAX || waiting_at_site > 0;
            if displaced.is_none() && is_full {
                return Err(item);
            }
        }
        let at_site = self.sites.entry(site).or_insert_with(|| {
            self.turns.push_back(site);
            Site { by_client: BTreeMap::new(), turns: VecDeque::new(), waiting: 0 }
        });
        at_site.push(client, item);
        self.waiting += 1;
        Ok(displaced)
    }

    /// Takes out the latest item of the site that has most, if that is more than so many, and more than one.
    fn latest_of_most(&mut self, least: usize) -> Option<T> {
        let (site, most) = self.of_sites().max_by_key(|(_, waiting)| *waiting)?;
        if most <= least.max(1) { None } else { self.take_latest_of(site) }
    }

    /// Takes out the latest item of the client of this site that has most, if that is more than one.
    fn latest_of_one_with_more(&mut self, site: AddressPrefix) -> Option<T> {
        let has_more = self.sites.get(&site)?.by_client.values().any(|items| items.len() > 1);
        if has_more { self.take_latest_of(site) } else { None }
    }

    pub fn pop(&mut self) -> Option<T> {
        let site = self.turns.pop_front()?;
        let at_site = self.sites.get_mut(&site)?;
        let item = at_site.pop()?;
        if at_site.waiting == 0 {
            self.sites.remove(&site);
        } else {
            self.turns.push_back(site);
        }
        self.waiting -= 1;
        Some(item)
    }

    /// How many items wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many items of this client wait.
    fn waiting_of(&self, client: AddressPrefix) -> usize {
        let at_site = self.sites.get(&client.site());
        at_site.and_then(|site| site.by_client.get(&client)).map_or(0, VecDeque::len)
    }

    /// How many items of each site wait.
    fn of_sites(&self) -> impl Iterator<Item = (AddressPrefix, usize)> {
        self.sites.iter().map(|(site, at_site)| (*site, at_site.waiting))
    }

    /// Takes out the latest item of the client of this site that has most.
    fn take_latest_of(&mut self, site: AddressPrefix) -> Option<T> {
        let at_site = self.sites.get_mut(&site)?;
        let latest = at_site.take_latest_of_most()?;
        if at_site.waiting == 0 {
            self.sites.remove(&site);
            self.turns.retain(|other| *other != site);
        }
        self.waiting -= 1;
        Some(latest)
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes nothing more, and gives back what waited.
    pub fn close(&mut self) -> Vec<T> {
        self.closed = true;
        let mut left = Vec::new();
        while let Some(item) = self.pop() {
            left.push(item);
        }
        left
    }
}

impl<T> Site<T> {
    fn push(&mut self, client: AddressPrefix, item: T) {
        let items = self.by_client.entry(client).or_default();
        if items.is_empty() {
            self.turns.push_back(client);
        }
        items.push_back(item);
        self.waiting += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let items = self.by_client.get_mut(&client)?;
        let item = items.pop_front()?;
        if items.is_empty() {
            self.by_client.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.waiting -= 1;
        Some(item)
    }

    fn take_latest_of_most(&mut self) -> Option<T> {
        let (client, items) = self.by_client.iter_mut().max_by_key(|(_, items)| items.len())?;
        let (client, latest) = (*client, items.pop_back()?);
        if items.is_empty() {
            self.by_client.remove(&client);
            self.turns.retain(|other| *other != client);
        }
        self.waiting -= 1;
        Some(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const BOUNDS: Bounds = Bounds { each: 16, in_all: 64 };

    fn client(last: u8) -> AddressPrefix {
        AddressPrefix::of(IpAddr::from([192, 0, 2, last]))
    }

    fn drain<T>(queue: &mut FairQueue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn addresses_take_turns_and_keep_their_own_order() {
        let mut queue = FairQueue::new(BOUNDS);
        for item in ["a1", "a2", "a3", "a4"] {
            queue.push(client(1), item).unwrap();
        }
        queue.push(client(2), "b1").unwrap();
        queue.push(client(3), "c1").unwrap();
        queue.push(client(2), "b2").unwrap();
        assert_eq!(drain(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert!(queue.sites.is_empty() && queue.turns.is_empty() && queue.waiting == 0);
    }

    #[test]
    fn a_newcomer_waits_for_one_item_of_a_flooding_address() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..BOUNDS.each {
            queue.push(client(1), number).unwrap();
        }
        assert_eq!(queue.pop(), Some(0));
        queue.push(client(2), 100).unwrap();
        assert_eq!([queue.pop(), queue.pop()], [Some(1), Some(100)]);
    }

    /// As many clients with full shares as fill the queue.
    fn full() -> FairQueue<(u8, usize)> {
        let mut queue = FairQueue::new(BOUNDS);
        for last in 1..=(BOUNDS.in_all / BOUNDS.each) as u8 {
            for number in 0..BOUNDS.each {
                assert!(queue.push(client(last), (last, number)).unwrap().is_none());
            }
            queue.push(client(last), (last, 100)).expect_err("beyond its share");
        }
        queue
    }

    #[test]
    fn a_client_with_nothing_in_it_always_has_a_place() {
        let mut queue = full();
        let displaced = queue.push(client(200), (200, 0)).unwrap();
        assert_eq!(displaced.map(|(_, number)| number), Some(BOUNDS.each - 1), "the latest of a full one");
        assert!(queue.push(client(200), (200, 1)).is_err(), "a second place only where there is room");
        let turns: Vec<_> = drain(&mut queue).into_iter().map(|(last, _)| last).collect();
        assert_eq!(turns.len(), BOUNDS.in_all);
        assert!(turns[..5].contains(&200), "a stranger waits for one of each: {turns:?}");
    }

    #[test]
    fn newcomers_end_at_one_place_for_each_client_there_may_be() {
        let mut queue = full();
        let many = |number: usize| AddressPrefix::V6((number as u64) << 16);
        let mut displaced = 0;
        for number in 0..WAITING_SITES_MAX - 4 {
            displaced += usize::from(queue.push(many(number), (0, number)).unwrap().is_some());
        }
        assert_eq!(displaced, BOUNDS.in_all - 4, "all but one of each who had more");
        assert_eq!(queue.waiting, WAITING_SITES_MAX);
        assert!(queue.push(many(WAITING_SITES_MAX), (0, 0)).is_err());
        assert_eq!(drain(&mut queue).len(), WAITING_SITES_MAX);
    }

    fn network(site: u64, network: u64) -> AddressPrefix {
        AddressPrefix::V6((0x2001_0db8_0000 + site) << 16 | network)
    }

    /// As many networks as it likes: a host has a whole /48.
    #[test]
    fn the_networks_of_a_site_take_turns_as_one_client() {
        let mut queue = FairQueue::new(BOUNDS);
        let mut taken = 0;
        for number in 0..2000 {
            taken +=
                usize::from(queue.push(network(1, number), (1, number)).is_ok_and(|lost| lost.is_none()));
        }
        assert_eq!(taken, SITE_TIMES * BOUNDS.each, "the share of a site");
        queue.push(network(2, 0), (2, 0)).unwrap();
        queue.push(client(1), (3, 0)).unwrap();
        let first: Vec<_> = (0..3).filter_map(|_| queue.pop()).map(|(site, _)| site).collect();
        assert_eq!(first, [1, 2, 3]);
        let rest = drain(&mut queue);
        assert!(rest.iter().all(|(site, _)| *site == 1) && queue.sites.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_neighbour_with_nothing_has_a_place_of_one_that_has_more() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..SITE_TIMES {
            for item in 0..BOUNDS.each {
                queue.push(network(1, number as u64), (number, item)).unwrap();
            }
        }
        assert!(queue.push(network(1, 0), (0, 99)).is_err());
        let lost = queue.push(network(1, 77), (77, 0)).unwrap();
        assert_eq!(lost.map(|(_, item)| item), Some(BOUNDS.each - 1));
        let turns: Vec<_> = drain(&mut queue).into_iter().map(|(number, _)| number).collect();
        assert!(turns[..=SITE_TIMES].contains(&77), "{turns:?}");
    }

    /// Also where the site has less than its share, and the others have as much as it.
    #[test]
    fn a_neighbour_with_nothing_has_a_place_in_a_full_queue() {
        let mut queue = FairQueue::new(BOUNDS);
        for item in 0..BOUNDS.in_all / 2 {
            queue.push(network(1, (item / BOUNDS.each) as u64), (1, item)).unwrap();
            queue.push(network(2, item as u64), (2, item)).unwrap();
        }
        let lost = queue.push(network(1, 77), (1, 100)).unwrap();
        assert_eq!(lost.map(|(site, _)| site), Some(1), "one of its site, whose client has more");
        assert!(queue.push(network(2, 77), (2, 100)).is_err(), "its neighbours have one each");
    }
}
