//! A centre in memory: what MongoDB would answer, a change feed, and faults where a test or a seed wants them.

pub(crate) mod conflict_rows;
pub(crate) mod content;
mod conversation;
mod history;
mod ledger;
mod matching;
pub(crate) mod weather;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use thalamus_edge::central::{
    ArchiveState, CONFLICTS_COLLECTION, Central, ConflictAnswer, Effect, Fetched, Hub, Lease,
    NODES_COLLECTION, Result, TRASH_COLLECTION, Traffic, Write, Written,
};
use thalamus_edge::domain::diff;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::value::identical;
use tokio::sync::Notify;

use super::disk::Disk;
use history::{Happening, History};
pub(crate) use weather::{Call, Fault, Weather};

/// A rule of the server's that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CentreFlaw {
    /// Updates and replacements are carried out whatever stands there.
    BlindSet,
    /// Deletes are carried out whatever stands there.
    DeleteWithoutCompare,
}

/// A change of a record, by whichever node or (`None`) by somebody else.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) by: Option<usize>,
    pub(crate) key: RecordKey,
    pub(crate) before: Option<Document>,
    pub(crate) after: Option<Document>,
    /// By a request that had been given up before it arrived.
    pub(crate) is_late: bool,
}

/// A place at which a node dies.
pub(crate) struct Doom {
    /// Any, if it has no name.
    pub(crate) place: Option<String>,
    /// So often it is passed alive.
    pub(crate) visits: u64,
    pub(crate) disk: Disk,
}

/// A node from when it is switched on until the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) node: usize,
    number: u64,
}

/// Something that a node asked for and that is still on its way.
#[derive(Debug, Clone)]
enum Request {
    Write(Vec<Write>),
    Archive(Vec<Document>),
    SettleArchive(Vec<(String, ArchiveState)>),
    PublishConflicts(Vec<Document>),
    AnswerConflicts(Vec<ConflictAnswer>),
    TakeLease { node: String, expected: Vec<Lease>, proposed: Lease, announcement: Document },
    Report { node: String, lease: Lease, report: Document },
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) records: BTreeMap<(Kind, String), Document>,
    /// Records whose ids are no text.
    oddities: Vec<(Kind, Document)>,
    pub(crate) leases: BTreeMap<String, Lease>,
    pub(crate) revoked: Vec<String>,
    /// What else the rows of `edge_nodes` hold.
    pub(crate) nodes: BTreeMap<String, Document>,
    pub(crate) conflicts: BTreeMap<String, Document>,
    /// How many conflicts each question for decisions was about.
    pub(crate) resolution_questions: Vec<usize>,
    pub(crate) trash: BTreeMap<String, Document>,
    /// Ids whose documents cannot be kept, that are never accepted, or that cannot be archived.
    pub(crate) unreadable: Vec<String>,
    pub(crate) refused: Vec<String>,
    /// Ids of records whose writes end with this error, nobody knows why.
    pub(crate) faulty: Vec<(String, i32)>,
    /// Ids of records that make a whole batch fail, and how many writes are too many together.
    pub(crate) batch_breakers: Vec<String>,
    pub(crate) batch_writes_max: Option<usize>,
    pub(crate) not_archived: Vec<String>,
    /// Ids whose bodies cannot be archived, while rows without them can.
    pub(crate) bodies_refused: Vec<String>,
    pub(crate) conflicts_refused_about: Vec<String>,
    pub(crate) write_faults: VecDeque<Fault>,
    pub(crate) identity_faults: VecDeque<Fault>,
    pub(crate) lease_faults: VecDeque<Fault>,
    /// How the next readings of rows that wait go.
    pub(crate) waiting_faults: VecDeque<Option<Fault>>,
    pub(crate) scan_faults: VecDeque<Fault>,
    pub(crate) feed_faults: VecDeque<Fault>,
    late: Vec<(Option<usize>, Request)>,
    /// Writes carried out, by record.
    pub(crate) writes: BTreeMap<String, usize>,
    pub(crate) scan_delay: Duration,
    pub(crate) reports: Vec<Document>,
    /// What every conversation says that it has cost beside its own, and for each document handed out by a scan.
    pub(crate) traffic: Traffic,
    pub(crate) line_bytes_per_document: u64,
    /// A server without history.
    pub(crate) is_standalone: bool,
    /// Most documents or events in one answer; 0: as many as are asked for.
    pub(crate) answer_max: usize,
    pub(crate) flaw: Option<CentreFlaw>,
    /// A delete whose body was not archived before is a mistake of the node's.
    pub(crate) is_archive_checked: bool,
    pub(crate) mistakes: Vec<String>,
    pub(crate) weather: Weather,
    history: History,
    /// Counts the servers that there have been.
    era: u64,
    /// Every change of a record, if a test wants to know.
    pub(crate) chronicle: Option<Vec<Applied>>,
    pub(crate) dooms: BTreeMap<usize, Doom>,
    /// Nodes that have died, and where.
    pub(crate) died: BTreeMap<usize, String>,
    /// Places passed by nodes, and how often.
    pub(crate) passed: BTreeMap<String, u64>,
    /// Which node a task belongs to, and in which of its lives.
    tasks: HashMap<tokio::task::Id, Life>,
    /// How often each node was switched off.
    lives: BTreeMap<usize, u64>,
    /// What nodes asked and were answered, if a test wants to read it.
    pub(crate) talk: Option<Vec<String>>,
    /// Batches of writes are on the disk only once something else is, though they are acknowledged before.
    pub(crate) is_lazy: bool,
    /// What is on the disk of a lazy centre.
    on_disk: Option<Box<Backup>>,
}

impl State {
    /// Everything that has happened is on the disk.
    fn flush(&mut self) {
        if self.is_lazy {
            self.on_disk = Some(Box::new(self.backup()));
        }
    }

    fn backup(&self) -> Backup {
        Backup {
            records: self.records.clone(),
            leases: self.leases.clone(),
            nodes: self.nodes.clone(),
            conflicts: self.conflicts.clone(),
            trash: self.trash.clone(),
            history: self.history.clone(),
        }
    }

    /// The centre is what it was; returns the history that belongs to it. Whoever was connected is not any more.
    fn set_back(&mut self, backup: Backup) -> History {
        let Backup { records, leases, nodes, conflicts, trash, history } = backup;
        (self.records, self.leases, self.nodes) = (records, leases, nodes);
        (self.conflicts, self.trash) = (conflicts, trash);
        self.era += 1;
        history
    }

    /// A record is something else from now on.
    fn change(&mut self, by: Option<usize>, key: &RecordKey, new: Option<Document>, effect: Effect) {
        self.change_at_last(by, key, new, effect, false);
    }

    /// As `change`; `is_late` if the request had been given up before.
    fn change_at_last(
        &mut self,
        by: Option<usize>,
        key: &RecordKey,
        new: Option<Document>,
        effect: Effect,
        is_late: bool,
    ) {
        let at = (key.kind, key.id.clone());
        let before = match &new {
            Some(document) => self.records.insert(at, document.clone()),
            None => self.records.remove(&at),
        };
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.push(Applied { by, key: key.clone(), before, after: new, is_late });
        }
        self.history.push(Happening::Record { key: key.clone(), effect });
    }

    fn write_one(&mut self, by: Option<usize>, write: &Write, is_late: bool) -> Written {
        let key = write.key().clone();
        if let Some((_, code)) = self.faulty.iter().find(|(id, _)| *id == key.id) {
            return Written::Faulty { code: *code };
        }
        if self.refused.contains(&key.id) {
            return Written::Refused { code: 121, message: "not accepted".to_owned() };
        }
        let stored = self.records.get(&(key.kind, key.id.clone())).cloned();
        let seen = self.as_if_compared(write, stored.as_ref());
        let new = match matching::carry_out(&seen, stored.as_ref()) {
            Ok(new) => new,
            Err(answer) => return answer,
        };
        if let (true, Write::Delete { .. }) = (self.is_archive_checked, write) {
            let body = stored.as_ref().map(|stored| key.kind.schema().without_secrets(stored));
            let is_archived = self.trash.values().any(|row| {
                let says = |field: &str, value: &str| row.get_str(field).is_ok_and(|found| found == value);
                // Somebody may have deleted it, and put it back as it was, while this was on the way.
                let is_same = || row.get_document("document").ok() == body.as_ref();
                says("id", &key.id) && (is_late || says("state", "pending") || is_same())
            });
            if !is_archived {
                self.mistakes.push(format!("the body of {key} was not archived before its delete"));
            }
        }
        *self.writes.entry(key.id.clone()).or_default() += 1;
        let effect = match (write, &stored, &new) {
            (Write::Insert { .. }, ..) => Effect::Inserted(new.clone()),
            (Write::Delete { .. }, ..) => Effect::Deleted,
            (Write::Update { changes, .. }, Some(stored), Some(new)) => {
                let paths: Vec<_> = changes.iter().map(|change| change.path.clone()).collect();
                let (set, unset) = matching::described(stored, new, &paths);
                Effect::Updated { set, unset }
            }
            _ => Effect::Replaced(new.clone()),
        };
        // What changes nothing is not told.
        let is_news = !matches!((&stored, &new), (Some(stored), Some(new))
            if identical(&Bson::Document(stored.clone()), &Bson::Document(new.clone())));
        if is_news {
            self.change_at_last(by, &key, new, effect, is_late);
        }
        Written::Hit
    }

    /// The write, or under a flaw one that believes whatever stands there.
    fn as_if_compared(&self, write: &Write, stored: Option<&Document>) -> Write {
        let blind = self.flaw == Some(CentreFlaw::BlindSet);
        match (write, stored) {
            (Write::Update { key, changes }, Some(stored)) if blind => {
                let mut changes = changes.clone();
                for change in &mut changes {
                    change.from = diff::get(stored, &change.path).cloned();
                }
                Write::Update { key: key.clone(), changes }
            }
            (Write::Replace { key, document, .. }, Some(stored)) if blind => {
                Write::Replace { key: key.clone(), base: stored.clone(), document: document.clone() }
            }
            (Write::Delete { key, .. }, Some(stored))
                if self.flaw == Some(CentreFlaw::DeleteWithoutCompare) =>
            {
                Write::Delete { key: key.clone(), base: stored.clone() }
            }
            _ => write.clone(),
        }
    }

    fn read(&self, id: &str, document: &Document) -> Fetched {
        if self.unreadable.iter().any(|unreadable| unreadable == id) {
            return Fetched::Unreadable { id: id.to_owned(), reason: "strange bytes".to_owned() };
        }
        Fetched::Document { id: id.to_owned(), document: document.clone().try_into().expect("a document") }
    }

    /// Carries out what was late.
    fn arrive(&mut self, by: Option<usize>, request: Request) {
        match request {
            Request::Write(batch) => {
                for write in batch {
                    self.write_one(by, &write, true);
                }
            }
            // Their refusals interest nobody any more.
            Request::Archive(rows) => drop(self.archive(&rows)),
            Request::SettleArchive(settled) => self.settle_archive(&settled),
            Request::PublishConflicts(rows) => drop(self.publish_conflicts(&rows)),
            Request::AnswerConflicts(answers) => self.answer_conflicts(&answers),
            Request::TakeLease { node, expected, proposed, announcement } => {
                self.take_lease(&node, &expected, &proposed, &announcement);
            }
            Request::Report { node, lease, report } => self.report(&node, &lease, &report),
        }
    }

    /// A row of one of the reconciliation's own collections.
    fn row(&self, collection: &str, id: &str) -> Option<Document> {
        match collection {
            CONFLICTS_COLLECTION => self.conflicts.get(id).cloned(),
            TRASH_COLLECTION => self.trash.get(id).cloned(),
            NODES_COLLECTION => {
                let lease = self.leases.get(id);
                let mut row = match (self.nodes.get(id), lease) {
                    (None, None) => return None,
                    (fields, _) => fields.cloned().unwrap_or_else(|| doc! {"_id": id}),
                };
                if let Some(Lease { number, nonce }) = lease {
                    row.insert("lease", doc! {"number": number, "nonce": nonce});
                }
                if self.revoked.iter().any(|revoked| revoked == id) {
                    row.insert("status", "revoked");
                }
                Some(row)
            }
            other => panic!("{other} is no collection of the reconciliation"),
        }
    }

    /// Somebody else writes such a row.
    fn set_row(&mut self, collection: &str, row: Document) {
        let id = row.get_str("_id").expect("an id").to_owned();
        match collection {
            CONFLICTS_COLLECTION => drop(self.conflicts.insert(id, row)),
            TRASH_COLLECTION => drop(self.trash.insert(id, row)),
            NODES_COLLECTION => {
                let mut row = row;
                self.revoked.retain(|revoked| *revoked != id);
                if row.get_str("status").is_ok_and(|status| status == "revoked") {
                    self.revoked.push(id.clone());
                }
                match row.remove("lease") {
                    Some(Bson::Document(lease)) => {
                        let number = lease.get_i64("number").expect("a number");
                        let nonce = lease.get_str("nonce").expect("a nonce").to_owned();
                        self.leases.insert(id.clone(), Lease { number, nonce });
                    }
                    _ => drop(self.leases.remove(&id)),
                }
                self.nodes.insert(id.clone(), row);
                self.history.push(Happening::Node { node: id, lease: None });
            }
            other => panic!("{other} is no collection of the reconciliation"),
        }
    }
}

/// The centre; clones are the same one.
#[derive(Clone)]
pub(crate) struct Sim {
    state: Arc<Mutex<State>>,
    contents: Arc<Mutex<content::Contents>>,
    /// Something has happened.
    news: Arc<Notify>,
}

/// What is said about a centre without a change feed, after everything else.
pub(crate) const WITHOUT_FEED: &str = " This centre has no change feed: every round reads everything.";

/// A standalone server.
impl Default for Sim {
    fn default() -> Sim {
        let state = State { is_archive_checked: true, is_standalone: true, ..State::default() };
        Sim { state: Arc::new(Mutex::new(state)), contents: Arc::default(), news: Arc::default() }
    }
}

impl Sim {
    /// A server that keeps the history of what happened.
    pub(crate) fn with_history() -> Sim {
        let sim = Sim::default();
        sim.state().is_standalone = false;
        sim
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the simulated centre")
    }

    pub(crate) fn contents(&self) -> MutexGuard<'_, content::Contents> {
        self.contents.lock().expect("the simulated centre's attachments")
    }

    /// The hub of one of several nodes, which can be told apart and killed; for one life.
    pub(crate) fn line(&self, node: usize) -> Line {
        let number = self.state().lives.get(&node).copied().unwrap_or_default();
        Line { sim: self.clone(), life: Life { node, number } }
    }

    /// The node is switched off: what it is about to say is said no more.
    pub(crate) fn cut(&self, node: usize) {
        *self.state().lives.entry(node).or_default() += 1;
    }

    /// Somebody else inserts or replaces a record.
    pub(crate) fn put(&self, kind: Kind, document: Document) {
        let mut state = self.state();
        let Ok(id) = document.get_str("_id").map(str::to_owned) else {
            state.oddities.push((kind, document));
            return;
        };
        let document = matching::with_id(&id, &document);
        let key = RecordKey::new(kind, id);
        let effect = match state.records.get(&(kind, key.id.clone())) {
            Some(stored) if identical(&Bson::Document(stored.clone()), &Bson::Document(document.clone())) => {
                return;
            }
            Some(_) => Effect::Replaced(Some(document.clone())),
            None => Effect::Inserted(Some(document.clone())),
        };
        state.change(None, &key, Some(document), effect);
        state.flush();
        drop(state);
        self.news.notify_waiters();
    }

    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<Document> {
        self.state().records.get(&(kind, id.to_owned())).cloned()
    }

    /// Somebody else deletes a record.
    pub(crate) fn remove(&self, kind: Kind, id: &str) {
        let key = RecordKey::new(kind, id);
        let mut state = self.state();
        if state.records.contains_key(&(kind, key.id.clone())) {
            state.change(None, &key, None, Effect::Deleted);
            state.flush();
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Somebody else sets (or with `None` unsets) fields of a record by dotted paths.
    pub(crate) fn update(&self, kind: Kind, id: &str, fields: &[(&str, Option<Bson>)]) {
        let key = RecordKey::new(kind, id);
        let mut state = self.state();
        let Some(stored) = state.records.get(&(kind, key.id.clone())).cloned() else {
            return;
        };
        let steps = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        let mut sorted: Vec<_> = fields.iter().map(|(path, value)| (steps(path), value.clone())).collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut new = stored.clone();
        for (path, value) in &sorted {
            diff::set(&mut new, path, value.clone());
        }
        let paths: Vec<_> = sorted.into_iter().map(|(path, _)| path).collect();
        let (set, unset) = matching::described(&stored, &new, &paths);
        if !set.is_empty() || !unset.is_empty() {
            state.change(None, &key, Some(new), Effect::Updated { set, unset });
            state.flush();
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Something happens in a collection that is nobody's business.
    pub(crate) fn happen_elsewhere(&self) {
        self.state().history.push(Happening::Elsewhere);
        self.news.notify_waiters();
    }

    /// Collections are dropped or renamed, which ends every feed.
    pub(crate) fn upheave(&self) {
        self.state().history.push(Happening::Upheaval);
        self.news.notify_waiters();
    }

    /// The centre forgets all of its history but the last few happenings.
    pub(crate) fn forget_history(&self, keep: usize) {
        self.state().history.truncate(keep);
        self.news.notify_waiters();
    }

    /// A row of one of the reconciliation's own collections.
    pub(crate) fn row(&self, collection: &str, id: &str) -> Option<Document> {
        self.state().row(collection, id)
    }

    /// Somebody else writes such a row.
    pub(crate) fn set_row(&self, collection: &str, row: Document) {
        let mut state = self.state();
        state.set_row(collection, row);
        state.flush();
        drop(state);
        self.news.notify_waiters();
    }

    /// Notes what a node asked and was answered.
    fn note(&self, life: Option<Life>, line: impl FnOnce() -> String) {
        let mut state = self.state();
        if let (Some(Life { node, .. }), Some(talk)) = (life, &mut state.talk) {
            talk.push(format!("    node {node} {}", line()));
        }
    }

    /// What there is to be restored later.
    pub(crate) fn backup(&self) -> Backup {
        self.state().backup()
    }

    /// The centre is what it was. From a dump it begins a new history; with its files comes the old one, which ends
    /// where the copy was made.
    pub(crate) fn restore(&self, backup: Backup, by: SetBack) {
        let mut state = self.state();
        let history = state.set_back(backup);
        match by {
            SetBack::Dump => state.history.begin_anew(),
            SetBack::Files => state.history.set_back(history),
        }
        // Nothing that was on its way reaches the new server.
        state.late.clear();
        state.flush();
        drop(state);
        self.news.notify_waiters();
    }

    /// The centre dies and is there again at once, with what was on its disk.
    pub(crate) fn crash(&self) {
        let mut state = self.state();
        if let Some(on_disk) = state.on_disk.clone() {
            let history = state.set_back(*on_disk);
            state.history.set_back(history);
        } else {
            state.era += 1;
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Has batches of writes reach the disk late, and accepts positions of the feed that lie ahead.
    pub(crate) fn be_careless(&self, is_lazy: bool, accepts_positions_ahead: bool) {
        let mut state = self.state();
        state.is_lazy = is_lazy;
        state.history.accepts_positions_ahead = accepts_positions_ahead;
        state.flush();
    }

    /// Carries out everything that was late.
    pub(crate) fn deliver(&self) {
        let late = std::mem::take(&mut self.state().late);
        for (by, request) in late {
            self.state().arrive(by, request);
        }
        self.news.notify_waiters();
    }

    /// Carries out one late request; false if there is none.
    pub(crate) fn deliver_one(&self) -> bool {
        let mut state = self.state();
        if state.late.is_empty() {
            return false;
        }
        let count = state.late.len() as u64;
        let index = usize::try_from(state.weather.below(count)).expect("an index");
        let (by, request) = state.late.remove(index);
        state.arrive(by, request);
        drop(state);
        self.news.notify_waiters();
        true
    }

    /// What is on its way for ever arrives never.
    pub(crate) fn lose_late(&self) {
        self.state().late.clear();
    }

    /// A node is at a place where it may die; if so, this does not return.
    pub(crate) fn pass(&self, life: Option<Life>, place: &str) {
        let Some(Life { node, number }) = life else {
            return;
        };
        let mut state = self.state();
        if state.lives.get(&node).copied().unwrap_or_default() != number {
            drop(state);
            std::panic::resume_unwind(Box::new(format!("node {node} was switched off before {place}")));
        }
        *state.passed.entry(place.to_owned()).or_default() += 1;
        let Some(doom) = state.dooms.get_mut(&node) else {
            return;
        };
        if doom.place.as_ref().is_some_and(|doomed| doomed != place) {
            return;
        }
        if doom.visits > 0 {
            doom.visits -= 1;
            return;
        }
        let disk = doom.disk.clone();
        state.dooms.remove(&node);
        state.died.insert(node, place.to_owned());
        *state.lives.entry(node).or_default() += 1;
        drop(state);
        disk.cut();
        // Ends the task without a word on the screen.
        std::panic::resume_unwind(Box::new(format!("node {node} dies at {place}")));
    }

    /// The step of a round that is running in the current task.
    pub(crate) fn pass_step(&self, step: &str) {
        let task = tokio::task::try_id();
        let life = task.and_then(|task| self.state().tasks.get(&task).copied());
        self.pass(life, step);
    }
}

/// How a centre is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetBack {
    Dump,
    Files,
}

/// What a centre held at some time.
#[derive(Debug, Clone)]
pub(crate) struct Backup {
    records: BTreeMap<(Kind, String), Document>,
    leases: BTreeMap<String, Lease>,
    nodes: BTreeMap<String, Document>,
    conflicts: BTreeMap<String, Document>,
    trash: BTreeMap<String, Document>,
    history: History,
}

/// The way of one node to the centre.
#[derive(Clone)]
pub(crate) struct Line {
    sim: Sim,
    life: Life,
}

#[async_trait]
impl Hub for Sim {
    async fn open(&self) -> Result<Box<dyn Central>> {
        Ok(Box::new(conversation::Conversation::new(self.clone(), None)))
    }
}

#[async_trait]
impl Hub for Line {
    async fn open(&self) -> Result<Box<dyn Central>> {
        if let Some(task) = tokio::task::try_id() {
            self.sim.state().tasks.insert(task, self.life);
        }
        let mut conversation = conversation::Conversation::new(self.sim.clone(), Some(self.life));
        conversation.begin().await?;
        Ok(Box::new(conversation))
    }
}

/// A person for the simulated centre.
pub(crate) fn person(id: &str, f: &str) -> Document {
    doc! {"_id": id, "f": f, "g": "old"}
}

pub(crate) fn person_key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}
