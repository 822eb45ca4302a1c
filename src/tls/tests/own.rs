//! Tests of what is said about a certificate of the operator's own.

use super::*;

/// A pair in files, and the way to write another certificate of its key: its days, counted from the release, and its names.
struct Own {
    _directory: TempDir,
    settings: TlsSettings,
    key: rcgen::KeyPair,
}

impl Own {
    fn new() -> Own {
        let directory = TempDir::new().unwrap();
        let (certificate, key_file) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let settings = TlsSettings {
            directory: directory.path().join("tls"),
            own: Some(OwnCertificate { certificate, key: key_file }),
            names: Vec::new(),
        };
        Own { _directory: directory, settings, key }
    }

    fn write(&self, begin: SystemTime, end: SystemTime, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (begin.into(), end.into());
        let pem = params.self_signed(&self.key).unwrap().pem();
        fs::write(&self.settings.own.as_ref().unwrap().certificate, pem).unwrap();
    }
}

/// However right it is otherwise.
#[test]
fn one_that_holds_for_too_long_is_warned_about() {
    let own = Own::new();
    for (days, expected) in [
        (364, None),
        (398, None),
        (399, Some("399 days")),
        (825, Some("825 days")),
        (826, Some("refuse more than 825 days")),
        (3_652, Some("refuse more than 825 days")),
    ] {
        own.write(day(0), day(days), &["clinic.local"]);
        let said = said_of(&own.settings, day(3));
        assert_eq!(said.len(), usize::from(expected.is_some()), "{days}: {said:?}");
        assert!(expected.is_none_or(|expected| said.concat().contains(expected)), "{said:?}");
    }
    let boxes = TlsSettings { own: None, ..own.settings.clone() };
    assert_eq!(said_of(&boxes, day(3)), [""; 0], "the box makes its own");
}

#[test]
fn one_that_does_not_hold_or_names_nobody_is_grave() {
    let own = Own::new();
    for (begin, end, names, expected, is_grave) in [
        (0, 100, &["clinic.local"][..], None, false),
        (0, 100, &["192.168.1.7"], None, false),
        (0, 3, &["clinic.local"], Some("ended at 2026-11-04"), true),
        (11, 100, &["clinic.local"], Some("does not hold before 2026-11-12"), true),
        (0, 20, &["clinic.local"], Some("ends in 10 days"), false),
        (0, 100, &[], Some("no subjectAltName"), true),
    ] {
        own.write(day(begin), day(end), names);
        let concerns = own.settings.concerns(day(10)).unwrap();
        assert_eq!(concerns.len(), usize::from(expected.is_some()), "{concerns:?}");
        for concern in concerns {
            assert_eq!(concern.is_grave, is_grave, "{concern}");
            assert!(concern.to_string().contains(expected.unwrap()), "{concern}");
        }
        // It is served all the same: somebody may get at the records with it.
        Tls::load(own.settings.clone(), day(10)).unwrap();
    }
}

/// A renewal that went wrong must not take the certificate that holds out of service.
#[test]
fn one_that_does_not_hold_takes_no_place_of_one_that_does() {
    let own = Own::new();
    own.write(day(0), day(100), &["clinic.local"]);
    let tls = Tls::load(own.settings.clone(), day(10)).unwrap();
    let first = certificate_in_force(&tls);
    own.write(day(0), day(9), &["clinic.local"]);
    let error = tls.reload(day(10)).unwrap_err().to_string();
    assert!(error.contains("does not hold now"), "{error}");
    own.write(day(12), day(90), &["clinic.local"]);
    tls.refresh(day(10), true);
    assert_eq!(certificate_in_force(&tls), first);
    // Its day comes.
    tls.refresh(day(12), false);
    let second = certificate_in_force(&tls);
    assert_ne!(second, first);
    // Where neither holds, the file is the operator's word; so it is where the clock has lost its time.
    own.write(day(0), day(200), &["clinic.local"]);
    assert!(tls.reload(day(300)).unwrap());
    own.write(day(0), day(201), &["clinic.local"]);
    assert!(tls.reload(SystemTime::UNIX_EPOCH).unwrap());
}

/// Clients that look at what a certificate is for refuse one for something else.
#[test]
fn one_that_is_not_for_servers_is_grave() {
    use rcgen::{ExtendedKeyUsagePurpose as Purpose, KeyUsagePurpose as Usage};
    let own = Own::new();
    for (purposes, usages, expected) in [
        (&[][..], &[][..], None),
        (&[Purpose::ServerAuth], &[Usage::DigitalSignature], None),
        (&[Purpose::ClientAuth, Purpose::ServerAuth], &[], None),
        (&[Purpose::Any], &[], None),
        (&[Purpose::ClientAuth], &[], Some("lacks serverAuth")),
        (&[], &[Usage::KeyCertSign], Some("lacks digitalSignature")),
        (&[], &[Usage::KeyEncipherment, Usage::DigitalSignature], None),
    ] {
        let mut params = rcgen::CertificateParams::new(vec!["clinic.local".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (day(0).into(), day(100).into());
        (params.extended_key_usages, params.key_usages) = (purposes.to_vec(), usages.to_vec());
        let pem = params.self_signed(&own.key).unwrap().pem();
        fs::write(&own.settings.own.as_ref().unwrap().certificate, pem).unwrap();
        let concerns = own.settings.concerns(day(10)).unwrap();
        assert_eq!(concerns.len(), usize::from(expected.is_some()), "{concerns:?}");
        assert!(
            concerns.iter().all(|concern| concern.is_grave && concern.finding.contains(expected.unwrap()))
        );
    }
}

/// An authority that signs others; `None` makes it the root of them all.
fn authority(
    name: &str,
    by: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>,
) -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.not_before, params.not_after) = (day(0).into(), day(300).into());
    let certificate = match by {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (certificate.unwrap().pem(), rcgen::Issuer::new(params, key))
}

/// An authority "the middle" with a key of P-521, signed by one of the same kind: its signatures cannot be verified here.
const UNVERIFIED_MIDDLE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIICBjCCAWigAwIBAgIUfP5swiZ78/aOK6s6z3FoDz5VfNEwCgYIKoZIzj0EAwQw\n\
EzERMA8GA1UEAwwIdGhlIHJvb3QwIBcNMjAwMTAxMDAwMDAwWhgPMjExOTEyMDgw\n\
MDAwMDBaMBUxEzARBgNVBAMMCnRoZSBtaWRkbGUwgZswEAYHKoZIzj0CAQYFK4EE\n\
ACMDgYYABACkM5MpEtgDTbAZlRGRT+xpWaz0oLJe52o8lYQVXYvev3/3LG1XDYxM\n\
ye26yC54iqBGDuJUD5ZSkZxgfSHQaDJAdQFHMwyFma4DQV/RXWfiIKLasoKlGwHY\n\
s1kntzFpatvZyUGSYUQfQ5/z0s2jg4ewM2pQfAQEOMGNBi3kVdyfqxmoc6NTMFEw\n\
DwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQU9y5QL7KeGOQG1pyZpgjunTUrCs4w\n\
HwYDVR0jBBgwFoAUs65b+PBr5DNJIOCSPeqm50iRenwwCgYIKoZIzj0EAwQDgYsA\n\
MIGHAkErS50npUQ154ZAvH/rNeAnbW+7Fb50nkAbFZSKZku0b3CUIqjJEY4nQuaQ\n\
umndIV3ypuPobOlPtUZTjgr3fmm6jwJCARra8lHmmOClGDr6Hput1IhPZpOEmNVB\n\
GZy4gNSM/n3522A+eoummzAs/+DvLXPzQKS6hj0llwZxW4RIxLX+Knsv\n\
-----END CERTIFICATE-----\n";

#[test]
fn issuers_that_are_missing_are_told() {
    let own = Own::new();
    let (root_pem, root) = authority("the root", None);
    let (middle_pem, middle) = authority("the middle", Some(&root));
    let (other_pem, _) = authority("another", None);
    let unverified = UNVERIFIED_MIDDLE.to_owned();
    let mut params = rcgen::CertificateParams::new(vec!["clinic.local".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "the leaf");
    (params.not_before, params.not_after) = (day(0).into(), day(100).into());
    let leaf = params.signed_by(&own.key, &middle).unwrap().pem();
    let of_root = params.signed_by(&own.key, &root).unwrap().pem();
    // As public authorities sign: with the place of their own certificate.
    let access =
        [&[0x30, 0x19, 0x30, 0x17, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2, 0x86, 11][..], b"http://ca/x"]
            .concat();
    params.custom_extensions =
        vec![rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access)];
    let public = params.signed_by(&own.key, &middle).unwrap().pem();
    for (chain, expected) in [
        (vec![&leaf, &middle_pem], None),
        (vec![&leaf, &middle_pem, &root_pem], None),
        (vec![&leaf, &root_pem, &middle_pem], None),
        (vec![&of_root, &root_pem], None),
        (vec![&leaf, &unverified], None),
        (vec![&public, &unverified], None),
        (vec![&of_root, &unverified], Some((true, "than the issuer of CN=the leaf, CN=the root"))),
        (vec![&leaf], Some((false, "no certificate of its issuer, CN=the middle"))),
        (vec![&of_root], Some((false, "no certificate of its issuer, CN=the root"))),
        (vec![&public], Some((true, "no certificate of its issuer, CN=the middle"))),
        (vec![&leaf, &root_pem], Some((true, "than the issuer of CN=the leaf, CN=the middle"))),
        (vec![&leaf, &other_pem], Some((true, "than the issuer of CN=the leaf, CN=the middle"))),
        (vec![&leaf, &middle_pem, &other_pem], Some((false, "no issuer of the first one, CN=another"))),
        (vec![&of_root, &root_pem, &other_pem], None),
    ] {
        let text: String = chain.into_iter().map(String::as_str).collect();
        fs::write(&own.settings.own.as_ref().unwrap().certificate, text).unwrap();
        let concerns = own.settings.concerns(day(10)).unwrap();
        assert_eq!(concerns.len(), usize::from(expected.is_some()), "{expected:?}: {concerns:?}");
        if let (Some((is_grave, words)), [concern]) = (expected, concerns.as_slice()) {
            assert_eq!(concern.is_grave, is_grave, "{concern}");
            assert!(concern.finding.contains(words), "{concern}");
        }
    }
}

/// `check`, a start, a reload and `doctor` read the pair with one function, and say which keys they can serve with.
#[test]
fn a_key_that_the_library_cannot_sign_with_is_named() {
    let own = Own::new();
    own.write(day(0), day(100), &["clinic.local"]);
    // A key of P-521, in PKCS#8: its curve is what is looked at.
    let der = [
        &[0x30, 0x1a, 2, 1, 0, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5][..],
        &[0x2b, 0x81, 4, 0, 0x23, 4, 3, 0x30, 1, 0],
    ]
    .concat();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der)
    );
    fs::write(&own.settings.own.as_ref().unwrap().key, pem).unwrap();
    let words = "it can with RSA of 2048 to 4096 bits, ECDSA with P-256 or P-384, or Ed25519";
    for error in [
        own.settings.examine(day(10)).unwrap_err(),
        own.settings.concerns(day(10)).unwrap_err(),
        Tls::load(own.settings.clone(), day(10)).unwrap_err(),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}
