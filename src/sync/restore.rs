//! Floor 3. A centre that was set back to an older copy, or replaced.
//!
//! It remembers an older lease of this node, or none. The operator is asked first, with the numbers. Then the
//! lease goes on above both, everything at the centre is looked at, and each record is brought together with
//! it once, before it is merged for the first time: see `domain/reconcile/rebuild.rs` for what counts as agreed. Until
//! then nothing is written to it there.

use bson::{Bson, Document, doc};

use super::forgotten::{bring_former_together, written_over_owner};
use super::kept_rows::or_anew;
use super::people_first::ask_for_people;
use super::round::{Round, RoundError, Tally};
use crate::central::{Central, Lease};
use crate::domain::access::Actor;
use crate::domain::diff::{Change, get, set};
use crate::domain::merge::{Clash, Side, differing_values};
use crate::domain::rebuild::{later_changes, rebuilt_base, sets_apart};
use crate::domain::record::{Kind, RecordKey};
use crate::domain::same_meaning::same_edit_option;
use crate::domain::schema::Owner;
use crate::domain::value::{same_document, same_option};
use crate::store::{Base, Fields, Reread, Snapshot, Store, StoreError, Tx};

/// What an older centre was found to hold, and how far the answer to it has come.
const META_OLDER_CENTRE: &str = "older_centre";

/// A centre that knows less of this node than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OlderCentre {
    /// Number of the lease that it holds; `None` for none at all.
    there: Option<i64>,
    /// The operator agrees to go on from there.
    is_agreed: bool,
    /// A lease that goes on from there has been sent.
    is_sent: bool,
}

impl OlderCentre {
    fn found(lease: Option<&Lease>) -> OlderCentre {
        OlderCentre { there: lease.map(|lease| lease.number), is_agreed: false, is_sent: false }
    }

    /// The one that was found last.
    pub(super) fn noted(snapshot: &Snapshot) -> Result<Option<OlderCentre>, StoreError> {
        // The operator is asked anew.
        OlderCentre::in_row(snapshot.meta_row(META_OLDER_CENTRE)?, || None)
    }

    /// `unknown` stands for a row that cannot be read.
    fn in_row(
        row: Option<Vec<u8>>,
        unknown: impl FnOnce() -> Option<OlderCentre>,
    ) -> Result<Option<OlderCentre>, StoreError> {
        row.map_or(Ok(None), |row| or_anew(OlderCentre::decode(&row).map(Some), unknown))
    }

    pub(super) fn decode(row: &[u8]) -> Result<OlderCentre, StoreError> {
        let row = Fields::of(row, "what an older centre was found to hold")?;
        Ok(OlderCentre {
            there: row.int64_if_any("there")?,
            is_agreed: row.flag("agreed")?,
            is_sent: row.flag("sent")?,
        })
    }

    fn encode(&self) -> Document {
        let mut row = doc! {"agreed": self.is_agreed, "sent": self.is_sent};
        row.extend(self.there.map(|there| ("there".to_owned(), there.into())));
        row
    }

    /// The lease that it holds, by number; nodes begin with 1.
    fn lease(&self) -> i64 {
        self.there.unwrap_or(0)
    }
}

/// Whether the operator has agreed to go on from what the centre holds; notes that it is about to be done. If
/// not, the round halts.
pub(super) async fn agreed_or_halt(
    store: &Store,
    here: i64,
    found: Option<&Lease>,
) -> Result<(), RoundError> {
    let snapshot = store.read()?;
    let mut older = OlderCentre::found(found);
    let noted = OlderCentre::noted(&snapshot)?;
    older.is_agreed = noted.as_ref().is_some_and(|noted| noted.is_agreed && noted.there == older.there);
    older.is_sent = older.is_agreed;
    if noted.as_ref() != Some(&older) {
        let row = older.encode();
        store.transact(move |tx| tx.set_meta(META_OLDER_CENTRE, Some(&row))).await?;
    }
    match older.is_agreed {
        true => Ok(()),
        false => Err(RoundError::Halted(halt_message(&snapshot, here, &older)?)),
    }
}

fn halt_message(snapshot: &Snapshot, here: i64, older: &OlderCentre) -> Result<String, StoreError> {
    let mut records = 0;
    for kind in Kind::ALL {
        records += snapshot.count(kind)?;
    }
    let sent = snapshot.sent_since(older.lease())?.len();
    let there = match older.there {
        Some(there) => format!(
            "The centre is older than what this node knows of it (it confirms step {there}, and has confirmed step \
             {here} before): it was probably restored from an older copy."
        ),
        None => format!(
            "The centre does not know this node, which has taken {here} steps with it: it was probably replaced, \
             or restored from an older copy."
        ),
    };
    Ok(format!(
        "{there} Nothing has been changed on either side. This node holds {records} records, and remembers {sent} \
         writes of its own that the centre may have forgotten. If the centre is meant to be as it is, run: \
         thalamus-edge sync resume --centre-restored. Both are then brought together; where they differ and it \
         cannot be told which is right, the centre's value stands and the other one becomes a conflict."
    ))
}

/// The operator agrees to go on from what the centre holds. Returns whether there was anything to agree to.
pub(super) fn agree(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let Some(mut older) = OlderCentre::in_row(tx.meta_row(META_OLDER_CENTRE)?, || None)? else {
        return Ok(false);
    };
    older.is_agreed = true;
    tx.set_meta(META_OLDER_CENTRE, Some(&older.encode()))?;
    Ok(true)
}

/// The lease is taken: no question is open any more. Returns the lease from which the centre went on, if that
/// was agreed to.
pub(super) fn settle(tx: &mut Tx<'_>) -> Result<Option<i64>, StoreError> {
    Ok(answered(tx)?.filter(|older| older.is_sent).map(|older| older.lease()))
}

/// The node becomes another one. Returns the lease that the centre held when it was found to be older, agreed to
/// or not: that it went on from there is a copy's doing.
pub(super) fn settle_copied(tx: &mut Tx<'_>) -> Result<Option<i64>, StoreError> {
    Ok(answered(tx)?.map(|older| older.lease()))
}

/// The question that was open. Of one that cannot be read it is taken that the centre held nothing and that the answer was
/// sent: both sides are brought together once too often then, and never once too little.
fn answered(tx: &mut Tx<'_>) -> Result<Option<OlderCentre>, StoreError> {
    let unknown = || Some(OlderCentre { there: None, is_agreed: true, is_sent: true });
    let older = OlderCentre::in_row(tx.meta_row(META_OLDER_CENTRE)?, unknown)?;
    if older.is_some() {
        tx.set_meta(META_OLDER_CENTRE, None)?;
    }
    Ok(older)
}

/// Before a record is merged with a restored centre for the first time: makes its base what can still be taken
/// for agreed. Returns whether nothing is left to be merged.
pub(super) fn bring_together(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    local: Option<&Document>,
    remote: Option<&Document>,
    tally: &mut Tally,
) -> Result<bool, StoreError> {
    let Some(own) = tx.to_bring_together(key)? else {
        return Ok(false);
    };
    if let Some(is_done) = bring_former_together(tx, key, local, remote, tally)? {
        tx.brought_together(key)?;
        return Ok(is_done);
    }
    let agreed = tx.base(key)?;
    let written_over = written_over_owner(tx, key, &agreed)?;
    let is_unedited = tx.is_clean(key)?;
    if let (Some(local), None, true) = (local, remote, agreed.is_at_centre() && !tx.is_resyncing_all()?) {
        // Forgotten by a centre that crashed, or deleted there since: it goes there again, and staff see it.
        tx.add_conflict(key, &whole_record(agreed.document(), local), None)?;
    }
    let mut rebuilt = rebuilt_base(key.kind, agreed.document(), local, remote, &own);
    if let (Some(before), Some(local), Some(remote), Some(base)) =
        (agreed.document(), local, remote, &mut rebuilt)
    {
        let mut apart = Vec::new();
        for change in sets_apart(key.kind, before, base, local, remote) {
            set(base, &change.path, change.from.clone());
            apart.push(changed_since(&change));
        }
        tx.add_conflicts(key, &apart, Some(remote))?;
        let mut later = Vec::new();
        for change in later_changes(key.kind, before, remote, &own) {
            // Somebody has changed it since: that stands, and staff see what was there.
            if same_option(get(base, &change.path), change.to.as_ref())
                && same_option(get(local, &change.path), change.from.as_ref())
            {
                set(base, &change.path, change.from.clone());
                let (wrote, there) = (change.from.as_ref(), change.to.as_ref());
                if !same_edit_option(key.kind.schema(), &change.path, wrote, there) {
                    later.push(changed_since(&change));
                }
            }
        }
        tx.add_conflicts_of_sent(key, &later, Some(remote))?;
    }
    if let (Some(before), Some(local), Some(remote), false) =
        (agreed.document(), local, remote, tx.is_resyncing_all()?)
    {
        let sent_again = differing_values(key.kind.schema(), before, remote).into_iter().filter(|change| {
            change.to.is_none()
                && rebuilt.as_ref().is_none_or(|base| get(base, &change.path).is_none())
                && same_option(get(local, &change.path), change.from.as_ref())
        });
        // As for a record: forgotten by a centre that crashed, or removed there since.
        let sent_again: Vec<Clash> = sent_again.map(|change| gone_there(&change)).collect();
        tx.add_conflicts(key, &sent_again, Some(remote))?;
    }
    let mut base = Base::from(rebuilt);
    if let (Owner::Field(_), Some(local), Some(remote)) = (key.kind.schema().owner, local, remote)
        && !same_document(local, remote)
        && let Some(owner) = key.kind.schema().owner_of(remote)
        && let Some(hold) = tx.hold(&owner)?
        && (tx.is_resyncing_all()? || !agreed.is_under(key, &owner))
    {
        // Both sides may know the one who was written over here, and then both have a version of their record.
        let is_of_former =
            written_over.is_some() && agreed.is_under(key, &owner) && tx.taken_by(&hold)?.is_none();
        if !is_of_former {
            // Two people have the account, and this may be a record of each.
            base = Base::Absent;
        }
    }
    if local.is_none() && agreed == Base::Absent && base != Base::Absent {
        tx.reopen_trash(key)?;
    }
    tx.put(key, local, &base, &Actor::Centre)?;
    if let Some(person) = written_over.filter(|_| is_unedited) {
        // Nobody has written into it here since: what differs is older than the rewrite.
        tx.wait_since_before_holder(key, &person.id)?;
    }
    tx.brought_together(key)?;
    Ok(false)
}

/// A value that was written here and changed there, perhaps before a copy of the centre was put back.
pub(super) fn changed_since(change: &Change) -> Clash {
    Clash {
        path: change.path.clone(),
        base: change.from.clone(),
        local: change.from.clone(),
        remote: change.to.clone(),
        stands: Side::Remote,
    }
}

/// A value that is gone at the centre, and stands.
fn gone_there(change: &Change) -> Clash {
    Clash { stands: Side::Local, ..changed_since(change) }
}

/// A record that is gone at the centre, and stands.
fn whole_record(agreed: Option<&Document>, local: &Document) -> Clash {
    Clash {
        path: Vec::new(),
        base: agreed.cloned().map(Bson::Document),
        local: Some(Bson::Document(local.clone())),
        remote: None,
        stands: Side::Local,
    }
}

impl Round<'_> {
    /// Reads records that are about to be written to, so that they are brought together with a restored centre
    /// before that: nobody has to wait for the sweep.
    pub(super) async fn bring_together_first(
        &mut self,
        central: &mut dyn Central,
        keys: &[RecordKey],
    ) -> Result<(), RoundError> {
        if !self.store.read()?.is_restoring()? {
            return Ok(());
        }
        let keys = keys.to_vec();
        self.store
            .transact(move |tx| -> Result<(), StoreError> {
                for key in &keys {
                    tx.sparing(key, |tx| {
                        if tx.to_bring_together(key)?.is_some() {
                            ask_for_people(tx, key)?;
                            tx.ask_again(key, Reread::default())?;
                        }
                        Ok(())
                    })?;
                }
                Ok(())
            })
            .await?;
        // Two that read would not keep their order.
        if self.beside.is_some() { Ok(()) } else { self.reread(central).await }
    }

    /// Ends the restoring once everything has been brought together.
    pub(super) async fn end_restore(&self) -> Result<(), StoreError> {
        self.store.transact(|tx| tx.end_restore()).await
    }
}
