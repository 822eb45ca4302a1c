//! Floor 5. The only reader of the configuration file and the environment.
//!
//! Hides where a value comes from: a default, `config.toml`, a `THALAMUS_EDGE__SECTION__KEY` variable or
//! a flag, the later winning. Everything that can be wrong is found when it is loaded, and the message says
//! where to look; only the files it points to are read later, when they are needed.

mod central_roles;
mod check;
pub mod edit;
mod fault;
mod keys;
mod layers;
mod loaded;
mod networks;
mod outside;
mod schedules;
mod units;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::accounts::{AccountsSettings, BCRYPT_COST_DEFAULT, PASSWORD_CHARS_MIN_DEFAULT};
use crate::backup::BackupSettings;
use crate::central::CentreAddress;
use crate::domain::access::{Acl, END_USER};
use crate::domain::active::ActiveFromCentre;
use crate::domain::json::DateFormat;
use crate::domain::record::Kind;
use crate::http::CollectionShape;
use crate::store::StoreKey;
use crate::sync::SyncSettings;
use crate::sync::budget::{ATTACHMENT_BYTES_PER_ROUND_DEFAULT, QuietHours, SCAN_BYTES_PER_ROUND_DEFAULT};
use crate::tls::{OwnCertificate, TlsSettings};
pub use fault::Fault;
pub use loaded::{Loaded, read_text};
pub use networks::ProxyHeader;
pub use outside::{Examined, close_to_others, open_to_others};

/// Read when no file is named, if it is there.
pub const DEFAULT_FILE: &str = "/etc/thalamus-edge/config.toml";
/// The access rules when the configuration names none, if they are there.
pub const DEFAULT_ROLES_FILE: &str = "/etc/thalamus-edge/roles.cfg";
/// Where an installed node keeps its data.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/thalamus-edge";
/// Where a node keeps its data that was just tried out: nobody configured it, or it shows the demo.
pub const TRIAL_DATA_DIR: &str = "./thalamus-edge-data";
/// What users who are neither the owner nor of the group may do with a file.
const OTHERS_MODE: u32 = 0o007;
/// Of a file's mode, what is about permissions.
const MODE_MASK: u32 = 0o7777;
/// Where backups go, below the data directory, if the configuration names no place.
const BACKUP_DIRECTORY: &str = "backups";
/// What stands for a port that nobody knows before the node runs.
pub(crate) const PORT_UNKNOWN: &str = "PORT";
/// When to reconcile unless somebody says otherwise; and where every round reads everything.
const SCHEDULE_DEFAULT: &str = "0 */5 * * * *";
const SCHEDULE_WITHOUT_FEED_DEFAULT: &str = "0 0 * * * *";
/// Variables that set a key begin like this.
pub const VARIABLE_PREFIX: &str = "THALAMUS_EDGE__";

/// What a node is told at its start. Values are checked; see `etc/config.toml` for what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub node: Node,
    pub server: Server,
    pub api: Api,
    pub accounts: AccountRules,
    pub store: Store,
    pub central: Central,
    pub backup: Backup,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Never empty once loaded: the host name stands in.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    #[serde(deserialize_with = "check::socket_address")]
    pub listen: SocketAddr,
    pub tls: bool,
    #[serde(deserialize_with = "path_unless_empty")]
    pub certificate: Option<PathBuf>,
    #[serde(deserialize_with = "path_unless_empty")]
    pub key: Option<PathBuf>,
    pub names: Vec<String>,
    /// Each an address or a network: read them through [`Config::trusted_proxies`].
    trusted_proxies: Vec<String>,
    pub proxy_header: ProxyHeader,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    pub date_format: DateFormat,
    pub collection_shape: CollectionShape,
    pub expose_password_hashes: bool,
    pub cors_allowed_origins: Vec<String>,
    #[serde(deserialize_with = "units::bytes")]
    pub body_limit_bytes: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub content_limit_bytes: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub record_limit_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountRules {
    #[serde(deserialize_with = "path_unless_empty")]
    pub roles_file: Option<PathBuf>,
    pub password_min_chars: usize,
    pub bcrypt_cost: u32,
    /// Roles that count wherever they came from.
    pub central_roles: Vec<String>,
    pub active_from_centre: ActiveFromCentre,
    pub emergency_access: bool,
    pub browser_sessions: bool,
    /// Days after the last complete round in which people may log in; 0: for ever.
    #[serde(deserialize_with = "units::days")]
    pub offline_login_days: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    #[serde(deserialize_with = "units::bytes")]
    pub cache_bytes: u64,
    pub journal_keep_rows: u64,
    pub audit_keep_rows: u64,
    /// How long entries of the audit trail stay at least, however many there are; 0: only their number counts.
    #[serde(deserialize_with = "units::days")]
    pub audit_keep_days: u32,
    /// In how many days every row is read through once, to see whether it is what was written; 0: never.
    #[serde(deserialize_with = "units::days")]
    pub scrub_days: u32,
    /// Read through [`Config::store_key`].
    #[serde(deserialize_with = "path_unless_empty")]
    pub key_file: Option<PathBuf>,
    /// Free bytes of the disk that clients' writes leave alone; 0: none.
    #[serde(deserialize_with = "units::bytes")]
    pub reserve_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Central {
    /// May hold a password: read it through [`Config::centre`].
    uri: SecretText,
    #[serde(deserialize_with = "path_unless_empty")]
    uri_file: Option<PathBuf>,
    /// Read it through [`Config::centre`]: the connection string may name one.
    #[serde(deserialize_with = "text_unless_empty")]
    database: Option<String>,
    /// Six fields of cron, seconds first, in UTC.
    pub schedule: String,
    /// The same, for a centre without a change feed: read it through [`Central::schedule_without_feed`].
    schedule_without_feed: String,
    /// The same, for looking through everything at the centre; empty: never.
    pub verify_schedule: String,
    #[serde(deserialize_with = "units::seconds")]
    jitter_s: u64,
    #[serde(deserialize_with = "units::seconds")]
    round_timeout_s: u64,
    continuous: bool,
    #[serde(deserialize_with = "units::bytes")]
    attachment_bytes_per_round: u64,
    #[serde(deserialize_with = "units::bytes")]
    scan_bytes_per_round: u64,
    #[serde(deserialize_with = "units::bytes")]
    budget_bytes_per_day: u64,
    /// Each as `HH:MM-HH:MM`: read them through [`Config::sync_settings`].
    quiet_hours: Vec<String>,
    #[serde(deserialize_with = "check::collections")]
    collections: BTreeMap<Kind, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// Six fields of cron, seconds first, in the machine's local time; empty: never.
    pub schedule: String,
    pub keep: usize,
    /// Read it through [`Config::backup_settings`].
    #[serde(deserialize_with = "path_unless_empty")]
    directory: Option<PathBuf>,
    recipients: Vec<String>,
}

/// Text that must not be shown, not even by accident.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
struct SecretText(String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

impl Default for Server {
    fn default() -> Server {
        Server {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            tls: true,
            certificate: None,
            key: None,
            names: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::Either,
        }
    }
}

impl Default for Api {
    fn default() -> Api {
        Api {
            date_format: DateFormat::default(),
            collection_shape: CollectionShape::default(),
            expose_password_hashes: false,
            cors_allowed_origins: Vec::new(),
            body_limit_bytes: 1 << 20,
            content_limit_bytes: 32 << 20,
            record_limit_bytes: 1 << 20,
        }
    }
}

impl Default for AccountRules {
    fn default() -> AccountRules {
        AccountRules {
            roles_file: None,
            password_min_chars: PASSWORD_CHARS_MIN_DEFAULT,
            bcrypt_cost: BCRYPT_COST_DEFAULT,
            central_roles: vec![END_USER.to_owned(), "health_professional".to_owned()],
            active_from_centre: ActiveFromCentre::Honour,
            emergency_access: false,
            browser_sessions: true,
            offline_login_days: 0,
        }
    }
}

impl Default for Store {
    fn default() -> Store {
        Store {
            cache_bytes: 32 << 20,
            journal_keep_rows: 1_000_000,
            audit_keep_rows: 1_000_000,
            audit_keep_days: 400,
            scrub_days: 7,
            reserve_bytes: 64 << 20,
            key_file: None,
        }
    }
}

impl Default for Central {
    fn default() -> Central {
        Central {
            uri: SecretText::default(),
            uri_file: None,
            database: None,
            schedule: SCHEDULE_DEFAULT.to_owned(),
            schedule_without_feed: String::new(),
            verify_schedule: "0 30 2 * * Sun".to_owned(),
            jitter_s: 60,
            round_timeout_s: 600,
            continuous: false,
            attachment_bytes_per_round: ATTACHMENT_BYTES_PER_ROUND_DEFAULT,
            scan_bytes_per_round: SCAN_BYTES_PER_ROUND_DEFAULT,
            budget_bytes_per_day: 0,
            quiet_hours: Vec::new(),
            collections: BTreeMap::new(),
        }
    }
}

impl Default for Backup {
    fn default() -> Backup {
        Backup { schedule: "0 0 3 * * *".to_owned(), keep: 7, directory: None, recipients: Vec::new() }
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    pub listen: Option<String>,
    /// Moves the default data directory to the working directory.
    pub demo: bool,
}

/// Why a node does not start with what it was told. Never holds a value that may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}", Fault::of_unreadable(path, cause))]
    Unreadable { path: PathBuf, cause: io::Error },
    /// Everything to correct in the configuration itself; at least one.
    #[error("{}", fault::lines(.0))]
    Faults(Vec<Fault>),
}

impl ConfigError {
    /// All that is wrong, each with the value, what is allowed and an example.
    pub fn into_faults(self) -> Vec<Fault> {
        match self {
            ConfigError::Faults(faults) => faults,
            ConfigError::Unreadable { path, cause } => vec![Fault::of_unreadable(&path, &cause)],
        }
    }
}

impl Config {
    /// See [`Loaded::load`].
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        Loaded::load(path, env, overrides).map(|loaded| loaded.config)
    }

    /// See [`Loaded::of_text`].
    pub fn of_text(
        path: &Path,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        Loaded::of_text(path, text, env).map(|loaded| loaded.config)
    }

    /// The centre to reconcile with; `None` when none is configured. Reads `central.uri_file`.
    pub fn centre(&self) -> Result<Option<CentreAddress>, ConfigError> {
        let uri = match &self.central.uri_file {
            None => self.central.uri.0.clone(),
            Some(path) => read_text(path)?.trim().to_owned(),
        };
        let fault = |problem| match &self.central.uri_file {
            Some(path) => Fault::of_uri_file(path, problem),
            // Found when the configuration is loaded already.
            None => Fault::of_key(&fault::Place::named("central.uri"), "central.uri", None, problem),
        };
        if uri.is_empty() && self.central.uri_file.is_none() {
            return Ok(None);
        }
        let usable = check::centre_uri(&uri).and_then(|()| self.database_at(&uri));
        let database = usable.map_err(|problem| ConfigError::Faults(vec![fault(problem)]))?;
        Ok(Some(CentreAddress {
            uri,
            database,
            collections: self.central.collections.clone(),
            app_name: format!("{}{}", check::APP_NAME_PREFIX, self.node.name),
        }))
    }

    /// The database of a centre with this connection string: the one that `central.database` names, or the string, or the
    /// usual one; a sentence that follows the string's key if they name two.
    pub fn database_at(&self, uri: &str) -> Result<String, String> {
        check::centre_database(uri, self.central.database.as_deref())
    }

    /// The database that a connection string names, if it names one for records.
    pub fn database_in(uri: &str) -> Option<String> {
        check::database_in(uri)
    }

    /// The key of the store, if it is to be encrypted. Reads `store.key_file`, which others may not read.
    pub fn store_key(&self) -> Result<Option<StoreKey>, ConfigError> {
        self.store.key_file.as_deref().map(read_key).transpose()
    }

    /// Whether the centre, if there is one, is a server on this very machine, as one is that somebody
    /// tries things out with.
    pub fn is_centre_local(&self) -> Result<bool, ConfigError> {
        Ok(self.centre()?.is_none_or(|centre| check::is_loopback_uri(&centre.uri)))
    }

    /// The same for a node without a centre, whose address may not be where it belongs yet.
    pub fn without_centre(mut self) -> Config {
        self.central.uri = SecretText::default();
        self.central.uri_file = None;
        self
    }

    /// The kind of record in the collection that the centre calls `name`, or that is called so by default.
    pub fn kind_of_collection(&self, name: &str) -> Option<Kind> {
        let here = Kind::ALL.into_iter().find(|kind| self.collection_of(*kind) == name);
        here.or_else(|| Kind::from_collection(name))
    }

    /// What the centre calls the collection of a kind.
    pub fn collection_of(&self, kind: Kind) -> &str {
        self.central.collections.get(&kind).map_or(kind.schema().collection, String::as_str)
    }

    /// The access rules, and warnings about names in them that nothing answers to, and about what needs something
    /// in the configuration beside it. Asked again, it reads the file again.
    pub fn acl(&self) -> Result<(Acl, Vec<String>), ConfigError> {
        let (acl, mut warnings) = self.acl_or(Path::new(DEFAULT_ROLES_FILE))?;
        warnings.extend(check::emergencies(&acl, self.accounts.emergency_access).map(str::to_owned));
        Ok((acl, warnings))
    }

    /// A file that is named must be there; the default one may be missing.
    fn acl_or(&self, default: &Path) -> Result<(Acl, Vec<String>), ConfigError> {
        let named = self.accounts.roles_file.as_deref();
        let path = named.unwrap_or(default);
        let text = match read_text(path) {
            Ok(text) => text,
            Err(ConfigError::Unreadable { cause, .. })
                if named.is_none() && cause.kind() == io::ErrorKind::NotFound =>
            {
                return Ok((Acl::built_in(), Vec::new()));
            }
            Err(error) => return Err(error),
        };
        Acl::parse(&text).map_err(|error| {
            ConfigError::Faults(error.0.iter().map(|fault| Fault::of_rules(path, fault)).collect())
        })
    }

    /// The proxies that are believed when they say who the client is.
    pub fn trusted_proxies(&self) -> Vec<IpNet> {
        // Each of them has been read when the configuration was loaded.
        self.server.trusted_proxies.iter().filter_map(|net| networks::network(net)).collect()
    }

    /// Where clients find the node, as far as the configuration says: `https://clinic.local:8443`. If it leaves the port to the
    /// kernel, `PORT_UNKNOWN` stands in its place.
    pub fn base_url(&self) -> String {
        self.base_url_of(self.server.listen)
    }

    /// The same of a node that listens on this address.
    pub fn base_url_of(&self, listen: SocketAddr) -> String {
        if let (false, false, Some(name)) =
            (self.server.tls, self.server.trusted_proxies.is_empty(), self.server.names.first())
        {
            return format!("https://{name}");
        }
        let name = match self.server.names.first() {
            _ if listen.ip().is_loopback() => "localhost".to_owned(),
            Some(name) => name.clone(),
            None => gethostname::gethostname().to_string_lossy().into_owned(),
        };
        let scheme = if self.server.tls { "https" } else { "http" };
        match listen.port() {
            0 => format!("{scheme}://{name}:{PORT_UNKNOWN}"),
            port => format!("{scheme}://{name}:{port}"),
        }
    }

    pub fn accounts_settings(&self) -> AccountsSettings {
        AccountsSettings {
            bcrypt_cost: self.accounts.bcrypt_cost,
            password_min_chars: self.accounts.password_min_chars,
            ..AccountsSettings::default()
        }
    }

    /// How rounds are run, on a machine whose local time is UTC.
    pub fn sync_settings(&self) -> SyncSettings {
        let central = &self.central;
        SyncSettings {
            node_name: self.node.name.clone(),
            round_timeout: central.round_timeout(),
            continuous: central.continuous,
            attachment_bytes_per_round: central.attachment_bytes_per_round,
            scan_bytes_per_round: central.scan_bytes_per_round,
            budget_bytes_per_day: central.budget_bytes_per_day,
            offline_login_days: self.accounts.offline_login_days,
            // Each of them has been read when the configuration was loaded.
            quiet_hours: central.quiet_hours.iter().filter_map(|hours| QuietHours::parse(hours)).collect(),
            ..SyncSettings::default()
        }
    }

    pub fn backup_settings(&self) -> BackupSettings {
        let backup = &self.backup;
        BackupSettings {
            directory: backup.directory.clone().unwrap_or_else(|| self.data_dir.join(BACKUP_DIRECTORY)),
            keep: backup.keep,
            // Each of them has been read when the configuration was loaded.
            recipients: backup.recipients.iter().filter_map(|key| key.parse().ok()).collect(),
            node_name: self.node.name.clone(),
            data_dir: self.data_dir.clone(),
            reserve_bytes: self.store.reserve_bytes,
        }
    }

    /// Files that hold a password or a key; `file` is the configuration's own, which is one of them if the address of
    /// the centre stands in it with a password.
    pub fn secret_files(&self, file: &Path) -> Vec<PathBuf> {
        let named = [&self.central.uri_file, &self.store.key_file, &self.server.key].into_iter().flatten();
        let uri = &self.central.uri.0;
        // It may come from a variable.
        let has_secret = uri.contains('@') && read_text(file).is_ok_and(|text| text.contains(uri));
        named.cloned().chain(has_secret.then(|| file.to_owned())).collect()
    }

    /// Files that the configuration names and that hold no records.
    pub fn named_files(&self) -> Vec<PathBuf> {
        let Config { accounts, server, central, store, .. } = self;
        let named =
            [&accounts.roles_file, &server.certificate, &server.key, &central.uri_file, &store.key_file];
        named.into_iter().flatten().cloned().collect()
    }

    /// `None` when plain HTTP was asked for.
    pub fn tls_settings(&self) -> Option<TlsSettings> {
        self.server.tls.then(|| TlsSettings {
            directory: self.data_dir.join("tls"),
            own: self
                .server
                .certificate
                .clone()
                .zip(self.server.key.clone())
                .map(|(certificate, key)| OwnCertificate { certificate, key }),
            names: self.server.names.clone(),
        })
    }
}

impl Central {
    /// When to reconcile with a centre where every round reads everything: what was set for it, or for all centres, and
    /// once an hour if neither was.
    pub fn schedule_without_feed(&self) -> &str {
        match (self.schedule_without_feed.as_str(), self.schedule.as_str()) {
            ("", SCHEDULE_DEFAULT) => SCHEDULE_WITHOUT_FEED_DEFAULT,
            ("", schedule) => schedule,
            (set, _) => set,
        }
    }

    /// Rounds start up to this much later than scheduled, so that boxes do not arrive all at once.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs(self.jitter_s)
    }

    /// A round that takes longer is given up and continued by the next.
    pub fn round_timeout(&self) -> Duration {
        Duration::from_secs(self.round_timeout_s)
    }
}

/// The variables that are meant for [`Config::load`]. Others are not looked at: they may hold anything.
#[allow(clippy::disallowed_methods, reason = "this module is the one that reads the environment")]
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        // What is no text is marked by this, and refused when it is read.
        (name.starts_with(VARIABLE_PREFIX) || variables::is_looked_at(&name))
            .then(|| (name, value.to_string_lossy().into_owned()))
    })
}

/// Whether the log is to be written as JSON, one object a line.
#[allow(clippy::disallowed_methods, reason = "this module is the one that reads the environment")]
pub fn is_log_json() -> bool {
    std::env::var_os(variables::LOG_FORMAT).is_some_and(|format| format == "json")
}

/// The key of a store out of its file. For a configuration, and for the commands that change keys.
pub fn read_key(path: &Path) -> Result<StoreKey, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
    let text = Zeroizing::new(read_text(path)?);
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & MODE_MASK;
    let mut faults = Vec::new();
    if mode & OTHERS_MODE != 0 {
        let problem = "everybody on this machine may read the key: chmod o= it";
        faults.push(Fault::of_mode(path, mode, problem.to_owned()));
    }
    match StoreKey::parse(&text) {
        Ok(key) if faults.is_empty() => return Ok(key),
        Ok(_) => {}
        Err(error) => faults.insert(0, Fault::of_key_file(path, error.to_string())),
    }
    Err(ConfigError::Faults(faults))
}

/// Whether users of this machine who are neither its owner nor in its group may do anything with a file.
pub fn is_open_to_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & OTHERS_MODE != 0)
}

fn text_unless_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then_some(text))
}

fn path_unless_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

#[cfg(test)]
mod tests;
