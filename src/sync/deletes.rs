//! Floor 3. DELETES: records that vanished at the centre, and many deletes at once on either side.
//!
//! A delete that the change feed has told is carried out in the same round: a person who was deleted must not log in
//! here any longer. A record that a sweep has missed waits until the sweep has seen everything. Too many of both, or
//! too many deletes made on this node, are more likely an accident than a wish: then nothing is deleted on
//! either side until the operator says which it was.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, doc};

use super::kept_rows::or_anew;
use super::merge_in::remove;
use super::pull::note_told;
use super::round::{Round, RoundError, Tally};
use super::scan::is_under_way;
use super::step;
use crate::domain::access::Actor;
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::Owner;
use crate::domain::value::same_document;
use crate::store::{Base, Fields, Granted, OwnerNow, Reread, Snapshot, StoreError, TrashState, Tx, Vanished};

/// Deletes that need no confirmation: this many of a kind, or one in [`DELETES_PER_RECORD`] of what is here.
const DELETES_UNASKED_MAX: u64 = 20;
const DELETES_PER_RECORD: u64 = 100;
/// Records deleted in one transaction.
const BATCH_DELETES_MAX: usize = 500;
/// Examples in a message.
const EXAMPLES_MAX: usize = 3;

/// Collection -> records that went here because they had vanished, since the operator or a sweep without any
/// last confirmed that all is well.
const META_DELETED: &str = "deleted_since";
/// The operator agrees with the deletes made here up to this place in the push order.
const META_ACCEPTED: &str = "deletes_accepted";

fn unasked(records: u64) -> u64 {
    DELETES_UNASKED_MAX.max(records / DELETES_PER_RECORD)
}

impl Round<'_> {
    /// Deletes what vanished at the centre, or halts.
    pub(crate) async fn deletes(&mut self) -> Result<(), RoundError> {
        let (due, too_many) = self.due_deletes()?;
        match too_many {
            Some(message) => Err(RoundError::Halted(message)),
            None => Ok(self.delete(due).await?),
        }
    }

    /// Deletes what the feed told before a sweep begins or goes on, so that the sweep misses only what was not told.
    pub(crate) async fn deletes_before_sweep(&mut self) -> Result<(), StoreError> {
        let (due, too_many) = self.due_deletes()?;
        if too_many.is_some() { Ok(()) } else { self.delete(due).await }
    }

    /// The deletes that can be carried out now, and why they must not be, if too many records are gone.
    fn due_deletes(&self) -> Result<(Vec<Vanished>, Option<String>), StoreError> {
        let snapshot = self.store.read()?;
        let mut vanished = snapshot.vanished()?;
        let too_many = too_many(&snapshot, &vanished)?;
        if self.sweep.is_some() || is_under_way(&snapshot)? {
            // The sweep may miss more: how many are gone is known at its end.
            vanished.retain(|row| row.is_accepted || row.is_told);
        }
        Ok((vanished, too_many))
    }

    async fn delete(&mut self, due: Vec<Vanished>) -> Result<(), StoreError> {
        if self.store.has_broken_pages() {
            // What tells that they were edited here may be what is lost.
            return Ok(());
        }
        for rows in due.chunks(BATCH_DELETES_MAX) {
            let rows = rows.to_vec();
            let tally = self
                .store
                .transact(move |tx| -> Result<Tally, StoreError> {
                    let mut tally = Tally::default();
                    let mut deleted = Lately::in_row(tx.meta_row(META_DELETED)?)?.unwrap_or_default();
                    for row in &rows {
                        let done = match tx.sparing(&row.key, |tx| remove(tx, &row.key))? {
                            Some(done) => done,
                            // A row is in the way, and the next round finds that the record is gone.
                            None => {
                                tx.clear_vanished(&row.key)?;
                                tx.ask_again(&row.key, Reread::of_deleted())?;
                                Tally::default()
                            }
                        };
                        if row.is_told {
                            // If something was in the way, and it is to be read again.
                            note_told(tx, &row.key)?;
                        }
                        if done.deleted > 0 && !row.is_accepted {
                            *deleted.0.entry(row.key.kind).or_default() += done.deleted;
                        }
                        tally += done;
                    }
                    if !deleted.0.is_empty() {
                        tx.set_meta(META_DELETED, Some(&deleted.encode()))?;
                    }
                    Ok(tally)
                })
                .await?;
            self.tally += tally;
            step("deletes.applied");
        }
        Ok(())
    }
}

/// Why what vanished must not simply go here too, if it must not.
fn too_many(snapshot: &Snapshot, vanished: &[Vanished]) -> Result<Option<String>, StoreError> {
    let deleted = Lately::in_row(snapshot.meta_row(META_DELETED)?)?;
    let mut asked: BTreeMap<Kind, Vec<&RecordKey>> = BTreeMap::new();
    for row in vanished.iter().filter(|row| !row.is_accepted) {
        asked.entry(row.key.kind).or_default().push(&row.key);
    }
    for (kind, keys) in asked {
        let before = deleted.as_ref().map(|deleted| deleted.of(kind));
        let here = snapshot.count(kind)?;
        if before.is_none_or(|before| keys.len() as u64 + before > unasked(here + before)) {
            return Ok(Some(vanished_message(kind, here, before, &keys)));
        }
    }
    Ok(None)
}

/// How many records of each kind went here lately, see [`META_DELETED`].
#[derive(Debug, Default)]
pub(super) struct Lately(BTreeMap<Kind, u64>);

impl Lately {
    /// Nothing if the row cannot be read: as many may have gone as are too many, so the operator is asked before the next
    /// delete, and the answer writes the row anew.
    fn in_row(row: Option<Vec<u8>>) -> Result<Option<Lately>, StoreError> {
        row.map_or(Ok(Some(Lately::default())), |row| or_anew(Lately::decode(&row).map(Some), || None))
    }

    pub(super) fn decode(row: &[u8]) -> Result<Lately, StoreError> {
        let row = Fields::of(row, "how many records went lately")?;
        let mut counts = BTreeMap::new();
        for kind in Kind::ALL {
            counts.extend(row.count_if_any(kind.schema().collection)?.map(|count| (kind, count)));
        }
        Ok(Lately(counts))
    }

    fn encode(&self) -> Document {
        let count = |(kind, count): (&Kind, &u64)| {
            (kind.schema().collection.to_owned(), i64::try_from(*count).unwrap_or(i64::MAX).into())
        };
        self.0.iter().map(count).collect()
    }

    fn of(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or_default()
    }
}

/// A sweep has come to its end: if it found nothing missing, all is well.
pub(crate) fn note_sweep(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if tx.vanished_keys()?.is_empty() && tx.meta_row(META_DELETED)?.is_some() {
        tx.set_meta(META_DELETED, None)?;
    }
    Ok(())
}

/// Kinds of which too many records were deleted here for all deletes to go to the centre unasked, with what
/// to say about it.
pub(crate) struct HeldBack {
    pub(crate) kinds: BTreeSet<Kind>,
    /// Whose records these are, folded. They stay as long as their records: an account without its person goes to somebody else.
    accounts: BTreeSet<String>,
    accepted: u64,
    pub(crate) message: Option<String>,
}

impl HeldBack {
    pub(crate) fn now(snapshot: &Snapshot) -> Result<HeldBack, StoreError> {
        let accepted = accepted_in(snapshot.meta_row(META_ACCEPTED)?)?;
        let mut held =
            HeldBack { kinds: BTreeSet::new(), accounts: BTreeSet::new(), accepted, message: None };
        let mut asked: BTreeMap<Kind, Vec<RecordKey>> = BTreeMap::new();
        for (key, sequence) in snapshot.pending_deletes()? {
            if sequence > accepted {
                asked.entry(key.kind).or_default().push(key);
            }
        }
        for (kind, keys) in asked {
            let deleted = keys.len() as u64;
            if deleted > DELETES_UNASKED_MAX && deleted > unasked(snapshot.count(kind)? + deleted) {
                held.kinds.insert(kind);
                held.message.get_or_insert_with(|| deleted_message(kind, &keys));
                held.accounts.extend(snapshot.accounts_of(&keys)?);
            }
        }
        Ok(held)
    }

    /// Whether the delete at this place in the push order has to wait.
    pub(crate) fn waits(&self, key: &RecordKey, sequence: u64) -> bool {
        let is_held = self.kinds.contains(&key.kind) && sequence > self.accepted;
        is_held || (key.kind == Kind::Person && self.accounts.contains(&fold_account(&key.id)))
    }
}

/// Up to which place the operator agrees. Where that cannot be read, to none: it is asked again.
fn accepted_in(row: Option<Vec<u8>>) -> Result<u64, StoreError> {
    row.map_or(Ok(0), |row| or_anew(decode_accepted(&row), || 0))
}

pub(super) fn decode_accepted(row: &[u8]) -> Result<u64, StoreError> {
    Fields::of(row, "the deletes that were agreed to")?.count("sequence")
}

fn examples<'a>(keys: impl IntoIterator<Item = &'a RecordKey>) -> String {
    let ids: Vec<&str> = keys.into_iter().take(EXAMPLES_MAX).map(|key| key.id.as_str()).collect();
    ids.join(", ")
}

/// `before`: how many went lately, if that is known.
fn vanished_message(kind: Kind, here: u64, before: Option<u64>, keys: &[&RecordKey]) -> String {
    let earlier = match before {
        Some(0) => String::new(),
        Some(before) => format!(", {before} more were deleted lately"),
        None => ", and how many were deleted lately cannot be read any more".to_owned(),
    };
    format!(
        "{} of {here} records in {} are gone at the centre (for example {}){earlier}. Nothing has been deleted \
         here. If that is right, run: thalamus-edge sync resume --accept-deletes. If they are to be put back \
         at the centre: thalamus-edge sync resume --restore-deleted",
        keys.len(),
        kind.schema().collection,
        examples(keys.iter().copied()),
    )
}

fn deleted_message(kind: Kind, keys: &[RecordKey]) -> String {
    format!(
        "{} records in {} were deleted here (for example {}). They have not been deleted at the centre. If that \
         is right, run: thalamus-edge sync resume --accept-deletes. If they are to come back: thalamus-edge sync \
         resume --restore-deleted",
        keys.len(),
        kind.schema().collection,
        examples(keys),
    )
}

/// The operator agrees with every delete that waits now, on either side.
pub(crate) fn accept_deletes(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    tx.accept_vanished()?;
    let last = tx.pending_deletes()?.into_iter().map(|(_, sequence)| sequence).max();
    if let Some(last) = last {
        tx.set_meta(META_ACCEPTED, Some(&doc! {"sequence": last as i64}))?;
    }
    if tx.meta_row(META_DELETED)?.is_some() {
        tx.set_meta(META_DELETED, None)?;
    }
    Ok(())
}

/// The operator wants everything back whose delete waits now: what vanished at the centre is put there
/// again, what was deleted here comes out of the trash. Returns how many records.
pub(crate) fn restore_deleted(tx: &mut Tx<'_>, actor: &Actor) -> Result<u64, StoreError> {
    let mut count = 0;
    for key in tx.vanished_keys()? {
        let is_back = tx.sparing(&key, |tx| {
            tx.clear_vanished(&key)?;
            // What somebody edited meanwhile goes there anyway.
            let local = if tx.is_clean(&key)? { tx.document(&key)? } else { None };
            if let Some(local) = &local {
                tx.put(&key, Some(local), &Base::Absent, actor)?;
                if let (Owner::Field(_), Some(account)) = (key.kind.schema().owner, tx.owner(&key)?) {
                    tx.leave_with_former_owner(&key, &account)?;
                }
            }
            Ok(local.is_some())
        })?;
        count += u64::from(is_back.unwrap_or(false));
    }
    let accepted = accepted_in(tx.meta_row(META_ACCEPTED)?)?;
    for (key, sequence) in tx.pending_deletes()? {
        if sequence <= accepted {
            continue;
        }
        let is_back = tx.sparing(&key, |tx| {
            let trashed = if tx.document(&key)?.is_some() { None } else { tx.pending_trash(&key)? };
            let Some(trashed) = trashed else {
                return Ok(false);
            };
            let is_anothers = key.kind != Kind::Person
                && tx.owner_now(&trashed.whose)? == OwnerNow::Another
                && !tx.is_of_former_owner(&key, &trashed.whose)?;
            if is_anothers {
                // The account has gone to somebody else since.
                return Ok(false);
            }
            let base = tx.base(&key)?;
            let is_as_agreed = base.document().is_some_and(|base| same_document(base, &trashed.document));
            tx.put(&key, Some(&trashed.document), &base, actor)?;
            if is_as_agreed && key.kind != Kind::Person {
                tx.leave_with_former_owner(&key, &trashed.whose.account)?;
            }
            tx.settle_trash(&key, TrashState::Void)?;
            if key.kind == Kind::Person {
                // As out of the trash: roles that were granted here do not come back.
                tx.replace_grants(&key.id, &Granted::default(), actor)?;
            }
            Ok(true)
        })?;
        count += u64::from(is_back.unwrap_or(false));
    }
    Ok(count)
}
