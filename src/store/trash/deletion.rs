//! Floor 1. Whether a record that somebody brings again was deleted: its body lies in the trash.
//!
//! Nobody brings a deleted record back by bringing the same files a second time. What the trash does not hold any more is not
//! known, and neither is what was deleted elsewhere and never was here.

use std::collections::HashMap;

use bson::Document;

use super::deleted_bodies::{TrashRow, TrashState, TrashSummary};
use super::owner_doubt::FormerHolders;
use super::undelete::UndeleteError;
use crate::domain::access::Actor;
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{damaged, row_key};
use crate::store::schema::TRASH;

/// The last delete of a record, whose body lies in the trash.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The record, as it was spelled.
    pub key: RecordKey,
    /// Names the row of the trash.
    pub sequence: u64,
    /// Who deleted it, and when, and its body; `None` if the row is damaged.
    pub row: Option<(TrashSummary, TrashRow)>,
}

/// The ids of people in the trash that are not spelled as their account is, by account.
pub(in crate::store) type TrashedSpellings = HashMap<String, Vec<String>>;

impl Tx<'_> {
    /// How this record was deleted, if it was, and its body is in the trash. `document` is what somebody brings; the body of
    /// another human being, or of another one's record, that has the same id is none of it.
    ///
    /// Of a person, `former` tells how else they may be spelled in the trash.
    pub fn deletion(
        &self,
        key: &RecordKey,
        former: &FormerHolders,
        document: &Document,
    ) -> Result<Option<Deletion>, StoreError> {
        let schema = key.kind.schema();
        self.last_deletion(key, former.trashed(), |body| match schema.owner {
            Owner::Nobody => true,
            Owner::Itself => !is_other_person(Some(body), body, document),
            Owner::Field(_) => schema.owner_of(body) == schema.owner_of(document),
        })
    }

    /// How the person who had this account last was deleted, if they were.
    pub(in crate::store) fn deletion_of_person(
        &self,
        account: &str,
        spellings: &TrashedSpellings,
    ) -> Result<Option<Deletion>, StoreError> {
        let key = RecordKey::new(Kind::Person, fold_account(account));
        self.last_deletion(&key, spellings, |_| true)
    }

    /// How somebody was deleted who had this account, and who is another one than `now`, if one was. Who is in a row that is
    /// damaged is not known, so it may be another one.
    pub(in crate::store) fn deletion_of_another(
        &self,
        account: &str,
        spellings: &TrashedSpellings,
        now: Option<&Document>,
    ) -> Result<Option<Deletion>, StoreError> {
        let key = RecordKey::new(Kind::Person, fold_account(account));
        self.last_deletion(&key, spellings, |body| {
            now.is_none_or(|now| is_other_person(Some(body), body, now))
        })
    }

    fn last_deletion(
        &self,
        key: &RecordKey,
        spellings: &TrashedSpellings,
        is_same: impl Fn(&Document) -> bool,
    ) -> Result<Option<Deletion>, StoreError> {
        let others = match key.kind {
            Kind::Person => spellings.get(&fold_account(&key.id)).map_or(&[][..], |ids| ids),
            _ => &[],
        };
        let mut last: Option<(Deletion, bool)> = None;
        for id in others.iter().filter(|id| **id != key.id).chain([&key.id]) {
            let (code, id) = (key.kind.schema().code, id.as_str());
            for at in self.trash.keys::<(u8, &str, u64)>((code, id, 0)..(code, id, u64::MAX))? {
                let sequence = at?.value().2;
                if last.as_ref().is_some_and(|(last, _)| last.sequence > sequence) {
                    continue;
                }
                let key = RecordKey::new(key.kind, id);
                let row = match unless_damaged(self.trash.get((code, id, sequence)))? {
                    None => None,
                    Some(None) => return Err(damaged("the trash")),
                    Some(Some(row)) => {
                        let about = TrashSummary::decode(key.clone(), sequence, row.value())?;
                        Some((about, TrashRow::decode(key.clone(), sequence, row.value())?))
                    }
                };
                // Nobody knows what is in one that is damaged: in doubt it is what was deleted.
                if row.as_ref().is_none_or(|(_, row)| is_same(&row.document)) {
                    let is_undone = row.as_ref().is_some_and(|(_, row)| row.state == TrashState::Void);
                    last = Some((Deletion { key, sequence, row }, is_undone));
                }
            }
        }
        Ok(last.filter(|(_, is_undone)| !is_undone).map(|(deletion, _)| deletion))
    }

    /// Makes a deleted record again with this content, by the rules by which a body comes out of the trash.
    pub fn bring_back(
        &mut self,
        deletion: &Deletion,
        document: &Document,
        actor: &Actor,
    ) -> Result<(), UndeleteError> {
        let (_, row) = deletion.row.as_ref().ok_or(UndeleteError::Unknown)?;
        self.make_again(&deletion.key, row.again_as(document), actor)
    }

    /// Why the body in the trash cannot be put back as things are, if it cannot.
    pub fn check_put_back(&self, deletion: &Deletion) -> Result<(), UndeleteError> {
        let (_, row) = deletion.row.as_ref().ok_or(UndeleteError::Unknown)?;
        self.check_again(&deletion.key, &row.again_as(&row.document))
    }
}

impl Snapshot {
    /// See [`TrashedSpellings`].
    pub(in crate::store) fn trashed_spellings(&self) -> Result<TrashedSpellings, StoreError> {
        let mut spellings = TrashedSpellings::new();
        let trash = self.transaction.open_table(TRASH)?;
        let (code, _) = row_key(&RecordKey::new(Kind::Person, ""));
        for at in trash.keys::<(u8, &str, u64)>((code, "", 0)..(code + 1, "", 0))? {
            let at = at?;
            let id = at.value().1;
            let account = fold_account(id);
            let ids = spellings.entry(account).or_default();
            if id != fold_account(id) && !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
        spellings.retain(|_, ids| !ids.is_empty());
        Ok(spellings)
    }
}
