//! Floor 1. Open questions of which a row is lost: put back from what is left of them.
//!
//! Rows say whose somebody's records are, and what waits for a decision. One that is damaged is set aside, or is missing
//! because its key is another one now. Nothing of what it kept apart may become one for that reason. So this is the rule:
//! **the account stays closed, and what waits goes on waiting, until the centre's person has been read again and compared;
//! then the question ends by itself, or is asked anew.** A question stands in several rows, and each of them tells the
//! others:
//!
//! | lost | told by |
//! |---|---|
//! | the conflict over two people | the hold, the person here, and the centre's who waits |
//! | the hold | the conflict |
//! | the centre's person who waits | the hold: the person is read again |
//! | the conflict over a record | the record here, and the centre's that waits |
//! | the mark that a record waits | the conflict |
//! | all of it | nothing: the person here is held against somebody of whom nothing is known, with whom nobody agrees |
//! | who had an account before, or for whom something was meant | nothing: somebody of whom nothing is known |
//!
//! Whose account it is says the key, or what can be read of the row; where they differ both are closed.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};
use redb::ReadableTable as _;

use super::stand_in::unknown;
use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::conflicts::{Conflict, Hold, HoldReason, Subject};
use crate::store::engine::Tx;
use crate::store::error::{StoreError, unless_damaged};
use crate::store::holders::{ALWAYS, identity_row, unknown_departed};
use crate::store::rows::{encode, kind_of, row_key};
use crate::store::sync::{Reread, Undecided};
use crate::store::trash::TrashRow;

/// Resolution of a question that is over without a decision.
const ENDED: &str = "ended";
/// In `meta`: what the node is called at the centre.
const META_LEASE: &str = "lease";

fn text<'d>(value: Option<&'d Bson>, field: &str) -> Option<&'d str> {
    value?.as_document()?.get_str(field).ok()
}

impl Tx<'_> {
    /// Puts back what is missing of each open question, and has read again what it was about.
    pub(in crate::store) fn put_questions_back(&mut self) -> Result<(), StoreError> {
        self.put_conflicts_back()?;
        self.put_holds_back()?;
        self.look_again_at_held()
    }

    /// The hold of an account of which a conflict tells, though its own row is not there.
    pub(in crate::store) fn hold_asked_about(&self, account: &str) -> Result<Option<Hold>, StoreError> {
        let mut ids: BTreeSet<String> = self.spellings(account)?.into_iter().collect();
        ids.insert(account.to_owned());
        for id in ids {
            let asked = self.open_conflicts_of(&RecordKey::new(Kind::Person, id))?;
            if let Some(conflict) = asked.into_iter().find(Conflict::is_identity) {
                return self.hold_in(&conflict).map(Some);
            }
        }
        Ok(None)
    }

    /// What an open conflict over a record as a whole says of the record that waits for it.
    pub(in crate::store) fn undecided_asked_about(
        &self,
        key: &RecordKey,
    ) -> Result<Option<Undecided>, StoreError> {
        let asked = self.open_conflicts_of(key)?;
        let asked = asked.into_iter().find(|conflict| conflict.subject == Subject::Record);
        Ok(asked.map(|conflict| undecided_in(&conflict)))
    }

    /// Holds the person here against somebody of whom nothing is known, until the centre's has been read. `remote`: what
    /// that one may be called there.
    pub(in crate::store) fn close_account(
        &mut self,
        account: &str,
        remote: Option<&str>,
    ) -> Result<(), StoreError> {
        let account = fold_account(account);
        if self.hold.contains(account.as_str())? {
            return Ok(());
        }
        let people = self.spellings(&account)?;
        let Some(local) = people.first() else {
            return Ok(());
        };
        let key = RecordKey::new(Kind::Person, local.as_str());
        let remote = remote.filter(|remote| fold_account(remote) == account).unwrap_or(local);
        let other = unknown(&RecordKey::new(Kind::Person, remote));
        let base = unless_damaged(self.base_if_dirty(&key))?.flatten();
        let node = self.meta(META_LEASE)?.and_then(|row| row.get_str("node").ok().map(str::to_owned));
        let hold = Hold {
            conflict: Conflict::named(&doc! {
                "type": Subject::Identity.name(), "node": node.unwrap_or_default(), "account": &account,
                "lost": self.last_sequence() as i64, "at": self.now_ms(),
            })?,
            local: local.clone(),
            remote: remote.to_owned(),
            why: match base {
                Some(base) if !base.is_at_centre() => HoldReason::Created,
                _ => HoldReason::Reused,
            },
            since_ms: self.now_ms(),
            gone: Some(identity_row(&other)),
            account,
        };
        self.put_hold(&hold)?;
        self.open_conflict_of(&hold)?;
        let again = people.iter().chain([&hold.account, &hold.remote]).cloned().collect::<BTreeSet<_>>();
        again.into_iter().try_for_each(|id| self.read_person_again(&id))
    }

    /// Somebody of whom nothing is known had the account before, unless it is known who.
    pub(in crate::store) fn forget_who_departed(&mut self, account: &str) -> Result<(), StoreError> {
        if self.departed.contains(fold_account(account).as_str())? {
            return Ok(());
        }
        let mut row = unknown_departed(self.last_trash_number()?);
        row.identity.insert("_id", account);
        self.put_departed_row(account, Some(&row))?;
        self.read_person_again(account)
    }

    /// What waits under the account was meant for somebody of whom nothing is known.
    pub(in crate::store) fn forget_who_was_meant(&mut self, account: &str) -> Result<(), StoreError> {
        if !self.awaits(account)? {
            return Ok(());
        }
        let row = encode(&unknown(&RecordKey::new(Kind::Person, account)))?;
        self.meant.insert(account, row.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// Of two who share an account nobody knows any more who came later: either may have.
    pub(in crate::store) fn forget_who_came(&mut self, account: &str) -> Result<(), StoreError> {
        if !self.is_shared(account)? {
            return Ok(());
        }
        let row = encode(&doc! {"id": "", "round": ALWAYS})?;
        self.newcomer.insert(account, row.as_slice())?;
        self.wrote();
        Ok(())
    }

    /// The accounts of what was deleted.
    pub(in crate::store) fn accounts_in_trash(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut accounts = BTreeSet::new();
        for entry in self.trash.iter()?.sound() {
            let (at, row) = entry?;
            let (code, id, sequence) = at.value();
            let kind = kind_of(code)?;
            let row = TrashRow::decode(RecordKey::new(kind, id), sequence, row.value())?;
            let owner = kind.schema().owner_of(&row.document);
            accounts.extend(owner.map(|owner| fold_account(&owner)));
        }
        Ok(accounts)
    }

    /// Accounts for which something waits to be sent or decided.
    pub(in crate::store) fn awaiting_accounts(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut keys = BTreeSet::new();
        for at in self.base.keys::<(u8, &str)>(..)? {
            let at = at?;
            keys.insert((at.value().0, at.value().1.to_owned()));
        }
        for entry in self.conflict_open.iter()? {
            let (at, ()) = (entry?.0, ());
            keys.insert((at.value().0, at.value().1.to_owned()));
        }
        let mut accounts = BTreeSet::new();
        for (code, id) in keys {
            let owner = unless_damaged(self.owner(&RecordKey::new(kind_of(code)?, id)))?.flatten();
            accounts.extend(owner.map(|owner| fold_account(&owner)));
        }
        Ok(accounts)
    }

    /// Conflicts that holds, and records that wait, name and that are not there.
    fn put_conflicts_back(&mut self) -> Result<(), StoreError> {
        for hold in self.holds()? {
            if !self.conflict.contains(hold.conflict.as_str())? {
                self.open_conflict_of(&hold)?;
                self.read_person_again(&hold.remote)?;
            }
        }
        let mut unasked = Vec::new();
        for entry in self.undecided.iter()?.sound() {
            let (at, row) = entry?;
            let undecided = Undecided::decode(row.value())?;
            if !self.conflict.contains(undecided.conflict.as_str())? {
                let (code, id) = at.value();
                unasked.push((RecordKey::new(kind_of(code)?, id), undecided));
            }
        }
        for (key, undecided) in unasked {
            self.ask_again(&key, Reread::default())?;
            match unless_damaged(self.document(&key))? {
                Some(Some(local)) => {
                    let author = unless_damaged(self.author_of(&key))?.unwrap_or_default();
                    let (id, central, now_ms) =
                        (undecided.conflict, undecided.central.as_ref(), self.now_ms());
                    let about = Conflict::about_record(id, &key, &local, central, author, now_ms);
                    self.open_conflict(about)?;
                }
                // It is set aside itself.
                None => {}
                Some(None) => self.remove_undecided(&key)?,
            }
        }
        Ok(())
    }

    /// Holds, and marks of records that wait, of which open conflicts tell and that are not there.
    fn put_holds_back(&mut self) -> Result<(), StoreError> {
        let mut asked = Vec::new();
        for entry in self.conflict_open.iter()? {
            let (at, ()) = (entry?.0, ());
            let conflict = unless_damaged(self.conflict(at.value().2))?.flatten();
            asked.extend(conflict.filter(|conflict| conflict.subject != Subject::Value));
        }
        for mut conflict in asked {
            let key = conflict.key.clone();
            if conflict.is_identity() {
                if !self.hold.contains(fold_account(&key.id).as_str())? {
                    let hold = self.hold_in(&conflict)?;
                    self.put_hold(&hold)?;
                    for id in [&hold.local, &hold.remote] {
                        self.read_person_again(id)?;
                    }
                }
            } else if !self.undecided.contains(row_key(&key))? {
                if self.docs.contains(row_key(&key))? {
                    self.put_undecided(&key, &undecided_in(&conflict))?;
                } else {
                    conflict.resolve(ENDED, None, &Actor::Centre.to_string(), self.now_ms());
                    self.put_conflict(&conflict)?;
                }
                self.ask_again(&key, Reread::default())?;
            }
        }
        Ok(())
    }

    /// What waits behind a hold and is not there is read again. Behind no hold nothing waits but records that nobody here has the account of.
    pub(in crate::store) fn look_again_at_held(&mut self) -> Result<(), StoreError> {
        let (mut lost, mut astray) = (Vec::new(), Vec::new());
        for entry in self.held_of.iter()? {
            let (at, ()) = (entry?.0, ());
            let (account, code, id) = at.value();
            if !self.held.contains((code, id))? {
                lost.push((account.to_owned(), RecordKey::new(kind_of(code)?, id)));
            } else if !self.hold.contains(account)?
                // Without anybody here, records wait for somebody to have the account.
                && (code == Kind::Person.schema().code || !self.spellings(account)?.is_empty())
            {
                astray.push((account.to_owned(), RecordKey::new(kind_of(code)?, id)));
            }
        }
        for (account, key) in lost {
            self.held_of.remove((account.as_str(), row_key(&key).0, key.id.as_str()))?;
            self.ask_again(&key, Reread::default())?;
        }
        for (account, key) in astray {
            let remote = Some(key.id.as_str()).filter(|_| key.kind == Kind::Person);
            self.close_account(&account, remote)?;
            if !self.hold.contains(account.as_str())? {
                // Nobody here has the account.
                self.drop_all_held(&BTreeSet::from([(row_key(&key).0, key.id.clone())]))?;
                self.ask_again(&key, Reread::default())?;
            }
        }
        for hold in self.holds()? {
            if !self.held.contains(row_key(&hold.remote_key()))? {
                self.read_person_again(&hold.remote)?;
            }
        }
        Ok(())
    }

    fn open_conflict_of(&mut self, hold: &Hold) -> Result<(), StoreError> {
        let local = unless_damaged(self.document(&hold.local_key()))?.flatten();
        let local = local.unwrap_or_else(|| unknown(&hold.local_key()));
        let other = unless_damaged(self.other_person(hold))?.flatten();
        let other = other.unwrap_or_else(|| unknown(&hold.remote_key()));
        let author = unless_damaged(self.author_of(&hold.local_key()))?.unwrap_or_default();
        self.open_conflict(Conflict::about_identity(hold, &local, &other, author))
    }

    /// The hold that an open conflict is about.
    fn hold_in(&self, conflict: &Conflict) -> Result<Hold, StoreError> {
        let local = conflict.key.id.clone();
        let remote = text(conflict.central.as_ref(), "_id").unwrap_or(&local).to_owned();
        let why = match conflict.why {
            Some(why) => why,
            // Rows of earlier versions do not say.
            None => match unless_damaged(self.base_if_dirty(&conflict.key))?.flatten() {
                Some(base) if !base.is_at_centre() => HoldReason::Created,
                _ => HoldReason::Reused,
            },
        };
        let is_there = self.held.contains((Kind::Person.schema().code, remote.as_str()))?;
        let central = conflict.central.as_ref().and_then(Bson::as_document);
        let central = central.cloned().unwrap_or_else(|| doc! {"_id": &remote});
        Ok(Hold {
            account: fold_account(&local),
            conflict: conflict.id.clone(),
            gone: (!is_there || why == HoldReason::Taken).then(|| identity_row(&central)),
            since_ms: conflict.found_at_ms,
            local,
            remote,
            why,
        })
    }

    fn read_person_again(&mut self, id: &str) -> Result<(), StoreError> {
        self.ask_again(&RecordKey::new(Kind::Person, id), Reread::default())
    }
}

fn undecided_in(conflict: &Conflict) -> Undecided {
    let central: Option<Document> = conflict.central.as_ref().and_then(Bson::as_document).cloned();
    Undecided { conflict: conflict.id.clone(), central, decided_owner: None }
}
