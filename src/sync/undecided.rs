//! Floor 3. Records that must not become one: whose they are is part of what they are.
//!
//! Two versions of a record that belong to different people are never merged field by field. If nobody here has
//! changed the record, the centre's version is taken: somebody moved it. Otherwise the version here stays, unsent, the
//! centre's waits beside it, and a conflict asks which of the two is to have the id:
//!
//! | decision | what it does |
//! |---|---|
//! | `central` | the record here goes to the trash, the centre's is taken |
//! | `local` | the centre's version goes to the trash here, the record here takes its place there |
//! | `new_id` | the record here goes on under an id of its own, the centre's is taken |
//!
//! The same is asked where a record that was made here meets one under its id that was left behind at the centre: under the
//! same account, but without its person. Nobody knows whose that is. So it is where one that waited behind an identity hold
//! is there still when the hold has ended without a decision.
//!
//! A person who was deleted at the centre while records of theirs, made here, have never been sent waits in the same
//! way: `local` puts the person there again, and their records follow; `central` puts all of them into the trash.
//!
//! Nothing is sent before its person stands at the centre: see [`waits`].

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};

use super::conflicts::{Decision, ResolveError};
use super::hold::{hold_departed, keep_forgotten};
use super::identity::{follow_pages, renamed};
use super::round::Tally;
use super::{lease, ownerless};
use crate::domain::access::Actor;
use crate::domain::merge::{merge, same_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::domain::value::same_document;
use crate::flaw::{Flaw, planted};
use crate::store::{Base, Conflict, StoreError, Subject, TrashState, Tx, Undecided, WaitReason, Waiting};

/// Resolution of a conflict whose reason went without a decision.
const ENDED: &str = "ended";

/// Whether what the centre holds under `key` waits instead of being merged with `local`, the record as it is here.
pub(super) fn diverts(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let known = tx.undecided(key)?;
    if let Some(waited) = known.as_ref().and_then(|known| known.central.as_ref()) {
        keep_forgotten(tx, key, waited, remote)?;
    }
    let is_undecided = match key.kind.schema().owner {
        Owner::Nobody => false,
        Owner::Itself => known.is_some() && local.is_some() && remote.is_none(),
        Owner::Field(_) => match (local, remote) {
            (Some(local), Some(remote)) => {
                are_of_two(tx, key, local, remote)? || is_left_behind(tx, key, local, remote, known.as_ref())?
            }
            _ => false,
        },
    };
    match (is_undecided, known) {
        (true, known) => {
            begin(tx, key, local, remote, known, tally)?;
            Ok(true)
        }
        (false, Some(known)) => {
            end(tx, key, &known)?;
            if let (Kind::Person, Some(before), Some(after)) = (key.kind, local, remote)
                && !same_identity(before, after)
            {
                // Somebody made a person there after the delete: who that is has to be looked at.
                hold_departed(tx, key, after, tally)?;
                return Ok(true);
            }
            Ok(false)
        }
        (false, None) => Ok(false),
    }
}

/// Whether a record that was changed here and the centre's under its id belong to different people. One that is given
/// to somebody else here is not, as long as the centre still has what was agreed: nothing there would be mixed into it.
fn are_of_two(tx: &Tx<'_>, key: &RecordKey, local: &Document, remote: &Document) -> Result<bool, StoreError> {
    let schema = key.kind.schema();
    let is_other = schema.owner_of(local) != schema.owner_of(remote) && !planted(Flaw::OwnersMerged);
    if !is_other || tx.is_clean(key)? {
        return Ok(false);
    }
    Ok(!tx.base(key)?.document().is_some_and(|base| same_document(base, remote)))
}

/// Whether a record that was made here meets one at the centre that was left behind there: under the same account, but
/// its person is gone. Others may have had the account since, so nobody knows whose it is. Once that is asked it goes
/// on, whoever gets the account next.
fn is_left_behind(
    tx: &Tx<'_>,
    key: &RecordKey,
    local: &Document,
    remote: &Document,
    known: Option<&Undecided>,
) -> Result<bool, StoreError> {
    let owner = |document: &Document| key.kind.schema().owner_of(document);
    let (Some(account), false) = (owner(local), says_the_same(key, local, remote)) else {
        return Ok(false);
    };
    if owner(remote).as_ref() != Some(&account) {
        return Ok(false);
    }
    // A question between two owners ends when they are one; one about what was left behind does not.
    let asked = known.map(|known| tx.conflict(&known.conflict)).transpose()?.flatten();
    if known.is_some() && asked.is_none() {
        // The row of the question is lost, and is put back.
        return Ok(true);
    }
    let asked_about = |value: Option<&Bson>| value.and_then(Bson::as_document).and_then(owner);
    if let Some(asked) = asked
        && asked_about(asked.local.as_ref()).as_ref() == Some(&account)
        && asked_about(asked.central.as_ref()).as_ref() == Some(&account)
    {
        return Ok(true);
    }
    if tx.is_clean(key)? || tx.has_intent(key)? || tx.base(key)?.is_under(key, &account) {
        return Ok(false);
    }
    let people = tx.spellings(&account)?;
    for id in &people {
        // One who was made here, and is not there yet, is no better known.
        if absence(tx, &RecordKey::new(Kind::Person, id.as_str()))?.is_none() {
            return Ok(false);
        }
    }
    Ok(!people.is_empty() || tx.had_somebody(&account)?)
}

/// Whether two versions that were never agreed on say the same, although they may be stored differently: a merge leaves nothing but
/// the centre's, and no conflict.
pub(super) fn says_the_same(key: &RecordKey, local: &Document, remote: &Document) -> bool {
    if same_document(local, remote) {
        return true;
    }
    let merged = merge(key.kind.schema(), None, Some(local), Some(remote));
    merged.clashes.is_empty() && merged.document.is_some_and(|merged| same_document(&merged, remote))
}

/// Asks which of two records is to have an id: one that was made here, and was never sent, and the centre's `remote`, which
/// waited because it may be another human being's. Returns whether there are two.
pub(super) fn ask_about_waiting(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    remote: &Document,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let is_new = tx.base_if_dirty(key)? == Some(Base::Absent) && !tx.has_intent(key)?;
    let Some(local) = tx.document(key)?.filter(|local| is_new && !same_document(local, remote)) else {
        return Ok(false);
    };
    let known = tx.undecided(key)?;
    begin(tx, key, Some(&local), Some(remote), known, tally)?;
    Ok(true)
}

/// Whether a person who is gone at the centre waits for a decision, because records of theirs were never sent; it
/// waits already then.
pub(super) fn delete_waits(tx: &mut Tx<'_>, key: &RecordKey, tally: &mut Tally) -> Result<bool, StoreError> {
    if key.kind != Kind::Person || tx.own_dependents_of(key)?.is_empty() {
        return Ok(false);
    }
    let local = tx.document(key)?;
    let known = tx.undecided(key)?;
    begin(tx, key, local.as_ref(), None, known, tally)?;
    Ok(true)
}

fn begin(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    known: Option<Undecided>,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let Some(local) = local else {
        return Ok(());
    };
    if known.as_ref().is_some_and(|known| known.central.as_ref() == remote) {
        return Ok(());
    }
    let schema = key.kind.schema();
    let owner = |document: &Document| schema.owner_of(document).unwrap_or_default();
    // Another node may have another record under the id.
    let id = Conflict::named(&doc! {
        "type": Subject::Record.name(),
        "node": lease::node_id_in(tx)?.unwrap_or_default(),
        "collection": schema.collection,
        "id": &key.id,
        "local": owner(local),
        "central": remote.map(owner),
    })?;
    if let Some(known) = known.filter(|known| known.conflict != id) {
        end(tx, key, &known)?;
    }
    let author = tx.author_of(key)?;
    let now_ms = tx.now_ms();
    tx.open_conflict(Conflict::about_record(id.clone(), key, local, remote, author, now_ms))?;
    // Whose another version at the centre is has to be decided anew.
    tx.put_undecided(key, &Undecided { conflict: id, central: remote.cloned(), decided_owner: None })?;
    // Whatever the centre had against the record, it waits for something else now.
    tx.clear_dead(key)?;
    tally.conflicts += 1;
    Ok(())
}

/// Nothing is left to decide: one of the two is gone, or they belong to one person now.
pub(super) fn end(tx: &mut Tx<'_>, key: &RecordKey, known: &Undecided) -> Result<(), StoreError> {
    if let Some(mut conflict) = tx.conflict(&known.conflict)? {
        conflict.resolve(ENDED, None, &Actor::Centre.to_string(), tx.now_ms());
        tx.put_conflict(&conflict)?;
    }
    tx.remove_undecided(key)
}

/// Carries out a decision about a conflict over a record as a whole.
pub(super) fn carry_out(
    tx: &mut Tx<'_>,
    conflict: &Conflict,
    decision: &Decision,
    actor: &Actor,
) -> Result<(), ResolveError> {
    let key = &conflict.key;
    let known = tx.undecided(key)?.filter(|known| known.conflict == conflict.id);
    let (Some(known), Some(local)) = (known, tx.document(key)?) else {
        return Err(ResolveError::Unknown);
    };
    if matches!((decision, &known.central), (Decision::NewId, None) | (Decision::Value(_), _)) {
        let message = "take: local or central, or new_id for a record".to_owned();
        return Err(ResolveError::Invalid { field: "take".to_owned(), message });
    }
    tx.remove_undecided(key)?;
    let is_decided = is_of_holder(tx, key, &known)?;
    let take = |tx: &mut Tx<'_>, central: &Document| match is_decided {
        true => tx.put(key, Some(central), &Base::Document(central.clone()), &Actor::Centre),
        false => take_central(tx, key, central),
    };
    match (decision, known.central) {
        (Decision::TakeCentral, Some(central)) => {
            tx.put_trash(key, &local, actor, TrashState::Done)?;
            take(tx, &central)?;
        }
        (Decision::TakeLocal, Some(central)) => {
            // Nobody would find it otherwise. What was left behind under the account may be anybody's.
            let owner = |document: &Document| key.kind.schema().owner_of(document);
            match owner(&central) == owner(&local) {
                true => tx.discard_held(key, &central)?,
                false => tx.discard(key, &central)?,
            }
            tx.put(key, Some(&local), &Base::Document(central), actor)?;
        }
        (Decision::NewId, Some(central)) => {
            let owner = key.kind.schema().owner_of(&local).unwrap_or_default();
            let to = RecordKey::new(key.kind, tx.free_id(key.kind, &key.id, &owner)?);
            tx.rename(key, &to, &renamed(&local, &key.id, &to.id), actor)?;
            if key.kind == Kind::Page {
                follow_pages(tx, &owner, &BTreeMap::from([(key.id.clone(), to.id)]), actor)?;
            }
            take(tx, &central)?;
        }
        (Decision::TakeLocal, None) => tx.put(key, Some(&local), &Base::Absent, actor)?,
        (Decision::TakeCentral, None) => {
            for own in tx.own_dependents_of(key)? {
                if let Some(document) = tx.document(&own)? {
                    tx.put_trash(&own, &document, actor, TrashState::Done)?;
                    // What the centre has under the id is somebody else's.
                    let central = match tx.undecided(&own)? {
                        Some(known) => {
                            end(tx, &own, &known)?;
                            known.central
                        }
                        None => tx.base(&own)?.document().filter(|central| !central.is_empty()).cloned(),
                    };
                    match central {
                        Some(central) => take_central(tx, &own, &central)?,
                        None => tx.put(&own, None, &Base::Absent, actor)?,
                    }
                }
            }
            tx.put_trash(key, &local, actor, TrashState::Done)?;
            tx.put(key, None, &Base::Absent, actor)?;
        }
        // Refused above.
        (Decision::NewId, None) | (Decision::Value(_), _) => {}
    }
    Ok(())
}

/// Whether somebody has decided that the centre's record belongs to the person here who has its account.
fn is_of_holder(tx: &Tx<'_>, key: &RecordKey, known: &Undecided) -> Result<bool, StoreError> {
    let Some(account) = known.central.as_ref().and_then(|central| key.kind.schema().owner_of(central)) else {
        return Ok(false);
    };
    if known.decided_owner.is_none() || tx.hold(&account)?.is_some() {
        return Ok(false);
    }
    for id in tx.spellings(&account)? {
        let person = tx.document(&RecordKey::new(Kind::Person, id))?;
        if person.is_some_and(|person| known.is_decided_to_be_of(&person)) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn take_central(tx: &mut Tx<'_>, key: &RecordKey, central: &Document) -> Result<(), StoreError> {
    if let Some(owner) = key.kind.schema().owner_of(central)
        && (tx.hold(&owner)?.is_some() || ownerless::is_apart(tx, key, &owner)?)
    {
        // Whose it is has to be decided, or known, first.
        return tx.set_apart(key, &fold_account(&owner), central);
    }
    tx.put(key, Some(central), &Base::Document(central.clone()), &Actor::Centre)
}

/// Why a record is not sent now, if it is not: it waits for a decision, or for its person. A record that the centre
/// has had under the account does not wait for its person unless it is not decided who that is.
///
/// Otherwise another person could get the account there, and the record with it.
pub(super) fn waits(tx: &Tx<'_>, key: &RecordKey) -> Result<Option<Waiting>, StoreError> {
    let because = |why, account: &str| Some(Waiting { key: key.clone(), account: account.to_owned(), why });
    if tx.undecided(key)?.is_some() {
        let why = if key.kind == Kind::Person { WaitReason::Deleted } else { WaitReason::Undecided };
        return Ok(because(why, ""));
    }
    if super::hold::waits(tx, key)? {
        return Ok(because(WaitReason::Held, &tx.owner(key)?.unwrap_or_default()));
    }
    let (Owner::Field(_), Some(account)) = (key.kind.schema().owner, tx.owner(key)?) else {
        return Ok(None);
    };
    if tx.base(key)?.is_under(key, &account) {
        return Ok(None);
    }
    if tx.is_shared(&account)? {
        return Ok(because(WaitReason::Shared, &account));
    }
    match why_nobody_stands(tx, &account)? {
        Some(why) if !planted(Flaw::PersonNotAwaited) => Ok(because(why, &account)),
        _ => Ok(None),
    }
}

/// Notes anew why the records of an account wait, and its people, once something about it was decided: the next round that
/// sends says the same.
pub(super) fn renew_waits(tx: &mut Tx<'_>, account: &str) -> Result<(), StoreError> {
    let people = tx.spellings(account)?.into_iter().map(|id| RecordKey::new(Kind::Person, id));
    for key in people.chain(tx.dependents(account)?) {
        if tx.is_noted_as_waiting(&key)? {
            match waits(tx, &key)? {
                Some(waiting) => tx.put_waiting(&waiting)?,
                None => tx.clear_waiting(&key)?,
            }
        }
    }
    Ok(())
}

/// Why no person of this account stands at the centre as this node knows it, if none does.
pub(super) fn why_nobody_stands(tx: &Tx<'_>, account: &str) -> Result<Option<WaitReason>, StoreError> {
    let mut why = WaitReason::Unknown;
    for id in tx.spellings(account)? {
        match absence(tx, &RecordKey::new(Kind::Person, id))? {
            None => return Ok(None),
            Some(reason) => why = reason,
        }
    }
    Ok(Some(why))
}

/// Why a person does not stand at the centre as this node knows it, if they do not.
pub(super) fn absence(tx: &Tx<'_>, person: &RecordKey) -> Result<Option<WaitReason>, StoreError> {
    if tx.undecided(person)?.is_some() || tx.is_vanished(person)? {
        return Ok(Some(WaitReason::Deleted));
    }
    if tx.to_bring_together(person)?.is_some() {
        // Who stands at a centre that was set back is not known yet.
        return Ok(Some(WaitReason::Unsent));
    }
    Ok(match tx.base_if_dirty(person)? {
        None => None,
        Some(base) if base.is_at_centre() || tx.has_landed(person)? => None,
        Some(_) if tx.is_dead(person)? => Some(WaitReason::Refused),
        // Noted when the person was to be sent; until the person is, nothing else is noted.
        Some(_) if tx.is_noted_as(person, WaitReason::Unread)? => Some(WaitReason::Unread),
        Some(_) if tx.is_noted_as(person, WaitReason::Leaving)? => Some(WaitReason::Leaving),
        Some(_) => Some(WaitReason::Unsent),
    })
}
