//! Floor 5. Certificates, and the rustls configuration that serves with them.
//!
//! Hides where the pair in force comes from: the operator's own files, or a certificate authority of
//! this box's own that clients trust once and that signs a new server certificate whenever the old one
//! runs out or the box is called something else. A bad pair never replaces a good one.

mod authority;
mod authority_parts;
mod concerns;
mod constraints;
mod pem;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::files::read_configured;
use authority::Making;
pub use authority::{CA_DAYS, LEAF_DAYS, RELEASE_EPOCH_S, RENEW_AFTER_DAYS, is_certifiable};
pub use concerns::Concern;

const DAY_S: i64 = 24 * 60 * 60;

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The box's own authority and pair live here; made when missing.
    pub directory: PathBuf,
    /// The operator's pair instead of the box's own.
    pub own: Option<OwnCertificate>,
    /// What clients call this node, beside its host name and addresses.
    pub names: Vec<String>,
}

impl TlsSettings {
    /// See [`Tls::authority_file`]; the first start makes it.
    pub fn authority_file(&self) -> Option<PathBuf> {
        self.own.is_none().then(|| self.directory.join(authority_parts::CA_FILE))
    }

    /// From when until when all certificates of the pair hold, in seconds since 1970. `None` before the first start,
    /// which makes the box's own.
    pub fn validity_s(&self) -> Result<Option<(i64, i64)>, TlsError> {
        let (certificate, key) = self.files();
        if self.own.is_none() && !certificate.exists() {
            return Ok(None);
        }
        let pair = read_pair(&certificate, &key)?;
        validity_of_all(&pair).map(Some).map_err(|error| file_error(&certificate, error))
    }

    /// Whether [`Tls::load`] would find or make a pair. Writes nothing.
    pub fn examine(&self, now: SystemTime) -> Result<(), TlsError> {
        self.pair(now, Making::Nothing).map(drop)
    }

    /// The pair to begin with. What keeps the box from making another one does not keep it from serving with the one that
    /// it has.
    fn pair(&self, now: SystemTime, making: Making) -> Result<CertifiedKey, TlsError> {
        let (certificate, key) = self.files();
        if self.own.is_some() {
            return read_pair(&certificate, &key);
        }
        authority::ready_pair(self, now, making).map(|ready| ready.pair).or_else(|error| {
            let Ok(held) = read_pair(&certificate, &key) else {
                return Err(error);
            };
            if making == Making::Files {
                tracing::error!(%error, "no server certificate could be made: serving with the one that is there");
            }
            Ok(held)
        })
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        match &self.own {
            Some(own) => (own.certificate.clone(), own.key.clone()),
            None => {
                (self.directory.join(authority::CERTIFICATE_FILE), self.directory.join(authority::KEY_FILE))
            }
        }
    }
}

/// PEM files kept by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The server certificate first, then its issuers.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why there is no usable pair.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Somebody must look at this file.
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    /// The cryptographic library declined; not a matter of any one file.
    #[error("the certificate could not be made: {0}")]
    Mint(String),
}

fn file_error(path: &Path, message: impl fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), message: message.to_string() }
}

/// The certificate in force and the ways to change it while serving.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    in_force: Arc<InForce>,
    /// What the log has said of the certificates.
    said: Mutex<Vec<String>>,
}

impl Tls {
    /// Loads the pair, making the box's own at the first start. `now` may be any time: a clock that is
    /// behind this release is not believed, and that is said in the log. So is what clients suffer from the pair.
    pub fn load(settings: TlsSettings, now: SystemTime) -> Result<Tls, TlsError> {
        let pair = settings.pair(now, Making::Files)?;
        let in_force = Arc::new(InForce(RwLock::new(Arc::new(pair))));
        let tls = Tls { settings, in_force, said: Mutex::default() };
        tls.tell(now, None);
        Ok(tls)
    }

    /// Renews the box's own certificate if that is due, reads the files again, and says in the log what has changed; with
    /// `is_asked` all that there is to say. To be called on SIGHUP and every minute.
    pub fn refresh(&self, now: SystemTime, is_asked: bool) {
        if is_asked {
            self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        match self.renew_if_due(now).and_then(|renewed| Ok(self.reload(now)? || renewed)) {
            Ok(is_new) => {
                if is_new {
                    tracing::info!("the certificate has been replaced");
                }
                self.tell(now, None);
            }
            Err(error) => self.tell(now, Some(&error)),
        }
    }

    /// Says what there is to say of the certificates and was not said before.
    fn tell(&self, now: SystemTime, refused: Option<&TlsError>) {
        const KEPT: &str = "the certificate was not reloaded; the old one stays in force";
        let refused = refused.map(|error| (true, format!("{KEPT}: {error}")));
        // A pair that cannot be read was refused.
        let concerns = self.settings.concerns(now).unwrap_or_default();
        let concerns = concerns.iter().map(|concern| (concern.is_grave, concern.to_string()));
        let found: Vec<_> = refused.into_iter().chain(concerns).collect();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for (is_grave, text) in &found {
            match (said.contains(text), is_grave) {
                (true, _) => {}
                (false, true) => tracing::error!("{text}"),
                (false, false) => tracing::warn!("{text}"),
            }
        }
        *said = found.into_iter().map(|(_, text)| text).collect();
    }

    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1; later changes of the pair apply to new connections.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|e| TlsError::Mint(e.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.in_force) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files again: on SIGHUP, and now and then, because whoever renews an operator's
    /// certificate may tell nobody. True if the pair has changed. On an error the old pair stays: one
    /// half may be replaced and the other not yet, so asking again later is right. A pair that does not hold at that time
    /// takes no place of one that does.
    pub fn reload(&self, now: SystemTime) -> Result<bool, TlsError> {
        let (certificate, key) = self.settings.files();
        let pair = read_pair(&certificate, &key)?;
        let held = Arc::clone(&self.in_force.0.read().unwrap_or_else(PoisonError::into_inner));
        if held.cert != pair.cert
            && !authority::is_clock_behind(now)
            && is_holding(&held, now)
            && !is_holding(&pair, now)
        {
            return Err(file_error(&certificate, "does not hold now, by the clock of this machine"));
        }
        Ok(self.in_force.replace(pair))
    }

    /// Signs a new server certificate if the box's own is about to end or lacks a name or address that
    /// the machine has by now. To be called daily; true if it did. An operator's pair is left alone.
    pub fn renew_if_due(&self, now: SystemTime) -> Result<bool, TlsError> {
        if self.settings.own.is_some() {
            return Ok(false);
        }
        let ready = authority::ready_pair(&self.settings, now, Making::Files)?;
        self.in_force.replace(ready.pair);
        Ok(ready.is_new)
    }

    /// The certificate to give to clients so that they trust this box; none for an operator's own pair.
    pub fn authority_file(&self) -> Option<PathBuf> {
        self.settings.authority_file()
    }
}

/// What new connections are answered with.
struct InForce(RwLock<Arc<CertifiedKey>>);

impl InForce {
    /// True if this is another certificate than before.
    fn replace(&self, pair: CertifiedKey) -> bool {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = held.cert != pair.cert;
        *held = Arc::new(pair);
        changed
    }
}

impl ResolvesServerCert for InForce {
    /// There is one pair, whatever the client calls the node: old clients send no name at all.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InForce")
    }
}

/// From when until when all certificates of a pair hold, in seconds since 1970.
fn validity_of_all(pair: &CertifiedKey) -> Result<(i64, i64), String> {
    let (mut begin, mut end) = (i64::MIN, i64::MAX);
    for der in &pair.cert {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        begin = begin.max(validity.not_before.timestamp());
        end = end.min(validity.not_after.timestamp());
    }
    Ok((begin, end))
}

fn is_holding(pair: &CertifiedKey, now: SystemTime) -> bool {
    let now_s = seconds_of(now);
    validity_of_all(pair).is_ok_and(|(begin_s, end_s)| begin_s <= now_s && now_s <= end_s)
}

/// Seconds since 1970.
fn seconds_of(now: SystemTime) -> i64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Named explicitly wherever one is needed: with two in the build rustls would not choose by itself.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate chain and its key, if they belong together.
fn read_pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    parse_pair((certificate, &read(certificate)?), (key, &read(key)?))
}

/// [`read_pair`] for PEM that is, or will be, in those files.
fn parse_pair(certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<CertifiedKey, TlsError> {
    let ((certificate, certificate_pem), (key, key_pem)) = (certificate, key);
    let chain = pem::certificates(certificate_pem).map_err(|problem| file_error(certificate, problem))?;
    let private = pem::private_key(key_pem).map_err(|problem| file_error(key, problem))?;
    if provider().key_provider.load_private_key(private.clone_key()).is_err() {
        return Err(file_error(
            key,
            format!("holds a key that this program cannot serve with; it can with {}", pem::KEY_KINDS),
        ));
    }
    CertifiedKey::from_der(chain, private, &provider()).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            file_error(key, format!("is not the key of {}", certificate.display()))
        }
        other => file_error(certificate, other),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_configured(path).map_err(|e| file_error(path, e))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    match read_configured(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error(path, e)),
    }
}

#[cfg(test)]
mod tests;
