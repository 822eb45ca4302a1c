//! Floor 5. What the box's own authority may vouch for.
//!
//! People are told to trust the authority, for twenty years. Name constraints (RFC 5280, 4.2.1.10), which clients must
//! understand or refuse the certificate, keep a thief of its key from vouching for anything but this node: the names
//! that it has when the certificate is made, addresses of private networks, which the node gets and loses, and
//! public addresses that it has then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// Networks whose addresses everybody may give out: of sites (RFC 1918, RFC 4193), of links, of the machine itself, and
/// of providers and overlay networks (RFC 6598).
const PRIVATE: [(IpAddr, u8); 9] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// The constraints of an authority for a node with these names and addresses.
pub(super) fn constraints(names: &[String]) -> NameConstraints {
    let mut permitted: Vec<GeneralSubtree> =
        PRIVATE.iter().map(|(address, prefix)| subtree(*address, *prefix)).collect();
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(address) if !is_private(address) => {
                permitted.push(subtree(address, if address.is_ipv4() { 32 } else { 128 }));
            }
            Ok(_) => {}
            // No certificate can hold another one.
            Err(_) if !name.is_ascii() => {}
            Err(_) => permitted.push(GeneralSubtree::DnsName(base(name))),
        }
    }
    NameConstraints { permitted_subtrees: permitted, excluded_subtrees: Vec::new() }
}

fn subtree(address: IpAddr, prefix: u8) -> GeneralSubtree {
    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix))
}

fn is_private(address: IpAddr) -> bool {
    let net = |(address, prefix): &(IpAddr, u8)| IpNet::new(*address, *prefix).ok();
    PRIVATE.iter().filter_map(net).any(|net| net.contains(&address))
}

/// A name as constraints say it: it stands for itself and all below it.
fn base(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a certificate of an authority says what it may vouch for.
pub(super) fn is_constrained(authority: &CertificateDer<'_>) -> bool {
    permitted(authority).is_some()
}

/// Whether the authority may vouch for a name or an address.
pub(super) fn permits(authority: &CertificateDer<'_>, name: &str) -> bool {
    let Some(permitted) = permitted(authority) else {
        return true;
    };
    match name.parse::<IpAddr>() {
        Ok(address) => permitted.addresses.iter().any(|subnet| holds(subnet, address)),
        Err(_) => {
            let name = base(name);
            permitted.names.iter().any(|base| {
                name.strip_suffix(base.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('.'))
            })
        }
    }
}

struct Permitted {
    names: Vec<String>,
    /// Address, then mask.
    addresses: Vec<Vec<u8>>,
}

fn permitted(authority: &CertificateDer<'_>) -> Option<Permitted> {
    let (_, parsed) = x509_parser::parse_x509_certificate(authority).ok()?;
    let subtrees = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::NameConstraints(constraints) => constraints.permitted_subtrees.as_ref(),
        _ => None,
    })?;
    let mut permitted = Permitted { names: Vec::new(), addresses: Vec::new() };
    for subtree in subtrees {
        match &subtree.base {
            GeneralName::DNSName(name) => permitted.names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => permitted.addresses.push(bytes.to_vec()),
            _ => {}
        }
    }
    Some(permitted)
}

fn holds(subnet: &[u8], address: IpAddr) -> bool {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let Some((net, mask)) = subnet.split_at_checked(octets.len()) else {
        return false;
    };
    mask.len() == octets.len()
        && octets.iter().zip(net).zip(mask).all(|((octet, net), mask)| octet & mask == net & mask)
}
