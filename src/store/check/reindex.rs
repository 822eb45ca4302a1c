//! Floor 1. Tables without checksums made anew: indexes from what they follow from, the rest in the way that is safe.
//!
//! A damaged index shows one patient's pages in another's book, or nobody finds them. Nothing in an index is known
//! nowhere else, so one that contradicts the records is emptied and filled again, in one transaction. The other tables
//! without checksums hold what the node has noted about the centre: when one of them is lost, everything is asked, read or
//! published once more (`references.rs`). Only `meta` cannot be made anew.

use std::collections::BTreeSet;

use redb::{Key, ReadableTable as _, Table, TableDefinition, TableHandle as _, Value, WriteTransaction};

use crate::domain::audit::Entry;
use crate::domain::content::Content;
use crate::domain::record::RecordKey;
use crate::store::conflicts::{Conflict, ConflictStatus, Held, about};
use crate::store::engine::{Store, Tx};
use crate::store::error::StoreError;
use crate::store::rows::{RowName, RowsDefinition, kind_of, raw, row_key};
use crate::store::schema::{AUDIT_OF, EachTable, Role, each_table, is_index, role_of};
use crate::store::trash::TrashSummary;

/// Removes the indexes among these tables without reading their rows, which may not be readable; they are empty when they
/// are opened next.
pub(in crate::store) fn drop_indexes(
    transaction: &WriteTransaction,
    names: &BTreeSet<String>,
) -> Result<(), StoreError> {
    each_table(&mut Dropping { transaction, names })
}

struct Dropping<'a> {
    transaction: &'a WriteTransaction,
    names: &'a BTreeSet<String>,
}

impl EachTable for Dropping<'_> {
    type Error = StoreError;

    fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        if is_index(table.name()) && self.names.contains(table.name()) {
            self.transaction.delete_table(table)?;
        }
        Ok(())
    }

    fn rows<K: RowName>(&mut self, _: RowsDefinition<K>) -> Result<(), StoreError> {
        Ok(())
    }
}

fn clear<K: Key + 'static>(table: &mut Table<'_, K, ()>) -> Result<(), StoreError> {
    Ok(table.retain(|_, _| false)?)
}

impl Tx<'_> {
    /// Makes the indexes anew, and of the other tables without checksums those that are lost, which are empty by now.
    /// Damaged rows are in no index until they are healed.
    pub(crate) fn rebuild_indexes(&mut self, lost: &BTreeSet<String>) -> Result<(), StoreError> {
        clear(&mut self.by_owner)?;
        clear(&mut self.by_name)?;
        clear(&mut self.by_spelling)?;
        clear(&mut self.duplicate)?;
        clear(&mut self.content_named)?;
        clear(&mut self.trash_order)?;
        clear(&mut self.conflict_open)?;
        clear(&mut self.held_of)?;
        self.clear_notes_of_owners()?;
        let mut after: Option<(u8, String)> = None;
        // Row by row, because indexing one writes to other tables of this transaction.
        while let Some((code, id, bytes)) = self.next_record(after.as_ref())? {
            let key = RecordKey::new(kind_of(code)?, id.as_str());
            let document = raw(&bytes)?;
            self.index(&key, None, Some(document))?;
            if let Some(content) = Content::named_in(key.kind, document) {
                self.content_named.insert((content.sha256.as_str(), code, id.as_str()), ())?;
            }
            after = Some((code, id));
        }
        for at in self.trash.keys::<(u8, &str, u64)>(..)? {
            let at = at?;
            let (code, id, sequence) = at.value();
            self.trash_order.insert((sequence, code, id), ())?;
        }
        for entry in self.conflict.iter()?.sound() {
            let (at, row) = entry?;
            let conflict = Conflict::decode(row.value())?;
            if conflict.status == ConflictStatus::Open {
                let (code, id) = row_key(&conflict.key);
                self.conflict_open.insert((code, id, at.value()), ())?;
            }
        }
        self.note_trash_and_conflicts()?;
        for entry in self.held.iter()?.sound() {
            let (at, row) = entry?;
            let ((code, id), held) = (at.value(), Held::decode(row.value())?);
            self.held_of.insert((held.account.as_str(), code, id), ())?;
        }
        if lost.contains(AUDIT_OF.name()) {
            self.rebuild_audit_of()?;
        }
        self.mend_outbox()?;
        self.remake_notes(lost)?;
        self.wrote();
        Ok(())
    }

    /// Empties the notes, but for those of rows that are damaged, or missing: of them nothing else knows whose they are. A
    /// note of what is not there would keep its id from being used.
    pub(in crate::store) fn clear_notes_of_owners(&mut self) -> Result<(), StoreError> {
        if !self.docs.has_unnamed_damage() {
            let mut kept = BTreeSet::new();
            for entry in self.owner_of.iter()? {
                let (at, _) = entry?;
                if self.docs.is_damaged(at.value())? || self.docs.is_noted(at.value()) {
                    kept.insert((at.value().0, at.value().1.to_owned()));
                }
            }
            self.owner_of.retain(|(code, id), _| kept.contains(&(code, id.to_owned())))?;
        }
        if !self.trash.has_unnamed_damage() {
            let mut kept = BTreeSet::new();
            for at in self.trash.keys::<(u8, &str, u64)>(..)? {
                let at = at?;
                if self.trash.is_damaged(at.value())? {
                    kept.insert(at.value().2);
                }
            }
            self.trash_owner.retain(|sequence, _| kept.contains(&sequence))?;
        }
        if !self.conflict.has_unnamed_damage() {
            let mut kept = BTreeSet::new();
            for id in self.conflict.keys::<&str>(..)? {
                let id = id?;
                if self.conflict.is_damaged(id.value())? {
                    kept.insert(id.value().to_owned());
                }
            }
            self.conflict_about.retain(|id, _| kept.contains(id))?;
        }
        Ok(())
    }

    /// Notes whose the bodies in the trash are, and what conflicts are about, as far as they can be read.
    pub(in crate::store) fn note_trash_and_conflicts(&mut self) -> Result<(), StoreError> {
        for entry in self.trash.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id, sequence) = at.value();
            let key = RecordKey::new(kind_of(code)?, id);
            let Ok(summary) = TrashSummary::decode(key, sequence, row.value()) else { continue };
            self.trash_owner.insert(sequence, summary.owner.as_deref().unwrap_or_default())?;
        }
        for entry in self.conflict.iter()?.sound() {
            let (id, row) = entry?;
            self.conflict_about.insert(id.value(), about(&Conflict::head(raw(row.value())?)?))?;
        }
        Ok(())
    }

    /// An entry that cannot be read is nobody's from now on.
    fn rebuild_audit_of(&mut self) -> Result<(), StoreError> {
        clear(&mut self.audit_of)?;
        for entry in self.audit.iter()?.sound() {
            let (seq, row) = entry?;
            if let Some(entry) = Entry::decode(row.value()).filter(|entry| !entry.event.owner.is_empty()) {
                self.audit_of.insert((entry.event.owner.as_str(), seq.value()), ())?;
            }
        }
        Ok(())
    }

    /// The first sound record behind this one: kind, id, document.
    fn next_record(&self, after: Option<&(u8, String)>) -> Result<Option<(u8, String, Vec<u8>)>, StoreError> {
        let from = match after {
            Some((code, id)) => std::ops::Bound::Excluded((*code, id.as_str())),
            None => std::ops::Bound::Unbounded,
        };
        let mut rows = self.docs.range::<(u8, &str)>((from, std::ops::Bound::Unbounded))?.sound();
        let Some((at, row)) = rows.next().transpose()? else {
            return Ok(None);
        };
        let (code, id) = at.value();
        Ok(Some((code, id.to_owned(), row.value().to_vec())))
    }
}

impl Store {
    /// Compares the tables, which reads everything, and mends what contradicts: indexes are made anew, and as soon as no row
    /// is damaged any more, what refers to a row that is gone is brought together with what is there. Returns what was
    /// wrong.
    pub async fn mend_indexes(&self) -> Result<Vec<String>, StoreError> {
        let snapshot = self.read()?;
        let compared = tokio::task::spawn_blocking(move || {
            snapshot.note_missing()?;
            snapshot.disagreements()
        });
        let mut wrong = match compared.await {
            // A damaged row keeps the tables from being compared; it is dealt with first.
            Ok(Err(StoreError::DamagedRow(_))) => return Ok(Vec::new()),
            Ok(wrong) => wrong?,
            Err(error) => return Err(StoreError::Damaged(format!("a table cannot be followed: {error}"))),
        };
        // What refers to a damaged row may be right.
        let is_quiet = self.damaged_rows().is_empty();
        wrong.retain(|said| is_quiet || is_index(said));
        if wrong.is_empty() {
            return Ok(wrong);
        }
        tracing::error!(wrong = wrong.join("; "), "tables contradicted each other and are mended");
        let names = wrong.iter().filter_map(|said| said.split(':').next());
        let indexes: BTreeSet<String> =
            names.filter(|name| role_of(name) == Some(Role::Index)).map(str::to_owned).collect();
        self.transact(move |tx| -> Result<(), StoreError> {
            if !indexes.is_empty() {
                tx.rebuild_indexes(&indexes)?;
            }
            if is_quiet { tx.mend_references() } else { Ok(()) }
        })
        .await?;
        Ok(wrong)
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::domain::access::Actor;
    use crate::domain::record::Kind;
    use crate::store::{Damage, StoreOptions};

    const OPTIONS: StoreOptions =
        StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 1_000, audit_keep_rows: 1_000, clock: || 0 };

    #[tokio::test]
    async fn an_index_that_contradicts_the_records_is_made_anew() {
        let store = Store::in_memory(OPTIONS).unwrap();
        let actor = || Actor::Local("tech".to_owned());
        store
            .transact(move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                for id in ["ana", "Eva", "gone"] {
                    let person = doc! {"_id": id, "name": format!("Name {id}")};
                    tx.edit(&RecordKey::new(Kind::Person, id), Some(&person), &actor())?;
                    let page = doc! {"_id": format!("page of {id}"), "book": id};
                    let key = RecordKey::new(Kind::Page, format!("page of {id}").as_str());
                    tx.edit(&key, Some(&page), &actor())?;
                }
                tx.edit(&RecordKey::new(Kind::Person, "gone"), None, &actor()).map(|_| ())
            })
            .await
            .unwrap();
        let sum = store.read().unwrap().content_sha256().unwrap();
        assert_eq!(store.mend_indexes().await.unwrap(), Vec::<String>::new());
        assert_eq!(store.read().unwrap().content_sha256().unwrap(), sum, "nothing to do");
        store
            .transact(|tx: &mut Tx<'_>| -> Result<(), StoreError> {
                let page = Kind::Page.schema().code;
                tx.by_owner.remove((page, "ANA", "page of ana"))?;
                tx.by_owner.insert((page, "EVA", "page of ana"), ())?;
                tx.by_name.pop_first()?;
                tx.by_spelling.retain(|_, _| false)?;
                tx.trash_order.retain(|_, _| false)?;
                tx.dirty.pop_last()?;
                tx.wrote();
                Ok(())
            })
            .await
            .unwrap();
        let wrong = store.mend_indexes().await.unwrap();
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        let snapshot = store.read().unwrap();
        assert_eq!(snapshot.disagreements().unwrap(), Vec::<String>::new());
        assert_eq!(snapshot.people_named("ana").unwrap(), ["ana"]);
        // All as it was, but for since when and by whom the record that had lost its place waits.
        assert_eq!(snapshot.pending_count().unwrap(), 5);
    }

    #[tokio::test]
    async fn what_is_to_be_sent_never_counts_as_sent() {
        let store = Store::in_memory(OPTIONS).unwrap();
        let key = |id: &str| RecordKey::new(Kind::Person, id);
        store
            .transact(move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
                for id in ["ana", "eva", "iva"] {
                    let actor = Actor::Local("tech".to_owned());
                    tx.edit(&key(id), Some(&doc! {"_id": id, "name": "new"}), &actor)?;
                }
                // The row of what was agreed is under another name; a record is gone that nobody deleted.
                tx.base.remove(row_key(&key("ana")))?;
                tx.docs.remove(row_key(&key("iva")))?;
                tx.wrote();
                Ok(())
            })
            .await
            .unwrap();
        let mended = store.transact(|tx: &mut Tx<'_>| tx.mend_outbox()).await.unwrap();
        assert_eq!(mended, 1);
        let job = move |tx: &mut Tx<'_>| -> Result<_, StoreError> {
            Ok((
                tx.is_clean(&key("ana"))?,
                tx.damage(&key("ana"))?,
                tx.damage(&key("iva"))?,
                tx.damage(&key("eva"))?,
            ))
        };
        let found = store.transact(job).await.unwrap();
        assert_eq!(found, (false, Some(Damage::Unsent), Some(Damage::Unsent), None));
        let pending = store.read().unwrap().pending(None, 10).unwrap();
        let pending: Vec<_> = pending.into_iter().map(|(.., pending)| pending.key.id).collect();
        assert_eq!(pending, ["eva"], "neither is sent, and neither is deleted at the centre");
    }
}
