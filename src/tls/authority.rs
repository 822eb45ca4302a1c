//! Floor 5. The box's own certificate authority: four files in a directory of the box.
//!
//! Hides how they come into being and recover. The authority is its key: a lost `ca.pem` is made anew from it, and the
//! same clients trust that one, and whatever is wrong with the server's pair is mended by signing another. What the
//! authority may sign stands in its certificate (see `constraints`): names of this node, and private addresses.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::authority_parts::{AuthorityParts, CA_FILE, CA_KEY_FILE, Part, is_of_key, is_signed_by};
use super::constraints::{constraints, is_constrained, permits};
use super::{TlsError, TlsSettings, file_error, parse_pair, provider, read_pair};
use crate::files::{Staged, read_configured};

pub(super) const CERTIFICATE_FILE: &str = "cert.pem";
pub(super) const KEY_FILE: &str = "key.pem";

/// Twenty years: clients are visited once.
pub const CA_DAYS: u64 = 20 * 365;
/// How long a server certificate serves, from its first to its last day: Apple takes at most 825 days from private
/// authorities, browsers dislike more than 398.
pub const LEAF_DAYS: u64 = 397;
/// A server certificate is replaced after this part of its time, so that a box that is switched off for months
/// comes back with one that holds.
pub const RENEW_AFTER_DAYS: u64 = LEAF_DAYS * 2 / 3;
/// A certificate holds from so long before it was made, for clients whose clocks are a little behind.
const BACKDATED_S: u64 = DAY_S;

/// 2026-11-01, before this release. Clinic boxes have no clock battery and wake up in the past: no
/// earlier time is believed.
pub const RELEASE_EPOCH_S: u64 = 1_793_491_200;
const DAY_S: u64 = 24 * 60 * 60;

/// Names and addresses beside the configured ones; a machine with more is a router.
const LOCAL_ADDRESSES_MAX: usize = 32;

pub(super) struct Ready {
    pub(super) pair: CertifiedKey,
    /// Signed just now.
    pub(super) is_new: bool,
}

/// Whether files are made that are missing or due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    Files,
    /// Everything is tried, and nothing is written.
    Nothing,
}

/// The box's pair, signed anew if there is none, if it is damaged or about to end, or if it lacks a name.
pub(super) fn ready_pair(settings: &TlsSettings, now: SystemTime, making: Making) -> Result<Ready, TlsError> {
    let host = gethostname::gethostname().into_string().unwrap_or_default();
    let names = names(&settings.names, &host);
    let directory = &settings.directory;
    match making {
        Making::Files => make_private_directory(directory).map_err(|e| file_error(directory, e))?,
        Making::Nothing if directory.exists() && !directory.is_dir() => {
            return Err(file_error(directory, "is no directory"));
        }
        Making::Nothing => {}
    }
    let certificate = directory.join(CERTIFICATE_FILE);
    let key = directory.join(KEY_FILE);
    let held = read_pair(&certificate, &key).ok();
    let held_validity = held.as_ref().and_then(validity_s);
    let now_s = believable(now, held_validity);
    if making == Making::Files {
        narrow_keys(&[&directory.join(CA_KEY_FILE), &key])?;
    }
    let parts = AuthorityParts::read(directory);
    if let Some(fault) = parts.fault(held.as_ref()).filter(|fault| !fault.is_mended_by_start()) {
        let error = || {
            file_error(directory, format!("{fault}: no server certificate can be signed; {}", fault.remedy()))
        };
        return held.map(|pair| Ready { pair, is_new: false }).ok_or_else(error);
    }
    let authority = parts.certificate.whole();
    let held_leaf = held.as_ref().and_then(|pair| pair.cert.first());
    let is_foreign = authority
        .as_ref()
        .is_some_and(|authority| held_leaf.is_some_and(|leaf| !is_signed_by(authority, leaf)));
    let is_sound = |held: &CertificateDer<'_>| {
        !(is_to_be_constrained(directory, held) || ends_too_soon(held, now_s) && is_key_here(directory, held))
    };
    if let Some(authority) = authority.filter(is_sound)
        && let (Some(pair), Some(validity)) = (held, held_validity)
        && !is_due(validity, now_s)
        && let covered = covered(&authority, &names)
        && !covered.is_empty()
        && vouches(&authority, &pair, &covered, now_s)
    {
        return Ok(Ready { pair, is_new: false });
    }
    if is_clock_behind(now) && making == Making::Files {
        tracing::warn!(
            from = %shown_date(now_s),
            "the clock says a time before this program was made: the certificate counts from another day, and clients \
             refuse it if that is more than {LEAF_DAYS} days ago; set the clock (timedatectl set-time)"
        );
    }
    if is_foreign && making == Making::Files {
        tracing::warn!(
            file = %directory.join(CA_FILE).display(),
            "this authority has not signed the certificate that was there: that one was damaged, or the authority is another \
             one. The new certificate is accepted by clients that were given this file, and refused by all others"
        );
    }
    let (authority, issuer) = ready_authority(directory, &names, now_s, making)?;
    let names = covered(&authority, &names);
    let (certificate_pem, key_pem) = sign_leaf(&issuer, &names, now_s)?;
    let pair = parse_pair((&certificate, certificate_pem.as_bytes()), (&key, key_pem.as_bytes()))?;
    if names.is_empty() || !vouches(&authority, &pair, &names, now_s) {
        let refused = |name: &&String| !is_certifiable(name);
        let wrong: Vec<&str> = names.iter().filter(refused).map(String::as_str).collect();
        if !wrong.is_empty() {
            // The authority is sound: nobody should be told to replace it.
            let message =
                format!("no client would accept the names {}: correct [server] names", wrong.join(", "));
            return Err(file_error(&certificate, message));
        }
        let message = format!(
            "is not the certificate of {CA_KEY_FILE}, or has ended: put back the one that belongs to it. Clients \
             trust that one; without the file the next start makes it anew from the key"
        );
        return Err(file_error(&directory.join(CA_FILE), message));
    }
    for path in [&key, &certificate] {
        if path.is_dir() {
            return Err(file_error(path, "is a directory"));
        }
    }
    if making == Making::Files {
        // Both are on the disk before one of them counts: a full one leaves the pair that is there.
        let staged = [(&key, &key_pem), (&certificate, &certificate_pem)]
            .map(|(path, pem)| stage_private(path, pem).map(|staged| (path, staged)));
        for staged in staged.into_iter().collect::<Result<Vec<_>, _>>()? {
            let (path, staged) = staged;
            staged.replace().map_err(|e| file_error(path, e))?;
        }
        tracing::info!(names = names.join(" "), "signed a new server certificate");
    }
    Ok(Ready { pair, is_new: true })
}

/// Whether a certificate can be made for a name, and clients accept it: tried with an authority that is forgotten.
pub fn is_certifiable(name: &str) -> bool {
    let names = [name.to_owned()];
    let signed = || -> Result<bool, TlsError> {
        let key = KeyPair::generate().map_err(mint_error)?;
        let params = authority_params(&key, &names, RELEASE_EPOCH_S)?;
        let authority = params.self_signed(&key).map_err(mint_error)?.der().clone();
        let (certificate, key) = sign_leaf(&Issuer::new(params, key), &names, RELEASE_EPOCH_S)?;
        let none = Path::new("");
        let pair = parse_pair((none, certificate.as_bytes()), (none, key.as_bytes()))?;
        Ok(vouches(&authority, &pair, &names, RELEASE_EPOCH_S + DAY_S))
    };
    signed().unwrap_or(false)
}

/// The machine's time, if it can be true. A clock that stands before this release lost its time; then it is at least
/// what it was when the pair that is there was made.
fn believable(now: SystemTime, held: Option<(u64, u64)>) -> u64 {
    match is_clock_behind(now) {
        true => held.map_or(0, |(begin_s, _)| begin_s + BACKDATED_S).max(RELEASE_EPOCH_S),
        false => epoch_s(now),
    }
}

pub(super) fn is_clock_behind(now: SystemTime) -> bool {
    epoch_s(now) < RELEASE_EPOCH_S
}

fn epoch_s(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn shown_date(at_s: u64) -> String {
    date(at_s).map_or_else(|_| String::new(), |date| date.date().to_string())
}

/// From when until when a pair's own certificate holds.
fn validity_s(pair: &CertifiedKey) -> Option<(u64, u64)> {
    validity_of(pair.cert.first()?)
}

pub(super) fn validity_of(certificate: &CertificateDer<'_>) -> Option<(u64, u64)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    let second = |at: i64| u64::try_from(at).ok();
    Some((second(validity.not_before.timestamp())?, second(validity.not_after.timestamp())?))
}

/// Whether another certificate is to be made. One that begins later is of a clock that was ahead; one that holds for
/// longer than it may was made by an earlier version.
fn is_due((begin_s, end_s): (u64, u64), now_s: u64) -> bool {
    now_s < begin_s
        || now_s >= begin_s + RENEW_AFTER_DAYS * DAY_S
        || end_s.saturating_sub(begin_s) > LEAF_DAYS * DAY_S
}

/// Whether a client that trusts the authority would accept the pair under every name at that time.
fn vouches(authority: &CertificateDer<'_>, pair: &CertifiedKey, names: &[String], at_s: u64) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(authority.clone().into_owned()).is_err() {
        return false;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let (Ok(verifier), Some((leaf, issuers))) = (verifier, pair.cert.split_first()) else {
        return false;
    };
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at_s));
    names.iter().all(|name| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| verifier.verify_server_cert(leaf, issuers, &name, &[], at).is_ok())
    })
}

/// The names that the authority may vouch for. A certificate that holds any other is accepted under none.
fn covered(authority: &CertificateDer<'_>, names: &[String]) -> Vec<String> {
    names.iter().filter(|name| permits(authority, name)).cloned().collect()
}

/// What clients call this node, of what they were told or the machine is called, that the authority of the box may not
/// vouch for. Empty before the first start.
pub(super) fn uncovered(settings: &TlsSettings) -> Vec<String> {
    let directory = &settings.directory;
    let Some(authority) = AuthorityParts::read(directory).certificate.whole() else {
        return Vec::new();
    };
    if is_to_be_constrained(directory, &authority) {
        return Vec::new();
    }
    let host = gethostname::gethostname().into_string().unwrap_or_default();
    let lasting = usable(settings.names.iter().cloned().chain([host.trim_end_matches('.').to_owned()]));
    lasting.into_iter().filter(|name| !permits(&authority, name)).collect()
}

/// Whether the certificate of the authority is one of the first versions, which may vouch for every name there is, and
/// its key is here, so that another one can be made: clients that trust the key accept what it signs under either.
fn is_to_be_constrained(directory: &Path, authority: &CertificateDer<'_>) -> bool {
    !is_constrained(authority) && is_key_here(directory, authority)
}

fn is_key_here(directory: &Path, authority: &CertificateDer<'_>) -> bool {
    let key = AuthorityParts::read(directory).key.whole();
    key.is_some_and(|key| is_of_key(authority, &key))
}

/// Whether a server certificate that is made now would hold for longer than the authority's.
fn ends_too_soon(authority: &CertificateDer<'_>, now_s: u64) -> bool {
    validity_of(authority).is_some_and(|(_, end_s)| end_s < now_s + LEAF_DAYS * DAY_S)
}

/// Takes keys from others who can read them, and says so.
fn narrow_keys(paths: &[&Path]) -> Result<(), TlsError> {
    for path in paths {
        let mode = match fs::metadata(path) {
            Ok(about) if about.is_file() => about.permissions().mode(),
            _ => continue,
        };
        if mode & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|e| file_error(path, e))?;
            tracing::warn!(
                file = %path.display(),
                "other accounts of this machine could read this key; now only the node's own can. If one of them may have \
                 a copy, make another (docs/SECURITY.md, the box's own authority)"
            );
        }
    }
    Ok(())
}

/// The authority's certificate and its signing half; both are made if there is neither. A certificate without
/// constraints, one that ends before what it is to sign, and one that is damaged are replaced by others of the same key.
fn ready_authority(
    directory: &Path,
    names: &[String],
    now_s: u64,
    making: Making,
) -> Result<(CertificateDer<'static>, Issuer<'static, KeyPair>), TlsError> {
    let (path, key_path) = (directory.join(CA_FILE), directory.join(CA_KEY_FILE));
    // What is damaged for good was refused before.
    let AuthorityParts { certificate: held, key, .. } = AuthorityParts::read(directory);
    let is_damaged = matches!(held, Part::Damaged(_));
    let key = match key.whole() {
        Some(key) => key,
        None => {
            let key = KeyPair::generate().map_err(mint_error)?;
            if making == Making::Files {
                write_private(&key_path, &key.serialize_pem())?;
            }
            key
        }
    };
    let params = authority_params(&key, names, now_s)?;
    let certificate = match held.whole() {
        Some(certificate) if is_constrained(&certificate) && !ends_too_soon(&certificate, now_s) => {
            certificate
        }
        former => {
            let certificate = params.self_signed(&key).map_err(mint_error)?;
            if making == Making::Files {
                write_private(&path, &certificate.pem())?;
                fs::set_permissions(&path, Permissions::from_mode(0o644))
                    .map_err(|e| file_error(&path, e))?;
                match former {
                    None if is_damaged => tracing::warn!(
                        file = %path.display(),
                        "the certificate of the box's own authority was damaged; this one is of the same key, so clients go on \
                         as before"
                    ),
                    None => {
                        tracing::info!(file = %path.display(), "made a certificate authority for this box")
                    }
                    Some(former) if is_constrained(&former) => tracing::warn!(
                        file = %path.display(),
                        until = %validity_of(&former).map_or_else(String::new, |(_, end_s)| shown_date(end_s)),
                        "the certificate of the box's own authority ends; this one, of the same key, holds for {CA_DAYS} \
                         days. Give clients the new file: they accept the node by the old one until it ends"
                    ),
                    Some(_) => tracing::warn!(
                        file = %path.display(),
                        "the certificate of the box's own authority was good for every name there is; this one, of the \
                         same key, is good for this node's names and private addresses only. Clients go on as before; \
                         give them the new file and remove the old one from them when you next see them"
                    ),
                }
            }
            certificate.der().clone()
        }
    };
    Ok((certificate, Issuer::new(params, key)))
}

/// The name follows from the key, so that it is known without reading the certificate, and so that the
/// authorities of several boxes stay apart in one client.
pub(super) fn authority_params(
    key: &KeyPair,
    names: &[String],
    now_s: u64,
) -> Result<CertificateParams, TlsError> {
    let digest = Sha256::digest(key.subject_public_key_info());
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("thalamus-edge box CA {}", hex::encode(&digest[..4])));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Neither mail nor programs: these have no names that constraints would keep out.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let constraints = constraints(names);
    // Clients that have two certificates of one issuer and number refuse both.
    let number = Sha256::digest(format!("{}{now_s}{constraints:?}", hex::encode(digest)));
    params.serial_number = Some(SerialNumber::from_slice(&[&[1], &number[..15]].concat()));
    params.name_constraints = Some(constraints);
    // Its day does not matter to clients as the server's does, and it holds for all that it will sign.
    params.not_before = date(RELEASE_EPOCH_S - BACKDATED_S)?;
    params.not_after = date(now_s + CA_DAYS * DAY_S)?;
    Ok(params)
}

/// A new key and its certificate, as PEM: certificate, key.
fn sign_leaf(
    issuer: &Issuer<'_, KeyPair>,
    names: &[String],
    now_s: u64,
) -> Result<(String, String), TlsError> {
    let key = KeyPair::generate().map_err(mint_error)?;
    let mut params = CertificateParams::new(names).map_err(mint_error)?;
    params.distinguished_name = common_name("thalamus-edge");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let begin_s = now_s.saturating_sub(BACKDATED_S);
    params.not_before = date(begin_s)?;
    params.not_after = date(begin_s + LEAF_DAYS * DAY_S)?;
    let certificate = params.signed_by(&key, issuer).map_err(mint_error)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn mint_error(error: rcgen::Error) -> TlsError {
    TlsError::Mint(error.to_string())
}

fn date(epoch_s: u64) -> Result<OffsetDateTime, TlsError> {
    i64::try_from(epoch_s)
        .ok()
        .and_then(|epoch_s| OffsetDateTime::from_unix_timestamp(epoch_s).ok())
        .ok_or_else(|| TlsError::Mint("the clock is beyond the year 9999".to_owned()))
}

/// Everything that the server is called: as configured, by the machine, and by its addresses.
pub(super) fn names(configured: &[String], host: &str) -> Vec<String> {
    let mut names = configured.to_vec();
    names.push(host.trim_end_matches('.').to_owned());
    names.push("localhost".to_owned());
    names.extend([Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()]);
    names.extend(local_addresses().iter().map(IpAddr::to_string));
    usable(names)
}

/// Each name once, without those that no certificate can say: a machine may be called so.
fn usable(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let is_usable = |name: &String| ServerName::try_from(name.as_str()).is_ok();
    names.into_iter().filter(|name| is_usable(name) && seen.insert(name.to_lowercase())).collect()
}

/// What the kernel says, where it does; other systems make do with the names.
fn local_addresses() -> BTreeSet<IpAddr> {
    let of = |path: &str, parse: fn(&str) -> Vec<IpAddr>| {
        let text = read_configured(Path::new(path)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.map_or_else(Vec::new, |text| parse(&text))
    };
    let v4 = of("/proc/self/net/fib_trie", parse_fib_trie);
    let v6 = of("/proc/self/net/if_inet6", parse_if_inet6);
    v4.into_iter().chain(v6).take(LOCAL_ADDRESSES_MAX).collect()
}

/// The local addresses in the kernel's routing table: `|-- ADDRESS`, then `/32 host LOCAL`.
pub(super) fn parse_fib_trie(text: &str) -> Vec<IpAddr> {
    let mut address = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            address = leaf.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(address.filter(|address| !address.is_loopback()).map(IpAddr::V4));
        }
    }
    found
}

/// Lasting addresses that reach beyond the link: 32 hex digits, index, prefix, scope, flags, interface.
pub(super) fn parse_if_inet6(text: &str) -> Vec<IpAddr> {
    const GLOBAL: &str = "00";
    const TEMPORARY: u32 = 0x01;
    let address = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [hex, _, _, GLOBAL, flags, _] = fields[..] else {
            return None;
        };
        let lasting = u32::from_str_radix(flags, 16).ok()? & TEMPORARY == 0;
        let bits = u128::from_str_radix(hex, 16).ok()?;
        lasting.then_some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
    };
    text.lines().filter_map(address).collect()
}

/// Also narrows one that is there: a restored backup may have opened it.
fn make_private_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

/// Writes a file that only its owner reads, whole or not at all, and lasting.
fn write_private(path: &Path, content: &str) -> Result<(), TlsError> {
    stage_private(path, content)?.replace().map_err(|e| file_error(path, e))
}

fn stage_private(path: &Path, content: &str) -> Result<Staged, TlsError> {
    Staged::new(path, content.as_bytes(), 0o600, None).map_err(|e| file_error(path, e))
}
