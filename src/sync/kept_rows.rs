//! Floor 3. Rows that the reconciliation keeps for itself and can do without: one that cannot be read begins anew, in the way
//! that is safe for what it says.

use crate::store::{StoreError, unless_unreadable};

/// What was read, or what stands for a row that cannot be read; the log says that.
pub(super) fn or_anew<T>(read: Result<T, StoreError>, anew: impl FnOnce() -> T) -> Result<T, StoreError> {
    if let Err(StoreError::Damaged(what)) = &read {
        tracing::error!(what, "a row of the reconciliation cannot be read and begins anew");
    }
    Ok(unless_unreadable(read)?.unwrap_or_else(anew))
}

#[cfg(test)]
mod tests;
