//! Floor 3. Whose a record of the centre is that came while nobody had its account.
//!
//! A record names its person by account, and accounts go from one human being to another. Whose a record is follows from
//! who had the account at the centre, as far as this node knew, when it came to know of the record:
//!
//! | the node came to know the record | whose it is |
//! |---|---|
//! | made here, or agreed, while a person stood there | that person's, also after they are gone |
//! | from the centre, while nobody stood there, and nobody had it before | the first one's whom the centre brings under the account |
//! | as the row before, and by now it is here alone: it was deleted at the centre while nobody here had the account, and an edit of it stood against that, or it came out of the trash | of somebody of whom nothing is known ([`Tx::put_base`] notes it): who gets the account is asked about ([`HoldReason::Departed`]), or refused |
//! | made here, while nobody had the account, nor had had it before | the next one's who gets it |
//! | from the centre, while nobody stood there, and somebody had it before; also one that was agreed, was deleted there, and is there again by then | that one's, if the centre brings the same human being back; if it brings another one, nobody's: it is asked ([`HoldReason::Departed`]), and nobody gets it unasked |
//!
//! Until then it is in nobody's book. While nobody is here under the account, those see it who may see all, and that it came
//! after the last one was gone is noted ([`Tx::note_late`]). While somebody is here who does not stand there, it waits
//! apart, and is merged with nothing. One that says the same as a record of that person here, made here and never sent, waits
//! as well, and the one here stays in its book: nobody knows yet that the two are one. One that says something else is a
//! question of its own besides ([`undecided`]).
//!
//! Nobody stands there, as far as the node knows, if the person is gone at the centre, or was made here and is not sent
//! yet. Who was deleted here stands there until that is sent: their records are theirs, and take the delete back. Who was
//! made and deleted here never had anything at the centre.
//!
//! If a person of this node is about to be sent there, it is asked whose it is ([`HoldReason::Taken`]), also if another record
//! has its id here. Where it was deleted here, the person waits until that is there. No decision takes it out of its account.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, doc};

use super::former_person::Former;
use super::hold::{open, release, wait};
use super::merge_in::merge_known;
use super::round::Tally;
use super::undecided;
use super::undecided::absence;
use crate::domain::access::Actor;
use crate::domain::merge::{is_unknown, same_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::value::same_document;
use crate::store::{
    Base, HoldReason, Reread, StoreError, TrashState, Tx, Undecided, identity_row, unless_damaged,
};

/// Whether nobody is known to stand at the centre under this account whose a record would be, and somebody had it, or is
/// here.
pub(super) fn is_nobodys(tx: &Tx<'_>, account: &str) -> Result<bool, StoreError> {
    let people = tx.spellings(account)?;
    for id in &people {
        if absence(tx, &RecordKey::new(Kind::Person, id.as_str()))?.is_none() {
            return Ok(false);
        }
    }
    Ok(!people.is_empty() || (tx.had_somebody(account)? && !is_deleted_unsent(tx, account)?))
}

/// Whether the person of an account was deleted here, and the centre has them still.
fn is_deleted_unsent(tx: &Tx<'_>, account: &str) -> Result<bool, StoreError> {
    let last = tx.departed(account)?;
    let spelled = last.as_ref().and_then(|last| last.get_str("_id").ok());
    for id in [Some(account), spelled].into_iter().flatten() {
        let key = RecordKey::new(Kind::Person, id);
        let is_on_its_way = tx.has_intent(&key)? || tx.has_landed(&key)?;
        if !is_on_its_way && tx.base_if_dirty(&key)?.is_some_and(|base| base.is_at_centre()) {
            return Ok(tx.document(&key)?.is_none() && absence(tx, &key)?.is_none());
        }
    }
    Ok(false)
}

/// Whether a record waits apart that the centre has under an account where nobody stands. While nobody is here either,
/// nobody's book is there in which it could be: it is here like any other, and that it came late is noted.
pub(super) fn is_apart(tx: &mut Tx<'_>, key: &RecordKey, account: &str) -> Result<bool, StoreError> {
    if !is_nobodys(tx, account)? {
        return Ok(false);
    }
    if !tx.spellings(account)?.is_empty() || !tx.can_note_late(account)? {
        return Ok(true);
    }
    tx.note_late(account, key)?;
    Ok(false)
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
    if let Some(local) = local.filter(|local| owner(local).as_ref() == Some(&account)) {
        // Any other is known to be that person's.
        let is_beside = waits_beside(tx, key, &account, (local, remote))?;
        if is_beside {
            wait(tx, key, &fold_account(&account), remote, tally)?;
        }
        return Ok(is_beside);
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
        (Some(_), None) => {}
        (Some(_), Some(_)) => return Ok(false),
    }
    if !is_apart(tx, key, &account)? {
        return Ok(false);
    }
    if local.is_some() {
        tx.put(key, None, &Base::Absent, &Actor::Centre)?;
    }
    wait(tx, key, &fold_account(&account), remote, tally)?;
    Ok(true)
}

/// Whether the centre's record waits beside one that says the same and was made here for a person of the account, because nobody
/// stands at the centre whose it would be.
fn waits_beside(
    tx: &Tx<'_>,
    key: &RecordKey,
    account: &str,
    (local, remote): (&Document, &Document),
) -> Result<bool, StoreError> {
    let is_sent = tx.base_if_dirty(key)? != Some(Base::Absent)
        || tx.has_intent(key)?
        || tx.has_landed(key)?
        || tx.ghost(key)?.is_some();
    if is_sent || tx.hold(account)?.is_some() || tx.spellings(account)?.is_empty() {
        return Ok(false);
    }
    Ok(is_nobodys(tx, account)? && undecided::says_the_same(key, local, remote))
}

/// Takes what waits for somebody to have the account, if somebody does who is known to stand at the centre, or if nobody
/// is here any more.
pub(super) fn release_if_known(tx: &mut Tx<'_>, account: &str, tally: &mut Tally) -> Result<(), StoreError> {
    if tx.held_of(account)?.is_empty() || tx.hold(account)?.is_some() {
        return Ok(());
    }
    let is_open = tx.spellings(account)?.is_empty() && tx.can_note_late(account)?;
    if is_open || !is_nobodys(tx, account)? { release(tx, account, tally) } else { Ok(()) }
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

/// What waits under an account is of the `person`, by decision. Where another record has its id here, it goes on waiting: only
/// which of the two is to have the id is left to decide.
pub(super) fn adopt_for(
    tx: &mut Tx<'_>,
    account: &str,
    person: &Document,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    adopt(tx, account, tally)?;
    for key in tx.undecided_by_account()?.remove(&fold_account(account)).unwrap_or_default() {
        if let Some(known) = tx.undecided(&key)? {
            tx.put_undecided(&key, &Undecided { decided_owner: Some(identity_row(person)), ..known })?;
        }
    }
    Ok(())
}

/// What the centre has under accounts and is not here: undecided records of people, and those that were deleted here and whose
/// deletes have not been sent. Read when it is first asked for; for one transaction in which none is added.
#[derive(Default)]
pub(super) struct ThereOnly {
    undecided: Option<BTreeMap<String, Vec<RecordKey>>>,
    deleted: Option<BTreeSet<String>>,
}

impl ThereOnly {
    fn undecided(&mut self, tx: &Tx<'_>, account: &str) -> Result<&[RecordKey], StoreError> {
        let known = match self.undecided.take() {
            Some(known) => known,
            None => tx.undecided_by_account()?,
        };
        let known = self.undecided.insert(known);
        Ok(known.get(&fold_account(account)).map(Vec::as_slice).unwrap_or_default())
    }

    fn has_deleted(&mut self, tx: &Tx<'_>, account: &str) -> Result<bool, StoreError> {
        let known = match self.deleted.take() {
            Some(known) => known,
            None => tx.accounts_of_pending_deletes()?,
        };
        Ok(self.deleted.insert(known).contains(&fold_account(account)))
    }
}

/// Holds a person who is about to be sent if they would get another person's records at the centre, or have the password or the roles
/// of a person who was at the centre before them.
pub(super) fn hold_if_taken(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    there_only: &mut ThereOnly,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    if key.kind != Kind::Person || tx.hold(&key.id)?.is_some() {
        return Ok(());
    }
    if !meets_records_of_another(tx, key, there_only)? && !has_rights_of_another(tx, key)? {
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

/// Whether a person who is new would get records that are another one's: at the centre, also under an id that another record
/// has here, or here and not sent, of one who was deleted there after this person was written over them.
pub(super) fn meets_records_of_another(
    tx: &Tx<'_>,
    key: &RecordKey,
    there_only: &mut ThereOnly,
) -> Result<bool, StoreError> {
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
    let late = tx.late(&key.id)?;
    for of_account in tx.dependents(&key.id)? {
        if is_beside_anothers(tx, &of_account, &key.id, &person)? {
            return Ok(true);
        }
        if is_theirs {
            continue;
        }
        let is_unsent = late.contains(&of_account) && !tx.is_clean(&of_account)?;
        if is_unsent || tx.base(&of_account)?.is_under(&of_account, &key.id) {
            return Ok(true);
        }
    }
    for of_others in there_only.undecided(tx, &key.id)? {
        if is_beside_anothers(tx, of_others, &key.id, &person)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a person who is new was written over one whom the centre had and has not any more, and has the password or the roles of
/// that one, also where no record is left to ask about.
fn has_rights_of_another(tx: &Tx<'_>, key: &RecordKey) -> Result<bool, StoreError> {
    if tx.base(key)?.is_at_centre() || tx.has_landed(key)? {
        return Ok(false);
    }
    let (Some(person), Some(last)) = (tx.document(key)?, tx.departed(&key.id)?) else {
        return Ok(false);
    };
    if same_identity(&last, &person) {
        return Ok(false);
    }
    Ok(Former::unsent(tx, key)?.is_some_and(|former| former.without_rights(&person) != person))
}

/// Whether a person who is new would get records that were another one's and were deleted here, but not yet at the centre.
pub(super) fn meets_deleted_of_another(
    tx: &Tx<'_>,
    key: &RecordKey,
    there_only: &mut ThereOnly,
) -> Result<bool, StoreError> {
    if key.kind != Kind::Person || tx.base(key)?.is_at_centre() || tx.has_landed(key)? {
        return Ok(false);
    }
    let Some(person) = tx.document(key)? else {
        return Ok(false);
    };
    let is_theirs = tx.departed(&key.id)?.is_some_and(|last| same_identity(&last, &person));
    Ok(!is_theirs && there_only.has_deleted(tx, &key.id)?)
}

/// Whether the centre has another record under this id, of the account, which is not known to be this person's.
fn is_beside_anothers(
    tx: &Tx<'_>,
    key: &RecordKey,
    account: &str,
    person: &Document,
) -> Result<bool, StoreError> {
    let Some(known) = tx.undecided(key)?.filter(|known| !known.is_decided_to_be_of(person)) else {
        return Ok(false);
    };
    let owner = known.central.as_ref().and_then(|central| key.kind.schema().owner_of(central));
    Ok(owner == Some(fold_account(account)))
}
