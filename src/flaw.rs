//! Floor 0. What tests break on purpose: rules that are left out, places where a node dies, and chance.
//!
//! A check proves nothing before it has seen what it looks for. Each [`Flaw`] leaves out one rule of the
//! reconciliation at the one line that keeps it; the simulation plants them one by one and must notice. All of
//! this exists only in builds with the feature `failpoints`; elsewhere `planted` is `false` and costs nothing.

/// A rule that is left out, on the thread that planted the flaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The value that loses a merge is not recorded.
    LoserDropped,
    /// A delete stands against an edit that it did not see.
    DeleteBeatsEdit,
    /// After an acknowledgement the base is what the record is by now, not what was sent.
    BaseIsWholeLocal,
    /// A record is merged while a write of it is on the way.
    MergeWithOpenIntent,
    /// A read is applied although a write was sent or settled after it.
    StaleReadApplied,
    /// An acknowledgement is taken without a look at whether its write is still the open one.
    UnguardedAck,
    /// Records of a person who waits for a decision are pushed.
    HeldPagesPushed,
    /// A lease whose acknowledgement was lost is taken for somebody else's.
    LostLeaseIsClone,
    /// The position in the change feed is saved before what it stands for is taken.
    TokenBeforeBatch,
    /// Nobody looks at everything after the history had a gap.
    NoRescanAfterLostHistory,
    /// Writes are settled as soon as they are acknowledged, and no round ends with a seal.
    NeverSealed,
    /// What is not sealed is trusted although another server process answers.
    UnsealedTrusted,
    /// Versions of a record that belong to different people are merged.
    OwnersMerged,
    /// Records are sent before their person.
    PersonNotAwaited,
    /// An old image sends again what it has delivered already.
    DeliveredIgnored,
}

impl Flaw {
    pub const ALL: [Flaw; 15] = [
        Flaw::LoserDropped,
        Flaw::DeleteBeatsEdit,
        Flaw::BaseIsWholeLocal,
        Flaw::MergeWithOpenIntent,
        Flaw::StaleReadApplied,
        Flaw::UnguardedAck,
        Flaw::HeldPagesPushed,
        Flaw::LostLeaseIsClone,
        Flaw::TokenBeforeBatch,
        Flaw::NoRescanAfterLostHistory,
        Flaw::NeverSealed,
        Flaw::UnsealedTrusted,
        Flaw::OwnersMerged,
        Flaw::PersonNotAwaited,
        Flaw::DeliveredIgnored,
    ];
}

#[cfg(not(feature = "failpoints"))]
pub(crate) const fn planted(_flaw: Flaw) -> bool {
    false
}

#[cfg(not(feature = "failpoints"))]
pub(crate) fn fresh_id() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// A named place where tests end the process.
pub(crate) fn step(_name: &'static str) {
    #[cfg(feature = "failpoints")]
    {
        planting::passing(_name);
        fail::eval(_name, |_| {
            // What a power cut does: no destructor, no flush.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        });
    }
}

/// A named place where tests have the program panic, as redb does on pages that make no sense.
pub(crate) fn panics(_name: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::eval(_name, drop);
}

#[cfg(feature = "failpoints")]
pub use planting::{count_ids, on_step, plant};
#[cfg(feature = "failpoints")]
pub(crate) use planting::{fresh_id, planted};

#[cfg(feature = "failpoints")]
mod planting {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use crate::flaw::Flaw;

    /// Called with the name of each step of a round; a panic in it is the death of the node.
    type Watcher = Rc<dyn Fn(&'static str)>;

    thread_local! {
        static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
        static COUNTED: Cell<Option<u128>> = const { Cell::new(None) };
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Plants a flaw on this thread, or takes the planted one away.
    pub fn plant(flaw: Option<Flaw>) {
        PLANTED.set(flaw);
    }

    pub(crate) fn planted(flaw: Flaw) -> bool {
        PLANTED.get() == Some(flaw)
    }

    /// Makes ids that are told apart but not by chance, so that a course of events repeats itself; or, with
    /// `false`, by chance again.
    pub fn count_ids(is_counted: bool) {
        COUNTED.set(is_counted.then_some(0));
    }

    pub(crate) fn fresh_id() -> uuid::Uuid {
        match COUNTED.get() {
            Some(count) => {
                COUNTED.set(Some(count + 1));
                // Spread, as those by chance are.
                uuid::Uuid::from_u128((count + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
            }
            None => uuid::Uuid::new_v4(),
        }
    }

    /// Has `watcher` called at every step of every round on this thread.
    pub fn on_step(watcher: Option<Watcher>) {
        WATCHER.set(watcher);
    }

    /// A round is at this step.
    pub(crate) fn passing(step: &'static str) {
        let watcher = WATCHER.with_borrow(Clone::clone);
        if let Some(watcher) = watcher {
            watcher(step);
        }
    }
}
