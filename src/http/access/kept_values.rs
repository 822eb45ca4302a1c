//! Floor 4. Who may read what is kept of a record: values that lost in a conflict, bodies in the trash.
//!
//! It belongs to the human being who had the account when it was kept. Somebody else may have it now.

use crate::domain::access::{Acl, Actor, Principal};
use crate::domain::record::Kind;
use crate::domain::schema::Owner;
use crate::store::{OwnerNow, Snapshot, StoreError, Whose, unless_damaged};

/// Whether it may be shown, as far as it matters whose it was: who may read everybody's records sees also what is kept of
/// them, and others only what is of who has the account now. `None`: that is not known.
pub(crate) fn may_read_kept(
    view: &Snapshot,
    acl: &Acl,
    who: &Principal,
    kind: Kind,
    whose: Option<&Whose>,
) -> Result<bool, StoreError> {
    if may_read_all(acl, who, kind) || kind.schema().owner == Owner::Nobody {
        return Ok(true);
    }
    let Some(whose) = whose else {
        return Ok(false);
    };
    // Who went on under a new id is not gone, but is not here any more either.
    let is_before = whose.number <= view.kept_before_holder(&whose.account)?;
    // Where the row that tells it is damaged nobody knows whose it is.
    let owner_now = unless_damaged(view.owner_now(whose))?;
    Ok(!is_before && owner_now.is_some_and(|owner_now| owner_now != OwnerNow::Another))
}

/// Whether somebody may know of everybody's records of a kind.
pub(crate) fn may_read_all(acl: &Acl, who: &Principal, kind: Kind) -> bool {
    is_operator(who) || acl.may_read(who, kind, None)
}

/// The operator of the machine sees that something is kept, and decides what nobody else can.
pub(crate) fn is_operator(who: &Principal) -> bool {
    matches!(who.actor, Actor::Operator(_))
}
