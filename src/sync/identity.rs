//! Floor 3. Deciding who somebody is: two people under one account are one, or the one of this node gets an id of
//! their own.
//!
//! "The same" merges the two records as if each side had made its own: fields unite, and where they differ the
//! centre's value stands and the other one becomes a conflict. If they had been agreed on once, what was agreed
//! is the base, so that only fields changed on both sides conflict. If the ids are spelled differently, the
//! centre's spelling stays. The account is open only if both sides say so ([`super::closings`]).
//!
//! "A new id" takes the person of this node and their records out of the account ([`Tx::going_along`] says which): their
//! owner, the roles granted to them, conflicts about them. A record whose id the centre's person uses for another one
//! gets an id of its own too, and documents that name that page follow. All other records that the centre has had under
//! the account stay with it. Of one that was changed there meanwhile, both versions stay, each with its person. If the same
//! was decided on another node before, the person is already here under the new id, and is that record.
//! Both decisions then let in what waited, all in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document};

use super::closings::{self, Meeting};
use super::conflicts::{ResolveError, audit_decision};
use super::doubt::{first_question, unsent_of_former};
use super::forgotten::{counts_as_gone, end_forgotten};
use super::former_person::{Former, end_shared_password};
use super::hold::{open, release, visible};
use super::identity_answers::SAME;
use super::merge_in::{merge_at, merge_in};
use super::ownerless::{adopt, adopt_for};
use super::round::Tally;
use super::undecided;
use crate::domain::access::Actor;
use crate::domain::active::{ActiveFromCentre, is_active};
use crate::domain::merge::{IDENTITY_FIELDS, identity_of, is_unknown};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{DOCUMENT_PAGE_FIELD, Owner};
use crate::domain::value::same_document;
use crate::store::{
    Base, Conflict, ConflictStatus, Granted, Hold, HoldReason, Reread, Snapshot, Store, StoreError,
    TrashState, Tx, unless_damaged,
};

/// What somebody decided about two people under one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// The person of this node gets this id.
    NewId(String),
}

/// The two people of a hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub local: Option<Document>,
    pub central: Option<Document>,
}

impl Pair {
    fn same(&self, other: &Pair) -> bool {
        let same = |a: &Option<Document>, b: &Option<Document>| match (a, b) {
            (Some(a), Some(b)) => same_document(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same(&self.local, &other.local) && same(&self.central, &other.central)
    }
}

/// The hold behind a conflict, and its two people as they are now; `None` once it is over.
pub fn hold_of(snapshot: &Snapshot, conflict: &Conflict) -> Result<Option<(Hold, Pair)>, StoreError> {
    let Some(hold) = snapshot.hold(&conflict.key.id)?.filter(|hold| hold.conflict == conflict.id) else {
        return Ok(None);
    };
    let local = snapshot.document(&hold.local_key())?;
    let central = snapshot.other_person(&hold)?;
    Ok(Some((hold, Pair { local, central })))
}

/// Carries out a verdict, if the two people are still as they were `seen`. If another question comes first by now, that is asked,
/// and the conflict counts as resolved.
pub async fn decide(
    store: &Store,
    conflict: &str,
    verdict: Verdict,
    seen: Pair,
    actor: Actor,
) -> Result<Conflict, ResolveError> {
    let id = conflict.to_owned();
    store
        .transact(move |tx: &mut Tx<'_>| -> Result<_, ResolveError> {
            let conflict = tx.conflict(&id)?.ok_or(ResolveError::Unknown)?;
            if conflict.status == ConflictStatus::Resolved {
                return Err(ResolveError::Resolved(Box::new(conflict)));
            }
            let hold = tx.hold(&conflict.key.id)?.filter(|hold| hold.conflict == id);
            let hold = first_question(tx, hold.ok_or(ResolveError::Unknown)?, &mut Tally::default())?;
            if hold.conflict != id {
                // No error of this transaction: the other question stays.
                let ended = tx.conflict(&id)?.ok_or(ResolveError::Unknown)?;
                return Ok(Err(ResolveError::Resolved(Box::new(ended))));
            }
            carry_out(tx, conflict, &hold, &verdict, &seen, &actor).map(Ok)
        })
        .await?
}

fn carry_out(
    tx: &mut Tx<'_>,
    mut conflict: Conflict,
    hold: &Hold,
    verdict: &Verdict,
    seen: &Pair,
    actor: &Actor,
) -> Result<Conflict, ResolveError> {
    let local = tx.document(&hold.local_key())?;
    let central = tx.other_person(hold)?;
    let pair = Pair { local, central };
    let (true, Some(local), Some(central)) = (pair.same(seen), &pair.local, &pair.central) else {
        let current = pair.local.as_ref().map(visible);
        return Err(ResolveError::Moved { conflict: Box::new(conflict), current });
    };
    (conflict.local, conflict.central) = (Some(visible(local)), Some(visible(central)));
    match verdict {
        Verdict::Same => {
            settle_same(tx, &mut conflict, hold, local, central, actor, &actor.to_string())?;
            audit_decision(tx, &conflict, Some(local), actor)?;
            undecided::renew_waits(tx, &hold.account)?;
        }
        Verdict::NewId(new) => {
            let new = account_for(tx, new, hold, local)?;
            let value = Some(Bson::from(new.as_str()));
            conflict.resolve("new_id", value, &actor.to_string(), tx.now_ms());
            tx.put_conflict(&conflict)?;
            tx.remove_hold(hold)?;
            let (agreed, taken) = (tx.base(&hold.local_key())?.document().cloned(), tx.taken_by(hold)?);
            let former = match (hold.why, &agreed) {
                (HoldReason::Rewritten, Some(agreed)) if tx.held(&hold.remote_key())?.is_some() => {
                    Some(Former::of(tx, &hold.local_key(), agreed)?)
                }
                _ => None,
            };
            part(tx, hold, local, &new, actor)?;
            if let Some(former) = former {
                // They are the person of this node again; it is asked whether one who has the account at the centre is another.
                former.put_back(tx, hold, taken.as_ref(), actor)?;
                // Whose closing that was nobody knows.
                tx.keep_closed_here(&hold.local, &new)?;
            }
            audit_decision(tx, &conflict, Some(local), actor)?;
            // Whom the centre has lost is here again.
            let is_here = hold.why == HoldReason::Taken || end_forgotten(tx, hold)?;
            let gone = hold.gone.as_ref().filter(|_| !is_here);
            if let Some(gone) = gone {
                tx.remember_departed(&hold.remote, gone)?;
            }
            if gone.is_some() && tx.held(&hold.remote_key())?.is_none() {
                // What waits came while they were there.
                adopt(tx, &hold.account, &mut Tally::default())?;
            } else {
                release(tx, &hold.account, &mut Tally::default())?;
            }
            if let (HoldReason::Reused, Some(agreed)) = (hold.why, &agreed) {
                end_shared_password(tx, &hold.remote_key(), agreed, actor)?;
            }
            undecided::renew_waits(tx, &hold.account)?;
            undecided::renew_waits(tx, &new)?;
        }
    }
    Ok(conflict)
}

/// Closes the conflict of a hold whose two people are one, as `by` decided, and unites their records.
pub(super) fn settle_same(
    tx: &mut Tx<'_>,
    conflict: &mut Conflict,
    hold: &Hold,
    local: &Document,
    central: &Document,
    actor: &Actor,
    by: &str,
) -> Result<(), StoreError> {
    (conflict.local, conflict.central) = (Some(visible(local)), Some(visible(central)));
    conflict.resolve(SAME, None, by, tx.now_ms());
    tx.put_conflict(conflict)?;
    let taken = tx.taken_by(hold)?;
    if let Some(taken) = taken.as_ref().filter(|_| hold.local != hold.remote) {
        return correct_departed(tx, hold, (local, central), taken);
    }
    if unite(tx, hold, local, central, actor)? {
        if let Some(taken) = taken {
            // One person, whose account somebody else may have at the centre by now.
            tx.ask_again(&hold.remote_key(), Reread::default())?;
            merge_in(tx, &hold.remote_key(), Some(&taken))?;
        }
        release(tx, &hold.account, &mut Tally::default())
    } else {
        // Nobody is at the centre: the records there are those of the person here.
        adopt_for(tx, &hold.account, local, &mut Tally::default())
    }
}

/// The person here is the `former` one, who is gone at the centre, corrected; whether they are the one who came there, in another
/// spelling, is the next question.
fn correct_departed(
    tx: &mut Tx<'_>,
    hold: &Hold,
    (local, former): (&Document, &Document),
    taken: &Document,
) -> Result<(), StoreError> {
    let key = hold.local_key();
    tx.confirm_holder(&key.id)?;
    tx.put(&key, Some(local), &Base::Document(local.clone()), &Actor::Centre)?;
    tx.note_same(&hold.account, former, local)?;
    open(tx, &hold.remote_key(), &key, taken, HoldReason::Departed, &mut Tally::default()).map(drop)
}

/// Whether the account is closed on this node. One who was gone when the other person came was made inactive for the hold
/// (`hold::begin`): of them only a closing by somebody counts.
fn is_closed(hold: &Hold, local: &Document, is_clean: bool, is_closed_here: bool) -> bool {
    match hold.why == HoldReason::Departed && is_clean {
        true => is_closed_here,
        false => !is_active(local),
    }
}

/// What becomes of this node's account if the two people of a hold are decided to be one, as sentences; see
/// [`closings::told_of_same`].
pub fn told_of_same(
    snapshot: &Snapshot,
    hold: &Hold,
    pair: &Pair,
    counts: ActiveFromCentre,
) -> Result<Vec<String>, StoreError> {
    let (Some(local), Some(central)) = (&pair.local, &pair.central) else {
        return Ok(Vec::new());
    };
    if counts_as_gone(hold) || unless_damaged(snapshot.held(&hold.remote_key()))?.flatten().is_none() {
        // Nobody is at the centre.
        return Ok(Vec::new());
    }
    // Where the row is damaged nothing can be decided either.
    let Some(base) = unless_damaged(snapshot.base(&hold.local_key()))? else {
        return Ok(Vec::new());
    };
    let is_closed = is_closed(hold, local, base.is_none(), snapshot.is_closed_here(&hold.local)?);
    let base = match &base {
        // A record that comes under another id was never agreed on under that.
        _ if hold.local != hold.remote => None,
        None => Some(local),
        Some(base) => base.document(),
    };
    Ok(closings::told_of_same(base, local, is_closed, central, counts))
}

/// The two are one person. Returns whether they stand at the centre.
fn unite(
    tx: &mut Tx<'_>,
    hold: &Hold,
    local: &Document,
    central: &Document,
    actor: &Actor,
) -> Result<bool, StoreError> {
    let key = hold.remote_key();
    let before = tx.meant(&hold.account)?.unwrap_or_else(|| local.clone());
    let is_closed_here = tx.is_closed_here(&hold.local)?;
    let is_closed = is_closed(hold, local, tx.is_clean(&hold.local_key())?, is_closed_here);
    tx.forget_meant(&hold.account)?;
    tx.set_late_apart(&hold.account, BTreeSet::new())?;
    tx.remove_hold(hold)?;
    if end_forgotten(tx, hold)? || tx.take_held(&key)?.is_none() {
        tx.ask_again(&hold.local_key(), Reread::default())?;
        tx.confirm_holder(&hold.local)?;
        // Before they are remembered: what was the former one's until then is theirs by this.
        for former in [&before, central] {
            tx.note_same(&hold.account, former, local)?;
        }
        tx.remember_departed(&hold.local, local)?;
        return Ok(false);
    }
    if hold.local != hold.remote {
        tx.rename(&hold.local_key(), &key, &renamed(local, &hold.local, &hold.remote), actor)?;
    }
    let known = tx.document(&key)?;
    let meeting = Meeting::Same { is_closed };
    tx.keeping_holder(&key.id, |tx| merge_at(tx, &key, known, Some(central), meeting))?;
    let now = tx.document(&key)?.unwrap_or_default();
    // Whichever of the two they are called by from now on, what was kept of the other one is theirs.
    for former in [&before, central] {
        tx.note_same(&hold.account, former, &now)?;
    }
    Ok(true)
}

/// The canonical spelling of an account that nobody has here, in any spelling, or that this very `person` has by what was decided
/// on another node.
fn account_for(tx: &Tx<'_>, new: &str, hold: &Hold, person: &Document) -> Result<String, ResolveError> {
    let invalid = |message: String| ResolveError::Invalid { field: "id".to_owned(), message };
    let schema = Kind::Person.schema();
    let new = schema.canonical_id(new);
    schema.check_new_id(&new).map_err(|message| invalid(format!("id: {message}")))?;
    let them = tx.document(&RecordKey::new(Kind::Person, new.as_str()))?;
    if them.is_some_and(|them| is_moved_already(&them, person))
        && fold_account(&new) != hold.account
        && tx.spellings(&new)?.len() == 1
        && tx.hold(&new)?.is_none()
    {
        return Ok(new);
    }
    if !tx.spellings(&new)?.is_empty() || tx.hold(&new)?.is_some() {
        return Err(invalid("id: this account exists already".to_owned()));
    }
    if tx.has_dependents(&new)? || !tx.held_of(&new)?.is_empty() {
        return Err(invalid("id: there are records of this account already".to_owned()));
    }
    Ok(new)
}

/// Whether somebody under another account is the person of a hold, without a doubt: all by which people are told apart is known of
/// both, and alike.
fn is_moved_already(them: &Document, person: &Document) -> bool {
    let (them, known) = (identity_of(them), identity_of(person));
    !is_unknown(person) && them == known && IDENTITY_FIELDS.into_iter().all(|field| them.contains_key(field))
}

/// The person of this node leaves the account, with the records made here for them.
fn part(tx: &mut Tx<'_>, hold: &Hold, local: &Document, new: &str, actor: &Actor) -> Result<(), StoreError> {
    let going = tx.going_along(hold)?;
    let late = tx.late(&hold.account)?;
    let mut all = Vec::new();
    for key in tx.dependents(&hold.account)? {
        let stays = match hold.why {
            // What the centre has is of the one who is gone, if that is another one. What was written into it here is this
            // person's.
            HoldReason::Taken => tx.is_clean(&key)?,
            // Nobody has written into it for the one who leaves.
            HoldReason::Rewritten => tx.is_clean(&key)? || tx.is_older_than_holder(&hold.local, &key)?,
            HoldReason::Created | HoldReason::Reused | HoldReason::Spelling | HoldReason::Departed => false,
        };
        // What came late may be the other one's, with what was written into it here.
        if going.contains(&key) || !(stays || late.contains(&key)) {
            all.push(key);
        }
    }
    let undeleted = undeleted(tx, hold)?;
    let is_taken = tx.taken_by(hold)?.is_some();
    let of_former = match hold.why {
        HoldReason::Taken => unsent_of_former(tx, &hold.local_key())?,
        _ => Vec::new(),
    };
    if let Some(other) = tx.other_person(hold)? {
        // What is in the trash of them is the other one's, and does not go along.
        undeleted.iter().try_for_each(|key| tx.void_trash_of(key, &other))?;
    }
    tx.forget_meant(&hold.account)?;
    let to = RecordKey::new(Kind::Person, new);
    match hold.why {
        HoldReason::Rewritten => {
            // Roles may have been granted to either, and nobody knows to whom.
            tx.replace_grants(&hold.local, &Granted::default(), actor)?;
            let agreed = tx.base(&hold.local_key())?.document().cloned().unwrap_or_default();
            let former = Former::of(tx, &hold.local_key(), &agreed)?;
            leave(tx, &hold.local_key(), &to, &former.without_rights(local), actor)?;
            tx.keep_closed_here(&hold.local, new)?;
        }
        why => {
            let former = Former::unsent(tx, &hold.local_key())?;
            let person = former.as_ref().map_or_else(|| local.clone(), |former| former.without_rights(local));
            if former.is_some() {
                tx.replace_grants(&hold.local, &Granted::default(), actor)?;
            }
            leave(tx, &hold.local_key(), &to, &person, actor)?;
            if why == HoldReason::Taken {
                // The one who is gone may have been written over, and closed before.
                tx.keep_closed_here(&hold.local, new)?;
            }
        }
    }
    tx.give_trash(&hold.account, local, new)?;
    let mut pages = BTreeMap::new();
    for key in all {
        let (Some(mut document), Owner::Field(field)) = (tx.document(&key)?, key.kind.schema().owner) else {
            continue;
        };
        let agreed = tx.base_if_dirty(&key)?.and_then(|base| base.document().cloned());
        let is_waiting = tx.held(&key)?.is_some();
        document.insert(field, new);
        // What came while nobody had the account waits apart, and is not among these.
        let is_theirs = going.contains(&key);
        if is_theirs && !is_waiting {
            tx.edit(&key, Some(&document), actor)?;
            tx.give_conflicts(&key)?;
            let there = tx.undecided(&key)?.filter(|known| {
                let central = known.central.as_ref();
                central.and_then(|central| key.kind.schema().owner_of(central)) == Some(fold_account(new))
            });
            if let Some(known) = there {
                // Another node decided the same before: both are one person's again.
                undecided::end(tx, &key, &known)?;
                tx.ask_again(&key, Reread::default())?;
            }
            continue;
        }
        if !is_theirs && !is_waiting && agreed.is_none() {
            // The same on both sides: it stays with the account.
            continue;
        }
        let mut stays = agreed.filter(|_| !is_theirs);
        if let Some(known) = tx.undecided(&key)? {
            undecided::end(tx, &key, &known)?;
            stays = known.central;
        }
        let to = RecordKey::new(key.kind, tx.free_id(key.kind, &key.id, new)?);
        tx.rename(&key, &to, &renamed(&document, &key.id, &to.id), actor)?;
        match stays {
            Some(central) if !is_waiting => undecided::take_central(tx, &key, &central)?,
            // What waits is of the one who took the account; this is of the one who was written over.
            Some(agreed) if is_taken => {
                tx.put(&key, Some(&agreed), &Base::Document(agreed.clone()), &Actor::Centre)?;
            }
            _ => {}
        }
        if key.kind == Kind::Page {
            pages.insert(key.id, to.id);
        }
    }
    for key in undeleted {
        if let Some(agreed) = tx.base(&key)?.document().cloned() {
            tx.put(&key, Some(&agreed), &Base::Document(agreed.clone()), &Actor::Centre)?;
            tx.settle_trash(&key, TrashState::Done)?;
        }
    }
    if !pages.is_empty() {
        follow_pages(tx, new, &pages, actor)?;
    }
    // Of the two it could have been it is the one who is gone.
    tx.forget_late(&hold.account, &of_former)?;
    // What the account has is the departed one's, and so are the conflicts over it.
    if hold.why == HoldReason::Taken { Ok(()) } else { tx.part_conflicts(&hold.account, local, new) }
}

/// The records that were deleted here for the one who leaves, although they are the other one's: the delete is not sent. To be asked
/// before anybody leaves.
fn undeleted(tx: &Tx<'_>, hold: &Hold) -> Result<Vec<RecordKey>, StoreError> {
    let mut found = Vec::new();
    for key in tx.deleted_dependents(&hold.account)? {
        let is_of_another = match hold.why {
            HoldReason::Created | HoldReason::Spelling => true,
            HoldReason::Rewritten => !tx.is_older_than_holder(&hold.local, &key)?,
            // It was the record of the one who leaves, unless it has changed at the centre.
            HoldReason::Reused => tx.held(&key)?.is_some(),
            HoldReason::Departed | HoldReason::Taken => false,
        };
        found.extend(is_of_another.then_some(key));
    }
    Ok(found)
}

/// The person gets another id; if somebody decided so on another node before and they stand under it already, they are that record.
fn leave(
    tx: &mut Tx<'_>,
    from: &RecordKey,
    to: &RecordKey,
    person: &Document,
    actor: &Actor,
) -> Result<(), StoreError> {
    if tx.document(to)?.is_none() {
        return tx.rename(from, to, &renamed(person, &from.id, &to.id), actor);
    }
    for mut conflict in tx.open_conflicts_of(from)? {
        conflict.resolve("new_id", Some(Bson::from(to.id.as_str())), &actor.to_string(), tx.now_ms());
        tx.put_conflict(&conflict)?;
    }
    tx.unite_with(from, to, person)
}

/// Documents that name a page of life by its old id name it by its new one.
pub(super) fn follow_pages(
    tx: &mut Tx<'_>,
    account: &str,
    pages: &BTreeMap<String, String>,
    actor: &Actor,
) -> Result<(), StoreError> {
    for id in tx.owned(Kind::PersonalDocument, account)? {
        let key = RecordKey::new(Kind::PersonalDocument, id);
        let Some(mut document) = tx.document(&key)? else {
            continue;
        };
        let page = document.get_str(DOCUMENT_PAGE_FIELD).ok().and_then(|page| pages.get(page));
        if let Some(page) = page {
            document.insert(DOCUMENT_PAGE_FIELD, page);
            tx.edit(&key, Some(&document), actor)?;
        }
    }
    Ok(())
}

/// The record under another id. An `id` field that says the old one goes with it.
pub(super) fn renamed(document: &Document, old: &str, new: &str) -> Document {
    let mut document = document.clone();
    document.insert("_id", new);
    if document.get_str("id").is_ok_and(|id| fold_account(id) == fold_account(old)) {
        document.insert("id", new);
    }
    document
}
