//! Floor 3. The one over whom another person was written on this node, and whom the centre deletes before anybody has decided.
//!
//! To a merge this is an edit against a delete, and the edit would stand. But the person who was written here was never at the
//! centre, and whose delete it is has records of their own. So the delete is taken for the former one, and the other is a person
//! who was made here: before they are sent it is asked whose the records are that the centre has ([`super::ownerless`]).

use bson::Document;

use super::doubt::{is_rewritten_unasked, unsent_of_former};
use super::hold::{end, open};
use super::round::Tally;
use crate::domain::access::{Actor, END_USER};
use crate::domain::active::ACTIVE;
use crate::domain::merge::same_identity;
use crate::domain::record::RecordKey;
use crate::store::{Base, Granted, Hold, HoldReason, Reread, StoreError, Tx};

/// What opens an account, and what may be done with it.
const PASSWORD: &str = "password";
const ROLES: &str = "roles";

/// The one over whom the person `local` was written, whom nobody has said to be the same, if the centre had that one until now.
/// `hold` is that of this very person.
pub(super) fn former_of(
    tx: &Tx<'_>,
    key: &RecordKey,
    local: &Document,
    hold: Option<&Hold>,
) -> Result<Option<Document>, StoreError> {
    let Some(Base::Document(former)) = tx.base_if_dirty(key)? else {
        return Ok(None);
    };
    let is_open = match hold {
        // Who was written back is the former one: to them it is a delete like any other.
        Some(hold) => {
            hold.why == HoldReason::Rewritten
                && tx.taken_by(hold)?.is_none()
                && tx.is_rewritten(key, &former, local)?
        }
        None => is_rewritten_unasked(tx, key, local, &former)?,
    };
    Ok((is_open && !former.is_empty()).then_some(former))
}

/// The centre has deleted the `former` one. What waits to be sent for them is not of the person here, nor is what opened the
/// account to them. A closing of the account stays.
pub(super) fn former_is_gone(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    (local, former): (&Document, &Document),
    hold: Option<&Hold>,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let of_former = Former::of(tx, key, former)?;
    tx.take_held(key)?;
    for body in of_former.bodies() {
        tx.discard(key, body)?;
    }
    tx.remember_departed(&key.id, former)?;
    for unsent in unsent_of_former(tx, key)? {
        tx.note_late(&key.id, &unsent)?;
    }
    let local = of_former.without_rights(local);
    tx.put(key, Some(&local), &Base::Absent, &Actor::Centre)?;
    // Roles may have been granted to either, and nobody knows to whom.
    tx.replace_grants(&key.id, &Granted::default(), &Actor::Centre)?;
    tx.rights_changed(&Actor::Person(key.id.clone()))?;
    hold.map_or(Ok(()), |hold| end(tx, hold, Some(former), tally))
}

/// The one over whom another person was written on this node.
pub(super) struct Former {
    /// As they were agreed on with the centre.
    agreed: Document,
    /// As they were here before that write, with what was not sent; `None` where that is not known.
    here: Option<Document>,
    /// Nobody was here then: the other one was made after a delete, and nothing of them is these people's.
    is_apart: bool,
}

impl Former {
    /// `agreed` is who the centre had when another one was written over the person `key`.
    pub(super) fn of(tx: &Tx<'_>, key: &RecordKey, agreed: &Document) -> Result<Former, StoreError> {
        let here = tx.written_over_body(&key.id)?;
        Ok(Former { agreed: agreed.clone(), here, is_apart: tx.is_made_anew(&key.id)? })
    }

    /// The one over whom the person `key` was written whom the centre had and does not have any more: they came out of the trash here.
    pub(super) fn unsent(tx: &Tx<'_>, key: &RecordKey) -> Result<Option<Former>, StoreError> {
        let here = tx.former_known_there(&key.id)?;
        Ok(here.map(|here| Former { agreed: here.clone(), here: Some(here), is_apart: false }))
    }

    /// Who was here before the rewrite, if all of that is about them: where the rewrite came step by step, nobody knows of which of
    /// the two a field says something.
    fn known_here(&self) -> Option<&Document> {
        self.here.as_ref().filter(|here| same_identity(here, &self.agreed))
    }

    /// How they come back: with what was written for them and is not sent.
    fn coming_back(&self) -> &Document {
        self.known_here().unwrap_or(&self.agreed)
    }

    /// What was here before the rewrite and may say something of either.
    fn doubtful(&self) -> Option<&Document> {
        self.here.as_ref().filter(|_| self.known_here().is_none())
    }

    /// What the trash keeps of them: what is doubtful, and how they would come back.
    fn bodies(&self) -> impl Iterator<Item = &Document> {
        self.doubtful().into_iter().chain([self.coming_back()])
    }

    /// The `person` who was written over them, without what opened the account to them: the password and the roles that both
    /// have, or all where it is not known what they had.
    pub(super) fn without_rights(&self, person: &Document) -> Document {
        let mut person = person.clone();
        let is_theirs = |field: &str| {
            let is_in = |former: &Document| former.get(field) == person.get(field);
            let may_be_in = |here: Option<&Document>| here.map_or(!self.is_apart, is_in);
            person.get(field).is_some() && (is_in(&self.agreed) || may_be_in(self.here.as_ref()))
        };
        let (has_password, has_roles) = (is_theirs(PASSWORD), is_theirs(ROLES));
        if has_password {
            person.remove(PASSWORD);
        }
        if has_roles {
            person.insert(ROLES, vec![END_USER.to_owned()]);
        }
        person
    }

    /// They have the account on this node again, as they were last, after who was written over them, or made after their delete,
    /// has left it. `taken`: the one
    /// who has it at the centre by now, if that is another one. That is read again; if nobody has it, the delete is carried out
    /// at once and waits for no sweep: they could log in until then.
    pub(super) fn put_back(
        &self,
        tx: &mut Tx<'_>,
        hold: &Hold,
        taken: Option<&Document>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let key = hold.local_key();
        tx.put(&key, Some(&self.agreed), &Base::Document(self.agreed.clone()), &Actor::Centre)?;
        if self.is_apart {
            // They were deleted on this node, which was not sent: they are closed, and deleted again.
            let mut closed = self.agreed.clone();
            closed.insert(ACTIVE, false);
            tx.edit(&key, Some(&closed), actor)?;
            tx.edit(&key, None, actor)?;
        } else {
            tx.edit(&key, Some(self.coming_back()), actor)?;
            self.keep_doubtful(tx, &key)?;
        }
        let Some(taken) = taken else {
            return Ok(());
        };
        if self.is_apart {
            // Nobody is here whom the other one could be.
            return tx.ask_again(&hold.remote_key(), Reread { is_told: true, ..Reread::default() });
        }
        if hold.local != hold.remote {
            // They are gone at the centre, as is known, and who came has the account in another spelling.
            let why = HoldReason::Departed;
            return open(tx, &hold.remote_key(), &key, taken, why, &mut Tally::default()).map(drop);
        }
        tx.ask_again(&key, Reread { is_told: true, ..Reread::default() })
    }

    /// What was written here before the rewrite, and may be about either, is in the trash.
    fn keep_doubtful(&self, tx: &mut Tx<'_>, key: &RecordKey) -> Result<(), StoreError> {
        self.doubtful().map_or(Ok(()), |here| tx.discard(key, here))
    }
}

/// The centre's person came to have the account in the place of the one who was `agreed` on, and it is decided that the two are two.
/// The password of the one opens nothing to the other: who was rewritten there has it still.
pub(super) fn end_shared_password(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    agreed: &Document,
    actor: &Actor,
) -> Result<(), StoreError> {
    let Some(mut person) = tx.document(key)? else {
        return Ok(());
    };
    if person.get(PASSWORD).is_some() && person.get(PASSWORD) == agreed.get(PASSWORD) {
        person.remove(PASSWORD);
        tx.edit(key, Some(&person), actor)?;
    }
    Ok(())
}
