//! Floor 0. A bounded queue in which clients take turns.
//!
//! One client ([`AddressPrefix`]) can fill only its own share of the queue. A client that has nothing in it always has a
//! place: where all are taken, the one that has most loses its latest.

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

/// Clients that wait with one item each.
const WAITING_CLIENTS_MAX: usize = 1024;
/// Items by client, handed out one client after the other.
pub struct FairQueue<T> {
    by_client: BTreeMap<AddressPrefix, VecDeque<T>>,
    /// Clients with something waiting, each once, the next to be served in front.
    turns: VecDeque<AddressPrefix>,
    waiting: usize,
    closed: bool,
    bounds: Bounds,
}

impl<T> FairQueue<T> {
    pub fn new(bounds: Bounds) -> FairQueue<T> {
        FairQueue { by_client: BTreeMap::new(), turns: VecDeque::new(), waiting: 0, closed: false, bounds }
    }

    /// Gives back what made room for the item, or the item if there is no room for it.
    pub fn push(&mut self, client: AddressPrefix, item: T) -> Result<Option<T>, T> {
        let waiting_here = self.by_client.get(&client).map_or(0, VecDeque::len);
        if self.closed || waiting_here >= self.bounds.each {
            return Err(item);
        }
        let mut displaced = None;
        if self.waiting >= self.bounds.in_all {
            if waiting_here > 0 {
                return Err(item);
            }
            displaced = self.latest_of_most();
            if displaced.is_none() && self.waiting >= WAITING_CLIENTS_MAX {
                return Err(item);
            }
        }
        if waiting_here == 0 {
            self.turns.push_back(client);
        }
        self.by_client.entry(client).or_default().push_back(item);
        self.waiting += 1;
        Ok(displaced)
    }

    /// Takes out the latest item of the client that has most, if that is more than one.
    fn latest_of_most(&mut self) -> Option<T> {
        let most =
            self.by_client.values_mut().max_by_key(|items| items.len()).filter(|items| items.len() > 1)?;
        let latest = most.pop_back()?;
        self.waiting -= 1;
        Some(latest)
    }

    pub fn pop(&mut self) -> Option<T> {
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

    /// How many items wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes nothing more, and gives back what waited.
    pub fn close(&mut self) -> BTreeMap<AddressPrefix, VecDeque<T>> {
        self.closed = true;
        self.turns.clear();
        self.waiting = 0;
        std::mem::take(&mut self.by_client)
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
        assert!(queue.by_client.is_empty() && queue.turns.is_empty() && queue.waiting == 0);
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
        let many = |number: usize| AddressPrefix::V6(number as u64);
        let mut displaced = 0;
        for number in 0..WAITING_CLIENTS_MAX - 4 {
            displaced += usize::from(queue.push(many(number), (0, number)).unwrap().is_some());
        }
        assert_eq!(displaced, BOUNDS.in_all - 4, "all but one of each who had more");
        assert_eq!(queue.waiting, WAITING_CLIENTS_MAX);
        assert!(queue.push(many(WAITING_CLIENTS_MAX), (0, 0)).is_err());
        assert_eq!(drain(&mut queue).len(), WAITING_CLIENTS_MAX);
    }
}
