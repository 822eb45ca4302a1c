//! Floor 4. What requests take while they are worked on: bounded in all, and given to clients in turn.
//!
//! A text of many megabytes takes several times its length while it is read or made, and so long that the few worker
//! threads would be kept from everybody else. So each such piece of work says how much it takes ([`reading`],
//! [`writing`]) and waits until so much is free; a client has few places in the queue, and requests beyond them are told
//! to come later.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use bson::RawDocument;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::Node;
use super::caller::Caller;
use super::error::ApiError;
use super::rights::Rights;
use crate::domain::address::AddressPrefix;
use crate::domain::fair_queue::{Bounds, FairQueue};

/// What all work together may take. What would take more is done alone.
const IN_ALL_MAX: usize = 32 << 20;
/// Requests that wait: of one client, and in all. Of each only its text is held.
const WAITING: Bounds = Bounds { each: 128, in_all: 512 };
/// From what it takes on work is not done on the threads that serve everybody: it would keep others waiting for
/// milliseconds.
const LONG: usize = 1 << 20;
/// From how many bytes on a record is large, so that reading it counts. Text of smaller ones is made in a millisecond.
const LARGE_BYTES: usize = 256 << 10;
/// A text takes so many times its length once it is read: `[1,1,1]` has a value for every two bytes, of JSON and then of
/// BSON.
const PARSED_TIMES: usize = 100;
/// A record takes so many times its length while it is changed: as it lies there, decoded before and after, and encoded.
const CHANGED_TIMES: usize = 8;

static WORKLOAD: LazyLock<Arc<Workload>> = LazyLock::new(Arc::default);

pub(crate) fn is_large(record: &RawDocument) -> bool {
    record.as_bytes().len() > LARGE_BYTES
}

/// What making text of a record takes: its bytes and the text.
pub(crate) fn reading(record_bytes: usize) -> usize {
    record_bytes.saturating_mul(2)
}

/// What a write takes: its text, read, and the record that it changes.
pub(crate) fn writing(text_bytes: usize, record_bytes: usize) -> usize {
    let parsed = text_bytes.saturating_mul(PARSED_TIMES);
    parsed.saturating_add(record_bytes.saturating_mul(CHANGED_TIMES))
}

/// A part of what all work may take, as soon as it is this client's turn; an error where too many of its requests wait
/// already, or where the caller has lost a right meanwhile. Who has it waits for no record ([`crate::store::Store::turn`]):
/// those who have one wait for this.
pub(crate) async fn take(node: &Arc<Node>, caller: &Caller, bytes: usize) -> Result<Work, ApiError> {
    let client = AddressPrefix::of(caller.peer);
    match Workload::take(&WORKLOAD, client, bytes) {
        Taken::Work(work) => Ok(work),
        Taken::Waits(turn) => {
            let work = turn.await.map_err(|_| ApiError::Overloaded)?;
            Rights::of(node, caller).check_now()?;
            Ok(work)
        }
    }
}

struct Workload(Mutex<State>);

struct State {
    taken: usize,
    /// Whose turn is next, but there is not enough free.
    next: Option<Waiting>,
    waiting: FairQueue<Waiting>,
}

struct Waiting {
    bytes: usize,
    sender: oneshot::Sender<Work>,
}

enum Taken {
    Work(Work),
    /// Ends without any if there is no place to wait.
    Waits(oneshot::Receiver<Work>),
}

impl Default for Workload {
    fn default() -> Self {
        Workload(Mutex::new(State { taken: 0, next: None, waiting: FairQueue::new(WAITING) }))
    }
}

impl Workload {
    fn take(workload: &Arc<Workload>, client: AddressPrefix, bytes: usize) -> Taken {
        let bytes = bytes.min(IN_ALL_MAX);
        let (sender, receiver) = oneshot::channel();
        let refused = {
            let mut state = workload.lock();
            let is_next = state.next.is_none() && state.waiting.waiting() == 0;
            if is_next && state.taken + bytes <= IN_ALL_MAX {
                state.taken += bytes;
                return Taken::Work(Work { workload: Arc::clone(workload), bytes });
            }
            state.waiting.push(client, Waiting { bytes, sender })
        };
        // It learns that it has lost its place by this.
        drop(refused);
        Taken::Waits(receiver)
    }

    /// Takes for the next who waits, if there is enough.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        let next = state.next.take().or_else(|| state.waiting.pop())?;
        if state.taken + next.bytes > IN_ALL_MAX {
            state.next = Some(next);
            return None;
        }
        state.taken += next.bytes;
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of what all work may take, given back when dropped.
pub(crate) struct Work {
    workload: Arc<Workload>,
    bytes: usize,
}

impl Work {
    /// Does it; others are served meanwhile.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) if self.bytes >= LONG => tokio::task::block_in_place(work),
            // With one thread, as in tests, there is no other to be kept free.
            _ => work(),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        self.workload.lock().taken -= self.bytes;
        while let Some(Waiting { bytes, sender }) = self.workload.next() {
            let work = Work { workload: Arc::clone(&self.workload), bytes };
            if let Err(mut unused) = sender.send(work) {
                // They have left. Given back here, not by its own drop: many may have.
                unused.bytes = 0;
                self.workload.lock().taken -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::net::IpAddr;

    fn client(last: u8) -> AddressPrefix {
        AddressPrefix::of(IpAddr::from([192, 0, 2, last]))
    }

    fn now(taken: Taken) -> Work {
        match taken {
            Taken::Work(work) => work,
            Taken::Waits(_) => panic!("it waits"),
        }
    }

    fn waits(taken: Taken) -> oneshot::Receiver<Work> {
        match taken {
            Taken::Work(_) => panic!("it does not wait"),
            Taken::Waits(turn) => turn,
        }
    }

    #[test]
    fn clients_take_turns_and_who_left_is_passed_over() {
        let workload = Arc::<Workload>::default();
        let take = |last| Workload::take(&workload, client(last), usize::MAX);
        let first = now(take(1));
        let [mut second, mut third] = [waits(take(1)), waits(take(1))];
        let (leaving, mut other) = (waits(take(2)), waits(take(3)));
        drop(first);
        let held = (&mut second).now_or_never().expect("its turn").expect("work");
        drop(leaving);
        drop(held);
        assert!((&mut third).now_or_never().is_none(), "the other client comes first");
        let held = (&mut other).now_or_never().expect("its turn").expect("work");
        drop(held);
        // What was given to a request that ends before taking it is not lost.
        drop(third);
        drop(now(take(1)));
        assert_eq!(workload.lock().taken, 0);
    }

    #[test]
    fn as_much_is_done_at_once_as_there_is_room_for() {
        let workload = Arc::<Workload>::default();
        let take = |bytes| Workload::take(&workload, client(1), bytes);
        let parts: Vec<_> = (0..4).map(|_| now(take(IN_ALL_MAX / 4))).collect();
        let mut whole = waits(take(IN_ALL_MAX));
        let mut small = waits(take(1));
        for part in parts {
            assert!((&mut whole).now_or_never().is_none());
            assert!((&mut small).now_or_never().is_none(), "nobody overtakes who needs much");
            drop(part);
        }
        let held = whole.now_or_never().expect("its turn").expect("work");
        assert!((&mut small).now_or_never().is_none());
        drop(held);
        assert!(small.now_or_never().expect("its turn").is_ok());
    }

    #[test]
    fn a_client_has_few_places_and_a_newcomer_has_one() {
        let workload = Arc::<Workload>::default();
        let take = |last| Workload::take(&workload, client(last), usize::MAX);
        let held = now(take(1));
        let waiting: Vec<_> = (0..WAITING.each).map(|_| waits(take(1))).collect();
        assert!(waits(take(1)).now_or_never().expect("at once").is_err());
        let mut newcomer = waits(take(2));
        assert!((&mut newcomer).now_or_never().is_none());
        drop(held);
        drop(waiting.into_iter().next());
        assert!(newcomer.now_or_never().expect("after one of the other client").is_ok());
    }
}
