//! Floor 3. What people tell the reconciliation: to pause, to go on, and what is to become of a halt.
//!
//! Whatever they say lasts until it is taken back or has been carried out, across restarts.

use bson::doc;

use super::kept_rows::or_anew;
use super::left::Left;
use super::{Outcome, Reconciler, Report, deletes, lock, restore, time_text};
use crate::domain::access::Actor;
use crate::domain::audit::What;
use crate::store::{Fields, META_VERIFY_DUE, Snapshot, StoreError};

/// Who paused the reconciliation, and when.
const META_PAUSED: &str = "paused";

/// That no round is to run.
pub(super) struct Pause {
    /// Who said so, and when; nothing if the row cannot be read, which is no reason to go on.
    said: Option<(String, i64)>,
}

impl Pause {
    /// The pause in force.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Option<Pause>, StoreError> {
        let row = snapshot.meta_row(META_PAUSED)?;
        row.map(|row| or_anew(Pause::decode(&row), || Pause { said: None })).transpose()
    }

    pub(super) fn decode(row: &[u8]) -> Result<Pause, StoreError> {
        let row = Fields::of(row, "the pause")?;
        Ok(Pause { said: Some((row.text("by")?.to_owned(), row.int64("at")?)) })
    }

    pub(super) fn words(&self) -> String {
        const KEPT: &str = "Everything is kept here and is sent once it is resumed.";
        match &self.said {
            Some((by, since_ms)) => {
                format!("Synchronization was paused by {by} at {}. {KEPT}", time_text(*since_ms))
            }
            None => format!("Synchronization was paused; by whom and when cannot be read. {KEPT}"),
        }
    }

    /// What a round that is asked for meanwhile comes to.
    pub(super) fn report(&self, left: &Left) -> Report {
        Report::ended(Outcome::Halted, &left.after(&self.words()))
    }
}

impl Reconciler {
    /// No round runs any more, not even after a restart, until [`Reconciler::resume`]. A round under way is
    /// stopped where it is; returns when it has been.
    pub async fn pause(&self, by: &Actor) -> Result<(), StoreError> {
        let by = by.to_string();
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                // Whoever paused first stays named.
                if tx.meta_row(META_PAUSED)?.is_none() {
                    tx.set_meta(META_PAUSED, Some(&doc! {"at": tx.now_ms(), "by": &by}))?;
                    tx.audit_asked(What::Pause, |event| event)?;
                }
                Ok(())
            })
            .await?;
        let running = lock(&self.running).clone();
        if let Some(mut running) = running {
            running.stop.cancel();
            // An error says that the round is gone, which is as good.
            let _ = running.finished.wait_for(Option::is_some).await;
        }
        // And the connection that stayed open after it.
        lock(&self.hang_up).cancel();
        drop(self.conversing.lock().await);
        Ok(())
    }

    /// Rounds run again.
    pub async fn resume(&self) -> Result<(), StoreError> {
        self.store
            .transact(|tx| -> Result<(), StoreError> {
                match tx.meta_row(META_PAUSED)? {
                    Some(_) => {
                        tx.set_meta(META_PAUSED, None)?;
                        tx.audit_asked(What::Resume, |event| event)
                    }
                    None => Ok(()),
                }
            })
            .await
    }

    /// The operator agrees with all deletes that wait now: of records that vanished at the centre, and of
    /// many that were deleted here.
    pub async fn accept_deletes(&self) -> Result<(), StoreError> {
        self.store
            .transact(|tx| -> Result<(), StoreError> {
                deletes::accept_deletes(tx)?;
                tx.audit_asked(What::AcceptDeletes, |event| event)
            })
            .await
    }

    /// The operator wants those records back instead, on both sides; returns how many.
    pub async fn restore_deleted(&self, actor: Actor) -> Result<u64, StoreError> {
        self.store
            .transact(move |tx| -> Result<u64, StoreError> {
                let count = deletes::restore_deleted(tx, &actor)?;
                tx.audit_asked(What::RestoreDeleted, |event| event.saying(&format!("{count} records")))?;
                Ok(count)
            })
            .await
    }

    /// The operator agrees to go on from what a restored or replaced centre holds. Returns whether the last
    /// round has found one.
    pub async fn centre_restored(&self) -> Result<bool, StoreError> {
        self.store
            .transact(|tx| -> Result<bool, StoreError> {
                let is_found = restore::agree(tx)?;
                if is_found {
                    tx.audit_asked(What::CentreRestored, |event| event)?;
                }
                Ok(is_found)
            })
            .await
    }

    /// Asks for a pass over everything that the centre holds; rounds carry it out.
    pub async fn ask_for_verification(&self) -> Result<(), StoreError> {
        let asked = doc! {"asked": true};
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                tx.set_meta(META_VERIFY_DUE, Some(&asked))?;
                tx.audit_asked(What::Verify, |event| event)
            })
            .await
    }
}
