//! Floor 3. Refused records: what can be done about a record that the centre does not take, or that cannot be taken
//! from it.
//!
//! | what is refused | ways out |
//! |---|---|
//! | a change of a record that the centre has | retry, edit, take the centre's version, discard |
//! | a record that the centre does not have | retry, edit, discard |
//! | a delete | retry, take the centre's version: the record comes back |
//! | a document of the centre that cannot be read | retry; with a local change also edit and discard |
//!
//! What was local is in the trash afterwards, whatever was chosen.

use super::hold;
use crate::domain::access::Actor;
use crate::domain::audit::What;
use crate::domain::record::{Kind, RecordKey};
use crate::store::{Base, DeadLetter, Reread, Snapshot, Store, StoreError, Tx};

/// A way out for a refused record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// Send it again, or read it again, in the next round.
    Retry,
    /// Change the record here, as any record: it is sent again then.
    Edit,
    /// Put the local version into the trash, and the centre's in its place.
    TakeCentral,
    /// Put the local version into the trash. The centre's takes its place, if the centre has the record.
    Discard,
}

impl WayOut {
    pub fn name(self) -> &'static str {
        match self {
            WayOut::Retry => "retry",
            WayOut::Edit => "edit",
            WayOut::TakeCentral => "take-central",
            WayOut::Discard => "discard",
        }
    }
}

/// Why a way out was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RefusedError {
    #[error("there is no such refused record")]
    Unknown,
    /// This record does not have this way out.
    #[error("{0}")]
    Impossible(&'static str),
    /// It must be decided first who the person is: the conflict about that.
    #[error("it is not decided yet who this person is")]
    Held { conflict: String },
    /// The caller may not change the record like this.
    #[error("not allowed")]
    Forbidden,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What becomes of a record on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Changed,
    /// The record is deleted here.
    Gone,
    /// A record that was deleted here comes back.
    Back,
}

/// The ways out for a refused record.
pub fn ways_out(snapshot: &Snapshot, letter: &DeadLetter) -> Result<Vec<WayOut>, StoreError> {
    let is_dirty = !snapshot.is_clean(&letter.key)?;
    let is_here = snapshot.visit_record(&letter.key, |record| record.is_some())?;
    let is_pushed = letter.direction == "push";
    let is_at_centre = is_dirty && snapshot.has_agreed(&letter.key)?;
    let mut ways = vec![WayOut::Retry];
    if is_dirty && is_here {
        ways.push(WayOut::Edit);
    }
    if is_dirty && is_pushed && is_at_centre {
        ways.push(WayOut::TakeCentral);
    }
    if is_dirty && is_here {
        ways.push(WayOut::Discard);
    }
    Ok(ways)
}

/// Takes [`WayOut::TakeCentral`] or [`WayOut::Discard`]. `allow` says whether the caller may change the record so; it
/// runs in the transaction.
pub async fn give_up<F>(
    store: &Store,
    key: &RecordKey,
    way: WayOut,
    actor: Actor,
    allow: F,
) -> Result<(), RefusedError>
where
    F: Fn(Effect, Option<&str>) -> bool + Send + 'static,
{
    let key = key.clone();
    store.transact(move |tx: &mut Tx<'_>| give_up_in(tx, &key, way, &actor, &allow)).await
}

fn give_up_in(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    way: WayOut,
    actor: &Actor,
    allow: &impl Fn(Effect, Option<&str>) -> bool,
) -> Result<(), RefusedError> {
    let Some(letter) = tx.dead_letter(key)? else {
        return Err(RefusedError::Unknown);
    };
    if hold::waits(tx, key)? {
        let owner = tx.owner(key)?.unwrap_or_default();
        let conflict = tx.hold(&owner)?.map(|hold| hold.conflict).unwrap_or_default();
        return Err(RefusedError::Held { conflict });
    }
    if tx.has_intent(key)? {
        return Err(RefusedError::Impossible(
            "A write of this record is on the way: try again after the round",
        ));
    }
    let Some(base) = tx.base_if_dirty(key)? else {
        return Err(RefusedError::Impossible("Nothing was changed here: there is nothing to give up"));
    };
    let is_here = tx.document(key)?.is_some();
    let effect = match (&base, is_here) {
        (Base::Absent, _) => Effect::Gone,
        (Base::Document(_), true) => Effect::Changed,
        (Base::Document(_), false) => Effect::Back,
    };
    match (way, effect) {
        (WayOut::TakeCentral, Effect::Gone) => {
            return Err(RefusedError::Impossible(
                "The centre does not have this record: discard it, or change it",
            ));
        }
        (WayOut::TakeCentral, _) if letter.direction != "push" => {
            return Err(RefusedError::Impossible("The centre's document cannot be read"));
        }
        (WayOut::Discard, Effect::Back) => {
            let reason =
                "The record is deleted here, and its body is in the trash: try again, or take the centre's";
            return Err(RefusedError::Impossible(reason));
        }
        (WayOut::Retry | WayOut::Edit, _) => {
            return Err(RefusedError::Impossible("This is no way to give up"));
        }
        (WayOut::TakeCentral | WayOut::Discard, _) => {}
    }
    let owner = tx.owner(key)?;
    if !allow(effect, owner.as_deref()) {
        return Err(RefusedError::Forbidden);
    }
    if effect == Effect::Gone && key.kind == Kind::Person && tx.has_dependents(&key.id)? {
        let reason = "The person has records of their own on this node: discard or delete those first";
        return Err(RefusedError::Impossible(reason));
    }
    if let (Effect::Changed, Some(local)) = (effect, tx.document(key)?) {
        tx.trash_given_up(key, &local, actor)?;
    }
    // An ordinary edit back to what was agreed: nothing is left to be sent.
    tx.edit(key, base.document(), actor)?;
    tx.clear_dead(key)?;
    if effect != Effect::Gone {
        // The centre may have another version by now.
        tx.ask_again(key, Reread::default())?;
    }
    let what = if way == WayOut::TakeCentral { What::TakeCentral } else { What::Discard };
    let collection = key.kind.schema().collection;
    tx.audit_asked(what, |event| event.about(collection, &key.id, owner.as_deref()))?;
    Ok(())
}
