//! Floor 2. The centre over MongoDB's wire protocol: the only place that knows the driver.
//!
//! A conversation is one client on the primary with majority read and write concern; its reads are
//! causally consistent with each other and with its writes. Every call has a time limit. Strings compare
//! by bytes even where a collection was made with another collation. Neither the address nor values of
//! documents appear in errors.

pub(super) mod address;
mod conversation;
mod counters;
mod cursors;
mod diagnosis;
mod error;
mod feed;
mod filter;
mod gridfs;
mod line;
mod read;
mod rows;
mod trash_rows;
mod write;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, Timestamp, doc};
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::{
    Acknowledgment, ClientOptions, Collation, Compressor, ReadConcern, ReadPreference, SelectionCriteria,
    ServerMonitoringMode, WriteConcern,
};
use mongodb::{Client, ClientSession, ClusterTime, Collection, Database};

use self::counters::Counters;
use self::diagnosis::look;
use self::line::{Line, Meter, Patience};
use super::survey::{Diagnosis, Trouble};
use super::{Central, CentralError, CentreAddress, Hub, Result, unusable_address};
use crate::domain::record::Kind;

/// Longest that an exchange with the server may go without anything of it travelling.
const CALL_SECONDS_MAX: u64 = 30;
/// Longest that a connection may take to be made, unless the address says otherwise.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Longest to wait for a primary to be found, unless the address says otherwise: longer than an election takes.
const SELECT_SECONDS_MAX: u64 = 20;
/// Longest that the server waits for the majority before it reports a write as not confirmed: shorter
/// than the call, so that the answer arrives.
const CONFIRM_SECONDS_MAX: u64 = 20;
/// Longest that the server waits for something to happen before it tells a feed that nothing did, unless the
/// hub says otherwise.
const FEED_WAIT_MS: u64 = 500;
/// The same at a router, which has nothing to tell before every shard has said how far it is: one that is idle says so
/// every ten seconds, and each earlier answer is an exchange for nothing.
const ROUTER_FEED_WAIT_SECONDS: u64 = 5;
/// Time between two looks at the state of the servers, each of some hundred bytes.
const HEARTBEAT_SECONDS: u64 = 10;
/// Connections per server: one for the conversation, one for one beside it, one for the feed and for cursors
/// given up meanwhile. None is made before it is needed.
const CONNECTIONS_MAX: u32 = 3;
/// Most statements that say how to compare without knowing whether they have to.
const COLLATIONS_UNASKED_MAX: usize = 12;
/// Said once in the life of a process.
static COLLATIONS_TOLD: Once = Once::new();
/// Longest name that a client may give itself, in bytes.
const APP_NAME_BYTES_MAX: usize = 128;

/// A centre reached by a MongoDB connection string.
pub struct MongoHub {
    address: CentreAddress,
    call_limit: Duration,
    feed_wait: Duration,
    /// Longest that [`MongoHub::survey`] takes, all in all.
    survey_limit: Duration,
    bulk_write: bool,
    counts_command_bytes: bool,
    /// Up to where the last conversation that ended well has seen the centre's history: the next one sees no less, also
    /// at another member. Taken by the conversation that begins, so that one that fails over it fails once.
    seen: Arc<Mutex<Option<Seen>>>,
    /// What the conversation that was opened last has found, and what keeps it from finding anything.
    opened: Mutex<Option<Arc<Counters>>>,
    trouble: Mutex<Option<Trouble>>,
}

/// A moment of the centre's history, as the driver hands it on: of the cluster, and of what was read and written.
#[derive(Debug, Clone)]
struct Seen {
    cluster_time: Option<ClusterTime>,
    operation_time: Timestamp,
}

impl MongoHub {
    pub fn new(address: CentreAddress) -> Self {
        Self {
            address,
            call_limit: Duration::from_secs(CALL_SECONDS_MAX),
            feed_wait: Duration::from_millis(FEED_WAIT_MS),
            survey_limit: look::SURVEY_LIMIT,
            bulk_write: true,
            counts_command_bytes: false,
            seen: Arc::default(),
            opened: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// Also counts the bytes of commands and answers. The driver decodes each of them once more for that: a sixth of
    /// a node's work in a first sync.
    pub fn counting_command_bytes(mut self, counts: bool) -> Self {
        self.counts_command_bytes = counts;
        self
    }

    /// Lets the server answer an open feed less often while nothing happens: for connections that stay open.
    pub fn with_feed_wait(mut self, wait: Duration) -> Self {
        self.feed_wait = wait;
        self
    }

    /// Another limit for all of [`MongoHub::survey`] together.
    pub fn with_survey_limit(mut self, limit: Duration) -> Self {
        self.survey_limit = limit;
        self
    }

    /// Another limit for each exchange with the server.
    pub fn with_call_limit(mut self, limit: Duration) -> Self {
        self.call_limit = limit;
        self
    }

    /// Writes as for servers before 8.0, which have no `bulkWrite`, even where the server has it.
    pub fn without_bulk_write(mut self) -> Self {
        self.bulk_write = false;
        self
    }

    async fn options(&self, counters: &Arc<Counters>, patience: &Patience) -> Result<ClientOptions> {
        let read = address::read(&self.address.uri).map_err(|problems| unusable_address(&problems))?;
        let parsing = async { ClientOptions::parse(read.connection).await };
        let mut options = patience.attempt(parsing).await?.map_err(|error| error::of_address(&error))?;
        options.app_name = Some(app_name(&self.address.app_name));
        options.connect_timeout.get_or_insert(Duration::from_secs(CONNECT_SECONDS_MAX));
        options.server_selection_timeout.get_or_insert(Duration::from_secs(SELECT_SECONDS_MAX));
        options.heartbeat_freq = Some(Duration::from_secs(HEARTBEAT_SECONDS));
        // The streaming protocol would keep a second connection busy for news that no round needs.
        options.server_monitoring_mode = Some(ServerMonitoringMode::Poll);
        options.max_pool_size = Some(CONNECTIONS_MAX);
        options.min_pool_size = None;
        options.compressors = Some(vec![Compressor::Zstd { level: None }]);
        options.read_concern = Some(ReadConcern::majority());
        options.write_concern = Some(confirmed());
        // See `write_now`.
        options.retry_writes = Some(false);
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let watched = Arc::clone(counters);
        options.sdam_event_handler = Some(EventHandler::callback(move |event| watched.note(&event)));
        let counted = Arc::clone(counters);
        // For every command a connection is taken out of the pool; for looks at the servers and handshakes none is.
        options.cmap_event_handler = Some(EventHandler::callback(move |event| {
            if matches!(event, CmapEvent::ConnectionCheckedOut(_))
                && !counted.is_closing.load(Ordering::Relaxed)
            {
                counted.round_trips.fetch_add(1, Ordering::Relaxed);
            }
        }));
        if self.counts_command_bytes {
            let counted = Arc::clone(counters);
            options.command_event_handler =
                Some(EventHandler::callback(move |event| counted.count_bytes(event)));
        }
        Ok(options)
    }
}

#[async_trait]
impl Hub for MongoHub {
    async fn open(&self) -> Result<Box<dyn Central>> {
        let counters = Arc::new(Counters::default());
        let meter = Arc::new(Meter::default());
        let patience = Patience { limit: self.call_limit, meter: Arc::clone(&meter) };
        let mut options = self.options(&counters, &patience).await?;
        let (line, proxy) = Line::open(&patience).await?;
        options.socks5_proxy = Some(proxy);
        let client = Client::with_options(options).map_err(|error| error::of_address(&error))?;
        *lock(&self.opened) = Some(Arc::clone(&counters));
        *lock(&self.trouble) = None;
        let (mut reading, writing) = sessions(&client, &patience).await?;
        if let Some(seen) = lock(&self.seen).take() {
            if let Some(time) = &seen.cluster_time {
                reading.advance_cluster_time(time);
            }
            reading.advance_operation_time(seen.operation_time);
        }
        Ok(Box::new(MongoCentral {
            seen: Arc::clone(&self.seen),
            database: client.database(&self.address.database),
            client,
            reading,
            writing,
            address: self.address.clone(),
            patience,
            feed_wait: self.feed_wait,
            line: Arc::new(line),
            bulk_write: self.bulk_write,
            has_collations: None,
            has_schemas: true,
            replaces_dollar_names: true,
            has_content_indexes: false,
            scan: None,
            told: feed::Told::default(),
            counters,
            fault: None,
        }))
    }

    async fn obstacle(&self) -> CentralError {
        let opened = lock(&self.opened).clone();
        let trouble = self.obstacle_of(opened).await;
        let error = CentralError::Offline(trouble.reason.clone().into());
        *lock(&self.trouble) = Some(trouble);
        error
    }

    async fn diagnose(&self) -> Diagnosis {
        let known = lock(&self.trouble).take();
        match known {
            Some(trouble) => Diagnosis::Trouble(trouble),
            None => self.cause().await,
        }
    }
}

/// For reading and for writing.
async fn sessions(client: &Client, patience: &Patience) -> Result<(ClientSession, ClientSession)> {
    let session = async |causal| {
        let starting = async { client.start_session().causal_consistency(causal).await };
        patience.limited(starting).await
    };
    Ok((session(true).await?, session(false).await?))
}

/// `name` cut to what the protocol allows.
fn app_name(name: &str) -> String {
    let mut end = name.len().min(APP_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

fn by_bytes() -> Collation {
    Collation::builder().locale("simple").build()
}

/// Durable on a majority.
fn confirmed() -> WriteConcern {
    WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .w_timeout(Duration::from_secs(CONFIRM_SECONDS_MAX))
        .build()
}

/// [`confirmed`] for commands that the driver sends as they are.
fn confirmed_document() -> Document {
    let milliseconds = i64::try_from(CONFIRM_SECONDS_MAX * 1000).unwrap_or(i64::MAX);
    doc! {"w": "majority", "j": true, "wtimeout": milliseconds}
}

struct MongoCentral {
    client: Client,
    database: Database,
    /// Causally consistent.
    reading: ClientSession,
    /// A causally consistent session would send a read concern with writes, which not every server takes;
    /// instead its times are handed to the reading one.
    writing: ClientSession,
    address: CentreAddress,
    patience: Patience,
    feed_wait: Duration,
    /// Where its bytes pass; open as long as the conversation and those beside it.
    line: Arc<Line>,
    /// Until the server turns out to be older than 8.0.
    bulk_write: bool,
    /// Whether a collection has, or may have, a collation of its own; `None` until asked.
    has_collations: Option<bool>,
    /// Until the engine turns out not to know `$jsonSchema`.
    has_schemas: bool,
    /// Until the server turns out to be older than 5.0, by a row with a name that begins with `$`.
    replaces_dollar_names: bool,
    /// Whether this conversation has asked for the indexes of attachments.
    has_content_indexes: bool,
    scan: Option<read::Scan>,
    /// Up to where the change feed has told.
    told: feed::Told,
    counters: Arc<Counters>,
    /// [`Central::take_fault`].
    fault: Option<CentralError>,
    /// The hub's, for the next conversation.
    seen: Arc<Mutex<Option<Seen>>>,
}

impl MongoCentral {
    /// How long the server waits for something to happen before it tells a feed that nothing did.
    fn feed_wait(&self) -> Duration {
        match self.counters.is_router.load(Ordering::Relaxed) {
            true => self.feed_wait.max(Duration::from_secs(ROUTER_FEED_WAIT_SECONDS)),
            false => self.feed_wait,
        }
    }

    fn keep_seen(&self) {
        let sessions = [&self.reading, &self.writing];
        let times = sessions.iter().filter_map(|session| session.operation_time()).chain(self.told.time());
        if let Some(operation_time) = times.max() {
            let cluster_time = sessions.iter().filter_map(|session| session.cluster_time()).max().cloned();
            *lock(&self.seen) = Some(Seen { cluster_time, operation_time });
        }
    }

    fn records(&self, kind: Kind) -> Collection<Document> {
        self.database.collection(self.address.collection(kind))
    }

    /// Sends a writing command as it is and hands back the reply.
    async fn command(&mut self, command: Document) -> Result<Document> {
        let running = self.database.run_command(command).session(&mut self.writing);
        let reply = self.patience.limited(async { running.await }).await?;
        self.read_after_writes();
        Ok(reply)
    }

    /// Makes later reads see the writes so far, also from a new primary.
    fn read_after_writes(&mut self) {
        if let Some(time) = self.writing.operation_time() {
            self.reading.advance_operation_time(time);
            // Conversations beside this one read as late.
            self.told.note(time);
        }
        if let Some(time) = self.writing.cluster_time() {
            self.reading.advance_cluster_time(time);
        }
    }

    /// Makes later reads see what the change feed told, also from a new primary.
    fn read_after_news(&mut self) {
        if let Some(time) = self.told.time() {
            self.reading.advance_operation_time(time);
        }
    }

    /// The collation to ask for in so many statements. It is 40 bytes in each, and to find out whether it is
    /// needed costs an exchange: a few say it without asking.
    async fn collation_of(&mut self, statements: usize) -> Result<Option<Collation>> {
        if self.has_collations.is_none() && statements <= COLLATIONS_UNASKED_MAX {
            return Ok(Some(by_bytes()));
        }
        self.collation().await
    }

    /// The collation to ask for, if records do not compare by bytes anyway.
    async fn collation(&mut self) -> Result<Option<Collation>> {
        let has_collations = match self.has_collations {
            Some(known) => known,
            None => self.look_for_collations().await?,
        };
        self.has_collations = Some(has_collations);
        Ok(has_collations.then(by_bytes))
    }

    /// Whether the engine turns out to have no collations: then it compares by bytes, and is not asked to any more.
    fn has_no_collations(&mut self, failure: &mongodb::error::Error) -> bool {
        let is_so = error::is_unsupported(failure);
        if is_so {
            self.has_collations = Some(false);
        }
        is_so
    }

    async fn look_for_collations(&mut self) -> Result<bool> {
        let listing = doc! {
            "listCollections": 1,
            "filter": {"options.collation": {"$exists": true}},
        };
        let running = self.database.run_command(listing).session(&mut self.reading);
        match self.patience.attempt(async { running.await }).await? {
            Ok(reply) => {
                let found = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch"));
                let has_some = !found.is_ok_and(Vec::is_empty);
                if has_some {
                    COLLATIONS_TOLD.call_once(|| {
                        tracing::warn!(
                            "collections at the centre have a collation of their own, which makes every write slow: \
                             `thalamus-edge doctor` names them"
                        );
                    });
                }
                Ok(has_some)
            }
            Err(failure) => match error::of_call(&failure) {
                // A node may have no right to look.
                CentralError::Refused(_) | CentralError::Failed(_) => Ok(true),
                offline => Err(offline),
            },
        }
    }
}

/// A poisoned lock only means that another thread panicked between two assignments.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A count in a reply; servers write them in any numeric type.
fn number(reply: &Document, key: &str) -> Option<u64> {
    match reply.get(key)? {
        Bson::Int32(n) => u64::try_from(*n).ok(),
        Bson::Int64(n) => u64::try_from(*n).ok(),
        Bson::Double(n) if n.fract() == 0.0 && *n >= 0.0 => Some(*n as u64),
        _ => None,
    }
}

/// The centre did not confirm a write: it may be undone by a change of primary.
fn unconfirmed(reply: &Document) -> Option<CentralError> {
    unconfirmed_code(reply).map(error::unconfirmed)
}

/// The code with which a reply says that its writes are not confirmed; 0 if it names none.
fn unconfirmed_code(reply: &Document) -> Option<i32> {
    let failure = reply.get("writeConcernError")?.as_document();
    Some(failure.and_then(|failure| failure.get_i32("code").ok()).unwrap_or_default())
}
