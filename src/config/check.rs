//! Floor 5. What values of the configuration may be, beyond their types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, Path};

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

use super::units::shown_bytes;
use super::verdict::{Verdict, each};
use super::{Config, networks, schedules};
use crate::accounts::{BCRYPT_COST_MAX, BCRYPT_COST_MIN, PASSWORD_CHARS_MAX};
use crate::backup::Recipient;
use crate::central::content::{CHUNKS_COLLECTION, FILES_COLLECTION};
use crate::central::{self, CONFLICTS_COLLECTION, NODES_COLLECTION, TRASH_COLLECTION};
use crate::domain::access::{Acl, ROOT};
use crate::domain::record::Kind;
use crate::domain::{hostname, visible};
use crate::sync::budget::{QuietHours, next_loud_minute};
use crate::tls;

/// The node's name at the server follows this.
pub(super) const APP_NAME_PREFIX: &str = "thalamus-edge/";
/// MongoDB's limit for the name of an application.
const APP_NAME_BYTES_MAX: usize = 128;
const NODE_NAME_BYTES_MAX: usize = APP_NAME_BYTES_MAX - APP_NAME_PREFIX.len();

/// A shorter minimum would be no protection at all.
const PASSWORD_MIN_CHARS_MIN: usize = 4;
const BODY_LIMIT_BYTES_MIN: u64 = 1 << 10;
/// MongoDB takes no larger document.
const BODY_LIMIT_BYTES_MAX: u64 = 16 << 20;
const RECORD_LIMIT_BYTES_MIN: u64 = 16 << 10;
/// MongoDB holds no document beyond 16 MiB.
const RECORD_LIMIT_BYTES_MAX: u64 = 15 << 20;
const CONTENT_LIMIT_BYTES_MAX: u64 = 1 << 30;
/// Ten years; more is no limit at all.
const OFFLINE_LOGIN_DAYS_MAX: u32 = 3_650;
const SCRUB_DAYS_MAX: u32 = 365;
const CACHE_BYTES_MIN: u64 = 1 << 20;
const CACHE_BYTES_MAX: u64 = 1 << 40;
/// Fewer, and the readers of `/changes` would fall behind within one import.
const JOURNAL_KEEP_ROWS_MIN: u64 = 1_000;
const JOURNAL_KEEP_ROWS_MAX: u64 = 1 << 40;
/// Fewer, and a busy day would push out the one before.
const AUDIT_KEEP_ROWS_MIN: u64 = 10_000;
const AUDIT_KEEP_ROWS_MAX: u64 = 1 << 40;
const AUDIT_KEEP_DAYS_MAX: u32 = 3_650;
const RESERVE_BYTES_MAX: u64 = 1 << 40;
const JITTER_S_MAX: u64 = 60 * 60;
const ROUND_TIMEOUT_S_MIN: u64 = 10;
const ROUND_TIMEOUT_S_MAX: u64 = 24 * 60 * 60;
/// A chunk of an attachment and what is sent with it.
const ATTACHMENT_BYTES_PER_ROUND_MIN: u64 = 128 << 10;
const SCAN_BYTES_PER_ROUND_MIN: u64 = 64 << 10;
const BUDGET_BYTES_PER_DAY_MIN: u64 = 1 << 20;
/// Names of one certificate. Each is compared with each that the authority may vouch for, and clients stop after some
/// 250,000 comparisons (rustls-webpki).
const SERVER_NAMES_MAX: usize = 300;
/// MongoDB's limits for names.
const DATABASE_NAME_BYTES_MAX: usize = 63;
const COLLECTION_NAME_BYTES_MAX: usize = 120;
/// Every server has them, and none of them is for records.
const DATABASES_OF_SERVERS: [&str; 3] = ["admin", "config", "local"];
/// What Thalamus calls its database.
const DATABASE_DEFAULT: &str = "federation";
const BACKUP_KEEP_MAX: usize = 1000;
/// The keys with values that cannot be meant, and what is wrong with each.
pub(super) fn faults(config: &Config) -> impl Iterator<Item = (&'static str, String)> {
    let Config { data_dir, node, server, api, accounts, store, central, backup } = config;
    let data_dir_named = match data_dir.as_os_str().is_empty() {
        true => Err("must name a directory".to_owned()),
        false => Ok(()),
    };
    let verdicts: [(&'static str, Verdict); 33] = [
        ("data_dir", data_dir_named),
        ("node.name", node_name(&node.name)),
        ("server.names", server_names(&server.names)),
        ("server.trusted_proxies", networks::trusted_proxies(&server.trusted_proxies)),
        ("api.cors_allowed_origins", each(&api.cors_allowed_origins, networks::origin)),
        (
            "api.body_limit_bytes",
            size_within(api.body_limit_bytes, BODY_LIMIT_BYTES_MIN..=BODY_LIMIT_BYTES_MAX),
        ),
        ("api.content_limit_bytes", size_within(api.content_limit_bytes, 0..=CONTENT_LIMIT_BYTES_MAX)),
        (
            "api.record_limit_bytes",
            size_within(api.record_limit_bytes, RECORD_LIMIT_BYTES_MIN..=RECORD_LIMIT_BYTES_MAX),
        ),
        (
            "accounts.password_min_chars",
            within(accounts.password_min_chars, PASSWORD_MIN_CHARS_MIN..=PASSWORD_CHARS_MAX),
        ),
        ("accounts.bcrypt_cost", within(accounts.bcrypt_cost, BCRYPT_COST_MIN..=BCRYPT_COST_MAX)),
        ("accounts.central_roles", each(&accounts.central_roles, central_role)),
        ("accounts.offline_login_days", within(accounts.offline_login_days, 0..=OFFLINE_LOGIN_DAYS_MAX)),
        ("store.cache_bytes", size_within(store.cache_bytes, CACHE_BYTES_MIN..=CACHE_BYTES_MAX)),
        (
            "store.journal_keep_rows",
            within(store.journal_keep_rows, JOURNAL_KEEP_ROWS_MIN..=JOURNAL_KEEP_ROWS_MAX),
        ),
        ("store.audit_keep_rows", within(store.audit_keep_rows, AUDIT_KEEP_ROWS_MIN..=AUDIT_KEEP_ROWS_MAX)),
        ("store.audit_keep_days", within(store.audit_keep_days, 0..=AUDIT_KEEP_DAYS_MAX)),
        ("store.scrub_days", within(store.scrub_days, 0..=SCRUB_DAYS_MAX)),
        ("store.reserve_bytes", size_within(store.reserve_bytes, 0..=RESERVE_BYTES_MAX)),
        ("central.uri", inline_uri(&central.uri.0)),
        ("central.database", central.database.as_deref().map_or(Ok(()), database_name)),
        ("central.schedule", schedules::verdict(&central.schedule)),
        ("central.schedule_without_feed", schedules::verdict_unless_empty(&central.schedule_without_feed)),
        ("central.verify_schedule", schedules::verdict_unless_empty(&central.verify_schedule)),
        ("central.jitter_s", within(central.jitter_s, 0..=JITTER_S_MAX)),
        (
            "central.round_timeout_s",
            within(central.round_timeout_s, ROUND_TIMEOUT_S_MIN..=ROUND_TIMEOUT_S_MAX),
        ),
        (
            "central.attachment_bytes_per_round",
            zero_or_from(central.attachment_bytes_per_round, ATTACHMENT_BYTES_PER_ROUND_MIN),
        ),
        (
            "central.scan_bytes_per_round",
            zero_or_from(central.scan_bytes_per_round, SCAN_BYTES_PER_ROUND_MIN),
        ),
        (
            "central.budget_bytes_per_day",
            zero_or_from(central.budget_bytes_per_day, BUDGET_BYTES_PER_DAY_MIN),
        ),
        ("central.quiet_hours", quiet_hours(&central.quiet_hours)),
        ("central.collections", collections_apart(&central.collections)),
        ("backup.schedule", schedules::verdict_unless_empty(&backup.schedule)),
        ("backup.keep", within(backup.keep, 1..=BACKUP_KEEP_MAX)),
        ("backup.recipients", each(&backup.recipients, backup_recipient)),
    ];
    let paths = [
        ("data_dir", Some(data_dir)),
        ("server.certificate", server.certificate.as_ref()),
        ("server.key", server.key.as_ref()),
        ("accounts.roles_file", accounts.roles_file.as_ref()),
        ("store.key_file", store.key_file.as_ref()),
        ("central.uri_file", central.uri_file.as_ref()),
        ("backup.directory", backup.directory.as_ref()),
    ];
    let paths = paths.into_iter().filter_map(|(key, path)| Some((key, path_as_written(path?))));
    verdicts.into_iter().chain(paths).filter_map(|(key, verdict)| verdict.err().map(|message| (key, message)))
}

/// A path is taken as it is written; `~` in front of it is a shell's.
fn path_as_written(path: &Path) -> Verdict {
    match path.components().next() {
        Some(Component::Normal(first)) if first.as_encoded_bytes().starts_with(b"~") => Err(
            "begins with ~, which only a shell takes for a home directory: write the whole path, from / on"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// The keys that do not go together; each of them may be right or wrong by itself.
pub(super) fn contradictions(config: &Config) -> impl Iterator<Item = (&'static str, String)> {
    let Config { server, central, .. } = config;
    let database = centre_database(&central.uri.0, central.database.as_deref());
    let verdicts: [(&'static str, Verdict); 4] = [
        ("server.certificate", together(&server.certificate, &server.key, "server.key")),
        ("server.key", together(&server.key, &server.certificate, "server.certificate")),
        ("central.uri_file", not_both(central.uri_file.is_some(), !central.uri.0.is_empty())),
        ("central.uri", database.map(drop)),
    ];
    verdicts.into_iter().filter_map(|(key, verdict)| verdict.err().map(|message| (key, message)))
}

fn within<T: PartialOrd + Display>(value: T, range: RangeInclusive<T>) -> Verdict {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("must lie between {} and {}", range.start(), range.end()))
}

fn size_within(bytes: u64, range: RangeInclusive<u64>) -> Verdict {
    if range.contains(&bytes) {
        return Ok(());
    }
    Err(format!("must lie between {} and {}", shown_bytes(*range.start()), shown_bytes(*range.end())))
}

/// Bytes, of which too few would mean that nothing is ever done.
fn zero_or_from(bytes: u64, min: u64) -> Verdict {
    match bytes == 0 || bytes >= min {
        true => Ok(()),
        false => Err(format!("must be 0, which sets no limit, or at least {}", shown_bytes(min))),
    }
}

fn together<T>(this: &Option<T>, other: &Option<T>, other_key: &str) -> Verdict {
    match (this, other) {
        (Some(_), None) => Err(format!("needs `{other_key}` beside it")),
        _ => Ok(()),
    }
}

fn not_both(file: bool, inline: bool) -> Verdict {
    match file && inline {
        true => Err("and `central.uri` exclude each other".to_owned()),
        false => Ok(()),
    }
}

/// The name is an `_id` at the centre, a word in its log, and shown to people.
fn node_name(name: &str) -> Verdict {
    if name.trim().is_empty() {
        return Err("must be set: the machine has no host name".to_owned());
    }
    if name.len() > NODE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("must be at most {NODE_NAME_BYTES_MAX} bytes of plain text"));
    }
    if !visible::is_shown_as_it_is(name) {
        return Err("has only characters that show nothing, or some that turn the text around".to_owned());
    }
    Ok(())
}

/// Names that a client would accept of a certificate: whatever is wrong with another one, no certificate can be made.
fn server_names(names: &[String]) -> Verdict {
    if names.len() > SERVER_NAMES_MAX {
        return Err(format!(
            "holds {} names, and a certificate of this box has at most {SERVER_NAMES_MAX}: with more, clients give up on it",
            names.len()
        ));
    }
    each(names, server_name)
}

fn server_name(name: &str) -> Verdict {
    let is_name = name.parse::<IpAddr>().is_ok() || hostname::problem(name).is_none();
    if is_name && tls::is_certifiable(name) {
        return Ok(());
    }
    let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
    let hint = match () {
        () if bare != name => "a name stands without \"https://\"",
        () if name.ends_with('.') => "a name stands without the dot at its end",
        () if name.contains('*') => "wildcards are not names: list each name",
        () if name.contains('/') => "a name stands without a path, an address without a mask",
        () if name.starts_with('[') => "an IPv6 address stands without brackets here",
        () if name.parse::<SocketAddr>().is_ok() || name.contains(':') => "a name stands without a port",
        () if !name.is_ascii() => "letters beyond a-z are written in their ASCII form (xn--...)",
        () => "it is neither a host name nor an IP address that a certificate can hold",
    };
    Err(format!("holds {name:?}, which no client would accept: {hint}"))
}

/// Whoever has a stolen box can write to the centre: its word makes nobody root.
fn central_role(role: &str) -> Verdict {
    match role {
        "" => Err("holds an empty name".to_owned()),
        ROOT => Err("must not hold root: root is granted on each node".to_owned()),
        _ => Ok(()),
    }
}

/// Emergency access needs a role for it and the switch: a warning if only one of the two is there.
pub(super) fn emergencies(acl: &Acl, is_on: bool) -> Option<&'static str> {
    match (acl.knows_emergencies(), is_on) {
        (true, false) => Some(
            "a role has \"emergency\", which does nothing until `emergency_access = true` in [accounts] of the configuration",
        ),
        (false, true) => Some(
            "no role has \"emergency\" without \"global\", so `accounts.emergency_access = true` does nothing",
        ),
        _ => None,
    }
}

fn inline_uri(uri: &str) -> Verdict {
    if uri.is_empty() { Ok(()) } else { centre_uri(uri) }
}

/// Does not repeat the value: it usually holds a password.
pub(super) fn centre_uri(uri: &str) -> Verdict {
    central::uri_fault(uri).map_or(Ok(()), Err)
}

/// Whether every server that a connection string names is this machine; read as the driver reads it.
pub(super) fn is_loopback_uri(uri: &str) -> bool {
    // Names that the DNS would have to give are never taken for local.
    let Some(rest) = uri.strip_prefix("mongodb://") else {
        return false;
    };
    let address = rest.split('?').next().unwrap_or_default();
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    let hosts = address.split('/').next().unwrap_or_default();
    hosts.split(',').all(is_loopback_host)
}

fn is_loopback_host(host: &str) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        let address = bracketed.split(']').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let name = host.split(':').next().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// A secret key in this place must not be repeated.
fn backup_recipient(key: &str) -> Verdict {
    match key.parse::<Recipient>() {
        Ok(_) => Ok(()),
        Err(_) if key.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") => {
            Err("holds a secret key: it must never lie on the node; make a new pair and name the public key"
                .to_owned())
        }
        Err(_) => Err(format!("holds {key:?}, which is not a public key (age1...)")),
    }
}

fn quiet_hours(given: &[String]) -> Verdict {
    let mut read = Vec::new();
    for hours in given {
        read.push(QuietHours::parse(hours).ok_or_else(|| {
            format!("holds {hours:?}, which is not of the form \"HH:MM-HH:MM\", as in \"08:00-18:30\"")
        })?);
    }
    match next_loud_minute(&read, 0) {
        Some(_) => Ok(()),
        None => Err("leaves no time of day for large transfers".to_owned()),
    }
}

/// The database that a connection string names for records. One of the server's own says only where it keeps the user's
/// password.
pub(super) fn database_in(uri: &str) -> Option<String> {
    central::database_in(uri).filter(|name| !is_of_server(name))
}

/// The database of the federation: `central.database`, or the one that the connection string names.
pub(super) fn centre_database(uri: &str, named: Option<&str>) -> Result<String, String> {
    match (named, database_in(uri)) {
        (Some(named), Some(in_uri)) if named != in_uri => Err(format!(
            "names the database {in_uri:?}, and `central.database` {named:?}: take the wrong one out"
        )),
        (Some(named), _) => Ok(named.to_owned()),
        (None, Some(in_uri)) => match database_name(&in_uri) {
            Ok(()) => Ok(in_uri),
            Err(problem) => Err(format!("names {in_uri:?} behind its servers, which {problem}")),
        },
        (None, None) => Ok(DATABASE_DEFAULT.to_owned()),
    }
}

fn is_of_server(database: &str) -> bool {
    DATABASES_OF_SERVERS.iter().any(|own| database.eq_ignore_ascii_case(own))
}

fn database_name(name: &str) -> Verdict {
    if is_of_server(name) {
        return Err("is a database of the server's own".to_owned());
    }
    let fits = |c: char| !c.is_control() && !"/\\. \"$*<>:|?".contains(c);
    if (1..=DATABASE_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(format!(
        "is not the name of a database: 1 to {DATABASE_NAME_BYTES_MAX} bytes without blanks and \
         /\\.\"$*<>:|?"
    ))
}

fn collection_name(name: &str) -> Verdict {
    let fits = |c: char| c != '$' && !c.is_control();
    let reserved =
        [NODES_COLLECTION, CONFLICTS_COLLECTION, TRASH_COLLECTION, FILES_COLLECTION, CHUNKS_COLLECTION];
    if reserved.contains(&name) || name.starts_with("system.") {
        return Err(format!("names {name:?}, which is used for something else"));
    }
    let dotted = name.starts_with('.') || name.ends_with('.') || name.contains("..");
    if (1..=COLLECTION_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits) && !dotted {
        return Ok(());
    }
    Err(format!("names {name:?}, which cannot be a collection's name"))
}

/// Two kinds in one collection would overwrite each other.
fn collections_apart(given: &BTreeMap<Kind, String>) -> Verdict {
    let mut seen = BTreeSet::new();
    for kind in Kind::ALL {
        let name = given.get(&kind).map_or(kind.schema().collection, String::as_str);
        if !seen.insert(name) {
            return Err(format!("gives {name:?} to two kinds of record"));
        }
    }
    Ok(())
}

/// An address to listen on.
pub(super) fn socket_address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    match toml::Value::deserialize(from)? {
        toml::Value::String(text) => listen_address(text.trim()).map_err(D::Error::custom),
        // A port alone reads as a number where nobody puts quotation marks around it.
        toml::Value::Integer(number) => Err(D::Error::custom(no_socket_address(&number.to_string()))),
        other => {
            Err(D::Error::invalid_type(Unexpected::Other(other.type_str()), &"an address and a port as text"))
        }
    }
}

/// An address and a port, or what is wrong with them. No name is looked up: what it leads to may change. `localhost` is
/// 127.0.0.1 everywhere.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    if let Some((name, port)) = text.rsplit_once(':')
        && name.eq_ignore_ascii_case("localhost")
        && let Ok(port) = port.parse()
    {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| no_socket_address(text))
}

fn no_socket_address(text: &str) -> &'static str {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    match text.rsplit_once(':') {
        _ if is_port(text) => {
            "is a port without an address; 0.0.0.0 before it listens on all addresses of IPv4"
        }
        _ if text.is_empty() => "is empty",
        _ if text.contains("://") => "has a scheme, which does not belong here",
        _ if is_address(text) => "is an address without a port",
        None => "is no address with a port",
        Some((_, port)) if !is_port(port) => "has a port that is no number from 0 to 65535",
        Some(("", _)) => "has no address before the port; 0.0.0.0 there listens on all addresses of IPv4",
        Some(("*", _)) => "has no address before the port; 0.0.0.0 there listens on all addresses of IPv4",
        Some((name, _)) if name.contains(':') => "has an IPv6 address that does not stand in brackets",
        Some(_) => {
            "has a name where an IP address belongs; of names only localhost will do, which is this machine alone"
        }
    }
}

/// Names at the centre, by the default name of a collection (`pols`) or the kind (`page`).
pub(super) fn collections<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Kind, String>, D::Error> {
    let mut by_kind = BTreeMap::new();
    for (key, name) in BTreeMap::<String, String>::deserialize(from)? {
        let Some(kind) = kind_called(&key) else {
            let known = Kind::ALL.map(|kind| kind.schema().collection).join(", ");
            return Err(D::Error::custom(format!("has no kind of record called {key:?}; there are {known}")));
        };
        collection_name(&name).map_err(D::Error::custom)?;
        if by_kind.insert(kind, name).is_some() {
            return Err(D::Error::custom(format!("names the collection of {key:?} twice")));
        }
    }
    Ok(by_kind)
}

/// The kind of records with this name, or with this usual name of its collection.
pub(super) fn kind_called(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| name == kind.schema().collection || name == kind_name(*kind))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Person => "person",
        Kind::Page => "page",
        Kind::PersonalDocument => "personal_document",
        Kind::DomiciliaryUnit => "domiciliary_unit",
        Kind::Institution => "institution",
        Kind::Encounter => "encounter",
        Kind::Event => "event",
        Kind::Measurement => "measurement",
        Kind::Hospitalization => "hospitalization",
    }
}
