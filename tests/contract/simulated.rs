//! The same contract, kept by the simulated centre: what the simulation shows is worth no more than this.

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use thalamus_edge::central::content::FILES_COLLECTION;
use thalamus_edge::central::{Central, Hub};
use thalamus_edge::domain::record::Kind;

use crate::contract::cases::Sending;
use crate::contract::{Behind, cases, feeds, ledger, reading};
use crate::support::sim::{SetBack, Sim};

#[async_trait]
impl Behind for Sim {
    async fn put(&self, kind: Kind, document: Document) {
        Sim::put(self, kind, document);
    }

    async fn put_all(&self, kind: Kind, documents: Vec<Document>) {
        documents.into_iter().for_each(|document| Sim::put(self, kind, document));
    }

    async fn get(&self, kind: Kind, id: &str) -> Option<Document> {
        Sim::get(self, kind, id)
    }

    async fn row(&self, collection: &str, id: &str) -> Option<Document> {
        Sim::row(self, collection, id)
    }

    async fn set_row(&self, collection: &str, row: Document) {
        Sim::set_row(self, collection, row);
    }

    async fn update(&self, kind: Kind, id: &str, set: Document, unset: &[&str]) {
        let mut fields: Vec<(&str, Option<Bson>)> =
            set.iter().map(|(path, value)| (path.as_str(), Some(value.clone()))).collect();
        fields.extend(unset.iter().map(|path| (*path, None)));
        Sim::update(self, kind, id, &fields);
    }

    async fn replace(&self, kind: Kind, document: Document) {
        Sim::put(self, kind, document);
    }

    async fn remove(&self, kind: Kind, id: &str) {
        Sim::remove(self, kind, id);
    }

    async fn put_elsewhere(&self, collection: &str, documents: Vec<Document>) {
        for document in documents {
            self.happen_elsewhere();
            if let (FILES_COLLECTION, Some(id)) =
                (collection, document.get("_id").filter(|id| id.as_str().is_none()))
            {
                self.contents().other_ids.push(id.clone().into_relaxed_extjson().to_string());
            }
        }
    }

    async fn rename(&self, from: &str, to: &str) {
        if [from, to].iter().any(|name| Kind::from_collection(name).is_some()) {
            self.upheave();
        } else {
            self.happen_elsewhere();
        }
    }

    async fn drop_collection(&self, collection: &str) {
        self.rename(collection, "").await;
    }

    async fn drop_everything(&self) {
        self.upheave();
    }
}

async fn open(sim: &Sim) -> Box<dyn Central> {
    sim.open().await.expect("a conversation")
}

#[tokio::test(start_paused = true)]
async fn the_simulated_centre_compares_and_sets() {
    for sending in [Sending::OneByOne, Sending::Together] {
        let sim = Sim::default();
        // What is deleted must have been archived; here it is about the deletes.
        sim.state().is_archive_checked = false;
        let left_open = cases::run(open(&sim).await.as_mut(), &sim, Kind::Person, sending).await;
        assert_eq!(left_open, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulated_centre_is_read_as_it_is() {
    let sim = Sim::default();
    let mut central = open(&sim).await;
    reading::order_and_resumption(central.as_mut(), &sim, Kind::Event).await;
    reading::fetch(central.as_mut(), &sim, Kind::Person).await;
    reading::large_fetch(central.as_mut(), &sim, Kind::Person).await;
    reading::identities(central.as_mut(), &sim).await;
    reading::scan_many(central.as_mut(), &sim, Kind::Page, 2_000).await;
    sim.state().unreadable.extend(["u2".to_owned(), "u3".to_owned()]);
    reading::unreadable(central.as_mut(), &sim, Kind::Institution).await;
    reading::beside(central.as_mut()).await;
    // However little is told at a time.
    sim.state().answer_max = 2;
    assert_eq!(reading::scan_all(central.as_mut(), Kind::Page, None, 100).await.len(), 2_000);
}

#[tokio::test(start_paused = true)]
async fn the_simulated_centre_keeps_leases_conflicts_and_the_archive() {
    let sim = Sim::default();
    let mut central = open(&sim).await;
    ledger::leases(central.as_mut(), &sim).await;
    ledger::conflicts(central.as_mut(), &sim).await;
    ledger::reopened_conflicts(central.as_mut(), &sim).await;
    ledger::resolutions(central.as_mut(), &sim).await;
    ledger::large_resolutions(central.as_mut(), &sim).await;
    ledger::waiting_conflicts(central.as_mut(), &sim).await;
    ledger::large_waiting_conflicts(central.as_mut(), &sim).await;
    ledger::closed_conflicts(central.as_mut(), &sim).await;
    ledger::answers(central.as_mut(), &sim).await;
    ledger::archive(central.as_mut(), &sim).await;
    ledger::lease_race(central.as_mut(), open(&sim).await.as_mut()).await;
}

#[tokio::test(start_paused = true)]
async fn the_simulated_centre_tells_what_happens() {
    let sims: [Sim; 5] = std::array::from_fn(|_| Sim::with_history());
    feeds::told_in_order(open(&sims[0]).await.as_mut(), &sims[0]).await;
    feeds::own_writes_and_lease(open(&sims[1]).await.as_mut(), &sims[1]).await;
    feeds::told_as_changed(open(&sims[2]).await.as_mut(), &sims[2]).await;
    feeds::moments(open(&sims[2]).await.as_mut(), &sims[2]).await;
    feeds::small_answers(open(&sims[2]).await.as_mut(), &sims[2]).await;
    feeds::idling(open(&sims[3]).await.as_mut(), &sims[3]).await;
    feeds::upheavals(open(&sims[4]).await.as_mut(), &sims[4]).await;
    let sim = Sim::with_history();
    let (mut central, mut other) = (open(&sim).await, open(&sim).await);
    feeds::continuation(central.as_mut(), other.as_mut(), &sim).await;
    let token = feeds::watch(central.as_mut(), None, &[]).await.token().expect("a token");
    Sim::put(&sim, Kind::Person, doc! {"_id": "more"});
    sim.forget_history(0);
    feeds::forgotten(central.as_mut(), &token).await;
    feeds::nonsense(central.as_mut()).await;
    // A restored centre has another history.
    let token = feeds::watch(central.as_mut(), None, &[]).await.token().expect("a token");
    let backup = sim.backup();
    sim.restore(backup, SetBack::Dump);
    assert!(central.watch("me", Some(&token), &[], 64).await.is_err(), "that server is gone");
    let mut central = open(&sim).await;
    feeds::forgotten(central.as_mut(), &token).await;
    sim.state().is_standalone = true;
    sim.state().records.clear();
    feeds::unsupported(central.as_mut()).await;
}
