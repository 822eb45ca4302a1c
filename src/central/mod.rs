//! Floor 2. The centre as a node sees it: what can be asked of it, in the words of the reconciliation.
//!
//! Hides everything about MongoDB. A [`Hub`] is the address of a centre; a [`Central`] is one round's
//! conversation with it, closed when the round ends. Every write compares what it is about to change
//! with what the node last saw there, so an old or repeated write can miss but never overwrite.

pub mod content;
mod failure;
pub mod mongo;
pub mod survey;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use bson::{Bson, Document};

use crate::domain::diff::Change;
pub use crate::domain::moment::Moment;
use crate::domain::record::{Kind, RecordKey};
use crate::domain::verbatim::Verbatim;
pub use failure::{Cause, CentralError};
pub(crate) use failure::{DOLLAR_NAME_CODE, DUPLICATE_KEY_CODE};
use survey::{Diagnosis, Namesake};

/// An `_id` that no record has: what is asked about it changes nothing.
pub(crate) const NOBODY: &str = "thalamus-edge: is this allowed?";

pub type Result<T> = std::result::Result<T, CentralError>;

/// Opens conversations with one centre. Nothing need be sent before the first question, so that may be
/// what reports a centre that is away.
#[async_trait]
pub trait Hub: Send + Sync {
    async fn open(&self) -> Result<Box<dyn Central>>;

    /// While the conversation that was opened last waits for its first answer: why there will be none, as soon as that is
    /// known. Never ends once somebody was reached. Costs nothing where that takes less than a second.
    async fn obstacle(&self) -> CentralError {
        std::future::pending().await
    }

    /// After a conversation that failed: why, as far as it can be found out now. Ends within half a minute.
    async fn diagnose(&self) -> Diagnosis {
        Diagnosis::Unknown
    }
}

/// One round's conversation with the centre. Majority read and write concern, one causally consistent
/// session; every call ends within its own time limit. Only a feed that goes on from an earlier position, and what it tells
/// until it has caught up, may take longer while the centre answers other questions: the caller limits that.
#[async_trait]
pub trait Central: content::Attachments {
    /// What the centre answered about single records since this was asked last, with the place: a write that it takes apart
    /// from others fails alone.
    fn take_fault(&mut self) -> Option<CentralError> {
        None
    }

    /// The documents that exist among `ids`, in any order. Returns as many as fit one answer; names the others as
    /// [`Fetched::Deferred`]; always makes progress.
    async fn fetch(&mut self, kind: Kind, ids: &[String]) -> Result<Vec<Fetched>>;

    /// The people that exist among `ids`, in any order, with nothing but `_id` and the fields by which they are told
    /// apart.
    async fn identities(&mut self, ids: &[String]) -> Result<Vec<Document>>;

    /// Begins to read all documents with a string `_id` greater than `after`, in order of `_id` (bytes of
    /// UTF-8), except those `without`.
    async fn scan(&mut self, kind: Kind, after: Option<&str>, without: &[String]) -> Result<()>;

    /// Ids greater than `after` of documents above [`LARGE_DOCUMENT_BYTES_MIN`]: a scan over a bad line passes
    /// over them, so that none of them delays all others. The server looks at every document for this.
    async fn large_ids(&mut self, kind: Kind, after: Option<&str>) -> Result<Vec<String>>;

    /// The next documents of the scan opened last, at most `max` and perhaps fewer; empty at the end only.
    /// `max` is also what the server is asked to send at once, so it should change by doubling and halving.
    async fn scan_next(&mut self, max: usize) -> Result<Vec<Fetched>>;

    /// About how many documents the kind has, for showing progress only.
    async fn estimated_count(&mut self, kind: Kind) -> Result<u64>;

    /// Opens the change feed over all records and the row of `node`, from where `after` stands or from now
    /// on. It tells of up to `max` events at a time; inserted and replaced documents are shown for the records
    /// in `bodies` only. A centre that keeps no history leaves this as it is.
    async fn watch(
        &mut self,
        _node: &str,
        _after: Option<&Token>,
        _bodies: &[RecordKey],
        _max: usize,
    ) -> Result<Watched> {
        Ok(Watched::Unsupported)
    }

    /// Up to `max` documents whose `_id` is no string, as relaxed extended JSON of the `_id`.
    async fn unsupported_ids(&mut self, kind: Kind, max: usize) -> Result<Vec<String>>;

    /// Carries out compare-and-set writes, each on its own and in any order; one answer per write, in the
    /// order given. An error for the call as a whole leaves the fate of every write open.
    async fn write(&mut self, batch: &[Write]) -> Result<Vec<Written>>;

    /// Puts bodies into `edge_trash` before their records are deleted; an existing row with the same
    /// `_id` is rewritten. Returns when they are durable; an error names no row, so a caller that wants to
    /// know which one is not accepted sends them one by one.
    async fn archive(&mut self, rows: &[Document]) -> Result<()>;

    /// Marks archived rows `done` (the delete happened) or `void` (it did not), by `_id`.
    async fn settle_archive(&mut self, settled: &[(String, ArchiveState)]) -> Result<()>;

    /// Puts conflict records into `edge_conflicts` by `_id`. A row given with `status: "open"` is inserted
    /// if it is new, and changes nothing if it is not. One with `status: "reopened"` is as new: it is written
    /// as open over a row that is not, or that is the same node's and holds a `resolution`. Any other row
    /// closes the one that is there, unless that has `applied_by` or holds another decision: of two decisions
    /// the first stands. It removes what said that a decision was declined.
    async fn publish_conflicts(&mut self, rows: &[Document]) -> Result<()>;

    /// Reads rows of `edge_conflicts` by `_id`: those about which something was decided, and which ids have
    /// no row. Returns as many as fit one answer; names the others as [`Resolutions::left`]; always makes progress.
    async fn resolutions(&mut self, ids: &[String]) -> Result<Resolutions>;

    /// Rows of `edge_conflicts` of these nodes that wait for somebody or for a node's answer, in order of `_id` and after
    /// this one: as many as go into one answer, and at least one if there is one.
    async fn waiting_conflicts(&mut self, nodes: &[String], after: Option<&str>) -> Result<WaitingConflicts>;

    /// Writes answers to decisions into rows of `edge_conflicts`, each only if the row still holds the
    /// decision that the node read.
    async fn answer_conflicts(&mut self, answers: &[ConflictAnswer]) -> Result<()>;

    /// Takes the node's lease: if the node's row in `edge_nodes` holds one of `expected`, or `expected` is
    /// empty and there is no row or one without a lease, it becomes `proposed` together with
    /// `announcement`. A new row is `status: "active"`; afterwards the status is the administrator's, and
    /// neither announcements nor reports change it.
    async fn take_lease(
        &mut self,
        node: &str,
        expected: &[Lease],
        proposed: &Lease,
        announcement: &Document,
    ) -> Result<LeaseAnswer>;

    /// The rows of `edge_nodes` of this node, and of all nodes that say that they have this store: what they say of the
    /// edits that were delivered.
    async fn node_rows(&mut self, node: &str, store: Option<&str>) -> Result<Vec<Document>>;

    /// Other nodes that are called `name`, are not revoked, and have been at the centre within the last days before
    /// `now_ms`.
    async fn namesakes(&mut self, _node: &str, _name: &str, _now_ms: i64) -> Result<Vec<Namesake>> {
        Ok(Vec::new())
    }

    /// Merges `report` into the node's row in `edge_nodes` if that still holds `lease`, else does nothing.
    async fn report(&mut self, node: &str, lease: &Lease, report: &Document) -> Result<()>;

    /// A moment before anything that is sent from now on, and not before anything that this conversation and
    /// those beside it have seen. `None` at a centre that keeps no history.
    fn moment(&self) -> Option<Moment> {
        None
    }

    /// The server process that answers: another one may have forgotten what this one acknowledged. `None` if the
    /// centre does not tell.
    fn process(&self) -> Option<String> {
        None
    }

    /// Another conversation over the same line, for a task of its own: neither waits for the other's
    /// exchanges. Its cost is counted with this one's, and it ends with it.
    async fn beside(&mut self) -> Result<Box<dyn Central>>;

    /// Ends the conversation in good order, so that all of its cost is known. A feed of it tells nothing
    /// after that; it is dropped afterwards, because ending it by itself costs an exchange of its own.
    async fn close(&mut self) {}

    /// What this conversation has cost so far.
    fn traffic(&self) -> Traffic;
}

/// A position in the change feed, as the centre spells it; only handed back to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Token(pub Document);

/// What became of the wish to watch.
pub enum Watched {
    Open(Box<dyn Feed>),
    /// The centre no longer knows what happened since the token: look at everything.
    Lost,
    /// A standalone server keeps no history.
    Unsupported,
}

/// An open change feed; uses a connection of its own, so that the conversation can go on beside it.
#[async_trait]
pub trait Feed: Send {
    /// The next changes in the order in which they happened. Waits a moment for the first, then answers with
    /// none.
    async fn next(&mut self) -> Result<Changes>;

    /// Everything up to here has been handed out.
    fn token(&self) -> Option<Token>;
}

/// A batch of the change feed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    pub events: Vec<Event>,
    /// Collections were dropped or renamed, or the feed broke: a fresh token is needed, and a scan.
    pub is_lost: bool,
    /// Something happened to records, or rows of `fs.files`, whose ids are no text; they are not among the events.
    pub has_other_ids: bool,
}

/// Something that happened at the centre.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Record {
        key: RecordKey,
        effect: Effect,
        /// When it happened, as far as the centre tells.
        at: Option<Moment>,
    },
    /// This node's row of `edge_nodes` has come to hold this lease.
    Lease(Lease),
}

/// What a change did to a record, as far as the feed tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// With the document if its body was asked for.
    Inserted(Option<Document>),
    Replaced(Option<Document>),
    /// Dotted paths.
    Updated {
        set: Vec<(String, Bson)>,
        unset: Vec<String>,
    },
    Deleted,
}

/// A document read from the centre.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    Document {
        id: String,
        document: Verbatim,
    },
    /// Its bytes cannot be kept as they are: repeated keys, invalid text. Left alone.
    Unreadable {
        id: String,
        reason: String,
    },
    /// Whether there is one was not looked at, because others are large: to be asked for again. Only [`Central::fetch`]
    /// answers so.
    Deferred {
        id: String,
    },
}

impl Fetched {
    pub fn id(&self) -> &str {
        match self {
            Fetched::Document { id, .. } | Fetched::Unreadable { id, .. } | Fetched::Deferred { id } => id,
        }
    }

    /// Bytes of the document that are held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Fetched::Document { document, .. } => document.bytes().as_bytes().len(),
            Fetched::Unreadable { .. } | Fetched::Deferred { .. } => 0,
        }
    }

    /// What it takes while it is worked with, see [`Verbatim::weight`].
    pub(crate) fn weight(&self) -> usize {
        match self {
            Fetched::Document { document, .. } => document.weight(),
            Fetched::Unreadable { .. } | Fetched::Deferred { .. } => 0,
        }
    }
}

/// A write that happens only if the centre still holds what the node believes.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Misses if the `_id` exists.
    Insert { key: RecordKey, document: Document },
    /// Sets and unsets exactly these paths, if each holds its `from`.
    Update { key: RecordKey, changes: Vec<Change> },
    /// Replaces the document if it equals `base`.
    Replace { key: RecordKey, base: Document, document: Document },
    /// Deletes the document if it equals `base`.
    Delete { key: RecordKey, base: Document },
}

impl Write {
    pub fn key(&self) -> &RecordKey {
        match self {
            Write::Insert { key, .. }
            | Write::Update { key, .. }
            | Write::Replace { key, .. }
            | Write::Delete { key, .. } => key,
        }
    }
}

/// What became of one write.
#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    Hit,
    /// Someone else progressed: read again and merge.
    Miss,
    /// The centre will never take this value (validation, a unique index, size): not worth repeating as it is.
    Refused {
        code: i32,
        message: String,
    },
    /// An error of this write alone, of which nobody knows whether it repeats with the same value.
    Faulty {
        code: i32,
    },
    /// No acknowledgement, or none that tells this write from its neighbours: it may have happened.
    Unknown,
}

/// How an archived delete ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveState {
    Done,
    Void,
}

/// What `edge_conflicts` says about some conflicts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolutions {
    /// The rows that are not `status: "open"` or hold a `resolution`, with those of [`RESOLUTION_FIELDS`] that they
    /// have. A row that cannot be kept byte for byte is left out.
    pub decided: Vec<Document>,
    /// The ids that have no row.
    pub missing: Vec<String>,
    /// The ids that were not looked at: they are to be asked for again. Fewer than were asked for.
    pub left: Vec<String>,
}

/// Rows of `edge_conflicts` that wait.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WaitingConflicts {
    /// With all their fields. A row that cannot be kept byte for byte is left out.
    pub rows: Vec<Document>,
    /// The ids of those that are left out.
    pub unreadable: Vec<String>,
    /// The `_id` after which there may be more; `None` at the end.
    pub next: Option<String>,
}

/// Fields of a row of `edge_conflicts` that say what was decided, and about what; `_id` beside them.
pub const RESOLUTION_FIELDS: [&str; 9] = [
    "status",
    "node",
    "fingerprint",
    "resolution",
    "value",
    "resolved_by",
    "applied_by",
    "declined_fingerprint",
    "identities",
];

/// A node's answer to the decision in a row of `edge_conflicts`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConflictAnswer {
    /// `_id` of the row.
    pub id: String,
    /// Fields as the node read them, `None` where the row had none. If one differs, the row stays as it is.
    pub seen: Vec<(&'static str, Option<Bson>)>,
    pub set: Document,
    pub unset: Vec<&'static str>,
}

/// A node's claim to be the one writer under its name: counts up with every round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub number: i64,
    pub nonce: String,
}

/// What the centre says to a proposed lease.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseAnswer {
    Taken,
    /// The row holds something else: `None` when there is no row or no lease in it (with `expected` given).
    Other(Option<Lease>),
    /// The federation's administrator has set `status: "revoked"`.
    Revoked,
}

/// What a conversation has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Commands, without handshakes and monitoring.
    pub round_trips: u64,
    /// Their bytes before compression and TLS; 0 if nobody counts them.
    pub command_bytes_sent: u64,
    pub command_bytes_received: u64,
    /// All bytes that travelled.
    pub line_bytes_sent: u64,
    pub line_bytes_received: u64,
}

impl Traffic {
    /// All that travelled, both ways.
    pub fn line_bytes(self) -> u64 {
        self.line_bytes_sent + self.line_bytes_received
    }

    /// What was added since `before`.
    pub fn since(self, before: Traffic) -> Traffic {
        Traffic {
            round_trips: self.round_trips - before.round_trips,
            command_bytes_sent: self.command_bytes_sent - before.command_bytes_sent,
            command_bytes_received: self.command_bytes_received - before.command_bytes_received,
            line_bytes_sent: self.line_bytes_sent - before.line_bytes_sent,
            line_bytes_received: self.line_bytes_received - before.line_bytes_received,
        }
    }
}

/// Documents of more bytes than this are read one by one over a line that breaks.
pub const LARGE_DOCUMENT_BYTES_MIN: i64 = 256 * 1024;

/// Where the centre is and what its collections are called.
#[derive(Clone)]
pub struct CentreAddress {
    /// MongoDB connection string; may hold a password and is never logged.
    pub uri: String,
    pub database: String,
    /// Names that differ from the schema's.
    pub collections: BTreeMap<Kind, String>,
    /// What this node calls itself to the server.
    pub app_name: String,
}

impl fmt::Debug for CentreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CentreAddress")
            .field("database", &self.database)
            .field("collections", &self.collections)
            .field("app_name", &self.app_name)
            .finish_non_exhaustive()
    }
}

impl CentreAddress {
    pub fn collection(&self, kind: Kind) -> &str {
        match self.collections.get(&kind) {
            Some(name) => name,
            None => kind.schema().collection,
        }
    }

    /// How what travels there is protected, as far as the connection string says. Asks nobody.
    pub fn protection(&self) -> Result<Protection> {
        match mongo::address::read(&self.uri) {
            Ok(address) => Ok(address.protection()),
            Err(problems) => Err(unusable_address(&problems)),
        }
    }

    /// Reads the connection string and the files that it names as a round does: sentences about options without
    /// effect, or all that is wrong. None of them repeats a secret. Asks nobody.
    pub fn examine(&self) -> std::result::Result<Vec<String>, Vec<String>> {
        mongo::address::read(&self.uri).map(|address| address.warnings)
    }
}

/// The address of the centre is wrong: nothing can be asked there.
fn unusable_address(problems: &[String]) -> CentralError {
    CentralError::Refused(format!("its address {}", problems.join("; ")).into())
}

/// The database that a connection string names behind its servers, if it can be read.
pub fn database_in(uri: &str) -> Option<String> {
    mongo::address::database(uri)
}

/// What keeps a text from being a connection string, in words that do not repeat it; its options aside.
pub fn uri_fault(uri: &str) -> Option<String> {
    mongo::address::fault(uri)
}

/// How what travels between a node and the centre is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Encrypted to a server that has shown a valid certificate.
    Full,
    /// Encrypted to whoever answers.
    NotProved,
    None,
}

/// Collections of the reconciliation itself, beside the records.
pub const NODES_COLLECTION: &str = "edge_nodes";
pub const CONFLICTS_COLLECTION: &str = "edge_conflicts";
pub const TRASH_COLLECTION: &str = "edge_trash";

/// The lease that a row of `edge_nodes` holds.
pub(crate) fn lease_of(row: &Document) -> Option<Lease> {
    let lease = row.get_document("lease").ok()?;
    let number = match lease.get("number")? {
        Bson::Int64(number) => *number,
        Bson::Int32(number) => i64::from(*number),
        _ => return None,
    };
    Some(Lease { number, nonce: lease.get_str("nonce").ok()?.to_owned() })
}
