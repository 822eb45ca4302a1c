//! Floor 3. Rounds and verification passes on cron schedules, each a random moment late so that forty boxes do
//! not knock at once.
//!
//! The scheduler computes when a job runs next only when it runs. So a clock that was ahead by nine years and is set
//! right would leave every job waiting for nine years. Twice a minute each next time is compared with the one that the
//! scheduler would compute now, and a job that waits for longer, or that is gone, is made anew. A clock that jumps ahead
//! needs nothing: the time that has passed lets the job run at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::Reconciler;

/// How often the times of the jobs are compared with the clock.
const LOOK: Duration = Duration::from_secs(30);

/// When to reconcile: cron expressions with seconds (`0 */5 * * * *`), in UTC.
#[derive(Debug, Clone, Copy)]
pub struct Times<'a> {
    pub rounds: &'a str,
    /// The same, once the centre is known to have no change feed.
    pub rounds_without_feed: &'a str,
    /// Empty: never.
    pub verification: &'a str,
    /// Everything starts up to this much later.
    pub jitter: Duration,
}

/// The running schedule; dropped with the process.
pub struct Schedule {
    scheduler: JobScheduler,
    _kept: AbortOnDropHandle<()>,
}

impl Schedule {
    pub async fn start(reconciler: Arc<Reconciler>, times: Times<'_>) -> Result<Schedule, JobSchedulerError> {
        let jitter = times.jitter;
        let scheduler = JobScheduler::new().await?;
        let changed = Arc::new(Notify::new());
        let mut plans = Vec::new();
        // Two jobs, of which one runs: which of them is known after the first round.
        for (place, schedule) in [times.rounds, times.rounds_without_feed].into_iter().enumerate() {
            let (rounds, changed) = (Arc::clone(&reconciler), Arc::clone(&changed));
            let run: Run = Arc::new(move || {
                let (reconciler, changed) = (Arc::clone(&rounds), Arc::clone(&changed));
                Box::pin(async move {
                    changed.notify_one();
                    if place != in_force(&reconciler) {
                        return;
                    }
                    tokio::time::sleep(random_part(jitter)).await;
                    reconciler.round().await;
                    changed.notify_one();
                })
            });
            plans.push(Plan::begin(&scheduler, schedule, run).await?);
        }
        if !times.verification.is_empty() {
            let passes = Arc::clone(&reconciler);
            let run: Run = Arc::new(move || {
                let reconciler = Arc::clone(&passes);
                Box::pin(async move {
                    tokio::time::sleep(random_part(jitter)).await;
                    if let Err(error) = reconciler.ask_for_verification().await {
                        tracing::error!(%error, "the verification pass could not be noted");
                    }
                    reconciler.round().await;
                })
            });
            plans.push(Plan::begin(&scheduler, times.verification, run).await?);
        }
        scheduler.start().await?;
        note_next(&reconciler, &scheduler, &plans).await;
        let kept = tokio::spawn(keep(scheduler.clone(), plans, reconciler, changed));
        Ok(Schedule { scheduler, _kept: AbortOnDropHandle::new(kept) })
    }

    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "the schedule did not stop cleanly");
        }
    }
}

/// Starts one run of a job.
type Run = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A schedule, what runs by it, and the scheduler's job for it.
struct Plan {
    schedule: String,
    run: Run,
    job: Uuid,
}

impl Plan {
    async fn begin(scheduler: &JobScheduler, schedule: &str, run: Run) -> Result<Plan, JobSchedulerError> {
        let job = scheduler.add(new_job(schedule, &run)?).await?;
        Ok(Plan { schedule: schedule.to_owned(), run, job })
    }

    /// Makes the job anew if it would run later than the schedule says by the clock of now, or never; true if it did.
    async fn follow_clock(&mut self, scheduler: &JobScheduler) -> Result<bool, JobSchedulerError> {
        // Read first: a new job's time, which is computed later, is earlier only after a jump.
        let waits_until_s = next_s(scheduler, self.job).await?;
        let mut anew = new_job(&self.schedule, &self.run)?;
        let due_s = anew.job_data()?.next_tick;
        // 0: the schedule does not come again.
        if due_s == 0 || waits_until_s.is_some_and(|until_s| until_s <= due_s) {
            return Ok(false);
        }
        scheduler.remove(&self.job).await?;
        self.job = scheduler.add(anew).await?;
        Ok(true)
    }
}

fn new_job(schedule: &str, run: &Run) -> Result<Job, JobSchedulerError> {
    let run = Arc::clone(run);
    Job::new_async(schedule, move |_, _| run())
}

/// When a job runs next, in seconds since 1970; `None` if never.
async fn next_s(scheduler: &JobScheduler, job: Uuid) -> Result<Option<u64>, JobSchedulerError> {
    let next = scheduler.clone().next_tick_for_job(job).await?;
    Ok(next.and_then(|next| u64::try_from(next.timestamp()).ok()))
}

/// Keeps the jobs in step with the clock, and what is told about the next round, until it is dropped.
async fn keep(
    scheduler: JobScheduler,
    mut plans: Vec<Plan>,
    reconciler: Arc<Reconciler>,
    changed: Arc<Notify>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = changed.notified() => {}
        }
        for plan in &mut plans {
            match plan.follow_clock(&scheduler).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(
                        schedule = plan.schedule,
                        "the clock has gone back: the next time is set anew"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, schedule = plan.schedule, "the next time could not be set")
                }
            }
        }
        note_next(&reconciler, &scheduler, &plans).await;
    }
}

/// The place of the schedule that holds at this centre.
fn in_force(reconciler: &Reconciler) -> usize {
    usize::from(reconciler.is_without_feed())
}

async fn note_next(reconciler: &Reconciler, scheduler: &JobScheduler, plans: &[Plan]) {
    let Some(plan) = plans.get(in_force(reconciler)) else {
        return;
    };
    let next_s = next_s(scheduler, plan.job).await.ok().flatten();
    reconciler.set_next_round(next_s.and_then(|next_s| i64::try_from(next_s).ok()?.checked_mul(1000)));
}

fn random_part(of: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness the round simply starts on time.
    let _ = getrandom::fill(&mut bytes);
    of.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use chrono::DateTime;

    use super::*;
    use crate::store::{Store, StoreOptions};
    use crate::sync::SyncSettings;

    const EVERY_SECOND: &str = "* * * * * *";
    const NEVER_NOW: &str = "0 0 0 29 2 *";
    /// In a year to which the clock was set once.
    const AHEAD_S: i64 = 7_000_000_000;

    /// Puts a job into the state in which a run by a clock that was wrong has left it.
    async fn set_times(scheduler: &JobScheduler, job: Uuid, next_s: i64, last_s: Option<i64>) {
        let time = |s: i64| DateTime::from_timestamp(s, 0).unwrap();
        let context = scheduler.context();
        let mut kept = context.metadata_storage.write().await;
        kept.set_next_and_last_tick(job, Some(time(next_s)), last_s.map(time)).await.unwrap();
    }

    async fn counting(scheduler: &JobScheduler, schedule: &str) -> (Plan, Arc<AtomicU32>) {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let run: Run = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        });
        (Plan::begin(scheduler, schedule, run).await.unwrap(), runs)
    }

    #[tokio::test]
    async fn a_job_runs_after_every_jump_of_the_clock() {
        // By a clock that was ahead the job has run, was never run, or was found to run never again.
        for (next_s, last_s) in [(AHEAD_S, Some(AHEAD_S - 1)), (AHEAD_S, None), (0, Some(AHEAD_S))] {
            let scheduler = JobScheduler::new().await.unwrap();
            let (mut plan, runs) = counting(&scheduler, EVERY_SECOND).await;
            set_times(&scheduler, plan.job, next_s, last_s).await;
            scheduler.start().await.unwrap();
            // The scheduler looks twice a second.
            tokio::time::sleep(Duration::from_millis(1600)).await;
            assert_eq!(runs.load(Ordering::Relaxed), 0, "{next_s}: by itself it waits for that year");
            assert!(plan.follow_clock(&scheduler).await.unwrap(), "{next_s}");
            tokio::time::sleep(Duration::from_millis(2600)).await;
            assert!((1..=3).contains(&runs.load(Ordering::Relaxed)), "{next_s}: {runs:?}");
        }
    }

    #[tokio::test]
    async fn a_job_whose_time_is_right_is_left_alone() {
        let scheduler = JobScheduler::new().await.unwrap();
        let (mut yearly, _) = counting(&scheduler, NEVER_NOW).await;
        // The clock has gone ahead: this one is due, and must not lose its turn.
        let (mut due, runs) = counting(&scheduler, NEVER_NOW).await;
        set_times(&scheduler, due.job, 1_000_000_000, None).await;
        for plan in [&mut yearly, &mut due] {
            let job = plan.job;
            assert!(!plan.follow_clock(&scheduler).await.unwrap());
            assert_eq!(plan.job, job);
        }
        scheduler.start().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1600)).await;
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        // Nor is one made anew that does not come again.
        let (mut over, _) = counting(&scheduler, "0 0 0 1 1 * 2020").await;
        assert!(!over.follow_clock(&scheduler).await.unwrap());
    }

    /// Rounds, rounds without a feed and verification passes alike, and what the status says.
    #[tokio::test]
    async fn all_schedules_follow_the_clock() {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        let reconciler = Reconciler::new(Store::in_memory(options).unwrap(), None, SyncSettings::default());
        let times = Times {
            rounds: NEVER_NOW,
            rounds_without_feed: NEVER_NOW,
            verification: NEVER_NOW,
            jitter: Duration::ZERO,
        };
        let schedule = Schedule::start(Arc::clone(&reconciler), times).await.unwrap();
        let next = || reconciler.status().unwrap().next_round_at;
        let right = next();
        let jobs =
            schedule.scheduler.context().metadata_storage.write().await.list_next_ticks().await.unwrap();
        assert_eq!(jobs.len(), 3);
        for job in jobs {
            let job = Uuid::from(job.id.as_ref().unwrap());
            set_times(&schedule.scheduler, job, AHEAD_S, Some(AHEAD_S - 1)).await;
        }
        reconciler.set_next_round(Some(AHEAD_S * 1000));
        assert_ne!(next(), right);
        tokio::time::pause();
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(next(), right);
        let jobs =
            schedule.scheduler.context().metadata_storage.write().await.list_next_ticks().await.unwrap();
        assert_eq!(jobs.len(), 3);
        assert!(jobs.iter().all(|job| job.next_tick < AHEAD_S as u64), "{jobs:?}");
        schedule.stop().await;
    }
}
