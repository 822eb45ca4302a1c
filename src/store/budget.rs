//! Floor 1. Amounts that many clients share and that end: each waits for its turn, and clients take turns.
//!
//! One client's requests wait for each other, and for at most one of each other client ([`FairQueue`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::address::AddressPrefix;
use crate::domain::fair_queue::{Bounds, FairQueue};

/// An amount that is shared: bytes of memory, or turns.
pub struct Budget {
    in_all: usize,
    state: Mutex<State>,
}

struct State {
    taken: usize,
    /// Whose turn is next, but there is not enough free.
    next: Option<Waiting>,
    waiting: FairQueue<Waiting>,
}

struct Waiting {
    amount: usize,
    sender: oneshot::Sender<Share>,
}

/// What [`Budget::take`] gives.
pub enum Given {
    Share(Share),
    /// Ends without any if there is no place to wait.
    Waits(oneshot::Receiver<Share>),
}

impl Budget {
    /// Of so much in all, for which so many may wait.
    pub fn new(in_all: usize, waiting: Bounds) -> Budget {
        Budget { in_all, state: Mutex::new(State { taken: 0, next: None, waiting: FairQueue::new(waiting) }) }
    }

    /// For one at a time, however many wait.
    pub fn one_at_a_time() -> Budget {
        Budget::new(1, Bounds { each: usize::MAX, in_all: usize::MAX })
    }

    /// A share of the amount at once, or a place to wait for one. Who wants more than there is gets all of it.
    pub fn take(self: &Arc<Budget>, client: AddressPrefix, amount: usize) -> Given {
        let amount = amount.min(self.in_all);
        let mut state = self.lock();
        let is_next = state.next.is_none() && state.waiting.waiting() == 0;
        if is_next && state.taken + amount <= self.in_all {
            state.taken += amount;
            drop(state);
            return Given::Share(Share { budget: Arc::clone(self), amount });
        }
        let (sender, receiver) = oneshot::channel();
        let refused = state.waiting.push(client, Waiting { amount, sender });
        drop(state);
        // It learns that it has lost its place by this.
        drop(refused);
        Given::Waits(receiver)
    }

    /// Takes for the next who waits, if there is enough.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        let mut next = state.next.take().or_else(|| state.waiting.pop())?;
        // Those who have gone keep nobody waiting.
        while next.sender.is_closed() {
            next = state.waiting.pop()?;
        }
        if state.taken + next.amount > self.in_all {
            state.next = Some(next);
            return None;
        }
        state.taken += next.amount;
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A share of a [`Budget`], given back when dropped.
pub struct Share {
    budget: Arc<Budget>,
    amount: usize,
}

impl Share {
    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        self.budget.lock().taken -= self.amount;
        while let Some(Waiting { amount, sender }) = self.budget.next() {
            let share = Share { budget: Arc::clone(&self.budget), amount };
            if let Err(mut unused) = sender.send(share) {
                // They have left. Given back here, not by its own drop: many may have.
                unused.amount = 0;
                self.budget.lock().taken -= amount;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt;

    use super::*;

    const IN_ALL: usize = 1 << 20;
    const WAITING: Bounds = Bounds { each: 128, in_all: 512 };

    fn client(last: u8) -> AddressPrefix {
        AddressPrefix::of(IpAddr::from([192, 0, 2, last]))
    }

    fn budget() -> Arc<Budget> {
        Arc::new(Budget::new(IN_ALL, WAITING))
    }

    fn now(taken: Given) -> Share {
        match taken {
            Given::Share(share) => share,
            Given::Waits(_) => panic!("it waits"),
        }
    }

    fn waits(taken: Given) -> oneshot::Receiver<Share> {
        match taken {
            Given::Share(_) => panic!("it does not wait"),
            Given::Waits(turn) => turn,
        }
    }

    #[test]
    fn clients_take_turns_and_who_left_is_passed_over() {
        let budget = budget();
        let take = |last| budget.take(client(last), usize::MAX);
        let first = now(take(1));
        let [mut second, mut third] = [waits(take(1)), waits(take(1))];
        let (leaving, mut other) = (waits(take(2)), waits(take(3)));
        drop(first);
        let held = (&mut second).now_or_never().expect("its turn").expect("a share");
        drop(leaving);
        drop(held);
        assert!((&mut third).now_or_never().is_none(), "the other client comes first");
        let held = (&mut other).now_or_never().expect("its turn").expect("a share");
        drop(held);
        // What was given to a request that ends before taking it is not lost.
        drop(third);
        drop(now(take(1)));
        assert_eq!(budget.lock().taken, 0);
    }

    #[test]
    fn as_much_is_done_at_once_as_there_is_room_for() {
        let budget = budget();
        let take = |amount| budget.take(client(1), amount);
        let parts: Vec<_> = (0..4).map(|_| now(take(IN_ALL / 4))).collect();
        let mut whole = waits(take(IN_ALL));
        let mut small = waits(take(1));
        for part in parts {
            assert!((&mut whole).now_or_never().is_none());
            assert!((&mut small).now_or_never().is_none(), "nobody overtakes who needs much");
            drop(part);
        }
        let held = whole.now_or_never().expect("its turn").expect("a share");
        assert!((&mut small).now_or_never().is_none());
        drop(held);
        assert!(small.now_or_never().expect("its turn").is_ok());
    }

    #[test]
    fn a_client_has_few_places_and_a_newcomer_has_one() {
        let budget = budget();
        let take = |last| budget.take(client(last), usize::MAX);
        let held = now(take(1));
        let waiting: Vec<_> = (0..WAITING.each).map(|_| waits(take(1))).collect();
        assert!(waits(take(1)).now_or_never().expect("at once").is_err());
        let mut newcomer = waits(take(2));
        assert!((&mut newcomer).now_or_never().is_none());
        drop(held);
        drop(waiting.into_iter().next());
        assert!(newcomer.now_or_never().expect("after one of the other client").is_ok());
    }

    #[test]
    fn one_at_a_time_refuses_nobody() {
        let turns = Arc::new(Budget::one_at_a_time());
        let held = now(turns.take(client(1), 1));
        let mut waiting = (0..2000).map(|_| waits(turns.take(client(1), 1))).collect::<Vec<_>>().into_iter();
        let mut other = waits(turns.take(client(2), 1));
        drop(held);
        let first = waiting.next().and_then(FutureExt::now_or_never).expect("its turn").expect("a share");
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        assert!(other.now_or_never().expect("after one of the crowd").is_ok());
        assert!(waiting.next().and_then(FutureExt::now_or_never).expect("its turn").is_ok());
    }
}
