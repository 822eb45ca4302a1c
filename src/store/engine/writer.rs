//! Floor 1. The one writer: queues jobs and commits them in groups.
//!
//! A disk flush costs milliseconds, a job microseconds, so whatever is waiting shares one commit, and while many
//! write at once the next commit waits a little for those who were just answered. Clients take turns in the queue: many
//! writes of one do not keep another's waiting. A job that fails after it began to write would leave half its effects behind; then the group is dropped and
//! its jobs run again, each in a transaction of its own. What is only tried, and undone whatever it says, always has one of
//! its own, so that it costs the others no second run. Stores of tests have no thread for this: every job is
//! a group of one, committed where it was submitted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::Durability;
use tokio::sync::{oneshot, watch};

use super::asker::{Asker, present_asker, present_client};
use super::carry::Carry;
use super::database::Engine;
use super::sparing::Spared;
use super::store::StoreOptions;
use super::transaction::Tx;
use crate::domain::address::AddressPrefix;
use crate::domain::fair_queue::{Bounds, FairQueue};
use crate::store::error::StoreError;

/// Most jobs that share one commit.
const GROUP_JOBS_MAX: usize = 64;
/// Nobody's job is refused: requests, and what is counted for them until they are done, have bounds of their own.
const QUEUE: Bounds = Bounds { each: usize::MAX, in_all: usize::MAX };
/// A group waits for company for at most this part of what the last commit took, so that waiting costs less than it
/// can save ...
const LINGER_DIVISOR: u32 = 2;
/// ... and never longer than this.
const LINGER_MAX: Duration = Duration::from_millis(10);
/// A disk whose commits take so many times as long as the work of the group makes the next group wait for everybody;
/// one that is faster for half of them, so that the others get ready meanwhile: a seventh more writes a second, where a
/// flush takes 0.1 ms.
const SLOW_COMMIT: u32 = 2;
/// How often it looks whether somebody came.
const LINGER_STEP: Duration = Duration::from_micros(50);

/// Where jobs are carried out.
pub(crate) enum Writer {
    Thread {
        queue: Arc<Queue>,
        thread: Option<JoinHandle<()>>,
    },
    /// In whoever submits them, each as a group of one.
    Inline(Box<Mutex<WriterLoop>>),
}

/// Jobs that wait for the writer's thread.
pub(crate) struct Queue {
    jobs: Mutex<Waiting>,
    /// Tells the thread that a job has come, or that no more will.
    came: Condvar,
}

struct Waiting {
    jobs: FairQueue<Box<dyn Job>>,
    /// Whether no more are taken; those that wait are still done.
    is_closed: bool,
    /// Whether the thread has panicked: nothing is done any more.
    is_given_up: bool,
}

impl Queue {
    fn new() -> Queue {
        let waiting = Waiting { jobs: FairQueue::new(QUEUE), is_closed: false, is_given_up: false };
        Queue { jobs: Mutex::new(waiting), came: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if no more jobs are taken.
    fn push(&self, client: AddressPrefix, job: Box<dyn Job>) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.is_given_up {
            return Err(StoreError::GivenUp);
        }
        let is_taken = !waiting.is_closed && waiting.jobs.push(client, job).is_ok();
        drop(waiting);
        self.came.notify_one();
        if is_taken { Ok(()) } else { Err(closing()) }
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.came.notify_one();
    }

    /// Takes and does nothing more. The jobs that wait are dropped, which tells those who wait for them.
    fn give_up(&self) {
        let mut waiting = self.lock();
        waiting.is_given_up = true;
        let unanswered = waiting.jobs.close();
        drop(waiting);
        drop(unanswered);
    }

    /// The next job, once there is one; `None` after the last.
    fn wait(&self) -> Option<Box<dyn Job>> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop() {
                return Some(job);
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn next(&self) -> Option<Box<dyn Job>> {
        self.lock().jobs.pop()
    }

    fn len(&self) -> usize {
        self.lock().jobs.waiting()
    }
}

fn closing() -> StoreError {
    StoreError::Failed("the store is closing".into())
}

/// Gives the store up if the writer's thread panics: nobody waits for a thread that has ended.
struct GiveUpOnPanic<'q> {
    jobs: &'q Queue,
    engine: Arc<Engine>,
}

impl Drop for GiveUpOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.engine.give_up();
            tracing::error!("{}", StoreError::GivenUp);
            self.jobs.give_up();
        }
    }
}

/// One unit of work, with its result kept until the commit.
pub(crate) trait Job: Send {
    /// False if the job refused its work; it may have written before that.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Whether it was refused for a damaged row, and knows by now what to leave out: it is to run again, alone.
    fn is_to_run_again(&self) -> bool;
    /// Whether all that it writes is undone.
    fn is_trial(&self) -> bool;
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

struct Work<T, E, F> {
    job: F,
    /// Known where the job is submitted, not on the writer's thread.
    asker: Option<Asker>,
    /// What it leaves out, see [`super::sparing`].
    spared: Spared,
    is_to_run_again: bool,
    is_trial: bool,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Work<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        tx.asker.clone_from(&self.asker);
        // Said by one job of its own write; jobs share a transaction.
        tx.password_is_given = false;
        self.spared.begin();
        std::mem::swap(&mut tx.spared, &mut self.spared);
        let (right, is_trial) = (self.asker.as_ref().map(|asker| &asker.right), self.is_trial);
        let result = match right.map_or(Ok(()), |right| right.check(tx)) {
            Ok(()) => (self.job)(tx).and_then(|done| {
                right
                    .map_or(Ok(()), |right| right.check_written(tx, is_trial))
                    .map(|()| done)
                    .map_err(E::from)
            }),
            Err(refusal) => Err(refusal.into()),
        };
        std::mem::swap(&mut tx.spared, &mut self.spared);
        let done = result.is_ok();
        self.is_to_run_again = !done && self.spared.learns();
        self.result = Some(result);
        done
    }

    fn is_to_run_again(&self) -> bool {
        self.is_to_run_again
    }

    fn is_trial(&self) -> bool {
        self.is_trial
    }

    fn answer(self: Box<Self>, commit: Result<(), StoreError>) {
        let answer = match (commit, self.result) {
            // A refusal stands whatever became of the others' commit.
            (_, Some(Err(refusal))) => Err(refusal),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::Failed("the job was not run".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // The caller may have gone away; the work is done all the same.
        let _ = self.reply.send(answer);
    }
}

impl Writer {
    pub(crate) fn on_thread(work: WriterLoop) -> Result<Writer, StoreError> {
        let queue = Arc::new(Queue::new());
        let jobs = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || work.run(&jobs))
            .map_err(|e| StoreError::of_io(&e))?;
        Ok(Writer::Thread { queue, thread: Some(thread) })
    }

    pub(crate) fn inline(work: WriterLoop) -> Result<Writer, StoreError> {
        Ok(Writer::Inline(Box::new(Mutex::new(work))))
    }

    /// Jobs that wait for the thread.
    pub(crate) fn waiting(&self) -> usize {
        match self {
            Writer::Thread { queue, .. } => queue.len(),
            Writer::Inline(_) => 0,
        }
    }

    /// `is_trial`: what the job writes is undone when it has said what it would do.
    pub(crate) async fn submit<T, E, F>(&self, job: F, is_trial: bool) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, mut answer) = oneshot::channel();
        let work = Box::new(Work {
            job,
            asker: present_asker(),
            spared: Spared::default(),
            is_to_run_again: false,
            is_trial,
            result: None,
            reply,
        });
        match self {
            Writer::Thread { queue, .. } => {
                queue.push(present_client(), work)?;
                // Only a thread that panics drops a job without an answer.
                answer.await.map_err(|_| StoreError::GivenUp)?
            }
            Writer::Inline(writer) => {
                // A job that panicked has left its transaction behind, and that is undone by now.
                writer.lock().unwrap_or_else(PoisonError::into_inner).commit_group(vec![work], || 0);
                answer.try_recv().map_err(|_| closing())?
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Writer::Thread { queue, thread } = self else {
            return;
        };
        queue.close();
        if let Some(thread) = thread.take() {
            // The last owner may be the writer's own job; a thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

pub(crate) struct WriterLoop {
    engine: Arc<Engine>,
    options: StoreOptions,
    announce: watch::Sender<u64>,
    carry: Carry,
    is_on_thread: bool,
    /// Whether the last commit took much longer than what it was made of.
    is_slow: bool,
}

impl WriterLoop {
    pub(crate) fn new(engine: Arc<Engine>, options: StoreOptions, announce: watch::Sender<u64>) -> Self {
        let (ledger, audit_keep_ms) = (Arc::clone(&engine.ledger), Arc::clone(&engine.audit_keep_ms));
        let ignores_active = Arc::clone(&engine.ignores_active);
        let carry = Carry { ledger, audit_keep_ms, ignores_active, ..Carry::default() };
        WriterLoop { engine, options, announce, carry, is_on_thread: false, is_slow: false }
    }

    fn run(mut self, jobs: &Queue) {
        self.is_on_thread = true;
        let _guard = GiveUpOnPanic { jobs, engine: Arc::clone(&self.engine) };
        let (mut company, mut patience) = (1_usize, Duration::ZERO);
        while let Some(first) = jobs.wait() {
            let awaited = if self.is_slow { company } else { company.div_ceil(2) };
            let group = gather(first, jobs, awaited, patience);
            let (began, jobs_before) = (Instant::now(), group.len());
            let waiting = self.commit_group(group, || jobs.len());
            company = (jobs_before + waiting).min(GROUP_JOBS_MAX);
            patience = (began.elapsed() / LINGER_DIVISOR).min(LINGER_MAX);
        }
    }

    /// Commits and answers; returns what `waiting` said just before the first answer.
    fn commit_group(&mut self, group: Vec<Box<dyn Job>>, waiting: impl FnOnce() -> usize) -> usize {
        let (trials, mut group): (Vec<_>, Vec<_>) = group.into_iter().partition(|job| job.is_trial());
        let outcome = if group.is_empty() { Ok(Some(())) } else { self.attempt(&mut group) };
        let waiting = waiting();
        match outcome {
            Ok(Some(())) => group.into_iter().for_each(|job| job.answer(Ok(()))),
            Ok(None) => group.into_iter().for_each(|job| self.commit_alone(job)),
            Err(error) => Self::answer_all(group, Err(error)),
        }
        trials.into_iter().for_each(|job| self.commit_alone(job));
        waiting
    }

    fn commit_alone(&mut self, job: Box<dyn Job>) {
        let mut alone = vec![job];
        // A refused job that runs alone simply leaves no transaction behind.
        let mut outcome = self.attempt(&mut alone).map(|_| ());
        while outcome.is_ok() && alone.iter().any(|job| job.is_to_run_again()) {
            outcome = self.attempt(&mut alone).map(|_| ());
        }
        Self::answer_all(alone, outcome);
    }

    fn answer_all(group: Vec<Box<dyn Job>>, outcome: Result<(), StoreError>) {
        for job in group {
            job.answer(match &outcome {
                Ok(()) => Ok(()),
                Err(StoreError::DiskFull) => Err(StoreError::DiskFull),
                Err(StoreError::GivenUp) => Err(StoreError::GivenUp),
                Err(StoreError::Reopening) => Err(StoreError::Reopening),
                Err(error) => Err(StoreError::Failed(error.to_string())),
            });
        }
    }

    /// [`WriterLoop::attempt_once`]; a panic in it is the last thing that this store writes.
    fn attempt(&mut self, group: &mut [Box<dyn Job>]) -> Result<Option<()>, StoreError> {
        if !self.is_on_thread {
            // A panic is a test's own.
            return self.attempt_once(group);
        }
        let attempted = catch_unwind(AssertUnwindSafe(|| self.attempt_once(group)));
        attempted.unwrap_or_else(|_| {
            self.engine.give_up();
            tracing::error!("{}", StoreError::GivenUp);
            Err(StoreError::GivenUp)
        })
    }

    /// One transaction over all jobs. `None`: a job refused after writing, so nothing was committed.
    fn attempt_once(&mut self, group: &mut [Box<dyn Job>]) -> Result<Option<()>, StoreError> {
        let began = Instant::now();
        let is_trial = group.iter().any(|job| job.is_trial());
        // What a transaction noted that came to nothing was not noted.
        self.carry.is_boot_written = self.carry.is_boot_kept;
        let repeats = is_trial.then(|| self.carry.repeats.clone());
        let mut tried = self.engine.writing();
        let mut transaction = self.engine.begin_write(&mut tried)?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        let (wrote, last, counted) = {
            let mut tx = Tx::open(&transaction, &self.options, &mut self.carry)?;
            for job in group.iter_mut() {
                let before = tx.writes();
                crate::flaw::panics("writer.job");
                if !job.run(&mut tx) && tx.writes() != before && !is_trial {
                    drop(tx);
                    transaction.abort()?;
                    return Ok(None);
                }
            }
            (tx.writes() > 0 && !is_trial, tx.last_sequence(), tx.counted())
        };
        if let Some(repeats) = repeats {
            self.carry.repeats = repeats;
        }
        if wrote {
            let worked = began.elapsed();
            self.engine.commit(transaction, counted)?;
            self.carry.is_boot_kept = self.carry.is_boot_written;
            self.is_slow = began.elapsed() - worked > worked * SLOW_COMMIT;
            self.announce.send_if_modified(|seen| std::mem::replace(seen, last) != last);
        } else {
            transaction.abort()?;
        }
        Ok(Some(()))
    }
}

/// The jobs of the next commit: those that wait, and those that come within `patience`, until there are as many as are
/// awaited.
fn gather(first: Box<dyn Job>, jobs: &Queue, awaited: usize, patience: Duration) -> Vec<Box<dyn Job>> {
    let (mut group, began) = (vec![first], Instant::now());
    loop {
        while group.len() < GROUP_JOBS_MAX
            && let Some(job) = jobs.next()
        {
            group.push(job);
        }
        if group.len() >= awaited || began.elapsed() >= patience {
            return group;
        }
        std::thread::sleep(LINGER_STEP);
    }
}

#[cfg(test)]
mod tests;
