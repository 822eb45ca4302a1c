//! A centre in memory, with faults where a test wants them.

#[path = "sim_content.rs"]
pub(crate) mod content;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Document, doc};
use futures_util::future::BoxFuture;
use thalamus_edge::central::{
    ArchiveState, Central, CentralError, Fetched, Hub, Lease, LeaseAnswer, Result, Traffic, Write, Written,
};
use thalamus_edge::domain::diff;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::value::same_document;

/// What goes wrong with one call.
pub(crate) enum Fault {
    /// It never arrives.
    LostRequest,
    /// It is carried out, and nobody hears of it.
    LostAnswer,
    /// It is carried out later, when the test says so, and nobody hears of it.
    Late,
    /// Something else happens after it was carried out and before the answer arrives.
    Meanwhile(BoxFuture<'static, ()>),
    /// Something else happens before it is carried out.
    Before(BoxFuture<'static, ()>),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) records: BTreeMap<(Kind, String), Document>,
    pub(crate) leases: BTreeMap<String, Lease>,
    pub(crate) revoked: Vec<String>,
    pub(crate) conflicts: BTreeMap<String, Document>,
    /// How many conflicts each question for decisions was about.
    pub(crate) resolution_questions: Vec<usize>,
    pub(crate) trash: BTreeMap<String, Document>,
    /// Ids whose documents cannot be kept, that are never accepted, or that cannot be archived.
    pub(crate) unreadable: Vec<String>,
    pub(crate) refused: Vec<String>,
    pub(crate) not_archived: Vec<String>,
    pub(crate) conflicts_refused_about: Vec<String>,
    pub(crate) write_faults: VecDeque<Fault>,
    pub(crate) lease_faults: VecDeque<Fault>,
    pub(crate) scan_faults: VecDeque<Fault>,
    late: Vec<Vec<Write>>,
    /// Writes carried out, by record.
    pub(crate) writes: BTreeMap<String, usize>,
    pub(crate) scan_delay: Duration,
    pub(crate) reports: Vec<Document>,
    /// What every conversation says that it has cost, and in addition for each document handed out by a
    /// scan.
    pub(crate) traffic: Traffic,
    pub(crate) line_bytes_per_document: u64,
}

impl State {
    fn write_one(&mut self, write: &Write) -> Written {
        let at = (write.key().kind, write.key().id.clone());
        if self.refused.contains(&at.1) {
            return Written::Refused { code: 121, message: "not accepted".to_owned() };
        }
        let stored = self.records.get(&at);
        let new = match write {
            Write::Insert { document, .. } => stored.is_none().then(|| Some(document.clone())),
            Write::Update { changes, .. } => stored.and_then(|stored| {
                let holds =
                    changes.iter().all(|change| diff::holds(stored, &change.path, change.from.as_ref()));
                let mut new = stored.clone();
                changes.iter().for_each(|change| diff::set(&mut new, &change.path, change.to.clone()));
                holds.then_some(Some(new))
            }),
            Write::Replace { base, document, .. } => {
                stored.filter(|stored| same_document(stored, base)).map(|_| Some(document.clone()))
            }
            Write::Delete { base, .. } => {
                let is_archived = self.trash.values().any(|row| {
                    let says =
                        |field: &str, value: &str| row.get_str(field).is_ok_and(|found| found == value);
                    says("id", &at.1) && says("state", "pending")
                });
                assert!(is_archived, "the body of {} was not archived before its delete", at.1);
                stored.filter(|stored| same_document(stored, base)).map(|_| None)
            }
        };
        let Some(new) = new else {
            return Written::Miss;
        };
        *self.writes.entry(at.1.clone()).or_default() += 1;
        match new {
            Some(document) => self.records.insert(at, document),
            None => self.records.remove(&at),
        };
        Written::Hit
    }

    fn read(&self, id: &str, document: &Document) -> Fetched {
        if self.unreadable.iter().any(|unreadable| unreadable == id) {
            return Fetched::Unreadable { id: id.to_owned(), reason: "strange bytes".to_owned() };
        }
        Fetched::Document { id: id.to_owned(), document: document.clone() }
    }
}

/// The centre; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Sim {
    state: Arc<Mutex<State>>,
    contents: Arc<Mutex<content::Contents>>,
}

impl Sim {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the simulated centre")
    }

    pub(crate) fn contents(&self) -> MutexGuard<'_, content::Contents> {
        self.contents.lock().expect("the simulated centre's attachments")
    }

    pub(crate) fn put(&self, kind: Kind, document: Document) {
        let id = document.get_str("_id").expect("an id").to_owned();
        self.state().records.insert((kind, id), document);
    }

    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<Document> {
        self.state().records.get(&(kind, id.to_owned())).cloned()
    }

    pub(crate) fn remove(&self, kind: Kind, id: &str) {
        self.state().records.remove(&(kind, id.to_owned()));
    }

    /// Carries out the writes that were late.
    pub(crate) fn deliver(&self) {
        let mut state = self.state();
        for batch in std::mem::take(&mut state.late) {
            for write in batch {
                state.write_one(&write);
            }
        }
    }
}

fn gone() -> CentralError {
    CentralError::Offline("the line is cut".to_owned())
}

#[async_trait]
impl Hub for Sim {
    async fn open(&self) -> Result<Box<dyn Central>> {
        Ok(Box::new(Conversation { sim: self.clone(), scan: None, documents: 0 }))
    }
}

struct Conversation {
    sim: Sim,
    scan: Option<(Kind, Option<String>)>,
    documents: u64,
}

#[async_trait]
impl Central for Conversation {
    async fn fetch(&mut self, kind: Kind, ids: &[String]) -> Result<Vec<Fetched>> {
        let state = self.sim.state();
        let found = ids.iter().filter_map(|id| {
            let document = state.records.get(&(kind, id.clone()))?;
            Some(state.read(id, document))
        });
        Ok(found.collect())
    }

    async fn scan(&mut self, kind: Kind, after: Option<&str>, _: &[String]) -> Result<()> {
        self.scan = Some((kind, after.map(str::to_owned)));
        Ok(())
    }

    async fn large_ids(&mut self, _: Kind, _: Option<&str>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn scan_next(&mut self, max: usize) -> Result<Vec<Fetched>> {
        let (fault, delay) = {
            let mut state = self.sim.state();
            (state.scan_faults.pop_front(), state.scan_delay)
        };
        tokio::time::sleep(delay).await;
        let (kind, after) = self.scan.clone().expect("an open scan");
        let batch: Vec<Fetched> = {
            let state = self.sim.state();
            let records = state
                .records
                .iter()
                .filter(|((of, id), _)| *of == kind && after.as_ref().is_none_or(|after| id > after));
            records.take(max).map(|((_, id), document)| state.read(id, document)).collect()
        };
        if let Some(last) = batch.last() {
            self.scan = Some((kind, Some(last.id().to_owned())));
        }
        self.documents += batch.len() as u64;
        match fault {
            None => {}
            Some(Fault::Meanwhile(something) | Fault::Before(something)) => something.await,
            Some(_) => return Err(gone()),
        }
        Ok(batch)
    }

    async fn estimated_count(&mut self, kind: Kind) -> Result<u64> {
        Ok(self.sim.state().records.keys().filter(|(of, _)| *of == kind).count() as u64)
    }

    async fn unsupported_ids(&mut self, _: Kind, _: usize) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>> {
        let fault = self.sim.state().write_faults.pop_front();
        let carry_out = || -> Vec<Written> {
            let mut state = self.sim.state();
            batch.iter().map(|write| state.write_one(write)).collect()
        };
        match fault {
            None => Ok(carry_out()),
            Some(Fault::LostRequest) => Err(gone()),
            Some(Fault::LostAnswer) => {
                carry_out();
                Err(gone())
            }
            Some(Fault::Late) => {
                self.sim.state().late.push(batch.to_vec());
                Err(gone())
            }
            Some(Fault::Before(something)) => {
                something.await;
                Ok(carry_out())
            }
            Some(Fault::Meanwhile(something)) => {
                let written = carry_out();
                something.await;
                Ok(written)
            }
        }
    }

    async fn archive(&mut self, rows: &[Document]) -> Result<()> {
        let mut state = self.sim.state();
        let id = |row: &Document| row.get_str("id").expect("an id").to_owned();
        if rows.iter().any(|row| state.not_archived.contains(&id(row))) {
            return Err(CentralError::Failed("a row is not accepted".to_owned()));
        }
        for row in rows {
            state.trash.insert(row.get_str("_id").expect("an id").to_owned(), row.clone());
        }
        Ok(())
    }

    async fn settle_archive(&mut self, settled: &[(String, ArchiveState)]) -> Result<()> {
        let mut state = self.sim.state();
        for (id, ended) in settled {
            if let Some(row) = state.trash.get_mut(id) {
                row.insert("state", if *ended == ArchiveState::Done { "done" } else { "void" });
            }
        }
        Ok(())
    }

    async fn publish_conflicts(&mut self, rows: &[Document]) -> Result<()> {
        let mut state = self.sim.state();
        let about = |row: &Document| row.get_str("id").unwrap_or_default().to_owned();
        if rows.iter().any(|row| state.conflicts_refused_about.contains(&about(row))) {
            return Err(CentralError::Failed("a row is not accepted".to_owned()));
        }
        for row in rows {
            super::conflict_rows::publish(&mut state.conflicts, row);
        }
        Ok(())
    }

    async fn resolutions(&mut self, ids: &[String]) -> Result<Vec<Document>> {
        let mut state = self.sim.state();
        state.resolution_questions.push(ids.len());
        Ok(super::conflict_rows::resolved(&state.conflicts, ids))
    }

    async fn take_lease(
        &mut self,
        node: &str,
        expected: &[Lease],
        proposed: &Lease,
        _: &Document,
    ) -> Result<LeaseAnswer> {
        let mut state = self.sim.state();
        if state.revoked.iter().any(|revoked| revoked == node) {
            return Ok(LeaseAnswer::Revoked);
        }
        let held = state.leases.get(node).cloned();
        let is_mine = match &held {
            None => expected.is_empty(),
            Some(held) => expected.contains(held),
        };
        if !is_mine {
            return Ok(LeaseAnswer::Other(held));
        }
        match state.lease_faults.pop_front() {
            Some(Fault::LostRequest) => return Err(gone()),
            fault => {
                state.leases.insert(node.to_owned(), proposed.clone());
                if fault.is_some() {
                    return Err(gone());
                }
            }
        }
        Ok(LeaseAnswer::Taken)
    }

    async fn report(&mut self, _: &str, _: &Lease, report: &Document) -> Result<()> {
        self.sim.state().reports.push(report.clone());
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        let state = self.sim.state();
        let mut traffic = state.traffic;
        traffic.line_bytes_received += self.documents * state.line_bytes_per_document;
        traffic
    }
}

/// A person for the simulated centre.
pub(crate) fn person(id: &str, f: &str) -> Document {
    doc! {"_id": id, "f": f, "g": "old"}
}

pub(crate) fn person_key(id: &str) -> RecordKey {
    RecordKey::new(Kind::Person, id)
}
