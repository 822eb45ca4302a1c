//! Floor 1. The open store: views for reading, transactions for writing, and what both share.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::audit_buffer::Notes;
use super::database::Engine;
use super::record_locks::RecordLocks;
use super::snapshot::Snapshot;
use super::space::Space;
use super::transaction::Tx;
use super::writer::Writer;
use crate::store::error::StoreError;
use crate::store::file::StoreFile;

/// Milliseconds since 1970, for people to read; nothing is ever decided by it.
pub type Clock = fn() -> i64;

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Size of redb's page cache.
    pub cache_bytes: usize,
    /// How many changes the change feed keeps.
    pub journal_keep_rows: u64,
    /// How many entries the audit trail keeps.
    pub audit_keep_rows: u64,
    pub clock: Clock,
}

/// The open store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(in crate::store) inner: Arc<Inner>,
}

pub(in crate::store) struct Inner {
    /// Declared first: the writer finishes its queue before the database closes.
    pub(in crate::store) writer: Writer,
    pub(in crate::store) engine: Arc<Engine>,
    pub(in crate::store) changes: watch::Receiver<u64>,
    pub(in crate::store) clock: Clock,
    pub(in crate::store) options: StoreOptions,
    pub(in crate::store) record_locks: RecordLocks,
    pub(in crate::store) notes: Notes,
    /// Set once, if a reserve is to be kept.
    pub(in crate::store) space: OnceLock<Space>,
    /// The store's own, if it has one.
    pub(in crate::store) file: Option<StoreFile>,
}

impl Store {
    /// A consistent view of everything committed so far. Short-lived: never keep one while a client reads.
    pub fn read(&self) -> Result<Arc<Snapshot>, StoreError> {
        self.inner.engine.view()
    }

    /// Runs `job` in a write transaction and answers when its effects are on disk.
    ///
    /// Either all of the job's effects last or none. `job` may be run again from the start, so it must
    /// not keep anything from an earlier run.
    pub async fn transact<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.inner.writer.submit(job, false).await
    }

    /// Runs `job` as [`Store::transact`] does, and undoes what it wrote: to see what it would say.
    pub async fn try_out<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.inner.writer.submit(job, true).await
    }

    /// How many jobs wait for the writer, without the one that it is at.
    pub fn waiting_jobs(&self) -> usize {
        self.inner.writer.waiting()
    }

    /// The sequence number of the last committed change, and word of each new one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.clone()
    }

    /// Word of it when nothing can be written any more until the store is opened anew: see [`StoreError::GivenUp`].
    pub fn given_up(&self) -> watch::Receiver<bool> {
        self.inner.engine.given_up.subscribe()
    }

    /// Whether that is so.
    pub fn has_given_up(&self) -> bool {
        self.inner.engine.has_given_up()
    }

    /// The store's clock, for timestamps that people read.
    pub fn now_ms(&self) -> i64 {
        (self.inner.clock)()
    }
}
