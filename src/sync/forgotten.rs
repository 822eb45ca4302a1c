//! Floor 3. The one over whom another person was written on this node, at a centre that was set back to an older copy.
//!
//! Such a centre has lost them, or has them as they were. That is no delete and no edit: somebody forgot. So they stay what was
//! agreed on, and it is asked whether the two are one, as anywhere else. Whom the centre has lost waits behind that question as if
//! they were there, and goes there again once it is decided; somebody else may put them there before.
//!
//! What the centre had under the account when it was set back is of the former one, whatever of it differs or is lost now. The
//! other one has what was written on this node after the rewrite, and nothing else.

use bson::Document;

use super::doubt::is_rewritten_unasked;
use super::hold::open;
use super::round::Tally;
use crate::domain::access::Actor;
use crate::domain::merge::{is_other_person, is_unknown};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::value::same_document;
use crate::store::{Base, Hold, HoldReason, StoreError, Tx, identity_row};

/// Whether the hold is about somebody written over whom the centre has lost. They wait here, and count as gone.
pub(super) fn is_forgotten(tx: &Tx<'_>, hold: &Hold) -> Result<bool, StoreError> {
    Ok(counts_as_gone(hold) && tx.held(&hold.remote_key())?.is_some())
}

/// Whether the centre does not have the one over whom another person was written.
pub(super) fn counts_as_gone(hold: &Hold) -> bool {
    hold.why == HoldReason::Rewritten && hold.gone.is_some()
}

/// Brings a person over whom another one was written together with a centre that was set back; what was agreed on stays so. Returns
/// whether all is done, because the centre has nobody; `None` if nobody was written over.
pub(super) fn bring_former_together(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<Option<bool>, StoreError> {
    let (Kind::Person, Some(local), Base::Document(former)) = (key.kind, local, tx.base(key)?) else {
        return Ok(None);
    };
    let hold = tx.hold(&key.id)?;
    let is_written_over = match &hold {
        Some(hold) => hold.why == HoldReason::Rewritten && hold.local == key.id && hold.remote == key.id,
        None => is_rewritten_unasked(tx, key, local, &former)?,
    };
    if !is_written_over || former.is_empty() {
        return Ok(None);
    }
    let Some(remote) = remote else {
        let hold = hold.map_or_else(|| open(tx, key, key, &former, HoldReason::Rewritten, tally), Ok)?;
        if let Some(waited) = tx.take_held(key)? {
            keep_if_another(tx, key, &waited, &former)?;
        }
        tx.put_held(key, &hold.account, &former)?;
        tx.put_hold(&Hold { gone: Some(identity_row(&former)), ..hold })?;
        return Ok(Some(true));
    };
    // What waits is kept when something else comes to wait in its place.
    if hold.is_none() && !is_other_person(Some(&former), &former, remote) {
        keep_if_another(tx, key, &former, remote)?;
    }
    Ok(Some(false))
}

fn keep_if_another(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    known: &Document,
    now: &Document,
) -> Result<(), StoreError> {
    if same_document(known, now) { Ok(()) } else { tx.discard_held(key, known) }
}

/// The centre has somebody under the account again. What it holds waits like anywhere else.
pub(super) fn is_there_again(tx: &mut Tx<'_>, hold: Hold, remote: &Document) -> Result<Hold, StoreError> {
    // Of whom nothing is known is asked about anew.
    if !counts_as_gone(&hold) || hold.gone.as_ref().is_some_and(is_unknown) {
        return Ok(hold);
    }
    let key = hold.remote_key();
    if let Some(former) = tx.take_held(&key)? {
        keep_if_another(tx, &key, &former, remote)?;
    }
    let hold = Hold { gone: None, ..hold };
    tx.put_hold(&hold)?;
    Ok(hold)
}

/// The question is over, and the centre has lost the one who was written over: who has the account here goes there as somebody new.
/// Returns whether it is so.
pub(super) fn end_forgotten(tx: &mut Tx<'_>, hold: &Hold) -> Result<bool, StoreError> {
    if !is_forgotten(tx, hold)? {
        return Ok(false);
    }
    tx.take_held(&hold.remote_key())?;
    let key = hold.local_key();
    let here = tx.document(&key)?;
    tx.put(&key, here.as_ref(), &Base::Absent, &Actor::Centre)?;
    Ok(true)
}

/// The person here who was written over the one to whom a record was `agreed` to belong, if nobody has said that the two are one.
pub(super) fn written_over_owner(
    tx: &Tx<'_>,
    key: &RecordKey,
    agreed: &Base,
) -> Result<Option<RecordKey>, StoreError> {
    let Some(account) = agreed.document().and_then(|agreed| key.kind.schema().owner_of(agreed)) else {
        return Ok(None);
    };
    if key.kind == Kind::Person {
        return Ok(None);
    }
    if let Some(hold) = tx.hold(&account)? {
        return Ok((hold.why == HoldReason::Rewritten).then(|| hold.local_key()));
    }
    for id in tx.spellings(&account)? {
        let person = RecordKey::new(Kind::Person, id);
        if let (Some(local), Some(Base::Document(former))) =
            (tx.document(&person)?, tx.base_if_dirty(&person)?)
            && is_rewritten_unasked(tx, &person, &local, &former)?
        {
            return Ok(Some(person));
        }
    }
    Ok(None)
}
