//! Floor 1. The reserve: free bytes on the store's disk that clients' writes leave alone.
//!
//! A disk that is full to the last byte fails the store in the middle of a commit. So a write of a client is
//! refused before that, and what is left serves to send out what was edited here. Looking costs microseconds, a
//! write a flush, so it is looked at every time; writes that are on their way count as written.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::store::Store;
use crate::store::error::{Shortage, StoreError};

/// Free bytes of the disk, as they are now.
pub type FreeBytes = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

pub(crate) struct Space {
    reserve_bytes: u64,
    free: FreeBytes,
    /// Bytes of writes that are on their way.
    claimed: AtomicU64,
}

/// Space for a write; given back when dropped.
pub struct Claim<'s> {
    of: Option<(&'s Space, u64)>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some((space, bytes)) = self.of {
            space.claimed.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Space {
    /// What would be missing from the reserve if so many bytes more were written. A disk that cannot be asked
    /// says it when it is written to.
    fn shortage(&self, bytes: u64) -> Option<Shortage> {
        let free_bytes = (self.free)().ok()?;
        let wanted = self.reserve_bytes.saturating_add(bytes);
        (free_bytes < wanted).then_some(Shortage { free_bytes, reserve_bytes: self.reserve_bytes })
    }
}

/// Free bytes and all bytes of the file system that holds this file, as far as this process may use them.
pub fn space_at(path: &Path) -> io::Result<(u64, u64)> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((bytes(found.f_bavail), bytes(found.f_blocks)))
}

/// Free bytes of the file system that holds this file, as far as this process may use them.
pub fn free_bytes_at(path: &Path) -> FreeBytes {
    let path = path.to_owned();
    Box::new(move || space_at(&path).map(|(free, _)| free))
}

impl Store {
    /// From now on clients' writes leave so many bytes free. The first call counts.
    pub fn keep_free(&self, reserve_bytes: u64, free: FreeBytes) {
        let _ = self.inner.space.set(Space { reserve_bytes, free, claimed: AtomicU64::new(0) });
    }

    /// How far the disk is below its reserve; `None` if it is not.
    pub fn shortage(&self) -> Option<Shortage> {
        self.inner.space.get()?.shortage(0)
    }

    /// Takes space for a client's write of about so many bytes, until the claim is dropped.
    /// [`StoreError::Short`] if the reserve would be touched.
    pub fn claim(&self, bytes: u64) -> Result<Claim<'_>, StoreError> {
        let Some(space) = self.inner.space.get() else {
            return Ok(Claim { of: None });
        };
        let before = space.claimed.fetch_add(bytes, Ordering::Relaxed);
        let claim = Claim { of: Some((space, bytes)) };
        match space.shortage(before.saturating_add(bytes)) {
            Some(shortage) => Err(StoreError::Short(shortage)),
            None => Ok(claim),
        }
    }
}
