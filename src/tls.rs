//! Floor 5. Certificates, and the rustls configuration that serves with them.
//!
//! Hides where the pair in force comes from: the operator's own files, or a certificate authority of
//! this box's own that clients trust once and that signs a new server certificate whenever the old one
//! runs out or the box is called something else. A bad pair never replaces a good one.

mod authority;
mod constraints;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::files::read_configured;
use authority::Making;
pub use authority::{CA_DAYS, LEAF_DAYS, RELEASE_EPOCH_S, RENEW_AFTER_DAYS, is_certifiable};

const DAY_S: i64 = 24 * 60 * 60;
/// How long a server certificate may hold for clients to take it: below an authority that people have added themselves,
/// and below one that came with the device.
const PRIVATE_DAYS_MAX: i64 = 825;
const PUBLIC_DAYS_MAX: i64 = 398;

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
        self.own.is_none().then(|| self.directory.join(authority::CA_FILE))
    }

    /// From when until when all certificates of the pair hold, in seconds since 1970. `None` before the first start,
    /// which makes the box's own.
    pub fn validity_s(&self) -> Result<Option<(i64, i64)>, TlsError> {
        let (certificate, key) = self.files();
        if self.own.is_none() && !certificate.exists() {
            return Ok(None);
        }
        let pair = read_pair(&certificate, &key)?;
        let (mut begin, mut end) = (i64::MIN, i64::MAX);
        for der in &pair.cert {
            let parsed = x509_parser::parse_x509_certificate(der);
            let (_, parsed) = parsed.map_err(|error| file_error(&certificate, error))?;
            let validity = parsed.validity();
            begin = begin.max(validity.not_before.timestamp());
            end = end.min(validity.not_after.timestamp());
        }
        Ok(Some((begin, end)))
    }

    /// Whether [`Tls::load`] would find or make a pair. Writes nothing.
    pub fn examine(&self, now: SystemTime) -> Result<(), TlsError> {
        match &self.own {
            Some(own) => read_pair(&own.certificate, &own.key).map(drop),
            None => authority::ready_pair(self, now, Making::Nothing).map(drop),
        }
    }

    /// When the certificate of the box's own authority ends, in seconds since 1970: clients accept nothing that it has
    /// signed from then on. `None` with the operator's own pair, and before the first start.
    pub fn authority_end_s(&self) -> Result<Option<u64>, TlsError> {
        match self.own {
            Some(_) => Ok(None),
            None => authority::authority_end_s(&self.directory),
        }
    }

    /// Names of this node that the box's own authority may not vouch for, because the node got them after its certificate
    /// was made: the server certificate does without them. Empty with the operator's own pair.
    pub fn uncovered_names(&self) -> Vec<String> {
        if self.own.is_some() { Vec::new() } else { authority::uncovered(self) }
    }

    /// What to do about [`TlsSettings::uncovered_names`], in a sentence; `None` if there are none.
    pub fn uncovered_warning(&self) -> Option<String> {
        let names = self.uncovered_names();
        (!names.is_empty()).then(|| {
            format!(
                "the authority of this box may not vouch for {}: its certificate was made before the node had that name, so \
                 clients refuse it there. To change that, remove {} and restart; then every client must be given the new \
                 file",
                names.join(", "),
                self.directory.join(authority::CA_FILE).display()
            )
        })
    }

    /// Says that clients refuse the operator's own certificate because it holds for too long, however right it is
    /// otherwise. The limits are those of Apple (support.apple.com/103769 and 102028); other browsers follow. `None` too if it
    /// cannot be read, which is a fault of its own.
    pub fn long_validity_warning(&self) -> Option<String> {
        let own = self.own.as_ref()?;
        let pair = read_pair(&own.certificate, &own.key).ok()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(pair.cert.first()?).ok()?;
        let validity = leaf.validity();
        let seconds = validity.not_after.timestamp().saturating_sub(validity.not_before.timestamp());
        let is_longer = |days: i64| seconds > days * DAY_S;
        let refused = match () {
            () if is_longer(PRIVATE_DAYS_MAX) => format!(
                "devices of Apple and others refuse more than {PRIVATE_DAYS_MAX} days, whatever authority signed it"
            ),
            () if is_longer(PUBLIC_DAYS_MAX) => format!(
                "browsers refuse more than {PUBLIC_DAYS_MAX} days if a public authority signed it, and some in any case"
            ),
            () => return None,
        };
        let file = own.certificate.display();
        let days = seconds.div_euclid(DAY_S);
        Some(format!(
            "{file} holds for {days} days, and {refused}: have it signed for at most {PUBLIC_DAYS_MAX}"
        ))
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
}

impl Tls {
    /// Loads the pair, making the box's own at the first start. `now` may be any time: a clock that is
    /// behind this release is not believed, and that is said in the log.
    pub fn load(settings: TlsSettings, now: SystemTime) -> Result<Tls, TlsError> {
        let pair = match &settings.own {
            Some(own) => read_pair(&own.certificate, &own.key)?,
            None => authority::ready_pair(&settings, now, Making::Files)?.pair,
        };
        if let Some(warning) = settings.uncovered_warning() {
            tracing::warn!("{warning}");
        }
        Ok(Tls { settings, in_force: Arc::new(InForce(RwLock::new(Arc::new(pair)))) })
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
    /// half may be replaced and the other not yet, so asking again later is right.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let (certificate, key) = self.settings.files();
        let pair = read_pair(&certificate, &key)?;
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
    let chain = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| file_error(certificate, e))?;
    if chain.is_empty() {
        return Err(file_error(certificate, "holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|_| file_error(key, "holds no private key that can be read"))?;
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
