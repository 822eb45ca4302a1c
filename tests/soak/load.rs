//! What clients of the node and somebody at the centre do all the time. It leaves as many records as there were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::support::federation::Federation;
use super::support::generator::Numbers;
use super::support::node::{Client, Gone, Reply};

/// Clients, each with one connection that stays.
const CLIENTS: usize = 4;
/// Connections of all: each client may just try to log in as somebody else.
pub(crate) const CONNECTIONS_MAX: usize = 2 * CLIENTS;
/// Who tries to log in, from this address, with a wrong password.
const STRANGERS: u64 = 3;
const STRANGE_ADDRESS: [u8; 4] = [127, 0, 0, 2];
const THINKING: Duration = Duration::from_millis(5);
const CENTRE_WRITES_EVERY: Duration = Duration::from_millis(40);
/// Changes asked for at a time.
const CHANGES_MAX: u64 = 100;

/// How often what was done.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

pub(crate) struct Load {
    clients: Vec<JoinHandle<Counts>>,
    centre: JoinHandle<Counts>,
}

/// Begins all that goes on until `is_over`.
pub(crate) async fn begin(
    federation: &Federation,
    centre_deletes_every: Duration,
    is_over: &Arc<AtomicBool>,
) -> Load {
    let node = &federation.nodes[0];
    let text = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
    let people: Vec<String> =
        node.get("/people").await.as_array().unwrap().iter().map(|person| text(person, "_id")).collect();
    let mut pages = Vec::new();
    for person in &people {
        let book = node.get(&format!("/pols/{person}")).await;
        pages.extend(
            book.as_array().unwrap().iter().map(|page| format!("/pols/{person}/{}", text(page, "_id"))),
        );
    }
    let (people, pages) = (Arc::new(people), Arc::new(pages));
    let client = |number: usize| {
        let worker = Worker {
            client: node.new_client(),
            number,
            people: Arc::clone(&people),
            pages: Arc::clone(&pages),
            numbers: Numbers::new(number as u64),
            seen: None,
            counts: Counts::new(),
        };
        tokio::spawn(worker.work(Arc::clone(is_over)))
    };
    let centre = Centre {
        people: federation.centre("people"),
        encounters: federation.centre("encounter"),
        accounts: Arc::clone(&people),
        deletes_every: centre_deletes_every,
    };
    Load {
        clients: (0..CLIENTS).map(client).collect(),
        centre: tokio::spawn(centre.work(Arc::clone(is_over))),
    }
}

impl Load {
    /// Whether all are still at it; one that has failed has ended.
    pub(crate) fn goes_on(&self) -> bool {
        !self.centre.is_finished() && !self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Waits for the end and says how often what was done.
    pub(crate) async fn ended(self) -> Counts {
        let mut counts = self.centre.await.unwrap();
        for client in self.clients {
            for (what, count) in client.await.unwrap() {
                *counts.entry(what).or_default() += count;
            }
        }
        counts
    }
}

/// One client.
struct Worker {
    client: Client,
    number: usize,
    people: Arc<Vec<String>>,
    /// Paths.
    pages: Arc<Vec<String>>,
    numbers: Numbers,
    /// The last change that it was told of.
    seen: Option<u64>,
    counts: Counts,
}

impl Worker {
    async fn work(mut self, is_over: Arc<AtomicBool>) -> Counts {
        for turn in 0.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            self.act(turn).await;
            tokio::time::sleep(THINKING).await;
        }
        self.counts
    }

    async fn act(&mut self, turn: u64) {
        let person = self.numbers.pick(&self.people).clone();
        match self.numbers.below(100) {
            0..30 => drop(self.done("read a person", "GET", &format!("/people/{person}"), None).await),
            30..55 => {
                let page = self.numbers.pick(&self.pages).clone();
                self.done("read a page", "GET", &page, None).await;
            }
            55..68 => drop(self.done("listed a book", "GET", &format!("/pols/{person}"), None).await),
            68..70 => drop(self.done("listed people", "GET", "/people", None).await),
            70..76 => self.follow().await,
            76..86 => {
                let phone = json!({"phone": format!("{} {turn}", self.number)});
                self.done("changed a person", "PATCH", &format!("/people/{person}"), Some(&phone)).await;
            }
            86..98 => self.make_and_delete(&person, turn).await,
            _ => self.guess().await,
        }
    }

    /// A personal document or a page that does not stay.
    async fn make_and_delete(&mut self, person: &str, turn: u64) {
        let id = format!("c{}t{turn}", self.number);
        let (path, body) = match self.numbers.chance(50) {
            true => {
                let path = format!("/pols/{person}/{id}");
                (path, json!({"id": id, "summary": "made"}))
            }
            false => {
                let path = format!("/personal-documents/{id}");
                (path, json!({"fedacct": person, "summary": "made"}))
            }
        };
        self.done("created", "POST", &path, Some(&body)).await;
        self.done("changed what is new", "PATCH", &path, Some(&json!({"summary": "changed"}))).await;
        self.done("read what is new", "GET", &path, None).await;
        self.done("deleted", "DELETE", &path, None).await;
    }

    /// Asks what has changed since it asked last; begins anew if that is too long ago.
    async fn follow(&mut self) {
        let since = self.seen.map_or_else(String::new, |seen| format!("&since={seen}"));
        let reply = self.call("GET", &format!("/changes?limit={CHANGES_MAX}{since}"), None).await;
        self.seen = match reply.status {
            200 => reply.json()["last"].as_u64(),
            410 => None,
            status => panic!("/changes: {status}"),
        };
        self.count("followed changes");
    }

    /// A wrong password, over a connection of its own.
    async fn guess(&mut self) {
        let name = format!("GUESS{}", self.numbers.below(STRANGERS));
        let stranger = self.client.of(STRANGE_ADDRESS, &name, "wrong password");
        let reply = stranger.call("GET", "/people", &[], None).await.unwrap();
        assert!([401, 429].contains(&reply.status), "{}", reply.status);
        self.count("guessed");
    }

    async fn done(&mut self, what: &'static str, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let reply = self.call(method, path, body).await;
        let said = String::from_utf8_lossy(&reply.body);
        assert!(reply.is_success(), "{method} {path}: {} {said}", reply.status);
        self.count(what);
        reply
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let called = self.client.call(method, path, &[], body).await;
        called.unwrap_or_else(|Gone(why)| panic!("{method} {path}: {why}"))
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

/// Somebody who writes to the centre, to fields that the node's clients leave alone.
struct Centre {
    people: Collection<Document>,
    encounters: Collection<Document>,
    accounts: Arc<Vec<String>>,
    deletes_every: Duration,
}

impl Centre {
    async fn work(self, is_over: Arc<AtomicBool>) -> Counts {
        let (mut counts, mut numbers, mut made) = (Counts::new(), Numbers::new(CLIENTS as u64), 0_u64);
        let mut last = Instant::now();
        for turn in 0_i64.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let account = numbers.pick(&self.accounts);
            let set = doc! {"$set": {"profession": turn}};
            let changed = self.people.update_one(doc! {"_id": account}, set).await.unwrap();
            assert_eq!(changed.matched_count, 1, "{account}");
            *counts.entry("changed at the centre").or_default() += 1;
            if last.elapsed() >= self.deletes_every {
                last = Instant::now();
                made += 1;
                let id = |number: u64| format!("centre{number}");
                self.encounters.insert_one(doc! {"_id": id(made), "person": account}).await.unwrap();
                // Absent the first time.
                self.encounters.delete_one(doc! {"_id": id(made - 1)}).await.unwrap();
                *counts.entry("made and deleted at the centre").or_default() += 1;
            }
            tokio::time::sleep(CENTRE_WRITES_EVERY).await;
        }
        counts
    }
}
