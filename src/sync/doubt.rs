//! Floor 3. Whether the person here and the one at the centre may be two human beings.
//!
//! A person who is rewritten in place is no edit if two or more of the fields by which people are told apart are other ones
//! afterwards, or become so step by step while somebody else's records are under the account. That is asked on both sides:
//! of what arrives, and of what is about to be sent ([`hold_if_rewritten`]), so that an account never becomes another human
//! being's from here unasked. Records of the one before may be at the centre that this node has never seen.

use bson::Document;

use super::hold::{conflict_id, has_held_dependents, open};
use super::identity_answers::SAME;
use super::ownerless::{ThereOnly, meets_records_of_another};
use super::round::Tally;
use crate::domain::merge::{is_other_person, is_unknown, same_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::store::{Base, Hold, HoldReason, StoreError, Tx};

/// The person here whose account the centre's record may not be about, and why.
pub(super) fn suspicion(
    tx: &Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: &Document,
) -> Result<Option<(String, HoldReason)>, StoreError> {
    let Some(local) = local else {
        if is_deleted_here(tx, key, remote)? {
            return Ok(Some((key.id.clone(), HoldReason::Departed)));
        }
        if let Some(id) = unpushed_spelling(tx, key)? {
            return Ok(Some((id, HoldReason::Spelling)));
        }
        if let Some(id) = gone_spelling(tx, key, remote)? {
            return Ok(Some((id, HoldReason::Departed)));
        }
        return Ok(has_departed(tx, key, remote)?.then(|| (key.id.clone(), HoldReason::Departed)));
    };
    let (is_other, why) = match tx.base_if_dirty(key)? {
        None => (is_other_person(Some(local), local, remote), HoldReason::Reused),
        Some(Base::Absent) => (is_other_person(None, local, remote), HoldReason::Created),
        Some(Base::Document(base)) => {
            match is_rewritten_unasked(tx, key, local, &base)? {
                // A merge would make one of the two who are not one, field by field. If both sides have written the same
                // one, what was not sent for the one before would become theirs.
                true => (parts_from_former(tx, key, local, remote)?, HoldReason::Rewritten),
                false => (is_other_person(Some(&base), local, remote), HoldReason::Reused),
            }
        }
    };
    let is_other = is_other || is_not_meant(tx.meant(&key.id)?.as_ref(), local, remote);
    Ok(is_other.then(|| (key.id.clone(), why)))
}

/// Whether the person `key` was rewritten here into another human being than was `agreed` on, and nobody has said that the two
/// are one.
pub(super) fn is_rewritten_unasked(
    tx: &Tx<'_>,
    key: &RecordKey,
    local: &Document,
    agreed: &Document,
) -> Result<bool, StoreError> {
    Ok(!agreed.is_empty()
        && tx.is_rewritten(key, agreed, local)?
        && !is_said_to_be_same(tx, key, local, agreed)?)
}

/// Whether it matters who was written over the person `key` here: who is written has the account at the centre too, as `remote`,
/// and gets nothing that was not sent for the one before, otherwise.
fn parts_from_former(
    tx: &Tx<'_>,
    key: &RecordKey,
    local: &Document,
    remote: &Document,
) -> Result<bool, StoreError> {
    Ok(!same_identity(local, remote) || !unsent_of_former(tx, key)?.is_empty())
}

/// Records with edits that wait to be sent and were made for the one who had the account before the person `key` was
/// rewritten here.
pub(super) fn unsent_of_former(tx: &Tx<'_>, key: &RecordKey) -> Result<Vec<RecordKey>, StoreError> {
    let mut found = Vec::new();
    for of_account in tx.dependents(&key.id)? {
        if !tx.is_clean(&of_account)? && tx.is_older_than_holder(&key.id, &of_account)? {
            found.push(of_account);
        }
    }
    Ok(found)
}

/// Whether the person `local` was rewritten here into the one whom the centre has by now, and would get what was not sent for the
/// one before.
pub(super) fn takes_what_waits_for_another(
    tx: &Tx<'_>,
    key: &RecordKey,
    local: &Document,
) -> Result<bool, StoreError> {
    let Base::Document(agreed) = tx.base(key)? else {
        return Ok(false);
    };
    Ok(is_rewritten_unasked(tx, key, local, &agreed)? && !unsent_of_former(tx, key)?.is_empty())
}

/// Whether somebody was written over the person of the hold and back, and records were made in between that would become that
/// person's.
pub(super) fn has_records_in_between(tx: &Tx<'_>, hold: &Hold) -> Result<bool, StoreError> {
    Ok(hold.why == HoldReason::Rewritten && !tx.going_along(hold)?.is_empty())
}

/// Whether the centre's person is not the one for whom what waits was meant, see [`Tx::meant`].
pub(super) fn is_not_meant(meant: Option<&Document>, local: &Document, remote: &Document) -> bool {
    meant.is_some_and(|meant| is_other_person(Some(meant), local, remote))
}

/// Somebody of this account in another spelling whom the centre has never been known to have, if `key` is new
/// here.
fn unpushed_spelling(tx: &Tx<'_>, key: &RecordKey) -> Result<Option<String>, StoreError> {
    if !tx.is_clean(key)? {
        return Ok(None);
    }
    for id in tx.spellings(&key.id)? {
        let person = RecordKey::new(Kind::Person, id.as_str());
        if tx.base(&person)? == Base::Absent && !tx.has_landed(&person)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Somebody of this account in another spelling who is gone at the centre and still here, with records; another human
/// being than the one who is new here.
fn gone_spelling(tx: &Tx<'_>, key: &RecordKey, remote: &Document) -> Result<Option<String>, StoreError> {
    let is_anything = tx.has_dependents(&key.id)? || !tx.held_of(&key.id)?.is_empty();
    if !is_anything || !tx.is_clean(key)? {
        return Ok(None);
    }
    for id in tx.spellings(&key.id)? {
        let person = RecordKey::new(Kind::Person, id.as_str());
        let is_gone = tx.is_vanished(&person)?
            || tx.undecided(&person)?.is_some_and(|undecided| undecided.central.is_none());
        if is_gone && tx.document(&person)?.is_some_and(|person| !same_identity(&person, remote)) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Whether the account was somebody else's, whose records are still here.
fn has_departed(tx: &Tx<'_>, key: &RecordKey, remote: &Document) -> Result<bool, StoreError> {
    Ok(tx.is_clean(key)? && tx.is_of_departed(&key.id, remote)?)
}

/// Whether somebody else was deleted here, which the centre does not know yet: the delete is of that one.
fn is_deleted_here(tx: &Tx<'_>, key: &RecordKey, remote: &Document) -> Result<bool, StoreError> {
    Ok(match tx.base_if_dirty(key)? {
        Some(Base::Document(before)) if !before.is_empty() => is_other_person(Some(&before), &before, remote),
        Some(Base::Document(_)) => {
            tx.departed(&key.id)?.is_some_and(|last| is_other_person(None, &last, remote))
        }
        Some(Base::Absent) | None => false,
    })
}

/// Whether what began a hold is still so.
pub(super) fn is_in_doubt(tx: &Tx<'_>, hold: &Hold) -> Result<bool, StoreError> {
    let (local, held) = (tx.document(&hold.local_key())?, tx.held(&hold.remote_key())?);
    let (Some(local), Some(held)) = (&local, &held) else {
        if held.is_none() && tx.reread_due(&hold.remote_key())?.is_some() {
            // Its row was set aside, and comes again.
            return Ok(true);
        }
        if local.is_none() && held.is_some() && tx.has_dependents(&hold.account)? {
            // Nobody can go while they are held: the row was lost, and the records are still here.
            return Ok(true);
        }
        return Ok(match hold.why {
            HoldReason::Taken => {
                local.as_ref().is_some_and(is_unknown)
                    || meets_records_of_another(tx, &hold.local_key(), &mut ThereOnly::default())?
            }
            _ => {
                hold.gone.is_some()
                    && (has_held_dependents(tx, &hold.account)? || has_records_in_between(tx, hold)?)
            }
        });
    };
    let base = tx.base(&hold.local_key())?;
    Ok(match hold.why {
        HoldReason::Spelling => base == Base::Absent,
        HoldReason::Created | HoldReason::Reused => {
            is_other_person(base.document(), local, &held.document)
                || is_not_meant(tx.meant(&hold.account)?.as_ref(), local, &held.document)
        }
        // Who is written back has records of the one in between, perhaps.
        HoldReason::Rewritten => match (base.document(), tx.taken_by(hold)?) {
            // The same was written on both sides.
            (Some(_), Some(taken)) if same_identity(local, &taken) => {
                !unsent_of_former(tx, &hold.local_key())?.is_empty()
            }
            (Some(agreed), Some(_)) => {
                tx.is_rewritten(&hold.local_key(), agreed, local)? || has_records_in_between(tx, hold)?
            }
            _ => {
                tx.is_rewritten(&hold.local_key(), &held.document, local)?
                    || has_records_in_between(tx, hold)?
            }
        },
        HoldReason::Departed | HoldReason::Taken => is_other_person(None, local, &held.document),
    })
}

/// Whether somebody has decided that who was written over a person is the same human being.
fn is_said_to_be_same(
    tx: &Tx<'_>,
    key: &RecordKey,
    local: &Document,
    agreed: &Document,
) -> Result<bool, StoreError> {
    let question = conflict_id(tx, &fold_account(&key.id), local, agreed)?;
    Ok(tx.conflict(&question)?.is_some_and(|asked| asked.resolution.as_deref() == Some(SAME)))
}

/// The question that is to be decided first about the two people of a hold. Where another human being was written here over the
/// person about whom the hold asks, that person's records are not the other one's: it is asked whether these two are one before
/// anything is decided about the centre's person, who goes on waiting.
pub(super) fn first_question(tx: &mut Tx<'_>, hold: Hold, tally: &mut Tally) -> Result<Hold, StoreError> {
    match hold.why {
        HoldReason::Reused | HoldReason::Departed => {}
        // The person here was never at the centre, or is asked about so already.
        HoldReason::Created | HoldReason::Spelling | HoldReason::Taken | HoldReason::Rewritten => {
            return Ok(hold);
        }
    }
    let key = hold.local_key();
    let (Base::Document(agreed), Some(person)) = (tx.base(&key)?, tx.document(&key)?) else {
        return Ok(hold);
    };
    if is_unknown(&agreed) || !is_rewritten_unasked(tx, &key, &person, &agreed)? {
        return Ok(hold);
    }
    if let Some(held) = tx.held(&hold.remote_key())?
        && !parts_from_former(tx, &key, &person, &held.document)?
    {
        return Ok(hold);
    }
    open(tx, &hold.remote_key(), &key, &agreed, HoldReason::Rewritten, tally)
}

/// Holds a person of this node who is about to be sent and has been rewritten into another human being than the centre has,
/// until somebody has said that they are the same.
pub(super) fn hold_if_rewritten(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    if key.kind != Kind::Person || tx.hold(&key.id)?.is_some() {
        return Ok(());
    }
    let (Base::Document(agreed), Some(person)) = (tx.base(key)?, tx.document(key)?) else {
        return Ok(());
    };
    // Of whom nothing is known it is asked otherwise.
    if agreed.is_empty() || is_unknown(&agreed) || !tx.is_rewritten(key, &agreed, &person)? {
        return Ok(());
    }
    if is_said_to_be_same(tx, key, &person, &agreed)? {
        return Ok(());
    }
    let hold = open(tx, key, key, &agreed, HoldReason::Rewritten, tally)?;
    tx.put_held(key, &hold.account, &agreed).map(drop)
}
