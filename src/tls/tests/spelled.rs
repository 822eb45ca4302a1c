//! Tests of what is said about files that hold no certificate or key that can be used.

use super::*;
use base64::prelude::{BASE64_STANDARD, Engine as _};

#[test]
fn files_that_cannot_be_used_say_why() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["clinic.local".to_owned()]).unwrap().self_signed(&pair).unwrap();
    let (pem, key) = (certificate.pem(), pair.serialize_pem());
    let none = Path::new("");
    let parsed = |certificate: &[u8], key: &[u8]| parse_pair((none, certificate), (none, key)).map(drop);
    let bom = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    for (certificate, key) in [
        (pem.clone().into_bytes(), key.clone().into_bytes()),
        (bom(&pem), bom(&key)),
        (pem.replace('\n', "\r\n").into_bytes(), key.replace('\n', "\r\n").into_bytes()),
        ([key.as_bytes(), pem.as_bytes()].concat(), [pem.as_bytes(), key.as_bytes()].concat()),
    ] {
        parsed(&certificate, &key).unwrap();
    }
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(pem.bytes().flat_map(|byte| [byte, 0])).collect();
    for (file, words) in [
        (pem.as_bytes()[..200].to_vec(), "is cut off"),
        (certificate.der().to_vec(), "it is DER"),
        (utf16, "UTF-16"),
        (key.clone().into_bytes(), "are the two files exchanged?"),
        (b"".to_vec(), "holds no certificate"),
        (pem.replacen('M', "*", 1).into_bytes(), "base64"),
    ] {
        let error = parsed(&file, key.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let short = BASE64_STANDARD.encode([0x30, 0x03, 0x02, 0x01, 0x00]);
    for (file, words) in [
        (key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY").into_bytes(), "passphrase"),
        (pair.serialize_der(), "PKCS#12"),
        (pem.clone().into_bytes(), "are the two files exchanged?"),
        (
            format!("-----BEGIN PRIVATE KEY-----\n{short}\n-----END PRIVATE KEY-----\n").into_bytes(),
            "RSA of 2048",
        ),
    ] {
        let error = parsed(pem.as_bytes(), &file).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}
