//! Floor 2. The threads that compute bcrypt, and the fair, bounded queue before them.
//!
//! Hides which machine is hammering the door: addresses take turns, so that one of them can fill only
//! its own share of the queue and delay a stranger by one computation per thread.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Computations that wait for one peer address.
pub const WAITING_PER_PEER_MAX: usize = 16;
/// Computations that wait in all.
pub const WAITING_TOTAL_MAX: usize = 64;
/// The longest time that a refused caller is asked to wait.
const RETRY_AFTER_S_MAX: u64 = 60;

/// The queue has no room for this address.
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

    /// Queues `job` under `peer`. A job that is dropped unrun must say so to whoever waits for it.
    pub(super) fn submit(&self, peer: IpAddr, job: Job) -> Result<(), Full> {
        let mut queue = self.shared.lock();
        if queue.push(peer.to_canonical(), job).is_err() {
            let waiting = queue.waiting as u64;
            drop(queue);
            let job_ms = self.shared.last_job_ms.load(Ordering::Relaxed);
            let wait_s = (waiting * job_ms).div_ceil(1_000 * self.threads as u64);
            return Err(Full { retry_after_s: wait_s.clamp(1, RETRY_AFTER_S_MAX) });
        }
        drop(queue);
        self.shared.work.notify_one();
        Ok(())
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

/// Items by peer address, handed out one address after the other.
struct FairQueue<T> {
    by_peer: BTreeMap<IpAddr, VecDeque<T>>,
    /// Addresses with something waiting, each once, the next to be served in front.
    turns: VecDeque<IpAddr>,
    waiting: usize,
    closed: bool,
}

impl<T> FairQueue<T> {
    fn new() -> FairQueue<T> {
        FairQueue { by_peer: BTreeMap::new(), turns: VecDeque::new(), waiting: 0, closed: false }
    }

    fn push(&mut self, peer: IpAddr, item: T) -> Result<(), T> {
        let waiting_here = self.by_peer.get(&peer).map_or(0, VecDeque::len);
        if self.closed || self.waiting >= WAITING_TOTAL_MAX || waiting_here >= WAITING_PER_PEER_MAX {
            return Err(item);
        }
        if waiting_here == 0 {
            self.turns.push_back(peer);
        }
        self.by_peer.entry(peer).or_default().push_back(item);
        self.waiting += 1;
        Ok(())
    }

    fn pop(&mut self) -> Option<T> {
        let peer = self.turns.pop_front()?;
        let items = self.by_peer.get_mut(&peer)?;
        let item = items.pop_front()?;
        if items.is_empty() {
            self.by_peer.remove(&peer);
        } else {
            self.turns.push_back(peer);
        }
        self.waiting -= 1;
        Some(item)
    }

    /// Takes nothing more, and gives back what waited.
    fn close(&mut self) -> BTreeMap<IpAddr, VecDeque<T>> {
        self.closed = true;
        self.turns.clear();
        self.waiting = 0;
        std::mem::take(&mut self.by_peer)
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

    fn drain<T>(queue: &mut FairQueue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn addresses_take_turns_and_keep_their_own_order() {
        let mut queue = FairQueue::new();
        for item in ["a1", "a2", "a3", "a4"] {
            queue.push(peer(1), item).unwrap();
        }
        queue.push(peer(2), "b1").unwrap();
        queue.push(peer(3), "c1").unwrap();
        queue.push(peer(2), "b2").unwrap();
        assert_eq!(drain(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert!(queue.by_peer.is_empty() && queue.turns.is_empty() && queue.waiting == 0);
    }

    #[test]
    fn a_newcomer_waits_for_one_item_of_a_flooding_address() {
        let mut queue = FairQueue::new();
        for number in 0..WAITING_PER_PEER_MAX {
            queue.push(peer(1), number).unwrap();
        }
        assert_eq!(queue.pop(), Some(0));
        queue.push(peer(2), 100).unwrap();
        assert_eq!([queue.pop(), queue.pop()], [Some(1), Some(100)]);
    }

    #[test]
    fn one_address_and_all_together_have_limits() {
        let mut queue = FairQueue::new();
        for _ in 0..WAITING_PER_PEER_MAX {
            queue.push(peer(1), ()).unwrap();
        }
        assert!(queue.push(peer(1), ()).is_err());
        for last in 2..=(WAITING_TOTAL_MAX / WAITING_PER_PEER_MAX) as u8 {
            for _ in 0..WAITING_PER_PEER_MAX {
                queue.push(peer(last), ()).unwrap();
            }
        }
        assert!(queue.push(peer(200), ()).is_err(), "the queue is full for everyone");
        queue.pop().unwrap();
        queue.push(peer(200), ()).unwrap();
        assert_eq!(drain(&mut queue).len(), WAITING_TOTAL_MAX);
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
        pool.submit(peer(1), block).unwrap();
        running.recv_timeout(Duration::from_secs(10)).unwrap();
        for _ in 0..WAITING_PER_PEER_MAX {
            pool.submit(peer(1), Box::new(|| {})).unwrap();
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let full = pool.submit(mapped, Box::new(|| {})).unwrap_err();
        assert!((1..=RETRY_AFTER_S_MAX).contains(&full.retry_after_s));
        pool.submit(peer(2), Box::new(|| {})).unwrap();
        drop(gate);
    }

    #[test]
    fn a_panicking_job_does_not_cost_a_thread() {
        let pool = Pool::start(1).unwrap();
        pool.submit(peer(1), Box::new(|| panic!("expected by this test"))).unwrap();
        let (sender, receiver) = mpsc::channel();
        pool.submit(peer(1), Box::new(move || sender.send(7).unwrap())).unwrap();
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
