//! Floor 1. Accounts that were closed on this node, beside what their records say.
//!
//! A hub may store `active: false` for everybody. Where that does not count (`accounts.active_from_centre`), a closing that
//! somebody made here still does. So it is kept here as well: made when somebody closes the account on this node, gone when it
//! is opened from whatever side, or its record goes.

use std::collections::BTreeSet;

use bson::RawDocument;
use redb::ReadableTable as _;

use super::tables::{CLOSED_HERE, Fields, JOURNAL};
use super::{Snapshot, StoreError, Tx};
use crate::domain::access::Actor;
use crate::domain::active::{ACTIVE, is_active_raw};
use crate::domain::record::{Kind, RecordKey, fold_account};

/// The row that stands for every account: which were closed here is lost.
const ALL: &str = "";

impl Tx<'_> {
    /// Notes whether somebody has closed the account on this node, whatever its record says.
    pub(crate) fn set_closed_here(&mut self, id: &str, is_closed: bool) -> Result<(), StoreError> {
        if self.note_closed_here(id, is_closed)? {
            self.rights_changed(&Actor::Person(id.to_owned()))?;
        }
        Ok(())
    }

    /// Whether that was news.
    fn note_closed_here(&mut self, id: &str, is_closed: bool) -> Result<bool, StoreError> {
        let row = fold_account(id);
        let is_news = match is_closed {
            true => self.closed_here.insert(row.as_str(), ())?.is_none(),
            false => self.closed_here.remove(row.as_str())?.is_some(),
        };
        if is_news {
            self.wrote();
        }
        Ok(is_news)
    }

    /// Keeps the note true when a record changes, which changes the rights of an account by itself. A person who was inactive from the beginning was not closed by anybody.
    pub(crate) fn closed_after(
        &mut self,
        key: &RecordKey,
        (old, new): (Option<&RawDocument>, Option<&RawDocument>),
        actor: &Actor,
    ) -> Result<(), StoreError> {
        if key.kind != Kind::Person {
            return Ok(());
        }
        let was_active = old.is_some_and(is_active_raw);
        match new {
            Some(new) if !is_active_raw(new) => {
                if was_active && *actor != Actor::Centre {
                    self.note_closed_here(&key.id, true)?;
                }
            }
            _ => drop(self.note_closed_here(&key.id, false)?),
        }
        Ok(())
    }

    pub(crate) fn is_closed_here(&self, id: &str) -> Result<bool, StoreError> {
        is_closed(id, |row| Ok(self.closed_here.get(row)?.is_some()))
    }

    /// The rows are lost with damaged pages: no account opens by that.
    pub(super) fn closed_here_is_lost(&mut self) -> Result<(), StoreError> {
        self.closed_here.insert(ALL, ())?;
        self.wrote();
        Ok(())
    }
}

impl Snapshot {
    /// The people who were made, or in whom `active` was changed, at this moment or later (milliseconds); `None` if the
    /// journal does not go back so far.
    pub fn active_changed_since(&self, since_ms: i64) -> Result<Option<BTreeSet<String>>, StoreError> {
        let journal = self.transaction.open_table(JOURNAL)?;
        let (mut changed, mut first) = (BTreeSet::new(), None);
        // A clock that was put right may have left older moments between newer ones, so all is looked at.
        for entry in journal.range(0_u64..)? {
            let (sequence, row) = entry?;
            let row = Fields::of(row.value(), "a row of the journal")?;
            let (key, at_ms) = (row.key()?, row.int64("at")?);
            first.get_or_insert((sequence.value(), at_ms));
            let is_about_it = || {
                Ok::<_, StoreError>(row.texts("paths")?.iter().any(|path| path.is_empty() || path == ACTIVE))
            };
            if key.kind == Kind::Person && at_ms >= since_ms && is_about_it()? {
                changed.insert(key.id);
            }
        }
        let is_whole = first.is_none_or(|(sequence, at_ms)| sequence <= 1 || at_ms < since_ms);
        Ok(is_whole.then_some(changed))
    }

    /// Whether somebody has closed the account on this node.
    pub fn is_closed_here(&self, id: &str) -> Result<bool, StoreError> {
        let closed = self.transaction.open_table(CLOSED_HERE)?;
        is_closed(id, |row| Ok(closed.get(row)?.is_some()))
    }
}

fn is_closed(id: &str, has: impl Fn(&str) -> Result<bool, StoreError>) -> Result<bool, StoreError> {
    Ok(has(fold_account(id).as_str())? || has(ALL)?)
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;
    use crate::store::{Base, Store, StoreOptions};

    /// How the account stands after each of these versions of its record.
    async fn closed_after(versions: Vec<(Option<Document>, Actor)>) -> Vec<bool> {
        let options = StoreOptions {
            cache_bytes: 1 << 20,
            journal_keep_rows: 1_000,
            audit_keep_rows: 1_000,
            clock: || 0,
        };
        let store = Store::in_memory(options).unwrap();
        let mut found = Vec::new();
        for (version, actor) in versions {
            let write = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                let key = RecordKey::new(Kind::Person, "ANA001");
                match (&actor, &version) {
                    (Actor::Centre, Some(document)) => {
                        tx.put(&key, Some(document), &Base::Document(document.clone()), &actor)
                    }
                    (Actor::Centre, None) => tx.put(&key, None, &Base::Absent, &actor),
                    _ => tx.edit(&key, version.as_ref(), &actor).map(drop),
                }
            };
            store.transact(write).await.unwrap();
            found.push(store.read().unwrap().is_closed_here("ana001").unwrap());
        }
        found
    }

    fn ana(active: impl Into<bson::Bson>) -> Option<Document> {
        Some(doc! {"_id": "ANA001", "name": "Ana", "active": active})
    }

    #[tokio::test]
    async fn what_somebody_closes_here_stays_closed_here() {
        let tech = || Actor::Local("tech".to_owned());
        let steps = vec![
            (ana(true), Actor::Centre),
            (ana(false), tech()),
            (ana(false), Actor::Centre),
            (ana("false"), Actor::Centre),
            (ana(true), Actor::Centre),
            (ana(false), Actor::Centre),
        ];
        assert_eq!(closed_after(steps).await, [false, true, true, true, false, false]);
    }

    #[tokio::test]
    async fn who_begins_inactive_was_closed_by_nobody() {
        let tech = || Actor::Local("tech".to_owned());
        assert_eq!(closed_after(vec![(ana(false), tech())]).await, [false]);
        let steps = vec![(ana(true), tech()), (ana(0), tech()), (None, tech()), (ana(false), Actor::Centre)];
        assert_eq!(closed_after(steps).await, [false, true, false, false]);
    }
}
