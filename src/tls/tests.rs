//! Tests of minting, renewing and reloading certificates.

mod damage;
mod own;
mod spelled;

use super::authority::{
    RELEASE_EPOCH_S, authority_params, names, parse_fib_trie, parse_if_inet6, validity_of,
};
use super::authority_parts::CA_KEY_FILE;
use super::*;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConnection};
use rustls::{SupportedProtocolVersion, version};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn day(number: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(RELEASE_EPOCH_S) + number * DAY
}

fn settings(directory: &TempDir) -> TlsSettings {
    TlsSettings {
        directory: directory.path().join("data/tls"),
        own: None,
        names: vec!["clinic.local".to_owned(), "10.20.30.40".to_owned()],
    }
}

fn certificate_in_force(tls: &Tls) -> CertificateDer<'static> {
    tls.in_force.0.read().unwrap().cert[0].clone()
}

/// What there is to say about the certificates.
fn said_of(settings: &TlsSettings, now: SystemTime) -> Vec<String> {
    settings.concerns(now).unwrap().iter().map(ToString::to_string).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[derive(Debug)]
struct FixedTime(UnixTime);

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// A client that trusts `ca.pem` and nothing else.
fn client(authority: &Path, version: &'static SupportedProtocolVersion, at: SystemTime) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(authority).unwrap()).unwrap()).unwrap();
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let mut client = ClientConfig::builder_with_details(provider(), Arc::new(FixedTime(at)))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    client
}

/// A whole handshake in memory.
fn handshake(
    client: ClientConfig,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<ClientConnection, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client)
}

#[test]
fn a_client_that_trusts_the_authority_speaks_both_versions() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(3)).unwrap();
    let authority = tls.authority_file().unwrap();
    let server = tls.server_config().unwrap();
    let versions = [(&version::TLS13, ProtocolVersion::TLSv1_3), (&version::TLS12, ProtocolVersion::TLSv1_2)];
    for (offered, spoken) in versions {
        for name in ["localhost", "clinic.local", "127.0.0.1", "::1", "10.20.30.40"] {
            let session = handshake(client(&authority, offered, day(3)), server.clone(), name).unwrap();
            assert_eq!(session.protocol_version(), Some(spoken), "{name}");
            assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]), "{name}");
        }
    }
}

#[test]
fn clients_refuse_other_names_other_authorities_and_other_times() {
    let (directory, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let tls = Tls::load(settings(&directory), day(3)).unwrap();
    let stranger = Tls::load(settings(&other), day(3)).unwrap().authority_file().unwrap();
    let server = tls.server_config().unwrap();
    let authority = tls.authority_file().unwrap();
    let refused = |authority: &Path, name: &str, at: SystemTime| {
        let client = client(authority, &version::TLS13, at);
        let answer = handshake(client, server.clone(), name);
        matches!(answer, Err(rustls::Error::InvalidCertificate(_)))
    };
    assert!(refused(&authority, "example.org", day(3)));
    assert!(refused(&stranger, "localhost", day(3)));
    assert!(refused(&authority, "localhost", day(2 + LEAF_DAYS as u32) + Duration::from_secs(1)));
    assert!(refused(&authority, "localhost", day(2) - Duration::from_secs(1)));
    assert!(!refused(&authority, "localhost", day(2)), "for clients whose clocks are a day behind");
    assert!(!refused(&authority, "localhost", day(2 + LEAF_DAYS as u32)));
}

#[test]
fn the_second_start_finds_everything_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let first = Tls::load(settings(&directory), day(3)).unwrap();
    let files = |tls: &Tls| {
        ["ca.pem", "ca-key.pem", "cert.pem", "key.pem"]
            .map(|file| fs::read_to_string(tls.settings.directory.join(file)).unwrap())
    };
    let before = files(&first);
    let second = Tls::load(settings(&directory), day(100)).unwrap();
    assert_eq!(certificate_in_force(&first), certificate_in_force(&second));
    assert_eq!(before, files(&second));
    assert!(!second.reload(day(3)).unwrap());
    assert!(!second.renew_if_due(day(100)).unwrap());
}

#[test]
fn keys_are_for_their_owner_only() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(3)).unwrap();
    let tls_directory = &tls.settings.directory;
    assert_eq!(mode(tls_directory), 0o700);
    for (file, expected) in [("ca-key.pem", 0o600), ("key.pem", 0o600), ("ca.pem", 0o644)] {
        assert_eq!(mode(&tls_directory.join(file)), expected, "{file}");
    }
    fs::set_permissions(tls_directory, fs::Permissions::from_mode(0o755)).unwrap();
    Tls::load(settings(&directory), day(3)).unwrap();
    assert_eq!(mode(tls_directory), 0o700, "narrowed again");
    assert_eq!(fs::read_dir(tls_directory).unwrap().count(), 4, "nothing left lying about");
}

#[test]
fn a_certificate_is_renewed_in_time_under_the_same_authority() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(0)).unwrap();
    let server = tls.server_config().unwrap();
    let authority = fs::read(tls.authority_file().unwrap()).unwrap();
    let old = certificate_in_force(&tls);
    let due = RENEW_AFTER_DAYS as u32 - 1;
    assert_eq!(due, 263, "two thirds of its time, from the day before it was made");
    assert!(!tls.renew_if_due(day(due) - Duration::from_secs(1)).unwrap());
    assert!(tls.renew_if_due(day(due)).unwrap());
    assert_ne!(certificate_in_force(&tls), old);
    assert_eq!(fs::read(tls.authority_file().unwrap()).unwrap(), authority);
    let client = client(&tls.authority_file().unwrap(), &version::TLS13, day(LEAF_DAYS as u32 + 10));
    handshake(client, server, "localhost").unwrap();
}

/// A server certificate holds no longer than its authority's, and no client accepts what an ended authority has signed.
#[test]
fn the_authority_is_made_anew_before_it_ends() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(0)).unwrap();
    let file = tls.authority_file().unwrap();
    let first = fs::read(&file).unwrap();
    let end_s = || {
        let pem = fs::read(&file).unwrap();
        validity_of(&CertificateDer::from_pem_slice(&pem).unwrap()).unwrap().1
    };
    let s_of = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(end_s(), s_of(day(CA_DAYS as u32)));
    // The last day on which it outlives what it signs.
    let last = (CA_DAYS - LEAF_DAYS) as u32;
    tls.renew_if_due(day(last)).unwrap();
    assert_eq!(fs::read(&file).unwrap(), first);
    // Without its key it stays, and nothing is signed before that is due.
    let key = tls.settings.directory.join(CA_KEY_FILE);
    let held = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(!tls.renew_if_due(day(last + 1)).unwrap());
    fs::write(&key, held).unwrap();
    assert!(tls.renew_if_due(day(last + 1)).unwrap());
    assert_ne!(fs::read(&file).unwrap(), first);
    assert_eq!(end_s(), s_of(day(last + 1 + CA_DAYS as u32)));
    assert!(!tls.renew_if_due(day(last + 2)).unwrap(), "once");
    // Clients that trust either accept the node: it is the same key.
    let former = directory.path().join("former.pem");
    fs::write(&former, first).unwrap();
    for trusted in [&former, &file] {
        let client = client(trusted, &version::TLS13, day(last + 10));
        handshake(client, tls.server_config().unwrap(), "localhost").unwrap();
    }
    // Long after its end, as after years in a drawer or with a clock that is wrong.
    let late = CA_DAYS as u32 * 3;
    assert!(tls.renew_if_due(day(late)).unwrap());
    assert!(end_s() > s_of(day(late)));
}

/// Days from the first to the last second that the certificate in force holds, and the first.
fn validity(tls: &Tls) -> (i64, SystemTime) {
    let der = certificate_in_force(tls);
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let (begin, end) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    ((end - begin) / 86_400, SystemTime::UNIX_EPOCH + Duration::from_secs(begin as u64))
}

/// However old the release is: Apple takes no certificate that holds for longer than 825 days, browsers 398.
#[test]
fn no_certificate_holds_for_longer_than_clients_accept() {
    for made in [0, 1, 400, 1_500, 4_000] {
        let directory = TempDir::new().unwrap();
        let tls = Tls::load(settings(&directory), day(made)).unwrap();
        assert_eq!(validity(&tls), (397, day(made) - DAY), "made {made} days after the release");
        for later in [264, 600, 5_000] {
            tls.renew_if_due(day(made + later)).unwrap();
            assert_eq!(validity(&tls), (397, day(made + later) - DAY));
        }
    }
}

/// As every certificate of the first versions, which began at the release.
#[test]
fn a_certificate_that_holds_for_too_long_is_replaced() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(0)).unwrap();
    let (certificate, key) = tls.settings.files();
    let authority =
        rcgen::KeyPair::from_pem(&fs::read_to_string(tls.settings.directory.join(CA_KEY_FILE)).unwrap());
    let authority_pem = fs::read_to_string(tls.authority_file().unwrap()).unwrap();
    let authority = authority.unwrap();
    let issuer = rcgen::Issuer::new(
        authority_params(&authority, &names(&tls.settings.names, "localhost"), RELEASE_EPOCH_S).unwrap(),
        authority,
    );
    let own = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(names(&tls.settings.names, "localhost")).unwrap();
    params.not_before = day(0).into();
    params.not_after = (day(0) + 424 * DAY).into();
    fs::write(&certificate, params.signed_by(&own, &issuer).unwrap().pem()).unwrap();
    fs::write(&key, own.serialize_pem()).unwrap();
    let again = Tls::load(settings(&directory), day(10)).unwrap();
    assert_eq!(validity(&again), (397, day(9)));
    assert_eq!(fs::read_to_string(again.authority_file().unwrap()).unwrap(), authority_pem);
}

#[test]
fn a_clock_that_was_ahead_leaves_no_certificate_that_does_not_hold_yet() {
    let directory = TempDir::new().unwrap();
    let ahead = Tls::load(settings(&directory), day(3_600)).unwrap();
    assert!(ahead.renew_if_due(day(20)).unwrap());
    let client = client(&ahead.authority_file().unwrap(), &version::TLS13, day(20));
    handshake(client, ahead.server_config().unwrap(), "localhost").unwrap();
}

/// A box without a battery wakes up in 1970: that says nothing against the certificate that it has.
#[test]
fn a_clock_that_lost_its_time_does_not_replace_a_good_certificate() {
    let directory = TempDir::new().unwrap();
    let made = certificate_in_force(&Tls::load(settings(&directory), day(800)).unwrap());
    let woken = Tls::load(settings(&directory), SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(certificate_in_force(&woken), made);
    assert!(!woken.renew_if_due(SystemTime::UNIX_EPOCH + DAY).unwrap());
    // A new name needs another one all the same, of the day that the clock is known to have seen.
    let mut renamed = settings(&directory);
    renamed.names.push("other.clinic.local".to_owned());
    let renamed = Tls::load(renamed, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(validity(&renamed), (397, day(799)));
    let client = client(&renamed.authority_file().unwrap(), &version::TLS13, day(800));
    handshake(client, renamed.server_config().unwrap(), "other.clinic.local").unwrap();
}

/// What a name does wrong is not blamed on the authority that clients trust.
#[test]
fn a_name_that_no_certificate_can_hold_leaves_the_authority_alone() {
    let directory = TempDir::new().unwrap();
    let mut wrong = settings(&directory);
    wrong.names.push("other.local.".to_owned());
    let error = Tls::load(wrong, day(3)).unwrap_err().to_string();
    assert!(error.contains("other.local.") && error.contains("[server] names"), "{error}");
    assert!(!error.contains("ca.pem"), "{error}");
}

#[test]
fn a_new_name_needs_a_new_certificate() {
    let directory = TempDir::new().unwrap();
    let first = Tls::load(settings(&directory), day(3)).unwrap();
    let mut renamed = settings(&directory);
    renamed.names.push("posta.clinic.local".to_owned());
    let second = Tls::load(renamed, day(3)).unwrap();
    assert_ne!(certificate_in_force(&first), certificate_in_force(&second));
    let client = client(&second.authority_file().unwrap(), &version::TLS13, day(3));
    handshake(client, second.server_config().unwrap(), "posta.clinic.local").unwrap();
}

#[test]
fn a_clock_that_stands_in_the_past_makes_a_certificate_for_today() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), SystemTime::UNIX_EPOCH).unwrap();
    let client = client(&tls.authority_file().unwrap(), &version::TLS12, day(100));
    handshake(client, tls.server_config().unwrap(), "localhost").unwrap();
}

#[test]
fn a_bad_pair_leaves_the_old_one_in_force() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(3)).unwrap();
    let server = tls.server_config().unwrap();
    let old = certificate_in_force(&tls);
    let (certificate, key) = tls.settings.files();
    let good_key = fs::read(&key).unwrap();

    let strangers_key = {
        let other = TempDir::new().unwrap();
        Tls::load(settings(&other), day(3)).unwrap();
        fs::read(other.path().join("data/tls/key.pem")).unwrap()
    };
    fs::write(&key, strangers_key).unwrap();
    let error = tls.reload(day(3)).unwrap_err().to_string();
    assert!(error.contains("key.pem") && error.contains("is not the key of"), "{error}");
    fs::write(&key, "no key").unwrap();
    assert!(tls.reload(day(3)).unwrap_err().to_string().contains("holds no private key"));
    fs::write(&key, good_key).unwrap();
    fs::write(&certificate, "").unwrap();
    assert!(tls.reload(day(3)).unwrap_err().to_string().contains("holds no certificate"));
    fs::remove_file(&certificate).unwrap();
    assert!(tls.reload(day(3)).is_err());

    assert_eq!(certificate_in_force(&tls), old);
    let client = client(&tls.authority_file().unwrap(), &version::TLS13, day(3));
    handshake(client, server, "localhost").unwrap();

    let again = Tls::load(settings(&directory), day(3)).unwrap();
    assert_ne!(certificate_in_force(&again), old, "a start mends the box's own pair");
}

#[test]
fn an_operators_pair_is_served_followed_and_left_alone() {
    let (directory, made) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let maker = Tls::load(settings(&made), day(0)).unwrap();
    let (certificate, key) = maker.settings.files();
    let mut own = settings(&directory);
    own.own = Some(OwnCertificate { certificate, key });
    let tls = Tls::load(own.clone(), day(3)).unwrap();
    assert!(!own.directory.exists(), "no authority is made");
    assert_eq!(tls.authority_file(), None);
    let late = day(LEAF_DAYS as u32 - 1);
    assert!(!tls.renew_if_due(late).unwrap());
    assert!(!tls.reload(day(3)).unwrap());
    maker.renew_if_due(late).unwrap();
    assert!(tls.reload(late).unwrap(), "somebody has renewed the files");
    assert_eq!(certificate_in_force(&tls), certificate_in_force(&maker));

    own.own.as_mut().unwrap().key = directory.path().join("absent.pem");
    assert!(Tls::load(own, day(3)).unwrap_err().to_string().contains("absent.pem"));
}

#[test]
fn a_lost_authority_certificate_comes_back_as_one_that_clients_trust_already() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(3)).unwrap();
    let authority = tls.authority_file().unwrap();
    let kept_by_client = directory.path().join("kept.pem");
    fs::rename(&authority, &kept_by_client).unwrap();
    let again = Tls::load(settings(&directory), day(9)).unwrap();
    assert!(authority.exists());
    let client = client(&kept_by_client, &version::TLS13, day(9));
    handshake(client, again.server_config().unwrap(), "localhost").unwrap();
}

#[test]
fn odd_host_names_do_not_stop_a_start() {
    for host in ["my_box", "BOX", "box.", "123", "-box", "box-", "*", "naïve", "two words", "", "a..b"] {
        let directory = TempDir::new().unwrap();
        let mut odd = settings(&directory);
        odd.names = names(&[], host);
        Tls::load(odd.clone(), day(3)).unwrap_or_else(|e| panic!("{host:?}: {e}"));
        let again = Tls::load(odd, day(3)).unwrap();
        assert!(!again.renew_if_due(day(3)).unwrap(), "{host:?} is signed again and again");
    }
}

#[test]
fn the_kernels_tables_name_the_lasting_addresses() {
    let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                \x20    +-- 10.0.0.0/24 2 0 2\n        |-- 10.0.0.0\n           /24 link UNICAST\n\
                \x20       |-- 10.0.0.5\n           /32 host LOCAL\n        |-- 10.0.0.255\n\
                \x20          /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
    assert_eq!(parse_fib_trie(trie), ["10.0.0.5".parse::<IpAddr>().unwrap()]);
    let inet6 = "fe800000000000000000000000000001 04 40 20 80     eth0\n\
                 20010db8000000000000000000000002 04 40 00 80     eth0\n\
                 20010db8000000000000000000000003 04 40 00 01     eth0\n\
                 00000000000000000000000000000001 01 80 10 80       lo\n\ngarbage\n";
    assert_eq!(parse_if_inet6(inet6), ["2001:db8::2".parse::<IpAddr>().unwrap()]);
}

/// A certificate for these names, signed with the key of a box: what a thief of the key can make.
fn forged(tls: &Tls, names: &[&str]) -> Arc<ServerConfig> {
    let key = fs::read_to_string(tls.settings.directory.join(CA_KEY_FILE)).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let issuer = rcgen::Issuer::new(authority_params(&key, &[], RELEASE_EPOCH_S).unwrap(), key);
    let own = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_before = day(0).into();
    params.not_after = day(300).into();
    let pem = params.signed_by(&own, &issuer).unwrap().pem();
    let none = Path::new("");
    let pair = parse_pair((none, pem.as_bytes()), (none, own.serialize_pem().as_bytes())).unwrap();
    let forger = Tls {
        settings: tls.settings.clone(),
        in_force: Arc::new(InForce(RwLock::new(Arc::new(pair)))),
        said: Mutex::default(),
    };
    forger.server_config().unwrap()
}

#[test]
fn a_thief_of_the_authoritys_key_can_vouch_for_this_node_only() {
    let directory = TempDir::new().unwrap();
    let mut settings = settings(&directory);
    settings.names.extend(["posta.example".to_owned(), "203.0.113.7".to_owned(), "2001:db8::7".to_owned()]);
    let tls = Tls::load(settings, day(3)).unwrap();
    let authority = tls.authority_file().unwrap();
    let is_accepted = |names: &[&str], name: &str| {
        let client = client(&authority, &version::TLS13, day(3));
        handshake(client, forged(&tls, names), name).is_ok()
    };
    for own in [
        "clinic.local",
        "sub.clinic.local",
        "localhost",
        "a.posta.example",
        "203.0.113.7",
        "2001:db8::7",
        "10.9.8.7",
    ] {
        assert!(is_accepted(&[own], own), "{own}");
    }
    for private in
        ["192.168.7.7", "172.31.0.1", "100.100.1.1", "169.254.1.1", "127.9.9.9", "fd00::1", "fe80::9"]
    {
        assert!(is_accepted(&[private], private), "{private}");
    }
    for other in [
        "example.org",
        "bank.example",
        "local",
        "xclinic.local",
        "other.local",
        "posta.example.org",
        "203.0.113.8",
        "8.8.8.8",
        "172.32.0.1",
        "2001:db8::8",
        "::2",
    ] {
        assert!(!is_accepted(&[other], other), "{other}");
        assert!(!is_accepted(&["clinic.local", other], "clinic.local"), "{other} beside an own name");
    }
    let pem = fs::read(&authority).unwrap();
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(parsed.name_constraints().unwrap().unwrap().critical);
    assert_eq!(parsed.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.any && !usage.email_protection && !usage.code_signing);
}

/// The authority of an earlier version: of the same key, and good for every name.
fn loosen(tls: &Tls) -> String {
    let key = fs::read_to_string(tls.settings.directory.join(CA_KEY_FILE)).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let mut params = authority_params(&key, &[], RELEASE_EPOCH_S).unwrap();
    params.name_constraints = None;
    params.extended_key_usages = Vec::new();
    params.serial_number = None;
    let pem = params.self_signed(&key).unwrap().pem();
    fs::write(tls.authority_file().unwrap(), &pem).unwrap();
    pem
}

#[test]
fn an_authority_without_constraints_is_replaced_and_its_clients_go_on() {
    let directory = TempDir::new().unwrap();
    let first = Tls::load(settings(&directory), day(3)).unwrap();
    let authority = first.authority_file().unwrap();
    let kept_by_client = directory.path().join("kept.pem");
    fs::write(&kept_by_client, loosen(&first)).unwrap();
    let before = fs::read(&authority).unwrap();
    first.settings.examine(day(4)).unwrap();
    assert_eq!(fs::read(&authority).unwrap(), before, "looking changes nothing");
    let tls = Tls::load(settings(&directory), day(4)).unwrap();
    assert_ne!(fs::read(&authority).unwrap(), before);
    assert_eq!(mode(&authority), 0o644);
    for trusted in [&kept_by_client, &authority] {
        for name in ["localhost", "clinic.local", "10.20.30.40"] {
            let client = client(trusted, &version::TLS13, day(4));
            handshake(client, tls.server_config().unwrap(), name).unwrap();
        }
    }
    let client = client(&authority, &version::TLS13, day(4));
    assert!(handshake(client, forged(&tls, &["example.org"]), "example.org").is_err());
    // Two certificates of one number are refused by browsers.
    let serial = |pem: &[u8]| {
        let der = CertificateDer::from_pem_slice(pem).unwrap();
        x509_parser::parse_x509_certificate(&der).unwrap().1.raw_serial_as_string()
    };
    let after = fs::read(&authority).unwrap();
    assert_ne!(serial(&before), serial(&after));
    Tls::load(settings(&directory), day(5)).unwrap();
    assert_eq!(fs::read(&authority).unwrap(), after, "once");
}

#[test]
fn without_its_key_an_authority_without_constraints_stays_until_it_is_needed() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(3)).unwrap();
    loosen(&tls);
    let again = Tls::load(settings(&directory), day(4)).unwrap();
    let pem = loosen(&again);
    fs::remove_file(again.settings.directory.join(CA_KEY_FILE)).unwrap();
    Tls::load(settings(&directory), day(5)).unwrap();
    assert_eq!(fs::read_to_string(again.authority_file().unwrap()).unwrap(), pem);
}

/// A name that came later costs the clients of the other names nothing, and is told.
#[test]
fn a_name_that_the_authority_does_not_cover_is_left_out_until_its_certificate_is_made_anew() {
    let directory = TempDir::new().unwrap();
    let first = Tls::load(settings(&directory), day(3)).unwrap();
    assert_eq!(first.settings.uncovered_names(), Vec::<String>::new());
    let authority = first.authority_file().unwrap();
    let mut renamed = settings(&directory);
    renamed.names.extend(["other.example".to_owned(), "198.51.100.7".to_owned()]);
    let second = Tls::load(renamed.clone(), day(4)).unwrap();
    assert_eq!(renamed.uncovered_names(), ["other.example", "198.51.100.7"]);
    let warning = said_of(&renamed, day(4)).concat();
    assert!(warning.contains("other.example") && warning.contains("ca.pem"), "{warning}");
    let greet = |tls: &Tls, name: &str| {
        let client = client(&authority, &version::TLS13, day(4));
        handshake(client, tls.server_config().unwrap(), name).is_ok()
    };
    assert!(greet(&second, "clinic.local") && !greet(&second, "other.example"));
    assert!(!second.renew_if_due(day(4)).unwrap(), "it is not signed again and again");
    fs::remove_file(&authority).unwrap();
    let third = Tls::load(renamed.clone(), day(4)).unwrap();
    assert_eq!(renamed.uncovered_names(), Vec::<String>::new());
    for name in ["clinic.local", "other.example", "198.51.100.7"] {
        assert!(greet(&third, name), "{name}");
    }
}

#[test]
fn keys_that_others_could_read_are_closed() {
    let directory = TempDir::new().unwrap();
    let tls = Tls::load(settings(&directory), day(3)).unwrap();
    for file in ["ca-key.pem", "key.pem"] {
        let file = tls.settings.directory.join(file);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        tls.settings.examine(day(3)).unwrap();
        assert_eq!(mode(&file), 0o644, "looking changes nothing");
        Tls::load(settings(&directory), day(3)).unwrap();
        assert_eq!(mode(&file), 0o600);
    }
}
