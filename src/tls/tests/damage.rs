//! Tests of an authority whose files are damaged: the node serves with the certificate that it has, and says so.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::*;
use crate::tls::authority_parts::CA_FILE;

/// A node that has been started once, and the bytes of its files.
struct Box {
    directory: TempDir,
    /// What its clients trust.
    kept_by_client: PathBuf,
}

impl Box {
    fn new() -> Box {
        let directory = TempDir::new().unwrap();
        let tls = Tls::load(settings(&directory), day(3)).unwrap();
        let kept_by_client = directory.path().join("kept.pem");
        fs::copy(tls.authority_file().unwrap(), &kept_by_client).unwrap();
        Box { directory, kept_by_client }
    }

    fn settings(&self) -> TlsSettings {
        settings(&self.directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.settings().directory.join(name)
    }

    fn files(&self) -> Vec<Vec<u8>> {
        ["ca.pem", "ca-key.pem", "cert.pem", "key.pem"]
            .map(|name| fs::read(self.file(name)).unwrap())
            .to_vec()
    }

    fn restore(&self, files: &[Vec<u8>]) {
        for (name, bytes) in ["ca.pem", "ca-key.pem", "cert.pem", "key.pem"].iter().zip(files) {
            fs::write(self.file(name), bytes).unwrap();
        }
    }

    /// A client that was told to trust the authority before it was damaged.
    fn is_accepted(&self, tls: &Tls, at: SystemTime) -> bool {
        let client = client(&self.kept_by_client, &version::TLS13, at);
        handshake(client, tls.server_config().unwrap(), "clinic.local").is_ok()
    }
}

/// Whatever bit it is, and also where another certificate is due.
#[test]
fn one_bit_of_the_authority_stops_no_node_and_is_told() {
    let node = Box::new();
    let whole = node.files();
    for (at, name) in ["ca.pem", "ca-key.pem"].iter().enumerate() {
        for share in 0..24 {
            let mut bytes = whole[at].clone();
            let place = 28 + (bytes.len() - 56) * share / 24;
            bytes[place] ^= 1;
            fs::write(node.file(name), &bytes).unwrap();
            let about = format!("{name}, byte {place}");
            let said = said_of(&node.settings(), day(3)).concat();
            assert!(
                said.contains("authority of this box is damaged") && said.contains(name),
                "{about}: {said}"
            );
            node.settings().examine(day(3)).unwrap();
            assert_eq!(fs::read(node.file(name)).unwrap(), bytes, "looking changes nothing");
            for now in [day(3), day(300)] {
                let tls = Tls::load(node.settings(), now).unwrap_or_else(|error| panic!("{about}: {error}"));
                assert!(node.is_accepted(&tls, now), "{about}");
                tls.renew_if_due(now).unwrap();
            }
            let said = said_of(&node.settings(), day(300)).concat();
            match *name {
                // The key is the authority: it makes what clients trust as the former one.
                CA_FILE => assert_eq!(said, "", "{about}"),
                _ => {
                    assert_eq!(fs::read(node.file(name)).unwrap(), bytes, "{about}");
                    assert!(
                        said.contains("restore it from a copy") && said.contains("every client"),
                        "{said}"
                    );
                }
            }
            node.restore(&whole);
            assert_eq!(said_of(&node.settings(), day(3)), [""; 0]);
        }
    }
}

#[test]
fn a_new_client_gets_no_damaged_certificate_after_a_start() {
    let node = Box::new();
    let mut bytes = fs::read(node.file("ca.pem")).unwrap();
    let place = bytes.len() - 60;
    bytes[place] ^= 1;
    fs::write(node.file("ca.pem"), bytes).unwrap();
    let tls = Tls::load(node.settings(), day(3)).unwrap();
    assert_eq!(mode(&node.file("ca.pem")), 0o644);
    let client = client(&node.file("ca.pem"), &version::TLS13, day(3));
    handshake(client, tls.server_config().unwrap(), "clinic.local").unwrap();
    assert!(node.is_accepted(&tls, day(3)), "and those that have the former one go on");
}

#[test]
fn what_is_lost_for_good_is_told_by_name() {
    let node = Box::new();
    let other = Box::new();
    let whole = node.files();
    let stranger = other.files();
    let remove = |name: &str| fs::remove_file(node.file(name)).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(node.file(name), bytes).unwrap();
    let cases: [(&str, &dyn Fn(), &str); 7] = [
        ("no key", &|| remove("ca-key.pem"), "ca-key.pem is missing"),
        (
            "another certificate",
            &|| write("ca.pem", &stranger[0]),
            "ca.pem is not the certificate of ca-key.pem",
        ),
        ("another key", &|| write("ca-key.pem", &stranger[1]), "ca-key.pem is not the key of ca.pem"),
        (
            "both",
            &|| ["ca.pem", "ca-key.pem"].iter().for_each(|name| write(name, b"x")),
            "ca-key.pem holds no key",
        ),
        (
            "a damaged certificate beside another key",
            &|| {
                write("ca.pem", b"x");
                write("ca-key.pem", &stranger[1]);
            },
            "ca.pem is damaged",
        ),
        (
            "a damaged certificate without a key",
            &|| {
                write("ca.pem", b"x");
                remove("ca-key.pem");
            },
            "ca.pem is damaged",
        ),
        ("an empty key", &|| write("ca-key.pem", b""), "ca-key.pem holds no key"),
    ];
    for (about, damage, expected) in cases {
        damage();
        let found = node.settings().concerns(day(3)).unwrap();
        assert!(found.len() == 1 && found[0].is_grave, "{about}: {found:?}");
        assert!(found[0].finding.contains(expected), "{about}: {found:?}");
        // Long after another certificate was due, and after the one that is there has ended.
        for now in [day(3), day(300), day(500)] {
            let tls = Tls::load(node.settings(), now).unwrap_or_else(|error| panic!("{about}: {error}"));
            assert!(!tls.renew_if_due(now).unwrap(), "{about}");
            assert_eq!(node.is_accepted(&tls, now), now < day(400), "{about}");
        }
        // Without a pair there is nothing to serve with.
        let pair = node.file("cert.pem");
        fs::remove_file(&pair).unwrap();
        if about != "a damaged certificate beside another key" {
            let error = Tls::load(node.settings(), day(3)).unwrap_err().to_string();
            assert!(error.contains("no server certificate can be signed"), "{about}: {error}");
        }
        node.restore(&whole);
    }
}

/// As on a disk that is full: the pair that is there still holds.
#[test]
fn a_certificate_that_cannot_be_written_stops_no_node() {
    let node = Box::new();
    let whole = node.files();
    let certificate = certificate_in_force(&Tls::load(node.settings(), day(3)).unwrap());
    fs::create_dir_all(node.file("cert.pem.new/in the way")).unwrap();
    let tls = Tls::load(node.settings(), day(300)).unwrap();
    assert_eq!(certificate_in_force(&tls), certificate);
    assert_eq!(node.files(), whole);
}

/// Nobody can connect then, so the finding names the certificate, and not the key alone.
#[test]
fn a_damaged_certificate_that_cannot_be_made_anew_is_grave() {
    let node = Box::new();
    let whole = node.files();
    for share in 1..8 {
        for (name, at) in [("cert.pem", 2), ("ca-key.pem", 1)] {
            fs::write(node.file(name), with_wrong_bit(&whole[at], share)).unwrap();
        }
        // One that cannot be read at all is an error of its own.
        if let Ok(said) = node.settings().concerns(day(3)) {
            let about =
                |name: &str| said.iter().any(|concern| concern.is_grave && concern.finding.contains(name));
            assert!(about("cert.pem was not signed by the authority") && about("ca-key.pem"), "{said:?}");
            assert!(said.iter().any(|concern| concern.remedy.contains("all four files")), "{said:?}");
        } else {
            assert_ne!(share, 7, "the signature is no reason not to read the rest");
        }
    }
    node.restore(&whole);
    assert_eq!(said_of(&node.settings(), day(3)), [""; 0]);
    // With the key the start makes another one, and nobody notices.
    fs::write(node.file("cert.pem"), with_wrong_bit(&whole[2], 7)).unwrap();
    let tls = Tls::load(node.settings(), day(3)).unwrap();
    assert!(node.is_accepted(&tls, day(3)));
    assert_eq!(said_of(&node.settings(), day(3)), [""; 0]);
}

/// A PEM file with one wrong bit in what it encodes, after so many eighths of it.
fn with_wrong_bit(pem: &[u8], share: usize) -> Vec<u8> {
    let text = std::str::from_utf8(pem).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.iter().position(|line| line.starts_with("-----END")).unwrap();
    let mut bytes = BASE64_STANDARD.decode(lines[1..end].concat()).unwrap();
    let place = bytes.len() * share / 8;
    bytes[place] ^= 1;
    format!("{}\n{}\n{}\n", lines[0], BASE64_STANDARD.encode(bytes), lines[end]).into_bytes()
}

/// As when an old copy of two files was put back: the start signs anew, and all clients of the former authority refuse that.
#[test]
fn an_authority_that_has_not_signed_the_certificate_is_told_before_the_start() {
    let (node, other) = (Box::new(), Box::new());
    let stranger = other.files();
    for (name, bytes) in ["ca.pem", "ca-key.pem"].iter().zip(&stranger) {
        fs::write(node.file(name), bytes).unwrap();
    }
    let found = node.settings().concerns(day(3)).unwrap();
    let [concern] = found.as_slice() else { panic!("{found:?}") };
    assert!(concern.finding.contains("cert.pem was not signed by the authority of this box"), "{concern}");
    assert!(concern.finding.contains("those that were given another one refuse"), "{concern}");
    let tls = Tls::load(node.settings(), day(3)).unwrap();
    assert!(!node.is_accepted(&tls, day(3)));
    assert_eq!(said_of(&node.settings(), day(3)), [""; 0]);
}

#[test]
fn a_directory_in_the_place_of_the_authority_is_not_said_to_be_mended() {
    let node = Box::new();
    for name in ["ca.pem", "ca-key.pem"] {
        let bytes = fs::read(node.file(name)).unwrap();
        fs::remove_file(node.file(name)).unwrap();
        fs::create_dir(node.file(name)).unwrap();
        let found = node.settings().concerns(day(3)).unwrap();
        assert!(found.len() == 1 && found[0].is_grave, "{found:?}");
        assert!(found[0].finding.contains(&format!("{name} is a directory")), "{found:?}");
        assert!(!found[0].remedy.contains("the next start makes it anew"), "{found:?}");
        let tls = Tls::load(node.settings(), day(3)).unwrap();
        assert!(node.is_accepted(&tls, day(3)));
        fs::remove_dir(node.file(name)).unwrap();
        fs::write(node.file(name), bytes).unwrap();
    }
}
