//! Floor 3. Identity holds: two people under one account wait until somebody has decided whether they are one.
//!
//! Everything that is taken from the centre passes [`diverts`]. Nobody is held almost always, and then it costs
//! one look at an empty table, and for people a comparison of four fields.
//!
//! A person is held when the centre's record under their account may be about another human being: made on
//! both sides and not alike; agreed once, and since then changed in two or more of name, lastname, day of birth
//! and gender; rewritten here into somebody else ([`super::doubt`]); or new on both sides under ids that differ in spelling only. So is one whose account was somebody
//! else's while records of that one are here or at the centre. From then on:
//!
//! | what | while the hold lasts |
//! |---|---|
//! | the person of this node | stays, can be edited, is not pushed and not deleted |
//! | their records made here (base ABSENT) | stay, can be edited and deleted, are not pushed |
//! | their records that the centre had before (agreed) | stay as they are; edits of them are not pushed, changes at the centre wait, deletes are followed |
//! | the centre's person | waits; a newer version takes the place of the older |
//! | a record of theirs that is not agreed here | waits; updates and deletes of it are followed there |
//! | one with the id of a record made here | waits, and that record is not pushed, whoever owns it |
//! | an agreed record that the centre moves into the account | leaves and waits, unless it has unsent edits; a delete is none |
//! | a waiting record that the centre moves to somebody else | is taken like any other |
//! | a third spelling of the account | waits too, if it is new here |
//!
//! A hold ends by decision ([`super::identity`]), or by itself: when the centre's person is deleted with all
//! their records or corrected, when the person here is corrected or gone, or when the account arrives in the
//! spelling of this node. A person who was made here under an account that has records at the centre, but nobody,
//! is held as well: these records wait, and the other person is whoever is remembered. So is one who was deleted here,
//! which is not sent, while the account went to somebody else at the centre. What waited is then taken as if it had been
//! read now: it is what was read last, and whatever happened since is read again anyway. Whose a record is that came
//! while nobody had the account is written down in [`super::ownerless`].

use bson::{Bson, Document, doc};

use super::doubt::{
    first_question, has_records_in_between, is_in_doubt, suspicion, takes_what_waits_for_another,
};
use super::forgotten::{end_forgotten, is_forgotten, is_there_again};
use super::former_person::{former_is_gone, former_of};
use super::merge_in::{merge_in, merge_known};
use super::round::{Round, RoundError, Tally};
use super::{lease, ownerless, undecided};
use crate::domain::access::Actor;
use crate::domain::merge::{IDENTITY_FIELDS, is_other_person, is_unknown, same_identity, unknown_identity};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::domain::value::same_document;
use crate::store::{
    Base, Conflict, Held, Hold, HoldReason, Reread, StoreError, Subject, TrashState, Tx, Undecided,
    identity_row, unless_damaged,
};

/// For so many rounds after somebody has come to have an account in another spelling, the one who had it before may go
/// because of that.
const NEW_ROUNDS: i64 = 1;
/// Resolution of a hold that ended without a decision.
const ENDED: &str = "ended";

/// Whether what the centre holds under `key` has to wait instead of being merged; it waits already then.
/// `local` is the record as it is here.
pub(crate) fn diverts(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let is_held = match key.kind.schema().owner {
        Owner::Nobody => return Ok(false),
        // A person who was deleted at the centre may be there again as somebody else.
        Owner::Itself => {
            return Ok(undecided::diverts(tx, key, local, remote, tally)?
                || diverts_person(tx, key, local, remote, tally)?);
        }
        Owner::Field(_) if ownerless::diverts(tx, key, local, remote, tally)? => return Ok(true),
        Owner::Field(_) if tx.has_holds()? || tx.held(key)?.is_some() => {
            diverts_dependent(tx, key, local, remote, tally)?
        }
        Owner::Field(_) => false,
    };
    Ok(is_held || undecided::diverts(tx, key, local, remote, tally)?)
}

fn diverts_person(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let hold = if tx.has_holds()? { tx.hold(&key.id)? } else { None };
    let hold = hold.map(|hold| first_question(tx, hold, tally)).transpose()?;
    // That of the account may be about a person in another spelling.
    let own = hold.as_ref().filter(|hold| hold.local == key.id);
    if let (Some(hold), None) = (own, remote)
        && is_forgotten(tx, hold)?
    {
        // As is known.
        return Ok(true);
    }
    if let (Some(local), None) = (local, remote)
        && let Some(former) = former_of(tx, key, local, own)?
    {
        former_is_gone(tx, key, (local, &former), own, tally)?;
        return Ok(true);
    }
    match (hold, remote) {
        (None, None) => Ok(false),
        (None, Some(remote)) => match suspicion(tx, key, local, remote)? {
            Some((local, why)) => begin(tx, key, &local, remote, why, tally).map(|()| true),
            None => {
                match local {
                    Some(local) => note_meant(tx, key, local, remote)?,
                    None if tx.spellings(&key.id)?.is_empty() => {}
                    None => tx.note_newcomer(key, lease::rounds_in(tx)?)?,
                }
                Ok(false)
            }
        },
        // Who took the account and is gone again is read once more when it is asked about them.
        (Some(hold), None) if tx.taken_by(&hold)?.is_some() => Ok(true),
        (Some(hold), None) => {
            let gone = tx.take_held(key)?;
            if let Some(gone) = &gone {
                tx.discard_held(key, gone)?;
            }
            // The row of whoever waited may be lost; records of theirs are another one's all the same.
            let is_lost = gone.is_none() && hold.is_other_missing();
            let unknown =
                || [("_id".to_owned(), key.id.clone().into())].into_iter().chain(unknown_identity());
            let other = gone.as_ref().map(identity_row).or_else(|| is_lost.then(|| unknown().collect()));
            // They are gone there, as is known.
            let is_departed = hold.why == HoldReason::Departed && hold.local != hold.remote;
            if is_departed && key.id == hold.local {
                return Ok(true);
            }
            if key.id != hold.remote {
                return Ok(false);
            }
            if let Some(other) = other
                && (has_held_dependents(tx, &hold.account)? || has_records_in_between(tx, &hold)?)
            {
                // Their records are still there, and must not become those of the person here; or there are some of one in
                // between, and the centre's delete waits until it is said whose they are.
                tx.put_hold(&Hold { gone: Some(other), ..hold })?;
                return Ok(true);
            }
            if gone.is_none() && is_in_doubt(tx, &hold)? {
                return Ok(true);
            }
            end_alone(tx, &hold, gone.as_ref(), tally)
        }
        (Some(hold), Some(remote)) if key.id == hold.remote => {
            let hold = is_there_again(tx, hold, remote)?;
            wait(tx, key, &hold.account, remote, tally)?;
            if !is_in_doubt(tx, &hold)? {
                // Ended once all news of this round is taken: that of the records that wait may come behind the person's.
            } else if hold.gone.as_ref().is_some_and(is_unknown) {
                // Now it is known who that is.
                open(tx, key, &hold.local_key(), remote, hold.why, tally)?;
            } else if hold.gone.is_some() && hold.why != HoldReason::Taken {
                tx.put_hold(&Hold { gone: None, ..hold })?;
            }
            Ok(true)
        }
        (Some(hold), Some(remote)) if key.id == hold.local => {
            take_own_spelling(tx, hold, key, local, remote, tally).map(|()| true)
        }
        (Some(hold), Some(remote)) => {
            let is_new = local.is_none() && tx.is_clean(key)?;
            if is_new {
                wait(tx, key, &hold.account, remote, tally)?;
            }
            Ok(is_new)
        }
    }
}

/// Others have changed a person who is taken for the same one.
fn note_meant(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: &Document,
    remote: &Document,
) -> Result<(), StoreError> {
    let before = match tx.base_if_dirty(key)? {
        None => local.clone(),
        Some(base) if base.is_at_centre() => base.document().cloned().unwrap_or_default(),
        Some(_) => return Ok(()),
    };
    if same_identity(local, remote) {
        return Ok(());
    }
    tx.note_meant(key, &before, remote)
}

fn begin(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local_id: &str,
    remote: &Document,
    why: HoldReason,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let local_key = RecordKey::new(Kind::Person, local_id);
    if let Some(known) = tx.undecided(&local_key)?.filter(|_| why == HoldReason::Departed) {
        undecided::end(tx, &local_key, &known)?;
    }
    let is_deleted_here = tx.document(&local_key)?.is_none();
    let late = tx.late(local_id)?;
    if why == HoldReason::Departed && (is_deleted_here || tx.is_clean(&local_key)?) {
        tx.clear_vanished(&local_key)?;
        // Whose records are here has to be seen, and may get an id of their own.
        // Nobody logs in as them meanwhile.
        let body =
            tx.document(&local_key)?.map_or_else(|| tx.departed_body(&local_key), |body| Ok(Some(body)))?;
        let departed = body.map(|body| {
            let mut body = Kind::Person.schema().without_secrets(&body);
            body.remove("roles");
            body.insert("active", false);
            body
        });
        // Nothing of the body is an edit: it was deleted.
        tx.put(&local_key, departed.as_ref(), &Base::from(departed.clone()), &Actor::Centre)?;
        if is_deleted_here {
            // A delete that was not sent waits for the answer, and is not sent: it would be another one's.
            tx.settle_trash(&local_key, TrashState::Void)?;
        }
    }
    let former = if why == HoldReason::Rewritten { tx.base(&local_key)? } else { Base::Absent };
    // Somebody else by now: first it is asked about the one who had the account when the person here was rewritten.
    let other = former.document().filter(|former| is_other_person(Some(former), former, remote));
    let hold = open(tx, key, &local_key, other.unwrap_or(remote), why, tally)?;
    tx.put_held(key, &hold.account, remote)?;
    if late.is_empty() { Ok(()) } else { tx.set_late_apart(&hold.account, late) }
}

/// Holds a person who is gone at the centre and still here, because somebody else has the account there.
pub(super) fn hold_departed(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    remote: &Document,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let hold = open(tx, key, key, remote, HoldReason::Departed, tally)?;
    tx.put_held(key, &hold.account, remote)?;
    Ok(())
}

/// Holds a person who came to have the account of another one who goes now, in another spelling, if the two cannot be one
/// and records of the one who goes are here. Two who have shared an account for longer are listed; deleting one of them at
/// the centre decides.
pub(super) fn hold_successor(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    if key.kind != Kind::Person
        || !tx.is_shared(&key.id)?
        || tx.hold(&key.id)?.is_some()
        || !tx.has_dependents(&key.id)?
    {
        return Ok(false);
    }
    let Some(person) = tx.document(key)? else {
        return Ok(false);
    };
    let round = lease::rounds_in(tx)?;
    for id in tx.spellings(&key.id)? {
        let other = RecordKey::new(Kind::Person, id);
        let Some(document) = tx.document(&other)?.filter(|other| !same_identity(&person, other)) else {
            continue;
        };
        let is_new = tx.newcomer_since(&other)?.is_some_and(|since| since + NEW_ROUNDS >= round);
        if tx.is_clean(&other)? && is_new {
            tx.put(&other, None, &Base::Absent, &Actor::Centre)?;
            begin(tx, &other, &key.id, &document, HoldReason::Departed, tally)?;
            set_apart_what_came_with(tx, &other)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records that came in the round in which their person came, and name them in their very spelling, wait with them.
fn set_apart_what_came_with(tx: &mut Tx<'_>, person: &RecordKey) -> Result<(), StoreError> {
    for key in tx.dependents(&person.id)? {
        let (Some(document), Owner::Field(field)) = (tx.document(&key)?, key.kind.schema().owner) else {
            continue;
        };
        let is_theirs = document.get_str(field).is_ok_and(|owner| owner == person.id);
        if is_theirs && tx.is_clean(&key)? && tx.is_taken(&key)? {
            tx.set_apart(&key, &fold_account(&person.id), &document)?;
        }
    }
    Ok(())
}

/// Asks whether the person here and the `other` one, who has the account `key`, are one.
pub(super) fn open(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local_key: &RecordKey,
    other: &Document,
    why: HoldReason,
    tally: &mut Tally,
) -> Result<Hold, StoreError> {
    let account = fold_account(&key.id);
    let local = tx.document(local_key)?.unwrap_or_default();
    let hold = Hold {
        conflict: conflict_id(tx, &account, &local, other)?,
        account,
        local: local_key.id.clone(),
        remote: key.id.clone(),
        why,
        since_ms: tx.now_ms(),
        gone: (why == HoldReason::Taken).then(|| identity_row(other)),
    };
    // The row of a former question may have been lost, or whose question it is.
    for mut former in tx.open_conflicts_of(local_key)? {
        if former.is_identity() && former.id != hold.conflict {
            former.resolve(ENDED, None, &Actor::Centre.to_string(), tx.now_ms());
            tx.put_conflict(&former)?;
        }
    }
    let author = tx.author_of(local_key)?;
    tx.open_conflict(Conflict::about_identity(&hold, &local, other, author))?;
    tx.put_hold(&hold)?;
    // Whatever the centre had against the record, it waits for something else now.
    tx.clear_dead(local_key)?;
    tally.conflicts += 1;
    Ok(hold)
}

/// Whether records of the centre's person wait here.
pub(super) fn has_held_dependents(tx: &Tx<'_>, account: &str) -> Result<bool, StoreError> {
    Ok(tx.held_of(account)?.iter().any(|key| key.kind != Kind::Person))
}

/// A hold is this node's own affair: another node may have somebody else under the account.
pub(super) fn conflict_id(
    tx: &Tx<'_>,
    account: &str,
    local: &Document,
    remote: &Document,
) -> Result<String, StoreError> {
    let identity = |person: &Document| -> Document {
        let fields = ["_id"].into_iter().chain(IDENTITY_FIELDS);
        fields.filter_map(|field| person.get(field).map(|value| (field.to_owned(), value.clone()))).collect()
    };
    Conflict::named(&doc! {
        "type": Subject::Identity.name(),
        "node": lease::node_id_in(tx)?.unwrap_or_default(),
        "account": account,
        "local": identity(local),
        "central": identity(remote),
    })
}

/// A person as conflicts show them.
pub(super) fn visible(person: &Document) -> Bson {
    Bson::Document(Kind::Person.schema().without_secrets(person))
}

/// The hold has no reason any more; `remote` is what the centre's person was last.
pub(super) fn end(
    tx: &mut Tx<'_>,
    hold: &Hold,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let local = tx.document(&hold.local_key())?;
    if let Some(mut conflict) = tx.conflict(&hold.conflict)? {
        (conflict.local, conflict.central) = (local.as_ref().map(visible), remote.map(visible));
        conflict.resolve(ENDED, None, &Actor::Centre.to_string(), tx.now_ms());
        tx.put_conflict(&conflict)?;
    }
    if tx.taken_by(hold)?.is_some() {
        // Who took the account may be gone again.
        tx.ask_again(&hold.remote_key(), Reread::default())?;
    }
    end_forgotten(tx, hold)?;
    tx.remove_hold(hold)?;
    if tx.is_clean(&hold.local_key())? {
        tx.forget_written_over(&hold.local)?;
    }
    // Nobody has said that the two are one: what waited under the id of a record made here may be another one's.
    for key in tx.held_of(&hold.account)? {
        tx.sparing(&key, |tx| {
            if let (Owner::Field(_), Some(held)) = (key.kind.schema().owner, tx.held(&key)?)
                && undecided::ask_about_waiting(tx, &key, &held.document, tally)?
            {
                tx.take_held(&key)?;
            }
            Ok(())
        })?;
    }
    let key = hold.local_key();
    if let (Some(local), Some(remote), HoldReason::Reused) = (&local, remote, hold.why)
        && hold.remote == key.id
        && same_identity(local, remote)
        && !takes_what_waits_for_another(tx, &key, local)?
    {
        // Somebody has made the two agree, on either side, and knew of both: that is an answer.
        tx.take_held(&key)?;
        *tally += merge_known(tx, &key, Some(local.clone()), Some(remote))?;
        tx.note_taken(&key)?;
    }
    release(tx, &hold.account, tally)
}

/// The hold is over because the centre has nobody else any more; `gone` is who that was. Returns whether nothing is left of the
/// person here to take, or to ask about.
fn end_alone(
    tx: &mut Tx<'_>,
    hold: &Hold,
    gone: Option<&Document>,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let is_departed = hold.why == HoldReason::Departed;
    let is_going = is_departed && tx.own_dependents(&hold.account)?.is_empty();
    if let (true, Some(local)) = (is_going, tx.document(&hold.local_key())?) {
        // As it was before the other person came.
        tx.discard(&hold.local_key(), &local)?;
        tx.put(&hold.local_key(), None, &Base::Absent, &Actor::Centre)?;
    }
    end(tx, hold, gone, tally)?;
    // Records of theirs that were never sent are a question of their own.
    Ok(is_going || (is_departed && undecided::delete_waits(tx, &hold.local_key(), tally)?))
}

/// Takes what waited behind a hold that is over.
pub(super) fn release(tx: &mut Tx<'_>, account: &str, tally: &mut Tally) -> Result<(), StoreError> {
    for key in tx.held_of(account)? {
        // One that is damaged comes again once the row is set aside.
        let Some(held) = unless_damaged(tx.held(&key))?.flatten() else {
            continue;
        };
        if key.kind == Kind::Person {
            *tally += release_one(tx, account, &key, held)?;
        } else {
            // One in whose way a row is goes on waiting, and is tried again in each round.
            let taken = tx.sparing(&key, |tx| release_one(tx, account, &key, held))?;
            *tally += taken.unwrap_or_default();
        }
    }
    Ok(())
}

fn release_one(tx: &mut Tx<'_>, account: &str, key: &RecordKey, held: Held) -> Result<Tally, StoreError> {
    let Held { document, is_agreed, .. } = held;
    tx.take_held(key)?;
    let is_absent = tx.document(key)?.is_none() && tx.is_clean(key)?;
    if tx.has_intent(key)? {
        tx.ask_again(key, Reread::default())?;
        return Ok(Tally::default());
    }
    if is_agreed && is_absent && tx.departed(account)?.is_some() {
        // It is still of the one who is gone.
        tx.put(key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)?;
        return Ok(Tally { pulled: 1, ..Tally::default() });
    }
    merge_in(tx, key, Some(&document))
}

/// Behind a hold over spelling, the centre has come to have the account as it is spelled here.
fn take_own_spelling(
    tx: &mut Tx<'_>,
    hold: Hold,
    key: &RecordKey,
    local: Option<&Document>,
    remote: &Document,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let base = tx.base(key)?;
    if local.is_some_and(|local| is_other_person(base.document(), local, remote)) {
        wait(tx, key, &hold.account, remote, tally)?;
        return tx.put_hold(&Hold { remote: key.id.clone(), why: HoldReason::Created, ..hold });
    }
    // The same person: both records are at the centre, and both are served.
    *tally += merge_known(tx, key, local.cloned(), Some(remote))?;
    let other = tx.held(&hold.remote_key())?.map(|held| held.document);
    end(tx, &hold, other.as_ref(), tally)
}

/// Lets a document of the centre wait in place of what was read before.
pub(super) fn wait(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    account: &str,
    remote: &Document,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    if let Some(held) = tx.held(key)? {
        keep_forgotten(tx, key, &held.document, Some(remote))?;
    }
    tally.pulled += u64::from(tx.put_held(key, account, remote)?);
    Ok(())
}

/// What waited under the key does not any longer; `remote` is what the centre has.
fn drop_held(tx: &mut Tx<'_>, key: &RecordKey, remote: Option<&Document>) -> Result<(), StoreError> {
    match tx.take_held(key)? {
        Some(gone) if remote.is_none() => tx.discard_held(key, &gone),
        Some(gone) => keep_forgotten(tx, key, &gone, remote),
        None => Ok(()),
    }
}

/// What waited for a decision may be nowhere else once the centre was set back: it goes to the trash.
pub(super) fn keep_forgotten(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    waited: &Document,
    remote: Option<&Document>,
) -> Result<(), StoreError> {
    if tx.is_restoring()? && remote.is_none_or(|remote| !same_document(waited, remote)) {
        tx.discard_held(key, waited)?;
    }
    Ok(())
}

fn diverts_dependent(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let owner = |document: Option<&Document>| document.and_then(|d| key.kind.schema().owner_of(d));
    let hold = match owner(remote) {
        Some(owner) => tx.hold(&owner)?,
        None => None,
    };
    let (Some(hold), Some(remote)) = (hold, remote) else {
        // Deleted, or somebody else's by now.
        drop_held(tx, key, remote)?;
        return Ok(false);
    };
    if let Base::Document(agreed) = tx.base(key)? {
        let is_theirs_here = owner(local.or(Some(&agreed))).as_ref() == Some(&hold.account);
        let is_news =
            !same_document(&agreed, remote) && local.is_none_or(|local| !same_document(local, remote));
        match (is_theirs_here, tx.is_clean(key)?) {
            // Written for whoever has the account there.
            (true, _) if is_news => {}
            (true, _) => {
                drop_held(tx, key, Some(remote))?;
                return Ok(false);
            }
            (false, true) => tx.put(key, None, &Base::Absent, &Actor::Centre)?,
            // What was deleted here is no longer there: another record has its id.
            (false, false) if local.is_none() => {
                tx.settle_trash(key, TrashState::Done)?;
                tx.put(key, None, &Base::Absent, &Actor::Centre)?;
            }
            (false, false) => {
                drop_held(tx, key, Some(remote))?;
                return Ok(false);
            }
        }
    }
    wait(tx, key, &hold.account, remote, tally)?;
    if let Some(known) = tx.undecided(key)? {
        tx.put_undecided(key, &Undecided { central: Some(remote.clone()), decided_owner: None, ..known })?;
    }
    Ok(true)
}

/// Whether a record is not to be pushed because a decision about its person is pending.
pub(crate) fn waits(tx: &Tx<'_>, key: &RecordKey) -> Result<bool, StoreError> {
    if !tx.has_holds()? {
        return Ok(false);
    }
    if tx.held(key)?.is_some() {
        return Ok(true);
    }
    match tx.owner(key)? {
        Some(owner) => Ok(tx.hold(&owner)?.is_some()),
        None => Ok(false),
    }
}

/// Ends a hold whose reason is gone.
fn end_if_settled(tx: &mut Tx<'_>, hold: Hold, tally: &mut Tally) -> Result<(), StoreError> {
    let hold = &first_question(tx, hold, tally)?;
    if hold.is_other_missing() && tx.held(&hold.remote_key())?.is_none() {
        // The row of whoever waits is lost: they are read again first.
        return tx.ask_again(&hold.remote_key(), Reread::default());
    }
    if is_in_doubt(tx, hold)? {
        if tx.document(&hold.local_key())?.is_none() && tx.has_dependents(&hold.account)? {
            tx.put_unknown(&hold.local_key())?;
        }
        return Ok(());
    }
    if let Some(held) = tx.held(&hold.remote_key())? {
        return end(tx, hold, Some(&held.document), tally);
    }
    end_alone(tx, hold, None, tally)?;
    let person = hold.local_key();
    if hold.gone.is_some() && person == hold.remote_key() && tx.base(&person)?.is_at_centre() {
        // Only the records of the other one were in the way of what the centre has done with the person.
        let local = tx.document(&person)?;
        *tally += merge_known(tx, &person, local, None)?;
    }
    Ok(())
}

impl Round<'_> {
    /// Ends the holds whose reason is gone: somebody has corrected the person here or at the centre. Takes what waited for
    /// a person whom the centre has now.
    ///
    /// Only once all news of the round is taken. What waits was read earlier; taken before its own news, the record of
    /// one human being would be merged with the one of the same id of another.
    pub(crate) async fn end_holds(&mut self) -> Result<(), RoundError> {
        let snapshot = self.store.read()?;
        let is_anything = snapshot.holds_count()? > 0 || snapshot.nobodys_count()? > 0;
        drop(snapshot);
        if !is_anything {
            return Ok(());
        }
        let tally = self
            .store
            .transact(|tx| -> Result<Tally, StoreError> {
                let mut tally = Tally::default();
                for hold in tx.holds()? {
                    // If nobody can say who they are, they wait, and hold nobody else up.
                    let conflict = hold.conflict.clone();
                    tx.sparing_conflict(&conflict, |tx| end_if_settled(tx, hold, &mut tally))?;
                }
                for account in tx.waited_for()? {
                    tx.sparing_account(&account, |tx| ownerless::release_if_known(tx, &account, &mut tally))?;
                }
                Ok(tally)
            })
            .await?;
        self.tally += tally;
        Ok(())
    }
}
