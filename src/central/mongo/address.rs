//! Floor 2. The centre's connection string, read without asking anybody.
//!
//! [`read`] is the only reader: `check`, `doctor` and every round use what it returns, so an address that passes one
//! passes all. Messages name the part that is wrong and never repeat it: a password may stand anywhere in a string that
//! is not written as it should be.

mod files;
mod options;

use std::net::Ipv6Addr;

use futures_util::FutureExt as _;
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ConnectionString, HostInfo, ServerAddress, Tls};

use crate::central::Protection;
use crate::domain::hostname;

/// Written as `%` and two digits in user names and passwords.
const RESERVED: &str = ":/?#[]@%";
/// A name below which the DNS names servers has that many parts.
const SRV_PARTS_MIN: usize = 3;

/// A connection string that the driver takes, and what of it is not used.
#[derive(Debug)]
pub(in crate::central) struct Address {
    /// Without the options that a node decides itself.
    pub(super) connection: ConnectionString,
    /// Sentences about options without effect; they follow the name of the key that holds the address.
    pub(in crate::central) warnings: Vec<String>,
}

/// Reads a connection string and the TLS files that it names; or all that is wrong with it. Asks no server.
pub(in crate::central) fn read(uri: &str) -> Result<Address, Vec<String>> {
    if let Some(problem) = fault(uri) {
        return Err(vec![problem]);
    }
    let options::Sorted { uri, warnings, mut problems } = options::sort(uri);
    let connection = match ConnectionString::parse(&uri) {
        Ok(connection) => connection,
        Err(error) => {
            if problems.is_empty() {
                problems.push(refused_by_driver(&uri, &error));
            }
            return Err(problems);
        }
    };
    if problems.is_empty() {
        problems.extend(combination_fault(&uri, &connection));
    }
    problems.extend(files::faults(&connection));
    if problems.is_empty() { Ok(Address { connection, warnings }) } else { Err(problems) }
}

/// The driver's reason, unless a secret may stand in it.
fn refused_by_driver(uri: &str, error: &mongodb::error::Error) -> String {
    const REFUSED: &str = "is not a connection string: its options do not go together";
    let ErrorKind::InvalidArgument { message, .. } = error.kind.as_ref() else {
        return REFUSED.to_owned();
    };
    let authority = uri.split("://").nth(1).and_then(|rest| rest.rsplit_once('@')).map(|(user, _)| user);
    let properties =
        uri.split(['?', '&']).filter(|option| option.to_ascii_lowercase().starts_with("authmech"));
    let mut secrets = authority.into_iter().chain(properties).flat_map(|text| text.split([':', '=', ',']));
    let is_told = |secret: &str| !secret.is_empty() && message.contains(secret);
    if secrets.any(is_told) || message.chars().any(char::is_control) {
        return REFUSED.to_owned();
    }
    format!("{REFUSED} ({})", message.trim_end_matches('.'))
}

/// What is wrong with options that are right one by one.
fn combination_fault(uri: &str, connection: &ConnectionString) -> Option<String> {
    let mut alone = connection.clone();
    match &connection.host_info {
        HostInfo::HostIdentifiers(hosts)
            if hosts.iter().any(|host| !matches!(host, ServerAddress::Tcp { .. })) =>
        {
            return Some("names a socket file: the centre is a host name or an IP address".to_owned());
        }
        // The DNS is asked by the round alone.
        HostInfo::DnsRecord { .. } => {
            let host = ServerAddress::Tcp { host: "localhost".to_owned(), port: None };
            alone.host_info = HostInfo::HostIdentifiers(vec![host]);
        }
        _ => {}
    }
    let read = ClientOptions::parse(alone).into_future().now_or_never()?;
    read.err().map(|error| refused_by_driver(uri, &error))
}

impl Address {
    /// How what travels is protected.
    pub(in crate::central) fn protection(&self) -> Protection {
        match (&self.connection.tls, &self.connection.host_info) {
            (Some(Tls::Enabled(options)), _) if options.allow_invalid_certificates == Some(true) => {
                Protection::NotProved
            }
            // A name that the DNS has servers for means TLS unless it is switched off.
            (Some(Tls::Enabled(_)), _) | (None, HostInfo::DnsRecord { .. }) => Protection::Full,
            _ => Protection::None,
        }
    }
}

/// What keeps a text from being a connection string, its options aside.
pub(in crate::central) fn fault(uri: &str) -> Option<String> {
    if uri.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some("is not a connection string: it has blanks or line breaks".to_owned());
    }
    let srv = uri.strip_prefix("mongodb+srv://");
    let Some(rest) = srv.or_else(|| uri.strip_prefix("mongodb://")) else {
        return Some(
            "is not a connection string: it begins neither with mongodb:// nor with mongodb+srv://"
                .to_owned(),
        );
    };
    // The last `@` ends the user and password; those of options come after a `?`.
    let before_options = rest.split('?').next().unwrap_or_default();
    let (user, servers) = match before_options.rsplit_once('@') {
        Some((user, servers)) => (Some(user), servers),
        None => (None, before_options),
    };
    // A password with a `?`: there is an `@` behind it, and what stands before is no server.
    if user.is_none() && rest.contains('@') && hosts_fault(servers, srv.is_some()).is_some() {
        return Some(
            "is not a connection string: \"?\" in a user name or password is written %3F".to_owned(),
        );
    }
    let is_without_password =
        rest.split_once('?').is_some_and(|(_, options)| options::needs_no_password(options));
    if let Some(problem) = user.and_then(|user| user_fault(user, is_without_password)) {
        return Some(problem);
    }
    hosts_fault(servers, srv.is_some()).or_else(|| database_fault(servers))
}

/// Manuals and the pages of providers write what is to be put in its place between such marks.
fn is_placeholder(text: &str) -> bool {
    let text = text.replace("%3C", "<").replace("%3c", "<").replace("%3E", ">").replace("%3e", ">");
    [("<", ">"), ("{", "}"), ("${", "}")].iter().any(|(open, close)| {
        text.strip_prefix(open).and_then(|text| text.strip_suffix(close)).is_some_and(|name| !name.is_empty())
    })
}

/// The database that follows the servers of a connection string, as the driver reads it.
pub(in crate::central) fn database(uri: &str) -> Option<String> {
    if fault(uri).is_some() {
        return None;
    }
    let named = ConnectionString::parse(&options::sort(uri).uri).ok()?.default_database;
    named.filter(|name| !name.is_empty())
}

/// What follows the servers: `/` and the name of a database.
fn database_fault(servers: &str) -> Option<String> {
    let (_, name) = servers.split_once('/')?;
    if name.contains('#') {
        return Some("is not a connection string: a \"#\" has no meaning in it".to_owned());
    }
    name.contains(['/', '\\', '.', '"', '$', ' ']).then(|| {
        "is not a connection string: after the \"/\" stands what cannot be the name of a database".to_owned()
    })
}

fn user_fault(user: &str, is_without_password: bool) -> Option<String> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    if name.is_empty() {
        return Some("is not a connection string: the user's name is missing before the \"@\"".to_owned());
    }
    for (part, text) in [("user name", name), ("password", password)] {
        if is_placeholder(text) {
            return Some(format!(
                "is not a connection string: its {part} is a placeholder: put the real one in its place, without the marks around it"
            ));
        }
        if let Some(c) = RESERVED.chars().find(|c| *c != '%' && text.contains(*c)) {
            let code = u32::from(c);
            return Some(format!("is not a connection string: \"{c}\" in the {part} is written %{code:02X}"));
        }
        let is_code =
            |rest: &str| rest.get(..2).is_some_and(|code| code.chars().all(|c| c.is_ascii_hexdigit()));
        if text.split('%').skip(1).any(|rest| !is_code(rest)) {
            return Some(format!("is not a connection string: \"%\" in the {part} is written %25"));
        }
    }
    (password.is_empty() && !is_without_password).then(|| {
        "has a user name without a password, which no server takes: it is written mongodb://USER:PASSWORD@HOST/"
            .to_owned()
    })
}

fn hosts_fault(servers: &str, is_srv: bool) -> Option<String> {
    let hosts = servers.split('/').next().unwrap_or_default();
    if is_srv {
        let is_name = !hosts.contains([',', ':'])
            && hosts.split('.').filter(|part| !part.is_empty()).count() >= SRV_PARTS_MIN;
        return match is_name {
            true => hostname::problem(hosts).map(named),
            false => Some(
                "is not a connection string: mongodb+srv:// takes one name of at least three parts, without a port".to_owned()
            ),
        };
    }
    hosts.split(',').find_map(host_fault)
}

fn named(problem: &str) -> String {
    format!("is not a connection string: the name of a server {problem}")
}

fn host_fault(host: &str) -> Option<String> {
    let is_bracketed = host.starts_with('[');
    let (name, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, rest))) => (address, rest.strip_prefix(':').or((!rest.is_empty()).then_some(""))),
        Some(None) => {
            return Some("is not a connection string: a \"]\" is missing after an IPv6 address".to_owned());
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Some(
            "is not a connection string: an IPv6 address stands in brackets, as [::1]:27017".to_owned(),
        );
    }
    if name.is_empty() {
        return Some("is not a connection string: the name of a server is missing".to_owned());
    }
    let is_port = |port: &str| {
        port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Some(
            "is not a connection string: the port of a server is not a number from 1 to 65535".to_owned(),
        );
    }
    if is_bracketed {
        let is_address = name.parse::<Ipv6Addr>().is_ok();
        return (!is_address).then(|| {
            "is not a connection string: what stands in brackets is no IPv6 address (a zone as %eth0 is not supported)"
                .to_owned()
        });
    }
    // The path of a socket, which has words of its own.
    if name.to_ascii_lowercase().starts_with("%2f") {
        return None;
    }
    hostname::problem(name).map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_takes_is_no_fault_and_the_other_way_round() {
        for uri in [
            "mongodb://h",
            "mongodb://h/",
            "mongodb://h:27017/db?tls=true",
            "mongodb://user:pa%40ss@h/",
            "mongodb://CN=edge@h/?authMechanism=MONGODB-X509",
            "mongodb://a_b.local.:1/",
            "mongodb://1.2.3.4/",
            "mongodb://u:p@h1:1,h2:65535,[::1]:27018/?replicaSet=rs",
            "mongodb://[::1]",
            "mongodb://h/?appName=a@b",
            "mongodb+srv://u:p@hub.example.org/",
        ] {
            let address = read(uri).unwrap_or_else(|problems| panic!("{uri}: {problems:?}"));
            assert!(address.warnings.is_empty() || uri.contains("appName"), "{uri}: {:?}", address.warnings);
        }
        let long = format!("mongodb://{}:1/", "a".repeat(64));
        for (uri, problem) in [
            ("", "begins neither"),
            ("http://h", "begins neither"),
            ("h:27017", "begins neither"),
            ("mongodb://user:pa@ss@h/", "\"@\" in the password is written %40"),
            ("mongodb://us:er:pass@h/", "\":\" in the password is written %3A"),
            ("mongodb://user:pa/ss@h/", "\"/\" in the password is written %2F"),
            ("mongodb://user:pa#ss@h/", "\"#\" in the password is written %23"),
            ("mongodb://us[er:pass@h/", "\"[\" in the user name is written %5B"),
            ("mongodb://user:pa?ss@h/", "\"?\" in a user name or password is written %3F"),
            ("mongodb://user:pa%ss@h/", "\"%\" in the password is written %25"),
            ("mongodb://user:100%@h/", "\"%\" in the password is written %25"),
            ("mongodb://:pass@h/", "user's name is missing"),
            ("mongodb://", "name of a server is missing"),
            ("mongodb:///db", "name of a server is missing"),
            ("mongodb://h1,,h2", "name of a server is missing"),
            ("mongodb://h:port/", "port of a server"),
            ("mongodb://h:/", "port of a server"),
            ("mongodb://h:0/", "port of a server"),
            ("mongodb://h:65536/", "port of a server"),
            ("mongodb://h:-1/", "port of a server"),
            ("mongodb://h:+1/", "port of a server"),
            ("mongodb://[::1", "\"]\" is missing"),
            ("mongodb://[::1]x/", "port of a server"),
            ("mongodb://::1:27017/", "stands in brackets"),
            ("mongodb+srv://hub.example.org:27017/", "without a port"),
            ("mongodb+srv://hub/", "at least three parts"),
            ("mongodb://h/?tls=perhaps", "option \"tls\""),
            ("mongodb://h/?readPreference=near", "option \"readPreference\""),
            ("mongodb://h/?tls=true&tlsInsecure=s3cret", "option \"tlsInsecure\""),
            ("mongodb://h/?directConnection=1x", "option \"directConnection\""),
            ("mongodb://a b/", "blanks"),
            ("mongodb://a..b:1/", "dot too many"),
            ("mongodb://-a:1/", "begins or ends with -"),
            ("mongodb://h,a-.b:1/", "begins or ends with -"),
            (&long, "more than 63"),
            ("mongodb://1.2.3.400:1/", "no IPv4 address"),
            ("mongodb://u:p@1.2.3/", "no IPv4 address"),
            ("mongodb://h\u{e9}.org/", "ASCII form"),
            ("mongodb+srv://u:p@a..example.org/", "dot too many"),
            ("mongodb+srv://u:p@-a.example.org/", "begins or ends with -"),
            ("mongodb://<user>:<s3cret>@h/", "its user name is a placeholder"),
            ("mongodb://u:<db_s3cret>@h/", "its password is a placeholder"),
            ("mongodb://u:%3Cs3cret%3E@h/", "its password is a placeholder"),
            ("mongodb://u:${s3cret}@h/", "its password is a placeholder"),
            ("mongodb+srv://u:p@<cluster>.x.mongodb.net/", "is a placeholder"),
            ("mongodb://u@h/", "without a password"),
            ("mongodb://u:@h/", "without a password"),
            ("mongodb://u@h/?authMechanism=SCRAM-SHA-256", "without a password"),
            ("mongodb://h:1/#x", "\"#\" has no meaning"),
            ("mongodb://h/a.b", "name of a database"),
            ("mongodb://h/a/b", "name of a database"),
            ("mongodb://[::g]:1/", "no IPv6 address"),
            ("mongodb://[1.2.3.4]:1/", "no IPv6 address"),
            ("mongodb://[fe80::1%25eth0]:1/", "no IPv6 address"),
            ("mongodb://h/?authMechanism=SCRAM-SHA-256", "no user name and password"),
            ("mongodb://h/?tls=true&tls=true", "\"tls\" more than once"),
            ("mongodb://h/?replicaSet=a&REPLICASET=b", "\"replicaset\" more than once"),
            ("mongodb://h/?tls=true&ssl=false", "mean the same"),
            ("mongodb://h,g/?loadBalanced=true", "several servers"),
            ("mongodb://h,g/?directConnection=true", "several servers"),
        ] {
            let Err(found) = read(uri) else { panic!("{uri} passes") };
            let found = found.join("; ");
            assert!(found.contains(problem), "{uri}: {found}");
            assert!(!found.contains("s3cret") && !found.contains("ss@"), "{found}");
        }
    }
}
