//! Floor 3. Rounds and verification passes on cron schedules, each a random moment late so that forty boxes do
//! not knock at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::Reconciler;

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
}

impl Schedule {
    pub async fn start(reconciler: Arc<Reconciler>, times: Times<'_>) -> Result<Schedule, JobSchedulerError> {
        let jitter = times.jitter;
        let scheduler = JobScheduler::new().await?;
        // Two jobs, of which one runs: which of them is known after the first round.
        let ids = Arc::new(OnceLock::new());
        let mut jobs = [uuid::Uuid::nil(); 2];
        for (place, schedule) in [times.rounds, times.rounds_without_feed].into_iter().enumerate() {
            let (rounds, ids) = (Arc::clone(&reconciler), Arc::clone(&ids));
            let job = Job::new_async(schedule, move |_, mut scheduler| {
                let (reconciler, ids) = (Arc::clone(&rounds), Arc::clone(&ids));
                Box::pin(async move {
                    note_next(&reconciler, &mut scheduler, &ids).await;
                    if place != in_force(&reconciler) {
                        return;
                    }
                    tokio::time::sleep(random_part(jitter)).await;
                    reconciler.round().await;
                    note_next(&reconciler, &mut scheduler, &ids).await;
                })
            })?;
            jobs[place] = scheduler.add(job).await?;
        }
        // Set once, here.
        let _ = ids.set(jobs);
        if !times.verification.is_empty() {
            let passes = Arc::clone(&reconciler);
            let job = Job::new_async(times.verification, move |_, _| {
                let reconciler = Arc::clone(&passes);
                Box::pin(async move {
                    tokio::time::sleep(random_part(jitter)).await;
                    if let Err(error) = reconciler.ask_for_verification().await {
                        tracing::error!(%error, "the verification pass could not be noted");
                    }
                    reconciler.round().await;
                })
            })?;
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        let mut asked = scheduler.clone();
        note_next(&reconciler, &mut asked, &ids).await;
        Ok(Schedule { scheduler })
    }

    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "the schedule did not stop cleanly");
        }
    }
}

/// The place of the schedule that holds at this centre.
fn in_force(reconciler: &Reconciler) -> usize {
    usize::from(reconciler.is_without_feed())
}

async fn note_next(reconciler: &Reconciler, scheduler: &mut JobScheduler, ids: &OnceLock<[uuid::Uuid; 2]>) {
    let Some(id) = ids.get().map(|ids| ids[in_force(reconciler)]) else {
        return;
    };
    let next = scheduler.next_tick_for_job(id).await.ok().flatten();
    reconciler.set_next_round(next.map(|time| time.timestamp_millis()));
}

fn random_part(of: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness the round simply starts on time.
    let _ = getrandom::fill(&mut bytes);
    of.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
