//! Floor 1. What a damaged row stops: its own record, and nothing else.
//!
//! A row may rot on the disk, of any table. Who works with many records in one transaction does it so, that a damaged row
//! keeps nobody from the others:
//!
//! - What is done for one record goes through [`Tx::sparing`]. If a damaged row is in the way, nothing of it is done:
//!   where something was written before the row was read, the job runs again without that record. So no record is left
//!   half taken, half decided or half removed.
//! - Nobody swallows the error of a damaged row on the way up but where nothing was written before
//!   ([`Tx::unless_damaged_first`]): the halves would be committed.
//! - The caller says what becomes of the record: it is read again in the next round, its write stays open, its row at the
//!   centre says the same in the next round. Nothing is concluded from what could not be read.
//! - Reads that decide nothing pass over the row ([`crate::store::error::unless_damaged`], `sound`), or only look whether there is one
//!   (`contains`): a letter that cannot be read is a letter all the same.
//! - The row stays, is named with what to do (`doctor`, `sync status`, each round), and is healed or set aside by somebody.
//!   None of these, and no list, needs the row itself: they count keys (`contains`), and pass over it.
//! - A row under an account is in the way of that account only (`check/damaged_accounts.rs`).

use std::collections::BTreeSet;

use super::transaction::Tx;
use crate::domain::record::RecordKey;
use crate::store::error::StoreError;

/// What something in a transaction is about: a table or collection, and an id in it.
pub(in crate::store) type About = (&'static str, String);

/// What a job leaves out because a row that it needs is damaged.
#[derive(Debug, Default)]
pub(in crate::store) struct Spared {
    left_out: BTreeSet<About>,
    /// What the job had begun to write when it came upon a damaged row.
    begun: Option<About>,
}

impl Spared {
    /// The job has ended with an error. Returns whether it is to run again, with something left out that was not before.
    pub(in crate::store) fn learns(&mut self) -> bool {
        self.begun.take().is_some_and(|about| self.left_out.insert(about))
    }

    /// The job runs anew.
    pub(in crate::store) fn begin(&mut self) {
        self.begun = None;
    }
}

impl Tx<'_> {
    /// Does `work` for one record. `None` if a row that it needs is damaged; nothing of it is done then.
    pub(crate) fn sparing<T>(
        &mut self,
        key: &RecordKey,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.sparing_of((key.kind.schema().collection, key.id.clone()), work)
    }

    /// The same for one conflict, or one question about a person.
    pub(crate) fn sparing_conflict<T>(
        &mut self,
        id: &str,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.sparing_of(("conflict", id.to_owned()), work)
    }

    /// The same for what waits under one account.
    pub(crate) fn sparing_account<T>(
        &mut self,
        account: &str,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.sparing_of(("account", account.to_owned()), work)
    }

    /// Does `work`; `None` if it came upon a damaged row before it wrote anything. After that the error goes up to who
    /// undoes what was written.
    pub(crate) fn unless_damaged_first<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let before = self.writes();
        match work(self) {
            Err(StoreError::DamagedRow(_)) if self.writes() == before => Ok(None),
            worked => worked.map(Some),
        }
    }

    fn sparing_of<T>(
        &mut self,
        about: About,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if self.spared.left_out.contains(&about) {
            return Ok(None);
        }
        let before = self.writes();
        match work(self) {
            Err(StoreError::DamagedRow(_)) if self.writes() == before => Ok(None),
            Err(error @ StoreError::DamagedRow(_)) => {
                // The innermost is what has to be left out.
                self.spared.begun.get_or_insert(about);
                Err(error)
            }
            worked => worked.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use crate::domain::access::Actor;
    use crate::domain::record::{Kind, RecordKey};
    use crate::store::{Base, DamagedRow, Store, StoreError, StoreOptions};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100, audit_keep_rows: 100, clock: || 0 };

    fn damaged(id: &str) -> StoreError {
        StoreError::DamagedRow(Box::new(DamagedRow {
            table: "docs".to_owned(),
            kind: None,
            id: id.to_owned(),
        }))
    }

    fn unit(id: &str) -> (RecordKey, Document) {
        (RecordKey::new(Kind::Institution, id), doc! {"_id": id})
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_record_whose_row_is_damaged_and_the_others_are_done() {
        let store = Store::in_memory(OPTIONS).unwrap();
        let left_out = store
            .transact(|tx| -> Result<Vec<String>, StoreError> {
                let mut left_out = Vec::new();
                for id in ["a", "rotten before", "b", "rotten after", "c", "rotten after too"] {
                    let (key, document) = unit(id);
                    let done = tx.sparing(&key, |tx| {
                        if id == "rotten before" {
                            return Err(damaged(id));
                        }
                        tx.put(&key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)?;
                        if id.starts_with("rotten") { Err(damaged(id)) } else { Ok(()) }
                    })?;
                    left_out.extend(done.is_none().then(|| id.to_owned()));
                }
                Ok(left_out)
            })
            .await
            .unwrap();
        assert_eq!(left_out, ["rotten before", "rotten after", "rotten after too"]);
        let snapshot = store.read().unwrap();
        for id in ["a", "b", "c"] {
            assert!(snapshot.record(&unit(id).0).unwrap().is_some(), "{id}");
        }
        for id in left_out {
            assert!(snapshot.record(&unit(&id).0).unwrap().is_none(), "{id}");
        }
    }

    #[tokio::test]
    async fn a_row_that_belongs_to_no_single_record_ends_the_job() {
        let store = Store::in_memory(OPTIONS).unwrap();
        let ended = store
            .transact(|tx| -> Result<(), StoreError> {
                let (key, document) = unit("a");
                tx.sparing(&key, |tx| {
                    tx.put(&key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)
                })?;
                Err(damaged("of all"))
            })
            .await;
        assert!(matches!(ended, Err(StoreError::DamagedRow(_))), "{ended:?}");
        assert!(store.read().unwrap().record(&unit("a").0).unwrap().is_none());
    }
}
