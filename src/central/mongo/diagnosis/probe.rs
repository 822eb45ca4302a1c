//! Floor 2. The way to the centre, tried stage by stage: what of it works, and where it ends.
//!
//! This is the one place that finds out why a centre cannot be reached; rounds, `doctor` and `setup` ask here. Names
//! are looked up, connections made, certificates checked and the first answer read without the driver, because it
//! tries all members at once for as long as it may and then knows only that it found none.

use std::io;
use std::time::Duration;

use bson::doc;
use futures_util::future::join_all;
use mongodb::Client;
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ServerAddress, Tls};
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::hello::{self, Hello};
use super::listener::{self, Protocol};
use super::tls;
use super::topology::{self, Asked};
use crate::central::mongo::{CONNECT_SECONDS_MAX, error};
use crate::central::survey::{Member, Stage, Trouble};
use crate::central::{CentralError, CentreAddress};

/// Longest that a stage may take, unless the address says otherwise (`connectTimeoutMS`).
const STAGE_LIMIT: Duration = Duration::from_secs(CONNECT_SECONDS_MAX);
const PORT_DEFAULT: u16 = 27_017;

const NETWORK: &str =
    "is this machine on a network? Then the address: thalamus-edge setup, or central.uri_file";
const MEMBER_NAMES: &str = "at the centre: rs.reconfig() with members under names that clinics can resolve and that \
                            are in the certificates (docs/SYNC.md: What a node needs)";
pub(super) const LOGIN: &str = "correct user, password and authSource in the address; at the centre: createUser as \
                                in docs/SYNC.md";

/// The way as far as it goes.
pub(super) struct Way {
    pub(super) members: Vec<Member>,
    /// Where the driver would write.
    pub(super) primary: Result<Primary, Trouble>,
}

/// The member that takes writes.
pub(super) struct Primary {
    pub(super) name: String,
    /// For a client of this member alone, with what the connection string says of users and TLS.
    pub(super) options: ClientOptions,
    pub(super) is_standalone: bool,
    /// The replica set's members as the address names them, and as they call each other.
    pub(super) seeds: usize,
    pub(super) hosts: usize,
    pub(super) is_direct: bool,
}

#[derive(Clone)]
struct Tried {
    address: ServerAddress,
    /// The greeting of a server that the driver keeps.
    found: Result<Hello, Trouble>,
    /// Named by the replica set, not by the connection string.
    is_told: bool,
}

/// `host:port`.
fn shown(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Tcp { host, port } if host.contains(':') => {
            format!("[{host}]:{}", port.unwrap_or(PORT_DEFAULT))
        }
        ServerAddress::Tcp { host, port } => format!("{host}:{}", port.unwrap_or(PORT_DEFAULT)),
        // A path on this machine.
        other => other.to_string(),
    }
}

fn trouble(stage: Stage, reason: impl Into<String>, remedy: &'static str) -> Trouble {
    Trouble { stage, member: None, reason: reason.into(), remedy }
}

pub(super) fn at(stage: Stage, member: &str, reason: impl Into<String>, remedy: &'static str) -> Trouble {
    Trouble { member: Some(member.to_owned()), ..trouble(stage, reason, remedy) }
}

/// Tries the way to the member that takes writes, up to its first answer.
pub(super) async fn way(address: &CentreAddress) -> Way {
    let options = match parsed(address).await {
        Ok(options) => options,
        Err(trouble) => return Way { members: Vec::new(), primary: Err(trouble) },
    };
    let is_direct = options.direct_connection == Some(true);
    let seeds = options.hosts.clone();
    let asked = Asked::new(&options, &address.uri);
    let mut tried = try_all(&seeds, false, &options).await;
    drop_all(&mut tried, |member, hello| asked.drops(member, hello));
    if !is_direct {
        // What a replica set calls its members counts, and no other name.
        let answers = tried.iter().filter_map(|tried| tried.found.as_ref().ok());
        let (set, told) = match answers.max_by_key(|hello| hello.is_writable()) {
            Some(hello) => (hello.set_name().map(str::to_owned), hello.hosts()),
            None => (None, Vec::new()),
        };
        let told = if set.is_some() { told } else { Vec::new() };
        let new: Vec<_> = told.iter().filter(|member| !seeds.contains(member)).cloned().collect();
        tried.extend(try_all(&new, true, &options).await);
        if let Some(set) = set {
            let members = tried.iter_mut().filter(|tried| told.contains(&tried.address));
            drop_all(members, |member, hello| topology::drops_member(&set, member, hello));
        }
        if !told.is_empty() {
            // The driver drops a seed that the set does not name.
            tried.retain(|tried| told.contains(&tried.address) || tried.found.is_err());
        }
    }
    let members = tried.iter().map(|tried| Member {
        name: shown(&tried.address),
        found: tried.found.as_ref().map(Hello::role).map_err(Clone::clone),
    });
    let members = members.collect();
    let primary = primary(&tried, options, seeds.len());
    Way { members, primary }
}

/// Takes servers for found no more that the driver drops.
fn drop_all<'t>(
    tried: impl IntoIterator<Item = &'t mut Tried>,
    drops: impl Fn(&str, &Hello) -> Option<Trouble>,
) {
    for one in tried {
        if let Ok(hello) = &one.found
            && let Some(trouble) = drops(&shown(&one.address), hello)
        {
            one.found = Err(trouble);
        }
    }
}

async fn parsed(address: &CentreAddress) -> Result<ClientOptions, Trouble> {
    const ADDRESS: &str = "correct central.uri or the file central.uri_file: thalamus-edge check says where";
    let parsing = tokio::time::timeout(STAGE_LIMIT, ClientOptions::parse(&address.uri));
    let options = match parsing.await {
        Err(_) => {
            return Err(trouble(Stage::Name, "no name server answers about the centre's name", NETWORK));
        }
        Ok(Err(failure)) => {
            return Err(match error::of_address(&failure) {
                CentralError::Offline(_) => {
                    let reason = "the DNS names no servers for the centre's name (mongodb+srv://)";
                    trouble(Stage::Name, reason, NETWORK)
                }
                CentralError::Refused(reason) | CentralError::Failed(reason) => {
                    trouble(Stage::Address, reason.to_string(), ADDRESS)
                }
            });
        }
        Ok(Ok(options)) => options,
    };
    if options.socks5_proxy.is_some() {
        return Err(trouble(Stage::Address, "a proxy in its address is not supported", ADDRESS));
    }
    Ok(options)
}

async fn try_all(addresses: &[ServerAddress], is_told: bool, options: &ClientOptions) -> Vec<Tried> {
    let trying = addresses.iter().map(|address| async move {
        let found = examine(address, options).await.map_err(|trouble| match is_told {
            false => trouble,
            // The name is the centre's own choice.
            true => Trouble {
                reason: format!(
                    "the replica set calls one of its members {}: {}",
                    shown(address),
                    trouble.reason
                ),
                remedy: MEMBER_NAMES,
                ..trouble
            },
        });
        Tried { address: address.clone(), found, is_told }
    });
    join_all(trying).await
}

/// Chooses as the driver does. Without a primary, what came furthest is the trouble, and all of it is said.
fn primary(tried: &[Tried], mut options: ClientOptions, seeds: usize) -> Result<Primary, Trouble> {
    let is_direct = options.direct_connection == Some(true);
    let answers = || tried.iter().filter_map(|tried| Some((tried, tried.found.as_ref().ok()?)));
    if let Some((tried, hello)) = answers().find(|(_, hello)| hello.is_writable() || hello.is_router()) {
        let (hosts, is_standalone) = (hello.hosts().len(), hello.set_name().is_none() && !hello.is_router());
        options.hosts = vec![tried.address.clone()];
        (options.direct_connection, options.repl_set_name) = (direct(&options), None);
        let limit = stage_limit(&options);
        (options.connect_timeout, options.server_selection_timeout) = (Some(limit), Some(limit));
        let name = shown(&tried.address);
        return Ok(Primary { name, options, is_standalone, seeds, hosts, is_direct });
    }
    let of_answers = answers().map(|(tried, hello)| {
        let member = shown(&tried.address);
        match (hello.role(), is_direct) {
            ("never initiated", _) => at(
                Stage::Primary,
                &member,
                format!("the replica set of {member} was never initiated"),
                "at the centre: rs.initiate() with its members (docs/SYNC.md: What a node needs)",
            ),
            (role, true) => at(
                Stage::Primary,
                &member,
                format!("{member} is {role}, and directConnection=true keeps to it"),
                "take directConnection=true out of the address, and name all members in it",
            ),
            (role, false) => at(
                Stage::Primary,
                &member,
                format!("{member} is {role}"),
                "if it lasts longer than a minute: rs.status() at the centre; a majority of its members must run",
            ),
        }
    });
    let mut troubles: Vec<Trouble> = of_answers.collect();
    troubles.extend(tried.iter().filter_map(|tried| tried.found.as_ref().err().cloned()));
    // A server that answers and does not fit came further than one that does not answer, though the address is wrong.
    let furthest = troubles.iter().max_by_key(|trouble| match trouble.stage {
        Stage::Address => Stage::Version,
        stage => stage,
    });
    let Some(furthest) = furthest.cloned() else {
        return Err(trouble(Stage::Address, "its address names no server", NETWORK));
    };
    let is_of_set = furthest.stage == Stage::Primary;
    let reasons: Vec<&str> = troubles.iter().map(|trouble| trouble.reason.as_str()).collect();
    let reason = match is_of_set && troubles.len() > 1 {
        true => format!("no member is primary: {}", reasons.join("; ")),
        false => reasons.join("; "),
    };
    // Told names say more about what to mend than where the node got in.
    let told = tried.iter().find(|tried| tried.is_told && tried.found.is_err());
    let remedy = told.and_then(|tried| tried.found.as_ref().err()).map_or(furthest.remedy, |t| t.remedy);
    Err(Trouble { reason, remedy, ..furthest })
}

/// To keep to one server; that of a load balancer is the only one anyway.
fn direct(options: &ClientOptions) -> Option<bool> {
    (options.load_balanced != Some(true)).then_some(true)
}

fn stage_limit(options: &ClientOptions) -> Duration {
    options.connect_timeout.unwrap_or(STAGE_LIMIT)
}

/// One server: its name, the connection, TLS, the first answer, the version.
async fn examine(address: &ServerAddress, options: &ClientOptions) -> Result<Hello, Trouble> {
    let (member, limit) = (shown(address), stage_limit(options));
    let is_balanced = options.load_balanced == Some(true);
    let ServerAddress::Tcp { host, port } = address else {
        let hello = driven_hello(address, options).await;
        let hello =
            hello.ok_or_else(|| at(Stage::Answer, &member, format!("{member} does not answer"), NETWORK))?;
        return hello::known_version(&member, hello);
    };
    let port = port.unwrap_or(PORT_DEFAULT);
    let stream = connect(&member, host, port, limit).await?;
    let tls = match &options.tls {
        Some(Tls::Enabled(tls)) => Some(tls),
        _ => None,
    };
    let hello = match tls {
        None => {
            let greeting = hello::exchange(stream, is_balanced);
            match listener::unless_other(Protocol::Mongo, host, port, limit, greeting).await {
                Ok(Some(Ok(hello))) => Hello(hello),
                // Cut off, or answered with something else.
                Ok(Some(Err(failure))) => {
                    let spoken = listener::spoken_at(host, port).await;
                    let other = spoken.and_then(|spoken| hello::not_mongo(&member, spoken));
                    return Err(other.unwrap_or_else(|| hello::no_hello(&member, &failure, false)));
                }
                Ok(None) => return Err(hello::silent(&member)),
                Err(spoken) => {
                    return Err(hello::not_mongo(&member, spoken).unwrap_or_else(|| hello::silent(&member)));
                }
            }
        }
        // Certificates are not checked then; only the driver connects in that way, so it says hello.
        Some(tls) if tls.allow_invalid_certificates == Some(true) => {
            drop(stream);
            let greeting = driven_hello(address, options);
            match listener::unless_other(Protocol::Tls, host, port, limit, greeting).await {
                Ok(Some(Some(hello))) => hello,
                Ok(_) => match listener::spoken_at(host, port).await {
                    Some(spoken) if spoken != Protocol::Tls => return Err(hello::no_tls(&member, spoken)),
                    _ => return Err(hello::silent(&member)),
                },
                Err(spoken) => return Err(hello::no_tls(&member, spoken)),
            }
        }
        Some(tls) => {
            let config = tls::config(tls).map_err(|reason| trouble(Stage::Tls, reason, tls::AUTHORITY))?;
            let name = ServerName::try_from(host.clone()).map_err(|_| {
                let reason = format!("{host} is no name that a certificate can be for");
                at(Stage::Tls, &member, reason, "correct the name of the server in the address")
            })?;
            let handshake = TlsConnector::from(config).connect(name, stream);
            let stream = match listener::unless_other(Protocol::Tls, host, port, limit, handshake).await {
                Ok(Some(Ok(stream))) => stream,
                Ok(Some(Err(failure))) if tls::is_about_tls(&failure) => {
                    return Err(tls::trouble(&member, host, &failure));
                }
                // Cut off, or answered with something else.
                Ok(Some(Err(failure))) => {
                    return Err(match listener::spoken_at(host, port).await {
                        Some(spoken) if spoken != Protocol::Tls => hello::no_tls(&member, spoken),
                        _ if tls::rustls_error(&failure).is_some() => tls::trouble(&member, host, &failure),
                        _ => hello::broken_off(&member, "closes the connection"),
                    });
                }
                Ok(None) => return Err(hello::broken_off(&member, "does not answer")),
                Err(spoken) => return Err(hello::no_tls(&member, spoken)),
            };
            match tokio::time::timeout(limit, hello::exchange(stream, is_balanced)).await {
                Ok(Ok(hello)) => Hello(hello),
                Ok(Err(failure)) => return Err(hello::no_hello(&member, &failure, true)),
                Err(_) => return Err(hello::silent(&member)),
            }
        }
    };
    hello::known_version(&member, hello)
}

async fn connect(member: &str, host: &str, port: u16, limit: Duration) -> Result<TcpStream, Trouble> {
    let addresses = match tokio::time::timeout(limit, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(failure)) if failure.to_string().contains("Temporary failure") => {
            let reason = format!("no name server answers about {host}");
            return Err(at(Stage::Name, member, reason, NETWORK));
        }
        Ok(Err(_)) => Vec::new(),
        Err(_) => {
            let reason = format!("no name server answers about {host}");
            return Err(at(Stage::Name, member, reason, NETWORK));
        }
    };
    if addresses.is_empty() {
        let reason = format!("the name {host} cannot be resolved");
        return Err(at(Stage::Name, member, reason, NETWORK));
    }
    let connecting = tokio::time::timeout(limit, TcpStream::connect(addresses.as_slice()));
    let reason = match connecting.await {
        Ok(Ok(stream)) => return Ok(stream),
        Err(_) => format!("{member} does not answer: a firewall is in between, or nobody has this address"),
        Ok(Err(failure)) => match failure.kind() {
            io::ErrorKind::ConnectionRefused => format!("nobody listens at {member}"),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                format!("there is no way from here to {member}")
            }
            io::ErrorKind::TimedOut => format!("{member} does not answer"),
            kind => format!("no connection to {member} ({kind})"),
        },
    };
    Err(at(Stage::Connection, member, reason, NETWORK))
}

/// Hello by the driver. An error that the server answers is kept, with its code: it says in what state it is.
async fn driven_hello(address: &ServerAddress, options: &ClientOptions) -> Option<Hello> {
    let limit = stage_limit(options);
    let mut options = options.clone();
    options.hosts = vec![address.clone()];
    let direct = direct(&options);
    (options.direct_connection, options.repl_set_name, options.credential) = (direct, None, None);
    (options.connect_timeout, options.server_selection_timeout) = (Some(limit), Some(limit));
    let client = Client::with_options(options).ok()?;
    let asking = async { client.database("admin").run_command(doc! {"hello": 1}).await };
    let answer = tokio::time::timeout(limit, asking).await;
    client.shutdown().immediate(true).await;
    match answer.ok()? {
        // Only the first greeting of a connection is answered with that, which was the driver's own.
        Ok(mut hello) if direct.is_none() => {
            hello.insert(hello::SERVICE, true);
            Some(Hello(hello))
        }
        Ok(hello) => Some(Hello(hello)),
        // There is no load balancer.
        Err(failure) if matches!(failure.kind.as_ref(), ErrorKind::IncompatibleServer { .. }) => {
            Some(Hello(doc! {"ok": 1.0, "maxWireVersion": hello::WIRE_VERSION_MIN}))
        }
        Err(failure) => error::answered_code(&failure).map(|code| Hello(doc! {"ok": 0.0, "code": code})),
    }
}

#[cfg(test)]
mod tests {
    use bson::Document;

    use super::*;

    fn tried(name: &str, found: Result<Document, Stage>, is_told: bool) -> Tried {
        let address = ServerAddress::parse(name).unwrap();
        let found = found.map(Hello).map_err(|stage| at(stage, name, format!("{name} fails"), NETWORK));
        Tried { address, found, is_told }
    }

    fn member(is_primary: bool) -> Document {
        doc! {"isWritablePrimary": is_primary, "secondary": !is_primary, "setName": "rs0", "hosts": ["a:1", "b:2"]}
    }

    fn chosen(tried: &[Tried], uri: &str) -> Result<String, Trouble> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let options = runtime.block_on(async { ClientOptions::parse(uri).await.unwrap() });
        let asked = Asked::new(&options, uri);
        let mut tried = tried.to_vec();
        drop_all(&mut tried, |member, hello| asked.drops(member, hello));
        primary(&tried, options, tried.len()).map(|primary| primary.name)
    }

    #[test]
    fn a_primary_is_enough_and_without_one_what_came_furthest_is_the_trouble() {
        let uri = "mongodb://a:1,b:2/";
        let both = [tried("a:1", Err(Stage::Name), false), tried("b:2", Ok(member(true)), false)];
        assert_eq!(chosen(&both, uri).unwrap(), "b:2");
        let none = [tried("a:1", Err(Stage::Connection), false), tried("b:2", Err(Stage::Name), false)];
        let found = chosen(&none, uri).unwrap_err();
        assert_eq!((found.stage, found.member.as_deref()), (Stage::Connection, Some("a:1")));
        assert_eq!(found.reason, "a:1 fails; b:2 fails");
        let secondary = [tried("a:1", Ok(member(false)), false), tried("b:2", Err(Stage::Name), false)];
        let found = chosen(&secondary, uri).unwrap_err();
        assert_eq!(found.stage, Stage::Primary);
        assert_eq!(found.reason, "no member is primary: a:1 is secondary; b:2 fails");
        let found = chosen(&secondary[..1], "mongodb://a:1/?directConnection=true").unwrap_err();
        assert!(found.reason.contains("directConnection=true keeps to it"), "{found:?}");
        let found = chosen(&both, "mongodb://a:1,b:2/?replicaSet=rs1").unwrap_err();
        assert_eq!((found.stage, found.member.as_deref()), (Stage::Address, Some("b:2")));
        // One that the driver keeps is enough; a member of the right set that is no primary is what to look at.
        let mixed = |second| {
            [tried("a:1", Ok(doc! {"isWritablePrimary": true}), false), tried("b:2", Ok(second), false)]
        };
        assert_eq!(chosen(&mixed(member(true)), "mongodb://a:1,b:2/?replicaSet=rs0").unwrap(), "b:2");
        assert_eq!(chosen(&mixed(member(true)), "mongodb://a:1,b:2/").unwrap(), "b:2");
        let found = chosen(&mixed(member(false)), "mongodb://a:1,b:2/?replicaSet=rs0").unwrap_err();
        assert_eq!((found.stage, found.member.as_deref()), (Stage::Primary, Some("b:2")));
        let away = [
            tried("a:1", Ok(doc! {"isWritablePrimary": true}), false),
            tried("b:2", Err(Stage::Connection), false),
        ];
        let found = chosen(&away, "mongodb://a:1,b:2/?replicaSet=rs0").unwrap_err();
        assert_eq!((found.stage, found.member.as_deref()), (Stage::Address, Some("a:1")));
        assert!(
            found.reason.contains("names no replica set") && found.reason.contains("b:2 fails"),
            "{found:?}"
        );
        let fresh = [tried("a:1", Ok(doc! {"isreplicaset": true}), false)];
        assert!(chosen(&fresh, uri).unwrap_err().reason.contains("never initiated"));
    }

    #[test]
    fn members_are_shown_as_they_are_written() {
        for (written, shown_as) in [("a", "a:27017"), ("a:1", "a:1"), ("[::1]:5", "[::1]:5")] {
            assert_eq!(shown(&ServerAddress::parse(written).unwrap()), shown_as);
        }
    }
}
