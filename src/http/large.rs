//! Floor 4. Work on large records: one at a time, in turn among clients, and not on the threads that serve everybody.
//!
//! To make text of a record of many megabytes, or to change it, takes a tenth of a second and several times its memory.
//! Clients that ask for that at once, and again and again, would keep the few worker threads from all others; so each
//! such request waits for its turn, a client has few places in the queue, and those beyond are told to come later.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bson::RawDocument;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::Node;
use super::caller::Caller;
use super::error::ApiError;
use super::rights::Rights;
use crate::domain::address::AddressPrefix;
use crate::domain::fair_queue::FairQueue;

/// From how many bytes on a record, or the body of a request, is large. What is smaller takes a few milliseconds.
const LARGE_BYTES: usize = 256 << 10;

static TURNS: LazyLock<Arc<Turns>> = LazyLock::new(Arc::default);

pub(crate) fn is_large(record: &RawDocument) -> bool {
    has_many(record.as_bytes().len())
}

pub(crate) fn has_many(bytes: usize) -> bool {
    bytes > LARGE_BYTES
}

/// Does the work in this turn, or here and now where none is needed.
pub(crate) fn work<T>(turn: Option<&Turn>, work: impl FnOnce() -> T) -> T {
    match turn {
        Some(turn) => turn.work(work),
        None => work(),
    }
}

/// The next turn of a client at large records; an error where too many of its requests wait already, or where the caller
/// has lost a right meanwhile.
pub(crate) async fn turn(node: &Arc<Node>, caller: &Caller) -> Result<Turn, ApiError> {
    let turn = Turns::take(&TURNS, AddressPrefix::of(caller.peer)).await.ok_or(ApiError::Overloaded)?;
    Rights::of(node, caller).check_now()?;
    Ok(turn)
}

#[derive(Default)]
struct Turns(Mutex<State>);

#[derive(Default)]
struct State {
    is_taken: bool,
    waiting: FairQueue<oneshot::Sender<Turn>>,
}

impl Turns {
    async fn take(turns: &Arc<Turns>, client: AddressPrefix) -> Option<Turn> {
        let (sender, receiver) = oneshot::channel();
        let displaced = {
            let mut state = turns.lock();
            if !state.is_taken {
                state.is_taken = true;
                return Some(Turn(Some(Arc::clone(turns))));
            }
            state.waiting.push(client, sender)
        };
        // Who is displaced learns it by this.
        drop(displaced.ok()?);
        receiver.await.ok()
    }

    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.lock();
        let next = state.waiting.pop();
        state.is_taken = next.is_some();
        next
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn, which goes to the next who waits when it is dropped.
pub(crate) struct Turn(Option<Arc<Turns>>);

impl Turn {
    /// Does the work; others are served meanwhile.
    pub(crate) fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
            // One thread, as in tests: there is no other to be kept free.
            _ => work(),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else {
            return;
        };
        while let Some(next) = turns.next() {
            match next.send(Turn(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // They have left; nobody has this turn, and it ends without going on by itself.
                Err(mut unused) => unused.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fair_queue::WAITING_PER_PEER_MAX;
    use futures_util::FutureExt as _;
    use std::net::IpAddr;
    use std::pin::pin;

    fn client(last: u8) -> AddressPrefix {
        AddressPrefix::of(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn clients_take_turns_and_who_left_is_passed_over() {
        let turns = Arc::<Turns>::default();
        let take = |last| Box::pin(Turns::take(&turns, client(last)));
        let first = take(1).now_or_never().flatten().expect("nobody was before");
        let [mut second, mut third, mut leaving, mut other] = [take(1), take(1), take(2), take(3)];
        for waits in [&mut second, &mut third, &mut leaving, &mut other] {
            assert!(waits.now_or_never().is_none());
        }
        drop(first);
        let held = (&mut second).now_or_never().flatten().expect("its turn");
        drop(leaving);
        drop(held);
        assert!((&mut third).now_or_never().is_none(), "the other client comes first");
        let held = (&mut other).now_or_never().flatten().expect("its turn");
        drop(held);
        // A turn that was given to somebody who leaves before taking it is not lost.
        drop(third);
        assert!(take(1).now_or_never().flatten().is_some());
    }

    #[test]
    fn a_client_has_few_places_and_a_newcomer_has_one() {
        let turns = Arc::<Turns>::default();
        let take = |last| Box::pin(Turns::take(&turns, client(last)));
        let held = take(1).now_or_never().flatten().expect("nobody was before");
        let mut waiting: Vec<_> = (0..WAITING_PER_PEER_MAX).map(|_| take(1)).collect();
        for waits in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        let refused = take(1).now_or_never().expect("at once");
        assert!(refused.is_none());
        let mut newcomer = pin!(take(2));
        assert!(newcomer.as_mut().now_or_never().is_none());
        drop(held);
        drop(waiting.remove(0));
        assert!(newcomer.now_or_never().flatten().is_some(), "after one of the other client");
    }
}
