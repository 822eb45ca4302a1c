//! Floor 3. Whose a record of the centre is that came while nobody had its account.
//!
//! A record names its person by account, and accounts go from one human being to another. Whose a record is follows from
//! who had the account when this node came to know of it:
//!
//! | the node came to know the record | whose it is |
//! |---|---|
//! | made here, or agreed, while a person stood there | that person's, also after they are gone |
//! | from the centre, while nobody stood there, and somebody here had the account before; also one that was agreed, was deleted there, and is there again | nobody's yet: it waits apart, is in nobody's book, and is merged with nothing |
//! | from the centre, while nobody here has had the account | nobody's: those see it who may see all, until somebody is made here under the account; then it waits apart |
//!
//! Nobody stands there, as far as the node knows, if the person is gone at the centre, or was deleted here, or was made
//! here and is not sent yet. Who was made and deleted here never had anything at the centre.
//!
//! What waits is theirs who come from the centre to have the account. If a person of this node is about to be sent there,
//! it is asked whose it is ([`HoldReason::Taken`]). No decision takes it out of its account.

use bson::{Document, doc};

use super::hold::{open, release, wait};
use super::merge_in::merge_known;
use super::round::Tally;
use super::undecided;
use super::undecided::absence;
use crate::domain::access::Actor;
use crate::domain::merge::{is_unknown, same_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::value::same_document;
use crate::store::{Base, HoldReason, Reread, StoreError, TrashState, Tx, unless_damaged};

/// Whether a record that the centre has under this account waits for somebody to have it, unless it is known here already.
pub(super) fn is_nobodys(tx: &Tx<'_>, account: &str) -> Result<bool, StoreError> {
    let people = tx.spellings(account)?;
    for id in &people {
        if absence(tx, &RecordKey::new(Kind::Person, id.as_str()))?.is_none() {
            return Ok(false);
        }
    }
    Ok(!people.is_empty() || tx.had_somebody(account)?)
}

/// Whether what the centre holds under `key` waits for somebody to have its account; it waits already then.
pub(super) fn diverts(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let owner = |document: &Document| key.kind.schema().owner_of(document);
    let Some((remote, account)) = remote.and_then(|remote| Some((remote, owner(remote)?))) else {
        return Ok(false);
    };
    // Known to be that person's.
    if local.is_some_and(|local| owner(local).as_ref() == Some(&account)) {
        return Ok(false);
    }
    if tx.hold(&account)?.is_some() || !is_nobodys(tx, &account)? {
        return Ok(false);
    }
    let unsent = tx.base_if_dirty(key)?;
    match (local, unsent) {
        (None, None) => {}
        // What became of the account at the centre is no matter of a delete that goes there.
        (None, Some(_)) if tx.has_intent(key)? => return Ok(false),
        (None, Some(Base::Document(agreed))) if same_document(&agreed, remote) => return Ok(false),
        (None, Some(_)) => {
            // It was deleted for who had the account then; this one may be another one's.
            tx.put(key, None, &Base::Absent, &Actor::Centre)?;
            tx.settle_trash(key, TrashState::Done)?;
        }
        // Moved there, away from its person.
        (Some(_), None) => tx.put(key, None, &Base::Absent, &Actor::Centre)?,
        (Some(_), Some(_)) => return Ok(false),
    }
    wait(tx, key, &fold_account(&account), remote, tally)?;
    Ok(true)
}

/// Takes what waits for somebody to have the account, if somebody does who is known to stand at the centre, or if nobody
/// ever did.
pub(super) fn release_if_known(tx: &mut Tx<'_>, account: &str, tally: &mut Tally) -> Result<(), StoreError> {
    if tx.held_of(account)?.is_empty() || tx.hold(account)?.is_some() || is_nobodys(tx, account)? {
        return Ok(());
    }
    release(tx, account, tally)
}

/// Takes what waited under an account as what belongs to a person of whom that is known, whoever stands at the centre.
pub(super) fn adopt(tx: &mut Tx<'_>, account: &str, tally: &mut Tally) -> Result<(), StoreError> {
    for key in tx.held_of(account)? {
        let Some(document) = unless_damaged(tx.take_held(&key))?.flatten() else {
            continue;
        };
        let local = tx.document(&key)?;
        if tx.has_intent(&key)? {
            tx.ask_again(&key, Reread::default())?;
        } else if !undecided::diverts(tx, &key, local.as_ref(), Some(&document), tally)? {
            *tally += merge_known(tx, &key, local, Some(&document))?;
        }
    }
    Ok(())
}

/// Holds a person who is about to be sent if they would get records at the centre that are another one's.
pub(super) fn hold_if_taken(tx: &mut Tx<'_>, key: &RecordKey, tally: &mut Tally) -> Result<(), StoreError> {
    if key.kind != Kind::Person || tx.hold(&key.id)?.is_some() || !meets_records_of_another(tx, key)? {
        return Ok(());
    }
    let own = tx.own_dependents(&key.id)?;
    // Nobody may be known here who had the account.
    let person = tx.document(key)?.unwrap_or_default();
    let last = tx.departed(&key.id)?;
    let is_theirs = last.as_ref().is_some_and(|last| same_identity(last, &person));
    let other = last.filter(|_| !is_theirs).unwrap_or_else(|| doc! {"_id": &key.id});
    let hold = open(tx, key, key, &other, HoldReason::Taken, tally)?;
    if is_theirs {
        // What was agreed while they stood there is theirs.
        return Ok(());
    }
    // Nobody sees in the new one's book what the centre has of the other one.
    for of_account in tx.dependents(&key.id)? {
        let Some(document) = tx.document(&of_account)?.filter(|_| !own.contains(&of_account)) else {
            continue;
        };
        if tx.is_clean(&of_account)? {
            tx.set_apart(&of_account, &hold.account, &document)?;
            if !is_unknown(&other) {
                tx.put_held_agreed(&of_account, &hold.account, &document)?;
            }
        }
    }
    Ok(())
}

/// Whether a person who is new would get records at the centre that are another one's.
pub(super) fn meets_records_of_another(tx: &Tx<'_>, key: &RecordKey) -> Result<bool, StoreError> {
    let Some(person) = tx.document(key)? else {
        return Ok(false);
    };
    if tx.base(key)?.is_at_centre() || tx.has_landed(key)? {
        return Ok(false);
    }
    let is_theirs = tx.departed(&key.id)?.is_some_and(|last| same_identity(&last, &person));
    for held in tx.held_of(&key.id)? {
        // What came while nobody had the account may be anybody's.
        let is_agreed = tx.held(&held)?.is_some_and(|held| held.is_agreed);
        if held.kind != Kind::Person && !(is_theirs && is_agreed) {
            return Ok(true);
        }
    }
    if is_theirs {
        return Ok(false);
    }
    for of_account in tx.dependents(&key.id)? {
        if tx.base(&of_account)?.is_under(&of_account, &key.id) {
            return Ok(true);
        }
    }
    Ok(false)
}
