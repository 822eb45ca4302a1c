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
