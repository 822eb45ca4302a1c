//! A round's conversation with the simulated centre, and the change feed beside it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document};
use thalamus_edge::central::{
    ArchiveState, Central, CentralError, Changes, ConflictAnswer, Feed, Fetched, LARGE_DOCUMENT_BYTES_MIN,
    Lease, LeaseAnswer, Moment, Resolutions, Result, Token, Traffic, WaitingConflicts, Watched, Write,
    Written,
};
use thalamus_edge::domain::record::{Kind, RecordKey};

use super::{Call, Fault, Life, Request, Sim, State, conflict_rows};

/// Bytes of fetched documents after which the others are left.
const FETCH_BYTES_MAX: usize = 64 << 10;

/// Longest that a feed waits for something to happen before it answers with nothing.
const FEED_WAIT: Duration = Duration::from_secs(2);
/// Events in one answer of the feed.
const FEED_EVENTS_MAX: usize = 3;

pub(super) struct Conversation {
    pub(super) sim: Sim,
    life: Option<Life>,
    scan: Option<Scan>,
    traffic: Traffic,
    /// Handed out by scans.
    documents: u64,
    /// The server that it is connected to.
    era: u64,
    /// Up to this moment it has seen what happened, as have those beside it.
    seen: Arc<AtomicU64>,
}

struct Scan {
    kind: Kind,
    after: Option<String>,
    without: Vec<String>,
    /// Sent by the server already.
    pending: VecDeque<Fetched>,
}

pub(super) fn gone() -> CentralError {
    CentralError::Offline("the line is cut".into())
}

async fn travel(latency: Duration) {
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
}

fn is_large(document: &Document) -> bool {
    let bytes = document.to_vec().map_or(0, |bytes| bytes.len());
    i64::try_from(bytes).is_ok_and(|bytes| bytes > LARGE_DOCUMENT_BYTES_MIN)
}

fn bytes(documents: &[Document]) -> u64 {
    documents.iter().map(|document| document.to_vec().map_or(0, |bytes| bytes.len() as u64)).sum()
}

impl Conversation {
    pub(super) fn new(sim: Sim, life: Option<Life>) -> Conversation {
        let era = sim.state().era;
        Conversation {
            sim,
            life,
            scan: None,
            traffic: Traffic::default(),
            documents: 0,
            era,
            seen: Arc::default(),
        }
    }

    fn node(&self) -> Option<usize> {
        self.life.map(|life| life.node)
    }

    /// Another server has taken the place of the one that this was connected to.
    fn is_cut_off(&self) -> bool {
        self.sim.state().era != self.era
    }

    /// Connects.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.exchange(Call::Open, None, None, |_| ()).await
    }

    /// One call with everything that can happen to it. `request` is what arrives late, if it does.
    async fn exchange<T: Send + std::fmt::Debug>(
        &mut self,
        call: Call,
        wanted: Option<Fault>,
        request: Option<Request>,
        work: impl FnOnce(&mut State) -> T + Send,
    ) -> Result<T> {
        self.sim.pass(self.life, &format!("{}.before", call.name()));
        let (fault, there, back) = {
            let mut state = self.sim.state();
            let random = self.life.and_then(|_| state.weather.fault(call));
            (wanted.or(random), state.weather.latency(), state.weather.latency())
        };
        self.traffic.round_trips += 1;
        self.sim.note(self.life, || format!("{} {request:?} {fault:?}", call.name()));
        travel(there).await;
        match fault {
            Some(Fault::LostRequest) => return Err(gone()),
            Some(Fault::Late) => {
                let node = self.node();
                let request = request.filter(|_| !self.is_cut_off());
                self.sim.state().late.extend(request.map(|request| (node, request)));
                return Err(gone());
            }
            Some(Fault::Slow(time)) => travel(time).await,
            Some(Fault::SlowAnswer(time)) => {
                if self.is_cut_off() {
                    return Err(gone());
                }
                let answer = self.work(work);
                travel(time).await;
                return if self.is_cut_off() { Err(gone()) } else { Ok(answer) };
            }
            Some(Fault::Before(something)) => {
                something.await;
                return Ok(self.work(work));
            }
            Some(Fault::Meanwhile(something)) => {
                let answer = self.work(work);
                something.await;
                return Ok(answer);
            }
            Some(Fault::LostAnswer | Fault::HalfDone) => {
                if !self.is_cut_off() {
                    self.work(work);
                }
                travel(back).await;
                return Err(gone());
            }
            Some(Fault::Unanswered | Fault::FeedBroken) | None => {}
        }
        if self.is_cut_off() {
            return Err(gone());
        }
        let answer = self.work(work);
        self.sim.note(self.life, || format!("{}: {answer:?}", call.name()));
        self.sim.pass(self.life, &format!("{}.done", call.name()));
        travel(back).await;
        if self.is_cut_off() { Err(gone()) } else { Ok(answer) }
    }

    fn work<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.sim.state();
        let answer = work(&mut state);
        state.flush();
        let Moment(now) = state.history.now();
        drop(state);
        self.seen.fetch_max(now, Ordering::Relaxed);
        self.sim.news.notify_waiters();
        answer
    }

    /// A batch of writes, each on its own and in any order, with time between them.
    async fn carry_out(&self, batch: &[Write]) -> Vec<Written> {
        let mut order: Vec<usize> = (0..batch.len()).collect();
        let mut answers = vec![Written::Unknown; batch.len()];
        while !order.is_empty() && !self.is_cut_off() {
            let (at, pause) = {
                let mut state = self.sim.state();
                let next = usize::try_from(state.weather.below(order.len() as u64)).expect("an index");
                let at = order.swap_remove(next);
                answers[at] = state.write_one(self.node(), &batch[at], false);
                (at, if order.is_empty() { Duration::ZERO } else { state.weather.latency() / 4 })
            };
            self.sim.note(self.life, || format!("{:?}: {:?}", batch[at], answers[at]));
            self.sim.news.notify_waiters();
            travel(pause).await;
        }
        answers
    }

    async fn write_batch(&mut self, batch: &[Write]) -> Result<Vec<Written>> {
        self.sim.pass(self.life, "write.before");
        let (fault, there, back) = {
            let mut state = self.sim.state();
            let random = self.life.and_then(|_| state.weather.fault(Call::Write));
            (state.write_faults.pop_front().or(random), state.weather.latency(), state.weather.latency())
        };
        self.traffic.round_trips += 1;
        self.traffic.command_bytes_sent += batch.iter().map(write_bytes).sum::<u64>();
        self.sim.note(self.life, || format!("write {fault:?}"));
        travel(there).await;
        let is_broken = {
            let state = self.sim.state();
            batch.iter().any(|write| state.batch_breakers.contains(&write.key().id))
                || state.batch_writes_max.is_some_and(|most| batch.len() > most)
        };
        if is_broken {
            return Err(CentralError::Failed("a batch is too much".into()));
        }
        let answers = match fault {
            Some(Fault::LostRequest) => return Err(gone()),
            Some(Fault::LostAnswer) => {
                self.carry_out(batch).await;
                Err(gone())
            }
            Some(Fault::Late) => {
                if !self.is_cut_off() {
                    self.sim.state().late.push((self.node(), Request::Write(batch.to_vec())));
                }
                Err(gone())
            }
            Some(Fault::HalfDone) => {
                self.carry_out(&batch[..batch.len() / 2]).await;
                Err(gone())
            }
            Some(Fault::Unanswered) => {
                // Servers before 8.0 count what a command did, but not which of its statements did it.
                let answers = self.carry_out(batch).await;
                let is_clear = answers.windows(2).all(|pair| pair[0] == pair[1]);
                Ok(if is_clear && batch.len() > 1 { answers } else { vec![Written::Unknown; batch.len()] })
            }
            Some(Fault::Before(something)) => {
                something.await;
                Ok(self.carry_out(batch).await)
            }
            Some(Fault::Meanwhile(something)) => {
                let written = self.carry_out(batch).await;
                something.await;
                Ok(written)
            }
            Some(Fault::Slow(time)) => {
                travel(time).await;
                Ok(self.carry_out(batch).await)
            }
            Some(Fault::SlowAnswer(time)) => {
                let written = self.carry_out(batch).await;
                travel(time).await;
                Ok(written)
            }
            Some(Fault::FeedBroken) | None => Ok(self.carry_out(batch).await),
        };
        self.sim.pass(self.life, "write.done");
        travel(back).await;
        if self.is_cut_off() { Err(gone()) } else { answers }
    }
}

fn write_bytes(write: &Write) -> u64 {
    match write {
        Write::Insert { document, .. } => bytes(std::slice::from_ref(document)),
        Write::Update { changes, .. } => {
            let values = changes.iter().flat_map(|change| [&change.from, &change.to]).flatten();
            values.map(|value| bytes(&[bson::doc! {"": value.clone()}])).sum()
        }
        Write::Replace { base, document, .. } => bytes(&[base.clone(), document.clone()]),
        Write::Delete { base, .. } => bytes(std::slice::from_ref(base)),
    }
}

#[async_trait]
impl Central for Conversation {
    async fn fetch(&mut self, kind: Kind, ids: &[String]) -> Result<Vec<Fetched>> {
        let mut wanted: Vec<String> = ids.to_vec();
        wanted.sort();
        wanted.dedup();
        self.exchange(Call::Fetch, None, None, move |state| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for id in wanted {
                if bytes >= FETCH_BYTES_MAX {
                    found.push(Fetched::Deferred { id });
                } else if let Some(document) = state.records.get(&(kind, id.clone())) {
                    bytes += document.to_vec().expect("a document").len();
                    found.push(state.read(&id, document));
                }
            }
            found
        })
        .await
    }

    async fn identities(&mut self, ids: &[String]) -> Result<Vec<Document>> {
        let ids = ids.to_vec();
        let wanted = self.sim.state().identity_faults.pop_front();
        self.exchange(Call::Identities, wanted, None, move |state| {
            let found = ids.iter().filter_map(|id| {
                let person = state.records.get(&(Kind::Person, id.clone()))?;
                let fields = ["_id", "name", "lastname", "dob", "gender"].into_iter();
                Some(
                    fields.filter_map(|field| Some((field.to_owned(), person.get(field)?.clone()))).collect(),
                )
            });
            found.collect()
        })
        .await
    }

    async fn scan(&mut self, kind: Kind, after: Option<&str>, without: &[String]) -> Result<()> {
        self.sim.pass(self.life, "scan.before");
        let (after, without) = (after.map(str::to_owned), without.to_vec());
        self.scan = Some(Scan { kind, after, without, pending: VecDeque::new() });
        Ok(())
    }

    async fn large_ids(&mut self, kind: Kind, after: Option<&str>) -> Result<Vec<String>> {
        let after = after.map(str::to_owned);
        self.exchange(Call::LargeIds, None, None, move |state| {
            let large = state.records.iter().filter(|((of, id), document)| {
                *of == kind && after.as_ref().is_none_or(|after| id > after) && is_large(document)
            });
            large.map(|((_, id), _)| id.clone()).collect()
        })
        .await
    }

    async fn scan_next(&mut self, max: usize) -> Result<Vec<Fetched>> {
        let (fault, delay) = {
            let mut state = self.sim.state();
            (state.scan_faults.pop_front(), state.scan_delay)
        };
        travel(delay).await;
        let Some(mut scan) = self.scan.take() else {
            return Err(CentralError::Failed("no scan is open".into()));
        };
        if scan.pending.is_empty() {
            let (kind, after, without) = (scan.kind, scan.after.clone(), scan.without.clone());
            let lost = !matches!(fault, None | Some(Fault::Meanwhile(_) | Fault::Before(_)));
            let fault = if lost { Some(Fault::LostRequest) } else { fault };
            let read = move |state: &mut State| -> VecDeque<Fetched> {
                let limit = if state.answer_max == 0 { max } else { max.min(state.answer_max) };
                let records = state.records.iter().filter(|((of, id), _)| {
                    *of == kind && after.as_ref().is_none_or(|after| id > after) && !without.contains(id)
                });
                records.take(limit).map(|((_, id), document)| state.read(id, document)).collect()
            };
            scan.pending = self.exchange(Call::ScanNext, fault, None, read).await?;
        }
        // What a server has sent is handed out later if fewer are asked for, and may be old by then.
        let batch: Vec<Fetched> = scan.pending.drain(..max.min(scan.pending.len())).collect();
        if let Some(last) = batch.last() {
            scan.after = Some(last.id().to_owned());
        }
        self.scan = Some(scan);
        self.documents += batch.len() as u64;
        Ok(batch)
    }

    async fn estimated_count(&mut self, kind: Kind) -> Result<u64> {
        self.exchange(Call::Count, None, None, move |state| {
            let records = state.records.keys().filter(|(of, _)| *of == kind).count();
            let oddities = state.oddities.iter().filter(|(of, _)| *of == kind).count();
            (records + oddities) as u64
        })
        .await
    }

    async fn watch(
        &mut self,
        node: &str,
        after: Option<&Token>,
        bodies: &[RecordKey],
        max: usize,
    ) -> Result<Watched> {
        let after = after.cloned();
        let opened = self.exchange(Call::Watch, None, None, move |state| {
            if state.is_standalone {
                return Err(true);
            }
            match &after {
                None => Ok(state.history.end()),
                Some(token) => state.history.position(token).ok_or(false),
            }
        });
        let at = match opened.await? {
            Ok(at) => at,
            Err(true) => return Ok(Watched::Unsupported),
            Err(false) => return Ok(Watched::Lost),
        };
        let line = Conversation::new(self.sim.clone(), self.life);
        let token = self.sim.state().history.token(at);
        let (node, bodies) = (node.to_owned(), bodies.to_vec());
        Ok(Watched::Open(Box::new(SimFeed { line, node, bodies, max, at, token })))
    }

    async fn unsupported_ids(&mut self, kind: Kind, max: usize) -> Result<Vec<String>> {
        self.exchange(Call::UnsupportedIds, None, None, move |state| {
            let ids = state.oddities.iter().filter(|(of, _)| *of == kind).take(max);
            let id = |document: &Document| document.get("_id").cloned().unwrap_or(Bson::Null);
            ids.map(|(_, document)| id(document).into_relaxed_extjson().to_string()).collect()
        })
        .await
    }

    async fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.write_batch(batch).await
    }

    async fn archive(&mut self, rows: &[Document]) -> Result<()> {
        self.traffic.command_bytes_sent += bytes(rows);
        let rows = rows.to_vec();
        let request = Request::Archive(rows.clone());
        self.exchange(Call::Archive, None, Some(request), move |state| state.archive(&rows)).await?
    }

    async fn settle_archive(&mut self, settled: &[(String, ArchiveState)]) -> Result<()> {
        let settled = settled.to_vec();
        let request = Request::SettleArchive(settled.clone());
        let work = move |state: &mut State| state.settle_archive(&settled);
        self.exchange(Call::SettleArchive, None, Some(request), work).await
    }

    async fn publish_conflicts(&mut self, rows: &[Document]) -> Result<()> {
        self.traffic.command_bytes_sent += bytes(rows);
        let rows = rows.to_vec();
        let request = Request::PublishConflicts(rows.clone());
        let work = move |state: &mut State| state.publish_conflicts(&rows);
        self.exchange(Call::PublishConflicts, None, Some(request), work).await?
    }

    async fn resolutions(&mut self, ids: &[String]) -> Result<Resolutions> {
        let ids = ids.to_vec();
        self.exchange(Call::Resolutions, None, None, move |state| {
            state.resolution_questions.push(ids.len());
            conflict_rows::read(&state.conflicts, &ids)
        })
        .await
    }

    async fn waiting_conflicts(&mut self, nodes: &[String], after: Option<&str>) -> Result<WaitingConflicts> {
        let (nodes, after) = (nodes.to_vec(), after.map(str::to_owned));
        let work =
            move |state: &mut State| conflict_rows::waiting(&state.conflicts, &nodes, after.as_deref());
        let fault = self.sim.state().waiting_faults.pop_front().flatten();
        self.exchange(Call::WaitingConflicts, fault, None, work).await
    }

    async fn answer_conflicts(&mut self, answers: &[ConflictAnswer]) -> Result<()> {
        let answers = answers.to_vec();
        let request = Request::AnswerConflicts(answers.clone());
        let work = move |state: &mut State| state.answer_conflicts(&answers);
        self.exchange(Call::AnswerConflicts, None, Some(request), work).await
    }

    fn moment(&self) -> Option<Moment> {
        let is_standalone = self.sim.state().is_standalone;
        (!is_standalone).then(|| Moment(self.seen.load(Ordering::Relaxed)))
    }

    fn process(&self) -> Option<String> {
        Some(format!("process {}", self.era))
    }

    async fn beside(&mut self) -> Result<Box<dyn Central>> {
        Ok(Box::new(Conversation {
            era: self.era,
            seen: Arc::clone(&self.seen),
            ..Conversation::new(self.sim.clone(), self.life)
        }))
    }

    async fn take_lease(
        &mut self,
        node: &str,
        expected: &[Lease],
        proposed: &Lease,
        announcement: &Document,
    ) -> Result<LeaseAnswer> {
        let fault = {
            let mut state = self.sim.state();
            let is_taken = state.lease_answer(node, expected) == LeaseAnswer::Taken;
            if is_taken { state.lease_faults.pop_front() } else { None }
        };
        let (node, expected, proposed) = (node.to_owned(), expected.to_vec(), proposed.clone());
        let announcement = announcement.clone();
        let request = Request::TakeLease {
            node: node.clone(),
            expected: expected.clone(),
            proposed: proposed.clone(),
            announcement: announcement.clone(),
        };
        let work = move |state: &mut State| state.take_lease(&node, &expected, &proposed, &announcement);
        self.exchange(Call::TakeLease, fault, Some(request), work).await
    }

    async fn node_rows(&mut self, node: &str, store: Option<&str>) -> Result<Vec<Document>> {
        let (node, store) = (node.to_owned(), store.map(str::to_owned));
        self.exchange(Call::NodeRow, None, None, move |state| {
            let is_of = |row: &Document| store.is_some() && row.get_str("store").ok() == store.as_deref();
            let rows = state.nodes.iter().filter(|(id, row)| **id == node || is_of(row));
            rows.map(|(_, row)| row.clone()).collect()
        })
        .await
    }

    async fn report(&mut self, node: &str, lease: &Lease, report: &Document) -> Result<()> {
        let (node, lease, report) = (node.to_owned(), lease.clone(), report.clone());
        let request = Request::Report { node: node.clone(), lease: lease.clone(), report: report.clone() };
        let work = move |state: &mut State| state.report(&node, &lease, &report);
        self.exchange(Call::Report, None, Some(request), work).await
    }

    fn traffic(&self) -> Traffic {
        let state = self.sim.state();
        let mut traffic = self.traffic;
        traffic.round_trips += state.traffic.round_trips;
        traffic.command_bytes_sent += state.traffic.command_bytes_sent;
        traffic.command_bytes_received += state.traffic.command_bytes_received;
        traffic.line_bytes_sent += state.traffic.line_bytes_sent;
        traffic.line_bytes_received += state.traffic.line_bytes_received;
        traffic.line_bytes_received += self.documents * state.line_bytes_per_document;
        traffic
    }
}

/// An open change feed.
struct SimFeed {
    line: Conversation,
    node: String,
    bodies: Vec<RecordKey>,
    /// Events told at a time.
    max: usize,
    /// What comes next.
    at: u64,
    token: Token,
}

impl SimFeed {
    /// Some of what happened since; the position after it.
    fn read(&self, state: &State) -> (Changes, u64) {
        let mut changes = Changes::default();
        let mut at = self.at;
        // Forgotten by now, or the centre is another one.
        changes.is_lost = state.history.position(&self.token).is_none();
        while let (false, Some((moment, happening))) = (changes.is_lost, state.history.get(at)) {
            at += 1;
            match happening.told(&self.node, &self.bodies, *moment) {
                Ok(event) => changes.events.extend(event),
                Err(()) => changes.is_lost = true,
            }
            if changes.events.len() == self.max.clamp(1, FEED_EVENTS_MAX) {
                break;
            }
        }
        (changes, at)
    }
}

#[async_trait]
impl Feed for SimFeed {
    async fn next(&mut self) -> Result<Changes> {
        let fault = self.line.sim.state().feed_faults.pop_front();
        let broken = {
            let mut state = self.line.sim.state();
            let is_random = self.line.life.is_some() && state.weather.feed_breaks();
            is_random || matches!(fault, Some(Fault::FeedBroken))
        };
        if broken {
            return Ok(Changes { is_lost: true, ..Changes::default() });
        }
        // The server waits a moment, if there is nothing to tell.
        let sim = self.line.sim.clone();
        let deadline = tokio::time::Instant::now() + FEED_WAIT;
        loop {
            let news = sim.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let (changes, _) = self.read(&sim.state());
            let is_due = changes.is_lost || !changes.events.is_empty();
            if is_due || tokio::time::timeout_at(deadline, news).await.is_err() {
                break;
            }
        }
        let (node, bodies, at) = (self.node.clone(), self.bodies.clone(), self.at);
        let (line, max, token) = (Conversation::new(sim, None), self.max, self.token.clone());
        let reader = SimFeed { line, node, bodies, max, at, token };
        let read = move |state: &mut State| {
            let (changes, at) = reader.read(state);
            (changes, at, state.history.token(at))
        };
        let (changes, at, token) = self.line.exchange(Call::FeedNext, fault, None, read).await?;
        if !changes.is_lost {
            (self.at, self.token) = (at, token);
        }
        Ok(changes)
    }

    fn token(&self) -> Option<Token> {
        Some(self.token.clone())
    }
}
