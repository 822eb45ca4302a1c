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
mod sections;
mod units;
mod variables;
mod verdict;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::accounts::AccountsSettings;
use crate::backup::BackupSettings;
use crate::central::CentreAddress;
use crate::domain::access::Acl;
use crate::domain::record::Kind;
use crate::store::StoreKey;
use crate::sync::SyncSettings;
use crate::sync::budget::QuietHours;
use crate::tls::{OwnCertificate, TlsSettings};
pub use fault::Fault;
pub use loaded::{Loaded, read_text};
pub use networks::ProxyHeader;
pub use outside::{Examined, close_to_others, open_to_others};
use sections::SecretText;
pub use sections::{AccountRules, Api, Backup, Central, Node, Server, Store};

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

#[cfg(test)]
mod tests;
