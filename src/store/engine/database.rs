//! Floor 1. The open database, opened again after its disk failed.
//!
//! redb refuses all work after one failed read or write, a full disk included, until it is opened again. That
//! is done here, so that a node recovers by itself once there is space, and goes on reading at once: who reads has it
//! opened again, and waits for that, but not for long. Only writes are tried rarely, because on a full disk each of them fails
//! anew. What was on its way was not acknowledged. The operating system may have kept what it could not write, so it is told
//! to forget the file first: what is opened is what is on the disk.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::block_in_place;

use super::snapshot::Snapshot;
use super::tally::{Counted, PresentShelf};
use crate::store::error::StoreError;
use crate::store::rows::{Ledger, View};

/// A disk that goes on failing is tried this often, by opening the database or by writing.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// The same for who reads, if the database could be opened the last time.
const REOPEN_TO_READ_EVERY: Duration = Duration::from_millis(100);
/// Longest that who reads waits for the database.
const READ_WAIT: Duration = Duration::from_secs(3);
/// How often who waits looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Opens the database on a backend that raises the flag when something fails.
type Open = Box<dyn Fn(Arc<AtomicBool>) -> Result<Database, StoreError> + Send + Sync>;

pub(crate) struct Engine {
    /// Declared first: its view ends before the database.
    present: Mutex<Present>,
    database: RwLock<Option<Database>>,
    has_failed: Arc<AtomicBool>,
    /// redb panicked in a write: its write transaction never ends, and another one would wait for it forever.
    pub(crate) given_up: watch::Sender<bool>,
    /// Damaged rows that somebody came upon.
    pub(crate) ledger: Arc<Ledger>,
    /// Entries of the audit trail that are younger than this stay.
    pub(crate) audit_keep_ms: Arc<AtomicI64>,
    /// Whether it does not count that a person came here inactive: see `accounts/deletable_people.rs`.
    pub(crate) ignores_active: Arc<AtomicBool>,
    open: Open,
    /// Held while it is opened again or written to.
    writing: Mutex<Tries>,
}

/// What all share who read between two commits.
#[derive(Default)]
struct Present {
    /// The view of the last commit, once somebody has asked for it.
    view: Option<Arc<Snapshot>>,
    tallies: PresentShelf,
}

/// How opening the database again went.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// How often it was opened again, and when last.
    opened: u64,
    opened_at: Option<Instant>,
    /// When it could not be opened.
    failed_at: Option<Instant>,
    /// The last write that went on after a failure: when, and how often the database had been opened again by then.
    written_at: Option<Instant>,
    written: u64,
}

fn is_just_now(at: Option<Instant>, every: Duration) -> bool {
    at.is_some_and(|at| at.elapsed() < every)
}

impl Engine {
    pub(crate) fn new(open: Open, ledger: Arc<Ledger>) -> Result<Engine, StoreError> {
        let has_failed = Arc::new(AtomicBool::new(false));
        let database = open(Arc::clone(&has_failed))?;
        let (database, present, writing) = (RwLock::new(Some(database)), Mutex::default(), Mutex::default());
        let given_up = watch::Sender::new(false);
        let (audit_keep_ms, ignores_active) = Default::default();
        Ok(Engine {
            present,
            database,
            has_failed,
            given_up,
            ledger,
            audit_keep_ms,
            ignores_active,
            open,
            writing,
        })
    }

    /// Everything that is committed. All who read between two commits share one view, which saves each of them the
    /// beginning of a transaction and the opening of its tables.
    pub(crate) fn view(self: &Arc<Self>) -> Result<Arc<Snapshot>, StoreError> {
        self.when_open(|| {
            // Not held by who waits: a writer that has failed wants it.
            let mut present = self.present();
            if let Some(view) = present.view.as_ref() {
                return Ok(Some(Arc::clone(view)));
            }
            let Some(begun) = self.try_begin_read()? else {
                return Ok(None);
            };
            let begun = View::new(begun, Arc::clone(&self.ledger));
            let view = Arc::new(Snapshot::new(begun, present.tallies.shelf()));
            Ok(Some(Arc::clone(present.view.insert(view))))
        })
    }

    /// Commits, and lets whoever reads from now on see it. Also after a failure: what became of it is for the next
    /// reader to see. `counted`: whether it leaves what is counted as it was.
    pub(crate) fn commit(&self, transaction: WriteTransaction, counted: Counted) -> Result<(), StoreError> {
        self.present().tallies.begin_commit(counted);
        let committed = transaction.commit();
        let mut present = self.present();
        present.view = None;
        present.tallies.end_commit(counted);
        drop(present);
        committed.map_err(|error| match error.into() {
            // Unlike anything else that finds the disk failed, it may have been done.
            StoreError::Reopening => StoreError::Failed("its disk failed while it was written to".to_owned()),
            error => error,
        })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_view(&self) {
        let mut present = self.present();
        present.view = None;
        present.tallies.forget();
    }

    pub(crate) fn begin_read(self: &Arc<Self>) -> Result<ReadTransaction, StoreError> {
        self.when_open(|| self.try_begin_read())
    }

    /// `None` while nobody may read, because it is being opened or its pages are counted: that may take minutes.
    fn try_begin_read(&self) -> Result<Option<ReadTransaction>, StoreError> {
        let database = match self.database.try_read() {
            Ok(database) => database,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        Ok(Some(database.as_ref().ok_or(StoreError::Reopening)?.begin_read()?))
    }

    /// Begins to read. If the disk has failed, has the database opened again first, and waits for that, and for whatever else
    /// keeps it from being read, no longer than [`READ_WAIT`].
    fn when_open<T>(
        self: &Arc<Self>,
        begin: impl Fn() -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let mut opening: Option<Receiver<Result<(), StoreError>>> = None;
        loop {
            if !self.has_failed.load(Ordering::Acquire) {
                match begin() {
                    // It has failed meanwhile.
                    Err(_) if self.has_failed.load(Ordering::Acquire) => {}
                    Ok(None) => {}
                    Ok(Some(begun)) => return Ok(begun),
                    Err(error) => return Err(error),
                }
            }
            if self.has_failed.load(Ordering::Acquire) {
                // Behind one that is there is a disk that failed: it must not keep the file from being opened again.
                self.forget_view();
                if opening.is_none() {
                    opening = self.open_beside();
                }
            }
            match opening.as_ref().map(Receiver::try_recv) {
                Some(Ok(Err(error))) if error.is_lasting() => return Err(error),
                Some(Ok(Err(StoreError::GivenUp))) => return Err(StoreError::GivenUp),
                Some(Ok(Err(error))) if !matches!(error, StoreError::Held) => {
                    return Err(StoreError::Reopening);
                }
                Some(Ok(_) | Err(TryRecvError::Disconnected)) => opening = None,
                Some(Err(TryRecvError::Empty)) | None => {}
            }
            if began.elapsed() >= READ_WAIT {
                return Err(StoreError::Reopening);
            }
            if opening.is_some() || self.has_failed.load(Ordering::Acquire) || self.is_closed_to_readers() {
                pause();
            }
        }
    }

    fn is_closed_to_readers(&self) -> bool {
        matches!(self.database.try_read(), Err(TryLockError::WouldBlock))
    }

    /// Has it opened again by a thread of its own: that may take as long as reading the whole file, or as a disk that answers
    /// nothing. `None` where somebody writes, who will find out by themselves, and where it was opened just now.
    fn open_beside(self: &Arc<Self>) -> Option<Receiver<Result<(), StoreError>>> {
        let is_due = |tries: &Tries| !is_just_now(tries.opened_at, REOPEN_TO_READ_EVERY);
        drop(self.writing.try_lock().ok().filter(|tries| is_due(tries))?);
        let (done, opening) = mpsc::sync_channel(1);
        let engine = Arc::clone(self);
        let open = move || {
            if let Ok(mut tries) = engine.writing.try_lock()
                && is_due(&tries)
            {
                // Who asked may not wait any more.
                let _ = done.send(engine.recover(&mut tries));
            }
        };
        std::thread::Builder::new().name("store-opener".into()).spawn(open).ok()?;
        Some(opening)
    }

    /// Opens the database again before anybody begins anything.
    pub(crate) fn reopen(&self) {
        self.has_failed.store(true, Ordering::Release);
        self.forget_view();
    }

    /// Has redb find out anew which pages are used, and says whether it could. Reads the whole file; nobody may read or
    /// write meanwhile. redb cannot while a page is not what was written, damaged rows among them, and has to open the
    /// file again then.
    pub(crate) fn count_pages_anew(&self) -> Result<bool, StoreError> {
        let _nobody_writes = self.writing();
        self.forget_view();
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // False means that it was otherwise before.
        let counted = database.as_mut().ok_or(StoreError::Reopening)?.check_integrity();
        if counted.is_err() {
            *database = None;
            self.has_failed.store(false, Ordering::Release);
            *database = Some((self.open)(Arc::clone(&self.has_failed))?);
        }
        Ok(counted.is_ok())
    }

    /// One at a time: keep the guard until the transaction has ended.
    pub(crate) fn writing(&self) -> MutexGuard<'_, Tries> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has nothing written any more.
    pub(crate) fn give_up(&self) {
        self.given_up.send_replace(true);
    }

    pub(crate) fn has_given_up(&self) -> bool {
        *self.given_up.borrow()
    }

    /// Begins a transaction of whoever holds the guard of [`Engine::writing`].
    pub(crate) fn begin_write(&self, tries: &mut Tries) -> Result<WriteTransaction, StoreError> {
        if self.has_given_up() {
            return Err(StoreError::GivenUp);
        }
        let has_failed = self.has_failed.load(Ordering::Acquire);
        if has_failed {
            self.forget_view();
        }
        // Also where a reader had it opened again: the last write after a failure may have failed too.
        let is_anew = tries.written != tries.opened + u64::from(has_failed);
        if is_anew && is_just_now(tries.written_at, REOPEN_EVERY) {
            return Err(StoreError::Reopening);
        }
        self.recover(tries)?;
        if is_anew {
            (tries.written_at, tries.written) = (Some(Instant::now()), tries.opened);
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(StoreError::Reopening)?.begin_write()?)
    }

    /// Opens the database again if its disk has failed; there is no write transaction.
    fn recover(&self, tries: &mut Tries) -> Result<(), StoreError> {
        if !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.has_given_up() {
            // The database is not closed either: that is a write too.
            return Err(StoreError::GivenUp);
        }
        if is_just_now(tries.failed_at, REOPEN_EVERY) {
            return Err(StoreError::Reopening);
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one gives the file up first.
        *database = None;
        self.has_failed.store(false, Ordering::Release);
        match (self.open)(Arc::clone(&self.has_failed)) {
            Ok(opened) => {
                *database = Some(opened);
                (tries.opened, tries.opened_at) = (tries.opened + 1, Some(Instant::now()));
                tries.failed_at = None;
                tracing::warn!("the store's disk failed; the store was opened again");
                Ok(())
            }
            // Who reads in what was open before has it for a moment.
            Err(StoreError::Held) => {
                self.has_failed.store(true, Ordering::Release);
                Err(StoreError::Held)
            }
            Err(error) => {
                self.has_failed.store(true, Ordering::Release);
                tries.failed_at = Some(Instant::now());
                tracing::error!(%error, "the store's disk failed, and the store cannot be opened again yet");
                Err(error)
            }
        }
    }
}

/// Others go on meanwhile, also where tasks share the thread of who waits.
fn pause() {
    off_workers(|| std::thread::sleep(LOOK_EVERY));
}

/// Does what takes long, or waits. Where tasks share the thread, others take them over meanwhile.
pub(crate) fn off_workers<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        // With one thread, as in tests, there is no other to be kept free.
        _ => work(),
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.has_given_up() {
            // To close it is to write to it, after a transaction that never ends.
            let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(database.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that failed, and does not let itself be opened again for long: nobody waits for that.
    #[test]
    fn who_reads_waits_no_longer_than_told_for_a_store_that_is_opened_again() {
        let (go_on, gate) = mpsc::channel::<()>();
        let (gate, opened) = (Mutex::new(gate), AtomicI64::new(0));
        let open = move |_| {
            if opened.fetch_add(1, Ordering::Relaxed) > 0 {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new())?)
        };
        let engine = Arc::new(Engine::new(Box::new(open), Arc::default()).unwrap());
        engine.view().unwrap();
        engine.reopen();
        let (done, came) = mpsc::channel();
        for _ in 0..3 {
            let (engine, done) = (Arc::clone(&engine), done.clone());
            std::thread::spawn(move || {
                let began = Instant::now();
                let is_reopening = matches!(engine.view(), Err(StoreError::Reopening));
                done.send((is_reopening, began.elapsed())).unwrap();
            });
        }
        for _ in 0..3 {
            let (is_reopening, waited) = came.recv_timeout(READ_WAIT * 3).expect("an answer");
            assert!(is_reopening && waited >= READ_WAIT / 2, "{waited:?}");
        }
        drop(go_on);
        engine.view().unwrap();
    }

    /// The same while its pages are counted, which reads the whole file.
    #[test]
    fn who_reads_waits_no_longer_than_told_for_what_keeps_readers_out() {
        let open = |_| Ok(redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new())?);
        let engine = Arc::new(Engine::new(Box::new(open), Arc::default()).unwrap());
        let nobody_reads = engine.database.write().unwrap();
        let (done, came) = mpsc::channel();
        let reader = Arc::clone(&engine);
        std::thread::spawn(move || done.send(matches!(reader.view(), Err(StoreError::Reopening))).unwrap());
        assert_eq!(came.recv_timeout(READ_WAIT * 3), Ok(true));
        drop(nobody_reads);
        engine.view().unwrap();
    }
}
