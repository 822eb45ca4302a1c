//! Floor 1. Panics of redb on damaged files, caught and told in a sentence.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::store::error::StoreError;

/// Says that redb gave up on a file.
pub(crate) const GIVEN_UP: &str = "its pages do not fit together";

thread_local! {
    /// In how many [`caught`] this thread is.
    static CAUGHT: Cell<usize> = const { Cell::new(0) };
}

/// Does something; a panic in it is an error, and leaves no trace on standard error.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    hush();
    CAUGHT.set(CAUGHT.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(CAUGHT.get() - 1);
    done
}

/// Does something with a file that may be damaged in any way; redb gives up on some of them by panicking.
pub(crate) fn unpanicked<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    caught(work).unwrap_or_else(|_| Err(StoreError::Damaged(GIVEN_UP.to_owned())))
}

/// Has the trace of a panic that is caught and told in a sentence left out.
fn hush() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |about| {
            if CAUGHT.get() == 0 {
                others(about);
            }
        }));
    });
}
