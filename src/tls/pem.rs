//! Floor 5. Certificates and keys in PEM files, and what is wrong with files that hold none.

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The keys that the cryptographic library (ring) signs with.
pub(super) const KEY_KINDS: &str = "RSA of 2048 to 4096 bits, ECDSA with P-256 or P-384, or Ed25519";

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// The certificates in a file, in their order, or what is wrong with it.
pub(super) fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = text_of(file, "certificate", "openssl x509 -inform DER -in FILE -out NEW")?;
    let found =
        CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(|error| match error {
            pem::Error::MissingSectionEnd { .. } => {
                "is cut off: a certificate in it begins with -----BEGIN and has no line -----END".to_owned()
            }
            pem::Error::Base64Decode(_) => "is damaged: a certificate in it is no base64".to_owned(),
            other => format!("cannot be read as PEM: {other}"),
        })?;
    match (found.is_empty(), holds(text, b"PRIVATE KEY-----")) {
        (false, _) => Ok(found),
        (true, true) => {
            Err("holds no certificate, but a private key: are the two files exchanged?".to_owned())
        }
        (true, false) => Err("holds no certificate".to_owned()),
    }
}

/// The private key in a file, or what is wrong with it.
pub(super) fn private_key(file: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let text = text_of(file, "private key", "openssl pkey -inform DER -in FILE -out NEW")?;
    PrivateKeyDer::from_pem_slice(text).map_err(|_| {
        if holds(text, b"BEGIN ENCRYPTED PRIVATE KEY") || holds(text, b"Proc-Type: 4,ENCRYPTED") {
            return "is protected with a passphrase, which nobody can type at a start: write it without one (openssl pkey -in \
                    FILE -out NEW)"
                .to_owned();
        }
        match holds(text, b"-----BEGIN CERTIFICATE") {
            true => "holds no private key, but a certificate: are the two files exchanged?".to_owned(),
            false => "holds no private key that can be read".to_owned(),
        }
    })
}

/// What is in the file without the mark that editors of Windows put in front; an error for what is no text.
fn text_of<'f>(file: &'f [u8], what: &str, convert: &str) -> Result<&'f [u8], String> {
    let text = file.strip_prefix(UTF8_BOM).unwrap_or(file);
    let is_binary = text.first().is_some_and(|first| *first == 0x30) && std::str::from_utf8(text).is_err();
    if is_binary {
        return Err(format!(
            "holds no {what} in PEM: it is DER ({convert}) or PKCS#12 (.p12, .pfx: openssl pkcs12 -in FILE -nodes -out NEW)"
        ));
    }
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err(format!("holds no {what} that can be read: it is UTF-16, save it as UTF-8"));
    }
    Ok(text)
}

fn holds(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}
