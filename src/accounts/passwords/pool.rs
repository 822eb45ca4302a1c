//! Floor 2. The threads that compute bcrypt, and the fair, bounded queue before them.
//!
//! Hides which machine is hammering the door: clients ([`AddressPrefix`]) take turns ([`FairQueue`]), so that one of
//! them can delay a stranger by one computation per thread. Who has logged in from a client comes before others there, these
//! before strangers elsewhere, and those who have not failed before those who have ([`Rank`]). Each rank is a queue with bounds of its own, so
//! that strangers take no place of who is known. Of four computations one is of a later rank, so that none waits for ever.

use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::accounts::throttle::Rank;
use crate::domain::address::AddressPrefix;
use crate::domain::fair_queue::{Bounds, FairQueue};

/// Computations that wait for one client, in each rank.
pub(crate) const WAITING_PER_PEER_MAX: usize = 16;
/// Of so many computations one is of a later rank than the first that waits.
const LATER_EACH: u64 = 4;
/// Computations that wait in each rank, as long as a site has more than one.
pub(crate) const WAITING_TOTAL_MAX: usize = 64;
/// The longest time that a refused caller is asked to wait.
const RETRY_AFTER_S_MAX: u64 = 60;

/// The queue has no room for this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// About when the queue will have moved on.
    pub(crate) retry_after_s: u64,
}

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads; dropping it drops what waits and lets the threads end.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

/// What waits, by rank. Each rank has places of its own: nothing that waits in one is refused or displaced because of others.
struct Ranks<T> {
    queues: [FairQueue<T>; Rank::COUNT],
    popped: u64,
}

impl<T> Ranks<T> {
    fn new() -> Ranks<T> {
        let bounds = Bounds { each: WAITING_PER_PEER_MAX, in_all: WAITING_TOTAL_MAX };
        Ranks { queues: std::array::from_fn(|_| FairQueue::new(bounds)), popped: 0 }
    }

    /// As [`FairQueue::push`].
    fn push(&mut self, client: AddressPrefix, rank: Rank, item: T) -> Result<Option<T>, T> {
        match self.queues.get_mut(rank as usize) {
            Some(queue) => queue.push(client, item),
            None => Err(item),
        }
    }

    fn pop(&mut self) -> Option<T> {
        let mut waiting: Vec<_> = self.queues.iter_mut().filter(|queue| queue.waiting() > 0).collect();
        self.popped = self.popped.wrapping_add(1);
        let later = waiting.len().saturating_sub(1) as u64;
        let at = match self.popped % LATER_EACH {
            // The later ones in turn.
            0 if later > 0 => 1 + (self.popped / LATER_EACH) % later,
            _ => 0,
        };
        waiting.get_mut(usize::try_from(at).unwrap_or_default())?.pop()
    }

    /// How many wait in this rank and before it.
    fn waiting_before(&self, rank: Rank) -> usize {
        self.queues.iter().take(rank as usize + 1).map(FairQueue::waiting).sum()
    }

    fn is_closed(&self) -> bool {
        self.queues.iter().all(FairQueue::is_closed)
    }

    fn close(&mut self) -> Vec<T> {
        self.queues.iter_mut().flat_map(FairQueue::close).collect()
    }
}

struct Shared {
    queue: Mutex<Ranks<Job>>,
    work: Condvar,
    /// How long the last computation took, for telling refused callers when to come back.
    last_job_ms: AtomicU64,
}

impl Pool {
    pub(crate) fn start(threads: usize) -> io::Result<Pool> {
        let pool = Pool {
            shared: Arc::new(Shared {
                queue: Mutex::new(Ranks::new()),
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
    pub(crate) fn submit(&self, peer: IpAddr, rank: Rank, job: Job) -> (Result<(), Full>, Option<Job>) {
        let mut queue = self.shared.lock();
        let pushed = queue.push(AddressPrefix::of(peer), rank, job);
        let waiting = queue.waiting_before(rank) as u64;
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
    fn lock(&self) -> MutexGuard<'_, Ranks<Job>> {
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
        pool.submit(peer(1), Rank::Fresh, block).0.unwrap();
        running.recv_timeout(Duration::from_secs(10)).unwrap();
        for _ in 0..WAITING_PER_PEER_MAX {
            pool.submit(peer(1), Rank::Fresh, Box::new(|| {})).0.unwrap();
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let full = pool.submit(mapped, Rank::Fresh, Box::new(|| {})).0.unwrap_err();
        assert!((1..=RETRY_AFTER_S_MAX).contains(&full.retry_after_s));
        let host = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        for last in 0..WAITING_PER_PEER_MAX as u16 {
            pool.submit(host(last), Rank::Fresh, Box::new(|| {})).0.unwrap();
        }
        assert!(
            pool.submit(host(999), Rank::Fresh, Box::new(|| {})).0.is_err(),
            "one host has the whole /64"
        );
        pool.submit(peer(2), Rank::Fresh, Box::new(|| {})).0.unwrap();
        drop(gate);
    }

    #[test]
    fn a_panicking_job_does_not_cost_a_thread() {
        let pool = Pool::start(1).unwrap();
        pool.submit(peer(1), Rank::Fresh, Box::new(|| panic!("expected by this test"))).0.unwrap();
        let (sender, receiver) = mpsc::channel();
        pool.submit(peer(1), Rank::Fresh, Box::new(move || sender.send(7).unwrap())).0.unwrap();
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

    #[test]
    fn who_has_not_failed_waits_for_few_of_those_who_have() {
        let pool = Pool::start(1).unwrap();
        let (gate, gated) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let block: Job = Box::new(move || {
            started.send(()).unwrap();
            let _ = gated.recv();
        });
        pool.submit(peer(1), Rank::Fresh, block).0.unwrap();
        running.recv_timeout(Duration::from_secs(10)).unwrap();
        let (done, order) = mpsc::channel();
        let submit = |last: u8, rank: Rank| {
            let done = done.clone();
            pool.submit(peer(last), rank, Box::new(move || done.send((last, rank)).unwrap())).0.unwrap();
        };
        for last in 10..40 {
            submit(last, Rank::Failing);
        }
        for last in 40..60 {
            submit(last, Rank::Fresh);
        }
        submit(60, Rank::Slipped);
        submit(70, Rank::Known);
        drop(gate);
        let order: Vec<_> = (0..52).map(|_| order.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        let place = |last: u8| order.iter().position(|(other, _)| *other == last).unwrap();
        assert!(place(70) <= 1, "{order:?}");
        assert!((40..60).all(|last| place(last) <= 28), "{order:?}");
        // Nor do the others wait for ever.
        assert!(place(10) <= 12 && place(60) <= 12, "{order:?}");
    }

    /// The clinic's router, and strangers each with an address of their own.
    fn clinic() -> AddressPrefix {
        AddressPrefix::of(peer(1))
    }

    fn stranger(number: usize) -> AddressPrefix {
        AddressPrefix::V6((number as u64) << 16)
    }

    const STRANGER: &str = "a stranger";

    /// After how many computations the last one that is `wanted` is done.
    fn done_after(ranks: &mut Ranks<&'static str>, wanted: &str) -> usize {
        let done: Vec<_> = std::iter::from_fn(|| ranks.pop()).collect();
        1 + done.iter().rposition(|item| *item == wanted).unwrap()
    }

    #[test]
    fn strangers_take_no_place_of_who_is_known() {
        let mut ranks = Ranks::new();
        for _ in 0..10 {
            ranks.push(clinic(), Rank::Known, "known").unwrap();
        }
        // More than there are places, of every kind.
        for number in 0..4_000 {
            let rank = [Rank::Fresh, Rank::Slipped, Rank::Failing][number % 3];
            let displaced = ranks.push(stranger(number), rank, STRANGER).unwrap_or_else(Some);
            assert_ne!(displaced, Some("known"), "{number}");
        }
        assert!(done_after(&mut ranks, "known") <= 10 + 10 / 3);
    }

    /// Behind a clinic's router: strangers there, before any of them has failed, and who has logged in to their account there.
    #[test]
    fn who_is_known_at_an_address_goes_before_strangers_there() {
        let mut ranks = Ranks::new();
        for _ in 0..WAITING_PER_PEER_MAX {
            ranks.push(clinic(), Rank::Neighbour, STRANGER).unwrap();
        }
        for _ in 0..WAITING_PER_PEER_MAX {
            ranks.push(clinic(), Rank::Failing, STRANGER).unwrap();
        }
        for _ in 0..3 {
            ranks.push(clinic(), Rank::Known, "known").unwrap();
        }
        assert!(done_after(&mut ranks, "known") <= 4);
    }

    #[test]
    fn who_is_known_has_a_place_however_many_strangers_wait() {
        for strangers in [WAITING_TOTAL_MAX, 4_000] {
            let mut ranks = Ranks::new();
            for number in 0..strangers {
                let _ = ranks.push(stranger(number), Rank::Fresh, STRANGER);
            }
            for _ in 0..WAITING_PER_PEER_MAX {
                ranks.push(clinic(), Rank::Known, "known").unwrap();
            }
            assert!(ranks.push(clinic(), Rank::Known, "known").is_err(), "a client's own bound");
            assert!(done_after(&mut ranks, "known") <= WAITING_PER_PEER_MAX * 3 / 2);
        }
    }

    /// The same for every rank against the ones behind it, also where both are of one address.
    #[test]
    fn no_rank_has_fewer_places_for_a_later_one() {
        let ranked = [Rank::Known, Rank::Neighbour, Rank::Fresh, Rank::Slipped, Rank::Failing];
        for (at, rank) in ranked.into_iter().enumerate() {
            for later in ranked.into_iter().skip(at + 1) {
                let mut ranks = Ranks::new();
                for _ in 0..WAITING_PER_PEER_MAX {
                    ranks.push(clinic(), later, STRANGER).unwrap();
                }
                for number in 0..1_500 {
                    let _ = ranks.push(stranger(number), later, STRANGER);
                }
                for _ in 0..WAITING_PER_PEER_MAX {
                    ranks.push(clinic(), rank, "one before").unwrap();
                }
            }
        }
    }

    /// Nor has a later rank fewer places for an earlier one: addresses that are new do not shut out who has slipped once.
    #[test]
    fn no_rank_loses_its_places_to_an_earlier_one() {
        let mut ranks = Ranks::new();
        ranks.push(clinic(), Rank::Slipped, "slipped").unwrap();
        for number in 0..4_000 {
            let displaced = ranks.push(stranger(number), Rank::Fresh, STRANGER).unwrap_or_else(Some);
            assert_ne!(displaced, Some("slipped"), "{number}");
        }
        ranks.push(clinic(), Rank::Slipped, "slipped").unwrap();
        assert!(done_after(&mut ranks, "slipped") <= 2 * LATER_EACH as usize);
    }
}
