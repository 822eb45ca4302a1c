//! Floor 3. PUSH: local edits to the centre, by compare-and-set on exactly what changed.
//!
//! What is sent is durable as an intent before it is sent. A hit makes the base what was sent; a miss
//! means that someone else progressed: read again, merge, try again.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use tokio_util::sync::CancellationToken;

use super::apart::{self, Sent};
use super::deletes::HeldBack;
use super::doubt::hold_if_rewritten;
use super::ownerless::ThereOnly;
use super::owners::spell_owner_as_stored;
use super::round::{Round, RoundError, Tally, without_secrets};
use super::unread::{Unread, is_read_first, unread_for};
use super::{ownerless, step, undecided};
use crate::central::{ArchiveState, Central, Moment, Write, Written};
use crate::domain::access::Actor;
use crate::domain::active::{ACTIVE, is_active};
use crate::domain::diff::{Change, Diff, diff};
use crate::domain::json::weight;
use crate::domain::merge::{Clash, Side};
use crate::domain::record::{Kind, RecordKey, fold_account};
use crate::domain::schema::{Owner, PUSH_RANK_MAX};
use crate::flaw::{Flaw, planted};
use crate::store::{
    Base, DeadLetter, Intent, IntentWrite, Landing, Reread, StoreError, TrashState, Tx, WaitReason, Waiting,
};

/// Tries of one record in a round.
pub(crate) const PUSH_TRIES_MAX: usize = 3;
/// What a round says of an error about a single record.
const NOT_TAKEN: &str = "The centre does not take a record";
/// What a round says of writes that no majority of the centre confirms.
const NOT_CONFIRMED: &str = "The centre does not confirm what it was sent";
/// Bounds of the number of writes sent together.
const BATCH_WRITES_MIN: usize = 1;
const BATCH_WRITES_MAX: usize = 500;
/// Roughly the most bytes sent together.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// What takes more than this while it is worked with is not sent together with others: on its way it is there several
/// times, as the record, as what is written, and as the statement of that.
const BATCH_WEIGHT_MAX: usize = weight::TOGETHER_MAX / 2;
/// Writes that landed and wait for a seal, at most about so many.
const SEAL_EVERY_WRITES: u64 = 1_000;
/// A batch faster than this may grow, one slower than the second shrinks.
const BATCH_FAST: Duration = Duration::from_secs(2);
const BATCH_SLOW: Duration = Duration::from_secs(10);

/// One write on its way.
pub(super) struct Sending {
    pub(super) key: RecordKey,
    pub(super) number: u64,
    pub(super) write: Write,
    /// What is archived before a delete.
    pub(super) archive: Option<(String, Document)>,
}

/// Records that are tried again after the reading in this round.
#[derive(Default)]
struct NotSent {
    /// Others were ahead of them.
    missed: Vec<RecordKey>,
    /// As [`Planned::unread`].
    unread: Vec<RecordKey>,
}

/// What becomes of some records that are to be sent.
#[derive(Default)]
struct Planned {
    sending: Vec<Sending>,
    /// They did not fit.
    rest: Vec<RecordKey>,
    /// They wait for records that are to be read again.
    unread: Vec<RecordKey>,
}

impl Sending {
    /// Roughly what goes over the wire, and what it takes while it is worked with.
    fn size(&self) -> Size {
        let mut size = Size::default();
        match &self.write {
            Write::Insert { document, .. } => size.add(document),
            Write::Update { changes, .. } => {
                for value in changes.iter().flat_map(|change| [&change.from, &change.to]).flatten() {
                    size.add(&doc! {"": value.clone()});
                }
            }
            Write::Replace { base, document, .. } => [base, document].into_iter().for_each(|d| size.add(d)),
            Write::Delete { base, .. } => size.add(base),
        }
        if let Some((_, row)) = &self.archive {
            size.add(row);
        }
        size
    }
}

/// Size of what is sent: bytes, and what it takes decoded ([`weight::of_decoded`]).
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    bytes: usize,
    weight: usize,
}

impl Size {
    fn add(&mut self, document: &Document) {
        if let Ok(raw) = RawDocumentBuf::try_from(document) {
            self.bytes += raw.as_bytes().len();
            self.weight += weight::of_decoded(&raw);
        }
    }

    fn is_full(self) -> bool {
        self.bytes > BATCH_BYTES_MAX || self.weight > BATCH_WEIGHT_MAX
    }
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Size) {
        self.bytes += other.bytes;
        self.weight += other.weight;
    }
}

impl Round<'_> {
    /// Sends what was edited here. Returns what to say if many deletes wait for the operator.
    pub(crate) async fn push(
        &mut self,
        central: &mut dyn Central,
        node: &str,
    ) -> Result<Option<String>, RoundError> {
        let held_back = HeldBack::now(&*self.store.read()?)?;
        let mut after: Option<(u8, u64, RecordKey)> = None;
        loop {
            if self.beside.as_ref().is_some_and(CancellationToken::is_cancelled) {
                return Ok(None);
            }
            let from = after.as_ref().map(|(rank, sequence, key)| (*rank, *sequence, key));
            let mut pending = self.store.read()?.pending(from, self.batch_writes)?;
            // One rank at a time: nothing arrives before what it refers to.
            let Some(first_rank) = pending.first().map(|(rank, ..)| *rank) else {
                return Ok(held_back.message);
            };
            pending.retain(|(rank, ..)| *rank == first_rank);
            after = pending.last().map(|(rank, sequence, pending)| (*rank, *sequence, pending.key.clone()));
            if first_rank > PUSH_RANK_MAX {
                pending.retain(|(_, sequence, pending)| !held_back.waits(&pending.key, *sequence));
            }
            let mut keys: Vec<RecordKey> = pending.into_iter().map(|(.., pending)| pending.key).collect();
            // What cannot be read stays as it is, and is not sent.
            let read = self.bring_together_first(central, &keys).await;
            self.note_unread(read)?;
            let mut missed = 0;
            for _ in 0..PUSH_TRIES_MAX {
                let left = self.push_keys(central, node, keys).await?;
                missed = left.missed.len();
                // Those who wait for what is unread are noted.
                keys = left.missed;
                keys.extend(left.unread);
                if keys.is_empty() || self.beside.is_some() || self.unread.is_some() {
                    break;
                }
                let read = self.reread(central).await;
                self.note_unread(read)?;
            }
            self.missed += missed;
            if self.store.read()?.landed_count()? >= SEAL_EVERY_WRITES {
                self.seal_or_note(central).await?;
            }
        }
    }

    /// Sends what these records need.
    async fn push_keys(
        &mut self,
        central: &mut dyn Central,
        node: &str,
        keys: Vec<RecordKey>,
    ) -> Result<NotSent, RoundError> {
        let (mut not_sent, mut left) = (NotSent::default(), keys);
        while !left.is_empty() {
            let (keys, kept_back) = self.with_people_as_known(central, left).await?;
            not_sent.missed.extend(kept_back);
            let Planned { sending, rest, unread } = self.open_intents(node, central.moment(), keys).await?;
            left = rest;
            not_sent.unread.extend(unread);
            if sending.is_empty() {
                continue;
            }
            step("push.intents");
            let sending = self.archive(central, sending).await?;
            let started = tokio::time::Instant::now();
            let writes: Vec<Write> = sending.iter().map(|sending| sending.write.clone()).collect();
            let sent = apart::write(central, &writes).await;
            match &sent {
                Ok(sent) if !sent.is_apart => self.adapt_batch(started.elapsed(), true),
                Err(failure) if !failure.is_about_call() => self.adapt_batch(started.elapsed(), false),
                // It says nothing about the line.
                Ok(_) | Err(_) => {}
            }
            // Of each record only the code is kept; the round says where that came from.
            let fault = central.take_fault();
            let Sent { written, failure, alone, .. } = sent?;
            if let Some(fault) = alone.or(fault) {
                let is_answered =
                    |answer: &Written| matches!(answer, Written::Refused { .. } | Written::Faulty { .. });
                let is_taken = !written.iter().any(is_answered);
                self.note_aside(if is_taken { NOT_CONFIRMED } else { NOT_TAKEN }, &fault);
            }
            self.unsent = self.unsent.take().or(failure);
            step("push.sent");
            not_sent.missed.extend(self.settle_sent(sending, written, central).await?);
            step("push.settled");
        }
        Ok(not_sent)
    }

    /// Notes durably what is about to be sent.
    async fn open_intents(
        &mut self,
        node: &str,
        now: Option<Moment>,
        keys: Vec<RecordKey>,
    ) -> Result<Planned, RoundError> {
        let (node, is_read_beside, is_swept) = (node.to_owned(), self.beside.is_some(), self.is_swept);
        let (planned, tally) = self
            .store
            .transact(move |tx| -> Result<_, StoreError> {
                let (mut planned, mut size, mut tally) =
                    (Planned::default(), Size::default(), Tally::default());
                let mut undecided = ThereOnly::default();
                for key in &keys {
                    if size.is_full() {
                        planned.rest.push(key.clone());
                        continue;
                    }
                    let sending = tx.sparing(key, |tx| {
                        match unread_for(tx, key, is_swept)? {
                            // What reads beside this has it sent then.
                            Some(Unread::Records) if !is_read_beside => planned.unread.push(key.clone()),
                            Some(_) => {}
                            None if is_read_beside && is_read_first(tx, key)? => {}
                            None => return plan(tx, key, (&node, now), &mut undecided, &mut tally),
                        }
                        Ok(None)
                    })?;
                    // One that waits for a damaged row holds nobody else up.
                    if let Some(sending) = sending.flatten() {
                        size += sending.size();
                        planned.sending.push(sending);
                    }
                }
                Ok((planned, tally))
            })
            .await?;
        self.tally += tally;
        Ok(planned)
    }

    async fn settle_sent(
        &mut self,
        sending: Vec<Sending>,
        mut written: Vec<Written>,
        central: &mut dyn Central,
    ) -> Result<Vec<RecordKey>, RoundError> {
        let archives: Vec<(String, ArchiveState)> = sending
            .iter()
            .zip(&written)
            .filter_map(|(sending, written)| match (&sending.archive, written) {
                (Some((id, _)), Written::Hit) => Some((id.clone(), ArchiveState::Done)),
                (Some((id, _)), Written::Miss | Written::Refused { .. }) => {
                    Some((id.clone(), ArchiveState::Void))
                }
                _ => None,
            })
            .collect();
        let unsettled = self.settle_archives(central, archives).await?;
        for (sending, written) in sending.iter().zip(&mut written) {
            if sending.archive.as_ref().is_some_and(|(id, _)| unsettled.contains(id)) {
                *written = Written::Unknown;
            }
        }
        self.unfinished += written.iter().filter(|written| is_open(written)).count();
        let (tally, missed) = self
            .store
            .transact(move |tx| -> Result<(Tally, Vec<RecordKey>), StoreError> {
                let (mut tally, mut missed) = (Tally::default(), Vec::new());
                for (sending, written) in sending.iter().zip(&written) {
                    // It stays open.
                    tx.sparing(&sending.key, |tx| settle_one(tx, sending, written, &mut tally, &mut missed))?;
                }
                Ok((tally, missed))
            })
            .await?;
        self.tally += tally;
        Ok(missed)
    }

    fn adapt_batch(&mut self, elapsed: Duration, is_answered: bool) {
        self.batch_writes = if !is_answered || elapsed > BATCH_SLOW {
            (self.batch_writes / 2).max(BATCH_WRITES_MIN)
        } else if elapsed < BATCH_FAST {
            (self.batch_writes * 2).min(BATCH_WRITES_MAX)
        } else {
            self.batch_writes
        };
    }
}

/// What has to be sent for a record, noted as an intent; `None` if nothing has to, or not now.
fn plan(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    (node, now): (&str, Option<Moment>),
    of_accounts: &mut ThereOnly,
    tally: &mut Tally,
) -> Result<Option<Sending>, StoreError> {
    if tx.is_clean(key)? || tx.has_intent(key)? || tx.is_dead(key)? {
        return Ok(None);
    }
    if !planted(Flaw::PersonNotAwaited) {
        ownerless::hold_if_taken(tx, key, of_accounts, tally)?;
        hold_if_rewritten(tx, key, tally)?;
    }
    let mut waiting = undecided::waits(tx, key)?;
    if waiting.is_none() && ownerless::meets_deleted_of_another(tx, key, of_accounts)? {
        let account = fold_account(&key.id);
        waiting = Some(Waiting { key: key.clone(), account, why: WaitReason::Leaving });
    }
    match waiting.filter(|_| !planted(Flaw::HeldPagesPushed)) {
        Some(waiting) => {
            tx.put_waiting(&waiting)?;
            return Ok(None);
        }
        None => tx.clear_waiting(key)?,
    }
    if tx.to_bring_together(key)?.is_some() {
        return Ok(None);
    }
    spell_owner_as_stored(tx, key)?;
    let (base, document) = (tx.base(key)?, tx.document(key)?);
    let (write, intent) = match (base, document) {
        (Base::Absent, None) => {
            tx.put(key, None, &Base::Absent, &Actor::Centre)?;
            return Ok(None);
        }
        (Base::Absent, Some(document)) => {
            (Write::Insert { key: key.clone(), document: document.clone() }, IntentWrite::Insert(document))
        }
        (Base::Document(base), Some(document)) => match diff(&base, &document) {
            Diff::Same => {
                tx.put(key, Some(&document), &Base::Document(document.clone()), &Actor::Centre)?;
                return Ok(None);
            }
            // What somebody adds for the one person meanwhile must not go to the other one with it.
            Diff::Fields(changes) if !gives(key.kind, &changes) => {
                let compared = with_owner(key.kind, &base, changes.clone());
                (Write::Update { key: key.clone(), changes: compared }, IntentWrite::Update(changes))
            }
            Diff::Fields(_) | Diff::Whole => (
                Write::Replace { key: key.clone(), base, document: document.clone() },
                IntentWrite::Replace(document),
            ),
        },
        (Base::Document(base), None) if key.kind == Kind::Person && tx.has_dependents(&key.id)? => {
            take_back_delete(tx, key, base)?;
            return Ok(None);
        }
        (Base::Document(base), None) => return plan_delete(tx, key, node, now, base).map(Some),
    };
    let number = tx.next_push_number()?;
    let author = tx.author_of(key)?;
    tx.open_intent(key, &Intent { number, after: now, author, write: intent })?;
    Ok(Some(Sending { key: key.clone(), number, write, archive: None }))
}

/// Whether the changes give the record to another person.
fn gives(kind: Kind, changes: &[Change]) -> bool {
    match kind.schema().owner {
        Owner::Field(field) => {
            changes.iter().any(|change| change.path.first().is_some_and(|path| path == field))
        }
        Owner::Nobody | Owner::Itself => false,
    }
}

/// The changes, and that the record still belongs to the same person: whose it is, is part of what it is, and somebody may
/// move it while the write is on its way. The owner is set to what it is, which changes nothing and is not told.
fn with_owner(kind: Kind, base: &Document, mut changes: Vec<Change>) -> Vec<Change> {
    if let Owner::Field(field) = kind.schema().owner
        && let Some(owner) = base.get(field)
        && !planted(Flaw::OwnersMerged)
    {
        changes.push(Change {
            path: vec![field.to_owned()],
            from: Some(owner.clone()),
            to: Some(owner.clone()),
        });
    }
    changes
}

/// A person was deleted here, and meanwhile records of theirs have come from elsewhere: the person stays, and staff
/// see that the delete was not carried out. What had not been sent of them is in the trash; who was closed stays closed.
fn take_back_delete(tx: &mut Tx<'_>, key: &RecordKey, base: Document) -> Result<(), StoreError> {
    let clash = Clash {
        path: Vec::new(),
        base: Some(Bson::Document(base.clone())),
        local: None,
        remote: Some(Bson::Document(base.clone())),
        stands: Side::Remote,
    };
    tx.add_conflict(key, &clash, Some(&base))?;
    let was_closed = tx.pending_trash(key)?.is_some_and(|deleted| !is_active(&deleted.document));
    let by = Actor::read(&tx.author_of(key)?).unwrap_or(Actor::Node);
    tx.put(key, Some(&base), &Base::Document(base.clone()), &Actor::Centre)?;
    if was_closed && is_active(&base) {
        // That was not sent either, and the delete was to keep them out.
        let mut closed = base.clone();
        closed.insert(ACTIVE, false);
        tx.edit(key, Some(&closed), &by)?;
        tx.set_closed_here(&key.id, true, &by)?;
    }
    // The person may be gone there too.
    tx.ask_again(key, Reread::default())?;
    tx.settle_trash(key, TrashState::Done)
}

fn plan_delete(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    node: &str,
    now: Option<Moment>,
    base: Document,
) -> Result<Sending, StoreError> {
    let number = tx.next_push_number()?;
    let schema = key.kind.schema();
    // The same for every try.
    let edit = tx.edit_number(key)?;
    let archive = format!("{}/{}/{node}/{edit}", schema.collection, key.id);
    let row = doc! {
        "_id": &archive,
        "collection": schema.collection,
        "id": &key.id,
        "node": node,
        "number": number as i64,
        "document": without_secrets(schema, &base),
        "state": "pending",
        "at": bson::DateTime::from_millis(tx.now_ms()),
    };
    let delete = IntentWrite::Delete { archive: archive.clone() };
    let author = tx.author_of(key)?;
    tx.open_intent(key, &Intent { number, after: now, author, write: delete })?;
    let write = Write::Delete { key: key.clone(), base };
    Ok(Sending { key: key.clone(), number, write, archive: Some((archive, row)) })
}

/// Settles a write that did not land. One that did keeps its intent until the next seal.
pub(super) fn settle_one(
    tx: &mut Tx<'_>,
    sending: &Sending,
    written: &Written,
    tally: &mut Tally,
    missed: &mut Vec<RecordKey>,
) -> Result<(), StoreError> {
    let key = &sending.key;
    let written = &apart::patient(tx, key, written)?;
    // Somebody else's, then, if this one is refused.
    let is_told = tx.has_landed(key)?;
    let is_open = match written {
        // It may have happened: the next round finds out.
        Written::Unknown | Written::Faulty { .. } => false,
        Written::Hit if planted(Flaw::NeverSealed) => tx.settle_intent(key, sending.number, true)?.is_some(),
        Written::Hit => tx.note_landed(key, sending.number, Landing::Acknowledged)?,
        Written::Miss | Written::Refused { .. } => tx.settle_intent(key, sending.number, false)?.is_some(),
    };
    if !is_open {
        return Ok(());
    }
    match written {
        Written::Hit => tally.pushed += 1,
        Written::Miss => {
            tx.ask_again(key, Reread::default())?;
            missed.push(key.clone());
        }
        Written::Refused { .. } if is_told => tx.ask_again(key, Reread::default())?,
        // Clean by now: whoever made the refused edit has taken it back.
        Written::Refused { code, message } if !tx.is_clean(key)? => {
            tally.dead += 1;
            tx.put_dead(&DeadLetter {
                key: key.clone(),
                direction: "push",
                code: *code,
                reason: message.clone(),
                at_ms: tx.now_ms(),
            })?;
        }
        Written::Refused { .. } | Written::Unknown | Written::Faulty { .. } => {}
    }
    Ok(())
}

/// Whether the next round has to find out what became of it.
fn is_open(written: &Written) -> bool {
    matches!(written, Written::Unknown | Written::Faulty { .. })
}
