//! Floor 5. The keys of a configuration: what each may be, and an example, for messages about values that are wrong.

use toml::Value;

use super::VARIABLE_PREFIX;
use super::check::kind_called;
use crate::domain::record::Kind;

/// A key as messages explain it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// `section.key`, or `key` outside of any section.
    pub(super) name: &'static str,
    pub(super) allowed: &'static str,
    /// A value in TOML.
    pub(super) example: &'static str,
}

const YES_OR_NO: &str = "true or false";
const SCHEDULE: &str = "six fields: second, minute, hour, day of month, month, day of week; a seventh may name years that are not over";

const fn key(name: &'static str, allowed: &'static str, example: &'static str) -> Key {
    Key { name, allowed, example }
}

impl Key {
    /// The variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "__").to_ascii_uppercase())
    }

    /// The example, or another one if that stands there already and is wrong here: the file is missing, the port is taken.
    pub(super) fn example_beside(&self, value: Option<&Value>) -> &'static str {
        let is_there = match value {
            Some(value) => value.to_string() == self.example || (self.name == LISTEN.name && has_port(value)),
            // The default counts.
            None => true,
        };
        let another = ANOTHER.iter().find(|(name, _)| *name == self.name).map(|(_, example)| *example);
        another.filter(|_| is_there).unwrap_or(self.example)
    }
}

/// Whether a value has the port of the example.
fn has_port(value: &Value) -> bool {
    let port = LISTEN.example.trim_matches('"').rsplit_once(':').map_or("", |(_, port)| port);
    value
        .as_str()
        .is_some_and(|listen| listen.trim().rsplit_once(':').is_some_and(|(_, there)| there == port))
}

/// How the names of keys inside of `central.collections` begin.
const COLLECTIONS_WITHIN: &str = "central.collections.";
const DATA_DIR: Key =
    key("data_dir", "a directory, or a path where one can be made", r#""/var/lib/thalamus-edge""#);
const LISTEN: Key =
    key("server.listen", "an IP address (IPv6 in brackets) or localhost, and a port", r#""0.0.0.0:8443""#);
/// A key inside of `central.collections`.
const COLLECTION: Key = key(
    "central.collections.KIND",
    "the name of a collection, each once; not those of attachments (fs.files, fs.chunks), of the reconciliation (edge_...) or of the server (system....)",
    r#""clinic_data""#,
);
/// What a file named by `central.uri_file` holds.
pub(super) const CONNECTION_STRING: Key = key(
    "central.uri",
    "one connection string of MongoDB: mongodb://USER:PASSWORD@HOST:PORT/ or mongodb+srv://USER:PASSWORD@NAME/, with :/?#[]@% in user and password written as %3A %2F %3F %23 %5B %5D %40 %25",
    r#""mongodb://edge:PASSWORD@hub.example.org:27017/?tls=true""#,
);

/// Other examples, where the value of the first one may be right by itself and still not do on this machine.
const ANOTHER: &[(&str, &str)] = &[
    ("data_dir", r#""/srv/thalamus-edge""#),
    ("server.listen", r#""0.0.0.0:8444""#),
    ("server.certificate", r#""/srv/tls/cert.pem""#),
    ("server.key", r#""/srv/tls/key.pem""#),
    ("accounts.roles_file", r#""""#),
    ("store.key_file", r#""/srv/keys/store.key""#),
    ("store.reserve_bytes", "0"),
    ("central.uri_file", r#""/srv/keys/central.uri""#),
    ("backup.directory", r#""""#),
];

/// All keys, by section.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    DATA_DIR,
    key("node.name", "1 to 114 bytes of text that shows something; empty: the host name", r#""posta-7""#),
    LISTEN,
    key("server.tls", YES_OR_NO, "true"),
    key("server.certificate", "a PEM file that this node can read, together with `server.key`; empty: the node makes its own", r#""/etc/thalamus-edge/cert.pem""#),
    key("server.key", "the PEM file of the private key of `server.certificate`", r#""/etc/thalamus-edge/key.pem""#),
    key("server.names", "a list of host names and IP addresses, without scheme, port, wildcard or a dot at the end", r#"["clinic.local", "10.0.0.5"]"#),
    key("server.trusted_proxies", "a list of IP addresses and networks of proxies, together not everybody", r#"["127.0.0.1", "::1"]"#),
    key("server.proxy_header", r#""either", "x-forwarded-for" or "forwarded""#, r#""x-forwarded-for""#),
    key("api.date_format", r#""http" or "rfc3339""#, r#""http""#),
    key("api.collection_shape", r#""flat" or "rows""#, r#""flat""#),
    key("api.expose_password_hashes", YES_OR_NO, "false"),
    key("api.cors_allowed_origins", r#"a list of origins (https://host, https://host:port, or an app's as capacitor://localhost) in lower case, without a port that is the usual one; "*" lets any page read what needs no login"#, r#"["https://portal.example.org"]"#),
    key("api.body_limit_bytes", "a size from 1 KiB to 16 MiB", r#""1 MiB""#),
    key("api.content_limit_bytes", "a size up to 1 GiB; 0 accepts none", r#""32 MiB""#),
    key("api.record_limit_bytes", "a size from 16 KiB to 15 MiB", r#""1 MiB""#),
    key("accounts.roles_file", "a file of access rules in Thalamus's format; empty: the installed one", r#""/etc/thalamus-edge/roles.cfg""#),
    key("accounts.password_min_chars", "a number from 4 to 64", "8"),
    key("accounts.bcrypt_cost", "a number from 4 to 14", "12"),
    key("accounts.central_roles", "a list of names of roles without root", r#"["end_user", "health_professional"]"#),
    key("accounts.active_from_centre", r#""honour" or "ignore""#, r#""honour""#),
    key("accounts.emergency_access", YES_OR_NO, "false"),
    key("accounts.browser_sessions", YES_OR_NO, "true"),
    key("accounts.offline_login_days", "whole days, as a number or with a unit, up to 3650; 0: no limit", r#""30 days""#),
    key("store.cache_bytes", "a size from 1 MiB to 1 TiB", r#""32 MiB""#),
    key("store.journal_keep_rows", "a number from 1000 to 1099511627776", "1000000"),
    key("store.audit_keep_rows", "a number from 10000 to 1099511627776", "1000000"),
    key("store.key_file", "a file with 64 hexadecimal digits that others cannot read; empty: no encryption", r#""/etc/thalamus-edge/store.key""#),
    key("store.audit_keep_days", "whole days, as a number or with a unit, up to 3650, for which entries stay at least; 0: their number alone counts", r#""400 days""#),
    key("store.scrub_days", "whole days, as a number or with a unit, up to 365, in which all records are read once; 0: never", r#""7 days""#),
    key("store.reserve_bytes", "a size up to 1 TiB, less than what is free on the disk of `data_dir`; 0: none", r#""64 MiB""#),
    key("central.uri", "a connection string of MongoDB: mongodb://USER:PASSWORD@HOST:PORT/ or mongodb+srv://USER:PASSWORD@NAME/, with :/?#[]@% in user and password written as %3A %2F %3F %23 %5B %5D %40 %25; empty: no centre", r#""mongodb://edge:PASSWORD@hub.example.org:27017/?tls=true""#),
    key("central.uri_file", "a file that holds one connection string, instead of `central.uri`", r#""/etc/thalamus-edge/central.uri""#),
    key("central.database", r#"1 to 63 bytes without blanks and /\."$*<>:|?; empty: the one in the connection string, else federation"#, r#""federation""#),
    key("central.schedule", SCHEDULE, r#""0 */5 * * * *""#),
    key("central.schedule_without_feed", "six fields: second, minute, hour, day of month, month, day of week; a seventh may name years that are not over; empty: as `central.schedule` if that was set, else once an hour", r#""0 0 */6 * * *""#),
    key("central.verify_schedule", "six fields: second, minute, hour, day of month, month, day of week; a seventh may name years that are not over; empty: never", r#""0 30 2 * * Sun""#),
    key("central.continuous", YES_OR_NO, "false"),
    key("central.jitter_s", "seconds, as a number or with a unit, up to 1 hour", r#""1 minute""#),
    key("central.round_timeout_s", "seconds, as a number or with a unit, from 10 seconds to 1 day", r#""10 minutes""#),
    key("central.attachment_bytes_per_round", "a size from 128 KiB; 0: no limit", r#""4 MiB""#),
    key("central.scan_bytes_per_round", "a size from 64 KiB; 0: no limit", r#""64 MiB""#),
    key("central.budget_bytes_per_day", "a size from 1 MiB; 0: no limit", r#""20 MB""#),
    key("central.quiet_hours", "a list of times HH:MM-HH:MM that leave some time of the day", r#"["08:00-18:30"]"#),
    key("central.collections", "names of collections, each once, by their usual name; not those of attachments (fs.files, fs.chunks), of the reconciliation (edge_...) or of the server (system....)", r#"{ pols = "pages_of_life" }"#),
    key("backup.schedule", "six fields: second, minute, hour, day of month, month, day of week; a seventh may name years that are not over; empty: never", r#""0 0 3 * * *""#),
    key("backup.keep", "a number from 1 to 1000", "7"),
    key("backup.directory", "a directory that exists and in which the node can write; empty: \"backups\" in `data_dir`", r#""/mnt/stick/backups""#),
    key("backup.recipients", "a list of public keys (age1...), never a secret one", r#"["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]"#),
];

/// The key with this name, also a kind of records inside of `central.collections`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    match name.strip_prefix(COLLECTIONS_WITHIN) {
        Some(kind) => kind_called(kind).map(|_| &COLLECTION),
        None => KEYS.iter().find(|key| key.name == name),
    }
}

/// Whether a name is that of a section.
pub(super) fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.name.split_once('.').map(|(section, _)| section))
}

/// The key or section that an unknown one may be meant to be.
pub(super) fn like(name: &str) -> Option<&'static str> {
    const ALIKE_MIN: f64 = 0.8;
    let last = last_part(name);
    let section = |name: &str| name.split_once('.').map(|(section, _)| section.to_owned());
    let alike = |known: &'static str| {
        // The section alone makes no key like another.
        let whole = match (section(name), section(known)) {
            (Some(here), Some(there)) if here == there => strsim::jaro_winkler(last, last_part(known)),
            (Some(_), _) => 0.0,
            (None, _) => strsim::jaro_winkler(name, known),
        };
        // The right key, in another section or in none.
        let at_end = if last == last_part(known) { 1.0 } else { 0.0 };
        (whole.max(at_end), known)
    };
    // With its section, a key is not meant to be a section.
    let has_section = name.contains('.');
    let known = KEYS.iter().map(|key| key.name).chain(sections().filter(|_| !has_section));
    let best = known.map(alike).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE_MIN && best.1 != name).then_some(best.1)
}

/// The key that an unknown one, or a section that is written wrongly, may have been meant to set.
pub(super) fn instead_of(name: &str, value: Option<&Value>) -> &'static Key {
    let first_of = |section: &str| KEYS.iter().find(|key| section_of(key.name) == Some(section));
    let alike = like(name).and_then(|like| find(like).or_else(|| first_of(like)));
    let section = name.split('.').next().unwrap_or(name);
    // Below a section, or in the place of one, there is no room for a key without.
    let is_in_section = name.contains('.') || matches!(value, Some(Value::Table(_) | Value::Array(_)));
    let first = if is_in_section { &LISTEN } else { &DATA_DIR };
    alike.or_else(|| first_of(section)).unwrap_or(first)
}

/// Text that would be right where an unknown key stands.
pub(super) fn line_beside(name: &str, value: Option<&Value>) -> String {
    if name.starts_with(COLLECTIONS_WITHIN) {
        return format!("{} = {}", Kind::Page.schema().collection, COLLECTION.example);
    }
    let right = instead_of(name, value);
    let line = format!("{} = {}", last_part(right.name), right.example);
    match section_of(right.name) {
        there if there == section_of(name) => line,
        Some(there) => format!("[{there}]\n{line}"),
        None => line,
    }
}

/// The section of a key's name.
pub(super) fn section_of(name: &str) -> Option<&str> {
    name.split_once('.').map(|(section, _)| section)
}

/// The keys that there are where an unknown one stands, in words.
pub(super) fn those_beside(name: &str) -> String {
    if name.starts_with(COLLECTIONS_WITHIN) {
        let names = Kind::ALL.map(|kind| kind.schema().collection).join(", ");
        return format!("in [central.collections] the usual names of collections {names}");
    }
    let section = name.split('.').next().filter(|section| is_section(section));
    let in_section = |key: &&Key| section.is_some_and(|section| key.name.split('.').next() == Some(section));
    let keys: Vec<&str> = KEYS.iter().filter(in_section).map(|key| last_part(key.name)).collect();
    if let Some(section) = section {
        return format!("in [{section}] the keys {}", keys.join(", "));
    }
    let mut sections: Vec<String> = sections().map(|section| format!("[{section}]")).collect();
    sections.dedup();
    format!("data_dir and the sections {}", sections.join(", "))
}

/// The name of a key without its section.
pub(super) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
