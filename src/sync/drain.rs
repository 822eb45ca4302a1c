//! Floor 3. LEASE and DRAIN: what happened at the centre since the last round, by its change feed.
//!
//! Hides tokens, the barrier, and which events are only the echo of this node's own writes. The position in
//! the feed is saved in the transaction that takes what it told, or that notes it as to be read again. The
//! feed has told everything once it shows the lease that this round has just taken: an empty answer proves
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::evidence::{Evidence, is_echo, shows, still_stands};
use super::no_feed::{self, Standing};
use super::people_first::PeopleThere;
use super::position::{forget_position, lose_history, save_token};
use super::pull::{Remote, by_id, in_answer, is_unsettled, take};
use super::round::{Round, RoundError, Tally};
use super::scan::Reason;
use super::{lease, scan, step};
use crate::central::{
    ArchiveState, Central, CentralError, Changes, Effect, Event, Feed, Fetched, Lease, Moment, Token, Watched,
};
use crate::domain::json::weight;
use crate::domain::record::{Kind, RecordKey};
use crate::flaw::{Flaw, planted};
use crate::store::{Intent, Landing, OpenWrite, Reread, Sent, Snapshot, StoreError, Tx, unless_damaged};

/// How often a round begins again because the feed broke.
const DRAIN_TRIES_MAX: usize = 3;
/// Bytes of documents after which what else a batch of events is about is read later.
const NEWS_BYTES_MAX: usize = 4 << 20;
/// Longest that the feed may tell nothing while the barrier is still to come.
const BARRIER_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Where the round's news comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The change feed: what it does not tell did not happen.
    Feed,
    /// The centre keeps no history: everything has to be looked at.
    Sweep,
}

/// A round that has its lease and knows what happened until then.
pub(crate) struct Begun {
    /// The node's id at the centre.
    pub(crate) node: String,
    /// Stands at the barrier.
    pub(crate) feed: Option<Box<dyn Feed>>,
    /// Why what happened is not known in full, if it is not. Nothing must be concluded from what was not told then; local
    /// edits can be sent all the same, because each is compared with what the centre holds.
    pub(crate) cut: Option<RoundError>,
}

impl Begun {
    fn new(node: String, feed: Option<Box<dyn Feed>>) -> Begun {
        Begun { node, feed, cut: None }
    }

    fn cut(node: String, error: impl Into<RoundError>) -> Begun {
        Begun { node, feed: None, cut: Some(error.into()) }
    }
}

/// What became of a drain.
enum Drained {
    ToBarrier(Box<dyn Feed>),
    /// Its share of the round's time is used up.
    Slow,
    Lost,
    Unsupported,
    /// The centre answers the feed with an error that a new feed may not meet.
    Refused(CentralError),
}

/// What a batch of events means, as the store is now.
#[derive(Default)]
struct Heard {
    /// Open writes that the events show, with their numbers.
    landed: Vec<(RecordKey, OpenWrite)>,
    /// Own writes of earlier rounds, with their numbers among those that landed.
    echoes: Vec<(RecordKey, u64)>,
    /// Records of which something else happened.
    news: BTreeSet<RecordKey>,
    /// Records whose open write may be among what happened.
    unclear: BTreeSet<RecordKey>,
    /// Records that somebody else has deleted, whatever became of them later.
    deleted: BTreeSet<RecordKey>,
}

impl Heard {
    fn add(&mut self, other: Heard) {
        self.landed.extend(other.landed);
        self.echoes.extend(other.echoes);
        self.news.extend(other.news);
        self.unclear.extend(other.unclear);
        self.deleted.extend(other.deleted);
    }
}

impl Round<'_> {
    /// Takes the lease and everything that happened until then.
    pub(crate) async fn lease_and_drain(&mut self, central: &mut dyn Central) -> Result<Begun, RoundError> {
        for _ in 0..DRAIN_TRIES_MAX {
            let begun = match self.ensure_token(central).await {
                Err(RoundError::Central(error)) => Err(error),
                begun => Ok(begun?),
            };
            let announcement = self.announcement()?;
            let (node, mut lease) = match lease::take(self.store, central, &announcement).await {
                Ok(taken) => taken,
                // Of two failures of the centre the first says more.
                Err(RoundError::Central(error)) => return Err(begun.err().unwrap_or(error).into()),
                Err(error) => return Err(error),
            };
            self.hold_lease(lease.clone(), central);
            if let Err(error) = begun {
                // Nobody may watch who is not allowed to: somebody has to mend that.
                let is_lasting = matches!(error, CentralError::Refused(_));
                if is_lasting || !self.note_stalled(None).await? {
                    return Ok(Begun::cut(node, error));
                }
                self.read_all_instead(&error).await?;
            }
            if self.source == Source::Sweep {
                return Ok(Begun::new(node, None));
            }
            // A store that turned out to be a copy has no position any more.
            let Some(token) = self.saved_token()? else {
                continue;
            };
            if lease.number == lease::FIRST_NUMBER {
                // A row that is new does not show its lease in the feed; one that is changed does.
                (_, lease) = lease::take(self.store, central, &announcement).await?;
                self.hold_lease(lease.clone(), central);
            }
            self.is_draining = true;
            let deadline = self.reading_deadline();
            let draining = self.drain(central, &node, &lease, &token);
            let drained = tokio::time::timeout_at(deadline, draining).await;
            self.is_draining = false;
            let drained = match drained {
                Err(_) => Drained::Slow,
                Ok(Err(error @ RoundError::Central(_))) => return Ok(Begun::cut(node, error)),
                Ok(drained) => drained?,
            };
            match drained {
                Drained::ToBarrier(feed) => {
                    self.note_feed().await?;
                    return Ok(Begun::new(node, Some(feed)));
                }
                Drained::Slow => {
                    self.fit_reads(false, Duration::MAX);
                    self.note_stalled(Some(&token)).await?;
                    return Ok(Begun::cut(node, RoundError::ReadingSlow));
                }
                Drained::Refused(error) => {
                    if !self.note_stalled(Some(&token)).await? {
                        return Ok(Begun::cut(node, error));
                    }
                    self.read_all_instead(&error).await?;
                    return Ok(Begun::new(node, None));
                }
                Drained::Lost => {
                    tracing::warn!("the history of changes at the centre has a gap: looking at everything");
                    self.store.transact(|tx| lose_history(tx, Reason::Lost)).await?;
                }
                Drained::Unsupported => {
                    self.sweep_without_feed().await?;
                    return Ok(Begun::new(node, None));
                }
            }
        }
        // This round looks at everything instead; the next one asks for a position again.
        tracing::warn!("the history of changes at the centre breaks again and again");
        self.sweep_only().await?;
        let announcement = self.announcement()?;
        let (node, lease) = lease::take(self.store, central, &announcement).await?;
        self.hold_lease(lease, central);
        Ok(Begun::new(node, None))
    }

    /// Without a saved position, asks for one from now on, before the lease is taken: whatever happens
    /// later is told, and whatever happened before is found by the scan.
    async fn ensure_token(&mut self, central: &mut dyn Central) -> Result<(), RoundError> {
        self.source = Source::Feed;
        if self.saved_token()?.is_some() {
            return Ok(());
        }
        if self.is_reading_all_instead()? {
            self.source = Source::Sweep;
            return Ok(());
        }
        let node = lease::node_id(&*self.store.read()?)?.unwrap_or_default();
        let mut feed = match central.watch(&node, None, &[], self.batch_documents).await? {
            Watched::Open(feed) => feed,
            Watched::Lost => return Err(CentralError::Failed("its history breaks".into()).into()),
            Watched::Unsupported => return self.sweep_without_feed().await,
        };
        let mut token = feed.token();
        let opened = tokio::time::Instant::now();
        while token.is_none() {
            if opened.elapsed() > BARRIER_SILENCE_MAX {
                return Err(CentralError::Offline("its change feed gives no position".into()).into());
            }
            feed.next().await?;
            token = feed.token();
        }
        self.begin_position(token).await?;
        step("drain.begun");
        Ok(())
    }

    /// The centre has no feed at all.
    async fn sweep_without_feed(&mut self) -> Result<(), RoundError> {
        self.store.transact(|tx| no_feed::note(tx, Standing::None)).await?;
        self.sweep_only().await
    }

    /// The centre keeps no history; a position in one that it had means nothing any more.
    pub(super) async fn sweep_only(&mut self) -> Result<(), RoundError> {
        self.source = Source::Sweep;
        Ok(self
            .store
            .transact(|tx| -> Result<(), StoreError> {
                forget_position(tx)?;
                scan::begin_without_history(tx)
            })
            .await?)
    }

    async fn drain(
        &mut self,
        central: &mut dyn Central,
        node: &str,
        lease: &Lease,
        token: &Token,
    ) -> Result<Drained, RoundError> {
        let bodies: Vec<RecordKey> = self
            .store
            .read()?
            .intents()?
            .into_iter()
            .filter(|(_, open)| open.has_body())
            .map(|(key, _)| key)
            .collect();
        // The first answer may come with the opening.
        let (max, mut asked) = (self.batch_documents, tokio::time::Instant::now());
        let watched = central.watch(node, Some(token), &bodies, max).await;
        if watched.is_err() {
            self.fit_reads(false, asked.elapsed());
        }
        let mut feed = match watched {
            Ok(Watched::Open(feed)) => feed,
            Ok(Watched::Lost) => return Ok(Drained::Lost),
            Ok(Watched::Unsupported) => return Ok(Drained::Unsupported),
            Err(error) => return refused(error),
        };
        let (mut told, mut position) = (tokio::time::Instant::now(), feed.token());
        loop {
            let next = feed.next().await;
            if next.as_ref().map_or(true, |changes| changes.events.len() >= max) {
                self.fit_reads(next.is_ok(), asked.elapsed());
            }
            let changes = match next {
                Ok(changes) => changes,
                Err(error) => return refused(error),
            };
            step("drain.read");
            if changes.is_lost {
                return Ok(Drained::Lost);
            }
            // A position that moves shows that others' changes are being passed over.
            if !changes.events.is_empty() || feed.token() != position {
                (told, position) = (tokio::time::Instant::now(), feed.token());
            } else if told.elapsed() > BARRIER_SILENCE_MAX {
                return Err(CentralError::Offline("its change feed lags behind".into()).into());
            }
            let is_barrier = |event: &Event| matches!(event, Event::Lease(shown) if shown == lease);
            let is_done = changes.events.iter().any(is_barrier);
            self.take_changes(central, changes, feed.token()).await?;
            step("drain.applied");
            if is_done {
                // Every write of earlier rounds was told before the barrier.
                self.store.transact(|tx| tx.forget_echoes()).await?;
                return Ok(Drained::ToBarrier(feed));
            }
            asked = tokio::time::Instant::now();
        }
    }

    /// Takes what a batch of the feed told, and its position.
    pub(crate) async fn take_changes(
        &mut self,
        central: &mut dyn Central,
        changes: Changes,
        token: Option<Token>,
    ) -> Result<(), RoundError> {
        if planted(Flaw::TokenBeforeBatch) {
            let early = token.clone();
            self.store.transact(move |tx| save_token(tx, early.as_ref())).await?;
        }
        if changes.has_other_ids {
            self.count_other_ids(central).await?;
        }
        let heard = self.heard(&changes.events)?;
        let deletes = heard.landed.iter().filter_map(|(_, open)| open.archive());
        let deletes: Vec<_> = deletes.map(|archive| (archive.to_owned(), ArchiveState::Done)).collect();
        let unsettled = self.settle_archives(central, deletes).await?;
        let mut by_kind: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
        // Without space it is only noted, a few bytes each, that they are to be read.
        let to_read = if self.is_disk_short() { BTreeSet::new() } else { heard.news.clone() };
        for key in &to_read {
            by_kind.entry(key.kind).or_default().push(key.id.clone());
        }
        let read_at = self.read_now().await?;
        let mut found: Vec<(RecordKey, Option<Remote>)> = Vec::new();
        let (mut failure, mut bytes) = (None, 0);
        'reading: for (kind, ids) in by_kind {
            for ids in ids.chunks(self.fetch_ids()) {
                // What is not read here is noted below, and read with all that is to be read again.
                if bytes > NEWS_BYTES_MAX {
                    break 'reading;
                }
                match self.fetch(central, kind, ids).await {
                    Ok(fetched) => {
                        bytes += fetched.iter().map(Fetched::bytes).sum::<usize>();
                        let mut fetched = by_id(fetched);
                        let with_key = |id: &String| (RecordKey::new(kind, id.as_str()), fetched.remove(id));
                        found.extend(ids.iter().map(with_key));
                    }
                    // What was not read is noted below: one record that cannot be read must not make the
                    // feed stand still.
                    Err(error) => {
                        failure = Some(error);
                        break 'reading;
                    }
                }
            }
        }
        // After the records, see `people_first`.
        let people = match self.people_there(central, in_answer(&found)).await {
            Ok(people) => people,
            Err(RoundError::Central(error)) => {
                failure.get_or_insert(error);
                PeopleThere::default()
            }
            Err(error) => return Err(error),
        };
        let mut parts = weight::parts(found, |(_, remote)| remote.as_ref().map_or(0, Remote::weight));
        let first = if parts.is_empty() { Vec::new() } else { parts.remove(0) };
        self.apply(heard, (first.into_iter().collect(), people.clone()), (read_at, unsettled), token).await?;
        // They are noted as to be read again.
        for part in parts {
            self.take_reread(part, people.clone(), read_at).await?;
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn apply(
        &mut self,
        heard: Heard,
        (found, people): (BTreeMap<RecordKey, Option<Remote>>, PeopleThere),
        (read_at, unsettled): (u64, BTreeSet<String>),
        token: Option<Token>,
    ) -> Result<(), StoreError> {
        let (lease, is_draining) = (self.lease_number(), self.is_draining);
        let tally = self
            .store
            .transact(move |tx| -> Result<Tally, StoreError> {
                let mut tally = Tally::default();
                for (key, open) in &heard.landed {
                    // It is not told again: the record will show what became of it.
                    let unclear = Reread { is_unclear: true, ..Reread::default() };
                    if is_unsettled(open.archive(), &unsettled) {
                        tx.ask_again(key, unclear)?;
                        continue;
                    }
                    let landing = (open.number, lease, is_draining);
                    match tx.sparing(key, |tx| take_landed(tx, key, landing))? {
                        Some(pushed) => tally.pushed += u64::from(pushed),
                        None => tx.ask_again(key, unclear)?,
                    }
                }
                for (key, sequence) in &heard.echoes {
                    tx.echoed(key, *sequence)?;
                }
                for key in &heard.news {
                    let (is_unclear, is_deleted) = (heard.unclear.contains(key), heard.deleted.contains(key));
                    let why = Reread { is_unclear, is_deleted, is_told: is_deleted, ..Reread::default() };
                    if is_deleted {
                        tx.ask_again(key, why)?;
                    }
                    let taken = match found.get(key) {
                        // Not while a write of it is on its way, or was when it was read.
                        Some(remote) if !tx.is_read_stale(key, read_at)? => {
                            tx.sparing(key, |tx| take(tx, key, remote.as_ref(), &people))?
                        }
                        _ => None,
                    };
                    match taken {
                        Some(taken) => tally += taken,
                        None => tx.ask_again(key, why)?,
                    }
                }
                save_token(tx, token.as_ref())?;
                Ok(tally)
            })
            .await?;
        self.tally += tally;
        Ok(())
    }

    /// Sorts events into own writes and news.
    fn heard(&self, events: &[Event]) -> Result<Heard, StoreError> {
        let mut by_key: BTreeMap<&RecordKey, Vec<(&Effect, Option<Moment>)>> = BTreeMap::new();
        for event in events {
            if let Event::Record { key, effect, at } = event {
                by_key.entry(key).or_default().push((effect, *at));
            }
        }
        let snapshot = self.store.read()?;
        let mut heard = Heard::default();
        for (key, effects) in by_key {
            let mut of_record = Heard::default();
            if unless_damaged(hear(&snapshot, key, &effects, &mut of_record))?.is_none() {
                // What can be read of it does not tell whose doing this was.
                of_record = Heard::default();
                of_record.news.insert(key.clone());
                of_record.unclear.insert(key.clone());
                if effects.iter().any(|(effect, _)| matches!(effect, Effect::Deleted)) {
                    of_record.deleted.insert(key.clone());
                }
            }
            heard.add(of_record);
        }
        Ok(heard)
    }
}

/// Sorts what happened to one record.
fn hear(
    snapshot: &Snapshot,
    key: &RecordKey,
    effects: &[(&Effect, Option<Moment>)],
    heard: &mut Heard,
) -> Result<(), StoreError> {
    let mut intent = match snapshot.is_told(key)? {
        true => None,
        false => snapshot.intent(key)?,
    };
    let mut echoes = snapshot.expected_echoes(key)?;
    let agreed = if echoes.is_empty() { None } else { snapshot.agreed(key)? };
    for &(effect, at) in effects {
        // First, because writes that landed came before the one that is open.
        if let Some(at) = echoes.iter().position(|sent| is_echo(&sent.write, effect)) {
            // Events keep the order of the writes, so earlier echoes cannot come any more.
            let passed: Vec<Sent> = echoes.drain(..=at).collect();
            if !passed.last().is_some_and(|echo| still_stands(&echo.write, agreed.as_ref())) {
                heard.news.insert(key.clone());
            }
            heard.echoes.extend(passed.into_iter().map(|echo| (echo.key, echo.sequence)));
            continue;
        }
        // What happened before it was sent is not its doing. Records are read ahead of the feed, so it may
        // be told afterwards all the same.
        let is_earlier = |open: &&Intent| matches!((at, open.after), (Some(at), Some(sent)) if at <= sent);
        if let Some(open) = intent.as_ref().filter(|open| !is_earlier(open)) {
            match shows(&open.write, effect) {
                Evidence::Shown => {
                    intent = None;
                    heard.landed.extend(snapshot.open_write(key)?.map(|open| (key.clone(), open)));
                    continue;
                }
                Evidence::Unclear => {
                    heard.unclear.insert(key.clone());
                }
                Evidence::Other => {}
            }
        }
        if matches!(effect, Effect::Deleted) {
            heard.deleted.insert(key.clone());
        }
        heard.news.insert(key.clone());
    }
    Ok(())
}

/// Takes an open write that the feed has shown. Returns whether it is settled by that.
fn take_landed(
    tx: &mut Tx<'_>,
    key: &RecordKey,
    (number, lease, is_draining): (u64, i64, bool),
) -> Result<bool, StoreError> {
    // Told after the lease, it is settled with the next seal.
    let settled = if is_draining { tx.settle_intent(key, number, true)? } else { None };
    if let Some(intent) = settled {
        tx.note_sent(key, &intent, lease, false)?;
        tx.note_deleted(key, &intent.write)?;
        // The next seal tells that it is delivered.
        tx.note_taken(key)?;
        return Ok(true);
    }
    if !is_draining && tx.note_landed(key, number, Landing::Told)? {
        // Counted when it is acknowledged, or in the round that finds out.
    } else if !tx.echoed_push(key, number)? {
        // Not acknowledged while this was on its way here, but refused: somebody else did the same.
        tx.ask_again(key, Reread::default())?;
    }
    Ok(false)
}

/// A feed that ends with an error. A line that breaks says nothing about the feed, and who may not watch may not begin
/// anew either; any other answer may be about the position.
fn refused(error: CentralError) -> Result<Drained, RoundError> {
    match &error {
        CentralError::Failed(_) => Ok(Drained::Refused(error)),
        CentralError::Offline(_) if error.is_answer() => Ok(Drained::Refused(error)),
        CentralError::Offline(_) | CentralError::Refused(_) => Err(error.into()),
    }
}
