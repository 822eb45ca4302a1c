//! Floor 2. The centre over MongoDB's wire protocol: the only place that knows the driver.
//!
//! A conversation is one client on the primary with majority read and write concern; its reads are
//! causally consistent with each other and with its writes. Every call has a time limit. Strings compare
//! by bytes even where a collection was made with another collation. Neither the address nor values of
//! documents appear in errors.

pub(super) mod address;
mod content;
mod error;
mod feed;
mod filter;
mod line;
mod read;
mod rows;
mod write;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::event::command::CommandEvent;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{
    Acknowledgment, ClientOptions, Collation, Compressor, ReadConcern, ReadPreference, SelectionCriteria,
    ServerMonitoringMode, WriteConcern,
};
use mongodb::{Client, ClientSession, Collection, Database};

use self::line::{Line, Meter, Patience};
use super::{
    ArchiveState, Central, CentralError, CentreAddress, ConflictAnswer, Fetched, Hub, Lease, LeaseAnswer,
    Moment, Resolutions, Result, Token, Traffic, Watched, Write, Written, unusable_address,
};
use crate::domain::record::{Kind, RecordKey};

/// Longest that an exchange with the server may go without anything of it travelling.
const CALL_SECONDS_MAX: u64 = 30;
/// Longest that a connection may take to be made, unless the address says otherwise.
const CONNECT_SECONDS_MAX: u64 = 5;
/// Longest to wait for a primary to be found, unless the address says otherwise.
const SELECT_SECONDS_MAX: u64 = 5;
/// Longest that the server waits for the majority before it reports a write as not confirmed: shorter
/// than the call, so that the answer arrives.
const CONFIRM_SECONDS_MAX: u64 = 20;
/// Longest that the server waits for something to happen before it tells a feed that nothing did, unless the
/// hub says otherwise.
const FEED_WAIT_MS: u64 = 500;
/// Time between two looks at the state of the servers, each of some hundred bytes.
const HEARTBEAT_SECONDS: u64 = 10;
/// Connections per server: one for the conversation, one for one beside it, one for the feed and for cursors
/// given up meanwhile. None is made before it is needed.
const CONNECTIONS_MAX: u32 = 3;
/// Most statements that say how to compare without knowing whether they have to.
const COLLATIONS_UNASKED_MAX: usize = 12;
/// Longest name that a client may give itself, in bytes.
const APP_NAME_BYTES_MAX: usize = 128;
/// Bytes around the BSON of a command or reply: message header, flags, section, checksum.
const MESSAGE_HEADER_BYTES: u64 = 26;
/// Commands with which the driver opens and closes connections, not counted as traffic of the conversation.
const HANDSHAKE_COMMANDS: [&str; 6] =
    ["hello", "isMaster", "ismaster", "saslStart", "saslContinue", "endSessions"];

/// A centre reached by a MongoDB connection string.
pub struct MongoHub {
    address: CentreAddress,
    call_limit: Duration,
    feed_wait: Duration,
    bulk_write: bool,
    counts_command_bytes: bool,
}

impl MongoHub {
    pub fn new(address: CentreAddress) -> Self {
        Self {
            address,
            call_limit: Duration::from_secs(CALL_SECONDS_MAX),
            feed_wait: Duration::from_millis(FEED_WAIT_MS),
            bulk_write: true,
            counts_command_bytes: false,
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
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let watched = Arc::clone(counters);
        options.sdam_event_handler = Some(EventHandler::callback(move |event| watched.note_process(&event)));
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
        let (line, proxy) = Line::open(Arc::clone(&meter)).await?;
        options.socks5_proxy = Some(proxy);
        let client = Client::with_options(options).map_err(|error| error::of_address(&error))?;
        let (reading, writing) = sessions(&client, &patience).await?;
        Ok(Box::new(MongoCentral {
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
            has_content_indexes: false,
            scan: None,
            told: feed::Told::default(),
            counters,
        }))
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
    /// Whether this conversation has asked for the indexes of attachments.
    has_content_indexes: bool,
    scan: Option<read::Scan>,
    /// Up to where the change feed has told.
    told: feed::Told,
    counters: Arc<Counters>,
}

impl MongoCentral {
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

    async fn look_for_collations(&mut self) -> Result<bool> {
        let listing = doc! {
            "listCollections": 1,
            "filter": {"options.collation": {"$exists": true}},
        };
        let running = self.database.run_command(listing).session(&mut self.reading);
        match self.patience.attempt(async { running.await }).await? {
            Ok(reply) => {
                let found = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch"));
                Ok(!found.is_ok_and(Vec::is_empty))
            }
            Err(failure) => match error::of_call(&failure) {
                // A node may have no right to look.
                CentralError::Refused(_) | CentralError::Failed(_) => Ok(true),
                offline => Err(offline),
            },
        }
    }
}

#[async_trait]
impl Central for MongoCentral {
    async fn fetch(&mut self, kind: Kind, ids: &[String]) -> Result<Vec<Fetched>> {
        self.fetch_records(kind, ids).await
    }

    async fn identities(&mut self, ids: &[String]) -> Result<Vec<Document>> {
        self.find_identities(ids).await
    }

    async fn scan(&mut self, kind: Kind, after: Option<&str>, without: &[String]) -> Result<()> {
        self.scan = Some(read::Scan::new(kind, after, without));
        Ok(())
    }

    async fn large_ids(&mut self, kind: Kind, after: Option<&str>) -> Result<Vec<String>> {
        self.list_large_ids(kind, after).await
    }

    async fn scan_next(&mut self, max: usize) -> Result<Vec<Fetched>> {
        self.continue_scan(max).await
    }

    async fn estimated_count(&mut self, kind: Kind) -> Result<u64> {
        let records = self.records(kind);
        let counting = async { records.estimated_document_count().await };
        self.patience.limited(counting).await
    }

    async fn watch(
        &mut self,
        node: &str,
        after: Option<&Token>,
        bodies: &[RecordKey],
        max: usize,
    ) -> Result<Watched> {
        self.open_feed(node, after, bodies, max).await
    }

    async fn unsupported_ids(&mut self, kind: Kind, max: usize) -> Result<Vec<String>> {
        self.list_unsupported_ids(kind, max).await
    }

    async fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>> {
        self.write_batch(batch).await
    }

    async fn archive(&mut self, rows: &[Document]) -> Result<()> {
        self.archive_rows(rows).await
    }

    async fn settle_archive(&mut self, settled: &[(String, ArchiveState)]) -> Result<()> {
        self.settle_archived_rows(settled).await
    }

    async fn publish_conflicts(&mut self, rows: &[Document]) -> Result<()> {
        self.publish_conflict_rows(rows).await
    }

    async fn resolutions(&mut self, ids: &[String]) -> Result<Resolutions> {
        self.conflict_rows(ids).await
    }

    async fn answer_conflicts(&mut self, answers: &[ConflictAnswer]) -> Result<()> {
        self.answer_conflict_rows(answers).await
    }

    async fn take_lease(
        &mut self,
        node: &str,
        expected: &[Lease],
        proposed: &Lease,
        announcement: &Document,
    ) -> Result<LeaseAnswer> {
        self.take_node_lease(node, expected, proposed, announcement).await
    }

    async fn node_rows(&mut self, node: &str, store: Option<&str>) -> Result<Vec<Document>> {
        self.find_node_rows(node, store).await
    }

    async fn report(&mut self, node: &str, lease: &Lease, report: &Document) -> Result<()> {
        self.report_under_lease(node, lease, report).await
    }

    fn moment(&self) -> Option<Moment> {
        let times = [self.told.time(), self.reading.operation_time(), self.writing.operation_time()];
        times.into_iter().flatten().max().map(feed::moment)
    }

    fn process(&self) -> Option<String> {
        lock(&self.counters.process).clone()
    }

    async fn beside(&mut self) -> Result<Box<dyn Central>> {
        let (reading, writing) = sessions(&self.client, &self.patience).await?;
        Ok(Box::new(MongoCentral {
            client: self.client.clone(),
            database: self.database.clone(),
            reading,
            writing,
            address: self.address.clone(),
            patience: self.patience.clone(),
            feed_wait: self.feed_wait,
            line: Arc::clone(&self.line),
            bulk_write: self.bulk_write,
            has_collations: self.has_collations,
            has_content_indexes: self.has_content_indexes,
            scan: None,
            told: self.told.clone(),
            counters: Arc::clone(&self.counters),
        }))
    }

    async fn close(&mut self) {
        self.counters.is_closing.store(true, Ordering::Relaxed);
        // Whatever waits for this client to end, a cursor say, ends with it and is not told apart.
        let closing = async {
            self.client.clone().shutdown().immediate(true).await;
            Ok(())
        };
        // A line that is dead by now is no worse for it.
        let _ = self.patience.attempt(closing).await;
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            round_trips: self.counters.round_trips.load(Ordering::Relaxed),
            command_bytes_sent: self.counters.bytes_sent.load(Ordering::Relaxed),
            command_bytes_received: self.counters.bytes_received.load(Ordering::Relaxed),
            line_bytes_sent: self.patience.meter.sent(),
            line_bytes_received: self.patience.meter.received(),
        }
    }
}

/// What a conversation costs, before compression and TLS.
#[derive(Default)]
struct Counters {
    round_trips: AtomicU64,
    /// What is said at the end, to leave nothing behind at the server, is no part of the work.
    is_closing: AtomicBool,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    /// The process of the server that was the primary last.
    process: Mutex<Option<String>>,
}

/// A poisoned lock only means that another thread panicked between two assignments.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Counters {
    /// The driver looks at a server again after every broken connection, before it sends the next command, so a
    /// process that has changed is known in time.
    fn note_process(&self, event: &SdamEvent) {
        let SdamEvent::ServerHeartbeatSucceeded(event) = event else {
            return;
        };
        // Routers of a sharded centre say nothing about the servers behind them.
        if event.reply.get_str("msg").is_ok_and(|message| message == "isdbgrid") {
            return;
        }
        let is_primary = ["isWritablePrimary", "ismaster"]
            .iter()
            .any(|field| event.reply.get_bool(field).unwrap_or(false));
        let version = event.reply.get_document("topologyVersion");
        if let (true, Ok(id)) = (is_primary, version.and_then(|version| version.get_object_id("processId"))) {
            *lock(&self.process) = Some(id.to_hex());
        }
    }

    fn count_bytes(&self, event: CommandEvent) {
        let is_handshake = |name: &str| HANDSHAKE_COMMANDS.contains(&name);
        match event {
            CommandEvent::Started(event) if !is_handshake(&event.command_name) => {
                self.bytes_sent.fetch_add(message_bytes(&event.command), Ordering::Relaxed);
            }
            CommandEvent::Succeeded(event) if !is_handshake(&event.command_name) => {
                self.bytes_received.fetch_add(message_bytes(&event.reply), Ordering::Relaxed);
            }
            CommandEvent::Failed(event) if !is_handshake(&event.command_name) => {
                if let Some(reply) = event.failure.server_response() {
                    let bytes = reply.as_bytes().len() as u64 + MESSAGE_HEADER_BYTES;
                    self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

fn message_bytes(body: &Document) -> u64 {
    RawDocumentBuf::try_from(body).map_or(0, |raw| raw.as_bytes().len() as u64) + MESSAGE_HEADER_BYTES
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
    reply.contains_key("writeConcernError").then(|| error::offline("the write is not confirmed"))
}
