//! Two people under one account, against a centre in memory: who is held, what waits with them, how it ends;
//! and decisions that are written at the centre.

#![allow(clippy::unwrap_used)]

#[path = "holds/answers.rs"]
mod answers;
#[path = "holds/closed.rs"]
mod closed;
#[path = "holds/decisions.rs"]
mod decisions;
#[path = "holds/deleted_unsent.rs"]
mod deleted_unsent;
#[path = "holds/gone.rs"]
mod gone;
#[path = "holds/in_flight.rs"]
mod in_flight;
#[path = "holds/joining.rs"]
mod joining;
#[path = "holds/large.rs"]
mod large;
#[path = "holds/left_behind.rs"]
mod left_behind;
#[path = "holds/made_again.rs"]
mod made_again;
#[path = "holds/of_the_former.rs"]
mod of_the_former;
#[path = "holds/older.rs"]
mod older;
#[path = "holds/ownerless.rs"]
mod ownerless;
#[path = "holds/passwords.rs"]
mod passwords;
#[path = "holds/refused.rs"]
mod refused;
#[path = "holds/resolutions.rs"]
mod resolutions;
#[path = "holds/rewritten.rs"]
mod rewritten;
#[path = "holds/same.rs"]
mod same;
#[path = "holds/same_id.rs"]
mod same_id;
#[path = "holds/shared.rs"]
mod shared;
mod support;
#[path = "holds/taken_over.rs"]
mod taken_over;
#[path = "holds/third_person.rs"]
mod third_person;
#[path = "holds/undecided.rs"]
mod undecided;
#[path = "holds/waiting.rs"]
mod waiting;
#[path = "holds/whose.rs"]
mod whose;

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use support::sim::Sim;
use thalamus_edge::central::Hub;
use thalamus_edge::domain::access::Actor;
use thalamus_edge::domain::record::{Kind, RecordKey};
use thalamus_edge::domain::value::same_document;
use thalamus_edge::store::{
    Conflict, ConflictStatus, Store, StoreError, StoreOptions, Subject, Tx, WaitReason,
};
use thalamus_edge::sync::conflicts::{Decision, resolve};
use thalamus_edge::sync::identity::{Pair, Verdict, decide, hold_of};
use thalamus_edge::sync::{Outcome, Reconciler, Report, SyncSettings};

const OPTIONS: StoreOptions =
    StoreOptions { cache_bytes: 1 << 20, journal_keep_rows: 100_000, audit_keep_rows: 100_000, clock: || 0 };
/// The account that two people have.
const ACCT: &str = "ACC01";

/// A node and its centre.
struct Clinic {
    sim: Sim,
    store: Store,
    sync: Arc<Reconciler>,
}

fn clerk() -> Actor {
    Actor::Person("CLERK".to_owned())
}

fn key(kind: Kind, id: &str) -> RecordKey {
    RecordKey::new(kind, id)
}

/// Ana Betz and Beatriz Cordara, under the same account.
fn ana() -> Document {
    doc! {"_id": ACCT, "name": "Ana", "lastname": "Betz", "dob": "1985-10-04", "gender": "f", "phone": "1"}
}

fn beatriz() -> Document {
    doc! {"_id": ACCT, "name": "Beatriz", "lastname": "Cordara", "dob": "1984-10-05", "gender": "f", "job": "b"}
}

fn with(mut document: Document, fields: Document) -> Document {
    document.extend(fields);
    document
}

fn page(id: &str, book: &str, info: &str) -> Document {
    doc! {"_id": id, "book": book, "info": info}
}

impl Clinic {
    fn new() -> Clinic {
        Clinic::at(&Sim::default())
    }

    fn at(sim: &Sim) -> Clinic {
        Clinic::with(Store::in_memory(OPTIONS).unwrap(), sim, Duration::from_secs(60))
    }

    fn with(store: Store, sim: &Sim, round_timeout: Duration) -> Clinic {
        let hub: Arc<dyn Hub> = Arc::new(sim.clone());
        let settings = SyncSettings { round_timeout, ..SyncSettings::default() };
        Clinic { sim: sim.clone(), sync: Reconciler::new(store.clone(), Some(hub), settings), store }
    }

    /// Ana was made here and Beatriz at the centre.
    async fn with_hold() -> Clinic {
        let clinic = Clinic::new();
        clinic.edit(Kind::Person, ana()).await;
        clinic.there(Kind::Person, beatriz());
        clinic.round().await;
        assert_eq!(clinic.holds(), 1);
        clinic
    }

    async fn round(&self) -> Report {
        let report = self.sync.round().await;
        assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
        report
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.transact(job).await.unwrap()
    }

    /// Somebody of this node writes a record.
    async fn edit(&self, kind: Kind, document: Document) {
        let key = key(kind, document.get_str("_id").unwrap());
        self.run(move |tx| tx.edit(&key, Some(&document), &clerk())).await;
    }

    async fn delete(&self, kind: Kind, id: &str) {
        let key = key(kind, id);
        self.run(move |tx| tx.edit(&key, None, &clerk())).await;
    }

    /// Somebody else writes a record at the centre.
    fn there(&self, kind: Kind, document: Document) {
        self.sim.put(kind, document);
    }

    fn here(&self, kind: Kind, id: &str) -> Option<Document> {
        let record = self.store.read().unwrap().record(&key(kind, id)).unwrap()?;
        Some(Document::try_from(record.document.as_ref()).unwrap())
    }

    /// The texts of the pages of an account.
    fn book(&self, account: &str) -> Vec<String> {
        let records =
            self.store.read().unwrap().list_of(Kind::Page, account, None, 9, 9_999).unwrap().records;
        records.into_iter().map(|record| record.document.get_str("info").unwrap().to_owned()).collect()
    }

    fn held(&self, kind: Kind, id: &str) -> Option<Document> {
        self.store.read().unwrap().held(&key(kind, id)).unwrap().map(|held| held.document)
    }

    fn at_centre(&self, kind: Kind, id: &str) -> Option<Document> {
        self.sim.get(kind, id)
    }

    fn waits_for(&self, kind: Kind, id: &str) -> Option<WaitReason> {
        self.store.read().unwrap().waiting_of(&key(kind, id)).unwrap().map(|waiting| waiting.why)
    }

    fn holds(&self) -> u64 {
        self.store.read().unwrap().holds_count().unwrap()
    }

    fn conflicts(&self) -> Vec<Conflict> {
        self.store.read().unwrap().conflicts().unwrap()
    }

    /// The conflict about who somebody is.
    fn identity(&self) -> Conflict {
        let found: Vec<_> = self.conflicts().into_iter().filter(Conflict::is_identity).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    fn pair(&self) -> Pair {
        hold_of(&self.store.read().unwrap(), &self.identity()).unwrap().expect("a hold").1
    }

    async fn decide(&self, verdict: Verdict) {
        let (conflict, pair) = (self.identity(), self.pair());
        let decided = decide(&self.store, &conflict.id, verdict, pair, clerk()).await.unwrap();
        assert_eq!(decided.status, ConflictStatus::Resolved);
        assert_eq!(decided.resolved_by.as_deref(), Some("person:CLERK"));
    }

    /// The conflict about two records under one id, if there is one that waits.
    fn record_conflict(&self) -> Option<Conflict> {
        let is_open = |c: &Conflict| c.subject == Subject::Record && c.status == ConflictStatus::Open;
        self.conflicts().into_iter().find(is_open)
    }

    /// Decides between two records under one id, if somebody has to.
    async fn decide_record(&self, decision: Decision) {
        let Some(conflict) = self.record_conflict() else {
            return;
        };
        let seen = self.here(conflict.key.kind, &conflict.key.id).map(Bson::Document);
        let allow = |_: &_, _: Option<&_>, _: Option<&_>| Ok(());
        resolve(&self.store, &conflict.id, decision, seen, clerk(), allow).await.unwrap();
    }

    /// Both sides are the same, nothing waits and nothing is left to do.
    async fn assert_settled(&self) {
        for _ in 0..2 {
            self.round().await;
        }
        let report = self.round().await;
        assert_eq!((report.pulled, report.pushed, report.merged, report.deleted), (0, 0, 0, 0), "{report:?}");
        let snapshot = self.store.read().unwrap();
        let pending = snapshot.pending(None, usize::MAX).unwrap();
        let waiting = snapshot.waiting(None, usize::MAX).unwrap();
        let left = (snapshot.holds_count().unwrap(), snapshot.pending_count().unwrap());
        assert_eq!(left, (0, 0), "{pending:?} {waiting:?}");
        let mut here = Vec::new();
        for kind in Kind::ALL {
            for record in snapshot.list(kind, None, usize::MAX, usize::MAX).unwrap().records {
                let document = Document::try_from(record.document.as_ref()).unwrap();
                here.push(((kind, record.id), document));
            }
        }
        let there = self.sim.state().records.clone();
        assert_eq!(here.len(), there.len(), "here: {here:#?}\nthere: {there:#?}");
        for (at, document) in &here {
            assert!(same_document(document, &there[at]), "{at:?}: {document} and {}", there[at]);
        }
    }
}
