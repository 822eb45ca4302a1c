//! Floor 1. Conflicts over values, as they are found: who made both versions, whose they are, and the id under which each is
//! known or is to be known.

use std::collections::HashMap;

use bson::{Bson, Document};

use super::conflict::{Conflict, ConflictStatus, Note, Subject};
use super::conflict_authors::EditHere;
use crate::domain::access::Actor;
use crate::domain::diff::Path;
use crate::domain::merge::Clash;
use crate::domain::record::RecordKey;
use crate::store::engine::Tx;
use crate::store::error::StoreError;

/// The open conflicts of one record, by the path that they are about. A record may have thousands of them, and thousands of
/// new ones: each is compared with those of its path only.
struct KnownConflicts(HashMap<Path, Vec<Conflict>>);

impl KnownConflicts {
    fn of(tx: &Tx<'_>, key: &RecordKey) -> Result<KnownConflicts, StoreError> {
        let mut known = KnownConflicts(HashMap::new());
        tx.open_conflicts_of(key)?.into_iter().for_each(|conflict| known.add(conflict));
        Ok(known)
    }

    fn add(&mut self, conflict: Conflict) {
        self.0.entry(conflict.path.clone()).or_default().push(conflict);
    }

    /// The id under which a conflict over a value is known here, or is to be known. It stays if the person was only renamed
    /// since.
    fn id_of(&self, tx: &Tx<'_>, conflict: &Conflict) -> Result<String, StoreError> {
        for known in self.0.get(&conflict.path).into_iter().flatten() {
            if known.is_about_same_value(conflict) && tx.is_same_human(known, conflict)? {
                return Ok(known.id.clone());
            }
        }
        conflict.id_of_value()
    }
}

impl Tx<'_> {
    /// Makes the loser of a clash durable. A conflict that is known already is reopened if it was resolved.
    ///
    /// `remote`: the centre's version of the record, which tells who wrote it; `None` if the centre has none.
    pub fn add_conflict(
        &mut self,
        key: &RecordKey,
        clash: &Clash,
        remote: Option<&Document>,
    ) -> Result<(), StoreError> {
        self.add_conflicts(key, std::slice::from_ref(clash), remote)
    }

    /// [`Tx::add_conflict`] of all these clashes of one record, in time linear in them.
    pub fn add_conflicts(
        &mut self,
        key: &RecordKey,
        clashes: &[Clash],
        remote: Option<&Document>,
    ) -> Result<(), StoreError> {
        let here = self.edits_here(key, &paths_of(clashes))?;
        self.add_conflicts_by(key, clashes, here, remote)
    }

    /// [`Tx::add_conflicts`] over values that this node has sent, and that the centre does not have any more.
    pub fn add_conflicts_of_sent(
        &mut self,
        key: &RecordKey,
        clashes: &[Clash],
        remote: Option<&Document>,
    ) -> Result<(), StoreError> {
        let here = self.edits_sent(key, &paths_of(clashes))?;
        self.add_conflicts_by(key, clashes, here, remote)
    }

    /// `here`: the edit of each clash, in their order.
    ///
    /// What is the same for all clashes is looked up once, because each lookup may read the whole record.
    fn add_conflicts_by(
        &mut self,
        key: &RecordKey,
        clashes: &[Clash],
        here: Vec<EditHere>,
        remote: Option<&Document>,
    ) -> Result<(), StoreError> {
        if clashes.is_empty() {
            return Ok(());
        }
        let there = self.edit_there(key, remote)?;
        let known = KnownConflicts::of(self, key)?;
        // Fields are of the person whose record it is; the versions of a whole record may name others.
        let mut whose_fields = None;
        for (clash, here) in clashes.iter().zip(here) {
            let (whose, central_person) = match &whose_fields {
                Some(whose) if !clash.path.is_empty() => Clone::clone(whose),
                _ => self.whose_clash(key, clash)?,
            };
            if !clash.path.is_empty() && whose_fields.is_none() {
                whose_fields = Some((whose.clone(), central_person.clone()));
            }
            let mut conflict = Conflict {
                path: clash.path.clone(),
                base: clash.base.clone(),
                local: clash.local.clone(),
                central: clash.remote.clone(),
                stands: clash.stands,
                author: here.author,
                edited_at_ms: here.at_ms,
                central_author: there.author.clone(),
                central_edited_at: there.at.clone(),
                found_at_ms: self.now_ms(),
                owner: Some(whose.account),
                person: whose.person,
                central_person,
                noted_at: Some(whose.number),
                ..Conflict::new(String::new(), key.clone(), Subject::Value)
            };
            conflict.id = known.id_of(self, &conflict)?;
            self.open_conflict(conflict)?;
        }
        Ok(())
    }

    /// Opens a conflict. If it is known, it keeps its notes, and an earlier decision becomes one.
    pub fn open_conflict(&mut self, mut conflict: Conflict) -> Result<(), StoreError> {
        if let Some(known) = self.conflict(&conflict.id)? {
            conflict.notes = known.notes;
            if conflict.author.is_empty() {
                (conflict.author, conflict.edited_at_ms) = (known.author, known.edited_at_ms);
            }
            conflict.publisher = known.publisher;
            conflict.is_reopened = known.is_reopened;
            if known.status == ConflictStatus::Resolved {
                conflict.is_reopened = true;
                conflict.note(Note {
                    reason: "it was found again after this decision".to_owned(),
                    resolution: known.resolution.unwrap_or_default(),
                    value: known.value,
                    by: known.resolved_by.unwrap_or_default(),
                    at_ms: known.resolved_at_ms.unwrap_or_default(),
                });
            }
        }
        self.put_conflict(&conflict)
    }

    /// The conflicts about the values of a record go with it to its new id.
    pub(crate) fn move_conflicts(
        &mut self,
        from: &RecordKey,
        to: &RecordKey,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let mut known = KnownConflicts::of(self, to)?;
        for mut conflict in self.open_conflicts_of(from)? {
            if conflict.subject != Subject::Value {
                continue;
            }
            let (key, publisher) = (to.clone(), None);
            let mut moved =
                self.given(Conflict { key, publisher, is_reopened: false, ..conflict.clone() }, from)?;
            moved.id = known.id_of(self, &moved)?;
            conflict.resolve("new_id", Some(Bson::from(to.id.as_str())), &actor.to_string(), self.now_ms());
            self.put_conflict(&conflict)?;
            known.add(moved.clone());
            self.open_conflict(moved)?;
        }
        Ok(())
    }
}

fn paths_of(clashes: &[Clash]) -> Vec<&[String]> {
    clashes.iter().map(|clash| clash.path.as_slice()).collect()
}
