//! Floor 1. The embedded store: the only floor that knows redb.
//!
//! Hides tables, keys, transactions and durability. Reads go through a [`Snapshot`], writes through
//! [`Store::transact`]: many writers share one durable commit, and nobody is answered before it is on
//! disk. What a write does to the bookkeeping of the reconciliation (base, dirty, journal, indexes)
//! happens in one file, `records.rs`, in the same transaction.

mod asked_anew;
mod audit;
mod audit_age;
mod backup;
mod carry;
mod check;
mod claimed;
mod clear;
mod closed;
mod conflict_authors;
mod conflict_reads;
mod conflicts;
mod content;
mod content_check;
mod damaged_accounts;
mod deletion;
mod delivered;
mod departed;
mod edit;
mod emergency;
mod engine;
mod fair;
mod feed_rows;
mod fields;
mod file;
mod grants;
mod heal;
mod holder_identity;
mod holders;
mod holds;
mod indexes;
mod kept;
mod landed;
mod leaving;
mod meant;
mod mend;
mod meta;
mod new_conflicts;
mod noted_owners;
mod notes;
mod overlay;
mod ownerless;
mod pages;
mod put_right;
mod rebuild;
mod records;
mod reindex;
mod repeats;
mod restore_rows;
mod rights_count;
mod rows;
mod salvage;
mod scrub;
mod sealed;
mod search;
mod set_aside;
mod set_aside_rows;
mod shared;
mod snapshot;
mod space;
mod sparing;
mod stand_in;
mod standing;
mod starting;
mod sync_rows;
mod tables;
mod taken_dates;
mod taken_over;
mod tally;
mod trash;
mod trash_age;
mod trial;
mod undecided;
mod undelete;
mod unsent_versions;
mod unsettled;
mod upgrade;
mod upkeep;
mod whose;
mod writer;
mod written_over;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;

use engine::{Engine, Watched};
use file::StoreFile;
use overlay::unpanicked;
use writer::{Writer, WriterLoop};

use crate::files::is_no_room;

pub use audit::{Asker, AuditPage, AuditQuery, AuditRow, asked_by};
pub use backup::{About, Manifest, StreamError, Summary};
pub use claimed::{FormerHolders, OwnerDoubt};
pub use clear::{ClearFiles, files_in_the_clear};
pub use closed::{ActiveChange, ActiveChanges};
pub use conflicts::{Conflict, ConflictStatus, Note, Subject, stands_name};
pub use content::{CONTENT_TABLE, ContentsLeft, IdleContents, OwedContent, WantedContent};
pub use deletion::Deletion;
pub use delivered::{Compared, Delivered, STORE_FIELD};
pub use departed::{identity_in, identity_row};
pub use edit::{Edit, EditError, Requirement};
pub use emergency::{Emergency, EmergencyError, under};
pub(crate) use engine::off_workers;
pub use fair::{Budget, Charge, Given, Share};
pub use feed_rows::{Reread, Sent, Vanished};
#[cfg(test)]
pub(crate) use fields::table::Codec;
pub(crate) use fields::{Fields, unless_unreadable};
pub use grants::Granted;
pub use heal::Damage;
pub use holds::{Held, Hold, HoldReason};
pub use kept::{Kept, KeptKey, KeptOf};
pub use landed::{Landing, Taken};
pub use leaving::Stays;
pub use mend::META_VERIFY_DUE;
pub use noted_owners::{About as ConflictAbout, NotedOwner};
pub use notes::Unnoted;
pub use ownerless::{LeftBehind, LeftBehindCount};
pub use put_right::BitsPutRight;
pub use rebuild::{read_backup, rebuild};
pub use records::Tx;
pub use reindex::is_made_anew;
pub use rows::DamagedRow;
pub use salvage::{Left, LeftChunk, LeftRecord, read_what_is_left};
pub use scrub::Scrub;
pub use sealed::{SealError, Sealed, StoreKey};
pub use set_aside::SetAsideError;
pub use set_aside_rows::AsideRows;
pub use snapshot::{JournalRow, JournalWindow, Part, RecordPage, Snapshot, StoredRecord};
pub use space::{Claim, FreeBytes, Shortage, free_bytes_at, space_at};
pub(crate) use stand_in::unless_damaged;
pub use standing::{Right, Stale, Standing};
pub use sync_rows::{
    DeadLetter, Intent, IntentWrite, NOT_ARCHIVED_CODE, OpenWrite, Pending, UNREADABLE_CODE,
};
pub use tables::{Base, FORMAT_VERSION};
pub use taken_over::Published;
pub use trash::{TrashPage, TrashRow, TrashState, TrashSummary};
pub use trial::Trial;
pub use undecided::{Undecided, WaitReason, Waiting};
pub(crate) use undelete::Return;
pub use undelete::UndeleteError;
pub use upkeep::{
    CheckedStore, change_store_key, check_store, compact_store, lock_file, look_at_store, recode_store,
};
pub use whose::{OwnerNow, Whose};

/// Milliseconds since 1970, for people to read; nothing is ever decided by it.
pub type Clock = fn() -> i64;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error("the store is in use by another thalamus-edge")]
    Held,
    /// The file was written by a later version.
    #[error(
        "the store has format {found}, this version reads up to {known}: install the version that wrote it"
    )]
    Newer { found: u32, known: u32 },
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The store and the key that was given do not fit.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// A client's write that would touch the reserve.
    #[error("{0}")]
    Short(Shortage),
    /// A client's write whose right no longer holds.
    #[error("{0}")]
    Stale(Stale),
    /// A value that cannot be written as BSON.
    #[error("cannot be stored: {0}")]
    Unstorable(String),
    /// What is on disk makes no sense.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Pages are damaged beyond repair: the file is not opened for writing, because redb gives up in the middle of a
    /// write that comes upon them, and opens no such file again. Which tables they are of.
    #[error(
        "damaged beyond repair: {0}. So the store is not opened and nothing was written to it. Keep a copy \
         of the file. `thalamus-edge export DIR` reads the records that can still be read, unsent edits included; \
         then `thalamus-edge restore FILE` puts the last good backup in its place"
    )]
    Broken(String),
    /// The writer panicked, in redb mostly: nothing can be written until the store is opened anew, which looks at its
    /// pages first.
    #[error(
        "the store gave up in the middle of a write, as it does when pages of its file are damaged: what was being \
         written may not be stored, and the node ends. Its next start looks at the file and says what to do"
    )]
    GivenUp,
    /// A row whose checksum is wrong: it is not what was written.
    #[error(
        "a row of {:?} is damaged: it is not what was written, and is neither shown nor sent. `thalamus-edge doctor` \
         names it", .0.table
    )]
    DamagedRow(Box<DamagedRow>),
    /// The file has an earlier format, and whoever opened it changes nothing.
    #[error(
        "the store has format {found}, and this version writes {known}: the next start of the node upgrades it"
    )]
    Older { found: u32, known: u32 },
    /// The disk failed before this, and nothing was done: the same may be asked for again.
    #[error("the store's disk failed a moment ago; the store is opened again as soon as that is possible")]
    Reopening,
    /// The disk or the file system failed, or the store is closing.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether opening the store again would end the same way, until somebody changes the file, the key or the program.
    pub fn is_lasting(&self) -> bool {
        use StoreError::*;
        match self {
            Newer { .. } | Older { .. } | Sealed(_) | Damaged(_) | Broken(_) | DamagedRow(_) => true,
            Held | DiskFull | Short(_) | Stale(_) | Unstorable(_) | GivenUp | Reopening | Failed(_) => false,
        }
    }

    fn of_io(error: &std::io::Error) -> StoreError {
        match is_no_room(error) {
            true => StoreError::DiskFull,
            false => StoreError::Failed(error.to_string()),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::Held,
            redb::Error::Io(error) => StoreError::of_io(&error),
            redb::Error::PreviousIo => StoreError::Reopening,
            redb::Error::Corrupted(what) => StoreError::Damaged(what),
            other => StoreError::Failed(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                StoreError::from(redb::Error::from(error))
            }
        }
    )*};
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::CompactionError,
    redb::SetDurabilityError
);

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
    inner: Arc<Inner>,
}

struct Inner {
    /// Declared first: the writer finishes its queue before the database closes.
    writer: Writer,
    engine: Arc<Engine>,
    changes: watch::Receiver<u64>,
    clock: Clock,
    options: StoreOptions,
    turns: edit::Turns,
    notes: notes::Notes,
    /// Set once, if a reserve is to be kept.
    space: OnceLock<space::Space>,
    /// Of the file, when it was opened.
    found: put_right::Found,
    /// The store's own, if it has one.
    file: Option<StoreFile>,
}

impl Store {
    /// Opens or creates the store in this file and takes it for this process alone. A file that is no store, or a
    /// damaged one, is [`StoreError::Damaged`] and stays as it is.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        Store::open_with_key(path, None, options)
    }

    /// The same for an encrypted store; a new one is made encrypted with this key.
    pub fn open_with_key(
        path: &Path,
        key: Option<&StoreKey>,
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        let opened = unpanicked(|| {
            let found = put_right::look_at_file(path, key, options)?;
            upgrade::upgrade(path, key, options.cache_bytes)?;
            let file = StoreFile::at(path, key);
            let opened = file.clone();
            let open = move |has_failed| opened.open(options.cache_bytes, has_failed);
            let engine = Engine::new(Box::new(open), file.ledger())?;
            Store::start(engine, options, Writer::on_thread, (found, Some(file)))
        });
        opened.map_err(|error| match error {
            StoreError::Damaged(cause) if cause == overlay::GIVEN_UP => file::unreadable(&cause),
            other => other,
        })
    }

    /// A store that lives in memory, for tests.
    pub fn in_memory(options: StoreOptions) -> Result<Store, StoreError> {
        Store::on_backend(redb::backends::InMemoryBackend::new(), options)
    }

    /// Opens or creates a store in bytes of the caller's own, for tests: bytes that can be copied, rolled back
    /// or full. Such a store has no thread and carries out each write where it is asked for, so a test in
    /// virtual time runs the same way every time.
    pub fn on_backend(
        backend: impl redb::StorageBackend,
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        let backend = Mutex::new(Some(backend));
        Store::on_backends(options, move || {
            let mut backend = backend.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            backend.take().ok_or_else(|| StoreError::Failed("its disk failed".to_owned()))
        })
    }

    /// The same on a disk that can be opened again after it failed.
    pub fn on_backends<B: redb::StorageBackend>(
        options: StoreOptions,
        next: impl Fn() -> Result<B, StoreError> + Send + Sync + 'static,
    ) -> Result<Store, StoreError> {
        let open = move |has_failed| {
            let backend = Watched { backend: next()?, has_failed };
            Ok(redb::Builder::new().set_cache_size(options.cache_bytes).create_with_backend(backend)?)
        };
        Store::start(
            Engine::new(Box::new(open), Arc::default())?,
            options,
            Writer::inline,
            (put_right::Found::default(), None),
        )
    }

    /// A store on bytes that are forgotten, to see what becomes of them.
    fn rehearsed(
        backend: overlay::Again,
        options: StoreOptions,
        found: put_right::Found,
    ) -> Result<Store, StoreError> {
        let backend = Mutex::new(Some(backend));
        let open = move |_| {
            let mut backend = backend.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let backend = backend.take().ok_or_else(|| StoreError::Failed("its disk failed".to_owned()))?;
            Ok(redb::Builder::new().set_cache_size(options.cache_bytes).create_with_backend(backend)?)
        };
        Store::start(Engine::new(Box::new(open), Arc::default())?, options, Writer::inline, (found, None))
    }

    fn start(
        engine: Engine,
        options: StoreOptions,
        writer: fn(WriterLoop) -> Result<Writer, StoreError>,
        (found, file): (put_right::Found, Option<StoreFile>),
    ) -> Result<Store, StoreError> {
        let engine = Arc::new(engine);
        let last = {
            let mut tried = engine.writing();
            writer::prepare(&engine.begin_read()?, || engine.begin_write(&mut tried))?
        };
        let (announce, changes) = watch::channel(last);
        let writer = writer(WriterLoop::new(Arc::clone(&engine), options, announce))?;
        let store = Store {
            inner: Arc::new(Inner {
                writer,
                engine,
                changes,
                clock: options.clock,
                options,
                turns: edit::Turns::default(),
                notes: notes::Notes::default(),
                space: OnceLock::new(),
                found,
                file,
            }),
        };
        store.recall_damage()?;
        store.inner.found.note(&store)?;
        Ok(store)
    }

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
