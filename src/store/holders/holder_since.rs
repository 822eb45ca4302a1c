//! Floor 1. Since when an account has been of the human being who has it now, and where else they were before.
//!
//! The audit trail and the journal name people by account. They are never changed, so what they say of an account is about
//! the person who had it then. Noted beside them is from which number on it is about the present holder; and who leaves an account
//! for another id is noted with the part of the trail that goes with them. Where that is lost, it begins with the loss:
//! nobody is shown what may be about somebody else. Those who may look at everybody see all of it.

use bson::{Document, RawDocument, doc};
use redb::ReadableTable as _;

use super::departed::{Departed, identity_in};
use super::written_over::first_write_in;
use crate::domain::access::Actor;
use crate::domain::audit::{Entry, What, owner_text};
use crate::domain::merge::{is_other_person, same_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::engine::{Snapshot, Tx};
use crate::store::error::{StoreError, unless_damaged};
use crate::store::rows::text_in;
use crate::store::schema::{FORMER_TRAIL, HOLDER_IDENTITY, HOLDER_SINCE};

/// Entries of the audit trail about one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Stretch {
    /// Under which account they stand.
    pub(in crate::store) account: String,
    /// After this one.
    pub(in crate::store) after: u64,
    /// This one included.
    pub(in crate::store) through: u64,
    /// Of what happened then or later, in milliseconds since 1970: what was read lately has its entry some time afterwards.
    pub(in crate::store) since_ms: i64,
}

impl Stretch {
    /// All that was ever said about an account.
    pub(in crate::store) fn whole(account: &str) -> Stretch {
        Stretch { account: account.to_owned(), after: 0, through: u64::MAX, since_ms: i64::MIN }
    }
}

impl Tx<'_> {
    /// Somebody has this account from now on who is not known to be the one who had it last. `had_another`: somebody
    /// else is known to have had it.
    pub(in crate::store) fn note_holder(&mut self, id: &str, had_another: bool) -> Result<(), StoreError> {
        self.confirm_holder(id)?;
        let account = fold_account(id);
        let is_news = had_another
            || self.holder_since.get(account.as_str())?.is_some()
            || self.is_in_trail(&account)?;
        // Of whom nothing was ever said, all is about the first who has it.
        if is_news { self.begin_holder(&account) } else { Ok(()) }
    }

    fn begin_holder(&mut self, account: &str) -> Result<(), StoreError> {
        self.write_all_repeats()?;
        let kept = self.last_trash_number()?;
        self.begin_holder_after(account, kept)
    }

    /// `kept`: what was kept up to this number of the trash is another one's.
    fn begin_holder_after(&mut self, account: &str, kept: u64) -> Result<(), StoreError> {
        let since = (self.audit_head()?.seq, self.last_sequence(), kept, self.now_ms());
        self.holder_since.insert(account, since)?;
        self.former_trail.retain_in((account, "", 0)..(after(account).as_str(), "", 0), |_, _| false)?;
        self.wrote();
        Ok(())
    }

    /// A person is written as `new`. What was given to another human being who had the account ends: what others have
    /// opened of them in an emergency, their sessions, links and forms, and what is kept of them is not the new one's.
    ///
    /// An account comes to be another one's in two ways: its record is made, where there was none or one in another spelling;
    /// or its record is rewritten in its place. A person who leaves is [`Tx::rights_changed_after`]'s.
    pub(in crate::store) fn end_what_was_of_another(
        &mut self,
        id: &str,
        old: Option<&RawDocument>,
        new: &RawDocument,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let Some(old) = old else {
            if *actor != Actor::Centre && !self.keeps_holder {
                self.note_made_anew(id, &identity_in(new)?)?;
            }
            return self.end_emergencies_at(id);
        };
        let (before, now) = (identity_in(old)?, identity_in(new)?);
        if self.keeps_holder {
            return Ok(());
        }
        if before == now {
            return self.follow_password(id, (old, new), actor);
        }
        let is_from_here = *actor != Actor::Centre;
        let is_rewritten = is_from_here && self.is_rewritten_by(id, &before, &now)?;
        if self.follow_holder(id, &before, &now)? || is_rewritten {
            match is_from_here {
                true => self.note_rewrite(id, (old, &before), &now)?,
                false => self.note_holder(id, true)?,
            }
            self.rights_changed(&Actor::Person(id.to_owned()))?;
        }
        self.end_emergencies_of_another(id, &now)
    }

    /// Runs a change of the person `id` who is the same human being afterwards, by decision, whatever becomes of their fields.
    pub(crate) fn keeping_holder<T, E: From<StoreError>>(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let kept = std::mem::replace(&mut self.keeps_holder, true);
        let changed = change(self);
        self.keeps_holder = kept;
        let changed = changed?;
        self.confirm_holder(id)?;
        Ok(changed)
    }

    /// Whether writes of this node that have not been sent have made another human being of the person `key`: `agreed` is who the
    /// centre has, `now` who is here.
    pub(crate) fn is_rewritten(
        &self,
        key: &RecordKey,
        agreed: &Document,
        now: &Document,
    ) -> Result<bool, StoreError> {
        if is_other_person(Some(agreed), agreed, now) {
            return Ok(true);
        }
        if same_identity(agreed, now) {
            return Ok(false);
        }
        // Step by step, with rounds in between: the centre has the first steps.
        if self.written_over(&key.id)?.is_some() {
            return Ok(true);
        }
        // Where the row was lost with damaged pages, everybody's account is of another one since then.
        let since = self.holder_since.get(fold_account(&key.id).as_str())?.map(|since| since.value().1);
        let first_write = self.edit_number(key)?;
        Ok(since.is_some_and(|since| first_write > 0 && first_write <= since))
    }

    /// Behind which number of the journal unsent writes are of who has the account `id` now.
    pub(in crate::store) fn unsent_since(&self, id: &str) -> Result<Option<u64>, StoreError> {
        if let Some(first) = self.written_over(id)? {
            return Ok(Some(first));
        }
        Ok(self.holder_since.get(fold_account(id).as_str())?.map(|since| since.value().1))
    }

    fn is_in_trail(&self, account: &str) -> Result<bool, StoreError> {
        let owner = owner_text(account);
        Ok(self.audit_of.range((&*owner, 0)..=(&*owner, u64::MAX))?.next().transpose()?.is_some())
    }

    /// Who had the account `from` has `to` now, and what the audit trail says of them goes with them.
    pub(in crate::store) fn give_trail(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        self.move_holder_identity(from, to)?;
        let (from, to) = (fold_account(from), fold_account(to));
        if from == to {
            return Ok(());
        }
        self.write_all_repeats()?;
        let through = self.audit_head()?.seq;
        let since = self.holder_since.get(from.as_str())?.map_or(0, |since| since.value().0);
        let mut theirs = vec![(from.clone(), since, through)];
        for entry in self.former_trail.range((from.as_str(), "", 0)..(after(&from).as_str(), "", 0))? {
            let (at, through) = entry?;
            let (_, account, since) = at.value();
            theirs.push((account.to_owned(), since, through.value()));
        }
        for (account, since, through) in theirs {
            self.former_trail.insert((to.as_str(), account.as_str(), since), through)?;
        }
        self.begin_holder(&from)
    }

    /// The rows are lost with damaged pages: the present holder of each account counts as its holder from now on.
    pub(in crate::store) fn holders_are_lost(&mut self) -> Result<(), StoreError> {
        self.write_all_repeats()?;
        for id in self.known_people()? {
            // Who had what is kept is known otherwise.
            self.begin_holder_after(&fold_account(&id), 0)?;
        }
        Ok(())
    }

    /// In a store that a version wrote to which did not note this: the present holder of an account that somebody else is
    /// known to have had begins now. Goes on after the place `at`, over those who are gone and then over the audit trail, as
    /// long as `has_room` says after each row that there is room for another one. Returns the place where it stopped;
    /// `None` at the end.
    pub(in crate::store) fn begin_holders(
        &mut self,
        at: Option<&Document>,
        mut has_room: impl FnMut(usize) -> bool,
    ) -> Result<Option<Document>, StoreError> {
        let (mut changed, mut stopped) = (Vec::new(), None);
        let after_entry =
            at.and_then(|at| at.get_i64("entry").ok()).and_then(|number| u64::try_from(number).ok());
        if after_entry.is_none() {
            let after_account = text_in(at, "account");
            for entry in self.departed.range(after_account.as_str()..)?.sound() {
                let (account, row) = entry?;
                let account = account.value();
                if at.is_some() && account == after_account {
                    continue;
                }
                let last = Departed::decode(row.value());
                if !last.is_ok_and(|last| self.is_still_of(account, &last)) {
                    changed.push(account.to_owned());
                }
                if !has_room(row.value().len()) {
                    stopped = Some(doc! {"account": account});
                    break;
                }
            }
        }
        if stopped.is_none() {
            let people = Kind::Person.schema().collection;
            let first = after_entry.map_or(0, |number| number.saturating_add(1));
            for entry in self.audit.range(first..)?.sound() {
                let (number, row) = entry?;
                if let Some(Entry { event, .. }) = Entry::decode(row.value()) {
                    let account = fold_account(&event.id);
                    // Who was deleted here, or went on under another id.
                    if event.verb == What::Delete.name()
                        && event.kind == people
                        && !self.departed.contains(account.as_str())?
                    {
                        changed.push(account);
                    }
                }
                if !has_room(row.value().len()) {
                    stopped = Some(doc! {"entry": number.value() as i64});
                    break;
                }
            }
        }
        self.write_all_repeats()?;
        changed.iter().try_for_each(|account| self.begin_holder_after(account, 0))?;
        Ok(stopped)
    }

    /// Whether all who have this account now are the one who had it last.
    fn is_still_of(&self, account: &str, last: &Departed) -> bool {
        let Ok(ids) = self.spellings(account) else { return false };
        ids.into_iter().all(|id| {
            let person = unless_damaged(self.document(&RecordKey::new(Kind::Person, id)));
            matches!(person, Ok(Some(Some(person))) if last.is_of(&person))
        })
    }
}

impl Snapshot {
    /// Up to which number of the journal changes are not known to be about who has this account now.
    pub fn changes_before_holder(&self, account: &str) -> Result<u64, StoreError> {
        let since = self.transaction.open_table(HOLDER_SINCE)?.get(fold_account(account).as_str())?;
        Ok(since.map_or(0, |since| since.value().1))
    }

    /// Behind which number of the journal unsent writes are of who has the account `id` now.
    pub(in crate::store) fn unsent_since(&self, id: &str) -> Result<Option<u64>, StoreError> {
        let identity = self.transaction.open_table(HOLDER_IDENTITY)?;
        if let Some(first) = identity.get(id)?.and_then(|row| first_write_in(row.value())) {
            return Ok(Some(first));
        }
        let since = self.transaction.open_table(HOLDER_SINCE)?.get(fold_account(id).as_str())?;
        Ok(since.map(|since| since.value().1))
    }

    /// Up to which number of the trash what was kept is another one's than who has this account now.
    pub fn kept_before_holder(&self, account: &str) -> Result<u64, StoreError> {
        let since = self.transaction.open_table(HOLDER_SINCE)?.get(fold_account(account).as_str())?;
        Ok(since.map_or(0, |since| since.value().2))
    }

    /// What the audit trail says of the human being who has this account now. Of two who share it nobody knows of which.
    pub(in crate::store) fn trail_of_holder(&self, account: &str) -> Result<Vec<Stretch>, StoreError> {
        if self.spellings(account)?.len() > 1 {
            return Ok(Vec::new());
        }
        let since = self.transaction.open_table(HOLDER_SINCE)?.get(account)?;
        let (since, since_ms) = since.map_or((0, i64::MIN), |since| (since.value().0, since.value().3));
        let own = Stretch { account: account.to_owned(), after: since, through: u64::MAX, since_ms };
        let mut stretches = vec![own];
        let former = self.transaction.open_table(FORMER_TRAIL)?;
        for entry in former.range((account, "", 0)..(after(account).as_str(), "", 0))? {
            let (at, through) = entry?;
            let (_, before, since) = at.value();
            stretches.push(Stretch {
                account: before.to_owned(),
                after: since,
                through: through.value(),
                since_ms: i64::MIN,
            });
        }
        Ok(stretches)
    }
}

/// The first text behind this one.
fn after(account: &str) -> String {
    format!("{account}\0")
}

#[cfg(test)]
mod tests;
