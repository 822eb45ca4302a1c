//! Floor 5. Addresses and networks of others in a configuration: trusted proxies, origins of pages.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;

use super::verdict::{Verdict, each};
use crate::domain::hostname;

/// In which header the trusted proxies say who the client is (`server.proxy_header`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// In one of the two. Where both are there and name different clients, one of them may be the client's own word, so
    /// neither counts.
    #[default]
    Either,
    XForwardedFor,
    Forwarded,
}

/// The first of the addresses of IPv6 that stand for one of IPv4 (RFC 4291, 2.5.5.2).
const IPV4_MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, 0, 0);
/// How many bits those share.
const MAPPED_BITS: u8 = 96;

/// An address, or a network in CIDR notation.
///
/// IPv4 in the form of IPv6 (`::ffff:10.0.0.0/104`) is read as the IPv4 that it is, as addresses of clients are.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let net = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    match net {
        IpNet::V6(mapped) => {
            let as_ipv4 = mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(MAPPED_BITS));
            let as_ipv4 = as_ipv4.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok());
            Some(as_ipv4.map_or(net, IpNet::V4))
        }
        IpNet::V4(_) => Some(net),
    }
}

/// Of everybody, every client could claim another address.
pub(super) fn trusted_proxies(texts: &[String]) -> Verdict {
    each(texts, trusted_proxy)?;
    let nets: Vec<IpNet> = texts.iter().filter_map(|text| network(text)).collect();
    match IpNet::aggregate(&nets).iter().any(|net| net.prefix_len() == 0) {
        true => Err("holds networks that together are everybody".to_owned()),
        false => Ok(()),
    }
}

fn trusted_proxy(text: &str) -> Verdict {
    match network(text) {
        Some(net) if net.prefix_len() == 0 => Err(format!("holds {text:?}, which is everybody")),
        Some(IpNet::V6(net)) if net.contains(&IPV4_MAPPED) => Err(format!(
            "holds {text:?}, which has all addresses of IPv4 in it: name the proxies' own network"
        )),
        Some(_) => Ok(()),
        None => Err(format!("holds {text:?}, which is neither an IP address nor a network as 10.0.0.0/24")),
    }
}

/// Schemes whose pages have no origin that a browser would name: it sends `null` for them, or they are no pages.
const SCHEMES_WITHOUT_ORIGIN: [&str; 8] = ["file", "data", "blob", "about", "javascript", "ws", "wss", "ftp"];

/// `https://host`, or `capacitor://localhost` and the like: apps that carry their pages with them have schemes of their
/// own. Browsers send `scheme://host[:port]`, and compare it as it is.
pub(super) fn origin(text: &str) -> Verdict {
    if text == "*" {
        return Ok(());
    }
    let (scheme, host) = text.split_once("://").unwrap_or_default();
    let usual_port = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let of_scheme = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c);
    // `htps` is a slip, not an app.
    let is_of_app = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(of_scheme)
        && !scheme.starts_with("ht");
    if SCHEMES_WITHOUT_ORIGIN.contains(&scheme) {
        return Err(format!(
            "holds {text:?}; browsers name no origin for pages of {scheme}:, so no page could use it"
        ));
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            hostname::problem(name).is_none() && !name.ends_with('.') && name == name.to_ascii_lowercase()
        }
    };
    let is_port = |port: &str| {
        port.chars().all(|c| c.is_ascii_digit()) && !port.starts_with('0') && port.parse::<u16>().is_ok()
    };
    match port {
        _ if !(usual_port.is_some() || is_of_app) || !is_name => Err(format!(
            "holds {text:?}, which is not of the form https://host or https://host:port in lower case, nor of an app's, \
             as capacitor://localhost"
        )),
        Some(port) if !is_port(port) => {
            Err(format!("holds {text:?}, with a port that is no number from 1 to 65535"))
        }
        // Browsers compare the text.
        Some(port) if usual_port.is_some() && port.parse().ok() == usual_port => {
            Err(format!("holds {text:?}, which no browser sends: {port} is left out"))
        }
        _ => Ok(()),
    }
}
