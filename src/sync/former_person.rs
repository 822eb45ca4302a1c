//! Floor 3. The one over whom another person was written on this node, and whom the centre deletes before anybody has decided.
//!
//! To a merge this is an edit against a delete, and the edit would stand. But the person who was written here was never at the
//! centre, and whose delete it is has records of their own. So the delete is taken for the former one, and the other is a person
//! who was made here: before they are sent it is asked whose the records are that the centre has ([`super::ownerless`]).

use bson::Document;

use super::doubt::{is_rewritten_unasked, unsent_of_former};
use super::hold::end;
use super::round::Tally;
use crate::domain::access::{Actor, END_USER};
use crate::domain::record::RecordKey;
use crate::store::{Base, Granted, Hold, HoldReason, StoreError, Tx};

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
    tx.take_held(key)?;
    tx.discard(key, former)?;
    tx.remember_departed(&key.id, former)?;
    for unsent in unsent_of_former(tx, key)? {
        tx.note_late(&key.id, &unsent)?;
    }
    let local = without_rights_of_another(former, local);
    tx.put(key, Some(&local), &Base::Absent, &Actor::Centre)?;
    // Roles may have been granted to either, and nobody knows to whom.
    tx.replace_grants(&key.id, &Granted::default(), &Actor::Centre)?;
    tx.rights_changed(&Actor::Person(key.id.clone()))?;
    hold.map_or(Ok(()), |hold| end(tx, hold, Some(former), tally))
}

/// The `person` who was written over the `former` one, without what opened the account to that one: the password and the roles
/// that both records have.
pub(super) fn without_rights_of_another(former: &Document, person: &Document) -> Document {
    let mut person = person.clone();
    let is_shared = |field: &str| person.get(field).is_some() && person.get(field) == former.get(field);
    let (has_password, has_roles) = (is_shared(PASSWORD), is_shared(ROLES));
    if has_password {
        person.remove(PASSWORD);
    }
    if has_roles {
        person.insert(ROLES, vec![END_USER.to_owned()]);
    }
    person
}
