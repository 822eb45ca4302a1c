//! Floor 5. What clients suffer, or will suffer, from the certificates that a node serves with.
//!
//! `check`, the log and `doctor` ask the same function, so that they say the same.

use std::fmt;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_PKIX_AUTHORITY_INFO_ACCESS;
use x509_parser::prelude::X509Certificate;

use super::authority::{self, LEAF_DAYS, validity_of};
use super::authority_parts::{AuthorityParts, CA_FILE, Part, is_signed_by, may_have_signed};
use super::{DAY_S, TlsError, TlsSettings, file_error, read_pair, seconds_of};
use crate::sync::time_text;

/// When somebody should see to another certificate; a node has renewed its own long before.
const WARNED_DAYS: i64 = 30;
/// How long a server certificate may hold for clients to take it: below an authority that people have added themselves,
/// and below one that came with the device.
const PRIVATE_DAYS_MAX: i64 = 825;
const PUBLIC_DAYS_MAX: i64 = 398;

/// Something about the certificates that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// Clients refuse the node, or will without somebody's help.
    pub is_grave: bool,
    pub finding: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.finding, self.remedy)
    }
}

fn grave(finding: impl Into<String>, remedy: impl Into<String>) -> Concern {
    Concern { is_grave: true, finding: finding.into(), remedy: remedy.into() }
}

fn mild(finding: impl Into<String>, remedy: impl Into<String>) -> Concern {
    Concern { is_grave: false, finding: finding.into(), remedy: remedy.into() }
}

impl TlsSettings {
    /// What there is to say about the certificates at that time, the worst first. An error if the pair is there and cannot
    /// be read.
    pub fn concerns(&self, now: SystemTime) -> Result<Vec<Concern>, TlsError> {
        let now_s = seconds_of(now);
        let mut concerns = if self.own.is_some() { Vec::new() } else { self.of_authority(now_s) };
        concerns.extend(self.of_time(now_s)?);
        if self.own.is_some() {
            concerns.extend(self.of_own_certificate()?);
        } else {
            concerns.extend(self.of_names());
        }
        concerns.sort_by_key(|concern| !concern.is_grave);
        Ok(concerns)
    }

    fn of_authority(&self, now_s: i64) -> Vec<Concern> {
        let parts = AuthorityParts::read(&self.directory);
        let (certificate, key) = self.files();
        let leaf = read_pair(&certificate, &key).ok();
        let fault = parts.fault(leaf.as_ref()).map(|fault| {
            let finding = match (fault.is_mended_by_start(), &leaf) {
                (true, _) => format!("the authority of this box is damaged: {fault}"),
                (false, Some(_)) => format!(
                    "the authority of this box is damaged: {fault}. The node serves with the certificate that it has, and \
                     can sign no other when that ends or a name is added"
                ),
                (false, None) => format!("the authority of this box is damaged: {fault}"),
            };
            Concern { is_grave: !fault.is_mended_by_start(), finding, remedy: fault.remedy() }
        });
        let foreign = self.of_foreign_authority(&parts, leaf.as_ref());
        let end = parts.certificate.whole().and_then(|held| validity_of(&held));
        let end = end.and_then(|(_, end_s)| i64::try_from(end_s).ok());
        // With its key the node makes another by then.
        const REMEDY: &str = "put tls/ca-key.pem back into the data directory, or remove tls/ca.pem for another authority; \
                              systemctl restart thalamus-edge; then give clients the new tls/ca.pem";
        let end = end.filter(|end_s| end_s - now_s < LEAF_DAYS as i64 * DAY_S).map(|end_s| {
            let at = time_text(end_s.saturating_mul(1000));
            match end_s <= now_s {
                true => grave(
                    format!(
                        "the box's own authority (ca.pem) ended at {at}: clients refuse all that it signs"
                    ),
                    REMEDY,
                ),
                false => mild(format!("the box's own authority (ca.pem) ends at {at}"), REMEDY),
            }
        });
        fault.into_iter().chain(foreign).chain(end).collect()
    }

    /// What there is to say where the authority has not signed the certificate that is there.
    fn of_foreign_authority(&self, parts: &AuthorityParts, leaf: Option<&CertifiedKey>) -> Option<Concern> {
        let (Part::Whole(authority), Some(pair)) = (&parts.certificate, leaf) else {
            return None;
        };
        let leaf = pair.cert.first()?;
        if is_signed_by(authority, leaf) {
            return None;
        }
        let (certificate, _) = self.files();
        let finding = format!(
            "{} was not signed by the authority of this box (ca.pem): it is damaged, or ca.pem and ca-key.pem are of \
             another authority",
            certificate.display()
        );
        // Where the two files of the authority do not fit each other, that says which of them is wrong.
        Some(match parts.fault(Some(pair)) {
            Some(fault) if fault.is_about_pair() => return None,
            Some(_) => grave(
                format!("{finding}. Clients refuse the node, and no other certificate can be signed"),
                "restore all four files of tls/ from one copy, then systemctl restart thalamus-edge",
            ),
            None => mild(
                format!(
                    "{finding}. The next start signs a new one: clients that were given this ca.pem accept it, those that \
                     were given another one refuse the node"
                ),
                "if it is another authority by mistake, put the former ca.pem and ca-key.pem back before the start; \
                 otherwise give every client this ca.pem",
            ),
        })
    }

    fn of_time(&self, now_s: i64) -> Result<Option<Concern>, TlsError> {
        let remedy = match self.own {
            Some(_) => {
                "put a new pair in the place of [server] certificate and key, then systemctl reload thalamus-edge"
            }
            None => "systemctl restart thalamus-edge, which signs a new one",
        };
        let Some((begin_s, end_s)) = self.validity_s()? else {
            return Ok(None);
        };
        let text = |at_s: i64| time_text(at_s.saturating_mul(1000));
        let what = self.certificate_name();
        Ok(match (end_s - now_s).div_euclid(DAY_S) {
            _ if begin_s > now_s => Some(grave(
                format!("{what} does not hold before {}: clients refuse it", text(begin_s)),
                "look at the clock, or at [server] certificate",
            )),
            _ if end_s < now_s => {
                Some(grave(format!("{what} ended at {}: clients refuse it", text(end_s)), remedy))
            }
            days if days < WARNED_DAYS => {
                Some(mild(format!("{what} ends in {days} days, at {}", text(end_s)), remedy))
            }
            _ => None,
        })
    }

    /// How people know the certificate.
    fn certificate_name(&self) -> String {
        match &self.own {
            Some(own) => format!("the certificate in {}", own.certificate.display()),
            None => "the certificate of this node".to_owned(),
        }
    }

    fn of_own_certificate(&self) -> Result<Vec<Concern>, TlsError> {
        let (certificate, key) = self.files();
        let pair = read_pair(&certificate, &key)?;
        let Some(leaf) = pair.cert.first() else {
            return Ok(Vec::new());
        };
        let leaf = parsed(leaf).map_err(|error| file_error(&certificate, error))?;
        let nameless = (!has_name(&leaf)).then(|| {
            grave(
                format!(
                    "{} names no host (it has no subjectAltName): no browser accepts it",
                    certificate.display()
                ),
                "have it signed for the names and addresses by which clients reach the node",
            )
        });
        let file = certificate.display().to_string();
        let mut concerns: Vec<_> = nameless.into_iter().collect();
        concerns.extend(unfit_purpose(&leaf, &file));
        concerns.extend(of_chain(&pair.cert, &leaf, &file));
        concerns.extend(long_validity(&leaf, &file));
        Ok(concerns)
    }

    /// Names of this node that the box's own authority may not vouch for, because the node got them after its certificate
    /// was made: the server certificate does without them. Empty with the operator's own pair.
    pub fn uncovered_names(&self) -> Vec<String> {
        if self.own.is_some() { Vec::new() } else { authority::uncovered(self) }
    }

    fn of_names(&self) -> Option<Concern> {
        let names = self.uncovered_names();
        (!names.is_empty()).then(|| {
            mild(
                format!(
                    "the authority of this box may not vouch for {}: its certificate was made before the node had that name, \
                     so clients refuse it there",
                    names.join(", ")
                ),
                format!(
                    "to change that, remove {} and restart; then every client must be given the new file",
                    self.directory.join(CA_FILE).display()
                ),
            )
        })
    }
}

fn parsed<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, String> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|error| error.to_string())
}

/// Clients compare names and addresses with this list only, and not with the subject.
fn has_name(leaf: &X509Certificate<'_>) -> bool {
    let names = leaf.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| {
        let is_name =
            |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
        names.value.general_names.iter().any(is_name)
    })
}

/// Says that clients refuse the operator's own certificate because it is for something else than serving.
fn unfit_purpose(leaf: &X509Certificate<'_>, file: &str) -> Option<Concern> {
    let for_servers = "have it signed for servers (extendedKeyUsage serverAuth, keyUsage digitalSignature)";
    if let Ok(Some(usage)) = leaf.extended_key_usage()
        && !(usage.value.server_auth || usage.value.any)
    {
        let finding =
            format!("{file} is not for servers (its extendedKeyUsage lacks serverAuth): clients refuse it");
        return Some(grave(finding, for_servers));
    }
    if let Ok(Some(usage)) = leaf.key_usage()
        && !usage.value.digital_signature()
    {
        let finding = format!("{file} may not sign (its keyUsage lacks digitalSignature): clients refuse it");
        return Some(grave(finding, for_servers));
    }
    None
}

/// Says that the issuers of the operator's own certificate are not all in its file: clients know authorities, and no
/// certificates between them and a server.
fn of_chain(chain: &[CertificateDer<'_>], leaf: &X509Certificate<'_>, file: &str) -> Option<Concern> {
    let (first, mut others) = chain.split_first().map(|(first, others)| (first, others.to_vec()))?;
    let mut last = first.clone();
    // In whatever order they stand.
    while !may_have_signed(&last, &last)
        && let Some(at) = others.iter().position(|issuer| may_have_signed(issuer, &last))
    {
        last = others.swap_remove(at);
    }
    if may_have_signed(&last, &last) {
        return None;
    }
    let has_issuer = last != *first;
    let last = parsed(&last).ok()?;
    if has_issuer && let Some(extra) = others.first() {
        let extra = parsed(extra).map_or_else(|error| error, |extra| extra.subject().to_string());
        return Some(mild(
            format!(
                "{file} holds a certificate that is of no issuer of the first one, {extra}, and none of {}",
                last.issuer()
            ),
            "take it out of the file; if clients do not have that of the other one, append it",
        ));
    }
    let issuer = last.issuer().to_string();
    let remedy = "append the certificate of that issuer to the file, and of those above it";
    if !others.is_empty() {
        let finding = format!(
            "{file} holds other certificates than the issuer of {}, {issuer}: clients refuse it unless they have that one",
            last.subject()
        );
        return Some(grave(finding, remedy));
    }
    // An authority that says where to fetch its certificate from is one that clients are not given by hand.
    let is_public =
        leaf.get_extension_unique(&OID_PKIX_AUTHORITY_INFO_ACCESS).is_ok_and(|found| found.is_some());
    (chain.len() == 1).then(|| {
        let finding = format!(
            "{file} holds no certificate of its issuer, {issuer}: clients refuse it unless they have been given that one"
        );
        if is_public { grave(finding, remedy) } else { mild(finding, remedy) }
    })
}

/// Says that clients refuse the operator's own certificate because it holds for too long, however right it is
/// otherwise. The limits are those of Apple (support.apple.com/103769 and 102028); other browsers follow.
fn long_validity(leaf: &X509Certificate<'_>, file: &str) -> Option<Concern> {
    let validity = leaf.validity();
    let seconds = validity.not_after.timestamp().saturating_sub(validity.not_before.timestamp());
    let is_longer = |days: i64| seconds > days * DAY_S;
    let refused = match () {
        () if is_longer(PRIVATE_DAYS_MAX) => {
            format!(
                "devices of Apple and others refuse more than {PRIVATE_DAYS_MAX} days, whatever authority signed it"
            )
        }
        () if is_longer(PUBLIC_DAYS_MAX) => format!(
            "browsers refuse more than {PUBLIC_DAYS_MAX} days if a public authority signed it, and some in any case"
        ),
        () => return None,
    };
    let days = seconds.div_euclid(DAY_S);
    Some(mild(
        format!("{file} holds for {days} days, and {refused}"),
        format!("have it signed for at most {PUBLIC_DAYS_MAX}"),
    ))
}
