//! Floor 3. Decisions for a record that is gone: it is made again here, as an edit that travels.
//!
//! One side had deleted the record, and the other one's body waits in the conflict. Who decides for that body wants the
//! record back. It comes back under the conditions under which a record comes out of the trash (`store/trash/undelete.rs`), as the
//! conflict shows it. If it cannot be, the decision is refused, and the conflict stays open.

use bson::{Bson, Document};

use super::conflicts::{Decision, GONE_OF_ANOTHER, OTHER_OWNER, ResolveError};
use crate::domain::access::Actor;
use crate::domain::active::ACTIVE;
use crate::domain::schema::Owner;
use crate::store::{Conflict, OwnerNow, Return, StoreError, Tx, UndeleteError, Whose};

/// The value that a decision is for, if it is not for a delete.
pub(super) fn chosen<'a>(conflict: &'a Conflict, decision: &'a Decision) -> Option<&'a Bson> {
    match decision {
        Decision::TakeLocal => conflict.local.as_ref(),
        Decision::TakeCentral => conflict.central.as_ref(),
        Decision::Value(value) => Some(value),
        Decision::NewId => None,
    }
}

/// Whether the record that a decision is for is gone, or about to go because the centre has deleted it.
pub(super) fn is_making(
    tx: &Tx<'_>,
    conflict: &Conflict,
    record: Option<&Document>,
) -> Result<bool, StoreError> {
    Ok(conflict.path.is_empty() && (record.is_none() || tx.is_vanished(&conflict.key)?))
}

/// Whether a decision for the centre's side only closes the conflict: the record is gone, and neither of the two bodies is
/// of who has its account now. If it was deleted here, a decision for this side closes it.
pub(super) fn is_closing(
    tx: &Tx<'_>,
    conflict: &Conflict,
    record: Option<&Document>,
    decision: &Decision,
) -> Result<bool, StoreError> {
    let is_deleted_here = conflict.local.is_none() && conflict.central.is_some();
    if record.is_some() || !conflict.path.is_empty() || is_deleted_here || *decision != Decision::TakeCentral
    {
        return Ok(false);
    }
    for body in [&conflict.local, &conflict.central].into_iter().flatten().filter_map(Bson::as_document) {
        if !is_of_another(tx, conflict, body)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whose a body of the conflict was.
fn whose(conflict: &Conflict, body: &Document) -> Option<Whose> {
    conflict.whose(&conflict.key.kind.schema().owner_of(body).unwrap_or_default())
}

fn is_of_another(tx: &Tx<'_>, conflict: &Conflict, body: &Document) -> Result<bool, StoreError> {
    match (conflict.key.kind.schema().owner, whose(conflict, body)) {
        (Owner::Nobody, _) => Ok(false),
        (Owner::Itself, _) => tx.is_another_ones(&conflict.key, body),
        (Owner::Field(_), None) => Ok(true),
        (Owner::Field(_), Some(whose)) => Ok(tx.owner_now(&whose)? == OwnerNow::Another),
    }
}

/// Makes a record again, or says why it cannot be.
pub(super) fn make(
    tx: &mut Tx<'_>,
    conflict: &Conflict,
    decision: &Decision,
    body: &Document,
    actor: &Actor,
) -> Result<(), ResolveError> {
    let key = &conflict.key;
    if body.get_str("_id").ok() != Some(&key.id) {
        return refused("it would change the record's id");
    }
    let whose = whose(conflict, body);
    let is_field = matches!(key.kind.schema().owner, Owner::Field(_));
    if is_field && whose.is_none() && conflict.owner.is_some() {
        return refused(OTHER_OWNER);
    }
    let is_account_named = matches!(decision, Decision::Value(_)) && body.contains_key(ACTIVE);
    let again = Return { body, whose, is_over_vanished: true, is_undoing: false, is_account_named };
    match tx.make_again(key, again, actor) {
        Ok(()) => Ok(()),
        Err(UndeleteError::Held { conflict }) => Err(ResolveError::Held { conflict }),
        Err(UndeleteError::Store(error)) => Err(error.into()),
        Err(UndeleteError::OwnerAbsent(_)) => {
            refused("the record's person does not exist here: restore the person first")
        }
        Err(UndeleteError::OwnerChanged(_)) => refused(GONE_OF_ANOTHER),
        Err(UndeleteError::Exists(_)) => refused("somebody has this account in another spelling"),
        Err(error @ (UndeleteError::Unsent(_) | UndeleteError::Unknown)) => refused(&error.to_string()),
    }
}

fn refused(message: &str) -> Result<(), ResolveError> {
    Err(ResolveError::Invalid { field: "take".to_owned(), message: message.to_owned() })
}
