//! Floor 4. The number of the request that is being answered, for its log lines.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::futures::TaskLocalFuture;

/// Names a request in the log and in its answer: no other of this process has the same, and none of another one
/// is likely to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId(u64);

impl RequestId {
    pub(crate) fn next() -> RequestId {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        RequestId(COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes this the request of [`present_request`] for as long as `work` runs.
    pub(crate) fn scope<F: Future>(self, work: F) -> TaskLocalFuture<RequestId, F> {
        REQUEST.scope(self, work)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        static PROCESS: LazyLock<u32> = LazyLock::new(|| uuid::Uuid::new_v4().as_fields().0);
        write!(f, "{:08x}-{:x}", *PROCESS, self.0)
    }
}

tokio::task_local! {
    static REQUEST: RequestId;
}

/// The request that is being answered, for what is logged about it.
pub(crate) fn present_request() -> String {
    REQUEST.try_with(RequestId::to_string).unwrap_or_default()
}
