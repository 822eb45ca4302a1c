//! Floor 2. The threads that compute bcrypt, and the fair, bounded queue before them.
//!
//! Hides which machine is hammering the door: clients ([`AddressPrefix`]) take turns, so that one of them can fill
//! only its own share of the queue and delay a stranger by one computation per thread. A client that has nothing in it
//! always has a place: where all are taken, the one that has most loses its latest.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::domain::address::AddressPrefix;

/// Computations that wait for one client.
pub const WAITING_PER_PEER_MAX: usize = 16;
/// Computations that wait in all, as long as somebody has more than one.
pub const WAITING_TOTAL_MAX: usize = 64;
/// Clients that wait with one computation each.
const WAITING_CLIENTS_MAX: usize = 1024;
/// The longest time that a refused caller is asked to wait.
const RETRY_AFTER_S_MAX: u64 = 60;

/// The queue has no room for this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// About when the queue will have moved on.
    pub(super) retry_after_s: u64,
}

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads; dropping it drops what waits and lets the threads end.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    queue: Mutex<FairQueue<Job>>,
    work: Condvar,
    /// How long the last computation took, for telling refused callers when to come back.
    last_job_ms: AtomicU64,
}

impl Pool {
    pub(super) fn start(threads: usize) -> io::Result<Pool> {
        let pool = Pool {
            shared: Arc::new(Shared {
                queue: Mutex::new(FairQueue::new()),
                work: Condvar::new(),
                last_job_ms: AtomicU64::new(0),
            }),
            threads: threads.max(1),
        };
        for number in 0..pool.threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new()
                .name(format!("bcrypt-{number}"))
                .spawn(move || shared.work_until_closed())?;
        }
        Ok(pool)
    }

    /// Queues `job` for the client at `peer`. A job that is not going to be run must tell its caller so when
    /// it is dropped: it is given back, because who submits may hold a lock that it needs for that.
    pub(super) fn submit(&self, peer: IpAddr, job: Job) -> (Result<(), Full>, Option<Job>) {
        let mut queue = self.shared.lock();
        let pushed = queue.push(AddressPrefix::of(peer), job);
        let waiting = queue.waiting as u64;
        drop(queue);
        match pushed {
            Ok(displaced) => {
                self.shared.work.notify_one();
                (Ok(()), displaced)
            }
            Err(job) => {
                let job_ms = self.shared.last_job_ms.load(Ordering::Relaxed);
                let wait_s = (waiting * job_ms).div_ceil(1_000 * self.threads as u64);
                (Err(Full { retry_after_s: wait_s.clamp(1, RETRY_AFTER_S_MAX) }), Some(job))
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let unrun = self.shared.lock().close();
        self.shared.work.notify_all();
        drop(unrun);
    }
}

impl Shared {
    /// A panic under this lock is impossible to reach half-way through a change, so poison means nothing.
    fn lock(&self) -> MutexGuard<'_, FairQueue<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_until_closed(&self) {
        while let Some(job) = self.next() {
            let started = Instant::now();
            // A thread lost to a panic would be missing until the next start; the waiting caller learns
            // of it from the dropped job.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a password computation panicked");
            }
            let job_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_job_ms.store(job_ms.min(60_000), Ordering::Relaxed);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.pop() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Items by client, handed out one client after the other.
struct FairQueue<T> {
    by_client: BTreeMap<AddressPrefix, VecDeque<T>>,
    /// Clients with something waiting, each once, the next to be served in front.
    turns: VecDeque<AddressPrefix>,
    waiting: usize,
    closed: bool,
}

impl<T> FairQueue<T> {
    fn new() -> FairQueue<T> {
        FairQueue { by_client: BTreeMap::new(), turns: VecDeque::new(), waiting: 0, closed: false }
    }

    /// Gives back what made room for the item, or the item if there is no room for it.
    fn push(&mut self, client: AddressPrefix, item: T) -> Result<Option<T>, T> {
        let waiting_here = self.by_client.get(&client).map_or(0, VecDeque::len);
        if self.closed || waiting_here >= WAITING_PER_PEER_MAX {
            return Err(item);
        }
        let mut displaced = None;
        if self.waiting >= WAITING_TOTAL_MAX {
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

    /// Takes nothing more, and gives back what waited.
    fn close(&mut self) -> BTreeMap<AddressPrefix, VecDeque<T>> {
        self.closed = true;
        self.turns.clear();
        self.waiting = 0;
        std::mem::take(&mut self.by_client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn client(last: u8) -> AddressPrefix {
        AddressPrefix::of(peer(last))
    }

    fn drain<T>(queue: &mut FairQueue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn addresses_take_turns_and_keep_their_own_order() {
        let mut queue = FairQueue::new();
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
        let mut queue = FairQueue::new();
        for number in 0..WAITING_PER_PEER_MAX {
            queue.push(client(1), number).unwrap();
        }
        assert_eq!(queue.pop(), Some(0));
        queue.push(client(2), 100).unwrap();
        assert_eq!([queue.pop(), queue.pop()], [Some(1), Some(100)]);
    }

    /// As many clients with full shares as fill the queue.
    fn full() -> FairQueue<(u8, usize)> {
        let mut queue = FairQueue::new();
        for last in 1..=(WAITING_TOTAL_MAX / WAITING_PER_PEER_MAX) as u8 {
            for number in 0..WAITING_PER_PEER_MAX {
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
        assert_eq!(
            displaced.map(|(_, number)| number),
            Some(WAITING_PER_PEER_MAX - 1),
            "the latest of a full one"
        );
        assert!(queue.push(client(200), (200, 1)).is_err(), "a second place only where there is room");
        let turns: Vec<_> = drain(&mut queue).into_iter().map(|(last, _)| last).collect();
        assert_eq!(turns.len(), WAITING_TOTAL_MAX);
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
        assert_eq!(displaced, WAITING_TOTAL_MAX - 4, "all but one of each who had more");
        assert_eq!(queue.waiting, WAITING_CLIENTS_MAX);
        assert!(queue.push(many(WAITING_CLIENTS_MAX), (0, 0)).is_err());
        assert_eq!(drain(&mut queue).len(), WAITING_CLIENTS_MAX);
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        let pool = Pool::start(1).unwrap();
        let (gate, gated) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let block: Job = Box::new(move || {
            started.send(()).unwrap();
            let _ = gated.recv();
        });
        pool.submit(peer(1), block).0.unwrap();
        running.recv_timeout(Duration::from_secs(10)).unwrap();
        for _ in 0..WAITING_PER_PEER_MAX {
            pool.submit(peer(1), Box::new(|| {})).0.unwrap();
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let full = pool.submit(mapped, Box::new(|| {})).0.unwrap_err();
        assert!((1..=RETRY_AFTER_S_MAX).contains(&full.retry_after_s));
        let host = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        for last in 0..WAITING_PER_PEER_MAX as u16 {
            pool.submit(host(last), Box::new(|| {})).0.unwrap();
        }
        assert!(pool.submit(host(999), Box::new(|| {})).0.is_err(), "one host has the whole /64");
        pool.submit(peer(2), Box::new(|| {})).0.unwrap();
        drop(gate);
    }

    #[test]
    fn a_panicking_job_does_not_cost_a_thread() {
        let pool = Pool::start(1).unwrap();
        pool.submit(peer(1), Box::new(|| panic!("expected by this test"))).0.unwrap();
        let (sender, receiver) = mpsc::channel();
        pool.submit(peer(1), Box::new(move || sender.send(7).unwrap())).0.unwrap();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(7));
    }

    #[test]
    fn dropping_the_pool_ends_its_threads_and_drops_what_waits() {
        let pool = Pool::start(2).unwrap();
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        let deadline = Instant::now() + Duration::from_secs(10);
        while shared.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the threads still run");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
