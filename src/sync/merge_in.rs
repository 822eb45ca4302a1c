//! Floor 3. Taking one record from the centre: the merge, in a store transaction.

use bson::Document;

use super::closings::{self, Meeting, merge_closed};
use super::evidence::{haunted, landed};
use super::put_back::note_put_back;
use super::round::Tally;
use super::{conflicts, hold, ownerless, restore, undecided};
use crate::domain::access::Actor;
use crate::domain::diff::{Diff, diff};
use crate::domain::merge::{Clash, is_other_person, merge};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::schema::Owner;
use crate::domain::verbatim::Verbatim;
use crate::flaw::{Flaw, planted};
use crate::store::{Base, DeadLetter, Reread, StoreError, TrashState, Tx, UNREADABLE_CODE, unless_damaged};

/// Brings the record to what it is after the centre was seen to hold `remote`, unless that has to wait for a
/// decision about who it is about.
///
/// The caller has made sure that the read is not stale. Losers of the merge are durable in the same
/// transaction that drops them from the record.
///
/// If a row that this needs is damaged, nothing is concluded: the record is read again in the next round. Where something
/// was written before that row was read, the error goes up to the [`Tx::sparing`] of the record, which undoes it: a record
/// that is half taken would be in no index, and in nobody's journal.
pub(crate) fn merge_in(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    remote: Option<&Document>,
) -> Result<Tally, StoreError> {
    let merged = tx.unless_damaged_first(|tx| merge_sound(tx, key, remote))?;
    if merged.is_none() {
        tx.ask_again(key, Reread { is_deleted: remote.is_none(), ..Reread::default() })?;
    }
    Ok(merged.unwrap_or_default())
}

fn merge_sound(tx: &mut Tx<'_>, key: &RecordKey, remote: Option<&Document>) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    let before = tx.writes();
    if let (Some(remote), true) = (remote, tx.is_vanished(key)?) {
        tally += note_put_back(tx, key, remote)?;
        tx.clear_vanished(key)?;
    }
    let local = tx.document(key)?;
    tally += note_delivered(tx, key, local.as_ref(), remote)?;
    let is_done = restore::bring_together(tx, key, local.as_ref(), remote, &mut tally)?;
    if !is_done && !hold::diverts(tx, key, local.as_ref(), remote, &mut tally)? {
        tally += merge_known(tx, key, local, remote)?;
    }
    if key.kind == Kind::Person && remote.is_some() {
        ownerless::release_if_known(tx, &key.id, &mut tally)?;
    }
    if tx.writes() != before {
        tx.note_taken(key)?;
    }
    Ok(tally)
}

/// Compares what an image of this store holds, and what was delivered from it, with what the centre has by now. Counts the
/// conflicts.
///
/// Values of one person are nothing to another one. While two people have the account, the version here stays with the one
/// here; where nobody knows whose the centre's is, what the image held can be found as a whole in the trash.
fn note_delivered(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    let Some(clashes) =
        tx.compare_delivered(key, local, remote)?.filter(|compared| !compared.clashes.is_empty())
    else {
        return Ok(tally);
    };
    let was = local.or(clashes.base.as_ref());
    if is_held(tx, key, [was, remote])? {
        return Ok(tally);
    }
    if are_of_two(key, was, remote) || (remote.is_some() && is_of_unknown(tx, key, was)?) {
        if let Some(local) = local {
            tx.discard(key, local)?;
        }
        return Ok(tally);
    }
    tx.add_conflicts(key, &clashes.clashes, remote)?;
    tally.conflicts += clashes.clashes.len() as u64;
    Ok(tally)
}

/// Whether two people have the account of one of these versions of a record.
pub(super) fn is_held(
    tx: &Tx<'_>,
    key: &RecordKey,
    versions: [Option<&Document>; 2],
) -> Result<bool, StoreError> {
    let Owner::Field(_) = key.kind.schema().owner else {
        return Ok(tx.hold(&key.id)?.is_some() && key.kind == Kind::Person);
    };
    for version in versions.into_iter().flatten() {
        if let Some(owner) = key.kind.schema().owner_of(version)
            && tx.hold(&owner)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether it is not known which human being the record belongs to at the centre: nobody has the account there, or two.
fn is_of_unknown(tx: &Tx<'_>, key: &RecordKey, version: Option<&Document>) -> Result<bool, StoreError> {
    let (Owner::Field(_), Some(version)) = (key.kind.schema().owner, version) else {
        return Ok(false);
    };
    let Some(account) = key.kind.schema().owner_of(version) else {
        return Ok(false);
    };
    if tx.is_shared(&account)? {
        return Ok(true);
    }
    for id in tx.spellings(&account)? {
        if undecided::absence(tx, &RecordKey::new(Kind::Person, id))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two versions of a record are about different people, or belong to them.
pub(super) fn are_of_two(key: &RecordKey, local: Option<&Document>, remote: Option<&Document>) -> bool {
    let (Some(local), Some(remote)) = (local, remote) else {
        return false;
    };
    let schema = key.kind.schema();
    match key.kind {
        Kind::Person => is_other_person(Some(local), local, remote),
        _ => schema.owner_of(local) != schema.owner_of(remote),
    }
}

/// [`merge_in`] of a document as it came. One that nothing is known of here, as all are in a first sync, is written as
/// it is: none of the steps of a merge would find anything to do.
pub(crate) fn take_in(tx: &mut Tx<'_>, key: &RecordKey, remote: &Verbatim) -> Result<Tally, StoreError> {
    let owner = key.kind.schema().owner_in(remote.bytes());
    let is_nobodys = match owner {
        // The merge says what becomes of a damaged row.
        Some(owner) => unless_damaged(ownerless::is_nobodys(tx, &owner))?.unwrap_or(true),
        None => false,
    };
    if is_nobodys || !tx.is_unheard_of(key)? {
        return merge_in(tx, key, Some(&remote.decode()));
    }
    tx.put_new(key, remote.bytes())?;
    tx.note_taken(key)?;
    // Readable again, if it was not.
    tx.clear_dead(key)?;
    Ok(Tally { pulled: 1, ..Tally::default() })
}

/// [`merge_in`] of a record that is known to be about the same person here and there; `local` is what it holds.
pub(crate) fn merge_known(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<Document>,
    remote: Option<&Document>,
) -> Result<Tally, StoreError> {
    merge_at(tx, key, local, remote, Meeting::Round)
}

/// [`merge_known`] of two versions that meet as said.
pub(super) fn merge_at(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<Document>,
    remote: Option<&Document>,
    meeting: Meeting,
) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    lay_ghost(tx, key, local.as_ref(), remote)?;
    let is_clean = tx.is_clean(key)?;
    if is_clean && matches!(meeting, Meeting::Round) {
        take_clean(tx, key, local.as_ref(), remote, &mut tally)?;
        return Ok(tally);
    }
    let base = tx.base(key)?;
    let sides = (base.document(), local.as_ref(), remote);
    let merged = match closings::closed_by(tx, key, sides, meeting)? {
        Some(stands) => merge_closed(sides, stands),
        None if is_clean => {
            take_clean(tx, key, local.as_ref(), remote, &mut tally)?;
            return Ok(tally);
        }
        None => merge(key.kind.schema(), sides.0, sides.1, sides.2),
    };
    let recorded: &[Clash] = if planted(Flaw::LoserDropped) { &[] } else { &merged.clashes };
    tx.add_conflicts(key, recorded, remote)?;
    tally.conflicts += recorded.len() as u64;
    let agreed = Base::from(remote.cloned());
    let is_news = agreed != base || merged.document != local;
    tally.merged += u64::from(is_news);
    // Whatever it waited for is over: the centre's document can be read, and a refusal was of another change
    // than the one that is left.
    if is_news || tx.waits_for_centre(key)? {
        tx.clear_dead(key)?;
    }
    tx.put(key, merged.document.as_ref(), &agreed, &Actor::Centre)?;
    if local.is_none() {
        match (&merged.document, remote) {
            (Some(_), _) => tx.settle_trash(key, TrashState::Void)?,
            (None, None) => {
                tx.settle_trash(key, TrashState::Done)?;
                tx.clear_dead(key)?;
            }
            // Still to be deleted at the centre.
            (None, Some(_)) => {}
        }
    }
    Ok(tally)
}

/// Nobody here changed the record: the centre's version is taken as it is.
fn take_clean(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    match (local, remote) {
        (None, None) => tx.settle_trash(key, TrashState::Done)?,
        // Decided with all others that are gone, at the end.
        (Some(_), None) if tx.undecided(key)?.is_some() => {}
        (Some(_), None) => tx.put_vanished(key)?,
        (_, Some(remote)) => {
            if let Some(local) = local {
                keep_if_anothers(tx, key, local, remote)?;
            }
            if tx.put_agreed(key, local, remote)? {
                tally.pulled += 1;
                conflicts::close_moot(tx, key, remote)?;
            }
            // Readable again, if it was not.
            tx.clear_dead(key)?;
        }
    }
    Ok(())
}

/// A record whose version at the centre belongs to somebody else, or to a person who is gone, was moved, or it was deleted and
/// its id used again: only the centre's history could tell, and it may have a gap. What is more than moved goes to the trash, as after a delete that was
/// seen. People are looked at by [`hold`].
fn keep_if_anothers(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: &Document,
    remote: &Document,
) -> Result<(), StoreError> {
    let Owner::Field(owner) = key.kind.schema().owner else {
        return Ok(());
    };
    if !are_of_two(key, Some(local), Some(remote)) && !is_person_going(tx, key, local)? {
        return Ok(());
    }
    let is_taken_away = match diff(local, remote) {
        Diff::Same => false,
        Diff::Fields(changes) => changes.iter().any(|change| change.from.is_some() && change.path != [owner]),
        Diff::Whole => true,
    };
    if is_taken_away { tx.keep_in_trash(key, local) } else { Ok(()) }
}

/// Whether the person of this version is gone at the centre, so that somebody else may have the account in another spelling.
fn is_person_going(tx: &Tx<'_>, key: &RecordKey, local: &Document) -> Result<bool, StoreError> {
    let Some(account) = key.kind.schema().owner_of(local) else {
        return Ok(false);
    };
    for id in tx.spellings(&account)? {
        if tx.is_vanished(&RecordKey::new(Kind::Person, id))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Recognizes a write that had been given up and is at the centre now: it arrived late, or somebody did
/// the same.
fn lay_ghost(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
) -> Result<(), StoreError> {
    let Some(ghost) = tx.ghost(key)? else {
        return Ok(());
    };
    let base = tx.base(key)?;
    if landed(&ghost, remote) && !landed(&ghost, base.document()) {
        tx.clear_ghost(key)?;
        tx.put(key, local, &Base::Document(haunted(&ghost, &base)), &Actor::Centre)?;
    }
    Ok(())
}

/// A record that vanished at the centre goes here too, its body to the trash; unless somebody has edited it
/// since, which makes it a record of its own again.
pub(crate) fn remove(tx: &mut Tx<'_>, key: &RecordKey) -> Result<Tally, StoreError> {
    if !tx.clear_vanished(key)? {
        return Ok(Tally::default());
    }
    if tx.has_intent(key)? {
        // A write of it is on the way, so that it need not be gone by now.
        tx.ask_again(key, Reread::of_deleted())?;
        return Ok(Tally::default());
    }
    if !tx.is_clean(key)? {
        return merge_in(tx, key, None);
    }
    let mut tally = Tally::default();
    if tx.damage(key)?.is_some() {
        // What cannot be read cannot be put into the trash: the row stays, and is listed.
        return Ok(tally);
    }
    if hold::hold_successor(tx, key, &mut tally)? || undecided::delete_waits(tx, key, &mut tally)? {
        tx.note_taken(key)?;
        return Ok(tally);
    }
    if let Some(local) = tx.document(key)? {
        tx.discard(key, &local)?;
        tx.put(key, None, &Base::Absent, &Actor::Centre)?;
        tx.clear_dead(key)?;
        tx.note_taken(key)?;
        tally.deleted += 1;
    }
    Ok(tally)
}

/// A document of the centre that cannot be kept as it is: it is left alone and listed.
pub(crate) fn note_unreadable(tx: &mut Tx<'_>, key: &RecordKey, reason: &str) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    if !tx.is_dead(key)? {
        tally.dead += 1;
        tx.put_dead(&DeadLetter {
            key: key.clone(),
            direction: "pull",
            code: UNREADABLE_CODE,
            reason: format!("cannot be taken from the centre: {reason}"),
            at_ms: tx.now_ms(),
        })?;
    }
    Ok(tally)
}
