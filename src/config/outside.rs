//! Floor 5. What a configuration points to: files, directories, addresses of this machine.
//!
//! `check`, `serve` and `setup` ask the same function, so what one of them finds the others find too. What does not
//! keep the records from being served, as a backup directory that is missing, is a fault that does not stop a node.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::fault::{Fault, Place};
use super::{Config, ConfigError, DEFAULT_FILE, Loaded, check, is_open_to_others, schedules};
use crate::app::{control_socket, not_ours_to_close, now_ms, store_file};
use crate::central::Protection;
use crate::demo;
use crate::domain::access::{Acl, END_USER};
use crate::files::read_configured;
use crate::store::{StoreError, look_at_store, space_at};
use crate::tls::{TlsError, TlsSettings, is_certifiable};

/// How a store gets back that is damaged.
const RESTORE: &str = "thalamus-edge restore FILE";
/// How the authority of a box gets back that is damaged.
const PUT_BACK: &str = "cp -p COPY/tls/ca.pem COPY/tls/ca-key.pem DATA_DIR/tls/";

/// What there is to say about a configuration that could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    pub faults: Vec<Fault>,
    /// What may not be meant, in sentences.
    pub warnings: Vec<String>,
    /// What clients suffer from the certificates, in sentences. A start mends some of it.
    pub certificate: Vec<String>,
}

impl Examined {
    /// What a node starts with all the same, in sentences.
    pub fn unwise(&self) -> Vec<String> {
        let certificate = self.certificate.iter().cloned();
        self.logged_before_start().into_iter().chain(certificate).collect()
    }

    /// [`Examined::unwise`] for the log of a start, which speaks of the certificates once it has mended them.
    pub fn logged_before_start(&self) -> Vec<String> {
        let faults = self.faults.iter().filter(|fault| !fault.stops_the_node).map(Fault::to_string);
        faults.chain(self.warnings.iter().cloned()).collect()
    }

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
                examined.warnings.extend(without_members(&acl));
            }
            Err(error) => examined.faults.extend(self.faults_of("accounts.roles_file", error)),
        }
        examined.warnings.extend(self.config.backup_warnings());
        examined.warnings.extend(self.config.plain_http_warning().map(str::to_owned));
        examined.warnings.extend(self.config.port_warning());
        examined.warnings.extend(self.config.any_origin_warning().map(str::to_owned));
        examined
            .warnings
            .extend(self.open_central_roles().map(|(finding, remedy)| format!("{finding}; {remedy}")));
        examined.warnings.extend(self.without_effect());
        examined.warnings.extend(self.open_secrets());
        if let Ok(Some((finding, remedy))) = self.config.centre_weakness() {
            examined.warnings.push(format!("the way to the centre is {finding}; {remedy}"));
        }
        if let Some(settings) = self.config.tls_settings() {
            // A pair that cannot be read is a fault.
            let concerns = settings.concerns(system_time()).unwrap_or_default();
            examined.certificate.extend(concerns.iter().map(ToString::to_string));
        }
        self.centre(&mut examined);
        let is_running = self.is_running();
        let data_dir = self.data_dir();
        let certificate = self.certificate(data_dir.is_empty());
        let found = [self.store_key_file(), certificate, data_dir, self.listen(is_running)];
        examined.faults.extend(found.into_iter().flatten());
        // What cannot be there is not looked into.
        if examined
            .faults
            .iter()
            .all(|fault| !["data_dir", "store.key_file"].iter().any(|key| fault.is_of(key)))
        {
            self.store(&mut examined);
        }
        let serving_without =
            self.schedules().into_iter().chain(self.reserve()).chain(self.backup_directory());
        examined.faults.extend(serving_without.map(Fault::not_stopping));
        examined
    }

    /// Keys that are set and do nothing because of another one: somebody may rely on them.
    fn without_effect(&self) -> Vec<String> {
        let server = &self.config.server;
        let without_proxies = server
            .trusted_proxies
            .is_empty()
            .then_some("without `server.trusted_proxies`: no proxy is believed");
        let without_tls =
            (!server.tls).then_some("with `server.tls = false`: the node serves no certificate");
        let keys = [
            ("server.proxy_header", without_proxies),
            ("server.certificate", without_tls),
            ("server.key", without_tls),
        ];
        let idle = keys.into_iter().filter(|(key, _)| self.origins.has(key));
        idle.filter_map(|(key, why)| Some(format!("`{key}` does nothing {}", why?))).collect()
    }

    /// Files with a password or a key that everybody may read. The store's key is a fault then.
    fn open_secrets(&self) -> Vec<String> {
        let file = match self.origins.place("central.uri") {
            Some(Place::Line(file, _)) => file,
            _ => PathBuf::from(DEFAULT_FILE),
        };
        let files = self.config.secret_files(&file).into_iter();
        let files = files.filter(|file| Some(file) != self.config.store.key_file.as_ref());
        let files = files.filter(|file| is_open_to_others(file).unwrap_or(false));
        files.map(|file| format!("{}; {}", open_to_others(&file), close_to_others(&file))).collect()
    }

    /// The faults in an error about what a key names.
    fn faults_of(&self, key: &str, error: ConfigError) -> Vec<Fault> {
        match error {
            ConfigError::Faults(faults) => faults,
            ConfigError::Unreadable { path, cause } => {
                vec![self.origins.fault(key, format!("{}: cannot be read: {cause}", path.display()))]
            }
        }
    }

    /// The address of the centre as a round reads it, with the files that it names.
    fn centre(&self, examined: &mut Examined) {
        let key = if self.config.central.uri_file.is_some() { "central.uri_file" } else { "central.uri" };
        // Said already, with its place.
        if check::contradictions(&self.config).any(|(about, _)| about == key) {
            return;
        }
        let faults = match self.config.centre().map(|centre| centre.map(|centre| centre.examine())) {
            Err(error) => self.faults_of(key, error),
            Ok(None) => Vec::new(),
            Ok(Some(Err(problems))) => {
                problems.into_iter().map(|problem| self.origins.fault(key, problem)).collect()
            }
            Ok(Some(Ok(warnings))) => {
                examined.warnings.extend(warnings.iter().map(|warning| format!("`{key}`: {warning}")));
                Vec::new()
            }
        };
        examined.faults.extend(faults);
    }

    fn store_key_file(&self) -> Vec<Fault> {
        self.config.store_key().err().map_or_else(Vec::new, |error| self.faults_of("store.key_file", error))
    }

    /// Schedules that do not come again, because the years that they name have passed. A clock that is wrong for once
    /// must not keep a clinic from its records.
    fn schedules(&self) -> Vec<Fault> {
        let Config { central, backup, .. } = &self.config;
        let schedules = [
            ("central.schedule", central.schedule.as_str()),
            ("central.schedule_without_feed", central.schedule_without_feed.as_str()),
            ("central.verify_schedule", central.verify_schedule.as_str()),
            ("backup.schedule", backup.schedule.as_str()),
        ];
        let now_ms = now_ms();
        let over = schedules.into_iter().filter(|(_, text)| !schedules::still_comes(text, now_ms));
        over.map(|(key, _)| self.origins.fault(key, "never comes again: the years that it names are over"))
            .collect()
    }

    /// The bytes to keep free, if the disk has fewer: no client could write.
    pub fn reserve(&self) -> Option<Fault> {
        let Config { data_dir, store, .. } = &self.config;
        // What is not there is made, on the disk of what is there.
        let mut places = data_dir.ancestors().map(|place| match place.as_os_str().is_empty() {
            true => Path::new("."),
            false => place,
        });
        let (free, all) = places.find_map(|place| space_at(place).ok())?;
        // What is no disk says 0 of both.
        if all == 0 || free >= store.reserve_bytes {
            return None;
        }
        let than = if all < store.reserve_bytes { "the disk has" } else { "is free now" };
        let problem = format!(
            "is more than {than}, so every change of a record would be refused: of the {} of the disk of {}, {} are free",
            ByteSize(all).display().si(),
            data_dir.display(),
            ByteSize(free).display().si()
        );
        Some(self.origins.fault("store.reserve_bytes", problem))
    }

    /// The store as a start would find it. One that a running node has is not looked at.
    fn store(&self, examined: &mut Examined) {
        let path = store_file(&self.config.data_dir);
        let Ok(key) = self.config.store_key() else {
            return;
        };
        match look_at_store(&path, key.as_ref(), |snapshot| Ok(demo::accounts_with_public_password(snapshot)))
        {
            Err(StoreError::Held) | Ok(None) => {}
            Ok(Some(accounts)) if accounts.is_empty() => {}
            Ok(Some(accounts)) => examined.warnings.push(demo::public_password_words(&accounts)),
            Err(error) => {
                // The remedy is a key, or the lack of one.
                let key = if matches!(error, StoreError::Sealed(_)) { "store.key_file" } else { "data_dir" };
                let mut fault = self.origins.fault(key, format!("{}: {error}", path.display()));
                if key == "data_dir" {
                    // Another directory is no way out: the error says what is.
                    fault = fault.mended_by("a directory with a store that is whole", RESTORE);
                }
                examined.faults.push(fault);
            }
        }
    }

    /// Whether a node runs with this data directory: the port and the store are its own then.
    fn is_running(&self) -> bool {
        UnixStream::connect(control_socket(&self.config.data_dir)).is_ok()
    }

    /// The pair that a node would show, the operator's own or the box's, which lies in the data directory.
    fn certificate(&self, has_data_dir: bool) -> Vec<Fault> {
        let server = &self.config.server;
        let named = [("server.certificate", &server.certificate), ("server.key", &server.key)];
        let unreadable = |(key, path): (&str, &Option<PathBuf>)| {
            let path = path.as_deref()?;
            let cause = read_configured(path).err()?;
            Some(self.origins.fault(key, format!("{} cannot be read: {cause}", path.display())))
        };
        let faults: Vec<Fault> = named.into_iter().filter_map(unreadable).collect();
        // Names that no certificate can hold are a fault of their own.
        let is_own_possible = has_data_dir && server.names.iter().all(|name| is_certifiable(name));
        let is_looked_at =
            |settings: &TlsSettings| faults.is_empty() && (settings.own.is_some() || is_own_possible);
        let Some(settings) = self.config.tls_settings().filter(is_looked_at) else {
            return faults;
        };
        let Err(error) = settings.examine(system_time()) else {
            return faults;
        };
        let fault = |key: &str| self.origins.fault(key, error.to_string());
        vec![match (&error, &settings.own) {
            (TlsError::File { path, .. }, Some(own)) if *path == own.key => fault("server.key"),
            (_, Some(_)) => fault("server.certificate"),
            (TlsError::File { path, .. }, None) if *path == settings.directory || is_closed_to_us(path) => fault("data_dir").mended_by(
                "a directory whose files the node may read",
                "run this as root, or as the user that runs the node; chown -R thalamus-edge: gives the node its files back",
            ),
            // The box's own lies below it. Clients trust it, so a new one is no way out either.
            (_, None) => {
                fault("data_dir").mended_by("the authority of this box as the node made it", PUT_BACK)
            }
        }]
    }

    fn data_dir(&self) -> Vec<Fault> {
        let directory = &self.config.data_dir;
        // What is not there is made, below what is there.
        let place = directory.ancestors().find_map(|place| {
            let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
            match fs::metadata(place) {
                Ok(about) if about.is_dir() => Some(Ok(place)),
                Ok(_) => Some(Err(format!("{}: {} is no directory", directory.display(), place.display()))),
                Err(error) if missing(&error) => match fs::read_link(place) {
                    Ok(to) => Some(Err(format!(
                        "{} is a link to {}, and nothing is there: is its disk connected and mounted?",
                        place.display(),
                        to.display()
                    ))),
                    Err(_) => None,
                },
                Err(error) => Some(Err(format!("{}: {error}", place.display()))),
            }
        });
        let socket = control_socket(directory);
        let problem = match place {
            Some(Err(problem)) => Some(problem),
            Some(Ok(place)) => {
                let own = (place == directory.as_path()).then(|| not_ours_to_close(place)).flatten();
                own.or_else(|| {
                    let cause = cannot_hold(place)?;
                    Some(format!("nothing can be made in {}: {cause}", place.display()))
                })
            }
            None => None,
        };
        let problem = problem.or_else(|| match SocketAddr::from_pathname(&socket) {
            Err(_) => Some(
                "is too long: the path of the node's socket in it would have more than 107 bytes".to_owned(),
            ),
            Ok(_) if socket.is_dir() => Some(format!("{} is a directory: remove it", socket.display())),
            Ok(_) => None,
        });
        problem.map(|problem| self.origins.fault("data_dir", problem)).into_iter().collect()
    }

    /// Whether the node can have its address and port. Whether a port needs root, only a start finds out: it may be
    /// another user's.
    fn listen(&self, is_running: bool) -> Vec<Fault> {
        let listen = self.config.server.listen;
        let problem = match TcpListener::bind(listen) {
            Ok(_) => return Vec::new(),
            Err(error) => match error.kind() {
                io::ErrorKind::AddrInUse if is_running => return Vec::new(),
                // Said as a warning.
                io::ErrorKind::PermissionDenied => return Vec::new(),
                io::ErrorKind::AddrInUse => {
                    format!("cannot listen on {listen}: another program does; `ss -ltnp` says which")
                }
                io::ErrorKind::AddrNotAvailable => {
                    format!("this machine does not have the address {}", listen.ip())
                }
                _ => error.to_string(),
            },
        };
        vec![self.origins.fault("server.listen", problem)]
    }

    /// A directory that was named must be there: a stick that is missing would go unnoticed otherwise.
    fn backup_directory(&self) -> Option<Fault> {
        const STILL: &str = "the node serves without it, but makes no backups";
        let directory = &self.config.backup_settings().directory;
        let problem = match fs::metadata(directory) {
            Ok(about) if about.is_dir() => match cannot_hold(directory) {
                None => return None,
                Some(cause) => format!("nothing can be made in it: {cause}"),
            },
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

/// Rules by which hardly anybody may do anything.
fn without_members(acl: &Acl) -> Option<String> {
    let missing = match acl.role_names().is_empty() {
        true => "have no role at all, so nobody may do anything".to_owned(),
        false if acl.knows_role(END_USER) => return None,
        false => format!(
            "have no role {END_USER:?}, which people have who are created without one: they may do nothing"
        ),
    };
    Some(format!("the access rules {missing}"))
}

/// Why nothing can be made in a directory that is there; tried, because systems have more reasons than modes.
fn cannot_hold(directory: &Path) -> Option<io::Error> {
    let trial = directory.join(format!(".thalamus-edge-check-{}", std::process::id()));
    match fs::create_dir(&trial) {
        Ok(()) => fs::remove_dir(&trial).err(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
        Err(error) => Some(error),
    }
}

fn system_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms()).unwrap_or_default())
}

/// Whether nothing is known of what is in a file, because this user may not look.
fn is_closed_to_us(path: &Path) -> bool {
    let looked = access(path, Access::READ_OK);
    matches!(looked, Err(Errno::ACCESS | Errno::PERM | Errno::NOTDIR))
}

fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Says that a file with a password or key is open.
pub fn open_to_others(file: &Path) -> String {
    format!("everybody on this machine may read {}", file.display())
}

/// What to do about it.
pub fn close_to_others(file: &Path) -> String {
    format!("chmod o= {}, and change the password or key in it", file.display())
}

impl Config {
    /// Who else can read what travels to the centre, and what to do about it; `None` if nobody can, or if there is no
    /// centre.
    pub fn centre_weakness(&self) -> Result<Option<(&'static str, &'static str)>, ConfigError> {
        let Some(centre) = self.centre()? else {
            return Ok(None);
        };
        let is_local = self.is_centre_local()?;
        // What is wrong with the address itself is found with it.
        Ok(match centre.protection() {
            Err(_) | Ok(Protection::Full) => None,
            Ok(_) if is_local => None,
            Ok(Protection::NotProved) => Some((
                "encrypted to any server that answers: certificates are not checked",
                "take tlsInsecure and tlsAllowInvalidCertificates out of the address; tlsCAFile names an authority",
            )),
            Ok(Protection::None) => Some((
                "not encrypted: anybody in between can read and change health records",
                "tls=true in the address, or a VPN",
            )),
        })
    }

    /// Said wherever plain HTTP leaves this machine.
    pub fn plain_http_warning(&self) -> Option<&'static str> {
        let is_open = !self.server.tls && !self.server.listen.ip().is_loopback();
        is_open.then_some(
            "plain HTTP (server.tls = false): passwords and health records cross the network readable",
        )
    }

    /// Says that this user may not have the port; the service may, or may be another user.
    fn port_warning(&self) -> Option<String> {
        let listen = self.server.listen;
        let is_refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        TcpListener::bind(listen).err().is_some_and(is_refused).then(|| {
            format!(
                "this user may not listen on {listen}: ports below 1024 are for root. The service needs \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE for it, or a higher port"
            )
        })
    }

    /// Says that `*` is not the name of a page that may log in.
    fn any_origin_warning(&self) -> Option<&'static str> {
        self.api.cors_allowed_origins.iter().any(|origin| origin == "*").then_some(
            "`api.cors_allowed_origins` holds \"*\": pages of every site may read what needs no login, and none may log in \
             or write for it; name the pages that should, as in [\"https://portal.example.org\"]",
        )
    }

    /// What there is to say about how backups are made, in sentences.
    pub fn backup_warnings(&self) -> Vec<String> {
        let mut warnings = crate::backup::warnings(&self.backup_settings());
        if self.backup.schedule.is_empty() {
            warnings.push("no backups are made by themselves ([backup] schedule is empty)".to_owned());
        }
        warnings
    }
}
