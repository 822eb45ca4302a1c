//! Floor 5. What a configuration points to: files, directories, addresses of this machine.
//!
//! `check`, `serve` and `setup` ask the same function, so what one of them finds the others find too. What does not
//! keep the records from being served, as a backup directory that is missing, is a fault that does not stop a node.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;

use super::fault::Fault;
use super::{Config, ConfigError, Loaded};
use crate::domain::access::Acl;
use crate::tls::{Tls, TlsError};

/// What there is to say about a configuration that could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    pub faults: Vec<Fault>,
    /// What may not be meant, in sentences.
    pub warnings: Vec<String>,
}

impl Examined {
    /// The faults with which a node does not start; the others are for its log.
    pub fn stopping(&self) -> Vec<Fault> {
        self.faults.iter().filter(|fault| fault.stops_the_node).cloned().collect()
    }
}

impl Loaded {
    /// Looks at everything that the configuration points to.
    pub fn examine(&self) -> Examined {
        let mut examined = Examined::default();
        match self.config.acl() {
            Ok((acl, warnings)) => {
                examined.warnings.extend(warnings.iter().map(|warning| format!("access rules: {warning}")));
                examined.warnings.extend(self.unknown_roles(&acl));
            }
            Err(error) => examined.faults.extend(self.faults_of("accounts.roles_file", error)),
        }
        examined.warnings.extend(self.config.backup_warnings());
        let found =
            [self.centre_files(), self.store_key_file(), self.certificate(), self.data_dir(), self.listen()];
        examined.faults.extend(found.into_iter().flatten());
        examined.faults.extend(self.backup_directory().map(Fault::not_stopping));
        examined
    }

    /// The faults in an error about what a key names.
    fn faults_of(&self, key: &str, error: ConfigError) -> Vec<Fault> {
        match error {
            ConfigError::Faults(faults) => faults,
            other => vec![self.origins.fault(key, other.to_string())],
        }
    }

    /// Roles that are to count when they come from the centre, but that mean nothing here.
    fn unknown_roles(&self, acl: &Acl) -> Option<String> {
        const KEY: &str = "accounts.central_roles";
        let unknown: Vec<String> = self
            .config
            .accounts
            .central_roles
            .iter()
            .filter(|role| !acl.knows_role(role))
            .map(|role| format!("{role:?}"))
            .collect();
        // The default need not fit other rules.
        (self.origins.has(KEY) && !unknown.is_empty()).then(|| {
            format!(
                "`{KEY}` names {}, which the access rules do not know; there are {}",
                unknown.join(", "),
                acl.role_names().join(", ")
            )
        })
    }

    fn centre_files(&self) -> Vec<Fault> {
        let key = if self.config.central.uri_file.is_some() { "central.uri_file" } else { "central.uri" };
        match self.config.centre() {
            Err(error) => self.faults_of(key, error),
            Ok(None) => Vec::new(),
            Ok(Some(centre)) => {
                let unreadable = |path: &Path| {
                    let cause = fs::File::open(path).err()?;
                    Some(
                        self.origins
                            .fault(key, format!("names {}, which cannot be read: {cause}", path.display())),
                    )
                };
                let options = centre.option_fault().map(|problem| self.origins.fault(key, problem));
                centre.files().iter().filter_map(|path| unreadable(path)).chain(options).collect()
            }
        }
    }

    fn store_key_file(&self) -> Vec<Fault> {
        self.config.store_key().err().map_or_else(Vec::new, |error| self.faults_of("store.key_file", error))
    }

    /// A pair of the operator's own must be usable; the node's own is made when it starts.
    fn certificate(&self) -> Vec<Fault> {
        let Some(settings) = self.config.tls_settings() else {
            return Vec::new();
        };
        let Some(own) = settings.own.clone() else {
            return Vec::new();
        };
        let unreadable = |(key, path): (&str, &Path)| {
            let cause = fs::File::open(path).err()?;
            Some(self.origins.fault(key, format!("{} cannot be read: {cause}", path.display())))
        };
        let files = [("server.certificate", own.certificate.as_path()), ("server.key", own.key.as_path())];
        let mut faults: Vec<Fault> = files.into_iter().filter_map(unreadable).collect();
        if faults.is_empty()
            && let Err(error) = Tls::load(settings, std::time::SystemTime::UNIX_EPOCH)
        {
            let key = match &error {
                TlsError::File { path, .. } if *path == own.key => "server.key",
                _ => "server.certificate",
            };
            faults.push(self.origins.fault(key, error.to_string()));
        }
        faults
    }

    fn data_dir(&self) -> Vec<Fault> {
        let directory = &self.config.data_dir;
        // What is not there is made, below what is there.
        let problem = directory.ancestors().find_map(|place| match fs::metadata(place) {
            Ok(about) if about.is_dir() => Some(None),
            Ok(_) => Some(Some(format!("{}: {} is no directory", directory.display(), place.display()))),
            Err(error) if missing(&error) => None,
            Err(error) => Some(Some(format!("{}: {error}", place.display()))),
        });
        problem.flatten().map(|problem| self.origins.fault("data_dir", problem)).into_iter().collect()
    }

    /// Whether the machine has the address; whether the port is free, only a start finds out.
    fn listen(&self) -> Vec<Fault> {
        let address = self.config.server.listen.ip();
        match TcpListener::bind((address, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                let problem = format!("this machine does not have the address {address}");
                vec![self.origins.fault("server.listen", problem)]
            }
            _ => Vec::new(),
        }
    }

    /// A directory that was named must be there: a stick that is missing would go unnoticed otherwise.
    fn backup_directory(&self) -> Option<Fault> {
        const STILL: &str = "the node serves without it, but makes no backups";
        let directory = self.config.backup.directory.as_ref()?;
        let problem = match fs::metadata(directory) {
            Ok(about) if about.is_dir() => return None,
            Ok(_) => "is no directory".to_owned(),
            // The node makes what is in its own.
            Err(error) if missing(&error) && directory.starts_with(&self.config.data_dir) => return None,
            Err(error) if missing(&error) => {
                "there is no such directory: is the disk connected and mounted?".to_owned()
            }
            Err(error) => error.to_string(),
        };
        Some(self.origins.fault("backup.directory", format!("{}: {problem} ({STILL})", directory.display())))
    }
}

fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl Config {
    /// What there is to say about how backups are made, in sentences.
    pub fn backup_warnings(&self) -> Vec<String> {
        let mut warnings = crate::backup::warnings(&self.backup_settings());
        if self.backup.schedule.is_empty() {
            warnings.push("no backups are made by themselves ([backup] schedule is empty)".to_owned());
        }
        warnings
    }
}
