//! Floor 3. SETTLE: what became of writes whose answer was lost. And reading records afresh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::Document;

use super::evidence::{doubted, landed};
use super::merge_in::{merge_in, note_unreadable, take_in};
use super::people_first::{PeopleThere, Read, waits_for_people};
use super::put_back::note_put_back;
use super::round::{Round, RoundError, Tally};
use super::step;
use crate::central::{ArchiveState, Central, CentralError, Fetched};
use crate::domain::access::Actor;
use crate::domain::json::weight;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::verbatim::Verbatim;
use crate::store::{Base, IntentWrite, OpenWrite, Reread, StoreError, Tx};

use super::drain::Source;

/// Ids asked for in one read.
const FETCH_IDS_MAX: usize = 100;
/// Rounds in which a record that is asked for alone may fail to arrive.
const PULL_TRIES_MAX: u8 = 3;

impl Round<'_> {
    /// SETTLE: what the drained feed did not show did not land. Where it cannot tell, the record is read: the
    /// centre holds what was sent, so it landed; anything else, and it did not, or was overwritten by someone
    /// who saw it.
    pub(crate) async fn settle(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        let snapshot = self.store.read()?;
        let (mut given_up, mut doubtful) = (Vec::new(), BTreeMap::<Kind, Vec<(RecordKey, OpenWrite)>>::new());
        for (key, open) in snapshot.intents()? {
            let is_unclear = snapshot.reread(&key)?.is_some_and(|why| why.is_unclear);
            if self.source == Source::Sweep || is_unclear {
                doubtful.entry(key.kind).or_default().push((key, open));
            } else {
                given_up.push((key, open));
            }
        }
        drop(snapshot);
        self.give_up(central, given_up).await?;
        for (kind, mut writes) in doubtful {
            let keys = writes.iter().map(|(key, _)| key.clone()).collect();
            let due: BTreeSet<RecordKey> = self.not_too_early(keys).await?.into_iter().collect();
            writes.retain(|(key, _)| due.contains(key));
            for batch in writes.chunks(self.fetch_ids()) {
                self.settle_batch(central, kind, batch).await?;
            }
        }
        Ok(())
    }

    /// These writes did not land.
    async fn give_up(
        &mut self,
        central: &mut dyn Central,
        writes: Vec<(RecordKey, OpenWrite)>,
    ) -> Result<(), RoundError> {
        if writes.is_empty() {
            return Ok(());
        }
        let archives: Vec<_> =
            writes.iter().filter_map(|(_, open)| archived(open, ArchiveState::Void)).collect();
        let unsettled = self.settle_archives(central, archives).await?;
        self.unfinished += unsettled.len();
        let settled: Vec<_> =
            writes.into_iter().filter(|(_, open)| !is_unsettled(open.archive(), &unsettled)).collect();
        for part in weight::parts(settled, |(_, open)| open.weight) {
            self.store
                .transact(move |tx| -> Result<(), StoreError> {
                    for (key, open) in &part {
                        // A row of the record may be damaged: it waits, and nobody else does.
                        tx.sparing(key, |tx| tx.give_up_intent(key, open.number))?;
                    }
                    Ok(())
                })
                .await?;
        }
        step("settle.given_up");
        Ok(())
    }

    async fn settle_batch(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        batch: &[(RecordKey, OpenWrite)],
    ) -> Result<(), RoundError> {
        let mut open = batch.to_vec();
        while !open.is_empty() {
            let ids: Vec<String> = open.iter().map(|(key, _)| key.id.clone()).collect();
            let mut found = by_id(self.fetch(central, kind, &ids).await?);
            step("settle.read");
            let deferred = deferred_in(&found);
            // An answer says only of the records that it was asked about that they are gone.
            let answered;
            (open, answered) = open.into_iter().partition(|(key, _)| deferred.contains(&key.id));
            self.settle_found(central, answered, &mut found).await?;
        }
        Ok(())
    }

    /// Settles writes by an answer that defers none of their records.
    async fn settle_found(
        &mut self,
        central: &mut dyn Central,
        answered: Vec<(RecordKey, OpenWrite)>,
        found: &mut BTreeMap<String, Remote>,
    ) -> Result<(), RoundError> {
        let (mut settled, mut unreadable, mut archives) = (Vec::new(), Vec::new(), Vec::new());
        for (key, open) in answered {
            let remote = match found.remove(&key.id) {
                Some(Remote::Deferred) => continue,
                Some(Remote::Unreadable(reason)) => {
                    // The write stays open until somebody can tell what became of it.
                    unreadable.push((key, reason));
                    continue;
                }
                Some(Remote::Document(document)) => Some(document),
                None => None,
            };
            // A delete has landed if nothing is there.
            let state = if remote.is_none() { ArchiveState::Done } else { ArchiveState::Void };
            archives.extend(archived(&open, state));
            settled.push((key, open, remote));
        }
        let read = settled.iter().map(|(key, _, remote)| (key, remote.as_ref().map(Verbatim::bytes)));
        let people = self.people_there(central, read.collect()).await?;
        let unsettled = self.settle_archives(central, archives).await?;
        self.unfinished += unsettled.len();
        settled.retain(|(_, open, _)| !is_unsettled(open.archive(), &unsettled));
        let mut tally = self
            .store
            .transact(move |tx| -> Result<Tally, StoreError> {
                let mut tally = Tally::default();
                for (key, reason) in &unreadable {
                    let noted = tx.sparing(key, |tx| note_unreadable(tx, key, reason))?;
                    tally += noted.unwrap_or_default();
                }
                Ok(tally)
            })
            .await?;
        let (lease, source, people) = (self.lease_number(), self.source, Arc::new(people));
        let weight_of = |(_, open, remote): &(RecordKey, OpenWrite, Option<Verbatim>)| {
            open.weight + remote.as_ref().map_or(0, Verbatim::weight)
        };
        for part in weight::parts(settled, weight_of) {
            let people = Arc::clone(&people);
            let (settled, has_put_off) = self
                .store
                .transact(move |tx| -> Result<(Tally, bool), StoreError> {
                    let (mut tally, mut has_put_off) = (Tally::default(), false);
                    for (key, open, remote) in &part {
                        let read = (remote.as_ref(), people.as_ref());
                        // One whose row is damaged stays open.
                        match tx
                            .sparing(key, |tx| settle_read(tx, key, open.number, read, (source, lease)))?
                        {
                            Some(Some(settled)) => tally += settled,
                            Some(None) => has_put_off = true,
                            None => {}
                        }
                    }
                    Ok((tally, has_put_off))
                })
                .await?;
            tally += settled;
            self.has_put_off |= has_put_off;
        }
        self.tally += tally;
        step("settle.applied");
        Ok(())
    }

    /// [`Tx::touches`] before a read is sent.
    pub(crate) async fn read_now(&self) -> Result<u64, StoreError> {
        self.store.transact(|tx| -> Result<u64, StoreError> { Ok(tx.touches()) }).await
    }

    /// Ids to ask for in one read: no more than the link was seen to carry.
    pub(crate) fn fetch_ids(&self) -> usize {
        self.batch_documents.min(FETCH_IDS_MAX)
    }

    /// Reads records; how many are asked for together follows the link.
    pub(crate) async fn fetch(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        ids: &[String],
    ) -> Result<Vec<Fetched>, CentralError> {
        let started = tokio::time::Instant::now();
        let fetched = central.fetch(kind, ids).await;
        let is_full = ids.len() >= self.fetch_ids();
        if fetched.is_err() || is_full {
            self.fit_reads(fetched.is_ok(), started.elapsed());
        }
        fetched
    }

    /// Reads and merges the records that are to be read again. One that is large, or that failed before,
    /// comes after the others and alone.
    pub(crate) async fn reread(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        if self.is_disk_short() {
            return Ok(());
        }
        let mut after: Option<RecordKey> = None;
        let mut alone = Vec::new();
        loop {
            let rows = self.store.read()?.to_read_again(after.as_ref(), FETCH_IDS_MAX)?;
            let Some((last, _)) = rows.last() else {
                break;
            };
            after = Some(last.clone());
            let keys = rows.iter().map(|(key, _)| key.clone()).collect();
            let due: BTreeSet<RecordKey> = self.not_too_early(keys).await?.into_iter().collect();
            let mut by_kind: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
            for (key, why) in rows.into_iter().filter(|(key, _)| due.contains(key)) {
                if why.is_alone || why.tries > 0 {
                    alone.push((key, why));
                } else {
                    by_kind.entry(key.kind).or_default().push(key.id);
                }
            }
            for (kind, ids) in by_kind {
                for ids in ids.chunks(self.fetch_ids()) {
                    self.reread_batch(central, kind, ids).await?;
                }
            }
        }
        alone.sort_by_key(|(_, why)| why.tries);
        for (key, _) in alone {
            self.reread_batch(central, key.kind, std::slice::from_ref(&key.id)).await?;
        }
        Ok(())
    }

    async fn reread_batch(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        ids: &[String],
    ) -> Result<(), RoundError> {
        let mut left = self.reread_some(central, kind, ids).await?;
        while !left.is_empty() {
            left = self.reread_some(central, kind, &left).await?;
        }
        Ok(())
    }

    /// Returns the ids that are left to be asked for.
    async fn reread_some(
        &mut self,
        central: &mut dyn Central,
        kind: Kind,
        ids: &[String],
    ) -> Result<Vec<String>, RoundError> {
        let read_at = self.read_now().await?;
        let mut found = match self.fetch(central, kind, ids).await {
            Ok(fetched) => by_id(fetched),
            Err(error) => {
                if let [id] = ids {
                    self.count_failure(RecordKey::new(kind, id.as_str())).await?;
                }
                return Err(error.into());
            }
        };
        step("reread.read");
        let left = deferred_in(&found);
        let read = ids.iter().filter(|id| !left.contains(id));
        let remotes: Vec<(RecordKey, Option<Remote>)> =
            read.map(|id| (RecordKey::new(kind, id.as_str()), found.remove(id))).collect();
        let people = self.people_there(central, in_answer(&remotes)).await?;
        self.take_reread(remotes, people, read_at).await?;
        Ok(left)
    }

    /// Takes what was read of records that are noted as to be read again, a part after the other.
    pub(crate) async fn take_reread(
        &mut self,
        remotes: Vec<(RecordKey, Option<Remote>)>,
        people: PeopleThere,
        read_at: u64,
    ) -> Result<(), StoreError> {
        let people = Arc::new(people);
        for part in weight::parts(remotes, |(_, remote)| remote.as_ref().map_or(0, Remote::weight)) {
            let people = Arc::clone(&people);
            let tally = self
                .store
                .transact(move |tx| -> Result<Tally, StoreError> {
                    let mut tally = Tally::default();
                    for (key, remote) in &part {
                        // Still asked for otherwise: a write of it is on its way, or was when it was read.
                        if !tx.is_read_stale(key, read_at)? {
                            match tx.sparing(key, |tx| take(tx, key, remote.as_ref(), &people))? {
                                Some(taken) => tally += taken,
                                None => tx.note_stopped(key),
                            }
                        }
                    }
                    Ok(tally)
                })
                .await?;
            self.tally += tally;
            step("reread.applied");
        }
        Ok(())
    }

    /// A record that was asked for alone did not arrive. One that never does becomes a dead letter, so that
    /// the others go on.
    async fn count_failure(&mut self, key: RecordKey) -> Result<(), StoreError> {
        let tally = self
            .store
            .transact(move |tx| -> Result<Tally, StoreError> {
                let tries = tx.reread_of(&key)?.unwrap_or_default().tries + 1;
                if tries < PULL_TRIES_MAX {
                    tx.ask_again(&key, Reread { is_alone: true, tries, ..Reread::default() })?;
                    return Ok(Tally::default());
                }
                take_unreadable(tx, &key, "it did not arrive in three rounds")
            })
            .await?;
        self.tally += tally;
        Ok(())
    }
}

/// A record as the centre holds it.
pub(crate) enum Remote {
    Document(Verbatim),
    Unreadable(String),
    /// Not looked at: see [`Fetched::Deferred`].
    Deferred,
}

impl Remote {
    /// What it takes while it is worked with, see [`Verbatim::weight`].
    pub(crate) fn weight(&self) -> usize {
        match self {
            Remote::Document(document) => document.weight(),
            Remote::Unreadable(_) | Remote::Deferred => 0,
        }
    }
}

pub(crate) fn by_id(fetched: Vec<Fetched>) -> BTreeMap<String, Remote> {
    let remote = |fetched| match fetched {
        Fetched::Document { id, document } => (id, Remote::Document(document)),
        Fetched::Unreadable { id, reason } => (id, Remote::Unreadable(reason)),
        Fetched::Deferred { id } => (id, Remote::Deferred),
    };
    fetched.into_iter().map(remote).collect()
}

/// Records of an answer, as people are looked for ([`super::people_first`]).
pub(super) fn in_answer(remotes: &[(RecordKey, Option<Remote>)]) -> Vec<Read<'_>> {
    let read = remotes.iter().filter_map(|(key, remote)| match remote {
        Some(Remote::Document(document)) => Some((key, Some(document.bytes()))),
        Some(Remote::Unreadable(_) | Remote::Deferred) => None,
        None => Some((key, None)),
    });
    read.collect()
}

/// The ids that an answer of the centre names as not looked at.
pub(crate) fn deferred_in(found: &BTreeMap<String, Remote>) -> Vec<String> {
    let deferred = found.iter().filter(|(_, remote)| matches!(remote, Remote::Deferred));
    deferred.map(|(id, _)| id.clone()).collect()
}

/// Takes what a read showed of a record, or that it is gone; the caller has made sure that the read is not
/// stale.
pub(crate) fn take(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    remote: Option<&Remote>,
    people: &PeopleThere,
) -> Result<Tally, StoreError> {
    match remote {
        Some(Remote::Document(document)) => take_document(tx, key, document, people),
        Some(Remote::Unreadable(reason)) => take_unreadable(tx, key, reason),
        Some(Remote::Deferred) => {
            tx.ask_again(key, Reread::default())?;
            Ok(Tally::default())
        }
        None if waits_for_people(tx, (key, None), people)? => Ok(Tally::default()),
        None => {
            let is_told = tx.reread_of(key)?.is_some_and(|why| why.is_told);
            tx.read_again(key)?;
            let taken = merge_in(tx, key, None)?;
            if is_told {
                note_told(tx, key)?;
            }
            Ok(taken)
        }
    }
}

/// The change feed has told that the record was deleted. That is remembered until the delete is carried out.
pub(super) fn note_told(tx: &mut Tx<'_>, key: &RecordKey) -> Result<(), StoreError> {
    if let Some(why) = tx.reread_of(key)?.filter(|why| why.is_deleted) {
        tx.ask_again(key, Reread { is_told: true, ..why })?;
    }
    tx.note_vanished_told(key)
}

/// [`take`] of a document that was read.
pub(crate) fn take_document(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    document: &Verbatim,
    people: &PeopleThere,
) -> Result<Tally, StoreError> {
    if waits_for_people(tx, (key, Some(document.bytes())), people)? {
        return Ok(Tally::default());
    }
    let Some(mut tally) = note_if_put_back(tx, key, document)? else {
        return Ok(Tally::default());
    };
    tx.read_again(key)?;
    tally += take_in(tx, key, document)?;
    Ok(tally)
}

/// [`take`] of a document that cannot be read. It is there: nothing is deleted here because of it, and nothing that is
/// known of a delete is forgotten.
pub(crate) fn take_unreadable(tx: &mut Tx<'_>, key: &RecordKey, reason: &str) -> Result<Tally, StoreError> {
    tx.read_unreadable(key)?;
    note_unreadable(tx, key, reason)
}

/// Compares a record that was deleted and is there. `None` if a damaged row is in the way: then nothing is
/// concluded, and the record is asked for again.
fn note_if_put_back(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    remote: &Verbatim,
) -> Result<Option<Tally>, StoreError> {
    // One that had vanished is compared by the merge.
    let is_due = tx.reread_of(key)?.is_some_and(|why| why.is_deleted) && !tx.is_vanished(key)?;
    if !is_due {
        return Ok(Some(Tally::default()));
    }
    let noted = tx.unless_damaged_first(|tx| note_put_back(tx, key, &remote.decode()))?;
    if noted.is_none() {
        tx.ask_again(key, Reread::default())?;
    }
    Ok(noted)
}

/// What becomes of the archived body of a delete.
fn archived(open: &OpenWrite, state: ArchiveState) -> Option<(String, ArchiveState)> {
    open.archive().map(|archive| (archive.to_owned(), state))
}

/// Whether the archived body of this delete does not say yet how it ended.
pub(super) fn is_unsettled(archive: Option<&str>, unsettled: &BTreeSet<String>) -> bool {
    archive.is_some_and(|archive| unsettled.contains(archive))
}

/// Settles the write with this number by what a later read showed, and merges that. `None` if its people have to be
/// read again before.
fn settle_read(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    number: u64,
    (read, people): (Option<&Verbatim>, &PeopleThere),
    (source, lease): (Source, i64),
) -> Result<Option<Tally>, StoreError> {
    let Some(intent) = tx.intent(key)?.filter(|intent| intent.number == number) else {
        return Ok(Some(Tally::default()));
    };
    // The write stays open until it is known whose the record is.
    if waits_for_people(tx, (key, read.map(Verbatim::bytes)), people)? {
        return Ok(None);
    }
    let decoded = read.map(Verbatim::decode);
    let remote = decoded.as_ref();
    let has_landed = landed(&intent.write, remote);
    let is_open = match has_landed {
        true => tx.settle_intent(key, number, true)?.is_some(),
        false => tx.give_up_intent(key, number)?,
    };
    if !is_open {
        return Ok(Some(Tally::default()));
    }
    if has_landed {
        // The feed has passed the place where it would tell of it.
        tx.note_sent(key, &intent, lease, false)?;
    } else if let Some(remote) = remote {
        let local = tx.document(key)?;
        if let Some(base) = doubted(key.kind, &intent.write, &tx.base(key)?, local.as_ref(), remote) {
            tx.put(key, local.as_ref(), &Base::Document(base), &Actor::Centre)?;
        }
    } else if let (IntentWrite::Insert(_), Source::Feed) = (&intent.write, source) {
        // The history has a gap: the record may have been there and been deleted by somebody who saw it. It is
        // sent again, and the delete is shown as what did not stand. At a server that keeps no history every
        // insert that was cut off would end like this, so there it just goes again.
        let local = tx.document(key)?;
        tx.put(key, local.as_ref(), &Base::Document(Document::new()), &Actor::Centre)?;
    }
    let mut tally = Tally { pushed: u64::from(has_landed), ..Tally::default() };
    // `doubted` may have changed the base, and hides nothing of a record that was put back. Conflicts follow from the writes
    // that this node remembers, not from the base. The base differs only in the paths of the doubted write: each holds
    // what was there before, or what was sent in its place. A record that was inserted had no base and has one now, so
    // more is compared. The merge sends the doubted write again, or makes it a conflict.
    // The read came after the write that it settles, so it may be merged; and after the lease.
    if let Some(read) = read {
        let Some(back) = note_if_put_back(tx, key, read)? else {
            return Ok(Some(tally));
        };
        tally += back;
    }
    tx.read_again(key)?;
    tx.note_taken(key)?;
    tally += merge_in(tx, key, remote)?;
    Ok(Some(tally))
}
