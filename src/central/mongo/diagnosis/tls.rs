//! Floor 2. TLS towards the centre, as the driver does it, and why it does not come about.

use std::io;
use std::sync::Arc;

use mongodb::options::TlsOptions;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::probe::at;
use crate::central::survey::{Stage, Trouble};
use crate::files::read_configured;

pub(super) const AUTHORITY: &str =
    "tlsCAFile=FILE in the address names the authority that signed the server's certificate";
const OWN_CERTIFICATE: &str =
    "tlsCertificateKeyFile=FILE in the address names a certificate and key that the centre knows";

/// What the driver would check certificates with.
pub(super) fn config(options: &TlsOptions) -> Result<Arc<ClientConfig>, String> {
    let unusable = |what: &str| format!("the file of its address with {what} cannot be used");
    let mut roots = RootCertStore::empty();
    match &options.ca_file_path {
        Some(path) => {
            let pem = read_configured(path).map_err(|_| unusable("authorities (tlsCAFile)"))?;
            let certificates = CertificateDer::pem_slice_iter(&pem).flatten();
            let (taken, _) = roots.add_parsable_certificates(certificates);
            if taken == 0 {
                return Err("the file that tlsCAFile names has no certificate in it".to_owned());
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|_| "TLS cannot be set up".to_owned())?.with_root_certificates(roots);
    let config = match &options.cert_key_file_path {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let own = || unusable("the node's own certificate (tlsCertificateKeyFile)");
            let pem = read_configured(path).map_err(|_| own())?;
            let chain = CertificateDer::pem_slice_iter(&pem);
            let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|_| own())?;
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| own())?;
            builder.with_client_auth_cert(chain, key).map_err(|_| own())?
        }
    };
    Ok(Arc::new(config))
}

pub(super) fn rustls_error(failure: &io::Error) -> Option<&rustls::Error> {
    failure.get_ref()?.downcast_ref()
}

/// Whether a handshake failed over certificates, versions or an alert: then the server does speak TLS.
pub(super) fn is_about_tls(failure: &io::Error) -> bool {
    matches!(
        rustls_error(failure),
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::AlertReceived(_)
                | rustls::Error::PeerIncompatible(_)
        )
    )
}

/// The names in a certificate and the one that was asked for. The library hands them on in its own notation:
/// `DnsName("a.example")`, `IpAddress(10.0.0.1)`.
fn not_for(presented: &[String], host: &str) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.replace('"', "")
    };
    let names: Vec<String> = presented.iter().map(plain).collect();
    match names.is_empty() {
        true => format!("its certificate names no server, and {host} was asked for"),
        false => format!("its certificate is for {} and not for {host}", names.join(", ")),
    }
}

/// Why there is no agreement about TLS.
pub(super) fn trouble(member: &str, host: &str, failure: &io::Error) -> Trouble {
    use CertificateError as Certificate;
    const SERVER: &str = "at the centre: a certificate that holds, for the names that clinics use";
    let (reason, remedy) = match rustls_error(failure) {
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            // The latter for an authority that was made anew under its old name.
            Certificate::UnknownIssuer | Certificate::BadSignature => (
                "its certificate is signed by an authority that this node does not trust".to_owned(),
                AUTHORITY,
            ),
            Certificate::Expired | Certificate::ExpiredContext { .. } => (
                "its certificate has ended (or the clock of this machine is ahead)".to_owned(),
                "look at the clock of this machine; at the centre: a new certificate",
            ),
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => (
                "its certificate does not hold yet (or the clock of this machine is behind)".to_owned(),
                "look at the clock of this machine",
            ),
            Certificate::NotValidForName => (format!("its certificate is not for {host}"), SERVER),
            Certificate::NotValidForNameContext { presented, .. } => (not_for(presented, host), SERVER),
            Certificate::Revoked => ("its certificate was revoked".to_owned(), SERVER),
            Certificate::Other(fault) if fault.to_string().contains("CaUsedAsEndEntity") => {
                ("it shows the certificate of an authority as its own".to_owned(), SERVER)
            }
            _ => ("its certificate is not valid".to_owned(), SERVER),
        },
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied => {
                ("it does not accept this node's own certificate, or misses one".to_owned(), OWN_CERTIFICATE)
            }
            _ => (
                "it breaks off the handshake".to_owned(),
                "the server's log says why; TLS 1.2 or 1.3 is needed",
            ),
        },
        Some(rustls::Error::PeerIncompatible(_)) => {
            ("it speaks no version of TLS that is safe".to_owned(), "at the centre: TLS 1.2 or 1.3")
        }
        _ => (
            "it does not speak TLS".to_owned(),
            "at the centre: net.tls.mode requireTLS; or the port in the address",
        ),
    };
    at(Stage::Tls, member, format!("no TLS with {member}: {reason}"), remedy)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// What is said of a server with this certificate and key, both PEM, by a node that trusts `authority` and asks for
    /// `centre.example`.
    async fn told(authority: &str, certificate: &str, key: &str) -> Option<Trouble> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority).unwrap();
        let options = TlsOptions::builder().ca_file_path(file.path().to_path_buf()).build();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let (here, there) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("centre.example").unwrap();
        let connecting = TlsConnector::from(config(&options).unwrap()).connect(name, here);
        let (connected, _) = tokio::join!(connecting, acceptor.accept(there));
        connected.err().map(|failure| {
            assert!(is_about_tls(&failure), "{failure:?}");
            trouble("centre.example:27017", "centre.example", &failure)
        })
    }

    /// By real handshakes: the words depend on what the library says, which changes with its versions.
    #[tokio::test]
    async fn certificates_that_do_not_hold_are_told_apart() {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_pem = authority.clone().self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, &authority_key);
        let named = || CertificateParams::new(vec!["centre.example".to_owned()]).unwrap();
        let (mut ended, mut early, mut nameless) =
            (named(), named(), CertificateParams::new(Vec::new()).unwrap());
        (ended.not_before, ended.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        (early.not_before, early.not_after) = (date_time_ymd(2200, 1, 1), date_time_ymd(2201, 1, 1));
        // The name stands where nobody looks for it any more.
        nameless.distinguished_name.push(rcgen::DnType::CommonName, "centre.example");
        let mut own_authority = named();
        own_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let other = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
        const SERVER: &str = "a certificate that holds";
        const CLOCK: &str = "look at the clock of this machine";
        for (what, params, is_self_signed, expected) in [
            ("right", named(), false, None),
            ("ended", ended, false, Some(("its certificate has ended", CLOCK))),
            ("not yet", early, false, Some(("its certificate does not hold yet", CLOCK))),
            (
                "nameless",
                nameless,
                false,
                Some(("its certificate names no server, and centre.example was", SERVER)),
            ),
            ("other name", other, false, Some(("is for other.example and not for centre.example", SERVER))),
            (
                "an authority",
                own_authority,
                true,
                Some(("it shows the certificate of an authority as its own", SERVER)),
            ),
            (
                "unknown",
                named(),
                true,
                Some(("signed by an authority that this node does not trust", "tlsCAFile")),
            ),
        ] {
            let key = KeyPair::generate().unwrap();
            let certificate = match is_self_signed {
                true => params.clone().self_signed(&key).unwrap(),
                false => params.signed_by(&key, &issuer).unwrap(),
            };
            // One that is its own authority is trusted as such, so its being one is all that is wrong.
            let trusted = if what == "an authority" { certificate.pem() } else { authority_pem.clone() };
            let found = told(&trusted, &certificate.pem(), &key.serialize_pem()).await;
            match (found, expected) {
                (None, None) => {}
                (Some(found), Some((words, remedy))) => {
                    assert!(found.reason.contains(words), "{what}: {found:?}");
                    assert!(found.remedy.contains(remedy), "{what}: {found:?}");
                    assert_eq!(
                        (found.stage, found.member.as_deref()),
                        (Stage::Tls, Some("centre.example:27017"))
                    );
                }
                (found, _) => panic!("{what}: {found:?}"),
            }
        }
    }

    #[test]
    fn names_of_certificates_are_words() {
        let told = not_for(&["DnsName(\"a.example\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()], "b");
        assert_eq!(told, "its certificate is for a.example, 10.0.0.1 and not for b");
        assert_eq!(not_for(&["plain".to_owned()], "b"), "its certificate is for plain and not for b");
        assert_eq!(not_for(&[], "b"), "its certificate names no server, and b was asked for");
    }
}
