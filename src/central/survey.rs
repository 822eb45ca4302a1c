//! Floor 2. Obstacles between a node and the centre, stage by stage, in words for technicians.
//!
//! Nothing here repeats a user name, a password, or a value of a record.

use std::fmt;

/// The stages of a connection, in the order in which one is made. A later one means that all before went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The connection string itself, and the files that it names.
    Address,
    /// Looking up the name of a server.
    Name,
    Connection,
    Tls,
    /// The first answer of a server.
    Answer,
    Version,
    /// Finding the member that takes writes.
    Primary,
    Login,
    Privilege,
    /// A command that reads, after everything before went well.
    Reading,
    /// A command that writes.
    Writing,
}

impl Stage {
    /// One word, for programs and for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Address => "address",
            Stage::Name => "name",
            Stage::Connection => "connection",
            Stage::Tls => "TLS",
            Stage::Answer => "answer",
            Stage::Version => "version",
            Stage::Primary => "not primary",
            Stage::Login => "login",
            Stage::Privilege => "privilege",
            Stage::Reading => "reading",
            Stage::Writing => "writing",
        }
    }

    /// Whether somebody has to change something: waiting for a network or for a server is no remedy.
    pub fn is_lasting(self) -> bool {
        match self {
            Stage::Name
            | Stage::Connection
            | Stage::Answer
            | Stage::Primary
            | Stage::Reading
            | Stage::Writing => false,
            Stage::Address | Stage::Tls | Stage::Version | Stage::Login | Stage::Privilege => true,
        }
    }
}

/// What is wrong at a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub stage: Stage,
    /// `host:port`, if it is about one server.
    pub member: Option<String>,
    /// A sentence without its full stop.
    pub reason: String,
    pub remedy: &'static str,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}) {}", self.stage.name(), self.reason)
    }
}

/// What came of looking for the cause of a failed conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnosis {
    /// Nobody looked, or it took too long.
    Unknown,
    /// Everything works at this moment.
    Well,
    Trouble(Trouble),
}

/// Another node under the same name, which has been at the centre lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namesake {
    /// `_id` of its row in `edge_nodes`.
    pub node: String,
    /// Milliseconds since 1970.
    pub last_round_ms: Option<i64>,
}

/// Something that works today and may not tomorrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    pub finding: String,
    pub remedy: &'static str,
}

/// A server of the centre, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `host:port`.
    pub name: String,
    /// `primary`, `secondary`, ..., or what is wrong with it.
    pub found: Result<&'static str, Trouble>,
}

/// Everything that can be told about the way to the centre without changing anything there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    pub members: Vec<Member>,
    /// What keeps a node from reconciling; the first thing on the way.
    pub trouble: Option<Trouble>,
    pub advice: Vec<Advice>,
    /// What could not be looked at, and whom to ask; not a fault of the centre's.
    pub unseen: Vec<&'static str>,
    /// `None` if nobody could look.
    pub namesakes: Option<Vec<Namesake>>,
}
