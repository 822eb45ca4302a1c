//! Floor 1. Accounts that were closed on this node, beside what their records say.
//!
//! A hub may store `active: false` for everybody. Where that does not count (`accounts.active_from_centre`), a closing that
//! somebody made here still does. So it is kept here as well, under the id of the person's record as it is stored, because two
//! people may have one account in two spellings: made when somebody closes the account on this node, gone when somebody opens
//! it here, or when the account comes to be another human being's. The centre's opening and a delete leave it: the same person
//! who comes back is as closed as they were.
//!
//! A closing that changed the record travelled. One that found it inactive did not, and no other side knows of it: that is noted
//! as well ([`Closing`]), and counts also where the centre's `active` does.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, RawDocument};
use redb::{ReadableTable as _, ReadableTableMetadata as _};

use crate::domain::access::Actor;
use crate::domain::active::{ACTIVE, Closing, is_active_raw};
use crate::domain::audit::{Event, What};
use crate::domain::merge::is_other_person;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx, last_sequence};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::{Fields, damaged};
use crate::store::schema::{CLOSED_HERE, CLOSED_UNSENT, JOURNAL, META};

/// What the journal says of `active`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActiveChanges {
    pub people: BTreeMap<String, ActiveChange>,
    /// From when on all changes are kept, in milliseconds; `None`: from the beginning.
    pub kept_since_ms: Option<i64>,
}

/// The last change of one person's `active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveChange {
    pub at_ms: i64,
    /// It was changed after they were made; otherwise they were made so.
    pub is_later: bool,
    /// The centre's version was taken; otherwise somebody wrote it here, as an import does.
    pub is_from_centre: bool,
}

impl Tx<'_> {
    /// Notes whether somebody has closed the account of this record on this node, whatever the record says. That is in the
    /// audit trail also where the record has said so before, and is not changed. If it was changed for that, this comes after it.
    pub(crate) fn set_closed_here(
        &mut self,
        id: &str,
        is_closed: bool,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        // Not noted by the change of the record, or opened by another side since: nothing has travelled.
        let is_unsent = is_closed && (!self.is_closed_here(id)? || self.unsent(id)? == Some(false));
        if !self.note_closed_here(id, is_closed)? && !is_unsent {
            return Ok(());
        }
        if is_unsent {
            self.closed_unsent.insert(id, true)?;
        }
        self.rights_changed(&Actor::Person(id.to_owned()))?;
        let event = Event::new(What::Update, actor).at(self.asked_from());
        let event = event.about(Kind::Person.schema().collection, id, Some(&fold_account(id)));
        let said = if is_closed { "closed on this node" } else { "opened on this node" };
        self.audit(event.changing(&[ACTIVE.to_owned()]).saying(said))
    }

    /// Whether that was news.
    pub(in crate::store) fn note_closed_here(
        &mut self,
        id: &str,
        is_closed: bool,
    ) -> Result<bool, StoreError> {
        let is_news = match is_closed {
            true => self.closed_here.insert(id, ())?.is_none(),
            false => {
                self.closed_unsent.remove(id)?;
                self.closed_here.remove(id)?.is_some()
            }
        };
        if is_news {
            self.wrote();
        }
        Ok(is_news)
    }

    /// Keeps the note true when a record changes, which changes the rights of an account by itself. A person who was inactive from
    /// the beginning was not closed by anybody, and one who is put back or stays active was not opened by anybody.
    pub(crate) fn closed_after(
        &mut self,
        key: &RecordKey,
        (old, new): (Option<&RawDocument>, Option<&RawDocument>),
        actor: &Actor,
    ) -> Result<(), StoreError> {
        if key.kind != Kind::Person {
            return Ok(());
        }
        if let (None, Some(person)) = (old, new) {
            self.close_other_spelling(&key.id, person)?;
        }
        let (was, is) = (old.map(is_active_raw), new.map(is_active_raw));
        match (was, is) {
            // What another side opens was closed here all the same, if it is made inactive there once more.
            (Some(false), Some(true)) if *actor == Actor::Centre => self.note_opened_elsewhere(&key.id)?,
            _ if *actor == Actor::Centre => {}
            (Some(false), Some(true)) => drop(self.note_closed_here(&key.id, false)?),
            (Some(true), Some(false)) => {
                self.note_closed_here(&key.id, true)?;
                // It travels, whatever was before.
                if self.unsent(&key.id)? == Some(false) {
                    self.closed_unsent.remove(key.id.as_str())?;
                }
            }
            // Removed, or made so: put back from the trash, it is as closed as it was.
            _ => {}
        }
        Ok(())
    }

    /// Somebody comes whose account, in another spelling, was closed here: as the same human being they are as closed as they
    /// were.
    fn close_other_spelling(&mut self, id: &str, person: &RawDocument) -> Result<(), StoreError> {
        if self.closed_here.is_empty()? {
            return Ok(());
        }
        let account = fold_account(id);
        let last = self.departed(&account)?;
        let mut spelled = self.spellings(&account)?;
        spelled.extend(last.as_ref().and_then(|last| last.get_str("_id").ok()).map(str::to_owned));
        for other in spelled {
            if other == id || !self.is_closed_here(&other)? {
                continue;
            }
            let before =
                unless_damaged(self.document(&RecordKey::new(Kind::Person, other.as_str())))?.flatten();
            let Some(before) = before.or_else(|| last.clone()) else { continue };
            let person = Document::try_from(person).map_err(|_| damaged("a person"))?;
            if !is_other_person(Some(&before), &before, &person) {
                self.note_closed_here(id, true)?;
                if let Some(unsent) = self.unsent(&other)? {
                    self.closed_unsent.insert(id, unsent)?;
                }
            }
        }
        Ok(())
    }

    /// Another side has opened the account: a closing that had travelled is over where the centre's `active` counts.
    fn note_opened_elsewhere(&mut self, id: &str) -> Result<(), StoreError> {
        if self.is_closed_here(id)? && self.unsent(id)?.is_none() {
            self.closed_unsent.insert(id, false)?;
            self.wrote();
        }
        Ok(())
    }

    /// The note goes with a person to their new id.
    pub(crate) fn move_closed_here(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        let unsent = self.unsent(from)?;
        if self.note_closed_here(from, false)? {
            self.note_closed_here(to, true)?;
            if let Some(unsent) = unsent {
                self.closed_unsent.insert(to, unsent)?;
            }
        }
        Ok(())
    }

    /// Two people come of one account, which was closed here: nobody knows for which of them, so both are closed.
    pub(crate) fn keep_closed_here(&mut self, id: &str, before: &str) -> Result<(), StoreError> {
        if self.is_closed_here(before)? {
            self.note_closed_here(id, true)?;
        }
        Ok(())
    }

    fn unsent(&self, id: &str) -> Result<Option<bool>, StoreError> {
        Ok(self.closed_unsent.get(id)?.map(|unsent| unsent.value()))
    }

    /// Why the account is closed on this node, whatever its record says.
    pub(crate) fn closing(&self, id: &str) -> Result<Option<Closing>, StoreError> {
        let undecided = self.undecided(&RecordKey::new(Kind::Person, id));
        if is_gone(undecided.map(|known| known.map(|known| known.central.is_none())))? {
            return Ok(Some(Closing::Gone));
        }
        Ok(self.is_closed_here(id)?.then_some(closing_of(self.unsent(id)?)))
    }

    pub(crate) fn is_closed_here(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.closed_here.get(id)?.is_some())
    }

    /// The rows are lost with damaged pages. Every account that is known here may have been closed, so none is opened by the loss. Each
    /// opens as any other does, and people who come later are none of them.
    pub(in crate::store) fn closed_here_is_lost(&mut self) -> Result<(), StoreError> {
        for id in self.known_people()? {
            self.note_closed_here(&id, true)?;
        }
        Ok(())
    }

    /// Of whom this is lost that nothing had travelled, it is not known that it had: nobody is opened by the loss.
    pub(in crate::store) fn closed_unsent_is_lost(&mut self) -> Result<(), StoreError> {
        let mut closed = Vec::new();
        for entry in self.closed_here.iter()? {
            closed.push(entry?.0.value().to_owned());
        }
        for id in closed {
            self.closed_unsent.insert(id.as_str(), true)?;
            self.wrote();
        }
        Ok(())
    }

    /// The ids of all people with a record here, also one that is damaged or missing, or with one in the trash.
    pub(in crate::store) fn known_people(&self) -> Result<BTreeSet<String>, StoreError> {
        let code = Kind::Person.schema().code;
        let mut people = BTreeSet::new();
        for at in self.docs.keys::<(u8, &str)>((code, "")..(code + 1, ""))? {
            people.insert(at?.value().1.to_owned());
        }
        for entry in self.by_name.iter()? {
            people.insert(entry?.0.value().1.to_owned());
        }
        for at in self.trash.keys::<(u8, &str, u64)>((code, "", 0)..(code + 1, "", 0))? {
            people.insert(at?.value().1.to_owned());
        }
        Ok(people)
    }
}

impl Snapshot {
    /// What the journal says of each person's `active`, by id: their last change of it, or that they were made.
    pub fn active_changes(&self) -> Result<ActiveChanges, StoreError> {
        let mut changes = ActiveChanges { people: BTreeMap::new(), kept_since_ms: None };
        let mut first = None;
        let by_centre = Actor::Centre.to_string();
        let journal = self.transaction.open_table(JOURNAL)?;
        let last = last_sequence(&journal, &self.transaction.open_table(META)?)?;
        // A clock that was put right may have left older moments between newer ones, so all is looked at.
        for entry in journal.range(0_u64..)? {
            let (sequence, row) = entry?;
            let row = Fields::of(row.value(), "a row of the journal")?;
            let (key, at_ms) = (row.key()?, row.int64("at")?);
            first.get_or_insert((sequence.value(), at_ms));
            if key.kind != Kind::Person {
                continue;
            }
            let paths = row.texts("paths")?;
            let is_later = paths.iter().any(|path| path == ACTIVE);
            if is_later || paths.iter().any(String::is_empty) {
                changes.people.insert(
                    key.id,
                    ActiveChange { at_ms, is_later, is_from_centre: row.text("actor")? == by_centre },
                );
            }
        }
        changes.kept_since_ms = match first {
            Some((sequence, _)) if sequence <= 1 => None,
            Some((_, at_ms)) => Some(at_ms),
            None if last == 0 => None,
            None => Some(i64::MAX),
        };
        Ok(changes)
    }

    /// Whether somebody has closed the account on this node.
    pub fn is_closed_here(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.transaction.open_table(CLOSED_HERE)?.get(id)?.is_some())
    }

    /// Why the account is closed on this node, whatever its record says.
    pub fn closing(&self, id: &str) -> Result<Option<Closing>, StoreError> {
        let undecided = self.undecided(&RecordKey::new(Kind::Person, id));
        if is_gone(undecided.map(|known| known.map(|known| known.central.is_none())))? {
            return Ok(Some(Closing::Gone));
        }
        if !self.is_closed_here(id)? {
            return Ok(None);
        }
        let unsent = self.transaction.open_table(CLOSED_UNSENT)?.get(id)?.map(|unsent| unsent.value());
        Ok(Some(closing_of(unsent)))
    }

    /// How many accounts were closed here when their record said so already, and are open by it since: somebody has opened them
    /// elsewhere.
    pub fn opened_elsewhere_count(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        for entry in self.transaction.open_table(CLOSED_UNSENT)?.iter()? {
            let (id, is_unsent) = entry?;
            // One that is damaged opens nothing.
            let is_active = |id: &str| -> Result<bool, StoreError> {
                let seen = self.look_at(Kind::Person, id, |_, person| is_active_raw(person));
                Ok(unless_damaged(seen)?.flatten().unwrap_or_default())
            };
            count += u64::from(is_unsent.value() && is_active(id.value())?);
        }
        Ok(count)
    }
}

/// Whether a person was deleted at the centre and waits for a decision, by the row that says whether the centre has none. A
/// row that cannot be read opens nothing.
fn is_gone(is_without_central: Result<Option<bool>, StoreError>) -> Result<bool, StoreError> {
    Ok(unless_damaged(is_without_central)?.is_none_or(Option::unwrap_or_default))
}

fn closing_of(unsent: Option<bool>) -> Closing {
    if unsent == Some(true) { Closing::Unsent } else { Closing::Travelled }
}

#[cfg(test)]
mod tests;
