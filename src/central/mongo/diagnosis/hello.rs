//! Floor 2. The first thing that a server of the centre says, read without the driver, and what it means if that is something
//! else, or nothing.

use std::io;

use bson::{Bson, Document, doc};
use mongodb::options::ServerAddress;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::listener::Protocol;
use super::place::name_of;
use super::probe::at;
use super::tls;
use super::topology::BALANCER_MISMATCH;
use crate::central::survey::{Stage, Trouble};

/// Of MongoDB 4.4, before which the driver does not work.
pub(super) const WIRE_VERSION_MIN: i32 = 9;
/// The latest that the driver knows.
const WIRE_VERSION_MAX: i32 = 29;
/// What a server answers that does not know the command.
const COMMAND_NOT_FOUND: i32 = 59;
/// Kind of the messages of MongoDB's wire protocol, and the bytes around the one document of such a message: header,
/// flags, kind of section.
const OP_MSG: i32 = 2013;
const BEFORE_DOCUMENT_BYTES: usize = 21;
/// By which a server tells drivers behind a load balancer which one it is.
pub(super) const SERVICE: &str = "serviceId";
/// More than any server says of itself.
const HELLO_BYTES_MAX: usize = 1 << 20;

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(super) struct Hello(pub(super) Document);

impl Hello {
    pub(super) fn is(&self, field: &str) -> bool {
        self.0.get_bool(field).unwrap_or(false)
    }

    pub(super) fn is_router(&self) -> bool {
        self.0.get_str("msg").is_ok_and(|message| message == "isdbgrid")
    }

    pub(super) fn set_name(&self) -> Option<&str> {
        self.0.get_str("setName").ok()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.is("isWritablePrimary") || self.is("ismaster")
    }

    /// Neither a router, nor a member of a replica set, nor one that is to become one.
    pub(super) fn is_alone(&self) -> bool {
        !self.is_router() && self.set_name().is_none() && !self.is_uninitiated()
    }

    /// Started for a replica set that nobody has initiated.
    pub(super) fn is_uninitiated(&self) -> bool {
        self.is("isreplicaset") && !self.is_router() && self.set_name().is_none()
    }

    /// Reached through a load balancer, and asked as one asks there.
    pub(super) fn names_service(&self) -> bool {
        self.0.contains_key(SERVICE)
    }

    /// What it is within its replica set.
    pub(super) fn role(&self) -> &'static str {
        match self {
            _ if self.is_router() => "router",
            _ if self.set_name().is_none() && self.is_writable() => "standalone",
            _ if self.is_writable() => "primary",
            _ if self.is("secondary") => "secondary",
            _ if self.is("arbiterOnly") => "arbiter",
            _ if self.is_uninitiated() => "never initiated",
            _ => "neither primary nor secondary",
        }
    }

    /// All members that hold data, as they call each other.
    pub(super) fn hosts(&self) -> Vec<ServerAddress> {
        let listed = ["hosts", "passives"].into_iter().filter_map(|field| self.0.get_array(field).ok());
        let names = listed.flatten().filter_map(|name| name.as_str());
        names.filter_map(|name| ServerAddress::parse(name).ok()).collect()
    }
}

/// One message of MongoDB's protocol each way.
pub(super) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    is_balanced: bool,
) -> io::Result<Document> {
    let garbled = || io::Error::from(io::ErrorKind::InvalidData);
    let mut question = doc! {"hello": 1, "$db": "admin"};
    if is_balanced {
        // A server behind a load balancer answers only to those who know of it.
        question.insert("loadBalanced", true);
    }
    let question = question.to_vec().map_err(|_| garbled())?;
    let length = i32::try_from(BEFORE_DOCUMENT_BYTES + question.len()).map_err(|_| garbled())?;
    let mut message = Vec::with_capacity(BEFORE_DOCUMENT_BYTES + question.len());
    for number in [length, 1, 0, OP_MSG, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend(question);
    stream.write_all(&message).await?;
    stream.flush().await?;
    let length = usize::try_from(stream.read_i32_le().await?).map_err(|_| garbled())?;
    if !(BEFORE_DOCUMENT_BYTES..HELLO_BYTES_MAX).contains(&length) {
        return Err(garbled());
    }
    let mut answer = vec![0; length - size_of::<i32>()];
    stream.read_exact(&mut answer).await?;
    let document = answer.get(BEFORE_DOCUMENT_BYTES - size_of::<i32>()..).unwrap_or_default();
    Document::from_reader(document).map_err(|_| garbled())
}

/// The greeting, if it is one, of a version that the driver knows.
///
/// A server that starts or shuts down answers with an error, which says nothing about its version; only one that does not
/// know the command is too old for it.
pub(super) fn known_version(member: &str, hello: Hello) -> Result<Hello, Trouble> {
    const VERSION: &str = "a centre of MongoDB 4.4 or later (docs/SYNC.md: What a node needs)";
    const LATER: &str = "try again; the server's log says why if it lasts";
    let number = |field: &str| hello.0.get_i32(field).unwrap_or_default();
    let code = number("code");
    let is_error = hello
        .0
        .get("ok")
        .is_some_and(|ok| !matches!(ok, Bson::Double(1.0) | Bson::Int32(1) | Bson::Int64(1)));
    if code == BALANCER_MISMATCH {
        let reason = format!(
            "{member} is behind a load balancer, and the address does not say so (loadBalanced=true)"
        );
        return Err(at(Stage::Address, member, reason, "loadBalanced=true in the address"));
    }
    if is_error && code != COMMAND_NOT_FOUND || !is_error && !hello.0.contains_key("maxWireVersion") {
        let reason = match code {
            0 => format!("{member} answers, but not with what a server says of itself"),
            code => format!("{member} answers with MongoDB error {code}{}", state_of(code)),
        };
        return Err(at(Stage::Answer, member, reason, LATER));
    }
    if number("maxWireVersion") < WIRE_VERSION_MIN {
        let reason = format!("{member} is older than MongoDB 4.4");
        return Err(at(Stage::Version, member, reason, VERSION));
    }
    if number("minWireVersion") > WIRE_VERSION_MAX {
        let reason = format!("{member} is newer than this program knows");
        return Err(at(Stage::Version, member, reason, "a newer version of thalamus-edge"));
    }
    Ok(hello)
}

/// In what state a server is that answers its greeting with this error; nothing if that is not known.
fn state_of(code: i32) -> String {
    let name = name_of(code).map_or_else(String::new, |name| format!(" ({name})"));
    let state = match code {
        91 | 11_600 => ", as a server does that starts or shuts down",
        189 | 10_107 | 11_602 | 13_435 | 13_436 => ", as a member does that is not primary now",
        94 => ", as a member does whose replica set was never initiated",
        _ => "",
    };
    format!("{name}{state}")
}

const PORT: &str = "correct the port in the address (MongoDB's is 27017)";

pub(super) fn silent(member: &str) -> Trouble {
    let reason = format!("{member} takes the connection and does not answer");
    at(Stage::Answer, member, reason, "if it lasts: see what listens there, and how busy it is")
}

/// A server that was asked without TLS and speaks another protocol than MongoDB's.
pub(super) fn not_mongo(member: &str, spoken: Protocol) -> Option<Trouble> {
    match spoken {
        Protocol::Mongo => None,
        Protocol::Tls => Some(at(
            Stage::Tls,
            member,
            format!("{member} speaks TLS only, and the address does not ask for it"),
            "tls=true and tlsCAFile=FILE in the address",
        )),
        Protocol::Http => Some(at(
            Stage::Answer,
            member,
            format!("what answers at {member} is no MongoDB server: it speaks HTTP"),
            PORT,
        )),
    }
}

/// A server that was asked for TLS and speaks something else.
pub(super) fn no_tls(member: &str, spoken: Protocol) -> Trouble {
    let (more, remedy) = match spoken {
        Protocol::Http => (" but HTTP", PORT),
        Protocol::Mongo | Protocol::Tls => ("", "at the centre: net.tls.mode requireTLS, with a certificate"),
    };
    at(Stage::Tls, member, format!("no TLS with {member}: it does not speak TLS{more}"), remedy)
}

pub(super) fn broken_off(member: &str, what: &str) -> Trouble {
    let reason = format!("{member} takes the connection and {what} when asked for TLS");
    at(Stage::Answer, member, reason, "if it lasts: see what listens there (MongoDB's port is 27017)")
}

/// Why a server has not answered hello as MongoDB does.
pub(super) fn no_hello(member: &str, failure: &io::Error, is_encrypted: bool) -> Trouble {
    if tls::rustls_error(failure).is_some() {
        return tls::trouble(member, member, failure);
    }
    match failure.kind() {
        io::ErrorKind::InvalidData => {
            at(Stage::Answer, member, format!("what answers at {member} is no MongoDB server"), PORT)
        }
        _ if !is_encrypted => at(
            Stage::Answer,
            member,
            format!("{member} closes the connection: it may want TLS"),
            "tls=true and tlsCAFile=FILE in the address",
        ),
        _ => at(
            Stage::Answer,
            member,
            format!("{member} closes the connection"),
            "the server's log says why; the IP access list of a hosted centre must name this clinic",
        ),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_is_known_is_said_of_an_error() {
        for (code, words) in [
            (91, " (ShutdownInProgress), as a server does that starts or shuts down"),
            (11_600, " (InterruptedAtShutdown), as a server does that starts or shuts down"),
            (13_436, " (NotPrimaryOrSecondary), as a member does that is not primary now"),
            (1, " (InternalError)"),
            (4_711, ""),
        ] {
            assert_eq!(state_of(code), words);
        }
    }

    use super::*;

    #[test]
    fn old_and_unheard_of_versions_are_told() {
        let stage = |hello| known_version("a:1", Hello(hello)).map(|_| ()).map_err(|trouble| trouble.stage);
        assert_eq!(stage(doc! {"maxWireVersion": 8}), Err(Stage::Version));
        assert_eq!(stage(doc! {"ok": 0.0, "code": 59}), Err(Stage::Version));
        assert_eq!(stage(doc! {"ok": 0.0, "code": 354}), Err(Stage::Address));
        for none in [
            doc! {},
            doc! {"ok": 1.0},
            doc! {"ok": 0.0, "code": 91},
            doc! {"ok": 0, "code": 11600},
            doc! {"ok": 0.0},
        ] {
            assert_eq!(stage(none.clone()), Err(Stage::Answer), "{none}");
        }
        assert_eq!(stage(doc! {"maxWireVersion": 9}), Ok(()));
        assert_eq!(stage(doc! {"maxWireVersion": 40, "minWireVersion": 29}), Ok(()));
        assert_eq!(stage(doc! {"maxWireVersion": 40, "minWireVersion": 30}), Err(Stage::Version));
    }
}
