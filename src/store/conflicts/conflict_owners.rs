//! Floor 1. Owner of the values that a conflict keeps, and whether they may go into a record of the present holder.

use bson::{Bson, Document, doc};
use redb::ReadableTable as _;

use super::conflict::{Conflict, Subject, digest};
use crate::domain::merge::{Clash, identity_of, is_other_person};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::holders::{OwnerNow, Whose, identity_row};
use crate::store::rows::raw;

/// Tells people apart in a row of the centre, on every node that folds alike.
pub(in crate::store) fn mark_of(account: &str, person: &Document) -> Result<String, StoreError> {
    digest(&doc! {"account": account, "person": identity_of(person)})
}

impl Conflict {
    /// Whose the value or body was that is to be put into a record of this account, if that was noted.
    pub fn whose(&self, account: &str) -> Option<Whose> {
        let noted = |person: &Option<Document>| Whose {
            account: account.to_owned(),
            person: person.clone(),
            number: self.noted_at.unwrap_or_default(),
            is_of_another: self.is_of_another || self.noted_at.is_none(),
        };
        if self.owner.as_deref() == Some(account) {
            return Some(noted(&self.person));
        }
        let central = self.central_owner().filter(|owner| owner == account);
        central.filter(|_| self.central_person.is_some()).map(|_| noted(&self.central_person))
    }

    /// The account that the centre's version of a whole record names.
    fn central_owner(&self) -> Option<String> {
        let central = self.central.as_ref().filter(|_| self.path.is_empty());
        central.and_then(Bson::as_document).and_then(|body| self.key.kind.schema().owner_of(body))
    }

    /// The conflict with its whole bodies under another id and account: those of the record that goes there.
    fn renamed(&self, (old, new): (&str, &str), (was, owner): (Option<&str>, &str)) -> Conflict {
        let mut renamed = self.clone();
        if !self.path.is_empty() {
            return renamed;
        }
        let schema = self.key.kind.schema();
        let bodies = [&mut renamed.base, &mut renamed.local, &mut renamed.central];
        for body in bodies.into_iter().flatten().filter_map(Bson::as_document_mut) {
            for field in ["_id", "id"] {
                if body.get_str(field).is_ok_and(|id| id == old) {
                    body.insert(field, new);
                }
            }
            if let (Owner::Field(field), Some(was)) = (schema.owner, was)
                && was != owner
                && schema.owner_of(body).as_deref() == Some(was)
            {
                body.insert(field, owner);
            }
        }
        renamed
    }

    /// The human being whose record it was, as a row of the centre says it; empty if nobody was known.
    pub fn person_mark(&self) -> Result<Option<String>, StoreError> {
        match (&self.owner, &self.person) {
            (Some(_), Some(person)) if person.is_empty() => Ok(Some(String::new())),
            (Some(owner), Some(person)) => mark_of(owner, person).map(Some),
            _ => Ok(None),
        }
    }
}

impl Tx<'_> {
    /// Whether a value of a conflict, or the whole body that it keeps, is of the human being whose `record` is here.
    pub fn belongs_into(&self, conflict: &Conflict, record: &Document) -> Result<bool, StoreError> {
        let schema = conflict.key.kind.schema();
        let account = schema.owner_of(record).unwrap_or_default();
        match (schema.owner, conflict.whose(&account)) {
            (Owner::Nobody, _) => Ok(true),
            (_, None) => Ok(false),
            // There may be others with the account, in other spellings.
            (Owner::Itself, Some(whose)) => self.was_of(&whose, record),
            (Owner::Field(_), Some(whose)) => Ok(self.owner_now(&whose)? == OwnerNow::Same),
        }
    }

    /// Whether two conflicts over a record are of the same human being, `now` of who has its account now.
    pub(in crate::store) fn is_same_human(
        &self,
        before: &Conflict,
        now: &Conflict,
    ) -> Result<bool, StoreError> {
        let account = now.owner.as_deref().unwrap_or_default();
        match (before.whose(account), &now.person) {
            _ if before.owner != now.owner => Ok(false),
            (Some(whose), Some(person)) => self.was_of(&whose, person),
            (whose, _) => Ok(whose.is_some_and(|whose| !whose.is_of_another)),
        }
    }

    /// Whose the values of a clash are; and who has the account that the centre's version of a whole record names, if that
    /// is another account.
    pub(in crate::store) fn whose_clash(
        &self,
        key: &RecordKey,
        clash: &Clash,
    ) -> Result<(Whose, Option<Document>), StoreError> {
        let schema = key.kind.schema();
        let body = |value: &Option<Bson>| {
            value.as_ref().filter(|_| clash.path.is_empty()).and_then(Bson::as_document).cloned()
        };
        let bodies = [body(&clash.local), body(&clash.base), body(&clash.remote)];
        let mut account = self.owner(key)?;
        if account.is_none() && self.is_stored(key, None)? {
            // Neither here nor agreed on: the versions themselves name it.
            account = bodies.iter().flatten().find_map(|body| schema.owner_of(body));
        }
        let account = account.unwrap_or_default();
        let mut whose = self.whose_now(&account)?;
        if key.kind == Kind::Person {
            let agreed = || Ok::<_, StoreError>(self.base(key)?.document().cloned());
            let person = self.document(key)?.map_or_else(agreed, |person| Ok(Some(person)))?;
            whose.person = person.or(bodies[0].clone()).as_ref().map(identity_row);
        }
        let central = bodies[2].as_ref().and_then(|body| schema.owner_of(body));
        let central = central.filter(|central| *central != account);
        let central_person = match central {
            Some(central) => self.whose_now(&central)?.person,
            None => None,
        };
        Ok((whose, central_person))
    }

    /// A conflict over a record that goes on under another account or id, as `conflict.key` says. If it was of the human
    /// being who has the record now, it is theirs there too.
    pub(in crate::store) fn given(
        &self,
        conflict: Conflict,
        from: &RecordKey,
    ) -> Result<Conflict, StoreError> {
        let owner = self.owner(&conflict.key)?.unwrap_or_default();
        let (was, to) = (conflict.owner.clone(), conflict.key.id.clone());
        let mut given = conflict.renamed((&from.id, &to), (was.as_deref(), &owner));
        if was.as_ref() == Some(&owner) || given.key.kind.schema().owner == Owner::Nobody {
            return Ok(given);
        }
        let now = self.whose_now(&owner)?;
        let whose = was.and_then(|was| conflict.whose(&was));
        // The id of the record may have been another one's when the conflict was found, under whatever account.
        let is_same_human = |whose: &Whose, person: &Document| {
            let before = whose.person.as_ref().filter(|before| !before.is_empty());
            before.is_some_and(|before| !is_other_person(Some(before), before, person))
        };
        given.is_of_another = match (whose, &now.person) {
            (Some(whose), Some(person)) => !is_same_human(&whose, person) || !self.was_of(&whose, person)?,
            _ => true,
        };
        (given.owner, given.person, given.noted_at) = (Some(owner), now.person, Some(now.number));
        Ok(given)
    }

    /// The `person` has left this account for `new`. Conflicts over records of theirs that are gone go with them; those over
    /// what stays with the account are another one's.
    pub(crate) fn part_conflicts(
        &mut self,
        account: &str,
        person: &Document,
        new: &str,
    ) -> Result<(), StoreError> {
        let account = fold_account(account);
        for mut conflict in self.value_conflicts_of(&account)? {
            let is_gone = conflict.key.kind != Kind::Person && self.document(&conflict.key)?.is_none();
            let whose = conflict.whose(&account).filter(|_| is_gone);
            if let Some(whose) = whose
                && self.was_of(&whose, person)?
            {
                let now = self.whose_now(new)?;
                // The row at the centre is about the same clash.
                let fingerprint = conflict.fingerprint()?;
                let id = conflict.key.id.clone();
                conflict = conflict.renamed((&id, &id), (Some(&account), &now.account));
                conflict.row_fingerprint = Some(fingerprint);
                (conflict.owner, conflict.person, conflict.noted_at) =
                    (Some(now.account), now.person, Some(now.number));
            } else {
                conflict.is_of_another = true;
            }
            self.keep_conflict(&conflict)?;
        }
        Ok(())
    }

    /// The holder of the account `now` is the `person` who had it, by decision, although their identities differ: what was
    /// kept of that one is theirs.
    pub(crate) fn note_same(
        &mut self,
        account: &str,
        person: &Document,
        now: &Document,
    ) -> Result<(), StoreError> {
        if !is_other_person(Some(person), person, now) {
            return Ok(());
        }
        let account = fold_account(account);
        for mut conflict in self.value_conflicts_of(&account)? {
            if let Some(whose) = conflict.whose(&account)
                && self.was_of(&whose, person)?
            {
                conflict.person = Some(identity_row(now));
                self.keep_conflict(&conflict)?;
            }
        }
        self.note_trash_same(&account, person, now)?;
        self.note_departed_same(&account, person, now)
    }

    /// The open conflicts over values that were found in records of this account, in order of their records.
    fn value_conflicts_of(&self, account: &str) -> Result<Vec<Conflict>, StoreError> {
        let mut found = Vec::new();
        for entry in self.conflict_open.iter()? {
            let id = entry?.0.value().2.to_owned();
            // One that is damaged keeps nobody from the others.
            let conflict = unless_damaged(self.conflict_of_account(&id, account))?.flatten();
            found.extend(conflict.filter(|conflict| conflict.subject == Subject::Value));
        }
        Ok(found)
    }

    /// The conflict, if it was found in a record of this account; others may have large values, and are not decoded.
    fn conflict_of_account(&self, id: &str, account: &str) -> Result<Option<Conflict>, StoreError> {
        let Some(row) = self.conflict.get(id)? else {
            return Ok(None);
        };
        let owner = raw(row.value())?.get_str("owner");
        if owner.is_ok_and(|owner| owner == account) {
            Conflict::decode(row.value()).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether a row of the centre means the one who has this account here; their fields.
    pub(in crate::store) fn person_of_mark(
        &self,
        account: &str,
        mark: &str,
    ) -> Result<Option<Document>, StoreError> {
        let whose = self.whose_now(account)?;
        let person = whose.person.filter(|person| !person.is_empty());
        Ok(match person {
            Some(person) if mark_of(&whose.account, &person)? == mark => Some(person),
            _ => None,
        })
    }
}
