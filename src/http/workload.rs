//! Floor 4. What requests take while they are worked on: bounded in all, and given to clients in turn.
//!
//! A text of many megabytes takes several times its length while it is read or made, and so long that the few worker
//! threads would be kept from everybody else. So each such piece of work says how much it takes ([`reading`],
//! [`writing`]) and waits until so much is free ([`Budget`]); a client has few places in the queue, and requests beyond
//! them are told to come later. What takes little has an amount of its own, and never waits for what takes much.

use std::sync::{Arc, LazyLock};

use bson::RawDocument;

use crate::domain::address::AddressPrefix;
use crate::domain::fair_queue::Bounds;
use crate::domain::json::weight::{self, RECORD_MAX};
use crate::http::access::caller::Caller;
use crate::http::access::rights::Rights;
use crate::http::error::ApiError;
use crate::http::state::app_state::AppState;
use crate::store::{Budget, Given, Share, off_workers};

/// What all work together may take that takes much. What would take more is done alone.
const LARGE_IN_ALL_MAX: usize = 20 << 20;
/// What all work together may take of which each takes no more than [`SMALL_MAX`]: pieces of lists, and most writes.
const SMALL_IN_ALL_MAX: usize = 16 << 20;
const SMALL_MAX: usize = LIST_PIECE;
/// The same of uploads.
const UPLOADS_IN_ALL_MAX: usize = 32 << 20;
/// Requests that wait: of one client, and in all. Of each only its text is held.
const WAITING: Bounds = Bounds { each: 128, in_all: 512 };
/// From what it takes on work is not done on the threads that serve everybody: it would keep others waiting for
/// milliseconds.
const LONG: usize = 1 << 20;
/// From how many bytes on a record is large, so that reading it counts. Text of smaller ones is made in a millisecond.
pub(crate) const LARGE_BYTES: usize = 256 << 10;
/// A record takes so many times its length while it is changed, beside the trees of its values: as it lies there, encoded
/// again, and the texts in it decoded before and after.
const CHANGED_TIMES: usize = 5;
/// Trees of a record that is changed: before and after.
const CHANGED_TREES: usize = 2;
/// A row of the store takes so many times its length while it is decoded and shown.
const SHOWN_TIMES: usize = 6;
/// What a piece of a list takes: four are read at once.
const LIST_PIECE: usize = 4 << 20;

/// What a piece of the list of conflicts takes, whose rows may have many megabytes each: two are read at once.
const ROWS_PIECE: usize = LARGE_IN_ALL_MAX / 2;

static SMALL: LazyLock<Arc<Budget>> = LazyLock::new(|| Arc::new(Budget::new(SMALL_IN_ALL_MAX, WAITING)));
static LARGE: LazyLock<Arc<Budget>> = LazyLock::new(|| Arc::new(Budget::new(LARGE_IN_ALL_MAX, WAITING)));
/// Uploads that are here as a whole, and are hashed and written: their bytes are counted as bodies, and disks are slow.
static UPLOADS: LazyLock<Arc<Budget>> = LazyLock::new(|| Arc::new(Budget::new(UPLOADS_IN_ALL_MAX, WAITING)));

pub(crate) fn is_large(record: &RawDocument) -> bool {
    record.as_bytes().len() > LARGE_BYTES
}

/// What making text of a record takes, as far as its length tells: its bytes and the text.
pub(crate) fn reading(record_bytes: usize) -> usize {
    record_bytes.saturating_mul(2)
}

/// How much of [`reading`] is the text.
pub(crate) fn text_of(reading: usize) -> usize {
    reading / 2
}

/// What changing a record as it is stored takes.
pub(crate) fn changing(record: &RawDocument) -> usize {
    let bytes = record.as_bytes().len().saturating_mul(CHANGED_TIMES);
    let trees = match bytes > LARGE_IN_ALL_MAX {
        // Done alone, whatever is in it.
        true => 0,
        false => weight::of_document(record, LARGE_IN_ALL_MAX).saturating_mul(CHANGED_TREES),
    };
    bytes.saturating_add(trees)
}

/// What a write takes: its text, read, and the record that it changes ([`changing`]).
pub(crate) fn writing(text: &[u8], changing: usize) -> usize {
    weight::of_text(text).saturating_add(text.len()).saturating_add(changing)
}

/// What decoding and showing a row of so many bytes takes.
pub(crate) fn showing(row_bytes: usize) -> usize {
    let trees = RECORD_MAX.min(row_bytes.saturating_mul(20));
    row_bytes.saturating_mul(SHOWN_TIMES).saturating_add(trees)
}

/// A part of what all work may take, as soon as it is this client's turn; an error where too many of its requests wait
/// already, or where the caller has lost a right meanwhile. Who has it waits for no record ([`crate::store::Store::turn`]):
/// those who have one wait for this.
pub(crate) async fn take(node: &Arc<AppState>, caller: &Caller, bytes: usize) -> Result<Work, ApiError> {
    take_of(budget_for(bytes), node, caller, bytes).await
}

fn budget_for(bytes: usize) -> &'static Arc<Budget> {
    if bytes <= SMALL_MAX { &SMALL } else { &LARGE }
}

/// All of what takes much, if nobody has any: for tests of what goes on meanwhile.
#[doc(hidden)]
pub fn all_large_work() -> Option<Share> {
    match LARGE.take(AddressPrefix::V6(0), LARGE_IN_ALL_MAX) {
        Given::Share(share) => Some(share),
        Given::Waits(_) => None,
    }
}

/// All of it, if nobody has any: for tests of requests that wait.
#[doc(hidden)]
pub fn all_work() -> Option<[Share; 2]> {
    match SMALL.take(AddressPrefix::V6(0), SMALL_IN_ALL_MAX) {
        Given::Share(small) => Some([small, all_large_work()?]),
        Given::Waits(_) => None,
    }
}

/// For a piece of a list.
pub(crate) async fn take_for_list(node: &Arc<AppState>, caller: &Caller) -> Result<Work, ApiError> {
    take(node, caller, LIST_PIECE).await
}

/// For a piece of the list of conflicts.
pub(crate) async fn take_for_rows(node: &Arc<AppState>, caller: &Caller) -> Result<Work, ApiError> {
    take(node, caller, ROWS_PIECE).await
}

/// For an upload of so many bytes.
pub(crate) async fn take_for_upload(
    node: &Arc<AppState>,
    caller: &Caller,
    bytes: usize,
) -> Result<Work, ApiError> {
    take_of(&UPLOADS, node, caller, bytes).await
}

async fn take_of(
    budget: &Arc<Budget>,
    node: &Arc<AppState>,
    caller: &Caller,
    bytes: usize,
) -> Result<Work, ApiError> {
    match budget.take(AddressPrefix::of(caller.peer), bytes) {
        Given::Share(share) => Ok(Work(share)),
        Given::Waits(turn) => {
            let share = turn.await.map_err(|_| ApiError::Overloaded)?;
            Rights::of(node, caller).check_now()?;
            Ok(Work(share))
        }
    }
}

/// Returns once so many bytes of the caller's answer have their place ([`crate::http::bodies::answer_budget`]); an error where there is
/// none for long, or where the caller has lost a right meanwhile. Call it without work: it may wait for slow readers.
pub(crate) async fn wait_for_place(
    node: &Arc<AppState>,
    caller: &Caller,
    bytes: usize,
) -> Result<(), ApiError> {
    if caller.answer.place(bytes) {
        return Ok(());
    }
    caller.answer.wait_for_place(bytes).await?;
    Rights::of(node, caller).check_now()
}

/// A part of what all work may take, given back when dropped.
pub(crate) struct Work(Share);

impl Work {
    /// Does it; others are served meanwhile.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.0.amount() >= LONG { off_workers(work) } else { work() }
    }

    /// Whether so many bytes are among it, or it is all that there is.
    pub(crate) fn covers(&self, bytes: usize) -> bool {
        self.0.amount() >= bytes.min(LARGE_IN_ALL_MAX)
    }
}
