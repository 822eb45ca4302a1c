//! Floor 3. Decisions for a record that is gone: it is made again here, as an edit that travels.
//!
//! One side had deleted the record, and the other one's body waits in the conflict. Who decides for that body wants the
//! record back. It comes back under the conditions under which a record comes out of the trash: its person is here and
//! the same human being, and nobody is held. If it cannot be, the decision is refused, and the conflict stays open.

use bson::{Bson, Document};

use super::conflicts::{Decision, OF_ANOTHER, ResolveError};
use crate::domain::access::Actor;
use crate::domain::record::Kind;
use crate::domain::schema::Owner;
use crate::store::{Base, Conflict, StoreError, Tx};

/// The value that a decision is for, if it is not for a delete.
pub(super) fn chosen<'a>(conflict: &'a Conflict, decision: &'a Decision) -> Option<&'a Bson> {
    match decision {
        Decision::TakeLocal => conflict.local.as_ref(),
        Decision::TakeCentral => conflict.central.as_ref(),
        Decision::Value(value) => Some(value),
        Decision::NewId => None,
    }
}

/// The body that a decision about a whole record is for. If the person has another account by now, it is under that.
pub(super) fn chosen_body(conflict: &Conflict, decision: &Decision) -> Option<Document> {
    let mut body = chosen(conflict, decision)?.as_document()?.clone();
    let schema = conflict.key.kind.schema();
    if let (Owner::Field(field), Some(owner)) = (schema.owner, &conflict.owner)
        && !owner.is_empty()
        && schema.owner_of(&body).is_some_and(|named| named != *owner)
    {
        body.insert(field, owner.as_str());
    }
    Some(body)
}

/// Whether the record that a decision is for is gone, or about to go because the centre has deleted it.
pub(super) fn is_making(
    tx: &Tx<'_>,
    conflict: &Conflict,
    record: Option<&Document>,
) -> Result<bool, StoreError> {
    Ok(conflict.path.is_empty() && (record.is_none() || tx.is_vanished(&conflict.key)?))
}

/// Makes a record again, or says why it cannot be.
pub(super) fn make(
    tx: &mut Tx<'_>,
    conflict: &Conflict,
    body: &Document,
    actor: &Actor,
) -> Result<(), ResolveError> {
    let key = &conflict.key;
    let is_gone = tx.document(key)?.is_none();
    check(tx, conflict, body, is_gone)?;
    // What the centre has deleted is not what was agreed on any more.
    if tx.clear_vanished(key)? {
        tx.put(key, Some(body), &Base::Absent, actor)?;
    } else {
        tx.edit(key, Some(body), actor)?;
    }
    if key.kind == Kind::Person && is_gone {
        // As out of the trash: roles that were granted here do not come back.
        tx.set_grants(&key.id, &[], actor)?;
    }
    Ok(())
}

fn check(tx: &Tx<'_>, conflict: &Conflict, body: &Document, is_gone: bool) -> Result<(), ResolveError> {
    let invalid =
        |message: &str| Err(ResolveError::Invalid { field: "take".to_owned(), message: message.to_owned() });
    let (key, schema) = (&conflict.key, conflict.key.kind.schema());
    if body.get_str("_id").ok() != Some(&key.id) {
        return invalid("it would change the record's id");
    }
    let account = schema.owner_of(body);
    // Of a document of the centre that waits under the id, and of the person, it has to be decided first who that is.
    let waiting = tx.held(key)?.map(|held| held.account);
    for account in waiting.iter().chain(&account) {
        if let Some(hold) = tx.hold(account)? {
            return Err(ResolveError::Held { conflict: hold.conflict });
        }
    }
    match schema.owner {
        Owner::Nobody => Ok(()),
        Owner::Itself if is_gone && !tx.spellings(&key.id)?.is_empty() => {
            invalid("somebody has this account in another spelling")
        }
        Owner::Itself if tx.is_of_departed(&key.id, body)? => invalid(OF_ANOTHER),
        Owner::Itself => Ok(()),
        Owner::Field(_) => {
            let Some(account) = account else {
                return Ok(());
            };
            // An account that has changed hands since makes the record another person's.
            // Nobody's, and of nobody known: the record was not here when the conflict arose.
            let is_unknown = conflict.owner.as_deref() == Some("") && conflict.person.is_none();
            if !is_unknown && conflict.owner.as_ref().is_some_and(|owner| *owner != account) {
                return invalid(OF_ANOTHER);
            }
            if tx.resolve_person(&account)?.is_none() {
                return invalid("the record's person does not exist here: restore the person first");
            }
            Ok(())
        }
    }
}
