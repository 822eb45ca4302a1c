//! Floor 2. The TLS files that a connection string names.
//!
//! The driver leaves out certificates that it cannot read, and then trusts nobody: every round would say that the
//! centre cannot be reached.

use std::path::Path;

use mongodb::options::{ConnectionString, Tls};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::files::read_configured;

/// All that is wrong with the files.
pub(super) fn faults(connection: &ConnectionString) -> Vec<String> {
    let Some(Tls::Enabled(options)) = &connection.tls else {
        return Vec::new();
    };
    let authorities = options.ca_file_path.as_deref().and_then(|path| authority_fault(path).err());
    let own = options.cert_key_file_path.as_deref().and_then(|path| own_fault(path).err());
    authorities.into_iter().chain(own).collect()
}

fn authority_fault(path: &Path) -> Result<(), String> {
    let certificates = certificates(path, "tlsCAFile")?;
    let mut store = RootCertStore::empty();
    match store.add_parsable_certificates(certificates) {
        (_, 0) => Ok(()),
        _ => Err(of_file(path, "tlsCAFile", "has a certificate that cannot be read")),
    }
}

/// A certificate and its key in one file.
fn own_fault(path: &Path) -> Result<(), String> {
    const OPTION: &str = "tlsCertificateKeyFile";
    let certificates = certificates(path, OPTION)?;
    let pem =
        read_configured(path).map_err(|cause| of_file(path, OPTION, &format!("cannot be read: {cause}")))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| of_file(path, OPTION, "has no private key that can be read without a password"))?;
    CertifiedKey::from_der(certificates, key, &rustls::crypto::ring::default_provider())
        .map_err(|_| of_file(path, OPTION, "has a key that does not belong to its first certificate"))?;
    Ok(())
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_configured(path)
        .map_err(|cause| format!("names {} ({option}), which cannot be read: {cause}", path.display()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(of_file(path, option, "is no file of certificates in PEM form (BEGIN CERTIFICATE)")),
    }
}

fn of_file(path: &Path, option: &str, problem: &str) -> String {
    format!("names {} ({option}), which {problem}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::super::read;

    #[test]
    fn files_are_read_before_a_round_needs_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let pair = KeyPair::generate().unwrap();
        let pem = CertificateParams::default().self_signed(&pair).unwrap().pem();
        let other = KeyPair::generate().unwrap();
        for (name, text) in [
            ("good.pem", pem.clone()),
            ("own.pem", pem.clone() + &pair.serialize_pem()),
            ("mixed.pem", pem.clone() + &other.serialize_pem()),
            ("garbage", "garbage".to_owned()),
            ("empty", String::new()),
            ("cut.pem", pem[..pem.len() / 2].to_owned()),
            ("wrong.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
            ("half.pem", pem.clone() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ("key.pem", pair.serialize_pem()),
        ] {
            fs::write(path(name), text).unwrap();
        }
        let problems = |option: &str, name: &str| {
            let uri = format!("mongodb://h/?tls=true&{option}={}", path(name).display());
            read(&uri).err().unwrap_or_default().join("; ")
        };
        assert_eq!(problems("tlsCAFile", "good.pem"), "");
        assert_eq!(problems("tlsCAFile", "own.pem"), "");
        assert_eq!(problems("tlsCertificateKeyFile", "own.pem"), "");
        for (option, name, problem) in [
            ("tlsCAFile", "absent", "cannot be read: No such file"),
            ("tlsCAFile", "", "cannot be read"),
            ("tlsCAFile", "garbage", "no file of certificates"),
            ("tlsCAFile", "empty", "no file of certificates"),
            ("tlsCAFile", "cut.pem", "no file of certificates"),
            ("tlsCAFile", "key.pem", "no file of certificates"),
            ("tlsCAFile", "wrong.pem", "has a certificate that cannot be read"),
            ("tlsCAFile", "half.pem", "has a certificate that cannot be read"),
            ("tlsCertificateKeyFile", "good.pem", "no private key"),
            ("tlsCertificateKeyFile", "key.pem", "no file of certificates"),
            ("tlsCertificateKeyFile", "mixed.pem", "does not belong"),
            ("tlsCertificateKeyFile", "garbage", "no file of certificates"),
        ] {
            let found = problems(option, name);
            assert!(found.contains(problem) && found.contains(option), "{option} {name}: {found:?}");
        }
    }
}
