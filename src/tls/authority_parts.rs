//! Floor 5. The two files of the box's own authority as they are found, and what is wrong with them.
//!
//! The certificate that a node serves with stays good while its authority is damaged, so damage is no reason not to
//! serve: it is a reason to tell somebody before that certificate ends.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo, X509Error};

use super::read_if_there;

pub(super) const CA_FILE: &str = "ca.pem";
pub(super) const CA_KEY_FILE: &str = "ca-key.pem";

/// A file of the authority.
#[derive(Debug)]
pub(super) enum Part<T> {
    Absent,
    /// Why nothing can be done with it.
    Damaged(String),
    /// Nor can a start put another file in its place.
    InTheWay(String),
    Whole(T),
}

impl<T> Part<T> {
    pub(super) fn whole(self) -> Option<T> {
        match self {
            Part::Whole(part) => Some(part),
            Part::Absent | Part::Damaged(_) | Part::InTheWay(_) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct AuthorityParts {
    directory: PathBuf,
    pub(super) certificate: Part<CertificateDer<'static>>,
    pub(super) key: Part<KeyPair>,
}

impl AuthorityParts {
    pub(super) fn read(directory: &Path) -> AuthorityParts {
        AuthorityParts {
            directory: directory.to_owned(),
            certificate: read_part(&directory.join(CA_FILE), certificate_of),
            key: read_part(&directory.join(CA_KEY_FILE), key_of),
        }
    }

    /// Why this authority signs nothing more that its clients would accept. `leaf` is the server's pair: it says which
    /// of two files that do not belong together is the right one. `None` where nothing is damaged, or where a start
    /// makes what is missing.
    pub(super) fn fault(&self, leaf: Option<&CertifiedKey>) -> Option<AuthorityFault> {
        let leaf = leaf.and_then(|pair| pair.cert.first());
        let about = |file: &str, cause: String, kind: FaultKind| AuthorityFault {
            file: self.directory.join(file),
            directory: self.directory.clone(),
            cause,
            kind,
            is_of_pair: matches!((&self.certificate, &self.key), (Part::Whole(_), Part::Whole(_))),
        };
        match (&self.certificate, &self.key) {
            (Part::Absent, Part::Absent | Part::Whole(_)) => None,
            (Part::Whole(certificate), Part::Whole(key)) if is_of_key(certificate, key) => None,
            (Part::Whole(certificate), Part::Whole(key)) => {
                let is_key_right = leaf.is_some_and(|leaf| has_signed(&key.subject_public_key_info(), leaf));
                let is_certificate_right = leaf.is_some_and(|leaf| is_signed_by(certificate, leaf));
                Some(match (is_key_right, is_certificate_right) {
                    (true, _) => {
                        about(CA_FILE, format!("is not the certificate of {CA_KEY_FILE}"), FaultKind::Lasting)
                    }
                    (false, true) => {
                        about(CA_KEY_FILE, format!("is not the key of {CA_FILE}"), FaultKind::Lasting)
                    }
                    (false, false) => {
                        about(CA_FILE, format!("is not the certificate of {CA_KEY_FILE}"), FaultKind::Lasting)
                    }
                })
            }
            // Only a key that is known to be the authority's may take the place of what clients trust.
            (Part::Damaged(cause), Part::Whole(key)) => {
                let is_right = leaf.is_none_or(|leaf| has_signed(&key.subject_public_key_info(), leaf));
                let kind = if is_right { FaultKind::MendedByStart } else { FaultKind::Lasting };
                Some(about(CA_FILE, cause.clone(), kind))
            }
            (Part::InTheWay(cause), _) => Some(about(CA_FILE, cause.clone(), FaultKind::Lasting)),
            (_, Part::Damaged(cause) | Part::InTheWay(cause)) => {
                Some(about(CA_KEY_FILE, cause.clone(), FaultKind::Lasting))
            }
            (Part::Damaged(cause), Part::Absent) => Some(about(CA_FILE, cause.clone(), FaultKind::Lasting)),
            (Part::Whole(_), Part::Absent) => {
                Some(about(CA_KEY_FILE, "is missing".to_owned(), FaultKind::Lasting))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    /// The certificate can be made anew from its key, which the same clients trust.
    MendedByStart,
    Lasting,
}

/// What is wrong with the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthorityFault {
    pub(super) file: PathBuf,
    directory: PathBuf,
    cause: String,
    kind: FaultKind,
    is_of_pair: bool,
}

impl AuthorityFault {
    pub(super) fn is_mended_by_start(&self) -> bool {
        self.kind == FaultKind::MendedByStart
    }

    /// Whether both files are whole and do not belong together.
    pub(super) fn is_about_pair(&self) -> bool {
        self.is_of_pair
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> String {
        if self.is_mended_by_start() {
            return "the next start makes it anew from its key: clients that trust the authority go on as before".to_owned();
        }
        format!(
            "restore it from a copy of {0} (with {CA_FILE} and {CA_KEY_FILE} of the same day), then restart. Without one, \
             remove {CA_FILE} and {CA_KEY_FILE} there and restart: that makes another authority, and every client has to be \
             given the new {CA_FILE} before it accepts the node again",
            self.directory.display()
        )
    }
}

impl fmt::Display for AuthorityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.file.display(), self.cause)
    }
}

fn read_part<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Part<T> {
    match read_if_there(path) {
        Ok(None) => Part::Absent,
        Ok(Some(pem)) => parse(&pem).map_or_else(Part::Damaged, Part::Whole),
        Err(_) if path.is_dir() => Part::InTheWay("is a directory".to_owned()),
        Err(error) => Part::Damaged(format!("cannot be read: {error}")),
    }
}

/// Every bit of it is looked at: clients look at different ones, and the node itself at few.
fn certificate_of(pem: &[u8]) -> Result<CertificateDer<'static>, String> {
    const DAMAGED: &str = "is damaged";
    let certificate =
        CertificateDer::from_pem_slice(pem).map_err(|_| format!("{DAMAGED}: it holds no certificate"))?;
    if !is_spelled_plainly(pem, &certificate) {
        return Err(format!("{DAMAGED}: not every client can read it"));
    }
    let Ok(([], parsed)) = x509_parser::parse_x509_certificate(&certificate) else {
        return Err(format!("{DAMAGED}: it cannot be read as a certificate"));
    };
    if parsed.verify_signature(None).is_err()
        || parsed.signature_algorithm != parsed.tbs_certificate.signature
    {
        return Err(format!("{DAMAGED}: its signature does not fit what it says"));
    }
    match RootCertStore::empty().add(certificate.clone()) {
        Ok(()) => Ok(certificate),
        Err(_) => Err(format!("{DAMAGED}: no client would take it for an authority")),
    }
}

fn key_of(pem: &[u8]) -> Result<KeyPair, String> {
    let is_plain =
        PrivateKeyDer::from_pem_slice(pem).is_ok_and(|der| is_spelled_plainly(pem, der.secret_der()));
    read_key(pem).filter(|_| is_plain).ok_or_else(|| "holds no key that can be read".to_owned())
}

fn read_key(pem: &[u8]) -> Option<KeyPair> {
    KeyPair::from_pem(std::str::from_utf8(pem).ok()?).ok()
}

/// Whether a file holds these bytes in base64 with nothing in between that some readers pass over and others refuse.
fn is_spelled_plainly(pem: &[u8], bytes: &[u8]) -> bool {
    let pem: Vec<u8> = pem.iter().copied().filter(|byte| !b" \t\r\n".contains(byte)).collect();
    let expected = format!("-----{}-----END", BASE64_STANDARD.encode(bytes));
    pem.windows(expected.len()).any(|window| window == expected.as_bytes())
}

/// Whether a certificate is that of this key.
pub(super) fn is_of_key(authority: &CertificateDer<'_>, key: &KeyPair) -> bool {
    x509_parser::parse_x509_certificate(authority)
        .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}

/// Whether a certificate may be the issuer of another one: it has signed it, or it is called so and its signature is of a kind that
/// cannot be verified here. Clients may be able to.
pub(super) fn may_have_signed(authority: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    let parsed =
        (x509_parser::parse_x509_certificate(authority), x509_parser::parse_x509_certificate(certificate));
    let (Ok((_, authority)), Ok((_, certificate))) = parsed else {
        return false;
    };
    match certificate.verify_signature(Some(authority.public_key())) {
        Ok(()) => true,
        Err(X509Error::SignatureUnsupportedAlgorithm) => authority.subject() == certificate.issuer(),
        Err(_) => false,
    }
}

pub(super) fn is_signed_by(authority: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(authority)
        .is_ok_and(|(_, authority)| has_signed(authority.public_key().raw, certificate))
}

/// Whether a public key, as certificates hold it, has signed a certificate.
fn has_signed(key: &[u8], certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(key) else {
        return false;
    };
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, certificate)| certificate.verify_signature(Some(&key)).is_ok())
}
