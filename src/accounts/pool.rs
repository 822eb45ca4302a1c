//! Floor 2. The threads that compute bcrypt, and the fair, bounded queue before them.
//!
//! Hides which machine is hammering the door: clients ([`AddressPrefix`]) take turns ([`FairQueue`]), so that one of
//! them can delay a stranger by one computation per thread.

use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::domain::address::AddressPrefix;
use crate::domain::fair_queue::{Bounds, FairQueue};

/// Computations that wait for one client.
pub(super) const WAITING_PER_PEER_MAX: usize = 16;
/// Computations that wait in all, as long as somebody has more than one.
pub(super) const WAITING_TOTAL_MAX: usize = 64;
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
                queue: Mutex::new(FairQueue::new(Bounds {
                    each: WAITING_PER_PEER_MAX,
                    in_all: WAITING_TOTAL_MAX,
                })),
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
        let waiting = queue.waiting() as u64;
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
            if queue.is_closed() {
                return None;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
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
