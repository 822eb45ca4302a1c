//! Floor 3. The centre's trash: the body of a record that is deleted here goes there first, and its row says in the end
//! whether the delete happened.
//!
//! A delete whose body is not there is not sent. Nothing else waits for a row that the centre does not take.

use std::collections::BTreeSet;

use bson::Document;

use super::apart::{self, ALONE_FAILED_MAX};
use super::conflict_rows::without_body;
use super::push::{Sending, settle_one};
use super::round::{Round, RoundError, Tally};
use super::step;
use crate::central::{ArchiveState, Central, CentralError, TRASH_COLLECTION, Write, Written};
use crate::store::{NOT_ARCHIVED_CODE, StoreError};

/// What is said of a delete whose row the centre's trash does not take.
const NOT_TAKEN: &str = "A delete waits, because the centre's trash does not take what is deleted";

/// What an error about one of several rows means for the others.
enum Rest {
    /// They are tried.
    Tried,
    /// The centre takes none now.
    Waits,
}

/// Counts rows that fail one after the other.
#[derive(Default)]
struct InRow(usize);

impl InRow {
    /// Fails if nobody was reached who could answer.
    fn note(&mut self, failure: &CentralError) -> Result<Rest, CentralError> {
        if !failure.is_about_call() {
            return Err(failure.clone());
        }
        self.0 += 1;
        let is_over = failure.is_of_centre() || self.0 >= ALONE_FAILED_MAX;
        Ok(if is_over { Rest::Waits } else { Rest::Tried })
    }
}

impl Round<'_> {
    /// Bodies of records about to be deleted go to the centre's trash first; returns what may be sent. A
    /// record whose body is not accepted there is not deleted.
    pub(super) async fn archive(
        &mut self,
        central: &mut dyn Central,
        sending: Vec<Sending>,
    ) -> Result<Vec<Sending>, RoundError> {
        let rows: Vec<Document> =
            sending.iter().filter_map(|s| s.archive.as_ref()).map(|(_, row)| row.clone()).collect();
        if rows.is_empty() {
            return Ok(sending);
        }
        let mut in_row = InRow::default();
        let mut rest = match central.archive(&rows).await {
            Ok(()) => {
                step("push.archived");
                return Ok(sending);
            }
            Err(failure) => {
                let rest = in_row.note(&failure)?;
                self.note_waiting(&rest, failure);
                rest
            }
        };
        let mut archived = Vec::new();
        for sending in sending {
            let Some((_, row)) = &sending.archive else {
                archived.push(sending);
                continue;
            };
            if let Rest::Waits = rest {
                self.put_off(sending).await?;
                continue;
            }
            match central.archive(std::slice::from_ref(row)).await {
                Ok(()) => {
                    in_row = InRow::default();
                    archived.push(sending);
                }
                Err(failure) => {
                    rest = in_row.note(&failure)?;
                    match rest {
                        Rest::Waits => self.put_off(sending).await?,
                        // Nothing that is wrong with the record: it goes once the index is gone.
                        Rest::Tried if failure.is_of_index() => {
                            self.note_aside(NOT_TAKEN, &failure);
                            self.put_off(sending).await?;
                        }
                        Rest::Tried => archived.extend(self.archive_without_body(central, sending).await?),
                    }
                    self.note_waiting(&rest, failure);
                }
            }
        }
        step("push.archived");
        Ok(archived)
    }

    fn note_waiting(&mut self, rest: &Rest, failure: CentralError) {
        if let Rest::Waits = rest {
            self.unsent.get_or_insert(failure);
        }
    }

    /// It is not sent in this round, and that is no fault of it.
    async fn put_off(&mut self, sending: Sending) -> Result<(), StoreError> {
        self.unfinished += 1;
        self.store.transact(move |tx| tx.settle_intent(&sending.key, sending.number, false).map(drop)).await
    }

    /// Archives a delete whose body the centre does not take: too large, or with keys that it does not store. The body
    /// stays in this node's trash, and the row says so. Returns what may be sent.
    async fn archive_without_body(
        &mut self,
        central: &mut dyn Central,
        sending: Sending,
    ) -> Result<Option<Sending>, RoundError> {
        let (Some((_, row)), Write::Delete { key, base }) = (&sending.archive, &sending.write) else {
            return Ok(Some(sending));
        };
        let (key, base) = (key.clone(), base.clone());
        let row = without_body(row, row.get_str("node").unwrap_or_default());
        self.store.transact(move |tx| tx.keep_in_trash(&key, &base)).await?;
        match central.archive(&[row]).await {
            Ok(()) => Ok(Some(sending)),
            Err(failure) if failure.is_of_centre() => {
                self.unsent.get_or_insert(failure);
                self.put_off(sending).await?;
                Ok(None)
            }
            Err(failure) if failure.is_about_call() => {
                self.note_aside(NOT_TAKEN, &failure);
                self.give_up_delete(sending).await?;
                Ok(None)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// It was not sent; refused it is only if this goes on, because it may be no lasting fault.
    async fn give_up_delete(&mut self, sending: Sending) -> Result<(), StoreError> {
        self.unfinished += 1;
        let tally = self
            .store
            .transact(move |tx| -> Result<Tally, StoreError> {
                let mut tally = Tally::default();
                let fault = Written::Faulty { code: NOT_ARCHIVED_CODE };
                match apart::patient(tx, &sending.key, &fault)? {
                    refused @ Written::Refused { .. } => {
                        settle_one(tx, &sending, &refused, &mut tally, &mut Vec::new())?;
                    }
                    _ => drop(tx.settle_intent(&sending.key, sending.number, false)?),
                }
                Ok(tally)
            })
            .await?;
        self.tally += tally;
        Ok(())
    }

    /// Has archived rows say how their deletes ended, before anything is settled here: what is settled is not looked at
    /// again. Returns those that do not say it yet; their deletes stay open, and the next round tries again. A row that
    /// the centre does not take in three rounds stays `pending`.
    pub(super) async fn settle_archives(
        &mut self,
        central: &mut dyn Central,
        ended: Vec<(String, ArchiveState)>,
    ) -> Result<BTreeSet<String>, RoundError> {
        // Once in a round is enough.
        let (tried, ended): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|(id, _)| self.unmarked.contains(id));
        let mut unsettled: BTreeSet<String> = tried.into_iter().map(|(id, _)| id).collect();
        if ended.is_empty() {
            return Ok(unsettled);
        }
        let mut in_row = InRow::default();
        let Err(failure) = central.settle_archive(&ended).await else {
            return Ok(unsettled);
        };
        let mut rest = in_row.note(&failure)?;
        self.note_waiting(&rest, failure);
        let mut faults = Vec::new();
        for one in &ended {
            if let Rest::Waits = rest {
                unsettled.insert(one.0.clone());
                continue;
            }
            match central.settle_archive(std::slice::from_ref(one)).await {
                Ok(()) => in_row = InRow::default(),
                Err(failure) => {
                    rest = in_row.note(&failure)?;
                    match rest {
                        Rest::Waits => drop(unsettled.insert(one.0.clone())),
                        Rest::Tried => {
                            faults.push((format!("{TRASH_COLLECTION}:{}", one.0), failure.code()));
                        }
                    }
                    self.note_waiting(&rest, failure);
                }
            }
        }
        let counted = self
            .store
            .transact(move |tx| -> Result<Vec<(String, bool)>, StoreError> {
                let mut counted = Vec::new();
                for (name, code) in &faults {
                    let is_over = apart::count(tx, name, code.unwrap_or_default())?.is_some();
                    counted.push((name.clone(), is_over));
                }
                Ok(counted)
            })
            .await?;
        for (name, is_over) in counted {
            match name.split_once(':') {
                _ if is_over => tracing::warn!(row = %name, "the row cannot say how its delete ended"),
                Some((_, id)) => drop(unsettled.insert(id.to_owned())),
                None => {}
            }
        }
        self.unmarked.extend(unsettled.iter().cloned());
        Ok(unsettled)
    }
}
